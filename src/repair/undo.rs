//! Puts back what a repair has changed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::backup::{Backup, in_the_making};
use super::error::{At as _, RepairError};
use super::files::{
    self, Owner, Splice, checksum_spliced, copy_spliced, copy_whole, remove_any, set_modified,
    set_modified_directory, write_and_verify,
};
use super::input::{self, checksum_of_file};
use super::lock::Lock;
use super::plan::{Change, Input};
use super::state::{Progress, intruder, is_at_or_below, now_at, progress};
use super::transaction::{Begun, absolute, forget, inverse_splices, is_left_alone, revert, roll_back};
use crate::tsdb::Target;

/// What an undo did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Steps that were undone.
    pub steps: usize,
    /// Steps that had not been done, or had been undone before.
    pub left: usize,
}

/// What an undo by force did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced {
    /// What was undone.
    pub undone: Undone,
    /// Where that is now which was in the place of what was put back.
    pub moved_to: Option<PathBuf>,
}

/// What was restored elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Files that were written.
    pub files: usize,
    /// Those that cannot be had any more, as they have gone or been changed since.
    pub missing: Vec<String>,
}

/// Puts back what the repair changed of which `backup` is the backup: bytes, names, owners, modes and times.
///
/// # Errors
/// If the backup is not whole, a Prometheus runs there, or anything has changed since the repair.
pub fn undo(backup: &Path) -> Result<Undone, RepairError> {
    let backup = Backup::open(backup)?;
    let data = data_of(&backup)?;
    let _lock = Lock::take(data.path())?;
    no_other_repair(&data, &backup)?;
    let since = |what| RepairError::ChangedSince { backup: backup.path.clone(), what };
    if let Some(what) = intruder(&backup, &data).at("look at", data.path())? {
        return Err(since(what));
    }
    let mut undone = Undone { steps: 0, left: 0 };
    for step in &backup.plan.steps {
        let path = step.change.path();
        match look(&backup, data.path(), &step.change)? {
            Progress::Before => undone.left += 1,
            Progress::Between | Progress::After => undone.steps += 1,
            Progress::Other(what) => return Err(since(format!("{path} has changed ({what})"))),
        }
    }
    roll_back(&data, &backup)?;
    Ok(undone)
}

/// Puts back what the repair changed, whatever has come since. What is there now of the files that are put back is copied
/// first, into a directory beside the backup; the two are never merged. Other files, as segments that Prometheus has begun
/// since, stay.
///
/// # Errors
/// If the backup is not whole, a Prometheus runs there, or a file of which the backup has only a part is not what the
/// repair left.
pub fn undo_by_force(backup: &Path) -> Result<Forced, RepairError> {
    let backup = Backup::open(backup)?;
    let data = data_of(&backup)?;
    let _lock = Lock::take(data.path())?;
    no_other_repair(&data, &backup)?;
    let mut concerned = Vec::new();
    for step in backup.plan.steps.iter().rev() {
        match (look(&backup, data.path(), &step.change)?, &step.change) {
            (Progress::Before, _) => {}
            (Progress::Other(what), Change::Patch { path, .. } | Change::Rename { from: path, .. }) => {
                return Err(RepairError::Incomplete { path: path.clone(), what });
            }
            (_, change) => concerned.push(change),
        }
    }
    let undone = Undone { steps: concerned.len(), left: backup.plan.steps.len() - concerned.len() };
    let moved_to = copy_aside(&backup, data.path(), &concerned)?;
    for change in concerned {
        let path = data.path().join(change.path());
        force(data.path(), &backup, change).at("change", &path)?;
    }
    forget(&data, Some(&backup.plan))?;
    for changed in &backup.manifest.files {
        let path = data.path().join(&changed.path);
        set_modified(&path, changed.modified).at("set the time of", &path)?;
    }
    Ok(Forced { undone, moved_to })
}

