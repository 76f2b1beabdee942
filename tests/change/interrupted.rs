//! Repairs that are killed at each call by which they change a file, find the disk full at each, may not write, or meet
//! each other. Whatever happens, Prometheus would keep no less than of the directory as it was, the next repair leaves it
//! repaired, and undo leaves it as it was.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use support::oracle;
use support::repairs::{CASES, Case, Keeps, Place, backups, cases, walfix_exits};
use support::server::{self, Options, Servers, Version};
use support::strace::{self, Call};
use support::test;
use support::tree::{self, Tree, contents, difference, tree};
use walfix::repair::Lock;

const WALFIX: &str = env!("CARGO_BIN_EXE_walfix");

const DONE: &[i32] = &[0, 1];
const REPAIRED: &[i32] = &[1];
const FAILED: &[i32] = &[8];

fn os(arguments: &[std::ffi::OsString]) -> Vec<&OsStr> {
    arguments.iter().map(AsRef::as_ref).collect()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn device(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::dev(&path.metadata().unwrap())
}

/// The calls by which a repair changes something.
fn changes(case: &Case) -> Vec<Call> {
    let place = case.place();
    let (output, calls) = strace::trace(&place.beside("trace"), &os(&place.repair_arguments()));
    assert_eq!(code(&output), Some(1), "{case:?}: {output:?}");
    let plan = fs::read_to_string(place.backup().join("plan.json")).unwrap();
    for part in case.plan_has {
        assert!(plan.contains(part), "{}: no {part} in {plan}", case.name);
    }
    let main = calls[0].thread;
    let changes: Vec<Call> = calls.into_iter().filter(Call::is_change).collect();
    assert!(changes.iter().all(|call| call.thread == main), "{changes:?}");
    assert!(changes.len() > 30, "{changes:?}");
    changes
}

/// Nothing is left of a repair but backups, and nothing is damaged.
fn assert_repaired(data: &Path, about: &str) {
    walfix_exits(&[0], &["scan".as_ref(), data.as_os_str()], about);
    let names: Vec<String> = tree(data).into_keys().collect();
    // An undo that is killed while it puts a directory back leaves a part of it by such a name, and the next undo removes
    // that; a repair does not, as it cannot know whose it is.
    let is_staged = |name: &str| name.ends_with(".walfix") && !name.starts_with("chunk_snapshot.");
    let left = names.iter().find(|name| is_staged(name) || *name == "walfix-repair.json" || *name == "lock");
    assert_eq!(left, None, "{about}");
    let partial = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!partial.into_iter().any(|name| name.to_string_lossy().ends_with(".unfinished")), "{about}");
}

fn undo(backup: &Path, about: &str) {
    walfix_exits(&[0], &["undo".as_ref(), backup.as_os_str()], about);
}

/// Undoes all backups, the newest first.
fn undo_all(place: &Place, about: &str) {
    let mut all = backups(&place.data());
    if !place.backup().starts_with(place.data()) && place.backup().exists() {
        all.push(place.backup());
    }
    assert!(!all.is_empty(), "{about}: no backup");
    for backup in all {
        undo(&backup, about);
    }
}

/// As `before`; but for the time of the data directory itself if a repair was killed before it could write it down.
fn assert_same(before: &Tree, place: &Place, with_time: bool, about: &str) {
    let mut after = tree(&place.data());
    if !with_time && let Some(top) = after.get_mut("") {
        top.modified = before[""].modified;
    }
    assert_eq!(difference(before, &after), None, "{about}");
}

