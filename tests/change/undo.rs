//! What becomes of backups: used after more damage, after Prometheus, elsewhere, by force, tampered with, and of plans that
//! are out of date.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use support::repairs::{CASES, Place, backups, walfix_exits};
use support::server::{Options, Servers, Started};
use support::test;
use support::tree::{self, Tree, contents, difference, tree};
use support::{oracle, strace};
use walfix::repair::{self, Lock, RepairError};
use walfix::scan::{self, scan};
use walfix::tsdb::Target;

const OK: &[i32] = &[0];
const REPAIRED: &[i32] = &[1];
const FAILED: &[i32] = &[8];

fn damage(path: &Path, offset: u64) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[0xC3; 200], offset).unwrap();
}

fn repair_in_place(data: &Path) -> PathBuf {
    let known = backups(data);
    walfix_exits(REPAIRED, &["repair".as_ref(), "--backup".as_ref(), data.as_os_str()], "repair");
    backups(data).into_iter().find(|backup| !known.contains(backup)).expect("a backup")
}

fn undo(codes: &[i32], arguments: &[&OsStr]) -> String {
    walfix_exits(codes, &[&["undo".as_ref()], arguments].concat(), "undo")
}

fn repaired(fixture: &str) -> (Place, Tree, PathBuf) {
    let place = Place::of(fixture);
    let before = tree(&place.data());
    let backup = repair_in_place(&place.data());
    (place, before, backup)
}

fn logs(tree: &Tree) -> BTreeMap<&str, Option<&[u8]>> {
    contents(tree)
        .into_iter()
        .filter(|(path, _)| path.starts_with("wal") || path.starts_with("wbl"))
        .collect()
}

#[test]
fn damage_while_there_is_a_backup() {
    let (place, before, first) = repaired("overwritten_range");
    let data = place.data();
    damage(&data.join("wal/00000000"), 9000);
    damage(&data.join("wal/00000001"), 40_000);
    let between = tree(&data);
    let second = repair_in_place(&data);
    assert_ne!(first, second);
    let after = tree(&data);
    let said = undo(FAILED, &[first.as_os_str()]);
    assert!(said.contains("wal/0000000"), "{said}");
    assert_eq!(difference(&after, &tree(&data)), None);
    undo(OK, &[second.as_os_str()]);
    assert_eq!(difference(&between, &tree(&data)), None);
    // The damage that has come since is not that repair's to undo.
    undo(FAILED, &[first.as_os_str()]);
    assert_eq!(difference(&between, &tree(&data)), None);
    // As it was when the first was done.
    for (path, offset) in [("wal/00000000", 9000), ("wal/00000001", 40_000)] {
        let old = before[path].bytes.as_ref().unwrap();
        let file = OpenOptions::new().write(true).open(data.join(path)).unwrap();
        file.write_all_at(&old[offset..offset + 200], offset as u64).unwrap();
        let nanoseconds = u64::try_from(before[path].modified).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanoseconds)).unwrap();
    }
    undo(OK, &[first.as_os_str()]);
    assert_eq!(difference(&before, &tree(&data)), None);
    // Once more is nothing.
    undo(OK, &[first.as_os_str()]);
    assert_eq!(difference(&before, &tree(&data)), None);
}

#[test]
fn backups_that_were_tampered_with() {
    for case in [&CASES[1], &CASES[8]] {
        let place = case.place();
        walfix_exits(REPAIRED, &place.repair_arguments()[1..], case.name);
        let after = tree(&place.data());
        let names = tree(&place.backup());
        let files: Vec<&String> = names.keys().filter(|path| names[*path].bytes.is_some()).collect();
        assert!(files.len() >= 5, "{files:?}");
        for file in files {
            let (path, bytes) = (place.backup().join(file), names[file].bytes.as_ref().unwrap());
            let half = bytes.len() / 2;
            let flipped = [&bytes[..half], &[bytes[half] ^ 1], &bytes[half + 1..]].concat();
            let shorter = bytes[..bytes.len() - 1].to_vec();
            for other in [Some(flipped), Some(shorter), Some(Vec::new()), None] {
                match &other {
                    Some(other) => fs::write(&path, other).unwrap(),
                    None => fs::remove_file(&path).unwrap(),
                }
                let backup = place.backup();
                for arguments in [&[backup.as_os_str()][..], &["--force".as_ref(), backup.as_os_str()]] {
                    let said = undo(FAILED, arguments);
                    assert!(said.contains(file.as_str()), "{file}: {said}");
                }
                assert_eq!(difference(&after, &tree(&place.data())), None, "{file}");
                fs::write(&path, bytes).unwrap();
            }
        }
        undo(OK, &[place.backup().as_os_str()]);
    }
}

