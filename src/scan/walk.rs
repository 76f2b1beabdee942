//! Records where nothing is wrong, reported straight away.

use std::ops::Range;

use super::salvage::{Visitor, contents_of, looks_sane};
use crate::wal::ReadAt;
use crate::wal::walk::{Doubt, Pages, Walker};

/// Reports to `visitor` the records of Prometheus's that begin within a stretch of a segment of `length` bytes: what
/// [`super::salvage`] would report, if all stretches of the segment can be walked.
///
/// # Errors
/// If anything is not as a writer leaves it, or a record says something that wants a second look.
pub(super) fn walk<S: ReadAt + ?Sized, V: Visitor>(
    walker: &mut Walker,
    source: &S,
    length: u64,
    stretch: Range<u64>,
    pages: &mut Pages,
    visitor: &mut V,
) -> Result<(), Doubt> {
    walker.walk(source, length, stretch, pages, |record| {
        let summary = visitor.decode(record.data);
        let is_plain = summary.record_type.is_some()
            && summary.error.is_none()
            && (!record.is_joined() || looks_sane(record, &summary));
        if is_plain {
            visitor.record(record, &contents_of(&summary));
        }
        is_plain
    })
}
