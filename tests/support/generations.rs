//! Directories with a damaged checkpoint on which Prometheus was started, and what must and what must not be served of
//! them afterwards.
//!
//! What must be served is reckoned from the healthy directory, from the bytes that were on the disk before the repair and
//! from what the runs since have taken in; nothing of it comes from walfix.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::bases::{Base, Names, Sample, Standing, is_block, labels, read_tree, write_tree};
use super::exporter::Exporter;
use super::fresh::Recipe;
use super::oracle::Oracle;
use super::recipes::{At, Damaged, ROWS, patched};
use super::server::{Error, Running, Server, Started};
use super::tree;

const PAGE: usize = 32768;

/// How far out of order samples may be, ms.
const WINDOW: i64 = 1_800_000;

/// Late samples come so many ms after a full second, and no others.
const LATE: i64 = 501;

/// A sample's value: what it is, and bits. Of histograms those of count and sum.
pub type Bits = (u8, u64, u64);

/// A staleness marker (`model/value/value.go`).
pub const STALE: Bits = (0, 0x7ff0_0000_0000_0002, 0);

/// Samples and their values.
pub type Samples = HashMap<Sample, Bits>;

/// A label set, as pairs.
pub type Pairs = Vec<(String, String)>;

/// A healthy directory, and all that was ever written into it.
#[derive(Debug)]
pub struct Healthy {
    pub base: Base,
    /// Of each ref the label set.
    pub refs: BTreeMap<u64, Pairs>,
    /// Every sample in the logs, in head chunks and in blocks.
    pub written: HashMap<Sample, HashSet<Bits>>,
    /// The newest of them.
    pub newest: i64,
    /// Its head chunks: refs, and from when to when.
    pub chunks: HashSet<(u64, i64, i64)>,
}

impl Healthy {
    pub fn new(base: Base, oracle: Oracle) -> Self {
        let scratch = super::scratch();
        let data = scratch.path().join("data");
        write_tree(&base.tree, &data);
        let (mut base, mut refs) = (base, BTreeMap::new());
        let mut entries: Vec<(u64, i64, Bits)> = Vec::new();
        for log in base.logs() {
            oracle.dump(&[], &data.join(&log), |line| {
                for entry in line["entries"].as_array().into_iter().flatten() {
                    let Some(reference) = entry["ref"].as_str().and_then(|text| text.parse().ok()) else {
                        continue;
                    };
                    if line["type"] == "series" {
                        refs.insert(reference, pairs(&entry["labels"]));
                    } else if let (Some(_), Some(bits)) = (entry.get("st"), logged(entry)) {
                        entries.push((reference, entry["t"].as_str().unwrap().parse().unwrap(), bits));
                    }
                }
            });
        }
        let mut written: HashMap<Sample, HashSet<Bits>> = HashMap::new();
        for (reference, time, bits) in entries {
            if let Some(number) = base.names.by_ref(reference) {
                written.entry((number, time)).or_default().insert(bits);
            }
        }
        let chunks = head_chunks(&data, oracle).iter().map(|c| (c.reference, c.mint, c.maxt)).collect();
        let report = oracle.json(&["open"], &data);
        for (sample, bits) in served(&report["series"], &mut base.names) {
            written.entry(sample).or_default().insert(bits);
        }
        let newest = written.keys().map(|&(_, time)| time).max().unwrap();
        Self { base, refs, written, newest, chunks }
    }
}

