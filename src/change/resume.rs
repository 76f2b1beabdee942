//! Finishes a repair that was interrupted, or gives it up.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::backup::{self, Backup};
use super::data::Data;
use super::error::{At as _, RepairError};
use super::marker::{Marker, forget};
use super::state::{Progress, progress};
use super::transaction::{discard_unchanged, finish, no_links};
use super::unfinished::{UnfinishedRepair, find_unfinished};
use super::{Options, leftovers, stage};
use crate::tsdb::Assumed;

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

/// Finishes the repair that was interrupted, or gives it up, and removes what it left.
pub(super) fn resume(data: &Data, asked: Options) -> Result<Resumed, RepairError> {
    let mut resumed = Resumed::default();
    match find_unfinished(data)? {
        None => leftovers::remove(data, &BTreeSet::new()).at("clean up", data.path())?,
        Some(UnfinishedRepair::NotStarted { .. }) => {
            if let Some(started) = Marker::read(data.place())? {
                resumed.removed.extend(discard_unchanged(data, &started)?);
            }
        }
        Some(UnfinishedRepair::Unfinished(backup)) => {
            let plan = &backup.plan;
            let started = Options {
                mode: plan.mode,
                assumed: Assumed { version: plan.prometheus, agent: plan.agent },
                corrections: plan.corrections,
                // What was started has its steps.
                rewrite_uploaded: asked.rewrite_uploaded,
            };
            if started != asked {
                return Err(RepairError::OtherOptions { started, backup: backup.path });
            }
            no_links(data.place(), plan)?;
            all_staged(data, &backup)?;
            finish(data, &backup)?;
            resumed.finished = Some(backup.path);
        }
        Some(UnfinishedRepair::Outdated { backup, what }) => {
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
        let is_to_be_staged = change.is_rewrite() && change.staged().is_none();
        let at = data.join(change.path());
        if is_to_be_staged && progress(backup, data.place(), change).at("read", &at)? == Progress::Before {
            return Err(stage::not_staged(&backup.plan, change, &backup.path));
        }
    }
    Ok(())
}
