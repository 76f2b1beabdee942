//! Whole directories, damaged at several places in several files at once: what is repaired is what Prometheus takes.
//!
//! The directories have a checkpoint, a WAL, a WBL, head chunks and a chunk snapshot. After the repair Prometheus's newest
//! packages start without a complaint, serve nothing that was not written under these labels, serve every sample of the
//! records that the damage has left whole, and at least what they serve without the repair; the next checkpoint succeeds, a
//! further start serves the same, and `undo` puts everything back.
//!
//! `WALFIX_SEEDS` says how many damages are tried, `WALFIX_FIRST_SEED` from which on; `WALFIX_KEEP` is as in
//! `tests/repair/generations.rs`.
#![cfg(target_os = "linux")]

use std::fs;

use fastrand::Rng;
use serde_json::Value;
use support::bases::{Base, Standing};
use support::generations::{Healthy, Samples, complaints, damage, is_fence, min_valid_time, served, walfix};
use support::judged::{Judged, conclude, in_lanes, knob};
use support::oracle::{self, Oracle};
use support::recipes::Damaged;
use support::test;
use support::tree;

const SORTS: [(&str, &[&str]); 4] = [
    ("none", &["--rich", "--wbl", "--snapshot", "--rounds", "30"]),
    (
        "snappy",
        &[
            "--rich",
            "--wbl",
            "--snapshot",
            "--rounds",
            "30",
            "--compression",
            "snappy",
            "--checkpoint-segments",
            "1",
        ],
    ),
    ("zstd", &["--rich", "--wbl", "--snapshot", "--rounds", "30", "--compression", "zstd"]),
    ("chunks", &["--wbl", "--chunks", "--rounds", "40", "--compression", "snappy"]),
];

/// Damages one to five places; in words where, and whether head chunks are damaged too: these are not mended.
fn damages(healthy: &Healthy, rng: &mut Rng) -> (String, Damaged, bool) {
    let base = &healthy.base;
    let mut damaged: Option<Damaged> = None;
    let (mut all, mut chunks) = (Vec::new(), false);
    let mut files: Vec<&str> =
        base.logs().iter().flat_map(|log| base.segments_of(log)).map(String::as_str).collect();
    rng.shuffle(&mut files);
    files.truncate(1 + rng.usize(..5));
    for file in files {
        let (words, one) = damage(base, file, rng);
        all.push(words);
        let damaged = damaged.get_or_insert_with(|| Damaged { mended: None, ..one.clone() });
        // Each is of another file.
        let path = file.to_owned();
        damaged.tree.insert(path.clone(), one.tree[&path].clone());
        if let Some(standing) = one.standing.get(&path) {
            damaged.standing.insert(path, standing.clone());
        } else {
            damaged.standing.remove(&path);
        }
    }
    let mut damaged = damaged.unwrap();
    for (path, bytes) in &mut damaged.tree {
        let Some(bytes) = bytes.as_mut().filter(|bytes| bytes.len() > 100) else { continue };
        let (of_chunks, of_snapshot) =
            (path.starts_with("chunks_head/"), path.starts_with("chunk_snapshot."));
        if of_chunks && rng.usize(..6) == 0 || of_snapshot && rng.usize(..3) == 0 {
            let at = rng.usize(8..bytes.len() - 20);
            let end = (at + 1 + rng.usize(..16)).min(bytes.len());
            rng.fill(&mut bytes[at..end]);
            all.push(format!("bytes in {path} at {at}..{end}"));
            chunks |= of_chunks;
        }
    }
    (all.join("; "), damaged, chunks)
}

