//! What Prometheus does with a block, sooner or later.

use serde::Serialize;

use super::detail::BlockDetail;
use super::report::BlockState;
use crate::scan::code::Code;
use crate::scan::detail::{BlockEffect, Detail};
use crate::scan::report::{Finding, Severity};

/// What Prometheus does with a block that is not intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// It does not start.
    RefusesToStart,
    /// It crashes at each start.
    Crashes,
    /// It starts, and the block is as if it were not there.
    Invisible,
    /// It deletes the block at the next start.
    Deleted,
    /// Queries that need what is damaged fail, or lack it.
    QueriesFail,
    /// A compaction of the block fails, and Prometheus does not try it again.
    CompactionFails,
    /// No block is compacted any more.
    CompactionStops,
    /// `promtool tsdb dump` leaves out what comes after the damage, and exits with 0.
    DumpsDrop,
}

/// What becomes of a block in that state, with these findings, whose times overlap those of another or not.
pub(super) fn of(state: BlockState, findings: &[Finding], overlaps: bool) -> Vec<Consequence> {
    let mut all = Vec::new();
    match state {
        BlockState::Replaced => all.push(Consequence::Deleted),
        // The compactor reads every meta.json when it plans (`LeveledCompactor.Plan`, `tsdb/compact.go`).
        BlockState::Skipped => all.extend([Consequence::Invisible, Consequence::CompactionStops]),
        BlockState::NotOpened => all.push(
            if findings.iter().any(|finding| {
                matches!(finding.detail, Detail::BlockFault { then: BlockEffect::Crashes, .. })
            }) {
                Consequence::Crashes
            } else {
                Consequence::RefusesToStart
            },
        ),
        BlockState::Intact | BlockState::Damaged => {
            for finding in findings.iter().filter(|finding| finding.severity == Severity::Damage) {
                all.extend(of_finding(finding));
            }
        }
    }
    if overlaps && all.contains(&Consequence::CompactionFails) {
        // Overlapping blocks are planned first, whether their compaction has failed or not (`selectOverlappingDirs`).
        all.retain(|one| *one != Consequence::CompactionFails);
        all.push(Consequence::CompactionStops);
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// What one finding comes to. A compaction reads the list of all series, each series and each chunk, and no other list
/// (`DefaultBlockPopulator.PopulateBlock`, `tsdb/compact.go`).
fn of_finding(finding: &Finding) -> Vec<Consequence> {
    use Consequence::{CompactionFails, DumpsDrop, QueriesFail};
    let Detail::Block(detail) = &finding.detail else { return Vec::new() };
    match detail {
        BlockDetail::PostingsUnreadable { name, .. } | BlockDetail::PostingsUnsorted { name, .. }
            if !name.is_empty() =>
        {
            vec![QueriesFail]
        }
        BlockDetail::PostingsDiffer
        | BlockDetail::PostingsUnknown { .. }
        | BlockDetail::TableUnsorted { .. } => {
            vec![QueriesFail]
        }
        _ if finding.code == Code::BlockOutOfOrder => vec![CompactionFails],
        // Prometheus reads such a chunk without an error, and answers with what it has.
        BlockDetail::ChunkTimes { .. }
        | BlockDetail::ChunkOrder { .. }
        | BlockDetail::ChunkSurplus { .. } => {
            vec![QueriesFail]
        }
        _ => vec![QueriesFail, CompactionFails, DumpsDrop],
    }
}
