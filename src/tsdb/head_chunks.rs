//! `chunks_head/NNNNNN`: full chunks of the head, which a start need not take from the log again.
//!
//! A file: BE32 magic, u8 version, 3 zeros; then chunks: BE64 series ref, BE64 min time, BE64 max time, u8 encoding (bit 7: of
//! out-of-order samples), uvarint length of the data, data, BE32 CRC-32C of all that. Files are made longer than they
//! need be, and so end in zeros. Source: `tsdb/chunks/head_chunks.go`.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::chunk::{ChunkError, Encoding, each_sample, is_from_to};
use crate::wal::ReadAt;
use crate::wal::source::read_full;

/// The directory of head chunks.
pub const CHUNKS_HEAD: &str = "chunks_head";

/// Bytes before the first chunk.
const FILE_HEADER: u64 = 8;
/// What a file begins with.
pub const HEAD_CHUNKS_HEADER: [u8; 8] = [0x01, 0x30, 0xBC, 0x91, VERSION, 0, 0, 0];
const MAGIC: [u8; 4] = [0x01, 0x30, 0xBC, 0x91];
const VERSION: u8 = 1;

/// The most that a chunk takes besides its data (`MaxHeadChunkMetaSize`).
const MAX_META: usize = 34;
const CHECKSUM_SIZE: u64 = 4;

/// Bytes that are read at once.
const WINDOW: usize = 64 << 10;

/// The longest data that are decoded. Prometheus ends a chunk at about 1 KiB, or after ten large histograms; a longer one may
/// ask for a hundred times its size.
const MOST_DECODED: u64 = 256 << 10;

/// A chunk, but for its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadChunk {
    /// The series.
    pub series_ref: u64,
    /// Where it is: the file's number in the high 32 bits, its offset there in the low ones (`ChunkDiskMapperRef`).
    pub chunk_ref: u64,
    /// Where it ends in the file, after its checksum.
    pub end: u64,
    /// The time of its first sample, ms.
    pub min_time: i64,
    /// The time of its last sample, ms.
    pub max_time: i64,
    /// How its samples are encoded (`tsdb/chunkenc/chunk.go`): 1 XOR, 2 histogram, 3 float histogram, 4 XOR2, 5 histogram and 6
    /// float histogram with start timestamps; others mean nothing to Prometheus, which skips them.
    pub encoding: u8,
    /// Whether its samples came out of order.
    pub out_of_order: bool,
    /// How many samples it says it has, staleness markers among them.
    pub samples: u16,
}

/// What is wrong in a file, in the words of `IterateAllChunks`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadChunkError {
    /// Something that is not zero, and too little of it for a chunk.
    #[error(
        "head chunk file has some unread data, but doesn't include enough bytes to read the chunk header - \
         required:{required}, available:{available}, file:{file}"
    )]
    Unread {
        /// Offset up to which the file would have to reach.
        required: u64,
        /// Bytes of the file.
        available: u64,
        /// Its number.
        file: i64,
    },
    /// A chunk that is longer than what is left of the file.
    #[error(
        "head chunk file doesn't include enough bytes to read the chunk header - \
         required:{required}, available:{available}, file:{file}"
    )]
    Cut {
        /// Offset up to which the file would have to reach.
        required: u64,
        /// Bytes of the file.
        available: u64,
        /// Its number.
        file: i64,
    },
    /// A file with the number 0, which Prometheus takes for the one that it has not started yet.
    #[error(
        "head chunk file doesn't include enough bytes to read the last chunk data - required:8, available:0, file:0"
    )]
    Zero,
    /// A chunk without the checksum after it.
    #[error("checksum mismatch expected:{stored:x}, actual:{computed:x}")]
    Checksum {
        /// As it is there.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// The medium does not give the bytes, or fewer than there were. Prometheus dies of that: it maps the file.
    #[error("{0}")]
    Unreadable(String),
}

/// What is wrong with a chunk that matches its checksum. Prometheus loads it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadChunkFault {
    /// It ends before the samples that it says it has, or they are encoded as no writer does it.
    Undecodable(ChunkError),
    /// Its samples begin or end at another time than it says, do not follow each other in time, or there are none.
    Times,
}

