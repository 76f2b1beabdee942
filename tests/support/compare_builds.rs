//! Compares two builds of walfix on the fixtures and on random damages: `scripts/compare-builds`.
//!
//! For each directory: exit code and JSON of a scan and of the plan in both modes; for all fixtures and each fourth random damage
//! also the directory and the backup after a repair, and the directory after its undo. JSON is compared key by key, except for
//! sentences; keys may be added. Everything else is compared byte for byte.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use serde_json::Value;
use support::bases::write_tree;
use support::oracle::{self, Oracle};
use support::server::copy_directory;
use support::states::{CLASSES, Healthy, bring};
use support::tree::{Entry, Tree, copy, tree};
use walfix_support as support;

/// Keys whose values are sentences, or differ between any two builds or runs.
const NOT_COMPARED: [&str; 7] = ["message", "how", "reason", "walfix", "time", "created", "inode"];

/// Files of a backup that are sentences, or checksums of files with sentences.
const TEXTS: [&str; 2] = ["README.txt", "checksums"];

const MODES: [&str; 2] = ["--mode=salvage", "--mode=prometheus"];

/// Of so many random damages one is also repaired and undone.
const REPAIRED: u64 = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| match arguments.get(at) {
        Some(text) => text.parse().map_err(|_| format!("{text} is not a number")),
        None => Ok(default),
    };
    let parsed = number(2, 200).and_then(|count| Ok((count, number(3, fastrand::u64(..1 << 32))?)));
    match (&arguments[..], parsed) {
        ([old, new, ..], Ok((count, seed))) if arguments.len() <= 4 => run(old, new, count, seed),
        (_, Err(why)) => {
            eprintln!("compare-builds: {why}");
            ExitCode::from(2)
        }
        _ => {
            eprintln!("compare-builds: OLD NEW [COUNT [SEED]]");
            ExitCode::from(2)
        }
    }
}

fn run(old: &str, new: &str, count: u64, seed: u64) -> ExitCode {
    let oracle = match oracle::find() {
        Ok(oracle) => oracle,
        Err(why) => {
            eprintln!(
                "compare-builds: the directories to damage are written by Prometheus's packages: {why}"
            );
            return ExitCode::from(2);
        }
    };
    let fixtures = fixtures();
    println!("{} fixtures and {count} random damages from seed {seed}", fixtures.len());
    let builds = [old, new].map(Path::new);
    let healthy = Healthy::all(oracle);
    let (next, repaired, different) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(0));
    let fixture_count = fixtures.len() as u64;
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= fixture_count + count {
                        break;
                    }
                    let root = support::scratch();
                    let made = root.path().join("made");
                    let (name, is_repaired) = match at.checked_sub(fixture_count) {
                        None => {
                            let fixture = &fixtures[usize::try_from(at).expect("it is below their number")];
                            copy_directory(fixture, &made).expect("a copy");
                            (fixture.display().to_string(), true)
                        }
                        Some(at) => {
                            let words = damaged(&healthy, oracle, seed + at, &made);
                            (format!("seed {}: {words}", seed + at), at % REPAIRED == 0)
                        }
                    };
                    repaired.fetch_add(u64::from(is_repaired), Ordering::Relaxed);
                    let [before, after] = builds.map(|build| effects(build, &made, is_repaired));
                    let differences = compare(&before, &after);
                    if !differences.is_empty() {
                        *different.lock().expect("no panic") += 1;
                        println!("DIFFERENT {name}\n{differences}");
                    }
                }
            });
        }
    });
    let different = different.into_inner().expect("no panic");
    println!(
        "{} directories, {} of them repaired and undone: {different} different",
        fixture_count + count,
        repaired.into_inner()
    );
    ExitCode::from(u8::from(different > 0))
}

