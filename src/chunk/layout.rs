//! What the histograms of a chunk have in common (`tsdb/chunkenc/histogram_meta.go`).

use super::bits::{BitReader, BitWriter};
use super::{Wrong, varbit};
use crate::record::{CUSTOM_BUCKETS_SCHEMA, Span, is_known_schema};

/// Resolution and buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold_bits: u64,
    pub(super) pos_spans: Vec<Span>,
    pub(super) neg_spans: Vec<Span>,
    /// The bits of upper bounds.
    pub(super) custom: Vec<u64>,
}

/// The highest bound that is written as a number of thousandths.
const MOST_THOUSANDTHS: f64 = 33_554_430.0;

impl Layout {
    pub(super) fn read(bits: &mut BitReader<'_>) -> Result<Self, Wrong> {
        let zero_threshold_bits = match bits.bits(8)? {
            0 => 0,
            255 => bits.bits(64)?,
            // A power of two: 0.5 times 2 to the power of the byte less 243.
            byte => (byte + 1023 - 244) << 52,
        };
        let schema = varbit::signed(bits)?;
        let pos_spans = read_spans(bits)?;
        let neg_spans = read_spans(bits)?;
        // Prometheus keeps the lower 32 bits of it.
        #[expect(clippy::cast_possible_truncation, reason = "as Prometheus does")]
        let kept = schema as i32;
        let custom = if kept == CUSTOM_BUCKETS_SCHEMA { read_bounds(bits)? } else { Vec::new() };
        if !is_known_schema(kept) {
            return Err(Wrong::Schema(schema));
        }
        Ok(Self { schema: kept, zero_threshold_bits, pos_spans, neg_spans, custom })
    }

    /// How many positive and negative buckets it has; each takes at least `least` bits of the first sample.
    pub(super) fn buckets(&self, bits: &BitReader<'_>, least: u64) -> Result<(usize, usize), Wrong> {
        let count =
            |spans: &[Span]| spans.iter().map(|span| u64::from(span.length)).fold(0, u64::saturating_add);
        let (pos, neg) = (count(&self.pos_spans), count(&self.neg_spans));
        if pos.saturating_add(neg).saturating_mul(least) > bits.left() {
            return Err(Wrong::CutShort);
        }
        let number = |count: u64| usize::try_from(count).map_err(|_| Wrong::CutShort);
        Ok((number(pos)?, number(neg)?))
    }

    pub(super) fn put(&self, out: &mut BitWriter) {
        put_zero_threshold(out, self.zero_threshold_bits);
        varbit::put_signed(out, i64::from(self.schema));
        put_spans(out, &self.pos_spans);
        put_spans(out, &self.neg_spans);
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            varbit::put_unsigned(out, self.custom.len() as u64);
            for bound in &self.custom {
                put_bound(out, f64::from_bits(*bound));
            }
        }
    }
}

fn read_spans(bits: &mut BitReader<'_>) -> Result<Vec<Span>, Wrong> {
    let count = varbit::unsigned(bits)?;
    let mut spans = Vec::new();
    for _ in 0..count {
        let (length, offset) = (varbit::unsigned(bits)?, varbit::signed(bits)?);
        #[expect(clippy::cast_possible_truncation, reason = "as Prometheus does")]
        spans.push(Span { length: length as u32, offset: offset as i32 });
    }
    Ok(spans)
}

fn put_spans(out: &mut BitWriter, spans: &[Span]) {
    varbit::put_unsigned(out, spans.len() as u64);
    for span in spans {
        varbit::put_unsigned(out, u64::from(span.length));
        varbit::put_signed(out, i64::from(span.offset));
    }
}

fn read_bounds(bits: &mut BitReader<'_>) -> Result<Vec<u64>, Wrong> {
    let count = varbit::unsigned(bits)?;
    let mut bounds = Vec::new();
    for _ in 0..count {
        bounds.push(match varbit::unsigned(bits)? {
            0 => bits.bits(64)?,
            #[expect(clippy::cast_precision_loss, reason = "as Prometheus does")]
            thousandths => ((thousandths - 1) as f64 / 1000.0).to_bits(),
        });
    }
    Ok(bounds)
}

/// A power of two takes one byte.
fn put_zero_threshold(out: &mut BitWriter, bits: u64) {
    let (exponent, is_power) = (bits >> 52, bits & ((1 << 52) - 1) == 0);
    match exponent.checked_sub(1023 - 244) {
        _ if bits == 0 || bits == 1 << 63 => out.bits(0, 8),
        Some(byte @ 1..=254) if is_power => out.bits(byte, 8),
        _ => {
            out.bits(255, 8);
            out.bits(bits, 64);
        }
    }
}

fn put_bound(out: &mut BitWriter, bound: f64) {
    let thousandths = bound * 1000.0;
    // A comparison with NaN is false.
    let is_in_range = (0.0..=MOST_THOUSANDTHS).contains(&thousandths);
    #[expect(clippy::float_cmp, reason = "it is written so only if it is read as the very same")]
    if is_in_range && thousandths.round() / 1000.0 == bound {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
        varbit::put_unsigned(out, thousandths.round() as u64 + 1);
    } else {
        out.bits(0, 1);
        out.bits(bound.to_bits(), 64);
    }
}
