//! Chunks of all encodings: decoded as Prometheus's iterators do, to the last bit, and encoded as its appenders do.
//!
//! `WALFIX_SEEDS=100000 cargo test --release --test format chunks::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use serde_json::Value;
use support::judged::knob;
use support::oracle;
use support::{note, test};
use walfix::chunk::{
    ChunkError, Encoding, Rest, Sample, each_sample, encode_float_histograms, encode_floats,
    encode_histograms, is_from_to,
};
use walfix::record::{OwnedFloatHistogram, OwnedHistogram, Span};

/// A chunk, and what Prometheus's iterator makes of it.
struct Judged {
    encoding: Encoding,
    data: Vec<u8>,
    is_damaged: bool,
    samples: Vec<String>,
    error: Option<String>,
}

impl Judged {
    fn of(answer: &Value) -> Self {
        let encoding = u8::try_from(answer["encoding"].as_u64().unwrap()).unwrap();
        let digits = answer["data"].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        Self {
            encoding: Encoding::of(encoding).unwrap(),
            data: (0..digits.len()).step_by(2).map(byte).collect(),
            is_damaged: answer["damaged"].as_bool().unwrap(),
            samples: answer["samples"]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s.as_str().unwrap().to_owned())
                .collect(),
            error: answer["error"].as_str().map(str::to_owned),
        }
    }
}

/// As the oracle prints lists.
fn list<T>(items: &[T], format: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(format).collect::<Vec<_>>().join(" "))
}

fn spans(spans: &[Span]) -> String {
    list(spans, |span| format!("{}:{}", span.offset, span.length))
}

fn bits(values: &[u64]) -> String {
    list(values, |bits| format!("{bits:x}"))
}

/// As the oracle prints samples.
pub(crate) fn printed(sample: &Sample<'_>) -> String {
    match sample {
        Sample::Float { t, st, value_bits } => format!("{t} {st} {value_bits:x}"),
        Sample::Histogram { t, st, histogram: h } => {
            let buckets = [&h.pos, &h.neg].map(|buckets| list(buckets, i64::to_string));
            format!(
                "{t} {st} {} {} {:x} {} {} {:x} {} {} {} {} {}",
                h.hint,
                h.schema,
                h.zero_threshold_bits,
                h.zero_count,
                h.count,
                h.sum_bits,
                spans(&h.pos_spans),
                spans(&h.neg_spans),
                buckets[0],
                buckets[1],
                bits(&h.custom)
            )
        }
        Sample::FloatHistogram { t, st, histogram: h } => format!(
            "{t} {st} {} {} {:x} {:x} {:x} {:x} {} {} {} {} {}",
            h.hint,
            h.schema,
            h.zero_threshold_bits,
            h.zero_count_bits,
            h.count_bits,
            h.sum_bits,
            spans(&h.pos_spans),
            spans(&h.neg_spans),
            bits(&h.pos),
            bits(&h.neg),
            bits(&h.custom)
        ),
    }
}

/// The chunk that is made of its own samples; `None` for encodings that are not written.
fn encoded_again(encoding: Encoding, data: &[u8]) -> Option<Vec<u8>> {
    let (mut floats, mut histograms, mut float_histograms) = (Vec::new(), Vec::new(), Vec::new());
    each_sample(encoding, data, |sample| match sample {
        Sample::Float { t, value_bits, .. } => floats.push((t, value_bits)),
        Sample::Histogram { t, histogram, .. } => histograms.push((t, histogram.clone())),
        Sample::FloatHistogram { t, histogram, .. } => float_histograms.push((t, histogram.clone())),
    })
    .ok()?;
    match encoding {
        Encoding::Xor => Some(encode_floats(&floats)),
        Encoding::Histogram => {
            let samples: Vec<(i64, &OwnedHistogram)> = histograms.iter().map(|(t, h)| (*t, h)).collect();
            encode_histograms(&samples)
        }
        Encoding::FloatHistogram => {
            let samples: Vec<(i64, &OwnedFloatHistogram)> =
                float_histograms.iter().map(|(t, h)| (*t, h)).collect();
            encode_float_histograms(&samples)
        }
        Encoding::Xor2 | Encoding::HistogramSt | Encoding::FloatHistogramSt => None,
    }
}

