//! Cases with numbers: run some at a time, and say what came of all.

use crate::note;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number from the environment.
pub fn knob(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

/// What a case came to.
#[derive(Debug, Default)]
pub struct Judged {
    pub words: String,
    /// Why nothing was repaired.
    pub left: Option<String>,
    /// What must be served and is not, because of how Prometheus replays: how many samples, and why.
    pub lacks: Vec<(usize, String)>,
    pub wrong: Vec<String>,
}

/// Runs cases by number, some at a time; the harness's own mistakes are told with their numbers.
pub fn in_lanes(
    cases: Range<u64>,
    judge: impl Fn(u64) -> Option<(String, Judged)> + Sync,
) -> Vec<(u64, String, Judged)> {
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
pub fn conclude(results: &[(u64, String, Judged)]) {
    let (mut left, mut text, mut failed): (BTreeMap<&str, Vec<u64>>, _, _) =
        (BTreeMap::new(), String::new(), 0);
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
    note!("{} cases, {refused} not repaired, {failed} wrong", results.len());
    let mut lacks: BTreeMap<&str, (usize, usize, Vec<u64>)> = BTreeMap::new();
    for (seed, _, judged) in results {
        for (count, why) in &judged.lacks {
            let entry = lacks.entry(why).or_default();
            *entry = (entry.0 + 1, entry.1 + count, std::mem::take(&mut entry.2));
            entry.2.push(*seed);
        }
    }
    for (why, (cases, samples, seeds)) in lacks {
        note!(
            "    FINDING in {cases} cases: {samples} samples of {why}; seeds {:?}",
            &seeds[..seeds.len().min(5)]
        );
    }
    for (reason, seeds) in left {
        note!("    {} left: {reason}; seeds {:?}", seeds.len(), &seeds[..seeds.len().min(5)]);
    }
    assert!(failed == 0, "{failed} of {}:\n{text}", results.len());
}
