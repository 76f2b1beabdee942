//! What starts of Prometheus do not serve, against what its newest version serves of the same directory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::damage::{self, KINDS};
use support::oracle::{self, Oracle};
use support::seeds;
use support::{note, test};
use walfix::forecast::replay::{Class, Part, Reader, ReplayError, read};
use walfix::forecast::report::Samples;
use walfix::forecast::{HeadChunks, StartReads, Stretch, Version, count, count_one_by_one, min_valid_time};
use walfix::record::{self, RecordType};
use walfix::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use walfix::scan::settled::Settlements;
use walfix::tsdb::{Listing, LogKind, Target, list_blocks, list_head_chunks};
use walfix::wal;

/// The value of a staleness marker (`model/value/value.go`, `StaleNaN`).
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A directory, and what is known of it before it is counted.
struct Directory {
    listing: Listing,
    chunks: HeadChunks,
    min_valid_time: i64,
    version: Version,
}

impl Directory {
    fn of(path: &Path, version: Version) -> Self {
        let listing = Target::find(path).unwrap().list().unwrap();
        let min_valid_time = min_valid_time(&listing, &list_blocks(path).unwrap(), version);
        let chunks = HeadChunks::read(path, "data", min_valid_time, version).unwrap();
        Self { listing, chunks, min_valid_time, version }
    }

    /// What starts come to, counted by runs and sample by sample.
    fn count(&self, starts: &[StartReads]) -> Vec<(Samples, Samples)> {
        let [counted, one_by_one] = [count, count_one_by_one].map(|count| {
            let settled = Settlements::default();
            count(&self.listing, &settled, starts, self.version, self.min_valid_time, &self.chunks).unwrap()
        });
        assert_eq!(counted, one_by_one, "by runs, and sample by sample");
        counted.into_iter().map(|counted| (counted.not_replayed, counted.gone)).collect()
    }

    /// Everything that Prometheus replays of a healthy directory.
    fn all(&self) -> Vec<Stretch> {
        let logs = &self.listing.logs;
        let checkpoint = logs.iter().rposition(|log| log.kind == LogKind::Checkpoint);
        let last: Option<i64> =
            checkpoint.map(|log| logs[log].relative.rsplit('.').next().unwrap().parse().unwrap());
        let mut stretches = Vec::new();
        for (log, directory) in logs.iter().enumerate() {
            for (segment, file) in directory.segments.iter().enumerate() {
                let is_read = match directory.kind {
                    LogKind::Wal => last.is_none_or(|last| file.index > last),
                    LogKind::Checkpoint => Some(log) == checkpoint,
                    LogKind::Wbl => true,
                    LogKind::ChunkSnapshot => false,
                };
                if is_read {
                    stretches.push(Stretch { log, segment, upto: None });
                }
            }
        }
        stretches
    }
}

