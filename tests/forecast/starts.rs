//! What walfix foretells of damaged directories is what real Prometheus servers, and its newest packages, then do.
//!
//! Healthy directories of every sort are damaged in every way in every place; a server is started on them again and
//! again; and of the directory before each of these starts, walfix foretells that start and those that follow.
//!
//! By default that is a part of it all, with the newest server there is. For all damages with all servers, in two hours
//! or so:
//!
//! ```text
//! WALFIX_MATRIX=long cargo test --release --test forecast starts:: -- --nocapture
//! ```
//!
//! | knob | |
//! |---|---|
//! | `WALFIX_MATRIX` | `long`: all damages and servers; `all`: and in every place of every sort of directory |
//! | `WALFIX_ROWS` | only damages with these numbers or names, separated by `;` |
//! | `WALFIX_CASES` | only cases with all of these in their names (`sort / damage / place / version`), separated by `;` |
//! | `WALFIX_DIRECTORIES` | further healthy directories to damage, separated by `:`; agents' begin with `agent` |
//! | `WALFIX_TRUTH` | a directory in which what was measured is kept, and found again |
//! | `WALFIX_KEPT` | only cases of which something is kept there |
//! | `WALFIX_WRITE_TABLE` | the table to write |

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use support::bases::{Base, read_tree, write_tree};
use support::foretold::{Difference, compare, forecast, last_checkpoint, normal};
use support::matrix::{BASES, Case, Matrix, bases, cases, in_lanes, judges};
use support::oracle::{self, Oracle};
use support::recipes::ROWS;
use support::server::{Error, LogLine, Options, Running, Server};
use support::table::{self, Line};
use support::truth::{Judge, Truth, measure};
use support::{note, test};

/// Where the states of a case are, and what happened.
fn kept_in(case: &Case<'_>, directory: &Path) -> (PathBuf, PathBuf) {
    let states = directory.join(case.name().replace(" / ", "/").replace(' ', "-"));
    let file = states.join("truth.json");
    (states, file)
}

/// What happened in a case, measured now or before, and where the states are.
fn truth(case: &Case<'_>, oracle: Oracle, directory: &Path, starts: usize) -> (Truth, PathBuf) {
    let (states, file) = kept_in(case, directory);
    let damaged = case.row.apply(case.base, &case.file).unwrap();
    let kept = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Truth>(&bytes).ok());
    // What was measured of another damage by this name, or of fewer starts, is of no use.
    let fits = |truth: &Truth| {
        truth.starts.len() >= starts
            && (truth.mended.is_some() || damaged.mended.is_none())
            && read_tree(&states.join("0")) == damaged.tree
    };
    if let Some(truth) = kept.filter(fits) {
        return (truth, states);
    }
    let _ = std::fs::remove_file(&file);
    let healthy = directory.join(&case.base.name).join("healthy");
    let truth = measure(
        case.base,
        &damaged,
        (&case.judge, oracle),
        (&case.name(), case.end, starts),
        (&states, &healthy),
    );
    std::fs::write(file, serde_json::to_vec(&truth).unwrap()).unwrap();
    (truth, states)
}

#[test(long)]
fn what_is_foretold_happens() {
    let what = "the forecast";
    let oracle = oracle::judge(what);
    let (matrix, begun) = (Matrix::wanted(), Instant::now());
    let bases = bases(oracle);
    let mut cases = cases(&bases, &judges(what, oracle, matrix), matrix);
    let scratch = tempfile::tempdir().unwrap();
    let directory = std::env::var_os("WALFIX_TRUTH").map_or(scratch.path().to_owned(), PathBuf::from);
    if std::env::var_os("WALFIX_KEPT").is_some() {
        cases.retain(|case| kept_in(case, &directory).1.exists());
    }
    assert!(!cases.is_empty(), "no such cases");
    for base in &bases {
        let healthy = directory.join(&base.name).join("healthy");
        if !healthy.exists() {
            write_tree(&base.tree, &healthy);
        }
    }
    let results = in_lanes(&cases, |case| {
        let (truth, states) = truth(case, oracle, &directory, matrix.starts());
        let measure_only = std::env::var_os("WALFIX_MEASURE").is_some();
        let differences = if measure_only { Vec::new() } else { compare(&truth, &states, oracle) };
        for difference in &differences {
            eprint!("{}", describe(&truth, difference));
        }
        let checkpoint_fails = !truth.agent && last_checkpoint(&truth, &states, oracle).is_some();
        (truth, checkpoint_fails, differences)
    });
    note!("{} cases, {:?}", results.len(), begun.elapsed());
    let lines: Vec<_> = results
        .iter()
        .map(|(case, (truth, checkpoint_fails, _))| Line {
            base: &case.base.name,
            row: case.row.name,
            place: &case.place,
            truth,
            checkpoint_fails: *checkpoint_fails,
        })
        .collect();
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/forecast.md");
    if let Some(path) = std::env::var_os("WALFIX_WRITE_TABLE") {
        write_table(&lines, &bases, Path::new(&path));
    }
    let mut failed: Vec<String> = Vec::new();
    for (_, (truth, _, differences)) in &results {
        failed.extend(differences.iter().map(|difference| describe(truth, difference)));
    }
    let document = std::fs::read_to_string(table).unwrap_or_default();
    for line in &lines {
        let contradiction = table::contradiction(&document, line);
        failed.extend(
            contradiction.map(|words| format!("docs/forecast.md: {}\n    {words}\n", line.truth.case)),
        );
    }
    failed.sort();
    let list = Path::new(env!("CARGO_TARGET_TMPDIR")).join("forecast.txt");
    std::fs::write(&list, failed.concat()).unwrap();
    let some = failed[..failed.len().min(40)].concat();
    assert!(failed.is_empty(), "{} differences, all in {}:\n{some}", failed.len(), list.display());
}

