//! Segments whose pages are not where they were written: rewritten, each page where it belongs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use super::no_step::NoStep;
use super::refs::RefBounds;
use super::segment::{SalvagedSegment, SegmentRules, needs_repair, places};
use super::{Refusal, repaired};
use crate::change::plan::{Change, Defect, Loss, PageRun, Plan, PlanStep, RepairedFinding, Resolution};
use crate::scan::Scan;
use crate::scan::code::Code;
use crate::scan::deletions::DeletionsLost;
use crate::scan::misplaced::{Arrangement, PagePut};
use crate::scan::report::Finding;
use crate::tsdb::Target;
use crate::wal::arranged::Place;
use crate::wal::source::read_full;
use crate::wal::{PAGE, PAGE_SIZE};

/// Pages of other segments that one plan holds, at the most: each takes twice its bytes as text.
const MOST_FOREIGN: usize = 4096;

/// The step that rewrites a segment with these pages, and the refs of corrected records; or why there is none.
pub(super) fn step(
    target: &Target,
    path: &str,
    rules: SegmentRules<'_>,
    findings: &[&Finding],
    puts: &[PagePut],
    arrangement: &Arrangement,
) -> Result<(Option<PlanStep>, RefBounds), NoStep> {
    let full = target.path_of(path);
    if full.is_symlink() {
        return Err(Refusal::LinkToSegment.into());
    }
    let file = crate::io::open(&full)?;
    let length = file.metadata()?.len();
    let Some(pages) = runs(target, puts)? else {
        return Err(Refusal::ForeignPages.into());
    };
    let mut change = Change::Rewrite {
        path: path.to_owned(),
        from: None,
        bytes: length,
        records: 0,
        agent: rules.agent,
        corrections: rules.corrections,
        refs_up_to: None,
        begins_with: Vec::new(),
        pages,
        staged: None,
    };
    let places = places(&change);
    let rules = SegmentRules { places: places.as_deref(), ..rules };
    let salvaged = SalvagedSegment::of(&file, length, rules);
    if salvaged.is_in_flux() || salvaged.has_too_large() {
        return Err(Refusal::NotAllReadable.into());
    }
    let blanks = places.iter().flatten().filter(|place| **place == Place::Blank).count() as u64;
    if let Change::Rewrite { records, .. } = &mut change {
        *records = salvaged.kept_records().saturating_sub(blanks);
    }
    let is_whole = !salvaged.problems.iter().any(needs_repair);
    let lost = if is_whole { Loss::NOTHING } else { Loss::new(None, None).with(DeletionsLost::Possible) };
    let lost = lost.and(salvaged.lost_to_agent());
    let mut repairs: Vec<RepairedFinding> = findings
        .iter()
        .map(|finding| {
            let page = (finding.path.clone(), finding.offset.unwrap_or(0) / PAGE);
            let is_copy = arrangement.copies.contains(&page);
            repaired(finding, resolution(finding, is_copy, is_whole))
        })
        .collect();
    if repairs.is_empty() {
        let (defect, resolution) = (Defect::PagesElsewhere, Resolution::PagesMovedBack);
        repairs.push(RepairedFinding::new(Code::MisplacedPages, defect, resolution));
    }
    let (bytes, _) = rules.bytes(&file, length);
    let refs = salvaged.corrected_refs(&bytes)?;
    Ok((Some(PlanStep { change, repairs, lost }), refs))
}

fn resolution(finding: &Finding, is_copy: bool, is_whole: bool) -> Resolution {
    match (finding.code, is_whole) {
        (Code::MisplacedPages, _) if is_copy => Resolution::PageCopyDropped,
        (Code::MisplacedPages, _) => Resolution::PageMovedBack,
        (_, true) => Resolution::IntactOncePagesFit,
        (_, false) => Resolution::RewrittenWithPagesInPlace,
    }
}

/// Whether all pages are where they belong after these steps.
fn arranged<'a>(report: &'a Scan, steps: &[PlanStep]) -> Option<&'a Arrangement> {
    let arrangement = report.misplaced.as_ref()?;
    let is_done = |path: &String| {
        steps.iter().any(|step| {
            matches!(&step.change, Change::Rewrite { path: of, pages, .. } if of == path && !pages.is_empty())
        })
    };
    arrangement.segments.keys().all(is_done).then_some(arrangement)
}

/// The highest refs after these steps, if they put pages back: what was read before of pages that did not follow one another
/// says nothing.
pub(super) fn refs(report: &Scan, steps: &[PlanStep]) -> Option<RefBounds> {
    arranged(report, steps)
        .map(|Arrangement { refs: (defined, used), .. }| RefBounds { defined: *defined, used: *used })
}

/// The time of the newest record after these steps, ms, if they put pages back.
pub(super) fn newest(report: &Scan, steps: &[PlanStep]) -> Option<i64> {
    arranged(report, steps).and_then(|arrangement| arrangement.newest)
}

/// What is wrong with refs is corrected where all series are defined once afterwards.
pub(super) fn settle(report: &Scan, findings: &mut BTreeMap<&str, Vec<&Finding>>, plan: &mut Plan) {
    if !report.misplaced.as_ref().is_some_and(|pages| pages.defines_once) {
        return;
    }
    let is_arranged =
        |step: &&mut PlanStep| matches!(&step.change, Change::Rewrite { pages, .. } if !pages.is_empty());
    let Some(step) = plan.steps.iter_mut().find(is_arranged) else { return };
    for of_path in findings.values_mut() {
        let is_settled = |finding: &mut &Finding| {
            matches!(finding.code, Code::RepeatedSeries | Code::ReissuedRefs | Code::SeriesAfterUse)
        };
        let settled = of_path.extract_if(.., is_settled);
        step.repairs.extend(settled.map(|finding| repaired(finding, Resolution::SeriesDefinedOnce)));
    }
}

/// As a plan has them; none if they are too many.
fn runs(target: &Target, puts: &[PagePut]) -> io::Result<Option<Vec<PageRun>>> {
    let mut runs: Vec<PageRun> = Vec::new();
    let mut foreign = 0;
    let mut open: Option<(&str, File)> = None;
    for put in puts {
        match (put, runs.last_mut()) {
            (PagePut::Own(number), Some(PageRun::Own { first, count })) if *first + *count == *number => {
                *count += 1;
            }
            (PagePut::Own(number), _) => runs.push(PageRun::Own { first: *number, count: 1 }),
            (PagePut::Blank, Some(PageRun::Nothing(count))) => *count += 1,
            (PagePut::Blank, _) => runs.push(PageRun::Nothing(1)),
            (PagePut::Of(path, number), _) => {
                foreign += 1;
                if foreign > MOST_FOREIGN {
                    return Ok(None);
                }
                let file = match open.take() {
                    Some((known, file)) if known == path => file,
                    _ => crate::io::open(&target.path_of(path))?,
                };
                runs.push(PageRun::Bytes(page(&file, *number)?));
                open = Some((path, file));
            }
        }
    }
    if runs.is_empty() {
        // A segment of nothing.
        runs.push(PageRun::Nothing(1));
    }
    Ok(Some(runs))
}

fn page(file: &File, number: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PAGE_SIZE];
    let filled = read_full(file, &mut bytes, number * PAGE)?;
    bytes.truncate(filled);
    Ok(bytes)
}
