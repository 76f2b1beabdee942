//! What a real Prometheus does with a damaged directory, start by start: the truth that a forecast is held against.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bases::{Base, Sample, Standing, Tree, is_block, read_tree, served, write_tree};
use super::oracle::Oracle;
use super::recipes::Damaged;
use super::server::{Level, Log, Options, Running, Server, Started, copy_directory};

/// Who starts on a directory.
#[derive(Clone, Debug)]
pub enum Judge {
    /// A real server.
    Server(Server),
    /// Prometheus's own packages.
    Packages(Oracle),
}

impl Judge {
    /// Its version, as `--prometheus` takes it.
    pub fn version(&self) -> String {
        match self {
            Self::Server(server) => server.version.to_string(),
            Self::Packages(_) => "3.16.0".to_owned(),
        }
    }
}

/// How a server that is up is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Stopped,
}

/// An amount of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub series: u64,
    pub samples: u64,
    pub min_time: Option<i64>,
    pub max_time: Option<i64>,
}

impl Amount {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let (mut amount, mut series) = (Self::default(), HashSet::new());
        for &(label_set, time) in samples {
            series.insert(label_set);
            amount.samples += 1;
            amount.min_time = Some(amount.min_time.map_or(time, |min| min.min(time)));
            amount.max_time = amount.max_time.max(Some(time));
        }
        amount.series = series.len() as u64;
        amount
    }
}

/// A segment that a start wrote anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub path: String,
    /// The end of the last record that was kept, in the file as it was.
    pub kept: u64,
    /// The end of the first one that was not, if there was one that Prometheus's reader would have come to.
    pub next: Option<u64>,
}

/// One start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// `up`, `exits`, `hangs` or `crashes`.
    pub outcome: String,
    pub error: Option<String>,
    pub fatal: Option<String>,
    /// Whether it says that it repairs.
    pub repairs: bool,
    pub deletes: Vec<String>,
    pub truncates: Vec<Cut>,
    /// Samples of the healthy directory that it serves.
    pub served: u64,
    /// Samples that it serves, but neither the healthy directory does, nor would one without the tombstones that are lost.
    pub strange: u64,
    /// What a checkpoint right after this start fails with, if it is up and it does.
    pub checkpoint: Option<String>,
    pub log: Vec<String>,
}

impl Start {
    /// What there is to find fault with in a start on a directory that was repaired.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.outcome != "up" {
            all.push(format!("it is not up: {}", self.outcome));
        }
        all.extend(self.error.iter().chain(&self.fatal).chain(&self.checkpoint).cloned());
        if self.repairs || !self.deletes.is_empty() || !self.truncates.is_empty() {
            all.push(format!("it repairs: deletes {:?}, cuts {:?}", self.deletes, self.truncates));
        }
        if self.strange > 0 {
            all.push(format!("it serves {} samples that were never there", self.strange));
        }
        all
    }
}

/// Amounts before start `i`, of which `j` is on start `i + j`.
pub type Amounts = Vec<Vec<Amount>>;

/// All that was measured of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    pub case: String,
    pub version: String,
    pub agent: bool,
    pub end: End,
    pub starts: Vec<Start>,
    /// What could be had in readable records of the logs and in head chunks before start `i`, and start `i + j` did not
    /// serve.
    pub not_replayed: Amounts,
    /// As `not_replayed`: what of it was on no disk after that start.
    pub gone: Amounts,
    /// Both, where flipped bits were found and corrected; if one flipped bit is all of the damage, or a start has lost the
    /// flags of records.
    #[serde(default)]
    pub mended: Option<(Amounts, Amounts)>,
}

