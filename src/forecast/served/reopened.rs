//! Files of a log that may have more of them than there are descriptors.

use std::io;
use std::path::PathBuf;

use crate::wal::ReadAt;

/// A file that is opened for each read: a checkpoint may have more segments than there are descriptors.
#[derive(Debug)]
pub(super) struct Reopened(pub(super) PathBuf);

impl ReadAt for Reopened {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(&crate::io::open(&self.0)?, buffer, offset)
    }
}
