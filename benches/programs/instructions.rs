//! The loops whose instructions `scripts/instructions` counts.
//!
//! Without arguments it lists them, and what their unit is. With the name of one and a number it runs it so many times over
//! the same bytes, and says how many units these have. What one more round costs is the loop itself: everything before it
//! is the same however many rounds there are.

#[path = "../input/mod.rs"]
mod input;

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::num::NonZeroUsize;

use fastrand::Rng;
use input::logs::{self, Kind};
use input::records::{self, TARGET};
use walfix::forecast::{Assumed, forecast};
use walfix::record::{self, RecordType};
use walfix::repair;
use walfix::scan::Scan;
use walfix::scan::{self, Options};
use walfix::tsdb::Target;
use walfix::wal::walk::{Pages, Walker};
use walfix::wal::{Compression, Event, PAGE_SIZE, SegmentReader};

/// Name, unit, and what it does.
const LOOPS: [(&str, &str, Loop); 14] = [
    ("samples", "sample", Loop::Decode(|| records::of_type(RecordType::Samples))),
    ("samples-scattered", "sample", Loop::Decode(scattered)),
    ("samples-v2", "sample", Loop::Decode(|| records::of_type(RecordType::SamplesV2))),
    ("histograms", "histogram", Loop::Decode(|| records::of_type(RecordType::HistogramSamples))),
    ("float-histograms", "histogram", Loop::Decode(|| records::of_type(RecordType::FloatHistogramSamples))),
    ("series", "series", Loop::Decode(|| records::of_type(RecordType::Series))),
    ("exemplars", "exemplar", Loop::Decode(|| records::of_type(RecordType::Exemplars))),
    ("metadata", "series", Loop::Decode(|| records::of_type(RecordType::Metadata))),
    ("walk", "KiB", Loop::Segment(Compression::None, walk)),
    ("walk-snappy", "KiB", Loop::Segment(Compression::Snappy, walk)),
    ("walk-zstd", "KiB", Loop::Segment(Compression::Zstd, walk)),
    ("salvage-reader", "KiB", Loop::Segment(Compression::None, salvage)),
    ("scan", "KiB", Loop::Scan),
    ("scan-damaged", "KiB", Loop::ScanDamaged),
];

enum Loop {
    /// Decodes records.
    Decode(fn() -> Vec<Vec<u8>>),
    /// Reads a segment.
    Segment(Compression, fn(&File, u64, u32)),
    /// Scans a directory by one thread.
    Scan,
    /// The same, where a byte is wrong in each page; and foretells, and plans.
    ScanDamaged,
}

/// Bytes of a segment.
const SEGMENT: u64 = 2 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, rounds] = &*arguments else {
        for (name, unit, _) in LOOPS {
            println!("{name} {unit}");
        }
        return;
    };
    let (_, _, what) = LOOPS.iter().find(|one| one.0 == name).expect("one of those that are listed");
    let rounds = rounds.parse().expect("a number");
    println!("{}", run(what, rounds));
}

fn run(what: &Loop, rounds: u32) -> u64 {
    match what {
        Loop::Decode(records) => {
            let records = records();
            let decode = || records.iter().map(|record| record::summarize(black_box(record)).entries).sum();
            (0..rounds).fold(0, |_, _| decode())
        }
        Loop::Segment(compression, read) => {
            let segment = logs::log(Kind::Samples, *compression, 1, SEGMENT).remove(0);
            // In a file: what the system copies is not counted, what memcpy copies is, byte by byte.
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(&segment).expect("room for it");
            read(&file, segment.len() as u64, rounds);
            segment.len() as u64 / 1024
        }
        Loop::Scan => {
            let segments = logs::log(Kind::Samples, Compression::None, 2, SEGMENT);
            scan_all(&segments, rounds, |_, report| _ = black_box(report));
            bytes(&segments) / 1024
        }
        Loop::ScanDamaged => {
            let mut segments = logs::log(Kind::Samples, Compression::None, 2, SEGMENT);
            for page in segments.iter_mut().flat_map(|segment| segment.chunks_mut(PAGE_SIZE)) {
                let middle = page.len() / 2;
                page[middle] ^= 0x5a;
            }
            scan_all(&segments, rounds, |target, report| {
                let assumed = Assumed::default();
                let forecast = forecast(target, &report, assumed).expect("a forecast");
                black_box(repair::plans(target, &report, forecast.as_ref(), assumed).expect("plans"));
            });
            bytes(&segments) / 1024
        }
    }
}

/// Scans a data directory with these segments so many times.
fn scan_all(segments: &[Vec<u8>], rounds: u32, then: impl Fn(&Target, Scan)) {
    let directory = tempfile::tempdir().expect("a directory");
    let wal = directory.path().join("wal");
    std::fs::create_dir(&wal).expect("room for it");
    logs::write(&wal, segments);
    let target = Target::find(directory.path()).expect("a data directory");
    let options = Options { threads: NonZeroUsize::new(1), ..Options::default() };
    for _ in 0..rounds {
        then(&target, scan::scan(&target, &options, &()).expect("a report"));
    }
}

fn bytes(segments: &[Vec<u8>]) -> u64 {
    segments.iter().map(|segment| segment.len() as u64).sum()
}

fn scattered() -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(1);
    (0..4).map(|_| records::scattered(&mut rng, TARGET)).collect()
}

fn walk(file: &File, length: u64, rounds: u32) {
    let mut walker = Walker::default();
    for _ in 0..rounds {
        let each = |record: &walfix::wal::Record<'_>| {
            black_box(record.data);
            true
        };
        walker.walk(file, length, 0..length, &mut Pages::default(), each).expect("healthy");
    }
}

fn salvage(file: &File, length: u64, rounds: u32) {
    for _ in 0..rounds {
        let mut reader = SegmentReader::new(file, length);
        while let Some(event) = reader.next() {
            match event {
                Event::Record(record) => _ = black_box(record.data),
                Event::Damage(damage) => panic!("{damage:?}"),
            }
        }
    }
}
