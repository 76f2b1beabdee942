//! Random damages, each from a seed, repaired: nothing is left that any reader minds, no record is lost that was whole, none
//! is invented, and all of it can be undone.
//!
//! `WALFIX_SEEDS=5000 cargo test --release --test repair random::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use support::damage::{self, KINDS};
use support::oracle;
use support::pristine::{self, Pristine, Written};
use support::{note, test};
use walfix::forecast::replay::{Part, Reader, Replay, ReplayError, read};
use walfix::forecast::{Assumed, Version, forecast};
use walfix::record::{Record, RecordType, encode_samples, encode_series};
use walfix::repair::fill::fill;
use walfix::repair::plan::{Change, Content, Method, Patch, Removal, Resolution};
use walfix::repair::{self, Lock, Options, Plan};
use walfix::scan::Scan;
use walfix::scan::report::Severity;
use walfix::scan::scan;
use walfix::tsdb::Target;
use walfix::wal::segments::{list_segments, segment_name};

const PAGE: usize = 32768;

/// The segment behind it is empty: what is read of its log is all from it.
const CHECKPOINT: &str = "wal/checkpoint.00000007";

/// A record of samples without a sample, of which fillings are made.
const FILLING: &[u8] = &[2];

/// A data directory with one damaged segment.
struct Case<'a> {
    seed: u64,
    what: String,
    log: &'a Pristine,
    damaged: Vec<u8>,
    /// `wal`, `wbl` or a checkpoint.
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
        let of_pages: Vec<_> = logs.iter().filter(|log| log.bytes.len() > 3 * PAGE).collect();
        let log = of_pages[rng.usize(..of_pages.len())];
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
        let name = directory.file_name().unwrap().to_str().unwrap();
        let is_in_checkpoint = rng.usize(..3) == 0;
        let kind = match name {
            _ if name.starts_with("wbl") => "wbl",
            _ if is_in_checkpoint => CHECKPOINT,
            _ => "wal",
        };
        let (before, behind) = if kind == CHECKPOINT { (0, 0) } else { (rng.usize(..2), rng.usize(..2)) };
        segments.splice(..0, vec![Vec::new(); before]);
        segments.extend(vec![Vec::new(); behind]);
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
        match self.kind {
            "wbl" => fs::write(self.data().join("wal/00000000"), []).unwrap(),
            CHECKPOINT => fs::write(self.data().join("wal/00000008"), []).unwrap(),
            _ => {}
        }
        for (number, bytes) in (0..).zip(&self.segments) {
            fs::write(self.data().join(self.kind).join(segment_name(number)), bytes).unwrap();
        }
        // What the oracle reads as it reads segments for a checkpoint; none is made of a WBL, but its bytes are as good.
        std::os::unix::fs::symlink(self.log(), self.root.join("as_wal")).unwrap();
    }

    fn target(&self) -> Target {
        Target::find(&self.data()).unwrap()
    }

    fn plan(&self) -> (Scan, Plan) {
        self.plan_for(Assumed::default())
    }

    fn plan_for(&self, assumed: Assumed) -> (Scan, Plan) {
        let target = self.target();
        let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
        let options = Options { assumed, ..Options::default() };
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

    /// What the oracle reads: the log, or that which the checkpoint is of.
    fn log(&self) -> PathBuf {
        self.data().join(if self.kind == "wbl" { "wbl" } else { "wal" })
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
            let (report, mut plan) = case.plan();
            assert_eq!(report.of_severity(Severity::Damage).next(), None, "{}", case.what);
            // The series of a WBL stand in a WAL that is not here.
            let is_record = |change: &Change| matches!(change, Change::Create { path, .. } if path.starts_with("walfix-lost."));
            plan.steps.retain(|step| case.kind != "wbl" || !is_record(&step.change));
            assert_eq!(plan.steps, [], "{}", case.what);
        }
    }
}

