//! The salvage reader: every record of a segment that can be proven, and every byte that cannot.
//!
//! It never stops. Where Prometheus's reader (`tsdb/wlog/reader.go`) gives up at the first fault, this one takes up
//! again inside the page where fragments prove themselves ([`super::page`]), else at the next page. It is stricter
//! in one thing: a record that is begun must go on at the very next byte, else it is given up. Prometheus passes over zeros
//! there, and joins what does not belong together.
//!
//! What a record says is not this room's business. Where only that can decide, the reader says what it has:
//! a [`Correction`] is a candidate, and a record of several fragments tells where these stand, since no
//! checksum covers their order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

use super::compress::{self, MAX_RECORD, UnpackError, Unpacker};
use super::layout::{
    Compression, FragmentType, HEADER_SIZE, HeadByte, PAGE, PAGE_SIZE, page_end, page_start,
};
use super::page::{self, Flip, PageFault, Piece, stands_well};
use super::source::{ReadAt, Window};

/// What the reader found next.
#[derive(Debug)]
pub enum Event<'a> {
    /// A record whose fragments are whole.
    Record(Record<'a>),
    /// Bytes that are not, and what is lost with them.
    Damage(Damage),
}

/// A record, as logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where the header of its first fragment begins.
    pub offset: u64,
    /// Where its last fragment ends: the offset that Prometheus reports for it.
    pub end: u64,
    /// The first byte of its last fragment.
    pub head: HeadByte,
    /// As that byte says.
    pub compression: Compression,
    /// Unpacked.
    pub data: &'a [u8],
    /// Where its fragments stand, headers included. That several belong together is only known from what the
    /// record says, or from a checksum within it.
    pub fragments: &'a [Range<u64>],
    /// Whether a checksum within it covers it as a whole.
    pub has_own_checksum: bool,
    /// Whether it begins or ends in a page that is a copy of an earlier one.
    pub in_copy: bool,
    /// Whether its fragments do not agree on the compression; Prometheus believes the last.
    pub flags_disagree: bool,
}

impl Record<'_> {
    /// Whether it has more than one fragment.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.fragments.len() > 1
    }

    /// Where in its stored bytes one fragment's data ends and the next one's begins.
    pub fn joints(&self) -> impl Iterator<Item = usize> {
        let ends = self.fragments.iter().scan(0, |at, fragment| {
            *at += in_page_len(fragment) - HEADER_SIZE;
            Some(*at)
        });
        ends.take(self.fragments.len() - 1)
    }
}

/// Damaged bytes, and what is lost with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The damaged bytes themselves.
    pub range: Range<u64>,
    /// What is wrong with them.
    pub fault: Fault,
    /// Whole fragments elsewhere that belong to a record of which a part is damaged, in order.
    pub orphans: Vec<Range<u64>>,
    /// What one flipped bit would explain. A candidate: somebody who knows what records say has to agree.
    pub correction: Option<Box<Correction>>,
    /// How many places in a row this is; more than one where the same is wrong with all.
    pub places: u64,
}

/// What is wrong with damaged bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Data without the checksum of its header.
    Checksum {
        /// Of the data.
        computed: u32,
        /// In the header.
        stored: u32,
    },
    /// A header that claims data beyond its page.
    Length(u16),
    /// A header whose type is none, or cannot stand where it stands.
    Type(FragmentType),
    /// Something else than zeros up to a page end.
    JunkInPadding,
    /// Pages of zeros, with something behind them.
    ZeroedPages,
    /// Zeros of at least a header's size up to the end of a page, with something behind that page.
    ZeroedTail,
    /// Pages of zeros at the end of the segment.
    TrailingZeros,
    /// A record that is begun and not gone on with.
    Unfinished,
    /// The rest of a record whose beginning is not there.
    Headless,
    /// The file ends within a fragment.
    Torn,
    /// The fragments are whole and do not unpack.
    Unpack(UnpackError),
    /// A page that is the same as an earlier one.
    DuplicatedPage {
        /// Where the earlier one begins.
        original: u64,
    },
    /// From here on nothing is read: the records before unpack to too much, see [`compress::allowance`].
    NotRead,
    /// The medium does not give these bytes, and what the system says about the first of them.
    Unreadable(String),
    /// The file has become shorter while it was read.
    Shrunk {
        /// Bytes it had at first.
        from: u64,
    },
}

