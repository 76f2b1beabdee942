//! Samples that came out of order, in all heads.

use super::Heads;
use crate::forecast::served::groups::Cover;
use crate::forecast::served::late::{LATE_CHUNK, Late};
use crate::forecast::served::start::Start;
use crate::forecast::served::tables::NONE;

impl Heads<'_> {
    pub(super) fn late_sample(&mut self, series_ref: u32, series: u32, time: i64, stale: bool) {
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
            let (is_replayed, is_left) = self.turns.takes[i];
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
    pub(super) fn also_late(&mut self, series_ref: u32, series: u32, time: i64, covering: Option<Cover>) {
        let had = self.starts.iter().zip(&self.turns.takes).map(|(start, &(is_replayed, is_left))| {
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
    pub(super) fn settle(&mut self, series: u32, on_disk: Option<Cover>) {
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
    pub(super) fn marker(&mut self, number: u64, chunk: u64, in_base: bool) {
        let series_ref = self.refs.find(number);
        if series_ref == NONE {
            return;
        }
        for i in 0..self.starts.len() {
            let start = &self.starts[i];
            let last = if start.chunks_deleted { self.chunks.read.last_kept } else { self.chunks.read.last };
            let (is_replayed, is_left) = self.turns.takes[i];
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
}
