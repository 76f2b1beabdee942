//! Scans of what nobody would wish to scan: files that change while they are read, sectors that cannot be read, entries that
//! are no files, and more segments than descriptors.

#![allow(clippy::single_range_in_vec_init, reason = "one place that cannot be read is a list of places")]

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::pristine::{self, Pristine, Written};
use support::{note, test};
use tempfile::TempDir;
use walfix::record::RecordType;
use walfix::scan::salvage::{Contents, Problem, ProblemKind, Reading, Visitor, salvage};
use walfix::wal::compress::UnpackError;
use walfix::wal::{Fault, ReadAt, Record};

const PAGE: usize = 32768;
const SECTOR: u64 = 512;

const CLEAN: i32 = 0;
const DAMAGED: i32 = 4;
const FAILED: i32 = 8;

/// How long one scan of a small directory may take before it counts as hanging.
const DEADLINE: Duration = Duration::from_secs(60);

// ---- the library, over sources of the test's own

#[derive(Default)]
struct Found {
    records: Vec<(u64, u64, Vec<u8>)>,
    problems: Vec<Problem>,
}

impl Visitor for Found {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        self.records.push((record.offset, record.end, record.data.to_vec()));
    }

    fn damage(&mut self, damage: Problem) {
        self.problems.push(damage);
    }
}

impl Found {
    fn has(&self, written: &Written) -> bool {
        self.records
            .iter()
            .any(|(offset, end, data)| (*offset, *end) == span(written) && *data == written.data)
    }

    fn unreadable(&self) -> Vec<Range<u64>> {
        let unreadable = |p: &&Problem| matches!(p.kind, ProblemKind::Framing(Fault::Unreadable(_)));
        self.problems.iter().filter(unreadable).map(|p| p.range.clone()).collect()
    }
}

fn span(written: &Written) -> (u64, u64) {
    (written.offset() as u64, written.end() as u64)
}

/// Bytes of which some cannot be read, and which may become fewer.
struct Medium<'a> {
    bytes: &'a [u8],
    bad: &'a [Range<u64>],
    /// A read that runs into a bad range fails as a whole; else it stops before it.
    fails_whole: bool,
    /// Most bytes that one read gives.
    most: usize,
    /// Once a read goes beyond the first, only the second is left.
    cut: Option<(u64, u64)>,
    is_cut: Cell<bool>,
    /// Every so many reads one is interrupted.
    interrupt: u64,
    reads: Cell<u64>,
}

impl<'a> Medium<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            bad: &[],
            fails_whole: false,
            most: usize::MAX,
            cut: None,
            is_cut: Cell::new(false),
            interrupt: 0,
            reads: Cell::new(0),
        }
    }
}

impl ReadAt for Medium<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        if self.interrupt > 0 && self.reads.get().is_multiple_of(self.interrupt) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(self.most);
        let mut end = offset + count as u64;
        if let Some((after, left)) = self.cut {
            self.is_cut.set(self.is_cut.get() || end > after);
            if self.is_cut.get() {
                end = end.min(left).max(offset);
            }
        }
        let touched = |bad: &&Range<u64>| bad.start < end && offset < bad.end;
        if let Some(first) = self.bad.iter().filter(touched).map(|bad| bad.start).min() {
            if first <= offset || self.fails_whole {
                // EIO.
                return Err(io::Error::from_raw_os_error(5));
            }
            end = first;
        }
        ReadAt::read_at(self.bytes, &mut buffer[..usize::try_from(end - offset).unwrap()], offset)
    }
}

