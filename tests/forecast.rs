//! What walfix foretells of damaged directories is what real Prometheus servers, and its newest packages, then do.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::bases::{Base, write_tree};
use support::foretold::{Difference, compare, forecast, normal};
use support::oracle::{self, Oracle};
use support::recipes::{At, ROWS, Row};
use support::server::{Error, Options, Server, Servers};
use support::truth::{End, Judge, Truth, measure};

/// Starts on each directory. The states between them are directories of their own: "already started once" and so on.
const STARTS: usize = 4;

/// A directory, what is done to it where, and who starts on it.
struct Case<'a> {
    base: &'a Base,
    row: &'static Row,
    place: String,
    file: String,
    judge: Judge,
    end: End,
}

impl Case<'_> {
    fn name(&self) -> String {
        format!("{} / {} / {}", self.base.name, self.row.name, self.place)
    }
}

/// Damage of every kind, everywhere, on every sort of directory.
fn cases<'a>(bases: &'a [Base], judges: &[Judge]) -> Vec<Case<'a>> {
    let mut all = Vec::new();
    for base in bases {
        for row in ROWS {
            for (place, file) in places(base, row) {
                if row.apply(base, &file).is_none() {
                    continue;
                }
                for judge in judges {
                    let versions_of_agents = judge.version() == "2.53.3" || judge.version() == "3.5.3";
                    if base.agent && !versions_of_agents {
                        continue;
                    }
                    let end = if all.len() % 2 == 0 { End::Killed } else { End::Stopped };
                    let (place, file, judge) = (place.clone(), file.clone(), judge.clone());
                    all.push(Case { base, row, place, file, judge, end });
                }
            }
        }
    }
    all
}

/// Where a damage is done: the first, a middle and the last segment of each log. On directories that differ from others
/// in little, not everywhere.
fn places(base: &Base, row: &Row) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for log in base.logs() {
        let segments = base.segments_of(&log);
        if segments.is_empty() {
            continue;
        }
        let name = if log.contains("checkpoint") { "checkpoint" } else { log.as_str() };
        let mut of = vec![("first", 0), ("middle", segments.len() / 2), ("last", segments.len() - 1)];
        of.dedup_by_key(|(_, at)| *at);
        if row.at == At::Directory {
            if name != "wal" {
                continue;
            }
            of = vec![("directory", 0)];
        }
        if row.at == At::Log && name == "checkpoint" {
            continue;
        }
        for (at, index) in of {
            let place = if at == "directory" { at.to_owned() } else { format!("{name} {at}") };
            let some: &[&str] = match base.name.as_str() {
                "none" => &[],
                "wbl" => &["wbl first", "wbl middle", "wbl last", "wal middle"],
                "collide" => &["checkpoint first", "checkpoint middle", "checkpoint last"],
                "young" => &["wal first", "wal last"],
                _ => &["wal middle", "checkpoint first", "wbl middle"],
            };
            let everywhere = std::env::var("WALFIX_MATRIX").is_ok_and(|matrix| matrix == "all");
            if everywhere || some.is_empty() || place == "directory" || some.contains(&place.as_str()) {
                all.push((place, segments[index].clone()));
            }
        }
    }
    all
}

/// Healthy directories of every sort.
fn bases(oracle: Oracle) -> Vec<Base> {
    let wanted = std::env::var("WALFIX_BASES").ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|list| list.split(',').any(|one| one == name));
    let sorts: &[(&str, bool, &[&str])] = &[
        ("none", false, &[]),
        ("snappy", false, &["--compression", "snappy"]),
        ("zstd", false, &["--compression", "zstd"]),
        ("wbl", false, &["--wbl"]),
        ("wbl-snappy", false, &["--wbl", "--compression", "snappy"]),
        ("rich", false, &["--rich"]),
        ("newest", false, &["--newest"]),
        ("chunks", false, &["--chunks", "--rounds", "40"]),
        // The numbers of the checkpoint's segments are numbers of segments behind it.
        ("collide", false, &["--checkpoint", "0"]),
        ("young", false, &["--checkpoint", "-1"]),
        ("agent", true, &[]),
        ("agent-zstd", true, &["--compression", "zstd"]),
        ("agent-rich", true, &["--rich"]),
    ];
    let made = sorts.iter().filter(|(name, ..)| is_wanted(name));
    let mut bases: Vec<_> =
        made.map(|(name, agent, arguments)| Base::make(oracle, name, *agent, arguments)).collect();
    for path in std::env::var("WALFIX_DIRECTORIES").unwrap_or_default().split(':').filter(|p| !p.is_empty()) {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        bases.push(Base::read(oracle, name, name.starts_with("agent"), Path::new(path)));
    }
    bases
}

/// Where states and measurements are kept, if they are to be.
fn kept() -> Option<PathBuf> {
    std::env::var_os("WALFIX_TRUTH").map(PathBuf::from)
}

/// What happened in a case, measured now or before, and where the states are.
fn truth(case: &Case<'_>, oracle: Oracle, directory: &Path) -> (Truth, PathBuf) {
    let name = format!("{}/{}", case.name().replace(" / ", "/").replace(' ', "-"), case.judge.version());
    let states = directory.join(name);
    let file = states.join("truth.json");
    if let Some(truth) = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return (truth, states);
    }
    let damaged = case.row.apply(case.base, &case.file).unwrap();
    let truth = measure(
        case.base,
        &damaged,
        &case.judge,
        oracle,
        (&case.name(), case.end, STARTS),
        &states,
        &directory.join(&case.base.name).join("healthy"),
    );
    std::fs::write(file, serde_json::to_vec(&truth).unwrap()).unwrap();
    (truth, states)
}

