//! One segment as a repair reads it, and the smallest change that repairs it.

mod bytes;
mod dropped;
mod patches;
mod ranges;
mod records;
mod rewrite;
mod rules;
mod salvaged;
mod stored;

use std::fs::File;
use std::io;
use std::path::Path;

pub(super) use self::dropped::DroppedEntries;
pub(super) use self::patches::SegmentChange;
pub(super) use self::records::{RecordSink, read_repaired, read_repaired_before};
pub(super) use self::rewrite::{RewrittenSegments, places};
pub(super) use self::rules::SegmentRules;
pub(super) use self::salvaged::{SalvagedSegment, needs_repair};
pub(super) use self::stored::read_exact;

/// Opens a segment, and says how long it is.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = crate::io::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}
