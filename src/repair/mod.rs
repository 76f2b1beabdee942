//! Decides what is done about what a scan has found, so that only the damaged bytes are lost. It changes nothing:
//! [`plan()`] makes a [`Plan`] from a report, and [`crate::change`] executes it, resumes it, and undoes it.

mod blocks;
mod chunks;
mod deletions;
mod fence;
mod generations;
mod half_repaired;
mod head_chunk_files;
mod labels;
mod misplaced;
mod no_step;
mod orphans;
mod partial;
mod prefix;
mod prometheus;
mod record;
mod refs;
mod reissued_chunks;
mod salvage;
mod segment;
mod segments;
mod sequence;
mod snapshots;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;

pub(crate) use self::record::{WithoutLabels, without_labels};
use self::segment::{RewrittenSegments, SegmentRules};
pub use crate::change::plan::Refusal;
pub use crate::change::plan::{self, Mode, Plan};
use crate::change::plan::{Change, Defect, Loss, RepairedFinding, Resolution, UnrepairedFinding};
use crate::change::{At as _, Execution, NewBytes, input};
pub use crate::change::{
    Backup, Forced, Lock, Options, RepairError, Restored, Resumed, Undone, UnfinishedRepair, copy_logs,
    default_backup, restore_into, resume, undo, undo_by_force, unfinished,
};
use crate::forecast::Assumed;
use crate::forecast::report::Forecast;
use crate::io::Cancel;
use crate::io::beneath::Place;
use crate::scan::Scan;
use crate::scan::blocks::opened::LONGEST_INDEX;
use crate::scan::code::Code;
use crate::scan::report::{Finding, Severity};
use crate::tsdb::{Listing, Target};
pub use crate::wal::Corrections;
#[doc(hidden)]
pub use crate::wal::fill;

/// A data directory that is to be repaired, and what has been found in it.
#[derive(Clone, Copy, Debug)]
struct Scanned<'a> {
    target: &'a Target,
    listing: &'a Listing,
    report: &'a Scan,
    options: Options,
}

impl<'a> Scanned<'a> {
    /// How the logs are repaired.
    fn rules(&self) -> SegmentRules<'a> {
        let Options { assumed, corrections, .. } = self.options;
        let agent = assumed.agent.then_some(assumed.version);
        SegmentRules { agent, corrections, ..SegmentRules::of(self.report) }
    }
}

/// Damage; and what is none, but makes Prometheus speak of corruption: a torn tail.
fn is_to_be_repaired(finding: &Finding) -> bool {
    finding.severity == Severity::Damage
        || finding.severity == Severity::Note
            && finding.offset.is_some()
            && finding.code != Code::TrailingZeros
            && is_about_bytes(finding)
}

fn is_about_bytes(finding: &Finding) -> bool {
    finding.offset.is_some() && finding.segment.is_some() && finding.series.is_none()
}

/// A finding that is repaired so.
fn repaired(finding: &Finding, resolution: Resolution) -> RepairedFinding {
    RepairedFinding {
        code: finding.code.into(),
        offset: finding.offset,
        end: finding.end,
        defect: Defect::Words(finding.message()),
        resolution,
    }
}

/// A finding that stays.
fn unrepaired(finding: &Finding, refusal: Refusal) -> UnrepairedFinding {
    UnrepairedFinding {
        code: finding.code.into(),
        path: finding.path.clone(),
        offset: finding.offset,
        end: finding.end,
        refusal,
    }
}

/// The plan that repairs what `report` has found in the data directory `target`, and `forecast` forecasts of it.
///
/// # Errors
/// If files cannot be read.
pub fn plan(
    target: &Target,
    report: &Scan,
    forecast: Option<&Forecast>,
    options: Options,
) -> Result<Plan, RepairError> {
    let mut plan = sketch(target, report, forecast, options)?;
    stage(target, report, &mut plan)?;
    Ok(plan)
}

