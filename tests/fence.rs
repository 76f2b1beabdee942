//! Where the series records with the highest refs are lost, a fence keeps Prometheus from handing these refs out again.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use support::exporter::{Exporter, Shape};
use support::oracle::{self, Oracle};
use support::server::{Options, Servers, Version, copy_directory};
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
    let of_highest = chunks["chunks"].as_array().unwrap().iter();
    assert!(of_highest.filter(|chunk| chunk["ref"] == HIGHEST.to_string()).count() > 0, "{chunks}");
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
    let created: Vec<_> = created.map(|step| step.change.path()).collect();
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
    let Some(oracle) = oracle::judge("the fence") else { return };
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

#[test]
fn a_server_counts_on_from_the_fence() {
    let Some(oracle) = oracle::judge("the fence with servers") else { return };
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
