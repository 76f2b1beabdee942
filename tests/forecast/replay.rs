//! Prometheus's reader as `forecast` models it, against Prometheus's own: the same first error at the same place, on
//! damages from seeds and on the fixtures.
//!
//! `WALFIX_SEEDS=20000 cargo test --release --test forecast replay::` for the long run; the damages are those of `tests/format/damage.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::damage::{self, KINDS};
use support::oracle;
use support::pristine::{self, Pristine};
use support::{note, test};
use walfix::forecast::Version;
use walfix::forecast::replay::{Class, Part, Reader, ReplayError, read};
use walfix::scan::salvage::{self, Contents, Problem, Visitor};
use walfix::wal::segments::{list_segments, segment_name};
use walfix::wal::{Compression, Record};

const PAGE: usize = 32768;

/// A segment of a log.
type Segment<'a> = Part<&'a [u8]>;

/// What Prometheus, or the model of it, says of a directory.
#[derive(Clone, Debug, Default, PartialEq)]
struct Verdict {
    error: Option<String>,
    /// Directory, number and offset.
    place: Option<(String, i64, u64)>,
    /// Read before the error.
    records: u64,
    class: Option<Class>,
    crashes: bool,
}

impl Verdict {
    fn of_oracle(answer: &Value) -> Self {
        let error = answer["error"].as_str().map(str::to_owned);
        let place = answer["offset"].as_u64().map(|offset| {
            (answer["dir"].as_str().unwrap().to_owned(), answer["segment"].as_i64().unwrap(), offset)
        });
        let crashes = error.as_ref().is_some_and(|error| error.contains("panic: "));
        let records = answer["records"].as_u64().unwrap_or_default();
        Self { error, place, records, class: None, crashes }
    }

    /// Takes in one more reading, whose errors get `context` in front.
    fn read(&mut self, parts: &[Segment<'_>], reader: Reader, context: &str) {
        let reading = read(parts.to_vec(), reader, Version::NEWEST);
        self.records += reading.records;
        match reading.error {
            None => {}
            Some(ReplayError::Corrupt { text, corruption }) => {
                let dir = parts[corruption.part].dir.clone();
                assert!(corruption.dir.as_ref().is_none_or(|named| *named == dir));
                self.error = Some(format!("{context}{text}"));
                self.place = Some((dir, corruption.segment, corruption.offset));
                self.class = Some(corruption.class);
            }
            Some(ReplayError::Crash(text)) => {
                self.error = Some(text);
                self.crashes = true;
            }
            Some(ReplayError::Hang) => panic!("no server hangs"),
        }
    }

    /// The first error of a start.
    fn of_start(checkpoint: &[Segment<'_>], segments: &[Segment<'_>], reader: Reader) -> Self {
        let mut verdict = Self::default();
        if !checkpoint.is_empty() {
            verdict.read(checkpoint, Reader::Wal, "backfill checkpoint: ");
        }
        for segment in segments {
            if verdict.error.is_none() {
                verdict.read(std::slice::from_ref(segment), reader, "");
            }
        }
        verdict
    }

    /// The error of a checkpoint made of everything.
    fn of_checkpoint(checkpoint: &[Segment<'_>], segments: &[Segment<'_>]) -> Self {
        let mut verdict = Self::default();
        verdict.read(&[checkpoint, segments].concat(), Reader::Checkpoint, "");
        verdict
    }

    /// Whether it says what the oracle says. Of what zstd says only that it is zstd that says it.
    fn agrees(&self, oracle: &Self) -> bool {
        if self.crashes || oracle.crashes {
            return self.crashes
                && oracle.crashes
                && (oracle.place.is_none() || self.records == oracle.records);
        }
        let same_error = match (&self.error, &oracle.error, self.class) {
            (Some(ours), Some(theirs), Some(Class::Unpacks(Compression::Zstd))) => {
                let (_, _, offset) = self.place.as_ref().unwrap();
                let before = ours.split_inclusive(&format!(" at {offset}: ")).next().unwrap();
                theirs.strip_prefix(before).is_some_and(|words| {
                    !["snappy", "unexpected c", "unexpected n", "unexpected r", "last record is torn"]
                        .iter()
                        .any(|others| words.starts_with(others))
                })
            }
            (ours, theirs, _) => ours == theirs,
        };
        let place = |verdict: &Self| {
            // The error of what does not decode names no directory.
            let named = !matches!(self.class, Some(Class::Decodes(_)));
            verdict.place.clone().map(|(dir, segment, offset)| (named.then_some(dir), segment, offset))
        };
        same_error && place(self) == place(oracle) && self.records == oracle.records
    }
}

/// A directory of segments, one of them damaged.
struct Case<'a> {
    checkpoint: Vec<Segment<'a>>,
    segments: Vec<Segment<'a>>,
    is_wbl: bool,
    what: String,
}

