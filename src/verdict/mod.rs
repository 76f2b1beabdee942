//! Whether a directory is clean: what the scan has found, what each start would do, and what a repair would change, taken
//! together. A verdict is never better than the forecast or the plan.

mod ground;
mod judge;

use std::num::NonZeroUsize;

pub use self::judge::judge;
use crate::forecast::report::Forecast;
use crate::forecast::{Assumed, ForecastError, forecast};
use crate::repair::{self, Plans};
use crate::scan::blocks::Depth;
use crate::scan::code::Code;
use crate::scan::report::{Finding, Report, Verdict};
use crate::scan::{self, Progress, ScanError};
use crate::tsdb::{Target, User};

/// How to look at a directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads to read with; as many as there are processors if it is not given.
    pub threads: Option<NonZeroUsize>,
    /// How much of each block is verified.
    pub depth: Depth,
    /// Which Prometheus is to read the directory next.
    pub assumed: Assumed,
    /// As whom it runs. If it is not given: for root the owner of the newest segment, else the user whose process this is.
    pub user: Option<User>,
}

/// All that is known of a directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// What was found, judged by all that follows.
    pub report: Report,
    /// What Prometheus would do; `None` if there is no WAL of Prometheus's.
    pub forecast: Option<Forecast>,
    /// What a repair would come to; `None` for a part of a data directory, and if its files change or cannot be read.
    pub plans: Option<Plans>,
}

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiagnosisError {
    /// It cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// It cannot be read again.
    #[error(transparent)]
    Forecast(#[from] ForecastError),
}

/// How often a directory is read again whose files vanish while it is read.
const TRIES: usize = 5;

/// Reads all of `target`, forecasts each start, plans a repair, and judges by all of it. Changes nothing.
///
/// # Errors
/// If a directory cannot be listed, or a file not be opened.
pub fn diagnose(
    target: &Target,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Diagnosis, DiagnosisError> {
    let mut tries = 1;
    loop {
        let scan =
            scan::scan(target, &scan::Options { threads: options.threads, depth: options.depth }, progress)?;
        let forecast = forecast(target, &scan, options.assumed);
        let plans = forecast.as_ref().ok().and_then(|forecast| {
            is_whole(target).then(|| repair::plans(target, &scan, forecast.as_ref(), options.assumed).ok())?
        });
        // A running server removes segments and checkpoints.
        let changes =
            is_whole(target) && !scan.report.logs.is_empty() && (forecast.is_err() || plans.is_none());
        if changes && tries < TRIES {
            tries += 1;
            continue;
        }
        let (mut report, forecast) = (scan.report, forecast?);
        let around = around(target, &report, forecast.as_ref(), options.assumed, options.user);
        report.findings.extend(around);
        judge(target, &mut report, forecast.as_ref(), plans.as_ref().map(|plans| &plans.salvage));
        // What it removed while this was going on is no damage.
        if report.verdict == Verdict::Damaged && tries < TRIES && lacks_a_segment(target, &report) {
            tries += 1;
            continue;
        }
        return Ok(Diagnosis { report, forecast, plans });
    }
}

/// Whether a segment or a log is no longer there that the scan has read: a checkpoint may go before its segments are listed.
fn lacks_a_segment(target: &Target, report: &Report) -> bool {
    let is_gone = |path: &str| target.path_of(path).symlink_metadata().is_err();
    if report.logs.iter().any(|log| is_gone(&log.path)) {
        return true;
    }
    let mut segments = report.logs.iter().flat_map(|log| &log.segments);
    segments.any(|segment| is_gone(&segment.path))
}

/// What is wrong beside the logs: blocks, rights, space, the clock. Nothing for a part of a data directory.
#[must_use]
pub fn around(
    target: &Target,
    report: &Report,
    forecast: Option<&Forecast>,
    assumed: Assumed,
    user: Option<User>,
) -> Vec<Finding> {
    if is_whole(target) { ground::findings(target, report, forecast, assumed, user) } else { Vec::new() }
}

/// Whether it is a data directory, and no part of one.
fn is_whole(target: &Target) -> bool {
    target.data_directory_around().as_ref() == Some(target)
}

/// What keeps Prometheus from starting, beside the logs.
#[must_use]
pub fn prevents_a_start(report: &Report) -> Option<&Finding> {
    report.findings.iter().find(|finding| ground::NO_START.contains(&finding.code))
}

/// Takes out the finding that the volume is full.
pub fn without_room(findings: &mut Vec<Finding>) -> Option<Finding> {
    let at = findings.iter().position(|finding| finding.code == Code::NoSpace)?;
    Some(findings.remove(at))
}
