//! Label sets: a count, then that many name and value strings (`DecodeLabels`, `tsdb/record/record.go`).

use std::hash::{Hash, Hasher};

use super::cursor::{Cursor, CutShort};
use super::{DecoderVersion, put};

/// What one label costs Prometheus while it decodes: two string headers.
const LABEL_BYTES: u64 = 32;

/// The labels of a series or an exemplar, still in the record. Prometheus writes them sorted by name; its decoder
/// checks neither order, nor duplicates, nor UTF-8.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Labels<'a> {
    pub(crate) fn decode(cursor: &mut Cursor<'a>, dialect: DecoderVersion) -> Result<Self, CutShort> {
        let declared = if dialect < DecoderVersion::V2_42 { cursor.length()? } else { cursor.count()? };
        let absurd = cursor.is_absurd(declared, LABEL_BYTES);
        let start = *cursor;
        let mut count = 0;
        // A label takes two bytes at least, so this ends however many are declared.
        for _ in 0..declared {
            for _ in 0..2 {
                if let Err(cut) = cursor.string() {
                    return Err(CutShort { crashes: cut.crashes || absurd });
                }
            }
            count += 1;
        }
        Ok(Self { count, bytes: cursor.since(&start) })
    }

    /// How many labels there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// As they are in the record, after their count. A writer encodes a label set in one way only, so that equal sets
    /// are equal bytes.
    #[must_use]
    pub const fn encoded(&self) -> &'a [u8] {
        self.bytes
    }

    /// Name and value of each, in the record's order.
    #[must_use]
    pub const fn iter(&self) -> LabelIter<'a> {
        LabelIter { cursor: Cursor::new(self.bytes), left: self.count }
    }

    /// Whether it is a set in order: not empty, each name once and none empty, sorted by name (`model/labels`). A head finds
    /// a series by such a set alone.
    #[must_use]
    pub(crate) fn are_in_order(&self) -> bool {
        let mut last: Option<&[u8]> = None;
        !self.is_empty()
            && self.iter().all(|(name, _)| {
                let is_next = !name.is_empty() && last.is_none_or(|last| last < name);
                last = Some(name);
                is_next
            })
    }

    /// Whether Prometheus takes such labels from a target or by remote write: in order, and UTF-8 (`Labels.Validate`,
    /// `model/labels`). Its decoder checks neither; what has other labels was hardly written by a server.
    #[must_use]
    pub(crate) fn are_plausible(&self) -> bool {
        let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        self.are_in_order() && self.iter().all(|(name, value)| is_text(name) && is_text(value))
    }

    /// The value of the first label of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().find_map(|(candidate, value)| (candidate == name).then_some(value))
    }
}

impl<'a> IntoIterator for &Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = LabelIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Labels<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && (self.bytes == other.bytes || self.iter().eq(other.iter()))
    }
}

impl Eq for Labels<'_> {}

impl Hash for Labels<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not the bytes: a length can be written in more than one way.
        for label in self {
            label.hash(state);
        }
    }
}

/// Walks over [`Labels`].
#[derive(Clone, Debug)]
pub struct LabelIter<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for LabelIter<'a> {
    /// Name and value.
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.cursor.string().ok()?, self.cursor.string().ok()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for LabelIter<'_> {}

/// A label set to be written: pairs of name and value, by name in ascending order as Prometheus writes them.
pub trait LabelSet<'a>: IntoIterator<Item = (&'a [u8], &'a [u8]), IntoIter: ExactSizeIterator> {}

impl<'a, L> LabelSet<'a> for L where L: IntoIterator<Item = (&'a [u8], &'a [u8]), IntoIter: ExactSizeIterator> {}

/// Appends a label set as it is in a record, its count before it.
pub(crate) fn encode<'a>(labels: impl LabelSet<'a>, out: &mut Vec<u8>) {
    let labels = labels.into_iter();
    put::length(out, labels.len());
    for (name, value) in labels {
        put::string(out, name);
        put::string(out, value);
    }
}

/// What [`encode`] has made.
pub(crate) fn parse(bytes: &[u8]) -> Option<Labels<'_>> {
    Labels::decode(&mut Cursor::new(bytes), DecoderVersion::default()).ok()
}
