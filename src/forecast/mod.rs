//! Prometheus itself, as a model: what it reads of a directory, what it then deletes, and what it serves, start by start.
//!
//! The model is literal, with Prometheus's quirks: `replay` reads bytes as its reader does, `start` opens, repairs and
//! deletes in its order, `checkpoint` reads for the next checkpoint, and `served` holds what queries would then return.
//! No file is changed: a start works on a `directory` of names.

mod checkpoint;
mod decode;
mod directory;
mod head_chunks;
mod readings;
pub mod replay;
pub mod report;
mod room;
mod served;
mod start;
mod stream;
mod version;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use self::directory::{Directory, Holds, LastCheckpoint, Log};
pub use self::head_chunks::HeadChunks;
use self::readings::Readings;
use self::replay::Reader;
use self::report::{Forecast, Outcome, Place, Start, Truncate};
#[doc(hidden)]
pub use self::served::count_one_by_one;
pub use self::served::{Counted, SnapshotReads, StartReads, Stretch, count, min_valid_time};
use self::start::{End, Run, Stopped};
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::deletions::{self, DeletionsLost};
use crate::scan::report::{Dialect, Finding, Report, Segment, Severity};
use crate::scan::settled::Settlements;
pub use crate::tsdb::{Assumed, Version, VersionError};
use crate::tsdb::{
    CHUNKS_HEAD, HeadChunkFile, Listing, LogDirectory, LogKind, Target, list_blocks, list_head_chunks,
};

/// How many starts are tried before it is said that they go on like the last. A start adds one segment, and a checkpoint
/// has a few at the most.
const STARTS: usize = 16;

/// Why nothing can be foretold.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path} to forecast what Prometheus would do")]
pub struct ForecastError {
    path: PathBuf,
    source: io::Error,
}

/// What Prometheus would do with the data directory of `target`, of which `report` is the scan. `None` if there is no
/// WAL of Prometheus's: a path that is one segment, checkpoint or snapshot alone, or a directory of Loki's.
///
/// A directory that the scan finds clean is not read again, unless an older version or an agent is assumed.
///
/// # Errors
/// If a file cannot be opened, or a directory not be listed.
pub fn forecast(target: &Target, report: &Scan, assumed: Assumed) -> Result<Option<Forecast>, ForecastError> {
    let scanned = target;
    let Some(target) = scanned.data_directory() else { return Ok(None) };
    if report.logs.iter().any(|log| log.dialect == Dialect::Loki) {
        return Ok(None);
    }
    let failed = |source| ForecastError { path: target.path().to_owned(), source };
    let listing = target.list().map_err(failed)?;
    if !listing.logs.iter().any(|log| log.kind == LogKind::Wal) {
        return Ok(None);
    }
    let known = Known::of(scanned, report, &listing);
    let mut forecast = foretell(target.path(), &listing, &known, (assumed, true)).map_err(failed)?;
    if !assumed.agent && listing.logs.iter().any(|log| log.kind == LogKind::ChunkSnapshot) {
        let without = foretell(target.path(), &listing, &known, (assumed, false)).map_err(failed)?;
        forecast.without_snapshots = Some(Box::new(without));
    }
    forecast.refuses_until =
        if assumed.agent { None } else { refuses_until(target.path(), &listing, report, assumed.version) };
    let serves = forecast.starts.last().is_some_and(|start| start.fatal.is_none());
    if !assumed.agent && serves && report.findings.iter().any(Finding::is_of_reissued_refs) {
        forecast.next_compaction_error = Some(COMPACTION_FAILS.to_owned());
    }
    if !assumed.agent && serves && forecast.next_compaction_error.is_none() {
        let heads = list_head_chunks(&target.path().join(CHUNKS_HEAD), CHUNKS_HEAD).map_err(failed)?;
        let is_missing = |file: &&HeadChunkFile| !file.path.with_file_name(file.right_name()).exists();
        forecast.next_compaction_error = heads.misnamed.iter().find(is_missing).map(|file| {
            let shown = target.path().components().as_path().join(CHUNKS_HEAD).join(file.right_name());
            format!("{CANNOT_REMOVE}remove {}: no such file or directory", shown.display())
        });
    }
    forecast.no_room = room::lacking(target.path(), &forecast);
    Ok(Some(forecast))
}

