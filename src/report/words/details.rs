//! What is wrong at a place, in words.

use std::fmt;

use super::amounts::{count, span, time};
use crate::scan::detail::{
    AffectedEntries, BlockEffect, Deed, Detail, FailingRepair, GapEffect, HeadChunkDamage, Held, HeldChunks,
    Lack, LostSegments, MisnamedEffect, WhyUndefined,
};
use crate::wal::segments::segment_name;

/// How a finding ends for which Prometheus does not start.
const REFUSES: &str = "so Prometheus refuses to start";

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Words(words) => words,

            Self::CheckpointIsFile => {
                "Prometheus takes it for a checkpoint, finds a file, and refuses to start"
            }
            Self::SnapshotIsFile => {
                "Prometheus takes it for a chunk snapshot and finds a file; it loads no snapshot then"
            }
            Self::TemporaryLeft => {
                "left from an unfinished checkpoint or snapshot; the next start deletes it"
            }
            Self::RepairInterrupted => {
                "Prometheus died while it repaired this segment; the original is here, and Prometheus never looks at it again"
            }
            Self::WalIsLink => {
                "it is a symbolic link: it is read as Prometheus reads it, and a repair writes nothing through it; `walfix \
                 repair --into` writes a repaired copy, or mount its directory here (mount --bind)"
            }
            Self::LinkNotFollowed => {
                "it is a symbolic link, which walfix does not follow: what Prometheus reads there is not known"
            }
            Self::NotAFile { error } => {
                let error = error.as_deref().unwrap_or("it is no file");
                return write!(f, "Prometheus takes it for a segment, and {error}");
            }
            Self::EmptyCheckpointSegment => {
                "empty: Prometheus begins a segment of a checkpoint to write a record to it, so records are lost"
            }
            Self::EmptySegment => "empty: Prometheus begins a new segment at each start",

            Self::FlagsDisagree => {
                "the fragments of this record disagree on its compression; Prometheus believes the last"
            }
            Self::EmptiedByRepair => {
                "one page of zeros: that is what Prometheus's own repair leaves of a segment of which it keeps nothing; the \
                 segments after it are deleted then"
            }
            Self::Undecodable { error, in_snapshot, joined } => {
                let what = if *in_snapshot { "chunk snapshot" } else { "record" };
                write!(f, "the checksum is right, and the {what} does not decode: {error}")?;
                if *joined == 0 {
                    return Ok(());
                }
                return write!(
                    f,
                    "; it is {joined} records, one appended to the other: an agent before 3.15, or Grafana Alloy, kept what it \
                     could not write"
                );
            }
            Self::Spliced { why } => {
                return write!(f, "fragments that do not belong together: {why}");
            }
            Self::CompressionFlag => {
                "the header says that this record is not compressed, so Prometheus takes it for an unknown type and skips it; \
                 unpacked, it is intact"
            }
            Self::Checksum { computed, stored } => {
                return write!(
                    f,
                    "checksum mismatch: the data has {computed:08x}, the header says {stored:08x}"
                );
            }
            Self::InvalidLength { claimed } => {
                return write!(
                    f,
                    "the header claims {claimed} bytes of data, more than the page has room for"
                );
            }
            Self::InvalidType { kind } => {
                return write!(
                    f,
                    "the header's fragment type is {} ({}), which is invalid at this position",
                    kind.bits(),
                    kind.name()
                );
            }
            Self::JunkInPadding => {
                "where the header says that only zeros follow up to the page end, other bytes do"
            }
            Self::ZeroedPages { pages, in_records } => {
                match pages {
                    1 => f.write_str("a page of zeros ")?,
                    pages => write!(f, "{pages} pages of zeros ")?,
                }
                return f.write_str(if *in_records {
                    "in the middle of records; Prometheus takes them for padding, and joins what is before and after them"
                } else {
                    "in place of records; Prometheus silently skips them"
                });
            }
            Self::ZeroedTail { in_record: true } => {
                "zeros up to the end of the page in place of the start of a record; its rest follows them"
            }
            Self::ZeroedTail { in_record: false } => {
                "zeros up to the end of the page, which no writer leaves before other pages; records may have been here"
            }
            Self::TrailingZeros => "the segment ends in pages of zeros",
            Self::LastRecordUnfinished { in_last_segment: true } => "the last record starts but never ends",
            Self::LastRecordUnfinished { in_last_segment: false } => {
                "the last record starts but never ends; Prometheus blames the next segment, at the start or when it makes the \
                 next checkpoint"
            }
            Self::RecordUnfinished => {
                "a record starts here but never continues; Prometheus blames the next record or segment"
            }
            Self::RecordHeadless => "continuation of a record whose start is missing",
            Self::RecordTorn => "the file ends within a record",
            Self::RecordTooLarge { bytes } => {
                return write!(
                    f,
                    "a record of {bytes} bytes is more than walfix reads (256 MiB): what it holds is not known"
                );
            }
            Self::DoesNotUnpack { error } => {
                return write!(f, "the checksum is right, and the record does not unpack: {error}");
            }
            Self::NotRead => {
                "the records before this unpack to more than 100 times the size of the file and 1 GiB: walfix stops reading here"
            }
            Self::PageRepeated { original } => {
                return write!(f, "the same bytes as at {original}: records would be replayed twice");
            }
            Self::Unreadable { error } => {
                return write!(f, "the disk cannot read these bytes: {error}");
            }
            Self::Shrunk { from } => {
                return write!(
                    f,
                    "the file had {from} bytes when it was opened, and was truncated while it was read"
                );
            }

            Self::Restarted { first, checkpoint, covers, held, lost } => {
                write!(f, "restarted at segment {} after {checkpoint} was made", segment_name(*first))?;
                match covers {
                    Some(covers) => write!(
                        f,
                        ", which covers all numbers up to {}: at each start Prometheus skips them, without a word",
                        segment_name(*covers)
                    )?,
                    None => f.write_str(
                        ": Prometheus cannot read that, and at each start deletes what it has written since the previous one. \
                         Copy it before the next",
                    )?,
                }
                return write!(f, ": {}. {}", held_in_words(*held), lost_in_words(*lost));
            }
            Self::SegmentsDeleted { is_intact, lost } => {
                let why = if *is_intact {
                    "If Prometheus is started now, it begins with segment 00000000, which this checkpoint covers: the start \
                     after that skips what it writes."
                } else {
                    "Prometheus deletes them at a start at which it cannot read the checkpoint, and gives up that once. From the \
                     next start on it runs, counts from 0, and deletes at each start what it has written since the one before."
                };
                return write!(f, "no segment follows this checkpoint. {why} {}", lost_in_words(*lost));
            }
            Self::CheckpointAhead { covers, held } => {
                return write!(
                    f,
                    "this checkpoint covers the numbers up to {}, and no segment has a higher one: Prometheus skips all of them, \
                     without a word ({}), and what it writes, until its numbers are higher",
                    segment_name(*covers),
                    held_in_words(*held)
                );
            }
            Self::StaleSegments { covers, segments } => {
                return write!(
                    f,
                    "left over when the checkpoint was made, which covers the numbers up to {}: Prometheus skips {} and removes \
                     them after one of the next checkpoints",
                    segment_name(*covers),
                    count(*segments, "segment")
                );
            }

            Self::FirstSegmentMissing { covers, first, wanted } => {
                match covers {
                    Some(number) => write!(f, "the checkpoint ends with segment {}", segment_name(*number))?,
                    None => f.write_str("there is no checkpoint")?,
                }
                return write!(
                    f,
                    ", and the first segment is {}: Prometheus looks for {} and refuses to start",
                    segment_name(*first),
                    segment_name(*wanted)
                );
            }
            Self::SnapshotAhead { covers, is_removed } => {
                let then = if *is_removed {
                    "the next start removes it, and what it has and the log has not"
                } else {
                    "the next start loads it, and later starts skip what is written until then"
                };
                return write!(
                    f,
                    "it covers the WAL up to segment {}, and there is none of so high a number: with chunk snapshots on {then}",
                    segment_name(*covers)
                );
            }
            Self::SameNumber { first, second, then } => {
                return write!(f, "{first} and {second} have the same number, {}", of_gap(*then));
            }
            Self::SegmentsMissing { numbers, then } => {
                let (first, last) = (segment_name(*numbers.start()), segment_name(*numbers.end()));
                let then = of_gap(*then);
                return if first == last {
                    write!(f, "segment {first} before it is missing, {then}")
                } else {
                    write!(f, "segments {first} to {last} before it are missing, {then}")
                };
            }
            Self::Misnamed { index, then } => {
                write!(f, "Prometheus counts it as segment {index}")?;
                let name = segment_name(*index);
                return match then {
                    MisnamedEffect::RefusesToStart => write!(f, " and then looks for {name}, {REFUSES}"),
                    MisnamedEffect::IsRead => f.write_str(" and reads it"),
                    MisnamedEffect::NotSent => {
                        write!(f, " and reads it; but remote write looks for {name}, and sends nothing")
                    }
                    MisnamedEffect::Covered => {
                        f.write_str(" and skips it: the checkpoint covers that number")
                    }
                    MisnamedEffect::CheckpointSkipped => f.write_str(", and skips this checkpoint anyway"),
                };
            }
            Self::EmptyCheckpoint => {
                "no segment is in it: Prometheus starts, and does not know the series that were defined here"
            }
            Self::CheckpointBeginsLate { first } => {
                return write!(
                    f,
                    "the checkpoint begins with segment {}: Prometheus starts without a word, and does not know the series that \
                     were defined before that",
                    segment_name(*first)
                );
            }
            Self::OlderCheckpoint { newest, same_number } => {
                let wins = if *same_number {
                    "has the same number and the later name"
                } else {
                    "has the higher number"
                };
                return write!(
                    f,
                    "Prometheus skips it: {newest} {wins}. If that one is damaged, keep this one: it may have what is lost there"
                );
            }

            Self::RefsNotJudged => {
                "too many refs, too far apart, to say of each whether its series is defined"
            }
            Self::WblRefsUndefined { highest } => {
                return write!(
                    f,
                    "entries have refs up to {highest} that no series record defines, and that Prometheus hands out again: the \
                     start after that serves these samples under labels that are not theirs"
                );
            }
            Self::RecordsOfAnotherLog { records, agent_refuses } => {
                let of_type =
                    |(number, kind): &(u64, &str)| format!("{} of type {kind}", count(*number, "record"));
                let records: Vec<String> = records.iter().map(of_type).collect();
                let then = if *agent_refuses {
                    "Prometheus skips them, but an agent takes them for corruption and deletes what follows"
                } else {
                    "Prometheus skips them"
                };
                return write!(f, "{}, which belong in another log: {then}", records.join(", "));
            }
            Self::RefsUndefined { entries, why, in_wbl } => {
                let (what, series) = (affected(*entries), series(*entries));
                write!(
                    f,
                    "{what} of {series} that no series record before them defines: {}",
                    drops(*in_wbl)
                )?;
                return f.write_str(match why {
                    Some(WhyUndefined::Damaged) => "; their series records may be among what is damaged",
                    Some(WhyUndefined::Missing) => "; their series records may have been in what is missing",
                    Some(WhyUndefined::DroppedByCheckpoint) => {
                        "; a checkpoint may keep samples of series that it has dropped"
                    }
                    None => "",
                });
            }
            Self::RefsDefinedLater { entries, in_wbl } => {
                let (what, series) = (affected(*entries), series(*entries));
                return write!(f, "{what} of {series} come before the series record: {}", drops(*in_wbl));
            }
            Self::SeriesRepeated { entries } if entries.samples == 0 => {
                return write!(
                    f,
                    "the series records of {} are repeated here, with no samples in between: this has no effect",
                    series(*entries)
                );
            }
            Self::SeriesRepeated { entries } => {
                return write!(
                    f,
                    "the series records of {} are repeated here. At each, Prometheus discards what it has replayed for that series \
                     before, unless chunks_head has it: up to {}",
                    series(*entries),
                    affected(*entries)
                );
            }
            Self::RefsReissued { entries } => {
                let refs = match (entries.series, entries.at_least) {
                    (1, _) => "1 ref is".to_owned(),
                    (refs, false) => format!("{refs} refs are"),
                    (refs, true) => format!("at least {refs} refs are"),
                };
                return write!(
                    f,
                    "from here on {refs} for another series than before: Prometheus no longer finds what it has replayed for the \
                     earlier one ({}), and what chunks_head has of that one appears under the name of the later",
                    affected(*entries)
                );
            }

            Self::HeadChunkFilesMissing { numbers } => {
                let (first, last) = (numbers.start(), numbers.end());
                return if first == last {
                    write!(f, "file {first:06} before it is missing, {REFUSES}")
                } else {
                    write!(f, "files {first:06} to {last:06} before it are missing, {REFUSES}")
                };
            }
            Self::HeadChunksMisnamed { name } => {
                return write!(
                    f,
                    "Prometheus takes it for file {name}, and looks for that name to remove it when its chunks are in blocks: every \
                     compaction fails from then on, and the WAL is not truncated any more"
                );
            }
            Self::HeadChunksHeader { why } => return write!(f, "{why}, {REFUSES}"),
            Self::HeadChunksNotOne { chunks, samples } => {
                return write!(
                    f,
                    "it does not begin as a file of head chunks: the next start removes it without a word, with {} of {}",
                    count(*chunks, "chunk"),
                    count(*samples, "sample")
                );
            }
            Self::HeadChunkDamaged { damage, has_later } => {
                let what = match damage {
                    HeadChunkDamage::Checksum => "a chunk does not match its checksum",
                    HeadChunkDamage::Unreadable => "the disk cannot read these bytes",
                    HeadChunkDamage::Unexpected => "Prometheus does not expect a file of this number",
                    HeadChunkDamage::TooLong => "a chunk that is longer than the file",
                    HeadChunkDamage::Undecodable(error) => {
                        return write!(
                            f,
                            "a chunk matches its checksum and cannot be decoded ({error}): Prometheus loads it; a query that \
                             ends there fails, and any other silently lacks samples"
                        );
                    }
                    HeadChunkDamage::OtherTimes => {
                        return write!(
                            f,
                            "a chunk matches its checksum, and its samples are not of the times that it states: Prometheus \
                             loads it, and serves what it holds"
                        );
                    }
                };
                let then = if *has_later {
                    "the next start removes this file and all later ones"
                } else {
                    "the next start removes this file"
                };
                return write!(f, "{what}: {then}, and takes their samples from the WAL");
            }
            Self::HeadChunksOverlap { series_ref, chunks } => {
                return write!(
                    f,
                    "a chunk of the series with ref {series_ref} begins before the one before it ends: the next start removes all \
                     head chunks, and takes their samples from the WAL ({} such)",
                    count(*chunks, "chunk")
                );
            }
            Self::HeadChunksReissued { held } => {
                return write!(
                    f,
                    "{} of {} have refs that mean other series by now ({}): Prometheus serves these samples under labels that are \
                     not theirs. The log that said whose they are is lost; it was removed, or Prometheus has truncated it",
                    count(held.chunks, "head chunk"),
                    count(held.samples, "sample"),
                    held_times(*held)
                );
            }
            Self::HeadChunksUndefined { held } => {
                return write!(
                    f,
                    "{} of {} have refs that no series record defines, and that Prometheus hands out again ({}): the start after \
                     that serves these samples under labels that are not theirs",
                    count(held.chunks, "head chunk"),
                    count(held.samples, "sample"),
                    held_times(*held)
                );
            }

            Self::PagesMisplaced { pages, file, after } => {
                let place = match after {
                    Some(offset) => format!("after what is at {offset} of {file}"),
                    None => format!("at the beginning of {file}"),
                };
                return write!(
                    f,
                    "{} of records that belong {place}: records that continue from page to page, and the times of samples show it; \
                     replayed here they make Prometheus drop samples",
                    count(*pages, "page")
                );
            }
            Self::PagesCopied { pages, original } => {
                let of = original
                    .as_ref()
                    .map_or_else(String::new, |(file, offset)| format!(" of those at {offset} of {file}"));
                return write!(
                    f,
                    "{} of records, a copy{of}: replayed here they make Prometheus drop samples; what was here before is lost, \
                     unless it is elsewhere",
                    count(*pages, "page")
                );
            }

            Self::BlockFault { what, then } => {
                let then = match then {
                    BlockEffect::RefusesForTombstones => {
                        "Prometheus does not start with such a block; without the file it does, and samples that had been \
                         deleted are served again"
                    }
                    BlockEffect::RefusesToStart => "Prometheus does not start with such a block",
                    BlockEffect::Skipped => "Prometheus starts without this block and its samples",
                    BlockEffect::Crashes => "Prometheus crashes at each start",
                };
                return write!(f, "{what}; {then}");
            }
            Self::Block(detail) => return detail.fmt(f),
            Self::FromTheFuture { until } => {
                return write!(
                    f,
                    "samples or blocks are from the future: Prometheus starts, and refuses every sample before {} (\"out of \
                     bounds\")",
                    time(*until)
                );
            }
            Self::TombstonesMissing { tombstones } => {
                return write!(
                    f,
                    "it is missing, and meta.json says that the block had {}: samples that had been deleted are served again",
                    count(*tombstones, "deletion")
                );
            }
            Self::ReadOnly => "the directory is mounted read-only: Prometheus does not start",
            Self::NoSpace { lack, repair } => return no_space(f, *lack, repair.as_ref()),
            Self::NoPermission { uid, gid, owns, deed } => {
                write!(f, "user {uid}:{gid}")?;
                if let Some(owns) = owns {
                    write!(f, ", the owner of {owns},")?;
                }
                let deed = match deed {
                    Deed::Read => "read it",
                    Deed::Write => "write to it",
                    Deed::List => "list it",
                    Deed::MakeFiles => "make files in it",
                };
                return write!(
                    f,
                    " is not allowed to {deed}: Prometheus does not start, or does not find its data"
                );
            }
            Self::RecordedLoss { at, unlabelled, not_loaded } => {
                write!(f, "since the repair of {}: ", time(*at))?;
                if let Some((entries, series)) = unlabelled {
                    let (entries, series) = (count(*entries, "entry"), count(*series, "series"));
                    write!(f, "{entries} of {series} have had no labels, and Prometheus drops them")?;
                }
                if let Some((samples, series)) = not_loaded {
                    let semicolon = if unlabelled.is_some() { "; " } else { "" };
                    let (samples, series) = (count(*samples, "sample"), count(*series, "series"));
                    write!(f, "{semicolon}{samples} of {series} are not loaded")?;
                }
                return Ok(());
            }
        };
        f.write_str(words)
    }
}

