//! Heads that are filled side by side: an ideal one, and two for each start.

mod by_runs;
mod out_of_order;
mod outcome;

pub(super) use self::by_runs::Left;

use std::collections::{HashMap, HashSet};

use super::groups::{Attached, Chunks, Cover};
use super::hindsight::Hindsight;
use super::late::{Late, LateSamples};
use super::reads::{Reads, Turns};
use super::start::{Because, Start};
use super::tables::{NONE, Name, Namer, Names, Refs};
use super::tally::{SmallTally, Tally};
use super::{Counted, StartReads};
use crate::forecast::{HeadChunks, Version};
use crate::record::{self, FloatHistogramEntry, HistogramEntry, Record, RecordType, STALE, TombstoneEntry};

/// Which logs are not damaged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    /// WAL and checkpoint.
    pub(super) wal: bool,
    /// WBL.
    pub(super) wbl: bool,
}

/// What comes of a pass.
pub(super) enum Turn<'a> {
    /// For each start what it comes to.
    Done(Vec<Counted>),
    /// Another pass is needed.
    Again(Box<Heads<'a>>),
}

/// Everything that can be had.
#[derive(Debug, Default)]
struct Base {
    /// By ref: the series.
    refs: Vec<u32>,
    /// By ref: the series that it was defined for last, by whatever record.
    defined: Vec<u32>,
    series: Vec<OfSeries>,
    /// Series of which more than one ref is known, or a ref that another series has had: their samples go into one another.
    entangled: HashSet<u32>,
}

#[derive(Debug)]
struct OfSeries {
    /// The time of its last sample from the WAL.
    last: i64,
    /// What counts.
    counted: SmallTally,
    /// Its chunks.
    groups: Attached,
    /// The ref that it was defined for first, by whatever record.
    first_ref: u32,
}

impl Base {
    /// A series record, of whatever reader.
    fn note_definition(&mut self, series_ref: u32, series: u32) {
        let before = std::mem::replace(&mut self.defined[series_ref as usize], series);
        if before != NONE && before != series {
            self.entangled.extend([before, series]);
        }
        let first_ref = &mut self.series[series as usize].first_ref;
        if *first_ref == NONE {
            *first_ref = series_ref;
        } else if *first_ref != series_ref {
            self.entangled.insert(series);
        }
    }
}

/// All heads.
#[derive(Debug)]
pub(super) struct Heads<'a> {
    version: Version,
    min_valid_time: i64,
    whole: Whole,
    namer: &'a Namer,
    names: Names,
    refs: Refs,
    chunks: Chunks<'a>,
    base: Base,
    starts: Vec<Start>,
    late: HashMap<u32, Late>,
    late_samples: LateSamples,
    known: Hindsight,
    learnt: Hindsight,
    is_second: bool,
    /// A start has loaded a chunk snapshot.
    has_snapshots: bool,
    /// Of the record at hand.
    turns: Turns,
}

impl<'a> Heads<'a> {
    pub(super) fn new(
        starts: &[StartReads],
        version: Version,
        min_valid_time: i64,
        whole: Whole,
        chunks: &'a HeadChunks,
        namer: &'a Namer,
    ) -> Self {
        Self {
            version,
            min_valid_time,
            whole,
            namer,
            names: Names::default(),
            refs: Refs::default(),
            chunks: Chunks::new(chunks, version.merges_head_chunks()),
            base: Base::default(),
            starts: starts.iter().map(|start| Start::new(start.serves, start.head_chunks_deleted)).collect(),
            late: HashMap::new(),
            late_samples: LateSamples::default(),
            known: Hindsight::of(starts.len()),
            learnt: Hindsight::of(starts.len()),
            is_second: false,
            has_snapshots: starts.iter().any(|start| start.snapshot.is_some()),
            turns: Turns::default(),
        }
    }

    /// The time before which no sample is taken from the WAL, ms.
    pub(super) fn min_valid_time(&self) -> i64 {
        self.min_valid_time
    }

