//! Which series have a label: a table of all pairs of name and value, and a list of series for each.
//!
//! The table: BE32 count, then entries: uvarint 2, name, value, uvarint64 offset of the list (`ReadPostingsOffsetTable`,
//! `tsdb/index/index.go`). A list: BE32 count, then as many BE32 (`DecodePostingsRaw`). The first entry has neither name nor value,
//! and its list has all series.

use super::section::{SectionError, section};
use crate::record::Cursor;

/// Why the table cannot be read, in Prometheus's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Its section, or an entry that is cut short.
    #[error(transparent)]
    Section(#[from] SectionError),
    /// An entry of another number of strings than two.
    #[error("unexpected number of keys for postings offset table {0}")]
    Keys(i64),
}

/// Why a list cannot be read, in Prometheus's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostingsError {
    /// Its section.
    #[error(transparent)]
    Section(#[from] SectionError),
    /// Its count is another one.
    #[error(
        "unexpected postings length, should be {} bytes for {count} postings, got {bytes} bytes",
        4 * *count
    )]
    Count {
        /// As it says.
        count: u64,
        /// What it has, in bytes.
        bytes: u64,
    },
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostingsEntry<'a> {
    /// The label's name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Where the list is in the file.
    pub offset: u64,
}

/// The table, whose section has been checked.
#[derive(Clone, Copy, Debug)]
pub struct PostingsTable<'a> {
    contents: &'a [u8],
}

impl<'a> PostingsTable<'a> {
    pub(super) fn open(file: &'a [u8], at: u64) -> Result<Self, SectionError> {
        section(file, at).map(|contents| Self { contents })
    }

    /// How many bytes its contents have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.contents.len() as u64
    }

    /// Its entries, in their order, and an error after which there are no more.
    pub fn iter(&self) -> impl Iterator<Item = Result<PostingsEntry<'a>, TableError>> + use<'a> {
        let (count, rest) = self
            .contents
            .split_first_chunk::<4>()
            .map_or((0, None), |(count, rest)| (u32::from_be_bytes(*count), Some(rest)));
        // Without a count it is cut short.
        let mut cut = rest.is_none();
        let mut cursor = Cursor::new(rest.unwrap_or_default());
        let mut left = count;
        std::iter::from_fn(move || {
            if std::mem::take(&mut cut) {
                return Some(Err(SectionError::Size.into()));
            }
            if left == 0 || cursor.is_empty() {
                return None;
            }
            left -= 1;
            let entry = entry(&mut cursor);
            if entry.is_err() {
                left = 0;
            }
            Some(entry)
        })
    }
}

fn entry<'a>(cursor: &mut Cursor<'a>) -> Result<PostingsEntry<'a>, TableError> {
    // A number that cannot be read is 0 keys.
    let keys = cursor.uvarint64().unwrap_or(0).cast_signed();
    if keys != 2 {
        return Err(TableError::Keys(keys));
    }
    let mut read = || {
        let (name, value) = (cursor.string()?, cursor.string()?);
        Ok(PostingsEntry { name, value, offset: cursor.uvarint64()? })
    };
    read().map_err(|_: crate::record::CutShort| SectionError::Size.into())
}

/// The list at `offset`: the series by their ids, in order.
///
/// # Errors
/// If it cannot be read.
pub fn postings_at(
    file: &[u8],
    offset: u64,
) -> Result<impl ExactSizeIterator<Item = u32> + use<'_>, PostingsError> {
    let contents = section(file, offset)?;
    let (count, ids) = contents.split_first_chunk::<4>().ok_or(SectionError::Size)?;
    let count = u64::from(u32::from_be_bytes(*count));
    let bytes = ids.len() as u64;
    if bytes != 4 * count {
        return Err(PostingsError::Count { count, bytes });
    }
    let (ids, _) = ids.as_chunks::<4>();
    Ok(ids.iter().map(|id| u32::from_be_bytes(*id)))
}
