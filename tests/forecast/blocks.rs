//! What becomes of a damaged block is what real Prometheus servers, and its newest packages, make of it: each of the faults at which
//! a block is not opened, and of those that only queries and compactions meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;
use support::oracle::{self, Oracle};
use support::server::{Error, LogLine, Options, Server, Servers, Started, copy_directory};
use support::{note, test, tree};
use walfix::block::{Index, postings_at, series_at};
use walfix::fix::{Keep, Outcome, Request, fix};
use walfix::scan::blocks::{BlockReport, Consequence, Depth};
use walfix::scan::code::Code;
use walfix::scan::report::{Report, Severity};
use walfix::scan::{self, scan};
use walfix::tsdb::Target;
use walfix::verdict;

/// What is done to a block.
type Damage = fn(&Path);

fn edit(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

fn flip(file: &Path, at: impl FnOnce(&[u8]) -> usize) {
    edit(file, |bytes| {
        let at = at(bytes);
        bytes[at] ^= 0x10;
    });
}

/// Where a list of the table begins, the first one whose name is one or is none.
fn list_of(index: &[u8], all: bool) -> usize {
    let opened = Index::open(index).unwrap();
    let entry = opened.table.iter().map(Result::unwrap).find(|entry| entry.name.is_empty() == all).unwrap();
    assert!(postings_at(index, entry.offset).is_ok());
    usize::try_from(entry.offset).unwrap()
}

fn table_of(index: &[u8]) -> usize {
    usize::try_from(Index::open(index).unwrap().toc.postings_table).unwrap()
}

/// The middle of a series.
fn series_of(index: &[u8]) -> usize {
    let opened = Index::open(index).unwrap();
    let first = opened.next_series(0).unwrap();
    assert_eq!(series_at(index, first.offset).unwrap().end, first.end);
    usize::try_from(first.offset).unwrap() + 3
}

fn chunk_file(block: &Path) -> std::path::PathBuf {
    block.join("chunks/000001")
}

/// All faults: those at which a block is not opened come first.
const DAMAGES: [(&str, Damage); 31] = [
    ("index missing", |block| fs::remove_file(block.join("index")).unwrap()),
    ("index empty", |block| edit(&block.join("index"), Vec::clear)),
    ("index of 4 bytes", |block| edit(&block.join("index"), |bytes| bytes.truncate(4))),
    ("index of 40 bytes", |block| edit(&block.join("index"), |bytes| bytes.truncate(40))),
    ("index cut by a byte", |block| edit(&block.join("index"), |bytes| bytes.truncate(bytes.len() - 1))),
    ("magic number of the index", |block| flip(&block.join("index"), |_| 1)),
    ("version of the index", |block| flip(&block.join("index"), |_| 4)),
    ("symbols", |block| flip(&block.join("index"), |_| 16)),
    ("table of postings", |block| flip(&block.join("index"), |bytes| table_of(bytes) + 12)),
    ("length of the table of postings", |block| flip(&block.join("index"), table_of)),
    ("table of contents", |block| flip(&block.join("index"), |bytes| bytes.len() - 20)),
    ("chunks missing", |block| fs::remove_dir_all(block.join("chunks")).unwrap()),
    ("file of chunks empty", |block| edit(&chunk_file(block), Vec::clear)),
    ("file of chunks of 4 bytes", |block| edit(&chunk_file(block), |bytes| bytes.truncate(4))),
    ("magic number of chunks", |block| flip(&chunk_file(block), |_| 2)),
    ("version of chunks", |block| flip(&chunk_file(block), |_| 4)),
    ("tombstones of 4 bytes", |block| edit(&block.join("tombstones"), |bytes| bytes.truncate(4))),
    ("tombstones of 7 bytes", |block| edit(&block.join("tombstones"), |bytes| bytes.truncate(7))),
    ("tombstones of 8 bytes", |block| edit(&block.join("tombstones"), |bytes| bytes.truncate(8))),
    ("magic number of tombstones", |block| flip(&block.join("tombstones"), |_| 0)),
    ("checksum of tombstones", |block| flip(&block.join("tombstones"), |bytes| bytes.len() - 1)),
    ("version of tombstones", |block| flip(&block.join("tombstones"), |_| 4)),
    ("meta.json missing", |block| fs::remove_file(block.join("meta.json")).unwrap()),
    ("meta.json empty", |block| edit(&block.join("meta.json"), Vec::clear)),
    ("meta.json cut", |block| edit(&block.join("meta.json"), |bytes| bytes.truncate(100))),
    ("meta.json of version 3", |block| {
        edit(&block.join("meta.json"), |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            *bytes = text.replace("\"version\": 1", "\"version\": 3").into_bytes();
        });
    }),
    ("a chunk", |block| flip(&chunk_file(block), |_| 20)),
    ("a series", |block| flip(&block.join("index"), series_of)),
    ("list of all series", |block| flip(&block.join("index"), |bytes| list_of(bytes, true) + 9)),
    ("list of a label", |block| flip(&block.join("index"), |bytes| list_of(bytes, false) + 9)),
    ("chunks cut", |block| edit(&chunk_file(block), |bytes| bytes.truncate(bytes.len() - 30))),
];

