//! The logs of a directory, by Prometheus's rules for names.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::wal::segments::{SegmentFile, list_segments, segment_index};

/// What kind of log a directory of segments is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// The write-ahead log.
    Wal,
    /// `checkpoint.N`: what is left of the segments up to N.
    Checkpoint,
    /// The write-behind log of out-of-order samples.
    Wbl,
    /// `chunk_snapshot.N.M`: the head as it was when the server stopped.
    ChunkSnapshot,
}

impl LogKind {
    /// By the name of its directory; the write-ahead log is the rest.
    pub(super) fn of_name(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(CHECKPOINT) {
            Self::Checkpoint
        } else if name.starts_with(CHUNK_SNAPSHOT) {
            Self::ChunkSnapshot
        } else if name == "wbl" {
            Self::Wbl
        } else {
            Self::Wal
        }
    }
}

const CHECKPOINT: &str = "checkpoint.";
const CHUNK_SNAPSHOT: &str = "chunk_snapshot.";
const TEMPORARY: &str = ".tmp";

/// The logs of a directory, and what is beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order wal, its checkpoints, wbl, chunk snapshots.
    pub logs: Vec<LogDirectory>,
    /// In the order of names.
    pub strays: Vec<Stray>,
    /// It is one segment, given by its own path: of what is beside it nothing is known.
    pub alone: bool,
}

/// A directory of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirectory {
    /// What it is.
    pub kind: LogKind,
    /// Its path below the directory that was listed, with `/`; empty for that directory itself.
    pub relative: String,
    /// Its segments, in the order of their numbers.
    pub segments: Vec<SegmentFile>,
}

/// Something beside the logs that means something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stray {
    /// Its path below the directory that was listed.
    pub relative: String,
    /// What it is.
    pub kind: StrayKind,
}

/// What a [`Stray`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StrayKind {
    /// A file where Prometheus expects the directory of a checkpoint: it does not start.
    CheckpointFile,
    /// A file where Prometheus expects the directory of a chunk snapshot.
    SnapshotFile,
    /// A checkpoint or chunk snapshot that was not finished; deleted at the next start.
    Temporary,
    /// `N.repair`: a segment that Prometheus was repairing when it died.
    Repair,
    /// The WAL is a link to elsewhere.
    LinkedWal,
    /// The WBL or the directory of head chunks is one.
    Link,
}