/// Every sector that a bad byte lies in, joined where they touch.
fn sectors(bad: &[Range<u64>], length: u64) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::new();
    let mut all: Vec<_> = bad
        .iter()
        .map(|b| b.start / SECTOR * SECTOR..b.end.next_multiple_of(SECTOR).min(length))
        .filter(|b| b.start < b.end)
        .collect();
    all.sort_by_key(|b| b.start);
    for range in all {
        match out.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Whether every byte of `range` lies in one of `ranges`.
fn covered(range: &Range<u64>, ranges: &[Range<u64>]) -> bool {
    let mut at = range.start;
    while at < range.end {
        match ranges.iter().find(|r| r.contains(&at)) {
            Some(r) => at = r.end,
            None => return false,
        }
    }
    true
}

/// What may be missing although it can be read: it holds nothing that could prove it.
fn cannot_be_proven(log: &Pristine, at: usize, touched: impl Fn(&Written) -> bool) -> bool {
    let written = &log.records[at];
    let behind = log.records[..at].iter().rev().find(|before| !before.data.is_empty() || touched(before));
    written.data.is_empty() && behind.is_some_and(touched)
        || RecordType::of(&written.data).is_none() && written.fragments.len() > 1
}

#[test]
fn unreadable_bytes_are_told_to_the_sector_and_nothing_else_is_lost() {
    let logs = pristine::all();
    let mut failures = Vec::new();
    for seed in support::seeds(1500) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log = &logs[rng.usize(..logs.len())];
        let length = log.bytes.len() as u64;
        let bad: Vec<_> = (0..rng.usize(1..=4))
            .map(|_| {
                let align = [1, 1, SECTOR, 4096][rng.usize(..4)];
                let start = rng.u64(..length) / align * align;
                let most = [1, 600, 5000, 40_000, 300_000][rng.usize(..5)];
                start..(start + rng.u64(1..=most).next_multiple_of(align)).min(length)
            })
            .collect();
        let medium = Medium {
            bad: &bad,
            fails_whole: rng.bool(),
            most: [usize::MAX, 4096, 1000][rng.usize(..3)],
            interrupt: [0, 7][rng.usize(..2)],
            ..Medium::of(&log.bytes)
        };
        let found: Found = salvage(&medium, length, Reading::Prometheus);
        if let Err(complaint) = judge_unreadable(log, &bad, &found) {
            failures.push(format!(
                "seed {seed}: {}: {bad:?} whole={} most={}: {complaint}",
                log.path.display(),
                medium.fails_whole,
                medium.most
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(12)].join("\n")
    );
}

fn judge_unreadable(log: &Pristine, bad: &[Range<u64>], found: &Found) -> Result<(), String> {
    let length = log.bytes.len() as u64;
    let told = found.unreadable();
    let sectors = sectors(bad, length);
    if let Some(missed) = bad.iter().find(|bad| !covered(bad, &told)) {
        return Err(format!("{missed:?} cannot be read and is not told of: {told:?}"));
    }
    if let Some(more) = told.iter().find(|told| !covered(told, &sectors)) {
        return Err(format!("{more:?} can be read, but for {sectors:?}"));
    }
    let touched = |w: &Written| {
        w.fragments.iter().any(|f| sectors.iter().any(|s| overlap(s, &(f.start as u64..f.end as u64))))
    };
    for (at, written) in log.records.iter().enumerate() {
        if !touched(written) && !found.has(written) && !cannot_be_proven(log, at, touched) {
            return Err(format!("the record at {:?} can be read and is missed", written.fragments));
        }
    }
    for (offset, end, data) in &found.records {
        let written = log.records.iter().any(|w| span(w) == (*offset, *end) && w.data == *data);
        if !written {
            return Err(format!("a record at {offset}..{end} that nobody wrote"));
        }
    }
    for problem in &found.problems {
        if let Some(mended) = &problem.correction {
            let whole = |w: &Written| (w.offset() as u64, w.end() as u64) == (mended.offset, mended.end);
            if !log.records.iter().any(whole) {
                return Err(format!("a wrong correction: {problem:?}"));
            }
        }
        if !sectors.iter().any(|s| overlap(s, &problem.range))
            && !log.records.iter().any(|w| {
                touched(w)
                    && w.fragments.iter().any(|f| overlap(&(f.start as u64..f.end as u64), &problem.range))
            })
        {
            return Err(format!("a problem where nothing is unreadable: {problem:?}"));
        }
    }
    Ok(())
}

#[test]
fn a_source_that_shrinks_is_told_of_wherever_it_is_cut() {
    let logs = pristine::all();
    for seed in support::seeds(600) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log = &logs[rng.usize(..logs.len())];
        let length = log.bytes.len() as u64;
        // What has been read by then is known; the reader reads ahead, so it may be more than `after`.
        let (after, left) = (rng.u64(..length), rng.u64(..length));
        let medium = Medium {
            cut: Some((after, left)),
            most: [usize::MAX, 4096][rng.usize(..2)],
            ..Medium::of(&log.bytes)
        };
        let found: Found = salvage(&medium, length, Reading::Prometheus);
        let what = format!("seed {seed}: {} cut to {left} behind {after}", log.path.display());
        let shrunk: Vec<_> = found
            .problems
            .iter()
            .filter(|p| matches!(p.kind, ProblemKind::Framing(Fault::Shrunk { .. })))
            .collect();
        let [shrunk] = shrunk[..] else { panic!("{what}: {:?}", found.problems) };
        assert_eq!(shrunk.kind, ProblemKind::Framing(Fault::Shrunk { from: length }), "{what}");
        assert_eq!(shrunk.range.end, length, "{what}");
        assert!(shrunk.range.start >= left.min(after / PAGE as u64 * PAGE as u64), "{what}: {shrunk:?}");
        for written in log.records.iter().filter(|w| w.end() as u64 <= left) {
            // Where a record is torn, nothing shows that fragments of an unknown type belong together.
            if RecordType::of(&written.data).is_none() && written.fragments.len() > 1 {
                continue;
            }
            assert!(found.has(written), "{what}: the record at {:?} is missed", written.fragments);
        }
        for (offset, end, data) in &found.records {
            assert!(log.records.iter().any(|w| span(w) == (*offset, *end) && w.data == *data), "{what}");
        }
    }
}

// ---- the binary

/// A record that goes on from page to page, beyond all measure, and a small one behind it.
struct Endless {
    pages: u64,
}

impl Endless {
    const DATA: u64 = PAGE as u64 - 7;

    fn page(&self, number: u64) -> Vec<u8> {
        let kind = match number {
            0 => 2,
            _ if number == self.pages - 1 => 4,
            _ if number < self.pages => 3,
            _ => 1,
        };
        // No page is a copy of another.
        let mut data = number.to_be_bytes().repeat(PAGE / 8)[..PAGE - 7].to_vec();
        if kind == 1 {
            data = vec![2];
        }
        let mut page = vec![kind];
        page.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        page.extend(crc32c::crc32c(&data).to_be_bytes());
        page.extend(data);
        page.resize(PAGE, 0);
        page
    }

    fn length(&self) -> u64 {
        (self.pages + 1) * PAGE as u64
    }
}

impl ReadAt for Endless {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.length() {
            return Ok(0);
        }
        let page = self.page(offset / PAGE as u64);
        let rest = &page[usize::try_from(offset % PAGE as u64).unwrap()..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

#[test(long)]
fn a_record_beyond_all_measure_is_told_and_what_follows_is_read() {
    // More than 256 MiB.
    let endless = Endless { pages: (256 << 20) / Endless::DATA + 2 };
    let found: Found = salvage(&endless, endless.length(), Reading::Prometheus);
    let small = endless.pages * PAGE as u64;
    assert_eq!(found.records, [(small, small + 8, vec![2])]);
    let told: Vec<_> = found.problems.iter().map(|problem| (&problem.range, &problem.kind)).collect();
    let too_large = ProblemKind::Framing(Fault::Unpack(UnpackError::TooLarge(endless.pages * Endless::DATA)));
    assert_eq!(told, [(&(0..small), &too_large)]);
}

/// Prometheus may read it: it is no damage, and where something else is, nothing is changed.
#[test(long)]
fn a_segment_with_a_record_beyond_all_measure_is_left_as_it_is() {
    let endless = Endless { pages: (256 << 20) / Endless::DATA + 2 };
    let data = support::scratch();
    fs::create_dir(data.path().join("wal")).unwrap();
    let segment = data.path().join("wal/00000000");
    let mut file = File::create(&segment).unwrap();
    for number in 0..=endless.pages {
        io::Write::write_all(&mut file, &endless.page(number)).unwrap();
    }
    // What it holds is not known, so the directory is not clean.
    let scanned = report(&finish(&mut scan(data.path())), DAMAGED);
    assert_eq!(scanned["reasons"], serde_json::json!(["not_read"]));
    let codes: Vec<&str> = scanned["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["record_too_large"], "{scanned:#}");

    // The small record behind it.
    let at = endless.pages * PAGE as u64 + 7;
    std::os::unix::fs::FileExt::write_at(&file, &[0xff], at).unwrap();
    drop(file);
    report(&finish(&mut scan(data.path())), DAMAGED);
    let before = segment.metadata().unwrap().modified().unwrap();
    let mut repair = Command::new(env!("CARGO_BIN_EXE_walfix"));
    let output = finish(repair.args(["repair", "--no-backup"]).arg(data.path()));
    assert_eq!(output.status.code(), Some(DAMAGED), "{output:?}");
    assert_eq!(segment.metadata().unwrap().modified().unwrap(), before);
    assert!(String::from_utf8_lossy(&output.stdout).contains("larger than walfix reads"), "{output:?}");
}

fn scan(path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(["scan", "--format", "json"]).arg(path).stdin(Stdio::null());
    command
}

/// Runs it to its end; one that hangs is killed and fails the test.
#[track_caller]
fn finish(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let pid = child.id();
    let over = AtomicBool::new(false);
    // Its output is read as it comes, or a long report would fill the pipe.
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        let read = |from: &mut dyn io::Read| {
            let mut all = Vec::new();
            from.read_to_end(&mut all).unwrap();
            all
        };
        let stdout = scope.spawn(move || read(&mut out));
        let stderr = scope.spawn(move || read(&mut err));
        let end = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                over.store(true, Ordering::Relaxed);
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(!over.load(Ordering::Relaxed), "process {pid} hangs");
        Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    })
}

/// Its report; it must have ended with `code`.
#[track_caller]
fn report(output: &Output, code: i32) -> Value {
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{}: {said}", output.status);
    let schema = serde_json::from_str(include_str!("../../docs/schema/scan.schema.json")).expect("JSON");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    jsonschema::draft202012::validate(&schema, &report).unwrap_or_else(|e| panic!("{e}: {said}"));
    report
}

/// Code, segment and range of bytes that are damaged. (Logs here are made of one segment, so series stand there again.)
fn damages(report: &Value) -> Vec<(&str, i64, Option<Range<u64>>)> {
    let findings = report["findings"].as_array().expect("an array");
    findings
        .iter()
        .filter(|f| f["severity"] == "damage" && f["code"] != "repeated_series")
        .map(|f| {
            let range = f["offset"].as_u64().zip(f["end"].as_u64()).map(|(start, end)| start..end);
            (f["code"].as_str().unwrap(), f["segment"].as_i64().unwrap_or(-1), range)
        })
        .collect()
}

fn records(report: &Value) -> u64 {
    let segments =
        report["logs"].as_array().expect("an array").iter().filter_map(|l| l["segments"].as_array());
    segments.flatten().map(|segment| segment["records"].as_u64().expect("a number")).sum()
}

/// A data directory with these segments.
fn directory(segments: &[&[u8]]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("wal")).unwrap();
    for (index, segment) in segments.iter().enumerate() {
        fs::write(directory.path().join(format!("wal/{index:08}")), segment).unwrap();
    }
    directory
}

fn log(name: &str) -> Pristine {
    let found = pristine::all().into_iter().find(|log| log.path.to_string_lossy().contains(name));
    found.expect("a log of that name")
}

/// A healthy segment of many pages: whole records begin in each.
fn long() -> Pristine {
    let mut all = pristine::all();
    all.retain(|log| log.path.to_string_lossy().contains("wal-none"));
    all.into_iter().max_by_key(|log| log.bytes.len()).expect("a log")
}

#[test]
fn a_segment_that_changes_while_it_is_read() {
    let log = long();
    let directory = directory(&[&log.bytes]);
    let segment = directory.path().join("wal/00000000");
    let over = AtomicBool::new(false);
    let mut codes = std::collections::BTreeMap::<String, u64>::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&segment).unwrap();
            let mut rng = fastrand::Rng::with_seed(1);
            while !over.load(Ordering::Relaxed) {
                // Cut anywhere, then grown again: with zeros first.
                file.set_len(rng.u64(..log.bytes.len() as u64)).unwrap();
                file.set_len(log.bytes.len() as u64).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &log.bytes, 0).unwrap();
            }
        });
        let scans = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..60 {
                let output = finish(&mut scan(directory.path()));
                let code = output.status.code();
                // Whichever instant it saw; a signal has no code.
                assert!(code == Some(CLEAN) || code == Some(DAMAGED), "{}", output.status);
                let report = report(&output, code.unwrap());
                for finding in report["findings"].as_array().unwrap() {
                    *codes.entry(finding["code"].as_str().unwrap().to_owned()).or_default() += 1;
                }
            }
        }));
        over.store(true, Ordering::Relaxed);
        scans.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    note!("findings in a segment that is cut and grown: {codes:?}");
}

