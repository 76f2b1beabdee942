//! A WAL that was restarted: what of it stays, and which steps bring it back.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use super::fault::modified;
use crate::change::plan::{Change, Defect, PlanStep, RepairedFinding, Resolution};
use crate::repair::refs::RefBounds;
use crate::scan::code::Code;
use crate::scan::report::Finding;
use crate::tsdb::{Listing, LogDirectory, LogKind};
use crate::wal::segments::segment_name;

/// Findings about segments of the WAL that new numbers repair.
const OF_NUMBERS: [Code; 2] = [Code::SegmentsNotSequential, Code::MisnamedSegment];

/// What was found, and what becomes of it.
#[derive(Debug)]
pub(in crate::repair) struct Generations {
    pub(super) code: Code,
    pub(super) defect: Defect,
    /// How the numbers go together.
    pub(super) numbers: Defect,
    /// The directory of the last checkpoint.
    pub(super) checkpoint: String,
    /// That of the WAL.
    pub(super) wal: String,
    pub(super) numbering: Numbering,
    /// Refs that the newest generation has handed out.
    pub(in crate::repair) defined: HashSet<u64>,
    /// The highest ref that means the same everywhere, if the newest generation has handed out higher ones.
    pub(in crate::repair) common: Option<u64>,
    /// The highest ref that is defined where Prometheus stopped reading a damaged checkpoint: head chunks may have higher ones of
    /// another series, if not all is known to be of one generation.
    pub(in crate::repair) read: Option<u64>,
    /// Segments of which only entries of such refs stay.
    pub(super) dropped: BTreeMap<String, u64>,
    /// Segments of the WAL that Prometheus skips, and comes to read.
    pub(super) brought_back: BTreeSet<String>,
    /// Segments of the WBL that the newest generation has written.
    pub(in crate::repair) own_wbl: Vec<String>,
    /// The highest refs that are defined in what stays, and seen anywhere.
    pub(in crate::repair) refs: RefBounds,
    /// The times of the newest sample in the checkpoint, and of the oldest in the newest generation, ms.
    pub(in crate::repair) times: (Option<i64>, Option<i64>),
}

/// What is done so that the replay continues after the checkpoint.
#[derive(Debug)]
pub(super) enum Numbering {
    /// Empty segments lead to the number after the checkpoint: what is there is in it already, or there is nothing.
    Extend { missing: std::ops::RangeInclusive<i64> },
    /// The checkpoint gets the number before the first segment.
    RenameCheckpoint { to: String, next: String },
    /// They are replayed as they are.
    Keep { next: String },
    /// The segments get numbers after that of the checkpoint, which may need a higher one itself.
    Renumber { renames: Vec<(String, String)>, checkpoint: Option<String>, next: String },
}

impl Generations {
    /// Whether refs may have been handed out again.
    pub(super) fn are_several(&self) -> bool {
        matches!(self.numbering, Numbering::Renumber { .. } | Numbering::Keep { .. })
    }

    /// Notes where entries are that may mean another series than the newest generation's.
    pub(super) fn note_ambiguous(
        &mut self,
        listing: &Listing,
        checkpoint: &LogDirectory,
        restarted: Option<i128>,
    ) -> io::Result<()> {
        for segment in &checkpoint.segments {
            self.keep_common(checkpoint.relative_of(segment));
        }
        let Some(wbl) = listing.logs.iter().find(|log| log.kind == LogKind::Wbl) else { return Ok(()) };
        let made = checkpoint.segments.iter().map(|segment| modified(&segment.path));
        let made = made.collect::<io::Result<Vec<_>>>()?.into_iter().max();
        for segment in &wbl.segments {
            let written = modified(&segment.path)?;
            let is_own = restarted.is_some_and(|restarted| written >= restarted);
            let path = wbl.relative_of(segment);
            if is_own && self.common.is_some() {
                self.own_wbl.push(path);
            } else if let Some(common) = self.common {
                self.dropped.insert(path, common);
            } else if let Some(read) = self.read {
                // Of a run that has left nothing else, perhaps.
                let is_before = restarted.is_some() && made.is_some_and(|made| written <= made);
                if !is_before {
                    self.dropped.insert(path, read);
                }
            }
        }
        Ok(())
    }

