//! Nothing is repaired or undone beside somebody who writes to the data directory: a running Prometheus, with its lock file
//! or without, in this PID namespace or another; another walfix. Readers are nobody, and so are those who are gone.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use support::server::{Error, Options, Running, Server, Servers, copy_directory};
use support::{note, test};
use tempfile::TempDir;
use walfix::repair::{Lock, RepairError};
use walfix::tsdb::liveness::{self, Process, Writer};

const CLEAN: i32 = 0;
const REPAIRED: i32 = 1;
const DAMAGED: i32 = 4;
const FAILED: i32 = 8;

type Result<T = ()> = std::result::Result<T, Error>;

// ---- the binary

fn walfix(arguments: &[&str], path: &Path) -> Command {
    inside(&[env!("CARGO_BIN_EXE_walfix")], arguments, path)
}

/// The command by means of others: `unshare`, `setpriv`.
fn inside(by: &[&str], arguments: &[&str], path: &Path) -> Command {
    let mut command = Command::new(by[0]);
    command.args(&by[1..]);
    if by.last() != Some(&env!("CARGO_BIN_EXE_walfix")) {
        command.arg(env!("CARGO_BIN_EXE_walfix"));
    }
    command.args(arguments).arg(path).stdin(Stdio::null());
    command
}

#[track_caller]
fn exits(mut command: Command, code: i32) -> String {
    let output = command.output().expect("it runs");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{said}");
    said
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn repair(data: &Path) -> Command {
    walfix(&["repair", "--backup"], data)
}

/// What runs a command in a PID namespace of its own; none if that cannot be had here.
fn unshare() -> Option<&'static [&'static str]> {
    static WORKS: OnceLock<Option<&[&str]>> = OnceLock::new();
    const AS_ROOT: &[&str] = &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    const AS_USER: &[&str] =
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    *WORKS.get_or_init(|| {
        [AS_ROOT, AS_USER].into_iter().find(|way| {
            let tried = Command::new(way[0]).args(&way[1..]).arg("true").output();
            tried.is_ok_and(|output| output.status.success())
        })
    })
}

const OTHER_NAMESPACE: (&str, &str) = ("another PID namespace", "unshare does not work here");

/// Without [`unshare`], a part of the test is skipped.
fn skip_other_namespaces() {
    if unshare().is_none() {
        support::skip_part(OTHER_NAMESPACE.0, OTHER_NAMESPACE.1);
    }
}

/// As [`unshare`]; without it, the test is skipped.
fn must_unshare() -> &'static [&'static str] {
    unshare().unwrap_or_else(|| support::skip(OTHER_NAMESPACE.0, OTHER_NAMESPACE.1))
}

// ---- data directories

fn directory(fixture: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged").join(fixture);
    copy_directory(&from, directory.path()).expect("a copy");
    directory
}

/// Flips bits of a record in the first segment, as a fault of the disk would.
fn damage(data: &Path) {
    let segment = data.join("wal/00000000");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[9000..9004].iter_mut().for_each(|byte| *byte ^= 0xFF);
    fs::write(&segment, bytes).expect("written");
}

/// What is in a directory and must not change, by its path below it: files with their bytes, directories with the time at
/// which a name was last added or removed.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    File(u64, Vec<u8>),
    Directory(SystemTime),
}

fn tree(data: &Path) -> BTreeMap<PathBuf, Entry> {
    fn walk(root: &Path, path: &Path, tree: &mut BTreeMap<PathBuf, Entry>) {
        let metadata = path.symlink_metadata().expect("it is there");
        let entry = if metadata.is_dir() {
            for entry in fs::read_dir(path).expect("a directory") {
                walk(root, &entry.expect("an entry").path(), tree);
            }
            Entry::Directory(metadata.modified().expect("a time"))
        } else {
            Entry::File(metadata.ino(), fs::read(path).expect("a file"))
        };
        tree.insert(path.strip_prefix(root).expect("below it").to_owned(), entry);
    }
    let mut all = BTreeMap::new();
    walk(data, data, &mut all);
    all
}

/// As [`tree`], without what a server that has nothing to scrape may still write.
fn untouched(data: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut tree = tree(data);
    tree.remove(Path::new("queries.active"));
    tree
}

fn backups(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("walfix")))
        .collect()
}

// ---- a running Prometheus

#[test(long)]
fn a_server() -> Result {
    beside(false)
}

#[test(long)]
fn an_agent() -> Result {
    beside(true)
}

fn beside(agent: bool) -> Result {
    skip_other_namespaces();
    Servers::each("repairs beside a running server", |server| {
        for lock in [true, false] {
            let end = if lock { Running::kill } else { Running::stop };
            refused(server, &Options { agent, lock: Some(lock), ..Options::default() }, end)?;
            let end = if lock { Running::stop } else { Running::kill };
            refused(server, &Options { agent, lock: Some(lock), ..Options::default() }, end)?;
        }
        Ok(())
    })
}

