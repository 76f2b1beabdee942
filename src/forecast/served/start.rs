//! One start: the head that it fills, and an ideal one over what it leaves.

use std::collections::HashSet;

use super::groups::{Attached, Chunks};
use super::hindsight::Found;
use super::tables::NONE;
use super::tally::{SmallTally, Tally, sum};
use crate::forecast::report::Samples;
use crate::record::SnapshotChunk;

/// What a start has, and what it leaves.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) serves: bool,
    pub(super) chunks_deleted: bool,
    refs: Vec<OfRef>,
    pub(super) series: Vec<OfSeries>,
    /// By place of a pile: what it has only if it holds the group at the end.
    pub(super) covered: Vec<Tally>,
    /// Series whose samples no query returns, whenever they come.
    pub(super) wiped: HashSet<u32>,
    /// Samples of refs that it does not know, and these refs.
    unknown: Tally,
    unknown_refs: HashSet<u64>,
    /// Refs that a chunk snapshot defines.
    by_snapshot: HashSet<u32>,
}

#[derive(Clone, Copy, Debug)]
struct OfRef {
    /// The series that has it for its id (`stripeSeries.series`).
    by_id: u32,
    /// The ref that it stands for (`multiRef`).
    stands_for: u32,
    /// The series, in what is left.
    left: u32,
}

#[derive(Debug)]
pub(super) struct OfSeries {
    /// No sample up to this time is taken.
    pub(super) last: i64,
    /// The time of its last sample, in what is left.
    pub(super) left_last: i64,
    /// What it has taken, of what counts, since it was last emptied.
    pub(super) taken: SmallTally,
    /// It has taken a sample since then.
    pub(super) filled: bool,
    /// The ref that is its id, if its labels are known (`stripeSeries.hashes`).
    id: u32,
    /// What it has not.
    pub(super) missing: SmallTally,
    /// What is gone.
    pub(super) gone: SmallTally,
    /// The chunks that it holds.
    held: Attached,
    /// What few series have.
    rare: Option<Box<Rare>>,
}

/// What few series have.
#[derive(Debug, Default)]
struct Rare {
    /// What it has from a chunk snapshot.
    in_snapshot: Option<InSnapshot>,
    /// What of the missing samples is before that.
    hidden: Tally,
    /// What of the missing samples is read, and older than its head chunks.
    older: Tally,
    /// What of the missing samples is in records that its version cannot read.
    passed_over: Tally,
}

/// Why samples are missing that are on disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Because {
    /// A chunk snapshot is read in place of their records.
    Hidden,
    /// They are older than a head chunk of their series.
    Older,
    /// The version cannot read their records.
    PassedOver,
}

impl OfSeries {
    /// Samples that it has not, although they are on disk.
    pub(super) fn lacks(&mut self, samples: &Tally, because: Because) {
        let rare = self.rare.get_or_insert_default();
        let tally = match because {
            Because::Hidden => &mut rare.hidden,
            Because::Older => &mut rare.older,
            Because::PassedOver => &mut rare.passed_over,
        };
        tally.join(samples);
    }

    fn in_snapshot(&self) -> Option<&InSnapshot> {
        self.rare.as_ref()?.in_snapshot.as_ref()
    }

    fn leave_snapshot(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.in_snapshot = None;
        }
    }
}

/// The open chunk of a series in a chunk snapshot.
#[derive(Clone, Copy, Debug)]
struct InSnapshot {
    min_time: i64,
    max_time: i64,
    samples: u64,
    /// Samples of the WAL that are in it.
    seen: u64,
}

impl Start {
    pub(super) fn new(serves: bool, chunks_deleted: bool) -> Self {
        Self { serves, chunks_deleted, ..Self::default() }
    }

    /// One more ref.
    pub(super) fn add_ref(&mut self, places: usize) {
        self.refs.push(OfRef { by_id: NONE, stands_for: NONE, left: NONE });
        self.covered.resize(places, Tally::NOTHING);
    }

    /// One more series.
    pub(super) fn add_series(&mut self) {
        self.series.push(OfSeries {
            last: i64::MIN,
            left_last: i64::MIN,
            taken: SmallTally::NOTHING,
            filled: false,
            id: NONE,
            missing: SmallTally::NOTHING,
            gone: SmallTally::NOTHING,
            held: Attached::none(),
            rare: None,
        });
    }

