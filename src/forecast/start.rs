//! One start: what is opened, read, repaired and deleted, in Prometheus's order.
//!
//! Source: `open` (`tsdb/db.go`), `Head.Init` (`tsdb/head.go`), `Open` and `replayWAL` (`tsdb/agent/db.go`), `WL.Repair`
//! and `NewSize` (`tsdb/wlog/wlog.go`).

use std::io;

use super::directory::{Directory, Holds, LastCheckpoint, Log};
use super::readings::{Failure, Readings, Snapshot};
use super::replay::Reader;
use super::served::{SnapshotReads, Stretch};

/// What a start came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) end: End,
    /// The `err` that it logs first.
    pub(super) error: Option<String>,
    /// The chunk snapshot that this error names.
    pub(super) snapshot_in_error: Option<usize>,
    /// In which segment it stopped reading, and the end of the last record before that.
    pub(super) stopped: Option<Stopped>,
    /// What it has read, in order.
    pub(super) replayed: Vec<Stretch>,
    /// The chunk snapshot that it has loaded instead of what stands before.
    pub(super) snapshot: Option<SnapshotReads>,
    /// It has repaired the WAL or WBL, and deletes at every start what was written there since.
    pub(super) repairs: bool,
}

/// Where reading stopped: behind the record that ends at `end` of that segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped {
    pub(super) log: usize,
    pub(super) segment: usize,
    pub(super) end: u64,
}

/// How a start ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It serves.
    Serves,
    /// It exits with this `err`.
    Exits(String),
    /// It waits for ever.
    Hangs,
    /// It panics or is killed.
    Crashes,
}

/// Why a start stops reading.
enum Stop {
    /// An error that goes to the log and to a repair of that log.
    Repair {
        error: String,
        corrupt: Option<(i64, u64)>,
        wbl: bool,
        at: Option<Stopped>,
    },
    Hangs(Stopped),
    Crashes(String, Stopped),
}

/// A start of a server.
pub(super) fn server(directory: &mut Directory, readings: &mut Readings<'_>) -> io::Result<Run> {
    let version = readings.version();
    let mut run = Run::new();
    if version.migrates_wal()
        && let (Some(log), false) = (directory.wal.number, directory.wal.segments.is_empty())
        && let Some(error) = readings.first_header_error(log)?
    {
        let error = format!("migrate WAL: read header from first segment: {error}");
        return Ok(run.exits(format!("opening storage failed: {error}")));
    }
    directory.temporaries.clear();
    if let Err(error) = begin(&mut directory.wal) {
        return Ok(run.exits(format!("opening storage failed: {error}")));
    }
    if !version.has_wbl() {
        // Not looked at.
    } else if let Some(wbl) = &mut directory.wbl
        && let Err(error) = begin(wbl)
    {
        return Ok(run.exits(format!("opening storage failed: {error}")));
    }
    if let Some(error) = &readings.head_chunks().refusal {
        return Ok(run.exits(format!("opening storage failed: {error}")));
    }
    if let LastCheckpoint::Number { log, .. } = directory.checkpoint
        && readings.gap_in(log).is_none()
    {
        run.error = readings.first_record_error(log)?;
    }
    let mut stop = None;
    let last = directory.wal.segments.last().map_or(-1, |last| last.index);
    if directory.snapshot {
        match readings.snapshot(last)? {
            Snapshot::Loads(snapshot) => run.snapshot = Some(snapshot),
            Snapshot::Fails { error, named } => {
                if run.error.is_none() {
                    (run.error, run.snapshot_in_error) = (Some(error), named);
                }
            }
            Snapshot::Removed => directory.snapshots_removed = true,
            Snapshot::None => {}
        }
    }
    if let Some(error) = readings.head_chunks().error.as_ref().filter(|_| !directory.head_chunks_deleted) {
        run.error.get_or_insert_with(|| error.clone());
        directory.head_chunks_deleted = true;
        // What the chunks had is in the part of the WAL that it stands for.
        run.snapshot = None;
    }
    let snapshot = run.snapshot.map(|snapshot| (snapshot.index, snapshot.offset));
    // One that could be loaded is loaded again, or another one with the same in it.
    let snapshot_stays = directory.snapshot && run.snapshot.is_some();
    if let Err(why) = replay_wal(directory, readings, Reader::Wal, snapshot, &mut run.replayed)? {
        stop = Some(why);
    } else if version.has_wbl()
        && let Err(why) = replay_wbl(directory, readings, &mut run.replayed)?
    {
        stop = Some(why);
    }
    let Some(stop) = stop else {
        directory.snapshot = snapshot_stays;
        return Ok(run);
    };
    let (error, corrupt, wbl) = match stop {
        Stop::Hangs(at) => return Ok(Run { end: End::Hangs, stopped: Some(at), ..run }),
        Stop::Crashes(error, at) => {
            return Ok(Run { end: End::Crashes, error: run.error.or(Some(error)), stopped: Some(at), ..run });
        }
        Stop::Repair { error, corrupt, wbl, at } => {
            run.stopped = at;
            (error, corrupt, wbl)
        }
    };
    run.error.get_or_insert_with(|| error.clone());
    let (log, name) = match &mut directory.wbl {
        Some(log) if wbl => (log, if version.repairs_wbl() { "WBL" } else { "OOO WAL" }),
        _ => (&mut directory.wal, "WAL"),
    };
    Ok(match repair(log, readings, &error, corrupt)? {
        Ok(()) => {
            directory.snapshot = snapshot_stays;
            Run { repairs: true, ..run }
        }
        Err(error) => {
            let repairs = corrupt.is_some();
            Run { repairs, ..run.exits(format!("opening storage failed: repair corrupted {name}: {error}")) }
        }
    })
}

