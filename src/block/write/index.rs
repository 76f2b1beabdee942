//! The index of a block, version 2 or 3 (`tsdb/index/index.go`). The two differ in nothing but the byte that says which.
//!
//! In the file are, in this order: a header, all strings, all series, the ids of the series that have a label ("postings"), a
//! table of where these lists are, and the offsets of all that. Label indices ended with Prometheus 3.7.
//!
//! The lists may be larger than memory. So a list is made when it is written, from what the caller gives again: the labels of
//! all series. Each pass makes the lists of some label names, as in Prometheus.

use std::collections::HashMap;
use std::io::Write;

use foldhash::fast::FixedState;

use super::WriteError;
use super::out::Out;
use crate::block::{BlockChunk, LabelSymbols, SalvagedIndex, StoredSeries};
use crate::record::put;

/// `MagicIndex` (`tsdb/index/index.go`).
const MAGIC: u32 = 0xBAAA_D700;
/// Where the symbols begin: after the header.
const SYMBOLS: u64 = 5;
/// Series begin at multiples of it, so that 32 bits are enough for an id (`seriesByteAlign`).
const SERIES_ALIGNMENT: u64 = 16;
/// The largest index in bytes (`ErrIndexExceeds64GiB`).
const LARGEST: u64 = SERIES_ALIGNMENT * u32::MAX as u64;
/// Ids that a pass holds if no label name needs more: 64 MiB.
const IDS_PER_PASS: usize = 8 << 20;

/// The format version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IndexVersion {
    /// What Prometheus writes.
    #[default]
    V2,
    /// What Prometheus reads as 2, since 2.55.
    V3,
}

/// Gets one symbol after the other.
pub type EachSymbol<'a> = dyn FnMut(&[u8]) -> Result<(), WriteError> + 'a;

/// Gets the labels of one series after the other: the symbol numbers of name and value.
pub type EachSeries<'a> = dyn FnMut(&[(u32, u32)]) -> Result<(), WriteError> + 'a;

/// Writes an index: symbols first, then the series one by one, then all that is made of these.
///
/// It holds four bytes for each symbol and each series, and eight for each pair of a label name and its value. While it writes
/// the postings it holds another eight for each series, or 64 MiB.
#[derive(Debug)]
pub struct IndexWriter<W> {
    out: Out<W>,
    /// The length of each symbol.
    symbols: Vec<u32>,
    /// Where the series begin.
    series: u64,
    /// The ids of the series.
    ids: Vec<u32>,
    /// How many series have each label name.
    uses: HashMap<u32, usize, FixedState>,
    last_labels: Vec<(u32, u32)>,
    last_reference: u64,
    ids_per_pass: usize,
    /// A series, or an entry, in use.
    buffer: Vec<u8>,
}