#[test]
fn only_what_is_damaged_is_lost() {
    let oracle = oracle::judge("repairs of damaged logs");
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
            *counts.entry(case.kind.to_owned()).or_default() += 1;
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
        let logs: Vec<_> = cases.iter().map(Case::log).collect();
        let directories: Vec<_> = cases.iter().map(|case| case.data().join(case.kind)).collect();
        let wals: Vec<_> = cases.iter().map(|case| case.root.join("as_wal")).collect();
        let (starts, checkpoints, live) = std::thread::scope(|scope| {
            let starts = scope.spawn(|| oracle.read_batch(&["--records"], &logs));
            let live = scope.spawn(|| oracle.read_batch(&["--live"], &directories));
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
                let steps: Vec<_> = plans[at].steps.iter().map(|step| name_of(&step.change)).collect();
                failures.push(format!("{}: {complaint}\n  {steps:?}", case.what));
            }
        }
    }
    note!("{counts:?}");
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

/// No filling has nine bytes: where a hole has so many, the segment is written anew.
#[test]
fn a_hole_that_cannot_be_filled() {
    let oracle = oracle::judge("segments that are written anew");
    let logs = pristine::all();
    let mut rewritten = HashSet::new();
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let root = support::scratch();
        let mut case = Case::new(&logs, seed, root.path());
        let written = &case.log.records[rng.usize(..case.log.records.len())];
        let [place] = &written.fragments[..] else { continue };
        let Some(filling) = place.len().checked_sub(9).and_then(fill) else { continue };
        case.damaged.clone_from(&case.log.bytes);
        // The last fragment of a record that nobody began, with two bytes of data.
        let mut orphan = vec![4, 0, 2];
        orphan.extend(crc32c::crc32c(&[7, 7]).to_be_bytes());
        orphan.extend([7, 7]);
        case.damaged[place.clone()].copy_from_slice(&[orphan, filling].concat());
        case.segments[case.at].clone_from(&case.damaged);
        case.write();
        let before = tree(&case.data(), &case.backup());
        let (_, plan) = case.plan();
        {
            let lock = Lock::take(&case.data()).unwrap();
            repair::apply(&case.target(), &plan, &case.backup(), &lock).unwrap();
        }
        let logs = [case.log()];
        let answer = |flags: &[&str], logs: &[PathBuf]| oracle.read_batch(flags, logs).remove(0);
        let (start, live) = (answer(&["--records"], &logs), answer(&["--live"], &logs));
        let checkpoint = answer(&["--concat"], &[case.root.join("as_wal")]);
        let complaints = [
            reads_cleanly(&case, [(&start, "start"), (&checkpoint, "checkpoint"), (&live, "remote write")]),
            keeps_what_was_whole(&case, &plan, &read_by_oracle(&start)),
            is_done_and_can_be_undone(&case, &plan, &before),
        ];
        let complaint = complaints.into_iter().find_map(Result::err);
        assert_eq!(complaint, None, "seed {seed}: {}", case.log.path.display());
        let anew = plan.steps.iter().any(|step| matches!(step.change, Change::Rewrite { .. }));
        // Behind damage its first fragment may be taken for a part of that.
        if anew {
            rewritten.insert(case.log.path.clone());
        }
    }
    assert!(rewritten.len() > 15, "only {} logs have been written anew", rewritten.len());
}

