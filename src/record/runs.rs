//! Samples next to each other, read together: the hot loop of a scan.
//!
//! A scrape is logged in the order of the target's metrics, and its series got their refs in that order when they were
//! first seen. So entries of one record mostly have refs that follow one another, at one time. Their first bytes then
//! differ by a number that is known beforehand, and one comparison of eight bytes reads an entry. Where refs are
//! scattered, entries are read without a branch that depends on their shape.
//!
//! An entry whose varints have more than eight bytes goes through [`super::SampleIter`], with which all of these must agree.

use super::base::EntryBase;

/// What the samples of a record are given to, in order.
pub(crate) trait SampleVisitor {
    fn run(&mut self, run: SampleRun);

    /// Samples one by one: their refs, and their times, or the only one if it is that of all.
    fn scattered(&mut self, refs: &[u64], times: &[i64]);
}

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

/// Entries that are read one by one before it is looked again whether their refs follow one another.
const SCATTERED: usize = 64;

/// The high bit of each byte: set where a varint continues.
const GOES_ON: u64 = 0x8080_8080_8080_8080;

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
        if !is_behind_base {
            return 0;
        }
        match self.length {
            2 => self.consecutive::<10>(rest),
            3 => self.consecutive::<11>(rest),
            4 => self.consecutive::<12>(rest),
            5 => self.consecutive::<13>(rest),
            6 => self.consecutive::<14>(rest),
            7 => self.consecutive::<15>(rest),
            _ => self.consecutive::<16>(rest),
        }
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
}

/// Samples whose refs do not follow one another.
pub(super) struct SampleBatch {
    refs: [u64; SCATTERED],
    times: [i64; SCATTERED],
    count: usize,
    /// How many times there are: 1 if it is that of all.
    times_count: usize,
}

impl SampleBatch {
    pub(super) const fn new() -> Self {
        Self { refs: [0; SCATTERED], times: [0; SCATTERED], count: 0, times_count: 0 }
    }

    /// Reads the next few entries, of whatever shape, as long as what precedes the value has at most eight bytes.
    pub(super) fn read(&mut self, base: &EntryBase, rest: &[u8]) -> EntriesRead {
        let (mut left, mut count) = (rest, 0);
        let (mut overlong, mut any_time, mut all_times) = (0, 0, u64::MAX);
        for (series_ref, t) in self.refs.iter_mut().zip(&mut self.times) {
            // No branch but those that are hardly ever taken: lengths of scattered refs cannot be foretold. What is read
            // here has 16 bytes at the most.
            let Some(&[word @ .., _, _, _, _, _, _, _, _]) = left.first_chunk::<16>() else { break };
            let word = u64::from_le_bytes(word);
            let ends = !word & GOES_ON;
            let end_of_t = ends & ends.wrapping_sub(1);
            if end_of_t == 0 {
                break;
            }
            let t_end = end_of_t.trailing_zeros() as usize / 8 + 1;
            let Some(after) = left.get(t_end + VALUE..) else { break };
            left = after;
            let head = end_of_t ^ end_of_t.wrapping_sub(1);
            let low_bits = word & !GOES_ON & head;
            // A last byte without a bit set, after others.
            overlong |= ends & !(low_bits + !GOES_ON) & (word & GOES_ON) << 8 & head;
            // Both varints in one go; the ref's has seven bits of each of its bytes.
            let both = squeeze(low_bits);
            let end_of_ref = ends.trailing_zeros();
            let ref_bits = end_of_ref - end_of_ref / 8;
            let t_zigzag = both >> ref_bits;
            (any_time, all_times) = (any_time | t_zigzag, all_times & t_zigzag);
            *series_ref = base.ref_at(unzigzag(both ^ t_zigzag << ref_bits));
            *t = t_zigzag.cast_signed();
            count += 1;
        }
        self.count = count;
        self.times_count = if any_time == all_times { count.min(1) } else { count };
        for t in self.times.iter_mut().take(self.times_count) {
            *t = base.t_at(unzigzag(t.cast_unsigned()));
        }
        EntriesRead { entries: count as u64, bytes: rest.len() - left.len(), overlong: overlong != 0 }
    }

    pub(super) fn refs(&self) -> &[u64] {
        self.refs.get(..self.count).unwrap_or_default()
    }

