//! What stays of an index: its series, each with the chunks that are not dropped.

use crate::block::{BlockChunk, LabelSymbols, SalvagedIndex, StoredSeries};
use crate::change::plan::DroppedChunks;

/// A series that stays.
pub(super) struct KeptSeries<'a, 's> {
    pub(super) stored: StoredSeries<'s>,
    pub(super) labels: &'a [LabelSymbols],
    pub(super) chunks: &'a [BlockChunk],
    /// Whether it has lost some of its chunks.
    pub(super) is_changed: bool,
}

/// Gives each series that keeps a chunk once those in `dropped` are gone, in order.
pub(super) fn each_kept<'s, E>(
    index: &SalvagedIndex<'s>,
    dropped: &[DroppedChunks],
    mut each: impl FnMut(KeptSeries<'_, 's>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut labels, mut chunks) = (Vec::new(), Vec::new());
    let (mut at, mut number) = (index.begin(), 0_u64);
    let mut runs = dropped.iter().peekable();
    while let Some(stored) = index.next_series(at, &mut labels, &mut chunks) {
        at = stored.end;
        let all = chunks.len();
        chunks.retain(|_| {
            let own = number;
            number += 1;
            while runs.next_if(|run| run.first.saturating_add(run.count) <= own).is_some() {}
            runs.peek().is_none_or(|run| own < run.first)
        });
        if !chunks.is_empty() {
            let is_changed = chunks.len() != all;
            each(KeptSeries { stored, labels: &labels, chunks: &chunks, is_changed })?;
        }
    }
    Ok(())
}
