//! What stays without labels for good is recorded in the data directory, so that later scans do not hold it against it.

use std::io;

use super::plan::{Change, Loss, Mends, Plan, Step};
use crate::scan::report::{Finding, Report, Severity};
use crate::tsdb::Target;
use crate::tsdb::losses::{self, LostLabels};

/// The step that records what stays without labels once the steps of `plan` are done, if anything does and no earlier
/// repair has recorded it. None if damage stays: what comes of that is not known.
pub(super) fn step(target: &Target, report: &Report, plan: &Plan) -> io::Result<Option<Step>> {
    let Some(lost) = lost(report, plan).filter(|_| plan.left.is_empty()) else { return Ok(None) };
    if losses::recorded(target.path()).is_some_and(|(recorded, _)| recorded.cover(&lost)) {
        return Ok(None);
    }
    let change =
        Change::Create { path: losses::next_name(target.path())?, bytes: serde_json::to_vec(&lost)? };
    let mends = Mends {
        code: "unknown_refs".to_owned(),
        offset: None,
        end: None,
        message: "samples stay without labels, which are nowhere to be found".to_owned(),
        how: "this file records it, so that later scans do not report it as damage".to_owned(),
    };
    Ok(Some(Step { change, mends: vec![mends], lost: Loss::NOTHING }))
}

/// What stays without labels; without counts where these are not known.
fn lost(report: &Report, plan: &Plan) -> Option<LostLabels> {
    let now = without_labels(report)?;
    if let Some(orphans) = plan.orphans {
        let samples = orphans.samples.unwrap_or(orphans.entries);
        let most = |known: Option<u64>, planned: u64| known.map(|known| known.max(planned));
        return (samples > 0).then(|| {
            LostLabels::new(
                now.highest_ref,
                most(now.series, orphans.series),
                most(now.entries, orphans.entries),
                now.to,
            )
        });
    }
    // All have labels again, or how many do not was not counted.
    plan.labels.found.is_empty().then(|| LostLabels::new(now.highest_ref, None, None, now.to))
}

/// What has no labels now, by the findings. What a healthy checkpoint keeps of dropped series is a note, and does not count.
#[must_use]
pub(crate) fn without_labels(report: &Report) -> Option<LostLabels> {
    let mut all: Option<(u64, u64, Option<i64>)> = None;
    let without = |finding: &&Finding| {
        matches!(finding.code, "unknown_refs" | "series_after_use") && finding.severity != Severity::Note
    };
    for finding in report.findings.iter().filter(without) {
        let (series, entries, to) = all.get_or_insert_default();
        *series = series.saturating_add(finding.series.unwrap_or(0));
        *entries = entries.saturating_add(finding.lost.entries.unwrap_or(0));
        *to = (*to).max(finding.times.and_then(|times| times.to));
    }
    let (series, entries, to) = all?;
    Some(LostLabels::new(report.refs.unknown.unwrap_or(0), Some(series), Some(entries), to))
}
