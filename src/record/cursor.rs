//! A checked reader of bytes, with the arithmetic of Prometheus's `encoding.Decbuf` (`tsdb/encoding/encoding.go`).

/// Why a read failed: Prometheus's `ErrInvalidSize`, which is the only error its primitives have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutShort {
    /// Prometheus does not get as far as reporting this: it panics, runs out of memory, or loops for hours.
    pub(crate) crashes: bool,
}

impl CutShort {
    pub(crate) const SHORT: Self = Self { crashes: false };
    pub(crate) const ABSURD: Self = Self { crashes: true };
}

/// What Prometheus allocates at once, in bytes, from which on a count that its record cannot hold is called
/// a crash: few machines that run Prometheus give it 8 GiB for one record.
const ABSURD_BYTES: u64 = 8 << 30;

/// Bytes not yet read. A failed read consumes nothing that matters: readers stop at the first failure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    overlong: bool,
}

/// Something that walks over a record with a cursor.
pub(crate) trait AtCursor {
    /// The cursor, after the last entry.
    fn cursor(&self) -> &Cursor<'_>;
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(rest: &'a [u8]) -> Self {
        Self { rest, overlong: false }
    }

    /// The bytes after the record's type byte.
    pub(crate) fn body_of(record: &'a [u8]) -> Self {
        Self::new(record.get(1..).unwrap_or_default())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether a varint had more bytes than it needs: Prometheus's reader takes it, and no writer makes it
    /// (`encoding/binary`, `PutUvarint`).
    pub(crate) const fn overlong(&self) -> bool {
        self.overlong
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Passes over so many bytes, which have been read another way.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// Passes over `count` varints, signed or not.
    #[inline]
    pub(crate) fn skip_varints(&mut self, count: u64) -> Result<(), CutShort> {
        let (bytes, left) = plain_varints(self.rest, count);
        self.skip(bytes);
        if left > 0 {
            // Of a copy: where this one is, nobody else knows, so that it is in registers.
            let mut ahead = *self;
            ahead.skip_odd_varints(left)?;
            *self = ahead;
        }
        Ok(())
    }

    /// The same, of which the first one is longer, or near the end.
    #[inline(never)]
    fn skip_odd_varints(&mut self, mut count: u64) -> Result<(), CutShort> {
        while count > 0 {
            self.uvarint64()?;
            count -= 1;
            if count >= 8 {
                let (bytes, left) = plain_varints(self.rest, count);
                self.skip(bytes);
                count = left;
            }
        }
        Ok(())
    }

    /// Passes over `count` 64-bit numbers.
    pub(crate) fn skip_be64(&mut self, count: u64) -> Result<(), CutShort> {
        let bytes =
            usize::try_from(count).ok().and_then(|count| count.checked_mul(8)).ok_or(CutShort::SHORT)?;
        self.rest = self.rest.get(bytes..).ok_or(CutShort::SHORT)?;
        Ok(())
    }

    /// Takes note of what was read another way.
    pub(crate) fn note_overlong(&mut self, overlong: bool) {
        self.overlong |= overlong;
    }

    /// The bytes between `start`, an earlier state of this cursor, and here.
    pub(crate) fn since(&self, start: &Self) -> &'a [u8] {
        start.rest.get(..start.rest.len().saturating_sub(self.rest.len())).unwrap_or_default()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, CutShort> {
        let (&byte, rest) = self.rest.split_first().ok_or(CutShort::SHORT)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn be64(&mut self) -> Result<u64, CutShort> {
        let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(CutShort::SHORT)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    pub(crate) fn be64_signed(&mut self) -> Result<i64, CutShort> {
        self.be64().map(u64::cast_signed)
    }

    #[inline]
    pub(crate) fn uvarint64(&mut self) -> Result<u64, CutShort> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            Some((&low, &[high @ 1..0x80, ref rest @ ..])) => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => {
                // Of a copy, as in `skip_varints`.
                let mut ahead = *self;
                let value = ahead.long_uvarint64()?;
                *self = ahead;
                Ok(value)
            }
        }
    }

    #[inline(never)]
    fn long_uvarint64(&mut self) -> Result<u64, CutShort> {
        let mut value = 0_u64;
        let mut shift = 0_u32;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                // The tenth byte holds the 64th bit and no other.
                if index == 9 && byte > 1 {
                    break;
                }
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                self.overlong |= byte == 0;
                return Ok(value);
            }
        }
        Err(CutShort::SHORT)
    }

