//! How many samples, and when.

use std::num::NonZeroU32;

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

/// A [`Tally`] in 16 bytes: there are several for each series.
#[derive(Debug)]
pub(super) enum SmallTally {
    /// Samples that all lie within 49 days.
    Near { min_time: i64, span: u32, samples: NonZeroU32 },
    /// Nothing, or what does not fit.
    Other(Option<Box<Tally>>),
}

impl SmallTally {
    pub(super) const NOTHING: Self = Self::Other(None);

    pub(super) fn tally(&self) -> Tally {
        match self {
            &Self::Near { min_time, span, samples } => {
                let max_time = min_time.saturating_add(i64::from(span));
                Tally { samples: u64::from(samples.get()), min_time, max_time }
            }
            Self::Other(None) => Tally::NOTHING,
            Self::Other(Some(tally)) => **tally,
        }
    }

    pub(super) fn add(&mut self, time: i64) {
        self.join(&Tally::one(time));
    }

    pub(super) fn join(&mut self, other: &Tally) {
        if other.samples > 0 {
            let mut tally = self.tally();
            tally.join(other);
            *self = Self::of(&tally);
        }
    }

    fn of(tally: &Tally) -> Self {
        let &Tally { samples, min_time, max_time } = tally;
        let small = u32::try_from(samples).ok().zip(u32::try_from(max_time.abs_diff(min_time)).ok());
        match small {
            Some((samples, span)) if min_time <= max_time => NonZeroU32::new(samples)
                .map_or(Self::NOTHING, |samples| Self::Near { min_time, span, samples }),
            _ => Self::Other((samples > 0).then(|| Box::new(*tally))),
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

#[cfg(test)]
mod tests {
    use super::{SmallTally, Tally};

    #[test]
    fn a_small_one_is_small_and_loses_nothing() {
        assert_eq!(size_of::<SmallTally>(), 16);
        let times = [5, 7, -3, 5_000_000_000, i64::MAX, i64::MIN, 0];
        let (mut small, mut tally) = (SmallTally::NOTHING, Tally::NOTHING);
        let mut agree = |joined: &Tally| {
            small.join(joined);
            tally.join(joined);
            let same = small.tally();
            let fields = |tally: Tally| (tally.samples, tally.min_time, tally.max_time);
            assert_eq!(fields(same), fields(tally), "{joined:?}");
        };
        agree(&Tally { samples: 0, min_time: 1, max_time: 2 });
        for time in times {
            agree(&Tally::one(time));
        }
        agree(&Tally { samples: u64::from(u32::MAX), min_time: 1, max_time: 2 });
    }
}
