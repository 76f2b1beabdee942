//! Series whose records are lost get their labels back from wherever they still stand, and none gets others.
//!
//! Healthy directories of the oracle lose series records in every place, and have labels elsewhere: what is served after
//! the repair is reckoned from the healthy directory, sample by sample.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::bases::{Base, Standing, Tree, read_tree, write_tree};
use support::oracle::{self, Oracle};
use support::pristine;
use support::recipes::Damaged;
use support::repairs::segment;
use support::server::{Servers, label_text};
use support::test;
use support::tree;
use support::truth::{End, Judge, measure};
use tempfile::TempDir;
use walfix::forecast::forecast;
use walfix::record::{Record, SampleEntry, encode_samples, encode_series};
use walfix::repair::plan::{Change, Orphans, Series};
use walfix::repair::{self, Lock, Options, Plan};
use walfix::scan::report::Verdict;
use walfix::scan::scan;
use walfix::tsdb::Target;
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

const CHECKPOINT: &str = "wal/checkpoint.00000002";

const BACKUP: &str = "walfix-backup-2026-01-01T00-00-00Z";

/// A record of a base: the segment's path, and its place there.
type Place = (String, usize);

/// A directory that has lost records, and what is to come of it.
struct Case {
    what: String,
    tree: Tree,
    /// Records that are lost.
    lost: BTreeSet<Place>,
    /// Refs that are to get their labels back, and from where.
    expected: BTreeSet<u64>,
    source: Option<String>,
}

impl Case {
    fn new(what: &str, base: &Base, lost: &BTreeSet<Place>) -> Self {
        let mut tree = base.tree.clone();
        for (path, at) in lost {
            let bytes = tree.get_mut(path).and_then(Option::as_mut).unwrap();
            for fragment in &base.segments[path].records[*at].fragments {
                bytes[fragment.start + 7..fragment.end].fill(0xA5);
            }
        }
        let (expected, source) = (BTreeSet::new(), None);
        Self { what: format!("{}, {what}", base.name), tree, lost: lost.clone(), expected, source }
    }

    /// Refs of the series records that are lost and that are used.
    fn wanted(&self, base: &Base, oracle: Oracle) -> BTreeSet<u64> {
        let lost: BTreeSet<u64> =
            self.lost.iter().flat_map(|(path, at)| series_of(base, path, *at)).collect();
        let left = remaining(base, &self.lost);
        let mut used: BTreeSet<u64> =
            left.values().flat_map(|standing| standing.samples.iter().map(|(r, _)| *r)).collect();
        used.extend(chunks(&self.tree, oracle).iter().map(|(series_ref, ..)| *series_ref));
        lost.intersection(&used).copied().collect()
    }

    /// Has these files beside, of which `refs` are to come back.
    fn with(mut self, source: &str, files: Vec<(String, Vec<u8>)>, refs: BTreeSet<u64>) -> Self {
        self.tree.extend(files.into_iter().map(|(path, bytes)| (path, Some(bytes))));
        (self.expected, self.source) = (refs, Some(source.to_owned()));
        self
    }

    /// Has the backup beside that an earlier repair has made, from which labels come back.
    fn with_backup_of(mut self, made: &TempDir) -> Self {
        self.source = Some(format!("{BACKUP}/{CHECKPOINT}"));
        let kept = read_tree(&made.path().join("data").join(BACKUP)).into_iter();
        self.tree.extend(kept.map(|(path, bytes)| (format!("{BACKUP}/{path}"), bytes)));
        self
    }
}

fn series_of(base: &Base, path: &str, at: usize) -> Vec<u64> {
    base.segments[path].records[at].stands_for.series.clone()
}

/// The series records of a log.
fn series_records(base: &Base, log: &str) -> Vec<Place> {
    let of = |path: &String| {
        let records = base.segments[path].records.iter().enumerate();
        records
            .filter(|(_, record)| record.kind == "series")
            .map(|(at, _)| (path.clone(), at))
            .collect::<Vec<_>>()
    };
    base.segments_of(log).into_iter().flat_map(of).collect()
}

/// What the records stand for that are not lost, by segment.
fn remaining(base: &Base, lost: &BTreeSet<Place>) -> BTreeMap<String, Standing> {
    let of = |(path, segment): (&String, &support::bases::Segment)| {
        let mut standing = Standing::default();
        for (at, record) in segment.records.iter().enumerate() {
            if !lost.contains(&(path.clone(), at)) {
                standing.add(&record.stands_for);
            }
        }
        (path.clone(), standing)
    };
    base.segments.iter().map(of).collect()
}

/// Ref, first and last time of each head chunk.
fn chunks(tree: &Tree, oracle: Oracle) -> Vec<(u64, i64, i64)> {
    let files: Tree = tree
        .iter()
        .filter_map(|(path, bytes)| Some((path.strip_prefix("chunks_head/")?.to_owned(), bytes.clone())))
        .collect();
    if files.is_empty() {
        return Vec::new();
    }
    let scratch = tempfile::tempdir().unwrap();
    write_tree(&files, scratch.path());
    let report = oracle.json(&["chunks"], scratch.path());
    let number = |value: &Value| value.as_str().unwrap().parse::<i64>().unwrap();
    let chunk = |chunk: &Value| {
        (number(&chunk["ref"]).cast_unsigned(), number(&chunk["min_time"]), number(&chunk["max_time"]))
    };
    report["chunks"].as_array().unwrap().iter().map(chunk).collect()
}