/// A start of an agent, which has a WAL alone.
pub(super) fn agent(directory: &mut Directory, readings: &mut Readings<'_>) -> io::Result<Run> {
    let mut run = Run::new();
    if let Err(error) = begin(&mut directory.wal) {
        return Ok(run.exits(format!("opening storage failed: creating WAL: {error}")));
    }
    let (error, corrupt) = match replay_wal(directory, readings, Reader::Agent, None, &mut run.replayed)? {
        Ok(()) => return Ok(run),
        Err(Stop::Hangs(at)) => return Ok(Run { end: End::Hangs, stopped: Some(at), ..run }),
        Err(Stop::Crashes(error, at)) => {
            return Ok(Run { end: End::Crashes, error: Some(error), stopped: Some(at), ..run });
        }
        Err(Stop::Repair { error, corrupt, at, .. }) => {
            run.stopped = at;
            (error, corrupt)
        }
    };
    run.error = Some(error.clone());
    Ok(match repair(&mut directory.wal, readings, &error, corrupt)? {
        Ok(()) => Run { repairs: true, ..run },
        Err(error) => {
            let repairs = corrupt.is_some();
            Run { repairs, ..run.exits(format!("opening storage failed: repair corrupted WAL: {error}")) }
        }
    })
}

impl Run {
    fn new() -> Self {
        Self {
            end: End::Serves,
            error: None,
            snapshot_in_error: None,
            stopped: None,
            replayed: Vec::new(),
            snapshot: None,
            repairs: false,
        }
    }

    fn exits(mut self, error: String) -> Self {
        self.error.get_or_insert_with(|| error.clone());
        Self { end: End::Exits(error), ..self }
    }
}

/// `NewSize`: every start begins a new segment.
fn begin(log: &mut Log) -> Result<(), &'static str> {
    if !log.is_sequential() {
        return Err("get segment range: segments are not sequential");
    }
    log.begin_segment();
    Ok(())
}

/// The last checkpoint as one stream, then each segment behind it. A snapshot has what stands before it.
fn replay_wal(
    directory: &Directory,
    readings: &mut Readings<'_>,
    reader: Reader,
    snapshot: Option<(i64, u64)>,
    replayed: &mut Vec<Stretch>,
) -> io::Result<Result<(), Stop>> {
    let unrepairable = |error: String| Stop::Repair { error, corrupt: None, wbl: false, at: None };
    let mut from = 0;
    match &directory.checkpoint {
        LastCheckpoint::None => {}
        LastCheckpoint::NotADirectory(name) => {
            return Ok(Err(unrepairable(format!(
                "find last checkpoint: checkpoint {name} is not a directory"
            ))));
        }
        LastCheckpoint::Number { log, number } => {
            from = number.saturating_add(1);
            let log = *log;
            if snapshot.is_some_and(|(index, _)| *number < index) {
                replayed.extend(readings.whole(log));
                from = *number;
            } else if let Some(dir) = readings.gap_in(log) {
                return Ok(Err(unrepairable(format!(
                    "open checkpoint: list segment in dir:{dir}: segments are not sequential"
                ))));
            } else {
                let (stretches, failure) = readings.checkpoint(log, reader)?;
                let last = stretches.last().copied().unwrap_or(Stretch { log, segment: 0, upto: None });
                replayed.extend(stretches);
                if let Some(failure) = failure {
                    let at = Stopped { log, segment: last.segment, end: last.upto.unwrap_or(0) };
                    return Ok(Err(stop(&failure, "backfill checkpoint: ", false, at)));
                }
            }
        }
    }
    if let Some((index, _)) = snapshot {
        let skipped = directory.wal.segments.iter().filter(|segment| (from..index).contains(&segment.index));
        for segment in skipped {
            replayed.extend(stretch(&directory.wal, segment.holds, None));
        }
        from = from.max(index);
    }
    let last = directory.wal.segments.last().map_or(-1, |last| last.index);
    for index in from..=last {
        let Some(segment) = directory.wal.open(index) else {
            let path = readings.printed(&directory.wal.path_of(&crate::wal::segments::segment_name(index)));
            return Ok(Err(unrepairable(format!(
                "open WAL segment: {index}: open {path}: no such file or directory"
            ))));
        };
        let offset = snapshot.filter(|(at, _)| *at == index).map_or(0, |(_, offset)| offset);
        if let Err(why) = replay_segment(&directory.wal, segment.holds, readings, (reader, offset), replayed)?
        {
            return Ok(Err(why));
        }
    }
    Ok(Ok(()))
}

