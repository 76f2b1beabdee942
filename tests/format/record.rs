//! Records: fixed vectors, and properties over random and damaged ones.

use serde_json::{Value, json};
use support::canonical;
use support::{note, test};
use walfix::record::{
    CUSTOM_BUCKETS_SCHEMA, ExemplarEntry, FloatHistogramSample, HistogramSample, MetadataEntry,
    MmapMarkerEntry, OwnedFloatHistogram, OwnedHistogram, Record, RecordType, SampleEntry, SnapshotRecord,
    Span, Summary, TombstoneEntry, decode_context, encode_custom_buckets_float_histogram_samples,
    encode_custom_buckets_histogram_samples, encode_exemplars, encode_float_histogram_samples,
    encode_float_histogram_samples_v2, encode_histogram_samples, encode_histogram_samples_v2,
    encode_metadata, encode_min_valid_time, encode_mmap_markers, encode_samples, encode_samples_v2,
    encode_series, encode_tombstones, is_loki, summarize,
};

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn error(record: &[u8]) -> Option<String> {
    summarize(record).error.map(|error| error.to_string())
}

fn crashes(record: &[u8]) -> bool {
    summarize(record).error.is_some_and(|error| error.crashes_prometheus())
}

#[track_caller]
fn vector(text: &str, entries: &Value, encode: impl FnOnce(&mut Vec<u8>)) {
    let record = hex(text);
    assert_eq!(&canonical::entries(&record), entries);
    assert_eq!(error(&record), None);
    assert_eq!(encoded(encode), record);
}

type Label<'a> = (&'a [u8], &'a [u8]);

