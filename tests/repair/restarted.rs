//! A WAL that was restarted beside a damaged checkpoint, in states of which the repair must not make too much.
//!
//! The directory is that of `support::repairs`: the checkpoint defines series 1 to 37 before the damage, 38 to 65 are lost in it; a
//! later run has given 38 to 44 to others.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::oracle::{self, Oracle};
use support::repairs::{
    CASES, Place, fixture, overwrite, samples_record, series_record, walfix_exits, write_log,
};
use support::test;
use support::tree::{self, contents, tree};
use walfix::repair::plan::Loss;

/// When the later run took its samples, ms.
const T: i64 = 1_749_990_000_000;

fn restarted() -> Place {
    place("a WAL begun anew")
}

fn place(name: &str) -> Place {
    let case = CASES.iter().find(|case| case.name.starts_with(name));
    case.expect("there is that case").place()
}

/// Its last checkpoint.
const CHECKPOINT: &str = "wal/checkpoint.00000002";

/// The fixture's checkpoint with its one damaged bit put right, under this path.
fn whole_checkpoint(data: &Path, path: &str) {
    let whole = Place::of("checkpoint_series_damaged");
    repair(&whole.data(), &[], &[1]);
    let to = data.join(path);
    fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    tree::copy(&whole.data().join(CHECKPOINT), &to);
}

/// What is planned.
fn plan(data: &Path, more: &[&str]) -> Value {
    let arguments = [&["repair", "--format=json"], more, &[data.to_str().expect("a path")]].concat();
    serde_json::from_str(&walfix_exits(&[4], &arguments, "a plan")).expect("JSON")
}

/// How many samples of these series are in a log, and from when to when, by the oracle's word.
fn samples_in(oracle: Oracle, log: &Path, refs: &RangeInclusive<u64>) -> (usize, Option<i64>, Option<i64>) {
    let mut times = Vec::new();
    oracle.dump(&[], log, |line| {
        for entry in
            line["entries"].as_array().into_iter().flatten().filter(|entry| entry.get("st").is_some())
        {
            let series_ref: u64 = entry["ref"].as_str().expect("a ref").parse().expect("a number");
            if refs.contains(&series_ref) {
                times.push(entry["t"].as_str().expect("a time").parse::<i64>().expect("a number"));
            }
        }
    });
    (times.len(), times.iter().copied().min(), times.iter().copied().max())
}

fn repair(data: &Path, more: &[&str], codes: &[i32]) -> String {
    let path = data.to_str().expect("a path");
    let arguments = [&["repair", "--backup", "--accept-orphans"][..], more, &[path]].concat();
    walfix_exits(codes, &arguments, "repair")
}

/// Times of the samples that the newest Prometheus serves, by labels; it must not complain.
fn served(oracle: Oracle, data: &Path) -> BTreeMap<String, Vec<i64>> {
    let copy = support::repairs::temporary();
    support::tree::copy(data, &copy.path().join("data"));
    let report = oracle.json(&["open", "--head"], &copy.path().join("data"));
    assert_eq!(report["open_error"], Value::Null);
    let mut all = BTreeMap::new();
    for series in report["series"].as_array().expect("series") {
        let times = series["samples"].as_array().into_iter().flatten();
        let times = times.map(|sample| sample[0].as_i64().expect("a time")).collect();
        all.insert(series["labels"].to_string(), times);
    }
    all
}