/// The first start of the newest version, for damage that its reader stops at.
fn first_start(directory: &Directory) -> Result<StartReads, String> {
    let logs = &directory.listing.logs;
    let head_chunks_deleted = directory.chunks.error.is_some();
    let mut start = StartReads { serves: true, head_chunks_deleted, ..StartReads::default() };
    let all = directory.all();
    let of_kind = |stretch: &Stretch, kind: LogKind| logs[stretch.log].kind == kind;
    let mut failed: Option<(Stretch, LogKind)> = None;
    let mut is_decoding = false;
    // The checkpoint first, with one reader; then segment by segment, and the WBL last.
    let mut units: Vec<Vec<Stretch>> = Vec::new();
    let of = |kind| all.iter().copied().filter(move |stretch| of_kind(stretch, kind));
    units.push(of(LogKind::Checkpoint).collect());
    units.extend(of(LogKind::Wal).map(|stretch| vec![stretch]));
    units.extend(of(LogKind::Wbl).map(|stretch| vec![stretch]));
    for unit in units.into_iter().filter(|unit| !unit.is_empty()) {
        let kind = logs[unit[0].log].kind;
        let read_file =
            |stretch: &Stretch| std::fs::read(&logs[stretch.log].segments[stretch.segment].path).unwrap();
        let bytes: Vec<Vec<u8>> = unit.iter().map(read_file).collect();
        let part = |(stretch, bytes)| {
            let (stretch, bytes): (&Stretch, &Vec<u8>) = (stretch, bytes);
            let index = logs[stretch.log].segments[stretch.segment].index;
            Part { dir: String::new(), index, source: bytes.as_slice(), length: bytes.len() as u64 }
        };
        let parts = unit.iter().zip(&bytes).map(part).collect();
        let reader = if kind == LogKind::Wbl { Reader::Wbl } else { Reader::Wal };
        match read(parts, reader, directory.version).error {
            None => start.replayed.extend(&unit),
            Some(ReplayError::Corrupt { corruption, .. }) => {
                is_decoding = matches!(corruption.class, Class::Decodes(_));
                let at = corruption.offset - u64::from(is_decoding);
                for (part, stretch) in unit.iter().enumerate().take(corruption.part + 1) {
                    let upto = (part == corruption.part).then_some(at);
                    start.replayed.push(Stretch { upto, ..*stretch });
                }
                failed = Some((*start.replayed.last().unwrap(), kind));
                break;
            }
            Some(other) => return Err(format!("{other:?}")),
        }
    }
    // What Repair leaves.
    let number = |stretch: &Stretch| logs[stretch.log].segments[stretch.segment].index;
    let Some((at, kind)) = failed else {
        start.left.clone_from(&all);
        return Ok(start);
    };
    let repairs_wbl = directory.version.repairs_wbl() || is_decoding;
    let repaired = if kind == LogKind::Wbl && repairs_wbl { LogKind::Wbl } else { LogKind::Wal };
    // The file that it is about to rewrite, wherever the error was.
    let mut in_repaired = logs.iter().filter(|log| log.kind == repaired).flat_map(|log| &log.segments);
    start.serves = in_repaired.any(|segment| segment.index == number(&at));
    for stretch in &all {
        if !of_kind(stretch, repaired) || number(stretch) < number(&at) {
            start.left.push(*stretch);
        } else if number(stretch) == number(&at) {
            start.left.push(Stretch { upto: at.upto, ..*stretch });
        }
    }
    Ok(start)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Times of samples, by the labels of their series.
type Series = BTreeMap<String, BTreeSet<i64>>;

/// What the newest version serves of its head, and what it says if it does not start. It changes the directory.
fn open(oracle: Oracle, data: &Path) -> Result<Series, String> {
    in_answer(&oracle.json(&["open", "--head"], data))
}

fn in_answer(answer: &Value) -> Result<Series, String> {
    for key in ["crash", "open_error", "query_error"] {
        if let Some(error) = answer[key].as_str() {
            return Err(format!("{key}: {error}"));
        }
    }
    let mut all = Series::new();
    for series in answer["series"].as_array().into_iter().flatten() {
        let labels = series["labels"].as_array().unwrap().iter();
        let labels =
            labels.map(|label| (label[0].as_str().unwrap().into(), label[1].as_str().unwrap().into()));
        let times = ["samples", "histograms"].iter().flat_map(|kind| series[kind].as_array().unwrap());
        all.insert(name(labels), times.map(|sample| sample[0].as_i64().unwrap()).collect());
    }
    Ok(all)
}

fn name(labels: impl Iterator<Item = (String, String)>) -> String {
    format!("{:?}", labels.collect::<Vec<_>>())
}

/// Those of `all` that are not among `others`.
fn without(all: &Series, others: &Series) -> Samples {
    let mut rest = Samples::default();
    for (labels, times) in all {
        let none = BTreeSet::new();
        let times: Vec<i64> = times.difference(others.get(labels).unwrap_or(&none)).copied().collect();
        if let (Some(&first), Some(&last)) = (times.first(), times.last()) {
            rest.series += 1;
            rest.samples += times.len() as u64;
            rest.min_time = Some(rest.min_time.map_or(first, |min| min.min(first)));
            rest.max_time = Some(rest.max_time.map_or(last, |max| max.max(last)));
        }
    }
    rest
}

/// Everything that can be had of a directory, sample by sample: the same question answered in the simplest possible way,
/// with all times in memory. What is in head chunks must be told.
fn ideal(path: &Path, times: &Times) -> Series {
    #[derive(Default)]
    struct Records(Vec<Vec<u8>>, Vec<(u64, u8)>);
    impl Visitor for Records {
        fn record(&mut self, record: &wal::Record<'_>, _contents: &Contents) {
            self.0.push(record.data.to_vec());
        }
        fn damage(&mut self, damage: Problem) {
            self.1.extend(damage.correction.map(|mended| (mended.at, mended.mask)));
        }
    }
    let listing = Target::find(path).unwrap().list().unwrap();
    let mut series: HashMap<u64, String> = HashMap::new();
    let mut all = Series::new();
    let mut last: HashMap<String, i64> = HashMap::new();
    let mut deleted: Vec<(String, i64, i64)> = Vec::new();
    let from = min_valid_time(&listing, &list_blocks(path).unwrap(), Version::NEWEST);
    for kind in [LogKind::Checkpoint, LogKind::Wal, LogKind::Wbl] {
        let Some(log) = listing.logs.iter().rfind(|log| log.kind == kind) else { continue };
        for segment in log.segments.iter().filter(|segment| segment.path.is_file()) {
            let mut bytes = std::fs::read(&segment.path).unwrap();
            let Records(_, flips) = salvage(&bytes[..], bytes.len() as u64, Reading::Prometheus);
            for (at, mask) in flips {
                bytes[usize::try_from(at).unwrap()] ^= mask;
            }
            let Records(records, _) = salvage(&bytes[..], bytes.len() as u64, Reading::Prometheus);
            for record in records {
                let mut take = |series_ref: u64, time: i64, stale: bool| {
                    let Some(labels) = series.get(&series_ref) else { return };
                    if kind != LogKind::Wbl {
                        if time < from {
                            return;
                        }
                        let last = last.entry(labels.clone()).or_insert(i64::MIN);
                        if time <= *last {
                            return;
                        }
                        *last = time;
                    }
                    if !stale {
                        all.entry(labels.clone()).or_default().insert(time);
                    }
                };
                match record::Record::parse(&record) {
                    record::Record::Samples(r) => r
                        .entries()
                        .flatten()
                        .for_each(|sample| take(sample.series_ref, sample.t, sample.value_bits == STALE)),
                    record::Record::Histograms(r) => r
                        .entries()
                        .flatten()
                        .filter(record::HistogramEntry::known_schema)
                        .for_each(|e| take(e.series_ref, e.t, e.histogram.sum_bits == STALE)),
                    record::Record::FloatHistograms(r) => r
                        .entries()
                        .flatten()
                        .filter(record::FloatHistogramEntry::known_schema)
                        .for_each(|e| take(e.series_ref, e.t, e.histogram.sum_bits == STALE)),
                    record::Record::Series(r) if kind != LogKind::Wbl => {
                        for entry in r.entries().flatten() {
                            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                            let labels = entry.labels.iter().map(|(name, value)| (text(name), text(value)));
                            series.insert(entry.series_ref, name(labels));
                        }
                    }
                    record::Record::Tombstones(r) if kind != LogKind::Wbl => {
                        for entry in r.entries().flatten() {
                            let Some(labels) = series.get(&entry.series_ref) else { continue };
                            if entry.deletes_series() {
                                all.remove(labels);
                                last.remove(labels);
                                series.remove(&entry.series_ref);
                            } else {
                                deleted.push((labels.clone(), entry.min_time, entry.max_time));
                            }
                        }
                    }
                    _ => {}
                }
                assert_ne!((kind, RecordType::of(&record)), (LogKind::Wbl, Some(RecordType::Series)));
            }
        }
    }
    for file in list_head_chunks(&path.join("chunks_head"), "").unwrap().files {
        for chunk in file.chunks().unwrap().flatten() {
            let key = (chunk.chunk_ref, chunk.series_ref, chunk.min_time, chunk.max_time, chunk.samples);
            if let (Some(labels), Some(times)) = (series.get(&chunk.series_ref), times.get(&key)) {
                let counts = |time: &&i64| chunk.out_of_order || **time >= from;
                all.entry(labels.clone()).or_default().extend(times.iter().filter(counts));
            }
        }
    }
    for (labels, min, max) in deleted {
        if let Some(times) = all.get_mut(&labels) {
            times.retain(|time| !(min <= *time && *time <= max));
        }
    }
    all.retain(|_, times| !times.is_empty());
    all
}

/// Counts a directory as it is and compares with what Prometheus then makes of it. Why not, if that says nothing.
fn compare(oracle: Oracle, path: &Path, what: &str) -> Result<(Samples, Samples), String> {
    let directory = Directory::of(path, Version::NEWEST);
    let start = first_start(&directory)?;
    let counted = directory.count(&[StartReads::default(), start]);
    let could_be_had = ideal(path, &Times::new());
    assert_eq!(counted[0].0, without(&could_be_had, &Series::new()), "{what}: all that could be had");
    assert_eq!(counted[0], (counted[0].0, counted[0].0), "{what}: a start that leaves nothing");
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    copy(path, &data);
    let (not_replayed, gone) = counted[1];
    match open(oracle, &data) {
        Ok(served) => assert_eq!(
            not_replayed,
            without(&could_be_had, &served),
            "{what}: not replayed of {could_be_had:?}, served {served:?}"
        ),
        Err(error) if error.starts_with("open_error: repair corrupted WAL: rename") => {
            assert_eq!(not_replayed, counted[0].0, "{what}: {error}");
        }
        Err(error) => return Err(error),
    }
    assert_eq!(gone, without(&could_be_had, &ideal(&data, &Times::new())), "{what}: gone");
    Ok((not_replayed, gone))
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// The directories in `testdata/damaged`, but for those that Prometheus does not open at all.
fn fixtures() -> Vec<PathBuf> {
    let mut fixtures: Vec<_> =
        std::fs::read_dir(testdata("damaged")).unwrap().map(|entry| entry.unwrap().path()).collect();
    fixtures.retain(|path| {
        path.is_dir() && !path.ends_with("gap_in_segments") && !path.ends_with("checkpoint_is_a_file")
    });
    fixtures.sort();
    assert!(fixtures.len() > 30, "fixtures are missing");
    fixtures
}

#[test]
fn fixtures_of_damage() {
    let oracle = oracle::judge("what is served");
    for path in fixtures() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (not_replayed, gone) = compare(oracle, &path, name).unwrap();
        note!("{name}: not replayed {}, gone {}", not_replayed.samples, gone.samples);
    }
}

/// What real servers served of the fixtures when they were made, version by version.
#[test]
fn servers_of_other_versions() {
    let mut compared = 0;
    for path in fixtures() {
        let fixture = std::fs::read(path.with_extension("json")).unwrap();
        let fixture: Value = serde_json::from_slice(&fixture).unwrap();
        for (version, starts) in fixture["prometheus"].as_object().unwrap() {
            let what = format!("{} {version}", path.file_name().unwrap().display());
            let directory = Directory::of(&path, version.parse().unwrap());
            let start = first_start(&directory).unwrap();
            let goes_on = start.serves;
            let counted = directory.count(&[StartReads::default(), start]);
            let (base, not_replayed) = (counted[0].0, counted[1].0);
            if starts[0]["outcome"] == "starts" {
                let real = starts[0]["samples"].as_u64();
                assert_eq!(Some(base.samples - not_replayed.samples), real, "{what}: {not_replayed:?}");
                compared += 1;
            } else {
                assert!(!goes_on && not_replayed == base, "{what}");
            }
        }
    }
    assert!(compared > 90, "{compared}");
}

/// One more damage, in any of the fixtures' logs, and in logs with records of all kinds.
#[test]
fn random_damages() {
    let oracle = oracle::judge("what is served");
    let written = tempfile::tempdir().unwrap();
    let mut originals = fixtures();
    // What a repair writes again of a record that only a correction makes one is taken for gone: its bytes are there, as a
    // record of a type that nobody knows.
    originals.retain(|path| !path.ends_with("compression_flag_off"));
    for seed in 0..12 {
        let data = written.path().join(seed.to_string());
        write(oracle, seed, &data);
        originals.push(data);
    }
    let (mut told, mut lost, mut reasons) = (0, 0, BTreeMap::<String, u32>::new());
    for seed in seeds(150) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let original = &originals[rng.usize(..originals.len())];
        copy(original, &data);
        let kind = KINDS[rng.usize(..KINDS.len())];
        let what = damage(&data, kind, |_| true, &mut rng);
        let what = format!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1: {} {what}", original.display());
        match compare(oracle, &data, &what) {
            Ok((not_replayed, _)) => {
                told += 1;
                lost += u64::from(not_replayed.samples > 0);
            }
            Err(why) => *reasons.entry(why).or_default() += 1,
        }
    }
    note!("{told} told, {lost} with a loss; nothing to compare with: {reasons:?}");
}

