//! What each code means: the text of `docs/findings.md` and of `walfix explain`.

mod table;

use std::fmt::Write as _;
use std::io::{self, Write};

use super::page::Page;
use super::text::severity_in_words;
use crate::scan::code::Code;

/// What is said of a code. What is empty is left out.
#[derive(Clone, Copy, Debug)]
struct Explanation {
    group: Group,
    /// What is wrong, in one sentence.
    title: &'static str,
    /// What else there is to say of that.
    means: &'static str,
    /// When a finding is less bad, or worse, than usual.
    severity: &'static str,
    /// What Prometheus does.
    prometheus: &'static str,
    /// What has most likely caused it.
    causes: &'static str,
    /// What cannot be read because of it.
    lost: &'static str,
    /// What `walfix repair` does about it.
    repair: &'static str,
    /// What to do.
    to_do: &'static str,
}

/// What codes are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Records,
    Incomplete,
    Zeros,
    Disk,
    Files,
    HeadChunks,
    Blocks,
    Around,
    References,
    Plans,
}

impl Group {
    const ALL: [Self; 10] = [
        Self::Records,
        Self::Incomplete,
        Self::Zeros,
        Self::Disk,
        Self::Files,
        Self::HeadChunks,
        Self::Blocks,
        Self::Around,
        Self::References,
        Self::Plans,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Records => "Bytes of a record",
            Self::Incomplete => "Incomplete records",
            Self::Zeros => "Zeros, copies and moved pages",
            Self::Disk => "The disk and the file",
            Self::Files => "Files",
            Self::HeadChunks => "Head chunks",
            Self::Blocks => "Blocks",
            Self::Around => "Around the logs",
            Self::References => "References",
            Self::Plans => "In plans only",
        }
    }

    const fn introduction(self) -> &'static str {
        match self {
            Self::Records | Self::Incomplete | Self::Zeros | Self::Disk | Self::Files => "",
            Self::HeadChunks => {
                "`chunks_head/` holds full chunks of series, by ref. walfix looks at it if it is given a data directory. A start \
                 loads these chunks before the WAL, and takes from the WAL no sample that is older than the last chunk of its \
                 series."
            }
            Self::Blocks => {
                "walfix reads all blocks if it is given a data directory. `--depth structure` reads indexes, `meta.json` and \
                 tombstones; `--depth checksums`, the default, also the checksum of each chunk; `--depth samples` decodes each \
                 chunk. Prometheus checks less at a start: what it does not check fails when a query or a compaction meets it."
            }
            Self::Around => "What is beside the logs. `walfix repair` does not change it.",
            Self::References => {
                "Samples name their series by a number, the ref, and a series record says once what a ref means. Prometheus \
                 replays the last checkpoint, the segments of `wal/` after it, then `wbl/`. These findings are about that order; \
                 each covers all cases in one log. walfix does not look for them in logs of Loki, nor in a segment that is given \
                 by its own path."
            }
            Self::Plans => {
                "These are no findings: only the plan of `walfix repair` has them, as reasons for what it does."
            }
        }
    }
}

impl Explanation {
    /// The sentences before the list.
    fn head(&self) -> String {
        format!("{} {}", self.title, self.means).trim_end().to_owned()
    }

    /// What is said of each point, with its name.
    fn points(&self, code: Code) -> impl Iterator<Item = (&'static str, String)> {
        let usual = code.severities().first();
        let severity = usual.map(|usual| format!("{}. {}", severity_in_words(*usual), self.severity));
        let severity = severity.unwrap_or_default().trim_end().to_owned();
        let points = [
            ("Severity", severity),
            ("Prometheus", self.prometheus.to_owned()),
            ("Causes", self.causes.to_owned()),
            ("Lost", self.lost.to_owned()),
            ("Repair", self.repair.to_owned()),
            ("To do", self.to_do.to_owned()),
        ];
        points.into_iter().filter(|(_, text)| !text.is_empty())
    }
}

