//! A plan, executed so that it can be taken up again after any interruption.
//!
//! The old bytes are safe before the first new one is written. A file in the data directory says where they are, until all
//! is done: whoever comes next finishes the repair, or rolls it back. Each step is found to be done or not by looking at the
//! files, so no log of steps is needed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backup::{self, Backup, Changed, Directory};
use super::error::{At as _, RepairError};
use super::files::{
    self, Owner, Splice, copy_spliced, copy_whole, create_directories, remove_any, rename_new, replace,
    set_modified, set_modified_directory, splice_in_place, staged, sync_directory, sync_directory_of,
};
use super::lock::Lock;
use super::plan::{Change, Method, Plan};
use super::segment::rewrite;
use super::state::{Progress, intruder, progress};
use super::{Options, input, leftovers, preflight};
use crate::forecast::Assumed;
use crate::tsdb::Target;

/// In the data directory as long as a repair is not finished.
pub(super) const UNFINISHED: &str = "walfix-repair.json";

/// A repair that has been begun, as its file says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    stage: Stage,
    /// Where its backup is, or will be. Relative to the data directory if it is in it.
    backup: PathBuf,
    /// The directories in which it works, as they were.
    directories: Vec<Directory>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// The old bytes are being kept; nothing has been changed.
    Backup,
    /// The backup is whole.
    Change,
}

impl Begun {
    /// What the file in the data directory says, if there is one.
    pub(super) fn read(data: &Path) -> Result<Option<Self>, RepairError> {
        let path = data.join(UNFINISHED);
        match fs::read(&path) {
            Ok(text) => {
                let mut begun: Self =
                    serde_json::from_slice(&text).map_err(io::Error::from).at("read", &path)?;
                begun.backup = data.join(begun.backup);
                Ok(Some(begun))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    fn write(&self, data: &Path) -> Result<(), RepairError> {
        let path = data.join(UNFINISHED);
        let full = data.canonicalize().at("find", data)?;
        let backup = self.backup.strip_prefix(full).unwrap_or(&self.backup).to_owned();
        let text = serde_json::to_vec(&Self { backup, ..self.clone() });
        let text = text.map_err(io::Error::from).at("write", &path)?;
        replace(&path, None, |out| out.write_all(&text)).at("write", &path)
    }

    /// Whether it has come so far that something may have been changed.
    pub(super) fn may_have_changed(&self) -> bool {
        self.stage == Stage::Change
    }

    /// Where its backup is.
    pub(super) fn backup(&self) -> &Path {
        &self.backup
    }
}

/// An unfinished repair that was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing has been changed yet: its backup is not whole.
    NotBegun {
        /// Where its backup would be.
        backup: PathBuf,
    },
    /// Nobody has been here since: it can be finished.
    Unfinished(Box<Backup>),
    /// Somebody has, so it cannot; and what shows it.
    Overtaken {
        /// Where its backup is.
        backup: PathBuf,
        /// What has changed.
        what: String,
    },
}

/// What became of earlier repairs that were interrupted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed {
    /// The backup of the repair that was finished.
    pub finished: Option<PathBuf>,
    /// The backup of a repair that could not be finished, as somebody has changed something since: what.
    pub given_up: Option<(PathBuf, String)>,
    /// Backups that were removed, as they had never become whole: nothing had been changed.
    pub removed: Vec<PathBuf>,
}

/// The repair that was interrupted in the data directory, if there is one.
///
/// # Errors
/// If files cannot be read.
pub fn unfinished(data: &Target) -> Result<Option<Found>, RepairError> {
    let Some(begun) = Begun::read(data.path())? else { return Ok(None) };
    let backup = begun.backup;
    let overtaken = |what: String| Ok(Some(Found::Overtaken { backup: backup.clone(), what }));
    if begun.stage == Stage::Backup && backup.symlink_metadata().is_err() {
        return Ok(Some(Found::NotBegun { backup }));
    }
    // Not mounted, perhaps: what has been changed cannot be told without it, nor be put back.
    if let Err(source) = fs::read_dir(&backup) {
        return Err(RepairError::NoBackup { backup, marker: data.path().join(UNFINISHED), source });
    }
    let opened = match Backup::open(&backup) {
        Ok(opened) => opened,
        Err(error) => return overtaken(error.to_string()),
    };
    if let Some(what) = intruder(&opened, data).at("look at", data.path())? {
        return overtaken(what);
    }
    for step in &opened.plan.steps {
        let path = step.change.path();
        if let Progress::Other(what) =
            progress(&opened, data.path(), &step.change).at("read", &data.path().join(path))?
        {
            return overtaken(format!("{path}: {what}"));
        }
    }
    Ok(Some(Found::Unfinished(Box::new(opened))))
}

/// Finishes the repair that was interrupted, or gives it up, and removes what it left behind.
pub(super) fn resume(data: &Target, asked: Options) -> Result<Resumed, RepairError> {
    let mut resumed = Resumed::default();
    match unfinished(data)? {
        None => leftovers::remove(data, &BTreeSet::new()).at("clean up", data.path())?,
        Some(Found::NotBegun { .. }) => {
            if let Some(begun) = Begun::read(data.path())? {
                resumed.removed.extend(take_back(data, &begun)?);
            }
        }
        Some(Found::Unfinished(backup)) => {
            let plan = &backup.plan;
            let begun = Options {
                mode: plan.mode,
                assumed: Assumed { version: plan.prometheus, agent: plan.agent },
                corrections: plan.corrections,
            };
            if begun != asked {
                return Err(RepairError::BegunOtherwise { begun, backup: backup.path });
            }
            finish(data, &backup)?;
            resumed.finished = Some(backup.path);
        }
        Some(Found::Overtaken { backup, what }) => {
            forget(data, None)?;
            resumed.given_up = Some((backup, what));
        }
    }
    for path in backup::never_finished(data.path()).at("list", data.path())? {
        if backup::remove_unfinished(&path).at("remove", &path)? {
            resumed.removed.push(path);
        }
    }
    Ok(resumed)
}

/// Executes `plan`; the old bytes are kept in `backup`, which is not there yet.
pub(super) fn apply(data: &Target, plan: &Plan, backup: &Path, lock: &Lock) -> Result<Backup, RepairError> {
    unchanged(data.path(), plan)?;
    let backup = absolute(backup).at("find", backup)?;
    is_left_alone(data.path(), &backup)?;
    if backup.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", &backup);
    }
    let partial = backup::in_the_making(&backup);
    backup::remove_unfinished(&partial).at("remove", &partial)?;
    preflight::check(data.path(), plan, &backup)?;
    let directories = backup::directories(data.path(), plan).at("look at", data.path())?;
    let begun = Begun { stage: Stage::Backup, backup, directories };
    let kept = keep(data, plan, &begun, lock).map_err(|error| {
        // What cannot be removed now, the next repair removes.
        let _ = fs::remove_dir_all(&begun.backup);
        let _ = take_back(data, &begun);
        RepairError::NotBegun(Box::new(error))
    })?;
    finish(data, &kept)?;
    Ok(kept)
}

