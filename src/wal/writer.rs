//! Records into fragments, laid out as Prometheus lays them out (`WL.log`, `flushPage`, `tsdb/wlog/wlog.go`).
//!
//! A record is written as it is stored: packed or not, with the flag that says so. What was read and is written again is
//! the same to the byte.

use std::io::{self, Write};

use super::crc;
use super::layout::{Compression, FragmentType, HEADER_SIZE, HeadByte, Header, PAGE_SIZE};

/// Writes one segment.
#[derive(Debug)]
pub struct SegmentWriter<W> {
    out: W,
    /// Bytes of the page that is being filled.
    filled: usize,
    written: u64,
}

impl<W: Write> SegmentWriter<W> {
    /// At the beginning of a segment.
    pub fn new(out: W) -> Self {
        Self { out, filled: 0, written: 0 }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes a record, `stored` as the compression has made it.
    ///
    /// # Errors
    /// Those of the output.
    pub fn record(&mut self, compression: Compression, stored: &[u8]) -> io::Result<()> {
        let mut rest = stored;
        let mut first = true;
        loop {
            // A page with exactly a header's room left takes the header alone.
            let room = PAGE_SIZE - self.filled - HEADER_SIZE;
            let (data, after) = rest.split_at(rest.len().min(room));
            let kind = match (first, after.is_empty()) {
                (true, true) => FragmentType::Full,
                (true, false) => FragmentType::First,
                (false, true) => FragmentType::Last,
                (false, false) => FragmentType::Middle,
            };
            self.fragment(HeadByte::new(kind, compression), data)?;
            rest = after;
            first = false;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends the segment at a page end.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        if self.filled > 0 {
            self.pad()?;
        }
        Ok(self.out)
    }

    fn fragment(&mut self, head: HeadByte, data: &[u8]) -> io::Result<()> {
        let length = u16::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let header = Header { head, length, crc: crc::checksum(data) };
        self.put(&header.to_bytes())?;
        self.put(data)?;
        if PAGE_SIZE - self.filled < HEADER_SIZE { self.pad() } else { Ok(()) }
    }

    fn pad(&mut self) -> io::Result<()> {
        static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
        let padding = PAGE_SIZE - self.filled;
        self.put(&ZEROS[..padding])?;
        self.filled = 0;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.filled += bytes.len();
        self.written += bytes.len() as u64;
        Ok(())
    }
}