/// A server on a directory that was repaired, and is damaged while it runs: neither can be repaired or undone before the
/// server's `end`.
fn refused(
    server: &Server,
    options: &Options,
    end: fn(Running) -> Result<support::server::Exited>,
) -> Result {
    let what = format!("{} agent={} lock={:?}", server.version, options.agent, options.lock);
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    exits(repair(data), REPAIRED);
    let backup = backups(data).pop().expect("a backup");

    let running = server.start(data, options)?.ready()?;
    damage(data);
    let before = untouched(data);
    let scanned = exits(walfix(&["scan"], data), DAMAGED);
    assert!(scanned.contains("wal/00000000"), "{what}: {scanned}");
    let named = format!("prometheus (pid {}) has ", running.pid());
    for mut command in [repair(data), walfix(&["undo"], &backup)] {
        let said = exits_in_use(&mut command);
        assert!(said.contains(&named), "{what}: {said}");
        assert!(said.contains("wal/00000003"), "{what}: {said}");
        assert_eq!(untouched(data), before, "{what}");
    }
    if let Some(unshare) = unshare() {
        for mut command in
            [inside(unshare, &["repair", "--backup"], data), inside(unshare, &["undo"], &backup)]
        {
            let said = exits_in_use(&mut command);
            let somebody = "somebody in another container or PID namespace";
            assert!(said.contains(somebody) && said.contains("wal/00000003"), "{what}: {said}");
            assert_eq!(untouched(data), before, "{what}");
        }
    }
    // The plan is only read.
    exits(walfix(&["repair"], data), DAMAGED);
    assert_eq!(untouched(data), before, "{what}");

    end(running)?;
    repairs(data, &what);
    Ok(())
}

#[track_caller]
fn exits_in_use(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(FAILED), "{command:?}\n{said}");
    assert!(said.contains("nothing was changed") && said.contains("Stop Prometheus"), "{said}");
    said
}

/// A damaged directory that nobody uses is repaired, and its lock file is there afterwards if it was before.
#[track_caller]
fn repairs(data: &Path, what: &str) {
    let identity = || data.join("lock").metadata().map(|lock| lock.ino()).ok();
    let (lock, kept) = (identity(), backups(data).len());
    let said = exits(repair(data), REPAIRED);
    assert_eq!(identity(), lock, "{what}: {said}");
    assert_eq!(backups(data).len(), kept + 1, "{what}: {said}");
    exits(walfix(&["scan"], data), CLEAN);
}

#[test(long)]
fn a_server_in_a_namespace_of_its_own() -> Result {
    let unshare = must_unshare();
    Servers::each("repairs beside a server in another PID namespace", |server| {
        let scratch = tempfile::tempdir().expect("a directory");
        let wrapper = scratch.path().join("prometheus");
        let script =
            format!("#!/bin/sh\nexec {} '{}' \"$@\"\n", unshare.join(" "), server.prometheus.display());
        fs::write(&wrapper, script).expect("written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("executable");
        let elsewhere = Server { prometheus: wrapper, ..server.clone() };
        for (agent, lock) in [(false, true), (false, false), (true, true), (true, false)] {
            let what = format!("{} agent={agent} lock={lock}", server.version);
            let directory = directory("healthy");
            let data = directory.path();
            let options = Options { agent, lock: Some(lock), ..Options::default() };
            let running = elsewhere.start(data, &options)?.ready()?;
            damage(data);
            let before = untouched(data);
            let said = exits_in_use(&mut repair(data));
            assert!(said.contains("prometheus (pid ") && said.contains("wal/00000003"), "{what}: {said}");
            // Neither sees the other.
            let said = exits_in_use(&mut inside(unshare, &["repair", "--backup"], data));
            assert!(said.contains("somebody in another container or PID namespace"), "{what}: {said}");
            assert_eq!(untouched(data), before, "{what}");
            // `unshare` passes no SIGTERM on, and ends with its child.
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid()));
            let children = children.expect("the kernel tells");
            let killed = Command::new("kill").args(["-TERM", children.trim()]).status().expect("it runs");
            assert!(killed.success(), "{what}");
            running.stop()?;
            repairs(data, &what);
        }
        Ok(())
    })
}

// ---- others

/// A shell that has a file open as the redirection says, until it is dropped.
struct Holder(Child);

