//! One segment, read and judged: what the salvage reader found, settled by what records say.
//!
//! A healthy segment is only walked ([`super::walk`]). One that cannot be is read anew, with care. Only where something is
//! in doubt (a bit that could be flipped back, pages that do not stand where they stood) is it read again: first for the
//! refs, times and neighbours that whole records show ([`Context`]), then for good, each doubt decided.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::record::{self, RecordType, Summary};
use crate::scan::context::{self, Context, Pairs, Suspicion};
use crate::scan::misplaced::out_of_step::reads_out_of_step;
use crate::scan::walk::walk;
use crate::wal::compress::{self, Unpacker};
use crate::wal::layout::{HeadByte, page_start};
use crate::wal::walk::{Pages, Walker};
use crate::wal::{
    Compression, Correction, Corrections, Damage, Event, Fault, PAGE, ReadAt, Record, SegmentReader,
};

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

/// What is told of a segment, in the order of offsets.
pub trait Visitor {
    /// Decodes a record of Prometheus's of which it is not settled yet whether it is whole. If it is,
    /// [`Visitor::record`] follows before the next is decoded.
    fn decode(&mut self, record: &[u8]) -> Summary {
        record::summarize(record)
    }
    /// A record that is whole and decodes, or is of a type that Prometheus passes over.
    fn record(&mut self, record: &Record<'_>, contents: &Contents);
    /// Bytes that are damaged.
    fn damage(&mut self, damage: Problem);
}

/// What a record holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Its type; `None` if Prometheus does not know it. Records of a chunk snapshot have the type of those that hold the same.
    pub record_type: Option<RecordType>,
    /// Entries.
    pub entries: u64,
    /// Lowest time, ms.
    pub min_time: Option<i64>,
    /// Highest time, ms.
    pub max_time: Option<i64>,
}

impl Contents {
    /// Prometheus's name of its type; `unknown` if there is none.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.record_type.map_or("unknown", RecordType::name)
    }
}

/// Damage, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// The damaged bytes.
    pub range: Range<u64>,
    /// What is wrong.
    pub kind: ProblemKind,
    /// Whole fragments elsewhere that are lost with them.
    pub orphans: Vec<Range<u64>>,
    /// How many places in a row.
    pub places: u64,
    /// Entries that cannot be had because of it, where that is known.
    pub entries: Option<u64>,
    /// The flipped bit that explains it, agreed on by what the record says.
    pub correction: Option<Mended>,
    /// Nothing that can be read follows in this segment.
    pub at_tail: bool,
    /// Where the records end that are glued together in this one ([`record::glued`]); none if that is not what is wrong.
    pub glued: Vec<usize>,
}

/// What is wrong with damaged bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum ProblemKind {
    /// As the reader found it.
    Framing(Fault),
    /// The record is whole and does not decode; Prometheus's words for it.
    Decode(String),
    /// Fragments that are whole and do not belong together, and what shows it.
    Spliced(&'static str),
    /// A record of a type that Prometheus does not know, said not to be compressed, which is exactly what a compression makes.
    Flags,
}

/// A correction on which the second witness agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// The byte, as an offset in the segment.
    pub at: u64,
    /// The bit in it.
    pub mask: u8,
    /// Where the record's first fragment begins.
    pub offset: u64,
    /// Where its last fragment ends.
    pub end: u64,
    /// What the record holds.
    pub contents: Contents,
    /// One in this many damages of another kind looks like this by coincidence.
    pub odds: u64,
}

/// Reads the first `length` bytes of `source` as a segment.
pub fn salvage<S: ReadAt + ?Sized, V: Visitor + Default>(source: &S, length: u64, reading: Reading) -> V {
    salvage_with(source, length, reading, V::default)
}

/// As [`salvage`], for visitors that are made so. A reading that leaves doubts begins anew with another one.
pub fn salvage_with<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    visitor_for: impl Fn() -> V,
) -> V {
    salvage_correcting(source, length, reading, Corrections::default(), visitor_for)
}

/// As [`salvage_with`], where it is said which corrections are wanted.
pub fn salvage_correcting<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    corrections: Corrections,
    visitor_for: impl Fn() -> V,
) -> V {
    salvage_settling(source, length, reading, corrections, visitor_for).0
}

/// The same; and what has been settled of the segment.
pub(crate) fn salvage_settling<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    corrections: Corrections,
    visitor_for: impl Fn() -> V,
) -> (V, Settled) {
    if reading == Reading::Prometheus {
        let mut visitor = visitor_for();
        let (mut walker, mut pages) = (Walker::default(), Pages::default());
        if walk(&mut walker, source, length, 0..length, &mut pages, &mut visitor).is_ok() {
            return (visitor, Settled::default());
        }
    }
    salvage_doubtful(source, length, reading, corrections, visitor_for)
}

