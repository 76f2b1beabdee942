//! What is replayed once a directory is repaired: which refs its series records define, and what uses refs that none does.

use std::hash::BuildHasher as _;
use std::io;

use foldhash::HashMap;

use super::layout::Layout;
use super::uses::{MOST, Use, Uses};
use crate::record::{self, EntryKind, Labels, Record, RecordType, ReplayedFrom, each_use};
use crate::repair::chunks::{CHUNKS_HEAD, encoding_of};
use crate::repair::segment::{RecordSink, SegmentRules};
use crate::tsdb::{LogKind, Target, list_head_chunks};

/// What is replayed.
#[derive(Debug, Default)]
pub(super) struct Survivors {
    hasher: foldhash::quality::RandomState,
    /// By ref: the series that a record defines.
    pub(super) defined: HashMap<u64, Defined>,
    /// By ref: what belongs to series that no record defines, before or after.
    pub(super) orphans: HashMap<u64, Orphan>,
    /// Entries of all series, known or not.
    pub(super) entries: u64,
    /// Two records define one ref as two series.
    pub(super) reissued: bool,
    /// There are more than [`MOST`]: nothing is said.
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

    fn add(&mut self, used: &Use) {
        self.samples += used.samples;
        self.others += used.others;
        if let Some((from, to)) = used.times() {
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
        rules: SegmentRules<'_>,
        min_valid_time: i64,
    ) -> io::Result<Self> {
        let mut all = Self::default();
        for part in &layout.replayed {
            let new = || Chapter::new(&all, part.kind);
            let Some(Chapter { found, .. }) = part.take(target, rules, new)? else { continue };
            all.add(part.kind, found);
            if all.too_many {
                return Ok(all);
            }
        }
        all.add_chunks(target, layout, min_valid_time)?;
        // What is defined after its use is defined: to define it before as well would wipe what that has.
        let defined = &all.defined;
        all.orphans.retain(|series_ref, _| !defined.contains_key(series_ref));
        Ok(all)
    }

    /// The number that a label set has here.
    pub(super) fn hash(&self, labels: Labels<'_>) -> u64 {
        self.hasher.hash_one(labels)
    }

    fn add(&mut self, kind: LogKind, chapter: Found) {
        self.reissued |= chapter.reissued;
        self.entries += chapter.entries;
        let defined = chapter.defined.into_iter();
        self.defined
            .extend(defined.map(|(series_ref, labels)| (series_ref, Defined { labels, newest: None })));
        for used in chapter.uses.each() {
            if let Some(defined) = self.defined.get_mut(&used.series_ref) {
                // Of the WBL samples of any time are taken.
                let newest =
                    used.times().map(|(_, newest)| if kind == LogKind::Wbl { i64::MAX } else { newest });
                defined.newest = defined.newest.max(newest);
            } else {
                self.orphans.entry(used.series_ref).or_default().add(used);
            }
        }
        self.too_many |= chapter.uses.too_many || self.defined.len() + self.orphans.len() > MOST;
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
    /// By ref that is defined: a hash of its labels.
    defined: HashMap<u64, u64>,
    /// What uses refs; of those that it is the first to define, after the record.
    uses: Uses,
    /// Entries of any series.
    entries: u64,
    reissued: bool,
}

struct Chapter<'a> {
    before: &'a Survivors,
    kind: LogKind,
    found: Found,
    /// Refs of the record at hand: the first of those that follow one another, and how many.
    runs: Vec<(u64, u64)>,
}

impl<'a> Chapter<'a> {
    fn new(before: &'a Survivors, kind: LogKind) -> Self {
        Self { before, kind, found: Found::default(), runs: Vec::new() }
    }

    fn define(&mut self, series_ref: u64, labels: Labels<'_>) {
        let labels = self.before.hash(labels);
        let before = self.before.defined.get(&series_ref).map(|known| known.labels);
        if let Some(known) = self.found.defined.get(&series_ref).copied().or(before) {
            self.found.reissued |= known != labels;
        } else {
            self.found.defined.insert(series_ref, labels);
            self.found.uses.forget(series_ref);
        }
    }

    /// Samples and histograms: of most records all have one time.
    fn samples(&mut self, record: &[u8]) {
        self.runs.clear();
        let summary = record::summarize_refs(record, |first, count| self.runs.push((first, count)));
        let one_time = summary.min_time.filter(|_| summary.min_time == summary.max_time);
        if let (Some(time), None) = (one_time, summary.error) {
            for &(first, count) in &self.runs {
                self.found.entries += count;
                self.found.uses.samples(first, count, time);
            }
            return;
        }
        each_use(record, |now| {
            self.found.entries += 1;
            if let Some(time) = now.time {
                self.found.uses.samples(now.series_ref, 1, time);
            }
        });
    }
}

impl RecordSink for Chapter<'_> {
    /// What a replay does with it (`tsdb/head_wal.go`, `loadWAL`, `loadWBL`).
    fn record(&mut self, record: &[u8]) {
        let Some(kind) = RecordType::of(record).map(RecordType::kind) else { return };
        let is_replayed = match kind.replayed_from() {
            ReplayedFrom::Wal => self.kind != LogKind::Wbl,
            ReplayedFrom::Wbl => self.kind == LogKind::Wbl,
            ReplayedFrom::WalAndWbl => true,
            ReplayedFrom::Nowhere => false,
        };
        if !is_replayed {
            return;
        }
        match kind {
            EntryKind::MinValidTime => {}
            EntryKind::Series => {
                if let Record::Series(series) = Record::parse(record) {
                    for entry in series.entries().flatten() {
                        self.define(entry.series_ref, entry.labels);
                    }
                }
            }
            EntryKind::Tombstones | EntryKind::Exemplars | EntryKind::Metadata | EntryKind::MmapMarkers => {
                each_use(record, |now| {
                    self.found.entries += 1;
                    self.found.uses.other(now.series_ref);
                });
            }
            EntryKind::Samples | EntryKind::Histograms | EntryKind::FloatHistograms => self.samples(record),
        }
    }
}
