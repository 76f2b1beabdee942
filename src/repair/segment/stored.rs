//! Records as they are stored, in fragments.

use std::io;
use std::ops::Range;

use super::ranges::length_of;
use crate::scan::salvage::AgreedCorrection;
use crate::wal::ReadAt;
use crate::wal::layout::{FragmentType, HEADER_SIZE, HeadByte, Header, page_end};
use crate::wal::source::read_full;

/// The data of the fragments that are in `range`, corrected; and the last one's first byte.
pub(super) fn stored_record<S: ReadAt + ?Sized>(
    source: &S,
    range: &Range<u64>,
    corrected: Option<&AgreedCorrection>,
    stored: &mut Vec<u8>,
) -> io::Result<HeadByte> {
    let mut bytes = vec![0; length_of(range)];
    read_exact(source, &mut bytes, range.start)?;
    if let Some(corrected) = corrected {
        bytes[length_of(&(range.start..corrected.at))] ^= corrected.mask;
    }
    Ok(join(&bytes, range.start, stored))
}

/// The data of the fragments that are in `bytes`, which begin at `offset` of a segment; and the last one's first byte.
fn join(bytes: &[u8], offset: u64, stored: &mut Vec<u8>) -> HeadByte {
    stored.clear();
    let (mut at, mut head) = (0, HeadByte(0));
    while let Some(header) = bytes.get(at..).and_then(Header::parse) {
        if header.head.kind() == FragmentType::PageTerm {
            let here = offset + at as u64;
            at += length_of(&(here..page_end(here)));
            continue;
        }
        let end = at + header.size();
        stored.extend(bytes.get(at + HEADER_SIZE..end).unwrap_or_default());
        (at, head) = (end, header.head);
        // Too few bytes for a header at the end of a page.
        let here = offset + at as u64;
        let room = page_end(here) - here;
        if room < HEADER_SIZE as u64 {
            at += length_of(&(here..page_end(here)));
        }
    }
    head
}

/// Fills `buffer` from `offset` on.
pub(in crate::repair) fn read_exact<S: ReadAt + ?Sized>(
    source: &S,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<()> {
    let filled = read_full(source, buffer, offset)?;
    if filled == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
