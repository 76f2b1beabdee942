//! The files of head chunks, one after the other, up to the first fault.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::planned::{HeadChunkSteps, aside, path_of};
use crate::change::plan::{
    Change, Content, Loss, Method, Patch, Plan, PlanStep, RepairedFinding, Resolution,
};
use crate::chunk::Encoding;
use crate::forecast::report::Forecast;
use crate::repair::chunks::{CHUNKS_HEAD, neutral};
use crate::repair::no_step::NoStep;
use crate::repair::{Refusal, Scanned, repaired, unrepaired};
use crate::scan::code::Code;
use crate::scan::detail::Detail;
use crate::scan::heads::in_blocks;
use crate::scan::report::{Finding, LogKind};
use crate::tsdb::{HEAD_CHUNKS_HEADER, HeadChunk, HeadChunkError, HeadChunkFile, list_head_chunks};

/// Bytes of the beginning of a chunk by which Prometheus sees that there are no more: ref and times.
const BEGINNING: u64 = 24;

/// The files, what has been found of them, and chunks that no start is to take in.
pub(super) struct Walk<'a> {
    scanned: Scanned<'a>,
    pub(super) findings: Vec<&'a Finding>,
    files: Vec<HeadChunkFile>,
    /// What is older in order is in blocks, ms.
    in_blocks: i64,
    /// Whether the log has more of what is in chunks that cannot be decoded than is in head chunks alone.
    is_in_log: bool,
}

/// What is known of the chunks so far.
#[derive(Default)]
struct Before<'a> {
    /// By series, the times and samples of the last chunk in order.
    last: HashMap<u64, (i64, i64, u16)>,
    /// Series whose samples from some time on are to come from the log, since a chunk is skipped.
    from_log: HashMap<u64, &'a Finding>,
}

impl<'a> Walk<'a> {
    pub(super) fn of(
        scanned: &Scanned<'a>,
        forecast: Option<&Forecast>,
        findings: Vec<&'a Finding>,
    ) -> io::Result<Self> {
        let listed = list_head_chunks(&scanned.target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
        let mut files = listed.files;
        // Without a chunk it is removed without a word, and nothing is lost.
        let is_wanted = |file: &HeadChunkFile| {
            findings
                .iter()
                .any(|finding| finding.code == Code::HeadChunksHeader && finding.path == path_of(file))
        };
        files.extend(listed.unwritten.filter(is_wanted));
        let in_blocks = in_blocks(scanned.target.path());
        let mut walk = Self { scanned: *scanned, findings, files, in_blocks, is_in_log: false };
        let starts = forecast.into_iter().flat_map(|forecast| &forecast.starts);
        if let Some(only) = starts.map(|start| start.only_in_head_chunks.samples).max() {
            walk.is_in_log = walk.undecodable()? > only;
        }
        Ok(walk)
    }

    /// How many samples the chunks say they have that a start loads and no query can read.
    fn undecodable(&self) -> io::Result<u64> {
        let mut samples = 0;
        for file in self.files.iter().filter(|file| self.has_undecodable(&path_of(file))) {
            let mut chunks = file.chunks()?;
            while let Some(chunk) = chunks.next() {
                let Ok(chunk) = chunk else { continue };
                if self.is_loaded(&chunk) && chunks.fault(&chunk).is_ok_and(|fault| fault.is_some()) {
                    // Of none it says nothing: the log may have some.
                    samples += u64::from(chunk.samples.max(1));
                }
            }
        }
        Ok(samples)
    }

    /// Whether chunks of this file match their checksums and cannot be decoded.
    fn has_undecodable(&self, path: &str) -> bool {
        self.findings.iter().any(|finding| finding.path == path && is_of_loaded_chunk(finding))
    }

    /// Whether a start takes in such a chunk.
    fn is_loaded(&self, chunk: &HeadChunk) -> bool {
        Encoding::of(chunk.encoding).is_some() && (chunk.out_of_order || chunk.max_time >= self.in_blocks)
    }

    pub(super) fn find(&self, code: Code) -> Option<&'a Finding> {
        self.findings.iter().copied().find(|finding| finding.code == code)
    }

    fn is_of_others(&self, chunk: &HeadChunk) -> bool {
        self.scanned.report.head_chunks.of_others.binary_search(&chunk.chunk_ref).is_ok()
    }

