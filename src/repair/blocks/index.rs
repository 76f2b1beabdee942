//! The bytes of an index that is rewritten.

use std::fs::File;
use std::io::{self, Write};

use super::kept::each_kept;
use crate::block::SalvagedIndex;
use crate::block::write::{IndexWriter, WriteError};
use crate::change::plan::DroppedChunks;
use crate::io::mapped::Mapped;

/// Writes the index that is in the first `length` bytes of `source`, without these chunks and without series that keep none. Each
/// series is where it was, so that tombstones, which name series by their place, mean the same.
pub(in crate::repair) fn rewrite(
    source: &File,
    length: u64,
    dropped: &[DroppedChunks],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut mapped = Mapped::of(source)?;
    mapped.prove(&mut |_| {}).map_err(|pages| io::Error::other(pages.error))?;
    let bytes = usize::try_from(length).ok().and_then(|length| mapped.bytes().get(..length));
    let index = bytes.and_then(SalvagedIndex::open).ok_or(io::ErrorKind::InvalidData)?;
    write(&index, dropped, out).map_err(|error| match error {
        WriteError::Io(error) => error,
        error => io::Error::other(error),
    })
}

fn write(
    index: &SalvagedIndex<'_>,
    dropped: &[DroppedChunks],
    out: &mut dyn Write,
) -> Result<(), WriteError> {
    let mut writer = IndexWriter::continuing(out, index)?;
    each_kept(index, dropped, |series| {
        if series.is_changed {
            writer.series_at(series.stored.offset, series.labels, series.chunks).map(drop)
        } else {
            writer.stored_series(&series.stored, series.labels).map(drop)
        }
    })?;
    let mut pairs = Vec::new();
    let out = writer.finish(
        |each| {
            each_kept(index, dropped, |series| {
                pairs.clear();
                pairs.extend(series.labels.iter().map(|label| (label.name, label.value)));
                each(&pairs)
            })
        },
        |number, text| {
            text.extend_from_slice(index.symbols.get(number).ok_or(WriteError::NoSymbol(number))?);
            Ok(())
        },
    )?;
    Ok(out.flush()?)
}
