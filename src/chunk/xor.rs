//! Encoding 1: floats (`tsdb/chunkenc/xor.go`).
//!
//! The first sample: varint time, 64 bits of the value. The second: uvarint difference of the times, value. All others: how
//! the difference changes, value. A value is written by the bits in which it differs from the one before.

use super::bits::{BitReader, BitWriter};
use super::varbit::{extended, fits};
use super::{Sample, Wrong};

/// Bits of a change of the difference, after so many ones.
const CHANGES: [u32; 5] = [0, 14, 17, 20, 64];

pub(super) fn decode(
    bits: &mut BitReader<'_>,
    count: u16,
    read: &mut u16,
    each: &mut impl FnMut(Sample<'_>),
) -> Result<(), Wrong> {
    let (mut t, mut step, mut value) = (0_i64, 0_i64, Value::default());
    for at in 0..count {
        match at {
            0 => {
                t = bits.varint()?;
                value.bits = bits.bits(64)?;
            }
            1 => step = bits.uvarint()?.cast_signed(),
            _ => {
                let size = CHANGES.get(bits.ones(4)? as usize).copied().unwrap_or(0);
                step = step.wrapping_add(extended(bits.bits(size)?, size));
            }
        }
        if at > 0 {
            t = t.wrapping_add(step);
            value.read(bits)?;
        }
        each(Sample::Float { t, st: 0, value_bits: value.bits });
        *read += 1;
    }
    Ok(())
}

/// For each class of changes of the difference: the bits that say so, those of the change, and the highest change that is not negative.
const CLASSES: [(u32, u32, u64); 4] = [(1, 0, 0), (2, 14, 1 << 13), (3, 17, 1 << 16), (4, 20, 1 << 19)];

/// Whether the samples can be decoded, are in order from the one time to the other, ms, and are followed by padding. As [`decode`] has
/// it, and faster: values are skipped, and one load is enough for most samples.
pub(super) fn is_from_to(body: &[u8], count: u16, (first, last): (i64, i64)) -> bool {
    let mut bits = BitReader::new(body);
    let mut beginning = || {
        let t = bits.varint()?;
        bits.bits(64)?;
        let step = if count > 1 { bits.uvarint()?.cast_signed() } else { 0 };
        Ok::<_, Wrong>((t, step))
    };
    let Ok((begins, mut step)) = beginning() else { return false };
    let end = body.len() * 8;
    let mut at = end.saturating_sub(usize::try_from(bits.left()).unwrap_or(end));
    let (mut t, mut is_sorted, mut length) = (begins, true, 64);
    for number in 1..count {
        let mut word = word_at(body, at);
        if number > 1 {
            let class = word.leading_ones();
            let change = if let Some(&(control, size, highest)) = CLASSES.get(class as usize) {
                let change = word << control >> 1 >> (63 - size);
                at += (control + size) as usize;
                word <<= control + size;
                change.wrapping_sub(u64::from(change > highest) << size)
            } else {
                let high = word_at(body, at + 4) >> 32;
                let change = high << 32 | word_at(body, at + 36) >> 32;
                at += 68;
                word = word_at(body, at);
                change
            };
            step = step.wrapping_add(change.cast_signed());
        }
        let next = t.wrapping_add(step);
        is_sorted &= next > t;
        t = next;
        // Two bits are of a new window, one and a zero of the one before, a zero of the same value.
        let is_new = word >> 62 == 3;
        let new = ((word >> 51) & 0x3f) as usize;
        let new = if new == 0 { 64 } else { new };
        length = if is_new { new } else { length };
        let (has_bits, window) = (usize::from(word >> 63 == 1), usize::from(is_new));
        at += 1 + has_bits * (1 + length) + window * 11;
    }
    let rest = body.get(at / 8..).unwrap_or_default();
    let is_zero = rest
        .split_first()
        .is_none_or(|(byte, later)| byte << (at % 8) == 0 && later.iter().all(|byte| *byte == 0));
    count > 0 && is_sorted && (begins, t) == (first, last) && at <= end && end - at < 16 && is_zero
}

/// The bits from `at` on, at least 57 of them, the first one highest; zeros where there are no more.
#[inline]
fn word_at(body: &[u8], at: usize) -> u64 {
    let bytes = body.get(at / 8..).unwrap_or_default();
    let word = bytes.first_chunk().map_or_else(|| last_word(bytes), |bytes| u64::from_be_bytes(*bytes));
    word << (at % 8)
}

#[cold]
fn last_word(bytes: &[u8]) -> u64 {
    bytes.iter().zip(0..8).fold(0, |word, (byte, at)| word | u64::from(*byte) << (56 - 8 * at))
}

/// A value that is written by the bits in which it differs from the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Value {
    pub(super) bits: u64,
    /// Bits that differ are between so many that do not, at both ends.
    pub(super) window: Window,
}

