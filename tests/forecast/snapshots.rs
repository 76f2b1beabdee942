//! Directories with chunk snapshots: what is foretold with the feature on, against what servers then serve, start by start; and that
//! a repair leaves no snapshot that hides what the WAL has.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::server::{Error, Options, Running, Server, Servers, Started, Version, copy_directory};
use support::{note, test};
use support::{pristine, seeds};
use walfix::record::{Record, SampleEntry, encode_samples, encode_series};
use walfix::repair::{self, Lock};
use walfix::scan::scan;
use walfix::tsdb::{Target, list_head_chunks};
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

/// 2026-01-01T00:00:00Z, ms.
const START: i64 = 1_767_225_600_000;
const STEP: i64 = 15_000;
/// Series from the beginning, and more that come with each later part.
const SERIES: u64 = 30;
const MORE: u64 = 5;

/// A sample: the ref of its series, which is in its name, and its time.
type Sample = (u64, i64);

fn series(refs: std::ops::RangeInclusive<u64>) -> Vec<u8> {
    let names: Vec<String> = refs.clone().map(|number| format!("s_{number}")).collect();
    let mut record = Vec::new();
    encode_series(refs.zip(names.iter().map(|name| [(&b"__name__"[..], name.as_bytes())])), &mut record);
    record
}

fn samples(refs: std::ops::RangeInclusive<u64>, scrape: i64) -> Vec<u8> {
    let t = START + scrape * STEP;
    let value = |series_ref: u64| {
        let whole = |number: i64| f64::from(i32::try_from(number).unwrap());
        (whole(series_ref.cast_signed()) + whole(scrape) / 7.0).to_bits()
    };
    let entries: Vec<_> =
        refs.map(|series_ref| SampleEntry { series_ref, t, st: 0, value_bits: value(series_ref) }).collect();
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

/// New series and scrapes of all.
fn part(new: std::ops::RangeInclusive<u64>, scrapes: std::ops::Range<i64>) -> Vec<u8> {
    let last = *new.end();
    segment([series(new)].into_iter().chain(scrapes.map(|n| samples(1..=last, n))))
}

fn with_snapshots() -> Options {
    Options {
        features: vec!["memory-snapshot-on-shutdown".to_owned()],
        flags: vec!["--storage.tsdb.retention.time=100y".to_owned()],
        ..Options::default()
    }
}

/// A directory that was stopped in order twice, and killed while it ran the third time: head chunks in two files, a snapshot,
/// and a segment behind that.
fn base(server: &Server, data: &Path) -> Result<(), Error> {
    fs::create_dir_all(data.join("wal")).unwrap();
    fs::write(data.join("wal/00000000"), part(1..=SERIES, 0..130)).unwrap();
    fs::write(data.join("wal/00000001"), part(SERIES + 1..=SERIES + MORE, 130..200)).unwrap();
    server.start(data, &with_snapshots())?.ready()?.stop()?;
    fs::write(data.join("wal/00000003"), part(SERIES + MORE + 1..=SERIES + 2 * MORE, 200..400)).unwrap();
    server.start(data, &with_snapshots())?.ready()?.stop()?;
    fs::write(data.join("wal/00000005"), part(SERIES + 2 * MORE + 1..=SERIES + 3 * MORE, 400..430)).unwrap();
    let names = |directory: &str| fs::read_dir(data.join(directory)).unwrap().count();
    assert_eq!((names("chunks_head"), names("wal")), (2, 6));
    snapshot(data);
    Ok(())
}

/// The directory of the only snapshot.
fn snapshot(data: &Path) -> PathBuf {
    let mut all = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    all.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("chunk_snapshot.")).unwrap()
}

