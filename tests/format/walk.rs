//! Where nothing is wrong the walk finds what the salvage reader finds; where something is, it does not go to the end.
//!
//! `WALFIX_SEEDS=20000 cargo test --release --test format walk::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use serde_json::Value;
use support::damage::{self, KINDS};
use support::{note, test};
use support::{oracle, pristine};
use walfix::scan::salvage::{Contents, Problem, Reading, Salvage, Visitor, salvage};
use walfix::wal::walk::{Doubt, Pages, Walker};
use walfix::wal::{PAGE, PAGE_SIZE, Record};

/// Where a record and its fragments stand, and what it says.
type Told = (Range<u64>, Vec<Range<u64>>, Vec<u8>);

#[derive(Debug, Default, PartialEq)]
struct Found {
    records: Vec<Told>,
    contents: Vec<Contents>,
    problems: Vec<Problem>,
}

impl Found {
    fn keep(&mut self, record: &Record<'_>) {
        self.records.push((record.offset..record.end, record.fragments.to_vec(), record.data.to_vec()));
    }
}

impl Visitor for Found {
    fn record(&mut self, record: &Record<'_>, contents: &Contents) {
        self.keep(record);
        self.contents.push(*contents);
    }

    fn damage(&mut self, damage: Problem) {
        self.problems.push(damage);
    }
}

/// By the salvage reader alone.
fn with_care(bytes: &[u8]) -> Found {
    Salvage::new(bytes, bytes.len() as u64, Reading::Prometheus).doubtful().read(Found::default)
}

fn walk(bytes: &[u8], stretches: &[Range<u64>]) -> Result<Found, Doubt> {
    let mut found = Found::default();
    let mut walker = Walker::default();
    let mut pages = Pages::default();
    for stretch in stretches {
        walker.walk(bytes, bytes.len() as u64, stretch.clone(), &mut pages, |record| {
            found.keep(record);
            true
        })?;
    }
    Ok(found)
}

/// All of `length`, cut at random pages.
fn stretches(length: u64, rng: &mut Rng) -> Vec<Range<u64>> {
    let mut cuts: Vec<u64> = (0..rng.usize(..6)).map(|_| rng.u64(..=length / PAGE) * PAGE).collect();
    cuts.extend([0, length]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|ends| ends[0]..ends[1]).collect()
}

#[test]
fn healthy_logs_are_walked_to_the_end_in_any_stretches() {
    for log in pristine::all() {
        let about = log.path.display();
        let expected = with_care(&log.bytes);
        for seed in support::seeds(30) {
            let stretches = stretches(log.bytes.len() as u64, &mut Rng::with_seed(seed));
            let found = walk(&log.bytes, &stretches);
            assert_eq!(
                found.map(|found| found.records).as_ref(),
                Ok(&expected.records),
                "{about}: seed {seed}, {stretches:?}"
            );
        }
    }
}

#[test]
fn what_can_be_walked_is_what_care_finds() {
    let logs = pristine::all();
    let mut walked = 0;
    for seed in support::seeds(2000) {
        let mut rng = Rng::with_seed(seed);
        let log = &logs[rng.usize(..logs.len())];
        let headers: Vec<usize> =
            log.records.iter().flat_map(|record| record.fragments.iter().map(|f| f.start)).collect();
        let mut bytes = log.bytes.clone();
        let kind = KINDS[rng.usize(..KINDS.len())];
        if kind.contains("pages") && bytes.len() < 3 * PAGE_SIZE {
            continue;
        }
        let within = 0..bytes.len();
        let damage = damage::apply(kind, &mut bytes, within, &headers, &mut rng);
        let about = format!("seed {seed}: {} ({})", log.path.display(), damage.what);
        let expected = with_care(&bytes);
        assert_eq!(
            salvage::<_, Found>(&bytes[..], bytes.len() as u64, Reading::Prometheus),
            expected,
            "{about}"
        );
        let stretches = stretches(bytes.len() as u64, &mut rng);
        if let Ok(found) = walk(&bytes, &stretches) {
            // What records say is not the walk's business: a splice that reads badly is found by who decodes it.
            let of_records = |problem: &&Problem| {
                expected.records.len() + expected.problems.len() == found.records.len()
                    && found.records.iter().any(|(range, ..)| *range == problem.range)
            };
            assert!(
                expected.problems.iter().all(|problem| of_records(&problem)),
                "{about}: {:?}",
                expected.problems
            );
            walked += 1;
        }
    }
    note!("{walked} of the damaged logs could be walked");
}

fn scan(directory: &Path, threads: &str) -> Value {
    let walfix = env!("CARGO_BIN_EXE_walfix");
    let output = Command::new(walfix)
        .args(["scan", "--format", "json", "--threads", threads])
        .arg(directory)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Segments that are larger than a stretch: what stretches say is put together rightly.
#[test(long)]
fn large_segments_say_what_small_ones_say() {
    let oracle = oracle::judge("segments of several stretches");
    let [small, large] = ["1048576", "134217728"].map(|bytes| {
        let directory = support::scratch();
        let wal = directory.path().join("wal");
        std::fs::create_dir(&wal).unwrap();
        let load = ["load", "--series", "3000", "--scrapes", "700", "--churn", "4", "--segment-bytes", bytes];
        let entries = oracle.json(&load, &wal)["entries"].as_u64().unwrap();
        (directory, entries)
    });
    assert_eq!(small.1, large.1);
    assert!(large.0.path().join("wal/00000000").metadata().unwrap().len() > 3 * 256 * PAGE);
    let [of_small, of_large] = [&small, &large].map(|(directory, _)| scan(directory.path(), "2"));
    let log = |report: &Value| report["logs"][0].clone();
    for key in ["records", "entries", "min_time", "max_time"] {
        assert_eq!(log(&of_large)[key], log(&of_small)[key], "{key}");
    }
    assert_eq!(of_large["refs"], of_small["refs"]);
    assert_eq!(
        (&of_large["findings"], &of_small["findings"]),
        (&Value::from([0u8; 0]), &Value::from([0u8; 0]))
    );
    let of = |report: &Value, kind: &str| log(report)["entries"][kind].as_u64().unwrap();
    assert_eq!(of(&of_large, "samples") + of(&of_large, "series"), large.1);

    // One byte, in each stretch in turn.
    let segment = large.0.path().join("wal/00000000");
    let bytes = std::fs::read(&segment).unwrap();
    let written = pristine::records(&bytes);
    for at in (1000..bytes.len()).step_by(256 * PAGE_SIZE) {
        let mut damaged = bytes.clone();
        for byte in &mut damaged[at..at + 8] {
            *byte ^= 0x5a;
        }
        std::fs::write(&segment, &damaged).unwrap();
        let lost = written.iter().filter(|record| {
            record.fragments.iter().any(|fragment| fragment.start < at + 8 && at < fragment.end)
        });
        let [one, two] = ["1", "2"].map(|threads| scan(large.0.path(), threads));
        assert_eq!(one, two, "byte {at}");
        let records = |report: &Value| {
            log(report)["records"]
                .as_object()
                .unwrap()
                .values()
                .map(|count| count.as_u64().unwrap())
                .sum::<u64>()
        };
        assert_eq!(records(&one), records(&of_large) - lost.count() as u64, "byte {at}");
        std::fs::write(&segment, &bytes).unwrap();
    }
}
