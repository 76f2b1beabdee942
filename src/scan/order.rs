//! What Prometheus replays, and in which order: the last checkpoint, the segments above its number, then the WBL
//! (`tsdb/head.go`, `Head.Init`; an agent the same without a WBL, `tsdb/agent/db.go`, `replayWAL`).

use super::report::Dialect;
use crate::record::{RecordType, ReplayedFrom};
use crate::tsdb::{Listing, LogKind};
use crate::wal::segments::SegmentFile;

/// What a segment is to a replay. In the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// In the last checkpoint.
    Checkpoint,
    /// In the WAL, with a number that the last checkpoint covers: passed over.
    Below,
    /// In the WAL.
    Wal,
    /// In the WBL.
    Wbl,
    /// No part of it: an older checkpoint, a chunk snapshot, one segment alone, or Loki's.
    Beside,
}

impl Role {
    pub(super) fn is_replayed(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Wal | Self::Wbl)
    }

    /// Whether records of that type mean something to a replay of such a segment (`tsdb/head_wal.go`, `loadWAL`,
    /// `loadWBL`).
    pub(super) fn replays(self, record_type: Option<RecordType>) -> bool {
        match record_type.map(|record_type| record_type.kind().replayed_from()) {
            None | Some(ReplayedFrom::Nowhere) => false,
            Some(ReplayedFrom::Wbl) => self == Self::Wbl,
            Some(ReplayedFrom::Wal) => self != Self::Wbl,
            Some(ReplayedFrom::WalAndWbl) => true,
        }
    }
}

/// The logs that belong together, by their positions in a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) checkpoint: Option<usize>,
    /// The number of that checkpoint; none if it was given by its own path.
    pub(super) number: Option<i64>,
    pub(super) wal: Option<usize>,
    pub(super) wbl: Option<usize>,
}

/// One segment of a listing, by positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) role: Role,
    pub(super) log: usize,
    pub(super) segment: usize,
}

impl Order {
    pub(super) fn of(listing: &Listing, dialects: &[Dialect]) -> Self {
        // Loki reads its logs by rules of its own.
        let foreign = dialects.contains(&Dialect::Loki);
        if listing.alone || foreign {
            return Self::default();
        }
        let of_kind = |kind| listing.logs.iter().position(|log| log.kind == kind);
        let last = listing.last_checkpoint();
        let wal = of_kind(LogKind::Wal);
        Self {
            checkpoint: last.map(|(at, _)| at).or_else(|| of_kind(LogKind::Checkpoint)),
            number: last.map(|(_, number)| number),
            wal,
            // Given by its own path it says nothing of series: they are defined elsewhere.
            wbl: of_kind(LogKind::Wbl).filter(|&at| !listing.logs[at].relative.is_empty()),
        }
    }

    fn role(&self, log: usize, index: i64) -> Role {
        if self.checkpoint == Some(log) {
            Role::Checkpoint
        } else if self.wal == Some(log) && self.number.is_some_and(|number| index <= number) {
            Role::Below
        } else if self.wal == Some(log) {
            Role::Wal
        } else if self.wbl == Some(log) {
            Role::Wbl
        } else {
            Role::Beside
        }
    }

    /// All segments of the listing.
    pub(super) fn steps(&self, listing: &Listing) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for (log, directory) in listing.logs.iter().enumerate() {
            let mut segment = 0;
            for namesakes in directory.segments.chunk_by(|a, b| a.index == b.index) {
                // Of two with one number a replay opens the one that is named as it should be.
                let opened = namesakes.iter().position(SegmentFile::has_canonical_name);
                for (at, file) in namesakes.iter().enumerate() {
                    let is_other = opened.is_some_and(|opened| opened != at);
                    let role = if is_other { Role::Beside } else { self.role(log, file.index) };
                    steps.push(Step { role, log, segment });
                    segment += 1;
                }
            }
        }
        steps.sort();
        steps
    }
}
