//! What a scan finds, on directories of every sort and on disks that fail.

mod blocks;
mod findings_document;
mod fixtures;
mod fresh;
mod live;
mod media;
mod references;
mod settled;

support::main!();
