//! A checkpoint that is cut where Prometheus stops reading it.

use std::collections::HashSet;
use std::io;

use super::super::plan::{Change, Content, Loss, Method, Patch, PlanStep, Resolution};
use super::super::prefix;
use super::super::refs::RefBounds;
use super::super::segment::{RecordSink, SegmentRules, open, read_repaired};
use crate::forecast::Assumed;
use crate::forecast::replay::{Reader, ReplayError, read};
use crate::forecast::report::Forecast;
use crate::record::{Labels, Record, each_use};
use crate::tsdb::{Listing, LogDirectory, LogKind};

/// Series that are named. More are not.
const MOST_NAMES: usize = 100_000;

/// What is done, and which refs are left.
pub(super) struct Cut {
    /// The checkpoint's directory.
    pub(super) path: String,
    pub(super) steps: Vec<PlanStep>,
    /// Series that are defined only after the fault: their names, but for those that are too many, and their refs.
    pub(super) lost_series: Vec<String>,
    pub(super) lost_refs: HashSet<u64>,
    /// The highest refs that are defined in what is left of it, and in the segments after it; and that are seen in it.
    pub(super) refs: RefBounds,
}

/// Cuts the last checkpoint where it cannot be read, if that is so.
pub(super) fn cut(
    listing: &Listing,
    forecast: &Forecast,
    assumed: Assumed,
    rules: SegmentRules<'_>,
) -> io::Result<Option<Cut>> {
    let (Some((at, number)), Some(start)) = (listing.last_checkpoint(), forecast.starts.first()) else {
        return Ok(None);
    };
    let log = &listing.logs[at];
    let logs = listing.logs.iter().filter(|log| log.kind == LogKind::Wal).chain([log]);
    if logs.flat_map(|log| &log.segments).any(|segment| !segment.path.is_file()) {
        return Ok(None);
    }
    let reader = if assumed.agent { Reader::Agent } else { Reader::Wal };
    let reading = read(prefix::parts(log)?, reader, assumed.version);
    if !matches!(reading.error, Some(ReplayError::Corrupt { .. })) {
        return Ok(None);
    }
    let (part, end) = reading.read_to.unwrap_or((0, 0));
    let mut cut = Cut {
        path: log.relative.clone(),
        steps: Vec::new(),
        lost_series: Vec::new(),
        lost_refs: HashSet::new(),
        refs: RefBounds::default(),
    };
    let kept = cut.kept(log, reader, assumed)?;
    let lost = cut.lost(log, &kept, rules)?;
    cut.refs.defined = cut.refs.defined.max(defined_after(listing, number, rules)?);
    for (at, segment) in log.segments.iter().enumerate().skip(part).rev() {
        let length = segment.path.metadata()?.len();
        let path = log.relative_of(segment);
        let change = if at > part {
            Change::SetAside { path, bytes: length }
        } else {
            let end_here =
                Patch { offset: end.min(length), replaces: length.saturating_sub(end), with: Content::End };
            Change::Patch { path, method: Method::InPlace, patches: vec![end_here] }
        };
        cut.steps.push(super::step(change, start, Resolution::CheckpointTruncated));
    }
    if let Some(step) = cut.steps.last_mut() {
        step.lost = lost;
    }
    for step in cut.steps.iter_mut().rev().skip(1) {
        step.lost = Loss::NOTHING;
    }
    Ok(Some(cut))
}

/// What is before the fault.
#[derive(Default)]
struct Kept {
    records: u64,
    entries: u64,
    /// Refs that are defined.
    defined: HashSet<u64>,
}

impl Cut {
    fn kept(&mut self, log: &LogDirectory, reader: Reader, assumed: Assumed) -> io::Result<Kept> {
        let mut kept = Kept::default();
        prefix::read(log, reader, assumed.version, |record| {
            kept.records += 1;
            each_use(record, |_| kept.entries += 1);
            if let Record::Series(series) = Record::parse(record) {
                kept.defined.extend(series.entries().flatten().map(|entry| entry.series_ref));
            }
        })?;
        self.refs.defined = kept.defined.iter().max().copied();
        Ok(kept)
    }

    /// What could be read after it; and the names of series that are defined only there.
    fn lost(&mut self, log: &LogDirectory, kept: &Kept, rules: SegmentRules<'_>) -> io::Result<Loss> {
        let (mut records, mut entries) = (0, 0);
        for segment in &log.segments {
            let (file, length) = open(&segment.path)?;
            let new = || All { cut: self, kept, records: 0, entries: 0, used: None, lost: Lost::default() };
            let all = read_repaired(&file, length, rules, new);
            records += all.records;
            entries += all.entries;
            let Lost { names, refs } = all.lost;
            self.refs.used = self.refs.used.max(all.used);
            self.lost_series.extend(names);
            self.lost_refs.extend(refs);
        }
        let entries = entries.saturating_sub(kept.entries);
        Ok(Loss::new(Some(records.saturating_sub(kept.records)), Some(entries)))
    }
}

/// The highest ref that the segments after the checkpoint define.
fn defined_after(listing: &Listing, number: i64, rules: SegmentRules<'_>) -> io::Result<Option<u64>> {
    struct Highest(Option<u64>);
    impl RecordSink for Highest {
        fn record(&mut self, record: &[u8]) {
            if let Record::Series(series) = Record::parse(record) {
                self.0 = self.0.max(series.entries().flatten().map(|entry| entry.series_ref).max());
            }
        }
    }
    let mut highest = None;
    for wal in listing.logs.iter().filter(|log| log.kind == LogKind::Wal) {
        for segment in wal.segments.iter().filter(|segment| segment.index > number) {
            let (file, length) = open(&segment.path)?;
            highest = highest.max(read_repaired(&file, length, rules, || Highest(None)).0);
        }
    }
    Ok(highest)
}

/// All that can be read.
struct All<'a> {
    /// Of the segments before.
    cut: &'a Cut,
    kept: &'a Kept,
    records: u64,
    entries: u64,
    used: Option<u64>,
    lost: Lost,
}

/// Series that are defined in a segment for the first time, and are lost.
#[derive(Default)]
struct Lost {
    names: Vec<String>,
    refs: HashSet<u64>,
}

impl RecordSink for All<'_> {
    fn record(&mut self, record: &[u8]) {
        self.records += 1;
        each_use(record, |one| {
            self.entries += 1;
            self.used = self.used.max(Some(one.series_ref));
        });
        if let Record::Series(series) = Record::parse(record) {
            for entry in series.entries().flatten() {
                let series_ref = entry.series_ref;
                let is_known =
                    self.kept.defined.contains(&series_ref) || self.cut.lost_refs.contains(&series_ref);
                if is_known || !self.lost.refs.insert(series_ref) {
                    continue;
                }
                if self.cut.lost_series.len() + self.lost.names.len() < MOST_NAMES {
                    self.lost.names.push(name(entry.labels));
                }
            }
        }
    }
}

/// A series as Prometheus writes it: `up{job="a"}`.
fn name(labels: Labels<'_>) -> String {
    let (mut metric, mut rest) = (String::new(), Vec::new());
    for (name, value) in &labels {
        let value = String::from_utf8_lossy(value);
        if name == b"__name__" && metric.is_empty() {
            value.as_ref().clone_into(&mut metric);
        } else {
            rest.push(format!("{}={value:?}", String::from_utf8_lossy(name)));
        }
    }
    if rest.is_empty() && !metric.is_empty() { metric } else { format!("{metric}{{{}}}", rest.join(", ")) }
}