/// The files of a log under another directory.
fn files_of(base: &Base, log: &str, to: &str) -> Vec<(String, Vec<u8>)> {
    let of = |path: &String| (path.replace(log, to), base.segments[path].bytes.clone());
    base.segments_of(log).into_iter().map(of).collect()
}

/// What a segment would be of another time: from `first` on its series have other labels, and its samples other values, so
/// many ms later.
fn of_another_time(bytes: &[u8], first: u64, later: i64) -> Vec<u8> {
    let mut writer = SegmentWriter::new(Vec::new());
    for written in pristine::records(bytes) {
        let mut data = Vec::new();
        match Record::parse(&written.data) {
            Record::Series(series) => {
                let entries: Vec<_> = series
                    .entries()
                    .map(Result::unwrap)
                    .map(|entry| {
                        let other = if entry.series_ref >= first {
                            Some((&b"zone"[..], &b"other"[..]))
                        } else {
                            None
                        };
                        (entry.series_ref, entry.labels.iter().chain(other).collect::<Vec<_>>())
                    })
                    .collect();
                encode_series(entries, &mut data);
            }
            Record::Samples(samples) => {
                let samples = samples.entries().map(Result::unwrap);
                let other: Vec<_> = samples
                    .map(|sample| {
                        let is_other = sample.series_ref >= first;
                        let (t, value_bits) = (sample.t + later, sample.value_bits ^ 1);
                        if is_other { SampleEntry { t, value_bits, ..sample } } else { sample }
                    })
                    .collect();
                encode_samples(&other, &mut data);
            }
            _ => data = written.data,
        }
        writer.record(Compression::None, &data).unwrap();
    }
    writer.finish().unwrap()
}

fn planned(data: &Path) -> (Verdict, Plan) {
    let target = Target::find(data).unwrap();
    let report = scan(&target, &walfix::scan::Options::default(), &()).unwrap();
    let foretold = forecast(&target, &report, walfix::forecast::Assumed::default()).unwrap();
    let plan = repair::plan(&target, &report, foretold.as_ref(), Options::default()).unwrap();
    (report.verdict, plan)
}

/// The series that a plan writes back.
fn written_back(plan: &Plan) -> BTreeMap<u64, Series> {
    let mut all = BTreeMap::new();
    for step in &plan.steps {
        for series in step.change.begins_with() {
            assert!(all.insert(series.series_ref, series.clone()).is_none(), "{series:?} is written twice");
        }
        if let Change::Create { path, bytes } = &step.change
            && !path.starts_with("walfix-lost.")
        {
            for written in pristine::records(bytes) {
                let Record::Series(record) = Record::parse(&written.data) else { continue };
                for entry in record.entries().map(Result::unwrap) {
                    if entry.labels.find(b"__name__") != Some(b"walfix_fence") {
                        let labels = walfix::repair::plan::SeriesLabels::of(&entry.labels);
                        let series = Series { series_ref: entry.series_ref, labels };
                        assert!(all.insert(entry.series_ref, series).is_none(), "{path}");
                    }
                }
            }
        }
    }
    all
}

fn text(series: &Series) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let labels = series.labels.get();
    label_text(&labels.iter().map(|(name, value)| (text(name), text(value))).collect())
}

/// Series, samples, head chunks, and from when to when they are.
type Amount = (u64, u64, u64, Option<i64>, Option<i64>);

/// What stays without labels, as the healthy directory has it.
fn orphans(base: &Base, case: &Case, oracle: Oracle) -> Option<Amount> {
    let defined: BTreeSet<u64> =
        remaining(base, &case.lost).values().flat_map(|standing| standing.series.clone()).collect();
    let is_orphan = |series_ref: &u64| !defined.contains(series_ref) && !case.expected.contains(series_ref);
    let (mut refs, mut samples, mut times) = (BTreeSet::new(), 0, Vec::new());
    for log in base.logs() {
        let scratch = tempfile::tempdir().unwrap();
        let files: Tree = base
            .segments_of(&log)
            .into_iter()
            .map(|path| {
                (path.rsplit('/').next().unwrap().to_owned(), Some(base.segments[path].bytes.clone()))
            })
            .collect();
        write_tree(&files, scratch.path());
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        oracle.dump(&[], scratch.path(), |line| {
            let path = format!("{log}/{:08}", line["segment"].as_u64().unwrap());
            let number = at.entry(path.clone()).or_default();
            let place = (path, *number);
            *number += 1;
            if case.lost.contains(&place) || line["type"] == "series" {
                return;
            }
            for entry in line["entries"].as_array().unwrap() {
                let Some(series_ref) = entry["ref"].as_str().map(|text| text.parse().unwrap()) else {
                    continue;
                };
                if !is_orphan(&series_ref) {
                    continue;
                }
                refs.insert(series_ref);
                if entry.get("st").is_some() {
                    samples += 1;
                    times.push(entry["t"].as_str().unwrap().parse::<i64>().unwrap());
                }
            }
        });
    }
    let mut of_chunks = 0;
    for (series_ref, from, to) in
        chunks(&base.tree, oracle).into_iter().filter(|(series_ref, ..)| is_orphan(series_ref))
    {
        refs.insert(series_ref);
        of_chunks += 1;
        times.extend([from, to]);
    }
    let (from, to) = (times.iter().copied().min(), times.iter().copied().max());
    (!refs.is_empty()).then_some((refs.len() as u64, samples, of_chunks, from, to))
}

