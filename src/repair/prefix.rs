//! What Prometheus reads of a damaged checkpoint: the records before the first fault.

use std::fs::File;
use std::io;

use super::segment::open;
use crate::forecast::Version;
use crate::forecast::replay::{Part, Reader, Replay};
use crate::tsdb::LogDirectory;

/// The segments of a log, to be read as one stream.
pub(super) fn parts(log: &LogDirectory) -> io::Result<Vec<Part<File>>> {
    let mut parts = Vec::new();
    for segment in &log.segments {
        let (source, length) = open(&segment.path)?;
        parts.push(Part { dir: log.relative.clone(), index: segment.index, source, length });
    }
    Ok(parts)
}

/// Passes on each record that `reader` takes before the first fault. The number of the segment in which that is; `None` if there is
/// none.
pub(super) fn read(
    log: &LogDirectory,
    reader: Reader,
    version: Version,
    mut each: impl FnMut(&[u8]),
) -> io::Result<Option<i64>> {
    // What is no file is a fault at its place.
    let no_file = log
        .segments
        .iter()
        .position(|segment| crate::io::open(&segment.path).is_err_and(|error| crate::io::is_no_file(&error)));
    let (readable, fault) = match no_file {
        Some(at) => {
            let segments = log.segments[..at].to_vec();
            (LogDirectory { segments, ..log.clone() }, Some(log.segments[at].index))
        }
        None => (log.clone(), None),
    };
    let mut replay = Replay::new(parts(&readable)?, version);
    while let Some(record) = replay.next() {
        if reader.refuses(record.data, version).is_some() {
            return Ok(Some(log.segments.get(record.part).map_or(0, |segment| segment.index)));
        }
        each(record.data);
    }
    Ok(replay.error().map(|error| error.segment).or(fault))
}
