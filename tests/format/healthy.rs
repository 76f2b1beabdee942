//! Healthy logs, as writers that are no plain scrape loop make them: no problem at all, and every record. And a few
//! damages next to which the judgement is delicate.
//!
//! The segments are made here by the simplest possible writer, as small as shows the point. `WALFIX_SEEDS` and
//! `WALFIX_FIRST_SEED` choose other random contents.

use std::collections::HashSet;

use support::test;
use walfix::record::{SampleEntry, encode_samples};
use walfix::scan::Scan;
use walfix::scan::report::Verdict;
use walfix::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use walfix::wal::Record;

const PAGE: usize = 32768;

/// The time of the first scrape, ms.
const T0: i64 = 1_700_000_000_000;

/// Between scrapes, ms.
const INTERVAL: i64 = 15_000;

/// Bytes of a segment that has to be long enough for identical pages and repeated neighbours.
const LONG: usize = 8 << 20;

/// Compression flags of a fragment's first byte (`tsdb/wlog/wlog.go`).
const NONE: u8 = 0;
const SNAPPY: u8 = 0x08;
const ZSTD: u8 = 0x10;

/// The value of a stale marker (`model/value`, `StaleNaN`).
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Everything the salvage reader says.
#[derive(Default)]
struct Found {
    records: Vec<(u64, Vec<u8>)>,
    problems: Vec<Problem>,
}

impl Visitor for Found {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        self.records.push((record.offset, record.data.to_vec()));
    }

    fn damage(&mut self, damage: Problem) {
        self.problems.push(damage);
    }
}

fn read(bytes: &[u8]) -> Found {
    salvage(bytes, bytes.len() as u64, Reading::Prometheus)
}

/// A segment in the making (`tsdb/wlog/wlog.go`, `WL.log`).
#[derive(Default)]
struct Segment {
    bytes: Vec<u8>,
    /// What was logged: where its first fragment begins, and its data, unpacked.
    records: Vec<(u64, Vec<u8>)>,
}

impl Segment {
    fn room(&self) -> usize {
        PAGE - self.bytes.len() % PAGE
    }

    fn fragment(&mut self, head: u8, data: &[u8]) {
        self.bytes.push(head);
        self.bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.bytes.extend(crc32c::crc32c(data).to_be_bytes());
        self.bytes.extend(data);
    }

    fn end_page(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(PAGE), 0);
    }

    /// Logs `stored` under the compression's flag; it unpacks to `data`.
    fn log_stored(&mut self, flag: u8, stored: &[u8], data: Vec<u8>) {
        if self.room() < 7 {
            self.end_page();
        }
        self.records.push((self.bytes.len() as u64, data));
        let (mut rest, mut first) = (stored, true);
        loop {
            let (part, after) = rest.split_at(rest.len().min(self.room() - 7));
            let kind = match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.fragment(kind | flag, part);
            if after.is_empty() {
                break;
            }
            (rest, first) = (after, false);
        }
    }

    fn log(&mut self, data: Vec<u8>) {
        self.log_stored(NONE, &data.clone(), data);
    }

    fn log_packed(&mut self, flag: u8, data: Vec<u8>) {
        let stored = match flag {
            SNAPPY => snap::raw::Encoder::new().compress_vec(&data).unwrap(),
            ZSTD => zstd::bulk::compress(&data, 1).unwrap(),
            _ => data.clone(),
        };
        self.log_stored(flag, &stored, data);
    }

    /// No problem, and every record as it was logged.
    fn assert_healthy(&self, what: &str) {
        let found = read(&self.bytes);
        let said: Vec<_> = found.problems.iter().map(|problem| (&problem.range, &problem.kind)).collect();
        assert!(said.is_empty(), "{what}: {} problems: {:?}", said.len(), &said[..said.len().min(5)]);
        self.assert_records(&found, what);
    }

    /// Every record as it was logged.
    fn assert_records(&self, found: &Found, what: &str) {
        let offsets = |records: &[(u64, Vec<u8>)]| records.iter().map(|record| record.0).collect::<Vec<_>>();
        assert_eq!(offsets(&found.records), offsets(&self.records), "{what}");
        assert!(found.records == self.records, "{what}: a record has other data than was logged");
    }
}

fn sample(series_ref: u64, t: i64, value: f64) -> SampleEntry {
    SampleEntry { series_ref, t, value_bits: value.to_bits(), st: 0 }
}

fn samples(entries: &[SampleEntry]) -> Vec<u8> {
    let mut data = Vec::new();
    encode_samples(entries, &mut data);
    data
}