#[test]
fn series_vector() {
    let labels: [Label<'_>; 2] = [(b"__name__", b"up"), (b"job", b"a")];
    vector(
        "01 00 00 00 00 00 00 00 01 02 08 5F 5F 6E 61 6D 65 5F 5F 02 75 70 03 6A 6F 62 01 61",
        &json!([{"ref": "1", "labels": [["__name__", "up"], ["job", "a"]]}]),
        |out| encode_series([(1, labels)], out),
    );
}

#[test]
fn labels_can_be_looked_up() {
    let labels: [Label<'_>; 3] = [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")];
    let record = encoded(|out| encode_series([(7, labels)], out));
    let Record::Series(series) = Record::parse(&record) else { unreachable!() };
    let entry = series.entries().next().unwrap().unwrap();
    assert_eq!(entry.labels.len(), 3);
    assert_eq!(entry.labels.find(b"b"), Some(&b"2"[..]));
    assert_eq!(entry.labels.find(b"c"), None);
    assert_eq!(entry.labels.iter().len(), 3);
}

fn sample(series_ref: u64, t: i64, st: i64, value: f64) -> SampleEntry {
    SampleEntry { series_ref, t, st, value_bits: value.to_bits() }
}

#[test]
fn samples_vector() {
    vector(
        "02 00 00 00 00 00 00 00 01 00 00 00 00 00 00 03 E8 00 00 3F F0 00 00 00 00 00 00 02 0A 40 00 00 00 00 00 00 00",
        &json!([
            {"ref": "1", "t": "1000", "st": "0", "v": "3ff0000000000000"},
            {"ref": "2", "t": "1005", "st": "0", "v": "4000000000000000"},
        ]),
        |out| encode_samples(&[sample(1, 1000, 0, 1.0), sample(2, 1005, 0, 2.0)], out),
    );
}

#[test]
fn samples_v2_vector() {
    let samples = [
        sample(5, 1000, 900, 1.0),
        sample(7, 1010, 900, 2.0),
        sample(6, 1020, 0, 3.0),
        sample(6, 1030, 950, 4.0),
    ];
    vector(
        "0B 0A D0 0F 88 0E 3F F0 00 00 00 00 00 00 04 14 01 40 00 00 00 00 00 00 00 01 28 00 40 08 00 00 00 00 00 00 \
         00 3C 02 64 40 10 00 00 00 00 00 00",
        &json!([
            {"ref": "5", "t": "1000", "st": "900", "v": "3ff0000000000000"},
            {"ref": "7", "t": "1010", "st": "900", "v": "4000000000000000"},
            {"ref": "6", "t": "1020", "st": "0", "v": "4008000000000000"},
            {"ref": "6", "t": "1030", "st": "950", "v": "4010000000000000"},
        ]),
        |out| encode_samples_v2(&samples, out),
    );
}

#[test]
fn tombstone_vector() {
    vector(
        "03 00 00 00 00 00 00 00 01 09 D0 0F",
        &json!([{"ref": "1", "mint": "-5", "maxt": "1000"}]),
        |out| encode_tombstones(&[TombstoneEntry { series_ref: 1, min_time: -5, max_time: 1000 }], out),
    );
}

#[test]
fn exemplar_vector() {
    let record = hex(
        "04 00 00 00 00 00 00 00 01 00 00 00 00 00 00 03 E8 00 00 3F E0 00 00 00 00 00 00 01 01 74 01 78",
    );
    assert_eq!(
        canonical::entries(&record),
        json!([{"ref": "1", "t": "1000", "v": "3fe0000000000000", "labels": [["t", "x"]]}])
    );
    assert_eq!(encode_again(&record), record);
}

#[test]
fn mmap_marker_vector() {
    let marker = MmapMarkerEntry { series_ref: 1, mmap_ref: (3 << 32) | 8 };
    assert_eq!((marker.file(), marker.offset()), (3, 8));
    vector(
        "05 00 00 00 00 00 00 00 01 00 00 00 03 00 00 00 08",
        &json!([{"ref": "1", "mmap_ref": "12884901896"}]),
        |out| encode_mmap_markers(&[marker], out),
    );
}

#[test]
fn metadata_vector() {
    vector(
        "06 AC 02 01 02 04 55 4E 49 54 00 04 48 45 4C 50 01 68",
        &json!([{"ref": "300", "type": 1, "unit": "", "help": "h"}]),
        |out| {
            encode_metadata(&[MetadataEntry { series_ref: 300, metric_type: 1, unit: b"", help: b"h" }], out);
        },
    );
}

#[test]
fn histogram_vectors() {
    let histogram = OwnedHistogram {
        schema: 1,
        zero_threshold_bits: 0.001_f64.to_bits(),
        zero_count: 2,
        count: 9,
        sum_bits: 18.4_f64.to_bits(),
        pos_spans: vec![Span { offset: 0, length: 2 }],
        pos: vec![1, 1],
        ..OwnedHistogram::default()
    };
    vector(
        "07 00 00 00 00 00 00 00 01 00 00 00 00 00 00 03 E8 00 00 00 02 3F 50 62 4D D2 F1 A9 FC 02 09 40 32 66 66 66 66 \
         66 66 01 00 02 00 02 02 02 00",
        &json!([{
            "ref": "1", "t": "1000", "st": "0", "hint": 0, "schema": 1, "zero_threshold": "3f50624dd2f1a9fc",
            "zero_count": "2", "count": "9", "sum": "4032666666666666", "pos_spans": [[0, 2]], "neg_spans": [],
            "pos": ["1", "1"], "neg": [], "custom": [],
        }]),
        |out| {
            encode_histogram_samples(&[HistogramSample { series_ref: 1, t: 1000, st: 0, histogram }], out);
        },
    );
    let histogram = OwnedHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        count: 3,
        sum_bits: 4.5_f64.to_bits(),
        pos_spans: vec![Span { offset: 0, length: 2 }],
        pos: vec![1, 1],
        custom: vec![0.5_f64.to_bits(), 1_f64.to_bits()],
        ..OwnedHistogram::default()
    };
    let samples = [HistogramSample { series_ref: 1, t: 1000, st: 0, histogram }];
    vector(
        "09 00 00 00 00 00 00 00 01 00 00 00 00 00 00 03 E8 00 00 00 69 00 00 00 00 00 00 00 00 00 03 40 12 00 00 00 00 \
         00 00 01 00 02 00 02 02 02 00 02 3F E0 00 00 00 00 00 00 3F F0 00 00 00 00 00 00",
        &json!([{
            "ref": "1", "t": "1000", "st": "0", "hint": 0, "schema": -53, "zero_threshold": "0000000000000000",
            "zero_count": "0", "count": "3", "sum": "4012000000000000", "pos_spans": [[0, 2]], "neg_spans": [],
            "pos": ["1", "1"], "neg": [], "custom": ["3fe0000000000000", "3ff0000000000000"],
        }]),
        |out| encode_custom_buckets_histogram_samples(&samples, out),
    );
    // Type 7 leaves them out, and with them itself.
    assert!(encoded(|out| encode_histogram_samples(&samples, out)).is_empty());
}

#[test]
fn min_valid_time_vector() {
    vector("0E FF FF FF FF FF FF FF FE", &json!([{"mint": "-2"}]), |out| encode_min_valid_time(-2, out));
    assert_eq!(error(&hex("0E 00 00 00 00 00 00 00")).unwrap(), "invalid size");
    assert_eq!(error(&hex("0E")).unwrap(), "invalid size");
    assert_eq!(error(&hex("0E 00 00 00 00 00 00 00 00 01 02")).unwrap(), "unexpected 2 bytes left in entry");
}

#[test]
fn types_and_their_names() {
    for (number, record_type) in (1..).zip(RecordType::ALL) {
        assert_eq!(record_type.byte(), number);
        assert_eq!(RecordType::from_byte(number), Some(record_type));
        // No other record is shorter, and nothing but a min valid time is missing in it.
        let empty = summarize(&[number]);
        assert_eq!(empty.record_type, Some(record_type));
        assert_eq!(empty.entries, 0);
        assert_eq!(empty.error.is_some(), record_type == RecordType::MinValidTime);
        assert!(decode_context(record_type).starts_with("decode "));
    }
    for unknown in [&[][..], &[0], &[15], &[0x28, 1, 2], &[255]] {
        assert_eq!(summarize(unknown), Summary::default());
        assert!(matches!(Record::parse(unknown), Record::Unknown(bytes) if bytes == unknown));
    }
    assert_eq!(RecordType::SamplesV2.name(), "samples_v2");
}

#[test]
fn a_record_with_a_base_and_no_entries_is_well() {
    for kind in [2, 4, 7, 8, 9, 10] {
        let mut record = vec![0; 17];
        record[0] = kind;
        assert_eq!(summarize(&record).error, None);
        record.pop();
        assert!(error(&record).unwrap().starts_with("decode error after 0 "));
    }
    for kind in [12, 13] {
        assert_eq!(error(&[kind, 0, 0, 0]), None);
        assert_eq!(error(&[kind, 0, 0]).unwrap(), "decode error after 0 histograms: invalid size");
    }
    assert_eq!(error(&[11, 0, 0, 0]).unwrap(), "decode error after 1 samples: invalid size");
}

const MINUS_ONE: &str = "FF FF FF FF FF FF FF FF FF 01";

#[test]
fn varints_end_at_64_bits() {
    let series = |varint: &str| hex(&format!("06 {varint} 00 00"));
    assert_eq!(error(&series(MINUS_ONE)), None);
    assert_eq!(summarize(&series(MINUS_ONE)).max_ref, Some(u64::MAX));
    assert_eq!(error(&series("FF FF FF FF FF FF FF FF FF 02")).unwrap(), "invalid size");
    assert_eq!(error(&series("FF FF FF FF FF FF FF FF FF 81 00")).unwrap(), "invalid size");
    assert_eq!(error(&hex("06 80")).unwrap(), "invalid size");
    // Longer than needed is fine.
    assert_eq!(summarize(&series("81 80 00")).max_ref, Some(1));
}

#[test]
fn negative_counts_are_none() {
    // Labels, metadata fields, and each list of a histogram.
    let none = json!([{"ref": "1", "labels": []}]);
    assert_eq!(canonical::entries(&hex(&format!("01 00 00 00 00 00 00 00 01 {MINUS_ONE}"))), none);
    assert_eq!(error(&hex(&format!("06 01 00 {MINUS_ONE}"))), None);
    let list = [MINUS_ONE; 4].join(" ");
    let record = hex(&format!(
        "07 {} 00 00 00 00 {} 00 00 {} {list}",
        "00 ".repeat(16),
        "00 ".repeat(8),
        "00 ".repeat(8)
    ));
    assert_eq!(error(&record), None);
    assert_eq!(summarize(&record).entries, 1);
}

#[test]
fn a_string_of_negative_length_crashes_prometheus() {
    let record = hex(&format!("01 00 00 00 00 00 00 00 01 01 {MINUS_ONE}"));
    assert_eq!(error(&record).unwrap(), "invalid size");
    assert!(crashes(&record));
    // One below 2^63 is only too long.
    let record = hex("01 00 00 00 00 00 00 00 01 01 FF FF FF FF FF FF FF FF 7F");
    assert_eq!(error(&record).unwrap(), "invalid size");
    assert!(!crashes(&record));
}

#[test]
fn absurd_counts_end_at_once() {
    const HUGE: &str = "FF FF FF FF FF FF FF FF 7F";
    let zeros = |count| "00 ".repeat(count);
    let body = format!("{} 00 00 00 00 {} 00 00 {}", zeros(16), zeros(8), zeros(8));
    for lists in 0..4 {
        let record = hex(&format!("07 {body} {} {HUGE}", zeros(lists)));
        assert_eq!(error(&record).unwrap(), "decode error after 1 histograms: invalid size");
        assert!(crashes(&record));
        // A thousand is merely wrong.
        let record = hex(&format!("07 {body} {} E8 07", zeros(lists)));
        assert_eq!(error(&record).unwrap(), "decode error after 1 histograms: invalid size");
        assert!(!crashes(&record));
    }
    for record in [
        format!("01 {} {HUGE} 01 61 01 62", zeros(8)),
        format!("04 {} 00 00 {} {HUGE} 01 61 01 62", zeros(16), zeros(8)),
        format!("06 00 00 {HUGE} 01 61 01 62"),
    ] {
        assert!(error(&hex(&record)).unwrap().ends_with("invalid size"));
        assert!(crashes(&hex(&record)));
    }
}

fn histogram(schema: i32, pos_spans: Vec<Span>, pos: Vec<i64>) -> HistogramSample {
    HistogramSample {
        series_ref: 1,
        t: 1000,
        st: 0,
        histogram: OwnedHistogram { schema, pos_spans, pos, ..OwnedHistogram::default() },
    }
}

#[test]
fn histograms_of_unknown_schemas_are_passed_over() {
    let samples =
        [histogram(1, vec![], vec![]), histogram(99, vec![], vec![]), histogram(-10, vec![], vec![])];
    let mut record = encoded(|out| encode_histogram_samples(&samples, out));
    let summary = summarize(&record);
    assert_eq!((summary.entries, summary.unknown_schemas, summary.error), (3, 2, None));
    let Record::Histograms(histograms) = Record::parse(&record) else { unreachable!() };
    let known: Vec<_> = histograms.entries().map(|entry| entry.unwrap().known_schema()).collect();
    assert_eq!(known, [true, false, false]);
    // Cut in the last list of the last: its schema was read, so it is not counted.
    record.pop();
    assert_eq!(error(&record).unwrap(), "decode error after 1 histograms: invalid size");
    // One more, cut before its schema: 0 is a schema.
    record.push(0);
    record.push(0);
    assert_eq!(error(&record).unwrap(), "decode error after 2 histograms: invalid size");
}

#[test]
fn resolutions_that_cannot_be_reduced() {
    const MISMATCH: &str = "histogram spans specify different number of buckets than provided";
    let span = |offset, length| Span { offset, length };
    let error_of = |schema, spans: &[Span], buckets: usize| {
        let samples = [histogram(8, vec![], vec![]), histogram(schema, spans.to_vec(), vec![1; buckets])];
        error(&encoded(|out| encode_histogram_samples(&samples, out)))
    };
    for schema in [9, 52] {
        assert_eq!(error_of(schema, &[span(-5, 2), span(3, 1)], 3), None);
        assert_eq!(
            error_of(schema, &[span(0, 1), span(-3, 1)], 2).unwrap(),
            "error reducing resolution of histogram #2: span number 2 with offset -3: histogram has a span whose offset is negative"
        );
        assert_eq!(
            error_of(schema, &[span(0, 4)], 2).unwrap(),
            format!(
                "error reducing resolution of histogram #2: have 2 buckets but spans need more: {MISMATCH}"
            )
        );
        assert_eq!(
            error_of(schema, &[span(0, 1)], 2).unwrap(),
            format!(
                "error reducing resolution of histogram #2: spans need 1 buckets, have 2 buckets: {MISMATCH}"
            )
        );
    }
    for schema in [8, -9, 53, CUSTOM_BUCKETS_SCHEMA] {
        assert_eq!(error_of(schema, &[span(0, 4)], 2), None);
    }
    // Prometheus reduces before it notices that the histogram is cut.
    let mut record = encoded(|out| {
        encode_histogram_samples(&[histogram(9, vec![span(0, 2)], vec![1, 1])], out);
    });
    record.pop();
    assert_eq!(error(&record).unwrap(), "decode error after 1 histograms: invalid size");
    record.truncate(record.len() - 3);
    assert_eq!(
        error(&record).unwrap(),
        format!("error reducing resolution of histogram #1: have 0 buckets but spans need more: {MISMATCH}")
    );
}

#[test]
fn summaries_hold_bounds() {
    let samples = [sample(9, 50, 0, 1.0), sample(3, -7, 0, 2.0), sample(5, 10, 0, 3.0)];
    let mut record = encoded(|out| encode_samples(&samples, out));
    let summary = summarize(&record);
    assert_eq!((summary.min_time, summary.max_time), (Some(-7), Some(50)));
    assert_eq!((summary.min_ref, summary.max_ref, summary.entries), (Some(3), Some(9), 3));
    record.pop();
    let summary = summarize(&record);
    assert_eq!(summary.entries, 2);
    assert_eq!(summary.error.unwrap().to_string(), "decode error after 3 samples: invalid size");
    let tombstone = hex("03 00 00 00 00 00 00 00 01 09 D0 0F");
    let summary = summarize(&tombstone);
    assert_eq!((summary.min_time, summary.max_time, summary.max_ref), (None, None, Some(1)));
}

#[test]
fn loki_is_recognised() {
    let nested = "01 89 AB CD EF 01 23 45 67 02 03 61 70 70 03 66 6F 6F 03 65 6E 76 01 62";
    assert!(is_loki(&hex(&format!("01 04 66 61 6B 65 {nested}"))));
    assert!(is_loki(&hex(&format!("00 04 66 61 6B 65 {nested}"))));
    assert!(is_loki(&hex(&format!("02 04 66 61 6B 65 89 AB CD EF 01 23 45 67 {nested}"))));
    // Cut, or of a tenant that Loki would not accept, or nested in nothing.
    assert!(!is_loki(&hex("01 04 66 61 6B 65 01 89 AB CD EF 01 23 45 67 02 03 61")));
    assert!(!is_loki(&hex(&format!("01 04 66 61 00 65 {nested}"))));
    assert!(!is_loki(&hex(nested)));
    for empty in [&[][..], &[0], &[1], &[2]] {
        assert!(!is_loki(empty));
    }
}

#[test]
fn snapshot_records() {
    let series = "01 00 00 00 00 00 00 00 07 01 01 61 01 62 00 00 00 00 00 00 00 00";
    let decode = |text: &str| {
        let bytes = hex(text);
        let SnapshotRecord::Series(record) = SnapshotRecord::parse(&bytes) else { unreachable!() };
        record.decode().map(|series| {
            assert_eq!((series.series_ref, series.labels.find(b"a")), (7, Some(&b"b"[..])));
            series.chunk.map(|chunk| (chunk.min_time, chunk.max_time, chunk.data.to_vec(), chunk.encoding))
        })
    };
    assert_eq!(decode(&format!("{series} 00")), Ok(None));
    // Cut before it is known whether there is a chunk: Prometheus takes it for a series without one.
    assert!(decode(series).unwrap_err().accepted_by_prometheus());
    let chunk = format!("{series} 01 00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 06");
    assert_eq!(decode(&chunk).unwrap_err().to_string(), "chunk from data: invalid chunk encoding \"none\"");
    assert_eq!(
        decode(&format!("{chunk} 07 00")).unwrap_err().to_string(),
        "chunk from data: invalid chunk encoding \"<unknown>\""
    );
    let xor = format!("{chunk} 01 02 AA BB {}", "00 ".repeat(64));
    assert_eq!(decode(&xor), Ok(Some((5, 6, vec![0xaa, 0xbb], 1))));
    assert_eq!(decode(&format!("{xor} 00")), Ok(Some((5, 6, vec![0xaa, 0xbb], 1))));
    let short = format!("{chunk} 01 02 AA BB {}", "00 ".repeat(63));
    assert_eq!(decode(&short).unwrap_err().to_string(), "unexpected 7 bytes left in entry");
    let shorter = format!("{chunk} 01 02 AA BB {}", "00 ".repeat(56));
    assert_eq!(decode(&shorter).unwrap_err().to_string(), "invalid size");
    assert!(!decode(&shorter).unwrap_err().accepted_by_prometheus());

    let tombstones = |text: &str| {
        let bytes = hex(text);
        let SnapshotRecord::Tombstones(record) = SnapshotRecord::parse(&bytes) else { unreachable!() };
        record.entries().map(|entry| entry.map_err(|error| error.to_string())).collect::<Vec<_>>()
    };
    let one = TombstoneEntry { series_ref: 16, min_time: 1000, max_time: 2000 };
    assert_eq!(tombstones("02 06 01 10 D0 0F A0 1F"), [Ok(one)]);
    assert_eq!(tombstones("02 01 01"), []);
    assert_eq!(
        tombstones("02 07 01 10 D0 0F A0 1F 11"),
        [Ok(one), Err("decode tombstones: invalid size".to_owned())]
    );
    for (text, format) in [("02", "0"), ("02 00", "0"), ("02 01 1F", "1f"), ("02 09 01", "0")] {
        assert_eq!(tombstones(text), [Err(format!("decode tombstones: invalid tombstone format {format}"))]);
    }

    let exemplar = hex(
        "03 00 00 00 00 00 00 00 01 00 00 00 00 00 00 03 E8 00 00 3F E0 00 00 00 00 00 00 01 01 74 01 78",
    );
    let SnapshotRecord::Exemplars(record) = SnapshotRecord::parse(&exemplar) else { unreachable!() };
    assert_eq!(record.entries().next().unwrap().unwrap().t, 1000);
    assert!(matches!(SnapshotRecord::parse(&[]), SnapshotRecord::Unknown(_)));
    assert!(matches!(SnapshotRecord::parse(&[4]), SnapshotRecord::Unknown(_)));
}

// Properties.

/// Runs `property` on many seeds.
fn for_seeds(property: impl Fn(&mut fastrand::Rng)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                note!("failing seed: {}", self.0);
            }
        }
    }
    for seed in support::seeds(300) {
        let seed = Seed(seed);
        property(&mut fastrand::Rng::with_seed(seed.0));
    }
}

