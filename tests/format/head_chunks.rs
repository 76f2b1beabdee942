//! Head chunks, as Prometheus's own `ChunkDiskMapper` reads them: the same chunks, the same error in the same words, and the
//! same refusal to open.
//!
//! Over files that are made here and damaged from seeds, and the `chunks_head` of every data directory below the directories
//! that `WALFIX_DIRECTORIES` names (separated by `:`).

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::oracle::{self, Oracle};
use support::seeds;
use support::{note, test};
use walfix::chunk::ChunkError;
use walfix::tsdb::{HeadChunk, HeadChunkFault, HeadChunkIter, list_head_chunks};

/// What one reading comes to.
#[derive(Debug, Default, PartialEq)]
struct Read {
    refusal: Option<String>,
    deleted: Vec<String>,
    chunks: Vec<HeadChunk>,
    error: Option<String>,
}

fn read(directory: &Path) -> Read {
    let listed = list_head_chunks(directory, "chunks_head").unwrap();
    let deleted = listed.unwritten.iter().map(|file| file.name.clone()).collect();
    let mut read = Read { refusal: listed.refusal, deleted, ..Read::default() };
    if read.refusal.is_some() {
        return read;
    }
    for file in listed.files {
        for chunk in file.chunks().unwrap() {
            match chunk {
                Ok(chunk) => read.chunks.push(HeadChunk { end: 0, ..chunk }),
                Err(e) => {
                    read.error =
                        Some(format!("corruption in head chunk file chunks_head/{:06}: {e}", file.index));
                    return read;
                }
            }
        }
    }
    read
}

fn judged(oracle: Oracle, directory: &Path) -> Read {
    let report = oracle.json(&["chunks"], directory);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let chunk = |chunk: &Value| {
        let number = |key: &str| chunk[key].as_str().unwrap().parse::<i128>().unwrap();
        let encoding = u8::try_from(chunk["encoding"].as_u64().unwrap()).unwrap();
        let peeked = u16::try_from(chunk["peeked"].as_u64().unwrap()).unwrap();
        HeadChunk {
            series_ref: u64::try_from(number("ref")).unwrap(),
            chunk_ref: u64::try_from(number("chunk_ref")).unwrap(),
            // It does not tell.
            end: 0,
            min_time: i64::try_from(number("min_time")).unwrap(),
            max_time: i64::try_from(number("max_time")).unwrap(),
            encoding,
            out_of_order: chunk["out_of_order"].as_bool().unwrap(),
            // Flags in the upper two bits, which Prometheus takes for samples here.
            samples: if [5, 6].contains(&encoding) { peeked & 0x3fff } else { peeked },
        }
    };
    Read {
        refusal: text(&report["open_error"]),
        deleted: report["deleted"].as_array().unwrap().iter().filter_map(text).collect(),
        chunks: report["chunks"].as_array().unwrap().iter().map(chunk).collect(),
        error: text(&report["iterate_error"]),
    }
}

#[test]
fn damaged_files_read_as_prometheus_reads_them() {
    let oracle = oracle::judge("head chunks against Prometheus's own reader");
    let (mut whole, mut errors, mut refusals) = (0, 0, 0);
    for seed in seeds(150) {
        let scratch = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let what = make(scratch.path(), &mut rng);
        let ours = read(scratch.path());
        assert_eq!(ours, judged(oracle, scratch.path()), "WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1: {what}");
        whole += u64::from(ours.refusal.is_none() && ours.error.is_none());
        errors += u64::from(ours.error.is_some());
        refusals += u64::from(ours.refusal.is_some());
    }
    note!("whole {whole}, with an error {errors}, refused {refusals}");
}

#[test]
fn directories_of_servers() {
    let oracle = oracle::judge("head chunks against Prometheus's own reader");
    for directory in below(&std::env::var("WALFIX_DIRECTORIES").unwrap_or_default()) {
        let ours = read(&directory);
        assert_eq!(ours, judged(oracle, &directory), "{}", directory.display());
        note!("{}: {} chunks", directory.display(), ours.chunks.len());
    }
}

