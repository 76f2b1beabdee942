//! The least that a scan has to do: opens the segments of a directory, reads them 256 KiB at a time, and makes one
//! CRC-32C of it all. Prints the bytes, and how many seconds that took.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use walfix::wal::crc;
use walfix::wal::segments::segment_index;

const WINDOW: usize = 256 << 10;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).expect("a directory of segments");
    let mut segments: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| segment_index(name).is_some()) {
            segments.push(entry.path());
        }
    }
    segments.sort();
    let mut window = vec![0; WINDOW];
    let begun = Instant::now();
    let (mut bytes, mut checksum) = (0, 0);
    for segment in segments {
        let file = File::open(segment)?;
        let mut at = 0;
        loop {
            let count = file.read_at(&mut window, at)?;
            if count == 0 {
                break;
            }
            checksum ^= crc::checksum(&window[..count]);
            at += count as u64;
        }
        bytes += at;
    }
    let seconds = begun.elapsed().as_secs_f64();
    std::hint::black_box(checksum);
    println!("{bytes} {seconds:.6}");
    Ok(())
}
