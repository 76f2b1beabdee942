//! Type 1, series: repeat { BE64 ref; labels }.

use super::cursor::{AtCursor, Cursor, CutShort};
use super::labels::{self, LabelSet};
use super::{DecodeError, DecoderVersion, Labels, RecordType, put};

/// A series record.
#[derive(Clone, Copy, Debug)]
pub struct SeriesRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) dialect: DecoderVersion,
}

/// A series and the ref by which other records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesEntry<'a> {
    /// The ref.
    pub series_ref: u64,
    /// The label set.
    pub labels: Labels<'a>,
}

impl<'a> SeriesRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub const fn entries(&self) -> SeriesIter<'a> {
        SeriesIter { cursor: self.body, dialect: self.dialect }
    }
}

/// Walks over a [`SeriesRecord`].
#[derive(Clone, Debug)]
pub struct SeriesIter<'a> {
    cursor: Cursor<'a>,
    dialect: DecoderVersion,
}

impl<'a> SeriesIter<'a> {
    fn entry(&mut self) -> Result<SeriesEntry<'a>, CutShort> {
        Ok(SeriesEntry {
            series_ref: self.cursor.be64()?,
            labels: Labels::decode(&mut self.cursor, self.dialect)?,
        })
    }
}

impl AtCursor for SeriesIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.cursor
    }
}

impl<'a> Iterator for SeriesIter<'a> {
    type Item = Result<SeriesEntry<'a>, DecodeError>;

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

/// Appends a series record (`Encoder.Series`). Takes ref and labels of each.
pub fn encode_series<'a, L: LabelSet<'a>>(series: impl IntoIterator<Item = (u64, L)>, out: &mut Vec<u8>) {
    out.push(RecordType::Series.byte());
    for (series_ref, labels) in series {
        put::be64(out, series_ref);
        labels::encode(labels, out);
    }
}
