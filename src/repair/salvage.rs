//! The plan that keeps all that can be read: what is wrong with each segment, mended by the smallest change.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::fence::Refs;
use super::generations::Generations;
use super::partial::{Instead, separated};
use super::segment::{Confused, Mend, Mending, Standing};
use super::{
    Options, Refusal, Scanned, fence, half_repaired, head_chunk_files, head_chunks, labels, misplaced,
    repaired, sequence, unrepaired,
};
use crate::change::plan::{
    Change, Content, Diagnosis, Loss, Method, Plan, Removal, RepairedFinding, Resolution, Series, Step,
    UnrepairedFinding,
};
use crate::forecast::report::Forecast;
use crate::scan::code::Code;
use crate::scan::deletions::{self, DeletionsLost};
use crate::scan::report::{Dialect, Finding, LogKind, Report, Severity};
use crate::tsdb::{Listing, Target};

/// Plans what mends the data directory `target`, of which `report` is the scan. Whether it was counted what stays without labels
/// then.
pub(super) fn plan(
    target: &Target,
    report: &Report,
    forecast: Option<&Forecast>,
    options: Options,
    plan: &mut Plan,
) -> io::Result<bool> {
    let listing = target.list()?;
    let scanned = Scanned { target, listing: &listing, report, options };
    // Refs that mean several series are no sign of a run if each is defined once where the pages belong.
    let is_explained = report.misplaced.as_ref().is_some_and(|pages| pages.defines_once);
    let generations = match Generations::of(target, &listing, report, options.assumed)? {
        _ if is_explained => None,
        Ok(generations) => generations,
        // What belongs to whom is not known.
        Err(reason) => {
            refuse(report, &reason, plan);
            return Ok(false);
        }
    };
    let generations = generations.as_ref();
    let mending = scanned.mending();
    let (of_names, rest): (Vec<&Finding>, Vec<&Finding>) = report
        .findings
        .iter()
        .filter(|finding| is_to_be_mended(finding))
        .filter(|finding| !generations.is_some_and(|generations| generations.mends(finding)))
        .filter(|finding| finding.code != Code::SnapshotAhead || generations.is_none())
        .partition(|finding| sequence::is_about_names(&listing, finding));
    let mut findings: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in rest {
        findings.entry(&finding.path).or_default().push(finding);
    }
    let half_repaired = match generations {
        // The numbers of segments change.
        Some(_) => Vec::new(),
        None => half_repaired::steps(target, &listing, report, mending)?,
    };
    let put_back: Vec<String> = half_repaired.iter().map(|step| step.change.path().to_owned()).collect();
    for step in &half_repaired {
        findings.remove(step.change.path());
    }
    if let Some(generations) = generations {
        plan.steps.extend(head_chunks::steps(target, generations)?);
        if !plan.steps.is_empty() && !options.assumed.version.passes_over_unknown_encodings() {
            refuse(report, &head_chunks::TOO_OLD, plan);
            return Ok(false);
        }
    }
    let mut corrected = segments(target, report, mending, (generations, &put_back), &mut findings, plan)?;
    let before = plan.steps.len();
    plan.steps.extend(half_repaired);
    let heads = head_chunk_files::steps(&scanned, (generations.is_some(), forecast), &mut findings, plan)?;
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
    let kept = snapshots(report, forecast, (generations, takes_snapshots), &mut findings, plan);
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
            report.findings.iter().filter(|finding| generations.is_some_and(|g| g.mends(finding)));
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
            misplaced::refs(report, &plan.steps).unwrap_or_else(|| Refs::in_logs(report)).and(corrected);
        let path = fence::behind(&listing, &plan.steps);
        let fence = fence::step(target, report, (refs, &plan.steps), path, mending)?;
        plan.steps.splice(..0, fence);
    }
    Ok(recovered.is_some())
}

/// Nothing is touched.
fn refuse(report: &Report, reason: &Refusal, plan: &mut Plan) {
    plan.steps.clear();
    let damage = report.findings.iter().filter(|finding| is_to_be_mended(finding));
    plan.left.extend(damage.map(|finding| unrepaired(finding, reason.clone())));
}

/// The segments of the newest generation come to be replayed, last of all.
fn renumber(
    scanned: &Scanned<'_>,
    generations: &Generations,
    corrected: Refs,
    plan: &mut Plan,
) -> io::Result<()> {
    let refs = generations.refs.and(corrected);
    let (target, report) = (scanned.target, scanned.report);
    let next = Some(generations.next());
    let fence = fence::step(target, report, (refs, &plan.steps), next, scanned.mending())?;
    let is_made = fence.is_some();
    plan.steps.splice(..0, fence.or_else(|| generations.gap()));
    plan.steps.extend(generations.last(is_made));
    Ok(())
}

