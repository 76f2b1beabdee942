//! Where a backup is, and where it is while it is written.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::layout::{CHECKSUMS, LONGEST, MANIFEST, OLD, PLAN, README, UNFINISHED_ENDING};
use super::readme::OF;
use crate::change::error::RepairError;
use crate::change::files;
use crate::change::marker_name::MARKER;
use crate::io::beneath::{Kind, Place};

/// Where the backup `place` is written before it is whole.
pub(in crate::change) fn in_the_making(place: &Place) -> Place {
    place.with_ending(UNFINISHED_ENDING)
}

/// Where a backup is, or is to be, whose absolute path is known: in the data directory, or in another, which is resolved
/// once.
pub(in crate::change) fn place(data: &Place, path: &Path) -> io::Result<Place> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if directory == data.full() || directory == data.shown() {
        return Ok(data.join(name));
    }
    Ok(Place::open(directory)?.join(name))
}

/// Unfinished backups in a directory: their repairs were never started.
pub(in crate::change) fn never_finished(directory: &Place) -> io::Result<Vec<Place>> {
    let is_ours = |name: &str| name.starts_with("walfix-backup-") && name.ends_with(UNFINISHED_ENDING);
    let entries = directory.list()?.into_iter();
    let ours = entries.filter(|(name, kind)| *kind == Kind::Directory && name.to_str().is_some_and(is_ours));
    Ok(ours.map(|(name, _)| directory.join(name)).collect())
}

/// Whether what is at `place` is a backup in the making of the data directory `data`: it says so before all else. Outside a
/// data directory nothing is removed for a marker's word.
pub(in crate::change) fn is_of(place: &Place, data: &Path) -> bool {
    let Ok(text) = place.join(README).read(LONGEST) else { return false };
    let text = String::from_utf8_lossy(&text);
    let line = text.split_once(OF).and_then(|(_, rest)| rest.lines().next());
    line == Some(&*crate::io::printable(&data.display().to_string()))
}

/// Removes a backup of a repair that has changed nothing. Whoever is killed here leaves one in the making, which the next repair
/// removes: what says whose it is goes last.
pub(in crate::change) fn discard(place: &Place) {
    let unfinished = in_the_making(place);
    if place.rename_to_new(&unfinished).is_ok() {
        for name in [OLD, PLAN, MANIFEST, CHECKSUMS] {
            let _ = unfinished.join(name).remove_any();
        }
        let _ = unfinished.remove_any();
    }
}

/// Removes a backup in the making that an earlier repair of the data directory `data` left, to make room for another; it says
/// whose it is, or is empty.
pub(in crate::change) fn make_room(partial: &Place, data: &Place) -> io::Result<()> {
    let is_ours = || {
        partial.parent() == *data
            || is_of(partial, &data.full())
            || partial.list().is_ok_and(|names| names.is_empty())
    };
    if has_names_of_a_backup(partial)? && !is_ours() {
        let what = "it is being made for another data directory";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    remove_unfinished(partial).map(drop)
}

/// Removes a backup that never became whole, if it is there; whether it was. Nothing else is removed by its name.
pub(in crate::change) fn remove_unfinished(place: &Place) -> io::Result<bool> {
    if !has_names_of_a_backup(place)? {
        return Ok(false);
    }
    place.remove_any()?;
    files::sync_directory(&place.parent())?;
    Ok(true)
}

/// Whether something is at `place`. It is an error if that is no backup, by the names in it.
fn has_names_of_a_backup(place: &Place) -> io::Result<bool> {
    let Some(found) = place.find()? else { return Ok(false) };
    let foreign = |what: String| Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    if !found.is_dir() {
        return foreign("it is no directory, and so not of a backup".to_owned());
    }
    for (name, kind) in place.list()? {
        let expected = if name == *OLD { Kind::Directory } else { Kind::File };
        let is_ours = [PLAN, MANIFEST, README, CHECKSUMS, OLD].iter().any(|ours| name == **ours);
        if !is_ours || kind != expected {
            return foreign(format!("{} in it is not of a backup", name.display()));
        }
    }
    Ok(true)
}

/// Whether a directory and all in which it lies can be changed by nobody but root and this process's user.
pub(super) fn is_trusted(place: &Place) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let is_safe = |uid: u32| uid == 0 || uid == own;
    let Ok(about) = place.look() else { return false };
    let full = place.full();
    let is_safe_above = full.ancestors().skip(1).all(|above| {
        above.symlink_metadata().is_ok_and(|above| {
            // In a sticky directory nobody renames what is somebody else's.
            is_safe(above.uid()) && (above.mode() & 0o022 == 0 || above.mode() & 0o1000 != 0)
        })
    });
    is_safe(about.uid()) && about.mode() & 0o022 == 0 && is_safe_above
}

/// The path with its directory's true name.
pub(in crate::change) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let directory = files::directory_of(path).canonicalize()?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(directory.join(name))
}

/// Whether Prometheus leaves a backup or a copy alone at this place, and never takes it for something of its own.
pub(in crate::change) fn is_left_alone(data: &Place, backup: &Path) -> Result<(), RepairError> {
    let full = data.full();
    let refused = |why: &str| Err(RepairError::NoPlace { path: backup.to_owned(), why: why.to_owned() });
    let name = backup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if Path::new(name).extension().is_some_and(|extension| extension == "unfinished") {
        return refused("its name says that it is not complete");
    }
    // They may be links to elsewhere.
    for part in ["wal", "wbl", "chunks_head"] {
        if full.join(part).canonicalize().is_ok_and(|part| backup.starts_with(part)) {
            return refused(&format!("it is in {part}/, which is Prometheus's"));
        }
    }
    let is_named = name.starts_with("walfix-") && name != MARKER;
    if backup.starts_with(&full) && !(backup.parent() == Some(&full) && is_named) {
        return refused(
            "in the data directory itself only names that begin with walfix- are sure to be left alone by Prometheus",
        );
    }
    Ok(())
}
