//! Blocks: each is opened as Prometheus opens it, and then verified further than that, to a [`Depth`].
//!
//! Prometheus checks of a block at a start its `meta.json`, and headers, tables and tombstones (`OpenBlock`, `tsdb/block.go`). Series,
//! postings and chunks it meets at queries and compactions.

pub(crate) mod chunks;
mod consequences;
mod depth;
pub mod detail;
pub(crate) mod opened;
mod report;
mod trouble;
mod verify;

use std::io::ErrorKind;
use std::path::Path;

pub use self::consequences::Consequence;
pub use self::depth::Depth;
use self::detail::{BlockDetail, Counted};
use self::opened::{NotOpened, NotOpenedKind, OpenedBlock, missing_chunk_file};
pub use self::report::{BlockReport, BlockState};
use self::trouble::{Trouble, Troubles};
use self::verify::Contents;
use super::code::Code;
use super::detail::{BlockEffect, Detail};
use super::findings::of_path;
use super::report::{Finding, Log, LogKind, Severity, Times};
use super::{Progress, ScanError};
use crate::tsdb::{Block, BlockMeta, list_blocks};

/// Whether what is wrong with a chunk is damage.
pub(crate) fn is_damage(detail: &BlockDetail) -> bool {
    verify::severity_of(detail) == Severity::Damage
}

/// The blocks of a directory, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ScannedBlocks {
    pub(super) blocks: Vec<BlockReport>,
    pub(super) findings: Vec<Finding>,
}

/// Verifies all blocks of the data directory `data`.
pub(super) fn read(data: &Path, depth: Depth, progress: &dyn Progress) -> Result<ScannedBlocks, ScanError> {
    // What cannot be listed, others complain about.
    let blocks = list_blocks(data).unwrap_or_default();
    progress.total(
        blocks.iter().map(|block| bytes_of(&data.join(&block.ulid), depth)).fold(0, u64::saturating_add),
    );
    let mut scanned = ScannedBlocks::default();
    let mut verified = Vec::new();
    for block in &blocks {
        let path = data.join(&block.ulid);
        let one = verify(&path, block, depth, progress);
        // A server may have deleted it meanwhile.
        if path.is_dir() {
            verified.push((block, one?));
        }
    }
    let loaded = verified.iter().filter(|(_, one)| one.not_opened.is_none());
    let metas = loaded.filter_map(|(block, _)| block.meta.as_ref().ok());
    let parents: Vec<&str> = metas.flat_map(|meta| &meta.parents).map(String::as_str).collect();
    let times: Vec<(&str, (i64, i64))> = verified
        .iter()
        .filter_map(|(block, _)| block.meta.as_ref().ok().map(|meta| (block.ulid.as_str(), meta)))
        .map(|(ulid, meta)| (ulid, (meta.min_time, meta.max_time)))
        .collect();
    for (block, one) in &verified {
        // A block that was compacted into one that is loaded is deleted, whatever is wrong with it (`reloadBlocks`, `tsdb/db.go`).
        let is_replaced = parents.contains(&block.ulid.as_str());
        let mut findings = if is_replaced { Vec::new() } else { one.findings(block) };
        findings.extend(undeleted(data, block).filter(|_| !is_replaced));
        let state = if is_replaced {
            BlockState::Replaced
        } else if block.meta.is_err() {
            BlockState::Skipped
        } else if one.not_opened.is_some() {
            BlockState::NotOpened
        } else if findings.iter().any(|finding| finding.severity == Severity::Damage) {
            BlockState::Damaged
        } else {
            BlockState::Intact
        };
        let overlaps = block.meta.as_ref().is_ok_and(|meta| {
            let overlaps = |times: (i64, i64)| times.0 < meta.max_time && meta.min_time < times.1;
            times.iter().any(|(other, times)| *other != block.ulid && overlaps(*times))
        });
        let consequences = consequences::of(state, &findings, overlaps);
        scanned.blocks.push(BlockReport { consequences, ..one.report(block, state) });
        scanned.findings.extend(findings);
    }
    Ok(scanned)
}

/// What is wrong with the index of a block, all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Structure {
    /// Series or postings cannot be read, or do not fit together.
    pub(crate) is_index_damaged: bool,
    /// Something is not in order, so that compactions fail.
    pub(crate) is_out_of_order: bool,
}

/// Verifies the index of a block.
pub(crate) fn structure_of(opened: &OpenedBlock) -> Structure {
    let mut troubles = Troubles::default();
    // Nobody cancels it.
    let _ = verify::verify(opened, Depth::Structure, &(), &mut troubles);
    let is_index_damaged = troubles.has(Code::DamagedBlockIndex);
    let is_out_of_order = troubles
        .into_kept()
        .iter()
        .any(|trouble| trouble.code == Code::BlockOutOfOrder && trouble.severity == Severity::Damage);
    Structure { is_index_damaged, is_out_of_order }
}

