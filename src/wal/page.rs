//! One page into fragments. A fragment never crosses a page end (`tsdb/wlog/wlog.go`, `WL.log`), so a page can be
//! read alone, and whatever is wrong in one page says nothing of the next.
//!
//! After damage the page is taken up again where a chain of fragments proves itself, see `resume`.

use std::ops::Range;

use super::crc::{self, Stretches};
use super::layout::{FragmentType, HEADER_SIZE, HeadByte, Header, PAGE_SIZE};

/// A piece of a page. Offsets are within the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A fragment whose data has the checksum of its header. Its type may still not fit where it is.
    Fragment {
        /// Where the header begins.
        start: usize,
        /// As stored.
        header: Header,
        /// As stored; it ends where the fragment ends.
        data: &'a [u8],
    },
    /// Zeros up to the page end.
    Padding {
        /// Where they begin.
        start: usize,
    },
    /// Bytes that are no fragment.
    Damage {
        /// Where the damaged fragment or padding begins.
        start: usize,
        /// Where it ends, as far as is known; the next piece begins here, or only zeros follow.
        end: usize,
        /// What is wrong with it.
        fault: PageFault,
        /// The one bit that, flipped back, makes the fragment at `start` intact.
        flip: Option<Flip>,
    },
}

/// What is wrong within one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// The data does not have the checksum of the header.
    Checksum {
        /// Of the data.
        computed: u32,
        /// In the header.
        stored: u32,
    },
    /// The header claims data beyond the page end.
    Length(u16),
    /// A header of type 0 and then something that is not zero.
    JunkInPadding,
    /// The file ends within the fragment.
    Torn,
}

/// One bit that explains a damaged fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    /// The byte, as an offset in the page.
    pub at: usize,
    /// The bit in it.
    pub mask: u8,
    /// The fragment's header as it was.
    pub header: Header,
    /// How many corrections were tried; each had a chance of one in 2^32 to fit by coincidence.
    pub tried: u32,
}

/// The piece that begins at `start` of a page; `None` at its end. `page` is shorter than [`PAGE_SIZE`] only where the
/// file ends. The next piece begins where this one ends.
#[must_use]
pub fn piece(page: &[u8], start: usize) -> Option<Piece<'_>> {
    if start >= page.len() {
        return None;
    }
    Some(match look(page, start) {
        Look::Fragment { header, data } => Piece::Fragment { start, header, data },
        Look::Zeros => Piece::Padding { start },
        Look::Fault { fault, claimed } => damage(page, start, fault, claimed),
    })
}

#[cold]
fn damage(page: &[u8], start: usize, fault: PageFault, claimed: Option<Header>) -> Piece<'_> {
    let flip = explain(page, start, fault);
    let resumed = resume(page, start, claimed, flip.as_ref());
    let end = match (resumed, fault) {
        (Some(end), _) => end,
        (None, PageFault::Torn) => page.len(),
        (None, PageFault::JunkInPadding) => {
            let zeros = page[start..].iter().take_while(|&&byte| byte == 0).count();
            let start = if zeros < HEADER_SIZE { start } else { start + zeros };
            return Piece::Damage { start, end: after_last_nonzero(page, start), fault, flip: None };
        }
        (None, _) => after_last_nonzero(page, start),
    };
    // A correction that leads elsewhere than the bytes that follow is none.
    let flip = flip.filter(|flip| start + flip.header.size() == end);
    // Something follows what the file seemed to end in: the length was wrong.
    let fault = match (fault, claimed) {
        (PageFault::Torn, Some(header)) if resumed.is_some() => PageFault::Length(header.length),
        _ => fault,
    };
    Piece::Damage { start, end, fault, flip }
}

enum Look<'a> {
    Fragment { header: Header, data: &'a [u8] },
    Zeros,
    Fault { fault: PageFault, claimed: Option<Header> },
}

