//! One segment file: read, counted, and what is wrong with it.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cause::{self, Evidence};
use super::misplaced;
use super::references::SegmentRefs;
use super::report::{Dialect, Entries};
use super::salvage::{Contents, Decisions, Problem, ProblemKind, Reading, Salvage, Visitor};
use super::settled::{FileStamp, SegmentFacts};
use super::walk::walk;
use super::{Progress, ScanError};
use crate::io::open_if_file;
use crate::record::{self, EntryKind, Summary};
use crate::tsdb::{LogDirectory, LogKind};
use crate::wal::around::{add_pages, unpacked_bytes};
use crate::wal::compress::MOST_UNPACKED;
use crate::wal::segments::SegmentFile;
use crate::wal::walk::{Doubt, Pages, Walker};
use crate::wal::{Compression, Corrections, Event, Fault, IntactPart, PAGE, ReadAt, Record, SegmentReader};

/// What one segment holds.
#[derive(Debug, Default)]
pub(super) struct SegmentScan {
    /// Its size when it was opened.
    pub(super) bytes: u64,
    /// What can be read.
    pub(super) tally: Tally,
    /// What cannot, and what the bytes there look like.
    pub(super) problems: Vec<(Problem, Evidence)>,
    /// Records whose fragments do not agree on the compression: offset and end.
    pub(super) odd_flags: Vec<(u64, u64)>,
    /// It is no file.
    pub(super) not_a_file: bool,
    /// What it says of refs, if that was asked for; taken out when it is put together with the others'.
    pub(super) refs: Option<SegmentRefs>,
    /// The state of the file when it was opened.
    pub(super) state: Option<FileStamp>,
    /// Where the last record ends that can be read.
    pub(super) data_end: u64,
    /// How its doubts were decided, if it could not be walked.
    pub(super) decisions: Option<Decisions>,
    /// What it is not to be read again for.
    pub(super) facts: SegmentFacts,
    /// A record that goes from one page to the next is much older than records before it, or its refs step oddly there.
    pub(super) is_odd: bool,
    /// The same, if records before the stretch that it is in are looked at too.
    is_odd_across: bool,
    /// The earliest of the latest times of such records, ms.
    earliest_joined: Option<i64>,
    /// Where nothing is wrong with it.
    pub(super) intact: Vec<IntactPart>,
    /// The stretch that it is of, if it is of one.
    pub(super) stretch: Range<u64>,
}

impl SegmentScan {
    /// When it was last written to, ms since 1970.
    pub(super) fn modified(&self) -> Option<i64> {
        self.state.as_ref().map(FileStamp::modified)
    }

    /// Adds what comes right after it in the same segment, where nothing is wrong either.
    pub(super) fn append(&mut self, after: Self) {
        self.is_odd_across |=
            after.is_odd_across || is_long_before(after.earliest_joined, self.tally.max_time);
        self.earliest_joined = self.earliest_joined.into_iter().chain(after.earliest_joined).min();
        self.tally.add(&after.tally);
        self.data_end = self.data_end.max(after.data_end);
        self.is_odd |= after.is_odd;
        self.facts.append(after.facts);
        match (self.intact.last_mut(), after.intact.first()) {
            (Some(part), Some(after)) => {
                (part.to, part.end) = (after.to, after.end);
                part.unpacked += after.unpacked;
            }
            // No record begins in a stretch.
            (Some(part), None) => part.to = after.stretch.end,
            (None, _) => self.intact = after.intact,
        }
        self.stretch.end = after.stretch.end;
        if let (Some(refs), Some(after)) = (&mut self.refs, after.refs) {
            refs.append(after);
        }
    }

