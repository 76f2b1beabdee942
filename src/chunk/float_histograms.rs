//! Encodings 3 and 6: histograms with float counts (`tsdb/chunkenc/float_histogram.go`, `float_histogram_st.go`).
//!
//! As [`super::histograms`], but all numbers are floats, and of each the bits that differ are written.

use super::bits::{BitReader, BitWriter};
use super::layout::Layout;
use super::start_times::StartTimes;
use super::xor::{Value, ValueWriter};
use super::{Sample, Wrong, header_of, hint, varbit};
use crate::record::{OwnedFloatHistogram, STALE, Span};

pub(super) fn decode(
    bits: &mut BitReader<'_>,
    resets: u8,
    start_times: Option<u8>,
    count: u16,
    read: &mut u16,
    each: &mut impl FnMut(Sample<'_>),
) -> Result<(), Wrong> {
    if count == 0 {
        return Ok(());
    }
    let layout = Layout::read(bits)?;
    let (pos, neg) = layout.buckets(bits, 64)?;
    let mut histogram = OwnedFloatHistogram {
        schema: layout.schema,
        zero_threshold_bits: layout.zero_threshold_bits,
        pos_spans: layout.pos_spans,
        neg_spans: layout.neg_spans,
        custom: layout.custom,
        pos: vec![0; pos],
        neg: vec![0; neg],
        ..OwnedFloatHistogram::default()
    };
    let mut buckets = vec![Value::default(); pos + neg];
    let (mut t, mut step) = (0_i64, 0_i64);
    let (mut all, mut zero, mut sum) = (Value::default(), Value::default(), Value::default());
    let mut start_times = start_times.map(StartTimes::new);
    for at in 0..count {
        let before = t;
        if at == 0 {
            t = varbit::signed(bits)?;
            for value in [&mut all, &mut zero, &mut sum].into_iter().chain(&mut buckets) {
                value.bits = bits.bits(64)?;
            }
        } else {
            step = step.wrapping_add(varbit::signed(bits)?);
            t = t.wrapping_add(step);
            for value in [&mut all, &mut zero, &mut sum] {
                value.read(bits)?;
            }
            if sum.bits != STALE {
                buckets.iter_mut().try_for_each(|value| value.read(bits))?;
            }
        }
        let st = match &mut start_times {
            Some(start_times) => start_times.read(bits, at, before, t)?,
            None => 0,
        };
        if sum.bits == STALE {
            let marker = OwnedFloatHistogram { sum_bits: STALE, ..OwnedFloatHistogram::default() };
            each(Sample::FloatHistogram { t, st, histogram: &marker });
        } else {
            (histogram.count_bits, histogram.zero_count_bits) = (all.bits, zero.bits);
            histogram.sum_bits = sum.bits;
            histogram.hint = hint(resets, at);
            for (bucket, value) in histogram.pos.iter_mut().chain(&mut histogram.neg).zip(&buckets) {
                *bucket = value.bits;
            }
            each(Sample::FloatHistogram { t, st, histogram: &histogram });
        }
        *read += 1;
    }
    Ok(())
}

/// Encodes histograms, each with its time in ms, as a chunk of [`Encoding::FloatHistogram`](super::Encoding::FloatHistogram).
/// `None` as of [`encode_histograms`](super::encode_histograms).
#[must_use]
pub fn encode_float_histograms(samples: &[(i64, &OwnedFloatHistogram)]) -> Option<Vec<u8>> {
    let first = samples.first()?.1;
    let [high, low] = u16::try_from(samples.len()).ok()?.to_be_bytes();
    let mut out = BitWriter::after(vec![high, low, header_of(first.hint)]);
    let empty = OwnedFloatHistogram { sum_bits: STALE, ..OwnedFloatHistogram::default() };
    let of = |histogram| if is_stale(histogram) { &empty } else { histogram };
    let layout = layout_of(of(first));
    layout.put(&mut out);
    let values = |now: &OwnedFloatHistogram| -> Vec<u64> {
        let whole = [now.count_bits, now.zero_count_bits, now.sum_bits];
        whole.iter().chain(&now.pos).chain(&now.neg).copied().collect()
    };
    let mut writers: Vec<ValueWriter> = values(of(first)).into_iter().map(ValueWriter::after).collect();
    let (mut before, mut step, mut was_stale) = (0_i64, 0_i64, false);
    for (at, &(t, histogram)) in samples.iter().enumerate() {
        let now = of(histogram);
        let is_marker = is_stale(now);
        let fits = layout_of(now) == layout
            && (now.pos.len(), now.neg.len()) == (of(first).pos.len(), of(first).neg.len())
            && !was_stale;
        if !(fits || is_marker) {
            return None;
        }
        if at == 0 {
            let buckets = |spans: &[Span]| spans.iter().map(|span| span.length as usize).sum::<usize>();
            if (buckets(&now.pos_spans), buckets(&now.neg_spans)) != (now.pos.len(), now.neg.len()) {
                return None;
            }
            varbit::put_signed(&mut out, t);
            for bits in values(now) {
                out.bits(bits, 64);
            }
        } else {
            let difference = t.wrapping_sub(before);
            varbit::put_signed(&mut out, difference.wrapping_sub(step));
            step = difference;
            for (writer, bits) in writers.iter_mut().zip(values(now)) {
                writer.put(&mut out, bits);
            }
        }
        (before, was_stale) = (t, is_marker);
    }
    Some(out.finish())
}

const fn is_stale(histogram: &OwnedFloatHistogram) -> bool {
    histogram.sum_bits == STALE
}

fn layout_of(histogram: &OwnedFloatHistogram) -> Layout {
    Layout {
        schema: histogram.schema,
        zero_threshold_bits: histogram.zero_threshold_bits,
        pos_spans: histogram.pos_spans.clone(),
        neg_spans: histogram.neg_spans.clone(),
        custom: histogram.custom.clone(),
    }
}
