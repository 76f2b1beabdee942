//! How a finding is repaired.

use serde::{Deserialize, Serialize};

use super::value::Worded;

/// How a finding is repaired. `report::words` has the sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resolution {
    /// In the words of another version of walfix.
    #[serde(skip)]
    Words(String),

    /// What is damaged is removed.
    Removed {
        /// What is done with its place.
        removal: Removal,
        /// It was a record of tombstones: what these had deleted comes back.
        deletions: bool,
    },
    /// A flipped bit is corrected.
    BitCorrected,
    /// A flipped bit in a large uncompressed record is corrected, for which there is less evidence.
    LargeBitCorrected,
    /// The first entries of a record are kept.
    FirstEntriesKept {
        /// How many.
        entries: u64,
        /// The rest of the record is overwritten with empty records.
        overwritten: bool,
    },
    /// Records that were joined into one are written one by one.
    RecordsSeparated {
        /// These.
        records: Vec<SeparatedRecord>,
    },
    /// Entries are dropped.
    EntriesDropped,

    /// The copy of a page is dropped.
    PageCopyDropped,
    /// A page is moved to where it belongs.
    PageMovedBack,
    /// Pages that belong to a segment are moved to it.
    PagesMovedBack,
    /// Nothing else is wrong once the pages are where they belong.
    IntactOncePagesFit,
    /// The pages are where they belong, and what is still damaged is dropped.
    RewrittenWithPagesInPlace,
    /// Once the pages are where they belong, each series is defined once.
    SeriesDefinedOnce,

    /// Prometheus counts refs on from one series that is written for this.
    RefsFenced,
    /// Labels are written before all records that use them.
    LabelsWritten {
        /// The files that have them.
        sources: Vec<String>,
    },
    /// A file records what stays without labels.
    LossRecorded,

    /// The original takes its place again.
    OriginalRestored {
        /// Records that the truncated segment does not have.
        more_records: u64,
    },
    /// The original is not needed any more.
    OriginalNotNeeded,
    /// The damage in the original is repaired.
    OriginalRepaired,
    /// The original gets its name back.
    OriginalRenamed,

    /// A segment gets the name under which Prometheus looks for it.
    SegmentRenamed,
    /// An empty segment takes the place of one that is missing.
    EmptySegmentMade,
    /// An empty checkpoint takes the place of one that is missing.
    EmptyCheckpointMade,
    /// Empty segments are made up to the position of a chunk snapshot.
    EmptySegmentForSnapshot,
    /// A WAL is made for a chunk snapshot.
    WalForSnapshotMade,
    /// A file is moved out of the way.
    FileMovedAway,

    /// A gap in the numbers keeps Prometheus from starting during the repair.
    GapMade,
    /// Empty segments let Prometheus continue after the checkpoint.
    SegmentsContinuedToCheckpoint,
    /// A checkpoint gets the number before the first segment.
    CheckpointNumberLowered,
    /// A checkpoint gets a number after which the segments continue.
    CheckpointNumberRaised,
    /// A segment gets a number that the checkpoint does not cover.
    SegmentNumberRaised,

    /// A chunk snapshot that may be of another run is set aside.
    SnapshotOfAnotherRunSetAside,
    /// A chunk snapshot is set aside: Prometheus replays the WAL instead.
    SnapshotSetAside,

    /// Head chunks whose refs mean other series now are marked to be skipped.
    ReissuedHeadChunksSkipped {
        /// How many.
        chunks: u64,
    },
    /// Head chunks of an earlier run are marked to be skipped.
    EarlierHeadChunksSkipped {
        /// How many.
        chunks: u64,
    },
    /// Head chunks that are there twice are marked to be skipped.
    RepeatedHeadChunksSkipped {
        /// How many.
        chunks: u64,
    },
    /// A head chunk that cannot be decoded is marked to be skipped.
    UndecodableHeadChunkSkipped {
        /// The log has what was in it.
        is_in_log: bool,
    },
    /// Head chunks that hide what the log has of a skipped one are marked to be skipped, too.
    LaterHeadChunksSkipped {
        /// How many.
        chunks: u64,
    },
    /// All files of head chunks are set aside.
    AllHeadChunksSetAside,
    /// A file of head chunks is set aside, since it comes after a fault.
    HeadChunksAfterFaultSetAside,
    /// A file of head chunks of an earlier run is set aside.
    EarlierHeadChunksSetAside,
    /// What no log assigns to a series is set aside.
    UnassignedSetAside,
    /// A file of head chunks is set aside, since another one has its name.
    HeadChunksNameTaken {
        /// The name.
        name: String,
    },
    /// A file of head chunks gets the name under which Prometheus looks for it.
    HeadChunksRenamed {
        /// The name.
        name: String,
    },
    /// The header of a file of head chunks is written.
    HeadChunksHeaderWritten,
    /// A file of head chunks is truncated.
    HeadChunksTruncated,

    /// The index of a block is rewritten.
    IndexRewritten {
        /// How many chunks it names no more.
        chunks: u64,
    },
    /// The index of a block does not name a chunk any more.
    ChunkDropped,
    /// The index of a block is rewritten without a series.
    SeriesDropped,
    /// The `meta.json` of a block is written again.
    MetaRebuilt {
        /// It gets the hint `from-out-of-order`.
        #[serde(default)]
        hint: bool,
    },
    /// A block is renamed, since those that it was made from are all there.
    ParentsInstead {
        /// Its name.
        name: String,
    },
    /// Counts and times in the `meta.json` of a block are set.
    MetaUpdated,
    /// The tombstones of a block are written again.
    TombstonesRewritten {
        /// Deletions that are kept.
        kept: u64,
        /// Whether these are all.
        all: bool,
    },
    /// The header of a file of chunks is written.
    ChunkFileHeaderWritten,
    /// An empty file of chunks takes the place of one that is missing.
    ChunkFileMade,
    /// A block gets a name that Prometheus ignores.
    BlockRenamed {
        /// The name.
        name: String,
        /// From the one time on, up to the other, ms, as far as it is known.
        times: Option<(i64, i64)>,
    },

    /// As Prometheus does, all segments after a damaged one are removed.
    SegmentsAfterFaultSetAside,
    /// As Prometheus does, a segment is truncated at the first fault.
    TruncatedAtFault,
    /// A checkpoint is truncated where Prometheus stops reading it, and the WAL stays.
    CheckpointTruncated,
}

/// What is done with the place of what is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Removal {
    /// It is overwritten with empty records.
    Overwritten,
    /// The segment is rewritten without it.
    Rewritten,
    /// The segment is rewritten without it, since a hole of this size cannot be filled.
    RewrittenUnfillable,
    /// The segment is truncated.
    Truncated,
    /// The record is completed with the zeros at its end that are missing.
    Completed,
}

/// A record that was joined with others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeparatedRecord {
    /// Prometheus's name of its type.
    pub record: String,
    /// Its entries.
    pub entries: u64,
}

impl Worded for Resolution {
    fn of_words(words: String) -> Self {
        Self::Words(words)
    }

    fn is_words(&self) -> bool {
        matches!(self, Self::Words(_))
    }
}
