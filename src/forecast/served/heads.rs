//! Heads that are filled side by side: an ideal one, and two for each start.

use std::collections::{HashMap, HashSet};

use super::StartReads;
use super::tables::{NONE, Names, Refs};
use crate::forecast::head_chunks::{Pair, Stock};
use crate::forecast::report::Samples;
use crate::forecast::{HeadChunks, Version};
use crate::record::{self, Labels, Record, RecordType, TombstoneEntry};

/// The value of a sample that says that its series has ended (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Samples that a chunk of out-of-order samples takes, if nobody has configured it (`DefaultOutOfOrderCapMax`,
/// `tsdb/head.go`).
const LATE_CHUNK: usize = 32;

/// Which heads read a segment.
#[derive(Debug)]
pub(super) struct Reads {
    /// Whether it is one of the WBL.
    pub(super) late: bool,
    /// What the ideal heads take no sample from that is as late as this, ms.
    pub(super) before: i64,
    /// How far each start replays it, and what it leaves of it.
    pub(super) starts: Vec<(Extent, Extent)>,
}

/// How much of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Nothing,
    /// Records that Prometheus's reader has, as far as they end at or before this offset.
    Upto(u64),
    All,
}

impl Extent {
    fn has(self, end: u64, is_replayed: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Upto(offset) => is_replayed && end <= offset,
            Self::All => true,
        }
    }
}

/// What comes of a pass.
pub(super) enum Turn<'a> {
    /// For each start what is not replayed, and what is gone.
    Done(Vec<(Samples, Samples)>),
    /// Another pass is needed.
    Again(Box<Heads<'a>>),
}

/// An amount of samples of one series.
#[derive(Clone, Copy, Debug)]
struct Tally {
    samples: u64,
    min_time: i64,
    max_time: i64,
}

impl Tally {
    const NOTHING: Self = Self { samples: 0, min_time: i64::MAX, max_time: i64::MIN };

    fn add(&mut self, time: i64) {
        self.join(&Self { samples: 1, min_time: time, max_time: time });
    }

    fn join(&mut self, other: &Self) {
        if other.samples > 0 {
            self.samples += other.samples;
            self.min_time = self.min_time.min(other.min_time);
            self.max_time = self.max_time.max(other.max_time);
        }
    }
}

/// Intervals by series.
type Intervals = HashMap<u32, Vec<(i64, i64)>>;

fn covers(intervals: &Intervals, series: u32, time: i64) -> bool {
    !intervals.is_empty()
        && intervals.get(&series).is_some_and(|of| of.iter().any(|&(min, max)| min <= time && time <= max))
}

/// Samples that a head took when the base had them already, or did not take them.
#[derive(Clone, Debug, Default)]
struct Found {
    times: HashMap<u32, Vec<i64>>,
    count: usize,
    /// Those for which there was no room.
    unplaced: u64,
}

impl Found {
    const ROOM: usize = 2 << 20;

    fn add(&mut self, series: u32, time: i64) {
        if self.count == Self::ROOM {
            self.unplaced += 1;
        } else {
            self.count += 1;
            self.times.entry(series).or_default().push(time);
        }
    }

    fn forget(&mut self, series: u32) {
        if let Some(times) = self.times.remove(&series) {
            self.count -= times.len();
        }
    }

    fn has(&self, series: u32, time: i64) -> bool {
        !self.times.is_empty()
            && self.times.get(&series).is_some_and(|times| times.binary_search(&time).is_ok())
    }
}

/// Samples that came out of order, by series and time, and who has them: one bit for each start, one for what it leaves.
/// The same sample may stand in the WBL several times, in several chunks, and in order too.
#[derive(Debug, Default)]
struct LateSamples {
    had: HashMap<(u32, i64), u64>,
}

impl LateSamples {
    const ROOM: usize = 1 << 20;
    /// It counts.
    const COUNTS: u64 = 1 << 63;

    fn get_mut(&mut self, series: u32, time: i64) -> Option<&mut u64> {
        if self.had.is_empty() { None } else { self.had.get_mut(&(series, time)) }
    }

    /// Whether there is room for it.
    fn add(&mut self, series: u32, time: i64, had: u64) -> bool {
        let has_room = self.had.len() < Self::ROOM;
        match self.had.get_mut(&(series, time)) {
            Some(known) => *known |= had | Self::COUNTS,
            None if has_room => {
                self.had.insert((series, time), had | Self::COUNTS);
            }
            None => return false,
        }
        true
    }
}

