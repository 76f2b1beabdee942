//! The plan that keeps all that can be read: what is wrong with each segment, mended by the smallest change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::input;
use super::plan::{Change, Content, Left, Loss, Mends, Method, Mode, Patch, Plan, SCHEMA, Step};
use super::segment::{Mend, Standing};
use crate::scan::report::{Dialect, Finding, Report, Severity};
use crate::tsdb::{LogKind, Target};

/// Makes the plan for the data directory `target`, of which `report` is the scan.
pub(super) fn plan(target: &Target, report: &Report) -> io::Result<Plan> {
    let mut findings = by_path(report);
    let mut plan = Plan {
        schema: SCHEMA.to_owned(),
        walfix: report.walfix.to_owned(),
        path: report.path.clone(),
        mode: Mode::Salvage,
        steps: Vec::new(),
        left: Vec::new(),
        lost: Loss::NOTHING,
        inputs: Vec::new(),
    };
    // What Prometheus comes to first is mended last: until then it stops where it stopped before.
    let mendable = |kind| match kind {
        LogKind::Wbl => Some(0),
        LogKind::Wal => Some(1),
        LogKind::Checkpoint | LogKind::ChunkSnapshot => None,
    };
    let mut logs: Vec<_> = report.logs.iter().filter(|log| log.dialect == Dialect::Prometheus).collect();
    logs.retain(|log| mendable(log.kind).is_some());
    logs.sort_by_key(|log| mendable(log.kind));
    for segment in logs.iter().flat_map(|log| log.segments.iter().rev()) {
        let Some(findings) = findings.get_mut(segment.path.as_str()) else { continue };
        let of_bytes: Vec<&Finding> = findings.extract_if(.., |finding| is_about_bytes(finding)).collect();
        if of_bytes.is_empty() {
            continue;
        }
        match segment_step(target, &segment.path, &of_bytes)? {
            Ok(step) => plan.steps.extend(step),
            Err(reason) => plan.left.extend(of_bytes.iter().map(|finding| left(finding, reason))),
        }
    }
    let rest = findings.into_values().flatten().filter(|finding| finding.severity == Severity::Damage);
    plan.left.extend(rest.map(|finding| left(finding, why_not(finding))));
    plan.lost = plan.steps.iter().fold(Loss::NOTHING, |sum, step| sum.and(step.lost));
    let touched: Vec<&str> = plan.steps.iter().map(|step| step.change.path()).collect();
    plan.inputs = input::all(target, &touched)?;
    Ok(plan)
}

fn by_path(report: &Report) -> BTreeMap<&str, Vec<&Finding>> {
    let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &report.findings {
        findings.entry(&finding.path).or_default().push(finding);
    }
    findings
}

/// Whether it is mended by changing bytes of its segment. A torn tail is no damage, but Prometheus cuts it, and says so.
fn is_about_bytes(finding: &Finding) -> bool {
    finding.offset.is_some()
        && (finding.severity == Severity::Damage
            || finding.severity == Severity::Note && finding.code != "trailing_zeros")
}

/// The step that mends a segment, or why there is none.
fn segment_step(
    target: &Target,
    path: &str,
    findings: &[&Finding],
) -> io::Result<Result<Option<Step>, &'static str>> {
    let file = File::open(target.path_of(path))?;
    let length = file.metadata()?.len();
    let standing = Standing::of(&file, length);
    if standing.is_in_flux() {
        return Ok(Err(
            "bytes that cannot be read now may be readable later, or elsewhere: copy the directory first",
        ));
    }
    let change = match standing.mend(&file)? {
        Mend::Nothing => return Ok(Ok(None)),
        // By its other names, somebody may keep it as it is: a snapshot made of hard links.
        Mend::Patch { patches, .. } if file.metadata()?.nlink() > 1 => {
            Change::Patch { path: path.to_owned(), method: Method::Replace, patches }
        }
        Mend::Patch { method, patches } => Change::Patch { path: path.to_owned(), method, patches },
        Mend::Rewrite { records } => Change::Rewrite { path: path.to_owned(), bytes: length, records },
    };
    let mends = findings.iter().map(|finding| mends(finding, how(&change, finding))).collect();
    let lost = findings.iter().fold(Loss::NOTHING, |sum, finding| sum.and(loss(finding)));
    Ok(Ok(Some(Step { change, mends, lost })))
}

fn mends(finding: &Finding, how: &str) -> Mends {
    Mends {
        code: finding.code.to_owned(),
        offset: finding.offset,
        end: finding.end,
        message: finding.message.clone(),
        how: how.to_owned(),
    }
}

fn how(change: &Change, finding: &Finding) -> &'static str {
    if finding.correction.is_some() {
        return "the flipped bit is put right";
    }
    let Change::Patch { patches, .. } = change else {
        return "the segment is written anew without it: a hole of this size cannot be filled";
    };
    let is_cut = |patch: &&Patch| finding.offset.is_some_and(|offset| patch.offset <= offset);
    match patches.iter().rfind(is_cut).map(|patch| &patch.with) {
        Some(Content::End) => "the segment ends here; nothing that can be read follows",
        Some(Content::Zeros(_)) => {
            "the zeros that are missing at the end are added: the record is whole with them"
        }
        _ => "filled with records that say nothing",
    }
}

fn loss(finding: &Finding) -> Loss {
    Loss { records: finding.lost.records, entries: finding.lost.entries }
}

fn left(finding: &Finding, reason: &str) -> Left {
    Left {
        code: finding.code.to_owned(),
        path: finding.path.clone(),
        offset: finding.offset,
        end: finding.end,
        reason: reason.to_owned(),
    }
}

fn why_not(finding: &Finding) -> &'static str {
    match finding.code {
        "restarted_generation" | "checkpoint_ahead" | "reissued_refs" => {
            "walfix does not yet mend a directory on which Prometheus has run since the damage"
        }
        _ if finding.log.as_deref().is_some_and(|log| log.contains("checkpoint.")) => {
            "walfix does not yet mend checkpoints"
        }
        _ => "walfix does not mend this yet",
    }
}
