//! Why a repair leaves something, in words.

use std::fmt;

use crate::change::plan::Refusal;

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::LinkToSegment => "it is a symbolic link: repair the directory that it points to",
            Self::NotWritten => "it is not a file that Prometheus wrote: move it out of the directory",
            Self::DiskFails => {
                "the disk cannot read all of it: --into=DIR writes a repaired copy to another disk"
            }
            Self::RecordsTooLarge => {
                "it has records that are larger than walfix reads, and Prometheus may read them"
            }
            Self::NothingToWrite => "there is nothing to be written",
            Self::ForeignPages => "too many of its pages are in other segments",
            Self::NotAllReadable => "not all of its bytes can be read",
            Self::NoStart => {
                "kept until other damage is repaired: it keeps Prometheus from starting, and so from deleting anything"
            }
            Self::OtherDamage => "nothing changed: other damage here cannot be repaired",
            Self::HeadChunksChanged => {
                "this repair already changes head chunks because Prometheus has run since: repair again afterwards"
            }
            Self::OtherHeadChunksFirst => "other head chunks are repaired first: repair again afterwards",
            Self::NotAFileOfHeadChunks => {
                "something that is not a regular file has the name of a file of head chunks: move it out of the directory"
            }
            Self::NoFile => "it is not a regular file: move it out of the directory",
            Self::RepairAgain => "it has other damage too: repair again",
            Self::TooOld => {
                "head chunks have refs that mean other series by now, and Prometheus before 2.39 cannot be made to skip them: start a newer version, and name it to the repair with --prometheus"
            }
            Self::NumberClaimed => {
                "two files claim one number, or a number is negative: move one of them out of the directory"
            }
            Self::MissingUnknown => "cannot tell what is missing",
            Self::LinkToCheckpoint => {
                "a symbolic link has the name of a checkpoint, which Prometheus does not follow: put the directory there"
            }
            Self::TooManyMissing => "more than 1000 segments are missing: is this the right directory?",
            Self::SegmentIsNoFile => {
                "something that is not a regular file has the name of a segment: move it out of the directory"
            }
            Self::NumbersAndContents => {
                "the segments fit the checkpoint neither by number nor by content: do they belong to one directory?"
            }
            Self::SeveralRuns => {
                "wal/ has segments of several runs, which give one ref to several series: move all but those of the newest run out of it"
            }
            Self::OlderAfterGap => {
                "after a gap in the numbers, segments in wal/ are older than those before it: move all but those of the newest run out of it"
            }
            Self::NothingKnown => "what Prometheus would do here is unknown",
            Self::StartedSince => {
                "Prometheus has run since, and continued without this checkpoint: use --mode salvage"
            }
            Self::ShowsLater => {
                "what Prometheus does about this shows only once the checkpoint can be read: repair again before you start it"
            }
            Self::NotOneDirectory => {
                "the checkpoint and the segments do not match: do they belong to one directory?"
            }
            Self::WhichCopy => "walfix cannot tell yet which of two copies of a segment is the right one",
            Self::WritesThroughLink => {
                "walfix writes nothing through a symbolic link: repair the directory that it points to, or put the file itself in the place of the link"
            }
            Self::LinkedDirectory => {
                "put the directory itself in the place of the link, or mount it there (mount --bind)"
            }
            Self::MoveAway => "move it out of the directory; an empty file by its name may take its place",
            Self::SnapshotMayLoad => {
                "Prometheus may still load this snapshot, or ignores it; it makes a new one when it stops"
            }
            Self::NotYet => "walfix does not repair this yet",
            Self::BlockUploaded => {
                "the block has been uploaded to object storage, which has another copy: restore it from there, or repair with --rewrite-uploaded"
            }
            Self::BlockIndex => {
                "the symbols of its index are damaged or not sorted, or it is of version 1: restore the block from a copy"
            }
            Self::BlockOrder => "walfix does not sort a block: Prometheus serves it, and cannot compact it",
            Self::BlockNumbers => {
                "files of chunks are not numbered from 1 on without a gap, and the index finds the chunks all the same"
            }
            Self::BlockNewer => "a newer Prometheus has written its meta.json: use a newer walfix",
            Self::BlockUnreadable => {
                "not all of its files can be read: copy the block to another disk, or restore it from a copy"
            }
            Self::NothingReadable => "no chunk of the block can be read: restore it from a copy",
            Self::ChunkKept => {
                "Prometheus reads the samples of this chunk, and walfix drops nothing that can be read"
            }
            Self::NoSegmentForLabels => "there is no segment of the WAL in which they could be written",
            Self::SnapshotInFirst => {
                "a chunk snapshot continues in the middle of the first segment, so that cannot be rewritten"
            }
            Self::FirstIsMade => "another step creates the first segment, and not empty",
            Self::OtherPeriod => {
                "its samples differ from those that are replayed: it covers a different period"
            }
            Self::NotProved => {
                "nothing shows that it is of the same generation: it shares no series or sample with what is replayed"
            }
            Self::Disagree => "they do not agree on the labels, and nothing shows which are right",
            Self::SameLabels => {
                "another ref has the same labels: with both, samples would be lost that are safe now"
            }
            Self::Words(words) => words,
            Self::DoesNotStart { error } => {
                return write!(f, "Prometheus repairs nothing here; it does not start: {error}");
            }
            Self::NeverRepairs => "Prometheus repairs this at every start, and never succeeds",
            Self::NotSeen => "Prometheus's own repair does not see it",
            Self::CannotRead { error } => return write!(f, "it cannot be read: {error}"),
            Self::SnapshotKept { hidden, only } => {
                return write!(
                    f,
                    "Prometheus loads it instead of the WAL, and so does not serve {hidden} samples that are there; but it has \
                     {only} samples that are nowhere else"
                );
            }
            Self::OtherSeries { series_ref } => {
                return write!(f, "ref {series_ref} is another series there: it covers a different period");
            }
            Self::NotShownAbove { series_ref } => {
                return write!(f, "nothing shows that refs above {series_ref} are the same series there");
            }
        };
        f.write_str(words)
    }
}
