//! The bytes of the log format: pages, fragment headers, limits.
//!
//! A segment is a sequence of pages without a file header; a page is a sequence of fragments, then zeros.
//!
//! ```text
//! fragment   0      1          3                 7                 7 + length
//!            +------+----------+-----------------+--------- - - ---+
//!            | head |  length  |     CRC-32C     |      data       |
//!            |  u8  |   BE16   |      BE32       |  length bytes   |
//!            +------+----------+-----------------+--------- - - ---+
//! head       bit 0-2 type   bit 3 snappy   bit 4 zstd   bit 5-7 unused (written as 0)
//! ```
//!
//! Source: Prometheus `tsdb/wlog/wlog.go` (`recType`, `snappyMask`, `zstdMask`, `WL.log`).

/// Bytes of a page. Only the last page of a segment may be shorter (`tsdb/wlog/wlog.go`, `pageSize`).
pub const PAGE_SIZE: usize = 32 * 1024;

/// [`PAGE_SIZE`] as an offset in a file.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// Bytes of a fragment header (`tsdb/wlog/wlog.go`, `recordHeaderSize`).
pub const HEADER_SIZE: usize = 7;

/// The most data bytes one fragment can hold: a page less one header.
pub const MAX_FRAGMENT_DATA: usize = PAGE_SIZE - HEADER_SIZE;

const TYPE_MASK: u8 = 0b0000_0111;
const SNAPPY: u8 = 0b0000_1000;
const ZSTD: u8 = 0b0001_0000;
const UNUSED: u8 = 0b1110_0000;

/// What a fragment is of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FragmentType {
    /// 0: no fragment; zeros up to the page end.
    PageTerm,
    /// 1: a complete record.
    Full,
    /// 2: the beginning of a record that continues in the next page.
    First,
    /// 3: a page in the midst of a record.
    Middle,
    /// 4: the end of a record.
    Last,
    /// 5 to 7: no writer makes these.
    Invalid(u8),
}

impl FragmentType {
    /// Of the low three bits of a header byte.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        match bits & TYPE_MASK {
            0 => Self::PageTerm,
            1 => Self::Full,
            2 => Self::First,
            3 => Self::Middle,
            4 => Self::Last,
            other => Self::Invalid(other),
        }
    }

    /// The low three bits of a header byte.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::PageTerm => 0,
            Self::Full => 1,
            Self::First => 2,
            Self::Middle => 3,
            Self::Last => 4,
            Self::Invalid(bits) => bits,
        }
    }

    /// Prometheus's word for it (`recType.String`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PageTerm => "zero",
            Self::Full => "full",
            Self::First => "first",
            Self::Middle => "middle",
            Self::Last => "last",
            Self::Invalid(_) => "<invalid>",
        }
    }

    /// Whether it begins a record.
    #[must_use]
    pub fn begins(self) -> bool {
        matches!(self, Self::Full | Self::First)
    }

    /// Whether it continues a record that an earlier fragment began.
    #[must_use]
    pub fn continues(self) -> bool {
        matches!(self, Self::Middle | Self::Last)
    }
}

/// How a whole record was packed before it was cut into fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// As it is.
    None,
    /// Snappy block format.
    Snappy,
    /// One or more zstd frames.
    Zstd,
}

impl Compression {
    /// The flag bits of a header byte.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Snappy => SNAPPY,
            Self::Zstd => ZSTD,
        }
    }

    /// Prometheus's word for it (`tsdb/compression`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

/// The first byte of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeadByte(pub u8);

impl HeadByte {
    /// As a writer makes it.
    #[must_use]
    pub fn new(kind: FragmentType, compression: Compression) -> Self {
        Self(kind.bits() | compression.bits())
    }

    /// The fragment's type.
    #[must_use]
    pub fn kind(self) -> FragmentType {
        FragmentType::from_bits(self.0)
    }

    /// The record's compression. Of both flags snappy wins, as in Prometheus's reader (`reader.go`, `nextNew`).
    #[must_use]
    pub fn compression(self) -> Compression {
        if self.0 & SNAPPY != 0 {
            Compression::Snappy
        } else if self.0 & ZSTD != 0 {
            Compression::Zstd
        } else {
            Compression::None
        }
    }

    /// Whether a writer could have made it: a known type, at most one flag, no unused bit.
    #[must_use]
    pub fn is_canonical(self) -> bool {
        self.0 & UNUSED == 0
            && self.0 & (SNAPPY | ZSTD) != (SNAPPY | ZSTD)
            && (1..=4).contains(&(self.0 & TYPE_MASK))
    }
}

/// A fragment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Type and flags.
    pub head: HeadByte,
    /// Bytes of data that follow the header.
    pub length: u16,
    /// CRC-32C of the data as stored. Neither this header nor the order of fragments is covered.
    pub crc: u32,
}

impl Header {
    /// Read from the first seven bytes of `bytes`; `None` where there are fewer.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[head, l0, l1, c0, c1, c2, c3] = bytes.first_chunk::<HEADER_SIZE>()?;
        Some(Self {
            head: HeadByte(head),
            length: u16::from_be_bytes([l0, l1]),
            crc: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }

    /// As stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        let [l0, l1] = self.length.to_be_bytes();
        let [c0, c1, c2, c3] = self.crc.to_be_bytes();
        [self.head.0, l0, l1, c0, c1, c2, c3]
    }

    /// Bytes of header and data.
    #[must_use]
    pub fn size(self) -> usize {
        HEADER_SIZE + usize::from(self.length)
    }
}

/// The offset at which the page of `offset` begins.
#[must_use]
pub fn page_start(offset: u64) -> u64 {
    offset - offset % PAGE
}

/// The offset at which the page of `offset` ends, in a segment of any length.
#[must_use]
pub fn page_end(offset: u64) -> u64 {
    page_start(offset) + PAGE
}

/// Where in its page an offset is.
pub(super) fn in_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE).unwrap_or(0)
}

/// The length of what is in one page.
pub(super) fn in_page_len(range: &std::ops::Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let bytes = [0x0A, 0x12, 0x34, 0xDE, 0xAD, 0xBE, 0xEF];
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.head.kind(), FragmentType::First);
        assert_eq!(header.head.compression(), Compression::Snappy);
        assert_eq!(header.length, 0x1234);
        assert_eq!(header.crc, 0xDEAD_BEEF);
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(Header::parse(&bytes[..6]), None);
    }

    #[test]
    fn snappy_wins_over_zstd() {
        assert_eq!(HeadByte(0x19).compression(), Compression::Snappy);
        assert!(!HeadByte(0x19).is_canonical());
    }
}
