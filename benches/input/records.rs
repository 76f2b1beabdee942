//! Records as servers write them, of every type.

use fastrand::Rng;
use walfix::record::{
    self, ExemplarEntry, FloatHistogramSample, HistogramSample, Labels, MetadataEntry, MmapMarkerEntry,
    OwnedFloatHistogram, OwnedHistogram, Record, RecordType, SampleEntry, Span, TombstoneEntry,
};

use super::{BEGIN, INTERVAL};

/// Series of one target, which are one record at each scrape.
pub const TARGET: u64 = 1000;

/// Records of one type, about 64 KiB or more: what one target gives at several scrapes.
pub fn of_type(record_type: RecordType) -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(u64::from(record_type.byte()));
    let times = (0..4).map(|scrape| BEGIN + scrape * INTERVAL);
    times.map(|t| one(record_type, &mut rng, t)).collect()
}

fn one(record_type: RecordType, rng: &mut Rng, t: i64) -> Vec<u8> {
    let refs = 1..=TARGET;
    match record_type {
        RecordType::Series => series(refs),
        RecordType::Samples => scrape(rng, refs, t),
        RecordType::SamplesV2 => {
            encoded(refs.map(|series_ref| sample(rng, series_ref, t)), record::encode_samples_v2)
        }
        RecordType::Tombstones => {
            let of = |series_ref| TombstoneEntry { series_ref, min_time: t - 3_600_000, max_time: t };
            encoded(refs.map(of), record::encode_tombstones)
        }
        RecordType::Exemplars => exemplars(rng, refs, t),
        RecordType::MmapMarkers => {
            let of = |series_ref| MmapMarkerEntry { series_ref, mmap_ref: 1 << 32 | (series_ref * 300) };
            encoded(refs.map(of), record::encode_mmap_markers)
        }
        RecordType::Metadata => {
            let help = b"How long requests took, from the first byte of them to the last one of the answer.";
            let of = |series_ref| MetadataEntry { series_ref, metric_type: 1, unit: b"seconds", help };
            encoded(refs.map(of), |all, out| record::encode_metadata(all, out))
        }
        RecordType::HistogramSamples => histograms(rng, refs, t),
        RecordType::CustomBucketsHistogramSamples => {
            let of = |series_ref| histogram(rng, series_ref, t).with_custom_buckets();
            encoded(refs.map(of), record::encode_custom_buckets_histogram_samples)
        }
        RecordType::HistogramSamplesV2 => {
            encoded(refs.map(|series_ref| histogram(rng, series_ref, t)), record::encode_histogram_samples_v2)
        }
        RecordType::FloatHistogramSamples => {
            let of = |series_ref| float_histogram(rng, series_ref, t);
            encoded(refs.map(of), record::encode_float_histogram_samples)
        }
        RecordType::CustomBucketsFloatHistogramSamples => {
            let of = |series_ref| float_histogram(rng, series_ref, t).with_custom_buckets();
            encoded(refs.map(of), record::encode_custom_buckets_float_histogram_samples)
        }
        RecordType::FloatHistogramSamplesV2 => {
            let of = |series_ref| float_histogram(rng, series_ref, t);
            encoded(refs.map(of), record::encode_float_histogram_samples_v2)
        }
        RecordType::MinValidTime => {
            let mut out = Vec::new();
            record::encode_min_valid_time(t, &mut out);
            out
        }
    }
}

/// One record of all these entries.
fn encoded<E>(entries: impl Iterator<Item = E>, encode: impl Fn(&[E], &mut Vec<u8>)) -> Vec<u8> {
    let (all, mut out) = (entries.collect::<Vec<E>>(), Vec::new());
    encode(&all, &mut out);
    out
}

