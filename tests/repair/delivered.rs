//! Remote write and agents take what a repair leaves: a real server or agent is started on a repaired directory, scrapes,
//! and sends to another server what it scrapes, under the labels that stand only in what was repaired.
//!
//! Samples that were in the log before a start are sent by nobody: remote write reads older segments for their series alone
//! (`tsdb/wlog/watcher.go`, `readSegment`), and each start begins a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::exporter::{Exporter, Shape};
use support::fresh::checkpoint;
use support::oracle::{self, Oracle};
use support::pristine::Pristine;
use support::server::{Error, Level, LogLine, Options, Running, Server, Servers, Version, label_text};
use support::{note, test};
use walfix::record::RecordType;

type Result<T = ()> = std::result::Result<T, Error>;

const DEADLINE: Duration = Duration::from_secs(120);

/// Scrapes of each target that have to arrive.
const DELIVERED: usize = 3;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// A record of samples of the newest segment but one that holds any.
    Segment,
    /// A record of series of the checkpoint.
    Checkpoint,
}

/// Targets whose series stand in the checkpoint, and one whose series stand in a segment behind it.
struct Targets {
    early: [Exporter; 3],
    late: Exporter,
}

impl Targets {
    fn start() -> Result<Self> {
        let shape =
            Shape { counters: 20, gauges: 20, classic: 1, native: 0, late: 0, late_samples: 0, churn: 0 };
        let one = || Exporter::start(shape);
        Ok(Self { early: [one()?, one()?, one()?], late: one()? })
    }

    /// A configuration that scrapes the early ones, perhaps the late one, and perhaps sends it all on.
    fn config(&self, with_late: bool, to: Option<SocketAddr>) -> String {
        let mut text =
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\nscrape_configs:\n".to_owned();
        let late = with_late.then_some(&self.late);
        for (number, target) in self.early.iter().chain(late).enumerate() {
            let address = target.address();
            // A job for each, so that each begins with a record of series of its own.
            let _ = writeln!(text, "- {{job_name: j{number}, static_configs: [{{targets: ['{address}']}}]}}");
        }
        if let Some(address) = to {
            let port = address.port();
            let _ = writeln!(text, "remote_write: [{{url: 'http://127.0.0.1:{port}/api/v1/write'}}]");
        }
        text
    }

    /// Waits until each target was scraped some times more, by a server that is ended then. A scrape is in the log by the
    /// time the next but one is asked for.
    fn scraped(&self, running: &mut Running, with_late: bool) -> Result {
        let targets: Vec<_> = self.early.iter().chain(with_late.then_some(&self.late)).collect();
        let goals: Vec<_> = targets.iter().map(|target| target.scrapes() + 6).collect();
        running.wait_for("scrapes", DEADLINE, |_| {
            Ok(targets.iter().zip(&goals).all(|(target, goal)| target.scrapes() > *goal))
        })
    }
}

/// Makes a directory: a checkpoint with the series of the early targets, a segment that begins with those of the late one, and
/// another behind that.
fn make(server: &Server, agent: bool, targets: &Targets, data: &Path) -> Result {
    let options =
        |with_late| Options { agent, config: targets.config(with_late, None), ..Options::default() };
    let mut running = server.start(data, &options(false))?.ready()?;
    targets.scraped(&mut running, false)?;
    running.kill()?;
    let mut hurried = options(false);
    hurried.block_duration = Some(Duration::from_secs(2));
    if agent {
        let flags = ["wal-truncate-frequency=2s", "retention.min-time=1s", "retention.max-time=1m"];
        hurried.flags.extend(flags.map(|flag| format!("--storage.agent.{flag}")));
    }
    let mut running = server.start(data, &hurried)?.ready()?;
    // The first one may have been made before all targets were scraped.
    running.wait_for("a checkpoint of several targets", DEADLINE, |_| {
        let Some(made) = checkpoint(data)? else { return Ok(false) };
        let first = made.join("00000000");
        let is_series = |kind: Option<RecordType>| kind == Some(RecordType::Series);
        let records = if first.is_file() { Pristine::read(&first).records } else { Vec::new() };
        Ok(records.iter().filter(|record| is_series(RecordType::of(&record.data))).count() > 1)
    })?;
    running.stop()?;
    for _ in 0..2 {
        let mut running = server.start(data, &options(true))?.ready()?;
        targets.scraped(&mut running, true)?;
        running.kill()?;
    }
    Ok(())
}

/// The segments in a directory, in order.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.is_file() && path.file_name().unwrap().len() == 8;
    let mut all: Vec<_> = all.filter(is_segment).collect();
    all.sort();
    all
}

