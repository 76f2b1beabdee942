//! Refs against series records, over logs that are made here: `walfix scan` counts what a plain replay counts.
//!
//! `WALFIX_SEEDS` and `WALFIX_FIRST_SEED` choose other random logs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use support::{note, test};
use walfix::record::{
    ExemplarEntry, Labels, MmapMarkerEntry, SampleEntry, TombstoneEntry, encode_exemplars,
    encode_mmap_markers, encode_samples, encode_series, encode_tombstones,
};
use walfix::scan::Scan;
use walfix::scan::report::{Finding, Severity};
use walfix::scan::{Options, scan};
use walfix::tsdb::Target;

const PAGE: usize = 32768;

/// A record in the making.
#[derive(Clone, Debug)]
enum Record {
    /// Refs, each with the number of its label set.
    Series(Vec<(u64, u8)>),
    /// Refs and times.
    Samples(Vec<(u64, i64)>),
    Exemplars(Vec<(u64, i64)>),
    Tombstones(Vec<u64>),
    Markers(Vec<u64>),
}

use Record::{Exemplars, Markers, Samples, Series, Tombstones};

impl Record {
    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Series(series) => {
                let values: Vec<[u8; 1]> = series.iter().map(|&(_, labels)| [b'a' + labels]).collect();
                let labels = |value: &'_ [u8; 1]| [(&b"__name__"[..], value.to_vec())];
                let labels: Vec<_> = values.iter().map(labels).collect();
                let entries = series.iter().zip(&labels).map(|(&(series_ref, _), labels)| {
                    (series_ref, labels.each_ref().map(|(name, value)| (*name, &value[..])))
                });
                encode_series(entries, &mut out);
            }
            Samples(samples) => {
                let sample =
                    |&(series_ref, t): &(u64, i64)| SampleEntry { series_ref, t, st: 0, value_bits: 0 };
                encode_samples(&samples.iter().map(sample).collect::<Vec<_>>(), &mut out);
            }
            Exemplars(exemplars) => {
                let exemplar = |&(series_ref, t): &(u64, i64)| ExemplarEntry {
                    series_ref,
                    t,
                    value_bits: 0,
                    labels: Labels::default(),
                };
                encode_exemplars(&exemplars.iter().map(exemplar).collect::<Vec<_>>(), &mut out);
            }
            Tombstones(refs) => {
                let tombstone = |&series_ref: &u64| TombstoneEntry { series_ref, min_time: 1, max_time: 2 };
                encode_tombstones(&refs.iter().map(tombstone).collect::<Vec<_>>(), &mut out);
            }
            Markers(refs) => {
                let marker = |&series_ref: &u64| MmapMarkerEntry { series_ref, mmap_ref: 8 };
                encode_mmap_markers(&refs.iter().map(marker).collect::<Vec<_>>(), &mut out);
            }
        }
        out
    }
}

