//! Heads that are filled side by side: an ideal one, and two for each start.

mod out_of_order;
mod outcome;

use std::collections::HashMap;

use super::groups::{Attached, Chunks, Cover};
use super::hindsight::Hindsight;
use super::late::{Late, LateSamples};
use super::reads::Reads;
use super::start::Start;
use super::tables::{NONE, Names, Refs};
use super::tally::Tally;
use super::{Counted, StartReads};
use crate::forecast::{HeadChunks, Version};
use crate::record::{
    self, EntryKind, FloatHistogramEntry, HistogramEntry, Labels, Record, RecordType, TombstoneEntry,
};

/// The value of a sample that says that its series has ended (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7ff0_0000_0000_0002;

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
    /// By start: whether it does not read the record at hand, since it has loaded a chunk snapshot.
    skips: Vec<bool>,
    /// By start: whether it comes to the record at hand, and its version cannot read that.
    passes_over: Vec<bool>,
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
            skips: Vec::new(),
            passes_over: Vec::new(),
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
        self.skips.clear();
        self.skips.extend(reads.starts.iter().map(|(replayed, _)| is_known && replayed.skips(end)));
        self.passes_over.clear();
        let is_read = is_replayed && is_known;
        self.passes_over.extend(reads.starts.iter().map(|(replayed, _)| !is_read && replayed.has(end, true)));
        self.read(data, true, reads);
    }

    /// A series that the starts `loads` load from a chunk snapshot.
    pub(super) fn in_snapshot(&mut self, of: &record::SnapshotSeries<'_>, loads: &[bool]) {
        if of.series_ref == 0 {
            return;
        }
        let series = self.names.number(&of.labels);
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
        if !self.knows(data, reads) || record::summarize_as(data, self.version.dialect()).error.is_some() {
            return;
        }
        self.turns.clear();
        self.turns.extend(reads.starts.iter().map(|(replayed, _)| (replayed.has(end, true), false)));
        self.skips.clear();
        self.skips.resize(reads.starts.len(), false);
        self.passes_over.clear();
        self.passes_over.resize(reads.starts.len(), false);
        self.read(data, false, reads);
    }

    /// Whether a start of that version looks into such a record.
    fn knows(&self, data: &[u8], reads: &Reads) -> bool {
        let Some(record_type) = RecordType::of(data) else { return false };
        let is_read = match record_type.kind() {
            EntryKind::Samples => true,
            EntryKind::Series | EntryKind::Tombstones => !reads.late,
            EntryKind::MmapMarkers => reads.late,
            EntryKind::Exemplars | EntryKind::Metadata | EntryKind::MinValidTime => false,
            EntryKind::Histograms | EntryKind::FloatHistograms => {
                !reads.late || self.version.replays_wbl_histograms()
            }
        };
        is_read && self.version.knows(record_type)
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
            let is_skipped = self.skips.get(i).copied().unwrap_or(false);
            let is_passed_over = self.passes_over.get(i).copied().unwrap_or(false);
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
                            start.series[s].passed_over.add(time);
                        } else if is_skipped {
                            start.series[s].hidden.add(time);
                        } else if to == series && !takes && start.has_later_chunk(series, time, &self.chunks)
                        {
                            start.series[s].older.add(time);
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
}