/// What is at `start`, taken at its word.
fn look(page: &[u8], start: usize) -> Look<'_> {
    let rest = page.get(start..).unwrap_or_default();
    let Some(header) = Header::parse(rest) else {
        return if is_zero(rest) {
            Look::Zeros
        } else if page.len() < PAGE_SIZE {
            Look::Fault { fault: PageFault::Torn, claimed: None }
        } else {
            // Fewer than seven bytes before the page end hold no fragment.
            Look::Fault { fault: PageFault::JunkInPadding, claimed: None }
        };
    };
    if header.head.kind() == FragmentType::PageTerm {
        return if is_zero(rest) {
            Look::Zeros
        } else {
            Look::Fault { fault: PageFault::JunkInPadding, claimed: Some(header) }
        };
    }
    match rest.get(HEADER_SIZE..header.size()) {
        Some(data) if crc::matches(data, header.crc) => Look::Fragment { header, data },
        Some(data) => Look::Fault {
            fault: PageFault::Checksum { computed: crc::checksum(data), stored: header.crc },
            claimed: Some(header),
        },
        None if start + header.size() > PAGE_SIZE => {
            Look::Fault { fault: PageFault::Length(header.length), claimed: Some(header) }
        }
        None => Look::Fault { fault: PageFault::Torn, claimed: Some(header) },
    }
}

/// Where the page can be read again after damage at `start`.
///
/// The end that the damaged header itself claims is taken if fragments continue from there. But that length may be the
/// damaged thing, and skip what is intact. So every offset before it is tried too: a header as a writer makes it in
/// the midst of a page, with data under a right checksum. One that is empty proves nothing (`01 00 00 00 00 00 00`
/// begins every uncompressed series record). A corrected length needs no such search: the checksum covers it all.
fn resume(page: &[u8], start: usize, claimed: Option<Header>, flip: Option<&Flip>) -> Option<usize> {
    if let (Some(flip), Some(claimed)) = (flip, claimed)
        && flip.header != claimed
        && flip.header.crc == claimed.crc
    {
        return Some(start + flip.header.size());
    }
    let claimed = claimed
        .filter(|header| header.head.kind() != FragmentType::PageTerm)
        .map(|header| start + header.size())
        .filter(|&end| end <= page.len());
    let claim = claimed.map_or(Claim::Broken, |end| weigh_claim(page, end));
    let found = match (claim, claimed) {
        (Claim::Strong, Some(end)) => search(page, start + 1, end, Some(end)),
        _ => search(page, start + 1, page.len(), None),
    };
    found.or(claimed.filter(|_| claim != Claim::Broken))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Data under a right checksum follows.
    Strong,
    /// The page ends there, or zeros follow: any length that is too long can look like that.
    Weak,
    /// Something follows that is neither.
    Broken,
}

fn weigh_claim(page: &[u8], end: usize) -> Claim {
    let mut at = end;
    loop {
        match look(page, at) {
            Look::Fragment { header, .. } if header.length == 0 => at += header.size(),
            Look::Fragment { .. } => return Claim::Strong,
            Look::Zeros => return Claim::Weak,
            Look::Fault { .. } => return Claim::Broken,
        }
    }
}

/// The first offset from `from` on at which a chain begins, before `limit`. With `through` the chain must have a
/// joint there, or reach the page end: otherwise it is a log within somebody's label.
fn search(page: &[u8], from: usize, limit: usize, through: Option<usize>) -> Option<usize> {
    let base = from.min(page.len());
    // Fragments up to a joint end there at the latest: a page of small damages is not summed up again for each.
    let page_or_joint = page.get(..through.unwrap_or(page.len())).unwrap_or(page);
    let mut sums = Sums::new(page_or_joint, base);
    let mut patience = PATIENCE;
    let mut at = base;
    while let Some(next) = next_head(page, at, limit) {
        at = next + 1;
        let Some(header) = page.get(next..).and_then(Header::parse) else { break };
        let end = next + header.size();
        if could_begin(header, next, page_or_joint.len())
            && through.is_none_or(|joint| may_pass(page, end, joint, &mut patience))
            && sums.checksum(next + HEADER_SIZE..end) == Some(header.crc)
            && through.is_none_or(|joint| passes(page, next, joint))
        {
            return Some(next);
        }
    }
    None
}

