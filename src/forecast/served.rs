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
mod pieces;
mod reads;
mod runs;
mod start;
mod tables;
mod tally;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::heads::{Heads, Left, Turn, Whole};
use self::pieces::{Making, Pieces};
use self::reads::{Extent, Reads};
use self::tables::Namer;
use super::replay::{Part, Replay};
use super::report::Samples;
use super::{HeadChunks, Version};
use crate::record::{Record, RecordType, SnapshotRecord};
use crate::scan::salvage::{Contents, Problem, Reading, Settled, Visitor, salvage_settling, settle};
use crate::scan::settled::Settlements;
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
    let checkpoint = &listing.logs[last_checkpoint(listing)?];
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
    let logs = Logs { listing, version, survey: &survey(listing, settled, version)?, starts };
    logs.count(min_valid_time, chunks, Logs::read_in_pieces)
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
    logs.count(min_valid_time, chunks, |logs, units, heads, _| {
        units.iter().try_for_each(|unit| logs.read_one_by_one(unit, heads, &Wanted::all_from(0)))
    })
}

/// A segment as the salvage reader sees it.
#[derive(Debug)]
struct Surveyed {
    length: u64,
    /// Bits that, flipped back, give whole records: those can be had.
    corrections: Vec<(u64, u8)>,
    /// With these bits flipped back.
    settled: Settled,
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
        if contents.record_type != Some(RecordType::Exemplars) {
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

/// Looks at a segment, of which may be known already how it is settled.
fn look(file: &File, length: u64, known: Option<&Settled>) -> (FirstLook, Settled) {
    let Some(settled) = known else {
        return salvage_settling(file, length, Reading::Prometheus, Corrections::Sure, FirstLook::default);
    };
    let mut first = FirstLook::default();
    settled.tell(file, length, Reading::Prometheus, &mut first);
    (first, settled.clone())
}

fn survey(listing: &Listing, known: &Settlements, version: Version) -> io::Result<Survey> {
    let survey = |path: &PathBuf| -> io::Result<Option<Surveyed>> {
        let Some((file, length)) = open(path)? else { return Ok(None) };
        let (first, mut settled) = look(&file, length, known.of(&file, length));
        let FirstLook { corrections, odd, has_zstd, min_time, max_time } = first;
        if !corrections.is_empty() {
            let corrected = Corrected { file: &file, corrections: &corrections };
            settled = settle(&corrected, length, Reading::Prometheus, &mut FirstLook::default());
        }
        let is_plain =
            settled.is_certain() && corrections.is_empty() && !odd && (!has_zstd || version.reads_zstd());
        Ok(Some(Surveyed { length, corrections, settled, is_plain, min_time, max_time }))
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
    match crate::io::open(path) {
        Ok(file) => {
            let length = file.metadata()?.len();
            Ok(Some((file, length)))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound || crate::io::is_no_file(&e) => Ok(None),
        Err(e) => Err(e),
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
    let checkpoint = last_checkpoint(listing);
    let number = checkpoint.and_then(|log| checkpoint_number(&listing.logs[log]));
    let of_kind = |kind: LogKind| {
        let logs = listing.logs.iter().enumerate().filter(move |(_, log)| log.kind == kind);
        logs.flat_map(|(index, log)| (0..log.segments.len()).map(move |segment| (index, segment)))
    };
    let (low, above): (Vec<_>, Vec<_>) = of_kind(LogKind::Wal).partition(|&(log, segment)| {
        number.is_some_and(|last| listing.logs[log].segments[segment].index <= last)
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

/// The checkpoint with the highest number (`LastCheckpoint`).
fn last_checkpoint(listing: &Listing) -> Option<usize> {
    let checkpoints = listing.logs.iter().enumerate().filter(|(_, log)| log.kind == LogKind::Checkpoint);
    checkpoints.max_by_key(|(_, log)| checkpoint_number(log)).map(|(index, _)| index)
}

fn checkpoint_number(log: &LogDirectory) -> Option<i64> {
    let name = log.relative.rsplit('/').next()?;
    wal::segments::segment_index(name.strip_prefix("checkpoint.")?)
}

/// The logs, and who reads them.
#[derive(Clone, Copy)]
struct Logs<'a> {
    listing: &'a Listing,
    version: Version,
    survey: &'a Survey,
    starts: &'a [StartReads],
}

/// Which records of a unit are read one by one, counted from 0 as [`Pieces`] counts them.
struct Wanted {
    records: Range<u64>,
    /// Nothing but samples of these refs; `None`: everything.
    refs: Option<HashSet<u64>>,
}

impl Wanted {
    const fn all_from(from: u64) -> Self {
        Self { records: from..u64::MAX, refs: None }
    }
}

impl Logs<'_> {
    /// What each start comes to, where `read` lets heads read units.
    fn count(
        &self,
        min_valid_time: i64,
        chunks: &HeadChunks,
        read: impl Fn(&Self, &[Unit], &mut Heads<'_>, &Namer) -> io::Result<()>,
    ) -> io::Result<Vec<Counted>> {
        let units = order(self.listing, self.survey);
        let is_whole = |of: &dyn Fn(LogKind) -> bool| {
            let logs = self.listing.logs.iter().zip(self.survey).filter(|(log, _)| of(log.kind));
            logs.flat_map(|(_, segments)| segments).flatten().all(|segment| segment.is_plain)
        };
        let wbl = is_whole(&|kind| kind == LogKind::Wbl);
        let whole = Whole { wal: is_whole(&|kind| kind != LogKind::Wbl), wbl };
        let namer = Namer::default();
        let mut heads = Heads::new(self.starts, self.version, min_valid_time, whole, chunks, &namer);
        loop {
            snapshots(self.listing, self.starts, self.version, &mut heads);
            read(self, &units, &mut heads, &namer)?;
            match heads.finish() {
                Turn::Done(counted) => return Ok(counted),
                Turn::Again(next) => heads = *next,
            }
        }
    }

    /// Lets all heads read units: some are made into pieces side by side, and taken in order.
    fn read_in_pieces(&self, units: &[Unit], heads: &mut Heads<'_>, namer: &Namer) -> io::Result<()> {
        for units in units.chunks(rayon::current_num_threads().max(1)) {
            let min_valid_time = heads.min_valid_time();
            let pieces = |unit: &Unit| -> io::Result<(Vec<Reads>, Vec<pieces::Part>)> {
                let reads = self.reads(unit);
                let making = Making { version: self.version, min_valid_time, namer, reads: &reads };
                let parts = self.pieces(unit, making)?;
                Ok((reads, parts))
            };
            let made: Vec<_> = units.par_iter().map(pieces).collect();
            for (unit, made) in units.iter().zip(made) {
                let (_, parts) = made?;
                self.take(unit, parts, heads)?;
            }
        }
        Ok(())
    }

    fn take(&self, unit: &Unit, parts: Vec<pieces::Part>, heads: &mut Heads<'_>) -> io::Result<()> {
        let mut readings = 0;
        for part in parts {
            let piece = match part {
                pieces::Part::Piece(piece) => piece,
                pieces::Part::Rest { from } => {
                    return self.read_one_by_one(unit, heads, &Wanted::all_from(from));
                }
            };
            let records = piece.records.clone();
            if readings == MOST_READINGS {
                return self.read_one_by_one(unit, heads, &Wanted::all_from(records.start));
            }
            let refs = match heads.take(&piece) {
                Left::Nothing => continue,
                Left::Refs(refs) => Some(refs),
                Left::Everything => None,
            };
            readings += 1;
            drop(piece);
            self.read_one_by_one(unit, heads, &Wanted { records, refs })?;
        }
        Ok(())
    }

    /// The segments of a unit that are there.
    fn there(&self, unit: &Unit) -> Vec<(usize, &Surveyed)> {
        let surveyed = |segment: usize| self.survey[unit.log].get(segment).and_then(Option::as_ref);
        unit.segments.iter().filter_map(|&segment| Some((segment, surveyed(segment)?))).collect()
    }

    /// Who reads these segments.
    fn reads(&self, unit: &Unit) -> Vec<Reads> {
        let of_segment = |(segment, _)| Reads {
            late: self.listing.logs[unit.log].kind == LogKind::Wbl,
            before: unit.before,
            starts: self
                .starts
                .iter()
                .map(|start| extents(self.listing, start, unit.log, segment))
                .collect(),
        };
        self.there(unit).into_iter().map(of_segment).collect()
    }

    fn read_one_by_one(&self, unit: &Unit, heads: &mut Heads<'_>, wanted: &Wanted) -> io::Result<()> {
        let reads = self.reads(unit);
        self.feed(unit, &mut OneByOne { heads, reads: &reads, wanted, record: 0 })
    }

    fn pieces(&self, unit: &Unit, making: Making<'_>) -> io::Result<Vec<pieces::Part>> {
        // Nothing else is read of it.
        if making.reads.iter().any(|reads| reads.is_read_one_by_one()) {
            return Ok(vec![pieces::Part::Rest { from: 0 }]);
        }
        let there = self.there(unit);
        // One segment where nothing is wrong is walked, if nothing that a walk does not know is in it.
        if let [(segment, surveyed)] = &*there
            && surveyed.is_plain
        {
            let path = &self.listing.logs[unit.log].segments[*segment].path;
            let Some((file, _)) = open(path)? else { return Ok(Vec::new()) };
            let new = || Told { feed: Pieces::new(making), part: 0 };
            let told = surveyed.settled.read(&file, surveyed.length, Reading::Prometheus, new);
            return Ok(told.feed.finish());
        }
        let mut pieces = Pieces::new(making);
        self.feed(unit, &mut pieces)?;
        Ok(pieces.finish())
    }

    /// Tells of all records of a unit.
    fn feed<F: Feed>(&self, unit: &Unit, feed: &mut F) -> io::Result<()> {
        let segments = &self.listing.logs[unit.log].segments;
        let there = self.there(unit);
        let is_plain = there.iter().all(|(_, surveyed)| surveyed.is_plain);
        let mut replay = (!is_plain).then(|| {
            let part = |&(segment, surveyed): &(usize, &Surveyed)| Part {
                dir: String::new(),
                index: segments[segment].index,
                source: Reopened(segments[segment].path.clone()),
                length: surveyed.length,
            };
            Ahead::new(Replay::new(there.iter().map(part).collect(), self.version))
        });
        for (part, &(segment, surveyed)) in there.iter().enumerate() {
            let Some((file, _)) = open(&segments[segment].path)? else { continue };
            let mut lockstep = Lockstep { feed, replay: replay.as_mut(), part };
            let corrected = Corrected { file: &file, corrections: &surveyed.corrections };
            surveyed.settled.tell(&corrected, surveyed.length, Reading::Prometheus, &mut lockstep);
        }
        if let Some(replay) = &mut replay {
            while replay.at.is_some() {
                replay.feed_alone(feed);
            }
        }
        Ok(())
    }
}

/// How often a unit is read again for some samples of it, before all that is left of it is read one by one.
const MOST_READINGS: u32 = 3;

/// Hears of the records of a unit, in order.
trait Feed {
    /// A record of the segment `part` that the salvage reader has, and Prometheus's reader too, or not.
    fn salvaged(&mut self, data: &[u8], end: u64, is_replayed: bool, part: usize);
    /// A record that only Prometheus's reader has.
    fn only_replayed(&mut self, data: &[u8], end: u64, part: usize);
}

/// Gives records to heads one by one.
struct OneByOne<'a, 'h> {
    heads: &'a mut Heads<'h>,
    reads: &'a [Reads],
    wanted: &'a Wanted,
    record: u64,
}

impl OneByOne<'_, '_> {
    /// Whether the next record is wanted.
    fn is_wanted(&mut self) -> bool {
        let record = self.record;
        self.record += 1;
        self.wanted.records.contains(&record)
    }
}

impl Feed for OneByOne<'_, '_> {
    fn salvaged(&mut self, data: &[u8], end: u64, is_replayed: bool, part: usize) {
        if self.is_wanted()
            && let Some(reads) = self.reads.get(part)
        {
            match &self.wanted.refs {
                None => self.heads.salvaged(data, end, is_replayed, reads),
                Some(refs) => self.heads.salvaged_samples(data, end, is_replayed, reads, refs),
            }
        }
    }

    fn only_replayed(&mut self, data: &[u8], end: u64, part: usize) {
        if self.is_wanted()
            && self.wanted.refs.is_none()
            && let Some(reads) = self.reads.get(part)
        {
            self.heads.only_replayed(data, end, reads);
        }
    }
}

/// Feeds a segment of which all readers see the same records.
struct Told<F> {
    feed: F,
    part: usize,
}

impl<F: Feed> Visitor for Told<F> {
    fn record(&mut self, record: &wal::Record<'_>, _contents: &Contents) {
        self.feed.salvaged(record.data, record.end, true, self.part);
    }

    fn damage(&mut self, _damage: Problem) {}
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
        LogKind::Checkpoint => checkpoint_number(directory).is_some_and(|number| number < snapshot.index),
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
            let source = Reopened(segment.path.clone());
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
struct Reopened(PathBuf);

impl ReadAt for Reopened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(&crate::io::open(&self.0)?, buffer, offset)
    }
}

/// Prometheus's reader, one record ahead.
struct Ahead {
    replay: Replay<Reopened>,
    /// Part and end of the record that is ahead.
    at: Option<(usize, u64)>,
    record: Vec<u8>,
}

impl Ahead {
    fn new(replay: Replay<Reopened>) -> Self {
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
    fn feed_alone(&mut self, feed: &mut impl Feed) {
        if let Some((part, end)) = self.at {
            feed.only_replayed(&self.record, end, part);
        }
        self.advance();
    }
}

/// Feeds what the salvage reader tells, and what Prometheus's reader has besides.
struct Lockstep<'a, F> {
    feed: &'a mut F,
    replay: Option<&'a mut Ahead>,
    part: usize,
}

impl<F: Feed> Visitor for Lockstep<'_, F> {
    fn record(&mut self, record: &wal::Record<'_>, _contents: &Contents) {
        let here = (self.part, record.end);
        let mut is_replayed = true;
        if let Some(replay) = &mut self.replay {
            while replay.at.is_some_and(|at| at < here || at == here && replay.record != record.data) {
                replay.feed_alone(self.feed);
            }
            is_replayed = replay.at == Some(here);
            if is_replayed {
                replay.advance();
            }
        }
        self.feed.salvaged(record.data, record.end, is_replayed, self.part);
    }

    fn damage(&mut self, _damage: Problem) {}
}