/// A record that was written wrong from one of its entries on keeps those before it.
#[test]
fn entries_before_the_one_that_does_not_decode_are_kept() {
    let oracle = oracle::judge("records that decode in part");
    let logs: Vec<_> = pristine::all()
        .into_iter()
        .filter(|log| {
            ["wal-none", "small-none"].iter().any(|name| log.path.parent().unwrap().ends_with(name))
        })
        .collect();
    let (mut kept, mut whole) = (0, 0);
    for seed in support::seeds(100) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let root = support::scratch();
        let mut case = Case::new(&logs, seed, root.path());
        let number = rng.usize(..case.log.records.len());
        let written = &case.log.records[number];
        let prefixes = prefixes(&written.data);
        if written.fragments.len() > 1 || prefixes.len() < 3 {
            continue;
        }
        let good = rng.usize(1..prefixes.len() - 1);
        case.damaged.clone_from(&case.log.bytes);
        let data = written.offset() + 7..written.end();
        // No varint has so many bytes; a ref of 8 bytes is followed by such a count of labels.
        case.damaged[data.start + prefixes[good]..data.end].fill(0xFF);
        let crc = crc32c::crc32c(&case.damaged[data.clone()]);
        case.damaged[data.start - 4..data.start].copy_from_slice(&crc.to_be_bytes());
        case.segments[case.at].clone_from(&case.damaged);
        case.write();
        let before = tree(&case.data(), &case.backup());
        let (report, plan) = case.plan();
        let damage: Vec<_> =
            report.of_severity(Severity::Damage).map(|finding| finding.code.name()).collect();
        assert_eq!(damage, ["decode_error"], "seed {seed}");
        {
            let lock = Lock::take(&case.data()).unwrap();
            repair::apply(&case.target(), &plan, &case.backup(), &lock).unwrap();
        }
        let segments = [case.log()];
        let answer = |flags: &[&str]| oracle.read_batch(flags, &segments).remove(0);
        let (start, live) = (answer(&["--records"]), answer(&["--live"]));
        let checkpoint = answer(&["--concat"]);
        reads_cleanly(&case, [(&start, "start"), (&checkpoint, "checkpoint"), (&live, "remote write")])
            .unwrap_or_else(|complaint| panic!("seed {seed}: {complaint}"));
        let read = read_by_oracle(&start).remove(&(case.at as u64)).unwrap();
        let read: Vec<_> = read.iter().filter(|mark| !mark.is_filling()).map(|mark| mark.data()).collect();
        let of = |data: &[u8]| Mark::of(0, data).data();
        let mut expected: Vec<_> = case.log.records.iter().map(|record| of(&record.data)).collect();
        expected[number] = of(&written.data[..prefixes[good]]);
        let step = plan.steps.iter().find(|step| step.change.path() == case.segment()).unwrap();
        let resolution = &step.repairs[0].resolution;
        if read == expected {
            kept += 1;
            assert!(
                matches!(resolution, Resolution::FirstEntriesKept { entries, .. } if *entries == good as u64),
                "seed {seed}: {good} entries: {resolution:?}"
            );
        } else {
            // Nothing around it speaks for it.
            expected.remove(number);
            assert_eq!(read, expected, "seed {seed}: {good} of {} entries", prefixes.len() - 1);
            let removed = Resolution::Removed { removal: Removal::Overwritten, deletions: false };
            assert_eq!(*resolution, removed, "seed {seed}");
            whole += 1;
        }
        is_done_and_can_be_undone(&case, &plan, &before).unwrap();
    }
    note!("{kept} kept in part, {whole} lost whole");
    assert!(kept > whole, "{kept} kept in part, {whole} lost whole");
}

/// Where the entries of a record of series or samples end; first of all behind what stands before the first.
fn prefixes(data: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut end_of = |record: Vec<u8>| {
        assert!(data.starts_with(&record));
        ends.push(record.len());
    };
    match Record::parse(data) {
        Record::Samples(samples) if data[0] == 2 => {
            let entries: Vec<_> = samples.entries().map(Result::unwrap).collect();
            (0..=entries.len()).for_each(|count| {
                let mut record = Vec::new();
                encode_samples(&entries[..count], &mut record);
                end_of(record);
            });
        }
        Record::Series(series) => {
            let entries: Vec<_> = series.entries().map(Result::unwrap).collect();
            (0..=entries.len()).for_each(|count| {
                let mut record = Vec::new();
                let entries = entries[..count].iter();
                let labels = entries.map(|entry| (entry.series_ref, entry.labels.iter().collect::<Vec<_>>()));
                encode_series(labels, &mut record);
                end_of(record);
            });
        }
        _ => {}
    }
    ends
}

/// The samples record lacks its last five bytes: of its two samples the first is whole. What the recipe wrote, with ref 1
/// and the value 1, a millisecond after noon of 2025-06-15.
#[test]
fn the_fixture_that_decodes_in_part() {
    let oracle = oracle::judge("the fixture that decodes in part");
    let root = support::scratch();
    let data = root.path().join("data");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged/undecodable_samples");
    support::server::copy_directory(&fixture, &data).unwrap();
    let target = Target::find(&data).unwrap();
    let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
    let plan = repair::plan(&target, &report, None, Options::default()).unwrap();
    assert_eq!(plan.lost, walfix::repair::plan::Loss::new(Some(0), None));
    repair::apply(&target, &plan, &root.path().join("backup"), &Lock::take(&data).unwrap()).unwrap();
    let mut found = Vec::new();
    oracle.dump(&[], &data.join("wal"), |line| {
        assert!(line.get("at").is_none(), "{line}");
        if line["segment"] == 1 && line["end"] == 7019 {
            found.push(line["entries"].clone());
        }
    });
    let [entries] = &found[..] else { panic!("{found:?}") };
    assert_eq!(entries.as_array().unwrap().len(), 1);
    assert_eq!((&entries[0]["ref"], &entries[0]["t"]), (&"1".into(), &"1749988800001".into()));
}

