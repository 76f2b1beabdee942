//! Random damages, each from a seed, repaired: nothing is left that any reader minds, no record is lost that was whole, none
//! is invented, and all of it can be undone.
//!
//! `WALFIX_SEEDS=5000 cargo test --release --test repair` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use support::damage::{self, KINDS};
use support::oracle;
use support::pristine::{self, Pristine, Written};
use walfix::forecast::replay::{Part, Reader, Replay, ReplayError, read};
use walfix::forecast::{Version, forecast};
use walfix::repair::plan::{Change, Content, Method, Patch};
use walfix::repair::{self, Lock, Options, Plan};
use walfix::scan::report::{Report, Severity};
use walfix::scan::scan;
use walfix::tsdb::Target;
use walfix::wal::segments::{list_segments, segment_name};

const PAGE: usize = 32768;

/// A record of samples without a sample, of which fillings are made.
const FILLING: &[u8] = &[2];

/// A data directory with one damaged segment.
struct Case<'a> {
    seed: u64,
    what: String,
    log: &'a Pristine,
    damaged: Vec<u8>,
    /// `wal` or `wbl`.
    kind: &'static str,
    /// The segments in order, and which of them is the damaged one.
    segments: Vec<Vec<u8>>,
    at: usize,
    root: PathBuf,
}

impl<'a> Case<'a> {
    /// The damaged segment stands where it stood in its log, with empty ones of later starts before or behind.
    fn new(logs: &'a [Pristine], seed: u64, root: &Path) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let long: Vec<_> = logs.iter().filter(|log| log.bytes.len() > 3 * PAGE).collect();
        let log = long[rng.usize(..long.len())];
        let headers: Vec<usize> =
            log.records.iter().flat_map(|r| r.fragments.iter().map(|f| f.start)).collect();
        let mut damaged = log.bytes.clone();
        let within = 0..damaged.len();
        let damage = damage::apply(KINDS[rng.usize(..KINDS.len())], &mut damaged, within, &headers, &mut rng);
        let directory = log.path.parent().unwrap();
        let of_log: Vec<_> = logs.iter().filter(|other| other.path.parent() == Some(directory)).collect();
        let place = of_log.iter().position(|other| other.path == log.path).unwrap();
        let mut segments: Vec<Vec<u8>> = of_log.iter().map(|other| other.bytes.clone()).collect();
        segments[place].clone_from(&damaged);
        let before = rng.usize(..2);
        segments.splice(..0, vec![Vec::new(); before]);
        segments.extend(vec![Vec::new(); rng.usize(..2)]);
        let name = directory.file_name().unwrap().to_str().unwrap();
        let kind = if name.starts_with("wbl") { "wbl" } else { "wal" };
        let at = place + before;
        let what = format!(
            "seed {seed}: {} as {kind} segment {at} of {} ({}: {})",
            log.path.display(),
            segments.len(),
            damage.kind,
            damage.what
        );
        Self { seed, what, log, damaged, kind, segments, at, root: root.join(seed.to_string()) }
    }

    fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    fn write(&self) {
        for kind in ["wal", self.kind] {
            fs::create_dir_all(self.data().join(kind)).unwrap();
        }
        if self.kind == "wbl" {
            fs::write(self.data().join("wal/00000000"), []).unwrap();
        }
        for (number, bytes) in (0..).zip(&self.segments) {
            fs::write(self.data().join(self.kind).join(segment_name(number)), bytes).unwrap();
        }
        // What the oracle reads as it reads segments for a checkpoint; none is made of a WBL, but its bytes are as good.
        std::os::unix::fs::symlink(self.data().join(self.kind), self.root.join("as_wal")).unwrap();
    }

    fn target(&self) -> Target {
        Target::find(&self.data()).unwrap()
    }

    fn plan(&self) -> (Report, Plan) {
        let target = self.target();
        let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
        let options = Options::default();
        let forecast = forecast(&target, &report, options.assumed).unwrap();
        let plan = repair::plan(&target, &report, forecast.as_ref(), options).unwrap();
        (report, plan)
    }

