//! What is in a data directory: which logs there are, and what is beside them.
//!
//! ```text
//! <data>/wal/NNNNNNNN                  segments          wbl/ the same
//! <data>/wal/checkpoint.NNNNNNNN/      directories of segments
//! <data>/chunk_snapshot.NNNNNN.MMMMMMMMMM/
//! ```
//!
//! Source: Prometheus `tsdb/wlog/wlog.go` (`listSegments`), `tsdb/wlog/checkpoint.go` (`listCheckpoints`), `tsdb/head_wal.go`
//! (`LastChunkSnapshot`), `tsdb/db.go` (`open`).

mod blocks;
mod head_chunks;
mod listing;
pub mod liveness;
pub mod losses;
pub(crate) mod replay_order;
mod target;
mod user;
mod version;

pub(crate) use blocks::is_in_block;
pub use blocks::{Block, BlockMeta, list_blocks};
pub use head_chunks::{
    CHUNKS_HEAD, HEAD_CHUNKS_HEADER, HeadChunk, HeadChunkError, HeadChunkFault, HeadChunkFile,
    HeadChunkFiles, HeadChunkIter, list_head_chunks,
};
pub use listing::{Listing, LogDirectory, LogKind, Stray, StrayKind};
pub use target::{Target, TargetError};
pub use user::{Right, User};
pub use version::{Assumed, Version, VersionError};