/// Whether it is told at once that a chunk is from one time to another; that is as its samples have it.
fn is_judged_at_once(encoding: Encoding, data: &[u8], case: &str) -> bool {
    let mut times = Vec::new();
    let ended = each_sample(encoding, data, |sample| times.push(sample.t()));
    let (first, last) = (times.first().copied().unwrap_or(0), times.last().copied().unwrap_or(0));
    let Some(said) = is_from_to(encoding, data, (first, last)) else { return false };
    let is_sorted = times.windows(2).all(|pair| pair[0] < pair[1]);
    assert_eq!(said, !times.is_empty() && is_sorted && ended.is_ok_and(Rest::is_padding), "{case}");
    for (first, last) in [(first.wrapping_add(1), last), (first, last.wrapping_sub(1))] {
        assert_eq!(is_from_to(encoding, data, (first, last)), Some(false), "{case}");
    }
    said
}

#[test]
fn chunks_are_decoded_and_encoded_as_prometheus_does() {
    let oracle = oracle::judge("chunks");
    let (first, count) = (knob("WALFIX_FIRST_SEED", 0).to_string(), knob("WALFIX_SEEDS", 1500).to_string());
    let (mut intact, mut samples, mut encoded, mut failing, mut alike, mut stricter, mut quick) =
        (0, 0, 0, 0, 0, 0, 0);
    oracle.chunks(&["--seed", &first, "--count", &count], |answer| {
        let judged = Judged::of(&answer);
        let Judged { encoding, data, .. } = &judged;
        let mut read = Vec::new();
        let ended = each_sample(*encoding, data, |sample| read.push(printed(&sample)));
        let case = || format!("{encoding:?} {}", answer["data"]);
        quick += u64::from(is_judged_at_once(*encoding, data, &case()));
        match (&ended, &judged.error) {
            (Ok(rest), None) => {
                assert_eq!(read, judged.samples, "{}", case());
                assert!(judged.is_damaged || rest.is_padding(), "{rest:?} {}", case());
            }
            // Near the end of a chunk its reader takes bits that are not there for zeros (`readBits`, `bstream.go`, where
            // `valid` wraps around).
            (Err(ChunkError::CutShort { .. }), _) => {
                assert!(judged.is_damaged && judged.samples.len() >= read.len(), "{ended:?} {}", case());
                assert_eq!(read, judged.samples[..read.len()], "{}", case());
            }
            (Err(_), Some(_)) => assert_eq!(read, judged.samples, "{}", case()),
            (ended, error) => panic!("{ended:?}, and {error:?}: {}", case()),
        }
        if judged.is_damaged {
            failing += u64::from(judged.error.is_some());
            alike += u64::from(ended.is_ok() == judged.error.is_none());
            stricter += u64::from(ended.is_err() && judged.error.is_none());
            return;
        }
        assert_eq!(judged.error, None, "{}", case());
        assert_eq!(encoding.count(data), u16::try_from(read.len()).ok());
        intact += 1;
        samples += read.len();
        // What a chunk says of counter resets before its first sample is not in its samples.
        let without_resets = |data: &[u8]| {
            let mut data = data.to_vec();
            if *encoding != Encoding::Xor && data[2] != 0b1100_0000 {
                data[2] = 0;
            }
            data
        };
        if let Some(again) = encoded_again(*encoding, data) {
            assert_eq!(without_resets(&again), without_resets(data), "{}", case());
            encoded += 1;
        }
    });
    note!(
        "{intact} chunks of {samples} samples, {encoded} encoded again; of damaged ones {alike} are judged alike, {failing} \
         fail, {stricter} only here; {quick} are judged at once"
    );
    assert!(encoded * 2 >= intact, "{encoded} of {intact}");
    assert!(failing > 0 && stricter < alike, "{stricter} {alike}");
}

#[test]
fn a_chunk_without_a_header_is_none() {
    for encoding in Encoding::ALL {
        assert_eq!(Encoding::of(encoding.byte()), Some(encoding));
        for length in 0..2 {
            let data = vec![0; length];
            assert_eq!(each_sample(encoding, &data, |_| panic!()), Err(ChunkError::NoHeader(length)));
        }
        assert!(each_sample(encoding, &[0; 3], |_| panic!()).is_ok_and(Rest::is_padding));
    }
    assert_eq!((Encoding::of(0), Encoding::of(7)), (None, None));
}

/// More buckets or spans than the bytes can hold ask for no memory.
#[test]
fn hostile_layouts_ask_for_no_memory() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut data: Vec<u8> = (0..rng.usize(8..80)).map(|_| rng.u8(..)).collect();
        if rng.bool() {
            data[..8].copy_from_slice(&[0, 9, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        }
        for encoding in Encoding::ALL {
            let mut count = 0_u32;
            let _ = each_sample(encoding, &data, |_| count += 1);
            assert!(count <= u32::from(encoding.count(&data).unwrap()));
        }
    }
}