/// Damage; and what is none, but makes Prometheus speak of corruption: a torn tail.
fn is_to_be_mended(finding: &Finding) -> bool {
    finding.severity == Severity::Damage
        || finding.severity == Severity::Note
            && finding.offset.is_some()
            && finding.code != Code::TrailingZeros
            && is_about_bytes(finding)
}

fn is_about_bytes(finding: &Finding) -> bool {
    finding.offset.is_some() && finding.segment.is_some() && finding.series.is_none()
}

/// A chunk snapshot that Prometheus does not load is of no use: it replays the WAL instead (`tsdb/head.go`, `Head.Init`). One
/// that it loads in spite of the damage may have what the WAL has lost. One that it loads without the head chunks that go with it
/// hides what the WAL has of these.
fn snapshots(
    report: &Report,
    forecast: Option<&Forecast>,
    (generations, takes_chunks): (Option<&Generations>, bool),
    findings: &mut BTreeMap<&str, Vec<&Finding>>,
    plan: &mut Plan,
) -> Option<UnrepairedFinding> {
    let snapshots = || report.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot);
    if let Some(generations) = generations.filter(|generations| generations.is_begun_anew()) {
        for log in snapshots() {
            for findings in findings.values_mut() {
                findings.retain(|finding| finding.log.as_ref() != Some(&log.path));
            }
            let change = Change::SetAside { path: log.path.clone(), bytes: log.bytes };
            let repaired = generations.repaired(Resolution::SnapshotOfAnotherRunSetAside);
            plan.steps.push(Step::of(change, repaired));
        }
        return None;
    }
    let starts = forecast.into_iter().flat_map(|forecast| &forecast.starts);
    let hides = starts.max_by_key(|start| start.hidden_by_snapshot.samples);
    let (hidden, only) =
        hides.map_or((0, 0), |start| (start.hidden_by_snapshot.samples, start.only_in_snapshot.samples));
    if takes_chunks || hidden > only {
        let diagnosis = if hidden > 0 {
            Diagnosis::SnapshotHidesSamples { samples: hidden }
        } else {
            Diagnosis::SnapshotDoesNotFit
        };
        for log in snapshots() {
            for findings in findings.values_mut() {
                findings.retain(|finding| finding.log.as_ref() != Some(&log.path));
            }
            let (code, resolution) = (Code::SnapshotHidesSamples, Resolution::SnapshotSetAside);
            let change = Change::SetAside { path: log.path.clone(), bytes: log.bytes };
            plan.steps.push(Step::of(change, RepairedFinding::new(code, diagnosis.clone(), resolution)));
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
            plan.steps.push(Step { change, repairs: repairs.collect(), lost: Loss::NOTHING });
        }
    }
    kept
}

/// What Prometheus comes to first is mended last: until then it stops where it stopped before.
fn segments(
    target: &Target,
    report: &Report,
    mending: Mending<'_>,
    (generations, put_back): (Option<&Generations>, &[String]),
    findings: &mut BTreeMap<&str, Vec<&Finding>>,
    plan: &mut Plan,
) -> io::Result<Refs> {
    let mut corrected = Refs::default();
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
                || mending.agent.is_some()
                || comes_back
                || refs_up_to.is_some()
                || arranged.is_some();
            if !is_looked_at || put_back.contains(&segment.path) {
                continue;
            }
            // No agent reads a WBL.
            let agent = mending.agent.filter(|_| kind != LogKind::Wbl);
            let mending = Mending { agent, refs_up_to, ..mending };
            let step = match arranged {
                Some(puts) => misplaced::step(target, &segment.path, mending, &of_bytes, puts)?,
                None => segment_step(target, &segment.path, mending, &of_bytes, Vec::new())?,
            };
            match step {
                Ok((step, refs)) => {
                    plan.steps.extend(step);
                    corrected = corrected.and(refs);
                }
                Err(reason) => {
                    let refused = of_bytes.iter().map(|finding| unrepaired(finding, reason.clone()));
                    plan.left.extend(refused);
                }
            }
        }
    }
    Ok(corrected)
}

/// The step that writes a segment anew, without what is damaged in it, so that it begins with these series; or why there is
/// none.
pub(super) fn rewritten(
    target: &Target,
    path: &str,
    report: &Report,
    mending: Mending<'_>,
    begins_with: Vec<Series>,
) -> io::Result<Result<Step, Refusal>> {
    let findings: Vec<&Finding> = report
        .findings
        .iter()
        .filter(|finding| finding.path == path && is_to_be_mended(finding) && is_about_bytes(finding))
        .collect();
    let step = segment_step(target, path, mending, &findings, begins_with)?;
    Ok(step.and_then(|(step, _)| step.ok_or(Refusal::NothingToWrite)))
}