/// One scrape of a target with series 1 to `count`, each with a value of its own.
fn scrape(count: u32, t: i64) -> Vec<u8> {
    samples(&(1..=count).map(|r| sample(r.into(), t, f64::from(r) * 1.7)).collect::<Vec<_>>())
}

fn uvarint(mut number: u64, out: &mut Vec<u8>) {
    while number > 127 {
        out.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    out.push((number & 127) as u8);
}

fn varint(number: i64, out: &mut Vec<u8>) {
    uvarint(((number << 1) ^ (number >> 63)).cast_unsigned(), out);
}

/// A target like kube-state-metrics, whose series come and go: the stale markers of those that went stand behind the
/// samples of the others, in the order of a map (`scrape/scrape.go`, `forEachStale`).
#[test]
fn stale_markers_in_map_order() {
    for seed in support::seeds(1) {
        for (count, gone_at_once, every) in
            [(3000, 40, 5), (300, 8, 3), (1000, 12, 5), (2500, 20, 2), (800, 10, 1)]
        {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut segment = Segment::default();
            let mut live: Vec<u64> = (1..=count).collect();
            let mut next = count + 1;
            let mut t = T0;
            while segment.bytes.len() < LONG / 2 {
                t += INTERVAL;
                let mut gone = Vec::new();
                if segment.records.len() % every == 0 {
                    for _ in 0..gone_at_once {
                        gone.push(live.remove(rng.usize(..live.len())));
                        live.push(next);
                        next += 1;
                    }
                }
                rng.shuffle(&mut gone);
                let mut entries: Vec<_> = live.iter().map(|&r| sample(r, t, 1.0)).collect();
                entries.extend(gone.iter().map(|&r| sample(r, t, f64::from_bits(STALE))));
                segment.log(samples(&entries));
            }
            segment.assert_healthy(&format!("seed {seed}: {count} series, {gone_at_once} go each {every}"));
        }
    }
}

/// An import by remote write: each series once, with all its samples.
#[test]
fn several_samples_a_series() {
    let mut segment = Segment::default();
    for batch in 0..200 {
        let refs = batch * 400 + 1..=batch * 400 + 400;
        let entries: Vec<_> =
            refs.flat_map(|r| (0..5).map(move |i| sample(r, T0 + i * INTERVAL, 1.5))).collect();
        segment.log(samples(&entries));
    }
    segment.assert_healthy("each series in one record");
}

/// The same series in every batch, each with several samples, and the series in no order.
#[test]
fn several_samples_a_series_in_every_record() {
    for seed in support::seeds(1) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut segment = Segment::default();
        for batch in 0..200i64 {
            let mut refs: Vec<u64> = (1..=400).collect();
            rng.shuffle(&mut refs);
            let times = batch * 5..batch * 5 + 5;
            let entries: Vec<_> = refs
                .iter()
                .flat_map(|&r| times.clone().map(move |i| sample(r, T0 + i * INTERVAL, 1.5)))
                .collect();
            segment.log(samples(&entries));
        }
        segment.assert_healthy(&format!("seed {seed}"));
    }
}

/// A remote write shard: one big target in order, and then a few samples of many others.
#[test]
fn a_big_target_and_then_small_ones() {
    for seed in support::seeds(1) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut segment = Segment::default();
        for batch in 0..200i64 {
            let t = T0 + batch * INTERVAL;
            let mut entries: Vec<_> = (1..=1900).map(|r| sample(r, t, 1.0)).collect();
            entries.extend((0..30).map(|_| sample(5000 + rng.u64(..100_000), t - rng.i64(0..9000), 2.0)));
            segment.log(samples(&entries));
        }
        segment.assert_healthy(&format!("seed {seed}"));
    }
}

/// A big target whose values seldom or never change, and three small ones between: pages in the midst of its records
/// are often the same to the byte.
fn steady(flag: u8, series: u64, changes: f64, seed: u64) -> Segment {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut segment = Segment::default();
    let mut values: Vec<f64> =
        (0..series).map(|_| if rng.bool() { 1.0 } else { f64::from(rng.u32(..)) }).collect();
    let mut t = T0;
    while segment.bytes.len() < LONG {
        t += INTERVAL;
        for _ in 0..3 {
            if rng.f64() < changes {
                let at = rng.usize(..values.len());
                values[at] += 1.0;
            }
        }
        let entries: Vec<_> = (100..).zip(&values).map(|(r, &value)| sample(r, t, value)).collect();
        segment.log_packed(flag, samples(&entries));
        for target in 0..3u8 {
            let first = 50_000 + 1000 * u64::from(target);
            let t = t + 100 * i64::from(target);
            let entries: Vec<_> =
                (first..first + rng.u64(5..400)).map(|r| sample(r, t + rng.i64(..50), rng.f64())).collect();
            segment.log_packed(flag, samples(&entries));
        }
    }
    segment
}

