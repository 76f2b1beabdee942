//! Samples taken a run at a time: what a head makes of a run follows from its first and last time, unless something happens in
//! between. Where it does not, the samples are read one by one, as [`super::Heads::salvaged`] does it, with the same outcome.

use std::collections::{HashMap, HashSet};

use super::super::groups::{Cover, Throughout};
use super::super::pieces::{Definition, Piece, Place};
use super::super::reads::Reads;
use super::super::runs::{OfRef, Samples};
use super::super::start::{Because, Start};
use super::super::tables::{NONE, Name};
use super::super::tally::Tally;
use super::Heads;
use crate::record::{FloatHistogramEntry, HistogramEntry, Record, RecordType, STALE};

/// What is left of a piece.
#[derive(Debug)]
pub(in crate::forecast::served) enum Left {
    Nothing,
    /// The samples of these refs.
    Refs(HashSet<u64>),
    /// All of it.
    Everything,
}

/// What a start makes of a run.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// Its head takes all of it, or nothing.
    is_replayed: bool,
    /// What it leaves has all of it, or nothing.
    is_left: bool,
    /// The samples that it does not take are older than a chunk that it has.
    has_later_chunk: bool,
}

/// The chunks that the samples of a run are in.
enum CoverOfAll {
    None,
    One(Cover),
    /// Not the same for all of them.
    Differs,
}

/// What all heads make of a run of a series.
enum Whole {
    /// No head takes any of it.
    Known,
    /// All of it is new.
    New { cover: Option<Cover>, by_start: Vec<Taken> },
}

