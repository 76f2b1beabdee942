//! What is replayed once a directory is repaired: which refs its series records define, and what uses refs that none does.

use std::hash::BuildHasher as _;
use std::io;

use foldhash::HashMap;

use super::layout::Layout;
use crate::record::{Labels, Record, RecordType, each_use};
use crate::repair::head_chunks::{CHUNKS_HEAD, encoding_of};
use crate::repair::segment::{Mending, Take};
use crate::tsdb::{LogKind, Target, list_head_chunks};

/// Series of which note is taken; of more nothing is said. Each takes about 40 bytes.
const MOST: usize = 1 << 23;

/// What is replayed.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    hasher: foldhash::quality::RandomState,
    /// By ref: the series that a record defines.
    pub(super) defined: HashMap<u64, Defined>,
    /// By ref: what belongs to series that no record defines, before or behind.
    pub(super) orphans: HashMap<u64, Orphan>,
    /// Entries of all series, known or not.
    pub(super) entries: u64,
    /// Two records define one ref as two series.
    pub(super) reissued: bool,
    /// There are more than [`MOST`].
    pub(super) too_many: bool,
}

/// A series that a record defines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defined {
    /// A hash of its labels.
    pub(super) labels: u64,
    /// The time of the newest sample that uses its ref, ms; the highest there is if one is in the WBL.
    pub(super) newest: Option<i64>,
}

/// What belongs to a series that no record defines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orphan {
    /// Samples and histograms.
    pub(super) samples: u64,
    /// Exemplars, tombstones, metadata, mmap markers.
    pub(super) others: u64,
    /// Head chunks.
    pub(super) chunks: u64,
    /// From when to when samples and chunks are, ms.
    pub(super) times: Option<(i64, i64)>,
}

impl Orphan {
    fn widen(&mut self, from: i64, to: i64) {
        self.times = Some(self.times.map_or((from, to), |(min, max)| (min.min(from), max.max(to))));
    }

    fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.others += other.others;
        self.chunks += other.chunks;
        if let Some((from, to)) = other.times {
            self.widen(from, to);
        }
    }
}

impl Survivors {
    /// Reads all that is replayed. Of head chunks those count that have samples from `min_valid_time` on: Prometheus passes
    /// over the others (`tsdb/head.go`, `loadMmappedChunks`).
    pub(super) fn read(
        target: &Target,
        layout: &Layout,
        mending: Mending<'_>,
        min_valid_time: i64,
    ) -> io::Result<Self> {
        let mut all = Self::default();
        for part in &layout.replayed {
            let new = || Chapter::new(&all, part.kind);
            let Some(Chapter { found, .. }) = part.take(target, mending, new)? else { continue };
            all.add(found);
            if all.too_many {
                return Ok(all);
            }
        }
        all.add_chunks(target, layout, min_valid_time)?;
        // What is defined behind its use is defined: to define it before as well would wipe what that has.
        let defined = &all.defined;
        all.orphans.retain(|series_ref, _| !defined.contains_key(series_ref));
        Ok(all)
    }

    /// The number that a label set has here.
    pub(super) fn hash(&self, labels: Labels<'_>) -> u64 {
        self.hasher.hash_one(labels)
    }

    fn add(&mut self, chapter: Found) {
        self.reissued |= chapter.reissued;
        self.entries += chapter.entries;
        self.defined.extend(chapter.defined);
        for (series_ref, time) in chapter.newest {
            if let Some(defined) = self.defined.get_mut(&series_ref) {
                defined.newest = defined.newest.max(Some(time));
            }
        }
        for (series_ref, used) in chapter.orphans {
            self.orphans.entry(series_ref).or_default().add(&used);
        }
        self.too_many |= self.defined.len() + self.orphans.len() > MOST;
    }

    fn add_chunks(&mut self, target: &Target, layout: &Layout, min_valid_time: i64) -> io::Result<()> {
        let files = list_head_chunks(&target.path().join(CHUNKS_HEAD), CHUNKS_HEAD)?;
        for file in &files.files {
            let Ok(chunks) = file.chunks() else { continue };
            let path = format!("{CHUNKS_HEAD}/{}", file.name);
            for chunk in chunks.map_while(Result::ok) {
                let is_loaded = (1..=6).contains(&chunk.encoding)
                    && !layout.changes_chunk(&path, encoding_of(&chunk))
                    && (chunk.out_of_order || chunk.max_time >= min_valid_time);
                if is_loaded && !self.defined.contains_key(&chunk.series_ref) {
                    let orphan = self.orphans.entry(chunk.series_ref).or_default();
                    orphan.chunks += 1;
                    orphan.widen(chunk.min_time, chunk.max_time);
                }
            }
        }
        self.too_many |= self.defined.len() + self.orphans.len() > MOST;
        Ok(())
    }
}

/// What one segment adds.
#[derive(Default)]
struct Found {
    defined: HashMap<u64, Defined>,
    orphans: HashMap<u64, Orphan>,
    /// Of refs that are defined: the time of the newest sample.
    newest: HashMap<u64, i64>,
    /// Entries of any series.
    entries: u64,
    reissued: bool,
}

struct Chapter<'a> {
    before: &'a Survivors,
    kind: LogKind,
    found: Found,
}

impl<'a> Chapter<'a> {
    fn new(before: &'a Survivors, kind: LogKind) -> Self {
        Self { before, kind, found: Found::default() }
    }

    fn define(&mut self, series_ref: u64, labels: Labels<'_>) {
        let labels = self.before.hash(labels);
        let known = self.found.defined.get(&series_ref).or_else(|| self.before.defined.get(&series_ref));
        match known {
            Some(known) => self.found.reissued |= known.labels != labels,
            None => {
                self.found.defined.insert(series_ref, Defined { labels, newest: None });
            }
        }
    }

    fn used(&mut self, series_ref: u64, is_sample: bool, time: Option<i64>) {
        self.found.entries += 1;
        let is_defined =
            self.before.defined.contains_key(&series_ref) || self.found.defined.contains_key(&series_ref);
        if is_defined {
            if let Some(time) = time.filter(|_| is_sample) {
                // Of the WBL samples of any time are taken.
                let time = if self.kind == LogKind::Wbl { i64::MAX } else { time };
                let newest = self.found.newest.entry(series_ref).or_insert(time);
                *newest = time.max(*newest);
            }
            return;
        }
        let orphan = self.found.orphans.entry(series_ref).or_default();
        if is_sample {
            orphan.samples += 1;
            if let Some(time) = time {
                orphan.widen(time, time);
            }
        } else {
            orphan.others += 1;
        }
    }
}

impl Take for Chapter<'_> {
    /// What a replay does with it (`tsdb/head_wal.go`, `loadWAL`, `loadWBL`).
    fn take(&mut self, record: &[u8]) {
        use RecordType as R;
        let Some(kind) = R::of(record) else { return };
        let in_wbl = self.kind == LogKind::Wbl;
        let is_sample = match kind {
            R::MinValidTime => return,
            R::MmapMarkers if !in_wbl => return,
            R::Series | R::Tombstones | R::Exemplars | R::Metadata if in_wbl => return,
            R::Series => {
                if let Record::Series(series) = Record::parse(record) {
                    for entry in series.entries().flatten() {
                        self.define(entry.series_ref, entry.labels);
                    }
                }
                return;
            }
            R::Tombstones | R::Exemplars | R::Metadata | R::MmapMarkers => false,
            _ => true,
        };
        each_use(record, |now| self.used(now.series_ref, is_sample, now.time));
    }
}
