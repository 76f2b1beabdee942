//! Files of head chunks: missing, damaged, or of a run that is gone.
//!
//! A start takes from the WAL no sample that is older than the last head chunk of its series (`tsdb/head_wal.go`, `mmMaxTime`): a
//! hole between chunks hides what the WAL has there. So the files end where the first fault is, and all later ones go into the
//! backup; what stood there is in the WAL. Before that no chunk moves, since markers in the WBL name chunks by file and offset:
//! one that is not of the series whose ref it has gets an encoding that nobody knows. Files at the beginning of the sequence that
//! are of a run that is gone as a whole go into the backup: any number may come first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::head_chunks::{CHUNKS_HEAD, TOO_OLD, neutral};
use super::no_step::NoStep;
use super::{Refusal, Scanned, repaired, unrepaired};
use crate::change::plan::{
    Change, Content, Diagnosis, Loss, Method, Patch, Plan, RepairedFinding, Resolution, Step,
    UnrepairedFinding,
};
use crate::forecast::report::Forecast;
use crate::scan::code::Code;
use crate::scan::heads::in_blocks;
use crate::scan::report::{Finding, LogKind, Severity};
use crate::tsdb::{HEAD_CHUNKS_HEADER, HeadChunk, HeadChunkError, HeadChunkFile, list_head_chunks};

/// Findings that are mended here.
const CODES: [Code; 7] = [
    Code::DamagedHeadChunk,
    Code::HeadChunksHeader,
    Code::HeadChunksNotSequential,
    Code::HeadChunksOfOtherSeries,
    Code::HeadChunksOutOfSequence,
    Code::WblWithoutSeries,
    Code::HeadChunksWithoutSeries,
];

/// Bytes of the beginning of a chunk by which Prometheus sees that there are no more: ref and times.
const BEGINNING: u64 = 24;

/// What is done in all.
#[derive(Default)]
pub(super) struct Steps {
    /// What makes nobody start who did not start before.
    pub(super) first: Vec<Step>,
    /// What Prometheus does not start for, and its findings: lifted last, if nothing is left.
    pub(super) last: Vec<Step>,
    lifted: Vec<UnrepairedFinding>,
    /// Whether refs are left that a fence keeps from being handed out again.
    pub(super) wants_fence: bool,
    /// Whether all that has refs has gone.
    pub(super) is_emptied: bool,
    /// Whether chunks go that a chunk snapshot counts on.
    pub(super) takes_chunks: bool,
}

impl Steps {
    /// Lifts what keeps Prometheus from starting, or says why not.
    pub(super) fn lift(self, plan: &mut Plan) {
        if plan.left.is_empty() {
            plan.steps.extend(self.last);
        } else {
            plan.left.extend(self.lifted);
        }
    }
}

/// The steps that mend what has been found of head chunks; takes these findings out of `findings`.
pub(super) fn steps<'a>(
    scanned: &Scanned<'a>,
    (has_generations, forecast): (bool, Option<&Forecast>),
    findings: &mut BTreeMap<&str, Vec<&'a Finding>>,
    plan: &mut Plan,
) -> io::Result<Steps> {
    let (mut found, mut misnamed): (Vec<&'a Finding>, Vec<&'a Finding>) = Default::default();
    for findings in findings.values_mut() {
        found.extend(findings.extract_if(.., |finding| CODES.contains(&finding.code)));
        misnamed.extend(findings.extract_if(.., |finding| finding.code == Code::MisnamedHeadChunks));
    }
    let mut steps = steps_of_chunks(scanned, (has_generations, forecast), found, plan)?;
    if has_generations || !(steps.first.is_empty() && steps.last.is_empty()) {
        let refused = misnamed.into_iter().map(|finding| unrepaired(finding, Refusal::OtherHeadChunksFirst));
        plan.left.extend(refused);
    } else {
        steps.first = names(scanned, &misnamed)?;
    }
    Ok(steps)
}

