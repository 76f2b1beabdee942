//! Plans of every kind of change, executed by the library: killed at each call, finished, undone. What the changes are for
//! is no matter here.

#![cfg(target_os = "linux")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use support::repairs::{Place, temporary};
use support::strace::{self, Call};
use support::test;
use support::tree::{contents, difference, tree};
use walfix::repair::plan::{Change, Content, Loss, Method, Patch, PlanStep};
use walfix::repair::{self, Lock, Plan, UnfinishedRepair};
use walfix::scan::{self, scan};
use walfix::tsdb::Target;

/// Where the child finds its plan, its data directory and its backup.
const PLAN: &str = "WALFIX_TEST_PLAN";

/// A plan of these changes.
fn plan_of(data: &Path, changes: &[Change]) -> Plan {
    let target = Target::find(data).unwrap();
    let report = scan(&target, &scan::Options::default(), &()).unwrap();
    let mut plan = repair::plan(&target, &report, None, repair::Options::default()).unwrap();
    // What they are made from is not checked by content here.
    let step =
        |change: &Change| PlanStep { change: change.clone(), repairs: Vec::new(), lost: Loss::NOTHING };
    plan.steps = changes.iter().map(step).collect();
    plan
}

fn text(path: &str) -> String {
    path.to_owned()
}

/// A checkpoint that is built anew beside the old one, which is set aside; a file and a directory that are in the way; a
/// segment that gets another name; and one that is changed, as replacement and in place.
fn everything() -> Vec<Change> {
    let patch = |path: &str, method, offset| Change::Patch {
        path: text(path),
        method,
        patches: vec![
            Patch { offset, replaces: 64, with: Content::Fill(64) },
            Patch { offset: offset + 500, replaces: 1, with: Content::Bytes(vec![7]) },
        ],
    };
    vec![
        Change::CreateDirectory { path: text("wal/checkpoint.00000001.new") },
        Change::Create { path: text("wal/checkpoint.00000001.new/00000000"), bytes: vec![3; 3000] },
        Change::Create { path: text("wal/checkpoint.00000001.new/00000001"), bytes: Vec::new() },
        Change::SetAside { path: text("wal/checkpoint.00000001"), bytes: 300 },
        Change::Rename { from: text("wal/checkpoint.00000001.new"), to: text("wal/checkpoint.00000001") },
        Change::SetAside { path: text("stray"), bytes: 5 },
        Change::Rename { from: text("wal/00000002"), to: text("wal/00000009") },
        Change::Create { path: text("wal/00000010"), bytes: vec![0; 100] },
        patch("wal/00000001", Method::Replace, 1000),
        patch("wal/00000000", Method::InPlace, 2000),
    ]
}

fn place() -> Place {
    let place = Place::of("overwritten_range");
    let checkpoint = place.data().join("wal/checkpoint.00000001");
    fs::create_dir(&checkpoint).unwrap();
    for n in 0..3 {
        fs::write(checkpoint.join(format!("{n:08}")), vec![n; 100]).unwrap();
    }
    fs::write(place.data().join("stray"), "stray").unwrap();
    place
}

/// Not a test of its own: what the others run in a process that they kill.
#[test]
fn child() {
    let Some(arguments) = std::env::var_os(PLAN) else { return };
    let arguments = PathBuf::from(arguments);
    let plan: Plan = serde_json::from_slice(&fs::read(arguments.join("plan")).unwrap()).unwrap();
    // Calls are counted for each thread: those of the harness must not come to such numbers.
    let mut null = fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    for _ in 0..1000 {
        std::io::Write::write_all(&mut null, &[0]).unwrap();
    }
    let path = |name: &str| PathBuf::from(fs::read_to_string(arguments.join(name)).unwrap());
    let target = Target::find(&path("data")).unwrap();
    let lock = Lock::take(target.path()).unwrap();
    repair::apply(&target, &plan, &path("backup"), &lock).unwrap();
}

/// What a child is to do is written to a directory; the command that does it.
fn command(plan: &Plan, data: &Path, backup: &Path, at: &Path) -> Vec<OsString> {
    fs::write(at.join("plan"), serde_json::to_vec(plan).unwrap()).unwrap();
    fs::write(at.join("data"), data.to_str().unwrap()).unwrap();
    fs::write(at.join("backup"), backup.to_str().unwrap()).unwrap();
    let mut variable = OsString::from(format!("{PLAN}="));
    variable.push(at);
    // For whoever looks for the paths.
    let mut place = OsString::from("WALFIX_TEST_PLACES=");
    place.push(data);
    let mut elsewhere = OsString::from("WALFIX_TEST_BACKUP=");
    elsewhere.push(backup);
    let program = std::env::current_exe().unwrap();
    let options = ["--exact", "transaction::child", "--test-threads=1"].map(OsString::from);
    [OsString::from("env"), variable, place, elsewhere, program.into()].into_iter().chain(options).collect()
}

