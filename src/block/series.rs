//! A series of an index: its labels as symbols, and its chunks.
//!
//! uvarint length, body, BE32 checksum of the body. The body: uvarint count of labels, for each uvarint name and uvarint value; uvarint
//! count of chunks, of the first varint min time, uvarint max time − min time, uvarint ref, of each later one uvarint min time − max
//! time before, uvarint max time − min time, varint ref − ref before (`Decoder.Series`, `tsdb/index/index.go`).

use super::section::{SectionError, uvarint, uvarint_section};
use crate::record::{Cursor, CutShort};

/// Bytes to which series are aligned from version 2 on (`seriesByteAlign`).
pub(super) const ALIGNED: u64 = 16;

/// More bytes than a series has: those of some million chunks.
const LONGEST_BODY: usize = 64 << 20;

/// Bytes of a series that is looked for where none is known to begin.
const LONGEST_FOUND: u64 = 1 << 20;

/// A series whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct StoredSeries<'a> {
    /// Where it begins in the file.
    pub offset: u64,
    /// Where it ends there, after its checksum.
    pub end: u64,
    body: &'a [u8],
}

/// A label, by the names of its symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSymbols {
    /// Its name.
    pub name: u32,
    /// Its value.
    pub value: u32,
}

/// A chunk, as an index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockChunk {
    /// The place of its file among those of the block, from 0 on, in the high 32 bits, and its offset there (`BlockChunkRef`,
    /// `tsdb/chunks/chunks.go`).
    pub reference: u64,
    /// The time of its first sample, ms.
    pub min_time: i64,
    /// The time of its last sample, ms.
    pub max_time: i64,
}

impl BlockChunk {
    /// The place of its file among those of the block, from 0 on.
    #[must_use]
    pub const fn file(self) -> u64 {
        self.reference >> 32
    }

    /// Its offset in that file.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.reference & 0xffff_ffff
    }
}

/// Why a series cannot be read, in Prometheus's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// Its section.
    #[error(transparent)]
    Section(#[from] SectionError),
    /// Its labels are cut short.
    #[error("read series: read series label offsets: invalid size")]
    Labels,
    /// Its chunks are cut short.
    #[error("read series: read meta for chunk {0}: invalid size")]
    Chunks(u64),
}

/// The series at `offset` of an index.
///
/// # Errors
/// If its section cannot be read.
pub fn series_at(file: &[u8], offset: u64) -> Result<StoredSeries<'_>, SectionError> {
    let (body, bytes) = uvarint_section(file, offset)?;
    Ok(StoredSeries { offset, end: offset + bytes, body })
}

/// The series at `offset`, where bytes before it are damaged. Of what does not look like one no checksum is computed: it would be
/// computed of the rest of the file at each place.
pub(super) fn found_at(file: &[u8], offset: u64) -> Option<StoredSeries<'_>> {
    let rest = usize::try_from(offset).ok().and_then(|at| file.get(at..))?;
    let (length, size) = uvarint(rest.get(..rest.len().min(5))?)?;
    if !(2..=LONGEST_FOUND).contains(&length) {
        return None;
    }
    let body = rest.get(size..size + usize::try_from(length).ok()?)?;
    let like_one = StoredSeries { offset, end: offset, body };
    let (mut labels, mut chunks) = (Vec::new(), Vec::new());
    like_one.read(&mut labels, &mut chunks).ok()?;
    series_at(file, offset).ok()
}

impl<'a> StoredSeries<'a> {
    /// What its checksum covers.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether there is a body: zeros between series pass for one that has none. One that is too long is none, either.
    pub(super) fn has_body(&self) -> bool {
        (2..=LONGEST_BODY).contains(&self.body.len())
    }

    /// Its labels and chunks, into vectors that are emptied first.
    ///
    /// # Errors
    /// If its body is cut short. What comes before that is there.
    pub fn read(
        &self,
        labels: &mut Vec<LabelSymbols>,
        chunks: &mut Vec<BlockChunk>,
    ) -> Result<(), SeriesError> {
        labels.clear();
        chunks.clear();
        let mut cursor = Cursor::new(self.body);
        let count = cursor.count().map_err(|_| SeriesError::Labels)?;
        for _ in 0..count {
            let (name, value) = (cursor.uvarint32(), cursor.uvarint32());
            labels.push(LabelSymbols {
                name: name.map_err(|_| SeriesError::Labels)?,
                value: value.map_err(|_| SeriesError::Labels)?,
            });
        }
        let count = cursor.count().map_err(|_| SeriesError::Chunks(0))?;
        let (mut before, mut reference) = (0_i64, 0_u64);
        for number in 0..count {
            let mut read = || -> Result<BlockChunk, CutShort> {
                let min_time = if number == 0 {
                    cursor.varint64()?
                } else {
                    before.wrapping_add(cursor.uvarint64()?.cast_signed())
                };
                let max_time = min_time.wrapping_add(cursor.uvarint64()?.cast_signed());
                reference = if number == 0 {
                    cursor.uvarint64()?
                } else {
                    reference.wrapping_add(cursor.varint64()?.cast_unsigned())
                };
                before = max_time;
                Ok(BlockChunk { reference, min_time, max_time })
            };
            chunks.push(read().map_err(|_| SeriesError::Chunks(number))?);
        }
        Ok(())
    }
}
