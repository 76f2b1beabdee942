//! Head chunks (`chunks_head/`): files that are missing or damaged, and chunks whose refs mean other series by now.
//!
//! Prometheus knows to whom a head chunk belongs by its ref alone (`tsdb/head.go`, `loadMmappedChunks`), and counts refs on from
//! the highest that a series record defines. If that record is gone, as after `wal/` was removed, it hands out the refs of
//! chunks that are still there, and the next start serves these under the labels of the new series.
//!
//! What proves it: Prometheus logs a series, and then its first sample. A chunk of samples in order that ends before that one is
//! of another series. All that is before such a chunk was written before it.

use std::path::Path;
use std::sync::Arc;

use foldhash::HashMap;
use rayon::prelude::*;

use super::code::Code;
use super::detail::{Detail, HeadChunkDamage, HeldChunks};
use super::findings::of_path;
use super::report::{Cause, Finding, Lost, Severity, Times};
use crate::tsdb::replay_order::ReplayOrder;
use crate::tsdb::{
    BlockMeta, CHUNKS_HEAD, HeadChunk, HeadChunkFile, HeadChunkFiles, Listing, Target, list_blocks,
    list_head_chunks,
};

/// By ref, when the first chunk in order begins and ends that a start loads, ms.
pub(super) type Earliest = HashMap<u64, (i64, i64)>;

/// What is known of head chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadChunkFacts {
    /// Those whose refs mean other series by now: where they are (`ChunkDiskMapperRef`), in order.
    pub(crate) of_others: Vec<u64>,
    /// The first of a series may begin after the first sample that the log has: it then hides those before it.
    pub(crate) may_lack_first: bool,
}

/// The highest ref that a series record defines.
#[derive(Clone, Copy, Debug)]
pub(super) enum HighestDefined {
    NotKnown,
    None,
    UpTo(u64),
}

impl HighestDefined {
    fn is_below(self, series_ref: u64) -> bool {
        match self {
            Self::NotKnown => false,
            Self::None => true,
            Self::UpTo(highest) => series_ref > highest,
        }
    }
}

/// What is in the files.
#[derive(Default)]
pub(super) struct ScannedHeadChunks {
    listed: HeadChunkFiles,
    /// What is older than this in order is in blocks, and no start loads it.
    in_blocks: i64,
    /// If the log is there from its beginning on, and so can be held against the chunks.
    pub(super) earliest: Option<Arc<Earliest>>,
    findings: Vec<Finding>,
}

/// What one file has.
#[derive(Default)]
struct ChunksSeen {
    chunks: Vec<Short>,
    /// Where, and what.
    damage: Vec<(u64, u64, HeadChunkDamage)>,
    /// Where its last complete chunk ends.
    end: u64,
}

/// What matters of a chunk.
#[derive(Clone, Copy)]
struct Short {
    series_ref: u64,
    chunk_ref: u64,
    min_time: i64,
    max_time: i64,
    samples: u16,
    out_of_order: bool,
    is_known: bool,
}

impl From<HeadChunk> for Short {
    fn from(chunk: HeadChunk) -> Self {
        let HeadChunk { series_ref, chunk_ref, min_time, max_time, samples, out_of_order, encoding, .. } =
            chunk;
        Self {
            series_ref,
            chunk_ref,
            min_time,
            max_time,
            samples,
            out_of_order,
            is_known: (1..=6).contains(&encoding),
        }
    }
}

impl ScannedHeadChunks {
    /// Of a data directory; nothing of others.
    pub(super) fn read(
        target: &Target,
        listing: &Listing,
        order: &ReplayOrder,
        is_written: &dyn Fn() -> bool,
    ) -> Self {
        let nothing = Self::default();
        if listing.alone || !target.is_data_directory() {
            return nothing;
        }
        let data = target.path();
        let Ok(listed) = listed(&data.join(CHUNKS_HEAD)) else { return nothing };
        let mut heads = Self { in_blocks: in_blocks(data), listed, ..Self::default() };
        let seen: Vec<ChunksSeen> =
            heads.listed.files.par_iter().map(|file| see(file, |chunk| heads.loads(chunk))).collect();
        let wal = order.wal.map(|at| &listing.logs[at].segments);
        let is_whole = order.checkpoint.is_none()
            && wal.is_some_and(|wal| wal.first().is_some_and(|first| first.index == 0));
        let mut last: HashMap<u64, (i64, i64)> = HashMap::default();
        let mut earliest = Earliest::default();
        let mut out_of_sequence: Vec<(usize, Short)> = Vec::new();
        for (at, seen) in seen.iter().enumerate() {
            for chunk in seen.chunks.iter().filter(|chunk| heads.loads(chunk) && !chunk.out_of_order) {
                match last.get(&chunk.series_ref) {
                    Some((_, end)) if *end >= chunk.min_time => out_of_sequence.push((at, *chunk)),
                    _ => drop(last.insert(chunk.series_ref, (chunk.min_time, chunk.max_time))),
                }
                if is_whole {
                    earliest.entry(chunk.series_ref).or_insert((chunk.min_time, chunk.max_time));
                }
            }
        }
        heads.of_names();
        heads.of_bytes(&seen, &out_of_sequence, is_written);
        if is_whole && !earliest.is_empty() {
            heads.earliest = Some(Arc::new(earliest));
        }
        heads
    }

