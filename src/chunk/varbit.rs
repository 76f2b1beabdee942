//! Numbers of 1 to 72 bits: as many ones as say how many bits follow (`tsdb/chunkenc/varbit.go`).

use super::Wrong;
use super::bits::{BitReader, BitWriter};

/// Bits that follow so many ones.
const SIZES: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

#[inline]
fn sized(bits: &mut BitReader<'_>) -> Result<(u64, u32), Wrong> {
    let size = SIZES.get(bits.ones(8)? as usize).copied().unwrap_or(0);
    Ok((bits.bits(size)?, size))
}

pub(super) fn unsigned(bits: &mut BitReader<'_>) -> Result<u64, Wrong> {
    Ok(sized(bits)?.0)
}

#[inline]
pub(super) fn signed(bits: &mut BitReader<'_>) -> Result<i64, Wrong> {
    let (number, size) = sized(bits)?;
    Ok(extended(number, size))
}

/// A number of so many bits. Half of them and one more are positive: not as in two's complement, the highest bit alone is.
#[inline]
pub(super) const fn extended(number: u64, size: u32) -> i64 {
    if size == 0 || size >= 64 || number <= 1 << (size - 1) {
        return number.cast_signed();
    }
    number.wrapping_sub(1 << size).cast_signed()
}

/// Whether [`extended`] gives the number back from so many bits.
pub(super) const fn fits(number: i64, size: u32) -> bool {
    size >= 64 || -(1 << (size - 1)) < number && number <= 1 << (size - 1)
}

pub(super) fn put_unsigned(bits: &mut BitWriter, number: u64) {
    put(bits, number, |size| size >= 64 || number >> size == 0);
}

pub(super) fn put_signed(bits: &mut BitWriter, number: i64) {
    put(bits, number.cast_unsigned(), |size| if size == 0 { number == 0 } else { fits(number, size) });
}

fn put(bits: &mut BitWriter, number: u64, fits: impl Fn(u32) -> bool) {
    for (ones, size) in (0..).zip(SIZES) {
        if fits(size) {
            let length = (ones + 1).min(8);
            bits.bits(0xff << (length - ones) & ((1 << length) - 1), length);
            bits.bits(number, size);
            return;
        }
    }
}