    /// A zigzag varint.
    #[inline]
    pub(crate) fn varint64(&mut self) -> Result<i64, CutShort> {
        let zigzag = self.uvarint64()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// A zigzag varint of which Prometheus keeps the low 32 bits.
    #[allow(clippy::cast_possible_truncation, reason = "Prometheus writes int32(buf.Varint64())")]
    pub(crate) fn varint32(&mut self) -> Result<i32, CutShort> {
        self.varint64().map(|value| value as i32)
    }

    /// A varint of which Prometheus keeps the low 32 bits (`Decbuf.Uvarint32`).
    #[allow(clippy::cast_possible_truncation, reason = "Prometheus writes uint32(d.Uvarint64())")]
    pub(crate) fn uvarint32(&mut self) -> Result<u32, CutShort> {
        self.uvarint64().map(|value| value as u32)
    }

    /// A string with its length before it (`Decbuf.UvarintBytes`).
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], CutShort> {
        let length = self.uvarint64()?;
        // int(length) is negative, so the length check passes and the slice expression panics.
        if length.cast_signed() < 0 {
            return Err(CutShort::ABSURD);
        }
        let length = usize::try_from(length).map_err(|_| CutShort::SHORT)?;
        let (string, rest) = self.rest.split_at_checked(length).ok_or(CutShort::SHORT)?;
        self.rest = rest;
        Ok(string)
    }

    /// How many elements follow. From 2^63 on the count is negative for Prometheus, whose loops then run
    /// zero times.
    pub(crate) fn count(&mut self) -> Result<u64, CutShort> {
        let count = self.uvarint64()?;
        Ok(if count.cast_signed() < 0 { 0 } else { count })
    }

    /// How many elements follow, where Prometheus makes room for them before it counts: from 2^63 on it panics.
    pub(crate) fn length(&mut self) -> Result<u64, CutShort> {
        let length = self.uvarint64()?;
        if length.cast_signed() < 0 { Err(CutShort::ABSURD) } else { Ok(length) }
    }

    /// Whether Prometheus dies on `count` elements for which it takes `size` bytes each: only if the record
    /// cannot hold them, for what it does hold was paid for once already.
    pub(crate) const fn is_absurd(&self, count: u64, size: u64) -> bool {
        count > self.rest.len() as u64 && count.saturating_mul(size) >= ABSURD_BYTES
    }
}

/// Eight bytes at once, as long as none of their varints has more than two, and none is longer than it must be: how many bytes
/// those have of the first `count` varints, and how many are left.
#[inline(never)]
fn plain_varints(rest: &[u8], mut count: u64) -> (usize, u64) {
    const GOES_ON: u64 = 0x8080_8080_8080_8080;
    const NOT_ZERO: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut after = rest;
    while count > 0
        && let Some(bytes) = after.first_chunk()
    {
        let word = u64::from_le_bytes(*bytes);
        let goes_on = word & GOES_ON;
        if count < 8 {
            if goes_on & ((1 << (8 * count)) - 1) == 0 {
                return (rest.len() - after.len() + usize::try_from(count).unwrap_or(0), 0);
            }
            break;
        }
        let is_zero = !(((word & NOT_ZERO) + NOT_ZERO) | word) & GOES_ON;
        if goes_on << 8 & (goes_on | is_zero) != 0 {
            break;
        }
        count -= if goes_on == 0 { 8 } else { u64::from(8 - goes_on.count_ones()) };
        // The last one may have its second byte in the next word.
        let complete = if goes_on >> 63 == 0 { 8 } else { 7 };
        after = after.get(complete..).unwrap_or_default();
    }
    (rest.len() - after.len(), count)
}
