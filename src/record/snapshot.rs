//! Records of a chunk snapshot (`loadChunkSnapshot`, `tsdb/head_wal.go`). They are framed like those of the WAL, and
//! their types have the same numbers as other records there, so where a record comes from must be known.
//!
//! Type 1, series: BE64 ref; labels; BE64 0; uvarint 1 if there is a head chunk, else 0; then BE64 min time; BE64 max
//! time; u8 encoding; chunk as a string; last value.
//! Type 2, tombstones: a string of u8 1 and repeat { uvarint ref; zigzag min time; zigzag max time }.
//! Type 3, exemplars: as a WAL record of type 4 after its type byte.

use std::fmt;

use super::cursor::{Cursor, CutShort};
use super::{
    DecodeError, DecoderVersion, ExemplarsRecord, FloatHistogram, Histogram, Labels, TombstoneEntry,
};

/// A record of a chunk snapshot, of which only the first byte has been read.
#[derive(Clone, Copy, Debug)]
pub enum SnapshotRecord<'a> {
    /// Type 1: one series.
    Series(SnapshotSeriesRecord<'a>),
    /// Type 2: all tombstones.
    Tombstones(SnapshotTombstonesRecord<'a>),
    /// Type 3: exemplars. Prometheus says `exemplars from buffer: ` before their error.
    Exemplars(ExemplarsRecord<'a>),
    /// All of the record: of another type (`unsupported snapshot record type 0b%b`), or empty, on which Prometheus panics.
    Unknown(&'a [u8]),
}

impl<'a> SnapshotRecord<'a> {
    /// Looks at the first byte, and no further.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Self {
        let body = Cursor::body_of(record);
        match record.first() {
            Some(1) => Self::Series(SnapshotSeriesRecord(body)),
            Some(2) => Self::Tombstones(SnapshotTombstonesRecord(body)),
            Some(3) => Self::Exemplars(ExemplarsRecord { body, dialect: DecoderVersion::default() }),
            _ => Self::Unknown(record),
        }
    }
}

/// The series record of a chunk snapshot.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotSeriesRecord<'a>(Cursor<'a>);

/// A series as it was when the snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotSeries<'a> {
    /// The ref.
    pub series_ref: u64,
    /// The label set.
    pub labels: Labels<'a>,
    /// Its open head chunk.
    pub chunk: Option<SnapshotChunk<'a>>,
}

/// The open head chunk of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotChunk<'a> {
    /// Time of the first sample, ms.
    pub min_time: i64,
    /// Time of the last sample, ms.
    pub max_time: i64,
    /// 1 XOR, 2 histogram, 3 float histogram, 4 to 6 the same with start timestamps
    /// (`Encoding`, `tsdb/chunkenc/chunk.go`).
    pub encoding: u8,
    /// The chunk's bytes.
    pub data: &'a [u8],
    /// The last sample's value.
    pub last_value: LastValue<'a>,
}

/// The value of the last sample of a head chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastValue<'a> {
    /// The bits of a 64-bit float.
    Float(u64),
    /// A histogram with integer counts.
    Histogram(Histogram<'a>),
    /// A histogram with float counts.
    FloatHistogram(FloatHistogram<'a>),
}

/// Why a record of a chunk snapshot cannot be decoded, in the words of Prometheus's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// The record is cut within the head chunk, as Prometheus words it.
    Chunk(DecodeError),
    /// The chunk's encoding is not known.
    Encoding(u8),
    /// The record is cut before the head chunk. Prometheus does not look and takes what it has read for a series without
    /// a chunk, with zeros and empty strings for what it could not read.
    Accepted(DecodeError),
    /// The tombstones are cut.
    Tombstones(DecodeError),
    /// The tombstones' first byte is not 1 (0 if it is missing).
    TombstoneFormat(u8),
}

impl SnapshotError {
    /// Whether Prometheus continues as if nothing were wrong.
    #[must_use]
    pub const fn accepted_by_prometheus(&self) -> bool {
        matches!(self, Self::Accepted(error) if !error.crashes_prometheus())
    }

