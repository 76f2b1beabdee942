//! Segments that Prometheus was repairing when it died.
//!
//! Its repair renames the segment to `N.repair`, writes the records before the fault into a new N, and removes the original
//! (`tsdb/wlog/wlog.go`, `WL.Repair`). Killed in between it leaves both, and never looks at the original again. If nothing has
//! been logged since, the original takes its place again, without what is damaged in it.

use std::io;
use std::path::Path;

use super::segment::{SalvagedSegment, SegmentChange, SegmentRules, needs_repair};
use crate::change::input::checksum_of_bytes;
use crate::change::plan::{Change, Defect, Loss, PlanStep, RepairedFinding, Resolution};
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::deletions::DeletionsLost;
use crate::scan::report::{Dialect, Segment};
use crate::scan::salvage::{Contents, Problem, Visitor};
use crate::tsdb::{Listing, StrayKind, Target};
use crate::wal::Record;
use crate::wal::segments::{segment_index, segment_name};

/// The steps that put originals back.
pub(super) fn steps(
    target: &Target,
    listing: &Listing,
    report: &Scan,
    rules: SegmentRules<'_>,
) -> io::Result<Vec<PlanStep>> {
    let mut steps = Vec::new();
    for stray in listing.strays.iter().filter(|stray| stray.kind == StrayKind::Repair) {
        let Some((directory, name)) = stray.relative.rsplit_once('/') else { continue };
        let Some(number) = name.strip_suffix(".repair").and_then(segment_index) else { continue };
        let is_it =
            |log: &&crate::scan::report::Log| log.path == directory && log.dialect == Dialect::Prometheus;
        let Some(log) = report.logs.iter().find(is_it) else { continue };
        let path = format!("{directory}/{}", segment_name(number));
        let logged_since = log.segments.iter().any(|segment| segment.index > number && segment.records > 0);
        let is_there = |segment: &&Segment| segment.path == path;
        let Some(segment) = log.segments.iter().find(is_there) else {
            // Prometheus died before it had made the new one, or could not make it.
            if log.segments.iter().all(|segment| segment.index < number) {
                steps.extend(renamed_back(target, &stray.relative, path, rules)?);
            }
            continue;
        };
        if logged_since || !is_file(&target.path_of(&stray.relative)) {
            continue;
        }
        let (now, original) = (records(target, &path, rules)?, records(target, &stray.relative, rules)?);
        let lost =
            if original.damaged { Loss::default().with(DeletionsLost::Possible) } else { Loss::NOTHING };
        let (now, original) = (now.checksums, original.checksums);
        if !original.starts_with(&now) {
            continue;
        }
        let change = Change::Rewrite {
            path,
            from: Some(stray.relative.clone()),
            bytes: segment.bytes,
            records: original.len() as u64,
            agent: rules.agent,
            corrections: rules.corrections,
            refs_up_to: None,
            begins_with: Vec::new(),
            pages: Vec::new(),
            staged: None,
        };
        let more_records = (original.len() - now.len()) as u64;
        steps.push(PlanStep { lost, ..step(change, Resolution::OriginalRestored { more_records }) });
        let bytes = target.path_of(&stray.relative).metadata()?.len();
        let aside = Change::SetAside { path: stray.relative.clone(), bytes };
        steps.push(step(aside, Resolution::OriginalNotNeeded));
    }
    Ok(steps)
}

/// Whether it is a file itself, and not a link to one, and can be read to its end.
fn is_file(path: &Path) -> bool {
    crate::io::open(path).is_ok()
}

/// Repairs the original where it is, since nobody reads it there, and gives it its name back.
fn renamed_back(
    target: &Target,
    original: &str,
    path: String,
    rules: SegmentRules<'_>,
) -> io::Result<Vec<PlanStep>> {
    let full = target.path_of(original);
    if !is_file(&full) {
        return Ok(Vec::new());
    }
    let file = crate::io::open(&full)?;
    let length = file.metadata()?.len();
    let salvaged = SalvagedSegment::of(&file, length, rules);
    if salvaged.is_in_flux() || salvaged.has_too_large() {
        return Ok(Vec::new());
    }
    let change = match salvaged.change(&file)? {
        SegmentChange::Nothing => None,
        SegmentChange::Patch { method, patches } => {
            Some(Change::Patch { path: original.to_owned(), method, patches })
        }
        SegmentChange::Rewrite { records } => Some(Change::Rewrite {
            path: original.to_owned(),
            from: None,
            bytes: length,
            records,
            agent: rules.agent,
            corrections: rules.corrections,
            refs_up_to: None,
            begins_with: Vec::new(),
            pages: Vec::new(),
            staged: None,
        }),
    };
    let damaged = salvaged.problems.iter().any(needs_repair);
    let lost = if damaged { Loss::default().with(DeletionsLost::Possible) } else { Loss::NOTHING };
    let corrected = change.map(|change| PlanStep { lost, ..step(change, Resolution::OriginalRepaired) });
    let back = Change::Rename { from: original.to_owned(), to: path };
    Ok(corrected.into_iter().chain([step(back, Resolution::OriginalRenamed)]).collect())
}

fn step(change: Change, resolution: Resolution) -> PlanStep {
    let code = Code::InterruptedRepair;
    PlanStep::of(change, RepairedFinding::new(code, Defect::RepairInterrupted, resolution))
}

/// What tells the records of a segment apart: the compression may have changed.
#[derive(Default)]
struct Records {
    checksums: Vec<String>,
    /// Whether something is damaged that cannot be corrected.
    damaged: bool,
}

impl Visitor for Records {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        self.checksums.push(checksum_of_bytes(record.data));
    }

    fn damage(&mut self, damage: Problem) {
        self.damaged |= needs_repair(&damage);
        // A record that is corrected counts among those that are written.
        self.checksums.extend(damage.correction.map(|_| String::new()));
    }
}

fn records(target: &Target, path: &str, rules: SegmentRules<'_>) -> io::Result<Records> {
    let path = target.path_of(path);
    let file = match crate::io::open(&path) {
        Err(error) if crate::io::is_no_file(&error) => return Ok(Records::default()),
        file => file?,
    };
    let length = file.metadata()?.len();
    Ok(rules.settled.segment(&file, length, rules.corrections).read(Records::default))
}