/// With nothing lost but the rest of the checkpoint, what has been written since is served, and nothing else at that time.
#[test]
fn the_newest_run_is_served() {
    let oracle = oracle::judge("a WAL that was restarted");
    let place = restarted();
    repair(&place.data(), &[], &[1]);
    let served = served(oracle, &place.data());
    let new = |n: u64| format!(r#"[["__name__","new_{n}"]]"#);
    for n in 38..=43 {
        assert_eq!(served.get(&new(n)), Some(&vec![T, T + 15_000]), "{n}");
    }
    assert_eq!(served.get(&new(44)), Some(&vec![T + 15_000]));
    let at_that_time = served.values().filter(|times| times.contains(&(T + 15_000))).count();
    assert_eq!(at_that_time, 44);
}

/// The records of its first series are damaged as well: their samples belong to nobody who is known.
#[test]
fn its_first_series_are_lost() {
    let oracle = oracle::judge("a WAL that was restarted whose series are lost");
    for lost in [&["wal/00000001"][..], &["wal/00000001", "wal/00000002"]] {
        let place = restarted();
        for segment in lost {
            // In the first record, which is one of series.
            overwrite(&place.data().join(segment), 20, &[0x5A; 8]);
        }
        repair(&place.data(), &[], &[1]);
        let served = served(oracle, &place.data());
        let at_that_time = served.values().filter(|times| times.contains(&(T + 15_000))).count();
        // Those of 1 to 37, and of 44 if that is there.
        assert_eq!(at_that_time, 37 + usize::from(lost.len() == 1), "{lost:?}");
    }
}

/// A gap in the WBL is another matter, and is repaired too.
#[test]
fn a_gap_in_the_wbl_beside() {
    let place = restarted();
    write_log(&place.data().join("wbl/00000002"), &[samples_record(1..=5, T - 5_000)]);
    repair(&place.data(), &[], &[1]);
    walfix_exits(&[0], &["scan", place.data().to_str().expect("a path")], "scan");
}

/// Somebody has put the deleted segments back, beside those of the newest run: whose they are is not guessed.
#[test]
fn segments_that_were_put_back() {
    for index in [4, 6] {
        let place = restarted();
        let older = [series_record(38..=40, "old"), samples_record(38..=40, T - 600_000)];
        write_log(&place.data().join(format!("wal/{index:08}")), &older);
        let before = tree(&place.data());
        let said = repair(&place.data(), &[], &[4]);
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("move all but those of the newest"), "{said}");
        assert_eq!(contents(&tree(&place.data())), contents(&before));
    }
}

