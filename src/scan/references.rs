//! Refs: which series record says what the ref of a sample means, in the order in which Prometheus replays the logs.
//!
//! A segment alone tells which refs it uses before it defines them ([`SegmentRefs`]), a bit for each: refs are handed out
//! one after the other. In replay order these are held against what has been defined up to there ([`References`]).
//! Only where something does not fit are segments read again, to count what that costs ([`troubles`]).
//!
//! Source: Prometheus `tsdb/head_wal.go` (`loadWAL`, `loadWBL`, `resetSeriesWithMMappedChunks`).

mod bits;
mod history;
mod joined;
mod misfits;
mod segment;

pub(super) use self::history::troubles;
pub(super) use self::joined::References;
pub(super) use self::segment::SegmentRefs;

use self::joined::unknown;
use self::misfits::{Affected, Misfit, Trouble, Troubles};
use super::code::Code;
use super::findings::{of_file, of_path};
use super::report::{Cause, Dialect, Finding, Log, Lost, Severity, Times};
use super::words::{count, span};
use crate::record::{RecordType, ReplayedFrom};
use crate::tsdb::replay_order::ReplayOrder;
use crate::tsdb::{Listing, LogDirectory, LogKind};

impl References {
    /// That nothing is said of refs is said.
    pub(super) fn not_judged(&self, listing: &Listing, order: &ReplayOrder) -> Option<Finding> {
        let log = &listing.logs[order.wal.or(order.checkpoint).or(order.wbl)?];
        let message = "too many refs, too far apart, to say of each whether its series is defined";
        self.have_overflowed()
            .then(|| of_path(Some(log), log.relative.clone(), Code::RefsNotJudged, Severity::Note, message))
    }

    /// Samples in the WBL have refs that Prometheus will hand out again: it reads these after all series records.
    pub(super) fn above_in_wbl(&self, listing: &Listing, order: &ReplayOrder) -> Option<Finding> {
        let log = &listing.logs[order.wbl?];
        // Without a WAL it was put here, or taken out of somewhere, by itself.
        order.wal?;
        let highest = unknown(&self.wbl).filter(|_| self.are_all_known())?;
        if self.refs.highest(|block| block.defined).is_some_and(|defined| highest <= defined) {
            return None;
        }
        let message = format!(
            "entries have refs up to {highest} that no series record defines, and that Prometheus hands out again: the start after \
             that serves these samples under labels that are not theirs"
        );
        Some(of_path(Some(log), log.relative.clone(), Code::WblWithoutSeries, Severity::Warning, message))
    }
}

/// Why a ref may be undefined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why {
    /// Records of the checkpoint or the WAL are damaged.
    pub(super) damage: bool,
    /// Files are missing.
    pub(super) files: bool,
}

/// Findings, in the order of logs.
pub(super) fn findings(listing: &Listing, troubles: &Troubles, why: Why) -> Vec<Finding> {
    troubles
        .iter()
        .map(|(&(log, misfit), trouble)| trouble.finding(&listing.logs[log], misfit, why))
        .collect()
}

