//! Head chunks that are missing, damaged, or of a run that is gone: found, mended, and put back. What is served then is asked of
//! Prometheus's own packages, and of real servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::heads::{self, Chunk};
use support::oracle::{self, Oracle};
use support::server::{Options, Servers, copy_directory};
use support::test;
use support::tree;
use walfix::forecast::report::{Forecast, Outcome};
use walfix::forecast::{Assumed, forecast};
use walfix::record::{SampleEntry, encode_samples, encode_series};
use walfix::repair::{self, Lock, Plan};
use walfix::scan::Scan;
use walfix::scan::report::Severity;
use walfix::scan::scan;
use walfix::tsdb::Target;
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

/// 2026-01-01T00:00:00Z, ms.
const START: i64 = 1_767_225_600_000;
const STEP: i64 = 15_000;
/// What samples of a run that is gone have, and those of the one that is there.
const OLD: f64 = 1000.5;
const NEW: f64 = 1.5;

type Refs = std::ops::RangeInclusive<u64>;

fn series(refs: Refs, name: &str) -> Vec<u8> {
    let names: Vec<String> = refs.clone().map(|number| format!("{name}_{number}")).collect();
    let mut record = Vec::new();
    encode_series(refs.zip(names.iter().map(|name| [(&b"__name__"[..], name.as_bytes())])), &mut record);
    record
}

fn samples(refs: Refs, scrape: i64) -> Vec<u8> {
    let (t, value_bits) = (START + scrape * STEP, NEW.to_bits());
    let entries: Vec<_> = refs.map(|series_ref| SampleEntry { series_ref, t, st: 0, value_bits }).collect();
    let mut record = Vec::new();
    encode_samples(&entries, &mut record);
    record
}

fn segment(records: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut writer = SegmentWriter::new(Vec::new());
    for record in records {
        writer.record(Compression::None, &record).unwrap();
    }
    writer.finish().unwrap()
}

/// A run: its series, and scrapes of them.
fn run(refs: Refs, name: &str, scrapes: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    [series(refs.clone(), name)].into_iter().chain(scrapes.map(|n| samples(refs.clone(), n))).collect()
}

fn chunk(series_ref: u64, scrapes: std::ops::Range<i64>, value: f64) -> Chunk {
    let samples = u16::try_from(scrapes.end - scrapes.start).unwrap();
    Chunk { series_ref, from: START + scrapes.start * STEP, step: STEP, samples, value, out_of_order: false }
}

fn chunks(refs: Refs, scrapes: std::ops::Range<i64>, value: f64) -> Vec<Chunk> {
    refs.map(|series_ref| chunk(series_ref, scrapes.clone(), value)).collect()
}

