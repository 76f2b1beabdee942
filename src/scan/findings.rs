//! From what is wrong with bytes, and from what lies beside the logs, to findings: code, severity, words.

use super::cause::Evidence;
use super::code::Code;
use super::may_be_torn;
use super::report::{Cause, Correction, Finding, Lost, Severity};
use super::salvage::{AgreedCorrection, Problem, ProblemKind};
use super::segment::SegmentScan;
use crate::tsdb::{LogDirectory, LogKind, Stray, StrayKind};
use crate::wal::compress::UnpackError;
use crate::wal::segments::SegmentFile;
use crate::wal::{Fault, PAGE};

/// Findings about what is beside the logs.
pub(super) fn of_strays(strays: &[Stray]) -> Vec<Finding> {
    let words = |stray: &Stray| match stray.kind {
        StrayKind::CheckpointFile => (
            Code::CheckpointNotADirectory,
            Severity::Damage,
            "Prometheus takes it for a checkpoint, finds a file, and refuses to start",
        ),
        StrayKind::SnapshotFile => (
            Code::SnapshotNotADirectory,
            Severity::Warning,
            "Prometheus takes it for a chunk snapshot and finds a file; it loads no snapshot then",
        ),
        StrayKind::Temporary => (
            Code::StaleTemporary,
            Severity::Note,
            "left from an unfinished checkpoint or snapshot; the next start deletes it",
        ),
        StrayKind::Repair => (
            Code::InterruptedRepair,
            Severity::Warning,
            "Prometheus died while it repaired this segment; the original is here, and Prometheus never looks at it again",
        ),
        StrayKind::LinkedWal => (
            Code::LinkedWal,
            Severity::Note,
            "it is a symbolic link: it is read as Prometheus reads it, and a repair writes nothing through it; `walfix \
             repair --into` writes a repaired copy, or mount its directory here (mount --bind)",
        ),
        StrayKind::Link => (
            Code::LinkNotFollowed,
            Severity::Damage,
            "it is a symbolic link, which walfix does not follow: what Prometheus reads there is not known",
        ),
    };
    strays
        .iter()
        .map(|stray| {
            let (code, severity, message) = words(stray);
            of_path(None, stray.relative.clone(), code, severity, message.into())
        })
        .collect()
}

/// Findings about the bytes of a log's segments.
pub(super) fn of_log(log: &LogDirectory, scans: &[Option<SegmentScan>]) -> Vec<Finding> {
    // After a crash the last segment that anything was written to ends anyhow; empty ones of later starts follow.
    let last_written = scans.iter().rposition(|scan| scan.as_ref().is_some_and(|scan| scan.bytes > 0));
    let mut findings = Vec::new();
    for (at, (segment, scan)) in log.segments.iter().zip(scans).enumerate() {
        let Some(scan) = scan else { continue };
        if scan.not_a_file {
            // It may have become one since.
            let what = crate::io::open(&segment.path).err().map(|error| error.to_string());
            let what = what.unwrap_or_else(|| "it is no file".to_owned());
            let message = format!("Prometheus takes it for a segment, and {what}");
            findings.push(of_file(
                log,
                segment,
                Code::NotAFile,
                Severity::Damage,
                message,
                Some(Cause::Files),
            ));
            continue;
        }
        if scan.bytes == 0 && log.kind == LogKind::Checkpoint && log.segments.len() > 1 {
            let message = "empty: Prometheus begins a segment of a checkpoint to write a record to it, so that records are gone".into();
            let cause = Some(Cause::Files);
            findings.push(of_file(log, segment, Code::EmptySegment, Severity::Warning, message, cause));
        } else if scan.bytes == 0 && at + 1 < log.segments.len() {
            let message = "empty: Prometheus begins a new segment at each start".into();
            findings.push(of_file(log, segment, Code::EmptySegment, Severity::Note, message, None));
        }
        let last = last_written == Some(at) && may_be_torn(log.kind);
        findings.extend(scan.problems.iter().map(|(problem, evidence)| {
            let finding = of_problem(log, segment, problem, evidence, last);
            if scan.is_cut_to_nothing() { cut_to_nothing(finding) } else { finding }
        }));
        findings.extend(scan.odd_flags.iter().map(|&(offset, end)| {
            let message =
                "the fragments of this record disagree on its compression; Prometheus believes the last"
                    .into();
            let finding = of_file(
                log,
                segment,
                Code::FlagsDisagree,
                Severity::Warning,
                message,
                Some(Cause::OneFlippedBit),
            );
            Finding { offset: Some(offset), end: Some(end), ..finding }
        }));
    }
    findings
}