/// The calls by which a plan is executed. Those of the test harness itself are left out.
fn changes(plan: &Plan, data: &Path, backup: &Path) -> Vec<Call> {
    let at = temporary();
    let command = command(plan, data, backup, at.path());
    let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
    let (output, calls) = strace::trace(&at.path().join("trace"), &command);
    assert!(output.status.success(), "{output:?}");
    let first = calls.iter().position(|call| call.arguments.contains("lock.walfix")).expect("a lock");
    let thread = calls[first].thread;
    calls.into_iter().skip(first).filter(|call| call.thread == thread && call.is_change()).collect()
}

fn killed_at_each_change(is_elsewhere: bool) {
    strace::require("a plan whose execution is killed");
    let pristine = place();
    let before = tree(&pristine.data());
    let plan_for = |data: &Path| plan_of(data, &everything());
    let mut elsewhere = Vec::new();
    let mut backup_of = |place: &Place| {
        if !is_elsewhere {
            return place.backup();
        }
        elsewhere.push(tempfile::tempdir().unwrap());
        elsewhere.last().unwrap().path().join("walfix-backup-t")
    };
    let done = pristine.again();
    let backup = backup_of(&done);
    let calls = changes(&plan_for(&done.data()), &done.data(), &backup);
    let after = tree(&done.data());
    repair::undo(&backup).unwrap();
    assert_eq!(difference(&before, &tree(&done.data())), None);
    assert!(calls.len() > 80, "{}", calls.len());
    for call in &calls {
        let mut killed = || {
            let (place, at) = (pristine.again(), temporary());
            let backup = backup_of(&place);
            let command = command(&plan_for(&place.data()), &place.data(), &backup, at.path());
            let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
            let output = strace::kill_at(&at.path().join("trace"), &command, call);
            assert!(!output.status.success(), "{call:?}");
            (place, backup)
        };
        let about = format!("killed at {call:?}");
        // Undone.
        let (place, backup) = killed();
        let target = Target::find(&place.data()).unwrap();
        if backup.exists() {
            repair::undo(&backup).unwrap_or_else(|error| panic!("{about}: {error}"));
            assert_eq!(difference(&before, &tree(&place.data())), None, "{about}");
        }
        // Finished, and then undone.
        let (place, backup) = killed();
        let found = repair::unfinished(&Target::find(&place.data()).unwrap()).unwrap();
        assert!(!matches!(found, Some(UnfinishedRepair::Outdated { .. })), "{about}: {found:?}");
        let other = Target::find(&place.data()).unwrap();
        let lock = Lock::take(other.path()).unwrap();
        repair::resume(&other, &lock, repair::Options::default())
            .unwrap_or_else(|error| panic!("{about}: {error}"));
        drop(lock);
        let now = tree(&place.data());
        let is = |tree| contents(&now) == contents(tree);
        assert!(
            if backup.exists() { is(&after) } else { is(&before) },
            "{about}: {:?}",
            difference(&after, &now)
        );
        if backup.exists() {
            repair::undo(&backup).unwrap_or_else(|error| panic!("{about}: {error}"));
            assert_eq!(difference(&before, &tree(&place.data())), None, "{about}");
        }
        drop(target);
    }
}

#[test(long)]
fn every_kind_of_change_killed() {
    killed_at_each_change(false);
}

#[test(long)]
fn every_kind_of_change_killed_with_a_backup_elsewhere() {
    killed_at_each_change(true);
}

/// A directory with a segment that can only be written as a whole, and its repair, killed before the new segment has its name:
/// the bytes are staged, and the backup is complete.
fn killed_with_a_staged_file() -> (Place, support::tree::Tree) {
    strace::require("a repair that is killed before a staged file has its name");
    let case = support::repairs::CASES.iter().find(|case| case.name == "a hole of nine bytes").unwrap();
    let pristine = case.place();
    let before = tree(&pristine.data());
    let plan_for = |data: &Path| {
        let target = Target::find(data).unwrap();
        let report = scan(&target, &scan::Options::default(), &()).unwrap();
        repair::plan(&target, &report, None, repair::Options::default()).unwrap()
    };
    let done = pristine.again();
    let calls = changes(&plan_for(&done.data()), &done.data(), &done.backup());
    let is_put = |call: &&Call| {
        call.name.starts_with("rename")
            && call.arguments.contains("00000001.walfix")
            && call.result == Some(0)
    };
    let put = calls.iter().find(is_put).expect("it gets its name");
    let (place, at) = (pristine.again(), temporary());
    let command = command(&plan_for(&place.data()), &place.data(), &place.backup(), at.path());
    let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
    let output = strace::kill_at(&at.path().join("trace"), &command, put);
    assert!(!output.status.success());
    assert_eq!(tree(&place.data())["wal/00000001"].bytes, before["wal/00000001"].bytes);
    (place, before)
}

