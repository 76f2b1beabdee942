//! Entries that a repair drops although they can be read: their refs mean other series now.

use std::fs::File;

use super::records::{RecordSink, read_repaired};
use super::rules::SegmentRules;
use crate::change::plan::Loss;
use crate::record::{RecordType, Selected};
use crate::scan::deletions::DeletionsLost;

/// What goes of a segment besides what is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::repair) struct DroppedEntries<'a> {
    rules: SegmentRules<'a>,
    /// Records of which something stays.
    pub(in crate::repair) kept: u64,
    /// Records that go whole.
    records: u64,
    /// Entries that go.
    pub(in crate::repair) entries: u64,
    /// Whether there are deletions among them.
    deletions: DeletionsLost,
}

impl RecordSink for DroppedEntries<'_> {
    fn record(&mut self, record: &[u8]) {
        let selected = self.rules.select(record);
        self.entries += selected.dropped();
        if selected.dropped() > 0 && RecordType::of(record) == Some(RecordType::Tombstones) {
            // What they deleted may be of a series that keeps its ref elsewhere.
            self.deletions = DeletionsLost::Possible;
        }
        let goes = matches!(selected, Selected::Nothing { .. });
        *(if goes { &mut self.records } else { &mut self.kept }) += 1;
    }
}

impl<'a> DroppedEntries<'a> {
    /// In the first `length` bytes of `source`.
    pub(in crate::repair) fn of(source: &File, length: u64, rules: SegmentRules<'a>) -> Self {
        let new = || Self { rules, ..Self::default() };
        if rules.refs_up_to.is_none() { new() } else { read_repaired(source, length, rules, new) }
    }

    /// What is lost so.
    pub(in crate::repair) fn lost(self) -> Loss {
        Loss::new(Some(self.records), Some(self.entries)).with(self.deletions)
    }
}
