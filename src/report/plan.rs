//! A repair, planned or done, for an operator and for machines.

use std::io::{self, Write};
use std::path::Path;

use anstyle::AnsiColor;
use serde::Serialize;

use super::forecast as forecast_text;
use super::page::{GLUE, Page, Style, clean, count, number, path, range, size, times};
use super::words;
use crate::forecast::report::Forecast;
use crate::repair::Plan;
use crate::repair::plan::{Change, FoundLabels, Loss, Method, Mode, Orphans, PlanStep, RepairedFinding};
use crate::scan::code::Code;
use crate::scan::report::{Report, Severity, State, Verdict};

/// Findings of one step that are shown one by one.
const SHOWN: usize = 6;

/// Renames in a row that are all listed as text.
const MOST_RENAMES: usize = 5;
/// Lost series that are named as text.
const SERIES_SHOWN: usize = 20;

/// What is reported of a repair.
#[derive(Clone, Copy, Debug)]
pub struct RepairAnswer<'a> {
    /// What is done, or would be.
    pub plan: &'a Plan,
    /// What Prometheus would do instead.
    pub forecast: Option<&'a Forecast>,
    /// What has been done; `None` if nothing has.
    pub done: Option<Done<'a>>,
}

/// What has been done.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    /// Where the old bytes are; `None` if they were not to be kept.
    pub backup: Option<&'a Path>,
    /// Whether a repair was finished that had been interrupted.
    pub finished: bool,
    /// The scan afterwards.
    pub after: &'a Report,
}

/// The keys of the JSON.
#[derive(Serialize)]
struct PlanDocument<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    backup_bytes: u64,
    needs_accept_orphans: bool,
    without_repair: Option<&'a Forecast>,
    applied: Option<Applied>,
}

#[derive(Serialize)]
struct Applied {
    backup: Option<String>,
    finished_interrupted: bool,
    verdict: Verdict,
    state: State,
    damage: Vec<Code>,
}