/// Three values of a big target change with each scrape.
#[test]
fn steady_scrapes() {
    for seed in support::seeds(2) {
        for (flag, series) in [(NONE, 20_000), (SNAPPY, 40_000), (ZSTD, 40_000)] {
            let what = format!("seed {seed}: flag {flag:#x}, {series} series");
            steady(flag, series, 1.0, seed).assert_healthy(&what);
        }
    }
}

/// Scrapes without a changed value differ in their times only, which an uncompressed record has at its beginning: its
/// other pages are those of the scrape before, if they begin at the same place.
#[test]
fn constant_values() {
    for seed in support::seeds(2) {
        for (flag, series, changes) in
            [(NONE, 20_000, 0.0), (NONE, 20_000, 0.03), (SNAPPY, 40_000, 0.0), (SNAPPY, 100_000, 0.03)]
        {
            let what = format!("seed {seed}: flag {flag:#x}, {series} series, {changes} changes");
            steady(flag, series, changes, seed).assert_healthy(&what);
        }
    }
}

/// A series record with one label.
fn series(series_ref: u64, value: &[u8]) -> Vec<u8> {
    let mut data = vec![1];
    data.extend(series_ref.to_be_bytes());
    uvarint(1, &mut data);
    uvarint(1, &mut data);
    data.push(b'a');
    uvarint(value.len() as u64, &mut data);
    data.extend(value);
    data
}

/// Scrapes of which every page but the first is the same to the byte as that of the scrape before: each begins with
/// a page, since a record of a new series happens to end there.
#[test]
fn identical_pages_of_two_scrapes() {
    for seed in support::seeds(1) {
        let mut rng = fastrand::Rng::with_seed(seed);
        for flag in [NONE, SNAPPY] {
            let mut segment = Segment::default();
            for i in 0..6 {
                segment.log_packed(flag, scrape(40_000, T0 + i * INTERVAL));
                // Headers and what stands before the value; fewer than seven bytes are left over.
                let length = match segment.room() {
                    room @ 200.. => room - 23,
                    room => room + PAGE - 30,
                };
                let value: Vec<u8> = (0..length).map(|_| rng.u8(b'a'..=b'z')).collect();
                segment.log(series(100_000 + i.cast_unsigned(), &value));
                assert!(segment.room() < 7 || segment.room() == PAGE);
            }
            let pages = segment.bytes.chunks(PAGE);
            let distinct: HashSet<_> = pages.clone().collect();
            assert!(distinct.len() < pages.len(), "flag {flag:#x}: no two pages are the same");
            segment.assert_healthy(&format!("seed {seed}: flag {flag:#x}"));
        }
    }
}

/// One label value of a few characters over and over, longer than several pages.
#[test]
fn a_label_value_that_repeats_itself_over_pages() {
    for unit in ["a", "ab", "abcdefgh"] {
        let mut segment = Segment::default();
        segment.log(series(7, unit.repeat(400_000 / unit.len()).as_bytes()));
        segment.assert_healthy(&format!("{unit:?} over and over"));
    }
}

/// Native histograms have several exemplars a series, in the order of their times.
#[test]
fn exemplars_of_native_histograms() {
    for seed in support::seeds(1) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut segment = Segment::default();
        for scrape in 0..200i64 {
            let mut data = vec![4];
            data.extend(1u64.to_be_bytes());
            data.extend((T0 + scrape * INTERVAL).to_be_bytes());
            for r in 0..200i64 {
                let count = if (r + scrape) % 7 == 0 { rng.i64(2..8) } else { rng.i64(0..2) };
                for i in 0..count {
                    varint(r, &mut data);
                    varint(-14_000 + i * 1500 + rng.i64(..900), &mut data);
                    data.extend(1.5f64.to_be_bytes());
                    uvarint(1, &mut data);
                    uvarint(8, &mut data);
                    data.extend(b"trace_id");
                    uvarint(32, &mut data);
                    data.extend((0..32).map(|_| b"0123456789abcdef"[rng.usize(..16)]));
                }
            }
            segment.log(data);
        }
        segment.assert_healthy(&format!("seed {seed}"));
    }
}

