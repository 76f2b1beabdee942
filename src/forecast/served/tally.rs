//! How many samples, and when.

use crate::forecast::report::Samples;

/// An amount of samples of one series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) samples: u64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
}

impl Default for Tally {
    fn default() -> Self {
        Self::NOTHING
    }
}

impl Tally {
    pub(super) const NOTHING: Self = Self { samples: 0, min_time: i64::MAX, max_time: i64::MIN };

    /// One sample.
    pub(super) const fn one(time: i64) -> Self {
        Self { samples: 1, min_time: time, max_time: time }
    }

    pub(super) fn add(&mut self, time: i64) {
        self.samples += 1;
        self.min_time = self.min_time.min(time);
        self.max_time = self.max_time.max(time);
    }

    pub(super) fn join(&mut self, other: &Self) {
        if other.samples > 0 {
            self.samples += other.samples;
            self.min_time = self.min_time.min(other.min_time);
            self.max_time = self.max_time.max(other.max_time);
        }
    }
}

/// Of all series together, but for samples of which neither series nor time are known.
pub(super) fn sum(of_series: impl Iterator<Item = Tally>, but: u64) -> Samples {
    let mut all = Tally::NOTHING;
    let mut series = 0;
    for tally in of_series.filter(|tally| tally.samples > 0) {
        all.join(&tally);
        series += 1;
    }
    let samples = all.samples.saturating_sub(but);
    if samples == 0 {
        return Samples::default();
    }
    Samples { series, samples, min_time: Some(all.min_time), max_time: Some(all.max_time) }
}
