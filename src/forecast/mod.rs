//! Prometheus itself, as a model: what it reads of a directory, what it then deletes, and what it serves, start by start.

mod decode;
pub mod replay;
pub mod report;
mod stream;
mod version;

pub use version::{Version, VersionError};
