//! What is read of a segment: records, and damage.

use std::ops::Range;

use super::compress::UnpackError;
use super::layout::{Compression, FragmentType, HEADER_SIZE, HeadByte, in_page_len};

/// What the reader found next.
#[derive(Debug)]
pub enum Event<'a> {
    /// A record whose fragments are intact.
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
    /// Where its fragments are, headers included. That several belong together is only known from what the
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
    /// Intact fragments elsewhere that belong to a record of which a part is damaged, in order.
    pub orphans: Vec<Range<u64>>,
    /// What one flipped bit would explain. A candidate: somebody who knows what records say has to agree.
    pub correction: Option<Box<CandidateCorrection>>,
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
    /// A header whose type is none, or cannot be where it is.
    Type(FragmentType),
    /// Something else than zeros up to a page end.
    JunkInPadding,
    /// Pages of zeros, with something after them.
    ZeroedPages,
    /// Zeros of at least a header's size up to the end of a page, with something after that page.
    ZeroedTail,
    /// Pages of zeros at the end of the segment.
    TrailingZeros,
    /// A record that starts but never continues.
    Unfinished,
    /// The continuation of a record whose start is missing.
    Headless,
    /// The file ends within a fragment.
    Torn,
    /// The fragments are intact and do not unpack.
    Unpack(UnpackError),
    /// A page that is the same as an earlier one.
    DuplicatedPage {
        /// Where the earlier one begins.
        original: u64,
    },
    /// From here on nothing is read: the records before unpack to too much, see [`allowance`](super::compress::allowance).
    NotRead,
    /// The medium does not give these bytes, and what the system says about the first of them.
    Unreadable(String),
    /// The file has become shorter while it was read.
    Shrunk {
        /// Bytes it had at first.
        from: u64,
    },
}

/// One bit that, flipped back, gives an intact record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateCorrection {
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
