//! Tombstones of a block: a whole file, which is small (`tsdb/tombstones/tombstones.go`).

use crate::block::BlockTombstone;
use crate::record::put;

/// `MagicTombstone` and the format version.
const HEADER: [u8; 5] = [0x01, 0x30, 0xBA, 0x30, 1];

/// The file of these tombstones, in this order. Without any it has nine bytes.
#[must_use]
pub fn tombstones(stones: impl IntoIterator<Item = BlockTombstone>) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    for stone in stones {
        put::uvarint(&mut out, stone.series);
        put::varint(&mut out, stone.min_time);
        put::varint(&mut out, stone.max_time);
    }
    // The checksum covers neither the magic number nor the version.
    let checksum = crc32c::crc32c(out.get(HEADER.len()..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}
