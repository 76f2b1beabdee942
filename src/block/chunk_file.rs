//! `chunks/NNNNNN` of a block: BE32 magic, u8 version, 3 zeros; then chunks: uvarint length of the data, u8 encoding, data, BE32
//! CRC-32C of encoding and data (`tsdb/chunks/chunks.go`). The index names a chunk by the place of its file among all whose names are
//! numbers.

use super::section::uvarint;
use crate::wal::crc;

/// What a file of chunks begins with.
pub const CHUNK_FILE_HEADER: [u8; 8] = [0x85, 0xBD, 0x40, 0xDD, VERSION, 0, 0, 0];
const VERSION: u8 = 1;

/// Bytes that Prometheus reads for the length of a chunk, however many it has (`MaxChunkLengthFieldSize`).
const LENGTH_FIELD: u64 = 5;

/// Why Prometheus does not open a file of chunks, in its words (`newReader`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFileError {
    /// It is shorter than its header.
    #[error("invalid segment header in segment {0}: invalid size")]
    Header(u64),
    /// It does not begin as one.
    #[error("invalid magic number {0:x}")]
    Magic(u32),
    /// A version that Prometheus does not know.
    #[error("invalid chunk format version {0}")]
    Version(u8),
}

/// What is wrong with the beginning of the file of chunks that has the place `rank`, from 0 on.
#[must_use]
pub fn header_error(file: &[u8], rank: u64) -> Option<ChunkFileError> {
    match file.first_chunk::<8>() {
        None => Some(ChunkFileError::Header(rank)),
        Some(&[a, b, c, d, version, ..]) => {
            let magic = [a, b, c, d];
            if !CHUNK_FILE_HEADER.starts_with(&magic) {
                Some(ChunkFileError::Magic(u32::from_be_bytes(magic)))
            } else if version != VERSION {
                Some(ChunkFileError::Version(version))
            } else {
                None
            }
        }
    }
}

/// A chunk whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredChunk<'a> {
    /// How its samples are encoded, see [`crate::chunk::Encoding::of`].
    pub encoding: u8,
    /// Its data.
    pub data: &'a [u8],
    /// Where it ends in the file, after its checksum.
    pub end: u64,
}

/// Why a chunk cannot be read, in Prometheus's words (`ChunkOrIterable`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredChunkError {
    /// The file ends before the field of its length.
    #[error(
        "segment doesn't include enough bytes to read the chunk size data field - required:{required}, \
         available:{available}"
    )]
    NoLength {
        /// Offset up to which the file would have to reach.
        required: u64,
        /// Bytes of the file.
        available: u64,
    },
    /// Its length does not end.
    #[error("reading chunk length failed with 0")]
    Length,
    /// The file ends within it.
    #[error(
        "segment doesn't include enough bytes to read the chunk - required:{required}, available:{available}"
    )]
    Short {
        /// Offset up to which the file would have to reach.
        required: u64,
        /// Bytes of the file.
        available: u64,
    },
    /// Its checksum is wrong.
    #[error("checksum mismatch expected:{stored:x}, actual:{computed:x}")]
    Checksum {
        /// As it is there.
        stored: u32,
        /// Of the bytes.
        computed: u32,
        /// Where the chunk ends in the file, as its length has it.
        end: u64,
    },
}

/// The chunk at `offset` of a file.
///
/// # Errors
/// If it cannot be read.
pub fn chunk_at(file: &[u8], offset: u64) -> Result<StoredChunk<'_>, StoredChunkError> {
    let (chunk, stored) = framed_chunk_at(file, offset)?;
    let covered = covered(file, &chunk);
    if crc::matches(covered, stored) {
        Ok(chunk)
    } else {
        Err(StoredChunkError::Checksum { stored, computed: crc::checksum(covered), end: chunk.end })
    }
}

/// The chunk at `offset` of a file, and its checksum, which is not compared.
///
/// # Errors
/// If it is not whole.
pub(crate) fn framed_chunk_at(file: &[u8], offset: u64) -> Result<(StoredChunk<'_>, u32), StoredChunkError> {
    let available = file.len() as u64;
    let required = offset.saturating_add(LENGTH_FIELD);
    let field = slice(file, offset, required).ok_or(StoredChunkError::NoLength { required, available })?;
    let (length, size) = uvarint(field).ok_or(StoredChunkError::Length)?;
    let encoding_at = offset + size as u64;
    let data_end = (encoding_at + 1).saturating_add(length);
    let end = data_end.saturating_add(4);
    let too_short = StoredChunkError::Short { required: end, available };
    let covered = slice(file, encoding_at, data_end).ok_or(too_short)?;
    let stored = slice(file, data_end, end).and_then(|stored| stored.first_chunk()).ok_or(too_short)?;
    let (&encoding, data) = covered.split_first().ok_or(too_short)?;
    Ok((StoredChunk { encoding, data, end }, u32::from_be_bytes(*stored)))
}

/// What the checksum of a chunk covers.
fn covered<'a>(file: &'a [u8], chunk: &StoredChunk<'_>) -> &'a [u8] {
    let end = chunk.end - 4;
    slice(file, end - chunk.data.len() as u64 - 1, end).unwrap_or_default()
}

fn slice(file: &[u8], from: u64, to: u64) -> Option<&[u8]> {
    file.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}
