//! Records that an agent has glued together: taken apart where there is one way to do so, and never wrong.
//!
//! `Encoder.Samples(samples, b)` and its like (`tsdb/record/record.go`) append to `b`: what stood there before stands in front.
//! So a glued record is the bytes of both, one behind the other.
//!
//! `WALFIX_SEEDS=1000000 cargo test --release --test format glued::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use support::oracle::{self, Oracle};
use support::pristine::{self, Pristine};
use support::{note, test};
use support::{repairs, tree};
use walfix::record::{RecordType, SampleEntry, encode_samples, encode_samples_v2, glued, summarize};
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

/// What may be glued: of a known type, with entries.
fn is_whole(record: &[u8]) -> bool {
    let summary = summarize(record);
    summary.record_type.is_some_and(|kind| kind != RecordType::MinValidTime)
        && summary.error.is_none()
        && summary.entries > 0
}

fn kind_of(record: &[u8]) -> &'static str {
    RecordType::of(record).map_or("unknown", RecordType::name)
}

/// The records of each log, those that may be glued.
fn logs() -> Vec<Vec<Vec<u8>>> {
    let mut by_log: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
    for Pristine { path, records, .. } in pristine::all() {
        let records = records.into_iter().map(|record| record.data).filter(|record| is_whole(record));
        by_log.entry(path.parent().unwrap().to_owned()).or_default().extend(records);
    }
    by_log.into_values().filter(|records| records.len() > 10).collect()
}

/// Two or more records of a log, one behind the other; and where they end.
fn glue(records: &[Vec<u8>], rng: &mut fastrand::Rng) -> (Vec<u8>, Vec<usize>, Vec<&'static str>) {
    let count = if rng.u8(..4) == 0 { rng.usize(3..6) } else { 2 };
    let follow = rng.bool();
    let mut at = rng.usize(..records.len() - count);
    let (mut bytes, mut ends, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        bytes.extend_from_slice(&records[at]);
        ends.push(bytes.len());
        kinds.push(kind_of(&records[at]));
        at = if follow { at + 1 } else { rng.usize(..records.len()) };
    }
    (bytes, ends, kinds)
}

#[test]
fn glued_records_are_taken_apart_or_left_and_never_taken_apart_elsewhere() {
    let logs = logs();
    let (mut apart, mut left, mut unseen) = (0_u64, 0_u64, 0_u64);
    let mut by_kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for seed in support::seeds(30_000) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (bytes, ends, kinds) = glue(&logs[rng.usize(..logs.len())], &mut rng);
        if summarize(&bytes).error.is_none() {
            // Decoded as one: nobody sees it.
            unseen += 1;
            continue;
        }
        let counts = by_kinds.entry(kinds.join("+")).or_default();
        match glued(&bytes) {
            None => {
                left += 1;
                counts.1 += 1;
            }
            Some(found) => {
                assert_eq!(found, ends, "seed {seed}: {kinds:?}");
                apart += 1;
                counts.0 += 1;
            }
        }
    }
    for (kinds, (apart, left)) in
        by_kinds.iter().filter(|(kinds, (apart, left))| kinds.matches('+').count() == 1 && apart + left >= 20)
    {
        note!("{kinds}: {apart} taken apart, {left} left");
    }
    note!("{apart} taken apart, {left} left, {unseen} decode as one");
    assert!(apart > 10 * left, "{apart} taken apart, {left} left");
}

/// A record that was written wrong otherwise is not glued of two.
#[test]
fn other_records_that_do_not_decode_are_not_taken_apart() {
    let logs = logs();
    let mut looked_at = 0_u64;
    let seeds = support::seeds(30_000);
    for seed in seeds.clone() {
        let mut rng = fastrand::Rng::with_seed(seed);
        let records = &logs[rng.usize(..logs.len())];
        let mut record = records[rng.usize(..records.len())].clone();
        let other = &records[rng.usize(..records.len())];
        let at = rng.usize(..record.len());
        match rng.u8(..4) {
            // Cut, with the end of another behind; cut; other bytes; bytes that are missing.
            0 => {
                record.truncate(at);
                record.extend_from_slice(&other[rng.usize(1..other.len())..]);
            }
            1 => record.truncate(at),
            2 => {
                let end = (at + rng.usize(1..9)).min(record.len());
                record[at..end].iter_mut().for_each(|byte| *byte = rng.u8(..));
            }
            _ => drop(record.drain(at..(at + rng.usize(1..40)).min(record.len()))),
        }
        if summarize(&record).error.is_some() {
            looked_at += 1;
            assert_eq!(glued(&record), None, "seed {seed}: {}", kind_of(&record));
        }
    }
    note!("{looked_at} records looked at");
    assert!(looked_at * 6 > seeds.end - seeds.start);
}