    /// Whether a start takes in such a chunk.
    fn loads(&self, chunk: &Short) -> bool {
        chunk.is_known && (chunk.out_of_order || chunk.max_time >= self.in_blocks)
    }

    fn path_of(file: &HeadChunkFile) -> String {
        format!("{CHUNKS_HEAD}/{}", file.name)
    }

    /// Numbers that are missing, and what is at the beginning of each file (`openMMapFiles`).
    fn of_names(&mut self) {
        let mut findings = Vec::new();
        for pair in self.listed.files.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let (first, last) = (before.index.wrapping_add(1), after.index.wrapping_sub(1));
            if first == after.index {
                continue;
            }
            let detail = Detail::HeadChunkFilesMissing { numbers: first..=last };
            let finding =
                of_path(None, Self::path_of(after), Code::HeadChunksNotSequential, Severity::Damage, detail);
            findings.push(Finding { cause: Some(Cause::Files), ..finding });
        }
        for file in &self.listed.misnamed {
            let detail = Detail::HeadChunksMisnamed { name: file.right_name() };
            let finding =
                of_path(None, Self::path_of(file), Code::MisnamedHeadChunks, Severity::Damage, detail);
            findings.push(Finding { cause: Some(Cause::Files), ..finding });
        }
        for file in &self.listed.files {
            let Some(why) = file.header_error() else { continue };
            findings.push(of_path(
                None,
                Self::path_of(file),
                Code::HeadChunksHeader,
                Severity::Damage,
                Detail::HeadChunksHeader { why },
            ));
        }
        if let Some(file) = &self.listed.unwritten {
            let held = see(file, |_| false).chunks;
            if !held.is_empty() {
                let samples = held.iter().map(|chunk| u64::from(chunk.samples)).sum();
                let detail = Detail::HeadChunksNotOne { chunks: held.len() as u64, samples };
                findings.push(of_path(
                    None,
                    Self::path_of(file),
                    Code::HeadChunksHeader,
                    Severity::Damage,
                    detail,
                ));
            }
        }
        self.findings.extend(findings);
    }

    /// Chunks that cannot be read, or follow each other in the wrong order.
    fn of_bytes(
        &mut self,
        seen: &[ChunksSeen],
        out_of_sequence: &[(usize, Short)],
        is_written: &dyn Fn() -> bool,
    ) {
        let last = seen.len().saturating_sub(1);
        for (at, (file, seen)) in self.listed.files.iter().zip(seen).enumerate() {
            if file.header_error().is_some() {
                continue;
            }
            for &(offset, end, damage) in &seen.damage {
                // A crash leaves the last one half-written, and so does a server that is at work.
                let is_torn = at == last && offset >= seen.end && damage != HeadChunkDamage::Unexpected;
                if is_torn && is_written() {
                    continue;
                }
                let has_later = self.listed.files.len() - at > 1;
                let detail = Detail::HeadChunkDamaged { damage, has_later };
                let severity = if is_torn { Severity::Note } else { Severity::Damage };
                let finding = of_path(None, Self::path_of(file), Code::DamagedHeadChunk, severity, detail);
                let cause = is_torn.then_some(Cause::TornByCrash);
                self.findings.push(Finding { offset: Some(offset), end: Some(end), cause, ..finding });
            }
        }
        for &(at, chunk) in out_of_sequence.iter().take(1) {
            let Some(file) = self.listed.files.get(at) else { continue };
            let chunks = out_of_sequence.len() as u64;
            let detail = Detail::HeadChunksOverlap { series_ref: chunk.series_ref, chunks };
            let finding =
                of_path(None, Self::path_of(file), Code::HeadChunksOutOfSequence, Severity::Damage, detail);
            let offset = Some(chunk.chunk_ref & u64::from(u32::MAX));
            self.findings.push(Finding { offset, ..finding });
        }
    }

    /// What is found, and which chunks are of other series: `others` are refs with the time of the first sample that the log has
    /// of them right after their series record, and `defined` the highest ref that is defined.
    pub(super) fn findings(
        self,
        others: &HashMap<u64, i64>,
        defined: HighestDefined,
    ) -> (Vec<Finding>, HeadChunkFacts) {
        let files = &self.listed.files;
        let each =
            || files.iter().flat_map(|file| see(file, |_| false).chunks).filter(|chunk| self.loads(chunk));
        let mut findings = self.findings.clone();
        let mut facts = HeadChunkFacts::default();
        let is_certain = |chunk: &Short| {
            !chunk.out_of_order && others.get(&chunk.series_ref).is_some_and(|&first| chunk.max_time < first)
        };
        let last = if others.is_empty() {
            None
        } else {
            each().filter(is_certain).map(|chunk| chunk.chunk_ref).max()
        };
        if let (Some(last), Some(&lowest)) = (last, others.keys().min()) {
            let of_others: Vec<Short> =
                each().filter(|chunk| chunk.chunk_ref <= last && chunk.series_ref >= lowest).collect();
            let times = times(&of_others);
            let detail = Detail::HeadChunksReissued { held: held(&of_others, times) };
            let finding = of_path(
                None,
                CHUNKS_HEAD.to_owned(),
                Code::HeadChunksOfOtherSeries,
                Severity::Damage,
                detail,
            );
            findings.push(Finding {
                cause: Some(Cause::Files),
                series: Some(distinct(&of_others)),
                times,
                lost: Lost { records: Some(0), entries: Some(samples(&of_others)) },
                ..finding
            });
            facts.of_others = of_others.iter().map(|chunk| chunk.chunk_ref).collect();
        }
        let is_above = |chunk: &Short| {
            !chunk.out_of_order
                && defined.is_below(chunk.series_ref)
                && facts.of_others.binary_search(&chunk.chunk_ref).is_err()
        };
        let above: Vec<Short> = each().filter(is_above).collect();
        if !above.is_empty() {
            let times = times(&above);
            let detail = Detail::HeadChunksUndefined { held: held(&above, times) };
            let finding = of_path(
                None,
                CHUNKS_HEAD.to_owned(),
                Code::HeadChunksWithoutSeries,
                Severity::Damage,
                detail,
            );
            findings.push(Finding {
                series: Some(distinct(&above)),
                times,
                lost: Lost { records: Some(0), entries: Some(samples(&above)) },
                ..finding
            });
        }
        (findings, facts)
    }
}

