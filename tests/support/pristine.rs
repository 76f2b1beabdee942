//! Healthy segments, cut into records by the simplest possible reader: no judgement, every byte believed.
//! It is a second way to the same answer, and shares no code with the library's reader.

use std::ops::Range;
use std::path::{Path, PathBuf};

use walfix::record::RecordType;

/// A record of a healthy segment.
#[derive(Clone, Debug)]
pub struct Written {
    /// Where its fragments stand.
    pub fragments: Vec<Range<usize>>,
    /// Unpacked.
    pub data: Vec<u8>,
}

impl Written {
    pub fn offset(&self) -> usize {
        self.fragments[0].start
    }

    pub fn end(&self) -> usize {
        self.fragments[self.fragments.len() - 1].end
    }
}

/// A healthy segment and what is in it.
#[derive(Clone, Debug)]
pub struct Pristine {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub records: Vec<Written>,
}

impl Pristine {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let records = records(&bytes);
        Self { path: path.to_owned(), bytes, records }
    }
}

/// The records of a healthy segment.
pub fn records(bytes: &[u8]) -> Vec<Written> {
    let mut records = Vec::new();
    let (mut at, mut open, mut stored) = (0, Vec::new(), Vec::new());
    while at + 7 <= bytes.len() {
        let head = bytes[at];
        if head.trailing_zeros() >= 3 || 32768 - at % 32768 < 7 {
            at = (at / 32768 + 1) * 32768;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]));
        let end = at + 7 + length;
        assert_eq!(
            crc32c::crc32c(&bytes[at + 7..end]).to_be_bytes(),
            bytes[at + 3..at + 7],
            "the fixture is damaged at {at}"
        );
        open.push(at..end);
        stored.extend_from_slice(&bytes[at + 7..end]);
        at = end;
        if matches!(head & 7, 1 | 4) {
            let data = match head & 0x18 {
                0 => stored.clone(),
                0x08 => snap::raw::Decoder::new().decompress_vec(&stored).unwrap(),
                _ => zstd::stream::decode_all(&stored[..]).unwrap(),
            };
            records.push(Written { fragments: std::mem::take(&mut open), data });
            stored.clear();
        }
    }
    records
}

/// Every non-empty segment of the logs in `testdata/logs`, or of those that `WALFIX_LOGS` names.
pub fn all() -> Vec<Pristine> {
    let root =
        std::env::var_os("WALFIX_LOGS").map_or_else(|| super::project().join("testdata/logs"), PathBuf::from);
    let mut files = Vec::new();
    for log in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()) {
        if log.is_dir() {
            files.extend(std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    files.retain(|file| file.metadata().unwrap().len() > 0);
    files.sort();
    assert!(!files.is_empty(), "no logs in {}", root.display());
    files.iter().map(|file| Pristine::read(file)).collect()
}

impl Pristine {
    /// Whether the fragments of a record are as they were written, and where.
    pub fn is_unchanged(&self, written: &Written, bytes: &[u8]) -> bool {
        written
            .fragments
            .iter()
            .all(|fragment| bytes.get(fragment.clone()) == Some(&self.bytes[fragment.clone()]))
    }

    /// Whether the record at this place of `records` holds nothing that could prove it in `bytes`: an empty record directly
    /// behind a damaged one (`01 00 00 00 00 00 00` begins every uncompressed series record, and ends many a sample), and a
    /// record of a type that nobody knows, in fragments without a checksum over them.
    pub fn cannot_be_proven(&self, at: usize, bytes: &[u8]) -> bool {
        let unchanged = |written: &Written| self.is_unchanged(written, bytes);
        let written = &self.records[at];
        let behind_damage =
            self.records[..at].iter().rev().find(|before| !before.data.is_empty() || !unchanged(before));
        let empty = written.data.is_empty() && behind_damage.is_some_and(|before| !unchanged(before));
        let unknown = RecordType::of(&written.data).is_none() && written.fragments.len() > 1;
        empty || unknown
    }
}