    fn is_plain(&self, path: &str) -> bool {
        self.scanned.target.path_of(path).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Sets aside the files at the beginning in which all chunks are of other series.
    pub(super) fn of_others(&mut self) -> Vec<PlanStep> {
        let Some(finding) = self.find(Code::HeadChunksOfOtherSeries) else { return Vec::new() };
        let is_whole = |file: &&HeadChunkFile| {
            let Ok(mut chunks) = file.chunks() else { return false };
            let mut some = false;
            let all = chunks.all(|chunk| {
                chunk.is_ok_and(|chunk| self.is_of_others(&chunk)).then(|| some = true).is_some()
            });
            some && all && self.is_plain(&path_of(file))
        };
        let count = self.files.iter().take_while(is_whole).count();
        let resolution = Resolution::EarlierHeadChunksSetAside;
        let files = self.files.drain(..count);
        files.map(|file| aside(&path_of(&file), file.length, finding, resolution.clone())).collect()
    }

    /// Where no log says whose chunks, or samples in the WBL, are, and none comes back, they go into the backup: new series get
    /// their refs.
    pub(super) fn nothing_is_left(&self, steps: &mut Vec<PlanStep>, plan: &Plan) -> bool {
        let Some(finding) =
            self.find(Code::HeadChunksWithoutSeries).or_else(|| self.find(Code::WblWithoutSeries))
        else {
            return false;
        };
        let report = self.scanned.report;
        let replayed =
            report.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Checkpoint));
        let has_records = replayed.flat_map(|log| &log.segments).any(|segment| segment.records > 0);
        let comes_back = plan.steps.iter().any(|step| step.change.source().ends_with(".repair"));
        let snapshots = report.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot);
        let comes_back =
            comes_back || snapshots.flat_map(|log| &log.segments).any(|segment| segment.records > 0);
        let wbl = report.logs.iter().filter(|log| log.kind == LogKind::Wbl).flat_map(|log| &log.segments);
        let files = self.files.iter().map(|file| (path_of(file), file.length));
        let all: Vec<(String, u64)> =
            files.chain(wbl.map(|segment| (segment.path.clone(), segment.bytes))).collect();
        let is_changed =
            |path: &str| plan.steps.iter().any(|step| step.change.paths().any(|other| other == path));
        if has_records
            || comes_back
            || all.iter().any(|(path, _)| is_changed(path))
            || !all.iter().all(|(path, _)| self.is_plain(path))
        {
            return false;
        }
        let aside =
            |(path, bytes): &(String, u64)| aside(path, *bytes, finding, Resolution::UnassignedSetAside);
        steps.extend(all.iter().rev().map(aside));
        true
    }

    /// Goes through the files up to the first fault; or why nothing is done.
    pub(super) fn files(&self, rest: &mut Vec<PlanStep>, steps: &mut HeadChunkSteps) -> Result<(), NoStep> {
        let mut seen = Before::default();
        // What is skipped in a later file is skipped first: a chunk that stays hides what the log has.
        let asides = rest.len();
        let mut before: Option<i64> = None;
        for (at, file) in self.files.iter().enumerate() {
            let path = path_of(file);
            let of_file = |code: Code| {
                self.findings.iter().copied().find(|finding| finding.code == code && finding.path == path)
            };
            let has_gap = before.is_some_and(|before| before.wrapping_add(1) != file.index);
            before = Some(file.index);
            if has_gap && let Some(finding) = of_file(Code::HeadChunksNotSequential) {
                return Ok(self.end(at, finding, steps, Order::Last)?);
            }
            let header = of_file(Code::HeadChunksHeader);
            if !self.is_plain(&path) {
                // A link is opened as Prometheus opens it.
                if header.is_some() || of_file(Code::DamagedHeadChunk).is_some() {
                    return Err(Refusal::NoFile.into());
                }
                continue;
            }
            let found = self.chunks(file, &mut seen)?;
            steps.takes_chunks |= found.takes_chunks;
            if let Some(finding) = header {
                if found.kept == 0 || found.end.is_some() || file.length < HEAD_CHUNKS_HEADER.len() as u64 {
                    return Ok(self.end(at, finding, steps, Order::Last)?);
                }
                let header = Content::Bytes(HEAD_CHUNKS_HEADER.to_vec());
                let patches =
                    vec![Patch { offset: 0, replaces: HEAD_CHUNKS_HEADER.len() as u64, with: header }];
                let repaired = repaired(finding, Resolution::HeadChunksHeaderWritten);
                steps.last.push(self.patch(&path, Method::InPlace, patches, vec![repaired])?);
                steps.lifted.push(unrepaired(finding, Refusal::NoStart));
                if !found.patches.is_empty() {
                    return Err(Refusal::RepairAgain.into());
                }
                continue;
            }
            if let Some((offset, finding)) = found.end {
                if found.kept == 0 && found.patches.is_empty() {
                    return Ok(self.end(at, finding, steps, Order::First)?);
                }
                // What stays would hide what the WAL has of the time before.
                if self.scanned.report.head_chunks.may_lack_first && rest.is_empty() {
                    return Ok(self.end(0, finding, steps, Order::First)?);
                }
                self.end(at + 1, finding, steps, Order::First)?;
                let (mut patches, mut repairs) = (found.patches, found.repairs);
                let end = if file.length - offset < 2 * BEGINNING { file.length } else { offset + BEGINNING };
                patches.push(Patch { offset, replaces: end - offset, with: Content::Zeros(end - offset) });
                repairs.push(repaired(finding, Resolution::HeadChunksTruncated));
                let method = if patches.len() > 1 { Method::Replace } else { Method::InPlace };
                steps.first.push(self.patch(&path, method, patches, repairs)?);
                return Ok(());
            }
            if !found.patches.is_empty() {
                rest.insert(asides, self.patch(&path, Method::Replace, found.patches, found.repairs)?);
            }
        }
        Ok(())
    }

    /// Sets aside this file and all after it, the last first.
    fn end(
        &self,
        at: usize,
        finding: &Finding,
        steps: &mut HeadChunkSteps,
        order: Order,
    ) -> Result<(), Refusal> {
        let files = self.files.get(at..).unwrap_or_default();
        steps.takes_chunks = true;
        if !files.iter().all(|file| self.is_plain(&path_of(file))) {
            return Err(Refusal::NotAFileOfHeadChunks);
        }
        let asides = files.iter().rev().map(|file| {
            aside(&path_of(file), file.length, finding, Resolution::HeadChunksAfterFaultSetAside)
        });
        if order == Order::Last {
            steps.last.extend(asides);
            steps.lifted.push(unrepaired(finding, Refusal::NoStart));
        } else {
            steps.first.extend(asides);
        }
        Ok(())
    }

    fn patch(
        &self,
        path: &str,
        method: Method,
        mut patches: Vec<Patch>,
        repairs: Vec<RepairedFinding>,
    ) -> io::Result<PlanStep> {
        patches.sort_by_key(|patch| patch.offset);
        // Who else has this file by another name keeps it as it is.
        let has_names = self.scanned.target.path_of(path).metadata()?.nlink() > 1;
        let method = if has_names { Method::Replace } else { method };
        Ok(PlanStep {
            change: Change::Patch { path: path.to_owned(), method, patches },
            repairs,
            lost: Loss::NOTHING,
        })
    }

    /// What has been found of the chunk there, that a start loads and no query can read.
    fn undecodable_at(&self, path: &str, offset: u64) -> Option<&'a Finding> {
        let of_file = || {
            self.findings
                .iter()
                .filter(|finding| finding.path == path && is_of_loaded_chunk(finding))
                .copied()
        };
        of_file().find(|finding| finding.offset == Some(offset)).or_else(|| of_file().next())
    }

    /// What is to be done in a file.
    fn chunks(&self, file: &HeadChunkFile, before: &mut Before<'a>) -> Result<FileSteps<'a>, NoStep> {
        let path = path_of(file);
        let source = crate::io::open(&self.scanned.target.path_of(&path))?;
        let can_pass_over = self.scanned.options.assumed.version.passes_over_unknown_encodings();
        let mut found = FileSteps::default();
        let (mut of_others, mut twice) = (0_u64, 0_u64);
        let mut later: BTreeMap<u64, (u64, &'a Finding)> = BTreeMap::new();
        let has_undecodable = self.has_undecodable(&path);
        let mut chunks = file.chunks()?;
        loop {
            let from = chunks.at();
            match chunks.next() {
                None => break,
                Some(Ok(chunk)) if self.is_of_others(&chunk) => {
                    of_others += 1;
                    found.patches.extend(neutral(&source, from, chunk.end)?);
                }
                Some(Ok(chunk)) => {
                    let is_loaded = self.is_loaded(&chunk);
                    if has_undecodable
                        && is_loaded
                        && chunks.fault(&chunk).map_err(|_| Refusal::DiskFails)?.is_some()
                        && let Some(finding) = self.undecodable_at(&path, from)
                    {
                        // Samples out of order come back from the WBL if no later chunk is there.
                        if !can_pass_over
                            || chunk.out_of_order && self.is_in_log
                            || self.find(Code::HeadChunksOutOfSequence).is_some()
                        {
                            found.end = Some((from, finding));
                            break;
                        }
                        let is_in_log = self.is_in_log && !chunk.out_of_order;
                        found.patches.extend(neutral(&source, from, chunk.end)?);
                        found
                            .repairs
                            .push(repaired(finding, Resolution::UndecodableHeadChunkSkipped { is_in_log }));
                        found.takes_chunks = true;
                        if is_in_log {
                            before.from_log.entry(chunk.series_ref).or_insert(finding);
                        }
                        continue;
                    }
                    let is_loaded = is_loaded && !chunk.out_of_order;
                    if is_loaded && let Some(&finding) = before.from_log.get(&chunk.series_ref) {
                        found.patches.extend(neutral(&source, from, chunk.end)?);
                        later.entry(chunk.series_ref).or_insert((0, finding)).0 += 1;
                        continue;
                    }
                    let this = (chunk.min_time, chunk.max_time, chunk.samples);
                    let earlier = before.last.get(&chunk.series_ref).filter(|_| is_loaded);
                    if earlier.is_some_and(|&(_, max_time, _)| max_time >= chunk.min_time) {
                        let Some(finding) = self.find(Code::HeadChunksOutOfSequence) else { continue };
                        if earlier != Some(&this) {
                            found.end = Some((from, finding));
                            break;
                        }
                        twice += 1;
                        found.patches.extend(neutral(&source, from, chunk.end)?);
                        continue;
                    }
                    if is_loaded {
                        before.last.insert(chunk.series_ref, this);
                    }
                    found.kept += 1;
                }
                Some(Err(HeadChunkError::Unreadable(_))) => {
                    return Err(Refusal::DiskFails.into());
                }
                Some(Err(_)) => {
                    let is_it = |finding: &&&Finding| {
                        finding.code == Code::DamagedHeadChunk
                            && finding.path == path
                            && !is_of_loaded_chunk(finding)
                    };
                    let finding = self
                        .findings
                        .iter()
                        .find(is_it)
                        .copied()
                        .or_else(|| self.find(Code::HeadChunksHeader));
                    found.end = finding.map(|finding| (from, finding));
                    break;
                }
            }
        }
        let earlier = Resolution::EarlierHeadChunksSkipped { chunks: of_others };
        let repeated = Resolution::RepeatedHeadChunksSkipped { chunks: twice };
        for (count, code, resolution) in [
            (of_others, Code::HeadChunksOfOtherSeries, earlier),
            (twice, Code::HeadChunksOutOfSequence, repeated),
        ] {
            if count > 0 {
                found.repairs.extend(self.find(code).map(|finding| repaired(finding, resolution)));
            }
        }
        for (chunks, finding) in later.into_values() {
            found.repairs.push(repaired(finding, Resolution::LaterHeadChunksSkipped { chunks }));
        }
        if found.patches.is_empty() || can_pass_over { Ok(found) } else { Err(Refusal::TooOld.into()) }
    }
}

/// Whether it is about a chunk that a start loads all the same.
pub(super) fn is_of_loaded_chunk(finding: &Finding) -> bool {
    matches!(finding.detail, Detail::HeadChunkDamaged { damage, .. } if damage.is_loaded())
}

/// When files are set aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// At once.
    First,
    /// After all else: Prometheus does not start with them.
    Last,
}

/// What is to be done in a file.
#[derive(Default)]
struct FileSteps<'a> {
    /// Chunks that stay as they are.
    kept: u64,
    /// Chunks that are skipped.
    patches: Vec<Patch>,
    repairs: Vec<RepairedFinding>,
    /// Whether chunks are skipped whose samples come from the log.
    takes_chunks: bool,
    /// Where the first fault is.
    end: Option<(u64, &'a Finding)>,
}
