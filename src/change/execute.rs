//! One step of a plan, done to the files.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::backup::Backup;
use super::data::{Data, owner_of_new_directory};
use super::files::{
    Owner, Splice, copy_spliced, copy_whole, create_directories, rename_new, replace, splice_in_place,
    staged, sync_directory,
};
use super::plan::{Change, Method};
use super::stage;
use super::state::{Progress, progress_of};
use crate::io::beneath::Place;

pub(super) fn execute(data: &Data, backup: &Backup, change: &Change) -> io::Result<()> {
    let place = data.join(change.path());
    match change {
        Change::Patch { method, .. } => {
            let splices = splices(backup, change);
            patch(&place, *method, &splices, |file| progress_of(backup, change, file))
        }
        Change::Rewrite { .. } | Change::RewriteIndex { .. } => stage::put(data, change),
        Change::Create { bytes, .. } => {
            replace(&place, data.owner_of_new(&place)?, |out| out.write_all(bytes))
        }
        Change::CreateDirectory { .. } => make_directory(&place, owner_of_new_directory(&place)?),
        Change::Rename { to, .. } => rename_new(&place, &data.join(to)),
        Change::SetAside { .. } => set_aside(&place, &backup.aside(change.path()), backup.owner),
    }
}

/// Changes bytes of a file. It is looked at once more by the very descriptor that is changed: the name may be that of
/// another file by now.
fn patch(
    place: &Place,
    method: Method,
    splices: &[Splice],
    progress_of: impl Fn(&mut std::fs::File) -> io::Result<Progress>,
) -> io::Result<()> {
    let mut file = if method == Method::InPlace { place.open_to_write()? } else { place.open_file()? };
    let about = file.metadata()?;
    let found = progress_of(&mut file)?;
    if found != Progress::Before && found != Progress::Between {
        return Err(io::Error::other("it has been changed by somebody else just now"));
    }
    match method {
        Method::InPlace if about.nlink() == 1 => splice_in_place(&file, splices),
        // Its other names are not this directory's.
        Method::InPlace if found == Progress::Between => place.open_to_change().map(drop),
        _ => replace(place, Owner::of(&about), |out| copy_spliced(&mut file, splices, out)),
    }
}

/// Makes a directory at once, as it is to be: one that is there is never given away.
fn make_directory(place: &Place, owner: Owner) -> io::Result<()> {
    if place.is_directory() {
        return Ok(());
    }
    let staged = staged(place);
    match staged.remove_directory() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = staged.create_directory(owner.mode & 0o700)?;
    owner.give(&made)?;
    rename_new(&staged, place)
}

fn splices(backup: &Backup, change: &Change) -> Vec<Splice> {
    backup.splices(change).into_iter().map(|(splice, _)| splice).collect()
}

/// Moves a file or directory into the backup. Its name is gone from one instant to the next, and not before all of it is
/// there.
fn set_aside(place: &Place, aside: &Place, owner: Owner) -> io::Result<()> {
    create_directories(&aside.parent(), owner.with_mode(0o700))?;
    if aside.find()?.is_none() {
        match rename_new(place, aside) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_whole(place, aside)?,
            done => return done,
        }
    }
    let staged = staged(place);
    rename_new(place, &staged)?;
    staged.remove_any()?;
    sync_directory(&place.parent())
}
