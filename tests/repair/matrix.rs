//! What a repair leaves is what real Prometheus servers, and its newest packages, then serve without a complaint.
//!
//! Healthy directories of every sort are damaged in every way in every place (`docs/forecast.md` has the list) and
//! repaired. Then a server is started on them twice: it comes up at the first try, logs no corruption, cuts and deletes
//! nothing, serves every sample of the records that the damage has left whole and no other, and its next checkpoint succeeds.
//!
//! By default that is a part of it all, with the newest server there is. The knobs are those of `tests/forecast/starts.rs`:
//! `WALFIX_MATRIX`, `WALFIX_ROWS`, `WALFIX_CASES`, `WALFIX_DIRECTORIES`; and `WALFIX_WRITE_REPAIRS`, the table to write
//! (`docs/repair.md`), for which servers are started on the damaged directories as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::bases::{read_tree, write_tree};
use support::matrix::{Case, Matrix, bases, cases, in_lanes, judges};
use support::oracle::{self, Oracle};
use support::recipes::Damaged;
use support::server::Version;
use support::table::thousands;
use support::truth::{Judge, measure};
use support::{note, test};

/// Damages that are not mended yet, and must then be left as they are: rows, by number.
const NOT_YET: [u32; 1] = [33];

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

/// What a case came to.
struct Judged {
    /// In words.
    words: String,
    /// Samples that are served after the repair; `None` if there was none.
    served: Option<u64>,
    /// Samples that are served after three starts without it, if that was asked for.
    without: Option<u64>,
    wrong: Vec<String>,
}

/// Samples that are served after Prometheus has been started three times without a repair.
fn without(case: &Case<'_>, oracle: Oracle) -> Option<u64> {
    std::env::var_os("WALFIX_WRITE_REPAIRS")?;
    let damaged = case.row.apply(case.base, &case.file).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let healthy = scratch.path().join("healthy");
    write_tree(&case.base.tree, &healthy);
    let states = scratch.path().join("states");
    let truth =
        measure(case.base, &damaged, (&case.judge, oracle), (&case.name(), case.end, 3), (&states, &healthy));
    Some(truth.starts[2].served)
}

fn judge(case: &Case<'_>, oracle: Oracle) -> Judged {
    let without = without(case, oracle);
    let damaged = case.row.apply(case.base, &case.file).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (data, backup) = (scratch.path().join("data"), scratch.path().join("backup"));
    write_tree(&damaged.tree, &data);
    let repaired = repair(case, &data, &backup);
    let tree = read_tree(&data);
    let left = repaired.answer["left"].as_array().unwrap();
    if !left.is_empty() {
        // What an agent refuses of a server's directory is mended all the same.
        let untouched = case.base.name == "agent-rich"
            || repaired.answer["steps"].as_array().unwrap().is_empty() && tree == damaged.tree;
        let excused = NOT_YET.contains(&case.row.number()) && untouched && repaired.exit == 4;
        let words = left[0]["reason"].as_str().unwrap_or_default().to_owned();
        let wrong = if excused { Vec::new() } else { vec![format!("not repaired: {left:?}")] };
        return Judged { words: format!("left: {words}"), served: None, without, wrong };
    }
    let mut wrong = Vec::new();
    if !matches!(repaired.exit, 0 | 1) {
        wrong.push(format!("exit {}", repaired.exit));
    }
    // A record of which the flipped bit was found stands again.
    let corrects = repaired.answer["steps"].as_array().unwrap().iter().any(|step| {
        let mends = step["mends"].as_array().unwrap();
        mends.iter().any(|mends| mends["how"] == "the flipped bit is corrected")
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
        wrong.extend(start.complaints().into_iter().map(|words| format!("start {}: {words}", number + 1)));
        if unserved > unknown_to(case) && !case.base.agent {
            wrong.push(format!("start {}: {unserved} samples are not served", number + 1));
        }
    }
    let served = truth.starts[0].served;
    Judged {
        words: format!("exit {}, {served} samples served", repaired.exit),
        served: Some(served),
        without,
        wrong,
    }
}

/// Samples of a directory in records of types, or a compression, that a version does not know: it does not serve them,
/// whatever is damaged.
fn unknown_to(case: &Case<'_>) -> u64 {
    let Judge::Server(server) = &case.judge else { return 0 };
    let is_zstd = case.base.name.ends_with("zstd") && server.version < Version(2, 46, 0);
    let is_newer = |kind: &str| {
        is_zstd
            || kind.starts_with("custom_buckets") && server.version < Version(3, 2, 0)
            || kind.ends_with("_v2") && server.version < Version(3, 11, 0)
    };
    let records = case.base.segments.values().flat_map(|segment| &segment.records);
    records.filter(|record| is_newer(&record.kind)).map(|record| record.stands_for.samples.len() as u64).sum()
}

#[test(long)]
fn what_is_left_is_served() {
    let what = "repairs";
    let oracle = oracle::judge(what);
    let (matrix, begun) = (Matrix::wanted(), Instant::now());
    let bases = bases(oracle);
    let cases = cases(&bases, &judges(what, oracle, matrix), matrix);
    assert!(!cases.is_empty(), "no such cases");
    let results = in_lanes(&cases, |case| judge(case, oracle));
    note!("{} cases, {:?}", results.len(), begun.elapsed());
    if let Some(path) = std::env::var_os("WALFIX_WRITE_REPAIRS") {
        std::fs::write(path, document(&results)).unwrap();
    }
    let results: BTreeMap<_, _> = results.iter().map(|(case, judged)| (case.name(), judged)).collect();
    for (name, judged) in &results {
        note!("{name}: {}", judged.words);
    }
    let wrong: Vec<String> = results
        .iter()
        .filter(|(_, judged)| !judged.wrong.is_empty())
        .map(|(name, judged)| format!("{name}\n    {}\n", judged.wrong.join("\n    ")))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), results.len(), wrong.concat());
}

