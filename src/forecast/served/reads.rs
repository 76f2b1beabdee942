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
}

impl Extent {
    pub(super) fn has(self, end: u64, is_replayed: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Upto(offset) => is_replayed && end <= offset,
            Self::All => true,
        }
    }
}