    fn id_of(&self, series_ref: u32) -> u32 {
        let stands_for = self.refs[series_ref as usize].stands_for;
        if stands_for == NONE { series_ref } else { stands_for }
    }

    /// The series that a sample with that ref goes to.
    pub(super) fn resolve(&self, series_ref: u32) -> u32 {
        self.refs[self.id_of(series_ref) as usize].by_id
    }

    /// The same, in what is left.
    pub(super) fn resolve_left(&self, series_ref: u32) -> u32 {
        self.refs[series_ref as usize].left
    }

    /// A series record, or its deletion, in what is left.
    pub(super) fn leave(&mut self, series_ref: u32, series: u32) {
        self.refs[series_ref as usize].left = series;
    }

    pub(super) fn has_file(&self, pile: usize) -> bool {
        pile == 0 || !self.chunks_deleted
    }

    /// Whether queries reach the chunks of a group in it.
    pub(super) fn holds(&self, series: u32, group: u32) -> bool {
        let of_series = &self.series[series as usize];
        let is_reached = of_series.id != NONE && self.refs[of_series.id as usize].by_id == series;
        is_reached && of_series.held.each().any(|held| held == group)
    }

    /// Samples of a ref that it does not know.
    pub(super) fn drop_unknown(&mut self, number: u64, samples: &Tally) {
        self.unknown.join(samples);
        self.unknown_refs.insert(number);
    }

    /// All of them; there are as many series as refs.
    pub(super) fn unknown(&self) -> Samples {
        Samples { series: self.unknown_refs.len() as u64, ..sum([self.unknown].into_iter(), 0) }
    }

    /// A sample out of order that it may not have, or leave.
    pub(super) fn lacks(&mut self, series: u32, time: i64, [has, leaves]: [bool; 2]) {
        let of_series = &mut self.series[series as usize];
        if !has {
            of_series.missing.add(time);
        }
        if !leaves {
            of_series.gone.add(time);
        }
    }

    /// Throws away what the series has taken.
    fn empty(&mut self, series: u32, found: &mut Found) {
        let of_series = &mut self.series[series as usize];
        let taken = std::mem::replace(&mut of_series.taken, SmallTally::NOTHING);
        of_series.missing.join(&taken.tally());
        found.forget(series);
    }

