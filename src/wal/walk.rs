//! The straight way through a segment in which nothing is wrong: what [`super::reader`] finds there, and nothing else.
//!
//! At the first thing that a writer does not leave, whatever it is, the walk ends, and the salvage reader has to
//! start again. So this one needs no memory of what it has seen but the pages' first bytes, and no more than a comparison
//! for each fragment. A segment can be walked in stretches, each by another thread.

use std::hash::BuildHasher;
use std::ops::Range;

use super::batch::Batch;
use super::compress::MAX_RECORD;
use super::layout::{FragmentType, HEADER_SIZE, HeadByte, Header, PAGE, in_page, page_start};
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
    batch: Batch,
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
        each: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(), Doubt> {
        // Files have many stretches. What unpacks to more is read once more, with what is left of the file's allowance.
        let allowed = (stretch.end - stretch.start).saturating_mul(100).saturating_add(MAX_RECORD as u64);
        self.walk_noting(source, length, stretch, allowed, |page| pages.insert(page), each)
    }

    /// The same where a record or its stretch begins at `stretch.start`, for records that unpack to no more than `allowed` bytes;
    /// without a look at whether pages differ.
    ///
    /// # Errors
    /// As of [`Self::walk`]. What `each` got by then is there.
    pub fn walk_on<S: ReadAt + ?Sized>(
        &mut self,
        source: &S,
        length: u64,
        stretch: Range<u64>,
        allowed: u64,
        each: impl FnMut(&Record<'_>),
    ) -> Result<(), Doubt> {
        let mut each = each;
        self.walk_noting(
            source,
            length,
            stretch,
            allowed,
            |_| true,
            |record| {
                each(record);
                true
            },
        )
    }

    fn walk_noting<S: ReadAt + ?Sized>(
        &mut self,
        source: &S,
        length: u64,
        stretch: Range<u64>,
        allowed: u64,
        mut note: impl FnMut(u64) -> bool,
        mut each: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<(), Doubt> {
        let mut page_at = page_start(stretch.start);
        // Where it begins within a page.
        let mut begins_at = in_page(stretch.start);
        let mut loaded = page_at..page_at;
        self.batch.allow(allowed);
        self.batch.clear();
        // The first page may begin with the end of a record of the stretch before.
        let mut is_of_others = stretch.start > 0 && begins_at == 0;
        let mut open: Option<HeadByte> = None;
        'pages: while page_at < length {
            if is_of_others && page_at >= stretch.end {
                // Nothing begins here, and whose record it is verifies the rest.
                break;
            }
            let page_end = (page_at + PAGE).min(length);
            if page_at >= loaded.end {
                self.batch.tell(&self.window, &mut each)?;
                let within = if page_at < stretch.end { stretch.end } else { page_end };
                loaded = page_at..(page_at + WINDOW).min(within).min(length);
                self.load(source, &loaded)?;
            }
            let page = in_window(&self.window, loaded.start, page_at..page_end);
            let mut at = std::mem::take(&mut begins_at);
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
                    break 'pages;
                }
                if !crc::matches(data, header.crc) {
                    return Err(Doubt);
                }
                match (open, kind) {
                    (None, FragmentType::Full | FragmentType::First) => self.batch.begin(),
                    (Some(first), FragmentType::Middle | FragmentType::Last)
                        if first.compression() == header.head.compression()
                            && self.batch.ends_at(range.start) => {}
                    _ => return Err(Doubt),
                }
                self.batch.add_fragment(range);
                if kind != FragmentType::Full {
                    self.batch.join(data)?;
                }
                if matches!(kind, FragmentType::First | FragmentType::Middle) {
                    open = Some(header.head);
                    continue;
                }
                open = None;
                let in_window = (kind == FragmentType::Full).then(|| {
                    let end = place_of(page_at, loaded.start) + at;
                    end - data.len()..end
                });
                self.batch.end(header.head, in_window, &self.window, &mut each)?;
            }
            if has_contents
                && page_at < stretch.end
                && let Some(number) = number_of(page)
                && !note(number)
            {
                return Err(Doubt);
            }
            page_at = page_end;
        }
        self.batch.tell(&self.window, &mut each)?;
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
    window.get(place_of(range.start, base)..place_of(range.end, base)).unwrap_or_default()
}

/// Where an offset is in a window that begins at `base`.
fn place_of(offset: u64, base: u64) -> usize {
    usize::try_from(offset - base).unwrap_or(usize::MAX)
}

/// A number that equal pages have in common; none of a page that is cut.
pub(super) fn number_of(page: &[u8]) -> Option<u64> {
    Some(foldhash::fast::FixedState::default().hash_one(words_of(page)?))
}
