//! Repairs whose power is cut: after each call, in states that lost or reordered writes can leave (`support/disk.rs`).
//! Not all of them: about [`STATES`] after each call, of which those that differ in one thing come first and the others
//! are drawn from seeds; with `WALFIX_ALL_STATES=1` thirty times as many.

#![cfg(target_os = "linux")]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::disk::{Disk, State, write_state};
use support::repairs::{CASES, Case, Keeps, backups, temporary, walfix_exits};
use support::strace;
use support::tree::{Entry, contents, tree};
use support::{note, test};

/// States that are looked at after each call.
const STATES: usize = 8;

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// A lock whose mark did not come to the disk looks like one that Prometheus left, and stays as that would.
fn is_unmarked(lock: &Entry) -> bool {
    lock.bytes.as_ref().is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0))
}

/// What must be so of a disk in this state.
fn assert_safe(state: &State, unrepaired: &Path, keeps: &Keeps, about: &str) {
    let place = temporary();
    let data = place.path().join("data");
    let fresh = |data: &Path| {
        fs::create_dir(data).unwrap();
        write_state(state, unrepaired, data);
    };
    fresh(&data);
    let before = tree(unrepaired);
    assert_eq!(keeps.of(&data).lacks(&keeps.of(unrepaired)), None, "{about}");
    let backup = data.join("walfix-backup-t");
    if backup.exists() {
        let other = temporary();
        let data = other.path().join("data");
        fresh(&data);
        walfix_exits(&[0], &["undo".as_ref(), data.join("walfix-backup-t").as_os_str()], about);
        let mut after = tree(&data);
        after.retain(|path, entry| path != "lock" || !is_unmarked(entry));
        assert_eq!(contents(&before), contents(&after), "{about}: undone");
    }
    walfix_exits(
        &[0, 1],
        &[
            "repair".as_ref(),
            "-q".as_ref(),
            "--accept-orphans".as_ref(),
            "--backup".as_ref(),
            data.as_os_str(),
        ],
        about,
    );
    walfix_exits(&[0], &["scan".as_ref(), data.as_os_str()], about);
    assert_eq!(keeps.of(&data).lacks(&keeps.of(unrepaired)), None, "{about}: repaired");
    let repaired = tree(&data);
    let left = repaired.keys().find(|name| name.ends_with(".walfix") || *name == "walfix-repair.json");
    assert_eq!(left, None, "{about}");
    let all = backups(&data);
    assert!(!all.is_empty(), "{about}");
    for backup in all {
        walfix_exits(&[0], &["undo".as_ref(), backup.as_os_str()], about);
    }
    let mut after = tree(&data);
    after.retain(|path, entry| path != "lock" || !is_unmarked(entry));
    assert_eq!(contents(&before), contents(&after), "{about}: repaired and undone");
}

fn cut(case: &Case, keeps: &Keeps, seed: u64) -> usize {
    let (unrepaired, place) = (case.place(), case.place());
    let mut disk = Disk::of(&place.data());
    let arguments = place.repair_arguments();
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let (output, calls) = strace::trace_all(&place.beside("trace"), &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let is_all = std::env::var_os("WALFIX_ALL_STATES").is_some_and(|value| value == "1");
    let most = if is_all { 30 * STATES } else { STATES };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut known = HashSet::new();
    for (at, call) in calls.iter().enumerate() {
        disk.play(call);
        if !call.is_change() {
            continue;
        }
        for (number, state) in disk.states(most, &mut |below| random.usize(..below)).iter().enumerate() {
            if known.insert(hash(state)) {
                let about =
                    format!("{}, seed {seed}: state {number} after {} {}", case.name, at + 1, call.name);
                assert_safe(state, &unrepaired.data(), keeps, &about);
            }
        }
    }
    // All calls done and synced: the model has to have what the disk has.
    let last = disk.states(1, &mut |_| 0);
    let real = tree(&place.data());
    let modelled = &last[0];
    for (path, entry) in real.iter().filter(|(path, _)| !path.is_empty()) {
        assert_eq!(modelled.get(path), Some(&entry.bytes), "{}: {path}", case.name);
    }
    known.len()
}

#[test(long)]
fn power_cut_after_each_call() {
    const WHAT: &str = "a repair whose power is cut";
    let oracle = support::oracle::judge(WHAT);
    strace::require(WHAT);
    let cases: Vec<&Case> = CASES.iter().filter(|case| !case.is_elsewhere).collect();
    let next = AtomicUsize::new(0);
    let states = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for seed in support::seeds(1) {
                        states.fetch_add(cut(case, &Keeps::new(oracle), seed), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let states = states.into_inner();
    note!("{states} states");
    assert!(states > 500);
}
