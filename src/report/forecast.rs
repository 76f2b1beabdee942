//! What Prometheus would do, in sentences for somebody who does not know the format.

use std::io;

use super::page::{GLUE, Page, clean, count, number, path, size, times};
use super::words;
use crate::forecast::report::{Forecast, Outcome, Place, Samples, Start, Truncate};
use crate::scan::report::{Finding, Reason, Report};
use crate::verdict;

/// Files that are named one by one.
const NAMED: usize = 4;

/// What Prometheus says of a finding, if it is the first that it meets. It names another place, as a rule.
pub(super) fn said_of<'a>(forecast: &'a Forecast, finding: &Finding) -> Option<&'a str> {
    // Of a WAL alone the paths of the findings are relative to it.
    let is_it = |place: &Place| {
        Some(place.offset) == finding.offset
            && (place.path == finding.path || place.path.strip_prefix("wal/") == Some(&finding.path))
    };
    let mut starts = forecast.starts.iter().filter(|start| start.error_place.as_ref().is_some_and(is_it));
    starts.find_map(|start| start.error.as_deref())
}

/// Where the sentences about a start begin, and their later lines.
const BODY: usize = 4;
const LATER: usize = 6;

/// Writes what each start would do, and what becomes of the next checkpoint.
pub(super) fn write(page: &mut Page<'_>, forecast: &Forecast, report: &Report) -> io::Result<()> {
    page.line("")?;
    let Some(without) =
        forecast.without_snapshots.as_deref().filter(|without| without.starts != forecast.starts)
    else {
        return write_one(page, forecast, report, "");
    };
    write_one(page, forecast, report, ", with chunk snapshots on")?;
    write_one(page, without, report, ", with chunk snapshots off")
}

/// Blocks that are shown one by one.
const BLOCKS_SHOWN: usize = 10;

/// What becomes of blocks that are not intact.
pub(super) fn blocks(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let affected = || report.blocks.iter().filter(|block| !block.consequences.is_empty());
    for block in affected().take(BLOCKS_SHOWN) {
        let consequences: Vec<&str> =
            block.consequences.iter().map(|consequence| words::consequence(*consequence)).collect();
        let lead = format!("  block {}: ", block.ulid);
        page.paragraph(&lead, &lead, 4, &consequences.join("; "))?;
    }
    match affected().count().saturating_sub(BLOCKS_SHOWN) {
        0 => Ok(()),
        more => page.line(&format!(
            "  ... and {}; --format json has all",
            count(more as u64, "more block", "more blocks")
        )),
    }
}

