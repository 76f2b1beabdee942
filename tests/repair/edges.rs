//! Edges of repairs: refs that cannot be, headers of nothing, snapshots, and states that are mended together.

use std::fs;
use std::path::Path;

use support::pristine::records;
use support::repairs::segment;
use support::test;
use tempfile::TempDir;
use walfix::forecast::{Assumed, Version, forecast};
use walfix::record::{Record, SampleEntry, encode_samples, encode_series};
use walfix::repair::plan::Change;
use walfix::repair::{self, Lock, Options, Plan};
use walfix::scan::Scan;
use walfix::scan::report::Verdict;
use walfix::scan::{self, scan};
use walfix::tsdb::Target;

const PAGE: usize = 32768;

fn series(refs: &[u64]) -> Vec<u8> {
    let names: Vec<Vec<u8>> =
        refs.iter().map(|series_ref| format!("series_{series_ref}").into_bytes()).collect();
    let mut record = Vec::new();
    let all =
        refs.iter().zip(&names).map(|(&series_ref, name)| (series_ref, [(&b"__name__"[..], &name[..])]));
    encode_series(all, &mut record);
    record
}

fn samples(refs: &[u64], t: i64) -> Vec<u8> {
    let entry = |&series_ref: &u64| SampleEntry { series_ref, t, st: 0, value_bits: 1.5_f64.to_bits() };
    let mut record = Vec::new();
    encode_samples(&refs.iter().map(entry).collect::<Vec<_>>(), &mut record);
    record
}

