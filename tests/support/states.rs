//! States of a data directory for the verdict: healthy ones, and what is done to them.
//!
//! What a state has to do with the verdict is in [`State`]: whether what is lost has left a trace, and whether bytes are there that
//! nobody can read any more.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde_json::{Value, json};
use walfix::record::{SampleEntry, encode_samples};
use walfix::tsdb::list_head_chunks;
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

use super::bases::{Base, Sample, Segment, Standing, is_block};
use super::oracle::Oracle;
use super::{damage, scratch};

/// A directory, how it is made, and what is in it besides a checkpoint and a WAL.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    arguments: &'static [&'static str],
    block: bool,
    /// A chunk snapshot, and what a server has taken in since.
    snapshot: bool,
}

const KINDS: [Kind; 6] = [
    Kind { name: "rich", arguments: &["--rich"], block: false, snapshot: false },
    Kind { name: "none", arguments: &[], block: true, snapshot: false },
    Kind { name: "chunks", arguments: &["--chunks", "--rounds", "40"], block: false, snapshot: false },
    Kind { name: "snappy", arguments: &["--compression", "snappy"], block: true, snapshot: false },
    Kind { name: "late", arguments: &["--wbl", "--compression", "zstd"], block: false, snapshot: false },
    Kind {
        name: "snapshot",
        arguments: &["--snapshot", "--rounds", "30", "--segments", "3"],
        block: false,
        snapshot: true,
    },
];

/// A healthy directory.
#[derive(Debug)]
pub struct Healthy {
    pub base: Base,
    kind: &'static Kind,
}

impl Healthy {
    /// All of them.
    pub fn all(oracle: Oracle) -> Vec<Self> {
        KINDS.iter().map(|kind| Self::make(oracle, kind)).collect()
    }

    fn make(oracle: Oracle, kind: &'static Kind) -> Self {
        let made = scratch();
        let data = made.path().join("data");
        oracle.json(&[&["directory"], kind.arguments].concat(), &data);
        if kind.block {
            oracle.json(&["block"], &data);
        }
        if kind.snapshot {
            // Stopped in order, and killed.
            for (part, kill) in [(0, false), (1, true)] {
                let report = oracle.told(&["grow"], &data, &grown(part, kill));
                assert!(report["grown"] == true && report["close_error"].is_null(), "{report}");
            }
        }
        Self { base: Base::read(oracle, kind.name, false, &data), kind }
    }

    pub fn has_snapshot(&self) -> bool {
        self.kind.snapshot
    }

    /// Whether it has samples and series alone, and no histograms or tombstones.
    pub fn is_plain(&self) -> bool {
        self.kind.name != "rich"
    }
}

/// What a server takes in that has chunk snapshots: some series, of each more than fits in a chunk.
fn grown(part: i64, kill: bool) -> Value {
    const FROM: i64 = 1_750_000_000_000;
    let at = |scrape: i64| {
        let series = (0..12).map(move |number| {
            let labels = json!([["__name__", "grown"], ["n", number.to_string()]]);
            json!({ "labels": labels, "t": FROM + scrape * 15_000 + number, "v": scrape % 7 })
        });
        json!({ "append": series.collect::<Vec<_>>() })
    };
    let mut steps: Vec<Value> = (part * 200..(part + 1) * 200).map(at).collect();
    steps.insert(170, json!({ "mmap": true }));
    json!({ "snapshots": true, "kill": kill, "quiet": true, "steps": steps })
}

/// Kinds of states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// As it was, or with what is normal: temporary directories, a torn tail, files of others.
    Harmless,
    /// A block lacks a file, or has one that is empty or begins wrong.
    Block,
    /// Files of head chunks: names, headers, chunks.
    HeadChunks,
    /// A checkpoint or segment is missing, emptied or begins wrong.
    Files,
    /// Bytes of a segment are changed, zeroed, cut off or inserted.
    Damage,
    /// A chunk snapshot that is damaged, or does not fit to WAL or head chunks.
    Snapshots,
    /// Prometheus's user may not read a file, or not write a directory.
    Rights,
    /// A block is from the future.
    FutureBlock,
    /// Samples in the WAL are from the future.
    FutureSamples,
    /// Another state, on which Prometheus was started before.
    StartedBefore,
}

pub const CLASSES: [Class; 12] = [
    Class::Harmless,
    Class::Block,
    Class::HeadChunks,
    Class::Files,
    Class::Damage,
    Class::Snapshots,
    Class::Harmless,
    Class::Rights,
    Class::FutureBlock,
    Class::FutureSamples,
    Class::StartedBefore,
    Class::Damage,
];