fn told(orphans: Orphans) -> Amount {
    (orphans.series, orphans.samples.unwrap(), orphans.head_chunks.unwrap(), orphans.from, orphans.to)
}

/// Repairs it; what is written back is what is expected, all that can be had is served, and an undo restores it.
fn judge(base: &Base, case: &Case, oracle: Oracle) -> Plan {
    judge_by(&Judge::Packages(oracle), base, case, oracle)
}

fn judge_by(judge: &Judge, base: &Base, case: &Case, oracle: Oracle) -> Plan {
    let what = &format!("{}, {}", judge.version(), case.what);
    let scratch = support::scratch();
    let data = scratch.path().join("data");
    write_tree(&case.tree, &data);
    let before = tree::tree(&data);
    let (_, plan) = planned(&data);
    assert_eq!(plan.left, [], "{what}");
    let written = written_back(&plan);
    let refs: BTreeSet<u64> = written.keys().copied().collect();
    assert_eq!(refs, case.expected, "{what}: {:?}", plan.labels);
    for (series_ref, series) in &written {
        assert_eq!(base.names.known(&text(series)), base.names.by_ref(*series_ref), "{what}: {series:?}");
    }
    let found: Vec<_> = plan.labels.found.iter().map(|found| (found.path.clone(), found.series)).collect();
    let expected: Vec<_> = case
        .source
        .iter()
        .filter(|_| !refs.is_empty())
        .map(|path| (path.clone(), refs.len() as u64))
        .collect();
    assert_eq!(found, expected, "{what}");
    assert_eq!(plan.orphans.map(told), orphans(base, case, oracle), "{what}");

    let lock = Lock::take(&data).unwrap();
    let target = Target::find(&data).unwrap();
    repair::apply(&target, &plan, &scratch.path().join("backup"), &lock).unwrap();
    drop(lock);
    let (verdict, again) = planned(&data);
    assert_eq!((verdict, again.steps.len()), (Verdict::Clean, 0), "{what}: {again:?}");

    let mut standing = remaining(base, &case.lost);
    let first = base.checkpoint().map_or("wal/00000000".to_owned(), |log| format!("{log}/00000000"));
    standing.entry(first).or_default().series.extend(&refs);
    let now = Damaged { tree: read_tree(&data), standing, mended: None, abandoned: None };
    let (states, healthy) = (scratch.path().join("states"), scratch.path().join("healthy"));
    write_tree(&base.tree, &healthy);
    let truth = measure(base, &now, (judge, oracle), (what, End::Killed, 2), (&states, &healthy));
    for (number, start) in truth.starts.iter().enumerate() {
        assert_eq!(start.outcome, "up", "{what}: {start:?}");
        assert_eq!((&start.error, &start.checkpoint), (&None, &None), "{what}");
        assert!(
            !start.repairs && start.deletes.is_empty() && start.truncates.is_empty(),
            "{what}: {start:?}"
        );
        assert_eq!(start.strange, 0, "{what}: samples under labels that they never had");
        assert_eq!(truth.not_replayed[0][number].samples, 0, "{what}: not served at start {}", number + 1);
    }

    repair::undo(&scratch.path().join("backup")).unwrap();
    assert_eq!(tree::difference(&before, &tree::tree(&data)), None, "{what}");
    plan
}

fn bases(oracle: Oracle) -> Vec<Base> {
    let make = |name: &str, arguments: &[&str]| Base::make(oracle, name, false, arguments);
    vec![
        make("plain", &["--compression=none", "--wbl", "--chunks", "--rich"]),
        make("zstd", &["--compression=zstd", "--rich"]),
    ]
}

/// Every second series record of the checkpoint.
fn some_of_checkpoint(base: &Base) -> BTreeSet<Place> {
    series_records(base, CHECKPOINT).into_iter().step_by(2).collect()
}

#[test]
fn an_older_checkpoint_has_them() {
    let oracle = oracle::judge("labels from an older checkpoint");
    for base in bases(oracle) {
        let lost = some_of_checkpoint(&base);
        let case = Case::new("an older checkpoint", &base, &lost);
        let wanted = case.wanted(&base, oracle);
        assert!(wanted.len() > 400, "{}", wanted.len());
        // Of the three segments two.
        let mut files = files_of(&base, CHECKPOINT, "wal/checkpoint.00000001");
        files.pop();
        let of_these =
            |path: &str| files.iter().any(|(name, _)| name.ends_with(path.rsplit('/').next().unwrap()));
        let there = lost.iter().filter(|(path, _)| of_these(path));
        let there: BTreeSet<u64> = there.flat_map(|(path, at)| series_of(&base, path, *at)).collect();
        let refs: BTreeSet<u64> = wanted.intersection(&there).copied().collect();
        let case = case.with("wal/checkpoint.00000001", files, refs);
        judge(&base, &case, oracle);
    }
}

#[test(long)]
fn servers_serve_them() {
    let oracle = oracle::judge("labels with servers");
    let base = &bases(oracle)[0];
    Servers::each("labels", |server| {
        let case = Case::new("an older checkpoint", base, &some_of_checkpoint(base));
        let refs = case.wanted(base, oracle);
        let older = "wal/checkpoint.00000001";
        let case = case.with(older, files_of(base, CHECKPOINT, older), refs);
        judge_by(&Judge::Server(server.clone()), base, &case, oracle);
        Ok::<(), support::server::Error>(())
    })
    .unwrap();
}

