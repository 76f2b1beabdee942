//! Encoding 4: floats, with start timestamps if there are any (`tsdb/chunkenc/xor2.go`).
//!
//! As [`super::xor`], but for samples from the third on one prefix says how time and value change. A staleness marker has a
//! prefix of its own, and the value after it is written by its difference from the last that was none.

use super::bits::BitReader;
use super::start_times::StartTimes;
use super::xor::{Value, Window};
use super::{Sample, Wrong};
use crate::record::STALE;

pub(super) fn decode(
    bits: &mut BitReader<'_>,
    header: u8,
    count: u16,
    read: &mut u16,
    each: &mut impl FnMut(Sample<'_>),
) -> Result<(), Wrong> {
    let mut start_times = StartTimes::new(header);
    let (mut t, mut step, mut last) = (0_i64, 0_i64, Value::default());
    for at in 0..count {
        let before = t;
        let value_bits = match at {
            0 => {
                t = bits.lenient_varint()?;
                let value_bits = bits.bits(64)?;
                if value_bits != STALE {
                    last.bits = value_bits;
                }
                value_bits
            }
            1 => {
                step = bits.lenient_unsigned()?.cast_signed();
                t = t.wrapping_add(step);
                value(bits, &mut last)?
            }
            _ => {
                let prefix = bits.ones(5)?;
                let size = match prefix {
                    2 => 13,
                    3 => 20,
                    4 => 64,
                    _ => 0,
                };
                step = step.wrapping_add(signed(bits.bits(size)?, size));
                t = t.wrapping_add(step);
                match prefix {
                    0 => last.bits,
                    1 => other_value(bits, &mut last)?,
                    5 => STALE,
                    _ => value(bits, &mut last)?,
                }
            }
        };
        let st = start_times.read(bits, at, before, t)?;
        each(Sample::Float { t, st, value_bits });
        *read += 1;
    }
    Ok(())
}

/// A number of so many bits in two's complement.
const fn signed(number: u64, size: u32) -> i64 {
    if size == 0 { 0 } else { (number << (64 - size)).cast_signed() >> (64 - size) }
}

fn value(bits: &mut BitReader<'_>, last: &mut Value) -> Result<u64, Wrong> {
    match bits.ones(3)? {
        0 => return Ok(last.bits),
        1 => {}
        2 => last.window = Window::read(bits)?,
        _ => return Ok(STALE),
    }
    last.bits ^= last.window.difference(bits)?;
    Ok(last.bits)
}

/// One that is not the same.
fn other_value(bits: &mut BitReader<'_>, last: &mut Value) -> Result<u64, Wrong> {
    if bits.bit()? {
        last.window = Window::read(bits)?;
    }
    last.bits ^= last.window.difference(bits)?;
    Ok(last.bits)
}
