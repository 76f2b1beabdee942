//! How fast logs are read, layer by layer: fragments, records, what records say, a whole directory.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use walfix::record::{self, RecordType};
use walfix::scan::{self, Options};
use walfix::tsdb::Target;
use walfix::wal::page::{self, Piece};
use walfix::wal::{Event, HEADER_SIZE, PAGE_SIZE, SegmentReader};

const COMPRESSIONS: [&str; 3] = ["none", "snappy", "zstd"];

fn log(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/logs").join(name)
}

/// The first segment of a committed log.
fn segment(name: &str) -> Vec<u8> {
    std::fs::read(log(name).join("00000000")).expect("a committed log")
}

fn fragments(c: &mut Criterion) {
    let mut group = c.benchmark_group("fragments");
    for name in ["small-none", "wal-none", "large-none"] {
        let bytes = segment(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| b.iter(|| walk(black_box(&bytes))));
    }
}

/// Every fragment of every page, its checksum verified; returns how many bytes of data they have.
fn walk(segment: &[u8]) -> usize {
    let mut data_bytes = 0;
    for page in segment.chunks(PAGE_SIZE) {
        let mut at = 0;
        while let Some(piece) = page::piece(page, at) {
            match piece {
                Piece::Fragment { start, data, .. } => {
                    data_bytes += data.len();
                    at = start + HEADER_SIZE + data.len();
                }
                Piece::Padding { .. } => break,
                Piece::Damage { start, fault, .. } => panic!("{fault:?} at {start}"),
            }
        }
    }
    data_bytes
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("records");
    for compression in COMPRESSIONS {
        let bytes = segment(&format!("wal-{compression}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(compression, |b| b.iter(|| each_record(black_box(&bytes), |_| ())));
    }
}

fn each_record(segment: &[u8], mut each: impl FnMut(&[u8])) {
    let mut reader = SegmentReader::new(segment, segment.len() as u64);
    while let Some(event) = reader.next() {
        match event {
            Event::Record(record) => each(black_box(record.data)),
            // A kill ends the committed logs in the midst of a page, never of a record.
            Event::Damage(damage) => panic!("{damage:?}"),
        }
    }
}

fn summaries(c: &mut Criterion) {
    let mut by_type: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for name in ["wal-none", "wbl-none", "checkpoint-none"] {
        each_record(&segment(name), |data| {
            if let Some(record_type) = RecordType::of(data) {
                by_type.entry(record_type.name()).or_default().push(data.to_vec());
            }
        });
    }
    let mut group = c.benchmark_group("summarize");
    for (name, records) in by_type {
        group.throughput(Throughput::Bytes(records.iter().map(|record| record.len() as u64).sum()));
        group.bench_function(name, |b| {
            b.iter(|| records.iter().map(|record| record::summarize(black_box(record)).entries).sum::<u64>());
        });
    }
}

fn directories(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    for compression in COMPRESSIONS {
        let target = Target::find(&log(&format!("wal-{compression}"))).expect("a log");
        let read = || scan::scan(&target, &Options::default(), &()).expect("a report");
        group.throughput(Throughput::Bytes(read().logs.iter().map(|log| log.bytes).sum()));
        group.bench_function(compression, |b| b.iter(read));
    }
}

criterion_group!(benches, fragments, records, summaries, directories);
criterion_main!(benches);
