//! What walfix foretells of damaged directories is what real Prometheus servers, and its newest packages, then do.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use support::bases::Base;
use support::foretold::{Difference, compare};
use support::oracle::{self, Oracle};
use support::recipes::{At, ROWS, Row};
use support::server::Servers;
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

/// Where a damage is done: the first, a middle and the last segment of each log.
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
            all.push((place, segments[index].clone()));
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
        rows.as_ref().is_none_or(|list| {
            list.split(',').any(|one| row.name == one || row.number().to_string() == one)
        })
    };
    let bases = bases(oracle);
    let mut cases = cases(&bases, &judges);
    cases.retain(|case| is_wanted(case.row));
    let scratch = tempfile::tempdir().unwrap();
    let directory = kept().unwrap_or_else(|| scratch.path().to_owned());
    let (queue, results) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let (truth, states) = truth(case, oracle, &directory);
                    let differences = compare(&truth, &states);
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