    /// Their times, or the only one.
    pub(super) fn times(&self) -> &[i64] {
        self.times.get(..self.times_count).unwrap_or_default()
    }

    /// Whether there are as many as can be, and their last refs do not follow one another either.
    pub(super) fn goes_on(&self) -> bool {
        let [.., before, _, _, _, _, _, _, last] = self.refs;
        self.count == SCATTERED && last.wrapping_sub(before) != 7
    }
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

#[cfg(test)]
#[allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail")]
mod tests {
    use super::*;
    use crate::record::{Record, SampleEntry};

    #[derive(Default)]
    struct Seen(Vec<(u64, i64)>);

    impl SampleVisitor for Seen {
        fn run(&mut self, run: SampleRun) {
            self.0.extend((0..run.count).map(|after| (run.first_ref + after, run.t)));
        }

        fn scattered(&mut self, refs: &[u64], times: &[i64]) {
            assert!(times.len() == refs.len() || times.len() == 1 || refs.is_empty());
            let t = |at: usize| times.get(at).copied().unwrap_or(times[0]);
            self.0.extend(refs.iter().enumerate().map(|(at, &series_ref)| (series_ref, t(at))));
        }
    }

    /// A varint of so many bytes at the most, whatever they say; more than ten are not one.
    fn varint(rng: &mut fastrand::Rng, longest: usize, out: &mut Vec<u8>) {
        out.extend((1..rng.usize(1..=longest)).map(|_| rng.u8(..) | 0x80));
        out.push(if rng.u8(..30) == 0 { 0 } else { rng.u8(..0x80) });
    }

    /// Entries whose varints have at the most so many bytes, and mostly are of one time.
    fn entries(rng: &mut fastrand::Rng, longest: usize) -> Vec<u8> {
        let mut record = vec![2];
        record.extend(rng.u64(..).to_be_bytes());
        record.extend(rng.i64(..).to_be_bytes());
        let other_times = [0, 0, 1, 50][rng.usize(..4)];
        for at in 0..rng.usize(..300) {
            match rng.u8(..3) {
                // The next ref, or what it has become.
                0 => record.push(u8::try_from(at * 2 % 0x80).expect("seven bits")),
                _ => varint(rng, longest, &mut record),
            }
            if rng.u8(..100) < other_times {
                varint(rng, longest, &mut record);
            } else {
                record.push(0);
            }
            record.extend(rng.u64(..).to_be_bytes());
        }
        record
    }

    /// That all ways to read a record agree.
    fn check(data: &[u8], about: &str) {
        let Record::Samples(samples) = Record::parse(data) else { return };
        let mut one_by_one = samples.entries();
        let taken: Vec<_> = one_by_one.by_ref().collect();
        let error = taken.iter().find_map(|entry| entry.err());
        let expected: Vec<(u64, i64)> =
            taken.iter().flatten().map(|entry: &SampleEntry| (entry.series_ref, entry.t)).collect();
        let mut seen = Seen::default();
        let (end, ended) = samples.visit(&mut seen);
        assert_eq!((&seen.0, ended), (&expected, error), "{about}");
        if error.is_none() {
            let overlong = crate::record::cursor::AtCursor::cursor(&one_by_one).overlong();
            assert_eq!((end.overlong(), end.is_empty()), (overlong, true), "{about}");
        }
        let mut runs = Vec::new();
        samples.runs(|run| runs.extend((0..run.count).map(|after| (run.first_ref + after, run.t))));
        assert_eq!(runs, expected, "{about}");
    }

    #[test]
    fn all_ways_to_read_samples_agree() {
        let knob = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let first = knob("WALFIX_FIRST_SEED").unwrap_or(0);
        for seed in first..first + knob("WALFIX_SEEDS").unwrap_or(3000) {
            eprintln!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1");
            let mut rng = fastrand::Rng::with_seed(seed);
            let longest = [1, 2, 3, 4, 7, 8, 11][rng.usize(..7)];
            let mut data = entries(&mut rng, longest);
            check(&data, "as it is");
            check(&data[..rng.usize(..=data.len())], "cut");
            for _ in 0..3 {
                let at = rng.usize(..data.len());
                data[at] = [0, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..5)];
                check(&data, "changed");
            }
        }
    }
}
