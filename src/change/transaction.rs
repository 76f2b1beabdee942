//! A plan, executed so that it can be taken up again after any interruption.
//!
//! The old bytes are safe before the first new one is written. A file in the data directory says where they are, until all
//! is done: whoever comes next finishes the repair, or rolls it back. Each step is found to be done or not by looking at the
//! files, so no log of steps is needed.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backup::{self, Backup, Changed, Directory};
use super::data::{Data, owner_of_new_directory};
use super::error::{At as _, RepairError};
use super::files::{
    self, Owner, Splice, copy_spliced, copy_whole, create_directories, rename_new, replace, replace_own,
    set_modified, set_modified_directory, splice_in_place, staged, sync_directory,
};
use super::lock::Lock;
use super::marker::Named;
use super::plan::{Change, Method, Plan};
use super::stage::{self, Contents};
use super::state::{Progress, intruder, progress, progress_of};
use super::{Options, input, leftovers, preflight};
use crate::io::Cancel;
use crate::io::beneath::{Place, is_below};
use crate::tsdb::{Assumed, Target};

/// In the data directory as long as a repair is not finished.
pub(super) const UNFINISHED: &str = "walfix-repair.json";

/// Bytes of that file at the most. It has a line for each directory in which the repair works.
const LONGEST: u64 = 16 << 20;

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
pub(super) enum Stage {
    /// The old bytes are being kept; nothing has been changed.
    Backup,
    /// The backup is whole.
    Change,
}

