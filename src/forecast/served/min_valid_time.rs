//! The time before which samples of the WAL are in blocks.

use super::super::Version;
use super::survey::open;
use crate::record::Record;
use crate::tsdb::{Block, Listing};
use crate::wal::{Event, SegmentReader};

/// The time before which a start takes no sample from the WAL, ms (`inOrderBlocksMaxTime`, `tsdb/db.go`; `ReadMinValidTime`,
/// `tsdb/wlog/checkpoint.go`): what is older is in blocks.
#[must_use]
pub fn min_valid_time(listing: &Listing, blocks: &[Block], version: Version) -> i64 {
    let metas = blocks.iter().filter_map(|block| block.meta.as_ref().ok());
    let of_blocks = if version.heeds_block_hints() {
        let heeded = |hint: &str| match hint {
            "from-out-of-order" => true,
            "from-stale-series" => version.compacts_stale_series(),
            "from-selected-series" => version.compacts_selected_series(),
            _ => false,
        };
        let in_order = metas.filter(|meta| !meta.hints.iter().any(|hint| heeded(hint)));
        in_order.map(|meta| meta.max_time).max()
    } else {
        metas.max_by_key(|meta| meta.min_time).map(|meta| meta.max_time)
    };
    let stored = version.reads_min_valid_time().then(|| stored_min_valid_time(listing)).flatten();
    of_blocks.into_iter().chain(stored).max().unwrap_or(i64::MIN)
}

/// What the first record of the last checkpoint says.
fn stored_min_valid_time(listing: &Listing) -> Option<i64> {
    let checkpoint = &listing.logs[listing.replayed_checkpoint()?];
    for segment in &checkpoint.segments {
        let Ok(Some((file, length))) = open(&segment.path) else { continue };
        let mut reader = SegmentReader::new(&file, length);
        if let Some(event) = reader.next() {
            let Event::Record(record) = event else { return None };
            let Record::MinValidTime(time) = Record::parse(record.data) else { return None };
            return time.min_time().ok();
        }
    }
    None
}