/// As [`salvage_settling`], where it is known that the segment cannot be walked.
pub(super) fn salvage_doubtful<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    corrections: Corrections,
    visitor_for: impl Fn() -> V,
) -> (V, Settled) {
    let mut visitor = visitor_for();
    let settled = settle_correcting(source, length, reading, corrections, &mut visitor);
    if !settled.is_certain() {
        visitor = visitor_for();
        settled.tell(source, length, reading, &mut visitor);
    }
    (visitor, settled)
}

/// What a first reading left open, decided; nothing, if it holds as it is: to be told with no decisions is the first reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled(Decisions);

/// Reads the first `length` bytes of `source` as a segment, and decides what is in doubt. What the visitor is told
/// holds only if that is [certain](Settled::is_certain).
pub fn settle<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    visitor: &mut V,
) -> Settled {
    settle_correcting(source, length, reading, Corrections::default(), visitor)
}

fn settle_correcting<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    corrections: Corrections,
    visitor: &mut V,
) -> Settled {
    let mut doubts = Doubts::default();
    pass(source, length, reading, &Decisions::default(), visitor, &mut doubts);
    if !doubts.any() || reading != Reading::Prometheus {
        return Settled::default();
    }
    let mut decisions = decide(source, length, &doubts, corrections);
    // Where another type has led to no record, the fragment may be whole as it stands.
    let in_vain = std::mem::take(&mut decisions.as_they_stand);
    if !in_vain.is_empty() {
        doubts.as_they_stand = in_vain;
        decisions = decide(source, length, &doubts, corrections);
        decisions.as_they_stand = std::mem::take(&mut doubts.as_they_stand);
    }
    Settled(decisions)
}

impl Settled {
    /// Whether nothing was in doubt, or all of it holds as it was read first.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.0 == Decisions::default()
    }

    /// As [`Settled::tell`], to a visitor that is made so; a segment where nothing is wrong is only walked.
    pub(crate) fn read<S: ReadAt + ?Sized, V: Visitor>(
        &self,
        source: &S,
        length: u64,
        reading: Reading,
        visitor_for: impl Fn() -> V,
    ) -> V {
        let mut visitor = visitor_for();
        if reading == Reading::Prometheus && self.is_certain() {
            let (mut walker, mut pages) = (Walker::default(), Pages::default());
            if walk(&mut walker, source, length, 0..length, &mut pages, &mut visitor).is_ok() {
                return visitor;
            }
            visitor = visitor_for();
        }
        self.tell(source, length, reading, &mut visitor);
        visitor
    }

    /// Reads again, and tells what holds.
    pub fn tell<S: ReadAt + ?Sized, V: Visitor>(
        &self,
        source: &S,
        length: u64,
        reading: Reading,
        visitor: &mut V,
    ) {
        pass(source, length, reading, &self.0, visitor, &mut Doubts::default());
    }
}

/// What a first reading leaves open.
#[derive(Debug, Default)]
struct Doubts {
    /// A bit that could be flipped back.
    corrections: bool,
    /// Pages, by their number, that may not stand where they stood: records do not go on from them to the next.
    suspects: HashSet<u64>,
    /// Records, by their offset, that read as if a page did not belong to them.
    odd: HashSet<u64>,
    /// Records that are begun and not gone on with.
    unfinished: Vec<Range<u64>>,
    /// Fragments that do not fit as they stand, and lead to nothing under another type.
    as_they_stand: HashSet<u64>,
    /// The last joined record of a type that nobody knows.
    unproven: Option<Range<u64>>,
}

impl Doubts {
    fn any(&self) -> bool {
        self.corrections || !self.suspects.is_empty() || !self.odd.is_empty()
    }

    /// Whether there may be records that they concern.
    fn concern_records(&self) -> bool {
        !(self.suspects.is_empty() && self.odd.is_empty() && self.as_they_stand.is_empty())
    }

    /// Whether that record was joined across the edge of a suspect page, or reads as if, and nothing within it
    /// proves it.
    fn concern(&self, record: &Record<'_>) -> Option<Suspicion> {
        let suspect = |fragment: &Range<u64>| self.suspects.contains(&(fragment.start / PAGE));
        if self.as_they_stand.contains(&record.offset) {
            return Some(Suspicion::Pages);
        }
        if !(record.is_joined() || record.in_copy) || record.has_own_checksum {
            None
        } else if record.fragments.iter().any(suspect) {
            Some(Suspicion::Pages)
        } else {
            self.odd.contains(&record.offset).then_some(Suspicion::Contents)
        }
    }

