//! What starts of Prometheus do not serve, against what its newest version serves of the same directory.

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::oracle::{self, Oracle};
use walfix::forecast::report::Samples;
use walfix::forecast::{HeadChunks, StartReads, Stretch, Version, count, min_valid_time};
use walfix::tsdb::{Listing, LogKind, Target, list_blocks};

/// A directory, and what is known of it before it is counted.
struct Directory {
    listing: Listing,
    chunks: HeadChunks,
    min_valid_time: i64,
    version: Version,
}

impl Directory {
    fn of(path: &Path, version: Version) -> Self {
        let listing = Target::find(path).unwrap().list().unwrap();
        let min_valid_time = min_valid_time(&listing, &list_blocks(path).unwrap(), version);
        let chunks = HeadChunks::read(path, "data", min_valid_time, version).unwrap();
        Self { listing, chunks, min_valid_time, version }
    }

    fn count(&self, starts: &[StartReads]) -> Vec<(Samples, Samples)> {
        count(&self.listing, starts, self.version, self.min_valid_time, &self.chunks).unwrap()
    }

    /// Everything that Prometheus replays of a healthy directory.
    fn all(&self) -> Vec<Stretch> {
        let logs = &self.listing.logs;
        let checkpoint = logs.iter().rposition(|log| log.kind == LogKind::Checkpoint);
        let last: Option<i64> =
            checkpoint.map(|log| logs[log].relative.rsplit('.').next().unwrap().parse().unwrap());
        let mut stretches = Vec::new();
        for (log, directory) in logs.iter().enumerate() {
            for (segment, file) in directory.segments.iter().enumerate() {
                let is_read = match directory.kind {
                    LogKind::Wal => last.is_none_or(|last| file.index > last),
                    LogKind::Checkpoint => Some(log) == checkpoint,
                    LogKind::Wbl => true,
                    LogKind::ChunkSnapshot => false,
                };
                if is_read {
                    stretches.push(Stretch { log, segment, upto: None });
                }
            }
        }
        stretches
    }
}

/// All that could be had.
fn base(directory: &Directory) -> Samples {
    directory.count(&[StartReads::default()])[0].0
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn served(oracle: Oracle, path: &Path) -> Value {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    copy(path, &data);
    oracle.json(&["open", "--head"], &data)
}

/// Of an answer of the oracle.
fn in_all(served: &Value) -> Samples {
    let mut all = Samples::default();
    for series in served["series"].as_array().into_iter().flatten() {
        let times = ["samples", "histograms"].iter().flat_map(|kind| series[kind].as_array().unwrap());
        for time in times.map(|sample| sample[0].as_i64().unwrap()) {
            all.samples += 1;
            all.min_time = Some(all.min_time.map_or(time, |min| min.min(time)));
            all.max_time = Some(all.max_time.map_or(time, |max| max.max(time)));
        }
        all.series += 1;
    }
    all
}

#[test]
fn healthy_directories() {
    let Some(oracle) = oracle::judge("what is served") else { return };
    let mut bad = Vec::new();
    for path in directories() {
        let directory = Directory::of(&path, Version::NEWEST);
        let start = StartReads {
            serves: true,
            replayed: directory.all(),
            left: directory.all(),
            head_chunks_deleted: false,
        };
        let counted = directory.count(&[StartReads::default(), start]);
        let judged = in_all(&served(oracle, &path));
        eprintln!("{}: {:?} {:?} {:?}", path.display(), counted[0].0, counted[1], directory.min_valid_time);
        if counted[0].0 != judged || counted[1] != Default::default() {
            bad.push(format!("{}: {judged:?} {counted:?}", path.display()));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn directories() -> Vec<PathBuf> {
    let knob = std::env::var("WALFIX_DIRECTORIES").unwrap_or_default();
    let mut found = Vec::new();
    let mut rest: Vec<PathBuf> = knob.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
    while let Some(directory) = rest.pop() {
        if directory.join("wal").is_dir() {
            found.push(directory);
            continue;
        }
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                rest.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
