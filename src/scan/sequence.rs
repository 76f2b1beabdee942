//! The numbers and names of segments and checkpoints: what makes Prometheus refuse to start, or skip what is there.
//!
//! Source: Prometheus `tsdb/wlog/wlog.go` (`listSegments`, `NewSize`), `tsdb/wlog/checkpoint.go` (`LastCheckpoint`),
//! `tsdb/head.go` (`Head.Init`).

use super::code::Code;
use super::detail::{Detail, GapEffect, MisnamedEffect};
use super::findings::{of_file, of_path};
use super::report::{Cause, Finding, Severity};
use crate::tsdb::replay_order::ReplayOrder;
use crate::tsdb::{Listing, LogDirectory, LogKind};
use crate::wal::segments::segment_name;

/// Findings that say that a file with records in it may be missing.
pub(super) const MISSING: [Code; 3] =
    [Code::EmptyCheckpoint, Code::FirstSegmentMissing, Code::SegmentsNotSequential];

/// How the numbers of the WAL's segments and that of the last checkpoint, N, go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// The replay continues after the checkpoint, or there is none.
    Fit,
    /// It wants a segment that comes before the first one.
    FirstMissing {
        /// The one that it wants.
        wanted: i64,
        first: i64,
    },
    /// Some segments have numbers up to N, and others continue from there.
    Below { number: i64, first: i64 },
    /// No segment has a number above N.
    Ahead { number: i64, first: Option<i64> },
}

pub(super) fn numbers(listing: &Listing, order: &ReplayOrder) -> Numbers {
    let Some(wal) = order.wal else { return Numbers::Fit };
    let segments = &listing.logs[wal].segments;
    let ends = segments.first().zip(segments.last()).map(|(first, last)| (first.index, last.index));
    match (order.number, ends) {
        (None, Some((first, _))) if first > 0 => Numbers::FirstMissing { wanted: 0, first },
        (None, _) => Numbers::Fit,
        (Some(number), None) => Numbers::Ahead { number, first: None },
        (Some(number), Some((first, last))) => {
            let wanted = number.saturating_add(1);
            if last <= number {
                Numbers::Ahead { number, first: Some(first) }
            } else if first <= number {
                Numbers::Below { number, first }
            } else if first > wanted {
                Numbers::FirstMissing { wanted, first }
            } else {
                Numbers::Fit
            }
        }
    }
}

/// Findings about names and numbers, as far as they need no look at what is in the files.
pub(super) fn of_names(listing: &Listing, order: &ReplayOrder) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, log) in listing.logs.iter().enumerate() {
        let skipped = log.kind == LogKind::Checkpoint && order.checkpoint.is_some_and(|last| last != at);
        gaps(log, skipped, &mut findings);
        misnamed(log, skipped, order, &mut findings);
    }
    if let (Numbers::FirstMissing { wanted, first }, Some(wal)) = (numbers(listing, order), order.wal) {
        let log = &listing.logs[wal];
        let detail = Detail::FirstSegmentMissing { covers: order.number, first, wanted };
        findings.push(Finding {
            cause: Some(Cause::Files),
            segment: Some(wanted),
            ..of_path(Some(log), of_segment(log, wanted), Code::FirstSegmentMissing, Severity::Damage, detail)
        });
    }
    if let Some(checkpoint) = order.checkpoint {
        incomplete_checkpoint(&listing.logs[checkpoint], &mut findings);
    }
    findings.extend(snapshot_ahead(listing, order));
    if let (Some(last), Some(_)) = (order.checkpoint, order.number) {
        older_checkpoints(listing, last, &mut findings);
    }
    findings
}

/// The last chunk snapshot is for more segments than there are.
fn snapshot_ahead(listing: &Listing, order: &ReplayOrder) -> Option<Finding> {
    let snapshots = listing.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot);
    let (position, log) = snapshots
        .filter_map(|log| Some((log.snapshot_position()?, log)))
        .max_by_key(|(position, _)| *position)?;
    // Given by its own path it is for itself.
    if log.relative.is_empty() {
        return None;
    }
    let last = order.wal.and_then(|wal| listing.logs[wal].segments.last()).map(|segment| segment.index);
    let last = last.max(order.number).unwrap_or(-1);
    let (index, _) = position;
    let detail = Detail::SnapshotAhead { covers: index, is_removed: last.saturating_add(1) < index };
    (last < index).then(|| Finding {
        cause: Some(Cause::Files),
        ..of_path(Some(log), log.relative.clone(), Code::SnapshotAhead, Severity::Damage, detail)
    })
}