/// What must be so, whatever has happened to a repair of a directory that was as `before`.
fn assert_safe(
    interrupted: &dyn Fn() -> Place,
    before: &Tree,
    unrepaired: &Path,
    keeps: &Keeps,
    about: &str,
) {
    let place = &interrupted();
    let lacks = keeps.of(&place.data()).lacks(&keeps.of(unrepaired));
    assert_eq!(lacks, None, "{about}");
    // Before the time of the directory is written down there is the file for it, and nothing else.
    let with_time = fs::read(place.data().join("lock.walfix")).is_ok_and(|text| !text.is_empty())
        || !place.data().join("lock.walfix").exists();
    if place.backup().exists() {
        // A backup elsewhere knows the data directory by its path.
        let is_inside = place.backup().starts_with(place.data());
        let other = if is_inside { place.again() } else { interrupted() };
        undo(&other.backup(), about);
        // What the lock leaves that is there still when it is killed goes with the next.
        assert_same(before, &other, true, &format!("{about}: undone"));
    }
    walfix_exits(
        DONE,
        &[
            "repair".as_ref(),
            "--quiet".as_ref(),
            "--accept-orphans".as_ref(),
            "--backup".as_ref(),
            place.data().as_os_str(),
        ],
        about,
    );
    assert_repaired(&place.data(), about);
    assert_eq!(keeps.of(&place.data()).lacks(&keeps.of(unrepaired)), None, "{about}: repaired");
    undo_all(place, about);
    assert_same(before, place, with_time, &format!("{about}: repaired and undone"));
}

/// Runs `test` for each case, two at a time.
fn each_case(what: &str, test: impl Fn(&Case, &Keeps) + Sync) {
    let oracle = oracle::judge(what);
    strace::require(what);
    let (cases, next) = (cases(), std::sync::atomic::AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    test(case, &Keeps::new(oracle));
                }
            });
        }
    });
}

#[test(long)]
fn killed_at_each_change() {
    if let Some(case) = cases().iter().find(|case| case.is_elsewhere)
        && device(&case.place().data()) == device(&std::env::temp_dir())
    {
        support::skip_part(case.name, "no second file system for temporary files");
    }
    each_case("a repair that is killed", |case, keeps| {
        let pristine = case.place();
        let before = tree(&pristine.data());
        let changes = changes(case);
        for (at, call) in changes.iter().enumerate() {
            let about = format!("{}: killed at {} of {}, {call:?}", case.name, at + 1, changes.len());
            let killed = || {
                let place = pristine.again();
                let output = strace::kill_at(&place.beside("trace"), &os(&place.repair_arguments()), call);
                assert_eq!(code(&output), None, "{about}: {output:?}");
                place
            };
            assert_safe(&killed, &before, &pristine.data(), keeps, &about);
        }
        assert!(keeps.asked() > 1, "{}: all states are the same", case.name);
    });
}

/// The same with an undo: it is done again, or the directory repaired again.
#[test(long)]
fn an_undo_killed_at_each_change() {
    each_case("an undo that is killed", |case, keeps| {
        let repaired = case.place();
        let before = tree(&repaired.data());
        let unrepaired = repaired.again();
        walfix_exits(REPAIRED, &repaired.repair_arguments()[1..], case.name);
        let arguments = |place: &Place| [WALFIX.into(), "undo".into(), place.backup().into_os_string()];
        let place = moved(&repaired);
        let (output, calls) = strace::trace(&place.beside("trace"), &os(&arguments(&place)));
        assert_eq!(code(&output), Some(0), "{}: {output:?}", case.name);
        let changes: Vec<Call> = calls.into_iter().filter(Call::is_change).collect();
        for call in &changes {
            let about = format!("{}: undo killed at {call:?}", case.name);
            let place = moved(&repaired);
            strace::kill_at(&place.beside("trace"), &os(&arguments(&place)), call);
            assert_eq!(keeps.of(&place.data()).lacks(&keeps.of(&unrepaired.data())), None, "{about}");
            let other = moved(&place);
            undo(&place.backup(), &about);
            assert_same(&before, &place, true, &about);
            walfix_exits(
                DONE,
                &[
                    "repair".as_ref(),
                    "--accept-orphans".as_ref(),
                    "--backup".as_ref(),
                    other.data().as_os_str(),
                ],
                &about,
            );
            assert_repaired(&other.data(), &about);
        }
    });
}

