//! What a record says: one file a kind; decode and encode.
//!
//! Everything here is pure. Decoders borrow from the record, never allocate for an entry, and end after at most as
//! many steps as the record has bytes, whatever the record says. They fail where Prometheus's decoder fails
//! (`tsdb/record/record.go`), with its words.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod base;
mod cursor;
mod dialect;
mod error;
mod exemplars;
mod glued;
mod histograms;
mod labels;
mod loki;
mod metadata;
mod min_valid_time;
mod mmap_markers;
pub(crate) mod put;
mod runs;
mod samples;
mod select;
mod series;
mod snapshot;
mod summary;
mod timed;
mod tombstones;
mod types;
mod uses;

pub use dialect::DecoderVersion;
pub use error::DecodeError;
pub use exemplars::{ExemplarEntry, ExemplarIter, ExemplarsRecord, encode_exemplars};
pub use glued::glued;
pub use histograms::{
    CUSTOM_BUCKETS_SCHEMA, DeltaIter, Deltas, FloatBits, FloatBitsIter, FloatHistogram, FloatHistogramEntry,
    FloatHistogramIter, FloatHistogramSample, FloatHistogramsRecord, Histogram, HistogramEntry,
    HistogramIter, HistogramSample, HistogramsRecord, OwnedFloatHistogram, OwnedHistogram, Span, SpanIter,
    Spans, encode_custom_buckets_float_histogram_samples, encode_custom_buckets_histogram_samples,
    encode_float_histogram_samples, encode_float_histogram_samples_v2, encode_histogram_samples,
    encode_histogram_samples_v2, is_known_schema,
};
pub use labels::{LabelIter, LabelSet, Labels};
pub(crate) use labels::{encode as encode_labels, parse as parse_labels};
pub use loki::is_loki;
pub use metadata::{MetadataEntry, MetadataIter, MetadataRecord, encode_metadata};
pub use min_valid_time::{MinValidTimeEntry, MinValidTimeIter, MinValidTimeRecord, encode_min_valid_time};
pub use mmap_markers::{MmapMarkerEntry, MmapMarkerIter, MmapMarkersRecord, encode_mmap_markers};
pub(crate) use runs::SampleRun;
pub(crate) use samples::encode_samples_as;
pub use samples::{SampleEntry, SampleIter, SamplesRecord, encode_samples, encode_samples_v2};
pub use select::{Selected, select};
pub use series::{SeriesEntry, SeriesIter, SeriesRecord, encode_series};
pub use snapshot::{
    LastValue, SnapshotChunk, SnapshotError, SnapshotRecord, SnapshotSeries, SnapshotSeriesRecord,
    SnapshotTombstoneIter, SnapshotTombstonesRecord,
};
pub use summary::RefVisitor;
pub use summary::{Summary, summarize, summarize_as, summarize_refs};
pub(crate) use timed::{STALE, each_timed};
pub use tombstones::{DeletionsLost, TombstoneEntry, TombstoneIter, TombstonesRecord, encode_tombstones};
pub(crate) use types::{EntryEncoding, ReplayedFrom};
pub use types::{EntryKind, RecordType, decode_context};
pub use uses::{SeriesUse, each_use};

pub(crate) use cursor::{Cursor, CutShort};

/// A record of which only the first byte has been read.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// Of [`EntryKind::Series`].
    Series(SeriesRecord<'a>),
    /// Of [`EntryKind::Samples`].
    Samples(SamplesRecord<'a>),
    /// Of [`EntryKind::Tombstones`].
    Tombstones(TombstonesRecord<'a>),
    /// Of [`EntryKind::Exemplars`].
    Exemplars(ExemplarsRecord<'a>),
    /// Of [`EntryKind::MmapMarkers`].
    MmapMarkers(MmapMarkersRecord<'a>),
    /// Of [`EntryKind::Metadata`].
    Metadata(MetadataRecord<'a>),
    /// Of [`EntryKind::Histograms`].
    Histograms(HistogramsRecord<'a>),
    /// Of [`EntryKind::FloatHistograms`].
    FloatHistograms(FloatHistogramsRecord<'a>),
    /// Of [`EntryKind::MinValidTime`].
    MinValidTime(MinValidTimeRecord<'a>),
    /// All of the record: an empty one, or one of a type unknown to Prometheus.
    Unknown(&'a [u8]),
}

impl<'a> Record<'a> {
    /// Looks at the first byte, and no further.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Self {
        Self::parse_as(record, DecoderVersion::default())
    }

    /// The same for decoders of other versions. Which types they know is the caller's to say.
    #[must_use]
    pub fn parse_as(record: &'a [u8], dialect: DecoderVersion) -> Self {
        let body = Cursor::body_of(record);
        let Some(record_type) = RecordType::of(record) else {
            return Self::Unknown(record);
        };
        let encoding = record_type.encoding();
        match record_type.kind() {
            EntryKind::Series => Self::Series(SeriesRecord { body, dialect }),
            EntryKind::Samples => Self::Samples(SamplesRecord { body, encoding }),
            EntryKind::Tombstones => Self::Tombstones(TombstonesRecord(body)),
            EntryKind::Exemplars => Self::Exemplars(ExemplarsRecord { body, dialect }),
            EntryKind::MmapMarkers => Self::MmapMarkers(MmapMarkersRecord(body)),
            EntryKind::Metadata => Self::Metadata(MetadataRecord(body)),
            EntryKind::Histograms => Self::Histograms(HistogramsRecord { body, encoding, dialect }),
            EntryKind::FloatHistograms => {
                Self::FloatHistograms(FloatHistogramsRecord { body, encoding, dialect })
            }
            EntryKind::MinValidTime => Self::MinValidTime(MinValidTimeRecord(body)),
        }
    }
}