    /// Within the data directory or beside it.
    fn backup(&self) -> PathBuf {
        let within = self.seed.is_multiple_of(2);
        if within { self.data().join("walfix-backup-test") } else { self.root.join("backup") }
    }

    /// The damaged segment, as a path in the data directory.
    fn segment(&self) -> String {
        format!("{}/{}", self.kind, segment_name(i64::try_from(self.at).unwrap()))
    }

    fn reader(&self) -> Reader {
        if self.kind == "wbl" { Reader::Wbl } else { Reader::Wal }
    }
}

/// What identifies a record that was read: its end, size and CRC-32C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mark {
    end: u64,
    size: u64,
    crc: u64,
}

impl Mark {
    fn of(end: u64, data: &[u8]) -> Self {
        Self { end, size: data.len() as u64, crc: crc32c::crc32c(data).into() }
    }

    fn of_written(written: &Written) -> Self {
        Self::of(written.end() as u64, &written.data)
    }

    fn data(self) -> (u64, u64) {
        (self.size, self.crc)
    }

    fn is_filling(self) -> bool {
        self.data() == Self::of(0, FILLING).data()
    }
}

/// What the oracle has read, by segment.
fn read_by_oracle(answer: &Value) -> BTreeMap<u64, Vec<Mark>> {
    let mut by_segment: BTreeMap<u64, Vec<Mark>> = BTreeMap::new();
    for record in answer["read"].as_array().into_iter().flatten() {
        let [segment, end, size, crc] = [0, 1, 2, 3].map(|at| record[at].as_u64().unwrap());
        by_segment.entry(segment).or_default().push(Mark { end, size, crc });
    }
    by_segment
}

/// Every file and directory: its bytes, mode and time.
type Tree = BTreeMap<PathBuf, (Option<Vec<u8>>, u32, SystemTime)>;

fn tree(root: &Path, but: &Path) -> Tree {
    let mut found = Tree::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let metadata = directory.metadata().unwrap();
        found.insert(directory.clone(), (None, metadata.permissions().mode(), metadata.modified().unwrap()));
        for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path == but {
                continue;
            }
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                directories.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found
                    .insert(path, (Some(bytes), metadata.permissions().mode(), metadata.modified().unwrap()));
            }
        }
    }
    found
}

#[test]
fn healthy_directories_have_nothing_to_repair() {
    let logs = pristine::all();
    let root = support::scratch();
    let mut seen = HashSet::new();
    for seed in 0..200 {
        let mut case = Case::new(&logs, seed, root.path());
        if seen.insert(case.log.path.clone()) {
            case.segments[case.at].clone_from(&case.log.bytes);
            case.write();
            let (report, plan) = case.plan();
            assert_eq!(report.of_severity(Severity::Damage).next(), None, "{}", case.what);
            assert_eq!(plan.steps, [], "{}", case.what);
        }
    }
}

