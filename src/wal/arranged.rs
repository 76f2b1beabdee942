//! A segment whose pages are in another order than in its file.

use std::io;
use std::sync::{Arc, OnceLock};

use super::crc;
use super::layout::{
    Compression, FragmentType, HEADER_SIZE, HeadByte, Header, MAX_FRAGMENT_DATA, PAGE, PAGE_SIZE,
};
use super::source::ReadAt;

/// What is in the place of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The page of that number of the same file.
    Own(u64),
    /// A page of another file.
    Other(Arc<[u8]>),
    /// A page of one record that says nothing. No record continues across it.
    Blank,
}

/// The pages of `source` in the order of `places`.
#[derive(Clone, Debug)]
pub struct Arranged<'a, S> {
    source: S,
    source_length: u64,
    places: &'a [Place],
}

impl<'a, S: ReadAt> Arranged<'a, S> {
    /// `length` is that of `source`.
    pub fn new(source: S, length: u64, places: &'a [Place]) -> Self {
        Self { source, source_length: length, places }
    }

    /// Bytes in all. Only the last page may be short.
    pub fn length(&self) -> u64 {
        let Some((last, before)) = self.places.split_last() else { return 0 };
        let last = match last {
            Place::Own(number) => self.source_length.saturating_sub(number * PAGE).min(PAGE),
            Place::Other(bytes) => bytes.len() as u64,
            Place::Blank => PAGE,
        };
        before.len() as u64 * PAGE + last
    }

    /// Whether a blank page is at that offset.
    pub fn is_blank(&self, offset: u64) -> bool {
        let place = usize::try_from(offset / PAGE).ok().and_then(|at| self.places.get(at));
        matches!(place, Some(Place::Blank))
    }
}

impl<S: ReadAt> ReadAt for Arranged<'_, S> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (number, within) = (offset / PAGE, offset % PAGE);
        let place = usize::try_from(number).ok().and_then(|at| self.places.get(at));
        let Some(place) = place else { return Ok(0) };
        let rest = usize::try_from(PAGE - within).unwrap_or(PAGE_SIZE);
        let length = buffer.len().min(rest);
        let buffer = &mut buffer[..length];
        let count = match place {
            Place::Own(own) => self.source.read_at(buffer, own * PAGE + within)?,
            Place::Other(bytes) => bytes.read_at(buffer, within)?,
            Place::Blank => blank().read_at(buffer, within)?,
        };
        if count == 0 && !buffer.is_empty() && number + 1 < self.places.len() as u64 {
            // A short page that is no longer the last.
            buffer.fill(0);
            return Ok(length);
        }
        Ok(count)
    }
}

/// A page of one record of a type that nobody knows.
fn blank() -> &'static [u8] {
    static BLANK: OnceLock<Vec<u8>> = OnceLock::new();
    BLANK.get_or_init(|| {
        let mut data = vec![0; MAX_FRAGMENT_DATA];
        data[0] = 0xC8;
        let head = HeadByte::new(FragmentType::Full, Compression::None);
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let header = Header { head, length, crc: crc::checksum(&data) };
        let mut page = Vec::with_capacity(HEADER_SIZE + data.len());
        page.extend(header.to_bytes());
        page.extend(data);
        page
    })
}
