//! One segment, read and judged: what the salvage reader found, each doubt decided by what records say.
//!
//! A healthy segment is only walked ([`super::walk`]). One that cannot be is read again, with care. Only where something is
//! in doubt (a bit that could be flipped back, pages that are not where they were written) is it read once more: first for
//! the refs, times and neighbours that intact records show ([`Context`](super::context::Context)), then for good, each doubt
//! decided.

mod decide;
mod doubts;
mod found;
mod pass;

pub use self::decide::Decisions;
pub(super) use self::doubts::looks_sane;
pub(super) use self::found::contents_of;
pub use self::found::{AgreedCorrection, Contents, Problem, ProblemKind};

use self::decide::decide;
use self::doubts::Doubts;
use self::pass::Pass;
use crate::record::{self, Summary};
use crate::scan::walk::walk;
use crate::wal::around::{self, Between, Met};
use crate::wal::walk::{Pages, Walker};
use crate::wal::{Corrections, IntactPart, ReadAt, Record};

/// How the records of a log are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As Prometheus's.
    Prometheus,
    /// As those of a chunk snapshot.
    Snapshot,
    /// Not at all: framing only.
    Opaque,
}

/// What a reading of a segment reports to, in the order of offsets.
pub trait Visitor {
    /// Decodes a record of Prometheus's of which it is not settled yet whether it is intact. If it is,
    /// [`Visitor::record`] follows before the next is decoded.
    fn decode(&mut self, record: &[u8]) -> Summary {
        record::summarize(record)
    }
    /// A record that is intact and decodes, or is of a type that Prometheus skips.
    fn record(&mut self, record: &Record<'_>, contents: &Contents);
    /// The same, of a record of which this is known from before: it decodes, and is of a type that Prometheus knows.
    fn walked(&mut self, record: &Record<'_>) {
        let contents = contents_of(&self.decode(record.data));
        self.record(record, &contents);
    }
    /// The next record does not directly follow the last one that was [`Self::walked`].
    fn walk_ends(&mut self) {}
    /// Bytes that are damaged.
    fn damage(&mut self, damage: Problem);
}

/// Reads the first `length` bytes of `source` as a segment.
pub fn salvage<S: ReadAt + ?Sized, V: Visitor + Default>(source: &S, length: u64, reading: Reading) -> V {
    Salvage::new(source, length, reading).read(V::default)
}

/// A segment, and how it is to be read.
#[derive(Debug)]
pub struct Salvage<'a, S: ?Sized> {
    source: &'a S,
    length: u64,
    reading: Reading,
    corrections: Corrections,
    decided: Option<&'a Decisions>,
    intact: &'a [IntactPart],
    is_doubtful: bool,
}

impl<'a, S: ReadAt + ?Sized> Salvage<'a, S> {
    /// The first `length` bytes of `source`.
    pub fn new(source: &'a S, length: u64, reading: Reading) -> Self {
        let corrections = Corrections::default();
        Self { source, length, reading, corrections, decided: None, intact: &[], is_doubtful: false }
    }

    /// Which flipped bits are corrected.
    #[must_use]
    pub fn correcting(self, corrections: Corrections) -> Self {
        Self { corrections, ..self }
    }

    /// With the decisions of an earlier reading of the same bytes, if there are any.
    #[must_use]
    pub fn decided(self, decided: Option<&'a Decisions>) -> Self {
        Self { decided, ..self }
    }

    /// With the parts that are known to be intact: all their records decode, and no page of the segment is the same as another.
    #[must_use]
    pub fn around(self, intact: &'a [IntactPart]) -> Self {
        Self { intact, ..self }
    }

    /// It is known that something is wrong with it: it is not walked first.
    #[must_use]
    pub fn doubtful(self) -> Self {
        Self { is_doubtful: true, ..self }
    }

    /// Reads it. A reading that leaves doubts starts again with another visitor.
    pub fn read<V: Visitor>(&self, visitor_for: impl Fn() -> V) -> V {
        let Some(decided) = self.decided else { return self.read_deciding(visitor_for).0 };
        let mut visitor = visitor_for();
        self.read_with(decided, &mut visitor);
        visitor
    }

    /// As [`Self::read`]; and how the doubts were decided.
    pub fn read_deciding<V: Visitor>(&self, visitor_for: impl Fn() -> V) -> (V, Decisions) {
        if let Some(decided) = self.decided {
            return (self.read(visitor_for), decided.clone());
        }
        let mut visitor = visitor_for();
        if !self.is_doubtful && self.reading == Reading::Prometheus {
            let (mut walker, mut pages) = (Walker::default(), Pages::default());
            let all = 0..self.length;
            if walk(&mut walker, self.source, self.length, all, &mut pages, &mut visitor).is_ok() {
                return (visitor, Decisions::default());
            }
            visitor = visitor_for();
        }
        let decisions = self.decide_after(&mut visitor);
        if !decisions.is_empty() {
            visitor = visitor_for();
            self.read_with(&decisions, &mut visitor);
        }
        (visitor, decisions)
    }

    /// How its doubts are decided.
    pub fn decide(&self) -> Decisions {
        self.decide_after(&mut Nobody)
    }

    /// Reads it with these decisions.
    pub fn read_with<V: Visitor>(&self, decisions: &Decisions, visitor: &mut V) {
        self.pass(decisions, visitor);
    }

    fn pass<V: Visitor>(&self, decisions: &Decisions, visitor: &mut V) -> Doubts {
        let mut pass = Pass::new(self.reading, decisions, visitor);
        let reader = around::read(
            self.source,
            self.length,
            self.intact,
            &decisions.taken_as_they_are,
            |met| match met {
                Met::Read(event) => pass.meet(event),
                Met::Walked(record) => pass.walked(record),
                Met::WalkEnds => pass.visitor.walk_ends(),
            },
        );
        pass.finish(&reader)
    }

    /// Reads what is between the intact parts, and decides what is in doubt. `left_out` gets the number of each part in its turn.
    /// What the visitor got holds only if nothing is to be decided. `None` if all of it has to be read.
    pub(super) fn read_between<V: Visitor>(
        &self,
        visitor: &mut V,
        mut left_out: impl FnMut(&mut V, usize),
    ) -> Option<Decisions> {
        let decisions = Decisions::default();
        let mut pass = Pass::new(self.reading, &decisions, visitor);
        let reader = around::read_between(self.source, self.length, self.intact, |between| match between {
            Between::Read(event) => pass.meet(event),
            Between::LeftOut(number) => {
                pass.report_problems();
                left_out(pass.visitor, number);
            }
        })?;
        let doubts = pass.finish(&reader);
        Some(self.decide_all(doubts))
    }

    /// What the visitor gets holds only if nothing is to be decided.
    fn decide_after<V: Visitor>(&self, visitor: &mut V) -> Decisions {
        self.decide_all(self.pass(&Decisions::default(), visitor))
    }

    fn decide_all(&self, doubts: Doubts) -> Decisions {
        if !doubts.any() || self.reading != Reading::Prometheus {
            return Decisions::default();
        }
        decide(self.source, self.length, self.intact, doubts, self.corrections)
    }
}

/// Whoever only wants the decisions.
struct Nobody;

impl Visitor for Nobody {
    fn record(&mut self, _: &Record<'_>, _: &Contents) {}

    fn damage(&mut self, _: Problem) {}
}