/// Blocks of floats, which every server knows, in the past.
fn healthy(oracle: Oracle, data: &Path) -> Vec<String> {
    let arguments = ["blocks", "--seed", "3", "--blocks", "3", "--series", "30", "--encodings", "1"];
    let made = oracle.json(&[&arguments[..], &["--tombstones", "2"]].concat(), data);
    made.as_array().unwrap().iter().map(|ulid| ulid.as_str().unwrap().to_owned()).collect()
}

fn scanned(data: &Path) -> Report {
    let target = Target::find(data).unwrap();
    let options = scan::Options { depth: Depth::Samples, ..scan::Options::default() };
    scan(&target, &options, &()).unwrap().report
}

fn of_block(report: &Report, ulid: &str) -> BlockReport {
    report.blocks.iter().find(|block| block.ulid == ulid).unwrap().clone()
}

/// Prometheus's error, as walfix has it.
fn error_of(report: &Report) -> String {
    let finding = report.findings.iter().find(|finding| finding.code == Code::BlockUnusable).unwrap();
    let message = finding.message();
    message.split("; ").next().unwrap().to_owned()
}

/// Without the path of the block.
fn without_path(error: &str, ulid: &str) -> String {
    let below = format!("{ulid}/");
    match error.rsplit_once(&below) {
        Some((before, after)) => {
            let path = before.rfind("open ").map_or(0, |at| at + "open ".len());
            format!("{}{after}", &before[..path])
        }
        None => error.to_owned(),
    }
}

/// What a server makes of it.
fn compare(server: &Server, data: &Path, name: &str, ulid: &str) -> Result<(), Error> {
    let report = scanned(data);
    let block = of_block(&report, ulid);
    let said = |consequence| block.consequences.contains(&consequence);
    let case = format!("{}: {name}: {:?}", server.version, block.consequences);
    match server.start_on_copy(data, &Options::default())? {
        Started::Hangs(_) => panic!("{case}: hangs"),
        Started::Exited(exited) => {
            assert!(
                said(Consequence::RefusesToStart) || said(Consequence::Crashes),
                "{case}\n{}",
                exited.log
            );
            let log = exited.log.to_string();
            let crashed = log.contains("panic:");
            assert_eq!(crashed, said(Consequence::Crashes), "{case}\n{log}");
            if !crashed {
                let error = error_of(&report);
                let says = |line: &LogLine| {
                    line.err().is_some_and(|said| without_path(said, ulid).ends_with(&error))
                };
                assert!(exited.log.lines.iter().any(says), "{case}: {error}\n{log}");
            }
        }
        Started::Ready(running) => {
            assert!(!said(Consequence::RefusesToStart) && !said(Consequence::Crashes), "{case}");
            let skips = running.log().lines.iter().any(|line| line.raw.contains("Failed to read meta.json"));
            assert_eq!(skips, said(Consequence::Invisible), "{case}");
            // The end of the block, so that the other blocks are not read.
            let (from, to) = (block.min_time.unwrap(), block.max_time.unwrap());
            #[allow(clippy::cast_precision_loss)]
            let end = (to - 1) as f64 / 1000.0;
            let range = format!("{{__name__=~\".+\"}}[{}ms]", to - 1 - from);
            let answer = running.query(&range, Some(end));
            let fails = matches!(answer, Err(Error::Http { .. }));
            let by_all = name != "list of a label" && name != "list of all series";
            if by_all {
                assert_eq!(fails, said(Consequence::QueriesFail), "{case}: {answer:?}");
            } else {
                // A query that uses the list.
                assert!(said(Consequence::QueriesFail), "{case}");
            }
            running.stop()?;
        }
    }
    Ok(())
}

