//! What can be read of a segment, and what is wrong with the rest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;

use foldhash::{HashMap, HashSet};

use super::ranges::{length_of, pages};
use super::rules::SegmentRules;
use super::stored::{read_exact, stored_record};
use crate::change::plan::Loss;
use crate::forecast::replay::Reader;
use crate::repair::partial::{self, Substitute, partial};
use crate::repair::refs::RefBounds;
use crate::scan::context::Surroundings;
use crate::scan::salvage::{AgreedCorrection, Contents, Problem, ProblemKind, Visitor};
use crate::tsdb::Version;
use crate::wal::compress::{UnpackError, Unpacker};
use crate::wal::layout::{page_end, page_start};
use crate::wal::{Fault, ReadAt, Record};

/// What is in a segment, and what is wrong with the rest.
#[derive(Debug, Default)]
pub(in crate::repair) struct SalvagedSegment {
    /// Where records are that are kept, those side by side as one.
    pub(super) kept: Vec<Range<u64>>,
    /// Records that are kept.
    records: u64,
    /// In the order of offsets.
    pub(in crate::repair) problems: Vec<Problem>,
    /// Where those begin that are one flipped bit, which is flipped back.
    corrected: HashSet<u64>,
    /// Bytes of the segment.
    pub(super) length: u64,
    /// The version of the agent that is to read it, if one is.
    agent: Option<Version>,
    /// Records that do not decode, where they are, and what takes their place, in order.
    pub(super) instead: Vec<(Range<u64>, Substitute)>,
    /// Records that the agent refuses: their fragments, what it has against them, and their entries.
    pub(super) refused: Vec<(Vec<Range<u64>>, String, u64)>,
}

impl Visitor for SalvagedSegment {
    fn record(&mut self, record: &Record<'_>, contents: &Contents) {
        if let Some(what) = self.agent.and_then(|version| Reader::Agent.refuses(record.data, version)) {
            self.refused.push((record.fragments.to_vec(), what, contents.entries));
            return;
        }
        self.records += 1;
        self.keep(record.fragments.iter().cloned());
    }

    fn damage(&mut self, damage: Problem) {
        self.problems.push(damage);
    }
}

impl SalvagedSegment {
    /// Reads the first `length` bytes of `source`. For an agent, what that refuses is damage, too.
    pub(in crate::repair) fn of(source: &File, length: u64, rules: SegmentRules<'_>) -> Self {
        let (bytes, all) = rules.bytes(source, length);
        let new = || Self { length: all, agent: rules.agent, ..Self::default() };
        let mut salvaged = rules.salvage(source, length, new);
        let source = &bytes;
        salvaged.refuse_corrected(source);
        let corrected: Vec<_> =
            salvaged.problems.iter().filter(|problem| problem.correction.is_some()).collect();
        let ranges: Vec<_> = corrected.iter().flat_map(|problem| bytes_of(problem)).collect();
        salvaged.records += corrected.len() as u64;
        salvaged.corrected = corrected.iter().map(|problem| problem.range.start).collect();
        salvaged.keep(ranges.into_iter());
        salvaged.kept.sort_by_key(|range| range.start);
        salvaged.instead = salvaged.instead(source);
        salvaged
            .keep(salvaged.instead.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>().into_iter());
        salvaged.kept.sort_by_key(|range| range.start);
        salvaged
    }

