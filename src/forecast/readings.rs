//! What Prometheus's reader makes of the files on disk. Each is read once, however many starts read it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::HeadChunks;
use super::decode::read_behind;
use super::replay::{Part, Reader, Replay, ReplayError};
use super::served::{SnapshotReads, Stretch};
use super::stream::go_words;
use crate::record::{Record, SnapshotRecord};
use crate::scan::settled::Settlements;
use crate::tsdb::Version;
use crate::tsdb::{Listing, LogKind};
use crate::wal::ReadAt;

/// Why reading ends before the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// With an error that has a place.
    Corrupt {
        /// The whole `err`.
        text: String,
        /// The number of the segment that is blamed.
        segment: i64,
        /// Where reading stopped in it.
        offset: u64,
        /// Whether the record was read and did not decode.
        in_decoding: bool,
    },
    /// Prometheus dies of it.
    Crash(String),
    /// Prometheus waits for ever.
    Hang,
}

impl Failure {
    pub(super) fn in_decoding(&self) -> bool {
        matches!(self, Self::Corrupt { in_decoding: true, .. })
    }
}

/// Which segments have to be read: those of which it is not known that they are clean.
pub(super) trait Doubt {
    /// Whether that segment has to be read.
    fn doubts(&self, log: usize, segment: usize) -> bool;
}

impl<F: Fn(usize, usize) -> bool> Doubt for F {
    fn doubts(&self, log: usize, segment: usize) -> bool {
        self(log, segment)
    }
}

/// The end of what is read (`None`: all), and why it ends.
type Read = (Option<u64>, Option<Failure>);

/// What a start makes of chunk snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// There is none.
    None,
    /// It is ahead of all segments, and so all are removed.
    Removed,
    /// It replaces the log up to there.
    Loads(SnapshotReads),
    /// It cannot be loaded.
    Fails {
        /// With what error.
        error: String,
        /// Which one it is, if the error names it.
        named: Option<usize>,
    },
}

/// The files of a directory as one version of Prometheus reads them.
pub(super) struct Readings<'a> {
    root: &'a Path,
    listing: &'a Listing,
    version: Version,
    doubt: &'a dyn Doubt,
    settled: &'a Settlements,
    head_chunks: &'a HeadChunks,
    segments: HashMap<(usize, usize, u64), Read>,
    checkpoints: HashMap<usize, (Vec<Stretch>, Option<Failure>)>,
    snapshot: Option<Snapshot>,
}

impl<'a> Readings<'a> {
    /// `root` is what the paths of `listing` are relative to.
    pub(super) fn new(
        root: &'a Path,
        listing: &'a Listing,
        version: Version,
        doubt: &'a dyn Doubt,
        settled: &'a Settlements,
        head_chunks: &'a HeadChunks,
    ) -> Self {
        Self {
            root,
            listing,
            version,
            doubt,
            settled,
            head_chunks,
            segments: HashMap::new(),
            checkpoints: HashMap::new(),
            snapshot: None,
        }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn head_chunks(&self) -> &'a HeadChunks {
        self.head_chunks
    }

    /// A path as Prometheus prints it: cleaned, as Go's `filepath.Join` does.
    pub(super) fn printed(&self, relative: &str) -> String {
        let joined = self.root.join(relative);
        let text = joined.components().as_path().display().to_string();
        text.strip_prefix("./").unwrap_or(&text).trim_end_matches('/').to_owned()
    }

    /// A segment on its own. An `offset` is that of a chunk snapshot: what stands before it is not read.
    pub(super) fn segment(
        &mut self,
        log: usize,
        segment: usize,
        reader: Reader,
        offset: u64,
    ) -> io::Result<Read> {
        if !self.doubt.doubts(log, segment) {
            return Ok((None, None));
        }
        if let Some(read) = self.segments.get(&(log, segment, offset)) {
            return Ok(read.clone());
        }
        let Some(part) = self.part(log, segment, offset)? else { return Ok((None, None)) };
        let known = if offset == 0 { self.intact_end(log, segment, reader, part.length) } else { None };
        let reading = read_behind(known.map(|end| (0, end)), vec![part], reader, self.version);
        let end = reading.read_to.map_or(0, |(_, end)| end).saturating_add(offset);
        let failure = reading.error.map(failure);
        let read = (failure.is_some().then_some(end), failure);
        self.segments.insert((log, segment, offset), read.clone());
        Ok(read)
    }

