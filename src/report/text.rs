//! The report for an operator: the verdict, then what Prometheus would do, then what was found, then
//! what was read.
//!
//! No line is wider than [`WIDTH`] columns: terminals in a container and quoted replies in a ticket are no wider.

use std::collections::HashMap;
use std::io::{self, Write};

use anstyle::AnsiColor;

use super::forecast as forecast_text;
use super::{plan, words};
use crate::forecast::report::Forecast;
use crate::repair::Plans;
use crate::scan::blocks::{BlockReport, BlockState, Depth};
use crate::scan::code::Code;
use crate::scan::report::{
    Cause, Correction, Dialect, Finding, Log, LogKind, Lost, Report, Severity, Verdict,
};

use super::page::{GLUE, Page, clean, columns, count, number, path, range, size, times};
pub use super::page::{Style, WIDTH};

/// Findings of one code and one log that are shown one by one.
const SHOWN: usize = 10;

/// Fragments of a lost record that are shown one by one.
const ORPHANS_SHOWN: usize = 3;

/// Where the lines of a finding begin, after the column of severities.
const BODY: usize = 11;

/// Writes the report as text.
///
/// # Errors
/// Those of `out`.
pub fn write(
    report: &Report,
    forecast: Option<&Forecast>,
    plans: Option<&Plans>,
    out: &mut dyn Write,
    style: Style,
) -> io::Result<()> {
    let mut page = Page { out, colour: style.colour };
    if style.quiet {
        return match report.verdict {
            Verdict::Clean => Ok(()),
            Verdict::Damaged => verdict(&mut page, report, None),
        };
    }
    verdict(&mut page, report, totals(report))?;
    if let Some(forecast) = forecast {
        forecast_text::write(&mut page, forecast, report)?;
        forecast_text::blocks(&mut page, report)?;
    }
    if let Some(plans) = plans {
        plan::outlook(&mut page, &plans.salvage)?;
    }
    findings(&mut page, report, forecast)?;
    hint(&mut page, report)?;
    logs(&mut page, report)?;
    blocks(&mut page, report)
}

/// `/prometheus  DAMAGED  1 place in 4 segments (5.2 MB, ...)`; what is in the brackets is on a line of its own if
/// the first is too short for it.
fn verdict(page: &mut Page<'_>, report: &Report, totals: Option<String>) -> io::Result<()> {
    let (word, style) = match report.verdict {
        Verdict::Clean => ("clean", AnsiColor::Green.on_default()),
        Verdict::Damaged => (words::state(report.state), AnsiColor::Red.on_default().bold()),
    };
    let segments = report.logs.iter().map(|log| log.segments.len() as u64).sum();
    let places = |severity| {
        report.of_severity(severity).fold(0, |sum: u64, finding| sum.saturating_add(finding.places))
    };
    let mut tally = count(segments, "segment", "segments");
    if segments == 0 && report.blocks.is_empty() && report.verdict == Verdict::Clean {
        "nothing here yet: Prometheus will create it".clone_into(&mut tally);
    }
    if places(Severity::Damage) > 0 {
        tally = format!("{} in {tally}", count(places(Severity::Damage), "place", "places"));
    }
    for (severity, one, more) in
        [(Severity::Warning, "warning", "warnings"), (Severity::Note, "note", "notes")]
    {
        let places = places(severity);
        if places > 0 {
            tally = format!("{tally}, {}", count(places, one, more));
        }
    }

    let path = path(&report.path, WIDTH);
    let mut lead = format!("{path}  {word}  ");
    let mut painted = format!("{path}  {}  ", page.paint(style, word));
    if columns(&lead) + columns("1 000 places") > WIDTH {
        page.line(&path)?;
        lead = format!("  {word}  ");
        painted = format!("  {}  ", page.paint(style, word));
    }
    match totals {
        Some(totals) if columns(&lead) + columns(&tally) + columns(&totals) + 3 <= WIDTH => {
            page.paragraph(&lead, &painted, 2, &format!("{tally} ({totals})"))
        }
        Some(totals) => {
            page.paragraph(&lead, &painted, 2, &tally)?;
            page.paragraph("  ", "  ", 2, &totals)
        }
        None => page.paragraph(&lead, &painted, 2, &tally),
    }
}

