//! Chunk snapshots that starts load.

use super::super::Version;
use super::super::replay::{Part, Replay};
use super::StartReads;
use super::heads::Heads;
use super::reopened::Reopened;
use super::survey::open;
use crate::record::SnapshotRecord;
use crate::tsdb::Listing;
use crate::wal;

/// Lets starts load their chunk snapshots (`loadChunkSnapshot`, `tsdb/head_wal.go`).
pub(super) fn load(listing: &Listing, starts: &[StartReads], version: Version, heads: &mut Heads<'_>) {
    let mut logs: Vec<usize> = starts.iter().filter_map(|start| Some(start.snapshot?.log)).collect();
    logs.sort_unstable();
    logs.dedup();
    for log in logs {
        let loads: Vec<bool> =
            starts.iter().map(|start| start.snapshot.is_some_and(|snapshot| snapshot.log == log)).collect();
        let part = |segment: &wal::segments::SegmentFile| {
            let (_, length) = open(&segment.path).ok()??;
            let source = Reopened(segment.path.clone());
            Some(Part { dir: String::new(), index: segment.index, source, length })
        };
        let mut replay = Replay::new(listing.logs[log].segments.iter().filter_map(part).collect(), version);
        while let Some(record) = replay.next() {
            if let SnapshotRecord::Series(series) = SnapshotRecord::parse(record.data)
                && let Ok(series) = series.decode()
            {
                heads.in_snapshot(&series, &loads);
            }
        }
    }
}