/// What a compaction says of a ref that two series records have: the one series is in the head's postings twice
/// (`AddSeries`, `tsdb/index/index.go`).
const COMPACTION_FAILS: &str = "out-of-order series added with label set";

/// What a compaction says that cannot remove a file of head chunks.
const CANNOT_REMOVE: &str = "head memory truncate: truncate chunks.HeadReadWriter by file number: ";

/// Half of the range of a block that the head is compacted into, by default, ms: a sample that is older than the newest one by
/// more is refused (`appendableMinValidTime`, `tsdb/head_append.go`).
const APPENDABLE: i64 = 3_600_000;

/// Up to when a server refuses every scrape, since the newest sample of the logs or the end of a block is in the future, ms.
/// With an out-of-order time window of more than an hour it takes them; the directory does not tell.
#[must_use]
pub fn refuses_until(data: &Path, listing: &Listing, report: &Report, version: Version) -> Option<i64> {
    let logs = report.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Checkpoint));
    let newest = logs.filter(|log| log.dialect == Dialect::Prometheus).filter_map(|log| log.max_time).max();
    let of_head = newest.map_or(i64::MIN, |newest| newest.saturating_sub(APPENDABLE));
    let of_blocks = list_blocks(data).map_or(i64::MIN, |blocks| min_valid_time(listing, &blocks, version));
    let until = of_head.max(of_blocks);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis();
    i64::try_from(now).is_ok_and(|now| until > now).then_some(until)
}

/// What a start would come to that replays all that there is, and loads the last chunk snapshot first: whether its number lets it or
/// not. `None` if there is none.
///
/// # Errors
/// As of [`forecast`].
pub fn with_last_snapshot(
    target: &Target,
    listing: &Listing,
    report: &Scan,
    assumed: Assumed,
) -> io::Result<Option<Counted>> {
    let known = Known::of(target, report, listing);
    let snapshots = listing.logs.iter().enumerate().filter(|(_, log)| log.kind == LogKind::ChunkSnapshot);
    let last = snapshots.filter_map(|(at, log)| Some((log.snapshot_position()?, at))).max();
    let Some(((index, offset), log)) = last else { return Ok(None) };
    let root = target.path();
    let min_valid_time = min_valid_time(listing, &list_blocks(root)?, assumed.version);
    let of_others = known.head_chunks_of_others;
    let head_chunks = head_chunks::of_now(root, min_valid_time, assumed.version, of_others)?;
    let is_replayed = |log: &usize| listing.logs[*log].kind != LogKind::ChunkSnapshot;
    let all = (0..listing.logs.len()).filter(is_replayed).flat_map(|log| {
        let segments = 0..listing.logs[log].segments.len();
        segments.map(move |segment| Stretch { log, segment, upto: None })
    });
    let replayed: Vec<Stretch> = all.collect();
    let start = StartReads {
        serves: true,
        left: replayed.clone(),
        replayed,
        head_chunks_deleted: head_chunks.error.is_some(),
        snapshot: Some(SnapshotReads { log, index, offset }),
    };
    let counted = count(listing, known.settled, &[start], assumed.version, min_valid_time, &head_chunks)?;
    Ok(counted.first().copied())
}

/// What a scan says of the segments of a listing.
struct Known<'a> {
    /// The segments that were scanned.
    segments: HashMap<(usize, usize), &'a Segment>,
    /// Where each finding begins, of the segments that have one.
    findings: BTreeMap<(usize, usize), Vec<u64>>,
    /// What was found in each segment, where that is only damage of single places: else none.
    damage: HashMap<(usize, usize), Option<Vec<&'a Finding>>>,
    /// The logs that have tombstones.
    have_deletions: HashSet<usize>,
    /// Whether anything is worse than normal.
    troubled: bool,
    /// How what was in doubt was settled.
    settled: &'a Settlements,
    /// Places of head chunks that are of a run that is gone.
    head_chunks_of_others: &'a [u64],
    /// The first of a series may begin after the first sample that the log has.
    may_lack_first: bool,
}

