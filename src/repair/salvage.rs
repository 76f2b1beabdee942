//! The plan that keeps all that can be read: what is wrong with each segment, repaired by the smallest change.

use std::collections::BTreeMap;
use std::io;

use super::generations::{self, Generations};
use super::refs::RefBounds;
use super::{
    Options, Refusal, Scanned, blocks, fence, half_repaired, head_chunk_files, is_to_be_repaired, labels,
    misplaced, reissued_chunks, segments, sequence, snapshots, unrepaired,
};
use crate::change::plan::Plan;
use crate::forecast::report::Forecast;
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::report::{Finding, Report};
use crate::tsdb::{Listing, Target};

/// Plans what repairs the data directory `target`, of which `report` is the scan. Whether it was counted what stays without labels
/// then.
pub(super) fn plan(
    target: &Target,
    report: &Scan,
    forecast: Option<&Forecast>,
    options: Options,
    plan: &mut Plan,
) -> io::Result<bool> {
    let listing = target.list()?;
    let scanned = Scanned { target, listing: &listing, report, options };
    // Refs that mean several series are no sign of a run if each is defined once where the pages belong.
    let is_explained = report.misplaced.as_ref().is_some_and(|pages| pages.defines_once);
    let generations = match generations::find(target, &listing, report, options.assumed) {
        Ok(generations) => generations.filter(|_| !is_explained),
        Err(no_step) => {
            let refusal = no_step.refusal()?;
            if !is_explained {
                // What belongs to whom is not known.
                refuse(report, &refusal, plan);
                return Ok(false);
            }
            None
        }
    };
    let generations = generations.as_ref();
    let rules = scanned.rules();
    let (of_names, rest): (Vec<&Finding>, Vec<&Finding>) = report
        .findings
        .iter()
        .filter(|finding| is_to_be_repaired(finding) && !blocks::is_of_block(finding))
        .filter(|finding| !generations.is_some_and(|generations| generations.repairs(finding)))
        .filter(|finding| finding.code != Code::SnapshotAhead || generations.is_none())
        .partition(|finding| sequence::is_about_names(&listing, finding));
    let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in rest {
        findings.entry(&finding.path).or_default().push(finding);
    }
    let half_repaired = match generations {
        // The numbers of segments change.
        Some(_) => Vec::new(),
        None => half_repaired::steps(target, &listing, report, rules)?,
    };
    let put_back: Vec<String> = half_repaired.iter().map(|step| step.change.path().to_owned()).collect();
    for step in &half_repaired {
        findings.remove(step.change.path());
    }
    if let Some(generations) = generations {
        plan.steps.extend(reissued_chunks::steps(target, generations)?);
        if !plan.steps.is_empty() && !options.assumed.version.passes_over_unknown_encodings() {
            refuse(report, &Refusal::TooOld, plan);
            return Ok(false);
        }
    }
    let mut corrected = segments::steps(target, report, rules, generations, &put_back, &mut findings, plan)?;
    let before = plan.steps.len();
    plan.steps.extend(half_repaired);
    let heads = head_chunk_files::steps(&scanned, generations.is_some(), forecast, &mut findings, plan)?;
    let mut of_names = of_names;
    let mut takes_snapshots = heads.takes_chunks;
    if let Some(ahead) = of_names.iter().find(|finding| finding.code == Code::SnapshotAhead) {
        // What it would hide if it was not ahead.
        let counted = crate::forecast::with_last_snapshot(target, &listing, report, options.assumed)?;
        let hides = counted
            .is_none_or(|counted| counted.hidden_by_snapshot.samples > counted.only_in_snapshot.samples);
        takes_snapshots |= hides || sequence::up_to_snapshot(&listing, ahead).is_none();
        if takes_snapshots {
            of_names.retain(|finding| finding.code != Code::SnapshotAhead);
        }
    }
    let kept = snapshots::steps(report, forecast, generations, takes_snapshots, &mut findings, plan);
    plan.steps.extend_from_slice(&heads.first);
    let (wants_fence, is_emptied) = (heads.wants_fence, heads.is_emptied);
    misplaced::settle(report, &mut findings, plan);
    plan.left.extend(
        findings.into_values().flatten().map(|finding| unrepaired(finding, why_not(target, finding))),
    );
    names(target, &listing, &of_names, plan);
    heads.lift(plan);
    plan.left.extend(kept);
    if generations.is_some() && !plan.left.is_empty() {
        plan.steps.clear();
        let numbering =
            report.findings.iter().filter(|finding| generations.is_some_and(|g| g.repairs(finding)));
        plan.left.extend(numbering.map(|finding| unrepaired(finding, Refusal::OtherDamage)));
        return Ok(false);
    }
    let recovered = labels::recover(&scanned, generations, before, plan)?;
    match recovered {
        Some(recovered) => corrected.defined = corrected.defined.max(recovered.highest),
        // How many of them get their labels back is not counted.
        None if corrected.defined.is_some() || generations.is_some() => plan.orphans = None,
        None => {}
    }
    if let Some(generations) = generations {
        renumber(&scanned, generations, corrected, plan)?;
        return Ok(recovered.is_some());
    }
    if (!plan.steps.is_empty() || wants_fence) && !is_emptied {
        let refs =
            misplaced::refs(report, &plan.steps).unwrap_or_else(|| RefBounds::in_logs(report)).and(corrected);
        let path = fence::next_segment(&listing, &plan.steps);
        let fence = fence::step(target, report, refs, &plan.steps, path, rules)?;
        plan.steps.splice(..0, fence);
    }
    Ok(recovered.is_some())
}

