//! Runs tests as cargo's own harness does, with one difference: a test finds out while it runs that its judge is missing, and is
//! then reported as ignored.
//!
//! Each directory of `tests/` with a `main.rs` is one program. `use support::test;` makes `#[test]` enter a function here.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::Debug;
use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

pub use inventory;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// One test.
#[derive(Debug)]
pub struct Test {
    pub module: &'static str,
    pub name: &'static str,
    /// `scripts/quick` leaves it out.
    pub is_long: bool,
    pub run: fn(),
}

inventory::collect!(Test);

/// What a test may return.
pub trait Outcome {
    /// Panics if it failed.
    fn check(self);
}

impl Outcome for () {
    fn check(self) {}
}

impl<E: Debug> Outcome for Result<(), E> {
    fn check(self) {
        self.unwrap();
    }
}

/// Why a test ends before it has tested anything.
struct Skipped(String);

thread_local! {
    /// Of the test that this thread runs: why a part of it was left out, and what it has noted.
    static LEFT_OUT: RefCell<Option<String>> = const { RefCell::new(None) };
    static NOTES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static WALFIX: OnceLock<&str> = OnceLock::new();

/// The binary that is tested.
pub fn walfix() -> &'static str {
    WALFIX.get().expect("the harness runs")
}

/// Makes a program of the tests of a directory.
#[macro_export]
macro_rules! main {
    () => {
        fn main() -> std::process::ExitCode {
            $crate::harness::main(file!(), env!("CARGO_BIN_EXE_walfix"))
        }
    };
}

/// Runs the tests of the program whose `main.rs` is `file`.
pub fn main(file: &str, walfix: &'static str) -> ExitCode {
    WALFIX.get_or_init(|| walfix);
    let mut tests: Vec<&Test> = inventory::iter::<Test>.into_iter().collect();
    assert_eq!(
        tests.len(),
        written(super::project().join(file).parent().expect("a directory")),
        "a file without `use support::test;`, or one that `main.rs` does not name: its tests would not run"
    );
    if is_quick() {
        tests.retain(|test| !test.is_long);
    }
    // What takes long comes first, so that it does not run alone at the end.
    tests.sort_by_key(|test| (!test.is_long, test.module, test.name));
    let mut arguments = Arguments::from_args();
    let threads = std::env::var("RUST_TEST_THREADS").ok().and_then(|count| count.parse().ok());
    arguments.test_threads = arguments.test_threads.or(threads);
    let trials = tests.into_iter().map(|test| {
        let program = test.module.split_once("::").map_or("", |(_, module)| module);
        Trial::ignorable_test(format!("{program}::{}", test.name), || run(test))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Whether this is `scripts/quick`: without long tests, and with few seeds.
pub fn is_quick() -> bool {
    is_set("WALFIX_QUICK")
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// How many tests the sources in a directory have.
fn written(directory: &Path) -> usize {
    let sources = std::fs::read_dir(directory).expect("the sources are there");
    let tests = |source: String| {
        source.lines().filter(|line| ["#[test]", "#[test(long)]"].contains(&line.trim())).count()
    };
    sources.map(|entry| tests(std::fs::read_to_string(entry.unwrap().path()).unwrap())).sum()
}

fn run(test: &Test) -> Result<Completion, Failed> {
    LEFT_OUT.take();
    NOTES.replace(Some(Vec::new()));
    let started = Instant::now();
    let ended = catch_unwind(test.run);
    if is_set("WALFIX_TIMES") {
        eprintln!("{:8.1} s {}::{}", started.elapsed().as_secs_f64(), test.module, test.name);
    }
    let notes = NOTES.take().unwrap_or_default();
    match ended.map_err(<Box<dyn Any + Send>>::downcast::<Skipped>) {
        Ok(()) => Ok(LEFT_OUT.take().map_or(Completion::Completed, Completion::ignored_with)),
        Err(Ok(skipped)) => Ok(Completion::ignored_with(skipped.0)),
        Err(Err(panic)) => {
            for note in notes {
                eprintln!("{}::{}: {note}", test.module, test.name);
            }
            resume_unwind(panic)
        }
    }
}

/// Ends a test, which is reported as ignored: `what` it is about, and `why` that cannot be tested here.
///
/// To be called by the thread that runs the test.
///
/// # Panics
///
/// If the environment has `WALFIX_REQUIRE_JUDGES=1`: where all judges are meant to be there, skipping is a failure.
pub fn skip(what: &str, why: &str) -> ! {
    resume_unwind(Box::new(Skipped(missing(what, why))))
}

/// As [`skip`], but the rest of the test is run. It is reported as ignored if it passes.
pub fn skip_part(what: &str, why: &str) {
    LEFT_OUT.set(Some(missing(what, why)));
}

fn missing(what: &str, why: &str) -> String {
    let text = format!("{what}: {why}");
    assert!(!is_set("WALFIX_REQUIRE_JUDGES"), "skipped although WALFIX_REQUIRE_JUDGES=1: {text}");
    text
}

/// Notes something about a test; it is printed with `--nocapture`, or if the test fails.
#[macro_export]
macro_rules! note {
    ($($words:tt)*) => { $crate::harness::note(format!($($words)*)) };
}

/// See [`crate::note!`].
pub fn note(text: String) {
    static IS_PRINTED: OnceLock<bool> = OnceLock::new();
    if *IS_PRINTED.get_or_init(|| std::env::args().any(|argument| argument == "--nocapture")) {
        eprintln!("{text}");
    } else {
        NOTES.with_borrow_mut(|notes| notes.as_mut().map(|notes| notes.push(text)));
    }
}
