//! The plan that keeps what Prometheus's own repair would keep: the records before the first fault, and no segment after
//! it. Where Prometheus would not start, or would delete what it does not repair, there is none.
//!
//! A damaged checkpoint Prometheus does not repair: it deletes the WAL. Here the checkpoint is cut, and the WAL stays.
//!
//! Source: Prometheus `tsdb/wlog/wlog.go` (`WL.Repair`), as [`crate::forecast`] models it.

mod checkpoint;

use std::collections::HashSet;
use std::io;

use super::fence;
use super::generations;
use super::refs::RefBounds;
use super::segment::SegmentRules;
use super::{Options, Refusal, Scanned, labels, unrepaired};
use crate::change::plan::{
    Change, Content, Defect, Loss, Method, Patch, Plan, PlanStep, RepairedFinding, Resolution,
    UnrepairedFinding,
};
use crate::forecast::Assumed;
use crate::forecast::replay::{Part, Reader, read};
use crate::forecast::report::{Forecast, Outcome, Start, Truncate};
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::report::{Finding, LogKind, Severity};
use crate::tsdb::{Listing, Target};

/// Plans what Prometheus's next starts would do to the segments of `target`.
pub(super) fn plan(
    target: &Target,
    report: &Scan,
    forecast: Option<&Forecast>,
    options: Options,
    plan: &mut Plan,
) -> io::Result<()> {
    let assumed = options.assumed;
    let refuses = |plan: &mut Plan, reason: &Refusal| {
        plan.steps.clear();
        let damage = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
        plan.left.extend(damage.map(|finding| unrepaired(finding, reason.clone())));
        Ok(())
    };
    let Some(forecast) = forecast else {
        return refuses(plan, &Refusal::NothingKnown);
    };
    let listing = target.list()?;
    let scanned = Scanned { target, listing: &listing, report, options };
    if let Some(cut) = checkpoint::cut(&listing, forecast, assumed, SegmentRules::of(report))? {
        match generations::find(target, &listing, report, assumed) {
            Ok(None) => {}
            Ok(Some(_)) => return refuses(plan, &Refusal::StartedSince),
            Err(no_step) => return refuses(plan, &no_step.refusal()?),
        }
        // What is cut off does not define any more.
        let RefBounds { defined, used } = RefBounds::in_logs(report);
        let refs = RefBounds { defined: None, used: used.max(defined) }.and(cut.refs);
        let path = fence::next_segment(&listing, &cut.steps);
        let rules = scanned.rules();
        plan.steps.extend(fence::step(target, report, refs, &cut.steps, path, rules)?);
        plan.steps.extend(cut.steps);
        (plan.lost_series, plan.lost_series_count) = (cut.lost_series, cut.lost_refs.len() as u64);
        let rest = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
        let rest = rest.filter(|finding| !is_mended(plan, finding) && !finding.path.starts_with(&cut.path));
        let rest: Vec<UnrepairedFinding> = rest
            .filter(|finding| finding.code != Code::UnknownRefs)
            .map(|finding| unrepaired(finding, Refusal::ShowsLater))
            .collect();
        plan.left.extend(rest);
        // Prometheus would delete the WAL, which loses more; but that it stays is of no use without the labels.
        return labels::count(&scanned, plan);
    }
    if let Some(start) = forecast.starts.iter().find(|start| !repairs(start)) {
        let error = start.fatal.as_ref().or(start.error.as_ref()).map_or("nothing", String::as_str);
        return refuses(plan, &Refusal::DoesNotStart { error: error.to_owned() });
    }
    if forecast.poisoned {
        return refuses(plan, &Refusal::NeverRepairs);
    }
    let segments = segments(&listing);
    for start in &forecast.starts {
        // The last first: what is left has no gap.
        for path in start.deletes.iter().rev().filter(|path| segments.contains(*path)) {
            let bytes = target.path_of(path).metadata()?.len();
            let change = Change::SetAside { path: path.clone(), bytes };
            plan.steps.push(step(change, start, Resolution::SegmentsAfterFaultSetAside));
        }
        for cut in &start.truncates {
            plan.steps.extend(cut_step(&listing, cut, assumed, start)?);
        }
    }
    let silent = report
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Damage && !is_mended(plan, finding));
    let silent: Vec<UnrepairedFinding> =
        silent.map(|finding| unrepaired(finding, Refusal::NotSeen)).collect();
    plan.left.extend(silent);
    labels::count(&scanned, plan)
}

/// Whether it serves afterwards.
fn repairs(start: &Start) -> bool {
    matches!(start.outcome, Outcome::Starts | Outcome::Loses)
}

/// The paths of all segments of WAL and WBL.
fn segments(listing: &Listing) -> HashSet<String> {
    let logs = listing.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Wbl));
    logs.flat_map(|log| log.segments.iter().map(|segment| log.relative_of(segment))).collect()
}

fn is_mended(plan: &Plan, finding: &Finding) -> bool {
    plan.steps.iter().any(|step| match &step.change {
        Change::SetAside { path, .. } => *path == finding.path,
        Change::Patch { path, patches, .. } => {
            *path == finding.path
                && patches.iter().any(|patch| finding.end.is_none_or(|end| patch.offset < end))
        }
        _ => false,
    })
}

/// Cuts a segment after the last record that Prometheus's reader reads before the first fault.
fn cut_step(
    listing: &Listing,
    cut: &Truncate,
    assumed: Assumed,
    start: &Start,
) -> io::Result<Option<PlanStep>> {
    let mut logs = listing.logs.iter();
    let found = logs.find_map(|log| {
        Some((log, log.segments.iter().find(|segment| log.relative_of(segment) == cut.path)?))
    });
    let Some((log, segment)) = found else { return Ok(None) };
    let reader = match (log.kind, assumed.agent) {
        (LogKind::Wbl, _) => Reader::Wbl,
        (_, true) => Reader::Agent,
        (_, false) => Reader::Wal,
    };
    let file = crate::io::open(&segment.path)?;
    let length = file.metadata()?.len();
    let part = Part { dir: log.relative.clone(), index: segment.index, source: &file, length };
    let reading = read(vec![part], reader, assumed.version);
    let keeps = reading.read_to.map_or(0, |(_, end)| end.min(length));
    let patch = Patch { offset: keeps, replaces: length - keeps, with: Content::End };
    let change = Change::Patch { path: cut.path.clone(), method: Method::InPlace, patches: vec![patch] };
    Ok((keeps < length).then(|| step(change, start, Resolution::TruncatedAtFault)))
}

pub(super) fn step(change: Change, start: &Start, resolution: Resolution) -> PlanStep {
    let defect = Defect::PrometheusRepairs { error: start.error.clone().unwrap_or_default() };
    let repaired = RepairedFinding::new(Code::PrometheusRepair, defect, resolution);
    PlanStep { lost: Loss::default(), ..PlanStep::of(change, repaired) }
}
