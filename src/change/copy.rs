//! A copy of a data directory's logs, of whatever the disk still gives.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::backup::{absolute, is_left_alone};
use super::backup::{in_the_making, place};
use super::error::{At as _, RepairError};
use super::files::{Owner, rename_new, sync_directory};
use super::marker::Marker;
use crate::io::beneath::{Kind, Place, not_too_deep};
use crate::tsdb::Target;
use crate::wal::PAGE;
use crate::wal::source::Window;

/// What is copied of a data directory, if it is there: the logs, and what belongs to the same head.
const PARTS: [&str; 3] = ["wal", "wbl", "chunks_head"];

/// Copies the logs of `from` into the new directory `to`, with owners, modes and times; their owner may write there. Bytes
/// that the disk does not give are zeros there. What is not copied, as it is neither a file nor a directory: the WAL itself
/// may be a link, as where it has a disk of its own, and no other link is followed.
///
/// # Errors
/// If `to` is there already, or is in what is copied; if a repair is not finished; or something cannot be read or written.
/// Then there is nothing by that name.
pub fn copy_logs(from: &Target, to: &Path) -> Result<Vec<PathBuf>, RepairError> {
    let data = Place::open(from.path()).at("open", from.path())?;
    if let Some(marker) = Marker::read(&data)?.filter(Marker::may_have_changed) {
        return Err(RepairError::NotFinishedHere { backup: marker.backup().to_owned() });
    }
    let path = absolute(to).at("find", to)?;
    is_left_alone(&data, &path)?;
    let to = place(&data, &path).at("find", &path)?;
    if to.find().at("look at", &to)?.is_some() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", &to);
    }
    let partial = in_the_making(&to);
    let directory = partial.create_directory(0o700).at("create", &partial)?;
    let mut left_out = Vec::new();
    let copied = copy_parts(&data, &partial, &directory, &mut left_out)
        .and_then(|()| rename_new(&partial, &to).at("create", &to));
    if copied.is_err() {
        // It was made here.
        let _ = partial.remove_any();
    }
    copied.map(|()| left_out)
}

fn copy_parts(
    from: &Place,
    to: &Place,
    directory: &File,
    left_out: &mut Vec<PathBuf>,
) -> Result<(), RepairError> {
    for (name, kind) in from.list().at("list", from)? {
        let is_part =
            name.to_str().is_some_and(|name| PARTS.contains(&name) || name.starts_with("chunk_snapshot."));
        if !is_part {
            continue;
        }
        let part = from.join(&name);
        if kind == Kind::Link && name == "wal" {
            let wal = Place::open(&part.full()).at("open", &part)?;
            copy(&wal, &to.join(&name), 0, left_out)?;
        } else {
            copy(&part, &to.join(&name), 0, left_out)?;
        }
    }
    give(&from.look().at("look at", from)?, directory).at("set the owner of", to)?;
    sync_directory(to).at("write", to)
}

fn copy(from: &Place, to: &Place, depth: usize, left_out: &mut Vec<PathBuf>) -> Result<(), RepairError> {
    let found = from.look().at("look at", from)?;
    if found.is_dir() {
        not_too_deep(depth).at("copy", from)?;
        let metadata = from.open_directory().and_then(|it| it.metadata()).at("open", from)?;
        let directory = to.create_directory(0o700).at("create", to)?;
        for (name, _) in from.list().at("list", from)? {
            copy(&from.join(&name), &to.join(&name), depth + 1, left_out)?;
        }
        give(&metadata, &directory).at("set the owner of", to)?;
        directory.set_modified(metadata.modified().at("look at", from)?).at("set the time of", to)?;
        return directory.sync_all().at("write", to);
    }
    if !found.is_file() {
        left_out.push(from.shown());
        return Ok(());
    }
    let source = from.open_file().at("open", from)?;
    let metadata = source.metadata().at("look at", from)?;
    let copied = copy_bytes(source, &metadata, to).at("write", to)?;
    give(&metadata, &copied).at("set the owner of", to)?;
    copied.set_modified(metadata.modified().at("look at", from)?).at("set the time of", to)?;
    copied.sync_all().at("write", to)
}

/// Gives a copy the owner and the mode of what it was copied from. It is to be repaired, so its owner may write to it.
fn give(original: &Metadata, copied: &File) -> io::Result<()> {
    // Who may not give files away keeps them.
    owner_of_copy(original).give_if_allowed(copied)
}

fn owner_of_copy(original: &Metadata) -> Owner {
    let owner = Owner::of(original);
    owner.with_mode(owner.mode | if original.is_dir() { 0o700 } else { 0o600 })
}

/// Reads sector by sector where the disk fails.
fn copy_bytes(source: File, metadata: &Metadata, to: &Place) -> io::Result<File> {
    let mut window = Window::new(source, metadata.len());
    let file = to.create_file(owner_of_copy(metadata).at_first())?;
    let mut out = io::BufWriter::with_capacity(256 * 1024, file);
    let mut at = 0;
    while at < window.length() {
        out.write_all(window.page(at))?;
        at += PAGE;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)
}
