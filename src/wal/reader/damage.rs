//! Collects damage, and what is lost with it.

use std::ops::Range;

use super::SegmentReader;
use super::joining::OpenRecord;
use crate::wal::layout::PAGE;
use crate::wal::source::ReadAt;
use crate::wal::{Damage, Fault};

impl<S: ReadAt> SegmentReader<S> {
    /// What the medium did not give before `end` and no damaged fragment has reported: within a record that is intact
    /// all the same, since there are zeros.
    pub(super) fn report_unreadable(&mut self, end: u64) {
        if let Some((bad, error)) = self.unreadable_in(&(self.unreadable_reported..end)) {
            for hole in bad {
                self.damage(hole, Fault::Unreadable(error.clone()));
            }
        }
        self.unreadable_reported = self.unreadable_reported.max(end);
    }

    pub(super) fn unreadable_in(&self, range: &Range<u64>) -> Option<(Vec<Range<u64>>, String)> {
        let error = self.window.read_error()?;
        let bad: Vec<_> = self
            .window
            .unreadable()
            .iter()
            .map(|bad| bad.start.max(range.start)..bad.end.min(range.end))
            .filter(|bad| bad.start < bad.end)
            .collect();
        (!bad.is_empty()).then(|| (bad, error.to_owned()))
    }

    /// A damaged fragment with unreadable bytes in it: these are the damage, the rest of it goes with them.
    pub(super) fn unreadable_piece(&mut self, range: &Range<u64>, bad: &[Range<u64>], error: &str) {
        // What is open continues in this fragment, wherever in it the first hole is.
        let mut started = match self.open.take() {
            Some(open)
                if open.flipped.is_none() && open.fragments.last().is_some_and(|p| p.end == range.start) =>
            {
                open.fragments
            }
            open => {
                self.open = open;
                Vec::new()
            }
        };
        let mut from = range.start;
        for hole in bad {
            match std::mem::take(&mut started) {
                none if none.is_empty() => self.damage(hole.clone(), Fault::Unreadable(error.to_owned())),
                orphans => self.damage_with(hole.clone(), Fault::Unreadable(error.to_owned()), orphans),
            }
            if from < hole.start {
                self.orphan(from..hole.start);
            }
            from = hole.end;
        }
        if from < range.end {
            self.orphan(from..range.end);
        }
        self.unreadable_reported = range.end;
    }

    /// `range` is damaged; an open record that would have continued there is lost with it.
    pub(super) fn damage(&mut self, range: Range<u64>, fault: Fault) {
        let goes_with = |open: &OpenRecord| {
            open.flipped.is_none()
                && open.fragments.last().is_some_and(|last| last.end == range.start)
                && !matches!(fault, Fault::Unfinished | Fault::DuplicatedPage { .. })
        };
        if matches!(fault, Fault::DuplicatedPage { .. }) {
            self.damage_with(range, fault, Vec::new());
            return;
        }
        let orphans = match self.open.take() {
            Some(open) if goes_with(&open) => open.fragments,
            Some(open) => {
                self.open = Some(open);
                self.abandon_open();
                Vec::new()
            }
            None => Vec::new(),
        };
        self.damage_with(range, fault, orphans);
    }

    pub(super) fn damage_with(&mut self, range: Range<u64>, fault: Fault, orphans: Vec<Range<u64>>) {
        self.after_damage = true;
        if let Some(pending) = &mut self.pending
            && pending.correction.is_none()
            && orphans.is_empty()
            && continues_damage(pending, &range, &fault)
        {
            pending.range.end = range.end;
            pending.places += 1;
            return;
        }
        self.flush_pending();
        self.pending = Some(Damage { range, fault, orphans, correction: None, places: 1 });
    }

    pub(super) fn orphan(&mut self, range: Range<u64>) {
        match &mut self.pending {
            Some(pending) => pending.orphans.push(range),
            None => self.damage(range, Fault::Headless),
        }
        self.after_damage = true;
    }

    pub(super) fn flush_pending(&mut self) {
        self.ready.extend(self.pending.take());
    }
}

/// The same trouble, right after the last: one damage. Pages of which each is damaged from its beginning to its end are
/// one stretch, whatever is wrong with the bytes at the beginning of each.
fn continues_damage(last: &Damage, range: &Range<u64>, fault: &Fault) -> bool {
    if last.range.end != range.start || !last.orphans.is_empty() {
        return false;
    }
    let overwritten = |fault: &Fault| {
        matches!(fault, Fault::Checksum { .. } | Fault::Length(_) | Fault::JunkInPadding | Fault::Torn)
    };
    match (&last.fault, fault) {
        (Fault::Unreadable(a), Fault::Unreadable(b)) => a == b,
        (Fault::Headless, Fault::Headless) => true,
        (Fault::DuplicatedPage { original }, Fault::DuplicatedPage { original: next }) => {
            *original + (last.range.end - last.range.start) == *next
        }
        (a, b) => overwritten(a) && overwritten(b) && range.start.is_multiple_of(PAGE),
    }
}
