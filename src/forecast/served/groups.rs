//! Head chunks, and what the logs have of them.

use super::tables::NONE;
use crate::forecast::HeadChunks;
use crate::forecast::head_chunks::Stock;

/// The head chunks of one ref.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) series_ref: u32,
    /// In order, in files that are kept.
    kept: Pile,
    /// In order, in files that a start deletes: one by one, by time.
    deleted: Vec<Pile>,
    /// Out of order, in files that are kept, and in files that a start deletes.
    pub(super) late: [Stock; 2],
    /// Samples in the WBL.
    pub(super) in_wbl: u64,
    /// Times in `kept` that no chunk has, see `OfSeries::gaps`; by their beginnings.
    gaps: Vec<(i64, i64)>,
    /// The place of its first pile among all.
    pub(super) first_place: usize,
}

/// Head chunks in order, and what the WAL has of them.
#[derive(Debug)]
pub(super) struct Pile {
    pub(super) stock: Stock,
    /// How many samples, and the time of the first.
    pub(super) in_wal: u64,
    pub(super) first_in_wal: i64,
}

impl Pile {
    fn new(stock: Stock) -> Self {
        Self { stock, in_wal: 0, first_in_wal: i64::MAX }
    }
}

/// A pile of a group: 0 for what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cover {
    pub(super) group: u32,
    pub(super) pile: usize,
}

/// In which pile samples of a stretch of time are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Throughout {
    /// All of them in that one.
    In(usize),
    /// None of them in any.
    Nowhere,
    /// Not the same for all of them.
    Differs,
}

impl Group {
    pub(super) fn piles(&self) -> impl Iterator<Item = &Pile> {
        [&self.kept].into_iter().chain(&self.deleted)
    }

    pub(super) fn places(&self) -> std::ops::Range<usize> {
        self.first_place..self.first_place + 1 + self.deleted.len()
    }

    /// The pile in which a sample of that time is.
    pub(super) fn find(&self, time: i64) -> Option<usize> {
        if self.kept.stock.covers(time) {
            let behind = self.gaps.partition_point(|&(from, _)| from < time);
            let gap = behind.checked_sub(1).and_then(|at| self.gaps.get(at));
            return gap.is_none_or(|&(_, to)| time >= to).then_some(0);
        }
        let at = self.deleted.partition_point(|pile| pile.stock.max_time < time);
        self.deleted.get(at).filter(|pile| pile.stock.covers(time)).map(|_| at + 1)
    }

    /// As [`Self::find`] for all times from the one to the other.
    pub(super) fn find_all(&self, first: i64, last: i64) -> Throughout {
        let found = self.find(first);
        let within = |min: i64, max: i64| min <= last && first <= max;
        let is_same = self.find(last) == found
            && match found {
                Some(0) => !self.gaps.iter().any(|&(from, to)| within(from, to)),
                // One chunk, as long as the kept ones do not overlap it.
                Some(_) => !self.kept.stock.overlaps(first, last),
                None => !self.piles().any(|pile| pile.stock.overlaps(first, last)),
            };
        match found {
            _ if !is_same => Throughout::Differs,
            Some(pile) => Throughout::In(pile),
            None => Throughout::Nowhere,
        }
    }

    /// The WAL has so many samples of a pile, the first of that time.
    pub(super) fn in_wal(&mut self, pile: usize, samples: u64, first: i64) {
        let deleted = pile.checked_sub(1).and_then(|at| self.deleted.get_mut(at));
        let pile = deleted.unwrap_or(&mut self.kept);
        pile.in_wal += samples;
        pile.first_in_wal = pile.first_in_wal.min(first);
    }

    /// The time of the last sample in order.
    pub(super) fn last_time(&self, with_deleted: bool) -> i64 {
        let deleted = self.deleted.last().filter(|_| with_deleted);
        deleted.unwrap_or(&self.kept).stock.max_time
    }
}

/// The groups, and what becomes of them where a series is recorded under another ref.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    pub(super) read: &'a HeadChunks,
    pub(super) groups: Vec<Group>,
    /// Piles of all groups together.
    pub(super) places: usize,
    /// By ref.
    pub(super) group: Vec<u32>,
    pub(super) are_merged: bool,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(read: &'a HeadChunks, are_merged: bool) -> Self {
        Self { read, groups: Vec::new(), places: 0, group: Vec::new(), are_merged }
    }

    /// One more ref.
    pub(super) fn add_ref(&mut self, number: u64) {
        let series_ref = u32::try_from(self.group.len()).unwrap_or(NONE);
        let Some(of_series) = self.read.of_series.get(&number) else {
            self.group.push(NONE);
            return;
        };
        let deleted = of_series.deleted.as_deref();
        let group = Group {
            series_ref,
            kept: Pile::new(of_series.kept),
            deleted: deleted
                .into_iter()
                .flat_map(|deleted| &deleted.in_order)
                .copied()
                .map(Pile::new)
                .collect(),
            late: [of_series.kept_late, deleted.map_or_else(Stock::default, |deleted| deleted.late)],
            in_wbl: 0,
            gaps: of_series.gaps.clone(),
            first_place: self.places,
        };
        self.places = group.places().end;
        self.group.push(u32::try_from(self.groups.len()).unwrap_or(NONE));
        self.groups.push(group);
    }
}

/// The groups that a series has: nearly always one.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    first: u32,
    #[expect(
        clippy::box_collection,
        reason = "8 bytes: there is one for each series and start, nearly always empty"
    )]
    more: Option<Box<Vec<u32>>>,
}

impl Attached {
    /// More refs than that for one series are nobody's.
    const MOST: usize = 64;

    pub(super) fn none() -> Self {
        Self { first: NONE, more: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub(super) fn each(&self) -> impl Iterator<Item = u32> {
        let first = Some(self.first).filter(|&first| first != NONE);
        first.into_iter().chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }

    pub(super) fn add(&mut self, group: u32) {
        if group == NONE || self.each().any(|other| other == group) {
            return;
        }
        if self.first == NONE {
            self.first = group;
            return;
        }
        let more = self.more.get_or_insert_default();
        if more.len() == Self::MOST {
            more.remove(0);
        }
        more.push(group);
    }

    pub(super) fn set(&mut self, group: u32) {
        *self = Self { first: group, ..Self::none() };
    }
}
