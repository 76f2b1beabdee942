//! What stays without labels for good is recorded in the data directory, so that later scans do not hold it against it.

use std::io;

use crate::change::plan::{Change, Defect, Plan, PlanStep, RepairedFinding, Resolution};
use crate::scan::code::Code;
use crate::scan::report::{Finding, LogKind, Report, Severity};
use crate::tsdb::Target;
use crate::tsdb::losses::{self, LostLabels};

/// The step that records what stays without labels once the steps of `plan` are done, if anything does and no earlier
/// repair has recorded it. None if damage stays: what comes of that is not known. `counted` says whether the plan counts what stays.
pub(super) fn step(
    target: &Target,
    report: &Report,
    plan: &Plan,
    counted: bool,
) -> io::Result<Option<PlanStep>> {
    // Without a WAL nothing is replayed, and the labels are where that is.
    let has_wal = report.logs.iter().any(|log| log.kind == LogKind::Wal);
    let Some(lost) = lost(report, plan, counted).filter(|_| has_wal && plan.left.is_empty()) else {
        return Ok(None);
    };
    let newest = plan.orphans.and_then(|orphans| orphans.to);
    let newest = newest.max(without_labels(report).and_then(|without| without.to));
    if losses::recorded(target.path()).is_some_and(|(recorded, _)| recorded.cover(newest)) {
        return Ok(None);
    }
    let change =
        Change::Create { path: losses::next_name(target.path())?, bytes: serde_json::to_vec(&lost)? };
    let (code, defect) = (Code::UnknownRefs, Defect::LabelsNotFound);
    Ok(Some(PlanStep::of(change, RepairedFinding::new(code, defect, Resolution::LossRecorded))))
}

/// What stays without labels; without counts where these are not known.
fn lost(report: &Report, plan: &Plan, counted: bool) -> Option<LostLabels> {
    let logs = report.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot);
    let newest = logs.filter_map(|log| log.max_time).max();
    if let Some(orphans) = plan.orphans.filter(|orphans| orphans.samples.unwrap_or(orphans.entries) > 0) {
        // What a step restores may be newer than all that is replayed now.
        let to = orphans.to.max(newest).unwrap_or(i64::MIN);
        let is_new = without_labels(report).is_some() || !plan.steps.is_empty();
        return is_new.then(|| LostLabels::new(to, Some(orphans.series), Some(orphans.entries)));
    }
    // What goes for the confusion of generations, or comes too late for what the newest one has, is not loaded.
    if !plan.steps.is_empty() && report.findings.iter().any(Finding::is_of_generations) {
        return Some(LostLabels::new(newest.unwrap_or(i64::MIN), None, None));
    }
    // All have labels again, or how many do not was not counted.
    let not_counted = !counted && plan.orphans.is_none() && plan.labels.found.is_empty();
    without_labels(report).filter(|_| not_counted)?;
    Some(LostLabels::new(newest.unwrap_or(i64::MIN), None, None))
}

/// What has no labels now, by the findings. What a healthy checkpoint keeps of dropped series is a note, and does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WithoutLabels {
    /// How many series.
    pub(crate) series: u64,
    /// How many of their entries.
    pub(crate) entries: u64,
    /// The time of the newest, ms.
    pub(crate) to: Option<i64>,
}

pub(crate) fn without_labels(report: &Report) -> Option<WithoutLabels> {
    let without = |finding: &&Finding| {
        matches!(finding.code, Code::UnknownRefs | Code::SeriesAfterUse) && finding.severity != Severity::Note
    };
    let mut all: Option<WithoutLabels> = None;
    for finding in report.findings.iter().filter(without) {
        let all = all.get_or_insert_default();
        all.series = all.series.saturating_add(finding.series.unwrap_or(0));
        all.entries = all.entries.saturating_add(finding.lost.entries.unwrap_or(0));
        all.to = all.to.max(finding.times.and_then(|times| times.to));
    }
    all
}
