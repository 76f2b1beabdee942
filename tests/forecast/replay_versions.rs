//! What versions of Prometheus make of the same bytes. Each of them is named where its history says that it changed.

use support::test;
use walfix::forecast::Version;
use walfix::forecast::replay::{Part, Reader, Reading, Replay, ReplayError, read};

const FULL: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
const SNAPPY: u8 = 0x08;
const ZSTD: u8 = 0x10;

fn fragment(head: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[head], &length[..], &crc32c::crc32c(data).to_be_bytes(), data].concat()
}

fn part(bytes: &[u8]) -> Part<&[u8]> {
    Part { dir: "data/wal".to_owned(), index: 3, source: bytes, length: bytes.len() as u64 }
}

/// Records, each in one fragment.
fn records(records: &[&[u8]]) -> Vec<u8> {
    records.iter().flat_map(|record| fragment(FULL, record)).collect()
}

fn reading(bytes: &[u8], reader: Reader, version: &str) -> Reading {
    read(vec![part(bytes)], reader, version.parse().unwrap())
}

/// The error, or in words of our own what else becomes of it.
fn error(bytes: &[u8], reader: Reader, version: &str) -> Option<String> {
    match reading(bytes, reader, version).error {
        None => None,
        Some(ReplayError::Corrupt { text, .. }) => Some(text),
        Some(ReplayError::Crash(_)) => Some("crashes".to_owned()),
        Some(ReplayError::Hang) => Some("hangs".to_owned()),
    }
}

/// Up to a version one thing, and from the next on another.
fn changes(bytes: &[u8], reader: Reader, steps: &[(&str, Option<&str>)]) {
    for (version, expected) in steps {
        assert_eq!(error(bytes, reader, version).as_deref(), *expected, "{reader:?} of {version}");
    }
}

/// What a version reads, up to the first error.
fn data(bytes: &[u8], version: &str) -> Vec<Vec<u8>> {
    let mut replay = Replay::new(vec![part(bytes)], version.parse::<Version>().unwrap());
    let mut data = Vec::new();
    while let Some(record) = replay.next() {
        data.push(record.data.to_vec());
    }
    data
}

fn snappy(record: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(record).unwrap()
}

#[test]
fn zstd_is_unknown_before_2_46() {
    let record = [2; 17];
    let packed = zstd::bulk::compress(&record, 1).unwrap();
    let log = fragment(FULL | ZSTD, &packed);
    assert_eq!(data(&log, "2.45.6"), std::slice::from_ref(&packed));
    assert_eq!(data(&log, "2.46"), [record.to_vec()]);
    // The magic number begins with 0x28, which is no record type.
    changes(&log, Reader::Wal, &[("2.45", None), ("2.46", None)]);
    assert_eq!(reading(&log, Reader::Wal, "2.42").records, 1);

    // A record cut within is not noticed then.
    let cut = fragment(FULL | ZSTD, &packed[..packed.len() - 1]);
    assert_eq!(data(&cut, "2.45"), [packed[..packed.len() - 1].to_vec()]);
    assert!(data(&cut, "2.46").is_empty());

    // Of both flags snappy wins, and is all that was known before.
    let both = fragment(FULL | SNAPPY | ZSTD, &snappy(&record));
    for version in ["2.30", "2.45", "2.46", "3.16"] {
        assert_eq!(data(&both, version), [record.to_vec()], "{version}");
    }
}

