//! Executes a plan as one transaction, finishes one that was interrupted, and undoes it. The only module that changes a data
//! directory.
//!
//! It knows the [`plan`], the framing of the log, and the file system. What is wrong with a directory, and what to do about
//! it, is decided before. Files that a plan writes as a whole are staged next to their place, and on the disk, before the
//! first change; an interrupted repair is finished from these, so no record has to be read again.

mod backup;
mod copy;
mod data;
mod error;
mod execute;
mod files;
pub(crate) mod input;
mod leftovers;
mod lock;
mod marker;
mod marker_name;
mod options;
pub mod plan;
mod preflight;
mod resume;
mod revert;
mod stage;
mod state;
mod times;
mod transaction;
mod undo;
mod unfinished;

use std::path::{Path, PathBuf};

pub use self::backup::Backup;
use self::backup::absolute;
pub use self::copy::copy_logs;
use self::data::Data;
pub(crate) use self::error::At;
pub use self::error::RepairError;
pub use self::lock::Lock;
pub use self::options::Options;
pub(crate) use self::plan::segment_of_series;
pub(crate) use self::plan::write_series;
pub use self::resume::Resumed;
pub(crate) use self::stage::{NewBytes, staged};
pub(crate) use self::state::is_at_or_below;
pub(crate) use self::transaction::Execution;
pub use self::undo::{Forced, Restored, Undone, restore_into, undo, undo_by_force};
pub use self::unfinished::{UnfinishedRepair, unfinished};
use crate::tsdb::Target;

/// Executes a plan for the data directory `target`. The old bytes are saved in `backup`, which must not exist. Until the
/// first change it can be cancelled, and then leaves no trace.
///
/// # Errors
/// If the directory is in use, if anything has changed since the plan was made, or if a file cannot be written.
pub(crate) fn apply(target: &Target, execution: &Execution<'_>, backup: &Path) -> Result<(), RepairError> {
    execution.lock.check()?;
    transaction::apply(&Data::of(target, execution.lock.data()), execution, backup).map(drop)
}

/// As [`apply`], and saves no old bytes in the end: it cannot be undone.
///
/// # Errors
/// As of [`apply`].
pub(crate) fn apply_for_good(target: &Target, execution: &Execution<'_>) -> Result<(), RepairError> {
    // An interruption must find them.
    let backup = default_backup(target.path());
    apply(target, execution, &backup)?;
    let data = execution.lock.data();
    let backup = absolute(&backup).and_then(|path| backup::place(data, &path)).at("find", &backup)?;
    backup.remove_any().at("remove", &backup)
}

/// Finishes a repair that was interrupted, see [`unfinished`], or gives it up, and removes what it left.
///
/// # Errors
/// As of a repair; and if the interrupted repair is not what is `asked` for now.
pub fn resume(target: &Target, lock: &Lock, asked: Options) -> Result<Resumed, RepairError> {
    lock.check()?;
    resume::resume(&Data::of(target, lock.data()), asked)
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