/// A segment of records, each a full fragment (`tsdb/wlog/wlog.go`, `WL.log`).
fn segment(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let data = record.encoded();
        if PAGE - bytes.len() % PAGE < 7 + data.len() {
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        }
        bytes.push(1);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(crc32c::crc32c(&data).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// Paths of segments, and what is in them, in the order of their replay.
type Logs = Vec<(&'static str, Vec<Record>)>;

fn write(data: &Path, logs: &Logs) {
    for (path, records) in logs {
        let path = data.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, segment(records)).unwrap();
    }
}

fn read(path: &Path) -> Scan {
    scan(&Target::find(path).unwrap(), &Options::default(), &()).unwrap()
}

fn scan_of(logs: &Logs) -> Scan {
    let data = tempfile::tempdir().unwrap();
    write(data.path(), logs);
    read(data.path())
}

/// What is found of one kind in one log: refs, entries of which something becomes, and the times of the samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Misfits {
    refs: BTreeSet<u64>,
    samples: u64,
    others: u64,
    times: Option<(i64, i64)>,
}

impl Misfits {
    fn count(&mut self, time: Option<i64>) {
        match time {
            None => self.others += 1,
            Some(t) => {
                self.samples += 1;
                self.times = Some(self.times.map_or((t, t), |(min, max)| (min.min(t), max.max(t))));
            }
        }
    }

    fn add(&mut self, series_ref: u64, other: &Self) {
        self.refs.insert(series_ref);
        self.samples += other.samples;
        self.others += other.others;
        for t in other.times.into_iter().flat_map(|(min, max)| [min, max]) {
            self.times = Some(self.times.map_or((t, t), |(min, max)| (min.min(t), max.max(t))));
        }
    }
}

/// A plain replay, record by record (`tsdb/head_wal.go`).
fn replay(logs: &Logs) -> BTreeMap<(String, &'static str), Misfits> {
    let mut found: BTreeMap<(String, &'static str), Misfits> = BTreeMap::new();
    let mut defined: HashMap<u64, u8> = HashMap::new();
    let mut since: HashMap<u64, Misfits> = HashMap::new();
    let mut undefined: BTreeMap<(String, u64), Misfits> = BTreeMap::new();
    for (path, records) in logs {
        let log = path.rsplit_once('/').unwrap().0.to_owned();
        let wbl = log == "wbl";
        for record in records {
            if let (Series(series), false) = (record, wbl) {
                for &(series_ref, labels) in series {
                    let before = since.remove(&series_ref).unwrap_or_default();
                    let code = match defined.insert(series_ref, labels) {
                        None => continue,
                        Some(same) if same == labels => "repeated_series",
                        Some(_) => "reissued_refs",
                    };
                    found.entry((log.clone(), code)).or_default().add(series_ref, &before);
                }
            }
            let uses: Vec<(u64, Option<i64>)> = match record {
                Samples(samples) => samples.iter().map(|&(r, t)| (r, Some(t))).collect(),
                Exemplars(exemplars) if !wbl => exemplars.iter().map(|&(r, _)| (r, None)).collect(),
                Tombstones(refs) if !wbl => refs.iter().map(|&r| (r, None)).collect(),
                Markers(refs) if wbl => refs.iter().map(|&r| (r, None)).collect(),
                _ => Vec::new(),
            };
            for (series_ref, time) in uses {
                let list = if defined.contains_key(&series_ref) {
                    since.entry(series_ref).or_default()
                } else {
                    undefined.entry((log.clone(), series_ref)).or_default()
                };
                list.count(time);
            }
        }
    }
    for ((log, series_ref), misfits) in undefined {
        let late = defined.contains_key(&series_ref) && log != "wbl";
        let code = if late { "series_after_use" } else { "unknown_refs" };
        found.entry((log, code)).or_default().add(series_ref, &misfits);
    }
    found
}

const CODES: [&str; 4] = ["reissued_refs", "repeated_series", "series_after_use", "unknown_refs"];

fn assert_as_replayed(logs: &Logs, what: &str) {
    let expected = replay(logs);
    let report = scan_of(logs);
    let findings: Vec<&Finding> = report.findings.iter().filter(|f| CODES.contains(&f.code.name())).collect();
    let of_checkpoint: Vec<bool> = logs
        .iter()
        .filter(|(path, _)| path.starts_with("wal/checkpoint.00000004/"))
        .map(|(_, records)| records.is_empty())
        .collect();
    // One that is empty beside others has lost its records.
    let is_emptied = of_checkpoint.len() > 1 && of_checkpoint.contains(&true);
    let keys: BTreeSet<_> = findings.iter().map(|f| (f.log.clone().unwrap(), f.code.name())).collect();
    assert_eq!(keys.len(), findings.len(), "{what}: one finding for each log and kind");
    assert_eq!(keys, expected.keys().cloned().collect(), "{what}: {logs:?}");
    for finding in findings {
        let expected = &expected[&(finding.log.clone().unwrap(), finding.code.name())];
        let said = || format!("{what}: {finding:?}\n{expected:?}\n{logs:?}");
        assert_eq!(finding.series, Some(expected.refs.len() as u64), "{}", said());
        assert_eq!(
            finding.times.map(|times| (times.from.unwrap(), times.to.unwrap())),
            expected.times,
            "{}",
            said()
        );
        let (severity, entries) = match finding.code.name() {
            "unknown_refs" if finding.log.as_deref() == Some("wal/checkpoint.00000004") && !is_emptied => {
                (Severity::Note, Some(expected.samples + expected.others))
            }
            "unknown_refs" | "series_after_use" => {
                (Severity::Warning, Some(expected.samples + expected.others))
            }
            "repeated_series" if expected.samples > 0 => (Severity::Damage, None),
            "repeated_series" => (Severity::Warning, Some(0)),
            _ => (Severity::Damage, Some(expected.samples)),
        };
        assert_eq!((finding.severity, finding.lost.entries), (severity, entries), "{}", said());
        let samples =
            if expected.samples == 1 { "1 sample".into() } else { format!("{} samples", expected.samples) };
        assert!(expected.samples == 0 || finding.message().contains(&samples), "{}", said());
    }
}

#[test]
fn what_is_defined_before_and_once_is_no_finding() {
    let logs = vec![
        (
            "wal/checkpoint.00000004/00000000",
            vec![Series(vec![(1, 0), (2, 1)]), Samples(vec![(1, 10), (2, 10)])],
        ),
        // 3 has the labels of 1, which was dropped from memory meanwhile.
        ("wal/00000005", vec![Series(vec![(3, 0)]), Samples(vec![(2, 20), (3, 20)]), Tombstones(vec![2])]),
        ("wal/00000006", vec![Exemplars(vec![(3, 30)])]),
        ("wbl/00000000", vec![Samples(vec![(2, 5)]), Markers(vec![2, 3])]),
    ];
    assert_eq!(replay(&logs), BTreeMap::new());
    let report = scan_of(&logs);
    assert_eq!(report.findings, []);
}

#[test]
fn each_kind() {
    let logs = vec![
        (
            "wal/checkpoint.00000004/00000000",
            vec![Series(vec![(1, 0), (2, 1)]), Samples(vec![(1, 10), (9, 11), (8, 12)])],
        ),
        (
            "wal/00000005",
            vec![
                Samples(vec![(1, 20), (9, 21), (70_000, 22)]),
                Exemplars(vec![(9, 22)]),
                Series(vec![(8, 5)]),
                Samples(vec![(8, 23)]),
            ],
        ),
        ("wal/00000006", vec![Series(vec![(1, 0)]), Series(vec![(2, 7)]), Samples(vec![(1, 30)])]),
        ("wbl/00000000", vec![Samples(vec![(9, 5), (1, 6)]), Markers(vec![2, 4])]),
    ];
    assert_as_replayed(&logs, "by hand");
    let report = scan_of(&logs);
    let find = |log: &str, code: &str| {
        let is = |f: &&Finding| f.log.as_deref() == Some(log) && f.code.name() == code;
        report.findings.iter().find(is).unwrap_or_else(|| panic!("{log} {code}: {:?}", report.findings))
    };
    let unknown = find("wal", "unknown_refs");
    assert_eq!((unknown.series, unknown.lost.entries), (Some(2), Some(3)));
    assert_eq!(find("wbl", "unknown_refs").lost.entries, Some(2));
    assert_eq!(find("wal/checkpoint.00000004", "series_after_use").series, Some(1));
    // It stands first in its segment: a header of 7 bytes, a type, a ref, a count, `__name__` and one letter.
    let repeated = find("wal", "repeated_series");
    assert_eq!(
        (repeated.segment, repeated.offset, repeated.end),
        (Some(6), Some(0), Some(7 + 1 + 8 + 1 + 9 + 2))
    );
    assert_eq!(find("wal", "reissued_refs").offset, repeated.end);
}

#[test]
fn random_logs() {
    let paths = [
        "wal/checkpoint.00000004/00000000",
        "wal/checkpoint.00000004/00000001",
        "wal/00000005",
        "wal/00000006",
        "wal/00000007",
        "wbl/00000000",
        "wbl/00000001",
    ];
    let (mut seen, mut right, seeds) = (BTreeMap::new(), 0, support::seeds(300));
    let tried = seeds.end - seeds.start;
    for seed in seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let refs: Vec<u64> = (0..rng.u64(1..30))
            .map(|_| [rng.u64(1..9), rng.u64(60..70), rng.u64(..)][rng.usize(..3)])
            .collect();
        // How often a log is right: all series first, then their samples.
        let order = rng.usize(1..20);
        // Some are never defined, and some logs define all.
        let never = rng.u64(1..6);
        let mut fresh: HashSet<u64> = refs.iter().copied().filter(|r| never == 1 || r % never != 1).collect();
        let mut logs = Logs::new();
        for path in paths {
            let mut records = Vec::new();
            for _ in 0..rng.usize(..8) {
                let mut some =
                    || -> Vec<u64> { (0..rng.usize(1..5)).map(|_| refs[rng.usize(..refs.len())]).collect() };
                let (chosen, more) = (some(), some());
                records.push(match rng.usize(..12) {
                    0 if rng.usize(..order) == 0 => {
                        Series(chosen.iter().map(|&r| (r, rng.u8(..2))).collect())
                    }
                    0..3 => Series(
                        refs.iter().filter(|r| fresh.remove(r)).map(|&r| (r, u8::from(r % 3 == 0))).collect(),
                    ),
                    3 => Tombstones(chosen),
                    4 => Exemplars(chosen.iter().map(|&r| (r, rng.i64(..100))).collect()),
                    5 => Markers(chosen),
                    _ => Samples(chosen.iter().chain(&more).map(|&r| (r, rng.i64(..100))).collect()),
                });
            }
            logs.push((path, records));
        }
        assert_as_replayed(&logs, &format!("seed {seed}"));
        let found = replay(&logs);
        right += u64::from(found.is_empty());
        for (_, code) in found.into_keys() {
            *seen.entry(code).or_insert(0) += 1;
        }
    }
    note!("{seen:?}, {right} without any");
    assert!(tried < 300 || seen.len() == CODES.len(), "{seen:?}");
}

/// Of more segments than are read at once, in the order of their numbers.
#[test]
fn many_segments() {
    let data = tempfile::tempdir().unwrap();
    let wal = data.path().join("wal");
    fs::create_dir(&wal).unwrap();
    for index in 0..300_u64 {
        // Each uses what the one before defines, but for the first.
        let records = [Samples(vec![(index, 1)]), Series(vec![(index + 1, 0)])];
        fs::write(wal.join(format!("{index:08}")), segment(&records)).unwrap();
    }
    let report = read(data.path());
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!((report.findings[0].code.name(), report.findings[0].series), ("unknown_refs", Some(1)));
}

#[test]
fn nothing_is_said_of_one_segment_or_of_a_wbl_alone() {
    let data = tempfile::tempdir().unwrap();
    write(
        data.path(),
        &vec![("wal/00000000", vec![Samples(vec![(1, 10)])]), ("wbl/00000000", vec![Samples(vec![(1, 5)])])],
    );
    // One of each log, and one of the refs in the WBL that are handed out again.
    assert_eq!(read(data.path()).findings.len(), 3);
    assert_eq!(read(&data.path().join("wal")).findings.len(), 1);
    for alone in ["wal/00000000", "wbl", "wbl/00000000"] {
        assert_eq!(read(&data.path().join(alone)).findings, [], "{alone}");
    }
}

#[test]
fn a_checkpoint_alone_is_a_log_of_its_own() {
    let data = tempfile::tempdir().unwrap();
    let records = vec![Series(vec![(1, 0)]), Samples(vec![(1, 10), (2, 10)])];
    write(data.path(), &vec![("wal/checkpoint.00000001/00000000", records)]);
    let report = read(&data.path().join("wal/checkpoint.00000001"));
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!((report.findings[0].code.name(), report.findings[0].path.as_str()), ("unknown_refs", ""));
}

/// Samples of refs that are defined in a damaged record have lost their series by that.
#[test]
fn damage_is_named_as_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let mut bytes = segment(&[
        Series(vec![(1, 0)]),
        Series(vec![(2, 1)]),
        Samples(vec![(1, 10), (2, 10)]),
        Samples(vec![(1, 20), (2, 20)]),
    ]);
    let second = 7 + Series(vec![(1, 0)]).encoded().len();
    bytes[second + 10] ^= 0xff;
    bytes[second + 20] ^= 0xff;
    fs::create_dir(data.path().join("wal")).unwrap();
    fs::write(data.path().join("wal/00000000"), bytes).unwrap();
    let report = read(data.path());
    let codes: Vec<_> = report.findings.iter().map(|f| f.code.name()).collect();
    assert_eq!(codes, ["checksum_mismatch", "unknown_refs"], "{:?}", report.findings);
    let message = &report.findings[1].message();
    assert!(message.starts_with("2 samples ") && message.contains("among what is damaged"), "{message}");
}

