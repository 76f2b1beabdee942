//! What each head reads.

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

/// How much of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Nothing,
    /// Records that Prometheus's reader has, as far as they end at or before this offset.
    Upto(u64),
    All,
    /// Nothing, since a chunk snapshot stands for it.
    Skipped,
    /// What stands behind that, up to an offset.
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
