//! What is wrong with each segment, repaired by the smallest change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::generations::Generations;
use super::no_step::NoStep;
use super::partial::{Substitute, separated};
use super::refs::RefBounds;
use super::segment::{DroppedEntries, SalvagedSegment, SegmentChange, SegmentRules};
use super::{Refusal, is_about_bytes, is_to_be_repaired, misplaced, repaired, unrepaired};
use crate::change::plan::{
    Change, Content, Defect, Loss, Method, Plan, PlanStep, Removal, RepairedFinding, Resolution, Series,
};
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::deletions::{self, DeletionsLost};
use crate::scan::report::{Dialect, Finding, LogKind};
use crate::tsdb::Target;

/// What Prometheus comes to first is repaired last: until then it stops where it stopped before.
pub(super) fn steps(
    target: &Target,
    report: &Scan,
    rules: SegmentRules<'_>,
    generations: Option<&Generations>,
    put_back: &[String],
    findings: &mut BTreeMap<&str, Vec<&Finding>>,
    plan: &mut Plan,
) -> io::Result<RefBounds> {
    let mut corrected = RefBounds::default();
    for kind in [LogKind::Wbl, LogKind::Wal, LogKind::Checkpoint] {
        let logs = report.logs.iter().filter(|log| log.kind == kind && log.dialect == Dialect::Prometheus);
        for segment in logs.flat_map(|log| log.segments.iter().rev()) {
            let none = &mut Vec::new();
            let findings = findings.get_mut(segment.path.as_str()).unwrap_or(none);
            let of_bytes: Vec<&Finding> =
                findings.extract_if(.., |finding| is_about_bytes(finding)).collect();
            let refs_up_to = generations.and_then(|generations| generations.refs_up_to(&segment.path));
            let arranged = report.misplaced.as_ref().filter(|_| generations.is_none());
            let arranged =
                arranged.and_then(|pages| Some((pages.segments.get(&segment.path)?.as_slice(), pages)));
            let comes_back = generations.is_some_and(|generations| generations.brings_back(&segment.path));
            let is_looked_at = !of_bytes.is_empty()
                || rules.agent.is_some()
                || comes_back
                || refs_up_to.is_some()
                || arranged.is_some();
            if !is_looked_at || put_back.contains(&segment.path) {
                continue;
            }
            // No agent reads a WBL.
            let agent = rules.agent.filter(|_| kind != LogKind::Wbl);
            let rules = SegmentRules { agent, refs_up_to, ..rules };
            let step = match arranged {
                Some((puts, pages)) => misplaced::step(target, &segment.path, rules, &of_bytes, puts, pages),
                None => segment_step(target, &segment.path, rules, &of_bytes, Vec::new()),
            };
            match step {
                Ok((step, refs)) => {
                    plan.steps.extend(step);
                    corrected = corrected.and(refs);
                }
                Err(no_step) => {
                    let reason = no_step.refusal()?;
                    let refused = of_bytes.iter().map(|finding| unrepaired(finding, reason.clone()));
                    plan.left.extend(refused);
                }
            }
        }
    }
    Ok(corrected)
}

/// The step that rewrites a segment, without what is damaged in it, so that it begins with these series; or why there is
/// none.
pub(super) fn rewritten(
    target: &Target,
    path: &str,
    report: &Scan,
    rules: SegmentRules<'_>,
    begins_with: Vec<Series>,
) -> Result<PlanStep, NoStep> {
    let findings: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| finding.path == path && is_to_be_repaired(finding) && is_about_bytes(finding))
        .collect();
    let (step, _) = segment_step(target, path, rules, &findings, begins_with)?;
    Ok(step.ok_or(Refusal::NothingToWrite)?)
}