/// Bytes that look like the beginning of a record everywhere.
#[test]
fn hostile_records_take_no_longer() {
    let samples: Vec<_> =
        (0..600_000).map(|at| SampleEntry { series_ref: at * 3, t: 0, st: 0, value_bits: 0 }).collect();
    let mut v2 = Vec::new();
    encode_samples_v2(&samples, &mut v2);
    let same: Vec<_> = samples.iter().map(|one| SampleEntry { series_ref: 1, ..*one }).collect();
    let mut v1 = Vec::new();
    encode_samples(&same, &mut v1);
    let mut hostile: Vec<Vec<u8>> = (0..=14).map(|byte| vec![byte; 16 << 20]).collect();
    for unit in [
        &[2, 0, 0, 0][..],
        &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[6, 1, 2, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4],
    ] {
        hostile.push(unit.repeat((16 << 20) / unit.len()));
    }
    for samples in [v1, v2] {
        hostile.push([&samples[..], &[0xFF; 3]].concat());
        hostile.push([&samples[..], &samples, &samples, &[2, 2]].concat());
    }
    for record in hostile {
        let begun = Instant::now();
        let found = glued(&record);
        let took = begun.elapsed();
        assert!(took.as_secs() < 3, "{took:?} for {:?}: {found:?}", &record[..20]);
    }
}

/// A directory whose segments hold these records.
fn write(data: &Path, segments: &[Vec<Vec<u8>>], compression: Compression) {
    let wal = data.join("wal");
    fs::create_dir_all(&wal).unwrap();
    for (number, records) in segments.iter().enumerate() {
        let mut writer = SegmentWriter::new(Vec::new());
        for record in records {
            let stored = match compression {
                Compression::None => record.clone(),
                Compression::Snappy => snap::raw::Encoder::new().compress_vec(record).unwrap(),
                Compression::Zstd => zstd::bulk::compress(record, 1).unwrap(),
            };
            writer.record(compression, &stored).unwrap();
        }
        fs::write(wal.join(format!("{number:08}")), writer.finish().unwrap()).unwrap();
    }
}

/// Size and CRC-32C of each record that the oracle reads, by segment; and that it minds nothing.
fn read(oracle: Oracle, data: &Path, about: &str) -> Vec<Vec<(u64, u64)>> {
    let answer = oracle.json(&["read", "--records"], data);
    assert_eq!(answer["error"], Value::Null, "{about}: {answer}");
    let mut segments: Vec<Vec<(u64, u64)>> = Vec::new();
    for record in answer["read"].as_array().unwrap() {
        let number = |at: usize| record[at].as_u64().unwrap();
        let segment = usize::try_from(number(0)).unwrap();
        segments.resize(segments.len().max(segment + 1), Vec::new());
        segments[segment].push((number(2), number(3)));
    }
    segments
}

