//! `tombstones` of a block: BE32 magic, u8 version, entries, BE32 checksum of the entries alone. An entry: uvarint series, varint
//! first and varint last time (`tsdb/tombstones/tombstones.go`).

use crate::record::{Cursor, CutShort};
use crate::wal::crc;

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;

/// Deleted samples of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockTombstone {
    /// The series, as postings call it.
    pub series: u64,
    /// From this time on, ms.
    pub min_time: i64,
    /// Up to this time, included, ms.
    pub max_time: i64,
}

/// Why Prometheus does not read the file, in its words (`ReadTombstones`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TombstonesError {
    /// It is shorter than its header.
    #[error("tombstones header: invalid size")]
    Header,
    /// It does not begin as one.
    #[error("invalid magic number {0:x}")]
    Magic(u32),
    /// Eight bytes: Prometheus takes a byte out of nothing.
    #[error("panic: runtime error: slice bounds out of range [1:0]")]
    Panics,
    /// Its checksum is wrong.
    #[error("checksum did not match")]
    Checksum,
    /// A version that Prometheus does not know.
    #[error("invalid tombstone format {0:x}")]
    Version(u8),
    /// It ends within an entry.
    #[error("invalid size")]
    CutShort,
}

/// The entries of a file of tombstones, in their order.
///
/// # Errors
/// If Prometheus does not read it.
pub fn parse_tombstones(file: &[u8]) -> Result<Vec<BlockTombstone>, TombstonesError> {
    if file.len() < 5 {
        return Err(TombstonesError::Header);
    }
    let (rest, stored) = file.split_last_chunk::<4>().ok_or(TombstonesError::Header)?;
    let (magic, rest) = rest.split_first_chunk::<4>().ok_or(TombstonesError::Magic(0))?;
    let magic = u32::from_be_bytes(*magic);
    if magic != MAGIC {
        return Err(TombstonesError::Magic(magic));
    }
    let (&version, entries) = rest.split_first().ok_or(TombstonesError::Panics)?;
    if !crc::matches(entries, u32::from_be_bytes(*stored)) {
        return Err(TombstonesError::Checksum);
    }
    if version != VERSION {
        return Err(TombstonesError::Version(version));
    }
    let (found, whole) = read(entries);
    whole.map(|()| found).map_err(|_| TombstonesError::CutShort)
}

/// The entries that can be read of a file that Prometheus does not read, whatever its header and checksum.
#[must_use]
pub fn salvage_tombstones(file: &[u8]) -> Vec<BlockTombstone> {
    let entries = file.get(5..file.len().saturating_sub(4)).unwrap_or_default();
    read(entries).0
}

fn read(entries: &[u8]) -> (Vec<BlockTombstone>, Result<(), CutShort>) {
    let mut cursor = Cursor::new(entries);
    let mut found = Vec::new();
    while !cursor.is_empty() {
        let mut entry = || {
            Ok(BlockTombstone {
                series: cursor.uvarint64()?,
                min_time: cursor.varint64()?,
                max_time: cursor.varint64()?,
            })
        };
        match entry() {
            Ok(entry) => found.push(entry),
            Err(cut) => return (found, Err(cut)),
        }
    }
    (found, Ok(()))
}
