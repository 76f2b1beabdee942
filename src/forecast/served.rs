//! What starts of Prometheus do not serve of what could be read, and what no later start can get back.
//!
//! All heads are filled in one pass over the logs:
//!
//! - *the base*: an ideal head over everything that the salvage reader proves, records that one flipped bit has damaged among
//!   it. It throws nothing away.
//! - *a start*: what Prometheus's replay makes of what its own reader yields ([`super::replay`]), up to where it stops.
//! - *what is left*: an ideal head over what is on disk after that start.
//!
//! A sample of the base that a start has not at its end is not replayed; one that an ideal head over the rest would not
//! have is gone. Of each series a head keeps the last time, as Prometheus does, and no samples: since all read the same
//! records at the same time, what one takes and another does not is counted as it goes by.
//!
//! What a head makes of the samples that a ref has in a segment mostly follows from the first and the last time. So segments are
//! summarized by ref, side by side, and the heads take the summaries in the order of the replay ([`pieces`], `heads::by_runs`). Only
//! where that does not say what a head does (deletions, the WBL, a series with several refs, chunks that end within) are the
//! samples read one by one.
//!
//! A second pass is needed where the first one has found what changes the meaning of earlier records: tombstones, and
//! samples that stand there twice and that a head had missed or thrown away the first time.
//!
//! In memory: about 90 bytes for a series with one ref, 110 for each start, and up to twice that while tables grow. Nothing for a
//! sample, but 40 bytes for one that came out of order (of at most a million), and 8 for one that is found again (of at
//! most two million).
//!
//! What is not exact:
//!
//! - Samples that are in head chunks and no longer in the WAL are known by their number only: staleness markers and deleted samples
//!   among them count, and what is missing of them lies within the times given, which may be too wide.
//! - In which chunk an out-of-order sample is, is judged by markers, and chunks are taken to be cut after 32 samples, as by
//!   default. Of a damaged WBL it is not known how many samples of chunks it has lost.
//! - Beyond a million samples out of order, one that stands there twice counts twice. Beyond two million that are found
//!   again, the series and times of the rest are not known.
//! - Threads of a start that come too late for a ref which changes hands within one segment.
//! - Histograms are decoded as the newest version does.

mod groups;
mod heads;
mod hindsight;
mod late;
mod logs;
mod min_valid_time;
mod order;
mod pieces;
mod reads;
mod reopened;
mod runs;
mod snapshots;
mod start;
mod survey;
mod tables;
mod tally;

use std::io;

use self::logs::Logs;
pub use self::min_valid_time::min_valid_time;
use self::survey::survey;
use super::report::Samples;
use super::{HeadChunks, Version};
use crate::scan::settled::Settlements;
use crate::tsdb::Listing;

/// A stretch of one segment that is read, or left: with `upto`, the records that Prometheus's reader has and that end at or
/// before it; without, all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which of [`Listing::logs`].
    pub log: usize,
    /// Which of [`LogDirectory::segments`](crate::tsdb::LogDirectory::segments).
    pub segment: usize,
    /// An offset in the segment; `None` for all of it.
    pub upto: Option<u64>,
}

/// What one start reads, and what it leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartReads {
    /// Whether it goes on to serve. If it exits, all of the base is not replayed.
    pub serves: bool,
    /// What it replays. Whatever the order here, it is that in which Prometheus reads.
    pub replayed: Vec<Stretch>,
    /// What is on disk afterwards.
    pub left: Vec<Stretch>,
    /// Whether it, or one before it, has deleted the files that [`HeadChunks::deletes`] names.
    pub head_chunks_deleted: bool,
    /// The chunk snapshot that it loads first. What of `replayed` stands before that it does not read.
    pub snapshot: Option<SnapshotReads>,
}

impl StartReads {
    /// The same, in one order for all starts that read and leave the same.
    fn in_order(&self) -> Self {
        let mut start = self.clone();
        for stretches in [&mut start.replayed, &mut start.left] {
            stretches.sort_by_key(|stretch| (stretch.log, stretch.segment));
        }
        start
    }
}

/// A chunk snapshot that a start loads, and the place in the WAL up to which it stands for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotReads {
    /// Which of [`Listing::logs`].
    pub log: usize,
    /// The number of a segment.
    pub index: i64,
    /// An offset in it.
    pub offset: u64,
}

/// What a start comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// What it has not of what could be had.
    pub not_replayed: Samples,
    /// What is gone from disk after it.
    pub gone: Samples,
    /// What it drops, since no series record says what the refs of these samples mean; staleness markers among it, as in
    /// what Prometheus logs of it (`Unknown series references`).
    pub unknown_refs: Samples,
    /// What it serves under labels that are not theirs.
    pub wrong_labels: Samples,
    /// What of `not_replayed` stands in a part of the WAL that it does not read, since it has loaded a chunk snapshot.
    pub hidden_by_snapshot: Samples,
    /// What it has from a chunk snapshot, and no record that can be read has; staleness markers among it.
    pub only_in_snapshot: Samples,
    /// What of `not_replayed` it reads and does not take, since it is older than a head chunk of its series, and in none.
    pub hidden_by_head_chunks: Samples,
    /// What stands in head chunks that a start loads, and in no record that can be read; staleness markers among it.
    pub only_in_head_chunks: Samples,
    /// What of `not_replayed` is in records that this version comes to and cannot read: a checkpoint drops them for good.
    pub passed_over: Samples,
}

/// What each start comes to. `min_valid_time` as [`min_valid_time`] has it; `settled` is what is known of segments in doubt.
///
/// # Errors
/// If a segment cannot be opened, and it is not that it has gone.
pub fn count(
    listing: &Listing,
    settled: &Settlements,
    starts: &[StartReads],
    version: Version,
    min_valid_time: i64,
    chunks: &HeadChunks,
) -> io::Result<Vec<Counted>> {
    // Later starts mostly read and leave what the ones before them did.
    let mut differing: Vec<StartReads> = Vec::new();
    let mut which = Vec::new();
    for start in starts.iter().map(StartReads::in_order) {
        let known = differing.iter().position(|other| *other == start);
        which.push(known.unwrap_or(differing.len()));
        if known.is_none() {
            differing.push(start);
        }
    }
    let logs = Logs { listing, version, survey: &survey(listing, settled, version)?, starts: &differing };
    let counted = logs.count(min_valid_time, chunks, Logs::read_in_pieces)?;
    Ok(which.into_iter().filter_map(|start| counted.get(start).copied()).collect())
}

/// As [`count`], sample by sample: slower, and what [`count`] is tested against.
///
/// # Errors
/// As of [`count`].
#[doc(hidden)]
pub fn count_one_by_one(
    listing: &Listing,
    settled: &Settlements,
    starts: &[StartReads],
    version: Version,
    min_valid_time: i64,
    chunks: &HeadChunks,
) -> io::Result<Vec<Counted>> {
    let logs = Logs { listing, version, survey: &survey(listing, settled, version)?, starts };
    logs.count(min_valid_time, chunks, Logs::read_one_by_one)
}