/// Walks over the chunks of one file, a window at a time.
///
/// Behind the first error Prometheus reads no more. Going on is safe: only what has its checksum is given out.
#[derive(Debug)]
pub struct HeadChunkIter<S> {
    source: S,
    file: i64,
    length: u64,
    at: u64,
    /// Where the data of the last chunk is.
    data: Range<u64>,
    base: u64,
    window: Vec<u8>,
    started: bool,
    finished: bool,
}

impl<S: ReadAt> HeadChunkIter<S> {
    /// Over the first `length` bytes of the file with that number, whose header is as it should be.
    pub fn new(source: S, length: u64, file: i64) -> Self {
        Self {
            source,
            file,
            length,
            at: FILE_HEADER,
            data: 0..0,
            base: 0,
            window: Vec::new(),
            started: false,
            finished: false,
        }
    }

    /// Where the next chunk begins in the file.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What is wrong with the samples of `chunk`, which is the last one that was given out. Nothing is said of a chunk whose
    /// encoding has no meaning, or that is longer than any that Prometheus writes.
    ///
    /// # Errors
    /// If it has to be read again, and cannot be.
    pub fn fault(&mut self, chunk: &HeadChunk) -> Result<Option<HeadChunkFault>, HeadChunkError> {
        let Some(encoding) = Encoding::of(chunk.encoding) else { return Ok(None) };
        let data = self.data.clone();
        if data.end - data.start > MOST_DECODED {
            return Ok(None);
        }
        let bytes = self.bytes(data)?;
        if is_from_to(encoding, bytes, (chunk.min_time, chunk.max_time)) == Some(true) {
            return Ok(None);
        }
        let (mut first, mut last, mut increases) = (None, None, true);
        let decoded = each_sample(encoding, bytes, |sample| {
            let t = sample.t();
            increases &= last.is_none_or(|last| last < t);
            first.get_or_insert(t);
            last = Some(t);
        });
        if let Err(error) = decoded {
            return Ok(Some(HeadChunkFault::Undecodable(error)));
        }
        // Prometheus 2.54 took a later time for the first when it gave a late chunk new buckets (`ToEncodedChunks`, fixed by
        // 1ea3781699).
        let may_begin_before =
            chunk.out_of_order && matches!(encoding, Encoding::Histogram | Encoding::FloatHistogram);
        let begins =
            first.is_some_and(|first| first == chunk.min_time || may_begin_before && first < chunk.min_time);
        let is_right = begins && last == Some(chunk.max_time) && increases;
        Ok((!is_right).then_some(HeadChunkFault::Times))
    }

    fn chunk(&mut self) -> Result<Option<HeadChunk>, HeadChunkError> {
        let start = self.at;
        let left = self.length.saturating_sub(start);
        if left == 0 {
            self.finished = true;
            return Ok(None);
        }
        if left < MAX_META as u64 {
            self.finished = true;
            let rest = self.bytes(start..self.length)?;
            return if rest.iter().all(|&byte| byte == 0) {
                Ok(None)
            } else {
                let required = start.saturating_add(MAX_META as u64);
                Err(HeadChunkError::Unread { required, available: self.length, file: self.file })
            };
        }
        let head: [u8; MAX_META] =
            self.bytes(start..start + MAX_META as u64)?.try_into().unwrap_or([0; MAX_META]);
        let be64 = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let (series_ref, min_time, max_time) = (be64(0), be64(8).cast_signed(), be64(16).cast_signed());
        if (series_ref, min_time, max_time) == (0, 0, 0) {
            self.finished = true;
            return Ok(None);
        }
        let (data_length, field) = length_of_data(&head[25..30]);
        let data = start + 25 + field as u64;
        let end = data.saturating_add(data_length);
        let required = end.saturating_add(CHECKSUM_SIZE);
        if required > self.length {
            self.finished = true;
            return Err(HeadChunkError::Cut { required, available: self.length, file: self.file });
        }
        // Prometheus looks at these two whatever the length is.
        let samples = u16::from_be_bytes([head[25 + field], head[26 + field]]);
        self.at = required;
        self.data = data..end;
        self.verify(start..end)?;
        let encoding = head[24] & 0x7f;
        Ok(Some(HeadChunk {
            series_ref,
            chunk_ref: (self.file.cast_unsigned() << 32) | start,
            end: required,
            min_time,
            max_time,
            encoding,
            out_of_order: head[24] & 0x80 != 0,
            // The counter reset hint is in the two highest bits (`HistogramSTChunk`, `tsdb/chunkenc/histogram_st.go`).
            samples: if matches!(encoding, 5 | 6) { samples & 0x3fff } else { samples },
        }))
    }

