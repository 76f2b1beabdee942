//! Records put together over pages that do not follow one another.

use std::collections::HashMap;

use super::out_of_step::{has_foreign_part, is_one_scrape};
use crate::record::{self, EntryKind, Record as Decoded, RecordType, SeriesUse, Summary, each_use};
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

/// What happens at one in so many steps is usual in a record.
const USUAL: u64 = 50;

/// Steps of which something can be said.
const ENOUGH: u64 = 10;

/// From here on fragments are not believed to belong together.
pub(super) const UNBELIEVABLE: u32 = 3;

/// Fragments of a record that is summarized up to each of them.
const MOST_SUMMARIZED: usize = 16;

/// Whether the entries of a record step oddly at a joint: more so than 1. `whole` is what it says in all.
pub(in crate::scan) fn has_odd_joint(record: &Record<'_>, whole: &Summary) -> bool {
    whole.falls > 0
        && record.compression == Compression::None
        && !is_in_no_order(record, whole)
        && odd_joints(record).into_iter().any(|odd| odd > 1)
}

/// Whether the refs of a record, all at one time and none twice in a row, fall everywhere, so that they are odd nowhere
/// ([`steps_at`] would find that out, entry by entry).
fn is_in_no_order(record: &Record<'_>, whole: &Summary) -> bool {
    let is_ordered = RecordType::of(record.data).map(RecordType::kind).is_some_and(has_an_order);
    if !is_ordered
        || !is_one_scrape(whole)
        || whole.entries >= MOST_USES as u64
        || record.fragments.len() > MOST_SUMMARIZED
    {
        return false;
    }
    // Entries and falls up to each joint, and in all.
    let mut bounds = vec![(0, 0)];
    bounds.extend(record.joints().map(|joint| {
        let before = record::summarize(record.data.get(..joint).unwrap_or_default());
        (before.entries, before.falls)
    }));
    bounds.push((whole.entries, whole.falls));
    let near = bounds.len() as u64 * (LOOKED_AT as u64 + 1);
    let fall_often = whole.falls.saturating_sub(near) * USUAL > whole.entries;
    // At the least: one may be from the part before to this one.
    let falls = |part: &[(u64, u64)]| (part[1].1 - part[0].1).saturating_sub(1);
    let in_all: u64 = bounds.windows(2).map(falls).sum();
    let others_fall = |part: &[(u64, u64)]| {
        let others = whole.entries - (part[1].0 - part[0].0);
        others < ENOUGH || (in_all - falls(part)) * USUAL > others
    };
    fall_often && bounds.windows(2).all(others_fall)
}

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
        let is_usual = |count: usize| (count as u64) * USUAL > all as u64;
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
    let bounds: Vec<usize> = std::iter::once(0).chain(places.iter().copied()).chain([uses.len()]).collect();
    let part = |bounds: &[usize]| {
        let part = uses.get(bounds[0]..bounds[1]).unwrap_or_default();
        let is_bad = |pair: &&[SeriesUse]| {
            let (step, same_time) = kind(pair[0], pair[1]);
            step <= 0 || !same_time
        };
        (part.windows(2).count() as u64, part.windows(2).filter(is_bad).count() as u64)
    };
    let parts: Vec<(u64, u64)> = bounds.windows(2).map(part).collect();
    let (all, bad) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    let is_foreign = |&(steps, of_these): &(u64, u64)| {
        let (others, of_others) = (all - steps, bad - of_these);
        steps >= ENOUGH && others >= ENOUGH && of_these * 10 > steps && of_others * USUAL <= others
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{SampleEntry, encode_samples};
    use crate::scan::misplaced::out_of_step::reads_out_of_step;
    use crate::wal::layout::{FragmentType, HEADER_SIZE};

    /// Samples in one order or another, of one time or of more; values as they are measured, or not.
    fn part(rng: &mut fastrand::Rng, samples: &mut Vec<SampleEntry>) {
        let (order, times, values) = (rng.u8(..6), rng.u8(..8), rng.u8(..4));
        let mut series_ref = rng.u64(1..10_000);
        for _ in 0..rng.usize(..120) {
            series_ref = match order {
                0..=2 => series_ref + 1,
                3 => series_ref + rng.u64(..3),
                4 => rng.u64(1..10_000),
                _ if rng.u8(..40) == 0 => rng.u64(1..10_000),
                _ => series_ref + 1,
            };
            let t = if times == 0 { rng.i64(..3) } else { 0 };
            let value = if values == 0 { f64::from_bits(rng.u64(..)) } else { f64::from(rng.u8(..)) };
            samples.push(SampleEntry { series_ref, t, st: 0, value_bits: value.to_bits() });
        }
    }

    #[test]
    fn a_record_in_no_order_is_odd_nowhere() {
        let knob = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let first = knob("WALFIX_FIRST_SEED").unwrap_or(0);
        let seeds = knob("WALFIX_SEEDS").unwrap_or(4000);
        let (mut at_once, mut odd) = (0, 0);
        for seed in first..first + seeds {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut samples, mut data) = (Vec::new(), Vec::new());
            for _ in 0..rng.usize(1..4) {
                part(&mut rng, &mut samples);
            }
            encode_samples(&samples, &mut data);
            let mut ends: Vec<usize> = (0..rng.usize(1..4)).map(|_| rng.usize(..=data.len())).collect();
            ends.sort_unstable();
            let starts = [0].into_iter().chain(ends.iter().copied());
            let fragments: Vec<_> = (0_u64..)
                .zip(starts.zip(ends.iter().copied().chain([data.len()])))
                .map(|(page, (from, to))| (page << 15)..(page << 15) + (HEADER_SIZE + to - from) as u64)
                .collect();
            let record = Record {
                offset: 0,
                end: fragments[fragments.len() - 1].end,
                head: HeadByte::new(FragmentType::Last, Compression::None),
                compression: Compression::None,
                data: &data,
                fragments: &fragments,
                has_own_checksum: false,
                in_copy: false,
                flags_disagree: false,
            };
            let whole = record::summarize(&data);
            let is_odd = whole.falls > 0 && odd_joints(&record).into_iter().any(|odd| odd > 1);
            assert_eq!(has_odd_joint(&record, &whole), is_odd, "seed {seed}");
            assert_eq!(reads_out_of_step(&record, &whole), has_foreign_part(&data, &ends), "seed {seed}");
            at_once += u32::from(whole.falls > 0 && is_in_no_order(&record, &whole));
            odd += u32::from(is_odd);
        }
        assert!(seeds < 4000 || at_once > 100 && odd > 100, "{at_once} in no order, {odd} odd");
    }
}
