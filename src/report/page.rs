//! Lines for a terminal, and how numbers, sizes, times and paths are written in them.

use std::io::{self, Write};

use super::words::amounts::day_and_time;

/// The most columns that a line has.
pub const WIDTH: usize = 100;

/// How the text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether to colour it with ANSI escapes.
    pub colour: bool,
    /// Whether to write nothing if there is no damage, and only the verdict if there is.
    pub quiet: bool,
}

/// A space at which no line is broken. Texts from outside cannot have it: [`clean`] escapes it.
pub(super) const GLUE: char = '\u{1f}';

/// Lines of at most [`WIDTH`] columns.
pub(super) struct Page<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) colour: bool,
}

impl Page<'_> {
    pub(super) fn paint(&self, style: anstyle::Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", text.replace(GLUE, " ").trim_end())
    }

    /// Words after so many spaces, if there are any.
    pub(super) fn indented(&mut self, indent: usize, text: &str) -> io::Result<()> {
        let lead = " ".repeat(indent);
        if text.trim().is_empty() { Ok(()) } else { self.paragraph(&lead, &lead, indent, text) }
    }

    /// Words after a lead (as it is, and as it is painted), broken at spaces, with later lines indented.
    pub(super) fn paragraph(
        &mut self,
        lead: &str,
        painted: &str,
        indent: usize,
        text: &str,
    ) -> io::Result<()> {
        let mut line = painted.to_owned();
        let mut column = columns(lead);
        // No word is on the line.
        let mut bare = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let mut word = word;
            loop {
                if bare {
                    word = word.trim_start_matches(GLUE);
                }
                let space = usize::from(!bare);
                if column + space + columns(word) <= WIDTH {
                    line.push_str(if bare { "" } else { " " });
                    line.push_str(word);
                    column += space + columns(word);
                    bare = word.is_empty() && bare;
                    break;
                }
                if bare && column <= indent {
                    // It is wider than a line.
                    let fits = fitting(word.chars(), WIDTH - column);
                    let (here, rest) = word.split_at(fits);
                    line.push_str(here);
                    word = rest;
                }
                self.line(&line)?;
                line = " ".repeat(indent);
                column = indent;
                bare = true;
            }
        }
        self.line(&line)
    }
}

/// Bytes of the characters that fit into so many columns.
pub(super) fn fitting(text: impl Iterator<Item = char>, most: usize) -> usize {
    let mut column = 0;
    text.take_while(|&char| {
        column += width(char);
        column <= most
    })
    .map(char::len_utf8)
    .sum()
}

pub(super) fn columns(text: &str) -> usize {
    text.chars().map(width).sum()
}

/// Columns of a character on a terminal: what Unicode calls wide, and emoji, have two. Marks that join the character
/// before them count as one: too wide a guess wraps early, too narrow a one breaks the layout.
pub(super) fn width(char: char) -> usize {
    match char {
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3ffff}' => 2,
        _ => 1,
    }
}

/// A text from outside, as it may be shown.
pub(super) use crate::io::printable as clean;

/// A path as one word, cut in the middle if it is wider than `most` columns.
pub(super) fn path(path: &str, most: usize) -> String {
    let path = clean(if path.is_empty() { "." } else { path });
    let path = path.replace(' ', &GLUE.to_string());
    if columns(&path) <= most {
        return path;
    }
    let head = fitting(path.chars(), most / 3);
    let tail = fitting(path.chars().rev(), most - most / 3 - 1);
    format!("{}…{}", &path[..head], &path[path.len() - tail..])
}

/// `[19 934, 32 768)`.
pub(super) fn range(offset: u64, end: u64) -> String {
    format!("[{},{GLUE}{})", number(offset), number(end))
}

/// `1 record`, `1 022 records`.
pub(super) fn count(count: u64, one: &str, more: &str) -> String {
    let word = if count == 1 { one } else { more };
    format!("{}{GLUE}{}", number(count), word.replace(' ', &GLUE.to_string()))
}

/// Digits in groups of three.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(GLUE);
        }
        grouped.push(digit);
    }
    grouped
}

/// `999 B`, `5.2 MB`: powers of 1000, rounded.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes}{GLUE}B");
    }
    // Tenths of the unit.
    let mut tenths = (u128::from(bytes) + 50) / 100;
    let mut scale: u128 = 100;
    let mut units = ["kB", "MB", "GB", "TB", "PB", "EB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while tenths >= 10_000
        && let Some(next) = units.next()
    {
        unit = next;
        scale *= 1000;
        tenths = (u128::from(bytes) + scale / 2) / scale;
    }
    format!("{}.{}{GLUE}{unit}", tenths / 10, tenths % 10)
}

/// `2026-11-21 19:24:15 to 19:30:31`, in UTC, without the day where it is the same.
pub(super) fn times(from: Option<i64>, to: Option<i64>) -> Option<String> {
    let (from, to) = match (from, to) {
        (Some(from), Some(to)) => (from, to),
        (Some(one), None) | (None, Some(one)) => (one, one),
        (None, None) => return None,
    };
    let milliseconds =
        |ms: i64| format!("{}{}{GLUE}ms", if ms < 0 { "-" } else { "" }, number(ms.unsigned_abs()));
    let full =
        |ms| day_and_time(ms).map_or_else(|| milliseconds(ms), |(day, time)| format!("{day}{GLUE}{time}"));
    let first = full(from);
    let last = match (day_and_time(from), day_and_time(to)) {
        (Some((day, _)), Some((other, time))) if day == other => time,
        _ => full(to),
    };
    // Less than a second apart.
    if first.ends_with(&last) && day_and_time(from).is_some() || from == to {
        return Some(first);
    }
    Some(format!("{first} to {last}"))
}
