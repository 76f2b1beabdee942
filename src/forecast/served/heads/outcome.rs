//! What the heads come to when all has been read.

use super::{Heads, Turn};
use crate::forecast::head_chunks::Stock;
use crate::forecast::report::Samples;
use crate::forecast::served::Counted;
use crate::forecast::served::groups::{Group, Pile};
use crate::forecast::served::start::Start;
use crate::forecast::served::tables::NONE;
use crate::forecast::served::tally::{Tally, sum};

impl<'a> Heads<'a> {
    /// All has been read.
    pub(in crate::forecast::served) fn finish(mut self) -> Turn<'a> {
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
        let mut only_in_chunks = Vec::new();
        for group in 0..self.chunks.groups.len() {
            only_in_chunks.push(self.settle_group(group));
        }
        let only_in_head_chunks = sum(only_in_chunks.into_iter(), 0);
        let sum_base = sum(self.base.series.iter().map(|of_series| of_series.counted.tally()), 0);
        let counted = self.starts.iter().zip(&self.known.found).map(|(start, [found, found_left])| {
            let missing = start.series.iter().map(|of_series| of_series.missing.tally());
            let gone = start.series.iter().map(|of_series| of_series.gone.tally());
            let not_replayed = if start.serves { sum(missing, found.unplaced) } else { sum_base };
            let unknown_refs = start.unknown();
            let wrong_labels = self.wrong_labels(start);
            Counted {
                not_replayed,
                gone: sum(gone, found_left.unplaced),
                unknown_refs,
                wrong_labels,
                hidden_by_snapshot: start.hidden(),
                only_in_snapshot: start.only_in_snapshot(),
                hidden_by_head_chunks: start.hidden_by_head_chunks(),
                only_in_head_chunks,
                passed_over: start.passed_over(),
            }
        });
        Turn::Done(counted.collect())
    }

    /// Head chunks of a run that is gone, as far as a start knows a series by their ref.
    fn wrong_labels(&self, start: &Start) -> Samples {
        if !start.serves {
            return Samples::default();
        }
        let mut all = Vec::new();
        for (&number, [kept, deleted]) in &self.chunks.read.of_others {
            let series_ref = self.refs.find(number);
            if series_ref == NONE || start.resolve(series_ref) == NONE {
                continue;
            }
            for stock in [Some(kept), Some(deleted).filter(|_| !start.chunks_deleted)].into_iter().flatten() {
                let Stock { samples, min_time, max_time } = *stock;
                all.push(Tally { samples, min_time, max_time });
            }
        }
        sum(all.into_iter(), 0)
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

    /// The chunks of a group, and what they cover; what stands nowhere else.
    fn settle_group(&mut self, index: usize) -> Tally {
        let group = &self.chunks.groups[index];
        let series = self.base.refs[group.series_ref as usize];
        if series == NONE {
            return Tally::NOTHING;
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
        let mut only = Tally::NOTHING;
        in_order.iter().take(1).chain(late.iter().take(1)).for_each(|tally| only.join(tally));
        only
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
