//! Where the series records with the highest refs are lost, a fence keeps Prometheus from handing these refs out again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::exporter::{Exporter, Shape};
use support::heads::{self, Chunk};
use support::oracle::{self, Oracle};
use support::server::{Options, Servers, Version, copy_directory};
use support::test;
use walfix::record::{SampleEntry, encode_samples, encode_series};
use walfix::repair::plan::Change;
use walfix::repair::{self, Lock, Plan};
use walfix::scan::scan;
use walfix::tsdb::Target;
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

/// 2026-01-01T00:00:00Z, ms.
const START: i64 = 1_767_225_600_000;
const STEP: i64 = 15_000;
/// Enough that there are chunks that are full, and written to `chunks_head`.
const SCRAPES: i64 = 300;
/// Of six series: three in the first segment, three in the second.
const HIGHEST: u64 = 6;

fn series(refs: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let names: Vec<String> = refs.clone().map(|number| format!("series_{number}")).collect();
    let mut record = Vec::new();
    let labels = names.iter().map(|name| [(&b"__name__"[..], name.as_bytes())]);
    encode_series(refs.zip(labels), &mut record);
    record
}

fn samples(refs: std::ops::RangeInclusive<u64>, scrape: i64) -> Vec<u8> {
    let mut record = Vec::new();
    let t = START + scrape * STEP;
    let value_bits = 1.5f64.to_bits();
    let entries: Vec<_> = refs.map(|series_ref| SampleEntry { series_ref, t, st: 0, value_bits }).collect();
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

/// A data directory with head chunks, before any damage.
fn healthy(oracle: Oracle, data: &Path) {
    fs::create_dir_all(data.join("wal")).unwrap();
    let first = [series(1..=3), samples(1..=3, 0)];
    let second = [series(4..=HIGHEST)].into_iter().chain((1..SCRAPES).map(|n| samples(1..=HIGHEST, n)));
    fs::write(data.join("wal/00000000"), segment(first)).unwrap();
    fs::write(data.join("wal/00000001"), segment(second)).unwrap();
    let opened = oracle.json(&["open", "--summary"], data);
    assert_eq!(opened["num_series"], HIGHEST);
    let chunks = oracle.json(&["chunks"], &data.join("chunks_head"));
    let highest = Value::from(HIGHEST.to_string());
    let mut written = chunks["chunks"].as_array().unwrap().iter();
    assert!(written.any(|chunk| chunk["ref"] == highest), "{chunks}");
}

/// The series record of the second segment is overwritten; or all of that segment.
fn damage(data: &Path, whole_segment: bool) {
    let path = data.join("wal/00000001");
    let mut bytes = fs::read(&path).unwrap();
    let end = if whole_segment { bytes.len() } else { 40 };
    bytes[..end].fill(0xA5);
    fs::write(path, bytes).unwrap();
}

fn repaired(data: &Path) -> Plan {
    let target = Target::find(data).unwrap();
    let lock = Lock::take(data).unwrap();
    let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
    let plan = repair::plan(&target, &report, None, repair::Options::default()).unwrap();
    repair::apply(&target, &plan, &data.with_extension("backup"), &lock).unwrap();
    plan
}

/// The segment that holds the fence.
fn fence(plan: &Plan) -> &str {
    let created = plan.steps.iter().filter(|step| matches!(step.change, Change::Create { .. }));
    let created = created.map(|step| step.change.path());
    let created: Vec<_> = created.filter(|path| !path.starts_with("walfix-lost.")).collect();
    let [fence] = created[..] else { panic!("{:?}", plan.steps) };
    fence
}

/// How many samples of a series are served.
fn samples_of(report: &Value, name: &str) -> Option<usize> {
    let series = report["series"].as_array().unwrap().iter();
    let mut named = series.filter(|series| series["labels"][0][1] == name);
    Some(named.next()?["samples"].as_array().unwrap().len())
}

#[test]
fn new_series_get_refs_that_nobody_had() {
    let oracle = oracle::judge("the fence");
    for whole_segment in [false, true] {
        let root = support::scratch();
        let data = root.path().join("data");
        healthy(oracle, &data);
        damage(&data, whole_segment);
        let plan = repaired(&data);
        let fence = fence(&plan);

        // Without it a new series gets the ref of one that is lost, and after a start its chunks.
        let without = root.path().join("without");
        copy_directory(&data, &without).unwrap();
        fs::remove_file(without.join(fence)).unwrap();
        let opened = oracle.json(&["open", "--head", "--append", "--again"], &without);
        assert_eq!(opened["appended"], 4);
        assert!(samples_of(&opened["again"], "oracle_appended") > Some(1), "the fence is needed no more");

        let opened = oracle.json(&["open", "--head", "--append", "--checkpoint", "--again"], &data);
        assert!(opened["appended"].as_u64().unwrap() > HIGHEST, "{}", opened["appended"]);
        for report in [&opened, &opened["again"]] {
            for error in ["open_error", "close_error", "query_error", "checkpoint_error", "crash"] {
                assert!(report[error].is_null(), "{error}: {}", report[error]);
            }
            assert_eq!(samples_of(report, "oracle_appended"), Some(1));
            assert_eq!(samples_of(report, "walfix_fence"), None);
            assert!(samples_of(report, "series_3") >= Some(1));
            assert_eq!(samples_of(report, "series_6"), None);
        }
    }
}

/// A head chunk of two samples.
fn chunk(series_ref: u64) -> Chunk {
    Chunk { series_ref, from: START, step: STEP, samples: 2, value: 1.5, out_of_order: false }
}

/// A segment of the log of which a repair of Prometheus's has left the original, and what is there now instead.
struct HalfRepaired {
    original: Vec<u8>,
    now: Option<Vec<u8>>,
    /// The number of the segment, and segments before it.
    number: usize,
}

impl HalfRepaired {
    fn write(&self, data: &Path, chunks: &[Chunk]) {
        fs::create_dir_all(data.join("wal")).unwrap();
        fs::create_dir_all(data.join("chunks_head")).unwrap();
        for number in 0..self.number {
            fs::write(data.join(format!("wal/{number:08}")), segment([series(1..=1), samples(1..=1, 0)]))
                .unwrap();
        }
        fs::write(data.join(format!("wal/{:08}.repair", self.number)), &self.original).unwrap();
        if let Some(now) = &self.now {
            fs::write(data.join(format!("wal/{:08}", self.number)), now).unwrap();
            fs::write(data.join(format!("wal/{:08}", self.number + 1)), b"").unwrap();
        }
        fs::write(data.join("chunks_head/000001"), heads::file(chunks)).unwrap();
    }
}

/// Fences that a plan makes: the path and the ref.
fn fences(plan: &Plan) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for step in &plan.steps {
        let Change::Create { path, bytes } = &step.change else { continue };
        if path.starts_with("walfix-lost.") {
            continue;
        }
        for record in support::pristine::records(bytes) {
            if let walfix::record::Record::Series(series) = walfix::record::Record::parse(&record.data) {
                all.extend(series.entries().flatten().map(|entry| (path.clone(), entry.series_ref)));
            }
        }
    }
    all
}

