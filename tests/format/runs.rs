//! Samples that are read together say what they say one by one.

use fastrand::Rng;
use support::seeds;
use support::test;
use walfix::record::{Record, Summary, summarize, summarize_refs};

fn varint(value: i64, overlong: bool, out: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f | if overlong { 0x80 } else { 0 });
            break;
        }
        out.push(low | 0x80);
    }
    if overlong {
        out.push(0);
    }
}

/// A record as scrapes, imports and churn make them, and whether a varint in it is longer than it must be.
fn record(rng: &mut Rng) -> (Vec<u8>, bool) {
    let mut record = vec![2];
    let base_ref = match rng.u8(..4) {
        0 => rng.u64(..10),
        1 => rng.u64(..1 << 40),
        2 => u64::MAX - rng.u64(..5000),
        _ => rng.u64(..),
    };
    record.extend(base_ref.to_be_bytes());
    record.extend(rng.i64(..).to_be_bytes());
    let mut any_overlong = false;
    let mut delta = 0i64;
    let mut t = 0i64;
    for _ in 0..rng.usize(..6) {
        // A stretch: refs in order, with gaps, backwards or anyhow; times alike or not.
        let order = rng.u8(..6);
        let jitter = [0, 1, 100, 1 << 20, i64::MAX][rng.usize(..5)];
        let spread = [1, 60, 8000, 1 << 30, i64::MAX][rng.usize(..5)];
        let odds = if rng.u8(..8) == 0 { 20 } else { usize::MAX };
        let longest = [3, 20, 300, 3000][rng.usize(..4)];
        for _ in 0..rng.usize(..longest) {
            match order {
                0..=2 => delta = delta.wrapping_add(1),
                3 => delta = delta.wrapping_add(rng.i64(1..4)),
                4 => delta = delta.wrapping_sub(1),
                _ => delta = rng.i64(-spread..spread),
            }
            if jitter > 0 && rng.bool() {
                t = rng.i64(-jitter..jitter);
            }
            let overlong = rng.usize(..odds) == 0;
            any_overlong |= overlong;
            varint(delta, overlong && rng.bool(), &mut record);
            varint(t, overlong, &mut record);
            record.extend(rng.u64(..).to_be_bytes());
        }
    }
    (record, any_overlong)
}

/// The same, entry by entry.
fn one_by_one(record: &[u8]) -> (Summary, Vec<u64>) {
    let Record::Samples(samples) = Record::parse(record) else { unreachable!("type 2") };
    let mut summary = summarize(&record[..1]);
    let mut refs = Vec::new();
    for entry in samples.entries() {
        match entry {
            Ok(entry) => {
                summary.entries += 1;
                refs.push(entry.series_ref);
                summary.min_time = Some(summary.min_time.map_or(entry.t, |t| t.min(entry.t)));
                summary.max_time = Some(summary.max_time.map_or(entry.t, |t| t.max(entry.t)));
            }
            Err(error) => summary.error = Some(error),
        }
    }
    summary.min_ref = refs.iter().copied().min();
    summary.max_ref = refs.iter().copied().max();
    summary.falls = refs.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    summary.repeats = refs.windows(2).any(|pair| pair[1] == pair[0]);
    (summary, refs)
}

fn check(record: &[u8], overlong: Option<bool>, about: &str) {
    let (mut expected, refs) = one_by_one(record);
    let mut told = Vec::new();
    let summary = summarize_refs(record, |first: u64, count: u64| {
        assert!(first.checked_add(count - 1).is_some(), "{about}: refs wrap around");
        told.extend((0..count).map(|after| first + after));
    });
    // Of a record that does not decode to its end nothing is said of that; a varint of eleven bytes is such an end.
    expected.overlong = summary.error.is_none() && overlong.unwrap_or(summary.overlong);
    assert_eq!(summary, expected, "{about}");
    assert_eq!(told, refs, "{about}");
    assert_eq!(summarize(record), summary, "{about}");
}

#[test]
fn samples_together_and_one_by_one() {
    for seed in seeds(3000) {
        let mut rng = Rng::with_seed(seed);
        let (mut record, overlong) = record(&mut rng);
        check(&record, Some(overlong), &format!("seed {seed}"));
        for _ in 0..4 {
            let cut = rng.usize(1..=record.len());
            check(&record[..cut], None, &format!("seed {seed}, cut at {cut}"));
        }
        for _ in 0..4 {
            let at = rng.usize(1..record.len());
            record[at] = [0, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..5)];
            check(&record, None, &format!("seed {seed}, with byte {at} changed"));
        }
    }
}

#[test]
fn a_scrape_of_every_size() {
    // Refs from 0 on: each more byte of the difference is passed.
    for count in [1u64, 2, 63, 64, 65, 66, 8191, 8192, 8193, 8256, 8257, 20_000, 1_048_640] {
        let mut record = vec![2];
        record.extend(5u64.to_be_bytes());
        record.extend(1_750_000_000_000i64.to_be_bytes());
        for delta in 0..count {
            varint(delta.cast_signed(), false, &mut record);
            record.push(0);
            record.extend(delta.to_be_bytes());
        }
        let summary = summarize(&record);
        assert_eq!((summary.entries, summary.error), (count, None));
        assert_eq!((summary.min_ref, summary.max_ref), (Some(5), Some(count + 4)));
        assert_eq!((summary.min_time, summary.max_time), (Some(1_750_000_000_000), Some(1_750_000_000_000)));
        assert!(!summary.overlong);
        check(&record, Some(false), &format!("{count} samples"));
    }
}