fn write_one(page: &mut Page<'_>, forecast: &Forecast, report: &Report, with: &str) -> io::Result<()> {
    let who = if forecast.agent { "Prometheus (agent)" } else { "Prometheus" };
    let prevented = verdict::prevents_a_start(report);
    if let Some(finding) = prevented {
        let words = format!("{who} {} does not start here: {}", forecast.version, clean(&finding.message()));
        page.indented(2, &words)?;
    }
    if let [start] = &*forecast.starts
        && start.outcome == Outcome::Starts
        && start.error.is_none()
        && start.deletes.is_empty()
        && start.unknown_refs.samples == 0
        && start.wrong_labels.samples == 0
        && forecast.next_checkpoint_error.is_none()
        && forecast.next_compaction_error.is_none()
        && forecast.no_room.is_none()
        && forecast.refuses_until.is_none()
    {
        if prevented.is_some() {
            return Ok(());
        }
        let skips = report.reasons.contains(&Reason::SkipsBlock);
        let but = if skips { ", but for a block" } else { "" };
        // Blocks are read of a data directory.
        let of = if report.blocks.is_empty() { " of its logs" } else { "" };
        let words =
            format!("{who} {} starts normally{with} and loads all readable data{of}{but}", forecast.version);
        return page.indented(2, &words);
    }
    match prevented {
        Some(_) => page.line("  If that is repaired and it starts:")?,
        None => page.line(&format!("  If {who} {} starts here{with}:", forecast.version))?,
    }
    let body = " ".repeat(BODY);
    let mut at = 0;
    for alike in forecast.starts.chunk_by(|one, next| one == next) {
        let [start, ..] = alike else { continue };
        let lead = format!("{body}{} ", which(at, at + alike.len(), forecast));
        let before = at.checked_sub(1).and_then(|before| forecast.starts.get(before));
        at += alike.len();
        page.paragraph(&lead, &lead, LATER, &deed(start, before))?;
        if let Some(said) = said(start) {
            page.indented(LATER + 2, &clean(said))?;
        }
        if let Some(lost) = lost(start, before) {
            page.indented(LATER, &lost)?;
        }
        let unknown = start.unknown_refs;
        if unknown.samples > 0 && before.is_none_or(|before| before.unknown_refs != unknown) {
            page.indented(
                LATER,
                &format!("{}, are dropped: nothing says what their labels are", amount(unknown)),
            )?;
        }
        let hidden = start.hidden_by_snapshot;
        if hidden.samples > 0 && before.is_none_or(|before| before.hidden_by_snapshot != hidden) {
            let words = format!(
                "{} of them, are in the WAL before the end of the chunk snapshot, which it loads instead",
                amount(hidden)
            );
            page.indented(LATER, &words)?;
        }
        let wrong = start.wrong_labels;
        if wrong.samples > 0 && before.is_none_or(|before| before.wrong_labels != wrong) {
            page.indented(LATER, &format!("{}, are served under labels that are not theirs", amount(wrong)))?;
        }
        if before.is_none_or(|before| before.deletions_lost != start.deletions_lost)
            && let Some(words) = words::deletions(start.deletions_lost)
        {
            page.indented(LATER, words)?;
        }
    }
    if forecast.poisoned {
        let ever = "every such start deletes what was written to the WAL since the previous one";
        page.indented(LATER, ever)?;
    }
    if let Some(error) = &forecast.next_checkpoint_error {
        let place = forecast.next_checkpoint_place.as_ref();
        let met = place.is_some() && forecast.starts.iter().any(|start| start.error_place.as_ref() == place);
        let on = if met { " on the same damage" } else { "" };
        let end = if met { "" } else { ":" };
        let words = format!(
            "the next checkpoint fails{on}, and every one after it; the WAL grows until the disk is full{end}"
        );
        page.paragraph(&body, &body, LATER, &words)?;
        if !met {
            page.indented(LATER + 2, &clean(error))?;
        }
        if let Some(place) = place.filter(|_| !met) {
            let place = format!("{} at{GLUE}{}", path(&place.path, 60), number(place.offset));
            page.indented(LATER, &format!("the damage itself is in {place}"))?;
        }
    }
    if let Some(start) = forecast.starts.last().filter(|start| start.passed_over.samples > 0) {
        let words = format!(
            "the next checkpoint drops for good what this version cannot read: {}; start a newer version, or keep a copy",
            amount(start.passed_over)
        );
        page.paragraph(&body, &body, LATER, &words)?;
    }
    if let Some(room) = &forecast.no_room {
        let segment = path(&room.path, 60);
        let words = format!(
            "but {} are free, and the repair of {segment} writes up to {}: that start fails (\"no space left on device\") and \
             leaves the original in {segment}.repair; the next one takes for the segment what was written, deletes the original or \
             never reads it, and loses what had no room; free some space before the first start",
            size(room.free),
            size(room.needed)
        );
        page.paragraph(&body, &body, LATER, &words)?;
    }
    if let Some(error) = &forecast.next_compaction_error {
        page.paragraph(
            &body,
            &body,
            LATER,
            "the next compaction fails, and every one after it; no block is made any more:",
        )?;
        page.indented(LATER + 2, &clean(error))?;
    }
    if let Some(until) = forecast.refuses_until {
        let words = match times(Some(until), Some(until)) {
            Some(until) => {
                format!("samples are from the future: every scrape is refused as out of bounds until {until}")
            }
            None => "samples are from the future: every scrape is refused as out of bounds".to_owned(),
        };
        page.paragraph(&body, &body, LATER, &words)?;
    }
    if forecast.starts.iter().any(|start| start.gone.samples > 0) {
        page.paragraph(
            &body,
            &body,
            LATER,
            "do not start Prometheus until this is repaired, or copied elsewhere",
        )?;
    }
    Ok(())
}

/// `1st start:`, `2nd and 3rd start:`, `from the 4th start on:`.
fn which(first: usize, end: usize, forecast: &Forecast) -> String {
    match (first, end - first, end == forecast.starts.len()) {
        (0, _, true) => "every start:".into(),
        (_, _, true) => format!("from the {} start on:", ordinal(first + 1)),
        (_, 1, false) => format!("{} start:", ordinal(first + 1)),
        (_, 2, false) => format!("{} and {} start:", ordinal(first + 1), ordinal(end)),
        (_, _, false) => format!("{} to {} start:", ordinal(first + 1), ordinal(end)),
    }
}

