//! Bits, the highest of each byte first.

use super::{Rest, Wrong};

/// Reads bits.
#[derive(Clone, Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bytes that are not in `word`.
    next: usize,
    /// Bits that have been loaded, from the highest on; those below them are zero.
    word: u64,
    loaded: u32,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, word: 0, loaded: 0 }
    }

    /// Loads at least 57 bits, or all that are left.
    #[inline]
    fn load(&mut self) {
        if let Some(bytes) = self.bytes.get(self.next..).and_then(<[u8]>::first_chunk) {
            let fresh = u64::from_be_bytes(*bytes);
            let bytes = (64 - self.loaded) / 8;
            // What does not fit is cut at a whole byte.
            let kept = if bytes == 8 { fresh } else { fresh & !(u64::MAX >> (8 * bytes)) };
            self.word |= kept >> self.loaded;
            self.next += bytes as usize;
            self.loaded += 8 * bytes;
            return;
        }
        while self.loaded <= 56
            && let Some(byte) = self.bytes.get(self.next)
        {
            self.word |= u64::from(*byte) << (56 - self.loaded);
            self.next += 1;
            self.loaded += 8;
        }
    }

    /// The next `count` bits, at most 64, as a number.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u64, Wrong> {
        if count > 56 {
            let high = self.bits(count - 32)?;
            return Ok(high << 32 | self.bits(32)?);
        }
        if self.loaded < count {
            self.load();
            if self.loaded < count {
                return Err(Wrong::CutShort);
            }
        }
        if count == 0 {
            return Ok(0);
        }
        let bits = self.word >> (64 - count);
        self.word <<= count;
        self.loaded -= count;
        Ok(bits)
    }

    #[inline]
    pub(super) fn bit(&mut self) -> Result<bool, Wrong> {
        Ok(self.bits(1)? == 1)
    }

    /// How many of the next bits are set before one is not, at most `most` (less than 16); they are read, and the one that is not.
    #[inline]
    pub(super) fn ones(&mut self, most: u32) -> Result<u32, Wrong> {
        if self.loaded <= most {
            self.load();
        }
        let ones = self.word.leading_ones().min(most);
        self.bits((ones + 1).min(most))?;
        Ok(ones)
    }

    /// A varint, as `encoding/binary` has it.
    pub(super) fn uvarint(&mut self) -> Result<u64, Wrong> {
        let (number, overflows) = self.lenient_uvarint()?;
        if overflows { Err(Wrong::Overflow) } else { Ok(number) }
    }

    /// A varint of which the tenth byte may have more bits than a number has: they are dropped (`readUvarint`,
    /// `tsdb/chunkenc/bstream.go`). Whether it has.
    fn lenient_uvarint(&mut self) -> Result<(u64, bool), Wrong> {
        let mut number = 0;
        for at in 0..10 {
            let byte = self.bits(8)?;
            number |= (byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                return Ok((number, at == 9 && byte > 1));
            }
        }
        Err(Wrong::Overflow)
    }

    pub(super) fn varint(&mut self) -> Result<i64, Wrong> {
        self.uvarint().map(unzigzag)
    }

    pub(super) fn lenient_varint(&mut self) -> Result<i64, Wrong> {
        self.lenient_unsigned().map(unzigzag)
    }

    pub(super) fn lenient_unsigned(&mut self) -> Result<u64, Wrong> {
        self.lenient_uvarint().map(|(number, _)| number)
    }

    /// Bits that are left.
    pub(super) fn left(&self) -> u64 {
        (self.bytes.len() - self.next) as u64 * 8 + u64::from(self.loaded)
    }

    pub(super) fn rest(&self) -> Rest {
        let later = self.bytes.get(self.next..).unwrap_or_default();
        Rest { bits: self.left(), is_zero: self.word == 0 && later.iter().all(|byte| *byte == 0) }
    }
}

const fn unzigzag(zigzag: u64) -> i64 {
    (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()
}

/// Writes bits.
#[derive(Clone, Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used.
    free: u32,
}

impl BitWriter {
    /// After these bytes.
    pub(super) const fn after(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    /// The lowest `count` bits of a number, at most 64.
    pub(super) fn bits(&mut self, bits: u64, mut count: u32) {
        while count > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = count.min(self.free);
            let part = bits >> (count - taken) & ((1 << taken) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::try_from(part << (self.free - taken)).unwrap_or(0);
            }
            self.free -= taken;
            count -= taken;
        }
    }

    pub(super) fn uvarint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bits(number & 0x7f | 0x80, 8);
            number >>= 7;
        }
        self.bits(number, 8);
    }

    pub(super) fn varint(&mut self, number: i64) {
        self.uvarint(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
