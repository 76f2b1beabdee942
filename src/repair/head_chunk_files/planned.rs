//! What is planned for files of head chunks.

use crate::change::plan::{Change, Plan, PlanStep, Resolution, UnrepairedFinding};
use crate::repair::chunks::CHUNKS_HEAD;
use crate::repair::repaired;
use crate::scan::report::Finding;
use crate::tsdb::HeadChunkFile;

/// What is done in all.
#[derive(Default)]
pub(in crate::repair) struct HeadChunkSteps {
    /// What makes nobody start who did not start before.
    pub(in crate::repair) first: Vec<PlanStep>,
    /// What Prometheus does not start for, and its findings: lifted last, if nothing is left.
    pub(in crate::repair) last: Vec<PlanStep>,
    pub(super) lifted: Vec<UnrepairedFinding>,
    /// Whether refs are left that a fence keeps from being handed out again.
    pub(in crate::repair) wants_fence: bool,
    /// Whether all that has refs has gone.
    pub(in crate::repair) is_emptied: bool,
    /// Whether chunks go that a chunk snapshot counts on.
    pub(in crate::repair) takes_chunks: bool,
}

impl HeadChunkSteps {
    /// Lifts what keeps Prometheus from starting, or says why not.
    pub(in crate::repair) fn lift(self, plan: &mut Plan) {
        if plan.left.is_empty() {
            plan.steps.extend(self.last);
        } else {
            plan.left.extend(self.lifted);
        }
    }
}

pub(super) fn path_of(file: &HeadChunkFile) -> String {
    format!("{CHUNKS_HEAD}/{}", file.name)
}

pub(super) fn aside(path: &str, bytes: u64, finding: &Finding, resolution: Resolution) -> PlanStep {
    let change = Change::SetAside { path: path.to_owned(), bytes };
    PlanStep::of(change, repaired(finding, resolution))
}