impl Holder {
    fn new(redirection: &str, file: &Path) -> Self {
        let script = format!("exec 3{redirection}\"$0\"; echo open; read end");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "open\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_writer_is_named_with_its_file() {
    for file in [
        "wal/00000001",
        "wal/checkpoint.00000000/00000000",
        "wbl/00000000",
        "chunks_head/000001",
        "queries.active",
    ] {
        let directory = directory("payload_bit_flip");
        let data = directory.path();
        let path = data.join(file);
        fs::create_dir_all(path.parent().expect("it has one")).expect("made");
        File::options().append(true).create(true).open(&path).expect("made");
        let before = tree(data);
        for redirection in [">>", "<>"] {
            let holder = Holder::new(redirection, &path);
            let said = exits_in_use(&mut repair(data));
            let named = format!("sh (pid {}) has {file} open for writing", holder.0.id());
            assert!(said.contains(&named), "{file}: {said}");
            let process = Process { pid: holder.0.id(), program: "sh".to_owned() };
            let writer = Writer { process: Some(process), files: vec![file.to_owned()] };
            assert_eq!(liveness::look(data).expect("listed").writers, [writer]);
        }
        assert_eq!(tree(data), before, "{file}");
    }
}

/// A log that was put in the place of another, while a server ran that still writes to the old one.
#[test]
fn a_writer_of_a_file_that_was_replaced() {
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let segment = data.join("wal/00000002");
    let holder = Holder::new(">>", &segment);
    let bytes = fs::read(&segment).expect("a segment");
    fs::remove_file(&segment).expect("removed");
    fs::write(&segment, bytes).expect("written");
    let before = tree(data);
    let said = exits_in_use(&mut repair(data));
    let named = format!("sh (pid {}) has wal/00000002 (deleted) open for writing", holder.0.id());
    assert!(said.contains(&named), "{said}");
    assert_eq!(tree(data), before);
    drop(holder);
    repairs(data, "replaced");
}

#[test]
fn a_writer_that_comes_by_another_path() {
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let scratch = tempfile::tempdir().expect("a directory");
    let (log, link) = (scratch.path().join("log"), scratch.path().join("00000002"));
    fs::rename(data.join("wal"), &log).expect("on one file system");
    std::os::unix::fs::symlink(&log, data.join("wal")).expect("a link");
    fs::hard_link(log.join("00000002"), &link).expect("a link");
    for path in [log.join("00000002"), link] {
        let _holder = Holder::new(">>", &path);
        let said = exits_in_use(&mut repair(data));
        assert!(said.contains("has wal/00000002 open for writing"), "{}: {said}", path.display());
    }
}

#[test]
fn readers_are_nobody() {
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let held: Vec<_> = ["wal/00000000", "wal/00000001", "wal/00000002"]
        .map(|file| (Holder::new("<", &data.join(file)), File::open(data.join(file)).expect("a file")))
        .into();
    let mut tail = Command::new("tail")
        .args(["-c", "1", "-f"])
        .arg(data.join("wal/00000002"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("tail");
    // Its output is not read, so it stays in the midst of its work.
    let mut tar = Command::new("tar")
        .args(["-cf", "-", "wal", "wal"])
        .current_dir(data)
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar");
    assert_eq!(liveness::look(data).expect("listed").writers, []);
    repairs(data, "readers");
    for reader in [&mut tail, &mut tar] {
        let _ = reader.kill();
        let _ = reader.wait();
    }
    drop(held);
}

#[test]
fn a_lock_that_somebody_holds_and_one_that_was_left() {
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let before = tree(data);
    let lock = Lock::take(data).expect("nobody is there");
    assert!(lock.not_known().is_none(), "{:?}", lock.not_known());
    let said = exits_in_use(&mut repair(data));
    assert!(said.contains(&format!("(pid {}) has lock open for writing", std::process::id())), "{said}");
    assert!(matches!(Lock::take(data), Err(RepairError::InUse(_))));
    skip_other_namespaces();
    if let Some(unshare) = unshare() {
        let said = exits_in_use(&mut inside(unshare, &["repair", "--backup"], data));
        assert!(said.contains("locked by a process that is not visible from here"), "{said}");
    }
    assert!(data.join("lock").exists(), "only its holder removes it");
    drop(lock);
    assert_eq!(tree(data), before);

    fs::write(data.join("lock"), b"").expect("written");
    repairs(data, "left behind");
}

#[test]
fn somebody_begins_after_the_lock_was_taken() {
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let lock = Lock::take(data).expect("nobody is there");
    lock.check().expect("nobody is there");
    let holder = Holder::new(">>", &data.join("wal/00000002"));
    let error = lock.check().expect_err("somebody is there").to_string();
    assert!(error.contains(&format!("sh (pid {})", holder.0.id())), "{error}");
}

/// One of many repairs it, and none does harm.
#[test]
fn many_at_once() {
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = repair(data);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
        })
        .collect();
    let mut codes = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let code = output.status.code();
        assert!(matches!(code, Some(CLEAN | REPAIRED | FAILED)), "{output:?}");
        assert!(code != Some(FAILED) || said(&output).contains("nothing was changed"), "{}", said(&output));
        codes.push(code);
    }
    assert_eq!(codes.iter().filter(|code| **code == Some(REPAIRED)).count(), 1, "{codes:?}");
    assert_eq!(backups(data).len(), 1);
    exits(walfix(&["scan"], data), CLEAN);
}