/// Numbers of all lengths, the extremes more often.
fn number(rng: &mut fastrand::Rng) -> u64 {
    match rng.u8(..10) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 63,
        3 => (1 << 63) - 1,
        _ => rng.u64(..) >> rng.u32(..64),
    }
}

fn signed(rng: &mut fastrand::Rng) -> i64 {
    let number = number(rng).cast_signed();
    if rng.bool() { number } else { number.wrapping_neg() }
}

fn list<T>(rng: &mut fastrand::Rng, max: usize, one: impl Fn(&mut fastrand::Rng) -> T) -> Vec<T> {
    (0..rng.usize(..=max)).map(|_| one(rng)).collect()
}

fn text(rng: &mut fastrand::Rng) -> Vec<u8> {
    let max = if rng.u8(..20) == 0 { 300 } else { 6 };
    list(rng, max, |rng| rng.u8(..))
}

type OwnedLabels = Vec<(Vec<u8>, Vec<u8>)>;

fn labels(rng: &mut fastrand::Rng) -> OwnedLabels {
    list(rng, 5, |rng| (text(rng), text(rng)))
}

fn borrowed(labels: &OwnedLabels) -> Vec<Label<'_>> {
    labels.iter().map(|(name, value)| (&name[..], &value[..])).collect()
}

