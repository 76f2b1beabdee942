//! The bytes of several segments one behind the other, as Prometheus's reader gets them (`segmentBufReader`,
//! `tsdb/wlog/wlog.go`).

use std::io;
use std::ops::Range;

use super::replay::Part;
use crate::wal::segments::segment_name;
use crate::wal::{PAGE, ReadAt};

/// Bytes asked of the medium at once (`NewSegmentBufReader`). A bad sector costs what lies before it in the same read
/// only if the system gives nothing of that read.
const BUFFER: u64 = 16 * PAGE;

/// Why the bytes asked for do not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// There are none left.
    End,
    /// Some, and then none.
    EndWithin,
    /// The medium does not give them; in Go's words.
    Medium(String),
}

/// Reads segment after segment. A segment that ends within a page ends in zeros up to the page's end.
#[derive(Debug)]
pub(super) struct Stream<S> {
    parts: Vec<Part<S>>,
    current: usize,
    /// Bytes of the current part handed out, invented zeros among them.
    offset: u64,
    /// Bytes of the current part read from its source.
    position: u64,
    buffer: Vec<u8>,
    /// Where in the buffer those are that have not been handed out.
    ready: Range<usize>,
}

impl<S: ReadAt> Stream<S> {
    pub(super) fn new(parts: Vec<Part<S>>) -> Self {
        Self { parts, current: 0, offset: 0, position: 0, buffer: Vec::new(), ready: 0..0 }
    }

    /// The part from which the last byte came.
    pub(super) fn part(&self) -> usize {
        self.current
    }

    pub(super) fn parts(&self) -> &[Part<S>] {
        &self.parts
    }

    /// How far that part has been read; beyond its end where zeros were invented.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on at `offset` of a part.
    pub(super) fn seek(&mut self, part: usize, offset: u64) {
        (self.current, self.offset, self.position, self.ready) = (part, offset, offset, 0..0);
    }

    /// Fills `out` to its end (Go's `io.ReadFull`), across pages and segments.
    pub(super) fn read_full(&mut self, out: &mut [u8]) -> Result<(), Stop> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest) {
                Ok(count) => filled += count,
                Err(Stop::End) if filled > 0 => return Err(Stop::EndWithin),
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// Some bytes; none where the next segment begins.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Stop> {
        if self.parts.is_empty() {
            return Err(Stop::End);
        }
        let count = self.take(out)?;
        if count > 0 {
            self.offset += count as u64;
            return Ok(count);
        }
        if !self.offset.is_multiple_of(PAGE) {
            let missing = PAGE - self.offset % PAGE;
            let count = out.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
            out.iter_mut().take(count).for_each(|byte| *byte = 0);
            self.offset += count as u64;
            return Ok(count);
        }
        if self.current + 1 >= self.parts.len() {
            return Err(Stop::End);
        }
        self.current += 1;
        self.offset = 0;
        self.position = 0;
        Ok(0)
    }

    /// Bytes of the current part; none at its end.
    fn take(&mut self, out: &mut [u8]) -> Result<usize, Stop> {
        if self.ready.is_empty() {
            let count = self.fill()?;
            self.ready = 0..count;
        }
        let ready = self.buffer.get(self.ready.clone()).unwrap_or_default();
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.ready.start += count;
        Ok(count)
    }

    fn fill(&mut self) -> Result<usize, Stop> {
        let Some(part) = self.parts.get(self.current) else { return Ok(0) };
        let left = part.length.saturating_sub(self.position);
        // A directory may say that it has no bytes, and still does not end but fails.
        let probes = left == 0 && self.position == 0;
        let wanted = usize::try_from(left.min(BUFFER)).unwrap_or(0).max(usize::from(probes));
        if wanted == 0 {
            return Ok(0);
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let buffer = &mut self.buffer[..wanted];
        loop {
            match part.source.read_at(buffer, self.position) {
                Ok(count) => {
                    let count = if probes { 0 } else { count.min(wanted) };
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let path = segment_path(&part.dir, part.index);
                    return Err(Stop::Medium(format!("read {path}: {}", go_words(&e))));
                }
            }
        }
    }
}

/// The path of a segment as Prometheus prints it (`SegmentName`).
pub(super) fn segment_path(dir: &str, index: i64) -> String {
    let name = segment_name(index);
    if dir.is_empty() { name } else { format!("{}/{name}", dir.trim_end_matches('/')) }
}

/// What Go says of an error that a read may have (`syscall`, `zerrors_linux_amd64.go`).
pub(super) fn go_words(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let words = match number {
        1 => "operation not permitted",
        2 => "no such file or directory",
        5 => "input/output error",
        6 => "no such device or address",
        9 => "bad file descriptor",
        11 => "resource temporarily unavailable",
        12 => "cannot allocate memory",
        13 => "permission denied",
        14 => "bad address",
        19 => "no such device",
        21 => "is a directory",
        22 => "invalid argument",
        38 => "function not implemented",
        61 => "no data available",
        67 => "link has been severed",
        70 => "communication error on send",
        71 => "protocol error",
        74 => "bad message",
        75 => "value too large for defined data type",
        84 => "invalid or incomplete multibyte or wide character",
        95 => "operation not supported",
        103 => "software caused connection abort",
        104 => "connection reset by peer",
        107 => "transport endpoint is not connected",
        108 => "cannot send after transport endpoint shutdown",
        110 => "connection timed out",
        111 => "connection refused",
        112 => "host is down",
        113 => "no route to host",
        116 => "stale file handle",
        117 => "structure needs cleaning",
        121 => "remote I/O error",
        123 => "no medium found",
        124 => "wrong medium type",
        125 => "operation canceled",
        126 => "required key not available",
        _ => return format!("errno {number}"),
    };
    words.to_owned()
}