/// A copy of a place that has a backup; it is another data directory then.
fn moved(place: &Place) -> Place {
    let copy = place.again();
    // A backup elsewhere knows its data directory by its path.
    if !copy.backup().starts_with(copy.data()) {
        let manifest = copy.backup().join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let (from, to) = (place.data().canonicalize().unwrap(), copy.data().canonicalize().unwrap());
        let text = text.replace(&*from.to_string_lossy(), &to.to_string_lossy());
        fs::write(&manifest, text).unwrap();
        write_checksums(&copy.backup());
    }
    copy
}

/// The checksums of a backup whose description was changed on purpose.
fn write_checksums(backup: &Path) {
    use crc_fast::{CrcAlgorithm, checksum};
    let line = |name: &str| {
        let sum = checksum(CrcAlgorithm::Crc64Nvme, &fs::read(backup.join(name)).unwrap());
        format!("{sum:016x}  {name}\n")
    };
    let text: String = ["manifest.json", "plan.json", "README.txt"].into_iter().map(line).collect();
    fs::write(backup.join("checksums"), text).unwrap();
}

/// A disk that is full at one call, and has room again when the next repair comes.
#[test(long)]
fn disk_full_at_each_change() {
    each_case("a disk that is full", |case, keeps| {
        let pristine = case.place();
        let before = tree(&pristine.data());
        for call in changes(case).iter().filter(|call| call.takes_room()) {
            let about = format!("{}: no space at {call:?}", case.name);
            let full = || {
                let place = pristine.again();
                let log = place.beside("trace");
                let output = strace::fail_at(&log, &os(&place.repair_arguments()), call, "ENOSPC");
                let said = String::from_utf8_lossy(&output.stderr);
                if code(&output) == Some(1) {
                    return place;
                }
                assert_eq!(code(&output), Some(8), "{about}: {said}");
                assert!(said.contains("No space left"), "{about}: {said}");
                if place.data().join("walfix-repair.json").exists() {
                    assert!(said.contains("walfix undo"), "{about}: {said}");
                } else if said.contains("walfix undo") {
                    // All was done but to make that safe.
                    walfix_exits(&[0], &["scan".as_ref(), place.data().as_os_str()], &about);
                } else {
                    assert_same(&before, &place, true, &about);
                    assert!(!place.backup().exists(), "{about}");
                }
                place
            };
            assert_safe(&full, &before, &pristine.data(), keeps, &about);
        }
    });
}

/// A script as root of a mount namespace of its own. Where that is not allowed, the test is skipped.
fn in_own_mounts(what: &str, script: &str, arguments: &[&OsStr]) -> Output {
    let run = |script: &str, arguments: &[&OsStr]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script, "sh"]).args(arguments);
        command.output()
    };
    if !run("mount -t tmpfs none /mnt", &[]).is_ok_and(|output| output.status.success()) {
        support::skip(what, "mounts are not allowed");
    }
    run(script, arguments).unwrap()
}

