//! Directories to repair, one for each way of repairing; and what a Prometheus would keep of them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use walfix::block::BlockChunk;
use walfix::block::write::{
    BlockStats, ChunkFileWriter, EachSeries, EachSymbol, IndexVersion, IndexWriter, MetaJson,
    chunk_reference, tombstones,
};
use walfix::record::{SampleEntry, encode_samples, encode_series};
use walfix::repair::fill::fill;
use walfix::wal::writer::SegmentWriter;
use walfix::wal::{Compression, Event, SegmentReader};

use super::heads::Chunk;
use super::oracle::Oracle;
use super::tree;

/// A way of repairing.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// Makes the data directory, and what belongs to it, in an empty directory.
    pub make: fn(&Path),
    /// Whether the backup is on another file system, and not in the data directory.
    pub is_elsewhere: bool,
    /// What the plan has to have, so that the case is what it is said to be.
    pub plan_has: &'static [&'static str],
}

pub const CASES: &[Case] = &[
    Case {
        name: "a flipped bit",
        make: |at| fixture("payload_bit_flip", at),
        is_elsewhere: false,
        plan_has: &[r#""in_place""#, r#""bytes": ""#],
    },
    Case {
        name: "an overwritten range",
        make: |at| fixture("overwritten_range", at),
        is_elsewhere: false,
        plan_has: &[r#""in_place""#, r#""fill":"#],
    },
    Case {
        name: "a zeroed page inside a record",
        make: |at| fixture("zeroed_page_inside_record", at),
        is_elsewhere: false,
        plan_has: &[r#""replace""#],
    },
    Case {
        name: "a torn tail",
        make: |at| fixture("torn_payload", at),
        is_elsewhere: false,
        plan_has: &[r#""end""#],
    },
    Case {
        name: "a damaged WBL",
        make: |at| fixture("wbl_damaged", at),
        is_elsewhere: false,
        plan_has: &["wbl/00000000"],
    },
    Case {
        name: "several segments",
        make: several,
        is_elsewhere: false,
        plan_has: &["wbl/", "wal/00000000", "wal/00000001", "wal/00000002"],
    },
    Case {
        name: "a segment with another name",
        make: linked,
        is_elsewhere: false,
        plan_has: &[r#""replace""#, r#""fill":"#],
    },
    Case {
        name: "a backup on another file system",
        make: |at| fixture("zeroed_page_inside_record", at),
        is_elsewhere: true,
        plan_has: &[r#""replace""#],
    },
    Case { name: "a hole of nine bytes", make: nine, is_elsewhere: false, plan_has: &[r#""rewrite""#] },
    Case {
        name: "a checkpoint, and a fence",
        make: |at| {
            fixture("checkpoint_series_damaged", at);
            // More than the one bit that can be put right.
            overwrite(&at.join("data/wal/checkpoint.00000002/00000000"), 3_500, &[0x5A; 8]);
        },
        is_elsewhere: false,
        plan_has: &[r#""create""#, "checkpoint."],
    },
    Case {
        name: "labels from an older checkpoint",
        make: |at| {
            fixture("checkpoint_series_damaged", at);
            let wal = at.join("data/wal");
            tree::copy(&wal.join("checkpoint.00000002"), &wal.join("checkpoint.00000001"));
            overwrite(&wal.join("checkpoint.00000002/00000000"), 3_500, &[0x5A; 8]);
        },
        is_elsewhere: false,
        plan_has: &[r#""begins_with""#],
    },
    Case {
        name: "a gap between segments",
        make: |at| fixture("gap_in_segments", at),
        is_elsewhere: false,
        plan_has: &[r#""create""#],
    },
    Case {
        name: "a file in the place of a checkpoint",
        make: |at| fixture("checkpoint_is_a_file", at),
        is_elsewhere: false,
        plan_has: &[r#""set_aside""#],
    },
    Case {
        name: "a WAL begun anew beside a damaged checkpoint",
        make: begun_anew,
        is_elsewhere: false,
        plan_has: &[r#""refs_up_to""#, r#""rename""#, "chunks_head/", "wbl/", "checkpoint.00000003"],
    },
    Case {
        name: "a damaged checkpoint behind which all has been deleted",
        make: started_once,
        is_elsewhere: false,
        plan_has: &[r#""create""#, "checkpoint."],
    },
    Case {
        name: "a chunk snapshot, set aside to another file system",
        make: |at| fixture("chunk_snapshot_damaged", at),
        is_elsewhere: true,
        plan_has: &[r#""set_aside""#],
    },
    Case {
        name: "blocks",
        make: blocks,
        is_elsewhere: false,
        plan_has: &[
            r#""rewrite_index""#,
            "corrupted-",
            "/meta.json",
            "/tombstones",
            "/chunks/000001",
            "wal/",
        ],
    },
];

/// Those that are wanted: all, or those with `WALFIX_CASES` in their names.
pub fn cases() -> Vec<&'static Case> {
    let wanted = std::env::var("WALFIX_CASES").unwrap_or_default();
    CASES.iter().filter(|case| case.name.contains(&wanted)).collect()
}

/// A data directory in a directory of its own.
#[derive(Debug)]
pub struct Place {
    root: TempDir,
    elsewhere: Option<TempDir>,
}

/// A directory in memory, where there is one: a repair makes all safe that it writes, and a disk takes its time.
pub fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Case {
    pub fn place(&self) -> Place {
        let root = temporary();
        (self.make)(root.path());
        let elsewhere = self.is_elsewhere.then(|| tempfile::tempdir().unwrap());
        Place { root, elsewhere }
    }
}

impl Place {
    /// Of a fixture.
    pub fn of(fixture_name: &str) -> Self {
        let root = temporary();
        fixture(fixture_name, root.path());
        Self { root, elsewhere: None }
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A file beside the data directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Where the backup is to be: in the data directory, if not elsewhere.
    pub fn backup(&self) -> PathBuf {
        let directory = self.elsewhere.as_ref().map_or_else(|| self.data(), |other| other.path().to_owned());
        directory.join("walfix-backup-t")
    }

    /// As it is now, with all times.
    pub fn again(&self) -> Self {
        let root = temporary();
        tree::copy(&self.data(), &root.path().join("data"));
        let segment = "wal/00000001";
        if self.beside("other-name").exists() {
            fs::hard_link(root.path().join("data").join(segment), root.path().join("other-name")).unwrap();
        }
        let elsewhere = self.elsewhere.as_ref().map(|_| tempfile::tempdir().unwrap());
        if let (Some(from), Some(to)) = (&self.elsewhere, &elsewhere) {
            for entry in fs::read_dir(from.path()).unwrap() {
                let name = entry.unwrap().file_name();
                tree::copy(&from.path().join(&name), &to.path().join(&name));
            }
        }
        Self { root, elsewhere }
    }

    /// `walfix repair --backup=...`, for a run under strace.
    pub fn repair_arguments(&self) -> [std::ffi::OsString; 7] {
        let mut backup = std::ffi::OsString::from("--backup=");
        backup.push(self.backup());
        [
            super::walfix().into(),
            "repair".into(),
            "--threads=1".into(),
            "--quiet".into(),
            "--accept-orphans".into(),
            backup,
            self.data().into(),
        ]
    }
}

/// Runs walfix.
pub fn walfix<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    Command::new(super::walfix()).args(arguments).output().unwrap()
}

/// Runs walfix, which must exit so; what it said.
pub fn walfix_exits<S: AsRef<OsStr> + std::fmt::Debug>(
    codes: &[i32],
    arguments: &[S],
    about: &str,
) -> String {
    let output = walfix(arguments);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code();
    assert!(code.is_some_and(|code| codes.contains(&code)), "{about}: {arguments:?} exits {code:?}: {said}");
    said
}

/// The backups in a data directory, newest first.
pub fn backups(data: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(bool, PathBuf)> = Vec::new();
    for entry in fs::read_dir(data).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("walfix-backup-") && !name.ends_with(".unfinished") {
            found.push((name != "walfix-backup-t", data.join(name)));
        }
    }
    found.sort();
    found.reverse();
    found.into_iter().map(|(_, path)| path).collect()
}

pub fn fixture(name: &str, at: &Path) {
    let from = super::project().join("testdata/damaged").join(name);
    tree::copy(&from, &at.join("data"));
}

pub fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Blocks that are damaged each in its own way, beside a damaged log.
fn blocks(at: &Path) {
    fixture("payload_bit_flip", at);
    let data = at.join("data");
    let path = |number: u64, name: &str| data.join(format!("01JXT53C00NY6NZBPNDJEQ33X{number}/{name}"));
    for number in 0..3 {
        block(&path(number, ""), 1_749_960_000_000 + i64::try_from(number).unwrap() * 7_200_000);
    }
    overwrite(&path(0, "chunks/000001"), 20, &[0xff]);
    fs::write(path(0, "tombstones"), [0x01, 0x30, 0xBA, 0x30, 1, 0, 0, 0]).unwrap();
    overwrite(&path(1, "chunks/000001"), 0, &[0]);
    fs::remove_file(path(1, "meta.json")).unwrap();
    fs::write(path(2, "index"), "").unwrap();
}

/// A block of three series, each with a chunk.
fn block(path: &Path, from: i64) {
    fs::create_dir_all(path.join("chunks")).unwrap();
    let symbols = ["", "__name__", "a", "b", "c"];
    let each = |each: &mut EachSymbol<'_>| symbols.iter().try_for_each(|symbol| each(symbol.as_bytes()));
    let mut index = IndexWriter::new(Vec::new(), IndexVersion::V2, each).unwrap();
    let mut chunks = ChunkFileWriter::new(Vec::new()).unwrap();
    for value in 2..5 {
        let chunk =
            Chunk { series_ref: 0, from, step: 15_000, samples: 100, value: 1.5, out_of_order: false };
        let reference = chunk_reference(0, chunks.chunk(1, &chunk.data()).unwrap());
        let (min_time, max_time) = (from, chunk.to());
        index.series(&[(1, value)], &[BlockChunk { reference, min_time, max_time }]).unwrap();
    }
    let walk = |each: &mut EachSeries<'_>| (2..5).try_for_each(|value| each(&[(1, value)]));
    let text = |number: u32, out: &mut Vec<u8>| {
        out.extend_from_slice(symbols[number as usize].as_bytes());
        Ok(())
    };
    fs::write(path.join("index"), index.finish(walk, text).unwrap()).unwrap();
    fs::write(path.join("chunks/000001"), chunks.finish().unwrap()).unwrap();
    fs::write(path.join("tombstones"), tombstones([])).unwrap();
    let ulid = path.file_name().unwrap().to_str().unwrap();
    let stats =
        BlockStats { samples: 300, float_samples: 300, series: 3, chunks: 3, ..BlockStats::default() };
    let meta = MetaJson::new(ulid, from, from + 99 * 15_000, &stats);
    fs::write(path.join("meta.json"), meta.to_bytes()).unwrap();
}

fn several(at: &Path) {
    fixture("overwritten_range", at);
    let data = at.join("data");
    let wbl = super::project().join("testdata/damaged/wbl_damaged/wbl");
    tree::copy(&wbl, &data.join("wbl"));
    overwrite(&data.join("wal/00000000"), 20_000, &[0xA5; 300]);
    // Two holes in one segment.
    overwrite(&data.join("wal/00000001"), 40_000, &[0x5A; 700]);
    let last = OpenOptions::new().write(true).open(data.join("wal/00000002")).unwrap();
    last.set_len(last.metadata().unwrap().len() - 5).unwrap();
}

fn linked(at: &Path) {
    fixture("overwritten_range", at);
    fs::hard_link(at.join("data/wal/00000001"), at.join("other-name")).unwrap();
}

/// What Prometheus leaves of a directory with a damaged checkpoint when it is started for the first time.
fn started_once(at: &Path) {
    fixture("checkpoint_series_damaged", at);
    let wal = at.join("data/wal");
    // More than the one bit that can be put right, in the record that defines the series 38 to 65.
    overwrite(&wal.join("checkpoint.00000002/00000000"), 3_500, &[0x5A; 8]);
    fs::remove_file(wal.join("00000003")).unwrap();
    fs::remove_file(wal.join("00000004")).unwrap();
}

/// A record of one sample of each of these series.
pub fn samples_record(refs: std::ops::RangeInclusive<u64>, t: i64) -> Vec<u8> {
    let of = |series_ref| SampleEntry { series_ref, t, st: 0, value_bits: 1.5_f64.to_bits() };
    let mut record = Vec::new();
    encode_samples(&refs.map(of).collect::<Vec<_>>(), &mut record);
    record
}

/// A record that defines these series, each by its ref behind `name`.
pub fn series_record(refs: std::ops::RangeInclusive<u64>, name: &str) -> Vec<u8> {
    let mut record = Vec::new();
    let names: Vec<_> = refs.map(|series_ref| (series_ref, format!("{name}_{series_ref}"))).collect();
    let labels = names.iter().map(|(series_ref, name)| (*series_ref, [(&b"__name__"[..], name.as_bytes())]));
    encode_series(labels, &mut record);
    record
}

/// A segment of these records.
pub fn segment(records: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = SegmentWriter::new(Vec::new());
    for record in records {
        writer.record(Compression::None, record).unwrap();
    }
    writer.finish().unwrap()
}

/// Writes a segment of these records.
pub fn write_log(path: &Path, records: &[Vec<u8>]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, segment(records)).unwrap();
}

/// What has become of it some starts later: series that are new by now have the refs from 38 on, as older ones in a head chunk
/// and in the WBL.
fn begun_anew(at: &Path) {
    const T: i64 = 1_749_990_000_000;
    started_once(at);
    let data = at.join("data");
    let write = |path: &str, records: &[Vec<u8>]| write_log(&data.join(path), records);
    fs::write(data.join("wal/00000000"), vec![0; 32_768]).unwrap();
    write("wal/00000001", &[series_record(38..=43, "new"), samples_record(1..=43, T)]);
    write("wal/00000002", &[series_record(44..=44, "new"), samples_record(1..=44, T + 15_000)]);
    fs::write(data.join("wal/00000003"), []).unwrap();
    write("wbl/00000000", &[samples_record(20..=40, T - 7_200_000)]);
    // Of a series that had the ref 39 before.
    let from = T - 10_000_000;
    let chunk = Chunk { series_ref: 39, from, step: 0, samples: 1, value: 42.0, out_of_order: false };
    fs::create_dir(data.join("chunks_head")).unwrap();
    let file = [&[0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0][..], &chunk.bytes()].concat();
    fs::write(data.join("chunks_head/000001"), file).unwrap();
}

/// One record of samples becomes a filling, but for its last nine bytes.
fn nine(at: &Path) {
    fixture("healthy", at);
    let path = at.join("data/wal/00000001");
    let bytes = fs::read(&path).unwrap();
    let mut reader = SegmentReader::new(&*bytes, bytes.len() as u64);
    let mut span = None;
    while let Some(event) = reader.next() {
        if let Event::Record(record) = event
            && span.is_none()
            && (10_000..20_000).contains(&record.offset)
            && record.fragments.len() == 1
        {
            span = Some((record.offset, record.end));
        }
    }
    let (start, end) = span.expect("a record of one fragment");
    let filling = fill(usize::try_from(end - start - 9).unwrap()).expect("it can be filled");
    overwrite(&path, start, &filling);
    overwrite(&path, end - 9, &[0xEE; 9]);
}

/// Asks the newest Prometheus what it keeps of a directory, once for each that is different.
#[derive(Debug)]
pub struct Keeps {
    oracle: Oracle,
    known: Mutex<HashMap<u64, Arc<Kept>>>,
}

/// What is kept by one start, and by the one after it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    first: BTreeSet<String>,
    second: BTreeSet<String>,
    /// It does not start, and leaves every file as it is.
    refuses: bool,
}

impl Kept {
    /// What it lacks of `other`.
    pub fn lacks(&self, other: &Self) -> Option<String> {
        if self.refuses {
            return None;
        }
        for (start, mine, theirs) in
            [("first", &self.first, &other.first), ("second", &self.second, &other.second)]
        {
            let lost: Vec<&String> = theirs.difference(mine).collect();
            if let Some(one) = lost.first() {
                return Some(format!("the {start} start lacks {} samples, e.g. {one}", lost.len()));
            }
        }
        None
    }

    pub fn samples(&self) -> usize {
        self.first.len()
    }
}

impl Keeps {
    pub fn new(oracle: Oracle) -> Self {
        Self { oracle, known: Mutex::default() }
    }

    /// Of a directory, which is not changed.
    pub fn of(&self, data: &Path) -> Arc<Kept> {
        let mut tree = tree::tree(data);
        for (path, entry) in &mut tree {
            // Prometheus looks at none of these.
            if path == "lock" || path.starts_with("walfix-") || path.ends_with(".walfix") {
                entry.bytes = None;
            }
        }
        let key = tree::hash(&tree);
        if let Some(known) = self.known.lock().unwrap().get(&key) {
            return Arc::clone(known);
        }
        let copy = temporary();
        let copied = copy.path().join("data");
        tree::copy(data, &copied);
        let report = self.oracle.json(&["open", "--head", "--again"], &copied);
        let after = tree::tree(&copied);
        let stays = |(path, entry): (&String, &tree::Entry)| {
            after.get(path).is_some_and(|now| now.bytes == entry.bytes) || entry.bytes.is_none()
        };
        let (first, second) = (samples(&report), samples(&report["again"]));
        let refuses = !report["open_error"].is_null() && !report["again"]["open_error"].is_null();
        let kept = Arc::new(Kept { first, second, refuses: refuses && tree.iter().all(stays) });
        self.known.lock().unwrap().insert(key, Arc::clone(&kept));
        kept
    }

    pub fn asked(&self) -> usize {
        self.known.lock().unwrap().len()
    }
}

fn samples(report: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for series in report["series"].as_array().into_iter().flatten() {
        for key in ["samples", "histograms"] {
            for sample in series[key].as_array().into_iter().flatten() {
                all.insert(format!("{} {sample}", series["labels"]));
            }
        }
    }
    all
}
