//! How records of many entries save room: refs and times relative to the first or the previous entry.

use super::cursor::{Cursor, CutShort};
use super::put;

/// Which series an entry is of, and when. It is filled where it is: a result of this size is written in pieces and read as
/// a whole, for which a processor waits longer than all else takes that precedes a histogram.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryPlace {
    pub(crate) series_ref: u64,
    /// ms.
    pub(crate) t: i64,
    /// Start timestamp, ms; 0 if there is none.
    pub(crate) st: i64,
}

/// What the entries of types 2, 4, 7 to 10 count from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryBase {
    series_ref: u64,
    t: i64,
}

impl EntryBase {
    /// BE64 ref, BE64 time. A record that ends after its type byte has no base and no entries. On failure at
    /// least one byte is left in the cursor, so that the entries begin with the error.
    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, CutShort> {
        if cursor.is_empty() {
            return Ok(Self::default());
        }
        let mut ahead = *cursor;
        let base = Self { series_ref: ahead.be64()?, t: ahead.be64_signed()? };
        *cursor = ahead;
        Ok(base)
    }

    /// The ref and time of the next entry, which wrap around in 64 bits.
    #[inline]
    pub(crate) fn absolute(&self, cursor: &mut Cursor<'_>, to: &mut EntryPlace) -> Result<(), CutShort> {
        to.series_ref = self.ref_at(cursor.varint64()?);
        to.t = self.t_at(cursor.varint64()?);
        Ok(())
    }

    /// The ref so far from here.
    #[inline]
    pub(crate) const fn ref_at(&self, delta: i64) -> u64 {
        self.series_ref.wrapping_add_signed(delta)
    }

    /// The time so far from here, ms.
    #[inline]
    pub(crate) const fn t_at(&self, delta: i64) -> i64 {
        self.t.wrapping_add(delta)
    }
}

impl EntryBase {
    pub(crate) fn encode(series_ref: u64, t: i64, out: &mut Vec<u8>) -> Self {
        put::be64(out, series_ref);
        put::be64(out, t.cast_unsigned());
        Self { series_ref, t }
    }

    pub(crate) fn relative(&self, series_ref: u64, t: i64, out: &mut Vec<u8>) {
        put::varint(out, series_ref.wrapping_sub(self.series_ref).cast_signed());
        put::varint(out, t.wrapping_sub(self.t));
    }
}

/// What the entries of types 11 to 13 count from: the previous entry's ref and start timestamp, the first one's
/// time and start timestamp (`readSTMarker`, `tsdb/record/record.go`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryChain {
    pub(crate) first_t: i64,
    pub(crate) first_st: i64,
    pub(crate) prev_ref: u64,
    pub(crate) prev_st: i64,
}

impl EntryChain {
    /// The first entry's ref, time and start timestamp, all zigzag. On failure nothing is read.
    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, CutShort> {
        let mut ahead = *cursor;
        let mut chain = Self {
            prev_ref: ahead.varint64()?.cast_unsigned(),
            first_t: ahead.varint64()?,
            ..Self::default()
        };
        chain.first_st = ahead.varint64()?;
        chain.prev_st = chain.first_st;
        *cursor = ahead;
        Ok(chain)
    }

    /// Ref, time and start timestamp of the first entry.
    pub(crate) const fn first(&self, to: &mut EntryPlace) {
        *to = EntryPlace { series_ref: self.prev_ref, t: self.first_t, st: self.first_st };
    }

    /// Ref, time and start timestamp of a later entry.
    pub(crate) fn advance(&mut self, cursor: &mut Cursor<'_>, to: &mut EntryPlace) -> Result<(), CutShort> {
        let series_ref = self.prev_ref.wrapping_add_signed(cursor.varint64()?);
        to.t = self.first_t.wrapping_add(cursor.varint64()?);
        to.st = match cursor.byte()? {
            0 => 0,
            1 => self.prev_st,
            _ => self.first_st.wrapping_add(cursor.varint64()?),
        };
        to.series_ref = series_ref;
        self.prev_ref = series_ref;
        self.prev_st = to.st;
        Ok(())
    }

    /// Ref, time and start timestamp of the next entry, which is the first one if there is no chain yet.
    pub(crate) fn encode(chain: &mut Option<Self>, series_ref: u64, t: i64, st: i64, out: &mut Vec<u8>) {
        let Some(chain) = chain else {
            put::varint(out, series_ref.cast_signed());
            put::varint(out, t);
            put::varint(out, st);
            *chain = Some(Self { first_t: t, first_st: st, prev_ref: series_ref, prev_st: st });
            return;
        };
        put::varint(out, series_ref.wrapping_sub(chain.prev_ref).cast_signed());
        put::varint(out, t.wrapping_sub(chain.first_t));
        if st == 0 {
            out.push(0);
        } else if st == chain.prev_st {
            out.push(1);
        } else {
            out.push(2);
            put::varint(out, st.wrapping_sub(chain.first_st));
        }
        chain.prev_ref = series_ref;
        chain.prev_st = st;
    }
}
