//! What can be read of an index that Prometheus does not open, or of which a part is damaged: its symbols and series, each of which
//! has a checksum of its own. All else can be made again from these (`tsdb/index/index.go`).

use super::index::{SYMBOLS, Toc, version_of};
use super::section::uvarint;
use super::series::{ALIGNED, BlockChunk, LabelSymbols, StoredSeries, found_at, series_at};
use super::symbols::Symbols;
use crate::record::Cursor;

/// The version that an index with a damaged header is taken for: what Prometheus writes.
const WRITTEN: u8 = 2;

/// The symbols and series of an index.
#[derive(Clone, Debug)]
pub struct SalvagedIndex<'a> {
    file: &'a [u8],
    /// Its version, 2 or 3.
    pub version: u8,
    /// Its symbols.
    pub symbols: Symbols<'a>,
    /// Where no further series begins.
    end: u64,
}

impl<'a> SalvagedIndex<'a> {
    /// Looks for symbols and series in `file`. `None` if the symbols are damaged, without which no series has labels, or not sorted;
    /// and for version 1, which has another form.
    #[must_use]
    pub fn open(file: &'a [u8]) -> Option<Self> {
        let version = match version_of(file) {
            Ok(1) => return None,
            Ok(version) => version,
            Err(_) => WRITTEN,
        };
        let symbols = Symbols::open(file, version, SYMBOLS).ok()?;
        if !symbols.are_sorted() {
            return None;
        }
        let length = file.len() as u64;
        let end = match Toc::read(file) {
            // The series are before all that is after the symbols.
            Ok(toc) if toc.symbols == SYMBOLS && toc.series == symbols.end() => {
                let after = [toc.label_indices, toc.label_indices_table, toc.postings, toc.postings_table];
                after.into_iter().filter(|&at| at >= toc.series).min().unwrap_or(length).min(length)
            }
            // A list or a table that passes for a series has its checksum by chance.
            _ => length,
        };
        Some(Self { file, version, symbols, end })
    }

    /// The section of the symbols, with its length and its checksum.
    #[must_use]
    pub fn symbols_section(&self) -> &'a [u8] {
        let place = usize::try_from(SYMBOLS).ok().zip(usize::try_from(self.symbols.end()).ok());
        place.and_then(|(from, to)| self.file.get(from..to)).unwrap_or_default()
    }

    /// Where the first series may begin.
    #[must_use]
    pub fn begin(&self) -> u64 {
        self.symbols.end()
    }

    /// The first series at or after `from` whose checksum is right, and whose labels are known; `None` if there is no more. Its
    /// labels and chunks come into vectors that are emptied first.
    #[must_use]
    pub fn next_series(
        &self,
        from: u64,
        labels: &mut Vec<LabelSymbols>,
        chunks: &mut Vec<BlockChunk>,
    ) -> Option<StoredSeries<'a>> {
        let first = from.max(self.begin()).checked_next_multiple_of(ALIGNED)?;
        let mut at = first;
        while at < self.end {
            let here = || (at == first).then(|| series_at(self.file, at).ok())?;
            if self.may_begin(at)
                && let Some(series) = here().or_else(|| found_at(self.file, at))
                && series.has_body()
                && series.end <= self.end
                && series.read(labels, chunks).is_ok()
                && labels.iter().all(|label| self.symbols.has(label.name) && self.symbols.has(label.value))
            {
                return Some(series);
            }
            at += ALIGNED;
        }
        None
    }

    /// The chunks of the series that postings and tombstones call `id`.
    #[must_use]
    pub fn chunks_of(&self, id: u64) -> Option<Vec<BlockChunk>> {
        let (mut labels, mut chunks) = (Vec::new(), Vec::new());
        let at = id.checked_mul(ALIGNED).filter(|&at| at >= self.begin() && at < self.end)?;
        let series = series_at(self.file, at).ok()?;
        series.read(&mut labels, &mut chunks).ok().map(|()| chunks)
    }

    /// Whether the bytes there are like a series: a checksum is not computed of all that is none.
    fn may_begin(&self, at: u64) -> bool {
        let bytes = usize::try_from(at).ok().and_then(|at| self.file.get(at..)).unwrap_or_default();
        let field = bytes.get(..bytes.len().min(10)).unwrap_or_default();
        let Some((length, size)) = uvarint(field) else { return false };
        let body = bytes.get(size..).unwrap_or_default();
        if length < 2 || length > body.len() as u64 {
            return false;
        }
        let mut cursor = Cursor::new(body);
        let Ok(count) = cursor.uvarint64() else { return false };
        // Two numbers each.
        count <= length / 2
            && (0..count.min(4) * 2).all(|_| cursor.uvarint32().is_ok_and(|symbol| self.symbols.has(symbol)))
    }
}
