//! Damaged blocks: a scan never fails, says what Prometheus says, and overlooks nothing that Prometheus reads in another way.
//!
//! `WALFIX_SEEDS=20000 cargo test --release --test scan blocks::` for the long run.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use serde_json::Value;
use support::oracle::{self, Oracle};
use support::{note, seeds, test};
use walfix::scan::blocks::{BlockState, Depth};
use walfix::scan::code::Code;
use walfix::scan::report::{Finding, Report, Severity};
use walfix::scan::{Options, scan};
use walfix::tsdb::Target;

fn scanned(data: &Path, depth: Depth) -> Report {
    let target = Target::find(data).unwrap();
    scan(&target, &Options { depth, ..Options::default() }, &()).unwrap().report
}

/// All that Prometheus reads of a block.
fn read(oracle: Oracle, block: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    oracle.made(&["verify", "--dump"], block, |line| lines.push(line));
    if let Some(Value::Object(summary)) = lines.last_mut() {
        summary.remove("seconds");
    }
    lines
}

/// Files of a block.
fn files(block: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["meta.json", "index", "tombstones"].map(|name| block.join(name)).into();
    files.extend(fs::read_dir(block.join("chunks")).unwrap().map(|entry| entry.unwrap().path()));
    files.sort();
    files
}

/// Damages one file; says how.
fn damage(rng: &mut Rng, block: &Path) -> String {
    let files = files(block);
    let file = &files[rng.usize(..files.len())];
    let mut bytes = fs::read(file).unwrap();
    let at = rng.usize(..bytes.len());
    let length = 1 + rng.usize(..40.min(bytes.len() - at));
    let how = match rng.u8(..10) {
        0..=4 => {
            bytes[at] ^= 1 << rng.u8(..8);
            format!("a bit of {at}")
        }
        5 => {
            bytes[at..at + length].fill(0);
            format!("zeros at {at}, {length}")
        }
        6 => {
            bytes[at..at + length].fill_with(|| rng.u8(..));
            format!("noise at {at}, {length}")
        }
        7 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        8 => {
            bytes.drain(at..at + length);
            format!("{length} left out at {at}")
        }
        _ => {
            fs::remove_file(file).unwrap();
            return format!("{} removed", file.display());
        }
    };
    fs::write(file, bytes).unwrap();
    format!("{}: {how}", file.display())
}

/// Without paths, of which each says more than the other.
fn without_paths(error: &str, data: &Path) -> String {
    let mut error = error.to_owned();
    for block in fs::read_dir(data).unwrap() {
        let block = block.unwrap().path();
        error = error.replace(&format!("{}/", block.display()), "");
    }
    error
}

#[test]
fn damage_that_prometheus_sees_is_found() {
    let oracle = oracle::judge("damaged blocks");
    let (mut same, mut found, mut not_opened, mut only_here) = (0, 0, 0, 0);
    for seed in seeds(250) {
        let mut rng = Rng::with_seed(seed);
        let data = support::scratch();
        let (of, series) = (rng.u64(..1000).to_string(), rng.u8(1..8).to_string());
        let arguments = ["blocks", "--seed", &of, "--blocks", "1", "--series", &series, "--tombstones", "2"];
        let made =
            oracle.json(&[&arguments[..], &["--chunks", "3", "--samples", "20"]].concat(), data.path());
        let block = data.path().join(made[0].as_str().unwrap());
        let before = read(oracle, &block);
        let clean = scanned(data.path(), Depth::Samples);
        let wrong: Vec<String> = clean.of_severity(Severity::Damage).map(Finding::message).collect();
        assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
        let how = damage(&mut rng, &block);
        let after = read(oracle, &block);
        let report = scanned(data.path(), Depth::Samples);
        let damages: Vec<String> = report
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Note)
            .map(|finding| format!("{} {}: {}", finding.code, finding.path, finding.message()))
            .collect();
        let case = || format!("seed {seed}, {how}: {damages:?}");
        let error = after.last().unwrap()["open_error"].as_str();
        match error {
            Some(error) => {
                not_opened += 1;
                let error = without_paths(error, data.path());
                let state = report.blocks.first().map(|block| block.state);
                assert!(
                    matches!(state, Some(BlockState::NotOpened | BlockState::Skipped)),
                    "{error}: {}",
                    case()
                );
                if state == Some(BlockState::NotOpened) {
                    let said = report.findings.iter().find(|finding| finding.code == Code::BlockUnusable);
                    let said = said.unwrap().message();
                    assert!(said.starts_with(&error), "{error:?} and {said:?}: {}", case());
                }
            }
            None if after == before => {
                same += 1;
                only_here += u64::from(!damages.is_empty());
            }
            None => {
                found += 1;
                assert!(!damages.is_empty(), "overlooked: {}", case());
            }
        }
        for depth in [Depth::Structure, Depth::Checksums] {
            scanned(data.path(), depth);
        }
    }
    note!(
        "{not_opened} are not opened, {found} read otherwise, {same} read the same, {only_here} of these have findings"
    );
    assert!(not_opened > 0 && found > 0);
}

/// A chunk on pages that the disk cannot read is a finding, and the others are verified. Prometheus maps files, and so does walfix: it
/// does not die of them.
#[cfg(target_os = "linux")]
#[test]
fn chunks_on_bad_pages_are_found() {
    use support::fuse::{Mounted, Node};

    let oracle = oracle::judge("chunks on bad pages");
    let data = support::scratch();
    let made = oracle.json(&["blocks", "--seed", "5", "--blocks", "1", "--series", "60"], data.path());
    let block = data.path().join(made[0].as_str().unwrap());
    let chunks = block.join("chunks");
    let whole = fs::read(chunks.join("000001")).unwrap();
    assert!(whole.len() > 40_000, "{}", whole.len());
    let bad = 12_288..12_800;
    let page = 12_288..16_384;
    let hit = read(oracle, &block)
        .iter()
        .flat_map(|line| line["chunks"].as_array().cloned().unwrap_or_default())
        .filter_map(|chunk| chunk["ref"].as_u64())
        .filter(|at| page.contains(at))
        .count();
    fs::remove_dir_all(&chunks).unwrap();
    let node =
        Node { fails_whole: true, is_cached: true, ..Node::with_bad(&whole, std::slice::from_ref(&bad)) };
    let mounted = Mounted::new("chunks on bad pages", vec![node]);
    // Its only file has the number 0.
    std::os::unix::fs::symlink(mounted.path().join("wal"), &chunks).unwrap();
    for depth in [Depth::Checksums, Depth::Samples] {
        let report = scanned(data.path(), depth);
        let of = |code| report.findings.iter().filter(move |finding| finding.code == code);
        let unreadable: Vec<_> = of(Code::Unreadable).map(|f| (f.offset, f.end)).collect();
        let shown = &report.findings[..report.findings.len().min(4)];
        assert_eq!(unreadable, [(Some(page.start), Some(page.end))], "{shown:?}");
        let damaged = of(Code::DamagedBlockChunk).count();
        // One that begins before the page may reach into it.
        assert!((hit..=hit + 1).contains(&damaged), "{damaged} and {hit}");
    }
    // Its chunks are not read.
    let structure = scanned(data.path(), Depth::Structure);
    let codes: Vec<Code> = structure.of_severity(Severity::Damage).map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::BlockIncomplete]);
    note!("{hit} chunks begin on the bad page");
}