/// What can be in [`Class::StartedBefore`].
const BEFORE: [Class; 6] =
    [Class::Harmless, Class::Block, Class::HeadChunks, Class::Files, Class::Damage, Class::Snapshots];

/// The user that owns the directories of [`Class::Rights`].
pub const USER: u32 = 12_345;

/// What was done to a directory, and what can be told of it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// In words.
    pub words: String,
    pub traces: Traces,
}

/// What a change leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traces {
    /// What is lost shows.
    #[default]
    All,
    /// What is lost cannot be told from what never was: a log that ends early.
    None,
    /// What was written is there, and cannot be read any more.
    Destroyed,
    /// There are bytes that are not as they were, and hold nothing.
    Odd,
    /// Only a compaction, or a start after that, goes wrong.
    FailsToCompact,
}

impl State {
    fn of(words: impl Into<String>) -> Self {
        Self { words: words.into(), ..Self::default() }
    }
}

fn pick<'a>(random: &mut Rng, paths: &'a [PathBuf]) -> Option<&'a PathBuf> {
    (!paths.is_empty()).then(|| &paths[random.usize(..paths.len())])
}

/// All files below a directory.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut left = vec![data.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                all.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

/// All directories from `data` on.
fn directories(data: &Path) -> Vec<PathBuf> {
    let mut all = vec![data.to_owned()];
    let mut at = 0;
    while at < all.len() {
        for entry in fs::read_dir(&all[at]).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                all.push(entry.path());
            }
        }
        at += 1;
    }
    all
}

fn below(data: &Path, path: &Path) -> String {
    path.strip_prefix(data).unwrap().to_str().unwrap().to_owned()
}

/// Removes a file, empties it, or changes its first bytes; says what it did.
fn spoil(random: &mut Rng, path: &Path) -> &'static str {
    match random.u32(..3) {
        0 => {
            fs::remove_file(path).unwrap();
            "removed"
        }
        1 => {
            fs::write(path, "").unwrap();
            "emptied"
        }
        _ => {
            let mut bytes = fs::read(path).unwrap();
            bytes.iter_mut().take(4).for_each(|byte| *byte = !*byte);
            fs::write(path, bytes).unwrap();
            "begins wrong"
        }
    }
}

/// Changes some bytes from `from` up to `to`.
fn overwrite(random: &mut Rng, path: &Path, from: usize, to: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = random.usize(from..to);
    let end = to.min(at + random.usize(1..5));
    bytes[at..end].iter_mut().for_each(|byte| *byte ^= random.u8(1..));
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Brings a directory into a state of a class. `None`: this one has nothing for it.
pub fn bring(
    random: &mut Rng,
    class: Class,
    healthy: &Healthy,
    oracle: Oracle,
    data: &Path,
) -> Option<State> {
    let base = &healthy.base;
    let all = files(data);
    let of = |which: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        all.iter().filter(|path| which(&below(data, path))).cloned().collect()
    };
    Some(match class {
        Class::Harmless => harmless(random, data, &of(&|path| path.starts_with("wal/0")))?,
        Class::Block => {
            let path = pick(random, &of(&|path| path.split('/').next().is_some_and(is_block)))?.clone();
            State::of(format!("{} {}", below(data, &path), spoil(random, &path)))
        }
        Class::HeadChunks => head_chunks(random, data, &of(&|path| path.starts_with("chunks_head/")))?,
        Class::Files => match random.u32(..4) {
            0 | 1 => {
                let path = pick(random, &of(&|path| path.starts_with('w') && path.contains("/0")))?.clone();
                let what = spoil(random, &path);
                let path = below(data, &path);
                State { words: format!("{path} {what}"), ..consequences(base, data, &path) }
            }
            2 => {
                for path in of(&|path| path.starts_with("wal/checkpoint")) {
                    fs::remove_file(path).unwrap();
                }
                State::of("the checkpoint is emptied")
            }
            _ => {
                let path = pick(random, &of(&|path| path.starts_with("wal/checkpoint")))?.clone();
                fs::remove_dir_all(path.parent().unwrap()).unwrap();
                State::of("the checkpoint is removed")
            }
        },
        Class::Damage => damaged(random, base, data),
        Class::Snapshots => snapshots(random, healthy, data)?,
        Class::Rights => rights(random, data, &all)?,
        Class::FutureBlock => {
            let meta = of(&|path| path.ends_with("/meta.json")).pop()?;
            let mut json: Value = serde_json::from_slice(&fs::read(&meta).unwrap()).unwrap();
            let (words, until) = [("400 days", 400), ("30 days", 30), ("a day", 1)][random.usize(..3)];
            json["maxTime"] = (now() + until * 86_400_000).into();
            fs::write(&meta, json.to_string()).unwrap();
            State::of(format!("a block that ends {words} from now"))
        }
        Class::FutureSamples => {
            let minutes = [-30, 20, 40, 90, 1440, 600_000][random.usize(..6)];
            let last = of(&|path| path.starts_with("wal/0")).pop()?;
            let number: u32 = last.file_name()?.to_str()?.parse().ok()?;
            let at = now() + minutes * 60_000;
            let defined = base.segments.values().flat_map(|segment| segment.standing().series);
            let series_ref = defined.min()?;
            let entries = [SampleEntry { series_ref, t: at, st: 0, value_bits: 1_f64.to_bits() }];
            let mut record = Vec::new();
            encode_samples(&entries, &mut record);
            let mut writer = SegmentWriter::new(Vec::new());
            writer.record(Compression::None, &record).unwrap();
            fs::write(data.join(format!("wal/{:08}", number + 1)), writer.finish().unwrap()).unwrap();
            State::of(format!("a sample {minutes} minutes from now"))
        }
        Class::StartedBefore => {
            let before = BEFORE[random.usize(..BEFORE.len())];
            let state = bring(random, before, healthy, oracle, data)?;
            let mut arguments = vec!["open", "--summary"];
            if healthy.has_snapshot() && random.bool() {
                arguments.push("--snapshot");
            }
            oracle.json(&arguments, data);
            let words = format!("{} ({before:?}), then {}", state.words, arguments.join(" "));
            State { words, traces: Traces::None }
        }
    })
}

