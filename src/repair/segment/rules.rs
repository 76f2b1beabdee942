//! How the records of a segment are read for a repair.

use std::fs::File;

use super::bytes::SegmentBytes;
use crate::change::plan::Change;
use crate::record::{Selected, select};
use crate::scan::Scan;
use crate::scan::salvage::{Reading, Salvage, Visitor};
use crate::scan::settled::Settlements;
use crate::tsdb::Version;
use crate::wal::Corrections;
use crate::wal::arranged::{Arranged, Place};

/// How the records of a segment are read, and which of them stay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::repair) struct SegmentRules<'a> {
    /// The version of the agent that is to read it, if one is.
    pub(in crate::repair) agent: Option<Version>,
    /// Which flipped bits are corrected.
    pub(in crate::repair) corrections: Corrections,
    /// Only entries of refs up to this one stay.
    pub(in crate::repair) refs_up_to: Option<u64>,
    /// What a scan has settled.
    pub(in crate::repair) settled: &'a Settlements,
    /// What is in the place of each page, if not its own do in their order.
    pub(in crate::repair) places: Option<&'a [Place]>,
}

impl<'a> SegmentRules<'a> {
    /// The first `length` bytes of `source` as they are to be read, and how many these are.
    pub(in crate::repair) fn bytes(self, source: &'a File, length: u64) -> (SegmentBytes<'a>, u64) {
        match self.places {
            None => (SegmentBytes::File(source), length),
            Some(places) => {
                let arranged = Arranged::new(source, length, places);
                let length = arranged.length();
                (SegmentBytes::Arranged(arranged), length)
            }
        }
    }

    /// Reads the first `length` bytes of `source`.
    pub(super) fn salvage<V: Visitor>(self, source: &File, length: u64, new: impl Fn() -> V) -> V {
        match self.places {
            None => self.settled.segment(source, length, self.corrections).read(new),
            Some(places) => {
                let arranged = Arranged::new(source, length, places);
                let length = arranged.length();
                Salvage::new(&arranged, length, Reading::Prometheus).correcting(self.corrections).read(new)
            }
        }
    }

    /// How the bytes of a segment are made that is rewritten, but for its [`places`].
    pub(super) fn of_change(change: &Change, settled: &'a Settlements) -> Self {
        match change {
            Change::Rewrite { agent, corrections, refs_up_to, .. } => Self {
                agent: *agent,
                corrections: *corrections,
                refs_up_to: *refs_up_to,
                settled,
                places: None,
            },
            _ => Self { settled, ..Self::default() },
        }
    }

    /// As a server is to read it, with what `report` has settled.
    pub(in crate::repair) fn of(report: &'a Scan) -> Self {
        Self { settled: &report.settled, ..Self::default() }
    }

    /// What stays of a record.
    pub(in crate::repair) fn select(self, record: &[u8]) -> Selected {
        self.refs_up_to.map_or(Selected::All, |most| select(record, |series_ref| series_ref <= most))
    }
}
