//! Type 5, mmap markers (in the WBL only): repeat { BE64 ref; BE64 chunk reference }.

use super::cursor::{AtCursor, Cursor, CutShort};
use super::{DecodeError, RecordType, put};

/// An mmap markers record.
#[derive(Clone, Copy, Debug)]
pub struct MmapMarkersRecord<'a>(pub(crate) Cursor<'a>);

/// Says that all out-of-order samples of a series up to here are in `chunks_head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmapMarkerEntry {
    /// The series.
    pub series_ref: u64,
    /// The last chunk: file number in the high 32 bits, byte offset from the file's start in the low ones
    /// (`ChunkDiskMapperRef`, `tsdb/chunks/head_chunks.go`).
    pub mmap_ref: u64,
}

impl MmapMarkerEntry {
    /// The number of the head chunks file.
    #[must_use]
    pub const fn file(&self) -> u32 {
        (self.mmap_ref >> 32) as u32
    }

    /// Where in that file the chunk begins, bytes from its start.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub const fn offset(&self) -> u32 {
        self.mmap_ref as u32
    }
}

impl<'a> MmapMarkersRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub const fn entries(&self) -> MmapMarkerIter<'a> {
        MmapMarkerIter { cursor: self.0, count: 0 }
    }
}

/// Walks over an [`MmapMarkersRecord`].
#[derive(Clone, Debug)]
pub struct MmapMarkerIter<'a> {
    cursor: Cursor<'a>,
    count: u64,
}

impl MmapMarkerIter<'_> {
    fn entry(&mut self) -> Result<MmapMarkerEntry, CutShort> {
        Ok(MmapMarkerEntry { series_ref: self.cursor.be64()?, mmap_ref: self.cursor.be64()? })
    }
}

impl AtCursor for MmapMarkerIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.cursor
    }
}

impl Iterator for MmapMarkerIter<'_> {
    type Item = Result<MmapMarkerEntry, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.is_empty() {
            return None;
        }
        self.count += 1;
        Some(self.entry().map_err(|cut| {
            self.cursor = Cursor::default();
            DecodeError::after(cut, self.count, "mmap markers")
        }))
    }
}

/// Appends an mmap markers record (`Encoder.MmapMarkers`).
pub fn encode_mmap_markers(markers: &[MmapMarkerEntry], out: &mut Vec<u8>) {
    out.push(RecordType::MmapMarkers.byte());
    for marker in markers {
        put::be64(out, marker.series_ref);
        put::be64(out, marker.mmap_ref);
    }
}
