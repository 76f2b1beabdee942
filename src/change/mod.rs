//! Executes a plan as one transaction, finishes one that was interrupted, and undoes it. The only module that changes a data
//! directory.
//!
//! It knows the [`plan`], the framing of the log, and the file system. What is wrong with a directory, and what to do about
//! it, is decided before: nothing here reads a record. Files that a plan writes as a whole are staged next to their place,
//! and on the disk, before the first change; a repair that was interrupted is finished from these.

mod backup;
mod copy;
mod data;
mod error;
mod files;
pub(crate) mod input;
mod leftovers;
mod lock;
mod marker;
mod options;
pub mod plan;
mod preflight;
mod readme;
mod stage;
mod state;
mod transaction;
mod undo;

use std::path::{Path, PathBuf};

pub use self::backup::Backup;
pub use self::copy::copy_logs;
use self::data::Data;
pub(crate) use self::error::At;
pub use self::error::RepairError;
pub use self::lock::Lock;
pub use self::options::Options;
pub(crate) use self::plan::segment_of_series;
pub(crate) use self::plan::write_series;
pub(crate) use self::stage::{Contents, staged};
pub(crate) use self::state::is_at_or_below;
use self::transaction::absolute;
pub use self::transaction::{Found, Resumed, unfinished};
pub use self::undo::{Forced, Restored, Undone, restore_into, undo, undo_by_force};
use crate::change::plan::Plan;
use crate::io::Cancel;
use crate::tsdb::Target;

/// Executes a plan for the data directory `target` of which the lock is held. The old bytes are kept in `backup`, which
/// is not there yet. Until the first change it can be cancelled, and leaves no trace. Files that are written as a whole get their bytes from `contents`, before anything is changed.
///
/// # Errors
/// If somebody works there by now, anything is not as it was when the plan was made, or a file cannot be written.
pub(crate) fn apply(
    target: &Target,
    plan: &Plan,
    contents: &dyn Contents,
    backup: &Path,
    (lock, cancel): (&Lock, &dyn Cancel),
) -> Result<(), RepairError> {
    lock.check()?;
    transaction::apply(&Data::of(target, lock.data()), plan, contents, backup, (lock, cancel)).map(drop)
}

/// As [`apply`], and keeps no old bytes in the end: it cannot be undone.
///
/// # Errors
/// As of [`apply`].
pub(crate) fn apply_for_good(
    target: &Target,
    plan: &Plan,
    contents: &dyn Contents,
    (lock, cancel): (&Lock, &dyn Cancel),
) -> Result<(), RepairError> {
    // An interruption must find them.
    let backup = default_backup(target.path());
    apply(target, plan, contents, &backup, (lock, cancel))?;
    let backup = absolute(&backup).and_then(|path| backup::place(lock.data(), &path)).at("find", &backup)?;
    backup.remove_any().at("remove", &backup)
}

/// Finishes a repair that was interrupted, see [`unfinished`], or gives it up, and removes what it left.
///
/// # Errors
/// As of a repair; and if the interrupted repair is not what is `asked` for now.
pub fn resume(target: &Target, lock: &Lock, asked: Options) -> Result<Resumed, RepairError> {
    lock.check()?;
    transaction::resume(&Data::of(target, lock.data()), asked)
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
