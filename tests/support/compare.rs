//! A log as walfix reads it against a log as Prometheus's own reader and decoder read it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use walfix::record::{RecordType, SnapshotRecord};
use walfix::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use walfix::tsdb::{LogKind, Target};
use walfix::wal::Record;
use walfix::wal::segments::list_segments;

use super::canonical;
use super::oracle::Oracle;

/// What is in a log, counted over the oracle's dump of it. The names are those of the JSON of `walfix scan`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By type.
    pub records: BTreeMap<String, u64>,
    /// By kind; kinds without any are left out.
    pub entries: BTreeMap<&'static str, u64>,
    /// Lowest time of a sample, histogram or exemplar, ms.
    pub min_time: Option<i64>,
    /// Highest.
    pub max_time: Option<i64>,
}

impl Counts {
    /// Of all types and kinds.
    pub fn totals(&self) -> (u64, u64) {
        (self.records.values().sum(), self.entries.values().sum())
    }

    /// As a log of `walfix scan --format json` says.
    pub fn of_report(log: &Value) -> Self {
        let kinds = [
            "series",
            "samples",
            "histograms",
            "float_histograms",
            "exemplars",
            "tombstones",
            "metadata",
            "mmap_markers",
        ];
        assert_eq!(log["entries"].as_object().unwrap().len(), kinds.len(), "kinds of entries");
        let records = log["records"].as_object().unwrap().iter();
        Self {
            records: records.map(|(name, count)| (name.clone(), count.as_u64().unwrap())).collect(),
            entries: kinds
                .into_iter()
                .map(|kind| (kind, log["entries"][kind].as_u64().unwrap()))
                .filter(|&(_, count)| count > 0)
                .collect(),
            min_time: log["min_time"].as_i64(),
            max_time: log["max_time"].as_i64(),
        }
    }

    fn add(&mut self, line: &Value) {
        let record_type = line["type"].as_str().unwrap();
        *self.records.entry(record_type.to_owned()).or_default() += 1;
        for entry in line["entries"].as_array().unwrap() {
            // By what an entry says, not by the type of its record.
            let has = |key: &str| entry.get(key).is_some();
            let kind = if has("mmap_ref") {
                "mmap_markers"
            } else if has("help") {
                "metadata"
            } else if has("maxt") {
                "tombstones"
            } else if has("zero_count") {
                // Of a float histogram it is a float: the hex digits of its bits.
                if record_type.contains("float") { "float_histograms" } else { "histograms" }
            } else if has("st") {
                "samples"
            } else if has("labels") && has("t") {
                "exemplars"
            } else if has("labels") {
                "series"
            } else {
                assert_eq!(record_type, "min_valid_time", "{entry}");
                continue;
            };
            *self.entries.entry(kind).or_default() += 1;
            if let Some(time) = entry.get("t") {
                let time = Some(time.as_str().unwrap().parse().unwrap());
                self.min_time = self.min_time.or(time).min(time);
                self.max_time = self.max_time.max(time);
            }
        }
    }
}

#[derive(Default)]
struct Lines<const SNAPSHOT: bool>(Vec<Value>);

impl<const SNAPSHOT: bool> Visitor for Lines<SNAPSHOT> {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        let (name, entries) = if SNAPSHOT {
            let name = match SnapshotRecord::parse(record.data) {
                SnapshotRecord::Series(_) => "series",
                SnapshotRecord::Tombstones(_) => "tombstones",
                SnapshotRecord::Exemplars(_) => "exemplars",
                SnapshotRecord::Unknown(_) => "unknown",
            };
            (name, canonical::snapshot_entries(record.data))
        } else {
            let name = RecordType::of(record.data).map_or("unknown", RecordType::name);
            (name, canonical::entries(record.data))
        };
        self.0.push(json!({
            "end": record.end,
            "type": name,
            "size": record.data.len(),
            "crc": format!("{:08x}", crc32c::crc32c(record.data)),
            "entries": entries,
        }));
    }

    fn damage(&mut self, damage: Problem) {
        // A record that ends in a torn tail is none for Prometheus's reader either.
        assert!(damage.at_tail, "damage in a healthy log: {damage:?}");
    }
}

