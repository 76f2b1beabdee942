//! Snappy blocks, three at a time.
//!
//! Decoding one block is a chain: the next tag is found only when the length of the one before is known, and a copy waits for the
//! bytes that it copies. So a processor mostly waits. Three blocks side by side are three chains, and it waits for none of
//! them. Format: `format_description.txt` of the repository `google/snappy`.
//!
//! [`snap`] is the authority. What is decoded here is taken only where everything was regular to the last byte; every other block is
//! decoded again by [`snap`], whose verdict and whose words hold.
//!
//! # Unsafe code
//!
//! All of it is here. One step of a lane takes one element: it reads its tag, offset and literal, and moves 32 bytes whatever
//! the length. These bounds make that right:
//!
//! - *Stored bytes.* A step reads at most [`MOST_READ`] bytes from [`Lane::from`] on, and goes on by as many at the most.
//!   [`Lane::steps`] allows only as many steps as fit before the end of the block.
//! - *Room.* A step writes 32 bytes from [`Lane::to`] on, and goes on by at most 32. `steps` allows only as many as fit before the end
//!   of the block's own room. So no lane writes into the room of another.
//! - *What a copy reads.* Its offset is at most 65 535, and [`HEADROOM`] bytes are before the first room. So it reads bytes of the arena,
//!   which are all initialized. If they are before its own room, the lane has strayed, and its block goes to `snap`.
//! - *Aliasing.* While lanes run, the arena is used through pointers that come from one exclusive borrow.
//!
//! What does not fit into a step (a literal or copy of more than 32 bytes, a copy that overlaps what it writes, an offset of four
//! bytes, the last bytes of a block) is taken by [`Block::element`], which is safe code.
#![expect(unsafe_code, reason = "bounds are checked once for many steps; see above")]

use std::cmp::Reverse;
use std::ops::Range;

/// Bytes before the first room: more than the highest offset of two bytes.
const HEADROOM: usize = 1 << 16;

/// Bytes that one step moves, and writes beyond what it is to write.
const MOVED: usize = 32;

/// Bytes that one step reads of a block: a tag, and [`MOVED`] bytes of a literal.
const MOST_READ: usize = 1 + MOVED;

/// A block has at least so many steps, or is not worth a lane.
const WORTHWHILE: usize = 32;

/// What a tag says.
#[derive(Clone, Copy)]
struct Tag {
    /// Bytes that come of the element; more than any offset, if it does not fit into a step.
    length: u8,
    /// Bytes that it takes.
    stored: u8,
    /// The bits of the offset that follow the tag.
    mask: u16,
    /// The bits of the offset that are in the tag; of a literal its length, since that is never less than its length.
    offset: u16,
}

impl Tag {
    /// It does not fit into a step: no offset is as high as that length, which has no bits.
    const OTHER: Self = Self { length: u8::MAX, stored: 0, mask: 0, offset: 0 };

    const fn of(tag: u8) -> Self {
        let length = (tag >> 2) + 1;
        match tag & 3 {
            0 if length as usize <= MOVED => {
                Self { length, stored: length + 1, mask: 0, offset: length as u16 }
            }
            1 => Self { length: (tag >> 2 & 7) + 4, stored: 2, mask: 0xff, offset: (tag as u16 >> 5) << 8 },
            2 if length as usize <= MOVED => Self { length, stored: 3, mask: 0xffff, offset: 0 },
            _ => Self::OTHER,
        }
    }
}

static TAGS: [Tag; 256] = {
    let mut tags = [Tag::OTHER; 256];
    let mut tag = 0;
    while tag < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        {
            tags[tag] = Tag::of(tag as u8);
        }
        tag += 1;
    }
    tags
};

/// Whether this processor runs it faster than [`snap`].
pub(super) fn are_there() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Where a block unpacks to.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    /// In the arena.
    room: Range<usize>,
    is_done: bool,
}

/// Unpacks several blocks; one for each thread, since its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    arena: Vec<u8>,
    blocks: Vec<Unpacked>,
}

/// A block and the bytes that come of it.
struct Block<'a> {
    stored: &'a [u8],
    out: &'a mut [u8],
}