fn describe(truth: &Truth, d: &Difference) -> String {
    let Truth { case, end, .. } = truth;
    let (times, start) = (d.state, d.start + 1);
    let (foretold, real) = (&d.foretold, &d.real);
    format!(
        "{}: {case} / {end:?}, started {times} times, start {start}\n    foretold: {foretold}\n    real:     {real}\n",
        d.key
    )
}

fn write_table(lines: &[Line<'_>], bases: &[Base], path: &Path) {
    let damages: Vec<_> = ROWS.iter().map(|row| (row.name, row.what)).collect();
    let bases: Vec<_> = BASES
        .iter()
        .filter_map(|(name, _, _, what)| {
            let base = bases.iter().find(|base| base.name == *name)?;
            Some((*name, format!("{what} {} samples.", table::thousands(base.served.len() as u64))))
        })
        .collect();
    std::fs::write(path, table::document(lines, &damages, &bases)).unwrap();
}

/// A record that was given up, and zeros behind it: no start notices, and every checkpoint that takes in what follows
/// fails and blames that. walfix names the segment that Prometheus will blame, and the one that is damaged.
#[test(long)]
fn the_next_checkpoint_fails_where_it_is_foretold_to() {
    let what = "checkpoints that fail";
    let oracle = oracle::judge(what);
    let bases = [Base::make(oracle, "none", false, &[]), Base::make(oracle, "agent", true, &[])];
    let named = |name: &str| ROWS.iter().find(|row| row.name == name).unwrap();
    let (abandoned, healthy) = (named("7 dangling first"), named("0 healthy"));
    let servers = judges(what, oracle, Matrix::wanted()).into_iter().filter_map(|judge| match judge {
        Judge::Server(server) => Some(server),
        Judge::Packages(_) => None,
    });
    std::thread::scope(|scope| {
        for (server, base) in servers.flat_map(|server| bases.iter().map(move |base| (server.clone(), base)))
        {
            // Not in the last segments: a checkpoint takes in two thirds of them.
            for (row, file) in [
                (abandoned, "wal/00000003"),
                (abandoned, "wal/00000004"),
                (abandoned, "wal/checkpoint.00000002/00000002"),
                (healthy, "wal/00000003"),
            ] {
                let server = server.clone();
                scope.spawn(move || {
                    let damaged = row.apply(base, file).unwrap();
                    let scratch = tempfile::tempdir().unwrap();
                    let data = scratch.path().join("data");
                    write_tree(&damaged.tree, &data);
                    let case = format!("{}, {}, {} in {file}", server.version, base.name, row.name);
                    let forecast = forecast(&data, &server.version.to_string(), base.agent);
                    let real =
                        checkpoint_error(&server, &data, base.agent).map(|error| normal(&error, &data));
                    let told = forecast["next_checkpoint_error"].as_str().map(|error| normal(error, &data));
                    assert_eq!(told, real, "{case}");
                    assert_eq!(told.is_none(), row.number() == 0, "{case}");
                    let place = &forecast["next_checkpoint_place"];
                    let place = place["path"].as_str().zip(place["offset"].as_u64());
                    let abandoned = damaged.abandoned.as_ref();
                    let abandoned = abandoned.map(|(path, offset)| (path.as_str(), *offset as u64));
                    assert_eq!(place, abandoned, "{case}");
                });
            }
        }
    });
}

/// With what the first checkpoint fails that a server makes, if it does.
fn checkpoint_error(server: &Server, data: &Path, agent: bool) -> Option<String> {
    let mut options = Options { agent, ..Options::default() };
    if agent {
        options.flags.push("--storage.agent.wal-truncate-frequency=1s".to_owned());
    } else {
        // Ranges of 5 minutes: there are enough samples for head compactions, which come a minute after the start.
        options.block_duration = Some(Duration::from_secs(300));
        options.flags.push("--storage.tsdb.retention.time=100y".to_owned());
    }
    let mut running = server.start(data, &options).unwrap().ready().unwrap();
    assert_eq!(running.log().complaint(), None, "{}", server.version);
    let mut error = None;
    let look = |running: &Running| -> Result<bool, Error> {
        let log = running.log();
        let failed = |line: &LogLine| {
            let error = line.err()?;
            let error = error.strip_prefix("WAL truncation in Compact: ").unwrap_or(error);
            error.starts_with("create checkpoint: ").then(|| error.to_owned())
        };
        error = log.lines.iter().find_map(failed);
        Ok(error.is_some() || log.with_msg("WAL checkpoint complete").is_some())
    };
    running.wait_for("a checkpoint", Duration::from_secs(240), look).unwrap();
    error
}
