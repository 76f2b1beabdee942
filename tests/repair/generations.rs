//! Damaged checkpoints on which Prometheus was started since: what is repaired serves all that must be served, and nothing
//! under labels with which it was not written.
//!
//! Prometheus answers damage in a checkpoint by deleting the WAL, and begins another that hands out refs anew. Healthy
//! directories are damaged at places from seeds, Prometheus's packages are started on them up to four times and take in
//! samples: of series that they have read, of others that are in the part of the checkpoint that they have not, of new ones,
//! and late ones. Then the directory is repaired. What must be served is reckoned in `support/generations.rs`.
//!
//! | knob | |
//! |---|---|
//! | `WALFIX_PLACES`, `WALFIX_FIRST_SEED` | how many damages, and from which seed on |
//! | `WALFIX_KEEP` | a directory in which each case is kept: `data` before the repair, `backup`, `repaired` |
//! | `WALFIX_DIRECTORIES` | further healthy directories, separated by `:` |
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fastrand::Rng;
use serde_json::{Value, json};
use support::bases::{Base, Names, Sample, Standing};
use support::exporter::{Exporter, Shape};
use support::fresh::{Checkpoint, Recipe};
use support::generations::{
    Healthy, Must, Obstacles, STALE, Samples, Story, Takes, Times, accepted, anywhere, complaints, is_fence,
    is_harmless, logged_complaints, min_valid_time, queried, served, walfix,
};
use support::judged::{Judged, conclude, in_lanes, knob};
use support::matrix::{BASES, Matrix};
use support::oracle::{self, Oracle};
use support::recipes::{At, Damaged, ROWS};
use support::server::{Level, Options, Server, Servers};
use support::tree;
use support::{note, test};

/// Sorts of directories that the others do not have: name and arguments of `oracle directory`.
const MORE: [(&str, &[&str]); 4] = [
    ("one-segment", &["--checkpoint-segments", "1", "--wbl", "--rich", "--compression", "snappy"]),
    ("wbl-chunks", &["--wbl", "--chunks", "--rounds", "40", "--compression", "zstd"]),
    ("snapshot", &["--rich", "--wbl", "--snapshot", "--rounds", "30"]),
    ("far", &["--checkpoint", "4500", "--chunks", "--rounds", "40", "--rich"]),
];

/// Healthy directories with a checkpoint.
fn directories(oracle: Oracle) -> Vec<Healthy> {
    let sorts = BASES.iter().filter(|(name, agent, ..)| !agent && !["young", "newest"].contains(name));
    let made = sorts.map(|(name, _, arguments, _)| (*name, *arguments)).chain(MORE);
    let mut all: Vec<_> = made
        .map(|(name, arguments)| Healthy::new(Base::make(oracle, name, false, arguments), oracle))
        .collect();
    let given = std::env::var("WALFIX_DIRECTORIES").unwrap_or_default();
    for path in given.split(':').filter(|path| !path.is_empty()) {
        let base = Base::read(oracle, path, false, Path::new(path));
        if base.checkpoint().is_some() {
            all.push(Healthy::new(base, oracle));
        }
    }
    all
}