fn ordinal(number: usize) -> String {
    let ending = match number {
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// What it does.
fn deed(start: &Start, before: Option<&Start>) -> String {
    let mut deeds = Vec::new();
    if !start.truncates.is_empty() {
        let cuts: Vec<String> = start.truncates.iter().map(cut).collect();
        deeds.push(format!("cuts {}", listed(&cuts)));
    }
    if !start.deletes.is_empty() {
        let paths: Vec<String> = start.deletes.iter().map(|file| path(file, 60)).collect();
        deeds.push(format!("deletes {}", listed(&paths)));
    }
    let then = match start.outcome {
        Outcome::Starts | Outcome::Loses => "runs",
        Outcome::Refuses => "exits",
        Outcome::Hangs => "hangs, and never becomes ready",
        Outcome::Crashes => "crashes",
    };
    let mut deed = joined(&deeds);
    deed = if deed.is_empty() { then.to_owned() } else { format!("{deed}, then {then}") };
    match (start.outcome, before) {
        (Outcome::Starts, _) if start.unknown_refs.samples == 0 => {
            deed.push_str(" and loads all readable data");
        }
        (Outcome::Starts, _) => deed.push_str(" and loads everything whose labels are known"),
        (Outcome::Loses, None) if start.error.is_none() && deeds.is_empty() => {
            deed.push_str(", and says nothing of what it does not have");
        }
        (Outcome::Loses, Some(_)) if start.error.is_none() && deeds.is_empty() => {
            deed.push_str(", without what is lost");
        }
        _ => {}
    }
    match (said(start), start.fatal.is_some()) {
        (None, _) => deed,
        (Some(_), true) => format!("{deed}:"),
        (Some(_), false) => format!("{deed}; it logs:"),
    }
}

fn cut(truncate: &Truncate) -> String {
    format!("{} at{GLUE}{}", path(&truncate.path, 60), number(truncate.offset))
}

/// `a, b and c`; of many the first and the last, and how many there are.
fn listed(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > NAMED => {
            format!("{first} to {last} ({})", count(names.len() as u64, "file", "files"))
        }
        names => joined(names),
    }
}

fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Its own error: the one with which it gives up, or the first. One that is about a finding is shown there.
fn said(start: &Start) -> Option<&str> {
    start.fatal.as_deref().or(start.error.as_deref().filter(|_| start.error_place.is_none()))
}

/// What that costs, where it is not what it was after the start before.
fn lost(start: &Start, before: Option<&Start>) -> Option<String> {
    let serves = |start: &Start| matches!(start.outcome, Outcome::Starts | Outcome::Loses);
    let (missing, gone) = (start.not_replayed, start.gone);
    let more_is_gone = gone.samples > 0 && before.is_none_or(|before| before.gone != gone);
    if !serves(start) {
        return more_is_gone.then(|| format!("{}, are gone for good", amount(gone)));
    }
    let unchanged = before.is_some_and(|before| {
        before.gone == gone && (missing == gone || serves(before) && before.not_replayed == missing)
    });
    match (missing.samples, gone.samples) {
        _ if unchanged => None,
        (0, 0) => None,
        (0, _) => Some(format!("{}, are in its memory only", amount(gone))),
        (_, 0) => Some(format!("{}, are not loaded; they are still on disk", amount(missing))),
        (missing, on_disk) if missing == on_disk => Some(format!("{}, are gone for good", amount(gone))),
        _ if more_is_gone => Some(format!(
            "{}, are not loaded; {} of them are gone for good",
            amount(missing),
            number(gone.samples)
        )),
        _ => Some(format!("{}, are not loaded", amount(missing))),
    }
}

/// `88 000 samples of 212 series, 2026-11-21 19:29:47 to 19:30:31`.
fn amount(samples: Samples) -> String {
    let mut text = format!(
        "{} of{GLUE}{}",
        count(samples.samples, "sample", "samples"),
        count(samples.series, "series", "series")
    );
    if let Some(times) = times(samples.min_time, samples.max_time) {
        text = format!("{text}, {times}{GLUE}UTC");
    }
    text
}

/// What Prometheus's next starts cost, in one sentence.
pub(super) fn cost(forecast: &Forecast) -> String {
    let Some(last) = forecast.starts.last() else { return "nothing is known".into() };
    let (missing, gone) = (last.not_replayed, last.gone);
    let mut cost = match (missing.samples, gone.samples) {
        (0, 0) => "nothing that can be read".to_owned(),
        (_, 0) => format!("{}, are not loaded", amount(missing)),
        _ => format!("{}, are gone for good", amount(gone)),
    };
    match last.outcome {
        Outcome::Starts | Outcome::Loses => {}
        Outcome::Refuses | Outcome::Crashes => cost = format!("it does not start; {cost}"),
        Outcome::Hangs => cost = format!("it never becomes ready; {cost}"),
    }
    if forecast.poisoned {
        cost.push_str("; and again what was written since, at each start");
    }
    if forecast.next_checkpoint_error.is_some() {
        cost.push_str("; and its next checkpoint fails, so the WAL grows until the disk is full");
    }
    cost
}