/// The disk was full: a record was given up after its first page, and a record of several pages follows. Its first
/// fragment is what it says, not the midst of the record before.
#[test]
fn a_long_record_behind_an_abandoned_one() {
    let mut segment = Segment::default();
    for i in 0..3 {
        segment.log(scrape(6000, T0 + i * INTERVAL));
    }
    let room = segment.room() - 7;
    let abandoned = segment.bytes.len() as u64;
    segment.fragment(2, &scrape(6000, T0 + 3 * INTERVAL)[..room]);
    let end = segment.bytes.len() as u64;
    for i in 4..8 {
        segment.log(scrape(6000, T0 + i * INTERVAL));
    }
    let found = read(&segment.bytes);
    let [problem] = &found.problems[..] else { panic!("not one problem: {:?}", found.problems) };
    assert_eq!(problem.range, abandoned..end);
    segment.assert_records(&found, "behind an abandoned record");
}

fn scan(segment: &[u8]) -> Scan {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("wal")).unwrap();
    std::fs::write(directory.path().join("wal/00000000"), segment).unwrap();
    let target = walfix::tsdb::Target::find(directory.path()).unwrap();
    walfix::scan::scan(&target, &walfix::scan::Options::default(), &()).unwrap()
}

/// Zeros from a record's beginning to the page end look like padding, but the rest of the record is there: Prometheus
/// says `unexpected last record, dropping buffer` and stops.
#[test]
fn a_zeroed_first_fragment_is_damage() {
    let mut segment = Segment::default();
    for i in 0..20 {
        segment.log(scrape(1000, T0 + i * INTERVAL));
    }
    assert_eq!(scan(&segment.bytes).verdict, Verdict::Clean);
    let before_page_end = segment.records.iter().rposition(|record| record.0 < PAGE as u64).unwrap();
    let start = usize::try_from(segment.records[before_page_end].0).unwrap();
    segment.bytes[start..PAGE].fill(0);
    let report = scan(&segment.bytes);
    assert_eq!(report.verdict, Verdict::Damaged, "{:?}", report.findings);
}

/// A frame as Prometheus's encoder makes it, with a checksum of the contents, or one without.
fn frame(data: &[u8], checksum: bool) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(checksum)).unwrap();
    compressor.compress(data).unwrap()
}

/// Many small records that unpack to much, each with a flipped bit in its checksum: all are corrected, and the records
/// between them are read.
#[test]
fn corrected_records_that_unpack_to_much() {
    const COUNT: u8 = 20;
    let mut bomb = vec![0; 17 + 10 * (1 << 18)];
    bomb[0] = 2;
    let stored = frame(&bomb, true);
    let mut segment = Segment::default();
    for i in 0..COUNT {
        let at = segment.bytes.len();
        segment.log_stored(ZSTD, &stored, Vec::new());
        segment.bytes[at + 4] ^= 1;
        segment.log(vec![15, i, 3, 4]);
    }
    let found = read(&segment.bytes);
    assert_eq!(found.problems.len(), usize::from(COUNT));
    assert!(found.problems.iter().all(|problem| problem.correction.is_some()), "{:?}", found.problems);
    segment.records.retain(|(_, data)| !data.is_empty());
    segment.assert_records(&found, "between the corrected records");
}

/// A flipped bit in a fragment of a zstd record is believed on the ground of the frame's own checksum, whatever series
/// the record holds. A frame without one proves no more than any bytes do: its series and times have to be known.
#[test]
fn a_zstd_frame_without_checksum_proves_nothing() {
    for (checksum, known, believed) in [(true, false, true), (false, false, false), (false, true, true)] {
        let mut segment = Segment::default();
        for i in 0..10 {
            segment.log(scrape(100, T0 + i * INTERVAL));
        }
        let data = if known {
            scrape(100, T0 + 10 * INTERVAL)
        } else {
            samples(&(900_000..900_100).map(|r| sample(r, 3 * T0, 1.0)).collect::<Vec<_>>())
        };
        let at = segment.bytes.len();
        segment.log_stored(ZSTD, &frame(&data, checksum), data);
        segment.bytes[at + 4] ^= 1;
        for i in 11..20 {
            segment.log(scrape(100, T0 + i * INTERVAL));
        }
        let problems = read(&segment.bytes).problems;
        let corrected: Vec<_> = problems.iter().map(|problem| problem.correction.is_some()).collect();
        assert_eq!(corrected, [believed], "checksum {checksum}, known series {known}: {problems:?}");
    }
}