/// The directories of `testdata`.
fn fixtures() -> Vec<PathBuf> {
    let testdata = support::project().join("testdata");
    let mut found: Vec<PathBuf> = ["damaged", "logs"]
        .iter()
        .flat_map(|below| std::fs::read_dir(testdata.join(below)).expect("it is there"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    found.push(testdata.join("incident"));
    found.sort();
    found
}

/// Makes a directory of Prometheus and damages it. In words what was done.
fn damaged(healthy: &[Healthy], oracle: Oracle, seed: u64, data: &Path) -> String {
    let mut random = Rng::with_seed(seed);
    loop {
        let healthy = &healthy[random.usize(..healthy.len())];
        write_tree(&healthy.base.tree, data);
        let class = CLASSES[random.usize(..CLASSES.len())];
        if let Some(state) = bring(&mut random, class, healthy, oracle, data) {
            return format!("{}: {}", healthy.base.name, state.words);
        }
        std::fs::remove_dir_all(data).expect("it was made here");
    }
}

/// What a build prints and does.
#[derive(Default)]
struct Effects {
    /// What was called, its exit code, and its JSON; null if it printed none.
    answers: Vec<(String, Option<i32>, Value)>,
    /// Directories as they were left, and by what.
    trees: Vec<(String, Tree)>,
}

impl Effects {
    fn ask(&mut self, build: &Path, arguments: &[&str], path: &Path) {
        let mut command = Command::new(build);
        command.args(arguments).arg("--format=json").arg(path).stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", build.display()));
        let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
        self.answers.push((arguments.join(" "), output.status.code(), json));
    }
}

/// What a build makes of a directory. Every build sees it at the same path.
fn effects(build: &Path, made: &Path, is_repaired: bool) -> Effects {
    let (data, backup) = (made.with_file_name("data"), made.with_file_name("backup"));
    let fresh = || {
        for path in [&data, &backup] {
            if path.exists() {
                std::fs::remove_dir_all(path).expect("it was made here");
            }
        }
        copy(made, &data);
    };
    let mut effects = Effects::default();
    fresh();
    effects.ask(build, &["scan"], &data);
    for mode in MODES {
        effects.ask(build, &["repair", mode], &data);
    }
    effects.trees.push(("scan and plans".into(), tree(&data)));
    let backup_option = format!("--backup={}", backup.display());
    for mode in MODES.into_iter().filter(|_| is_repaired) {
        fresh();
        effects.ask(build, &["repair", mode, "--accept-orphans", &backup_option], &data);
        effects.trees.push((format!("repair {mode}"), tree(&data)));
        if backup.exists() {
            effects.trees.push((format!("repair {mode}, backup"), tree(&backup)));
            effects.ask(build, &["undo"], &backup);
            effects.trees.push((format!("repair {mode} and undo"), tree(&data)));
        }
    }
    effects
}

/// What differs, a line each.
fn compare(old: &Effects, new: &Effects) -> String {
    let mut lines = String::new();
    if old.answers.len() != new.answers.len() {
        lines.push_str("    one keeps a backup where the other does not\n");
    }
    for ((what, old_code, old), (_, new_code, new)) in old.answers.iter().zip(&new.answers) {
        if old_code != new_code {
            let _ = writeln!(lines, "    {what}: exit {old_code:?}, then {new_code:?}");
        }
        compare_json(what, old, new, &mut lines);
    }
    for ((what, old), (_, new)) in old.trees.iter().zip(&new.trees) {
        for path in old.keys().chain(new.keys().filter(|path| !old.contains_key(*path))) {
            match (old.get(path), new.get(path)) {
                (Some(a), Some(b)) if a.bytes == b.bytes => {}
                (Some(_), Some(_)) if TEXTS.iter().any(|text| path.ends_with(text)) => {}
                (Some(a), Some(b)) if Path::new(path).extension().is_some_and(|end| end == "json") => {
                    let [a, b] = [a, b].map(|entry| {
                        serde_json::from_slice(entry.bytes.as_deref().unwrap_or_default()).unwrap_or_default()
                    });
                    compare_json(&format!("{what}: {path}"), &a, &b, &mut lines);
                }
                (a, b) => {
                    let is = |entry: Option<&Entry>| {
                        entry.map_or("not there".into(), |entry| match &entry.bytes {
                            Some(bytes) => format!("{} bytes", bytes.len()),
                            None => "no file".into(),
                        })
                    };
                    let _ = writeln!(lines, "    {what}: {path:?}: {}, then {}", is(a), is(b));
                }
            }
        }
    }
    lines
}

/// Compares key by key; `at` is where the values are.
fn compare_json(at: &str, old: &Value, new: &Value, lines: &mut String) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old.iter().filter(|(key, _)| !NOT_COMPARED.contains(&key.as_str())) {
                match new.get(key) {
                    Some(other) => compare_json(&format!("{at}.{key}"), value, other, lines),
                    None => {
                        let _ = writeln!(lines, "    {at}.{key} is no longer there");
                    }
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (value, other)) in old.iter().zip(new).enumerate() {
                compare_json(&format!("{at}[{index}]"), value, other, lines);
            }
        }
        _ if old == new => {}
        _ => {
            let short = |value: &Value| value.to_string().chars().take(200).collect::<String>();
            let _ = writeln!(lines, "    {at}: {}, then {}", short(old), short(new));
        }
    }
}
