//! The second judge works: real Prometheus servers can be started, scraped into, asked and stopped.

use std::path::Path;
use std::time::Duration;

use support::exporter::{Exporter, Shape};
use support::fresh::{Checkpoint, Recipe};
use support::server::{Compression, Error, Level, LogLine, Options, Servers, Started, Version};
use support::test;

type Result<T = ()> = std::result::Result<T, Error>;

#[test(long)]
fn empty_directory() -> Result {
    Servers::each("start on an empty directory", |server| {
        let data = temporary()?;
        let mut options = Options::default();
        options.flags.push("--web.enable-admin-api".to_owned());
        let running = server.start(data.path(), &options)?.ready()?;
        assert_eq!(running.query("1+1", None)?["result"][1], "2", "{}", server.version);
        assert_eq!(
            running.api("status/buildinfo", &[])?["version"].as_str().map(plain),
            Some(server.version.to_string())
        );
        assert!(matches!(running.query("1+", None), Err(Error::Http { status: 400, .. })));
        running.delete_series("nothing")?;
        let pid = running.pid();
        let exited = running.stop()?;
        assert!(exited.status.success(), "{}: {}\n{}", server.version, exited.status, exited.log);
        assert_eq!(exited.log.complaint(), None);
        assert!(exited.log.with_msg("TSDB started").is_some(), "{}", exited.log);
        assert!(exited.log.with_msg("See you next time!").is_some(), "{}", exited.log);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(data.path().join("wal/00000000").is_file());
        Ok(())
    })
}

/// The version without what a distribution appends to it.
fn plain(version: &str) -> String {
    version.split(['+', '~', '-']).next().unwrap_or_default().to_owned()
}

#[test(long)]
fn agent() -> Result {
    Servers::each("agent mode", |server| {
        let data = temporary()?;
        let exporter = Exporter::start(Shape::default())?;
        let options = Options {
            agent: true,
            config: exporter.config(Duration::from_millis(200), true),
            compression: Some(Compression::None),
            ..Options::default()
        };
        let mut running = server.start(data.path(), &options)?.ready()?;
        running.wait_for("5 scrapes", Duration::from_secs(60), |_| Ok(exporter.scrapes() > 5))?;
        let exited = running.stop()?;
        assert_eq!(exited.log.complaint(), None);
        let segment = std::fs::read(data.path().join("wal/00000000")).map_err(reading)?;
        assert!(contains(&segment, b"walfix_requests_total"), "{}", server.version);
        Ok(())
    })
}

#[test(long)]
fn lock_file() -> Result {
    Servers::each("the lock file", |server| {
        for lock in [true, false] {
            let data = temporary()?;
            let options = Options { lock: Some(lock), ..Options::default() };
            let _running = server.start(data.path(), &options)?.ready()?;
            assert_eq!(data.path().join("lock").exists(), lock, "{}", server.version);
        }
        Ok(())
    })
}

#[test(long)]
fn scraped_samples_survive_a_kill() -> Result {
    Servers::each("samples of a scraping run", |server| {
        let data = temporary()?;
        let recipe = Recipe {
            interval: Duration::from_millis(200),
            checkpoint: Checkpoint::No,
            scrapes: 10,
            ..Recipe::default()
        };
        recipe.make(server, data.path())?;

        // On a copy, with nothing to scrape: what is in the directory and no more.
        let mut options = Options::default();
        options.features.push("native-histograms".to_owned());
        let running = server.start_on_copy(data.path(), &options)?.ready()?;
        assert_eq!(running.log().complaint(), None);
        let all = running.samples("{__name__=~\"walfix_.*\"}", None)?;
        let scraped = format!("{}: {:?}", server.version, running.samples("up", None)?);
        assert_eq!(named(&all, "walfix_requests_total").len(), recipe.shape.counters, "{scraped}");
        assert!(named(&all, "walfix_requests_total").iter().all(|samples| samples.len() >= 10));
        assert_eq!(running.series("walfix_latency_seconds_bucket")?.len(), recipe.shape.classic * 5);
        assert_eq!(named(&all, "walfix_size_bytes").len(), recipe.shape.native, "{}", server.version);
        // Every tenth gauge has lost the first scrapes to a deletion. How many came after it depends on the machine.
        let gauges = named(&all, "walfix_temperature");
        let most = gauges.iter().map(|samples| samples.len()).max().unwrap_or(0);
        let deleted = gauges.iter().filter(|samples| samples.len() as u64 + recipe.scrapes <= most as u64);
        assert_eq!(deleted.count(), recipe.shape.gauges / 10, "{scraped}");
        // More late samples than scrapes: those of the WBL are there too.
        assert!(named(&all, "walfix_late").iter().any(|samples| samples.len() >= 80), "{}", server.version);
        assert_ne!(running.data(), data.path());
        running.kill()?;
        assert!(std::fs::metadata(data.path().join("wbl/00000000")).map_err(reading)?.len() > 0);
        Ok(())
    })
}

