//! Where labels can be found besides the logs that are replayed, and what each place has.
//!
//! In the order in which they are believed: segments that the checkpoint covers, older checkpoints, originals of segments
//! that Prometheus was repairing, chunk snapshots, backups of earlier repairs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use foldhash::{HashMap, HashSet};

use super::layout::{Layout, Part};
use super::survivors::Survivors;
use crate::change::Backup;
use crate::change::plan::{Change, LabelsRefused, Refusal, SeriesLabels};
use crate::record::{Labels, LastValue, Record, SampleEntry, SnapshotRecord};
use crate::repair::segment::{RecordSink, SegmentRules, read_repaired};
use crate::scan::salvage::{Contents, Problem, Reading, Salvage, Visitor};
use crate::tsdb::{Listing, LogKind, StrayKind, Target};
use crate::wal;
use crate::wal::segments::{list_segments, segment_index};

/// A place with labels.
#[derive(Debug)]
pub(super) struct Source {
    /// Its path in the data directory.
    pub(super) path: String,
    files: Vec<PathBuf>,
    is_snapshot: bool,
    /// What is replayed continues right after it: refs mean the same, and all of them.
    pub(super) is_gone_on_with: bool,
}

impl Source {
    fn new(path: String, files: Vec<PathBuf>) -> Self {
        Self { path, files, is_snapshot: false, is_gone_on_with: false }
    }
}

/// All places, the most believed first; and those that cannot be read.
pub(super) fn all(
    target: &Target,
    listing: &Listing,
    layout: &Layout,
) -> io::Result<(Vec<Source>, Vec<LabelsRefused>)> {
    let paths = |parts: &[Part]| -> Vec<PathBuf> {
        parts.iter().filter_map(|part| Some(target.path_of(part.from.as_deref()?))).collect()
    };
    let mut sources = Vec::new();
    if let Some(first) = layout.below.first() {
        let name = if layout.below.len() == 1 {
            first.path.clone()
        } else {
            format!("{} to {}", first.path, layout.below[layout.below.len() - 1].path)
        };
        let mut source = Source::new(name, paths(&layout.below));
        source.is_gone_on_with = is_gone_on_with(layout);
        sources.push(source);
    }
    for parts in layout.older.values().rev() {
        let path = parts.first().and_then(|part| part.path.rsplit_once('/')).map_or("", |(path, _)| path);
        sources.push(Source::new(path.to_owned(), paths(parts)));
    }
    let is_replayed = |path: &str| layout.replayed.iter().any(|part| part.from.as_deref() == Some(path));
    for stray in listing.strays.iter().filter(|stray| stray.kind == StrayKind::Repair) {
        if !is_replayed(&stray.relative) {
            sources.push(Source::new(stray.relative.clone(), vec![target.path_of(&stray.relative)]));
        }
    }
    let mut snapshots: Vec<_> =
        listing.logs.iter().filter(|log| log.kind == LogKind::ChunkSnapshot).collect();
    snapshots.sort_by_key(|log| std::cmp::Reverse(log.snapshot_position()));
    for log in snapshots {
        let files = log.segments.iter().map(|segment| segment.path.clone()).collect();
        sources.push(Source { is_snapshot: true, ..Source::new(log.relative.clone(), files) });
    }
    let mut refused = Vec::new();
    backups(target, &mut sources, &mut refused)?;
    Ok((sources, refused))
}

/// Whether the first segment that is replayed has the next number, and none is missing among those below. Prometheus counts
/// on as long as it continues a log; where it restarts it has removed all others before (`tsdb/wlog/wlog.go`,
/// `WL.Repair`).
fn is_gone_on_with(layout: &Layout) -> bool {
    let first = layout.replayed.iter().find(|part| part.kind == LogKind::Wal);
    let numbers: Vec<i64> = layout.below.iter().chain(first).map(|part| part.number).collect();
    first.is_some_and(|first| first.from.is_some())
        && numbers.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]))
}

