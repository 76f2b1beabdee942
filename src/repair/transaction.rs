//! A plan, executed so that it can be taken up again after any interruption.
//!
//! The old bytes are safe before the first new one is written. A file in the data directory says where they are, until all
//! is done: whoever comes next finishes the repair, or rolls it back. Each step is found to be done or not by looking at the
//! files, so no log of steps is needed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::backup::{Backup, Changed};
use super::error::{At as _, RepairError};
use super::files::{
    self, Splice, copy_spliced, replace, splice_in_place, staged, sync_directory, sync_directory_of,
};
use super::input;
use super::plan::{Change, Method, Plan};
use super::segment::rewrite;
use super::state::{Progress, intruder, progress};
use crate::tsdb::Target;

/// In the data directory as long as a repair is not finished.
const UNFINISHED: &str = "walfix-repair.json";

/// Where the backup of an unfinished repair is.
#[derive(Serialize, Deserialize)]
struct Unfinished {
    backup: PathBuf,
}

/// An unfinished repair that was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nobody has been here since: it can be finished.
    Unfinished(Box<Backup>),
    /// Somebody has, so it cannot; and what shows it.
    Overtaken {
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
pub fn unfinished(data: &Target) -> Result<Option<Found>, RepairError> {
    let marker = data.path().join(UNFINISHED);
    let text = match fs::read(&marker) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", &marker),
    };
    let Unfinished { backup } = serde_json::from_slice(&text).map_err(io::Error::from).at("read", &marker)?;
    let backup = data.path().join(backup);
    let overtaken = |what: String| Ok(Some(Found::Overtaken { backup: backup.clone(), what }));
    let opened = match Backup::open(&backup) {
        Ok(opened) => opened,
        Err(error) => return overtaken(error.to_string()),
    };
    if let Some(what) = intruder(&opened, data).at("look at", data.path())? {
        return overtaken(what);
    }
    for step in &opened.plan.steps {
        let path = step.change.path();
        if let Progress::Other(what) =
            progress(&opened, data.path(), &step.change).at("read", &data.path().join(path))?
        {
            return overtaken(format!("{path}: {what}"));
        }
    }
    Ok(Some(Found::Unfinished(Box::new(opened))))
}

/// Executes `plan`; the old bytes are kept in `backup`, which is not there yet.
pub(super) fn apply(data: &Target, plan: &Plan, backup: &Path) -> Result<Backup, RepairError> {
    unchanged(data.path(), plan)?;
    let backup = Backup::write(backup, data.path(), plan)?;
    let marker = data.path().join(UNFINISHED);
    let absolute = backup.path.canonicalize().at("find", &backup.path)?;
    let unfinished = Unfinished { backup: absolute };
    let text = serde_json::to_vec(&unfinished).map_err(io::Error::from).at("write", &marker)?;
    replace(&marker, None, |out| out.write_all(&text)).at("write", &marker)?;
    finish(data, &backup)?;
    Ok(backup)
}

/// Does all steps of the backup's plan that have not been done.
pub(super) fn finish(data: &Target, backup: &Backup) -> Result<(), RepairError> {
    for step in &backup.plan.steps {
        let path = data.path().join(step.change.path());
        match progress(backup, data.path(), &step.change).at("read", &path)? {
            Progress::After => {}
            Progress::Before | Progress::Between => {
                execute(data.path(), backup, &step.change).at("change", &path)?;
            }
            Progress::Other(what) => {
                return Err(RepairError::Changed { path: step.change.path().to_owned(), what });
            }
        }
    }
    forget(data)
}

/// Says that there is no unfinished repair any more.
pub(super) fn forget(data: &Target) -> Result<(), RepairError> {
    let marker = data.path().join(UNFINISHED);
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &marker),
        _ => sync_directory(data.path()).at("write", data.path()),
    }
}

/// Whether all inputs of the plan are what they were.
fn unchanged(data: &Path, plan: &Plan) -> Result<(), RepairError> {
    for known in &plan.inputs {
        let changed = |what: &str| RepairError::Changed { path: known.path.clone(), what: what.to_owned() };
        let now = match input::input(data, known.path.clone(), known.checksum.is_some()) {
            Ok(now) => now,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed("it is gone")),
            Err(error) => return Err(error).at("read", &data.join(&known.path)),
        };
        if now != *known {
            return Err(changed("it has been written to, or is another file"));
        }
    }
    Ok(())
}

fn execute(data: &Path, backup: &Backup, change: &Change) -> io::Result<()> {
    let path = data.join(change.path());
    match change {
        Change::Patch { method: Method::InPlace, .. } => splice_in_place(&path, &splices(backup, change)?),
        Change::Patch { method: Method::Replace, .. } => {
            let splices = splices(backup, change)?;
            let mut file = File::open(&path)?;
            let like = file.metadata()?;
            replace(&path, Some(&like), |out| copy_spliced(&mut file, &splices, out))
        }
        Change::Rewrite { bytes, .. } => {
            let file = File::open(&path)?;
            replace(&path, Some(&file.metadata()?), |out| rewrite(&file, *bytes, change.agent(), out))
        }
        Change::Create { bytes, .. } => {
            // It belongs to whom the directory belongs.
            let like = path.parent().map(Path::metadata).transpose()?;
            replace(&path, None, |out| out.write_all(bytes))?;
            own(&path, like.as_ref())
        }
        Change::CreateDirectory { .. } => {
            let like = path.parent().map(Path::metadata).transpose()?;
            fs::create_dir(&path)?;
            own(&path, like.as_ref())?;
            sync_directory_of(&path)
        }
        Change::Rename { to, .. } => {
            let to = data.join(to);
            rename_new(&path, &to)?;
            sync_directory_of(&to)?;
            sync_directory_of(&path)
        }
        Change::SetAside { .. } => set_aside(&path, &backup.aside(change.path())),
    }
}

