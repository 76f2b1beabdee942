//! Which segments Prometheus reads once a plan is done, and where their bytes are now.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;

use crate::change::is_at_or_below;
use crate::change::plan::{Change, Content, Patch, PlanStep};
use crate::record::Selected;
use crate::repair::chunks::CHUNKS_HEAD;
use crate::repair::segment::{RecordSink, SegmentRules, places, read_repaired_before};
use crate::tsdb::{Listing, LogKind, Target};
use crate::wal::arranged::Place;
use crate::wal::segments::{segment_index, segment_name};

/// A segment, once the plan is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its path then.
    pub(super) path: String,
    /// Where its bytes are now; `None` if the plan makes it.
    pub(super) from: Option<String>,
    /// Its number.
    pub(super) number: i64,
    /// In which log.
    pub(super) kind: LogKind,
    /// What stays of it.
    kept: Kept,
}

/// What a plan leaves of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Bytes, if it ends before its end.
    bytes: Option<u64>,
    /// Nothing else of it is changed.
    is_only_cut: bool,
    /// Entries of refs up to this one, if not all do.
    refs_up_to: Option<u64>,
    /// What is in the place of each page, if its pages are not where they belong.
    places: Option<Vec<Place>>,
}

impl Part {
    /// How it is repaired, where the directory is repaired so.
    pub(super) fn rules<'a>(&'a self, rules: SegmentRules<'a>) -> SegmentRules<'a> {
        // No agent reads a WBL.
        let agent = rules.agent.filter(|_| self.kind != LogKind::Wbl);
        SegmentRules { agent, refs_up_to: self.kept.refs_up_to, places: self.kept.places.as_deref(), ..rules }
    }

    /// Has a taker take the records that it has once the plan is done; nothing if it is made by the plan, is no file, or has
    /// gone.
    pub(super) fn take<T: RecordSink>(
        &self,
        target: &Target,
        rules: SegmentRules<'_>,
        new: impl Fn() -> T,
    ) -> io::Result<Option<T>> {
        let path = self.from.as_ref().map(|from| target.path_of(from));
        let Some(path) = path else { return Ok(None) };
        let file = match crate::io::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound || crate::io::is_no_file(&error) => {
                return Ok(None);
            }
            file => file?,
        };
        let length = file.metadata()?.len();
        let end = self.kept.bytes.unwrap_or(length).min(length);
        // What is after a cut says nothing of what is before it, if that is only cut. Otherwise the plan has judged both
        // together, and changes what it does not believe.
        let length = if self.kept.is_only_cut { end } else { length };
        let rules = self.rules(rules);
        let new = || Selecting { rules, sink: new() };
        Ok(Some(read_repaired_before(&file, length, end, rules, new).sink))
    }
}

/// Takes of each record what stays of it.
struct Selecting<'a, T> {
    rules: SegmentRules<'a>,
    sink: T,
}

impl<T: RecordSink> RecordSink for Selecting<'_, T> {
    fn record(&mut self, record: &[u8]) {
        match self.rules.select(record) {
            Selected::All => self.sink.record(record),
            Selected::Part { record, .. } => self.sink.record(&record),
            Selected::Nothing { .. } => {}
        }
    }
}

/// The segments of a data directory, once a plan is done.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Those that a start replays, in that order (`tsdb/head.go`, `Head.Init`).
    pub(super) replayed: Vec<Part>,
    /// Those of the WAL with a number that the last checkpoint covers.
    pub(super) below: Vec<Part>,
    /// Those of older checkpoints, by the number of the checkpoint.
    pub(super) older: BTreeMap<i64, Vec<Part>>,
    /// Where files of head chunks are changed, by their paths.
    chunks: BTreeMap<String, HashSet<u64>>,
}

