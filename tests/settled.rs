//! What a scan has settled of segments that are in doubt is taken over by whoever reads them next, and is what settling them
//! anew comes to; of a file that has changed since it is forgotten.
//!
//! `WALFIX_SEEDS=5000 cargo test --release --test settled` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use support::damage::{self, KINDS};
use support::pristine::{self, Pristine};
use walfix::forecast::report::Forecast;
use walfix::forecast::{Assumed, Version, forecast};
use walfix::repair::{self, Plans};
use walfix::scan::report::{Report, Severity};
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
fn foretold_and_planned(target: &Target, report: &Report, assumed: Assumed) -> (Option<Forecast>, Plans) {
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

/// A bit that was flipped in the whole of a segment, and other bytes by the time that the plan is made.
#[test]
fn of_a_file_that_has_changed_nothing_is_settled() {
    let logs = pristine::all();
    let logs: Vec<&Pristine> = logs.iter().filter(|log| log.bytes.len() > 3 * 32768).collect();
    let root = support::scratch();
    // One whose damage is a bit that can be flipped back, and what remains to be done once somebody has done that.
    let (data, segment, report) = support::seeds(200)
        .find_map(|seed| {
            let data = root.path().join(seed.to_string());
            let (segment, _) = damaged(&logs, seed, &data);
            let report = scan(&Target::find(&data).unwrap(), &Options::default(), &()).unwrap();
            let all = report.of_severity(Severity::Damage).count();
            let is_bit = all == 1 && report.findings.iter().any(|finding| finding.correction.is_some());
            is_bit.then_some((data, segment, report))
        })
        .expect("a flipped bit among the damages");
    let target = Target::find(&data).unwrap();
    let correction = report.findings.iter().find_map(|finding| finding.correction.as_ref()).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let at = usize::try_from(correction.offset).unwrap();
    bytes[at] ^= 1 << correction.bit;
    fs::write(&segment, bytes).unwrap();
    touch(&segment);
    let (_, plans) = foretold_and_planned(&target, &report, Assumed::default());
    let is_about_it = |step: &repair::plan::Step| data.join(step.change.path()) == segment;
    assert_eq!(plans.salvage.steps.iter().filter(|step| is_about_it(step)).count(), 0);
}
