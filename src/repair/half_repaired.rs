//! Segments that Prometheus was repairing when it died.
//!
//! Its repair renames the segment to `N.repair`, writes the records before the fault into a new N, and removes the original
//! (`tsdb/wlog/wlog.go`, `WL.Repair`). Killed in between it leaves both, and never looks at the original again. If nothing has
//! been logged since, the original takes its place again, without what is damaged in it.

use std::fs::File;
use std::io;

use super::input::checksum_of_bytes;
use super::plan::{Change, Loss, Mends, Step};
use crate::scan::report::{Dialect, Report};
use crate::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use crate::tsdb::{Listing, StrayKind, Target};
use crate::wal::Record;
use crate::wal::segments::{segment_index, segment_name};

/// The steps that put originals back.
pub(super) fn steps(target: &Target, listing: &Listing, report: &Report) -> io::Result<Vec<Step>> {
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
        if logged_since {
            continue;
        }
        let (now, original) = (records(target, &path)?, records(target, &stray.relative)?);
        if !original.starts_with(&now) {
            continue;
        }
        let change = Change::Rewrite {
            path,
            from: Some(stray.relative.clone()),
            bytes: segment.bytes,
            records: original.len() as u64,
            agent: None,
        };
        let more = original.len() - now.len();
        let how = format!(
            "the original takes its place again, with {more} records more, and without what is damaged in it"
        );
        steps.push(step(change, how));
        let bytes = target.path_of(&stray.relative).metadata()?.len();
        let aside = Change::SetAside { path: stray.relative.clone(), bytes };
        steps.push(step(aside, "it is of no more use; it goes into the backup".to_owned()));
    }
    Ok(steps)
}

fn step(change: Change, how: String) -> Step {
    let mends = Mends {
        code: "interrupted_repair".to_owned(),
        offset: None,
        end: None,
        message: "Prometheus died while it repaired this segment".to_owned(),
        how,
    };
    Step { change, mends: vec![mends], lost: Loss::NOTHING }
}

/// What tells the records of a segment apart: the compression may have changed.
fn records(target: &Target, path: &str) -> io::Result<Vec<String>> {
    #[derive(Default)]
    struct Records(Vec<String>);
    impl Visitor for Records {
        fn record(&mut self, record: &Record<'_>, _: &Contents) {
            self.0.push(checksum_of_bytes(record.data));
        }
        fn damage(&mut self, damage: Problem) {
            // A record that is put right counts among those that are written.
            self.0.extend(damage.correction.map(|_| String::new()));
        }
    }
    let file = File::open(target.path_of(path))?;
    let length = file.metadata()?.len();
    let records: Records = salvage(&file, length, Reading::Prometheus);
    Ok(records.0)
}
