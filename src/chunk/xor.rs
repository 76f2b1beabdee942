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
