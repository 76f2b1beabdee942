//! What is foretold: the key `prometheus` of the JSON of a scan. Keys may be added, never renamed or removed. Times are
//! in milliseconds since 1970, offsets in bytes, paths relative to the data directory.

use serde::Serialize;

use crate::scan::deletions::DeletionsLost;

/// What a version of Prometheus would do with a directory, start by start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The version that is assumed.
    pub version: String,
    /// Whether it is assumed to run as an agent.
    pub agent: bool,
    /// One for each start; every later start does what the last one does, if nothing is written meanwhile.
    pub starts: Vec<Start>,
    /// Whether every later start deletes again what was written to the WAL, or WBL, meanwhile.
    pub poisoned: bool,
    /// With what error the next checkpoint fails; `None` if it succeeds or none of these starts gets so far.
    pub next_checkpoint_error: Option<String>,
    /// The true place of what that error is about, where it is another than the error names.
    pub next_checkpoint_place: Option<Place>,
    /// The same with the feature `memory-snapshot-on-shutdown` off, where there are chunk snapshots: the directory does not tell
    /// whether it is on, and the rest of the forecast takes it for on.
    pub without_snapshots: Option<Box<Forecast>>,
    /// Up to when every scrape is refused as out of bounds, since samples are from the future; `None` if none is.
    pub refuses_until: Option<i64>,
    /// With what error the compaction of the head fails, over and over; `None` if it is not known to fail.
    pub next_compaction_error: Option<String>,
    /// What comes of a volume that has no room for what the first repair of a segment writes; `None` if it has.
    pub no_room: Option<NoRoom>,
}

/// A repair of Prometheus's own that the volume has no room for: it renames the segment to `.repair`, and rewrites its records up
/// to the damage (`WL.Repair`, `tsdb/wlog/wlog.go`). The start that fails at this leaves the original; the next one takes what was
/// written for the segment, repairs that, and deletes or forgets the original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoRoom {
    /// The segment.
    pub path: String,
    /// Bytes that are free when it is rewritten.
    pub free: u64,
    /// Bytes that are written, if they are compressed as they are now.
    pub needed: u64,
    /// The number of the start that fails, the first being 1: `write ...: no space left on device`.
    pub failing_start: u64,
    /// The original, which the start after that one deletes, or does not read any more.
    pub destroys: String,
}

/// One start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Start {
    /// How it ends.
    pub outcome: Outcome,
    /// The `err` that it logs first.
    pub error: Option<String>,
    /// The chunk snapshot that this error names.
    #[serde(skip)]
    pub(crate) snapshot_in_error: Option<String>,
    /// The damage that this error is about; the error names where it was noticed. `None` if not known.
    pub error_place: Option<Place>,
    /// The `err` with which it gives up.
    pub fatal: Option<String>,
    /// Files and directories that were there before and that it deletes.
    pub deletes: Vec<String>,
    /// Segments that it rewrites with fewer records.
    pub truncates: Vec<Truncate>,
    /// What stands in the logs and could be read, and no query returns after this start.
    pub not_replayed: Samples,
    /// What could be had before the first start and is on no disk after this one.
    pub gone: Samples,
    /// What it reads and drops, since no series record says what the refs of these samples mean: a series is a ref, and
    /// staleness markers count.
    pub unknown_refs: Samples,
    /// What it serves under labels that are not theirs: head chunks of a run that is gone, whose refs other series have by now.
    pub wrong_labels: Samples,
    /// What of `not_replayed` stands in a part of the WAL that it does not read, since it has loaded a chunk snapshot.
    pub hidden_by_snapshot: Samples,
    /// What it has from a chunk snapshot, and no record that can be read has; staleness markers count.
    pub only_in_snapshot: Samples,
    /// What of `not_replayed` it reads and does not take, since it is older than a head chunk of its series, and in none.
    pub hidden_by_head_chunks: Samples,
    /// What stands in head chunks that a start loads, and in no record that can be read; staleness markers count.
    pub only_in_head_chunks: Samples,
    /// What of `not_replayed` is in records that this version comes to and cannot read: a checkpoint drops them for good.
    pub passed_over: Samples,
    /// Whether deletions that can be read, or may stand in what is damaged, are not replayed by this start, or on no disk after it:
    /// samples that they had deleted are served again, as far as they are there.
    pub deletions_lost: DeletionsLost,
}

/// How a start ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It serves, and this start has not thrown anything away that could be read.
    Starts,
    /// It serves, and has deleted, cut or skipped logs or parts of them that could be read.
    Loses,
    /// It exits with an error.
    Refuses,
    /// It waits for ever.
    Hangs,
    /// It panics, or is killed for its memory.
    Crashes,
}

/// A segment that is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Truncate {
    /// The segment.
    pub path: String,
    /// The records before this offset are kept.
    pub offset: u64,
}

/// A place in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The segment.
    pub path: String,
    /// Where it begins there.
    pub offset: u64,
}

/// An amount of samples: floats and histograms, staleness markers aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Samples {
    /// Series that they belong to.
    pub series: u64,
    /// How many.
    pub samples: u64,
    /// The time of the first.
    pub min_time: Option<i64>,
    /// The time of the last.
    pub max_time: Option<i64>,
}
