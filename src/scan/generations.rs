//! Whether Prometheus has run since the damage: a WAL that was restarted beside a checkpoint that covers its numbers.
//!
//! On damage in `checkpoint.N` Prometheus removes the segments after it and counts from 0 again (`tsdb/wlog/wlog.go`,
//! `WL.Repair`, with a segment number of the checkpoint). All numbers up to N count as covered, so that what it writes from
//! then on is never replayed; as long as the damage is there, it is removed at each start. Refs are handed out again, since
//! the series after the damage were not read.

use super::code::Code;
use super::detail::{Detail, Held, LostSegments};
use super::findings::of_path;
use super::references::References;
use super::report::{Cause, Finding, Severity, Times};
use super::segment::{SegmentScan, Tally};
use super::sequence::{Numbers, numbers};
use crate::tsdb::replay_order::ReplayOrder;
use crate::tsdb::{Listing, LogDirectory};

/// What is found here.
pub(super) const CODES: [Code; 3] = [Code::CheckpointAhead, Code::RestartedGeneration, Code::StaleSegments];

/// The finding about numbers that the last checkpoint covers, if there are any.
pub(super) fn of_numbers(
    listing: &Listing,
    order: &ReplayOrder,
    scans: &[Vec<Option<SegmentScan>>],
    references: &References,
    checkpoint_is_whole: bool,
) -> Option<Finding> {
    let (at, checkpoint) = (order.wal?, order.checkpoint?);
    let number = match numbers(listing, order) {
        Numbers::Below { number, .. } | Numbers::Ahead { number, .. } => number,
        Numbers::Fit | Numbers::FirstMissing { .. } => return None,
    };
    let wal = &listing.logs[at];
    let covered: Vec<Covered<'_>> = wal
        .segments
        .iter()
        .zip(&scans[at])
        .filter(|(segment, _)| segment.index <= number)
        .map(|(segment, scan)| Some(Covered { index: segment.index, scan: scan.as_ref()? }))
        // One that has gone since was removed by a running server.
        .collect::<Option<_>>()?;
    let state = State {
        wal,
        checkpoint: &listing.logs[checkpoint],
        number,
        checkpoint_is_whole,
        before: sum(scans[checkpoint].iter().flatten()),
        written: scans[checkpoint].iter().flatten().filter_map(SegmentScan::modified).max(),
        all: sum(covered.iter().map(|covered| covered.scan)),
        goes_on: wal.segments.last().is_some_and(|last| last.index > number),
        covered,
    };
    Some(if state.covered.is_empty() {
        state.deleted()
    } else if state.is_restarted(references) {
        state.restarted()
    } else if state.goes_on {
        state.stale()
    } else {
        state.ahead()
    })
}

/// A segment with a number up to that of the checkpoint.
struct Covered<'a> {
    index: i64,
    scan: &'a SegmentScan,
}

struct State<'a> {
    wal: &'a LogDirectory,
    checkpoint: &'a LogDirectory,
    number: i64,
    checkpoint_is_whole: bool,
    covered: Vec<Covered<'a>>,
    /// What the checkpoint holds.
    before: Tally,
    /// When the checkpoint was written, ms.
    written: Option<i64>,
    /// What the covered segments hold.
    all: Tally,
    /// There are segments that are not covered.
    goes_on: bool,
}

impl State<'_> {
    /// What the checkpoint was made of is not newer than it, and what follows it has higher numbers. What Prometheus has
    /// restarted is newer; or its refs mean something else; or it begins with what a repair leaves.
    fn is_restarted(&self, references: &References) -> bool {
        let mut written = self.covered.iter().skip_while(|covered| covered.scan.bytes == 0);
        if written.next().is_some_and(|first| first.scan.is_cut_to_nothing()) || references.reissued_below > 0
        {
            return true;
        }
        if self.goes_on {
            return self.is_newer();
        }
        let from_zero = self.covered.first().is_some_and(|first| first.index == 0);
        from_zero && (self.all.max_time.is_none() || self.is_newer())
    }

    fn is_newer(&self) -> bool {
        let (Some(last), Some((from, to))) = (self.before.max_time, self.all.times()) else {
            // Only the clock of the file system is left.
            let newest = self.covered.iter().filter_map(|covered| covered.scan.modified()).max();
            return self.all.max_time.is_some() && newest > self.written;
        };
        // A checkpoint has the newest samples of its segments, if they can be read. What is restarted may begin with
        // samples that came late.
        if self.checkpoint_is_whole || !self.goes_on { to > last } else { from > last }
    }

    fn restarted(&self) -> Finding {
        let first = self.covered.first().map_or(0, |covered| covered.index);
        let detail = Detail::Restarted {
            first,
            checkpoint: self.checkpoint.relative.clone(),
            covers: self.checkpoint_is_whole.then_some(self.number),
            held: self.held(),
            lost: self.lost(),
        };
        Finding {
            segment: Some(first),
            times: self.times(),
            gone: self.time_gone(),
            ..self.finding(Code::RestartedGeneration, Severity::Damage, detail)
        }
    }

    fn times(&self) -> Option<Times> {
        self.all.times().map(|(from, to)| Times { from: Some(from), to: Some(to) })
    }

    /// What the covered segments hold.
    fn held(&self) -> Held {
        Held { samples: self.all.samples(), times: self.all.times() }
    }

    /// What followed the checkpoint.
    fn lost(&self) -> LostSegments {
        LostSegments {
            first: self.number.saturating_add(1),
            from: self.before.max_time,
            to: self.all.min_time,
        }
    }

    fn time_gone(&self) -> Option<Times> {
        let from = self.before.max_time;
        // Samples that came late say nothing of when it was.
        let gone = Times { from, to: self.all.min_time.filter(|&to| from.is_none_or(|from| from <= to)) };
        gone.from.or(gone.to).is_some().then_some(gone)
    }

    /// No segment is left at all.
    fn deleted(&self) -> Finding {
        let detail = Detail::SegmentsDeleted { is_intact: self.checkpoint_is_whole, lost: self.lost() };
        Finding {
            cause: self.checkpoint_is_whole.then_some(Cause::Files),
            gone: self.time_gone(),
            ..self.finding(Code::CheckpointAhead, Severity::Damage, detail)
        }
    }

    /// Nothing shows that they are newer than the checkpoint.
    fn ahead(&self) -> Finding {
        let detail = Detail::CheckpointAhead { covers: self.number, held: self.held() };
        Finding {
            cause: Some(Cause::Files),
            times: self.times(),
            ..self.finding(Code::CheckpointAhead, Severity::Damage, detail)
        }
    }

    fn stale(&self) -> Finding {
        let first = self.covered.first().map_or(0, |covered| covered.index);
        let holds = self.covered.iter().any(|covered| covered.scan.bytes > 0);
        let segments = self.covered.len() as u64;
        let detail = Detail::StaleSegments { covers: self.number, segments };
        let severity = if holds { Severity::Warning } else { Severity::Note };
        Finding { segment: Some(first), ..self.finding(Code::StaleSegments, severity, detail) }
    }

    fn finding(&self, code: Code, severity: Severity, detail: Detail) -> Finding {
        let log = if code == Code::CheckpointAhead { self.checkpoint } else { self.wal };
        of_path(Some(log), log.relative.clone(), code, severity, detail)
    }
}

fn sum<'a>(scans: impl Iterator<Item = &'a SegmentScan>) -> Tally {
    let mut all = Tally::default();
    for scan in scans {
        all.add(&scan.tally);
    }
    all
}
