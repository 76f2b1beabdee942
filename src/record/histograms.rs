//! Types 7, 9 and 12, histograms with integer counts; types 8, 10 and 13, histograms with float counts.
//!
//! Types 7 to 10: BE64 base ref; BE64 base time; repeat { zigzag ref; zigzag time; histogram }.
//! Types 12 and 13: zigzag ref, time and start timestamp of the first, histogram; then repeat { zigzag ref from the
//! previous; zigzag time from the first; start timestamp; histogram }.
//!
//! A histogram: u8 hint; zigzag schema; BE64 zero threshold; zero count; count; BE64 sum; positive spans; negative
//! spans; positive buckets; negative buckets; custom bounds if the schema is -53. Each list has a uvarint count
//! before it (`DecodeHistogram`, `DecodeFloatHistogram`, `tsdb/record/record.go`).

mod decode;
mod encode;
mod lists;
mod owned;

pub use self::encode::{
    encode_custom_buckets_float_histogram_samples, encode_custom_buckets_histogram_samples,
    encode_float_histogram_samples, encode_float_histogram_samples_v2, encode_histogram_samples,
    encode_histogram_samples_v2,
};
pub use self::lists::{DeltaIter, Deltas, FloatBits, FloatBitsIter, Span, SpanIter, Spans};
pub use self::owned::{FloatHistogramSample, HistogramSample, OwnedFloatHistogram, OwnedHistogram};

use self::decode::HistogramWalk;
use super::base::EntryPlace;
use super::cursor::{AtCursor, Cursor};
use super::{DecodeError, DecoderVersion, EntryEncoding};

/// The schema of histograms with custom bucket bounds (`model/histogram/generic.go`).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// A record of integer histograms, of any of its three types.
#[derive(Clone, Copy, Debug)]
pub struct HistogramsRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) encoding: EntryEncoding,
    pub(crate) dialect: DecoderVersion,
}

/// A record of float histograms, of any of its three types.
#[derive(Clone, Copy, Debug)]
pub struct FloatHistogramsRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) encoding: EntryEncoding,
    pub(crate) dialect: DecoderVersion,
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

impl<'a> HistogramsRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub fn entries(&self) -> HistogramIter<'a> {
        HistogramIter(HistogramWalk::new(self.body, self.encoding, self.dialect))
    }

    /// The same entries, by their refs, times, and whether Prometheus knows their schemas; and how their decoding ends.
    pub(crate) fn heads(&self, each: impl FnMut(u64, i64, bool)) -> (Cursor<'a>, Option<DecodeError>) {
        HistogramWalk::new(self.body, self.encoding, self.dialect).heads::<Histogram<'_>>(each)
    }
}

impl<'a> FloatHistogramsRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub fn entries(&self) -> FloatHistogramIter<'a> {
        FloatHistogramIter(HistogramWalk::new(self.body, self.encoding, self.dialect))
    }

    /// The same entries, by their refs, times, and whether Prometheus knows their schemas; and how their decoding ends.
    pub(crate) fn heads(&self, each: impl FnMut(u64, i64, bool)) -> (Cursor<'a>, Option<DecodeError>) {
        HistogramWalk::new(self.body, self.encoding, self.dialect).heads::<FloatHistogram<'_>>(each)
    }
}

/// Walks over a [`HistogramsRecord`].
#[derive(Clone, Debug)]
pub struct HistogramIter<'a>(HistogramWalk<'a>);

/// Walks over a [`FloatHistogramsRecord`].
#[derive(Clone, Debug)]
pub struct FloatHistogramIter<'a>(HistogramWalk<'a>);

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
        Some(entry.map(|(EntryPlace { series_ref, t, st }, histogram)| HistogramEntry {
            series_ref,
            t,
            st,
            histogram,
        }))
    }
}

impl<'a> Iterator for FloatHistogramIter<'a> {
    type Item = Result<FloatHistogramEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.0.next()?;
        Some(entry.map(|(EntryPlace { series_ref, t, st }, histogram)| FloatHistogramEntry {
            series_ref,
            t,
            st,
            histogram,
        }))
    }
}
