//! Somebody who owns a data directory plants something in it while root works there: before each call by which a repair, an
//! undo, a repair that is taken up again, or a copy names a path, a symbolic link, a hard link, a pipe or a directory comes
//! into the place of that path. Whatever comes of the work, nothing outside changes, and it comes to an end.
//!
//! A part of these attacks is made each time, always the same; `WALFIX_ATTACKS` says how many of each work, and
//! a large number makes all of them.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::repairs::{self, Case, temporary};
use support::strace::{self, Call};
use support::tree::{self, Tree, difference, tree};
use support::{note, test};
use tempfile::TempDir;

/// To whom the data directory belongs.
const OWNER: u32 = 12345;

/// Attacks on each work if not all are made.
const SAMPLED: usize = 24;

/// Calls by which files are named, and others between which something can be planted.
const CALLS: &str = "openat,openat2,open,creat,statx,newfstatat,fstat,stat,lstat,access,faccessat,faccessat2,\
    readlink,readlinkat,getdents64,read,pread64,write,pwrite64,fsync,fchmod,fchown,chmod,fchmodat,chown,lchown,fchownat,\
    utimensat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,ftruncate,\
    truncate,fcntl,flock,lseek,statfs,fstatfs,close";

/// What is put in the place of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    Link,
    HardLink,
    Pipe,
    Directory,
}

const PLANTED: [Planted; 4] = [Planted::Link, Planted::HardLink, Planted::Pipe, Planted::Directory];

/// What is done while somebody attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Repair,
    Undo,
    Resume,
    RepairInto,
    UndoInto,
}

/// The binary that is attacked.
fn walfix() -> OsString {
    std::env::var_os("WALFIX_ATTACKED").unwrap_or_else(|| support::walfix().into())
}

/// `data` of somebody, and beside it `outside`, which is root's: a copy of it, so that a link may lead to what is expected.
struct Place {
    root: TempDir,
}

impl Place {
    fn of(case: &Case) -> Self {
        let root = temporary();
        (case.make)(root.path());
        let place = Self { root };
        place.finish();
        place
    }