/// Zeros that have another reason than a disk.
fn cut_to_nothing(finding: Finding) -> Finding {
    let message = "one page of zeros: that is what Prometheus's own repair leaves of a segment of which it keeps nothing; the \
                   segments behind it are deleted then";
    Finding { message: message.into(), cause: None, ..finding }
}

pub(super) fn of_file(
    log: &LogDirectory,
    segment: &SegmentFile,
    code: Code,
    severity: Severity,
    message: String,
    cause: Option<Cause>,
) -> Finding {
    Finding {
        segment: Some(segment.index),
        cause,
        ..of_path(Some(log), log.relative_of(segment), code, severity, message)
    }
}

/// A finding about a whole file or directory.
pub(crate) fn of_path(
    log: Option<&LogDirectory>,
    path: String,
    code: Code,
    severity: Severity,
    message: String,
) -> Finding {
    Finding {
        code,
        severity,
        log: log.map(|log| log.relative.clone()),
        path,
        segment: None,
        offset: None,
        end: None,
        message,
        cause: None,
        places: 1,
        lost: Lost::default(),
        orphans: Vec::new(),
        correction: None,
        series: None,
        times: None,
        gone: None,
    }
}

fn of_problem(
    log: &LogDirectory,
    segment: &SegmentFile,
    problem: &Problem,
    evidence: &Evidence,
    last: bool,
) -> Finding {
    let (code, message) = words(problem, log.kind, last);
    let severity = severity(problem, evidence, last);
    Finding {
        offset: Some(problem.range.start),
        end: Some(problem.range.end),
        places: problem.places,
        lost: lost(problem, evidence),
        orphans: problem.orphans.iter().map(|orphan| (orphan.start, orphan.end)).collect(),
        correction: problem.correction.as_ref().map(correction),
        ..of_file(log, segment, code, severity, message, evidence.cause)
    }
}

/// Only at the end of the last segment is it normal that a record is not whole.
fn severity(problem: &Problem, evidence: &Evidence, last: bool) -> Severity {
    let ProblemKind::Framing(fault) = &problem.kind else { return Severity::Damage };
    let tail = problem.at_tail && last;
    match fault {
        Fault::TrailingZeros if last => Severity::Note,
        // No writer pads a page in the midst of a segment, but every reader skips it, and other tools may. And a record
        // that is too large for this one may be read by others.
        Fault::TrailingZeros | Fault::Unpack(UnpackError::TooLarge(_)) => Severity::Warning,
        Fault::ZeroedTail if problem.orphans.is_empty() => Severity::Warning,
        Fault::Torn | Fault::Unfinished if tail => Severity::Note,
        // The file got its length and not its bytes.
        Fault::Checksum { .. } | Fault::Length(_)
            if tail
                && evidence.zeros_from.is_some()
                && matches!(evidence.cause, Some(Cause::HalfWritten | Cause::NeverWritten)) =>
        {
            Severity::Note
        }
        _ => Severity::Damage,
    }
}