/// A segment of a log, damaged as `tests/format/damage.rs` damages it with this seed.
fn damaged(logs: &[Pristine], seed: u64) -> (&Pristine, Vec<u8>, String) {
    let logs: Vec<_> = logs.iter().filter(|log| log.bytes.len() > 3 * PAGE).collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let log = logs[rng.usize(..logs.len())];
    let headers: Vec<usize> = log.records.iter().flat_map(|r| r.fragments.iter().map(|f| f.start)).collect();
    let mut bytes = log.bytes.clone();
    let within = 0..bytes.len();
    let damage = damage::apply(KINDS[rng.usize(..KINDS.len())], &mut bytes, within, &headers, &mut rng);
    (log, bytes, format!("seed {seed}: {} ({}: {})", log.path.display(), damage.kind, damage.what))
}

fn log_name(log: &Pristine) -> &str {
    log.path.parent().unwrap().file_name().unwrap().to_str().unwrap()
}

fn parts<'a>(dir: &Path, first: i64, segments: &[&'a [u8]]) -> Vec<Segment<'a>> {
    let dir = dir.to_str().unwrap();
    let part = |(index, &source): (i64, &&'a [u8])| Part {
        dir: dir.to_owned(),
        index,
        source,
        length: source.len() as u64,
    };
    (first..).zip(segments).map(part).collect()
}

impl<'a> Case<'a> {
    /// The damaged segment as the first, the middle or the last of three of its log, with a checkpoint in front of some,
    /// in which it may be as well.
    fn new(logs: &'a [Pristine], seed: u64, log: &'a Pristine, bytes: &'a [u8], root: &Path) -> Self {
        let mut rng = fastrand::Rng::with_seed(!seed);
        let of = |name: &str| -> Vec<&'a [u8]> {
            logs.iter().filter(|log| log_name(log) == name).map(|log| log.bytes.as_slice()).collect()
        };
        let (profile, compression) = log_name(log).rsplit_once('-').unwrap_or_default();
        let is_wbl = profile == "wbl";
        let (mut whole, mut first, others) = (Vec::new(), 0, of(log_name(log)));
        let mut segments: Vec<_> = (0..3).map(|_| others[rng.usize(..others.len())]).collect();
        if !is_wbl && rng.usize(..3) == 0 {
            whole = of(&format!("checkpoint-{compression}"));
            whole.truncate(rng.usize(1..=2));
            first = rng.i64(1..1000);
        }
        let place = if profile == "checkpoint" { rng.usize(..3 + whole.len()) } else { rng.usize(..3) };
        *segments.iter_mut().chain(&mut whole).nth(place).unwrap() = bytes;
        let root = root.join(seed.to_string());
        let checkpoint = root.join(format!("wal/checkpoint.{:08}", first - 1));
        Self {
            checkpoint: parts(&checkpoint, 0, &whole),
            segments: parts(&root.join(if is_wbl { "wbl" } else { "wal" }), first, &segments),
            is_wbl,
            what: format!("{} of {} segments and {} of a checkpoint", place + 1, segments.len(), whole.len()),
        }
    }

    /// Writes it, and returns the directory.
    fn write(&self) -> PathBuf {
        for part in self.checkpoint.iter().chain(&self.segments) {
            let dir = Path::new(&part.dir);
            std::fs::create_dir_all(dir).unwrap();
            std::fs::write(dir.join(segment_name(part.index)), part.source).unwrap();
        }
        PathBuf::from(&self.segments[0].dir)
    }
}