#[test(long)]
fn segments_below_the_checkpoint_have_them() {
    let oracle = oracle::judge("labels from segments below the checkpoint");
    for base in bases(oracle) {
        let case = Case::new("segments below", &base, &some_of_checkpoint(&base));
        let refs = case.wanted(&base, oracle);
        let case = case.with("wal/00000000 to wal/00000002", files_of(&base, CHECKPOINT, "wal"), refs);
        judge(&base, &case, oracle);
    }
}

#[test(long)]
fn an_original_of_a_segment_has_them() {
    let oracle = oracle::judge("labels from .repair");
    for base in bases(oracle) {
        let lost: BTreeSet<Place> =
            series_records(&base, "wal").into_iter().filter(|(path, _)| path == "wal/00000005").collect();
        let case = Case::new("an original", &base, &lost);
        let refs = case.wanted(&base, oracle);
        assert!(!refs.is_empty());
        // What Prometheus has logged since uses the refs, too; but of the series of this segment none other tells.
        let original = vec![("wal/00000005.repair".to_owned(), base.segments["wal/00000005"].bytes.clone())];
        let case = case.with("wal/00000005.repair", original, refs);
        judge(&base, &case, oracle);
    }
}

/// A snapshot as Prometheus makes it.
fn snapshot(base: &Base, oracle: Oracle) -> (String, Vec<(String, Vec<u8>)>) {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    write_tree(&base.tree, &data);
    let opened = oracle.json(&["open", "--snapshot", "--summary"], &data);
    assert!(opened["close_error"].is_null() && opened["open_error"].is_null(), "{opened}");
    let is_of_snapshot = |path: &String| path.starts_with("chunk_snapshot.");
    let files: Vec<_> = read_tree(&data).into_iter().filter(|(path, _)| is_of_snapshot(path)).collect();
    let name = files[0].0.split('/').next().unwrap().to_owned();
    (name, files.into_iter().map(|(path, bytes)| (path, bytes.unwrap())).collect())
}

#[test(long)]
fn a_chunk_snapshot_has_them() {
    let oracle = oracle::judge("labels from a chunk snapshot");
    for base in bases(oracle) {
        let (name, files) = snapshot(&base, oracle);
        let case = Case::new("a snapshot", &base, &some_of_checkpoint(&base));
        let refs = case.wanted(&base, oracle);
        judge(&base, &case.with(&name, files, refs), oracle);
    }
}

/// The first segment of the checkpoint, and its series records.
fn first_segment(base: &Base) -> (String, Vec<Place>) {
    let first = format!("{CHECKPOINT}/00000000");
    let records = series_records(base, CHECKPOINT).into_iter().filter(|(path, _)| *path == first).collect();
    (first, records)
}

/// All bytes of the checkpoint are overwritten.
fn destroyed(what: &str, base: &Base) -> Case {
    let lost: BTreeSet<Place> = base
        .segments_of(CHECKPOINT)
        .into_iter()
        .flat_map(|path| (0..base.segments[path].records.len()).map(|at| (path.clone(), at)))
        .collect();
    let mut case = Case::new(what, base, &lost);
    for (path, bytes) in case.tree.iter_mut().filter(|(path, _)| path.starts_with(CHECKPOINT)) {
        let _ = path;
        bytes.as_mut().unwrap().fill(0xA5);
    }
    case
}

#[test(long)]
fn nothing_is_left_of_the_checkpoint() {
    let oracle = oracle::judge("labels without a checkpoint");
    for base in bases(oracle) {
        let none = destroyed("nothing left, nothing elsewhere", &base);
        let refs = none.wanted(&base, oracle);
        assert!(!refs.is_empty());
        let plan = judge(&base, &none, oracle);
        assert_eq!(plan.labels.refused, []);

        let below = files_of(&base, CHECKPOINT, "wal");
        let case = destroyed("nothing left, segments below", &base);
        judge(&base, &case.with("wal/00000000 to wal/00000002", below, refs.clone()), oracle);

        let (name, files) = snapshot(&base, oracle);
        judge(&base, &destroyed("nothing left, a snapshot", &base).with(&name, files, refs), oracle);

        // It has no series and no sample that the segments behind the checkpoint have.
        let mut older = destroyed("nothing left, an older checkpoint", &base);
        let files = files_of(&base, CHECKPOINT, "wal/checkpoint.00000001");
        older.tree.extend(files.into_iter().map(|(path, bytes)| (path, Some(bytes))));
        let plan = judge(&base, &older, oracle);
        assert_eq!(plan.labels.refused.len(), 1);
        assert!(
            plan.labels.refused[0]
                .refusal
                .to_string()
                .contains("nothing shows that it is of the same generation"),
            "{:?}",
            plan.labels
        );
    }
}

