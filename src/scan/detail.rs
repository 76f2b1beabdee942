//! What is wrong at a place, as a value.

use std::ops::RangeInclusive;

use super::blocks::detail::BlockDetail;
use crate::chunk::ChunkError;
use crate::tsdb::{HeadChunkError, HeadChunkFault};
use crate::wal::compress::UnpackError;
use crate::wal::layout::FragmentType;

/// What is wrong at a place. `report::words` has the sentences.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// In words.
    Words(String),

    /// A file has the name of a checkpoint.
    CheckpointIsFile,
    /// A file has the name of a chunk snapshot.
    SnapshotIsFile,
    /// A checkpoint or snapshot was not finished.
    TemporaryLeft,
    /// Prometheus died while it repaired a segment.
    RepairInterrupted,
    /// The WAL is a symbolic link.
    WalIsLink,
    /// A directory is a symbolic link, which is not followed.
    LinkNotFollowed,
    /// What has the name of a segment is not a regular file.
    NotAFile {
        /// The error of opening it.
        error: Option<String>,
    },
    /// A segment of a checkpoint is empty.
    EmptyCheckpointSegment,
    /// A segment is empty.
    EmptySegment,

    /// The fragments of a record disagree on its compression.
    FlagsDisagree,
    /// A segment is what Prometheus's own repair leaves of one of which it keeps nothing.
    EmptiedByRepair,
    /// A record does not decode.
    Undecodable {
        /// Prometheus's error.
        error: String,
        /// It is one of a chunk snapshot.
        in_snapshot: bool,
        /// Of so many records it was joined; 0 if that does not explain it.
        joined: u64,
    },
    /// Fragments do not belong together.
    Spliced {
        /// What shows it.
        why: &'static str,
    },
    /// The header of a compressed record says that it is not compressed.
    CompressionFlag,
    /// The data do not match the checksum.
    Checksum {
        /// Of the data.
        computed: u32,
        /// In the header.
        stored: u32,
    },
    /// A header claims more data than its page has room for.
    InvalidLength {
        /// So many bytes.
        claimed: u16,
    },
    /// The type of a fragment is invalid at its position.
    InvalidType {
        /// The type.
        kind: FragmentType,
    },
    /// Other bytes than zeros follow where only zeros may follow.
    JunkInPadding,
    /// Pages of zeros, followed by data.
    ZeroedPages {
        /// How many pages.
        pages: u64,
        /// They are in the middle of records.
        in_records: bool,
    },
    /// Zeros up to the end of a page, followed by data.
    ZeroedTail {
        /// They are in place of the start of a record whose rest follows.
        in_record: bool,
    },
    /// The segment ends in pages of zeros.
    TrailingZeros,
    /// The last record never ends.
    LastRecordUnfinished {
        /// No later segment has records.
        in_last_segment: bool,
    },
    /// A record never continues.
    RecordUnfinished,
    /// A record has no start.
    RecordHeadless,
    /// The file ends within a record.
    RecordTorn,
    /// A record is larger than what is read.
    RecordTooLarge {
        /// Its bytes.
        bytes: u64,
    },
    /// A record does not unpack.
    DoesNotUnpack {
        /// Why.
        error: UnpackError,
    },
    /// The records before unpack to too much: reading ends.
    NotRead,
    /// A page is the same as an earlier one.
    PageRepeated {
        /// Where that is.
        original: u64,
    },
    /// The disk cannot read the bytes.
    Unreadable {
        /// The error.
        error: String,
    },
    /// The file was truncated while it was read.
    Shrunk {
        /// Bytes that it had before.
        from: u64,
    },

    /// The WAL was restarted after a checkpoint that covers its numbers.
    Restarted {
        /// The number of its first segment.
        first: i64,
        /// The checkpoint.
        checkpoint: String,
        /// The highest number that this covers, if it can be read.
        covers: Option<i64>,
        /// What the covered segments hold.
        held: Held,
        /// What followed the checkpoint.
        lost: LostSegments,
    },
    /// No segment follows the last checkpoint.
    SegmentsDeleted {
        /// The checkpoint can be read.
        is_intact: bool,
        /// What followed it.
        lost: LostSegments,
    },
    /// The last checkpoint covers the numbers of all segments.
    CheckpointAhead {
        /// The highest number that it covers.
        covers: i64,
        /// What the segments hold.
        held: Held,
    },
    /// Segments remain that a checkpoint was made of.
    StaleSegments {
        /// The highest number that it covers.
        covers: i64,
        /// How many segments.
        segments: u64,
    },

    /// The first segment is not the one that Prometheus looks for.
    FirstSegmentMissing {
        /// The highest number that the last checkpoint covers, if there is one.
        covers: Option<i64>,
        /// The number of the first segment.
        first: i64,
        /// The number of the one that Prometheus looks for.
        wanted: i64,
    },
    /// A chunk snapshot covers more segments than there are.
    SnapshotAhead {
        /// The number up to which it covers the WAL.
        covers: i64,
        /// The next start removes it.
        is_removed: bool,
    },
    /// Two segments have the same number.
    SameNumber {
        /// The name of the first.
        first: String,
        /// The name of the second.
        second: String,
        /// What Prometheus does.
        then: GapEffect,
    },
    /// Segments before this one are missing.
    SegmentsMissing {
        /// Their numbers.
        numbers: RangeInclusive<i64>,
        /// What Prometheus does.
        then: GapEffect,
    },
    /// A segment does not have the name of its number.
    Misnamed {
        /// Its number.
        index: i64,
        /// What Prometheus does.
        then: MisnamedEffect,
    },
    /// No segment is in a checkpoint.
    EmptyCheckpoint,
    /// A checkpoint does not begin with segment 0.
    CheckpointBeginsLate {
        /// The number of its first segment.
        first: i64,
    },
    /// Prometheus skips a checkpoint.
    OlderCheckpoint {
        /// The one that it reads.
        newest: String,
        /// Both have the same number.
        same_number: bool,
    },

    /// Refs are too many, and too far apart, to be judged.
    RefsNotJudged,
    /// Entries in the WBL have refs that no series record defines, and that will be reissued.
    WblRefsUndefined {
        /// The highest of these refs.
        highest: u64,
    },
    /// Records belong in another log.
    RecordsOfAnotherLog {
        /// How many of each type, by Prometheus's name of it.
        records: Vec<(u64, &'static str)>,
        /// An agent takes them for corruption.
        agent_refuses: bool,
    },
    /// No series record before entries defines their series.
    RefsUndefined {
        /// The entries.
        entries: AffectedEntries,
        /// Why, if it is known.
        why: Option<WhyUndefined>,
        /// They are in the WBL.
        in_wbl: bool,
    },
    /// Entries come before the series record of their series.
    RefsDefinedLater {
        /// The entries.
        entries: AffectedEntries,
        /// They are in the WBL.
        in_wbl: bool,
    },
    /// Series records are repeated.
    SeriesRepeated {
        /// Entries before them, which Prometheus discards.
        entries: AffectedEntries,
    },
    /// Refs mean other series than before.
    RefsReissued {
        /// Entries of the earlier series.
        entries: AffectedEntries,
    },

    /// Files of head chunks are missing.
    HeadChunkFilesMissing {
        /// Their numbers.
        numbers: RangeInclusive<i64>,
    },
    /// A file of head chunks does not have the name of its number.
    HeadChunksMisnamed {
        /// The right name.
        name: String,
    },
    /// The header of a file of head chunks is damaged.
    HeadChunksHeader {
        /// How.
        why: String,
    },
    /// The last file of head chunks does not begin as one.
    HeadChunksNotOne {
        /// Chunks in it.
        chunks: u64,
        /// Their samples.
        samples: u64,
    },
    /// A head chunk cannot be read.
    HeadChunkDamaged {
        /// Why.
        damage: HeadChunkDamage,
        /// There are later files.
        has_later: bool,
    },
    /// A head chunk begins before the one before it ends.
    HeadChunksOverlap {
        /// The ref of the series.
        series_ref: u64,
        /// How many such chunks there are.
        chunks: u64,
    },
    /// Head chunks have refs that mean other series now.
    HeadChunksReissued {
        /// The chunks.
        held: HeldChunks,
    },
    /// Head chunks have refs that no series record defines, and that will be reissued.
    HeadChunksUndefined {
        /// The chunks.
        held: HeldChunks,
    },

    /// Pages belong elsewhere.
    PagesMisplaced {
        /// How many.
        pages: u64,
        /// The file in which they belong.
        file: String,
        /// After the page at this offset; at the beginning if there is none.
        after: Option<u64>,
    },
    /// Pages are copies.
    PagesCopied {
        /// How many.
        pages: u64,
        /// The file and offset of the original of the first.
        original: Option<(String, u64)>,
    },

    /// A block has a fault.
    BlockFault {
        /// Which.
        what: String,
        /// What Prometheus does.
        then: BlockEffect,
    },
    /// Something is wrong with a block that Prometheus opens.
    Block(BlockDetail),
    /// Samples or blocks are from the future.
    FromTheFuture {
        /// Until then every scrape is refused, ms.
        until: i64,
    },
    /// The tombstones of a block are missing.
    TombstonesMissing {
        /// How many the block had.
        tombstones: u64,
    },
    /// The volume is mounted read-only.
    ReadOnly,
    /// There is no room for a start.
    NoSpace {
        /// What is used up.
        lack: Lack,
        /// A repair of Prometheus's own that fails for it.
        repair: Option<FailingRepair>,
    },
    /// Prometheus's user lacks a right.
    NoPermission {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// The user owns this.
        owns: Option<&'static str>,
        /// What the user may not do.
        deed: Deed,
    },
    /// What an earlier repair has recorded as lost.
    RecordedLoss {
        /// When that was, ms.
        at: i64,
        /// Entries without labels, and how many series they belong to.
        unlabelled: Option<(u64, u64)>,
        /// Samples that are not loaded, and how many series they belong to.
        not_loaded: Option<(u64, u64)>,
    },
}

