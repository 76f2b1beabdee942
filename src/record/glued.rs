//! Records that a writer has glued together.
//!
//! Up to Prometheus 3.14 an agent whose write failed kept the bytes of that record in its buffer, and the next record was
//! appended to them and written, both as one with a right checksum (prometheus#19699; Grafana Alloy does the same).
//! Decoded, the first record runs on into the bytes of the second. As long as the disk was full, more than one may have
//! been kept so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::select::is_canonical;
use super::uses::each_use_while;
use super::{EntryEncoding, EntryKind, RecordType, ReplayedFrom, each_use};

/// Bytes of a record that is looked at, at the most: no agent writes so many at once.
const MOST: usize = 16 << 20;

/// How many times its bytes a record is decoded, at the most: hostile bytes may look like the beginning of a record
/// everywhere.
const MOST_TIMES: usize = 8;

/// What the look at one beginning costs besides the bytes that are decoded.
const EACH: usize = 64;

/// Bytes in which the first entry of a record has to end.
const WINDOW: usize = 16 << 10;

/// Refs from which on nobody hands any out (`tsdb/chunks/chunks.go`, `NewHeadChunkRef`).
const HIGHEST_REF: u64 = 1 << 40;

/// Time between entries of records that were written one after the other, at the most, ms.
const YEAR: u64 = 365 * 24 * 60 * 60 * 1000;

/// Where the records end that are glued together in `record`, which does not decode to its end as one: all of them, so the
/// last end is that of `record`. None if they are not two or more, each of a known type, with entries, and byte for byte as an
/// encoder writes it; or if there is more than one way to see it so; or if their refs or times go together with nothing.
#[must_use]
pub fn glued(record: &[u8]) -> Option<Vec<usize>> {
    if record.len() > MOST {
        return None;
    }
    let mut work = Work(record.len() * MOST_TIMES + 16 * EACH);
    let ends = ends_by_start(record, &mut work)?;
    let parts = only_way(record, &ends, &mut work)?;
    (parts.len() > 1 && go_together(record, &parts)).then_some(parts)
}

/// Bytes to one place that looks like the beginning of a record, at the least, beyond the first thousand.
const SELDOM: usize = 256;

/// What may still be done.
struct Work(usize);

impl Work {
    fn take(&mut self, cost: usize) -> Option<()> {
        self.0 = self.0.checked_sub(cost)?;
        Some(())
    }
}

/// From each place where a record may begin, the places where it may end: after one of its entries, with the end of the
/// bytes or the type of another record there.
fn ends_by_start(record: &[u8], work: &mut Work) -> Option<BTreeMap<usize, Vec<usize>>> {
    let mut found = BTreeMap::new();
    let mut starts = BTreeSet::from([0]);
    let mut most = record.len() / SELDOM + 1000;
    while let Some(start) = starts.pop_first() {
        let part = record.get(start..)?;
        if !begins(part, work)? {
            continue;
        }
        let mut ends = Vec::new();
        let mut seen = 0;
        each_use_while(part, |entry| {
            seen = entry.end;
            if part.get(seen..).is_none_or(|rest| rest.is_empty() || may_begin(rest)) {
                ends.push(start + seen);
            }
            ends.len() < most
        });
        most = most.checked_sub(ends.len()).filter(|&most| most > 0)?;
        // The entry that does not decode may be what is left.
        work.take(part.len())?;
        starts.extend(ends.iter().filter(|&&end| end < record.len()));
        found.insert(start, ends);
    }
    Some(found)
}

/// Whether a record may begin here, at the first look. The first entry of most types says twice, or in one way alone, what it
/// says.
fn may_begin(part: &[u8]) -> bool {
    let zeros =
        |range: Range<usize>| part.get(range).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0));
    let Some(record_type) = RecordType::of(part) else { return false };
    match record_type.kind() {
        EntryKind::MinValidTime => false,
        EntryKind::Metadata => true,
        EntryKind::Series | EntryKind::Tombstones | EntryKind::MmapMarkers => zeros(1..4),
        EntryKind::Samples | EntryKind::Exemplars | EntryKind::Histograms | EntryKind::FloatHistograms => {
            match record_type.encoding() {
                // A ref and a time, from which the first entry differs by nothing.
                EntryEncoding::V1 => zeros(1..4) && zeros(17..19),
                EntryEncoding::V2 => true,
            }
        }
    }
}

/// Whether a record may begin here: its first entry is written as an encoder writes it.
fn begins(part: &[u8], work: &mut Work) -> Option<bool> {
    work.take(EACH)?;
    if !may_begin(part) {
        return Some(false);
    }
    let mut end = None;
    each_use_while(part.get(..WINDOW).unwrap_or(part), |entry| {
        end = Some(entry.end);
        false
    });
    Some(end.and_then(|end| part.get(..end)).is_some_and(is_canonical))
}

/// The ends of all records on the way from the beginning to the end, if there is exactly one way.
fn only_way(record: &[u8], ends: &BTreeMap<usize, Vec<usize>>, work: &mut Work) -> Option<Vec<usize>> {
    // From where there is a way to the end: how many, two standing for more, and where its first record ends.
    let mut ways = BTreeMap::from([(record.len(), (1, record.len()))]);
    for (&start, ends) in ends.iter().rev() {
        let (mut count, mut first) = (0, 0);
        for end in ends {
            let Some(&(more, _)) = ways.get(end) else { continue };
            work.take(end - start)?;
            if record.get(start..*end).is_some_and(is_canonical) {
                (count, first) = (count + more, *end);
            }
            if count > 1 {
                break;
            }
        }
        if count > 0 {
            ways.insert(start, (count.min(2), first));
        }
    }
    let mut parts = Vec::new();
    let mut at = 0;
    while at < record.len() {
        let &(1, end) = ways.get(&at)? else { return None };
        parts.push(end);
        at = end;
    }
    Some(parts)
}

/// Whether records that end there can be of one log, written one after the other.
fn go_together(record: &[u8], ends: &[usize]) -> bool {
    let starts = [0].into_iter().chain(ends.iter().copied());
    let parts: Vec<&[u8]> = starts.zip(ends).filter_map(|(start, &end)| record.get(start..end)).collect();
    let types = || parts.iter().filter_map(|part| RecordType::of(part));
    let are_of = |log| types().any(|record_type| record_type.kind().replayed_from() == log);
    if are_of(ReplayedFrom::Wbl) && are_of(ReplayedFrom::Wal) {
        return false;
    }
    let (mut min, mut max, mut are_handed_out) = (i64::MAX, i64::MIN, true);
    for part in parts {
        each_use(part, |entry| {
            are_handed_out &= entry.series_ref < HIGHEST_REF;
            if let Some(t) = entry.time {
                (min, max) = (min.min(t), max.max(t));
            }
        });
    }
    are_handed_out && (min > max || max.abs_diff(min) < YEAR)
}
