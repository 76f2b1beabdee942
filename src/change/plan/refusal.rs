//! Why something stays as it is.

use serde::{Deserialize, Serialize};

use super::value::Worded;

/// Why a repair leaves damage, or does not believe a source of labels. `report::words` has the sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// In the words of another version of walfix.
    #[serde(skip)]
    Words(String),
    /// A symbolic link is in the place of the segment.
    LinkToSegment,
    /// Something that Prometheus has not written is in the place of the segment.
    NotWritten,
    /// The disk cannot read all bytes.
    DiskFails,
    /// It has records that walfix does not read.
    RecordsTooLarge,
    /// A segment stays as it is.
    NothingToWrite,
    /// Too many pages are in other segments.
    ForeignPages,
    /// Not all bytes can be read.
    NotAllReadable,
    /// Prometheus does not start, and other damage is left for which it would delete.
    NoStart,
    /// Other damage is left.
    OtherDamage,
    /// Head chunks are changed for another reason.
    HeadChunksChanged,
    /// Other head chunks are repaired first.
    OtherHeadChunksFirst,
    /// Something else is in the place of a file of head chunks.
    NotAFileOfHeadChunks,
    /// It is no file.
    NoFile,
    /// It has other damage, which has to wait.
    RepairAgain,
    /// This version of Prometheus cannot be made to skip head chunks.
    TooOld,
    /// A number is used twice, or negative.
    NumberClaimed,
    /// What is missing is not known.
    MissingUnknown,
    /// A symbolic link is in the place of a checkpoint.
    LinkToCheckpoint,
    /// Too many segments are missing.
    TooManyMissing,
    /// Something else is in the place of a segment.
    SegmentIsNoFile,
    /// Neither numbers nor contents go together.
    NumbersAndContents,
    /// Segments of several runs give one ref to several series.
    SeveralRuns,
    /// Segments after a gap are older than those before it.
    OlderAfterGap,
    /// There is no forecast.
    NothingKnown,
    /// Prometheus has run without this checkpoint.
    StartedSince,
    /// What Prometheus does shows later.
    ShowsLater,
    /// The checkpoint and the segments do not go together.
    NotOneDirectory,
    /// Of two copies one is right.
    WhichCopy,
    /// A repair would write through a symbolic link.
    WritesThroughLink,
    /// A directory is a symbolic link.
    LinkedDirectory,
    /// It has to be moved by hand.
    MoveAway,
    /// Prometheus may load the snapshot, or does not look at it.
    SnapshotMayLoad,
    /// There is no repair for it yet.
    NotYet,
    /// The index or `meta.json` of a block would be changed that has been uploaded.
    BlockUploaded,
    /// The symbols of an index are damaged or not sorted, or it is of version 1.
    BlockIndex,
    /// Something in a block is not in order.
    BlockOrder,
    /// Files of chunks have other numbers than places.
    BlockNumbers,
    /// A newer Prometheus has written the `meta.json`.
    BlockNewer,
    /// The disk cannot read all of a block, or something that is no file is in it.
    BlockUnreadable,
    /// No chunk of a block can be read.
    NothingReadable,
    /// A chunk is not what the index says, and can be read.
    ChunkKept,
    /// There is no segment in which labels could be written.
    NoSegmentForLabels,
    /// A chunk snapshot continues within the first segment.
    SnapshotInFirst,
    /// The first segment is made by another step.
    FirstIsMade,
    /// Samples differ from those that are replayed.
    OtherPeriod,
    /// Nothing shows that it is of the same generation.
    NotProved,
    /// Sources disagree on labels.
    Disagree,
    /// Another ref has the same labels.
    SameLabels,
    /// Prometheus repairs nothing and does not start.
    DoesNotStart {
        /// The error.
        error: String,
    },
    /// Prometheus repairs it at each start.
    NeverRepairs,
    /// Prometheus's own repair does not see it.
    NotSeen,
    /// A backup cannot be read.
    CannotRead {
        /// The error.
        error: String,
    },
    /// A chunk snapshot hides samples of the WAL, and has more of its own.
    SnapshotKept {
        /// Samples that it hides.
        hidden: u64,
        /// Samples that are in it alone.
        only: u64,
    },
    /// One of its refs is another series.
    OtherSeries {
        /// The ref.
        series_ref: u64,
    },
    /// Nothing shows that higher refs are the same series.
    NotShownAbove {
        /// The highest ref for which it is shown.
        series_ref: u64,
    },
}

impl Worded for Refusal {
    fn of_words(words: String) -> Self {
        Self::Words(words)
    }

    fn is_words(&self) -> bool {
        matches!(self, Self::Words(_))
    }
}
