//! Steps that were done, undone.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::backup::{Backup, ChangedFile};
use super::data::Data;
use super::error::{At as _, RepairError};
use super::files::{
    Owner, Splice, copy_spliced, copy_whole, rename_new, replace, splice_in_place, sync_directory,
};
use super::leftovers;
use super::marker::forget;
use super::plan::{Change, Method};
use super::state::{Progress, progress, progress_of};
use super::times::set_times;
use crate::io::beneath::Place;

/// Undoes all steps of the backup's plan that have been done, the last first.
pub(super) fn roll_back(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    for step in backup.plan.steps.iter().rev() {
        let path = data.join(step.change.path());
        match progress(backup, data.place(), &step.change).at("read", &path)? {
            Progress::Before => {}
            Progress::After | Progress::Between => {
                revert(data, backup, &step.change).at("change", &path)?;
            }
            Progress::Other(what) => {
                return Err(RepairError::Changed { path: step.change.path().to_owned(), what });
            }
        }
    }
    forget(data, Some(&backup.plan))?;
    set_times(data, backup)
}

/// Reverts a step that has been done, wholly or in part.
pub(super) fn revert(data: &Data, backup: &Backup, change: &Change) -> io::Result<()> {
    let place = data.join(change.path());
    let changed = || backup.changed(change.path()).map_err(io::Error::other);
    match change {
        Change::Patch { method, .. } => {
            let (old, changed) = (inverse_splices(backup, change), changed()?);
            match method {
                Method::InPlace => revert_in_place(&place, &old, backup, change, changed),
                Method::Replace => {
                    let mut file = place.open_file()?;
                    put_back(data, backup, &place, changed, |out| copy_spliced(&mut file, &old, out))
                }
            }
        }
        Change::Rewrite { .. } | Change::RewriteIndex { .. } => {
            let changed = changed()?;
            let mut old = backup.old(&changed.old)?;
            put_back(data, backup, &place, changed, |out| io::copy(&mut old, out).map(drop))
        }
        Change::Create { .. } => {
            place.remove_file()?;
            sync_directory(&place.parent())
        }
        Change::CreateDirectory { .. } => {
            leftovers::remove_in(&place, &leftovers::of_plan(&backup.plan))?;
            place.remove_directory()?;
            sync_directory(&place.parent())
        }
        Change::Rename { to, .. } => rename_new(&data.join(to), &place),
        Change::SetAside { .. } if place.find()?.is_some() => Ok(()),
        Change::SetAside { .. } => copy_whole(&backup.aside(change.path()), &place),
    }
}

fn revert_in_place(
    place: &Place,
    old: &[Splice],
    backup: &Backup,
    change: &Change,
    changed: &ChangedFile,
) -> io::Result<()> {
    let mut file = place.open_to_write()?;
    let about = file.metadata()?;
    match progress_of(backup, change, &mut file)? {
        Progress::After | Progress::Between if about.nlink() == 1 => {
            splice_in_place(&file, old)?;
            file.set_len(changed.before.bytes)?;
            file.sync_all()
        }
        // Its other names are not this directory's.
        Progress::After => replace(place, Owner::of(&about), |out| copy_spliced(&mut file, old, out)),
        Progress::Between => place.open_to_change().map(drop),
        _ => Err(io::Error::other("it has been changed by somebody else just now")),
    }
}

/// What undoes the splices of a step.
pub(super) fn inverse_splices(backup: &Backup, change: &Change) -> Vec<Splice> {
    let splices = backup.splices(change).into_iter();
    let inverse =
        |(new, old): (Splice, _)| Splice { offset: new.offset, replaces: new.with.count(), with: old };
    splices.map(inverse).collect()
}

fn put_back(
    data: &Data,
    backup: &Backup,
    place: &Place,
    changed: &ChangedFile,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    replace(place, backup.owner_of(changed, data.place())?, write)
}