impl Layout {
    pub(super) fn after<'a>(listing: &Listing, steps: impl Iterator<Item = &'a PlanStep>) -> Self {
        let mut names: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut checkpoints: BTreeSet<String> = BTreeSet::new();
        for log in listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot) {
            if log.kind == LogKind::Checkpoint {
                checkpoints.insert(log.relative.clone());
            }
            let paths = log.segments.iter().map(|segment| log.relative_of(segment));
            names.extend(paths.map(|path| (path.clone(), Some(path))));
        }
        let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
        let mut chunks: BTreeMap<String, HashSet<u64>> = BTreeMap::new();
        for step in steps {
            match &step.change {
                Change::Create { path, .. } => {
                    names.insert(path.clone(), None);
                }
                Change::CreateDirectory { path } => {
                    checkpoints.insert(path.clone());
                }
                Change::Rewrite { path, from, refs_up_to, .. } => {
                    let from = from.as_ref().unwrap_or(path);
                    names.insert(path.clone(), Some(from.clone()));
                    let kept = kept.entry(from.clone()).or_default();
                    (kept.refs_up_to, kept.places) = (*refs_up_to, places(&step.change));
                }
                // A block has its labels itself.
                Change::RewriteIndex { .. } => {}
                Change::Patch { path, patches, .. } if is_at_or_below(path, CHUNKS_HEAD) => {
                    chunks.entry(path.clone()).or_default().extend(patches.iter().map(|patch| patch.offset));
                }
                Change::Patch { path, patches, .. } => {
                    let ends = |patch: &&Patch| matches!(patch.with, Content::End);
                    let end = patches.iter().find(ends).map(|patch| patch.offset);
                    let kept = kept.entry(path.clone()).or_default();
                    (kept.bytes, kept.is_only_cut) = (end, patches.len() == 1);
                }
                Change::Rename { from, to } => rename(&mut names, &mut checkpoints, from, to),
                Change::SetAside { path, .. } => {
                    for name in at_or_below(&names, path) {
                        names.remove(&name);
                    }
                    checkpoints.retain(|name| !is_at_or_below(name, path));
                }
            }
        }
        Self { chunks, ..Self::of(names, &checkpoints, &kept) }
    }

    /// Whether the byte at `offset` of a file of head chunks is changed.
    pub(super) fn changes_chunk(&self, path: &str, offset: u64) -> bool {
        self.chunks.get(path).is_some_and(|offsets| offsets.contains(&offset))
    }

    fn of(
        names: BTreeMap<String, Option<String>>,
        checkpoints: &BTreeSet<String>,
        kept: &BTreeMap<String, Kept>,
    ) -> Self {
        let number_of = |directory: &str| directory.strip_prefix("wal/checkpoint.").and_then(segment_index);
        let last = checkpoints.iter().filter_map(|directory| number_of(directory)).max();
        let mut layout = Self::default();
        let (mut wal, mut wbl) = (Vec::new(), Vec::new());
        for (path, from) in names {
            let Some((directory, name)) = path.rsplit_once('/') else { continue };
            let Some(number) = segment_index(name) else { continue };
            let of_checkpoint = number_of(directory);
            let kind = match directory {
                "wal" => LogKind::Wal,
                "wbl" => LogKind::Wbl,
                _ if of_checkpoint.is_some() => LogKind::Checkpoint,
                _ => continue,
            };
            let kept = from.as_ref().and_then(|from| kept.get(from)).cloned().unwrap_or_default();
            let part = Part { path, from, number, kind, kept };
            match (kind, of_checkpoint) {
                (LogKind::Wbl, _) => wbl.push(part),
                (LogKind::Wal, _) if last.is_some_and(|last| number <= last) => layout.below.push(part),
                (LogKind::Wal, _) => wal.push(part),
                (_, number) if number == last => layout.replayed.push(part),
                (_, number) => layout.older.entry(number.unwrap_or_default()).or_default().push(part),
            }
        }
        for parts in [&mut layout.replayed, &mut layout.below, &mut wal, &mut wbl] {
            in_order(parts);
        }
        layout.older.values_mut().for_each(in_order);
        layout.replayed.extend(wal);
        layout.replayed.extend(wbl);
        layout
    }
}

/// Of two with one number a replay opens the one that is named as it should be.
fn in_order(parts: &mut Vec<Part>) {
    let is_misnamed = |part: &Part| {
        Path::new(&part.path).file_name().is_none_or(|name| name != segment_name(part.number).as_str())
    };
    parts.sort_by_key(|part| (part.number, is_misnamed(part)));
    parts.dedup_by_key(|part| part.number);
}

/// The names of a file, or of all that is in a directory. There may be many names and many steps.
fn at_or_below(names: &BTreeMap<String, Option<String>>, path: &str) -> Vec<String> {
    // Other names may be between the directory's own and those in it, as `a-b` between `a` and `a/b`.
    let (inside, after) = (format!("{path}/"), format!("{path}0"));
    let own = names.contains_key(path).then(|| path.to_owned());
    own.into_iter().chain(names.range(inside..after).map(|(name, _)| name.clone())).collect()
}

fn rename(
    names: &mut BTreeMap<String, Option<String>>,
    checkpoints: &mut BTreeSet<String>,
    from: &str,
    to: &str,
) {
    let moved = at_or_below(names, from);
    if moved.is_empty() && !checkpoints.contains(from) {
        // Something that is no segment by its name so far.
        names.insert(to.to_owned(), Some(from.to_owned()));
    }
    for name in moved {
        let origin = names.remove(&name).flatten();
        names.insert(format!("{to}{}", &name[from.len()..]), origin);
    }
    if checkpoints.remove(from) {
        checkpoints.insert(to.to_owned());
    }
}
