//! Records put together over pages that do not follow one another.

use std::collections::HashMap;

use super::out_of_step::has_foreign_part;
use crate::record::{self, EntryKind, Record as Decoded, RecordType, SeriesUse, each_use};
use crate::scan::context::text_is_plausible;
use crate::wal::compress::{self, Unpacker};
use crate::wal::layout::HeadByte;
use crate::wal::{Compression, Record};

/// For how many entries a decoder is out of step at the most that is looked at.
const LOOKED_AT: usize = 3;

/// Entries of one record that are looked at, at the most.
const MOST_USES: usize = 1 << 20;

/// Bytes that a stored one unpacks to at the most, of records that are put together.
const MOST_RATIO: usize = 64;

/// Beyond what any server hands out.
const HIGHEST_REF: u64 = 1 << 40;

/// How far apart times within one record are at the most, ms.
const DAYS: u64 = 30 * 24 * 60 * 60 * 1000;

/// From here on fragments are not believed to belong together.
pub(super) const UNBELIEVABLE: u32 = 3;

/// How oddly the entries of a record step at each of its joints: 0 not at all. Of a compressed record nothing can be said.
pub(in crate::scan) fn odd_joints(record: &Record<'_>) -> Vec<u32> {
    if record.compression != Compression::None {
        return Vec::new();
    }
    let joints: Vec<usize> = record.joints().collect();
    if has_foreign_part(record.data, &joints) {
        return vec![UNBELIEVABLE; joints.len()];
    }
    steps_at(record.data, &joints)
}

fn steps_at(data: &[u8], joints: &[usize]) -> Vec<u32> {
    if !RecordType::of(data).map(RecordType::kind).is_some_and(has_an_order) {
        return Vec::new();
    }
    let mut uses = Vec::new();
    each_use(data, |now| {
        if uses.len() < MOST_USES {
            uses.push(now);
        }
    });
    let places: Vec<usize> =
        joints.iter().map(|&joint| uses.partition_point(|now| now.end <= joint)).collect();
    let is_near = |at: usize| places.iter().any(|&place| at + 1 >= place && at < place + LOOKED_AT);
    let mut kinds: HashMap<(i128, bool), usize> = HashMap::new();
    // Steps elsewhere: all, to other times, back, and far ahead.
    let (mut all, mut times, mut backs, mut aheads) = (0_usize, 0_usize, 0_usize, 0_usize);
    for (at, pair) in uses.windows(2).enumerate() {
        if !is_near(at) {
            let (step, same_time) = kind(pair[0], pair[1]);
            *kinds.entry((step, same_time)).or_default() += 1;
            all += 1;
            times += usize::from(!same_time);
            backs += usize::from(same_time && step <= 0);
            aheads += usize::from(same_time && step > 2);
        }
    }
    let oddness = |a: SeriesUse, b: SeriesUse| {
        if kinds.contains_key(&kind(a, b)) {
            return 0;
        }
        let (step, same_time) = kind(a, b);
        // In a record that is in no order nothing is odd.
        let is_usual = |count: usize| count * 50 > all;
        match (same_time, step > 0) {
            (true, false) if step < 0 && is_usual(backs) => 0,
            (true, true) if is_usual(aheads) => 0,
            (true, true) if step <= 2 => 0,
            (true, true) => 1,
            (true, false) if step == 0 => 3,
            (true, false) => 2,
            // Several scrapes in one record: the next begins again.
            (false, _) if times > 0 && b.time > a.time => 1,
            (false, _) => 3,
        }
    };
    let at_joint = |&entry: &usize| {
        let around = uses.get(entry.saturating_sub(1)..(entry + LOOKED_AT).min(uses.len()));
        around.unwrap_or_default().windows(2).map(|pair| oddness(pair[0], pair[1])).max().unwrap_or(0)
    };
    let is_foreign = foreign_parts(&uses, &places);
    let of_part = |at: usize| if is_foreign.get(at).copied().unwrap_or(false) { 2 } else { 0 };
    places
        .iter()
        .enumerate()
        .map(|(at, place)| at_joint(place).max(of_part(at)).max(of_part(at + 1)))
        .collect()
}