fn judge(
    seed: u64,
    healthy: &Healthy,
    damaged: &Damaged,
    chunks_too: bool,
    oracle: Oracle,
    rng: &mut Rng,
) -> Judged {
    let mut judged = Judged::default();
    let wrong = &mut judged.wrong;
    let scratch = support::scratch();
    let [data, backup, unrepaired, repaired] =
        ["data", "backup", "unrepaired", "repaired"].map(|name| scratch.path().join(name));
    support::bases::write_tree(&damaged.tree, &data);
    let mut names = healthy.base.names.clone();
    let with_snapshots = rng.bool();
    let open = |more: &[&str], path: &std::path::Path| {
        let snapshots: &[&str] = if with_snapshots { &["--snapshot"] } else { &[] };
        oracle.json(&[&["open"], snapshots, more].concat(), path)
    };
    tree::copy(&data, &unrepaired);
    let report = open(&["--again"], &unrepaired);
    let mut without = served(&report["series"], &mut names);
    without.extend(served(&report["again"]["series"], &mut names));
    // A page of zeros joins what does not belong together, and nobody misses what comes of that.
    without.retain(|sample, bits| healthy.written.get(sample).is_some_and(|all| all.contains(bits)));
    fs::remove_dir_all(&unrepaired).unwrap();

    let before = tree::tree(&data);
    let option = format!("--backup={}", backup.display());
    let (exit, answer) = walfix(&["repair", "--accept-orphans", "--format=json", &option], &data);
    judged.words = format!("exit {exit}, snapshots {with_snapshots}");
    if let Some(left) = answer["left"].as_array().and_then(|left| left.first()) {
        judged.left = Some(format!(
            "{}: {}",
            left["code"].as_str().unwrap_or("?"),
            left["reason"].as_str().unwrap_or("?")
        ));
    } else if !(matches!(exit, 0 | 1) || chunks_too && exit == 4) {
        wrong.push(format!("exit {exit}"));
    }
    tree::copy(&data, &repaired);
    if backup.exists() {
        let (exit, _) = walfix(&["undo", "--format=json"], &backup);
        let difference = tree::difference(&before, &tree::tree(&data));
        if exit != 0 || difference.is_some() {
            wrong.push(format!("undo: exit {exit}, {}", difference.unwrap_or_default()));
        }
    } else if let Some(difference) = tree::difference(&before, &tree::tree(&repaired)) {
        wrong.push(format!("no backup, and changed: {difference}"));
    }
    if let Some(directory) = std::env::var_os("WALFIX_KEEP") {
        tree::copy(scratch.path(), &std::path::Path::new(&directory).join(seed.to_string()));
    }
    if judged.left.is_some() {
        return judged;
    }
    let (_, report) = walfix(&["scan", "--format=json"], &repaired);
    if report["verdict"] == "damaged" && !chunks_too {
        wrong.push("damage is left".to_owned());
    }
    let allowed = |words: &String| {
        chunks_too && (words.contains("on-disk chunks") || words.starts_with("chunks_head/"))
    };
    let mut say = |name: &str, report: &Value| -> Samples {
        let words = complaints(report).into_iter().filter(|words| !allowed(words));
        wrong.extend(words.map(|words| format!("{name}: {words}")));
        let now = served(&report["series"], &mut names);
        let mut strange = now.iter().filter(|(sample, bits)| {
            let was_written = healthy.written.get(*sample).is_some_and(|all| all.contains(*bits));
            !was_written && !is_fence(&mut names.clone(), sample, bits)
        });
        if let Some(example) = strange.next() {
            let count = 1 + strange.count();
            wrong.push(format!(
                "{name}: {count} samples under labels with which they were not written, e.g. {example:?}"
            ));
        }
        now
    };
    let first = say("first start", &open(&[], &repaired));
    let report = open(&["--checkpoint", "--again"], &repaired);
    let (second, third) = (say("second start", &report), say("third start", &report["again"]));
    for (name, now) in [("second", &second), ("third", &third)] {
        if *now != first && !chunks_too {
            let lost = first.keys().filter(|sample| !now.contains_key(*sample)).count();
            wrong.push(format!(
                "the {name} start serves {} samples, {lost} of {} are gone",
                now.len(),
                first.len()
            ));
        }
    }
    // Chunks that go, go with what the WAL no longer has.
    if chunks_too {
        return judged;
    }
    let standing: Vec<_> = damaged.standing.values().cloned().collect();
    let deletes = Standing::deletes(&standing);
    let may_be_deleted = |sample: &_| deletes(sample) || healthy.base.deleted.contains(sample);
    let min_valid = min_valid_time(&repaired);
    let must = Standing::known(standing.iter());
    for (what, all) in [
        ("records that are whole", must.iter().collect::<Vec<_>>()),
        ("what is served unrepaired", without.keys().collect()),
    ] {
        let mut lost = all
            .into_iter()
            .filter(|sample| !first.contains_key(sample) && !may_be_deleted(sample) && sample.1 >= min_valid);
        if let Some(example) = lost.next() {
            wrong.push(format!("{} samples of {what} are not served, e.g. {example:?}", 1 + lost.count()));
        }
    }
    judged
}

#[test(long)]
fn several_damages_at_once() {
    let oracle = oracle::judge("whole directories");
    let directories: Vec<_> = SORTS
        .iter()
        .map(|(name, arguments)| Healthy::new(Base::make(oracle, name, false, arguments), oracle))
        .collect();
    let first = knob("WALFIX_FIRST_SEED", 0);
    let results = in_lanes(first..first + knob("WALFIX_SEEDS", 60), |seed| {
        let mut rng = Rng::with_seed(seed);
        let healthy = &directories[rng.usize(..directories.len())];
        let (words, damaged, chunks) = damages(healthy, &mut rng);
        Some((
            format!("{}, {words}", healthy.base.name),
            judge(seed, healthy, &damaged, chunks, oracle, &mut rng),
        ))
    });
    conclude(&results);
}
