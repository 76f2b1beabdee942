//! What a scan has settled of segments that are in doubt is taken over by whoever reads them next, and is what settling them
//! anew comes to; of a file that has changed since it is forgotten.
//!
//! `WALFIX_SEEDS=5000 cargo test --release --test scan settled::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use support::damage::{self, KINDS};
use support::pristine::{self, Pristine};
use support::test;
use walfix::forecast::report::Forecast;
use walfix::forecast::{Assumed, Version, forecast};
use walfix::repair::{self, Lock, Mode, Plans};
use walfix::scan::Scan;
use walfix::scan::report::Severity;
use walfix::scan::{Options, scan};
use walfix::tsdb::Target;

/// A data directory with one segment that is damaged in up to five places; where that stands, and what was done.
fn damaged(logs: &[&Pristine], seed: u64, data: &Path) -> (PathBuf, String) {
    let mut rng = Rng::with_seed(seed);
    let log = logs[rng.usize(..logs.len())];
    let headers: Vec<usize> =
        log.records.iter().flat_map(|record| record.fragments.iter().map(|f| f.start)).collect();
    let mut bytes = log.bytes.clone();
    let mut what = format!("seed {seed}: {}", log.path.display());
    for _ in 0..rng.usize(1..=5) {
        let kind = KINDS[rng.usize(..KINDS.len())];
        // Some leave too little for the others.
        if bytes.len() > 3 * 32768 {
            let within = 0..bytes.len();
            let headers: Vec<usize> = headers.iter().copied().filter(|&at| at + 7 < bytes.len()).collect();
            let damage = damage::apply(kind, &mut bytes, within, &headers, &mut rng);
            what = format!("{what}, {} ({})", damage.kind, damage.what);
        }
    }
    let directory = match log.path.parent().and_then(Path::file_name) {
        Some(name) if name == "wbl" => "wbl",
        _ if rng.bool() => "wal/checkpoint.00000007",
        _ => "wal",
    };
    fs::create_dir_all(data.join("wal")).unwrap();
    fs::create_dir_all(data.join(directory)).unwrap();
    if directory != "wal" {
        fs::write(data.join("wal/00000008"), []).unwrap();
    }
    let segment = data.join(directory).join("00000000");
    fs::write(&segment, bytes).unwrap();
    (segment, what)
}

/// What is foretold, and what would be done, but for the times of the files.
fn foretold_and_planned(target: &Target, report: &Scan, assumed: Assumed) -> (Option<Forecast>, Plans) {
    let forecast = forecast(target, report, assumed).unwrap();
    let mut plans = repair::plans(target, report, forecast.as_ref(), assumed).unwrap();
    plans.salvage.inputs.clear();
    plans.prometheus.inputs.clear();
    (forecast, plans)
}

#[test]
fn what_was_settled_is_what_is_settled_anew() {
    let logs = pristine::all();
    let logs: Vec<&Pristine> = logs.iter().filter(|log| log.bytes.len() > 3 * 32768).collect();
    let old: Version = "2.42.0".parse().unwrap();
    let mut corrected = 0;
    for seed in support::seeds(150) {
        let root = support::scratch();
        let data = root.path().join("data");
        let (segment, what) = damaged(&logs, seed, &data);
        let target = Target::find(&data).unwrap();
        let report = scan(&target, &Options::default(), &()).unwrap();
        corrected += report.findings.iter().filter(|finding| finding.correction.is_some()).count();
        let version = if seed % 3 == 0 { old } else { Version::NEWEST };
        let assumed = Assumed { version, agent: seed % 5 == 0 };
        let with_settled = foretold_and_planned(&target, &report, assumed);
        touch(&segment);
        let anew = foretold_and_planned(&target, &report, assumed);
        assert_eq!(with_settled, anew, "{what}");
    }
    assert!(corrected > 0, "nothing was in doubt");
}

/// Its bytes stay, and nobody can tell.
fn touch(segment: &Path) {
    let file = File::options().write(true).open(segment).unwrap();
    let later = file.metadata().unwrap().modified().unwrap() + Duration::from_millis(1);
    file.set_modified(later).unwrap();
}

