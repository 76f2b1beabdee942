//! Records that do not decode to their end: what takes their place.
//!
//! Either the records of which they are glued together, or one of the first entries. A record ends where its bytes end, so the bytes up to the end of an entry are a record, too.

use crate::change::plan::SeparatedRecord;
use crate::record::{Record, RecordType, encode_samples_as, encode_series, summarize};
use crate::wal::layout::{FragmentType, HEADER_SIZE, HeadByte, Header};
use crate::wal::{Compression, crc};

use crate::wal::fill::{fill, literal};

/// What takes the place of a record that does not decode to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Substitute {
    /// The first of its entries.
    Part(Partial),
    /// The records that are glued together in it: nothing is lost. The segment is rewritten, since each needs a header.
    Parts(Vec<Vec<u8>>),
}

impl Substitute {
    /// The records.
    pub(super) fn records(&self) -> &[Vec<u8>] {
        match self {
            Self::Part(part) => std::slice::from_ref(&part.record),
            Self::Parts(records) => records,
        }
    }
}

/// What is kept of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partial {
    /// Entries.
    pub(super) entries: usize,
    /// The record of these alone.
    pub(super) record: Vec<u8>,
    /// As many bytes as the fragment had: one with this record, and fillings.
    pub(super) bytes: Vec<u8>,
}

/// The records of which `record` is glued together, which end there.
pub(super) fn parts(record: &[u8], ends: &[usize]) -> Vec<Vec<u8>> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(ends).filter_map(|(start, &end)| record.get(start..end)).map(<[u8]>::to_vec).collect()
}

/// What these records are.
pub(super) fn separated(parts: &[Vec<u8>]) -> Vec<SeparatedRecord> {
    let one = |part: &Vec<u8>| {
        let summary = summarize(part);
        let record = summary.record_type.map_or("unknown", RecordType::name).to_owned();
        SeparatedRecord { record, entries: summary.entries }
    };
    parts.iter().map(one).collect()
}

/// What can be kept of the record in `fragment`, which is not compressed and all of it, if it is one of series or samples.
/// Nothing if it is written in another way than an encoder writes it.
pub(super) fn partial(fragment: &[u8]) -> Option<Partial> {
    let header = Header::parse(fragment)?;
    let plain = HeadByte::new(FragmentType::Full, Compression::None);
    if header.head != plain || header.size() != fragment.len() {
        return None;
    }
    let data = &fragment[HEADER_SIZE..];
    // One entry less may be what leaves room for a filling.
    (1..=decodable(data)).rev().take(2).find_map(|entries| {
        let record = beginning(data, entries);
        let bytes = stand_in(&record, fragment.len())?;
        data.starts_with(&record).then_some(Partial { entries, record, bytes })
    })
}

/// Entries before the first that does not decode; none of other types.
fn decodable(data: &[u8]) -> usize {
    match Record::parse(data) {
        Record::Series(series) => series.entries().map_while(Result::ok).count(),
        Record::Samples(samples) => samples.entries().map_while(Result::ok).count(),
        Record::Tombstones(_)
        | Record::Exemplars(_)
        | Record::MmapMarkers(_)
        | Record::Metadata(_)
        | Record::Histograms(_)
        | Record::FloatHistograms(_)
        | Record::MinValidTime(_)
        | Record::Unknown(_) => 0,
    }
}

/// A record of the first `count` entries, as an encoder writes it.
fn beginning(data: &[u8], count: usize) -> Vec<u8> {
    let mut record = Vec::new();
    match Record::parse(data) {
        Record::Series(series) => {
            let entries = series.entries().map_while(Result::ok).take(count);
            let entries = entries.map(|entry| (entry.series_ref, entry.labels.iter().collect::<Vec<_>>()));
            encode_series(entries, &mut record);
        }
        Record::Samples(samples) => {
            let entries: Vec<_> = samples.entries().map_while(Result::ok).take(count).collect();
            encode_samples_as(samples.encoding, &entries, &mut record);
        }
        Record::Tombstones(_)
        | Record::Exemplars(_)
        | Record::MmapMarkers(_)
        | Record::Metadata(_)
        | Record::Histograms(_)
        | Record::FloatHistograms(_)
        | Record::MinValidTime(_)
        | Record::Unknown(_) => {}
    }
    record
}

