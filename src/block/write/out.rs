//! An output that knows its position.

use std::io::{self, Write};

/// Bytes that are gathered before they are written.
const PIECE: usize = 1 << 16;

/// Gathers bytes, writes them in pieces, and computes their checksum on the way.
#[derive(Debug)]
pub(super) struct Out<W> {
    inner: W,
    /// What is not written yet.
    piece: Vec<u8>,
    /// How much of it is in the checksum.
    summed: usize,
    checksum: u32,
    written: u64,
}

impl<W: Write> Out<W> {
    pub(super) fn new(out: W) -> Self {
        Self { inner: out, piece: Vec::with_capacity(PIECE), summed: 0, checksum: 0, written: 0 }
    }

    /// The offset of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.written + self.piece.len() as u64
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.piece.len() + bytes.len() > PIECE {
            self.write()?;
        }
        if bytes.len() > PIECE {
            // It is as good as gathered, and what is written already is not copied.
            return self.put_long(bytes);
        }
        self.piece.extend_from_slice(bytes);
        Ok(())
    }

    fn put_long(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.put(piece))
    }

    pub(super) fn be32(&mut self, value: u32) -> io::Result<()> {
        self.put(&value.to_be_bytes())
    }

    /// Zeros up to a multiple of `alignment`, at most 16.
    pub(super) fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let past = self.position() % alignment;
        for _ in past..if past == 0 { 0 } else { alignment } {
            self.put(&[0])?;
        }
        Ok(())
    }

    /// Zeros up to an offset; none if it is past that.
    pub(super) fn zeros_up_to(&mut self, offset: u64) -> io::Result<()> {
        while self.position() < offset {
            let zeros = [0; 4096];
            let count = usize::try_from(offset - self.position()).unwrap_or(usize::MAX).min(zeros.len());
            self.put(zeros.get(..count).unwrap_or_default())?;
        }
        Ok(())
    }

    /// The next byte is the first of the next checksum.
    pub(super) fn begin_checksum(&mut self) {
        self.checksum = 0;
        self.summed = self.piece.len();
    }

    /// Writes the checksum of all since the last [`Self::begin_checksum`].
    pub(super) fn put_checksum(&mut self) -> io::Result<()> {
        self.sum();
        self.be32(self.checksum)
    }

    /// Writes what is not written yet.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write()?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn sum(&mut self) {
        let bytes = self.piece.get(self.summed..).unwrap_or_default();
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.summed = self.piece.len();
    }

    fn write(&mut self) -> io::Result<()> {
        self.sum();
        self.inner.write_all(&self.piece)?;
        self.written += self.piece.len() as u64;
        self.piece.clear();
        self.summed = 0;
        Ok(())
    }
}
