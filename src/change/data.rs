//! The data directory that is changed, held open.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::{At as _, RepairError};
use super::files::Owner;
use crate::io::beneath::{Kind, Place};
use crate::tsdb::{Listing, Target};
use crate::wal::segments::segment_index;

/// The most that a mode of new files may be where no segment shows one: what Prometheus's have where the umask is the
/// usual one, 0o666 less 0o022.
const USUAL: u32 = 0o644;

/// A data directory, and what it is to readers.
#[derive(Clone, Debug)]
pub(super) struct Data {
    target: Target,
    place: Place,
}

impl Data {
    /// Opens it.
    pub(super) fn open(target: &Target) -> Result<Self, RepairError> {
        let place = Place::open(target.path()).at("open", target.path())?;
        Ok(Self { target: target.clone(), place })
    }

    /// One that is open already.
    pub(super) fn of(target: &Target, place: &Place) -> Self {
        Self { target: target.clone(), place: place.clone() }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn path(&self) -> &Path {
        self.target.path()
    }

    /// What is called so in it.
    pub(super) fn join(&self, path: impl AsRef<Path>) -> Place {
        self.place.join(path)
    }

    /// Its logs, by the rules of readers.
    pub(super) fn list(&self) -> io::Result<Listing> {
        self.target.list()
    }

    /// To whom its files belong.
    pub(super) fn owner(&self) -> io::Result<Owner> {
        owner_of(&self.place)
    }

    /// To whom a new file in the directory of `place` is to belong.
    pub(super) fn owner_of_new(&self, place: &Place) -> io::Result<Owner> {
        let mode = self.owner()?.mode & 0o666 | 0o600;
        Ok(Owner::of(&place.parent().look()?).with_mode(mode))
    }
}

/// To whom a new directory is to belong.
pub(super) fn owner_of_new_directory(place: &Place) -> io::Result<Owner> {
    let above = Owner::of(&place.parent().look()?);
    Ok(above.with_mode(above.mode | 0o700))
}

/// To whom the files of the data directory `data` belong, and what its segments may be used for: as the newest segment, or
/// where there is none, of a checkpoint, or its directory.
pub(super) fn owner_of(data: &Place) -> io::Result<Owner> {
    let wal = data.join("wal");
    let entries = wal.list().unwrap_or_default();
    let checkpoints = entries.iter().rev().filter(|(name, kind)| {
        *kind == Kind::Directory && name.to_str().is_some_and(|name| name.starts_with("checkpoint."))
    });
    let mut logs = std::iter::once(wal.clone()).chain(checkpoints.map(|(name, _)| wal.join(name)));
    if let Some(newest) = logs.find_map(|log| newest_of(&log)) {
        return Ok(newest);
    }
    let directory = match wal.look() {
        Ok(wal) if wal.is_dir() => wal,
        _ => data.look()?,
    };
    let owner = Owner::of(&directory);
    Ok(owner.with_mode(owner.mode & USUAL | 0o600))
}

/// To whom the newest segment of a log belongs. One with other names as well may be anybody's.
fn newest_of(log: &Place) -> Option<Owner> {
    let entries = log.list().ok()?;
    let segments = entries.iter().filter(|(_, kind)| *kind == Kind::File);
    let (_, name) = segments.filter_map(|(name, _)| Some((segment_index(name.to_str()?)?, name))).max()?;
    let newest = log.join(name).look().ok()?;
    (newest.is_file() && newest.nlink() == 1).then(|| Owner::of(&newest))
}