/// Starts, repairs and judges.
fn judge(seed: u64, story: &mut Story<'_>, oracle: Oracle, rng: &mut Rng) -> Judged {
    let mut judged = Judged { words: story.words(), ..Judged::default() };
    let wrong = &mut judged.wrong;
    let data = story.data();
    let must = story.must();
    let obstacles = story.obstacles();
    // What Prometheus serves as it is.
    let unrepaired = story.path("unrepaired");
    tree::copy(&data, &unrepaired);
    let report = oracle.json(&["open", "--again"], &unrepaired);
    let mut without = served(&report["series"], &mut story.names);
    without.extend(served(&report["again"]["series"], &mut story.names));
    let deletes = Standing::deletes(&must.old);
    without.retain(|sample, bits| story.was_written(sample, bits) && !deletes(sample));
    drop(deletes);
    std::fs::remove_dir_all(&unrepaired).unwrap();

    let before = tree::tree(&data);
    let backup = story.path("backup");
    let option = format!("--backup={}", backup.display());
    let (exit, answer) = walfix(&["repair", "--accept-orphans", "--format=json", &option], &data);
    let left = answer["left"].as_array().unwrap();
    if !left.is_empty() {
        judged.left = Some(format!(
            "{}: {}",
            left[0]["code"].as_str().unwrap_or("?"),
            left[0]["reason"].as_str().unwrap_or("?")
        ));
        if answer["steps"].as_array().is_some_and(Vec::is_empty)
            && let Some(difference) = tree::difference(&before, &tree::tree(&data))
        {
            wrong.push(format!("left, and changed: {difference}"));
        }
        return judged;
    }
    let repaired = story.path("repaired");
    tree::copy(&data, &repaired);
    tree::copy(&data, &story.path("repaired-for-server"));
    if backup.exists() {
        let (exit, _) = walfix(&["undo", "--format=json"], &backup);
        let difference = tree::difference(&before, &tree::tree(&data));
        if exit != 0 || difference.is_some() {
            wrong.push(format!("undo: exit {exit}, {}", difference.unwrap_or_default()));
        }
    } else {
        wrong.push("no backup".to_owned());
    }
    let (_, report) = walfix(&["scan", "--format=json"], &repaired);
    if report["verdict"] == "damaged" {
        let codes = report["findings"].as_array().into_iter().flatten().filter(|f| f["severity"] == "damage");
        let codes: Vec<_> = codes.map(|f| f["code"].as_str().unwrap_or_default()).collect();
        let starts = &report["prometheus"]["starts"];
        wrong.push(format!("scan: {codes:?}, {}, {starts}", report["reasons"]));
    }
    story.keep(&seed.to_string());
    judged.lacks = serve(story, &repaired, (&must, &without, &obstacles), oracle, rng, wrong);
    if exit == 4 && !judged.lacks.is_empty() {
        judged.lacks.push((0, "exit 4, and Prometheus starts clean".to_owned()));
    } else if !matches!(exit, 0 | 1) {
        judged.wrong.push(format!("exit {exit}: {}", answer["after"]));
    }
    judged
}

