//! A WAL that was begun anew beside a damaged checkpoint, in states of which the repair must not make too much.
//!
//! The directory is that of `support::repairs`: the checkpoint defines series 1 to 37 before the damage, 38 to 65 are lost in it; a
//! later run has given 38 to 44 to others.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::oracle::{self, Oracle};
use support::repairs::{
    CASES, Place, fixture, overwrite, samples_record, series_record, walfix_exits, write_log,
};
use support::tree::{contents, tree};

/// When the later run took its samples, ms.
const T: i64 = 1_749_990_000_000;

fn begun_anew() -> Place {
    let case = CASES.iter().find(|case| case.name.starts_with("a WAL begun anew"));
    case.expect("there is that case").place()
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
    let Some(oracle) = oracle::judge("a WAL begun anew") else { return };
    let place = begun_anew();
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
    let Some(oracle) = oracle::judge("a WAL begun anew whose series are lost") else { return };
    for lost in [&["wal/00000001"][..], &["wal/00000001", "wal/00000002"]] {
        let place = begun_anew();
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

/// A gap in the WBL is another matter, and mended too.
#[test]
fn a_gap_in_the_wbl_beside() {
    let place = begun_anew();
    write_log(&place.data().join("wbl/00000002"), &[samples_record(1..=5, T - 5_000)]);
    repair(&place.data(), &[], &[1]);
    walfix_exits(&[0], &["scan", place.data().to_str().expect("a path")], "scan");
}

/// Somebody has put the deleted segments back, beside those of the newest run: whose they are is not guessed.
#[test]
fn segments_that_were_put_back() {
    for index in [4, 6] {
        let place = begun_anew();
        let older = [series_record(38..=40, "old"), samples_record(38..=40, T - 600_000)];
        write_log(&place.data().join(format!("wal/{index:08}")), &older);
        let before = tree(&place.data());
        let said = repair(&place.data(), &[], &[4]);
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("move those of all but the newest"), "{said}");
        assert_eq!(contents(&tree(&place.data())), contents(&before));
    }
}

/// `--mode prometheus` cuts the checkpoint; series that were made since stay what they are.
#[test]
fn a_checkpoint_that_is_cut_takes_no_ref() {
    let Some(oracle) = oracle::judge("a checkpoint that is cut") else { return };
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
        let place = begun_anew();
        let made = Command::new("mkfifo").arg(place.data().join(path)).status().expect("mkfifo runs");
        assert!(made.success());
        let before = tree(&place.data());
        repair(&place.data(), &[], &[4]);
        assert_eq!(contents(&tree(&place.data())), contents(&before), "{path}");
        repair(&place.data(), &["--mode=prometheus"], &[4]);
    }
}