/// The bits of a start in [`LateSamples`]; none for more starts than there are bits.
fn bits(start: usize, has: bool, leaves: bool) -> u64 {
    if start < 31 { (u64::from(has) | u64::from(leaves) << 1) << (2 * start) } else { 0 }
}

/// What the first pass finds and the second one must know from the beginning.
#[derive(Debug, Default)]
struct Hindsight {
    /// Of the base.
    deleted: Intervals,
    /// By start: what only it reads as deleted.
    deleted_by_start: Vec<Intervals>,
    /// By start: what it has found again, and what an ideal head over what is left has.
    found: Vec<[Found; 2]>,
}

impl Hindsight {
    fn of(starts: usize) -> Self {
        Self {
            deleted: Intervals::new(),
            deleted_by_start: vec![Intervals::new(); starts],
            found: (0..starts).map(|_| <[Found; 2]>::default()).collect(),
        }
    }

    fn matters(&self) -> bool {
        !self.deleted.is_empty()
            || self.deleted_by_start.iter().any(|deleted| !deleted.is_empty())
            || self.found.iter().flatten().any(|found| found.count > 0)
    }

    fn sort(&mut self) {
        for intervals in self.deleted_by_start.iter_mut().chain([&mut self.deleted]) {
            for of_series in intervals.values_mut() {
                of_series.sort_unstable();
                of_series.dedup_by(|next, last| {
                    let meets = next.0 <= last.1.saturating_add(1);
                    last.1 = if meets { last.1.max(next.1) } else { last.1 };
                    meets
                });
            }
        }
        for times in self.found.iter_mut().flatten().flat_map(|found| found.times.values_mut()) {
            times.sort_unstable();
        }
    }
}

/// The head chunks of one ref.
#[derive(Debug)]
struct Group {
    series_ref: u32,
    /// In files that are kept, and in files that a start deletes.
    stocks: [Pair; 2],
    /// Samples of the WAL that the chunks in order cover: all, and the time of the first.
    in_wal: [(u64, i64); 2],
    /// Samples in the WBL.
    in_wbl: u64,
}

/// Everything that can be had.
#[derive(Debug, Default)]
struct Base {
    /// By ref: the series.
    series: Vec<u32>,
    /// By series: the time of its last sample from the WAL.
    last: Vec<i64>,
    /// By series: the group of chunks that it has; further ones.
    group: Vec<u32>,
    more_groups: HashMap<u32, Vec<u32>>,
    /// By series: what counts.
    counted: Vec<Tally>,
}

/// One start: the head that it fills, and an ideal one over what it leaves.
#[derive(Debug, Default)]
struct Start {
    serves: bool,
    chunks_deleted: bool,
    /// By ref: the series that has it for its id (`stripeSeries.series`).
    by_id: Vec<u32>,
    /// By ref: the ref that it stands for (`multiRef`).
    stands_for: Vec<u32>,
    /// By series: the ref that is its id, if its labels are known (`stripeSeries.hashes`).
    id: Vec<u32>,
    /// By series: the group of chunks that it holds; further ones.
    held: Vec<u32>,
    more_held: HashMap<u32, Vec<u32>>,
    /// By series: no sample up to this time is taken.
    last: Vec<i64>,
    /// By series: it has taken a sample since it was last emptied.
    filled: Vec<bool>,
    /// By series: what it has taken, of what counts, since it was last emptied.
    taken: Vec<Tally>,
    /// By series: what it has not.
    missing: Vec<Tally>,
    /// By group: what it has only if it holds the group at the end.
    covered: Vec<[Tally; 2]>,
    /// Series whose samples no query returns, whenever they come.
    wiped: HashSet<u32>,
    /// By ref: the series, in what is left.
    left_series: Vec<u32>,
    /// By series: the time of its last sample there.
    left_last: Vec<i64>,
    /// By series: what is gone.
    gone: Vec<Tally>,
}

impl Start {
    /// The series that a sample with that ref goes to.
    fn resolve(&self, series_ref: u32) -> u32 {
        let stands_for = self.stands_for[series_ref as usize];
        self.by_id[if stands_for == NONE { series_ref } else { stands_for } as usize]
    }

    fn has_file(&self, stock: usize) -> bool {
        stock == 0 || !self.chunks_deleted
    }

    fn holds(&self, series: u32, group: u32) -> bool {
        let id = self.id[series as usize];
        let is_reached = id != NONE && self.by_id[id as usize] == series;
        is_reached
            && (self.held[series as usize] == group
                || self.more_held.get(&series).is_some_and(|more| more.contains(&group)))
    }

