//! Puts back what a repair has changed.

use std::path::Path;

use super::backup::Backup;
use super::error::{At as _, RepairError};
use super::lock::Lock;
use super::state::{Progress, intruder, progress};
use super::transaction::roll_back;
use crate::tsdb::Target;

/// What an undo did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Steps that were undone.
    pub steps: usize,
    /// Steps that had not been done, or had been undone before.
    pub left: usize,
}

/// Puts back what the repair changed of which `backup` is the backup: bytes, names, owners, modes and times.
///
/// # Errors
/// If the backup is not whole, a Prometheus runs there, or anything has changed since the repair.
pub fn undo(backup: &Path) -> Result<Undone, RepairError> {
    let backup = Backup::open(backup)?;
    let data = data_of(&backup)?;
    let _lock = Lock::take(data.path())?;
    if let Some(what) = intruder(&backup, &data).at("look at", data.path())? {
        return Err(RepairError::Changed { path: data.path().display().to_string(), what });
    }
    let mut undone = Undone { steps: 0, left: 0 };
    for step in &backup.plan.steps {
        let path = step.change.path();
        match progress(&backup, data.path(), &step.change).at("read", &data.path().join(path))? {
            Progress::Before => undone.left += 1,
            Progress::Between | Progress::After => undone.steps += 1,
            Progress::Other(what) => return Err(RepairError::Changed { path: path.to_owned(), what }),
        }
    }
    roll_back(&data, &backup)?;
    Ok(undone)
}

/// The directory that was repaired: where the backup lies, if it has been moved with it.
fn data_of(backup: &Backup) -> Result<Target, RepairError> {
    let path = &backup.manifest.data;
    Target::find(path)
        .map_err(|error| RepairError::Backup { path: backup.path.clone(), what: error.to_string() })
}
