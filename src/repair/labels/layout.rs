//! Which segments Prometheus reads once a plan is done, and where their bytes stand now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::repair::plan::{Change, Plan};
use crate::repair::state::is_at_or_below;
use crate::tsdb::{Listing, LogKind};
use crate::wal::segments::{segment_index, segment_name};

/// A segment, once the plan is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its path then.
    pub(super) path: String,
    /// Where its bytes stand now; `None` if the plan makes it.
    pub(super) from: Option<String>,
    /// Its number.
    pub(super) number: i64,
    /// In which log.
    pub(super) kind: LogKind,
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
}

impl Layout {
    pub(super) fn after(listing: &Listing, plan: &Plan) -> Self {
        let mut names: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut checkpoints: BTreeSet<String> = BTreeSet::new();
        for log in listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot) {
            if log.kind == LogKind::Checkpoint {
                checkpoints.insert(log.relative.clone());
            }
            let paths = log.segments.iter().map(|segment| log.relative_of(segment));
            names.extend(paths.map(|path| (path.clone(), Some(path))));
        }
        for step in &plan.steps {
            match &step.change {
                Change::Create { path, .. } => {
                    names.insert(path.clone(), None);
                }
                Change::CreateDirectory { path } => {
                    checkpoints.insert(path.clone());
                }
                Change::Rewrite { path, from: Some(from), .. } => {
                    names.insert(path.clone(), Some(from.clone()));
                }
                Change::Rename { from, to } => rename(&mut names, &mut checkpoints, from, to),
                Change::SetAside { path, .. } => {
                    names.retain(|name, _| !is_at_or_below(name, path));
                    checkpoints.retain(|name| !is_at_or_below(name, path));
                }
                Change::Patch { .. } | Change::Rewrite { from: None, .. } => {}
            }
        }
        Self::of(names, &checkpoints)
    }

    fn of(names: BTreeMap<String, Option<String>>, checkpoints: &BTreeSet<String>) -> Self {
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
            let part = Part { path, from, number, kind };
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

fn rename(
    names: &mut BTreeMap<String, Option<String>>,
    checkpoints: &mut BTreeSet<String>,
    from: &str,
    to: &str,
) {
    let moved: Vec<String> = names.keys().filter(|name| is_at_or_below(name, from)).cloned().collect();
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
