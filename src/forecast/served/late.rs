//! Samples that came out of order.

use std::collections::{HashMap, HashSet};

/// Samples that a chunk of out-of-order samples takes, if nobody has configured it (`DefaultOutOfOrderCapMax`,
/// `tsdb/head.go`).
pub(super) const LATE_CHUNK: usize = 32;

/// Those of one series since a chunk of them was last cut.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) times: Vec<i64>,
    /// By place in `times`: it does not count.
    pub(super) not_counted: u32,
    /// By start and place: it has it, and what is left has it.
    pub(super) had: Vec<[u32; 2]>,
}

impl Late {
    pub(super) fn new(starts: usize) -> Self {
        Self { times: Vec::new(), not_counted: 0, had: vec![[0; 2]; starts] }
    }

    /// The place of a sample with that time.
    pub(super) fn find(&self, time: i64) -> Option<usize> {
        self.times.iter().position(|&at| at == time)
    }

    /// The same, which may be new; there are at most [`LATE_CHUNK`].
    pub(super) fn place(&mut self, time: i64, counts: bool) -> usize {
        self.find(time).unwrap_or_else(|| {
            let place = self.times.len();
            self.times.push(time);
            self.not_counted |= u32::from(!counts) << place;
            place
        })
    }
}

/// All of them, by series and time, and who has them: one bit for each start, one for what it leaves. The same sample may
/// stand in the WBL several times, in several chunks, and in order too.
#[derive(Debug, Default)]
pub(super) struct LateSamples {
    had: HashMap<(u32, i64), u64>,
    /// The series of all of them.
    series: HashSet<u32>,
}

impl LateSamples {
    const ROOM: usize = 1 << 20;
    const STARTS: usize = 31;
    /// It counts.
    const COUNTS: u64 = 1 << 63;

    pub(super) fn is_empty(&self) -> bool {
        self.had.is_empty()
    }

    /// Whether the series has any.
    pub(super) fn has_of(&self, series: u32) -> bool {
        !self.series.is_empty() && self.series.contains(&series)
    }

    pub(super) fn has(&self, series: u32, time: i64) -> bool {
        !self.had.is_empty() && self.had.contains_key(&(series, time))
    }

    /// Adds one, and which starts have and leave it. Whether there is room for it.
    pub(super) fn add(&mut self, series: u32, time: i64, had: &[[bool; 2]]) -> bool {
        let has_room = self.had.len() < Self::ROOM && had.len() <= Self::STARTS;
        let bits = had
            .iter()
            .enumerate()
            .map(|(start, &[has, leaves])| (u64::from(has) | u64::from(leaves) << 1) << (2 * start));
        match self.had.get_mut(&(series, time)) {
            Some(known) => *known |= bits.sum::<u64>() | Self::COUNTS,
            None if has_room => {
                self.had.insert((series, time), bits.sum::<u64>() | Self::COUNTS);
                self.series.insert(series);
            }
            None => return false,
        }
        true
    }

    /// Keeps which there are, and forgets who has them.
    pub(super) fn forget(&mut self) {
        self.had.values_mut().for_each(|had| *had = 0);
    }

    /// Series, time, and by start whether it has it and leaves it.
    pub(super) fn each(self, starts: usize, mut visit: impl FnMut(u32, i64, &[[bool; 2]])) {
        let mut by_start = vec![[false; 2]; starts];
        for ((series, time), had) in self.had {
            if had & Self::COUNTS == 0 {
                continue;
            }
            for (start, has) in by_start.iter_mut().enumerate() {
                *has = [had >> (2 * start) & 1 == 1, had >> (2 * start + 1) & 1 == 1];
            }
            visit(series, time, &by_start);
        }
    }
}