    /// The records of which something is kept that do not decode to their end. Those that are glued together of several are
    /// taken apart, unless what is kept around them speaks against it. Of the others the first entries are kept, where nothing
    /// else is wrong in their page and what they say fits what is kept around them.
    fn instead<S: ReadAt + ?Sized>(&self, source: &S) -> Vec<(Range<u64>, Substitute)> {
        let undecodable = self
            .problems
            .iter()
            .filter(|problem| matches!(problem.kind, ProblemKind::Decode(_)) && problem.correction.is_none());
        let is_kept = |offset| {
            let after = self.kept.partition_point(|range| range.end <= offset);
            self.kept.get(after).is_some_and(|range| range.contains(&offset))
        };
        let touched = self.problems_by_page();
        let mut surroundings = None;
        let mut found = Vec::new();
        for problem in undecodable {
            if !problem.glued.is_empty() {
                let surroundings =
                    surroundings.get_or_insert_with(|| Surroundings::of(source, self.length, is_kept));
                let parts = self.taken_apart(source, problem);
                if let Some(parts) = parts.filter(|parts| !surroundings.contradict(parts)) {
                    found.push((problem.range.clone(), Substitute::Parts(parts)));
                    continue;
                }
            }
            let page = page_start(problem.range.start);
            if problem.range.end > page_end(page) || touched.get(&page).is_some_and(|&problems| problems > 1)
            {
                continue;
            }
            let mut fragment = vec![0; length_of(&problem.range)];
            if read_exact(source, &mut fragment, problem.range.start).is_err() {
                continue;
            }
            let Some(part) = partial(&fragment) else { continue };
            let surroundings =
                surroundings.get_or_insert_with(|| Surroundings::of(source, self.length, is_kept));
            if surroundings.support(&part.record, problem.range.start) {
                found.push((problem.range.clone(), Substitute::Part(part)));
            }
        }
        found.sort_by_key(|(range, _)| range.start);
        found
    }

    /// The records that are glued together in one; none if the agent that is to read them refuses one.
    fn taken_apart<S: ReadAt + ?Sized>(&self, source: &S, problem: &Problem) -> Option<Vec<Vec<u8>>> {
        let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
        let head = stored_record(source, &problem.range, None, &mut stored).ok()?;
        let record = unpacker.unpack(head.compression(), &stored).ok()?;
        let parts = partial::parts(record, &problem.glued);
        let is_refused =
            |part: &Vec<u8>| self.agent.is_some_and(|version| Reader::Agent.refuses(part, version).is_some());
        (!parts.iter().any(is_refused)).then_some(parts)
    }

    /// How many problems touch a page, by its offset.
    fn problems_by_page(&self) -> HashMap<u64, u64> {
        let mut touched = HashMap::default();
        for problem in &self.problems {
            let at_least_a_byte = |range: Range<u64>| range.start..range.end.max(range.start + 1);
            let on_pages = bytes_of(problem).into_iter().map(at_least_a_byte).flat_map(pages);
            for page in on_pages.map(|range| page_start(range.start)).collect::<BTreeSet<_>>() {
                *touched.entry(page).or_default() += 1;
            }
        }
        touched
    }

    /// Records that are kept, whole or in part.
    pub(in crate::repair) fn kept_records(&self) -> u64 {
        self.records + self.instead.iter().map(|(_, instead)| instead.records().len() as u64).sum::<u64>()
    }

    /// What takes the place of the record at `offset`, which does not decode to its end; nothing if it goes whole.
    pub(in crate::repair) fn substitute_of(&self, offset: u64) -> Option<&Substitute> {
        substitute_at(&self.instead, offset)
    }

    fn keep(&mut self, fragments: impl Iterator<Item = Range<u64>>) {
        for fragment in fragments {
            match self.kept.last_mut() {
                Some(last) if last.end == fragment.start => last.end = fragment.end,
                _ => self.kept.push(fragment),
            }
        }
    }

    /// A record that the agent refuses is not worth a correction.
    fn refuse_corrected<S: ReadAt + ?Sized>(&mut self, source: &S) {
        let Some(version) = self.agent else { return };
        for problem in &mut self.problems {
            let Some(corrected) = &problem.correction else { continue };
            if let Some(what) = refuses_corrected(source, corrected, version) {
                let place = corrected.offset..corrected.end;
                self.refused.push((vec![place], what, corrected.contents.entries));
                problem.correction = None;
            }
        }
    }

    /// Whether the damage at `offset` is a flipped bit that is flipped back.
    pub(in crate::repair) fn is_corrected(&self, offset: u64) -> bool {
        self.corrected.contains(&offset)
    }

