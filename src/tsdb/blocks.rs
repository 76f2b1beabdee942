//! Which blocks a data directory has, and what their `meta.json` says (`tsdb/db.go`, `isBlockDir`; `tsdb/block.go`,
//! `readMetaFile`). `scan::blocks` reads the rest.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value;

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

/// More than any block's: it grows by some hundred bytes with each block that was compacted into it.
const LONGEST_META: u64 = 64 << 20;

fn read_meta(path: &Path) -> Result<BlockMeta, String> {
    let mut text = Vec::new();
    let file = crate::io::open(path).map_err(|e| e.to_string())?;
    file.take(LONGEST_META).read_to_end(&mut text).map_err(|e| e.to_string())?;
    parse_meta(&text)
}

/// As `encoding/json` takes it for a `BlockMeta` (`tsdb/block.go`): keys in any case, bytes that are no UTF-8 replaced, null for
/// nothing.
fn parse_meta(text: &[u8]) -> Result<BlockMeta, String> {
    let text = String::from_utf8_lossy(text);
    let meta: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let meta = Fields::of(Some(&meta), "the file")?;
    let compaction = Fields::of(meta.get("compaction"), "compaction")?;
    let stats = Fields::of(meta.get("stats"), "stats")?;
    for source in compaction.list("sources")? {
        ulid(Some(source))?;
    }
    compaction.flag("deletable")?;
    compaction.flag("failed")?;
    for name in ["numFloatSamples", "numHistogramSamples"] {
        stats.count(name)?;
    }
    let hints = compaction.list("hints")?.iter().filter(|hint| !hint.is_null());
    let mut parents = Vec::new();
    for parent in compaction.list("parents")? {
        let parent = Fields::of(Some(parent), "parents")?;
        parent.number("minTime")?;
        parent.number("maxTime")?;
        parents.extend(ulid(parent.get("ulid"))?);
    }
    let found = BlockMeta {
        ulid: ulid(meta.get("ulid"))?,
        min_time: meta.number("minTime")?,
        max_time: meta.number("maxTime")?,
        samples: stats.count("numSamples")?,
        series: stats.count("numSeries")?,
        chunks: stats.count("numChunks")?,
        level: compaction.number("level")?,
        tombstones: stats.count("numTombstones")?,
        hints: hints
            .map(|hint| hint.as_str().map(str::to_owned).ok_or_else(|| wrong("hints", hint)))
            .collect::<Result<_, _>>()?,
        parents,
    };
    // Version 2 is one that Prometheus 2.1 wrote by mistake, and is repaired at every start (`repairBadIndexVersion`,
    // `tsdb/repair.go`).
    match meta.number("version")? {
        1..=2 => Ok(found),
        version => Err(format!("unexpected meta file version {version}")),
    }
}

/// The members of an object; none of null, or of what is not there.
struct Fields<'a>(Option<&'a serde_json::Map<String, Value>>);

impl<'a> Fields<'a> {
    fn of(value: Option<&'a Value>, name: &str) -> Result<Self, String> {
        match value {
            None | Some(Value::Null) => Ok(Self(None)),
            Some(Value::Object(members)) => Ok(Self(Some(members))),
            Some(other) => Err(wrong(name, other)),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let members = self.0?;
        let in_any_case =
            || members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        members.get(name).or_else(in_any_case).filter(|value| !value.is_null())
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        self.get(name).map_or(Ok(0), |value| value.as_i64().ok_or_else(|| wrong(name, value)))
    }

    fn count(&self, name: &str) -> Result<u64, String> {
        self.get(name).map_or(Ok(0), |value| value.as_u64().ok_or_else(|| wrong(name, value)))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        self.get(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong(name, value)))
    }

    fn list(&self, name: &str) -> Result<&'a [Value], String> {
        self.get(name)
            .map_or(Ok(&[]), |value| value.as_array().map(Vec::as_slice).ok_or_else(|| wrong(name, value)))
    }
}

fn wrong(name: &str, value: &Value) -> String {
    format!("{name} cannot be {value}")
}

/// A ULID as `ulid.ULID.UnmarshalText` takes it: 26 bytes, 128 bits.
fn ulid(value: Option<&Value>) -> Result<Option<String>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_str() {
        Some(text) if text.len() == 26 && text.as_bytes().first().is_some_and(|first| *first <= b'7') => {
            Ok(Some(text.to_owned()))
        }
        _ => Err(wrong("a ULID", value)),
    }
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
        for text in [
            "",
            "{",
            "[]",
            "{\"version\":3}",
            "{}",
            "{\"version\":1,\"minTime\":\"x\"}",
            "{\"version\":1,\"minTime\":1.5}",
            "{\"version\":1,\"ulid\":\"01M7\"}",
            "{\"version\":1,\"compaction\":{\"sources\":[\"8ZZZZZZZZZZZZZZZZZZZZZZZZZ\"]}}",
            "{\"version\":1,\"stats\":{\"numSeries\":-1}}",
        ] {
            assert!(parse_meta(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse_meta(b"{\"version\":1}").is_ok());
        let other_case = b"{\"Version\":1,\"MINTIME\":7,\"stats\":null,\"hint\xff\":\"\xff\"}";
        assert_eq!(parse_meta(other_case).map(|meta| meta.min_time), Ok(7));
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