    /// A sample out of order that it may not have, or leave.
    fn lacks(&mut self, series: u32, time: i64, has: bool, leaves: bool) {
        if !has {
            self.missing[series as usize].add(time);
        }
        if !leaves {
            self.gone[series as usize].add(time);
        }
    }

    /// Throws away what the series has taken.
    fn empty(&mut self, series: u32, found: &mut Found) {
        let taken = std::mem::replace(&mut self.taken[series as usize], Tally::NOTHING);
        self.missing[series as usize].join(&taken);
        found.forget(series);
    }

    /// A series record (`getOrCreateWithOptionalID`, `resetSeriesWithMMappedChunks`).
    fn define(&mut self, series_ref: u32, series: u32, group: u32, chunks: &Chunks<'_>, found: &mut Found) {
        let s = series as usize;
        if self.id[s] == NONE {
            self.id[s] = series_ref;
            self.held[s] = NONE;
            self.more_held.remove(&series);
            let before = std::mem::replace(&mut self.by_id[series_ref as usize], series);
            if before != NONE {
                // It still has its labels, but nothing leads to it.
                self.empty(before, found);
            }
        } else {
            self.stands_for[series_ref as usize] = self.id[s];
        }
        self.empty(series, found);
        self.filled[s] = false;
        if !chunks.are_merged {
            self.held[s] = group;
        } else if group != NONE && !self.holds(series, group) {
            if self.held[s] == NONE {
                self.held[s] = group;
            } else {
                self.more_held.entry(series).or_default().push(group);
            }
        }
        let more = self.more_held.get(&series).into_iter().flatten();
        let held = [self.held[s]].into_iter().chain(more.copied()).filter(|&group| group != NONE);
        let ends = held.flat_map(|group| {
            let stocks = chunks.groups[group as usize].stocks.iter().enumerate();
            stocks.filter(|&(stock, _)| self.has_file(stock)).map(|(_, pair)| pair.in_order.max_time)
        });
        self.last[s] = ends.max().unwrap_or(i64::MIN);
    }

    /// A series that is wholly deleted (`deleteSeriesByID`).
    fn remove(&mut self, series_ref: u32, found: &mut Found) {
        let stands_for = self.stands_for[series_ref as usize];
        let id = if stands_for == NONE { series_ref } else { stands_for };
        let series = std::mem::replace(&mut self.by_id[id as usize], NONE);
        if series == NONE {
            return;
        }
        if self.id[series as usize] == id {
            self.id[series as usize] = NONE;
        }
        self.empty(series, found);
        self.filled[series as usize] = false;
    }
}

/// The groups, and what becomes of them where a series is recorded under another ref.
#[derive(Debug)]
struct Chunks<'a> {
    read: &'a HeadChunks,
    groups: Vec<Group>,
    /// By ref.
    group: Vec<u32>,
    are_merged: bool,
}

/// Out-of-order samples of one series since a chunk of them was last cut.
#[derive(Debug)]
struct Late {
    times: Vec<i64>,
    /// By place in `times`: it does not count.
    not_counted: u32,
    /// By start and place: it has it, and what is left has it.
    had: Vec<[u32; 2]>,
}

/// All heads.
#[derive(Debug)]
pub(super) struct Heads<'a> {
    version: Version,
    min_valid_time: i64,
    wbl_is_whole: bool,
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
    /// By start: whether it replays the record at hand, and whether it leaves it.
    turns: Vec<(bool, bool)>,
}

impl<'a> Heads<'a> {
    pub(super) fn new(
        starts: &[StartReads],
        version: Version,
        min_valid_time: i64,
        wbl_is_whole: bool,
        chunks: &'a HeadChunks,
    ) -> Self {
        let of_start = |start: &StartReads| Start {
            serves: start.serves,
            chunks_deleted: start.head_chunks_deleted,
            ..Start::default()
        };
        Self {
            version,
            min_valid_time,
            wbl_is_whole,
            names: Names::default(),
            refs: Refs::default(),
            chunks: Chunks {
                read: chunks,
                groups: Vec::new(),
                group: Vec::new(),
                are_merged: version.merges_head_chunks(),
            },
            base: Base::default(),
            starts: starts.iter().map(of_start).collect(),
            late: HashMap::new(),
            late_samples: LateSamples::default(),
            known: Hindsight::of(starts.len()),
            learnt: Hindsight::of(starts.len()),
            is_second: false,
            turns: Vec::new(),
        }
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
            Self::new(&starts, self.version, self.min_valid_time, self.wbl_is_whole, self.chunks.read);
        next.known = known;
        next.is_second = true;
        next.late_samples = self.late_samples;
        next.late_samples.had.values_mut().for_each(|had| *had = 0);
        // What counts by series must mean the same series.
        for _ in 0..self.names.len() {
            next.grow_series();
        }
        next.names = self.names;
        next
    }