/// `12 samples and 3 other entries (2026-11-21 19:24:15 to 19:30:31 UTC)`
fn affected(entries: AffectedEntries) -> String {
    let words = match (entries.samples, entries.others) {
        (samples, 0) => count(samples, "sample"),
        (0, others) => count(others, "entry"),
        (samples, others) => format!("{} and {}", count(samples, "sample"), count(others, "other entry")),
    };
    match entries.times {
        Some((from, to)) => format!("{words} ({})", span(from, to)),
        None => words,
    }
}

/// `at least 12 series`
fn series(entries: AffectedEntries) -> String {
    let least = if entries.at_least { "at least " } else { "" };
    format!("{least}{}", count(entries.series, "series"))
}

fn drops(in_wbl: bool) -> &'static str {
    if in_wbl {
        "Prometheus drops them (it logs \"Unknown series references for ooo WAL replay\")"
    } else {
        "Prometheus drops them (it logs \"Unknown series references\")"
    }
}

fn held_times(held: HeldChunks) -> String {
    held.times.map_or_else(String::new, |(from, to)| span(from, to))
}

fn held_in_words(held: Held) -> String {
    match held.times {
        Some((from, to)) => format!("{}, {}", count(held.samples, "sample"), span(from, to)),
        None => "no samples".to_owned(),
    }
}

