//! Types 7, 9 and 12, histograms with integer counts; types 8, 10 and 13, histograms with float counts.
//!
//! Types 7 to 10: BE64 base ref; BE64 base time; repeat { zigzag ref; zigzag time; histogram }.
//! Types 12 and 13: zigzag ref, time and start timestamp of the first, histogram; then repeat { zigzag ref from the
//! previous; zigzag time from the first; start timestamp; histogram }.
//!
//! A histogram: u8 hint; zigzag schema; BE64 zero threshold; zero count; count; BE64 sum; positive spans; negative
//! spans; positive buckets; negative buckets; custom bounds if the schema is -53. Each list has a uvarint count
//! before it (`DecodeHistogram`, `DecodeFloatHistogram`, `tsdb/record/record.go`).

use super::base::{Base, Chain};
use super::cursor::{AtCursor, Cursor, Cut};
use super::error::ResolutionProblem;
use super::{DecodeError, Dialect, EntryEncoding, RecordType, put};

/// The schema of histograms with custom bucket bounds (`model/histogram/generic.go`).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What a span, a bucket and a custom bound cost Prometheus each while it decodes.
const ELEMENT_BYTES: u64 = 8;

/// A record of integer histograms, of any of its three types.
#[derive(Clone, Copy, Debug)]
pub struct HistogramsRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) encoding: EntryEncoding,
    pub(crate) dialect: Dialect,
}

/// A record of float histograms, of any of its three types.
#[derive(Clone, Copy, Debug)]
pub struct FloatHistogramsRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) encoding: EntryEncoding,
    pub(crate) dialect: Dialect,
}

/// A sample that is a histogram with integer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramEntry<'a> {
    /// The series.
    pub series_ref: u64,
    /// Timestamp, ms.
    pub t: i64,
    /// Start timestamp, ms; 0 if there is none.
    pub st: i64,
    /// The histogram.
    pub histogram: Histogram<'a>,
}

/// A sample that is a histogram with float counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloatHistogramEntry<'a> {
    /// The series.
    pub series_ref: u64,
    /// Timestamp, ms.
    pub t: i64,
    /// Start timestamp, ms; 0 if there is none.
    pub st: i64,
    /// The histogram.
    pub histogram: FloatHistogram<'a>,
}

/// A histogram with integer counts, its lists still in the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<'a> {
    /// Counter reset hint: 0 unknown, 1 reset, 2 no reset, 3 gauge.
    pub hint: u8,
    /// Resolution: -4 to 8, 9 to 52 and -9 to -5 reserved, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// The bits of the zero bucket's width, a 64-bit float.
    pub zero_threshold_bits: u64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// Observations in all.
    pub count: u64,
    /// The bits of the sum of observations, a 64-bit float.
    pub sum_bits: u64,
    /// Where the positive buckets are.
    pub pos_spans: Spans<'a>,
    /// Where the negative buckets are.
    pub neg_spans: Spans<'a>,
    /// The positive buckets, each as the difference from the one before it.
    pub pos: Deltas<'a>,
    /// The negative buckets, each as the difference from the one before it.
    pub neg: Deltas<'a>,
    /// Upper bounds of custom buckets.
    pub custom: FloatBits<'a>,
}

/// A histogram with float counts, its lists still in the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloatHistogram<'a> {
    /// Counter reset hint: 0 unknown, 1 reset, 2 no reset, 3 gauge.
    pub hint: u8,
    /// Resolution: -4 to 8, 9 to 52 and -9 to -5 reserved, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// The bits of the zero bucket's width, a 64-bit float.
    pub zero_threshold_bits: u64,
    /// The bits of the observations in the zero bucket, a 64-bit float.
    pub zero_count_bits: u64,
    /// The bits of the observations in all, a 64-bit float.
    pub count_bits: u64,
    /// The bits of the sum of observations, a 64-bit float.
    pub sum_bits: u64,
    /// Where the positive buckets are.
    pub pos_spans: Spans<'a>,
    /// Where the negative buckets are.
    pub neg_spans: Spans<'a>,
    /// The positive buckets.
    pub pos: FloatBits<'a>,
    /// The negative buckets.
    pub neg: FloatBits<'a>,
    /// Upper bounds of custom buckets.
    pub custom: FloatBits<'a>,
}

