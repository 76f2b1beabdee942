//! A fence for refs that would be handed out again.
//!
//! Prometheus counts refs on from the highest that a series record defines (`lastSeriesID`, `tsdb/head_wal.go`, `loadWAL`).
//! If the record of the highest ones is lost, new series get refs that old samples and head chunks still carry, and these
//! appear under the labels of the new ones. A series record above them all makes it count on from there. With it goes one
//! staleness marker, so that a checkpoint keeps the record; no query returns anything for it.

use std::io;

use super::head_chunks::CHUNKS_HEAD;
use super::plan::{Change, Loss, Mends, Step};
use crate::record::{RecordType, SampleEntry, each_use, encode_samples, encode_series};
use crate::scan::report::{LogKind, Report};
use crate::tsdb::{Listing, Target, list_head_chunks};
use crate::wal::Compression;
use crate::wal::segments::segment_name;
use crate::wal::writer::SegmentWriter;

/// The bits of Prometheus's staleness marker (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7FF0_0000_0000_0002;

/// The name of the series.
const NAME: &[u8] = b"walfix_fence";

/// The highest ref that leaves room to count on: Prometheus panics at 2^40 (`tsdb/chunks/chunks.go`, `NewHeadChunkRef`), and
/// what claims to have one near that was never handed out.
pub(super) const MOST: u64 = (1 << 40) - (1 << 32);

/// The highest refs of series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refs {
    /// Of those that a series record defines which stays.
    pub(super) defined: Option<u64>,
    /// Of others that are seen anywhere.
    pub(super) used: Option<u64>,
}

impl Refs {
    /// Of what a scan has read.
    pub(super) fn in_logs(report: &Report) -> Self {
        Self { defined: report.refs.defined, used: report.refs.unknown }
    }

    /// Of a record that stays.
    pub(super) fn learn(&mut self, record: &[u8]) {
        let is_series = RecordType::of(record) == Some(RecordType::Series);
        each_use(record, |now| {
            let highest = if is_series { &mut self.defined } else { &mut self.used };
            *highest = (*highest).max(Some(now.series_ref));
        });
    }

    /// Of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self { defined: self.defined.max(other.defined), used: self.used.max(other.used) }
    }
}

/// The segment behind the last one of the WAL.
pub(super) fn behind(listing: &Listing) -> Option<String> {
    let wal = listing.logs.iter().find(|log| log.kind == LogKind::Wal)?;
    let next = wal.segments.last()?.index.checked_add(1)?;
    Some(format!("{}/{}", wal.relative, segment_name(next)))
}

/// Makes a fence, if the directory needs one and there is a place for it: before all else, since it changes nothing of what is
/// there.
pub(super) fn step(
    target: &Target,
    report: &Report,
    refs: Refs,
    path: Option<String>,
) -> io::Result<Option<Step>> {
    let (Some(series_ref), Some(path)) = (needed(target, refs)?, path) else { return Ok(None) };
    let change = Change::Create { path, bytes: segment(series_ref, report)? };
    let mends = Mends {
        code: "unknown_refs".to_owned(),
        offset: None,
        end: None,
        message: format!(
            "samples or head chunks have refs up to {}, and no series record that is left goes so far",
            series_ref - 1
        ),
        how: "one series that no query returns makes Prometheus count on from there; else new series would get these refs"
            .to_owned(),
    };
    Ok(Some(Step { change, mends: vec![mends], lost: Loss::NOTHING }))
}

/// The ref of the fence that the directory needs, if it needs one.
fn needed(target: &Target, refs: Refs) -> io::Result<Option<u64>> {
    let chunks = list_head_chunks(&target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
    let Refs { defined, mut used } = refs;
    for file in &chunks.files {
        let Ok(headers) = file.chunks() else { continue };
        let refs = headers.map_while(Result::ok).map(|chunk| chunk.series_ref);
        used = used.max(refs.filter(|&used| used < MOST).max());
    }
    // A segment without series still begins at 0.
    let is_above = |used: &u64| *used < MOST && defined.is_none_or(|defined| *used > defined);
    Ok(used.filter(is_above).map(|used| used + 1))
}

/// A segment that holds the fence, at the time of the newest sample.
fn segment(series_ref: u64, report: &Report) -> io::Result<Vec<u8>> {
    let logs = report.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Checkpoint));
    let t = logs.filter_map(|log| log.max_time).max().unwrap_or(0);
    let mut writer = SegmentWriter::new(Vec::new());
    let mut record = Vec::new();
    encode_series([(series_ref, [(&b"__name__"[..], NAME)])], &mut record);
    writer.record(Compression::None, &record)?;
    record.clear();
    encode_samples(&[SampleEntry { series_ref, t, st: 0, value_bits: STALE }], &mut record);
    writer.record(Compression::None, &record)?;
    writer.finish()
}
