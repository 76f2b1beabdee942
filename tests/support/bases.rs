//! Healthy data directories to be damaged: their files, the records in them, and which samples those stand for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::oracle::Oracle;
use super::server::{copy_directory, label_text};

/// A directory's files by their paths, separated by slashes. `None`: an empty directory.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A sample: number of its label set, and time in ms.
pub type Sample = (u32, i64);

/// What records stand for.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Refs whose series are there.
    pub series: Vec<u64>,
    /// Samples and their refs, staleness markers aside.
    pub samples: Vec<(u64, Sample)>,
    /// Label sets, and times from and to which their samples are deleted.
    pub deleted: Vec<(u32, i64, i64)>,
}

impl Standing {
    /// The samples of series that are known: nobody can say of others what they are of.
    pub fn known<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> HashSet<Sample> {
        let series: HashSet<u64> = all.clone().flat_map(|standing| standing.series.iter().copied()).collect();
        let samples = all.flat_map(|standing| &standing.samples);
        samples.filter(|(reference, _)| series.contains(reference)).map(|&(_, sample)| sample).collect()
    }

    /// Takes in what other records stand for.
    pub fn add(&mut self, other: &Self) {
        self.series.extend(&other.series);
        self.samples.extend(&other.samples);
        self.deleted.extend(&other.deleted);
    }

    /// Whether the records delete a sample.
    pub fn deletes<'a>(all: impl IntoIterator<Item = &'a Self>) -> impl Fn(&Sample) -> bool {
        let mut deleted: HashMap<u32, Vec<(i64, i64)>> = HashMap::new();
        for &(series, min, max) in all.into_iter().flat_map(|standing| &standing.deleted) {
            deleted.entry(series).or_default().push((min, max));
        }
        move |(series, time)| {
            let of_series = deleted.get(series).into_iter().flatten();
            of_series.into_iter().any(|&(min, max)| min <= *time && *time <= max)
        }
    }
}

/// Bit pattern of a staleness marker, as the oracle writes it.
const STALE: &str = "7ff0000000000002";

/// A record of a log.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where its fragments stand.
    pub fragments: Vec<Range<usize>>,
    /// Prometheus's name of its type.
    pub kind: String,
    /// What is in it.
    pub stands_for: Standing,
}

impl Record {
    /// Where it begins.
    pub fn offset(&self) -> usize {
        self.fragments[0].start
    }

    /// Where it ends.
    pub fn end(&self) -> usize {
        self.fragments[self.fragments.len() - 1].end
    }

    /// Its data as it is stored, and the flags of its fragments.
    pub fn stored(&self, bytes: &[u8]) -> (Vec<u8>, u8) {
        let data = self.fragments.iter().flat_map(|f| bytes[f.start + 7..f.end].iter().copied()).collect();
        (data, bytes[self.offset()] & 0x18)
    }
}

/// A segment and what is in it.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    pub bytes: Vec<u8>,
    pub records: Vec<Record>,
}

/// Which label set a ref stands for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    texts: HashMap<String, u32>,
    refs: HashMap<u64, u32>,
}

impl Names {
    /// The number of a label set.
    pub fn of(&mut self, text: String) -> u32 {
        let next = u32::try_from(self.texts.len()).unwrap();
        *self.texts.entry(text).or_insert(next)
    }

    /// The number of a label set that has one.
    pub fn known(&self, text: &str) -> Option<u32> {
        self.texts.get(text).copied()
    }

    /// The label set of a ref.
    pub fn by_ref(&self, reference: u64) -> Option<u32> {
        self.refs.get(&reference).copied()
    }