/// By runs the starts come to what they come to sample by sample: directories of several damages, with head chunks, damaged or
/// not, and starts that stop anywhere. No judge is needed but the slow way.
#[test]
fn by_runs_as_sample_by_sample() {
    let oracle = oracle::judge("directories with records of all kinds");
    let written = tempfile::tempdir().unwrap();
    let mut originals = fixtures();
    for seed in 0..12 {
        let data = written.path().join(seed.to_string());
        if seed % 2 == 0 {
            write(oracle, seed, &data);
        } else {
            with_head_chunks(oracle, seed, &data);
        }
        originals.push(data);
    }
    let mut lost = 0;
    for seed in seeds(200) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let original = &originals[rng.usize(..originals.len())];
        copy(original, &data);
        let mut what = format!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1: {}", original.display());
        for _ in 0..rng.u32(..4) {
            let kind = KINDS[rng.usize(..KINDS.len())];
            what += &damage(&data, kind, |_| true, &mut rng);
        }
        if rng.bool() && data.join("chunks_head").is_dir() {
            what += &damage_chunks(&data.join("chunks_head"), &mut rng);
        }
        note!("{what}");
        let version = if rng.u32(..4) == 0 { "2.42.0".parse().unwrap() } else { Version::NEWEST };
        let directory = Directory::of(&data, version);
        let all = directory.all();
        let mut starts = vec![StartReads::default()];
        starts.extend(first_start(&directory));
        for _ in 0..rng.usize(..3) {
            starts.push(StartReads {
                serves: rng.u32(..5) > 0,
                replayed: some_of(&all, &directory, &mut rng),
                left: some_of(&all, &directory, &mut rng),
                head_chunks_deleted: rng.bool(),
                snapshot: None,
            });
        }
        let counted = directory.count(&starts);
        lost += counted.iter().filter(|(not_replayed, _)| not_replayed.samples > 0).count();
    }
    note!("{lost} starts with a loss");
}

