//! Joins fragments into records.

use std::ops::Range;

use super::SegmentReader;
use crate::wal::compress::{self, MAX_RECORD, UnpackError};
use crate::wal::layout::{
    Compression, FragmentType, HEADER_SIZE, HeadByte, in_page, in_page_len, page_end, page_start,
};
use crate::wal::page::is_in_place;
use crate::wal::source::{ReadAt, Window};
use crate::wal::{Fault, Record};

#[derive(Debug)]
pub(super) struct OpenRecord {
    pub(super) fragments: Vec<Range<u64>>,
    pub(super) first_head: HeadByte,
    pub(super) flags_disagree: bool,
    pub(super) in_copy: bool,
    pub(super) flipped: Option<FlippedBit>,
    /// Its stored bytes so far. Those beyond [`MAX_RECORD`] are not kept.
    pub(super) stored: u64,
}

/// A damaged fragment that is taken as if a bit of it were flipped back.
#[derive(Clone, Debug)]
pub(super) struct FlippedBit {
    pub(super) at: u64,
    pub(super) mask: u8,
    pub(super) tried: u32,
    pub(super) range: Range<u64>,
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum StoredAt {
    /// In the window, at this range of the segment.
    Window { start: u64, end: u64 },
    /// In `scratch`.
    Scratch,
    /// Nowhere: so many bytes are more than a record has.
    TooLarge(u64),
}

#[derive(Debug)]
pub(super) struct JoinedRecord {
    pub(super) fragments: Vec<Range<u64>>,
    pub(super) head: HeadByte,
    pub(super) place: StoredAt,
    pub(super) in_copy: bool,
    pub(super) flags_disagree: bool,
}

impl JoinedRecord {
    pub(super) fn range(&self) -> Range<u64> {
        self.fragments.first().map_or(0, |first| first.start)
            ..self.fragments.last().map_or(0, |last| last.end)
    }
}

/// One fragment on its way into a record; offsets in the segment.
pub(super) struct NewFragment {
    pub(super) range: Range<u64>,
    pub(super) head: HeadByte,
    pub(super) flipped: Option<FlippedBit>,
}

impl<S: ReadAt> SegmentReader<S> {
    pub(super) fn has_no_flipped_bit(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.flipped.is_none())
    }

    /// Whether a fragment of that type, at that place, continues what is open, or begins where nothing is.
    pub(super) fn fits(&self, kind: FragmentType, range: &Range<u64>) -> bool {
        let continues = self
            .open
            .as_ref()
            .is_some_and(|open| open.fragments.last().is_some_and(|p| p.end == range.start));
        match kind {
            FragmentType::Full | FragmentType::First => self.open.is_none(),
            FragmentType::Middle | FragmentType::Last => continues,
            FragmentType::PageTerm | FragmentType::Invalid(_) => false,
        }
    }

    pub(super) fn fragment(&mut self, fragment: NewFragment) {
        self.settle_zeros();
        let kind = fragment.head.kind();
        if self.copy_of.is_some() {
            self.fragment_of_copy(fragment);
        } else if self.fits(kind, &fragment.range) {
            self.accept(fragment);
        } else {
            self.misfit(fragment);
        }
    }

    /// Of a page that is a copy nothing is taken but what a neighbouring page begins or ends, in case that this
    /// page is the original.
    pub(super) fn fragment_of_copy(&mut self, fragment: NewFragment) {
        let (kind, start, end) = (fragment.head.kind(), in_page(fragment.range.start), fragment.range.end);
        let crosses = match kind {
            FragmentType::Middle | FragmentType::Last => start == 0 && self.fits(kind, &fragment.range),
            FragmentType::First => self.open.is_none() && end == page_end(fragment.range.start),
            _ => false,
        };
        if crosses {
            self.accept(fragment);
        } else {
            self.abandon_open();
            self.after_damage = true;
        }
    }

    pub(super) fn misfit(&mut self, fragment: NewFragment) {
        let kind = fragment.head.kind();
        let (start, end) =
            (in_page(fragment.range.start), in_page(fragment.range.start) + in_page_len(&fragment.range));
        if self.after_damage && kind.continues() && is_in_place(kind, start, end) {
            self.orphan(fragment.range);
            return;
        }
        let page = page_start(fragment.range.start);
        if self.has_no_flipped_bit()
            && !self.taken_as_they_are.contains(&fragment.range.start)
            && let Some(head) = self.other_type(&fragment, page)
        {
            let flipped = FlippedBit {
                at: fragment.range.start,
                mask: head.0 ^ fragment.head.0,
                tried: 3,
                range: fragment.range.clone(),
                fault: Fault::Type(kind),
            };
            self.accept(NewFragment { head, flipped: Some(flipped), ..fragment });
        } else if kind.begins() {
            self.abandon_open();
            self.accept(fragment);
        } else {
            self.abandon_open();
            let fault = if kind.continues() { Fault::Headless } else { Fault::Type(kind) };
            self.damage(fragment.range, fault);
        }
    }

