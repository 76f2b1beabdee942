//! What a reading finds: what records hold, and what is wrong with those that cannot be had.

use std::ops::Range;

use super::decide::Decisions;
use crate::record::{self, RecordType, Summary};
use crate::scan::context;
use crate::wal::compress::Unpacker;
use crate::wal::{Compression, Damage, Fault, Record};

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
    /// Whether it holds samples: floats or histograms.
    pub(crate) fn are_samples(&self) -> bool {
        self.record_type.is_some_and(|record_type| record_type.kind().are_samples())
    }

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
    /// Intact fragments elsewhere that are lost with them.
    pub orphans: Vec<Range<u64>>,
    /// How many places in a row.
    pub places: u64,
    /// Entries that cannot be had because of it, where that is known.
    pub entries: Option<u64>,
    /// The flipped bit that explains it, agreed on by what the record says.
    pub correction: Option<AgreedCorrection>,
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
    /// The record is intact and does not decode; Prometheus's words for it.
    Decode(String),
    /// Fragments that are intact and do not belong together, and what shows it.
    Spliced(&'static str),
    /// A record of a type that Prometheus does not know, said not to be compressed, which is exactly what a compression makes.
    Flags,
}

/// A correction on which the second witness agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedCorrection {
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

pub(in crate::scan) fn contents_of(summary: &Summary) -> Contents {
    Contents {
        record_type: summary.record_type,
        entries: summary.entries,
        min_time: summary.min_time,
        max_time: summary.max_time,
    }
}

pub(super) fn snapshot_contents(data: &[u8]) -> Contents {
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

pub(super) fn snapshot_problem(record: &Record<'_>) -> Option<Problem> {
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

pub(super) fn record_problem(
    record: &Record<'_>,
    summary: &Summary,
    unpacker: &mut Unpacker,
) -> Option<Problem> {
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

pub(super) fn problem_of(record: &Record<'_>, kind: ProblemKind) -> Problem {
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

/// Where the records end that are glued together in one that does not decode, and can be separated.
pub(super) fn glued(record: &Record<'_>) -> Vec<usize> {
    record::glued(record.data)
        .filter(|ends| context::parts_are_plausible(record.data, ends))
        .unwrap_or_default()
}

pub(super) fn framing_problem(damage: Damage, decisions: &Decisions) -> Problem {
    let corrected = damage.correction.as_ref().and_then(|candidate| {
        decisions.corrected.get(&candidate.offset).filter(|corrected| corrected.at == candidate.at).cloned()
    });
    Problem {
        entries: corrected.as_ref().map(|_| 0),
        range: damage.range,
        kind: ProblemKind::Framing(damage.fault),
        orphans: damage.orphans,
        places: damage.places,
        correction: corrected,
        at_tail: false,
        glued: Vec::new(),
    }
}
