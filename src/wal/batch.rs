//! Records that have been read and are yet to be unpacked: several of them are unpacked faster together.

use std::ops::Range;

use super::Record;
use super::compress::{self, MAX_RECORD, Unpacker};
use super::layout::HeadByte;
use super::walk::Doubt;

/// Bytes that the records that wait may unpack to: more than that only takes memory.
const MOST_WAITING: usize = 2 << 20;

/// A record that waits.
#[derive(Debug)]
struct Waiting {
    head: HeadByte,
    /// In the fragments of the batch.
    fragments: Range<usize>,
    /// In the window, or among the joined bytes.
    stored: Range<usize>,
    is_joined: bool,
    /// Bytes that it unpacks to.
    length: usize,
}

/// The records of a window, given out in order; its buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    unpacker: Unpacker,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    /// Stored bytes of the records that have several fragments.
    joined: Vec<u8>,
    fragments: Vec<Range<u64>>,
    /// Where the joined bytes and the fragments of the record at hand begin.
    joined_from: usize,
    fragments_from: usize,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.joined.clear();
        self.fragments.clear();
        (self.joined_from, self.fragments_from) = (0, 0);
    }

    /// As [`Unpacker::allow`].
    pub(super) fn allow(&mut self, bytes: u64) {
        self.unpacker.allow(bytes);
    }

    /// A record begins.
    #[inline]
    pub(super) fn begin(&mut self) {
        if self.waiting.is_empty() {
            self.fragments.clear();
            self.joined.clear();
        }
        (self.joined_from, self.fragments_from) = (self.joined.len(), self.fragments.len());
    }

    /// Whether the last fragment ends there.
    pub(super) fn ends_at(&self, offset: u64) -> bool {
        self.fragments.last().is_some_and(|last| last.end == offset)
    }

    #[inline]
    pub(super) fn add_fragment(&mut self, range: Range<u64>) {
        self.fragments.push(range);
    }

    /// Stored bytes of one of several fragments.
    ///
    /// # Errors
    /// If it is longer than any record.
    pub(super) fn join(&mut self, data: &[u8]) -> Result<(), Doubt> {
        self.joined.extend_from_slice(data);
        if self.joined.len() - self.joined_from > MAX_RECORD {
            self.joined = Vec::new();
            return Err(Doubt);
        }
        Ok(())
    }

    /// The record at hand ends, whose stored bytes are `in_window`, or else joined. It waits, or is given to `each`.
    ///
    /// # Errors
    /// If it does not unpack, or `each` does not return true.
    #[inline]
    pub(super) fn end(
        &mut self,
        head: HeadByte,
        in_window: Option<Range<usize>>,
        window: &[u8],
        each: &mut impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(), Doubt> {
        let is_joined = in_window.is_none();
        let range = in_window.unwrap_or(self.joined_from..self.joined.len());
        let stored = (if is_joined { &self.joined } else { window }).get(range.clone()).ok_or(Doubt)?;
        if let Some(length) = Unpacker::suits_lanes(head.compression(), stored) {
            let fragments = self.fragments_from..self.fragments.len();
            self.waiting.push(Waiting { head, fragments, stored: range, is_joined, length });
            self.waiting_bytes += length;
            return if self.waiting_bytes < MOST_WAITING { Ok(()) } else { self.tell(window, each) };
        }
        self.tell(window, each)?;
        let stored = if is_joined { self.joined.get(self.joined_from..) } else { window.get(range) };
        let stored = stored.ok_or(Doubt)?;
        let fragments = self.fragments.get(self.fragments_from..).unwrap_or_default();
        let data = self.unpacker.unpack(head.compression(), stored).map_err(|_| Doubt)?;
        if each(&record_of(head, stored, data, fragments)?) { Ok(()) } else { Err(Doubt) }
    }

    /// Unpacks the records that wait, and gives them to `each`. The record at hand stays.
    ///
    /// # Errors
    /// As of [`Self::end`].
    #[inline]
    pub(super) fn tell(
        &mut self,
        window: &[u8],
        each: &mut impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(), Doubt> {
        if self.waiting.is_empty() { Ok(()) } else { self.tell_waiting(window, each) }
    }

    #[inline(never)]
    fn tell_waiting(
        &mut self,
        window: &[u8],
        each: &mut impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(), Doubt> {
        let Self { unpacker, waiting, joined, fragments, .. } = self;
        let stored_of = |record: &Waiting| {
            let bytes: &[u8] = if record.is_joined { joined } else { window };
            bytes.get(record.stored.clone()).unwrap_or_default()
        };
        let records: Vec<(&[u8], usize)> =
            waiting.iter().map(|record| (stored_of(record), record.length)).collect();
        unpacker.unpack_all(&records).map_err(|_| Doubt)?;
        for (at, (record, (stored, _))) in waiting.iter().zip(&records).enumerate() {
            let fragments = fragments.get(record.fragments.clone()).unwrap_or_default();
            let data = unpacker.unpacked_of(at, stored).map_err(|_| Doubt)?;
            if !each(&record_of(record.head, stored, data, fragments)?) {
                return Err(Doubt);
            }
        }
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.joined.drain(..self.joined_from);
        self.fragments.drain(..self.fragments_from);
        (self.joined_from, self.fragments_from) = (0, 0);
        Ok(())
    }
}

#[inline]
fn record_of<'a>(
    head: HeadByte,
    stored: &[u8],
    data: &'a [u8],
    fragments: &'a [Range<u64>],
) -> Result<Record<'a>, Doubt> {
    let compression = head.compression();
    Ok(Record {
        offset: fragments.first().ok_or(Doubt)?.start,
        end: fragments.last().ok_or(Doubt)?.end,
        head,
        compression,
        data,
        fragments,
        has_own_checksum: compress::has_own_checksum(compression, stored),
        in_copy: false,
        flags_disagree: false,
    })
}