/// A page that stands there twice is a finding of its own, and its records count once.
#[test]
fn a_copied_page_is_no_repeated_series() {
    let page = |ref_and_time: u64| {
        let samples = |t: i64| Samples((0..1500).map(|r| (ref_and_time + r, t)).collect());
        let series = Series((0..600).map(|r| (ref_and_time + r, 0)).collect());
        let more = Series((600..1500).map(|r| (ref_and_time + r, 0)).collect());
        let mut bytes = segment(&[series, samples(1)]);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let mut rest = segment(&[more, samples(2)]);
        rest.resize(rest.len().next_multiple_of(PAGE), 0);
        [bytes, rest].concat()
    };
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("wal")).unwrap();
    let bytes = page(1);
    let twice = [&bytes[..], &bytes[..PAGE]].concat();
    fs::write(data.path().join("wal/00000000"), twice).unwrap();
    let report = read(data.path());
    let damage: Vec<_> = report.of_severity(Severity::Damage).map(|f| f.code.name()).collect();
    assert_eq!(damage, ["duplicated_page", "misplaced_pages"], "{:?}", report.findings);
}

/// Codes and severities of what is found but refs.
fn states(logs: &Logs) -> Vec<(&'static str, Severity)> {
    let report = scan_of(logs);
    report
        .findings
        .iter()
        .filter(|f| !CODES.contains(&f.code.name()))
        .map(|f| (f.code.name(), f.severity))
        .collect()
}

