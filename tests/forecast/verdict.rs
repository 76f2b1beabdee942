//! `walfix scan` exits 0 exactly if Prometheus comes up on the directory, again and again, serves all that can be had of the healthy one,
//! gives nothing to other series, and makes a checkpoint and a compaction.
//!
//! Prometheus is its own packages (`oracle open`). With `WALFIX_SERVER_SHARE`, percent, that many of the seeds have a real server
//! of one of the versions at hand as their judge, which makes no checkpoint and no compaction in that time.
//!
//! Each seed takes a class of states and a member of it. Whatever is lost in these states shows in what is served, so the
//! healthy directory is the measure, but where a log just ends early.

#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use serde_json::Value;
use support::bases::{Sample, labels, served, write_tree};
use support::judged::{Judged, in_lanes, knob};
use support::oracle::Oracle;
use support::server::{Log, Options, Server, Servers, Started, Version, copy_directory};
use support::states::{CLASSES, Class, Healthy, State, Traces, USER, bring, could_be_had};
use support::{note, test};
use support::{oracle, scratch, seeds};

/// New series that the first start takes in; later ones must not give them what is another's.
const FRESH: &str = "20";

/// Who says whether a directory is clean.
enum Judge<'a> {
    Packages(Oracle),
    Server(&'a Server),
}

/// The words of a start on which samples of unknown series are dropped.
const UNKNOWN: &str = "Unknown series references";

/// What is not as it has to be for a clean directory, with the packages.
fn faults_of_packages(
    oracle: Oracle,
    healthy: &Healthy,
    measure: &HashSet<Sample>,
    data: &Path,
    (user, snapshots, counts): (Option<u32>, bool, bool),
) -> Vec<String> {
    let mut arguments = vec!["open", "--now", "--fresh", FRESH, "--checkpoint", "--compact"];
    if snapshots {
        arguments.push("--snapshot");
    }
    let report = oracle.json_as(user, &arguments, data);
    let mut faults = Vec::new();
    let [second, third, fourth] =
        [&report["again"], &report["again"]["again"], &report["again"]["again"]["again"]];
    let starts = [("first", &report), ("second", second), ("third", third), ("fourth", fourth)];
    for (which, start) in starts {
        let mut say = |words: String| faults.push(format!("{which} start: {words}"));
        for error in [
            "open_error",
            "crash",
            "query_error",
            "now_error",
            "fresh_error",
            "checkpoint_error",
            "compact_error",
            "close_error",
        ] {
            if let Some(words) = start[error].as_str() {
                // A head that holds nothing makes no checkpoint.
                if !words.contains("no checkpoint came about") {
                    say(format!("{error}: {words}"));
                }
            }
        }
        if !start.is_object() || !start["crash"].is_null() || !start["open_error"].is_null() {
            continue;
        }
        let now = served(start, &healthy.base.names);
        let missing = measure.difference(&now).count();
        // What comes after a compaction of samples of now may be past retention.
        if missing > 0 && (counts || which != "fourth") {
            say(format!("{missing} samples are not served"));
        }
        for line in start["log"].as_array().into_iter().flatten() {
            let dropped = ["samples", "histograms"].map(|key| line[key].as_str().unwrap_or("0"));
            if line["msg"].as_str().is_some_and(|words| words.starts_with(UNKNOWN)) && dropped != ["0", "0"] {
                say(format!("{dropped:?} samples and histograms have no labels"));
            }
        }
        let fresh = start["series"].as_array().into_iter().flatten().filter(|series| {
            labels(&series["labels"]).contains("oracle_fresh")
                && series["samples"].as_array().map(Vec::len) != Some(1)
        });
        let count = fresh.count();
        if count > 0 {
            say(format!("{count} new series have samples of others"));
        }
        let lacks = start["num_samples"].as_u64().zip(start["compacted"].as_u64());
        if let Some((before, after)) = lacks.filter(|(before, after)| counts && after < before) {
            say(format!("{after} of {before} samples are served after the compaction"));
        }
    }
    faults
}

/// How a server is run on directories of that kind.
fn options(healthy: &Healthy, snapshots: bool) -> Options {
    let mut options = Options::default();
    if healthy.base.tree.keys().any(|path| path.starts_with("wbl/")) {
        options.config.push_str("storage: {tsdb: {out_of_order_time_window: 30m}}\n");
    }
    if snapshots {
        options.features.push("memory-snapshot-on-shutdown".to_owned());
    }
    options
}