/// The files. A server removes some meanwhile: they are listed until two listings agree.
fn listed(directory: &Path) -> std::io::Result<HeadChunkFiles> {
    const TRIES: usize = 20;
    let mut last = list_head_chunks(directory, CHUNKS_HEAD)?;
    for _ in 0..TRIES {
        let next = list_head_chunks(directory, CHUNKS_HEAD)?;
        if next == last {
            break;
        }
        last = next;
    }
    Ok(last)
}

fn samples(chunks: &[Short]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.samples)).sum()
}

fn distinct(chunks: &[Short]) -> u64 {
    let mut refs: Vec<u64> = chunks.iter().map(|chunk| chunk.series_ref).collect();
    refs.sort_unstable();
    refs.dedup();
    refs.len() as u64
}

fn times(chunks: &[Short]) -> Option<Times> {
    let from = chunks.iter().map(|chunk| chunk.min_time).min()?;
    let to = chunks.iter().map(|chunk| chunk.max_time).max()?;
    Some(Times { from: Some(from), to: Some(to) })
}

fn held(chunks: &[Short], times: Option<Times>) -> HeldChunks {
    let times = times.and_then(|times| times.from.zip(times.to));
    HeldChunks { chunks: chunks.len() as u64, samples: samples(chunks), times }
}

/// The chunks of a file; those that are wanted are decoded.
fn see(file: &HeadChunkFile, is_decoded: impl Fn(&Short) -> bool) -> ChunksSeen {
    let mut seen = ChunksSeen::default();
    let Ok(mut chunks) = file.chunks() else { return seen };
    loop {
        let from = chunks.at();
        let error = match chunks.next() {
            None => return seen,
            Some(Ok(chunk)) => {
                seen.end = chunk.end;
                let short = chunk.into();
                seen.chunks.push(short);
                if !is_decoded(&short) {
                    continue;
                }
                match chunks.fault(&chunk) {
                    Ok(fault) => {
                        seen.damage.extend(fault.map(|fault| (from, chunk.end, fault.into())));
                        continue;
                    }
                    Err(error) => error,
                }
            }
            Some(Err(error)) => error,
        };
        let to = chunks.at();
        let to = if to > from { to } else { file.length };
        seen.damage.push((from, to, (&error).into()));
    }
}

/// The time up to which samples in order are in blocks, ms (`inOrderBlocksMaxTime`, `tsdb/db.go`).
pub(crate) fn in_blocks(data: &Path) -> i64 {
    let blocks = list_blocks(data).unwrap_or_default();
    let metas = blocks.iter().filter_map(|block| block.meta.as_ref().ok());
    let in_order = metas.filter(|meta| !is_of_late_samples(meta));
    in_order.map(|meta| meta.max_time).max().unwrap_or(i64::MIN)
}

fn is_of_late_samples(meta: &BlockMeta) -> bool {
    ["from-out-of-order", "from-stale-series", "from-selected-series"].iter().any(|hint| meta.has_hint(hint))
}
