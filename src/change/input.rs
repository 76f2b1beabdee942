//! The files that a plan is made from, known again by what the file system says of them, and by a checksum where they
//! are changed.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;

use crc_fast::{CrcAlgorithm, Digest};

use super::plan::Input;
use crate::io::beneath::Place;
use crate::tsdb::Target;

/// All segments of the logs of `target`; with a checksum those in `touched`.
pub(crate) fn all(target: &Target, touched: &HashSet<&str>) -> io::Result<Vec<Input>> {
    let listing = target.list()?;
    let root = Place::open(target.path())?;
    let mut inputs = Vec::new();
    for log in &listing.logs {
        for segment in &log.segments {
            let path = log.relative_of(segment);
            let is_touched = touched.contains(path.as_str());
            inputs.push(input(&root, path, is_touched)?);
        }
    }
    Ok(inputs)
}

/// What identifies the file at `path` below `root`. Behind a link it is what is there when that is followed, as readers do;
/// nothing is changed there.
pub(crate) fn input(root: &Place, path: String, with_checksum: bool) -> io::Result<Input> {
    let mut file = root.join(&path);
    if file.parent().link_on_the_way().is_some() {
        let full = root.full().join(&path);
        let directory = Place::open(full.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        file = directory.join(full.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    }
    let (metadata, checksum) = if with_checksum {
        let mut file = file.open_file()?;
        (file.metadata()?, Some(checksum_of_file(&mut file)?))
    } else {
        (file.look()?, None)
    };
    let (device, inode, bytes) = (metadata.dev(), metadata.ino(), metadata.len());
    Ok(Input { path, device, inode, bytes, modified: modified(&metadata), checksum })
}

/// When it was last written to, ns since 1970.
pub(crate) fn modified(metadata: &Metadata) -> i128 {
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

pub(crate) fn checksum_of_bytes(bytes: &[u8]) -> String {
    let mut checksum = Checksum::new();
    checksum.update(bytes);
    checksum.text()
}

/// Of all bytes of a file from its position on.
pub(super) fn checksum_of_file(file: &mut File) -> io::Result<String> {
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
