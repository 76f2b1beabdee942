//! Every reader passes over fillings (`src/repair/fill.rs`), of whatever length and wherever in a page they stand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::oracle;
use support::server::{Options, Servers, Version, label_text};
use support::test;
use walfix::record::{SampleEntry, encode_samples, encode_series};
use walfix::repair::fill::{fill, fill_to_page_end};
use walfix::scan::report::Verdict;
use walfix::scan::scan;
use walfix::tsdb::Target;

const PAGE: usize = 32768;
/// 2026-01-01T00:00:00Z, ms.
const START: i64 = 1_767_225_600_000;
const STEP: i64 = 15_000;
const SERIES: u64 = 3;

/// A segment, and how many samples each series has in it.
struct Filled {
    bytes: Vec<u8>,
    samples: i64,
}

impl Filled {
    /// Fillings of all lengths, each with records of samples before and behind it.
    fn new() -> Self {
        let mut filled = Self { bytes: Vec::new(), samples: 0 };
        let names: Vec<String> = (0..SERIES).map(|number| number.to_string()).collect();
        let series = (1..).zip(&names).map(|(series_ref, name)| {
            let labels = [(&b"__name__"[..], &b"filled"[..]), (b"number", name.as_bytes())];
            (series_ref, labels)
        });
        let mut record = Vec::new();
        encode_series(series, &mut record);
        filled.put(&record);
        for length in [8].into_iter().chain(10..=40).chain([64, 100, 512, 4096, 10_000]) {
            filled.scrape();
            filled.add(fill(length).unwrap());
        }
        // As much as a page has room for, from a page end on.
        for left in (1..=40).chain([PAGE]) {
            filled.scrape();
            let room = PAGE - filled.bytes.len() % PAGE;
            filled.add(fill(room - left % PAGE).unwrap());
            filled.add(fill_to_page_end(left));
            assert_eq!(filled.bytes.len() % PAGE, 0);
        }
        filled.scrape();
        // Several pages in a row, and one that is filled before the segment ends within the next.
        filled.add(fill_to_page_end(PAGE - filled.bytes.len() % PAGE));
        filled.add(fill_to_page_end(PAGE));
        filled.add(fill_to_page_end(PAGE));
        filled.scrape();
        filled
    }

    fn add(&mut self, bytes: Vec<u8>) {
        self.bytes.extend(bytes);
    }

    /// A record in one fragment, as `WL.log` in `tsdb/wlog/wlog.go` writes it.
    fn put(&mut self, data: &[u8]) {
        if PAGE - self.bytes.len() % PAGE < 7 + data.len() {
            self.bytes.resize(self.bytes.len().next_multiple_of(PAGE), 0);
        }
        self.bytes.push(1);
        self.bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.bytes.extend(crc32c::crc32c(data).to_be_bytes());
        self.bytes.extend(data);
    }

    /// A sample of each series.
    fn scrape(&mut self) {
        let t = START + self.samples * STEP;
        #[expect(clippy::cast_precision_loss, reason = "they are few")]
        let value_bits = (self.samples as f64).to_bits();
        let samples: Vec<_> =
            (1..=SERIES).map(|series_ref| SampleEntry { series_ref, t, st: 0, value_bits }).collect();
        let mut record = Vec::new();
        encode_samples(&samples, &mut record);
        self.put(&record);
        self.samples += 1;
    }

    fn write(&self, data: &Path) {
        fs::create_dir_all(data.join("wal")).unwrap();
        fs::write(data.join("wal/00000000"), &self.bytes).unwrap();
    }

    /// What a server serves of it.
    fn served(&self) -> BTreeMap<String, Vec<(i64, String)>> {
        let samples: Vec<_> = (0..self.samples).map(|n| (START + n * STEP, n.to_string())).collect();
        let labels = |number: u64| {
            let labels = [("__name__", "filled".to_owned()), ("number", number.to_string())];
            label_text(&labels.map(|(name, value)| (name.to_owned(), value)).into())
        };
        (0..SERIES).map(|number| (labels(number), samples.clone())).collect()
    }

