//! A whole scan of a directory, by one thread and by all.

mod input;

use std::num::NonZeroUsize;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use input::logs::{self, Kind};
use walfix::scan::report::Verdict;
use walfix::scan::{self, Options};
use walfix::tsdb::Target;
use walfix::wal::Compression;

const SEGMENTS: usize = 3;
const SEGMENT_BYTES: u64 = 16 << 20;

const LOGS: [(&str, Kind, Compression); 4] = [
    ("none", Kind::Samples, Compression::None),
    ("snappy", Kind::Samples, Compression::Snappy),
    ("zstd", Kind::Samples, Compression::Zstd),
    ("histograms, snappy", Kind::Histograms, Compression::Snappy),
];

fn scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("scan");
    group.sample_size(20);
    for (name, kind, compression) in LOGS {
        let directory = tempfile::tempdir().expect("a directory");
        logs::write(directory.path(), &logs::log(kind, compression, SEGMENTS, SEGMENT_BYTES));
        let target = Target::find(directory.path()).expect("a log");
        for (threads, by) in [(NonZeroUsize::new(1), "one thread"), (None, "all threads")] {
            let read =
                || scan::scan(&target, &Options { threads, ..Options::default() }, &()).expect("a report");
            let report = read();
            assert_eq!((report.verdict, report.findings.len()), (Verdict::Clean, 0), "{name}");
            group.throughput(Throughput::Bytes(report.logs.iter().map(|log| log.bytes).sum()));
            group.bench_function(BenchmarkId::new(name, by), |b| b.iter(read));
        }
    }
}

criterion_group!(benches, scan);
criterion_main!(benches);
