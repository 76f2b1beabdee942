//! What the tests share: judges that are not walfix, damages, and knobs. `mod support;` brings it in.
#![allow(dead_code, unreachable_pub, reason = "each test binary is a crate of its own and uses a part of it")]

pub mod bases;
pub mod canonical;
pub mod compare;
pub mod damage;
#[cfg(target_os = "linux")]
pub mod disk;
pub mod exporter;
pub mod foretold;
pub mod fresh;
#[cfg(target_os = "linux")]
pub mod fuse;
#[cfg(target_os = "linux")]
pub mod generations;
pub mod heads;
pub mod judged;
pub mod matrix;
pub mod oracle;
pub mod pristine;
pub mod recipes;
#[cfg(target_os = "linux")]
pub mod repairs;
pub mod server;
#[cfg(target_os = "linux")]
pub mod states;
#[cfg(target_os = "linux")]
pub mod strace;
pub mod table;
pub mod tree;
pub mod truth;

use std::io::Write as _;
use std::path::Path;

/// Says on the test's real standard error that `what` is not being tested, and `why`.
///
/// The test harness captures `eprintln!` of passing tests; a judge that is silently not asked looks like one that
/// agrees, so this writes past the capture.
///
/// # Panics
///
/// If the environment has `WALFIX_REQUIRE_JUDGES=1`: where all judges are meant to be there, skipping is a failure.
pub fn skip(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {what}: {why}");
    assert!(
        std::env::var_os("WALFIX_REQUIRE_JUDGES").is_none_or(|v| v != "1"),
        "{what} skipped although WALFIX_REQUIRE_JUDGES=1: {why}"
    );
}

/// Seeds to try: `WALFIX_SEEDS` of them, or `count`, from `WALFIX_FIRST_SEED` on, or 0.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let knob = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect(name));
    let first = knob("WALFIX_FIRST_SEED").unwrap_or(0);
    first..first + knob("WALFIX_SEEDS").unwrap_or(count)
}

/// Where files cost no disk.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