/// The first byte from `from` on, before `limit`, that a writer begins a record with.
fn next_head(page: &[u8], from: usize, limit: usize) -> Option<usize> {
    /// Bytes that are looked at together.
    const BLOCK: usize = 16;
    let is_head = |byte: u8| HeadByte(byte).is_canonical() && HeadByte(byte).kind().begins();
    let bytes = page.get(from..limit.min(page.len()))?;
    let blocks =
        bytes.chunks(BLOCK).take_while(|block| !block.iter().fold(false, |any, &byte| any | is_head(byte)));
    let start = blocks.count() * BLOCK;
    let within = bytes.get(start..)?.iter().position(|&byte| is_head(byte))?;
    Some(from + start + within)
}

/// Checksums of stretches of a page: of the first few one by one, then in constant time each, so that a page full of what
/// looks like headers costs no more than another.
struct Sums<'a> {
    page: &'a [u8],
    base: usize,
    left: usize,
    stretches: Option<Stretches>,
}

impl<'a> Sums<'a> {
    /// Of stretches of `page` that begin at `base` or after it.
    fn new(page: &'a [u8], base: usize) -> Self {
        Self { page, base, left: 8 * PAGE_SIZE, stretches: None }
    }

    fn checksum(&mut self, range: Range<usize>) -> Option<u32> {
        let bytes = self.page.get(range.clone())?;
        if let Some(left) = self.left.checked_sub(bytes.len()) {
            self.left = left;
            return Some(crc::checksum(bytes));
        }
        let (page, base) = (self.page, self.base);
        let stretches =
            self.stretches.get_or_insert_with(|| Stretches::new(page.get(base..).unwrap_or_default()));
        stretches.checksum(range.start - base, range.end - base)
    }
}

/// Headers that are looked at in one search before checksums are.
const PATIENCE: usize = 4096;

/// Whether headers lead from `at` to the joint, as [`passes`] has it, whatever their checksums; true as well when patience
/// ends.
fn may_pass(page: &[u8], mut at: usize, joint: usize, patience: &mut usize) -> bool {
    while at < joint {
        let Some(left) = patience.checked_sub(1) else { return true };
        *patience = left;
        match page.get(at..).and_then(Header::parse) {
            Some(header) if header.head.kind() != FragmentType::PageTerm => at += header.size(),
            // What is no header can only be zeros.
            _ => return page.get(at).is_none_or(|&byte| byte == 0),
        }
    }
    at == joint || at == page.len()
}

/// Whether a writer puts such a header in the midst of a page: nothing but a page start begins with the rest of a
/// record, and a first fragment fills its page.
fn could_begin(header: Header, at: usize, page_len: usize) -> bool {
    let end = at + header.size();
    header.length > 0
        && header.head.is_canonical()
        && end <= page_len
        && match header.head.kind() {
            FragmentType::Full => true,
            FragmentType::First => end == PAGE_SIZE,
            _ => false,
        }
}

fn passes(page: &[u8], mut at: usize, joint: usize) -> bool {
    while at < joint {
        match look(page, at) {
            Look::Fragment { header, .. } => at += header.size(),
            Look::Zeros => return true,
            Look::Fault { .. } => return false,
        }
    }
    at == joint || at == page.len()
}

