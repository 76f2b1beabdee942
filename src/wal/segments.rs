//! Which files of a directory are segments (`tsdb/wlog/wlog.go`, `listSegments`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory entry that Prometheus takes for a segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// Its number.
    pub index: i64,
    /// Its name; the replay opens `%08d` of the number, whatever the name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl SegmentFile {
    /// Whether the name is the one that the replay opens.
    #[must_use]
    pub fn has_canonical_name(&self) -> bool {
        self.name == segment_name(self.index)
    }
}

/// The name of a segment's file (`SegmentName`).
#[must_use]
pub fn segment_name(index: i64) -> String {
    format!("{index:08}")
}

/// The number in a segment's name, by the rule of Go's `strconv.Atoi`: `3`, `+3`, `-3` and `000003` all have one.
#[must_use]
pub fn segment_index(name: &str) -> Option<i64> {
    let digits = name.strip_prefix(['+', '-']).unwrap_or(name);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

/// The segments of a directory, files and directories alike, in the order of their numbers. Gaps are left to the
/// caller to judge.
///
/// # Errors
/// If the directory cannot be listed.
pub fn list_segments(directory: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(index) = segment_index(name) {
            segments.push(SegmentFile { index, name: name.to_owned(), path: entry.path() });
        }
    }
    segments.sort();
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_strconv_atoi_takes_them() {
        for (name, index) in [
            ("00000003", Some(3)),
            ("3", Some(3)),
            ("+3", Some(3)),
            ("-3", Some(-3)),
            ("", None),
            ("+", None),
            ("1_000", None),
            ("0x3", None),
            ("00000003.repair", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(segment_index(name), index, "{name:?}");
        }
    }
}