/// Before 3.4 fragments with and without a flag are kept apart.
#[test]
fn flags_of_a_records_fragments() {
    let record = [200; 40];
    let packed = snappy(&record);
    let (front, back) = packed.split_at(1);
    let log = |first: u8, last: u8, back: &[u8]| {
        [fragment(FIRST | first, front), fragment(LAST | last, back)].concat()
    };
    for version in ["2.30", "3.3.1", "3.4", "3.16"] {
        assert_eq!(data(&log(SNAPPY, SNAPPY, back), version), [record.to_vec()], "{version}");
    }
    // None on the last: up to 3.3 only what has none either is taken, then all of it, packed as it is.
    let none_on_last = log(SNAPPY, 0, back);
    assert_eq!(data(&none_on_last, "3.3.1"), [back.to_vec()]);
    assert_eq!(data(&none_on_last, "3.4"), std::slice::from_ref(&packed));
    // None on the first: what is left of the block does not unpack.
    let none_on_first = log(0, SNAPPY, back);
    let corrupt = format!(
        "read records: corruption in segment data/wal/00000003 at {}: snappy: corrupt input",
        none_on_first.len()
    );
    changes(&none_on_first, Reader::Wal, &[("3.3", Some(corrupt.as_str())), ("3.4", None)]);
    assert_eq!(data(&none_on_first, "3.4"), [record.to_vec()]);
    // Nothing in the last: there is nothing to unpack, and the others stand.
    let whole = [fragment(FIRST, &packed), fragment(LAST | SNAPPY, b"")].concat();
    assert_eq!(data(&whole, "3.3"), std::slice::from_ref(&packed));
    assert_eq!(data(&whole, "3.4"), [record.to_vec()]);
    // To those before 2.46 the flag of zstd is no flag.
    let zstd_first = log(ZSTD, 0, back);
    assert_eq!(data(&zstd_first, "2.45"), std::slice::from_ref(&packed));
    assert_eq!(data(&zstd_first, "2.46"), [back.to_vec()]);
}

fn at(offset: usize, inner: &str) -> String {
    format!("corruption in segment 00000003 at {offset}: {inner}")
}

/// A record that does not decode is no error to those who do not know its type yet.
#[test]
fn types_are_passed_over_before_they_are_known() {
    for (kind, before, since, inner) in [
        (6, "2.37", "2.38", "decode metadata: invalid size"),
        (7, "2.39", "2.40", "decode histograms: decode error after 0 histograms: invalid size"),
        (8, "2.41", "2.42", "decode float histograms: decode error after 0 histograms: invalid size"),
        (9, "3.1", "3.2", "decode histograms: decode error after 0 histograms: invalid size"),
        (10, "3.1", "3.2", "decode float histograms: decode error after 0 histograms: invalid size"),
        (11, "3.10", "3.11", "decode samples: decode error after 1 samples: invalid size"),
        (12, "3.11", "3.12", "decode histograms: decode error after 0 histograms: invalid size"),
        (13, "3.11", "3.12", "decode float histograms: decode error after 0 histograms: invalid size"),
    ] {
        let log = records(&[&[kind, 0x80]]);
        let text = at(9, inner);
        changes(&log, Reader::Wal, &[(before, None), (since, Some(&text)), ("3.16", Some(&text))]);
        assert_eq!(reading(&log, Reader::Wal, before).records, 1);
    }
    for (kind, inner) in [
        (1, "decode series: invalid size"),
        (2, "decode samples: decode error after 0 samples: invalid size"),
        (3, "decode tombstones: invalid size"),
        (4, "decode exemplars: decode error after 0 exemplars: invalid size"),
    ] {
        let text = at(9, inner);
        changes(&records(&[&[kind, 0x80]]), Reader::Wal, &[("2.30", Some(&text)), ("3.16", Some(&text))]);
    }
    // Neither markers of the WBL nor the time in a checkpoint, nor what nobody knows.
    for kind in [0, 5, 14, 15, 200] {
        changes(&records(&[&[kind, 0x80], &[]]), Reader::Wal, &[("2.30", None), ("3.16", None)]);
    }
}

/// Ref, time, hint if there is one, schema, zero threshold, zero count, count, sum.
fn head(hint: &[u8], schema: i8) -> Vec<u8> {
    let zigzag = u8::try_from(if schema < 0 { -2 * i16::from(schema) - 1 } else { 2 * i16::from(schema) });
    [&[0, 0], hint, &[zigzag.unwrap()], &[0; 8], &[1, 1], &[0; 8]].concat()
}

/// A record of histograms.
fn histograms(kind: u8, bodies: &[Vec<u8>]) -> Vec<u8> {
    records(&[&[&[kind], &[0; 16][..], &bodies.concat()].concat()])
}

const NO_BUCKETS: [u8; 4] = [0; 4];

#[test]
fn histograms_begin_with_a_hint_since_2_42() {
    let without = histograms(7, &[[head(&[], 3), NO_BUCKETS.to_vec()].concat()]);
    let with = histograms(7, &[[head(&[3], 3), NO_BUCKETS.to_vec()].concat()]);
    // 7 of the fragment, 17 of the record, 25 of the histogram; one more with the hint.
    let cut = at(7 + 17 + 25, "decode histograms: decode error after 1 histograms: invalid size");
    assert_eq!(without.len(), 7 + 17 + 25);
    changes(&without, Reader::Wal, &[("2.40", None), ("2.41", None), ("2.42", Some(&cut))]);
    // The hint taken for a schema, everything stands one byte further on: the last of the four lists is left over, and is
    // the beginning of another histogram.
    let two = at(7 + 17 + 26, "decode histograms: decode error after 2 histograms: invalid size");
    changes(&with, Reader::Wal, &[("2.41", Some(&two)), ("2.42", None), ("3.16", None)]);
}