/// Some stretches of a directory, one of them cut anywhere.
fn some_of(all: &[Stretch], directory: &Directory, rng: &mut fastrand::Rng) -> Vec<Stretch> {
    let mut some: Vec<Stretch> = all.iter().copied().filter(|_| rng.u32(..5) > 0).collect();
    if let Some(stretch) = rng.choice(&mut some) {
        let segment = &directory.listing.logs[stretch.log].segments[stretch.segment];
        let bytes = std::fs::metadata(&segment.path).map_or(0, |metadata| metadata.len());
        stretch.upto = Some(rng.u64(..=bytes));
    }
    some
}

/// Damages one segment; says which and how.
fn damage(data: &Path, kind: &'static str, of: impl Fn(LogKind) -> bool, rng: &mut fastrand::Rng) -> String {
    let listing = Target::find(data).unwrap().list().unwrap();
    let logs = listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot && of(log.kind));
    let segments: Vec<&Path> =
        logs.flat_map(|log| &log.segments).map(|segment| segment.path.as_path()).collect();
    let least = if kind.contains("page") { 65536 } else { 1 };
    let long = segments.into_iter().filter(|path| path.metadata().unwrap().len() >= least);
    let Some(path) = rng.choice(long.collect::<Vec<_>>()) else { return "nothing".into() };
    let mut bytes = std::fs::read(path).unwrap();
    let within = 0..bytes.len();
    let damage = damage::apply(kind, &mut bytes, within, &[0], rng);
    std::fs::write(path, bytes).unwrap();
    format!("{} {damage:?}", path.strip_prefix(data).unwrap().display())
}

/// Logs with records of all kinds, refs and times in all orders.
fn write(oracle: Oracle, seed: u64, data: &Path) {
    let seed = seed.to_string();
    let args = ["--seed", &seed, "--compression", "mixed", "--records", "300", "--segment-bytes", "65536"];
    for (profile, log) in [("wal", "wal"), ("wbl", "wbl")] {
        oracle.write(&[&args[..], &["--profile", profile]].concat(), &data.join(log));
    }
}

#[test(long)]
fn logs_of_all_kinds() {
    let oracle = oracle::judge("what is served");
    for seed in seeds(20) {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        write(oracle, seed, &data);
        let what = format!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1");
        let (not_replayed, gone) = compare(oracle, &data, &what).unwrap();
        assert_eq!((not_replayed.samples, gone.samples), (0, 0), "{what}");
    }
}

/// Few refs for few series, recorded again and again, deleted, and given to others.
#[test]
fn refs_that_change_hands() {
    let oracle = oracle::judge("what is served");
    let mut lost = 0;
    for seed in seeds(150) {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let mut log = Log::new(seed);
        for segment in 0..log.rng.u32(1..5) {
            let mut bytes = Vec::new();
            log.has_samples = false;
            for _ in 0..log.rng.u32(1..20) {
                log.time += 1000;
                full(&log.record(), &mut bytes);
            }
            let wal = data.join("wal");
            std::fs::create_dir_all(&wal).unwrap();
            std::fs::write(wal.join(format!("{segment:08}")), bytes).unwrap();
            log.said.push_str(" |");
        }
        let what = format!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1:{}", log.said);
        let (not_replayed, gone) = compare(oracle, &data, &what).unwrap();
        assert_eq!(gone.samples, 0, "{what}");
        lost += u64::from(not_replayed.samples > 0);
    }
    note!("{lost} with a loss");
}

/// Writes records, and says what it has written.
struct Log {
    rng: fastrand::Rng,
    said: String,
    time: i64,
    /// By ref: the series.
    refs: Vec<Option<usize>>,
    /// Refs in use: no series gets the ref of one that was deleted.
    usable: Vec<usize>,
    /// Whether the segment has samples. Behind these no ref is given to another series: what becomes of the samples
    /// depends on how far Prometheus's threads are.
    has_samples: bool,
}