/// The one bit of the fragment at `start` that explains `fault`, if exactly one does.
fn explain(page: &[u8], start: usize, fault: PageFault) -> Option<Flip> {
    let header = page.get(start..).and_then(Header::parse)?;
    if !header.head.is_canonical() && header.head.kind() != FragmentType::PageTerm {
        // Something is wrong with the header already: one more bit is not the only one.
        return None;
    }
    let data_at = start + HEADER_SIZE;
    let data = |length: u16| page.get(data_at..data_at + usize::from(length));
    let mut found = Candidates::default();

    if let PageFault::Checksum { computed, stored } = fault {
        let syndrome = computed ^ stored;
        if syndrome.is_power_of_two() {
            let byte = 3 - (syndrome.trailing_zeros() / 8) as usize;
            let mask = 1 << (syndrome.trailing_zeros() % 8);
            found.add(start + 3 + byte, mask, Header { crc: computed, ..header });
        } else if let Some((byte, mask)) = crc::flipped_data_bit(usize::from(header.length), syndrome) {
            found.add(data_at + byte, mask, header);
        }
        found.tried += u32::from(header.length) * 8 + 32;
    }
    if header.head.kind() == FragmentType::PageTerm {
        for kind in [FragmentType::Full, FragmentType::First, FragmentType::Last] {
            let head = HeadByte(header.head.0 | kind.bits());
            let fits = head.is_canonical()
                && header.length > 0
                && data(header.length).is_some_and(|data| crc::checksum(data) == header.crc);
            if fits && is_in_place(kind, start, start + header.size()) {
                found.add(start, kind.bits(), Header { head, ..header });
            }
            found.tried += 1;
        }
    } else {
        for bit in 0..16 {
            let length = header.length ^ (1 << bit);
            let fits = length > 0 && data(length).is_some_and(|data| crc::checksum(data) == header.crc);
            if fits {
                found.add(start + if bit < 8 { 2 } else { 1 }, 1 << (bit % 8), Header { length, ..header });
            }
            found.tried += 1;
        }
    }
    found.only()
}

/// Whether a fragment of that type may be at `[start, end)` of a page, as far as its page alone shows.
pub(super) fn is_in_place(kind: FragmentType, start: usize, end: usize) -> bool {
    match kind {
        FragmentType::Full => true,
        FragmentType::First => end == PAGE_SIZE,
        FragmentType::Middle => start == 0 && end == PAGE_SIZE,
        FragmentType::Last => start == 0,
        FragmentType::PageTerm | FragmentType::Invalid(_) => false,
    }
}

#[derive(Default)]
struct Candidates {
    flip: Option<Flip>,
    count: u32,
    tried: u32,
}

impl Candidates {
    fn add(&mut self, at: usize, mask: u8, header: Header) {
        self.count += 1;
        self.flip = Some(Flip { at, mask, header, tried: 0 });
    }

    fn only(self) -> Option<Flip> {
        let tried = self.tried;
        self.flip.filter(|_| self.count == 1).map(|flip| Flip { tried, ..flip })
    }
}

/// Whether all of `bytes` are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Where the bytes from `start` on stop being other than zeros; the page end if no header fits after them.
fn after_last_nonzero(page: &[u8], start: usize) -> usize {
    let end = page.iter().rposition(|&byte| byte != 0).map_or(start, |last| last.max(start)) + 1;
    if page.len() - end < HEADER_SIZE { page.len() } else { end }
}

/// A few words of a page, by which copies are looked for: equal pages have the same. None of a page that is cut.
pub(super) fn words_of(page: &[u8]) -> Option<[u64; 3]> {
    if page.len() < PAGE_SIZE {
        return None;
    }
    let word = |at: usize| page.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let [first, second, third] = WORDS;
    Some([word(first)?, word(second)?, word(third)?])
}

/// Where these words are, of eight bytes each.
const WORDS: [usize; 3] = [0, PAGE_SIZE / 2, PAGE_SIZE - 8];

/// Whether a byte of a page is in one of these words.
pub(super) fn is_of_words(at: usize) -> bool {
    WORDS.iter().any(|&word| (word..word + 8).contains(&at))
}