/// Somebody has removed the checkpoint.
#[test(long)]
fn there_is_no_checkpoint() {
    let oracle = oracle::judge("labels for a checkpoint that is gone");
    let base = &bases(oracle)[0];
    let (_, files) = snapshot(base, oracle);
    for high in [false, true] {
        let mut case = destroyed("no checkpoint", base);
        let wanted = case.wanted(base, oracle);
        case.tree.retain(|path, _| !path.starts_with(CHECKPOINT));
        case.tree.extend(files.iter().map(|(path, bytes)| (path.clone(), Some(bytes.clone()))));
        if high {
            let renamed: Tree = case
                .tree
                .into_iter()
                .map(|(path, bytes)| match path.strip_prefix("wal/0000") {
                    Some(number) => (format!("wal/0004{number}"), bytes),
                    None => (path, bytes),
                })
                .collect();
            case.tree = renamed;
        }
        let scratch = support::scratch();
        let data = scratch.path().join("data");
        write_tree(&case.tree, &data);
        let before = tree::tree(&data);
        let (_, plan) = planned(&data);
        assert_eq!(plan.left, []);
        let written = written_back(&plan);
        assert_eq!(written.keys().copied().collect::<BTreeSet<_>>(), wanted);
        for (series_ref, series) in &written {
            assert_eq!(base.names.known(&text(series)), base.names.by_ref(*series_ref), "{series:?}");
        }
        let lock = Lock::take(&data).unwrap();
        let backup = scratch.path().join("backup");
        repair::apply(&Target::find(&data).unwrap(), &plan, &backup, &lock).unwrap();
        drop(lock);
        let copy = scratch.path().join("copy");
        tree::copy(&data, &copy);
        let opened = oracle.json(&["open", "--checkpoint", "--again"], &copy);
        let mut standing = remaining(base, &case.lost);
        standing.entry("wal/00000003".to_owned()).or_default().series.extend(&wanted);
        // What head chunks hold of the samples that stood in the checkpoint is served as well.
        let could = Standing::known(standing.values());
        let deletes = Standing::deletes(standing.values());
        for report in [&opened, &opened["again"]] {
            for error in ["open_error", "close_error", "query_error", "checkpoint_error", "crash"] {
                assert!(report[error].is_null(), "{error}: {}", report[error]);
            }
            let served = support::bases::served(report, &base.names);
            let missing = could
                .iter()
                .filter(|sample| {
                    !deletes(sample) && base.served.contains(*sample) && !served.contains(*sample)
                })
                .count();
            assert_eq!(missing, 0, "not served");
            assert!(
                served.iter().all(|sample| base.served.contains(sample) || base.deleted.contains(sample))
            );
        }
        repair::undo(&backup).unwrap();
        assert_eq!(tree::difference(&before, &tree::tree(&data)), None);
    }
}

/// A directory with a backup of a repair that has written the first segment of the checkpoint anew, which was `damaged`:
/// an older checkpoint had the labels, with `older` for that segment.
fn with_backup(base: &Base, damaged: &[u8], older: &[u8]) -> TempDir {
    let first = format!("{CHECKPOINT}/00000000");
    let scratch = support::scratch();
    let data = scratch.path().join("data");
    let mut tree = base.tree.clone();
    tree.insert(first.clone(), Some(damaged.to_vec()));
    tree.insert("wal/checkpoint.00000001/00000000".to_owned(), Some(older.to_vec()));
    write_tree(&tree, &data);
    let (_, plan) = planned(&data);
    let lock = Lock::take(&data).unwrap();
    repair::apply(&Target::find(&data).unwrap(), &plan, &data.join(BACKUP), &lock).unwrap();
    assert_eq!(fs::read(data.join(BACKUP).join("old").join(&first)).unwrap(), damaged, "the segment is kept");
    scratch
}

#[test]
fn a_backup_of_an_earlier_repair_has_them() {
    let oracle = oracle::judge("labels from a backup");
    let base = &bases(oracle)[0];
    let (first, of_first) = first_segment(base);
    assert!(of_first.len() > 3);
    // Once one record was damaged, and an older checkpoint had its labels: the segment was written anew.
    let earlier = BTreeSet::from([of_first[1].clone()]);
    let damaged = Case::new("then", base, &earlier).tree[&first].clone().unwrap();
    let made = with_backup(base, &damaged, &base.segments[&first].bytes);
    // Now others are lost; the one that was damaged then is whole.
    let lost = BTreeSet::from([of_first[0].clone(), of_first[2].clone()]);
    let mut case = Case::new("a backup", base, &lost);
    case.expected = case.wanted(base, oracle);
    judge(base, &case.with_backup_of(&made), oracle);
}

/// The same refs mean other series there.
#[test(long)]
fn what_is_of_another_time_is_not_believed() {
    let oracle = oracle::judge("labels of another time");
    let base = &bases(oracle)[1];
    let lost = some_of_checkpoint(base);
    let wanted = Case::new("", base, &lost).wanted(base, oracle);
    let all = series_records(base, CHECKPOINT);
    let highest = all.iter().flat_map(|(path, at)| series_of(base, path, *at)).max().unwrap();
    // From the first series on, and from one on that is among the last that are left.
    for first in [0, highest - 600] {
        let other = |log: &str| -> Vec<(String, Vec<u8>)> {
            files_of(base, CHECKPOINT, log)
                .into_iter()
                .map(|(path, bytes)| (path, of_another_time(&bytes, first, 1)))
                .collect()
        };
        for to in ["wal/checkpoint.00000001", "wal"] {
            let mut case = Case::new("a decoy", base, &lost);
            case.tree.extend(other(to).into_iter().map(|(path, bytes)| (path, Some(bytes))));
            if to == "wal" {
                // That is a directory on which Prometheus has run since.
                let scratch = support::scratch();
                write_tree(&case.tree, scratch.path());
                let (_, plan) = planned(scratch.path());
                assert_eq!(written_back(&plan), BTreeMap::new());
                continue;
            }
            let plan = judge(base, &case, oracle);
            assert_eq!(plan.labels.refused.len(), 1);
            assert!(
                plan.labels.refused[0].refusal.to_string().contains("another series"),
                "{:?}",
                plan.labels
            );
        }
        // A decoy beside what is right does no harm.
        let case = Case::new("a decoy and the right one", base, &lost);
        let mut case = case.with(
            "wal/checkpoint.00000000",
            files_of(base, CHECKPOINT, "wal/checkpoint.00000000"),
            wanted.clone(),
        );
        case.tree
            .extend(other("wal/checkpoint.00000001").into_iter().map(|(path, bytes)| (path, Some(bytes))));
        judge(base, &case, oracle);
    }
}