    /// What a record shows that is taken as it is, or is a problem of its own.
    fn look_at(&mut self, record: &Record<'_>, summary: &Summary, problem: Option<&Problem>) {
        if problem.is_some_and(|problem| !problem.glued.is_empty()) {
            // Its fragments are whole and decode to the end: nothing is in doubt.
            return;
        }
        self.corrections |= problem.is_some() && record.compression == Compression::None;
        if record.is_joined() && summary.record_type.is_none() && !record.has_own_checksum {
            self.unproven = Some(record.offset..record.end);
        }
        if record.is_joined() && summary.error.is_some() {
            self.suspect(&(record.offset..record.end));
        } else if record.is_joined() && !looks_sane(record, summary) {
            self.odd.insert(record.offset);
        }
    }

    /// All has been read; the last whole record ends at `tail`. A record that is begun there was cut off by a crash, and is
    /// no sign of pages in the wrong place but for a record that has nothing at all to show for itself.
    fn finish(&mut self, tail: u64) {
        for range in std::mem::take(&mut self.unfinished) {
            let unproven = self.unproven.as_ref().is_some_and(|record| record.end > page_start(range.start));
            if range.start < tail || unproven {
                self.suspect(&(range.start..range.end + 1));
            }
        }
    }

    fn suspect(&mut self, range: &Range<u64>) {
        self.suspects.extend(range.start / PAGE..=range.end.saturating_sub(1) / PAGE);
    }

    /// Faults that pages in the wrong place make.
    fn learn(&mut self, damage: &Damage) {
        let page = damage.range.start / PAGE;
        match damage.fault {
            Fault::Unfinished => self.unfinished.push(damage.range.clone()),
            // A padded page is the last of its segment.
            Fault::ZeroedTail => self.suspect(&(damage.range.start..damage.range.end + 1)),
            Fault::Headless => self.suspect(&(damage.range.start.saturating_sub(1)..damage.range.end)),
            Fault::Type(_) => {
                self.suspect(&(damage.range.start.saturating_sub(PAGE)..damage.range.end + PAGE));
            }
            Fault::Unpack(_) => self.suspect(&damage.range),
            Fault::DuplicatedPage { original } => {
                let pages = (damage.range.end - damage.range.start).div_ceil(PAGE);
                self.suspects.extend(page..page + pages);
                self.suspects.extend(original / PAGE..original / PAGE + pages);
            }
            _ => {}
        }
    }
}

/// How doubts were settled, by the offset of the record.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decisions {
    refused: HashMap<u64, &'static str>,
    mended: HashMap<u64, Mended>,
    /// Fragments that are not to be read under another type.
    as_they_stand: HashSet<u64>,
}

