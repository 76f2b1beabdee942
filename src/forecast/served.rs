//! What starts of Prometheus do not serve of what could be read, and what no later start can get back.
//!
//! All heads are filled in one pass over the logs, record by record:
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
//! A second pass is needed where the first one has found what changes the meaning of earlier records: tombstones, and
//! samples that stand there twice and that a head had missed or thrown away the first time.
//!
//! In memory: about 120 bytes for a series with one ref, 130 for each start, and up to twice that while tables grow. Nothing for a
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
mod reads;
mod start;
mod tables;
mod tally;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::heads::{Heads, Turn, Whole};
use self::reads::{Extent, Reads};
use super::replay::{Part, Replay};
use super::report::Samples;
use super::{HeadChunks, Version};
use crate::record::{Record, SnapshotRecord};
use crate::scan::salvage::{Contents, Decisions, Problem, Reading, Salvage, Visitor};
use crate::scan::settled::Settlements;
use crate::tsdb::replay_order::Role;
use crate::tsdb::{Block, Listing, LogDirectory, LogKind};
use crate::wal::{self, Compression, Corrections, Event, ReadAt, SegmentReader};

/// A stretch of one segment that is read, or left: with `upto`, the records that Prometheus's reader has and that end at or
/// before it; without, all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Which of [`Listing::logs`].
    pub log: usize,
    /// Which of [`LogDirectory::segments`].
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

/// The time before which a start takes no sample from the WAL, ms (`inOrderBlocksMaxTime`, `tsdb/db.go`; `ReadMinValidTime`,
/// `tsdb/wlog/checkpoint.go`): what is older is in blocks.
#[must_use]
pub fn min_valid_time(listing: &Listing, blocks: &[Block], version: Version) -> i64 {
    let metas = blocks.iter().filter_map(|block| block.meta.as_ref().ok());
    let of_blocks = if version.heeds_block_hints() {
        let heeded = |hint: &str| match hint {
            "from-out-of-order" => true,
            "from-stale-series" => version.compacts_stale_series(),
            "from-selected-series" => version.compacts_selected_series(),
            _ => false,
        };
        let in_order = metas.filter(|meta| !meta.hints.iter().any(|hint| heeded(hint)));
        in_order.map(|meta| meta.max_time).max()
    } else {
        metas.max_by_key(|meta| meta.min_time).map(|meta| meta.max_time)
    };
    let stored = version.reads_min_valid_time().then(|| stored_min_valid_time(listing)).flatten();
    of_blocks.into_iter().chain(stored).max().unwrap_or(i64::MIN)
}

/// What the first record of the last checkpoint says.
fn stored_min_valid_time(listing: &Listing) -> Option<i64> {
    let checkpoint = &listing.logs[listing.replayed_checkpoint()?];
    for segment in &checkpoint.segments {
        let Ok(Some((file, length))) = open(&segment.path) else { continue };
        let mut reader = SegmentReader::new(&file, length);
        if let Some(event) = reader.next() {
            let Event::Record(record) = event else { return None };
            let Record::MinValidTime(time) = Record::parse(record.data) else { return None };
            return time.min_time().ok();
        }
    }
    None
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
    let survey = survey(listing, settled, version)?;
    let units = order(listing, &survey);
    let is_whole = |of: &dyn Fn(LogKind) -> bool| {
        let logs = listing.logs.iter().zip(&survey).filter(|(log, _)| of(log.kind));
        logs.flat_map(|(_, segments)| segments).flatten().all(|segment| segment.is_plain)
    };
    let wbl = is_whole(&|kind| kind == LogKind::Wbl);
    let whole = Whole { wal: is_whole(&|kind| kind != LogKind::Wbl), wbl };
    let mut heads = Heads::new(starts, version, min_valid_time, whole, chunks);
    loop {
        snapshots(listing, starts, version, &mut heads);
        for unit in &units {
            read(listing, &survey, unit, starts, version, &mut heads)?;
        }
        match heads.finish() {
            Turn::Done(counted) => return Ok(counted),
            Turn::Again(next) => heads = *next,
        }
    }
}