pub(super) fn data_directory(path: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for name in ["wal", "wbl", "chunks_head"] {
        if path.join(name).is_symlink() {
            let kind = if name == "wal" { StrayKind::LinkedWal } else { StrayKind::Link };
            listing.strays.push(Stray { relative: name.to_owned(), kind });
        }
    }
    for (name, kind) in [("wal", LogKind::Wal), ("wbl", LogKind::Wbl)] {
        // The WAL may have a disk of its own; what other links lead to is not of this directory.
        if kind == LogKind::Wbl && path.join(name).is_symlink() {
            continue;
        }
        match log(&path.join(name), name, kind) {
            Ok(found) => {
                listing.logs.extend(found.logs);
                listing.strays.extend(found.strays);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    for (name, entry) in entries(path)? {
        if name.starts_with(CHUNK_SNAPSHOT) {
            directory_of_segments(&entry, &name, &name, LogKind::ChunkSnapshot, &mut listing)?;
        }
    }
    listing.strays.sort();
    Ok(listing)
}

/// One log, and the checkpoints in it.
pub(super) fn log(path: &Path, relative: &str, kind: LogKind) -> io::Result<Listing> {
    let mut listing = Listing::default();
    listing.logs.push(LogDirectory { kind, relative: relative.to_owned(), segments: list_segments(path)? });
    let mut checkpoints = entries(path)?;
    checkpoints.retain(|(name, _)| name.starts_with(CHECKPOINT) || name.ends_with(".repair"));
    for (name, entry) in checkpoints {
        let below = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
        if name.starts_with(CHECKPOINT) {
            directory_of_segments(&entry, &name, &below, LogKind::Checkpoint, &mut listing)?;
        } else if name.strip_suffix(".repair").and_then(segment_index).is_some() {
            listing.strays.push(Stray { relative: below, kind: StrayKind::Repair });
        }
    }
    Ok(listing)
}

pub(super) fn segment(path: &Path, kind: LogKind) -> io::Result<Listing> {
    let full = path.canonicalize()?;
    let name = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let segments =
        segment_index(name).map(|index| SegmentFile { index, name: name.to_owned(), path: path.into() });
    let log = LogDirectory { kind, relative: String::new(), segments: segments.into_iter().collect() };
    Ok(Listing { logs: vec![log], strays: Vec::new(), alone: true })
}

fn directory_of_segments(
    entry: &DirEntry,
    name: &str,
    relative: &str,
    kind: LogKind,
    listing: &mut Listing,
) -> io::Result<()> {
    let (prefix, not_a_directory) = match kind {
        LogKind::ChunkSnapshot => (CHUNK_SNAPSHOT, StrayKind::SnapshotFile),
        _ => (CHECKPOINT, StrayKind::CheckpointFile),
    };
    let relative = relative.to_owned();
    // Not followed through a link, as in Go's `os.ReadDir`.
    if !entry.file_type()?.is_dir() {
        listing.strays.push(Stray { relative, kind: not_a_directory });
    } else if name.ends_with(TEMPORARY) {
        listing.strays.push(Stray { relative, kind: StrayKind::Temporary });
    } else if is_number(name.strip_prefix(prefix).unwrap_or_default(), kind) {
        match list_segments(&entry.path()) {
            Ok(segments) => listing.logs.push(LogDirectory { kind, relative, segments }),
            // Prometheus removes checkpoints while it runs.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `N` for a checkpoint, `N.M` for a chunk snapshot. Other names mean nothing to Prometheus.
fn is_number(suffix: &str, kind: LogKind) -> bool {
    match kind {
        LogKind::ChunkSnapshot => {
            suffix.split('.').count() == 2 && suffix.split('.').all(|part| segment_index(part).is_some())
        }
        _ => segment_index(suffix).is_some(),
    }
}

/// Names that are text, in order; others mean nothing to Prometheus.
fn entries(path: &Path) -> io::Result<Vec<(String, DirEntry)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry));
        }
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

impl Listing {
    /// The position in [`Listing::logs`] of the checkpoint that Prometheus reads, and its number: the highest, and of
    /// equal ones the last name (`tsdb/wlog/checkpoint.go`, `LastCheckpoint`).
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<(usize, i64)> {
        let number = |(at, log): (usize, &LogDirectory)| Some((at, log.checkpoint_number()?));
        self.logs.iter().enumerate().filter_map(number).max_by_key(|&(_, number)| number)
    }
}

impl Listing {
    /// The position in [`Listing::logs`] of the checkpoint that a replay reads: the last one, or one that is all that was
    /// listed and has no number.
    pub(crate) fn replayed_checkpoint(&self) -> Option<usize> {
        let any = || self.logs.iter().position(|log| log.kind == LogKind::Checkpoint);
        self.last_checkpoint().map(|(at, _)| at).or_else(any)
    }
}

impl LogDirectory {
    /// N of `checkpoint.N`; none if it is none, or is what was listed.
    #[must_use]
    pub fn checkpoint_number(&self) -> Option<i64> {
        let name = self.relative.rsplit('/').next().unwrap_or_default();
        let number = name.strip_prefix(CHECKPOINT).and_then(segment_index);
        number.filter(|_| self.kind == LogKind::Checkpoint)
    }

    /// N and M of `chunk_snapshot.N.M`: it replaces the WAL up to the offset M of segment N.
    #[must_use]
    pub fn snapshot_position(&self) -> Option<(i64, u64)> {
        let name = self.relative.rsplit('/').next().unwrap_or_default();
        let (index, offset) = name.strip_prefix(CHUNK_SNAPSHOT)?.split_once('.')?;
        Some((segment_index(index)?, u64::try_from(segment_index(offset)?).ok()?))
    }

    /// The path of one of its segments below the directory that was listed.
    #[must_use]
    pub fn relative_of(&self, segment: &SegmentFile) -> String {
        if self.relative.is_empty() {
            segment.name.clone()
        } else {
            format!("{}/{}", self.relative, segment.name)
        }
    }
}