#[test]
fn a_plan_out_of_date() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 4] = [
        ("written to", |data| damage(&data.join("wal/00000001"), 50_000)),
        ("another segment written to", |data| damage(&data.join("wal/00000002"), 10)),
        ("gone", |data| fs::remove_file(data.join("wal/00000002")).unwrap()),
        ("replaced", |data| {
            let path = data.join("wal/00000001");
            tree::copy(&path, &data.join("copy"));
            fs::rename(data.join("copy"), path).unwrap();
        }),
    ];
    for (name, deed) in deeds {
        let place = Place::of("overwritten_range");
        let target = Target::find(&place.data()).unwrap();
        let report = scan(&target, &scan::Options::default(), &()).unwrap();
        let plan = repair::plan(&target, &report, None, repair::Options::default()).unwrap();
        deed(&place.data());
        let before = tree(&place.data());
        let lock = Lock::take(target.path()).unwrap();
        let error = repair::apply(&target, &plan, &place.backup(), &lock).expect_err(name);
        assert!(matches!(error, RepairError::Changed { .. }), "{name}: {error}");
        drop(lock);
        assert_eq!(difference(&before, &tree(&place.data())), None, "{name}");
        assert!(!place.backup().exists(), "{name}");
    }
}

/// A server starts on the repaired directory, and stops.
#[test(long)]
fn after_prometheus() {
    for server in Servers::judges("undo after Prometheus has run").iter().rev().take(1) {
        let (place, before, backup) = repaired("overwritten_range");
        let data = place.data();
        let options =
            Options { flags: vec!["--storage.tsdb.retention.time=100y".to_owned()], ..Options::default() };
        let running = server.start(&data, &options).and_then(Started::ready).expect("it starts");
        // While it runs, only a copy can be had.
        let said = undo(FAILED, &[backup.as_os_str()]);
        assert!(said.contains("is locked"), "{said}");
        let into = place.beside("while");
        undo(OK, &["--into".as_ref(), into.as_os_str(), backup.as_os_str()]);
        assert_eq!(
            logs(&before),
            contents(&tree(&into)).into_iter().filter(|(path, _)| !path.is_empty()).collect()
        );
        running.stop().expect("it stops");

        let after = tree(&data);
        assert!(after.contains_key("wal/00000003"), "{:?}", after.keys());
        let said = undo(FAILED, &[backup.as_os_str()]);
        assert!(said.contains("wal/00000003 has appeared"), "{said}");
        assert!(said.contains("--into=DIR") && said.contains("--force"), "{said}");
        assert_eq!(difference(&after, &tree(&data)), None);

        let into = place.beside("into");
        undo(OK, &["--into".as_ref(), into.as_os_str(), backup.as_os_str()]);
        let copied = tree(&into);
        for (path, entry) in before.iter().filter(|(path, _)| path.starts_with("wal")) {
            assert_eq!(copied.get(path), Some(entry), "{path}");
        }
        assert_eq!(difference(&after, &tree(&data)), None);
        let said = undo(FAILED, &["--into".as_ref(), into.as_os_str(), backup.as_os_str()]);
        assert!(said.contains("exists"), "{said}");

        undo(OK, &["--force".as_ref(), backup.as_os_str()]);
        let forced = tree(&data);
        assert_eq!(forced["wal/00000001"], before["wal/00000001"]);
        for path in ["wal/00000000", "wal/00000002", "wal/00000003"] {
            assert_eq!(forced[path], after[path], "{path}");
        }
        let kept = PathBuf::from(format!("{}-before-undo", backup.display())).join("wal/00000001");
        assert_eq!(fs::read(kept).ok(), after["wal/00000001"].bytes);
        // Again is nothing, and keeps nothing.
        undo(OK, &["--force".as_ref(), backup.as_os_str()]);
        assert_eq!(backups(&data).len(), 2);
    }
}

/// What cannot be put back is not half put back.
#[test]
fn files_that_changed_since() {
    let (place, _, backup) = repaired("overwritten_range");
    damage(&place.data().join("wal/00000001"), 40_000);
    let after = tree(&place.data());
    let said = undo(FAILED, &["--force".as_ref(), backup.as_os_str()]);
    assert!(said.contains("wal/00000001 cannot be put back"), "{said}");
    let into = place.beside("into");
    let said = undo(&[4], &["--into".as_ref(), into.as_os_str(), backup.as_os_str()]);
    assert!(said.contains("wal/00000001 is not among them"), "{said}");
    assert_eq!(tree(&into).keys().collect::<Vec<_>>(), ["", "wal", "wal/00000000", "wal/00000002"]);
    assert_eq!(difference(&after, &tree(&place.data())), None);
}

