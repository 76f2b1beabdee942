//! What can be read of a block: its index, and each of its chunks.

use rayon::prelude::*;

use super::kept::each_kept;
use crate::block::write::BlockStats;
use crate::block::{BlockChunk, SalvagedIndex, postings_at};
use crate::change::plan::DroppedChunks;
use crate::chunk::Encoding;
use crate::scan::blocks::chunks::{Checked, ChunksOfFiles};
use crate::scan::blocks::detail::BlockDetail;
use crate::scan::blocks::opened::ChunkFile;
use crate::scan::blocks::{Depth, is_damage};

/// Chunks of a round.
const ROUND: usize = 1 << 15;

/// Chunks that one thread verifies at once.
const AT_ONCE: usize = 256;

/// What stays of a block, and what does not.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Chunks that cannot be read.
    pub(super) dropped: Vec<DroppedChunks>,
    /// What stays.
    pub(super) stats: BlockStats,
    /// First and last time of what stays, ms.
    pub(super) times: Option<(i64, i64)>,
    /// Whether some bytes among the series are none, or it is not known where the series end.
    pub(super) loses_series: bool,
    /// Whether some chunk that stays is not what the index says.
    pub(super) has_others: bool,
    /// How many of these stay as damage.
    pub(super) kept_damage: u64,
}

/// What is wrong with a chunk so that nothing can be read of it, or only what is of another one: of quite other times than the index
/// says. Of all else Prometheus returns the samples.
pub(super) fn is_lost(wrong: &BlockDetail) -> bool {
    match wrong {
        BlockDetail::ChunkUnreadable { .. }
        | BlockDetail::ChunkOnBadPages
        | BlockDetail::ChunkFileMissing { .. }
        | BlockDetail::ChunkUndecodable { .. }
        | BlockDetail::ChunkEmpty => true,
        BlockDetail::ChunkTimes { indexed, found } => indexed.1 < found.0 || found.1 < indexed.0,
        _ => false,
    }
}

impl Walk {
    /// Reads all series, and all their chunks.
    pub(super) fn of(index: &SalvagedIndex<'_>, file: &[u8], files: &[ChunkFile]) -> Self {
        let checks = ChunksOfFiles::new(files, Depth::Samples);
        let (mut labels, mut chunks, mut round) = (Vec::new(), Vec::new(), Vec::new());
        let mut walk = Self::default();
        let (mut at, mut number) = (index.begin(), 0);
        let mut is_whole = true;
        while let Some(series) = index.next_series(at, &mut labels, &mut chunks) {
            is_whole &= are_zeros(file, at, series.offset);
            at = series.end;
            round.extend_from_slice(&chunks);
            if round.len() >= ROUND {
                walk.round(&checks, &round, &mut number);
                round.clear();
            }
        }
        walk.round(&checks, &round, &mut number);
        // Of an index as it is written since 3.7, the list of all series follows the last one.
        let ends = at.checked_next_multiple_of(4).is_some_and(|next| postings_at(file, next).is_ok());
        walk.loses_series = !(is_whole && ends);
        let (mut series, mut chunks, mut times) = (0, 0, None::<(i64, i64)>);
        let counted: Result<(), std::convert::Infallible> = each_kept(index, &walk.dropped, |kept| {
            series += 1;
            chunks += kept.chunks.len() as u64;
            for chunk in kept.chunks {
                let (from, to) = times.unwrap_or((chunk.min_time, chunk.max_time));
                times = Some((from.min(chunk.min_time), to.max(chunk.max_time)));
            }
            Ok(())
        });
        let Ok(()) = counted;
        (walk.stats.series, walk.stats.chunks, walk.times) = (series, chunks, times);
        walk
    }

    /// How many chunks are dropped.
    pub(super) fn lost_chunks(&self) -> u64 {
        self.dropped.iter().map(|run| run.count).sum()
    }

    /// Verifies chunks; `number` is that of the first.
    fn round(&mut self, checks: &ChunksOfFiles<'_>, round: &[BlockChunk], number: &mut u64) {
        let checked: Vec<Checked> = round
            .par_chunks(AT_ONCE)
            .flat_map_iter(|chunks| chunks.iter().map(|&chunk| checks.check(chunk)))
            .collect();
        checks.forget(round);
        for chunk in checked {
            let own = *number;
            *number += 1;
            if chunk.wrong.as_ref().is_some_and(is_lost) {
                match self.dropped.last_mut() {
                    Some(run) if run.first + run.count == own => run.count += 1,
                    _ => self.dropped.push(DroppedChunks { first: own, count: 1 }),
                }
                continue;
            }
            self.has_others |= chunk.wrong.is_some();
            self.kept_damage += u64::from(chunk.wrong.as_ref().is_some_and(is_damage));
            let samples = u64::from(chunk.samples);
            self.stats.samples += samples;
            match chunk.encoding {
                Some(Encoding::Xor | Encoding::Xor2) => self.stats.float_samples += samples,
                Some(_) => self.stats.histogram_samples += samples,
                None => {}
            }
        }
    }
}

/// How many chunks are what the index says. The checksum is not enough: the first chunk of each file is at the same offset.
pub(super) fn intact_chunks(index: &SalvagedIndex<'_>, files: &[ChunkFile]) -> u64 {
    let checks = ChunksOfFiles::new(files, Depth::Samples);
    let (mut labels, mut chunks) = (Vec::new(), Vec::new());
    let (mut at, mut intact) = (index.begin(), 0);
    while let Some(series) = index.next_series(at, &mut labels, &mut chunks) {
        at = series.end;
        intact += chunks.iter().filter(|&&chunk| checks.check(chunk).wrong.is_none()).count() as u64;
    }
    intact
}

/// Whether there is nothing but padding between two series.
fn are_zeros(file: &[u8], from: u64, to: u64) -> bool {
    let place = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    place.and_then(|(from, to)| file.get(from..to)).unwrap_or_default().iter().all(|&byte| byte == 0)
}