impl Log {
    fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            said: String::new(),
            time: 1_700_000_000_000,
            refs: vec![None; 6],
            usable: (1..6).collect(),
            has_samples: false,
        }
    }

    fn say(&mut self, what: &str) {
        self.said.push(' ');
        self.said.push_str(what);
    }

    fn a_ref(&mut self) -> usize {
        self.usable[self.rng.usize(..self.usable.len())]
    }

    fn record(&mut self) -> Vec<u8> {
        let mut record = Vec::new();
        match self.rng.u32(..12) {
            0..4 => {
                let number = self.a_ref();
                let series = match self.refs[number] {
                    Some(series) if self.has_samples => series,
                    _ => self.rng.usize(..3),
                };
                self.refs[number] = Some(series);
                self.say(&format!("{number}={series}"));
                let value = [b'a' + u8::try_from(series).unwrap()];
                let labels: [(&[u8], &[u8]); 1] = [(b"__name__", &value)];
                record::encode_series([(number as u64, labels)], &mut record);
            }
            4 => {
                let number = self.a_ref();
                let same = |usable: &usize| self.refs[*usable] == self.refs[number];
                let whole = self.rng.bool() && !self.usable.iter().all(same);
                self.usable.retain(|usable| !whole || self.refs[*usable] != self.refs[number]);
                let (min_time, max_time) = if whole {
                    (i64::MIN, i64::MAX)
                } else {
                    (self.time - self.rng.i64(0..20_000), self.time - self.rng.i64(0..5000))
                };
                self.say(&format!("-{number}{}", if whole { "!" } else { "" }));
                let tombstone = record::TombstoneEntry { series_ref: number as u64, min_time, max_time };
                record::encode_tombstones(&[tombstone], &mut record);
            }
            _ => {
                self.has_samples = true;
                let samples: Vec<_> = (0..self.rng.u32(1..5)).map(|_| self.sample()).collect();
                record::encode_samples(&samples, &mut record);
            }
        }
        record
    }

    fn sample(&mut self) -> record::SampleEntry {
        let before = if self.rng.u32(..4) == 0 { self.rng.i64(0..9000) } else { 0 };
        let (series_ref, t) = (self.rng.u64(1..6), self.time - before);
        let value_bits = if self.rng.u32(..8) == 0 { STALE } else { 0 };
        let stale = if value_bits == 0 { "" } else { "~" };
        self.say(&format!("{series_ref}@{}{stale}", t - 1_700_000_000_000));
        record::SampleEntry { series_ref, t, st: 0, value_bits }
    }
}

/// Appends a record in one fragment, in the next page if there is no room for it in this one.
fn full(record: &[u8], segment: &mut Vec<u8>) {
    const PAGE: usize = 32768;
    if segment.len() % PAGE + 7 + record.len() > PAGE {
        segment.resize(segment.len().next_multiple_of(PAGE), 0);
    }
    segment.push(1);
    segment.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
    segment.extend(crc32c::crc32c(record).to_be_bytes());
    segment.extend(record);
}