#[test]
fn only_what_is_damaged_is_lost() {
    let Some(oracle) = oracle::judge("repairs of damaged logs") else { return };
    let logs = pristine::all();
    let mut failures = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let seeds: Vec<u64> = support::seeds(300).collect();
    for seeds in seeds.chunks(50) {
        let root = support::scratch();
        let cases: Vec<_> = seeds.iter().map(|&seed| Case::new(&logs, seed, root.path())).collect();
        let mut befores = Vec::new();
        let mut plans = Vec::new();
        for case in &cases {
            case.write();
            let before = tree(&case.data(), &case.backup());
            let lock = Lock::take(&case.data()).unwrap();
            let (_, plan) = case.plan();
            if !plan.steps.is_empty() {
                repair::apply(&case.target(), &plan, &case.backup(), &lock).unwrap();
            }
            for step in &plan.steps {
                *counts.entry(name_of(&step.change)).or_default() += 1;
            }
            befores.push(before);
            plans.push(plan);
        }
        let logs: Vec<_> = cases.iter().map(|case| case.data().join(case.kind)).collect();
        let wals: Vec<_> = cases.iter().map(|case| case.root.join("as_wal")).collect();
        let (starts, checkpoints, live) = std::thread::scope(|scope| {
            let starts = scope.spawn(|| oracle.read_batch(&["--records"], &logs));
            let live = scope.spawn(|| oracle.read_batch(&["--live"], &logs));
            let checkpoints = oracle.read_batch(&["--concat"], &wals);
            (starts.join().unwrap(), checkpoints, live.join().unwrap())
        });
        for (at, case) in cases.iter().enumerate() {
            let complaints = [
                reads_cleanly(
                    case,
                    [(&starts[at], "start"), (&checkpoints[at], "checkpoint"), (&live[at], "remote write")],
                ),
                keeps_what_was_whole(case, &plans[at], &read_by_oracle(&starts[at])),
                is_done_and_can_be_undone(case, &plans[at], &befores[at]),
            ];
            for complaint in complaints.into_iter().filter_map(Result::err) {
                failures.push(format!("{}: {complaint}\n  {:?}", case.what, plans[at].steps));
            }
        }
    }
    eprintln!("steps: {counts:?}");
    let shown: Vec<String> = failures.iter().take(20).map(|text| text.chars().take(1500).collect()).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
}

fn name_of(change: &Change) -> String {
    match change {
        Change::Patch { method, patches, .. } => {
            let several = if patches.len() > 1 { "several patches" } else { "one patch" };
            format!("{several} {method:?}")
        }
        Change::Rewrite { .. } => "rewritten".into(),
        Change::Create { .. } => "created".into(),
        other => format!("{other:?}"),
    }
}

/// Neither walfix nor Prometheus's own reader, nor the model of it, minds anything.
fn reads_cleanly(case: &Case<'_>, answers: [(&Value, &str); 3]) -> Result<(), String> {
    let (report, _) = case.plan();
    if let Some(finding) = report.of_severity(Severity::Damage).next() {
        return Err(format!("there is still damage: {finding:?}"));
    }
    for (answer, of) in answers {
        if let Some(error) = answer["error"].as_str() {
            return Err(format!("Prometheus's {of} says: {error}"));
        }
    }
    let dir = case.data().join(case.kind);
    let segments: Vec<_> =
        list_segments(&dir).unwrap().iter().map(|segment| fs::read(&segment.path).unwrap()).collect();
    let part = |index: i64, source| -> Part<&[u8]> {
        let dir = dir.display().to_string();
        Part { dir, index, source, length: source.len() as u64 }
    };
    let parts: Vec<_> = (0..).zip(&segments).map(|(index, bytes)| part(index, bytes)).collect();
    for part in &parts {
        if let Some(error) = read(vec![part.clone()], case.reader(), Version::NEWEST).error {
            return Err(format!("the model of a start says: {error:?}"));
        }
    }
    match read(parts, Reader::Checkpoint, Version::NEWEST).error {
        Some(error) => Err(format!("the model of a checkpoint says: {error:?}")),
        None => Ok(()),
    }
}

