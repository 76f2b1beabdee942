//! The model of Prometheus's reader ends on everything, reads all of what was written by the writer's rules, and has no
//! error where the salvage reader has nothing to say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::forecast::Version;
use walfix::forecast::replay::{Part, Reader, Reading, Replay, read};
use walfix::scan::salvage::{self, Contents, Problem, Visitor, salvage};
use walfix::wal::Record;

#[derive(Default)]
struct Found {
    records: u64,
    problems: Vec<Problem>,
}

impl Visitor for Found {
    fn record(&mut self, _: &Record<'_>, _: &Contents) {
        self.records += 1;
    }

    fn damage(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}

fuzz_target!(|input: &[u8]| {
    let log = walfix_fuzz::log(input);
    let bytes = log.bytes.as_slice();
    let part =
        |index: i64| Part { dir: "data/wal".to_owned(), index, source: bytes, length: bytes.len() as u64 };
    let mut replay = Replay::new(vec![part(0)], Version::NEWEST);
    let mut records = Vec::new();
    let mut last = 0;
    while let Some(record) = replay.next() {
        assert!(last < record.end && record.part == 0);
        assert!(record.end <= (bytes.len() as u64).next_multiple_of(32768));
        last = record.end;
        records.push(record.data.to_vec());
    }
    if let Some(healthy) = &log.healthy {
        assert_eq!(replay.error(), None);
        assert_eq!(records, *healthy);
    }
    let clean = |reading: &Reading| reading.error.is_none();
    let versions = [Version::OLDEST, Version::new(2, 40, 0), Version::new(3, 8, 0), Version::NEWEST];
    let version = versions[input.len() % versions.len()];
    for reader in [Reader::Wal, Reader::Wbl, Reader::Checkpoint, Reader::Agent, Reader::AgentCheckpoint] {
        let reading = read(vec![part(0), part(1)], reader, version);
        assert!(reading.read_to.is_some() == (reading.records > 0));
    }
    let found: Found = salvage(bytes, bytes.len() as u64, salvage::Reading::Prometheus);
    if found.problems.is_empty() {
        let alone = read(vec![part(0)], Reader::Wal, Version::NEWEST);
        assert!(clean(&alone), "{alone:?}");
        assert_eq!(alone.records, found.records);
        let twice = read(vec![part(0), part(1)], Reader::Checkpoint, Version::NEWEST);
        assert!(clean(&twice), "{twice:?}");
        assert_eq!(twice.records, 2 * found.records);
    }
});