/// The path with its directory's true name.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let directory = files::directory_of(path).canonicalize()?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(directory.join(name))
}

/// All that comes before the first change.
fn keep(data: &Target, plan: &Plan, begun: &Begun, lock: &Lock) -> Result<Backup, RepairError> {
    begun.write(data.path())?;
    preflight::probe(data.path(), plan).at("write to", data.path())?;
    let backup = Backup::write(&begun.backup, data.path(), plan, begun.directories.clone())?;
    // That takes its time, and not everybody takes the lock.
    lock.check()?;
    unchanged(data.path(), plan)?;
    untouched(data, &backup)?;
    Begun { stage: Stage::Change, ..begun.clone() }.write(data.path())?;
    Ok(backup)
}

/// Removes all traces of a repair that has changed nothing; the backup that was removed.
fn take_back(data: &Target, begun: &Begun) -> Result<Option<PathBuf>, RepairError> {
    let partial = backup::in_the_making(&begun.backup);
    let removed = backup::remove_unfinished(&partial).at("remove", &partial)?;
    forget(data, None)?;
    set_times_of(data.path(), &begun.directories)?;
    Ok(removed.then_some(partial))
}

/// Does all steps of the backup's plan that have not been done.
pub(super) fn finish(data: &Target, backup: &Backup) -> Result<(), RepairError> {
    let steps = || {
        for step in &backup.plan.steps {
            do_step(data.path(), backup, &step.change)?;
        }
        forget(data, Some(&backup.plan))
    };
    steps().map_err(|error| RepairError::NotFinished { backup: backup.path.clone(), source: Box::new(error) })
}

