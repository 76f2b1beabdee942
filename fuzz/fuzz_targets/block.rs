//! The files of a block with any bytes in them are read in bounded memory. Checksums are made right, so that what is behind them is
//! reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::block::{Index, chunk_at, header_error, parse_tombstones, postings_at, salvage_tombstones};

fn put_section(file: &mut Vec<u8>, contents: &[u8]) -> u64 {
    let at = file.len() as u64;
    file.extend(u32::try_from(contents.len()).unwrap_or(0).to_be_bytes());
    file.extend(contents);
    file.extend(crc32c::crc32c(contents).to_be_bytes());
    at
}

/// An index of these contents, whose checksums are right.
fn index_of(version: u8, symbols: &[u8], series: &[&[u8]], list: &[u8], table: &[u8]) -> Vec<u8> {
    let mut file = vec![0xBA, 0xAA, 0xD7, 0x00, 1 + version % 3];
    let symbols_at = put_section(&mut file, symbols);
    let series_at = file.len() as u64;
    for body in series {
        file.resize(file.len().next_multiple_of(16), 0);
        // One byte of length is enough.
        let body = &body[..body.len().min(127)];
        file.push(u8::try_from(body.len()).unwrap_or(0));
        file.extend(body);
        file.extend(crc32c::crc32c(body).to_be_bytes());
    }
    let end = file.len() as u64;
    file.resize(file.len().next_multiple_of(4), 0);
    put_section(&mut file, list);
    let table_at = put_section(&mut file, table);
    let toc: Vec<u8> = [symbols_at, series_at, end, table_at, end, table_at]
        .iter()
        .flat_map(|at| at.to_be_bytes())
        .collect();
    file.extend(&toc);
    file.extend(crc32c::crc32c(&toc).to_be_bytes());
    file
}

fn walk(file: &[u8]) {
    let Ok(index) = Index::open(file) else { return };
    let (mut labels, mut chunks) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(series) = index.next_series(at) {
        assert!(series.offset >= at && series.end > series.offset && series.end <= file.len() as u64);
        at = series.end;
        let _ = series.read(&mut labels, &mut chunks);
        for label in &labels {
            let (known, read) = (index.symbols.has(label.name), index.symbols.get(label.name));
            assert!(!known || read.is_some());
        }
    }
    let mut symbols = 0;
    for symbol in index.symbols.iter() {
        symbols += 1;
        let _ = index.symbols.name_of(symbol);
    }
    assert_eq!(symbols, index.symbols.count());
    for entry in index.table.iter().flatten() {
        if let Ok(ids) = postings_at(file, entry.offset) {
            assert!(ids.len() * 4 <= file.len());
        }
    }
}

fuzz_target!(|input: &[u8]| {
    walk(input);
    let _ = (parse_tombstones(input), salvage_tombstones(input), header_error(input, 0));
    for at in 0..input.len().min(64) as u64 {
        if let Ok(chunk) = chunk_at(input, at) {
            assert!(chunk.end <= input.len() as u64);
        }
    }
    let Some((&version, rest)) = input.split_first() else { return };
    let mut parts = rest.split(|&byte| byte == 0xff);
    let mut next = || parts.next().unwrap_or_default();
    let (symbols, list, table) = (next(), next(), next());
    let series: Vec<&[u8]> = parts.collect();
    walk(&index_of(version, symbols, &series, list, table));
});
