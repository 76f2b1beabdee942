//! Puts back what a repair has changed.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::backup::{self, Backup, in_the_making};
use super::backup::{absolute, is_left_alone};
use super::data::Data;
use super::error::{At as _, RepairError};
use super::files::{
    self, MODE, Owner, Splice, checksum_spliced, copy_spliced, copy_whole, create_directories, rename_new,
    set_modified_directory, sync_directory, sync_tree, write_and_verify,
};
use super::input;
use super::lock::Lock;
use super::marker::{Marker, forget};
use super::plan::{Change, Input};
use super::revert::{inverse_splices, revert, roll_back};
use super::state::{Progress, intruder, is_at_or_below, now_at, progress};
use super::times::set_times_of_files;
use crate::io::beneath::{Place, is_privileged};
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
    let target = data_of(&backup)?;
    let lock = Lock::take(target.path())?;
    let data = &Data::of(&target, lock.data());
    is_of_its_owner(&backup, data)?;
    no_other_repair(data, &backup)?;
    let since = |what| RepairError::ChangedSince { backup: backup.path.clone(), what };
    if let Some(what) = intruder(&backup, data).at("look at", data.path())? {
        return Err(since(what));
    }
    let mut undone = Undone { steps: 0, left: 0 };
    for step in &backup.plan.steps {
        let path = step.change.path();
        match look(&backup, data.place(), &step.change)? {
            Progress::Before => undone.left += 1,
            Progress::Between | Progress::After => undone.steps += 1,
            Progress::Other(what) => return Err(since(format!("{path} has changed ({what})"))),
        }
    }
    roll_back(data, &backup)?;
    Ok(undone)
}

/// Puts back what the repair changed, whatever has come since. What is there now of the files that are put back is copied
/// first, into a directory beside the backup; the two are never merged. Other files, as segments that Prometheus has started
/// since, stay.
///
/// # Errors
/// If the backup is not whole, a Prometheus runs there, or a file of which the backup has only a part is not what the
/// repair left.
pub fn undo_by_force(backup: &Path) -> Result<Forced, RepairError> {
    let backup = Backup::open(backup)?;
    let target = data_of(&backup)?;
    let lock = Lock::take(target.path())?;
    let data = &Data::of(&target, lock.data());
    is_of_its_owner(&backup, data)?;
    no_other_repair(data, &backup)?;
    let mut concerned = Vec::new();
    for step in backup.plan.steps.iter().rev() {
        match (look(&backup, data.place(), &step.change)?, &step.change) {
            (Progress::Before, _) => {}
            (Progress::Other(what), Change::Patch { path, .. } | Change::Rename { from: path, .. }) => {
                return Err(RepairError::Incomplete { path: path.clone(), what });
            }
            (_, change) => concerned.push(change),
        }
    }
    let undone = Undone { steps: concerned.len(), left: backup.plan.steps.len() - concerned.len() };
    let moved_to = copy_aside(&backup, data, &concerned)?;
    for change in concerned {
        let path = data.join(change.path());
        force(data, &backup, change).at("change", &path)?;
    }
    forget(data, Some(&backup.plan))?;
    set_times_of_files(data, &backup)?;
    Ok(Forced { undone, moved_to })
}

