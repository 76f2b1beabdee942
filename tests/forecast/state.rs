//! States of whole directories, made in directories of real servers: walfix names each, and the servers do what its
//! severity and its words say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::exporter::{Exporter, Shape};
use support::fresh::{Checkpoint, Recipe, checkpoint};
use support::server::{Error, Log, Options, Server, Servers, Started, copy_directory};
use support::test;
use walfix::scan::Scan;
use walfix::scan::report::{Finding, Severity, Verdict};
use walfix::scan::{Options as ScanOptions, scan};
use walfix::tsdb::Target;
use walfix::wal::segments::{SegmentFile, list_segments, segment_name};
use walfix::wal::{Event, SegmentReader};

type Result<T = ()> = std::result::Result<T, Error>;

/// Samples by label set.
type Served = BTreeMap<String, Vec<(i64, String)>>;

const DEADLINE: Duration = Duration::from_secs(60);

/// Scrapes of a run that is to leave something behind.
const SCRAPES: u64 = 8;

fn shape() -> Shape {
    Shape { counters: 30, gauges: 30, classic: 3, native: 2, late: 3, late_samples: 4, churn: 6 }
}

fn recipe(agent: bool) -> Recipe {
    Recipe {
        shape: shape(),
        agent,
        checkpoint: Checkpoint::Samples,
        scrapes: 40,
        tombstones: false,
        ..Recipe::default()
    }
}

/// A server that scrapes nothing: what it serves is what it has replayed.
fn quiet(agent: bool) -> Options {
    let mut options = Options { agent, ..Options::default() };
    options.features.push("native-histograms".to_owned());
    options
}

/// What Prometheus makes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It does not start.
    Refuses,
    /// It starts, and samples are missing.
    Misses,
    /// It starts and serves all, with nothing in its log to be afraid of.
    ServesAll,
}

struct State {
    what: &'static str,
    make: fn(&Directory),
    /// What is found, but for notes of empty segments.
    finds: &'static [(&'static str, Severity)],
    then: Then,
}

use Severity::{Damage, Note, Warning};

