//! Several damages in one directory. What stands afterwards is reckoned from the healthy directory and from which records
//! were damaged; the newest server there is and Prometheus's newest packages serve exactly that of what a repair leaves,
//! twice, without a complaint, and the next checkpoint succeeds.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::bases::{Base, read_tree, write_tree};
use support::matrix::{BASES, Matrix, judges};
use support::oracle::{self, Oracle};
use support::recipes::Damaged;
use support::truth::{End, Judge, left_by, measure};
use support::{note, test};

/// Damages of different kinds, and the sort of directory that they are done to.
struct Combination {
    name: &'static str,
    base: &'static str,
    make: fn(&Base) -> Damaged,
}

const COMBINATIONS: [Combination; 8] = [
    Combination {
        name: "holes in two segments, and a torn tail",
        base: "none",
        make: |base| {
            let two = by("2 too long", base, "wal", 1).and(base, &by("1 middle fragment", base, "wal", 3));
            two.and(base, &by("10 payload", base, "wal", 4))
        },
    },
    Combination {
        name: "the WBL, and a splice in the WAL",
        base: "wbl",
        make: |base| by("1 middle fragment", base, "wbl", 1).and(base, &by("9 splice", base, "wal", 2)),
    },
    Combination { name: "a gap, and a damaged segment behind it", base: "none", make: gap_and_damage },
    Combination {
        name: "a record that was given up at the end of a segment, and a zeroed page",
        base: "snappy",
        make: |base| {
            by("7 dangling first", base, "wal", 1).and(base, &by("8 zero page between", base, "wal", 3))
        },
    },
    Combination {
        name: "a page twice, and junk in padding",
        base: "zstd",
        make: |base| {
            let page = Damaged::duplicated_page(base, base.segments_of("wal")[1]);
            page.and(base, &by("11 junk in padding", base, "wal", 3))
        },
    },
    Combination {
        name: "a record that does not decode, and one that is cut in the last segment",
        base: "rich",
        make: |base| {
            let undecodable =
                by("13 histograms", base, "wal", 2).and(base, &by("13 tombstones", base, "wal", 1));
            undecodable.and(base, &by("10 in large", base, "wal", 4))
        },
    },
    Combination {
        name: "the checkpoint, the WAL and the WBL",
        base: "wbl-snappy",
        make: |base| {
            let log = base.checkpoint().unwrap();
            let checkpoint =
                by("9 zero page inside", base, &log, 1).and(base, &by("2 too long", base, &log, 0));
            let wal = checkpoint.and(base, &by("12 cannot be unpacked", base, "wal", 2));
            // Of the type of a short record, the bit is found.
            wal.and(base, &by("5 full is middle", base, "wbl", 0).put_right())
        },
    },
    Combination {
        name: "a damaged segment under a wrong name, and a flipped bit in the checkpoint",
        base: "none",
        make: |base| {
            // Of a short record of samples, the bit is found.
            let bit = by("1 checksum", base, &base.checkpoint().unwrap(), 0).put_right();
            let both = bit.and(base, &by("1 middle fragment", base, "wal", 2));
            let segment = base.segments_of("wal")[2];
            both.misnamed(segment, segment.rsplit('/').next().unwrap().trim_start_matches('0'))
        },
    },
];

fn gap_and_damage(base: &Base) -> Damaged {
    by("14 gap", base, "wal", 1).and(base, &by("1 middle fragment", base, "wal", 3))
}

/// A damage of one of the kinds of the matrix, in a segment of a log.
fn by(row: &str, base: &Base, log: &str, segment: usize) -> Damaged {
    Damaged::by(row, base, base.segments_of(log)[segment])
}

/// A healthy directory of a sort.
fn base(oracle: Oracle, name: &str) -> Base {
    let (name, agent, arguments, _) = BASES.iter().find(|(one, ..)| *one == name).unwrap();
    Base::make(oracle, name, *agent, arguments)
}

fn walfix(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(arguments).arg(path).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32, about: &str) {
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert_eq!(output.status.code(), Some(code), "{about}: {said:?}");
}