impl<'a> Known<'a> {
    /// Of the scan of `scanned`.
    fn of(scanned: &Target, report: &'a Scan, listing: &Listing) -> Self {
        let full = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // Of a single file the paths of a report are no paths below it.
        let below = |relative: &str| full(&scanned.path().join(relative));
        let mut at = HashMap::new();
        for (log, directory) in listing.logs.iter().enumerate() {
            for (segment, file) in directory.segments.iter().enumerate() {
                at.insert(full(&file.path), (log, segment));
            }
        }
        let segments = report.logs.iter().flat_map(|log| &log.segments);
        let segments =
            segments.filter_map(|segment| Some((*at.get(&below(&segment.path))?, segment))).collect();
        let mut findings: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        let mut damage: HashMap<_, Option<Vec<&Finding>>> = HashMap::new();
        // Zeros at an end and empty segments are clean to every reader.
        let is_normal = |code| matches!(code, Code::TrailingZeros | Code::EmptySegment);
        let findings_of_segments =
            report.findings.iter().filter(|finding| finding.segment.is_some() && !is_normal(finding.code));
        for finding in findings_of_segments {
            if let Some(&place) = at.get(&below(&finding.path)) {
                findings.entry(place).or_default().push(finding.offset.unwrap_or(0));
                let all = damage.entry(place).or_insert_with(|| Some(Vec::new()));
                *all = all.take().filter(|_| is_one_place(finding)).map(|mut all| {
                    all.push(finding);
                    all
                });
            }
        }
        let troubled = report.findings.iter().any(|finding| finding.severity != Severity::Note);
        let head_chunks_of_others = &report.head_chunks.of_others;
        let may_lack_first = report.head_chunks.may_lack_first;
        let logs = listing.logs.iter().enumerate();
        let has_deletions = |log: &LogDirectory| {
            report.logs.iter().any(|scanned| scanned.path == log.relative && scanned.entries.tombstones > 0)
        };
        let have_deletions = logs.filter(|(_, log)| has_deletions(log)).map(|(at, _)| at).collect();
        Self {
            segments,
            findings,
            damage,
            have_deletions,
            troubled,
            settled: &report.settled,
            head_chunks_of_others,
            may_lack_first,
        }
    }

    fn is_clean(&self, log: usize, segment: usize) -> bool {
        self.segments.contains_key(&(log, segment)) && !self.findings.contains_key(&(log, segment))
    }
}

/// Whether a finding is about the bytes of one place, of which it has the range.
fn is_one_place(finding: &Finding) -> bool {
    let of_bytes = matches!(
        finding.code,
        Code::ChecksumMismatch
            | Code::InvalidLength
            | Code::InvalidType
            | Code::JunkInPadding
            | Code::UnpackError
            | Code::TornRecord
            | Code::UnfinishedRecord
            | Code::HeadlessRecord
            | Code::ZeroedPages
            | Code::ZeroedTail
    );
    of_bytes && finding.places == 1 && finding.offset.is_some() && finding.end.is_some()
}

/// A start and what it leaves.
struct Step {
    run: Run,
    deletes: Vec<String>,
    truncates: Vec<Truncate>,
    left: Vec<Stretch>,
    head_chunks_deleted: bool,
}

impl Step {
    fn is_like(&self, other: &Self) -> bool {
        self.run == other.run
            && self.deletes == other.deletes
            && self.truncates == other.truncates
            && self.left == other.left
    }
}