const STATES: &[State] = &[
    State { what: "nothing", make: |_| {}, finds: &[], then: Then::ServesAll },
    State {
        what: "a gap in wal/",
        make: |d| fs::remove_file(&d.segments()[1].path).unwrap(),
        finds: &[("segments_not_sequential", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "two names for one segment",
        make: |d| copy(&d.last().path, &d.path(&format!("wal/{}", d.last().index))),
        finds: &[("misnamed_segment", Damage), ("segments_not_sequential", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "a segment by another name",
        make: |d| fs::rename(d.last().path, d.path(&format!("wal/+{}", d.last().index))).unwrap(),
        finds: &[("misnamed_segment", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "the first segment behind the checkpoint is missing",
        make: |d| fs::remove_file(&d.segments()[0].path).unwrap(),
        finds: &[("first_segment_missing", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "the checkpoint is gone",
        make: |d| fs::remove_dir_all(d.checkpoint()).unwrap(),
        finds: &[("first_segment_missing", Damage), ("unknown_refs", Warning)],
        then: Then::Refuses,
    },
    State {
        what: "a file is called a checkpoint",
        make: |d| fs::write(d.path("wal/checkpoint.foo"), []).unwrap(),
        finds: &[("checkpoint_not_a_directory", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "a directory is called a checkpoint of no number",
        make: |d| copy_directory(&d.checkpoint(), &d.path("wal/checkpoint.foo")).unwrap(),
        finds: &[],
        then: Then::ServesAll,
    },
    State {
        what: "the checkpoint is empty",
        make: |d| fs::remove_file(d.checkpoint().join("00000000")).unwrap(),
        finds: &[("empty_checkpoint", Damage), ("unknown_refs", Warning)],
        then: Then::Misses,
    },
    State {
        what: "the checkpoint's file is empty",
        make: |d| fs::write(d.checkpoint().join("00000000"), []).unwrap(),
        finds: &[("unknown_refs", Warning)],
        then: Then::Misses,
    },
    State {
        what: "the checkpoint begins with segment 1, and is whole",
        make: |d| {
            fs::rename(d.checkpoint().join("00000000"), d.checkpoint().join("00000001")).unwrap();
        },
        finds: &[("first_segment_missing", Warning)],
        then: Then::ServesAll,
    },
    State {
        what: "a gap in the checkpoint",
        make: |d| {
            fs::write(d.checkpoint().join("00000002"), []).unwrap();
        },
        finds: &[("segments_not_sequential", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "the checkpoint by a shorter name",
        make: |d| fs::rename(d.checkpoint(), d.path(&format!("wal/checkpoint.{:06}", d.number()))).unwrap(),
        finds: &[],
        then: Then::ServesAll,
    },
    State {
        what: "the checkpoint has a number that is too high",
        make: |d| fs::rename(d.checkpoint(), d.path("wal/checkpoint.00000099")).unwrap(),
        finds: &[("checkpoint_ahead", Damage)],
        then: Then::Misses,
    },
    State {
        what: "the checkpoint has the number of the last segment",
        make: |d| {
            fs::rename(d.checkpoint(), d.path(&format!("wal/checkpoint.{}", d.last().name))).unwrap();
        },
        finds: &[("checkpoint_ahead", Damage)],
        then: Then::Misses,
    },
    State {
        what: "the checkpoint alone is left",
        make: |d| d.segments().iter().for_each(|segment| fs::remove_file(&segment.path).unwrap()),
        finds: &[("checkpoint_ahead", Damage)],
        then: Then::Misses,
    },
    State {
        what: "an older checkpoint",
        make: |d| copy_directory(&d.checkpoint(), &d.path("wal/checkpoint.00000000")).unwrap(),
        finds: &[("older_checkpoint", Note)],
        then: Then::ServesAll,
    },
    State {
        what: "segments that the checkpoint was made of",
        make: |d| {
            let records = d.checkpoint().join("00000000");
            (0..=d.number())
                .for_each(|n| drop(fs::copy(&records, d.path(&format!("wal/{}", segment_name(n))))));
        },
        finds: &[("stale_segments", Warning)],
        then: Then::ServesAll,
    },
    State {
        what: "empty segments that the checkpoint covers",
        make: |d| fs::write(d.path(&format!("wal/{}", segment_name(d.number()))), []).unwrap(),
        finds: &[("stale_segments", Note)],
        then: Then::ServesAll,
    },
    State {
        what: "a segment that the checkpoint covers, by another name",
        make: |d| fs::write(d.path(&format!("wal/{}", d.number())), []).unwrap(),
        finds: &[("misnamed_segment", Warning), ("stale_segments", Note)],
        then: Then::ServesAll,
    },
    State {
        what: "a repair that was interrupted",
        make: |d| copy(&d.last().path, &d.path(&format!("wal/{}.repair", d.last().name))),
        finds: &[("interrupted_repair", Warning)],
        then: Then::ServesAll,
    },
    State {
        what: "a state of series",
        make: |d| {
            let state = r#"{"last_series_id":7,"last_wal_segment":1,"clean_shutdown":true}"#;
            fs::write(d.path("wal/series_state.json"), state).unwrap();
        },
        finds: &[],
        then: Then::ServesAll,
    },
    State {
        what: "a gap in wbl/",
        make: |d| copy(&d.fullest("wbl"), &d.path(&format!("wbl/{}", segment_name(d.wbl_last() + 2)))),
        finds: &[("segments_not_sequential", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "a segment of wbl/ by another name",
        make: |d| copy(&d.fullest("wbl"), &d.path(&format!("wbl/{}", d.wbl_last() + 1))),
        finds: &[("misnamed_segment", Damage)],
        then: Then::Refuses,
    },
    State {
        what: "mmap markers in wal/",
        make: |d| d.append("wal", &MARKERS),
        finds: &[("misplaced_records", Warning)],
        then: Then::ServesAll,
    },
    State {
        what: "series in wbl/",
        make: |d| d.append("wbl", &SERIES),
        finds: &[("misplaced_records", Warning)],
        then: Then::ServesAll,
    },
    State {
        what: "the checkpoint again, behind all segments",
        make: |d| {
            fs::copy(
                d.checkpoint().join("00000000"),
                d.path(&format!("wal/{}", segment_name(d.last().index + 1))),
            )
            .unwrap();
        },
        finds: &[("misplaced_pages", Damage), ("repeated_series", Damage)],
        then: Then::Misses,
    },
    State {
        what: "the series of the checkpoint twice, with no samples in between",
        make: |d| {
            let file = d.checkpoint().join("00000000");
            fs::rename(&file, d.checkpoint().join("00000001")).unwrap();
            fs::write(&file, only_series(&fs::read(d.checkpoint().join("00000001")).unwrap())).unwrap();
        },
        finds: &[("repeated_series", Warning)],
        then: Then::ServesAll,
    },
];

/// An mmap markers record: series 1, head chunks file 1, offset 8.
const MARKERS: [u8; 17] = [5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8];

/// A series record: ref 4096, `a="b"`.
const SERIES: [u8; 14] = [1, 0, 0, 0, 0, 0, 0, 16, 0, 1, 1, b'a', 1, b'b'];

/// A data directory with a checkpoint.
struct Directory(PathBuf);

impl Directory {
    fn path(&self, relative: &str) -> PathBuf {
        self.0.join(relative)
    }

    fn segments(&self) -> Vec<SegmentFile> {
        list_segments(&self.path("wal")).unwrap()
    }

    fn last(&self) -> SegmentFile {
        self.segments().pop().expect("a segment")
    }

    fn wbl_last(&self) -> i64 {
        list_segments(&self.path("wbl")).unwrap().pop().expect("a segment").index
    }

    /// Adds a segment of one record.
    fn append(&self, log: &str, record: &[u8]) {
        let last = list_segments(&self.path(log)).unwrap().pop().expect("a segment").index;
        let mut segment = Vec::new();
        push_record(&mut segment, record);
        fs::write(self.path(&format!("{log}/{}", segment_name(last + 1))), segment).unwrap();
    }

    fn checkpoint(&self) -> PathBuf {
        checkpoint(&self.0).unwrap().expect("a checkpoint")
    }

    /// Of the checkpoint.
    fn number(&self) -> i64 {
        self.checkpoint().extension().and_then(|n| n.to_str()?.parse().ok()).expect("a number")
    }

    /// The largest segment of a log.
    fn fullest(&self, log: &str) -> PathBuf {
        let segments = list_segments(&self.path(log)).unwrap();
        segments
            .into_iter()
            .map(|s| s.path)
            .max_by_key(|path| path.metadata().unwrap().len())
            .expect("a segment")
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

/// A segment of the series records of another one, each a full fragment.
fn only_series(segment: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = SegmentReader::new(segment, segment.len() as u64);
    while let Some(event) = reader.next() {
        if let Event::Record(record) = event
            && record.data.first() == Some(&1)
        {
            push_record(&mut bytes, record.data);
        }
    }
    bytes
}

/// Logs a record that a page can hold (`tsdb/wlog/wlog.go`, `WL.log`).
fn push_record(segment: &mut Vec<u8>, data: &[u8]) {
    const PAGE: usize = 32768;
    if PAGE - segment.len() % PAGE < 7 + data.len() {
        segment.resize(segment.len().next_multiple_of(PAGE), 0);
    }
    segment.push(1);
    segment.extend(u16::try_from(data.len()).expect("it fits a page").to_be_bytes());
    segment.extend(crc32c::crc32c(data).to_be_bytes());
    segment.extend(data);
}

fn read(data: &Path) -> Scan {
    scan(&Target::find(data).unwrap(), &ScanOptions::default(), &()).unwrap()
}

/// Codes and severities but those of empty segments, each once, in order.
fn found(report: &Scan) -> Vec<(&'static str, Severity)> {
    let mut found: Vec<_> = report.findings.iter().map(|f| (f.code.name(), f.severity)).collect();
    found.retain(|&(code, _)| code != "empty_segment");
    found.sort_unstable();
    found.dedup();
    found
}

#[track_caller]
fn finding<'a>(report: &'a Scan, code: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.code.name() == code);
    found.unwrap_or_else(|| panic!("no {code}: {:?}", report.findings))
}

fn served(server: &Server, data: &Path) -> Result<(Served, Log)> {
    let running = server.start(data, &quiet(false))?.ready()?;
    let samples = running.samples("{__name__=~\".+\"}", None)?;
    let log = running.log();
    running.kill()?;
    Ok((samples, log))
}

fn total(served: &Served) -> usize {
    served.values().map(Vec::len).sum()
}

/// All files of data and their bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if !path.ends_with("lock") && !path.ends_with("queries.active") {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|source| Error::Io { what: "test directory".into(), source })
}

/// A copy of a directory, in a place that is removed with the first of both.
fn copy_of(data: &Path) -> Result<(tempfile::TempDir, Directory)> {
    let place = temporary()?;
    let directory = Directory(place.path().join("data"));
    copy_directory(data, &directory.0)?;
    Ok((place, directory))
}

#[test(long)]
fn states_of_a_server() -> Result {
    Servers::each("states of directories", |server| {
        let base = temporary()?;
        recipe(false).make(server, base.path())?;
        let (all, log) = {
            let (_place, directory) = copy_of(base.path())?;
            served(server, &directory.0)?
        };
        assert_eq!(log.complaint(), None, "{}", server.version);
        for state in STATES {
            let what = format!("{}: {}", server.version, state.what);
            let (_place, directory) = copy_of(base.path())?;
            (state.make)(&directory);
            let report = read(&directory.0);
            let mut finds = state.finds.to_vec();
            finds.sort_unstable();
            assert_eq!(found(&report), finds, "{what}: {:?}", report.findings);
            let damaged = finds.iter().any(|&(_, severity)| severity == Damage);
            assert_eq!(report.verdict == Verdict::Damaged, damaged, "{what}");
            assert_eq!(read(&directory.path("wal")).verdict, wal_alone(state, report.verdict), "{what}");
            then(server, &directory, state.then, &all, &what)?;
        }
        generations(server, base.path())?;
        foreign_segments(server, base.path(), &all)
    })
}

/// The verdict on `wal/` alone: the same, if it is not about `wbl/`.
fn wal_alone(state: &State, verdict: Verdict) -> Verdict {
    if state.what.contains("wbl/") { Verdict::Clean } else { verdict }
}

/// A server does what is said of the state.
fn then(server: &Server, directory: &Directory, then: Then, all: &Served, what: &str) -> Result {
    let before = files(&directory.0);
    match (server.start(&directory.0, &quiet(false))?, then) {
        (Started::Exited(exited), Then::Refuses) => {
            assert_eq!(exited.status.code(), Some(1), "{what}");
            // "... and deletes nothing".
            let after = files(&directory.0);
            assert!(
                before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)),
                "{what}\n{}",
                exited.log
            );
        }
        (Started::Ready(running), Then::Misses | Then::ServesAll) => {
            let samples = running.samples("{__name__=~\".+\"}", None)?;
            let log = running.log();
            if then == Then::ServesAll {
                assert!(samples == *all, "{what}: {} of {} samples\n{log}", total(&samples), total(all));
                assert_eq!(log.complaint(), None, "{what}");
            } else {
                assert!(total(&samples) < total(all), "{what}: all samples are served\n{log}");
            }
            running.kill()?;
        }
        (started, _) => panic!("{what}: not as expected\n{}", started.log()),
    }
    Ok(())
}

/// Flips a bit of the first record of the checkpoint, so that Prometheus can read nothing of it. Returns what stood there.
fn damage_checkpoint(directory: &Directory) -> (PathBuf, Vec<u8>) {
    let path = directory.checkpoint().join("00000000");
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[50] ^= 0x10;
    damaged[60] ^= 0x01;
    fs::write(&path, damaged).unwrap();
    (path, bytes)
}

/// Lets a server run and scrape a new exporter, then kills it.
fn run(server: &Server, data: &Path, agent: bool, shape: Shape) -> Result {
    let exporter = Exporter::start(shape)?;
    let mut options = recipe(agent).options(server, &exporter);
    options.flags.clear();
    let mut running = server.start(data, &options)?.ready()?;
    running.wait_for("scrapes", DEADLINE, |_| Ok(exporter.scrapes() > SCRAPES))?;
    running.kill()?;
    Ok(())
}

/// As [`run`], until head compaction has begun a segment above `number`; each begins one, and no checkpoint succeeds.
fn run_past(server: &Server, data: &Path, number: i64) -> Result {
    let exporter = Exporter::start(shape())?;
    let mut options = recipe(false).options(server, &exporter);
    options.block_duration = Some(Duration::from_secs(2));
    let mut running = server.start(data, &options)?.ready()?;
    running.wait_for("a segment", DEADLINE, |_| {
        Ok(list_segments(&data.join("wal")).unwrap().last().is_some_and(|last| last.index > number))
    })?;
    running.kill()?;
    Ok(())
}

/// A checkpoint is damaged, and Prometheus started once, twice, thrice.
fn generations(server: &Server, base: &Path) -> Result {
    let what = server.version;
    let (_place, directory) = copy_of(base)?;
    let data = &directory.0;
    let before = read(data);
    let of_checkpoint = before.logs.iter().find(|log| log.path.contains("checkpoint")).expect("a checkpoint");
    let last = of_checkpoint.max_time.expect("samples");
    let (path, whole) = damage_checkpoint(&directory);

    let Started::Exited(exited) = server.start(data, &quiet(false))? else { panic!("{what} starts") };
    assert!(exited.log.with_msg("Deleting all segments newer than corrupted segment").is_some(), "{what}");
    let once = read(data);
    assert_eq!(
        found(&once),
        [("checkpoint_ahead", Damage), ("checksum_mismatch", Damage), ("unknown_refs", Warning)],
        "{what}: {:?}",
        once.findings
    );
    let ahead = finding(&once, "checkpoint_ahead");
    let gone = ahead.gone.expect("a time");
    assert!(gone.from.expect("a time") <= last && gone.to.is_none(), "{what}: {ahead:?}");

    let began = now();
    run(server, data, false, shape())?;
    let twice = read(data);
    let restarted = finding(&twice, "restarted_generation");
    assert_eq!((restarted.severity, restarted.path.as_str(), restarted.segment), (Damage, "wal", Some(0)));
    assert!(restarted.message().contains("cannot read that"), "{what}: {}", restarted.message());
    let times = restarted.times.expect("samples");
    let (from, to) = (times.from.expect("a time"), times.to.expect("a time"));
    // The exporter's late samples go back by a minute and some.
    assert!(began - 70_000 < from && from <= to && to <= now(), "{what}: {began} {from} {to}");
    let gone = restarted.gone.expect("a time");
    assert!(gone.from.expect("a time") <= last && gone.to.is_none_or(|to| to == from), "{what}: {gone:?}");
    let wal = twice.logs.iter().find(|log| log.path == "wal").expect("a WAL");
    let samples = wal.entries.samples + wal.entries.histograms;
    assert!(restarted.message().contains(&format!("{samples} samples")), "{what}: {}", restarted.message());
    assert!(wal.segments[0].bytes == 32768 && wal.segments[0].records == 0, "{what}: {:?}", wal.segments);
    assert!(finding(&twice, "trailing_zeros").message().contains("own repair"), "{what}");

    // The whole checkpoint, put back now, does not help: what came later is passed over.
    {
        let (_place, repaired) = copy_of(data)?;
        fs::write(repaired.0.join(path.strip_prefix(data).expect("below")), &whole).unwrap();
        let report = read(&repaired.0);
        assert_eq!(
            found(&report),
            [("restarted_generation", Damage), ("trailing_zeros", Warning)],
            "{what}: {:?}",
            report.findings
        );
        assert!(finding(&report, "restarted_generation").message().contains("without a word"), "{what}");
        let (samples, log) = served(server, &repaired.0)?;
        assert_eq!(log.complaint(), None, "{what}");
        assert!(total(&samples) > 0 && samples.values().flatten().all(|&(t, _)| t < began), "{what}");
    }

    run(server, data, false, shape())?;
    let thrice = read(data);
    let again = finding(&thrice, "restarted_generation");
    let wal_again = thrice.logs.iter().find(|log| log.path == "wal").expect("a WAL");
    assert!(wal_again.max_time > wal.max_time, "{what}");
    // Refs begin anew: had the second run's records stood there still, there would be twice as many.
    assert!(
        wal_again.entries.series < wal.entries.series * 3 / 2,
        "{what}: {:?} {:?}",
        wal.entries,
        wal_again.entries
    );
    assert!(again.times.expect("samples").from > times.from, "{what}: {again:?}");

    // It goes on beyond the number of the checkpoint; what is above would be replayed, if the checkpoint were not what it is.
    run_past(server, data, directory.number())?;
    let beyond = read(data);
    let found = finding(&beyond, "restarted_generation");
    assert_eq!((found.severity, found.segment), (Damage, Some(0)), "{what}: {found:?}");
    server.start(data, &quiet(false))?.ready()?.kill()?;
    assert!(directory.last().index <= 1, "{what}: {:?}", directory.segments());

    // The same without any damage: somebody removed the segments behind the checkpoint.
    let (_place, directory) = copy_of(base)?;
    directory.segments().iter().for_each(|segment| fs::remove_file(&segment.path).unwrap());
    let began = now();
    run(server, &directory.0, false, shape())?;
    let report = read(&directory.0);
    let restarted = finding(&report, "restarted_generation");
    assert!(restarted.message().contains("without a word"), "{what}: {}", restarted.message());
    let (samples, log) = served(server, &directory.0)?;
    // The WBL went on with refs of new series, whose records stand in segments that are passed over.
    let dropped: u64 = log
        .lines
        .iter()
        .filter(|line| line.msg() == "Unknown series references for ooo WAL replay")
        .filter_map(|line| line.field("samples")?.parse::<u64>().ok())
        .sum();
    let unknown = finding(&report, "unknown_refs");
    assert_eq!(unknown.path, "wbl", "{what}");
    assert!(
        dropped > 0 && unknown.message().starts_with(&format!("{dropped} samples ")),
        "{what}: {unknown:?}"
    );
    assert!(total(&samples) > 0 && samples.values().flatten().all(|&(t, _)| t < began), "{what}");
    Ok(())
}

/// Segments of another server behind our own: refs mean other series there.
fn foreign_segments(server: &Server, base: &Path, all: &Served) -> Result {
    let what = format!("{}: segments of another server", server.version);
    let other = temporary()?;
    run(server, other.path(), false, Shape { counters: 60, gauges: 0, churn: 0, ..shape() })?;
    let (_place, directory) = copy_of(base)?;
    let to = format!("wal/{}", segment_name(directory.last().index + 1));
    copy(&Directory(other.path().to_owned()).fullest("wal"), &directory.path(&to));
    let report = read(&directory.0);
    assert_eq!(found(&report), [("reissued_refs", Damage)], "{what}: {:?}", report.findings);
    assert_eq!(finding(&report, "reissued_refs").path, to, "{what}");
    let running = server.start(&directory.0, &quiet(false))?.ready()?;
    let samples = running.samples("{__name__=~\".+\"}", None)?;
    let missing = all.iter().filter(|(labels, before)| samples.get(*labels) != Some(before)).count();
    assert!(missing > 0, "{what}: all is served");
    running.kill()?;
    Ok(())
}

#[test(long)]
fn states_of_an_agent() -> Result {
    Servers::each("states of an agent's directories", |server| {
        let what = server.version;
        let base = temporary()?;
        recipe(true).make(server, base.path())?;
        let gone: [fn(&Directory); 2] = [
            |d| fs::remove_file(&d.segments()[0].path).unwrap(),
            |d| fs::remove_dir_all(d.checkpoint()).unwrap(),
        ];
        for remove in gone {
            let (_place, directory) = copy_of(base.path())?;
            remove(&directory);
            assert_eq!(finding(&read(&directory.0), "first_segment_missing").severity, Damage, "{what}");
            let started = server.start(&directory.0, &quiet(true))?;
            assert!(matches!(started, Started::Exited(_)), "{what}\n{}", started.log());
        }

        // What is there is read under any name, but for remote write, which is all that an agent does.
        let (_place, directory) = copy_of(base.path())?;
        fs::rename(directory.checkpoint().join("00000000"), directory.checkpoint().join("0")).unwrap();
        assert_eq!(found(&read(&directory.0)), [("misnamed_segment", Damage)], "{what}");
        let mut sending = quiet(true);
        sending.config = "remote_write: [{url: 'http://127.0.0.1:9/write'}]\n".into();
        let mut running = server.start(&directory.0, &sending)?.ready()?;
        running.wait_for("remote write to fail", DEADLINE, |running| {
            Ok(running.log().with_msg("error tailing WAL").is_some())
        })?;
        running.kill()?;

        let (_place, directory) = copy_of(base.path())?;
        directory.append("wal", &MARKERS);
        assert_eq!(found(&read(&directory.0)), [("misplaced_records", Warning)], "{what}");
        let running = server.start(&directory.0, &quiet(true))?.ready()?;
        assert!(running.log().complaint().is_some(), "{what}: an agent takes mmap markers");
        running.kill()?;

        let (_place, directory) = copy_of(base.path())?;
        damage_checkpoint(&directory);
        let started = server.start(&directory.0, &quiet(true))?;
        assert!(matches!(started, Started::Exited(_)), "{what}\n{}", started.log());
        finding(&read(&directory.0), "checkpoint_ahead");
        run(server, &directory.0, true, shape())?;
        assert_eq!(finding(&read(&directory.0), "restarted_generation").severity, Damage, "{what}");
        Ok(())
    })
}

/// ms since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
    i64::try_from(now.as_millis()).expect("a time of our days")
}
