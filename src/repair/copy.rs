//! A copy of a data directory's logs, of whatever the disk still gives.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::backup::in_the_making;
use super::error::{At as _, RepairError};
use super::files::{Owner, rename_new, sync_directory};
use super::transaction::{Begun, absolute, is_left_alone};
use crate::tsdb::Target;
use crate::wal::PAGE;
use crate::wal::source::Window;

/// What is copied of a data directory, if it is there: the logs, and what belongs to the same head.
const PARTS: [&str; 3] = ["wal", "wbl", "chunks_head"];

/// Copies the logs of `from` into the new directory `to`, with owners, modes and times; their owner may write there. Bytes
/// that the disk does not give are zeros there.
///
/// # Errors
/// If `to` is there already, or is in what is copied; if a repair is not finished; or something cannot be read or written.
/// Then there is nothing by that name.
pub fn copy_logs(from: &Target, to: &Path) -> Result<(), RepairError> {
    if let Some(begun) = Begun::read(from.path())?.filter(Begun::may_have_changed) {
        return Err(RepairError::NotFinishedHere { backup: begun.backup().to_owned() });
    }
    let to = absolute(to).at("find", to)?;
    is_left_alone(from.path(), &to)?;
    if to.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", &to);
    }
    let partial = in_the_making(&to);
    fs::create_dir(&partial).at("create", &partial)?;
    let copied = copy_parts(from.path(), &partial).and_then(|()| rename_new(&partial, &to).at("create", &to));
    if copied.is_err() {
        // It was made here.
        let _ = fs::remove_dir_all(&partial);
    }
    copied
}

fn copy_parts(from: &Path, to: &Path) -> Result<(), RepairError> {
    for entry in fs::read_dir(from).at("list", from)? {
        let name = entry.at("list", from)?.file_name();
        let is_part =
            name.to_str().is_some_and(|name| PARTS.contains(&name) || name.starts_with("chunk_snapshot."));
        if is_part {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    let directory = File::open(to).at("open", to)?;
    give(&from.metadata().at("look at", from)?, &directory).at("set the owner of", to)?;
    sync_directory(to).at("write", to)
}

fn copy(from: &Path, to: &Path) -> Result<(), RepairError> {
    let metadata = from.metadata().at("look at", from)?;
    if metadata.is_dir() {
        fs::create_dir(to).at("create", to)?;
        for entry in fs::read_dir(from).at("list", from)? {
            let name = entry.at("list", from)?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if metadata.is_file() {
        let source = File::open(from).at("open", from)?;
        copy_bytes(source, metadata.len(), to).at("write", to)?;
    } else {
        // Nothing that Prometheus reads.
        return Ok(());
    }
    let copied = File::open(to).at("open", to)?;
    give(&metadata, &copied).at("set the owner of", to)?;
    copied.set_modified(metadata.modified().at("look at", from)?).at("set the time of", to)?;
    copied.sync_all().at("write", to)
}

/// Gives a copy the owner and the mode of what it was copied from. It is to be repaired, so its owner may write to it.
fn give(original: &Metadata, copied: &File) -> io::Result<()> {
    let owner = Owner::of(original);
    let write = if original.is_dir() { 0o700 } else { 0o600 };
    let mode = owner.mode.unwrap_or(0) | write;
    match (Owner { mode: Some(mode), ..owner }).give(copied) {
        // Who may not give files away keeps them.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            copied.set_permissions(Permissions::from_mode(mode))
        }
        given => given,
    }
}

/// Reads sector by sector where the disk fails.
fn copy_bytes(source: File, length: u64, to: &Path) -> io::Result<()> {
    let mut window = Window::new(source, length);
    let mut out = io::BufWriter::with_capacity(256 * 1024, File::create_new(to)?);
    let mut at = 0;
    while at < window.length() {
        out.write_all(window.page(at))?;
        at += PAGE;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