/// Neighbouring buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Empty buckets since the span before; in the first span, the index of its first bucket.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// Whether Prometheus knows a schema. It skips a histogram of any other without an error, and warns
/// `skipping histogram with unknown schema in WAL record` (`IsKnownSchema`, `model/histogram/generic.go`).
#[must_use]
pub const fn is_known_schema(schema: i32) -> bool {
    schema == CUSTOM_BUCKETS_SCHEMA || (-9 <= schema && schema <= 52)
}

impl HistogramEntry<'_> {
    /// See [`is_known_schema`].
    #[must_use]
    pub const fn known_schema(&self) -> bool {
        is_known_schema(self.histogram.schema)
    }
}

impl FloatHistogramEntry<'_> {
    /// See [`is_known_schema`].
    #[must_use]
    pub const fn known_schema(&self) -> bool {
        is_known_schema(self.histogram.schema)
    }
}

/// A list of the record that has been walked over once.
#[derive(Clone, Copy, Debug, Default)]
struct List<'a> {
    /// How many elements Prometheus makes room for. More than there are bytes for only in a list that is cut.
    count: u64,
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    /// Reads the count, then passes over so many elements. What has been read stays in the list on failure, because
    /// Prometheus looks at half-decoded histograms too.
    #[inline]
    fn decode(
        &mut self,
        cursor: &mut Cursor<'a>,
        skip: impl Fn(&mut Cursor<'a>, u64) -> Result<(), Cut>,
    ) -> Result<(), Cut> {
        let count = cursor.count()?;
        // Of the two sides of a histogram one is empty in most.
        if count == 0 {
            *self = Self::default();
            return Ok(());
        }
        if cursor.is_absurd(count, ELEMENT_BYTES) {
            return Err(Cut::ABSURD);
        }
        *self = Self { count, bytes: cursor.rest() };
        let start = *cursor;
        skip(cursor, count)?;
        self.bytes = cursor.since(&start);
        Ok(())
    }

    fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }
}

macro_rules! list {
    ($(#[$doc:meta])* $name:ident, $iter:ident, $item:ty, $next:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name<'a>(List<'a>);

        impl<'a> $name<'a> {
            /// How many there are.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether there are none.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.0.count == 0
            }

            /// Each of them, in the record's order.
            #[must_use]
            pub const fn iter(&self) -> $iter<'a> {
                $iter { cursor: Cursor::new(self.0.bytes), left: self.0.count }
            }
        }

        impl<'a> IntoIterator for &$name<'a> {
            type Item = $item;
            type IntoIter = $iter<'a>;

            fn into_iter(self) -> Self::IntoIter {
                self.iter()
            }
        }

        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.0.count == other.0.count && self.iter().eq(other.iter())
            }
        }

        impl Eq for $name<'_> {}

        /// Walks over
        #[doc = concat!("[`", stringify!($name), "`].")]
        #[derive(Clone, Debug)]
        pub struct $iter<'a> {
            cursor: Cursor<'a>,
            left: u64,
        }

        impl Iterator for $iter<'_> {
            type Item = $item;

            fn next(&mut self) -> Option<Self::Item> {
                self.left = self.left.checked_sub(1)?;
                let next: fn(&mut Cursor<'_>) -> Result<$item, Cut> = $next;
                next(&mut self.cursor).ok()
            }
        }
    };
}

list!(
    /// The spans of one side of a histogram.
    Spans,
    SpanIter,
    Span,
    |cursor| {
        let offset = cursor.varint32()?;
        // In a span that is cut here Prometheus keeps the offset.
        let length = cursor.uvarint32().unwrap_or_else(|_| {
            *cursor = Cursor::default();
            0
        });
        Ok(Span { offset, length })
    }
);
list!(
    /// Buckets of an integer histogram, each as the difference from the one before it.
    Deltas,
    DeltaIter,
    i64,
    |cursor| cursor.varint64()
);
list!(
    /// The bits of 64-bit floats.
    FloatBits,
    FloatBitsIter,
    u64,
    |cursor| cursor.be64()
);