    /// Empty heads that know what these have learnt.
    fn again(self) -> Self {
        let starts: Vec<StartReads> = self
            .starts
            .iter()
            .map(|start| StartReads {
                serves: start.serves,
                head_chunks_deleted: start.chunks_deleted,
                ..StartReads::default()
            })
            .collect();
        let mut known = self.learnt;
        known.sort();
        let mut next =
            Self::new(&starts, self.version, self.min_valid_time, self.whole, self.chunks.read, self.namer);
        next.known = known;
        next.is_second = true;
        next.has_snapshots = self.has_snapshots;
        next.late_samples = self.late_samples;
        next.late_samples.forget();
        // What counts by series must mean the same series.
        for _ in 0..self.names.len() {
            next.grow_series();
        }
        next.names = self.names;
        next
    }

    /// A record that the salvage reader has, and Prometheus's reader too, or not.
    pub(super) fn salvaged(&mut self, data: &[u8], end: u64, is_replayed: bool, reads: &Reads) {
        let Some(kind) = RecordType::of(data) else { return };
        let is_known = reads.knows(kind, self.version);
        self.turns.salvaged(reads, end, is_replayed, is_known);
        self.read(data, true, reads);
    }

    /// A series that the starts `loads` load from a chunk snapshot.
    pub(super) fn in_snapshot(&mut self, of: &record::SnapshotSeries<'_>, loads: &[bool]) {
        if of.series_ref == 0 {
            return;
        }
        let series = self.names.number(self.namer.name(&of.labels));
        let series_ref = self.refs.number(of.series_ref);
        if series == NONE || series_ref == NONE {
            return;
        }
        if series as usize == self.base.series.len() {
            self.grow_series();
        }
        if series_ref as usize == self.base.refs.len() {
            self.grow_refs(of.series_ref);
        }
        let group = self.chunks.group[series_ref as usize];
        for ((start, &loads), found) in self.starts.iter_mut().zip(loads).zip(&mut self.learnt.found) {
            if loads && start.serves {
                start.load(series_ref, series, (group, &self.chunks), of.chunk.as_ref(), &mut found[0]);
            }
        }
    }

    /// A record that only Prometheus's reader has.
    pub(super) fn only_replayed(&mut self, data: &[u8], end: u64, reads: &Reads) {
        let Some(kind) = RecordType::of(data) else { return };
        if !reads.knows(kind, self.version)
            || record::summarize_as(data, self.version.dialect()).error.is_some()
        {
            return;
        }
        self.turns.only_replayed(reads, end);
        self.read(data, false, reads);
    }

    fn read(&mut self, data: &[u8], in_base: bool, reads: &Reads) {
        match Record::parse(data) {
            Record::Series(r) if !reads.late => {
                for entry in r.entries().flatten() {
                    let name = self.namer.name(&entry.labels);
                    self.define(entry.series_ref, name, in_base);
                }
            }
            Record::Samples(r) => {
                for entry in r.entries().flatten() {
                    self.sample(entry.series_ref, entry.t, entry.value_bits == STALE, in_base, reads);
                }
            }
            // Of a schema that Prometheus does not know, it skips it.
            Record::Histograms(r) => {
                for entry in r.entries().flatten().filter(HistogramEntry::known_schema) {
                    let stale = entry.histogram.sum_bits == STALE;
                    self.sample(entry.series_ref, entry.t, stale, in_base, reads);
                }
            }
            Record::FloatHistograms(r) => {
                for entry in r.entries().flatten().filter(FloatHistogramEntry::known_schema) {
                    let stale = entry.histogram.sum_bits == STALE;
                    self.sample(entry.series_ref, entry.t, stale, in_base, reads);
                }
            }
            Record::Tombstones(r) if !reads.late => {
                for entry in r.entries().flatten() {
                    self.tombstone(&entry, in_base);
                }
            }
            Record::MmapMarkers(r) if reads.late => {
                for entry in r.entries().flatten() {
                    self.marker(entry.series_ref, entry.mmap_ref, in_base);
                }
            }
            // Of the other log, or not served.
            Record::Series(_)
            | Record::Tombstones(_)
            | Record::MmapMarkers(_)
            | Record::Exemplars(_)
            | Record::Metadata(_)
            | Record::MinValidTime(_)
            | Record::Unknown(_) => {}
        }
    }

    fn grow_series(&mut self) {
        let of_series = OfSeries {
            last: i64::MIN,
            counted: SmallTally::NOTHING,
            groups: Attached::none(),
            first_ref: NONE,
        };
        self.base.series.push(of_series);
        self.starts.iter_mut().for_each(Start::add_series);
    }

