//! Deletions that are lost, in plan and forecast: named where a record of tombstones is lost, by what a start of Prometheus
//! serves with and without it. And what comes of a full volume.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::oracle::{self, Oracle};
use support::{note, test};
use support::{repairs, tree};
use walfix::record::{SampleEntry, TombstoneEntry, encode_samples, encode_series, encode_tombstones};
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

/// 2026-01-01T00:00:00Z, ms.
const START: i64 = 1_767_225_600_000;
const STEP: i64 = 15_000;
const SERIES: u64 = 400;

fn series() -> Vec<u8> {
    let names: Vec<String> = (0..SERIES).map(|number| number.to_string()).collect();
    let mut record = Vec::new();
    let labels = |name: &'static [u8], number| [(&b"__name__"[..], name), (&b"number"[..], number)];
    encode_series((1..).zip(&names).map(|(at, name)| (at, labels(b"m", name.as_bytes()))), &mut record);
    record
}

fn samples(scrape: i64) -> Vec<u8> {
    let mut record = Vec::new();
    let one = |series_ref| SampleEntry {
        series_ref,
        t: START + scrape * STEP,
        st: 0,
        value_bits: 0x3FF0_0000_0000_0000,
    };
    encode_samples(&(1..=SERIES).map(one).collect::<Vec<_>>(), &mut record);
    record
}

/// All samples of the first ten series up to a scrape.
fn tombstones(upto: i64) -> Vec<u8> {
    let mut record = Vec::new();
    let one = |series_ref| TombstoneEntry { series_ref, min_time: START, max_time: START + upto * STEP };
    encode_tombstones(&(1..=10).map(one).collect::<Vec<_>>(), &mut record);
    record
}

/// Writes a segment; where each record begins and ends.
fn segment(path: &Path, records: &[Vec<u8>], compression: Compression) -> Vec<(u64, u64)> {
    let mut writer = SegmentWriter::new(Vec::new());
    for record in records {
        match compression {
            Compression::None => writer.record(compression, record).unwrap(),
            Compression::Snappy => {
                let stored = snap::raw::Encoder::new().compress_vec(record).unwrap();
                writer.record(compression, &stored).unwrap();
            }
            Compression::Zstd => {
                writer.record(compression, &zstd::bulk::compress(record, 1).unwrap()).unwrap();
            }
        }
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, writer.finish().unwrap()).unwrap();
    let written = support::pristine::Pristine::read(path).records;
    written.iter().map(|record| (record.offset() as u64, record.end() as u64)).collect()
}

fn scanned(data: &Path) -> Value {
    let said = repairs::walfix_exits(&[0, 4], &["scan", "--format=json", data.to_str().unwrap()], "scan");
    serde_json::from_str(said.lines().next().unwrap()).unwrap()
}

fn planned(data: &Path, mode: &str) -> Value {
    let mode = format!("--mode={mode}");
    let said = repairs::walfix_exits(
        &[0, 1, 4],
        &["repair", &mode, "--format=json", data.to_str().unwrap()],
        "plan",
    );
    serde_json::from_str(said.lines().next().unwrap()).unwrap()
}