fn named<'a>(
    all: &'a std::collections::BTreeMap<String, Vec<(i64, String)>>,
    name: &str,
) -> Vec<&'a Vec<(i64, String)>> {
    all.iter()
        .filter(|(labels, _)| labels.contains(&format!("__name__=\"{name}\",")))
        .map(|(_, s)| s)
        .collect()
}

/// What Prometheus itself does about a flipped byte is in its log, on every version in the same words.
#[test(long)]
fn log_of_a_repair_and_of_a_refusal() -> Result {
    Servers::each("logs of damaged directories", |server| {
        let data = temporary()?;
        let recipe = Recipe {
            interval: Duration::from_millis(200),
            compression: Some(Compression::None),
            checkpoint: Checkpoint::No,
            scrapes: 3,
            ..Recipe::default()
        };
        recipe.make(server, data.path())?;
        let path = data.path().join("wal/00000000");
        let mut segment = std::fs::read(&path).map_err(reading)?;
        segment[20] ^= 1;
        std::fs::write(&path, segment).map_err(reading)?;

        let running = server.start_on_copy(data.path(), &Options::default())?.ready()?;
        let log = running.log();
        let warning = log
            .at_least(Level::Warn)
            .find(|line| line.msg() == "Encountered WAL read error, attempting repair");
        let error = warning.and_then(LogLine::err).unwrap_or_default().to_owned();
        assert!(error.contains("corruption in segment") && error.contains("unexpected checksum"), "{log}");
        assert_eq!(log.complaint(), warning);
        drop(running);

        // The first segment gone, and no checkpoint: it refuses.
        std::fs::remove_file(&path).map_err(reading)?;
        std::fs::write(data.path().join("wal/00000001"), []).map_err(reading)?;
        let Started::Exited(exited) = server.start_on_copy(data.path(), &Options::default())? else {
            panic!("{} starts without its first segment", server.version);
        };
        assert_eq!(exited.status.code(), Some(1));
        let refusal =
            exited.log.at_least(Level::Error).last().and_then(LogLine::err).unwrap_or_default().to_owned();
        assert!(
            refusal.contains("opening storage failed: ") && refusal.contains("00000000"),
            "{}",
            exited.log
        );
        Ok(())
    })
}

#[test(long)]
fn log_lines() {
    let v2 = LogLine::parse(
        r#"ts=2026-01-02T03:04:05.006Z caller=db.go:974 level=warn component=tsdb msg="Encountered WAL read error, attempting repair" err="read records: corruption in segment /d/wal/00000003 at 20364: unexpected checksum \"e0\", \\ \u00fc\x41\n""#,
    );
    assert_eq!(v2.level(), Some(Level::Warn));
    assert_eq!(v2.msg(), "Encountered WAL read error, attempting repair");
    assert_eq!(
        v2.err(),
        Some(
            "read records: corruption in segment /d/wal/00000003 at 20364: unexpected checksum \"e0\", \\ \u{fc}A\n"
        )
    );
    assert_eq!(v2.field("component"), Some("tsdb"));

    let v3 = LogLine::parse(
        r#"time=2026-01-02T03:04:05.006Z level=ERROR source=main.go:1637 msg="Fatal error" err="opening storage failed: x""#,
    );
    assert_eq!(
        (v3.level(), v3.msg(), v3.err()),
        (Some(Level::Error), "Fatal error", Some("opening storage failed: x"))
    );

    for other in
        ["goroutine 1 [running]:", "panic: runtime error: index out of range", "", "a=\"unfinished", "= ="]
    {
        let line = LogLine::parse(other);
        assert_eq!((line.fields.len(), line.level(), line.raw.as_str()), (0, None, other));
    }
    let empty = LogLine::parse("level=info msg= err=\"\"");
    assert_eq!((empty.msg(), empty.err()), ("", Some("")));
}

#[test(long)]
fn versions() {
    assert!("2.53.3".parse::<Version>().is_ok_and(|v| v == Version(2, 53, 3) && v > Version(2, 9, 9)));
    for wrong in ["", "2.53", "2.53.3.1", "apt", "2.53.x"] {
        assert!(wrong.parse::<Version>().is_err(), "{wrong}");
    }
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(reading)
}

fn reading(source: std::io::Error) -> Error {
    Error::Io { what: "test directory".to_owned(), source }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