impl Begun {
    /// What the file in the data directory says, if there is one. Anybody may have written it, so every path in it is
    /// looked at.
    pub(super) fn read(data: &Place) -> Result<Option<Self>, RepairError> {
        let marker = data.join(UNFINISHED);
        let wrong = |what: String| RepairError::Marker { path: marker.shown(), what };
        let text = match marker.read(LONGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::by_name(data),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(error).at("read", &marker);
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let mut begun: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let outside = begun
            .directories
            .iter()
            .find(|known| !known.path.is_empty() && !is_below(Path::new(&known.path)));
        if let Some(outside) = outside {
            return Err(wrong(format!("{} is not a path in the data directory", outside.path)));
        }
        let is_name = is_below(&begun.backup)
            && begun.backup.components().count() == 1
            && begun.backup.to_str().is_some_and(|name| name.starts_with("walfix-") && name != UNFINISHED);
        if !is_name && !is_absolute(&begun.backup) {
            return Err(wrong(format!("{} is no place of a backup", begun.backup.display())));
        }
        if !Named::all(data).at("list", data)?.is_empty() {
            return Err(wrong(
                "there is another marker beside it; remove the one that is not of your repair".to_owned(),
            ));
        }
        begun.backup = data.shown().join(begun.backup);
        Ok(Some(begun))
    }

    /// What the name of a marker says that is empty.
    fn by_name(data: &Place) -> Result<Option<Self>, RepairError> {
        let mut all = Named::all(data).at("list", data)?;
        let Some(named) = all.pop() else { return Ok(None) };
        let wrong = |what: &str| RepairError::Marker { path: data.shown(), what: what.to_owned() };
        if !all.is_empty() {
            return Err(wrong("there are two markers; remove the one that is not of your repair"));
        }
        if !is_absolute(&named.backup) {
            return Err(wrong("the name of its marker is no place of a backup"));
        }
        // When its directories were changed, the backup knows.
        Ok(Some(Self { stage: named.stage, backup: named.backup, directories: Vec::new() }))
    }

    fn write(&self, data: &Data) -> Result<(), RepairError> {
        let marker = data.join(UNFINISHED);
        let backup = self.backup.strip_prefix(data.place().full()).unwrap_or(&self.backup).to_owned();
        let text = serde_json::to_vec(&Self { backup, ..self.clone() });
        let text = text.map_err(io::Error::from).at("write", &marker)?;
        // Whom the directory belongs to may finish the repair, or take it back.
        let owner = data.owner().at("look at", data.path())?.with_mode(0o600);
        let is_elsewhere = !self.backup.starts_with(data.place().full());
        let by_name = !Named::all(data.place()).at("list", data.path())?.is_empty();
        let written = if by_name {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            replace_own(&marker, owner, |out| out.write_all(&text))
        };
        match written {
            Err(error) if is_elsewhere && is_full(&error) && !marker.is_there() => {
                Named::write(data, self.stage, &self.backup).at("create", &marker)
            }
            written => written.at("write", &marker),
        }
    }

    /// Where its backup is, or is to be.
    fn place(&self, data: &Place) -> io::Result<Place> {
        backup::place(data, &self.backup)
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

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a path is absolute, and leads nowhere back.
fn is_absolute(path: &Path) -> bool {
    path.strip_prefix("/").is_ok_and(is_below)
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
    find_unfinished(&Data::open(data)?)
}

fn find_unfinished(data: &Data) -> Result<Option<Found>, RepairError> {
    let Some(begun) = Begun::read(data.place())? else { return Ok(None) };
    let backup = begun.backup.clone();
    let overtaken = |what: String| Ok(Some(Found::Overtaken { backup: backup.clone(), what }));
    let place = begun.place(data.place());
    if begun.stage == Stage::Backup && !place.as_ref().is_ok_and(Place::is_there) {
        return Ok(Some(Found::NotBegun { backup }));
    }
    // Not mounted, perhaps: what has been changed cannot be told without it, nor be put back.
    let place = match place.and_then(|place| place.open_directory().map(|_| place)) {
        Ok(place) => place,
        Err(source) => {
            return Err(RepairError::NoBackup { backup, marker: data.path().join(UNFINISHED), source });
        }
    };
    let opened = match Backup::open_at(&place) {
        Ok(opened) => opened,
        Err(error) => return overtaken(error.to_string()),
    };
    if place.parent() != *data.place() && opened.manifest.data != data.place().full() {
        let what = format!("its backup is one of {}", opened.manifest.data.display());
        return overtaken(what);
    }
    if let Some(what) = intruder(&opened, data).at("look at", data.path())? {
        return overtaken(what);
    }
    for step in &opened.plan.steps {
        let path = step.change.path();
        let at = data.join(path);
        match progress(&opened, data.place(), &step.change).at("read", &at)? {
            Progress::Other(what) => return overtaken(format!("{path}: {what}")),
            Progress::Before
                if step.change.staged().is_some()
                    && !stage::is_staged(data.place(), &step.change).at("read", &at)? =>
            {
                return overtaken(format!("{path}: its new bytes, which were staged beside it, are gone"));
            }
            _ => {}
        }
    }
    Ok(Some(Found::Unfinished(Box::new(opened))))
}

/// Finishes the repair that was interrupted, or gives it up, and removes what it left behind.
pub(super) fn resume(data: &Data, asked: Options) -> Result<Resumed, RepairError> {
    let mut resumed = Resumed::default();
    match find_unfinished(data)? {
        None => leftovers::remove(data, &BTreeSet::new()).at("clean up", data.path())?,
        Some(Found::NotBegun { .. }) => {
            if let Some(begun) = Begun::read(data.place())? {
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
            no_links(data.place(), plan)?;
            all_staged(data, &backup)?;
            finish(data, &backup)?;
            resumed.finished = Some(backup.path);
        }
        Some(Found::Overtaken { backup, what }) => {
            forget(data, None)?;
            resumed.given_up = Some((backup, what));
        }
    }
    for place in backup::never_finished(data.place()).at("list", data.path())? {
        if backup::remove_unfinished(&place).at("remove", &place)? {
            resumed.removed.push(place.shown());
        }
    }
    Ok(resumed)
}

/// Whether every file that is yet to be written as a whole has been staged.
fn all_staged(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    for change in backup.plan.steps.iter().map(|step| &step.change) {
        let is_to_be_staged = matches!(change, Change::Rewrite { staged: None, .. });
        let at = data.join(change.path());
        if is_to_be_staged && progress(backup, data.place(), change).at("read", &at)? == Progress::Before {
            return Err(stage::not_staged(&backup.plan, change, &backup.path));
        }
    }
    Ok(())
}

/// Whether nothing that the plan changes stands behind a link.
fn no_links(data: &Place, plan: &Plan) -> Result<(), RepairError> {
    for path in plan.steps.iter().flat_map(|step| step.change.paths().chain([step.change.source()])) {
        // The last name may be a link that is set aside.
        let directory = data.join(path).parent();
        if let Some((link, leads_to)) = directory.link_on_the_way() {
            return Err(RepairError::Link { path: link.shown(), leads_to });
        }
    }
    Ok(())
}

/// Executes `plan`; the old bytes are kept in `backup`, which is not there yet.
pub(super) fn apply(
    data: &Data,
    plan: &Plan,
    contents: &dyn Contents,
    backup: &Path,
    (lock, cancel): (&Lock, &dyn Cancel),
) -> Result<Backup, RepairError> {
    no_links(data.place(), plan)?;
    unchanged(data.place(), plan)?;
    let backup = absolute(backup).at("find", backup)?;
    is_left_alone(data.place(), &backup)?;
    let place = backup::place(data.place(), &backup).at("find", &backup)?;
    if place.find().at("look at", &place)?.is_some() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("create", &backup);
    }
    let partial = backup::in_the_making(&place);
    backup::make_room(&partial, data.place()).at("remove", &partial)?;
    preflight::check(data, plan, &place)?;
    let directories = backup::directories(data.place(), plan).at("look at", data.path())?;
    let begun = Begun { stage: Stage::Backup, backup, directories };
    let kept = keep(data, (plan, contents), &begun, &place, (lock, cancel)).map_err(|error| {
        // What cannot be removed now, the next repair removes.
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
fn keep(
    data: &Data,
    (plan, contents): (&Plan, &dyn Contents),
    begun: &Begun,
    place: &Place,
    (lock, cancel): (&Lock, &dyn Cancel),
) -> Result<Backup, RepairError> {
    let go_on = || if cancel.is_cancelled() { Err(RepairError::Cancelled) } else { Ok(()) };
    go_on()?;
    begun.write(data)?;
    preflight::probe(data, plan).at("write to", data.path())?;
    stage::all(data, (plan, &begun.backup), contents, &go_on)?;
    let backup = Backup::write(&begun.backup, place, data, (plan, &go_on), begun.directories.clone())?;
    let start = || {
        // That takes its time, and not everybody takes the lock.
        lock.check()?;
        unchanged(data.place(), plan)?;
        untouched(data, &backup)?;
        go_on()?;
        cancel.too_late();
        Begun { stage: Stage::Change, ..begun.clone() }.write(data)
    };
    start().inspect_err(|_| backup::discard(place))?;
    Ok(backup)
}

/// Removes all traces of a repair that has changed nothing; the backup that was removed.
fn take_back(data: &Data, begun: &Begun) -> Result<Option<PathBuf>, RepairError> {
    let mut removed = None;
    // Where it cannot be looked for, it is left.
    if let Ok(place) = begun.place(data.place()) {
        let partial = backup::in_the_making(&place);
        let is_in = place.parent() == *data.place();
        if (is_in || backup::is_of(&partial, &data.place().full()))
            && backup::remove_unfinished(&partial).at("remove", &partial)?
        {
            removed = Some(partial.shown());
        }
    }
    forget(data, None)?;
    set_times_of(data.place(), &begun.directories)?;
    Ok(removed)
}

/// Does all steps of the backup's plan that have not been done.
pub(super) fn finish(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    let steps = || {
        for step in &backup.plan.steps {
            do_step(data, backup, &step.change)?;
        }
        forget(data, Some(&backup.plan))
    };
    steps().map_err(|error| RepairError::NotFinished { backup: backup.path.clone(), source: Box::new(error) })
}

fn do_step(data: &Data, backup: &Backup, change: &Change) -> Result<(), RepairError> {
    let path = data.join(change.path());
    let changed = |what| RepairError::Changed { path: change.path().to_owned(), what };
    match progress(backup, data.place(), change).at("read", &path)? {
        Progress::After => return Ok(()),
        Progress::Before | Progress::Between => execute(data, backup, change).at("change", &path)?,
        Progress::Other(what) => return Err(changed(what)),
    }
    match progress(backup, data.place(), change).at("read", &path)? {
        Progress::After => Ok(()),
        _ => Err(changed("what was written is not what is read back".to_owned())),
    }
}

/// Says that there is no unfinished repair any more, and removes what it left behind, by its plan if that is known.
pub(super) fn forget(data: &Data, plan: Option<&Plan>) -> Result<(), RepairError> {
    let known = plan.map_or_else(BTreeSet::new, leftovers::of_plan);
    leftovers::remove(data, &known).at("clean up", data.path())?;
    for named in Named::all(data.place()).at("list", data.path())? {
        named.remove(data).at("clean up", data.path())?;
    }
    let marker = data.join(UNFINISHED);
    match marker.remove_file() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &marker),
        _ => sync_directory(data.place()).at("write", data.path()),
    }
}

/// Whether all inputs of the plan are what they were.
fn unchanged(data: &Place, plan: &Plan) -> Result<(), RepairError> {
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
fn untouched(data: &Data, backup: &Backup) -> Result<(), RepairError> {
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
        let path = data.join(change.path());
        if is_by_name && progress(backup, data.place(), change).at("read", &path)? != Progress::Before {
            let what = "it has come, or gone".to_owned();
            return Err(RepairError::Changed { path: change.path().to_owned(), what });
        }
    }
    Ok(())
}

/// Whether Prometheus leaves a backup or a copy alone at this place, and never takes it for something of its own.
pub(super) fn is_left_alone(data: &Place, backup: &Path) -> Result<(), RepairError> {
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
    let is_named = name.starts_with("walfix-") && name != UNFINISHED;
    if backup.starts_with(&full) && !(backup.parent() == Some(&full) && is_named) {
        return refused(
            "in the data directory itself only names that begin with walfix- are sure to be left alone by Prometheus",
        );
    }
    Ok(())
}

fn execute(data: &Data, backup: &Backup, change: &Change) -> io::Result<()> {
    let place = data.join(change.path());
    match change {
        Change::Patch { method, .. } => {
            let splices = splices(backup, change);
            patch(&place, *method, &splices, |file| progress_of(backup, change, file))
        }
        Change::Rewrite { .. } => stage::put(data, change),
        Change::Create { bytes, .. } => {
            replace(&place, data.owner_of_new(&place)?, |out| out.write_all(bytes))
        }
        Change::CreateDirectory { .. } => make_directory(&place, owner_of_new_directory(&place)?),
        Change::Rename { to, .. } => rename_new(&place, &data.join(to)),
        Change::SetAside { .. } => set_aside(&place, &backup.aside(change.path()), backup.owner),
    }
}

/// Changes bytes of a file. It is looked at once more by the very descriptor that is changed: the name may stand for
/// another file by now.
fn patch(
    place: &Place,
    method: Method,
    splices: &[Splice],
    progress_of: impl Fn(&mut std::fs::File) -> io::Result<Progress>,
) -> io::Result<()> {
    let mut file = if method == Method::InPlace { place.open_to_write()? } else { place.open_file()? };
    let about = file.metadata()?;
    let found = progress_of(&mut file)?;
    if found != Progress::Before && found != Progress::Between {
        return Err(io::Error::other("it has been changed by somebody else just now"));
    }
    match method {
        Method::InPlace if about.nlink() == 1 => splice_in_place(&file, splices),
        // Its other names are not this directory's.
        Method::InPlace if found == Progress::Between => place.open_to_change().map(drop),
        _ => replace(place, Owner::of(&about), |out| copy_spliced(&mut file, splices, out)),
    }
}

/// Makes a directory at once, as it is to be: one that is there is never given away.
fn make_directory(place: &Place, owner: Owner) -> io::Result<()> {
    if place.is_directory() {
        return Ok(());
    }
    let staged = staged(place);
    match staged.remove_directory() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = staged.create_directory(owner.mode & 0o700)?;
    owner.give(&made)?;
    rename_new(&staged, place)
}

fn splices(backup: &Backup, change: &Change) -> Vec<Splice> {
    backup.splices(change).into_iter().map(|(splice, _)| splice).collect()
}

/// Moves a file or directory into the backup. Its name is gone from one instant to the next, and not before all of it is
/// there.
fn set_aside(place: &Place, aside: &Place, owner: Owner) -> io::Result<()> {
    create_directories(&aside.parent(), owner.with_mode(0o700))?;
    if aside.find()?.is_none() {
        match rename_new(place, aside) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => copy_whole(place, aside)?,
            done => return done,
        }
    }
    let staged = staged(place);
    rename_new(place, &staged)?;
    staged.remove_any()?;
    sync_directory(&place.parent())
}

/// Undoes all steps of the backup's plan that have been done, the last first.
pub(super) fn roll_back(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    for step in backup.plan.steps.iter().rev() {
        let path = data.join(step.change.path());
        match progress(backup, data.place(), &step.change).at("read", &path)? {
            Progress::Before => {}
            Progress::After | Progress::Between => {
                revert(data, backup, &step.change).at("change", &path)?;
            }
            Progress::Other(what) => {
                return Err(RepairError::Changed { path: step.change.path().to_owned(), what });
            }
        }
    }
    forget(data, Some(&backup.plan))?;
    set_times(data, backup)
}

/// Gives files and directories the times that they had.
pub(super) fn set_times(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    set_times_of_files(data, backup)?;
    set_times_of(data.place(), &backup.manifest.directories)
}

/// Gives the files that were changed the times that they had.
pub(super) fn set_times_of_files(data: &Data, backup: &Backup) -> Result<(), RepairError> {
    for changed in &backup.manifest.files {
        let place = data.join(&changed.path);
        set_modified(&place, changed.modified).at("set the time of", &place)?;
    }
    Ok(())
}

fn set_times_of(data: &Place, directories: &[Directory]) -> Result<(), RepairError> {
    for directory in directories {
        let place = data.join(&directory.path);
        set_modified_directory(&place, directory.modified).at("set the time of", &place)?;
    }
    Ok(())
}

/// Takes back a step that has been done, wholly or in part.
pub(super) fn revert(data: &Data, backup: &Backup, change: &Change) -> io::Result<()> {
    let place = data.join(change.path());
    let changed = || backup.changed(change.path()).map_err(io::Error::other);
    match change {
        Change::Patch { method, .. } => {
            let (old, changed) = (inverse_splices(backup, change), changed()?);
            match method {
                Method::InPlace => take_back_in_place(&place, &old, backup, change, changed),
                Method::Replace => {
                    let mut file = place.open_file()?;
                    put_back(data, backup, &place, changed, |out| copy_spliced(&mut file, &old, out))
                }
            }
        }
        Change::Rewrite { .. } => {
            let changed = changed()?;
            let mut old = backup.old(&changed.old)?;
            put_back(data, backup, &place, changed, |out| io::copy(&mut old, out).map(drop))
        }
        Change::Create { .. } => {
            place.remove_file()?;
            sync_directory(&place.parent())
        }
        Change::CreateDirectory { .. } => {
            leftovers::remove_in(&place, &leftovers::of_plan(&backup.plan))?;
            place.remove_directory()?;
            sync_directory(&place.parent())
        }
        Change::Rename { to, .. } => rename_new(&data.join(to), &place),
        Change::SetAside { .. } if place.find()?.is_some() => Ok(()),
        Change::SetAside { .. } => copy_whole(&backup.aside(change.path()), &place),
    }
}

fn take_back_in_place(
    place: &Place,
    old: &[Splice],
    backup: &Backup,
    change: &Change,
    changed: &Changed,
) -> io::Result<()> {
    let mut file = place.open_to_write()?;
    let about = file.metadata()?;
    match progress_of(backup, change, &mut file)? {
        Progress::After | Progress::Between if about.nlink() == 1 => {
            splice_in_place(&file, old)?;
            file.set_len(changed.before.bytes)?;
            file.sync_all()
        }
        // Its other names are not this directory's.
        Progress::After => replace(place, Owner::of(&about), |out| copy_spliced(&mut file, old, out)),
        Progress::Between => place.open_to_change().map(drop),
        _ => Err(io::Error::other("it has been changed by somebody else just now")),
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
    data: &Data,
    backup: &Backup,
    place: &Place,
    changed: &Changed,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    replace(place, backup.owner_of(changed, data.place())?, write)
}