/// Series with five labels each.
pub fn series(refs: impl Iterator<Item = u64>) -> Vec<u8> {
    let labels = |series_ref: u64| {
        [
            format!("http_request_duration_seconds_{}", series_ref % 100),
            format!("host-{}:9100", series_ref / TARGET),
            "node".into(),
            format!("/api/v1/{series_ref}"),
            format!("{}", series_ref * 7),
        ]
    };
    let names = ["__name__", "instance", "job", "path", "uid"];
    let owned: Vec<(u64, [String; 5])> = refs.map(|series_ref| (series_ref, labels(series_ref))).collect();
    let mut out = Vec::new();
    let pair = |(name, value): (&'static str, _)| (name.as_bytes(), str::as_bytes(value));
    record::encode_series(
        owned.iter().map(|(series_ref, values)| {
            let pairs: Vec<_> = names.into_iter().zip(values.iter().map(String::as_str)).map(pair).collect();
            (*series_ref, pairs)
        }),
        &mut out,
    );
    out
}

/// Samples of one scrape: series that follow one another, at one time.
pub fn scrape(rng: &mut Rng, refs: impl Iterator<Item = u64>, t: i64) -> Vec<u8> {
    encoded(refs.map(|series_ref| sample(rng, series_ref, t)), record::encode_samples)
}

/// Samples of series from all over five millions, each at a time of its own.
pub fn scattered(rng: &mut Rng, count: u64) -> Vec<u8> {
    let of = |_| SampleEntry {
        series_ref: rng.u64(1..5_000_000),
        t: BEGIN + rng.i64(0..INTERVAL),
        ..sample(rng, 0, 0)
    };
    encoded((0..count).map(of), record::encode_samples)
}

/// Histograms of one scrape.
pub fn histograms(rng: &mut Rng, refs: impl Iterator<Item = u64>, t: i64) -> Vec<u8> {
    encoded(refs.map(|series_ref| histogram(rng, series_ref, t)), record::encode_histogram_samples)
}

/// A gauge, or a counter.
fn sample(rng: &mut Rng, series_ref: u64, t: i64) -> SampleEntry {
    let value = if series_ref.is_multiple_of(3) {
        f64::from(rng.i32(-10_000..10_000)) / 10.0
    } else {
        f64::from(rng.u32(..100_000))
    };
    SampleEntry { series_ref, t, st: t - 3_600_000, value_bits: value.to_bits() }
}

fn exemplars(rng: &mut Rng, refs: impl Iterator<Item = u64>, t: i64) -> Vec<u8> {
    let trace = series([1].into_iter());
    let Record::Series(parsed) = Record::parse(&trace) else { unreachable!("a series record") };
    let labels: Labels<'_> = parsed.entries().next().expect("a series").expect("whole").labels;
    let of = |series_ref| ExemplarEntry {
        series_ref,
        t: t + rng.i64(0..INTERVAL),
        value_bits: sample(rng, series_ref, t).value_bits,
        labels,
    };
    encoded(refs.map(of), |all, out| record::encode_exemplars(all, out))
}

/// 20 buckets in two spans.
fn histogram(rng: &mut Rng, series_ref: u64, t: i64) -> HistogramSample {
    let histogram = OwnedHistogram {
        schema: 3,
        zero_threshold_bits: 0.001_f64.to_bits(),
        zero_count: rng.u64(..1000),
        count: rng.u64(..20_000),
        sum_bits: f64::from(rng.u32(..20_000)).to_bits(),
        pos_spans: vec![Span { offset: 0, length: 12 }, Span { offset: 2, length: 8 }],
        pos: (0..20).map(|_| rng.i64(-4..=4)).collect(),
        ..OwnedHistogram::default()
    };
    HistogramSample { series_ref, t, st: t - 3_600_000, histogram }
}

fn float_histogram(rng: &mut Rng, series_ref: u64, t: i64) -> FloatHistogramSample {
    let mut bits = || f64::from(rng.u32(..20_000)).to_bits();
    let histogram = OwnedFloatHistogram {
        schema: 3,
        zero_threshold_bits: 0.001_f64.to_bits(),
        zero_count_bits: bits(),
        count_bits: bits(),
        sum_bits: bits(),
        pos_spans: vec![Span { offset: 0, length: 12 }, Span { offset: 2, length: 8 }],
        pos: (0..20).map(|_| bits()).collect(),
        ..OwnedFloatHistogram::default()
    };
    FloatHistogramSample { series_ref, t, st: t - 3_600_000, histogram }
}

trait CustomBuckets {
    /// The same with 20 bounds that somebody has chosen.
    fn with_custom_buckets(self) -> Self;
}

fn bounds() -> Vec<u64> {
    (1..=20u32).map(|bound| (f64::from(bound) / 10.0).to_bits()).collect()
}

impl CustomBuckets for HistogramSample {
    fn with_custom_buckets(mut self) -> Self {
        self.histogram.schema = record::CUSTOM_BUCKETS_SCHEMA;
        self.histogram.custom = bounds();
        self
    }
}

impl CustomBuckets for FloatHistogramSample {
    fn with_custom_buckets(mut self) -> Self {
        self.histogram.schema = record::CUSTOM_BUCKETS_SCHEMA;
        self.histogram.custom = bounds();
        self
    }
}
