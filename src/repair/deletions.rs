//! Deletions that are lost with files that are set aside, or with what is cut off.

use std::io;

use super::plan::{Change, Content, Mode, Plan};
use super::segment::open;
use crate::scan::Scan;
use crate::scan::deletions::{self, DeletionsLost};
use crate::scan::report::{Log, LogKind};
use crate::scan::settled::Settlements;
use crate::tsdb::Target;

/// Says in each step of `plan` that sets a log or segment aside, or cuts one as Prometheus would, whether deletions are lost.
pub(super) fn note(target: &Target, report: &Scan, plan: &mut Plan) -> io::Result<()> {
    if plan.agent {
        return Ok(());
    }
    for step in &mut plan.steps {
        let deletions = match &step.change {
            Change::SetAside { path, .. } => with_file(target, report, path)?,
            // What a salvage cuts off cannot be read: the findings say what it was.
            Change::Patch { path, patches, .. } if plan.mode == Mode::Prometheus => {
                let cut = patches.iter().find(|patch| patch.with == Content::End);
                let from = cut.filter(|_| is_replayed(report, path)).map(|patch| patch.offset);
                from.map(|from| of_segment(target, path, from, &report.settled))
                    .transpose()?
                    .unwrap_or_default()
            }
            _ => DeletionsLost::None,
        };
        step.lost = step.lost.with(deletions);
    }
    Ok(())
}

/// With a segment, or a whole log.
fn with_file(target: &Target, report: &Scan, path: &str) -> io::Result<DeletionsLost> {
    if let Some(log) = report.logs.iter().find(|log| log.path == path && log.kind == LogKind::ChunkSnapshot) {
        // What a snapshot has of them it has from the WAL, where they still are unless that has lost them.
        let in_wal: u64 = replayed(report).map(|log| log.entries.tombstones).sum();
        let only_here = log.entries.tombstones > in_wal;
        return Ok(if only_here { DeletionsLost::Possible } else { DeletionsLost::None });
    }
    let mut lost = DeletionsLost::None;
    for log in replayed(report) {
        for segment in log.segments.iter().filter(|segment| log.path == path || segment.path == path) {
            lost = lost.max(of_segment(target, &segment.path, 0, &report.settled)?);
        }
    }
    Ok(lost)
}

/// The WAL, and the last of its checkpoints: no other is read.
fn replayed(report: &Scan) -> impl Iterator<Item = &Log> {
    let of = move |kind| report.logs.iter().filter(move |log| log.kind == kind);
    of(LogKind::Wal).chain(of(LogKind::Checkpoint).next_back())
}

fn is_replayed(report: &Scan, path: &str) -> bool {
    replayed(report).any(|log| log.segments.iter().any(|segment| segment.path == path))
}

fn of_segment(target: &Target, path: &str, from: u64, settled: &Settlements) -> io::Result<DeletionsLost> {
    let path = target.path_of(path);
    if !path.is_file() {
        return Ok(DeletionsLost::None);
    }
    let (file, length) = open(&path)?;
    Ok(deletions::behind(&file, length, from, settled))
}
