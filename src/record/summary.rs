//! One walk over a record, for what a scan wants to know of it.

use super::cursor::{AtCursor, Cursor};
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
    /// A ref is lower than the one before it.
    pub falls: bool,
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

/// As [`summarize`], and gives `each` the refs of all entries that can be decoded, in order: the first of those that follow one
/// another, and how many there are. They never wrap around.
#[must_use]
pub fn summarize_refs(record: &[u8], each: impl FnMut(u64, u64)) -> Summary {
    walk(record, DecoderVersion::default(), each)
}

fn walk(record: &[u8], dialect: DecoderVersion, each: impl FnMut(u64, u64)) -> Summary {
    let mut seen = Summing::new(each);
    let error = match Record::parse_as(record, dialect) {
        Record::Series(r) => seen.all(r.entries(), |seen, e| seen.series(e.series_ref)),
        Record::Samples(r) => {
            let end = r.runs(|run| seen.run(run));
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
        overlong: seen.overlong,
        error,
    }
}

/// Bounds kept bare while walking; low above high means that none was seen.
struct Summing<F> {
    each: F,
    entries: u64,
    unknown_schemas: u64,
    overlong: bool,
    min_time: i64,
    max_time: i64,
    min_ref: u64,
    max_ref: u64,
    last_ref: u64,
    falls: bool,
    /// Refs that follow one another and have not been given to `each`: the first, and how many.
    open: (u64, u64),
}

impl<F: FnMut(u64, u64)> Summing<F> {
    const fn new(each: F) -> Self {
        Self {
            each,
            entries: 0,
            unknown_schemas: 0,
            overlong: false,
            min_time: i64::MAX,
            max_time: i64::MIN,
            min_ref: u64::MAX,
            max_ref: u64::MIN,
            last_ref: 0,
            falls: false,
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

    fn run(&mut self, run: SampleRun) {
        self.entries += run.count;
        self.refs(run.first_ref, run.count);
        self.min_time = self.min_time.min(run.t);
        self.max_time = self.max_time.max(run.t);
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
        (self.each)(first, count);
        self.min_ref = self.min_ref.min(first);
        self.max_ref = self.max_ref.max(last);
        self.falls |= first < self.last_ref;
        self.last_ref = last;
    }

    fn timed(&mut self, series_ref: u64, t: i64) {
        self.series(series_ref);
        self.min_time = self.min_time.min(t);
        self.max_time = self.max_time.max(t);
    }
}
