//! What is done about one block.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{Files, empty_file};
use super::tombstones::{NewTombstones, rewritten};
use super::uploaded::Uploaded;
use super::walk::{Walk, intact_chunks, is_lost};
use crate::block::write::{BlockStats, MetaJson};
use crate::block::{CHUNK_FILE_HEADER, Index, SalvagedIndex, parse_tombstones};
use crate::change::plan::{
    Change, Content, Defect, Loss, Method, Patch, PlanStep, RepairedFinding, Resolution, UnrepairedFinding,
};
use crate::io::mapped::Mapped;
use crate::record::DeletionsLost;
use crate::repair::{Options, Refusal, repaired, unrepaired};
use crate::scan::blocks::detail::BlockDetail;
use crate::scan::blocks::opened::{LONGEST_INDEX, LONGEST_TOMBSTONES, OpenedBlock};
use crate::scan::blocks::structure_of;
use crate::scan::code::Code;
use crate::scan::detail::Detail;
use crate::scan::report::Finding;
use crate::tsdb::Block;

/// A block with damage.
pub(super) struct DamagedBlock<'a> {
    path: PathBuf,
    data: &'a Path,
    block: &'a Block,
    findings: Vec<&'a Finding>,
    meta: Option<Vec<u8>>,
    /// Whether its index and `meta.json` stay as they are.
    is_final: bool,
    /// The first time of the WAL and its checkpoint, ms.
    log_begins: Option<i64>,
}

/// What is done, and what stays.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) steps: Vec<PlanStep>,
    pub(super) left: Vec<UnrepairedFinding>,
}

/// The steps of a block, by what they are about.
#[derive(Default)]
struct Steps {
    headers: Vec<PlanStep>,
    made: Vec<PlanStep>,
    index: Option<PlanStep>,
    meta: Option<PlanStep>,
    tombstones: Option<PlanStep>,
    /// Whether all chunks that stay are what the index says.
    are_as_indexed: bool,
    /// Chunks that stay as damage.
    kept_damage: u64,
}

/// More than any `meta.json` has.
const LONGEST_META: u64 = 64 << 20;

impl<'a> DamagedBlock<'a> {
    pub(super) fn new(
        data: &'a Path,
        block: &'a Block,
        findings: Vec<&'a Finding>,
        options: Options,
        uploaded: &Uploaded,
        log_begins: Option<i64>,
    ) -> Self {
        let path = data.join(&block.ulid);
        let meta = read(&path.join("meta.json"), LONGEST_META).ok().flatten();
        let is_final = !options.rewrite_uploaded && uploaded.has(&block.ulid, meta.as_deref());
        Self { path, data, block, findings, meta, is_final, log_begins }
    }

    /// Whether Prometheus does not start because of it.
    pub(super) fn keeps_from_starting(&self) -> bool {
        self.findings.iter().any(|finding| finding.code == Code::BlockUnusable)
    }

    /// Whether Prometheus does not load it.
    fn is_not_loaded(&self) -> bool {
        self.keeps_from_starting() || self.block.meta.is_err()
    }

    /// The findings that these steps repair, none of which is done.
    pub(super) fn refused(&self, steps: &[PlanStep], refusal: &Refusal) -> Vec<UnrepairedFinding> {
        let is_in = |finding: &&&Finding| {
            let repairs = |found: &RepairedFinding| {
                found.code == finding.code
                    && found.offset == finding.offset
                    && found.defect == Defect::Words(finding.message())
            };
            steps.iter().flat_map(|step| &step.repairs).any(repairs)
        };
        self.findings.iter().filter(is_in).map(|finding| unrepaired(finding, refusal.clone())).collect()
    }