/// Size, records, samples and times of all logs; nothing if there is nothing.
fn totals(report: &Report) -> Option<String> {
    if report.logs.iter().all(|log| log.segments.is_empty()) {
        return None;
    }
    let sum = |of: fn(&Log) -> u64| report.logs.iter().map(of).fold(0, u64::saturating_add);
    let mut totals = format!(
        "{}, {}, {}",
        size(sum(|log| log.bytes)),
        count(sum(records), "record", "records"),
        count(sum(samples), "sample", "samples"),
    );
    let from = report.logs.iter().filter_map(|log| log.min_time).min();
    let to = report.logs.iter().filter_map(|log| log.max_time).max();
    if let Some(times) = times(from, to) {
        totals = format!("{totals}, {times}");
        if totals.ends_with(|last: char| last.is_ascii_digit()) {
            totals.push(GLUE);
            totals.push_str("UTC");
        }
    }
    Some(totals)
}

fn findings(page: &mut Page<'_>, report: &Report, forecast: Option<&Forecast>) -> io::Result<()> {
    let mut sorted: Vec<&Finding> = report.findings.iter().collect();
    // Stable: within a severity the order stays that of the bytes.
    sorted.sort_by_key(|finding| finding.severity);

    let mut groups: HashMap<_, Group> = HashMap::new();
    for finding in &sorted {
        groups.entry(alike(finding)).or_default().add(finding);
    }
    let mut shown: HashMap<_, usize> = HashMap::new();
    for finding in sorted {
        let key = alike(finding);
        let shown = shown.entry(key).or_default();
        *shown += 1;
        if *shown > SHOWN {
            continue;
        }
        page.line("")?;
        self::finding(page, finding)?;
        if let Some(error) = forecast.and_then(|forecast| forecast_text::said_of(forecast, finding)) {
            page.indented(BODY, &format!("Prometheus says: {}", clean(error)))?;
        }
        if *shown == SHOWN
            && let Some(group) = groups.get(&key)
            && group.hidden > 0
        {
            page.line("")?;
            page.indented(BODY, &group.more(finding))?;
        }
    }
    Ok(())
}

/// Where to read on, if there is damage.
fn hint(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let mut codes = report.of_severity(Severity::Damage).map(|finding| finding.code);
    let Some(first) = codes.next() else { return Ok(()) };
    page.line("")?;
    if codes.all(|code| code == first) {
        page.line(&format!("  walfix explain {first} says what this means, and what to do"))
    } else {
        page.line("  walfix explain CODE says what each of these means, and what to do")
    }
}

/// What findings have in common that are more of the same.
fn alike(finding: &Finding) -> (Severity, Code, Option<&str>) {
    (finding.severity, finding.code, finding.log.as_deref())
}

/// Findings of one severity, code and log.
#[derive(Default)]
struct Group {
    all: usize,
    /// How many are not shown one by one.
    hidden: u64,
    /// The lowest and highest segment of these.
    segments: Option<(i64, i64)>,
}

impl Group {
    fn add(&mut self, finding: &Finding) {
        self.all += 1;
        if self.all <= SHOWN {
            return;
        }
        self.hidden += 1;
        if let Some(segment) = finding.segment {
            let (low, high) = self.segments.unwrap_or((segment, segment));
            self.segments = Some((low.min(segment), high.max(segment)));
        }
    }

