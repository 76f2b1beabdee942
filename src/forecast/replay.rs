//! Prometheus's reader of logs (`Reader`, `tsdb/wlog/reader.go`), to the letter: it stops at the first fault, crosses
//! pages, invents zeros behind a short segment, and joins fragments over padding and from segment to segment.

use std::fmt;

use super::Version;
use super::stream::{Stop, Stream, segment_path};
use crate::record::RecordType;
use crate::wal::compress::{MAX_RECORD, UnpackError, Unpacker, ZstdError, allowance};
use crate::wal::layout::HeadByte;
use crate::wal::{Compression, FragmentType, HEADER_SIZE, PAGE, PAGE_SIZE, ReadAt, crc};

pub use super::decode::{Reader, Reading, ReplayError, read};

/// A segment to be read.
#[derive(Clone, Debug)]
pub struct Part<S> {
    /// Its directory as Prometheus prints it, such as `data/wal`.
    pub dir: String,
    /// Its number.
    pub index: i64,
    /// Its bytes.
    pub source: S,
    /// How many of them there are.
    pub length: u64,
}

/// A fault, and where Prometheus sees it (`CorruptionErr`, `tsdb/wlog/wlog.go`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The directory that it names; for what does not decode it names none.
    pub dir: Option<String>,
    /// The number of the segment.
    pub segment: i64,
    /// How far the segment had been read: the end of what is wrong, and beyond the segment's end where zeros were
    /// invented.
    pub offset: u64,
    /// What is wrong, in Prometheus's words. Of what does not unpack, the words of its decompressors are known for the
    /// usual cases only.
    pub inner: String,
    /// What kind of fault it is.
    pub class: Class,
    /// Which of the parts it is in, counted from 0. Where a record goes on from part to part, the one in which it was
    /// given up.
    pub part: usize,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Bytes that are not zero behind one that says that the page has ended.
    Padding,
    /// A length beyond a page.
    Size,
    /// Another checksum than the header says.
    Checksum,
    /// A fragment that does not fit behind the one before it.
    Sequence,
    /// A type that there is not.
    FragmentType,
    /// The stream ends within a record.
    Torn,
    /// The stream ends within a fragment.
    Cut,
    /// What does not unpack.
    Unpacks(Compression),
    /// What the medium does not give.
    Medium,
    /// What does not decode.
    Decodes(RecordType),
    /// A record for which an agent has no use; `None` if nobody knows its type.
    Rejected(Option<RecordType>),
}

/// As Prometheus writes it.
impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, segment, offset, inner, .. } = self;
        if *segment < 0 {
            return write!(f, "corruption after {offset} bytes: {inner}");
        }
        let path = segment_path(dir.as_deref().unwrap_or_default(), *segment);
        write!(f, "corruption in segment {path} at {offset}: {inner}")
    }
}

/// A record, and where it ends.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRecord<'a> {
    /// The part in which it ends, counted from 0.
    pub part: usize,
    /// Where it ends in that part, in bytes from its start.
    pub end: u64,
    /// Unpacked. Of a record beyond [`MAX_RECORD`] there is no more than its type.
    pub data: &'a [u8],
}

/// Walks over records as Prometheus does.
pub struct Replay<S> {
    stream: Stream<S>,
    version: Version,
    /// Bytes of the stream read in whole, which is what decides where a page ends.
    total: u64,
    last_type: FragmentType,
    /// Data of fragments that have no flag. From 3.4 on: of all.
    plain: Vec<u8>,
    /// Data of fragments that have a flag.
    packed: Vec<u8>,
    page: Box<[u8]>,
    unpacker: Unpacker,
    finished: bool,
    error: Option<Corruption>,
}

impl<S: fmt::Debug> fmt::Debug for Replay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("stream", &self.stream)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Why there is no record.
enum Fault {
    End,
    Here(String, Class),
}

/// Where the data of a record is.
enum Data {
    Plain,
    Packed,
    TooLarge,
}

fn fault<T>(inner: impl Into<String>, class: Class) -> Result<T, Fault> {
    Err(Fault::Here(inner.into(), class))
}

