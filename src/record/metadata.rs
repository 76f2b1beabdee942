//! Type 6, metadata: repeat { uvarint ref; u8 metric type; uvarint fields; fields × { name; value } }.

use super::cursor::{AtCursor, Cursor, CutShort};
use super::{DecodeError, RecordType, put};

/// So many fields that Prometheus, which continues to count after the bytes have ended, takes minutes.
const ENDLESS_FIELDS: u64 = 1 << 36;

/// A metadata record.
#[derive(Clone, Copy, Debug)]
pub struct MetadataRecord<'a>(pub(crate) Cursor<'a>);

/// What is known of a series' metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataEntry<'a> {
    /// The series.
    pub series_ref: u64,
    /// 0 unknown, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram, 5 summary, 6 info, 7 state set
    /// (`MetricType`, `tsdb/record/record.go`).
    pub metric_type: u8,
    /// The last field named `UNIT`, or empty.
    pub unit: &'a [u8],
    /// The last field named `HELP`, or empty.
    pub help: &'a [u8],
}

impl<'a> MetadataRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub const fn entries(&self) -> MetadataIter<'a> {
        MetadataIter { cursor: self.0 }
    }
}

/// Walks over a [`MetadataRecord`].
#[derive(Clone, Debug)]
pub struct MetadataIter<'a> {
    cursor: Cursor<'a>,
}

impl<'a> MetadataIter<'a> {
    fn entry(&mut self) -> Result<MetadataEntry<'a>, CutShort> {
        let series_ref = self.cursor.uvarint64()?;
        let metric_type = self.cursor.byte()?;
        let fields = self.cursor.count()?;
        let endless = fields >= ENDLESS_FIELDS;
        let mut entry = MetadataEntry { series_ref, metric_type, unit: &[], help: &[] };
        // A field takes two bytes at least, so this ends however many are declared.
        for _ in 0..fields {
            let (name, value) = self.field().map_err(|cut| CutShort { crashes: cut.crashes || endless })?;
            match name {
                b"UNIT" => entry.unit = value,
                b"HELP" => entry.help = value,
                _ => {}
            }
        }
        Ok(entry)
    }

    fn field(&mut self) -> Result<(&'a [u8], &'a [u8]), CutShort> {
        Ok((self.cursor.string()?, self.cursor.string()?))
    }
}

impl AtCursor for MetadataIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.cursor
    }
}

impl<'a> Iterator for MetadataIter<'a> {
    type Item = Result<MetadataEntry<'a>, DecodeError>;

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

/// Appends a metadata record (`Encoder.Metadata`).
pub fn encode_metadata(metadata: &[MetadataEntry<'_>], out: &mut Vec<u8>) {
    out.push(RecordType::Metadata.byte());
    for entry in metadata {
        put::uvarint(out, entry.series_ref);
        out.push(entry.metric_type);
        put::length(out, 2);
        put::string(out, b"UNIT");
        put::string(out, entry.unit);
        put::string(out, b"HELP");
        put::string(out, entry.help);
    }
}