impl<'a> Spans<'a> {
    fn decode(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Cut> {
        self.0.decode(cursor, |cursor, count| cursor.skip_varints(count.saturating_mul(2)))
    }

    fn buckets(&self) -> u64 {
        self.iter().fold(0, |sum: u64, span| sum.saturating_add(span.length.into()))
    }

    /// Why Prometheus cannot lower the resolution of buckets that lie so, if it cannot.
    fn resolution_problem(&self, have: u64) -> Option<ResolutionProblem> {
        let mut need = 0_u64;
        for (span, number) in self.iter().zip(1_u64..) {
            if number > 1 && span.offset < 0 {
                return Some(ResolutionProblem::NegativeOffset { span: number, offset: span.offset });
            }
            need = need.saturating_add(u64::from(span.length));
            if need > have {
                return Some(ResolutionProblem::SpansNeedMore { have });
            }
        }
        (need != have).then_some(ResolutionProblem::SpansNeedFewer { need, have })
    }
}

impl<'a> Deltas<'a> {
    fn decode(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Cut> {
        self.0.decode(cursor, Cursor::skip_varints)
    }
}

impl<'a> FloatBits<'a> {
    fn decode(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Cut> {
        self.0.decode(cursor, Cursor::skip_be64)
    }
}

/// What the two kinds of histogram have in common.
trait Body<'a>: Default {
    /// Fills in as much as can be read.
    fn decode(&mut self, cursor: &mut Cursor<'a>, dialect: Dialect) -> Result<(), Cut>;
    fn schema(&self) -> i32;
    fn resolution_problem(&self) -> Option<ResolutionProblem>;
    /// Whether the spans of one side speak of more buckets than it has.
    fn needs_more_buckets(&self) -> bool;
}

impl<'a> Histogram<'a> {
    /// Decodes one from the front of `cursor`, as chunk snapshots hold it.
    pub(crate) fn decode_from(cursor: &mut Cursor<'a>) -> Result<Self, Cut> {
        let mut histogram = Self::default();
        histogram.decode(cursor, Dialect::default())?;
        Ok(histogram)
    }
}

impl<'a> FloatHistogram<'a> {
    /// Decodes one from the front of `cursor`, as chunk snapshots hold it.
    pub(crate) fn decode_from(cursor: &mut Cursor<'a>) -> Result<Self, Cut> {
        let mut histogram = Self::default();
        histogram.decode(cursor, Dialect::default())?;
        Ok(histogram)
    }
}

impl<'a> Body<'a> for Histogram<'a> {
    #[inline]
    fn decode(&mut self, cursor: &mut Cursor<'a>, dialect: Dialect) -> Result<(), Cut> {
        if dialect.has_hints() {
            self.hint = cursor.byte()?;
        }
        self.schema = cursor.varint32()?;
        self.zero_threshold_bits = cursor.be64()?;
        self.zero_count = cursor.uvarint64()?;
        self.count = cursor.uvarint64()?;
        self.sum_bits = cursor.be64()?;
        self.pos_spans.decode(cursor)?;
        self.neg_spans.decode(cursor)?;
        self.pos.decode(cursor)?;
        self.neg.decode(cursor)?;
        if self.schema == CUSTOM_BUCKETS_SCHEMA && dialect.has_custom_bounds() {
            self.custom.decode(cursor)?;
        }
        Ok(())
    }

    fn schema(&self) -> i32 {
        self.schema
    }

    fn resolution_problem(&self) -> Option<ResolutionProblem> {
        let positive = self.pos_spans.resolution_problem(self.pos.0.count);
        positive.or_else(|| self.neg_spans.resolution_problem(self.neg.0.count))
    }

    fn needs_more_buckets(&self) -> bool {
        self.pos_spans.buckets() > self.pos.0.count || self.neg_spans.buckets() > self.neg.0.count
    }
}

impl<'a> Body<'a> for FloatHistogram<'a> {
    #[inline]
    fn decode(&mut self, cursor: &mut Cursor<'a>, dialect: Dialect) -> Result<(), Cut> {
        if dialect.has_hints() {
            self.hint = cursor.byte()?;
        }
        self.schema = cursor.varint32()?;
        self.zero_threshold_bits = cursor.be64()?;
        self.zero_count_bits = cursor.be64()?;
        self.count_bits = cursor.be64()?;
        self.sum_bits = cursor.be64()?;
        self.pos_spans.decode(cursor)?;
        self.neg_spans.decode(cursor)?;
        self.pos.decode(cursor)?;
        self.neg.decode(cursor)?;
        if self.schema == CUSTOM_BUCKETS_SCHEMA && dialect.has_custom_bounds() {
            self.custom.decode(cursor)?;
        }
        Ok(())
    }

