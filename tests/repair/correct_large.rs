//! `walfix repair --correct-large`: one flipped bit in a piece of more than 4 KiB that is not compressed. A scan does not
//! offer to put it right, and a repair without the flag loses the record.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::bases::{Base, Record, Segment, read_tree, write_tree};
use support::oracle;
use support::{note, test};
use walfix::repair::fill::fill;

const HEADER: usize = 7;
const LARGE: usize = 4096 + 1;

fn walfix(arguments: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(arguments).arg(data).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn json(output: &Output, exit: i32) -> Value {
    let said = || [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
    assert_eq!(output.status.code(), Some(exit), "{:?}", said());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", said()))
}

/// Repairs with or without the flag; the answer.
fn repair(data: &Path, flags: &[&str]) -> Value {
    let arguments = [&["repair", "--backup", "--accept-orphans", "--format=json"], flags].concat();
    json(&walfix(&arguments, data), 1)
}

/// A directory with some bytes of a segment changed.
fn damaged(base: &Base, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let data = support::scratch();
    let mut tree = base.tree.clone();
    change(tree.get_mut(file).unwrap().as_mut().unwrap());
    write_tree(&tree, data.path());
    data
}

/// A segment's bytes.
fn bytes(data: &Path, file: &str) -> Vec<u8> {
    std::fs::read(data.join(file)).unwrap()
}

/// A directory of uncompressed logs, as Prometheus's packages write it.
fn base(what: &str) -> Base {
    Base::make(oracle::judge(what), "none", false, &[])
}

/// Fragments of samples that are large: their segment, and where they begin and end.
fn large(base: &Base) -> Vec<(&String, usize, usize)> {
    let mut all = Vec::new();
    for log in ["wal".to_owned(), base.checkpoint().unwrap()] {
        for file in base.segments_of(&log) {
            let records = base.segments[file].records.iter().filter(|record| record.kind == "samples");
            let fragments = records.flat_map(|record| record.fragments.clone());
            all.extend(
                fragments
                    .filter(|part| part.len() >= HEADER + LARGE)
                    .map(|part| (file, part.start, part.end)),
            );
        }
    }
    all
}

/// Whether other records of the segment have the series of the record with the fragment that begins there.
fn is_known(segment: &Segment, fragment: usize) -> bool {
    let has_it = |record: &Record| record.fragments.iter().any(|part| part.start == fragment);
    let (mine, others): (Vec<_>, Vec<_>) = segment.records.iter().partition(|record| has_it(record));
    let refs = |record: &Record| -> Vec<u64> {
        let used = record.stands_for.samples.iter().map(|&(reference, _)| reference);
        used.chain(record.stands_for.series.iter().copied()).collect()
    };
    let known: HashSet<u64> = others.into_iter().flat_map(refs).collect();
    mine.into_iter().flat_map(refs).all(|reference| known.contains(&reference))
}

#[test]
fn one_flipped_bit_is_put_right_only_if_that_is_wanted() {
    let base = &base("--correct-large");
    let large = large(base);
    assert!(large.len() > 10, "{large:?}");
    let (mut restored, seeds) = (0, support::seeds(40));
    for seed in seeds.clone() {
        let mut random = fastrand::Rng::with_seed(seed);
        let &(file, start, end) = random.choice(&large).unwrap();
        let (at, bit) = (random.usize(start + 3..end), random.u32(0..8));
        let about = format!("seed {seed}: bit {bit} of byte {at} of {file}, in {start}..{end}");
        let whole = base.segments[file].bytes.as_slice();
        let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << bit;

        let without = damaged(base, file, flip);
        let scan = json(&walfix(&["scan", "--format=json"], without.path()), 4);
        let findings = scan["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["correction"].is_null()), "{about}");
        let answer = repair(without.path(), &[]);
        assert_eq!(answer["corrections"], "sure", "{about}");
        assert_eq!(answer["lost"]["records"], 1, "{about}: {answer}");
        let left = bytes(without.path(), file);
        assert!(left[start..end] != whole[start..end], "{about}");

        let with = damaged(base, file, flip);
        let before = read_tree(with.path());
        let answer = repair(with.path(), &["--correct-large"]);
        assert_eq!(answer["corrections"], "large", "{about}");
        if !is_known(&base.segments[file], start) {
            // Nothing but the checksum speaks for it.
            assert_eq!(answer["lost"]["records"], 1, "{about}: {answer}");
            assert!(bytes(with.path(), file) == left, "{about}: neither lost nor as it was");
            continue;
        }
        restored += 1;
        let lost = &answer["lost"];
        assert_eq!((&lost["records"], &lost["entries"]), (&0.into(), &0.into()), "{about}");
        let how = answer["steps"][0]["mends"][0]["how"].as_str().unwrap();
        assert!(how.contains("--correct-large"), "{about}: {how}");
        assert!(bytes(with.path(), file) == whole, "{about}: it is not as it was");

        // And back.
        let backup = std::fs::read_dir(with.path()).unwrap().map(|entry| entry.unwrap().path());
        let backup =
            backup.into_iter().find(|path| path.to_string_lossy().contains("walfix-backup-")).unwrap();
        assert_eq!(walfix(&["undo", "--quiet"], &backup).status.code(), Some(0), "{about}");
        let mut after = read_tree(with.path());
        after.retain(|path, _| !path.starts_with("walfix-backup-"));
        assert!(after == before, "{about}: undo");
    }
    let all = seeds.end - seeds.start;
    note!("{restored} of {all} are put right");
    assert!(all < 20 || restored > 5, "only {restored} of {all}");
}

/// What is more than one bit is lost with the flag, too.
#[test]
fn more_than_one_bit_is_not_put_right() {
    let base = &base("--correct-large");
    let large = large(base);
    for seed in support::seeds(10) {
        let mut random = fastrand::Rng::with_seed(seed);
        let &(file, start, end) = random.choice(&large).unwrap();
        let at = random.usize(start + HEADER..end - 1);
        // Of two bits, the checksum says that they are not one.
        let data = damaged(base, file, |bytes| {
            bytes[at] ^= 1;
            bytes[at + 1] ^= 1;
        });
        let answer = repair(data.path(), &["--correct-large"]);
        assert_eq!(answer["lost"]["records"], 1, "seed {seed}: bytes {at} and {} of {file}", at + 1);
    }
}

/// A segment that has to be written anew gets the record, too.
#[test]
fn a_segment_that_is_written_anew_has_it() {
    let base = &base("--correct-large");
    let large = large(base);
    let (file, start, end) = large[large.len() / 2];
    let segment = &base.segments[file];
    // Another record becomes a filling, but for its last nine bytes, which no filling has room in.
    let small = |record: &&Record| record.fragments.len() == 1 && record.kind == "samples";
    let other =
        segment.records.iter().filter(small).min_by_key(|record| record.end() - record.offset()).unwrap();
    let (from, to) = (other.offset(), other.end());
    let data = damaged(base, file, |bytes| {
        bytes[usize::midpoint(start + HEADER, end)] ^= 4;
        bytes[from..to - 9].copy_from_slice(&fill(to - from - 9).unwrap());
        bytes[to - 9..to].fill(0xEE);
    });
    let answer = repair(data.path(), &["--correct-large"]);
    let change = &answer["steps"][0]["change"];
    assert_eq!((&change["kind"], &change["path"]), (&"rewrite".into(), &file.as_str().into()), "{answer}");
    let left = bytes(data.path(), file);
    let stored = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let records = support::pristine::records(bytes).into_iter().map(|record| record.data);
        // A filling is a record of samples without one, or a snappy block of that.
        records.filter(|data| data != &[2]).collect()
    };
    let mut expected = stored(&segment.bytes);
    let lost = support::pristine::records(&segment.bytes).into_iter().find(|record| record.offset() == from);
    let lost = lost.unwrap().data;
    expected.retain(|data| *data != lost);
    assert!(stored(&left) == expected, "{} records, not {}", stored(&left).len(), expected.len());
}

#[test]
fn it_is_no_part_of_prometheus_mode() {
    let output = walfix(&["repair", "--mode=prometheus", "--correct-large"], Path::new("/nowhere"));
    assert_eq!(output.status.code(), Some(16), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--correct-large"), "{said}");
}