#[test]
fn segments_that_come_and_go() {
    let log = long();
    let directory = directory(&[&log.bytes, &log.bytes]);
    let wal = directory.path().join("wal");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in (2u64..).take_while(|_| !over.load(Ordering::Relaxed)) {
                // As a server does: a new one at the end, the first one gone, a checkpoint in its place.
                fs::write(wal.join(format!("{index:08}")), &log.bytes).unwrap();
                let temporary = wal.join("checkpoint.tmp.tmp");
                fs::create_dir(&temporary).unwrap();
                fs::write(temporary.join("00000000"), &log.bytes).unwrap();
                fs::rename(&temporary, wal.join(format!("checkpoint.{:08}", index - 2))).unwrap();
                fs::remove_file(wal.join(format!("{:08}", index - 2))).unwrap();
                let _ = fs::remove_dir_all(wal.join(format!("checkpoint.{:08}", index.wrapping_sub(3))));
            }
        });
        let scans = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..60 {
                let output = finish(&mut scan(directory.path()));
                let code = output.status.code();
                // Segments are written and removed far faster than any server does: half of one may be seen.
                assert!(code == Some(CLEAN) || code == Some(DAMAGED), "{}", output.status);
                report(&output, code.unwrap());
            }
        }));
        over.store(true, Ordering::Relaxed);
        scans.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn a_segment_that_grows() {
    let log = long();
    let directory = directory(&[&log.bytes[..PAGE]]);
    let segment = directory.path().join("wal/00000000");
    for _ in 0..40 {
        // Never cut in place, as no server does: each round grows a file of its own.
        fs::remove_file(&segment).unwrap();
        fs::write(&segment, &log.bytes[..PAGE]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = File::options().append(true).open(&segment).unwrap();
                // Whole pages, as the server flushes them: what is there is always whole, but for the last record.
                for page in log.bytes.chunks_exact(PAGE).skip(1) {
                    std::io::Write::write_all(&mut file, page).unwrap();
                }
            });
            let report = report(&finish(&mut scan(directory.path())), CLEAN);
            assert!(damages(&report).is_empty(), "{report}");
        });
    }
}

