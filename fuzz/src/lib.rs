//! What the targets share: logs made of the fuzzer's bytes, and what must be true of any reading of them.
//!
//! A fuzzer cannot guess a checksum. So its bytes are, by the first of them, taken as they are, or as a log whose
//! checksums are set right, or as a recipe: which records to write, by the writer's rules, and what to damage then.

use std::ops::Range;

use walfix::wal::{Compression, PAGE_SIZE};

/// Bytes of a fragment's header.
const HEADER: usize = 7;

/// The recipe writes no more pages than this, so that a run stays short.
const MOST_PAGES: usize = 5;

/// The fuzzer's bytes, taken from the front; zeros when there are no more.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Below 2^24.
    pub fn number(&mut self) -> usize {
        (0..3).fold(0, |number, _| number << 8 | usize::from(self.byte()))
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// A segment.
#[derive(Default)]
pub struct Log {
    pub bytes: Vec<u8>,
    /// What is in it, unpacked, if it was written and nothing was done to it afterwards.
    pub healthy: Option<Vec<Vec<u8>>>,
}

/// The segment that `input` stands for.
pub fn log(input: &[u8]) -> Log {
    let mut input = Input::new(input);
    match input.byte() % 4 {
        0 => Log { bytes: input.rest().to_vec(), healthy: None },
        1 => {
            let mut bytes = input.rest().to_vec();
            set_checksums(&mut bytes);
            Log { bytes, healthy: None }
        }
        _ => written(&mut input),
    }
}

/// Sets the checksum of each fragment as headers tell, up to the first that is none.
pub fn set_checksums(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE_SIZE) {
        let mut at = 0;
        while at + HEADER <= page.len() && page[at] & 7 != 0 {
            let end = at + HEADER + usize::from(u16::from_be_bytes([page[at + 1], page[at + 2]]));
            if end > page.len() {
                break;
            }
            let crc = crc32c::crc32c(&page[at + HEADER..end]);
            page[at + 3..at + HEADER].copy_from_slice(&crc.to_be_bytes());
            at = end;
        }
    }
}

fn written(input: &mut Input<'_>) -> Log {
    let mut log = Vec::new();
    let mut records = Vec::new();
    let mut edits = Vec::new();
    while !input.is_empty() && log.len() < MOST_PAGES * PAGE_SIZE {
        let op = input.byte();
        if op & 0x80 != 0 {
            edits.push((op & 0x7f, input.number(), input.number()));
            continue;
        }
        let record = record(op >> 2, log.len(), input);
        let compression = [Compression::None, Compression::None, Compression::Snappy, Compression::Zstd];
        write(&mut log, &record, compression[usize::from(op & 3)]);
        records.push(record);
    }
    edits.truncate(8);
    let healthy = edits.is_empty().then_some(records);
    for (kind, at, length) in edits {
        damage(&mut log, kind, at, length);
    }
    Log { bytes: log, healthy }
}

fn record(kind: u8, log_length: usize, input: &mut Input<'_>) -> Vec<u8> {
    match kind % 9 {
        0 | 1 => {
            let length = input.byte();
            input.take(length.into()).to_vec()
        }
        2 => noise(input.byte(), input.number() % 4096),
        // Up to the page end, or nearly.
        3 => {
            let left = PAGE_SIZE - log_length % PAGE_SIZE;
            noise(input.byte(), left.saturating_sub(HEADER + usize::from(input.byte() % 16)))
        }
        4 => noise(input.byte(), input.number() % (3 * PAGE_SIZE)),
        5 => samples(input, 8),
        6 => samples(input, 4000),
        7 => {
            let name = input.byte() % 32;
            series(&[input.byte()], input.take(name.into()))
        }
        // A log in a label.
        _ => {
            let length = input.byte();
            let mut inner = Vec::new();
            write(&mut inner, input.take(length.into()), Compression::None);
            series(&[input.byte()], &inner)
        }
    }
}

/// Bytes that do not repeat themselves.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) | 0x9E37_7900;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    // Of a type that Prometheus does not know, half of the time.
    let mut bytes: Vec<u8> = (0..length).map(|_| next()).collect();
    if let Some(first) = bytes.first_mut() {
        *first |= seed & 0x80;
    }
    bytes
}

fn samples(input: &mut Input<'_>, most: usize) -> Vec<u8> {
    let samples: Vec<_> = (0..input.number() % most)
        .map(|i| walfix::record::SampleEntry {
            series_ref: 1 + i as u64,
            t: 1_700_000_000_000 + i as i64 % 7,
            st: 0,
            value_bits: (i as f64).to_bits(),
        })
        .collect();
    let mut out = Vec::new();
    walfix::record::encode_samples(&samples, &mut out);
    out
}

fn series(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    walfix::record::encode_series([(u64::from(name[0]), [(name, value)])], &mut out);
    out
}

