//! Logs of Loki: the framing is Prometheus's and is judged, the records are not and are left alone.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::test;

const PAGE: usize = 32768;

/// A segment as Prometheus's writer makes it, uncompressed as Loki's are; records begin where the vector says.
fn segment(records: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for record in records {
        let mut rest = &record[..];
        let mut first = true;
        loop {
            let room = PAGE - bytes.len() % PAGE;
            if room < 7 {
                bytes.resize(bytes.len() + room, 0);
                continue;
            }
            let (data, after) = rest.split_at(rest.len().min(room - 7));
            if first {
                starts.push(bytes.len());
            }
            bytes.push(match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            });
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(crc32c::crc32c(data).to_be_bytes());
            bytes.extend(data);
            (rest, first) = (after, false);
            if rest.is_empty() {
                break;
            }
        }
    }
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    (bytes, starts)
}

fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn string(out: &mut Vec<u8>, string: &str) {
    uvarint(out, string.len() as u64);
    out.extend(string.as_bytes());
}

fn fingerprint(series: u64) -> [u8; 8] {
    series.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// Type 1: tenant, and a whole series record of Prometheus's.
fn series(tenant: &str, of: std::ops::Range<u64>) -> Vec<u8> {
    let mut out = vec![1];
    string(&mut out, tenant);
    out.push(1);
    for i in of {
        out.extend(fingerprint(i));
        uvarint(&mut out, 2);
        for (name, value) in [("app", "shop"), ("pod", &*format!("shop-{i}"))] {
            string(&mut out, name);
            string(&mut out, value);
        }
    }
    out
}

/// Types 2, 4 and 5: tenant, base time in ns, lines by series.
fn entries(version: u8, tenant: &str, of: std::ops::Range<u64>, lines: u64) -> Vec<u8> {
    let mut out = vec![version];
    string(&mut out, tenant);
    out.extend(1_700_000_000_000_000_000_i64.to_be_bytes());
    for i in of {
        out.extend(fingerprint(i));
        if version > 2 {
            out.extend((i + lines).to_be_bytes());
        }
        uvarint(&mut out, lines);
        for line in 0..lines {
            uvarint(&mut out, line * 2_000_000);
            string(&mut out, &format!("level=info pod=shop-{i} line={line} msg=\"sold\""));
            if version > 4 {
                uvarint(&mut out, 1);
                string(&mut out, "trace_id");
                string(&mut out, &format!("{:016x}", i * lines + line));
            }
        }
    }
    out
}

/// Type 3: a protobuf message: tenant, fingerprint, labels, a chunk, a time, the last line, a counter.
fn checkpointed(tenant: &str, of: u64) -> Vec<u8> {
    let mut out = vec![3, 1 << 3 | 2];
    string(&mut out, tenant);
    out.push(2 << 3);
    uvarint(&mut out, u64::from_be_bytes(fingerprint(of)));
    let mut label = vec![1 << 3 | 2];
    string(&mut label, "pod");
    label.push(2 << 3 | 2);
    string(&mut label, &format!("shop-{of}"));
    for (field, bytes) in [(3, &label[..]), (4, &[0x28, 1, 0x3a, 3, 0, 0x80, 0xff]), (5, &[8, 0x80, 1])] {
        out.push(field << 3 | 2);
        uvarint(&mut out, bytes.len() as u64);
        out.extend(bytes);
    }
    out.push(6 << 3 | 2);
    string(&mut out, "level=info");
    out.push(7 << 3);
    uvarint(&mut out, 300 + of);
    out
}

/// Series first, then entries of every version, of many fragments the largest.
fn usual() -> Vec<Vec<u8>> {
    let mut records = vec![series("fake", 0..20)];
    for (i, version) in (0..60).zip([2, 4, 5].into_iter().cycle()) {
        records.push(entries(version, "fake", i % 20..i % 20 + 1, if i == 30 { 2000 } else { 5 + i }));
        if i % 20 == 0 {
            records.push(series("team-b", i..i + 3));
        }
    }
    records
}

fn write(directory: &Path, segments: &[Vec<u8>]) {
    std::fs::create_dir_all(directory).unwrap();
    for (index, segment) in segments.iter().enumerate() {
        std::fs::write(directory.join(format!("{index:08}")), segment).unwrap();
    }
}

#[track_caller]
fn scan(directory: &Path, exit: i32) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_walfix"))
        .args(["scan", "--format", "json"])
        .arg(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{report:#}");
    for log in report["logs"].as_array().unwrap() {
        assert_eq!(log["dialect"], "loki", "{}", log["path"]);
        assert!(log["entries"].as_object().unwrap().values().all(|count| count == 0), "{log}");
    }
    report
}

fn records(report: &Value) -> u64 {
    let logs = report["logs"].as_array().unwrap().iter();
    logs.flat_map(|log| log["segments"].as_array().unwrap()).map(|s| s["records"].as_u64().unwrap()).sum()
}

/// Loki's directory is the log itself, and the name of its checkpoint has fewer digits.
#[test]
fn a_healthy_log() {
    let directory = tempfile::tempdir().unwrap();
    let wal = directory.path().join("loki-wal");
    let all = usual();
    write(&wal, &[segment(&all[..40]).0, segment(&all[40..]).0]);
    let checkpoint: Vec<_> = (0..50).map(|i| checkpointed("fake", i)).collect();
    write(&wal.join("checkpoint.000003"), &[segment(&checkpoint).0]);
    // Both ways to name it.
    for path in [&wal, &wal.join("checkpoint.000003")] {
        let report = scan(path, 0);
        assert_eq!(report["verdict"], "clean");
        assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
    }
    assert_eq!(records(&scan(&wal, 0)), (all.len() + checkpoint.len()) as u64);
}

/// After a checkpoint the segments need not begin with series.
#[test]
fn every_kind_of_record_is_recognised() {
    let kinds = [
        series("fake", 0..3),
        entries(2, "fake", 0..3, 4),
        checkpointed("fake", 1),
        entries(4, "fake", 0..3, 4),
        entries(5, "fake", 0..3, 4),
    ];
    for record in kinds {
        assert!(walfix::record::is_loki(&record), "type {}", record[0]);
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("wal"), &[segment(&[record.clone(), record]).0]);
        let report = scan(directory.path(), 0);
        assert_eq!(report["findings"], serde_json::json!([]));
    }
}

#[test]
fn framing_damage_is_found() {
    let all = usual();
    let (healthy, starts) = segment(&all);
    assert!(healthy.len() > 3 * PAGE);
    let directory = tempfile::tempdir().unwrap();
    for (damaged, name) in [(5, "overwritten"), (25, "zeroed")] {
        let (start, end) = (starts[damaged], starts[damaged + 1]);
        assert_eq!(start / PAGE, end / PAGE, "one fragment");
        let mut bytes = healthy.clone();
        if name == "zeroed" {
            bytes[start + 40..end - 9].fill(0);
        } else {
            bytes[start + 20] ^= 0x55;
            bytes[start + 21] ^= 0xaa;
        }
        let wal = directory.path().join(name);
        write(&wal, &[bytes, healthy.clone()]);
        let report = scan(&wal, 4);
        let [finding] = &report["findings"].as_array().unwrap()[..] else { panic!("{report:#}") };
        assert_eq!((&finding["code"], &finding["severity"]), (&"checksum_mismatch".into(), &"damage".into()));
        assert_eq!((&finding["offset"], &finding["end"]), (&start.into(), &end.into()));
        assert_eq!(finding["path"], "00000000");
        assert_eq!(records(&report), 2 * all.len() as u64 - 1);
    }
}
