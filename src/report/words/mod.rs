//! The sentences of values: what is wrong, how it is repaired, and why it is not.

pub(super) mod amounts;
mod blocks;
mod defects;
mod details;
mod refusals;
mod resolutions;

use crate::scan::blocks::Consequence;
use crate::scan::deletions::DeletionsLost;
use crate::scan::report::State;

/// The headline's word.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Clean => "clean",
        State::Damaged => "DAMAGED",
        State::WillNotStart => "WILL NOT START",
        State::WillLoseData => "WILL LOSE DATA",
        State::TakesNoSamples => "TAKES NO SAMPLES",
    }
}

/// What Prometheus does with a block.
pub(super) fn consequence(consequence: Consequence) -> &'static str {
    match consequence {
        Consequence::RefusesToStart => "Prometheus does not start with it",
        Consequence::Crashes => "Prometheus crashes at each start",
        Consequence::Invisible => "Prometheus starts without it",
        Consequence::Deleted => "the next start deletes it, since a block that it loads was made from it",
        Consequence::QueriesFail => "queries that need what is damaged fail",
        Consequence::CompactionFails => "its next compaction fails, and is not tried again",
        Consequence::CompactionStops => "compaction stops: no block is compacted any more",
        Consequence::DumpsDrop => "promtool tsdb dump leaves out samples, and exits with 0",
    }
}

/// What becomes of samples whose deletion is lost.
pub(super) fn deletions(lost: DeletionsLost) -> Option<&'static str> {
    match lost {
        DeletionsLost::None => None,
        DeletionsLost::Possible => {
            Some("what is lost may have held deletions: samples that they had deleted would be served again")
        }
        DeletionsLost::Certain => Some(
            "deletions are lost: samples that they had deleted, and that are still there, are served again",
        ),
    }
}
