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

pub(super) use self::bits::MOST_BLOCKS;
pub(super) use self::history::troubles;
pub(super) use self::joined::References;
pub(super) use self::segment::SegmentRefs;

use self::joined::unknown;
use self::misfits::{Affected, Misfit, Trouble, Troubles};
use super::code::Code;
use super::detail::{AffectedEntries, Detail, WhyUndefined};
use super::findings::{of_file, of_path};
use super::report::{Cause, Dialect, Finding, Log, Lost, Severity, Times};
use crate::record::{RecordType, ReplayedFrom};
use crate::tsdb::replay_order::ReplayOrder;
use crate::tsdb::{Listing, LogDirectory, LogKind};

impl References {
    /// That nothing is said of refs is said.
    pub(super) fn not_judged(&self, listing: &Listing, order: &ReplayOrder) -> Option<Finding> {
        let log = &listing.logs[order.wal.or(order.checkpoint).or(order.wbl)?];
        let (code, detail) = (Code::RefsNotJudged, Detail::RefsNotJudged);
        self.have_overflowed().then(|| of_path(Some(log), log.relative.clone(), code, Severity::Note, detail))
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
        let detail = Detail::WblRefsUndefined { highest };
        Some(of_path(Some(log), log.relative.clone(), Code::WblWithoutSeries, Severity::Warning, detail))
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

/// Records that a replay of that log passes over, since they belong in another one.
pub(super) fn misplaced(directory: &LogDirectory, log: &Log) -> Option<Finding> {
    let (belong_in, agent_refuses) = match log.kind {
        _ if log.dialect == Dialect::Loki => return None,
        LogKind::Wal | LogKind::Checkpoint => (ReplayedFrom::Wbl, true),
        LogKind::Wbl => (ReplayedFrom::Wal, false),
        LogKind::ChunkSnapshot => return None,
    };
    let records: Vec<(u64, &str)> = RecordType::ALL
        .into_iter()
        .filter(|record_type| record_type.kind().replayed_from() == belong_in)
        .filter_map(|record_type| Some((*log.records.get(record_type.name())?, record_type.name())))
        .collect();
    if records.is_empty() {
        return None;
    }
    let finding = of_path(
        Some(directory),
        directory.relative.clone(),
        Code::MisplacedRecords,
        Severity::Warning,
        Detail::RecordsOfAnotherLog { records, agent_refuses },
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
        let entries = affected.in_finding(refs, self.more);
        let in_wbl = log.kind == LogKind::Wbl;
        let (code, severity, detail) = match misfit {
            Misfit::Undefined => {
                let (severity, why) = match why {
                    Why { damage: true, .. } => (Severity::Warning, Some(WhyUndefined::Damaged)),
                    Why { files: true, .. } => (Severity::Warning, Some(WhyUndefined::Missing)),
                    // Samples are kept by their time, series records by what the head holds (`wlog/checkpoint.go`).
                    _ if log.kind == LogKind::Checkpoint => {
                        (Severity::Note, Some(WhyUndefined::DroppedByCheckpoint))
                    }
                    _ => (Severity::Warning, None),
                };
                (Code::UnknownRefs, severity, Detail::RefsUndefined { entries, why, in_wbl })
            }
            Misfit::DefinedLater => {
                (Code::SeriesAfterUse, Severity::Warning, Detail::RefsDefinedLater { entries, in_wbl })
            }
            Misfit::Repeated => {
                let has_effect = affected.samples > 0;
                let severity = if has_effect { Severity::Damage } else { Severity::Warning };
                (Code::RepeatedSeries, severity, Detail::SeriesRepeated { entries })
            }
            Misfit::Reissued => (Code::ReissuedRefs, Severity::Damage, Detail::RefsReissued { entries }),
        };
        let entries = affected.samples + affected.others;
        let base = match &self.place {
            Some((segment, offset, end)) => Finding {
                offset: Some(*offset),
                end: Some(*end),
                ..of_file(log, segment, code, severity, detail, None)
            },
            None => of_path(Some(log), log.relative.clone(), code, severity, detail),
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
    /// As a finding has them, of so many series.
    fn in_finding(&self, series: u64, at_least: bool) -> AffectedEntries {
        let Self { samples, others, times } = *self;
        AffectedEntries { samples, others, times, series, at_least }
    }
}