#[test]
fn custom_bounds_follow_since_3_2() {
    // As 3.0 and 3.1 wrote them, and as later ones do: two bounds.
    let schema = [head(&[0], -53), NO_BUCKETS.to_vec()].concat();
    let bounds = [&[2][..], &[0; 16]].concat();
    let (old, new) = (histograms(7, std::slice::from_ref(&schema)), histograms(7, &[schema, bounds]));
    let end = 7 + 17 + 26;
    let cut = at(end, "decode histograms: decode error after 1 histograms: invalid size");
    changes(&old, Reader::Wal, &[("2.42", None), ("3.1", None), ("3.2", Some(&cut)), ("3.16", Some(&cut))]);
    let more = at(end + 17, "decode histograms: decode error after 2 histograms: invalid size");
    changes(&new, Reader::Wal, &[("3.1", Some(&more)), ("3.2", None), ("3.16", None)]);
}

/// Histograms of unknown schemas are left out since 3.7, and are not counted in the error of another one.
#[test]
fn unknown_schemas_are_skipped_since_3_7() {
    let unknown = [head(&[0], 60), NO_BUCKETS.to_vec()].concat();
    let log = histograms(7, &[unknown.clone(), vec![0]]);
    let end = 7 + 17 + 26 + 1;
    let (two, one) = (
        at(end, "decode histograms: decode error after 2 histograms: invalid size"),
        at(end, "decode histograms: decode error after 1 histograms: invalid size"),
    );
    changes(&log, Reader::Wal, &[("3.6", Some(&two)), ("3.7", Some(&one)), ("3.16", Some(&one))]);
    changes(&histograms(7, &[unknown]), Reader::Wal, &[("2.42", None), ("3.6", None), ("3.7", None)]);
}

/// A resolution beyond 8 is lowered since 3.7, which panics where spans speak of more buckets than there are; since 3.9 that
/// and other nonsense are errors.
#[test]
fn resolutions_are_lowered_since_3_7() {
    let end = 7 + 17 + 26;
    // One positive span of two buckets, of which there is one.
    let more = histograms(7, &[[head(&[0], 20), vec![1, 0, 2, 0, 1, 0, 0]].concat()]);
    let text = at(
        end + 3,
        "decode histograms: error reducing resolution of histogram #1: have 1 buckets but spans need more: \
         histogram spans specify different number of buckets than provided",
    );
    changes(
        &more,
        Reader::Wal,
        &[
            ("3.6", None),
            ("3.7", Some("crashes")),
            ("3.8.1", Some("crashes")),
            ("3.9", Some(&text)),
            ("3.16", Some(&text)),
        ],
    );
    // One bucket that no span speaks of.
    let fewer = histograms(7, &[[head(&[0], 20), vec![0, 0, 1, 0, 0]].concat()]);
    let text = at(
        end + 1,
        "decode histograms: error reducing resolution of histogram #1: spans need 0 buckets, have 1 buckets: \
         histogram spans specify different number of buckets than provided",
    );
    changes(&fewer, Reader::Wal, &[("3.6", None), ("3.8", None), ("3.9", Some(&text))]);
}

/// Before 2.42 room is made for labels before they are counted: Go's `make` does not take a negative number.
#[test]
fn an_absurd_number_of_labels() {
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let series = records(&[&[&[1][..], &[0; 8], &huge].concat()]);
    let exemplar = records(&[&[&[4][..], &[0; 16], &[0, 0], &[0; 8], &huge].concat()]);
    for log in [series, exemplar] {
        changes(&log, Reader::Wal, &[("2.41", Some("crashes")), ("2.42", None), ("3.16", None)]);
    }
}