/// The records of the healthy segment whose bytes are as they were stand where they stood; all else is one that was
/// written, or a filling.
fn keeps_what_was_whole(case: &Case<'_>, plan: &Plan, read: &BTreeMap<u64, Vec<Mark>>) -> Result<(), String> {
    let nothing = Vec::new();
    let of = |segment: usize| read.get(&(segment as u64)).unwrap_or(&nothing);
    for (at, bytes) in case.segments.iter().enumerate().filter(|&(at, _)| at != case.at) {
        let written: Vec<_> = pristine::records(bytes).iter().map(Mark::of_written).collect();
        if *of(at) != written {
            return Err(format!("the records of the healthy segment {at} are others"));
        }
    }
    let moved = plan
        .steps
        .iter()
        .any(|step| step.change.path() == case.segment() && matches!(step.change, Change::Rewrite { .. }));
    let found: Vec<Mark> = of(case.at).iter().copied().filter(|mark| !mark.is_filling()).collect();
    let same = |a: &Mark, b: &Mark| if moved { a.data() == b.data() } else { a == b };
    let mut rest = found.iter();
    for (at, written) in case.log.records.iter().enumerate() {
        let whole = case.log.is_unchanged(written, &case.damaged);
        if !whole || case.log.cannot_be_proven(at, &case.damaged) {
            continue;
        }
        let mark = Mark::of_written(written);
        if stands_in_copy(written, &case.damaged) {
            if !found.iter().any(|other| other.data() == mark.data()) {
                return Err(format!("the record at {} is whole and gone with its copy", written.offset()));
            }
        } else if !rest.any(|other| same(other, &mark)) {
            return Err(format!("the record at {} is whole and missing", written.offset()));
        }
    }
    let mut written: HashMap<(u64, u64), i64> = HashMap::new();
    for record in &case.log.records {
        *written.entry(Mark::of_written(record).data()).or_default() += 1;
    }
    for mark in &found {
        // `01` and then zeros is an empty record to every reader; it is also what is left of a header that was cut behind
        // its first byte.
        let offset = usize::try_from(mark.end).unwrap().wrapping_sub(7);
        let cut_header = !moved && mark.size == 0 && case.log.bytes.get(offset) == case.damaged.get(offset);
        let left = written.entry(mark.data()).or_default();
        *left -= 1;
        if *left < 0 && !cut_header {
            return Err(format!("a record that nobody wrote, or twice: {mark:?}"));
        }
    }
    Ok(())
}

/// Whether the whole page is the same as an earlier one.
fn stands_in_copy(written: &Written, bytes: &[u8]) -> bool {
    let page = written.offset() / PAGE;
    let of = |page: usize| bytes.get(page * PAGE..(page + 1) * PAGE);
    of(page).is_some() && (0..page).any(|earlier| of(earlier) == of(page))
}

/// A second repair has nothing to do, and an undo brings everything back.
fn is_done_and_can_be_undone(case: &Case<'_>, plan: &Plan, before: &Tree) -> Result<(), String> {
    let (_, again) = case.plan();
    if !again.steps.is_empty() || !again.left.is_empty() {
        return Err(format!("there is more to do: {:?} {:?}", again.steps, again.left));
    }
    if plan.steps.is_empty() {
        return Ok(());
    }
    repair::undo(&case.backup()).map_err(|error| format!("undo: {error}"))?;
    let after = tree(&case.data(), &case.backup());
    if let Some((path, _)) = after.iter().find(|(path, state)| before.get(*path) != Some(*state)) {
        return Err(format!("undo leaves {} in another state", path.display()));
    }
    if after.len() != before.len() {
        return Err("undo does not bring all files back".into());
    }
    Ok(())
}

/// What is killed in the midst of a repair has not made it worse: of every record that the repair keeps, Prometheus, started
/// there and then, keeps all that it would have kept of the unrepaired directory.
#[test]
fn half_a_repair_is_no_worse_than_none() {
    let logs = pristine::all();
    let mut failures = Vec::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in support::seeds(300) {
        let root = support::scratch();
        let case = Case::new(&logs, seed, root.path());
        case.write();
        let (_, plan) = case.plan();
        let step = plan.steps.iter().find(|step| step.change.path() == case.segment());
        let Some(Change::Patch { method, patches, .. }) = step.map(|step| &step.change) else { continue };
        if *method == Method::Replace {
            *counts.entry("at once").or_default() += 1;
            continue;
        }
        let several = patches.iter().any(|patch| matches!(patch.with, Content::Fill(_)));
        *counts.entry(if several { "several writes" } else { "single writes" }).or_default() += 1;
        let mut rng = fastrand::Rng::with_seed(!seed);
        let unrepaired = Kept::of(&case, &case.damaged);
        let writes = writes(patches);
        let repaired = writes.iter().fold(case.damaged.clone(), |bytes, write| write.done(bytes));
        let keeps = Kept::of(&case, &repaired);
        let safe: HashSet<Mark> = unrepaired.marks.intersection(&keeps.marks).copied().collect();
        let mut check = |bytes: &[u8], state: &str| {
            let kept = Kept::of(&case, bytes);
            *counts.entry("states").or_default() += 1;
            if let Some(lost) = safe.difference(&kept.marks).next() {
                failures.push(format!("{}: {state}: lost {lost:?}\n  {patches:?}", case.what));
            } else if kept.stops && !unrepaired.stops {
                failures.push(format!("{}: {state}: stops\n  {patches:?}", case.what));
            }
        };
        let mut bytes = case.damaged.clone();
        for (number, write) in writes.iter().enumerate() {
            for _ in 0..2 {
                let torn = write.torn(bytes.clone(), &mut rng);
                check(&torn, &format!("in the midst of write {number}"));
            }
            bytes = write.done(bytes);
            check(&bytes, &format!("after write {number}"));
        }
        // What a power cut leaves: any of the sectors.
        for _ in 0..3 {
            let mut mixed = repaired.clone();
            for (at, sector) in mixed.chunks_mut(512).enumerate() {
                if let Some(old) = case.damaged.get(at * 512..at * 512 + sector.len())
                    && rng.bool()
                {
                    sector.copy_from_slice(old);
                }
            }
            check(&mixed, "after a power cut");
        }
    }
    eprintln!("{counts:?}");
    let shown: Vec<String> = failures.iter().take(20).map(|text| text.chars().take(1500).collect()).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
}