fn schema(rng: &mut fastrand::Rng, custom: bool) -> i32 {
    if custom { CUSTOM_BUCKETS_SCHEMA } else { rng.i32(-9..=8) }
}

fn span(rng: &mut fastrand::Rng) -> Span {
    Span { offset: rng.i32(..), length: rng.u32(..) }
}

fn start(rng: &mut fastrand::Rng, v2: bool) -> i64 {
    if !v2 || rng.bool() { 0 } else { [5, 6, signed(rng)][rng.usize(..3)] }
}

fn int_sample(rng: &mut fastrand::Rng, v2: bool, custom: bool) -> HistogramSample {
    let schema = schema(rng, custom);
    HistogramSample {
        series_ref: number(rng),
        t: signed(rng),
        st: start(rng, v2),
        histogram: OwnedHistogram {
            hint: rng.u8(..),
            schema,
            zero_threshold_bits: rng.u64(..),
            zero_count: number(rng),
            count: number(rng),
            sum_bits: rng.u64(..),
            pos_spans: list(rng, 3, span),
            neg_spans: list(rng, 3, span),
            pos: list(rng, 5, signed),
            neg: list(rng, 5, signed),
            custom: if custom { list(rng, 4, number) } else { vec![] },
        },
    }
}

fn float_sample(rng: &mut fastrand::Rng, v2: bool, custom: bool) -> FloatHistogramSample {
    let schema = schema(rng, custom);
    FloatHistogramSample {
        series_ref: number(rng),
        t: signed(rng),
        st: start(rng, v2),
        histogram: OwnedFloatHistogram {
            hint: rng.u8(..),
            schema,
            zero_threshold_bits: rng.u64(..),
            zero_count_bits: rng.u64(..),
            count_bits: rng.u64(..),
            sum_bits: rng.u64(..),
            pos_spans: list(rng, 3, span),
            neg_spans: list(rng, 3, span),
            pos: list(rng, 5, number),
            neg: list(rng, 5, number),
            custom: if custom { list(rng, 4, number) } else { vec![] },
        },
    }
}