    pub(super) fn plan(&self) -> io::Result<Planned> {
        if let Some(refusal) = self.refuses_links() {
            return Ok(self.left(&refusal));
        }
        let mut files = match Files::open(&self.path.join("chunks"), true) {
            Ok(files) => files,
            Err(error) if crate::io::is_refusal(&error) => return Err(error),
            Err(_) => return self.given_up(&Refusal::BlockUnreadable),
        };
        if files.has_bad_pages {
            return self.given_up(&Refusal::BlockUnreadable);
        }
        let index = match Mapped::open(&self.path.join("index"), LONGEST_INDEX) {
            Ok(mut index) => match index.prove(&mut |_| {}) {
                Ok(()) => index,
                Err(_) => return self.given_up(&Refusal::BlockUnreadable),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Mapped::nothing(),
            Err(error) if crate::io::is_refusal(&error) => return Err(error),
            _ => return self.given_up(&Refusal::BlockUnreadable),
        };
        let opened = Index::open(index.bytes());
        let salvaged = SalvagedIndex::open(index.bytes());
        let stones = match read(&self.path.join("tombstones"), LONGEST_TOMBSTONES) {
            Ok(stones) => stones,
            Err(error) if crate::io::is_refusal(&error) => return Err(error),
            Err(_) => return self.given_up(&Refusal::BlockUnreadable),
        };
        let new_stones = stones.as_deref().and_then(|stones| rewritten(stones, salvaged.as_ref()));
        let mut steps = Steps::default();
        let deletions = match (&new_stones, &stones) {
            (Some(new), _) => new.kept,
            (None, Some(stones)) => parse_tombstones(stones).map_or(0, |stones| stones.len() as u64),
            (None, None) => 0,
        };
        if let Some(new) = new_stones {
            steps.tombstones = Some(self.tombstones(stones.as_deref().unwrap_or_default(), new));
        }
        let Some(salvaged) = salvaged else {
            if opened.is_err() || self.block.meta.is_err() || !files.headers.is_empty() {
                return self.given_up(&Refusal::BlockIndex);
            }
            // Prometheus opens it, once its tombstones can be read.
            return Ok(self.assigned(steps, &Refusal::BlockIndex, false));
        };
        if !files.missing.is_empty() {
            let without = Files::open(&self.path.join("chunks"), false)?;
            if intact_chunks(&salvaged, &without.all) > intact_chunks(&salvaged, &files.all) {
                // The numbers have nothing to do with the places.
                files = without;
            }
        }
        let walk = Walk::of(&salvaged, index.bytes(), &files.all);
        let Some(times) = walk.times else {
            // No chunk can be read.
            return self.given_up(&Refusal::NothingReadable);
        };
        steps.are_as_indexed = !walk.has_others;
        steps.kept_damage = walk.kept_damage;
        for &(place, error) in &files.headers {
            if let Some(file) = files.all.get(place) {
                let step = self.header(&file.name, file.mapped.bytes().len() as u64, &error.to_string());
                steps.headers.push(step);
            }
        }
        steps.made.extend(files.missing.iter().map(|name| self.made(name)));
        let bytes = index.bytes().len() as u64;
        let opens = opened.is_ok();
        drop((opened, salvaged));
        let structure = opens.then(|| {
            let chunk_files = std::mem::take(&mut files.all);
            structure_of(&OpenedBlock { index, chunk_files, tombstones: Vec::new(), bytes })
        });
        let loses = !walk.dropped.is_empty() || walk.loses_series;
        if loses && self.has_whole_parents() {
            // A block that is loaded makes Prometheus delete what it was made from.
            return self.set_aside(|name, _| Resolution::ParentsInstead { name });
        }
        let wants_index = structure.is_none_or(|found| found.is_index_damaged) || !walk.dropped.is_empty();
        let out_of_order = structure.is_some_and(|found| found.is_out_of_order);
        let needs_index = wants_index && !self.is_final;
        if wants_index && self.is_final && !opens {
            return self.given_up(&Refusal::BlockUploaded);
        }
        if needs_index {
            steps.index = Some(self.index(bytes, &walk));
        }
        let mut stats = walk.stats;
        stats.tombstones = deletions;
        if let Err(error) = &self.block.meta {
            if self.is_final {
                return Ok(self.left(&Refusal::BlockUploaded));
            }
            if self.is_of_newer_version() {
                return Ok(self.left(&Refusal::BlockNewer));
            }
            let mut new = MetaJson::new(&self.block.ulid, times.0, times.1, &stats);
            // A block without the hint hides what the WAL has from before its end (`inOrderBlocksMaxTime`, `tsdb/db.go`). With it,
            // samples that both have are merged.
            let hint = self.log_begins.is_some_and(|begins| begins <= times.1);
            if hint {
                new.set(&["compaction", "hints"], serde_json::json!(["from-out-of-order"]));
            }
            steps.meta = Some(self.meta(new.to_bytes(), error, Resolution::MetaRebuilt { hint }));
        } else if needs_index
            && let Some(mut meta) = self.meta.as_deref().and_then(|meta| MetaJson::parse(meta).ok())
        {
            if !self.counts(&stats) {
                meta.set_stats(&stats);
            }
            // A block of the head has the range of its compaction, in which samples need not go up to the end.
            if !self.covers(times) {
                meta.set_times(times.0, times.1);
            }
            let stated = self.block.meta.as_ref().ok().and_then(|meta| meta.ulid.as_ref());
            if stated.is_some_and(|stated| !stated.eq_ignore_ascii_case(&self.block.ulid)) {
                meta.set(&["ulid"], self.block.ulid.as_str().into());
            }
            let old = self.meta.as_deref().and_then(|old| MetaJson::parse(old).ok());
            if old.as_ref() != Some(&meta) {
                steps.meta = Some(self.meta(meta.to_bytes(), "", Resolution::MetaUpdated));
            }
        }
        let rest = if self.is_final { Refusal::BlockUploaded } else { Refusal::NotYet };
        Ok(self.assigned(steps, &rest, out_of_order))
    }

    /// All of it stays, but for what keeps Prometheus from starting, or its compactions from going on.
    fn given_up(&self, refusal: &Refusal) -> io::Result<Planned> {
        let is_useless = *refusal == Refusal::NothingReadable && !self.is_final;
        // A disk may read it again, and who has uploaded it has it.
        let may_be_had = *refusal == Refusal::BlockUnreadable || self.is_final;
        let is_in_the_way = self.keeps_from_starting() || self.block.meta.is_err() && !may_be_had;
        if !is_in_the_way && !is_useless {
            return Ok(self.left(refusal));
        }
        self.set_aside(|name, times| Resolution::BlockRenamed { name, times })
    }

    /// Whether the blocks that it was made from are all there, with a `meta.json` and an index.
    fn has_whole_parents(&self) -> bool {
        let parents = self.block.meta.as_ref().map(|meta| meta.parents.as_slice()).unwrap_or_default();
        let opens = |ulid: &String| {
            let path = self.data.join(ulid);
            let meta = read(&path.join("meta.json"), LONGEST_META);
            meta.is_ok_and(|meta| meta.is_some()) && OpenedBlock::open(&path, false, &mut |_| {}).is_ok()
        };
        !parents.is_empty() && parents.iter().all(opens)
    }

    /// It gets a name that Prometheus ignores.
    fn set_aside(
        &self,
        resolution: impl FnOnce(String, Option<(i64, i64)>) -> Resolution,
    ) -> io::Result<Planned> {
        let name = free_name(self.data, &self.block.ulid)?;
        let stated =
            self.block.meta.as_ref().ok().map(|meta| (meta.min_time, meta.max_time.saturating_sub(1)));
        let resolution = resolution(name.clone(), stated);
        let change = Change::Rename { from: self.block.ulid.clone(), to: name };
        let repairs = self.findings.iter().map(|finding| repaired(finding, resolution.clone())).collect();
        Ok(Planned { steps: vec![PlanStep { change, repairs, lost: Loss::default() }], left: Vec::new() })
    }

    /// All of it stays.
    fn left(&self, refusal: &Refusal) -> Planned {
        let left = self.findings.iter().map(|finding| unrepaired(finding, refusal.clone())).collect();
        Planned { steps: Vec::new(), left }
    }

    /// Why nothing is written there: something is a link.
    fn refuses_links(&self) -> Option<Refusal> {
        let is_link = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.file_type().is_symlink());
        let chunks = self.path.join("chunks");
        if is_link(&chunks) {
            return Some(Refusal::LinkedDirectory);
        }
        let mut names: Vec<PathBuf> =
            ["meta.json", "index", "tombstones"].iter().map(|name| self.path.join(name)).collect();
        if let Ok(entries) = std::fs::read_dir(&chunks) {
            names.extend(entries.flatten().map(|entry| entry.path()));
        }
        names.iter().any(|path| is_link(path)).then_some(Refusal::WritesThroughLink)
    }