/// Starts Prometheus on a repaired directory again and again; in between it takes in new series, and makes a checkpoint.
fn serve(
    story: &mut Story<'_>,
    repaired: &Path,
    (must, without, obstacles): (&Must, &Samples, &Obstacles),
    oracle: Oracle,
    rng: &mut Rng,
    wrong: &mut Vec<String>,
) -> Vec<(usize, String)> {
    let report = oracle.json(&["open"], repaired);
    wrong.extend(complaints(&report).into_iter().map(|words| format!("first start: {words}")));
    let first = served(&report["series"], &mut story.names);
    wrong.extend(strange(story, &first, &Samples::new()).map(|words| format!("first start: {words}")));
    let unrepaired = without.keys().map(|sample| (sample, "what it serves unrepaired"));
    let mut missing: BTreeMap<(&str, &str), (usize, Sample)> = BTreeMap::new();
    for (sample, what) in must.all.iter().map(|(sample, what)| (sample, *what)).chain(unrepaired) {
        if !first.contains_key(sample) {
            let obstacle = story.obstacle(sample, what, obstacles).unwrap_or_default();
            missing.entry((what, obstacle)).or_insert((0, *sample)).0 += 1;
        }
    }
    let mut lacks = Vec::new();
    for ((what, obstacle), (count, example)) in missing {
        if obstacle.is_empty() {
            wrong.push(format!("{count} samples are not served of {what}, e.g. {example:?}"));
        } else {
            lacks.push((count, format!("{what}: {obstacle}")));
        }
    }
    // As many new series as may meet refs that were handed out before.
    let runs = story.runs.iter().flatten().flat_map(|run| run.refs.values().copied());
    let highest = runs.chain(story.healthy.refs.keys().copied()).max().unwrap_or(0);
    let count = usize::try_from(highest.saturating_sub(story.highest) + 10).unwrap().min(1500);
    let newest = first.keys().map(|&(_, time)| time).max().unwrap_or(story.healthy.newest);
    // Behind the newest block.
    let newest = newest.max(min_valid_time(repaired));
    let labels = |n: usize| json!([["__name__", "reissued"], ["n", n.to_string()]]);
    let mut steps = Vec::new();
    for round in 1..=2 {
        let commit: Vec<Value> =
            (0..count).map(|n| json!({ "labels": labels(n), "t": newest + round * 1000, "v": n })).collect();
        steps.push(json!({ "append": commit }));
    }
    let late: Vec<Value> =
        (0..20).map(|n| json!({ "labels": labels(n), "t": newest - 60_000 - 7 * i64::try_from(n).unwrap(), "v": 0.5 })).collect();
    steps.push(json!({ "append": late }));
    let told = json!({ "tries": 1, "window": 1_800_000, "steps": steps, "kill": rng.bool() });
    let report = oracle.told(&["grow"], repaired, &told);
    wrong.extend(logged_complaints(&report["log"]).into_iter().map(|words| format!("second start: {words}")));
    if report["grown"] != true {
        wrong.push(format!("second start: {:?}", report["open_errors"]));
        return lacks;
    }
    let (grown, refs) = accepted(&told, &report, &mut story.names);
    if refs.len() < count {
        wrong.push(format!("second start: {} of {count} series taken in", refs.len()));
    }
    let report = oracle.json(&["open", "--checkpoint", "--again"], repaired);
    for (name, report) in [("third start", &report), ("fourth start", &report["again"])] {
        wrong.extend(complaints(report).into_iter().map(|words| format!("{name}: {words}")));
        let now = served(&report["series"], &mut story.names);
        wrong.extend(strange(story, &now, &grown).map(|words| format!("{name}: {words}")));
        let gone = first.keys().chain(grown.keys()).filter(|sample| !now.contains_key(*sample));
        let gone: Vec<_> =
            gone.filter(|sample| !is_fence(&mut story.names.clone(), sample, &STALE)).collect();
        if !gone.is_empty() {
            wrong.push(format!("{name}: {} samples are gone, e.g. {:?}", gone.len(), gone[0]));
        }
    }
    lacks
}

/// Samples that were never written under their labels.
fn strange(story: &mut Story<'_>, now: &Samples, grown: &Samples) -> Option<String> {
    let mut names: Names = story.names.clone();
    let all: Vec<_> = now
        .iter()
        .filter(|(sample, bits)| !story.was_written(sample, bits) && grown.get(*sample) != Some(*bits))
        .filter(|(sample, bits)| !is_fence(&mut names, sample, bits))
        .collect();
    let example = all.first()?;
    let label_sets: BTreeSet<u32> = all.iter().map(|(sample, _)| sample.0).collect();
    Some(format!(
        "{} samples of {} series under labels with which they were not written, e.g. {example:?}{}",
        all.len(),
        label_sets.len(),
        story.origin(example.0, example.1)
    ))
}

/// What happens between the damage and the repair.
fn live(story: &mut Story<'_>, state: u64, rng: &mut Rng) {
    use Takes::{All, Known, Nothing};
    let runs: &[Takes] = match state % 10 {
        0 => return,
        1 => &[],
        2 => &[Nothing],
        3 => &[Nothing, Nothing],
        4 => &[All],
        5 => &[Known],
        6 => &[All, All],
        7 => &[All, Known],
        8 => &[All, Nothing],
        _ => &[All, Known, All],
    };
    // An old snapshot would hide the damage.
    let hides = story.healthy.base.tree.keys().any(|path| path.starts_with("chunk_snapshot."));
    story.snapshots = rng.usize(..5) == 0 && !hides;
    // The start that deletes and fails.
    story.run(Nothing, 1, rng);
    for &takes in runs {
        story.run(takes, 2, rng);
    }
    story.copied();
}

