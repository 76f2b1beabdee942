//! One walk over a record, for what a scan wants to know of it.

use super::cursor::{AtCursor, Cursor};
use super::runs::SampleVisitor;
use super::{DecodeError, DecoderVersion, Record, RecordType, SampleRun};

/// What one walk over a record finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its kind; None if it is empty or unknown to Prometheus.
    pub record_type: Option<RecordType>,
    /// Entries that can be decoded, those of unknown schemas among them.
    pub entries: u64,
    /// Histograms of schemas unknown to Prometheus, which skips them.
    pub unknown_schemas: u64,
    /// Lowest time of samples, histograms and exemplars, ms.
    pub min_time: Option<i64>,
    /// Highest time of samples, histograms and exemplars, ms.
    pub max_time: Option<i64>,
    /// Lowest ref of a series.
    pub min_ref: Option<u64>,
    /// Highest ref of a series.
    pub max_ref: Option<u64>,
    /// Refs that are lower than the one before them.
    pub falls: u64,
    /// A ref is the one before it, too.
    pub repeats: bool,
    /// A varint has more bytes than it needs: bytes that no writer wrote so.
    pub overlong: bool,
    /// Why the rest cannot be decoded.
    pub error: Option<DecodeError>,
}

/// Decodes all of the record, once, without allocating.
#[must_use]
pub fn summarize(record: &[u8]) -> Summary {
    walk(record, DecoderVersion::default(), |_, _| {})
}

/// The same for decoders of other versions of Prometheus.
#[must_use]
pub fn summarize_as(record: &[u8], dialect: DecoderVersion) -> Summary {
    walk(record, dialect, |_, _| {})
}

/// As [`summarize`], and gives `visitor` the refs of all entries that can be decoded, in order.
#[must_use]
pub fn summarize_refs(record: &[u8], visitor: impl RefVisitor) -> Summary {
    walk(record, DecoderVersion::default(), visitor)
}

/// What the refs of a record are given to; a closure takes them all as runs.
pub trait RefVisitor {
    /// So many refs that follow one another, from the first on. They never wrap around.
    fn run(&mut self, first: u64, count: u64);

    /// Refs one by one.
    fn scattered(&mut self, refs: &[u64]) {
        for &series_ref in refs {
            self.run(series_ref, 1);
        }
    }
}

impl<F: FnMut(u64, u64)> RefVisitor for F {
    fn run(&mut self, first: u64, count: u64) {
        self(first, count);
    }
}

fn walk(record: &[u8], dialect: DecoderVersion, visitor: impl RefVisitor) -> Summary {
    let mut seen = Summing::new(visitor);
    let error = match Record::parse_as(record, dialect) {
        Record::Series(r) => seen.all(r.entries(), |seen, e| seen.series(e.series_ref)),
        Record::Samples(r) => {
            let end = r.visit(&mut seen);
            seen.ended(end)
        }
        Record::Tombstones(r) => seen.all(r.entries(), |seen, e| seen.series(e.series_ref)),
        Record::Exemplars(r) => seen.all(r.entries(), |seen, e| seen.timed(e.series_ref, e.t)),
        Record::MmapMarkers(r) => seen.all(r.entries(), |seen, e| seen.series(e.series_ref)),
        Record::Metadata(r) => seen.all(r.entries(), |seen, e| seen.series(e.series_ref)),
        Record::Histograms(r) => {
            let end = r.heads(|series_ref, t, known| seen.histogram(series_ref, t, known));
            seen.ended(end)
        }
        Record::FloatHistograms(r) => {
            let end = r.heads(|series_ref, t, known| seen.histogram(series_ref, t, known));
            seen.ended(end)
        }
        Record::MinValidTime(r) => {
            seen.entries = u64::from(r.min_time().is_ok());
            r.min_time().err()
        }
        Record::Unknown(_) => None,
    };
    seen.close();
    Summary {
        record_type: RecordType::of(record),
        entries: seen.entries,
        unknown_schemas: seen.unknown_schemas,
        min_time: (seen.min_time <= seen.max_time).then_some(seen.min_time),
        max_time: (seen.min_time <= seen.max_time).then_some(seen.max_time),
        min_ref: (seen.min_ref <= seen.max_ref).then_some(seen.min_ref),
        max_ref: (seen.min_ref <= seen.max_ref).then_some(seen.max_ref),
        falls: seen.falls,
        repeats: seen.repeats,
        overlong: seen.overlong,
        error,
    }
}

