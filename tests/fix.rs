//! A repair as one call: given up before the first change it leaves no trace, and whoever comes later finishes it.

#![cfg(target_os = "linux")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::repairs::{Place, cases, temporary, walfix_exits};
use support::strace;
use support::tree::{contents, difference, tree};
use walfix::fix::{FixError, Keep, Outcome, Request, Watch, fix};
use walfix::io::Cancel;
use walfix::repair::{self, RepairError};
use walfix::scan::Progress;
use walfix::tsdb::Target;

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
        FixError::Repair(RepairError::NotBegun(source)) => matches!(**source, RepairError::Cancelled),
        _ => false,
    }
}

/// At whichever question a repair is told to give up, the directory is what it was, with all times; and one that is never told
/// so is done.
#[test]
fn given_up_at_every_question() {
    let mut questions = 0;
    for case in cases() {
        let pristine = case.place();
        let before = tree(&pristine.data());
        for most in 1.. {
            assert!(most < 1000, "{}", case.name);
            let place = pristine.again();
            let beside = place.backup().parent().unwrap().to_owned();
            let (before_beside, backup) = (tree(&beside), place.backup());
            let request = Request {
                accept_orphans: true,
                keep: Keep::At(&backup),
                how: walfix::verdict::Options {
                    threads: std::num::NonZeroUsize::new(1),
                    ..Default::default()
                },
                ..Request::default()
            };
            let target = Target::find(&place.data()).unwrap();
            match fix(&target, &request, &Until(most, AtomicUsize::new(0))) {
                Ok(fixed) => {
                    assert!(
                        matches!(fixed.outcome, Outcome::Repaired(_)),
                        "{}: {:?}",
                        case.name,
                        fixed.outcome
                    );
                    repair::undo(&backup).unwrap();
                    assert_eq!(difference(&before, &tree(&place.data())), None, "{}", case.name);
                    questions += most;
                    break;
                }
                Err(error) => assert!(is_cancelled(&error), "{}: {most}: {error:?}", case.name),
            }
            assert_eq!(difference(&before, &tree(&place.data())), None, "{}: {most}", case.name);
            // The time of a directory elsewhere is nobody's data.
            assert_eq!(contents(&before_beside), contents(&tree(&beside)), "{}: {most}", case.name);
        }
    }
    assert!(questions > 5 * cases().len(), "{questions}");
}

/// A repair on the command line that is interrupted at each call that changes something.
#[test]
fn interrupted_by_a_signal() {
    if !strace::is_there("a repair that is interrupted by a signal") {
        return;
    }
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
        let output = strace::interrupt_at(&at.path().join("trace"), &command, call);
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(8) => {
                given_up += 1;
                assert!(
                    said.contains("nothing was changed") && said.contains("interrupted"),
                    "{call:?}: {said}"
                );
                assert_eq!(difference(&before, &tree(&place.data())), None, "{call:?}");
                continue;
            }
            // Too late to be given up, or, by then, to be finished by another.
            Some(1) => {}
            _ => {
                assert_eq!(output.status.signal(), Some(2), "{call:?}: {output:?}");
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
    assert!(fs::metadata(pristine.data()).is_ok());
}