/// What a log of few records says: `Is(1, "a")`: ref 1 is series a; `Has(1, 10..15)`: it has samples at 10 to 14 s;
/// `Deleted(1)`: it was deleted as a whole.
enum Say {
    Is(u64, &'static str),
    Has(u64, std::ops::Range<i64>),
    Deleted(u64),
}
use Say::{Deleted, Has, Is};

fn segment(says: &[Say]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for say in says {
        let mut record = Vec::new();
        match say {
            Is(number, name) => {
                let labels: [(&[u8], &[u8]); 1] = [(b"__name__", name.as_bytes())];
                record::encode_series([(*number, labels)], &mut record);
            }
            Has(series_ref, times) => {
                let sample = |time: i64| {
                    let (series_ref, t) = (*series_ref, 1000 * time);
                    record::SampleEntry { series_ref, t, st: 0, value_bits: 0 }
                };
                record::encode_samples(&times.clone().map(sample).collect::<Vec<_>>(), &mut record);
            }
            Deleted(series_ref) => {
                let (min_time, max_time) = (i64::MIN, i64::MAX);
                let tombstone = record::TombstoneEntry { series_ref: *series_ref, min_time, max_time };
                record::encode_tombstones(&[tombstone], &mut record);
            }
        }
        full(&record, &mut bytes);
    }
    bytes
}

/// A directory of segments.
fn directory_of(segments: &[(&str, Vec<u8>)], version: Version) -> (Directory, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    for (path, bytes) in segments {
        let path = scratch.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    (Directory::of(scratch.path(), version), scratch)
}

fn samples(series: u64, samples: u64, min: i64, max: i64) -> Samples {
    Samples { series, samples, min_time: Some(1000 * min), max_time: Some(1000 * max) }
}

/// A start that reads all that Prometheus reads of a healthy directory, and leaves only that.
fn reads_all(directory: &Directory) -> StartReads {
    let all = directory.all();
    StartReads { serves: true, replayed: all.clone(), left: all, ..StartReads::default() }
}

/// A server died after it had made a checkpoint, before it had removed what it was made of.
#[test]
fn segments_that_a_checkpoint_was_made_of() {
    let low = segment(&[Is(1, "a"), Is(2, "b"), Has(1, 10..20), Has(2, 10..20), Has(1, 20..30)]);
    let checkpoint = segment(&[Is(1, "a"), Has(1, 15..20), Has(1, 20..30)]);
    let above = segment(&[Has(1, 30..40)]);
    let whole = [
        ("wal/00000000", low.clone()),
        ("wal/checkpoint.00000000/00000000", checkpoint.clone()),
        ("wal/00000001", above.clone()),
    ];
    // What the checkpoint was not to keep stands there all the same.
    let (directory, _scratch) = directory_of(&whole, Version::NEWEST);
    let counted = directory.count(&[StartReads::default(), reads_all(&directory)]);
    assert_eq!(counted[0].0, samples(2, 35, 10, 39));
    assert_eq!(counted[1], (samples(2, 10, 10, 14), samples(2, 10, 10, 14)));

    // Its second record of samples is damaged; the segment has them too.
    let mut damaged = checkpoint;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    damaged[last - 50] ^= 1;
    let segments =
        [("wal/00000000", low), ("wal/checkpoint.00000000/00000000", damaged), ("wal/00000001", above)];
    let (directory, _scratch) = directory_of(&segments, Version::NEWEST);
    let mut start = reads_all(&directory);
    start.left = (0..2).map(|log| Stretch { log, segment: 0, upto: None }).collect();
    let counted = directory.count(&[StartReads::default(), start]);
    assert_eq!(counted[0].0, samples(2, 40, 10, 39));
    // Its reader stops at the damage.
    assert_eq!(counted[1].0, samples(2, 25, 10, 29));
    assert_eq!(counted[1].1, samples(1, 10, 30, 39));
}

/// A damaged checkpoint made a server begin anew: segments count from 0 again, and refs from where it had stopped reading.
#[test]
fn segments_of_a_server_that_began_anew() {
    let mut checkpoint = segment(&[Is(1, "a"), Is(2, "b"), Has(1, 10..20), Has(2, 10..20)]);
    // Not one bit, which could be had.
    checkpoint[40..44].fill(0xff);
    let segments = [
        ("wal/checkpoint.00000005/00000000", checkpoint),
        ("wal/00000000", segment(&[Is(2, "c"), Has(1, 30..35), Has(2, 30..35)])),
        ("wal/00000001", segment(&[Has(2, 35..40)])),
    ];
    let (directory, _scratch) = directory_of(&segments, Version::NEWEST);
    let start = first_start(&directory).unwrap();
    let counted = directory.count(&[StartReads::default(), start]);
    // Of b nothing can be had, since its series record is damaged; c is 30 to 39.
    assert_eq!(counted[0].0, samples(2, 25, 10, 39));
    assert_eq!(counted[1].0, samples(2, 25, 10, 39));
}

/// From 3.10 on such a tombstone goes with a block of the series. Before, it is one like others, over all time.
#[test]
fn a_series_that_was_deleted_as_a_whole() {
    let log = segment(&[Is(1, "a"), Has(1, 10..20), Deleted(1), Is(2, "a"), Has(2, 20..25)]);
    let segments = [("wal/00000000", log)];
    for (version, missing) in [("3.10", Samples::default()), ("3.5", samples(1, 5, 20, 24))] {
        let (directory, _scratch) = directory_of(&segments, version.parse().unwrap());
        let counted = directory.count(&[StartReads::default(), reads_all(&directory)]);
        assert_eq!(counted[0].0, samples(1, 5, 20, 24), "{version}");
        assert_eq!(counted[1], (missing, Samples::default()), "{version}");
    }
}

/// Blocks tell from what time on the WAL counts; which of them, depends on the version.
#[test]
fn samples_that_are_in_blocks() {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("wal")).unwrap();
    let log = segment(&[Is(1, "a"), Has(1, 10..60)]);
    std::fs::write(data.path().join("wal/00000000"), log).unwrap();
    let blocks = [
        ("01M7ZS9S4NDJN0ZC8B8F93HKE1", 0, 20_000, ""),
        ("01M7ZS9S4NDJN0ZC8B8F93HKE2", 1, 15_000, ""),
        ("01M7ZS9S4NDJN0ZC8B8F93HKE3", 0, 30_000, "from-selected-series"),
        ("01M7ZS9S4NDJN0ZC8B8F93HKE4", 0, 40_000, "from-stale-series"),
        ("01M7ZS9S4NDJN0ZC8B8F93HKE5", 0, 50_000, "from-out-of-order"),
    ];
    for (name, min, max, hint) in blocks {
        std::fs::create_dir(data.path().join(name)).unwrap();
        let hints = if hint.is_empty() { String::new() } else { format!("\"{hint}\"") };
        let meta = format!(
            "{{\"version\":1,\"minTime\":{min},\"maxTime\":{max},\"compaction\":{{\"hints\":[{hints}]}}}}"
        );
        std::fs::write(data.path().join(name).join("meta.json"), meta).unwrap();
    }
    for (version, from) in [("3.14", 20), ("3.10", 30), ("3.9", 40), ("2.42", 40), ("2.38", 15)] {
        let directory = Directory::of(data.path(), version.parse().unwrap());
        assert_eq!(directory.min_valid_time, 1000 * from, "{version}");
        let base = directory.count(&[StartReads::default()])[0].0;
        assert_eq!(base, samples(1, u64::try_from(60 - from).unwrap(), from, 59), "{version}");
    }
    // From 3.16 on a checkpoint may begin with a time of its own.
    let mut first = Vec::new();
    record::encode_min_valid_time(55_000, &mut first);
    let mut checkpoint = Vec::new();
    full(&first, &mut checkpoint);
    std::fs::create_dir(data.path().join("wal/checkpoint.00000000")).unwrap();
    std::fs::write(data.path().join("wal/checkpoint.00000000/00000000"), checkpoint).unwrap();
    for (version, from) in [("3.16", 55), ("3.15", 20)] {
        let directory = Directory::of(data.path(), version.parse().unwrap());
        assert_eq!(directory.min_valid_time, 1000 * from, "{version}");
    }
}

/// Several starts in one pass count as each of them alone.
#[test]
fn several_starts_at_once() {
    let path = testdata("damaged/checkpoint_samples_damaged");
    let directory = Directory::of(&path, Version::NEWEST);
    let nothing = StartReads { serves: true, ..StartReads::default() };
    let starts = [first_start(&directory).unwrap(), reads_all(&directory), StartReads::default(), nothing];
    let alone: Vec<_> = starts.iter().map(|start| directory.count(std::slice::from_ref(start))[0]).collect();
    assert_eq!(directory.count(&starts), alone);
    assert_ne!(alone[0], alone[1]);
    assert_eq!(alone[2], alone[3]);
}

/// Types that a version does not know stand there all the same.
#[test]
fn records_of_newer_versions() {
    let sample = record::SampleEntry { series_ref: 1, t: 20_000, st: 1, value_bits: 0 };
    let mut newer = Vec::new();
    record::encode_samples_v2(&[sample], &mut newer);
    let mut log = segment(&[Is(1, "a"), Has(1, 10..12)]);
    full(&newer, &mut log);
    let segments = [("wal/00000000", log)];
    for (version, missing) in [("3.11", Samples::default()), ("3.10", samples(1, 1, 20, 20))] {
        let (directory, _scratch) = directory_of(&segments, version.parse().unwrap());
        let counted = directory.count(&[StartReads::default(), reads_all(&directory)]);
        assert_eq!(counted[0].0, samples(1, 3, 10, 20), "{version}");
        assert_eq!(counted[1], (missing, Samples::default()), "{version}");
    }
}

/// Head chunks, the WAL that they are from and a WBL; a checkpoint that has lost samples which are in chunks.
#[test]
fn damaged_head_chunks() {
    let oracle = oracle::judge("what is served");
    let originals = tempfile::tempdir().unwrap();
    let originals: Vec<(PathBuf, Times)> = (0..6)
        .map(|seed| {
            let data = originals.path().join(seed.to_string());
            with_head_chunks(oracle, seed, &data);
            let times = times_in_chunks(oracle, &data);
            (data, times)
        })
        .collect();
    let (mut deleted, mut lost) = (0, 0);
    for seed in seeds(120) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (original, times) = &originals[rng.usize(..originals.len())];
        let what = format!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1: {}", original.display());
        let (error, not_replayed) = damage_and_compare(oracle, original, times, false, &what, &mut rng);
        deleted += u64::from(error);
        lost += u64::from(not_replayed.samples > 0);
    }
    note!("{deleted} with deleted chunks, {lost} with a loss");
}

