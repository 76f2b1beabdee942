//! What each code means: one entry for each.

use super::{Explanation, Group};
use crate::scan::code::Code;

/// What Prometheus does about damage at which its reader stops.
macro_rules! truncates {
    ($errors:literal) => {
        concat!(
            "at its next start drops the rest of the segment and deletes **all later segments**; in a checkpoint, it deletes \
             **the whole WAL** (",
            $errors,
            ")."
        )
    };
}

/// What to do about most damage.
const REPAIR: &str = "run `walfix repair` before Prometheus starts again: it says what it would do, and `walfix repair \
                      --backup` does it.";

const NOTHING: &str = "nothing.";

/// An entry in which nothing is said yet.
const EMPTY: Explanation = Explanation {
    group: Group::Records,
    title: "",
    means: "",
    severity: "",
    prometheus: "",
    causes: "",
    lost: "",
    repair: "",
    to_do: REPAIR,
};

/// The entry of a code.
pub(super) const fn entry(code: Code) -> Explanation {
    match code {
        Code::ChecksumMismatch => Explanation {
            title: "The data of a fragment does not match the checksum in its header.",
            severity: "A note only at the end of the last segment that holds anything, in `wal/` or `wbl/`, if zeros show that \
                       the file got its length but not its bytes.",
            prometheus: truncates!("`unexpected checksum`"),
            causes: "one flipped bit (memory, disk, transfer), overwritten bytes, zeros or half a write after a power cut.",
            lost: "the record that the fragment belongs to; with a correction, nothing.",
            ..EMPTY
        },
        Code::InvalidLength => Explanation {
            title: "A header claims more data than its page has room for.",
            means: "Where the fragment ends is therefore unknown.",
            severity: "A note under the same conditions as `checksum_mismatch`.",
            prometheus: truncates!("`invalid record size` or `unexpected checksum`"),
            causes: "overwritten bytes; one flipped bit; garbage appended.",
            lost: "unknown: the range ends where reading could resume, and may have held several records.",
            ..EMPTY
        },
        Code::InvalidType => Explanation {
            title: "The fragment type in a header does not exist, or is invalid at this position.",
            means: "No checksum covers the header.",
            prometheus: truncates!(
                "`unexpected record type`, `unexpected middle record, dropping buffer` or similar"
            ),
            causes: "one flipped bit (the correction then names it); overwritten bytes.",
            ..EMPTY
        },
        Code::JunkInPadding => Explanation {
            title: "A header byte says that only padding follows, but the bytes after it are not zeros.",
            prometheus: truncates!("`unexpected non-zero byte in padded page`"),
            causes: "overwritten bytes; one flipped bit that made the type of a fragment 0 (the correction then names it).",
            lost: "nothing if it was padding at the end of a segment; otherwise unknown.",
            ..EMPTY
        },
        Code::UnpackError => Explanation {
            title: "The checksum is right, but the record does not decompress.",
            prometheus: truncates!("`snappy: corrupt input`, or the message of the zstd decoder"),
            causes: "the record was written wrong, by bad memory in the server; or pages that do not belong together; or a \
                     flipped flag (then corrected).",
            ..EMPTY
        },
        Code::RecordTooLarge => Explanation {
            title: "A record is larger than 256 MiB, stored or decompressed.",
            means: "walfix does not look into it.",
            prometheus: "reads it, if there is enough memory.",
            repair: "a segment with such a record is not repaired: walfix could not tell what would remain of it.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::NotRead => Explanation {
            title: "The rest of this file is not read.",
            means: "The records before this place decompress to more than 100 times the size of the file, and to more than 1 GiB.",
            prometheus: "has no such limit, and may be killed for using too much memory.",
            causes: "a file that somebody made to keep readers busy.",
            repair: "leaves the file as it is.",
            to_do: "find out where the file comes from.",
            ..EMPTY
        },
        Code::CompressionFlag => Explanation {
            title: "A header says that its record is not compressed, but it is.",
            means: "Decompressed, the record is intact.",
            prometheus: "logs nothing. It takes the compressed bytes for a record of an unknown type, skips it, and **drops it \
                         for good at the next checkpoint**. An agent takes it for corruption: it drops the rest of the segment \
                         and deletes all later ones.",
            causes: "one flipped bit. (Servers before 2.46 do not know zstd at all and skip every such record; that is not \
                     this finding.)",
            ..EMPTY
        },
        Code::FlagsDisagree => Explanation {
            title: "The fragments of one record disagree on its compression.",
            prometheus: "believes the last fragment, and reads the record intact.",
            causes: "one flipped bit.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::DecodeError => Explanation {
            title: "The checksum is right, but the record does not decode as its type.",
            prometheus: truncates!("`decode series: invalid size` or similar"),
            causes: "the record was written wrong, by bad memory or a bug in the writer; or fragments that do not belong together \
                     (`spliced_record`). Histogram records that 2.40 or 2.41 wrote look like this to all later versions. After a \
                     write that failed (a full disk), an agent before 3.15, and Grafana Alloy, write the failed record and the \
                     next one as one record (prometheus#19699); the message says so if walfix can see it.",
            repair: "splits such records again, and nothing is lost, if there is exactly one way to read them as two or more \
                     records, each of a known type and byte for byte as Prometheus writes it, whose refs and times fit the records \
                     around them. Otherwise it keeps the first entries where that is safe, or drops the record.",
            ..EMPTY
        },
        Code::SplicedRecord => Explanation {
            title: "Fragments that are intact and consecutive, but do not belong together.",
            means: "The record that they form contradicts the records around it; the message says how. walfix does not count it \
                    as a record.",
            prometheus: "if the record does not decode, drops the rest of the segment and deletes **all later segments**; in a \
                         checkpoint, it deletes **the whole WAL**. If it happens to decode, Prometheus **silently replays wrong \
                         samples**.",
            causes: "pages that changed places, or were written a second time (`duplicated_page`).",
            ..EMPTY
        },

        Code::TornRecord => Explanation {
            group: Group::Incomplete,
            title: "The segment ends within a record.",
            severity: "A note at the end of the last segment that holds anything, in `wal/` or `wbl/`: a kill or a power cut \
                       leaves this. Always damage elsewhere, and in checkpoints and chunk snapshots, which get their names only \
                       when they are complete.",
            prometheus: "in the last segment, drops the torn record and loses nothing else, or does not notice. In an earlier \
                         segment, it deletes all later segments although they are healthy. Or, where zeros follow up to the end \
                         of the page, it **starts without a word and fails at every later checkpoint** (`create checkpoint: read \
                         segments: corruption in segment ...`, naming the *next* segment), so the WAL grows until the disk is \
                         full.",
            causes: "a crash during a write.",
            to_do: "if it is a note, nothing. If it is damage, run `walfix repair` before Prometheus starts again.",
            ..EMPTY
        },
        Code::UnfinishedRecord => Explanation {
            group: Group::Incomplete,
            title: "A record starts here but never continues; other records follow it.",
            prometheus: "reports the record *after* it (`unexpected full record` or `unexpected first record, dropping buffer`); \
                         drops the rest of the segment and deletes **all later segments**; in a checkpoint, it deletes **the \
                         whole WAL**.",
            causes: "a write that Prometheus gave up half-way, as it does when the disk is full; a page that was moved.",
            lost: "this one record, which was never acknowledged as written.",
            ..EMPTY
        },
        Code::HeadlessRecord => Explanation {
            group: Group::Incomplete,
            title: "The continuation of a record whose start is missing.",
            prometheus: truncates!(
                "`unexpected last record, dropping buffer` or `unexpected middle record, dropping buffer`"
            ),
            causes: "overwritten or missing pages before it.",
            ..EMPTY
        },

        Code::ZeroedPages => Explanation {
            group: Group::Zeros,
            title: "Whole pages of zeros followed by data.",
            prometheus: "takes them for padding. Records that were there are **silently missing**. If a record ran through them, \
                         Prometheus joins what is before and after: if that decodes, the data is wrong; if not, it deletes \
                         everything after that, and reports a place after the zeros.",
            causes: "the bytes never reached the disk: a power cut, a full disk, a sparse copy.",
            lost: "unknown. Fragments that are listed as also lost belonged to the same record.",
            ..EMPTY
        },
        Code::ZeroedTail => Explanation {
            group: Group::Zeros,
            title: "Zeros up to the end of a page that is not the last one.",
            means: "No writer leaves them, and records may have been there.",
            severity: "Damage if the continuation of a record follows. Otherwise every reader skips the zeros.",
            prometheus: "if it is a warning, skips them. If it is damage, it deletes everything after them (`unexpected last \
                         record, dropping buffer` or `unexpected middle record ...`).",
            causes: "the bytes never reached the disk; or a page that was the last one when its server died was moved elsewhere.",
            to_do: "if it is a warning, nothing. If it is damage, run `walfix repair` before Prometheus starts again.",
            ..EMPTY
        },
        Code::TrailingZeros => Explanation {
            group: Group::Zeros,
            title: "The segment ends in pages of zeros.",
            severity: "A note in the last segment that holds anything.",
            prometheus: "skips them.",
            causes: "the file got its length but not its bytes. A segment that is one page of zeros and nothing else is what \
                     Prometheus's own repair leaves if it keeps no record; it has deleted all later segments then.",
            lost: "nothing that can be seen.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::DuplicatedPage => Explanation {
            group: Group::Zeros,
            title: "A page in which a record starts has the same bytes as an earlier page of its segment.",
            means: "Every checksum is right. walfix counts the records once. Pages in the middle of large records may legitimately \
                    be equal, and are not reported.",
            prometheus: "replays the records twice. Repeated samples do no harm, but **a repeated series record wipes what was \
                         replayed for that series before it**. If a record runs into or out of the page, Prometheus deletes \
                         everything after it, or joins what does not belong together.",
            causes: "a write to the wrong place, so that another page is missing.",
            lost: "what was in that page; the amount is unknown.",
            ..EMPTY
        },
        Code::MisplacedPages => Explanation {
            group: Group::Zeros,
            title: "Pages that are not where they were written, and are replayed too early or too late.",
            means: "They were swapped, moved or copied, within a segment or to another one. Every checksum is right; records that \
                    continue from one page to the next, times, and refs show where the pages belong. Reported only where \
                    Prometheus would serve more if they were there.",
            prometheus: "replays them where they are. **It drops every sample that is older than the last one of its series**, so \
                         a page that comes too early costs more than it holds. A series record that comes twice wipes what was \
                         replayed for that series before.",
            causes: "writes to the wrong place; a copy of the directory in which blocks of two files changed places.",
            lost: "of pages that were moved, nothing. What a copy has overwritten, unless it is elsewhere; the amount is unknown.",
            repair: "rewrites the segments with each page where it belongs. A copy is dropped, and the original stays.",
            ..EMPTY
        },

        Code::Unreadable => Explanation {
            group: Group::Disk,
            title: "The disk cannot read these bytes.",
            prometheus: "takes the I/O error for corruption: it drops the rest of the segment and deletes **all later segments**, \
                         although the disk may recover.",
            causes: "a failing disk.",
            to_do: "copy the directory to another disk first (`ddrescue`), then scan the copy.",
            ..EMPTY
        },
        Code::Shrunk => Explanation {
            group: Group::Disk,
            title: "The file became shorter while it was read.",
            means: "Bytes that were there when it was opened are gone.",
            causes: "something truncated it; a Prometheus that is starting and repairing its WAL at this moment does.",
            to_do: "find out what writes to the directory, and scan again.",
            ..EMPTY
        },

        Code::SegmentsNotSequential => Explanation {
            group: Group::Files,
            title: "A segment number is missing, or two files have the same one.",
            severity: "A warning in a chunk snapshot, and in a checkpoint that is not the last one: Prometheus does not load these.",
            prometheus: "does not start (`segments are not sequential`), and deletes nothing.",
            causes: "files that were removed, renamed or partly copied.",
            repair: "puts an empty file by that name there, **after** repairing all other damage: as long as Prometheus does not \
                     start, it deletes nothing either.",
            to_do: "put the missing segment back if you have it anywhere. Otherwise run `walfix repair`.",
            ..EMPTY
        },
        Code::FirstSegmentMissing => Explanation {
            group: Group::Files,
            title: "The first segment of `wal/` does not follow the last checkpoint, or is not 0 without one; or a checkpoint does \
                    not start with segment 0.",
            severity: "A warning in a checkpoint, as long as nothing uses what may have been defined there (`unknown_refs`).",
            prometheus: "does not start (`open WAL segment: ...: no such file or directory`), and leaves one more empty segment at \
                         each try. In a checkpoint it does not notice: series are silently missing.",
            causes: "files that were removed, renamed or partly copied; a checkpoint that was removed by hand.",
            lost: "if the checkpoint is gone for good, the labels of the series that were defined there.",
            repair: "puts an empty file by that name there, **after** repairing all other damage.",
            to_do: "put the missing segment or checkpoint back if you have it anywhere. Otherwise run `walfix repair`.",
            ..EMPTY
        },
        Code::MisnamedSegment => Explanation {
            group: Group::Files,
            title: "A name that Prometheus counts as a segment (`3`, `000003`) but does not open, since it looks for eight digits.",
            severity: "A warning in chunk snapshots, which Prometheus reads under any name; in `wal/` under a number that the last \
                       checkpoint covers; and in a checkpoint that is not the last one.",
            prometheus: "does not start (`open WAL segment: ...: no such file or directory`). In a checkpoint it reads the file, but \
                         **remote write stops there** (`error tailing WAL`, over and over) and sends nothing.",
            ..EMPTY
        },
        Code::NotAFile => Explanation {
            group: Group::Files,
            title: "A directory, a symbolic link, a pipe or something else by the name of a segment.",
            means: "walfix does not follow links.",
            prometheus: "takes the error that it gets for corruption: it drops the rest of the segment and deletes **all later \
                         segments**.",
            repair: "not done yet.",
            to_do: "move it out of the directory.",
            ..EMPTY
        },
        Code::LinkedWal => Explanation {
            group: Group::Files,
            title: "`wal` is a symbolic link, as where the WAL has a disk of its own.",
            prometheus: "follows it, and so does the scan.",
            repair: "writes nothing through a link. `walfix repair --into` writes a repaired copy; or mount the directory in the \
                     place of the link (`mount --bind`).",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::LinkNotFollowed => Explanation {
            group: Group::Files,
            title: "`wbl` or `chunks_head` is a symbolic link, and is not read.",
            means: "Outside the directory, walfix reads only what `wal` leads to. What Prometheus reads here is unknown.",
            to_do: "put the directory itself in the place of the link, or mount it there (`mount --bind`).",
            ..EMPTY
        },
        Code::EmptySegment => Explanation {
            group: Group::Files,
            title: "A segment of no bytes with others after it.",
            severity: "A warning in a checkpoint that has other segments: Prometheus starts those only to write to them, so that \
                       records are gone.",
            prometheus: "starts a new segment at each start; one that dies early leaves it empty.",
            to_do: "nothing. Do not remove it: that would make a gap.",
            ..EMPTY
        },
        Code::CheckpointNotADirectory => Explanation {
            group: Group::Files,
            title: "A file by the name of a checkpoint.",
            prometheus: "does not start (`checkpoint ... is not a directory`).",
            ..EMPTY
        },
        Code::EmptyCheckpoint => Explanation {
            group: Group::Files,
            title: "The last checkpoint is a directory with no segment in it.",
            severity: "Damage if there are samples of series that were defined there (`unknown_refs`).",
            prometheus: "starts, and drops these samples.",
            causes: "files that were removed. An empty directory is also what lets Prometheus start where a checkpoint is gone.",
            to_do: "put back what was there before Prometheus is started.",
            ..EMPTY
        },
        Code::OlderCheckpoint => Explanation {
            group: Group::Files,
            title: "Another checkpoint has a higher number.",
            prometheus: "reads the highest, and removes the others when it makes the next one; a crash may leave one.",
            to_do: "nothing. If the last checkpoint is damaged, keep this one: it has older copies of series records.",
            ..EMPTY
        },
        Code::StaleSegments => Explanation {
            group: Group::Files,
            title: "Segments in `wal/` whose numbers the last checkpoint covers, and which are older than it.",
            severity: "A note if they are empty.",
            prometheus: "skips them, and removes them with one of its next checkpoints.",
            causes: "Prometheus died, or could not remove them, after it had made the checkpoint.",
            to_do: "nothing. If the checkpoint is damaged, keep them: it was made from them.",
            ..EMPTY
        },
        Code::CheckpointAhead => Explanation {
            group: Group::Files,
            title: "No segment of `wal/` has a number above that of the last checkpoint.",
            means: "Prometheus never leaves that by itself.",
            prometheus: "silently skips all segments, and what it writes from now on, at each start, until its numbers are higher.",
            causes: "a checkpoint that was renamed, or comes from elsewhere; segments that were removed. Or damage in the \
                     checkpoint, on which Prometheus has been started **once** (see `restarted_generation`): it deleted the \
                     segments, and exited.",
            lost: "with the segments, all that was written after the checkpoint (`gone` says from when on).",
            repair: "without segments, adds an empty one after the checkpoint, so that Prometheus continues there. Segments that are \
                     already in the checkpoint stay; if they continue it, the checkpoint gets the number before the first.",
            ..EMPTY
        },
        Code::RestartedGeneration => Explanation {
            group: Group::Files,
            title: "`wal/` was restarted at segment 0, or near it, after the last checkpoint was made.",
            means: "Its segments are newer than the checkpoint, or give its refs to other series, or start with the page of zeros \
                    that Prometheus's repair leaves. So Prometheus has run since the damage.",
            prometheus: "if the checkpoint is damaged, **deletes at each start what it has written since the previous one**. If it is \
                         intact, or has been repaired by hand, Prometheus silently skips these segments.",
            lost: "the segments that followed the checkpoint (`gone` has the times). What has been written since is there until the \
                   next start (`times`); it belongs to other refs than those of the checkpoint.",
            repair: "renumbers the segments after the checkpoint, so that they are replayed. Entries of refs that Prometheus has \
                     handed out again are dropped from the checkpoint, from older WBL segments, and (by an encoding that no reader \
                     knows) from `chunks_head/`; chunk snapshots are set aside. The backup keeps all of that.",
            to_do: "stop Prometheus before the repair: each further start deletes what was written since the previous one.",
            ..EMPTY
        },
        Code::SnapshotAhead => Explanation {
            group: Group::Files,
            title: "The last chunk snapshot is for a segment that does not exist.",
            means: "`wal/` was removed or truncated after the snapshot was made.",
            prometheus: "with chunk snapshots on: from 2.43 on **removes it**, with everything that is nowhere else; if only one \
                         segment is missing, or before 2.43, it loads the snapshot and later **skips what it writes** until its \
                         numbers are higher. With chunk snapshots off, it ignores the snapshot.",
            causes: "files that were removed or partly restored; a WAL that Prometheus has truncated.",
            repair: "adds empty segments up to that number; if that takes too many, moves the snapshot to the backup.",
            ..EMPTY
        },
        Code::SnapshotNotADirectory => Explanation {
            group: Group::Files,
            title: "A file by the name of a chunk snapshot.",
            prometheus: "then loads no snapshot, and replays the WAL.",
            to_do: "move it away.",
            ..EMPTY
        },
        Code::StaleTemporary => Explanation {
            group: Group::Files,
            title: "A checkpoint or chunk snapshot that was never finished (`.tmp`).",
            prometheus: "deletes it at the next start.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::InterruptedRepair => Explanation {
            group: Group::Files,
            title: "`NNNNNNNN.repair`: Prometheus died while it was repairing that segment.",
            means: "The file is the original, complete as it was before; the segment beside it holds less.",
            prometheus: "never looks at it again.",
            repair: "puts the original back, without what is damaged in it, if nothing has been logged since.",
            to_do: "keep it: it holds records that are nowhere else.",
            ..EMPTY
        },

        Code::HeadChunksNotSequential => Explanation {
            group: Group::HeadChunks,
            title: "A file of `chunks_head/` is missing between two others.",
            prometheus: "does not start (`found unsequential head chunk files`), and deletes nothing.",
            causes: "files that were removed, or partly copied.",
            repair: "moves the files after the gap to the backup. The WAL has what is in them; a file in the place of the missing \
                     one would hide from Prometheus what the WAL has of that time.",
            ..EMPTY
        },
        Code::MisnamedHeadChunks => Explanation {
            group: Group::HeadChunks,
            title: "A name in `chunks_head/` that Prometheus counts as a file of head chunks, but that is not of six digits (`1`, \
                    `00000001`).",
            prometheus: "reads it. When its chunks are in blocks, it looks for the name of six digits to remove it: every compaction \
                         fails from then on (`truncate chunks.HeadReadWriter by file number: remove ...: no such file or \
                         directory`), and the WAL is no longer truncated. If a file by the right name is there too, the first \
                         compaction removes that one, and the next ones fail.",
            causes: "files that were copied or renamed by hand.",
            repair: "renames the file. If a file by the right name is there already, this one goes to the backup.",
            ..EMPTY
        },
        Code::HeadChunksHeader => Explanation {
            group: Group::HeadChunks,
            title: "A file of `chunks_head/` does not start with a valid header.",
            prometheus: "does not start (`invalid magic number`, `mmap, size 0` or similar). If it is the last file, and its magic \
                         number is zeros, Prometheus silently removes it; that is reported only if it holds chunks.",
            causes: "a power cut or a full disk; overwritten bytes.",
            repair: "writes the header if intact chunks follow it. Otherwise it moves the file and all later ones to the backup.",
            ..EMPTY
        },
        Code::DamagedHeadChunk => Explanation {
            group: Group::HeadChunks,
            title: "A chunk does not match its checksum, is longer than its file, or does not decode to samples of the times that it \
                    states.",
            means: "A chunk that matches its checksum is decoded if a start loads it; one of more than 256 KiB is not, which is \
                    more than Prometheus writes. First times of late histograms may be too high: Prometheus 2.54 wrote such.",
            severity: "A note at the end of the last file, where a crash leaves that.",
            prometheus: "removes that file and all later ones, and takes from the WAL what was in them. If the checksum is right, it \
                         loads the chunk without a word, and takes nothing of its time from the WAL. A query that ends in it \
                         fails (`EOF`); any other gets the samples before the fault, and **silently lacks the rest**, as it has \
                         too many or too few samples if the count is wrong. Compaction copies the chunk into a block as it is, or \
                         fails if it has to encode it again.",
            repair: "ends the file before the chunk, and moves all later files to the backup. The WAL has what was in them. If the \
                     checksum is right, the chunk gets an encoding that no reader knows, and nothing else changes. If the WAL has \
                     more of its time than is in head chunks alone, so do all later chunks of its series, so that Prometheus takes \
                     these samples from the WAL; a chunk of late samples then is treated like one with a wrong checksum. \
                     Before Prometheus 2.39, which knows no such chunks, every one is treated so.",
            ..EMPTY
        },
        Code::HeadChunksOutOfSequence => Explanation {
            group: Group::HeadChunks,
            title: "A chunk of in-order samples begins before the previous one of its ref ends.",
            prometheus: "removes **all** head chunks, and takes from the WAL what was in them.",
            causes: "a file that was copied; a clock that was set back.",
            repair: "as for `damaged_head_chunk`; of chunks that are there twice, the second is skipped.",
            ..EMPTY
        },
        Code::HeadChunksOfOtherSeries => Explanation {
            group: Group::HeadChunks,
            title: "Chunks of an earlier run of Prometheus, whose refs a later run has given to other series.",
            means: "The log of the earlier run is gone. The chunks end before the first sample that the log has of these series, \
                    right after their series records.",
            prometheus: "**serves these samples under the labels of the later series**.",
            causes: "`wal/` was removed but `chunks_head/` was not; or Prometheus has truncated the log because of damage, and \
                     continued.",
            lost: "the labels of these samples, unless you have the log elsewhere.",
            repair: "moves files that hold nothing else to the backup; in other files, these chunks get an encoding that no reader \
                     knows.",
            to_do: "run `walfix repair`. Whoever removes `wal/` has to remove `chunks_head/` and `wbl/` as well.",
            ..EMPTY
        },
        Code::HeadChunksWithoutSeries => Explanation {
            group: Group::HeadChunks,
            title: "Chunks whose refs are higher than any that a series record defines, so that Prometheus hands them out again.",
            prometheus: "does not serve these samples now. Once new series have got these refs, the next start serves the samples \
                         **under the labels of the new series**.",
            causes: "as for `head_chunks_of_other_series`, before Prometheus has continued.",
            repair: "adds a fence, a series that no query returns, so that Prometheus counts on from there. If there is no log at \
                     all, it moves the chunks to the backup.",
            ..EMPTY
        },
        Code::WblWithoutSeries => Explanation {
            group: Group::HeadChunks,
            title: "Entries in `wbl/` whose refs are higher than any that a series record defines, so that Prometheus hands them \
                    out again.",
            prometheus: "as for `head_chunks_without_series`; it reads the WBL after all series records.",
            repair: "adds a fence, along with the repair of other damage.",
            to_do: NOTHING,
            ..EMPTY
        },

        Code::BlockIncomplete => Explanation {
            group: Group::Blocks,
            title: "A block lacks a file of chunks, before other files or all of them.",
            means: "An index names a file of chunks by its place among the files, so that without the first one every chunk is looked \
                    for in the wrong file.",
            prometheus: "starts with the block. Queries that need these chunks fail (`cannot populate chunk`), or return other \
                         chunks.",
            repair: "makes a file without chunks in its place, so that the index finds the chunks of the other files again, and \
                     rewrites the index without those of the missing file.",
            to_do: "restore the file or the block, or move its directory out of the data directory and do without its samples.",
            ..EMPTY
        },
        Code::DamagedBlockChunk => Explanation {
            group: Group::Blocks,
            title: "A chunk of a block cannot be read, or is not what the index says.",
            severity: "A warning where its samples begin or end within the times that the index states, or reach beyond them: late \
                       histograms of Prometheus 2.54 do. A warning, too, of an encoding that walfix does not know: a newer \
                       Prometheus has others, and so have blocks that Thanos has downsampled, which Prometheus cannot query.",
            prometheus: "starts with the block. Each query that needs the chunk **fails as a whole** (`cannot populate chunk`). A \
                         compaction of the block fails: Prometheus marks the blocks of that compaction as failed and compacts them \
                         no more. If they overlap, it tries the same compaction for ever, and no other. `promtool tsdb dump` ends \
                         at the chunk, and says nothing.",
            causes: "a disk, a copy that was interrupted, or memory.",
            lost: "the samples of this chunk.",
            repair: "rewrites the index without the chunk; files of chunks stay as they are. A chunk that can be read stays, even if \
                     the index says something else of it. A block that has been uploaded to object storage is only rewritten with \
                     `--rewrite-uploaded`.",
            to_do: "restore the block from object storage or a backup, if there is one.",
            ..EMPTY
        },
        Code::DamagedBlockIndex => Explanation {
            group: Group::Blocks,
            title: "Series or postings in the index of a block cannot be read, or do not fit together.",
            means: "Prometheus verifies the header, the symbols and the table of postings at a start. Series and postings lists, each of \
                    which has a checksum, it verifies when it reads them.",
            prometheus: "starts with the block. A query that selects these series fails, or lacks them; a compaction of the block \
                         fails.",
            causes: "a disk, a copy that was interrupted, or memory.",
            lost: "of a damaged series, all its chunks: nothing else says which they are. Of damaged postings, nothing.",
            repair: "rewrites the index: symbols and intact series stay where they are, and postings, tables and offsets are made from \
                     these. With `--rewrite-uploaded` also that of a block which has been uploaded to object storage.",
            to_do: "restore the block from object storage or a backup, if there is one.",
            ..EMPTY
        },
        Code::BlockOutOfOrder => Explanation {
            group: Group::Blocks,
            title: "Series, labels or chunks in the index of a block are not in order.",
            severity: "A warning where Prometheus lives with it: a series without chunks, and chunks that do not follow each other in \
                       their files.",
            prometheus: "starts with the block, and a compaction of it fails: only its writer checks the order (`out-of-order series \
                         added`, `chunk minT ... is not higher than previous chunk maxT`).",
            causes: "a tool that writes or rewrites blocks, or an old bug of Prometheus.",
            lost: "nothing.",
            repair: "leaves it: walfix does not sort a block.",
            to_do: "restore the block from a copy, if compactions fail.",
            ..EMPTY
        },
        Code::BlockMetaDiffers => Explanation {
            group: Group::Blocks,
            title: "The `meta.json` of a block does not describe the block.",
            means: "Its counts and times are for planning: of retention, compaction, and which blocks a query reads.",
            prometheus: "starts with the block. It does not look for samples outside the times that the file states, and of a block with \
                         another ULID than its directory it cannot delete the files.",
            causes: "a block that was renamed, or a tool that writes blocks.",
            lost: "nothing.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::BlocksOverlap => Explanation {
            group: Group::Blocks,
            title: "The times of two blocks overlap.",
            prometheus: "merges their samples when it queries them, and compacts them into one block. Blocks of out-of-order samples \
                         overlap others as a rule.",
            causes: "out-of-order samples, imported blocks, or a restored snapshot.",
            lost: "nothing.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::BlockGap => Explanation {
            group: Group::Blocks,
            title: "No block has these times, and there are blocks before and after them.",
            causes: "Prometheus did not run, or scraped nothing. Or a block is missing: check whether one was removed.",
            lost: "nothing, unless a block is missing.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::DeletionsLost => Explanation {
            group: Group::Blocks,
            title: "A block's file of tombstones is missing, and its `meta.json` says that samples had been deleted.",
            prometheus: "starts, and serves the deleted samples again.",
            causes: "a `tombstones` file that was moved away because it was damaged, or that a copy left out.",
            to_do: "put the file back from a backup, or delete the samples once more. Deletions that are lost with records of the \
                    log have no finding of their own: the plan (`deletions` of a loss) and the forecast (`deletions_lost` of a \
                    start) name them.",
            ..EMPTY
        },
        Code::BlockSkipped => Explanation {
            group: Group::Blocks,
            title: "The `meta.json` of a block is missing, empty or invalid.",
            prometheus: "starts without the block (`Failed to read meta.json for a block`), and serves none of its samples. \
                         **No block is compacted any more.**",
            repair: "writes the file again from the index. Hints cannot be known: if the block was of out-of-order samples, Prometheus \
                     does not load samples of the WAL from before its end that are in no block. If the index cannot be read either, it \
                     renames the block to `corrupted-<ULID>`.",
            to_do: "take the file from a backup or from a copy in object storage, or restore the whole block.",
            ..EMPTY
        },
        Code::BlockUnusable => Explanation {
            group: Group::Blocks,
            title: "Prometheus does not open a block: its index, a file of chunks or its tombstones are missing, empty, or not what they \
                    should be.",
            means: "The finding has Prometheus's own error.",
            prometheus: "does not start (`opening storage failed: reloadBlocks: corrupted block ...`), unless a block that it loads was \
                         made from this one. A file of tombstones of 8 bytes makes it crash.",
            repair: "rewrites the index from its symbols and series, writes headers of files of chunks, and writes tombstones again with \
                     the deletions that can be read. A block whose symbols are damaged, or of which no chunk can be read, it renames to \
                     `corrupted-<ULID>`, which Prometheus ignores.",
            to_do: "restore the block, or move its directory out of the data directory and do without its samples.",
            ..EMPTY
        },
        Code::FutureSamples => Explanation {
            group: Group::Around,
            title: "The newest sample of the WAL, or a block, is more than an hour in the future.",
            prometheus: "starts, and refuses every sample (`out of bounds`) until that time has come.",
            causes: "a clock that was ahead, here or where the data was made. Or the clock is behind now.",
            repair: "walfix does not remove these samples.",
            to_do: "first compare the clock with others.",
            ..EMPTY
        },
        Code::LostLabels => Explanation {
            group: Group::Around,
            title: "Samples have had no labels since an earlier repair, which recorded this in `walfix-lost.N.json`.",
            prometheus: "drops them at each start, until it deletes their segments.",
            to_do: "nothing. If more samples lose their labels, the directory is no longer clean.",
            ..EMPTY
        },
        Code::NoPermission => Explanation {
            group: Group::Around,
            title: "The user of Prometheus may not read a file, or not write where it has to.",
            prometheus: "does not start, or does not find its data.",
            causes: "files that were restored or copied as root.",
            to_do: "`chown -R UID:GID`. The user is assumed to be the owner of the newest segment, or of the newest one that is not root's; \
                    `--as UID:GID` names another.",
            ..EMPTY
        },
        Code::NoSpace => Explanation {
            group: Group::Around,
            title: "The volume has less than 256 KiB free, or no free inode; or too little for what Prometheus's own repair of a \
                    segment writes.",
            prometheus: "creates files at each start, and panics if it cannot (`preallocate: no space left on device`). That deletes \
                         nothing, and repeats until there is room. But where it repairs a segment, it renames it to `.repair` and \
                         writes its records again up to the damage: the first start fails half-way and leaves the original; **the \
                         second takes what was written as the segment, repairs that, deletes the original or never reads it, and loses \
                         what had no room**. Measured with 2.53.3 and 3.5.3, damage in the last segment, no free byte: 1 780 985 samples are \
                         served where there is room, 1 734 845 after the second start where there is none.",
            to_do: "free some space before the start. After a start that failed so, `walfix repair` puts the original back.",
            ..EMPTY
        },
        Code::ReadOnly => Explanation {
            group: Group::Around,
            title: "The volume is mounted read-only.",
            prometheus: "does not start: it writes at each start.",
            to_do: "mount it writable.",
            ..EMPTY
        },

        Code::UnknownRefs => Explanation {
            group: Group::References,
            title: "Samples, or other entries, whose series is not defined anywhere before them.",
            severity: "A note in a checkpoint if nothing is damaged or missing: a checkpoint keeps samples by their time, also of \
                       series that it drops (an agent's often has some).",
            prometheus: "drops them, and logs `Unknown series references`. It logs nothing if blocks already have the time of the \
                         samples (`times`).",
            causes: "the record that defined the series is damaged, or was in a file that is missing; another finding then reports \
                     that.",
            to_do: "nothing about this itself. If a series record is found elsewhere, its samples come back: when there is damage to \
                    repair, `walfix repair` looks for it in older checkpoints, segments that the checkpoint covers, `.repair` files, \
                    chunk snapshots and its own backups in the data directory. A copy of any of these helps if you put it there.",
            ..EMPTY
        },
        Code::SeriesAfterUse => Explanation {
            group: Group::References,
            title: "Samples, or other entries, before the record that defines their series.",
            prometheus: "drops them (`Unknown series references`), and takes those after the record.",
            causes: "two writers at once (a harmless race in Prometheus); pages that changed places.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::RepeatedSeries => Explanation {
            group: Group::References,
            title: "A series record that is there again, with the same ref and the same labels.",
            means: "Prometheus never writes that: a series that comes back after it was dropped from memory gets a new ref.",
            severity: "A warning if there are no samples of the series in between.",
            prometheus: "starts over with that series: **what it has replayed for it before is gone**, except for what is in \
                         `chunks_head/`. Samples that are repeated as well come back.",
            causes: "a segment or a page that was copied. (A page that was copied within its segment is a `duplicated_page`.)",
            lost: "at most the samples that the message counts.",
            repair: "not done yet.",
            to_do: "find out where the copy comes from: walfix cannot yet tell which of two copies is the right one.",
        },
        Code::ReissuedRefs => Explanation {
            group: Group::References,
            title: "A ref that is given to a second series with other labels.",
            prometheus: "replaces the earlier series by the later one. The samples of the earlier are **no longer found**; what \
                         `chunks_head/` and `wbl/` have under that ref appears **under the labels of the later**.",
            causes: "two generations in one log: series records were lost, and Prometheus continued and handed out their refs \
                     again; or segments of another server were put here.",
            repair: "not done yet if the checkpoint is intact.",
            ..EMPTY
        },
        Code::MisplacedRecords => Explanation {
            group: Group::References,
            title: "Records of a type that belongs in another log.",
            means: "That is mmap markers outside of `wbl/`; or series, tombstones, exemplars or metadata in it.",
            prometheus: "a server skips them. An agent takes mmap markers for corruption, and deletes everything after them.",
            causes: "a segment in the wrong directory.",
            to_do: "find out where it belongs; look for gaps in the segment numbers there.",
            ..EMPTY
        },
        Code::RefsNotJudged => Explanation {
            group: Group::References,
            title: "More refs, farther apart, than walfix keeps track of: it says nothing about them.",
            means: "The limit is a million ranges of 64 refs. No known server comes near it; damage may have made them up.",
            to_do: NOTHING,
            ..EMPTY
        },

        Code::AgentRefuses => Explanation {
            group: Group::Plans,
            title: "A record that an agent rejects as corruption, while a server skips it.",
            prometheus: "an agent drops the rest of the segment and deletes **all later segments**.",
            repair: "with `--agent`, overwrites it with empty records.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::SnapshotHidesSamples => Explanation {
            group: Group::Plans,
            title: "Prometheus loads a chunk snapshot instead of the WAL, and so does not serve samples that the WAL has.",
            repair: "moves the snapshot to the backup, and Prometheus replays the WAL instead; unless more samples are in the \
                     snapshot alone.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::HeadChunksHideSamples => Explanation {
            group: Group::Plans,
            title: "The first head chunks of some series are gone, and the later ones hide samples that the WAL has of that time.",
            prometheus: "takes from the WAL no sample that is older than the last head chunk of its series.",
            repair: "moves all head chunks to the backup, and Prometheus takes from the WAL what was in them.",
            to_do: NOTHING,
            ..EMPTY
        },
        Code::PrometheusRepair => Explanation {
            group: Group::Plans,
            title: "What Prometheus's own repair would do here.",
            means: "Only `walfix repair --mode prometheus` does that, with a backup.",
            to_do: NOTHING,
            ..EMPTY
        },
    }
}
