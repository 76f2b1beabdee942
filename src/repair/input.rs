//! The files that a plan is made from, known again by what the file system says of them, and by a checksum where they
//! are changed.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

use super::plan::Input;
use crate::tsdb::Target;

/// All segments of the logs of `target`; with a checksum those in `touched`.
pub(super) fn all(target: &Target, touched: &HashSet<&str>) -> io::Result<Vec<Input>> {
    let listing = target.list()?;
    let mut inputs = Vec::new();
    for log in &listing.logs {
        for segment in &log.segments {
            let path = log.relative_of(segment);
            let is_touched = touched.contains(path.as_str());
            inputs.push(input(target.path(), path, is_touched)?);
        }
    }
    Ok(inputs)
}

/// What identifies the file at `path` below `root`.
pub(super) fn input(root: &Path, path: String, with_checksum: bool) -> io::Result<Input> {
    let full = root.join(&path);
    // A link that leads nowhere is there, too.
    let metadata = full.metadata().or_else(|_| full.symlink_metadata())?;
    let checksum = if with_checksum { Some(checksum_of_file(&full)?) } else { None };
    let (device, inode, bytes) = (metadata.dev(), metadata.ino(), metadata.len());
    Ok(Input { path, device, inode, bytes, modified: modified(&metadata), checksum })
}

/// When it was last written to, ns since 1970.
pub(super) fn modified(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// Checksums of bytes as they come.
pub(super) struct Checksum(Digest);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn text(&self) -> String {
        format!("{:016x}", self.0.finalize())
    }
}

pub(super) fn checksum_of_bytes(bytes: &[u8]) -> String {
    let mut checksum = Checksum::new();
    checksum.update(bytes);
    checksum.text()
}

/// Of all bytes of a file.
pub(super) fn checksum_of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut checksum = Checksum::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(checksum.text()),
            Ok(count) => checksum.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