/// Appends a record as Prometheus's writer does (`WL.log`, `tsdb/wlog/wlog.go`).
pub fn write(log: &mut Vec<u8>, record: &[u8], compression: Compression) {
    let packed = match compression {
        Compression::None => record.to_vec(),
        Compression::Snappy => snap::raw::Encoder::new().compress_vec(record).unwrap(),
        Compression::Zstd => {
            let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
            zstd.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
            zstd.compress(record).unwrap()
        }
    };
    let (mut rest, flags) =
        if packed.len() < record.len() { (&packed[..], compression.bits()) } else { (record, 0) };
    let mut first = true;
    loop {
        let left = PAGE_SIZE - log.len() % PAGE_SIZE;
        if left < HEADER {
            log.resize(log.len() + left, 0);
            continue;
        }
        let (part, after) = rest.split_at(rest.len().min(left - HEADER));
        let kind = match (first, after.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
            (false, true) => 4,
        };
        log.push(kind | flags);
        log.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
        log.extend_from_slice(&crc32c::crc32c(part).to_be_bytes());
        log.extend_from_slice(part);
        (rest, first) = (after, false);
        if rest.is_empty() {
            return;
        }
    }
}

fn damage(log: &mut Vec<u8>, kind: u8, at: usize, length: usize) {
    if log.is_empty() {
        return;
    }
    let at = at % log.len();
    let page = |number: usize| {
        let start = number % log.len().div_ceil(PAGE_SIZE) * PAGE_SIZE;
        start..(start + PAGE_SIZE).min(log.len())
    };
    match kind % 10 {
        0 | 1 => log[at] ^= 1 << (length % 8),
        2 => log[at] = length as u8,
        3 => {
            let end = (at + length % 600).min(log.len());
            log[at..end].fill((length >> 16) as u8);
        }
        4 => log.truncate(at),
        5 => {
            let range = page(at);
            log[range].fill(0);
        }
        6 => {
            let (from, to) = (page(at), page(length));
            let count = from.len().min(to.len());
            log.copy_within(from.start..from.start + count, to.start);
        }
        7 => {
            let (from, to) = (page(at), page(length));
            let copy = log[from].to_vec();
            log.splice(to.start..to.start, copy);
        }
        8 => log.resize(log.len() + length % (2 * PAGE_SIZE), 0),
        // Checksums set right after an edit: what the fragments say together is wrong.
        _ => {
            log[at] ^= length as u8;
            set_checksums(log);
        }
    }
}

/// What must be true of any reading of a segment.
pub struct Judge<'a> {
    bytes: &'a [u8],
    told: Vec<bool>,
    last_end: u64,
    records: Vec<Vec<u8>>,
    damages: usize,
}

impl<'a> Judge<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, told: vec![false; bytes.len()], last_end: 0, records: Vec::new(), damages: 0 }
    }

    /// A record that was yielded.
    pub fn record(
        &mut self,
        offset: u64,
        end: u64,
        fragments: &[Range<u64>],
        compression: Compression,
        data: &[u8],
    ) {
        assert!(self.last_end <= offset, "the record at {offset} begins before {}", self.last_end);
        assert_eq!(Some(offset), fragments.first().map(|first| first.start));
        assert_eq!(Some(end), fragments.last().map(|last| last.end));
        self.last_end = end;
        let mut stored = Vec::new();
        for pair in fragments.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "a gap within a record");
        }
        for fragment in fragments {
            let range = index(fragment);
            let bytes = self.bytes.get(range.clone()).expect("a record within the file");
            assert!(bytes.len() >= HEADER);
            assert_eq!(range.start / PAGE_SIZE, (range.end - 1) / PAGE_SIZE, "a fragment crosses a page end");
            assert_eq!(bytes.len(), HEADER + usize::from(u16::from_be_bytes([bytes[1], bytes[2]])));
            assert_eq!(crc32c::crc32c(&bytes[HEADER..]).to_be_bytes(), bytes[3..HEADER]);
            stored.extend_from_slice(&bytes[HEADER..]);
            self.told[range].fill(true);
        }
        match compression {
            _ if stored.is_empty() => assert!(data.is_empty()),
            Compression::None => assert_eq!(stored, data),
            Compression::Snappy => {
                assert_eq!(snap::raw::Decoder::new().decompress_vec(&stored).unwrap(), data)
            }
            Compression::Zstd => assert_eq!(zstd::stream::decode_all(&stored[..]).unwrap(), data),
        }
        self.records.push(data.to_vec());
    }

    /// Bytes that were called damaged, and what goes with them.
    pub fn damage(&mut self, range: &Range<u64>, orphans: &[Range<u64>]) {
        self.damages += 1;
        for range in std::iter::once(range).chain(orphans) {
            let range = index(range);
            assert!(
                range.start < range.end && range.end <= self.bytes.len(),
                "{range:?} of {}",
                self.bytes.len()
            );
            self.told[range].fill(true);
        }
    }

    /// All has been read. `healthy` is what was written, if the log is.
    pub fn end(self, healthy: Option<&[Vec<u8>]>) {
        for (at, (&byte, &told)) in self.bytes.iter().zip(&self.told).enumerate() {
            assert!(byte == 0 || told, "nothing is said of byte {at}");
        }
        if let Some(written) = healthy
            && !has_equal_pages(self.bytes)
        {
            assert_eq!(self.damages, 0, "damage in a healthy log");
            assert!(self.records == written, "other records than were written");
        }
    }
}

fn index(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// Two equal pages: one of them may be called a copy.
fn has_equal_pages(bytes: &[u8]) -> bool {
    let pages: Vec<_> = bytes.chunks_exact(PAGE_SIZE).collect();
    pages.iter().enumerate().any(|(i, page)| pages[..i].contains(page))
}
