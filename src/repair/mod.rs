//! Mends what a scan has found, so that only the damaged bytes are lost, and can be undone. The only room that opens a
//! file for writing.
//!
//! [`plan()`] makes a [`Plan`] from a report and changes nothing; [`apply`] executes it; [`undo`] puts everything back.

mod backup;
mod code;
mod copy;
mod data;
mod error;
mod fence;
mod files;
pub mod fill;
mod generations;
mod half_repaired;
mod head_chunk_files;
mod head_chunks;
mod input;
mod labels;
mod leftovers;
mod lock;
mod marker;
mod misplaced;
mod partial;
pub mod plan;
mod prefix;
mod preflight;
mod prometheus;
mod readme;
mod record;
mod refusal;
mod salvage;
mod segment;
mod sequence;
mod series;
mod state;
mod transaction;
mod undo;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub use self::backup::Backup;
pub use self::copy::copy_logs;
use self::data::Data;
use self::error::At as _;
pub use self::error::RepairError;
pub use self::lock::Lock;
use self::plan::Loss;
pub use self::plan::{Mode, Plan};
pub(crate) use self::record::{WithoutLabels, without_labels};
pub use self::refusal::Refusal;
use self::segment::Mending;
use self::transaction::absolute;
pub use self::transaction::{Found, Resumed, unfinished};
pub use self::undo::{Forced, Restored, Undone, restore_into, undo, undo_by_force};
use crate::forecast::report::Forecast;
use crate::forecast::{Assumed, Version};
use crate::io::beneath::Place;
use crate::scan::report::Report;
pub use crate::scan::salvage::Corrections;
use crate::tsdb::{Listing, Target};

/// A data directory that is to be repaired, and what has been found in it.
#[derive(Clone, Copy, Debug)]
struct Scanned<'a> {
    target: &'a Target,
    listing: &'a Listing,
    report: &'a Report,
    options: Options,
}

impl<'a> Scanned<'a> {
    /// How the logs are mended.
    fn mending(&self) -> Mending<'a> {
        let Options { assumed, corrections, .. } = self.options;
        let agent = assumed.agent.then_some(assumed.version);
        Mending { agent, corrections, ..Mending::of(self.report) }
    }
}

/// What a plan is to keep, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is kept.
    pub mode: Mode,
    /// Who is to read the directory next.
    pub assumed: Assumed,
    /// Which flipped bits are put right.
    pub corrections: Corrections,
}

impl Options {
    /// What `walfix repair` is given for them.
    fn arguments(&self) -> String {
        let mode = match self.mode {
            Mode::Salvage => "salvage",
            Mode::Prometheus => "prometheus",
        };
        let version = self.assumed.version;
        let version =
            if version == Version::NEWEST { String::new() } else { format!(" --prometheus {version}") };
        let agent = if self.assumed.agent { " --agent" } else { "" };
        let corrections = match self.corrections {
            Corrections::Sure => "",
            Corrections::Large => " --correct-large",
        };
        format!("--mode {mode}{version}{agent}{corrections}")
    }
}

/// The plan that mends what `report` has found in the data directory `target`, and `forecast` foretells of it.
///
/// # Errors
/// If files cannot be read.
pub fn plan(
    target: &Target,
    report: &Report,
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
    let mut plan = Plan::empty(report, options);
    let planned = match options.mode {
        Mode::Salvage => salvage::plan(target, report, forecast, options, &mut plan),
        Mode::Prometheus => prometheus::plan(target, report, forecast, options, &mut plan),
    };
    planned.at("read", target.path())?;
    plan.steps.extend(record::step(target, report, &plan).at("list", target.path())?);
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

/// What either mode comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Plans {
    /// Of [`Mode::Salvage`].
    pub salvage: Plan,
    /// Of [`Mode::Prometheus`].
    pub prometheus: Plan,
}

/// The plans of both modes, see [`plan()`].
///
/// # Errors
/// As of [`plan()`].
pub fn plans(
    target: &Target,
    report: &Report,
    forecast: Option<&Forecast>,
    assumed: Assumed,
) -> Result<Plans, RepairError> {
    let of = |mode| plan(target, report, forecast, Options { mode, assumed, ..Options::default() });
    // One after the other: what they know of each series is most of the memory.
    Ok(Plans { salvage: of(Mode::Salvage)?, prometheus: of(Mode::Prometheus)? })
}

/// Executes a plan for the data directory `target` of which the lock is held. The old bytes are kept in `backup`, which
/// is not there yet.
///
/// # Errors
/// If somebody works there by now, anything is not as it was when the plan was made, or a file cannot be written.
pub fn apply(target: &Target, plan: &Plan, backup: &Path, lock: &Lock) -> Result<(), RepairError> {
    lock.check()?;
    transaction::apply(&Data::of(target, lock.data()), plan, backup, lock).map(drop)
}

/// As [`apply`], and keeps no old bytes in the end: it cannot be undone.
///
/// # Errors
/// As of [`apply`].
pub fn apply_for_good(target: &Target, plan: &Plan, lock: &Lock) -> Result<(), RepairError> {
    // An interruption must find them.
    let backup = default_backup(target.path());
    apply(target, plan, &backup, lock)?;
    let backup = absolute(&backup).and_then(|path| backup::place(lock.data(), &path)).at("find", &backup)?;
    backup.remove_any().at("remove", &backup)
}

/// Finishes a repair that was interrupted, see [`unfinished`], or gives it up, and removes what it left behind.
///
/// # Errors
/// As of [`apply`]; and if what was begun is not what is `asked` for now.
pub fn resume(target: &Target, lock: &Lock, asked: Options) -> Result<Resumed, RepairError> {
    lock.check()?;
    transaction::resume(&Data::of(target, lock.data()), asked)
}

/// Where a backup is kept if nothing is said: in the data directory, by a name that Prometheus neither lists nor
/// deletes.
#[must_use]
pub fn default_backup(data: &Path) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
    let name = format!("walfix-backup-{now}");
    let names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}")));
    let mut paths = names.map(|name| data.join(name));
    paths.find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| data.join(name))
}
