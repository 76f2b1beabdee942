//! Type 3, tombstones: repeat { BE64 ref; zigzag min time; zigzag max time }, one entry an interval.

use serde::{Deserialize, Serialize};

use super::cursor::{AtCursor, Cursor, CutShort};
use super::{DecodeError, RecordType, put};

/// Whether deletions are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletionsLost {
    /// None are.
    #[default]
    None,
    /// What is lost may have held some.
    Possible,
    /// Some are.
    Certain,
}

/// A tombstones record.
#[derive(Clone, Copy, Debug)]
pub struct TombstonesRecord<'a>(pub(crate) Cursor<'a>);

/// Samples of one series deleted in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombstoneEntry {
    /// The series.
    pub series_ref: u64,
    /// First deleted timestamp, ms.
    pub min_time: i64,
    /// Last deleted timestamp, ms.
    pub max_time: i64,
}

impl TombstoneEntry {
    /// Whether this says that the whole series is deleted, as Prometheus writes it for stale series
    /// (`loadWAL`, `tsdb/head_wal.go`).
    #[must_use]
    pub const fn deletes_series(&self) -> bool {
        self.min_time == i64::MIN && self.max_time == i64::MAX
    }
}

impl<'a> TombstonesRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub const fn entries(&self) -> TombstoneIter<'a> {
        TombstoneIter { cursor: self.0 }
    }
}

/// Walks over a [`TombstonesRecord`].
#[derive(Clone, Debug)]
pub struct TombstoneIter<'a> {
    cursor: Cursor<'a>,
}

impl TombstoneIter<'_> {
    fn entry(&mut self) -> Result<TombstoneEntry, CutShort> {
        Ok(TombstoneEntry {
            series_ref: self.cursor.be64()?,
            min_time: self.cursor.varint64()?,
            max_time: self.cursor.varint64()?,
        })
    }
}

impl AtCursor for TombstoneIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.cursor
    }
}

impl Iterator for TombstoneIter<'_> {
    type Item = Result<TombstoneEntry, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.is_empty() {
            return None;
        }
        Some(self.entry().map_err(|cut| {
            self.cursor = Cursor::default();
            DecodeError::plain(cut)
        }))
    }
}

/// Appends a tombstones record (`Encoder.Tombstones`).
pub fn encode_tombstones(tombstones: &[TombstoneEntry], out: &mut Vec<u8>) {
    out.push(RecordType::Tombstones.byte());
    for tombstone in tombstones {
        put::be64(out, tombstone.series_ref);
        put::varint(out, tombstone.min_time);
        put::varint(out, tombstone.max_time);
    }
}