/// Starts a judge so many times on a damaged directory. What it was before each start, and after the last, is left in
/// `states/0`, `states/1` and so on; files of the healthy directory `pristine` are not stored again.
pub fn measure(
    base: &Base,
    damaged: &Damaged,
    (judge, oracle): (&Judge, Oracle),
    (case, end, count): (&str, End, usize),
    (states, pristine): (&Path, &Path),
) -> Truth {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    write_tree(&damaged.tree, &data);
    let mut starts = Vec::new();
    let mut serves: Vec<HashSet<Sample>> = Vec::new();
    // In readable records of the logs and in head chunks, without and with a corrected one; there, or in blocks.
    let mut could: [Vec<HashSet<Sample>>; 2] = [Vec::new(), Vec::new()];
    let mut disk: Vec<HashSet<Sample>> = Vec::new();
    // In records that can be had only if their flag is set again: no start reads them.
    let mut passed_over: Vec<HashSet<Sample>> = Vec::new();
    let mut tree = damaged.tree.clone();
    let mut look = |tree: &Tree| {
        let chunks = head_chunks(base, tree, oracle);
        let mut all: HashSet<Sample> = chunks.samples.iter().map(|&(_, sample)| sample).collect();
        for (mended, could) in [None, damaged.mended.as_ref()].into_iter().zip(&mut could) {
            let logs = standing(base, damaged, mended, tree, oracle);
            all.extend(Standing::known(logs.iter()));
            could.push(can_be_had(base, logs, &chunks));
        }
        let mut flagged = tree.clone();
        for (path, bytes) in flagged.iter_mut().filter(|(path, _)| path.starts_with("wal/")) {
            if damaged.tree.get(path) != Some(bytes) {
                *bytes = bytes.as_deref().map(with_flags);
            }
        }
        let mended = could[1].last_mut().unwrap();
        if flagged == *tree {
            passed_over.push(HashSet::new());
        } else {
            let logs = standing(base, damaged, damaged.mended.as_ref(), &flagged, oracle);
            let logs = can_be_had(base, logs, &chunks);
            passed_over.push(logs.difference(mended).copied().collect());
            mended.extend(logs);
        }
        all.extend(base.blocks.iter().copied());
        disk.push(all);
    };
    look(&tree);
    for number in 0..count {
        let before = number.checked_sub(1).map_or(pristine.to_owned(), |n| states.join(n.to_string()));
        keep(&data, &states.join(number.to_string()), &before);
        let held = hold(&data);
        let mut start = Start {
            outcome: "exits".to_owned(),
            error: None,
            fatal: None,
            repairs: false,
            deletes: Vec::new(),
            truncates: Vec::new(),
            served: 0,
            strange: 0,
            checkpoint: None,
            log: Vec::new(),
        };
        let queried = match judge {
            Judge::Server(prometheus) => start_server(prometheus, &data, base, end, &mut start),
            Judge::Packages(packages) => open(*packages, &data, base, &mut start),
        };
        start.checkpoint = (!base.agent && start.outcome == "up")
            .then(|| checkpoint(oracle, &states.join(number.to_string())))
            .flatten();
        start.served = queried.intersection(&base.served).count() as u64;
        let after = read_tree(&data);
        compare(&tree, &after, &data, &held, oracle, &mut start);
        drop(held);
        tree = after;
        look(&tree);
        serves.push(queried);
        starts.push(start);
    }
    for ((start, queried), could) in starts.iter_mut().zip(&serves).zip(&could[0]) {
        // What lost tombstones had deleted comes back.
        let strange = queried.difference(&base.served).filter(|sample| !could.contains(sample));
        start.strange = strange.count() as u64;
    }
    keep(&data, &states.join(count.to_string()), &states.join((count - 1).to_string()));
    let amounts = |could: &[HashSet<Sample>], lacks: &dyn Fn(usize, usize, &Sample) -> bool| -> Amounts {
        let one = |i: usize, j: usize| Amount::of(could[i].iter().filter(|sample| lacks(i, j, sample)));
        (0..count).map(|i| (i..count).map(|j| one(i, j)).collect()).collect()
    };
    let both = |could: &[HashSet<Sample>]| {
        let not_replayed = amounts(could, &|_, j, sample| !serves[j].contains(sample));
        let stays = |i: usize, j: usize, sample: &Sample| {
            passed_over[i].contains(sample) && passed_over[j].contains(sample)
        };
        let gone = amounts(could, &|i, j, sample| !disk[j + 1].contains(sample) && !stays(i, j + 1, sample));
        (not_replayed, gone)
    };
    let (not_replayed, gone) = both(&could[0]);
    Truth {
        case: case.to_owned(),
        version: judge.version(),
        agent: base.agent,
        end,
        not_replayed,
        gone,
        mended: (damaged.mended.is_some() || could[0] != could[1]).then(|| both(&could[1])),
        starts,
    }
}