/// Seeds for which a repair once was wrong: a fault in a segment of the checkpoint whose number is above the checkpoint's.
const ONCE_WRONG: [u64; 2] = [236, 5068];

#[test(long)]
fn somewhere_in_the_checkpoint() {
    let oracle = oracle::judge("generations");
    let directories = directories(oracle);
    let first = knob("WALFIX_FIRST_SEED", 0);
    let seeds: Vec<u64> = (first..first + knob("WALFIX_PLACES", 40)).chain(ONCE_WRONG).collect();
    let seed_of = |at: u64| seeds[usize::try_from(at).unwrap()];
    let results = in_lanes(0..seeds.len() as u64, |at| {
        let seed = seed_of(at);
        let mut rng = Rng::with_seed(seed);
        let healthy = &directories[rng.usize(..directories.len())];
        let (words, damaged) = anywhere(&healthy.base, &mut rng);
        let mut story = Story::begin(healthy, damaged, Times::any(&mut rng), oracle);
        // Nothing that a start comes upon: it goes on with the generation that there is.
        story.is_refused.then_some(())?;
        let state = seed;
        live(&mut story, state, &mut rng);
        Some((
            format!("{}, {words}, state {}", healthy.base.name, state % 10),
            judge(seed, &mut story, oracle, &mut rng),
        ))
    });
    let of_seeds: Vec<_> =
        results.into_iter().map(|(at, name, judged)| (seed_of(at), name, judged)).collect();
    conclude(&of_seeds);
}

/// Every way of damaging a checkpoint: rows 1 to 13, 16 to 20.
#[test(long)]
fn in_every_way() {
    let oracle = oracle::judge("generations, every way");
    let directories = directories(oracle);
    let mut cases: Vec<(&Healthy, String, Damaged)> = Vec::new();
    for healthy in &directories {
        let checkpoint = healthy.base.checkpoint().unwrap();
        for row in ROWS.iter().filter(|row| row.number() > 0) {
            if row.at == At::Directory {
                let first = healthy.base.segments.keys().next().unwrap();
                cases.extend(
                    row.apply(&healthy.base, first).map(|damaged| (healthy, row.name.to_owned(), damaged)),
                );
                continue;
            }
            for file in healthy.base.segments_of(&checkpoint) {
                if let Some(damaged) = row.apply(&healthy.base, file) {
                    cases.push((healthy, format!("{} in {file}", row.name), damaged));
                }
            }
        }
    }
    // A part of all by default: they are many.
    let places = usize::try_from(knob("WALFIX_PLACES", 40)).unwrap();
    let step = if places >= 300 { 1 } else { cases.len().div_ceil(places.max(1)) };
    let wanted: Vec<u64> = (knob("WALFIX_FIRST_SEED", 0)..cases.len() as u64).step_by(step).collect();
    note!("{} of {} cases", wanted.len(), cases.len());
    let mut results = in_lanes(0..wanted.len() as u64, |number| {
        let seed = wanted[usize::try_from(number).unwrap()];
        let (healthy, words, damaged) = &cases[usize::try_from(seed).unwrap()];
        let mut rng = Rng::with_seed(seed);
        let mut story = Story::begin(healthy, damaged.clone(), Times::any(&mut rng), oracle);
        story.is_refused.then_some(())?;
        let state = rng.u64(..10);
        live(&mut story, state, &mut rng);
        Some((
            format!("{}, {words}, state {}", healthy.base.name, state % 10),
            judge(seed, &mut story, oracle, &mut rng),
        ))
    });
    for (number, ..) in &mut results {
        *number = wanted[usize::try_from(*number).unwrap()];
    }
    conclude(&results);
}

