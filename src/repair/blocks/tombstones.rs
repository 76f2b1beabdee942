//! A file of tombstones that Prometheus does not read.

use crate::block::write::tombstones;
use crate::block::{BlockTombstone, SalvagedIndex, parse_tombstones, salvage_tombstones};
use crate::wal::crc;

/// What takes its place.
pub(super) struct NewTombstones {
    pub(super) bytes: Vec<u8>,
    /// Deletions that are kept.
    pub(super) kept: u64,
    /// Whether these are all.
    pub(super) is_all: bool,
}

/// What takes the place of a file of tombstones; `None` if Prometheus reads it.
pub(super) fn rewritten(file: &[u8], index: Option<&SalvagedIndex<'_>>) -> Option<NewTombstones> {
    parse_tombstones(file).err()?;
    let found = salvage_tombstones(file);
    // Where only what is before the entries is damaged, their checksum is right.
    let entries = file.get(5..).and_then(|rest| rest.split_last_chunk::<4>());
    let is_all = entries.is_some_and(|(entries, stored)| {
        !entries.is_empty() && crc::matches(entries, u32::from_be_bytes(*stored))
    });
    let kept: Vec<BlockTombstone> = if is_all {
        found
    } else {
        found.into_iter().filter(|stone| index.is_some_and(|index| is_likely(stone, index))).collect()
    };
    Some(NewTombstones { kept: kept.len() as u64, bytes: tombstones(kept), is_all })
}

/// Whether an entry whose checksum is not known to be right is as Prometheus writes them: of a series that is there, and within the
/// times of its chunks, to which it narrows each deletion (`Block.Delete`, `tsdb/block.go`). Another one would delete what nobody
/// wanted deleted.
fn is_likely(stone: &BlockTombstone, index: &SalvagedIndex<'_>) -> bool {
    let Some(chunks) = index.chunks_of(stone.series) else { return false };
    let Some((first, last)) = chunks.first().zip(chunks.last()) else { return false };
    first.min_time <= stone.min_time && stone.min_time <= stone.max_time && stone.max_time <= last.max_time
}
