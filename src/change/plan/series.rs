//! Series that get their record back, as a plan has them, and the records that are made of them.

use std::fmt;
use std::io;

use serde::de::Error as _;
use serde::ser::{Error as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::hex;
use crate::record::{LabelSet, Labels, RecordType, encode_labels, parse_labels};
use crate::wal::Compression;
use crate::wal::writer::SegmentWriter;

/// The most bytes of a record that is made; the next series goes into the next one. One series may be larger.
const MOST: usize = 1 << 20;

/// A series that gets its record back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Its ref.
    #[serde(rename = "ref")]
    pub series_ref: u64,
    /// Its labels.
    pub labels: SeriesLabels,
}

/// A label set, as a record has it. In JSON pairs of name and value; `{"hex": ...}` for what is not UTF-8.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SeriesLabels(Vec<u8>);

impl SeriesLabels {
    /// Of these labels.
    #[must_use]
    pub fn of<'a>(labels: impl LabelSet<'a>) -> Self {
        let mut bytes = Vec::new();
        encode_labels(labels, &mut bytes);
        bytes.shrink_to_fit();
        Self(bytes)
    }

    /// The labels.
    #[must_use]
    pub fn get(&self) -> Labels<'_> {
        parse_labels(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for SeriesLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.get();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map().entries(labels.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

impl Serialize for SeriesLabels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let labels = parse_labels(&self.0).ok_or_else(|| S::Error::custom("no labels"))?;
        let mut pairs = serializer.serialize_seq(Some(labels.len()))?;
        for (name, value) in &labels {
            pairs.serialize_element(&[Text::of(name), Text::of(value)])?;
        }
        pairs.end()
    }
}

impl<'de> Deserialize<'de> for SeriesLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs: Vec<[Text; 2]> = Vec::deserialize(deserializer)?;
        let bytes = |text: &Text| match text {
            Text::Plain(text) => Ok(text.as_bytes().to_vec()),
            Text::Bytes { hex } => hex::bytes(hex).ok_or_else(|| D::Error::custom("no hexadecimal digits")),
        };
        let pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs
            .iter()
            .map(|[name, value]| Ok((bytes(name)?, bytes(value)?)))
            .collect::<Result<_, D::Error>>()?;
        let pairs: Vec<(&[u8], &[u8])> =
            pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        Ok(Self::of(pairs))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Bytes { hex: String },
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Bytes { hex: hex::digits(bytes) },
        }
    }
}

/// Writes records of these series, each ref with its labels, in their order.
pub(crate) fn write<W: io::Write>(series: &[Series], writer: &mut SegmentWriter<W>) -> io::Result<()> {
    let mut record = Vec::new();
    for one in series {
        if record.len() + one.labels.0.len() > MOST {
            writer.record(Compression::None, &record)?;
            record.clear();
        }
        if record.is_empty() {
            record.push(RecordType::Series.byte());
        }
        record.extend(one.series_ref.to_be_bytes());
        record.extend(&one.labels.0);
    }
    if record.is_empty() { Ok(()) } else { writer.record(Compression::None, &record) }
}

/// A segment that holds these series and nothing else.
pub(crate) fn segment(series: &[Series]) -> io::Result<Vec<u8>> {
    let mut writer = SegmentWriter::new(Vec::new());
    write(series, &mut writer)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::{MOST, Series, SeriesLabels, segment};
    use crate::record::{Record, SeriesEntry};
    use crate::wal::{Event, SegmentReader};

    fn series(series_ref: u64, labels: &[(&[u8], &[u8])]) -> Series {
        Series { series_ref, labels: SeriesLabels::of(labels.iter().copied()) }
    }

    #[test]
    fn as_json_and_back() {
        let odd = series(7, &[(b"__name__", b"up"), (b"path", b"caf\xe9"), ("sch\u{f6}n".as_bytes(), b"")]);
        let text = serde_json::to_string(&odd).unwrap();
        assert_eq!(
            text,
            r#"{"ref":7,"labels":[["__name__","up"],["path",{"hex":"636166e9"}],["schön",""]]}"#
        );
        assert_eq!(serde_json::from_str::<Series>(&text).unwrap(), odd);
        assert!(serde_json::from_str::<Series>(r#"{"ref":7,"labels":[["a",{"hex":"6g"}]]}"#).is_err());
    }

    /// Each of the first has 8 bytes of ref, one of the count, 9 and 4 + 100 of the label and its value's length.
    #[test]
    fn records_are_of_limited_size() {
        let value = [b'x'; 100];
        let mut all: Vec<Series> = (1..20_000).map(|n| series(n, &[(b"__name__", &value)])).collect();
        let long = vec![b'y'; 2 * MOST];
        all.push(series(20_000, &[(b"__name__", &long)]));
        all.push(series(20_001, &[(b"__name__", b"z")]));
        let bytes = segment(&all).unwrap();
        let mut reader = SegmentReader::new(&*bytes, bytes.len() as u64);
        let (mut found, mut sizes) = (Vec::new(), Vec::new());
        while let Some(event) = reader.next() {
            let Event::Record(record) = event else { panic!("{event:?}") };
            sizes.push(record.data.len());
            let Record::Series(entries) = Record::parse(record.data) else { panic!("{record:?}") };
            found.extend(entries.entries().map(|entry| {
                let SeriesEntry { series_ref, labels } = entry.unwrap();
                Series { series_ref, labels: SeriesLabels::of(&labels) }
            }));
        }
        assert_eq!(found, all);
        // 118 bytes each: three records, the long one alone, and the last.
        assert_eq!(sizes.iter().filter(|&&size| size <= MOST).count(), sizes.len() - 1);
        assert_eq!(sizes.len(), 20_000 * 118 / MOST + 1 + 2);
    }
}