/// What Prometheus makes of an error of reading: only `io.EOF` itself is an end without an error.
fn stopped(stop: Stop, doing: &str) -> Fault {
    match stop {
        Stop::End => Fault::End,
        Stop::EndWithin => Fault::Here(format!("{doing}unexpected EOF"), Class::Cut),
        Stop::Medium(words) => Fault::Here(format!("{doing}{words}"), Class::Medium),
    }
}

impl<S: ReadAt> Replay<S> {
    /// Over all of `parts` as one stream.
    #[must_use]
    pub fn new(parts: Vec<Part<S>>, version: Version) -> Self {
        let mut unpacker = Unpacker::default();
        unpacker.allow(allowance(parts.iter().map(|part| part.length).sum()));
        Self {
            stream: Stream::new(parts),
            version,
            total: 0,
            last_type: FragmentType::PageTerm,
            plain: Vec::new(),
            packed: Vec::new(),
            page: vec![0; PAGE_SIZE].into_boxed_slice(),
            unpacker,
            finished: false,
            error: None,
        }
    }

    /// The next record; `None` at the end, and at the first error.
    #[expect(clippy::should_implement_trait, reason = "it lends its records")]
    pub fn next(&mut self) -> Option<ReplayRecord<'_>> {
        if self.finished {
            return None;
        }
        let data = match self.advance() {
            Ok(Data::Plain) => self.plain.as_slice(),
            Ok(Data::Packed) => self.unpacker.unpacked(),
            Ok(Data::TooLarge) => self.plain.get(..1).unwrap_or_default(),
            Err(fault) => {
                self.finish(fault);
                return None;
            }
        };
        Some(ReplayRecord { part: self.stream.part(), end: self.stream.offset(), data })
    }

    /// Continues where a record ends, at `end` of a part, as if all before it had been read.
    pub(super) fn seek(&mut self, part: usize, end: u64) {
        self.stream.seek(part, end);
        // Whatever lies before it, a part begins where a page does.
        self.total = end;
    }

    /// Why there is no next record, if it is not that all have been read.
    #[must_use]
    pub fn error(&self) -> Option<&Corruption> {
        self.error.as_ref()
    }

    /// The segments that are read.
    #[must_use]
    pub fn parts(&self) -> &[Part<S>] {
        self.stream.parts()
    }

    fn finish(&mut self, fault: Fault) {
        self.finished = true;
        let (inner, class) = match fault {
            Fault::Here(inner, class) => (inner, class),
            // Padding behind a first fragment makes it forget that there was one.
            Fault::End if matches!(self.last_type, FragmentType::First | FragmentType::Middle) => {
                ("last record is torn".to_owned(), Class::Torn)
            }
            Fault::End => return,
        };
        let part = self.stream.part();
        let Some(Part { dir, index, .. }) = self.stream.parts().get(part) else { return };
        let (dir, segment) = (Some(dir.clone()), *index);
        self.error = Some(Corruption { dir, segment, offset: self.stream.offset(), inner, class, part });
    }

    /// One record (`nextNew`).
    fn advance(&mut self) -> Result<Data, Fault> {
        self.plain.clear();
        self.packed.clear();
        let mut too_large = false;
        let mut fragments = 0_u64;
        loop {
            let mut header = [0; HEADER_SIZE];
            let (first, rest) = header.split_at_mut(1);
            self.read_full(first, "read first header byte: ")?;
            let head = HeadByte(first[0]);
            self.last_type = head.kind();
            if self.last_type == FragmentType::PageTerm {
                self.read_padding()?;
                continue;
            }
            self.read_full(rest, "read remaining header: ")?;
            let [_, l0, l1, c0, c1, c2, c3] = header;
            let length = u16::from_be_bytes([l0, l1]);
            let stored = u32::from_be_bytes([c0, c1, c2, c3]);
            if usize::from(length) > PAGE_SIZE - HEADER_SIZE {
                return fault(format!("invalid record size {length}"), Class::Size);
            }
            let data = &mut self.page[..usize::from(length)];
            self.stream.read_full(data).map_err(|stop| stopped(stop, ""))?;
            self.total += u64::from(length);
            if !crc::matches(data, stored) {
                let computed = crc::checksum(data);
                let inner = format!("unexpected checksum {computed:x}, expected {stored:x}");
                return fault(inner, Class::Checksum);
            }
            validate(self.last_type, fragments)?;
            let flagged = match head.compression() {
                Compression::None => false,
                Compression::Snappy => true,
                Compression::Zstd => self.version.reads_zstd(),
            };
            let pile = if flagged && !self.version.joins_all_fragments() {
                &mut self.packed
            } else {
                &mut self.plain
            };
            let room = MAX_RECORD.saturating_sub(pile.len());
            too_large |= data.len() > room;
            if !too_large {
                pile.extend_from_slice(data);
            }
            if matches!(self.last_type, FragmentType::Last | FragmentType::Full) {
                return if too_large { Ok(Data::TooLarge) } else { self.unpack(head) };
            }
            fragments += 1;
        }
    }

    /// The rest of a page, whose end is where the whole stream has so many pages.
    fn read_padding(&mut self) -> Result<(), Fault> {
        let left = usize::try_from(PAGE - self.total % PAGE).unwrap_or(PAGE_SIZE);
        if left == PAGE_SIZE {
            return Ok(());
        }
        let zeros = &mut self.page[..left];
        self.stream.read_full(zeros).map_err(|stop| stopped(stop, "read remaining zeros: "))?;
        self.total += left as u64;
        if zeros.iter().any(|&byte| byte != 0) {
            return fault("unexpected non-zero byte in padded page", Class::Padding);
        }
        Ok(())
    }

    fn read_full(&mut self, out: &mut [u8], doing: &str) -> Result<(), Fault> {
        self.stream.read_full(out).map_err(|stop| stopped(stop, doing))?;
        self.total += out.len() as u64;
        Ok(())
    }

    /// What the joined fragments hold, by the flags of the last one.
    fn unpack(&mut self, last: HeadByte) -> Result<Data, Fault> {
        let compression = match last.compression() {
            Compression::Zstd if !self.version.reads_zstd() => Compression::None,
            compression => compression,
        };
        let pile = if self.version.joins_all_fragments() { &self.plain } else { &self.packed };
        if compression == Compression::None || pile.is_empty() {
            return Ok(Data::Plain);
        }
        match self.unpacker.unpack(compression, pile) {
            Ok(_) => Ok(Data::Packed),
            // All that its snappy says on 64-bit machines (`golang/snappy`).
            Err(UnpackError::Snappy(_)) => {
                fault("snappy: corrupt input", Class::Unpacks(Compression::Snappy))
            }
            Err(UnpackError::Zstd(error)) => {
                fault(zstd_words(pile, error), Class::Unpacks(Compression::Zstd))
            }
            Err(UnpackError::TooLarge(_) | UnpackError::TooMuch) => {
                self.plain.clear();
                Ok(Data::TooLarge)
            }
        }
    }
}