/// Whole files are put back whatever is there now.
#[test]
fn a_rewritten_file_that_changed_since() {
    let place = CASES[8].place();
    let before = tree(&place.data());
    walfix_exits(REPAIRED, &place.repair_arguments()[1..], "a hole of nine bytes");
    damage(&place.data().join("wal/00000001"), 50_000);
    let after = tree(&place.data());
    undo(FAILED, &[place.backup().as_os_str()]);
    assert_eq!(difference(&after, &tree(&place.data())), None);
    undo(OK, &["--force".as_ref(), place.backup().as_os_str()]);
    assert_eq!(contents(&tree(&place.data())), contents(&before));
    let kept = place.data().join("walfix-backup-t-before-undo/wal/00000001");
    assert_eq!(fs::read(kept).ok(), after["wal/00000001"].bytes);
}

#[test]
fn a_directory_that_was_moved_with_its_backup() {
    let (place, before, backup) = repaired("overwritten_range");
    let name = backup.file_name().unwrap();
    // A copy, while the original is still there: it is the copy that is meant.
    let copy = place.beside("copy");
    tree::copy(&place.data(), &copy);
    let original = tree(&place.data());
    undo(OK, &[copy.join(name).as_os_str()]);
    assert_eq!(difference(&before, &tree(&copy)), None);
    assert_eq!(difference(&original, &tree(&place.data())), None);
    // Moved.
    let moved = place.beside("moved");
    fs::rename(place.data(), &moved).unwrap();
    undo(OK, &[moved.join(name).as_os_str()]);
    assert_eq!(difference(&before, &tree(&moved)), None);
    // A backup that is nowhere.
    let alone = place.beside("alone");
    fs::rename(copy.join(name), &alone).unwrap();
    let said = undo(FAILED, &[alone.as_os_str()]);
    assert!(said.contains("is not there"), "{said}");
}

/// Killed in the midst, then a Prometheus starts there: the repair is given up, what is there then is repaired, and the
/// backup stays.
#[test]
fn an_unfinished_repair_overtaken_by_prometheus() {
    const WHAT: &str = "a repair overtaken by Prometheus";
    let oracle = oracle::judge(WHAT);
    strace::require(WHAT);
    // The last one has a step done and another not.
    for (case, write) in [(&CASES[1], 1), (&CASES[5], 1), (&CASES[5], 5)] {
        let pristine = case.place();
        let place = pristine.again();
        let arguments = place.repair_arguments();
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let (_, calls) = strace::trace(&place.beside("trace"), &arguments);
        let mut writes = calls.iter().filter(|call| call.name == "pwrite64");
        let write = writes.nth(write).expect("so many writes");
        let place = pristine.again();
        let arguments = place.repair_arguments();
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        strace::kill_at(&place.beside("trace"), &arguments, write);
        assert!(place.data().join("walfix-repair.json").exists());
        oracle.json(&["open", "--head"], &place.data());
        let said = walfix_exits(
            &[0, 1],
            &["repair".as_ref(), "--backup".as_ref(), place.data().as_os_str()],
            case.name,
        );
        assert!(said.contains("given up") && said.contains("its backup stays"), "{said}");
        assert!(place.backup().join("manifest.json").exists());
        walfix_exits(OK, &["scan".as_ref(), place.data().as_os_str()], case.name);
        assert!(!place.data().join("walfix-repair.json").exists());
        undo(FAILED, &[place.backup().as_os_str()]);
    }
}

/// An older backup is not undone over a repair that is not finished.
#[test]
fn an_unfinished_repair_comes_before_an_older_one() {
    strace::require("undo beside an unfinished repair");
    let place = CASES[1].place();
    let before = tree(&place.data());
    let old = repair_in_place(&place.data());
    damage(&place.data().join("wal/00000000"), 9000);
    let damaged = place.again();
    let arguments = damaged.repair_arguments();
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let (_, calls) = strace::trace(&damaged.beside("trace"), &arguments);
    let write = calls.iter().find(|call| call.name == "pwrite64").expect("a write");
    let arguments = place.repair_arguments();
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    strace::kill_at(&place.beside("trace"), &arguments, write);
    let said = undo(FAILED, &[old.as_os_str()]);
    assert!(said.contains("another repair is not finished") && said.contains("walfix-backup-t"), "{said}");
    assert!(place.data().join("walfix-repair.json").exists());
    undo(OK, &[place.backup().as_os_str()]);
    assert!(!place.data().join("walfix-repair.json").exists());
    assert_eq!(tree(&place.data())["wal/00000001"].mode, before["wal/00000001"].mode);
}

