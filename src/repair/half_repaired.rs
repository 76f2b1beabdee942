//! Segments that Prometheus was repairing when it died.
//!
//! Its repair renames the segment to `N.repair`, writes the records before the fault into a new N, and removes the original
//! (`tsdb/wlog/wlog.go`, `WL.Repair`). Killed in between it leaves both, and never looks at the original again. If nothing has
//! been logged since, the original takes its place again, without what is damaged in it.

use std::fs::File;
use std::io;

use super::input::checksum_of_bytes;
use super::plan::{Change, Loss, Mends, Step};
use super::segment::is_to_be_mended;
use crate::forecast::Assumed;
use crate::scan::report::{Dialect, Report};
use crate::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use crate::tsdb::{Listing, StrayKind, Target};
use crate::wal::Record;
use crate::wal::segments::{segment_index, segment_name};

/// The steps that put originals back.
pub(super) fn steps(
    target: &Target,
    listing: &Listing,
    report: &Report,
    assumed: Assumed,
) -> io::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for stray in listing.strays.iter().filter(|stray| stray.kind == StrayKind::Repair) {
        let Some((directory, name)) = stray.relative.rsplit_once('/') else { continue };
        let Some(number) = name.strip_suffix(".repair").and_then(segment_index) else { continue };
        let is_it =
            |log: &&crate::scan::report::Log| log.path == directory && log.dialect == Dialect::Prometheus;
        let Some(log) = report.logs.iter().find(is_it) else { continue };
        let path = format!("{directory}/{}", segment_name(number));
        let logged_since = log.segments.iter().any(|segment| segment.index > number && segment.records > 0);
        let Some(segment) = log.segments.iter().find(|segment| segment.path == path) else { continue };
        if logged_since || !target.path_of(&stray.relative).is_file() {
            continue;
        }
        let (now, original) = (records(target, &path)?, records(target, &stray.relative)?);
        let lost = if original.damaged { Loss::default() } else { Loss::NOTHING };
        let (now, original) = (now.checksums, original.checksums);
        if !original.starts_with(&now) {
            continue;
        }
        let change = Change::Rewrite {
            path,
            from: Some(stray.relative.clone()),
            bytes: segment.bytes,
            records: original.len() as u64,
            agent: assumed.agent.then_some(assumed.version),
        };
        let more = original.len() - now.len();
        let how = format!(
            "the original takes its place again, with {more} records more, and without what is damaged in it"
        );
        steps.push(step(change, how, lost));
        let bytes = target.path_of(&stray.relative).metadata()?.len();
        let aside = Change::SetAside { path: stray.relative.clone(), bytes };
        steps.push(step(aside, "it is of no more use; it goes into the backup".to_owned(), Loss::NOTHING));
    }
    Ok(steps)
}

fn step(change: Change, how: String, lost: Loss) -> Step {
    let mends = Mends {
        code: "interrupted_repair".to_owned(),
        offset: None,
        end: None,
        message: "Prometheus died while it repaired this segment".to_owned(),
        how,
    };
    Step { change, mends: vec![mends], lost }
}

/// What tells the records of a segment apart: the compression may have changed.
#[derive(Default)]
struct Records {
    checksums: Vec<String>,
    /// Whether something is damaged that cannot be put right.
    damaged: bool,
}

impl Visitor for Records {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        self.checksums.push(checksum_of_bytes(record.data));
    }

    fn damage(&mut self, damage: Problem) {
        self.damaged |= is_to_be_mended(&damage);
        // A record that is put right counts among those that are written.
        self.checksums.extend(damage.correction.map(|_| String::new()));
    }
}

fn records(target: &Target, path: &str) -> io::Result<Records> {
    let path = target.path_of(path);
    if !path.metadata()?.is_file() {
        return Ok(Records::default());
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    Ok(salvage(&file, length, Reading::Prometheus))
}