/// Writes what codes mean.
///
/// # Errors
/// Those of `out`.
pub fn write(codes: &[Code], out: &mut dyn Write, colour: bool) -> io::Result<()> {
    let mut page = Page { out, colour };
    for (at, &code) in codes.iter().enumerate() {
        let explanation = table::entry(code);
        if at > 0 {
            page.line("")?;
        }
        let name = page.paint(anstyle::Style::new().bold(), code.name());
        page.line(&name)?;
        page.indented(2, &plain(&explanation.head()))?;
        for (name, text) in explanation.points(code) {
            page.paragraph("  ", "  ", 4, &format!("{name}: {}", plain(&text)))?;
        }
    }
    Ok(())
}

/// Writes a list of all codes.
///
/// # Errors
/// Those of `out`.
pub fn list(out: &mut dyn Write, colour: bool) -> io::Result<()> {
    let mut page = Page { out, colour };
    for group in Group::ALL {
        if group != Group::ALL[0] {
            page.line("")?;
        }
        let title = page.paint(anstyle::Style::new().bold(), group.title());
        page.line(&title)?;
        for &code in of_group(group) {
            page.paragraph("  ", "  ", 4, &format!("{code}: {}", plain(table::entry(code).title)))?;
        }
    }
    page.line("")?;
    page.line("walfix explain CODE says what it means, and what to do.")
}

/// The codes whose names are most like `name`, none if it is like no other.
#[must_use]
pub fn nearest(name: &str) -> Vec<Code> {
    const MOST: usize = 3;
    let name = name.to_ascii_lowercase().replace('-', "_");
    let distance = |code: &Code| {
        let is_part = name.len() > 3 && (code.name().contains(&name) || name.contains(code.name()));
        if is_part { 0 } else { distance(&name, code.name()) }
    };
    let least = Code::ALL.iter().map(distance).min().filter(|least| *least <= MOST);
    let mut nearest: Vec<Code> =
        Code::ALL.iter().filter(|code| Some(distance(code)) == least).copied().collect();
    nearest.truncate(MOST);
    nearest
}

/// How many characters have to be inserted, removed or replaced to get from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// Text of the document without its emphasis.
fn plain(text: &str) -> String {
    text.replace("**", "").replace(" *next* ", " next ")
}

fn of_group(group: Group) -> impl Iterator<Item = &'static Code> {
    Code::ALL.iter().filter(move |code| table::entry(**code).group == group)
}

/// What is before the codes in the document.
const INTRODUCTION: [&str; 8] = [
    "Every code that `walfix scan` reports. `walfix explain CODE` prints the same text. The codes are stable: scripts may rely on \
     them; new ones may come, none is renamed.",
    "A finding is a place and what is wrong there. `[offset, end)` are the damaged bytes themselves, counted from the beginning \
     of the file. Prometheus reports another number for the same fault: the end of the fragment or record on which its reader \
     gave up.",
    "**Severity** says what follows. *Damage*: bytes that cannot be read, or a state on which Prometheus fails, deletes or goes \
     wrong, now or at its next checkpoint; only damage makes a directory damaged (exit 4). *Warning*: odd, but Prometheus can \
     live with it. *Note*: normal after a crash, or in operation.",
    "**What Prometheus does** about most damage in `wal/` is the same: at its next start it drops everything after the fault, \
     that is, the rest of that segment and **all later segments**, including intact records. It logs `Encountered WAL read error, \
     attempting repair` and `Deleting all segments newer than corrupted segment`. In `wbl/` it does the same to the WBL (2.39 to \
     2.47: for faults of the framing, to **`wal/`**).",
    "In a **checkpoint** the same fault is worse. Prometheus truncates `wal/` at the number of the segment *within the \
     checkpoint*, which is nearly always 0. So it **deletes the whole WAL** and exits, starts empty the second time, and does \
     that again at every start, since the checkpoint stays as it is. [`testdata/incident.md`](../testdata/incident.md) is such a \
     case. In a **chunk snapshot** it drops the snapshot and replays the WAL instead: nothing is lost as long as the WAL is \
     intact.",
    "**What to do**, for every damage: do not start Prometheus. `walfix repair` says for each finding how it would repair it, or \
     why it does not; `walfix repair --backup` does it. Do not remove a damaged checkpoint: only the checkpoint has the labels of \
     most series, and without it Prometheus does not start unless `wal/` begins at segment 0. Not repaired yet are `not_a_file`, \
     `repeated_series`, and `reissued_refs` where the checkpoint is intact.",
    "Several findings may describe one event: pages that changed places show as `headless_record`, `unfinished_record` and \
     `spliced_record` side by side.",
    "A finding with a `correction` names the one bit that is wrong. The record is then known byte for byte, and `lost` is 0.",
];