/// As [`plan()`], without the bytes of files that are written as a whole: what it comes to, and nothing that can be executed.
fn sketch(
    target: &Target,
    report: &Scan,
    forecast: Option<&Forecast>,
    options: Options,
) -> Result<Plan, RepairError> {
    let mut current;
    let report = if report.misplaced.as_ref().is_some_and(|pages| !pages.is_current()) {
        // Where pages belong is not known of what the segments have become.
        current = report.clone();
        current.misplaced = None;
        &current
    } else {
        report
    };
    let mut plan = Plan::empty(report.path.clone(), options);
    plan.orphans = orphans::orphans(report);
    let planned = match options.mode {
        Mode::Salvage => salvage::plan(target, report, forecast, options, &mut plan),
        Mode::Prometheus => prometheus::plan(target, report, forecast, options, &mut plan).map(|()| false),
    };
    let counted = planned.at("read", target.path())?;
    plan.steps.extend(record::step(target, report, &plan, counted).at("list", target.path())?);
    if options.mode == Mode::Salvage {
        blocks::plan(target, report, options, &mut plan).at("read", target.path())?;
    }
    deletions::note(target, report, &mut plan).at("read", target.path())?;
    plan.lost = plan.steps.iter().fold(Loss::NOTHING, |sum, step| sum.and(step.lost));
    let touched: HashSet<&str> = plan.steps.iter().map(|step| step.change.path()).collect();
    plan.inputs = input::all(target, &touched).at("read", target.path())?;
    let root = Place::open(target.path()).at("open", target.path())?;
    let mut known: HashSet<String> = plan.inputs.iter().map(|input| input.path.clone()).collect();
    for source in plan.steps.iter().map(|step| step.change.source()) {
        if target.path_of(source).is_file() && known.insert(source.to_owned()) {
            let input = input::input(&root, source.to_owned(), true).at("read", target.path())?;
            plan.inputs.push(input);
        }
    }
    Ok(plan)
}

/// Settles the bytes of the files that the plan writes as a whole.
fn stage(target: &Target, report: &Scan, plan: &mut Plan) -> Result<(), RepairError> {
    let contents = RewrittenFiles { segments: RewrittenSegments { settled: &report.settled } };
    for step in &mut plan.steps {
        let source = target.path_of(step.change.source());
        if step.change.is_rewrite() {
            // An index may be longer than any other file.
            let opened = match step.change {
                Change::RewriteIndex { .. } => crate::io::open_up_to(&source, LONGEST_INDEX)
                    .and_then(|file| file.metadata().map(|metadata| (file, metadata.len()))),
                _ => segment::open(&source),
            };
            let settled = opened
                .and_then(|(file, length)| crate::change::staged(&contents, &step.change, &file, length))
                .at("read", &source)?;
            step.change.set_staged(settled);
        }
    }
    Ok(())
}

/// Makes the bytes of files that are rewritten.
#[derive(Clone, Copy, Debug, Default)]
struct RewrittenFiles<'a> {
    segments: RewrittenSegments<'a>,
}

impl NewBytes for RewrittenFiles<'_> {
    fn write(&self, change: &Change, source: &File, length: u64, out: &mut dyn io::Write) -> io::Result<()> {
        match change {
            Change::RewriteIndex { dropped, .. } => blocks::rewrite(source, length, dropped, out),
            _ => self.segments.write(change, source, length, out),
        }
    }
}

/// What either mode comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Plans {
    /// Of [`Mode::Salvage`].
    pub salvage: Plan,
    /// Of [`Mode::Prometheus`].
    pub prometheus: Plan,
}

/// What the plans of both modes come to, see [`plan()`]. They have no bytes of files that are written as a whole, and are not
/// executed.
///
/// # Errors
/// As of [`plan()`].
pub fn plans(
    target: &Target,
    report: &Scan,
    forecast: Option<&Forecast>,
    assumed: Assumed,
) -> Result<Plans, RepairError> {
    let of = |mode| sketch(target, report, forecast, Options { mode, assumed, ..Options::default() });
    // One after the other: what they know of each series is most of the memory.
    Ok(Plans { salvage: of(Mode::Salvage)?, prometheus: of(Mode::Prometheus)? })
}

/// Executes a plan for the data directory `target` of which the lock is held. The old bytes are kept in `backup`, which
/// is not there yet.
///
/// # Errors
/// If somebody works there by now, anything is not as it was when the plan was made, or a file cannot be written.
pub fn apply(target: &Target, plan: &Plan, backup: &Path, lock: &Lock) -> Result<(), RepairError> {
    apply_unless_cancelled(target, plan, backup, lock, &())
}

/// As [`apply`]; it can be cancelled until the first change.
pub(crate) fn apply_unless_cancelled(
    target: &Target,
    plan: &Plan,
    backup: &Path,
    lock: &Lock,
    cancel: &dyn Cancel,
) -> Result<(), RepairError> {
    let contents = &RewrittenFiles::default();
    crate::change::apply(target, &Execution { plan, contents, lock, cancel }, backup)
}

/// As [`apply_unless_cancelled`], and keeps no old bytes in the end: it cannot be undone.
pub(crate) fn apply_for_good_unless_cancelled(
    target: &Target,
    plan: &Plan,
    lock: &Lock,
    cancel: &dyn Cancel,
) -> Result<(), RepairError> {
    let contents = &RewrittenFiles::default();
    crate::change::apply_for_good(target, &Execution { plan, contents, lock, cancel })
}
