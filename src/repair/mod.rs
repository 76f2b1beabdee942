//! Mends what a scan has found, so that only the damaged bytes are lost, and can be undone. The only room that opens a
//! file for writing.
//!
//! [`plan`] makes a [`Plan`] from a report and changes nothing; [`apply`] executes it; [`undo`] puts everything back.

mod backup;
mod error;
mod files;
pub mod fill;
mod input;
mod leftovers;
mod lock;
pub mod plan;
mod preflight;
mod readme;
mod salvage;
mod segment;
mod state;
mod transaction;
mod undo;

use std::path::{Path, PathBuf};

pub use self::backup::Backup;
use self::error::At as _;
pub use self::error::RepairError;
pub use self::lock::Lock;
pub use self::plan::{Mode, Plan};
pub use self::transaction::{Found, Resumed, unfinished};
pub use self::undo::{Forced, Restored, Undone, restore_into, undo, undo_by_force};
use crate::scan::report::Report;
use crate::tsdb::Target;

/// The plan that mends what `report` has found in the data directory `target`.
///
/// # Errors
/// If files cannot be read.
pub fn plan(target: &Target, report: &Report) -> Result<Plan, RepairError> {
    salvage::plan(target, report).at("read", target.path())
}

/// Executes a plan for the data directory `target` of which the lock is held. The old bytes are kept in `backup`, which
/// is not there yet.
///
/// # Errors
/// If anything is not as it was when the plan was made, or a file cannot be written.
pub fn apply(target: &Target, plan: &Plan, backup: &Path, _: &Lock) -> Result<(), RepairError> {
    transaction::apply(target, plan, backup).map(drop)
}

/// Finishes a repair that was interrupted, see [`unfinished`], or gives it up, and removes what it left behind.
///
/// # Errors
/// As of [`apply`].
pub fn resume(target: &Target, _: &Lock) -> Result<Resumed, RepairError> {
    transaction::resume(target)
}

/// Where a backup is kept if nothing is said: in the data directory, by a name that Prometheus neither lists nor
/// deletes.
#[must_use]
pub fn default_backup(data: &Path) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
    let name = format!("walfix-backup-{now}");
    let names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    let mut paths = names.map(|name| data.join(name));
    paths.find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| data.join(name))
}
