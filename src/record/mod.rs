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
mod uses;

pub use dialect::Dialect;
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
pub(crate) use runs::Run;
pub use samples::{SampleEntry, SampleIter, SamplesRecord, encode_samples, encode_samples_v2};
pub use select::{Selected, select};
pub use series::{SeriesEntry, SeriesIter, SeriesRecord, encode_series};
pub use snapshot::{
    LastValue, SnapshotChunk, SnapshotError, SnapshotRecord, SnapshotSeries, SnapshotSeriesRecord,
    SnapshotTombstoneIter, SnapshotTombstonesRecord,
};
pub(crate) use timed::{STALE, each_timed};
pub use summary::{Summary, summarize, summarize_as, summarize_refs};
pub use tombstones::{DeletionsLost, TombstoneEntry, TombstoneIter, TombstonesRecord, encode_tombstones};
pub use uses::{SeriesUse, each_use};

use cursor::Cursor;

/// A record's kind, which is its first byte (`Type`, `tsdb/record/record.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RecordType {
    /// Series and their refs.
    Series = 1,
    /// Float samples.
    Samples = 2,
    /// Deleted intervals.
    Tombstones = 3,
    /// Exemplars.
    Exemplars = 4,
    /// Out-of-order samples that are in `chunks_head`; only in the WBL.
    MmapMarkers = 5,
    /// Type, unit and help of metrics.
    Metadata = 6,
    /// Integer histograms.
    HistogramSamples = 7,
    /// Float histograms.
    FloatHistogramSamples = 8,
    /// Integer histograms with custom buckets.
    CustomBucketsHistogramSamples = 9,
    /// Float histograms with custom buckets.
    CustomBucketsFloatHistogramSamples = 10,
    /// Float samples with start timestamps.
    SamplesV2 = 11,
    /// Integer histograms with start timestamps.
    HistogramSamplesV2 = 12,
    /// Float histograms with start timestamps.
    FloatHistogramSamplesV2 = 13,
    /// The time below which the WAL is truncated; only in checkpoints.
    MinValidTime = 14,
}

impl RecordType {
    /// All kinds, by number.
    pub const ALL: [Self; 14] = [
        Self::Series,
        Self::Samples,
        Self::Tombstones,
        Self::Exemplars,
        Self::MmapMarkers,
        Self::Metadata,
        Self::HistogramSamples,
        Self::FloatHistogramSamples,
        Self::CustomBucketsHistogramSamples,
        Self::CustomBucketsFloatHistogramSamples,
        Self::SamplesV2,
        Self::HistogramSamplesV2,
        Self::FloatHistogramSamplesV2,
        Self::MinValidTime,
    ];

    /// The kind of that number.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Series,
            2 => Self::Samples,
            3 => Self::Tombstones,
            4 => Self::Exemplars,
            5 => Self::MmapMarkers,
            6 => Self::Metadata,
            7 => Self::HistogramSamples,
            8 => Self::FloatHistogramSamples,
            9 => Self::CustomBucketsHistogramSamples,
            10 => Self::CustomBucketsFloatHistogramSamples,
            11 => Self::SamplesV2,
            12 => Self::HistogramSamplesV2,
            13 => Self::FloatHistogramSamplesV2,
            14 => Self::MinValidTime,
            _ => return None,
        })
    }

    /// The kind of a record; None if it is empty or of a kind unknown to Prometheus, which replay ignores.
    #[must_use]
    pub fn of(record: &[u8]) -> Option<Self> {
        record.first().and_then(|&byte| Self::from_byte(byte))
    }

    /// Its number.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Prometheus's name for it (`Type.String`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Tombstones => "tombstones",
            Self::Exemplars => "exemplars",
            Self::MmapMarkers => "mmapmarkers",
            Self::Metadata => "metadata",
            Self::HistogramSamples => "histogram_samples",
            Self::FloatHistogramSamples => "float_histogram_samples",
            Self::CustomBucketsHistogramSamples => "custom_buckets_histogram_samples",
            Self::CustomBucketsFloatHistogramSamples => "custom_buckets_float_histogram_samples",
            Self::SamplesV2 => "samples_v2",
            Self::HistogramSamplesV2 => "histogram_samples_v2",
            Self::FloatHistogramSamplesV2 => "float_histogram_samples_v2",
            Self::MinValidTime => "min_valid_time",
        }
    }
}