    fn verify(&mut self, range: Range<u64>) -> Result<(), HeadChunkError> {
        if range.end + CHECKSUM_SIZE - range.start <= WINDOW as u64 {
            // Read at once.
            self.bytes(range.start..range.end + CHECKSUM_SIZE)?;
        }
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        self.stretch(range.clone(), |bytes| digest.update(bytes))?;
        let computed = u32::try_from(digest.finalize()).unwrap_or(0);
        let mut stored = [0; 4];
        stored.copy_from_slice(self.bytes(range.end..range.end + CHECKSUM_SIZE)?);
        let stored = u32::from_be_bytes(stored);
        if computed == stored {
            return Ok(());
        }
        // A second witness, as everywhere (`wal::crc`).
        let mut second = 0;
        self.stretch(range, |bytes| second = crc32c::crc32c_append(second, bytes))?;
        if second == stored { Ok(()) } else { Err(HeadChunkError::Checksum { stored, computed: second }) }
    }

    /// Calls `take` for all bytes of a range, piece by piece.
    fn stretch(&mut self, range: Range<u64>, mut take: impl FnMut(&[u8])) -> Result<(), HeadChunkError> {
        let mut at = range.start;
        while at < range.end {
            let piece = at..range.end.min(at + WINDOW as u64);
            take(self.bytes(piece.clone())?);
            at = piece.end;
        }
        Ok(())
    }

    /// The bytes of a range, which all are in memory then.
    fn bytes(&mut self, range: Range<u64>) -> Result<&[u8], HeadChunkError> {
        if range.start < self.base || range.end > self.base + self.window.len() as u64 {
            self.fill(range.clone()).map_err(|e| self.unreadable(&e.to_string()))?;
        }
        let place =
            |offset: u64| offset.checked_sub(self.base).and_then(|offset| usize::try_from(offset).ok());
        let place = place(range.start).zip(place(range.end)).map(|(start, end)| start..end);
        if place.clone().and_then(|place| self.window.get(place)).is_none() {
            return Err(self.unreadable("the file has become shorter"));
        }
        Ok(place.and_then(|place| self.window.get(place)).unwrap_or_default())
    }

    fn unreadable(&mut self, why: &str) -> HeadChunkError {
        self.finished = true;
        HeadChunkError::Unreadable(why.to_owned())
    }

    fn fill(&mut self, range: Range<u64>) -> io::Result<()> {
        self.base = range.start;
        let most = usize::try_from(range.end - range.start).unwrap_or(WINDOW).max(WINDOW);
        let wanted = usize::try_from(self.length.saturating_sub(range.start)).unwrap_or(most).min(most);
        self.window.resize(wanted, 0);
        let filled = read_full(&self.source, &mut self.window, range.start);
        self.window.truncate(filled.as_ref().copied().unwrap_or(0));
        filled.map(drop)
    }
}

impl<S: ReadAt> Iterator for HeadChunkIter<S> {
    type Item = Result<HeadChunk, HeadChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if !std::mem::replace(&mut self.started, true) && self.file == 0 {
            return Some(Err(HeadChunkError::Zero));
        }
        self.chunk().transpose()
    }
}

/// A uvarint of at most five bytes and the bytes that it takes; 0 and 0 if it does not end there (`binary.Uvarint`).
fn length_of_data(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return (value, index + 1);
        }
    }
    (0, 0)
}

/// A file of head chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadChunkFile {
    /// Its number.
    pub index: i64,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// How long it was when it was listed, in bytes.
    pub length: u64,
}

impl HeadChunkFile {
    /// The name that Prometheus gives a file of that number (`segmentFile`).
    #[must_use]
    pub fn right_name(&self) -> String {
        format!("{:06}", self.index)
    }

    /// For what every start refuses to open it, in words.
    #[must_use]
    pub fn header_error(&self) -> Option<String> {
        match beginning(self) {
            Ok(header) if header.is_empty() => Some("it is empty".to_owned()),
            Ok(header) => why_not(&header),
            Err(error) => Some(in_words(&error)),
        }
    }