/// The rest of a backup that was killed is removed, and nothing that only has such a name.
#[test]
fn backups_that_never_became_whole() {
    let place = Place::of("overwritten_range");
    let data = place.data();
    fs::create_dir_all(data.join("walfix-backup-2020-01-01T00-00-00Z.unfinished/old/wal")).unwrap();
    fs::write(data.join("wal/00000001.walfix"), "half").unwrap();
    let said =
        walfix_exits(REPAIRED, &["repair".as_ref(), "--backup".as_ref(), data.as_os_str()], "leftovers");
    assert!(said.contains("walfix-backup-2020-01-01T00-00-00Z.unfinished"), "{said}");
    assert!(!data.join("walfix-backup-2020-01-01T00-00-00Z.unfinished").exists());
    assert!(!data.join("wal/00000001.walfix").exists());

    damage(&data.join("wal/00000001"), 40_000);
    let mine = place.beside("mine.unfinished");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("thesis.txt"), "irreplaceable").unwrap();
    let backup = format!("--backup={}", place.beside("mine").display());
    let said = walfix_exits(FAILED, &["repair".as_ref(), OsStr::new(&backup), data.as_os_str()], "not ours");
    assert!(said.contains("thesis.txt"), "{said}");
    assert!(mine.join("thesis.txt").exists());
}

/// Only what a repair was writing is removed: not what somebody has called so.
#[test]
fn files_of_others_stay() {
    for (fixture, codes) in [("healthy", OK), ("overwritten_range", REPAIRED)] {
        let place = Place::of(fixture);
        let data = place.data();
        let mine = ["wal.walfix", "notes.walfix", "wal/copy.walfix", "wal/00000000.walfix/00000000"];
        fs::create_dir(data.join("wal/00000000.walfix")).unwrap();
        for path in mine {
            fs::write(data.join(path), "mine").unwrap();
        }
        std::os::unix::fs::symlink(data.join("notes.walfix"), data.join("wal/00000002.walfix")).unwrap();
        fs::write(data.join("wal/00000001.walfix"), "half").unwrap();
        walfix_exits(codes, &["repair".as_ref(), "--backup".as_ref(), data.as_os_str()], fixture);
        for path in mine.iter().chain(&["wal/00000002.walfix"]) {
            assert_eq!(
                fs::read_to_string(data.join(path)).ok().as_deref(),
                Some("mine"),
                "{fixture}: {path}"
            );
        }
        assert!(!data.join("wal/00000001.walfix").exists(), "{fixture}");
    }
}

/// Somebody begins to write while the backup is written.
#[test]
fn a_writer_that_starts_after_the_plan_was_made() {
    strace::require("a writer beside a repair");
    let pristine = Place::of("overwritten_range");
    let trace = |place: &Place| {
        let arguments = place.repair_arguments();
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        strace::trace(&place.beside("trace"), &arguments).1
    };
    let calls = trace(&pristine.again());
    let made = calls.iter().find(|call| call.name == "mkdirat" && call.arguments.contains("unfinished"));
    let made = made.expect("a backup");
    for is_new in [true, false] {
        let place = pristine.again();
        let arguments = place.repair_arguments();
        let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let stopped = strace::stopped_at(&place.beside("trace"), &arguments, made);
        let name = if is_new { "wal/00000003" } else { "wal/00000002" };
        let segment =
            OpenOptions::new().write(true).create(true).truncate(false).open(place.data().join(name));
        // Its new segment is seen though it has it open no more.
        let segment = (!is_new).then_some(segment.unwrap());
        let output = stopped.go_on();
        drop(segment);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{said}");
        assert!(said.contains(if is_new { "wal/00000003 has appeared" } else { "in use" }), "{said}");
        assert!(!place.backup().exists() && !place.data().join("walfix-repair.json").exists());
        let (before, after) = (tree(&pristine.data()), tree(&place.data()));
        for (path, entry) in contents(&before) {
            assert_eq!(contents(&after).get(path), Some(&entry), "{path}");
        }
    }
}
