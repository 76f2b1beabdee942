//! Chunk snapshots that Prometheus does not load, or that hide what the WAL has.

use std::collections::BTreeMap;

use super::generations::Generations;
use super::{Refusal, repaired};
use crate::change::plan::{
    Change, Defect, Loss, Plan, PlanStep, RepairedFinding, Resolution, UnrepairedFinding,
};
use crate::forecast::report::Forecast;
use crate::scan::code::Code;
use crate::scan::report::{Finding, LogKind, Report, Severity};

/// A chunk snapshot that Prometheus does not load is of no use: it replays the WAL instead (`tsdb/head.go`, `Head.Init`). One
/// that it loads in spite of the damage may have what the WAL has lost. One that it loads without the head chunks that go with it
/// hides what the WAL has of these.
pub(super) fn steps(
    report: &Report,
    forecast: Option<&Forecast>,
    generations: Option<&Generations>,
    takes_chunks: bool,
    findings: &mut BTreeMap<&str, Vec<&Finding>>,
    plan: &mut Plan,
) -> Option<UnrepairedFinding> {
    let snapshots = || report.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot);
    if let Some(generations) = generations.filter(|generations| generations.has_foreign_snapshots()) {
        for log in snapshots() {
            for findings in findings.values_mut() {
                findings.retain(|finding| finding.log.as_ref() != Some(&log.path));
            }
            let change = Change::SetAside { path: log.path.clone(), bytes: log.bytes };
            let repaired = generations.repaired(Resolution::SnapshotOfAnotherRunSetAside);
            plan.steps.push(PlanStep::of(change, repaired));
        }
        return None;
    }
    let starts = forecast.into_iter().flat_map(|forecast| &forecast.starts);
    let hides = starts.max_by_key(|start| start.hidden_by_snapshot.samples);
    let (hidden, only) =
        hides.map_or((0, 0), |start| (start.hidden_by_snapshot.samples, start.only_in_snapshot.samples));
    if takes_chunks || hidden > only {
        let defect = if hidden > 0 {
            Defect::SnapshotHidesSamples { samples: hidden }
        } else {
            Defect::SnapshotDoesNotFit
        };
        for log in snapshots() {
            for findings in findings.values_mut() {
                findings.retain(|finding| finding.log.as_ref() != Some(&log.path));
            }
            let (code, resolution) = (Code::SnapshotHidesSamples, Resolution::SnapshotSetAside);
            let change = Change::SetAside { path: log.path.clone(), bytes: log.bytes };
            plan.steps.push(PlanStep::of(change, RepairedFinding::new(code, defect.clone(), resolution)));
        }
        return None;
    }
    let kept = snapshots().next_back().filter(|_| hidden > 0).map(|log| UnrepairedFinding {
        code: Code::SnapshotHidesSamples.into(),
        path: log.path.clone(),
        offset: None,
        end: None,
        refusal: Refusal::SnapshotKept { hidden, only },
    });
    let first = forecast.and_then(|forecast| forecast.starts.first());
    let not_loaded = first.and_then(|start| start.snapshot_in_error.as_ref());
    for log in snapshots().filter(|log| not_loaded == Some(&log.path)) {
        let mut of_log: Vec<&Finding> = Vec::new();
        for findings in findings.values_mut() {
            of_log.extend(findings.extract_if(.., |finding| finding.log.as_ref() == Some(&log.path)));
        }
        if of_log.iter().any(|finding| finding.severity == Severity::Damage) {
            let change = Change::SetAside { path: log.path.clone(), bytes: log.bytes };
            let repairs = of_log.iter().map(|finding| repaired(finding, Resolution::SnapshotSetAside));
            plan.steps.push(PlanStep { change, repairs: repairs.collect(), lost: Loss::NOTHING });
        }
    }
    kept
}