#[test]
fn segments_that_a_checkpoint_covers() {
    let checkpoint = "wal/checkpoint.00000001/00000000";
    let of_checkpoint = vec![Series(vec![(1, 0), (2, 1)]), Samples(vec![(1, 100), (2, 100)])];
    let series_only = vec![Series(vec![(1, 0), (2, 1)])];
    let older = vec![Series(vec![(1, 0), (2, 1)]), Samples(vec![(1, 90), (2, 100)])];
    let newer = vec![Series(vec![(1, 0)]), Samples(vec![(1, 90), (1, 101)])];
    let others = vec![Series(vec![(1, 5)]), Samples(vec![(1, 90)])];
    let next = vec![Samples(vec![(1, 110)])];
    let stale = [("stale_segments", Severity::Warning)];
    let restarted = [("restarted_generation", Severity::Damage)];
    let ahead = [("checkpoint_ahead", Severity::Damage)];
    // What stands in the checkpoint, in segments 0 and 1, and in segment 2 if there is one.
    for (what, of_checkpoint, covered, goes_on, expected) in [
        ("left behind", &of_checkpoint, &older, true, &stale),
        ("begun anew, and gone on past the checkpoint", &of_checkpoint, &newer, true, &restarted),
        ("refs of another generation", &of_checkpoint, &others, true, &restarted),
        ("refs of another generation, by them alone", &series_only, &others, true, &restarted),
        ("begun anew", &of_checkpoint, &newer, false, &restarted),
        ("a checkpoint from elsewhere", &of_checkpoint, &older, false, &ahead),
    ] {
        let mut logs = vec![
            (checkpoint, of_checkpoint.clone()),
            ("wal/00000000", covered.clone()),
            ("wal/00000001", Vec::new()),
        ];
        if goes_on {
            logs.push(("wal/00000002", next.clone()));
        }
        let mut found = states(&logs);
        found.retain(|&(code, _)| code != "empty_segment");
        assert_eq!(found, expected, "{what}");
    }
}