/// Starts a server, takes in what it says and serves, and ends it.
fn start_server(server: &Server, data: &Path, base: &Base, end: End, start: &mut Start) -> HashSet<Sample> {
    let mut options = Options { agent: base.agent, ..Options::default() };
    if base.agent {
        // The only starts that hang.
        options.deadline = Duration::from_secs(20);
    } else {
        // A checkpoint of old data is no reason to delete blocks.
        options.flags.push("--storage.tsdb.retention.time=100y".to_owned());
    }
    if base.tree.keys().any(|path| path.starts_with("wbl/")) {
        options.config = format!("storage:\n  tsdb:\n    out_of_order_time_window: 30m\n{}", options.config);
    }
    let mut queried = HashSet::new();
    let started = server.start(data, &options).unwrap();
    let (log, outcome) = match started {
        Started::Ready(running) => {
            if !base.agent {
                queried = query(&running, base);
            }
            let ended = match end {
                End::Killed => running.kill(),
                End::Stopped => running.stop(),
            };
            (ended.unwrap().log, "up")
        }
        Started::Hangs(running) => (running.kill().unwrap().log, "hangs"),
        Started::Exited(exited) => {
            let crashed = exited.log.lines.iter().any(|line| is_crash(&line.raw));
            (exited.log, if crashed { "crashes" } else { "exits" })
        }
    };
    outcome.clone_into(&mut start.outcome);
    take_log(&log, base.agent, data, start);
    queried
}

fn is_crash(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ")
}

fn take_log(log: &Log, agent: bool, data: &Path, start: &mut Start) {
    let relative = |text: &str| text.replace(&format!("{}/", data.display()), "");
    if let Some(crash) = log.lines.iter().find(|line| is_crash(&line.raw)) {
        start.error = Some(crash.raw.clone());
    }
    for line in log.at_least(Level::Warn) {
        let fatal = line.err().filter(|err| err.contains("opening storage failed"));
        if fatal.is_none() && !agent && line.field("component") != Some("tsdb") {
            continue;
        }
        start.repairs |= line.msg() == "Starting corruption repair";
        start.log.push(relative(&format!("{} {}", line.msg(), line.err().unwrap_or_default())));
        if start.error.is_none() {
            start.error = line.err().map(relative);
        }
        if let Some(fatal) = fatal {
            start.fatal = Some(relative(fatal));
        }
    }
}

fn query(running: &Running, base: &Base) -> HashSet<Sample> {
    // Some day after all of the data, whatever the clock says.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let mut all = HashSet::new();
    for (text, samples) in running.samples("{__name__=~\".+\"}", Some(now + 86400.0)).unwrap() {
        let number = base.names.known(&text).unwrap_or(u32::MAX);
        all.extend(samples.into_iter().map(|(time, _)| (number, time)));
    }
    all
}

/// Opens a directory as a server does, and closes it.
fn open(oracle: Oracle, data: &Path, base: &Base, start: &mut Start) -> HashSet<Sample> {
    let relative = |text: &str| text.replace(&format!("{}/", data.display()), "");
    let report = oracle.json(&["open"], data);
    if let Some(crash) = report["crash"].as_str() {
        (if crash.starts_with("hang") { "hangs" } else { "crashes" }).clone_into(&mut start.outcome);
        start.error = Some(relative(crash));
        return HashSet::new();
    }
    for line in report["log"].as_array().into_iter().flatten() {
        if !matches!(line["level"].as_str(), Some("warn" | "error")) {
            continue;
        }
        let (msg, err) = (line["msg"].as_str().unwrap_or_default(), line["err"].as_str().map(relative));
        start.repairs |= msg == "Starting corruption repair";
        start.log.push(format!("{msg} {}", err.clone().unwrap_or_default()));
        start.error = start.error.take().or(err);
    }
    if let Some(error) = report["open_error"].as_str() {
        // What the server's main makes of it.
        let error = format!("opening storage failed: {}", relative(error));
        start.error.get_or_insert_with(|| error.clone());
        start.fatal = Some(error);
        return HashSet::new();
    }
    "up".clone_into(&mut start.outcome);
    served(&report, &base.names)
}