/// What can be had of a directory that `healthy` has become: samples in records and head chunks that stand, of series whose records
/// stand.
fn could_be_had(healthy: &Path, data: &Path) -> BTreeSet<Sample> {
    let mut known = BTreeSet::new();
    let mut there: Vec<Sample> = Vec::new();
    let mut all: HashMap<u64, BTreeSet<i64>> = HashMap::new();
    for entry in fs::read_dir(healthy.join("wal")).unwrap() {
        let path = entry.unwrap().path();
        let now = fs::read(data.join("wal").join(path.file_name().unwrap())).unwrap_or_default();
        let bytes = fs::read(&path).unwrap();
        for record in pristine::records(&bytes) {
            let stands =
                record.fragments.iter().all(|range| now.get(range.clone()) == bytes.get(range.clone()));
            match Record::parse(&record.data) {
                Record::Series(series) if stands => {
                    known.extend(series.entries().flatten().map(|entry| entry.series_ref));
                }
                Record::Samples(samples) => {
                    for entry in samples.entries().flatten() {
                        all.entry(entry.series_ref).or_default().insert(entry.t);
                        if stands {
                            there.push((entry.series_ref, entry.t));
                        }
                    }
                }
                _ => {}
            }
        }
    }
    for file in list_head_chunks(&data.join("chunks_head"), "").unwrap().files {
        for chunk in file.chunks().unwrap().flatten() {
            let times = all.get(&chunk.series_ref).into_iter().flatten();
            let held = times.filter(|time| (chunk.min_time..=chunk.max_time).contains(time));
            let held: Vec<Sample> = held.map(|&time| (chunk.series_ref, time)).collect();
            // One that a later start has written has what stood in the log by then.
            if held.len() == usize::from(chunk.samples) {
                there.extend(held);
            }
        }
    }
    there.into_iter().filter(|(series_ref, _)| known.contains(series_ref)).collect()
}

fn query(running: &Running) -> Result<BTreeSet<Sample>, Error> {
    let mut all = BTreeSet::new();
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let time = (START / 1000 + 100_000) as f64;
    for (name, samples) in running.samples("{__name__=~\"s_.+\"}", Some(time))? {
        let digits: String =
            name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        let series_ref: u64 = digits.parse().unwrap();
        all.extend(samples.into_iter().map(|(time, _)| (series_ref, time)));
    }
    Ok(all)
}

fn forecast(data: &Path, version: Version) -> Value {
    let mut walfix = Command::new(env!("CARGO_BIN_EXE_walfix"));
    walfix
        .args(["scan", "--format", "json", "--threads", "1", "--prometheus", &version.to_string()])
        .arg(data);
    let output = walfix.stdin(Stdio::null()).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["prometheus"].clone()
}

/// Overwrites some bytes.
fn overwrite(path: &Path, rng: &mut fastrand::Rng) {
    let mut bytes = fs::read(path).unwrap();
    // Files of head chunks are longer than they need be.
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
    if used < 16 {
        return;
    }
    let at = rng.usize(8..used - 4);
    for byte in &mut bytes[at..at + 4] {
        *byte ^= rng.u8(1..);
    }
    fs::write(path, bytes).unwrap();
}

fn segment_of(data: &Path, number: usize) -> PathBuf {
    data.join(format!("wal/{number:08}"))
}

/// What is done to the directory.
fn damage(data: &Path, rng: &mut fastrand::Rng) -> String {
    let heads = ["chunks_head/000001", "chunks_head/000002"];
    let taken = snapshot(data);
    match rng.u32(..15) {
        0 => "nothing".to_owned(),
        1 => {
            for head in &heads {
                fs::remove_file(data.join(head)).unwrap();
            }
            "all head chunks removed".to_owned()
        }
        2 | 3 => {
            let head = heads[rng.usize(..2)];
            fs::remove_file(data.join(head)).unwrap();
            format!("{head} removed")
        }
        4 | 5 => {
            let head = heads[rng.usize(..2)];
            overwrite(&data.join(head), rng);
            format!("{head} overwritten")
        }
        6 => {
            let head = data.join(heads[rng.usize(..2)]);
            let length = head.metadata().unwrap().len();
            let keep = rng.u64(8..length.min(8000));
            fs::OpenOptions::new().write(true).open(&head).unwrap().set_len(keep).unwrap();
            format!("{} cut to {keep}", head.display())
        }
        7 => {
            overwrite(&taken.join("00000000"), rng);
            "the snapshot overwritten".to_owned()
        }
        8 => {
            let file = taken.join("00000000");
            let length = file.metadata().unwrap().len();
            fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(rng.u64(..length)).unwrap();
            "the snapshot cut".to_owned()
        }
        9 => {
            fs::remove_dir_all(&taken).unwrap();
            "the snapshot removed".to_owned()
        }
        10 => {
            let number = rng.u32(..9);
            fs::rename(&taken, data.join(format!("chunk_snapshot.{number:06}.0000000000"))).unwrap();
            format!("the snapshot has number {number}")
        }
        11 => {
            let keep = rng.usize(1..6);
            (keep..6).for_each(|number| fs::remove_file(segment_of(data, number)).unwrap());
            format!("segments removed from {keep} on")
        }
        12 => {
            let number = [0, 1, 3][rng.usize(..3)];
            overwrite(&segment_of(data, number), rng);
            format!("segment {number} overwritten, before the snapshot")
        }
        13 => {
            overwrite(&segment_of(data, 5), rng);
            "segment 5 overwritten, behind the snapshot".to_owned()
        }
        _ => {
            let first = damage(data, rng);
            let there = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
            if there
                .filter_map(|name| name.into_string().ok())
                .any(|name| name.starts_with("chunk_snapshot."))
            {
                let head = data.join(heads[rng.usize(..2)]);
                let _ = fs::remove_file(&head);
                return format!("{first}, and {} removed", head.display());
            }
            first
        }
    }
}

