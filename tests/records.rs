//! Record by record, entry by entry, value by value: the same as Prometheus's own reader and decoder.
//!
//! Over logs that the oracle writes, the committed ones, and every data directory below the directories that
//! `WALFIX_DIRECTORIES` names (separated by `:`).

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::canonical;
use support::oracle::{self, Oracle};
use walfix::record::RecordType;
use walfix::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use walfix::tsdb::{LogKind, Target};
use walfix::wal::Record;
use walfix::wal::segments::list_segments;

#[derive(Default)]
struct Lines(Vec<Value>);

impl Visitor for Lines {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        self.0.push(json!({
            "end": record.end,
            "type": RecordType::of(record.data).map_or("unknown", RecordType::name),
            "size": record.data.len(),
            "crc": format!("{:08x}", crc32c::crc32c(record.data)),
            "entries": canonical::entries(record.data),
        }));
    }

    fn damage(&mut self, damage: Problem) {
        // A record that ends in a torn tail is none for Prometheus's reader either.
        assert!(damage.at_tail, "damage in a healthy log: {damage:?}");
    }
}

/// Compares a whole directory of segments; returns records and entries.
fn compare(oracle: Oracle, log: &Path) -> (usize, usize) {
    let mut ours = Vec::new();
    for segment in list_segments(log).unwrap() {
        let file = std::fs::File::open(&segment.path).unwrap();
        let length = file.metadata().unwrap().len();
        let lines: Lines = salvage(&file, length, Reading::Prometheus);
        ours.extend(lines.0.into_iter().map(|mut line| {
            line["segment"] = json!(segment.index);
            line
        }));
    }
    let (mut at, mut entries) = (0, 0);
    oracle.dump(log, |theirs| {
        if theirs.get("at").is_some() {
            return;
        }
        let mine = ours.get(at).unwrap_or_else(|| panic!("{}: missing record: {theirs}", log.display()));
        assert_eq!(mine, &theirs, "record {at} of {}", log.display());
        entries += theirs["entries"].as_array().map_or(0, Vec::len);
        at += 1;
    });
    assert_eq!(at, ours.len(), "{}: records that Prometheus does not read", log.display());
    (at, entries)
}

#[test]
fn logs_that_the_oracle_writes() {
    let Some(oracle) = oracle::judge("records against Prometheus's own decoder") else { return };
    let scratch = tempfile::tempdir().unwrap();
    for profile in ["wal", "wbl", "small", "large", "checkpoint"] {
        for compression in ["none", "snappy", "zstd", "mixed"] {
            let dir = scratch.path().join(format!("{profile}-{compression}"));
            let records = if profile == "large" { "40" } else { "400" };
            let args =
                ["--seed", "11", "--profile", profile, "--compression", compression, "--records", records];
            oracle.write(&args, &dir);
            let (records, entries) = compare(oracle, &dir);
            assert!(
                records >= 40 && entries > records,
                "{profile} {compression}: {records} records, {entries} entries"
            );
        }
    }
}

/// Data directories that somebody has: `WALFIX_DIRECTORIES=dir[:dir...]`, each one or a directory of them.
#[test]
fn directories_of_real_servers() {
    let Some(named) = std::env::var_os("WALFIX_DIRECTORIES") else { return };
    let Some(oracle) = oracle::judge("real directories against Prometheus's own decoder") else { return };
    let mut directories = Vec::new();
    for root in std::env::split_paths(&named) {
        data_directories(&root, &mut directories);
    }
    assert!(!directories.is_empty(), "no data directory below {named:?}");
    for directory in directories {
        for log in Target::find(&directory).unwrap().list().unwrap().logs {
            if log.kind != LogKind::ChunkSnapshot {
                let (records, entries) = compare(oracle, &directory.join(&log.relative));
                eprintln!(
                    "{}: {}: {records} records, {entries} entries, all the same",
                    directory.display(),
                    log.relative
                );
            }
        }
    }
}

fn data_directories(root: &Path, found: &mut Vec<PathBuf>) {
    if root.join("wal").is_dir() {
        found.push(root.to_owned());
    } else if root.is_dir() {
        let mut below: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
        below.sort();
        for path in below {
            data_directories(&path, found);
        }
    }
}