/// What Prometheus's zstd (`klauspost/compress`) says where the reference implementation returns `error`.
fn zstd_words(stored: &[u8], error: ZstdError) -> String {
    const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
    let magic = stored.first_chunk::<4>();
    if magic.is_some_and(|magic| *magic != MAGIC && magic[1..] != [0x2A, 0x4D, 0x18]) {
        return "invalid input: magic number mismatch".to_owned();
    }
    match error {
        ZstdError::CHECKSUM => "CRC check failed".to_owned(),
        ZstdError::CUT => "unexpected EOF".to_owned(),
        error => format!("zstd: {error}"),
    }
}

/// Whether a fragment of that type may follow so many of an unfinished record (`validateRecord`,
/// `tsdb/wlog/live_reader.go`).
fn validate(kind: FragmentType, fragments: u64) -> Result<(), Fault> {
    match kind {
        FragmentType::Full if fragments > 0 => fault("unexpected full record", Class::Sequence),
        FragmentType::First if fragments > 0 => {
            fault("unexpected first record, dropping buffer", Class::Sequence)
        }
        FragmentType::Middle if fragments == 0 => {
            fault("unexpected middle record, dropping buffer", Class::Sequence)
        }
        FragmentType::Last if fragments == 0 => {
            fault("unexpected last record, dropping buffer", Class::Sequence)
        }
        FragmentType::Invalid(bits) => fault(format!("unexpected record type {bits}"), Class::FragmentType),
        _ => Ok(()),
    }
}
