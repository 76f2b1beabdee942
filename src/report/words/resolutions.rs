//! How a finding is repaired, in words.

use std::fmt;

use super::amounts::{count, span};
use crate::change::plan::{Removal, Resolution, SeparatedRecord};

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Words(words) => words,
            Self::Removed { removal, deletions } => {
                f.write_str(removed(*removal))?;
                if *deletions {
                    f.write_str("; it was a record of tombstones: what it had deleted comes back")?;
                }
                return Ok(());
            }
            Self::BitCorrected => "the flipped bit is corrected",
            Self::LargeBitCorrected => {
                "the one bit that would explain it is flipped back, as --correct-large wants; not every damage that looks \
                 like it is one flipped bit"
            }
            Self::FirstEntriesKept { entries, overwritten } => {
                match entries {
                    1 => f.write_str("its first entry is kept, which can be read")?,
                    entries => write!(f, "its first {entries} entries are kept, which can be read")?,
                }
                return f.write_str(if *overwritten {
                    "; the rest is overwritten with empty records"
                } else {
                    ""
                });
            }
            Self::RecordsSeparated { records } => {
                let records: Vec<String> = records.iter().map(separated).collect();
                return write!(
                    f,
                    "the segment is rewritten with each of these records by itself, and nothing is lost: {}",
                    records.join(" and ")
                );
            }
            Self::EntriesDropped => "they are dropped; the backup has them",

            Self::PageCopyDropped => "the copy is dropped; the original stays where it is",
            Self::PageMovedBack => "put back where it belongs",
            Self::PagesMovedBack => "they are put back",
            Self::IntactOncePagesFit => "everything is intact once the pages are where they belong",
            Self::RewrittenWithPagesInPlace => {
                "the segment is rewritten with its pages where they belong, and without what is still damaged"
            }
            Self::SeriesDefinedOnce => "once the pages are where they belong, each series is defined once",

            Self::RefsFenced => {
                "one series that no query returns makes Prometheus count on from there; else new series would get these refs"
            }
            Self::LabelsWritten { sources } => {
                return write!(
                    f,
                    "their labels are written before everything that uses them; they are in {}",
                    sources.join(", ")
                );
            }
            Self::LossRecorded => "this file records it, so that later scans do not report it as damage",

            Self::OriginalRestored { more_records } => {
                return write!(
                    f,
                    "the original takes its place again, with {more_records} records more, and without what is damaged in it"
                );
            }
            Self::OriginalNotNeeded => "no longer needed; moved to the backup",
            Self::OriginalRepaired => "the damage in the original is repaired",
            Self::OriginalRenamed => "the original gets its name back: there is nothing in its place",

            Self::SegmentRenamed => "gets the name under which Prometheus looks for it",
            Self::EmptySegmentMade => {
                "an empty segment takes the place of the missing one; its contents are not in this directory"
            }
            Self::EmptyCheckpointMade => {
                "an empty checkpoint takes the place of the missing one; its labels are not in this directory"
            }
            Self::EmptySegmentForSnapshot => "an empty segment, so that the snapshot is not ahead of the WAL",
            Self::WalForSnapshotMade => "the WAL that the snapshot belongs to is missing",
            Self::FileMovedAway => "moved out of the way",

            Self::GapMade => {
                "as long as the numbers have a gap, Prometheus does not start, and deletes nothing"
            }
            Self::SegmentsContinuedToCheckpoint => {
                "Prometheus continues after the checkpoint, and not with a number that it covers"
            }
            Self::CheckpointNumberLowered => "the checkpoint gets the number before the first segment",
            Self::CheckpointNumberRaised => "the segments continue after its number",
            Self::SegmentNumberRaised => {
                "gets a number that the checkpoint does not cover, so that it is replayed"
            }

            Self::SnapshotOfAnotherRunSetAside => {
                "the snapshot may be of another generation; Prometheus replays the WAL instead"
            }
            Self::SnapshotSetAside => "a snapshot only saves time; Prometheus replays the WAL instead",

            Self::ReissuedHeadChunksSkipped { chunks } => {
                return write!(
                    f,
                    "{chunks} head chunks have refs that mean other series by now; Prometheus skips them from now on"
                );
            }
            Self::EarlierHeadChunksSkipped { chunks } => {
                return write!(
                    f,
                    "{chunks} chunks here belong to an earlier run; Prometheus skips them from now on"
                );
            }
            Self::RepeatedHeadChunksSkipped { chunks } => {
                return write!(
                    f,
                    "{chunks} chunks here are there twice; Prometheus skips the second from now on"
                );
            }
            Self::UndecodableHeadChunkSkipped { is_in_log: true } => {
                "Prometheus skips it from now on, and takes its samples from the WAL"
            }
            Self::UndecodableHeadChunkSkipped { is_in_log: false } => "Prometheus skips it from now on",
            Self::LaterHeadChunksSkipped { chunks } => {
                return write!(
                    f,
                    "{} here of the same series would hide what the WAL has of it; Prometheus skips them from now on, and takes \
                     their samples from the WAL",
                    count(*chunks, "later chunk")
                );
            }
            Self::AllHeadChunksSetAside => {
                "all head chunks are moved to the backup; Prometheus takes their samples from the WAL"
            }
            Self::HeadChunksAfterFaultSetAside => {
                "it is moved to the backup, like everything after the first fault; Prometheus takes its samples from the WAL"
            }
            Self::EarlierHeadChunksSetAside => "it is of an earlier run; it is moved to the backup",
            Self::UnassignedSetAside => {
                "no log says whose they are, and new series get their refs: moved to the backup"
            }
            Self::HeadChunksNameTaken { name } => {
                return write!(f, "there is a file {name}, which stays; this one is moved to the backup");
            }
            Self::HeadChunksRenamed { name } => return write!(f, "it gets the name {name}"),
            Self::HeadChunksHeaderWritten => {
                "the header of a file of head chunks is written; what follows it stays"
            }
            Self::HeadChunksTruncated => {
                "the file is truncated here; Prometheus takes what followed from the WAL"
            }

            Self::IndexRewritten { chunks: 0 } => {
                "the index is rewritten: series and labels as they are, and all else made from these"
            }
            Self::IndexRewritten { chunks } => {
                let chunks = count(*chunks, "chunk");
                return write!(
                    f,
                    "the index is rewritten without {chunks}; files of chunks stay as they are"
                );
            }
            Self::ChunkDropped => "the index does not name this chunk any more",
            Self::SeriesDropped => "the index is rewritten without it",
            Self::MetaRebuilt { hint: false } => {
                "it is written again from the index; the WAL has no samples from before the end of the block"
            }
            Self::MetaRebuilt { hint: true } => {
                "it is written again from the index, with the hint from-out-of-order, so that Prometheus also loads what the WAL \
                 has from before the end of the block"
            }
            Self::ParentsInstead { name } => {
                return write!(
                    f,
                    "the block is renamed to {name}, which Prometheus ignores and nobody deletes: the blocks that it was made from are \
                     all there, and Prometheus would delete them for it"
                );
            }
            Self::MetaUpdated => "its counts and times are set to those of the rewritten index",
            Self::TombstonesRewritten { all: true, .. } => {
                "the file is written again with all of its deletions"
            }
            Self::TombstonesRewritten { kept: 0, .. } => {
                "an empty file takes its place: samples that were deleted, and that no compaction has removed, are served again"
            }
            Self::TombstonesRewritten { kept, .. } => {
                let deletions = count(*kept, "deletion");
                return write!(
                    f,
                    "the file is written again with {deletions} that can be read; samples of any other are served again"
                );
            }
            Self::ChunkFileHeaderWritten => {
                "the header of a file of chunks is written, which is always the same; what follows it stays"
            }
            Self::ChunkFileMade => {
                "a file without chunks takes its place, so that the index finds those of the other files"
            }
            Self::BlockRenamed { name, times } => {
                write!(f, "the block is renamed to {name}, which Prometheus ignores and nobody deletes")?;
                return match times {
                    Some((from, to)) => write!(f, "; its samples of {} are not served", span(*from, *to)),
                    None => f.write_str("; its samples are not served"),
                };
            }

            Self::SegmentsAfterFaultSetAside => {
                "Prometheus deletes all segments after the damaged one; walfix moves it to the backup"
            }
            Self::TruncatedAtFault => "Prometheus keeps everything before the first fault",
            Self::CheckpointTruncated => {
                "the checkpoint ends where Prometheus stops reading it, and the WAL stays"
            }
        };
        f.write_str(words)
    }
}

fn removed(removal: Removal) -> &'static str {
    match removal {
        Removal::Overwritten => "overwritten with empty records",
        Removal::Rewritten => "the segment is rewritten without it",
        Removal::RewrittenUnfillable => {
            "the segment is rewritten without it: a hole of this size cannot be filled"
        }
        Removal::Truncated => "the segment ends here; nothing that can be read follows",
        Removal::Completed => "the missing zeros at the end are added: they complete the record",
    }
}

fn separated(SeparatedRecord { record, entries }: &SeparatedRecord) -> String {
    let noun = if *entries == 1 { "entry" } else { "entries" };
    format!("{record} with {entries} {noun}")
}