/// Records that a replay of that log passes over, since they belong into another one.
pub(super) fn misplaced(directory: &LogDirectory, log: &Log) -> Option<Finding> {
    let (belong_into, then) = match log.kind {
        _ if log.dialect == Dialect::Loki => return None,
        LogKind::Wal | LogKind::Checkpoint => (
            ReplayedFrom::Wbl,
            "Prometheus skips them, but an agent takes them for corruption and deletes what follows",
        ),
        LogKind::Wbl => (ReplayedFrom::Wal, "Prometheus skips them"),
        LogKind::ChunkSnapshot => return None,
    };
    let found: Vec<String> = RecordType::ALL
        .into_iter()
        .filter(|record_type| record_type.kind().replayed_from() == belong_into)
        .filter_map(|record_type| {
            let records = count(*log.records.get(record_type.name())?, "record");
            Some(format!("{records} of type {record_type}"))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    let message = format!("{}, which belong into another log: {then}", found.join(", "));
    let finding = of_path(
        Some(directory),
        directory.relative.clone(),
        Code::MisplacedRecords,
        Severity::Warning,
        message,
    );
    Some(Finding { cause: Some(Cause::Files), ..finding })
}

impl Trouble {
    fn finding(&self, log: &LogDirectory, misfit: Misfit, why: Why) -> Finding {
        let refs = self.refs.len() as u64 + self.undefined;
        let mut affected = self.affected;
        if matches!(misfit, Misfit::Repeated | Misfit::Reissued) {
            // Metadata is written next to each series record; exemplars are kept elsewhere.
            affected.others = 0;
        }
        let what = affected.in_words();
        let least = if self.more { "at least " } else { "" };
        let series = format!("{least}{}", count(refs, "series"));
        let drops = match log.kind {
            LogKind::Wbl => {
                "Prometheus drops them (it logs \"Unknown series references for ooo WAL replay\")"
            }
            _ => "Prometheus drops them (it logs \"Unknown series references\")",
        };
        let (code, severity, message) = match misfit {
            Misfit::Undefined => {
                let (severity, why) = match why {
                    Why { damage: true, .. } => {
                        (Severity::Warning, "; their series records may be among what is damaged")
                    }
                    Why { files: true, .. } => {
                        (Severity::Warning, "; their series records may have been in what is missing")
                    }
                    // Samples are kept by their time, series records by what the head holds (`wlog/checkpoint.go`).
                    _ if log.kind == LogKind::Checkpoint => {
                        (Severity::Note, "; a checkpoint may keep samples of series that it has dropped")
                    }
                    _ => (Severity::Warning, ""),
                };
                (
                    Code::UnknownRefs,
                    severity,
                    format!("{what} of {series} that no series record before them defines: {drops}{why}"),
                )
            }
            Misfit::DefinedLater => (
                Code::SeriesAfterUse,
                Severity::Warning,
                format!("{what} of {series} come before the series record: {drops}"),
            ),
            Misfit::Repeated if affected.samples == 0 => (
                Code::RepeatedSeries,
                Severity::Warning,
                format!(
                    "the series records of {series} are repeated here, with no samples in between: this has no effect"
                ),
            ),
            Misfit::Repeated => (
                Code::RepeatedSeries,
                Severity::Damage,
                format!(
                    "the series records of {series} are repeated here. At each, Prometheus discards what it has replayed for \
                     that series before, unless chunks_head has it: up to {what}"
                ),
            ),
            Misfit::Reissued => (
                Code::ReissuedRefs,
                Severity::Damage,
                format!(
                    "from here on {} for another series than before: Prometheus no longer finds what it has replayed for the \
                     earlier one ({what}), and what chunks_head has of that one appears under the name of the later",
                    if refs == 1 { "1 ref is".into() } else { format!("{least}{refs} refs are") }
                ),
            ),
        };
        let entries = affected.samples + affected.others;
        let base = match &self.place {
            Some((segment, offset, end)) => Finding {
                offset: Some(*offset),
                end: Some(*end),
                ..of_file(log, segment, code, severity, message, None)
            },
            None => of_path(Some(log), log.relative.clone(), code, severity, message),
        };
        // Of what is thrown away, the records behind may bring back a part.
        let lost = match misfit {
            Misfit::Repeated if entries > 0 => Lost::default(),
            _ => Lost { records: Some(0), entries: Some(entries) },
        };
        Finding {
            lost,
            series: Some(refs),
            times: affected.times.map(|(from, to)| Times { from: Some(from), to: Some(to) }),
            ..base
        }
    }
}

impl Affected {
    /// `12 samples and 3 other entries, 2026-11-21 19:24:15 to 19:30:31 UTC,`
    fn in_words(&self) -> String {
        let mut words = match (self.samples, self.others) {
            (samples, 0) => count(samples, "sample"),
            (0, others) => count(others, "entry"),
            (samples, others) => format!("{} and {}", count(samples, "sample"), count(others, "other entry")),
        };
        if let Some((from, to)) = self.times {
            words = format!("{words} ({})", span(from, to));
        }
        words
    }
}
