//! `walfix scan` exits 0 exactly if Prometheus's own packages come up on the directory, twice, delete nothing, serve all that
//! the healthy directory serves, and make a checkpoint.
//!
//! Each seed takes a class of states and a member of it. Whatever is lost in these states shows in what is served, so the
//! healthy directory is the measure.

#![cfg(target_os = "linux")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fastrand::Rng;
use serde_json::Value;
use support::bases::{Base, Sample, is_block, served, write_tree};
use support::oracle::Oracle;
use support::{oracle, scratch, seeds};

/// A directory, and what makes its servers.
struct Healthy {
    base: Base,
}

const BASES: [(&str, &[&str], bool); 3] = [
    ("none", &[], true),
    ("chunks", &["--chunks", "--rounds", "40"], false),
    ("snappy", &["--compression", "snappy"], true),
];

impl Healthy {
    fn make(oracle: Oracle, (name, arguments, with_block): (&str, &[&str], bool)) -> Self {
        let made = scratch();
        let data = made.path().join("data");
        oracle.json(&[&["directory"], arguments].concat(), &data);
        if with_block {
            oracle.json(&["block"], &data);
        }
        Self { base: Base::read(oracle, name, false, &data) }
    }
}

/// Kinds of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// As it was, or with what is normal: temporary directories, a torn tail, files of others.
    Harmless,
    /// A block lacks a file, or has one that is empty or begins wrong.
    Block,
    /// A file of head chunks is missing, empty, or begins wrong.
    HeadChunks,
    /// A checkpoint or segment is missing, emptied or of zeros.
    Files,
    /// Prometheus's user may not read a file, or not write a directory.
    Rights,
    /// A block is from the future.
    Future,
    /// Another state, on which Prometheus was started before.
    StartedBefore,
}

const CLASSES: [Class; 7] = [
    Class::Harmless,
    Class::Block,
    Class::HeadChunks,
    Class::Files,
    Class::Rights,
    Class::Future,
    Class::StartedBefore,
];

/// The user that owns the directories of [`Class::Rights`].
const USER: u32 = 12_345;

fn pick<'a>(random: &mut Rng, paths: &'a [PathBuf]) -> Option<&'a PathBuf> {
    (!paths.is_empty()).then(|| &paths[random.usize(..paths.len())])
}

/// All files below a directory.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut left = vec![data.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                all.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

fn below(data: &Path, path: &Path) -> String {
    path.strip_prefix(data).unwrap().to_str().unwrap().to_owned()
}

/// Removes a file, empties it, or changes its first bytes; says what it did.
fn spoil(random: &mut Rng, path: &Path) -> &'static str {
    match random.u32(..3) {
        0 => {
            fs::remove_file(path).unwrap();
            "removed"
        }
        1 => {
            fs::write(path, "").unwrap();
            "emptied"
        }
        _ => {
            let mut bytes = fs::read(path).unwrap();
            bytes.iter_mut().take(4).for_each(|byte| *byte = !*byte);
            fs::write(path, bytes).unwrap();
            "begins wrong"
        }
    }
}