const STAGED: &str = "wal/00000001.walfix";

fn resume(place: &Place) -> Result<repair::Resumed, repair::RepairError> {
    let target = Target::find(&place.data()).unwrap();
    let lock = Lock::take(target.path()).unwrap();
    repair::resume(&target, &lock, repair::Options::default())
}

/// Who finishes a repair takes the bytes that were staged: those, and no others, are in the plan.
#[test]
fn a_staged_file_is_all_that_finishing_needs() {
    let (place, before) = killed_with_a_staged_file();
    let staged = fs::read(place.data().join(STAGED)).unwrap();
    let plan: serde_json::Value =
        serde_json::from_slice(&fs::read(place.backup().join("plan.json")).unwrap()).unwrap();
    let known = &plan["steps"][0]["change"]["staged"];
    assert_eq!(known["file"], STAGED);
    assert_eq!(known["bytes"], staged.len());
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &staged);
    assert_eq!(known["checksum"], format!("{checksum:016x}"));
    assert_eq!(resume(&place).unwrap().finished, Some(place.backup()));
    let after = tree(&place.data());
    assert_eq!(after["wal/00000001"].bytes.as_ref(), Some(&staged));
    assert!(!after.contains_key(STAGED));
    repair::undo(&place.backup()).unwrap();
    assert_eq!(difference(&before, &tree(&place.data())), None);
}

/// Bytes that were staged and are others by now, or are gone, are not used: the repair is given up, and can be undone.
#[test]
fn a_staged_file_that_has_changed_is_not_used() {
    for spoil in [
        |staged: &Path| fs::remove_file(staged).unwrap(),
        |staged: &Path| {
            let mut bytes = fs::read(staged).unwrap();
            bytes[100] ^= 1;
            fs::write(staged, bytes).unwrap();
        },
        |staged: &Path| fs::write(staged, "").unwrap(),
        |staged: &Path| {
            fs::remove_file(staged).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", staged).unwrap();
        },
    ] {
        let (place, before) = killed_with_a_staged_file();
        spoil(&place.data().join(STAGED));
        let (backup, what) = resume(&place).unwrap().given_up.expect("it cannot be finished");
        assert!(what.contains("staged"), "{what}");
        let now = tree(&place.data());
        assert_eq!(now["wal/00000001"].bytes, before["wal/00000001"].bytes);
        repair::undo(&backup).unwrap();
    }
}

/// A journal of a version that staged nothing is refused with words, and can be rolled back.
#[test]
fn a_repair_that_staged_nothing_is_refused() {
    let (place, before) = killed_with_a_staged_file();
    let path = place.backup().join("plan.json");
    let mut plan: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    plan["steps"][0]["change"].as_object_mut().unwrap().remove("staged").unwrap();
    plan["walfix"] = "0.0.9".into();
    let text = serde_json::to_vec(&plan).unwrap();
    fs::write(&path, &text).unwrap();
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &text);
    let checksums = place.backup().join("checksums");
    let lines = fs::read_to_string(&checksums).unwrap();
    let lines = lines.lines().map(|line| match line.split_once("  ") {
        Some((_, "plan.json")) => format!("{checksum:016x}  plan.json\n"),
        _ => format!("{line}\n"),
    });
    fs::write(&checksums, lines.collect::<String>()).unwrap();
    let now = tree(&place.data().join("wal"));
    let error = resume(&place).unwrap_err().to_string();
    assert!(error.contains("0.0.9") && error.contains("walfix undo"), "{error}");
    assert_eq!(difference(&now, &tree(&place.data().join("wal"))), None);
    repair::undo(&place.backup()).unwrap();
    assert_eq!(difference(&before, &tree(&place.data())), None);
}