/// One start: what it serves, if it does.
fn start(server: &Server, data: &Path, stops: bool) -> Result<Option<BTreeSet<Sample>>, Error> {
    match server.start(data, &with_snapshots())? {
        Started::Ready(running) => {
            let queried = query(&running)?;
            if stops { running.stop() } else { running.kill() }?;
            Ok(Some(queried))
        }
        Started::Exited(_) => Ok(None),
        Started::Hangs(running) => {
            running.kill()?;
            Ok(None)
        }
    }
}

/// What was foretold of a start, against that start.
fn compare(
    foretold: &Value,
    could: &BTreeSet<Sample>,
    served: Option<&BTreeSet<Sample>>,
) -> Result<(), String> {
    let outcome = foretold["outcome"].as_str().unwrap();
    let is_up = matches!(outcome, "starts" | "loses");
    let Some(served) = served else {
        return if is_up { Err(format!("{outcome}, and it is not up")) } else { Ok(()) };
    };
    let lacks = could.difference(served).count() as u64;
    let told = foretold["not_replayed"]["samples"].as_u64().unwrap();
    if !is_up || lacks != told || outcome == "starts" && lacks > 0 {
        return Err(format!("{outcome}, {told} not served; {lacks} of {} are not", could.len()));
    }
    Ok(())
}

/// Forecasts and starts of one damage; what does not fit.
fn try_damage(server: &Server, healthy: &Path, seed: u64, starts: usize) -> Result<Vec<String>, Error> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let root = support::scratch();
    let data = root.path().join("data");
    copy_directory(healthy, &data)?;
    let what = damage(&data, &mut rng);
    let stops = rng.bool();
    let repaired = root.path().join("repaired");
    copy_directory(&data, &repaired)?;
    let mut wrong = Vec::new();
    let mut say = |about: String, said: Result<(), String>| {
        if let Err(said) = said {
            wrong.push(format!("seed {seed}, {}, {what}, {about}: {said}", server.version));
        }
    };
    let mut forecasts: Vec<(Value, BTreeSet<Sample>)> = Vec::new();
    for number in 0..starts {
        forecasts.push((forecast(&data, server.version), could_be_had(healthy, &data)));
        let queried = start(server, &data, stops)?;
        for (state, (foretold, could)) in forecasts.iter().enumerate() {
            let all = foretold["starts"].as_array().unwrap();
            // What is foretold of later starts is that of servers that are stopped in order.
            if stops || state == number {
                let foretold = &all[(number - state).min(all.len() - 1)];
                say(
                    format!("start {number} before start {state}"),
                    compare(foretold, could, queried.as_ref()),
                );
            }
        }
    }
    let target = Target::find(&repaired).unwrap();
    let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
    let assumed =
        walfix::forecast::Assumed { version: server.version.to_string().parse().unwrap(), agent: false };
    let told = walfix::forecast::forecast(&target, &report, assumed).unwrap();
    let options = repair::Options { assumed, ..repair::Options::default() };
    let plan = repair::plan(&target, &report, told.as_ref(), options).unwrap();
    let could = could_be_had(healthy, &repaired);
    if !plan.steps.is_empty() {
        let lock = Lock::take(&repaired).unwrap();
        repair::apply(&target, &plan, &root.path().join("backup"), &lock).unwrap();
    }
    let foretold = forecast(&repaired, server.version);
    let after = could_be_had(healthy, &repaired);
    let queried = start(server, &repaired, true)?;
    if plan.left.is_empty() {
        let lacks = queried.as_ref().map(|queried| could.difference(queried).count());
        // Where head chunks hide more than they alone have, they go, with samples whose records are lost.
        let all = if lacks.is_some_and(|lacks| lacks * 100 <= could.len()) {
            Ok(())
        } else {
            Err(format!("{lacks:?} of {} are not queried", could.len()))
        };
        say("repaired".to_owned(), all);
    }
    say(
        "the forecast of the repaired one".to_owned(),
        compare(&foretold["starts"][0], &after, queried.as_ref()),
    );
    Ok(wrong)
}