fn below(directories: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest: Vec<PathBuf> =
        directories.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
    while let Some(directory) = rest.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() == "chunks_head" {
                found.push(entry.path());
            } else if entry.file_type().unwrap().is_dir() {
                rest.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Makes some files of chunks and does something to one of them.
fn make(directory: &Path, rng: &mut fastrand::Rng) -> String {
    let first = rng.u32(1..4);
    let count = rng.u32(1..4);
    let mut files: Vec<(String, Vec<u8>)> =
        (first..first + count).map(|number| (format!("{number:06}"), file(rng))).collect();
    let victim = rng.usize(..files.len());
    let bytes = &mut files[victim].1;
    let at = rng.usize(..bytes.len());
    let what = match rng.u32(..11) {
        0 => "nothing".to_owned(),
        1 => {
            bytes[at] ^= 1 << rng.u32(..8);
            format!("bit at {at}")
        }
        2 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        3 => {
            let at = rng.usize(..13);
            bytes.truncate(at);
            format!("cut at {at}")
        }
        4 => {
            let end = (at + rng.usize(1..60)).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeros at {at}..{end}")
        }
        5 => {
            let junk = rng.usize(1..80);
            bytes.extend((0..junk).map(|_| rng.u8(..)));
            format!("{junk} bytes appended")
        }
        6 => {
            let at = rng.usize(..8);
            bytes[at] ^= 1 << rng.u32(..8);
            format!("header bit at {at}")
        }
        7 => {
            bytes[..4].fill(0);
            "no magic".to_owned()
        }
        8 => {
            files.remove(victim);
            format!("file {victim} removed")
        }
        9 => {
            let name = ["7", "+4", "0000002", "000009", "0", "x"][rng.usize(..6)];
            files.push((name.to_owned(), file(rng)));
            format!("another called {name}")
        }
        _ => {
            let end = (at + rng.usize(1..20)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = rng.u8(..));
            format!("junk at {at}..{end}")
        }
    };
    for (name, bytes) in &files {
        std::fs::write(directory.join(name), bytes).unwrap();
    }
    let lengths: Vec<_> = files.iter().map(|(name, bytes)| (name, bytes.len())).collect();
    format!("{what} of file {victim} of {lengths:?}")
}

/// A file as Prometheus writes it, now and then longer than what is read at once.
fn file(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = vec![0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0];
    for number in 0..rng.i64(1..7) {
        let start = bytes.len();
        bytes.extend(rng.u64(1..5).to_be_bytes());
        let time = 1000 * number + rng.i64(0..900);
        bytes.extend(time.to_be_bytes());
        bytes.extend((time + rng.i64(0..90)).to_be_bytes());
        bytes.push(rng.u8(..8) | if rng.bool() { 0x80 } else { 0 });
        let longest = if rng.u32(..10) == 0 { 100_000 } else { 300 };
        let mut length = rng.usize(..longest);
        let data: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        bytes.extend(data);
        bytes.extend(crc32c::crc32c(&bytes[start..]).to_be_bytes());
    }
    let zeros = [0, 1, 33, 34, 60, 100][rng.usize(..6)];
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}

/// Chunks that match their checksums: what Prometheus's iterators make of their samples.
#[test]
fn what_is_wrong_with_samples() {
    let oracle = oracle::judge("samples of head chunks against Prometheus's own iterators");
    let (mut fine, mut undecodable, mut of_other_times) = (0, 0, 0);
    oracle.chunks(&["--count", "600"], |chunk| {
        let digits = chunk["data"].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        let data: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let encoding = u8::try_from(chunk["encoding"].as_u64().unwrap()).unwrap();
        let samples = chunk["samples"].as_array().unwrap().iter();
        let times: Vec<i64> =
            samples.map(|s| s.as_str().unwrap().split(' ').next().unwrap().parse().unwrap()).collect();
        let (first, last) = (*times.first().unwrap_or(&1), *times.last().unwrap_or(&1));
        let increases = times.is_sorted_by(|a, b| a < b);
        // As stated, and late chunks as Prometheus 2.54 stated them.
        for (min, max, late) in [
            (first, last, 0),
            (first + 1, last, 0),
            (first, last - 1, 0),
            (first, last + 1, 0x80),
            (first + 1, last, 0x80),
        ] {
            let fault = fault(&framed(min, max, encoding | late, &data));
            let is_right = !times.is_empty()
                && increases
                && max == last
                && (min == first || late != 0 && [2, 3].contains(&encoding));
            if chunk["error"].is_string() {
                assert!(matches!(fault, Some(HeadChunkFault::Undecodable(_))), "{fault:?}: {chunk}");
                undecodable += 1;
            } else if chunk["damaged"] == true
                && matches!(fault, Some(HeadChunkFault::Undecodable(ChunkError::CutShort { .. })))
            {
                // Prometheus reads bits that are not there, see `chunks.rs`.
            } else if is_right {
                assert_eq!(fault, None, "{chunk}");
                fine += 1;
            } else {
                assert_eq!(fault, Some(HeadChunkFault::Times), "{chunk}");
                of_other_times += 1;
            }
        }
    });
    note!("fine {fine}, undecodable {undecodable}, of other times {of_other_times}");
    assert!(fine > 600 && undecodable > 600 && of_other_times > 600);
}

/// A file of one chunk.
fn framed(min: i64, max: i64, encoding: u8, data: &[u8]) -> Vec<u8> {
    let mut chunk = 7_u64.to_be_bytes().to_vec();
    chunk.extend(min.to_be_bytes());
    chunk.extend(max.to_be_bytes());
    chunk.push(encoding);
    let mut length = data.len();
    while length >= 0x80 {
        chunk.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    chunk.push(u8::try_from(length).unwrap());
    chunk.extend(data);
    chunk.extend(crc32c::crc32c(&chunk).to_be_bytes());
    [&[0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0], &chunk[..], &[0; 100]].concat()
}

fn fault(file: &[u8]) -> Option<HeadChunkFault> {
    let mut chunks = HeadChunkIter::new(file, file.len() as u64, 1);
    let chunk = chunks.next().unwrap().unwrap();
    let fault = chunks.fault(&chunk).unwrap();
    assert!(chunks.next().is_none());
    fault
}

/// The data need not lie in what is read at once; what is longer than any chunk is not decoded.
#[test]
fn long_chunks_are_decoded_up_to_a_bound() {
    let floats = |count: i64| {
        let samples: Vec<(i64, u64)> =
            (0..count).map(|n| (n * 1000, n.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
        (count * 1000 - 1000, walfix::chunk::encode_floats(&samples))
    };
    let (max, data) = floats(20_000);
    assert!(data.len() > 100 << 10);
    assert_eq!(fault(&framed(0, max, 1, &data)), None);
    assert_eq!(fault(&framed(0, max + 1, 1, &data)), Some(HeadChunkFault::Times));
    let (max, data) = floats(40_000);
    assert!(data.len() > 256 << 10);
    assert_eq!(fault(&framed(0, max + 1, 1, &data)), None);
}