/// Bytes of a block that are read, as far as its files can be looked at.
fn bytes_of(block: &Path, depth: Depth) -> u64 {
    let length = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let chunks = || {
        let names = opened::chunk_file_names(&block.join("chunks")).unwrap_or_default();
        names.iter().map(|name| length(&block.join("chunks").join(name))).fold(0, u64::saturating_add)
    };
    length(&block.join("index")).saturating_add(if depth > Depth::Structure { chunks() } else { 0 })
}

/// What came of one block.
struct Verified {
    not_opened: Option<NotOpened>,
    contents: Option<Contents>,
    bytes: u64,
    troubles: Vec<Trouble>,
    tombstones: u64,
}

/// Verifies one block.
fn verify(path: &Path, block: &Block, depth: Depth, progress: &dyn Progress) -> Result<Verified, ScanError> {
    let opened = OpenedBlock::open(path, depth > Depth::Structure, &mut |bytes| progress.advance(bytes));
    let opened = match opened {
        Ok(opened) => opened,
        Err(NotOpened { name, kind: NotOpenedKind::Refused(number), .. }) => {
            let source = std::io::Error::from_raw_os_error(number);
            return Err(ScanError::Open { path: path.join(name), source });
        }
        Err(not_opened) => {
            let troubles = Vec::new();
            let not_opened = Some(not_opened);
            return Ok(Verified { not_opened, contents: None, bytes: 0, troubles, tombstones: 0 });
        }
    };
    let mut troubles = Troubles::default();
    for file in &opened.chunk_files {
        for range in file.unreadable.iter().flat_map(|bad| &bad.ranges) {
            let (name, detail) = (format!("chunks/{}", file.name), BlockDetail::ChunkOnBadPages);
            let trouble = Trouble::new(Code::Unreadable, Severity::Damage, &name, detail);
            troubles.push(trouble.at(range.clone()));
        }
    }
    let Some(contents) = verify::verify(&opened, depth, progress, &mut troubles) else {
        return Err(ScanError::Cancelled);
    };
    if let Ok(meta) = &block.meta {
        of_meta(block, meta, &contents, &opened, depth, &mut troubles);
    }
    let (bytes, tombstones) = (opened.bytes, opened.tombstones.len() as u64);
    let troubles = troubles.into_kept();
    Ok(Verified { not_opened: None, contents: Some(contents), bytes, troubles, tombstones })
}

/// Where `meta.json` and the block disagree.
fn of_meta(
    block: &Block,
    meta: &BlockMeta,
    contents: &Contents,
    opened: &OpenedBlock,
    depth: Depth,
    troubles: &mut Troubles,
) {
    // What is damaged cannot be counted.
    let is_damaged = troubles.has(Code::DamagedBlockIndex) || troubles.has(Code::DamagedBlockChunk);
    let missing = missing_chunk_file(&opened.chunk_files, meta);
    let mut differs = |detail| {
        troubles.push(Trouble::new(Code::BlockMetaDiffers, Severity::Warning, "meta.json", detail));
    };
    if let Some(ulid) = meta.ulid.as_ref().filter(|ulid| !ulid.eq_ignore_ascii_case(&block.ulid)) {
        differs(BlockDetail::OtherUlid { ulid: ulid.clone() });
    }
    let counts = [
        (Counted::Series, meta.series, contents.series, true),
        (Counted::Chunks, meta.chunks, contents.chunks, true),
        (Counted::Samples, meta.samples, contents.samples, depth > Depth::Structure),
    ];
    for (what, stated, found, is_counted) in counts {
        // Not every writer counts them.
        if is_counted && !is_damaged && missing.is_none() && stated != 0 && stated != found {
            differs(BlockDetail::OtherCount { what, stated, found });
        }
    }
    let stated = (meta.min_time, meta.max_time);
    if let Some(found) = contents.times.filter(|_| !is_damaged)
        && (found.0 < stated.0 || found.1 >= stated.1)
    {
        differs(BlockDetail::OutsideTimes { stated, found });
    }
    if let Some(place) = missing {
        let files = opened.chunk_files.len() as u64;
        let detail = BlockDetail::ChunkFileMissing { place, files };
        let file = format!("chunks/{place:06}");
        troubles.push(Trouble::new(Code::BlockIncomplete, Severity::Damage, &file, detail));
    }
}

