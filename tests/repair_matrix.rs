//! What a repair leaves is what real Prometheus servers, and its newest packages, then serve without a complaint.
//!
//! Healthy directories of every sort are damaged in every way in every place (`docs/forecast.md` has the list) and
//! repaired. Then a server is started on them twice: it comes up at the first try, logs no corruption, cuts and deletes
//! nothing, serves every sample of the records that the damage has left whole and no other, and its next checkpoint succeeds.
//!
//! By default that is a part of it all, with the newest server there is. The knobs are those of `tests/forecast.rs`:
//! `WALFIX_MATRIX`, `WALFIX_ROWS`, `WALFIX_CASES`, `WALFIX_DIRECTORIES`.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::bases::{read_tree, write_tree};
use support::matrix::{Case, Matrix, bases, cases, in_lanes, judges};
use support::oracle::{self, Oracle};
use support::recipes::Damaged;
use support::truth::{Start, measure};

/// Damages that are not mended yet, and must then be left as they are: rows, by number.
const NOT_YET: [u32; 2] = [19, 33];

/// What a repair said.
struct Repaired {
    exit: i32,
    answer: Value,
}

fn repair(case: &Case<'_>, data: &Path, backup: &Path) -> Repaired {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(["repair", "--accept-orphans", "--format=json"]);
    command
        .arg(format!("--backup={}", backup.display()))
        .arg(format!("--prometheus={}", case.judge.version()));
    if case.base.agent {
        command.arg("--agent");
    }
    let output = command.arg(data).stdin(Stdio::null()).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{}: {}", case.name(), String::from_utf8_lossy(&output.stderr));
    });
    Repaired { exit: output.status.code().unwrap_or(-1), answer }
}

/// What is wrong with a case; and what it came to, in words.
fn judge(case: &Case<'_>, oracle: Oracle) -> (String, Vec<String>) {
    let damaged = case.row.apply(case.base, &case.file).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (data, backup) = (scratch.path().join("data"), scratch.path().join("backup"));
    write_tree(&damaged.tree, &data);
    let repaired = repair(case, &data, &backup);
    let tree = read_tree(&data);
    let left = repaired.answer["left"].as_array().unwrap();
    if !left.is_empty() {
        let untouched = repaired.answer["steps"].as_array().unwrap().is_empty() && tree == damaged.tree;
        let excused = NOT_YET.contains(&case.row.number()) && untouched && repaired.exit == 4;
        let words = left[0]["reason"].as_str().unwrap_or_default().to_owned();
        let wrong = if excused { Vec::new() } else { vec![format!("not repaired: {left:?}")] };
        return (format!("left: {words}"), wrong);
    }
    let mut wrong = Vec::new();
    if !matches!(repaired.exit, 0 | 1) {
        wrong.push(format!("exit {}", repaired.exit));
    }
    // A record of which the flipped bit was found stands again.
    let corrects = repaired.answer["steps"].as_array().unwrap().iter().any(|step| {
        let mends = step["mends"].as_array().unwrap();
        mends.iter().any(|mends| mends["how"] == "the flipped bit is put right")
    });
    let mut standing = damaged.standing.clone();
    if let Some((file, with_it)) = damaged.mended.clone().filter(|_| corrects) {
        standing.insert(file, with_it);
    }
    let now = Damaged { tree, standing, mended: None, abandoned: None };
    let healthy = scratch.path().join("healthy");
    write_tree(&case.base.tree, &healthy);
    let truth = measure(
        case.base,
        &now,
        (&case.judge, oracle),
        (&case.name(), case.end, 2),
        (&scratch.path().join("states"), &healthy),
    );
    for (number, start) in truth.starts.iter().enumerate() {
        let unserved = truth.not_replayed[0][number].samples;
        wrong.extend(complaints(start).into_iter().map(|words| format!("start {}: {words}", number + 1)));
        if unserved > 0 && !case.base.agent {
            wrong.push(format!("start {}: {unserved} samples are not served", number + 1));
        }
    }
    (format!("exit {}, {} samples served", repaired.exit, truth.starts[0].served), wrong)
}

fn complaints(start: &Start) -> Vec<String> {
    let mut all = Vec::new();
    if start.outcome != "up" {
        all.push(format!("it is not up: {}", start.outcome));
    }
    for words in start.error.iter().chain(&start.fatal).chain(&start.checkpoint) {
        all.push(words.clone());
    }
    if start.repairs || !start.deletes.is_empty() || !start.truncates.is_empty() {
        all.push(format!("it repairs: deletes {:?}, cuts {:?}", start.deletes, start.truncates));
    }
    if start.strange > 0 {
        all.push(format!("it serves {} samples that were never there", start.strange));
    }
    all
}

#[test]
fn what_is_left_is_served() {
    let what = "repairs";
    let Some(oracle) = oracle::judge(what) else { return };
    let (matrix, begun) = (Matrix::wanted(), Instant::now());
    let bases = bases(oracle);
    let cases = cases(&bases, &judges(what, oracle, matrix), matrix);
    assert!(!cases.is_empty(), "no such cases");
    let results = in_lanes(&cases, |case| (case.name(), judge(case, oracle)));
    let results: BTreeMap<_, _> = results.into_iter().map(|(_, judged)| judged).collect();
    println!("{} cases, {:?}", results.len(), begun.elapsed());
    for (name, (words, _)) in &results {
        println!("{name}: {words}");
    }
    let wrong: Vec<String> = results
        .iter()
        .filter(|(_, (_, wrong))| !wrong.is_empty())
        .map(|(name, (_, wrong))| format!("{name}\n    {}\n", wrong.join("\n    ")))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), results.len(), wrong.concat());
}
