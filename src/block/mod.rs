//! Blocks: the files of a directory named by a ULID, each with the samples of some hours.

pub mod write;
