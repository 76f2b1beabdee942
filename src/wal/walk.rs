//! The straight way through a segment in which nothing is wrong: what [`super::reader`] finds there, and nothing else.
//!
//! At the first thing that a writer does not leave, whatever it is, the walk ends, and the salvage reader has to
//! start again. So this one needs no memory of what it has seen but the pages' first bytes, and no more than a comparison
//! for each fragment. A segment can be walked in stretches, each by another thread.

use std::hash::BuildHasher;
use std::ops::Range;

use super::compress::{self, MAX_RECORD, Unpacker};
use super::layout::{FragmentType, HEADER_SIZE, HeadByte, Header, PAGE};
use super::page::{is_zero, words_of};
use super::source::{ReadAt, read_full};
use super::{Record, crc};

/// Bytes that are read at once.
const WINDOW: u64 = 8 * PAGE;

/// Pages, each as a number made of a few of its bytes: those of equal pages are equal.
pub type Pages = foldhash::HashSet<u64>;

/// Something is not as a writer leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt;

/// Walks over stretches of segments, one after the other; one for each thread, since its buffers are used again.
#[derive(Debug, Default)]
pub struct Walker {
    window: Vec<u8>,
    unpacker: Unpacker,
    /// Stored bytes of a record of several fragments.
    joined: Vec<u8>,
    /// Its fragments, or the only one.
    fragments: Vec<Range<u64>>,
}

impl Walker {
    /// Reads all records of a segment of `length` bytes that begin within `stretch`, and notes all pages of it that differ
    /// from others. The bounds of `stretch` are multiples of [`PAGE`], but for the end of the segment.
    ///
    /// A record continues beyond the end of its stretch. So all is intact where all stretches of a segment are.
    ///
    /// # Errors
    /// If anything is not as a writer leaves it, or `each` does not return true. What `each` got by then may be what
    /// only seems to be there.
    pub fn walk<S: ReadAt + ?Sized>(
        &mut self,
        source: &S,
        length: u64,
        stretch: Range<u64>,
        pages: &mut Pages,
        mut each: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(), Doubt> {
        let mut loaded = stretch.start..stretch.start;
        // Files have many stretches. What unpacks to more is read once more, with what is left of the file's allowance.
        self.unpacker
            .allow((stretch.end - stretch.start).saturating_mul(100).saturating_add(MAX_RECORD as u64));
        // The first page may begin with the end of a record of the stretch before.
        let mut is_of_others = stretch.start > 0;
        let mut open: Option<HeadByte> = None;
        let mut page_at = stretch.start;
        while page_at < length {
            if is_of_others && page_at >= stretch.end {
                // Nothing begins here, and whose record it is verifies the rest.
                return Ok(());
            }
            let page_end = (page_at + PAGE).min(length);
            if page_at >= loaded.end {
                let within = if page_at < stretch.end { stretch.end } else { page_end };
                loaded = page_at..(page_at + WINDOW).min(within).min(length);
                self.load(source, &loaded)?;
            }
            let page = in_window(&self.window, loaded.start, page_at..page_end);
            let mut at = 0;
            let mut has_contents = false;
            while let Some(rest) = page.get(at..).filter(|rest| !rest.is_empty()) {
                let Some(header) = Header::parse(rest).filter(|header| header.head.0 != 0) else {
                    // Up to a page end; a complete header of zeros only at the end of the segment, after something.
                    let is_padding = is_zero(rest) && at > 0 && page_end.is_multiple_of(PAGE);
                    if is_padding && (rest.len() < HEADER_SIZE || page_end == length) {
                        break;
                    }
                    return Err(Doubt);
                };
                let data = rest.get(HEADER_SIZE..header.size()).ok_or(Doubt)?;
                let range = page_at + at as u64..page_at + (at + header.size()) as u64;
                let kind = header.head.kind();
                if !header.head.is_canonical() {
                    return Err(Doubt);
                }
                at += header.size();
                has_contents |= data.len() > 1;
                if is_of_others && kind.continues() {
                    is_of_others = kind == FragmentType::Middle;
                    continue;
                }
                is_of_others = false;
                if open.is_none() && kind.begins() && range.start >= stretch.end {
                    return Ok(());
                }
                if !crc::matches(data, header.crc) {
                    return Err(Doubt);
                }
                match (open, kind) {
                    (None, FragmentType::Full | FragmentType::First) => {
                        self.fragments.clear();
                        self.joined.clear();
                    }
                    (Some(first), FragmentType::Middle | FragmentType::Last)
                        if first.compression() == header.head.compression()
                            && self.fragments.last().is_some_and(|last| last.end == range.start) => {}
                    _ => return Err(Doubt),
                }
                self.fragments.push(range);
                let stored = if kind == FragmentType::Full {
                    data
                } else {
                    self.joined.extend_from_slice(data);
                    if self.joined.len() > MAX_RECORD {
                        self.joined = Vec::new();
                        return Err(Doubt);
                    }
                    &self.joined
                };
                if matches!(kind, FragmentType::First | FragmentType::Middle) {
                    open = Some(header.head);
                    continue;
                }
                open = None;
                let record = record_of(header.head, stored, &self.fragments, &mut self.unpacker)?;
                if !each(&record) {
                    return Err(Doubt);
                }
            }
            if has_contents
                && page_at < stretch.end
                && let Some(number) = number_of(page)
                && !pages.insert(number)
            {
                return Err(Doubt);
            }
            page_at = page_end;
        }
        if open.is_none() { Ok(()) } else { Err(Doubt) }
    }

    fn load<S: ReadAt + ?Sized>(&mut self, source: &S, range: &Range<u64>) -> Result<(), Doubt> {
        let length = usize::try_from(range.end - range.start).map_err(|_| Doubt)?;
        if self.window.len() < length {
            self.window.resize(length, 0);
        }
        let room = self.window.get_mut(..length).ok_or(Doubt)?;
        match read_full(source, room, range.start) {
            Ok(filled) if filled == length => Ok(()),
            _ => Err(Doubt),
        }
    }
}

fn in_window(window: &[u8], base: u64, range: Range<u64>) -> &[u8] {
    let place = |offset: u64| usize::try_from(offset - base).unwrap_or(usize::MAX);
    window.get(place(range.start)..place(range.end)).unwrap_or_default()
}

fn record_of<'a>(
    head: HeadByte,
    stored: &'a [u8],
    fragments: &'a [Range<u64>],
    unpacker: &'a mut Unpacker,
) -> Result<Record<'a>, Doubt> {
    let compression = head.compression();
    Ok(Record {
        offset: fragments.first().ok_or(Doubt)?.start,
        end: fragments.last().ok_or(Doubt)?.end,
        head,
        compression,
        data: unpacker.unpack(compression, stored).map_err(|_| Doubt)?,
        fragments,
        has_own_checksum: compress::has_own_checksum(compression, stored),
        in_copy: false,
        flags_disagree: false,
    })
}

/// A number that equal pages have in common; none of a page that is cut.
fn number_of(page: &[u8]) -> Option<u64> {
    Some(foldhash::fast::FixedState::default().hash_one(words_of(page)?))
}
