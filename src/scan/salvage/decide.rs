//! Decides what a first reading leaves in doubt.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::doubts::Doubts;
use super::found::{AgreedCorrection, contents_of, record_problem};
use crate::record;
use crate::scan::context::{Context, Pairs};
use crate::wal::around::{self, Met};
use crate::wal::compress::{self, Unpacker};
use crate::wal::layout::HeadByte;
use crate::wal::{
    CandidateCorrection, Compression, Corrections, Damage, Event, Fault, IntactPart, PAGE, ReadAt, Record,
};

/// How the doubts that a first reading leaves are decided, by the offset of the record; nothing, if that reading holds as it
/// is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decisions {
    pub(super) refused: HashMap<u64, &'static str>,
    pub(super) corrected: HashMap<u64, AgreedCorrection>,
    /// Fragments that are not to be read under another type.
    pub(super) taken_as_they_are: HashSet<u64>,
}

impl Decisions {
    /// Whether nothing was in doubt, or all of it holds as it was read first.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Decides all doubts.
pub(super) fn decide<S: ReadAt + ?Sized>(
    source: &S,
    length: u64,
    intact: &[IntactPart],
    mut doubts: Doubts,
    corrections: Corrections,
) -> Decisions {
    let mut decisions = read_and_decide(source, length, intact, &doubts, corrections);
    // Where another type has led to no record, the fragment may be intact as it is.
    let in_vain = std::mem::take(&mut decisions.taken_as_they_are);
    if !in_vain.is_empty() {
        doubts.taken_as_they_are = in_vain;
        decisions = read_and_decide(source, length, intact, &doubts, corrections);
        decisions.taken_as_they_are = doubts.taken_as_they_are;
    }
    decisions
}

/// Reads once more and settles every doubt by the context.
fn read_and_decide<S: ReadAt + ?Sized>(
    source: &S,
    length: u64,
    intact: &[IntactPart],
    doubts: &Doubts,
    corrections: Corrections,
) -> Decisions {
    let mut asked = Pairs::default();
    if doubts.concern_records() {
        around::read(source, length, intact, &doubts.taken_as_they_are, |met| {
            let record = match &met {
                Met::Read(Event::Record(record)) => record,
                Met::Walked(record) => *record,
                Met::Read(Event::Damage(_)) | Met::WalkEnds => return,
            };
            if record.compression == Compression::None && doubts.concern(record).is_some() {
                asked.ask(record);
            }
        });
    }
    let context = &Context::of(source, length, intact, asked, |record| doubts.concern(record).is_none());
    let mut decisions = Decisions::default();
    let mut unpacker = Unpacker::default();
    // A page that is a copy, by number, and the one it is a copy of; fragments of joined records that are believed.
    let (mut copies, mut used) = (HashMap::new(), HashSet::new());
    around::read(source, length, intact, &doubts.taken_as_they_are, |met| match met {
        // No page is a copy then, and nothing is wrong with the record but where its pages are.
        Met::Walked(record) => {
            let suspicion = doubts.concern(record);
            if let Some(why) = suspicion.and_then(|suspicion| context.contradiction(record, suspicion)) {
                decisions.refused.insert(record.offset, why);
            }
        }
        Met::WalkEnds => {}
        Met::Read(Event::Record(record)) => {
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
                && let Some(corrected) = other_flags(&record, context, &mut unpacker, corrections)
            {
                decisions.corrected.insert(record.offset, corrected);
            } else if record.is_joined() {
                used.extend(record.fragments.iter().map(|fragment| fragment.start));
            }
        }
        Met::Read(Event::Damage(Damage { fault: Fault::DuplicatedPage { original }, range, .. })) => {
            let pages = range.start / PAGE..range.end.div_ceil(PAGE);
            copies.extend(pages.zip(original / PAGE..));
        }
        Met::Read(Event::Damage(damage)) => {
            let corrected = damage.correction.and_then(|candidate| agree(&candidate, context, corrections));
            if corrected.is_none() && matches!(damage.fault, Fault::Type(_)) {
                decisions.taken_as_they_are.insert(damage.range.start);
            }
            decisions.corrected.extend(corrected.map(|corrected| (corrected.offset, corrected)));
        }
    });
    decisions
}

/// A record whose flags say that it is not compressed, and which makes sense only if it is.
fn other_flags(
    record: &Record<'_>,
    context: &Context,
    unpacker: &mut Unpacker,
    corrections: Corrections,
) -> Option<AgreedCorrection> {
    let mut found = None;
    for compression in [Compression::Snappy, Compression::Zstd] {
        let head = HeadByte(record.head.0 ^ compression.bits());
        if !head.is_canonical() {
            continue;
        }
        let Ok(data) = unpacker.unpack(compression, record.data) else { continue };
        let candidate = CandidateCorrection {
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
        if let Some(corrected) = agree(&candidate, context, corrections) {
            if found.is_some() {
                return None;
            }
            found = Some(corrected);
        }
    }
    found
}

/// The second witness: the record decodes to its end, and what it says fits its neighbours.
fn agree(
    correction: &CandidateCorrection,
    context: &Context,
    corrections: Corrections,
) -> Option<AgreedCorrection> {
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
    Some(AgreedCorrection {
        at: correction.at,
        mask: correction.mask,
        offset: correction.offset,
        end: correction.end,
        contents: contents_of(&summary),
        odds,
    })
}