/// Of a state: the segment, another file, the ref of the fence, and what head chunks have.
type Case = (Vec<u8>, Option<Vec<u8>>, u64, Option<u64>);

/// What the other steps put back counts: a fence takes no ref that a restored segment defines, stands behind the last segment
/// that there is then, and is above all that is restored.
#[test]
fn a_fence_is_made_for_what_the_other_steps_leave() {
    let whole = |refs: std::ops::RangeInclusive<u64>| segment([series(refs.clone()), samples(refs, 1)]);
    let with_unknown = segment([series(2..=5), samples(2..=9, 1)]);
    let damaged = {
        let mut bytes = segment([series(2..=5), samples(2..=5, 1), series(6..=8), samples(6..=8, 2)]);
        let last = support::pristine::records(&bytes).pop().unwrap().offset();
        bytes[last + 12] ^= 0xFF;
        bytes[last + 14] ^= 0xFF;
        bytes
    };
    let prefix = segment([series(2..=5)]);
    // The original, what stands in its place, the highest ref in head chunks; the ref of the fence, if one is needed.
    let cases: [Case; 9] = [
        (whole(2..=8), Some(Vec::new()), 5, None),
        (whole(2..=8), Some(Vec::new()), 8, None),
        (whole(2..=8), Some(Vec::new()), 9, Some(10)),
        (whole(2..=8), None, 5, None),
        (whole(2..=8), None, 9, Some(10)),
        (with_unknown.clone(), Some(prefix.clone()), 1, Some(10)),
        (with_unknown, None, 1, Some(10)),
        (damaged.clone(), Some(prefix), 8, None),
        (damaged, None, 12, Some(13)),
    ];
    for (which, (original, now, in_chunks, expected)) in cases.into_iter().enumerate() {
        for number in [0, 1] {
            let root = support::scratch();
            let data = root.path().join("data");
            let state = HalfRepaired { original: original.clone(), now: now.clone(), number };
            if state.now.is_none() && number == 0 {
                // Nothing would show that there is a log.
                continue;
            }
            state.write(&data, &[chunk(1), chunk(in_chunks)]);
            let plan = repaired(&data);
            let what = format!("case {which}, segment {number}");
            assert!(plan.left.is_empty(), "{what}: {:?}", plan.left);
            let behind = format!("wal/{:08}", number + 1 + usize::from(state.now.is_some()));
            let expected: Vec<_> =
                expected.into_iter().map(|series_ref| (behind.clone(), series_ref)).collect();
            assert_eq!(fences(&plan), expected, "{what}");
            let target = Target::find(&data).unwrap();
            let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
            let codes: Vec<_> = report.findings.iter().map(|finding| finding.code.name()).collect();
            let is_harmless = |code: &&str| ["unknown_refs", "empty_segment"].contains(code);
            assert!(codes.iter().all(is_harmless), "{what}: {codes:?}");
            assert!(
                report.refs.defined > report.refs.unknown.max(Some(in_chunks - 1)),
                "{what}: {:?}",
                report.refs
            );
            let after = repair::plan(&target, &report, None, repair::Options::default()).unwrap();
            assert!(after.steps.is_empty(), "{what}: {:?}", after.steps);
        }
    }
}

