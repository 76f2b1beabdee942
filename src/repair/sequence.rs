//! What makes Prometheus refuse to start for its names and numbers alone: lifted last, after everything for which a start
//! would delete.

use std::collections::BTreeSet;

use super::{Refusal, repaired};
use crate::change::plan::{Change, PlanStep, Resolution};
use crate::scan::code::Code;
use crate::scan::report::Finding;
use crate::tsdb::{Listing, LogDirectory, LogKind, Target};
use crate::wal::segments::segment_name;

/// Empty segments that are made for one gap.
pub(super) const MOST: i64 = 1000;

/// Findings about the segments of a log that are repaired here.
const CODES: [Code; 4] =
    [Code::EmptyCheckpoint, Code::FirstSegmentMissing, Code::MisnamedSegment, Code::SegmentsNotSequential];

/// A file where Prometheus looks for a checkpoint.
const FILE: Code = Code::CheckpointNotADirectory;

/// Whether a finding is about names and numbers that are repaired here.
pub(super) fn is_about_names(listing: &Listing, finding: &Finding) -> bool {
    let has_it = |log: &LogDirectory| Some(&log.relative) == finding.log.as_ref();
    [FILE, Code::SnapshotAhead].contains(&finding.code)
        || CODES.contains(&finding.code) && logs(listing).any(has_it)
}

/// Logs of which Prometheus wants all segments, by their right names.
fn logs(listing: &Listing) -> impl Iterator<Item = &LogDirectory> {
    listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot)
}

/// The steps that repair these findings, or why some cannot be repaired: then none is, since each of them keeps Prometheus from
/// starting.
pub(super) fn steps(
    target: &Target,
    listing: &Listing,
    findings: &[&Finding],
) -> Result<Vec<PlanStep>, Refusal> {
    let mut steps = Vec::new();
    for log in logs(listing) {
        let (names, numbers): (Vec<&Finding>, Vec<&Finding>) = findings
            .iter()
            .copied()
            .filter(|finding| finding.log.as_ref() == Some(&log.relative))
            .partition(|finding| finding.code == Code::MisnamedSegment);
        if names.is_empty() && numbers.is_empty() {
            continue;
        }
        let same_number = log.segments.windows(2).any(|pair| pair[0].index == pair[1].index);
        if same_number || log.segments.iter().any(|segment| segment.index < 0) {
            return Err(Refusal::NumberClaimed);
        }
        for segment in log.segments.iter().filter(|segment| !segment.has_canonical_name()) {
            let from = log.relative_of(segment);
            let Some(finding) = names.iter().find(|finding| finding.path == from) else { continue };
            let to = format!("{}/{}", log.relative, segment_name(segment.index));
            steps.push(step(Change::Rename { from, to }, finding, Resolution::SegmentRenamed));
        }
        let there: BTreeSet<i64> = log.segments.iter().map(|segment| segment.index).collect();
        for finding in numbers {
            let missing = missing(listing, log, &there, finding).ok_or(Refusal::MissingUnknown)?;
            if missing.end - missing.start > MOST {
                steps.extend(empty_checkpoint(listing, log, finding, missing.end)?);
                continue;
            }
            steps.extend(missing.map(|number| {
                let path = format!("{}/{}", log.relative, segment_name(number));
                let change = Change::Create { path, bytes: Vec::new() };
                step(change, finding, Resolution::EmptySegmentMade)
            }));
        }
    }
    for finding in findings.iter().filter(|finding| finding.code == Code::SnapshotAhead) {
        steps.extend(up_to_snapshot(listing, finding).unwrap_or_default());
    }
    for finding in findings.iter().filter(|finding| finding.code == FILE) {
        if target.path_of(&finding.path).is_symlink() {
            return Err(Refusal::LinkToCheckpoint);
        }
        let bytes = target.path_of(&finding.path).symlink_metadata().map_or(0, |metadata| metadata.len());
        let change = Change::SetAside { path: finding.path.clone(), bytes };
        steps.push(step(change, finding, Resolution::FileMovedAway));
    }
    Ok(steps)
}

/// Empty segments up to the one up to which a chunk snapshot covers the WAL: so it is loaded, and what is written from now on is
/// after it. `None` where these would be too many.
pub(super) fn up_to_snapshot(listing: &Listing, finding: &Finding) -> Option<Vec<PlanStep>> {
    let log = listing.logs.iter().find(|log| log.relative == finding.path);
    let (index, _) = log.and_then(LogDirectory::snapshot_position)?;
    let wal = listing.logs.iter().find(|log| log.kind == LogKind::Wal);
    let last = wal.and_then(|wal| wal.segments.last()).map(|segment| segment.index);
    let last = last.max(listing.last_checkpoint().map(|(_, number)| number)).unwrap_or(-1);
    if index - last > MOST {
        return None;
    }
    let directory = wal.is_none().then(|| {
        let change = Change::CreateDirectory { path: "wal".to_owned() };
        step(change, finding, Resolution::WalForSnapshotMade)
    });
    let directory = directory.into_iter();
    let segments = (last + 1..=index).map(|number| {
        let path = format!("wal/{}", segment_name(number));
        step(Change::Create { path, bytes: Vec::new() }, finding, Resolution::EmptySegmentForSnapshot)
    });
    Some(directory.chain(segments).collect())
}

/// Steps that make an empty checkpoint that ends where the first segment begins: instead of many empty segments.
fn empty_checkpoint(
    listing: &Listing,
    log: &LogDirectory,
    finding: &Finding,
    first: i64,
) -> Result<[PlanStep; 2], Refusal> {
    if log.kind != LogKind::Wal
        || finding.code != Code::FirstSegmentMissing
        || listing.last_checkpoint().is_some()
    {
        return Err(Refusal::TooManyMissing);
    }
    let path = format!("{}/checkpoint.{}", log.relative, segment_name(first - 1));
    let made = |change| step(change, finding, Resolution::EmptyCheckpointMade);
    let segment = Change::Create { path: format!("{path}/{}", segment_name(0)), bytes: Vec::new() };
    Ok([made(Change::CreateDirectory { path }), made(segment)])
}

/// The numbers that are missing in front of the segment that the finding is about.
fn missing(
    listing: &Listing,
    log: &LogDirectory,
    there: &BTreeSet<i64>,
    finding: &Finding,
) -> Option<std::ops::Range<i64>> {
    let numbers = match finding.code {
        Code::EmptyCheckpoint => 0..1,
        // Prometheus begins after the checkpoint, or at 0.
        Code::FirstSegmentMissing if log.kind == LogKind::Wal => {
            let number = listing.last_checkpoint().map(|(_, number)| number);
            number.map_or(0, |number| number.saturating_add(1))..*there.first()?
        }
        Code::FirstSegmentMissing => 0..*there.first()?,
        _ => {
            let after = log.segments.iter().find(|segment| log.relative_of(segment) == finding.path)?.index;
            there.range(..after).next_back()?.saturating_add(1)..after
        }
    };
    Some(numbers)
}

fn step(change: Change, finding: &Finding, resolution: Resolution) -> PlanStep {
    PlanStep::of(change, repaired(finding, resolution))
}
