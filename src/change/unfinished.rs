//! Repairs that were interrupted: what is found of them.

use std::path::PathBuf;

use super::backup::Backup;
use super::data::Data;
use super::error::{At as _, RepairError};
use super::marker::Marker;
use super::marker_name::{MARKER, Stage};
use super::stage;
use super::state::{Progress, intruder, progress};
use crate::io::beneath::Place;
use crate::tsdb::Target;

/// An unfinished repair that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum UnfinishedRepair {
    /// Nothing has been changed yet: its backup is not whole.
    NotStarted {
        /// Where its backup would be.
        backup: PathBuf,
    },
    /// Nobody has been here since: it can be finished.
    Unfinished(Box<Backup>),
    /// Somebody has, so it cannot; and what shows it.
    Outdated {
        /// Where its backup is.
        backup: PathBuf,
        /// What has changed.
        what: String,
    },
}

/// The repair that was interrupted in the data directory, if there is one.
///
/// # Errors
/// If files cannot be read.
pub fn unfinished(data: &Target) -> Result<Option<UnfinishedRepair>, RepairError> {
    find_unfinished(&Data::open(data)?)
}

pub(super) fn find_unfinished(data: &Data) -> Result<Option<UnfinishedRepair>, RepairError> {
    let Some(marker) = Marker::read(data.place())? else { return Ok(None) };
    let backup = marker.backup.clone();
    let outdated = |what: String| Ok(Some(UnfinishedRepair::Outdated { backup: backup.clone(), what }));
    let place = marker.place(data.place());
    if marker.stage == Stage::Backup && !place.as_ref().is_ok_and(Place::is_there) {
        return Ok(Some(UnfinishedRepair::NotStarted { backup }));
    }
    // Not mounted, perhaps: what has been changed cannot be told without it, nor be put back.
    let place = match place.and_then(|place| place.open_directory().map(|_| place)) {
        Ok(place) => place,
        Err(source) => {
            return Err(RepairError::NoBackup { backup, marker: data.path().join(MARKER), source });
        }
    };
    let opened = match Backup::open_at(&place) {
        Ok(opened) => opened,
        Err(error) => return outdated(error.to_string()),
    };
    if place.parent() != *data.place() && opened.manifest.data != data.place().full() {
        let what = format!("its backup is one of {}", opened.manifest.data.display());
        return outdated(what);
    }
    if let Some(what) = intruder(&opened, data).at("look at", data.path())? {
        return outdated(what);
    }
    for step in &opened.plan.steps {
        let path = step.change.path();
        let at = data.join(path);
        match progress(&opened, data.place(), &step.change).at("read", &at)? {
            Progress::Other(what) => return outdated(format!("{path}: {what}")),
            Progress::Before
                if step.change.staged().is_some()
                    && !stage::is_staged(data.place(), &step.change).at("read", &at)? =>
            {
                return outdated(format!("{path}: its new bytes, which were staged beside it, are gone"));
            }
            _ => {}
        }
    }
    Ok(Some(UnfinishedRepair::Unfinished(Box::new(opened))))
}
