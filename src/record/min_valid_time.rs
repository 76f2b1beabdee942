//! Type 14, min valid time (in checkpoints only, from v3.16): BE64 time, and nothing after it.

use super::cursor::Cursor;
use super::{DecodeError, RecordType, put};

/// A min valid time record.
#[derive(Clone, Copy, Debug)]
pub struct MinValidTimeRecord<'a>(pub(crate) Cursor<'a>);

/// The time below which the WAL was truncated when the checkpoint was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinValidTimeEntry {
    /// The time, ms.
    pub min_time: i64,
}

impl<'a> MinValidTimeRecord<'a> {
    /// The time it carries, ms.
    ///
    /// # Errors
    /// What `Decoder.MinValidTime` says if the record has not exactly 9 bytes.
    pub fn min_time(&self) -> Result<i64, DecodeError> {
        let mut cursor = self.0;
        let min_time = cursor.be64_signed().map_err(DecodeError::plain)?;
        match cursor.rest().len() {
            0 => Ok(min_time),
            left => Err(DecodeError::bytes_left(left)),
        }
    }

    /// Its one entry, or why it cannot be decoded.
    #[must_use]
    pub const fn entries(&self) -> MinValidTimeIter<'a> {
        MinValidTimeIter(Some(*self))
    }
}

/// Walks over a [`MinValidTimeRecord`].
#[derive(Clone, Debug)]
pub struct MinValidTimeIter<'a>(Option<MinValidTimeRecord<'a>>);

impl Iterator for MinValidTimeIter<'_> {
    type Item = Result<MinValidTimeEntry, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.0.take()?;
        Some(record.min_time().map(|min_time| MinValidTimeEntry { min_time }))
    }
}

/// Appends a min valid time record (`Encoder.MinValidTime`); the time in ms.
pub fn encode_min_valid_time(min_time: i64, out: &mut Vec<u8>) {
    out.push(RecordType::MinValidTime.byte());
    put::be64(out, min_time.cast_unsigned());
}
