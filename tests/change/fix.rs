//! A repair as one call: given up before the first change it leaves no trace, and whoever comes later finishes it.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::repairs::{Place, cases, temporary, walfix_exits};
use support::strace;
use support::test;
use support::tree::{contents, difference, tree};
use walfix::fix::{FixError, Keep, Outcome, Request, Watch, fix};
use walfix::io::Cancel;
use walfix::repair::{self, RepairError};
use walfix::scan::Progress;
use walfix::tsdb::Target;
use walfix::wal::{Event, SegmentReader};

/// Gives up when it is asked for the n-th time.
#[derive(Debug)]
struct Until(usize, AtomicUsize);

impl Cancel for Until {
    fn is_cancelled(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) + 1 == self.0
    }

    fn too_late(&self) {
        // Nobody asks for what cannot be had any more.
        self.1.store(self.0, Ordering::Relaxed);
    }
}

impl Progress for Until {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
}

impl Watch for Until {}

fn is_cancelled(error: &FixError) -> bool {
    match error {
        FixError::Repair(RepairError::Cancelled) => true,
        FixError::Repair(RepairError::NotStarted(source)) => matches!(**source, RepairError::Cancelled),
        _ => false,
    }
}

/// A repair that is told to give up at whichever question leaves the directory as it was, with all times; and one that is never
/// told so is done. How many questions there are.
fn given_up(pristine: &Place, name: &str) -> usize {
    let before = tree(&pristine.data());
    for most in 1..1000 {
        let place = pristine.again();
        let beside = place.backup().parent().unwrap().to_owned();
        let (before_beside, backup) = (tree(&beside), place.backup());
        let target = Target::find(&place.data()).unwrap();
        match fix(&target, &request(&backup), &Until(most, AtomicUsize::new(0))) {
            Ok(fixed) => {
                assert!(matches!(fixed.outcome, Outcome::Repaired(_)), "{name}: {:?}", fixed.outcome);
                repair::undo(&backup).unwrap();
                assert_eq!(difference(&before, &tree(&place.data())), None, "{name}");
                return most;
            }
            Err(error) => assert!(is_cancelled(&error), "{name}: {most}: {error:?}"),
        }
        assert_eq!(difference(&before, &tree(&place.data())), None, "{name}: {most}");
        // The time of a directory elsewhere is nobody's data.
        assert_eq!(contents(&before_beside), contents(&tree(&beside)), "{name}: {most}");
    }
    panic!("{name}: it never ends");
}

fn request(backup: &Path) -> Request<'_> {
    Request {
        accept_orphans: true,
        keep: Keep::At(backup),
        how: walfix::verdict::Options { threads: std::num::NonZeroUsize::new(1), ..Default::default() },
        ..Request::default()
    }
}

#[test]
fn given_up_at_every_question() {
    let questions: usize = cases().iter().map(|case| given_up(&case.place(), case.name)).sum();
    assert!(questions > 5 * cases().len(), "{questions}");
}

/// What Prometheus renamed before it died, and can only be written as a whole: its staged file has yet another ending.
#[test]
fn given_up_with_an_original_that_is_rewritten() {
    let place = Place::of("healthy");
    let wal = place.data().join("wal");
    let mut bytes = fs::read(wal.join("00000001")).unwrap();
    let mut reader = SegmentReader::new(&*bytes, bytes.len() as u64);
    let mut at = None;
    while let Some(event) = reader.next() {
        if let Event::Record(record) = event
            && record.offset > 10_000
            && record.fragments.len() == 1
        {
            at = at.or(usize::try_from(record.end).ok());
        }
    }
    let at = at.expect("a record of one fragment");
    bytes.splice(at..at, [7; 3]);
    fs::write(wal.join("00000001.repair"), bytes).unwrap();
    fs::remove_file(wal.join("00000001")).unwrap();
    fs::remove_file(wal.join("00000002")).unwrap();
    let target = Target::find(&place.data()).unwrap();
    let preview = walfix::fix::preview(&target, &Request::default(), &()).unwrap();
    let staged = preview.planned.plan.steps.iter().filter_map(|step| step.change.staged());
    assert_eq!(staged.map(|staged| staged.file.as_str()).collect::<Vec<_>>(), ["wal/00000001.repair.walfix"]);
    given_up(&place, "an original");
}

/// Makes a directory where the backup is to be, at the n-th question.
#[derive(Debug)]
struct Planter<'a>(usize, AtomicUsize, &'a Path);