fn do_step(data: &Path, backup: &Backup, change: &Change) -> Result<(), RepairError> {
    let path = data.join(change.path());
    let changed = |what| RepairError::Changed { path: change.path().to_owned(), what };
    match progress(backup, data, change).at("read", &path)? {
        Progress::After => return Ok(()),
        Progress::Before | Progress::Between => execute(data, backup, change).at("change", &path)?,
        Progress::Other(what) => return Err(changed(what)),
    }
    match progress(backup, data, change).at("read", &path)? {
        Progress::After => Ok(()),
        _ => Err(changed("what was written is not what is read back".to_owned())),
    }
}

/// Says that there is no unfinished repair any more, and removes what it left behind, by its plan if that is known.
pub(super) fn forget(data: &Target, plan: Option<&Plan>) -> Result<(), RepairError> {
    let known = plan.map_or_else(BTreeSet::new, |plan| leftovers::of_plan(data.path(), plan));
    leftovers::remove(data, &known).at("clean up", data.path())?;
    let marker = data.path().join(UNFINISHED);
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &marker),
        _ => sync_directory(data.path()).at("write", data.path()),
    }
}

/// Whether all inputs of the plan are what they were.
fn unchanged(data: &Path, plan: &Plan) -> Result<(), RepairError> {
    for known in &plan.inputs {
        let changed = |what: &str| RepairError::Changed { path: known.path.clone(), what: what.to_owned() };
        let now = match input::input(data, known.path.clone(), known.checksum.is_some()) {
            Ok(now) => now,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed("it is gone")),
            Err(error) => return Err(error).at("read", &data.join(&known.path)),
        };
        if now != *known {
            return Err(changed("it has been written to, or is another file"));
        }
    }
    Ok(())
}

/// Whether there is nothing that was not there when the plan was made, as a segment that a Prometheus has begun since.
fn untouched(data: &Target, backup: &Backup) -> Result<(), RepairError> {
    if let Some(what) = intruder(backup, data).at("look at", data.path())? {
        return Err(RepairError::Changed { path: data.path().display().to_string(), what });
    }
    for change in backup.plan.steps.iter().map(|step| &step.change) {
        let is_by_name = matches!(
            change,
            Change::Create { .. }
                | Change::CreateDirectory { .. }
                | Change::Rename { .. }
                | Change::SetAside { .. }
        );
        let path = data.path().join(change.path());
        if is_by_name && progress(backup, data.path(), change).at("read", &path)? != Progress::Before {
            let what = "it has come, or gone".to_owned();
            return Err(RepairError::Changed { path: change.path().to_owned(), what });
        }
    }
    Ok(())
}

/// Whether Prometheus leaves a backup or a copy alone at this place, and never takes it for something of its own.
pub(super) fn is_left_alone(data: &Path, backup: &Path) -> Result<(), RepairError> {
    let full = data.canonicalize().at("find", data)?;
    let refused = |why: &str| Err(RepairError::NoPlace { path: backup.to_owned(), why: why.to_owned() });
    let name = backup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if Path::new(name).extension().is_some_and(|extension| extension == "unfinished") {
        return refused("its name says that it is not whole");
    }
    // They may be links to elsewhere.
    for part in ["wal", "wbl", "chunks_head"] {
        if data.join(part).canonicalize().is_ok_and(|part| backup.starts_with(part)) {
            return refused(&format!("it is in {part}/, which is Prometheus's"));
        }
    }
    let is_named = name.starts_with("walfix-") && name != UNFINISHED;
    if backup.starts_with(&full) && !(backup.parent() == Some(&full) && is_named) {
        return refused(
            "in the data directory itself only names that begin with walfix- are sure to be left alone by Prometheus",
        );
    }
    Ok(())
}

fn execute(data: &Path, backup: &Backup, change: &Change) -> io::Result<()> {
    let path = data.join(change.path());
    match change {
        Change::Patch { method: Method::InPlace, .. } => splice_in_place(&path, &splices(backup, change)),
        Change::Patch { method: Method::Replace, .. } => {
            let splices = splices(backup, change);
            let mut file = File::open(&path)?;
            let owner = Owner::of(&file.metadata()?);
            replace(&path, Some(owner), |out| copy_spliced(&mut file, &splices, out))
        }
        Change::Rewrite { .. } => {
            let source = File::open(data.join(change.source()))?;
            let length = source.metadata()?.len();
            let owner = Owner::of(&path.metadata()?);
            replace(&path, Some(owner), |out| rewrite(&source, length, change, out))
        }
        Change::Create { bytes, .. } => {
            replace(&path, Some(Owner::of_new(&path)?), |out| out.write_all(bytes))
        }
        Change::CreateDirectory { .. } => {
            if !path.is_dir() {
                fs::create_dir(&path)?;
            }
            Owner::of_new(&path)?.give(&File::open(&path)?)?;
            sync_directory_of(&path)
        }
        Change::Rename { to, .. } => rename_new(&path, &data.join(to)),
        Change::SetAside { .. } => set_aside(&path, &backup.aside(change.path())),
    }
}

