//! The samples of a stretch of the log, a few bytes for each ref: first and last time, and how many.

use std::collections::HashMap;

/// Refs that are kept together: refs that follow one another are used together.
const PAGE: usize = 64;

/// Pages found by their number; beyond that they are found by hash. Refs are counted from 1, so that nearly all are low.
const LOW: usize = 1 << 20;

/// The samples of one ref, in order of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RunOf {
    /// Times, relative to the stretch's base; 0 stands for none.
    first: u32,
    last: u32,
    /// The time before a staleness marker, which is the last.
    before_marker: u32,
    count: u32,
}

impl RunOf {
    /// Bits of `count`: the last sample is a staleness marker; the samples have to be read one by one.
    const MARKED: u32 = 1 << 31;
    const SINGLY: u32 = 1 << 30;
    const MOST: u32 = Self::SINGLY - 1;

    #[inline]
    fn add(&mut self, at: u32) {
        if at > self.last && self.count < Self::MOST {
            if self.count == 0 {
                self.first = at;
            }
            self.last = at;
            self.count += 1;
        } else {
            // Out of order, or after a marker, whose bit makes the count too high.
            self.count |= Self::SINGLY;
        }
    }

    fn add_marker(&mut self, at: u32) {
        let before = self.last;
        self.add(at);
        if self.count & Self::SINGLY == 0 {
            self.before_marker = before;
            self.count |= Self::MARKED;
        }
    }
}

/// A run with its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Samples {
    pub(super) count: u64,
    /// Times of the first and the last, ms.
    pub(super) first: i64,
    pub(super) last: i64,
    /// The time of the last but for a staleness marker; `None` if there is nothing but a marker.
    pub(super) last_counted: Option<i64>,
    /// There is a marker at the end.
    pub(super) is_marked: bool,
}

/// What a ref has in a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfRef {
    /// Each time is later than the one before.
    InOrder(Samples),
    /// They have to be read one by one.
    Singly,
}

/// The samples of a stretch by ref.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The time that 0 stands for, once there is a sample.
    base: Option<i64>,
    pages: Vec<[RunOf; PAGE]>,
    /// By number of a page: its place, counted from 1.
    low: Vec<u32>,
    high: HashMap<u64, u32, foldhash::fast::RandomState>,
    /// The numbers of the pages.
    numbers: Vec<u64>,
}

impl Runs {
    /// Pages for which there is room: 64 MiB.
    const MOST: usize = (64 << 20) / size_of::<[RunOf; PAGE]>();

    pub(super) fn is_empty(&self) -> bool {
        self.base.is_none()
    }

    /// Whether a further record could take too much memory.
    pub(super) fn is_full(&self) -> bool {
        self.pages.len() >= Self::MOST
    }

    /// Samples of `count` refs that follow one another, at one time.
    pub(super) fn add(&mut self, first_ref: u64, count: u64, t: i64, is_marker: bool) {
        let base = *self.base.get_or_insert_with(|| t.saturating_sub(1 << 31));
        // Times that are months apart are read one by one.
        let at = t.checked_sub(base).and_then(|at| u32::try_from(at).ok()).filter(|&at| at > 0);
        let (mut series_ref, mut left) = (first_ref, count);
        while left > 0 {
            let within = usize::try_from(series_ref % PAGE as u64).unwrap_or(0);
            let here = usize::try_from(left).unwrap_or(PAGE).min(PAGE - within);
            let page = self.page(series_ref / PAGE as u64);
            let runs = page.get_mut(within..within + here).unwrap_or_default();
            match at {
                Some(at) if is_marker => runs.iter_mut().for_each(|run| run.add_marker(at)),
                Some(at) => runs.iter_mut().for_each(|run| run.add(at)),
                None => runs.iter_mut().for_each(|run| run.count |= RunOf::SINGLY),
            }
            left -= here as u64;
            series_ref = series_ref.wrapping_add(here as u64);
        }
    }

    fn page(&mut self, number: u64) -> &mut [RunOf; PAGE] {
        let low = usize::try_from(number).ok().filter(|&number| number < LOW);
        let known = match low {
            Some(low) => self.low.get(low).copied().unwrap_or(0),
            None => self.high.get(&number).copied().unwrap_or(0),
        };
        let place = if known == 0 { self.add_page(number, low) } else { known };
        &mut self.pages[place as usize - 1]
    }

    #[cold]
    fn add_page(&mut self, number: u64, low: Option<usize>) -> u32 {
        self.pages.push([RunOf::default(); PAGE]);
        self.numbers.push(number);
        let place = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        match low {
            Some(low) => {
                if self.low.len() <= low {
                    self.low.resize(low + 1, 0);
                }
                self.low[low] = place;
            }
            None => {
                self.high.insert(number, place);
            }
        }
        place
    }

    /// Whether a ref has samples.
    pub(super) fn has(&self, series_ref: u64) -> bool {
        let number = series_ref / PAGE as u64;
        let place = match usize::try_from(number).ok().filter(|&number| number < LOW) {
            Some(low) => self.low.get(low).copied().unwrap_or(0),
            None => self.high.get(&number).copied().unwrap_or(0),
        };
        let within = usize::try_from(series_ref % PAGE as u64).unwrap_or(0);
        place != 0 && self.pages[place as usize - 1][within].count != 0
    }

    /// Every ref that has samples, and what it has.
    pub(super) fn each(&self, mut visit: impl FnMut(u64, OfRef)) {
        let Some(base) = self.base else { return };
        let time = |at: u32| base.saturating_add(i64::from(at));
        for (page, number) in self.pages.iter().zip(&self.numbers) {
            for (run, within) in page.iter().zip(0..) {
                if run.count == 0 {
                    continue;
                }
                let series_ref = number.wrapping_mul(PAGE as u64).wrapping_add(within);
                if run.count & RunOf::SINGLY != 0 {
                    visit(series_ref, OfRef::Singly);
                    continue;
                }
                let is_marked = run.count & RunOf::MARKED != 0;
                let last_counted = if is_marked { run.before_marker } else { run.last };
                let samples = Samples {
                    count: u64::from(run.count & !RunOf::MARKED),
                    first: time(run.first),
                    last: time(run.last),
                    last_counted: (last_counted != 0).then(|| time(last_counted)),
                    is_marked,
                };
                visit(series_ref, OfRef::InOrder(samples));
            }
        }
    }
}