#[test]
fn damages_are_read_as_prometheus_reads_them() {
    let oracle = oracle::judge("the model of Prometheus's reader on damaged logs");
    let logs = pristine::all();
    let mut failures = Vec::new();
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    let seeds: Vec<u64> = support::seeds(2000).collect();
    for seeds in seeds.chunks(50) {
        let root = support::scratch();
        let damages: Vec<_> = seeds.iter().map(|&seed| (seed, damaged(&logs, seed))).collect();
        let mut cases: Vec<_> = damages
            .iter()
            .map(|(seed, (log, bytes, what))| (what, Case::new(&logs, *seed, log, bytes, root.path())))
            .collect();
        let dirs: Vec<_> = cases.iter().map(|(_, case)| case.write()).collect();
        // No checkpoint is made of a WBL; its bytes are as good as others.
        let mut wals = dirs.clone();
        for (dir, (_, case)) in wals.iter_mut().zip(&cases).filter(|(_, (_, case))| case.is_wbl) {
            let link = dir.with_file_name("as_wal");
            std::os::unix::fs::symlink(&*dir, &link).unwrap();
            assert!(case.checkpoint.is_empty());
            *dir = link;
        }
        let (starts, checkpoints) = std::thread::scope(|scope| {
            let starts = scope.spawn(|| oracle.read_batch(&[], &dirs));
            let checkpoints = oracle.read_batch(&["--concat"], &wals);
            (starts.join().unwrap(), checkpoints)
        });
        for ((at, (what, case)), dir) in cases.iter_mut().enumerate().zip(&wals) {
            let reader = if case.is_wbl { Reader::Wbl } else { Reader::Wal };
            let start = Verdict::of_start(&case.checkpoint, &case.segments, reader);
            case.segments.iter_mut().for_each(|part| dir.to_str().unwrap().clone_into(&mut part.dir));
            let checkpoint = Verdict::of_checkpoint(&case.checkpoint, &case.segments);
            for (ours, theirs, of) in
                [(&start, &starts[at], "start"), (&checkpoint, &checkpoints[at], "checkpoint")]
            {
                let theirs = Verdict::of_oracle(theirs);
                *classes.entry(format!("{of}: {:?} {}", ours.class, ours.crashes)).or_default() += 1;
                if !ours.agrees(&theirs) {
                    failures.push(format!("{what}, {}: {of}\n  {ours:?}\n  {theirs:?}", case.what));
                }
            }
        }
    }
    for (class, count) in &classes {
        note!("{count:7} {class}");
    }
    let shown = &failures[..failures.len().min(20)];
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), seeds.len(), shown.join("\n"));
}

/// Data that decodes here and there. Its numbers stay small: one of a record's counts may be any of them.
fn random_data(rng: &mut fastrand::Rng) -> Vec<u8> {
    let length = match rng.u8(..8) {
        0 => 0,
        1 => rng.usize(..2000),
        _ => rng.usize(..40),
    };
    let mut data: Vec<u8> =
        (0..length).map(|_| *rng.choice(&[0, 0, 0, 1, 2, 3, 0x6A, 0x7F]).unwrap()).collect();
    if let Some(kind) = data.first_mut() {
        *kind = rng.u8(..16);
    }
    data
}