#[test]
fn entries_that_are_no_files() {
    let bytes = log("wal-none").bytes;
    let directory = directory(&[&bytes]);
    let wal = directory.path().join("wal");
    fs::create_dir(wal.join("00000001")).unwrap();
    let pipe = Command::new("mkfifo").arg(wal.join("00000002")).status();
    let pipe = pipe.is_ok_and(|status| status.success());
    let _socket = std::os::unix::net::UnixListener::bind(wal.join("00000003")).unwrap();
    symlink("nothing", wal.join("00000004")).unwrap();
    symlink("00000005", wal.join("00000005")).unwrap();
    symlink("00000000", wal.join("00000006")).unwrap();
    symlink("/dev/zero", wal.join("00000007")).unwrap();
    symlink(".", wal.join("00000008")).unwrap();
    let output = finish(&mut scan(directory.path()));
    let report = report(&output, DAMAGED);
    let not_files: Vec<i64> = damages(&report).iter().filter(|d| d.0 == "not_a_file").map(|d| d.1).collect();
    // No link is followed, wherever it leads.
    let mut expected = vec![1, 2, 3, 4, 5, 6, 7, 8];
    expected.retain(|&index| index != 2 || pipe);
    assert_eq!(not_files, expected, "{report}");
}

#[test]
fn a_checkpoint_that_is_a_link_or_a_pipe() {
    let bytes = log("wal-none").bytes;
    let directory = directory(&[&bytes]);
    let wal = directory.path().join("wal");
    symlink(".", wal.join("checkpoint.00000000")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(wal.join("checkpoint.00000001")).unwrap();
    let found = report(&finish(&mut scan(directory.path())), DAMAGED);
    let codes: Vec<_> = damages(&found).iter().map(|d| d.0).collect();
    assert_eq!(codes, ["checkpoint_not_a_directory"; 2], "{found}");
}

/// As `nobody` where the tests run as root, for whom permissions do not count.
fn without_privileges(path: &Path) -> Command {
    let plain = scan(path);
    let probe = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(probe.path(), fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(probe.path()).is_err() {
        return plain;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    // The binary may lie where nobody may look.
    let works = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_walfix"), "--version"])
        .output()
        .is_ok_and(|out| out.status.success());
    if !works {
        support::skip(
            "files without permission",
            "permissions do not count for root, and setpriv does not work",
        );
    }
    command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
    command
}

#[test]
fn files_without_permission() {
    let bytes = log("wal-none").bytes;
    for what in ["wal/00000001", "wal"] {
        let directory = directory(&[&bytes, &bytes]);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(directory.path().join(what), fs::Permissions::from_mode(0o000)).unwrap();
        let mut command = without_privileges(directory.path());
        let output = finish(&mut command);
        fs::set_permissions(directory.path().join(what), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(output.status.code(), Some(FAILED), "{what}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("walfix: ") && said.contains("Run it as the user of Prometheus"), "{said}");
        assert_eq!(output.stdout, b"", "no half report");
    }
}

#[test(long)]
fn more_segments_than_descriptors() {
    let log = log("small-none");
    let bytes = &log.bytes[..log.records[0].end()];
    let directory = tempfile::tempdir().unwrap();
    let wal = directory.path().join("wal");
    fs::create_dir(&wal).unwrap();
    let first = wal.join("00000000");
    fs::write(&first, bytes).unwrap();
    for index in 1..15_000 {
        fs::hard_link(&first, wal.join(format!("{index:08}"))).unwrap();
    }
    for threads in ["1", "8"] {
        let plain = scan(directory.path());
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(plain.get_program());
        command.args(plain.get_args()).args(["--threads", threads]);
        let report = report(&finish(&mut command), CLEAN);
        assert_eq!(report["logs"][0]["segments"].as_array().unwrap().len(), 15_000);
    }
}

// ---- the binary, on a file system with bad sectors

#[cfg(target_os = "linux")]
mod fuse {
    use support::fuse::{Change, Mounted, Node};
    use support::{note, test};

    use super::{
        CLEAN, DAMAGED, PAGE, Range, SECTOR, Written, damages, finish, long, overlap, records, report, scan,
        sectors,
    };

    /// A few places, and what a scan must say of them; on a file system that fails a read as a whole, and on one that cuts
    /// it short.
    fn unreadable(what: &str, bad: &[Range<u64>]) {
        let log = long();
        let length = log.bytes.len() as u64;
        let touched = |w: &&Written| {
            w.fragments.iter().any(|f| bad.iter().any(|b| overlap(b, &(f.start as u64..f.end as u64))))
        };
        let lost = log.records.iter().filter(touched).count() as u64;
        let all = log.records.len() as u64;
        for fails_whole in [false, true] {
            let node = Node { fails_whole, ..Node::with_bad(&log.bytes, bad) };
            let mounted = Mounted::new(what, vec![Node::of(&log.bytes), node, Node::of(&log.bytes)]);
            let report = report(&finish(&mut scan(mounted.path())), DAMAGED);
            let damages = damages(&report);
            let told: Vec<_> = damages
                .iter()
                .filter(|(code, segment, _)| (*code, *segment) == ("unreadable", 1))
                .filter_map(|(.., range)| range.clone())
                .collect();
            assert!(damages.iter().all(|d| d.1 == 1), "{what}: {report:#}");
            assert_eq!(sectors(&told, length), sectors(bad, length), "{what}: {report:#}");
            assert_eq!(records(&report), 3 * all - lost, "{what}: {report:#}");
            assert_eq!(damages.len(), told.len(), "{what}: nothing else is wrong: {damages:?}");
            note!(
                "{what}, fails whole: {fails_whole}: {} findings, {lost} of {all} records lost, {} reads of {length} bytes",
                told.len(),
                mounted.reads(1)
            );
        }
    }

    fn page(number: u64) -> Range<u64> {
        let page = PAGE as u64;
        number * page..(number + 1) * page
    }

    #[test]
    fn one_sector() {
        unreadable("one sector", &[page(1).start + 1024..page(1).start + 1536]);
    }

    #[test]
    fn several_sectors_of_a_page() {
        let at = page(1).start;
        unreadable(
            "several sectors",
            &[at + 512..at + 1024, at + 8192..at + 12_288, at + 20_480..at + 20_992],
        );
    }

    #[test]
    fn across_a_page_border() {
        unreadable("across a page border", &[page(1).end - 1024..page(1).end + 1024]);
    }

    #[test]
    fn the_first_and_the_last_page() {
        let length = long().bytes.len() as u64;
        let last = (length - 1) / PAGE as u64;
        unreadable("the first page", &[page(0)]);
        unreadable("the last page", &[page(last).start..length]);
    }

    #[test]
    fn padding() {
        let log = long();
        // The first page, cut behind a record and padded, as a server leaves it that was stopped; and further pages.
        let last = log.records.iter().rev().find(|w| w.end() < PAGE - 4096).unwrap();
        let mut bytes = log.bytes[..last.end()].to_vec();
        bytes.resize(PAGE, 0);
        let before = log.records.iter().filter(|w| w.end() <= last.end()).count() as u64;
        let length = bytes.len() as u64;
        for bad in [(last.end() as u64).next_multiple_of(SECTOR)..length, length - 1024..length - 512] {
            let nodes = vec![Node::with_bad(&bytes, std::slice::from_ref(&bad)), Node::of(&log.bytes)];
            let mounted = Mounted::new("unreadable padding", nodes);
            let report = report(&finish(&mut scan(mounted.path())), DAMAGED);
            assert_eq!(damages(&report), [("unreadable", 0, Some(bad))], "{report:#}");
            assert_eq!(records(&report), before + log.records.len() as u64);
        }
    }

    #[test]
    fn a_whole_file() {
        let length = long().bytes.len() as u64;
        unreadable("a whole file", std::slice::from_ref(&(0..length)));
    }

    /// The file is cut once the scan has read so far: what the scan says does not hang on chance.
    #[test]
    fn a_file_cut_at_a_certain_read() {
        let log = long();
        let length = log.bytes.len() as u64;
        for (after, left) in [(0, 0), (0, 100), (PAGE as u64 * 2, PAGE as u64), (length - 1, length - 10)] {
            // Opened first to tell whose log it is, then to be scanned.
            let cut = Change { opens: 2, after, to: log.bytes[..usize::try_from(left).unwrap()].to_vec() };
            let node = Node { then: Some(cut), ..Node::of(&log.bytes) };
            let mounted = Mounted::new("a file that is cut", vec![node, Node::of(&log.bytes)]);
            let report = report(&finish(&mut scan(mounted.path())), DAMAGED);
            note!("cut to {left} behind {after}: {:?}", damages(&report));
            let damages = damages(&report);
            assert!(
                // The other segment is a copy of it.
                damages.iter().all(|(code, segment, _)| *code == "misplaced_pages"
                    || *segment == 0 && ["shrunk", "torn_record", "unfinished_record"].contains(code)),
                "{report:#}"
            );
            assert!(!damages.is_empty(), "{report:#}");
        }
    }

    #[test]
    fn a_file_that_grows_at_a_certain_read() {
        let log = long();
        let half = log.bytes.len() / 2 / PAGE * PAGE;
        let grown = Change { opens: 2, after: 0, to: log.bytes.clone() };
        let node = Node { then: Some(grown), ..Node::of(&log.bytes[..half]) };
        let mounted = Mounted::new("a file that grows", vec![node]);
        let output = finish(&mut scan(mounted.path()));
        let report = report(&output, CLEAN);
        // As long as it was when it was opened; what a record lacks then, the server has not written yet.
        let codes: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| &f["code"]).collect();
        assert!(codes.iter().all(|code| **code == "torn_record"), "{report:#}");
    }
}