/// Backups of earlier repairs in the data directory, the newest first: whole segments, of which the repair has written
/// others or which it has set aside.
fn backups(target: &Target, sources: &mut Vec<Source>, refused: &mut Vec<LabelsRefused>) -> io::Result<()> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(target.path())? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with("walfix-backup-")
            && !name.ends_with(".unfinished")
            && entry.file_type()?.is_dir()
        {
            names.push(name);
        }
    }
    names.sort();
    for name in names.into_iter().rev() {
        let path = target.path().join(&name);
        // What an undo by force has replaced lies there as in a data directory.
        let found = if name.contains("-before-undo") {
            Target::find(&path).ok().and_then(|copy| copy.list().ok()).map(|listing| of_listing(&listing))
        } else {
            match Backup::open(&path) {
                Ok(backup) => Some(of_backup(&backup)?),
                Err(error) => {
                    let refusal = Refusal::CannotRead { error: error.to_string() };
                    refused.push(LabelsRefused { path: name.clone(), series: 0, refusal });
                    None
                }
            }
        };
        for (below, files) in found.into_iter().flatten().filter(|(below, _)| !below.starts_with("wbl")) {
            sources.push(Source {
                is_snapshot: below.starts_with("chunk_snapshot."),
                ..Source::new(format!("{name}/{below}"), files)
            });
        }
    }
    Ok(())
}

/// By the log to which they belong.
type Files = BTreeMap<String, Vec<PathBuf>>;

fn of_listing(listing: &Listing) -> Files {
    let mut found = Files::new();
    for log in listing.logs.iter().filter(|log| log.kind != LogKind::Wbl) {
        let files: Vec<PathBuf> = log.segments.iter().map(|segment| segment.path.clone()).collect();
        if !files.is_empty() {
            found.insert(log.relative.clone(), files);
        }
    }
    found
}

fn of_backup(backup: &Backup) -> io::Result<Files> {
    let mut found = Files::new();
    for step in backup.steps() {
        let path = match &step.change {
            // Where pages did not follow one another, labels may be put together of two series.
            Change::Rewrite { pages, .. } if !pages.is_empty() => continue,
            Change::Rewrite { path, .. } | Change::SetAside { path, .. } => path,
            _ => continue,
        };
        let kept = backup.aside(path);
        if kept.is_directory() {
            let segments = list_segments(&kept.full())?.into_iter().map(|segment| segment.path);
            found.entry(path.clone()).or_default().extend(segments);
        } else if kept.is_file() {
            let (log, name) = path.rsplit_once('/').unwrap_or(("", path));
            let name = name.strip_suffix(".repair").unwrap_or(name);
            if segment_index(name).is_some() {
                found.entry(log.to_owned()).or_default().push(kept.full());
            }
        }
    }
    Ok(found)
}

/// What a source says.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The highest ref that it defines as what is replayed does.
    pub(super) highest_shared: Option<u64>,
    /// A ref that it defines otherwise than what is replayed, or than it does elsewhere.
    pub(super) contradicts: Option<u64>,
    /// Of wanted refs: a hash of the labels, as of [`Survivors::hash`].
    pub(super) labels: HashMap<u64, u64>,
    /// Of wanted refs: its last sample there that is a float: time, ms, and the bits of the value.
    pub(super) last: HashMap<u64, (i64, u64)>,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Refs that have lost their labels.
    pub(super) refs: &'a HashSet<u64>,
    /// The highest ref that may mean the same in a source: what it says of higher ones is neither believed nor held against
    /// it.
    pub(super) most: u64,
}

/// Labels by their hash.
pub(super) type Pool = HashMap<u64, SeriesLabels>;

