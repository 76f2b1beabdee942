//! Leaves a part of the segment out that somebody else has read.

use super::SegmentReader;
use crate::wal::layout::page_start;
use crate::wal::source::ReadAt;

impl<S: ReadAt> SegmentReader<S> {
    /// Where the next piece begins.
    pub(in crate::wal) fn at(&self) -> u64 {
        self.at
    }

    /// Whether all has been read.
    pub(in crate::wal) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether a record has just ended, and nothing is open, or yet to be reported.
    pub(in crate::wal) fn is_settled(&self) -> bool {
        self.open.is_none()
            && self.stashed.is_none()
            && self.pending.is_none()
            && self.ready.is_empty()
            && self.zeros.is_none()
            && self.zero_tail.is_none()
            && self.copy_of.is_none()
            && !self.after_damage
            && !self.finished
    }

    /// An intact record begins here, where [`Self::next_before`] has stopped: damage does not go on, and can be reported.
    pub(in crate::wal) fn settle_before_record(&mut self) {
        let page = page_start(self.at);
        if self.entered != Some(page) {
            self.enter_page(page);
        }
        self.report_unreadable(self.at);
        self.settle_zeros();
        self.flush_pending();
        self.after_damage = false;
    }

    /// How many bytes may still be unpacked.
    pub(in crate::wal) fn allowed(&self) -> u64 {
        self.unpacker.allowed()
    }

    /// Reads on behind intact records, the last of which ends at `end`, and which unpack to so many bytes. There is at least one,
    /// and no page of the segment is the same as one that they are in.
    pub(in crate::wal) fn resume(&mut self, end: u64, unpacked: u64) {
        self.at = end;
        self.data_end = end;
        self.unreadable_reported = self.unreadable_reported.max(end);
        self.entered = Some(page_start(end.saturating_sub(1)));
        self.unpacker.allow(self.unpacker.allowed().saturating_sub(unpacked));
    }
}
