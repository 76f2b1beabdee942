//! Damages of every kind, in every place, of healthy directories of every sort, and who starts on them.

use std::path::Path;
use std::sync::Mutex;

use super::bases::Base;
use super::oracle::Oracle;
use super::recipes::{At, ROWS, Row};
use super::server::Servers;
use super::truth::{End, Judge};

/// Sorts of healthy directories: name, whether an agent's, the arguments of `oracle directory`, and in words.
pub const BASES: [(&str, bool, &[&str], &str); 13] = [
    ("none", false, &[], "Not compressed: five segments after a checkpoint of three."),
    ("snappy", false, &["--compression", "snappy"], "The same, compressed with snappy."),
    ("zstd", false, &["--compression", "zstd"], "The same, compressed with zstd, which came with 2.46."),
    ("wbl", false, &["--wbl"], "With a WBL of three segments, which came with 2.39."),
    ("wbl-snappy", false, &["--wbl", "--compression", "snappy"], "The same, compressed with snappy."),
    ("rich", false, &["--rich"], "With histograms, exemplars, metadata and tombstones."),
    ("newest", false, &["--newest"], "With histograms of custom buckets (3.2) and start timestamps (3.11)."),
    ("chunks", false, &["--chunks", "--rounds", "40"], "With enough samples for head chunks, which exist."),
    (
        "collide",
        false,
        &["--checkpoint", "0"],
        "The checkpoint's segments have numbers of segments after it.",
    ),
    ("young", false, &["--checkpoint", "-1"], "Without a checkpoint."),
    ("agent", true, &[], "An agent's."),
    ("agent-zstd", true, &["--compression", "zstd"], "An agent's, compressed with zstd."),
    ("agent-rich", true, &["--rich"], "A server's, as before, on which an agent is started."),
];

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matrix {
    Quick,
    Long,
    All,
}

impl Matrix {
    pub fn wanted() -> Self {
        match std::env::var("WALFIX_MATRIX").as_deref() {
            Err(_) | Ok("quick") => Self::Quick,
            Ok("long") => Self::Long,
            Ok("all") => Self::All,
            Ok(other) => panic!("WALFIX_MATRIX={other}"),
        }
    }

    /// Starts on each directory. What it is between them are directories of their own: "already started once" and so on.
    pub fn starts(self) -> usize {
        if self == Self::Quick { 2 } else { 4 }
    }

    /// Whether a damage is tried there.
    fn has(self, base: &str, row: &Row, place: &str) -> bool {
        let places: &[&str] = match base {
            "none" => &[
                "wal first",
                "wal middle",
                "wal last",
                "checkpoint first",
                "checkpoint middle",
                "checkpoint last",
            ],
            "wbl" => &["wbl first", "wbl middle", "wbl last", "wal middle"],
            "collide" => &["checkpoint first", "checkpoint middle", "checkpoint last"],
            "young" => &["wal first", "wal last"],
            _ => &["wal middle", "checkpoint first", "wbl middle"],
        };
        let somewhere = place == "directory" || places.contains(&place);
        match self {
            Self::All => true,
            Self::Long => somewhere,
            // Every damage to a directory as a whole; of the others one kind a row, where it hurts most; and what is
            // special of special directories.
            Self::Quick => match base {
                "none" => {
                    let kinds =
                        ROWS.iter().filter(|other| other.number() == row.number()).map(|other| other.name);
                    place == "directory"
                        || ["wal middle", "checkpoint first"].contains(&place)
                            && kinds.take(2).any(|n| n == row.name)
                }
                "wbl" => place == "wbl middle" && [1, 7, 13, 14].contains(&row.number()),
                "snappy" | "zstd" => place == "wal middle" && [1, 12].contains(&row.number()),
                "rich" => place == "wal middle" && row.number() == 13,
                "collide" => place == "checkpoint middle" && row.name == "1 payload",
                "chunks" => ["wal middle", "checkpoint first"].contains(&place) && row.name == "1 payload",
                "young" => {
                    place == "directory" && row.number() == 0 || place == "wal first" && row.number() == 14
                }
                "agent" => place == "wal middle" && [1, 31, 32].contains(&row.number()),
                _ => false,
            },
        }
    }
}

/// A directory, what is done to it where, and who starts on it.
pub struct Case<'a> {
    pub base: &'a Base,
    pub row: &'static Row,
    pub place: String,
    pub file: String,
    pub judge: Judge,
    pub end: End,
}

