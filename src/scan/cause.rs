//! What was most likely done to damaged bytes: their own look shows it.

use std::fs::File;

use super::report::Cause;
use super::salvage::{Problem, ProblemKind};
use crate::wal::layout::{HEADER_SIZE, Header, page_end};
use crate::wal::source::read_available;
use crate::wal::{Fault, PAGE_SIZE};

/// What a disk writes as a whole, in bytes: a write that is cut short is cut at a multiple of it.
const SECTOR: u64 = 512;

/// What the damaged bytes look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    /// The likely cause.
    pub(super) cause: Option<Cause>,
    /// The damaged range is what the header at its beginning says: one fragment, of one record.
    pub(super) one_fragment: bool,
    /// There are zeros from here to the end of the range, or to the end of its page.
    pub(super) zeros_from: Option<u64>,
}

/// Looks at the bytes of a problem.
pub(super) fn look(file: &File, problem: &Problem) -> Evidence {
    let range = &problem.range;
    let most = (4 * PAGE_SIZE) as u64;
    let bytes = read(file, range.start, range.end.min(range.start + most));
    let mut evidence = Evidence {
        one_fragment: Header::parse(&bytes)
            .is_some_and(|header| header.size() as u64 == range.end - range.start),
        ..Evidence::default()
    };
    // Zeros that continue after the damaged fragment belong to what never came.
    let rest = read(file, range.end, page_end(range.end.saturating_sub(1)));
    let zeros = if rest.iter().all(|&byte| byte == 0) {
        bytes.iter().rev().take_while(|&&byte| byte == 0).count() as u64
    } else {
        0
    };
    if zeros > 0 && bytes.len() as u64 == range.end - range.start {
        evidence.zeros_from = Some(range.end - zeros);
    }
    evidence.cause = Some(cause(problem, &bytes, evidence.zeros_from));
    evidence
}

fn cause(problem: &Problem, bytes: &[u8], zeros_from: Option<u64>) -> Cause {
    if problem.correction.is_some() {
        return Cause::OneFlippedBit;
    }
    let fault = match &problem.kind {
        ProblemKind::Framing(fault) => fault,
        ProblemKind::Flags => return Cause::OneFlippedBit,
        ProblemKind::Decode(_) | ProblemKind::Spliced(_) => return Cause::WrittenWrong,
    };
    match fault {
        Fault::Unreadable(_) => Cause::Unreadable,
        Fault::Shrunk { .. } => Cause::CutWhileRead,
        Fault::DuplicatedPage { .. } => Cause::DuplicatedPage,
        Fault::ZeroedPages | Fault::ZeroedTail | Fault::TrailingZeros => Cause::NeverWritten,
        Fault::Torn => Cause::TornByCrash,
        Fault::Unfinished if problem.at_tail => Cause::TornByCrash,
        Fault::Unfinished => Cause::AbandonedWrite,
        Fault::Unpack(_) | Fault::NotRead => Cause::WrittenWrong,
        Fault::Checksum { .. } | Fault::Length(_) | Fault::JunkInPadding => {
            let first_sector = problem.range.start.next_multiple_of(SECTOR);
            match zeros_from {
                // The header alone arrived, or the sectors up to here.
                Some(from) if from <= problem.range.start + HEADER_SIZE as u64 => Cause::NeverWritten,
                Some(from) if from <= problem.range.end.saturating_sub(SECTOR) || from <= first_sector => {
                    Cause::HalfWritten
                }
                _ if holds_zeroed_sector(bytes, problem.range.start) => Cause::NeverWritten,
                Some(_) if problem.at_tail => Cause::HalfWritten,
                _ => Cause::Overwritten,
            }
        }
        Fault::Type(_) | Fault::Headless => Cause::Overwritten,
    }
}

/// Whether a sector of zeros is in the bytes that begin at `start` of the file.
fn holds_zeroed_sector(bytes: &[u8], start: u64) -> bool {
    let skip = usize::try_from(start.next_multiple_of(SECTOR) - start).unwrap_or(0);
    bytes
        .get(skip..)
        .unwrap_or_default()
        .chunks_exact(usize::try_from(SECTOR).unwrap_or(512))
        .any(|sector| sector.iter().all(|&byte| byte == 0))
}

/// As many of these bytes as can be read.
fn read(file: &File, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
    let (filled, _) = read_available(file, &mut bytes, start);
    bytes.truncate(filled);
    bytes
}