/// A segment of fragments and what is none, by no writer's rules.
fn random_segment(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(..12) {
        let left = PAGE - bytes.len() % PAGE;
        let mut head =
            *rng.choice(&[0x01, 0x01, 0x02, 0x03, 0x04, 0x09, 0x0C, 0x11, 0x14, 0x0A, 0x12]).unwrap();
        if rng.u8(..16) == 0 {
            head = rng.u8(..);
        }
        let mut data = random_data(rng);
        match head & 0x18 {
            0x08 if rng.u8(..8) > 0 => data = snap::raw::Encoder::new().compress_vec(&data).unwrap(),
            0x10 if rng.u8(..8) > 0 => data = zstd::bulk::compress(&data, 1).unwrap(),
            _ => {}
        }
        match rng.u8(..16) {
            // To the page's end, or just not.
            0..5 => data.resize((left + rng.usize(..9)).saturating_sub(11).min(PAGE - 7), 2),
            5 => bytes.resize(bytes.len() + left, 0),
            6 => bytes.resize(bytes.len() + rng.usize(..left), 0),
            7 => {
                data.resize(left.saturating_sub(7).min(PAGE - 7), 0);
                bytes.resize(bytes.len() + left % 7, 0);
            }
            _ => {}
        }
        let mut crc = crc32c::crc32c(&data);
        if rng.u8(..40) == 0 {
            crc ^= 1;
        }
        bytes.push(head);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(crc.to_be_bytes());
        bytes.extend(&data);
        if rng.u8(..16) == 0 {
            bytes.truncate(bytes.len() - rng.usize(..data.len().min(20) + 7));
        }
    }
    bytes
}

#[test]
fn random_fragments_are_read_as_prometheus_reads_them() {
    let oracle = oracle::judge("the model of Prometheus's reader on random fragments");
    let mut failures = Vec::new();
    let mut classes: BTreeMap<String, u64> = BTreeMap::new();
    let seeds: Vec<u64> = support::seeds(2000).collect();
    for seeds in seeds.chunks(100) {
        let root = support::scratch();
        let logs: Vec<_> = seeds
            .iter()
            .map(|&seed| {
                let mut rng = fastrand::Rng::with_seed(seed);
                (0..rng.usize(1..4)).map(|_| random_segment(&mut rng)).collect::<Vec<_>>()
            })
            .collect();
        let cases: Vec<_> = seeds
            .iter()
            .zip(&logs)
            .map(|(seed, log)| {
                let segments: Vec<_> = log.iter().map(Vec::as_slice).collect();
                let segments = parts(&root.path().join(seed.to_string()), 0, &segments);
                Case { checkpoint: Vec::new(), segments, is_wbl: false, what: format!("seed {seed}") }
            })
            .collect();
        let dirs: Vec<_> = cases.iter().map(Case::write).collect();
        let answers = [&[][..], &["--concat"]].map(|args| oracle.read_batch(args, &dirs));
        for (at, case) in cases.iter().enumerate() {
            let start = Verdict::of_start(&[], &case.segments, Reader::Wal);
            let checkpoint = Verdict::of_checkpoint(&[], &case.segments);
            for (ours, theirs) in [start, checkpoint].iter().zip(&answers) {
                let theirs = Verdict::of_oracle(&theirs[at]);
                *classes.entry(format!("{:?} {}", ours.class, ours.crashes)).or_default() += 1;
                if !ours.agrees(&theirs) {
                    failures.push(format!("{}\n  {ours:?}\n  {theirs:?}", case.what));
                }
            }
        }
    }
    for (class, count) in &classes {
        note!("{count:7} {class}");
    }
    let shown = &failures[..failures.len().min(20)];
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), seeds.len(), shown.join("\n"));
}

#[derive(Default)]
struct Found {
    records: u64,
    problems: Vec<Problem>,
}

impl Visitor for Found {
    fn record(&mut self, _: &Record<'_>, _: &Contents) {
        self.records += 1;
    }

