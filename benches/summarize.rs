//! The decoder of every record type: what a scan wants to know of a record, in one walk over it.

mod input;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use input::records::{self, TARGET};
use walfix::record::{self, RecordType};

fn summarize(c: &mut Criterion) {
    let mut measure = |name: &str, records: &[Vec<u8>]| {
        let read = || records.iter().map(|record| record::summarize(black_box(record)).entries).sum::<u64>();
        let mut group = c.benchmark_group("summarize");
        group.throughput(Throughput::ElementsAndBytes {
            elements: read(),
            bytes: records.iter().map(|record| record.len() as u64).sum(),
        });
        group.bench_function(name, |b| b.iter(read));
    };
    for record_type in RecordType::ALL {
        measure(record_type.name(), &records::of_type(record_type));
    }
    let mut rng = fastrand::Rng::with_seed(1);
    measure("samples, scattered", &[0; 4].map(|_| records::scattered(&mut rng, TARGET)));
}

criterion_group!(benches, summarize);
criterion_main!(benches);