/// A real file system without room: nothing is begun, as that is known beforehand. With room for the backup elsewhere, the
/// repair is done.
#[test]
fn a_file_system_without_room() {
    let place = Place::of("overwritten_range");
    let script = r#"
        mount -t tmpfs -o size=256k none "$2" || exit 99
        cp -a "$1/." "$2" || exit 99
        dd if=/dev/zero of="$2/ballast" bs=4k 2>/dev/null
        (cd "$2" && ls -lnR --time-style=full-iso . && cat wal/*) >"$3/before"
        "$4" repair --backup "$2"; echo "exit $?"
        (cd "$2" && ls -lnR --time-style=full-iso . && cat wal/*) >"$3/after"
        cmp "$3/before" "$3/after" || exit 98
        truncate -s -64k "$2/ballast"
        "$4" repair --backup="$3/backup" "$2"; echo "exit $?"
        rm "$2/ballast" && mount -o remount,size=64m "$2" || exit 97
        "$4" scan "$2"; echo "exit $?"
    "#;
    let mount = place.beside("mount");
    fs::create_dir(&mount).unwrap();
    let logs = tempfile::tempdir().unwrap();
    let arguments =
        [place.data().into_os_string(), mount.into_os_string(), logs.path().into(), WALFIX.into()];
    let output = in_own_mounts("a file system without room", script, &os(&arguments));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let exits: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("exit ")).collect();
    assert_eq!(exits, ["8", "1", "0"], "{output:?}");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("bytes free") || complaint.contains("No space left"), "{complaint}");
    assert!(complaint.contains("--backup=DIR") && complaint.contains("--into=DIR"), "{complaint}");
}

#[test]
fn a_read_only_mount() {
    for with_lock in [false, true] {
        let place = Place::of("overwritten_range");
        if with_lock {
            File::create(place.data().join("lock")).unwrap();
        }
        let before = tree(&place.data());
        let script = r#"
            mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99
            "$2" repair --backup="$3" "$1"
        "#;
        let arguments =
            [place.data().into_os_string(), WALFIX.into(), place.beside("backup").into_os_string()];
        let output = in_own_mounts("a read-only mount", script, &os(&arguments));
        assert_eq!(code(&output), Some(8), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"), "{output:?}");
        assert_same(&before, &place, true, "a read-only mount");
        assert!(!place.beside("backup").exists());
    }
}

/// Whoever may not write to a file that has to be changed changes none; nor leaves a lock that stops Prometheus.
#[test]
fn no_permission() {
    let is_root = File::open("/proc/self/status").is_ok()
        && fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
    // Root may write anywhere, so it has to be somebody else.
    let walfix_of_nobody = |place: &Place, arguments: &[&OsStr]| -> Output {
        if !is_root {
            return Command::new(WALFIX).args(arguments).output().unwrap();
        }
        // Where everybody may execute it.
        let elsewhere = tempfile::tempdir().unwrap();
        let program = elsewhere.path().join("walfix");
        // By another process: a test that forks meanwhile would inherit the open file, and a file that is open for writing
        // cannot be executed.
        assert!(Command::new("cp").args([WALFIX.as_ref(), program.as_os_str()]).status().unwrap().success());
        for directory in [elsewhere.path(), &place.beside("")] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program).args(arguments);
        command.output().unwrap()
    };
    let allow = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // The data directory, the directory of the segments, the damaged segment: who may write.
    for (data, wal, segment) in [(0o555, 0o555, 0o444), (0o777, 0o777, 0o444), (0o777, 0o555, 0o444)] {
        for fixture in ["overwritten_range", "zeroed_page_inside_record"] {
            let place = Place::of(fixture);
            for entry in fs::read_dir(place.data().join("wal")).unwrap() {
                allow(&entry.unwrap().path(), segment);
            }
            allow(&place.data().join("wal"), wal);
            allow(&place.data(), data);
            let before = tree(&place.data());
            let output =
                walfix_of_nobody(&place, &["repair".as_ref(), "--backup".as_ref(), place.data().as_os_str()]);
            let about = format!("{fixture}, {data:o} {wal:o} {segment:o}");
            assert_eq!(code(&output), Some(8), "{about}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("ermission denied"), "{output:?}");
            // The time of a directory of somebody else's cannot be set back.
            assert_same(&before, &place, data == 0o555, &about);
            assert_eq!(backups(&place.data()), Vec::<std::path::PathBuf>::new(), "{about}");
            allow(&place.data(), 0o755);
            allow(&place.data().join("wal"), 0o755);
        }
    }
}

#[test]
fn a_second_repair_at_once() {
    let place = Place::of("overwritten_range");
    let lock = Lock::take(&place.data()).unwrap();
    let before = tree(&place.data());
    let elsewhere = format!("--backup={}", place.beside("backup").display());
    let data = place.data();
    for backup in ["--backup", &elsewhere] {
        let arguments = ["repair".as_ref(), backup.as_ref(), data.as_os_str()];
        let said = walfix_exits(FAILED, &arguments, "locked");
        assert!(said.contains("is locked") && said.contains("nothing was changed"), "{said}");
        assert_same(&before, &place, true, "locked");
    }
    drop(lock);
    walfix_exits(REPAIRED, &place.repair_arguments()[1..], "free again");
    let lock = Lock::take(&place.data()).unwrap();
    let said = walfix_exits(FAILED, &["undo".as_ref(), place.backup().as_os_str()], "locked");
    assert!(said.contains("is locked"), "{said}");
    drop(lock);
    undo(&place.backup(), "free again");
}

/// A repair that stands still in the midst of its work, and another one.
#[test]
fn a_second_repair_in_the_midst_of_the_first() {
    strace::require("two repairs at once");
    let case = &CASES[1];
    let (place, before) = (case.place(), case.place());
    let writes = changes(case);
    let write = writes.iter().find(|call| call.name == "pwrite64").expect("it writes in place");
    let first = strace::stopped_at(&place.beside("trace"), &os(&place.repair_arguments()), write);
    let halfway = tree(&place.data());
    let said = walfix_exits(
        FAILED,
        &["repair".as_ref(), "--backup".as_ref(), place.data().as_os_str()],
        "the second",
    );
    assert!(said.contains("is locked"), "{said}");
    assert_same(&halfway, &place, true, "the second");
    let output = first.go_on();
    assert_eq!(code(&output), Some(1), "{output:?}");
    assert_repaired(&place.data(), "the first");
    undo(&place.backup(), "the first");
    assert_eq!(contents(&tree(&place.data())), contents(&tree(&before.data())));
}

/// What the oracle says is so, said by a real server: at one state of each repair, or, with `WALFIX_ALL_STATES=1`, at each.
#[test(long)]
fn a_real_server_keeps_no_less() {
    const WHAT: &str = "a real server on a repair that was killed";
    let servers = Servers::judges(WHAT);
    let Some(server) = servers.iter().rfind(|server| server.version >= Version(3, 0, 0)) else {
        return;
    };
    strace::require(WHAT);
    let all = std::env::var_os("WALFIX_ALL_STATES").is_some_and(|value| value == "1");
    let samples = |data: &Path| -> Vec<(String, (i64, String))> {
        let options =
            Options { flags: vec!["--storage.tsdb.retention.time=100y".to_owned()], ..Options::default() };
        let running = server.start_on_copy(data, &options).and_then(server::Started::ready);
        // It may refuse to.
        let Ok(running) = running else { return Vec::new() };
        let found = running.samples("{__name__=~\".+\"}", None).unwrap_or_else(|error| panic!("{error}"));
        running.stop().unwrap_or_else(|error| panic!("{error}"));
        found
            .into_iter()
            .flat_map(|(name, all)| all.into_iter().map(move |one| (name.clone(), one)))
            .collect()
    };
    for case in CASES {
        let pristine = case.place();
        let unrepaired = samples(&pristine.data());
        let mut seen = Vec::new();
        let changes = changes(case);
        for call in &changes {
            let place = pristine.again();
            strace::kill_at(&place.beside("trace"), &os(&place.repair_arguments()), call);
            let state = tree(&place.data());
            let logs: Tree =
                state.into_iter().filter(|(path, _)| path != "lock" && !path.contains("walfix")).collect();
            if !seen.iter().any(|known| tree::hash(known) == tree::hash(&logs)) {
                seen.push(logs);
                // The first is as before.
                if all || seen.len() == 2 {
                    let found: std::collections::HashSet<_> = samples(&place.data()).into_iter().collect();
                    let lost = unrepaired.iter().filter(|sample| !found.contains(sample)).count();
                    assert_eq!(lost, 0, "{}: killed at {call:?}", case.name);
                }
            }
        }
        assert!(seen.len() > 1, "{}: {} states", case.name, seen.len());
    }
}