/// Copies what is there now of what these changes are about to a new directory beside the backup.
fn copy_aside(backup: &Backup, data: &Path, changes: &[&Change]) -> Result<Option<PathBuf>, RepairError> {
    let mut there: Vec<&str> = changes.iter().flat_map(|change| change.paths()).collect();
    there.retain(|path| data.join(path).symlink_metadata().is_ok());
    there.sort_unstable();
    // What is in a directory comes with it.
    there.dedup_by(|below, above| is_at_or_below(below, above));
    if there.is_empty() {
        return Ok(None);
    }
    let mut name = backup.path.as_os_str().to_owned();
    name.push("-before-undo");
    let names = std::iter::once(name.clone()).chain((2..).map(|n| {
        let mut name = name.clone();
        name.push(format!("-{n}"));
        name
    }));
    let mut free = names.map(PathBuf::from).filter(|path| path.symlink_metadata().is_err());
    let aside = free.next().unwrap_or_else(|| name.into());
    let partial = in_the_making(&aside);
    remove_any(&partial).at("remove", &partial)?;
    fs::create_dir(&partial).at("create", &partial)?;
    for path in there {
        let to = partial.join(path);
        fs::create_dir_all(files::directory_of(&to)).at("create", &to)?;
        files::copy_tree(&data.join(path), &to).at("copy to", &to)?;
    }
    files::sync_tree(&partial).at("write", &partial)?;
    files::rename_new(&partial, &aside).at("create", &aside)?;
    Ok(Some(aside))
}

/// Puts back what a change was about, in the place of whatever is there.
fn force(data: &Path, backup: &Backup, change: &Change) -> io::Result<()> {
    let path = data.join(change.path());
    match change {
        Change::Patch { .. } | Change::Rewrite { .. } | Change::Rename { .. } => revert(data, backup, change),
        Change::Create { .. } | Change::CreateDirectory { .. } => {
            remove_any(&path)?;
            files::sync_directory_of(&path)
        }
        Change::SetAside { .. } => {
            remove_any(&path)?;
            copy_whole(&backup.aside(change.path()), &path)
        }
    }
}

/// Writes the logs of the data directory as they were before the repair to `into`, which is not there yet. Changes nothing
/// else, and needs no lock: it can be done while Prometheus runs.
///
/// # Errors
/// If the backup is not whole, or the copy cannot be written.
pub fn restore_into(backup: &Path, into: &Path) -> Result<Restored, RepairError> {
    let backup = Backup::open(backup)?;
    let data = data_of(&backup)?;
    let into = &absolute(into).at("find", into)?;
    is_left_alone(data.path(), into)?;
    if into.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", into);
    }
    let partial = in_the_making(into);
    fs::create_dir(&partial).at("create", &partial)?;
    let restored = restore(&backup, data.path(), &partial).and_then(|restored| {
        files::sync_tree(&partial).at("write", &partial)?;
        files::rename_new(&partial, into).at("create", into)?;
        Ok(restored)
    });
    if restored.is_err() {
        // It was made here.
        let _ = fs::remove_dir_all(&partial);
    }
    restored
}

fn restore(backup: &Backup, data: &Path, into: &Path) -> Result<Restored, RepairError> {
    let mut restored = Restored { files: 0, missing: Vec::new() };
    for input in &backup.plan.inputs {
        let to = into.join(&input.path);
        fs::create_dir_all(files::directory_of(&to)).at("create", &to)?;
        if restore_file(backup, data, input, &to).at("write", &to)? {
            restored.files += 1;
        } else {
            // What was written of it is not what it was.
            remove_any(&to).at("remove", &to)?;
            restored.missing.push(input.path.clone());
        }
    }
    for directory in backup.manifest.directories.iter().rev() {
        let path = into.join(&directory.path);
        if path.is_dir() {
            set_modified_directory(&path, directory.modified).at("set the time of", &path)?;
        }
    }
    Ok(restored)
}

