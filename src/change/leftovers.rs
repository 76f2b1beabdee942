//! What a repair or an undo leaves that was killed while it wrote a file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::data::Data;
use super::files::{STAGED, set_modified_directory, sync_directory};
use super::input;
use super::marker_name::MARKER;
use super::plan::{Change, Plan};

use crate::io::beneath::{Kind, Place};
use crate::tsdb::liveness::LOCK;
use crate::tsdb::losses::is_record;
use crate::tsdb::{CHUNKS_HEAD, is_in_block};
use crate::wal::segments::segment_index;

/// Names that what `plan` sets aside has in the data directory while it goes, or comes back: files and directories alike.
pub(super) fn of_plan(plan: &Plan) -> BTreeSet<PathBuf> {
    let changes = plan.steps.iter().map(|step| &step.change);
    let staged = changes.filter(|change| {
        match change {
            Change::SetAside { .. }
            | Change::CreateDirectory { .. }
            | Change::Rewrite { .. }
            | Change::RewriteIndex { .. } => true,
            // Those of logs are known by their names.
            Change::Patch { path, .. } | Change::Create { path, .. } => is_in_block(path),
            Change::Rename { .. } => false,
        }
    });
    staged.map(|change| PathBuf::from(format!("{}{STAGED}", change.path()))).collect()
}

/// Removes what was never given its name: `known`, and files that are called as we call them. Others may be somebody's
/// own, whatever their names end in.
pub(super) fn remove(data: &Data, known: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut directories: BTreeSet<PathBuf> = ["", "wal", "wbl", CHUNKS_HEAD].map(PathBuf::from).into();
    directories.extend(data.list()?.logs.iter().map(|log| PathBuf::from(&log.relative)));
    for (name, kind) in data.place().list()? {
        if kind == Kind::Directory && name.to_str().is_some_and(is_in_block) {
            directories.insert(Path::new(&name).join("chunks"));
            directories.insert(name.into());
        }
    }
    directories.extend(known.iter().map(|path| path.parent().unwrap_or(Path::new("")).to_owned()));
    directories.iter().try_for_each(|directory| remove_in(&data.join(directory), known))
}

/// As [`remove`], in one directory. What is a link, or is below one, is left.
pub(super) fn remove_in(directory: &Place, known: &BTreeSet<PathBuf>) -> io::Result<()> {
    if directory.link_on_the_way().is_some() || !directory.is_directory() {
        return Ok(());
    }
    let modified = input::modified(&directory.look()?);
    let mut removed = false;
    for (name, kind) in directory.list()? {
        let place = directory.join(&name);
        let is_of_block = || directory.below().to_str().is_some_and(is_in_block) && is_ours_of_block(&name);
        if known.contains(place.below()) || (kind == Kind::File && (is_ours(&name) || is_of_block())) {
            place.remove_any()?;
            removed = true;
        }
    }
    if removed {
        set_modified_directory(directory, modified)?;
        sync_directory(directory)?;
    }
    Ok(())
}

/// Whether a file is called like one of a block before it gets its name. Those of chunks are called like segments.
fn is_ours_of_block(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_suffix(STAGED));
    stem.is_some_and(|stem| ["index", "meta.json", "tombstones"].contains(&stem))
}

/// Whether a file is called like a segment, the lock or the file of an unfinished repair before they get their names.
fn is_ours(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_suffix(STAGED));
    stem.is_some_and(|stem| {
        // Prometheus calls a segment so that it repairs (`WL.Repair`, `tsdb/wlog/wlog.go`).
        let segment = stem.strip_suffix(".repair").unwrap_or(stem);
        [LOCK, MARKER].contains(&stem) || segment_index(segment).is_some() || is_record(stem)
    })
}
