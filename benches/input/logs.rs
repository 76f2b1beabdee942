//! Logs as servers write them: segments, and directories of these.

use std::path::Path;

use fastrand::Rng;
use walfix::wal::Compression;
use walfix::wal::segments::segment_name;
use walfix::wal::writer::SegmentWriter;

use super::records::{self, TARGET};
use super::{BEGIN, INTERVAL};

/// Targets that are scraped in turn: few, so that most of a log is samples, as it is after hours.
const TARGETS: u64 = 2;

/// What the series of a log are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Samples,
    Histograms,
}

/// A log of so many segments of at least so many bytes each: the series, then scrape after scrape.
pub fn log(kind: Kind, compression: Compression, segments: usize, bytes: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng::with_seed(1);
    let mut packer = Packer::new(compression);
    let mut scrapes = (0..).flat_map(|scrape| (0..TARGETS).map(move |target| (scrape, target)));
    let segment = |_| {
        let mut writer = SegmentWriter::new(Vec::new());
        while writer.written() < bytes {
            let (scrape, target) = scrapes.next().expect("without end");
            let refs = target * TARGET + 1..=(target + 1) * TARGET;
            if scrape == 0 {
                packer.log(&mut writer, &records::series(refs.clone()));
            }
            let t = BEGIN + scrape * INTERVAL + target.cast_signed();
            let record = match kind {
                Kind::Samples => records::scrape(&mut rng, refs, t),
                Kind::Histograms => records::histograms(&mut rng, refs, t),
            };
            packer.log(&mut writer, &record);
        }
        writer.finish().expect("into memory")
    };
    (0..segments).map(segment).collect()
}

/// Writes the segments to `directory`.
pub fn write(directory: &Path, segments: &[Vec<u8>]) {
    for (index, segment) in (0..).zip(segments) {
        std::fs::write(directory.join(segment_name(index)), segment).expect("room for it");
    }
}

/// Packs records as Prometheus does.
pub struct Packer {
    compression: Compression,
    snappy: snap::raw::Encoder,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Packer {
    pub fn new(compression: Compression) -> Self {
        let mut zstd = zstd::bulk::Compressor::new(3).expect("a compressor");
        zstd.include_checksum(true).expect("a parameter that it has");
        Self { compression, snappy: snap::raw::Encoder::new(), zstd }
    }

    /// A record as it is stored.
    pub fn pack(&mut self, record: &[u8]) -> Vec<u8> {
        match self.compression {
            Compression::None => record.to_vec(),
            Compression::Snappy => self.snappy.compress_vec(record).expect("less than 4 GiB"),
            Compression::Zstd => self.zstd.compress(record).expect("room for it"),
        }
    }

    fn log(&mut self, writer: &mut SegmentWriter<Vec<u8>>, record: &[u8]) {
        writer.record(self.compression, &self.pack(record)).expect("into memory");
    }
}