/// Files get the names by which Prometheus looks for them; of two for one name, that which has it stays.
fn names(scanned: &Scanned<'_>, misnamed: &[&Finding]) -> io::Result<Vec<Step>> {
    if misnamed.is_empty() {
        return Ok(Vec::new());
    }
    let directory = scanned.target.path().join(CHUNKS_HEAD);
    let listed = list_head_chunks(&directory, CHUNKS_HEAD)?;
    let mut taken = HashSet::new();
    let mut steps = Vec::new();
    for file in &listed.misnamed {
        let path = path_of(file);
        let Some(finding) = misnamed.iter().find(|finding| finding.path == path) else { continue };
        let right = file.right_name();
        if directory.join(&right).symlink_metadata().is_ok() || !taken.insert(right.clone()) {
            let resolution = Resolution::HeadChunksNameTaken { name: right };
            steps.push(aside(&path, file.length, finding, resolution));
        } else {
            let to = format!("{CHUNKS_HEAD}/{right}");
            let repaired = repaired(finding, Resolution::HeadChunksRenamed { name: right });
            steps.push(Step::of(Change::Rename { from: path, to }, repaired));
        }
    }
    Ok(steps)
}

fn steps_of_chunks<'a>(
    scanned: &Scanned<'a>,
    (has_generations, forecast): (bool, Option<&Forecast>),
    mut found: Vec<&'a Finding>,
    plan: &mut Plan,
) -> io::Result<Steps> {
    let mut steps = Steps::default();
    if !has_generations && let Some(asides) = all_that_hide(scanned, forecast, &found)? {
        steps.wants_fence = found.iter().any(|finding| is_above(finding));
        steps.first = asides;
        steps.takes_chunks = true;
        return Ok(steps);
    }
    let torn =
        || {
            scanned.report.findings.iter().filter(|finding| {
                finding.code == Code::DamagedHeadChunk && finding.severity == Severity::Note
            })
        };
    if found.is_empty() && plan.steps.is_empty() {
        return Ok(steps);
    }
    // What is only torn is mended with other damage: the WAL may have lost what stands before it.
    found.extend(torn());
    if found.is_empty() {
        return Ok(steps);
    }
    if has_generations {
        let damage = found.iter().filter(|finding| finding.severity == Severity::Damage);
        let (above, rest): (Vec<_>, Vec<_>) = damage.partition(|finding| is_above(finding));
        steps.wants_fence = !above.is_empty();
        plan.left.extend(rest.into_iter().map(|finding| unrepaired(finding, Refusal::HeadChunksChanged)));
        return Ok(steps);
    }
    let mut work = Work::of(scanned, found)?;
    let mut rest = work.of_others();
    if work.nothing_is_left(&mut rest, plan) {
        steps.is_emptied = true;
    } else {
        steps.wants_fence =
            work.find(Code::HeadChunksWithoutSeries).or_else(|| work.find(Code::WblWithoutSeries)).is_some();
        if let Err(no_step) = work.files(&mut rest, &mut steps) {
            let reason = no_step.refusal()?;
            let damage = work
                .found
                .iter()
                .filter(|finding| finding.severity == Severity::Damage && !is_above(finding));
            plan.left.extend(damage.map(|finding| unrepaired(finding, reason.clone())));
            return Ok(Steps { wants_fence: steps.wants_fence, ..Steps::default() });
        }
    }
    steps.first.splice(..0, rest);
    Ok(steps)
}

/// Where the first chunks of series are gone, the later ones hide what the WAL has of that time: all files go into the backup,
/// unless more stands in these alone.
fn all_that_hide(
    scanned: &Scanned<'_>,
    forecast: Option<&Forecast>,
    found: &[&Finding],
) -> io::Result<Option<Vec<Step>>> {
    let forecasts =
        forecast.into_iter().chain(forecast.and_then(|forecast| forecast.without_snapshots.as_deref()));
    let starts = forecasts.flat_map(|forecast| forecast.starts.iter().filter(|start| start.fatal.is_none()));
    let Some(start) = starts.max_by_key(|start| start.hidden_by_head_chunks.samples) else { return Ok(None) };
    let (hidden, only) = (start.hidden_by_head_chunks.samples, start.only_in_head_chunks.samples);
    let is_other = |finding: &&Finding| {
        [Code::HeadChunksOfOtherSeries, Code::HeadChunksHeader, Code::HeadChunksNotSequential]
            .contains(&finding.code)
    };
    if hidden <= only || found.iter().any(is_other) {
        return Ok(None);
    }
    let repaired = RepairedFinding::new(
        Code::HeadChunksHideSamples,
        Diagnosis::HeadChunksHideSamples { samples: hidden },
        Resolution::AllHeadChunksSetAside,
    );
    let listed = list_head_chunks(&scanned.target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
    let step = |file: &HeadChunkFile| {
        Step::of(Change::SetAside { path: path_of(file), bytes: file.length }, repaired.clone())
    };
    Ok(Some(listed.files.iter().rev().map(step).collect()))
}

fn path_of(file: &HeadChunkFile) -> String {
    format!("{CHUNKS_HEAD}/{}", file.name)
}

fn is_above(finding: &Finding) -> bool {
    [Code::HeadChunksWithoutSeries, Code::WblWithoutSeries].contains(&finding.code)
}

/// The files, what has been found of them, and chunks that no start is to take in.
struct Work<'a> {
    scanned: Scanned<'a>,
    found: Vec<&'a Finding>,
    files: Vec<HeadChunkFile>,
    /// What is older in order is in blocks, ms.
    in_blocks: i64,
}