    /// All segments of a checkpoint as one stream: what is read of it, and why no more.
    pub(super) fn checkpoint(
        &mut self,
        log: usize,
        reader: Reader,
    ) -> io::Result<(Vec<Stretch>, Option<Failure>)> {
        let segments = self.listing.logs[log].segments.len();
        if !(0..segments).any(|segment| self.doubt.doubts(log, segment)) {
            return Ok((self.whole(log), None));
        }
        if let Some(read) = self.checkpoints.get(&log) {
            return Ok(read.clone());
        }
        let mut parts = Vec::new();
        for segment in 0..segments {
            parts.extend(self.part(log, segment, 0)?);
        }
        let first = parts.first().map_or(0, |part| part.length);
        let known = if parts.len() == segments { self.intact_end(log, 0, reader, first) } else { None };
        let reading = read_behind(known.map(|end| (0, end)), parts, reader, self.version);
        let mut stretches = self.whole(log);
        if reading.error.is_some() {
            stretches.truncate(reading.read_to.map_or(0, |(part, _)| part + 1));
            if let (Some(last), Some((_, end))) = (stretches.last_mut(), reading.read_to) {
                last.upto = Some(end);
            }
        }
        let read = (stretches, reading.error.map(failure));
        self.checkpoints.insert(log, read.clone());
        Ok(read)
    }

    /// Where the last of the records ends with which the first `length` bytes of a segment begin and which leave no doubt.
    fn intact_end(&self, log: usize, segment: usize, reader: Reader, length: u64) -> Option<u64> {
        // Older ones and agents have their own opinions on records.
        if self.version < Version::NEWEST || !matches!(reader, Reader::Wal | Reader::Wbl | Reader::Checkpoint)
        {
            return None;
        }
        let file = crate::io::open(&self.listing.logs[log].segments[segment].path).ok()?;
        let first = self.settled.intact(&file, length).first()?;
        (first.from == 0).then_some(first.end)
    }

    /// A stream of the last checkpoint and segments, as it is read for a new checkpoint. Behind it stands what a server
    /// writes next, to the segment `active` of the log at `relative`.
    pub(super) fn for_checkpoint(
        &self,
        stretches: &[Stretch],
        reader: Reader,
        (relative, active): (&str, i64),
    ) -> io::Result<ForCheckpoint> {
        // Up to the first segment in doubt nothing is left open.
        let first = stretches.iter().position(|at| self.doubt.doubts(at.log, at.segment));
        let Some(first) = first else { return Ok(ForCheckpoint { failure: None, read_to: None }) };
        let in_doubt = first;
        // A checkpoint's first record is looked at before all others.
        let first = if self.listing.logs[stretches[first].log].kind == LogKind::Wal { first } else { 0 };
        let (mut parts, mut places, mut known) = (Vec::new(), Vec::new(), None);
        for (at, stretch) in stretches.iter().enumerate().skip(first) {
            // Where a segment is rewritten without a record, the old file is not read.
            if stretch.upto == Some(0) {
                continue;
            }
            let Some(part) = self.part(stretch.log, stretch.segment, 0)? else { continue };
            let length = stretch.upto.unwrap_or(part.length).min(part.length);
            if at == in_doubt {
                let end = self.intact_end(stretch.log, stretch.segment, reader, part.length);
                known = end.map(|end| (parts.len(), end.min(length)));
            }
            let source = Source::File(part.source);
            parts.push(Part { dir: part.dir, index: part.index, source, length });
            places.push(at);
        }
        let dir = self.printed(relative);
        let source = Source::Bytes(&NEXT_RECORD);
        parts.push(Part { dir: dir.clone(), index: active, source, length: NEXT_RECORD.len() as u64 });
        let reading = read_behind(known, parts, reader, self.version);
        let read_to = reading.read_to.and_then(|(part, end)| Some((*places.get(part)?, end)));
        let read_to = read_to.or_else(|| Some((first.checked_sub(1)?, u64::MAX)));
        let failure = reading.error.map(failure).map(|failure| match failure {
            Failure::Corrupt { text, segment, offset, in_decoding } if segment == active => {
                // That record is yet to be written.
                let made_up = format!("corruption in segment {dir}/{active:08} at {offset}: ");
                let text = text.replace(
                    &made_up,
                    &format!("corruption in segment {dir}/{active:08} at the end of its first record: "),
                );
                Failure::Corrupt { text, segment, offset, in_decoding }
            }
            failure => failure,
        });
        Ok(ForCheckpoint { failure, read_to })
    }

