//! One reading of a segment, with what has been decided before.

use super::decide::Decisions;
use super::doubts::Doubts;
use super::found::{
    Contents, Problem, ProblemKind, contents_of, framing_problem, glued, problem_of, record_problem,
    snapshot_contents, snapshot_problem,
};
use super::{Reading, Visitor};
use crate::wal::compress::Unpacker;
use crate::wal::{Event, PAGE, ReadAt, Record, SegmentReader};

pub(super) struct Pass<'a, V> {
    reading: Reading,
    decisions: &'a Decisions,
    pub(super) visitor: &'a mut V,
    doubts: Doubts,
    unpacker: Unpacker,
    problems: Vec<Problem>,
}

impl<'a, V: Visitor> Pass<'a, V> {
    pub(super) fn new(reading: Reading, decisions: &'a Decisions, visitor: &'a mut V) -> Self {
        let (doubts, unpacker) = (Doubts::default(), Unpacker::default());
        Self { reading, decisions, visitor, doubts, unpacker, problems: Vec::new() }
    }

    pub(super) fn meet(&mut self, event: Event<'_>) {
        match event {
            Event::Record(record) => self.record(&record),
            Event::Damage(damage) => {
                self.doubts.corrections |= damage.correction.is_some();
                self.doubts.learn(&damage);
                self.problems.push(framing_problem(damage, self.decisions));
            }
        }
    }

    /// A record that leaves no doubt, if nothing has been decided against it.
    pub(super) fn walked(&mut self, record: &Record<'_>) {
        if !self.decisions.refused.is_empty() && self.decisions.refused.contains_key(&record.offset) {
            self.visitor.walk_ends();
            self.record(record);
            return;
        }
        self.report_problems_before(record.offset);
        self.visitor.walked(record);
    }

    fn record(&mut self, record: &Record<'_>) {
        let (contents, problem) = match self.reading {
            Reading::Opaque => (Contents::default(), None),
            Reading::Snapshot => (snapshot_contents(record.data), snapshot_problem(record)),
            Reading::Prometheus => {
                let summary = self.visitor.decode(record.data);
                let mut problem = match self.decisions.refused.get(&record.offset) {
                    Some(why) => Some(problem_of(record, ProblemKind::Spliced(why))),
                    None => record_problem(record, &summary, &mut self.unpacker),
                };
                if let Some(problem) = &mut problem
                    && matches!(problem.kind, ProblemKind::Decode(_))
                {
                    problem.glued = glued(record);
                }
                self.doubts.look_at(record, &summary, problem.as_ref());
                (contents_of(&summary), problem)
            }
        };
        if let Some(mut problem) = problem {
            problem.correction = self.decisions.corrected.get(&record.offset).cloned();
            self.problems.push(problem);
        } else {
            self.report_problems_before(record.offset);
            self.visitor.record(record, &contents);
        }
    }

    /// Reports the problems that begin before an offset.
    fn report_problems_before(&mut self, offset: u64) {
        if self.problems.is_empty() {
            return;
        }
        self.problems.sort_by_key(|problem| problem.range.start);
        let before = self.problems.partition_point(|problem| problem.range.start < offset);
        for problem in self.problems.drain(..before) {
            self.visitor.damage(problem);
        }
    }

    /// Nothing follows that begins before one of the problems that are known.
    pub(super) fn report_problems(&mut self) {
        self.report_problems_before(u64::MAX);
    }

    /// All has been read; what is in doubt.
    pub(super) fn finish<S: ReadAt>(mut self, reader: &SegmentReader<S>) -> Doubts {
        let tail = reader.data_end();
        self.doubts.finish(tail);
        self.doubts.suspects.extend(reader.alike().iter().flat_map(|&(a, b)| [a / PAGE, b / PAGE]));
        self.problems.sort_by_key(|problem| problem.range.start);
        for mut problem in self.problems {
            problem.at_tail = problem.range.start >= tail;
            self.visitor.damage(problem);
        }
        self.doubts
    }
}
