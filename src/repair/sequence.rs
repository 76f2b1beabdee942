//! What makes Prometheus refuse to start for its names and numbers alone: lifted last, after everything for which a start
//! would delete.

use std::collections::BTreeSet;

use super::plan::{Change, Loss, Mends, Step};
use crate::scan::report::Finding;
use crate::tsdb::{Listing, LogDirectory, LogKind};
use crate::wal::segments::segment_name;

/// Empty segments that are made for one gap.
const MOST: i64 = 1000;

/// Findings that are mended here.
const CODES: [&str; 3] = ["misnamed_segment", "segments_not_sequential", "first_segment_missing"];

/// Whether a finding is about names and numbers of `wal/` or `wbl/`.
pub(super) fn is_about_names(listing: &Listing, finding: &Finding) -> bool {
    CODES.contains(&finding.code) && log_of(listing, finding).is_some()
}

fn log_of<'a>(listing: &'a Listing, finding: &Finding) -> Option<&'a LogDirectory> {
    let mut logs = listing.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Wbl));
    logs.find(|log| Some(&log.relative) == finding.log.as_ref())
}

/// The steps that mend these findings, or why some cannot be mended: then none is, since each of them keeps Prometheus from
/// starting.
pub(super) fn steps(listing: &Listing, findings: &[&Finding]) -> Result<Vec<Step>, &'static str> {
    let mut steps = Vec::new();
    for log in listing.logs.iter().filter(|log| matches!(log.kind, LogKind::Wal | LogKind::Wbl)) {
        let (names, numbers): (Vec<&Finding>, Vec<&Finding>) = findings
            .iter()
            .copied()
            .filter(|finding| finding.log.as_ref() == Some(&log.relative))
            .partition(|finding| finding.code == "misnamed_segment");
        if names.is_empty() && numbers.is_empty() {
            continue;
        }
        let same_number = log.segments.windows(2).any(|pair| pair[0].index == pair[1].index);
        if same_number || log.segments.iter().any(|segment| segment.index < 0) {
            return Err(
                "two files claim one number, or a number is negative: move one of them out of the directory",
            );
        }
        for segment in log.segments.iter().filter(|segment| !segment.has_canonical_name()) {
            let from = log.relative_of(segment);
            let Some(finding) = names.iter().find(|finding| finding.path == from) else { continue };
            let to = format!("{}/{}", log.relative, segment_name(segment.index));
            let how = "gets the name under which Prometheus looks for it";
            steps.push(step(Change::Rename { from, to }, finding, how));
        }
        let there: BTreeSet<i64> = log.segments.iter().map(|segment| segment.index).collect();
        for finding in numbers {
            let missing = missing(listing, log, &there, finding);
            let missing = missing.ok_or("too many segments are missing: is this the right directory?")?;
            steps.extend(missing.map(|number| {
                let path = format!("{}/{}", log.relative, segment_name(number));
                let how = "an empty segment takes the place of the one that is missing; what stood in that is not here";
                step(Change::Create { path, bytes: Vec::new() }, finding, how)
            }));
        }
    }
    Ok(steps)
}

/// The numbers that are missing in front of the segment that the finding is about.
fn missing(
    listing: &Listing,
    log: &LogDirectory,
    there: &BTreeSet<i64>,
    finding: &Finding,
) -> Option<std::ops::Range<i64>> {
    let numbers = if finding.code == "first_segment_missing" {
        // Prometheus begins behind the checkpoint, or at 0.
        let wanted = listing.last_checkpoint().map_or(0, |(_, number)| number.saturating_add(1));
        wanted..*there.first()?
    } else {
        let behind = log.segments.iter().find(|segment| log.relative_of(segment) == finding.path)?.index;
        there.range(..behind).next_back()?.saturating_add(1)..behind
    };
    (numbers.end - numbers.start <= MOST).then_some(numbers)
}

fn step(change: Change, finding: &Finding, how: &str) -> Step {
    let mends = Mends {
        code: finding.code.to_owned(),
        offset: finding.offset,
        end: finding.end,
        message: finding.message.clone(),
        how: how.to_owned(),
    };
    Step { change, mends: vec![mends], lost: Loss::NOTHING }
}
