//! Samples next to each other, read together: the hot loop of a scan.
//!
//! A scrape is logged in the order of the target's metrics, and its series got their refs in that order when they were
//! first seen. So entries of one record mostly have refs that follow one another, at one time. Their first bytes then
//! differ by a number that is known beforehand, and one comparison of eight bytes reads an entry. Where refs are
//! scattered, entries mostly still have the same shape for long stretches: their varints end at the same places. Where not
//! even that is so, they are read without a branch that depends on it.
//!
//! An entry whose varints have more than eight bytes goes through [`super::SampleIter`], with which all of these must agree.

/// Samples of series whose refs follow one another, at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SampleRun {
    /// The first series.
    pub(crate) first_ref: u64,
    /// How many samples; never so many that a ref would wrap around.
    pub(crate) count: u64,
    /// Timestamp, ms.
    pub(crate) t: i64,
}

/// Bytes of a value.
const VALUE: usize = 8;

/// Entries that are read by their shape, or one by one, before it is looked again whether their refs follow one another.
const SCATTERED: usize = 64;

/// The high bit of each byte: set where a varint continues.
const GOES_ON: u64 = 0x8080_8080_8080_8080;

/// Calls a method for the stride of the head.
macro_rules! per_length {
    ($head:expr, $rest:expr, $method:ident $(, $more:expr)?) => {
        match $head.length {
            2 => $head.$method::<10>($rest $(, $more)?),
            3 => $head.$method::<11>($rest $(, $more)?),
            4 => $head.$method::<12>($rest $(, $more)?),
            5 => $head.$method::<13>($rest $(, $more)?),
            6 => $head.$method::<14>($rest $(, $more)?),
            7 => $head.$method::<15>($rest $(, $more)?),
            _ => $head.$method::<16>($rest $(, $more)?),
        }
    };
}

/// Entries that have been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntriesRead {
    pub(super) entries: u64,
    /// How many they have in all.
    pub(super) bytes: usize,
    /// One of their varints had more bytes than it needs.
    pub(super) overlong: bool,
}

/// What precedes the value of an entry: two varints, in at most eight bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryHead {
    /// The bytes, as a little-endian number.
    bytes: u64,
    /// How many those are.
    length: usize,
    /// How many of them are the ref's.
    ref_length: usize,
}

impl EntryHead {
    /// Of the entry that begins with `from`, and is followed by `rest`.
    pub(super) fn of(from: &[u8], rest: &[u8]) -> Option<Self> {
        let length = from.len().checked_sub(rest.len() + VALUE)?;
        if length > size_of::<u64>() {
            return None;
        }
        let word = u64::from_le_bytes(*from.first_chunk()?);
        let ref_length = (!word & GOES_ON).trailing_zeros() as usize / 8 + 1;
        Some(Self { bytes: word & low_bytes(length), length, ref_length })
    }

    /// So many entries of this shape.
    pub(super) fn done(&self, entries: u64) -> EntriesRead {
        let bytes = usize::try_from(entries).unwrap_or(usize::MAX).saturating_mul(self.length + VALUE);
        EntriesRead { entries, bytes, overlong: false }
    }

    /// How many entries of `rest`, from its beginning on, are each of the next ref and of the same time.
    pub(super) fn count_consecutive(&self, rest: &[u8]) -> u64 {
        // Zigzag: a ref after the base is an even number, and the next one 2 more.
        let is_behind_base = self.bytes & 1 == 0;
        if is_behind_base { per_length!(self, rest, consecutive) } else { 0 }
    }

    /// Gives ref and time, relative to the base, of the next few entries of the same shape.
    pub(super) fn each_alike(&self, rest: &[u8], each: impl FnMut(i64, i64)) -> EntriesRead {
        per_length!(self, rest, alike, each)
    }

    /// As [`Self::count_consecutive`], for entries of `STRIDE` bytes.
    fn consecutive<const STRIDE: usize>(&self, rest: &[u8]) -> u64 {
        let (mut entries, _) = rest.as_chunks::<STRIDE>();
        let mask = low_bytes(self.length);
        let mut count = 0;
        let mut head = *self;
        // As long as the lowest seven bits do not overflow, the next head is the number 2 above.
        let mut most = (0x7e - (head.bytes & 0x7e)) / 2;
        let mut expected = head.bytes.wrapping_add(2);
        loop {
            let cycle;
            (cycle, entries) = entries.split_at(entries.len().min(usize::try_from(most).unwrap_or(0)));
            let same = count_ascending(cycle, expected, mask);
            count += same;
            if same < most {
                return count;
            }
            head.bytes = head.bytes & !0x7e | 0x7e;
            let Some(next) = head.next_cycle() else { return count };
            (head, expected, most) = (next, next.bytes, 64);
        }
    }

