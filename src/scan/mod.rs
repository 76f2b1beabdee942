//! Reads a directory through [`crate::wal`], [`crate::record`] and [`crate::tsdb`] into a [`report::Report`].

mod context;
pub mod report;
pub mod salvage;