/// With chunk snapshots, or without.
fn foretell(
    root: &Path,
    listing: &Listing,
    known: &Known<'_>,
    (assumed, snapshots): (Assumed, bool),
) -> io::Result<Forecast> {
    // What the salvage reader finds clean, the newest reader finds clean; older ones and agents may not.
    let read_all = assumed.agent || assumed.version < Version::NEWEST;
    let doubt = |log: usize, segment: usize| read_all || !known.is_clean(log, segment);
    let (min_valid_time, head_chunks) = if assumed.agent {
        (i64::MIN, HeadChunks::default())
    } else {
        let min_valid_time = min_valid_time(listing, &list_blocks(root)?, assumed.version);
        let of_others = known.head_chunks_of_others;
        (min_valid_time, head_chunks::of_now(root, min_valid_time, assumed.version, of_others)?)
    };
    let mut readings = Readings::new(root, listing, assumed.version, &doubt, known.settled, &head_chunks);
    let mut directory = Directory::of(listing);
    directory.snapshot &= snapshots;
    directory.temporaries.extend(head_chunks.unwritten.iter().map(|name| format!("chunks_head/{name}")));
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..STARTS {
        let before = directory.clone();
        let run = if assumed.agent {
            start::agent(&mut directory, &mut readings)
        } else {
            start::server(&mut directory, &mut readings)
        }?;
        let mut step = step(&before, &directory, listing, known, run);
        if directory.head_chunks_deleted && !before.head_chunks_deleted {
            step.deletes.extend(head_chunks.deletes.iter().map(|name| format!("chunks_head/{name}")));
        }
        if directory.snapshots_removed && !before.snapshots_removed {
            let snapshots = listing.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot);
            step.deletes.extend(snapshots.map(|log| log.relative.clone()));
        }
        steps.push(step);
    }
    // Each start adds a segment, so that what could not be repaired can be in the end: some differ only after others alike.
    while let [.., last_but_one, last] = &*steps
        && last.is_like(last_but_one)
    {
        steps.pop();
    }
    let next_checkpoint = match steps.last() {
        Some(Step { run: Run { end: End::Serves, .. }, .. }) => {
            let reader = if assumed.agent { Reader::AgentCheckpoint } else { Reader::Checkpoint };
            checkpoint::next(&directory, &readings, reader)?
        }
        _ => None,
    };
    let dropped: Vec<bool> =
        steps.iter().map(|step| drops_records(step, listing, known, &directory.checkpoint)).collect();
    let has_snapshot = listing.logs.iter().any(|log| log.kind == LogKind::ChunkSnapshot);
    let is_doubtful = read_all || known.troubled || known.may_lack_first || has_snapshot;
    let counts = if is_doubtful || head_chunks.error.is_some() || dropped.contains(&true) {
        // Starts that read and leave the same come to the same.
        let reads: Vec<StartReads> = steps.iter().map(StartReads::from).collect();
        let mut distinct = reads.clone();
        distinct.dedup();
        let counted =
            count(listing, known.settled, &distinct, assumed.version, min_valid_time, &head_chunks)?;
        let of = |reads| distinct.iter().position(|other| other == reads).and_then(|at| counted.get(at));
        reads.iter().filter_map(of).copied().collect()
    } else {
        vec![Counted::default(); steps.len()]
    };
    let poisoned = steps.last().is_some_and(|step| step.run.repairs);
    let mut seen = HashMap::new();
    let deletions: Vec<DeletionsLost> = steps
        .iter()
        .map(|step| {
            if assumed.agent {
                DeletionsLost::None
            } else {
                deletions_lost(step, listing, known, &directory.checkpoint, &mut seen)
            }
        })
        .collect();
    let starts = steps.into_iter().zip(counts).zip(dropped).zip(deletions);
    let starts = starts.map(|(((step, counted), dropped), deletions_lost)| {
        let error_place = place_of_start(&step.run, listing, known);
        let snapshot_in_error = step.run.snapshot_in_error.map(|log| listing.logs[log].relative.clone());
        Start { snapshot_in_error, error_place, deletions_lost, ..start_of(step, &counted, dropped) }
    });
    Ok(Forecast {
        version: assumed.version.to_string(),
        agent: assumed.agent,
        starts: starts.collect(),
        poisoned,
        next_checkpoint_error: next_checkpoint
            .as_ref()
            .map(|failed| format!("create checkpoint: {}", failed.error)),
        next_checkpoint_place: next_checkpoint
            .and_then(|failed| place_of_checkpoint(&failed, listing, known)),
        without_snapshots: None,
        refuses_until: None,
        next_compaction_error: None,
        no_room: None,
    })
}

fn start_of(step: Step, counted: &Counted, dropped: bool) -> Start {
    let Counted {
        not_replayed,
        gone,
        unknown_refs,
        wrong_labels,
        hidden_by_snapshot,
        only_in_snapshot,
        hidden_by_head_chunks,
        only_in_head_chunks,
        passed_over,
    } = *counted;
    let lost = dropped || not_replayed.samples > 0 || gone.samples > 0;
    let (outcome, fatal) = match step.run.end {
        End::Serves if lost => (Outcome::Loses, None),
        End::Serves => (Outcome::Starts, None),
        End::Exits(error) => (Outcome::Refuses, Some(error)),
        End::Hangs => (Outcome::Hangs, None),
        End::Crashes => (Outcome::Crashes, None),
    };
    Start {
        outcome,
        error: step.run.error,
        snapshot_in_error: None,
        error_place: None,
        fatal,
        deletes: step.deletes,
        truncates: step.truncates,
        not_replayed,
        gone,
        unknown_refs,
        wrong_labels,
        hidden_by_snapshot,
        only_in_snapshot,
        hidden_by_head_chunks,
        only_in_head_chunks,
        passed_over,
        deletions_lost: DeletionsLost::None,
    }
}