impl Verified {
    fn findings(&self, block: &Block) -> Vec<Finding> {
        let mut findings = Vec::new();
        let path = |name: &str| format!("{}/{name}", block.ulid);
        if let Err(what) = &block.meta {
            let detail = Detail::BlockFault { what: what.clone(), then: BlockEffect::Skipped };
            findings.push(of_path(None, path("meta.json"), Code::BlockSkipped, Severity::Damage, detail));
        }
        if let Some(not_opened) = self.not_opened.as_ref() {
            let then = match not_opened.kind {
                NotOpenedKind::Crash => BlockEffect::Crashes,
                _ if not_opened.name == "tombstones" => BlockEffect::RefusesForTombstones,
                _ if block.meta.is_err() => BlockEffect::Skipped,
                _ => BlockEffect::RefusesToStart,
            };
            let detail = Detail::BlockFault { what: not_opened.error.clone(), then };
            let code = if block.meta.is_err() { Code::BlockSkipped } else { Code::BlockUnusable };
            findings.push(of_path(None, path(&not_opened.name), code, Severity::Damage, detail));
        }
        findings.extend(self.troubles.iter().map(|trouble| {
            let detail = Detail::Block(trouble.detail.clone());
            let finding = of_path(None, path(&trouble.file), trouble.code, trouble.severity, detail);
            let range = trouble.range.clone();
            Finding {
                offset: range.as_ref().map(|range| range.start),
                end: range.map(|range| range.end),
                series: trouble.series,
                times: trouble.times,
                places: trouble.places,
                lost: trouble.lost(),
                ..finding
            }
        }));
        findings
    }

    fn report(&self, block: &Block, state: BlockState) -> BlockReport {
        let meta = block.meta.as_ref().ok();
        let contents = self.contents;
        BlockReport {
            ulid: block.ulid.clone(),
            state,
            bytes: self.bytes,
            min_time: meta.map(|meta| meta.min_time).or(contents.and_then(|c| c.times).map(|t| t.0)),
            max_time: meta.map(|meta| meta.max_time).or(contents.and_then(|c| c.times).map(|t| t.1 + 1)),
            level: meta.map(|meta| meta.level),
            series: contents.map(|contents| contents.series),
            chunks: contents.map(|contents| contents.chunks),
            samples: contents.map(|contents| contents.samples),
            tombstones: self.tombstones,
            consequences: Vec::new(),
        }
    }
}

/// A block whose tombstones are gone: `meta.json` says how many there were (`Block.Delete`, `tsdb/block.go`).
fn undeleted(data: &Path, block: &Block) -> Option<Finding> {
    let tombstones = block.meta.as_ref().ok()?.tombstones;
    let path = format!("{}/tombstones", block.ulid);
    let is_missing =
        data.join(&path).symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let detail = Detail::TombstonesMissing { tombstones };
    (tombstones > 0 && is_missing)
        .then(|| of_path(None, path, Code::DeletionsLost, Severity::Warning, detail))
}

/// Times between blocks are no gap up to this, ms: a block begins with its first sample, and Prometheus shows a sample for so long
/// (`query.lookback-delta`, `cmd/prometheus/main.go`).
const LOOKBACK: i64 = 5 * 60 * 1000;

/// Times that two blocks have, and times between blocks, and between the last and the head, that none has.
pub(super) fn of_times(blocks: &[BlockReport], logs: &[Log]) -> Vec<Finding> {
    let mut loaded: Vec<(i64, i64, &str)> = blocks
        .iter()
        .filter(|block| matches!(block.state, BlockState::Intact | BlockState::Damaged))
        .filter_map(|block| Some((block.min_time?, block.max_time?, block.ulid.as_str())))
        .collect();
    loaded.sort_unstable();
    let note = |ulid: &str, code, detail, times: (i64, i64)| {
        let finding = of_path(None, ulid.to_owned(), code, Severity::Note, Detail::Block(detail));
        let times = Some(Times { from: Some(times.0), to: Some(times.1.saturating_sub(1)) });
        Finding { times, ..finding }
    };
    let mut findings = Vec::new();
    let mut latest: Option<(i64, &str)> = None;
    for &(min, max, ulid) in &loaded {
        if let Some((end, other)) = latest {
            if min < end {
                let times = (min, end.min(max));
                let detail = BlockDetail::Overlaps { other: other.to_owned(), times };
                findings.push(note(ulid, Code::BlocksOverlap, detail, times));
            } else if min.saturating_sub(end) > LOOKBACK {
                let times = (end, min);
                findings.push(note(ulid, Code::BlockGap, BlockDetail::Gap { times }, times));
            }
        }
        if latest.is_none_or(|(end, _)| max > end) {
            latest = Some((max, ulid));
        }
    }
    let head = logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Checkpoint));
    let head = head.filter_map(|log| log.min_time).min();
    if let Some(((end, ulid), head)) = latest.zip(head)
        && head.saturating_sub(end) > LOOKBACK
    {
        let times = (end, head);
        findings.push(note(ulid, Code::BlockGap, BlockDetail::Gap { times }, times));
    }
    findings
}