/// A random record of that type with so many entries, which decodes to what was encoded.
fn random_record(rng: &mut fastrand::Rng, record_type: RecordType, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    match record_type {
        RecordType::Series => {
            let series: Vec<_> = (0..count).map(|_| (number(rng), labels(rng))).collect();
            encode_series(
                series.iter().map(|(series_ref, labels)| (*series_ref, borrowed(labels))),
                &mut out,
            );
        }
        RecordType::Samples | RecordType::SamplesV2 => {
            let v2 = record_type == RecordType::SamplesV2;
            let samples: Vec<_> = (0..count)
                .map(|_| SampleEntry {
                    series_ref: number(rng),
                    t: signed(rng),
                    st: start(rng, v2),
                    value_bits: number(rng),
                })
                .collect();
            if v2 {
                encode_samples_v2(&samples, &mut out);
            } else {
                encode_samples(&samples, &mut out);
            }
            let Record::Samples(record) = Record::parse(&out) else { unreachable!() };
            assert_eq!(record.entries().collect::<Result<Vec<_>, _>>().unwrap(), samples);
        }
        RecordType::Tombstones => {
            let tombstones: Vec<_> = (0..count)
                .map(|_| TombstoneEntry {
                    series_ref: number(rng),
                    min_time: signed(rng),
                    max_time: signed(rng),
                })
                .collect();
            encode_tombstones(&tombstones, &mut out);
            let Record::Tombstones(record) = Record::parse(&out) else { unreachable!() };
            assert_eq!(record.entries().collect::<Result<Vec<_>, _>>().unwrap(), tombstones);
        }
        RecordType::Exemplars => {
            // An exemplar's labels are those of a series record's, which lends them.
            let sets: Vec<_> = (0..count).map(|_| labels(rng)).collect();
            let mut lender = Vec::new();
            encode_series(sets.iter().map(|labels| (0, borrowed(labels))), &mut lender);
            let Record::Series(lender) = Record::parse(&lender) else { unreachable!() };
            let exemplars: Vec<_> = lender
                .entries()
                .map(|entry| ExemplarEntry {
                    series_ref: number(rng),
                    t: signed(rng),
                    value_bits: number(rng),
                    labels: entry.unwrap().labels,
                })
                .collect();
            encode_exemplars(&exemplars, &mut out);
            let Record::Exemplars(record) = Record::parse(&out) else { unreachable!() };
            assert_eq!(record.entries().collect::<Result<Vec<_>, _>>().unwrap(), exemplars);
        }
        RecordType::MmapMarkers => {
            let markers: Vec<_> = (0..count)
                .map(|_| MmapMarkerEntry { series_ref: number(rng), mmap_ref: number(rng) })
                .collect();
            encode_mmap_markers(&markers, &mut out);
            let Record::MmapMarkers(record) = Record::parse(&out) else { unreachable!() };
            assert_eq!(record.entries().collect::<Result<Vec<_>, _>>().unwrap(), markers);
        }
        RecordType::Metadata => {
            let texts: Vec<_> = (0..count).map(|_| (text(rng), text(rng))).collect();
            let metadata: Vec<_> = texts
                .iter()
                .map(|(unit, help)| MetadataEntry {
                    series_ref: number(rng),
                    metric_type: rng.u8(..),
                    unit,
                    help,
                })
                .collect();
            encode_metadata(&metadata, &mut out);
            let Record::Metadata(record) = Record::parse(&out) else { unreachable!() };
            assert_eq!(record.entries().collect::<Result<Vec<_>, _>>().unwrap(), metadata);
        }
        RecordType::HistogramSamples
        | RecordType::CustomBucketsHistogramSamples
        | RecordType::HistogramSamplesV2 => {
            let v2 = record_type == RecordType::HistogramSamplesV2;
            let all = record_type == RecordType::CustomBucketsHistogramSamples;
            let samples: Vec<_> = (0..count)
                .map(|_| {
                    let custom = all || (v2 && rng.bool());
                    int_sample(rng, v2, custom)
                })
                .collect();
            match record_type {
                RecordType::HistogramSamples => encode_histogram_samples(&samples, &mut out),
                RecordType::HistogramSamplesV2 => encode_histogram_samples_v2(&samples, &mut out),
                _ => encode_custom_buckets_histogram_samples(&samples, &mut out),
            }
            let Record::Histograms(record) = Record::parse(&out) else { unreachable!() };
            let decoded: Vec<_> =
                record.entries().map(|entry| HistogramSample::from(entry.unwrap())).collect();
            assert_eq!(decoded, samples);
        }
        RecordType::FloatHistogramSamples
        | RecordType::CustomBucketsFloatHistogramSamples
        | RecordType::FloatHistogramSamplesV2 => {
            let v2 = record_type == RecordType::FloatHistogramSamplesV2;
            let all = record_type == RecordType::CustomBucketsFloatHistogramSamples;
            let samples: Vec<_> = (0..count)
                .map(|_| {
                    let custom = all || (v2 && rng.bool());
                    float_sample(rng, v2, custom)
                })
                .collect();
            match record_type {
                RecordType::FloatHistogramSamples => encode_float_histogram_samples(&samples, &mut out),
                RecordType::FloatHistogramSamplesV2 => encode_float_histogram_samples_v2(&samples, &mut out),
                _ => encode_custom_buckets_float_histogram_samples(&samples, &mut out),
            }
            let Record::FloatHistograms(record) = Record::parse(&out) else { unreachable!() };
            let decoded: Vec<_> =
                record.entries().map(|entry| FloatHistogramSample::from(entry.unwrap())).collect();
            assert_eq!(decoded, samples);
        }
        RecordType::MinValidTime => encode_min_valid_time(signed(rng), &mut out),
    }
    out
}