/// The step that repairs a segment, and the refs of corrected records; or why there is none.
fn segment_step(
    target: &Target,
    path: &str,
    rules: SegmentRules<'_>,
    findings: &[&Finding],
    begins_with: Vec<Series>,
) -> Result<(Option<PlanStep>, RefBounds), NoStep> {
    let full = target.path_of(path);
    if full.is_symlink() {
        return Err(Refusal::LinkToSegment.into());
    }
    let file = match crate::io::open(&full) {
        Err(error) if crate::io::is_no_file(&error) => return Err(Refusal::NotWritten.into()),
        file => file?,
    };
    let metadata = file.metadata()?;
    let salvaged = SalvagedSegment::of(&file, metadata.len(), rules);
    if salvaged.is_in_flux() {
        return Err(Refusal::DiskFails.into());
    }
    if salvaged.has_too_large() {
        return Err(Refusal::RecordsTooLarge.into());
    }
    let dropped = DroppedEntries::of(&file, metadata.len(), rules);
    let mend = if dropped.entries > 0 {
        SegmentChange::Rewrite { records: dropped.kept }
    } else if !begins_with.is_empty() {
        SegmentChange::Rewrite { records: salvaged.kept_records() }
    } else {
        salvaged.change(&file)?
    };
    let change = match mend {
        SegmentChange::Nothing => return Ok((None, RefBounds::default())),
        SegmentChange::Patch { method, patches } => {
            // Who else has this file by another name keeps it as it is.
            let method = if metadata.nlink() > 1 { Method::Replace } else { method };
            Change::Patch { path: path.to_owned(), method, patches }
        }
        SegmentChange::Rewrite { records } => Change::Rewrite {
            path: path.to_owned(),
            from: None,
            bytes: metadata.len(),
            records,
            agent: rules.agent,
            corrections: rules.corrections,
            refs_up_to: rules.refs_up_to.filter(|_| dropped.entries > 0),
            begins_with,
            pages: Vec::new(),
            staged: None,
        },
    };
    let repaired = |finding: &&Finding| repaired(finding, resolution(&file, &salvaged, &change, finding));
    let mut repairs: Vec<RepairedFinding> = findings.iter().map(repaired).collect();
    repairs.extend(salvaged.refused().map(|(range, error)| {
        let defect = Defect::RefusedByAgent { error: error.to_owned() };
        let resolution = Resolution::Removed { removal: Removal::Overwritten, deletions: false };
        let repaired = RepairedFinding::new(Code::AgentRefuses, defect, resolution);
        RepairedFinding { offset: Some(range.start), end: Some(range.end), ..repaired }
    }));
    if let (entries @ 1.., Some(above)) = (dropped.entries, rules.refs_up_to) {
        let defect = Defect::ReissuedRefs { entries, above };
        repairs.push(RepairedFinding::new(Code::ReissuedRefs, defect, Resolution::EntriesDropped));
    }
    let lost = salvaged.lost_to_agent().and(dropped.lost());
    let has_deletions = rules.agent.is_none() && !path.starts_with("wbl/");
    let of_finding = |finding: &Finding| {
        let lost = loss(&salvaged, finding);
        let is_lost = has_deletions
            && lost != Loss::NOTHING
            && salvaged.substitute_of(finding.offset.unwrap_or(u64::MAX)).is_none();
        if is_lost { lost.with(deletions(&file, finding)) } else { lost }
    };
    let lost = findings.iter().fold(lost, |sum, finding| sum.and(of_finding(finding)));
    Ok((Some(PlanStep { change, repairs, lost }), salvaged.corrected_refs(&file)?))
}

/// Whether deletions are lost with what is damaged.
fn deletions(file: &File, finding: &Finding) -> DeletionsLost {
    let (Some(offset), Some(end)) = (finding.offset, finding.end) else { return DeletionsLost::Possible };
    deletions::in_damage(file, &(offset..end), finding.orphans.iter().map(|&(offset, _)| offset))
}

/// What becomes of what is damaged.
fn resolution(file: &File, salvaged: &SalvagedSegment, change: &Change, finding: &Finding) -> Resolution {
    let at = finding.offset.unwrap_or(u64::MAX);
    if salvaged.is_corrected(at) {
        let is_sure = finding.correction.is_some();
        return if is_sure { Resolution::BitCorrected } else { Resolution::LargeBitCorrected };
    }
    match salvaged.substitute_of(at) {
        None => Resolution::Removed {
            removal: removal(change, finding),
            deletions: deletions(file, finding) == DeletionsLost::Certain,
        },
        Some(Substitute::Parts(parts)) => Resolution::RecordsSeparated { records: separated(parts) },
        Some(Substitute::Part(part)) => Resolution::FirstEntriesKept {
            entries: part.entries as u64,
            overwritten: matches!(change, Change::Patch { .. }),
        },
    }
}

/// What comes in the place of what is lost.
fn removal(change: &Change, finding: &Finding) -> Removal {
    let patches = match change {
        Change::Patch { patches, .. } => patches,
        Change::Rewrite { begins_with, refs_up_to: None, .. } if begins_with.is_empty() => {
            return Removal::RewrittenUnfillable;
        }
        _ => return Removal::Rewritten,
    };
    // They are in the order of offsets, and zeros are at the end.
    if patches
        .last()
        .is_some_and(|last| matches!(last.with, Content::Zeros(_)) && Some(last.offset) == finding.end)
    {
        return Removal::Completed;
    }
    let up_to = |offset| patches.partition_point(|patch| patch.offset <= offset);
    let last = finding.offset.map_or(0, up_to).checked_sub(1);
    match last.and_then(|last| patches.get(last)).map(|patch| &patch.with) {
        Some(Content::End) => Removal::Truncated,
        _ => Removal::Overwritten,
    }
}

fn loss(salvaged: &SalvagedSegment, finding: &Finding) -> Loss {
    let at = finding.offset.unwrap_or(u64::MAX);
    match salvaged.substitute_of(at) {
        _ if salvaged.is_corrected(at) => Loss::NOTHING,
        Some(Substitute::Parts(_)) => Loss::NOTHING,
        None => Loss::new(finding.lost.records, finding.lost.entries),
        // The record is still there; what else it held is not known.
        Some(Substitute::Part(_)) => Loss::new(Some(0), None),
    }
}
