//! The files of a block: an index, files of chunks, tombstones. Slices in, values out; nothing is opened here.
//!
//! Readers fail where Prometheus's do, in its words. They check no more than it does: what only a writer enforces, orders and
//! counts, is for `scan::blocks`.

mod chunk_file;
mod index;
mod postings;
mod salvage;
mod section;
mod series;
mod symbols;
mod tombstones;
pub mod write;

pub(crate) use self::chunk_file::framed_chunk_at;
pub use self::chunk_file::{
    CHUNK_FILE_HEADER, ChunkFileError, StoredChunk, StoredChunkError, chunk_at, header_error,
};
pub use self::index::{Index, IndexError, Toc, version_of};
pub use self::postings::{PostingsEntry, PostingsError, PostingsTable, TableError, postings_at};
pub use self::salvage::SalvagedIndex;
pub use self::section::SectionError;
pub use self::series::{BlockChunk, LabelSymbols, SeriesError, StoredSeries, series_at};
pub use self::symbols::Symbols;
pub use self::tombstones::{BlockTombstone, TombstonesError, parse_tombstones, salvage_tombstones};
