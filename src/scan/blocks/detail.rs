//! What can be wrong with a block that Prometheus opens. `report::words` has the sentences.

use crate::block::{PostingsError, SeriesError, StoredChunkError};
use crate::chunk::ChunkError;

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockDetail {
    /// A chunk cannot be read.
    ChunkUnreadable {
        /// Why not.
        error: StoredChunkError,
    },
    /// A chunk is on pages that the disk cannot read.
    ChunkOnBadPages,
    /// The index names a file of chunks that is not there.
    ChunkFileMissing {
        /// Its place among the files, from 1 on.
        place: u64,
        /// How many there are.
        files: u64,
    },
    /// A chunk has an encoding that walfix does not know.
    ChunkEncoding {
        /// The byte that stands for it.
        encoding: u8,
    },
    /// The checksum of a chunk is right, and it does not decode.
    ChunkUndecodable {
        /// Why not.
        error: ChunkError,
    },
    /// A chunk has no samples.
    ChunkEmpty,
    /// A chunk begins or ends at other times than the index says.
    ChunkTimes {
        /// First and last time, as the index says, ms.
        indexed: (i64, i64),
        /// As it has them.
        found: (i64, i64),
    },
    /// A sample of a chunk is not later than the one before.
    ChunkOrder {
        /// The time of the sample, ms.
        time: i64,
    },
    /// A chunk has more bytes than its samples take.
    ChunkSurplus {
        /// Bits that are left.
        bits: u64,
    },

    /// Bytes among the series that are none.
    SeriesUnreadable {
        /// Why the first of them cannot be read.
        error: SeriesError,
    },
    /// A series names a symbol that is not there.
    SymbolMissing {
        /// As the series names it.
        symbol: u32,
    },
    /// The symbols are not sorted.
    SymbolsUnsorted,
    /// A series has no chunks.
    NoChunks,
    /// The labels of a series are not sorted, or one is there twice.
    LabelsUnsorted,
    /// A series does not come after the one before.
    SeriesUnsorted {
        /// It has the same labels.
        is_repeated: bool,
    },
    /// A chunk does not begin after the one before ends, or ends before it begins.
    ChunksUnsorted {
        /// When the chunk before ends, ms.
        before: i64,
        /// When this one begins, ms.
        begins: i64,
    },
    /// A chunk lies before one of an earlier series.
    ReferencesUnsorted,
    /// A list of the series that have a label cannot be read.
    PostingsUnreadable {
        /// The label's name; both are empty for the list of all series.
        name: String,
        /// Its value.
        value: String,
        /// Why not.
        error: PostingsError,
    },
    /// A list of the series that have a label is not sorted.
    PostingsUnsorted {
        /// The label's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The table of postings names a label whose name or value is no symbol.
    PostingsUnknown {
        /// The label's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The table of postings is not sorted, or has an entry twice.
    TableUnsorted {
        /// The label's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// The lists have other series than those that have the labels.
    PostingsDiffer,

    /// `meta.json` has another ULID than the directory.
    OtherUlid {
        /// As the file has it.
        ulid: String,
    },
    /// `meta.json` counts other things than the block has.
    OtherCount {
        /// What is counted.
        what: Counted,
        /// As the file has it.
        stated: u64,
        /// As the block has it.
        found: u64,
    },
    /// The block has samples outside the times that `meta.json` states.
    OutsideTimes {
        /// As the file has them: from the first on, before the second, ms.
        stated: (i64, i64),
        /// The first and last time that the block has, ms.
        found: (i64, i64),
    },
    /// The times of two blocks overlap.
    Overlaps {
        /// The other one.
        other: String,
        /// From the one time on, before the other, ms.
        times: (i64, i64),
    },
    /// No block has these times.
    Gap {
        /// From the one time on, before the other, ms.
        times: (i64, i64),
    },
    /// As the finding before, of so many further places.
    More,
}

/// What `meta.json` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Samples.
    Samples,
    /// Series.
    Series,
    /// Chunks.
    Chunks,
    /// Tombstones.
    Tombstones,
}