fn pass<S: ReadAt + ?Sized, V: Visitor>(
    source: &S,
    length: u64,
    reading: Reading,
    decisions: &Decisions,
    visitor: &mut V,
    doubts: &mut Doubts,
) {
    let mut reader = SegmentReader::new(source, length).taking_as_they_stand(decisions.as_they_stand.clone());
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
                        problem.correction = decisions.mended.get(&record.offset).cloned();
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

/// Tells of the problems that begin before the record, then of the record.
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

/// Whether a joined record that decodes is free of what only bytes read out of step contain: refs beyond what any
/// server hands out, times that lie years apart, schemas that do not exist.
pub(super) fn looks_sane(record: &Record<'_>, summary: &Summary) -> bool {
    const HIGHEST_REF: u64 = 1 << 40;
    const YEAR: u64 = 365 * 24 * 60 * 60 * 1000;
    if record.has_own_checksum {
        return true;
    }
    summary.max_ref.is_none_or(|max| max < HIGHEST_REF)
        && summary.min_time.zip(summary.max_time).is_none_or(|(min, max)| max.abs_diff(min) < YEAR)
        && summary.unknown_schemas == 0
        && !summary.overlong
        && !(summary.falls && (context::pages_are_exchanged(record) || reads_out_of_step(record)))
}

pub(super) fn contents_of(summary: &Summary) -> Contents {
    Contents {
        record_type: summary.record_type,
        entries: summary.entries,
        min_time: summary.min_time,
        max_time: summary.max_time,
    }
}

fn snapshot_contents(data: &[u8]) -> Contents {
    use record::SnapshotRecord as R;
    let count = |entries: u64, record_type| Contents {
        record_type: Some(record_type),
        entries,
        ..Contents::default()
    };
    match R::parse(data) {
        R::Series(_) => count(1, RecordType::Series),
        R::Tombstones(r) => count(r.entries().count() as u64, RecordType::Tombstones),
        R::Exemplars(r) => count(r.entries().count() as u64, RecordType::Exemplars),
        R::Unknown(_) => Contents::default(),
    }
}

fn snapshot_problem(record: &Record<'_>) -> Option<Problem> {
    use record::SnapshotRecord as R;
    let error = match R::parse(record.data) {
        R::Series(r) => r.decode().err().filter(|e| !e.accepted_by_prometheus()).map(|e| e.to_string()),
        R::Tombstones(r) => r.entries().find_map(Result::err).map(|e| format!("decode tombstones: {e}")),
        R::Exemplars(r) => r.entries().find_map(Result::err).map(|e| format!("exemplars from buffer: {e}")),
        R::Unknown(data) => Some(
            data.first()
                .map_or("empty record".into(), |kind| format!("unsupported snapshot record type 0b{kind:b}")),
        ),
    };
    error.map(|error| problem_of(record, ProblemKind::Decode(error)))
}

/// Whether bytes that are said not to be compressed are exactly what a compression makes.
fn unpacks(data: &[u8], unpacker: &mut Unpacker) -> bool {
    let mut exact = |compression| unpacker.unpack(compression, data).is_ok_and(|record| !record.is_empty());
    !data.is_empty() && (exact(Compression::Snappy) || exact(Compression::Zstd))
}

fn record_problem(record: &Record<'_>, summary: &Summary, unpacker: &mut Unpacker) -> Option<Problem> {
    match (summary.record_type, summary.error) {
        (Some(kind), Some(error)) => {
            let text = format!("{}: {error}", record::decode_context(kind));
            Some(problem_of(record, ProblemKind::Decode(text)))
        }
        (None, _) if record.compression == Compression::None && unpacks(record.data, unpacker) => {
            Some(problem_of(record, ProblemKind::Flags))
        }
        _ => None,
    }
}

fn problem_of(record: &Record<'_>, kind: ProblemKind) -> Problem {
    Problem {
        range: record.offset..record.end,
        kind,
        orphans: Vec::new(),
        places: 1,
        entries: None,
        correction: None,
        at_tail: false,
        glued: Vec::new(),
    }
}

/// Where the records end that are glued together in one that does not decode, and can be told apart.
fn glued(record: &Record<'_>) -> Vec<usize> {
    record::glued(record.data)
        .filter(|ends| context::parts_are_plausible(record.data, ends))
        .unwrap_or_default()
}

fn framing_problem(damage: Damage, decisions: &Decisions) -> Problem {
    let mended = damage.correction.as_ref().and_then(|candidate| {
        decisions.mended.get(&candidate.offset).filter(|mended| mended.at == candidate.at).cloned()
    });
    Problem {
        entries: mended.as_ref().map(|_| 0),
        range: damage.range,
        kind: ProblemKind::Framing(damage.fault),
        orphans: damage.orphans,
        places: damage.places,
        correction: mended,
        at_tail: false,
        glued: Vec::new(),
    }
}

/// Reads once more and settles every doubt by the context.
fn decide<S: ReadAt + ?Sized>(
    source: &S,
    length: u64,
    doubts: &Doubts,
    corrections: Corrections,
) -> Decisions {
    let mut asked = Pairs::default();
    if doubts.concern_records() {
        let mut reader =
            SegmentReader::new(source, length).taking_as_they_stand(doubts.as_they_stand.clone());
        while let Some(event) = reader.next() {
            if let Event::Record(record) = event
                && record.compression == Compression::None
                && doubts.concern(&record).is_some()
            {
                asked.ask(&record);
            }
        }
    }
    let context = &Context::of(source, length, asked, |record| doubts.concern(record).is_none());
    let mut decisions = Decisions::default();
    let mut unpacker = Unpacker::default();
    // A page that is a copy, by number, and the one it is a copy of; fragments of joined records that are believed.
    let (mut copies, mut used) = (HashMap::new(), HashSet::new());
    let mut reader = SegmentReader::new(source, length).taking_as_they_stand(doubts.as_they_stand.clone());
    while let Some(event) = reader.next() {
        match event {
            Event::Record(record) => {
                let taken = |fragment: &Range<u64>| {
                    copies
                        .get(&(fragment.start / PAGE))
                        .is_some_and(|original| used.contains(&(original * PAGE + fragment.start % PAGE)))
                };
                let contradiction = if record.in_copy && record.fragments.iter().any(taken) {
                    Some(
                        "the page is a copy, and its fragment belongs to a record that the original begins or ends",
                    )
                } else {
                    doubts.concern(&record).and_then(|suspicion| context.contradiction(&record, suspicion))
                };
                if let Some(why) = contradiction {
                    decisions.refused.insert(record.offset, why);
                } else if record.compression == Compression::None
                    && record_problem(&record, &record::summarize(record.data), &mut unpacker).is_some()
                    && let Some(mended) = other_flags(&record, context, &mut unpacker, corrections)
                {
                    decisions.mended.insert(record.offset, mended);
                } else if record.is_joined() {
                    used.extend(record.fragments.iter().map(|fragment| fragment.start));
                }
            }
            Event::Damage(Damage { fault: Fault::DuplicatedPage { original }, range, .. }) => {
                let pages = range.start / PAGE..range.end.div_ceil(PAGE);
                copies.extend(pages.zip(original / PAGE..));
            }
            Event::Damage(damage) => {
                let mended = damage.correction.and_then(|candidate| agree(&candidate, context, corrections));
                if mended.is_none() && matches!(damage.fault, Fault::Type(_)) {
                    decisions.as_they_stand.insert(damage.range.start);
                }
                decisions.mended.extend(mended.map(|mended| (mended.offset, mended)));
            }
        }
    }
    decisions
}

/// A record whose flags say that it is not compressed, and which makes sense only if it is.
fn other_flags(
    record: &Record<'_>,
    context: &Context,
    unpacker: &mut Unpacker,
    corrections: Corrections,
) -> Option<Mended> {
    let mut found = None;
    for compression in [Compression::Snappy, Compression::Zstd] {
        let head = HeadByte(record.head.0 ^ compression.bits());
        if !head.is_canonical() {
            continue;
        }
        let Ok(data) = unpacker.unpack(compression, record.data) else { continue };
        let candidate = Correction {
            at: record.fragments.last().map_or(record.offset, |last| last.start),
            mask: compression.bits(),
            tried: 2,
            covered: 0,
            offset: record.offset,
            end: record.end,
            compression,
            has_own_checksum: compress::has_own_checksum(compression, record.data),
            data: data.to_vec(),
        };
        if let Some(mended) = agree(&candidate, context, corrections) {
            if found.is_some() {
                return None;
            }
            found = Some(mended);
        }
    }
    found
}

/// The second witness: the record decodes to its end, and what it says fits its neighbours.
fn agree(correction: &Correction, context: &Context, corrections: Corrections) -> Option<Mended> {
    let summary = record::summarize(&correction.data);
    if summary.record_type.is_none() || summary.error.is_some() || summary.entries == 0 {
        return None;
    }
    let checksummed = correction.has_own_checksum;
    if correction.compression == Compression::None && correction.covered > corrections.most_covered() {
        return None;
    }
    if !checksummed && !context.supports(&correction.data, correction.offset) {
        return None;
    }
    // Each correction that was tried fits a CRC by chance once in 2^32; zstd's own checksum is as good again.
    let chance = (1u64 << 32) / u64::from(correction.tried.max(1));
    let odds = if checksummed { chance.saturating_mul(1 << 32) } else { chance };
    Some(Mended {
        at: correction.at,
        mask: correction.mask,
        offset: correction.offset,
        end: correction.end,
        contents: contents_of(&summary),
        odds,
    })
}

/// What some records of a segment show.
#[derive(Debug)]
pub(crate) struct Surroundings(Context);

impl Surroundings {
    /// Of the records that begin at `trusted` offsets of the first `length` bytes of `source`.
    pub(crate) fn of<S: ReadAt + ?Sized>(source: &S, length: u64, trusted: impl Fn(u64) -> bool) -> Self {
        Self(Context::of(source, length, Pairs::default(), |record| trusted(record.offset)))
    }

    /// Whether they speak against one of the records `parts`: it has refs or times such as none of theirs comes near, or
    /// series that they define.
    pub(crate) fn contradict(&self, parts: &[Vec<u8>]) -> bool {
        parts.iter().any(|part| self.0.is_strange(part))
    }

    /// Whether they speak for `data` at `offset`: every ref is one of theirs, every time near theirs, labels are
    /// well-formed, and no other record defines their series.
    pub(crate) fn support(&self, data: &[u8], offset: u64) -> bool {
        let Self(context) = self;
        let is_used = match record::Record::parse(data) {
            record::Record::Series(series) => {
                series.entries().flatten().all(|entry| context.uses(entry.series_ref))
            }
            _ => true,
        };
        is_used && context.supports(data, offset)
    }
}
