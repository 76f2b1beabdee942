//! Files of chunks (`tsdb/chunks/chunks.go`): a header of eight bytes, and chunks without a gap between them.

use std::io::Write;

use super::WriteError;
use super::out::Out;
use crate::record::put;

/// `MagicChunks` and the format version, padded (`tsdb/chunks/chunks.go`).
const HEADER: [u8; 8] = [0x85, 0xBD, 0x40, 0xDD, 1, 0, 0, 0];

/// Writes one file of chunks. The caller begins another one where [`Self::has_room`] says so.
#[derive(Debug)]
pub struct ChunkFileWriter<W> {
    out: Out<W>,
    /// A length in use.
    length: Vec<u8>,
}

impl<W: Write> ChunkFileWriter<W> {
    /// At which size Prometheus begins another file, in bytes (`DefaultChunkSegmentSize`, `tsdb/chunks/chunks.go`).
    pub const FULL: u64 = 512 << 20;

    /// At the beginning of a file.
    ///
    /// # Errors
    /// Those of the output.
    pub fn new(out: W) -> Result<Self, WriteError> {
        let mut out = Out::new(out);
        out.put(&HEADER)?;
        Ok(Self { out, length: Vec::new() })
    }

    /// Bytes written so far; the next chunk begins there.
    pub fn written(&self) -> u64 {
        self.out.position()
    }

    /// Whether Prometheus would write a chunk of `length` bytes of data here, if it writes chunks one by one and files end at
    /// `full` bytes. It counts five bytes for the length of the chunk. The first chunk of a file may be of any size
    /// (`WriteChunks`, `tsdb/chunks/chunks.go`).
    pub fn has_room(&self, length: usize, full: u64) -> bool {
        let written = self.written();
        written == HEADER.len() as u64 || written + 5 + 1 + length as u64 + 4 <= full
    }

    /// Writes a chunk of any encoding, and returns the offset at which it begins.
    ///
    /// # Errors
    /// Those of the output, and for a chunk or a file of 4 GiB.
    pub fn chunk(&mut self, encoding: u8, data: &[u8]) -> Result<u32, WriteError> {
        // The reader takes five bytes for the length at most, and refs have 32 bits for the offset.
        if u32::try_from(data.len()).is_err() {
            return Err(WriteError::TooLarge("a chunk is"));
        }
        let at =
            u32::try_from(self.written()).map_err(|_| WriteError::TooLarge("the offset of a chunk is"))?;
        self.length.clear();
        put::length(&mut self.length, data.len());
        self.out.put(&self.length)?;
        // The checksum does not cover the length.
        self.out.begin_checksum();
        self.out.put(&[encoding])?;
        self.out.put(data)?;
        self.out.put_checksum()?;
        Ok(at)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(self) -> Result<W, WriteError> {
        Ok(self.out.finish()?)
    }
}

/// The ref of a chunk in a block: `file` counts the files in the order of their names from 0 on
/// (`NewBlockChunkRef`, `tsdb/chunks/chunks.go`).
#[must_use]
pub const fn chunk_reference(file: u32, offset: u32) -> u64 {
    (file as u64) << 32 | offset as u64
}