/// A segment as the salvage reader sees it.
#[derive(Debug)]
struct Surveyed {
    length: u64,
    /// Bits that, flipped back, give whole records: those can be had.
    corrections: Vec<(u64, u8)>,
    /// With these bits flipped back.
    decisions: Decisions,
    /// Every reader of that version sees the same records.
    is_plain: bool,
    min_time: Option<i64>,
    max_time: Option<i64>,
}

#[derive(Debug, Default)]
struct FirstLook {
    corrections: Vec<(u64, u8)>,
    odd: bool,
    has_zstd: bool,
    min_time: Option<i64>,
    max_time: Option<i64>,
}

impl Visitor for FirstLook {
    fn record(&mut self, record: &wal::Record<'_>, contents: &Contents) {
        self.odd |= record.flags_disagree;
        self.has_zstd |= record.compression == Compression::Zstd;
        if contents.are_samples() {
            self.min_time = self.min_time.into_iter().chain(contents.min_time).min();
            self.max_time = self.max_time.into_iter().chain(contents.max_time).max();
        }
    }

    fn damage(&mut self, damage: Problem) {
        self.odd = true;
        self.corrections.extend(damage.correction.map(|mended| (mended.at, mended.mask)));
    }
}

/// A segment with some bits flipped back.
#[derive(Debug)]
struct Corrected<'a> {
    file: &'a File,
    corrections: &'a [(u64, u8)],
}

impl ReadAt for Corrected<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = ReadAt::read_at(self.file, buffer, offset)?;
        for &(at, mask) in self.corrections {
            let place = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = place.and_then(|at| buffer[..count].get_mut(at)) {
                *byte ^= mask;
            }
        }
        Ok(count)
    }
}

/// By log and segment; `None` for what is no file, or has gone.
type Survey = Vec<Vec<Option<Surveyed>>>;

fn survey(listing: &Listing, known: &Settlements, version: Version) -> io::Result<Survey> {
    let survey = |path: &PathBuf| -> io::Result<Option<Surveyed>> {
        let Some((file, length)) = open(path)? else { return Ok(None) };
        let segment = known.segment(&file, length, Corrections::Sure);
        let (first, mut decisions) = segment.read_deciding(FirstLook::default);
        let FirstLook { corrections, odd, has_zstd, min_time, max_time } = first;
        if !corrections.is_empty() {
            let corrected = Corrected { file: &file, corrections: &corrections };
            decisions = Salvage::new(&corrected, length, Reading::Prometheus).decide();
        }
        let is_plain =
            decisions.is_empty() && corrections.is_empty() && !odd && (!has_zstd || version.reads_zstd());
        Ok(Some(Surveyed { length, corrections, decisions, is_plain, min_time, max_time }))
    };
    let of_log = |log: &LogDirectory| -> io::Result<Vec<Option<Surveyed>>> {
        if log.kind == LogKind::ChunkSnapshot {
            return Ok(Vec::new());
        }
        log.segments.par_iter().map(|segment| survey(&segment.path)).collect()
    };
    listing.logs.iter().map(of_log).collect()
}

/// The file and its length; `None` if it has gone, or is no file.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match crate::io::open_if_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened,
    }
}

/// Segments of one log that Prometheus reads with one reader.
#[derive(Debug)]
struct Unit {
    log: usize,
    segments: Vec<usize>,
    /// What the base takes no sample from that is as late as this, ms.
    before: i64,
}

