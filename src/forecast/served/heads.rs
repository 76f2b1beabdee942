//! Heads that are filled side by side: an ideal one, and two for each start.

use std::collections::HashMap;

use super::groups::{Attached, Chunks, Cover, Group, Pile};
use super::hindsight::Hindsight;
use super::late::{LATE_CHUNK, Late, LateSamples};
use super::start::Start;
use super::tables::{NONE, Names, Refs};
use super::tally::{Tally, sum};
use super::{Counted, StartReads};
use crate::forecast::head_chunks::Stock;
use crate::forecast::{HeadChunks, Version};
use crate::record::{self, FloatHistogramEntry, HistogramEntry, Labels, Record, RecordType, TombstoneEntry};

/// The value of a sample that says that its series has ended (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7ff0_0000_0000_0002;

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
    series: Vec<OfSeries>,
}

#[derive(Debug)]
struct OfSeries {
    /// The time of its last sample from the WAL.
    last: i64,
    /// What counts.
    counted: Tally,
    /// Its chunks.
    groups: Attached,
}

/// All heads.
#[derive(Debug)]
pub(super) struct Heads<'a> {
    version: Version,
    min_valid_time: i64,
    whole: Whole,
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
        whole: Whole,
        chunks: &'a HeadChunks,
    ) -> Self {
        Self {
            version,
            min_valid_time,
            whole,
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
        let mut next = Self::new(&starts, self.version, self.min_valid_time, self.whole, self.chunks.read);
        next.known = known;
        next.is_second = true;
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
            _ => {}
        }
    }

    fn grow_series(&mut self) {
        let of_series = OfSeries { last: i64::MIN, counted: Tally::NOTHING, groups: Attached::none() };
        self.base.series.push(of_series);
        self.starts.iter_mut().for_each(Start::add_series);
    }

    fn grow_refs(&mut self, number: u64) {
        self.base.refs.push(NONE);
        self.chunks.add_ref(number);
        for start in &mut self.starts {
            start.add_ref(self.chunks.places);
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
        if series as usize == self.base.series.len() {
            self.grow_series();
        }
        if series_ref as usize == self.base.refs.len() {
            self.grow_refs(number);
        }
        let group = self.chunks.group[series_ref as usize];
        if in_base {
            self.base.refs[series_ref as usize] = series;
            self.base.series[series as usize].groups.add(group);
        }
        let turns = self.starts.iter_mut().zip(&self.turns).zip(&mut self.learnt.found);
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
        for (start, (is_replayed, _)) in self.starts.iter_mut().zip(&self.turns) {
            if *is_replayed && start.serves && (series_ref == NONE || start.resolve(series_ref) == NONE) {
                start.drop_unknown(number, time);
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
                self.chunks.groups[group as usize].in_wal(pile, time);
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
            let (is_replayed, is_left) = self.turns[i];
            let start = &mut self.starts[i];
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
                    if takes && to == series && !is_deleted {
                        start.series[s].taken.add(time);
                    } else if let Some(Cover { group, pile }) = covering {
                        let place = self.chunks.groups[group as usize].first_place + pile;
                        start.covered[place].add(time);
                    } else {
                        start.series[s].missing.add(time);
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

    fn late_sample(&mut self, series_ref: u32, series: u32, time: i64, stale: bool) {
        let mut place = None;
        if series != NONE {
            if let Some(group) = self.chunks.groups.get_mut(self.chunks.group[series_ref as usize] as usize) {
                group.in_wbl += 1;
            }
            if self.late.get(&series).is_some_and(|late| late.times.len() == LATE_CHUNK) {
                self.settle(series, None);
            }
            let counts = !stale && !self.known.deleted.cover(series, time, time);
            let starts = self.starts.len();
            let late = self.late.entry(series).or_insert_with(|| Late::new(starts));
            place = Some(late.place(time, counts));
        }
        for i in 0..self.starts.len() {
            let (is_replayed, is_left) = self.turns[i];
            let start = &self.starts[i];
            let to = if is_replayed && start.serves { start.resolve(series_ref) } else { NONE };
            let left_to = if is_left { start.resolve_left(series_ref) } else { NONE };
            for (which, to) in [to, left_to].into_iter().enumerate() {
                let late = if to == NONE { None } else { self.late.get_mut(&to) };
                let Some(late) = late else { continue };
                let there = place.filter(|_| to == series);
                // One that stands there twice, and the base has it from the other place.
                let there = there.or_else(|| late.find(time));
                if let Some(place) = there {
                    late.had[i][which] |= 1 << place;
                }
            }
        }
    }

    /// A sample in order that stands in the WBL too.
    fn also_late(&mut self, series_ref: u32, series: u32, time: i64, covering: Option<Cover>) {
        let had = self.starts.iter().zip(&self.turns).map(|(start, &(is_replayed, is_left))| {
            let of_series = &start.series[series as usize];
            let takes = is_replayed && start.serves && start.resolve(series_ref) == series;
            let leaves = is_left && start.resolve_left(series_ref) == series;
            let [in_chunk, in_left_chunk] = self.has_chunks(start, series, covering);
            [
                takes && time > of_series.last || in_chunk,
                leaves && time > of_series.left_last || in_left_chunk,
            ]
        });
        let had: Vec<[bool; 2]> = had.collect();
        self.late_samples.add(series, time, &had);
    }

    /// Whether a start has these chunks, and leaves them.
    fn has_chunks(&self, start: &Start, series: u32, chunks: Option<Cover>) -> [bool; 2] {
        let Some(Cover { group, .. }) = chunks.filter(|cover| start.has_file(cover.pile)) else {
            return [false; 2];
        };
        let of_group = self.chunks.groups[group as usize].series_ref;
        [start.holds(series, group), start.resolve_left(of_group) == series]
    }

    /// A chunk of out-of-order samples is full, or the log has ended; or it is known in which chunks on disk they are.
    fn settle(&mut self, series: u32, on_disk: Option<Cover>) {
        let Some(late) = self.late.remove(&series) else { return };
        for (place, &time) in late.times.iter().enumerate() {
            if late.not_counted >> place & 1 == 1 {
                continue;
            }
            let had = self.starts.iter().enumerate().map(|(i, start)| {
                let [in_chunk, in_left_chunk] = self.has_chunks(start, series, on_disk);
                let is_deleted =
                    start.wiped.contains(&series) || self.known.deleted_by_start[i].cover(series, time, time);
                let [has, leaves] = late.had[i].map(|had| had >> place & 1 == 1);
                [(has || in_chunk) && !is_deleted, leaves || in_left_chunk]
            });
            let had: Vec<[bool; 2]> = had.collect();
            if self.late_samples.add(series, time, &had) {
                continue;
            }
            self.base.series[series as usize].counted.add(time);
            for (start, &had) in self.starts.iter_mut().zip(&had) {
                start.lacks(series, time, had);
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
            let left_to = if is_left { start.resolve_left(series_ref) } else { NONE };
            for (which, to) in [to, left_to].into_iter().enumerate() {
                if chunk <= last
                    && to != NONE
                    && let Some(late) = self.late.get_mut(&to)
                {
                    late.had[i][which] = 0;
                }
            }
        }
        let series = if in_base { self.base.refs[series_ref as usize] } else { NONE };
        if series == NONE || chunk > self.chunks.read.last {
            return;
        }
        let group = self.chunks.group[series_ref as usize];
        if group == NONE {
            // The chunk is gone: Prometheus forgets the samples all the same.
            self.settle(series, None);
            return;
        }
        let pile = usize::from(chunk > self.chunks.read.last_kept);
        self.settle(series, Some(Cover { group, pile }));
    }

    fn tombstone(&mut self, entry: &TombstoneEntry, in_base: bool) {
        let series_ref = self.refs.find(entry.series_ref);
        if series_ref == NONE {
            return;
        }
        let series = if in_base { self.base.refs[series_ref as usize] } else { NONE };
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
        of_series.counted = Tally::NOTHING;
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
        for (start, &(_, is_left)) in self.starts.iter_mut().zip(&self.turns) {
            if is_left {
                start.leave(series_ref, NONE);
            }
            let of_series = &mut start.series[series as usize];
            for tally in [&mut of_series.taken, &mut of_series.missing, &mut of_series.gone] {
                *tally = Tally::NOTHING;
            }
            if is_left {
                of_series.left_last = i64::MIN;
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
        let is_late = !self.late_samples.is_empty();
        if !self.is_second && (is_late || self.learnt.matters()) {
            return Turn::Again(Box::new(self.again()));
        }
        self.settle_late();
        for group in 0..self.chunks.groups.len() {
            self.settle_group(group);
        }
        let sum_base = sum(self.base.series.iter().map(|of_series| of_series.counted), 0);
        let counted = self.starts.iter().zip(&self.known.found).map(|(start, [found, found_left])| {
            let missing = start.series.iter().map(|of_series| of_series.missing);
            let gone = start.series.iter().map(|of_series| of_series.gone);
            let not_replayed = if start.serves { sum(missing, found.unplaced) } else { sum_base };
            let unknown_refs = start.unknown();
            Counted { not_replayed, gone: sum(gone, found_left.unplaced), unknown_refs }
        });
        Turn::Done(counted.collect())
    }

    /// Samples out of order, each of them once.
    fn settle_late(&mut self) {
        let late = std::mem::take(&mut self.late_samples);
        late.each(self.starts.len(), |series, time, had| {
            self.base.series[series as usize].counted.add(time);
            for (start, &had) in self.starts.iter_mut().zip(had) {
                start.lacks(series, time, had);
            }
        });
    }

    /// The chunks of a group, and what they cover.
    fn settle_group(&mut self, index: usize) {
        let group = &self.chunks.groups[index];
        let series = self.base.refs[group.series_ref as usize];
        if series == NONE {
            return;
        }
        let number = u32::try_from(index).unwrap_or(NONE);
        let in_order: Vec<Tally> = group.piles().map(|pile| self.not_in_wal(pile, series)).collect();
        let late = [0, 1].map(|pile| self.not_in_wbl(group, pile, series));
        let of_base = &mut self.base.series[series as usize];
        in_order.iter().chain(&late).for_each(|tally| of_base.counted.join(tally));
        for start in &mut self.starts {
            let is_held = start.holds(series, number);
            let is_left = start.resolve_left(group.series_ref) == series;
            for (pile, tally) in in_order.iter().enumerate().chain(late.iter().enumerate()) {
                let has_file = start.has_file(pile);
                let of_series = &mut start.series[series as usize];
                if !(has_file && is_held) {
                    of_series.missing.join(tally);
                }
                if !(has_file && is_left) {
                    of_series.gone.join(tally);
                }
            }
            for (pile, place) in group.places().enumerate() {
                if !(start.has_file(pile) && is_held) {
                    start.series[series as usize].missing.join(&start.covered[place]);
                }
            }
        }
    }

    /// Samples that are in chunks in order, and that the WAL does not have.
    fn not_in_wal(&self, pile: &Pile, series: u32) -> Tally {
        let Stock { samples, min_time, max_time } = pile.stock;
        // What is older than that is in blocks, and the WAL has the rest.
        let is_in_blocks = min_time < self.min_valid_time && pile.in_wal > 0;
        if samples == 0 || is_in_blocks || self.known.deleted.cover(series, min_time, max_time) {
            return Tally::NOTHING;
        }
        // A WAL that is whole has lost the older ones.
        let max_time = if self.whole.wal { max_time.min(pile.first_in_wal) } else { max_time };
        Tally { samples: samples.saturating_sub(pile.in_wal), min_time, max_time }
    }

    /// Samples that are in chunks out of order, and that the WBL does not have.
    fn not_in_wbl(&self, group: &Group, pile: usize, series: u32) -> Tally {
        let Stock { samples, min_time, max_time } = group.late[pile];
        // A chunk may have been written twice. A WBL that is whole has all that is in chunks: both are cut together.
        let is_known = self.whole.wbl && group.in_wbl > 0;
        if samples == 0 || is_known || self.known.deleted.cover(series, min_time, max_time) {
            return Tally::NOTHING;
        }
        let before = if pile == 0 { 0 } else { group.late[0].samples };
        let in_wbl = group.in_wbl.saturating_sub(before);
        Tally { samples: samples.saturating_sub(in_wbl), min_time, max_time }
    }
}
