//! What a start has in memory in the end. Nothing is counted yet.

use std::io;
use std::path::Path;

use super::Version;
use super::report::Samples;
use crate::tsdb::Listing;

/// A stretch of one segment: its records that end at or before `upto`, an offset in the file; all if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its number in [`Listing::logs`].
    pub log: usize,
    /// Its number in that log's segments.
    pub segment: usize,
    /// The end.
    pub upto: Option<u64>,
}

/// What one start reads and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReads {
    /// Whether it serves.
    pub serves: bool,
    /// What it replays, in order.
    pub replayed: Vec<Stretch>,
    /// What is on disk afterwards.
    pub left: Vec<Stretch>,
    /// Whether it has deleted the head chunks.
    pub head_chunks_deleted: bool,
}

/// For each start, what it does not have of what could be had, and what of that is gone from disk.
///
/// # Errors
/// If a file cannot be read.
pub fn count(
    _root: &Path,
    _listing: &Listing,
    starts: &[StartReads],
    _version: Version,
) -> io::Result<Vec<(Samples, Samples)>> {
    Ok(vec![(Samples::default(), Samples::default()); starts.len()])
}
