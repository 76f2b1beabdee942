//! What integration tests share. `mod support;` in a test file brings it in.

// Every test file compiles all of this and uses only some of it.
#![allow(dead_code, unreachable_pub)]

pub mod exporter;
pub mod fresh;
pub mod server;

use std::io::Write as _;

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