    /// Whether it is what Prometheus's repair leaves of a segment of which it keeps no record: one page of zeros
    /// (`tsdb/wlog/wlog.go`, `WL.Repair`).
    pub(super) fn is_cut_to_nothing(&self) -> bool {
        let zeros = |problem: &Problem| {
            matches!(problem.kind, ProblemKind::Framing(Fault::TrailingZeros)) && problem.range == (0..PAGE)
        };
        self.bytes == PAGE
            && self.tally.records.is_empty()
            && self.problems.iter().any(|(problem, _)| zeros(problem))
    }
}

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: BTreeMap<&'static str, u64>,
    pub(super) entries: Entries,
    pub(super) min_time: Option<i64>,
    pub(super) max_time: Option<i64>,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Self) {
        for (name, count) in &other.records {
            *self.records.entry(name).or_default() += count;
        }
        let Entries {
            series,
            samples,
            histograms,
            float_histograms,
            exemplars,
            tombstones,
            metadata,
            mmap_markers,
        } = &mut self.entries;
        *series += other.entries.series;
        *samples += other.entries.samples;
        *histograms += other.entries.histograms;
        *float_histograms += other.entries.float_histograms;
        *exemplars += other.entries.exemplars;
        *tombstones += other.entries.tombstones;
        *metadata += other.entries.metadata;
        *mmap_markers += other.entries.mmap_markers;
        self.widen(other.min_time, other.max_time);
    }

    /// From the earliest to the latest sample, histogram or exemplar, ms.
    pub(super) fn times(&self) -> Option<(i64, i64)> {
        self.min_time.zip(self.max_time)
    }

    /// Floats and histograms.
    pub(super) fn samples(&self) -> u64 {
        self.entries.samples + self.entries.histograms + self.entries.float_histograms
    }

    fn widen(&mut self, min: Option<i64>, max: Option<i64>) {
        self.min_time = self.min_time.into_iter().chain(min).min();
        self.max_time = self.max_time.into_iter().chain(max).max();
    }

    fn count(&mut self, contents: &Contents) {
        *self.records.entry(contents.name()).or_default() += 1;
        let entries = &mut self.entries;
        let Some(record_type) = contents.record_type else { return };
        let of_kind = match record_type.kind() {
            EntryKind::Series => &mut entries.series,
            EntryKind::Samples => &mut entries.samples,
            EntryKind::Histograms => &mut entries.histograms,
            EntryKind::FloatHistograms => &mut entries.float_histograms,
            EntryKind::Exemplars => &mut entries.exemplars,
            EntryKind::Tombstones => &mut entries.tombstones,
            EntryKind::Metadata => &mut entries.metadata,
            EntryKind::MmapMarkers => &mut entries.mmap_markers,
            // The beginning of a checkpoint, and no data.
            EntryKind::MinValidTime => return,
        };
        *of_kind += contents.entries;
        self.widen(contents.min_time, contents.max_time);
    }
}

/// How much older than others a record is that may be in a page that was moved, ms. Nothing but times shows one that
/// is not compressed and fits by its entries.
const LONG_BEFORE: i64 = 15 * 60 * 1000;

fn is_long_before(time: Option<i64>, latest: Option<i64>) -> bool {
    time.zip(latest).is_some_and(|(time, latest)| time < latest.saturating_sub(LONG_BEFORE))
}

#[derive(Debug, Default)]
struct SegmentVisitor {
    tally: Tally,
    problems: Vec<Problem>,
    odd_flags: Vec<(u64, u64)>,
    refs: Option<SegmentRefs>,
    data_end: u64,
    is_odd: bool,
    earliest_joined: Option<i64>,
    facts: SegmentFacts,
    /// What the record at hand says in all.
    decoded: Summary,
    /// Where the first record begins.
    first: Option<u64>,
    /// Bytes that its records unpack to.
    unpacked: u64,
}

impl SegmentVisitor {
    /// Adds what comes next in the segment, and has been walked.
    fn append(&mut self, after: SegmentScan) {
        self.is_odd |= after.is_odd_across || is_long_before(after.earliest_joined, self.tally.max_time);
        self.tally.add(&after.tally);
        self.data_end = after.data_end;
        self.facts.append(after.facts);
        if let (Some(refs), Some(after)) = (&mut self.refs, after.refs) {
            refs.append(after);
        }
    }
}

impl Visitor for SegmentVisitor {
    fn decode(&mut self, record: &[u8]) -> Summary {
        let summary = match &mut self.refs {
            Some(refs) => refs.decode(record),
            None => record::summarize(record),
        };
        self.decoded = summary;
        summary
    }

    fn record(&mut self, record: &Record<'_>, contents: &Contents) {
        if record.is_joined() && record.compression == Compression::None {
            self.earliest_joined = self.earliest_joined.into_iter().chain(contents.max_time).min();
            self.is_odd |= is_long_before(contents.max_time, self.tally.max_time)
                || misplaced::chain::has_odd_joint(record, &self.decoded);
        }
        self.tally.count(contents);
        self.facts.look_at(record, contents);
        self.first.get_or_insert(record.offset);
        self.unpacked += unpacked_bytes(record);
        self.data_end = record.end;
        if let Some(refs) = &mut self.refs {
            refs.settle(record.data, contents.min_time, record.end);
        }
        if record.flags_disagree {
            self.odd_flags.push((record.offset, record.end));
        }
    }

