//! `docs/forecast.md`: what each version of Prometheus did with each damage, in as few lines as can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::truth::{Start, Truth};

/// Starts that the table tells of.
const STARTS: usize = 3;

/// What was done, and how the tables are read.
fn head(lines: &[Line<'_>], starts: usize) -> String {
    let (cases, forecasts) = (thousands(lines.len() as u64), thousands((lines.len() * starts) as u64));
    format!(
        "\
# What Prometheus does with damage, and the forecast

The method: an intact data directory is damaged in one place, and a Prometheus is started on it {starts} times in a row, with nothing
written in between. Before each of these starts walfix forecasts that start and those that follow.
{cases} damaged directories, {forecasts} forecasts; with the real servers 2.42.0, 2.53.3 and 3.5.3, and with the packages of
3.16.0, opened as the server opens them.

Each forecast is compared with what happens:

- whether the server is up, exits, hangs or crashes, and with what error, word for word;
- which files it deletes, and which segments it truncates, and where;
- how many samples of how many series, and of which times, no query returns, and which of them are on no disk any more;
- whether the next checkpoint fails, and with what error.

There are no differences. Of an error of a decompressor only its presence is compared: its words change with its releases.

Damaged blocks are not here, because a server does not look at them when it replays its logs. Damaged head chunks are in
`tests/forecast/served.rs`.

The test that compares also writes this page. Its tables are those of the servers, not of walfix:

    WALFIX_MATRIX=long WALFIX_WRITE_TABLE=docs/forecast.md cargo test --release --test forecast starts::

## How to read it

Each line is a directory, damaged at that place, and its first three starts. All damages with the same result share one line.
They are described [at the end](#the-damages). *By* says which versions do so. A version that no line of a place names was
not tried there.

| | |
|---|---|
| starts | up, and every sample that could be had is served |
| loses 5 220 | up, and so many samples are not served, though they are in whole records, or in head chunks, of series whose records are whole |
| exits | gives up; nothing is served |
| hangs | an agent that waits for itself and never is ready |
| 5 220 gone | so many of them are on no disk any more; not written where all that is lost is gone |
| cuts 1 | rewrites a segment, and leaves out records that it could have read |
| deletes 2 | deletes files |
| checkpoint: fails | a checkpoint that takes in all segments there are then fails, and with it every later one: the WAL grows |

\"First\", \"middle\" and \"last\" are segments of the log that is named; \"directory\" is the whole directory.
"
    )
}

/// What was measured of a case.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// The sort of directory, the damage and its place.
    pub base: &'a str,
    pub row: &'a str,
    pub place: &'a str,
    pub truth: &'a Truth,
    /// Whether the checkpoint of all segments fails in the end.
    pub checkpoint_fails: bool,
}

/// One start in words.
fn cell(truth: &Truth, start: usize) -> String {
    let Start { outcome, deletes, truncates, .. } = &truth.starts[start];
    let (lost, gone) = (truth.not_replayed[0][start].samples, truth.gone[0][start].samples);
    let mut text = match (outcome.as_str(), lost) {
        ("up", _) if truth.agent => "starts".to_owned(),
        ("up", 0) => "starts".to_owned(),
        ("up", lost) => format!("loses {}", thousands(lost)),
        (other, _) => other.to_owned(),
    };
    if gone > 0 && (gone != lost || outcome != "up" || truth.agent) {
        let _ = write!(text, ", {} gone", thousands(gone));
    }
    let cuts = truncates.iter().filter(|cut| cut.next.is_some()).count();
    if cuts > 0 {
        let _ = write!(text, ", cuts {cuts}");
    }
    if !deletes.is_empty() {
        let _ = write!(text, ", deletes {}", deletes.len());
    }
    text
}

/// A number with its thousands apart.
pub fn thousands(n: u64) -> String {
    if n < 1000 { n.to_string() } else { format!("{} {:03}", n / 1000, n % 1000) }
}

/// The cells of a case: of its starts, and of the next checkpoint.
fn cells(line: &Line<'_>) -> Vec<String> {
    let mut cells: Vec<_> = (0..STARTS).map(|start| cell(line.truth, start)).collect();
    cells.push(if line.checkpoint_fails { "fails" } else { "" }.to_owned());
    cells
}

/// The version without its last number, as releases are spoken of.
fn short(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(short, _)| short)
}

