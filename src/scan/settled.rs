//! What a scan has settled of the segments that cannot be walked, for whoever reads them after it: to settle one takes
//! several readings, to know how it was settled one.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;

use super::salvage::{Contents, Decisions, Problem, Reading, Salvage};
use super::segment::unpack_to_little;
use crate::record::RecordType;
use crate::wal::{Compression, Corrections, IntactPart, Record};

/// A file, and the state in which it was read: whoever writes to it leaves it in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    /// The same, of its inode.
    changed: (i64, i64),
}

impl FileStamp {
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

/// What a scan has seen in a segment of Prometheus's, for whoever would read it once more to know that.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SegmentFacts {
    /// From the earliest to the latest sample or histogram, ms.
    pub(crate) times: Option<(i64, i64)>,
    /// Bits that, flipped back, give records: the byte's offset and the bit.
    pub(crate) corrections: Vec<(u64, u8)>,
    /// Some record is compressed with zstd.
    pub(crate) has_zstd: bool,
    /// Something is damaged, or the fragments of a record disagree on its compression.
    pub(crate) is_odd: bool,
}

impl SegmentFacts {
    /// Adds those of what follows in the same segment.
    pub(super) fn append(&mut self, next: Self) {
        self.widen(next.times);
        self.corrections.extend(next.corrections);
        self.has_zstd |= next.has_zstd;
        self.is_odd |= next.is_odd;
    }

    /// A record that can be read.
    pub(crate) fn look_at(&mut self, record: &Record<'_>, contents: &Contents) {
        self.has_zstd |= record.compression == Compression::Zstd;
        self.is_odd |= record.flags_disagree;
        if contents.record_type != Some(RecordType::Exemplars) {
            self.widen(contents.min_time.zip(contents.max_time));
        }
    }

    /// Bytes that are damaged.
    pub(crate) fn add_damage(&mut self, damage: &Problem) {
        self.is_odd = true;
        self.corrections.extend(damage.correction.as_ref().map(|agreed| (agreed.at, agreed.mask)));
    }

    fn widen(&mut self, times: Option<(i64, i64)>) {
        self.times = match (self.times, times) {
            (Some((min, max)), Some((earliest, latest))) => Some((min.min(earliest), max.max(latest))),
            (known, times) => known.or(times),
        };
    }
}

/// What is known of the segments of Prometheus's that were scanned, by their states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlements(BTreeMap<FileStamp, Settled>);

/// What is known of one.
#[derive(Clone, Debug, PartialEq)]
struct Settled {
    /// `None` if it was walked.
    decisions: Option<Decisions>,
    facts: SegmentFacts,
    /// Where nothing is wrong with it, if no page is the same as another.
    intact: Vec<IntactPart>,
}

/// None are known.
impl Default for &Settlements {
    fn default() -> Self {
        static NONE: Settlements = Settlements(BTreeMap::new());
        &NONE
    }
}

impl Settlements {
    /// Adds how the `length` bytes of a file in that state were settled, as a log of that reading, and what was seen there.
    pub(super) fn add(
        &mut self,
        state: FileStamp,
        length: u64,
        reading: Reading,
        decisions: Option<Decisions>,
        facts: SegmentFacts,
        intact: Vec<IntactPart>,
    ) {
        // A file that became shorter while it was read is in another state by now.
        if reading == Reading::Prometheus && state.bytes == length {
            let intact = if unpack_to_little(&intact, length) { intact } else { Vec::new() };
            self.0.insert(state, Settled { decisions, facts, intact });
        }
    }

    /// What is known of the first `length` bytes of `file`, if they are all that it has, and it is in the state in which it was
    /// scanned.
    fn find(&self, file: &File, length: u64) -> Option<&Settled> {
        if self.0.is_empty() {
            return None;
        }
        let state = FileStamp::of(&file.metadata().ok()?);
        self.0.get(&state).filter(|_| state.bytes == length)
    }

    /// The decisions for such a file; `None` if it was walked.
    pub(crate) fn of(&self, file: &File, length: u64) -> Option<&Decisions> {
        self.find(file, length)?.decisions.as_ref()
    }

    /// What a scan has seen in such a file.
    pub(crate) fn facts(&self, file: &File, length: u64) -> Option<&SegmentFacts> {
        Some(&self.find(file, length)?.facts)
    }

    /// Where nothing is wrong with such a file, as of [`Salvage::around`].
    pub(crate) fn intact(&self, file: &File, length: u64) -> &[IntactPart] {
        self.find(file, length).map_or(&[], |settled| &settled.intact)
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
        let intact = self.intact(file, length);
        Salvage::new(file, length, Reading::Prometheus)
            .correcting(corrections)
            .decided(decided)
            .around(intact)
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
        let state = FileStamp::of(&file.metadata().expect("it is there"));
        settled.add(
            state,
            10,
            Reading::Prometheus,
            Some(Decisions::default()),
            SegmentFacts::default(),
            Vec::new(),
        );
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
        let state = FileStamp::of(&file.metadata().expect("it is there"));
        let facts = SegmentFacts::default;
        settled.add(state, 10, Reading::Snapshot, Some(Decisions::default()), facts(), Vec::new());
        settled.add(state, 12, Reading::Prometheus, Some(Decisions::default()), facts(), Vec::new());
        assert!(settled.of(&file, 10).is_none() && settled.of(&file, 12).is_none());
    }
}