/// ms.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn harmless(random: &mut Rng, data: &Path, segments: &[PathBuf]) -> Option<State> {
    let last = segments.last()?;
    Some(match random.u32(..7) {
        0 => State::of("nothing"),
        1 => {
            fs::create_dir_all(data.join("wal/checkpoint.00000077.tmp")).unwrap();
            State::of("a temporary checkpoint")
        }
        2 => {
            fs::create_dir_all(data.join("01JZZZZZZZZZZZZZZZZZZZZZZZ.tmp-for-creation/chunks")).unwrap();
            State::of("a temporary block")
        }
        3 => {
            fs::write(data.join("notes.txt"), "of an operator").unwrap();
            fs::create_dir_all(data.join("lost+found")).unwrap();
            State::of("files of others")
        }
        4 => {
            // The header of a fragment that was never finished.
            let last = segments.iter().rfind(|path| path.metadata().is_ok_and(|file| file.len() > 0))?;
            let mut bytes = fs::read(last).unwrap();
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            bytes.extend([1, 0x40, 0, 1, 2, 3, 4, 9, 9]);
            fs::write(last, bytes).unwrap();
            State::of("a torn tail")
        }
        5 => {
            let next: u32 = last.file_name()?.to_str()?.parse().ok()?;
            fs::write(data.join(format!("wal/{:08}", next + 1)), "").unwrap();
            State::of("an empty last segment")
        }
        _ => {
            fs::create_dir(data.join("chunk_snapshot.000099.0000000000.tmp")).unwrap();
            State::of("a temporary chunk snapshot")
        }
    })
}