fn judge(combination: &Combination, base: &Base, judges: &[Judge], oracle: Oracle) -> Vec<String> {
    let name = combination.name;
    let damaged = (combination.make)(base);
    // What lost tombstones had deleted comes back besides.
    let expected = left_by(base, &damaged, oracle).intersection(&base.served).count() as u64;
    assert!(expected < base.served.len() as u64, "{name}: nothing is lost");
    let scratch = tempfile::tempdir().unwrap();
    let (data, backup) = (scratch.path().join("data"), scratch.path().join("backup"));
    write_tree(&damaged.tree, &data);
    let with_backup = format!("--backup={}", backup.display());
    assert_exit(&walfix(&["repair", "--accept-orphans", "--quiet", &with_backup], &data), 1, name);
    let scanned = walfix(&["scan", "--format=json"], &data);
    assert_exit(&scanned, 0, name);
    let report: Value = serde_json::from_slice(&scanned.stdout).unwrap();
    let damage = |finding: &&Value| finding["severity"] == "damage";
    assert_eq!(report["findings"].as_array().unwrap().iter().find(damage), None, "{name}");
    let repaired = Damaged { tree: read_tree(&data), ..damaged.clone() };
    let healthy = scratch.path().join("healthy");
    write_tree(&base.tree, &healthy);
    let mut wrong = Vec::new();
    for (judge, end) in judges.iter().zip([End::Killed, End::Stopped].into_iter().cycle()) {
        let states = scratch.path().join(judge.version());
        let truth = measure(base, &repaired, (judge, oracle), (name, end, 2), (&states, &healthy));
        for (number, start) in truth.starts.iter().enumerate() {
            let about = format!("{name}, {}, start {}", judge.version(), number + 1);
            wrong.extend(start.complaints().into_iter().map(|words| format!("{about}: {words}\n")));
            let unserved = truth.not_replayed[0][number].samples;
            if (start.served, unserved) != (expected, 0) {
                wrong.push(format!(
                    "{about}: {} samples are served, not {expected}; {unserved} that stand are not\n",
                    start.served
                ));
            }
        }
        note!("{name}, {}: {expected} of {} samples", judge.version(), base.served.len());
    }
    assert_exit(&walfix(&["undo", "--quiet"], &backup), 0, name);
    assert!(read_tree(&data) == damaged.tree, "{name}: undo has not put all back");
    wrong
}

#[test(long)]
fn what_several_damages_leave_is_served() {
    let what = "repairs of several damages";
    let oracle = oracle::judge(what);
    let judges = &judges(what, oracle, Matrix::Quick);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let run = |combination| move || judge(combination, &base(oracle, combination.base), judges, oracle);
        let threads: Vec<_> = COMBINATIONS.iter().map(|combination| scope.spawn(run(combination))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

/// Prometheus deletes what stands behind damage, and a gap is what keeps it from starting: whenever the repair is killed,
/// a start finds the gap and changes nothing, or all is done.
#[cfg(target_os = "linux")]
#[test(long)]
fn nothing_is_deleted_between_the_changes() {
    use std::ffi::OsStr;
    use support::strace;

    let what = "a repair of a gap and damage that is killed";
    let oracle = oracle::judge(what);
    strace::require(what);
    let base = base(oracle, "none");
    let damaged = gap_and_damage(&base);
    let interrupted = |trace: &dyn Fn(&Path, &[&OsStr])| {
        let scratch = support::scratch();
        let data = scratch.path().join("data");
        write_tree(&damaged.tree, &data);
        let backup = format!("--backup={}", scratch.path().join("backup").display());
        let walfix = env!("CARGO_BIN_EXE_walfix");
        let arguments =
            [walfix, "repair", "--threads=1", "--accept-orphans", &backup, data.to_str().unwrap()];
        trace(&scratch.path().join("trace"), &arguments.map(AsRef::as_ref));
        scratch
    };
    let changes = std::cell::RefCell::new(Vec::new());
    interrupted(&|trace, arguments| {
        let (output, calls) = strace::trace(trace, arguments);
        assert_exit(&output, 1, what);
        changes.borrow_mut().extend(calls.into_iter().filter(strace::Call::is_change));
    });
    let (mut refused, mut complete) = (0, 0);
    for call in &*changes.borrow() {
        let killed = interrupted(&|trace, arguments| {
            let output = strace::kill_at(trace, arguments, call);
            assert_eq!(output.status.code(), None, "{call:?}: {output:?}");
        });
        let data = killed.path().join("data");
        let before = read_tree(&data);
        let report = oracle.json(&["open", "--summary"], &data);
        if report["open_error"].is_null() {
            complete += 1;
        } else {
            refused += 1;
        }
        let after = read_tree(&data);
        for (path, bytes) in before.iter().filter(|(path, _)| path.starts_with("wal/")) {
            assert!(after.get(path) == Some(bytes), "{call:?}: {path} is changed: {report}");
        }
    }
    assert!(refused > 10 && complete > 0, "{refused} times it did not start, {complete} times it did");
}