/// Entries that Prometheus does not serve as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffectedEntries {
    /// Samples and histograms.
    pub samples: u64,
    /// Other entries.
    pub others: u64,
    /// The times of the first and last sample, ms.
    pub times: Option<(i64, i64)>,
    /// The series that they belong to.
    pub series: u64,
    /// There are more series.
    pub at_least: bool,
}

/// Why series are not defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyUndefined {
    /// Their records may be in what is damaged.
    Damaged,
    /// Their records may have been in what is missing.
    Missing,
    /// A checkpoint drops series before their samples.
    DroppedByCheckpoint,
}

/// Why a head chunk cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadChunkDamage {
    /// It does not match its checksum.
    Checksum,
    /// The disk cannot read it.
    Unreadable,
    /// The file has a number that Prometheus does not expect.
    Unexpected,
    /// It is longer than the file.
    TooLong,
    /// It matches its checksum, and its samples cannot be decoded.
    Undecodable(ChunkError),
    /// It matches its checksum, and its samples are of other times than it says.
    OtherTimes,
}

impl HeadChunkDamage {
    /// Whether it is in a chunk that Prometheus loads all the same.
    pub(crate) const fn is_loaded(self) -> bool {
        matches!(self, Self::Undecodable(_) | Self::OtherTimes)
    }
}

