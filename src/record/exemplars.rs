//! Type 4, exemplars: BE64 base ref; BE64 base time; repeat { zigzag ref; zigzag time; BE64 value; labels }.

use super::base::{EntryBase, EntryPlace};
use super::cursor::{AtCursor, Cursor, CutShort};
use super::labels;
use super::{DecodeError, DecoderVersion, Labels, RecordType, put};

/// An exemplars record.
#[derive(Clone, Copy, Debug)]
pub struct ExemplarsRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) dialect: DecoderVersion,
}

/// An exemplar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExemplarEntry<'a> {
    /// The series.
    pub series_ref: u64,
    /// Timestamp, ms.
    pub t: i64,
    /// The bits of the value, a 64-bit float.
    pub value_bits: u64,
    /// Its labels.
    pub labels: Labels<'a>,
}

impl ExemplarEntry<'_> {
    /// The value.
    #[must_use]
    pub const fn value(&self) -> f64 {
        f64::from_bits(self.value_bits)
    }
}

impl<'a> ExemplarsRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub fn entries(&self) -> ExemplarIter<'a> {
        let mut cursor = self.body;
        let base = EntryBase::decode(&mut cursor);
        ExemplarIter { cursor, base, count: 0, dialect: self.dialect }
    }
}

/// Walks over an [`ExemplarsRecord`].
#[derive(Clone, Debug)]
pub struct ExemplarIter<'a> {
    cursor: Cursor<'a>,
    base: Result<EntryBase, CutShort>,
    count: u64,
    dialect: DecoderVersion,
}

impl<'a> ExemplarIter<'a> {
    fn entry(&mut self) -> Result<ExemplarEntry<'a>, CutShort> {
        let base = self.base?;
        self.count += 1;
        let mut at = EntryPlace::default();
        base.absolute(&mut self.cursor, &mut at)?;
        Ok(ExemplarEntry {
            series_ref: at.series_ref,
            t: at.t,
            value_bits: self.cursor.be64()?,
            labels: Labels::decode(&mut self.cursor, self.dialect)?,
        })
    }
}

impl AtCursor for ExemplarIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.cursor
    }
}

impl<'a> Iterator for ExemplarIter<'a> {
    type Item = Result<ExemplarEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.is_empty() {
            return None;
        }
        Some(self.entry().map_err(|cut| {
            self.cursor = Cursor::default();
            DecodeError::after(cut, self.count, "exemplars")
        }))
    }
}

/// Appends an exemplars record (`Encoder.Exemplars`).
pub fn encode_exemplars(exemplars: &[ExemplarEntry<'_>], out: &mut Vec<u8>) {
    out.push(RecordType::Exemplars.byte());
    let Some(first) = exemplars.first() else {
        return;
    };
    let base = EntryBase::encode(first.series_ref, first.t, out);
    for exemplar in exemplars {
        base.relative(exemplar.series_ref, exemplar.t, out);
        put::be64(out, exemplar.value_bits);
        labels::encode(&exemplar.labels, out);
    }
}