/// Decodes a record and encodes what it says.
fn encode_again(record: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match Record::parse(record) {
        Record::Series(r) => {
            encode_series(r.entries().map(|e| e.map(|e| (e.series_ref, e.labels.iter())).unwrap()), &mut out);
        }
        Record::Exemplars(r) => {
            encode_exemplars(&r.entries().collect::<Result<Vec<_>, _>>().unwrap(), &mut out);
        }
        _ => unreachable!("the other types are compared entry by entry"),
    }
    out
}

#[test]
fn what_is_encoded_is_decoded() {
    for_seeds(|rng| {
        for record_type in RecordType::ALL {
            let count = rng.usize(..6);
            let record = random_record(rng, record_type, count);
            let summary = summarize(&record);
            assert_eq!(summary.record_type, Some(record_type));
            assert_eq!(summary.error, None);
            if record_type != RecordType::MinValidTime {
                assert_eq!(summary.entries, count as u64);
            }
            if matches!(record_type, RecordType::Series | RecordType::Exemplars) {
                assert_eq!(encode_again(&record), record);
            }
        }
    });
}

/// What Prometheus counts in its message, if it does.
fn plural(record_type: RecordType) -> Option<&'static str> {
    Some(match record_type.name() {
        "samples" | "samples_v2" => "samples",
        "exemplars" => "exemplars",
        "mmapmarkers" => "mmap markers",
        name if name.contains("histogram") => "histograms",
        _ => return None,
    })
}