/// Directories that servers have made, damaged.
#[test]
fn damaged_directories_of_servers() {
    let oracle = oracle::judge("what is served");
    let originals: Vec<(PathBuf, Times)> = directories()
        .into_iter()
        .filter(|path| path.join("chunks_head").is_dir())
        .map(|path| {
            let times = times_in_chunks(oracle, &path);
            (path, times)
        })
        .collect();
    if originals.is_empty() {
        return;
    }
    let (mut deleted, mut lost) = (0, 0);
    for seed in seeds(60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (original, times) = &originals[rng.usize(..originals.len())];
        let what = format!("WALFIX_FIRST_SEED={seed} WALFIX_SEEDS=1: {}", original.display());
        let (error, not_replayed) = damage_and_compare(oracle, original, times, true, &what, &mut rng);
        deleted += u64::from(error);
        lost += u64::from(not_replayed.samples > 0);
    }
    note!("{deleted} with deleted chunks, {lost} with a loss");
}

/// Damages a copy, and compares what is counted with what Prometheus makes of it. Whether head chunks are deleted, and what
/// is not replayed.
fn damage_and_compare(
    oracle: Oracle,
    original: &Path,
    times: &Times,
    is_of_server: bool,
    what: &str,
    rng: &mut fastrand::Rng,
) -> (bool, Samples) {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    copy(original, &data);
    let mut what = what.to_owned();
    if rng.u32(..4) > 0 {
        what.push_str(&damage_chunks(&data.join("chunks_head"), rng));
    }
    if rng.bool() {
        let kind = KINDS[rng.usize(..KINDS.len())];
        // How many samples of a chunk out of order a damaged WBL has lost is not known.
        what.push_str(&damage(&data, kind, |log| log != LogKind::Wbl, rng));
    }
    let directory = Directory::of(&data, Version::NEWEST);
    let Ok(start) = first_start(&directory) else { return Default::default() };
    let counted = directory.count(&[StartReads::default(), start]);
    let could_be_had = ideal(&data, times);
    let all = without(&could_be_had, &Series::new());
    let of = is_of_server.then_some(all);
    assert_alike(counted[0].0, all, of, &format!("{what}: all that could be had"));
    let opened = scratch.path().join("opened");
    copy(&data, &opened);
    let (not_replayed, gone) = counted[1];
    let answer = oracle.json(&["open", "--head"], &opened);
    assert_eq!(directory.chunks.error, chunk_error(&answer, &opened), "{what}");
    match in_answer(&answer) {
        Ok(served) => {
            let expected = without(&could_be_had, &served);
            assert_alike(not_replayed, expected, of, &format!("{what}: not replayed"));
        }
        Err(error) if error.contains("repair corrupted WAL: rename") => {
            assert_eq!(not_replayed, counted[0].0, "{what}: {error}");
        }
        Err(error) => {
            assert!(directory.chunks.refusal.is_some(), "{what}: {error}");
            return Default::default();
        }
    }
    let expected = without(&could_be_had, &ideal(&opened, times));
    assert_alike(gone, expected, of, &format!("{what}: gone"));
    (directory.chunks.error.is_some(), not_replayed)
}

/// What the server logs when it cannot load head chunks.
fn chunk_error(answer: &Value, data: &Path) -> Option<String> {
    let lines = answer["log"].as_array().unwrap();
    let line = lines.iter().find(|line| line["msg"] == "Loading on-disk chunks failed")?;
    Some(line["err"].as_str().unwrap().replace(data.to_str().unwrap(), "data"))
}

/// Exact but for the times: of samples that are in chunks only these are known from the chunks' bounds. With real servers also
/// but for one in a hundred of `all`: which file has the chunk that a marker speaks of is not known where chunks have been written
/// again; and what a start takes from a record that cannot be proven may be what else only a deleted chunk has.
fn assert_alike(counted: Samples, expected: Samples, all: Option<Samples>, what: &str) {
    let differ = counted.samples.abs_diff(expected.samples);
    if differ > 0 && all.is_some_and(|all| differ * 100 < all.samples) {
        note!("{what}: {} and not {}", counted.samples, expected.samples);
        return;
    }
    assert_eq!(
        (counted.samples, counted.series),
        (expected.samples, expected.series),
        "{what}: {expected:?}"
    );
    assert!(
        counted.min_time <= expected.min_time && expected.max_time <= counted.max_time,
        "{what}: {expected:?}"
    );
}

