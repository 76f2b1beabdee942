//! Verifies a block that Prometheus opens: every series of its index, every postings list, every chunk.
//!
//! Series are read in their order, one after the other; their chunks are verified by all threads, in rounds. Memory is flat: a round of
//! chunks, and what has been found. Whether the postings have exactly the series that have each label is told by two sums, one over
//! the labels of all series, one over the postings of all labels: neither needs to be kept.

use rayon::prelude::*;

use super::chunks::{Checked, ChunksOfFiles};
use super::depth::Depth;
use super::detail::BlockDetail;
use super::opened::OpenedBlock;
use super::trouble::{Trouble, Troubles};
use crate::block::{BlockChunk, Index, LabelSymbols, SeriesError, StoredSeries, postings_at, series_at};
use crate::io::Cancel;
use crate::scan::code::Code;
use crate::scan::report::{Severity, Times};

/// Chunks of a round.
const ROUND: usize = 1 << 15;

/// Chunks that one thread verifies at once.
const AT_ONCE: usize = 256;

/// Bytes of the index after which those before are taken out of memory.
const KEPT: u64 = 8 << 20;

/// What a block holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) series: u64,
    pub(crate) chunks: u64,
    /// As the chunks count them; 0 if they are not read.
    pub(crate) samples: u64,
    /// First and last time of any chunk, ms.
    pub(crate) times: Option<(i64, i64)>,
}

/// Verifies a block. `None` if it was given up.
pub(super) fn verify(
    block: &OpenedBlock,
    depth: Depth,
    cancel: &dyn Cancel,
    troubles: &mut Troubles,
) -> Option<Contents> {
    // It opened a moment ago.
    let Ok(index) = Index::open(block.index.bytes()) else { return Some(Contents::default()) };
    if !index.symbols.are_sorted() {
        let detail = BlockDetail::SymbolsUnsorted;
        troubles.push(Trouble::new(Code::DamagedBlockIndex, Severity::Damage, "index", detail));
    }
    let mut walk = Walk::new(&index, block);
    let files = ChunksOfFiles::new(&block.chunk_files, depth);
    let mut contents = Contents::default();
    let (mut round, mut next) = (Vec::new(), Vec::new());
    walk.fill(&mut round, troubles);
    while !round.is_empty() {
        if cancel.is_cancelled() {
            return None;
        }
        let mut found = Troubles::default();
        let (verified, ()) =
            rayon::join(|| verify_round(&files, &round), || walk.fill(&mut next, &mut found));
        let (samples, wrong) = verified;
        contents.samples += samples;
        troubles.extend(wrong);
        troubles.extend(found.into_kept());
        files.forget(&round);
        round.clear();
        std::mem::swap(&mut round, &mut next);
    }
    (contents.series, contents.chunks, contents.times) = (walk.series, walk.chunks, walk.times);
    let of_series = walk.sum;
    let is_whole = !troubles.has(Code::DamagedBlockIndex);
    if let Some(of_postings) = postings(&index, block, cancel, troubles)
        && is_whole
        && of_postings != of_series
    {
        let detail = BlockDetail::PostingsDiffer;
        troubles.push(Trouble::new(Code::DamagedBlockIndex, Severity::Damage, "index", detail));
    }
    Some(contents)
}

/// Samples in a round of chunks, and what is wrong with it.
fn verify_round(files: &ChunksOfFiles<'_>, round: &[BlockChunk]) -> (u64, Vec<Trouble>) {
    let parts: Vec<(u64, Vec<Trouble>)> = round
        .par_chunks(AT_ONCE)
        .map(|chunks| {
            let (mut samples, mut troubles) = (0, Vec::new());
            for chunk in chunks {
                let Checked { samples: of_this, wrong, range, .. } = files.check(*chunk);
                samples += u64::from(of_this);
                troubles.extend(wrong.into_iter().map(|detail| {
                    let file = files.path_of(chunk.file());
                    let trouble = Trouble::new(Code::DamagedBlockChunk, severity_of(&detail), &file, detail);
                    Trouble {
                        series: Some(1),
                        times: Some(Times { from: Some(chunk.min_time), to: Some(chunk.max_time) }),
                        range: range.clone(),
                        ..trouble
                    }
                }));
            }
            (samples, troubles)
        })
        .collect();
    let samples = parts.iter().map(|(samples, _)| samples).sum();
    (samples, parts.into_iter().flat_map(|(_, troubles)| troubles).collect())
}

