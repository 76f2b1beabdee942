//! From what is wrong with bytes, and from what is beside the logs, to findings.

use super::cause::Evidence;
use super::code::Code;
use super::detail::Detail;
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
    let judged = |stray: &Stray| match stray.kind {
        StrayKind::CheckpointFile => {
            (Code::CheckpointNotADirectory, Severity::Damage, Detail::CheckpointIsFile)
        }
        StrayKind::SnapshotFile => (Code::SnapshotNotADirectory, Severity::Warning, Detail::SnapshotIsFile),
        StrayKind::Temporary => (Code::StaleTemporary, Severity::Note, Detail::TemporaryLeft),
        StrayKind::Repair => (Code::InterruptedRepair, Severity::Warning, Detail::RepairInterrupted),
        StrayKind::LinkedWal => (Code::LinkedWal, Severity::Note, Detail::WalIsLink),
        StrayKind::Link => (Code::LinkNotFollowed, Severity::Damage, Detail::LinkNotFollowed),
    };
    strays
        .iter()
        .map(|stray| {
            let (code, severity, detail) = judged(stray);
            of_path(None, stray.relative.clone(), code, severity, detail)
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
            let error = crate::io::open(&segment.path).err().map(|error| error.to_string());
            findings.push(of_file(
                log,
                segment,
                Code::NotAFile,
                Severity::Damage,
                Detail::NotAFile { error },
                Some(Cause::Files),
            ));
            continue;
        }
        if scan.bytes == 0 && log.kind == LogKind::Checkpoint && log.segments.len() > 1 {
            let (detail, cause) = (Detail::EmptyCheckpointSegment, Some(Cause::Files));
            findings.push(of_file(log, segment, Code::EmptySegment, Severity::Warning, detail, cause));
        } else if scan.bytes == 0 && at + 1 < log.segments.len() {
            let detail = Detail::EmptySegment;
            findings.push(of_file(log, segment, Code::EmptySegment, Severity::Note, detail, None));
        }
        let last = last_written == Some(at) && may_be_torn(log.kind);
        findings.extend(scan.problems.iter().map(|(problem, evidence)| {
            let finding = of_problem(log, segment, problem, evidence, last);
            if scan.is_cut_to_nothing() { cut_to_nothing(finding) } else { finding }
        }));
        findings.extend(scan.odd_flags.iter().map(|&(offset, end)| {
            let (code, detail) = (Code::FlagsDisagree, Detail::FlagsDisagree);
            let cause = Some(Cause::OneFlippedBit);
            let finding = of_file(log, segment, code, Severity::Warning, detail, cause);
            Finding { offset: Some(offset), end: Some(end), ..finding }
        }));
    }
    findings
}

/// Zeros that have another reason than a disk.
fn cut_to_nothing(finding: Finding) -> Finding {
    Finding { detail: Detail::EmptiedByRepair, cause: None, ..finding }
}

pub(super) fn of_file(
    log: &LogDirectory,
    segment: &SegmentFile,
    code: Code,
    severity: Severity,
    detail: Detail,
    cause: Option<Cause>,
) -> Finding {
    Finding {
        segment: Some(segment.index),
        cause,
        ..of_path(Some(log), log.relative_of(segment), code, severity, detail)
    }
}

/// A finding about a whole file or directory.
pub(crate) fn of_path(
    log: Option<&LogDirectory>,
    path: String,
    code: Code,
    severity: Severity,
    detail: Detail,
) -> Finding {
    Finding {
        code,
        severity,
        log: log.map(|log| log.relative.clone()),
        path,
        segment: None,
        offset: None,
        end: None,
        detail,
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
    let (code, detail) = code_and_detail(problem, log.kind, last);
    let severity = severity(problem, evidence, last);
    Finding {
        offset: Some(problem.range.start),
        end: Some(problem.range.end),
        places: problem.places,
        lost: lost(problem, evidence),
        orphans: problem.orphans.iter().map(|orphan| (orphan.start, orphan.end)).collect(),
        correction: problem.correction.as_ref().map(correction),
        ..of_file(log, segment, code, severity, detail, evidence.cause)
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

fn code_and_detail(problem: &Problem, kind: LogKind, last: bool) -> (Code, Detail) {
    let fault = match &problem.kind {
        ProblemKind::Framing(fault) => fault,
        ProblemKind::Decode(error) => {
            let in_snapshot = kind == LogKind::ChunkSnapshot;
            let joined = problem.glued.len() as u64;
            return (Code::DecodeError, Detail::Undecodable { error: error.clone(), in_snapshot, joined });
        }
        ProblemKind::Spliced(why) => return (Code::SplicedRecord, Detail::Spliced { why }),
        ProblemKind::Flags => return (Code::CompressionFlag, Detail::CompressionFlag),
    };
    let has_orphans = !problem.orphans.is_empty();
    match fault {
        &Fault::Checksum { computed, stored } => {
            (Code::ChecksumMismatch, Detail::Checksum { computed, stored })
        }
        &Fault::Length(claimed) => (Code::InvalidLength, Detail::InvalidLength { claimed }),
        &Fault::Type(kind) => (Code::InvalidType, Detail::InvalidType { kind }),
        Fault::JunkInPadding => (Code::JunkInPadding, Detail::JunkInPadding),
        Fault::ZeroedPages => {
            let pages = (problem.range.end - problem.range.start).div_ceil(PAGE);
            (Code::ZeroedPages, Detail::ZeroedPages { pages, in_records: has_orphans })
        }
        Fault::ZeroedTail => (Code::ZeroedTail, Detail::ZeroedTail { in_record: has_orphans }),
        Fault::TrailingZeros => (Code::TrailingZeros, Detail::TrailingZeros),
        Fault::Unfinished if problem.at_tail => {
            (Code::TornRecord, Detail::LastRecordUnfinished { in_last_segment: last })
        }
        Fault::Unfinished => (Code::UnfinishedRecord, Detail::RecordUnfinished),
        Fault::Headless => (Code::HeadlessRecord, Detail::RecordHeadless),
        Fault::Torn => (Code::TornRecord, Detail::RecordTorn),
        &Fault::Unpack(UnpackError::TooLarge(bytes)) => {
            (Code::RecordTooLarge, Detail::RecordTooLarge { bytes })
        }
        Fault::Unpack(error) => (Code::UnpackError, Detail::DoesNotUnpack { error: error.clone() }),
        Fault::NotRead => (Code::NotRead, Detail::NotRead),
        &Fault::DuplicatedPage { original } => (Code::DuplicatedPage, Detail::PageRepeated { original }),
        Fault::Unreadable(error) => (Code::Unreadable, Detail::Unreadable { error: error.clone() }),
        &Fault::Shrunk { from } => (Code::Shrunk, Detail::Shrunk { from }),
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