/// The order in which the base reads. Every start reads in this order too.
fn order(listing: &Listing, survey: &Survey) -> Vec<Unit> {
    let checkpoint = listing.replayed_checkpoint();
    let number = checkpoint.and_then(|log| listing.logs[log].checkpoint_number());
    let of_kind = |kind: LogKind| {
        let logs = listing.logs.iter().enumerate().filter(move |(_, log)| log.kind == kind);
        logs.flat_map(|(index, log)| (0..log.segments.len()).map(move |segment| (index, segment)))
    };
    let (low, above): (Vec<_>, Vec<_>) = of_kind(LogKind::Wal).partition(|&(log, segment)| {
        Role::in_wal(listing.logs[log].segments[segment].index, number) == Role::Below
    });
    let single = |(log, segment): (usize, usize)| Unit { log, segments: vec![segment], before: i64::MAX };
    let units = |which: Vec<(usize, usize)>| which.into_iter().map(single);

    let seen = |&(log, segment): &(usize, usize)| survey[log].get(segment).and_then(Option::as_ref);
    let checkpoint: Option<Unit> = checkpoint.map(|log| {
        let segments = (0..listing.logs[log].segments.len()).collect();
        Unit { log, segments, before: i64::MAX }
    });
    let of_checkpoint: Vec<&Surveyed> =
        checkpoint.iter().flat_map(|unit| survey[unit.log].iter().flatten()).collect();
    let newest = of_checkpoint.iter().filter_map(|segment| segment.max_time).max();
    let oldest = of_checkpoint.iter().filter_map(|segment| segment.min_time).min();
    let oldest_low = low.iter().filter_map(seen).filter_map(|segment| segment.min_time).min();
    let newest_low = low.iter().filter_map(seen).filter_map(|segment| segment.max_time).max();
    let oldest_above = above.iter().filter_map(seen).filter_map(|segment| segment.min_time).min();

    let mut order: Vec<Unit> = Vec::new();
    if newest_low <= newest || oldest_low.zip(oldest).is_some_and(|(low, checkpoint)| low <= checkpoint) {
        // What the checkpoint was made of. If it is whole, it has all that is not older than its oldest sample.
        let whole = of_checkpoint.iter().all(|segment| segment.is_plain);
        let before = oldest.filter(|_| whole).unwrap_or(i64::MAX);
        order.extend(units(low).map(|unit| Unit { before, ..unit }));
        order.extend(checkpoint);
        order.extend(units(above));
    } else if oldest_above.is_none_or(|oldest| newest_low <= Some(oldest)) {
        // Written by a server that had to begin anew, and counted from 0.
        order.extend(checkpoint);
        order.extend(units(low));
        order.extend(units(above));
    } else {
        order.extend(checkpoint);
        order.extend(units(above));
        order.extend(units(low));
    }
    order.extend(of_kind(LogKind::Wbl).map(single));
    order
}

/// Lets all heads read a unit.
fn read(
    listing: &Listing,
    survey: &Survey,
    unit: &Unit,
    starts: &[StartReads],
    version: Version,
    heads: &mut Heads<'_>,
) -> io::Result<()> {
    let segments = &listing.logs[unit.log].segments;
    let surveyed = |segment: usize| survey[unit.log].get(segment).and_then(Option::as_ref);
    let there: Vec<(usize, &Surveyed)> =
        unit.segments.iter().filter_map(|&segment| Some((segment, surveyed(segment)?))).collect();
    let is_plain = there.iter().all(|(_, surveyed)| surveyed.is_plain);
    let mut replay = (!is_plain).then(|| {
        let part = |&(segment, surveyed): &(usize, &Surveyed)| Part {
            dir: String::new(),
            index: segments[segment].index,
            source: OpenedAnew(segments[segment].path.clone()),
            length: surveyed.length,
        };
        Ahead::new(Replay::new(there.iter().map(part).collect(), version))
    });
    let reads: Vec<Reads> = there
        .iter()
        .map(|&(segment, _)| Reads {
            late: listing.logs[unit.log].kind == LogKind::Wbl,
            before: unit.before,
            starts: starts.iter().map(|start| extents(listing, start, unit.log, segment)).collect(),
        })
        .collect();
    for (part, &(segment, surveyed)) in there.iter().enumerate() {
        let Some((file, _)) = open(&segments[segment].path)? else { continue };
        let mut lockstep = Lockstep { heads, replay: replay.as_mut(), reads: &reads, part };
        let corrected = Corrected { file: &file, corrections: &surveyed.corrections };
        let salvage = Salvage::new(&corrected, surveyed.length, Reading::Prometheus);
        salvage.read_with(&surveyed.decisions, &mut lockstep);
    }
    if let Some(replay) = &mut replay {
        while replay.at.is_some() {
            replay.feed_alone(heads, &reads);
        }
    }
    Ok(())
}