fn pairs(labels: &Value) -> Pairs {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    labels.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

/// The value of an entry of a record.
fn logged(entry: &Value) -> Option<Bits> {
    let bits = |value: &Value| u64::from_str_radix(value.as_str()?, 16).ok();
    if let Some(float) = entry.get("v") {
        return Some((0, bits(float)?, 0));
    }
    let count = entry["count"].as_str()?;
    // Of float histograms it is a float, and that has 16 digits.
    let is_float = entry["pos"][0].as_str().is_some_and(|text| text.len() == 16 && !text.starts_with('-'))
        || count.len() == 16;
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let count = if is_float { bits(&entry["count"])? } else { (count.parse::<u64>().ok()? as f64).to_bits() };
    let value = (1, count, bits(&entry["sum"])?);
    Some(if value.2 == STALE.1 { STALE } else { value })
}

/// What is served, by the oracle's word.
pub fn served(series: &Value, names: &mut Names) -> Samples {
    let mut all = Samples::new();
    for one in series.as_array().into_iter().flatten() {
        let number = names.of(labels(&one["labels"]));
        for sample in one["samples"].as_array().into_iter().flatten() {
            let bits = u64::from_str_radix(sample[1].as_str().unwrap(), 16).unwrap();
            all.insert((number, sample[0].as_i64().unwrap()), (0, bits, 0));
        }
        for sample in one["histograms"].as_array().into_iter().flatten() {
            all.insert((number, sample[0].as_i64().unwrap()), histogram(sample[1].as_str().unwrap()));
        }
    }
    all
}

/// What is served, by a real server's word; it says nothing of staleness markers.
///
/// # Errors
///
/// If the server does not answer.
pub fn queried(running: &Running, names: &mut Names) -> Result<Samples, Error> {
    // Some day after all of the data.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let mut all = Samples::new();
    for (text, samples) in running.samples("{__name__=~\".+\"}", Some(now + 86400.0))? {
        let number = names.of(text);
        for (time, value) in samples {
            let bits = if let Ok(float) = value.parse::<f64>() {
                (0, float.to_bits(), 0)
            } else {
                let histogram: Value = serde_json::from_str(&value).unwrap();
                let number = |key: &str| histogram[key].as_str().unwrap().parse::<f64>().unwrap().to_bits();
                (1, number("count"), number("sum"))
            };
            all.insert((number, time), bits);
        }
    }
    Ok(all)
}

/// The value of a histogram as Prometheus writes it: `{count:12, sum:30, ...`.
fn histogram(text: &str) -> Bits {
    let number = |key: &str| {
        let from = text.find(key).unwrap_or_else(|| panic!("{key} in {text}")) + key.len();
        let end = text[from..].find([',', '}', ' ']).map_or(text.len(), |at| from + at);
        text[from..end].parse::<f64>().unwrap_or_else(|e| panic!("{key} in {text}: {e}")).to_bits()
    };
    let value = (1, number("count:"), number("sum:"));
    // Written as the float, or as a histogram without anything.
    if f64::from_bits(value.2).is_nan() { STALE } else { value }
}

/// A chunk of `chunks_head`.
#[derive(Clone, Debug)]
pub struct HeadChunk {
    pub reference: u64,
    pub mint: i64,
    pub maxt: i64,
    pub is_late: bool,
    pub times: Vec<i64>,
}

/// Those that Prometheus can read.
pub fn head_chunks(data: &Path, oracle: Oracle) -> Vec<HeadChunk> {
    let directory = data.join("chunks_head");
    if !directory.is_dir() {
        return Vec::new();
    }
    let report = oracle.json(&["chunks", "--decode"], &directory);
    let number = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
    report["chunks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|chunk| HeadChunk {
            reference: chunk["ref"].as_str().unwrap().parse().unwrap(),
            mint: number(&chunk["min_time"]),
            maxt: number(&chunk["max_time"]),
            is_late: chunk["out_of_order"].as_bool().unwrap(),
            times: chunk["times"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect(),
        })
        .collect()
}

/// Damages the checkpoint of `base` somewhere. In words what was done, and what it made of the directory.
pub fn anywhere(base: &Base, rng: &mut Rng) -> (String, Damaged) {
    let files = base.segments_of(&base.checkpoint().expect("a checkpoint"));
    let file = files[rng.usize(..files.len())].as_str();
    damage(base, file, rng)
}

/// Damages a segment somewhere.
pub fn damage(base: &Base, file: &str, rng: &mut Rng) -> (String, Damaged) {
    if rng.usize(..4) == 0 {
        let rows: Vec<_> = ROWS.iter().filter(|row| row.at == At::Segment && row.number() > 0).collect();
        let row = rows[rng.usize(..rows.len())];
        if let Some(damaged) = row.apply(base, file) {
            return (format!("{} in {file}", row.name), damaged);
        }
    }
    let length = base.segments[file].bytes.len();
    let at = rng.usize(..length);
    let kind = rng.usize(..7);
    let size = [1, 1 + rng.usize(..8), 1 + rng.usize(..64), 512 + rng.usize(..4096), 512, PAGE, 0][kind];
    let at = match kind {
        4 => at / 512 * 512,
        5 => at / PAGE * PAGE,
        _ => at,
    };
    let end = (at + size).min(length);
    let words =
        ["a flipped bit", "bytes", "bytes", "many bytes", "a zeroed sector", "a zeroed page", "a cut"];
    let damaged = patched(base, file, |bytes| match kind {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1..=3 => rng.fill(&mut bytes[at..end]),
        4 | 5 => bytes[at..end].fill(0),
        _ => bytes.truncate(at),
    });
    (format!("{} in {file} at {at}..{end}", words[kind]), damaged)
}

/// What the times of files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// When the newest sample came that is in them, as in any directory that was not copied.
    OfSamples,
    /// As `OfSamples`, and real servers have written them.
    OfServer,
    /// When the test wrote them, in the right order.
    OfTest,
    /// Nothing: all the same, as after a copy.
    Lost,
}

