//! Random damages, each from a seed, over logs that Prometheus's own encoders wrote: no record that is whole is missed,
//! none is invented.
//!
//! `WALFIX_SEEDS=20000 cargo test --release --test format damage::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use std::collections::BTreeMap;

use support::damage::{self, KINDS};
use support::pristine::{self, Pristine, Written};
use support::{note, test};
use walfix::record::RecordType;
use walfix::scan::salvage::{AgreedCorrection, Contents, Problem, Reading, Visitor, salvage};
use walfix::wal::Record;

const PAGE: usize = 32768;

#[derive(Default)]
struct Found {
    records: Vec<(usize, usize, Vec<u8>)>,
    problems: Vec<Problem>,
}

impl Visitor for Found {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        let at = |offset: u64| usize::try_from(offset).unwrap();
        self.records.push((at(record.offset), at(record.end), record.data.to_vec()));
    }

    fn damage(&mut self, damage: Problem) {
        self.problems.push(damage);
    }
}

fn read(bytes: &[u8]) -> Found {
    salvage(bytes, bytes.len() as u64, Reading::Prometheus)
}

#[test]
fn healthy_logs_have_no_problems() {
    for log in pristine::all() {
        let found = read(&log.bytes);
        assert_eq!(found.problems, [], "{}", log.path.display());
        assert_eq!(found.records.len(), log.records.len(), "{}", log.path.display());
        for (written, (offset, end, data)) in log.records.iter().zip(&found.records) {
            assert_eq!((written.offset(), written.end()), (*offset, *end), "{}", log.path.display());
            assert_eq!(&written.data, data, "{} at {offset}", log.path.display());
        }
    }
}

#[test]
fn whole_records_are_found_and_none_invented() {
    let logs: Vec<_> = pristine::all().into_iter().filter(|log| log.bytes.len() > 3 * PAGE).collect();
    let mut failures = Vec::new();
    let mut by_kind: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seed in support::seeds(2000) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log = &logs[rng.usize(..logs.len())];
        let headers: Vec<usize> =
            log.records.iter().flat_map(|r| r.fragments.iter().map(|f| f.start)).collect();
        let mut bytes = log.bytes.clone();
        let within = 0..bytes.len();
        let damage = damage::apply(KINDS[rng.usize(..KINDS.len())], &mut bytes, within, &headers, &mut rng);
        let found = read(&bytes);
        let count = by_kind.entry(damage.kind).or_default();
        count.0 += 1;
        if let Err(complaint) = judge(log, &bytes, &found) {
            count.1 += 1;
            failures.push(format!("seed {seed}: {} ({}): {complaint}", log.path.display(), damage.what));
        }
    }
    note!("damages (failures): {by_kind:?}");
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
}

fn judge(log: &Pristine, bytes: &[u8], found: &Found) -> Result<(), String> {
    let mut last_end = 0;
    for (offset, end, data) in &found.records {
        if *offset < last_end {
            return Err(format!("the record at {offset} overlaps the one before it"));
        }
        last_end = *end;
        // `01` and then zeros is an empty record to every reader; it is also what is left of a header that was cut
        // behind its first byte.
        let cut_header = data.is_empty() && log.bytes.get(*offset) == bytes.get(*offset);
        if !cut_header && !was_written(log, bytes, *offset, *end, data) {
            let kind = RecordType::of(data);
            return Err(format!("a record of {} bytes at {offset} that nobody wrote: {kind:?}", data.len()));
        }
    }
    for (at, written) in log.records.iter().enumerate() {
        let is_missed = log.is_unchanged(written, bytes) && !was_yielded(bytes, written, found);
        if is_missed && !log.cannot_be_proven(at, bytes) {
            let kind = RecordType::of(&written.data);
            return Err(format!("the record at {:?} is whole and missed: {kind:?}", written.fragments));
        }
    }
    for problem in &found.problems {
        if let Some(mended) = &problem.correction
            && !is_right(log, bytes, mended)
        {
            return Err(format!("a wrong correction at {}: {:?}", mended.at, problem.kind));
        }
    }
    Ok(())
}