fn words(problem: &Problem, kind: LogKind, last: bool) -> (Code, String) {
    let fault = match &problem.kind {
        ProblemKind::Framing(fault) => fault,
        ProblemKind::Decode(error) => {
            let what = if kind == LogKind::ChunkSnapshot { "chunk snapshot" } else { "record" };
            let glued = match problem.glued.len() {
                0 => String::new(),
                parts => format!(
                    "; it is {parts} records, one appended to the other: an agent before 3.15, or Grafana Alloy, kept what it \
                     could not write"
                ),
            };
            return (
                Code::DecodeError,
                format!("the checksum is right, and the {what} does not decode: {error}{glued}"),
            );
        }
        ProblemKind::Spliced(why) => {
            return (Code::SplicedRecord, format!("fragments that do not belong together: {why}"));
        }
        ProblemKind::Flags => {
            return (
                Code::CompressionFlag,
                "the header says that this record is not compressed, so Prometheus takes it for an unknown type and \
                 passes over it; unpacked, it is whole"
                    .into(),
            );
        }
    };
    let length = problem.range.end - problem.range.start;
    match fault {
        Fault::Checksum { computed, stored } => {
            (Code::ChecksumMismatch, format!("checksum mismatch: the data has {computed:08x}, the header says {stored:08x}"))
        }
        Fault::Length(claimed) => {
            (Code::InvalidLength, format!("the header claims {claimed} bytes of data, more than the page has room for"))
        }
        Fault::Type(kind) => (
            Code::InvalidType,
            format!("the header's fragment type is {} ({}), which is invalid at this position", kind.bits(), kind.name()),
        ),
        Fault::JunkInPadding => (Code::JunkInPadding, "where the header says that only zeros follow up to the page end, other bytes do".into()),
        Fault::ZeroedPages => {
            let pages = length.div_ceil(PAGE);
            let pages = if pages == 1 { "a page".into() } else { format!("{pages} pages") };
            let then = if problem.orphans.is_empty() {
                "in place of records; Prometheus silently skips them"
            } else {
                "in the middle of records; Prometheus takes them for padding, and joins what is before and after them"
            };
            (Code::ZeroedPages, format!("{pages} of zeros {then}"))
        }
        Fault::ZeroedTail if !problem.orphans.is_empty() => {
            (Code::ZeroedTail, "zeros up to the end of the page in place of the start of a record; its rest follows them".into())
        }
        Fault::ZeroedTail => {
            (Code::ZeroedTail, "zeros up to the end of the page, which no writer leaves before other pages; records may have been here".into())
        }
        Fault::TrailingZeros => (Code::TrailingZeros, "the segment ends in pages of zeros".into()),
        Fault::Unfinished if problem.at_tail && last => {
            (Code::TornRecord, "the last record starts but never ends".into())
        }
        Fault::Unfinished if problem.at_tail => (
            Code::TornRecord,
            "the last record starts but never ends; Prometheus blames the next segment, at the start or when it \
             makes the next checkpoint"
                .into(),
        ),
        Fault::Unfinished => (
            Code::UnfinishedRecord,
            "a record starts here but never continues; Prometheus blames the next record or segment".into(),
        ),
        Fault::Headless => (Code::HeadlessRecord, "continuation of a record whose start is missing".into()),
        Fault::Torn => (Code::TornRecord, "the file ends within a record".into()),
        Fault::Unpack(UnpackError::TooLarge(bytes)) => (
            Code::RecordTooLarge,
            format!("a record of {bytes} bytes is more than walfix reads (256 MiB): what it holds is not known"),
        ),
        Fault::Unpack(error) => (Code::UnpackError, format!("the checksum is right, and the record does not unpack: {error}")),
        Fault::NotRead => (
            Code::NotRead,
            "the records before this unpack to more than 100 times the size of the file and 1 GiB: walfix stops reading here"
                .into(),
        ),
        Fault::DuplicatedPage { original } => {
            (Code::DuplicatedPage, format!("the same bytes as at {original}: records would be replayed twice"))
        }
        Fault::Unreadable(error) => (Code::Unreadable, format!("the disk cannot read these bytes: {error}")),
        Fault::Shrunk { from } => {
            (Code::Shrunk, format!("the file had {from} bytes when it was opened, and was cut while it was read"))
        }
    }
}

fn lost(problem: &Problem, evidence: &Evidence) -> Lost {
    if problem.correction.is_some() {
        return Lost { records: Some(0), entries: Some(0) };
    }
    let records = match &problem.kind {
        ProblemKind::Decode(_) | ProblemKind::Spliced(_) | ProblemKind::Flags => Some(1),
        ProblemKind::Framing(fault) => match fault {
            Fault::Unfinished | Fault::Headless | Fault::Torn | Fault::Unpack(_) | Fault::Type(_) => Some(1),
            Fault::Checksum { .. } if evidence.one_fragment => Some(1),
            Fault::TrailingZeros => Some(0),
            Fault::ZeroedTail if !problem.orphans.is_empty() => Some(1),
            _ => None,
        },
    };
    Lost { records, entries: problem.entries.or((records == Some(0)).then_some(0)) }
}

fn correction(mended: &AgreedCorrection) -> Correction {
    Correction {
        offset: mended.at,
        bit: mended.mask.trailing_zeros(),
        record: mended.contents.name(),
        entries: mended.contents.entries,
        odds: mended.odds,
    }
}
