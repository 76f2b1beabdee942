//! The salvage reader: every record of a segment that can be proven, and every byte that cannot.
//!
//! It never stops. Where Prometheus's reader (`tsdb/wlog/reader.go`) gives up at the first fault, this one resumes
//! inside the page where fragments prove themselves ([`super::page`]), else at the next page. It is stricter
//! in one thing: a record that has started must continue at the very next byte, else it is given up. Prometheus skips zeros
//! there, and joins what does not belong together.
//!
//! What a record says is not known here. Where only that can decide, the reader says what it has:
//! a [`CandidateCorrection`](super::event::CandidateCorrection) is a candidate, and a record of several fragments says where these are, since no
//! checksum covers their order.

mod copies;
mod correcting;
mod damage;
mod joining;
mod resuming;

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use self::copies::PagesRead;
pub(in crate::wal) use self::copies::has_contents;
use self::joining::{FlippedBit, JoinedRecord, NewFragment, OpenRecord};
use super::compress::{self, UnpackError, Unpacker};
use super::event::{Damage, Event, Fault};
use super::layout::{HEADER_SIZE, PAGE, PAGE_SIZE, in_page, page_start};
use super::page::{self, Flip, PageFault, Piece};
use super::source::{ReadAt, Window};

/// Reads one segment.
#[derive(Debug)]
pub struct SegmentReader<S> {
    window: Window<S>,
    unpacker: Unpacker,
    /// Where the next piece begins.
    at: u64,
    /// The page whose beginning has been looked at.
    entered: Option<u64>,
    open: Option<OpenRecord>,
    /// The stored bytes of the open record.
    scratch: Vec<u8>,
    /// No record has started since the last damage: what continues here belongs to what is lost.
    after_damage: bool,
    /// A run of zeroed pages of which the end is not known.
    zeros: Option<Range<u64>>,
    /// Zeros at the end of a page, until it is known whether a page follows.
    zero_tail: Option<Range<u64>>,
    pending: Option<Damage>,
    ready: VecDeque<Damage>,
    stashed: Option<JoinedRecord>,
    /// Fragments of the record that was read last.
    fragments: Vec<Range<u64>>,
    pages: PagesRead,
    /// The page being read is a copy of the one there.
    copy_of: Option<u64>,
    /// Unreadable bytes before here have been reported.
    unreadable_reported: u64,
    finished: bool,
    data_end: u64,
    /// Fragments of which the type is taken as it is.
    taken_as_they_are: HashSet<u64>,
}

impl<S: ReadAt> SegmentReader<S> {
    /// Over the first `length` bytes of `source`.
    pub fn new(source: S, length: u64) -> Self {
        let mut unpacker = Unpacker::default();
        unpacker.allow(compress::allowance(length));
        Self {
            window: Window::new(source, length),
            unpacker,
            at: 0,
            entered: None,
            open: None,
            scratch: Vec::new(),
            after_damage: false,
            zeros: None,
            zero_tail: None,
            pending: None,
            ready: VecDeque::new(),
            stashed: None,
            fragments: Vec::new(),
            pages: PagesRead::default(),
            copy_of: None,
            unreadable_reported: 0,
            finished: false,
            data_end: 0,
            taken_as_they_are: HashSet::new(),
        }
    }

    /// Takes the fragments at these offsets as their headers have them, though with one bit of the type flipped they
    /// would fit better: for a second reading, when that has led to no record.
    #[must_use]
    pub fn taking_as_they_are(mut self, fragments: HashSet<u64>) -> Self {
        self.taken_as_they_are = fragments;
        self
    }

    /// Where the last intact record ends, of those found so far.
    #[must_use]
    pub fn data_end(&self) -> u64 {
        self.data_end
    }

