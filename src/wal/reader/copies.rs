//! Finds pages that are copies of earlier ones.

use std::collections::HashMap;

use crate::wal::layout::{FragmentType, HEADER_SIZE, Header};
use crate::wal::page::{Piece, words_of};
use crate::wal::source::{ReadAt, Window};

/// The pages that have been read.
#[derive(Debug, Default)]
pub(super) struct PagesRead {
    /// Where the first one with these words is.
    pages: HashMap<[u64; 3], u64>,
    /// Pages from the midst of records that are the same as earlier ones: offsets of the earlier and the later.
    pub(super) alike: Vec<(u64, u64)>,
}

impl PagesRead {
    /// An earlier page with the same bytes, in which a record begins. Pages from the midst of records may be alike by
    /// right (two scrapes without a change), and are only noted.
    pub(super) fn earlier_copy<S: ReadAt>(&mut self, window: &mut Window<S>, offset: u64) -> Option<u64> {
        let page = window.page(offset);
        let contents = look_into(page);
        let key = words_of(page).filter(|_| contents != PageContents::Nothing)?;
        let Some(&earlier) = self.pages.get(&key) else {
            self.pages.insert(key, offset);
            return None;
        };
        let mut other = Vec::new();
        window.other_page(earlier, &mut other);
        if window.page(offset) != other {
            return None;
        }
        if contents == PageContents::MidstOfRecord {
            self.alike.push((earlier, offset));
            return None;
        }
        Some(earlier)
    }
}

/// Whether a page holds anything of which a copy would matter.
pub(in crate::wal) fn has_contents(page: &[u8]) -> bool {
    look_into(page) != PageContents::Nothing
}

/// What a page holds, as far as its being the same as another says anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PageContents {
    /// Zeros, or fill.
    Nothing,
    /// A part of a record that begins in an earlier page.
    MidstOfRecord,
    /// The beginning of a record, which says when it was written.
    Beginning,
}

fn look_into(page: &[u8]) -> PageContents {
    let (mut at, mut contents) = (0, PageContents::Nothing);
    while let Some(Piece::Fragment { start, header, data }) = peek(page, at) {
        if data.len() > 1 {
            if header.head.kind().begins() {
                return PageContents::Beginning;
            }
            contents = PageContents::MidstOfRecord;
        }
        at = start + header.size();
    }
    contents
}

/// The fragment that a header announces, whatever its checksum.
fn peek(page: &[u8], at: usize) -> Option<Piece<'_>> {
    let rest = page.get(at..)?;
    let header = Header::parse(rest)?;
    let data = rest.get(HEADER_SIZE..header.size())?;
    (header.head.kind() != FragmentType::PageTerm).then_some(Piece::Fragment { start: at, header, data })
}