    /// The list for a full record, without a new allocation for each.
    pub(super) fn one_fragment(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut fragments = std::mem::take(&mut self.fragments);
        fragments.clear();
        fragments.push(range);
        fragments
    }

    /// A fragment that fits. Its bytes are in the window.
    pub(super) fn accept(&mut self, fragment: NewFragment) {
        let kind = fragment.head.kind();
        let data = fragment.range.start + HEADER_SIZE as u64..fragment.range.end;
        let in_copy = self.copy_of.is_some();
        self.after_damage = false;
        if kind == FragmentType::Full && fragment.flipped.is_none() {
            self.flush_pending();
            self.stashed = Some(JoinedRecord {
                fragments: self.one_fragment(fragment.range),
                head: fragment.head,
                place: StoredAt::Window { start: data.start, end: data.end },
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
        if let Some(flipped) = fragment.flipped.as_ref().filter(|flipped| data.contains(&flipped.at))
            && let Some(byte) =
                usize::try_from(flipped.at - data.start).ok().and_then(|i| self.scratch.get_mut(from + i))
        {
            *byte ^= flipped.mask;
        }
        let open = self.open.get_or_insert_with(|| OpenRecord {
            fragments: Vec::new(),
            first_head: fragment.head,
            flags_disagree: false,
            in_copy: false,
            flipped: None,
            stored: 0,
        });
        open.stored += data.end - data.start;
        open.flags_disagree |= open.first_head.compression() != fragment.head.compression();
        open.in_copy |= in_copy;
        open.fragments.push(fragment.range);
        open.flipped = open.flipped.take().or(fragment.flipped);
        if matches!(kind, FragmentType::Full | FragmentType::Last) {
            self.complete(fragment.head);
        }
    }

    /// The open record has its last fragment.
    pub(super) fn complete(&mut self, head: HeadByte) {
        let Some(open) = self.open.take() else { return };
        let is_kept = self.scratch.len() as u64 == open.stored;
        let found = JoinedRecord {
            fragments: open.fragments,
            head,
            place: if is_kept { StoredAt::Scratch } else { StoredAt::TooLarge(open.stored) },
            in_copy: open.in_copy,
            flags_disagree: open.flags_disagree,
        };
        match open.flipped {
            None => {
                self.flush_pending();
                self.stashed = Some(found);
            }
            Some(flipped) => {
                let orphans =
                    found.fragments.iter().filter(|&fragment| *fragment != flipped.range).cloned().collect();
                self.damage_with(flipped.range.clone(), flipped.fault.clone(), orphans);
                let correction = self.correction(&found, &flipped);
                if let Some(pending) = &mut self.pending {
                    pending.correction = correction.map(Box::new);
                }
                // The record is done with: what follows does not belong to it.
                self.flush_pending();
                self.after_damage = false;
            }
        }
    }

    pub(super) fn unpack(&mut self, found: &JoinedRecord) -> Result<(), UnpackError> {
        if let StoredAt::TooLarge(bytes) = found.place {
            return Err(UnpackError::TooLarge(bytes));
        }
        let stored = stored_bytes(&self.window, &self.scratch, found.place);
        self.unpacker.unpack(found.head.compression(), stored).map(drop)
    }

    pub(super) fn record(&mut self, found: JoinedRecord) -> Record<'_> {
        let range = found.range();
        self.data_end = range.end;
        self.fragments = found.fragments;
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
            fragments: &self.fragments,
            has_own_checksum: compress::has_own_checksum(compression, stored),
            in_copy: found.in_copy,
            flags_disagree: found.flags_disagree,
        }
    }

    /// Gives up the open record: it never continues.
    pub(super) fn abandon_open(&mut self) {
        let Some(open) = self.open.take() else { return };
        match open.flipped {
            Some(flipped) => {
                let orphans =
                    open.fragments.into_iter().filter(|fragment| *fragment != flipped.range).collect();
                self.damage_with(flipped.range, flipped.fault, orphans);
            }
            None if open.in_copy && open.fragments.len() == 1 => self.after_damage = true,
            None => {
                let (Some(first), Some(last)) = (open.fragments.first(), open.fragments.last()) else {
                    return;
                };
                self.damage_with(first.start..last.end, Fault::Unfinished, Vec::new());
            }
        }
    }
}

pub(super) fn stored_bytes<'a, S: ReadAt>(
    window: &'a Window<S>,
    scratch: &'a [u8],
    place: StoredAt,
) -> &'a [u8] {
    match place {
        StoredAt::Window { start, end } => window.loaded(&(start..end)),
        StoredAt::Scratch => scratch,
        StoredAt::TooLarge(_) => &[],
    }
}