/// Nothing is left that could contradict labels, or prove them, but samples.
#[test(long)]
fn samples_prove_labels() {
    let oracle = oracle::judge("labels proved by samples");
    let base = &bases(oracle)[1];
    for later in [None, Some(0), Some(1)] {
        // The series of the checkpoint, and the samples of the segment behind it.
        let mut writer = SegmentWriter::new(Vec::new());
        let paths = base.segments_of(CHECKPOINT).into_iter().map(|path| (path.clone(), 1));
        for (path, kind) in paths.chain([("wal/00000003".to_owned(), 2)]) {
            let bytes = &base.segments[&path].bytes;
            let bytes = later.map_or(bytes.clone(), |later| of_another_time(bytes, 0, later));
            for written in
                pristine::records(&bytes).iter().filter(|written| written.data.first() == Some(&kind))
            {
                writer.record(Compression::None, &written.data).unwrap();
            }
        }
        let original = vec![("wal/00000003.repair".to_owned(), writer.finish().unwrap())];
        let case = destroyed("samples prove it", base);
        let wanted = case.wanted(base, oracle);
        let refs = if later.is_none() { wanted } else { BTreeSet::new() };
        let plan = judge(base, &case.with("wal/00000003.repair", original, refs), oracle);
        let refused: Vec<String> =
            plan.labels.refused.iter().map(|refused| refused.refusal.to_string()).collect();
        match later {
            None => assert_eq!(refused, [""; 0]),
            Some(0) => assert!(refused[0].contains("its samples differ"), "{refused:?}"),
            Some(_) => {
                assert!(
                    refused[0].contains("nothing shows that it is of the same generation"),
                    "{refused:?}"
                );
            }
        }
    }
}

/// Before Prometheus began anew the first series were the same.
#[test]
fn a_backup_of_another_time_is_believed_as_far_as_it_is_shared() {
    let oracle = oracle::judge("labels of an older backup");
    let base = &bases(oracle)[0];
    let (first, of_first) = first_segment(base);
    let highest = of_first.last().unwrap();
    let from = *series_of(base, &highest.0, highest.1).iter().min().unwrap();
    // The backup's segment has the series of the last record with other labels.
    let then = of_another_time(&base.segments[&first].bytes, from, 1);
    let mut damaged = then.clone();
    for fragment in &pristine::records(&then)[of_first[1].1].fragments {
        damaged[fragment.start + 7..fragment.end].fill(0xA5);
    }
    let made = with_backup(base, &damaged, &then);
    // Of what is lost now, the first series are those of the backup, and nothing shows that the last are not.
    let mut lost = BTreeSet::from([of_first[0].clone(), highest.clone()]);
    let higher = series_records(base, CHECKPOINT).into_iter().filter(|(path, _)| *path != first);
    lost.extend(higher);
    let mut case = Case::new("a backup of another time", base, &lost);
    let shared = series_of(base, &of_first[0].0, of_first[0].1);
    case.expected =
        case.wanted(base, oracle).into_iter().filter(|series_ref| shared.contains(series_ref)).collect();
    judge(base, &case.with_backup_of(&made), oracle);
}

/// A snapshot is left where that has been switched off, an older checkpoint where Prometheus died before it removed that. Of
/// the series in them the first are those that Prometheus had read when it began anew; then it has given refs to others.
#[test]
fn nothing_is_believed_beyond_what_is_shared() {
    let before = [named(&[(1, "a")]), named(&[(2, "b")]), named(&[(3, "old")])];
    let log = segment(&before);
    // No chunk.
    let snapshot = segment(&before.map(|record| [&record[..], &[0; 9]].concat()));
    for (path, there) in [("wal/checkpoint.00000001", log), ("chunk_snapshot.000001.0000000000", snapshot)] {
        let mut wal = segment(&[named(&[(3, "new")]), sampled(&[1, 2, 3], 20)]);
        lose(&mut wal, &[0]);
        let checkpoint = segment(&[named(&[(1, "a")]), named(&[(2, "b")]), sampled(&[1, 2], 10)]);
        let scratch = directory(&[
            ("wal/checkpoint.00000003/00000000", checkpoint),
            ("wal/00000004", wal),
            (&format!("{path}/00000000"), there),
        ]);
        let (_, plan) = planned(&scratch.path().join("data"));
        assert_eq!(refs_written(&plan), [0; 0], "{path}");
        assert_eq!(plan.orphans.map(|orphans| orphans.series), Some(1), "{path}");
        let refused = &plan.labels.refused[0];
        assert_eq!((refused.path.as_str(), refused.series), (path, 1));
        assert!(refused.refusal.to_string().contains("above 2"), "{}", refused.refusal);
    }
}

/// 2026-01-01T00:00:00Z, ms.
const START: i64 = 1_767_225_600_000;