impl Cancel for Planter<'_> {
    fn is_cancelled(&self) -> bool {
        if self.1.fetch_add(1, Ordering::Relaxed) + 1 == self.0 && !self.2.exists() {
            fs::create_dir(self.2).unwrap();
            fs::write(self.2.join("theirs"), "theirs").unwrap();
        }
        false
    }
}

impl Progress for Planter<'_> {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
}

impl Watch for Planter<'_> {}

/// A repair that fails removes nothing but what it has made.
#[test]
fn what_others_put_in_the_place_of_the_backup_stays() {
    let case = cases().into_iter().find(|case| case.name == "a hole of nine bytes").unwrap();
    let pristine = case.place();
    let before = tree(&pristine.data());
    let mut planted = 0;
    for ending in ["", ".unfinished"] {
        for at in 1..20 {
            let place = pristine.again();
            let elsewhere = temporary();
            let backup = elsewhere.path().join("walfix-backup-t");
            let theirs = elsewhere.path().join(format!("walfix-backup-t{ending}"));
            let target = Target::find(&place.data()).unwrap();
            let fixed = fix(&target, &request(&backup), &Planter(at, AtomicUsize::new(0), &theirs));
            // Beside a backup that has its name already it is in nobody's way.
            if theirs.join("theirs").exists() {
                assert_eq!(fs::read(theirs.join("theirs")).unwrap(), b"theirs");
            }
            if fixed.is_err() {
                planted += 1;
                assert_eq!(difference(&before, &tree(&place.data())), None, "{at}");
            }
        }
    }
    assert!(planted > 4, "{planted}");
}

/// A repair on the command line that is interrupted at each call that changes something.
#[test]
fn interrupted_by_a_signal() {
    strace::require("a repair that is interrupted by a signal");
    let pristine = Place::of("overwritten_range");
    let before = tree(&pristine.data());
    let done = pristine.again();
    let at = temporary();
    let arguments = done.repair_arguments();
    let command: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let (output, calls) = strace::trace(&at.path().join("trace"), &command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let after = tree(&done.data());
    let first = calls.iter().position(|call| call.arguments.contains("lock.walfix")).expect("a lock");
    let thread = calls[first].thread;
    let (mut given_up, mut finished) = (0, 0);
    for call in calls[first..].iter().filter(|call| call.thread == thread && call.is_change()) {
        let place = pristine.again();
        let arguments = place.repair_arguments();
        let command: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let at = temporary();
        // A shell has those that it runs in the background ignore an interrupt, not this one.
        let output = strace::interrupt_at(&at.path().join("trace"), &command, call, "TERM");
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(8) => {
                given_up += 1;
                assert!(
                    said.contains("changed anything") && said.contains("interrupted"),
                    "{call:?}: {said}"
                );
                assert_eq!(difference(&before, &tree(&place.data())), None, "{call:?}");
                continue;
            }
            // Too late to be given up, or, by then, to be finished by another.
            Some(1) => {}
            _ => {
                assert_eq!(output.status.signal(), Some(15), "{call:?}: {output:?}");
                finished += 1;
                walfix_exits(&[0, 1], &arguments[1..], &format!("{call:?}"));
            }
        }
        let now = tree(&place.data());
        assert!(
            contents(&now)
                .into_iter()
                .filter(|(path, _)| path.starts_with("wal/"))
                .eq(contents(&after).into_iter().filter(|(path, _)| path.starts_with("wal/"))),
            "{call:?}: {:?}",
            difference(&after, &now)
        );
    }
    assert!(given_up > 10 && finished > 3, "{given_up} given up, {finished} finished");
    // Whoever had it ignore a signal, as nohup does, finds it done.
    let ignoring = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"].map(OsStr::new);
    let ignoring = |arguments: &'_ [std::ffi::OsString]| -> Vec<std::ffi::OsString> {
        ignoring.iter().map(|&part| part.to_owned()).chain(arguments.iter().cloned()).collect()
    };
    let (place, at) = (pristine.again(), temporary());
    let arguments = ignoring(&place.repair_arguments());
    let command: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    let (_, calls) = strace::trace(&at.path().join("trace"), &command);
    let marks = |call: &&strace::Call| {
        call.name.starts_with("rename") && call.arguments.contains("walfix-repair.json.walfix")
    };
    for call in calls.iter().filter(marks) {
        let (place, at) = (pristine.again(), temporary());
        let arguments = ignoring(&place.repair_arguments());
        let command: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let output = strace::interrupt_at(&at.path().join("trace"), &command, call, "HUP");
        assert_eq!(output.status.code(), Some(1), "{call:?}: {output:?}");
    }
    assert_eq!(calls.iter().filter(marks).count(), 2);
}