    /// The whole of a log, in order.
    pub(super) fn whole(&self, log: usize) -> Vec<Stretch> {
        let segments = 0..self.listing.logs[log].segments.len();
        segments.map(|segment| Stretch { log, segment, upto: None }).collect()
    }

    /// The path of a log whose segments are not sequential.
    pub(super) fn gap_in(&self, log: usize) -> Option<String> {
        let log = &self.listing.logs[log];
        let gap = log.segments.windows(2).any(|pair| pair[0].index.checked_add(1) != Some(pair[1].index));
        gap.then(|| self.printed(&log.relative))
    }

    /// The end of the last record that ends before `offset`, or before the first fault.
    pub(super) fn records_before(&self, log: usize, segment: usize, offset: u64) -> io::Result<u64> {
        let Some(part) = self.part(log, segment, 0)? else { return Ok(0) };
        let known = self.intact_end(log, segment, Reader::Wal, part.length).filter(|&end| end < offset);
        let mut replay = Replay::new(vec![part], self.version);
        let mut upto = 0;
        if let Some(end) = known {
            replay.seek(0, end);
            upto = end;
        }
        while let Some(record) = replay.next() {
            if record.end >= offset {
                break;
            }
            upto = record.end;
        }
        Ok(upto)
    }

    /// What the medium says if the first segment of a log cannot be read at all (`deprecatedWALExists`, `tsdb/wal.go` up
    /// to 2.51).
    pub(super) fn first_header_error(&self, log: usize) -> io::Result<Option<String>> {
        let files = &self.listing.logs[log];
        // The first may be one that a start before this one began: empty.
        let Some(first) = files.segments.first() else { return Ok(None) };
        let Some(part) = self.part(log, 0, 0)? else { return Ok(None) };
        let path = self.printed(&files.relative_of(first));
        let error = part.source.read_at(&mut [0; 4], 0).err();
        Ok(error.map(|error| format!("read {path}: {}", go_words(&error))))
    }