    /// Records that the agent refuses, and what it has against them.
    pub(in crate::repair) fn refused(&self) -> impl Iterator<Item = (Range<u64>, &str)> {
        let whole = |fragments: &[Range<u64>]| Some(fragments.first()?.start..fragments.last()?.end);
        self.refused.iter().filter_map(move |(fragments, what, _)| Some((whole(fragments)?, what.as_str())))
    }

    /// What is lost with them.
    pub(in crate::repair) fn lost_to_agent(&self) -> Loss {
        let entries = self.refused.iter().map(|(_, _, entries)| entries).sum();
        Loss::new(Some(self.refused.len() as u64), Some(entries))
    }

    /// Whether bytes are missing that a disk may give another time, or that somebody has just cut off.
    pub(in crate::repair) fn is_in_flux(&self) -> bool {
        let in_flux = |fault: &Fault| matches!(fault, Fault::Unreadable(_) | Fault::Shrunk { .. });
        self.problems
            .iter()
            .any(|problem| matches!(&problem.kind, ProblemKind::Framing(fault) if in_flux(fault)))
    }

    /// Whether there is a record that is larger than what is read: Prometheus may read it.
    pub(in crate::repair) fn has_too_large(&self) -> bool {
        let too_large =
            |fault: &Fault| matches!(fault, Fault::Unpack(UnpackError::TooLarge(_)) | Fault::NotRead);
        self.problems
            .iter()
            .any(|problem| matches!(&problem.kind, ProblemKind::Framing(fault) if too_large(fault)))
    }

    /// The refs of the records that are right again once a bit is flipped back, and of those that take the place of others: no
    /// scan has counted these yet.
    pub(in crate::repair) fn corrected_refs<S: ReadAt + ?Sized>(&self, source: &S) -> io::Result<RefBounds> {
        let mut refs = RefBounds::default();
        let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
        for corrected in self.problems.iter().filter_map(|problem| problem.correction.as_ref()) {
            let head =
                stored_record(source, &(corrected.offset..corrected.end), Some(corrected), &mut stored)?;
            // A correction has been unpacked before.
            let Ok(record) = unpacker.unpack(head.compression(), &stored) else { continue };
            refs.learn(record);
        }
        for (_, instead) in &self.instead {
            instead.records().iter().for_each(|record| refs.learn(record));
        }
        Ok(refs)
    }
}

/// What takes the place of the record at `offset`.
pub(super) fn substitute_at(instead: &[(Range<u64>, Substitute)], offset: u64) -> Option<&Substitute> {
    let at = instead.binary_search_by_key(&offset, |(range, _)| range.start).ok()?;
    Some(&instead[at].1)
}

/// The damaged bytes of a problem, and what is lost with them.
pub(super) fn bytes_of(problem: &Problem) -> Vec<Range<u64>> {
    std::iter::once(&problem.range).chain(&problem.orphans).cloned().collect()
}

/// Whether it is not something that every reader skips.
pub(in crate::repair) fn needs_repair(problem: &Problem) -> bool {
    match &problem.kind {
        ProblemKind::Framing(Fault::TrailingZeros) => false,
        ProblemKind::Framing(Fault::ZeroedTail) => !problem.orphans.is_empty(),
        _ => problem.correction.is_none(),
    }
}

/// Why an agent refuses a record that is intact once a bit is flipped back.
pub(super) fn refuses_corrected<S: ReadAt + ?Sized>(
    source: &S,
    corrected: &AgreedCorrection,
    version: Version,
) -> Option<String> {
    let mut stored = Vec::new();
    let head =
        stored_record(source, &(corrected.offset..corrected.end), Some(corrected), &mut stored).ok()?;
    let mut unpacker = Unpacker::default();
    let record = unpacker.unpack(head.compression(), &stored).ok()?;
    Reader::Agent.refuses(record, version)
}