    fn schema(&self) -> i32 {
        self.schema
    }

    fn resolution_problem(&self) -> Option<ResolutionProblem> {
        let positive = self.pos_spans.resolution_problem(self.pos.0.count);
        positive.or_else(|| self.neg_spans.resolution_problem(self.neg.0.count))
    }

    fn needs_more_buckets(&self) -> bool {
        self.pos_spans.buckets() > self.pos.0.count || self.neg_spans.buckets() > self.neg.0.count
    }
}

/// Walks over either kind of record.
#[derive(Clone, Debug)]
struct Walk<'a> {
    cursor: Cursor<'a>,
    layout: Result<Layout, Cut>,
    dialect: Dialect,
    /// The histograms Prometheus has kept, which leaves out those of unknown schemas.
    kept: u64,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    V1(Base),
    V2 { chain: Chain, started: bool },
}

impl<'a> Walk<'a> {
    fn new(mut cursor: Cursor<'a>, encoding: EntryEncoding, dialect: Dialect) -> Self {
        let layout = match encoding {
            EntryEncoding::V1 => Base::decode(&mut cursor).map(Layout::V1),
            EntryEncoding::V2 if cursor.is_empty() => Err(Cut::SHORT),
            EntryEncoding::V2 => Chain::decode(&mut cursor).map(|chain| Layout::V2 { chain, started: false }),
        };
        Self { cursor, layout, dialect, kept: 0 }
    }

    /// Ref, time, start timestamp and histogram of the next entry.
    #[inline]
    fn next<B: Body<'a>>(&mut self) -> Option<Result<(u64, i64, i64, B), DecodeError>> {
        if self.cursor.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.cursor = Cursor::default();
        }
        Some(entry)
    }

    /// Tells of each entry its ref, its time, and whether Prometheus knows its schema; and how the decoding ends.
    fn heads<B: Body<'a>>(
        mut self,
        mut each: impl FnMut(u64, i64, bool),
    ) -> (Cursor<'a>, Option<DecodeError>) {
        while !self.cursor.is_empty() {
            let mut body = B::default();
            match self.entry_into(&mut body) {
                Ok((series_ref, t, _)) => each(series_ref, t, is_known_schema(body.schema())),
                Err(error) => return (Cursor::default(), Some(error)),
            }
        }
        (self.cursor, None)
    }

    fn entry<B: Body<'a>>(&mut self) -> Result<(u64, i64, i64, B), DecodeError> {
        let mut body = B::default();
        let (series_ref, t, st) = self.entry_into(&mut body)?;
        Ok((series_ref, t, st, body))
    }

    /// Ref, time and start timestamp of the next entry, whose histogram goes into `body`, which is empty.
    #[inline]
    fn entry_into<B: Body<'a>>(&mut self, body: &mut B) -> Result<(u64, i64, i64), DecodeError> {
        if let Err(cut) = self.layout {
            return Err(DecodeError::after(cut, 0, "histograms"));
        }
        // After the first error Prometheus reads zeros and carries on to the end of the entry: it judges the schema
        // (0 if that was not reached) and reduces the resolution before it looks at the error.
        let head = self.head();
        let read = head.and_then(|_| body.decode(&mut self.cursor, self.dialect));
        let crashes = read.is_err_and(|cut| cut.crashes);
        let known = is_known_schema(body.schema()) || !self.dialect.judges_schemas();
        if (9..=52).contains(&body.schema()) && !crashes {
            self.lower_resolution(body)?;
        }
        self.kept += u64::from(known);
        read.map_err(|cut| DecodeError::after(cut, self.kept, "histograms"))?;
        Ok(head.unwrap_or_default())
    }

    /// Fails where Prometheus fails to make a resolution of 8 out of a higher one.
    fn lower_resolution<B: Body<'a>>(&self, body: &B) -> Result<(), DecodeError> {
        match self.dialect {
            Dialect::V3_7 if body.needs_more_buckets() => {
                Err(DecodeError::after(Cut::ABSURD, self.kept, "histograms"))
            }
            Dialect::V2_30 | Dialect::V2_42 | Dialect::V3_2 | Dialect::V3_7 => Ok(()),
            Dialect::V3_9 => match body.resolution_problem() {
                Some(problem) => Err(DecodeError::resolution(self.kept + 1, problem)),
                None => Ok(()),
            },
        }
    }

    #[inline]
    fn head(&mut self) -> Result<(u64, i64, i64), Cut> {
        match &mut self.layout {
            Ok(Layout::V1(base)) => base.absolute(&mut self.cursor).map(|(series_ref, t)| (series_ref, t, 0)),
            Ok(Layout::V2 { chain, started: true }) => chain.advance(&mut self.cursor),
            Ok(Layout::V2 { chain, started }) => {
                *started = true;
                Ok((chain.prev_ref, chain.first_t, chain.first_st))
            }
            Err(cut) => Err(*cut),
        }
    }
}

