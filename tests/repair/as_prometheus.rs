//! `--mode prometheus`: what is left of every fixture of damage is what Prometheus itself leaves of it, record by record.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::oracle::{self, Oracle};
use support::server::{Options, Server, Servers, Started, copy_directory};
use support::test;
use walfix::forecast::{Assumed, Version, forecast};
use walfix::repair::{self, Lock, Mode, Plan};
use walfix::scan::report::{Severity, Verdict};
use walfix::scan::scan;
use walfix::tsdb::Target;

/// A directory of `testdata/damaged`, and what stands beside it.
struct Fixture {
    name: String,
    path: PathBuf,
    facts: Value,
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged");
    let mut fixtures = Vec::new();
    for path in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let facts = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        fixtures.push(Fixture { name, path, facts });
    }
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(fixtures.len() > 30, "fixtures are missing");
    fixtures
}

/// Repairs the directory for that version, as it would itself.
fn repaired(data: &Path, version: Version) -> (Plan, Verdict) {
    let target = Target::find(data).unwrap();
    let lock = Lock::take(data).unwrap();
    let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
    let assumed = Assumed { version, agent: false };
    let forecast = forecast(&target, &report, assumed).unwrap();
    let options = repair::Options { mode: Mode::Prometheus, assumed, ..repair::Options::default() };
    let plan = repair::plan(&target, &report, forecast.as_ref(), options).unwrap();
    if !plan.steps.is_empty() {
        repair::apply(&target, &plan, &data.with_extension("backup"), &lock).unwrap();
    }
    (plan, report.verdict)
}

/// The records of each log: sizes and checksums in the order in which they are read; or the error at which that ends.
fn records(oracle: Oracle, data: &Path) -> Result<Vec<Vec<(u64, u64)>>, String> {
    let logs = ["wal", "wbl"].map(|log| data.join(log)).into_iter().filter(|log| log.is_dir());
    let read = |log: &Path| {
        let answer = oracle.json(&["read", "--records"], log);
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let records = answer["read"].as_array().into_iter().flatten();
        Ok(records.map(|record| (record[2].as_u64().unwrap(), record[3].as_u64().unwrap())).collect())
    };
    logs.map(|log| read(&log)).collect()
}

/// What a start of Prometheus left of a directory.
enum Left {
    Records(Vec<Vec<(u64, u64)>>),
    /// It does not serve; or it does, and the next start stumbles again.
    Unmended,
}

impl Left {
    fn of(oracle: Oracle, data: &Path) -> Self {
        records(oracle, data).map_or(Self::Unmended, Self::Records)
    }
}

/// Compares a plan, and what is there after it, with what Prometheus did.
fn compare(fixture: &Fixture, left: &Left, oracle: Oracle, version: Version) -> Result<(), String> {
    let root = support::scratch();
    let data = root.path().join("data");
    copy_directory(&fixture.path, &data).unwrap();
    let before = files(&data);
    let (plan, verdict) = repaired(&data, version);
    match left {
        // It deletes the WAL; here the checkpoint is cut.
        Left::Unmended if plan.steps.iter().any(|step| step.change.path().contains("/checkpoint.")) => {
            cut_checkpoint(fixture, &data, oracle)
        }
        Left::Unmended => {
            if !plan.steps.is_empty() || files(&data) != before {
                return Err(format!("Prometheus mends nothing, and walfix plans {:?}", plan.steps));
            }
            if verdict == Verdict::Damaged && plan.left.iter().all(|left| left.refusal.to_string().is_empty())
            {
                return Err("it is not said why nothing is done".into());
            }
            Ok(())
        }
        Left::Records(theirs) => {
            let ours = records(oracle, &data)?;
            let counts = |logs: &[Vec<(u64, u64)>]| logs.iter().map(Vec::len).collect::<Vec<_>>();
            if ours == *theirs {
                Ok(())
            } else {
                Err(format!("Prometheus leaves {:?} records, walfix {:?}", counts(theirs), counts(&ours)))
            }
        }
    }
}

