//! Record by record, entry by entry, value by value: the same as Prometheus's own reader and decoder; and what
//! `walfix scan` counts is what the decoder's entries sum up to.
//!
//! Over logs that the oracle writes, the committed ones, and every data directory below the directories that
//! `WALFIX_DIRECTORIES` names (separated by `:`). Those that servers have just made are in `fresh.rs`.

use std::path::{Path, PathBuf};

use support::compare::{assert_clean, compare, compare_all};
use support::oracle;
use support::{note, test};
use walfix::tsdb::LogKind;

#[test(long)]
fn logs_that_the_oracle_writes() {
    let oracle = oracle::judge("records against Prometheus's own decoder");
    let scratch = tempfile::tempdir().unwrap();
    for profile in ["wal", "wbl", "small", "large", "checkpoint"] {
        for compression in ["none", "snappy", "zstd", "mixed"] {
            let dir = scratch.path().join(format!("{profile}-{compression}"));
            let records = if profile == "large" { "40" } else { "400" };
            let args =
                ["--seed", "11", "--profile", profile, "--compression", compression, "--records", records];
            oracle.write(&args, &dir);
            let (records, entries) = compare(oracle, &dir, LogKind::Wal).totals();
            assert!(
                records >= 40 && entries > records,
                "{profile} {compression}: {records} records, {entries} entries"
            );
        }
    }
}

/// Every kind of record and entry is in there, and the report counts as many as the decoder.
#[test]
fn committed_logs() {
    let oracle = oracle::judge("committed logs against Prometheus's own decoder");
    let (mut directories, mut types, mut kinds) = (0, Vec::new(), Vec::new());
    for directory in below(&testdata("logs")) {
        let logs = compare_all(oracle, &directory, |_| true);
        assert_eq!(logs.len(), 1);
        assert_clean(&directory, &logs);
        let (_, _, counts) = &logs[0];
        assert!(counts.min_time < counts.max_time, "{counts:?}");
        note!("{}: {counts:?}", directory.display());
        directories += 1;
        types.extend(counts.records.keys().cloned());
        kinds.extend(counts.entries.keys().copied());
    }
    types.sort();
    types.dedup();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(directories >= 15, "{directories}");
    assert_eq!(types.len(), 15, "all types and unknown: {types:?}");
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}

/// Data directories in which nothing is damaged, or only tails are, as a crash leaves them.
#[test]
fn committed_directories() {
    const TAILS: [&str; 8] = [
        "torn_header_1",
        "torn_header_2",
        "torn_header_3",
        "torn_header_4",
        "torn_header_5",
        "torn_header_6",
        "torn_payload",
        "trailing_zero_pages",
    ];
    const WHOLE: [&str; 3] = ["healthy", "unknown_records", "zero_length_segment"];
    let oracle = oracle::judge("committed directories against Prometheus's own decoder");
    for kind in WHOLE.into_iter().chain(TAILS) {
        let directory = testdata("damaged").join(kind);
        let logs = compare_all(oracle, &directory, |_| true);
        assert!(logs.iter().any(|(path, _, counts)| path == "wal" && counts.totals().0 > 0), "{kind}");
        assert_clean(&directory, &logs);
        note!("{kind}: {logs:?}");
    }
    // Its checkpoint is damaged, the segments behind it are not.
    let logs = compare_all(oracle, &testdata("incident"), |path| path == "wal");
    assert!(logs.len() == 1 && logs[0].2.totals().0 > 0, "{logs:?}");
    note!("incident: {logs:?}");
}

/// Data directories that somebody has: `WALFIX_DIRECTORIES=dir[:dir...]`, each one or a directory of them; the healthy
/// one that is committed in any case.
#[test]
fn directories_of_real_servers() {
    let oracle = oracle::judge("real directories against Prometheus's own decoder");
    let mut directories = vec![testdata("damaged/healthy")];
    if let Some(named) = std::env::var_os("WALFIX_DIRECTORIES") {
        for root in std::env::split_paths(&named) {
            let before = directories.len();
            data_directories(&root, &mut directories);
            assert!(directories.len() > before, "no data directory below {}", root.display());
        }
    }
    for directory in directories {
        for (log, _, counts) in compare_all(oracle, &directory, |_| true) {
            let (records, entries) = counts.totals();
            note!("{}: {log}: {records} records, {entries} entries, all the same", directory.display());
        }
    }
}

fn testdata(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(below)
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let mut below: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    below.sort();
    below
}

fn data_directories(root: &Path, found: &mut Vec<PathBuf>) {
    if root.join("wal").is_dir() {
        found.push(root.to_owned());
    } else if root.is_dir() {
        for path in below(root) {
            data_directories(&path, found);
        }
    }
}