    pub(super) fn keep_common(&mut self, path: String) {
        if let Some(common) = self.common {
            self.dropped.insert(path, common);
        }
    }

    /// Up to which ref entries of a segment stay, if not all do.
    pub(in crate::repair) fn refs_up_to(&self, path: &str) -> Option<u64> {
        self.dropped.get(path).copied()
    }

    /// Whether the segment of the WAL is one that Prometheus skips, and comes to read.
    pub(in crate::repair) fn brings_back(&self, path: &str) -> bool {
        self.brought_back.contains(path)
    }

    /// Whether a finding is repaired with them.
    pub(in crate::repair) fn repairs(&self, finding: &Finding) -> bool {
        let is_renumbered =
            matches!(self.numbering, Numbering::Renumber { .. }) && OF_NUMBERS.contains(&finding.code);
        finding.is_of_generations()
            || self.are_several() && finding.is_of_reissued_refs()
            || is_renumbered && finding.log.as_deref() == Some(&self.wal)
    }

    /// Whether chunk snapshots may be of another generation.
    pub(in crate::repair) fn has_foreign_snapshots(&self) -> bool {
        !matches!(self.numbering, Numbering::RenameCheckpoint { .. })
    }

    /// The name of the segment that follows all others in the end.
    pub(in crate::repair) fn next(&self) -> String {
        match &self.numbering {
            Numbering::Extend { missing } => format!("{}/{}", self.wal, segment_name(*missing.end())),
            Numbering::RenameCheckpoint { next, .. }
            | Numbering::Renumber { next, .. }
            | Numbering::Keep { next } => next.clone(),
        }
    }

    /// What is done before all else: a segment after a gap, for which Prometheus does not start, and so deletes nothing.
    pub(in crate::repair) fn gap(&self) -> Option<PlanStep> {
        let Numbering::Renumber { next, .. } = &self.numbering else { return None };
        let change = Change::Create { path: next.clone(), bytes: Vec::new() };
        Some(PlanStep::of(change, self.repaired(Resolution::GapMade)))
    }

    /// What is done after all else. `next` is there already if it is so said.
    pub(in crate::repair) fn last(&self, next_is_made: bool) -> Vec<PlanStep> {
        match &self.numbering {
            Numbering::Extend { missing } => {
                let end = missing.end() - i64::from(next_is_made);
                let paths =
                    (*missing.start()..=end).map(|index| format!("{}/{}", self.wal, segment_name(index)));
                let made = |path| {
                    let change = Change::Create { path, bytes: Vec::new() };
                    self.step(change, Resolution::SegmentsContinuedToCheckpoint)
                };
                paths.map(made).collect()
            }
            Numbering::Keep { .. } => Vec::new(),
            Numbering::RenameCheckpoint { to, .. } => {
                let change = Change::Rename { from: self.checkpoint.clone(), to: to.clone() };
                vec![self.step(change, Resolution::CheckpointNumberLowered)]
            }
            Numbering::Renumber { renames, checkpoint, .. } => {
                let mut steps = Vec::new();
                if let Some(to) = checkpoint {
                    let change = Change::Rename { from: self.checkpoint.clone(), to: to.clone() };
                    steps.push(self.step(change, Resolution::CheckpointNumberRaised));
                }
                steps.extend(renames.iter().rev().map(|(from, to)| {
                    let change = Change::Rename { from: from.clone(), to: to.clone() };
                    self.step(change, Resolution::SegmentNumberRaised)
                }));
                steps
            }
        }
    }

    fn step(&self, change: Change, resolution: Resolution) -> PlanStep {
        // What was found is said once; here it is the number that matters.
        PlanStep::of(change, RepairedFinding::new(self.code, self.numbers.clone(), resolution))
    }

    /// The finding, repaired so.
    pub(in crate::repair) fn repaired(&self, resolution: Resolution) -> RepairedFinding {
        RepairedFinding::new(self.code, self.defect.clone(), resolution)
    }
}
