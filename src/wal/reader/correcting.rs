//! Looks for the one bit that, flipped back, gives an intact record.

use super::SegmentReader;
use super::joining::{FlippedBit, JoinedRecord, NewFragment, StoredAt, stored_bytes};
use crate::wal::compress::{self, UnpackError};
use crate::wal::layout::{
    Compression, FragmentType, HEADER_SIZE, HeadByte, PAGE, PAGE_SIZE, in_page, in_page_len,
};
use crate::wal::page::{self, Piece, is_in_place};
use crate::wal::source::ReadAt;
use crate::wal::{CandidateCorrection, Fault};

impl<S: ReadAt> SegmentReader<S> {
    /// The one type, a single bit away, that fits where the fragment is.
    pub(super) fn other_type(&mut self, fragment: &NewFragment, page: u64) -> Option<HeadByte> {
        let start = in_page(fragment.range.start);
        let end = start + in_page_len(&fragment.range);
        let goes_on = end == PAGE_SIZE && self.next_page_continues(page);
        let bits = fragment.head.kind().bits();
        let mut fitting = (1..=4u8).filter(|other| (other ^ bits).is_power_of_two()).filter_map(|other| {
            let kind = FragmentType::from_bits(other);
            let wants_more = matches!(kind, FragmentType::First | FragmentType::Middle);
            let head = HeadByte(fragment.head.0 ^ bits ^ other);
            let fits = is_in_place(kind, start, end)
                && self.fits(kind, &fragment.range)
                && wants_more == goes_on
                && (end > start + HEADER_SIZE)
                && head.is_canonical();
            fits.then_some(head)
        });
        let only = fitting.next()?;
        fitting.next().is_none().then_some(only)
    }

    pub(super) fn next_page_continues(&mut self, page: u64) -> bool {
        let next = self.window.page(page + PAGE);
        let continues = matches!(
            page::piece(next, 0),
            Some(Piece::Fragment { header, .. }) if header.head.kind().continues()
        );
        // The window may have moved; the page being read must be in it again.
        self.window.page(page);
        continues
    }

    pub(super) fn correction(
        &mut self,
        found: &JoinedRecord,
        flipped: &FlippedBit,
    ) -> Option<CandidateCorrection> {
        if let StoredAt::TooLarge(_) = found.place {
            return None;
        }
        let compression = found.head.compression();
        let has_own_checksum = compress::has_own_checksum(compression, &self.scratch);
        let data = self.unpacker.unpack(compression, &self.scratch).ok()?.to_vec();
        let range = found.range();
        let covered = match flipped.fault {
            Fault::Checksum { .. } | Fault::Length(_) => {
                flipped.range.end - flipped.range.start - HEADER_SIZE as u64
            }
            _ => 0,
        };
        Some(CandidateCorrection {
            at: flipped.at,
            mask: flipped.mask,
            tried: flipped.tried,
            covered,
            offset: range.start,
            end: range.end,
            compression,
            has_own_checksum,
            data,
        })
    }

    /// The fragments are intact and their record is not: perhaps a bit of the flags of the last one.
    pub(super) fn does_not_unpack(&mut self, found: &JoinedRecord, error: UnpackError) {
        let stored = stored_bytes(&self.window, &self.scratch, found.place).to_vec();
        let mut fitting = Vec::new();
        let flags: &[u8] = match found.place {
            StoredAt::TooLarge(_) => &[],
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
        let last = found.fragments.last().map_or(range.start, |last| last.start);
        self.damage(range.clone(), Fault::Unpack(error));
        let correction = match fitting.len() {
            1 => fitting.pop().map(|(mask, compression, data)| {
                Box::new(CandidateCorrection {
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
}
