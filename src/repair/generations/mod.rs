//! A WAL that Prometheus has restarted although a checkpoint covers its numbers.
//!
//! On damage in `checkpoint.N` it deletes the segments after that, counts from 0 again, and hands out refs from the highest on
//! that it has read in the checkpoint (`tsdb/wlog/wlog.go`, `WL.Repair`; `lastSeriesID`, `tsdb/head_wal.go`). So refs up to
//! that one mean the same in all generations; a higher one is one series in the rest of the checkpoint, and another in what was
//! written since. The newest generation stays as it is, and gets numbers that are replayed; of the others stays what cannot be
//! confused with it.

mod definitions;
mod fault;
mod restarted;
mod run;

pub(super) use self::restarted::Generations;
use self::run::CheckpointAndWal;
use super::Refusal;
use super::no_step::NoStep;
use super::segment::SegmentRules;
use crate::forecast::Assumed;
use crate::scan::Scan;
use crate::tsdb::{Listing, LogKind, Target};

/// What the finding about it comes to, if there is one; or why it is not repaired.
pub(super) fn find(
    target: &Target,
    listing: &Listing,
    report: &Scan,
    assumed: Assumed,
) -> Result<Option<Generations>, NoStep> {
    let found = report.findings.iter().find(|finding| finding.is_of_generations());
    let wal = listing.logs.iter().find(|log| log.kind == LogKind::Wal);
    let (Some((at, number)), Some(wal)) = (listing.last_checkpoint(), wal) else { return Ok(None) };
    let checkpoint = &listing.logs[at];
    let mut segments = listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot);
    if segments.any(|log| log.segments.iter().any(|segment| !segment.path.is_file())) {
        return if found.is_some() { Err(Refusal::SegmentIsNoFile.into()) } else { Ok(None) };
    }
    let stop = fault::checkpoint_fault(checkpoint, assumed)?;
    if found.is_none() && stop.is_none() {
        return Ok(None);
    }
    let state = CheckpointAndWal::read(listing, checkpoint, number, wal, stop, SegmentRules::of(report))?;
    let newest = state.newest(found);
    let found = if let Some(finding) = found {
        Some(state.numbered(finding)?)
    } else {
        let strange = state.chunks_of_a_run_that_is_gone(target, report, newest)?;
        state.restarted_after(newest, strange)
    };
    found.map(|found| state.generations(found, newest, report)).transpose()
}