/// What the newest packages make of it when they compact it.
fn compact(oracle: Oracle, data: &Path, name: &str, ulid: &str) {
    let block = of_block(&scanned(data), ulid);
    let said = |consequence| block.consequences.contains(&consequence);
    let scratch = support::scratch();
    let copy = scratch.path().join("data");
    copy_directory(data, &copy).unwrap();
    let answer: Value = oracle.json(&["compact"], &copy);
    let fails = !answer["error"].is_null();
    let opens = !said(Consequence::RefusesToStart) && !said(Consequence::Crashes);
    let wanted = !opens || said(Consequence::CompactionFails) || said(Consequence::CompactionStops);
    assert_eq!(fails, wanted, "{name}: {:?}: {answer}", block.consequences);
}

/// A healthy directory, one of its blocks, and copies in which this one is damaged.
struct States {
    healthy: PathBuf,
    ulid: String,
    damaged: Vec<(&'static str, PathBuf)>,
    _scratch: tempfile::TempDir,
}

fn states(oracle: Oracle) -> States {
    let scratch = support::scratch();
    let healthy_data = scratch.path().join("healthy");
    let ulid = healthy(oracle, &healthy_data).swap_remove(1);
    assert!(of_block(&scanned(&healthy_data), &ulid).consequences.is_empty());
    let damaged = DAMAGES
        .iter()
        .map(|(name, damage)| {
            let data = scratch.path().join(name.replace(' ', "-"));
            copy_directory(&healthy_data, &data).unwrap();
            damage(&data.join(&ulid));
            (*name, data)
        })
        .collect();
    States { healthy: healthy_data, ulid, damaged, _scratch: scratch }
}

#[test(long)]
fn damaged_blocks_become_what_is_said() -> Result<(), Error> {
    const WHAT: &str = "damaged blocks";
    let oracle = oracle::judge(WHAT);
    let States { ulid, damaged: states, .. } = &states(oracle);
    for (name, data) in states {
        compact(oracle, data, name, ulid);
    }
    Servers::each(WHAT, |server| {
        states.iter().try_for_each(|(name, data)| compare(server, data, name, ulid))
    })?;
    note!("{} states of a block", states.len());
    Ok(())
}

/// Samples: labels, time in ms, and value.
type Samples = BTreeSet<(String, i64, String)>;

/// All samples that a server serves, of whatever time.
fn served(server: &Server, data: &Path) -> Result<Samples, Error> {
    let running = server.start_on_copy(data, &Options::default())?.ready()?;
    let samples = running.samples("{__name__=~\".+\"}", None)?;
    running.stop()?;
    let each = |(labels, samples): (String, Vec<(i64, String)>)| {
        samples.into_iter().map(move |(t, value)| (labels.clone(), t, value)).collect::<Vec<_>>()
    };
    Ok(samples.into_iter().flat_map(each).collect())
}

/// How many samples a repair may cost: those of the damage.
enum Cost {
    Nothing,
    /// Some of the block's.
    Some,
    /// All of the block's.
    Block,
}

fn cost_of(name: &str) -> Cost {
    match name {
        "index missing"
        | "index empty"
        | "index of 4 bytes"
        | "index of 40 bytes"
        | "symbols"
        | "chunks missing"
        | "file of chunks empty"
        | "file of chunks of 4 bytes"
        | "meta.json of version 3" => Cost::Block,
        "a chunk" | "a series" | "chunks cut" => Cost::Some,
        _ => Cost::Nothing,
    }
}

/// All files but the lock.
fn tree_of(data: &Path) -> tree::Tree {
    let mut tree = tree::tree(data);
    tree.retain(|path, _| path != "lock" && !path.is_empty());
    tree
}

/// Repairs a copy: the kinds of its resolutions, what a server serves then, and how the newest packages compact it.
fn repaired(
    oracle: Oracle,
    server: &Server,
    (name, damaged): (&str, &Path),
) -> Result<(String, Samples), Error> {
    let scratch = support::scratch();
    let data = scratch.path().join("data");
    copy_directory(damaged, &data)?;
    let before = tree_of(&data);
    let target = Target::find(&data).unwrap();
    let how = verdict::Options { depth: Depth::Samples, ..verdict::Options::default() };
    let request = Request { how, keep: Keep::InPlace, ..Request::default() };
    let fixed = fix(&target, &request, &()).unwrap();
    let Outcome::Repaired(repaired) = &fixed.outcome else {
        let left: Vec<String> = fixed.planned.plan.left.iter().map(|left| left.refusal.to_string()).collect();
        assert!(!left.is_empty() && name == "meta.json of version 3", "{name}: {left:?}");
        return Ok((format!("none: {}", left.join("; ")), served(server, &data)?));
    };
    let left: Vec<_> = repaired.after.of_severity(Severity::Damage).collect();
    assert!(left.is_empty(), "{name}: {left:?}");
    let steps = fixed.planned.plan.steps.iter().flat_map(|step| &step.repairs);
    let mut how: Vec<String> = steps.map(|repaired| repaired.resolution.to_string()).collect();
    how.dedup();
    let after = served(server, &data)?;
    let compacted = scratch.path().join("compacted");
    copy_directory(&data, &compacted)?;
    let answer: Value = oracle.json(&["compact"], &compacted);
    assert!(answer["error"].is_null(), "{name}: {answer}");
    walfix::repair::undo(repaired.backup.as_ref().unwrap()).unwrap();
    assert!(tree_of(&data) == before, "{name}: undo");
    Ok((how.join("; "), after))
}

/// The faults of blocks, what Prometheus says and does, and what a repair does: `docs/blocks.md`. After each repair every server
/// serves all that was not damaged.
#[test(long)]
fn repaired_blocks_are_served() -> Result<(), Error> {
    const WHAT: &str = "repaired blocks";
    let oracle = oracle::judge(WHAT);
    let States { healthy, ulid, damaged, .. } = &states(oracle);
    let block = of_block(&scanned(healthy), ulid);
    let (from, to) = (block.min_time.unwrap(), block.max_time.unwrap());
    let resolutions = Mutex::new(BTreeMap::new());
    Servers::each(WHAT, |server| {
        let all = served(server, healthy)?;
        let of_others = all.iter().filter(|(_, t, _)| !(from..to).contains(t)).count();
        assert!(of_others > 0 && of_others < all.len(), "{of_others} of {}", all.len());
        for (name, data) in damaged {
            let (how, after) = repaired(oracle, server, (name, data))?;
            let kept = all.intersection(&after).count();
            let case = format!(
                "{}: {name}: {kept} of {}, {of_others} of other blocks: {how}",
                server.version,
                all.len()
            );
            match cost_of(name) {
                Cost::Nothing => assert_eq!(kept, all.len(), "{case}"),
                Cost::Some => assert!(kept < all.len() && kept > of_others, "{case}"),
                Cost::Block => assert_eq!(kept, of_others, "{case}"),
            }
            resolutions.lock().unwrap().insert(*name, how);
        }
        Ok::<(), Error>(())
    })?;
    let resolutions = resolutions.into_inner().unwrap();
    if resolutions.is_empty() {
        return Ok(());
    }
    let mut document = String::from(HEAD);
    for (name, data) in damaged {
        let report = scanned(data);
        let error = report
            .findings
            .iter()
            .find(|finding| finding.code == Code::BlockUnusable)
            .map_or_else(String::new, |_| format!("`{}`", error_of(&report)));
        let of_this = of_block(&report, ulid);
        let does: Vec<String> = of_this
            .consequences
            .iter()
            .map(|one| format!("`{}`", serde_json::to_value(one).unwrap().as_str().unwrap()))
            .collect();
        let cost = match cost_of(name) {
            Cost::Nothing => "nothing",
            Cost::Some => "what is damaged",
            Cost::Block => "the block",
        };
        let how = resolutions[name].replace(ulid.as_str(), "ULID");
        let _ = writeln!(document, "| {name} | {error} | {} | {how} | {cost} |", does.join(", "));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/blocks.md");
    if std::env::var_os("WALFIX_WRITE_BLOCKS").is_some() {
        fs::write(&path, &document).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == document, "docs/blocks.md is another; WALFIX_WRITE_BLOCKS=1 writes it");
    Ok(())
}

const HEAD: &str = "\
# Damaged blocks

The method: one of three blocks is damaged, and the servers 2.42.0, 2.53.3 and 3.5.3 are started on a copy. They do what the table
says, with the error that it has. The compactor of 3.16.0 compacts another copy. Then `walfix repair` repairs it: each server starts,
and serves every sample but those that the last column names; the compactor compacts the blocks; undo restores every byte. The test that
compares also writes this page:

    WALFIX_WRITE_BLOCKS=1 cargo test --release --test forecast blocks::

| consequence | |
|---|---|
| `refuses_to_start` | Prometheus does not start: `opening storage failed: ... corrupted block` and the error |
| `crashes` | Prometheus crashes at each start |
| `invisible` | Prometheus starts without the block |
| `deleted` | the next start deletes the block, since one that it loads was made from it |
| `queries_fail` | queries that need what is damaged fail |
| `compaction_fails` | a compaction of the block fails, and is not tried again |
| `compaction_stops` | no block is compacted any more |
| `dumps_drop` | `promtool tsdb dump` leaves out samples, and exits with 0 |

| damage | error | consequences | repair | lost |
|---|---|---|---|---|
";
