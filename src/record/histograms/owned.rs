//! Histograms to be written.

use super::{FloatHistogram, FloatHistogramEntry, Histogram, HistogramEntry, Span};

/// A histogram with integer counts, to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedHistogram {
    /// Counter reset hint: 0 unknown, 1 reset, 2 no reset, 3 gauge.
    pub hint: u8,
    /// Resolution: -4 to 8, 9 to 52 and -9 to -5 reserved, or [`CUSTOM_BUCKETS_SCHEMA`](super::CUSTOM_BUCKETS_SCHEMA).
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
    /// Resolution: -4 to 8, 9 to 52 and -9 to -5 reserved, or [`CUSTOM_BUCKETS_SCHEMA`](super::CUSTOM_BUCKETS_SCHEMA).
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
