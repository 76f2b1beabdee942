//! Cuts small real inputs for every target out of logs: `seeds CORPUS SEGMENT...`.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use walfix::wal::{Compression, Event, PAGE_SIZE, SegmentReader};

/// Bytes of the longest record that is taken as a seed: short ones are tried more often.
const SHORT: usize = 2048;

/// Of each kind, from one segment.
const MOST: usize = 6;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let corpus = args.next().ok_or("usage: seeds CORPUS SEGMENT...")?;
    let corpus = Path::new(&corpus);
    for segment in args {
        let bytes = fs::read(&segment)?;
        for target in ["page", "reader", "salvage", "replay"] {
            put(corpus, target, &[&[0], &bytes[..bytes.len().min(600)]])?;
            put(corpus, target, &[&[1], &bytes[..bytes.len().min(PAGE_SIZE + 600)]])?;
        }
        let mut taken = HashMap::new();
        let mut reader = SegmentReader::new(&bytes[..], bytes.len() as u64);
        while let Some(event) = reader.next() {
            let Event::Record(record) = event else { continue };
            if record.data.len() > SHORT {
                continue;
            }
            let kind = (record.data.first().copied(), record.compression);
            let count = taken.entry(kind).or_insert(0);
            if *count == MOST {
                continue;
            }
            *count += 1;
            put(corpus, "record", &[record.data])?;
            put(corpus, "snapshot_record", &[record.data])?;
            let stored: Vec<u8> = record
                .fragments
                .iter()
                .flat_map(|f| &bytes[usize::try_from(f.start).unwrap() + 7..usize::try_from(f.end).unwrap()])
                .copied()
                .collect();
            match record.compression {
                Compression::None => {}
                Compression::Snappy => put(corpus, "unpack", &[&[0], &stored])?,
                Compression::Zstd => put(corpus, "unpack", &[&[1], &stored])?,
            }
        }
    }
    recipes(corpus)
}

/// Recipes of logs, one for each kind of record and of damage.
fn recipes(corpus: &Path) -> Result<(), Box<dyn Error>> {
    for target in ["page", "reader", "salvage", "replay"] {
        for op in 0..36_u8 {
            // A short record before, the one in question twice, a short one after.
            let recipe = [2, 0, 2, 200, 1, op, 7, 1, 2, 3, op, 9, 3, 2, 1, 0, 2, 201, 2];
            put(corpus, target, &[&recipe])?;
        }
        for kind in 0x80..0x8a_u8 {
            let recipe =
                [2, 0, 2, 200, 1, 16, 1, 1, 9, 9, 24, 0, 15, 0, 0, 2, 201, 2, kind, 0, 80, 7, 0, 1, 3];
            put(corpus, target, &[&recipe])?;
        }
    }
    Ok(())
}

fn put(corpus: &Path, target: &str, parts: &[&[u8]]) -> Result<(), Box<dyn Error>> {
    let bytes = parts.concat();
    let folder = corpus.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{:08x}-{}", crc32c::crc32c(&bytes), bytes.len())), bytes)?;
    Ok(())
}
