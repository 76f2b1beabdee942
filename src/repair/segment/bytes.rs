//! The bytes of a segment, with its pages where they belong.

use std::fs::File;
use std::io;

use crate::wal::ReadAt;
use crate::wal::arranged::Arranged;

/// The bytes of a segment as they are to be read.
#[derive(Debug)]
pub(in crate::repair) enum SegmentBytes<'a> {
    /// As they are.
    File(&'a File),
    /// With the pages where they belong.
    Arranged(Arranged<'a, &'a File>),
}

impl ReadAt for SegmentBytes<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => ReadAt::read_at(*file, buffer, offset),
            Self::Arranged(arranged) => arranged.read_at(buffer, offset),
        }
    }
}

impl SegmentBytes<'_> {
    /// Whether a page is there that is not written.
    pub(super) fn is_blank(&self, offset: u64) -> bool {
        matches!(self, Self::Arranged(arranged) if arranged.is_blank(offset))
    }
}
