//! Reads a directory through [`crate::wal`], [`crate::record`] and [`crate::tsdb`] into a [`report::Report`].

pub mod report;