    /// What a line of the oracle's dump stands for, as far as its refs are known.
    pub fn standing(&self, line: &Value) -> Standing {
        let mut standing = Standing::default();
        for entry in line["entries"].as_array().into_iter().flatten() {
            let Some(reference) = entry["ref"].as_str().and_then(|text| text.parse().ok()) else { continue };
            if line["type"] == "series" {
                standing.series.push(reference);
            }
            // Samples and histograms alone have start timestamps, and exemplars a time too.
            let is_sample = entry.get("st").is_some() && entry["v"] != STALE && entry["sum"] != STALE;
            if let (true, Some(series), Some(time)) = (is_sample, self.by_ref(reference), entry["t"].as_str())
            {
                standing.samples.push((reference, (series, time.parse().unwrap())));
            }
            let interval = [&entry["mint"], &entry["maxt"]].map(|time| time.as_str()?.parse().ok());
            if let ([Some(min), Some(max)], Some(series)) = (interval, self.by_ref(reference)) {
                standing.deleted.push((series, min, max));
            }
        }
        standing
    }

    fn learn(&mut self, line: &Value) {
        if line["type"] != "series" {
            return;
        }
        for entry in line["entries"].as_array().into_iter().flatten() {
            let number = self.of(labels(&entry["labels"]));
            self.refs.insert(entry["ref"].as_str().unwrap().parse().unwrap(), number);
        }
    }
}

/// A label set as the servers' answers are read.
pub fn labels(pairs: &Value) -> String {
    let pairs = pairs.as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned).unwrap_or_default();
    label_text(&pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
}

/// A healthy data directory.
#[derive(Clone, Debug)]
pub struct Base {
    pub name: String,
    /// Whether it is an agent's.
    pub agent: bool,
    pub tree: Tree,
    /// The segments of the logs that are read at a start, by path.
    pub segments: BTreeMap<String, Segment>,
    pub names: Names,
    /// What the newest Prometheus serves of it.
    pub served: HashSet<Sample>,
    /// Of that, what it serves from blocks.
    pub blocks: HashSet<Sample>,
    /// What it would serve besides, but for tombstones in the logs.
    pub deleted: HashSet<Sample>,
}

impl Base {
    /// Has the oracle make one; the arguments are those of `oracle directory`.
    pub fn make(oracle: Oracle, name: &str, agent: bool, arguments: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        oracle.json(&[&["directory"], arguments].concat(), &data);
        Self::read(oracle, name, agent, &data)
    }

    /// Reads a healthy directory.
    pub fn read(oracle: Oracle, name: &str, agent: bool, data: &Path) -> Self {
        let mut base = Self {
            name: name.to_owned(),
            agent,
            tree: read_tree(data),
            segments: BTreeMap::new(),
            names: Names::default(),
            served: HashSet::new(),
            blocks: HashSet::new(),
            deleted: HashSet::new(),
        };
        let logs = base.logs();
        let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for log in &logs {
            oracle.dump(&[], &data.join(log), |line| {
                assert!(line.get("at").is_none(), "{name}: {log} is damaged: {line}");
                base.names.learn(&line);
                let index = line["segment"].as_u64().unwrap();
                lines.entry(format!("{log}/{index:08}")).or_default().push(line);
            });
        }
        for log in &logs {
            for (path, bytes) in &base.tree {
                let Some(name) = path.strip_prefix(&format!("{log}/")) else { continue };
                if name.parse::<u32>().is_err() {
                    continue;
                }
                let bytes = bytes.clone().unwrap_or_default();
                let lines = lines.remove(path).unwrap_or_default();
                let records: Vec<_> = super::pristine::records(&bytes)
                    .into_iter()
                    .zip(&lines)
                    .map(|(written, line)| {
                        assert_eq!(Some(written.end() as u64), line["end"].as_u64(), "{path}");
                        Record {
                            fragments: written.fragments,
                            kind: line["type"].as_str().unwrap().to_owned(),
                            stands_for: base.names.standing(line),
                        }
                    })
                    .collect();
                assert_eq!(records.len(), lines.len(), "{path}");
                base.segments.insert(path.clone(), Segment { bytes, records });
            }
        }
        let standing: Vec<_> = base.segments.values().map(Segment::standing).collect();
        if agent {
            base.served = Standing::known(standing.iter());
        } else {
            let deletes = Standing::deletes(&standing);
            base.deleted = Standing::known(standing.iter()).into_iter().filter(deletes).collect();
            base.served = base.open(oracle, data, &|_| true);
            base.blocks = base.open(oracle, data, &|path| is_block(path));
        }
        assert!(base.served.len() > 1000, "{name}: {} samples", base.served.len());
        base
    }