#[test]
fn a_record_cut_anywhere_says_how_far_it_goes() {
    for_seeds(|rng| {
        for record_type in RecordType::ALL {
            if record_type == RecordType::MinValidTime {
                continue;
            }
            let count = rng.usize(1..5);
            // Entry ends: the record of the first n entries is a prefix of the whole, since nothing refers ahead.
            let seed = rng.u64(..);
            let whole = random_record(&mut fastrand::Rng::with_seed(seed), record_type, count);
            let head = match record_type {
                RecordType::Samples
                | RecordType::Exemplars
                | RecordType::HistogramSamples
                | RecordType::FloatHistogramSamples
                | RecordType::CustomBucketsHistogramSamples
                | RecordType::CustomBucketsFloatHistogramSamples => 17,
                RecordType::HistogramSamplesV2 | RecordType::FloatHistogramSamplesV2 => {
                    let varints = whole[1..].split_inclusive(|byte| *byte < 0x80);
                    1 + varints.take(3).map(<[u8]>::len).sum::<usize>()
                }
                _ => 1,
            };
            let mut last = 0;
            for cut in 1..whole.len() {
                let summary = summarize(&whole[..cut]);
                assert!(summary.entries >= last && summary.entries <= count as u64);
                last = summary.entries;
                let Some(error) = summary.error else {
                    continue;
                };
                assert!(!error.crashes_prometheus());
                // The half-decoded entry is counted, unless not even the base was read.
                let counted = if cut < head && head > 1 { 0 } else { summary.entries + 1 };
                let expected = plural(record_type).map_or_else(
                    || "invalid size".to_owned(),
                    |plural| format!("decode error after {counted} {plural}: invalid size"),
                );
                assert_eq!(error.to_string(), expected, "{record_type} cut at {cut}");
            }
            // It ends well exactly after each entry, after the type byte, and after the base.
            let well = (1..=whole.len()).filter(|&cut| summarize(&whole[..cut]).error.is_none()).count();
            assert_eq!(well, count + 1 + usize::from(head > 1), "{record_type}");
        }
    });
}