/// Brings a healthy directory into a state of a class; what was done, in words.
fn bring(random: &mut Rng, class: Class, data: &Path) -> Option<String> {
    let all = files(data);
    let of = |which: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        all.iter().filter(|path| which(&below(data, path))).cloned().collect()
    };
    Some(match class {
        Class::Harmless => match random.u32(..6) {
            0 => "nothing".to_owned(),
            1 => {
                fs::create_dir(data.join("wal/checkpoint.00000077.tmp")).unwrap();
                "a temporary checkpoint".to_owned()
            }
            2 => {
                fs::create_dir_all(data.join("01JZZZZZZZZZZZZZZZZZZZZZZZ.tmp-for-creation/chunks")).unwrap();
                "a temporary block".to_owned()
            }
            3 => {
                fs::write(data.join("notes.txt"), "of an operator").unwrap();
                fs::create_dir(data.join("lost+found")).unwrap();
                "files of others".to_owned()
            }
            4 => {
                // The header of a fragment that was never finished.
                let last = of(&|path| path.starts_with("wal/0")).pop()?;
                let mut bytes = fs::read(&last).unwrap();
                while bytes.last() == Some(&0) {
                    bytes.pop();
                }
                bytes.extend([1, 0x40, 0, 1, 2, 3, 4, 9, 9]);
                fs::write(&last, bytes).unwrap();
                "a torn tail".to_owned()
            }
            _ => {
                let last = of(&|path| path.starts_with("wal/0")).pop()?;
                let next: u32 = last.file_name()?.to_str()?.parse().ok()?;
                fs::write(data.join(format!("wal/{:08}", next + 1)), "").unwrap();
                "an empty last segment".to_owned()
            }
        },
        Class::Block => {
            let path = pick(random, &of(&|path| path.split('/').next().is_some_and(is_block)))?.clone();
            format!("{} {}", below(data, &path), spoil(random, &path))
        }
        Class::HeadChunks => {
            let path = pick(random, &of(&|path| path.starts_with("chunks_head/")))?.clone();
            format!("{} {}", below(data, &path), spoil(random, &path))
        }
        Class::Files => match random.u32(..3) {
            0 => {
                let path = pick(random, &of(&|path| path.starts_with("wal/0")))?.clone();
                format!("{} {}", below(data, &path), spoil(random, &path))
            }
            1 => {
                for path in of(&|path| path.starts_with("wal/checkpoint")) {
                    fs::remove_file(path).unwrap();
                }
                "the checkpoint is emptied".to_owned()
            }
            _ => {
                let path = pick(random, &of(&|path| path.starts_with("wal/checkpoint")))?.clone();
                fs::remove_dir_all(path.parent().unwrap()).unwrap();
                "the checkpoint is removed".to_owned()
            }
        },
        Class::Rights => {
            let whose = (random.bool(), random.bool());
            let path = pick(random, &all)?.clone();
            let path = if random.u32(..3) == 0 { path.parent().unwrap().to_owned() } else { path };
            let mode = [0o600, 0o640, 0o644, 0o700, 0o755, 0o500][random.usize(..6)];
            let dir = path.is_dir();
            for path in all.iter().chain(&directories(data)) {
                chown(path, Some(USER), Some(USER)).unwrap();
            }
            let (uid, gid) = (if whose.0 { 0 } else { USER }, if whose.1 { 0 } else { USER });
            chown(&path, Some(uid), Some(gid)).unwrap();
            let mode = if dir { mode | 0o100 } else { mode };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            format!("{} belongs to {uid}:{gid}, mode {mode:o}", below(data, &path))
        }
        Class::Future => {
            let meta = of(&|path| path.ends_with("/meta.json")).pop()?;
            let mut json: Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let days = [400, 30, 1][random.usize(..3)];
            let until = i64::try_from(now.as_millis()).unwrap() + days * 86_400_000;
            json["maxTime"] = until.into();
            fs::write(&meta, json.to_string()).unwrap();
            format!("a block that ends {days} days from now")
        }
        Class::StartedBefore => {
            let other = CLASSES[random.usize(..4)];
            format!("{} ({other:?})", bring(random, other, data)?)
        }
    })
}

/// All directories from `data` on.
fn directories(data: &Path) -> Vec<PathBuf> {
    let mut all = vec![data.to_owned()];
    let mut at = 0;
    while at < all.len() {
        for entry in fs::read_dir(&all[at]).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                all.push(entry.path());
            }
        }
        at += 1;
    }
    all
}

/// What is not as it has to be for a clean directory.
fn faults(oracle: Oracle, healthy: &Base, data: &Path, as_user: bool) -> Vec<String> {
    let report = oracle.json_as(as_user.then_some(USER), &["open", "--checkpoint", "--now", "--again"], data);
    let mut faults = Vec::new();
    for (which, start) in [("first", &report), ("second", &report["again"])] {
        for error in ["open_error", "crash", "query_error", "checkpoint_error", "now_error"] {
            if let Some(words) = start[error].as_str() {
                // A head that holds nothing makes no checkpoint.
                if !words.contains("no checkpoint came about") {
                    faults.push(format!("{which} start: {error}: {words}"));
                }
            }
        }
        if start.is_object() && start["crash"].is_null() && start["open_error"].is_null() {
            let now: HashSet<Sample> = served(start, &healthy.names);
            let missing = healthy.served.difference(&now).count();
            if missing > 0 {
                faults.push(format!("{which} start: {missing} samples are not served"));
            }
        }
    }
    faults
}

fn scan(data: &Path) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_walfix"))
        .args(["scan", "--format=json"])
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code().unwrap_or(-1), report)
}

#[test]
fn clean_is_what_prometheus_takes_without_a_loss() {
    let Some(oracle) = oracle::judge("verdicts") else { return };
    let healthy = BASES.map(|base| Healthy::make(oracle, base));
    let mut counts: BTreeMap<Class, [u64; 2]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in seeds(60) {
        let mut random = Rng::with_seed(seed);
        let class = CLASSES[usize::try_from(seed).unwrap() % CLASSES.len()];
        if class == Class::Rights && !rustix_is_root() {
            continue;
        }
        let Healthy { base } = &healthy[random.usize(..healthy.len())];
        let scratch = scratch();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = scratch.path().join("data");
        write_tree(&base.tree, &data);
        let Some(words) = bring(&mut random, class, &data) else { continue };
        if class == Class::StartedBefore {
            oracle.json(&["open", "--summary"], &data);
        }
        let (code, report) = scan(&data);
        let faults = faults(oracle, base, &data, class == Class::Rights);
        counts.entry(class).or_default()[usize::from(faults.is_empty())] += 1;
        let says = code == 0;
        if !matches!(code, 0 | 4) || says != faults.is_empty() {
            let state = (&report["state"], &report["reasons"]);
            wrong.push(format!(
                "seed {seed}: {} {class:?}: {words}: exit {code} {state:?}, {faults:?}",
                base.name
            ));
        }
    }
    println!("[with faults, without]: {counts:?}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn rustix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
