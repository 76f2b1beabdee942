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
    /// Up to this time, ms, samples without labels are known to be lost. It is that of the newest sample at the repair: new
    /// series have newer ones.
    pub to: i64,
    /// Of so many series, as far as it was counted.
    pub series: Option<u64>,
    /// So many entries, as far as it was counted.
    pub entries: Option<u64>,
}

impl LostLabels {
    /// These.
    #[must_use]
    pub fn new(to: i64, series: Option<u64>, entries: Option<u64>) -> Self {
        Self { schema: SCHEMA.to_owned(), to, series, entries }
    }

    /// Whether samples up to this time, and no newer ones, were lost then.
    #[must_use]
    pub fn cover(&self, to: Option<i64>) -> bool {
        to.is_none_or(|to| to <= self.to)
    }
}

/// What the last repair recorded, and when, ms since 1970. A file that is none of walfix's is skipped.
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

/// Whether a file is called so.
#[must_use]
pub fn is_record(file: &str) -> bool {
    number(file).is_some()
}

fn number(file: &str) -> Option<u64> {
    let number = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
    (file == name(number)).then_some(number)
}

/// The numbers of such files, in order.
fn numbers(data: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(data)? {
        let found = entry?.file_name();
        numbers.extend(found.to_str().and_then(number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