fn splices(backup: &Backup, change: &Change) -> Vec<Splice> {
    backup.splices(change).into_iter().map(|(splice, _)| splice).collect()
}

/// Moves a file or directory into the backup. Its name is gone from one instant to the next, and not before all of it is
/// there.
fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    create_directories(files::directory_of(aside))?;
    if aside.symlink_metadata().is_err() {
        match rename_new(path, aside) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_whole(path, aside)?,
            done => return done,
        }
    }
    let staged = staged(path);
    rename_new(path, &staged)?;
    remove_any(&staged)?;
    sync_directory_of(path)
}

/// Undoes all steps of the backup's plan that have been done, the last first.
pub(super) fn roll_back(data: &Target, backup: &Backup) -> Result<(), RepairError> {
    for step in backup.plan.steps.iter().rev() {
        let path = data.path().join(step.change.path());
        match progress(backup, data.path(), &step.change).at("read", &path)? {
            Progress::Before => {}
            Progress::After | Progress::Between => {
                revert(data.path(), backup, &step.change).at("change", &path)?;
            }
            Progress::Other(what) => {
                return Err(RepairError::Changed { path: step.change.path().to_owned(), what });
            }
        }
    }
    forget(data, Some(&backup.plan))?;
    set_times(data.path(), backup)
}

/// Gives files and directories the times that they had.
pub(super) fn set_times(data: &Path, backup: &Backup) -> Result<(), RepairError> {
    for changed in &backup.manifest.files {
        let path = data.join(&changed.path);
        set_modified(&path, changed.modified).at("set the time of", &path)?;
    }
    set_times_of(data, &backup.manifest.directories)
}

fn set_times_of(data: &Path, directories: &[Directory]) -> Result<(), RepairError> {
    for directory in directories {
        let path = data.join(&directory.path);
        set_modified_directory(&path, directory.modified).at("set the time of", &path)?;
    }
    Ok(())
}

/// Takes back a step that has been done, wholly or in part.
pub(super) fn revert(data: &Path, backup: &Backup, change: &Change) -> io::Result<()> {
    let path = data.join(change.path());
    let changed = || backup.changed(change.path()).map_err(io::Error::other);
    match change {
        Change::Patch { method, .. } => {
            let old = inverse_splices(backup, change);
            match method {
                Method::InPlace => {
                    splice_in_place(&path, &old)?;
                    let file = File::options().write(true).open(&path)?;
                    file.set_len(changed()?.before.bytes)?;
                    file.sync_all()
                }
                Method::Replace => {
                    let mut file = File::open(&path)?;
                    put_back(&path, changed()?, |out| copy_spliced(&mut file, &old, out))
                }
            }
        }
        Change::Rewrite { .. } => {
            let changed = changed()?;
            let mut old = File::open(backup.path.join(&changed.old))?;
            put_back(&path, changed, |out| io::copy(&mut old, out).map(drop))
        }
        Change::Create { .. } => {
            fs::remove_file(&path)?;
            sync_directory_of(&path)
        }
        Change::CreateDirectory { .. } => {
            leftovers::remove_in(&path, &leftovers::of_plan(data, &backup.plan))?;
            fs::remove_dir(&path)?;
            sync_directory_of(&path)
        }
        Change::Rename { to, .. } => rename_new(&data.join(to), &path),
        Change::SetAside { .. } if path.symlink_metadata().is_ok() => Ok(()),
        Change::SetAside { .. } => copy_whole(&backup.aside(change.path()), &path),
    }
}

/// What undoes the splices of a step.
pub(super) fn inverse_splices(backup: &Backup, change: &Change) -> Vec<Splice> {
    let splices = backup.splices(change).into_iter();
    let inverse =
        |(new, old): (Splice, _)| Splice { offset: new.offset, replaces: new.with.count(), with: old };
    splices.map(inverse).collect()
}

fn put_back(
    path: &Path,
    changed: &Changed,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let owner = Owner { uid: changed.uid, gid: changed.gid, mode: Some(changed.mode & 0o7777) };
    replace(path, Some(owner), write)
}