    /// Whether another Prometheus has written its `meta.json` than any that is known.
    fn is_of_newer_version(&self) -> bool {
        let meta =
            self.meta.as_deref().and_then(|meta| serde_json::from_slice::<serde_json::Value>(meta).ok());
        meta.and_then(|meta| meta.get("version")?.as_i64()).is_some_and(|version| version > 2)
    }

    fn below(&self, name: &str) -> String {
        format!("{}/{name}", self.block.ulid)
    }

    fn header(&self, name: &str, length: u64, error: &str) -> PlanStep {
        let header = CHUNK_FILE_HEADER;
        let replaces = length.min(header.len() as u64);
        let is_there = replaces == header.len() as u64;
        // What is shorter than a header is no file for any reader, so that half of one is no worse.
        let method = if is_there { Method::InPlace } else { Method::Replace };
        let patch = Patch { offset: 0, replaces, with: Content::Bytes(header.to_vec()) };
        let change =
            Change::Patch { path: self.below(&format!("chunks/{name}")), method, patches: vec![patch] };
        self.step(change, error, Resolution::ChunkFileHeaderWritten)
    }

    fn made(&self, name: &str) -> PlanStep {
        let change = Change::Create { path: self.below(&format!("chunks/{name}")), bytes: empty_file() };
        self.step(change, "the file is missing", Resolution::ChunkFileMade)
    }