#[test]
fn random_bytes_neither_panic_nor_hang() {
    for_seeds(|rng| {
        for kind in 0..=16 {
            let max = [10, 100, 1000][rng.usize(..3)];
            let mut record = list(rng, max, |rng| if rng.bool() { rng.u8(..4) } else { rng.u8(..) });
            record.insert(0, kind);
            let summary = summarize(&record);
            assert!(summary.entries < record.len() as u64);
            let entries = canonical::entries(&record);
            assert_eq!(entries.as_array().unwrap().len() as u64, summary.entries);
            walk_snapshot(&record);
            let _ = is_loki(&record);
        }
    });
}

#[test]
fn damaged_records_neither_panic_nor_hang() {
    for_seeds(|rng| {
        for record_type in RecordType::ALL {
            let mut record = random_record(rng, record_type, 4);
            for _ in 0..20 {
                let at = rng.usize(1..record.len());
                record[at] = [0, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..5)];
                let summary = summarize(&record);
                assert!(summary.entries < record.len() as u64);
                let entries = canonical::entries(&record);
                assert_eq!(entries.as_array().unwrap().len() as u64, summary.entries);
                walk_snapshot(&record);
            }
        }
    });
}

fn walk_snapshot(record: &[u8]) {
    match SnapshotRecord::parse(record) {
        SnapshotRecord::Series(series) => {
            let _ = series.decode();
            let _ = series.series();
        }
        SnapshotRecord::Tombstones(tombstones) => assert!(tombstones.entries().count() <= record.len()),
        SnapshotRecord::Exemplars(exemplars) => assert!(exemplars.entries().count() <= record.len()),
        SnapshotRecord::Unknown(_) => {}
    }
}

#[test]
fn no_record_of_prometheus_is_taken_for_one_of_loki() {
    for_seeds(|rng| {
        for record_type in RecordType::ALL {
            let count = rng.usize(..5);
            assert!(!is_loki(&random_record(rng, record_type, count)));
        }
    });
}

#[test]
fn iterators_end_after_the_first_error() {
    let record = hex("02 00 00");
    let Record::Samples(samples) = Record::parse(&record) else { unreachable!() };
    let mut entries = samples.entries();
    assert!(entries.next().unwrap().is_err());
    assert!(entries.next().is_none());
    assert!(entries.next().is_none());
}