fn directory(segments: &[(&str, Vec<u8>)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, bytes) in segments {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    directory
}

fn look(directory: &Path, assumed: Assumed) -> (Target, Scan, Plan) {
    let target = Target::find(directory).unwrap();
    let report = scan(&target, &scan::Options::default(), &()).unwrap();
    let forecast = forecast(&target, &report, assumed).unwrap();
    let options = Options { assumed, ..Options::default() };
    let plan = repair::plan(&target, &report, forecast.as_ref(), options).unwrap();
    (target, report, plan)
}

/// Repairs; what is there afterwards.
fn mend(directory: &Path, assumed: Assumed) -> Scan {
    let (target, _, plan) = look(directory, assumed);
    let backup = directory.join("walfix-backup-test");
    repair::apply(&target, &plan, &backup, &Lock::take(directory).unwrap()).unwrap();
    let (_, report, again) = look(directory, assumed);
    assert_eq!(again.steps, [], "nothing is left to do");
    report
}

fn agent() -> Assumed {
    Assumed { version: Version::new(3, 5, 0), agent: true }
}

/// Prometheus panics at refs of 2^40 and more (`tsdb/chunks/chunks.go`): no fence may have one.
#[test]
fn a_ref_that_cannot_be_needs_no_fence() {
    for far in [1 << 40, (1 << 40) - 1, u64::MAX, u64::MAX - 5700] {
        let refs = [1, 2, 3];
        let mut bytes =
            segment(&[series(&refs), samples(&refs, 1000), samples(&[1, far], 2000), samples(&refs, 3000)]);
        let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        // Damage, so that there is something to repair: the last record.
        bytes[last - 8..last].fill(0x55);
        let directory =
            directory(&[("wal/00000000", bytes.clone()), ("wal/00000001", segment(&[samples(&refs, 4000)]))]);
        let (.., plan) = look(directory.path(), Assumed::default());
        assert!(!plan.steps.is_empty(), "{far}");
        // What has no labels is recorded, which is no fence.
        let made = plan.steps.iter().filter(|step| match &step.change {
            Change::Create { path, .. } => !path.starts_with("walfix-lost."),
            _ => false,
        });
        assert_eq!(made.count(), 0, "{far}: {:?}", plan.steps);
    }
}

#[test]
fn a_ref_that_can_be_gets_one() {
    let refs = [1, 2, 3];
    let mut bytes = segment(&[series(&refs), series(&[900]), samples(&[1, 900], 2000)]);
    let at = bytes.windows(10).position(|window| window == b"series_900").unwrap();
    bytes[at..at + 6].fill(0x55);
    let directory = directory(&[("wal/00000000", bytes), ("wal/00000001", segment(&[samples(&refs, 4000)]))]);
    mend(directory.path(), Assumed::default());
    let fence = fs::read(directory.path().join("wal/00000002")).unwrap();
    let written = records(&fence);
    let Record::Series(record) = Record::parse(&written[0].data) else { panic!("no series") };
    assert_eq!(record.entries().next().unwrap().unwrap().series_ref, 901);
}

/// A header of which the rest is missing is torn, whatever zeros would make of it.
#[test]
fn a_torn_header_is_cut() {
    let refs = [1, 2];
    for torn in [&[1][..], &[1, 0], &[1, 0, 0, 0], &[1, 0, 0, 0, 0, 0]] {
        for assumed in [Assumed::default(), agent()] {
            let mut bytes = segment(&[series(&refs), samples(&refs, 1000)]);
            let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            // The last byte of a value may be zero.
            let end = end.max(records(&bytes).last().unwrap().end());
            bytes.truncate(end);
            bytes.extend(torn);
            let directory = directory(&[("wal/00000000", bytes.clone())]);
            mend(directory.path(), assumed);
            assert_eq!(fs::read(directory.path().join("wal/00000000")).unwrap(), &bytes[..end], "{torn:?}");
        }
    }
}

/// A flipped bit in a series record: with it the labels are back, so nothing has lost them.
#[test]
fn what_a_correction_defines_has_its_labels() {
    let (first, second): (Vec<u64>, Vec<u64>) = ((1..6).collect(), (6..21).collect());
    let all: Vec<u64> = (1..21).collect();
    let mut log = vec![series(&first)];
    log.extend((0..30).map(|i| samples(&first, 1_000_000 + i * 1000)));
    log.push(series(&second));
    log.extend((30..90).map(|i| samples(&all, 1_000_000 + i * 1000)));
    let mut bytes = segment(&log);
    let at = bytes.windows(9).position(|window| window == b"series_17").unwrap();
    bytes[at + 3] ^= 4;
    let directory = directory(&[("wal/00000000", bytes)]);
    let (_, before, plan) = look(directory.path(), Assumed::default());
    assert_eq!(before.verdict, Verdict::Damaged);
    assert_eq!(plan.orphans, None);
    assert_eq!(plan.lost.records, Some(0));
    let after = mend(directory.path(), Assumed::default());
    assert_eq!(after.findings, []);
}

/// The usual `rm -rf checkpoint.*` on a server that has run for months.
#[test]
fn a_lost_checkpoint_of_high_number() {
    let refs = [1, 2];
    let first = segment(&[samples(&refs, 1000)]);
    let second = segment(&[series(&[3]), samples(&[3], 2000)]);
    let directory = directory(&[("wal/00004504", first), ("wal/00004505", second)]);
    let after = mend(directory.path(), Assumed::default());
    assert_eq!(after.verdict, Verdict::Clean);
    let made = directory.path().join("wal/checkpoint.00004503/00000000");
    assert_eq!(fs::read(made).unwrap(), b"");
    assert_eq!(
        fs::read_dir(directory.path().join("wal")).unwrap().count(),
        3,
        "no segments for all that is missing"
    );
}

/// A half-made repair of Prometheus's, seen by an agent that refuses a record of it.
#[test]
fn an_agent_and_an_interrupted_repair() {
    let refs = [1, 2];
    let mut metadata = vec![6];
    metadata.extend([1, 1, 0]);
    let whole = segment(&[series(&refs), metadata, samples(&refs, 1000), samples(&refs, 2000)]);
    let half = segment(&[series(&refs)]);
    let directory = directory(&[("wal/00000000", half), ("wal/00000000.repair", whole)]);
    mend(directory.path(), agent());
    let left = fs::read(directory.path().join("wal/00000000")).unwrap();
    let types: Vec<u8> = records(&left).iter().map(|record| record.data[0]).collect();
    assert_eq!(types, [1, 2, 2], "series and samples");
}

/// A snapshot that Prometheus loads in spite of damage hides what the WAL has of the series that it has lost.
#[test]
fn a_damaged_snapshot_that_still_loads_goes() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged/chunk_snapshot_damaged");
    let snapshot = "chunk_snapshot.000002.0000000000/00000000";
    let bytes = fs::read(fixture.join(snapshot)).unwrap();
    let wal = |snapshot_bytes: Vec<u8>| {
        let mut files = vec![(snapshot.to_owned(), snapshot_bytes)];
        for entry in fs::read_dir(fixture.join("wal")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            files.push((format!("wal/{name}"), fs::read(fixture.join("wal").join(&name)).unwrap()));
        }
        let files: Vec<(&str, Vec<u8>)> =
            files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
        directory(&files)
    };
    // As it is, Prometheus fails on it. Cut before the damage, with a record begun at the end of a page, it does not.
    let directory = wal(bytes.clone());
    let (.., plan) = look(directory.path(), Assumed::default());
    assert!(plan.steps.iter().any(|step| matches!(step.change, Change::SetAside { .. })), "{:?}", plan.left);

    let mut loads = bytes[..8_742].to_vec();
    // A first fragment that fills its page, and nothing behind it.
    let data = vec![7; PAGE - loads.len() - 7];
    loads.push(2);
    loads.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    loads.extend(walfix::wal::crc::checksum(&data).to_be_bytes());
    loads.extend(&data);
    loads.resize(2 * PAGE, 0);
    let directory = wal(loads);
    let (_, report, plan) = look(directory.path(), Assumed::default());
    assert_eq!(report.verdict, Verdict::Damaged);
    // It has lost series, and hides what the WAL has of them.
    let [step] = &*plan.steps else { panic!("{:?}", plan.steps) };
    assert!(matches!(step.change, Change::SetAside { .. }), "{:?}", step.change);
    assert_eq!(step.repairs[0].code.name(), "snapshot_hides_samples");
}

/// Prometheus renamed the segment and could not make the new one: a full disk.
#[test]
fn an_original_without_a_segment_in_its_place() {
    let refs = [1, 2];
    let first = segment(&[series(&refs), samples(&refs, 1000)]);
    let mut original = segment(&[samples(&refs, 2000), samples(&refs, 3000), samples(&refs, 4000)]);
    let second = records(&original)[1].offset();
    original[second + 9] ^= 0x55;
    original[second + 12] ^= 0x55;
    let directory = directory(&[("wal/00000000", first), ("wal/00000001.repair", original.clone())]);
    let after = mend(directory.path(), Assumed::default());
    assert_eq!(after.verdict, Verdict::Clean);
    let samples = after.logs.iter().map(|log| log.entries.samples).sum::<u64>();
    assert_eq!(samples, 6, "two of each record but the damaged one");
    assert!(!directory.path().join("wal/00000001.repair").exists());
}
