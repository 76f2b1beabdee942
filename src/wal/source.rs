//! Where a segment's bytes come from, and what happens when they do not.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::layout::{PAGE, PAGE_SIZE};

/// Something that can be read at any offset.
pub trait ReadAt {
    /// Reads some bytes from `offset` on into `buffer`; 0 at the end.
    ///
    /// # Errors
    /// As the medium has them.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let rest = &self[from..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }
}

/// Bytes that are read at once.
const WINDOW: usize = 8 * PAGE_SIZE;

/// The smallest unit in which a disk fails, in bytes.
const SECTOR: usize = 512;

/// A window of whole pages that slides over a source, with room for a page and the one after it.
///
/// It is read, not mapped: a mapped file that shrinks, or a bad sector under it, kills the process with SIGBUS.
/// Here a shrunken file ends early and a bad sector becomes a range in [`Window::unreadable`], read as zeros.
#[derive(Debug)]
pub struct Window<S> {
    source: S,
    length: u64,
    base: u64,
    buffer: Vec<u8>,
    unreadable: Vec<Range<u64>>,
    read_error: Option<String>,
    shrunk_from: Option<u64>,
}

impl<S: ReadAt> Window<S> {
    /// Over the first `length` bytes of `source`.
    pub fn new(source: S, length: u64) -> Self {
        Self {
            source,
            length,
            base: 0,
            buffer: Vec::new(),
            unreadable: Vec::new(),
            read_error: None,
            shrunk_from: None,
        }
    }

    /// Bytes of the source: as given, or fewer where it turned out to be shorter.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What could not be read so far, in order; [`Self::page`] has zeros there.
    pub fn unreadable(&self) -> &[Range<u64>] {
        &self.unreadable
    }

    /// What the system said about the first of those.
    pub fn read_error(&self) -> Option<&str> {
        self.read_error.as_deref()
    }

    /// The length as given, where the source turned out to be shorter.
    pub fn shrunk_from(&self) -> Option<u64> {
        self.shrunk_from
    }

    /// The page that begins at `offset`, cut at the end of the source; empty after it. `offset` is a multiple of
    /// [`PAGE`].
    pub fn page(&mut self, offset: u64) -> &[u8] {
        let range = self.load(offset);
        self.buffer.get(range).unwrap_or_default()
    }

    /// The bytes of `range` of the source, where [`Self::page`] has just been asked for their page.
    pub fn loaded(&self, range: &Range<u64>) -> &[u8] {
        let place = |offset: u64| offset.checked_sub(self.base).and_then(|o| usize::try_from(o).ok());
        match (place(range.start), place(range.end)) {
            (Some(start), Some(end)) => self.buffer.get(start..end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Another page, without moving the window: for comparing.
    pub fn other_page(&self, offset: u64, page: &mut Vec<u8>) {
        page.resize(PAGE_SIZE, 0);
        let mut filled = 0;
        while let Ok(count) = self.read_some(&mut page[filled..], offset + filled as u64) {
            filled += count;
            if count == 0 || filled == PAGE_SIZE {
                break;
            }
        }
        page.truncate(filled);
    }

    fn load(&mut self, offset: u64) -> Range<usize> {
        let wanted = offset.saturating_add(PAGE).min(self.length);
        if offset >= self.length {
            return 0..0;
        }
        if offset < self.base || wanted > self.base + self.buffer.len() as u64 {
            self.slide(offset);
        }
        let start = usize::try_from(offset - self.base).unwrap_or(usize::MAX);
        start..(start + PAGE_SIZE).min(self.buffer.len())
    }

    fn slide(&mut self, offset: u64) {
        let end = (offset + WINDOW as u64).min(self.length);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(usize::try_from(end - offset).unwrap_or(0), 0);
        let filled = self.fill(&mut buffer, offset);
        buffer.truncate(filled);
        self.buffer = buffer;
        self.base = offset;
    }

    fn fill(&mut self, buffer: &mut [u8], offset: u64) -> usize {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            match self.read_some(&mut buffer[filled..], at) {
                Ok(0) => {
                    self.shrunk_from.get_or_insert(self.length);
                    self.length = at;
                    break;
                }
                Ok(count) => filled += count,
                Err(e) => {
                    let sector = (SECTOR - filled % SECTOR).min(buffer.len() - filled);
                    filled += self.fill_sector(&mut buffer[filled..filled + sector], at, &e);
                }
            }
        }
        filled
    }

    /// A signal is no reason to give up bytes.
    fn read_some(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match self.source.read_at(buffer, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// One sector of a stretch that failed; whatever it has by then counts as read.
    fn fill_sector(&mut self, buffer: &mut [u8], at: u64, error: &io::Error) -> usize {
        if let Ok(count) = self.read_some(buffer, at)
            && count > 0
        {
            return count;
        }
        self.read_error.get_or_insert_with(|| error.to_string());
        buffer.fill(0);
        let end = at + buffer.len() as u64;
        match self.unreadable.last_mut() {
            Some(last) if last.end >= at => last.end = last.end.max(end),
            _ => self.unreadable.push(at..end),
        }
        buffer.len()
    }
}

/// Fills `buffer` from `offset` on as far as it can be: how many bytes these are, and the error that came after them.
pub(crate) fn read_available<S: ReadAt + ?Sized>(
    source: &S,
    buffer: &mut [u8],
    offset: u64,
) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match source.read_at(room, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            // A signal is no reason to give up bytes.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

/// Fills `buffer` from `offset` on, or up to the end of `source`: how many bytes these are.
pub(crate) fn read_full<S: ReadAt + ?Sized>(source: &S, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let (filled, ended) = read_available(source, buffer, offset);
    ended.map(|()| filled)
}