/// `docs/repair.md`.
fn document(results: &[(&Case<'_>, Judged)]) -> String {
    let mut lines: BTreeMap<[String; 4], (u64, String, String)> = BTreeMap::new();
    let number = |count: Option<u64>| count.map_or_else(|| "not mended yet".to_owned(), thousands);
    for (case, judged) in results.iter().filter(|(case, _)| !case.base.agent) {
        let healthy = case.base.served.len() as u64;
        let (row, version) = (format!("{:02} {}", case.row.number(), case.row.name), case.judge.version());
        let key = [case.base.name.clone(), row, case.place.clone(), case.row.what.to_owned()];
        let line = lines.entry(key).or_default();
        line.0 = healthy;
        for (cell, count) in [(&mut line.1, number(judged.without)), (&mut line.2, number(judged.served))] {
            // Only what a version has of its own is told apart.
            if cell.is_empty() {
                *cell = count;
            } else if !cell.split(", ").any(|known| known.split(" (").next() == Some(&count)) {
                *cell = format!("{cell}, {count} ({version})");
            }
        }
    }
    let mut text = String::from(
        "# What a repair leaves\n\
         \n\
         Intact directories were damaged, and real servers were started on them: three times without a repair, and after\n\
         `walfix repair --backup`. The table has the samples that they then serve. After each repair the server\n\
         \n\
         - came up at its first start, logged no corruption, and truncated and deleted nothing;\n\
         - served every sample of the records that the damage had left intact, and no other;\n\
         - did so again at its second start;\n\
         - made its next checkpoint successfully.\n\
         \n\
         [forecast.md](forecast.md) describes the sorts of directories, and [repair-blocks.md](repair-blocks.md) what is done \
         about blocks.\n\
         \n\
         This page is written by `WALFIX_WRITE_REPAIRS=docs/repair.md cargo test --release --test repair matrix::`.\n\
         \n\
         | sort | damage | where | healthy | without walfix | after its repair |\n\
         |---|---|---|---:|---:|---:|\n",
    );
    for ([base, _, place, what], (healthy, without, served)) in lines {
        let _ =
            writeln!(text, "| {base} | {what} | {place} | {} | {without} | {served} |", thousands(healthy));
    }
    text
}