/// By force, what was set aside comes back whole, and is not mixed with what is there now.
#[test]
fn set_aside_and_back_by_force() {
    let place = place();
    let before = tree(&place.data());
    let plan = plan_of(&place.data(), &everything());
    let target = Target::find(&place.data()).unwrap();
    let lock = Lock::take(target.path()).unwrap();
    repair::apply(&target, &plan, &place.backup(), &lock).unwrap();
    drop(lock);
    fs::write(place.data().join("wal/checkpoint.00000001/00000002"), "new").unwrap();
    fs::write(place.data().join("stray"), "another").unwrap();
    repair::undo(&place.backup()).expect_err("it has changed");
    let forced = repair::undo_by_force(&place.backup()).unwrap();
    assert_eq!(contents(&before), contents(&tree(&place.data())));
    let kept = tree(&forced.moved_to.expect("there was something"));
    for (path, bytes) in [("wal/checkpoint.00000001/00000002", "new"), ("stray", "another")] {
        assert_eq!(kept[path].bytes.as_deref(), Some(bytes.as_bytes()), "{path}");
    }
    assert!(kept.contains_key("wal/checkpoint.00000001/00000000"));
}

/// A segment that is changed first, and then gets another name.
#[test]
fn changed_and_renamed() {
    for method in [Method::InPlace, Method::Replace] {
        let place = place();
        let before = tree(&place.data());
        let patch = |path: &str, offset| Change::Patch {
            path: text(path),
            method,
            patches: vec![Patch { offset, replaces: 64, with: Content::Fill(64) }],
        };
        let rename = |from: &str, to: &str| Change::Rename { from: text(from), to: text(to) };
        let changes = [
            patch("wal/00000002", 1000),
            rename("wal/00000002", "wal/9"),
            patch("wal/checkpoint.00000001/00000001", 7),
            rename("wal/checkpoint.00000001", "wal/checkpoint.1"),
        ];
        let target = Target::find(&place.data()).unwrap();
        let apply = || {
            let plan = plan_of(&place.data(), &changes);
            let lock = Lock::take(target.path()).unwrap();
            repair::apply(&target, &plan, &place.backup(), &lock).unwrap();
        };
        apply();
        let after = tree(&place.data());
        assert!(after.contains_key("wal/9") && after.contains_key("wal/checkpoint.1/00000001"));
        assert_ne!(after["wal/9"].bytes, before["wal/00000002"].bytes);
        let into = place.beside("into");
        let restored = repair::restore_into(&place.backup(), &into).unwrap();
        assert_eq!(restored.missing, Vec::<String>::new());
        assert_eq!(tree(&into)["wal/00000002"], before["wal/00000002"]);
        // As if it had been killed before it could say that it was done: there is nothing left to do.
        let marker = r#"{"stage":"change","backup":"walfix-backup-t","directories":[]}"#;
        fs::write(place.data().join("walfix-repair.json"), marker).unwrap();
        assert!(matches!(repair::unfinished(&target).unwrap(), Some(UnfinishedRepair::Unfinished(_))));
        fs::remove_file(place.data().join("walfix-repair.json")).unwrap();
        repair::undo(&place.backup()).unwrap();
        assert_eq!(difference(&before, &tree(&place.data())), None);
        fs::remove_dir_all(place.backup()).unwrap();
        apply();
        repair::undo_by_force(&place.backup()).unwrap();
        assert_eq!(contents(&before), contents(&tree(&place.data())));
    }
}

/// More bytes are cut off than are held in memory at a time, and by no round number.
#[test]
fn long_ends_that_are_cut_off() {
    const SIZE: u64 = 300_007;
    for method in [Method::InPlace, Method::Replace] {
        let place = place();
        let bytes: Vec<u8> = (0..SIZE).map(|at| u8::try_from(at * at % 251).unwrap()).collect();
        fs::write(place.data().join("stray"), &bytes).unwrap();
        let before = tree(&place.data());
        let patches = vec![
            Patch { offset: 10, replaces: 70_000, with: Content::Zeros(70_000) },
            Patch { offset: 100_001, replaces: SIZE - 100_001, with: Content::Bytes(vec![7; 11]) },
        ];
        let changes = [Change::Patch { path: text("stray"), method, patches }];
        let target = Target::find(&place.data()).unwrap();
        let plan = plan_of(&place.data(), &changes);
        let lock = Lock::take(target.path()).unwrap();
        repair::apply(&target, &plan, &place.backup(), &lock).unwrap();
        drop(lock);
        let expected = [&bytes[..10], &vec![0; 70_000], &bytes[70_010..100_001], &[7; 11]].concat();
        assert_eq!(fs::read(place.data().join("stray")).unwrap(), expected);
        let kept = [&bytes[10..70_010], &bytes[100_001..]].concat();
        assert_eq!(fs::read(place.backup().join("old/stray")).unwrap(), kept);
        repair::undo(&place.backup()).unwrap();
        assert_eq!(difference(&before, &tree(&place.data())), None);
    }
}
