//! Verifies chunks of a block.

use std::ops::Range;

use super::depth::Depth;
use super::detail::BlockDetail;
use super::opened::ChunkFile;
use crate::block::{BlockChunk, StoredChunk, StoredChunkError, chunk_at, framed_chunk_at};
use crate::chunk::{Encoding, each_sample, is_from_to};

/// The files of chunks of a block, in the order of their names.
pub(crate) struct ChunksOfFiles<'a> {
    files: &'a [ChunkFile],
    depth: Depth,
}

/// What came of a chunk.
#[derive(Default)]
pub(crate) struct Checked {
    /// Samples that it says it has; 0 if it is not read.
    pub(crate) samples: u16,
    pub(crate) wrong: Option<BlockDetail>,
    /// How its samples are encoded, if it is read and that is known.
    pub(crate) encoding: Option<Encoding>,
    /// Where it is in its file, if it is known.
    pub(crate) range: Option<Range<u64>>,
}

impl<'a> ChunksOfFiles<'a> {
    pub(crate) fn new(files: &'a [ChunkFile], depth: Depth) -> Self {
        Self { files, depth }
    }

    /// The path below the block of the file at that place, from 0 on.
    pub(crate) fn path_of(&self, place: u64) -> String {
        let file = usize::try_from(place).ok().and_then(|place| self.files.get(place));
        match file {
            Some(file) => format!("chunks/{}", file.name),
            None => format!("chunks/{:06}", place.saturating_add(1)),
        }
    }

    /// Takes the chunks of a round out of memory.
    pub(crate) fn forget(&self, round: &[BlockChunk]) {
        if self.depth == Depth::Structure {
            return;
        }
        for of_file in round.chunk_by(|a, b| a.file() == b.file()) {
            let file = of_file.first().and_then(|chunk| usize::try_from(chunk.file()).ok());
            let Some(file) = file.and_then(|file| self.files.get(file)) else { continue };
            let from = of_file.iter().map(|chunk| chunk.offset()).min().unwrap_or(0);
            let to = of_file.iter().map(|chunk| chunk.offset()).max().unwrap_or(0);
            file.mapped.forget(from..to);
        }
    }

    /// Verifies a chunk as the index has it.
    pub(crate) fn check(&self, chunk: BlockChunk) -> Checked {
        let begin = chunk.offset();
        let Some(file) = usize::try_from(chunk.file()).ok().and_then(|file| self.files.get(file)) else {
            let (place, files) = (chunk.file().saturating_add(1), self.files.len() as u64);
            let wrong = Some(BlockDetail::ChunkFileMissing { place, files });
            return Checked { wrong, ..Checked::default() };
        };
        let bytes = file.mapped.bytes();
        if self.depth == Depth::Structure {
            // Not even its length is read.
            let (required, available) = (begin + 5, bytes.len() as u64);
            let error = StoredChunkError::NoLength { required, available };
            let wrong = (required > available).then_some(BlockDetail::ChunkUnreadable { error });
            return Checked { wrong, range: Some(begin..available.max(begin)), ..Checked::default() };
        }
        if file.is_unreadable(&(begin..begin + 5)) {
            let range = Some(begin..begin + 5);
            return Checked { wrong: Some(BlockDetail::ChunkOnBadPages), range, ..Checked::default() };
        }
        if let Some(bad) = file.unreadable.as_ref().filter(|bad| !bad.ranges.is_empty()) {
            let whole = framed_range(bytes, begin, &bad.ranges);
            if whole.as_ref().is_none_or(|range| file.is_unreadable(range)) {
                let wrong = Some(BlockDetail::ChunkOnBadPages);
                return Checked { wrong, range: whole, ..Checked::default() };
            }
        }
        match chunk_at(bytes, begin) {
            Err(error) => {
                let end = match error {
                    StoredChunkError::Checksum { end, .. } => end,
                    _ => bytes.len() as u64,
                };
                let range = Some(begin..end.max(begin));
                Checked { wrong: Some(BlockDetail::ChunkUnreadable { error }), range, ..Checked::default() }
            }
            Ok(stored) => {
                let encoding = Encoding::of(stored.encoding);
                let samples = encoding.and_then(|encoding| encoding.count(stored.data)).unwrap_or(0);
                let wrong = match encoding {
                    None => Some(BlockDetail::ChunkEncoding { encoding: stored.encoding }),
                    Some(encoding) if self.depth == Depth::Samples => decode(encoding, &stored, chunk),
                    Some(_) => None,
                };
                Checked { samples, wrong, encoding, range: Some(begin..stored.end) }
            }
        }
    }
}

impl ChunkFile {
    fn is_unreadable(&self, range: &Range<u64>) -> bool {
        let bad = self.unreadable.iter().flat_map(|bad| &bad.ranges);
        bad.into_iter().any(|bad| bad.start < range.end && range.start < bad.end)
    }
}

/// Where a chunk is, whose length can be read. Of a file with bad pages only what is before them may be looked at.
fn framed_range(bytes: &[u8], begin: u64, bad: &[Range<u64>]) -> Option<Range<u64>> {
    let next = bad.iter().map(|bad| bad.start).find(|&start| start >= begin);
    let readable =
        usize::try_from(next.unwrap_or(u64::MAX)).map_or(bytes, |end| bytes.get(..end).unwrap_or(bytes));
    framed_chunk_at(readable, begin).ok().map(|(chunk, _)| begin..chunk.end)
}

/// What is wrong with the samples of a chunk.
fn decode(encoding: Encoding, stored: &StoredChunk<'_>, indexed: BlockChunk) -> Option<BlockDetail> {
    if is_from_to(encoding, stored.data, (indexed.min_time, indexed.max_time)) == Some(true) {
        return None;
    }
    let (mut first, mut last, mut backwards) = (None, None::<i64>, None);
    let decoded = each_sample(encoding, stored.data, |sample| {
        let t = sample.t();
        if last.is_some_and(|last| last >= t) {
            backwards.get_or_insert(t);
        }
        first.get_or_insert(t);
        last = Some(t);
    });
    let rest = match decoded {
        Err(error) => return Some(BlockDetail::ChunkUndecodable { error }),
        Ok(rest) => rest,
    };
    let (Some(first), Some(last)) = (first, last) else { return Some(BlockDetail::ChunkEmpty) };
    if let Some(time) = backwards {
        return Some(BlockDetail::ChunkOrder { time });
    }
    let indexed = (indexed.min_time, indexed.max_time);
    if (first, last) != indexed {
        return Some(BlockDetail::ChunkTimes { indexed, found: (first, last) });
    }
    (!rest.is_padding()).then_some(BlockDetail::ChunkSurplus { bits: rest.bits })
}
