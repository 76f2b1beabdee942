//! The logs, unit by unit: as pieces, or record by record beside Prometheus's reader.

use std::collections::HashSet;
use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::super::replay::{Part, Replay};
use super::super::{HeadChunks, Version};
use super::heads::{Heads, Left, Turn, Whole};
use super::order::{Unit, order};
use super::pieces::{self, Making, Pieces};
use super::reads::{Reads, extents};
use super::reopened::Reopened;
use super::survey::{Corrected, Survey, Surveyed, open};
use super::tables::Namer;
use super::{Counted, StartReads, snapshots};
use crate::scan::salvage::{Contents, Problem, Reading, Salvage, Visitor};
use crate::tsdb::{Listing, LogKind};
use crate::wal;

/// The logs, and who reads them.
#[derive(Clone, Copy)]
pub(super) struct Logs<'a> {
    pub(super) listing: &'a Listing,
    pub(super) version: Version,
    pub(super) survey: &'a Survey,
    pub(super) starts: &'a [StartReads],
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
    pub(super) fn count(
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
            snapshots::load(self.listing, self.starts, self.version, &mut heads);
            read(self, &units, &mut heads, &namer)?;
            match heads.finish() {
                Turn::Done(counted) => return Ok(counted),
                Turn::Again(next) => heads = *next,
            }
        }
    }

    /// Lets all heads read units: some are made into pieces side by side, and taken in order.
    pub(super) fn read_in_pieces(
        &self,
        units: &[Unit],
        heads: &mut Heads<'_>,
        namer: &Namer,
    ) -> io::Result<()> {
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
                    return self.read_wanted(unit, heads, &Wanted::all_from(from));
                }
            };
            let records = piece.records.clone();
            if readings == MOST_READINGS {
                return self.read_wanted(unit, heads, &Wanted::all_from(records.start));
            }
            let refs = match heads.take(&piece) {
                Left::Nothing => continue,
                Left::Refs(refs) => Some(refs),
                Left::Everything => None,
            };
            readings += 1;
            drop(piece);
            self.read_wanted(unit, heads, &Wanted { records, refs })?;
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
            starts: self.starts.iter().map(|start| extents(self.listing, start, unit.log, segment)).collect(),
        };
        self.there(unit).into_iter().map(of_segment).collect()
    }

    /// Lets all heads read units record by record.
    pub(super) fn read_one_by_one(
        &self,
        units: &[Unit],
        heads: &mut Heads<'_>,
        _namer: &Namer,
    ) -> io::Result<()> {
        units.iter().try_for_each(|unit| self.read_wanted(unit, heads, &Wanted::all_from(0)))
    }

    fn read_wanted(&self, unit: &Unit, heads: &mut Heads<'_>, wanted: &Wanted) -> io::Result<()> {
        let reads = self.reads(unit);
        self.feed(unit, &mut OneByOne { heads, reads: &reads, wanted, record: 0 })
    }

    fn pieces(&self, unit: &Unit, making: Making<'_>) -> io::Result<Vec<pieces::Part>> {
        // Nothing else is read of it.
        if making.reads.iter().any(Reads::is_read_one_by_one) {
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
            let salvage = Salvage::new(&file, surveyed.length, Reading::Prometheus);
            let told = if surveyed.intact.is_empty() {
                salvage.read(new)
            } else {
                let mut told = new();
                salvage.around(&surveyed.intact).read_with(&surveyed.decisions, &mut told);
                told
            };
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
            let keeps_step = self.version.reads_zstd();
            let mut lockstep = Lockstep { feed, replay: replay.as_mut(), part, keeps_step, in_step_to: None };
            let corrected = Corrected { file: &file, corrections: &surveyed.corrections };
            let salvage =
                Salvage::new(&corrected, surveyed.length, Reading::Prometheus).around(&surveyed.intact);
            salvage.read_with(&surveyed.decisions, &mut lockstep);
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
pub(super) trait Feed {
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
        self.walked(record);
    }

    fn walked(&mut self, record: &wal::Record<'_>) {
        self.feed.salvaged(record.data, record.end, true, self.part);
    }

    fn damage(&mut self, _damage: Problem) {}
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
    /// Where nothing is wrong, Prometheus's reader makes the same of all records.
    keeps_step: bool,
    /// From the record at which it is up to here it has the same records, and need not read them.
    in_step_to: Option<u64>,
}

impl<F: Feed> Lockstep<'_, F> {
    /// Whether Prometheus's reader is at that record. The records that it alone has before are fed first.
    fn reaches(&mut self, record: &wal::Record<'_>) -> bool {
        let here = (self.part, record.end);
        let Some(replay) = &mut self.replay else { return true };
        while replay.at.is_some_and(|at| at < here || at == here && replay.record != record.data) {
            replay.feed_alone(self.feed);
        }
        replay.at == Some(here)
    }
}

impl<F: Feed> Visitor for Lockstep<'_, F> {
    fn record(&mut self, record: &wal::Record<'_>, _contents: &Contents) {
        let is_replayed = self.reaches(record);
        if let Some(replay) = self.replay.as_mut().filter(|_| is_replayed) {
            replay.advance();
        }
        self.feed.salvaged(record.data, record.end, is_replayed, self.part);
    }

    fn walked(&mut self, record: &wal::Record<'_>) {
        let is_replayed = self.in_step_to.is_some() || self.reaches(record);
        if is_replayed && self.keeps_step {
            self.in_step_to = Some(record.end);
        } else if let Some(replay) = self.replay.as_mut().filter(|_| is_replayed) {
            replay.advance();
        }
        self.feed.salvaged(record.data, record.end, is_replayed, self.part);
    }

    fn walk_ends(&mut self) {
        if let Some(end) = self.in_step_to.take()
            && let Some(replay) = &mut self.replay
        {
            replay.replay.seek(self.part, end);
            replay.advance();
        }
    }

    fn damage(&mut self, _damage: Problem) {}
}
