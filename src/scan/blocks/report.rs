//! What a scan says of a block that is nothing wrong with.

use serde::Serialize;

use super::consequences::Consequence;

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// The directory's name.
    pub ulid: String,
    /// What becomes of it.
    pub state: BlockState,
    /// Of its index, chunks and tombstones; 0 if it cannot be opened.
    pub bytes: u64,
    /// Samples from this time on, ms; from `meta.json` or, without it, from the index.
    pub min_time: Option<i64>,
    /// Samples before this time, ms.
    pub max_time: Option<i64>,
    /// How often it was compacted, 1 for one of the head.
    pub level: Option<i64>,
    /// Series in its index.
    pub series: Option<u64>,
    /// Chunks of these.
    pub chunks: Option<u64>,
    /// Samples, as the chunks count them; 0 to the depth of the structure, which does not read them.
    pub samples: Option<u64>,
    /// Deleted intervals.
    pub tombstones: u64,
    /// What Prometheus does with it, if it is not intact.
    pub consequences: Vec<Consequence>,
}

/// What becomes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockState {
    /// Prometheus loads it, and nothing is wrong with it as far as it was read.
    Intact,
    /// Prometheus loads it, and fails at queries or compactions.
    Damaged,
    /// Prometheus does not start with it.
    NotOpened,
    /// Prometheus starts without it.
    Skipped,
    /// Prometheus deletes it, since a block that it loads was made from it.
    Replaced,
}