impl<'a> HistogramsRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub fn entries(&self) -> HistogramIter<'a> {
        HistogramIter(Walk::new(self.body, self.encoding, self.dialect))
    }

    /// The same entries, by their refs, times, and whether Prometheus knows their schemas; and how their decoding ends.
    pub(crate) fn heads(&self, each: impl FnMut(u64, i64, bool)) -> (Cursor<'a>, Option<DecodeError>) {
        Walk::new(self.body, self.encoding, self.dialect).heads::<Histogram<'_>>(each)
    }
}

impl<'a> FloatHistogramsRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub fn entries(&self) -> FloatHistogramIter<'a> {
        FloatHistogramIter(Walk::new(self.body, self.encoding, self.dialect))
    }

    /// The same entries, by their refs, times, and whether Prometheus knows their schemas; and how their decoding ends.
    pub(crate) fn heads(&self, each: impl FnMut(u64, i64, bool)) -> (Cursor<'a>, Option<DecodeError>) {
        Walk::new(self.body, self.encoding, self.dialect).heads::<FloatHistogram<'_>>(each)
    }
}

/// Walks over a [`HistogramsRecord`].
#[derive(Clone, Debug)]
pub struct HistogramIter<'a>(Walk<'a>);

/// Walks over a [`FloatHistogramsRecord`].
#[derive(Clone, Debug)]
pub struct FloatHistogramIter<'a>(Walk<'a>);

impl AtCursor for HistogramIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.0.cursor
    }
}

impl AtCursor for FloatHistogramIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.0.cursor
    }
}

impl<'a> Iterator for HistogramIter<'a> {
    type Item = Result<HistogramEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        Some(entry.map(|(series_ref, t, st, histogram)| HistogramEntry { series_ref, t, st, histogram }))
    }
}

impl<'a> Iterator for FloatHistogramIter<'a> {
    type Item = Result<FloatHistogramEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        Some(entry.map(|(series_ref, t, st, histogram)| FloatHistogramEntry { series_ref, t, st, histogram }))
    }
}

/// A histogram with integer counts, to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedHistogram {
    /// Counter reset hint: 0 unknown, 1 reset, 2 no reset, 3 gauge.
    pub hint: u8,
    /// Resolution: -4 to 8, 9 to 52 and -9 to -5 reserved, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// The bits of the zero bucket's width, a 64-bit float.
    pub zero_threshold_bits: u64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// Observations in all.
    pub count: u64,
    /// The bits of the sum of observations, a 64-bit float.
    pub sum_bits: u64,
    /// Where the positive buckets are.
    pub pos_spans: Vec<Span>,
    /// Where the negative buckets are.
    pub neg_spans: Vec<Span>,
    /// The positive buckets, each as the difference from the one before it.
    pub pos: Vec<i64>,
    /// The negative buckets, each as the difference from the one before it.
    pub neg: Vec<i64>,
    /// Upper bounds of custom buckets.
    pub custom: Vec<u64>,
}

/// A histogram with float counts, to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedFloatHistogram {
    /// Counter reset hint: 0 unknown, 1 reset, 2 no reset, 3 gauge.
    pub hint: u8,
    /// Resolution: -4 to 8, 9 to 52 and -9 to -5 reserved, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// The bits of the zero bucket's width, a 64-bit float.
    pub zero_threshold_bits: u64,
    /// The bits of the observations in the zero bucket, a 64-bit float.
    pub zero_count_bits: u64,
    /// The bits of the observations in all, a 64-bit float.
    pub count_bits: u64,
    /// The bits of the sum of observations, a 64-bit float.
    pub sum_bits: u64,
    /// Where the positive buckets are.
    pub pos_spans: Vec<Span>,
    /// Where the negative buckets are.
    pub neg_spans: Vec<Span>,
    /// The positive buckets.
    pub pos: Vec<u64>,
    /// The negative buckets.
    pub neg: Vec<u64>,
    /// Upper bounds of custom buckets.
    pub custom: Vec<u64>,
}