    fn finish(&self) {
        fs::set_permissions(self.root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(&self.data());
        if !self.outside().exists() {
            fs::create_dir(self.outside()).unwrap();
            tree::copy(&self.data(), &self.outside().join("data"));
            tree::copy(&self.data(), &self.outside().join("copy"));
            keep_for_root(&self.outside());
        }
    }

    fn again(&self) -> Self {
        let root = temporary();
        for name in ["data", "outside"] {
            tree::copy(&self.root.path().join(name), &root.path().join(name));
        }
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { root }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    fn backup(&self) -> PathBuf {
        self.data().join("walfix-backup-t")
    }

    fn command(&self, work: Work) -> Vec<OsString> {
        let with = |option: &str, path: PathBuf| {
            let mut argument = OsString::from(option);
            argument.push(path);
            argument
        };
        let mut command = vec![walfix()];
        match work {
            Work::Repair | Work::Resume => {
                command.extend(["repair".into(), with("--backup=", self.backup())]);
            }
            Work::RepairInto => {
                command.extend(["repair".into(), with("--into=", self.root.path().join("copy"))]);
            }
            Work::Undo => command.extend(["undo".into(), self.backup().into()]),
            Work::UndoInto => {
                let into = with("--into=", self.root.path().join("copy"));
                command.extend(["undo".into(), into, self.backup().into()]);
            }
        }
        if matches!(work, Work::Repair | Work::Resume | Work::RepairInto) {
            command.extend(["--accept-orphans".into(), self.data().into()]);
        }
        command.extend(["--quiet".into(), "--threads=1".into()]);
        command
    }

    /// Brings it to where this work begins.
    fn prepare(&self, work: Work) {
        let run = |command: &[OsString]| Command::new(&command[0]).args(&command[1..]).output().unwrap();
        match work {
            Work::Repair | Work::RepairInto => {}
            Work::Undo | Work::UndoInto => {
                let output = run(&self.command(Work::Repair));
                assert_eq!(output.status.code(), Some(1), "{output:?}");
            }
            Work::Resume => {
                let command = self.command(Work::Repair);
                let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
                let other = self.again();
                let traced = other.command(Work::Repair);
                let traced: Vec<&OsStr> = traced.iter().map(AsRef::as_ref).collect();
                let log = self.root.path().join("trace");
                let (_, calls) = strace::trace(&log, &traced);
                let is_marker = |call: &&Call| {
                    call.name.starts_with("rename") && call.arguments.contains("walfix-repair.json.walfix")
                };
                let begun = calls.iter().rev().find(is_marker).expect("a marker");
                let after = calls.iter().skip_while(|call| *call != begun).skip(1);
                let next = after.filter(|call| call.is_change()).nth(1).expect("a change").clone();
                strace::kill_at(&log, &command, &next);
                assert!(self.data().join("walfix-repair.json").exists(), "{next:?}");
                fs::remove_file(log).unwrap();
            }
        }
    }
}

/// To whom the directory belongs, all of it.
fn give(path: &Path) {
    lchown(path, Some(OWNER), Some(OWNER)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

/// Nobody but root is to read it, and what is done to it is seen.
fn keep_for_root(path: &Path) {
    chown(path, Some(0), Some(0)).unwrap();
    let is_directory = path.is_dir();
    if is_directory {
        for entry in fs::read_dir(path).unwrap() {
            keep_for_root(&entry.unwrap().path());
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(if is_directory { 0o700 } else { 0o600 })).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
}

/// A call that names a path below the data directory or a copy, and the one before it in the same thread.
#[derive(Clone, Debug)]
struct Named {
    /// Below the directory in which `data` and `copy` are.
    path: PathBuf,
    call: String,
    before: (String, usize),
}

/// The calls that name paths, in their order. Paths are told from the descriptors to which they are relative.
fn named(calls: &[Call], root: &Path) -> Vec<Named> {
    let mut held: BTreeMap<i64, PathBuf> = BTreeMap::new();
    let mut counts: BTreeMap<(u32, String), usize> = BTreeMap::new();
    let mut last: BTreeMap<u32, (String, usize)> = BTreeMap::new();
    let mut found = Vec::new();
    for call in calls {
        let ordinal = counts.entry((call.thread, call.name.clone())).or_default();
        *ordinal += 1;
        let here = (call.name.clone(), *ordinal);
        let outside: String = call.arguments.split('"').step_by(2).collect();
        let directories: Vec<&str> = outside.split(", ").step_by(2).collect();
        let texts: Vec<&str> = match call.name.as_str() {
            "read" | "write" | "pread64" | "pwrite64" | "getdents64" => Vec::new(),
            _ => call.arguments.split('"').skip(1).step_by(2).collect(),
        };
        for (at, text) in texts.into_iter().enumerate() {
            let number = directories.get(at).and_then(|number| number.parse().ok());
            let above = number.and_then(|number: i64| held.get(&number));
            let path = match above {
                Some(above) if !text.starts_with('/') => above.join(text),
                _ => PathBuf::from(text),
            };
            if at == 0
                && call.name.starts_with("open")
                && let Some(result) = call.result.filter(|&result| result >= 0)
            {
                held.insert(result, path.clone());
            }
            // The result of `readlinkat` is a text, too, and a file is no name of `.`.
            let is_name = at == 0 || call.name.starts_with("rename") || call.name.starts_with("link");
            let Ok(below) = path.strip_prefix(root) else { continue };
            let is_inside = below.starts_with("data") || below.starts_with("copy") || {
                below.starts_with("copy.unfinished")
            };
            let is_deep = below.components().count() > 1 && below.file_name().is_some();
            if let (true, true, true, Some(before)) = (is_name, is_inside, is_deep, last.get(&call.thread)) {
                let path = below.components().collect();
                found.push(Named { path, call: call.name.clone(), before: before.clone() });
            }
        }
        last.insert(call.thread, here);
    }
    found
}

/// Puts something in the place of a path; whether that is possible.
fn plant(place: &Place, path: &Path, planted: Planted) -> bool {
    let at = place.root.path().join(path);
    let path: PathBuf = path
        .components()
        .map(|part| if part.as_os_str() == "copy.unfinished" { OsStr::new("copy") } else { part.as_os_str() })
        .collect();
    let outside = place.outside().join(path);
    if planted == Planted::HardLink && !outside.is_file() {
        return false;
    }
    let Ok(above) = at.parent().unwrap().symlink_metadata() else { return false };
    if !above.is_dir() {
        return false;
    }
    if at.symlink_metadata().is_ok() {
        let stash = place.root.path().join("stash");
        fs::rename(&at, stash).unwrap();
    }
    match planted {
        Planted::Link => symlink(outside, &at).unwrap(),
        Planted::HardLink => fs::hard_link(outside, &at).unwrap(),
        Planted::Pipe => assert!(Command::new("mkfifo").arg(&at).status().unwrap().success()),
        Planted::Directory => fs::create_dir(&at).unwrap(),
    }
    if planted != Planted::HardLink {
        lchown(&at, Some(OWNER), Some(OWNER)).unwrap();
    }
    true
}

fn attack(pristine: &Place, before: &Tree, work: Work, named: &Named, planted: Planted) -> Option<bool> {
    let place = pristine.again();
    let command = place.command(work);
    let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
    let (name, ordinal) = &named.before;
    let stopped = strace::stopped_after(&place.root.path().join("trace"), &command, name, *ordinal)?;
    let is_planted = plant(&place, &named.path, planted);
    let output = stopped.go_on();
    let about = format!("{work:?}: {planted:?} in the place of {} at {}", named.path.display(), named.call);
    let code = output.status.code();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(code, Some(0 | 1 | 4 | 8)), "{about}: {code:?}: {said}");
    assert_eq!(difference(before, &tree(&place.outside())), None, "{about}: {code:?}: {said}");
    Some(is_planted)
}

fn attacked(work: Work, case: &str) {
    let what = "attacks on a repair";
    if !rustix::process::geteuid().is_root() {
        support::skip(what, "only root can be attacked");
    }
    strace::require(what);
    if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        support::skip(what, "mounts are not allowed");
    }
    let case = repairs::CASES.iter().find(|known| known.name == case).expect("a case");
    let pristine = Place::of(case);
    pristine.prepare(work);
    let before = tree(&pristine.outside());
    let traced = pristine.again();
    let command = traced.command(work);
    let command: Vec<&OsStr> = command.iter().map(AsRef::as_ref).collect();
    let (output, calls) = strace::trace_of(&traced.root.path().join("trace"), &command, CALLS);
    assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{output:?}");
    assert_eq!(difference(&before, &tree(&traced.outside())), None, "unattacked");
    let named = named(&calls, traced.root.path());
    let all: Vec<(&Named, Planted)> =
        named.iter().flat_map(|named| PLANTED.map(|planted| (named, planted))).collect();
    assert!(named.len() > 20, "{named:?}");
    let most = std::env::var("WALFIX_ATTACKS").map_or(SAMPLED, |most| most.parse().expect("a number"));
    let every = all.len().div_ceil(most);
    // All kinds get their turns.
    let every = if every.is_multiple_of(2) { every - 1 } else { every };
    let (mut planted, mut missed) = (0, 0);
    for (named, kind) in all.iter().step_by(every) {
        match attack(&pristine, &before, work, named, *kind) {
            Some(true) => planted += 1,
            Some(false) => {}
            None => missed += 1,
        }
    }
    note!("{work:?}: {} calls, {planted} attacks, {missed} calls that did not come", named.len());
    assert!(planted > SAMPLED / 2 && missed <= all.len() / every / 10, "{planted} planted, {missed} missed");
}

#[test(long)]
fn a_repair_is_attacked() {
    attacked(Work::Repair, "a WAL begun anew beside a damaged checkpoint");
}

#[test(long)]
fn a_repair_in_place_is_attacked() {
    attacked(Work::Repair, "several segments");
}

#[test(long)]
fn a_repair_that_sets_aside_is_attacked() {
    attacked(Work::Repair, "a file in the place of a checkpoint");
}

#[test(long)]
fn a_repair_that_is_taken_up_again_is_attacked() {
    attacked(Work::Resume, "a WAL begun anew beside a damaged checkpoint");
}

#[test(long)]
fn an_undo_is_attacked() {
    attacked(Work::Undo, "a WAL begun anew beside a damaged checkpoint");
}

#[test(long)]
fn an_undo_in_place_is_attacked() {
    attacked(Work::Undo, "several segments");
}

#[test(long)]
fn a_copy_is_attacked() {
    attacked(Work::RepairInto, "a zeroed page inside a record");
}

#[test(long)]
fn a_copy_from_a_backup_is_attacked() {
    attacked(Work::UndoInto, "a zeroed page inside a record");
}