impl Block<'_> {
    /// Takes the element at `at`, writing to `to`; where the next begins, and where it goes. `None` if it is not regular.
    fn element(&mut self, at: usize, to: usize) -> Option<(usize, usize)> {
        let tag = *self.stored.get(at)?;
        let number = |bytes: Range<usize>| {
            let bytes = self.stored.get(bytes)?;
            Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
        };
        let high = usize::from(tag >> 2);
        let (length, offset, next) = match tag & 3 {
            0 => {
                let extra = high.saturating_sub(59);
                let length = if extra == 0 { high } else { number(at + 1..at + 1 + extra)? } + 1;
                let from = at + 1 + extra;
                let literal = self.stored.get(from..from.checked_add(length)?)?;
                self.out.get_mut(to..to.checked_add(length)?)?.copy_from_slice(literal);
                return Some((from + length, to + length));
            }
            1 => ((high & 7) + 4, (high >> 3) << 8 | number(at + 1..at + 2)?, at + 2),
            2 => (high + 1, number(at + 1..at + 3)?, at + 3),
            _ => (high + 1, number(at + 1..at + 5)?, at + 5),
        };
        let source = to.checked_sub(offset).filter(|_| offset > 0)?;
        if length > self.out.len().checked_sub(to)? {
            return None;
        }
        if offset >= length {
            self.out.copy_within(source..source + length, to);
        } else {
            for index in 0..length {
                self.out[to + index] = self.out[source + index];
            }
        }
        Some((next, to + length))
    }

    /// Takes all elements from there on. Whether the block is regular to its end.
    fn finish(&mut self, mut at: usize, mut to: usize) -> bool {
        while at < self.stored.len() {
            match self.element(at, to) {
                Some(next) => (at, to) = next,
                None => return false,
            }
        }
        to == self.out.len()
    }
}

/// A block while it is unpacked.
#[derive(Clone, Copy)]
struct Lane<'a> {
    stored: &'a [u8],
    /// Which one it is.
    block: usize,
    /// The next tag.
    from: *const u8,
    /// Where the next byte goes.
    to: *mut u8,
    /// Its room, and its length.
    room: *mut u8,
    length: usize,
    /// A copy has read what is not its own, or something was not regular.
    has_strayed: bool,
    /// It has been taken to its end, and no other block waits.
    is_over: bool,
}

impl Lane<'_> {
    fn read(&self) -> usize {
        self.from as usize - self.stored.as_ptr() as usize
    }

    fn written(&self) -> usize {
        self.to as usize - self.room as usize
    }

    /// Steps that stay within the block and its room, however long its elements are. The offset of an element may be
    /// read where the literal of the last one ends.
    fn steps(&self) -> usize {
        let stored = self.stored.len().saturating_sub(self.read() + 2) / MOST_READ;
        let room = self.length.saturating_sub(self.written()) / MOVED;
        stored.min(room)
    }

    /// It has taken steps up to there.
    fn went(&mut self, from: *const u8, to: *mut u8, has_strayed: bool) {
        (self.from, self.to) = (from, to);
        self.has_strayed |= has_strayed;
    }

    /// The block and its room.
    ///
    /// # Safety
    /// `room` must be the room of this lane, of `length` bytes, and nothing else may use these as long as the block is there.
    unsafe fn block(&mut self) -> Block<'_> {
        // SAFETY: as the caller says; the arena is initialized.
        let out = unsafe { std::slice::from_raw_parts_mut(self.room, self.length) };
        Block { stored: self.stored, out }
    }

    /// Takes one element that does not fit into a step.
    ///
    /// # Safety
    /// As of [`Self::block`].
    #[cold]
    #[inline(never)]
    unsafe fn take_other(&mut self) {
        let (at, to) = (self.read(), self.written());
        // SAFETY: as the caller says.
        match unsafe { self.block() }.element(at, to) {
            Some((at, to)) => {
                self.from = self.stored.as_ptr().wrapping_add(at);
                self.to = self.room.wrapping_add(to);
            }
            None => self.has_strayed = true,
        }
    }
}