impl From<Histogram<'_>> for OwnedHistogram {
    fn from(histogram: Histogram<'_>) -> Self {
        Self {
            hint: histogram.hint,
            schema: histogram.schema,
            zero_threshold_bits: histogram.zero_threshold_bits,
            zero_count: histogram.zero_count,
            count: histogram.count,
            sum_bits: histogram.sum_bits,
            pos_spans: histogram.pos_spans.iter().collect(),
            neg_spans: histogram.neg_spans.iter().collect(),
            pos: histogram.pos.iter().collect(),
            neg: histogram.neg.iter().collect(),
            custom: histogram.custom.iter().collect(),
        }
    }
}

impl From<FloatHistogram<'_>> for OwnedFloatHistogram {
    fn from(histogram: FloatHistogram<'_>) -> Self {
        Self {
            hint: histogram.hint,
            schema: histogram.schema,
            zero_threshold_bits: histogram.zero_threshold_bits,
            zero_count_bits: histogram.zero_count_bits,
            count_bits: histogram.count_bits,
            sum_bits: histogram.sum_bits,
            pos_spans: histogram.pos_spans.iter().collect(),
            neg_spans: histogram.neg_spans.iter().collect(),
            pos: histogram.pos.iter().collect(),
            neg: histogram.neg.iter().collect(),
            custom: histogram.custom.iter().collect(),
        }
    }
}

/// A histogram sample to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSample {
    /// The series.
    pub series_ref: u64,
    /// Timestamp, ms.
    pub t: i64,
    /// Start timestamp, ms; 0 if there is none.
    pub st: i64,
    /// The histogram.
    pub histogram: OwnedHistogram,
}

/// A float histogram sample to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FloatHistogramSample {
    /// The series.
    pub series_ref: u64,
    /// Timestamp, ms.
    pub t: i64,
    /// Start timestamp, ms; 0 if there is none.
    pub st: i64,
    /// The histogram.
    pub histogram: OwnedFloatHistogram,
}

impl From<HistogramEntry<'_>> for HistogramSample {
    fn from(entry: HistogramEntry<'_>) -> Self {
        let HistogramEntry { series_ref, t, st, histogram } = entry;
        Self { series_ref, t, st, histogram: histogram.into() }
    }
}

impl From<FloatHistogramEntry<'_>> for FloatHistogramSample {
    fn from(entry: FloatHistogramEntry<'_>) -> Self {
        let FloatHistogramEntry { series_ref, t, st, histogram } = entry;
        Self { series_ref, t, st, histogram: histogram.into() }
    }
}

/// What the encoders need to know of either kind of sample.
trait Sample {
    /// Ref, time, start timestamp.
    fn head(&self) -> (u64, i64, i64);
    fn custom_buckets(&self) -> bool;
    fn encode_body(&self, out: &mut Vec<u8>);
}

impl Sample for HistogramSample {
    fn head(&self) -> (u64, i64, i64) {
        (self.series_ref, self.t, self.st)
    }

    fn custom_buckets(&self) -> bool {
        self.histogram.schema == CUSTOM_BUCKETS_SCHEMA
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        self.histogram.encode(out);
    }
}

impl Sample for FloatHistogramSample {
    fn head(&self) -> (u64, i64, i64) {
        (self.series_ref, self.t, self.st)
    }

    fn custom_buckets(&self) -> bool {
        self.histogram.schema == CUSTOM_BUCKETS_SCHEMA
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        self.histogram.encode(out);
    }
}

impl OwnedHistogram {
    /// Appends it as records and chunk snapshots hold it (`EncodeHistogram`).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.hint);
        put::varint(out, i64::from(self.schema));
        put::be64(out, self.zero_threshold_bits);
        put::uvarint(out, self.zero_count);
        put::uvarint(out, self.count);
        put::be64(out, self.sum_bits);
        put_list(out, &self.pos_spans, put_span);
        put_list(out, &self.neg_spans, put_span);
        put_list(out, &self.pos, put::varint);
        put_list(out, &self.neg, put::varint);
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            put_list(out, &self.custom, put::be64);
        }
    }
}