impl Times {
    pub fn any(rng: &mut Rng) -> Self {
        [Self::OfSamples, Self::OfSamples, Self::OfTest, Self::Lost][rng.usize(..4)]
    }
}

/// Sets the time of a file or directory, ms since 1970.
fn set_time(path: &Path, time: i64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(time.unsigned_abs());
    File::open(path).unwrap().set_modified(time).unwrap();
}

/// What a run takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is only started.
    Nothing,
    /// Samples of series that it has read, and no others.
    Known,
    /// Samples of these, of series that it has not read and makes anew, and of others that never were.
    All,
}

/// One time that Prometheus has run since the damage.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it has taken in.
    pub samples: Samples,
    /// Other values at these times: the first that came is served, or the last, if it came late.
    pub also: HashSet<(Sample, Bits)>,
    /// Label sets and their refs, of what it has taken in.
    pub refs: BTreeMap<u32, u64>,
    /// Whether samples of before its start were the first that it took in.
    pub is_backdated: bool,
    /// What it was, for messages.
    pub words: String,
}

/// A damaged directory and what became of it.
#[derive(Debug)]
pub struct Story<'a> {
    pub healthy: &'a Healthy,
    pub damaged: Damaged,
    pub names: Names,
    root: TempDir,
    oracle: Oracle,
    /// Refs that the records define that Prometheus reads before it comes upon the damage.
    pub prefix: BTreeSet<u64>,
    /// The highest of them.
    pub highest: u64,
    /// Whether there is damage that Prometheus comes upon.
    pub is_refused: bool,
    /// What the times of files say.
    pub times: Times,
    /// Successful runs since, the last one last. `None`: a start that failed.
    pub runs: Vec<Option<Run>>,
    /// Whether the runs have the feature memory-snapshot-on-shutdown.
    pub snapshots: bool,
    clock: i64,
    fresh: usize,
    /// Label sets of series that runs have made.
    grown: Vec<Pairs>,
}

