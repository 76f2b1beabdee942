//! Unpacking records of one target.

mod input;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use input::logs::Packer;
use input::records;
use walfix::record::RecordType;
use walfix::wal::Compression;
use walfix::wal::compress::Unpacker;

fn unpack(c: &mut Criterion) {
    let mut group = c.benchmark_group("unpack");
    for compression in [Compression::Snappy, Compression::Zstd] {
        let mut packer = Packer::new(compression);
        for record_type in [RecordType::Series, RecordType::Samples, RecordType::HistogramSamples] {
            let records = records::of_type(record_type);
            let stored: Vec<Vec<u8>> = records.iter().map(|record| packer.pack(record)).collect();
            group.throughput(Throughput::Bytes(records.iter().map(|record| record.len() as u64).sum()));
            let mut unpacker = Unpacker::default();
            group.bench_function(BenchmarkId::new(format!("{compression:?}"), record_type), |b| {
                b.iter(|| {
                    for record in &stored {
                        black_box(unpacker.unpack(compression, black_box(record)).expect("whole"));
                    }
                });
            });
        }
    }
}

criterion_group!(benches, unpack);
criterion_main!(benches);
