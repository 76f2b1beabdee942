//! Why a record cannot be decoded, in Prometheus's words.

use std::fmt;

use super::cursor::CutShort;

/// What Prometheus's decoder says of a record, word for word (`tsdb/record/record.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    problem: DecodeProblem,
    crashes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecodeProblem {
    InvalidSize,
    InvalidSizeAfter { entries: u64, plural: &'static str },
    BytesLeft(usize),
    Resolution { number: u64, problem: ResolutionProblem },
}

/// Why the resolution of a histogram cannot be reduced (`reduceResolution`, `model/histogram/generic.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResolutionProblem {
    NegativeOffset { span: u64, offset: i32 },
    SpansNeedMore { have: u64 },
    SpansNeedFewer { need: u64, have: u64 },
}

impl DecodeError {
    /// `invalid size`
    pub(crate) const fn plain(cut: CutShort) -> Self {
        Self { problem: DecodeProblem::InvalidSize, crashes: cut.crashes }
    }

    /// `decode error after N <plural>: invalid size`
    pub(crate) const fn after(cut: CutShort, entries: u64, plural: &'static str) -> Self {
        Self { problem: DecodeProblem::InvalidSizeAfter { entries, plural }, crashes: cut.crashes }
    }

    /// `unexpected N bytes left in entry`
    pub(crate) const fn bytes_left(bytes: usize) -> Self {
        Self { problem: DecodeProblem::BytesLeft(bytes), crashes: false }
    }

    /// `error reducing resolution of histogram #N: ...`
    pub(crate) const fn resolution(number: u64, problem: ResolutionProblem) -> Self {
        Self { problem: DecodeProblem::Resolution { number, problem }, crashes: false }
    }

    /// Whether Prometheus never says so, because it dies on these bytes first: it slices with a string length of
    /// 2^63 or more and panics, or makes room for a count that no record can hold (8 GiB or more at once) and
    /// panics, is killed for its memory, or loops for hours.
    #[must_use]
    pub const fn crashes_prometheus(&self) -> bool {
        self.crashes
    }

    /// How many entries Prometheus says it had read: those before the failing one, and the failing one where
    /// it is counted. None where its message has no count.
    #[must_use]
    pub const fn entries(&self) -> Option<u64> {
        match self.problem {
            DecodeProblem::InvalidSizeAfter { entries, .. } => Some(entries),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem {
            DecodeProblem::InvalidSize => f.write_str("invalid size"),
            DecodeProblem::InvalidSizeAfter { entries, plural } => {
                write!(f, "decode error after {entries} {plural}: invalid size")
            }
            DecodeProblem::BytesLeft(bytes) => write!(f, "unexpected {bytes} bytes left in entry"),
            DecodeProblem::Resolution { number, problem } => {
                write!(f, "error reducing resolution of histogram #{number}: {problem}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for ResolutionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MISMATCH: &str = "histogram spans specify different number of buckets than provided";
        match self {
            Self::NegativeOffset { span, offset } => {
                write!(
                    f,
                    "span number {span} with offset {offset}: histogram has a span whose offset is negative"
                )
            }
            Self::SpansNeedMore { have } => {
                write!(f, "have {have} buckets but spans need more: {MISMATCH}")
            }
            Self::SpansNeedFewer { need, have } => {
                write!(f, "spans need {need} buckets, have {have} buckets: {MISMATCH}")
            }
        }
    }
}