/// With that bit flipped back the record is to the byte as it was written.
fn is_right(log: &Pristine, bytes: &[u8], mended: &AgreedCorrection) -> bool {
    let mut bytes = bytes.to_vec();
    bytes[usize::try_from(mended.at).unwrap()] ^= mended.mask;
    log.records
        .iter()
        .any(|written| written.offset() as u64 == mended.offset && log.is_unchanged(written, &bytes))
}

/// At its offset, or moved there with all of its pages.
fn was_written(log: &Pristine, bytes: &[u8], offset: usize, end: usize, data: &[u8]) -> bool {
    log.records.iter().any(|written| {
        if written.data != data
            || written.offset() % PAGE != offset % PAGE
            || written.end() % PAGE != end % PAGE
        {
            return false;
        }
        if written.offset() == offset {
            return true;
        }
        // The last page of a segment may be short, here and there.
        let pages = |bytes: &[u8], from: usize, to: usize| {
            bytes[from / PAGE * PAGE..(to.div_ceil(PAGE) * PAGE).min(bytes.len())].to_vec()
        };
        pages(bytes, offset, end) == pages(&log.bytes, written.offset(), written.end())
    })
}

/// Where it stands; or, if it lies within a page that is a copy of an earlier one, there.
fn was_yielded(bytes: &[u8], written: &Written, found: &Found) -> bool {
    let at = |offset: usize| {
        found.records.binary_search_by_key(&offset, |r| r.0).is_ok_and(|i| found.records[i].2 == written.data)
    };
    if at(written.offset()) {
        return true;
    }
    let page = written.offset() / PAGE;
    if written.fragments.len() > 1 || (page + 1) * PAGE > bytes.len() {
        return false;
    }
    let of = |page: usize| &bytes[page * PAGE..(page + 1) * PAGE];
    (0..page).any(|earlier| of(earlier) == of(page) && at(earlier * PAGE + written.offset() % PAGE))
}

/// One flipped bit is put right where exactly one candidate survives and the record itself agrees; more than one bit is
/// never put right wrongly.
///
/// `WALFIX_SEEDS=200000 cargo test --release --test format corrections -- --nocapture` prints the counts.
#[test]
fn corrections_are_right_or_not_made() {
    const KINDS: [&str; 5] = ["bit", "two bits", "three bits", "byte", "eight bytes"];
    let logs = pristine::all();
    let mut counts: BTreeMap<(&str, &str), [u64; 3]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for seed in support::seeds(2000) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log = &logs[rng.usize(..logs.len())];
        let compression = log.path.parent().unwrap().to_str().unwrap().rsplit('-').next().unwrap();
        let kind = KINDS[rng.usize(..KINDS.len())];
        // All within one fragment: what lies apart is two damages, and each is judged on its own.
        let record = &log.records[rng.usize(..log.records.len())];
        let fragment = record.fragments[rng.usize(..record.fragments.len())].clone();
        let mut bytes = log.bytes.clone();
        let damage = damage::apply(kind, &mut bytes, fragment.clone(), &[], &mut rng);
        let count = counts.entry((compression, kind)).or_default();
        count[0] += 1;
        for problem in read(&bytes).problems {
            let Some(mended) = &problem.correction else { continue };
            if is_right(log, &bytes, mended) {
                count[1] += 1;
            } else {
                count[2] += 1;
                wrong.push(format!("seed {seed}: {} ({}): {problem:?}", log.path.display(), damage.what));
            }
        }
    }
    for ((compression, kind), [made, right, wrong]) in &counts {
        note!("{compression:8} {kind:12} {made:7} damages, {right:7} corrected, {wrong} wrongly");
    }
    let corrected: u64 =
        counts.iter().filter(|((_, kind), _)| *kind == "bit").map(|(_, count)| count[1]).sum();
    assert!(corrected > 0, "no single bit was ever corrected");
    assert!(
        wrong.is_empty(),
        "{} wrong corrections:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
