//! What can be known to go wrong before anything is changed.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::data::Data;
use super::error::{At as _, RepairError};
use super::files::{Owner, create_staged, staged};
use super::plan::{Change, Method, Plan};
use crate::io::beneath::Place;

/// What files and directories of the repair's own may take: descriptions, and the names themselves.
const OVERHEAD: u64 = 64 * 1024;
/// A block of a file system, to which files are rounded up.
const BLOCK: u64 = 4096;
/// What the marker and the names in a data directory may take.
const OWN: u64 = 4 * BLOCK;

/// Whether every file can be written that `plan` changes in `data`, and there is room for that and for the backup.
pub(super) fn check(data: &Data, plan: &Plan, backup: &Place) -> Result<(), RepairError> {
    for step in &plan.steps {
        let place = data.join(step.change.path());
        match &step.change {
            Change::Patch { method, .. } => {
                writable(&place, *method == Method::Replace).at("write to", &place)?;
            }
            Change::Rewrite { .. } | Change::RewriteIndex { .. } => {
                writable(&place, true).at("write to", &place)?;
            }
            Change::SetAside { .. } | Change::Rename { .. } => {
                place.parent().names_can_change().at("rename", &place)?;
            }
            Change::Create { .. } | Change::CreateDirectory { .. } => {}
        }
    }
    room(data.place(), plan, backup)
}

/// A file that can be opened for writing can be written, but for errors of the disk.
fn writable(place: &Place, is_replaced: bool) -> io::Result<()> {
    if is_replaced {
        place.parent().names_can_change()?;
    }
    place.open_to_write().map(drop)
}

/// Makes a file in each directory in which the plan makes some, gives it to the owner that they will have, and removes it.
pub(super) fn probe(data: &Data, plan: &Plan) -> io::Result<()> {
    let mut probed: Vec<PathBuf> = Vec::new();
    for step in &plan.steps {
        let place = data.join(step.change.path());
        let owner = match &step.change {
            Change::Patch { method: Method::Replace, .. }
            | Change::Rewrite { .. }
            | Change::RewriteIndex { .. } => Owner::of(&place.look()?),
            Change::Create { .. } if place.parent().is_directory() => data.owner_of_new(&place)?,
            _ => continue,
        };
        if probed.iter().any(|known| known == place.parent().below()) {
            continue;
        }
        probed.push(place.parent().below().to_owned());
        let staged = staged(&place);
        let file = create_staged(&staged, owner)?;
        let given = owner.give(&file);
        staged.remove_file()?;
        given?;
    }
    Ok(())
}

fn room(data: &Place, plan: &Plan, backup: &Place) -> Result<(), RepairError> {
    let device = |place: &Place| place.look().map(|metadata| metadata.dev()).at("look at", place);
    let backup_is_in = &backup.parent();
    let backup_device = device(backup_is_in)?;
    // Of each file system: a directory on it, and the bytes that it has to take.
    let mut needs: BTreeMap<u64, (Place, u64)> = BTreeMap::new();
    let mut largest_copy: BTreeMap<u64, (Place, u64)> = BTreeMap::new();
    let mut need = |device: u64, place: &Place, bytes: u64| {
        let (_, needed) = needs.entry(device).or_insert_with(|| (place.clone(), 0));
        *needed = needed.saturating_add(bytes);
    };
    let described = serde_json::to_vec(plan).map_or(0, |text| text.len() as u64);
    need(backup_device, backup_is_in, described.saturating_mul(4).saturating_add(OVERHEAD));
    let data_device = device(data)?;
    need(data_device, data, OWN);
    for step in &plan.steps {
        let path = data.join(step.change.path());
        let mut directory = path.parent();
        while !directory.is_directory() && directory != *data {
            directory = directory.parent();
        }
        let there = device(&directory)?;
        let replaced = step.change.replaced_bytes().next_multiple_of(BLOCK);
        match &step.change {
            Change::Patch { method, patches, .. } => {
                need(backup_device, backup_is_in, replaced);
                let size = path.look().at("look at", &path)?.len();
                let grows = patches.iter().map(|patch| patch.with.bytes().len() as u64).sum::<u64>();
                let copy = if *method == Method::Replace { size } else { 0 };
                let copy = copy.saturating_add(grows.saturating_sub(step.change.replaced_bytes()));
                let (_, largest) = largest_copy.entry(there).or_insert_with(|| (directory.clone(), 0));
                *largest = (*largest).max(copy.next_multiple_of(BLOCK));
            }
            Change::Rewrite { .. } | Change::RewriteIndex { .. } => {
                need(backup_device, backup_is_in, replaced);
                let staged = step.change.staged().map_or(0, |staged| staged.bytes);
                need(there, &directory, staged.next_multiple_of(BLOCK));
            }
            Change::Create { bytes, .. } => {
                need(there, &directory, (bytes.len() as u64).next_multiple_of(BLOCK));
            }
            Change::CreateDirectory { .. } => need(there, &directory, BLOCK),
            Change::SetAside { .. } if there != backup_device => {
                need(backup_device, backup_is_in, replaced);
            }
            Change::Rename { .. } | Change::SetAside { .. } => {}
        }
    }
    for (device, (place, bytes)) in largest_copy {
        need(device, &place, bytes);
    }
    // Where all is done in place, an empty marker is enough.
    if data_device != backup_device && needs.get(&data_device).is_some_and(|(_, needed)| *needed == OWN) {
        needs.remove(&data_device);
    }
    for (place, needed) in needs.into_values() {
        let about = place.file_system().at("look at", &place)?;
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        // Some file systems do not say how large they are.
        if about.f_blocks > 0 && free < needed {
            return Err(RepairError::NoSpace { path: place.shown(), free, needed });
        }
    }
    Ok(())
}