/// Fragments that do not belong together, and other bytes by the time that the plan is made, in which they do.
#[test]
fn of_a_file_that_has_changed_nothing_is_settled() {
    let logs = pristine::all();
    let logs: Vec<&Pristine> = logs.iter().filter(|log| log.bytes.len() > 3 * 32768).collect();
    let root = support::scratch();
    let mut seen = 0;
    for seed in 0..2000 {
        let data = root.path().join(seed.to_string());
        let (segment, what) = damaged(&logs, seed, &data);
        let target = Target::find(&data).unwrap();
        let report = scan(&target, &Options::default(), &()).unwrap();
        let healthy = logs.iter().find(|log| what.contains(&log.path.display().to_string())).unwrap();
        let is_spliced = report.findings.iter().any(|finding| finding.code.name() == "spliced_record");
        if is_spliced && fs::read(&segment).unwrap().len() == healthy.bytes.len() {
            fs::write(&segment, &healthy.bytes).unwrap();
            touch(&segment);
            let (_, plans) = foretold_and_planned(&target, &report, Assumed::default());
            let is_about_it = |step: &&repair::plan::PlanStep| data.join(step.change.path()) == segment;
            assert_eq!(plans.salvage.steps.iter().find(is_about_it), None, "{what}");
            seen += 1;
        }
        fs::remove_dir_all(&data).unwrap();
        if seen == 5 {
            return;
        }
    }
    panic!("only {seen} with fragments that do not belong together");
}

/// What a plan says of entries without labels is what a scan finds once it is done and nothing is left, in both modes.
#[test]
fn what_loses_its_labels_is_what_a_scan_finds_afterwards() {
    let logs = pristine::all();
    let logs: Vec<&Pristine> = logs.iter().filter(|log| log.bytes.len() > 3 * 32768).collect();
    let mut compared = 0;
    for seed in support::seeds(150) {
        for mode in [Mode::Salvage, Mode::Prometheus] {
            let root = support::scratch();
            let data = root.path().join("data");
            let (_, what) = damaged(&logs, seed, &data);
            compared += u64::from(says_what_is_lost(&data, mode, &what) > 0);
        }
    }
    assert!(compared > 0);
}

/// What stands behind a cut says nothing of what stands before it: here a page that is a copy, and would be the reason not to
/// believe a record that Prometheus reads.
#[test]
fn what_is_behind_a_cut_is_of_no_account() {
    const PAGE: usize = 32768;
    let logs = pristine::all();
    let of_log = logs.iter().filter(|log| log.path.display().to_string().contains("/large-none/"));
    let mut bytes = Vec::new();
    for log in of_log {
        bytes.extend(&log.bytes);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    }
    let lost = [(4, 10), (12, 11)].map(|(from, to)| {
        let mut bytes = bytes.clone();
        bytes.copy_within(from * PAGE..(from + 1) * PAGE, to * PAGE);
        let root = support::scratch();
        let data = root.path().join("data");
        fs::create_dir_all(data.join("wal")).unwrap();
        fs::write(data.join("wal/00000000"), bytes).unwrap();
        says_what_is_lost(&data, Mode::Prometheus, &format!("page {from} copied over page {to}"))
    });
    // The first leaves a record that is put together of what does not belong together, which Prometheus reads.
    assert_eq!(lost.map(|lost| lost > 0), [false, true]);
}

/// Repairs a directory, and holds the entries without labels in the plan against those that a scan finds then. How many these
/// are; 0 if nothing is repaired, or something is left, since what stays damaged no scan counts.
fn says_what_is_lost(data: &Path, mode: Mode, what: &str) -> u64 {
    let target = Target::find(data).unwrap();
    let lock = Lock::take(data).unwrap();
    let report = scan(&target, &Options::default(), &()).unwrap();
    let forecast = forecast(&target, &report, Assumed::default()).unwrap();
    let options = repair::Options { mode, ..repair::Options::default() };
    let plan = repair::plan(&target, &report, forecast.as_ref(), options).unwrap();
    if plan.steps.is_empty() {
        return 0;
    }
    repair::apply(&target, &plan, &data.with_file_name("backup"), &lock).unwrap();
    let after = scan(&target, &Options::default(), &()).unwrap();
    if after.of_severity(Severity::Damage).any(|finding| finding.code.name() != "unknown_refs") {
        return 0;
    }
    let unknown = after.findings.iter().filter(|finding| finding.code.name() == "unknown_refs");
    let unknown = unknown.filter_map(|finding| finding.lost.entries).sum();
    assert_eq!(plan.orphans.map_or(0, |orphans| orphans.entries), unknown, "{what}, {mode:?}");
    unknown
}