    /// Bytes of the segment, as far as they are known.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.window.length()
    }

    /// The next record or damage, in the order of offsets, but for one thing: a page that is a copy is reported before
    /// the record that is open when it begins. `None` at the end of the segment.
    #[expect(clippy::should_implement_trait, reason = "what it returns lives until the next call")]
    pub fn next(&mut self) -> Option<Event<'_>> {
        self.next_before(u64::MAX)
    }

    /// The same; `None` too if a record may begin at `stop` and all before it has been reported, but for damage that might
    /// go on there.
    pub(super) fn next_before(&mut self, stop: u64) -> Option<Event<'_>> {
        loop {
            if let Some(damage) = self.ready.pop_front() {
                return Some(Event::Damage(damage));
            }
            if let Some(found) = self.stashed.take() {
                match self.unpack(&found) {
                    Ok(()) => return Some(Event::Record(self.record(found))),
                    Err(UnpackError::TooMuch) => self.give_up(found.range().start),
                    Err(error) => self.does_not_unpack(&found, error),
                }
            } else if self.finished || self.at == stop && self.open.is_none() && self.copy_of.is_none() {
                return None;
            } else {
                self.step();
            }
        }
    }

    /// Reads one piece.
    fn step(&mut self) {
        let page_offset = page_start(self.at);
        if self.entered != Some(page_offset) {
            self.enter_page(page_offset);
        }
        let at = in_page(self.at);
        let page = self.window.page(page_offset);
        let page_len = page.len();
        match page::piece(page, at) {
            None if page_len == PAGE_SIZE => self.at = page_offset + PAGE,
            None => self.finish(),
            Some(Piece::Fragment { start, header, .. }) => {
                let start = page_offset + start as u64;
                let range = start..start + header.size() as u64;
                self.at = range.end;
                // Nothing but its header shows that it is there; the checksum of no data is zero, as is what cannot be read.
                if header.length == 0
                    && let Some((bad, error)) = self.unreadable_in(&range)
                {
                    self.settle_zeros();
                    self.report_unreadable(range.start);
                    self.unreadable_piece(&range, &bad, &error);
                    return;
                }
                self.fragment(NewFragment { range, head: header.head, flipped: None });
            }
            Some(Piece::Padding { start }) => {
                self.at = page_offset + page_len as u64;
                self.padding(page_offset + start as u64..self.at);
            }
            Some(Piece::Damage { start, end, fault, flip }) => {
                let range = page_offset + start as u64..page_offset + end as u64;
                self.at = range.end;
                self.damaged_piece(page_offset, range, fault, flip);
            }
        }
    }

    fn enter_page(&mut self, offset: u64) {
        self.leave_page();
        self.entered = Some(offset);
        self.copy_of = self.pages.earlier_copy(&mut self.window, offset);
        if let Some(original) = self.copy_of {
            let end = offset + self.window.page(offset).len() as u64;
            self.settle_zeros();
            self.damage(offset..end, Fault::DuplicatedPage { original });
        }
    }

    fn leave_page(&mut self) {
        self.report_unreadable(self.at);
    }

    /// Pages from the midst of records that are the same as earlier ones: offsets of the earlier and the later.
    #[must_use]
    pub fn alike(&self) -> &[(u64, u64)] {
        &self.pages.alike
    }

    fn padding(&mut self, range: Range<u64>) {
        if let Some((bad, error)) = self.unreadable_in(&range) {
            // Zeros only because nothing could be read.
            self.settle_zeros();
            self.report_unreadable(range.start);
            for hole in bad {
                self.damage(hole, Fault::Unreadable(error.clone()));
            }
            self.unreadable_reported = range.end;
            return;
        }
        let whole_page = range.start == page_start(range.start);
        if whole_page {
            match &mut self.zeros {
                Some(zeros) => zeros.end = range.end,
                None => self.zeros = Some(range),
            }
        } else if range.end - range.start >= HEADER_SIZE as u64 {
            self.zero_tail = Some(range);
        }
    }

    /// Zeros have been skipped and something follows them.
    fn settle_zeros(&mut self) {
        if let Some(tail) = self.zero_tail.take() {
            self.abandon_open();
            if !self.after_damage {
                self.damage(tail, Fault::ZeroedTail);
            }
        }
        if let Some(zeros) = self.zeros.take() {
            self.damage(zeros, Fault::ZeroedPages);
        }
    }

    fn damaged_piece(&mut self, page: u64, range: Range<u64>, fault: PageFault, flip: Option<Flip>) {
        self.settle_zeros();
        let fault = match fault {
            PageFault::Checksum { computed, stored } => Fault::Checksum { computed, stored },
            PageFault::Length(length) => Fault::Length(length),
            PageFault::JunkInPadding => Fault::JunkInPadding,
            PageFault::Torn => Fault::Torn,
        };
        if let Some((bad, error)) = self.unreadable_in(&range) {
            self.report_unreadable(range.start);
            self.unreadable_piece(&range, &bad, &error);
            return;
        }
        if self.copy_of.is_some() {
            self.after_damage = true;
            return;
        }
        let fragment = flip.map(|flip| NewFragment {
            range: range.clone(),
            head: flip.header.head,
            flipped: Some(FlippedBit {
                at: page + flip.at as u64,
                mask: flip.mask,
                tried: flip.tried,
                range: range.clone(),
                fault: fault.clone(),
            }),
        });
        match fragment {
            Some(fragment)
                if self.fits(fragment.head.kind(), &fragment.range) && self.has_no_flipped_bit() =>
            {
                self.accept(fragment);
            }
            _ => self.damage(range, fault),
        }
    }

    /// Nothing more is read: all from `start` on.
    fn give_up(&mut self, start: u64) {
        (self.open, self.zeros, self.zero_tail) = (None, None, None);
        self.damage(start..self.window.length(), Fault::NotRead);
        self.flush_pending();
        self.finished = true;
    }

    fn finish(&mut self) {
        self.finished = true;
        self.leave_page();
        let zeros = self.zeros.take();
        self.zero_tail = None;
        self.abandon_open();
        if let Some(zeros) = zeros {
            self.damage(zeros, Fault::TrailingZeros);
        }
        if let Some(from) = self.window.shrunk_from() {
            self.damage(self.window.length()..from, Fault::Shrunk { from });
        }
        self.flush_pending();
    }
}