    fn index(&self, bytes: u64, walk: &Walk) -> PlanStep {
        let change = Change::RewriteIndex {
            path: self.below("index"),
            bytes,
            series: walk.stats.series,
            chunks: walk.stats.chunks,
            dropped: walk.dropped.clone(),
            staged: None,
        };
        let resolution = Resolution::IndexRewritten { chunks: walk.lost_chunks() };
        let lost =
            if walk.dropped.is_empty() && !walk.loses_series { Loss::NOTHING } else { Loss::default() };
        PlanStep { lost, ..self.step(change, "the index names chunks that cannot be read", resolution) }
    }

    fn meta(&self, new: Vec<u8>, error: &str, resolution: Resolution) -> PlanStep {
        let defect =
            if error.is_empty() { "its counts and times are those of the block before" } else { error };
        let change = self.whole("meta.json", self.meta.as_ref().map(|meta| meta.len() as u64), new);
        self.step(change, defect, resolution)
    }

    fn tombstones(&self, old: &[u8], new: NewTombstones) -> PlanStep {
        let NewTombstones { bytes, kept, is_all } = new;
        let stated = self.block.meta.as_ref().map_or(0, |meta| meta.tombstones);
        let deletions = if is_all {
            DeletionsLost::None
        } else if stated > kept {
            DeletionsLost::Certain
        } else {
            DeletionsLost::Possible
        };
        let error = parse_tombstones(old).err().map(|error| error.to_string()).unwrap_or_default();
        let change = self.whole("tombstones", Some(old.len() as u64), bytes);
        let resolution = Resolution::TombstonesRewritten { kept, all: is_all };
        let step = self.step(change, &error, resolution);
        PlanStep { lost: Loss::NOTHING.with(deletions), ..step }
    }

    /// A small file gets other bytes as a whole.
    fn whole(&self, name: &str, length: Option<u64>, bytes: Vec<u8>) -> Change {
        let path = self.below(name);
        match length {
            None => Change::Create { path, bytes },
            Some(replaces) => {
                let patches = vec![Patch { offset: 0, replaces, with: Content::Bytes(bytes) }];
                Change::Patch { path, method: Method::Replace, patches }
            }
        }
    }

    /// Whether `meta.json` has the right counts.
    fn counts(&self, stats: &BlockStats) -> bool {
        self.block.meta.as_ref().is_ok_and(|meta| {
            (meta.series, meta.chunks, meta.samples) == (stats.series, stats.chunks, stats.samples)
        })
    }

    /// Whether `meta.json` states times that have these in them.
    fn covers(&self, (first, last): (i64, i64)) -> bool {
        self.block.meta.as_ref().is_ok_and(|meta| meta.min_time <= first && last < meta.max_time)
    }

    /// A step, with what it repairs if there is no finding for it.
    fn step(&self, change: Change, defect: &str, resolution: Resolution) -> PlanStep {
        let code = if self.is_not_loaded() { Code::BlockUnusable } else { Code::DamagedBlockIndex };
        PlanStep::of(change, RepairedFinding::new(code, Defect::Words(defect.to_owned()), resolution))
    }

