//! The order in which the logs are read.

use super::survey::{Survey, Surveyed};
use crate::tsdb::replay_order::Role;
use crate::tsdb::{Listing, LogKind};

/// Segments of one log that Prometheus reads with one reader.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) log: usize,
    pub(super) segments: Vec<usize>,
    /// What the base takes no sample from that is as late as this, ms.
    pub(super) before: i64,
}

/// The order in which the base reads. Every start reads in this order too.
pub(super) fn order(listing: &Listing, survey: &Survey) -> Vec<Unit> {
    let checkpoint = listing.replayed_checkpoint();
    let number = checkpoint.and_then(|log| listing.logs[log].checkpoint_number());
    let of_kind = |kind: LogKind| {
        let logs = listing.logs.iter().enumerate().filter(move |(_, log)| log.kind == kind);
        logs.flat_map(|(index, log)| (0..log.segments.len()).map(move |segment| (index, segment)))
    };
    let (low, above): (Vec<_>, Vec<_>) = of_kind(LogKind::Wal).partition(|&(log, segment)| {
        Role::in_wal(listing.logs[log].segments[segment].index, number) == Role::Below
    });
    let single = |(log, segment): (usize, usize)| Unit { log, segments: vec![segment], before: i64::MAX };
    let units = |which: Vec<(usize, usize)>| which.into_iter().map(single);

    let seen = |&(log, segment): &(usize, usize)| survey[log].get(segment).and_then(Option::as_ref);
    let checkpoint: Option<Unit> = checkpoint.map(|log| {
        let segments = (0..listing.logs[log].segments.len()).collect();
        Unit { log, segments, before: i64::MAX }
    });
    let of_checkpoint: Vec<&Surveyed> =
        checkpoint.iter().flat_map(|unit| survey[unit.log].iter().flatten()).collect();
    let newest = of_checkpoint.iter().filter_map(|segment| segment.max_time).max();
    let oldest = of_checkpoint.iter().filter_map(|segment| segment.min_time).min();
    let oldest_low = low.iter().filter_map(seen).filter_map(|segment| segment.min_time).min();
    let newest_low = low.iter().filter_map(seen).filter_map(|segment| segment.max_time).max();
    let oldest_above = above.iter().filter_map(seen).filter_map(|segment| segment.min_time).min();

    let mut order: Vec<Unit> = Vec::new();
    if newest_low <= newest || oldest_low.zip(oldest).is_some_and(|(low, checkpoint)| low <= checkpoint) {
        // What the checkpoint was made of. If it is whole, it has all that is not older than its oldest sample.
        let whole = of_checkpoint.iter().all(|segment| segment.is_plain);
        let before = oldest.filter(|_| whole).unwrap_or(i64::MAX);
        order.extend(units(low).map(|unit| Unit { before, ..unit }));
        order.extend(checkpoint);
        order.extend(units(above));
    } else if oldest_above.is_none_or(|oldest| newest_low <= Some(oldest)) {
        // Written by a server that had to restart its log, and counted from 0.
        order.extend(checkpoint);
        order.extend(units(low));
        order.extend(units(above));
    } else {
        order.extend(checkpoint);
        order.extend(units(above));
        order.extend(units(low));
    }
    order.extend(of_kind(LogKind::Wbl).map(single));
    order
}
