//! Files of head chunks: missing, damaged, or of a run that is gone.
//!
//! A start takes from the WAL no sample that is older than the last head chunk of its series (`tsdb/head_wal.go`, `mmMaxTime`): a
//! hole between chunks hides what the WAL has there. So the files end where the first fault is, and all later ones go into the
//! backup; what stood there is in the WAL. Before that no chunk moves, since markers in the WBL name chunks by file and offset:
//! one that is not of the series whose ref it has gets an encoding that nobody knows. Files at the beginning of the sequence that
//! are of a run that is gone as a whole go into the backup: any number may come first.
//!
//! A chunk that matches its checksum and cannot be decoded does not end its file: its ref and its end are certain. A start loads
//! it, so what the log has of its time is hidden already, and it can only get better if the chunk is skipped. All later chunks in
//! order of its series would go on to hide that; so they are skipped too, if the log has more of it than would be lost with what
//! is in head chunks alone. Then the start takes all of that from the log, as it does after a file has been truncated, but of this
//! series only. Where the checksum is wrong, the ref may be, too: nobody can tell whose later chunks would hide what the log has,
//! and so the file ends there.

mod planned;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::io;

use self::planned::{HeadChunkSteps, aside, path_of};
use self::walk::{Walk, is_of_loaded_chunk};
use super::chunks::CHUNKS_HEAD;
use super::{Refusal, Scanned, repaired, unrepaired};
use crate::change::plan::{Change, Defect, Plan, PlanStep, RepairedFinding, Resolution};
use crate::forecast::report::Forecast;
use crate::scan::code::Code;
use crate::scan::report::{Finding, Severity};
use crate::tsdb::{HeadChunkFile, list_head_chunks};

/// Findings that are repaired here.
const CODES: [Code; 7] = [
    Code::DamagedHeadChunk,
    Code::HeadChunksHeader,
    Code::HeadChunksNotSequential,
    Code::HeadChunksOfOtherSeries,
    Code::HeadChunksOutOfSequence,
    Code::WblWithoutSeries,
    Code::HeadChunksWithoutSeries,
];

/// The steps that repair what has been found of head chunks; takes these findings out of `findings`.
pub(super) fn steps<'a>(
    scanned: &Scanned<'a>,
    has_generations: bool,
    forecast: Option<&Forecast>,
    findings: &mut BTreeMap<&str, Vec<&'a Finding>>,
    plan: &mut Plan,
) -> io::Result<HeadChunkSteps> {
    let (mut found, mut misnamed): (Vec<&'a Finding>, Vec<&'a Finding>) = Default::default();
    for findings in findings.values_mut() {
        found.extend(findings.extract_if(.., |finding| CODES.contains(&finding.code)));
        misnamed.extend(findings.extract_if(.., |finding| finding.code == Code::MisnamedHeadChunks));
    }
    let mut steps = steps_of_chunks(scanned, has_generations, forecast, found, plan)?;
    if has_generations || !(steps.first.is_empty() && steps.last.is_empty()) {
        let refused = misnamed.into_iter().map(|finding| unrepaired(finding, Refusal::OtherHeadChunksFirst));
        plan.left.extend(refused);
    } else {
        steps.first = names(scanned, &misnamed)?;
    }
    Ok(steps)
}

/// Files get the names by which Prometheus looks for them; of two for one name, that which has it stays.
fn names(scanned: &Scanned<'_>, misnamed: &[&Finding]) -> io::Result<Vec<PlanStep>> {
    if misnamed.is_empty() {
        return Ok(Vec::new());
    }
    let directory = scanned.target.path().join(CHUNKS_HEAD);
    let listed = list_head_chunks(&directory, CHUNKS_HEAD)?;
    let mut taken = HashSet::new();
    let mut steps = Vec::new();
    for file in &listed.misnamed {
        let path = path_of(file);
        let Some(finding) = misnamed.iter().find(|finding| finding.path == path) else { continue };
        let right = file.right_name();
        if directory.join(&right).symlink_metadata().is_ok() || !taken.insert(right.clone()) {
            let resolution = Resolution::HeadChunksNameTaken { name: right };
            steps.push(aside(&path, file.length, finding, resolution));
        } else {
            let to = format!("{CHUNKS_HEAD}/{right}");
            let repaired = repaired(finding, Resolution::HeadChunksRenamed { name: right });
            steps.push(PlanStep::of(Change::Rename { from: path, to }, repaired));
        }
    }
    Ok(steps)
}

