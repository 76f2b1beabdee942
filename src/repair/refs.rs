//! The highest refs that series records define and that anything else names.

use crate::record::{RecordType, each_use};
use crate::scan::report::Report;

/// The highest refs of series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RefBounds {
    /// Of those that a series record defines which stays.
    pub(super) defined: Option<u64>,
    /// Of others that are seen anywhere.
    pub(super) used: Option<u64>,
}

impl RefBounds {
    /// Of what a scan has read.
    pub(super) fn in_logs(report: &Report) -> Self {
        Self { defined: report.refs.defined, used: report.refs.unknown }
    }

    /// Of a record that stays.
    pub(super) fn learn(&mut self, record: &[u8]) {
        let is_series = RecordType::of(record) == Some(RecordType::Series);
        each_use(record, |now| {
            let highest = if is_series { &mut self.defined } else { &mut self.used };
            *highest = (*highest).max(Some(now.series_ref));
        });
    }

    /// Of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { defined: self.defined.max(other.defined), used: self.used.max(other.used) }
    }
}