/// Writes the answer as one JSON document on one line. `docs/schema/plan.schema.json` describes it.
///
/// # Errors
/// Those of `out`.
pub fn write_json(answer: &RepairAnswer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let applied = answer.done.map(|done| Applied {
        backup: done.backup.map(|path| path.display().to_string()),
        finished_interrupted: done.finished,
        verdict: done.after.verdict,
        state: done.after.state,
        damage: done.after.of_severity(Severity::Damage).map(|finding| finding.code).collect(),
    });
    let document = PlanDocument {
        plan: answer.plan,
        backup_bytes: answer.plan.backup_bytes(),
        needs_accept_orphans: answer.plan.needs_accept_orphans(),
        without_repair: answer.forecast,
        applied,
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// Writes the answer as text.
///
/// # Errors
/// Those of `out`.
pub fn write(answer: &RepairAnswer<'_>, out: &mut dyn Write, style: Style) -> io::Result<()> {
    let mut page = Page { out, colour: style.colour };
    verdict(&mut page, answer)?;
    if style.quiet {
        return Ok(());
    }
    let plan = answer.plan;
    for steps in plan.steps.chunk_by(|a, b| is_rename(a) && is_rename(b)) {
        // All segments of a log may be renamed at once.
        let shown = if steps.len() > MOST_RENAMES { 1 } else { steps.len() };
        for step in &steps[..shown] {
            page.line("")?;
            self::step(&mut page, step)?;
        }
        let more = steps.len() - shown;
        if let (Some(last), 1..) = (steps.last(), more) {
            page.line("")?;
            let names = format!("down to {}", path(last.change.path(), 60));
            page.indented(
                2,
                &format!("and {} in the same way, {names}", count(more as u64, "more", "more")),
            )?;
        }
    }
    if !plan.lost_series.is_empty() {
        page.line("")?;
        lost_series(&mut page, plan)?;
    }
    if !plan.left.is_empty() {
        page.line("")?;
        page.line("  stays as it is:")?;
        for left in &plan.left {
            let place = left
                .offset
                .zip(left.end)
                .map_or_else(String::new, |(from, to)| format!("  {}", range(from, to)));
            page.indented(4, &format!("{}{place}  {}", path(&left.path, 60), left.code))?;
            page.indented(6, &clean(&left.refusal.to_string()))?;
        }
    }
    if !plan.steps.is_empty() {
        page.line("")?;
        comparison(&mut page, answer)?;
    }
    page.line("")?;
    end(&mut page, answer)
}

fn lost_series(page: &mut Page<'_>, plan: &Plan) -> io::Result<()> {
    let named = plan.lost_series.len() as u64;
    let all = plan.lost_series_count.max(named);
    page.line(&format!("  series that are lost: {}", number(all)))?;
    for series in plan.lost_series.iter().take(SERIES_SHOWN) {
        page.indented(4, &clean(series))?;
    }
    let more = all.saturating_sub(SERIES_SHOWN as u64);
    if more == 0 {
        return Ok(());
    }
    let which = if all > named { format!("the first {}", number(named)) } else { "them all".to_owned() };
    page.indented(4, &format!("and {}; --format=json names {which}", count(more, "more", "more")))
}

fn is_rename(step: &PlanStep) -> bool {
    matches!(step.change, Change::Rename { .. })
}

/// What a repair would come to, for the report of a scan.
pub(super) fn outlook(page: &mut Page<'_>, plan: &Plan) -> io::Result<()> {
    let places: u64 = plan.steps.iter().map(|step| step.repairs.len() as u64).sum();
    let accept = if plan.needs_accept_orphans() { format!("{GLUE}--accept-orphans") } else { String::new() };
    let words = match (plan.steps.is_empty(), plan.left.first()) {
        (true, None) => return Ok(()),
        (true, Some(left)) => {
            format!("walfix{GLUE}repair cannot repair this: {}", clean(&left.refusal.to_string()))
        }
        (false, None) => {
            format!("walfix{GLUE}repair{GLUE}--backup{accept} will repair it; lost: {}", loss(plan.lost))
        }
        (false, Some(left)) => format!(
            "walfix{GLUE}repair{GLUE}--backup{accept} repairs {}, but not all: {}",
            count(places, "place", "places"),
            clean(&left.refusal.to_string())
        ),
    };
    page.line("")?;
    page.indented(2, &words)
}

fn verdict(page: &mut Page<'_>, answer: &RepairAnswer<'_>) -> io::Result<()> {
    let (green, red) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default().bold());
    let plan = answer.plan;
    let (word, style) = match &answer.done {
        Some(done) if is_damaged(done) => ("STILL DAMAGED", red),
        Some(done) if done.after.verdict == Verdict::Damaged => (words::state(done.after.state), red),
        Some(_) => ("REPAIRED", green),
        None if !plan.left.is_empty() && plan.steps.is_empty() => ("CANNOT BE REPAIRED", red),
        None if !plan.left.is_empty() => ("CAN BE REPAIRED IN PART", red),
        None if plan.steps.is_empty() => ("nothing to repair", green),
        None => ("CAN BE REPAIRED", AnsiColor::Yellow.on_default().bold()),
    };
    let places: usize = plan.steps.iter().map(|step| step.repairs.len()).sum();
    let tally = match plan.steps.len() {
        0 => String::new(),
        steps => {
            format!("{} in {}", count(places as u64, "place", "places"), count(steps as u64, "file", "files"))
        }
    };
    let path = path(&plan.path, 60);
    page.line(&format!("{path}  {}  {tally}", page.paint(style, word)))
}

/// Whether damage is left.
fn is_damaged(done: &Done<'_>) -> bool {
    done.after.of_severity(Severity::Damage).next().is_some()
}

fn step(page: &mut Page<'_>, step: &PlanStep) -> io::Result<()> {
    let deed = match &step.change {
        Change::Patch { method, patches, .. } => {
            let bytes =
                size(patches.iter().map(|patch| patch.replaces.max(patch.with.bytes().len() as u64)).sum());
            match method {
                Method::InPlace => format!("{bytes} changed in place"),
                Method::Replace => format!("{bytes} changed; the file is replaced at once"),
            }
        }
        Change::Rewrite { records, begins_with, pages, .. } => {
            let series = match begins_with.len() as u64 {
                0 => String::new(),
                series => format!(" and the labels of {}", count(series, "series", "series")),
            };
            let pages = if pages.is_empty() { "" } else { ", its pages where they belong," };
            format!("rewritten{pages} with its {}{series}", count(*records, "record", "records"))
        }
        Change::RewriteIndex { series, chunks, dropped, .. } => {
            let lost = match dropped.iter().map(|run| run.count).sum() {
                0 => String::new(),
                chunks => format!("; {} dropped", count(chunks, "chunk", "chunks")),
            };
            let (series, chunks) = (count(*series, "series", "series"), count(*chunks, "chunk", "chunks"));
            format!("rewritten with its {series} and {chunks}{lost}")
        }
        Change::Create { bytes, .. } if bytes.is_empty() => "made, empty".to_owned(),
        Change::Create { bytes, .. } => format!("made, {}", size(bytes.len() as u64)),
        Change::CreateDirectory { .. } => "made, an empty directory".to_owned(),
        Change::Rename { to, .. } => format!("renamed to {}", path(to, 60)),
        Change::SetAside { .. } => "moved into the backup".to_owned(),
    };
    page.indented(2, &format!("{}  {deed}", path(step.change.path(), 60)))?;
    for repaired in step.repairs.iter().take(SHOWN) {
        let place = repaired
            .offset
            .zip(repaired.end)
            .map_or_else(String::new, |(from, to)| format!("{}  ", range(from, to)));
        page.indented(4, &format!("{place}{}", repaired.code))?;
        page.indented(6, &in_words(repaired))?;
    }
    let more = step.repairs.len().saturating_sub(SHOWN) as u64;
    if more > 0 {
        page.indented(4, &format!("and {}", count(more, "more place", "more places")))?;
    }
    page.indented(4, &format!("lost: {}", loss(step.lost)))
}

fn in_words(repaired: &RepairedFinding) -> String {
    let message = repaired.defect.to_string();
    let message = clean(&message);
    // A whole sentence, or the name of what is wrong.
    let colon = if message.ends_with('.') { "" } else { ":" };
    format!("{message}{colon} {}", clean(&repaired.resolution.to_string()))
}

fn loss(loss: Loss) -> String {
    let records = |number| count(number, "record", "records");
    let entries = |number| count(number, "entry", "entries");
    let least = (loss.records_at_least, loss.entries_at_least);
    match (loss.records, loss.entries, least) {
        (Some(0), Some(0), _) => "nothing".to_owned(),
        (Some(0), Some(number), _) => entries(number),
        (Some(0), None, (_, 0)) => "entries of records that stay in part; how many is not known".to_owned(),
        (Some(0), None, (_, least)) => format!("at least {}", entries(least)),
        (Some(number), Some(all), _) => format!("{} with {}", records(number), entries(all)),
        (Some(number), None, (_, 0)) => format!("{}, of what is not known", records(number)),
        (Some(number), None, (_, least)) => format!("{} with at least {}", records(number), entries(least)),
        (None, _, (0, 0)) => format!("{UNKNOWN} (amount unknown)"),
        (None, _, (0, least)) => format!("at least {}, and {UNKNOWN} (amount unknown)", entries(least)),
        (None, _, (number, least)) => {
            let known = format!("{} with {}", records(number), entries(least));
            format!("at least {known}, and {UNKNOWN} (amount unknown)")
        }
    }
}

/// What is lost where nobody knows how much it was.
const UNKNOWN: &str = "the contents of the damaged bytes";

/// What is lost by this repair, and by Prometheus's own.
fn comparison(page: &mut Page<'_>, answer: &RepairAnswer<'_>) -> io::Result<()> {
    let plan = answer.plan;
    page.line("  lost")?;
    let lead = match plan.mode {
        Mode::Salvage => "    by this repair            ",
        Mode::Prometheus => "    by --mode prometheus      ",
    };
    let own = match plan.mode {
        Mode::Salvage => loss(plan.lost),
        Mode::Prometheus => "what Prometheus's own repair loses; it is kept in the backup".to_owned(),
    };
    page.paragraph(lead, lead, lead.len(), &own)?;
    if let Some(forecast) = answer.forecast {
        let lead = "    by Prometheus, without it ";
        page.paragraph(lead, lead, lead.len(), &forecast_text::cost(forecast))?;
    }
    labels(page, &plan.labels)?;
    if let Some(orphans) = &plan.orphans {
        page.indented(2, &without_labels(orphans))?;
    }
    if let Some(words) = words::deletions(plan.lost.deletions) {
        page.indented(2, words)?;
    }
    Ok(())
}

/// Where lost labels were looked for, and what came of it.
fn labels(page: &mut Page<'_>, labels: &FoundLabels) -> io::Result<()> {
    let of = |series| count(series, "series", "series");
    for found in &labels.found {
        let from = path(&found.path, 60);
        page.indented(2, &format!("{} get their labels back, from {from}", of(found.series)))?;
    }
    for refused in &labels.refused {
        let from = path(&refused.path, 60);
        let what =
            if refused.series > 0 { format!(", labels of {}", of(refused.series)) } else { String::new() };
        page.indented(2, &format!("not used: {from}{what}: {}", clean(&refused.refusal.to_string())))?;
    }
    Ok(())
}

/// What stays without labels, as a sentence on one line.
#[must_use]
pub fn orphans_in_words(orphans: &Orphans) -> String {
    without_labels(orphans).replace(GLUE, " ")
}

/// Why a repair that would leave so many entries without labels changes nothing.
#[must_use]
pub fn refused_for_orphans(orphans: &Orphans, mode: Mode, has_finished_another: bool) -> String {
    let nothing = if has_finished_another { "Nothing more" } else { "Nothing" };
    let elsewhere = match mode {
        Mode::Salvage => "",
        Mode::Prometheus => " --mode salvage keeps the series records after the fault that can be read.",
    };
    format!(
        "{}. {nothing} was changed.{elsewhere} If their series records cannot be had from anywhere, repair with \
         --accept-orphans.",
        orphans_in_words(orphans)
    )
}

fn without_labels(orphans: &Orphans) -> String {
    let series = count(orphans.series, "series", "series");
    let times = times(orphans.from, orphans.to).map_or_else(String::new, |times| format!(", {times},"));
    let chunks = orphans.head_chunks.unwrap_or(0);
    let chunks = if chunks > 0 { count(chunks, "head chunk", "head chunks") } else { String::new() };
    let (what, share) = match (orphans.entries, chunks.as_str()) {
        (0, _) => (chunks, String::new()),
        (entries, none) => {
            let entries = count(entries, "entry", "entries");
            let what = if none.is_empty() { entries } else { format!("{entries} and {none}") };
            (what, format!(" ({} of all entries)", orphans.in_percent()))
        }
    };
    format!(
        "{what} of {series}{times} have lost their labels{share}; they stay in the log, and Prometheus drops them"
    )
}

fn end(page: &mut Page<'_>, answer: &RepairAnswer<'_>) -> io::Result<()> {
    let plan = answer.plan;
    match &answer.done {
        None if plan.steps.is_empty() => Ok(()),
        None => page.indented(
            2,
            &format!(
                "Dry run: nothing was changed. Use --backup{} to apply; {} of old bytes will be saved.",
                if plan.needs_accept_orphans() { format!("{GLUE}--accept-orphans") } else { String::new() },
                size(plan.backup_bytes())
            ),
        ),
        Some(done) => {
            if !is_damaged(done) && done.after.verdict == Verdict::Damaged {
                page.indented(
                    2,
                    "All that walfix can repair is repaired. Do not start Prometheus; walfix scan says what else is wrong.",
                )?;
            }
            if is_damaged(done) {
                let left = done.after.of_severity(Severity::Damage).count() as u64;
                page.indented(
                    2,
                    &format!(
                        "{} left: do not start Prometheus; walfix scan says what it is",
                        count(left, "damage is", "damages are")
                    ),
                )?;
            }
            match done.backup {
                Some(backup) => page.indented(
                    2,
                    &format!(
                        "The old bytes ({}) are in {}; to put them back: walfix{GLUE}undo{GLUE}{}",
                        size(plan.backup_bytes()),
                        path(&backup.display().to_string(), 90),
                        path(&backup.display().to_string(), 90),
                    ),
                ),
                None => {
                    page.indented(2, &format!("{} were replaced and not kept.", number(plan.backup_bytes())))
                }
            }
        }
    }
}