fn steps_of_chunks<'a>(
    scanned: &Scanned<'a>,
    has_generations: bool,
    forecast: Option<&Forecast>,
    mut found: Vec<&'a Finding>,
    plan: &mut Plan,
) -> io::Result<HeadChunkSteps> {
    let mut steps = HeadChunkSteps::default();
    if !has_generations && let Some(asides) = all_that_hide(scanned, forecast, &found)? {
        steps.wants_fence = found.iter().any(|finding| is_above(finding));
        steps.first = asides;
        steps.takes_chunks = true;
        return Ok(steps);
    }
    let torn =
        || {
            scanned.report.findings.iter().filter(|finding| {
                finding.code == Code::DamagedHeadChunk && finding.severity == Severity::Note
            })
        };
    if found.is_empty() && plan.steps.is_empty() {
        return Ok(steps);
    }
    // What is only torn is repaired with other damage: the WAL may have lost what is before it.
    found.extend(torn());
    if found.is_empty() {
        return Ok(steps);
    }
    if has_generations {
        // Prometheus starts with a chunk that cannot be decoded: it can wait for the next repair.
        let damage = found
            .iter()
            .filter(|finding| finding.severity == Severity::Damage && !is_of_loaded_chunk(finding));
        let (above, rest): (Vec<_>, Vec<_>) = damage.partition(|finding| is_above(finding));
        steps.wants_fence = !above.is_empty();
        plan.left.extend(rest.into_iter().map(|finding| unrepaired(finding, Refusal::HeadChunksChanged)));
        return Ok(steps);
    }
    let mut walk = Walk::of(scanned, forecast, found)?;
    let mut rest = walk.of_others();
    if walk.nothing_is_left(&mut rest, plan) {
        steps.is_emptied = true;
    } else {
        steps.wants_fence =
            walk.find(Code::HeadChunksWithoutSeries).or_else(|| walk.find(Code::WblWithoutSeries)).is_some();
        if let Err(no_step) = walk.files(&mut rest, &mut steps) {
            let reason = no_step.refusal()?;
            let damage = walk
                .findings
                .iter()
                .filter(|finding| finding.severity == Severity::Damage && !is_above(finding));
            plan.left.extend(damage.map(|finding| unrepaired(finding, reason.clone())));
            return Ok(HeadChunkSteps { wants_fence: steps.wants_fence, ..HeadChunkSteps::default() });
        }
    }
    steps.first.splice(..0, rest);
    Ok(steps)
}

/// Where the first chunks of series are gone, the later ones hide what the WAL has of that time: all files go into the backup,
/// unless more is in these alone.
fn all_that_hide(
    scanned: &Scanned<'_>,
    forecast: Option<&Forecast>,
    found: &[&Finding],
) -> io::Result<Option<Vec<PlanStep>>> {
    let forecasts =
        forecast.into_iter().chain(forecast.and_then(|forecast| forecast.without_snapshots.as_deref()));
    let starts = forecasts.flat_map(|forecast| forecast.starts.iter().filter(|start| start.fatal.is_none()));
    let Some(start) = starts.max_by_key(|start| start.hidden_by_head_chunks.samples) else { return Ok(None) };
    let (hidden, only) = (start.hidden_by_head_chunks.samples, start.only_in_head_chunks.samples);
    let is_other = |finding: &&Finding| {
        [Code::HeadChunksOfOtherSeries, Code::HeadChunksHeader, Code::HeadChunksNotSequential]
            .contains(&finding.code)
    };
    if hidden <= only || found.iter().any(is_other) {
        return Ok(None);
    }
    let repaired = RepairedFinding::new(
        Code::HeadChunksHideSamples,
        Defect::HeadChunksHideSamples { samples: hidden },
        Resolution::AllHeadChunksSetAside,
    );
    let listed = list_head_chunks(&scanned.target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
    let step = |file: &HeadChunkFile| {
        PlanStep::of(Change::SetAside { path: path_of(file), bytes: file.length }, repaired.clone())
    };
    Ok(Some(listed.files.iter().rev().map(step).collect()))
}

fn is_above(finding: &Finding) -> bool {
    [Code::HeadChunksWithoutSeries, Code::WblWithoutSeries].contains(&finding.code)
}
