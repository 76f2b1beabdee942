//! Decodes records of histograms: both kinds, in both encodings.

use super::{CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, is_known_schema};
use crate::record::base::{EntryBase, EntryChain, EntryPlace};
use crate::record::cursor::{Cursor, CutShort};
use crate::record::error::ResolutionProblem;
use crate::record::{DecodeError, DecoderVersion, EntryEncoding};

/// What the two kinds of histogram have in common.
pub(super) trait Body<'a>: Default {
    /// Fills in as much as can be read.
    fn decode(&mut self, cursor: &mut Cursor<'a>, dialect: DecoderVersion) -> Result<(), CutShort>;
    fn schema(&self) -> i32;
    fn resolution_problem(&self) -> Option<ResolutionProblem>;
    /// Whether the spans of one side speak of more buckets than it has.
    fn needs_more_buckets(&self) -> bool;
}

impl<'a> Histogram<'a> {
    /// Decodes one from the front of `cursor`, as chunk snapshots hold it.
    pub(in crate::record) fn decode_from(cursor: &mut Cursor<'a>) -> Result<Self, CutShort> {
        let mut histogram = Self::default();
        histogram.decode(cursor, DecoderVersion::default())?;
        Ok(histogram)
    }
}

impl<'a> FloatHistogram<'a> {
    /// Decodes one from the front of `cursor`, as chunk snapshots hold it.
    pub(in crate::record) fn decode_from(cursor: &mut Cursor<'a>) -> Result<Self, CutShort> {
        let mut histogram = Self::default();
        histogram.decode(cursor, DecoderVersion::default())?;
        Ok(histogram)
    }
}

impl<'a> Body<'a> for Histogram<'a> {
    #[inline]
    fn decode(&mut self, cursor: &mut Cursor<'a>, dialect: DecoderVersion) -> Result<(), CutShort> {
        if dialect.has_hints() {
            self.hint = cursor.byte()?;
        }
        self.schema = cursor.varint32()?;
        self.zero_threshold_bits = cursor.be64()?;
        self.zero_count = cursor.uvarint64()?;
        self.count = cursor.uvarint64()?;
        self.sum_bits = cursor.be64()?;
        self.pos_spans.decode(cursor)?;
        self.neg_spans.decode(cursor)?;
        self.pos.decode(cursor)?;
        self.neg.decode(cursor)?;
        if self.schema == CUSTOM_BUCKETS_SCHEMA && dialect.has_custom_bounds() {
            self.custom.decode(cursor)?;
        }
        Ok(())
    }

    fn schema(&self) -> i32 {
        self.schema
    }

    fn resolution_problem(&self) -> Option<ResolutionProblem> {
        let positive = self.pos_spans.resolution_problem(self.pos.0.count);
        positive.or_else(|| self.neg_spans.resolution_problem(self.neg.0.count))
    }

    fn needs_more_buckets(&self) -> bool {
        self.pos_spans.buckets() > self.pos.0.count || self.neg_spans.buckets() > self.neg.0.count
    }
}

impl<'a> Body<'a> for FloatHistogram<'a> {
    #[inline]
    fn decode(&mut self, cursor: &mut Cursor<'a>, dialect: DecoderVersion) -> Result<(), CutShort> {
        if dialect.has_hints() {
            self.hint = cursor.byte()?;
        }
        self.schema = cursor.varint32()?;
        self.zero_threshold_bits = cursor.be64()?;
        self.zero_count_bits = cursor.be64()?;
        self.count_bits = cursor.be64()?;
        self.sum_bits = cursor.be64()?;
        self.pos_spans.decode(cursor)?;
        self.neg_spans.decode(cursor)?;
        self.pos.decode(cursor)?;
        self.neg.decode(cursor)?;
        if self.schema == CUSTOM_BUCKETS_SCHEMA && dialect.has_custom_bounds() {
            self.custom.decode(cursor)?;
        }
        Ok(())
    }

    fn schema(&self) -> i32 {
        self.schema
    }

    fn resolution_problem(&self) -> Option<ResolutionProblem> {
        let positive = self.pos_spans.resolution_problem(self.pos.0.count);
        positive.or_else(|| self.neg_spans.resolution_problem(self.neg.0.count))
    }

    fn needs_more_buckets(&self) -> bool {
        self.pos_spans.buckets() > self.pos.0.count || self.neg_spans.buckets() > self.neg.0.count
    }
}

