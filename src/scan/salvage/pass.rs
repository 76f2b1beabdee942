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

pub(super) fn pass<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    decisions: &Decisions,
    visitor: &mut V,
    doubts: &mut Doubts,
) {
    let mut reader =
        SegmentReader::new(source, length).taking_as_they_are(decisions.taken_as_they_are.clone());
    let mut unpacker = Unpacker::default();
    let mut problems: Vec<Problem> = Vec::new();
    while let Some(event) = reader.next() {
        match event {
            Event::Record(record) => {
                let (contents, problem) = match reading {
                    Reading::Opaque => (Contents::default(), None),
                    Reading::Snapshot => (snapshot_contents(record.data), snapshot_problem(&record)),
                    Reading::Prometheus => {
                        let summary = visitor.decode(record.data);
                        let mut problem = match decisions.refused.get(&record.offset) {
                            Some(why) => Some(problem_of(&record, ProblemKind::Spliced(why))),
                            None => record_problem(&record, &summary, &mut unpacker),
                        };
                        if let Some(problem) = &mut problem
                            && matches!(problem.kind, ProblemKind::Decode(_))
                        {
                            problem.glued = glued(&record);
                        }
                        doubts.look_at(&record, &summary, problem.as_ref());
                        (contents_of(&summary), problem)
                    }
                };
                match problem {
                    Some(mut problem) => {
                        problem.correction = decisions.corrected.get(&record.offset).cloned();
                        problems.push(problem);
                    }
                    None => visitor_record(visitor, &mut problems, &record, &contents),
                }
            }
            Event::Damage(damage) => {
                doubts.corrections |= damage.correction.is_some();
                doubts.learn(&damage);
                problems.push(framing_problem(damage, decisions));
            }
        }
    }
    let tail = reader.data_end();
    doubts.finish(tail);
    doubts.suspects.extend(reader.alike().iter().flat_map(|&(a, b)| [a / PAGE, b / PAGE]));
    problems.sort_by_key(|problem| problem.range.start);
    for mut problem in problems {
        problem.at_tail = problem.range.start >= tail;
        visitor.damage(problem);
    }
}

/// Reports the problems that begin before the record, then the record.
fn visitor_record<V: Visitor>(
    visitor: &mut V,
    problems: &mut Vec<Problem>,
    record: &Record<'_>,
    contents: &Contents,
) {
    problems.sort_by_key(|problem| problem.range.start);
    let before = problems.partition_point(|problem| problem.range.start < record.offset);
    for problem in problems.drain(..before) {
        visitor.damage(problem);
    }
    visitor.record(record, contents);
}