/// Compares a directory of segments record by record, entry by entry, value by value; nothing in it may be damaged but
/// the tails of its segments.
pub fn compare(oracle: Oracle, log: &Path, kind: LogKind) -> Counts {
    let (mut ours, mut lengths) = (Vec::new(), BTreeMap::new());
    for segment in list_segments(log).unwrap() {
        let file = std::fs::File::open(&segment.path).unwrap();
        let length = file.metadata().unwrap().len();
        lengths.insert(segment.index, length);
        let lines = if kind == LogKind::ChunkSnapshot {
            salvage::<_, Lines<true>>(&file, length, Reading::Snapshot).0
        } else {
            salvage::<_, Lines<false>>(&file, length, Reading::Prometheus).0
        };
        ours.extend(lines.into_iter().map(|mut line| {
            line["segment"] = json!(segment.index);
            line
        }));
    }
    let (mut at, mut counts) = (0, Counts::default());
    let args: &[&str] = if kind == LogKind::ChunkSnapshot { &["--snapshot"] } else { &[] };
    oracle.dump(args, log, |mut theirs| {
        if theirs.get("at").is_some() {
            return;
        }
        // Prometheus's reader makes up zeros behind the end of a file (segmentBufReader, tsdb/wlog/wlog.go): of the first
        // byte of a header it makes an empty record that nobody has written.
        if theirs["end"].as_u64() > lengths.get(&theirs["segment"].as_i64().unwrap()).copied() {
            assert_eq!(theirs["size"], 0, "{}: {theirs}", log.display());
            return;
        }
        let mine = ours.get_mut(at).unwrap_or_else(|| panic!("{}: missing record: {theirs}", log.display()));
        if kind == LogKind::ChunkSnapshot && theirs["type"] == "tombstones" {
            // Prometheus decodes them into a map, which has no order.
            sort(&mut theirs);
            sort(mine);
        }
        assert_eq!(*mine, theirs, "record {at} of {}", log.display());
        counts.add(&theirs);
        at += 1;
    });
    assert_eq!(at, ours.len(), "{}: records that Prometheus does not read", log.display());
    counts
}

fn sort(line: &mut Value) {
    line["entries"].as_array_mut().unwrap().sort_by_cached_key(Value::to_string);
}

/// As [`compare`], for each log in `directory` that is `wanted` (by its path in it).
pub fn compare_all(
    oracle: Oracle,
    directory: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Vec<(String, LogKind, Counts)> {
    let logs = Target::find(directory).unwrap().list().unwrap().logs;
    let wanted = logs.into_iter().filter(|log| wanted(&log.relative));
    wanted
        .map(|log| {
            let counts = compare(oracle, &directory.join(&log.relative), log.kind);
            (log.relative, log.kind, counts)
        })
        .collect()
}

/// Asserts that `walfix scan` finds `directory` clean, and counts in its logs what the oracle does. A chunk snapshot has
/// no times in the report.
pub fn assert_clean(directory: &Path, logs: &[(String, LogKind, Counts)]) {
    let output = Command::new(super::walfix())
        .args(["scan", "--format", "json"])
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.code(), Some(0), "{}: {:#}", directory.display(), report["findings"]);
    assert_eq!(report["verdict"], "clean");
    let reported = report["logs"].as_array().unwrap();
    for (path, kind, counts) in logs {
        let log = reported.iter().find(|log| log["path"] == path.as_str());
        let mut ours = Counts::of_report(log.unwrap_or_else(|| panic!("no log {path:?}: {report}")));
        if *kind == LogKind::ChunkSnapshot {
            (ours.min_time, ours.max_time) = (counts.min_time, counts.max_time);
        }
        assert_eq!(&ours, counts, "{}: {path:?}", directory.display());
    }
}