    fn more(&self, like: &Finding) -> String {
        let place = match (self.segments, like.log.as_deref()) {
            (None, None | Some("")) => String::new(),
            (None, Some(log)) => format!(" in {}", path(log, WIDTH - BODY)),
            (Some((low, high)), log) => {
                let segments = if low == high {
                    format!(" in segment{GLUE}{low}")
                } else {
                    format!(" in segments{GLUE}{low}{GLUE}to{GLUE}{high}")
                };
                match log {
                    None | Some("") => segments,
                    Some(log) => format!("{segments} of {}", path(log, WIDTH - BODY)),
                }
            }
        };
        format!("... and {} more {}{place}; --format json has all", number(self.hidden), like.code)
    }
}

fn finding(page: &mut Page<'_>, finding: &Finding) -> io::Result<()> {
    let word = severity_in_words(finding.severity);
    let style = match finding.severity {
        Severity::Damage => AnsiColor::Red.on_default().bold(),
        Severity::Warning => AnsiColor::Yellow.on_default(),
        Severity::Note => anstyle::Style::new(),
    };
    let lead = format!("  {word:<7}  ");
    let painted = format!("  {}{:2$}", page.paint(style, word), "", BODY - 2 - word.len());

    let at = if finding.path.is_empty() { "." } else { &finding.path };
    let mut head = path(at, WIDTH - BODY);
    let range = match (finding.offset, finding.end) {
        (Some(offset), Some(end)) if offset == end => Some(format!("at{GLUE}{}", number(offset))),
        (Some(offset), Some(end)) => Some(range(offset, end)),
        (Some(offset), None) => Some(format!("from{GLUE}{}{GLUE}on", number(offset))),
        (None, Some(end)) => Some(format!("up{GLUE}to{GLUE}{}", number(end))),
        (None, None) => None,
    };
    let places = (finding.places > 1).then(|| count(finding.places, "place", "places in a row"));
    for part in [range, Some(finding.code.to_string()), places].into_iter().flatten() {
        // Two spaces between the parts.
        head = format!("{head} {GLUE}{part}");
    }
    page.paragraph(&lead, &painted, BODY, &head)?;

    page.indented(BODY, &clean(&finding.message()))?;
    if let Some(cause) = finding.cause {
        page.indented(BODY, &format!("likely cause: {}", in_words(cause)))?;
    }
    if let Some(lost) = loss_of_chunk(finding).or_else(|| loss(finding.lost, finding.severity)) {
        page.indented(BODY, &format!("lost: {lost}"))?;
    }
    if !finding.orphans.is_empty() {
        page.indented(BODY, &orphans(&finding.orphans))?;
    }
    if let Some(correction) = &finding.correction {
        page.indented(BODY, &correction_in_words(correction))?;
    }
    Ok(())
}

pub(super) const fn severity_in_words(severity: Severity) -> &'static str {
    match severity {
        Severity::Damage => "damage",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn in_words(cause: Cause) -> &'static str {
    match cause {
        Cause::TornByCrash => "the server died, or was stopped, while it wrote this",
        Cause::NeverWritten => "never reached the disk: a power cut, or a full disk",
        Cause::HalfWritten => "a write of which only the first sectors reached the disk",
        Cause::OneFlippedBit => "one flipped bit, by memory, disk or transfer",
        Cause::Overwritten => "bytes overwritten",
        Cause::DuplicatedPage => "a page that was written a second time",
        Cause::Unreadable => "the disk cannot read these bytes",
        Cause::CutWhileRead => "the file became shorter while it was read; is Prometheus running?",
        Cause::AbandonedWrite => "Prometheus gave this record up half-way, as it does on a full disk",
        Cause::WrittenWrong => {
            "wrong before it was written, or pieces that do not belong together; the checksums are right"
        }
        Cause::Files => "files were removed, renamed or added",
    }
}

/// The samples of a chunk of a block, whose times the index has.
fn loss_of_chunk(finding: &Finding) -> Option<String> {
    let times = finding.times.filter(|_| finding.code == Code::DamagedBlockChunk)?;
    Some(format!("samples of 1 series, {}", times_in_words(times.from?, times.to?)))
}