    /// Its chunks.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn chunks(&self) -> io::Result<HeadChunkIter<File>> {
        Ok(HeadChunkIter::new(crate::io::open(&self.path)?, self.length, self.index))
    }
}

/// The files of `chunks_head`, and what opening them comes to (`openMMapFiles`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadChunkFiles {
    /// Those that hold chunks, by their numbers.
    pub files: Vec<HeadChunkFile>,
    /// The last file, if it has no magic number yet: every start removes it without a word.
    pub unwritten: Option<HeadChunkFile>,
    /// With what error every start fails, if it does.
    pub refusal: Option<String>,
    /// Those whose names are not as Prometheus writes them, in the order of their numbers; also such as it skips for others
    /// of the same number. It looks for the name that it writes when it removes a file.
    pub misnamed: Vec<HeadChunkFile>,
}

/// Lists and opens the files in `directory`, which Prometheus calls `shown`. No directory, no files.
///
/// # Errors
/// If the directory is there and cannot be listed.
pub fn list_head_chunks(directory: &Path, shown: &str) -> io::Result<HeadChunkFiles> {
    let mut files = HeadChunkFiles { files: list(directory)?, ..HeadChunkFiles::default() };
    files.misnamed = files.files.iter().filter(|file| file.name != file.right_name()).cloned().collect();
    // Of two names with one number, the last in the order of names (`listChunkFiles`).
    files.files.dedup_by_key(|file| file.index);
    match is_unwritten(files.files.last()) {
        Ok(true) => files.unwritten = files.files.pop(),
        Ok(false) => {}
        Err(e) => {
            let named = files.files.last().map_or("", |file| &file.name);
            files.refusal = Some(format!(
                "failed to read magic number during last head chunk file repair: read {shown}/{named}: {}",
                in_words(&e)
            ));
        }
    }
    if files.refusal.is_none() {
        files.refusal = refusal(&files.files, shown);
    }
    Ok(files)
}

/// By number, and of one number the last in the order of names first.
fn list(directory: &Path) -> io::Result<Vec<HeadChunkFile>> {
    // Behind a link they are not of this directory.
    if directory.is_symlink() {
        return Ok(Vec::new());
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(index) = number(&name) else { continue };
        let length = match entry.path().symlink_metadata() {
            Ok(metadata) => metadata.len(),
            // A server removes them.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        files.push(HeadChunkFile { index, name, path: entry.path(), length });
    }
    files.sort_by(|a, b| (a.index, &b.name).cmp(&(b.index, &a.name)));
    Ok(files)
}

/// As `strconv.ParseUint` has it.
fn number(name: &str) -> Option<i64> {
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse::<u64>().ok()).flatten().map(u64::cast_signed)
}

/// `repairLastChunkFile`.
fn is_unwritten(last: Option<&HeadChunkFile>) -> io::Result<bool> {
    let Some(last) = last.filter(|last| last.index > 0) else { return Ok(false) };
    let magic = beginning(last)?;
    Ok(magic.len() < 4 || magic.iter().take(4).all(|&byte| byte == 0))
}

/// The first eight bytes, or what there is of them.
fn beginning(file: &HeadChunkFile) -> io::Result<Vec<u8>> {
    let opened = crate::io::open(&file.path).map_err(|error| match error.kind() {
        // As Prometheus says it.
        io::ErrorKind::IsADirectory => io::ErrorKind::IsADirectory.into(),
        _ => error,
    })?;
    let mut bytes = vec![0; 8];
    let filled = read_full(&opened, &mut bytes, 0)?;
    bytes.truncate(filled);
    Ok(bytes)
}

fn refusal(files: &[HeadChunkFile], shown: &str) -> Option<String> {
    let mut headers = Vec::new();
    for file in files {
        match beginning(file) {
            Ok(header) if header.is_empty() => {
                let path = format!("{shown}/{}", file.name);
                return Some(format!("mmap files, file: {path}: mmap, size 0: invalid argument"));
            }
            Ok(header) => headers.push(header),
            Err(e) => {
                return Some(format!("mmap files, file: {shown}/{}: {}", file.name, in_words(&e)));
            }
        }
    }
    for pair in files.windows(2) {
        if let [a, b] = pair
            && a.index.wrapping_add(1) != b.index
        {
            return Some(format!(
                "found unsequential head chunk files {shown}/{} (index: {}) and {shown}/{} (index: {})",
                a.name, a.index, b.name, b.index
            ));
        }
    }
    // Prometheus looks at them in no order.
    let why = |(file, header)| Some((file, why_not(header)?));
    let (file, why): (&HeadChunkFile, _) =
        files.iter().zip(headers.iter().map(Vec::as_slice)).find_map(why)?;
    Some(format!("{shown}/{}: {why}", file.name))
}