fn named(series: &[(u64, &str)]) -> Vec<u8> {
    let mut record = Vec::new();
    let labels = series.iter().map(|(series_ref, name)| (*series_ref, [(&b"__name__"[..], name.as_bytes())]));
    encode_series(labels, &mut record);
    record
}

fn sampled(refs: &[u64], second: i64) -> Vec<u8> {
    let t = START + second * 1000;
    let entries: Vec<_> = refs
        .iter()
        .map(|&series_ref| SampleEntry { series_ref, t, st: 0, value_bits: 1.5f64.to_bits() })
        .collect();
    let mut record = Vec::new();
    encode_samples(&entries, &mut record);
    record
}

/// Overwrites the records with these numbers.
fn lose(bytes: &mut [u8], numbers: &[usize]) {
    let records = pristine::records(bytes);
    for fragment in numbers.iter().flat_map(|&number| &records[number].fragments) {
        bytes[fragment.start + 7..fragment.end].fill(0xA5);
    }
}

fn directory(files: &[(&str, Vec<u8>)]) -> TempDir {
    let scratch = support::scratch();
    let tree: Tree = files.iter().map(|(path, bytes)| ((*path).to_owned(), Some(bytes.clone()))).collect();
    write_tree(&tree, &scratch.path().join("data"));
    scratch
}

fn refs_written(plan: &Plan) -> Vec<u64> {
    written_back(plan).into_keys().collect()
}

/// A series that was given up and came back has two refs. Both may be written only where that takes nothing from either.
#[test]
fn series_that_came_back() {
    let oracle = oracle::judge("series that came back");
    // `back` has ref 2 first, then 7.
    let older = segment(&[
        named(&[(1, "stays"), (2, "back")]),
        named(&[(7, "back")]),
        named(&[(8, "later")]),
        sampled(&[1, 2], 0),
    ]);
    let files = |lost: &[usize]| {
        let mut checkpoint = segment(&[
            named(&[(1, "stays")]),
            named(&[(2, "back")]),
            sampled(&[1, 2], 10),
            sampled(&[1, 2], 20),
            named(&[(7, "back")]),
            sampled(&[1, 7], 100),
        ]);
        lose(&mut checkpoint, lost);
        vec![
            ("wal/checkpoint.00000001/00000000", older.clone()),
            ("wal/checkpoint.00000003/00000000", checkpoint),
            (
                "wal/00000004",
                segment(&[named(&[(8, "later")]), sampled(&[1, 7], 110), sampled(&[1, 7], 120)]),
            ),
        ]
    };
    let times_of = |data: &Path| {
        let report = oracle.json(&["open"], data);
        let series = report["series"].as_array().unwrap();
        let back = series.iter().find(|series| series["labels"][0][1] == "back");
        let samples = back.map(|series| series["samples"].as_array().unwrap().clone()).unwrap_or_default();
        samples.iter().map(|sample| (sample[0].as_i64().unwrap() - START) / 1000).collect::<Vec<_>>()
    };
    let mend = |data: &Path| {
        let (_, plan) = planned(data);
        let lock = Lock::take(data).unwrap();
        repair::apply(&Target::find(data).unwrap(), &plan, &data.with_extension("backup"), &lock).unwrap();
        plan
    };

    // The lower one is lost: at the record of the higher one all would be wiped that it has.
    let scratch = directory(&files(&[1]));
    let data = scratch.path().join("data");
    let plan = mend(&data);
    assert_eq!(refs_written(&plan), [0; 0]);
    assert!(
        plan.labels.refused[0].refusal.to_string().contains("another ref has the same labels"),
        "{:?}",
        plan.labels
    );
    assert_eq!(plan.orphans.map(told), Some((1, 2, 0, Some(START + 10_000), Some(START + 20_000))));
    assert_eq!(times_of(&data), [100, 110, 120]);

    // The higher one is lost, and samples of the lower one are served now.
    let scratch = directory(&files(&[4]));
    let data = scratch.path().join("data");
    let plan = mend(&data);
    assert_eq!(refs_written(&plan), [0; 0]);
    assert_eq!(times_of(&data), [10, 20]);

    // A block has these, as it must be where a series was given up.
    let scratch = directory(&files(&[4]));
    let data = scratch.path().join("data");
    let block = data.join("01JGG9KX9V3Z0F7W5Q4Y8R2T6M");
    fs::create_dir(&block).unwrap();
    let meta = serde_json::json!({
        "version": 1, "ulid": "01JGG9KX9V3Z0F7W5Q4Y8R2T6M", "minTime": START, "maxTime": START + 50_000,
        "stats": {}, "compaction": { "level": 1 }
    });
    fs::write(block.join("meta.json"), meta.to_string()).unwrap();
    let (_, plan) = planned(&data);
    assert_eq!(refs_written(&plan), [7]);
    assert_eq!(plan.orphans, None);

    // Both are lost: with both, what the lower one has would be wiped, or served; nobody knows.
    let scratch = directory(&files(&[1, 4]));
    let data = scratch.path().join("data");
    let plan = mend(&data);
    assert_eq!(refs_written(&plan), [7]);
    assert_eq!(times_of(&data), [100, 110, 120]);
}