    fn damage(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}

/// Where the salvage reader has nothing at all to say, Prometheus's has no error, alone and between healthy neighbours,
/// and reads as many records.
#[test]
fn what_is_clean_to_salvage_is_clean_to_prometheus() {
    let logs = pristine::all();
    let mut failures = Vec::new();
    let (mut clean, mut tried) = (0, 0);
    for seed in support::seeds(2000) {
        let (log, bytes, what) = damaged(&logs, seed);
        tried += 1;
        let found: Found =
            salvage::salvage(bytes.as_slice(), bytes.len() as u64, salvage::Reading::Prometheus);
        if !found.problems.is_empty() {
            continue;
        }
        clean += 1;
        let case = Case::new(&logs, seed, log, &bytes, Path::new("data"));
        let reader = if case.is_wbl { Reader::Wbl } else { Reader::Wal };
        let alone = Verdict::of_start(&[], &parts(Path::new("wal"), 0, &[&bytes]), reader);
        let start = Verdict::of_start(&case.checkpoint, &case.segments, reader);
        let checkpoint = Verdict::of_checkpoint(&case.checkpoint, &case.segments);
        for verdict in [&alone, &start, &checkpoint] {
            if verdict.error.is_some() || verdict.crashes {
                failures.push(format!("{what}, {}: {verdict:?}", case.what));
            }
        }
        if alone.records != found.records {
            failures.push(format!("{what}: {} records, and {} to Prometheus", found.records, alone.records));
        }
    }
    note!("{clean} of {tried} are clean");
    let shown = &failures[..failures.len().min(20)];
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), shown.join("\n"));
}

/// A directory's segments, as a start or a checkpoint reads them.
fn segments_of(dir: &Path, named: &str) -> Vec<Part<Vec<u8>>> {
    let Ok(segments) = list_segments(dir) else { return Vec::new() };
    let read = |segment: walfix::wal::segments::SegmentFile| {
        let source = std::fs::read(&segment.path).unwrap();
        Part { dir: named.to_owned(), index: segment.index, length: source.len() as u64, source }
    };
    segments.into_iter().map(read).collect()
}

fn lend(parts: &[Part<Vec<u8>>]) -> Vec<Segment<'_>> {
    let mut lent = Vec::new();
    for Part { dir, index, source, length } in parts {
        lent.push(Part { dir: dir.clone(), index: *index, source: source.as_slice(), length: *length });
    }
    lent
}

#[test]
fn fixtures_are_read_as_prometheus_reads_them() {
    // Errors of listing, which is not the reader's.
    const LISTINGS: [&str; 2] = ["checkpoint_is_a_file", "gap_in_segments"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged");
    let mut names: Vec<String> = std::fs::read_dir(&root)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .filter(|name| !LISTINGS.contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() >= 40, "fixtures are missing");
    for name in names {
        let fixture: Value =
            serde_json::from_slice(&std::fs::read(root.join(format!("{name}.json"))).unwrap()).unwrap();
        let wal = root.join(&name).join("wal");
        let mut checkpoint = Vec::new();
        let mut segments = segments_of(&wal, "data/wal");
        let mut last = -1;
        for entry in std::fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().file_name()) {
            if let Some(number) = entry.to_str().unwrap().strip_prefix("checkpoint.") {
                assert_eq!(last, -1, "{name} has two checkpoints");
                last = number.parse().unwrap();
                let dir = entry.to_str().unwrap();
                checkpoint = segments_of(&wal.join(dir), &format!("data/wal/{dir}"));
            }
        }
        segments.retain(|part| part.index > last);
        let wbl = segments_of(&root.join(&name).join("wbl"), "data/wbl");
        let (checkpoint, segments, wbl) = (lend(&checkpoint), lend(&segments), lend(&wbl));
        let mut start = Verdict::of_start(&checkpoint, &segments, Reader::Wal);
        if start.error.is_none() {
            let more = Verdict::of_start(&[], &wbl, Reader::Wbl);
            start = Verdict { records: start.records + more.records, ..more };
        }
        let theirs = Verdict::of_oracle(&fixture["oracle_read"]);
        assert!(start.agrees(&theirs), "{name}:\n  {start:?}\n  {theirs:?}");
        let concatenated = Verdict::of_checkpoint(&checkpoint, &segments);
        let theirs = Verdict::of_oracle(&fixture["oracle_read_concat"]);
        assert!(concatenated.agrees(&theirs), "{name}:\n  {concatenated:?}\n  {theirs:?}");
    }
}
