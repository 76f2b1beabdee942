//! Which blocks a data directory has, and what their `meta.json` says (`tsdb/db.go`, `isBlockDir`; `tsdb/block.go`,
//! `readMetaFile`). `scan::blocks` reads the rest.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

/// A directory that Prometheus takes for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The directory's name: a ULID.
    pub ulid: String,
    /// What its `meta.json` says, or why that cannot be had; Prometheus skips such a block.
    pub meta: Result<BlockMeta, String>,
}

/// What a block says of itself, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockMeta {
    /// Its ULID; the directory may have another name. `None` if there is none.
    pub ulid: Option<String>,
    /// Samples from this time on, ms.
    pub min_time: i64,
    /// Samples before this time, ms.
    pub max_time: i64,
    /// Samples of all kinds; 0 if they were not counted, and so below.
    pub samples: u64,
    /// Series.
    pub series: u64,
    /// Chunks.
    pub chunks: u64,
    /// How often it was compacted, 1 for one of the head.
    pub level: i64,
    /// Deleted intervals.
    pub tombstones: u64,
    /// Hints of its compaction: `from-out-of-order`, `from-stale-series`, `from-selected-series`.
    pub hints: Vec<String>,
    /// The blocks that it was made from: Prometheus deletes these when it has loaded this one.
    pub parents: Vec<String>,
}

impl BlockMeta {
    /// Whether it has that hint.
    #[must_use]
    pub fn has_hint(&self, hint: &str) -> bool {
        self.hints.iter().any(|given| given == hint)
    }
}

/// The blocks of a data directory, in the order of their names.
///
/// # Errors
/// If the directory cannot be listed.
pub fn list_blocks(data: &Path) -> io::Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for entry in fs::read_dir(data)? {
        let entry = entry?;
        let Ok(ulid) = entry.file_name().into_string() else { continue };
        // Not followed through a link, as in Go's `os.ReadDir`.
        if is_ulid(&ulid) && entry.file_type()?.is_dir() {
            blocks.push(Block { ulid, meta: read_meta(&entry.path().join("meta.json")) });
        }
    }
    blocks.sort_by(|a, b| a.ulid.cmp(&b.ulid));
    Ok(blocks)
}

/// Whether it is a ULID as `ulid.ParseStrict` takes it: 26 digits of Crockford's base 32 in either case, 128 bits.
pub(super) fn is_ulid(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() && !b"ILOUilou".contains(&byte);
    name.len() == 26 && name.bytes().all(is_digit) && name.as_bytes()[0] <= b'7'
}