/// The step that mends a segment, and the refs of corrected records; or why there is none.
fn segment_step(
    target: &Target,
    path: &str,
    mending: Mending<'_>,
    findings: &[&Finding],
    begins_with: Vec<Series>,
) -> io::Result<Result<(Option<Step>, Refs), Refusal>> {
    let full = target.path_of(path);
    if full.is_symlink() {
        return Ok(Err(Refusal::LinkToSegment));
    }
    let file = match crate::io::open(&full) {
        Err(error) if crate::io::is_no_file(&error) => {
            return Ok(Err(Refusal::NotWritten));
        }
        file => file?,
    };
    let metadata = file.metadata()?;
    let standing = Standing::of(&file, metadata.len(), mending);
    if standing.is_in_flux() {
        return Ok(Err(Refusal::DiskFails));
    }
    if standing.has_too_large() {
        return Ok(Err(Refusal::RecordsTooLarge));
    }
    let confused = Confused::of(&file, metadata.len(), mending);
    let mend = if confused.entries > 0 {
        Mend::Rewrite { records: confused.kept }
    } else if !begins_with.is_empty() {
        Mend::Rewrite { records: standing.kept_records() }
    } else {
        standing.mend(&file)?
    };
    let change = match mend {
        Mend::Nothing => return Ok(Ok((None, Refs::default()))),
        Mend::Patch { method, patches } => {
            // Who else has this file by another name keeps it as it is.
            let method = if metadata.nlink() > 1 { Method::Replace } else { method };
            Change::Patch { path: path.to_owned(), method, patches }
        }
        Mend::Rewrite { records } => Change::Rewrite {
            path: path.to_owned(),
            from: None,
            bytes: metadata.len(),
            records,
            agent: mending.agent,
            corrections: mending.corrections,
            refs_up_to: mending.refs_up_to.filter(|_| confused.entries > 0),
            begins_with,
            pages: Vec::new(),
            staged: None,
        },
    };
    let repaired = |finding: &&Finding| repaired(finding, resolution(&file, &standing, &change, finding));
    let mut repairs: Vec<RepairedFinding> = findings.iter().map(repaired).collect();
    repairs.extend(standing.refused().map(|(range, error)| {
        let diagnosis = Diagnosis::RefusedByAgent { error: error.to_owned() };
        let resolution = Resolution::Removed { removal: Removal::Overwritten, deletions: false };
        let repaired = RepairedFinding::new(Code::AgentRefuses, diagnosis, resolution);
        RepairedFinding { offset: Some(range.start), end: Some(range.end), ..repaired }
    }));
    if let (entries @ 1.., Some(above)) = (confused.entries, mending.refs_up_to) {
        let diagnosis = Diagnosis::ReissuedRefs { entries, above };
        repairs.push(RepairedFinding::new(Code::ReissuedRefs, diagnosis, Resolution::EntriesDropped));
    }
    let lost = standing.lost_to_agent().and(confused.lost());
    let has_deletions = mending.agent.is_none() && !path.starts_with("wbl/");
    let of_finding = |finding: &Finding| {
        let lost = loss(&standing, finding);
        let is_lost = has_deletions
            && lost != Loss::NOTHING
            && standing.instead_of(finding.offset.unwrap_or(u64::MAX)).is_none();
        if is_lost { lost.with(deletions(&file, finding)) } else { lost }
    };
    let lost = findings.iter().fold(lost, |sum, finding| sum.and(of_finding(finding)));
    Ok(Ok((Some(Step { change, repairs, lost }), standing.corrected_refs(&file)?)))
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

/// Whether deletions are lost with what is damaged.
fn deletions(file: &File, finding: &Finding) -> DeletionsLost {
    let (Some(offset), Some(end)) = (finding.offset, finding.end) else { return DeletionsLost::Possible };
    deletions::in_damage(file, &(offset..end), finding.orphans.iter().map(|&(offset, _)| offset))
}

/// What becomes of what is damaged.
fn resolution(file: &File, standing: &Standing, change: &Change, finding: &Finding) -> Resolution {
    let at = finding.offset.unwrap_or(u64::MAX);
    if standing.is_corrected(at) {
        let is_sure = finding.correction.is_some();
        return if is_sure { Resolution::BitCorrected } else { Resolution::LargeBitCorrected };
    }
    match standing.instead_of(at) {
        None => Resolution::Removed {
            removal: removal(change, finding),
            deletions: deletions(file, finding) == DeletionsLost::Certain,
        },
        Some(Instead::Parts(parts)) => Resolution::RecordsSeparated { records: separated(parts) },
        Some(Instead::Part(part)) => Resolution::FirstEntriesKept {
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
    // They are in the order of offsets, and zeros stand at the end.
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

fn loss(standing: &Standing, finding: &Finding) -> Loss {
    let at = finding.offset.unwrap_or(u64::MAX);
    match standing.instead_of(at) {
        _ if standing.is_corrected(at) => Loss::NOTHING,
        Some(Instead::Parts(_)) => Loss::NOTHING,
        None => Loss::new(finding.lost.records, finding.lost.entries),
        // The record is still there; what else it held is not known.
        Some(Instead::Part(_)) => Loss::new(Some(0), None),
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
