//! The rules of Prometheus's reader, each on a few bytes made for it, with what it must say worked out by hand. Prometheus's
//! own reader is asked as well where it is there.

use std::path::Path;

use support::oracle;
use support::test;
use walfix::forecast::Version;
use walfix::forecast::replay::{Class, Part, Reader, Reading, Replay, ReplayError, read};

const PAGE: usize = 32768;
/// The most data a fragment holds.
const MOST: usize = PAGE - 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
const SNAPPY: u8 = 0x08;
const ZSTD: u8 = 0x10;

/// A fragment with a right checksum.
fn fragment(head: u8, data: &[u8]) -> Vec<u8> {
    with_crc(head, data, crc32c::crc32c(data))
}

fn with_crc(head: u8, data: &[u8], crc: u32) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&[head], &length[..], &crc.to_be_bytes(), data].concat()
}

/// A record of a type that nobody knows, so that its bytes do not matter.
fn unknown(length: usize) -> Vec<u8> {
    let mut data = vec![0x5A; length];
    data[0] = 200;
    data
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes
}

/// Bytes up to `length` of a page, as one record.
fn up_to(length: usize) -> Vec<u8> {
    fragment(FULL, &unknown(length - 7))
}

/// What must be said of segments 0, 1, ...: how many records there are before the error, the segment and offset of the
/// error, and what it says.
struct Expected {
    records: u64,
    error: Option<(i64, u64, String)>,
}

fn fine(records: u64) -> Expected {
    Expected { records, error: None }
}

fn fails(records: u64, segment: i64, offset: usize, inner: impl Into<String>) -> Expected {
    Expected { records, error: Some((segment, offset as u64, inner.into())) }
}

struct Rule {
    name: &'static str,
    segments: Vec<Vec<u8>>,
    start: Expected,
    checkpoint: Expected,
}

/// One that says the same of both.
fn rule(name: &'static str, segments: Vec<Vec<u8>>, expected: fn() -> Expected) -> Rule {
    Rule { name, segments, start: expected(), checkpoint: expected() }
}

fn crc_of_zeros(length: usize) -> String {
    format!("{:x}", crc32c::crc32c(&vec![0; length]))
}

