//! Pages that were swapped, copied or moved, within segments and across them: after a repair Prometheus's own packages serve
//! what stands in intact records, and the forecast says how much that is.
//!
//! `WALFIX_SEEDS` and `WALFIX_FIRST_SEED` choose other cases than those that are tried by default; each with a loss or
//! another complaint is printed with its seed.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use support::bases::{Base, Sample, Standing, Tree, labels, read_tree, served, write_tree};
use support::oracle::{self, Oracle};
use support::test;
use walfix::forecast::{HeadChunks, StartReads, Version, count, min_valid_time};
use walfix::tsdb::{Target, list_blocks};

const PAGE: usize = 32 * 1024;

/// Tried each time: labels that read as samples (821); pages whose records begin at the same places, so that they fit each
/// other's neighbours, swapped (840, 1152) or copied (602, 891); a copy with damage (483, 778); one that serves as much as
/// without it (1106); a page between two that are damaged (813); refs and times of what is no record (385).
const HARD: [u64; 10] = [385, 483, 602, 778, 813, 821, 840, 891, 1106, 1152];

/// Arguments of `oracle directory`.
const BASES: [(&str, &[&str]); 9] = [
    ("none", &["--compression", "none"]),
    ("snappy", &["--compression", "snappy"]),
    ("zstd", &["--compression", "zstd"]),
    ("none, long", &["--compression", "none", "--rounds", "200", "--segments", "3"]),
    ("snappy, long", &["--compression", "snappy", "--rounds", "200", "--segments", "3"]),
    ("zstd, long", &["--compression", "zstd", "--rounds", "200", "--segments", "3"]),
    ("none, no checkpoint", &["--compression", "none", "--rounds", "60", "--checkpoint", "-1"]),
    ("snappy, rich", &["--compression", "snappy", "--rounds", "40", "--rich"]),
    ("zstd, newest", &["--compression", "zstd", "--rounds", "40", "--rich", "--newest"]),
];

/// A page: path of its segment, and which one of it.
type At = (String, usize);

/// What was done, in words, and the tree that comes of it.
struct Case {
    what: String,
    tree: Tree,
}

fn pages(tree: &Tree, path: &str) -> Vec<Vec<u8>> {
    tree[path].as_deref().unwrap_or_default().chunks(PAGE).map(<[u8]>::to_vec).collect()
}

fn put(tree: &mut Tree, path: &str, pages: &[Vec<u8>]) {
    tree.insert(path.to_owned(), Some(pages.concat()));
}

/// A whole page that holds something.
fn any_page(base: &Base, paths: &[&String], rng: &mut fastrand::Rng) -> At {
    loop {
        let path = paths[rng.usize(..paths.len())];
        let whole = base.segments[path].bytes.len() / PAGE;
        if whole > 0 {
            return (path.clone(), rng.usize(..whole));
        }
    }
}

/// So many pages at the most that can be had from `at` on.
fn run_at(base: &Base, at: &At, most: usize) -> usize {
    most.min(base.segments[&at.0].bytes.len() / PAGE - at.1)
}

fn make(base: &Base, seed: u64) -> Case {
    let rng = &mut fastrand::Rng::with_seed(seed);
    let logs = base.logs();
    let paths: Vec<&String> =
        logs.iter().filter(|log| *log != "wbl").flat_map(|log| base.segments_of(log)).collect();
    let mut tree = base.tree.clone();
    let mut what;
    loop {
        let a = any_page(base, &paths, rng);
        // Half of the cases within one segment.
        let b = if rng.bool() {
            any_page(base, &[paths.iter().find(|path| ***path == a.0).unwrap()], rng)
        } else {
            any_page(base, &paths, rng)
        };
        if a == b {
            continue;
        }
        let most = if rng.u8(..4) == 0 { rng.usize(2..5) } else { 1 };
        let mut length = run_at(base, &a, most).min(run_at(base, &b, most));
        if a.0 == b.0 {
            length = length.min(a.1.abs_diff(b.1));
        }
        let (mut of_a, mut of_b) = (pages(&tree, &a.0), pages(&tree, &b.0));
        let run = of_a[a.1..a.1 + length].to_vec();
        let of_others = of_b[b.1..b.1 + length].to_vec();
        let same = a.0 == b.0;
        let kind = match seed % 8 {
            0 | 1 => {
                of_b[b.1..b.1 + length].clone_from_slice(&run);
                let other = if same { &mut of_b } else { &mut of_a };
                other[a.1..a.1 + length].clone_from_slice(&of_others);
                "swapped with"
            }
            2 | 3 => {
                of_b[b.1..b.1 + length].clone_from_slice(&run);
                "copied over"
            }
            4 => {
                of_b.splice(b.1..b.1, run);
                "copied before"
            }
            5 => {
                let other = if same { &mut of_b } else { &mut of_a };
                if same && b.1 > a.1 {
                    other.splice(b.1..b.1, run);
                    other.drain(a.1..a.1 + length);
                } else {
                    other.drain(a.1..a.1 + length);
                    of_b.splice(b.1..b.1, run);
                }
                "moved before"
            }
            6 => {
                of_b[b.1..b.1 + length].clone_from_slice(&run);
                let other = if same { &mut of_b } else { &mut of_a };
                other[a.1..a.1 + length].fill(vec![0; PAGE]);
                "moved over, leaving zeros,"
            }
            _ => {
                // Whole segments.
                let other = paths[rng.usize(..paths.len())];
                if *other == a.0 {
                    continue;
                }
                let theirs = pages(&tree, other);
                what = if rng.bool() {
                    put(&mut tree, &a.0, &theirs);
                    format!("{other} copied over {}", a.0)
                } else {
                    put(&mut tree, other, &of_a);
                    put(&mut tree, &a.0, &theirs);
                    format!("{other} and {} swapped", a.0)
                };
                break;
            }
        };
        if !same {
            put(&mut tree, &a.0, &of_a);
        }
        put(&mut tree, &b.0, &of_b);
        what = format!("{length} pages at {} {} {kind} those at {} {}", a.0, a.1, b.0, b.1);
        break;
    }
    // Other damage besides.
    if rng.u8(..8) == 0 {
        let path = paths[rng.usize(..paths.len())];
        let bytes = tree.get_mut(path).unwrap().as_mut().unwrap();
        let at = rng.usize(..bytes.len());
        let end = (at + rng.usize(1..300)).min(bytes.len());
        bytes[at..end].fill(0xA5);
        write!(what, "; {path} overwritten from {at} to {end}").unwrap();
    }
    Case { what, tree }
}