    fn grow_refs(&mut self, number: u64) {
        self.base.refs.push(NONE);
        self.base.defined.push(NONE);
        self.chunks.add_ref(number);
        for start in &mut self.starts {
            start.add_ref(self.chunks.places);
        }
    }

    fn define(&mut self, number: u64, name: Name, in_base: bool) {
        // No series has it: Prometheus would give it another one.
        if number == 0 {
            return;
        }
        let series = self.names.number(name);
        let series_ref = self.refs.number(number);
        if series == NONE || series_ref == NONE {
            return;
        }
        if series as usize == self.base.series.len() {
            self.grow_series();
        }
        if series_ref as usize == self.base.refs.len() {
            self.grow_refs(number);
        }
        self.base.note_definition(series_ref, series);
        let group = self.chunks.group[series_ref as usize];
        if in_base {
            self.base.refs[series_ref as usize] = series;
            self.base.series[series as usize].groups.add(group);
        }
        let turns = self.starts.iter_mut().zip(&self.turns.takes).zip(&mut self.learnt.found);
        for ((start, &(is_replayed, is_left)), found) in turns {
            if is_replayed && start.serves {
                start.define(series_ref, series, group, &self.chunks, &mut found[0]);
            }
            if is_left {
                start.leave(series_ref, series);
            }
        }
    }

    fn sample(&mut self, number: u64, time: i64, stale: bool, in_base: bool, reads: &Reads) {
        if !reads.late && time < self.min_valid_time {
            return;
        }
        let series_ref = self.refs.find(number);
        self.count_unknown(number, series_ref, time);
        if series_ref == NONE {
            return;
        }
        let is_ideal = time < reads.before;
        let series = if in_base && is_ideal { self.base.refs[series_ref as usize] } else { NONE };
        if reads.late {
            self.late_sample(series_ref, series, time, stale);
        } else {
            self.sample_in_order(series_ref, series, time, stale, is_ideal);
        }
    }

    /// Starts that do not know what the ref means drop the sample, and log how many they have dropped.
    fn count_unknown(&mut self, number: u64, series_ref: u32, time: i64) {
        for (start, (is_replayed, _)) in self.starts.iter_mut().zip(&self.turns.takes) {
            if *is_replayed && start.serves && (series_ref == NONE || start.resolve(series_ref) == NONE) {
                start.drop_unknown(number, &Tally::one(time));
            }
        }
    }

    fn sample_in_order(&mut self, series_ref: u32, series: u32, time: i64, stale: bool, is_ideal: bool) {
        let s = series as usize;
        let is_new = series != NONE && time > self.base.series[s].last;
        let mut covering = None;
        let mut counts = false;
        if is_new {
            self.base.series[s].last = time;
            covering = self.covering(series, time);
            if let Some(Cover { group, pile }) = covering {
                self.chunks.groups[group as usize].in_wal(pile, 1, time);
            }
            counts = !stale && !self.known.deleted.cover(series, time, time);
            if counts && self.late_samples.has(series, time) {
                self.also_late(series_ref, series, time, covering);
                counts = false;
            }
            if counts {
                self.base.series[s].counted.add(time);
            }
        }
        for i in 0..self.starts.len() {
            let (is_replayed, is_left) = self.turns.takes[i];
            let is_skipped = self.turns.skips.get(i).copied().unwrap_or(false);
            let is_passed_over = self.turns.passes_over.get(i).copied().unwrap_or(false);
            let start = &mut self.starts[i];
            if is_new {
                start.see_of_snapshot(s, time);
            }
            let [known, known_left] = &self.known.found[i];
            let [learnt, learnt_left] = &mut self.learnt.found[i];
            if start.serves {
                let to = if is_replayed { start.resolve(series_ref) } else { NONE };
                let mut takes = false;
                if to != NONE {
                    let of_series = &mut start.series[to as usize];
                    takes = time > of_series.last;
                    if takes {
                        of_series.last = time;
                        of_series.filled = true;
                    }
                }
                if counts && !known.has(series, time) {
                    let is_deleted = start.wiped.contains(&series)
                        || self.known.deleted_by_start[i].cover(series, time, time);
                    let is_there = takes && to == series || start.has_in_snapshot(series, time);
                    if is_there && !is_deleted {
                        start.series[s].taken.add(time);
                    } else if let Some(Cover { group, pile }) = covering {
                        let place = self.chunks.groups[group as usize].first_place + pile;
                        start.covered[place].add(time);
                    } else {
                        start.series[s].missing.add(time);
                        if is_passed_over {
                            start.series[s].lacks(&Tally::one(time), Because::PassedOver);
                        } else if is_skipped {
                            start.series[s].lacks(&Tally::one(time), Because::Hidden);
                        } else if to == series && !takes && start.has_later_chunk(series, time, &self.chunks)
                        {
                            start.series[s].lacks(&Tally::one(time), Because::Older);
                        }
                    }
                }
                if takes && !stale && !(is_new && to == series) {
                    learnt.add(to, time);
                }
            }
            let to = if is_left && is_ideal { start.resolve_left(series_ref) } else { NONE };
            let mut takes = false;
            if to != NONE {
                let left_last = &mut start.series[to as usize].left_last;
                takes = time > *left_last;
                *left_last = time.max(*left_last);
            }
            if counts && !(takes && to == series) && !known_left.has(series, time) {
                let is_covered = covering.is_some_and(|Cover { group, pile }| {
                    let of_group = self.chunks.groups[group as usize].series_ref;
                    start.has_file(pile) && start.resolve_left(of_group) == series
                });
                if !is_covered {
                    start.series[s].gone.add(time);
                }
            }
            if takes && !stale && !(is_new && to == series) {
                learnt_left.add(to, time);
            }
        }
    }