/// `shared/reference/prometheus-formats.md` calls the first of these the states of a segment's end.
fn rules() -> Vec<Rule> {
    let small = || fragment(FULL, &unknown(20));
    let mut rules = vec![
        rule("nothing at all", vec![vec![]], || fine(0)),
        rule("complete records, and a short page", vec![[small(), small()].concat(), small()], || fine(3)),
        rule(
            "padding and further pages of zeros",
            vec![padded([small(), vec![0; PAGE]].concat()), small()],
            || fine(2),
        ),
        rule(
            "a page of zeros between records",
            vec![[padded(small()), vec![0; PAGE], small()].concat(), small()],
            || fine(3),
        ),
        // Six zeros are made up for the rest of the header, and nothing has the checksum 0.
        rule(
            "a header cut behind its first byte, of a full record",
            vec![[small(), vec![FULL]].concat()],
            || fine(2),
        ),
        Rule {
            name: "a header cut behind its first byte, of a first fragment",
            segments: vec![[small(), vec![FIRST]].concat(), small(), small()],
            start: fine(3),
            checkpoint: fails(1, 1, 27, "unexpected full record"),
        },
        Rule {
            name: "a header cut behind its first byte, of a first fragment, before another first one",
            segments: vec![[small(), vec![FIRST]].concat(), fragment(FIRST, &unknown(MOST))],
            start: fails(1, 1, PAGE, "last record is torn"),
            checkpoint: fails(1, 1, PAGE, "unexpected first record, dropping buffer"),
        },
        Rule {
            name: "a header cut behind its length",
            segments: vec![[small(), vec![FULL, 0, 100]].concat(), small()],
            // A length of 100, a checksum of 0, and zeros.
            start: fails(1, 0, 27 + 107, format!("unexpected checksum {}, expected 0", crc_of_zeros(100))),
            checkpoint: fails(
                1,
                0,
                27 + 107,
                format!("unexpected checksum {}, expected 0", crc_of_zeros(100)),
            ),
        },
        Rule {
            name: "data cut",
            segments: vec![[small(), small()[..26].to_vec()].concat(), small()],
            start: {
                let cut = [&unknown(20)[..19], &[0]].concat();
                let (computed, stored) = (crc32c::crc32c(&cut), crc32c::crc32c(&unknown(20)));
                fails(1, 0, 54, format!("unexpected checksum {computed:x}, expected {stored:x}"))
            },
            checkpoint: {
                let cut = [&unknown(20)[..19], &[0]].concat();
                let (computed, stored) = (crc32c::crc32c(&cut), crc32c::crc32c(&unknown(20)));
                fails(1, 0, 54, format!("unexpected checksum {computed:x}, expected {stored:x}"))
            },
        },
        Rule {
            name: "a first fragment that ends with its page, and nothing behind it",
            segments: vec![fragment(FIRST, &unknown(MOST)), small()],
            start: fails(0, 0, PAGE, "last record is torn"),
            checkpoint: fails(0, 1, 27, "unexpected full record"),
        },
        rule(
            "the same in the last segment",
            vec![small(), [up_to(PAGE - 27), fragment(FIRST, &unknown(20))].concat()],
            || fails(2, 1, PAGE, "last record is torn"),
        ),
        Rule {
            name: "a middle fragment at the end",
            segments: vec![
                [fragment(FIRST, &unknown(MOST)), fragment(MIDDLE, &unknown(MOST))].concat(),
                [fragment(LAST, b"end"), small()].concat(),
            ],
            start: fails(0, 0, 2 * PAGE, "last record is torn"),
            // It goes on in the next segment.
            checkpoint: fine(2),
        },
        Rule {
            name: "a first fragment and padding",
            segments: vec![padded([small(), fragment(FIRST, &unknown(20))].concat()), small(), small()],
            start: fine(3),
            checkpoint: fails(1, 1, 27, "unexpected full record"),
        },
        rule(
            "a first fragment and padding at the very end",
            vec![small(), padded([small(), fragment(FIRST, &unknown(20))].concat())],
            || fine(2),
        ),
        rule(
            "a record joined over a page of zeros",
            vec![
                [fragment(FIRST, &unknown(MOST)), vec![0; PAGE], fragment(LAST, b"end"), small()].concat(),
                small(),
            ],
            || fine(3),
        ),
        rule("junk behind a zero", vec![[small(), vec![0, 0, 0, 7]].concat(), small()], || {
            fails(1, 0, PAGE, "unexpected non-zero byte in padded page")
        }),
        rule(
            "a zero as the last byte of a page ends no more than that",
            vec![[up_to(PAGE - 1), vec![0], small()].concat()],
            || fine(2),
        ),
        rule("a length of a page", vec![[small(), vec![FULL, 0x7F, 0xFA, 1, 2, 3, 4]].concat()], || {
            fails(1, 0, 27 + 7, "invalid record size 32762")
        }),
        rule("the longest fragment", vec![fragment(FULL, &unknown(MOST))], || fine(1)),
        // Nobody checks that a fragment stays in its page.
        rule(
            "a fragment across a page's end",
            vec![[up_to(PAGE - 100), fragment(FULL, &unknown(200)), small()].concat()],
            || fine(3),
        ),
        rule("a middle fragment alone", vec![[small(), fragment(MIDDLE, b"x")].concat()], || {
            fails(1, 0, 27 + 8, "unexpected middle record, dropping buffer")
        }),
        rule("a last fragment alone", vec![[small(), fragment(LAST, b"x")].concat()], || {
            fails(1, 0, 27 + 8, "unexpected last record, dropping buffer")
        }),
        rule("first upon first", vec![[fragment(FIRST, b"x"), fragment(FIRST, b"x")].concat()], || {
            fails(0, 0, 16, "unexpected first record, dropping buffer")
        }),
        rule("full upon first", vec![[fragment(FIRST, b"x"), small()].concat()], || {
            fails(0, 0, 8 + 27, "unexpected full record")
        }),
        rule(
            "the checksum is looked at before the order",
            vec![[fragment(FIRST, b""), with_crc(FULL, b"", 9)].concat()],
            || fails(0, 0, 14, "unexpected checksum 0, expected 9"),
        ),
        // The last header byte of the last page: the six that follow do not come, and that is an end like any other.
        rule(
            "a header's first byte as the last byte of all",
            vec![[up_to(PAGE - 1), vec![FULL]].concat()],
            || fine(1),
        ),
        rule("the same of a first fragment", vec![[up_to(PAGE - 1), vec![FIRST]].concat()], || {
            fails(1, 0, PAGE, "last record is torn")
        }),
        rule("a header across the end of all", vec![[up_to(PAGE - 3), vec![FULL, 0, 0]].concat()], || {
            fails(1, 0, PAGE, "read remaining header: unexpected EOF")
        }),
        rule(
            "data across the end of all",
            vec![[up_to(PAGE - 8), with_crc(FULL, &[1, 2], 7)[..8].to_vec()].concat()],
            || fails(1, 0, PAGE, "unexpected EOF"),
        ),
        rule(
            "data behind the end of all",
            vec![[up_to(PAGE - 7), with_crc(FULL, &[1, 2], 7)[..7].to_vec()].concat()],
            || fine(1),
        ),
        Rule {
            name: "a header and its data in two segments",
            segments: vec![
                [up_to(PAGE - 3), fragment(FULL, &unknown(20))[..3].to_vec()].concat(),
                [fragment(FULL, &unknown(20))[3..].to_vec(), small()].concat(),
            ],
            start: fails(1, 0, PAGE, "read remaining header: unexpected EOF"),
            checkpoint: fine(3),
        },
        rule("snappy that is none", vec![[small(), fragment(FULL | SNAPPY, b"\xFF\xFF")].concat()], || {
            fails(1, 0, 27 + 9, "snappy: corrupt input")
        }),
        rule(
            "nothing, and flags",
            vec![[fragment(FULL | SNAPPY, b""), fragment(FULL | ZSTD, b"")].concat()],
            || fine(2),
        ),
        // A block of one literal, 200.
        rule("both flags are snappy's", vec![fragment(FULL | SNAPPY | ZSTD, &[1, 0, 200])], || fine(1)),
        rule("zstd that is none", vec![fragment(FULL | ZSTD, b"no zstd")], || {
            fails(0, 0, 14, "invalid input: magic number mismatch")
        }),
        // The flags of the first are not looked at.
        rule(
            "only the last fragment's flags count",
            vec![[fragment(FIRST | ZSTD, &[1, 0]), fragment(LAST | SNAPPY, &[200])].concat()],
            || fine(1),
        ),
        rule("unused bits of a header", vec![fragment(FULL | 0xE0, &unknown(20))], || fine(1)),
        rule("what does not decode", vec![[small(), fragment(FULL, &[1, 0]), small()].concat()], || {
            fails(1, 0, 27 + 9, "decode series: invalid size")
        }),
        Rule {
            name: "a tombstone that does not decode",
            segments: vec![fragment(FULL, &[3, 0])],
            start: fails(0, 0, 9, "decode tombstones: invalid size"),
            checkpoint: fails(0, 0, 9, "decode deletes: invalid size"),
        },
        Rule {
            name: "histograms that do not decode",
            segments: vec![fragment(FULL, &[7, 0])],
            start: fails(0, 0, 9, "decode histograms: decode error after 0 histograms: invalid size"),
            checkpoint: fails(
                0,
                0,
                9,
                "decode histogram samples: decode error after 0 histograms: invalid size",
            ),
        },
        Rule {
            name: "float histograms that do not decode",
            segments: vec![fragment(FULL, &[8, 0])],
            start: fails(0, 0, 9, "decode float histograms: decode error after 0 histograms: invalid size"),
            checkpoint: fails(
                0,
                0,
                9,
                "decode float histogram samples: decode error after 0 histograms: invalid size",
            ),
        },
        rule("mmap markers have no business here", vec![fragment(FULL, &[5, 0])], || fine(1)),
    ];
    for head in [0x08, 0x10, 0x18, 0x20, 0xE0, 0xF8] {
        rules.push(rule(
            "a type of 0 with other bits ends the page",
            vec![padded([small(), vec![head]].concat()), small()],
            || fine(2),
        ));
    }
    for kind in 5..=7 {
        rules.push(Rule {
            name: "a type that there is not",
            segments: vec![[small(), fragment(kind, b"x")].concat()],
            start: fails(1, 0, 35, format!("unexpected record type {kind}")),
            checkpoint: fails(1, 0, 35, format!("unexpected record type {kind}")),
        });
    }
    rules
}

