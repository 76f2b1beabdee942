//! The symbols of an index: all strings of its labels, sorted. Series name them by number, in version 1 by offset.
//!
//! Contents of the section: BE32 count, then strings with a uvarint length (`NewSymbols`, `tsdb/index/index.go`).

use super::section::{SectionError, section};
use crate::record::Cursor;

/// Of so many symbols one has its offset kept (`symbolFactor`).
const STEP: usize = 32;

/// The symbols of an index.
#[derive(Clone, Debug)]
pub struct Symbols<'a> {
    file: &'a [u8],
    /// Offsets in the file of each [`STEP`]th.
    sampled: Vec<usize>,
    count: u32,
    /// Where the section ends in the file, after its checksum.
    end: u64,
    by_offset: bool,
}

impl<'a> Symbols<'a> {
    /// Reads the section at `at` of an index of that version.
    pub(super) fn open(file: &'a [u8], version: u8, at: u64) -> Result<Self, SectionError> {
        let contents = section(file, at)?;
        let (count, mut rest) = contents.split_first_chunk::<4>().ok_or(SectionError::Size)?;
        let count = u32::from_be_bytes(*count);
        let begin = usize::try_from(at).unwrap_or(0) + 4;
        let mut sampled = Vec::new();
        for number in 0..count as usize {
            if number % STEP == 0 {
                sampled.push(begin + contents.len() - rest.len());
            }
            rest = string(rest).ok_or(SectionError::Size)?.1;
        }
        let end = begin as u64 + contents.len() as u64 + 4;
        Ok(Self { file, sampled, count, end, by_offset: version == 1 })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Where their section ends in the file.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The symbol that a series names so: by its number, in version 1 by its offset in the file.
    #[must_use]
    pub fn get(&self, name: u32) -> Option<&'a [u8]> {
        let at = name as usize;
        if self.by_offset {
            return string(self.file.get(at..)?).map(|(symbol, _)| symbol);
        }
        if name >= self.count {
            return None;
        }
        let mut rest = self.file.get(*self.sampled.get(at / STEP)?..)?;
        for _ in 0..at % STEP {
            rest = string(rest)?.1;
        }
        string(rest).map(|(symbol, _)| symbol)
    }

    /// How series name this symbol; `None` if it is not there. They have to be sorted.
    #[must_use]
    pub fn name_of(&self, symbol: &[u8]) -> Option<u32> {
        let begins_after =
            |at: &usize| self.file.get(*at..).and_then(string).is_some_and(|(first, _)| first <= symbol);
        let group = self.sampled.partition_point(begins_after).checked_sub(1)?;
        let mut at = *self.sampled.get(group)?;
        let first = group * STEP;
        for number in first..(first + STEP).min(self.count as usize) {
            let (found, rest) = string(self.file.get(at..)?)?;
            if found == symbol {
                return u32::try_from(if self.by_offset { at } else { number }).ok();
            }
            at = self.file.len() - rest.len();
        }
        None
    }

    /// Whether a series may name a symbol so. In version 1 this is the offset at which one begins.
    #[must_use]
    pub fn has(&self, name: u32) -> bool {
        if !self.by_offset {
            return name < self.count;
        }
        let wanted = name as usize;
        let Some(group) = self.sampled.partition_point(|&at| at <= wanted).checked_sub(1) else {
            return false;
        };
        let mut at = self.sampled.get(group).copied().unwrap_or(usize::MAX);
        let left = (self.count as usize - group * STEP).min(STEP);
        for _ in 0..left {
            if at == wanted {
                return true;
            }
            let Some((_, rest)) = self.file.get(at..).and_then(string) else { return false };
            at = self.file.len() - rest.len();
        }
        false
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.sampled.first().and_then(|&first| self.file.get(first..)).unwrap_or_default();
        (0..self.count).map_while(move |_| {
            let (symbol, after) = string(rest)?;
            rest = after;
            Some(symbol)
        })
    }

    /// Whether each is above the one before, as bytes.
    #[must_use]
    pub fn are_sorted(&self) -> bool {
        let mut before: Option<&[u8]> = None;
        self.iter().all(|symbol| before.replace(symbol).is_none_or(|before| before < symbol))
    }
}

/// A string and what is after it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut cursor = Cursor::new(bytes);
    let string = cursor.string().ok()?;
    Some((string, cursor.rest()))
}
