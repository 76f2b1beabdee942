//! How much of a block is read.

use serde::Serialize;

/// How much of each block is verified. Each depth has all of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// `meta.json`, tombstones, the whole index, and that each chunk lies within its file. Chunks are not read.
    Structure,
    /// The checksum of each chunk.
    #[default]
    Checksums,
    /// Each chunk decodes to the count, times and order that the index and the chunk state.
    Samples,
}

impl Depth {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Structure, Self::Checksums, Self::Samples];

    /// Its name, on the command line and in the JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Checksums => "checksums",
            Self::Samples => "samples",
        }
    }
}
