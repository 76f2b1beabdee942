//! A repair from the lock to the scan afterwards: one call, one result.
//!
//! Whoever repairs through here cannot leave out what keeps a repair from making things worse: the lock, an earlier repair
//! that was interrupted, the question whether so many entries may stay without labels, the backup, and a new scan of what
//! came of it.

use std::path::{Path, PathBuf};

use crate::change::plan::{Mode, Orphans, Plan};
use crate::change::{Lock, Options, RepairError, Resumed, UnfinishedRepair};
use crate::forecast::report::Forecast;
use crate::forecast::{ForecastError, forecast};
use crate::io::Cancel;
use crate::repair;
use crate::scan::report::{Finding, Report, Verdict};
use crate::scan::{Progress, ScanError, scan};
use crate::tsdb::Target;
use crate::tsdb::liveness::NotKnown;
use crate::verdict;
use crate::wal::Corrections;

/// What is to be repaired, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// How the directory is looked at.
    pub how: verdict::Options,
    /// What is kept.
    pub mode: Mode,
    /// Which flipped bits are corrected.
    pub corrections: Corrections,
    /// Whether it may continue although many entries have lost their labels ([`Plan::needs_accept_orphans`]).
    pub accept_orphans: bool,
    /// Whether index and `meta.json` of blocks are changed that have been uploaded to object storage.
    pub rewrite_uploaded: bool,
    /// Where the old bytes go.
    pub keep: Keep<'a>,
}

/// Where the bytes that a repair replaces go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep<'a> {
    /// Into a new directory in the data directory, [`repair::default_backup`].
    #[default]
    InPlace,
    /// Into this directory, which is not there yet.
    At(&'a Path),
    /// Nowhere: the repair cannot be undone.
    Nothing,
}

impl Request<'_> {
    fn options(&self) -> Options {
        Options {
            mode: self.mode,
            assumed: self.how.assumed,
            corrections: self.corrections,
            rewrite_uploaded: self.rewrite_uploaded,
        }
    }
}

/// What is heard of a repair while it runs.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It is not known whether a Prometheus works here that cannot be seen from this process.
    NotKnown(&'a NotKnown),
    /// Earlier repairs that were interrupted were finished, given up, or removed.
    Resumed(&'a Resumed),
}

/// Hears of a repair, and can give it up until the first change.
pub trait Watch: Progress {
    /// Hears of what comes before the result.
    fn heard(&self, _event: Event<'_>) {}
}

impl Watch for () {}

/// Why a repair could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FixError {
    /// The directory cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// It cannot be read again.
    #[error(transparent)]
    Forecast(#[from] ForecastError),
    /// It cannot be repaired.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// An earlier repair that was interrupted is finished now, and this one was not started.
    #[error(
        "an earlier repair that was interrupted is finished now, its backup is {finished}; a further one was not started"
    )]
    AfterResume {
        /// The backup of the earlier one.
        finished: PathBuf,
        /// Why not.
        source: Box<FixError>,
    },
    /// The repair is done, and the directory cannot be read to verify it.
    #[error("the repair is done, but the directory cannot be read to verify it")]
    Verify(#[source] Box<FixError>),
}

/// A plan, and what it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What was found, judged by the forecast and the plan.
    pub report: Report,
    /// What Prometheus would do; `None` if there is no WAL of Prometheus's.
    pub forecast: Option<Forecast>,
    /// What a repair changes.
    pub plan: Plan,
}

impl Planned {
    /// Whether nothing is damaged, and nothing would stay so.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.report.verdict == Verdict::Clean && self.plan.left.is_empty()
    }
}

/// What a repair would do, before anything is changed.
#[derive(Debug)]
pub struct Preview {
    /// An earlier repair that was interrupted.
    pub unfinished: Result<Option<UnfinishedRepair>, RepairError>,
    /// The plan.
    pub planned: Planned,
}

/// What came of a repair.
#[derive(Clone, Debug, PartialEq)]
pub struct Fixed {
    /// The plan, and what it was made from.
    pub planned: Planned,
    /// The backup of an earlier repair that was interrupted and is finished now.
    pub finished: Option<PathBuf>,
    /// What was done.
    pub outcome: Outcome,
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing, as there is nothing to be done.
    Nothing,
    /// Nothing, as so many entries have lost their labels, and nobody accepted that.
    NeedsAcceptOrphans(Orphans),
    /// Every step of the plan.
    Repaired(Box<Repaired>),
}

/// What is there after a repair.
#[derive(Clone, Debug, PartialEq)]
pub struct Repaired {
    /// Where the old bytes are; `None` if none were to be kept.
    pub backup: Option<PathBuf>,
    /// What a scan finds now.
    pub after: Report,
    /// The volume is full, as it was before.
    pub full: Option<Finding>,
}