    /// A record that the salvage reader has, and Prometheus's reader too, or not.
    pub(super) fn salvaged(&mut self, data: &[u8], end: u64, is_replayed: bool, reads: &Reads) {
        let is_known = self.knows(data, reads);
        self.turns.clear();
        self.turns.extend(reads.starts.iter().map(|(replayed, left)| {
            (is_replayed && is_known && replayed.has(end, true), left.has(end, is_replayed))
        }));
        self.read(data, true, reads);
    }

    /// A record that only Prometheus's reader has.
    pub(super) fn only_replayed(&mut self, data: &[u8], end: u64, reads: &Reads) {
        if !self.knows(data, reads) || record::summarize_as(data, self.version.dialect()).error.is_some() {
            return;
        }
        self.turns.clear();
        self.turns.extend(reads.starts.iter().map(|(replayed, _)| (replayed.has(end, true), false)));
        self.read(data, false, reads);
    }

    /// Whether a start of that version looks into such a record.
    fn knows(&self, data: &[u8], reads: &Reads) -> bool {
        let Some(kind) = RecordType::of(data) else { return false };
        let is_read = match kind {
            RecordType::Samples | RecordType::SamplesV2 => true,
            RecordType::Series | RecordType::Tombstones => !reads.late,
            RecordType::MmapMarkers => reads.late,
            RecordType::Exemplars | RecordType::Metadata | RecordType::MinValidTime => false,
            RecordType::HistogramSamples
            | RecordType::FloatHistogramSamples
            | RecordType::CustomBucketsHistogramSamples
            | RecordType::CustomBucketsFloatHistogramSamples
            | RecordType::HistogramSamplesV2
            | RecordType::FloatHistogramSamplesV2 => !reads.late || self.version.replays_wbl_histograms(),
        };
        is_read && self.version.knows(kind)
    }