    /// See [`DecodeError::crashes_prometheus`].
    #[must_use]
    pub const fn crashes_prometheus(&self) -> bool {
        match self {
            Self::Chunk(error) | Self::Accepted(error) | Self::Tombstones(error) => {
                error.crashes_prometheus()
            }
            Self::Encoding(_) | Self::TombstoneFormat(_) => false,
        }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(error) | Self::Accepted(error) => error.fmt(f),
            // Go's %q of a value with a String method.
            Self::Encoding(0) => f.write_str("chunk from data: invalid chunk encoding \"none\""),
            Self::Encoding(_) => f.write_str("chunk from data: invalid chunk encoding \"<unknown>\""),
            Self::Tombstones(error) => write!(f, "decode tombstones: {error}"),
            Self::TombstoneFormat(format) => {
                write!(f, "decode tombstones: invalid tombstone format {format:x}")
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

impl<'a> SnapshotSeriesRecord<'a> {
    /// Ref and labels alone, which a record that is cut later still gives.
    ///
    /// # Errors
    /// If the record is cut before the end of the labels.
    pub fn series(&self) -> Result<(u64, Labels<'a>), DecodeError> {
        let mut cursor = self.0;
        Self::head(&mut cursor).map_err(DecodeError::plain)
    }

    fn head(cursor: &mut Cursor<'a>) -> Result<(u64, Labels<'a>), CutShort> {
        Ok((cursor.be64()?, Labels::decode(cursor, DecoderVersion::default())?))
    }

    /// All of the record. Bytes after its end are ignored, as Prometheus does.
    ///
    /// # Errors
    /// What `decodeSeriesFromChunkSnapshot` says, and where it fails to say something.
    pub fn decode(&self) -> Result<SnapshotSeries<'a>, SnapshotError> {
        let mut cursor = self.0;
        let (series_ref, labels, has_chunk) = Self::before_chunk(&mut cursor)
            .map_err(|cut| SnapshotError::Accepted(DecodeError::plain(cut)))?;
        if !has_chunk {
            return Ok(SnapshotSeries { series_ref, labels, chunk: None });
        }
        let cut_at = |cut: CutShort, cursor: &Cursor<'_>| match cursor.rest().len() {
            // Prometheus's words if the field that does not fit has some of its bytes.
            left if left > 0 && !cut.crashes => SnapshotError::Chunk(DecodeError::bytes_left(left)),
            _ => SnapshotError::Chunk(DecodeError::plain(cut)),
        };
        // CutShort before the encoding, it reads as 0, and that is what Prometheus complains of.
        let Ok((min_time, max_time, encoding)) = Self::chunk_head(&mut cursor) else {
            return Err(SnapshotError::Encoding(0));
        };
        let data = match cursor.string() {
            // The encoding is looked at after the string, but before its error.
            Err(cut) if cut.crashes => return Err(cut_at(cut, &cursor)),
            _ if !(1..=6).contains(&encoding) => return Err(SnapshotError::Encoding(encoding)),
            data => data.map_err(|cut| cut_at(cut, &cursor))?,
        };
        let last_value = Self::last_value(&mut cursor, encoding).map_err(|cut| cut_at(cut, &cursor))?;
        let chunk = Some(SnapshotChunk { min_time, max_time, encoding, data, last_value });
        Ok(SnapshotSeries { series_ref, labels, chunk })
    }

    fn before_chunk(cursor: &mut Cursor<'a>) -> Result<(u64, Labels<'a>, bool), CutShort> {
        let (series_ref, labels) = Self::head(cursor)?;
        cursor.be64()?;
        Ok((series_ref, labels, cursor.uvarint64()? != 0))
    }

    fn chunk_head(cursor: &mut Cursor<'a>) -> Result<(i64, i64, u8), CutShort> {
        Ok((cursor.be64_signed()?, cursor.be64_signed()?, cursor.byte()?))
    }

    fn last_value(cursor: &mut Cursor<'a>, encoding: u8) -> Result<LastValue<'a>, CutShort> {
        Ok(match encoding {
            2 | 5 => LastValue::Histogram(Histogram::decode_from(cursor)?),
            3 | 6 => LastValue::FloatHistogram(FloatHistogram::decode_from(cursor)?),
            _ => {
                // Room for the four last samples of old; only the last value is used.
                for _ in 0..7 {
                    cursor.be64()?;
                }
                LastValue::Float(cursor.be64()?)
            }
        })
    }
}

/// The tombstones record of a chunk snapshot.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotTombstonesRecord<'a>(Cursor<'a>);

impl<'a> SnapshotTombstonesRecord<'a> {
    /// Its entries, up to the first that cannot be decoded. Bytes after the string are ignored, as Prometheus does.
    #[must_use]
    pub fn entries(&self) -> SnapshotTombstoneIter<'a> {
        let mut cursor = self.0;
        let (entries, problem) = match cursor.string() {
            // Prometheus decodes the empty string it gets, whatever the reason.
            Err(CutShort { crashes: false }) => (Cursor::default(), Some(SnapshotError::TombstoneFormat(0))),
            Err(cut) => (Cursor::default(), Some(SnapshotError::Tombstones(DecodeError::plain(cut)))),
            Ok(string) => match string.split_first() {
                Some((1, entries)) => (Cursor::new(entries), None),
                format => {
                    let format = format.map_or(0, |(&format, _)| format);
                    (Cursor::default(), Some(SnapshotError::TombstoneFormat(format)))
                }
            },
        };
        SnapshotTombstoneIter { cursor: entries, problem }
    }
}

/// Walks over a [`SnapshotTombstonesRecord`].
#[derive(Clone, Debug)]
pub struct SnapshotTombstoneIter<'a> {
    cursor: Cursor<'a>,
    problem: Option<SnapshotError>,
}

impl SnapshotTombstoneIter<'_> {
    fn entry(&mut self) -> Result<TombstoneEntry, CutShort> {
        Ok(TombstoneEntry {
            series_ref: self.cursor.uvarint64()?,
            min_time: self.cursor.varint64()?,
            max_time: self.cursor.varint64()?,
        })
    }
}

impl Iterator for SnapshotTombstoneIter<'_> {
    type Item = Result<TombstoneEntry, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(problem) = self.problem.take() {
            return Some(Err(problem));
        }
        if self.cursor.is_empty() {
            return None;
        }
        Some(self.entry().map_err(|cut| {
            self.cursor = Cursor::default();
            SnapshotError::Tombstones(DecodeError::plain(cut))
        }))
    }
}