/// Deleted samples come back where the record that deleted them is lost, and the plan says so.
#[test]
fn lost_tombstones_are_named() {
    let root = support::scratch();
    let data = root.path().join("data");
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged/zeroed_page_inside_tombstones");
    support::server::copy_directory(&fixture, &data).unwrap();
    let target = Target::find(&data).unwrap();
    let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
    let plan = repair::plan(&target, &report, None, Options::default()).unwrap();
    let all: Vec<_> =
        plan.steps.iter().flat_map(|step| &step.repairs).map(|repaired| &repaired.resolution).collect();
    let are_back = |how: &&Resolution| matches!(how, Resolution::Removed { deletions: true, .. });
    assert!(all.iter().any(are_back), "{all:?}");
}

/// What an agent takes for corruption goes too, and nothing else.
#[test]
fn an_agent_takes_what_is_left() {
    let oracle = oracle::judge("repairs for an agent");
    let logs: Vec<_> = pristine::all()
        .into_iter()
        .filter(|log| !log.path.parent().unwrap().to_str().unwrap().contains("wbl-"))
        .collect();
    let mut refused = 0;
    for seed in support::seeds(100) {
        let root = support::scratch();
        let case = Case::new(&logs, seed, root.path());
        let versions = [Version::new(2, 53, 0), Version::new(3, 5, 0), Version::NEWEST];
        let version = versions[usize::try_from(seed % 3).unwrap()];
        let assumed = Assumed { version, agent: true };
        case.write();
        let before = tree(&case.data(), &case.backup());
        let (_, plan) = case.plan_for(assumed);
        refused += plan
            .steps
            .iter()
            .flat_map(|step| &step.repairs)
            .filter(|m| m.code.name() == "agent_refuses")
            .count();
        if !plan.steps.is_empty() {
            let lock = Lock::take(&case.data()).unwrap();
            repair::apply(&case.target(), &plan, &case.backup(), &lock).unwrap();
        }
        for segment in list_segments(&case.data().join(case.kind)).unwrap() {
            let source = fs::File::open(&segment.path).unwrap();
            let length = source.metadata().unwrap().len();
            let part = Part { dir: case.kind.into(), index: segment.index, source: &source, length };
            let error = read(vec![part], Reader::Agent, version).error;
            assert_eq!(error, None, "{}, segment {}", case.what, segment.index);
        }
        let answer = oracle.read_batch(&["--records"], &[case.log()]).remove(0);
        assert!(answer["error"].is_null(), "{}: {answer}", case.what);
        let read = read_by_oracle(&answer);
        for (at, bytes) in (0..).zip(&case.segments) {
            let damaged = at == case.at as u64;
            let log = if damaged {
                case.log
            } else {
                &Pristine { path: PathBuf::new(), bytes: bytes.clone(), records: pristine::records(bytes) }
            };
            let mut rest = read.get(&at).into_iter().flatten();
            for (number, written) in log.records.iter().enumerate() {
                let is_taken =
                    matches!(RecordType::of(&written.data), Some(RecordType::Series | RecordType::Samples));
                let is_whole = log.is_unchanged(written, bytes)
                    && !log.cannot_be_proven(number, bytes)
                    && !stands_in_copy(written, bytes);
                let mark = Mark::of_written(written);
                if is_taken && is_whole {
                    let found = rest.any(|other| other.data() == mark.data());
                    assert!(found, "{}: the record at {} is gone", case.what, written.offset());
                }
            }
        }
        let (_, again) = case.plan_for(assumed);
        assert_eq!((&again.steps, &again.left), (&Vec::new(), &Vec::new()), "{}", case.what);
        if !plan.steps.is_empty() {
            repair::undo(&case.backup()).unwrap();
            assert!(tree(&case.data(), &case.backup()) == before, "{}: undo", case.what);
        }
    }
    assert!(refused > 100, "{refused} records that an agent refuses");
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
    note!("{counts:?}");
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