/// Samples that a start serves.
fn served(oracle: Oracle, data: &Path) -> usize {
    let root = support::scratch();
    let copied = root.path().join("data");
    tree::copy(data, &copied);
    let report = oracle.json(&["open", "--head"], &copied);
    assert_eq!(report["open_error"], Value::Null, "{}", report["open_error"]);
    report["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["samples"].as_array().map_or(0, Vec::len))
        .sum()
}

/// One record is damaged: that of the deletions, or one of samples, in the last segment or one before; with all compressions. The
/// numbers of samples are arithmetic: ten series by the scrapes that were deleted come back.
#[test]
fn deletions_that_are_lost_are_named() {
    let oracle = oracle::judge("lost deletions");
    let all = usize::try_from(SERIES).unwrap() * 12;
    for compression in [Compression::None, Compression::Snappy, Compression::Zstd] {
        for (what, record) in [("tombstones", 4_usize), ("samples", 3)] {
            let about = format!("{compression:?}, {what}");
            let root = support::scratch();
            let data = root.path().join("data");
            let first = [
                vec![series()],
                (0..3).map(samples).collect(),
                vec![tombstones(2)],
                (3..6).map(samples).collect(),
            ]
            .concat();
            let places = segment(&data.join("wal/00000000"), &first, compression);
            let second =
                [(6..9).map(samples).collect(), vec![tombstones(4)], (9..12).map(samples).collect()].concat();
            segment(&data.join("wal/00000001"), &second, compression);
            assert_eq!(served(oracle, &data), all - 10 * 5, "{about}");
            let healthy = scanned(&data);
            assert_eq!(healthy["prometheus"]["starts"][0]["deletions_lost"], "none", "{about}");
            let (from, end) = places[record];
            // The last bytes of the record, so that its type is still seen.
            repairs::overwrite(&data.join("wal/00000000"), end - 3, &[0x5A, 0xA5, 0x33]);
            assert!(end - from > 20, "{about}");
            let report = scanned(&data);
            // The second segment goes, with the second deletion, whatever the damage is.
            assert_eq!(report["prometheus"]["starts"][0]["deletions_lost"], "certain", "{about}");
            let prometheus = planned(&data, "prometheus");
            assert_eq!(prometheus["lost"]["deletions"], "certain", "{about}: {}", prometheus["steps"]);
            let salvage = planned(&data, "salvage");
            let wanted = match (compression, what) {
                (Compression::Zstd, _) => "possible",
                (_, "tombstones") => "certain",
                _ => "none",
            };
            assert_eq!(salvage["lost"]["deletions"], wanted, "{about}: {}", salvage["steps"]);
            assert_eq!(report["repair"]["salvage"]["lost"]["deletions"], wanted, "{about}");
            let text = repairs::walfix_exits(&[4], &["repair", data.to_str().unwrap()], &about);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let sentence = match wanted {
                "certain" => {
                    "deletions are lost: samples that they had deleted, and that are still there, are served again"
                }
                "possible" => {
                    "what is lost may have held deletions: samples that they had deleted would be served again"
                }
                _ => "",
            };
            assert_eq!(text.contains("deleted"), wanted != "none", "{about}: {text}");
            assert!(text.contains(sentence), "{about}: {text}");
            // The other deletion covers all that the lost one did: with one scrape more nothing would come back.
            repairs::walfix_exits(&[1], &["repair", "--backup", data.to_str().unwrap()], &about);
            let lost = if what == "samples" { usize::try_from(SERIES).unwrap() - 10 } else { 0 };
            assert_eq!(served(oracle, &data), all - 10 * 5 - lost, "{about}");
        }
    }
}

/// What comes back is what the lost record had deleted.
#[test]
fn deleted_samples_come_back_without_their_record() {
    let oracle = oracle::judge("lost deletions");
    let root = support::scratch();
    let data = root.path().join("data");
    let records =
        [vec![series()], (0..6).map(samples).collect(), vec![tombstones(3)], vec![samples(6)]].concat();
    let places = segment(&data.join("wal/00000000"), &records, Compression::None);
    let all = usize::try_from(SERIES).unwrap() * 7;
    assert_eq!(served(oracle, &data), all - 10 * 4);
    repairs::overwrite(&data.join("wal/00000000"), places[7].1 - 3, &[0x5A, 0xA5, 0x33]);
    assert_eq!(planned(&data, "salvage")["lost"]["deletions"], "certain");
    repairs::walfix_exits(&[1], &["repair", "--backup", data.to_str().unwrap()], "repair");
    assert_eq!(served(oracle, &data), all);
}

/// A block of which `meta.json` counts deletions, and whose file of tombstones is gone.
#[test]
fn a_block_without_its_tombstones_is_named() {
    let root = support::scratch();
    let data = root.path().join("data");
    segment(&data.join("wal/00000000"), &[series(), samples(0)], Compression::None);
    let block = data.join("01M7ZS9S4NDJN0ZC8B8F93HKE3");
    fs::create_dir(&block).unwrap();
    // As `writeMetaFile` writes it (`tsdb/block.go`).
    let meta = |tombstones: u64| {
        let stats = json!({ "numSamples": 7, "numSeries": 2, "numChunks": 2, "numTombstones": tombstones });
        let meta = json!({ "ulid": "01M7ZS9S4NDJN0ZC8B8F93HKE3", "minTime": START - 7_200_000, "maxTime": START,
            "stats": stats, "compaction": { "level": 1 }, "version": 1 });
        fs::write(block.join("meta.json"), meta.to_string()).unwrap();
    };
    meta(0);
    let codes = || -> Vec<String> {
        let report = scanned(&data);
        let codes = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["code"].as_str().unwrap().to_owned());
        codes.filter(|code| code == "deletions_lost").collect()
    };
    assert!(codes().is_empty());
    meta(3);
    let tombstones = block.join("tombstones");
    fs::write(&tombstones, [0x01, 0x30, 0xBA, 0x30, 0x01, 0, 0, 0, 0]).unwrap();
    assert!(codes().is_empty());
    fs::remove_file(&tombstones).unwrap();
    assert_eq!(codes(), ["deletions_lost"]);
}

