//! Which series a record speaks of, in order, when, and where in its bytes.

use super::cursor::AtCursor;
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
pub fn each_use(record: &[u8], mut visit: impl FnMut(SeriesUse)) {
    each_use_while(record, |now| {
        visit(now);
        true
    });
}

/// As [`each_use`], as long as `visit` wants more.
pub(super) fn each_use_while(record: &[u8], visit: impl FnMut(SeriesUse) -> bool) {
    let length = record.len();
    match Record::parse(record) {
        Record::Samples(r) => walk(length, r.entries(), |e| (e.series_ref, Some(e.t)), visit),
        Record::Exemplars(r) => walk(length, r.entries(), |e| (e.series_ref, Some(e.t)), visit),
        Record::Histograms(r) => walk(length, r.entries(), |e| (e.series_ref, Some(e.t)), visit),
        Record::FloatHistograms(r) => walk(length, r.entries(), |e| (e.series_ref, Some(e.t)), visit),
        Record::Series(r) => walk(length, r.entries(), |e| (e.series_ref, None), visit),
        Record::Metadata(r) => walk(length, r.entries(), |e| (e.series_ref, None), visit),
        Record::Tombstones(r) => walk(length, r.entries(), |e| (e.series_ref, None), visit),
        Record::MmapMarkers(r) => walk(length, r.entries(), |e| (e.series_ref, None), visit),
        Record::MinValidTime(_) | Record::Unknown(_) => {}
    }
}

fn walk<E, I: Iterator<Item = Result<E, DecodeError>> + AtCursor>(
    length: usize,
    mut entries: I,
    of: impl Fn(E) -> (u64, Option<i64>),
    mut visit: impl FnMut(SeriesUse) -> bool,
) {
    while let Some(Ok(entry)) = entries.next() {
        let (series_ref, time) = of(entry);
        if !visit(SeriesUse { series_ref, time, end: length - entries.cursor().rest().len() }) {
            break;
        }
    }
}
