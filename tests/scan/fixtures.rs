//! `testdata/incident` and `testdata/damaged`: what is damaged there is found, where it is, and nothing else is called damage.
//!
//! What was done to each directory stands beside it, from the recipe that did it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::test;
use walfix::scan::Scan;
use walfix::scan::report::{Cause, Finding, Severity, Verdict};
use walfix::scan::{Options, scan};
use walfix::tsdb::Target;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn read(directory: &Path) -> Scan {
    scan(&Target::find(directory).unwrap(), &Options::default(), &()).unwrap()
}

/// The name of a fixture, and what stands beside it.
fn fixtures() -> Vec<(String, Value)> {
    let mut fixtures = Vec::new();
    for entry in std::fs::read_dir(testdata("damaged")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            fixtures.push((name, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()));
        }
    }
    fixtures.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(fixtures.len() > 30, "fixtures are missing");
    fixtures
}

/// What is damaged, but normal after a crash, or nothing that Prometheus minds.
const NO_DAMAGE: [&str; 10] = [
    "healthy",
    "torn_header_1",
    "torn_header_2",
    "torn_header_3",
    "torn_header_4",
    "torn_header_5",
    "torn_header_6",
    "torn_payload",
    "trailing_zero_pages",
    "zero_length_segment",
];

#[test]
fn every_damage_is_found_where_it_is() {
    for (name, fixture) in fixtures() {
        let report = read(&testdata("damaged").join(&name));
        for damage in fixture["damage"].as_array().unwrap() {
            let file = damage["file"].as_str().unwrap();
            let (offset, end) = (damage["offset"].as_u64().unwrap(), damage["end"].as_u64().unwrap());
            let touches = |f: &Finding| match (f.offset, f.end) {
                // An empty range stands for a file that is not there.
                (Some(from), Some(to)) => f.path == file && from < end && offset < to,
                _ => f.path == file || end == 0,
            };
            assert!(report.findings.iter().any(touches), "{name}: nothing found at {file} [{offset}, {end})");
        }
    }
}

/// Damage is called nowhere but in fragments of records that the recipe touched.
#[test]
fn nothing_else_is_called_damage() {
    for (name, fixture) in fixtures() {
        let report = read(&testdata("damaged").join(&name));
        let mut touched = Vec::new();
        for range in
            fixture["damage"].as_array().unwrap().iter().chain(fixture["records"].as_array().unwrap())
        {
            let at = |key: &str| range[key].as_u64().unwrap();
            touched.push((range["file"].as_str().unwrap().to_owned(), at("offset"), at("end")));
        }
        for finding in report.of_severity(Severity::Damage) {
            let (Some(from), Some(to)) = (finding.offset, finding.end) else { continue };
            let inside = |&(ref file, offset, end): &(String, u64, u64)| {
                *file == finding.path && from < end && offset < to
            };
            assert!(touched.iter().any(inside), "{name}: damage that nobody did: {finding:?}");
        }
        let harmless = NO_DAMAGE.contains(&name.as_str()) || name == "unknown_records";
        assert_eq!(report.verdict == Verdict::Clean, harmless, "{name}: {:?}", report.findings);
    }
}

/// Where Prometheus's reader stops, at the start or when it makes a checkpoint, or drops samples, walfix has a finding.
#[test]
fn what_prometheus_complains_of_is_found() {
    for (name, fixture) in fixtures() {
        let complaint = ["oracle_read", "oracle_read_concat"]
            .iter()
            .find_map(|judge| fixture[judge]["error"].as_str())
            .or(fixture["oracle_open"]["checkpoint_error"].as_str());
        let report = read(&testdata("damaged").join(&name));
        if let Some(complaint) = complaint {
            assert!(
                !report.findings.is_empty(),
                "{name}: Prometheus says {complaint:?}, walfix says nothing"
            );
        }
    }
}

