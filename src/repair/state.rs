//! Where a repair stands: of each step, whether it has been done; and whether anybody else has been here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use super::backup::{Backup, Changed};
use super::files::{Splice, checksum_spliced};
use super::input;
use super::plan::{Change, Method};
use crate::tsdb::Target;

/// How far a step has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing has been changed.
    Before,
    /// Some of the bytes have been written.
    Between,
    /// It is done.
    After,
    /// Neither: somebody else has changed it. What shows it.
    Other(String),
}

/// How far a step of the backup's plan has come below `data`.
pub(super) fn progress(backup: &Backup, data: &Path, change: &Change) -> io::Result<Progress> {
    let other = |what: &str| Ok(Progress::Other(what.to_owned()));
    let path = data.join(change.path());
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    match change {
        Change::Patch { .. } | Change::Rewrite { .. } => {
            let Ok(changed) = backup.changed(change.path()) else {
                return other("the manifest does not have it");
            };
            if !is_there(&path) {
                return other("it is gone");
            }
            let (checksum, bytes) = checksum_spliced(&path, &[])?;
            if (bytes, &checksum) == (changed.before.bytes, &changed.before.checksum) {
                return Ok(Progress::Before);
            }
            if (bytes, &checksum) == (changed.after.bytes, &changed.after.checksum) {
                return Ok(Progress::After);
            }
            if is_between(backup, change, changed, &path, bytes)? {
                return Ok(Progress::Between);
            }
            other("its bytes are neither the old nor the new ones")
        }
        Change::Create { bytes, .. } => match fs::read(&path) {
            Ok(found) if found == *bytes => Ok(Progress::After),
            Ok(_) => other("it holds something else"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Progress::Before),
            Err(error) => Err(error),
        },
        Change::CreateDirectory { .. } => match fs::read_dir(&path).map(Iterator::count) {
            Ok(0) => Ok(Progress::After),
            Ok(_) => other("there is something in it"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Progress::Before),
            Err(error) => Err(error),
        },
        Change::Rename { to, .. } => match (is_there(&path), is_there(&data.join(to))) {
            (true, false) => Ok(Progress::Before),
            (false, true) => Ok(Progress::After),
            (true, true) => other("both names are there"),
            (false, false) => other("it is gone"),
        },
        Change::SetAside { .. } => match (is_there(&path), is_there(&backup.aside(change.path()))) {
            (true, false) => Ok(Progress::Before),
            (true, true) => Ok(Progress::Between),
            (false, true) => Ok(Progress::After),
            (false, false) => other("it is gone"),
        },
    }
}

/// Whether the file is the old one with some of the new bytes.
fn is_between(
    backup: &Backup,
    change: &Change,
    changed: &Changed,
    path: &Path,
    bytes: u64,
) -> io::Result<bool> {
    let Change::Patch { method: Method::InPlace, .. } = change else { return Ok(false) };
    let (low, high) =
        (changed.before.bytes.min(changed.after.bytes), changed.before.bytes.max(changed.after.bytes));
    if bytes < low || bytes > high {
        return Ok(false);
    }
    let file = File::open(path)?;
    let mut undone = Vec::new();
    for (splice, old) in backup.splices(change)? {
        let longest = splice.with.len().max(old.len()) as u64;
        let there = longest.min(bytes.saturating_sub(splice.offset));
        let mut found = vec![0; usize::try_from(there).unwrap_or(0)];
        file.read_exact_at(&mut found, splice.offset)?;
        // Where the file grows, bytes that have not been written yet are zeros.
        let grows_from = splice.with.len().min(old.len());
        let is_either = |(at, byte): (usize, &u8)| {
            splice.with.get(at) == Some(byte) || old.get(at) == Some(byte) || *byte == 0 && at >= grows_from
        };
        if !found.iter().enumerate().all(is_either) {
            return Ok(false);
        }
        undone.push(Splice { offset: splice.offset, replaces: there, with: old });
    }
    let (checksum, _) = checksum_spliced(path, &undone)?;
    Ok(checksum == changed.before.checksum)
}

/// What shows that somebody else has been at work since the plan was made; `None` if nothing does. Prometheus begins a
/// new segment at each start (`tsdb/wlog/wlog.go`, `NewSize`).
pub(super) fn intruder(backup: &Backup, data: &Target) -> io::Result<Option<String>> {
    let plan = &backup.plan;
    let mut known: BTreeSet<&str> = plan.inputs.iter().map(|input| input.path.as_str()).collect();
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    for step in &plan.steps {
        touched.insert(step.change.path());
        known.insert(step.change.path());
        if let Change::Rename { to, .. } = &step.change {
            known.insert(to);
        }
    }
    let listing = data.list()?;
    for log in &listing.logs {
        for segment in &log.segments {
            let path = log.relative_of(segment);
            if !known.contains(path.as_str()) {
                return Ok(Some(format!("{path} has appeared since")));
            }
        }
    }
    let is_touched = |path: &str| {
        touched.iter().any(|touched| path == *touched || path.starts_with(&format!("{touched}/")))
    };
    for input in plan.inputs.iter().filter(|input| !is_touched(&input.path)) {
        let Ok(metadata) = data.path().join(&input.path).metadata() else {
            return Ok(Some(format!("{} is gone", input.path)));
        };
        if (metadata.len(), input::modified(&metadata)) != (input.bytes, input.modified) {
            return Ok(Some(format!("{} has been written to since", input.path)));
        }
        if (metadata.dev(), metadata.ino()) != (input.device, input.inode) {
            return Ok(Some(format!("{} is another file now", input.path)));
        }
    }
    Ok(None)
}
