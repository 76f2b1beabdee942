//! Entries whose series is defined nowhere, as a plan counts them.

use crate::change::plan::Orphans;
use crate::scan::code::Code;
use crate::scan::report::{LogKind, Report};

/// What has lost its labels, by the findings of `report`.
pub(super) fn orphans(report: &Report) -> Option<Orphans> {
    let unknown = report.findings.iter().filter(|finding| finding.code == Code::UnknownRefs);
    let mut orphans = Orphans { of: entries_in_logs(report), ..Orphans::default() };
    for finding in unknown {
        orphans.series = orphans.series.saturating_add(finding.series.unwrap_or(0));
        orphans.entries = orphans.entries.saturating_add(finding.lost.entries.unwrap_or(0));
        let times = finding.times.as_ref();
        orphans.from = orphans.from.into_iter().chain(times.and_then(|times| times.from)).min();
        orphans.to = orphans.to.max(times.and_then(|times| times.to));
    }
    (orphans.entries > 0).then_some(orphans)
}

/// Samples, histograms and exemplars in all logs.
fn entries_in_logs(report: &Report) -> u64 {
    let logs = report.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot);
    let used = logs.flat_map(|log| {
        let entries = &log.entries;
        [entries.samples, entries.histograms, entries.float_histograms, entries.exemplars]
    });
    used.fold(0, u64::saturating_add)
}
