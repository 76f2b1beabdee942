//! A fence for refs that would be handed out again.
//!
//! Prometheus counts refs on from the highest that a series record defines (`lastSeriesID`, `tsdb/head_wal.go`, `loadWAL`).
//! If the record of the highest ones is lost, new series get refs that old samples and head chunks still carry, and these
//! appear under the labels of the new ones. A series record above them all makes it count on from there. With it goes one
//! staleness marker, so that a checkpoint keeps the record; no query returns anything for it.

use std::io;

use super::chunks::CHUNKS_HEAD;
use super::misplaced;
use super::refs::RefBounds;
use super::segment::{RecordSink, SegmentRules, open, read_repaired};
use crate::change::plan::{Change, Defect, PlanStep, RepairedFinding, Resolution};
use crate::record::{self, SampleEntry, SnapshotRecord, encode_samples, encode_series};
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::report::{LogKind, Report};
use crate::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use crate::tsdb::{Listing, Target, list_head_chunks};
use crate::wal::segments::{segment_index, segment_name};
use crate::wal::writer::SegmentWriter;
use crate::wal::{self, Compression};

/// The bits of Prometheus's staleness marker (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7FF0_0000_0000_0002;

/// The name of the series.
const NAME: &[u8] = b"walfix_fence";

/// The highest ref that leaves room to count on: Prometheus panics at 2^40 (`tsdb/chunks/chunks.go`, `NewHeadChunkRef`), and
/// what claims to have one near that was never handed out.
pub(super) const MOST: u64 = (1 << 40) - (1 << 32);

/// The segment after the last one that the WAL has after `steps`.
pub(super) fn next_segment(listing: &Listing, steps: &[PlanStep]) -> Option<String> {
    let wal = listing.logs.iter().find(|log| log.kind == LogKind::Wal)?;
    let made = steps.iter().filter_map(|step| match &step.change {
        Change::Create { path, .. } | Change::Rename { to: path, .. } => {
            segment_index(path.strip_prefix(&wal.relative)?.strip_prefix('/')?)
        }
        _ => None,
    });
    let last = wal.segments.last().map(|segment| segment.index).into_iter().chain(made).max()?;
    Some(format!("{}/{}", wal.relative, segment_name(last.checked_add(1)?)))
}

/// What is in files that steps put in the place of segments.
#[derive(Default)]
struct Brought {
    refs: RefBounds,
    newest: Option<i64>,
}

impl RecordSink for Brought {
    fn record(&mut self, record: &[u8]) {
        self.refs.learn(record);
        self.newest = self.newest.max(record::summarize(record).max_time);
    }
}

/// Of a segment that Prometheus was repairing when it died, the original comes back: it is read from there on.
fn brought_by(target: &Target, steps: &[PlanStep], rules: SegmentRules<'_>) -> io::Result<Brought> {
    let mut all = Brought::default();
    for step in steps {
        let source = match &step.change {
            Change::Rewrite { from: Some(from), .. } => from,
            Change::Rename { from, to } if from.ends_with(".repair") && !to.ends_with(".repair") => from,
            _ => continue,
        };
        let (file, length) = open(&target.path_of(source))?;
        let brought = read_repaired(&file, length, rules, Brought::default);
        all.refs = all.refs.and(brought.refs);
        all.newest = all.newest.max(brought.newest);
    }
    Ok(all)
}

/// The refs of series in a chunk snapshot. A server with the feature hands out refs from there on, one without it does not.
#[derive(Default)]
struct InSnapshot(Option<u64>);

impl Visitor for InSnapshot {
    fn record(&mut self, record: &wal::Record<'_>, _: &Contents) {
        if let SnapshotRecord::Series(series) = SnapshotRecord::parse(record.data)
            && let Ok((series_ref, _)) = series.series()
        {
            self.0 = self.0.max(Some(series_ref).filter(|&series_ref| series_ref < MOST));
        }
    }