/// Whether a path of a data directory is that of a block, or below one.
pub(crate) fn is_in_block(path: &str) -> bool {
    is_ulid(path.split('/').next().unwrap_or_default())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetaFile {
    version: Option<i64>,
    ulid: Option<String>,
    min_time: Option<i64>,
    max_time: Option<i64>,
    stats: Option<Stats>,
    compaction: Option<Compaction>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parent {
    ulid: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stats {
    num_samples: Option<u64>,
    num_series: Option<u64>,
    num_chunks: Option<u64>,
    num_tombstones: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Compaction {
    level: Option<i64>,
    hints: Option<Vec<String>>,
    parents: Option<Vec<Parent>>,
}

/// More than any block's: it grows by some hundred bytes with each block that was compacted into it.
const LONGEST_META: u64 = 64 << 20;

fn read_meta(path: &Path) -> Result<BlockMeta, String> {
    let mut text = Vec::new();
    let file = crate::io::open(path).map_err(|e| e.to_string())?;
    file.take(LONGEST_META).read_to_end(&mut text).map_err(|e| e.to_string())?;
    parse_meta(&text)
}

fn parse_meta(text: &[u8]) -> Result<BlockMeta, String> {
    let meta: MetaFile = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    // Version 2 is one that Prometheus 2.1 wrote by mistake, and is repaired at every start (`repairBadIndexVersion`,
    // `tsdb/repair.go`).
    let version = meta.version.unwrap_or_default();
    if !(1..=2).contains(&version) {
        return Err(format!("unexpected meta file version {version}"));
    }
    let (compaction, stats) = (meta.compaction.unwrap_or_default(), meta.stats.unwrap_or_default());
    Ok(BlockMeta {
        ulid: meta.ulid,
        min_time: meta.min_time.unwrap_or_default(),
        max_time: meta.max_time.unwrap_or_default(),
        samples: stats.num_samples.unwrap_or_default(),
        series: stats.num_series.unwrap_or_default(),
        chunks: stats.num_chunks.unwrap_or_default(),
        level: compaction.level.unwrap_or_default(),
        tombstones: stats.num_tombstones.unwrap_or_default(),
        hints: compaction.hints.unwrap_or_default(),
        parents: compaction
            .parents
            .unwrap_or_default()
            .into_iter()
            .filter_map(|parent| parent.ulid)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_parse_strict_takes_them() {
        for (name, is) in [
            ("01M7ZS9S4NDJN0ZC8B8F93HKE3", true),
            ("01m7zs9s4ndjn0zc8b8f93hke3", true),
            ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", true),
            ("8ZZZZZZZZZZZZZZZZZZZZZZZZZ", false),
            ("01M7ZS9S4NDJN0ZC8B8F93HKEI", false),
            ("01M7ZS9S4NDJN0ZC8B8F93HKE", false),
            ("01M7ZS9S4NDJN0ZC8B8F93HKE3.tmp-for-creation", false),
            ("0\u{e9}M7ZS9S4NDJN0ZC8B8F93HKE", false),
            ("", false),
        ] {
            assert_eq!(is_ulid(name), is, "{name:?}");
        }
    }

    #[test]
    fn meta_as_prometheus_writes_it() {
        let text = br#"{"ulid":"01M7ZS9S4NDJN0ZC8B8F93HKE3","minTime":1000,"maxTime":2000,
            "stats":{"numSamples":7,"numSeries":2,"numChunks":2},
            "compaction":{"level":1,"sources":["01M7ZS9S4NDJN0ZC8B8F93HKE3"],"hints":["from-out-of-order"]},"version":1}"#;
        let meta = parse_meta(text).unwrap();
        assert_eq!((meta.min_time, meta.max_time, meta.samples), (1000, 2000, 7));
        assert!(meta.has_hint("from-out-of-order") && !meta.has_hint("from-stale-series"));
    }

    #[test]
    fn meta_that_prometheus_does_not_take() {
        for text in ["", "{", "[]", "{\"version\":3}", "{}", "{\"version\":1,\"minTime\":\"x\"}"] {
            assert!(parse_meta(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse_meta(b"{\"version\":1}").is_ok());
    }

    #[test]
    fn directories_that_are_blocks_are_listed_and_their_faults_kept() {
        let data = tempfile::tempdir().unwrap();
        let block = |name: &str, meta: Option<&str>| {
            fs::create_dir(data.path().join(name)).unwrap();
            if let Some(meta) = meta {
                fs::write(data.path().join(name).join("meta.json"), meta).unwrap();
            }
        };
        block("01M7ZS9S4NDJN0ZC8B8F93HKE4", None);
        block("01M7ZS9S4NDJN0ZC8B8F93HKE3", Some("{\"version\":1,\"maxTime\":5}"));
        block("wal", Some("{}"));
        block("01M7ZS9S4NDJN0ZC8B8F93HKE5.tmp", Some("{}"));
        fs::write(data.path().join("01M7ZS9S4NDJN0ZC8B8F93HKE6"), "a file").unwrap();
        let blocks = list_blocks(data.path()).unwrap();
        let names: Vec<_> = blocks.iter().map(|block| block.ulid.as_str()).collect();
        assert_eq!(names, ["01M7ZS9S4NDJN0ZC8B8F93HKE3", "01M7ZS9S4NDJN0ZC8B8F93HKE4"]);
        assert_eq!(blocks[0].meta.as_ref().unwrap().max_time, 5);
        assert!(blocks[1].meta.is_err());
    }
}
