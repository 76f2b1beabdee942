//! What Prometheus replays, and in which order: the last checkpoint, the segments above its number, then the WBL
//! (`tsdb/head.go`, `Head.Init`; an agent the same without a WBL, `tsdb/agent/db.go`, `replayWAL`).

use super::{Listing, LogKind};
use crate::record::{RecordType, ReplayedFrom};
use crate::wal::segments::SegmentFile;

/// What a segment is to a replay. In the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// In the last checkpoint.
    Checkpoint,
    /// In the WAL, with a number that the last checkpoint covers: skipped.
    Below,
    /// In the WAL.
    Wal,
    /// In the WBL.
    Wbl,
    /// No part of it: an older checkpoint, a chunk snapshot, one segment alone, or Loki's.
    Beside,
}

impl Role {
    /// Of the segment of the WAL with that number, beside a last checkpoint of that number.
    pub(crate) fn in_wal(index: i64, checkpoint: Option<i64>) -> Self {
        if checkpoint.is_some_and(|number| index <= number) { Self::Below } else { Self::Wal }
    }

    /// Whether a replay reads it.
    pub(crate) fn is_replayed(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Wal | Self::Wbl)
    }

    /// Whether records of that type mean something to a replay of such a segment (`tsdb/head_wal.go`, `loadWAL`,
    /// `loadWBL`).
    pub(crate) fn replays(self, record_type: Option<RecordType>) -> bool {
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
pub(crate) struct ReplayOrder {
    pub(crate) checkpoint: Option<usize>,
    /// The number of that checkpoint; none if it was given by its own path.
    pub(crate) number: Option<i64>,
    pub(crate) wal: Option<usize>,
    pub(crate) wbl: Option<usize>,
}

/// One segment of a listing, by positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplaySegment {
    pub(crate) role: Role,
    pub(crate) log: usize,
    pub(crate) segment: usize,
}

impl ReplayOrder {
    /// Of the logs of a server or an agent.
    pub(crate) fn of(listing: &Listing) -> Self {
        if listing.alone {
            return Self::default();
        }
        let of_kind = |kind| listing.logs.iter().position(|log| log.kind == kind);
        let checkpoint = listing.replayed_checkpoint();
        Self {
            checkpoint,
            number: checkpoint.and_then(|at| listing.logs[at].checkpoint_number()),
            wal: of_kind(LogKind::Wal),
            // Given by its own path it says nothing of series: they are defined elsewhere.
            wbl: of_kind(LogKind::Wbl).filter(|&at| !listing.logs[at].relative.is_empty()),
        }
    }

    fn role(&self, log: usize, index: i64) -> Role {
        if self.checkpoint == Some(log) {
            Role::Checkpoint
        } else if self.wal == Some(log) {
            Role::in_wal(index, self.number)
        } else if self.wbl == Some(log) {
            Role::Wbl
        } else {
            Role::Beside
        }
    }

    /// All segments of the listing, in the order in which they are read.
    pub(crate) fn segments(&self, listing: &Listing) -> Vec<ReplaySegment> {
        let mut all: Vec<ReplaySegment> = Vec::new();
        for (log, directory) in listing.logs.iter().enumerate() {
            let mut segment = 0;
            for namesakes in directory.segments.chunk_by(|a, b| a.index == b.index) {
                // Of two with one number a replay opens the one that is named as it should be.
                let opened = namesakes.iter().position(SegmentFile::has_canonical_name);
                for (at, file) in namesakes.iter().enumerate() {
                    let is_other = opened.is_some_and(|opened| opened != at);
                    let role = if is_other { Role::Beside } else { self.role(log, file.index) };
                    all.push(ReplaySegment { role, log, segment });
                    segment += 1;
                }
            }
        }
        all.sort();
        all
    }
}