fn splices(backup: &Backup, change: &Change) -> io::Result<Vec<Splice>> {
    Ok(backup.splices(change)?.into_iter().map(|(splice, _)| splice).collect())
}

/// Gives a new file to the owner of its directory.
fn own(path: &Path, like: Option<&fs::Metadata>) -> io::Result<()> {
    let (Some(like), own) = (like, path.metadata()?) else { return Ok(()) };
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        std::os::unix::fs::chown(path, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}

/// Renames, if there is nothing by the new name.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    if let Some(directory) = aside.parent() {
        fs::create_dir_all(directory)?;
    }
    remove_any(aside)?;
    match fs::rename(path, aside) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            files::copy_tree(path, aside)?;
            sync_directory_of(aside)?;
            remove_any(path)?;
        }
        done => done?,
    }
    sync_directory_of(aside)?;
    sync_directory_of(path)
}

fn remove_any(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Undoes all steps of the backup's plan that have been done, the last first.
pub(super) fn roll_back(data: &Target, backup: &Backup) -> Result<(), RepairError> {
    for step in backup.plan.steps.iter().rev() {
        let path = data.path().join(step.change.path());
        match progress(backup, data.path(), &step.change).at("read", &path)? {
            Progress::Before => {}
            Progress::After | Progress::Between => {
                revert(data.path(), backup, &step.change).at("change", &path)?;
            }
            Progress::Other(what) => {
                return Err(RepairError::Changed { path: step.change.path().to_owned(), what });
            }
        }
        let leftover = staged(&path);
        remove_any(&leftover).at("remove", &leftover)?;
    }
    forget(data)?;
    for changed in &backup.manifest.files {
        let path = data.path().join(&changed.path);
        set_times(&path, changed.modified).at("set the time of", &path)?;
    }
    // Deeper ones first: a time that is set changes no other.
    for directory in backup.manifest.directories.iter().rev() {
        let path = data.path().join(&directory.path);
        set_times(&path, directory.modified).at("set the time of", &path)?;
    }
    Ok(())
}

fn revert(data: &Path, backup: &Backup, change: &Change) -> io::Result<()> {
    let path = data.join(change.path());
    let changed = || backup.changed(change.path()).map_err(io::Error::other);
    match change {
        Change::Patch { method, .. } => {
            let old: Vec<Splice> =
                backup.splices(change)?.into_iter().map(|(new, old)| inverse(&new, old)).collect();
            match method {
                Method::InPlace => {
                    splice_in_place(&path, &old)?;
                    let file = File::options().write(true).open(&path)?;
                    file.set_len(changed()?.before.bytes)?;
                    file.sync_all()
                }
                Method::Replace => {
                    let mut file = File::open(&path)?;
                    put_back(&path, changed()?, |out| copy_spliced(&mut file, &old, out))
                }
            }
        }
        Change::Rewrite { .. } => {
            let changed = changed()?;
            let mut old = File::open(backup.path.join(&changed.old))?;
            put_back(&path, changed, |out| io::copy(&mut old, out).map(drop))
        }
        Change::Create { .. } => {
            fs::remove_file(&path)?;
            sync_directory_of(&path)
        }
        Change::CreateDirectory { .. } => {
            fs::remove_dir(&path)?;
            sync_directory_of(&path)
        }
        Change::Rename { to, .. } => {
            rename_new(&data.join(to), &path)?;
            sync_directory_of(&path)?;
            sync_directory_of(&data.join(to))
        }
        Change::SetAside { .. } => {
            remove_any(&path)?;
            files::copy_tree(&backup.aside(change.path()), &path)?;
            sync_directory_of(&path)
        }
    }
}

/// What undoes a splice.
fn inverse(new: &Splice, old: Vec<u8>) -> Splice {
    Splice { offset: new.offset, replaces: new.with.len() as u64, with: old }
}

fn put_back(
    path: &Path,
    changed: &Changed,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let like = path.metadata()?;
    replace(path, Some(&like), write)?;
    let file = File::open(path)?;
    std::os::unix::fs::fchown(&file, Some(changed.uid), Some(changed.gid))?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(changed.mode))?;
    file.sync_all()
}

fn set_times(path: &Path, modified: i128) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidData);
    let since = |nanoseconds: i128| -> io::Result<Duration> {
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(out_of_range)?;
        let rest = u32::try_from(nanoseconds % 1_000_000_000).map_err(out_of_range)?;
        Ok(Duration::new(seconds, rest))
    };
    let time = if modified < 0 { UNIX_EPOCH - since(-modified)? } else { UNIX_EPOCH + since(modified)? };
    File::open(path)?.set_modified(time)
}
