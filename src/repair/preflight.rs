//! What can be known to go wrong before anything is changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{At as _, RepairError};
use super::files::{Owner, directory_of, staged};
use super::plan::{Change, Method, Plan};
use super::series;

/// What files and directories of the repair's own may take: descriptions, and the names themselves.
const OVERHEAD: u64 = 64 * 1024;
/// A block of a file system, to which files are rounded up.
const BLOCK: u64 = 4096;

/// Whether every file can be written that `plan` changes below `data`, and there is room for that and for the backup.
pub(super) fn check(data: &Path, plan: &Plan, backup: &Path) -> Result<(), RepairError> {
    for step in &plan.steps {
        let path = data.join(step.change.path());
        match &step.change {
            Change::Patch { method, .. } => {
                writable(&path, *method == Method::Replace).at("write to", &path)?;
            }
            Change::Rewrite { .. } => writable(&path, true).at("write to", &path)?,
            Change::SetAside { .. } | Change::Rename { .. } => {
                names_can_change(directory_of(&path)).at("rename", &path)?;
            }
            Change::Create { .. } | Change::CreateDirectory { .. } => {}
        }
    }
    room(data, plan, backup)
}

/// A file that can be opened for writing can be written, but for errors of the disk.
fn writable(path: &Path, is_replaced: bool) -> io::Result<()> {
    if is_replaced {
        names_can_change(directory_of(path))?;
        if path.symlink_metadata()?.is_symlink() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it is a symbolic link"));
        }
    }
    File::options().write(true).open(path).map(drop)
}

fn names_can_change(directory: &Path) -> io::Result<()> {
    use rustix::fs::Access;
    Ok(rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// Makes a file in each directory in which the plan makes some, gives it to the owner that they will have, and removes it.
pub(super) fn probe(data: &Path, plan: &Plan) -> io::Result<()> {
    let mut probed: Vec<PathBuf> = Vec::new();
    for step in &plan.steps {
        let path = data.join(step.change.path());
        let owner = match &step.change {
            Change::Patch { method: Method::Replace, .. } | Change::Rewrite { .. } => {
                Owner::of(&path.metadata()?)
            }
            Change::Create { .. } if directory_of(&path).is_dir() => Owner::of_new(&path)?,
            _ => continue,
        };
        if probed.iter().any(|known| known == directory_of(&path)) {
            continue;
        }
        probed.push(directory_of(&path).to_owned());
        let staged = staged(&path);
        let file = File::create(&staged)?;
        let given = owner.give(&file);
        std::fs::remove_file(&staged)?;
        given?;
    }
    Ok(())
}

fn room(data: &Path, plan: &Plan, backup: &Path) -> Result<(), RepairError> {
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).at("look at", path);
    let backup_is_in = directory_of(backup);
    let backup_device = device(backup_is_in)?;
    // Of each file system: a directory on it, and the bytes that it has to take.
    let mut needs: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
    let mut largest_copy: BTreeMap<u64, u64> = BTreeMap::new();
    let mut need = |device: u64, path, bytes: u64| {
        let (_, needed) = needs.entry(device).or_insert((path, 0));
        *needed = needed.saturating_add(bytes);
    };
    let described = serde_json::to_vec(plan).map_or(0, |text| text.len() as u64);
    need(backup_device, backup_is_in, described.saturating_mul(4).saturating_add(OVERHEAD));
    need(device(data)?, data, 4 * BLOCK);
    for step in &plan.steps {
        let path = data.join(step.change.path());
        let directory = path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(data);
        let there = device(directory)?;
        let replaced = step.change.replaced_bytes().next_multiple_of(BLOCK);
        match &step.change {
            Change::Patch { method, patches, .. } => {
                need(backup_device, backup_is_in, replaced);
                let size = path.metadata().at("look at", &path)?.len();
                let grows = patches.iter().map(|patch| patch.with.bytes().len() as u64).sum::<u64>();
                let copy = if *method == Method::Replace { size } else { 0 };
                let copy = copy.saturating_add(grows.saturating_sub(step.change.replaced_bytes()));
                let largest = largest_copy.entry(there).or_default();
                *largest = (*largest).max(copy.next_multiple_of(BLOCK));
            }
            Change::Rewrite { .. } => {
                need(backup_device, backup_is_in, replaced);
                let largest = largest_copy.entry(there).or_default();
                let source = data.join(step.change.source()).metadata().map_or(0, |metadata| metadata.len());
                let begins_with = series::bytes(step.change.begins_with());
                *largest = (*largest).max(replaced.max(source).saturating_add(begins_with));
            }
            Change::Create { bytes, .. } => {
                need(there, data, (bytes.len() as u64).next_multiple_of(BLOCK));
            }
            Change::CreateDirectory { .. } => need(there, data, BLOCK),
            Change::SetAside { .. } if there != backup_device => {
                need(backup_device, backup_is_in, replaced);
            }
            Change::Rename { .. } | Change::SetAside { .. } => {}
        }
    }
    for (device, bytes) in largest_copy {
        need(device, data, bytes);
    }
    for (path, needed) in needs.into_values() {
        let about = rustix::fs::statvfs(path).map_err(io::Error::from).at("look at", path)?;
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        // Some file systems do not say how large they are.
        if about.f_blocks > 0 && free < needed {
            return Err(RepairError::NoSpace { path: path.to_owned(), free, needed });
        }
    }
    Ok(())
}