#[test]
fn histograms_of_the_wbl_since_3_0() {
    let broken = |kind: u8| records(&[&[kind, 0x80]]);
    let text = at(9, "decode histograms: decode error after 0 histograms: invalid size");
    changes(&broken(7), Reader::Wbl, &[("2.55", None), ("3.0", Some(&text)), ("3.16", Some(&text))]);
    let text = at(9, "decode float histograms: decode error after 0 histograms: invalid size");
    changes(&broken(8), Reader::Wbl, &[("2.55", None), ("3.0", Some(&text))]);
    let text = at(9, "decode mmap markers: decode error after 1 mmap markers: invalid size");
    changes(&broken(5), Reader::Wbl, &[("2.39", Some(&text)), ("3.16", Some(&text))]);
    let text = at(9, "decode samples: decode error after 0 samples: invalid size");
    changes(&broken(2), Reader::Wbl, &[("2.39", Some(&text)), ("3.16", Some(&text))]);
    for kind in [1, 3, 4, 6] {
        changes(&broken(kind), Reader::Wbl, &[("2.39", None), ("3.16", None)]);
    }
}

#[test]
fn float_histograms_in_checkpoints_since_2_52() {
    let text = "decode float histogram samples: decode error after 0 histograms: invalid size";
    let log = records(&[&[8, 0x80]]);
    for reader in [Reader::Checkpoint, Reader::AgentCheckpoint] {
        changes(&log, reader, &[("2.42", None), ("2.51", None), ("2.52", Some(text)), ("3.16", Some(text))]);
    }
    let text = "decode histogram samples: decode error after 0 histograms: invalid size";
    changes(&records(&[&[7, 0x80]]), Reader::Checkpoint, &[("2.39", None), ("2.40", Some(text))]);
    let framing = "read segments: corruption in segment data/wal/00000003 at 7: invalid record size 65535";
    let broken = [1, 0xFF, 0xFF, 0, 0, 0, 0];
    changes(&broken, Reader::Checkpoint, &[("2.30", Some(framing)), ("3.16", Some(framing))]);
}

/// Since 3.16 the first record of the last checkpoint is read for itself before a new one is made, but not by agents.
#[test]
fn the_time_a_checkpoint_begins_with() {
    let dir = "data/wal/checkpoint.00000002";
    let ask = |checkpoint: &[u8], wal: &[u8], reader: Reader, version: &str| {
        let parts = [(dir, 0, checkpoint), ("data/wal", 3, wal)].map(|(dir, index, source)| {
            let length = source.len() as u64;
            Part { dir: dir.to_owned(), index, source, length }
        });
        match read(parts.to_vec(), reader, version.parse().unwrap()).error {
            Some(ReplayError::Corrupt { text, .. }) => Some(text),
            other => other.map(|other| format!("{other:?}")),
        }
    };
    let healthy = records(&[&[14, 0, 0, 0, 0, 0, 0, 0, 1], &[2]]);
    assert_eq!(ask(&healthy, &healthy, Reader::Checkpoint, "3.16"), None);
    // Too short, and too long.
    for (record, inner) in [
        (&[14, 0][..], "invalid size"),
        (&[14, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9], "unexpected 2 bytes left in entry"),
    ] {
        let broken = records(&[record]);
        let text = format!("read previous min valid time: decode min valid time: {inner}");
        assert_eq!(ask(&broken, &healthy, Reader::Checkpoint, "3.16"), Some(text));
        assert_eq!(ask(&broken, &healthy, Reader::Checkpoint, "3.15"), None);
        assert_eq!(ask(&broken, &healthy, Reader::AgentCheckpoint, "3.16"), None);
        // Not the first record, and not a checkpoint's.
        assert_eq!(ask(&records(&[&[2], record]), &broken, Reader::Checkpoint, "3.16"), None);
    }
    let mut damaged = healthy.clone();
    damaged[9] ^= 1;
    let computed = crc32c::crc32c(&damaged[7..16]);
    let stored = crc32c::crc32c(&healthy[7..16]);
    let place = format!(
        "corruption in segment {dir}/00000000 at 16: unexpected checksum {computed:x}, expected {stored:x}"
    );
    for (reader, version, before) in [
        (Reader::Checkpoint, "3.16", "read previous min valid time"),
        (Reader::Checkpoint, "3.15", "read segments"),
        (Reader::AgentCheckpoint, "3.16", "read segments"),
    ] {
        assert_eq!(ask(&damaged, &healthy, reader, version), Some(format!("{before}: {place}")));
    }
    // It ends with the checkpoint, and does not go on in the next segment.
    let torn = fragment(FIRST, &vec![2; 32761]);
    let torn_text = format!(
        "read previous min valid time: corruption in segment {dir}/00000000 at 32768: last record is torn"
    );
    assert_eq!(ask(&torn, &fragment(LAST, b""), Reader::Checkpoint, "3.16"), Some(torn_text));
}