/// What Prometheus would keep of a segment: all that it reads, up to the first error.
struct Kept {
    marks: HashSet<Mark>,
    stops: bool,
}

impl Kept {
    fn of(case: &Case<'_>, bytes: &[u8]) -> Self {
        let part = || Part { dir: "wal".into(), index: 0, source: bytes, length: bytes.len() as u64 };
        let reading = read(vec![part()], case.reader(), Version::NEWEST);
        // Its repair writes what ends before the place of the error (`WL.Repair`, `tsdb/wlog/wlog.go`).
        let end = match &reading.error {
            None => u64::MAX,
            Some(ReplayError::Corrupt { corruption, .. }) => corruption.offset,
            Some(other) => panic!("{}: {other:?}", case.what),
        };
        let mut replay = Replay::new(vec![part()], Version::NEWEST);
        let mut marks = HashSet::new();
        for _ in 0..reading.records {
            let record = replay.next().unwrap();
            if record.end < end {
                marks.insert(Mark::of(record.end, record.data));
            }
        }
        Self { marks, stops: reading.error.is_some() }
    }
}

/// One call to the system.
enum Write {
    Bytes(usize, Vec<u8>),
    Cut(usize),
}

impl Write {
    fn done(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Bytes(at, with) => {
                bytes.resize(bytes.len().max(at + with.len()), 0);
                bytes[*at..at + with.len()].copy_from_slice(with);
            }
            Self::Cut(to) => bytes.truncate(*to),
        }
        bytes
    }

    /// Of which only the first bytes have been written.
    fn torn(&self, bytes: Vec<u8>, rng: &mut fastrand::Rng) -> Vec<u8> {
        match self {
            Self::Bytes(at, with) => Self::Bytes(*at, with[..rng.usize(..with.len())].to_vec()).done(bytes),
            Self::Cut(_) => bytes,
        }
    }
}

/// The writes of a patched segment, in the order in which `src/repair/files.rs` makes them: the last patch first, each with
/// its first seven bytes last.
fn writes(patches: &[Patch]) -> Vec<Write> {
    let mut writes = Vec::new();
    for patch in patches.iter().rev() {
        let (at, bytes) = (usize::try_from(patch.offset).unwrap(), patch.with.bytes());
        let (header, body) = bytes.split_at(bytes.len().min(7));
        if !body.is_empty() {
            writes.push(Write::Bytes(at + 7, body.to_vec()));
        }
        if !header.is_empty() {
            writes.push(Write::Bytes(at, header.to_vec()));
        }
        if (bytes.len() as u64) < patch.replaces {
            writes.push(Write::Cut(at + bytes.len()));
        }
    }
    writes
}