    /// What the newest Prometheus serves of some of a directory's files.
    fn open(&self, oracle: Oracle, data: &Path, which: &dyn Fn(&str) -> bool) -> HashSet<Sample> {
        let scratch = tempfile::tempdir().unwrap();
        let copy = scratch.path().join("data");
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(data).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if which(&name) && entry.file_type().unwrap().is_dir() {
                copy_directory(&entry.path(), &copy.join(name)).unwrap();
            }
        }
        let report = oracle.json(&["open"], &copy);
        assert!(report["open_error"].is_null() && report["crash"].is_null(), "{report}");
        served(&report, &self.names)
    }

    /// The directories of the logs that are read at a start, in their order.
    pub fn logs(&self) -> Vec<String> {
        let checkpoint = |path: &String| {
            let number = path.strip_prefix("wal/checkpoint.")?.split('/').next()?.to_owned();
            number.parse::<u32>().is_ok().then(|| format!("wal/checkpoint.{number}"))
        };
        let mut logs: Vec<_> = self.tree.keys().filter_map(checkpoint).max().into_iter().collect();
        for log in ["wal", "wbl"] {
            if self.tree.keys().any(|path| path.strip_prefix(log).is_some_and(|rest| rest.starts_with('/'))) {
                logs.push(log.to_owned());
            }
        }
        logs
    }

    /// The segments of a log that hold anything, in order.
    pub fn segments_of(&self, log: &str) -> Vec<&String> {
        let mine = |path: &&String| path.rsplit_once('/').is_some_and(|(directory, _)| directory == log);
        self.segments.keys().filter(mine).filter(|path| !self.segments[*path].records.is_empty()).collect()
    }

    /// The checkpoint's directory.
    pub fn checkpoint(&self) -> Option<String> {
        self.logs().into_iter().find(|log| log.contains("checkpoint"))
    }
}

impl Segment {
    /// What its records stand for.
    pub fn standing(&self) -> Standing {
        let mut all = Standing::default();
        self.records.iter().for_each(|record| all.add(&record.stands_for));
        all
    }
}

/// Whether it is the name of a block.
pub fn is_block(name: &str) -> bool {
    name.len() == 26 && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// What a report of `oracle open` says is served, staleness markers aside.
pub fn served(report: &Value, names: &Names) -> HashSet<Sample> {
    let mut all = HashSet::new();
    for series in report["series"].as_array().into_iter().flatten() {
        let Some(number) = names.known(&labels(&series["labels"])) else { continue };
        for sample in series["samples"].as_array().into_iter().flatten() {
            if sample[1] != STALE {
                all.insert((number, sample[0].as_i64().unwrap()));
            }
        }
        for sample in series["histograms"].as_array().into_iter().flatten() {
            if !sample[1].as_str().is_some_and(|text| text.contains("sum:NaN")) {
                all.insert((number, sample[0].as_i64().unwrap()));
            }
        }
    }
    all
}

/// Reads a directory, without what a server leaves there that is no data.
pub fn read_tree(data: &Path) -> Tree {
    fn walk(root: &Path, directory: &Path, tree: &mut Tree) {
        let mut empty = true;
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            empty = false;
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                walk(root, &path, tree);
            } else {
                tree.insert(relative(root, &path), Some(std::fs::read(&path).unwrap()));
            }
        }
        if empty && directory != root {
            tree.insert(relative(root, directory), None);
        }
    }
    fn relative(root: &Path, path: &Path) -> String {
        path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
    }
    let mut tree = Tree::new();
    walk(data, data, &mut tree);
    tree.remove("lock");
    tree.remove("queries.active");
    tree
}

/// Writes a directory.
pub fn write_tree(tree: &Tree, data: &Path) {
    std::fs::create_dir_all(data).unwrap();
    for (path, bytes) in tree {
        let path = data.join(path);
        match bytes {
            Some(bytes) => {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            None => std::fs::create_dir_all(path).unwrap(),
        }
    }
}