/// One start of a server: what it serves, or why not; and its log.
fn start(
    server: &Server,
    healthy: &Healthy,
    data: &Path,
    (snapshots, stops): (bool, bool),
) -> (Result<HashSet<Sample>, String>, Log) {
    match server.start(data, &options(healthy, snapshots)).unwrap() {
        Started::Exited(exited) => (Err(format!("it exits: {:?}", exited.log.complaint())), exited.log),
        Started::Hangs(running) => (Err("it hangs".to_owned()), running.kill().unwrap().log),
        Started::Ready(running) => {
            let mut all = HashSet::new();
            // After the last sample of all, 2025-06-15.
            for (name, samples) in running.samples("{__name__!=\"\"}", Some(1_751_000_000.0)).unwrap() {
                if let Some(number) = healthy.base.names.known(&name) {
                    all.extend(samples.into_iter().map(|(time, _)| (number, time)));
                }
            }
            let exited = if stops { running.stop() } else { running.kill() }.unwrap();
            (Ok(all), exited.log)
        }
    }
}

/// What each version serves of each healthy directory.
#[derive(Default)]
struct Measures(Mutex<HashMap<(String, Version), Measure>>);

type Measure = Arc<HashSet<Sample>>;

impl Measures {
    fn of(&self, server: &Server, healthy: &Healthy) -> Measure {
        let key = (healthy.base.name.clone(), server.version);
        if let Some(known) = self.0.lock().unwrap().get(&key) {
            return Arc::clone(known);
        }
        let scratch = scratch();
        let data = scratch.path().join("data");
        write_tree(&healthy.base.tree, &data);
        let all = Arc::new(start(server, healthy, &data, (false, false)).0.unwrap());
        self.0.lock().unwrap().insert(key, Arc::clone(&all));
        all
    }
}

/// What is not as it has to be for a clean directory, with a server.
fn faults_of_server(
    server: &Server,
    healthy: &Healthy,
    measure: &HashSet<Sample>,
    data: &Path,
    (snapshots, stops): (bool, bool),
) -> Vec<String> {
    let mut faults = Vec::new();
    for which in ["first", "second"] {
        let (now, log) = start(server, healthy, data, (snapshots, stops));
        match now {
            Err(words) => faults.push(format!("{which} start: {words}")),
            Ok(now) => {
                let missing = measure.difference(&now).count();
                if missing > 0 {
                    faults.push(format!("{which} start: {missing} samples are not served"));
                }
            }
        }
        for line in log.lines.iter().filter(|line| line.msg().starts_with(UNKNOWN)) {
            let dropped = ["samples", "histograms"].map(|key| line.field(key).unwrap_or("0"));
            if dropped != ["0", "0"] {
                faults.push(format!("{which} start: {dropped:?} samples and histograms have no labels"));
            }
        }
    }
    faults
}

fn scan(data: &Path, judge: &Judge<'_>) -> (i32, Value) {
    let mut walfix = Command::new(env!("CARGO_BIN_EXE_walfix"));
    walfix.args(["scan", "--format=json", "--threads=1"]).arg(data);
    if let Judge::Server(server) = judge {
        walfix.arg(format!("--prometheus={}", server.version));
    }
    let output = walfix.stdin(Stdio::null()).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap_or(-1), report)
}