fn rights(random: &mut Rng, data: &Path, all: &[PathBuf]) -> Option<State> {
    let whose = (random.bool(), random.bool());
    let path = pick(random, all)?.clone();
    let path = if random.u32(..3) == 0 { path.parent().unwrap().to_owned() } else { path };
    let mode = [0o600, 0o640, 0o644, 0o700, 0o755, 0o500][random.usize(..6)];
    let dir = path.is_dir();
    for path in all.iter().chain(&directories(data)) {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    let (uid, gid) = (if whose.0 { 0 } else { USER }, if whose.1 { 0 } else { USER });
    chown(&path, Some(uid), Some(gid)).unwrap();
    let mode = if dir { mode | 0o100 } else { mode };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    Some(State::of(format!("{} belongs to {uid}:{gid}, mode {mode:o}", below(data, &path))))
}

/// Names, headers and chunks of the files of head chunks.
fn head_chunks(random: &mut Rng, data: &Path, files: &[PathBuf]) -> Option<State> {
    let path = pick(random, files)?.clone();
    let name = below(data, &path);
    let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
    let listed = list_head_chunks(&data.join("chunks_head"), "").unwrap();
    let ends: Vec<Vec<(usize, usize)>> = listed
        .files
        .iter()
        .map(|file| {
            let chunks = file.chunks().unwrap().map(Result::unwrap);
            let place = |chunk: u64, end: u64| {
                (usize::try_from(chunk & 0xffff_ffff).unwrap(), usize::try_from(end).unwrap())
            };
            chunks.map(|chunk| place(chunk.chunk_ref, chunk.end)).collect()
        })
        .collect();
    let at = listed.files.iter().position(|file| file.path == path)?;
    let chunks = &ends[at];
    let used = chunks.last()?.1;
    // What a crash leaves half-written.
    let is_last_file = at + 1 == listed.files.len();
    Some(match random.u32(..11) {
        0 => State::of(format!("{name} {}", spoil(random, &path))),
        1 => {
            let to = number + random.u32(1..4);
            if data.join(format!("chunks_head/{to:06}")).exists() {
                return None;
            }
            fs::rename(&path, data.join(format!("chunks_head/{to:06}"))).unwrap();
            State::of(format!("{name} is named {to:06}"))
        }
        2 => {
            let to = format!("chunks_head/{number}");
            fs::copy(&path, data.join(&to)).unwrap();
            State { traces: Traces::FailsToCompact, ..State::of(format!("{name} is there again as {to}")) }
        }
        3 => {
            let to = format!("chunks_head/{number:08}");
            fs::rename(&path, data.join(&to)).unwrap();
            State { traces: Traces::FailsToCompact, ..State::of(format!("{name} is named {to}")) }
        }
        4 => {
            let others = ["notes.txt", "000001.bak", "lost+found", ".snapshot", "-1"];
            let other = data.join("chunks_head").join(others[random.usize(..others.len())]);
            if random.bool() {
                fs::create_dir(&other).unwrap();
            } else {
                fs::write(&other, "of an operator").unwrap();
            }
            State::of(format!("{} is there", below(data, &other)))
        }
        5 => {
            let byte = random.usize(..8);
            overwrite(random, &path, byte, byte + 1);
            State::of(format!("header byte {byte} of {name} changed"))
        }
        6 => {
            let which = random.usize(..chunks.len());
            let (_, end) = chunks[which];
            overwrite(random, &path, end - 4, end);
            let is_last = is_last_file && which + 1 == chunks.len();
            let words = format!("checksum of chunk {which} of {} in {name} changed", chunks.len());
            State { traces: if is_last { Traces::Odd } else { Traces::Destroyed }, ..State::of(words) }
        }
        7 | 8 => {
            let which = random.usize(..chunks.len());
            let (from, end) = chunks[which];
            overwrite(random, &path, from, end - 4);
            let is_last = is_last_file && which + 1 == chunks.len();
            let words = format!("bytes of chunk {which} of {} in {name} changed", chunks.len());
            State { traces: if is_last { Traces::Odd } else { Traces::Destroyed }, ..State::of(words) }
        }
        9 => {
            let length = random.usize(8..used);
            cut(&path, length as u64);
            let is_whole = length == 8 || chunks.iter().any(|&(_, end)| end == length);
            let words = format!("{name} cut to {length} of {used}");
            let traces = match (is_last_file, is_whole) {
                (true, _) => Traces::Odd,
                (false, false) => Traces::Destroyed,
                (false, true) => Traces::All,
            };
            State { traces, ..State::of(words) }
        }
        _ => {
            let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
            if length <= used {
                return None;
            }
            overwrite(random, &path, used, length);
            State { traces: Traces::Odd, ..State::of(format!("zeros of {name} changed, from {used} on")) }
        }
    })
}

/// Bytes of a segment are changed.
fn damaged(random: &mut Rng, base: &Base, data: &Path) -> State {
    let all: Vec<&String> =
        base.segments.iter().filter(|(_, segment)| !segment.bytes.is_empty()).map(|(path, _)| path).collect();
    let path = all[random.usize(..all.len())];
    let Segment { bytes, records } = &base.segments[path];
    let mut bytes = bytes.clone();
    let headers: Vec<usize> =
        records.iter().flat_map(|record| &record.fragments).map(|fragment| fragment.start).collect();
    let words = if random.u32(..6) == 0 {
        let at = random.usize(..bytes.len());
        let length = [1, 7, 512, 40_000][random.usize(..4)];
        let inserted: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        bytes.splice(at..at, inserted);
        format!("{length} bytes inserted at {at}")
    } else {
        let is_short = bytes.len() < 2 * 32768;
        let possible = |kind: &&str| !(is_short && kind.contains("page") && **kind != *"page zeroed");
        let kinds: Vec<&'static str> = damage::KINDS.into_iter().filter(|kind| possible(kind)).collect();
        let kind = kinds[random.usize(..kinds.len())];
        let within = 0..bytes.len();
        damage::apply(kind, &mut bytes, within, &headers, random).what
    };
    fs::write(data.join(path), bytes).unwrap();
    State { words: format!("{path}: {words}"), ..consequences(base, data, path) }
}

/// What can be told of a file of a log that has been changed.
fn consequences(base: &Base, data: &Path, path: &str) -> State {
    let Some(Segment { bytes: before, records }) = base.segments.get(path) else {
        return State::default();
    };
    let log = path.rsplit_once('/').unwrap().0;
    let is_checkpoint = log.contains("checkpoint");
    let is_last = base.segments_of(log).last().is_none_or(|last| last.as_str() <= path);
    let Ok(now) = fs::read(data.join(path)) else {
        return State { traces: if is_last { Traces::None } else { Traces::All }, ..State::default() };
    };
    if now == *before {
        return State::default();
    }
    let same = now.iter().zip(before).take_while(|(now, before)| now == before).count();
    let is_in_a_record = records.iter().any(|record| record.offset() < same && same < record.end());
    if now.len() <= before.len() && now[same..].iter().all(|&byte| byte == 0) {
        let without_trace = !is_in_a_record || is_last && !is_checkpoint;
        let traces = if without_trace { Traces::None } else { Traces::Destroyed };
        return State { traces, ..State::default() };
    }
    let longer = now.len().saturating_sub(before.len());
    let stands = |fragment: &std::ops::Range<usize>| {
        let is = |place: std::ops::Range<usize>| now.get(place) == before.get(fragment.clone());
        is(fragment.clone()) || is(fragment.start + longer..fragment.end + longer)
    };
    // The upper bits of a fragment's first byte mean nothing, and the checksum does not cover them.
    let stands_but_for_flags = |fragment: &std::ops::Range<usize>| {
        let rest = fragment.start + 1..fragment.end;
        let first = now.get(fragment.start).zip(before.get(fragment.start));
        first.is_some_and(|(now, before)| (now ^ before).trailing_zeros() >= 5)
            && now.get(rest.clone()) == before.get(rest)
    };
    let fragments = || records.iter().flat_map(|record| &record.fragments);
    let destroyed = fragments().any(|fragment| !stands(fragment) && !stands_but_for_flags(fragment));
    State { traces: if destroyed { Traces::Destroyed } else { Traces::Odd }, ..State::default() }
}

/// Chunk snapshots.
fn snapshots(random: &mut Rng, healthy: &Healthy, data: &Path) -> Option<State> {
    if !healthy.has_snapshot() {
        return None;
    }
    let names = |directory: &Path| -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    };
    let is_snapshot = |path: &&PathBuf| below(data, path).starts_with("chunk_snapshot.");
    let top = names(data);
    let taken = top.iter().find(is_snapshot)?.clone();
    let heads = names(&data.join("chunks_head"));
    let segments: Vec<PathBuf> = names(&data.join("wal")).into_iter().filter(|path| path.is_file()).collect();
    let number: u32 = below(data, &taken).split('.').nth(1)?.parse().ok()?;
    let file = taken.join("00000000");
    let length = file.metadata().unwrap().len();
    Some(match random.u32(..12) {
        0 => State::of("the snapshot as it is"),
        1 => {
            let used = fs::read(&file).unwrap().iter().rposition(|&byte| byte != 0)? + 1;
            overwrite(random, &file, 0, used);
            State { traces: Traces::Odd, ..State::of("the snapshot overwritten") }
        }
        2 => {
            let to = random.u64(..length);
            cut(&file, to);
            State { traces: Traces::Odd, ..State::of(format!("the snapshot cut to {to} of {length}")) }
        }
        3 => {
            fs::remove_dir_all(&taken).unwrap();
            State::of("the snapshot removed")
        }
        4 => {
            fs::remove_file(&file).unwrap();
            State { traces: Traces::Odd, ..State::of("the snapshot emptied") }
        }
        5 | 6 => {
            let to = if random.bool() {
                number.saturating_sub(random.u32(1..5))
            } else {
                number + random.u32(1..5)
            };
            fs::rename(&taken, data.join(format!("chunk_snapshot.{to:06}.0000000000"))).unwrap();
            State { traces: Traces::Odd, ..State::of(format!("the snapshot has number {to}, not {number}")) }
        }
        7 => {
            for head in &heads {
                fs::remove_file(head).unwrap();
            }
            State::of("all head chunks removed under a snapshot")
        }
        8 | 9 => {
            let state = head_chunks(random, data, &heads)?;
            State { words: format!("{}, under a snapshot", state.words), ..state }
        }
        10 => {
            let keep = random.usize(1..segments.len());
            segments[keep..].iter().for_each(|path| fs::remove_file(path).unwrap());
            State {
                traces: Traces::None,
                ..State::of(format!("segments removed but for {keep} under a snapshot"))
            }
        }
        _ => damaged(random, &healthy.base, data),
    })
}

