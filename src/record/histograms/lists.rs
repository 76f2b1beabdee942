//! The lists of a histogram, still in the record: spans, buckets, bounds.

use crate::record::cursor::{Cursor, CutShort};
use crate::record::error::ResolutionProblem;

/// What a span, a bucket and a custom bound cost Prometheus each while it decodes.
const ELEMENT_BYTES: u64 = 8;

/// Neighbouring buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Empty buckets since the span before; in the first span, the index of its first bucket.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// A list of the record that has been walked over once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List<'a> {
    /// How many elements Prometheus makes room for. More than there are bytes for only in a list that is cut.
    pub(super) count: u64,
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    /// Reads the count, then skips so many elements. What has been read stays in the list on failure, because
    /// Prometheus looks at half-decoded histograms too.
    #[inline]
    fn decode(
        &mut self,
        cursor: &mut Cursor<'a>,
        skip: impl Fn(&mut Cursor<'a>, u64) -> Result<(), CutShort>,
    ) -> Result<(), CutShort> {
        let count = cursor.count()?;
        // Of the two sides of a histogram one is empty in most.
        if count == 0 {
            *self = Self::default();
            return Ok(());
        }
        if cursor.is_absurd(count, ELEMENT_BYTES) {
            return Err(CutShort::ABSURD);
        }
        *self = Self { count, bytes: cursor.rest() };
        let start = *cursor;
        skip(cursor, count)?;
        self.bytes = cursor.since(&start);
        Ok(())
    }

    fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }
}

macro_rules! list {
    ($(#[$doc:meta])* $name:ident, $iter:ident, $item:ty, $next:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name<'a>(pub(super) List<'a>);

        impl<'a> $name<'a> {
            /// How many there are.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether there are none.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.0.count == 0
            }

            /// Each of them, in the record's order.
            #[must_use]
            pub const fn iter(&self) -> $iter<'a> {
                $iter { cursor: Cursor::new(self.0.bytes), left: self.0.count }
            }
        }

        impl<'a> IntoIterator for &$name<'a> {
            type Item = $item;
            type IntoIter = $iter<'a>;

            fn into_iter(self) -> Self::IntoIter {
                self.iter()
            }
        }

        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.0.count == other.0.count && self.iter().eq(other.iter())
            }
        }

        impl Eq for $name<'_> {}

        /// Walks over
        #[doc = concat!("[`", stringify!($name), "`].")]
        #[derive(Clone, Debug)]
        pub struct $iter<'a> {
            cursor: Cursor<'a>,
            left: u64,
        }

        impl Iterator for $iter<'_> {
            type Item = $item;

            fn next(&mut self) -> Option<Self::Item> {
                self.left = self.left.checked_sub(1)?;
                let next: fn(&mut Cursor<'_>) -> Result<$item, CutShort> = $next;
                next(&mut self.cursor).ok()
            }
        }
    };
}

list!(
    /// The spans of one side of a histogram.
    Spans,
    SpanIter,
    Span,
    |cursor| {
        let offset = cursor.varint32()?;
        // In a span that is cut here Prometheus keeps the offset.
        let length = cursor.uvarint32().unwrap_or_else(|_| {
            *cursor = Cursor::default();
            0
        });
        Ok(Span { offset, length })
    }
);
list!(
    /// Buckets of an integer histogram, each as the difference from the one before it.
    Deltas,
    DeltaIter,
    i64,
    |cursor| cursor.varint64()
);
list!(
    /// The bits of 64-bit floats.
    FloatBits,
    FloatBitsIter,
    u64,
    |cursor| cursor.be64()
);

impl<'a> Spans<'a> {
    #[inline]
    pub(super) fn decode(&mut self, cursor: &mut Cursor<'a>) -> Result<(), CutShort> {
        self.0.decode(cursor, |cursor, count| cursor.skip_varints(count.saturating_mul(2)))
    }

    pub(super) fn buckets(&self) -> u64 {
        self.iter().fold(0, |sum: u64, span| sum.saturating_add(span.length.into()))
    }

    /// Why Prometheus cannot lower the resolution of buckets that lie so, if it cannot.
    pub(super) fn resolution_problem(&self, have: u64) -> Option<ResolutionProblem> {
        let mut need = 0_u64;
        for (span, number) in self.iter().zip(1_u64..) {
            if number > 1 && span.offset < 0 {
                return Some(ResolutionProblem::NegativeOffset { span: number, offset: span.offset });
            }
            need = need.saturating_add(u64::from(span.length));
            if need > have {
                return Some(ResolutionProblem::SpansNeedMore { have });
            }
        }
        (need != have).then_some(ResolutionProblem::SpansNeedFewer { need, have })
    }
}

impl<'a> Deltas<'a> {
    #[inline]
    pub(super) fn decode(&mut self, cursor: &mut Cursor<'a>) -> Result<(), CutShort> {
        self.0.decode(cursor, Cursor::skip_varints)
    }
}

impl<'a> FloatBits<'a> {
    #[inline]
    pub(super) fn decode(&mut self, cursor: &mut Cursor<'a>) -> Result<(), CutShort> {
        self.0.decode(cursor, Cursor::skip_be64)
    }
}