fn times_in_words(from: i64, to: i64) -> String {
    words::amounts::span(from, to)
}

fn loss(lost: Lost, severity: Severity) -> Option<String> {
    let entries = |entries| count(entries, "entry", "entries");
    let records = |records| count(records, "record", "records");
    Some(match (lost.records, lost.entries) {
        (None, None) if severity == Severity::Damage => "not known".into(),
        (None, None) => return None,
        (Some(0), None | Some(0)) => "nothing".into(),
        (Some(0), Some(n)) => entries(n),
        (Some(1), None) => format!("{}; how many entries it had is not known", records(1)),
        (Some(n), None) => format!("{}; how many entries they had is not known", records(n)),
        (Some(n), Some(m)) => format!("{} with {}", records(n), entries(m)),
        (None, Some(m)) => format!("{}; in how many records is not known", entries(m)),
    })
}

/// What is whole and yet lost.
fn orphans(orphans: &[(u64, u64)]) -> String {
    let shown: Vec<String> =
        orphans.iter().take(ORPHANS_SHOWN).map(|&(offset, end)| range(offset, end)).collect();
    let more = (orphans.len() - shown.len()) as u64;
    let more = if more > 0 { format!(" and {} more", number(more)) } else { String::new() };
    let fragments = if orphans.len() == 1 { "an intact fragment" } else { "intact fragments" };
    format!("also lost: {fragments} of the same record at {}{more}", shown.join(", "))
}

fn correction_in_words(correction: &Correction) -> String {
    format!(
        "correction: bit{GLUE}{} of byte{GLUE}{}, flipped back, gives a record of type {} with {}; \
         1{GLUE}in{GLUE}{} other corruptions would look identical",
        correction.bit,
        number(correction.offset),
        correction.record,
        count(correction.entries, "entry", "entries"),
        number(correction.odds),
    )
}

/// What there is in blocks, and how much of it was verified.
fn blocks(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    if report.blocks.is_empty() {
        return Ok(());
    }
    let sum = |of: fn(&BlockReport) -> Option<u64>| {
        report.blocks.iter().filter_map(of).fold(0, u64::saturating_add)
    };
    let mut text = format!(
        "{} ({}, {} series, {}, {})",
        count(report.blocks.len() as u64, "block", "blocks"),
        size(sum(|block| Some(block.bytes))),
        number(sum(|block| block.series)),
        count(sum(|block| block.chunks), "chunk", "chunks"),
        count(sum(|block| block.samples), "sample", "samples"),
    );
    if report.depth == Depth::Structure {
        // Chunks were not read, and so their samples not counted.
        text = text.replace(", 0 samples)", ")");
    }
    let of_state = |state| report.blocks.iter().filter(|block| block.state == state).count() as u64;
    let states = [
        (BlockState::Intact, "intact"),
        (BlockState::Damaged, "damaged"),
        (BlockState::NotOpened, "that Prometheus does not open"),
        (BlockState::Skipped, "that Prometheus skips"),
        (BlockState::Replaced, "that Prometheus deletes, since a later block replaces them"),
    ];
    let states: Vec<String> = states
        .into_iter()
        .map(|(state, words)| (of_state(state), words))
        .filter(|(blocks, _)| *blocks > 0)
        .map(|(blocks, words)| format!("{} {words}", number(blocks)))
        .collect();
    let verified = match report.depth {
        Depth::Structure => "indexes were verified, chunks were not read (--depth structure)",
        Depth::Checksums => "indexes and the checksum of each chunk were verified (--depth checksums)",
        Depth::Samples => "indexes and each sample were verified (--depth samples)",
    };
    page.line("")?;
    page.paragraph("  ", "  ", 2, &format!("{text}: {}; {verified}", states.join(", ")))
}

/// What a row of the table says of a log.
struct Row {
    path: String,
    kind: &'static str,
    segments: String,
    size: String,
    records: String,
    series: String,
    samples: String,
    other: String,
    times: String,
}

