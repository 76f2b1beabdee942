//! Head chunks that Prometheus is made to skip.
//!
//! It skips a chunk whose encoding it does not know, from 2.39 on (`loadMmappedChunks`, `tsdb/head.go`). So that byte is changed,
//! and the checksum with it, and no chunk moves: markers in the WBL name chunks by their place.

use std::fs::File;
use std::io;

use super::segment::read_exact;
use crate::change::plan::{Content, Patch};
pub(super) use crate::tsdb::CHUNKS_HEAD;
use crate::tsdb::{HeadChunk, Target, list_head_chunks};

/// Where the encoding is in a chunk, after ref and times (`tsdb/chunks/head_chunks.go`, `WriteChunk`).
const ENCODING: u64 = 24;

/// What no version means by it, the bit aside that says that samples came out of order.
pub(super) const UNKNOWN: u8 = 0x7F;

/// How many there are such as are wanted.
pub(super) fn count(target: &Target, is_wanted: impl Fn(&HeadChunk) -> bool) -> io::Result<usize> {
    let files = list_head_chunks(&target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?.files;
    let chunks = files.iter().filter_map(|file| file.chunks().ok()).flat_map(Iterator::flatten);
    Ok(chunks.filter(is_wanted).count())
}

/// Where the encoding of a chunk is in its file.
pub(super) fn encoding_of(chunk: &HeadChunk) -> u64 {
    start_of(chunk) + ENCODING
}

pub(super) fn start_of(chunk: &HeadChunk) -> u64 {
    chunk.chunk_ref & u64::from(u32::MAX)
}

/// The patches that make Prometheus skip the chunk from `start` to `end`.
pub(super) fn neutral(file: &File, start: u64, end: u64) -> io::Result<[Patch; 2]> {
    let mut bytes = vec![0; usize::try_from(end - 4 - start).unwrap_or(0)];
    read_exact(file, &mut bytes, start)?;
    let at = usize::try_from(ENCODING).unwrap_or(0);
    let encoding = bytes.get(at).map_or(UNKNOWN, |byte| byte | UNKNOWN);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = encoding;
    }
    let checksum = crc32c::crc32c(&bytes).to_be_bytes().to_vec();
    let patch =
        |offset, with: Vec<u8>| Patch { offset, replaces: with.len() as u64, with: Content::Bytes(with) };
    Ok([patch(start + ENCODING, vec![encoding]), patch(end - 4, checksum)])
}