    /// Gives each finding to the step that repairs it. Those for which there is none stay, by default with `rest`.
    fn assigned(&self, mut steps: Steps, rest: &Refusal, out_of_order: bool) -> Planned {
        let mut planned = Planned::default();
        // Those that have no finding keep what they have.
        let mut given: Vec<(String, RepairedFinding)> = Vec::new();
        let path_of = |step: &PlanStep| step.change.path().to_owned();
        for finding in &self.findings {
            let name = finding.path.split_once('/').map_or("", |(_, name)| name);
            let detail = match &finding.detail {
                Detail::Block(detail) => Some(detail),
                _ => None,
            };
            let headers =
                || steps.headers.iter().chain(&steps.made).find(|step| step.change.path() == finding.path);
            let index = steps.index.as_ref();
            let step = match (finding.code, name) {
                (Code::BlockSkipped, "meta.json") => steps.meta.as_ref(),
                (Code::BlockSkipped | Code::BlockUnusable, "tombstones") => steps.tombstones.as_ref(),
                (Code::BlockIncomplete, _) => headers(),
                // They were looked for in the wrong files.
                (Code::DamagedBlockChunk, _) if steps.are_as_indexed && !steps.made.is_empty() => {
                    steps.made.first()
                }
                (Code::DamagedBlockChunk, _) => index
                    .filter(|_| detail.is_none_or(|detail| is_lost(detail) || *detail == BlockDetail::More)),
                (Code::DamagedBlockIndex, _) | (Code::BlockSkipped | Code::BlockUnusable, "index") => index,
                (Code::BlockSkipped | Code::BlockUnusable, _) => headers().or(index),
                _ => None,
            };
            let resolution = step.and_then(|step| step.repairs.first()).map(|found| found.resolution.clone());
            let resolution = match (finding.code, detail, resolution) {
                (Code::DamagedBlockChunk, _, Some(Resolution::IndexRewritten { .. })) => {
                    Some(Resolution::ChunkDropped)
                }
                (
                    _,
                    Some(BlockDetail::SeriesUnreadable { .. } | BlockDetail::SymbolMissing { .. }),
                    Some(Resolution::IndexRewritten { .. }),
                ) => Some(Resolution::SeriesDropped),
                (.., resolution) => resolution,
            };
            if let Some((step, resolution)) = step.zip(resolution) {
                given.push((path_of(step), repaired(finding, resolution)));
                continue;
            }
            let refusal = match finding.code {
                Code::DamagedBlockChunk if !detail.is_some_and(is_lost) => Refusal::ChunkKept,
                Code::BlockOutOfOrder => Refusal::BlockOrder,
                Code::BlockIncomplete => Refusal::BlockNumbers,
                _ => rest.clone(),
            };
            planned.left.push(unrepaired(finding, refusal));
        }
        // A block that Prometheus does not open has no findings of its chunks.
        if steps.kept_damage > 0 && !planned.left.iter().any(|left| left.refusal == Refusal::ChunkKept) {
            planned.left.push(UnrepairedFinding {
                code: Code::DamagedBlockChunk.into(),
                path: self.below("chunks"),
                offset: None,
                end: None,
                refusal: Refusal::ChunkKept,
            });
        }
        let is_known = self.findings.iter().any(|finding| finding.code == Code::BlockOutOfOrder);
        if out_of_order && !is_known {
            planned.left.push(UnrepairedFinding {
                code: Code::BlockOutOfOrder.into(),
                path: self.below("index"),
                offset: None,
                end: None,
                refusal: Refusal::BlockOrder,
            });
        }
        let Steps { headers, made, index, meta, tombstones, .. } = &mut steps;
        let before = headers.drain(..).chain(made.drain(..)).chain(index.take());
        // Without a `meta.json` the block is not loaded, so that it comes last. Else the tombstones keep Prometheus from starting.
        let last = if self.block.meta.is_err() {
            [tombstones.take(), meta.take()]
        } else {
            [meta.take(), tombstones.take()]
        };
        for mut step in before.chain(last.into_iter().flatten()) {
            let path = step.change.path();
            let own = given.iter().filter(|(of, _)| of == path).map(|(_, found)| found.clone());
            let own: Vec<RepairedFinding> = own.collect();
            // How many chunks are dropped is said once.
            let says_more = matches!(
                step.repairs.first().map(|found| &found.resolution),
                Some(Resolution::IndexRewritten { chunks: 1.. })
            );
            if !own.is_empty() && !says_more {
                step.repairs.clear();
            }
            step.repairs.extend(own);
            planned.steps.push(step);
        }
        planned
    }
}

/// A name that Prometheus does not take for a block (`isBlockDir`, `tsdb/db.go`), and that nothing has.
fn free_name(data: &Path, ulid: &str) -> io::Result<String> {
    let first = format!("corrupted-{ulid}");
    let names = std::iter::once(first.clone()).chain((2..1000).map(|number| format!("{first}-{number}")));
    let mut free = names.filter(|name| data.join(name).symlink_metadata().is_err());
    free.next().ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// A small file; `None` if it is not there.
fn read(path: &Path, longest: u64) -> io::Result<Option<Vec<u8>>> {
    match crate::io::read(path, longest) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}