impl Row {
    fn of(log: &Log) -> Self {
        let other = log.entries.exemplars;
        let other = other.saturating_add(log.entries.tombstones);
        let other = other.saturating_add(log.entries.metadata);
        let other = other.saturating_add(log.entries.mmap_markers);
        Self {
            path: path(&log.path, WIDTH - 2),
            kind: match (log.kind, log.dialect) {
                (LogKind::Wal, Dialect::Prometheus) => "wal",
                (LogKind::Wal, Dialect::Loki) => "wal of Loki",
                (LogKind::Checkpoint, Dialect::Prometheus) => "checkpoint",
                (LogKind::Checkpoint, Dialect::Loki) => "checkpoint of Loki",
                (LogKind::Wbl, _) => "wbl",
                (LogKind::ChunkSnapshot, _) => "chunk snapshot",
            },
            segments: number(log.segments.len() as u64),
            size: size(log.bytes),
            records: number(records(log)),
            series: number(log.entries.series),
            samples: number(samples(log)),
            other: number(other),
            times: times(log.min_time, log.max_time).unwrap_or_default(),
        }
    }

    /// Its cells but for the times.
    fn cells(&self) -> [&str; COLUMNS] {
        [
            &self.path,
            self.kind,
            &self.segments,
            &self.size,
            &self.records,
            &self.series,
            &self.samples,
            &self.other,
        ]
    }
}

const COLUMNS: usize = 8;
const TITLES: [&str; COLUMNS] = ["log", "kind", "segments", "size", "records", "series", "samples", "other"];
const TIMES: &str = "times in UTC";
/// Columns of words; those after them are of numbers.
const WORDS: usize = 2;

fn logs(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    if report.logs.is_empty() {
        return Ok(());
    }
    page.line("")?;
    let rows: Vec<Row> = report.logs.iter().map(Row::of).collect();
    let mut widths = TITLES.map(columns);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row.cells()) {
            *width = (*width).max(columns(cell));
        }
    }
    let table: usize = widths.iter().map(|width| width + 2).sum();
    let times = rows.iter().map(|row| columns(&row.times)).max().unwrap_or(0).max(columns(TIMES));

    if table > WIDTH {
        for row in &rows {
            let [_, kind, segments, size, records, series, samples, other] = row.cells();
            let mut text = format!(
                "{} {GLUE}{kind}: segments{GLUE}{segments}, size{GLUE}{size}, records{GLUE}{records}, \
                 series{GLUE}{series}, samples{GLUE}{samples}, other{GLUE}entries{GLUE}{other}",
                row.path
            );
            if !row.times.is_empty() {
                text = format!("{text}, {TIMES}: {}", row.times);
            }
            page.paragraph("  ", "  ", 4, &text)?;
        }
        return Ok(());
    }
    let line = |cells: [&str; COLUMNS]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let space = " ".repeat(width - columns(cell));
            let (before, behind) = if column < WORDS { ("", &*space) } else { (&*space, "") };
            line.extend(["  ", before, cell, behind]);
        }
        line
    };
    if table + 2 + times <= WIDTH {
        page.line(&format!("{}  {TIMES}", line(TITLES)))?;
        for row in &rows {
            page.line(&format!("{}  {}", line(row.cells()), row.times))?;
        }
    } else {
        page.line(&line(TITLES))?;
        for row in &rows {
            page.line(&line(row.cells()))?;
            if !row.times.is_empty() {
                page.line(&format!("    {TIMES}: {}", row.times))?;
            }
        }
    }
    Ok(())
}

fn records(log: &Log) -> u64 {
    log.records.values().copied().fold(0, u64::saturating_add)
}

/// Floats and histograms: to Prometheus all of them are samples.
fn samples(log: &Log) -> u64 {
    let entries = log.entries;
    entries.samples.saturating_add(entries.histograms).saturating_add(entries.float_histograms)
}

#[cfg(test)]
mod tests;
