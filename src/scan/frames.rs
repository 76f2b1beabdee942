//! The fragments around a place, as they are: for showing to somebody else.

use std::io;
use std::ops::Range;
use std::path::Path;

use crate::record::RecordType;
use crate::wal::compress::Unpacker;
use crate::wal::layout::{FragmentType, Header, PAGE, page_end, page_start};
use crate::wal::page::{PageFault, Piece, piece};
use crate::wal::source::Window;

/// Fragments before and after a place.
const AROUND: usize = 3;

/// Fragments of a place itself, at each of its ends.
const WITHIN: usize = 4;

/// Something in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins and ends in the file.
    pub range: Range<u64>,
    /// Whether it belongs to the place itself.
    pub within: bool,
    /// What it is.
    pub kind: FrameKind,
}

/// What a [`Frame`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A fragment whose data has the checksum of its header.
    Fragment {
        /// As stored.
        header: Header,
        /// Prometheus's name of the record's type, if this is all of the record or its uncompressed beginning.
        record: Option<&'static str>,
    },
    /// Zeros up to the page end.
    Padding,
    /// Bytes that are none of these.
    Damage {
        /// Its first bytes read as a header.
        header: Option<Header>,
        /// The checksum of as much data as that header claims, if there is as much in the page.
        computed: Option<u32>,
        /// The first bytes.
        bytes: Vec<u8>,
    },
    /// More of the place, which is not shown.
    Omitted,
}

/// What is at `place` of a segment, and next to it.
///
/// # Errors
/// If the file cannot be opened; bytes that cannot be read are shown as zeros.
pub fn around(path: &Path, place: &Range<u64>) -> io::Result<Vec<Frame>> {
    let file = crate::io::open(path)?;
    let length = file.metadata()?.len();
    let mut window = Window::new(file, length);
    let first = page_start(place.start).saturating_sub(PAGE);
    let last = page_end(place.end.max(place.start)).saturating_add(PAGE).min(length);
    let (mut before, mut within, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut omitted: Option<Range<u64>> = None;
    let mut at = first;
    while at < last && after.len() < AROUND {
        // Of a long place, the pages at its ends are enough.
        let middle = page_start(place.start) + 2 * PAGE..page_start(place.end).saturating_sub(PAGE);
        if middle.contains(&at) {
            omitted = Some(at..middle.end);
            at = middle.end;
            continue;
        }
        for frame in page(at, window.page(at), place) {
            if frame.within {
                within.push(frame);
            } else if frame.range.start < place.start {
                before.push(frame);
            } else {
                after.push(frame);
            }
        }
        at += PAGE;
    }
    before.drain(..before.len().saturating_sub(AROUND));
    after.truncate(AROUND);
    shorten(&mut within, omitted);
    Ok([before, within, after].concat())
}

fn shorten(within: &mut Vec<Frame>, omitted: Option<Range<u64>>) {
    if within.len() <= 2 * WITHIN && omitted.is_none() {
        return;
    }
    let head = within.len().min(WITHIN);
    let tail = within.len().saturating_sub(WITHIN).max(head);
    let range = match (within.get(head.wrapping_sub(1)), within.get(tail)) {
        (Some(first), Some(last)) => first.range.end..last.range.start,
        (Some(first), None) => first.range.end..omitted.map_or(first.range.end, |omitted| omitted.end),
        _ => return,
    };
    if !range.is_empty() {
        within.splice(head..tail, [Frame { range, within: true, kind: FrameKind::Omitted }]);
    }
}

/// What a page consists of.
fn page(offset: u64, page: &[u8], place: &Range<u64>) -> Vec<Frame> {
    let (mut frames, mut start) = (Vec::new(), 0);
    while let Some(found) = piece(page, start) {
        let (from, end, kind) = match found {
            Piece::Fragment { start, header, data } => {
                let record = record_of(header, data);
                (start, start + header.size(), FrameKind::Fragment { header, record })
            }
            Piece::Padding { start } => (start, page.len(), FrameKind::Padding),
            Piece::Damage { start, end, fault, .. } => {
                let computed = match fault {
                    PageFault::Checksum { computed, .. } => Some(computed),
                    _ => None,
                };
                let bytes = page.get(start..end).unwrap_or_default();
                let header = Header::parse(bytes);
                let bytes = bytes.iter().take(16).copied().collect();
                (start, end, FrameKind::Damage { header, computed, bytes })
            }
        };
        let range = offset + from as u64..offset + end as u64;
        let within = range.start < place.end && range.end > place.start
            || place.is_empty() && range.contains(&place.start);
        frames.push(Frame { range, within, kind });
        start = end.max(start + 1);
    }
    frames
}

fn record_of(header: Header, data: &[u8]) -> Option<&'static str> {
    let mut unpacker = Unpacker::default();
    let record = match header.head.kind() {
        FragmentType::Full => unpacker.unpack(header.head.compression(), data).ok()?,
        FragmentType::First if header.head.compression().bits() == 0 => data,
        _ => return None,
    };
    Some(RecordType::of(record).map_or("unknown", RecordType::name))
}