/// One step of the lane whose next tag and byte are at `$from` and `$to`; `$left` becomes 0 if it cannot take that element.
macro_rules! step {
    ($from:ident, $to:ident, $before:ident, $strayed:ident, $other:ident) => {{
        let tag = *$from;
        let is_literal = tag % 4 == 0;
        let Tag { length, stored, mask, offset } = TAGS[tag as usize];
        let following = $from.add(1);
        let offset = usize::from(following.cast::<u16>().read_unaligned() & mask | offset);
        if offset < usize::from(length) {
            $other = true;
        } else {
            let copied = $to.wrapping_sub(offset).cast_const();
            let source = std::hint::select_unpredictable(is_literal, following, copied);
            $strayed |= ($to as usize) < $before + offset;
            $to.cast::<[u8; MOVED]>().write_unaligned(source.cast::<[u8; MOVED]>().read_unaligned());
            $to = $to.add(usize::from(length));
            $from = $from.add(usize::from(stored));
        }
    }};
}

impl Lanes {
    /// Unpacks blocks, of which the lengths that come of them are known, side by side as far as it can.
    pub(super) fn unpack(&mut self, blocks: &[(&[u8], usize)]) {
        self.blocks.clear();
        if !are_there() {
            return;
        }
        let mut at = HEADROOM;
        for (_, length) in blocks {
            self.blocks.push(Unpacked { room: at..at + length, is_done: false });
            at += length;
        }
        // A step of the last block stays in its room, and a copy reads at most as many bytes beyond it as it moves.
        let needed = at + MOVED;
        if self.arena.len() < needed {
            self.arena = Vec::new();
            self.arena = vec![0; needed.next_power_of_two()];
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has AVX2.
        unsafe {
            self.run(blocks);
        }
    }

    /// What has come of a block; `None` if `snap` has to judge it.
    pub(super) fn get(&self, block: usize) -> Option<&[u8]> {
        let unpacked = self.blocks.get(block).filter(|unpacked| unpacked.is_done)?;
        self.arena.get(unpacked.room.clone())
    }

    /// # Safety
    /// The processor must have AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn run(&mut self, blocks: &[(&[u8], usize)]) {
        let arena = self.arena.as_mut_ptr();
        let mut waiting = Waiting::new(arena, blocks, &mut self.blocks);
        // SAFETY: rooms do not overlap, and lie within the arena; nothing else uses it until this ends.
        unsafe {
            let (Some(mut a), Some(mut b), Some(mut c)) = (waiting.next(), waiting.next(), waiting.next())
            else {
                return;
            };
            while !(a.is_over || b.is_over || c.is_over) {
                let mut left = a.steps().min(b.steps()).min(c.steps());
                let (mut from_a, mut from_b, mut from_c) = (a.from, b.from, c.from);
                let (mut to_a, mut to_b, mut to_c) = (a.to, b.to, c.to);
                let (room_a, room_b, room_c) = (a.room as usize, b.room as usize, c.room as usize);
                let (mut strayed_a, mut strayed_b, mut strayed_c) = (false, false, false);
                let (mut other_a, mut other_b, mut other_c) = (false, false, false);
                while left > 0 {
                    left -= 1;
                    step!(from_a, to_a, room_a, strayed_a, other_a);
                    step!(from_b, to_b, room_b, strayed_b, other_b);
                    step!(from_c, to_c, room_c, strayed_c, other_c);
                    if other_a | other_b | other_c {
                        break;
                    }
                }
                a.went(from_a, to_a, strayed_a);
                b.went(from_b, to_b, strayed_b);
                c.went(from_c, to_c, strayed_c);
                for (lane, is_other) in [(&mut a, other_a), (&mut b, other_b), (&mut c, other_c)] {
                    if is_other {
                        lane.take_other();
                    }
                    if lane.has_strayed || lane.steps() == 0 {
                        waiting.finish(lane);
                        match waiting.next() {
                            Some(next) => *lane = next,
                            None => lane.is_over = true,
                        }
                    }
                }
            }
            for lane in [&mut a, &mut b, &mut c] {
                if lane.is_over {
                    continue;
                }
                while !lane.has_strayed && lane.steps() > 0 {
                    let mut left = lane.steps();
                    let (mut from, mut to, room) = (lane.from, lane.to, lane.room as usize);
                    let (mut strayed, mut other) = (false, false);
                    while left > 0 && !other {
                        left -= 1;
                        step!(from, to, room, strayed, other);
                    }
                    lane.went(from, to, strayed);
                    if other {
                        lane.take_other();
                    }
                }
                waiting.finish(lane);
            }
        }
    }
}