/// An agent takes for corruption what it has no use for, until 3.15. It notes the first such record and reads on; there is
/// no room to note another one.
#[test]
fn agents_reject_what_they_do_not_know() {
    let sample = [&[2][..], &[0; 16], &[0, 0], &[0; 8]].concat();
    let good = sample.as_slice();
    let end = 7 + good.len();
    for (record, versions) in [
        (&[200][..], &[("2.32", "255"), ("2.37", "255"), ("2.38", "unknown"), ("3.14", "unknown")][..]),
        (&[], &[("2.37", "255"), ("3.14", "unknown")]),
        (&[6], &[("2.37", "255"), ("2.38", "metadata"), ("3.14", "metadata")]),
        (&[5], &[("2.38", "unknown"), ("2.39", "mmapmarkers"), ("3.14", "mmapmarkers")]),
        (&[7], &[("2.39", "unknown"), ("2.40", "histogram_samples"), ("2.41", "histogram_samples")]),
        (&[8], &[("2.41", "unknown")]),
        (&[9], &[("3.1", "unknown")]),
        (&[11], &[("3.10", "unknown")]),
    ] {
        for (version, name) in versions {
            let one = records(&[good, record, good]);
            let text = at(end + 7 + record.len(), &format!("invalid record type {name}"));
            assert_eq!(error(&one, Reader::Agent, version), Some(text), "{version}");
            let found = reading(&one, Reader::Agent, version);
            assert_eq!((found.records, found.read_to), (1, Some((0, end as u64))), "{version}");
            let two = records(&[good, record, good, record]);
            assert_eq!(error(&two, Reader::Agent, version).as_deref(), Some("hangs"), "{version}");
            let broken = records(&[record, &[2, 0]]);
            assert_eq!(error(&broken, Reader::Agent, version).as_deref(), Some("hangs"), "{version}");
            // A fault of framing needs no room.
            let torn = [records(&[record]), vec![1, 0xFF, 0xFF, 0, 0, 0, 0]].concat();
            let text = at(7 + record.len(), &format!("invalid record type {name}"));
            assert_eq!(error(&torn, Reader::Agent, version), Some(text), "{version}");
        }
        for version in ["3.15", "3.16"] {
            let two = records(&[good, record, good, record]);
            assert_eq!(error(&two, Reader::Agent, version), None, "{version}");
        }
    }
    for known in [&[1][..], &[2], &[3], &[4], &[3, 0], &[4, 0]] {
        changes(&records(&[known]), Reader::Agent, &[("2.32", None), ("3.14", None), ("3.16", None)]);
    }
}

#[test]
fn agents_have_words_of_their_own() {
    let text = at(9, "decode histogram samples: decode error after 0 histograms: invalid size");
    changes(&records(&[&[7, 0]]), Reader::Agent, &[("2.42", Some(&text)), ("3.16", Some(&text))]);
    let text = at(9, "decode float histogram samples: decode error after 0 histograms: invalid size");
    changes(&records(&[&[8, 0]]), Reader::Agent, &[("2.42", Some(&text)), ("3.16", Some(&text))]);
    // Metadata is read since 3.16.
    let text = at(9, "decode metadata: invalid size");
    let metadata = records(&[&[6, 0x80]]);
    changes(&metadata, Reader::Agent, &[("3.15", None), ("3.16", Some(&text))]);
    let framing = "read records: corruption in segment data/wal/00000003 at 7: invalid record size 65535";
    let broken = [1, 0xFF, 0xFF, 0, 0, 0, 0];
    changes(&broken, Reader::Agent, &[("2.32", Some(framing)), ("3.16", Some(framing))]);
}

/// On a name that is longer than any memory Prometheus panics.
#[test]
fn what_kills_prometheus() {
    let length = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let log = records(&[&[2], &[&[1][..], &[0; 8], &[1], &length].concat()]);
    for reader in [Reader::Wal, Reader::Agent, Reader::Checkpoint] {
        changes(&log, reader, &[("2.32", Some("crashes")), ("3.16", Some("crashes"))]);
        assert_eq!(reading(&log, reader, "3.16").read_to, Some((0, 8)));
    }
}
