//! What a scan has settled of the segments that cannot be walked, for whoever reads them after it: to settle one takes
//! several readings, to know how it was settled one.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;

use super::salvage::{Decisions, Reading, Salvage};
use crate::wal::Corrections;

/// A file, and the state in which it was read: whoever writes to it leaves it in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    /// The same, of its inode.
    changed: (i64, i64),
}

impl FileState {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When it was last written to, ms since 1970.
    pub(super) fn modified(&self) -> i64 {
        let (seconds, nanoseconds) = self.modified;
        seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
    }
}

/// How the segments of Prometheus's were settled that could not be walked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlements(BTreeMap<FileState, Decisions>);

/// None are known.
impl Default for &Settlements {
    fn default() -> Self {
        static NONE: Settlements = Settlements(BTreeMap::new());
        &NONE
    }
}

impl Settlements {
    /// Takes up how the `length` bytes of a file in that state were settled, as a log of that reading.
    pub(super) fn add(&mut self, state: FileState, length: u64, reading: Reading, decisions: Decisions) {
        // A file that became shorter while it was read is in another state by now.
        if reading == Reading::Prometheus && state.bytes == length {
            self.0.insert(state, decisions);
        }
    }

    /// How the first `length` bytes of `file` were settled, if they are all that it has, and it is in the state in which it
    /// was scanned.
    pub(crate) fn of(&self, file: &File, length: u64) -> Option<&Decisions> {
        // Most often all are healthy.
        if self.0.is_empty() {
            return None;
        }
        let state = FileState::of(&file.metadata().ok()?);
        self.0.get(&state).filter(|_| state.bytes == length)
    }

    /// The records of Prometheus's in the first `length` bytes of `file`, with the decisions that are known.
    pub(crate) fn segment<'a>(
        &'a self,
        file: &'a File,
        length: u64,
        corrections: Corrections,
    ) -> Salvage<'a, File> {
        // A scan corrects no bits but those that leave little doubt.
        let decided = self.of(file, length).filter(|_| corrections == Corrections::Sure);
        Salvage::new(file, length, Reading::Prometheus).correcting(corrections).decided(decided)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    /// A file of which something is settled, as it is now.
    fn settled() -> (File, Settlements) {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"some bytes").expect("room for it");
        let mut settled = Settlements::default();
        let state = FileState::of(&file.metadata().expect("it is there"));
        settled.add(state, 10, Reading::Prometheus, Decisions::default());
        (file, settled)
    }

    #[test]
    fn it_is_known_as_long_as_nobody_writes() {
        let (file, settled) = settled();
        assert!(settled.of(&file, 10).is_some());
        assert!(settled.of(&file, 9).is_none(), "of all of it, not of a part");
        let time = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        file.set_modified(time + Duration::from_nanos(1)).expect("its owner may");
        assert!(settled.of(&file, 10).is_none(), "another time");
    }

    #[test]
    fn another_size_or_file_is_not_known() {
        let (mut file, settled) = settled();
        let (other, _) = self::settled();
        assert!(settled.of(&other, 10).is_none(), "another file");
        file.write_all(b"!").expect("room for it");
        assert!(settled.of(&file, 11).is_none() && settled.of(&file, 10).is_none(), "another size");
    }

    #[test]
    fn of_other_readings_and_shrunken_files_nothing_is_kept() {
        let (file, _) = settled();
        let mut settled = Settlements::default();
        let state = FileState::of(&file.metadata().expect("it is there"));
        settled.add(state, 10, Reading::Snapshot, Decisions::default());
        settled.add(state, 12, Reading::Prometheus, Decisions::default());
        assert!(settled.of(&file, 10).is_none() && settled.of(&file, 12).is_none());
    }
}