    /// A series in a chunk snapshot: head chunks go to it at once, and one that ends behind the beginning of its open chunk takes the
    /// place of that (`loadMmappedChunks`).
    pub(super) fn load(
        &mut self,
        series_ref: u32,
        series: u32,
        (group, chunks): (u32, &Chunks<'_>),
        open: Option<&SnapshotChunk<'_>>,
        found: &mut Found,
    ) {
        self.define(series_ref, series, group, chunks, found);
        self.by_snapshot.insert(series_ref);
        let of_series = &mut self.series[series as usize];
        if let Some(open) = open.filter(|open| of_series.last < open.min_time) {
            let count = u64::from(u16::from_be_bytes([
                open.data.first().copied().unwrap_or(0),
                open.data.get(1).copied().unwrap_or(0),
            ]));
            // The upper bits are flags (`HistogramSTChunk`, `tsdb/chunkenc/histogram_st.go`).
            let samples = if matches!(open.encoding, 5 | 6) { count & 0x3fff } else { count };
            let SnapshotChunk { min_time, max_time, .. } = *open;
            of_series.rare.get_or_insert_default().in_snapshot =
                Some(InSnapshot { min_time, max_time, samples, seen: 0 });
            of_series.last = max_time;
            of_series.filled = true;
        }
    }

    /// Whether a sample is in the chunk that it has from a chunk snapshot.
    pub(super) fn has_in_snapshot(&self, series: u32, time: i64) -> bool {
        let of_series = &self.series[series as usize];
        let is_reached = of_series.id != NONE && self.refs[of_series.id as usize].by_id == series;
        is_reached
            && of_series.in_snapshot().is_some_and(|open| open.min_time <= time && time <= open.max_time)
    }

    /// The WAL has that sample.
    pub(super) fn see_of_snapshot(&mut self, series: usize, time: i64) {
        if let Some(rare) = &mut self.series[series].rare
            && let Some(open) = &mut rare.in_snapshot
            && open.min_time <= time
            && time <= open.max_time
        {
            open.seen += 1;
        }
    }

    fn rare(&self) -> impl Iterator<Item = &Rare> {
        self.series.iter().filter_map(|of_series| of_series.rare.as_deref())
    }

    /// What stands in a part of the log that is not read, and is not there either.
    pub(super) fn hidden(&self) -> Samples {
        sum(self.rare().map(|rare| rare.hidden), 0)
    }

    /// What is read, and older than the head chunks of its series.
    pub(super) fn hidden_by_head_chunks(&self) -> Samples {
        sum(self.rare().map(|rare| rare.older), 0)
    }

    /// What is in records that its version cannot read.
    pub(super) fn passed_over(&self) -> Samples {
        sum(self.rare().map(|rare| rare.passed_over), 0)
    }

    /// Whether a series has a head chunk that ends behind that time.
    pub(super) fn has_later_chunk(&self, series: u32, time: i64, chunks: &Chunks<'_>) -> bool {
        let mut held = self.series[series as usize].held.each();
        held.any(|group| chunks.groups[group as usize].last_time(!self.chunks_deleted) >= time)
    }

    /// What only a chunk snapshot has.
    pub(super) fn only_in_snapshot(&self) -> Samples {
        let only = |of_series: &OfSeries| {
            let &InSnapshot { min_time, max_time, samples, seen } = of_series.in_snapshot()?;
            Some(Tally { samples: samples.saturating_sub(seen), min_time, max_time })
        };
        sum(self.series.iter().filter_map(only), 0)
    }

    /// A series record (`getOrCreateWithOptionalID`, `resetSeriesWithMMappedChunks`).
    pub(super) fn define(
        &mut self,
        series_ref: u32,
        series: u32,
        group: u32,
        chunks: &Chunks<'_>,
        found: &mut Found,
    ) {
        let of_series = &mut self.series[series as usize];
        if of_series.id == NONE {
            of_series.id = series_ref;
            of_series.held = Attached::none();
            let before = std::mem::replace(&mut self.refs[series_ref as usize].by_id, series);
            if before != NONE {
                // It still has its labels, but nothing leads to it.
                self.empty(before, found);
            }
        } else {
            self.refs[series_ref as usize].stands_for = of_series.id;
        }
        self.empty(series, found);
        let with_deleted = !self.chunks_deleted;
        let is_loaded = self.by_snapshot.contains(&series_ref);
        let of_series = &mut self.series[series as usize];
        of_series.filled = false;
        of_series.leave_snapshot();
        if is_loaded {
            // Its chunks have gone to the series of the snapshot, and go with that.
            of_series.held = Attached::none();
        } else if chunks.are_merged {
            of_series.held.add(group);
        } else {
            of_series.held.set(group);
        }
        let ends = of_series.held.each().map(|group| chunks.groups[group as usize].last_time(with_deleted));
        of_series.last = ends.max().unwrap_or(i64::MIN);
    }

    /// A series that is wholly deleted (`deleteSeriesByID`).
    pub(super) fn remove(&mut self, series_ref: u32, found: &mut Found) {
        let id = self.id_of(series_ref);
        let series = std::mem::replace(&mut self.refs[id as usize].by_id, NONE);
        if series == NONE {
            return;
        }
        self.empty(series, found);
        let of_series = &mut self.series[series as usize];
        of_series.filled = false;
        of_series.leave_snapshot();
        if of_series.id == id {
            of_series.id = NONE;
        }
    }

    /// A series that has nothing is removed by its id, even if another one has that id by now (`stripeSeries.gc`).
    pub(super) fn collect_garbage(&mut self, found: &mut Found) {
        for series in 0..self.series.len() {
            let OfSeries { id, filled, held, .. } = &self.series[series];
            if *id == NONE || *filled || !held.is_empty() {
                continue;
            }
            let by_id = &mut self.refs[*id as usize].by_id;
            if *by_id != NONE && *by_id as usize != series {
                let reached = std::mem::replace(by_id, NONE);
                self.empty(reached, found);
            }
        }
    }
}