/// Walks over either kind of record.
#[derive(Clone, Debug)]
pub(super) struct HistogramWalk<'a> {
    pub(super) cursor: Cursor<'a>,
    origin: Result<HistogramOrigin, CutShort>,
    dialect: DecoderVersion,
    /// The histograms Prometheus has kept, which are those of known schemas.
    kept: u64,
}

/// What refs and times are relative to.
#[derive(Clone, Copy, Debug)]
enum HistogramOrigin {
    V1(EntryBase),
    V2 { chain: EntryChain, started: bool },
}

impl<'a> HistogramWalk<'a> {
    pub(super) fn new(mut cursor: Cursor<'a>, encoding: EntryEncoding, dialect: DecoderVersion) -> Self {
        let origin = match encoding {
            EntryEncoding::V1 => EntryBase::decode(&mut cursor).map(HistogramOrigin::V1),
            EntryEncoding::V2 if cursor.is_empty() => Err(CutShort::SHORT),
            EntryEncoding::V2 => {
                EntryChain::decode(&mut cursor).map(|chain| HistogramOrigin::V2 { chain, started: false })
            }
        };
        Self { cursor, origin, dialect, kept: 0 }
    }

    /// The next entry.
    #[inline]
    pub(super) fn next<B: Body<'a>>(&mut self) -> Option<Result<(EntryPlace, B), DecodeError>> {
        if self.cursor.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.cursor = Cursor::default();
        }
        Some(entry)
    }

    /// Tells of each entry its ref, its time, and whether Prometheus knows its schema; and how the decoding ends.
    pub(super) fn heads<B: Body<'a>>(
        mut self,
        mut each: impl FnMut(u64, i64, bool),
    ) -> (Cursor<'a>, Option<DecodeError>) {
        while !self.cursor.is_empty() {
            let (mut at, mut body) = (EntryPlace::default(), B::default());
            match self.entry_into(&mut at, &mut body) {
                Ok(()) => each(at.series_ref, at.t, is_known_schema(body.schema())),
                Err(error) => return (Cursor::default(), Some(error)),
            }
        }
        (self.cursor, None)
    }

    fn entry<B: Body<'a>>(&mut self) -> Result<(EntryPlace, B), DecodeError> {
        let (mut at, mut body) = (EntryPlace::default(), B::default());
        self.entry_into(&mut at, &mut body)?;
        Ok((at, body))
    }

    /// Reads the next entry into `at` and `body`, which are empty.
    #[inline]
    fn entry_into<B: Body<'a>>(&mut self, at: &mut EntryPlace, body: &mut B) -> Result<(), DecodeError> {
        if let Err(cut) = self.origin {
            return Err(DecodeError::after(cut, 0, "histograms"));
        }
        // After the first error Prometheus reads zeros and carries on to the end of the entry: it judges the schema
        // (0 if that was not reached) and reduces the resolution before it looks at the error.
        let read = self.head(at).and_then(|()| body.decode(&mut self.cursor, self.dialect));
        let crashes = read.is_err_and(|cut| cut.crashes);
        let known = is_known_schema(body.schema()) || !self.dialect.judges_schemas();
        if (9..=52).contains(&body.schema()) && !crashes {
            self.lower_resolution(body)?;
        }
        self.kept += u64::from(known);
        read.map_err(|cut| DecodeError::after(cut, self.kept, "histograms"))
    }

    /// Fails where Prometheus fails to make a resolution of 8 out of a higher one.
    fn lower_resolution<B: Body<'a>>(&self, body: &B) -> Result<(), DecodeError> {
        match self.dialect {
            DecoderVersion::V3_7 if body.needs_more_buckets() => {
                Err(DecodeError::after(CutShort::ABSURD, self.kept, "histograms"))
            }
            DecoderVersion::V2_30 | DecoderVersion::V2_42 | DecoderVersion::V3_2 | DecoderVersion::V3_7 => {
                Ok(())
            }
            DecoderVersion::V3_9 => match body.resolution_problem() {
                Some(problem) => Err(DecodeError::resolution(self.kept + 1, problem)),
                None => Ok(()),
            },
        }
    }

    #[inline]
    fn head(&mut self, at: &mut EntryPlace) -> Result<(), CutShort> {
        match &mut self.origin {
            Ok(HistogramOrigin::V1(base)) => base.absolute(&mut self.cursor, at),
            Ok(HistogramOrigin::V2 { chain, started: true }) => chain.advance(&mut self.cursor, at),
            Ok(HistogramOrigin::V2 { chain, started }) => {
                *started = true;
                chain.first(at);
                Ok(())
            }
            Err(cut) => Err(*cut),
        }
    }
}
