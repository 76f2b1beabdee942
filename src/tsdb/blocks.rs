//! Which blocks a data directory has, and what their `meta.json` says (`tsdb/db.go`, `isBlockDir`; `tsdb/block.go`,
//! `readMetaFile`), and whether Prometheus can open them: what [`fault`] looks at costs a few reads a block. What an index and
//! chunks hold is not read.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
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
    /// Samples from this time on, ms.
    pub min_time: i64,
    /// Samples before this time, ms.
    pub max_time: i64,
    /// Samples of all kinds.
    pub samples: u64,
    /// Deleted intervals.
    pub tombstones: u64,
    /// Hints of its compaction: `from-out-of-order`, `from-stale-series`, `from-selected-series`.
    pub hints: Vec<String>,
    /// The blocks that it was made from: Prometheus deletes these when it has loaded this one.
    pub parents: Vec<String>,
}

/// Why Prometheus does not load a block, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFault {
    /// The file or directory, below the block.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: String,
    /// What Prometheus does about it.
    pub then: WithFault,
}

/// What Prometheus does about a block with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithFault {
    /// It does not start.
    Refuses,
    /// It starts without the block.
    Skips,
    /// It starts with the block, and queries of it fail.
    FailsToQuery,
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

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MetaFile {
    version: Option<i64>,
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
    num_tombstones: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Compaction {
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
        min_time: meta.min_time.unwrap_or_default(),
        max_time: meta.max_time.unwrap_or_default(),
        samples: stats.num_samples.unwrap_or_default(),
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

/// Why Prometheus does not load this block of the data directory `data`, or not all of it, as far as it shows without reading the block: a
/// file is missing, or its header or end is not one. `None` if it does, as far as that goes.
fn fault(data: &Path, block: &Block) -> Option<BlockFault> {
    let path = data.join(&block.ulid);
    if let Err(what) = &block.meta {
        // An empty directory holds no samples.
        if ["meta.json", "index", "chunks"].iter().all(|name| path.join(name).symlink_metadata().is_err()) {
            return None;
        }
        return Some(BlockFault { name: "meta.json", what: what.clone(), then: WithFault::Skips });
    }
    let refuses = |name, what| BlockFault { name, what, then: WithFault::Refuses };
    // In the order of `OpenBlock` (`tsdb/block.go`).
    chunks(&path.join("chunks"))
        .map_err(|what| refuses("chunks", what))
        .and_then(|()| index(&path.join("index")).map_err(|what| refuses("index", what)))
        .and_then(|()| tombstones(&path.join("tombstones")).map_err(|what| refuses("tombstones", what)))
        .and_then(|()| {
            let samples = block.meta.as_ref().map_or(0, |meta| meta.samples);
            let fails = |what| BlockFault { name: "chunks", what, then: WithFault::FailsToQuery };
            missing_chunks(&path.join("chunks"), samples).map_err(fails)
        })
        .err()
}

/// The faults of all blocks that Prometheus does not load, in their order, without those of blocks that a block which it
/// loads was made from: it deletes these (`reloadBlocks` in `tsdb/db.go`).
#[must_use]
pub fn faults<'a>(data: &Path, blocks: &'a [Block]) -> Vec<(&'a Block, BlockFault)> {
    let faults: Vec<_> = blocks.iter().filter_map(|block| Some((block, fault(data, block)?))).collect();
    let is_loaded = |block: &&Block| {
        let not_loaded = faults.iter().filter(|(_, fault)| fault.then != WithFault::FailsToQuery);
        not_loaded.into_iter().all(|(faulty, _)| faulty.ulid != block.ulid)
    };
    let metas = blocks.iter().filter(is_loaded).filter_map(|block| block.meta.as_ref().ok());
    let parents: Vec<&String> = metas.flat_map(|meta| &meta.parents).collect();
    faults.iter().filter(|(block, _)| !parents.contains(&&block.ulid)).cloned().collect()
}

/// `NewDirReader` (`tsdb/chunks/chunks.go`): every file whose name is a number has a header.
fn chunks(directory: &Path) -> Result<(), String> {
    let wrong = |name: &str, what: &str| format!("{name}: {what}");
    for entry in fs::read_dir(directory).map_err(|e| e.to_string())? {
        let name = entry.map_err(|e| e.to_string())?.file_name();
        let Some(name) = name.to_str().filter(|name| name.parse::<u64>().is_ok()) else { continue };
        let (head, _) = ends(&directory.join(name), 8, 0).map_err(|what| wrong(name, &what))?;
        match head.get(..8) {
            None => return Err(wrong(name, "it has no header")),
            Some([0x85, 0xbd, 0x40, 0xdd, 1, ..]) => {}
            Some(_) => return Err(wrong(name, "it does not begin as a file of chunks does")),
        }
    }
    Ok(())
}

/// Files of chunks are numbered from 1 on, and the index names chunks by the place of their file among them.
fn missing_chunks(directory: &Path, samples: u64) -> Result<(), String> {
    let entries = fs::read_dir(directory).map_err(|e| e.to_string())?.flatten();
    let mut numbers: Vec<u64> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let wanted = (1..).zip(&numbers).find(|(wanted, number)| wanted != *number).map(|(wanted, _)| wanted);
    match wanted.or_else(|| (numbers.is_empty() && samples > 0).then_some(1)) {
        Some(missing) => Err(format!("{missing:06}: it is missing")),
        None => Ok(()),
    }
}

/// The table of contents at the end of an index: six offsets and their checksum (`indexTOCLen`, `tsdb/index/index.go`).
const TOC: usize = 6 * 8 + 4;

fn index(path: &Path) -> Result<(), String> {
    let (head, tail) = ends(path, 5, TOC)?;
    match head.get(..5) {
        None => return Err("it has no header".into()),
        Some([0xba, 0xaa, 0xd7, 0x00, 1..=3]) => {}
        Some(_) => return Err("it does not begin as an index does".into()),
    }
    let Some((offsets, checksum)) = tail.split_last_chunk::<4>().filter(|_| tail.len() == TOC) else {
        return Err("it has no table of contents".into());
    };
    if crc32c::crc32c(offsets) != u32::from_be_bytes(*checksum) {
        return Err("the checksum of its table of contents is wrong".into());
    }
    Ok(())
}

/// More than any file of tombstones.
const LONGEST_TOMBSTONES: u64 = 64 << 20;

/// `ReadTombstones` (`tsdb/tombstones/tombstones.go`); a block needs none.
fn tombstones(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(metadata) if !metadata.is_file() => return Err("it is no file".into()),
        Ok(metadata) if metadata.len() > LONGEST_TOMBSTONES => return Ok(()),
        Ok(_) => {}
    }
    let mut bytes = Vec::new();
    let file = crate::io::open(path).map_err(|e| e.to_string())?;
    file.take(LONGEST_TOMBSTONES).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let Some((stones, checksum)) = bytes.split_last_chunk::<4>().filter(|(stones, _)| stones.len() >= 5)
    else {
        return Err("it has no header".into());
    };
    if !stones.starts_with(&[0x01, 0x30, 0xba, 0x30, 1]) {
        return Err("it does not begin as a file of tombstones does".into());
    }
    // The checksum does not cover the header.
    if crc32c::crc32c(&stones[5..]) != u32::from_be_bytes(*checksum) {
        return Err("its checksum is wrong".into());
    }
    Ok(())
}

/// The first and last bytes of a file, fewer if it has fewer.
fn ends(path: &Path, first: u64, last: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "it is missing".to_owned(),
        _ => error.to_string(),
    };
    // Opening a pipe would wait for a writer.
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err("it is no file".into());
    }
    if metadata.len() == 0 {
        return Err("it is empty".into());
    }
    let file = crate::io::open(path).map_err(failed)?;
    let mut head = Vec::new();
    (&file).take(first).read_to_end(&mut head).map_err(failed)?;
    let last = last.min(usize::try_from(metadata.len()).unwrap_or(last));
    let mut tail = vec![0; last];
    file.read_exact_at(&mut tail, metadata.len() - last as u64).map_err(failed)?;
    Ok((head, tail))
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
