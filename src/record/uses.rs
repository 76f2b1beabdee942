//! Which series a record speaks of, in order, when, and where in its bytes.

use super::{DecodeError, Record};

/// One entry, by what all kinds of entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesUse {
    /// The ref of the series.
    pub series_ref: u64,
    /// The time of a sample, histogram or exemplar, ms.
    pub time: Option<i64>,
    /// Where the entry ends in the record.
    pub end: usize,
}

/// Calls `visit` for every entry up to the first that does not decode.
pub fn each_use(record: &[u8], visit: impl FnMut(SeriesUse)) {
    macro_rules! walk {
        ($r:expr, $left:path, $time:expr) => {
            walk(record.len(), $r.entries(), $left, |e| (e.series_ref, $time(e)), visit)
        };
    }
    match Record::parse(record) {
        Record::Samples(r) => walk!(r, super::SampleIter::bytes_left, |e: &super::SampleEntry| Some(e.t)),
        Record::Exemplars(r) => {
            walk!(r, super::ExemplarIter::bytes_left, |e: &super::ExemplarEntry<'_>| Some(e.t));
        }
        Record::Histograms(r) => {
            walk!(r, super::HistogramIter::bytes_left, |e: &super::HistogramEntry<'_>| Some(e.t));
        }
        Record::FloatHistograms(r) => {
            walk!(r, super::FloatHistogramIter::bytes_left, |e: &super::FloatHistogramEntry<'_>| Some(e.t));
        }
        Record::Series(r) => walk!(r, super::SeriesIter::bytes_left, |_| None),
        Record::Metadata(r) => walk!(r, super::MetadataIter::bytes_left, |_| None),
        Record::Tombstones(r) => walk!(r, super::TombstoneIter::bytes_left, |_| None),
        Record::MmapMarkers(r) => walk!(r, super::MmapMarkerIter::bytes_left, |_| None),
        Record::MinValidTime(_) | Record::Unknown(_) => {}
    }
}

fn walk<E, I: Iterator<Item = Result<E, DecodeError>>>(
    length: usize,
    mut entries: I,
    bytes_left: impl Fn(&I) -> usize,
    of: impl Fn(&E) -> (u64, Option<i64>),
    mut visit: impl FnMut(SeriesUse),
) {
    while let Some(Ok(entry)) = entries.next() {
        let (series_ref, time) = of(&entry);
        visit(SeriesUse { series_ref, time, end: length - bytes_left(&entries) });
    }
}
