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

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use serde_json::{Value, json};
use support::bases::{Base, Names, Sample, Standing};
use support::generations::{
    Healthy, Must, Obstacles, Samples, Story, Takes, Times, accepted, anywhere, complaints,is_fence,
    logged_complaints, min_valid_time, served, walfix,
};
use support::matrix::BASES;
use support::oracle::{self, Oracle};
use support::recipes::{At, Damaged, ROWS};
use support::tree;

/// Sorts of directories that the others do not have: name and arguments of `oracle directory`.
const MORE: [(&str, &[&str]); 4] = [
    ("one-segment", &["--checkpoint-segments", "1", "--wbl", "--rich", "--compression", "snappy"]),
    ("wbl-chunks", &["--wbl", "--chunks", "--rounds", "40", "--compression", "zstd"]),
    ("snapshot", &["--rich", "--wbl", "--snapshot", "--rounds", "30"]),
    ("far", &["--checkpoint", "4500", "--chunks", "--rounds", "40", "--rich"]),
];

fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// Healthy directories with a checkpoint.
fn directories(oracle: Oracle) -> Vec<Healthy> {
    let sorts = BASES.iter().filter(|(name, agent, ..)| !agent && !["young", "newest"].contains(name));
    let made = sorts.map(|(name, _, arguments, _)| (*name, *arguments)).chain(MORE);
    let mut all: Vec<_> =
        made.map(|(name, arguments)| Healthy::new(Base::make(oracle, name, false, arguments), oracle)).collect();
    let given = std::env::var("WALFIX_DIRECTORIES").unwrap_or_default();
    for path in given.split(':').filter(|path| !path.is_empty()) {
        let base = Base::read(oracle, path, false, Path::new(path));
        if base.checkpoint().is_some() {
            all.push(Healthy::new(base, oracle));
        }
    }
    all
}

/// What a case came to.
#[derive(Default)]
struct Judged {
    words: String,
    /// Why nothing was repaired.
    left: Option<String>,
    /// What must be served and is not, because of how Prometheus replays: how many samples, and why.
    lacks: Vec<(usize, String)>,
    wrong: Vec<String>,
}

/// Starts, repairs and judges.
fn judge(seed: u64, mut story: Story<'_>, oracle: Oracle, rng: &mut Rng) -> Judged {
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
        judged.left = Some(format!("{}: {}", left[0]["code"].as_str().unwrap_or("?"), left[0]["reason"].as_str().unwrap_or("?")));
        if answer["steps"].as_array().is_some_and(Vec::is_empty)
            && let Some(difference) = tree::difference(&before, &tree::tree(&data))
        {
            wrong.push(format!("left, and changed: {difference}"));
        }
        return judged;
    }
    let repaired = story.path("repaired");
    tree::copy(&data, &repaired);
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
        wrong.push(format!("scan: {codes:?}"));
    }
    story.keep(&seed.to_string());
    judged.lacks = serve(&mut story, &repaired, (&must, &without, &obstacles), oracle, rng, wrong);
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
    let most = runs.chain(story.healthy.refs.keys().copied()).max().unwrap_or(0);
    let count = usize::try_from(most.saturating_sub(story.highest) + 10).unwrap().min(1500);
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
        let gone: Vec<_> = gone.filter(|sample| !is_fence(&mut story.names.clone(), sample, &(0, 0x7ff0_0000_0000_0002, 0))).collect();
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