/// What is wrong with the verdict on a state, and whether the state is a clean one.
fn judge(
    oracle: Oracle,
    judge: &Judge<'_>,
    measures: &Measures,
    healthy: &Healthy,
    class: Class,
    random: &mut Rng,
) -> Option<(bool, Judged)> {
    let scratch = scratch();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = scratch.path().join("data");
    write_tree(&healthy.base.tree, &data);
    let mut measure = match judge {
        Judge::Packages(_) => healthy.base.served.clone(),
        Judge::Server(server) => measures.of(server, healthy).as_ref().clone(),
    };
    // Old versions cannot read all of them.
    if measure.len() < 1000 {
        return None;
    }
    let State { words, traces } = bring(random, class, healthy, oracle, &data)?;
    let is_by_server = matches!(judge, Judge::Server(_));
    if is_by_server && (traces == Traces::FailsToCompact || !healthy.is_plain()) {
        return None;
    }
    let (code, report) = scan(&data, judge);
    if traces == Traces::None {
        let could = could_be_had(healthy, oracle, &data);
        measure.retain(|sample| could.contains(sample));
    }
    let mut faults = Vec::new();
    if traces == Traces::Destroyed {
        faults.push("what was written cannot be read".to_owned());
    }
    // The directory does not say whether Prometheus runs with chunk snapshots.
    let features: &[bool] = match (healthy.has_snapshot(), class) {
        (false, _) => &[false],
        // A copy would have other owners.
        (true, Class::Rights) => [&[false], &[true]][random.usize(..2)],
        (true, _) => &[false, true],
    };
    for &snapshots in features {
        let copy = scratch.path().join(format!("copy-{snapshots}"));
        let is_copied = features.len() > 1;
        if is_copied {
            copy_directory(&data, &copy).unwrap();
        }
        let data = if is_copied { &copy } else { &data };
        let found = match judge {
            Judge::Packages(oracle) => {
                let user = (class == Class::Rights).then_some(USER);
                // A block up to the future may end the time of another one.
                let counts = class != Class::FutureSamples;
                faults_of_packages(*oracle, healthy, &measure, data, (user, snapshots, counts))
            }
            Judge::Server(server) => {
                faults_of_server(server, healthy, &measure, data, (snapshots, random.bool()))
            }
        };
        let with = if snapshots { "with snapshots, " } else { "" };
        faults.extend(found.into_iter().map(|words| format!("{with}{words}")));
    }
    let is_clean = faults.is_empty();
    let is_right = match code {
        0 => is_clean,
        4 => !is_clean || traces == Traces::Odd,
        _ => false,
    };
    let mut judged = Judged { words, ..Judged::default() };
    if !is_right {
        let by = match judge {
            Judge::Packages(_) => "the packages".to_owned(),
            Judge::Server(server) => server.version.to_string(),
        };
        let codes: Vec<&Value> =
            report["findings"].as_array().into_iter().flatten().map(|f| &f["code"]).collect();
        let state = format!("{} {} {codes:?}", report["state"], report["reasons"]);
        faults.truncate(6);
        judged.wrong.push(format!("exit {code}: {state}; by {by}: {faults:?}"));
    }
    Some((is_clean, judged))
}

#[test(long)]
fn clean_is_what_prometheus_takes_without_a_loss() {
    let oracle = oracle::judge("verdicts");
    let all = Healthy::all(oracle);
    let share = knob("WALFIX_SERVER_SHARE", 0);
    let servers = if share > 0 { Servers::judges("verdicts by servers") } else { Vec::new() };
    let measures = Measures::default();
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let clean = Mutex::new(HashMap::new());
    let results = in_lanes(seeds(72), |seed| {
        let mut random = Rng::with_seed(seed);
        let class = CLASSES[usize::try_from(seed).unwrap() % CLASSES.len()];
        if class == Class::Rights && !is_root {
            return None;
        }
        let by_packages = matches!(class, Class::Rights | Class::FutureBlock | Class::FutureSamples);
        let by_server = random.u64(..100) < share && !by_packages && !servers.is_empty();
        let who = if by_server {
            Judge::Server(&servers[random.usize(..servers.len())])
        } else {
            Judge::Packages(oracle)
        };
        // Not every directory has what a class is about.
        let (healthy, (is_clean, judged)) = (0..100).find_map(|_| {
            let healthy = &all[random.usize(..all.len())];
            Some((healthy, judge(oracle, &who, &measures, healthy, class, &mut random)?))
        })?;
        clean.lock().unwrap().insert(seed, is_clean);
        Some((
            format!("{class:?} {}{}", healthy.base.name, if by_server { ", by a server" } else { "" }),
            judged,
        ))
    });
    let clean = clean.into_inner().unwrap();
    let mut counts: BTreeMap<Class, [usize; 3]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (seed, name, judged) in &results {
        let class = CLASSES[usize::try_from(*seed).unwrap() % CLASSES.len()];
        let count = counts.entry(class).or_default();
        count[0] += 1;
        count[1] += usize::from(clean.get(seed) == Some(&true));
        count[2] += usize::from(!judged.wrong.is_empty());
        for words in &judged.wrong {
            wrong.push(format!("seed {seed}: {name}: {}: {words}", judged.words));
        }
    }
    note!("class [states, clean, wrong]: {counts:?}");
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), results.len(), wrong.join("\n"));
}