    /// Of all series.
    fn count(&self) -> i64 {
        self.samples * i64::try_from(SERIES).unwrap()
    }

    #[expect(clippy::cast_precision_loss, reason = "it is a time")]
    fn end(&self) -> f64 {
        (START + self.samples * STEP) as f64 / 1000.0
    }
}

#[test]
fn walfix_finds_nothing_wrong() {
    let (filled, data) = (Filled::new(), tempfile::tempdir().unwrap());
    filled.write(data.path());
    let report = scan(&Target::find(data.path()).unwrap(), &walfix::scan::Options::default(), &()).unwrap();
    assert_eq!(report.verdict, Verdict::Clean);
    // Seven zeros at a page end: no writer leaves them, since a header alone has room there, and every reader passes over
    // them.
    let findings: Vec<_> =
        report.findings.iter().map(|f| (f.code.name(), f.end.unwrap() - f.offset.unwrap())).collect();
    assert_eq!(findings, [("zeroed_tail", 7)]);
    assert_eq!(i64::try_from(report.logs[0].entries.samples).unwrap(), filled.count());
}

/// A start, the making of a checkpoint, remote write; and what is served before and after a checkpoint.
#[test]
fn prometheus_passes_over_fillings() {
    let oracle = oracle::judge("fillings");
    let (filled, data) = (Filled::new(), tempfile::tempdir().unwrap());
    filled.write(data.path());
    let wal = data.path().join("wal");
    let read: Vec<_> = [&["--records"][..], &["--records", "--concat"], &["--records", "--live"]]
        .iter()
        .map(|flags| oracle.json(&[&["read"], *flags].concat(), &wal))
        .collect();
    for answer in &read {
        assert!(answer["error"].is_null(), "{}", answer["error"]);
        assert_eq!(answer["read"], read[0]["read"]);
        let records = answer["read"].as_array().unwrap();
        let others = records.iter().filter(|record| record[2] != 1).count();
        assert_eq!(i64::try_from(others).unwrap(), 1 + filled.samples);
        assert!(records.len() > 10_000);
    }
    let opened = oracle.json(&["open", "--checkpoint", "--again", "--summary"], data.path());
    for report in [&opened, &opened["again"]] {
        for error in ["open_error", "close_error", "query_error", "checkpoint_error", "crash"] {
            assert!(report[error].is_null(), "{error}: {}", report[error]);
        }
        let complaints = report["log"].as_array().unwrap().iter();
        let complaints: Vec<_> = complaints.filter(|line| line["level"] != "info").collect();
        assert_eq!(complaints, Vec::<&serde_json::Value>::new());
        assert_eq!(report["num_samples"], filled.count());
    }
    assert!(opened["checkpoint"].is_string(), "no checkpoint was made");
}

#[test(long)]
fn servers_pass_over_fillings() {
    let filled = Filled::new();
    Servers::each("fillings", |server| {
        let data = tempfile::tempdir().unwrap();
        filled.write(data.path());
        for agent in [false, true] {
            let options = Options { agent, ..Options::default() };
            let running = server.start_on_copy(data.path(), &options)?.ready()?;
            if !agent {
                let served = running.samples("{__name__=\"filled\"}", Some(filled.end()))?;
                assert_eq!(served, filled.served(), "{}", server.version);
            }
            let exited = running.stop()?;
            assert!(exited.status.success(), "{}: {}", server.version, exited.log);
            assert_eq!(exited.log.complaint(), None, "{}, agent: {agent}", server.version);
        }
        let path = data.path().display().to_string();
        let sandbox = format!("--sandbox-dir-root={path}");
        // Before, it has none.
        let sandbox: &[&str] = if server.version < Version(2, 45, 0) { &[] } else { &[&sandbox] };
        let dumped = server.promtool(&[&["tsdb", "dump"], sandbox, &[&path]].concat())?;
        assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
        let text = String::from_utf8_lossy(&dumped.stdout);
        let lines = text.lines().filter(|line| line.contains("filled")).count();
        assert_eq!(i64::try_from(lines).unwrap(), filled.count(), "{}", server.version);
        Ok::<(), support::server::Error>(())
    })
    .unwrap();
}