fn parts(segments: &[Vec<u8>]) -> Vec<Part<&[u8]>> {
    let part = |(index, bytes): (i64, &'_ Vec<u8>)| (index, bytes.len() as u64);
    let lengths = (0..).zip(segments).map(part);
    lengths
        .zip(segments)
        .map(|((index, length), bytes)| Part {
            dir: "data/wal".to_owned(),
            index,
            source: bytes.as_slice(),
            length,
        })
        .collect()
}

/// Segment after segment, up to the first error.
fn start(segments: &[Vec<u8>]) -> Reading {
    let mut all = Reading { records: 0, read_to: None, error: None };
    for part in parts(segments) {
        if all.error.is_none() {
            let reading = read(vec![part], Reader::Wal, Version::NEWEST);
            all = Reading { records: all.records + reading.records, ..reading };
        }
    }
    all
}

fn judge(rule: &Rule, of: &str, reading: &Reading, expected: &Expected) {
    let name = rule.name;
    assert_eq!(reading.records, expected.records, "{name}, {of}: {reading:?}");
    let Some((segment, offset, inner)) = &expected.error else {
        assert_eq!(reading.error, None, "{name}, {of}");
        return;
    };
    let Some(ReplayError::Corrupt { text, corruption }) = &reading.error else {
        panic!("{name}, {of}: {reading:?}");
    };
    assert_eq!(
        (corruption.segment, corruption.offset, &corruption.inner),
        (*segment, *offset, inner),
        "{name}, {of}"
    );
    let written = match (inner.starts_with("decode "), of) {
        (true, "start") => format!("corruption in segment {segment:08} at {offset}: {inner}"),
        (true, _) => inner.clone(),
        (false, _) => {
            let reads = if of == "start" { "read records" } else { "read segments" };
            format!("{reads}: corruption in segment data/wal/{segment:08} at {offset}: {inner}")
        }
    };
    assert_eq!(*text, written, "{name}, {of}");
}

#[test]
fn each_rule() {
    for rule in rules() {
        judge(&rule, "start", &start(&rule.segments), &rule.start);
        let checkpoint = read(parts(&rule.segments), Reader::Checkpoint, Version::NEWEST);
        judge(&rule, "checkpoint", &checkpoint, &rule.checkpoint);
    }
}

/// The rules are Prometheus's.
#[test]
fn prometheus_has_the_same_rules() {
    let oracle = oracle::judge("the rules of Prometheus's reader");
    let root = tempfile::tempdir().unwrap();
    let rules = rules();
    let mut dirs = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let dir = root.path().join(at.to_string());
        std::fs::create_dir(&dir).unwrap();
        for (index, bytes) in rule.segments.iter().enumerate() {
            std::fs::write(dir.join(format!("{index:08}")), bytes).unwrap();
        }
        dirs.push(dir);
    }
    for (args, of) in [(&[][..], "start"), (&["--concat"], "checkpoint")] {
        for (rule, answer) in rules.iter().zip(oracle.read_batch(args, &dirs)) {
            let expected = if of == "start" { &rule.start } else { &rule.checkpoint };
            let name = rule.name;
            assert_eq!(answer["records"], expected.records, "{name}, {of}: {answer}");
            let place = expected.error.as_ref().map(|(segment, offset, _)| (*segment, *offset));
            let theirs = answer["segment"].as_i64().zip(answer["offset"].as_u64());
            assert_eq!(theirs, place, "{name}, {of}: {answer}");
            let inner = expected.error.as_ref().map_or("", |(.., inner)| inner);
            assert!(answer["error"].as_str().unwrap_or_default().ends_with(inner), "{name}, {of}: {answer}");
        }
    }
}