/// With what a checkpoint fails, on a copy.
fn checkpoint(oracle: Oracle, state: &Path) -> Option<String> {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    copy_directory(state, &data).unwrap();
    let report = oracle.json(&["open", "--summary", "--checkpoint"], &data);
    report["checkpoint_error"].as_str().map(|error| error.replace(&format!("{}/", data.display()), ""))
}

/// The files, held open so that a new file is not taken for an old one.
fn hold(data: &Path) -> BTreeMap<String, (u64, File)> {
    let mut held = BTreeMap::new();
    for path in read_tree(data).into_keys() {
        if let Ok(file) = File::open(data.join(&path)) {
            held.insert(path, (identity(&file), file));
        }
    }
    held
}

fn identity(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().unwrap().ino()
}

/// What a start did to the files. Those that it began, and head chunks, are no matter.
fn compare(
    before: &Tree,
    after: &Tree,
    data: &Path,
    held: &BTreeMap<String, (u64, File)>,
    oracle: Oracle,
    start: &mut Start,
) {
    for (path, old) in before {
        if path.starts_with("chunks_head/") || is_block(path.split('/').next().unwrap_or_default()) {
            continue;
        }
        let new = after.get(path);
        match (old, new) {
            // An empty directory that is gone, or has become a file, or has been filled.
            (None, Some(Some(_))) => {
                start.truncates.push(Cut { path: path.clone(), kept: 0, next: None });
            }
            (None, _) => {
                if !data.join(path).exists() {
                    start.deletes.push(path.clone());
                }
            }
            (Some(_), None | Some(None)) => start.deletes.push(path.clone()),
            (Some(old), Some(Some(new))) => {
                let same_file = File::open(data.join(path)).is_ok_and(|file| identity(&file) == held[path].0);
                if same_file {
                    // Closed properly, a segment is padded.
                    let zeros = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
                    assert!(new.starts_with(old) && zeros(&new[old.len()..]), "{path} was changed in place");
                } else if new.is_empty() {
                    if !old.is_empty() {
                        start.deletes.push(path.clone());
                    }
                } else {
                    let (old, new) = (ends(oracle, old), ends(oracle, new));
                    let kept = new.len().checked_sub(1).map_or(0, |last| old[last]);
                    let next = old.get(new.len()).copied();
                    start.truncates.push(Cut { path: path.clone(), kept, next });
                }
            }
        }
    }
}

/// Where the records of a segment end, as far as Prometheus's reader comes.
fn ends(oracle: Oracle, bytes: &[u8]) -> Vec<u64> {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("00000000"), bytes).unwrap();
    let mut ends = Vec::new();
    oracle.dump(&[], scratch.path(), |line| ends.extend(line["end"].as_u64()));
    ends
}

/// The samples in records of the logs and in head chunks, of series whose records are there, too. Of deleted ones those
/// whose tombstones are not there: nobody can know of these.
fn can_be_had(base: &Base, mut all: Vec<Standing>, chunks: &Standing) -> HashSet<Sample> {
    all.push(chunks.clone());
    let deletes = Standing::deletes(&all);
    let could =
        |sample: &Sample| base.served.contains(sample) || base.deleted.contains(sample) && !deletes(sample);
    Standing::known(all.iter()).into_iter().filter(could).collect()
}