/// A lease that is asked for while others open the file for writing: they wait for a moment, and nobody dies of it.
#[test]
fn files_that_others_open_meanwhile() {
    const LOOKS: usize = 300;
    const DEADLINE: Duration = Duration::from_secs(30);
    let directory = directory("healthy");
    let data = directory.path();
    let over = AtomicBool::new(false);
    let mut taken = 0;
    let opened = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut opened = 0_u64;
            while !over.load(Ordering::Relaxed) {
                for file in ["wal/00000000", "wal/00000001", "wal/00000002"] {
                    File::options().append(true).open(data.join(file)).expect("it waits, if need be");
                    opened += 1;
                }
            }
            opened
        });
        for _ in 0..LOOKS {
            taken += usize::from(!liveness::look(data).expect("listed").writers.is_empty());
        }
        over.store(true, Ordering::Relaxed);
        others.join().expect("no panic")
    });
    note!("{LOOKS} looks, {taken} found it open; opened {opened} times");
    // Other tests of this process start programs: what was open when one was forked is so until it runs.
    let begun = Instant::now();
    while let writers = liveness::look(data).expect("listed").writers
        && !writers.is_empty()
    {
        assert!(begun.elapsed() < DEADLINE, "{writers:?}");
    }
}

// ---- file systems and users

#[test]
fn a_read_only_file_system() {
    let unshare = must_unshare();
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    let before = tree(data);
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
    let path = data.to_str().expect("UTF-8");
    let by = [unshare, &["sh", "-c", script, path]].concat();
    let said = exits(inside(&by, &["repair", "--backup"], data), FAILED);
    assert!(said.contains("lock") && said.contains("Read-only file system"), "{said}");
    assert!(said.contains("--into"), "{said}");
    exits(inside(&by, &["repair"], data), DAMAGED);
    assert_eq!(tree(data), before);
}

/// Gives a directory and all in it away; false where only root could.
fn give_away(path: &Path, owner: u32) -> bool {
    let below = path.is_dir().then(|| fs::read_dir(path).expect("a directory")).into_iter().flatten();
    chown(path, Some(owner), Some(owner)).is_ok()
        && below.into_iter().all(|entry| give_away(&entry.expect("an entry").path(), owner))
}

const NOBODY: u32 = 65534;

/// In a container root may not take a lease on what is another's.
#[test]
fn who_may_take_no_lease_is_told_that_it_is_not_known() {
    const WITHOUT: &[&str] = &["setpriv", "--inh-caps=-lease", "--bounding-set=-lease", "--"];
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    if !give_away(data, NOBODY) {
        support::skip("files of another user", "only root can give files away");
    }
    {
        let _holder = Holder::new(">>", &data.join("wal/00000002"));
        let said = exits(inside(WITHOUT, &["repair", "--backup"], data), FAILED);
        assert!(said.contains("has wal/00000002 open for writing"), "{said}");
    }
    let said = exits(inside(WITHOUT, &["repair", "--backup"], data), REPAIRED);
    assert!(said.contains("cannot tell") && said.contains("Permission denied"), "{said}");
}

/// A volume's directory is often root's, and its files are Prometheus's.
#[test]
fn a_directory_of_another_user() {
    const AS_NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let directory = directory("payload_bit_flip");
    let data = directory.path();
    if !give_away(data, NOBODY) || chown(data, Some(0), Some(0)).is_err() {
        support::skip("a directory of another user", "only root can give files away");
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o777)).expect("allowed");
    if !inside(AS_NOBODY, &["--version"], Path::new("")).output().is_ok_and(|out| out.status.success()) {
        support::skip("a directory of another user", "nobody cannot execute walfix here");
    }
    let said = exits(inside(AS_NOBODY, &["repair", "--backup"], data), REPAIRED);
    assert!(!said.contains("cannot be told"), "{said}");
    assert!(!data.join("lock").exists());
    // Root's lock is Prometheus's file: it could be left behind.
    let lock = Lock::take(data).expect("nobody is there");
    assert_eq!(data.join("lock").metadata().expect("it is there").uid(), NOBODY);
    drop(lock);
    assert!(!data.join("lock").exists());
}