/// Says what a repair of the data directory `target` would do. Changes nothing, and takes no lock.
///
/// # Errors
/// If the directory cannot be read.
pub fn preview(target: &Target, request: &Request<'_>, watch: &dyn Watch) -> Result<Preview, FixError> {
    let unfinished = match repair::unfinished(target) {
        // What is by the name of a marker keeps nobody from seeing what else there is.
        found @ (Ok(_) | Err(RepairError::Marker { .. })) => found,
        Err(error) => return Err(error.into()),
    };
    Ok(Preview { unfinished, planned: plan(target, request, watch)? })
}

/// Repairs the data directory `target`: takes its lock, finishes or gives up a repair that was interrupted, scans, forecasts
/// and plans, keeps the old bytes, executes the plan, and scans again. It can be cancelled until the first change, and leaves
/// no trace then; later it is finished by the next.
///
/// # Errors
/// If somebody works there, or anything cannot be read or written. The error says whether something has been changed.
pub fn fix(target: &Target, request: &Request<'_>, watch: &dyn Watch) -> Result<Fixed, FixError> {
    let lock = Lock::take(target.path())?;
    if let Some(why) = lock.not_known() {
        watch.heard(Event::NotKnown(why));
    }
    let resumed = repair::resume(target, &lock, request.options())?;
    watch.heard(Event::Resumed(&resumed));
    let finished = resumed.finished.clone();
    fix_after(resumed, target, request, &lock, watch).map_err(|error| match (finished, error) {
        (Some(finished), error @ (FixError::Scan(_) | FixError::Forecast(_) | FixError::Repair(_))) => {
            FixError::AfterResume { finished, source: Box::new(error) }
        }
        (_, error) => error,
    })
}

/// What comes after an earlier repair was finished, or given up.
fn fix_after(
    resumed: Resumed,
    target: &Target,
    request: &Request<'_>,
    lock: &Lock,
    watch: &dyn Watch,
) -> Result<Fixed, FixError> {
    let planned = match plan(target, request, watch) {
        Err(FixError::Scan(ScanError::Cancelled)) => return Err(RepairError::Cancelled.into()),
        planned => planned?,
    };
    let finished = resumed.finished;
    let done = |outcome| Ok(Fixed { planned: planned.clone(), finished: finished.clone(), outcome });
    let plan = &planned.plan;
    if plan.steps.is_empty() {
        return done(Outcome::Nothing);
    }
    if let Some(orphans) = plan.orphans.filter(|_| plan.needs_accept_orphans() && !request.accept_orphans) {
        return done(Outcome::NeedsAcceptOrphans(orphans));
    }
    let backup = match request.keep {
        Keep::InPlace => Some(repair::default_backup(target.path())),
        Keep::At(path) => Some(path.to_owned()),
        Keep::Nothing => None,
    };
    match &backup {
        Some(backup) => repair::apply_unless_cancelled(target, plan, backup, lock, watch)?,
        None => repair::apply_for_good_unless_cancelled(target, plan, lock, watch)?,
    }
    let repaired =
        verify(target, request, watch, backup).map_err(|error| FixError::Verify(Box::new(error)))?;
    done(Outcome::Repaired(Box::new(repaired)))
}

/// Shows how far it is, and is not cancelled: what was started is done.
struct ToTheEnd<'a>(&'a dyn Watch);

impl Cancel for ToTheEnd<'_> {}

impl Progress for ToTheEnd<'_> {
    fn total(&self, bytes: u64) {
        self.0.total(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.0.advance(bytes);
    }
}

impl Watch for ToTheEnd<'_> {}

/// The scan, the forecast and a further plan: all that a scan of the repaired directory would say.
fn verify(
    target: &Target,
    request: &Request<'_>,
    watch: &dyn Watch,
    backup: Option<PathBuf>,
) -> Result<Repaired, FixError> {
    let Planned { report: mut after, forecast, plan } = plan(target, request, &ToTheEnd(watch))?;
    // The volume was full before, and that is nothing that a repair repairs.
    let full = verdict::without_room(&mut after.findings);
    if full.is_some() {
        verdict::judge(target, &mut after, forecast.as_ref(), Some(&plan));
    }
    Ok(Repaired { backup, after, full })
}

fn plan(target: &Target, request: &Request<'_>, watch: &dyn Watch) -> Result<Planned, FixError> {
    let how = request.how;
    let scan = scan(target, &crate::scan::Options { threads: how.threads, depth: how.depth }, watch)?;
    let forecast = forecast(target, &scan, how.assumed)?;
    let plan = repair::plan(target, &scan, forecast.as_ref(), request.options())?;
    let mut report = scan.report;
    let around = verdict::around(target, &report, forecast.as_ref(), how.assumed, how.user);
    report.findings.extend(around);
    verdict::judge(target, &mut report, forecast.as_ref(), Some(&plan));
    Ok(Planned { report, forecast, plan })
}