    fn damage(&mut self, damage: Problem) {
        self.facts.add_damage(&damage);
        self.problems.push(damage);
    }
}

/// What begins within a stretch of a segment, if nothing is wrong there, and it is still the file that `looked_at` is of.
pub(super) fn walk_stretch(
    walker: &mut Walker,
    segment: &SegmentFile,
    looked_at: &Metadata,
    stretch: Range<u64>,
    refs: Option<&SegmentRefs>,
) -> Result<(SegmentScan, Pages), Doubt> {
    let Ok(Some((file, _))) = open_if_file(&segment.path) else { return Err(Doubt) };
    let is_same = |now: Metadata| (now.dev(), now.ino()) == (looked_at.dev(), looked_at.ino());
    if !file.metadata().is_ok_and(is_same) {
        return Err(Doubt);
    }
    let bytes = looked_at.len();
    let mut found = SegmentVisitor { refs: refs.cloned(), ..SegmentVisitor::default() };
    let mut pages = Pages::default();
    walk(walker, &file, bytes, stretch.clone(), &mut pages, &mut found)?;
    if !(found.problems.is_empty() && found.odd_flags.is_empty()) {
        return Err(Doubt);
    }
    if let Some(refs) = &mut found.refs {
        refs.wait();
    }
    let scan = SegmentScan {
        bytes,
        tally: found.tally,
        refs: found.refs,
        state: Some(FileStamp::of(looked_at)),
        data_end: found.data_end,
        is_odd: found.is_odd,
        is_odd_across: found.is_odd,
        earliest_joined: found.earliest_joined,
        facts: found.facts,
        intact: found
            .first
            .map(|from| IntactPart { from, to: stretch.end, end: found.data_end, unpacked: found.unpacked })
            .into_iter()
            .collect(),
        stretch,
        ..SegmentScan::default()
    };
    Ok((scan, pages))
}

/// Whether intact parts of a segment of `length` bytes unpack to no more than a reader is allowed for its size.
pub(super) fn unpack_to_little(parts: &[IntactPart], length: u64) -> bool {
    let unpacked = parts.iter().map(|part| part.unpacked).fold(0, u64::saturating_add);
    unpacked <= length.saturating_mul(MOST_UNPACKED)
}

/// What has been walked of a segment that cannot be walked as a whole.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// In order.
    pub(super) parts: Vec<SegmentScan>,
    /// Where nothing has been walked, in order.
    pub(super) gaps: Vec<Range<u64>>,
    /// The pages of the parts.
    pub(super) pages: Pages,
}

impl Walked {
    /// Where the segment is intact, if nothing speaks against leaving that out; `None` if all has to be read.
    fn intact<S: ReadAt + ?Sized>(&mut self, source: &S, bytes: u64) -> Option<Vec<IntactPart>> {
        let has_copies = self.gaps.iter().any(|gap| !add_pages(source, gap.clone(), &mut self.pages));
        let intact: Vec<IntactPart> = self.parts.iter().flat_map(|part| part.intact.clone()).collect();
        (!has_copies && unpack_to_little(&intact, bytes)).then_some(intact)
    }
}

