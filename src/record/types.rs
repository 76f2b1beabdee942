//! The types of records: one table, with all that is said of a type by its number alone.
//!
//! A type is a row of [`record_types`]. What its entries are is an [`EntryKind`], which code that does not care for their
//! encoding matches without a catch-all arm: a new kind does not compile until each such place knows it.

use std::fmt;

/// Makes [`RecordType`] of a table: number, name of the variant, Prometheus's name (`Type.String`), the first minor version
/// that reads it (2.30 is the oldest that is distinguished), what its entries are, and how they are encoded.
macro_rules! record_types {
    ($($(#[$doc:meta])* $byte:literal $variant:ident $name:literal $since:tt $kind:ident $encoding:ident;)*) => {
        /// A record's type, which is its first byte (`Type`, `tsdb/record/record.go`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum RecordType {
            $($(#[$doc])* $variant = $byte,)*
        }

        impl RecordType {
            /// All types, by number.
            pub const ALL: [Self; [$($byte),*].len()] = [$(Self::$variant),*];

            /// The type of that number.
            #[must_use]
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Prometheus's name for it (`Type.String`).
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The first minor version of Prometheus that reads it; older ones skip it.
            pub(crate) const fn since(self) -> (u32, u32) {
                match self {
                    $(Self::$variant => $since,)*
                }
            }

            /// What its entries are.
            #[must_use]
            pub const fn kind(self) -> EntryKind {
                match self {
                    $(Self::$variant => EntryKind::$kind,)*
                }
            }

            /// How its entries are encoded, of the encodings that their kind has.
            pub(crate) const fn encoding(self) -> EntryEncoding {
                match self {
                    $(Self::$variant => EntryEncoding::$encoding,)*
                }
            }
        }
    };
}

record_types! {
    /// Series and their refs.
    1 Series "series" (2, 30) Series V1;
    /// Float samples.
    2 Samples "samples" (2, 30) Samples V1;
    /// Deleted intervals.
    3 Tombstones "tombstones" (2, 30) Tombstones V1;
    /// Exemplars.
    4 Exemplars "exemplars" (2, 30) Exemplars V1;
    /// Out-of-order samples that are in `chunks_head`; only in the WBL.
    5 MmapMarkers "mmapmarkers" (2, 39) MmapMarkers V1;
    /// Type, unit and help of metrics.
    6 Metadata "metadata" (2, 38) Metadata V1;
    /// Integer histograms.
    7 HistogramSamples "histogram_samples" (2, 40) Histograms V1;
    /// Float histograms.
    8 FloatHistogramSamples "float_histogram_samples" (2, 42) FloatHistograms V1;
    /// Integer histograms with custom buckets.
    9 CustomBucketsHistogramSamples "custom_buckets_histogram_samples" (3, 2) Histograms V1;
    /// Float histograms with custom buckets.
    10 CustomBucketsFloatHistogramSamples "custom_buckets_float_histogram_samples" (3, 2) FloatHistograms V1;
    /// Float samples with start timestamps.
    11 SamplesV2 "samples_v2" (3, 11) Samples V2;
    /// Integer histograms with start timestamps.
    12 HistogramSamplesV2 "histogram_samples_v2" (3, 12) Histograms V2;
    /// Float histograms with start timestamps.
    13 FloatHistogramSamplesV2 "float_histogram_samples_v2" (3, 12) FloatHistograms V2;
    /// The time below which the WAL is truncated; only in checkpoints.
    14 MinValidTime "min_valid_time" (3, 16) MinValidTime V1;
}

impl RecordType {
    /// The type of a record; None if it is empty or of a type unknown to Prometheus, which replay ignores.
    #[must_use]
    pub fn of(record: &[u8]) -> Option<Self> {
        record.first().and_then(|&byte| Self::from_byte(byte))
    }

    /// Its number.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the entries of a record are, whatever their encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// Series and their refs.
    Series,
    /// Float samples.
    Samples,
    /// Samples that are histograms with integer counts.
    Histograms,
    /// Samples that are histograms with float counts.
    FloatHistograms,
    /// Exemplars.
    Exemplars,
    /// Deleted intervals.
    Tombstones,
    /// Type, unit and help of metrics.
    Metadata,
    /// Out-of-order samples that are in `chunks_head`.
    MmapMarkers,
    /// The time below which the WAL is truncated.
    MinValidTime,
}

/// The encodings that entries of one kind have had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryEncoding {
    /// The first.
    V1,
    /// With start timestamps.
    V2,
}

/// The logs in which a replay uses records (`loadWAL`, `loadWBL`, `tsdb/head_wal.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayedFrom {
    /// The WAL, and so its checkpoints.
    Wal,
    /// The WBL.
    Wbl,
    /// All of these.
    WalAndWbl,
    /// None: it is only read when the next checkpoint is made.
    Nowhere,
}

impl EntryKind {
    /// The logs in which a replay uses such records; it skips them in others.
    pub(crate) const fn replayed_from(self) -> ReplayedFrom {
        match self {
            Self::Series | Self::Exemplars | Self::Tombstones | Self::Metadata => ReplayedFrom::Wal,
            Self::Samples | Self::Histograms | Self::FloatHistograms => ReplayedFrom::WalAndWbl,
            Self::MmapMarkers => ReplayedFrom::Wbl,
            Self::MinValidTime => ReplayedFrom::Nowhere,
        }
    }

    /// Whether a series has its samples from such entries: floats or histograms.
    pub(crate) const fn are_samples(self) -> bool {
        match self {
            Self::Samples | Self::Histograms | Self::FloatHistograms => true,
            Self::Series
            | Self::Exemplars
            | Self::Tombstones
            | Self::Metadata
            | Self::MmapMarkers
            | Self::MinValidTime => false,
        }
    }
}

/// What a server's replay puts before `: ` and a [`super::DecodeError`] (`loadWAL`, `loadWBL`, `tsdb/head_wal.go`).
///
/// Replay itself skips min valid time records; the words for them are those of `ReadMinValidTime`
/// (`tsdb/wlog/checkpoint.go`), which reads the first record of the last checkpoint at start.
#[must_use]
pub const fn decode_context(record_type: RecordType) -> &'static str {
    match record_type.kind() {
        EntryKind::Series => "decode series",
        EntryKind::Samples => "decode samples",
        EntryKind::Tombstones => "decode tombstones",
        EntryKind::Exemplars => "decode exemplars",
        EntryKind::MmapMarkers => "decode mmap markers",
        EntryKind::Metadata => "decode metadata",
        EntryKind::Histograms => "decode histograms",
        EntryKind::FloatHistograms => "decode float histograms",
        EntryKind::MinValidTime => "decode min valid time",
    }
}