impl Heads<'_> {
    /// Takes what it can of a piece.
    pub(in crate::forecast::served) fn take(&mut self, piece: &Piece) -> Left {
        // A chunk in a snapshot has some of the samples of a run, and not others.
        if self.has_snapshots || !self.can_define_first(&piece.definitions) {
            return Left::Everything;
        }
        self.turns.clone_from(&piece.turns);
        for definition in &piece.definitions {
            self.define(definition.series_ref, definition.name, true);
        }
        let mut left = HashSet::new();
        piece.runs.each(|series_ref, of_ref| {
            let is_done = match of_ref {
                OfRef::Singly => false,
                OfRef::InOrder(samples) => self.take_run(series_ref, &samples),
            };
            if !is_done {
                left.insert(series_ref);
            }
        });
        if left.is_empty() { Left::Nothing } else { Left::Refs(left) }
    }

    /// Whether it makes no difference if all series are defined before the first sample of the piece.
    fn can_define_first(&self, definitions: &[Definition]) -> bool {
        if definitions.iter().all(|definition| definition.place == Place::First) {
            return true;
        }
        let mut new: HashMap<Name, u64, foldhash::fast::RandomState> = HashMap::default();
        definitions.iter().all(|definition| {
            let Definition { series_ref: number, name, place } = *definition;
            let is_second = *new.entry(name).or_insert(number) != number;
            if place == Place::First {
                return true;
            }
            let series = self.names.find(name);
            let series_ref = self.refs.find(number);
            let defined = if series_ref == NONE { NONE } else { self.base.defined[series_ref as usize] };
            let is_new = series == NONE || self.base.series[series as usize].first_ref == NONE;
            let is_same = defined == series && !self.base.entangled.contains(&series);
            let is_alone = if is_new { defined == NONE } else { is_same };
            place == Place::AfterOthers && !is_second && is_alone
        })
    }

    /// Takes a run; whether that is done.
    fn take_run(&mut self, number: u64, samples: &Samples) -> bool {
        let series_ref = self.refs.find(number);
        if series_ref == NONE {
            self.drop_unknown_run(number, NONE, samples);
            return true;
        }
        let series = self.base.refs[series_ref as usize];
        if series == NONE {
            let is_used = |(start, &(is_replayed, is_left)): (&Start, &(bool, bool))| {
                is_replayed && start.serves && start.resolve(series_ref) != NONE
                    || is_left && start.resolve_left(series_ref) != NONE
            };
            if self.starts.iter().zip(&self.turns.takes).any(is_used) {
                return false;
            }
            self.drop_unknown_run(number, series_ref, samples);
            return true;
        }
        let Some(whole) = self.judge(series_ref, series, samples) else { return false };
        self.drop_unknown_run(number, series_ref, samples);
        if let Whole::New { cover, by_start } = whole {
            self.take_new(series, samples, cover, &by_start);
        }
        true
    }

    /// As [`Heads::count_unknown`].
    fn drop_unknown_run(&mut self, number: u64, series_ref: u32, samples: &Samples) {
        let all = Tally { samples: samples.count, min_time: samples.first, max_time: samples.last };
        for (start, &(is_replayed, _)) in self.starts.iter_mut().zip(&self.turns.takes) {
            if is_replayed && start.serves && (series_ref == NONE || start.resolve(series_ref) == NONE) {
                start.drop_unknown(number, &all);
            }
        }
    }

    /// What all heads make of a run; `None` if they do not treat all samples of it alike.
    fn judge(&self, series_ref: u32, series: u32, samples: &Samples) -> Option<Whole> {
        let &Samples { first, last, .. } = samples;
        if self.base.entangled.contains(&series)
            || self.known.concerns(series)
            || self.late_samples.has_of(series)
        {
            return None;
        }
        let s = series as usize;
        let is_new = first > self.base.series[s].last;
        if !is_new && last > self.base.series[s].last {
            return None;
        }
        let cover = match is_new.then(|| self.cover_all(series, first, last)) {
            Some(CoverOfAll::One(cover)) => Some(cover),
            Some(CoverOfAll::Differs) => return None,
            Some(CoverOfAll::None) | None => None,
        };
        let mut by_start = Vec::new();
        for (start, &(is_replayed, is_left)) in self.starts.iter().zip(&self.turns.takes) {
            if start.wiped.contains(&series) {
                return None;
            }
            let takes = |to: u32, last_taken: i64| {
                let takes_all = to != NONE && first > last_taken;
                let takes_none = to == NONE || last <= last_taken;
                let is_alike = (to == NONE || to == series) && (takes_all || takes_none);
                is_alike.then_some(takes_all)
            };
            let of_series = &start.series[s];
            let to = if start.serves && is_replayed { start.resolve(series_ref) } else { NONE };
            let is_taken = takes(to, of_series.last)?;
            let to_left = if is_left { start.resolve_left(series_ref) } else { NONE };
            let is_left = takes(to_left, of_series.left_last)?;
            if !is_new && (is_taken || is_left) {
                return None;
            }
            let has_later_chunk = to == series && !is_taken && {
                let has_later = start.has_later_chunk(series, last, &self.chunks);
                if has_later != start.has_later_chunk(series, first, &self.chunks) {
                    return None;
                }
                has_later
            };
            if is_new {
                by_start.push(Taken { is_replayed: is_taken, is_left, has_later_chunk });
            }
        }
        Some(if is_new { Whole::New { cover, by_start } } else { Whole::Known })
    }

    /// The chunks that samples from the one time to the other are in.
    fn cover_all(&self, series: u32, first: i64, last: i64) -> CoverOfAll {
        for group in self.base.series[series as usize].groups.each() {
            let of = &self.chunks.groups[group as usize];
            if self.base.refs[of.series_ref as usize] != series {
                continue;
            }
            match of.find_all(first, last) {
                Throughout::In(pile) => return CoverOfAll::One(Cover { group, pile }),
                Throughout::Nowhere => {}
                Throughout::Differs => return CoverOfAll::Differs,
            }
        }
        CoverOfAll::None
    }

    /// As [`Heads::sample_in_order`], for a run that is new to the base.
    fn take_new(&mut self, series: u32, samples: &Samples, cover: Option<Cover>, by_start: &[Taken]) {
        let s = series as usize;
        let counted = match samples.last_counted {
            Some(last) => Tally {
                samples: samples.count - u64::from(samples.is_marked),
                min_time: samples.first,
                max_time: last,
            },
            None => Tally::NOTHING,
        };
        self.base.series[s].last = samples.last;
        self.base.series[s].counted.join(&counted);
        let mut place = None;
        if let Some(Cover { group, pile }) = cover {
            let of_group = &mut self.chunks.groups[group as usize];
            of_group.in_wal(pile, samples.count, samples.first);
            place = Some(of_group.first_place + pile);
        }
        for (i, (start, taken)) in self.starts.iter_mut().zip(by_start).enumerate() {
            if start.serves {
                let of_series = &mut start.series[s];
                if taken.is_replayed {
                    of_series.last = samples.last;
                    of_series.filled = true;
                    of_series.taken.join(&counted);
                } else if let Some(place) = place {
                    start.covered[place].join(&counted);
                } else {
                    of_series.missing.join(&counted);
                    if self.turns.passes_over[i] {
                        of_series.lacks(&counted, Because::PassedOver);
                    } else if self.turns.skips[i] {
                        of_series.lacks(&counted, Because::Hidden);
                    } else if taken.has_later_chunk {
                        of_series.lacks(&counted, Because::Older);
                    }
                }
            }
            if taken.is_left {
                start.series[s].left_last = samples.last;
                continue;
            }
            let is_covered = cover.is_some_and(|Cover { group, pile }| {
                let of_group = self.chunks.groups[group as usize].series_ref;
                start.has_file(pile) && start.resolve_left(of_group) == series
            });
            if !is_covered {
                start.series[s].gone.join(&counted);
            }
        }
    }

    /// The samples of some refs in a record that the salvage reader has, one by one.
    pub(in crate::forecast::served) fn salvaged_samples(
        &mut self,
        data: &[u8],
        end: u64,
        is_replayed: bool,
        reads: &Reads,
        refs: &HashSet<u64>,
    ) {
        let Some(kind) = RecordType::of(data) else { return };
        let is_known = reads.knows(kind, self.version);
        self.turns.salvaged(reads, end, is_replayed, is_known);
        match Record::parse(data) {
            Record::Samples(samples) => {
                for entry in samples.entries().flatten().filter(|entry| refs.contains(&entry.series_ref)) {
                    self.sample(entry.series_ref, entry.t, entry.value_bits == STALE, true, reads);
                }
            }
            Record::Histograms(histograms) => {
                let known = histograms.entries().flatten().filter(HistogramEntry::known_schema);
                for entry in known.filter(|entry| refs.contains(&entry.series_ref)) {
                    let stale = entry.histogram.sum_bits == STALE;
                    self.sample(entry.series_ref, entry.t, stale, true, reads);
                }
            }
            Record::FloatHistograms(histograms) => {
                let known = histograms.entries().flatten().filter(FloatHistogramEntry::known_schema);
                for entry in known.filter(|entry| refs.contains(&entry.series_ref)) {
                    let stale = entry.histogram.sum_bits == STALE;
                    self.sample(entry.series_ref, entry.t, stale, true, reads);
                }
            }
            Record::Series(_)
            | Record::Tombstones(_)
            | Record::Exemplars(_)
            | Record::MmapMarkers(_)
            | Record::Metadata(_)
            | Record::MinValidTime(_)
            | Record::Unknown(_) => {}
        }
    }
}