/// `length` bytes of fragments that hold `record` and nothing else.
fn stand_in(record: &[u8], length: usize) -> Option<Vec<u8>> {
    let rest = length.checked_sub(HEADER_SIZE + record.len())?;
    let (compression, stored, filling) = match fill(rest) {
        Some(filling) => (Compression::None, record.to_vec(), filling),
        None => (Compression::Snappy, literal(record, length - HEADER_SIZE)?, Vec::new()),
    };
    let head = HeadByte::new(FragmentType::Full, compression);
    let header = Header { head, length: u16::try_from(stored.len()).ok()?, crc: crc::checksum(&stored) };
    Some([&header.to_bytes()[..], &stored, &filling].concat())
}

#[cfg(test)]
mod tests {
    use super::partial;
    use crate::record::{SampleEntry, encode_samples, encode_samples_v2, encode_series};
    use crate::wal::Compression;
    use crate::wal::writer::SegmentWriter;
    use crate::wal::{Event, SegmentReader};

    fn fragment(compression: Compression, stored: &[u8]) -> Vec<u8> {
        let mut writer = SegmentWriter::new(Vec::new());
        writer.record(compression, stored).unwrap();
        let mut bytes = writer.finish().unwrap();
        bytes.truncate(7 + stored.len());
        bytes
    }

    fn samples(count: u64) -> Vec<SampleEntry> {
        (1..=count).map(|series_ref| SampleEntry { series_ref, t: 1000, st: 0, value_bits: 7 }).collect()
    }

    fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = SegmentReader::new(bytes, bytes.len() as u64);
        let mut records = Vec::new();
        while let Some(event) = reader.next() {
            let Event::Record(record) = event else { panic!("{event:?}") };
            records.push(record.data.to_vec());
        }
        records
    }

    /// A samples record is its type, a ref and a time of 8 bytes each, and two bytes and a value for each sample as long as
    /// both differ by little: 17 + 10 n.
    #[test]
    fn the_first_samples_are_kept() {
        for count in [2, 3, 7, 200, 2000] {
            let mut whole = Vec::new();
            encode_samples(&samples(count), &mut whole);
            for cut in 1..20 {
                let data = &whole[..whole.len() - cut];
                let bytes = fragment(Compression::None, data);
                let left = u64::try_from(data.iter().skip(17).count()).unwrap();
                let Some(kept) = partial(&bytes) else {
                    assert!(left < 20, "{count} samples less {cut} bytes");
                    continue;
                };
                assert_eq!(kept.bytes.len(), bytes.len());
                let mut expected = Vec::new();
                encode_samples(&samples(kept.entries as u64), &mut expected);
                assert_eq!(kept.record, expected);
                let found = records(&kept.bytes);
                assert_eq!(found[0], expected);
                assert!(found[1..].iter().all(|record| *record == [2]));
                let dropped = count - kept.entries as u64;
                assert!(
                    dropped <= u64::try_from(cut.div_ceil(10)).unwrap() + 1,
                    "{dropped} dropped for {cut}"
                );
            }
        }
    }

    #[test]
    fn other_records_too() {
        let mut v2 = Vec::new();
        encode_samples_v2(&samples(5), &mut v2);
        let kept = partial(&fragment(Compression::None, &v2[..v2.len() - 4])).unwrap();
        assert_eq!((kept.entries, &v2[..kept.record.len()]), (4, &kept.record[..]));

        let series = |count| {
            let mut out = Vec::new();
            encode_series((1..=count).map(|n| (n, [(&b"__name__"[..], &b"up"[..])])), &mut out);
            out
        };
        // 8 bytes of ref, one of the count, 9 and 3 of the label.
        let whole = series(3);
        assert_eq!(whole.len(), 1 + 3 * 21);
        let kept = partial(&fragment(Compression::None, &whole[..whole.len() - 6])).unwrap();
        assert_eq!((kept.entries, kept.record), (2, series(2)));
    }

    #[test]
    fn what_nobody_writes_goes_whole() {
        let mut whole = Vec::new();
        encode_samples(&samples(5), &mut whole);
        let cut = &whole[..whole.len() - 4];
        assert_eq!(partial(&fragment(Compression::Snappy, cut)), None);
        let mut overlong = cut.to_vec();
        // The first sample's difference of refs, 0, in two bytes.
        overlong.splice(17..18, [0x80, 0]);
        assert_eq!(partial(&fragment(Compression::None, &overlong)), None);
        assert_eq!(partial(&fragment(Compression::None, &whole[..20])), None);
    }
}
