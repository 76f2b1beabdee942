//! What the tests share: judges that are not walfix, damages, knobs, and the harness.

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
pub mod harness;
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

use std::path::Path;

pub use attribute::test;
pub use harness::{skip, skip_part, walfix};

/// The root of the project.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("it is two below")
}

/// Seeds to try: `WALFIX_SEEDS` of them, or `count`, few in `scripts/quick`; from `WALFIX_FIRST_SEED` on, or 0.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    // Tests with many are those of which each takes no time.
    let few = count.min(20).max(count / 50);
    let count = if harness::is_quick() { few } else { count };
    let knob = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect(name));
    let first = knob("WALFIX_FIRST_SEED").unwrap_or(0);
    first..first + knob("WALFIX_SEEDS").unwrap_or(count)
}

/// Where files cost no disk.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
