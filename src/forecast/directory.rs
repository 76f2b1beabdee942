//! The directory as one start finds it and leaves it: names and what is left of the files, no bytes.

use std::collections::BTreeMap;

use crate::tsdb::{Listing, LogKind, StrayKind};
use crate::wal::segments::{SegmentFile, segment_name};

/// The logs of a data directory, as far as a start reads or changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) wal: Log,
    /// `None` if there is no `wbl/`.
    pub(super) wbl: Option<Log>,
    /// What `LastCheckpoint` (`tsdb/wlog/checkpoint.go`) finds.
    pub(super) checkpoint: LastCheckpoint,
    /// Removed by every start.
    pub(super) temporaries: Vec<String>,
    /// Whether a start reads the chunk snapshots that are there. Where it could not load one, a server that stops writes another one
    /// in its place.
    pub(super) snapshot: bool,
    /// Whether a start has removed the chunk snapshots, since they are ahead of all segments.
    pub(super) snapshots_removed: bool,
    /// Whether a start has deleted head chunks that it could not load.
    pub(super) head_chunks_deleted: bool,
}

/// A log to which a start adds a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    /// Its number in [`Listing::logs`]; `None` if it is not there yet.
    pub(super) number: Option<usize>,
    /// Its path below the data directory.
    pub(super) relative: String,
    /// In the order of their numbers.
    pub(super) segments: Vec<Segment>,
}

/// A segment, or whatever has the name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) index: i64,
    pub(super) name: String,
    pub(super) holds: Holds,
}

/// What is left of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// All of it; `segment` is its place in the listing of its log.
    Original { segment: usize },
    /// Its records up to an offset, rewritten.
    Cut { segment: usize, upto: u64 },
    /// No records: a start has made it.
    Nothing,
}

/// The checkpoint that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LastCheckpoint {
    None,
    /// The number of its log in [`Listing::logs`], and its own.
    Number {
        log: usize,
        number: i64,
    },
    /// The name of what is called a checkpoint and is no directory.
    NotADirectory(String),
}

impl Directory {
    /// As it is on disk.
    pub(super) fn of(listing: &Listing) -> Self {
        let log = |kind, relative: &str| {
            let at = listing.logs.iter().position(|log| log.kind == kind);
            at.map_or_else(
                || Log { number: None, relative: relative.to_owned(), segments: Vec::new() },
                |at| Log::of(at, &listing.logs[at].relative, &listing.logs[at].segments),
            )
        };
        let wbl = log(LogKind::Wbl, "wbl");
        Self {
            wal: log(LogKind::Wal, "wal"),
            wbl: wbl.number.is_some().then_some(wbl),
            checkpoint: last_checkpoint(listing),
            temporaries: listing
                .strays
                .iter()
                .filter(|stray| stray.kind == StrayKind::Temporary)
                .map(|stray| stray.relative.clone())
                .collect(),
            head_chunks_deleted: false,
            snapshot: listing.logs.iter().any(|log| log.kind == LogKind::ChunkSnapshot),
            snapshots_removed: false,
        }
    }
}

fn last_checkpoint(listing: &Listing) -> LastCheckpoint {
    let file = listing.strays.iter().find(|stray| stray.kind == StrayKind::CheckpointFile);
    if let Some(file) = file {
        let name = file.relative.rsplit('/').next().unwrap_or_default();
        return LastCheckpoint::NotADirectory(name.to_owned());
    }
    let last = listing.last_checkpoint();
    last.map_or(LastCheckpoint::None, |(log, number)| LastCheckpoint::Number { log, number })
}

impl Log {
    fn of(log: usize, relative: &str, files: &[SegmentFile]) -> Self {
        let segment = |(segment, file): (usize, &SegmentFile)| Segment {
            index: file.index,
            name: file.name.clone(),
            holds: Holds::Original { segment },
        };
        Self {
            number: Some(log),
            relative: relative.to_owned(),
            segments: files.iter().enumerate().map(segment).collect(),
        }
    }

    /// Whether each number is the one before it and 1 (`listSegments`, `tsdb/wlog/wlog.go`).
    pub(super) fn is_sequential(&self) -> bool {
        self.segments.windows(2).all(|pair| pair[0].index.checked_add(1) == Some(pair[1].index))
    }

    /// Adds the segment that every start begins (`NewSize`).
    pub(super) fn begin_segment(&mut self) {
        let last = self.segments.last().map_or(-1, |last| last.index);
        self.add(last.saturating_add(1));
    }

    /// Adds an empty segment of that number, behind all others.
    pub(super) fn add(&mut self, index: i64) {
        self.segments.push(Segment { index, name: segment_name(index), holds: Holds::Nothing });
    }

    /// The segment that a reader opens by this number: only its usual name is tried.
    pub(super) fn open(&self, index: i64) -> Option<&Segment> {
        let from = self.segments.partition_point(|segment| segment.index < index);
        let name = segment_name(index);
        let mut same = self.segments[from..].iter().take_while(|segment| segment.index == index);
        same.find(|segment| segment.name == name)
    }

    /// The path of a segment below the data directory.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.relative.is_empty() { name.to_owned() } else { format!("{}/{name}", self.relative) }
    }

    /// By name, where each stands.
    pub(super) fn by_name(&self) -> BTreeMap<&str, Holds> {
        self.segments.iter().map(|segment| (segment.name.as_str(), segment.holds)).collect()
    }
}