/// `--mode prometheus` cuts the checkpoint; series that were made since stay what they are.
#[test]
fn a_checkpoint_that_is_cut_takes_no_ref() {
    let oracle = oracle::judge("a checkpoint that is cut");
    let root = support::repairs::temporary();
    fixture("checkpoint_series_damaged", root.path());
    let data = root.path().join("data");
    overwrite(&data.join("wal/checkpoint.00000002/00000000"), 3_500, &[0x5A; 8]);
    write_log(&data.join("wal/00000005"), &[series_record(66..=67, "new"), samples_record(66..=67, T)]);
    repair(&data, &["--mode=prometheus"], &[1]);
    let served = served(oracle, &data);
    for n in [66, 67] {
        assert_eq!(served.get(&format!(r#"[["__name__","new_{n}"]]"#)), Some(&vec![T]), "{n}");
    }
}

/// A pipe by the name of a segment: opening it would wait for ever.
#[test]
fn a_pipe_among_them() {
    for path in ["wal/00000009", "wal/checkpoint.00000002/00000001", "wbl/00000001"] {
        let place = restarted();
        let made = Command::new("mkfifo").arg(place.data().join(path)).status().expect("mkfifo runs");
        assert!(made.success());
        let before = tree(&place.data());
        repair(&place.data(), &[], &[4]);
        assert_eq!(contents(&tree(&place.data())), contents(&before), "{path}");
        repair(&place.data(), &["--mode=prometheus"], &[4]);
    }
}

/// What loses its labels is counted, and nothing is changed before somebody has said that so much is meant.
#[test]
fn what_loses_its_labels_is_counted_first() {
    let oracle = oracle::judge("what loses its labels");
    let whole = support::repairs::temporary();
    whole_checkpoint(whole.path(), "wal");
    for (name, mode) in [
        ("a damaged checkpoint behind", "--mode=salvage"),
        ("a checkpoint, and a fence", "--mode=prometheus"),
    ] {
        let place = place(name);
        let data = place.data();
        // Cut, the checkpoint has no sample left; else it is all there is.
        let log = if mode == "--mode=prometheus" { data.join("wal") } else { whole.path().join("wal") };
        let (samples, from, to) = samples_in(oracle, &log, &(38..=65));
        assert!(samples > 28, "{samples}");
        let orphans = &plan(&data, &[mode])["orphans"];
        for (key, expected) in [
            ("series", json!(28)),
            ("samples", json!(samples)),
            ("head_chunks", json!(0)),
            ("from", json!(from)),
            ("to", json!(to)),
        ] {
            assert_eq!(orphans[key], expected, "{mode}: {key}");
        }
        let before = tree(&data);
        let arguments = ["repair", "--backup", mode, data.to_str().expect("a path")];
        let said = walfix_exits(&[8], &arguments, "without a word");
        assert!(said.contains("--accept-orphans") && said.contains("of 28 series"), "{said}");
        assert_eq!(contents(&tree(&data)), contents(&before));
    }
}

/// So it is where the newest run has lost its own series; what the checkpoint has under these refs goes.
#[test]
fn lost_series_of_the_newest_run_are_counted() {
    let place = restarted();
    // The record of 38 to 43.
    overwrite(&place.data().join("wal/00000001"), 20, &[0x5A; 8]);
    let orphans = &plan(&place.data(), &[])["orphans"];
    for (key, expected) in [
        ("series", json!(6)),
        ("samples", json!(12)),
        ("head_chunks", json!(1)),
        ("from", json!(T - 10_000_000)),
        ("to", json!(T + 15_000)),
    ] {
        assert_eq!(orphans[key], expected, "{key}");
    }
}

/// Nothing is damaged but the numbers; and one series has no record.
#[test]
fn what_has_no_labels_is_counted_where_numbers_alone_are_repaired() {
    let root = support::repairs::temporary();
    let records = [series_record(1..=3, "a"), samples_record(1..=4, T)];
    write_log(&root.path().join(CHECKPOINT).join("00000000"), &records);
    let orphans = &plan(root.path(), &[])["orphans"];
    assert_eq!((&orphans["series"], &orphans["samples"], &orphans["of"]), (&json!(1), &json!(1), &json!(4)));
}

/// All segments are gone, and with them nothing that could have handed out a ref again.
#[test]
fn labels_come_back_where_nothing_has_restarted() {
    let oracle = oracle::judge("labels after a checkpoint that is ahead");
    let place = place("a damaged checkpoint behind");
    let data = place.data();
    let healthy = support::repairs::temporary();
    whole_checkpoint(healthy.path(), CHECKPOINT);
    let expected = served(oracle, healthy.path());
    whole_checkpoint(&data, "wal/checkpoint.00000001");
    let planned = plan(&data, &[]);
    assert_eq!(planned["labels"]["found"], json!([{ "path": "wal/checkpoint.00000001", "series": 28 }]));
    assert_eq!(planned["orphans"], Value::Null);
    walfix_exits(&[1], &["repair", "--backup", data.to_str().expect("a path")], "repair");
    assert_eq!(served(oracle, &data), expected);
}

/// An older checkpoint has series under the refs that the newest run has handed out again: these are others.
#[test]
fn the_newest_run_gets_no_labels_of_before() {
    let oracle = oracle::judge("labels of before");
    let place = restarted();
    whole_checkpoint(&place.data(), "wal/checkpoint.00000001");
    overwrite(&place.data().join("wal/00000001"), 20, &[0x5A; 8]);
    repair(&place.data(), &[], &[1]);
    let served = served(oracle, &place.data());
    let at_that_time = served.values().filter(|times| times.contains(&(T + 15_000))).count();
    // 1 to 37, and 44.
    assert_eq!(at_that_time, 38);
}

/// Refs up to the highest that was read before the damage mean the same before and since.
#[test]
fn labels_that_both_runs_share_come_back() {
    let oracle = oracle::judge("labels that two runs share");
    let root = support::repairs::temporary();
    let data = root.path();
    let checkpoint = |path: &str| {
        let records = [
            series_record(1..=1, "shared"),
            series_record(9..=9, "shared"),
            series_record(5..=5, "lost"),
            series_record(10..=10, "old"),
            samples_record(1..=1, T - 600_000),
            samples_record(5..=5, T - 600_000),
            samples_record(9..=10, T - 600_000),
        ];
        write_log(&data.join(path).join("00000000"), &records);
    };
    checkpoint(CHECKPOINT);
    checkpoint("wal/checkpoint.00000001");
    let damaged = data.join(CHECKPOINT).join("00000000");
    let bytes = fs::read(&damaged).expect("a segment");
    let at = bytes.windows(6).position(|window| window == b"lost_5").expect("its name");
    overwrite(&damaged, at as u64, &[0x5A; 6]);
    fs::write(data.join("wal/00000000"), vec![0; 32_768]).expect("a file");
    write_log(
        &data.join("wal/00000001"),
        &[series_record(10..=10, "new"), samples_record(1..=1, T), samples_record(9..=10, T)],
    );
    repair(data, &[], &[1]);
    let served = served(oracle, data);
    let of = |name: &str| served.get(&format!(r#"[["__name__","{name}"]]"#)).cloned().unwrap_or_default();
    assert_eq!(of("lost_5"), [T - 600_000]);
    assert_eq!(of("shared_9"), [T - 600_000, T]);
    assert_eq!(of("new_10"), [T]);
    assert_eq!(of("old_10"), [0; 0]);
}

/// Up to 2.38 Prometheus asks for no encoding of a head chunk, and gives it to the series with its ref.
#[test]
fn a_version_that_does_not_pass_over_head_chunks() {
    let place = restarted();
    let before = tree(&place.data());
    for version in ["2.37.0", "2.38.0"] {
        let said = repair(&place.data(), &["--prometheus", version], &[4]);
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("Prometheus before 2.39 cannot be made to skip them"), "{said}");
        assert_eq!(contents(&tree(&place.data())), contents(&before));
    }
    // Without such a chunk it need not.
    fs::remove_dir_all(place.data().join("chunks_head")).expect("it is there");
    repair(&place.data(), &["--prometheus", "2.37.0"], &[1]);
    let place = restarted();
    repair(&place.data(), &["--prometheus", "2.39.0"], &[1]);
}

/// One part of what is lost is not known; the others are.
#[test]
fn what_is_known_of_a_loss_is_said() {
    let oracle = oracle::judge("a loss of which a part is known");
    let place = restarted();
    let whole = support::repairs::temporary();
    whole_checkpoint(whole.path(), "wal");
    // The headers of the record that defines 38 to 65, and of what follows.
    overwrite(&place.data().join(CHECKPOINT).join("00000000"), 3_368, &[0x5A; 2_802]);
    // Samples of these in the checkpoint, of 38 to 40 in the WBL, and the one of the head chunk.
    let known = samples_in(oracle, whole.path().join("wal").as_path(), &(38..=65)).0 + 3 + 1;
    let planned = plan(&place.data(), &[]);
    assert_eq!(planned["lost"]["records"], Value::Null);
    assert_eq!(planned["lost"]["entries"], Value::Null);
    assert_eq!(planned["lost"]["entries_at_least"], json!(known));
    let said = walfix_exits(&[4], &["repair", place.data().to_str().expect("a path")], "a plan");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains(&format!("with {known} entries, and the contents of the damaged bytes")),
        "{said}"
    );
    // As the backup of an earlier version has it.
    let loss: Loss = serde_json::from_value(json!({ "records": 2, "entries": null })).expect("a loss");
    assert_eq!((loss.records, loss.entries), (Some(2), None));
}

/// A segment that is rewritten for the entries that go says nothing of holes.
#[test]
fn why_a_segment_is_rewritten() {
    let place = restarted();
    let planned = plan(&place.data(), &[]);
    let mut steps = planned["steps"].as_array().into_iter().flatten();
    let first = format!("{CHECKPOINT}/00000000");
    let step = steps.find(|step| step["change"]["path"] == first).expect("the checkpoint is rewritten");
    assert_eq!(step["change"]["kind"], "rewrite");
    let damage =
        step["mends"].as_array().into_iter().flatten().find(|mends| mends["code"] == "checksum_mismatch");
    assert_eq!(damage.expect("its damage")["how"], "the segment is rewritten without it");
}

/// So many series that not all are named: that is said, and how many they are.
#[test]
fn more_series_are_lost_than_are_named() {
    let root = support::repairs::temporary();
    let data = root.path();
    let damaged = data.join(CHECKPOINT).join("00000000");
    let records =
        [series_record(1..=1, "kept"), samples_record(1..=1, T), series_record(2..=100_004, "lost")];
    // The last series is there twice.
    write_log(&damaged, &[&records[..], &[series_record(100_004..=100_004, "lost")]].concat());
    write_log(&data.join("wal/00000003"), &[samples_record(1..=1, T + 15_000)]);
    // In the record of one sample, of which Prometheus reads no more.
    let bytes = fs::read(&damaged).expect("a segment");
    let at = bytes.windows(6).position(|window| window == b"kept_1").expect("its name") + 6 + 7;
    overwrite(&damaged, at as u64, &[0x5A; 8]);
    let planned = plan(data, &["--mode=prometheus"]);
    assert_eq!(planned["lost_series"].as_array().map(Vec::len), Some(100_000));
    assert_eq!(planned["lost_series_count"], 100_003);
    let arguments = ["repair", "--mode=prometheus", data.to_str().expect("a path")];
    let said = walfix_exits(&[4], &arguments, "a plan");
    assert!(said.contains("series that are lost: 100 003"), "{said}");
    assert!(said.contains("and 99 983 more; --format=json names the first 100 000"), "{said}");
}

/// Where Prometheus has been started it goes on without the checkpoint: to cut that would be half a repair.
#[test]
fn a_directory_that_was_started_is_not_cut() {
    for name in ["a damaged checkpoint behind", "a WAL begun anew"] {
        let place = place(name);
        let before = tree(&place.data());
        let said = repair(&place.data(), &["--mode=prometheus"], &[4]);
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("has run since"), "{said}");
        assert_eq!(contents(&tree(&place.data())), contents(&before), "{name}");
    }
}