/// One bit that, flipped back, gives a whole record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The byte, as an offset in the segment.
    pub at: u64,
    /// The bit in it.
    pub mask: u8,
    /// How many corrections were tried.
    pub tried: u32,
    /// Bytes under the checksum that the correction makes fit; 0 if it fitted before.
    pub covered: u64,
    /// Where the record's first fragment begins.
    pub offset: u64,
    /// Where its last fragment ends.
    pub end: u64,
    /// Of the record.
    pub compression: Compression,
    /// Whether a checksum within the record covers it as a whole.
    pub has_own_checksum: bool,
    /// The record, unpacked.
    pub data: Vec<u8>,
}

/// Reads one segment.
#[derive(Debug)]
pub struct SegmentReader<S> {
    window: Window<S>,
    unpacker: Unpacker,
    /// Where the next piece begins.
    at: u64,
    /// The page whose beginning has been looked at.
    entered: Option<u64>,
    open: Option<Open>,
    /// The stored bytes of the open record.
    scratch: Vec<u8>,
    /// Since the last damage nothing has begun: what continues here belongs to what is lost.
    after_damage: bool,
    /// A run of zeroed pages of which the end is not known.
    zeros: Option<Range<u64>>,
    /// Zeros at the end of a page, until it is known whether a page follows.
    zero_tail: Option<Range<u64>>,
    pending: Option<Damage>,
    ready: VecDeque<Damage>,
    stashed: Option<Found>,
    /// Fragments of the record that was lent last.
    parts: Vec<Range<u64>>,
    pages: HashMap<[u64; 3], u64>,
    alike: Vec<(u64, u64)>,
    /// The page being read is a copy of the one there.
    copy_of: Option<u64>,
    /// Unreadable bytes before here have been told of.
    unreadable_told: u64,
    finished: bool,
    data_end: u64,
    /// Fragments of which the type is taken as it stands.
    as_they_stand: HashSet<u64>,
}

#[derive(Debug)]
struct Open {
    parts: Vec<Range<u64>>,
    first_head: HeadByte,
    flags_disagree: bool,
    in_copy: bool,
    mend: Option<Mend>,
    /// Its stored bytes so far. Those beyond [`MAX_RECORD`] are not kept.
    stored: u64,
}

/// A damaged fragment that is taken as if a bit of it were flipped back.
#[derive(Clone, Debug)]
struct Mend {
    at: u64,
    mask: u8,
    tried: u32,
    range: Range<u64>,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the window, at this range of the segment.
    Window { start: u64, end: u64 },
    /// In `scratch`.
    Scratch,
    /// Nowhere: so many bytes are more than a record has.
    TooLarge(u64),
}

#[derive(Debug)]
struct Found {
    parts: Vec<Range<u64>>,
    head: HeadByte,
    place: Place,
    in_copy: bool,
    flags_disagree: bool,
}

impl Found {
    fn range(&self) -> Range<u64> {
        self.parts.first().map_or(0, |first| first.start)..self.parts.last().map_or(0, |last| last.end)
    }
}

