//! `walfix scan` beside a Prometheus that scrapes, cuts its log and makes checkpoints: there is no damage, so none is found.
//!
//! `WALFIX_LIVE_SCANS=200 cargo test --release --test scan live:: -- --nocapture` for the long run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::exporter::{Exporter, Shape};
use support::fresh::{Recipe, checkpoint};
use support::server::{Compression, Error, Running, Server, Servers};
use support::{note, test};

type Result<T = ()> = std::result::Result<T, Error>;

/// Longest wait for one checkpoint.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the scans beside one server were like.
#[derive(Debug, Default)]
struct Figures {
    scans: u64,
    /// Scans during which a checkpoint was being made, or segments or checkpoints came or went.
    overlaps: u64,
    /// Of those, scans during which a checkpoint got its name or `checkpoint.N.tmp` was there.
    checkpoints: u64,
    bytes: u64,
    longest: Duration,
}

#[test(long)]
fn scans_beside_a_running_server_are_clean() -> Result {
    let scans: u64 = std::env::var("WALFIX_LIVE_SCANS").map_or(20, |n| n.parse().expect("a number"));
    let lanes = (Servers::find()?.len() as u64 * 2).max(1);
    let total = Mutex::new(Figures::default());
    let add = |name: String, figures: &Figures| {
        note!("{name}: {figures:?}");
        let mut total = total.lock().expect("no panic");
        total.scans += figures.scans;
        total.overlaps += figures.overlaps;
        total.checkpoints += figures.checkpoints;
    };
    Servers::each("scans beside a running server", |server| {
        std::thread::scope(|scope| {
            let lane = |agent| {
                let figures = scan_beside(server, agent, scans.div_ceil(lanes))?;
                add(format!("{}{}", server.version, if agent { " (agent)" } else { "" }), &figures);
                Ok(())
            };
            let agent = scope.spawn(move || lane(true));
            lane(false).and(agent.join().expect("no panic"))
        })
    })?;
    let total = total.into_inner().expect("no panic");
    note!(
        "{} scans, all clean; {} while the log changed, {} of them beside a checkpoint in the making",
        total.scans,
        total.overlaps,
        total.checkpoints
    );
    assert!(total.checkpoints * 10 >= total.scans, "too few scans met a checkpoint: {total:?}");
    Ok(())
}

/// Starts a server that makes a checkpoint every few seconds and scans its directory so many times.
fn scan_beside(server: &Server, agent: bool, scans: u64) -> Result<Figures> {
    let data = tempfile::tempdir().map_err(|source| Error::Io { what: "test directory".into(), source })?;
    let recipe = Recipe {
        shape: Shape { counters: 1500, gauges: 1500, classic: 100, churn: 100, ..Shape::default() },
        compression: Some(Compression::None),
        agent,
        ..Recipe::default()
    };
    let exporter = Exporter::start(recipe.shape)?;
    let mut options = recipe.options(server, &exporter);
    options.block_duration = Some(Duration::from_secs(2));
    if agent {
        options.flags.push("--storage.agent.wal-truncate-frequency=2s".to_owned());
        options.flags.push("--storage.agent.retention.min-time=1s".to_owned());
        options.flags.push("--storage.agent.retention.max-time=1m".to_owned());
    }
    let mut running = server.start(data.path(), &options)?.ready()?;
    running.wait_for("a checkpoint", DEADLINE, |_| Ok(checkpoint(data.path())?.is_some()))?;
    let mut figures = Figures::default();
    for scan in 0..scans {
        // Some when they will, the others as a checkpoint begins.
        if scan % 3 != 0 {
            wait_for_a_checkpoint(&mut running, data.path())?;
        }
        let before = State::of(data.path());
        let begun = Instant::now();
        let report = scan_clean(data.path(), &format!("{} agent={agent} scan {scan}", server.version));
        figures.longest = figures.longest.max(begun.elapsed());
        let after = State::of(data.path());
        figures.scans += 1;
        figures.overlaps += u64::from(before != after || before.temporary);
        figures.checkpoints +=
            u64::from(before.temporary || after.temporary || before.checkpoints != after.checkpoints);
        figures.bytes = figures.bytes.max(
            report["logs"].as_array().into_iter().flatten().filter_map(|log| log["bytes"].as_u64()).sum(),
        );
    }
    // A reader beside it is nothing to a server. (As it stops, it complains about the compaction that it gives up.)
    assert_eq!(running.log().complaint(), None, "{}", server.version);
    running.stop()?;
    scan_clean(data.path(), "stopped");
    Ok(figures)
}

/// Until a checkpoint is being made, or has just been made.
fn wait_for_a_checkpoint(running: &mut Running, data: &Path) -> Result {
    let first = State::of(data).checkpoints;
    let end = Instant::now() + DEADLINE;
    loop {
        let now = State::of(data);
        if now.temporary || now.checkpoints != first {
            return Ok(());
        }
        if Instant::now() > end {
            // Says what the server's log has about it.
            return running.wait_for("another checkpoint", Duration::ZERO, |_| Ok(false));
        }
        std::thread::yield_now();
    }
}

/// What there is in `wal/`.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    segments: BTreeSet<String>,
    checkpoints: BTreeSet<String>,
    temporary: bool,
}

impl State {
    fn of(data: &Path) -> Self {
        let mut state = Self::default();
        for entry in std::fs::read_dir(data.join("wal")).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.contains(".tmp") {
                state.temporary = true;
            } else if name.starts_with("checkpoint.") {
                state.checkpoints.insert(name);
            } else {
                state.segments.insert(name);
            }
        }
        state
    }
}

/// One scan by the binary: clean, or the test fails with all that it says.
fn scan_clean(data: &Path, what: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_walfix"))
        .args(["scan", "--format", "json"])
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let said = || {
        format!(
            "{what}: {}\n{}{}\nnow there: {:?}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            State::of(data)
        )
    };
    assert_eq!(output.status.code(), Some(0), "{}", said());
    let schema = serde_json::from_str(include_str!("../../docs/schema/scan.schema.json")).expect("JSON");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said()));
    jsonschema::draft202012::validate(&schema, &report).unwrap_or_else(|e| panic!("{e}: {}", said()));
    assert_eq!(report["verdict"], "clean", "{}", said());
    // Nor is anything odd about a log that changes as it should.
    let findings = report["findings"].as_array().into_iter().flatten();
    assert_eq!(findings.filter(|finding| finding["severity"] == "warning").count(), 0, "{}", said());
    assert_eq!(output.stderr, b"", "{}", said());
    report
}
