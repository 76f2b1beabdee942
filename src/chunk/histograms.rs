//! Encodings 2 and 5: histograms with integer counts (`tsdb/chunkenc/histogram.go`, `histogram_st.go`).
//!
//! The layout, then samples. The first: time, count, zero count, 64 bits of the sum, buckets. All others: how the difference
//! of each changes, but for the sum, of which the bits that differ are written. A staleness marker has no buckets.

use super::bits::{BitReader, BitWriter};
use super::layout::Layout;
use super::start_times::StartTimes;
use super::xor::{Value, ValueWriter};
use super::{Sample, Wrong, header_of, hint, varbit};
use crate::record::{OwnedHistogram, STALE};

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
    let (pos, neg) = layout.buckets(bits, 1)?;
    let mut histogram = OwnedHistogram {
        schema: layout.schema,
        zero_threshold_bits: layout.zero_threshold_bits,
        pos_spans: layout.pos_spans,
        neg_spans: layout.neg_spans,
        custom: layout.custom,
        pos: vec![0; pos],
        neg: vec![0; neg],
        ..OwnedHistogram::default()
    };
    let mut steps = vec![0_i64; pos + neg];
    let (mut t, mut t_step, mut count_step, mut zero_step) = (0_i64, 0_i64, 0_i64, 0_i64);
    let (mut sum, mut start_times) = (Value::default(), start_times.map(StartTimes::new));
    for at in 0..count {
        let before = t;
        if at == 0 {
            t = varbit::signed(bits)?;
            histogram.count = varbit::unsigned(bits)?;
            histogram.zero_count = varbit::unsigned(bits)?;
            sum.bits = bits.bits(64)?;
            for bucket in histogram.pos.iter_mut().chain(&mut histogram.neg) {
                *bucket = varbit::signed(bits)?;
            }
        } else {
            add(&mut t_step, varbit::signed(bits)?);
            add(&mut t, t_step);
            add(&mut count_step, varbit::signed(bits)?);
            histogram.count = histogram.count.wrapping_add_signed(count_step);
            add(&mut zero_step, varbit::signed(bits)?);
            histogram.zero_count = histogram.zero_count.wrapping_add_signed(zero_step);
            sum.read(bits)?;
            if sum.bits != STALE {
                let buckets = histogram.pos.iter_mut().chain(&mut histogram.neg);
                for (bucket, step) in buckets.zip(&mut steps) {
                    add(step, varbit::signed(bits)?);
                    add(bucket, *step);
                }
            }
        }
        let st = match &mut start_times {
            Some(start_times) => start_times.read(bits, at, before, t)?,
            None => 0,
        };
        if sum.bits == STALE {
            let marker = OwnedHistogram { sum_bits: STALE, ..OwnedHistogram::default() };
            each(Sample::Histogram { t, st, histogram: &marker });
        } else {
            histogram.sum_bits = sum.bits;
            histogram.hint = hint(resets, at);
            each(Sample::Histogram { t, st, histogram: &histogram });
        }
        *read += 1;
    }
    Ok(())
}

fn add(to: &mut i64, change: i64) {
    *to = to.wrapping_add(change);
}

/// Encodes histograms, each with its time in ms, as a chunk of [`Encoding::Histogram`](super::Encoding::Histogram). `None`
/// unless all have the schema, the zero threshold, the buckets and the bounds of the first, or are staleness markers after which
/// only such follow, or if there are more than 65 535.
#[must_use]
pub fn encode_histograms(samples: &[(i64, &OwnedHistogram)]) -> Option<Vec<u8>> {
    let first = samples.first()?.1;
    let [high, low] = u16::try_from(samples.len()).ok()?.to_be_bytes();
    let mut out = BitWriter::after(vec![high, low, header_of(first.hint)]);
    let empty = OwnedHistogram { sum_bits: STALE, ..OwnedHistogram::default() };
    let of = |histogram| if is_stale(histogram) { &empty } else { histogram };
    let layout = layout_of(of(first));
    layout.put(&mut out);
    let (mut t_step, mut count_step, mut zero_step) = (0_i64, 0_i64, 0_i64);
    let (mut before, mut last): (i64, &OwnedHistogram) = (0, &empty);
    let mut steps = vec![0_i64; of(first).pos.len() + of(first).neg.len()];
    let mut sum = ValueWriter::after(0);
    for (at, &(t, histogram)) in samples.iter().enumerate() {
        let now = of(histogram);
        let is_marker = is_stale(now);
        let fits = layout_of(now) == layout
            && (now.pos.len(), now.neg.len()) == (of(first).pos.len(), of(first).neg.len())
            && (at == 0 || !is_stale(last));
        if !(fits || is_marker) {
            return None;
        }
        if at == 0 {
            let buckets =
                |spans: &[crate::record::Span]| spans.iter().map(|span| span.length as usize).sum::<usize>();
            if (buckets(&now.pos_spans), buckets(&now.neg_spans)) != (now.pos.len(), now.neg.len()) {
                return None;
            }
            varbit::put_signed(&mut out, t);
            varbit::put_unsigned(&mut out, now.count);
            varbit::put_unsigned(&mut out, now.zero_count);
            out.bits(now.sum_bits, 64);
            sum = ValueWriter::after(now.sum_bits);
            now.pos.iter().chain(&now.neg).for_each(|bucket| varbit::put_signed(&mut out, *bucket));
        } else {
            let change = |step: &mut i64, now: i64| {
                let change = now.wrapping_sub(*step);
                *step = now;
                change
            };
            varbit::put_signed(&mut out, change(&mut t_step, t.wrapping_sub(before)));
            let difference = |now: u64, before: u64| now.wrapping_sub(before).cast_signed();
            let count = change(&mut count_step, difference(now.count, last.count));
            let zero = change(&mut zero_step, difference(now.zero_count, last.zero_count));
            varbit::put_signed(&mut out, if is_marker { 0 } else { count });
            varbit::put_signed(&mut out, if is_marker { 0 } else { zero });
            sum.put(&mut out, now.sum_bits);
            if !is_marker {
                let buckets = now.pos.iter().chain(&now.neg).zip(last.pos.iter().chain(&last.neg));
                for ((now, before), step) in buckets.zip(&mut steps) {
                    varbit::put_signed(&mut out, change(step, now.wrapping_sub(*before)));
                }
            }
        }
        (before, last) = (t, now);
    }
    Some(out.finish())
}

const fn is_stale(histogram: &OwnedHistogram) -> bool {
    histogram.sum_bits == STALE
}

fn layout_of(histogram: &OwnedHistogram) -> Layout {
    Layout {
        schema: histogram.schema,
        zero_threshold_bits: histogram.zero_threshold_bits,
        pos_spans: histogram.pos_spans.clone(),
        neg_spans: histogram.neg_spans.clone(),
        custom: histogram.custom.clone(),
    }
}
