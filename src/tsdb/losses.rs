//! What a repair could not bring back, as it recorded it in the data directory: `walfix-lost.N.json`. Prometheus neither
//! lists nor deletes such names.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

const PREFIX: &str = "walfix-lost.";
const SUFFIX: &str = ".json";
const SCHEMA: &str = "walfix.lost/1";
/// More than any of these files.
const LONGEST: u64 = 64 * 1024;

/// Samples whose labels are lost for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostLabels {
    schema: String,
    /// The highest ref of a series that has none.
    pub highest_ref: u64,
    /// At most so many series; `None` if that is not known.
    pub series: Option<u64>,
    /// At most so many entries; `None` if that is not known.
    pub entries: Option<u64>,
    /// The time of the last of their samples, ms.
    pub to: Option<i64>,
}

impl LostLabels {
    /// These.
    #[must_use]
    pub fn new(highest_ref: u64, series: Option<u64>, entries: Option<u64>, to: Option<i64>) -> Self {
        Self { schema: SCHEMA.to_owned(), highest_ref, series, entries, to }
    }

    /// Whether these have all of `other`.
    #[must_use]
    pub fn cover(&self, other: &Self) -> bool {
        let within =
            |most: Option<u64>, now: Option<u64>| most.is_none_or(|most| now.is_some_and(|now| now <= most));
        other.highest_ref <= self.highest_ref
            && within(self.series, other.series)
            && within(self.entries, other.entries)
            && (self.to.is_none() || other.to <= self.to)
    }
}

/// What the last repair recorded, and when, ms since 1970. A file that is none of walfix's is left out.
#[must_use]
pub fn recorded(data: &Path) -> Option<(LostLabels, i64)> {
    let path = data.join(name(*numbers(data).ok()?.last()?));
    let file = crate::io::open(&path).ok()?;
    let metadata = file.metadata().ok()?;
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    let lost: LostLabels = serde_json::from_slice(&text).ok()?;
    (lost.schema == SCHEMA).then_some((lost, metadata.mtime().saturating_mul(1000)))
}

/// The name of the next such file.
///
/// # Errors
/// If the directory cannot be listed.
pub fn next_name(data: &Path) -> io::Result<String> {
    Ok(name(numbers(data)?.last().map_or(1, |last| last.saturating_add(1))))
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number}{SUFFIX}")
}

/// The numbers of such files, in order.
fn numbers(data: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(data)? {
        let found = entry?.file_name();
        let number =
            found.to_str().and_then(|found| found.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        numbers.extend(number.filter(|&number| found == *name(number)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