/// How far a start replays a segment, and what it leaves of it.
fn extents(listing: &Listing, start: &StartReads, log: usize, segment: usize) -> (Extent, Extent) {
    let extent = |stretches: &[Stretch]| {
        let here = stretches.iter().find(|stretch| (stretch.log, stretch.segment) == (log, segment));
        here.map_or(Extent::Nothing, |stretch| stretch.upto.map_or(Extent::All, Extent::Upto))
    };
    let replayed = extent(&start.replayed);
    let Some(snapshot) = start.snapshot.filter(|_| replayed != Extent::Nothing) else {
        return (replayed, extent(&start.left));
    };
    let directory = &listing.logs[log];
    let skips = match directory.kind {
        LogKind::Wal => directory.segments[segment].index < snapshot.index,
        LogKind::Checkpoint => directory.checkpoint_number().is_some_and(|number| number < snapshot.index),
        LogKind::Wbl | LogKind::ChunkSnapshot => false,
    };
    let is_cut = directory.kind == LogKind::Wal && directory.segments[segment].index == snapshot.index;
    let upto = match replayed {
        Extent::Upto(upto) => Some(upto),
        _ => None,
    };
    let replayed = match (skips, is_cut) {
        (true, _) => Extent::Skipped,
        (false, true) => Extent::Behind { offset: snapshot.offset, upto },
        (false, false) => replayed,
    };
    (replayed, extent(&start.left))
}

/// Lets starts load their chunk snapshots (`loadChunkSnapshot`, `tsdb/head_wal.go`).
fn snapshots(listing: &Listing, starts: &[StartReads], version: Version, heads: &mut Heads<'_>) {
    let mut logs: Vec<usize> = starts.iter().filter_map(|start| Some(start.snapshot?.log)).collect();
    logs.sort_unstable();
    logs.dedup();
    for log in logs {
        let loads: Vec<bool> =
            starts.iter().map(|start| start.snapshot.is_some_and(|snapshot| snapshot.log == log)).collect();
        let part = |segment: &wal::segments::SegmentFile| {
            let (_, length) = open(&segment.path).ok()??;
            let source = OpenedAnew(segment.path.clone());
            Some(Part { dir: String::new(), index: segment.index, source, length })
        };
        let mut replay = Replay::new(listing.logs[log].segments.iter().filter_map(part).collect(), version);
        while let Some(record) = replay.next() {
            if let SnapshotRecord::Series(series) = SnapshotRecord::parse(record.data)
                && let Ok(series) = series.decode()
            {
                heads.in_snapshot(&series, &loads);
            }
        }
    }
}

/// A file that is opened for each read: a checkpoint may have more segments than there are descriptors.
#[derive(Debug)]
struct OpenedAnew(PathBuf);

impl ReadAt for OpenedAnew {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(&crate::io::open(&self.0)?, buffer, offset)
    }
}

/// Prometheus's reader, one record ahead.
struct Ahead {
    replay: Replay<OpenedAnew>,
    /// Part and end of the record that is ahead.
    at: Option<(usize, u64)>,
    record: Vec<u8>,
}

impl Ahead {
    fn new(replay: Replay<OpenedAnew>) -> Self {
        let mut ahead = Self { replay, at: None, record: Vec::new() };
        ahead.advance();
        ahead
    }

    fn advance(&mut self) {
        self.record.clear();
        self.at = self.replay.next().map(|record| {
            self.record.extend_from_slice(record.data);
            (record.part, record.end)
        });
    }

    /// A record that the salvage reader does not have, and only starts read.
    fn feed_alone(&mut self, heads: &mut Heads<'_>, reads: &[Reads]) {
        if let Some((part, end)) = self.at
            && let Some(reads) = reads.get(part)
        {
            heads.only_replayed(&self.record, end, reads);
        }
        self.advance();
    }
}

/// Feeds all heads with what the salvage reader tells, and with what Prometheus's reader has besides.
struct Lockstep<'a, 'h> {
    heads: &'a mut Heads<'h>,
    replay: Option<&'a mut Ahead>,
    reads: &'a [Reads],
    part: usize,
}

impl Visitor for Lockstep<'_, '_> {
    fn record(&mut self, record: &wal::Record<'_>, _contents: &Contents) {
        let here = (self.part, record.end);
        let mut is_replayed = true;
        if let Some(replay) = &mut self.replay {
            while replay.at.is_some_and(|at| at < here || at == here && replay.record != record.data) {
                replay.feed_alone(self.heads, self.reads);
            }
            is_replayed = replay.at == Some(here);
            if is_replayed {
                replay.advance();
            }
        }
        self.heads.salvaged(record.data, record.end, is_replayed, &self.reads[self.part]);
    }

    fn damage(&mut self, _damage: Problem) {}
}