    /// The head whose ref is one higher, where that carries into its second byte; none if it takes another byte.
    fn next_cycle(mut self) -> Option<Self> {
        let ref_mask = low_bytes(self.ref_length);
        let zigzag = squeeze(self.bytes & ref_mask).checked_add(2)?;
        if self.ref_length == 1 || zigzag >> (7 * self.ref_length) != 0 {
            return None;
        }
        let mut bytes = 0;
        for index in 0..self.ref_length {
            bytes |= (zigzag >> (7 * index) & 0x7f) << (8 * index);
        }
        self.bytes = self.bytes & !ref_mask | bytes | GOES_ON & low_bytes(self.ref_length - 1);
        Some(self)
    }

    /// As [`Self::each_alike`], for entries of `STRIDE` bytes.
    fn alike<const STRIDE: usize>(&self, rest: &[u8], mut each: impl FnMut(i64, i64)) -> EntriesRead {
        let (entries, _) = rest.as_chunks::<STRIDE>();
        let (blocks, _) = entries.get(..entries.len().min(SCATTERED)).unwrap_or_default().as_chunks::<4>();
        let ends = GOES_ON & low_bytes(self.length);
        let (ref_bits, t_bits) = (8 * self.ref_length, 8 * (self.length - self.ref_length));
        let last_of = |bytes: u64, bits: usize| bits > 8 && bytes >> (bits - 8) == 0;
        let (mut count, mut overlong) = (0, false);
        for block in blocks {
            let heads = block.map(|entry| head_of(&entry));
            let differ = heads.iter().fold(0, |differ, head| differ | (head ^ self.bytes));
            if differ & ends != 0 {
                break;
            }
            for head in heads {
                let ref_bytes = head & low_bytes(self.ref_length);
                let t_bytes = head >> ref_bits & low_bytes(t_bits / 8);
                overlong |= last_of(ref_bytes, ref_bits) | last_of(t_bytes, t_bits);
                each(unzigzag(squeeze(ref_bytes)), unzigzag(squeeze(t_bytes)));
            }
            count += 4;
        }
        EntriesRead { overlong, ..self.done(count) }
    }
}

/// Gives ref and time, relative to the base, of the next few entries, of whatever shape, as long as what precedes the
/// value has at most eight bytes.
pub(super) fn each_scattered(rest: &[u8], mut each: impl FnMut(i64, i64)) -> EntriesRead {
    let (mut left, mut count, mut overlong) = (rest, 0, false);
    while count < SCATTERED as u64
        && let Some(bytes) = left.first_chunk()
    {
        // No branch but those that are hardly ever taken: lengths of scattered refs cannot be foretold.
        let word = u64::from_le_bytes(*bytes);
        let ends = !word & GOES_ON;
        let behind_ref = ends & ends.wrapping_sub(1);
        if behind_ref == 0 {
            break;
        }
        let ref_bits = ends.trailing_zeros() + 1;
        let head_bits = behind_ref.trailing_zeros() + 1;
        let Some(after) = left.get(head_bits as usize / 8 + VALUE..) else { break };
        let ref_bytes = word & (ends ^ ends.wrapping_sub(1));
        let t_bytes = (word & (behind_ref ^ behind_ref.wrapping_sub(1))) >> ref_bits;
        overlong |= (ref_bytes >> (ref_bits - 8)) + u64::from(ref_bits == 8) == 0;
        let t_bits = head_bits - ref_bits;
        overlong |= (t_bytes >> (t_bits - 8)) + u64::from(t_bits == 8) == 0;
        each(unzigzag(squeeze(ref_bytes)), unzigzag(squeeze(t_bytes)));
        (left, count) = (after, count + 1);
    }
    EntriesRead { entries: count, bytes: rest.len() - left.len(), overlong }
}

/// How many of the entries have the head that is expected, which is 2 higher for each.
fn count_ascending<const STRIDE: usize>(entries: &[[u8; STRIDE]], mut expected: u64, mask: u64) -> u64 {
    let (blocks, _) = entries.as_chunks::<8>();
    let mut count = 0;
    for block in blocks {
        let mut differ = 0;
        let mut want = expected;
        for entry in block {
            differ |= head_of(entry) ^ want;
            want = want.wrapping_add(2);
        }
        if differ & mask != 0 {
            break;
        }
        expected = want;
        count += 8;
    }
    for entry in entries.get(usize::try_from(count).unwrap_or(usize::MAX)..).unwrap_or_default() {
        if (head_of(entry) ^ expected) & mask != 0 {
            break;
        }
        expected = expected.wrapping_add(2);
        count += 1;
    }
    count
}

/// The first eight bytes of an entry, which is never shorter than that.
#[inline]
fn head_of<const STRIDE: usize>(entry: &[u8; STRIDE]) -> u64 {
    entry.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// So many bytes, from the lowest on.
const fn low_bytes(count: usize) -> u64 {
    if count >= 8 { u64::MAX } else { (1 << (8 * count)) - 1 }
}

/// The number of a varint whose bytes these are.
#[inline]
fn squeeze(bytes: u64) -> u64 {
    let bytes = bytes & !GOES_ON;
    let pairs = bytes & 0x007f_007f_007f_007f | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
    fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4
}

#[inline]
fn unzigzag(zigzag: u64) -> i64 {
    (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()
}
