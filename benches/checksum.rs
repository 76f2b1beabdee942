//! CRC-32C by the size of fragments: the implementation that verifies them, and the one that is asked before a mismatch
//! is called damage.

mod input;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use walfix::wal::{PAGE_SIZE, crc};

/// Bytes that are checksummed in all, in fragments that do not overlap: more than the nearest caches hold.
const TOTAL: usize = 8 << 20;

fn checksum(c: &mut Criterion) {
    let mut rng = fastrand::Rng::with_seed(1);
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(TOTAL).collect();
    let mut group = c.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(TOTAL as u64));
    for size in [64, 256, 512, 1024, 4096, 16 * 1024, PAGE_SIZE] {
        let mut measure = |name: &str, of: fn(&[u8]) -> u32| {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| black_box(&bytes).chunks(size).fold(0, |all, fragment| all ^ of(fragment)));
            });
        };
        measure("first", crc::checksum);
        measure("second", crc32c::crc32c);
    }
}

criterion_group!(benches, checksum);
criterion_main!(benches);