/// Where a record ends, and what is in it.
#[test]
fn records_are_lent_with_their_ends() {
    let segments = [
        [fragment(FULL, &unknown(20)), vec![FULL]].concat(),
        [fragment(FIRST, b"\xC8ab"), vec![0; PAGE - 10], fragment(LAST, b"cd")].concat(),
    ];
    let mut replay = Replay::new(parts(&segments), Version::NEWEST);
    let mut seen = Vec::new();
    while let Some(record) = replay.next() {
        seen.push((record.part, record.end, record.data.to_vec()));
    }
    assert_eq!(replay.error(), None);
    let expected = [
        (0, 27, unknown(20)),
        // Its header is made up, beyond the segment's end.
        (0, 34, vec![]),
        (1, PAGE as u64 + 9, b"\xC8abcd".to_vec()),
    ];
    assert_eq!(seen, expected);
    assert!(replay.next().is_none());
}

#[test]
fn what_was_read_last_is_told() {
    let segments = [fragment(FULL, &unknown(20)), [fragment(FULL, b"\xC8"), vec![0, 1]].concat()];
    let reading = read(parts(&segments), Reader::Checkpoint, Version::NEWEST);
    assert_eq!((reading.records, reading.read_to), (2, Some((1, 8))));
    let Some(ReplayError::Corrupt { corruption, .. }) = reading.error else { panic!("no error") };
    assert_eq!((corruption.part, corruption.class), (1, Class::Padding));
}

