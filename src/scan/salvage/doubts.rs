//! What a first reading leaves open.

use std::collections::HashSet;
use std::ops::Range;

use super::found::Problem;
use crate::record::Summary;
use crate::scan::context::{self, Suspicion};
use crate::scan::misplaced::out_of_step::reads_out_of_step;
use crate::wal::layout::page_start;
use crate::wal::{Compression, Damage, Fault, PAGE, Record};

/// What a first reading leaves open.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// A bit that could be flipped back.
    pub(super) corrections: bool,
    /// Pages, by their number, that may not be where they were written: records do not continue from them to the next.
    pub(super) suspects: HashSet<u64>,
    /// Records, by their offset, that read as if a page did not belong to them.
    odd: HashSet<u64>,
    /// Records that start and never continue.
    unfinished: Vec<Range<u64>>,
    /// Fragments that do not fit as they are, and lead to nothing under another type.
    pub(super) taken_as_they_are: HashSet<u64>,
    /// The last joined record of a type that nobody knows.
    unproven: Option<Range<u64>>,
}

impl Doubts {
    pub(super) fn any(&self) -> bool {
        self.corrections || !self.suspects.is_empty() || !self.odd.is_empty()
    }

    /// Whether there may be records that they concern.
    pub(super) fn concern_records(&self) -> bool {
        !(self.suspects.is_empty() && self.odd.is_empty() && self.taken_as_they_are.is_empty())
    }

    /// Whether that record was joined across the edge of a suspect page, or reads as if, and nothing within it
    /// proves it.
    pub(super) fn concern(&self, record: &Record<'_>) -> Option<Suspicion> {
        let suspect = |fragment: &Range<u64>| self.suspects.contains(&(fragment.start / PAGE));
        if self.taken_as_they_are.contains(&record.offset) {
            return Some(Suspicion::Pages);
        }
        if !(record.is_joined() || record.in_copy) || record.has_own_checksum {
            None
        } else if record.fragments.iter().any(suspect) {
            Some(Suspicion::Pages)
        } else {
            self.odd.contains(&record.offset).then_some(Suspicion::Contents)
        }
    }

    /// What a record shows that is taken as it is, or is a problem of its own.
    pub(super) fn look_at(&mut self, record: &Record<'_>, summary: &Summary, problem: Option<&Problem>) {
        if problem.is_some_and(|problem| !problem.glued.is_empty()) {
            // Its fragments are intact and decode to the end: nothing is in doubt.
            return;
        }
        self.corrections |= problem.is_some() && record.compression == Compression::None;
        if record.is_joined() && summary.record_type.is_none() && !record.has_own_checksum {
            self.unproven = Some(record.offset..record.end);
        }
        if record.is_joined() && summary.error.is_some() {
            self.suspect(&(record.offset..record.end));
        } else if record.is_joined() && !looks_sane(record, summary) {
            self.odd.insert(record.offset);
        }
    }

    /// All has been read; the last intact record ends at `tail`. A record that starts there was cut off by a crash, and is
    /// no sign of pages in the wrong place but for a record that has nothing at all to show for itself.
    pub(super) fn finish(&mut self, tail: u64) {
        for range in std::mem::take(&mut self.unfinished) {
            let unproven = self.unproven.as_ref().is_some_and(|record| record.end > page_start(range.start));
            if range.start < tail || unproven {
                self.suspect(&(range.start..range.end + 1));
            }
        }
    }

    fn suspect(&mut self, range: &Range<u64>) {
        self.suspects.extend(range.start / PAGE..=range.end.saturating_sub(1) / PAGE);
    }

    /// Faults that pages in the wrong place make.
    pub(super) fn learn(&mut self, damage: &Damage) {
        let page = damage.range.start / PAGE;
        match damage.fault {
            Fault::Unfinished => self.unfinished.push(damage.range.clone()),
            // A padded page is the last of its segment.
            Fault::ZeroedTail => self.suspect(&(damage.range.start..damage.range.end + 1)),
            Fault::Headless => self.suspect(&(damage.range.start.saturating_sub(1)..damage.range.end)),
            Fault::Type(_) => {
                self.suspect(&(damage.range.start.saturating_sub(PAGE)..damage.range.end + PAGE));
            }
            Fault::Unpack(_) => self.suspect(&damage.range),
            Fault::DuplicatedPage { original } => {
                let pages = (damage.range.end - damage.range.start).div_ceil(PAGE);
                self.suspects.extend(page..page + pages);
                self.suspects.extend(original / PAGE..original / PAGE + pages);
            }
            _ => {}
        }
    }
}

/// Whether a joined record that decodes is free of what only bytes read out of step contain: refs beyond what any
/// server hands out, times that lie years apart, schemas that do not exist.
pub(in crate::scan) fn looks_sane(record: &Record<'_>, summary: &Summary) -> bool {
    const HIGHEST_REF: u64 = 1 << 40;
    const YEAR: u64 = 365 * 24 * 60 * 60 * 1000;
    if record.has_own_checksum {
        return true;
    }
    summary.max_ref.is_none_or(|max| max < HIGHEST_REF)
        && summary.min_time.zip(summary.max_time).is_none_or(|(min, max)| max.abs_diff(min) < YEAR)
        && summary.unknown_schemas == 0
        && !summary.overlong
        && !(summary.falls > 0
            && (context::pages_are_exchanged(record) || reads_out_of_step(record, summary)))
}
