//! A fence for refs that would be handed out again.
//!
//! Prometheus counts refs on from the highest that a series record defines (`lastSeriesID`, `tsdb/head_wal.go`, `loadWAL`).
//! If the record of the highest ones is lost, new series get refs that old samples and head chunks still carry, and these
//! appear under the labels of the new ones. A series record above them all makes it count on from there. With it goes one
//! staleness marker, so that a checkpoint keeps the record; no query returns anything for it.

use std::io;

use super::head_chunks::CHUNKS_HEAD;
use crate::record::{SampleEntry, encode_samples, encode_series};
use crate::scan::report::{LogKind, Report};
use crate::tsdb::{Target, list_head_chunks};
use crate::wal::Compression;
use crate::wal::writer::SegmentWriter;

/// The bits of Prometheus's staleness marker (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7FF0_0000_0000_0002;

/// The name of the series.
const NAME: &[u8] = b"walfix_fence";

/// The highest ref that leaves room to count on: Prometheus panics at 2^40 (`tsdb/chunks/chunks.go`, `NewHeadChunkRef`), and
/// what claims to have one near that was never handed out.
pub(super) const MOST: u64 = (1 << 40) - (1 << 32);

/// The ref of the fence that the directory needs, if it needs one: `defined` is the highest ref that a series record defines,
/// `used` the highest of others in the logs.
pub(super) fn needed(target: &Target, defined: Option<u64>, used: Option<u64>) -> io::Result<Option<u64>> {
    let chunks = list_head_chunks(&target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
    let mut used = used;
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
pub(super) fn segment(series_ref: u64, report: &Report) -> io::Result<Vec<u8>> {
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