    fn damage(&mut self, _: Problem) {}
}

fn in_snapshots(target: &Target, report: &Report, steps: &[PlanStep]) -> io::Result<Option<u64>> {
    let mut highest = None;
    for log in report.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot) {
        if is_set_aside(steps, &log.path) {
            continue;
        }
        for segment in &log.segments {
            let path = target.path_of(&segment.path);
            if path.is_file() {
                let (file, length) = open(&path)?;
                let InSnapshot(found) = salvage(&file, length, Reading::Snapshot);
                highest = highest.max(found);
            }
        }
    }
    Ok(highest)
}

fn is_set_aside(steps: &[PlanStep], path: &str) -> bool {
    steps.iter().any(|step| matches!(&step.change, Change::SetAside { path: aside, .. } if aside == path))
}

/// Makes a fence, if what the directory holds after `steps` needs one and there is a place for it: before all else, since it
/// changes nothing of what is there.
pub(super) fn step(
    target: &Target,
    report: &Scan,
    refs: RefBounds,
    steps: &[PlanStep],
    path: Option<String>,
    rules: SegmentRules<'_>,
) -> io::Result<Option<PlanStep>> {
    let brought = brought_by(target, steps, rules)?;
    let mut refs = refs.and(brought.refs);
    refs.used = refs.used.max(in_snapshots(target, report, steps)?);
    let (in_chunks, newest_chunk) = in_head_chunks(target, steps)?;
    refs.used = refs.used.max(in_chunks);
    let (Some(series_ref), Some(path)) = (needed(refs), path) else { return Ok(None) };
    let logs = report.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Checkpoint));
    let in_logs = || logs.filter_map(|log| log.max_time).max();
    let newest = misplaced::newest(report, steps).or_else(in_logs).max(brought.newest).or(newest_chunk);
    let change = Change::Create { path, bytes: segment(series_ref, newest.unwrap_or(0))? };
    let defect = Defect::RefsAboveSeries { highest: series_ref - 1 };
    let repaired = RepairedFinding::new(Code::UnknownRefs, defect, Resolution::RefsFenced);
    Ok(Some(PlanStep::of(change, repaired)))
}

/// The highest ref in head chunks that stay, and the time of the last of their samples.
fn in_head_chunks(target: &Target, steps: &[PlanStep]) -> io::Result<(Option<u64>, Option<i64>)> {
    let chunks = list_head_chunks(&target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
    let (mut highest, mut newest) = (None, None);
    for file in
        chunks.files.iter().filter(|file| !is_set_aside(steps, &format!("{CHUNKS_HEAD}/{}", file.name)))
    {
        // What is after a damaged chunk stays, too.
        let Ok(chunks) = file.chunks() else { continue };
        for chunk in chunks.flatten().filter(|chunk| chunk.series_ref < MOST) {
            highest = highest.max(Some(chunk.series_ref));
            newest = newest.max(Some(chunk.max_time).filter(|_| !chunk.out_of_order));
        }
    }
    Ok((highest, newest))
}

/// The ref of the fence that is needed, if one is.
fn needed(refs: RefBounds) -> Option<u64> {
    let RefBounds { defined, used } = refs;
    // A segment without series still begins at 0.
    let is_above = |used: &u64| *used < MOST && defined.is_none_or(|defined| *used > defined);
    used.filter(is_above).map(|used| used + 1)
}

/// A segment that holds the fence, at the time `t` of the newest sample.
fn segment(series_ref: u64, t: i64) -> io::Result<Vec<u8>> {
    let mut writer = SegmentWriter::new(Vec::new());
    let mut record = Vec::new();
    encode_series([(series_ref, [(&b"__name__"[..], NAME)])], &mut record);
    writer.record(Compression::None, &record)?;
    record.clear();
    encode_samples(&[SampleEntry { series_ref, t, st: 0, value_bits: STALE }], &mut record);
    writer.record(Compression::None, &record)?;
    writer.finish()
}