#[test]
fn the_likely_cause_is_the_one_that_was() {
    for (name, cause) in [
        ("payload_bit_flip", Cause::OneFlippedBit),
        ("crc_bit_flip", Cause::OneFlippedBit),
        ("length_bit_flip", Cause::OneFlippedBit),
        ("type_full_to_invalid", Cause::OneFlippedBit),
        ("type_full_to_middle", Cause::OneFlippedBit),
        ("type_full_to_page_term", Cause::OneFlippedBit),
        ("compression_flag_off", Cause::OneFlippedBit),
        ("overwritten_range", Cause::Overwritten),
        ("garbage_appended", Cause::Overwritten),
        ("orphan_first", Cause::AbandonedWrite),
        ("zeroed_page_inside_record", Cause::NeverWritten),
        ("duplicated_page", Cause::DuplicatedPage),
        ("torn_payload", Cause::TornByCrash),
        ("torn_middle_segment", Cause::TornByCrash),
        ("undecodable_samples", Cause::WrittenWrong),
        ("bad_snappy_block", Cause::WrittenWrong),
        ("gap_in_segments", Cause::Files),
    ] {
        let report = read(&testdata("damaged").join(name));
        let causes: Vec<_> = report.findings.iter().filter_map(|finding| finding.cause).collect();
        assert!(causes.contains(&cause), "{name}: {causes:?}");
    }
}

/// One flipped bit is named to the bit: the recipe says which byte it was.
#[test]
fn a_flipped_bit_is_named() {
    for (name, fixture) in fixtures() {
        let flips =
            ["payload_bit_flip", "crc_bit_flip", "length_bit_flip", "compression_flag_off", "wbl_damaged"];
        if flips.contains(&name.as_str()) || name.starts_with("type_full") || name.starts_with("checkpoint_s")
        {
            let report = read(&testdata("damaged").join(&name));
            let corrections: Vec<_> = report.findings.iter().filter_map(|f| f.correction.as_ref()).collect();
            assert_eq!(corrections.len(), 1, "{name}: {:?}", report.findings);
            assert_eq!(Some(corrections[0].offset), fixture["damage"][0]["offset"].as_u64(), "{name}");
            assert!(
                corrections[0].entries > 0 && corrections[0].odds > 100_000,
                "{name}: {:?}",
                corrections[0]
            );
        }
    }
}

/// A server that was started on a damaged checkpoint has begun its log anew. Times as the recipe made them.
#[test]
fn a_generation_that_was_begun_anew_is_named() {
    let report = read(&testdata("damaged").join("checkpoint_series_damaged_started_twice"));
    let restarted: Vec<_> =
        report.findings.iter().filter(|finding| finding.code.name() == "restarted_generation").collect();
    let [restarted] = restarted[..] else { panic!("{:?}", report.findings) };
    assert_eq!((restarted.severity, restarted.path.as_str()), (Severity::Damage, "wal"));
    let wal = report.logs.iter().find(|log| log.path == "wal").unwrap();
    let checkpoint = report.logs.iter().find(|log| log.path.ends_with("checkpoint.00000002")).unwrap();
    let (times, gone) = (restarted.times.unwrap(), restarted.gone.unwrap());
    assert_eq!((times.from, times.to), (wal.min_time, wal.max_time));
    assert_eq!((gone.from, gone.to), (checkpoint.max_time, wal.min_time));
    assert!(restarted.message().contains("1110 samples"), "{}", restarted.message());
}

/// The case that walfix comes from: Prometheus reports 275530, and the damage is the page before.
#[test]
fn the_incident() {
    let report = read(&testdata("incident"));
    let damage: Vec<_> = report.of_severity(Severity::Damage).collect();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].path, "wal/checkpoint.00000041/00000000");
    assert_eq!((damage[0].offset, damage[0].end), (Some(7 * 32768), Some(8 * 32768)));
    assert_eq!(damage[0].cause, Some(Cause::NeverWritten));
    // What is left of the tombstones and of the samples record that the page held the rest of.
    assert_eq!(damage[0].orphans, [(207_348, 229_376), (262_144, 275_530)]);
    // Written before the damage: 36 810 samples, and 2 200 staleness markers that are lost with their record.
    assert_eq!(report.logs.iter().map(|log| log.entries.samples).sum::<u64>(), 36_810);
}