/// The first record of a checkpoint may say from which time on it has samples: Prometheus looks for it there alone.
#[test]
fn the_first_record_stays_the_first() {
    let mut since = Vec::new();
    walfix::record::encode_min_valid_time(START, &mut since);
    let log = [since.clone(), named(&[(1, "a")]), named(&[(2, "b")]), sampled(&[1, 2], 10)];
    let whole = segment(&log);
    let mut damaged = whole.clone();
    lose(&mut damaged, &[2]);
    let scratch = directory(&[
        ("wal/checkpoint.00000001/00000000", whole),
        ("wal/checkpoint.00000003/00000000", damaged),
        ("wal/00000004", segment(&[sampled(&[1, 2], 20)])),
    ]);
    let data = scratch.path().join("data");
    let (_, plan) = planned(&data);
    assert_eq!(refs_written(&plan), [2]);
    let lock = Lock::take(&data).unwrap();
    repair::apply(&Target::find(&data).unwrap(), &plan, &scratch.path().join("backup"), &lock).unwrap();
    let bytes = fs::read(data.join("wal/checkpoint.00000003/00000000")).unwrap();
    let records: Vec<Vec<u8>> = pristine::records(&bytes).into_iter().map(|written| written.data).collect();
    assert_eq!(records, [since, named(&[(2, "b")]), log[1].clone(), log[3].clone()]);
}

/// What a record that does not decode to its end still has stays where the segment is written anew.
#[test]
fn records_in_part_stay_in_part() {
    let mut undecodable = named(&[(3, "c"), (4, "d"), (5, "e")]);
    undecodable.truncate(undecodable.len() - 3);
    let mut log = vec![named(&[(1, "a")]), named(&[(2, "b")]), undecodable];
    // More than a page: next to other damage nothing is kept in part.
    log.extend((0..600).map(|second| sampled(&[1, 2, 3, 4, 5], second)));
    log.extend([named(&[(6, "f")]), sampled(&[6], 600)]);
    let mut damaged = segment(&log);
    assert!(damaged.len() > 32_768);
    lose(&mut damaged, &[log.len() - 2]);
    let older = segment(&[named(&[(1, "a"), (6, "f"), (5, "e"), (7, "g")])]);
    let scratch = directory(&[
        ("wal/checkpoint.00000001/00000000", older),
        ("wal/checkpoint.00000003/00000000", damaged),
        ("wal/00000004", segment(&[named(&[(7, "g")]), sampled(&[1, 2, 3, 4, 5, 6], 700)])),
    ]);
    let data = scratch.path().join("data");
    let (_, plan) = planned(&data);
    assert_eq!(refs_written(&plan), [5, 6]);
    assert_eq!(plan.orphans, None);
    let lock = Lock::take(&data).unwrap();
    repair::apply(&Target::find(&data).unwrap(), &plan, &scratch.path().join("backup"), &lock).unwrap();
    let bytes = fs::read(data.join("wal/checkpoint.00000003/00000000")).unwrap();
    let records: Vec<Vec<u8>> = pristine::records(&bytes).into_iter().map(|written| written.data).collect();
    let back = named(&[(5, "e"), (6, "f")]);
    assert_eq!(records[..4], [back, log[0].clone(), log[1].clone(), named(&[(3, "c"), (4, "d")])]);
    assert_eq!(records.len(), 1 + log.len() - 1);
}

/// Prometheus goes on in the midst of the segment, at an offset: nothing in it may move.
#[test]
fn a_snapshot_that_goes_on_within_the_first_segment() {
    let mut wal = segment(&[named(&[(1, "a")]), named(&[(2, "b")]), sampled(&[1, 2], 10)]);
    lose(&mut wal, &[1]);
    wal.extend(segment(&[sampled(&[1, 2], 20)]));
    let mut series = Vec::new();
    for record in [named(&[(1, "a")]), named(&[(2, "b")]), named(&[(3, "c")])] {
        // No chunk.
        series.push([&record[..], &[0; 9]].concat());
    }
    for (name, refs) in
        [("chunk_snapshot.000000.0000032768", &[][..]), ("chunk_snapshot.000001.0000000000", &[2][..])]
    {
        let path = format!("{name}/00000000");
        let scratch = directory(&[
            ("wal/00000000", wal.clone()),
            ("wal/00000001", segment(&[named(&[(3, "c")])])),
            (&path, segment(&series)),
        ]);
        let (_, plan) = planned(&scratch.path().join("data"));
        assert_eq!(refs_written(&plan), refs, "{name}");
        assert_eq!(plan.orphans.is_some(), refs.is_empty(), "{name}");
        assert_eq!(plan.labels.refused.len(), usize::from(refs.is_empty()), "{name}");
    }
}

/// Where no series is lost nothing is looked for.
#[test]
fn nothing_to_be_found() {
    let oracle = oracle::judge("labels where none are lost");
    let base = &bases(oracle)[1];
    let records = &base.segments["wal/00000004"].records;
    let at = records.iter().position(|record| record.kind == "samples").unwrap();
    let lost = BTreeSet::from([("wal/00000004".to_owned(), at)]);
    let mut case = Case::new("samples lost", base, &lost);
    let files = files_of(base, CHECKPOINT, "wal/checkpoint.00000001");
    case.tree.extend(files.into_iter().map(|(path, bytes)| (path, Some(bytes))));
    let plan = judge(base, &case, oracle);
    assert_eq!(plan.labels, walfix::repair::plan::FoundLabels::default());
    assert!(plan.steps.iter().all(|step| matches!(step.change, Change::Patch { .. })), "{:?}", plan.steps);
}