/// Place, versions and cells.
type Behaviour = (String, String, Vec<String>);

/// The document. `damages` are the names of the rows and what they are, `bases` the sorts of directories and what they
/// are, in their order.
pub fn document(lines: &[Line<'_>], damages: &[(&str, &str)], bases: &[(&str, String)]) -> String {
    let mut out = head(lines, lines.iter().map(|line| line.truth.starts.len()).max().unwrap_or_default());
    let all: BTreeSet<_> = lines.iter().map(|line| short(&line.truth.version)).collect();
    for (base, what) in bases {
        // Place, versions and cells, in the order of their first row; and the rows that behave so.
        let mut groups: Vec<(Behaviour, Vec<&str>)> = Vec::new();
        for (row, _) in damages {
            let mut places: Vec<&str> = Vec::new();
            for line in lines.iter().filter(|line| line.base == *base && line.row == *row) {
                if !places.contains(&line.place) {
                    places.push(line.place);
                }
            }
            for place in places {
                let mut versions: BTreeMap<Vec<String>, BTreeSet<&str>> = BTreeMap::new();
                for line in
                    lines.iter().filter(|line| line.base == *base && line.row == *row && line.place == place)
                {
                    versions.entry(cells(line)).or_default().insert(short(&line.truth.version));
                }
                for (cells, versions) in versions {
                    let mut by: Vec<_> = versions.iter().copied().collect();
                    by.sort_by_key(|version| {
                        version.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>()
                    });
                    let by = if versions == all { "all".to_owned() } else { by.join(", ") };
                    let key = (place.to_owned(), by, cells);
                    match groups.iter_mut().find(|(other, _)| *other == key) {
                        Some((_, rows)) => rows.push(row),
                        None => groups.push((key, vec![row])),
                    }
                }
            }
        }
        if groups.is_empty() {
            continue;
        }
        groups.sort_by_key(|((place, ..), _)| place_order(place));
        let _ = write!(out, "\n## {base}\n\n{what}\n\n");
        out.push_str("| where | damage | by | start 1 | start 2 | start 3 | checkpoint |\n|---|---|---|---|---|---|---|\n");
        for ((place, by, cells), rows) in groups {
            let _ = writeln!(out, "| {place} | {} | {by} | {} |", rows.join("; "), cells.join(" | "));
        }
    }
    out.push_str("\n## The damages\n\n");
    for (name, what) in damages {
        let _ = writeln!(out, "- **{name}**: {what}.");
    }
    out
}

fn place_order(place: &str) -> usize {
    let logs = ["wal", "checkpoint", "wbl", "directory"];
    let log = logs.iter().position(|log| place.starts_with(log)).unwrap_or(logs.len());
    let at = ["first", "middle", "last"].iter().position(|at| place.ends_with(at)).unwrap_or(0);
    log * 3 + at
}

/// What a document says of a case, and what was measured, if these differ. The document may not have it.
pub fn contradiction(document: &str, line: &Line<'_>) -> Option<String> {
    let section = document.split("\n## ").find(|section| section.lines().next() == Some(line.base))?;
    let measured: Vec<_> =
        (0..STARTS.min(line.truth.starts.len())).map(|start| cell(line.truth, start)).collect();
    let rows = section.lines().filter(|text| text.starts_with("| ")).find_map(|text| {
        let told: Vec<_> = text.trim_matches('|').split('|').map(str::trim).collect();
        let [place, rows, by, starts @ .., _] = &told[..] else { return None };
        let here = *place == line.place
            && rows.split("; ").any(|row| row == line.row)
            && (*by == "all" || by.split(", ").any(|version| version == short(&line.truth.version)));
        here.then(|| starts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>())
    })?;
    let differs = measured.iter().zip(&rows).any(|(measured, told)| measured != told);
    differs.then(|| format!("told: {rows:?}, measured: {measured:?}"))
}
