//! The marker of an unfinished repair: a file in the data directory that says where the backup is.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backup;
use super::backup::DirectoryTime;
use super::data::Data;
use super::error::{At as _, RepairError};
use super::files::{replace_own, sync_directory};
use super::leftovers;
use super::marker_name::{MARKER, MarkerName, Stage};
use super::plan::Plan;
use crate::io::beneath::{Place, is_below};

/// Bytes of that file at the most. It has a line for each directory in which the repair works.
const LONGEST: u64 = 16 << 20;

/// A repair that was started, as its marker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) stage: Stage,
    /// Where its backup is, or will be. Relative to the data directory if it is in it.
    pub(super) backup: PathBuf,
    /// The directories in which it works, as they were.
    pub(super) directories: Vec<DirectoryTime>,
}

impl Marker {
    /// What the file in the data directory says, if there is one. Anybody may have written it, so every path in it is
    /// looked at.
    pub(super) fn read(data: &Place) -> Result<Option<Self>, RepairError> {
        let marker = data.join(MARKER);
        let wrong = |what: String| RepairError::Marker { path: marker.shown(), what };
        let text = match marker.read(LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::by_name(data),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(error).at("read", &marker);
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut found: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let outside = found
            .directories
            .iter()
            .find(|known| !known.path.is_empty() && !is_below(Path::new(&known.path)));
        if let Some(outside) = outside {
            return Err(wrong(format!("{} is not a path in the data directory", outside.path)));
        }
        let is_name = is_below(&found.backup)
            && found.backup.components().count() == 1
            && found.backup.to_str().is_some_and(|name| name.starts_with("walfix-") && name != MARKER);
        if !is_name && !is_absolute(&found.backup) {
            return Err(wrong(format!("{} is no place of a backup", found.backup.display())));
        }
        if !MarkerName::all(data).at("list", data)?.is_empty() {
            return Err(wrong(
                "there is another marker beside it; remove the one that is not of your repair".to_owned(),
            ));
        }
        found.backup = data.shown().join(found.backup);
        Ok(Some(found))
    }

    /// What the name of a marker says that is empty.
    fn by_name(data: &Place) -> Result<Option<Self>, RepairError> {
        let mut all = MarkerName::all(data).at("list", data)?;
        let Some(named) = all.pop() else { return Ok(None) };
        let wrong = |what: &str| RepairError::Marker { path: data.shown(), what: what.to_owned() };
        if !all.is_empty() {
            return Err(wrong("there are two markers; remove the one that is not of your repair"));
        }
        if !is_absolute(&named.backup) {
            return Err(wrong("the name of its marker is no place of a backup"));
        }
        // When its directories were changed, the backup knows.
        Ok(Some(Self { stage: named.stage, backup: named.backup, directories: Vec::new() }))
    }

    pub(super) fn write(&self, data: &Data) -> Result<(), RepairError> {
        let marker = data.join(MARKER);
        let backup = self.backup.strip_prefix(data.place().full()).unwrap_or(&self.backup).to_owned();
        let text = serde_json::to_vec(&Self { backup, ..self.clone() });
        let text = text.map_err(io::Error::from).at("write", &marker)?;
        // Whom the directory belongs to may finish the repair, or roll it back.
        let owner = data.owner().at("look at", data.path())?.with_mode(0o600);
        let is_elsewhere = !self.backup.starts_with(data.place().full());
        let by_name = !MarkerName::all(data.place()).at("list", data.path())?.is_empty();
        let written = if by_name {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            replace_own(&marker, owner, |out| out.write_all(&text))
        };
        match written {
            Err(error) if is_elsewhere && is_full(&error) && !marker.is_there() => {
                MarkerName::write(data, self.stage, &self.backup).at("create", &marker)
            }
            written => written.at("write", &marker),
        }
    }

    /// Where its backup is, or is to be.
    pub(super) fn place(&self, data: &Place) -> io::Result<Place> {
        backup::place(data, &self.backup)
    }

    /// Whether it has come so far that something may have been changed.
    pub(super) fn may_have_changed(&self) -> bool {
        self.stage == Stage::Change
    }

    /// Where its backup is.
    pub(super) fn backup(&self) -> &Path {
        &self.backup
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a path is absolute, and leads nowhere back.
fn is_absolute(path: &Path) -> bool {
    path.strip_prefix("/").is_ok_and(is_below)
}

/// Removes the marker, and what the repair left; by its plan if that is known.
pub(super) fn forget(data: &Data, plan: Option<&Plan>) -> Result<(), RepairError> {
    let known = plan.map_or_else(BTreeSet::new, leftovers::of_plan);
    leftovers::remove(data, &known).at("clean up", data.path())?;
    for named in MarkerName::all(data.place()).at("list", data.path())? {
        named.remove(data).at("clean up", data.path())?;
    }
    let marker = data.join(MARKER);
    match marker.remove_file() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &marker),
        _ => sync_directory(data.place()).at("write", data.path()),
    }
}
