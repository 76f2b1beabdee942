//! An index: header, symbols, series, postings, table of postings, table of contents (`tsdb/index/index.go`).
//!
//! Versions: 1 is of Prometheus 2.0 and older, names symbols by offset and series by offset; 2 is what is written; 3 is read since 2.55,
//! as 2 is.

use byteorder::{BigEndian, ReadBytesExt as _};

use super::postings::{PostingsTable, TableError};
use super::section::SectionError;
use super::series::{ALIGNED, StoredSeries, found_at, series_at};
use super::symbols::Symbols;
use crate::wal::crc;

/// What an index begins with.
const MAGIC: u32 = 0xBAAA_D700;

/// Where the symbols begin: after the header.
pub(super) const SYMBOLS: u64 = 5;

/// Six offsets and their checksum, at the end of the file (`indexTOCLen`).
const TOC: usize = 6 * 8 + 4;

/// Why Prometheus does not open an index, in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It is shorter than its header.
    #[error("index header: invalid size")]
    Header,
    /// It does not begin as an index does.
    #[error("invalid magic number {0:x}")]
    Magic(u32),
    /// A version that Prometheus does not know.
    #[error("unknown index file version {0}")]
    Version(u8),
    /// Its table of contents.
    #[error("read TOC: {}", toc_words(*.0))]
    Toc(SectionError),
    /// Its symbols.
    #[error("read symbols: {0}")]
    Symbols(SectionError),
    /// Its table of postings.
    #[error("read postings table: {0}")]
    Postings(TableError),
    /// The table of postings has a name that is no symbol.
    #[error("reverse symbol lookup: unknown symbol {0:?}")]
    UnknownName(String),
    /// The table of postings has names, and there are no symbols.
    #[error("reverse symbol lookup: unknown symbol {0:?} - no symbols")]
    NoSymbols(String),
}

/// It says of a checksum twice what it reads.
fn toc_words(error: SectionError) -> &'static str {
    match error {
        SectionError::Checksum => "read TOC: invalid checksum",
        _ => "invalid size",
    }
}

/// Where the sections of an index begin, as offsets in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Toc {
    /// The symbols.
    pub symbols: u64,
    /// The series: the end of the symbols; the first begins at the next multiple of 16.
    pub series: u64,
    /// Since 3.7 the end of the series; before, an index of label values.
    pub label_indices: u64,
    /// Since 3.7 the table of postings.
    pub label_indices_table: u64,
    /// The end of the series or label indices; the first list begins at the next multiple of 4.
    pub postings: u64,
    /// The table of postings.
    pub postings_table: u64,
}

impl Toc {
    /// Reads the end of an index.
    ///
    /// # Errors
    /// If it is too short, or its checksum is wrong.
    pub fn read(file: &[u8]) -> Result<Self, SectionError> {
        let toc = file.last_chunk::<TOC>().ok_or(SectionError::Size)?;
        let (offsets, stored) = toc.split_last_chunk::<4>().ok_or(SectionError::Size)?;
        if !crc::matches(offsets, u32::from_be_bytes(*stored)) {
            return Err(SectionError::Checksum);
        }
        let mut rest = offsets;
        let mut next = || rest.read_u64::<BigEndian>().map_err(|_| SectionError::Size);
        Ok(Self {
            symbols: next()?,
            series: next()?,
            label_indices: next()?,
            label_indices_table: next()?,
            postings: next()?,
            postings_table: next()?,
        })
    }
}

/// The version of an index.
///
/// # Errors
/// If its header is none.
pub fn version_of(file: &[u8]) -> Result<u8, IndexError> {
    let (mut magic, rest) = file.split_at_checked(4).ok_or(IndexError::Header)?;
    let version = *rest.first().ok_or(IndexError::Header)?;
    match magic.read_u32::<BigEndian>() {
        Ok(MAGIC) => {}
        Ok(magic) => return Err(IndexError::Magic(magic)),
        Err(_) => return Err(IndexError::Header),
    }
    if (1..=3).contains(&version) { Ok(version) } else { Err(IndexError::Version(version)) }
}

/// An index that Prometheus opens.
#[derive(Clone, Debug)]
pub struct Index<'a> {
    file: &'a [u8],
    version: u8,
    /// Where its sections are.
    pub toc: Toc,
    /// Its symbols.
    pub symbols: Symbols<'a>,
    /// Its table of postings.
    pub table: PostingsTable<'a>,
}

impl<'a> Index<'a> {
    /// Opens it with the checks of Prometheus (`newReader`).
    ///
    /// # Errors
    /// If Prometheus does not open it.
    pub fn open(file: &'a [u8]) -> Result<Self, IndexError> {
        let version = version_of(file)?;
        let toc = Toc::read(file).map_err(IndexError::Toc)?;
        let symbols = Symbols::open(file, version, toc.symbols).map_err(IndexError::Symbols)?;
        let failed = |error| IndexError::Postings(error);
        let table = PostingsTable::open(file, toc.postings_table).map_err(|error| failed(error.into()))?;
        let mut name: Option<&[u8]> = None;
        for entry in table.iter() {
            let entry = entry.map_err(failed)?;
            // The entries of a name are one after the other.
            if name.replace(entry.name) == Some(entry.name) || entry.name.is_empty() {
                continue;
            }
            if symbols.name_of(entry.name).is_none() {
                let name = String::from_utf8_lossy(entry.name).into_owned();
                return Err(match symbols.count() {
                    0 => IndexError::NoSymbols(name),
                    _ => IndexError::UnknownName(name),
                });
            }
        }
        Ok(Self { file, version, toc, symbols, table })
    }

    /// The bytes of the file.
    #[must_use]
    pub fn file(&self) -> &'a [u8] {
        self.file
    }

    /// Its version, 1 to 3.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Where the series begins that postings call `id`.
    #[must_use]
    pub fn offset_of(&self, id: u32) -> u64 {
        if self.version == 1 { u64::from(id) } else { u64::from(id) * ALIGNED }
    }

    /// What postings call the series that begins at `offset`.
    #[must_use]
    pub fn id_of(&self, offset: u64) -> u64 {
        if self.version == 1 { offset } else { offset / ALIGNED }
    }

    /// To how many bytes series are aligned.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        if self.version == 1 { 1 } else { ALIGNED }
    }

    /// Where the series end: at the label indices or the postings, whichever comes first after them.
    #[must_use]
    pub fn series_end(&self) -> u64 {
        let Toc { series, label_indices, label_indices_table, postings, postings_table, .. } = self.toc;
        let after = [label_indices, label_indices_table, postings, postings_table];
        let end = after.into_iter().filter(|&at| at >= series).min();
        end.unwrap_or(u64::MAX).min(self.file.len() as u64)
    }

    /// The first series at or after `from`, and before [`Self::series_end`]; `None` if there is no more. Series whose checksum is
    /// wrong are skipped.
    #[must_use]
    pub fn next_series(&self, from: u64) -> Option<StoredSeries<'a>> {
        let (step, end) = (self.alignment(), self.series_end());
        let first = from.max(self.toc.series).checked_next_multiple_of(step)?;
        let is_one = |series: &StoredSeries<'_>| series.has_body() && series.end <= end;
        if let Some(series) = series_at(self.file, first).ok().filter(is_one) {
            return Some(series);
        }
        let mut at = first;
        while at < end {
            if let Some(series) = found_at(self.file, at).filter(is_one) {
                return Some(series);
            }
            at += step;
        }
        None
    }
}