impl OwnedFloatHistogram {
    /// Appends it as records and chunk snapshots hold it (`EncodeFloatHistogram`).
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.hint);
        put::varint(out, i64::from(self.schema));
        put::be64(out, self.zero_threshold_bits);
        put::be64(out, self.zero_count_bits);
        put::be64(out, self.count_bits);
        put::be64(out, self.sum_bits);
        put_list(out, &self.pos_spans, put_span);
        put_list(out, &self.neg_spans, put_span);
        put_list(out, &self.pos, put::be64);
        put_list(out, &self.neg, put::be64);
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            put_list(out, &self.custom, put::be64);
        }
    }
}

fn put_list<T: Copy>(out: &mut Vec<u8>, list: &[T], put_one: impl Fn(&mut Vec<u8>, T)) {
    put::length(out, list.len());
    for &element in list {
        put_one(out, element);
    }
}

fn put_span(out: &mut Vec<u8>, span: Span) {
    put::varint(out, i64::from(span.offset));
    put::uvarint(out, u64::from(span.length));
}

fn encode_v1<S: Sample>(record_type: RecordType, samples: &[S], take: fn(&S) -> bool, out: &mut Vec<u8>) {
    if !samples.is_empty() && !samples.iter().any(take) {
        return;
    }
    out.push(record_type.byte());
    let Some(first) = samples.first() else {
        return;
    };
    // Also if the first one is left out.
    let (series_ref, t, _) = first.head();
    let base = Base::encode(series_ref, t, out);
    for sample in samples.iter().filter(|sample| take(sample)) {
        let (series_ref, t, _) = sample.head();
        base.relative(series_ref, t, out);
        sample.encode_body(out);
    }
}

fn encode_v2<S: Sample>(record_type: RecordType, samples: &[S], out: &mut Vec<u8>) {
    out.push(record_type.byte());
    let mut chain = None;
    for sample in samples {
        let (series_ref, t, st) = sample.head();
        Chain::encode(&mut chain, series_ref, t, st, out);
        sample.encode_body(out);
    }
}

/// Appends a record of type 7 of those without custom buckets, and nothing if all have them
/// (`Encoder.histogramSamplesV1`).
pub fn encode_histogram_samples(samples: &[HistogramSample], out: &mut Vec<u8>) {
    encode_v1(RecordType::HistogramSamples, samples, |sample| !sample.custom_buckets(), out);
}

/// Appends a record of type 9; all of them should have custom buckets (`Encoder.customBucketsHistogramSamplesV1`).
pub fn encode_custom_buckets_histogram_samples(samples: &[HistogramSample], out: &mut Vec<u8>) {
    encode_v1(RecordType::CustomBucketsHistogramSamples, samples, |_| true, out);
}

/// Appends a record of type 12, with start timestamps and either kind of buckets (`Encoder.histogramSamplesV2`).
pub fn encode_histogram_samples_v2(samples: &[HistogramSample], out: &mut Vec<u8>) {
    encode_v2(RecordType::HistogramSamplesV2, samples, out);
}

/// Appends a record of type 8 of those without custom buckets, and nothing if all have them
/// (`Encoder.floatHistogramSamplesV1`).
pub fn encode_float_histogram_samples(samples: &[FloatHistogramSample], out: &mut Vec<u8>) {
    encode_v1(RecordType::FloatHistogramSamples, samples, |sample| !sample.custom_buckets(), out);
}

/// Appends a record of type 10; all of them should have custom buckets
/// (`Encoder.customBucketsFloatHistogramSamplesV1`).
pub fn encode_custom_buckets_float_histogram_samples(samples: &[FloatHistogramSample], out: &mut Vec<u8>) {
    encode_v1(RecordType::CustomBucketsFloatHistogramSamples, samples, |_| true, out);
}

/// Appends a record of type 13, with start timestamps and either kind of buckets (`Encoder.floatHistogramSamplesV2`).
pub fn encode_float_histogram_samples_v2(samples: &[FloatHistogramSample], out: &mut Vec<u8>) {
    encode_v2(RecordType::FloatHistogramSamplesV2, samples, out);
}