/// On a volume that is full, Prometheus's own repair of the last segment fails, and the start after that one deletes the original.
#[test]
fn a_repair_without_room_is_forecast() {
    let oracle = oracle::judge("a full volume");
    let root = support::scratch();
    let volume = root.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mount = |arguments: &[&str]| {
        Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(&volume)
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        support::skip("a full volume", "no file system can be mounted here");
    }
    let checked = std::panic::catch_unwind(|| without_room(oracle, &volume));
    assert!(mount(&["umount"]));
    checked.unwrap();
}

fn without_room(oracle: Oracle, volume: &Path) {
    let data = volume.join("data");
    let scrapes = |from: i64, to: i64| (from..to).map(samples).collect::<Vec<_>>();
    let first = [vec![series()], scrapes(0, 30)].concat();
    segment(&data.join("wal/00000000"), &first, Compression::Snappy);
    let places = segment(&data.join("wal/00000001"), &scrapes(30, 80), Compression::Snappy);
    fs::create_dir(data.join("chunks_head")).unwrap();
    let (from, _) = places[40];
    repairs::overwrite(&data.join("wal/00000001"), from + 20, &[0x5A; 8]);
    fs::write(data.join("lock"), []).unwrap();
    let room = |report: &Value| report["prometheus"]["no_room"].clone();
    assert_eq!(room(&scanned(&data)), Value::Null);
    // As full as it gets.
    for bytes in [1 << 16, 1 << 12] {
        let fill = |at: i32| fs::write(volume.join(format!("filler-{bytes}-{at}")), vec![0; bytes]);
        let last = (0..10_000).find(|&at| fill(at).is_err()).unwrap();
        fs::remove_file(volume.join(format!("filler-{bytes}-{last}"))).unwrap();
    }
    let report = scanned(&data);
    let foretold = room(&report);
    let original = "wal/00000001.repair";
    assert_eq!(
        (&foretold["path"], &foretold["destroys"]),
        (&json!("wal/00000001"), &json!(original)),
        "{foretold}"
    );
    assert_eq!(foretold["failing_start"], 1);
    assert_eq!(report["state"], "will_not_start");
    let pages = 32_768 * from.div_ceil(32_768);
    assert_eq!(foretold["needed"], pages);
    let says =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "no_space").unwrap();
    assert!(
        says["message"].as_str().unwrap().contains("the start after it deletes that or never reads it"),
        "{says}"
    );
    // What is foretold, done.
    let start = || oracle.json(&["open", "--head"], &data);
    let failed = start();
    let error = failed["open_error"].as_str().unwrap_or_default();
    assert!(error.contains("no space left on device"), "{error}");
    assert!(data.join(original).exists());
    let second = start();
    assert_eq!(second["open_error"], Value::Null);
    // It deletes the original where what was written ends within a record; else it never reads it.
    let count: usize = second["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["samples"].as_array().map_or(0, Vec::len))
        .sum();
    let with_room = usize::try_from(SERIES).unwrap() * 70;
    assert!(count < with_room, "{count} samples of {with_room}");
    note!("{count} samples are served of {with_room}");
}
