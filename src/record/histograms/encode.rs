//! Encodes records of histograms.

use super::{
    CUSTOM_BUCKETS_SCHEMA, FloatHistogramSample, HistogramSample, OwnedFloatHistogram, OwnedHistogram, Span,
};
use crate::record::base::{EntryBase, EntryChain};
use crate::record::{RecordType, put};

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
    // Also if the first one is dropped.
    let (series_ref, t, _) = first.head();
    let base = EntryBase::encode(series_ref, t, out);
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
        EntryChain::encode(&mut chain, series_ref, t, st, out);
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
