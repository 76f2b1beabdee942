//! One segment in memory: the walk through what is healthy, the reader that never stops, and the writer.

mod input;

use std::hint::black_box;
use std::io;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use input::logs::{self, Kind};
use walfix::wal::walk::{Pages, Walker};
use walfix::wal::writer::SegmentWriter;
use walfix::wal::{Compression, Event, SegmentReader};

const BYTES: u64 = 8 << 20;

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Snappy, Compression::Zstd];

fn segment(compression: Compression) -> Vec<u8> {
    logs::log(Kind::Samples, compression, 1, BYTES).remove(0)
}

fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    for compression in COMPRESSIONS {
        let bytes = segment(compression);
        let length = bytes.len() as u64;
        group.throughput(Throughput::Bytes(length));
        let mut walker = Walker::default();
        group.bench_function(BenchmarkId::new("walk", format!("{compression:?}")), |b| {
            b.iter(|| {
                let mut data = 0;
                let each = |record: &walfix::wal::Record<'_>| {
                    data += black_box(record.data).len();
                    true
                };
                walker.walk(&*bytes, length, 0..length, &mut Pages::default(), each).expect("healthy");
                data
            });
        });
        group.bench_function(BenchmarkId::new("salvage reader", format!("{compression:?}")), |b| {
            b.iter(|| each_record(black_box(&bytes), |data| _ = black_box(data)));
        });
    }
}

fn each_record(segment: &[u8], mut each: impl FnMut(&[u8])) {
    let mut reader = SegmentReader::new(segment, segment.len() as u64);
    while let Some(event) = reader.next() {
        match event {
            Event::Record(record) => each(record.data),
            Event::Damage(damage) => panic!("{damage:?}"),
        }
    }
}

fn write(c: &mut Criterion) {
    let mut records = Vec::new();
    each_record(&segment(Compression::None), |data| records.push(data.to_vec()));
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Bytes(records.iter().map(|record| record.len() as u64).sum()));
    group.bench_function("write", |b| {
        b.iter(|| {
            let mut writer = SegmentWriter::new(io::sink());
            for record in &records {
                writer.record(Compression::None, black_box(record)).expect("a sink takes everything");
            }
            writer.written()
        });
    });
}

criterion_group!(benches, read, write);
criterion_main!(benches);