/// The same, with real servers: the one who makes the directory, who runs since, and who starts after the repair.
#[test(long)]
fn with_real_servers() {
    let what = "generations with real servers";
    let (oracle, mut servers) = (oracle::judge(what), Servers::judges(what));
    if Matrix::wanted() == Matrix::Quick {
        servers.drain(..servers.len().saturating_sub(1));
    }
    let shape = Shape { counters: 20, gauges: 20, classic: 2, native: 2, late: 5, late_samples: 8, churn: 8 };
    let recipe = Recipe {
        shape,
        checkpoint: Checkpoint::Samples,
        scrapes: 40,
        tombstones: false,
        ..Recipe::default()
    };
    let first = knob("WALFIX_FIRST_SEED", 0);
    let cases = knob("WALFIX_PLACES", 4).min(40);
    for server in &servers {
        let exporter = Exporter::start(shape).unwrap();
        let scratch = support::scratch();
        let data = scratch.path().join("data");
        recipe.make_of(server, &data, &exporter).unwrap();
        let name = server.version.to_string();
        let healthy = Healthy::new(Base::read(oracle, &name, false, &data), oracle);
        let results = in_lanes(first..first + cases, |seed| {
            let mut rng = Rng::with_seed(seed);
            let (words, damaged) = anywhere(&healthy.base, &mut rng);
            let mut story = Story::begin(&healthy, damaged, Times::OfServer, oracle);
            story.is_refused.then_some(())?;
            // Never since; the start that fails; one, two or three runs.
            for _ in 0..[0, 2, 3, 1, 4][usize::try_from(seed % 5).unwrap()] {
                story
                    .run_server((server, &recipe, &exporter), [5, 30, 150][rng.usize(..3)], rng.bool())
                    .unwrap();
            }
            let name = format!("{name}, {words}");
            let mut judged = judge(seed, &mut story, oracle, &mut rng);
            if judged.left.is_none() {
                judged.wrong.extend(start_server(server, &mut story));
            }
            Some((name, judged))
        });
        conclude(&results);
    }
}

/// What a real server, started twice on what a repair has left, lacks, and what it complains of.
fn start_server(server: &Server, story: &mut Story<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (must, obstacles) = (story.must(), story.obstacles());
    let repaired = story.path("repaired-for-server");
    let options = Options {
        config: "storage:\n  tsdb:\n    out_of_order_time_window: 30m\nscrape_configs: []\n".to_owned(),
        features: vec!["native-histograms".to_owned()],
        flags: vec!["--storage.tsdb.retention.time=100y".to_owned()],
        ..Options::default()
    };
    for start in ["first", "second"] {
        let running = match server.start(&repaired, &options).unwrap().ready() {
            Ok(running) => running,
            Err(error) => {
                wrong.push(format!("{start} start: {error}"));
                break;
            }
        };
        let now = queried(&running, &mut story.names).unwrap();
        let lines = running.stop().unwrap().log;
        let lines = lines.at_least(Level::Warn).filter(|line| line.field("component") == Some("tsdb"));
        let lines = lines.filter(|line| !is_harmless(line.msg()));
        wrong.extend(
            lines.map(|line| format!("{start} start: {} {}", line.msg(), line.err().unwrap_or_default())),
        );
        wrong.extend(strange(story, &now, &Samples::new()).map(|words| format!("{start} start: {words}")));
        let lost = must.all.iter().filter(|(sample, what)| {
            !now.contains_key(*sample)
                && !story.is_stale(sample)
                && story.obstacle(sample, what, &obstacles).is_none()
        });
        let lost: Vec<_> = lost.collect();
        if let Some(example) = lost.first() {
            wrong.push(format!("{start} start: {} samples are not served, e.g. {example:?}", lost.len()));
        }
    }
    wrong
}