/// Bounds kept bare while walking; low above high means that none was seen.
struct Summing<V> {
    visitor: V,
    entries: u64,
    unknown_schemas: u64,
    overlong: bool,
    min_time: i64,
    max_time: i64,
    min_ref: u64,
    max_ref: u64,
    /// None before the first.
    last_ref: Option<u64>,
    falls: u64,
    repeats: bool,
    /// Refs that follow one another and have not been given to `visitor`: the first, and how many.
    open: (u64, u64),
}

impl<V: RefVisitor> Summing<V> {
    const fn new(visitor: V) -> Self {
        Self {
            visitor,
            entries: 0,
            unknown_schemas: 0,
            overlong: false,
            min_time: i64::MAX,
            max_time: i64::MIN,
            min_ref: u64::MAX,
            max_ref: u64::MIN,
            last_ref: None,
            falls: 0,
            repeats: false,
            open: (0, 0),
        }
    }

    fn all<E>(
        &mut self,
        mut entries: impl Iterator<Item = Result<E, DecodeError>> + AtCursor,
        look: impl Fn(&mut Self, E),
    ) -> Option<DecodeError> {
        for entry in entries.by_ref() {
            match entry {
                Ok(entry) => {
                    self.entries += 1;
                    look(self, entry);
                }
                Err(error) => return Some(error),
            }
        }
        self.ended((*entries.cursor(), None))
    }

    /// The record has been decoded up to the cursor, and this is why no further.
    fn ended(&mut self, (cursor, error): (Cursor<'_>, Option<DecodeError>)) -> Option<DecodeError> {
        self.overlong = error.is_none() && cursor.overlong();
        error
    }

    fn histogram(&mut self, series_ref: u64, t: i64, known_schema: bool) {
        self.entries += 1;
        self.unknown_schemas += u64::from(!known_schema);
        self.timed(series_ref, t);
    }

    fn series(&mut self, series_ref: u64) {
        let (first, count) = self.open;
        if first.checked_add(count) == Some(series_ref) {
            self.open.1 += 1;
        } else {
            self.close();
            self.open = (series_ref, 1);
        }
    }

    /// No ref follows those that are open.
    fn close(&mut self) {
        let (first, count) = std::mem::take(&mut self.open);
        if count > 0 {
            self.refs(first, count);
        }
    }

    fn refs(&mut self, first: u64, count: u64) {
        let last = first + (count - 1);
        self.visitor.run(first, count);
        self.min_ref = self.min_ref.min(first);
        self.max_ref = self.max_ref.max(last);
        if let Some(before) = self.last_ref.replace(last) {
            self.falls += u64::from(first < before);
            self.repeats |= first == before;
        }
    }

    fn timed(&mut self, series_ref: u64, t: i64) {
        self.series(series_ref);
        self.min_time = self.min_time.min(t);
        self.max_time = self.max_time.max(t);
    }
}

impl<V: RefVisitor> SampleVisitor for Summing<V> {
    fn run(&mut self, run: SampleRun) {
        self.entries += run.count;
        self.refs(run.first_ref, run.count);
        self.min_time = self.min_time.min(run.t);
        self.max_time = self.max_time.max(run.t);
    }

    fn scattered(&mut self, refs: &[u64], times: &[i64]) {
        let Some((&first, rest)) = refs.split_first() else { return };
        self.entries += refs.len() as u64;
        self.visitor.scattered(refs);
        // In variables: they stay in registers.
        let (mut min, mut max, mut falls, mut repeats) = (first, first, 0, false);
        let mut before = first;
        for &series_ref in rest {
            min = min.min(series_ref);
            max = max.max(series_ref);
            falls += u64::from(series_ref < before);
            repeats |= series_ref == before;
            before = series_ref;
        }
        self.repeats |= repeats;
        if let Some(last) = self.last_ref.replace(before) {
            self.falls += u64::from(first < last);
            self.repeats |= first == last;
        }
        self.falls += falls;
        self.min_ref = self.min_ref.min(min);
        self.max_ref = self.max_ref.max(max);
        for &t in times {
            self.min_time = self.min_time.min(t);
            self.max_time = self.max_time.max(t);
        }
    }
}