/// Bits that do not differ: the highest ones and the lowest ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    leading: u8,
    /// What [`Window::read`] gives of hostile bytes wraps around, as it does in Prometheus.
    trailing: u8,
}

impl Window {
    /// Reads a new one: 5 bits of its beginning, 6 of its length, where 0 is 64.
    #[inline]
    pub(super) fn read(bits: &mut BitReader<'_>) -> Result<Self, Wrong> {
        let [leading, length] = [bits.bits(5)?, bits.bits(6)?].map(|bits| u8::try_from(bits).unwrap_or(0));
        let length = if length == 0 { 64 } else { length };
        Ok(Self { leading, trailing: 64_u8.wrapping_sub(leading).wrapping_sub(length) })
    }

    /// The bits within it, at their place.
    #[inline]
    pub(super) fn difference(self, bits: &mut BitReader<'_>) -> Result<u64, Wrong> {
        let length = 64_u8.wrapping_sub(self.leading).wrapping_sub(self.trailing);
        let difference = bits.bits(u32::from(length))?;
        Ok(difference.checked_shl(u32::from(self.trailing)).unwrap_or(0))
    }
}

impl Value {
    #[inline]
    pub(super) fn read(&mut self, bits: &mut BitReader<'_>) -> Result<(), Wrong> {
        match bits.ones(2)? {
            0 => return Ok(()),
            1 => {}
            _ => self.window = Window::read(bits)?,
        }
        self.bits ^= self.window.difference(bits)?;
        Ok(())
    }
}

/// As [`Value`], to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueWriter {
    pub(super) bits: u64,
    /// The highest and the lowest bits that do not differ; `None` before there is a difference.
    window: Option<(u32, u32)>,
}

impl ValueWriter {
    pub(super) const fn after(bits: u64) -> Self {
        Self { bits, window: None }
    }

    pub(super) fn put(&mut self, out: &mut BitWriter, value_bits: u64) {
        let difference = value_bits ^ self.bits;
        self.bits = value_bits;
        if difference == 0 {
            out.bits(0, 1);
            return;
        }
        let (leading, trailing) = (difference.leading_zeros().min(31), difference.trailing_zeros());
        match self.window {
            Some(window) if leading >= window.0 && trailing >= window.1 => {
                out.bits(0b10, 2);
                out.bits(difference >> window.1, 64 - window.0 - window.1);
            }
            _ => {
                self.window = Some((leading, trailing));
                let length = 64 - leading - trailing;
                out.bits(0b11, 2);
                out.bits(u64::from(leading), 5);
                out.bits(u64::from(length), 6);
                out.bits(difference >> trailing, length);
            }
        }
    }
}

/// Encodes floats, each a time in ms and the bits of a value, as a chunk of [`Encoding::Xor`](super::Encoding::Xor). A
/// chunk holds at most 65 535; of more, the first.
#[must_use]
pub fn encode_floats(samples: &[(i64, u64)]) -> Vec<u8> {
    let count = u16::try_from(samples.len()).unwrap_or(u16::MAX);
    let mut out = BitWriter::after(count.to_be_bytes().to_vec());
    let (mut before, mut step, mut value) = (0_i64, 0_i64, ValueWriter::after(0));
    for (at, &(t, value_bits)) in samples.iter().take(usize::from(count)).enumerate() {
        let now = t.wrapping_sub(before);
        match at {
            0 => {
                out.varint(t);
                out.bits(value_bits, 64);
                value = ValueWriter::after(value_bits);
            }
            1 => {
                out.uvarint(now.cast_unsigned());
                value.put(&mut out, value_bits);
                step = now;
            }
            _ => {
                put_change(&mut out, now.wrapping_sub(step));
                value.put(&mut out, value_bits);
                step = now;
            }
        }
        before = t;
    }
    out.finish()
}

fn put_change(out: &mut BitWriter, change: i64) {
    let bits = change.cast_unsigned();
    if change == 0 {
        return out.bits(0, 1);
    }
    for (prefix, length, size) in [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)] {
        if fits(change, size) {
            out.bits(prefix, length);
            return out.bits(bits, size);
        }
    }
    out.bits(0b1111, 4);
    out.bits(bits, 64);
}