/// Copies what is there now of what these changes are about to a new directory beside the backup.
fn copy_aside(backup: &Backup, data: &Data, changes: &[&Change]) -> Result<Option<PathBuf>, RepairError> {
    let mut there: Vec<&str> = changes.iter().flat_map(|change| change.paths()).collect();
    there.retain(|path| data.join(path).is_there());
    there.sort_unstable();
    // What is in a directory comes with it.
    there.dedup_by(|below, above| is_at_or_below(below, above));
    if there.is_empty() {
        return Ok(None);
    }
    let here = backup::place(data.place(), &backup.place().full()).at("find", &backup.path)?;
    let first = here.with_ending("-before-undo");
    let more = (2..).map(|n| here.with_ending(&format!("-before-undo-{n}")));
    let mut free = std::iter::once(first.clone()).chain(more).filter(|place| !place.is_there());
    let aside = free.next().unwrap_or(first);
    let owner = data.owner().at("look at", data.path())?.with_mode(0o700);
    let partial = in_the_making(&aside);
    partial.remove_any().at("remove", &partial)?;
    files::create_directory(&partial, owner).at("create", &partial)?;
    let root = partial.as_root().at("open", &partial)?;
    for path in there {
        let to = root.join(path);
        create_directories(&to.parent(), owner).at("create", &to)?;
        files::copy_tree(&data.join(path), &to).at("copy to", &to)?;
    }
    sync_tree(&partial).at("write", &partial)?;
    rename_new(&partial, &aside).at("create", &aside)?;
    Ok(Some(aside.shown()))
}

/// Puts back what a change was about, in the place of whatever is there.
fn force(data: &Data, backup: &Backup, change: &Change) -> io::Result<()> {
    let place = data.join(change.path());
    match change {
        Change::Patch { .. }
        | Change::Rewrite { .. }
        | Change::RewriteIndex { .. }
        | Change::Rename { .. } => revert(data, backup, change),
        Change::Create { .. } | Change::CreateDirectory { .. } => {
            place.remove_any()?;
            sync_directory(&place.parent())
        }
        Change::SetAside { .. } => {
            place.remove_any()?;
            copy_whole(&backup.aside(change.path()), &place)
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
    let target = data_of(&backup)?;
    let data = Data::open(&target)?;
    is_of_its_owner(&backup, &data)?;
    let path = absolute(into).at("find", into)?;
    is_left_alone(data.place(), &path)?;
    let into = backup::place(data.place(), &path).at("find", &path)?;
    if into.find().at("look at", &into)?.is_some() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", &into);
    }
    let partial = in_the_making(&into);
    let owner = Owner::of(&data.place().look().at("look at", data.path())?);
    let owner = owner.with_mode(owner.mode | 0o700);
    files::create_directory(&partial, owner).at("create", &partial)?;
    let restored = partial
        .as_root()
        .at("open", &partial)
        .and_then(|root| restore(&backup, data.place(), &root))
        .and_then(|restored| {
            sync_tree(&partial).at("write", &partial)?;
            rename_new(&partial, &into).at("create", &into)?;
            Ok(restored)
        });
    if restored.is_err() {
        // It was made here.
        let _ = partial.remove_any();
    }
    restored
}

fn restore(backup: &Backup, data: &Place, into: &Place) -> Result<Restored, RepairError> {
    let mut restored = Restored { files: 0, missing: Vec::new() };
    for input in &backup.plan.inputs {
        let to = into.join(&input.path);
        create_like(data, into, Path::new(&input.path).parent().unwrap_or(Path::new("")))?;
        if restore_file(backup, data, input, &to).at("write", &to)? {
            restored.files += 1;
        } else {
            // What was written of it is not what it was.
            to.remove_any().at("remove", &to)?;
            restored.missing.push(input.path.clone());
        }
    }
    for directory in backup.manifest.directories.iter().rev() {
        let place = into.join(&directory.path);
        if place.is_directory() {
            set_modified_directory(&place, directory.modified).at("set the time of", &place)?;
        }
    }
    Ok(restored)
}

/// Makes a directory, and those above it, with owners and modes as they have in the data directory.
fn create_like(data: &Place, into: &Place, path: &Path) -> Result<(), RepairError> {
    if path == Path::new("") || into.join(path).is_directory() {
        return Ok(());
    }
    create_like(data, into, path.parent().unwrap_or(Path::new("")))?;
    let mut like = data.join(path);
    while !like.is_directory() && like != *data {
        like = like.parent();
    }
    let owner = Owner::of(&like.look().at("look at", &like)?);
    let to = into.join(path);
    files::create_directory(&to, owner.with_mode(owner.mode | 0o700)).map(drop).at("create", &to)
}

/// Writes a file as it was; whether it can still be had.
fn restore_file(backup: &Backup, data: &Place, input: &Input, to: &Place) -> io::Result<bool> {
    let (mut from, mut splices) = (data.join(&input.path), Vec::new());
    let mut is_kept = false;
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
            Change::Rewrite { path, .. } | Change::RewriteIndex { path, .. } if *path == input.path => {
                (from, is_kept) = (backup.aside(path), true);
            }
            Change::SetAside { path, .. }
                if is_at_or_below(&input.path, path) && backup.aside(path).is_there() =>
            {
                (from, is_kept) = (backup.aside(&input.path), true);
            }
            Change::Rename { from: old, to: new } if is_at_or_below(&input.path, old) => {
                let renamed = data.join(format!("{new}{}", &input.path[old.len()..]));
                if !from.is_there() {
                    from = renamed;
                }
            }
            _ => {}
        }
    }
    let mut file = match from.open_file() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.nlink() > 1 && is_kept && !backup.is_trusted() {
        return Ok(false);
    }
    let is_known = input::modified(&metadata) == input.modified && metadata.len() == input.bytes;
    if expected.is_none() && !is_known {
        return Ok(false);
    }
    let changed = backup.manifest.files.iter().find(|changed| changed.path == input.path);
    let now = Owner::of(&metadata);
    let owner = match changed {
        Some(changed) => backup.owner_of(changed, data)?.with_mode(changed.mode & MODE),
        None => now,
    };
    let mut written = write_and_verify(to, owner, |out: &mut dyn Write| {
        match copy_spliced(&mut file, &splices, out) {
            // It has become shorter meanwhile: that is seen below.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            done => done,
        }
    })?;
    let (checksum, bytes) = files::checksum_of(&mut written, &[])?;
    if bytes != input.bytes || expected.is_some_and(|sum| checksum != sum) {
        return Ok(false);
    }
    files::set_modified(to, input.modified)?;
    Ok(true)
}