/// Refs in a chunk snapshot that stays are handed out again as well, by a server without the feature.
#[test]
fn a_fence_is_above_a_chunk_snapshot() {
    let root = support::scratch();
    let data = root.path().join("data");
    fs::create_dir_all(data.join("wal")).unwrap();
    fs::create_dir_all(data.join("chunk_snapshot.000000.0000000000")).unwrap();
    let mut torn = segment([series(1..=3), samples(1..=3, 0)]);
    torn.extend([1, 0, 9, 1, 2, 3]);
    fs::write(data.join("wal/00000000"), torn).unwrap();
    // Ref, labels (one pair), no chunk.
    let mut snapshot = vec![1];
    snapshot.extend(7_u64.to_be_bytes());
    snapshot.extend([1, 1, b'a', 1, b'b']);
    snapshot.extend([0; 8]);
    snapshot.push(0);
    let path = data.join("chunk_snapshot.000000.0000000000/00000000");
    fs::write(path, segment([snapshot])).unwrap();
    let plan = repaired(&data);
    assert_eq!(fences(&plan), [("wal/00000001".to_owned(), 8)]);
}

#[test(long)]
fn a_server_counts_on_from_the_fence() {
    let oracle = oracle::judge("the fence with servers");
    Servers::each("the fence", |server| {
        if server.version < Version(3, 0, 0) {
            return Ok(());
        }
        let root = support::scratch();
        let data = root.path().join("data");
        healthy(oracle, &data);
        damage(&data, false);
        let plan = repaired(&data);
        fence(&plan);
        let exporter = Exporter::start(Shape::default())?;
        let config = exporter.config(Duration::from_millis(200), false);
        let options = Options { config, ..Options::default() };
        let mut running = server.start(&data, &options)?.ready()?;
        running.wait_for("2 scrapes", Duration::from_secs(60), |_| Ok(exporter.scrapes() > 2))?;
        assert!(running.samples("{__name__=\"walfix_fence\"}", None)?.is_empty());
        assert_eq!(
            running.query("count({__name__=\"walfix_fence\"})", None)?["result"],
            serde_json::json!([])
        );
        let exited = running.stop()?;
        assert!(!exited.log.to_string().to_lowercase().contains("corrupt"), "{}", exited.log);
        let mut new = 0;
        oracle.dump(&[], &data.join("wal"), |line| {
            if line["type"] != "series" {
                return;
            }
            for entry in line["entries"].as_array().unwrap() {
                if entry["labels"].to_string().contains("walfix_requests_total") {
                    new += 1;
                    let series_ref: u64 = entry["ref"].as_str().unwrap().parse().unwrap();
                    assert!(series_ref > HIGHEST, "{entry}");
                }
            }
        });
        assert!(new > 0, "nothing was scraped");
        Ok::<(), support::server::Error>(())
    })
    .unwrap();
}