    fn read(&mut self, data: &[u8], in_base: bool, reads: &Reads) {
        match Record::parse(data) {
            Record::Series(r) if !reads.late => {
                for entry in r.entries().flatten() {
                    self.series(entry.series_ref, &entry.labels, in_base);
                }
            }
            Record::Samples(r) => {
                for entry in r.entries().flatten() {
                    self.sample(entry.series_ref, entry.t, entry.value_bits == STALE, in_base, reads);
                }
            }
            // Of a schema that Prometheus does not know, it skips it.
            Record::Histograms(r) => {
                for entry in r.entries().flatten().filter(|entry| entry.known_schema()) {
                    let stale = entry.histogram.sum_bits == STALE;
                    self.sample(entry.series_ref, entry.t, stale, in_base, reads);
                }
            }
            Record::FloatHistograms(r) => {
                for entry in r.entries().flatten().filter(|entry| entry.known_schema()) {
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
            _ => {}
        }
    }

    fn grow_series(&mut self) {
        self.base.last.push(i64::MIN);
        self.base.group.push(NONE);
        self.base.counted.push(Tally::NOTHING);
        for start in &mut self.starts {
            start.id.push(NONE);
            start.held.push(NONE);
            start.last.push(i64::MIN);
            start.filled.push(false);
            start.taken.push(Tally::NOTHING);
            start.missing.push(Tally::NOTHING);
            start.left_last.push(i64::MIN);
            start.gone.push(Tally::NOTHING);
        }
    }

    fn grow_refs(&mut self, number: u64) {
        let series_ref = u32::try_from(self.chunks.group.len()).unwrap_or(NONE);
        let group = self.chunks.read.of_series.get(&number).map_or(NONE, |of_series| {
            let deleted = of_series.deleted.as_deref().copied().unwrap_or_default();
            self.chunks.groups.push(Group {
                series_ref,
                stocks: [of_series.kept, deleted],
                in_wal: [(0, i64::MAX); 2],
                in_wbl: 0,
            });
            for start in &mut self.starts {
                start.covered.push([Tally::NOTHING; 2]);
            }
            u32::try_from(self.chunks.groups.len() - 1).unwrap_or(NONE)
        });
        self.chunks.group.push(group);
        self.base.series.push(NONE);
        for start in &mut self.starts {
            start.by_id.push(NONE);
            start.stands_for.push(NONE);
            start.left_series.push(NONE);
        }
    }

    fn series(&mut self, number: u64, labels: &Labels<'_>, in_base: bool) {
        // No series has it: Prometheus would give it another one.
        if number == 0 {
            return;
        }
        let series = self.names.number(labels);
        let series_ref = self.refs.number(number);
        if series == NONE || series_ref == NONE {
            return;
        }
        if series as usize == self.base.last.len() {
            self.grow_series();
        }
        if series_ref as usize == self.chunks.group.len() {
            self.grow_refs(number);
        }
        let group = self.chunks.group[series_ref as usize];
        if in_base {
            self.base.series[series_ref as usize] = series;
            self.base.attach(series, group);
        }
        let turns = self.starts.iter_mut().zip(&self.turns).zip(&mut self.learnt.found);
        for ((start, &(is_replayed, is_left)), found) in turns {
            if is_replayed && start.serves {
                start.define(series_ref, series, group, &self.chunks, &mut found[0]);
            }
            if is_left {
                start.left_series[series_ref as usize] = series;
            }
        }
    }

    fn sample(&mut self, number: u64, time: i64, stale: bool, in_base: bool, reads: &Reads) {
        let series_ref = self.refs.find(number);
        if series_ref == NONE {
            return;
        }
        let is_ideal = time < reads.before;
        let series = if in_base && is_ideal { self.base.series[series_ref as usize] } else { NONE };
        if reads.late {
            self.late_sample(series_ref, series, time, stale);
        } else if time >= self.min_valid_time {
            self.sample_in_order(series_ref, series, time, stale, is_ideal);
        }
    }

    fn sample_in_order(&mut self, series_ref: u32, series: u32, time: i64, stale: bool, is_ideal: bool) {
        let s = series as usize;
        let is_new = series != NONE && time > self.base.last[s];
        let mut covering = None;
        let mut counts = false;
        if is_new {
            self.base.last[s] = time;
            covering = self.covering(series, time);
            if let Some((group, stock)) = covering {
                let (all, first) = &mut self.chunks.groups[group as usize].in_wal[stock];
                *all += 1;
                *first = time.min(*first);
            }
            counts = !stale && !covers(&self.known.deleted, series, time);
            if counts && self.late_samples.get_mut(series, time).is_some() {
                self.also_late(series_ref, series, time, covering);
                counts = false;
            }
            if counts {
                self.base.counted[s].add(time);
            }
        }
        for i in 0..self.starts.len() {
            let (is_replayed, is_left) = self.turns[i];
            let start = &mut self.starts[i];
            let [known, known_left] = &self.known.found[i];
            let [learnt, learnt_left] = &mut self.learnt.found[i];
            if start.serves {
                let to = if is_replayed { start.resolve(series_ref) } else { NONE };
                let takes = to != NONE && time > start.last[to as usize];
                if takes {
                    start.last[to as usize] = time;
                    start.filled[to as usize] = true;
                }
                if counts && !known.has(series, time) {
                    let is_deleted = start.wiped.contains(&series)
                        || covers(&self.known.deleted_by_start[i], series, time);
                    if takes && to == series && !is_deleted {
                        start.taken[s].add(time);
                    } else if let Some((group, stock)) = covering {
                        start.covered[group as usize][stock].add(time);
                    } else {
                        start.missing[s].add(time);
                    }
                }
                if takes && !stale && !(is_new && to == series) {
                    learnt.add(to, time);
                }
            }
            let to = if is_left && is_ideal { start.left_series[series_ref as usize] } else { NONE };
            let takes = to != NONE && time > start.left_last[to as usize];
            if takes {
                start.left_last[to as usize] = time;
            }
            if counts {
                let is_covered = covering.is_some_and(|(group, stock)| {
                    let of_group = self.chunks.groups[group as usize].series_ref;
                    start.has_file(stock) && start.left_series[of_group as usize] == series
                });
                if !(takes && to == series) && !is_covered && !known_left.has(series, time) {
                    start.gone[s].add(time);
                }
            }
            if takes && !stale && !(is_new && to == series) {
                learnt_left.add(to, time);
            }
        }
    }

    /// The group of chunks, and which of its stocks, in which a sample of the series at that time is.
    fn covering(&self, series: u32, time: i64) -> Option<(u32, usize)> {
        let first = self.base.group[series as usize];
        if first == NONE {
            return None;
        }
        let more = self.base.more_groups.get(&series).into_iter().flatten();
        [first].into_iter().chain(more.copied()).find_map(|group| {
            let of = &self.chunks.groups[group as usize];
            let is_its = self.base.series[of.series_ref as usize] == series;
            let stock = of.stocks.iter().position(|pair| pair.in_order.covers(time));
            stock.filter(|_| is_its).map(|stock| (group, stock))
        })
    }

    fn late_sample(&mut self, series_ref: u32, series: u32, time: i64, stale: bool) {
        let mut place = None;
        if series != NONE {
            if let Some(group) = self.chunks.groups.get_mut(self.chunks.group[series_ref as usize] as usize) {
                group.in_wbl += 1;
            }
            if self.late.get(&series).is_some_and(|late| late.times.len() == LATE_CHUNK) {
                self.settle(series, None);
            }
            let not_counted = stale || covers(&self.known.deleted, series, time);
            let starts = self.starts.len();
            let late = self.late.entry(series).or_insert_with(|| Late {
                times: Vec::new(),
                not_counted: 0,
                had: vec![[0; 2]; starts],
            });
            place = late.times.iter().position(|&at| at == time).or_else(|| {
                late.times.push(time);
                late.not_counted |= u32::from(not_counted) << (late.times.len() - 1);
                Some(late.times.len() - 1)
            });
        }
        for i in 0..self.starts.len() {
            let (is_replayed, is_left) = self.turns[i];
            let start = &self.starts[i];
            let to = if is_replayed && start.serves { start.resolve(series_ref) } else { NONE };
            let left_to = if is_left { start.left_series[series_ref as usize] } else { NONE };
            for (which, to) in [to, left_to].into_iter().enumerate() {
                let late = if to == NONE { None } else { self.late.get_mut(&to) };
                let Some(late) = late else { continue };
                let there = place.filter(|_| to == series);
                // One that stands there twice, and the base has it from the other place.
                let there = there.or_else(|| late.times.iter().position(|&at| at == time));
                if let Some(place) = there {
                    late.had[i][which] |= 1 << place;
                }
            }
        }
    }

    /// A sample in order that stands in the WBL too.
    fn also_late(&mut self, series_ref: u32, series: u32, time: i64, covering: Option<(u32, usize)>) {
        let mut had = LateSamples::COUNTS;
        for (i, (start, &(is_replayed, is_left))) in self.starts.iter().zip(&self.turns).enumerate() {
            let s = series as usize;
            let takes =
                is_replayed && start.serves && start.resolve(series_ref) == series && time > start.last[s];
            let leaves =
                is_left && start.left_series[series_ref as usize] == series && time > start.left_last[s];
            let [in_chunk, in_left_chunk] =
                covering.map_or([false; 2], |(group, stock)| self.has_chunks(start, series, group, stock));
            had |= bits(i, takes || in_chunk, leaves || in_left_chunk);
        }
        if let Some(known) = self.late_samples.get_mut(series, time) {
            *known |= had;
        }
    }

    /// Whether a start has the chunks of a group, and leaves them.
    fn has_chunks(&self, start: &Start, series: u32, group: u32, stock: usize) -> [bool; 2] {
        let of_group = self.chunks.groups[group as usize].series_ref as usize;
        let has_file = start.has_file(stock);
        [has_file && start.holds(series, group), has_file && start.left_series[of_group] == series]
    }

    /// A chunk of out-of-order samples is full, or the log has ended; or it is known in which chunks on disk they are.
    fn settle(&mut self, series: u32, on_disk: Option<(u32, usize)>) {
        let Some(late) = self.late.remove(&series) else { return };
        let s = series as usize;
        for (place, &time) in late.times.iter().enumerate() {
            if late.not_counted >> place & 1 == 1 {
                continue;
            }
            let has = |i: usize, start: &Start| {
                let [in_chunk, in_left_chunk] =
                    on_disk.map_or([false; 2], |(group, stock)| self.has_chunks(start, series, group, stock));
                let is_deleted =
                    start.wiped.contains(&series) || covers(&self.known.deleted_by_start[i], series, time);
                let [has, leaves] = late.had[i].map(|had| had >> place & 1 == 1);
                [(has || in_chunk) && !is_deleted, leaves || in_left_chunk]
            };
            let had: Vec<[bool; 2]> =
                self.starts.iter().enumerate().map(|(i, start)| has(i, start)).collect();
            let all = had.iter().enumerate().map(|(i, &[has, leaves])| bits(i, has, leaves));
            if had.len() < 32 && self.late_samples.add(series, time, all.sum()) {
                continue;
            }
            self.base.counted[s].add(time);
            for (start, &[has, leaves]) in self.starts.iter_mut().zip(&had) {
                start.lacks(series, time, has, leaves);
            }
        }
    }

    /// The samples out of order of a series up to here are in a chunk (`loadWBL`).
    fn marker(&mut self, number: u64, chunk: u64, in_base: bool) {
        let series_ref = self.refs.find(number);
        if series_ref == NONE {
            return;
        }
        for i in 0..self.starts.len() {
            let start = &self.starts[i];
            let last = if start.chunks_deleted { self.chunks.read.last_kept } else { self.chunks.read.last };
            let (is_replayed, is_left) = self.turns[i];
            let to = if is_replayed && start.serves { start.resolve(series_ref) } else { NONE };
            let left_to = if is_left { start.left_series[series_ref as usize] } else { NONE };
            for (which, to) in [to, left_to].into_iter().enumerate() {
                if chunk <= last
                    && to != NONE
                    && let Some(late) = self.late.get_mut(&to)
                {
                    late.had[i][which] = 0;
                }
            }
        }
        let series = if in_base { self.base.series[series_ref as usize] } else { NONE };
        if series == NONE || chunk > self.chunks.read.last {
            return;
        }
        let group = self.chunks.group[series_ref as usize];
        if group == NONE {
            // The chunk has been compacted into a block.
            self.late.remove(&series);
            return;
        }
        let stock = usize::from(chunk > self.chunks.read.last_kept);
        self.settle(series, Some((group, stock)));
    }

    fn tombstone(&mut self, entry: &TombstoneEntry, in_base: bool) {
        let series_ref = self.refs.find(entry.series_ref);
        if series_ref == NONE {
            return;
        }
        let series = if in_base { self.base.series[series_ref as usize] } else { NONE };
        let interval = (entry.min_time, entry.max_time);
        for (i, start) in self.starts.iter_mut().enumerate() {
            if !self.turns[i].0 || !start.serves {
                continue;
            }
            let to = start.resolve(series_ref);
            if entry.deletes_series() && self.version.compacts_stale_series() {
                start.remove(series_ref, &mut self.learnt.found[i][0]);
            } else if entry.deletes_series() && to != NONE {
                start.wiped.insert(to);
            } else if to != NONE && to != series && entry.max_time >= self.min_valid_time {
                self.learnt.deleted_by_start[i].entry(to).or_default().push(interval);
            }
        }
        if series == NONE {
            return;
        }
        if entry.deletes_series() {
            self.delete_series(series_ref, series);
        } else if entry.max_time >= self.min_valid_time {
            self.learnt.deleted.entry(series).or_default().push(interval);
        }
    }

    /// The series is in a block, as far as it goes up to here: nothing of it counts.
    fn delete_series(&mut self, series_ref: u32, series: u32) {
        let s = series as usize;
        self.base.counted[s] = Tally::NOTHING;
        self.base.last[s] = i64::MIN;
        self.base.series[series_ref as usize] = NONE;
        let more = self.base.more_groups.remove(&series).unwrap_or_default();
        let first = std::mem::replace(&mut self.base.group[s], NONE);
        for group in more.into_iter().chain([first]).filter(|&group| group != NONE) {
            let of_group = self.chunks.groups[group as usize].series_ref as usize;
            if self.base.series[of_group] == series {
                self.base.series[of_group] = NONE;
            }
            for start in &mut self.starts {
                start.covered[group as usize] = [Tally::NOTHING; 2];
            }
        }
        for (start, &(_, is_left)) in self.starts.iter_mut().zip(&self.turns) {
            start.taken[s] = Tally::NOTHING;
            start.missing[s] = Tally::NOTHING;
            start.gone[s] = Tally::NOTHING;
            if is_left {
                start.left_series[series_ref as usize] = NONE;
                start.left_last[s] = i64::MIN;
            }
        }
    }

    /// All has been read.
    pub(super) fn finish(mut self) -> Turn<'a> {
        let series: Vec<u32> = self.late.keys().copied().collect();
        for series in series {
            self.settle(series, None);
        }
        for (start, found) in self.starts.iter_mut().zip(&mut self.learnt.found) {
            start.collect_garbage(&mut found[0]);
        }
        let is_late = !self.late_samples.had.is_empty();
        if !self.is_second && (is_late || self.learnt.matters()) {
            return Turn::Again(Box::new(self.again()));
        }
        self.settle_late();
        for group in 0..self.chunks.groups.len() {
            self.settle_group(group);
        }
        let sum_base = sum(&self.base.counted, 0);
        let counted = self.starts.iter().zip(&self.known.found).map(|(start, [found, found_left])| {
            let not_replayed = if start.serves { sum(&start.missing, found.unplaced) } else { sum_base };
            (not_replayed, sum(&start.gone, found_left.unplaced))
        });
        Turn::Done(counted.collect())
    }

    /// Samples out of order, each of them once.
    fn settle_late(&mut self) {
        let late = std::mem::take(&mut self.late_samples);
        for ((series, time), had) in late.had {
            if had & LateSamples::COUNTS == 0 {
                continue;
            }
            self.base.counted[series as usize].add(time);
            for (i, start) in self.starts.iter_mut().enumerate() {
                let [has, leaves] = [bits(i, true, false), bits(i, false, true)].map(|bit| had & bit != 0);
                start.lacks(series, time, has, leaves);
            }
        }
    }

    /// The chunks of a group, and what they cover.
    fn settle_group(&mut self, index: usize) {
        let group = &self.chunks.groups[index];
        let series = self.base.series[group.series_ref as usize];
        if series == NONE {
            return;
        }
        let s = series as usize;
        let number = u32::try_from(index).unwrap_or(NONE);
        for stock in 0..2 {
            let in_order = self.not_in_wal(group, stock, series);
            let out_of_order = self.not_in_wbl(group, stock, series);
            self.base.counted[s].join(&in_order);
            self.base.counted[s].join(&out_of_order);
            for start in &mut self.starts {
                let has_file = start.has_file(stock);
                if !(has_file && start.holds(series, number)) {
                    let covered = start.covered[index][stock];
                    start.missing[s].join(&covered);
                    start.missing[s].join(&in_order);
                    start.missing[s].join(&out_of_order);
                }
                if !(has_file && start.left_series[group.series_ref as usize] == series) {
                    start.gone[s].join(&in_order);
                    start.gone[s].join(&out_of_order);
                }
            }
        }
    }

    /// Samples that are in chunks in order, and that the WAL does not have.
    fn not_in_wal(&self, group: &Group, stock: usize, series: u32) -> Tally {
        let Stock { samples, min_time, max_time } = group.stocks[stock].in_order;
        let (in_wal, first) = group.in_wal[stock];
        // What is older than that is in blocks, and the WAL has the rest.
        let is_in_blocks = min_time < self.min_valid_time && in_wal > 0;
        if samples == 0 || is_in_blocks || self.is_deleted(series, min_time, max_time) {
            return Tally::NOTHING;
        }
        Tally { samples: samples.saturating_sub(in_wal), min_time, max_time: max_time.min(first) }
    }

    /// Samples that are in chunks out of order, and that the WBL does not have.
    fn not_in_wbl(&self, group: &Group, stock: usize, series: u32) -> Tally {
        let Stock { samples, min_time, max_time } = group.stocks[stock].out_of_order;
        // A chunk may have been written twice. A WBL that is whole has all that is in chunks: both are cut together.
        let is_known = self.wbl_is_whole && group.in_wbl > 0;
        if samples == 0 || is_known || self.is_deleted(series, min_time, max_time) {
            return Tally::NOTHING;
        }
        let before = if stock == 0 { 0 } else { group.stocks[0].out_of_order.samples };
        let in_wbl = group.in_wbl.saturating_sub(before);
        Tally { samples: samples.saturating_sub(in_wbl), min_time, max_time }
    }

    /// Whether everything from the one time to the other is deleted.
    fn is_deleted(&self, series: u32, min_time: i64, max_time: i64) -> bool {
        let intervals = self.known.deleted.get(&series).into_iter().flatten();
        intervals.into_iter().any(|&(min, max)| min <= min_time && max_time <= max)
    }
}

impl Base {
    fn attach(&mut self, series: u32, group: u32) {
        let first = &mut self.group[series as usize];
        if group == NONE || *first == group {
            return;
        }
        if *first == NONE {
            *first = group;
            return;
        }
        let more = self.more_groups.entry(series).or_default();
        if !more.contains(&group) {
            more.push(group);
        }
    }
}

impl Start {
    /// A series that has nothing is removed by its id, even if another one has that id by now (`stripeSeries.gc`).
    fn collect_garbage(&mut self, found: &mut Found) {
        for series in 0..self.id.len() {
            let id = self.id[series];
            if id == NONE || self.filled[series] || self.held[series] != NONE {
                continue;
            }
            let reached = self.by_id[id as usize];
            if reached != NONE && reached as usize != series {
                self.by_id[id as usize] = NONE;
                self.empty(reached, found);
            }
        }
    }
}

/// Of all series together, but for samples of which neither series nor time are known.
fn sum(of_series: &[Tally], but: u64) -> Samples {
    let mut all = Tally::NOTHING;
    let mut series = 0;
    for tally in of_series.iter().filter(|tally| tally.samples > 0) {
        all.join(tally);
        series += 1;
    }
    let samples = all.samples.saturating_sub(but);
    if samples == 0 {
        return Samples::default();
    }
    Samples { series, samples, min_time: Some(all.min_time), max_time: Some(all.max_time) }
}
