//! What the command line prints, word for word: each file in `tests/cli/` has commands and their output.
//!
//! ```sh
//! TRYCMD=overwrite cargo test --test command golden::     # writes what is printed now
//! ```
//!
//! These files fix wording and layout. Whether the numbers are right is judged by other tests.
use support::test;

#[test]
fn the_command_line() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}
