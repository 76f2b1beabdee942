//! The times that files and directories had.

use super::backup::{Backup, DirectoryTime};
use super::data::Data;
use super::error::{At as _, RepairError};
use super::files::{set_modified, set_modified_directory};
use crate::io::beneath::Place;

/// Gives files and directories the times that they had.
pub(super) fn set_times(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    set_times_of_files(data, backup)?;
    set_times_of(data.place(), &backup.manifest.directories)
}

/// Gives the files that were changed the times that they had.
pub(super) fn set_times_of_files(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    for changed in &backup.manifest.files {
        let place = data.join(&changed.path);
        set_modified(&place, changed.modified).at("set the time of", &place)?;
    }
    Ok(())
}

pub(super) fn set_times_of(data: &Place, directories: &[DirectoryTime]) -> Result<(), RepairError> {
    for directory in directories {
        let place = data.join(&directory.path);
        set_modified_directory(&place, directory.modified).at("set the time of", &place)?;
    }
    Ok(())
}
