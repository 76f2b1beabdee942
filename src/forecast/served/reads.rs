//! What each head reads.

use super::{StartReads, Stretch};
use crate::forecast::Version;
use crate::record::{EntryKind, RecordType};
use crate::tsdb::{Listing, LogKind};

/// Which heads read a segment.
#[derive(Debug)]
pub(super) struct Reads {
    /// Whether it is one of the WBL.
    pub(super) late: bool,
    /// What the ideal heads take no sample from that is as late as this, ms.
    pub(super) before: i64,
    /// How far each start replays it, and what it leaves of it.
    pub(super) starts: Vec<(Extent, Extent)>,
}

impl Reads {
    /// Whether a start of that version looks into such a record.
    pub(super) fn knows(&self, record_type: RecordType, version: Version) -> bool {
        let is_read = match record_type.kind() {
            EntryKind::Samples => true,
            EntryKind::Series | EntryKind::Tombstones => !self.late,
            EntryKind::MmapMarkers => self.late,
            EntryKind::Exemplars | EntryKind::Metadata | EntryKind::MinValidTime => false,
            EntryKind::Histograms | EntryKind::FloatHistograms => {
                !self.late || version.replays_wbl_histograms()
            }
        };
        is_read && version.knows(record_type)
    }
}

/// How much of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Nothing,
    /// Records that Prometheus's reader has, as far as they end at or before this offset.
    Upto(u64),
    All,
    /// Nothing, since a chunk snapshot stands for it.
    Skipped,
    /// What comes after that offset, up to another.
    Behind {
        offset: u64,
        upto: Option<u64>,
    },
}

impl Extent {
    /// Whether a chunk snapshot stands for a record that ends there.
    pub(super) fn skips(self, end: u64) -> bool {
        match self {
            Self::Skipped => true,
            Self::Behind { offset, .. } => end <= offset,
            _ => false,
        }
    }

    pub(super) fn has(self, end: u64, is_replayed: bool) -> bool {
        match self {
            Self::Nothing | Self::Skipped => false,
            Self::Behind { offset, upto } => {
                end > offset && upto.is_none_or(|upto| is_replayed && end <= upto)
            }
            Self::Upto(offset) => is_replayed && end <= offset,
            Self::All => true,
        }
    }
}

/// How far a start replays a segment, and what it leaves of it.
pub(super) fn extents(listing: &Listing, start: &StartReads, log: usize, segment: usize) -> (Extent, Extent) {
    let extent = |stretches: &[Stretch]| {
        let here = stretches.iter().find(|stretch| (stretch.log, stretch.segment) == (log, segment));
        here.map_or(Extent::Nothing, |stretch| stretch.upto.map_or(Extent::All, Extent::Upto))
    };
    let replayed = extent(&start.replayed);
    let Some(snapshot) = start.snapshot.filter(|_| replayed != Extent::Nothing) else {
        return (replayed, extent(&start.left));
    };
    let directory = &listing.logs[log];
    let skips = match directory.kind {
        LogKind::Wal => directory.segments[segment].index < snapshot.index,
        LogKind::Checkpoint => directory.checkpoint_number().is_some_and(|number| number < snapshot.index),
        LogKind::Wbl | LogKind::ChunkSnapshot => false,
    };
    let is_cut = directory.kind == LogKind::Wal && directory.segments[segment].index == snapshot.index;
    let upto = match replayed {
        Extent::Upto(upto) => Some(upto),
        _ => None,
    };
    let replayed = match (skips, is_cut) {
        (true, _) => Extent::Skipped,
        (false, true) => Extent::Behind { offset: snapshot.offset, upto },
        (false, false) => replayed,
    };
    (replayed, extent(&start.left))
}

/// What each start does with the record at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// By start: whether it replays it, and whether it leaves it.
    pub(super) takes: Vec<(bool, bool)>,
    /// By start: whether it does not read it, since it has loaded a chunk snapshot.
    pub(super) skips: Vec<bool>,
    /// By start: whether it comes to it, and its version cannot read it.
    pub(super) passes_over: Vec<bool>,
}

impl Turns {
    /// For a record that ends at `end`, which the salvage reader has; Prometheus's reader has it too, or not, and a start of the
    /// assumed version looks into it, or not.
    pub(super) fn salvaged(&mut self, reads: &Reads, end: u64, is_replayed: bool, is_known: bool) {
        self.clear();
        let is_read = is_replayed && is_known;
        for (replayed, left) in &reads.starts {
            self.takes.push((is_read && replayed.has(end, true), left.has(end, is_replayed)));
            self.skips.push(is_known && replayed.skips(end));
            self.passes_over.push(!is_read && replayed.has(end, true));
        }
    }

    /// For a record that only Prometheus's reader has.
    pub(super) fn only_replayed(&mut self, reads: &Reads, end: u64) {
        self.clear();
        for (replayed, _) in &reads.starts {
            self.takes.push((replayed.has(end, true), false));
            self.skips.push(false);
            self.passes_over.push(false);
        }
    }

    fn clear(&mut self) {
        self.takes.clear();
        self.skips.clear();
        self.passes_over.clear();
    }
}
