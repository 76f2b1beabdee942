//! Prometheus itself, as a model: what it reads of a directory, what it then deletes, and what it serves, start by start.

mod decode;
mod head_chunks;
pub mod replay;
pub mod report;
mod served;
mod stream;
mod version;

pub use head_chunks::HeadChunks;
pub use served::{StartReads, Stretch, count, min_valid_time};
pub use version::{Version, VersionError};