/// Times of the samples in a chunk, by its place, its series, its bounds and how many samples it has.
type Times = HashMap<(u64, u64, i64, i64, u16), Vec<i64>>;

fn times_in_chunks(oracle: Oracle, data: &Path) -> Times {
    let read = oracle.json(&["chunks", "--decode"], &data.join("chunks_head"));
    let of_chunk = |chunk: &Value| {
        let number = |key: &str| chunk[key].as_str().unwrap().parse::<i128>().unwrap();
        let key = (
            u64::try_from(number("chunk_ref")).unwrap(),
            u64::try_from(number("ref")).unwrap(),
            i64::try_from(number("min_time")).unwrap(),
            i64::try_from(number("max_time")).unwrap(),
            u16::try_from(chunk["peeked"].as_u64().unwrap()).unwrap(),
        );
        (key, chunk["times"].as_array().unwrap().iter().map(|time| time.as_i64().unwrap()).collect())
    };
    read["chunks"].as_array().unwrap().iter().map(of_chunk).collect()
}

fn with_head_chunks(oracle: Oracle, seed: u64, data: &Path) {
    const SERIES: u64 = 6;
    let mut rng = fastrand::Rng::with_seed(seed);
    let start = 1_700_000_000_000;
    let mut series = Vec::new();
    for number in 1..=SERIES {
        let value = [b'a' + u8::try_from(number).unwrap()];
        let labels: [(&[u8], &[u8]); 1] = [(b"__name__", &value)];
        let mut record = Vec::new();
        record::encode_series([(number, labels)], &mut record);
        full(&record, &mut series);
    }
    let wal = data.join("wal");
    std::fs::create_dir_all(&wal).unwrap();
    let scrapes = |from: i64, to: i64, rng: &mut fastrand::Rng| {
        let mut bytes = Vec::new();
        for scrape in from..to {
            let mut samples = Vec::new();
            for series_ref in 1..=SERIES {
                let t = start + scrape * 15_000 + i64::try_from(series_ref).unwrap();
                if rng.u32(..40) > 0 {
                    samples.push(record::SampleEntry { series_ref, t, st: 0, value_bits: rng.u64(..) >> 2 });
                }
            }
            let mut record = Vec::new();
            record::encode_samples(&samples, &mut record);
            full(&record, &mut bytes);
        }
        bytes
    };
    let first = scrapes(0, 150, &mut rng);
    std::fs::write(wal.join("00000000"), [series.clone(), first].concat()).unwrap();
    std::fs::write(wal.join("00000001"), scrapes(150, 300, &mut rng)).unwrap();
    std::fs::write(wal.join("00000002"), scrapes(300, 420, &mut rng)).unwrap();
    let wbl = data.join("wbl");
    std::fs::create_dir_all(&wbl).unwrap();
    let mut bytes = Vec::new();
    for batch in 0..rng.i64(3..20) {
        for series_ref in 1..=SERIES / 2 {
            let samples: Vec<_> = (0..8)
                .map(|i| record::SampleEntry {
                    series_ref,
                    t: start + 4_500_000 + (batch * 8 + (i * 5) % 8) * 7000 + 500,
                    st: 0,
                    value_bits: 0,
                })
                .collect();
            let mut record = Vec::new();
            // As a server does that begins a new chunk after 32 samples.
            if batch > 0 && batch % 4 == 0 {
                let marker = record::MmapMarkerEntry { series_ref, mmap_ref: (1 << 32) | 8 };
                record::encode_mmap_markers(&[marker], &mut record);
                full(&record, &mut bytes);
                record.clear();
            }
            record::encode_samples(&samples, &mut record);
            full(&record, &mut bytes);
        }
    }
    std::fs::write(wbl.join("00000000"), bytes).unwrap();
    open(oracle, data).unwrap();
    if rng.bool() {
        // What a checkpoint keeps of the first segment: no samples, since these are older than the head.
        let checkpoint = wal.join("checkpoint.00000000");
        std::fs::create_dir(&checkpoint).unwrap();
        std::fs::remove_file(wal.join("00000000")).unwrap();
        std::fs::write(checkpoint.join("00000000"), series).unwrap();
    }
}

/// Damages one file of head chunks; says which and how.
fn damage_chunks(directory: &Path, rng: &mut fastrand::Rng) -> String {
    let listed = list_head_chunks(directory, "").unwrap();
    let Some(file) = rng.choice(&listed.files) else { return "no chunks".into() };
    let mut bytes = std::fs::read(&file.path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 1;
    let at = rng.usize(8.min(end - 1)..end);
    let what = match rng.u32(..4) {
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            bytes[at..].fill(0);
            format!("zeros from {at}")
        }
        _ => {
            bytes[at] ^= 1 << rng.u32(..8);
            format!("bit at {at}")
        }
    };
    std::fs::write(&file.path, bytes).unwrap();
    format!(" {}: {what};", file.name)
}

#[test]
fn healthy_directories() {
    let oracle = oracle::judge("what is served");
    for path in directories() {
        let directory = Directory::of(&path, Version::NEWEST);
        let all = directory.all();
        let start = StartReads { serves: true, replayed: all.clone(), left: all, ..StartReads::default() };
        let counted = directory.count(&[StartReads::default(), start]);
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        copy(&path, &data);
        let served = open(oracle, &data).unwrap();
        let all = without(&served, &Series::new());
        assert_eq!(counted[0].0, all, "{}: all that could be had", path.display());
        assert_eq!(counted[1], Default::default(), "{}: a start that reads all", path.display());
        note!("{}: {} samples", path.display(), all.samples);
    }
}

fn directories() -> Vec<PathBuf> {
    let knob = std::env::var("WALFIX_DIRECTORIES").unwrap_or_default();
    let mut found = vec![testdata("damaged/healthy")];
    let mut rest: Vec<PathBuf> = knob.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
    while let Some(directory) = rest.pop() {
        if directory.join("wal").is_dir() {
            found.push(directory);
            continue;
        }
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                rest.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
