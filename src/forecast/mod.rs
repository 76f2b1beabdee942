//! Prometheus itself, as a model: what it reads of a directory, what it then deletes, and what it serves, start by start.

pub mod report;
mod version;

pub use version::{Version, VersionError};