/// Reads a segment that cannot be walked, and its refs if somewhere to put them is given; `looked_at` is what it was
/// when it was looked at first, and `walked` what has been read of it. `None` if it has gone.
pub(super) fn scan(
    segment: &SegmentFile,
    looked_at: Option<&Metadata>,
    mut walked: Walked,
    reading: Reading,
    refs: Option<&SegmentRefs>,
    progress: &Reached<'_>,
) -> Result<Option<SegmentScan>, ScanError> {
    let failed = |source| ScanError::Open { path: segment.path.clone(), source };
    let known_bytes = looked_at.map_or(0, Metadata::len);
    let (file, bytes) = match open_if_file(&segment.path) {
        Ok(Some((file, bytes))) => (file, bytes.max(known_bytes)),
        Ok(None) => return Ok(Some(SegmentScan { not_a_file: true, ..SegmentScan::default() })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let state = file.metadata().ok().as_ref().map(FileStamp::of);
    let source = CountedFile { file: &file, progress };
    let visitor = || SegmentVisitor { refs: refs.cloned(), ..SegmentVisitor::default() };
    let is_same = state.is_some() && state == looked_at.map(FileStamp::of) && bytes == known_bytes;
    let intact = if is_same { walked.intact(&file, bytes).unwrap_or_default() } else { Vec::new() };
    let salvage =
        Salvage::new(&source, bytes, reading).correcting(Corrections::Sure).doubtful().around(&intact);
    let mut found = visitor();
    let mut decisions = None;
    if !intact.is_empty() && refs.is_none_or(SegmentRefs::adds_up) {
        let mut parts = walked.parts.into_iter();
        decisions = salvage.read_between(&mut found, |found, _| {
            if let Some(part) = parts.next() {
                found.append(part);
            }
        });
    } else {
        drop(walked);
    }
    let decisions = match decisions {
        Some(decisions) if decisions.is_empty() => decisions,
        Some(decisions) => {
            found = visitor();
            salvage.read_with(&decisions, &mut found);
            decisions
        }
        None => {
            let (read, decisions) = salvage.read_deciding(visitor);
            found = read;
            decisions
        }
    };
    if let (Some(refs), Some(first)) =
        (&mut found.refs, found.problems.iter().map(|problem| problem.range.start).min())
    {
        refs.doubt_from(first);
    }
    progress.reach(bytes);
    let problems = found.problems.into_iter().map(|problem| {
        let evidence = cause::look(&file, &problem);
        (problem, evidence)
    });
    Ok(Some(SegmentScan {
        bytes,
        problems: problems.collect(),
        tally: found.tally,
        odd_flags: found.odd_flags,
        refs: found.refs,
        state,
        data_end: found.data_end,
        decisions: Some(decisions),
        is_odd: found.is_odd,
        facts: found.facts,
        intact,
        ..SegmentScan::default()
    }))
}

pub(super) fn reading(kind: LogKind, dialect: Dialect) -> Reading {
    match (dialect, kind) {
        (Dialect::Loki, _) => Reading::Opaque,
        (Dialect::Prometheus, LogKind::ChunkSnapshot) => Reading::Snapshot,
        (Dialect::Prometheus, _) => Reading::Prometheus,
    }
}

/// Whose records a log holds, as its first records show.
pub(super) fn dialect(log: &LogDirectory) -> Dialect {
    const ENOUGH: usize = 100;
    let mut seen = 0;
    for segment in &log.segments {
        let Ok(Some((file, bytes))) = open_if_file(&segment.path) else { continue };
        let mut reader = SegmentReader::new(&file, bytes);
        while let Some(event) = reader.next() {
            if let Event::Record(record) = event {
                if log.kind != LogKind::ChunkSnapshot && record::is_loki(record.data) {
                    return Dialect::Loki;
                }
                seen += 1;
                let summary = record::summarize(record.data);
                // Labels with their lengths, to the last byte: nothing else looks like that.
                let is_plain = summary.record_type.is_some_and(|is| is.kind() == EntryKind::Series)
                    && summary.entries > 0
                    && summary.error.is_none();
                if seen == ENOUGH || is_plain {
                    return Dialect::Prometheus;
                }
            }
        }
    }
    Dialect::Prometheus
}

/// How much of a segment has been reported as read.
pub(super) struct Reached<'a> {
    progress: &'a dyn Progress,
    /// Bytes that have been announced: more are never reported.
    total: u64,
    bytes: AtomicU64,
}

impl<'a> Reached<'a> {
    pub(super) fn new(progress: &'a dyn Progress, total: u64) -> Self {
        Self { progress, total, bytes: AtomicU64::new(0) }
    }

    /// So many more bytes, wherever they are.
    pub(super) fn add(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.advance(before, before.saturating_add(bytes));
    }

    /// All up to there; what was reported before counts as what comes first.
    fn reach(&self, offset: u64) {
        let before = self.bytes.fetch_max(offset, Ordering::Relaxed);
        self.advance(before, offset);
    }

    fn advance(&self, from: u64, to: u64) {
        let to = to.min(self.total);
        if to > from {
            self.progress.advance(to - from);
        }
    }
}

/// A file that reports how far it has been read.
struct CountedFile<'a> {
    file: &'a File,
    progress: &'a Reached<'a>,
}

impl ReadAt for CountedFile<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = ReadAt::read_at(self.file, buffer, offset)?;
        self.progress.reach(offset + count as u64);
        Ok(count)
    }
}
