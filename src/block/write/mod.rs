//! Writes the files of a block, byte for byte as Prometheus writes them.
//!
//! Nothing here knows a path. What is written goes to a [`std::io::Write`] from the first byte of a new file on; no byte is
//! changed afterwards. Outputs need no buffer of their own.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chunk_file;
mod index;
mod meta;
mod out;
mod tombstones;

pub use self::chunk_file::{ChunkFileWriter, chunk_reference};
pub use self::index::{EachSeries, EachSymbol, IndexVersion, IndexWriter};
pub use self::meta::{BlockStats, MetaJson};
pub use self::tombstones::tombstones;

use std::io;

/// Why a file of a block cannot be written.
///
/// All but the first are faults of what is to be written. Prometheus's writer refuses the same.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output, or a source of what is written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Symbols are not strictly ascending.
    #[error("symbol {0} is not above the one before it")]
    SymbolOrder(u32),
    /// A source gives other symbols or series when it is asked again.
    #[error("the second reading of the {0} differs from the first")]
    Changed(&'static str),
    /// There is no such symbol.
    #[error("there is no symbol {0}")]
    NoSymbol(u32),
    /// A series is not above the one before it by its labels, or has none.
    #[error("series {0} is not above the one before it, or has no labels")]
    SeriesOrder(u64),
    /// The label names of a series are not strictly ascending.
    #[error("the labels of series {0} are not in order")]
    LabelOrder(u64),
    /// The ref of a chunk is below that of the one before it, be it of another series.
    #[error("series {0} has a chunk with a reference below the one before it")]
    ChunkReferences(u64),
    /// A chunk begins before the one before it has ended, or ends before it begins.
    #[error("series {0} has chunks that overlap, or a chunk that ends before it begins")]
    ChunkTimes(u64),
    /// A series does not fit where it was.
    #[error("there is no room for series {0} where it was")]
    Place(u64),
    /// A length or an offset does not fit its field.
    #[error("{0} too large for the format")]
    TooLarge(&'static str),
}