/// What a start has changed.
fn step(before: &Directory, after: &Directory, listing: &Listing, known: &Known<'_>, run: Run) -> Step {
    let (mut deletes, mut truncates, mut left) = (before.temporaries.clone(), Vec::new(), Vec::new());
    deletes.retain(|temporary| !after.temporaries.contains(temporary));
    let logs = [Some((&before.wal, &after.wal)), before.wbl.as_ref().zip(after.wbl.as_ref())];
    for (before, after) in logs.into_iter().flatten() {
        changes(before, after, listing, &mut deletes);
        truncates.extend(cuts(before, after, listing, known));
        left.extend(after.segments.iter().filter_map(|segment| start::stretch(after, segment.holds, None)));
    }
    let untouched = listing.logs.iter().enumerate().filter(|(at, _)| {
        Some(*at) != before.wal.number && before.wbl.as_ref().is_none_or(|wbl| Some(*at) != wbl.number)
    });
    for (log, directory) in untouched {
        left.extend((0..directory.segments.len()).map(|segment| Stretch { log, segment, upto: None }));
    }
    Step { run, deletes, truncates, left, head_chunks_deleted: after.head_chunks_deleted }
}

fn changes(before: &Log, after: &Log, listing: &Listing, deletes: &mut Vec<String>) {
    let now = after.by_name();
    let is_empty = |holds: Holds| match (holds, before.number) {
        (Holds::Original { segment }, Some(log)) => {
            listing.logs[log].segments[segment].path.metadata().is_ok_and(|file| file.len() == 0)
        }
        _ => holds == Holds::Nothing,
    };
    for segment in &before.segments {
        match now.get(segment.name.as_str()) {
            // An empty segment in the place of an empty one is no change.
            Some(Holds::Nothing) if is_empty(segment.holds) => {}
            None | Some(Holds::Nothing) => deletes.push(before.path_of(&segment.name)),
            Some(_) => {}
        }
    }
}

/// The segments that are rewritten without all that they had.
fn cuts(before: &Log, after: &Log, listing: &Listing, known: &Known<'_>) -> Vec<Truncate> {
    let (now, mut cuts) = (after.by_name(), Vec::new());
    for segment in &before.segments {
        let Some(&Holds::Cut { upto, .. }) = now.get(segment.name.as_str()) else { continue };
        let shorter = match (segment.holds, before.number) {
            (Holds::Original { segment }, Some(log)) => {
                let path = &listing.logs[log].segments[segment].path;
                let is_clean = known.is_clean(log, segment);
                let data_end = known.segments.get(&(log, segment)).map(|scanned| scanned.data_end);
                path.is_file() && (!is_clean || data_end > Some(upto))
            }
            (Holds::Cut { upto: before, .. }, _) => before != upto,
            _ => false,
        };
        if shorter {
            cuts.push(Truncate { path: before.path_of(&segment.name), offset: upto });
        }
    }
    cuts
}

/// Whether a start that serves leaves out records that could be read, of the logs that a start reads.
fn drops_records(step: &Step, listing: &Listing, known: &Known<'_>, checkpoint: &LastCheckpoint) -> bool {
    let last = match checkpoint {
        LastCheckpoint::Number { log, .. } => Some(*log),
        _ => None,
    };
    let read: HashMap<(usize, usize), Option<u64>> =
        step.run.replayed.iter().map(|stretch| ((stretch.log, stretch.segment), stretch.upto)).collect();
    for (&(log, segment), scanned) in &known.segments {
        let kind = listing.logs[log].kind;
        let counts = matches!(kind, LogKind::Wal | LogKind::Wbl) || Some(log) == last;
        if !counts || scanned.records == 0 {
            continue;
        }
        let is_dropped = match read.get(&(log, segment)) {
            None => true,
            Some(None) => false,
            Some(Some(upto)) => scanned.data_end > *upto,
        };
        // A running Prometheus may have removed it.
        if is_dropped && listing.logs[log].segments[segment].path.is_file() {
            return true;
        }
    }
    false
}