impl std::fmt::Display for RecordType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a server's replay puts before `: ` and a [`DecodeError`] (`loadWAL`, `loadWBL`, `tsdb/head_wal.go`).
///
/// Replay itself passes over min valid time records; the words for them are those of `ReadMinValidTime`
/// (`tsdb/wlog/checkpoint.go`), which reads the first record of the last checkpoint at start.
#[must_use]
pub const fn decode_context(record_type: RecordType) -> &'static str {
    match record_type {
        RecordType::Series => "decode series",
        RecordType::Samples | RecordType::SamplesV2 => "decode samples",
        RecordType::Tombstones => "decode tombstones",
        RecordType::Exemplars => "decode exemplars",
        RecordType::MmapMarkers => "decode mmap markers",
        RecordType::Metadata => "decode metadata",
        RecordType::HistogramSamples
        | RecordType::CustomBucketsHistogramSamples
        | RecordType::HistogramSamplesV2 => "decode histograms",
        RecordType::FloatHistogramSamples
        | RecordType::CustomBucketsFloatHistogramSamples
        | RecordType::FloatHistogramSamplesV2 => "decode float histograms",
        RecordType::MinValidTime => "decode min valid time",
    }
}

/// A record, told apart by its first byte and not yet read any further.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// Type 1.
    Series(SeriesRecord<'a>),
    /// Types 2 and 11.
    Samples(SamplesRecord<'a>),
    /// Type 3.
    Tombstones(TombstonesRecord<'a>),
    /// Type 4.
    Exemplars(ExemplarsRecord<'a>),
    /// Type 5.
    MmapMarkers(MmapMarkersRecord<'a>),
    /// Type 6.
    Metadata(MetadataRecord<'a>),
    /// Types 7, 9 and 12.
    Histograms(HistogramsRecord<'a>),
    /// Types 8, 10 and 13.
    FloatHistograms(FloatHistogramsRecord<'a>),
    /// Type 14.
    MinValidTime(MinValidTimeRecord<'a>),
    /// The whole record: an empty one, or one of a type unknown to Prometheus.
    Unknown(&'a [u8]),
}

impl<'a> Record<'a> {
    /// Looks at the first byte, and no further.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Self {
        Self::parse_as(record, Dialect::default())
    }

    /// The same for decoders of other versions. Which types they know is the caller's to say.
    #[must_use]
    pub fn parse_as(record: &'a [u8], dialect: Dialect) -> Self {
        let body = Cursor::body_of(record);
        let Some(record_type) = RecordType::of(record) else {
            return Self::Unknown(record);
        };
        match record_type {
            RecordType::Series => Self::Series(SeriesRecord { body, dialect }),
            RecordType::Samples => Self::Samples(SamplesRecord { body, v2: false }),
            RecordType::SamplesV2 => Self::Samples(SamplesRecord { body, v2: true }),
            RecordType::Tombstones => Self::Tombstones(TombstonesRecord(body)),
            RecordType::Exemplars => Self::Exemplars(ExemplarsRecord { body, dialect }),
            RecordType::MmapMarkers => Self::MmapMarkers(MmapMarkersRecord(body)),
            RecordType::Metadata => Self::Metadata(MetadataRecord(body)),
            RecordType::HistogramSamples | RecordType::CustomBucketsHistogramSamples => {
                Self::Histograms(HistogramsRecord { body, v2: false, dialect })
            }
            RecordType::HistogramSamplesV2 => Self::Histograms(HistogramsRecord { body, v2: true, dialect }),
            RecordType::FloatHistogramSamples | RecordType::CustomBucketsFloatHistogramSamples => {
                Self::FloatHistograms(FloatHistogramsRecord { body, v2: false, dialect })
            }
            RecordType::FloatHistogramSamplesV2 => {
                Self::FloatHistograms(FloatHistogramsRecord { body, v2: true, dialect })
            }
            RecordType::MinValidTime => Self::MinValidTime(MinValidTimeRecord(body)),
        }
    }
}
