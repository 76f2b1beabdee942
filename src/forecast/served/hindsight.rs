//! What changes the meaning of records that have gone by.

use std::collections::HashMap;

/// Intervals by series.
#[derive(Clone, Debug, Default)]
pub(super) struct Intervals(HashMap<u32, Vec<(i64, i64)>>);

impl Intervals {
    pub(super) fn add(&mut self, series: u32, min_time: i64, max_time: i64) {
        self.0.entry(series).or_default().push((min_time, max_time));
    }

    /// Puts them in order, so that they can be asked.
    fn sort(&mut self) {
        for of_series in self.0.values_mut() {
            of_series.sort_unstable();
            of_series.dedup_by(|next, last| {
                let meets = next.0 <= last.1.saturating_add(1);
                last.1 = if meets { last.1.max(next.1) } else { last.1 };
                meets
            });
        }
    }

    /// Whether the series has any.
    pub(super) fn has_of(&self, series: u32) -> bool {
        !self.0.is_empty() && self.0.contains_key(&series)
    }

    /// Whether everything from the one time to the other is in them.
    pub(super) fn cover(&self, series: u32, min_time: i64, max_time: i64) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let Some(of_series) = self.0.get(&series) else { return false };
        let behind = of_series.partition_point(|&(min, _)| min <= min_time);
        behind.checked_sub(1).and_then(|at| of_series.get(at)).is_some_and(|&(_, max)| max_time <= max)
    }
}

/// Samples that a head took when the base had them already, or did not take them.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    times: HashMap<u32, Vec<i64>>,
    count: usize,
    /// Those for which there was no room.
    pub(super) unplaced: u64,
}

impl Found {
    const ROOM: usize = 2 << 20;

    pub(super) fn add(&mut self, series: u32, time: i64) {
        if self.count == Self::ROOM {
            self.unplaced += 1;
        } else {
            self.count += 1;
            self.times.entry(series).or_default().push(time);
        }
    }

    pub(super) fn forget(&mut self, series: u32) {
        if let Some(times) = self.times.remove(&series) {
            self.count -= times.len();
        }
    }

    /// Whether the series has any.
    pub(super) fn has_of(&self, series: u32) -> bool {
        !self.times.is_empty() && self.times.contains_key(&series)
    }

    pub(super) fn has(&self, series: u32, time: i64) -> bool {
        !self.times.is_empty()
            && self.times.get(&series).is_some_and(|times| times.binary_search(&time).is_ok())
    }
}

/// What the first pass finds and the second one must know from the beginning.
#[derive(Debug, Default)]
pub(super) struct Hindsight {
    /// Of the base.
    pub(super) deleted: Intervals,
    /// By start: what only it reads as deleted.
    pub(super) deleted_by_start: Vec<Intervals>,
    /// By start: what it has found again, and what an ideal head over what is left has.
    pub(super) found: Vec<[Found; 2]>,
}

impl Hindsight {
    pub(super) fn of(starts: usize) -> Self {
        Self {
            deleted: Intervals::default(),
            deleted_by_start: vec![Intervals::default(); starts],
            found: (0..starts).map(|_| <[Found; 2]>::default()).collect(),
        }
    }

    /// Whether anything is known of the series that concerns some of its samples and not others.
    pub(super) fn concerns(&self, series: u32) -> bool {
        self.deleted.has_of(series)
            || self.deleted_by_start.iter().any(|deleted| deleted.has_of(series))
            || self.found.iter().flatten().any(|found| found.has_of(series))
    }

    pub(super) fn matters(&self) -> bool {
        [&self.deleted].into_iter().chain(&self.deleted_by_start).any(|deleted| !deleted.0.is_empty())
            || self.found.iter().flatten().any(|found| found.count > 0)
    }

    pub(super) fn sort(&mut self) {
        self.deleted_by_start.iter_mut().chain([&mut self.deleted]).for_each(Intervals::sort);
        for times in self.found.iter_mut().flatten().flat_map(|found| found.times.values_mut()) {
            times.sort_unstable();
        }
    }
}