/// Damages more of a record than can be put right.
fn damage(data: &Path, place: Where) {
    let file = match place {
        Where::Checkpoint => segments(&checkpoint(data).unwrap().unwrap())[0].clone(),
        Where::Segment => {
            let mut all = segments(&data.join("wal"));
            all.retain(|path| path.metadata().unwrap().len() > 0);
            all[all.len() - 2].clone()
        }
    };
    let wanted = if place == Where::Checkpoint { RecordType::Series } else { RecordType::Samples };
    let pristine = Pristine::read(&file);
    let fitting: Vec<_> =
        pristine.records.iter().filter(|record| RecordType::of(&record.data) == Some(wanted)).collect();
    assert!(fitting.len() > 1, "{place:?}: {} such records", fitting.len());
    let record = fitting[fitting.len() / 2];
    assert!(place == Where::Checkpoint || record.offset() > 0 && record.end() < pristine.bytes.len());
    let at = usize::midpoint(record.fragments[0].start + 7, record.fragments[0].end);
    let mut bytes = pristine.bytes[at..at + 8].to_vec();
    for byte in &mut bytes {
        *byte ^= 0x5a;
    }
    std::fs::File::options().write(true).open(&file).unwrap().write_all_at(&bytes, at as u64).unwrap();
}

fn repair(data: &Path, version: Version, agent: bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(["repair", "--accept-orphans", "--backup", "--prometheus", &version.to_string()]);
    if agent {
        command.arg("--agent");
    }
    let output = command.arg(data).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// The bits of a staleness marker (`model/value/value.go`).
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// What is in a log: label sets by ref, and samples by ref, time and the bits of the value.
#[derive(Default)]
struct Logged {
    series: HashMap<String, String>,
    samples: Vec<(String, i64, u64)>,
}

impl Logged {
    fn learn(&mut self, line: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for entry in line["entries"].as_array().into_iter().flatten() {
            let reference = text(&entry["ref"]);
            if line["type"] == "series" {
                let pairs = entry["labels"].as_array().unwrap();
                let labels = pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
                self.series.insert(reference, label_text(&labels));
            } else if line["type"] == "samples" {
                let value = u64::from_str_radix(entry["v"].as_str().unwrap(), 16).unwrap();
                self.samples.push((reference, entry["t"].as_str().unwrap().parse().unwrap(), value));
            }
        }
    }
}

/// What a directory held before a start, and what was logged since, from this segment on.
fn logged(oracle: Oracle, data: &Path, from: u64) -> (Logged, Logged) {
    let (mut before, mut since) = (Logged::default(), Logged::default());
    if let Some(checkpoint) = checkpoint(data).unwrap() {
        oracle.dump(&[], &checkpoint, |line| before.learn(&line));
    }
    oracle.dump(&[], &data.join("wal"), |line| {
        let is_new = line["segment"].as_u64().is_some_and(|segment| segment >= from);
        if is_new { since.learn(&line) } else { before.learn(&line) }
    });
    (before, since)
}

/// Whether no series of the checkpoint is defined again after it, so that a record that is lost there takes its labels along.
fn is_defined_once(oracle: Oracle, data: &Path) -> bool {
    let (mut checkpointed, mut later) = (Logged::default(), Logged::default());
    oracle.dump(&[], &checkpoint(data).unwrap().expect("it has been made"), |line| checkpointed.learn(&line));
    oracle.dump(&[], &data.join("wal"), |line| later.learn(&line));
    let checkpointed: BTreeSet<_> = checkpointed.series.into_values().collect();
    later.series.values().all(|labels| !checkpointed.contains(labels))
}

/// The number of the segment that the next start begins.
fn next_segment(data: &Path) -> u64 {
    let last = segments(&data.join("wal")).pop().unwrap();
    last.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap() + 1
}

/// What has arrived: samples by time and bits of the value, for each label set.
type Received = BTreeMap<String, BTreeSet<(i64, u64)>>;

fn received(receiver: &Running) -> Result<Received> {
    let all = receiver.samples("{__name__=~\".+\"}", None)?;
    let bits = |value: String| value.parse::<f64>().expect("a float").to_bits();
    Ok(all
        .into_iter()
        .map(|(labels, samples)| {
            (labels, samples.into_iter().map(|(time, value)| (time, bits(value))).collect())
        })
        .collect())
}

/// Whether it is a series of that target.
fn is_of(job: usize, labels: &str) -> bool {
    labels.contains(&format!("job=\"j{job}\""))
}

/// Repairs a directory, has a sender scrape and send, and holds what arrives against what the sender has logged.
fn deliver(server: &Server, receiver: &Server, agent: bool, place: Where, oracle: Oracle) -> Result {
    let about = format!("{} agent={agent} {place:?}", server.version);
    let scratch = tempfile::tempdir().unwrap();
    let (data, other) = (scratch.path().join("data"), scratch.path().join("received"));
    let targets = Targets::start()?;
    make(server, agent, &targets, &data)?;
    for _ in 0..4 {
        if is_defined_once(oracle, &data) {
            break;
        }
        // A scrape that came so late that the agent had forgotten its series.
        std::fs::remove_dir_all(&data).unwrap();
        make(server, agent, &targets, &data)?;
    }
    damage(&data, place);
    repair(&data, server.version, agent);
    let takes_writes =
        Options { flags: vec!["--web.enable-remote-write-receiver".to_owned()], ..Options::default() };
    let receiver = receiver.start(&other, &takes_writes)?.ready()?;
    let from = next_segment(&data);
    let config = targets.config(true, Some(receiver.address()));
    let mut sender = server.start(&data, &Options { agent, config, ..Options::default() })?.ready()?;
    let mut arrived = Received::new();
    sender.wait_for("samples of all targets at the receiver", DEADLINE, |_| {
        arrived = received(&receiver)?;
        let of = |job: usize| arrived.keys().filter(|labels| is_of(job, labels)).count();
        let is_there = (0..4).all(|job| of(job) > 40 && of(job) == of(0));
        Ok(is_there && arrived.values().all(|samples| samples.len() >= DELIVERED))
    })?;
    let log = sender.kill()?.log;
    drop(receiver);
    // The server before was killed; and series whose records are lost have samples.
    let expected = |line: &&LogLine| {
        line.msg().starts_with("A lockfile from a previous execution")
            || place == Where::Checkpoint
                && ["Unknown series references", "found sample referencing non-existing series"]
                    .contains(&line.msg())
    };
    let complaints: Vec<_> =
        log.at_least(Level::Warn).filter(|line| !expected(line)).map(|line| line.raw.clone()).collect();
    assert!(complaints.is_empty(), "{about}: {complaints:#?}");

    let (before, since) = logged(oracle, &data, from);
    let mut sent: HashMap<&String, BTreeSet<(i64, u64)>> = HashMap::new();
    let mut only_repaired = BTreeSet::new();
    for (reference, time, value) in &since.samples {
        let labels = since.series.get(reference).or_else(|| {
            let labels = before.series.get(reference);
            only_repaired.extend(labels);
            labels
        });
        let labels = labels.unwrap_or_else(|| panic!("{about}: nobody knows {reference}"));
        sent.entry(labels).or_default().insert((*time, *value));
    }
    for (labels, samples) in &arrived {
        let sent = sent.get(labels).unwrap_or_else(|| panic!("{about}: {labels} was not sent"));
        // In order, up to wherever it had come.
        let last = samples.last().unwrap().0;
        // A scrape that came too late leaves a staleness marker: it is sent, and no query returns it.
        let is_expected = |&(time, value): &(i64, u64)| time <= last && value != STALE;
        let expected: BTreeSet<_> = sent.iter().copied().filter(is_expected).collect();
        assert_eq!(samples, &expected, "{about}: {labels}");
    }
    let missing: Vec<_> = sent.keys().filter(|labels| !arrived.contains_key(**labels)).collect();
    assert!(missing.is_empty(), "{about}: {missing:?} have not arrived");
    let of = |job: usize| only_repaired.iter().filter(|labels| is_of(job, labels)).count();
    note!("{about}: series that have their records only in what was repaired: {:?}", [0, 1, 2, 3].map(of));
    // Each record of series in the checkpoint holds those of one target, and one such record is lost.
    let lost: Vec<usize> = (0..4).filter(|job| of(*job) == 0).collect();
    assert_eq!(lost.len(), usize::from(place == Where::Checkpoint), "{about}: {lost:?}");
    assert!(lost.iter().all(|job| *job < 3), "{about}: {lost:?}");
    assert!((0..4).all(|job| lost.contains(&job) || of(job) > 40), "{about}");
    Ok(())
}

/// The newest server, and the newest 2.x.
fn servers(what: &str) -> (Server, Option<Server>) {
    let mut all = Servers::judges(what);
    let newest = all.pop().expect("one at least");
    let older = all.into_iter().rfind(|server| server.version.0 == 2);
    (newest, older)
}

#[test(long)]
fn what_a_server_scrapes_is_delivered() -> Result {
    let what = "remote write of a repaired directory";
    let (oracle, (server, _)) = (oracle::judge(what), servers(what));
    both_places(|place| deliver(&server, &server, false, place, oracle))
}

#[test(long)]
fn what_an_agent_scrapes_is_delivered() -> Result {
    let what = "remote write of an agent's repaired directory";
    let (oracle, (server, older)) = (oracle::judge(what), servers(what));
    for agent in [Some(server.clone()), older].into_iter().flatten() {
        both_places(|place| deliver(&agent, &server, true, place, oracle))?;
    }
    Ok(())
}

/// Both at once: most of the time goes into waiting.
fn both_places(test: impl Fn(Where) -> Result + Sync) -> Result {
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| test(Where::Checkpoint));
        let segment = test(Where::Segment);
        let checkpoint = checkpoint.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        segment.and(checkpoint)
    })
}