impl From<HeadChunkFault> for HeadChunkDamage {
    fn from(fault: HeadChunkFault) -> Self {
        match fault {
            HeadChunkFault::Undecodable(error) => Self::Undecodable(error),
            HeadChunkFault::Times => Self::OtherTimes,
        }
    }
}

impl From<&HeadChunkError> for HeadChunkDamage {
    fn from(error: &HeadChunkError) -> Self {
        match error {
            HeadChunkError::Checksum { .. } => Self::Checksum,
            HeadChunkError::Unreadable(_) => Self::Unreadable,
            HeadChunkError::Zero => Self::Unexpected,
            _ => Self::TooLong,
        }
    }
}

/// Head chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldChunks {
    /// How many.
    pub chunks: u64,
    /// Their samples.
    pub samples: u64,
    /// The first and last times, ms.
    pub times: Option<(i64, i64)>,
}

/// What segments hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Samples.
    pub samples: u64,
    /// Their first and last times, ms.
    pub times: Option<(i64, i64)>,
}

/// Segments after a checkpoint that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostSegments {
    /// The number of the first.
    pub first: i64,
    /// The time of the newest sample before them, ms.
    pub from: Option<i64>,
    /// The time of the oldest sample after them, ms.
    pub to: Option<i64>,
}

/// What Prometheus does about a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapEffect {
    /// It does not start.
    RefusesToStart,
    /// It does not load the chunk snapshot.
    SnapshotNotLoaded,
    /// It skips the checkpoint anyway.
    CheckpointSkipped,
}

/// What Prometheus does about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MisnamedEffect {
    /// It looks for the right name, and does not start.
    RefusesToStart,
    /// It reads the segment.
    IsRead,
    /// It reads the segment, but remote write does not find it.
    NotSent,
    /// It skips the segment, which a checkpoint covers.
    Covered,
    /// It skips the checkpoint anyway.
    CheckpointSkipped,
}

/// What Prometheus does about a fault of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockEffect {
    /// It crashes at each start.
    Crashes,
    /// It does not start, for the tombstones of the block.
    RefusesForTombstones,
    /// It does not start.
    RefusesToStart,
    /// It starts without the block.
    Skipped,
}

/// What is used up on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// So many bytes are free, and so many are needed.
    Space {
        /// Free bytes.
        free: u64,
        /// Bytes that a start needs.
        needed: u64,
    },
    /// There is no free inode.
    Inodes,
    /// So many bytes are free.
    SpaceForRepair {
        /// Free bytes.
        free: u64,
    },
}

/// A repair of Prometheus's own that fails for want of space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingRepair {
    /// Of this segment.
    pub path: String,
    /// Bytes that it writes at the most.
    pub needed: u64,
    /// The start at which it fails.
    pub failing_start: u64,
    /// Where the original is then.
    pub destroys: String,
}

/// What Prometheus has to do with a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed {
    /// Read a file.
    Read,
    /// Write to a file.
    Write,
    /// List a directory.
    List,
    /// Make files in a directory.
    MakeFiles,
}