/// One fragment on its way into a record; offsets in the segment.
struct Part {
    range: Range<u64>,
    head: HeadByte,
    mend: Option<Mend>,
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
            parts: Vec::new(),
            pages: HashMap::new(),
            alike: Vec::new(),
            copy_of: None,
            unreadable_told: 0,
            finished: false,
            data_end: 0,
            as_they_stand: HashSet::new(),
        }
    }

    /// Takes the fragments at these offsets as their headers have them, though with one bit of the type flipped they
    /// would fit better: for a second reading, when that has led to no record.
    #[must_use]
    pub fn taking_as_they_stand(mut self, fragments: HashSet<u64>) -> Self {
        self.as_they_stand = fragments;
        self
    }

    /// Where the last whole record ends, of those found so far.
    #[must_use]
    pub fn data_end(&self) -> u64 {
        self.data_end
    }

    /// Bytes of the segment, as far as they are known.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.window.length()
    }

    /// The next record or damage, in the order of offsets, but for one thing: a page that is a copy is told of before
    /// the record that is open when it begins. `None` at the end of the segment.
    #[expect(clippy::should_implement_trait, reason = "what it lends lives until the next call")]
    pub fn next(&mut self) -> Option<Event<'_>> {
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
            } else if self.finished {
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
                    self.tell_unreadable(range.start);
                    self.unreadable_piece(&range, &bad, &error);
                    return;
                }
                self.fragment(Part { range, head: header.head, mend: None });
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
        self.copy_of = self.earlier_copy(offset);
        if let Some(original) = self.copy_of {
            let end = offset + self.window.page(offset).len() as u64;
            self.settle_zeros();
            self.damage(offset..end, Fault::DuplicatedPage { original });
        }
    }

    fn leave_page(&mut self) {
        self.tell_unreadable(self.at);
    }

    /// What the medium did not give before `end` and no damaged fragment has told of: within a record that is whole
    /// all the same, since zeros are what stands there.
    fn tell_unreadable(&mut self, end: u64) {
        if let Some((bad, error)) = self.unreadable_in(&(self.unreadable_told..end)) {
            for hole in bad {
                self.damage(hole, Fault::Unreadable(error.clone()));
            }
        }
        self.unreadable_told = self.unreadable_told.max(end);
    }

    /// An earlier page with the same bytes, in which a record begins. Pages from the midst of records may be alike by
    /// right (two scrapes without a change), and are only noted.
    fn earlier_copy(&mut self, offset: u64) -> Option<u64> {
        let page = self.window.page(offset);
        let contents = look_into(page);
        if page.len() < PAGE_SIZE || contents == PageContents::Nothing {
            return None;
        }
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| page[at + i]));
        let key = [word(0), word(PAGE_SIZE / 2), word(PAGE_SIZE - 8)];
        let Some(&earlier) = self.pages.get(&key) else {
            self.pages.insert(key, offset);
            return None;
        };
        let mut other = Vec::new();
        self.window.other_page(earlier, &mut other);
        if self.window.page(offset) != other {
            return None;
        }
        if contents == PageContents::MidstOfRecord {
            self.alike.push((earlier, offset));
            return None;
        }
        Some(earlier)
    }

    /// Pages from the midst of records that are the same as earlier ones: offsets of the earlier and the later.
    #[must_use]
    pub fn alike(&self) -> &[(u64, u64)] {
        &self.alike
    }

    fn padding(&mut self, range: Range<u64>) {
        if let Some((bad, error)) = self.unreadable_in(&range) {
            // Zeros only because nothing could be read.
            self.settle_zeros();
            self.tell_unreadable(range.start);
            for hole in bad {
                self.damage(hole, Fault::Unreadable(error.clone()));
            }
            self.unreadable_told = range.end;
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

    /// Zeros have been passed over and something follows them.
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
            self.tell_unreadable(range.start);
            self.unreadable_piece(&range, &bad, &error);
            return;
        }
        if self.copy_of.is_some() {
            self.after_damage = true;
            return;
        }
        let part = flip.map(|flip| Part {
            range: range.clone(),
            head: flip.header.head,
            mend: Some(Mend {
                at: page + flip.at as u64,
                mask: flip.mask,
                tried: flip.tried,
                range: range.clone(),
                fault: fault.clone(),
            }),
        });
        match part {
            Some(part) if self.fits(part.head.kind(), &part.range) && self.not_mended_yet() => {
                self.accept(part);
            }
            _ => self.damage(range, fault),
        }
    }

    fn unreadable_in(&self, range: &Range<u64>) -> Option<(Vec<Range<u64>>, String)> {
        let error = self.window.read_error()?;
        let bad: Vec<_> = self
            .window
            .unreadable()
            .iter()
            .map(|bad| bad.start.max(range.start)..bad.end.min(range.end))
            .filter(|bad| bad.start < bad.end)
            .collect();
        (!bad.is_empty()).then(|| (bad, error.to_owned()))
    }

    /// A damaged fragment with unreadable bytes in it: these are the damage, the rest of it goes with them.
    fn unreadable_piece(&mut self, range: &Range<u64>, bad: &[Range<u64>], error: &str) {
        // What is open goes on in this fragment, wherever in it the first hole is.
        let mut begun = match self.open.take() {
            Some(open) if open.mend.is_none() && open.parts.last().is_some_and(|p| p.end == range.start) => {
                open.parts
            }
            open => {
                self.open = open;
                Vec::new()
            }
        };
        let mut from = range.start;
        for hole in bad {
            match std::mem::take(&mut begun) {
                none if none.is_empty() => self.damage(hole.clone(), Fault::Unreadable(error.to_owned())),
                orphans => self.damage_with(hole.clone(), Fault::Unreadable(error.to_owned()), orphans),
            }
            if from < hole.start {
                self.orphan(from..hole.start);
            }
            from = hole.end;
        }
        if from < range.end {
            self.orphan(from..range.end);
        }
        self.unreadable_told = range.end;
    }

    fn not_mended_yet(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.mend.is_none())
    }

    /// Whether a fragment of that type, standing there, goes on with what is open, or begins where nothing is.
    fn fits(&self, kind: FragmentType, range: &Range<u64>) -> bool {
        let continues =
            self.open.as_ref().is_some_and(|open| open.parts.last().is_some_and(|p| p.end == range.start));
        match kind {
            FragmentType::Full | FragmentType::First => self.open.is_none(),
            FragmentType::Middle | FragmentType::Last => continues,
            FragmentType::PageTerm | FragmentType::Invalid(_) => false,
        }
    }

    fn fragment(&mut self, part: Part) {
        self.settle_zeros();
        let kind = part.head.kind();
        if self.copy_of.is_some() {
            self.fragment_of_copy(part);
        } else if self.fits(kind, &part.range) {
            self.accept(part);
        } else {
            self.misfit(part);
        }
    }

    /// Of a page that is a copy nothing is taken but what a neighbouring page begins or ends, in case that this
    /// page is the original.
    fn fragment_of_copy(&mut self, part: Part) {
        let (kind, start, end) = (part.head.kind(), in_page(part.range.start), part.range.end);
        let crosses = match kind {
            FragmentType::Middle | FragmentType::Last => start == 0 && self.fits(kind, &part.range),
            FragmentType::First => self.open.is_none() && end == page_end(part.range.start),
            _ => false,
        };
        if crosses {
            self.accept(part);
        } else {
            self.abandon_open();
            self.after_damage = true;
        }
    }

    fn misfit(&mut self, part: Part) {
        let kind = part.head.kind();
        let (start, end) = (in_page(part.range.start), in_page(part.range.start) + in_page_len(&part.range));
        if self.after_damage && kind.continues() && stands_well(kind, start, end) {
            self.orphan(part.range);
            return;
        }
        let page = page_start(part.range.start);
        if self.not_mended_yet()
            && !self.as_they_stand.contains(&part.range.start)
            && let Some(head) = self.other_type(&part, page)
        {
            let mend = Mend {
                at: part.range.start,
                mask: head.0 ^ part.head.0,
                tried: 3,
                range: part.range.clone(),
                fault: Fault::Type(kind),
            };
            self.accept(Part { head, mend: Some(mend), ..part });
        } else if kind.begins() {
            self.abandon_open();
            self.accept(part);
        } else {
            self.abandon_open();
            let fault = if kind.continues() { Fault::Headless } else { Fault::Type(kind) };
            self.damage(part.range, fault);
        }
    }

    /// The one type, a single bit away, that fits where the fragment stands.
    fn other_type(&mut self, part: &Part, page: u64) -> Option<HeadByte> {
        let start = in_page(part.range.start);
        let end = start + in_page_len(&part.range);
        let goes_on = end == PAGE_SIZE && self.next_page_continues(page);
        let bits = part.head.kind().bits();
        let mut fitting = (1..=4u8).filter(|other| (other ^ bits).is_power_of_two()).filter_map(|other| {
            let kind = FragmentType::from_bits(other);
            let wants_more = matches!(kind, FragmentType::First | FragmentType::Middle);
            let head = HeadByte(part.head.0 ^ bits ^ other);
            let fits = stands_well(kind, start, end)
                && self.fits(kind, &part.range)
                && wants_more == goes_on
                && (end > start + HEADER_SIZE)
                && head.is_canonical();
            fits.then_some(head)
        });
        let only = fitting.next()?;
        fitting.next().is_none().then_some(only)
    }

    fn next_page_continues(&mut self, page: u64) -> bool {
        let next = self.window.page(page + PAGE);
        let continues = matches!(
            page::piece(next, 0),
            Some(Piece::Fragment { header, .. }) if header.head.kind().continues()
        );
        // The window may have moved; the page being read must be in it again.
        self.window.page(page);
        continues
    }

    /// The list for a full record, without a new allocation for each.
    fn one_part(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        parts.push(range);
        parts
    }

    /// A fragment that fits. Its bytes are in the window.
    fn accept(&mut self, part: Part) {
        let kind = part.head.kind();
        let data = part.range.start + HEADER_SIZE as u64..part.range.end;
        let in_copy = self.copy_of.is_some();
        self.after_damage = false;
        if kind == FragmentType::Full && part.mend.is_none() {
            self.flush_pending();
            self.stashed = Some(Found {
                parts: self.one_part(part.range),
                head: part.head,
                place: Place::Window { start: data.start, end: data.end },
                in_copy,
                flags_disagree: false,
            });
            return;
        }
        if kind.begins() {
            self.scratch.clear();
        }
        let from = self.scratch.len();
        if from + in_page_len(&data) <= MAX_RECORD {
            self.scratch.extend_from_slice(self.window.loaded(&data));
        }
        if let Some(mend) = part.mend.as_ref().filter(|mend| data.contains(&mend.at))
            && let Some(byte) =
                usize::try_from(mend.at - data.start).ok().and_then(|i| self.scratch.get_mut(from + i))
        {
            *byte ^= mend.mask;
        }
        let open = self.open.get_or_insert_with(|| Open {
            parts: Vec::new(),
            first_head: part.head,
            flags_disagree: false,
            in_copy: false,
            mend: None,
            stored: 0,
        });
        open.stored += data.end - data.start;
        open.flags_disagree |= open.first_head.compression() != part.head.compression();
        open.in_copy |= in_copy;
        open.parts.push(part.range);
        open.mend = open.mend.take().or(part.mend);
        if matches!(kind, FragmentType::Full | FragmentType::Last) {
            self.complete(part.head);
        }
    }

    /// The open record has its last fragment.
    fn complete(&mut self, head: HeadByte) {
        let Some(open) = self.open.take() else { return };
        let is_kept = self.scratch.len() as u64 == open.stored;
        let found = Found {
            parts: open.parts,
            head,
            place: if is_kept { Place::Scratch } else { Place::TooLarge(open.stored) },
            in_copy: open.in_copy,
            flags_disagree: open.flags_disagree,
        };
        match open.mend {
            None => {
                self.flush_pending();
                self.stashed = Some(found);
            }
            Some(mend) => {
                let orphans = found.parts.iter().filter(|&part| *part != mend.range).cloned().collect();
                self.damage_with(mend.range.clone(), mend.fault.clone(), orphans);
                let correction = self.correction(&found, &mend);
                if let Some(pending) = &mut self.pending {
                    pending.correction = correction.map(Box::new);
                }
                // The record is done with: what follows stands on its own.
                self.flush_pending();
                self.after_damage = false;
            }
        }
    }

    fn correction(&mut self, found: &Found, mend: &Mend) -> Option<Correction> {
        if let Place::TooLarge(_) = found.place {
            return None;
        }
        let compression = found.head.compression();
        let has_own_checksum = compress::has_own_checksum(compression, &self.scratch);
        let data = self.unpacker.unpack(compression, &self.scratch).ok()?.to_vec();
        let range = found.range();
        let covered = match mend.fault {
            Fault::Checksum { .. } | Fault::Length(_) => {
                mend.range.end - mend.range.start - HEADER_SIZE as u64
            }
            _ => 0,
        };
        Some(Correction {
            at: mend.at,
            mask: mend.mask,
            tried: mend.tried,
            covered,
            offset: range.start,
            end: range.end,
            compression,
            has_own_checksum,
            data,
        })
    }

    fn unpack(&mut self, found: &Found) -> Result<(), UnpackError> {
        if let Place::TooLarge(bytes) = found.place {
            return Err(UnpackError::TooLarge(bytes));
        }
        let stored = stored_bytes(&self.window, &self.scratch, found.place);
        self.unpacker.unpack(found.head.compression(), stored).map(drop)
    }

    fn record(&mut self, found: Found) -> Record<'_> {
        let range = found.range();
        self.data_end = range.end;
        self.parts = found.parts;
        let stored = stored_bytes(&self.window, &self.scratch, found.place);
        let compression = found.head.compression();
        let data = match compression {
            Compression::None => stored,
            _ => self.unpacker.unpacked(),
        };
        Record {
            offset: range.start,
            end: range.end,
            head: found.head,
            compression,
            data,
            fragments: &self.parts,
            has_own_checksum: compress::has_own_checksum(compression, stored),
            in_copy: found.in_copy,
            flags_disagree: found.flags_disagree,
        }
    }

    /// Nothing more is read: all from `start` on.
    fn give_up(&mut self, start: u64) {
        (self.open, self.zeros, self.zero_tail) = (None, None, None);
        self.damage(start..self.window.length(), Fault::NotRead);
        self.flush_pending();
        self.finished = true;
    }

    /// The fragments are whole and their record is not: perhaps a bit of the flags of the last one.
    fn does_not_unpack(&mut self, found: &Found, error: UnpackError) {
        let stored = stored_bytes(&self.window, &self.scratch, found.place).to_vec();
        let mut fitting = Vec::new();
        let flags: &[u8] = match found.place {
            Place::TooLarge(_) => &[],
            _ => &[Compression::Snappy.bits(), Compression::Zstd.bits()],
        };
        for &mask in flags {
            let head = HeadByte(found.head.0 ^ mask);
            let compression = head.compression();
            if head.is_canonical()
                && compression != found.head.compression()
                && let Ok(data) = self.unpacker.unpack(compression, &stored)
            {
                fitting.push((mask, compression, data.to_vec()));
            }
        }
        let range = found.range();
        let last = found.parts.last().map_or(range.start, |last| last.start);
        self.damage(range.clone(), Fault::Unpack(error));
        let correction = match fitting.len() {
            1 => fitting.pop().map(|(mask, compression, data)| {
                Box::new(Correction {
                    at: last,
                    mask,
                    tried: 2,
                    covered: 0,
                    offset: range.start,
                    end: range.end,
                    compression,
                    has_own_checksum: compress::has_own_checksum(compression, &stored),
                    data,
                })
            }),
            _ => None,
        };
        if let Some(pending) = &mut self.pending {
            pending.correction = correction;
        }
        self.flush_pending();
        self.after_damage = false;
    }

    /// Gives up the open record: it was begun and is not gone on with.
    fn abandon_open(&mut self) {
        let Some(open) = self.open.take() else { return };
        match open.mend {
            Some(mend) => {
                let orphans = open.parts.into_iter().filter(|part| *part != mend.range).collect();
                self.damage_with(mend.range, mend.fault, orphans);
            }
            None if open.in_copy && open.parts.len() == 1 => self.after_damage = true,
            None => {
                let (Some(first), Some(last)) = (open.parts.first(), open.parts.last()) else { return };
                self.damage_with(first.start..last.end, Fault::Unfinished, Vec::new());
            }
        }
    }

    /// `range` is damaged; an open record that would have gone on there is lost with it.
    fn damage(&mut self, range: Range<u64>, fault: Fault) {
        let goes_with = |open: &Open| {
            open.mend.is_none()
                && open.parts.last().is_some_and(|last| last.end == range.start)
                && !matches!(fault, Fault::Unfinished | Fault::DuplicatedPage { .. })
        };
        if matches!(fault, Fault::DuplicatedPage { .. }) {
            self.damage_with(range, fault, Vec::new());
            return;
        }
        let orphans = match self.open.take() {
            Some(open) if goes_with(&open) => open.parts,
            Some(open) => {
                self.open = Some(open);
                self.abandon_open();
                Vec::new()
            }
            None => Vec::new(),
        };
        self.damage_with(range, fault, orphans);
    }

    fn damage_with(&mut self, range: Range<u64>, fault: Fault, orphans: Vec<Range<u64>>) {
        self.after_damage = true;
        if let Some(pending) = &mut self.pending
            && pending.correction.is_none()
            && orphans.is_empty()
            && continues_damage(pending, &range, &fault)
        {
            pending.range.end = range.end;
            pending.places += 1;
            return;
        }
        self.flush_pending();
        self.pending = Some(Damage { range, fault, orphans, correction: None, places: 1 });
    }

    fn orphan(&mut self, range: Range<u64>) {
        match &mut self.pending {
            Some(pending) => pending.orphans.push(range),
            None => self.damage(range, Fault::Headless),
        }
        self.after_damage = true;
    }

    fn flush_pending(&mut self) {
        self.ready.extend(self.pending.take());
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

fn stored_bytes<'a, S: ReadAt>(window: &'a Window<S>, scratch: &'a [u8], place: Place) -> &'a [u8] {
    match place {
        Place::Window { start, end } => window.loaded(&(start..end)),
        Place::Scratch => scratch,
        Place::TooLarge(_) => &[],
    }
}

/// The same trouble, right behind the last: one damage. Pages of which each is damaged from its beginning to its end are
/// one stretch, whatever is wrong with the bytes at the beginning of each.
fn continues_damage(last: &Damage, range: &Range<u64>, fault: &Fault) -> bool {
    if last.range.end != range.start || !last.orphans.is_empty() {
        return false;
    }
    let overwritten = |fault: &Fault| {
        matches!(fault, Fault::Checksum { .. } | Fault::Length(_) | Fault::JunkInPadding | Fault::Torn)
    };
    match (&last.fault, fault) {
        (Fault::Unreadable(a), Fault::Unreadable(b)) => a == b,
        (Fault::Headless, Fault::Headless) => true,
        (Fault::DuplicatedPage { original }, Fault::DuplicatedPage { original: next }) => {
            *original + (last.range.end - last.range.start) == *next
        }
        (a, b) => overwritten(a) && overwritten(b) && range.start.is_multiple_of(PAGE),
    }
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
    let header = super::layout::Header::parse(rest)?;
    let data = rest.get(HEADER_SIZE..header.size())?;
    (header.head.kind() != FragmentType::PageTerm).then_some(Piece::Fragment { start: at, header, data })
}

fn in_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE).unwrap_or(0)
}

fn in_page_len(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(PAGE_SIZE)
}