/// What is wrong with the first bytes of a file.
fn why_not(header: &[u8]) -> Option<String> {
    Some(match header {
        [a, b, c, d, ..] if [*a, *b, *c, *d] != MAGIC && header.len() == 8 => {
            format!("invalid magic number {:x}", u32::from_be_bytes([*a, *b, *c, *d]))
        }
        [_, _, _, _, version, _, _, _] if *version != VERSION => {
            format!("invalid chunk format version {version}")
        }
        [_, _, _, _, _, _, _, _] => return None,
        _ => "invalid head chunk file header: invalid size".into(),
    })
}

/// As Go says it: without the number of the error.
fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk of one sample, 42 at 1000, of series 1, as Prometheus writes it.
    const FILE: [u8; 47] = [
        0x01, 0x30, 0xBC, 0x91, 0x01, 0, 0, 0, //
        0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x03, 0xE8, 0, 0, 0, 0, 0, 0, 0x03, 0xE8, //
        0x01, 0x0C, 0x00, 0x01, 0xD0, 0x0F, 0x40, 0x45, 0, 0, 0, 0, 0, 0, 0x86,
    ];

    fn file() -> Vec<u8> {
        [&FILE[..], &[0x81, 0x24, 0x86]].concat()
    }

    fn read(bytes: &[u8]) -> Vec<Result<HeadChunk, HeadChunkError>> {
        HeadChunkIter::new(bytes, bytes.len() as u64, 3).collect()
    }

    #[test]
    fn a_chunk_as_prometheus_writes_it() {
        let chunk = HeadChunk {
            series_ref: 1,
            chunk_ref: (3 << 32) | 8,
            end: file().len() as u64,
            min_time: 1000,
            max_time: 1000,
            encoding: 1,
            out_of_order: false,
            samples: 1,
        };
        assert_eq!(read(&file()), [Ok(chunk)]);
        // Preallocated.
        let longer = [file(), vec![0; 1000]].concat();
        assert_eq!(read(&longer), [Ok(chunk)]);
    }

    #[test]
    fn behind_an_error_what_has_its_checksum_is_still_there() {
        let mut bytes = [&file()[..], &file()[8..]].concat();
        bytes[40] ^= 1;
        let read = read(&bytes);
        assert!(matches!(read[0], Err(HeadChunkError::Checksum { stored: 0x8681_2486, .. })), "{read:?}");
        assert_eq!(read[1].as_ref().map(|chunk| chunk.chunk_ref), Ok((3 << 32) + 50));
    }

    #[test]
    fn every_cut_ends_in_an_error_or_before_the_chunk() {
        let all = file();
        for length in 0..all.len() {
            let read = read(&all[..length]);
            let right = match length {
                // Nothing, or the first seven bytes of the ref, which are zeros.
                0..=15 => read.is_empty(),
                16..42 => matches!(read[..], [Err(HeadChunkError::Unread { .. })]),
                _ => matches!(read[..], [Err(HeadChunkError::Cut { required: 50, .. })]),
            };
            assert!(right, "{length}: {read:?}");
        }
    }

    #[test]
    fn a_medium_that_fails_is_an_error_and_no_panic() {
        struct Fails;
        impl ReadAt for Fails {
            fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<usize> {
                Err(io::Error::other("bad sector"))
            }
        }
        let read: Vec<_> = HeadChunkIter::new(Fails, 1 << 40, 1).collect();
        assert_eq!(read, [Err(HeadChunkError::Unreadable("bad sector".into()))]);
        let read: Vec<_> = HeadChunkIter::new(&file()[..], u64::MAX, i64::MIN).collect();
        assert!(matches!(read[..], [Ok(_), Err(HeadChunkError::Unreadable(_))]), "{read:?}");
    }
}