/// Runs cases by number, some at a time; the harness's own mistakes are told with their numbers.
fn in_lanes(cases: std::ops::Range<u64>, judge: impl Fn(u64) -> Option<(String, Judged)> + Sync) -> Vec<(u64, String, Judged)> {
    let (next, results) = (AtomicU64::new(cases.start), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    if seed >= cases.end {
                        break;
                    }
                    let judged = catch_unwind(AssertUnwindSafe(|| judge(seed))).unwrap_or_else(|panic| {
                        let words = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        Some(("panic".to_owned(), Judged { wrong: vec![words], ..Judged::default() }))
                    });
                    if let Some((name, judged)) = judged {
                        results.lock().unwrap().push((seed, name, judged));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(seed, ..)| *seed);
    results
}

/// Says what came of all cases, and fails if anything was wrong.
fn conclude(results: &[(u64, String, Judged)]) {
    let (mut left, mut text, mut failed): (BTreeMap<&str, Vec<u64>>, _, _) = (BTreeMap::new(), String::new(), 0);
    for (seed, name, judged) in results {
        if let Some(reason) = &judged.left {
            left.entry(reason).or_default().push(*seed);
        }
        if !judged.wrong.is_empty() {
            failed += 1;
            let _ = writeln!(text, "seed {seed}: {name}\n    {}", judged.words);
            for words in &judged.wrong {
                let _ = writeln!(text, "    WRONG {words}");
            }
        }
    }
    let refused: usize = left.values().map(Vec::len).sum();
    println!("{} cases, {refused} not repaired, {failed} wrong", results.len());
    let mut lacks: BTreeMap<&str, (usize, usize, Vec<u64>)> = BTreeMap::new();
    for (seed, _, judged) in results {
        for (count, why) in &judged.lacks {
            let entry = lacks.entry(why).or_default();
            *entry = (entry.0 + 1, entry.1 + count, std::mem::take(&mut entry.2));
            entry.2.push(*seed);
        }
    }
    for (why, (cases, samples, seeds)) in lacks {
        println!("    FINDING in {cases} cases: {samples} samples of {why}; seeds {:?}", &seeds[..seeds.len().min(5)]);
    }
    for (reason, seeds) in left {
        println!("    {} left: {reason}; seeds {:?}", seeds.len(), &seeds[..seeds.len().min(5)]);
    }
    assert!(failed == 0, "{failed} of {}:\n{text}", results.len());
}

#[test]
fn somewhere_in_the_checkpoint() {
    let Some(oracle) = oracle::judge("generations") else { return };
    let directories = directories(oracle);
    let first = knob("WALFIX_FIRST_SEED", 0);
    let results = in_lanes(first..first + knob("WALFIX_PLACES", 40), |seed| {
        let mut rng = Rng::with_seed(seed);
        let healthy = &directories[rng.usize(..directories.len())];
        let (words, damaged) = anywhere(&healthy.base, &mut rng);
        let mut story = Story::begin(healthy, damaged, Times::any(&mut rng), oracle);
        // Nothing that a start comes upon: it goes on with the generation that there is.
        story.is_refused.then_some(())?;
        let state = seed;
        live(&mut story, state, &mut rng);
        Some((format!("{}, {words}, state {}", healthy.base.name, state % 10), judge(seed, story, oracle, &mut rng)))
    });
    conclude(&results);
}

/// Every way of damaging a checkpoint: rows 1 to 13, 16 to 20.
#[test]
fn in_every_way() {
    let Some(oracle) = oracle::judge("generations, every way") else { return };
    let directories = directories(oracle);
    let mut cases: Vec<(&Healthy, String, Damaged)> = Vec::new();
    for healthy in &directories {
        let checkpoint = healthy.base.checkpoint().unwrap();
        for row in ROWS.iter().filter(|row| row.number() > 0) {
            if row.at == At::Directory {
                let first = healthy.base.segments.keys().next().unwrap();
                cases.extend(row.apply(&healthy.base, first).map(|damaged| (healthy, row.name.to_owned(), damaged)));
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
    let first = knob("WALFIX_FIRST_SEED", 0);
    println!("{} cases, each {step}th", cases.len());
    let results = in_lanes(first..cases.len() as u64, |seed| {
        (seed as usize % step == 0).then_some(())?;
        let (healthy, words, damaged) = &cases[usize::try_from(seed).unwrap()];
        let mut rng = Rng::with_seed(seed);
        let mut story = Story::begin(healthy, damaged.clone(), Times::any(&mut rng), oracle);
        story.is_refused.then_some(())?;
        let state = seed / step as u64;
        live(&mut story, state, &mut rng);
        Some((format!("{}, {words}, state {}", healthy.base.name, state % 10), judge(seed, story, oracle, &mut rng)))
    });
    conclude(&results);
}