fn lost_in_words(LostSegments { first, from, to }: LostSegments) -> String {
    let times = match (from, to) {
        (Some(from), Some(to)) if from <= to => format!(", with samples of {}", span(from, to)),
        (Some(from), _) => format!(", with the samples since {}", time(from)),
        (None, Some(to)) => format!(", with samples of before {}", time(to)),
        (None, None) => String::new(),
    };
    format!(
        "The segments from {} on{times} are lost, unless blocks or chunks_head have them.",
        segment_name(first)
    )
}

fn of_gap(effect: GapEffect) -> &'static str {
    match effect {
        GapEffect::RefusesToStart => REFUSES,
        GapEffect::SnapshotNotLoaded => "so Prometheus does not load this snapshot",
        GapEffect::CheckpointSkipped => "and Prometheus skips this checkpoint anyway",
    }
}

fn no_space(f: &mut fmt::Formatter<'_>, lack: Lack, repair: Option<&FailingRepair>) -> fmt::Result {
    match lack {
        Lack::Space { free, needed } => {
            write!(f, "{} KiB are free on its volume, and a start needs {} KiB", free / 1024, needed / 1024)?;
        }
        Lack::Inodes => f.write_str("its volume has no free inode")?,
        Lack::SpaceForRepair { free } => write!(f, "{} KiB are free on its volume", free / 1024)?,
    }
    match repair {
        None => f.write_str(
            ": Prometheus crashes where it makes a file of head chunks (\"preallocate: no space left on device\"), at every start \
             until there is room; that deletes nothing",
        ),
        Some(FailingRepair { path, needed, failing_start, destroys }) => write!(
            f,
            ", and its repair of {path} writes up to {} KiB: start {failing_start} fails there, if none crashes before for a file \
             of head chunks, and leaves the original in {destroys}; the start after it deletes that or never reads it, and loses \
             what had no room",
            needed / 1024
        ),
    }
}