/// Whether a start does not replay deletions that could be read, or removes them; or what is damaged where it stops, and may be
/// some.
fn deletions_lost(
    step: &Step,
    listing: &Listing,
    known: &Known<'_>,
    checkpoint: &LastCheckpoint,
    seen: &mut HashMap<(usize, usize, u64), DeletionsLost>,
) -> DeletionsLost {
    let last = match checkpoint {
        LastCheckpoint::Number { log, .. } => Some(*log),
        _ => None,
    };
    // A start that does not come up replays nothing for anybody: what it leaves counts.
    let stretches = if step.run.end == End::Serves { &step.run.replayed } else { &step.left };
    let read: HashMap<(usize, usize), Option<u64>> =
        stretches.iter().map(|stretch| ((stretch.log, stretch.segment), stretch.upto)).collect();
    let mut all = DeletionsLost::None;
    for &(log, segment) in known.segments.keys() {
        let counts = listing.logs[log].kind == LogKind::Wal || Some(log) == last;
        let is_clean = known.is_clean(log, segment);
        if !counts || is_clean && !known.have_deletions.contains(&log) {
            continue;
        }
        let file = &listing.logs[log].segments[segment];
        // What a chunk snapshot stands for it has the deletions of.
        let is_in_snapshot =
            step.run.snapshot.is_some_and(|snapshot| Some(log) == last || file.index <= snapshot.index);
        let from = match read.get(&(log, segment)) {
            Some(None) => continue,
            _ if is_in_snapshot => continue,
            Some(Some(upto)) => *upto,
            None => 0,
        };
        let behind = seen.entry((log, segment, from)).or_insert_with(|| {
            let file = crate::io::open(&file.path).ok();
            let length = file.as_ref().and_then(|file| file.metadata().ok()).map(|metadata| metadata.len());
            // A running Prometheus may have removed it.
            let damage = known.damage.get(&(log, segment)).and_then(Option::as_ref);
            let behind = file.zip(length).map(|(file, length)| match damage {
                // No intact record deletes anything, so it need not be read.
                Some(damage) if !known.have_deletions.contains(&log) => {
                    let places = damage.iter().filter_map(|finding| {
                        Some((
                            finding.offset?..finding.end?,
                            finding.orphans.iter().map(|&(offset, _)| offset),
                        ))
                    });
                    let after = places.filter(|(range, _)| range.end > from);
                    let deletions =
                        after.map(|(range, orphans)| deletions::in_damage(&file, &range, orphans));
                    deletions.max().unwrap_or_default()
                }
                _ => deletions::behind(&file, length, from, known.settled),
            });
            behind.unwrap_or_default()
        });
        all = all.max(*behind);
    }
    all
}

/// The damage on which reading stops: the first behind what is read. An error names where it was noticed.
fn place(
    listing: &Listing,
    known: &Known<'_>,
    at: Stopped,
    then: impl Iterator<Item = (usize, usize)>,
) -> Option<Place> {
    let here = (at.log, at.segment);
    let behind = std::iter::once((here, at.end)).chain(then.map(|segment| (segment, 0)));
    behind.into_iter().find_map(|((log, segment), from)| {
        let offsets = known.findings.get(&(log, segment))?;
        let offset = *offsets.iter().find(|&&offset| offset >= from)?;
        let directory = &listing.logs[log];
        Some(Place { path: directory.relative_of(&directory.segments[segment]), offset })
    })
}

/// The damage on which a checkpoint fails.
fn place_of_checkpoint(failed: &checkpoint::Failed, listing: &Listing, known: &Known<'_>) -> Option<Place> {
    let (last, end) = failed.read_to.unwrap_or((0, 0));
    let first = failed.stretches.get(last)?;
    let then = failed.stretches.iter().skip(last + 1).map(|stretch| (stretch.log, stretch.segment));
    place(listing, known, Stopped { log: first.log, segment: first.segment, end }, then)
}

/// The damage on which a start fails.
fn place_of_start(run: &Run, listing: &Listing, known: &Known<'_>) -> Option<Place> {
    let stopped = run.stopped?;
    let segments = listing.logs[stopped.log].segments.len();
    place(listing, known, stopped, (stopped.segment + 1..segments).map(|segment| (stopped.log, segment)))
}

impl From<&Step> for StartReads {
    fn from(step: &Step) -> Self {
        Self {
            serves: step.run.end == End::Serves,
            replayed: step.run.replayed.clone(),
            left: step.left.clone(),
            head_chunks_deleted: step.head_chunks_deleted,
            snapshot: step.run.snapshot,
        }
    }
}