/// The checkpoint has the records that Prometheus's reader reads before the fault, and the WAL those that it had. A fence may
/// have been added: one series, and one sample.
fn cut_checkpoint(fixture: &Fixture, data: &Path, oracle: Oracle) -> Result<(), String> {
    let read = |log: PathBuf| {
        let answer = oracle.json(&["read", "--records"], &log);
        let records: Vec<_> =
            answer["read"].as_array().unwrap().iter().map(|r| (r[2].clone(), r[3].clone())).collect();
        (records, answer["error"].as_str().map(str::to_owned))
    };
    let checkpoints = fs::read_dir(data.join("wal")).unwrap().map(|entry| entry.unwrap().file_name());
    let checkpoints = checkpoints.map(|name| name.into_string().unwrap());
    let last = checkpoints.filter(|name| name.starts_with("checkpoint.")).max().unwrap();
    let (before, fault) = read(fixture.path.join("wal").join(&last));
    let (after, left) = read(data.join("wal").join(&last));
    if fault.is_none() || left.is_some() || before != after {
        return Err(format!("cut to {} records of {}: {fault:?}, {left:?}", after.len(), before.len()));
    }
    let segments = |data: &Path| {
        let scratch = support::scratch();
        let wal = scratch.path().join("wal");
        copy_directory(&data.join("wal"), &wal).unwrap();
        for path in
            fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
        {
            // An empty checkpoint is one.
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(path).unwrap();
        }
        read(wal)
    };
    let (before, after) = (segments(&fixture.path), segments(data));
    if !after.0.starts_with(&before.0)
        || ![0, 2].contains(&(after.0.len() - before.0.len()))
        || after.1.is_some()
    {
        return Err(format!("{} records in the WAL, and {} before", after.0.len(), before.0.len()));
    }
    Ok(())
}

fn files(data: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                found.insert((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    found
}

fn options(fixture: &Fixture) -> Options {
    let text = |key: &str| fixture.facts[key].as_str().map(str::to_owned);
    let mut options = Options::default();
    options.features.extend(text("features"));
    if let Some(config) = text("config") {
        options.config = config;
    }
    options
}

/// What a real server leaves.
fn left_by(server: &Server, fixture: &Fixture, oracle: Oracle) -> Left {
    let root = support::scratch();
    let data = root.path().join("data");
    copy_directory(&fixture.path, &data).unwrap();
    match server.start(&data, &options(fixture)).unwrap() {
        Started::Ready(running) => {
            running.stop().unwrap();
            Left::of(oracle, &data)
        }
        Started::Exited(_) => Left::Unmended,
        Started::Hangs(running) => panic!("{}: {} hangs", fixture.name, running.version),
    }
}

#[test(long)]
fn what_a_server_leaves_is_left() {
    let oracle = oracle::judge("--mode prometheus against servers");
    Servers::each("--mode prometheus", |server| {
        let mut failures = Vec::new();
        for fixture in fixtures() {
            let left = left_by(server, &fixture, oracle);
            let version = server.version.to_string().parse().unwrap();
            if let Err(complaint) = compare(&fixture, &left, oracle, version) {
                failures.push(format!("{} with {}: {complaint}", fixture.name, server.version));
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
        Ok::<(), ()>(())
    })
    .unwrap();
}

#[test]
fn what_the_newest_leaves_is_left() {
    let oracle = oracle::judge("--mode prometheus");
    let mut failures = Vec::new();
    for fixture in fixtures() {
        let root = support::scratch();
        let data = root.path().join("data");
        copy_directory(&fixture.path, &data).unwrap();
        let opened = oracle.json(&["open", "--head", "--summary"], &data);
        let refused = !opened["open_error"].is_null() || !opened["crash"].is_null();
        let left = if refused { Left::Unmended } else { Left::of(oracle, &data) };
        if let Err(complaint) = compare(&fixture, &left, oracle, Version::NEWEST) {
            failures.push(format!("{}: {complaint}", fixture.name));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// What Prometheus's repair does not see stays, and is named; nothing else of severity damage is left.
#[test]
fn what_stays_is_said() {
    let mut mended = 0;
    for fixture in fixtures() {
        let root = support::scratch();
        let data = root.path().join("data");
        copy_directory(&fixture.path, &data).unwrap();
        let (plan, _) = repaired(&data, Version::NEWEST);
        let after = scan(&Target::find(&data).unwrap(), &walfix::scan::Options::default(), &()).unwrap();
        for finding in after.of_severity(Severity::Damage) {
            // Of what is cut off a checkpoint samples are left without labels.
            let said = plan.left.iter().any(|left| left.code == finding.code && left.path == finding.path);
            assert!(said, "{}: {finding:?} is left, and not in {:?}", fixture.name, plan.left);
        }
        mended += u32::from(!plan.steps.is_empty());
    }
    assert!(mended > 20, "Prometheus mends more than {mended} fixtures");
}
