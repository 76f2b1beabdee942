//! From findings, forecast and plan to a state, and why.

use crate::forecast::report::{Forecast, Outcome, Samples, Start};
use crate::repair::plan::{Change, PlanCode, PlanStep};
use crate::repair::{Mode, Plan, WithoutLabels, without_labels};
use crate::scan::blocks::Consequence;
use crate::scan::code::Code;
use crate::scan::detail::Detail;
use crate::scan::findings::of_path;
use crate::scan::report::{Finding, Reason, Report, Severity, State};
use crate::tsdb::Target;
use crate::tsdb::losses;

use super::ground::NO_START;

/// Sets the state of `report`, and adds a warning of what an earlier repair has recorded as lost.
pub fn judge(target: &Target, report: &mut Report, forecast: Option<&Forecast>, plan: Option<&Plan>) {
    report.findings.retain(|finding| finding.code != Code::LostLabels);
    let mut reasons = Vec::new();
    let mut because = |reason, holds: bool| {
        if holds {
            reasons.push(reason);
        }
    };
    let has = |codes: &[Code]| report.findings.iter().any(|finding| codes.contains(&finding.code));
    // The directory does not tell whether Prometheus runs with chunk snapshots or without: either has to be right.
    let forecasts =
        || forecast.into_iter().chain(forecast.and_then(|with| with.without_snapshots.as_deref()));
    let starts = || forecasts().flat_map(|forecast| &forecast.starts);
    let comes_up = |outcome| matches!(outcome, Outcome::Starts | Outcome::Loses);
    let fails = starts().any(|start| !comes_up(start.outcome));
    let always =
        forecasts().any(|forecast| forecast.starts.last().is_some_and(|start| !comes_up(start.outcome)));
    because(Reason::StartFails, fails || has(&NO_START));
    let recorded = losses::recorded(target.path());
    let loses = |start: &&Start| {
        start.outcome == Outcome::Loses || start.gone.samples > 0 || start.passed_over.samples > 0
    };
    // What a repair could not bring back.
    let is_known = |start: &Start| {
        let (left_out, gone) = (start.not_replayed, start.gone);
        let is_quiet = start.error.is_none() && start.deletes.is_empty() && start.truncates.is_empty();
        let is_recorded = recorded.as_ref().is_some_and(|(lost, _)| lost.cover(left_out.max_time));
        // What no start serves, and is gone once the WBL has been taken in, is none the worse for that.
        is_quiet && is_recorded && left_out.samples >= gone.samples.max(1) && start.passed_over.samples == 0
    };
    let known_loss = starts().filter(loses).find(|start| is_known(start)).map(|start| start.not_replayed);
    because(Reason::StartLoses, starts().filter(loses).any(|start| !is_known(start)));
    because(Reason::WrongLabels, starts().any(|start| start.wrong_labels.samples > 0));
    // Of a log that lies somewhere by itself the labels may be elsewhere.
    let is_in_directory = target.data_directory_around().is_some();
    let unlabelled = is_in_directory && starts().any(|start| start.unknown_refs.samples > 0);
    let unlabelled = unlabelled.then(|| without_labels(report)).flatten();
    let known =
        recorded.as_ref().filter(|(lost, _)| unlabelled.as_ref().is_some_and(|now| lost.cover(now.to)));
    because(Reason::DropsUnlabelled, unlabelled.is_some() && known.is_none());
    because(Reason::SkipsBlock, has(&[Code::BlockSkipped, Code::BlockIncomplete]));
    because(
        Reason::RefusesSamples,
        has(&[Code::FutureSamples]) || forecasts().any(|forecast| forecast.refuses_until.is_some()),
    );
    because(Reason::CheckpointFails, forecasts().any(|forecast| forecast.next_checkpoint_error.is_some()));
    let fails_to_compact = [Consequence::CompactionFails, Consequence::CompactionStops];
    let mut of_blocks = report.blocks.iter().flat_map(|block| &block.consequences);
    because(
        Reason::CompactionFails,
        forecasts().any(|forecast| forecast.next_compaction_error.is_some())
            || of_blocks.any(|consequence| fails_to_compact.contains(consequence)),
    );
    because(Reason::Damage, report.of_severity(Severity::Damage).next().is_some());
    because(Reason::NotRead, has(&[Code::NotRead, Code::RecordTooLarge]));
    because(
        Reason::Repairable,
        plan.is_some_and(|plan| {
            // The other mode also cuts what is normal after a crash.
            plan.mode == Mode::Salvage && plan.steps.iter().any(|step| is_needed(step, &report.findings))
        }),
    );
    let state = match reasons.first() {
        None => State::Clean,
        Some(Reason::StartFails) if always || has(&NO_START) => State::WillNotStart,
        Some(
            Reason::StartFails
            | Reason::StartLoses
            | Reason::WrongLabels
            | Reason::DropsUnlabelled
            | Reason::SkipsBlock,
        ) => State::WillLoseData,
        Some(Reason::RefusesSamples) => State::TakesNoSamples,
        Some(
            Reason::CheckpointFails
            | Reason::CompactionFails
            | Reason::Damage
            | Reason::NotRead
            | Reason::Repairable,
        ) => State::Damaged,
    };
    let known_labels = known.and(unlabelled);
    if let Some((_, at)) = recorded.filter(|_| known_labels.is_some() || known_loss.is_some()) {
        report.findings.push(lost(known_labels, known_loss, at));
    }
    debug_assert!(
        report.findings.iter().all(Finding::has_a_severity_of_its_code),
        "a severity that the documents do not have"
    );
    report.judge(state, reasons);
}

fn lost(unlabelled: Option<WithoutLabels>, left_out: Option<Samples>, at: i64) -> Finding {
    let detail = Detail::RecordedLoss {
        at,
        unlabelled: unlabelled.map(|now| (now.entries, now.series)),
        not_loaded: left_out.map(|left_out| (left_out.samples, left_out.series)),
    };
    let series = unlabelled.map(|now| now.series);
    Finding { series, ..of_path(None, String::new(), Code::LostLabels, Severity::Warning, detail) }
}

/// Whether a step does more than tidy up what is normal after a crash, as a torn tail.
fn is_needed(step: &PlanStep, findings: &[Finding]) -> bool {
    let is_fence =
        |code: &PlanCode| *code == Code::UnknownRefs && matches!(step.change, Change::Create { .. });
    let is_note = |code: &PlanCode, offset| {
        let same = |finding: &&Finding| {
            *code == finding.code && finding.offset == offset && finding.path == step.change.path()
        };
        findings.iter().filter(same).all(|finding| finding.severity == Severity::Note)
            && findings.iter().any(|finding| same(&finding))
    };
    !step.repairs.iter().all(|repaired| is_fence(&repaired.code) || is_note(&repaired.code, repaired.offset))
}