/// Prometheus 2.54 gave chunks of late histograms a later time than their first sample has (`ToEncodedChunks`, fixed by 1ea3781699), and
/// lives with that. A chunk of quite another time is not the one that belongs there.
pub(crate) fn severity_of(detail: &BlockDetail) -> Severity {
    match detail {
        BlockDetail::ChunkTimes { indexed, found } if indexed.0 <= found.1 && found.0 <= indexed.1 => {
            Severity::Warning
        }
        // A Prometheus that is newer than this may know it; or Thanos, which has downsampled the block (0xff).
        BlockDetail::ChunkEncoding { .. } => Severity::Warning,
        _ => Severity::Damage,
    }
}

/// A number for a series that has a label. Sums of these are equal if the pairs are, but for a coincidence in 2^64.
#[inline]
fn mixed(mut number: u64) -> u64 {
    // The finalizer of SplitMix64.
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What stands for a label.
fn of_label(name: u32, value: u32) -> u64 {
    mixed((u64::from(name) << 32 | u64::from(value)).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// What stands for the list of all series.
const ALL: u64 = 0x0123_4567_89ab_cdef;

/// Goes through the series of an index.
struct Walk<'a> {
    index: &'a Index<'a>,
    block: &'a OpenedBlock,
    /// Where the next series may begin.
    at: u64,
    /// Up to where the index has been taken out of memory.
    forgotten: u64,
    labels: Vec<LabelSymbols>,
    before: Vec<LabelSymbols>,
    of_this: Vec<BlockChunk>,
    reference: u64,
    is_sorted: bool,
    series: u64,
    chunks: u64,
    times: Option<(i64, i64)>,
    sum: u64,
}

impl<'a> Walk<'a> {
    fn new(index: &'a Index<'a>, block: &'a OpenedBlock) -> Self {
        Self {
            index,
            block,
            at: index.toc.series,
            forgotten: index.symbols.end(),
            labels: Vec::new(),
            before: Vec::new(),
            of_this: Vec::new(),
            reference: 0,
            is_sorted: index.symbols.are_sorted(),
            series: 0,
            chunks: 0,
            times: None,
            sum: 0,
        }
    }

    /// The chunks of the next series, about a round of them; none at the end.
    fn fill(&mut self, round: &mut Vec<BlockChunk>, troubles: &mut Troubles) {
        while round.len() < ROUND {
            let Some(series) = self.index.next_series(self.at) else {
                self.hole(self.index.series_end(), troubles);
                self.at = u64::MAX;
                return;
            };
            self.hole(series.offset, troubles);
            self.at = series.end;
            self.take(&series, round, troubles);
            if self.at - self.forgotten.min(self.at) > KEPT {
                self.block.index.forget(self.forgotten..self.at);
                self.forgotten = self.at;
            }
        }
    }

    /// Bytes before a series that are none, and no padding.
    fn hole(&self, until: u64, troubles: &mut Troubles) {
        let begin = self.at.checked_next_multiple_of(self.index.alignment()).unwrap_or(u64::MAX);
        let place = usize::try_from(begin).ok().zip(usize::try_from(until).ok());
        let bytes = place.and_then(|(begin, until)| self.index.file().get(begin..until)).unwrap_or_default();
        if bytes.iter().all(|&byte| byte == 0) {
            return;
        }
        let error = match series_at(self.index.file(), begin) {
            Err(error) => error,
            // It has no body, or more than there is room for.
            Ok(_) => crate::block::SectionError::Size,
        };
        let detail = BlockDetail::SeriesUnreadable { error: SeriesError::Section(error) };
        let trouble = Trouble::new(Code::DamagedBlockIndex, Severity::Damage, "index", detail);
        troubles.push(trouble.at(begin..until));
    }

    fn take(&mut self, series: &StoredSeries<'_>, round: &mut Vec<BlockChunk>, troubles: &mut Troubles) {
        let range = series.offset..series.end;
        let mut wrong = |code, severity, detail| {
            let trouble = Trouble::new(code, severity, "index", detail).at(range.clone());
            troubles.push(Trouble { series: Some(1), ..trouble });
        };
        std::mem::swap(&mut self.labels, &mut self.before);
        if let Err(error) = series.read(&mut self.labels, &mut self.of_this) {
            wrong(Code::DamagedBlockIndex, Severity::Damage, BlockDetail::SeriesUnreadable { error });
        }
        self.series += 1;
        let id = self.index.id_of(series.offset);
        self.sum = self.sum.wrapping_add(mixed(ALL ^ id));
        for label in &self.labels {
            self.sum = self.sum.wrapping_add(mixed(of_label(label.name, label.value) ^ id));
            let missing =
                [label.name, label.value].into_iter().find(|&symbol| !self.index.symbols.has(symbol));
            if let Some(symbol) = missing {
                wrong(Code::DamagedBlockIndex, Severity::Damage, BlockDetail::SymbolMissing { symbol });
            }
        }
        if self.is_sorted {
            if self.labels.windows(2).any(|pair| matches!(pair, [a, b] if a.name >= b.name)) {
                wrong(Code::BlockOutOfOrder, Severity::Damage, BlockDetail::LabelsUnsorted);
            }
            if self.series > 1 && self.before >= self.labels {
                let is_repeated = self.before == self.labels;
                wrong(Code::BlockOutOfOrder, Severity::Damage, BlockDetail::SeriesUnsorted { is_repeated });
            }
        }
        if self.of_this.is_empty() {
            wrong(Code::BlockOutOfOrder, Severity::Warning, BlockDetail::NoChunks);
        }
        let mut before: Option<i64> = None;
        let (mut unsorted, mut backwards) = (None, false);
        for chunk in &self.of_this {
            if before.is_some_and(|before| before >= chunk.min_time) || chunk.max_time < chunk.min_time {
                unsorted.get_or_insert((before.unwrap_or(chunk.max_time), chunk.min_time));
            }
            before = Some(chunk.max_time);
            backwards |= chunk.reference < self.reference;
            self.reference = chunk.reference;
            let (from, to) = self.times.unwrap_or((chunk.min_time, chunk.max_time));
            self.times = Some((from.min(chunk.min_time), to.max(chunk.max_time)));
        }
        if let Some((before, begins)) = unsorted {
            wrong(Code::BlockOutOfOrder, Severity::Damage, BlockDetail::ChunksUnsorted { before, begins });
        }
        if backwards {
            wrong(Code::BlockOutOfOrder, Severity::Warning, BlockDetail::ReferencesUnsorted);
        }
        self.chunks += self.of_this.len() as u64;
        round.extend_from_slice(&self.of_this);
    }
}

/// Reads the lists of all labels: their sum, if all of them can be read.
fn postings(
    index: &Index<'_>,
    block: &OpenedBlock,
    cancel: &dyn Cancel,
    troubles: &mut Troubles,
) -> Option<u64> {
    let (mut sum, mut is_whole, mut bytes) = (0_u64, true, 0_u64);
    let mut forgotten = index.toc.postings;
    let mut name: Option<(&[u8], Option<u32>)> = None;
    let mut before: Option<(&[u8], &[u8])> = None;
    for entry in index.table.iter() {
        // They were read when it was opened.
        let Ok(entry) = entry else { return None };
        let words = || {
            let [name, value] =
                [entry.name, entry.value].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            (name, value)
        };
        let mut wrong = |detail| {
            troubles.push(Trouble::new(Code::DamagedBlockIndex, Severity::Damage, "index", detail));
            is_whole = false;
        };
        // Version 1 has no order.
        if index.version() > 1 && before.is_some_and(|before| before >= (entry.name, entry.value)) {
            let (name, value) = words();
            wrong(BlockDetail::TableUnsorted { name, value });
        }
        before = Some((entry.name, entry.value));
        let is_all = entry.name.is_empty() && entry.value.is_empty();
        let label = if is_all {
            Some(ALL)
        } else {
            let symbol = match name {
                Some((last, symbol)) if last == entry.name => symbol,
                _ => index.symbols.name_of(entry.name),
            };
            name = Some((entry.name, symbol));
            symbol.zip(index.symbols.name_of(entry.value)).map(|(name, value)| of_label(name, value))
        };
        let Some(label) = label else {
            let (name, value) = words();
            wrong(BlockDetail::PostingsUnknown { name, value });
            continue;
        };
        match postings_at(index.file(), entry.offset) {
            Err(error) => {
                let (name, value) = words();
                wrong(BlockDetail::PostingsUnreadable { name, value, error });
            }
            Ok(ids) => {
                // No two lists are at one place: whoever makes them so wants them read for ever.
                bytes = bytes.saturating_add(4 * ids.len() as u64);
                if bytes > index.file().len() as u64 || cancel.is_cancelled() {
                    wrong(BlockDetail::PostingsDiffer);
                    return None;
                }
                let (mut last, mut is_sorted) = (None, true);
                for id in ids {
                    sum = sum.wrapping_add(mixed(label ^ u64::from(id)));
                    is_sorted &= last.replace(id).is_none_or(|last| last < id);
                }
                if !is_sorted {
                    let (name, value) = words();
                    wrong(BlockDetail::PostingsUnsorted { name, value });
                }
                if entry.offset > forgotten.saturating_add(KEPT) {
                    block.index.forget(forgotten..entry.offset);
                    forgotten = entry.offset;
                }
            }
        }
    }
    is_whole.then_some(sum)
}