/// Blocks that wait for a lane: the longest first, so that the last lanes end together.
struct Waiting<'a, 'b> {
    arena: *mut u8,
    blocks: &'b [(&'b [u8], usize)],
    order: std::vec::IntoIter<usize>,
    unpacked: &'a mut [Unpacked],
}

impl<'a, 'b> Waiting<'a, 'b> {
    fn new(arena: *mut u8, blocks: &'b [(&'b [u8], usize)], unpacked: &'a mut [Unpacked]) -> Self {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_unstable_by_key(|&block| Reverse(blocks.get(block).map_or(0, |(stored, _)| stored.len())));
        Self { arena, blocks, order: order.into_iter(), unpacked }
    }

    /// The next block that is worth a lane.
    ///
    /// # Safety
    /// The rooms of the blocks must lie in the arena, which nothing else may use meanwhile.
    unsafe fn next(&mut self) -> Option<Lane<'b>> {
        loop {
            let block = self.order.next()?;
            let (&(stored, length), unpacked) = self.blocks.get(block).zip(self.unpacked.get(block))?;
            let room = self.arena.wrapping_add(unpacked.room.start);
            // The length comes first, as a varint.
            let header = stored.iter().take_while(|byte| *byte & 0x80 != 0).count() + 1;
            let from = stored.as_ptr().wrapping_add(header);
            let (has_strayed, is_over) = (header > stored.len(), false);
            let mut lane = Lane { stored, block, from, to: room, room, length, has_strayed, is_over };
            if lane.steps() < WORTHWHILE {
                continue;
            }
            // A literal counts as a copy from as far back as it is long. So something must be there first.
            while lane.written() < MOVED && !lane.has_strayed {
                // SAFETY: as the caller says.
                unsafe { lane.take_other() }
            }
            if !lane.has_strayed {
                return Some(lane);
            }
        }
    }

    /// Takes what is left of a block.
    ///
    /// # Safety
    /// As of [`Self::next`].
    unsafe fn finish(&mut self, lane: &mut Lane<'b>) {
        if lane.has_strayed {
            return;
        }
        let (at, to) = (lane.read(), lane.written());
        // SAFETY: as the caller says.
        let is_done = unsafe { lane.block() }.finish(at, to);
        if let Some(unpacked) = self.unpacked.get_mut(lane.block) {
            unpacked.is_done = is_done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is unpacked of blocks, and what `snap` says; `None` where `snap` refuses it.
    fn compare(lanes: &mut Lanes, stored: &[Vec<u8>]) -> usize {
        let claimed = |block: &Vec<u8>| {
            let length = snap::raw::decompress_len(block).ok()?;
            (length / 64 <= block.len()).then_some(length)
        };
        let blocks: Vec<(&[u8], usize)> =
            stored.iter().filter_map(|block| Some((&**block, claimed(block)?))).collect();
        lanes.unpack(&blocks);
        let mut done = 0;
        for (at, (block, _)) in blocks.iter().enumerate() {
            let Some(unpacked) = lanes.get(at) else { continue };
            let expected = snap::raw::Decoder::new().decompress_vec(block);
            assert_eq!(Some(unpacked), expected.ok().as_deref(), "{block:?}");
            done += 1;
        }
        done
    }

    /// Bytes that compress into elements of all kinds.
    fn bytes(rng: &mut fastrand::Rng) -> Vec<u8> {
        let kinds = rng.u8(1..6);
        let mut bytes = Vec::new();
        let length = rng.usize(0..30_000);
        while bytes.len() < length {
            let count = rng.usize(1..90);
            match rng.u8(..kinds) {
                0 => bytes.extend((0..count).map(|_| rng.u8(..))),
                1 => bytes.extend(std::iter::repeat_n(rng.u8(..), count)),
                2 if bytes.len() > 100 => {
                    let back = rng.usize(1..bytes.len().min(70_000));
                    for _ in 0..count {
                        bytes.push(bytes[bytes.len() - back]);
                    }
                }
                3 => {
                    let pattern = [rng.u8(..), rng.u8(..), rng.u8(..)];
                    bytes.extend(pattern.iter().cycle().take(count));
                }
                _ => bytes.extend((0..count).map(|at| u8::try_from(at % 11).unwrap_or(0))),
            }
        }
        bytes
    }

    fn damage(block: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        let at = rng.usize(..block.len().max(1));
        match rng.u8(..4) {
            0 => block.truncate(at),
            1 => block.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.u8(..8)),
            2 => block.iter_mut().skip(at).take(rng.usize(1..40)).for_each(|byte| *byte = rng.u8(..)),
            _ => block.insert(at, rng.u8(..)),
        }
    }

    #[test]
    fn it_agrees_with_snap() {
        let first: u64 = std::env::var("WALFIX_FIRST_SEED").map_or(0, |seed| seed.parse().unwrap_or(0));
        let seeds: u64 = std::env::var("WALFIX_SEEDS").map_or(300, |seeds| seeds.parse().unwrap_or(300));
        let mut lanes = Lanes::default();
        let (mut done, mut of) = (0, 0);
        for seed in first..first + seeds {
            let mut rng = fastrand::Rng::with_seed(seed);
            let blocks: Vec<Vec<u8>> = (0..rng.usize(1..14))
                .map(|_| {
                    let mut block =
                        snap::raw::Encoder::new().compress_vec(&bytes(&mut rng)).unwrap_or_default();
                    if rng.u8(..3) == 0 {
                        damage(&mut block, &mut rng);
                    }
                    block
                })
                .collect();
            eprintln!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1");
            of += blocks.len();
            done += compare(&mut lanes, &blocks);
        }
        eprintln!("{done} of {of} blocks without snap");
        assert!(!are_there() || seeds < 100 || done * 3 > of, "{done} of {of}");
    }

    /// Blocks of a few hundred bytes, each damaged in another place: many more than [`it_agrees_with_snap`] has.
    #[test]
    fn hostile_blocks_are_judged_as_by_snap() {
        let first: u64 = std::env::var("WALFIX_FIRST_SEED").map_or(0, |seed| seed.parse().unwrap_or(0));
        let blocks: u64 =
            std::env::var("WALFIX_BLOCKS").map_or(30_000, |count| count.parse().unwrap_or(30_000));
        let (mut lanes, mut snap) = (Lanes::default(), snap::raw::Decoder::new());
        let (mut tried, mut done, mut refused, mut expected) = (0, 0, 0, vec![0; 1 << 20]);
        for seed in first.. {
            let mut rng = fastrand::Rng::with_seed(seed);
            let originals: Vec<Vec<u8>> = (0..8)
                .map(|_| {
                    let mut bytes = bytes(&mut rng);
                    bytes.truncate(rng.usize(300..3000));
                    snap::raw::Encoder::new().compress_vec(&bytes).unwrap_or_default()
                })
                .collect();
            for _ in 0..256 {
                let mut damaged = originals.clone();
                for block in &mut damaged {
                    damage(block, &mut rng);
                }
                let claimed = |block: &Vec<u8>| {
                    snap::raw::decompress_len(block).ok().filter(|length| *length <= 1 << 16)
                };
                let blocks: Vec<(&[u8], usize)> =
                    damaged.iter().filter_map(|block| Some((&**block, claimed(block)?))).collect();
                lanes.unpack(&blocks);
                tried += blocks.len() as u64;
                for (at, (block, length)) in blocks.iter().enumerate() {
                    let verdict = snap.decompress(block, &mut expected);
                    refused += u64::from(verdict.is_err());
                    let Some(unpacked) = lanes.get(at) else { continue };
                    let is_same = verdict.is_ok() && unpacked == &expected[..*length];
                    assert!(is_same, "WALFIX_FIRST_SEED={seed}: {verdict:?} {block:?}");
                    done += 1;
                }
            }
            if tried >= blocks {
                break;
            }
        }
        eprintln!("{tried} damaged blocks: snap refused {refused}, {done} were unpacked without it");
        assert!(!are_there() || done > 0 && refused > tried / 4, "{done}, {refused} of {tried}");
    }

    #[test]
    fn few_and_short_blocks_are_left_to_snap() {
        let block = snap::raw::Encoder::new().compress_vec(&[7; 100]).unwrap_or_default();
        let mut lanes = Lanes::default();
        assert_eq!(compare(&mut lanes, &[]), 0);
        assert_eq!(compare(&mut lanes, &[block.clone(), block.clone(), block]), 0);
        assert_eq!(lanes.get(3), None);
    }
}