/// What undoes a step of which only some bytes have been written.
fn unfinished_splices(backup: &Backup, change: &Change, file: &Place) -> io::Result<Vec<Splice>> {
    let length = file.look()?.len();
    let mut splices = inverse_splices(backup, change);
    for splice in &mut splices {
        let longest = splice.replaces.max(splice.with.count());
        splice.replaces = longest.min(length.saturating_sub(splice.offset));
    }
    Ok(splices)
}

/// How far a change has come; what would be put back is made sure of first.
fn look(backup: &Backup, data: &Place, change: &Change) -> Result<Progress, RepairError> {
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

/// A backup that somebody who is not trusted can have written is only used for what is that somebody's own.
fn is_of_its_owner(backup: &Backup, data: &Data) -> Result<(), RepairError> {
    if backup.is_trusted() || !is_privileged() {
        return Ok(());
    }
    let owners = [data.owner(), data.place().look().map(|about| Owner::of(&about))];
    let mut uids = owners.into_iter().flatten().map(|owner| owner.uid);
    if uids.any(|uid| uid == backup.owner.uid) {
        return Ok(());
    }
    let what = format!(
        "it belongs to the user {}, and {} does not; make it root's, and what lies above it, if you trust it",
        backup.owner.uid,
        data.path().display()
    );
    Err(RepairError::Backup { path: backup.path.clone(), what })
}

/// A repair that is not finished has to be finished or undone before an earlier one.
fn no_other_repair(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    let Some(marker) = Marker::read(data.place())? else { return Ok(()) };
    let is_this = match (marker.backup().canonicalize(), backup.path.canonicalize()) {
        (Ok(other), Ok(this)) => other == this,
        _ => false,
    };
    if is_this {
        return Ok(());
    }
    let what = format!(
        "another repair is not finished, whose backup is {}: finish it with `walfix repair --backup`, or undo it first",
        marker.backup().display()
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
