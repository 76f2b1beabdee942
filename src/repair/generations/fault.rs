//! Where Prometheus stops reading a damaged checkpoint, and when it did so last.

use std::io;
use std::path::Path;

use super::definitions::Definitions;
use crate::change::input;
use crate::forecast::Assumed;
use crate::forecast::replay::Reader;
use crate::record::Record;
use crate::repair::prefix;
use crate::tsdb::LogDirectory;
use crate::wal::segments::SegmentFile;

/// How far the time of a file may be from that of its newest sample, ns: Prometheus writes a scrape as it comes. Beyond that
/// the file has been copied since, or holds samples of another time, and says nothing of when it was written.
const CREDIBLE: i128 = 3_600_000_000_000;

/// Where Prometheus stops reading a damaged checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointFault {
    /// The number of the segment in it.
    pub(super) segment: i64,
    /// The highest ref that is defined before: it counts on from there.
    pub(super) read: u64,
}

pub(super) fn checkpoint_fault(
    checkpoint: &LogDirectory,
    assumed: Assumed,
) -> io::Result<Option<CheckpointFault>> {
    // If nothing is read all refs are handed out again.
    let mut read = 0;
    let segment = prefix::read(checkpoint, Reader::Wal, assumed.version, |record| {
        if let Record::Series(series) = Record::parse(record) {
            read = series.entries().flatten().map(|entry| entry.series_ref).fold(read, u64::max);
        }
    })?;
    Ok(segment.map(|segment| CheckpointFault { segment, read }))
}

/// When the last start was that a damaged checkpoint stopped, ns since 1970, if the times of files can be believed: it makes
/// again the segment that has the number of the checkpoint's damaged one, and nobody writes to that any more.
pub(super) fn restart_time(
    checkpoint: &LogDirectory,
    segments: &[SegmentFile],
    stop: Option<&CheckpointFault>,
    contents: &[Definitions],
) -> io::Result<Option<i128>> {
    let ns = |ms: i64| i128::from(ms) * 1_000_000;
    let made = segments.iter().find(|segment| Some(segment.index) == stop.map(|stop| stop.segment));
    let Some(made) = made else { return Ok(None) };
    let restarted = modified(&made.path)?;
    for segment in &checkpoint.segments {
        if modified(&segment.path)? >= restarted {
            return Ok(None);
        }
    }
    let newest = segments.iter().zip(contents).filter(|(segment, _)| segment.index > made.index);
    let mut last = None;
    for (segment, definitions) in newest {
        let Some(newest) = definitions.max_time else { continue };
        if (modified(&segment.path)? - ns(newest)).abs() > CREDIBLE {
            return Ok(None);
        }
        last = last.max(Some(newest));
    }
    // Scrapes come after the start. In a copy that does not keep times they are before it.
    Ok(last.filter(|&last| restarted <= ns(last)).map(|_| restarted))
}

pub(super) fn modified(path: &Path) -> io::Result<i128> {
    Ok(input::modified(&path.metadata()?))
}
