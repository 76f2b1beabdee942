//! The next checkpoint, which a server makes after its next head compaction: one reader over the last checkpoint and all
//! segments, so that it finds what no start does.
//!
//! Source: `truncateWAL` (`tsdb/head.go`), `Checkpoint` (`tsdb/wlog/checkpoint.go`).

use std::io;

use super::directory::{Directory, LastCheckpoint};
use super::readings::{Failure, Readings};
use super::replay::Reader;
use super::served::Stretch;
use super::start;

/// Why the next checkpoint fails.
pub(super) struct Failed {
    /// With what error.
    pub(super) error: String,
    /// What it was to read, in order.
    pub(super) stretches: Vec<Stretch>,
    /// Which of these was read last, and the end of its last record.
    pub(super) read_to: Option<(usize, u64)>,
}

/// With what the next checkpoint of a directory fails, if all its segments go into it.
pub(super) fn next(
    directory: &Directory,
    readings: &Readings<'_>,
    reader: Reader,
) -> io::Result<Option<Failed>> {
    let fails = |error: String| Some(Failed { error, stretches: Vec::new(), read_to: None });
    let mut stretches = Vec::new();
    let mut from = None;
    match &directory.checkpoint {
        LastCheckpoint::None => {}
        LastCheckpoint::NotADirectory(name) => {
            return Ok(fails(format!("find last checkpoint: checkpoint {name} is not a directory")));
        }
        LastCheckpoint::Number { log, number } => {
            let first = directory.wal.segments.first().map_or(0, |first| first.index);
            let expected = number.saturating_add(1);
            if first > expected {
                let error =
                    format!("unexpected gap to last checkpoint. expected:{expected}, requested:{first}");
                return Ok(fails(error));
            }
            if let Some(dir) = readings.gap_in(*log) {
                let error =
                    format!("create segment reader: list segment in dir:{dir}: segments are not sequential");
                return Ok(fails(error));
            }
            stretches.extend(readings.whole(*log));
            from = Some(expected);
        }
    }
    let wal = directory.wal.segments.iter().filter(|segment| from.is_none_or(|from| segment.index >= from));
    stretches.extend(wal.filter_map(|segment| start::stretch(&directory.wal, segment.holds, None)));
    let active = directory.wal.segments.last().map_or(0, |last| last.index);
    let reading = readings.for_checkpoint(&stretches, reader, (&directory.wal.relative, active))?;
    Ok(match reading.failure {
        Some(Failure::Corrupt { text: error, .. } | Failure::Crash(error)) => {
            Some(Failed { error, stretches, read_to: reading.read_to })
        }
        Some(Failure::Hang) | None => None,
    })
}