impl<'a> Work<'a> {
    fn of(scanned: &Scanned<'a>, found: Vec<&'a Finding>) -> io::Result<Self> {
        let listed = list_head_chunks(&scanned.target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
        let mut files = listed.files;
        // Without a chunk it is removed without a word, and nothing is lost.
        let is_wanted = |file: &HeadChunkFile| {
            found
                .iter()
                .any(|finding| finding.code == Code::HeadChunksHeader && finding.path == path_of(file))
        };
        files.extend(listed.unwritten.filter(is_wanted));
        Ok(Self { scanned: *scanned, found, files, in_blocks: in_blocks(scanned.target.path()) })
    }

    fn find(&self, code: Code) -> Option<&'a Finding> {
        self.found.iter().copied().find(|finding| finding.code == code)
    }

    fn is_of_others(&self, chunk: &HeadChunk) -> bool {
        self.scanned.report.head_chunks.of_others.binary_search(&chunk.chunk_ref).is_ok()
    }

    fn is_plain(&self, path: &str) -> bool {
        self.scanned.target.path_of(path).symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    }

    /// Sets aside the files at the beginning in which all chunks are of other series.
    fn of_others(&mut self) -> Vec<Step> {
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
    fn nothing_is_left(&self, steps: &mut Vec<Step>, plan: &Plan) -> bool {
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
    fn files(&self, rest: &mut Vec<Step>, steps: &mut Steps) -> Result<(), NoStep> {
        let mut last: HashMap<u64, (i64, i64, u16)> = HashMap::new();
        let mut before: Option<i64> = None;
        for (at, file) in self.files.iter().enumerate() {
            let path = path_of(file);
            let of_file = |code: Code| {
                self.found.iter().copied().find(|finding| finding.code == code && finding.path == path)
            };
            let has_gap = before.is_some_and(|before| before.wrapping_add(1) != file.index);
            before = Some(file.index);
            if has_gap && let Some(finding) = of_file(Code::HeadChunksNotSequential) {
                return Ok(self.end(at, finding, (steps, true))?);
            }
            let header = of_file(Code::HeadChunksHeader);
            if !self.is_plain(&path) {
                // A link is opened as Prometheus opens it.
                if header.is_some() || of_file(Code::DamagedHeadChunk).is_some() {
                    return Err(Refusal::NoFile.into());
                }
                continue;
            }
            let ways = self.chunks(file, &mut last)?;
            if let Some(finding) = header {
                if ways.kept == 0 || ways.end.is_some() || file.length < HEAD_CHUNKS_HEADER.len() as u64 {
                    return Ok(self.end(at, finding, (steps, true))?);
                }
                let header = Content::Bytes(HEAD_CHUNKS_HEADER.to_vec());
                let patches =
                    vec![Patch { offset: 0, replaces: HEAD_CHUNKS_HEADER.len() as u64, with: header }];
                let repaired = repaired(finding, Resolution::HeadChunksHeaderWritten);
                steps.last.push(self.patch(&path, Method::InPlace, patches, vec![repaired])?);
                steps.lifted.push(unrepaired(finding, Refusal::NoStart));
                if !ways.patches.is_empty() {
                    return Err(Refusal::RepairAgain.into());
                }
                continue;
            }
            if let Some((offset, finding)) = ways.end {
                if ways.kept == 0 && ways.patches.is_empty() {
                    return Ok(self.end(at, finding, (steps, false))?);
                }
                // What stays would hide what the WAL has of the time before.
                if self.scanned.report.head_chunks.may_lack_first && rest.is_empty() {
                    return Ok(self.end(0, finding, (steps, false))?);
                }
                self.end(at + 1, finding, (steps, false))?;
                let (mut patches, mut repairs) = (ways.patches, ways.repairs);
                let end = if file.length - offset < 2 * BEGINNING { file.length } else { offset + BEGINNING };
                patches.push(Patch { offset, replaces: end - offset, with: Content::Zeros(end - offset) });
                repairs.push(repaired(finding, Resolution::HeadChunksTruncated));
                let method = if patches.len() > 1 { Method::Replace } else { Method::InPlace };
                steps.first.push(self.patch(&path, method, patches, repairs)?);
                return Ok(());
            }
            if !ways.patches.is_empty() {
                rest.push(self.patch(&path, Method::Replace, ways.patches, ways.repairs)?);
            }
        }
        Ok(())
    }

    /// Sets aside this file and all behind it, the last first.
    fn end(&self, at: usize, finding: &Finding, (steps, lifts): (&mut Steps, bool)) -> Result<(), Refusal> {
        let files = self.files.get(at..).unwrap_or_default();
        steps.takes_chunks = true;
        if !files.iter().all(|file| self.is_plain(&path_of(file))) {
            return Err(Refusal::NotAFileOfHeadChunks);
        }
        let asides = files.iter().rev().map(|file| {
            aside(&path_of(file), file.length, finding, Resolution::HeadChunksAfterFaultSetAside)
        });
        if lifts {
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
    ) -> io::Result<Step> {
        patches.sort_by_key(|patch| patch.offset);
        // Who else has this file by another name keeps it as it is.
        let has_names = self.scanned.target.path_of(path).metadata()?.nlink() > 1;
        let method = if has_names { Method::Replace } else { method };
        Ok(Step {
            change: Change::Patch { path: path.to_owned(), method, patches },
            repairs,
            lost: Loss::NOTHING,
        })
    }

    /// What is to be done in a file.
    fn chunks(
        &self,
        file: &HeadChunkFile,
        last: &mut HashMap<u64, (i64, i64, u16)>,
    ) -> Result<Ways<'a>, NoStep> {
        let path = path_of(file);
        let source = crate::io::open(&self.scanned.target.path_of(&path))?;
        let can_pass_over = self.scanned.options.assumed.version.passes_over_unknown_encodings();
        let mut ways = Ways::default();
        let (mut of_others, mut twice) = (0_u64, 0_u64);
        let mut chunks = file.chunks()?;
        loop {
            let from = chunks.at();
            match chunks.next() {
                None => break,
                Some(Ok(chunk)) if self.is_of_others(&chunk) => {
                    of_others += 1;
                    ways.patches.extend(neutral(&source, from, chunk.end)?);
                }
                Some(Ok(chunk)) => {
                    let is_loaded = !chunk.out_of_order
                        && (1..=6).contains(&chunk.encoding)
                        && chunk.max_time >= self.in_blocks;
                    let this = (chunk.min_time, chunk.max_time, chunk.samples);
                    let before = last.get(&chunk.series_ref).filter(|_| is_loaded);
                    if before.is_some_and(|&(_, max_time, _)| max_time >= chunk.min_time) {
                        let Some(finding) = self.find(Code::HeadChunksOutOfSequence) else { continue };
                        if before != Some(&this) {
                            ways.end = Some((from, finding));
                            break;
                        }
                        twice += 1;
                        ways.patches.extend(neutral(&source, from, chunk.end)?);
                        continue;
                    }
                    if is_loaded {
                        last.insert(chunk.series_ref, this);
                    }
                    ways.kept += 1;
                }
                Some(Err(HeadChunkError::Unreadable(_))) => {
                    return Err(Refusal::DiskFails.into());
                }
                Some(Err(_)) => {
                    let is_it =
                        |finding: &&&Finding| finding.code == Code::DamagedHeadChunk && finding.path == path;
                    let finding =
                        self.found.iter().find(is_it).copied().or_else(|| self.find(Code::HeadChunksHeader));
                    ways.end = finding.map(|finding| (from, finding));
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
                ways.repairs.extend(self.find(code).map(|finding| repaired(finding, resolution)));
            }
        }
        if ways.patches.is_empty() || can_pass_over { Ok(ways) } else { Err(TOO_OLD.into()) }
    }
}

/// What is to be done in a file.
#[derive(Default)]
struct Ways<'a> {
    /// Chunks that stay as they are.
    kept: u64,
    /// Chunks that are passed over.
    patches: Vec<Patch>,
    repairs: Vec<RepairedFinding>,
    /// Where the first fault is.
    end: Option<(u64, &'a Finding)>,
}

fn aside(path: &str, bytes: u64, finding: &Finding, resolution: Resolution) -> Step {
    let change = Change::SetAside { path: path.to_owned(), bytes };
    Step::of(change, repaired(finding, resolution))
}
