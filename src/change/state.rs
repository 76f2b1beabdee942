//! How far a repair has come: which steps are done, and whether anybody else has changed the directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::backup::{Backup, ChangedFile};
use super::data::Data;
use super::files::{STAGED, Splice, checksum_of, checksum_tree};
use super::input;
use super::plan::{Change, Method, PlanStep};
use crate::io::beneath::Place;

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
pub(super) fn progress(backup: &Backup, data: &Place, change: &Change) -> io::Result<Progress> {
    let other = |what: &str| Ok(Progress::Other(what.to_owned()));
    let path = data.join(change.path());
    let is_there = |place: &Place| place.find().map(|found| found.is_some());
    match change {
        Change::Patch { .. } | Change::Rewrite { .. } | Change::RewriteIndex { .. } => {
            let path = now_at(backup, data, change.path());
            match path.open_file() {
                Ok(mut file) => progress_of(backup, change, &mut file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => other("it is gone"),
                Err(_) if path.is_there() && !path.is_file() => other("it is not a file any more"),
                Err(error) => Err(error),
            }
        }
        Change::Create { bytes, .. } => match path.read(bytes.len() as u64) {
            Ok(found) if found == *bytes => Ok(Progress::After),
            Ok(_) if is_to_be_set_aside(backup, data, change.path())? => Ok(Progress::Before),
            Ok(_) => other("it holds something else"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => not_there(backup, data, change.path()),
            // Longer than that, or no file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory
                ) =>
            {
                if is_to_be_set_aside(backup, data, change.path())? {
                    Ok(Progress::Before)
                } else {
                    other("it holds something else")
                }
            }
            Err(error) => Err(error),
        },
        Change::CreateDirectory { path: directory } => match path.list() {
            Ok(entries) => {
                // What later steps make in it, and what they have not given its name yet.
                let is_planned = |name: &str| {
                    let below = format!("{directory}/{name}");
                    backup.plan.steps.iter().any(|step| makes(&step.change, &below))
                };
                for (name, _) in entries {
                    let name = name.to_string_lossy();
                    if !is_planned(name.strip_suffix(STAGED).unwrap_or(&name)) {
                        return Ok(Progress::Other(format!("there is {name} in it")));
                    }
                }
                let (own, above) = (path.look()?, path.parent().look()?);
                let is_given = (own.uid(), own.gid()) == (above.uid(), above.gid());
                if is_given { Ok(Progress::After) } else { other("it belongs to somebody else") }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => not_there(backup, data, directory),
            Err(error) => Err(error),
        },
        Change::Rename { from, to } => match (is_there(&path)?, is_there(&data.join(to))?) {
            (true, false) => Ok(Progress::Before),
            (_, true) if is_to_be_set_aside(backup, data, to)? => Ok(Progress::Before),
            (false, true) => Ok(Progress::After),
            (true, true) => other("both names are there"),
            (false, false) if backup.plan.steps.iter().any(|step| makes(&step.change, from)) => {
                Ok(Progress::Before)
            }
            (false, false) => other("it is gone"),
        },
        Change::SetAside { path: below, .. } => {
            let is_aside = is_there(&backup.aside(below))?;
            if !is_there(&path)? {
                return if is_aside { Ok(Progress::After) } else { other("it is gone") };
            }
            let takes_its_place = |step: &PlanStep| makes(&step.change, below);
            match (is_as_set_aside(backup, data, below)?, is_aside) {
                (true, true) => Ok(Progress::Between),
                (true, false) => Ok(Progress::Before),
                (false, true) if backup.plan.steps.iter().any(takes_its_place) => Ok(Progress::After),
                (false, _) => other("it has been changed"),
            }
        }
    }
}

/// How far the bytes of a file have come that a step of the backup's plan changes.
pub(super) fn progress_of(backup: &Backup, change: &Change, file: &mut File) -> io::Result<Progress> {
    let other = |what: &str| Ok(Progress::Other(what.to_owned()));
    let Ok(changed) = backup.changed(change.path()) else {
        return other("the manifest does not have it");
    };
    // What is longer than either has been changed by somebody else, and may be endless.
    if file.metadata()?.len() > changed.before.bytes.max(changed.after.bytes) {
        return other("its bytes are neither the old nor the new ones");
    }
    let (checksum, bytes) = checksum_of(file, &[])?;
    if (bytes, &checksum) == (changed.after.bytes, &changed.after.checksum) {
        return Ok(Progress::After);
    }
    if (bytes, &checksum) == (changed.before.bytes, &changed.before.checksum) {
        return Ok(Progress::Before);
    }
    if is_between(backup, change, changed, file, bytes)? {
        return Ok(Progress::Between);
    }
    other("its bytes are neither the old nor the new ones")
}

/// Whether there is something by the name `path` after a change that was not there before.
fn makes(change: &Change, path: &str) -> bool {
    match change {
        Change::Create { path: made, .. } | Change::CreateDirectory { path: made } => made == path,
        Change::Rename { to, .. } => to == path,
        Change::Patch { .. }
        | Change::Rewrite { .. }
        | Change::RewriteIndex { .. }
        | Change::SetAside { .. } => false,
    }
}

/// How far something has come that the plan makes, and that is not there: not made yet, or given its true name since.
fn not_there(backup: &Backup, data: &Place, path: &str) -> io::Result<Progress> {
    Ok(if is_renamed(backup, data, path)? { Progress::After } else { Progress::Before })
}

/// Whether what is at `path` is what the plan sets aside.
fn is_as_set_aside(backup: &Backup, data: &Place, path: &str) -> io::Result<bool> {
    Ok(backup.checksum_of_aside(path) == Some(checksum_tree(&data.join(path))?.0.as_str()))
}

/// Whether what is at `path` makes room yet for what the plan puts there.
fn is_to_be_set_aside(backup: &Backup, data: &Place, path: &str) -> io::Result<bool> {
    Ok(backup.checksum_of_aside(path).is_some() && is_as_set_aside(backup, data, path)?)
}

/// Whether a later step of the plan has given `path`, or a directory above it, another name.
fn is_renamed(backup: &Backup, data: &Place, path: &str) -> io::Result<bool> {
    for step in &backup.plan.steps {
        if let Change::Rename { from, to } = &step.change
            && is_at_or_below(path, from)
            && !data.join(from).is_there()
            && data.join(format!("{to}{}", &path[from.len()..])).is_there()
        {
            // What is by that name may be what makes room for it yet.
            return Ok(!is_to_be_set_aside(backup, data, to)?);
        }
    }
    Ok(false)
}

/// Where a file is by now whose bytes the plan changes: a later step may have given it, or a directory above it, another
/// name.
pub(super) fn now_at(backup: &Backup, data: &Place, path: &str) -> Place {
    let mut name = path.to_owned();
    for step in &backup.plan.steps {
        if let Change::Rename { from, to } = &step.change
            && is_at_or_below(&name, from)
            && !data.join(&name).is_there()
        {
            name = format!("{to}{}", &name[from.len()..]);
        }
    }
    data.join(name)
}

/// Whether a path is another, or below it.
pub(crate) fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the file is the old one but for the bytes that are replaced. What is in their place may be anything: a power cut
/// leaves new bytes, old ones, or neither. All that is not in the backup is as it was.
fn is_between(
    backup: &Backup,
    change: &Change,
    changed: &ChangedFile,
    file: &mut File,
    bytes: u64,
) -> io::Result<bool> {
    let Change::Patch { method: Method::InPlace, .. } = change else { return Ok(false) };
    let (before, after) = (changed.before.bytes, changed.after.bytes);
    if !(before.min(after)..=before.max(after)).contains(&bytes) {
        return Ok(false);
    }
    let undone: Vec<Splice> = backup
        .splices(change)
        .into_iter()
        .map(|(splice, old)| {
            let longest = splice.with.count().max(old.count());
            let replaces = longest.min(bytes.saturating_sub(splice.offset));
            Splice { offset: splice.offset, replaces, with: old }
        })
        .collect();
    let (checksum, _) = checksum_of(file, &undone)?;
    Ok(checksum == changed.before.checksum)
}

/// What shows that somebody else has been at work since the plan was made; `None` if nothing does. Prometheus begins a
/// new segment at each start (`tsdb/wlog/wlog.go`, `NewSize`).
///
/// Files are known again by size and time: the numbers of devices change with every mount, and those of inodes when a
/// directory is moved to another disk with its backup.
pub(super) fn intruder(backup: &Backup, data: &Data) -> io::Result<Option<String>> {
    let plan = &backup.plan;
    let inputs: BTreeSet<&str> = plan.inputs.iter().map(|input| input.path.as_str()).collect();
    let touched: Vec<&str> = plan.steps.iter().flat_map(|step| step.change.paths()).collect();
    let is_touched = |path: &str| touched.iter().any(|touched| is_at_or_below(path, touched));
    let listing = data.list()?;
    for log in &listing.logs {
        for segment in &log.segments {
            let path = log.relative_of(segment);
            if !inputs.contains(path.as_str()) && !is_touched(&path) {
                return Ok(Some(format!("{path} has appeared")));
            }
        }
    }
    for input in plan.inputs.iter().filter(|input| !is_touched(&input.path)) {
        let metadata = match data.join(&input.path).look() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(format!("{} has gone", input.path)));
            }
            Err(error) => return Err(error),
        };
        if (metadata.len(), input::modified(&metadata)) != (input.bytes, input.modified) {
            return Ok(Some(format!("{} has been written to", input.path)));
        }
    }
    Ok(None)
}