/// Glues neighbours, a pair of each two kinds in each compression, for a server and for an agent. What stands there afterwards
/// is every record of its own again, in order, as Prometheus reads it, and a start serves what it served before.
#[test(long)]
fn glued_records_are_written_each_for_itself() {
    let oracle = oracle::judge("glued records");
    let keeps = repairs::Keeps::new(oracle);
    let of_agents = "series,samples,exemplars,histogram_samples,float_histogram_samples,\
                     custom_buckets_histogram_samples,custom_buckets_float_histogram_samples,samples_v2,\
                     histogram_samples_v2,float_histogram_samples_v2";
    let root = support::scratch();
    let mut tried: BTreeMap<String, u64> = BTreeMap::new();
    for (name, is_agent) in [("server", false), ("agent", true)] {
        let source = root.path().join(format!("{name}-log"));
        if is_agent {
            oracle.write(
                &["--types", of_agents, "--compression", "none", "--records", "300", "--profile", "small"],
                &source.join("wal"),
            );
        } else {
            oracle.json(
                &[
                    "directory",
                    "--rich",
                    "--newest",
                    "--compression",
                    "none",
                    "--checkpoint=-1",
                    "--segments",
                    "3",
                ],
                &source,
            );
        }
        let mut paths: Vec<_> =
            fs::read_dir(source.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let segments: Vec<Vec<Vec<u8>>> = paths
            .iter()
            .map(|path| Pristine::read(path).records.into_iter().map(|record| record.data).collect())
            .collect();
        for compression in [Compression::None, Compression::Snappy, Compression::Zstd] {
            let healthy = root.path().join(format!("{name}-{compression:?}"));
            write(&healthy, &segments, compression);
            let expected = read(oracle, &healthy, "healthy");
            let served = (!is_agent).then(|| keeps.of(&healthy));
            let mut done: BTreeMap<String, u64> = BTreeMap::new();
            for (segment, records) in segments.iter().enumerate() {
                for at in 0..records.len().saturating_sub(1) {
                    let pair = &records[at..at + 2];
                    let kinds = format!("{}+{}", kind_of(&pair[0]), kind_of(&pair[1]));
                    let both = pair.concat();
                    if done.get(&kinds).is_some_and(|&count| count >= 2)
                        || !pair.iter().all(|record| is_whole(record))
                        || summarize(&both).error.is_none()
                        || glued(&both).is_none()
                    {
                        continue;
                    }
                    *done.entry(kinds.clone()).or_default() += 1;
                    let about = format!("{name}, {compression:?}, segment {segment}, record {at}: {kinds}");
                    let data = root.path().join("data");
                    let mut damaged = segments.clone();
                    damaged[segment].splice(at..at + 2, [both]);
                    write(&data, &damaged, compression);
                    let before = tree::tree(&data);
                    let mut arguments = vec![
                        "repair".to_owned(),
                        "--format=json".to_owned(),
                        format!("--backup={}", data.join("walfix-backup-t").display()),
                    ];
                    arguments.extend(is_agent.then(|| "--agent".to_owned()));
                    arguments.push(data.display().to_string());
                    let said = repairs::walfix_exits(&[1], &arguments, &about);
                    let plan: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
                    assert_eq!(plan["lost"]["records"], 0, "{about}: {plan}");
                    assert_eq!(plan["lost"]["entries"], 0, "{about}: {plan}");
                    assert_eq!(plan["steps"].as_array().unwrap().len(), 1, "{about}: {}", plan["steps"]);
                    let step = &plan["steps"][0];
                    assert_eq!(step["change"]["records"], expected[segment].len(), "{about}: {plan}");
                    assert_eq!(step["mends"][0]["code"], "decode_error", "{about}");
                    let entries = |record: &[u8]| {
                        let count = summarize(record).entries;
                        format!(
                            "{} with {count} {}",
                            kind_of(record),
                            if count == 1 { "entry" } else { "entries" }
                        )
                    };
                    let how = step["mends"][0]["how"].as_str().unwrap();
                    let parts = format!("{} and {}", entries(&pair[0]), entries(&pair[1]));
                    assert!(how.ends_with(&parts), "{about}: {how}");
                    assert_eq!(read(oracle, &data, &about), expected, "{about}");
                    if let Some(served) = &served {
                        assert_eq!(keeps.of(&data), *served, "{about}");
                    }
                    repairs::walfix_exits(
                        &[0],
                        &["undo".to_owned(), data.join("walfix-backup-t").display().to_string()],
                        &about,
                    );
                    let bytes = |tree: &BTreeMap<String, tree::Entry>| {
                        tree.iter()
                            .map(|(path, entry)| (path.clone(), entry.bytes.clone()))
                            .collect::<Vec<_>>()
                    };
                    let mut after = tree::tree(&data);
                    after.retain(|path, _| before.contains_key(path));
                    assert_eq!(bytes(&after), bytes(&before), "{about}");
                    fs::remove_dir_all(&data).unwrap();
                }
            }
            for (kinds, count) in done {
                *tried.entry(format!("{name}: {kinds}")).or_default() += count;
            }
        }
    }
    for (kinds, count) in &tried {
        note!("{kinds}: {count}");
    }
    for wanted in [
        "server: series+samples",
        "server: samples+samples",
        "agent: samples+series",
        "agent: series+samples",
    ] {
        assert!(tried.contains_key(wanted), "{wanted}: {tried:?}");
    }
    assert!(tried.len() > 20, "{tried:?}");
}
