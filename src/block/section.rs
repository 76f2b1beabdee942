//! A length, contents, and their checksum (`NewDecbufAt` and `NewDecbufUvarintAt`, `tsdb/encoding/encoding.go`).

use byteorder::{BigEndian, ReadBytesExt as _};

use crate::wal::crc;

/// Why a section cannot be read, in the words of `tsdb/encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SectionError {
    /// It is longer than what is left of the file, or its contents are shorter than they say.
    #[error("invalid size")]
    Size,
    /// Its contents do not match their checksum.
    #[error("invalid checksum")]
    Checksum,
    /// Its length is no varint of at most 32 bits.
    #[error("invalid uvarint {0}")]
    Uvarint(i64),
}

/// The most bytes of a varint of 32 bits.
const MAX_VARINT_32: usize = 5;

/// The contents of the section at `at`, whose length is a BE32.
pub(super) fn section(file: &[u8], at: u64) -> Result<&[u8], SectionError> {
    let mut rest = from(file, at)?;
    let length = rest.read_u32::<BigEndian>().map_err(|_| SectionError::Size)?;
    contents(rest, u64::from(length)).map(|(contents, _)| contents)
}

/// The contents of the section at `at`, whose length is a uvarint, and how many bytes the section has.
pub(super) fn uvarint_section(file: &[u8], at: u64) -> Result<(&[u8], u64), SectionError> {
    let rest = from(file, at)?;
    let field = rest.get(..MAX_VARINT_32).ok_or(SectionError::Size)?;
    let (length, size) = uvarint(field).ok_or(SectionError::Uvarint(0))?;
    let (contents, bytes) = contents(rest.get(size..).unwrap_or_default(), length)?;
    Ok((contents, size as u64 + bytes))
}

/// A uvarint and its bytes; `None` if it does not end (`binary.Uvarint`).
pub(super) fn uvarint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

fn from(file: &[u8], at: u64) -> Result<&[u8], SectionError> {
    usize::try_from(at).ok().and_then(|at| file.get(at..)).ok_or(SectionError::Size)
}

/// So many bytes of contents with the right checksum after them, and how many bytes that is.
fn contents(rest: &[u8], length: u64) -> Result<(&[u8], u64), SectionError> {
    let length = usize::try_from(length).map_err(|_| SectionError::Size)?;
    let (contents, rest) = rest.split_at_checked(length).ok_or(SectionError::Size)?;
    let stored = rest.first_chunk().ok_or(SectionError::Size)?;
    if !crc::matches(contents, u32::from_be_bytes(*stored)) {
        return Err(SectionError::Checksum);
    }
    Ok((contents, length as u64 + 4))
}