impl Source {
    /// Reads all of it. The labels of wanted refs go into the pool.
    pub(super) fn read(
        &self,
        survivors: &Survivors,
        wanted: &Wanted<'_>,
        rules: SegmentRules<'_>,
        pool: &mut Pool,
    ) -> Table {
        let mut table = Table::default();
        let new = || Page { survivors, wanted, table: Table::default(), texts: Pool::default() };
        for path in &self.files {
            // What cannot be opened has nothing to say.
            let Ok(file) = crate::io::open(path) else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            let page = if self.is_snapshot {
                Salvage::new(&file, metadata.len(), Reading::Snapshot).read(new)
            } else {
                read_repaired(&file, metadata.len(), rules, new)
            };
            table.add(page.table);
            pool.extend(page.texts);
        }
        table
    }
}

impl Table {
    fn define(&mut self, series_ref: u64, labels: u64) {
        if *self.labels.entry(series_ref).or_insert(labels) != labels {
            self.contradicts = Some(series_ref);
        }
    }

    fn use_at(&mut self, series_ref: u64, (t, value_bits): (i64, u64)) {
        let last = self.last.entry(series_ref).or_insert((t, value_bits));
        if t > last.0 {
            *last = (t, value_bits);
        }
    }

    fn add(&mut self, page: Self) {
        self.highest_shared = self.highest_shared.max(page.highest_shared);
        self.contradicts = self.contradicts.or(page.contradicts);
        page.labels.into_iter().for_each(|(series_ref, labels)| self.define(series_ref, labels));
        page.last.into_iter().for_each(|(series_ref, last)| self.use_at(series_ref, last));
    }
}

/// One segment of a source.
struct Page<'a> {
    survivors: &'a Survivors,
    wanted: &'a Wanted<'a>,
    table: Table,
    texts: Pool,
}

impl Page<'_> {
    fn define(&mut self, series_ref: u64, labels: Labels<'_>) {
        let known = self.survivors.defined.get(&series_ref);
        if series_ref > self.wanted.most || known.is_none() && !self.wanted.refs.contains(&series_ref) {
            return;
        }
        let hash = self.survivors.hash(labels);
        match known {
            Some(known) if known.labels == hash => {
                self.table.highest_shared = self.table.highest_shared.max(Some(series_ref));
            }
            Some(_) => self.table.contradicts = Some(series_ref),
            None if labels.are_in_order() => {
                self.table.define(series_ref, hash);
                self.texts.entry(hash).or_insert_with(|| SeriesLabels::of(&labels));
            }
            None => {}
        }
    }
}

/// Of a chunk snapshot.
impl Visitor for Page<'_> {
    fn record(&mut self, record: &wal::Record<'_>, _: &Contents) {
        let SnapshotRecord::Series(series) = SnapshotRecord::parse(record.data) else { return };
        let Ok(series) = series.decode() else { return };
        self.define(series.series_ref, series.labels);
        if let Some(chunk) = series.chunk
            && let LastValue::Float(value_bits) = chunk.last_value
            && self.wanted.refs.contains(&series.series_ref)
        {
            self.table.use_at(series.series_ref, (chunk.max_time, value_bits));
        }
    }

    fn damage(&mut self, _: Problem) {}
}

/// Of a log.
impl RecordSink for Page<'_> {
    fn record(&mut self, record: &[u8]) {
        match Record::parse(record) {
            Record::Series(series) => {
                for entry in series.entries().flatten() {
                    self.define(entry.series_ref, entry.labels);
                }
            }
            Record::Samples(samples) => {
                for SampleEntry { series_ref, t, value_bits, .. } in samples.entries().flatten() {
                    if self.wanted.refs.contains(&series_ref) {
                        self.table.use_at(series_ref, (t, value_bits));
                    }
                }
            }
            Record::Tombstones(_)
            | Record::Exemplars(_)
            | Record::MmapMarkers(_)
            | Record::Metadata(_)
            | Record::Histograms(_)
            | Record::FloatHistograms(_)
            | Record::MinValidTime(_)
            | Record::Unknown(_) => {}
        }
    }
}
