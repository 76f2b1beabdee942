//! A plan, executed so that it can be taken up again after any interruption.
//!
//! The old bytes are safe before the first new one is written. A file in the data directory says where they are, until all
//! is done: whoever comes next finishes the repair, or rolls it back. Each step is found to be done or not by looking at the
//! files, so no log of steps is needed.

use std::io;
use std::path::{Path, PathBuf};

use super::backup::{self, Backup, absolute, is_left_alone};
use super::data::Data;
use super::error::{At as _, RepairError};
use super::execute::execute;
use super::lock::Lock;
use super::marker::{Marker, forget};
use super::marker_name::Stage;
use super::plan::{Change, Plan};
use super::stage::{self, NewBytes};
use super::state::{Progress, intruder, progress};
use super::times::set_times_of;
use super::{input, preflight};
use crate::io::Cancel;
use crate::io::beneath::Place;

/// A plan that is to be executed.
pub(crate) struct Execution<'a> {
    pub(crate) plan: &'a Plan,
    /// Makes the bytes of files that are written as a whole.
    pub(crate) contents: &'a dyn NewBytes,
    /// The lock of the data directory.
    pub(crate) lock: &'a Lock,
    /// Asked until the first change.
    pub(crate) cancel: &'a dyn Cancel,
}

/// Executes a plan; the old bytes are saved in `backup`, which must not exist.
pub(super) fn apply(data: &Data, execution: &Execution<'_>, backup: &Path) -> Result<Backup, RepairError> {
    let plan = execution.plan;
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
    let marker = Marker { stage: Stage::Backup, backup, directories };
    let saved = save(data, execution, &marker, &place).map_err(|error| {
        // What cannot be removed now, the next repair removes.
        let _ = discard_unchanged(data, &marker);
        RepairError::NotStarted(Box::new(error))
    })?;
    finish(data, &saved)?;
    Ok(saved)
}

/// All that comes before the first change.
fn save(
    data: &Data,
    execution: &Execution<'_>,
    marker: &Marker,
    place: &Place,
) -> Result<Backup, RepairError> {
    let Execution { plan, contents, lock, cancel } = execution;
    let go_on = || if cancel.is_cancelled() { Err(RepairError::Cancelled) } else { Ok(()) };
    go_on()?;
    marker.write(data)?;
    preflight::probe(data, plan).at("write to", data.path())?;
    stage::all(data, plan, &marker.backup, *contents, &go_on)?;
    let backup = Backup::write(&marker.backup, place, data, plan, marker.directories.clone(), &go_on)?;
    let start = || {
        // That takes its time, and not everybody takes the lock.
        lock.check()?;
        unchanged(data.place(), plan)?;
        untouched(data, &backup)?;
        go_on()?;
        cancel.too_late();
        Marker { stage: Stage::Change, ..marker.clone() }.write(data)
    };
    start().inspect_err(|_| backup::discard(place))?;
    Ok(backup)
}

/// Removes all traces of a repair that has changed nothing; the backup that was removed.
pub(super) fn discard_unchanged(data: &Data, marker: &Marker) -> Result<Option<PathBuf>, RepairError> {
    let mut removed = None;
    // Where it cannot be looked for, it is left.
    if let Ok(place) = marker.place(data.place()) {
        let partial = backup::in_the_making(&place);
        let is_in = place.parent() == *data.place();
        if (is_in || backup::is_of(&partial, &data.place().full()))
            && backup::remove_unfinished(&partial).at("remove", &partial)?
        {
            removed = Some(partial.shown());
        }
    }
    forget(data, None)?;
    set_times_of(data.place(), &marker.directories)?;
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

/// Whether nothing that the plan changes is below a link.
pub(super) fn no_links(data: &Place, plan: &Plan) -> Result<(), RepairError> {
    for path in plan.steps.iter().flat_map(|step| step.change.paths().chain([step.change.source()])) {
        // The last name may be a link that is set aside.
        let directory = data.join(path).parent();
        if let Some((link, leads_to)) = directory.link_on_the_way() {
            return Err(RepairError::Link { path: link.shown(), leads_to });
        }
    }
    Ok(())
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

/// Whether there is nothing that was not there when the plan was made, as a segment that a Prometheus has marker since.
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