/// Which parts of a record between its joints are in no order, where the others are.
fn foreign_parts(uses: &[SeriesUse], places: &[usize]) -> Vec<bool> {
    const ENOUGH: usize = 10;
    let bounds: Vec<usize> = std::iter::once(0).chain(places.iter().copied()).chain([uses.len()]).collect();
    let part = |bounds: &[usize]| {
        let part = uses.get(bounds[0]..bounds[1]).unwrap_or_default();
        let is_bad = |pair: &&[SeriesUse]| {
            let (step, same_time) = kind(pair[0], pair[1]);
            step <= 0 || !same_time
        };
        (part.windows(2).count(), part.windows(2).filter(is_bad).count())
    };
    let parts: Vec<(usize, usize)> = bounds.windows(2).map(part).collect();
    let (all, bad) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let is_foreign = |&(steps, of_these): &(usize, usize)| {
        let (others, of_others) = (all - steps, bad - of_these);
        steps >= ENOUGH && others >= ENOUGH && of_these * 10 > steps && of_others * 50 <= others
    };
    parts.iter().map(is_foreign).collect()
}

/// Whether entries of such records mostly have rising refs.
fn has_an_order(kind: EntryKind) -> bool {
    match kind {
        EntryKind::Series | EntryKind::Samples | EntryKind::Histograms | EntryKind::FloatHistograms => true,
        EntryKind::Exemplars
        | EntryKind::Tombstones
        | EntryKind::Metadata
        | EntryKind::MmapMarkers
        | EntryKind::MinValidTime => false,
    }
}

/// By how much the ref rises, and whether at the same time.
fn kind(a: SeriesUse, b: SeriesUse) -> (i128, bool) {
    (i128::from(b.series_ref) - i128::from(a.series_ref), a.time == b.time)
}

/// Whether fragments are one record, and how odd that would be: none if they are not.
pub(super) fn verify(parts: &[(HeadByte, &[u8])], unpacker: &mut Unpacker) -> Option<u32> {
    let (last, _) = parts.last()?;
    let compression = last.compression();
    if parts.iter().any(|(head, _)| head.compression() != compression || !head.is_canonical()) {
        return None;
    }
    let mut stored = Vec::new();
    let mut joints = Vec::new();
    for (_, data) in parts {
        stored.extend_from_slice(data);
        joints.push(stored.len());
    }
    joints.pop();
    // What unpacks to far more is not looked at: it would have to be unpacked for each trial.
    if compress::claims(compression, &stored) > stored.len().saturating_mul(MOST_RATIO) as u64 {
        return None;
    }
    let data = unpacker.unpack(compression, &stored).ok()?;
    let summary = record::summarize(data);
    if summary.error.is_some() || summary.overlong {
        return None;
    }
    if summary.record_type.is_none() {
        return (compression == Compression::Zstd).then_some(0);
    }
    if compression == Compression::Zstd {
        return Some(0);
    }
    let is_sane = summary.max_ref.is_none_or(|max| max < HIGHEST_REF)
        && summary.min_time.zip(summary.max_time).is_none_or(|(min, max)| max.abs_diff(min) < DAYS)
        && summary.unknown_schemas == 0;
    if !is_sane {
        return None;
    }
    let decoded = Decoded::parse(data);
    if !text_is_plausible(&decoded) {
        return None;
    }
    match decoded {
        Decoded::Series(series) if series.entries().flatten().any(|entry| entry.series_ref == 0) => {
            return None;
        }
        // It has no times, and its refs follow no order.
        Decoded::Metadata(_) => return Some(0),
        Decoded::Series(_)
        | Decoded::Samples(_)
        | Decoded::Histograms(_)
        | Decoded::FloatHistograms(_)
        | Decoded::Exemplars(_)
        | Decoded::Tombstones(_)
        | Decoded::MmapMarkers(_)
        | Decoded::MinValidTime(_)
        | Decoded::Unknown(_) => {}
    }
    if compression != Compression::None {
        return Some(0);
    }
    if has_foreign_part(data, &joints) {
        return None;
    }
    let odd = steps_at(data, &joints).into_iter().max().unwrap_or(0);
    (odd < UNBELIEVABLE).then_some(odd)
}