/// Files of a data directory.
type Files = Vec<(&'static str, Vec<u8>)>;

fn write(data: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = data.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

struct Look {
    report: Scan,
    forecast: Option<Forecast>,
    plan: Plan,
}

impl Look {
    fn at(data: &Path) -> Self {
        let target = Target::find(data).unwrap();
        let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
        let forecast = forecast(&target, &report, Assumed::default()).unwrap();
        let plan = repair::plan(&target, &report, forecast.as_ref(), repair::Options::default()).unwrap();
        Self { report, forecast, plan }
    }

    /// Codes of damage.
    fn damage(&self) -> Vec<&'static str> {
        let mut codes: Vec<_> =
            self.report.of_severity(Severity::Damage).map(|finding| finding.code.name()).collect();
        codes.dedup();
        codes
    }

    fn finding(&self, code: &str) -> &walfix::scan::report::Finding {
        self.report.findings.iter().find(|finding| finding.code.name() == code).unwrap()
    }

    fn wrong_labels(&self) -> u64 {
        let starts = self.forecast.iter().flat_map(|forecast| &forecast.starts);
        starts.map(|start| start.wrong_labels.samples).max().unwrap_or(0)
    }
}

/// Applies what a look at the directory comes to.
fn apply(data: &Path, plan: &Plan, backup: &Path) {
    let lock = Lock::take(data).unwrap();
    repair::apply(&Target::find(data).unwrap(), plan, backup, &lock).unwrap();
}

/// What is there, the lock aside.
fn contents(data: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut tree = tree::tree(data);
    tree.remove("lock");
    tree.into_iter().map(|(path, entry)| (path, entry.bytes)).collect()
}

/// Repairs, undoes that, repairs again, and looks.
fn repaired(data: &Path, what: &str) -> Look {
    let before = contents(data);
    let looked = Look::at(data);
    assert!(looked.plan.left.is_empty(), "{what}: {:?}", looked.plan.left);
    assert!(!looked.plan.steps.is_empty(), "{what}: nothing is done");
    let backup = data.with_extension("backup");
    apply(data, &looked.plan, &backup);
    repair::undo(&backup).unwrap();
    assert!(contents(data) == before, "{what}: the repair cannot be undone");
    apply(data, &Look::at(data).plan, &data.with_extension("backup-2"));
    let after = Look::at(data);
    assert_eq!(after.damage(), [""; 0], "{what}: {:?}", after.report.findings);
    assert!(after.plan.steps.is_empty(), "{what}: {:?}", after.plan.steps);
    if let Some(forecast) = &after.forecast {
        let [start] = &*forecast.starts else { panic!("{what}: {forecast:?}") };
        assert_eq!((start.outcome, &start.error), (Outcome::Starts, &None), "{what}");
        assert!(start.deletes.is_empty(), "{what}: {:?}", start.deletes);
    }
    after
}

/// By name, value and time of each sample that Prometheus's packages serve of the head.
fn served(oracle: Oracle, data: &Path) -> BTreeMap<String, usize> {
    let opened = oracle.json(&["open", "--head"], data);
    for error in ["open_error", "query_error", "crash"] {
        assert!(opened[error].is_null(), "{error}: {}", opened[error]);
    }
    let all = opened["series"].as_array().unwrap().iter();
    all.map(|series| {
        (series["labels"][0][1].as_str().unwrap().to_owned(), series["samples"].as_array().unwrap().len())
    })
    .collect()
}

/// States in which refs of head chunks have been handed out again, how many samples are served under wrong labels, and how
/// many of its own each new series has.
fn of_other_series() -> Vec<(&'static str, Files, u64, usize)> {
    let new = || segment(run(1..=20, "new", 500..560));
    let cut_to_nothing = vec![0; 32768];
    let mut mixed = chunks(1..=20, 70..130, OLD);
    mixed.extend(chunks(1..=20, 500..530, NEW));
    let mut late = chunks(1..=20, 0..60, OLD);
    let between = chunk(7, 20..40, OLD);
    late.insert(3, Chunk { from: between.from + 7_000, out_of_order: true, ..between });
    // Prometheus has cut the log behind ref 5, and has counted on from there.
    let cut = run(1..=5, "kept", 0..100);
    let first = segment(cut.into_iter().chain(run(6..=20, "new", 500..560)));
    let partly = chunks(1..=20, 0..60, OLD)
        .into_iter()
        .map(|chunk| Chunk { value: if chunk.series_ref <= 5 { NEW } else { OLD }, ..chunk });
    vec![
        (
            "wal removed",
            vec![("chunks_head/000001", heads::file(&chunks(1..=20, 0..60, OLD))), ("wal/00000000", new())],
            1200,
            60,
        ),
        (
            "several files, and the last has chunks of both runs",
            vec![
                ("chunks_head/000004", heads::file(&chunks(1..=20, 0..60, OLD))),
                ("chunks_head/000005", heads::file(&mixed)),
                ("wal/00000000", segment(run(1..=20, "new", 500..640))),
            ],
            2400,
            140,
        ),
        (
            "samples out of order among them",
            vec![("chunks_head/000001", heads::file(&late)), ("wal/00000000", new())],
            1220,
            60,
        ),
        (
            "cut to nothing by Prometheus",
            vec![
                ("chunks_head/000001", heads::file(&chunks(1..=20, 0..60, OLD))),
                ("wal/00000000", cut_to_nothing),
                ("wal/00000001", new()),
            ],
            1200,
            60,
        ),
        (
            "cut by Prometheus in the midst",
            vec![("chunks_head/000001", heads::file(&partly.collect::<Vec<_>>())), ("wal/00000000", first)],
            900,
            60,
        ),
        (
            "removed twice",
            vec![
                ("chunks_head/000001", heads::file(&chunks(1..=30, 0..60, OLD))),
                ("chunks_head/000002", heads::file(&chunks(1..=10, 100..160, OLD))),
                ("wal/00000000", new()),
            ],
            1800,
            60,
        ),
    ]
}

#[test]
fn chunks_of_a_run_that_is_gone() {
    let oracle = oracle::judge_of_part("head chunks of a run that is gone");
    for (what, files, wrong, of_each) in of_other_series() {
        let root = support::scratch();
        let data = root.path().join("data");
        write(&data, &files);
        let before = Look::at(&data);
        assert_eq!(before.damage()[0], "head_chunks_of_other_series", "{what}: {:?}", before.report.findings);
        assert_eq!(before.wrong_labels(), wrong, "{what}");
        if let Some(oracle) = oracle {
            let copy = root.path().join("copy");
            copy_directory(&data, &copy).unwrap();
            let served = served(oracle, &copy);
            let strange: usize =
                served.iter().filter(|(name, _)| name.starts_with("new")).map(|(_, &n)| n - of_each).sum();
            assert_eq!(strange as u64, wrong, "{what}: {served:?}");
        }
        let after = repaired(&data, what);
        assert_eq!(after.wrong_labels(), 0, "{what}");
        if let Some(oracle) = oracle {
            let served = served(oracle, &data);
            let new = served.iter().filter(|(name, _)| name.starts_with("new"));
            assert!(
                new.clone().count() > 0 && new.into_iter().all(|(_, &n)| n == of_each),
                "{what}: {served:?}"
            );
        }
    }
}

#[test(long)]
fn servers_serve_nothing_under_wrong_labels() {
    Servers::each("head chunks of a run that is gone", |server| {
        for (what, files, ..) in of_other_series() {
            let root = support::scratch();
            let data = root.path().join("data");
            write(&data, &files);
            repaired(&data, what);
            let running = server.start(&data, &Options::default())?.ready()?;
            let all = running.samples(
                "{__name__=~\"new.*\"}",
                Some(f64::from(i32::try_from(START / 1000).unwrap()) + 20_000.0),
            )?;
            assert!(!all.is_empty(), "{what}");
            for (name, samples) in all {
                assert!(
                    samples.iter().all(|(_, value)| *value == NEW.to_string()),
                    "{what}: {name}: {samples:?}"
                );
            }
            let exited = running.stop()?;
            assert!(exited.log.complaint().is_none(), "{what}: {}", exited.log);
        }
        Ok::<(), support::server::Error>(())
    })
    .unwrap();
}

/// Refs that are yet to be handed out again.
#[test]
fn chunks_whose_refs_come_again() {
    let old = || heads::file(&chunks(1..=20, 0..60, OLD));
    let cases: Vec<(&str, Files, &str)> = vec![
        ("no log", vec![("chunks_head/000001", old())], "head_chunks_without_series"),
        (
            "an empty one",
            vec![("chunks_head/000001", old()), ("wal/00000000", vec![])],
            "head_chunks_without_series",
        ),
        (
            "one that Prometheus has cut",
            vec![("chunks_head/000001", old()), ("wal/00000000", segment(run(1..=5, "kept", 0..100)))],
            "head_chunks_without_series",
        ),
    ];
    for (what, files, code) in cases {
        let root = support::scratch();
        let data = root.path().join("data");
        write(&data, &files);
        assert_eq!(Look::at(&data).damage(), [code], "{what}");
        let after = repaired(&data, what);
        let stays = what.contains("cut");
        let names: Vec<String> = contents(&data).into_keys().collect();
        assert_eq!(names.iter().any(|name| name == "chunks_head/000001"), stays, "{what}: {names:?}");
        assert_eq!(after.report.refs.defined, stays.then_some(21), "{what}");
    }
}

/// What is no sign of another run.
#[test]
fn chunks_that_are_where_they_belong() {
    let own = || heads::file(&chunks(1..=20, 0..60, NEW));
    let whole = run(1..=20, "new", 0..200);
    // The first samples are lost, and bytes that say nothing stand there.
    let mut filled = whole.clone();
    filled.splice(1..90, [vec![2]]);
    let mut in_front = run(21..=22, "other", 100..101);
    in_front.extend(run(1..=20, "new", 0..200).into_iter().skip(1));
    for (what, files) in [
        ("healthy", vec![("chunks_head/000001", own()), ("wal/00000000", segment(whole.clone()))]),
        ("filled", vec![("chunks_head/000001", own()), ("wal/00000000", segment(filled))]),
        (
            "a sample before the series",
            vec![
                ("chunks_head/000001", own()),
                (
                    "wal/00000000",
                    segment([samples(1..=20, 0)].into_iter().chain(run(1..=20, "new", 100..150))),
                ),
            ],
        ),
        (
            "a segment after another that has lost all",
            vec![
                ("chunks_head/000001", own()),
                ("wal/00000000", segment([series(1..=20, "new")])),
                ("wal/00000001", segment((100..200).map(|n| samples(1..=20, n)))),
            ],
        ),
    ] {
        let root = support::scratch();
        let data = root.path().join("data");
        write(&data, &files);
        let look = Look::at(&data);
        assert_eq!(look.damage(), [""; 0], "{what}: {:?}", look.report.findings);
        assert_eq!(look.wrong_labels(), 0, "{what}");
    }
}

/// Labels that a repair has written back stand in front of samples that are not the first ones of their series.
#[test]
fn labels_that_were_written_back_are_no_new_run() {
    let root = support::scratch();
    let data = root.path().join("data");
    let whole = segment(run(1..=20, "new", 0..200));
    let mut damaged = whole.clone();
    damaged[10..20_000].fill(0xA5);
    // Of another number, so that it does not come back as a whole.
    write(
        &data,
        &vec![
            ("chunks_head/000001", heads::file(&chunks(1..=20, 0..60, NEW))),
            ("wal/00000000", damaged),
            ("wal/00000001", segment((200..210).map(|n| samples(1..=20, n)))),
            ("wal/00000000.repair", whole),
        ],
    );
    let look = Look::at(&data);
    let found: u64 = look.plan.labels.found.iter().map(|found| found.series).sum();
    assert_eq!(found, 20, "{:?}", look.plan.labels);
    apply(&data, &look.plan, &data.with_extension("backup"));
    let after = Look::at(&data);
    assert_eq!(after.damage(), [""; 0], "{:?}", after.report.findings);
}

/// Files that are missing, or damaged.
#[test]
fn files_that_are_missing_or_damaged() {
    let oracle = oracle::judge_of_part("head chunk files that are missing or damaged");
    let log = || ("wal/00000000", segment(run(1..=20, "new", 0..300)));
    let file = |scrapes| heads::file(&chunks(1..=20, scrapes, NEW));
    let changed = |at: usize, mask: u8| {
        let mut bytes = file(0..60);
        bytes[at] ^= mask;
        bytes
    };
    let one = chunk(1, 0..60, NEW).bytes().len();
    let mut short = file(0..60);
    short.truncate(8 + 3 * one + 40);
    let torn = short.clone();
    let late = |number: i64| file(60 * number..60 * (number + 1));
    let cases: Vec<(&str, Files, Option<&str>, usize)> = vec![
        (
            "one is missing",
            vec![log(), ("chunks_head/000001", file(0..60)), ("chunks_head/000003", late(1))],
            Some("head_chunks_not_sequential"),
            1,
        ),
        (
            "two are missing, twice",
            vec![
                log(),
                ("chunks_head/000007", file(0..60)),
                ("chunks_head/000010", late(1)),
                ("chunks_head/000013", late(2)),
            ],
            Some("head_chunks_not_sequential"),
            1,
        ),
        (
            "zeros",
            vec![log(), ("chunks_head/000001", vec![0; 65536]), ("chunks_head/000002", late(1))],
            Some("head_chunks_header"),
            0,
        ),
        (
            "a bit of the magic number",
            vec![log(), ("chunks_head/000001", changed(2, 4)), ("chunks_head/000002", late(1))],
            Some("head_chunks_header"),
            2,
        ),
        (
            "a bit of the version",
            vec![log(), ("chunks_head/000001", changed(4, 2))],
            Some("head_chunks_header"),
            1,
        ),
        (
            "an empty one",
            vec![log(), ("chunks_head/000001", vec![]), ("chunks_head/000002", late(1))],
            Some("head_chunks_header"),
            0,
        ),
        (
            "one that is too short",
            vec![log(), ("chunks_head/000001", vec![1, 0x30, 0xBC]), ("chunks_head/000002", late(1))],
            Some("head_chunks_header"),
            0,
        ),
        (
            "the last without magic number, but with chunks",
            vec![
                log(),
                ("chunks_head/000001", {
                    let mut bytes = file(0..60);
                    bytes[..8].fill(0);
                    bytes
                }),
            ],
            Some("head_chunks_header"),
            1,
        ),
        (
            "a bit of a chunk",
            vec![log(), ("chunks_head/000001", changed(8 + one + 30, 1))],
            Some("damaged_head_chunk"),
            1,
        ),
        (
            "a bit of a ref",
            vec![log(), ("chunks_head/000001", changed(8 + one + 5, 1))],
            Some("damaged_head_chunk"),
            1,
        ),
        (
            "a bit of the first chunk",
            vec![log(), ("chunks_head/000001", changed(8 + 40, 1)), ("chunks_head/000002", late(1))],
            Some("damaged_head_chunk"),
            0,
        ),
        (
            "a bit of a length",
            vec![log(), ("chunks_head/000001", changed(8 + one + 25, 0x80)), ("chunks_head/000002", late(1))],
            Some("damaged_head_chunk"),
            0,
        ),
        (
            "a file that is cut, and others behind it",
            vec![log(), ("chunks_head/000001", short), ("chunks_head/000002", late(1))],
            Some("damaged_head_chunk"),
            0,
        ),
        (
            "the same chunks twice",
            vec![log(), ("chunks_head/000001", file(0..60)), ("chunks_head/000002", file(0..60))],
            Some("head_chunks_out_of_sequence"),
            2,
        ),
        ("the last is torn", vec![log(), ("chunks_head/000001", torn)], None, 1),
        (
            "a name of one digit",
            vec![log(), ("chunks_head/1", file(0..60)), ("chunks_head/000002", late(1))],
            Some("misnamed_head_chunks"),
            2,
        ),
        (
            "a name of eight digits, twice",
            vec![log(), ("chunks_head/00000001", file(0..60)), ("chunks_head/00000002", late(1))],
            Some("misnamed_head_chunks"),
            2,
        ),
        (
            "the same number twice",
            vec![
                log(),
                ("chunks_head/000001", file(0..60)),
                ("chunks_head/1", file(0..60)),
                ("chunks_head/00000001", file(0..60)),
            ],
            Some("misnamed_head_chunks"),
            1,
        ),
        (
            "a missing one and a bit",
            vec![log(), ("chunks_head/000001", changed(8 + one + 30, 1)), ("chunks_head/000003", late(1))],
            Some("damaged_head_chunk"),
            0,
        ),
    ];
    for (what, files, code, stays) in cases {
        let root = support::scratch();
        let data = root.path().join("data");
        write(&data, &files);
        let look = Look::at(&data);
        let Some(code) = code else {
            assert_eq!(look.damage(), [""; 0], "{what}: {:?}", look.report.findings);
            assert_eq!(look.finding("damaged_head_chunk").severity, Severity::Note, "{what}");
            continue;
        };
        assert!(look.damage().contains(&code), "{what}: {:?}", look.report.findings);
        let before = contents(&data);
        let refused = look.forecast.as_ref().unwrap().starts[0].outcome == Outcome::Refuses;
        if let Some(oracle) = oracle {
            let copy = root.path().join("copy");
            copy_directory(&data, &copy).unwrap();
            let opened = oracle.json(&["open", "--summary"], &copy);
            assert_eq!(!opened["open_error"].is_null(), refused, "{what}: {}", opened["open_error"]);
        }
        repaired(&data, what);
        let after = contents(&data);
        // Nothing is cut, and no chunk moves.
        for (path, bytes) in &before {
            if let Some(now) = after.get(path) {
                let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(Vec::len);
                assert_eq!(length(now), length(bytes), "{what}: {path}");
            }
        }
        let kept = after.keys().filter(|path| path.starts_with("chunks_head/")).count();
        assert_eq!(kept, stays, "{what}: {:?}", after.keys());
        if let Some(oracle) = oracle {
            let served = served(oracle, &data);
            assert_eq!(served.len(), 20, "{what}");
            assert!(served.values().all(|&n| n == 300), "{what}: {served:?}");
        }
    }
}

/// A chunk that says it has another number of samples, under a checksum that is right.
fn recounted(chunk: Chunk, count: u16) -> Vec<u8> {
    let mut bytes = chunk.bytes();
    let end = bytes.len() - 4;
    bytes[26..28].copy_from_slice(&count.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// What a query of all of the head gives, with its error.
fn queried(oracle: Oracle, data: &Path) -> (serde_json::Value, Option<String>) {
    let opened = oracle.json(&["open", "--head"], data);
    assert!(opened["open_error"].is_null() && opened["crash"].is_null(), "{opened}");
    (opened["series"].clone(), opened["query_error"].as_str().map(str::to_owned))
}

/// Chunks whose checksum is right, and whose samples cannot be had: a start loads them, and takes nothing of their time from
/// the log. What is served afterwards is what was served before the damage, as far as the log has it.
#[test]
fn chunks_that_cannot_be_decoded() {
    let oracle = oracle::judge_of_part("head chunks that cannot be decoded");
    // Of each ref three chunks; two files. `count` is of the chunk of ref 7 that begins at `damaged`.
    let files = |damaged: i64, count: u16| {
        let file = |parts: &[i64]| {
            let mut bytes = heads::file(&[]);
            bytes.truncate(8);
            for &from in parts {
                for chunk in chunks(1..=20, from..from + 60, NEW) {
                    let is_it = chunk.series_ref == 7 && from == damaged;
                    bytes.extend(if is_it { recounted(chunk, count) } else { chunk.bytes() });
                }
            }
            bytes.resize(bytes.len() + 100, 0);
            bytes
        };
        [("chunks_head/000001", file(&[0, 60])), ("chunks_head/000002", file(&[120]))]
    };
    let log = || run(1..=20, "new", 0..300);
    // Its series record is there, and samples after the chunks; bytes that say nothing are where others were.
    let cut_log = || {
        let mut records = log();
        records.splice(1..=180, [vec![2]]);
        records
    };
    let only_chunks = || vec![series(1..=20, "new")];
    for (what, records, damaged, count, skipped, lost) in [
        ("the first of three", log(), 0, 60_000, 3, 0),
        ("the second, and the third is in another file", log(), 60, 60_000, 2, 0),
        ("the last", log(), 120, 60_000, 1, 0),
        ("it has no samples", log(), 60, 0, 2, 0),
        ("it ends before it says", log(), 60, 50, 2, 0),
        ("the log has nothing of that time", cut_log(), 0, 60_000, 1, 60),
        ("the log has no samples", only_chunks(), 120, 60_000, 1, 60),
        ("the log has no samples, and some are of other times", only_chunks(), 60, 50, 1, 60),
    ] {
        let root = support::scratch();
        let (data, healthy) = (root.path().join("data"), root.path().join("healthy"));
        let state = |count| {
            let mut state = Files::from(files(damaged, count));
            state.push(("wal/00000000", segment(records.clone())));
            state
        };
        write(&healthy, &state(60));
        assert_eq!(Look::at(&healthy).damage(), [""; 0], "{what}: {:?}", Look::at(&healthy).report.findings);
        write(&data, &state(count));
        let look = Look::at(&data);
        assert_eq!(look.damage(), ["damaged_head_chunk"], "{what}: {:?}", look.report.findings);
        let before = contents(&data);
        let of_healthy = oracle.map(|oracle| {
            let copy = root.path().join("copy");
            copy_directory(&data, &copy).unwrap();
            let (all, error) = queried(oracle, &healthy);
            assert_eq!(error, None, "{what}");
            let (damaged, error) = queried(oracle, &copy);
            // The error of a chunk is lost as soon as a later one of the series is read.
            let is_last = matches!(&*records, [_]) && damaged_is_last(&look);
            assert_eq!(error.is_some(), is_last, "{what}: {error:?}");
            assert_ne!(damaged, all, "{what}");
            all
        });
        repaired(&data, what);
        let unknown = walfix::tsdb::list_head_chunks(&data.join("chunks_head"), "chunks_head").unwrap().files;
        let unknown = unknown.iter().flat_map(|file| file.chunks().unwrap()).filter(|chunk| {
            let chunk = chunk.as_ref().unwrap();
            assert!(chunk.encoding == 1 || chunk.series_ref == 7, "{what}: {chunk:?}");
            chunk.encoding == 0x7f
        });
        assert_eq!(unknown.count(), skipped, "{what}");
        let after = contents(&data);
        for (path, bytes) in before.iter().filter(|(path, _)| path.starts_with("chunks_head/")) {
            assert_eq!(after[path].as_ref().map(Vec::len), bytes.as_ref().map(Vec::len), "{what}: {path}");
        }
        if let (Some(oracle), Some(mut wanted)) = (oracle, of_healthy) {
            let (served, error) = queried(oracle, &data);
            assert_eq!(error, None, "{what}");
            for series in wanted.as_array_mut().unwrap() {
                if lost > 0 && series["labels"][0][1] == "new_7" {
                    let samples = series["samples"].as_array_mut().unwrap();
                    let (from, to) = (START + damaged * STEP, START + (damaged + 60) * STEP);
                    let all = samples.len();
                    samples.retain(|sample| !(from..to).contains(&sample[0].as_i64().unwrap()));
                    assert_eq!(all - samples.len(), lost, "{what}");
                }
            }
            assert_eq!(served, wanted, "{what}");
        }
    }
}

/// So it is with a chunk of late samples, which no sample of the WAL has to wait for: the WBL has what was in it, unless it is
/// gone.
#[test]
fn late_chunks_that_cannot_be_decoded() {
    let oracle = oracle::judge("late head chunks that cannot be decoded");
    let name = serde_json::json!([["__name__", "m"]]);
    let sample = |t: i64, v: i64| serde_json::json!({"labels": name, "t": START + t, "v": v});
    let in_order: Vec<_> = (0..300).map(|n| sample(n * STEP, n)).collect();
    let late: Vec<_> = (200..290).map(|n| sample(n * STEP + 7_000, n)).collect();
    let growth = serde_json::json!({
        "window": 1_800_000,
        "quiet": true,
        "steps": [{"append": in_order}, {"append": late}, {"mmap": true}],
    });
    let root = support::scratch();
    let grown = root.path().join("grown");
    fs::create_dir(&grown).unwrap();
    let told = oracle.told(&["grow"], &grown, &growth);
    assert_eq!(told["grown"], true, "{told}");
    for (what, has_wbl) in [("with a WBL", true), ("without one", false)] {
        let (data, healthy) = (root.path().join(what), root.path().join(format!("healthy {what}")));
        for to in [&data, &healthy] {
            copy_directory(&grown, to).unwrap();
            if !has_wbl {
                fs::remove_dir_all(to.join("wbl")).unwrap();
            }
        }
        assert_eq!(Look::at(&healthy).damage(), [""; 0], "{what}");
        let (mut wanted, error) = queried(oracle, &healthy);
        assert_eq!(error, None, "{what}");
        let files = walfix::tsdb::list_head_chunks(&data.join("chunks_head"), "chunks_head").unwrap().files;
        let chunk = files[0].chunks().unwrap().map(Result::unwrap).find(|chunk| chunk.out_of_order).unwrap();
        let mut bytes = fs::read(&files[0].path).unwrap();
        let start = usize::try_from(chunk.chunk_ref & u64::from(u32::MAX)).unwrap();
        let end = usize::try_from(chunk.end).unwrap() - 4;
        let count = bytes[start + 25..].iter().position(|&byte| byte < 0x80).unwrap() + start + 26;
        bytes[count..count + 2].copy_from_slice(&60_000_u16.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[start..end]).to_be_bytes();
        bytes[end..end + 4].copy_from_slice(&checksum);
        fs::write(&files[0].path, bytes).unwrap();
        assert_eq!(Look::at(&data).damage(), ["damaged_head_chunk"], "{what}");
        repaired(&data, what);
        if !has_wbl {
            let samples = wanted[0]["samples"].as_array_mut().unwrap();
            let all = samples.len();
            samples.retain(|sample| {
                let t = sample[0].as_i64().unwrap();
                (t - START) % STEP == 0 || !(chunk.min_time..=chunk.max_time).contains(&t)
            });
            assert_eq!(all - samples.len(), usize::from(chunk.samples), "{what}");
        }
        assert_eq!(queried(oracle, &data), (wanted, None), "{what}");
    }
}

/// Whether what has been found is in the last chunk of its series, and cannot be decoded.
fn damaged_is_last(look: &Look) -> bool {
    let finding = look.finding("damaged_head_chunk");
    finding.path == "chunks_head/000002" && finding.message().contains("cannot be decoded")
}

/// A start takes from the log no sample that is older than the last head chunk of its series.
#[test]
fn what_hides_samples_goes() {
    let oracle = oracle::judge_of_part("head chunks that hide samples");
    let files = |names: &[(&'static str, std::ops::Range<i64>)]| -> Files {
        let mut all: Files = vec![("wal/00000000", segment(run(1..=20, "new", 0..300)))];
        all.extend(
            names.iter().map(|(name, scrapes)| (*name, heads::file(&chunks(1..=20, scrapes.clone(), NEW)))),
        );
        all
    };
    for (what, files, hidden) in [
        ("all are there", files(&[("chunks_head/000001", 0..60), ("chunks_head/000002", 60..120)]), 0),
        ("the first is gone", files(&[("chunks_head/000002", 60..120)]), 1200),
        ("two are gone", files(&[("chunks_head/000003", 120..180), ("chunks_head/000004", 180..240)]), 2400),
    ] {
        let root = support::scratch();
        let data = root.path().join("data");
        write(&data, &files);
        let look = Look::at(&data);
        let start = &look.forecast.as_ref().unwrap().starts[0];
        assert_eq!(start.hidden_by_head_chunks.samples, hidden, "{what}");
        assert_eq!(start.not_replayed.samples, hidden, "{what}");
        let lacks = |served: &BTreeMap<String, usize>| served.values().map(|n| 300 - *n as u64).sum::<u64>();
        if let Some(oracle) = oracle {
            let copy = root.path().join("copy");
            copy_directory(&data, &copy).unwrap();
            assert_eq!(lacks(&served(oracle, &copy)), hidden, "{what}");
        }
        if hidden == 0 {
            assert!(look.plan.steps.is_empty(), "{what}: {:?}", look.plan.steps);
            continue;
        }
        assert_eq!(start.outcome, Outcome::Loses, "{what}");
        repaired(&data, what);
        if let Some(oracle) = oracle {
            assert_eq!(lacks(&served(oracle, &data)), 0, "{what}");
        }
    }
}