impl Case<'_> {
    pub fn name(&self) -> String {
        format!("{} / {} / {} / {}", self.base.name, self.row.name, self.place, self.judge.version())
    }
}

fn list(knob: &str, separator: char) -> Vec<String> {
    let value = std::env::var(knob).unwrap_or_default();
    value.split(separator).filter(|one| !one.is_empty()).map(ToOwned::to_owned).collect()
}

/// Damage of every kind, everywhere, on every sort of directory.
pub fn cases<'a>(bases: &'a [Base], judges: &[Judge], matrix: Matrix) -> Vec<Case<'a>> {
    let (rows, parts) = (list("WALFIX_ROWS", ';'), list("WALFIX_CASES", ';'));
    let is_wanted = |row: &Row| {
        rows.is_empty() || rows.iter().any(|one| row.name == one || row.number().to_string() == *one)
    };
    let mut all = Vec::new();
    for base in bases {
        for row in ROWS.iter().filter(|row| is_wanted(row)) {
            for (place, file) in places(base, row) {
                if !matrix.has(&base.name, row, &place) || row.apply(base, &file).is_none() {
                    continue;
                }
                for judge in judges {
                    // The packages are started as a server only, and 2.42's agent is like 2.53's.
                    if base.agent
                        && !matches!(judge, Judge::Server(server) if server.version.0 * 100 + server.version.1 > 242)
                    {
                        continue;
                    }
                    let end = if all.len() % 2 == 0 { End::Killed } else { End::Stopped };
                    let (place, file, judge) = (place.clone(), file.clone(), judge.clone());
                    all.push(Case { base, row, place, file, judge, end });
                }
            }
        }
    }
    all.retain(|case| parts.iter().all(|part| format!("/ {} /", case.name()).contains(part)));
    all
}

/// Where a damage can be done: in the first, a middle and the last segment of each log.
fn places(base: &Base, row: &Row) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for log in base.logs() {
        let segments = base.segments_of(&log);
        if segments.is_empty() {
            continue;
        }
        let name = if log.contains("checkpoint") { "checkpoint" } else { log.as_str() };
        if row.at == At::Directory {
            if name == "wal" {
                all.push(("directory".to_owned(), segments[0].clone()));
            }
            continue;
        }
        if row.at == At::Log && name == "checkpoint" {
            continue;
        }
        let mut of = vec![("first", 0), ("middle", segments.len() / 2), ("last", segments.len() - 1)];
        of.dedup_by_key(|(_, at)| *at);
        all.extend(of.into_iter().map(|(at, index)| (format!("{name} {at}"), segments[index].clone())));
    }
    all
}

/// Healthy directories of every sort, and those that are given.
pub fn bases(oracle: Oracle) -> Vec<Base> {
    let mut bases: Vec<_> =
        BASES.iter().map(|(name, agent, arguments, _)| Base::make(oracle, name, *agent, arguments)).collect();
    for path in list("WALFIX_DIRECTORIES", ':') {
        let path = Path::new(&path);
        let mut names: Vec<_> =
            path.components().rev().take(2).map(|name| name.as_os_str().to_str().unwrap()).collect();
        names.reverse();
        bases.push(Base::read(oracle, &names.join("-"), names[1].starts_with("agent"), path));
    }
    bases
}

/// The servers to start: all, or the newest; and the packages.
pub fn judges(what: &str, oracle: Oracle, matrix: Matrix) -> Vec<Judge> {
    let mut servers = Servers::judges_of_part(what);
    if matrix == Matrix::Quick {
        servers.drain(..servers.len().saturating_sub(1));
    }
    servers.into_iter().map(Judge::Server).chain([Judge::Packages(oracle)]).collect()
}

/// Threads that wait for servers, most of the time.
const LANES: usize = 6;

/// What comes of each case, some at a time.
pub fn in_lanes<'a, T: Send>(
    cases: &'a [Case<'a>],
    judge: impl Fn(&Case<'a>) -> T + Sync,
) -> Vec<(&'a Case<'a>, T)> {
    let (queue, results) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else { break };
                    let judged = judge(case);
                    results.lock().unwrap().push((case, judged));
                }
            });
        }
    });
    results.into_inner().unwrap()
}