    /// The chunks in which a sample of the series at that time is.
    fn covering(&self, series: u32, time: i64) -> Option<Cover> {
        self.base.series[series as usize].groups.each().find_map(|group| {
            let of = &self.chunks.groups[group as usize];
            let is_its = self.base.refs[of.series_ref as usize] == series;
            of.find(time).filter(|_| is_its).map(|pile| Cover { group, pile })
        })
    }

    fn tombstone(&mut self, entry: &TombstoneEntry, in_base: bool) {
        let series_ref = self.refs.find(entry.series_ref);
        if series_ref == NONE {
            return;
        }
        let series = if in_base { self.base.refs[series_ref as usize] } else { NONE };
        for (i, start) in self.starts.iter_mut().enumerate() {
            if !self.turns.takes[i].0 || !start.serves {
                continue;
            }
            let to = start.resolve(series_ref);
            if entry.deletes_series() && self.version.compacts_stale_series() {
                start.remove(series_ref, &mut self.learnt.found[i][0]);
            } else if entry.deletes_series() && to != NONE {
                start.wiped.insert(to);
            } else if to != NONE && to != series && entry.max_time >= self.min_valid_time {
                self.learnt.deleted_by_start[i].add(to, entry.min_time, entry.max_time);
            }
        }
        if series == NONE {
            return;
        }
        if entry.deletes_series() {
            self.delete_series(series_ref, series);
        } else if entry.max_time >= self.min_valid_time {
            self.learnt.deleted.add(series, entry.min_time, entry.max_time);
        }
    }

    /// The series is in a block, as far as it goes up to here: nothing of it counts.
    fn delete_series(&mut self, series_ref: u32, series: u32) {
        self.base.refs[series_ref as usize] = NONE;
        let of_series = &mut self.base.series[series as usize];
        of_series.counted = SmallTally::NOTHING;
        of_series.last = i64::MIN;
        let groups = std::mem::replace(&mut of_series.groups, Attached::none());
        for group in groups.each() {
            let group = &self.chunks.groups[group as usize];
            let of_group = &mut self.base.refs[group.series_ref as usize];
            if *of_group == series {
                *of_group = NONE;
            }
            for start in &mut self.starts {
                start.covered[group.places()].fill(Tally::NOTHING);
            }
        }
        for (start, &(_, is_left)) in self.starts.iter_mut().zip(&self.turns.takes) {
            if is_left {
                start.leave(series_ref, NONE);
            }
            let of_series = &mut start.series[series as usize];
            for tally in [&mut of_series.taken, &mut of_series.missing, &mut of_series.gone] {
                *tally = SmallTally::NOTHING;
            }
            if is_left {
                of_series.left_last = i64::MIN;
            }
        }
    }
}