/// The samples of records of which every page stands somewhere.
fn expected(base: &Base, tree: &Tree) -> HashSet<Sample> {
    let there: HashSet<&[u8]> = tree.values().flatten().flat_map(|bytes| bytes.chunks(PAGE)).collect();
    let mut standing: Vec<&Standing> = Vec::new();
    for segment in base.segments.values() {
        let pages: Vec<&[u8]> = segment.bytes.chunks(PAGE).collect();
        let is_there: Vec<bool> = pages.iter().map(|page| there.contains(page)).collect();
        standing.extend(
            segment
                .records
                .iter()
                .filter(|record| record.fragments.iter().all(|fragment| is_there[fragment.start / PAGE]))
                .map(|record| &record.stands_for),
        );
    }
    Standing::known(standing.iter().copied()).intersection(&base.served).copied().collect()
}

#[derive(Default)]
struct Outcome {
    expected: usize,
    lost: usize,
    complaints: Vec<String>,
}

fn walfix(arguments: &[&str], data: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_walfix"))
        .args(arguments)
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// How many samples the forecast says that the next start serves.
fn promised(data: &Path, complaints: &mut Vec<String>) -> Option<u64> {
    let (_, out, err) = walfix(&["scan", "--threads=1", "--format", "json"], data);
    let Ok(report) = serde_json::from_str::<Value>(&out) else {
        complaints.push(format!("no scan: {err}"));
        return None;
    };
    let start = &report["prometheus"]["starts"][0];
    if report["verdict"] != "clean" {
        let findings = report["findings"].as_array().into_iter().flatten();
        let codes: Vec<_> =
            findings.filter(|f| f["severity"] == "damage").map(|f| f["code"].to_string()).collect();
        complaints.push(format!("still damaged: {}", codes.join(", ")));
    }
    if !start["error"].is_null() || !start["fatal"].is_null() {
        complaints.push(format!("foretold: {start}"));
    }
    let target = Target::find(data).unwrap();
    let listing = target.list().unwrap();
    let version = Version::NEWEST;
    let min_valid_time = min_valid_time(&listing, &list_blocks(data).unwrap(), version);
    let chunks = HeadChunks::read(data, "data", min_valid_time, version).unwrap();
    let nothing = [StartReads::default()];
    let all = count(&listing, <_>::default(), &nothing, version, min_valid_time, &chunks).unwrap();
    Some(all[0].not_replayed.samples - start["not_replayed"]["samples"].as_u64().unwrap())
}

/// Of each series, by its labels, the value of each sample by its time.
type Values = HashMap<String, HashMap<i64, String>>;

/// The values in a report of `oracle open`, staleness markers included.
fn values(report: &Value) -> Values {
    let mut all = Values::new();
    for series in report["series"].as_array().into_iter().flatten() {
        let of_series = all.entry(labels(&series["labels"])).or_default();
        for kind in ["samples", "histograms"] {
            for sample in series[kind].as_array().into_iter().flatten() {
                of_series.insert(sample[0].as_i64().unwrap(), sample[1].as_str().unwrap().to_owned());
            }
        }
    }
    all
}

/// The values that a healthy directory serves.
fn values_of(base: &Base, oracle: Oracle) -> Values {
    let scratch = support::scratch();
    let data = scratch.path().join("data");
    write_tree(&base.tree, &data);
    values(&oracle.json(&["open"], &data))
}

/// Samples that have another value than before.
fn altered(before: &Values, now: &Values) -> Vec<String> {
    let mut altered = Vec::new();
    for (series, samples) in now {
        for (time, value) in samples {
            // Those that were not there at all are counted by time.
            if let Some(known) = before.get(series).and_then(|of_series| of_series.get(time))
                && known != value
            {
                altered.push(format!("{series} at {time}: {value}, not {known}"));
            }
        }
    }
    altered.sort();
    altered
}

fn judge((base, before): (&Base, &Values), case: &Case, oracle: Oracle) -> Outcome {
    let mut outcome = Outcome::default();
    let expected = expected(base, &case.tree);
    outcome.expected = expected.len();
    let scratch = support::scratch();
    let data = scratch.path().join("data");
    write_tree(&case.tree, &data);
    let (code, out, err) =
        walfix(&["repair", "--threads=1", "--quiet", "--accept-orphans", "--backup"], &data);
    if !(code == 0 || code == 1) {
        outcome.complaints.push(format!("repair exits {code}: {out}{err}"));
    }
    if let Some(keep) = std::env::var_os("WALFIX_KEEP") {
        let keep = Path::new(&keep);
        let _ = std::fs::remove_dir_all(keep);
        write_tree(&case.tree, &keep.join("damaged"));
        write_tree(&base.tree, &keep.join("healthy"));
        write_tree(&read_tree(&data), &keep.join("repaired"));
    }
    let promised = promised(&data, &mut outcome.complaints);
    let report = oracle.json(&["open"], &data);
    for key in ["open_error", "crash"] {
        if !report[key].is_null() {
            outcome.complaints.push(format!("{key}: {}", report[key]));
        }
    }
    let is_served = served(&report, &base.names);
    outcome.lost = expected.difference(&is_served).count();
    // A tombstone that is lost deletes nothing.
    let strange: Vec<&Sample> =
        is_served.difference(&base.served).filter(|sample| !base.deleted.contains(sample)).collect();
    if let Some(one) = strange.first() {
        outcome.complaints.push(format!("{} samples that were never there, {one:?} for one", strange.len()));
    }
    let now = values(&report);
    let is_new = |series: &&String| {
        base.names.known(series).is_none() && series.as_str() != "{__name__=\"walfix_fence\"}"
    };
    if let Some(series) = now.keys().find(is_new) {
        outcome.complaints.push(format!("a series that was never there: {series}"));
    }
    let altered = altered(before, &now);
    if let Some(one) = altered.first() {
        outcome.complaints.push(format!("{} samples of another value, {one} for one", altered.len()));
    }
    if promised.is_some_and(|promised| promised != is_served.len() as u64) {
        outcome.complaints.push(format!("promised {promised:?}, serves {}", is_served.len()));
    }
    outcome
}

/// Samples that are lost, of so many, and both by seed.
type Totals = (usize, usize, HashMap<u64, (usize, usize)>);

#[test(long)]
fn pages_that_were_swapped_copied_or_moved_are_put_right() {
    let oracle = oracle::judge("misplaced pages");
    let bases: Vec<Base> =
        BASES.iter().map(|(name, arguments)| Base::make(oracle, name, false, arguments)).collect();
    let before: Vec<Values> = bases.iter().map(|base| values_of(base, oracle)).collect();
    let seeds = support::seeds(60);
    let hard = if std::env::var_os("WALFIX_FIRST_SEED").is_some() { &[][..] } else { &HARD };
    let seeds: Vec<u64> = hard.iter().copied().chain(seeds).collect();
    let next = AtomicUsize::new(0);
    let bad: Mutex<Vec<String>> = Mutex::default();
    // Samples, lost, and by kind.
    let totals: Mutex<Totals> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                    let at = usize::try_from(seed / 8).unwrap() % bases.len();
                    let base = &bases[at];
                    let case = make(base, seed);
                    let outcome = judge((base, &before[at]), &case, oracle);
                    let mut totals = totals.lock().unwrap();
                    totals.0 += outcome.expected;
                    totals.1 += outcome.lost;
                    let of_kind = totals.2.entry(seed % 8).or_default();
                    of_kind.0 += outcome.expected;
                    of_kind.1 += outcome.lost;
                    drop(totals);
                    let is_bad = outcome.lost * 20 > outcome.expected || !outcome.complaints.is_empty();
                    if is_bad || outcome.lost > 0 {
                        let text = format!(
                            "seed {seed}, {}: {}: {} of {} samples lost; {}",
                            base.name,
                            case.what,
                            outcome.lost,
                            outcome.expected,
                            outcome.complaints.join("; ")
                        );
                        let _ = writeln!(std::io::stderr().lock(), "{text}");
                        if is_bad {
                            bad.lock().unwrap().push(text);
                        }
                    }
                }
            });
        }
    });
    let (all, lost, kinds) = totals.into_inner().unwrap();
    let _ = writeln!(std::io::stderr().lock(), "{lost} of {all} samples lost; by kind {kinds:?}");
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "{} cases:\n{}", bad.len(), bad.join("\n"));
    assert!(lost * 100 <= all, "{lost} of {all} samples lost");
}