/// A directory is opened like a file, and cannot be read.
#[test]
fn a_directory_instead_of_a_segment() {
    let root = tempfile::tempdir().unwrap();
    let wal = root.path().join("wal");
    std::fs::create_dir_all(wal.join("00000001")).unwrap();
    std::fs::write(wal.join("00000000"), fragment(FIRST, &unknown(MOST))).unwrap();
    let dir = wal.to_str().unwrap();
    let part = |index: i64| {
        let source = std::fs::File::open(wal.join(format!("{index:08}"))).unwrap();
        let length = source.metadata().unwrap().len();
        Part { dir: dir.to_owned(), index, source, length }
    };
    let inner = format!("read first header byte: read {dir}/00000001: is a directory");
    // Some file systems say that a directory has no bytes.
    for length in [0, 4096] {
        let reading = read(vec![Part { length, ..part(1) }], Reader::Wal, Version::NEWEST);
        let Some(ReplayError::Corrupt { text, corruption }) = reading.error else { panic!("no error") };
        assert_eq!(text, format!("read records: corruption in segment {dir}/00000001 at 0: {inner}"));
        assert_eq!((corruption.class, corruption.offset), (Class::Medium, 0));
    }
    let checkpoint = read(vec![part(0), part(1)], Reader::Checkpoint, Version::NEWEST);
    let Some(ReplayError::Corrupt { text, .. }) = checkpoint.error else { panic!("no error") };
    let oracle = oracle::judge("a directory instead of a segment");
    assert_eq!(oracle.json(&["read", "--concat"], &wal)["error"], text);
    std::fs::write(wal.join("00000000"), fragment(FULL, &unknown(MOST))).unwrap();
    let start = read(vec![part(1)], Reader::Wal, Version::NEWEST);
    let Some(ReplayError::Corrupt { text, .. }) = start.error else { panic!("no error") };
    assert_eq!(oracle.json(&["read"], &wal)["error"], text);
}

/// On a disk that fails, Prometheus's error is the system's.
#[cfg(target_os = "linux")]
#[test]
fn bytes_that_the_medium_does_not_give() {
    use support::fuse::{Mounted, Node};
    let oracle = oracle::judge("unreadable bytes");
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/logs/small-snappy/00000000");
    let bytes = std::fs::read(log).unwrap();
    for seed in support::seeds(2000).step_by(50) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let from = rng.u64(..bytes.len() as u64) / 512 * 512;
        let bad = std::slice::from_ref(&(from..from + 512)).to_vec();
        let node = Node { fails_whole: rng.bool(), ..Node::with_bad(&bytes, &bad) };
        let what = format!("seed {seed}: {bad:?}, fails whole: {}", node.fails_whole);
        let nodes = vec![Node::of(&bytes), node, Node::of(&bytes)];
        let mounted = Mounted::new("unreadable bytes", nodes);
        let wal = mounted.path().join("wal");
        let part = |index: i64| {
            let source = std::fs::File::open(wal.join(format!("{index:08}"))).unwrap();
            let length = source.metadata().unwrap().len();
            Part { dir: wal.to_str().unwrap().to_owned(), index, source, length }
        };
        let alone = read(vec![part(0)], Reader::Wal, Version::NEWEST);
        let start = read(vec![part(1)], Reader::Wal, Version::NEWEST);
        let checkpoint = read((0..3).map(part).collect(), Reader::Checkpoint, Version::NEWEST);
        for (args, before, reading) in
            [(&["read"][..], alone.records, start), (&["read", "--concat"], 0, checkpoint)]
        {
            let answer = oracle.json(args, &wal);
            let Some(ReplayError::Corrupt { text, corruption }) = reading.error else { panic!("{what}") };
            assert_eq!(corruption.class, Class::Medium, "{what}");
            assert_eq!(answer["error"], text, "{what}");
            assert_eq!(answer["records"], before + reading.records, "{what}");
            assert_eq!(answer["offset"], corruption.offset, "{what}");
        }
    }
}