impl<W: Write> IndexWriter<W> {
    /// Writes the header and the symbols. `symbols` gives them in ascending order, and is called twice: their length comes
    /// before them. Prometheus's tables begin with the empty string, which no series needs.
    ///
    /// # Errors
    /// Those of the output and of `symbols`, and if they are not in order, or 4 GiB.
    pub fn new(
        out: W,
        version: IndexVersion,
        mut symbols: impl FnMut(&mut EachSymbol<'_>) -> Result<(), WriteError>,
    ) -> Result<Self, WriteError> {
        let (mut lengths, mut size, mut last) = (Vec::new(), 4_u64, Vec::new());
        symbols(&mut |symbol| {
            let too_large = || WriteError::TooLarge("the symbols are");
            let number = u32::try_from(lengths.len()).map_err(|_| too_large())?;
            if number > 0 && symbol <= last.as_slice() {
                return Err(WriteError::SymbolOrder(number));
            }
            last.clear();
            last.extend_from_slice(symbol);
            lengths.push(u32::try_from(symbol.len()).map_err(|_| too_large())?);
            size += string_size(symbol.len() as u64);
            Ok(())
        })?;
        let too_large = |_| WriteError::TooLarge("the symbols are");
        let size = u32::try_from(size).map_err(too_large)?;

        let mut out = Out::new(out);
        out.be32(MAGIC)?;
        out.put(match version {
            IndexVersion::V2 => &[2],
            IndexVersion::V3 => &[3],
        })?;
        out.be32(size)?;
        out.begin_checksum();
        out.be32(u32::try_from(lengths.len()).map_err(too_large)?)?;
        let (mut expected, mut buffer) = (lengths.iter(), Vec::new());
        symbols(&mut |symbol| {
            if expected.next().is_none_or(|&length| symbol.len() != length as usize) {
                return Err(WriteError::Changed("symbols"));
            }
            buffer.clear();
            put::length(&mut buffer, symbol.len());
            out.put(&buffer)?;
            Ok(out.put(symbol)?)
        })?;
        if expected.next().is_some() {
            return Err(WriteError::Changed("symbols"));
        }
        out.put_checksum()?;
        Ok(Self { buffer, ..Self::of(out, lengths) })
    }

    /// Continues after the header and the symbols of an index that is there, which are written as they are, but for a header that
    /// is damaged. Series are given by [`Self::series_at`] and [`Self::stored_series`] then.
    ///
    /// # Errors
    /// Those of the output, and if the symbols are too large.
    pub fn continuing(out: W, index: &SalvagedIndex<'_>) -> Result<Self, WriteError> {
        let too_large = |_| WriteError::TooLarge("the symbols are");
        let lengths = index.symbols.iter().map(|symbol| u32::try_from(symbol.len()).map_err(too_large));
        let lengths = lengths.collect::<Result<Vec<u32>, _>>()?;
        let mut out = Out::new(out);
        out.be32(MAGIC)?;
        out.put(&[index.version])?;
        out.put(index.symbols_section())?;
        Ok(Self::of(out, lengths))
    }

    fn of(out: Out<W>, symbols: Vec<u32>) -> Self {
        Self {
            series: out.position(),
            out,
            symbols,
            ids: Vec::new(),
            uses: HashMap::default(),
            last_labels: Vec::new(),
            last_reference: 0,
            ids_per_pass: IDS_PER_PASS,
            buffer: Vec::new(),
        }
    }

    /// How many ids a pass holds if no label name needs more. Fewer need more passes; the file is the same.
    pub fn set_ids_per_pass(&mut self, ids: usize) {
        self.ids_per_pass = ids;
    }

    /// Writes a series, and returns its id. `labels` are the symbol numbers of names and values. Series are in ascending order
    /// of their labels, and so are the chunks of all series.
    ///
    /// # Errors
    /// Those of the output, and if something is not in order. Nothing of such a series is written.
    pub fn series(&mut self, labels: &[(u32, u32)], chunks: &[BlockChunk]) -> Result<u32, WriteError> {
        let number = self.ids.len() as u64;
        let last_reference = self.check(number, labels, chunks)?;
        let begin = self.out.position().next_multiple_of(SERIES_ALIGNMENT);
        let id = id_at(begin)?;
        self.encode(labels, chunks);
        self.out.pad(SERIES_ALIGNMENT)?;
        self.entry_of_series(id, labels.iter().map(|&(name, _)| name))?;
        self.last_labels.clear();
        self.last_labels.extend_from_slice(labels);
        self.last_reference = last_reference;
        Ok(id)
    }

    /// Writes a series of an index that is there, at the offset that it has there, with these of its chunks, and returns its id.
    /// Nothing is demanded of its order.
    ///
    /// # Errors
    /// Those of the output, and if there is something at this offset already, or a symbol is not there.
    pub fn series_at(
        &mut self,
        offset: u64,
        labels: &[LabelSymbols],
        chunks: &[BlockChunk],
    ) -> Result<u32, WriteError> {
        let pairs: Vec<(u32, u32)> = labels.iter().map(|label| (label.name, label.value)).collect();
        self.encode(&pairs, chunks);
        self.buffered_at(offset, labels)
    }

    /// As [`Self::series_at`], with all of its chunks, byte for byte.
    ///
    /// # Errors
    /// As those of [`Self::series_at`].
    pub fn stored_series(
        &mut self,
        series: &StoredSeries<'_>,
        labels: &[LabelSymbols],
    ) -> Result<u32, WriteError> {
        self.buffer.clear();
        self.buffer.extend_from_slice(series.body());
        self.buffered_at(series.offset, labels)
    }

    fn buffered_at(&mut self, offset: u64, labels: &[LabelSymbols]) -> Result<u32, WriteError> {
        let number = self.ids.len() as u64;
        if offset < self.out.position() || !offset.is_multiple_of(SERIES_ALIGNMENT) {
            return Err(WriteError::Place(number));
        }
        let id = id_at(offset)?;
        for symbol in labels.iter().flat_map(|label| [label.name, label.value]) {
            self.symbol_size(symbol)?;
        }
        self.out.zeros_up_to(offset)?;
        self.entry_of_series(id, labels.iter().map(|label| label.name))?;
        Ok(id)
    }

    /// Encodes a series into the buffer.
    fn encode(&mut self, labels: &[(u32, u32)], chunks: &[BlockChunk]) {
        let body = &mut self.buffer;
        body.clear();
        put::length(body, labels.len());
        for &(name, value) in labels {
            put::uvarint(body, name.into());
            put::uvarint(body, value.into());
        }
        put::length(body, chunks.len());
        let mut before = None::<&BlockChunk>;
        for chunk in chunks {
            // Differences are those of 64-bit numbers that may overflow.
            let length = chunk.max_time.wrapping_sub(chunk.min_time).cast_unsigned();
            if let Some(before) = before {
                put::uvarint(body, chunk.min_time.wrapping_sub(before.max_time).cast_unsigned());
                put::uvarint(body, length);
                put::varint(body, chunk.reference.wrapping_sub(before.reference).cast_signed());
            } else {
                put::varint(body, chunk.min_time);
                put::uvarint(body, length);
                put::uvarint(body, chunk.reference);
            }
            before = Some(chunk);
        }
    }

    /// Writes the series in the buffer.
    fn entry_of_series(&mut self, id: u32, names: impl Iterator<Item = u32>) -> Result<(), WriteError> {
        let mut length = Vec::with_capacity(10);
        put::length(&mut length, self.buffer.len());
        self.out.put(&length)?;
        self.out.begin_checksum();
        self.out.put(&self.buffer)?;
        self.out.put_checksum()?;
        for name in names {
            *self.uses.entry(name).or_default() += 1;
        }
        self.ids.push(id);
        Ok(())
    }

    /// What `AddSeries` demands of a series (`tsdb/index/index.go`). Returns the last ref of a chunk.
    fn check(&self, number: u64, labels: &[(u32, u32)], chunks: &[BlockChunk]) -> Result<u64, WriteError> {
        // Symbols are in order, so their numbers compare as they do.
        if labels <= self.last_labels.as_slice() {
            return Err(WriteError::SeriesOrder(number));
        }
        if !labels.is_sorted_by(|(name, _), (next, _)| name < next) {
            return Err(WriteError::LabelOrder(number));
        }
        for &(name, value) in labels {
            self.symbol_size(name)?;
            self.symbol_size(value)?;
        }
        let mut last_reference = self.last_reference;
        let mut last_time = None;
        for chunk in chunks {
            if chunk.reference < last_reference {
                return Err(WriteError::ChunkReferences(number));
            }
            if last_time.is_some_and(|last| chunk.min_time <= last) || chunk.max_time < chunk.min_time {
                return Err(WriteError::ChunkTimes(number));
            }
            (last_reference, last_time) = (chunk.reference, Some(chunk.max_time));
        }
        Ok(last_reference)
    }

    /// Writes the postings, their table, and the offsets of all parts. `walk` gives the labels of all series again, in the same
    /// order, as often as it is called. `symbol` appends the symbol of a number.
    ///
    /// # Errors
    /// Those of the output, of `walk` and of `symbol`; if these give something else than what is written; if a part is too large.
    pub fn finish(
        mut self,
        mut walk: impl FnMut(&mut EachSeries<'_>) -> Result<(), WriteError>,
        symbol: impl FnMut(u32, &mut Vec<u8>) -> Result<(), WriteError>,
    ) -> Result<W, WriteError> {
        let end_of_series = self.out.position();
        // The offset of the postings is that of the padding before them.
        self.out.pad(4)?;
        let first_list = self.out.position();
        // All series have the empty name and value.
        list(&mut self.out, self.ids.len(), self.ids.iter().copied())?;

        let mut names: Vec<(u32, usize)> = std::mem::take(&mut self.uses).into_iter().collect();
        names.sort_unstable();
        let mut lists = Vec::new();
        let mut rest = names.as_slice();
        while !rest.is_empty() {
            let mut ids = 0_usize;
            let fit = rest.iter().take_while(|(_, uses)| {
                let is_first = ids == 0;
                ids += uses;
                is_first || ids <= self.ids_per_pass
            });
            let (pass, after) = rest.split_at(fit.count());
            self.pass(pass, &mut walk, &mut lists)?;
            rest = after;
        }

        let table = self.out.position();
        self.table(first_list, &lists, symbol)?;
        self.out.begin_checksum();
        // Without label indices, they end where they begin: their lists after the series, their table at that of the postings.
        for offset in [SYMBOLS, self.series, end_of_series, table, end_of_series, table] {
            self.out.put(&offset.to_be_bytes())?;
        }
        self.out.put_checksum()?;
        if self.out.position() > LARGEST {
            return Err(WriteError::TooLarge("the index is"));
        }
        Ok(self.out.finish()?)
    }

    /// Writes the lists of some label names, each with how many series have it.
    fn pass(
        &mut self,
        names: &[(u32, usize)],
        walk: &mut impl FnMut(&mut EachSeries<'_>) -> Result<(), WriteError>,
        lists: &mut Vec<Lists>,
    ) -> Result<(), WriteError> {
        let changed = || WriteError::Changed("series");
        // The entries of a name are in one piece: each the value, and below it the id, so that they are sorted by both.
        let mut entries = vec![0; names.iter().map(|(_, uses)| uses).sum()];
        let mut pieces: HashMap<u32, std::slice::IterMut<'_, u64>, FixedState> = HashMap::default();
        let mut rest = entries.as_mut_slice();
        for &(name, uses) in names {
            let (piece, after) = rest.split_at_mut(uses);
            pieces.insert(name, piece.iter_mut());
            rest = after;
        }
        let mut ids = self.ids.iter();
        walk(&mut |labels| {
            let id = *ids.next().ok_or_else(changed)?;
            for (name, value) in labels {
                if let Some(piece) = pieces.get_mut(name) {
                    *piece.next().ok_or_else(changed)? = u64::from(*value) << 32 | u64::from(id);
                }
            }
            Ok(())
        })?;
        if ids.next().is_some() || pieces.values().any(|piece| piece.len() > 0) {
            return Err(changed());
        }

        let mut rest = entries.as_mut_slice();
        for &(name, uses) in names {
            let (piece, after) = rest.split_at_mut(uses);
            piece.sort_unstable();
            let mut values = Vec::new();
            for of_value in piece.chunk_by(|a, b| a >> 32 == b >> 32) {
                list(&mut self.out, of_value.len(), of_value.iter().map(|&entry| low(entry)))?;
                let value = of_value.first().map_or(0, |&entry| low(entry >> 32));
                self.symbol_size(value)?;
                let too_large = |_| WriteError::TooLarge("a list of series is");
                values.push((value, u32::try_from(of_value.len()).map_err(too_large)?));
            }
            lists.push(Lists { name, values });
            rest = after;
        }
        Ok(())
    }

    /// Writes the table of where the lists are. They have no gaps between them, so their lengths say so.
    fn table(
        &mut self,
        first_list: u64,
        lists: &[Lists],
        mut symbol: impl FnMut(u32, &mut Vec<u8>) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let after_all = first_list + list_size(self.ids.len() as u64);
        let empty = string_size(0);
        let (mut count, mut size) = (1_u64, 4 + 1 + empty + empty + varint_size(first_list));
        let mut at = after_all;
        for of_name in lists {
            let name = self.symbol_size(of_name.name)?;
            for &(value, ids) in &of_name.values {
                count += 1;
                size += 1 + name + self.symbol_size(value)? + varint_size(at);
                at += list_size(ids.into());
            }
        }
        let too_large = |_| WriteError::TooLarge("the table of postings is");
        self.out.be32(u32::try_from(size).map_err(too_large)?)?;
        self.out.begin_checksum();
        let begin = self.out.position();
        self.out.be32(u32::try_from(count).map_err(too_large)?)?;
        // The keys of an entry are two strings.
        self.entry(&[], &[], first_list)?;
        let (mut at, mut name, mut text) = (after_all, Vec::new(), Vec::new());
        for of_name in lists {
            name.clear();
            symbol(of_name.name, &mut name)?;
            for &(value, ids) in &of_name.values {
                text.clear();
                symbol(value, &mut text)?;
                self.entry(&name, &text, at)?;
                at += list_size(ids.into());
            }
        }
        if self.out.position() - begin != size {
            return Err(WriteError::Changed("symbols"));
        }
        Ok(self.out.put_checksum()?)
    }

    fn entry(&mut self, name: &[u8], value: &[u8], at: u64) -> Result<(), WriteError> {
        let entry = &mut self.buffer;
        entry.clear();
        put::uvarint(entry, 2);
        put::string(entry, name);
        put::string(entry, value);
        put::uvarint(entry, at);
        Ok(self.out.put(entry)?)
    }

    /// How many bytes the symbol of a number has, with its length.
    fn symbol_size(&self, number: u32) -> Result<u64, WriteError> {
        let length = self.symbols.get(number as usize).ok_or(WriteError::NoSymbol(number))?;
        Ok(string_size((*length).into()))
    }
}

/// The lists of a label name, as they are written.
#[derive(Debug)]
struct Lists {
    name: u32,
    /// Symbol numbers of the values, and how many series have each.
    values: Vec<(u32, u32)>,
}

/// Writes a list of ids.
fn list<W: Write>(out: &mut Out<W>, count: usize, ids: impl Iterator<Item = u32>) -> Result<(), WriteError> {
    let too_large = |_| WriteError::TooLarge("a list of series is");
    let size = list_size(count as u64) - 8;
    out.be32(u32::try_from(size).map_err(too_large)?)?;
    out.begin_checksum();
    out.be32(u32::try_from(count).map_err(too_large)?)?;
    for id in ids {
        out.be32(id)?;
    }
    out.put_checksum()?;
    if out.position() > LARGEST { Err(WriteError::TooLarge("the index is")) } else { Ok(()) }
}

/// The bytes of a list: length, count, ids, checksum. It is a multiple of four, as its place.
const fn list_size(count: u64) -> u64 {
    4 + 4 + 4 * count + 4
}

const fn string_size(length: u64) -> u64 {
    varint_size(length) + length
}

/// How many bytes a varint has.
const fn varint_size(value: u64) -> u64 {
    match (u64::BITS - value.leading_zeros()).div_ceil(7) {
        0 => 1,
        bytes => bytes as u64,
    }
}

/// The id of the series that begins at `offset`.
fn id_at(offset: u64) -> Result<u32, WriteError> {
    u32::try_from(offset / SERIES_ALIGNMENT).map_err(|_| WriteError::TooLarge("the index is"))
}

#[expect(clippy::cast_possible_truncation, reason = "that is what is asked")]
const fn low(entry: u64) -> u32 {
    entry as u32
}
