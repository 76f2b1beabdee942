//! How often entries use each ref, and from when to when.

use foldhash::HashMap;

/// Refs of which note is taken, at the most. Each takes about 70 bytes.
pub(super) const MOST: usize = 1 << 23;

/// What uses a ref.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    pub(super) series_ref: u64,
    /// Samples and histograms.
    pub(super) samples: u64,
    /// Exemplars, tombstones, metadata, mmap markers.
    pub(super) others: u64,
    /// The times of the first and the last of the samples, ms.
    min_time: i64,
    max_time: i64,
}

impl Use {
    fn nothing(series_ref: u64) -> Self {
        Self { series_ref, samples: 0, others: 0, min_time: i64::MAX, max_time: i64::MIN }
    }

    /// From when to when samples are, ms.
    pub(super) fn times(&self) -> Option<(i64, i64)> {
        (self.samples > 0).then_some((self.min_time, self.max_time))
    }
}

/// By ref.
#[derive(Debug, Default)]
pub(super) struct Uses {
    /// In the order in which they came first: scrapes have them in that order again and again.
    by_place: Vec<Use>,
    /// Where each is.
    places: HashMap<u64, usize>,
    /// The place that was asked for last.
    last: usize,
    /// There are more than [`MOST`].
    pub(super) too_many: bool,
}

impl Uses {
    /// Samples at that time of `count` series whose refs follow one another, and do not wrap around.
    pub(super) fn samples(&mut self, first: u64, count: u64, time: i64) {
        for i in 0..count {
            let Some(used) = self.of(first + i) else { return };
            used.samples += 1;
            used.min_time = used.min_time.min(time);
            used.max_time = used.max_time.max(time);
        }
    }

    /// Something else about that series.
    pub(super) fn other(&mut self, series_ref: u64) {
        if let Some(used) = self.of(series_ref) {
            used.others += 1;
        }
    }

    /// What has used a ref up to here is of no account.
    pub(super) fn forget(&mut self, series_ref: u64) {
        if let Some(&place) = self.places.get(&series_ref) {
            self.by_place[place] = Use::nothing(series_ref);
        }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &Use> {
        self.by_place.iter().filter(|used| (used.samples, used.others) != (0, 0))
    }

    fn of(&mut self, series_ref: u64) -> Option<&mut Use> {
        let next = self.last + 1;
        self.last = if self.by_place.get(next).is_some_and(|used| used.series_ref == series_ref) {
            next
        } else {
            self.find(series_ref)?
        };
        self.by_place.get_mut(self.last)
    }

    fn find(&mut self, series_ref: u64) -> Option<usize> {
        if let Some(&place) = self.places.get(&series_ref) {
            return Some(place);
        }
        let place = self.by_place.len();
        if place == MOST {
            self.too_many = true;
            return None;
        }
        self.by_place.push(Use::nothing(series_ref));
        self.places.insert(series_ref, place);
        Some(place)
    }
}
