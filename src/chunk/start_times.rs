//! Start timestamps, after each sample that has one (`tsdb/chunkenc/st.go`, `xor2.go`).
//!
//! A byte of the header: the highest bit if the first sample has one, and the number of the first sample where it changes. From
//! there on each sample has one. It is written as the difference to the time of the sample before, and later as how that changes.

use super::bits::BitReader;
use super::{Wrong, varbit};

#[derive(Clone, Copy, Debug)]
pub(super) struct StartTimes {
    first_is_known: bool,
    changes_at: u16,
    /// The time of the sample before, less the start timestamp, ms.
    behind: i64,
    /// ms.
    now: i64,
}

impl StartTimes {
    pub(super) const fn new(header: u8) -> Self {
        Self { first_is_known: header & 0x80 != 0, changes_at: (header & 0x7f) as u16, behind: 0, now: 0 }
    }

    /// Reads that of the sample of that number, from 0 on, at `t`, after one at `before`.
    #[inline]
    pub(super) fn read(
        &mut self,
        bits: &mut BitReader<'_>,
        at: u16,
        before: i64,
        t: i64,
    ) -> Result<i64, Wrong> {
        if at == 0 {
            if self.first_is_known {
                let behind = bits.lenient_varint()?;
                self.now = t.wrapping_sub(behind);
            }
        } else if self.changes_at > 0 && at >= self.changes_at {
            let change = varbit::signed(bits)?;
            self.behind = if at == self.changes_at { change } else { self.behind.wrapping_add(change) };
            self.now = before.wrapping_sub(self.behind);
        }
        Ok(self.now)
    }
}