    /// The error with which the first record of a checkpoint cannot be read (`ReadMinValidTime`, from 3.16 on), which is
    /// looked at before all others.
    pub(super) fn first_record_error(&self, log: usize) -> io::Result<Option<String>> {
        let segments = self.listing.logs[log].segments.len();
        if !self.version.reads_min_valid_time() || !(0..segments).any(|at| self.doubt.doubts(log, at)) {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for segment in 0..segments {
            parts.extend(self.part(log, segment, 0)?);
        }
        let mut replay = Replay::new(parts, self.version);
        Ok(match replay.next() {
            None => replay.error().map(ToString::to_string),
            Some(record) => match Record::parse(record.data) {
                Record::MinValidTime(time) => {
                    time.min_time().err().map(|error| format!("decode min valid time: {error}"))
                }
                _ => None,
            },
        })
    }

    /// The last chunk snapshot, if the feature is on (`LastChunkSnapshot`).
    pub(super) fn snapshot(&mut self, last_segment: i64) -> io::Result<Snapshot> {
        if let Some(known) = &self.snapshot {
            return Ok(known.clone());
        }
        let logs = self.listing.logs.iter().enumerate();
        let last = logs
            .filter(|(_, log)| log.kind == LogKind::ChunkSnapshot)
            .filter_map(|(at, log)| Some((log.snapshot_position()?, at)))
            .max();
        let loaded = match last {
            None => Snapshot::None,
            Some(((index, _), _)) if last_segment < index && self.version.drops_newer_snapshots() => {
                Snapshot::Removed
            }
            Some(((index, offset), log)) => match self.load_snapshot(log)? {
                Ok(()) => Snapshot::Loads(SnapshotReads { log, index, offset }),
                Err((error, is_named)) => Snapshot::Fails { error, named: is_named.then_some(log) },
            },
        };
        self.snapshot = Some(loaded.clone());
        Ok(loaded)
    }

    /// `loadChunkSnapshot` (`tsdb/head_wal.go`). With an error: whether it names the directory of the snapshot.
    fn load_snapshot(&self, log: usize) -> io::Result<Result<(), (String, bool)>> {
        if let Some(dir) = self.gap_in(log) {
            let error =
                format!("open chunk snapshot: list segment in dir:{dir}: segments are not sequential");
            return Ok(Err((error, true)));
        }
        let segments = self.listing.logs[log].segments.len();
        if !(0..segments).any(|segment| self.doubt.doubts(log, segment)) {
            return Ok(Ok(()));
        }
        let mut parts = Vec::new();
        for segment in 0..segments {
            parts.extend(self.part(log, segment, 0)?);
        }
        let mut replay = Replay::new(parts, self.version);
        while let Some(record) = replay.next() {
            if let Some(error) = snapshot_error(record.data) {
                return Ok(Err((format!("decode loop: {error}"), false)));
            }
        }
        Ok(replay.error().map_or(Ok(()), |error| Err((format!("read records: {error}"), true))))
    }

    /// `None` if the file has gone meanwhile, or is one that nobody can read to an end.
    fn part(&self, log: usize, segment: usize, offset: u64) -> io::Result<Option<Part<From>>> {
        let log = &self.listing.logs[log];
        let segment = &log.segments[segment];
        let metadata = match segment.path.symlink_metadata() {
            Ok(metadata)
                if metadata.is_file() && metadata.len() <= crate::io::LONGEST || metadata.is_dir() =>
            {
                metadata
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Ok(_) | Err(_) => return Ok(None),
        };
        let length = metadata.len().saturating_sub(offset);
        let path = segment.path.clone();
        let dir = self.printed(&log.relative);
        Ok(Some(Part { dir, index: segment.index, source: From { path, offset }, length }))
    }
}

fn failure(error: ReplayError) -> Failure {
    match error {
        ReplayError::Corrupt { text, corruption } => Failure::Corrupt {
            text,
            segment: corruption.segment,
            offset: corruption.offset,
            in_decoding: corruption.dir.is_none(),
        },
        ReplayError::Crash(error) => Failure::Crash(error),
        ReplayError::Hang => Failure::Hang,
    }
}

fn snapshot_error(record: &[u8]) -> Option<String> {
    match SnapshotRecord::parse(record) {
        SnapshotRecord::Series(series) => match series.decode() {
            Err(error) if !error.accepted_by_prometheus() => Some(format!("decode series record: {error}")),
            _ => None,
        },
        SnapshotRecord::Tombstones(tombstones) => {
            let error = tombstones.entries().find_map(Result::err)?;
            Some(format!("decode tombstones: {error}"))
        }
        SnapshotRecord::Exemplars(exemplars) => {
            let error = exemplars.entries().find_map(Result::err)?;
            Some(format!("exemplars from buffer: {error}"))
        }
        SnapshotRecord::Unknown(record) => {
            Some(format!("unsupported snapshot record type 0b{:b}", record.first()?))
        }
    }
}

/// What comes of reading for a new checkpoint.
pub(super) struct ForCheckpoint {
    /// Why it fails.
    pub(super) failure: Option<Failure>,
    /// Which stretch was read last, and the end of its last record there.
    pub(super) read_to: Option<(usize, u64)>,
}

/// A full fragment with an empty samples record: its header, then its type.
const NEXT_RECORD: [u8; 8] = [1, 0, 1, 0xB3, 0x46, 0x23, 0xA6, 2];

/// Where bytes come from.
enum Source {
    File(From),
    Bytes(&'static [u8]),
}

impl ReadAt for Source {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Bytes(bytes) => bytes.read_at(buffer, offset),
        }
    }
}

/// A file from an offset on, opened for each read: a log may have more segments than there are descriptors.
pub(super) struct From {
    path: PathBuf,
    offset: u64,
}

impl ReadAt for From {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = crate::io::open(&self.path).map_err(|error| match error {
            error if crate::io::is_no_file(&error) => io::ErrorKind::IsADirectory.into(),
            error => error,
        })?;
        ReadAt::read_at(&file, buffer, offset.saturating_add(self.offset))
    }
}