/// Writes a file as it was; whether it can still be had.
fn restore_file(backup: &Backup, data: &Path, input: &Input, to: &Path) -> io::Result<bool> {
    let (mut from, mut splices) = (data.join(&input.path), Vec::new());
    let mut expected = input.checksum.clone();
    for step in &backup.plan.steps {
        match &step.change {
            Change::Patch { path, .. } if *path == input.path => {
                expected = backup.changed(path).ok().map(|changed| changed.before.checksum.clone());
                match progress(backup, data, &step.change)? {
                    Progress::Before => {}
                    Progress::After => splices = inverse_splices(backup, &step.change),
                    Progress::Between => splices = unfinished_splices(backup, &step.change, &from)?,
                    Progress::Other(_) => return Ok(false),
                }
            }
            Change::Rewrite { path, .. } if *path == input.path => from = backup.aside(path),
            Change::SetAside { path, .. } if is_at_or_below(&input.path, path) => {
                let aside = backup.aside(path);
                if aside.symlink_metadata().is_ok() {
                    from = backup.aside(&input.path);
                }
            }
            Change::Rename { from: old, to: new } if is_at_or_below(&input.path, old) => {
                let renamed = data.join(format!("{new}{}", &input.path[old.len()..]));
                if from.symlink_metadata().is_err() {
                    from = renamed;
                }
            }
            _ => {}
        }
    }
    let mut file = match File::open(&from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let metadata = file.metadata()?;
    let is_known = input::modified(&metadata) == input.modified && metadata.len() == input.bytes;
    if expected.is_none() && !is_known {
        return Ok(false);
    }
    write_and_verify(to, |out: &mut dyn Write| match copy_spliced(&mut file, &splices, out) {
        // It has become shorter meanwhile: that is seen below.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        done => done,
    })?;
    if to.metadata()?.len() != input.bytes
        || expected.is_some_and(|sum| checksum_of_file(to).ok() != Some(sum))
    {
        return Ok(false);
    }
    let changed = backup.manifest.files.iter().find(|changed| changed.path == input.path);
    let owner = changed.map_or(Owner::of(&metadata), |changed| Owner {
        uid: changed.uid,
        gid: changed.gid,
        mode: Some(changed.mode & 0o7777),
    });
    // Who may not give files away keeps them.
    let _ = owner.give(&File::open(to)?);
    set_modified(to, input.modified)?;
    Ok(true)
}

/// What undoes a step of which only some bytes have been written.
fn unfinished_splices(backup: &Backup, change: &Change, file: &Path) -> io::Result<Vec<Splice>> {
    let length = file.metadata()?.len();
    let mut splices = inverse_splices(backup, change);
    for splice in &mut splices {
        let longest = splice.replaces.max(splice.with.count());
        splice.replaces = longest.min(length.saturating_sub(splice.offset));
    }
    Ok(splices)
}

/// How far a change has come; what would be put back is made sure of first.
fn look(backup: &Backup, data: &Path, change: &Change) -> Result<Progress, RepairError> {
    let path = data.join(change.path());
    let found = progress(backup, data, change).at("read", &path)?;
    if let (Progress::After, Change::Patch { .. }) = (&found, change) {
        let old = inverse_splices(backup, change);
        let path = now_at(backup, data, change.path());
        let (checksum, _) = checksum_spliced(&path, &old).at("read", &path)?;
        if checksum != backup.changed(change.path())?.before.checksum {
            let what = format!("with its bytes, {} would not be what it was", change.path());
            return Err(RepairError::Backup { path: backup.path.clone(), what });
        }
    }
    Ok(found)
}

/// A repair that is not finished has to be finished or undone before an earlier one.
fn no_other_repair(data: &Target, backup: &Backup) -> Result<(), RepairError> {
    let Some(begun) = Begun::read(data.path())? else { return Ok(()) };
    let is_this = match (begun.backup().canonicalize(), backup.path.canonicalize()) {
        (Ok(other), Ok(this)) => other == this,
        _ => false,
    };
    if is_this {
        return Ok(());
    }
    let what = format!(
        "another repair is not finished, whose backup is {}: finish it with `walfix repair --backup`, or undo it first",
        begun.backup().display()
    );
    Err(RepairError::Backup { path: backup.path.clone(), what })
}

/// The directory that was repaired. A backup that was written in it is looked for around itself first: both may have been
/// moved, or copied.
fn data_of(backup: &Backup) -> Result<Target, RepairError> {
    let manifest = &backup.manifest;
    let around = backup.path.canonicalize().ok().and_then(|path| path.parent().map(Path::to_owned));
    let is_inside = manifest.backup.parent() == Some(&manifest.data);
    let mut places = vec![Some(manifest.data.clone()), around];
    if is_inside {
        places.reverse();
    }
    let find = |path: PathBuf| {
        Target::find(&path).ok().filter(|target| target.data_directory_around().as_ref() == Some(target))
    };
    places.into_iter().flatten().find_map(find).ok_or_else(|| RepairError::Backup {
        path: backup.path.clone(),
        what: format!(
            "the data directory {} is not there, and it does not lie in one",
            manifest.data.display()
        ),
    })
}
