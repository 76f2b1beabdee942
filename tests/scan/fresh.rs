//! Directories that real servers have just made: `walfix scan` finds them clean, and reads what Prometheus reads.
//!
//! The test makes three directories with every server, in less than a minute: one killed, with a checkpoint, tombstones and a
//! WBL; one with a chunk snapshot; an agent's; each compressed in another way. To have all recipes made, kept for trying
//! things by hand and compared in the same way:
//!
//! ```text
//! WALFIX_FRESH=/tmp/fresh cargo test --test scan fresh:: -- --nocapture
//! ```
//!
//! Each of those takes 30 to 130 s, two at a time per server. `WALFIX_FRESH_ONLY` makes only those whose names contain it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::compare::{Counts, assert_clean, compare_all};
use support::exporter::Shape;
use support::fresh::{Checkpoint, End, Recipe};
use support::oracle::{self, Oracle};
use support::server::{Compression, Error, Options, Server, Servers};
use support::{note, test};
use walfix::tsdb::LogKind;

type Lane = Vec<(String, Recipe)>;

#[test(long)]
fn fresh_directories_read_the_same() -> Result<(), Error> {
    const WHAT: &str = "fresh directories of real servers";
    let oracle = oracle::judge(WHAT);
    let scratch = tempfile::tempdir().map_err(reading)?;
    let kept = std::env::var_os("WALFIX_FRESH").map(PathBuf::from);
    let only = std::env::var("WALFIX_FRESH_ONLY").unwrap_or_default();
    let out = kept.as_deref().unwrap_or(scratch.path());
    Servers::each(WHAT, |server| {
        let out = out.join(server.version.to_string());
        let mut lanes = if kept.is_some() { all(server) } else { quick(server) };
        for lane in &mut lanes {
            lane.retain(|(name, _)| name.contains(&only));
        }
        std::thread::scope(|scope| {
            let make = |lane: Lane| -> Result<(), Error> {
                lane.iter().try_for_each(|(name, recipe)| make(oracle, server, recipe, &out.join(name)))
            };
            let threads: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(move || make(lane))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })
}

/// One directory of each sort. Which compression goes with which sort differs from server to server.
fn quick(server: &Server) -> Vec<Lane> {
    let quick = Recipe { scrapes: 25, ..Recipe::default() };
    let recipes = [
        ("killed", Recipe { checkpoint: Checkpoint::Series, ..quick.clone() }),
        ("snapshot", Recipe { checkpoint: Checkpoint::No, end: End::Snapshot, ..quick.clone() }),
        ("agent", Recipe { agent: true, ..quick }),
    ];
    let compressions = server.compressions();
    let turn = usize::from(server.version.0 + server.version.1);
    let lane = |(i, (name, recipe)): (usize, (&str, Recipe))| {
        let compression = compressions[(turn + i) % compressions.len()];
        vec![(format!("{name}-{compression}"), Recipe { compression: Some(compression), ..recipe })]
    };
    recipes.into_iter().enumerate().map(lane).collect()
}

/// All that there are.
fn all(server: &Server) -> Vec<Lane> {
    let (mut killed, mut others) = (Vec::new(), Vec::new());
    for &compression in server.compressions() {
        let recipe = Recipe { compression: Some(compression), ..Recipe::default() };
        let agent = Recipe { agent: true, scrapes: 20, ..recipe.clone() };
        others.push((format!("agent-{compression}"), agent));
        killed.push((format!("killed-{compression}"), Recipe { checkpoint: Checkpoint::Samples, ..recipe }));
    }
    for (name, end) in [("snapshot", End::Snapshot), ("snapshot-killed", End::SnapshotThenKilled)] {
        others.push((name.to_owned(), Recipe { end, ..Recipe::default() }));
    }
    others.push(("large".to_owned(), large()));
    vec![killed, others]
}

/// Many series, so that segments fill up.
fn large() -> Recipe {
    Recipe {
        shape: Shape { counters: 4000, gauges: 4000, classic: 300, churn: 400, ..Shape::default() },
        interval: Duration::from_secs(1),
        scrapes: 90,
        compression: Some(Compression::None),
        checkpoint: Checkpoint::Samples,
        ..Recipe::default()
    }
}

/// Makes a directory and judges it.
fn make(oracle: Oracle, server: &Server, recipe: &Recipe, data: &Path) -> Result<(), Error> {
    let name = format!("{} {}", server.version, data.file_name().unwrap_or_default().display());
    // Made anew or not at all: half a directory must not look like a whole one.
    if data.exists() {
        std::fs::remove_dir_all(data).map_err(reading)?;
    }
    let started = Instant::now();
    let made = recipe.make(server, data)?;
    note!(
        "{name}: made in {:.1} s, checkpoint after {:.1} s",
        started.elapsed().as_secs_f64(),
        made.checkpoint_after.unwrap_or_default().as_secs_f64()
    );
    let logs = compare_all(oracle, data, |_| true);
    for (log, _, counts) in &logs {
        note!("{name}: {log}: {counts:?}");
    }
    assert_clean(data, &logs);
    what_the_recipe_asks_for(recipe, &logs, &name);

    // What a server has left behind, a server likes.
    let mut options = Options { agent: recipe.agent, ..Options::default() };
    options.features.extend(["native-histograms", "memory-snapshot-on-shutdown"].map(str::to_owned));
    let running = server.start_on_copy(data, &options)?.ready()?;
    assert_eq!(running.log().complaint(), None, "{name}");
    Ok(())
}

/// Or the test would be about less than it says.
fn what_the_recipe_asks_for(recipe: &Recipe, logs: &[(String, LogKind, Counts)], name: &str) {
    let entries = |kind: LogKind, entries: &str| -> u64 {
        let of_kind = logs.iter().filter(|(_, k, _)| *k == kind);
        of_kind.filter_map(|(_, _, counts)| counts.entries.get(entries)).sum()
    };
    let mut wanted = vec![(LogKind::Wal, "samples"), (LogKind::Wal, "exemplars")];
    if !recipe.agent {
        wanted.push((LogKind::Wbl, "samples"));
        if recipe.tombstones {
            wanted.push((LogKind::Wal, "tombstones"));
        }
    }
    if recipe.checkpoint != Checkpoint::No {
        wanted.push((LogKind::Checkpoint, "series"));
        if recipe.agent || recipe.checkpoint == Checkpoint::Samples {
            wanted.push((LogKind::Checkpoint, "samples"));
        }
    }
    if matches!(recipe.end, End::Snapshot | End::SnapshotThenKilled) {
        wanted.push((LogKind::ChunkSnapshot, "series"));
        wanted.push((LogKind::ChunkSnapshot, "exemplars"));
        if recipe.tombstones {
            wanted.push((LogKind::ChunkSnapshot, "tombstones"));
        }
    }
    for (kind, of) in wanted {
        assert!(entries(kind, of) > 0, "{name}: no {of} in {kind:?}: {logs:?}");
    }
}

fn reading(source: std::io::Error) -> Error {
    Error::Io { what: "test directory".to_owned(), source }
}