#[test]
fn what_is_foretold_happens() {
    let what = "the forecast";
    let Some(oracle) = oracle::judge(what) else { return };
    let mut judges: Vec<_> = Servers::judges(what).into_iter().map(Judge::Server).collect();
    judges.push(Judge::Packages(oracle));
    let wanted = std::env::var("WALFIX_JUDGES").ok();
    judges.retain(|judge| {
        wanted.as_ref().is_none_or(|list| list.split(',').any(|one| judge.version().starts_with(one)))
    });
    let rows = std::env::var("WALFIX_ROWS").ok();
    let is_wanted = |row: &Row| {
        rows.as_ref()
            .is_none_or(|list| list.split(',').any(|one| row.name == one || row.number().to_string() == one))
    };
    let bases = bases(oracle);
    let mut cases = cases(&bases, &judges);
    cases.retain(|case| is_wanted(case.row));
    let scratch = tempfile::tempdir().unwrap();
    let directory = kept().unwrap_or_else(|| scratch.path().to_owned());
    for base in &bases {
        let healthy = directory.join(&base.name).join("healthy");
        let _ = std::fs::remove_dir_all(&healthy);
        write_tree(&base.tree, &healthy);
    }
    let (queue, results) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let (truth, states) = truth(case, oracle, &directory);
                    let measure_only = std::env::var_os("WALFIX_MEASURE").is_some();
                    let differences =
                        if measure_only { Vec::new() } else { compare(&truth, &states, oracle) };
                    results.lock().unwrap().push((case.name(), truth, differences));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let mut failed: Vec<String> = Vec::new();
    for (name, truth, differences) in &results {
        failed.extend(differences.iter().map(|d| describe(name, truth, d)));
    }
    failed.sort();
    println!("{} cases, {:?}", results.len(), begun.elapsed());
    if let Some(path) = std::env::var_os("WALFIX_DIFFERENCES") {
        std::fs::write(path, failed.join("")).unwrap();
    }
    assert!(failed.is_empty(), "{} differences:\n{}", failed.len(), failed[..failed.len().min(40)].join(""));
}

fn describe(name: &str, truth: &Truth, d: &Difference) -> String {
    format!(
        "{}: {name} / {}{} / {:?}, started {} times, start {}\n    foretold: {}\n    real:     {}\n",
        d.key,
        truth.version,
        if truth.agent { " agent" } else { "" },
        truth.end,
        d.state,
        d.start + 1,
        d.foretold,
        d.real
    )
}

/// A record that was given up, and zeros behind it: no start notices, and every checkpoint that takes in what follows
/// fails and blames that. walfix names the segment that Prometheus will blame, and the one that is damaged.
#[test]
fn the_next_checkpoint_fails_where_it_is_foretold_to() {
    let what = "checkpoints that fail";
    let Some(oracle) = oracle::judge(what) else { return };
    let base = Base::make(oracle, "none", false, &[]);
    let row = ROWS.iter().find(|row| row.name == "7 dangling first").unwrap();
    let healthy = ROWS.iter().find(|row| row.name == "0 healthy").unwrap();
    // Not the last segments: a checkpoint takes in two thirds of them.
    let files = ["wal/00000003", "wal/00000004", "wal/checkpoint.00000002/00000002", ""];
    Servers::each(what, |server| {
        std::thread::scope(|scope| {
            for file in files {
                let (base, server) = (&base, &server);
                scope.spawn(move || {
                    let damaged = if file.is_empty() {
                        healthy.apply(base, files[0]).unwrap()
                    } else {
                        row.apply(base, file).unwrap()
                    };
                    let scratch = tempfile::tempdir().unwrap();
                    let data = scratch.path().join("data");
                    write_tree(&damaged.tree, &data);
                    let version = server.version.to_string();
                    let forecast = forecast(&data, &version, false);
                    let real = checkpoint_error(server, &data);
                    let told = forecast["next_checkpoint_error"].as_str().map(|error| normal(error, &data));
                    assert_eq!(told, real.map(|error| normal(&error, &data)), "{version}, {file:?}");
                    assert_eq!(told.is_none(), file.is_empty(), "{version}, {file:?}");
                    let place = &forecast["next_checkpoint_place"];
                    let place = place["path"]
                        .as_str()
                        .map(|path| (path.to_owned(), place["offset"].as_u64().unwrap() as usize));
                    assert_eq!(place, damaged.abandoned, "{version}, {file:?}");
                });
            }
        });
        Ok::<(), Error>(())
    })
    .unwrap();
}

/// With what the first checkpoint fails that a server makes, if it does.
fn checkpoint_error(server: &Server, data: &Path) -> Option<String> {
    // Ranges of 5 minutes: there are enough samples for head compactions, which come a minute after the start.
    let options = Options {
        block_duration: Some(Duration::from_secs(300)),
        flags: vec!["--storage.tsdb.retention.time=100y".to_owned()],
        ..Options::default()
    };
    let mut running = server.start(data, &options).unwrap().ready().unwrap();
    assert_eq!(running.log().complaint(), None, "{}", server.version);
    let prefix = "WAL truncation in Compact: ";
    let mut error = None;
    running
        .wait_for("a checkpoint", Duration::from_secs(240), |running| {
            let log = running.log();
            let failed =
                log.lines.iter().find_map(|line| line.err()?.strip_prefix(prefix).map(ToOwned::to_owned));
            let done = failed.is_some() || log.with_msg("WAL checkpoint complete").is_some();
            error = failed;
            Ok(done)
        })
        .unwrap();
    error
}