/// How many damages are tried with each version; `WALFIX_SNAPSHOTS` says how many, 150 in long runs.
fn count() -> u64 {
    std::env::var("WALFIX_SNAPSHOTS").map_or(4, |count| count.parse().expect("WALFIX_SNAPSHOTS"))
}

#[test(long)]
fn damages_under_a_snapshot() {
    Servers::each("damages under a chunk snapshot", |server| {
        if server.version < Version(2, 53, 0) {
            return Ok(());
        }
        let root = support::scratch();
        let healthy = root.path().join("healthy");
        base(server, &healthy)?;
        let mut wrong = Vec::new();
        let mut tried = 0;
        for seed in seeds(count()) {
            wrong.extend(try_damage(server, &healthy, seed, 3)?);
            tried += 1;
        }
        note!("{}: {tried} damages, {} differences", server.version, wrong.len());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok::<(), Error>(())
    })
    .unwrap();
}

/// Each of these hides, or loses, what can be had; and a repair prevents that, with the feature on and off.
#[test(long)]
fn repairs_of_what_a_snapshot_hides() {
    type Damage = fn(&Path);
    let states: [(&str, Damage); 4] = [
        ("head chunks removed", |data| fs::remove_dir_all(data.join("chunks_head")).unwrap()),
        ("the first file removed", |data| fs::remove_file(data.join("chunks_head/000001")).unwrap()),
        ("a chunk overwritten", |data| {
            overwrite(&data.join("chunks_head/000001"), &mut fastrand::Rng::with_seed(1));
        }),
        ("wal removed", |data| {
            fs::remove_dir_all(data.join("wal")).unwrap();
            fs::create_dir(data.join("wal")).unwrap();
        }),
    ];
    Servers::each("repairs of what a chunk snapshot hides", |server| {
        if server.version < Version(2, 53, 0) {
            return Ok(());
        }
        let root = support::scratch();
        let healthy = root.path().join("healthy");
        base(server, &healthy)?;
        for (what, make) in states {
            let data = root.path().join("data");
            let _ = fs::remove_dir_all(&data);
            copy_directory(&healthy, &data)?;
            make(&data);
            let without_repair = root.path().join("unrepaired");
            let _ = fs::remove_dir_all(&without_repair);
            copy_directory(&data, &without_repair)?;
            let unrepaired = start(server, &without_repair, false)?.unwrap_or_default();
            let target = Target::find(&data).unwrap();
            let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
            let told =
                walfix::forecast::forecast(&target, &report, walfix::forecast::Assumed::default()).unwrap();
            let plan = repair::plan(&target, &report, told.as_ref(), repair::Options::default()).unwrap();
            assert!(
                plan.left.is_empty() && !plan.steps.is_empty(),
                "{what}: {:?} {:?}",
                plan.left,
                plan.steps
            );
            let backup = root.path().join("backup");
            let _ = fs::remove_dir_all(&backup);
            let lock = Lock::take(&data).unwrap();
            repair::apply(&target, &plan, &backup, &lock).unwrap();
            drop(lock);
            for number in 0..2 {
                let served = start(server, &data, number == 0)?.unwrap_or_default();
                let could = could_be_had(&healthy, &data);
                assert_eq!(could.difference(&served).count(), 0, "{what}, start {number}");
                if what != "a chunk overwritten" {
                    assert!(
                        unrepaired.len() < served.len(),
                        "{what}: {} and {}",
                        unrepaired.len(),
                        served.len()
                    );
                }
            }
        }
        Ok::<(), Error>(())
    })
    .unwrap();
}