/// The most columns of a line of the document.
const COLUMNS: usize = 118;

/// The text of `docs/findings.md`.
#[must_use]
pub fn document() -> String {
    let mut text =
        String::from("# Findings\n\n<!-- Made from src/report/explain: CONTRIBUTING.md says how. -->\n");
    for paragraph in INTRODUCTION {
        text.push('\n');
        wrap(&mut text, "", paragraph);
    }
    for group in Group::ALL {
        let _ = writeln!(text, "\n## {}", group.title());
        if !group.introduction().is_empty() {
            text.push('\n');
            wrap(&mut text, "", group.introduction());
        }
        for &code in of_group(group) {
            let explanation = table::entry(code);
            let _ = writeln!(text, "\n### `{code}`");
            wrap(&mut text, "", &explanation.head());
            for (name, point) in explanation.points(code) {
                wrap(&mut text, "  ", &format!("- {name}: {point}"));
            }
        }
    }
    text
}

/// Adds a paragraph in lines of at most [`COLUMNS`] columns, later ones with an indent.
fn wrap(text: &mut String, indent: &str, paragraph: &str) {
    let mut line = String::new();
    for word in paragraph.split(' ').filter(|word| !word.is_empty()) {
        if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            text.push_str(&line);
            text.push('\n');
            indent.clone_into(&mut line);
        } else if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::report::Severity;

    #[test]
    fn each_entry_is_complete() {
        for &code in Code::ALL {
            let Explanation { title, severity, to_do, prometheus, .. } = table::entry(code);
            assert!(title.ends_with('.') && !to_do.is_empty(), "{code}");
            for text in [title, to_do, prometheus] {
                assert!(!text.contains("  ") && !text.ends_with(' '), "{code}: {text}");
            }
            // What is always as bad needs no rule; and a rule names the other severity.
            assert_eq!(severity.is_empty(), code.severities().len() < 2, "{code}");
            for other in code.severities().iter().skip(1) {
                assert!(severity.to_lowercase().contains(severity_in_words(*other)), "{code}");
            }
            let is_damage = code.severities().first() == Some(&Severity::Damage);
            assert!(!is_damage || to_do != "nothing.", "{code}");
        }
    }

    #[test]
    fn codes_are_in_the_order_of_their_groups() {
        assert!(Code::ALL.is_sorted_by_key(|code| table::entry(*code).group));
        assert!(Group::ALL.is_sorted());
        assert_eq!(Group::ALL.into_iter().flat_map(of_group).count(), Code::ALL.len());
        for &code in Code::ALL {
            assert_eq!(code.is_of_findings(), table::entry(code).group != Group::Plans, "{code}");
        }
    }

    #[test]
    fn every_code_that_a_text_names_exists() {
        let text = document();
        let quoted = text.split('`').skip(1).step_by(2);
        let other = ["chunks_head", "walfix_fence", "walfix-lost"];
        let codes = quoted.filter(|text| {
            text.contains('_') && text.chars().all(|char| char == '_' || char.is_ascii_lowercase())
        });
        for code in codes.filter(|code| !other.contains(code)) {
            assert!(code.parse::<Code>().is_ok(), "{code}");
        }
    }

    #[test]
    fn mistyped_codes_are_found() {
        assert_eq!(nearest("zeroed_page"), [Code::ZeroedPages]);
        assert_eq!(nearest("Torn-Record"), [Code::TornRecord]);
        assert_eq!(nearest("unknown_ref"), [Code::UnknownRefs]);
        assert_eq!(nearest("checksum"), [Code::ChecksumMismatch]);
        assert_eq!(nearest("gremlins"), []);
        assert_eq!(nearest(""), []);
    }

    #[test]
    fn lines_fit() {
        let mut out = Vec::new();
        write(Code::ALL, &mut out, false).unwrap();
        list(&mut out, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= crate::report::page::WIDTH));
        assert!(!text.contains("**") && !text.contains("  \n"));
        assert!(document().lines().all(|line| line.chars().count() <= COLUMNS));
    }
}