impl<'a> Story<'a> {
    pub fn begin(healthy: &'a Healthy, damaged: Damaged, times: Times, oracle: Oracle) -> Self {
        let root = super::scratch();
        let data = root.path().join("data");
        write_tree(&damaged.tree, &data);
        if matches!(times, Times::OfSamples | Times::OfServer) {
            for path in damaged.tree.keys() {
                set_time(&data.join(path), healthy.newest);
            }
        }
        let (mut prefix, mut is_refused) = (BTreeSet::new(), false);
        if let Some(checkpoint) = healthy.base.checkpoint().filter(|path| data.join(path).is_dir()) {
            oracle.dump(&["--joined"], &data.join(checkpoint), |line| {
                is_refused |= line.get("error").is_some();
                for entry in line["entries"].as_array().into_iter().flatten() {
                    if line["type"] == "series" {
                        prefix.insert(entry["ref"].as_str().unwrap().parse().unwrap());
                    }
                }
            });
        }
        Self {
            healthy,
            damaged,
            names: healthy.base.names.clone(),
            root,
            oracle,
            highest: prefix.last().copied().unwrap_or(0),
            prefix,
            is_refused,
            times,
            runs: Vec::new(),
            snapshots: false,
            clock: healthy.newest,
            fresh: 0,
            grown: Vec::new(),
        }
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Keeps it for a look at it, if `WALFIX_KEEP` names a directory for that.
    pub fn keep(&self, name: &str) {
        if let Some(directory) = std::env::var_os("WALFIX_KEEP") {
            tree::copy(self.root.path(), &Path::new(&directory).join(name));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Label sets of the healthy directory, some at most: those that a run has read, or has not.
    fn some(&self, read: bool, most: usize, rng: &mut Rng) -> Vec<Pairs> {
        let fits = |reference: &u64| self.prefix.contains(reference) == read;
        let mut all: Vec<_> = self.healthy.refs.iter().filter(|(reference, _)| fits(reference)).collect();
        rng.shuffle(&mut all);
        all.truncate(most);
        all.into_iter().map(|(_, pairs)| pairs.clone()).collect()
    }

    /// Starts a server, which fails if it does, else takes in samples.
    pub fn run(&mut self, takes: Takes, tries: usize, rng: &mut Rng) {
        let has_window = self.healthy.base.tree.keys().any(|path| path.starts_with("wbl/")) || rng.bool();
        let (rounds, late) = ([1, 3, 130][rng.usize(..3)], [0, 5, 40][rng.usize(..3)]);
        let (snapshots, maps) = (self.snapshots, rng.usize(..3) == 0);
        let kill = !snapshots && rng.bool();
        let compacts = rng.usize(..10) == 0;
        let most = if rounds > 100 { 12 } else { 40 };
        let mut words = format!("{takes:?}, {rounds} rounds");
        let mut known = self.some(true, most, rng);
        let (mut again, mut fresh) = (Vec::new(), Vec::new());
        match takes {
            Takes::Nothing => known.clear(),
            Takes::Known => {}
            Takes::All => {
                again = self.some(false, most, rng);
                fresh = self.fresh("fresh", most);
                // What was there before is there still.
                again.extend(self.grown.iter().filter(|_| rng.bool()).take(most).cloned());
            }
        }
        if self.snapshots && takes == Takes::Known {
            // It has read them in the snapshot of the run before, if that has left one.
            known.extend(self.grown.iter().filter(|_| rng.bool()).take(most).cloned());
        }
        // Each once.
        let mut seen = HashSet::new();
        known.retain(|pairs| seen.insert(pairs.clone()));
        again.retain(|pairs| seen.insert(pairs.clone()));
        let mut steps = Vec::new();
        let all: Vec<&Pairs> = known.iter().chain(&again).chain(&fresh).collect();
        self.clock += 60_000;
        let begin = self.clock;
        let mut commit = Vec::new();
        // Series that never were, with samples of the time of the old ones.
        let backdated =
            if takes == Takes::All && rng.usize(..3) == 0 { self.fresh("backdated", 8) } else { Vec::new() };
        let is_backdated = !backdated.is_empty();
        let span = if compacts { 0 } else { 600_000 };
        for round in 0..if span > 0 { rounds } else { 0 } {
            let time = self.healthy.newest - span + round * 1000 + 3;
            steps.push(
                json!({ "append": backdated.iter().map(|l| sample(l, time, rng)).collect::<Vec<_>>() }),
            );
        }
        for round in 0..rounds {
            self.clock += if compacts && round == 1 { 4 * 3_600_000 } else { 1000 };
            commit.extend(all.iter().map(|labels| sample(labels, self.clock, rng)));
            steps.push(json!({ "append": std::mem::take(&mut commit) }));
        }
        if has_window && takes != Takes::Nothing {
            // Between the others, and each at a time of its own.
            for k in 0..late {
                let time = (self.clock - 1_000_000 + k * 10_000) / 1000 * 1000 + LATE;
                for labels in &all {
                    if rng.bool() {
                        commit.push(sample(labels, time, rng));
                    }
                }
            }
            rng.shuffle(&mut commit);
            steps.push(json!({ "append": commit }));
        }
        steps.push(json!({ "mmap": maps, "compact": compacts && takes != Takes::Nothing }));
        let segment_bytes = [0, 32768, 65536][rng.usize(..3)];
        for (is, name) in
            [(snapshots, "snapshot"), (kill, "killed"), (maps, "chunks mapped"), (compacts, "compacted")]
        {
            if is {
                words = format!("{words}, {name}");
            }
        }
        if has_window {
            words = format!("{words}, {late} late");
        }
        let told = json!({
            "tries": tries, "window": if has_window { WINDOW } else { 0 }, "segment_bytes": segment_bytes,
            "snapshots": snapshots, "steps": steps, "kill": kill,
        });
        let before = tree::tree(&self.data());
        let report = self.oracle.told(&["grow"], &self.data(), &told);
        if self.times == Times::OfSamples {
            for (path, entry) in tree::tree(&self.data()) {
                if before.get(&path).is_none_or(|before| before.modified != entry.modified) {
                    // The segment that a start makes anew is never written again.
                    let is_zeros = entry
                        .bytes
                        .is_some_and(|bytes| !bytes.is_empty() && bytes.iter().all(|&byte| byte == 0));
                    let is_first = is_zeros && path.starts_with("wal/");
                    set_time(&self.data().join(path), if is_first { begin } else { self.clock });
                }
            }
        }
        if report["grown"] != true {
            self.runs.push(None);
            return;
        }
        let live = served(&report["series"], &mut self.names);
        let (samples, refs) = accepted(&told, &report, &mut self.names);
        let samples: Samples = samples.into_iter().filter(|(sample, _)| live.contains_key(sample)).collect();
        self.runs.push(Some(Run { samples, also: HashSet::new(), refs, is_backdated, words }));
        let mut grown: BTreeSet<Pairs> = std::mem::take(&mut self.grown).into_iter().collect();
        grown.extend(again.into_iter().chain(fresh).chain(backdated));
        self.grown = grown.into_iter().collect();
    }

    /// A run of a real server that scrapes an exporter.
    ///
    /// # Errors
    ///
    /// If the server does anything but refuse or run.
    pub fn run_server(
        &mut self,
        (server, recipe, exporter): (&Server, &Recipe, &Exporter),
        scrapes: u64,
        kill: bool,
    ) -> Result<(), Error> {
        let before = read_tree(&self.data());
        let mut running = match server.start(&self.data(), &recipe.options(server, exporter))? {
            Started::Ready(running) => running,
            Started::Exited(_) => {
                self.runs.push(None);
                return Ok(());
            }
            hangs @ Started::Hangs(_) => return hangs.ready().map(drop),
        };
        recipe.scrape(&mut running, exporter, scrapes)?;
        if kill {
            running.kill()?
        } else {
            running.stop()?
        };
        // What it has taken in is in its logs: no checkpoint can be made any more.
        let (mut refs, mut series) = (BTreeMap::new(), HashMap::new());
        let (mut samples, mut also) = (Samples::new(), HashSet::new());
        let (data, oracle) = (self.data(), self.oracle);
        for log in ["wal", "wbl"] {
            oracle.dump(&[], &data.join(log), |line| {
                let path = format!("{log}/{:08}", line["segment"].as_u64().unwrap_or_default());
                let end = usize::try_from(line["end"].as_u64().unwrap_or_default()).unwrap();
                if log == "wbl"
                    && before.get(&path).is_some_and(|old| old.as_ref().is_some_and(|old| old.len() >= end))
                {
                    return;
                }
                for entry in line["entries"].as_array().into_iter().flatten() {
                    let Some(reference) = entry["ref"].as_str().and_then(|text| text.parse::<u64>().ok())
                    else {
                        continue;
                    };
                    if line["type"] == "series" {
                        series.insert(reference, self.names.of(labels(&entry["labels"])));
                    }
                    let known = || self.healthy.base.names.by_ref(reference);
                    let number = series.get(&reference).copied().or_else(known).expect("a series of the run");
                    if let (Some(_), Some(bits)) = (entry.get("st"), logged(entry)) {
                        let sample = (number, entry["t"].as_str().unwrap().parse().unwrap());
                        also.extend(samples.insert(sample, bits).map(|before| (sample, before)));
                        refs.insert(number, reference);
                    }
                }
            });
        }
        self.clock = samples.keys().map(|&(_, time)| time).max().unwrap_or(self.clock).max(self.clock);
        let words = format!("{scrapes} scrapes by {}{}", server.version, if kill { ", killed" } else { "" });
        self.runs.push(Some(Run { samples, also, refs, is_backdated: false, words }));
        Ok(())
    }

    fn fresh(&mut self, name: &str, count: usize) -> Vec<Pairs> {
        (0..count)
            .map(|_| {
                self.fresh += 1;
                vec![("__name__".to_owned(), name.to_owned()), ("n".to_owned(), self.fresh.to_string())]
            })
            .collect()
    }

    /// As after a copy that does not keep times.
    pub fn copied(&mut self) {
        if self.times == Times::Lost {
            for path in tree::tree(&self.data()).keys() {
                set_time(&self.data().join(path), self.clock);
            }
        }
    }

    pub fn words(&self) -> String {
        let runs = self.runs.iter().map(|run| run.as_ref().map_or("failed", |run| &run.words));
        format!(
            "highest ref {}, times {:?}, runs: [{}]",
            self.highest,
            self.times,
            runs.collect::<Vec<_>>().join("; ")
        )
    }

    /// Everything that was ever written under its labels.
    pub fn was_written(&self, sample: &Sample, bits: &Bits) -> bool {
        let is = |run: &Run| run.samples.get(sample) == Some(bits) || run.also.contains(&(*sample, *bits));
        self.healthy.written.get(sample).is_some_and(|all| all.contains(bits))
            || self.runs.iter().flatten().any(is)
    }

    /// Where a sample may come from that is served under other labels, in words.
    pub fn origin(&self, sample: &Sample, bits: &Bits) -> String {
        let mut words = String::new();
        for (&(series, time), all) in &self.healthy.written {
            if time == sample.1 && all.contains(bits) {
                let mine = |r: &&u64| self.healthy.base.names.by_ref(**r) == Some(series);
                let reference = self.healthy.refs.keys().find(mine);
                let _ = write!(
                    words,
                    "; the old generation has written it as series {series}, ref {reference:?}"
                );
            }
        }
        for (number, run) in
            self.runs.iter().enumerate().filter_map(|(number, run)| Some((number, run.as_ref()?)))
        {
            for (&(series, time), other) in &run.samples {
                if time == sample.1 && other == bits {
                    let _ = write!(
                        words,
                        "; run {number} has written it as series {series}, ref {}",
                        run.refs[&series]
                    );
                }
            }
            if let Some(reference) = run.refs.get(&sample.0) {
                let _ = write!(words, "; to run {number} its labels are those of ref {reference}");
            }
        }
        words
    }

    /// Whether it is a staleness marker, of which servers say nothing.
    pub fn is_stale(&self, sample: &Sample) -> bool {
        self.was_written(sample, &STALE)
    }

    /// What must be served of the directory as it is now.
    pub fn must(&self) -> Must {
        let (base, data) = (&self.healthy.base, self.data());
        let tree = read_tree(&data);
        let has_run = self.runs.iter().any(Option::is_some);
        let last = self.runs.last().and_then(Option::as_ref);
        let own = last.is_some_and(|run| run.refs.values().any(|&reference| reference > self.highest));
        let is_kept = |reference: u64| reference <= self.highest || !own;
        let chunks = head_chunks(&data, self.oracle);
        // Of the old logs what the damage has left, where it still stands.
        let (mut old, mut which) = (Vec::new(), Vec::new());
        for (path, standing) in &self.damaged.standing {
            let (Some(Some(now)), Some(Some(then))) = (tree.get(path), self.damaged.tree.get(path)) else {
                continue;
            };
            if !now.starts_with(then) {
                continue;
            }
            let is_late = path.starts_with("wbl/");
            let mut standing = standing.clone();
            standing.samples.retain(|&(reference, _)| {
                is_kept(reference) && !(is_late && has_run && reference > self.highest)
            });
            old.push(standing);
            which.push(is_late);
        }
        let mut all: HashMap<Sample, &'static str> = HashMap::new();
        let (mut in_order, mut late) = (Vec::new(), Vec::new());
        for (standing, is_late) in old.iter().zip(&which) {
            // Series are in the WAL.
            let series = Standing { series: standing.series.clone(), ..Standing::default() };
            in_order.push(if *is_late { series.clone() } else { standing.clone() });
            late.push(if *is_late { standing.clone() } else { series });
        }
        for (standing, what) in [(late, "the old WBL"), (in_order, "the checkpoint or the old WAL")] {
            all.extend(Standing::known(standing.iter()).into_iter().map(|sample| (sample, what)));
        }
        let known: HashSet<u64> = old.iter().flat_map(|standing| standing.series.iter().copied()).collect();
        let newest =
            old.iter().flat_map(|s| &s.samples).map(|&(_, (_, time))| time).max().unwrap_or(i64::MIN);
        for chunk in &chunks {
            let is_old = self.healthy.chunks.contains(&(chunk.reference, chunk.mint, chunk.maxt));
            let stays = if has_run && chunk.reference > self.highest {
                !own && is_old && chunk.maxt <= newest
            } else {
                true
            };
            let Some(number) =
                base.names.by_ref(chunk.reference).filter(|_| known.contains(&chunk.reference))
            else {
                continue;
            };
            if stays {
                all.extend(chunk.times.iter().map(|&time| ((number, time), "a head chunk")));
            }
        }
        // A corrected record may delete, too.
        old.extend(
            self.damaged
                .mended
                .iter()
                .map(|(_, mended)| Standing { deleted: mended.deleted.clone(), ..Standing::default() }),
        );
        let deletes = Standing::deletes(&old);
        let min_valid = min_valid_time(&data);
        all.retain(|sample, _| sample.1 >= min_valid && !deletes(sample));
        drop(deletes);
        all.extend(self.blocks(&data).into_iter().map(|sample| (sample, "a block")));
        if let Some(run) = last {
            let what = |sample: &Sample| match (sample.1 % 1000 == LATE, run.refs[&sample.0] <= self.highest)
            {
                (false, true) => "the last run, of series that it had read",
                (false, false) => "the last run, of series of its own",
                (true, true) => "the last run, late, of series that it had read",
                (true, false) => "the last run, late, of series of its own",
            };
            // By nothing but the times of files can be told which segments of the WBL it has written.
            let counts = |sample: &&Sample| {
                matches!(self.times, Times::OfSamples | Times::OfServer)
                    || sample.1 % 1000 != LATE
                    || run.refs[&sample.0] <= self.highest
            };
            all.extend(run.samples.keys().filter(counts).map(|&sample| (sample, what(&sample))));
        }
        Must { all, old }
    }

    /// What is served from blocks alone.
    fn blocks(&self, data: &Path) -> HashSet<Sample> {
        let scratch = super::scratch();
        let copy = scratch.path().join("data");
        fs::create_dir(&copy).unwrap();
        let mut some = false;
        for entry in fs::read_dir(data).unwrap().map(Result::unwrap) {
            if is_block(entry.file_name().to_str().unwrap()) {
                tree::copy(&entry.path(), &copy.join(entry.file_name()));
                some = true;
            }
        }
        if !some {
            return HashSet::new();
        }
        let report = self.oracle.json(&["open"], &copy);
        served(&report["series"], &mut self.names.clone()).into_keys().collect()
    }

    /// What stands in the way of samples in Prometheus's replay, whatever a repair keeps.
    pub fn obstacles(&self) -> Obstacles {
        let data = self.data();
        let (mut redefined, mut cleared) = (HashSet::new(), HashSet::new());
        if self.runs.iter().any(Option::is_some) {
            self.oracle.dump(&[], &data.join("wal"), |line| {
                for entry in
                    line["entries"].as_array().into_iter().flatten().filter(|_| line["type"] == "series")
                {
                    redefined.extend(self.names.known(&labels(&entry["labels"])));
                }
            });
        }
        if data.join("wbl").is_dir() {
            self.oracle.dump(&[], &data.join("wbl"), |line| {
                let path = format!("wbl/{:08}", line["segment"].as_u64().unwrap_or_default());
                let is_old = self
                    .damaged
                    .tree
                    .get(&path)
                    .is_some_and(|old| old.as_ref().is_some_and(|old| !old.is_empty()));
                for entry in line["entries"].as_array().into_iter().flatten() {
                    if line["type"] == "mmapmarkers" && !is_old {
                        cleared.extend(
                            self.healthy.base.names.by_ref(entry["ref"].as_str().unwrap().parse().unwrap()),
                        );
                    }
                }
            });
        }
        Obstacles { chunks: head_chunks(&data, self.oracle), redefined, cleared }
    }

    /// Which of these a sample meets that stands in `what`.
    pub fn obstacle(&self, sample: &Sample, what: &str, obstacles: &Obstacles) -> Option<&'static str> {
        let is_old = what.contains("old") || what.contains("head chunk");
        let mine = |reference: u64| self.healthy.base.names.by_ref(reference) == Some(sample.0);
        if is_old && obstacles.redefined.contains(&sample.0) {
            return Some(
                "the last run has a series record of the same labels, at which Prometheus drops what was replayed before",
            );
        }
        if what.contains("WBL") && obstacles.cleared.contains(&sample.0) {
            return Some(
                "a marker of a later run, at which Prometheus drops late samples that were replayed before",
            );
        }
        let last = self.runs.last().and_then(Option::as_ref);
        if what.contains("late, of series of its own") && last.is_some_and(|run| run.is_backdated) {
            return Some("it began with samples older than its files, whose times are not believed");
        }
        if self.snapshots && what.contains("of its own") && !obstacles.redefined.contains(&sample.0) {
            return Some("its series record is in a chunk snapshot alone");
        }
        if self.snapshots && is_old && !(1..=self.highest).any(mine) {
            return Some(
                "series records of the last run are in a chunk snapshot alone: up to which ref is not known",
            );
        }
        let newer = |chunk: &HeadChunk| !chunk.is_late && mine(chunk.reference) && chunk.maxt >= sample.1;
        (is_old && obstacles.chunks.iter().any(newer))
            .then_some("a head chunk of its series is newer, before which nothing is replayed")
    }
}

/// What stands in the way of samples in Prometheus's replay.
#[derive(Debug)]
pub struct Obstacles {
    chunks: Vec<HeadChunk>,
    /// Label sets of series records in the WAL of the last run.
    redefined: HashSet<u32>,
    /// Label sets of markers in segments of the WBL that came since the damage.
    cleared: HashSet<u32>,
}

/// What must be served, and why.
#[derive(Debug)]
pub struct Must {
    pub all: HashMap<Sample, &'static str>,
    /// What stands in the old logs, tombstones too.
    pub old: Vec<Standing>,
}

/// A sample to be taken in.
fn sample(labels: &Pairs, time: i64, rng: &mut Rng) -> Value {
    let name = labels.iter().find(|(name, _)| name == "__name__").map_or("", |(_, value)| value);
    if name.starts_with("rpc_duration") {
        return json!({ "labels": labels, "t": time, "histogram": rng.i64(1..1000) });
    }
    json!({ "labels": labels, "t": time, "v": f64::from(rng.u32(..)) })
}

/// What was taken in of what was told, and under which refs.
pub fn accepted(told: &Value, report: &Value, names: &mut Names) -> (Samples, BTreeMap<u32, u64>) {
    let (mut samples, mut refs) = (Samples::new(), BTreeMap::new());
    let told = told["steps"].as_array().into_iter().flatten();
    let told = told.flat_map(|step| step["append"].as_array().into_iter().flatten());
    for (told, answer) in told.zip(report["accepted"].as_array().unwrap()) {
        if !answer[1].is_null() {
            continue;
        }
        let number = names.of(labels(&told["labels"]));
        refs.insert(number, answer[0].as_str().unwrap().parse().unwrap());
        let bits = match told["histogram"].as_i64() {
            // As the oracle makes them.
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            Some(n) => (1, ((n * 4) as f64).to_bits(), (n as f64 * 2.5).to_bits()),
            None => (0, told["v"].as_f64().unwrap().to_bits(), 0),
        };
        samples.insert((number, told["t"].as_i64().unwrap()), bits);
    }
    (samples, refs)
}

/// Before this time nothing is replayed (`tsdb/db.go`, `open`).
pub fn min_valid_time(data: &Path) -> i64 {
    let mut newest = i64::MIN;
    for entry in fs::read_dir(data).unwrap().map(Result::unwrap) {
        let meta = entry.path().join("meta.json");
        let Ok(bytes) = fs::read(meta) else { continue };
        let meta: Value = serde_json::from_slice(&bytes).unwrap();
        if meta["compaction"]["hints"].as_array().is_none_or(Vec::is_empty) {
            newest = newest.max(meta["maxTime"].as_i64().unwrap());
        }
    }
    newest
}

/// Whether a sample is the fence's: one staleness marker of a series of this name.
pub fn is_fence(names: &mut Names, sample: &Sample, bits: &Bits) -> bool {
    let fence = names.of(labels(&json!([["__name__", "walfix_fence"]])));
    sample.0 == fence && *bits == STALE
}

/// `walfix` with some arguments: exit code, and the answer.
pub fn walfix(arguments: &[&str], path: &Path) -> (i32, Value) {
    let output =
        Command::new(super::walfix()).args(arguments).arg(path).stdin(Stdio::null()).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().unwrap_or(-1), answer)
}

/// What a start complains of, by the oracle's word: errors, warnings but that of unknown series, and files that went.
pub fn complaints(report: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for key in ["open_error", "query_error", "close_error", "checkpoint_error", "crash"] {
        all.extend(report[key].as_str().map(|words| format!("{key}: {words}")));
    }
    all.extend(logged_complaints(&report["log"]));
    for (path, size) in report["files_before"].as_object().into_iter().flatten() {
        let after = report["files_after"][path].as_i64();
        let is_ours = ["wal/", "wbl/", "chunks_head/"].iter().any(|log| path.starts_with(log));
        if is_ours
            && report["checkpoint"].is_null()
            && after.is_none_or(|after| after < size.as_i64().unwrap())
        {
            all.push(format!("{path}: {size} bytes became {after:?}"));
        }
    }
    all
}

/// The complaints in a log.
pub fn logged_complaints(log: &Value) -> Vec<String> {
    let lines = log.as_array().into_iter().flatten();
    lines
        .filter(|line| matches!(line["level"].as_str(), Some("warn" | "error")))
        .filter(|line| !is_harmless(line["msg"].as_str().unwrap_or_default()))
        .map(|line| {
            format!(
                "{}: {}",
                line["msg"].as_str().unwrap_or_default(),
                line["err"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

/// Whether a message is no complaint: orphans were accepted; a server that was killed leaves its lock file; and who takes in
/// old samples makes blocks that overlap.
pub fn is_harmless(message: &str) -> bool {
    let all = [
        "Unknown series references",
        "A lockfile from a previous execution already existed",
        "Overlapping blocks found during reloadBlocks",
    ];
    all.iter().any(|start| message.starts_with(start))
}