fn replay_wbl(
    directory: &Directory,
    readings: &mut Readings<'_>,
    replayed: &mut Vec<Stretch>,
) -> io::Result<Result<(), Stop>> {
    let Some(wbl) = &directory.wbl else { return Ok(Ok(())) };
    let (Some(first), Some(last)) = (wbl.segments.first(), wbl.segments.last()) else { return Ok(Ok(())) };
    for index in first.index..=last.index {
        let Some(segment) = wbl.open(index) else {
            let path = readings.printed(&wbl.path_of(&crate::wal::segments::segment_name(index)));
            let error = format!("open WBL segment: {index}: open {path}: no such file or directory");
            return Ok(Err(Stop::Repair {
                error,
                corrupt: None,
                wbl: readings.version().repairs_wbl(),
                at: None,
            }));
        };
        if let Err(why) = replay_segment(wbl, segment.holds, readings, (Reader::Wbl, 0), replayed)? {
            return Ok(Err(why));
        }
    }
    Ok(Ok(()))
}

fn replay_segment(
    log: &Log,
    holds: Holds,
    readings: &mut Readings<'_>,
    (reader, offset): (Reader, u64),
    replayed: &mut Vec<Stretch>,
) -> io::Result<Result<(), Stop>> {
    // What a repair has written is read without an error.
    let (Some(at), Holds::Original { segment }) = (log.number, holds) else {
        replayed.extend(stretch(log, holds, None));
        return Ok(Ok(()));
    };
    let (upto, failure) = readings.segment(at, segment, reader, offset)?;
    replayed.extend(stretch(log, holds, upto));
    let Some(failure) = failure else { return Ok(Ok(())) };
    // Before 2.48 only the decoding errors of a WBL were known for what they are.
    let wbl = reader == Reader::Wbl && (readings.version().repairs_wbl() || failure.in_decoding());
    let stopped = Stopped { log: at, segment, end: upto.unwrap_or(0) };
    Ok(Err(stop(&failure, "", wbl, stopped)))
}

fn stop(failure: &Failure, prefix: &str, wbl: bool, at: Stopped) -> Stop {
    match failure {
        Failure::Hang => Stop::Hangs(at),
        Failure::Crash(error) => Stop::Crashes(format!("{prefix}{error}"), at),
        Failure::Corrupt { text, segment, offset, .. } => Stop::Repair {
            error: format!("{prefix}{text}"),
            corrupt: Some((*segment, *offset)),
            wbl,
            at: Some(at),
        },
    }
}

/// `WL.Repair`: deletes the segments after the one that the error names, and rewrites that one up to the error. It
/// does not ask in which directory the error was.
fn repair(
    log: &mut Log,
    readings: &mut Readings<'_>,
    error: &str,
    corrupt: Option<(i64, u64)>,
) -> io::Result<Result<(), String>> {
    let Some((index, offset)) = corrupt else { return Ok(Err(format!("cannot handle error: {error}"))) };
    log.segments.retain(|segment| segment.index <= index);
    let name = crate::wal::segments::segment_name(index);
    let Some(at) = log.segments.iter().position(|segment| segment.name == name) else {
        let path = readings.printed(&log.path_of(&name));
        return Ok(Err(format!("rename {path} {path}.repair: no such file or directory")));
    };
    log.segments[at].holds = match (log.number, log.segments[at].holds) {
        (Some(log), Holds::Original { segment }) => {
            let upto = readings.records_before(log, segment, offset)?;
            Holds::Cut { segment, upto }
        }
        (_, holds) => holds,
    };
    log.add(index.saturating_add(1));
    Ok(Ok(()))
}

/// What is read of a segment, if it has ever held anything.
pub(super) fn stretch(log: &Log, holds: Holds, upto: Option<u64>) -> Option<Stretch> {
    let log = log.number?;
    match holds {
        Holds::Original { segment } => Some(Stretch { log, segment, upto }),
        Holds::Cut { segment, upto: cut } => {
            Some(Stretch { log, segment, upto: Some(upto.map_or(cut, |upto| upto.min(cut))) })
        }
        Holds::Nothing => None,
    }
}