/// Nothing is touched.
fn refuse(report: &Report, reason: &Refusal, plan: &mut Plan) {
    plan.steps.clear();
    let mut damage: Vec<&Finding> =
        report.findings.iter().filter(|finding| is_to_be_repaired(finding)).collect();
    // Blocks have nothing to do with it.
    damage.retain(|finding| !blocks::is_of_block(finding));
    plan.left.extend(damage.into_iter().map(|finding| unrepaired(finding, reason.clone())));
}

/// The segments of the newest generation come to be replayed, last of all.
fn renumber(
    scanned: &Scanned<'_>,
    generations: &Generations,
    corrected: RefBounds,
    plan: &mut Plan,
) -> io::Result<()> {
    let refs = generations.refs.and(corrected);
    let (target, report) = (scanned.target, scanned.report);
    let next = Some(generations.next());
    let fence = fence::step(target, report, refs, &plan.steps, next, scanned.rules())?;
    let is_made = fence.is_some();
    plan.steps.splice(..0, fence.or_else(|| generations.gap()));
    plan.steps.extend(generations.last(is_made));
    Ok(())
}

/// As long as Prometheus does not start it deletes nothing. So nothing lets it start while something is left for which it
/// would.
fn names(target: &Target, listing: &Listing, findings: &[&Finding], plan: &mut Plan) {
    if !plan.left.is_empty() {
        plan.left.extend(findings.iter().map(|finding| unrepaired(finding, Refusal::NoStart)));
        return;
    }
    match sequence::steps(target, listing, findings) {
        Ok(steps) => plan.steps.extend(steps),
        Err(reason) => {
            plan.left.extend(findings.iter().map(|finding| unrepaired(finding, reason.clone())));
        }
    }
}

fn why_not(target: &Target, finding: &Finding) -> Refusal {
    match finding.code {
        Code::ReissuedRefs => Refusal::NotOneDirectory,
        Code::RepeatedSeries => Refusal::WhichCopy,
        Code::NotAFile if target.path_of(&finding.path).is_symlink() => Refusal::WritesThroughLink,
        Code::LinkNotFollowed => Refusal::LinkedDirectory,
        Code::NotAFile => Refusal::MoveAway,
        _ if finding.log.as_deref().is_some_and(|log| log.starts_with("chunk_snapshot.")) => {
            Refusal::SnapshotMayLoad
        }
        _ => Refusal::NotYet,
    }
}