fn gaps(log: &LogDirectory, skipped: bool, findings: &mut Vec<Finding>) {
    let (severity, then) = match log.kind {
        LogKind::ChunkSnapshot => (Severity::Warning, GapEffect::SnapshotNotLoaded),
        _ if skipped => (Severity::Warning, GapEffect::CheckpointSkipped),
        _ => (Severity::Damage, GapEffect::RefusesToStart),
    };
    for pair in log.segments.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let (first, last) = (before.index.saturating_add(1), after.index.saturating_sub(1));
        let detail = if before.index == after.index {
            Detail::SameNumber { first: before.name.clone(), second: after.name.clone(), then }
        } else if first == after.index {
            continue;
        } else {
            Detail::SegmentsMissing { numbers: first..=last, then }
        };
        findings.push(of_file(log, after, Code::SegmentsNotSequential, severity, detail, Some(Cause::Files)));
    }
}

/// A segment given by its own path is read under whatever name it has.
fn misnamed(log: &LogDirectory, skipped: bool, order: &ReplayOrder, findings: &mut Vec<Finding>) {
    for segment in log.segments.iter().filter(|segment| !segment.has_canonical_name()) {
        let covered = log.kind == LogKind::Wal && order.number.is_some_and(|number| segment.index <= number);
        let (severity, then) = match log.kind {
            LogKind::Checkpoint if skipped => (Severity::Warning, MisnamedEffect::CheckpointSkipped),
            // Opened by the names that are there (`NewSegmentsRangeReader`), but for remote write (`wlog/watcher.go`,
            // `readCheckpoint`).
            LogKind::Checkpoint => (Severity::Damage, MisnamedEffect::NotSent),
            LogKind::ChunkSnapshot => (Severity::Warning, MisnamedEffect::IsRead),
            LogKind::Wal if covered => (Severity::Warning, MisnamedEffect::Covered),
            LogKind::Wal | LogKind::Wbl => (Severity::Damage, MisnamedEffect::RefusesToStart),
        };
        let detail = Detail::Misnamed { index: segment.index, then };
        findings.push(of_file(log, segment, Code::MisnamedSegment, severity, detail, Some(Cause::Files)));
    }
}

/// A checkpoint begins with segment 0 (`wlog.New`), and Prometheus does not mind if it does not.
fn incomplete_checkpoint(log: &LogDirectory, findings: &mut Vec<Finding>) {
    let (path, code, detail) = match log.segments.first() {
        None => (log.relative.clone(), Code::EmptyCheckpoint, Detail::EmptyCheckpoint),
        Some(first) if first.index > 0 => {
            let detail = Detail::CheckpointBeginsLate { first: first.index };
            (of_segment(log, 0), Code::FirstSegmentMissing, detail)
        }
        Some(_) => return,
    };
    findings.push(Finding {
        cause: Some(Cause::Files),
        ..of_path(Some(log), path, code, Severity::Warning, detail)
    });
}

/// A checkpoint of which something is missing is damage if what it defined is used.
pub(super) fn weigh(of_names: &mut [Finding], of_refs: &[Finding]) {
    if !of_refs.iter().any(|finding| finding.code == Code::UnknownRefs) {
        return;
    }
    for finding in of_names {
        if [Code::EmptyCheckpoint, Code::FirstSegmentMissing].contains(&finding.code) {
            finding.severity = Severity::Damage;
        }
    }
}

fn older_checkpoints(listing: &Listing, last: usize, findings: &mut Vec<Finding>) {
    let winner = &listing.logs[last].relative;
    for log in listing.logs.iter().filter(|log| log.checkpoint_number().is_some() && log.relative != *winner)
    {
        let same_number = log.checkpoint_number() == listing.logs[last].checkpoint_number();
        let detail = Detail::OlderCheckpoint { newest: winner.clone(), same_number };
        findings.push(of_path(
            Some(log),
            log.relative.clone(),
            Code::OlderCheckpoint,
            Severity::Note,
            detail,
        ));
    }
}

fn of_segment(log: &LogDirectory, index: i64) -> String {
    let name = segment_name(index);
    if log.relative.is_empty() { name } else { format!("{}/{name}", log.relative) }
}