/// The samples that a damage leaves: those in records that stand, in head chunks and in blocks.
pub fn left_by(base: &Base, damaged: &Damaged, oracle: Oracle) -> HashSet<Sample> {
    let logs = damaged.standing.values().cloned().collect();
    let mut all = can_be_had(base, logs, &head_chunks(base, &damaged.tree, oracle));
    all.extend(&base.blocks);
    all
}

/// What the records of the logs that can be read stand for. A file that is still as the damage left it has what that left;
/// others were written by Prometheus, and its own reader says what is in them.
fn standing(
    base: &Base,
    damaged: &Damaged,
    mended: Option<&(String, Standing)>,
    tree: &Tree,
    oracle: Oracle,
) -> Vec<Standing> {
    let mut all = Vec::new();
    for (path, bytes) in tree {
        let Some(bytes) = bytes else { continue };
        let is_log = path.starts_with("wal/") || path.starts_with("wbl/");
        if !is_log || bytes.iter().all(|&byte| byte == 0) {
            continue;
        }
        let pristine = damaged.tree.get(path).and_then(Option::as_ref);
        if pristine.is_some_and(|pristine| same_but_padding(pristine, bytes)) {
            let mended = mended.filter(|(file, _)| file == path).map(|(_, standing)| standing);
            all.extend(mended.or_else(|| damaged.standing.get(path)).cloned());
            continue;
        }
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("00000000"), bytes).unwrap();
        oracle.dump(&[], scratch.path(), |line| all.push(base.names.standing(&line)));
    }
    all
}

/// A segment with the flag of zstd at each record that begins as a frame of that does. Versions before 2.46 do not know the
/// flag, and lose it where they write records again.
fn with_flags(bytes: &[u8]) -> Vec<u8> {
    const PAGE: usize = 32768;
    let mut bytes = bytes.to_vec();
    let (mut at, mut is_frame) = (0, false);
    while at + 7 <= bytes.len() {
        let (kind, length) = (bytes[at], usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]])));
        if kind == 0 || at % PAGE + 7 > PAGE {
            at = at.next_multiple_of(PAGE).max(at + usize::from(at % PAGE == 0) * PAGE);
            continue;
        }
        if matches!(kind, 1 | 2) {
            is_frame = bytes[at + 7..].starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        }
        if is_frame && kind < 8 {
            bytes[at] |= 0x10;
        }
        at += 7 + length;
    }
    bytes
}

fn same_but_padding(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.starts_with(short) && long[short.len()..].iter().all(|&byte| byte == 0)
}

/// The samples in head chunks.
fn head_chunks(base: &Base, tree: &Tree, oracle: Oracle) -> Standing {
    let chunks: Tree = tree
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("chunks_head/")?.to_owned(), bytes.clone())))
        .collect();
    let mut all = Standing::default();
    if chunks.values().flatten().all(|bytes| bytes.iter().skip(8).all(|&byte| byte == 0)) {
        return all;
    }
    let scratch = tempfile::tempdir().unwrap();
    write_tree(&chunks, scratch.path());
    let report = oracle.json(&["chunks", "--decode"], scratch.path());
    for chunk in report["chunks"].as_array().into_iter().flatten() {
        let reference = chunk["ref"].as_str().unwrap().parse().unwrap();
        let Some(number) = base.names.by_ref(reference) else { continue };
        let times = chunk["times"].as_array().into_iter().flatten().filter_map(Value::as_i64);
        all.samples.extend(times.map(|time| (reference, (number, time))));
    }
    all
}

/// Copies a directory; what has not changed since the state before it is not stored twice.
fn keep(data: &Path, to: &Path, before: &Path) {
    let _ = std::fs::remove_dir_all(to);
    write_tree(&Tree::new(), to);
    for (path, bytes) in read_tree(data) {
        let target = to.join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let Some(bytes) = bytes else {
            std::fs::create_dir_all(target).unwrap();
            continue;
        };
        let old = before.join(&path);
        if std::fs::read(&old).is_ok_and(|old| old == bytes) {
            std::fs::hard_link(old, target).unwrap();
        } else {
            std::fs::write(target, bytes).unwrap();
        }
    }
}
