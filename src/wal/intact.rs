//! Parts of a segment in which a walk has found nothing wrong, so that nobody has to look at them with care again.

/// Such a part. All its records are intact, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntactPart {
    /// Where its first record begins.
    pub from: u64,
    /// Its records begin before here: a multiple of [`PAGE`](super::PAGE), or the end of the segment.
    pub to: u64,
    /// Where its last record ends.
    pub end: u64,
    /// Bytes that its compressed records unpack to.
    pub unpacked: u64,
}