/// What can be had of what a directory was made from: samples in records and chunks that stand where they stood, of series whose
/// records stand.
pub fn could_be_had(healthy: &Healthy, oracle: Oracle, data: &Path) -> HashSet<Sample> {
    let base = &healthy.base;
    let mut standing = Vec::new();
    for (path, segment) in &base.segments {
        let now = fs::read(data.join(path)).unwrap_or_default();
        let mut of_segment = Standing::default();
        for record in &segment.records {
            let stands =
                |range: &std::ops::Range<usize>| now.get(range.clone()) == segment.bytes.get(range.clone());
            if record.fragments.iter().all(stands) {
                of_segment.add(&record.stands_for);
            }
        }
        standing.push(of_segment);
    }
    let mut could = Standing::known(standing.iter());
    let deletes = Standing::deletes(standing.iter());
    could.retain(|sample| !deletes(sample));
    // Without its meta.json a block is still there.
    let of_block = |path: &&String| {
        path.split('/').next().is_some_and(is_block)
            && (path.contains("/chunks/") || path.ends_with("/index"))
    };
    let has_blocks = base.tree.keys().filter(of_block);
    if has_blocks.into_iter().all(|path| fs::read(data.join(path)).ok().as_ref() == base.tree[path].as_ref())
    {
        could.extend(&base.blocks);
    }
    // By series: the times from and to which there are chunks.
    let mut series: HashSet<u64> =
        standing.iter().flat_map(|standing| standing.series.iter().copied()).collect();
    let mut chunks: Vec<(u64, i64, i64)> = Vec::new();
    let entries = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    // Not a temporary one.
    let is_snapshot = |path: &PathBuf| {
        let name = below(data, path);
        name.starts_with("chunk_snapshot.") && name.split('.').count() == 3
    };
    for snapshot in entries.filter(is_snapshot) {
        oracle.dump(&["--snapshot"], &snapshot, |line| {
            for entry in line["entries"].as_array().into_iter().flatten().filter(|_| line["type"] == "series")
            {
                let series_ref = number(&entry["ref"]);
                series.extend(series_ref);
                let times = [&entry["chunk"]["mint"], &entry["chunk"]["maxt"]].map(number::<i64>);
                if let (Some(series_ref), [Some(from), Some(to)]) = (series_ref, times) {
                    chunks.push((series_ref, from, to));
                }
            }
        });
    }
    if let Ok(listed) = list_head_chunks(&data.join("chunks_head"), "") {
        for file in listed.files.iter().filter(|file| file.header_error().is_none()) {
            let whole = file.chunks().into_iter().flatten().flatten();
            chunks.extend(whole.map(|chunk| (chunk.series_ref, chunk.min_time, chunk.max_time)));
        }
    }
    let mut times: HashMap<u32, Vec<(i64, i64)>> = HashMap::new();
    for (series_ref, from, to) in chunks.into_iter().filter(|(series_ref, ..)| series.contains(series_ref)) {
        if let Some(name) = base.names.by_ref(series_ref) {
            times.entry(name).or_default().push((from, to));
        }
    }
    could.extend(base.served.iter().copied().filter(|(name, time)| {
        let of_series = times.get(name).into_iter().flatten();
        of_series.into_iter().any(|&(from, to)| (from..=to).contains(time))
    }));
    could
}

fn number<T: std::str::FromStr>(text: &Value) -> Option<T> {
    text.as_str()?.parse().ok()
}
