//! Reports made by hand, and at random, for the tests of the faces.

use std::collections::BTreeMap;

use crate::block::StoredChunkError;
use crate::forecast::report::{Forecast, Outcome, Place, Samples, Start, Truncate};
use crate::repair::plan::{
    Change, Content, Defect, Loss, Method, Patch, PlanStep, Removal, RepairedFinding, Resolution,
};
use crate::repair::{self, Mode, Plan, Plans};
use crate::scan::blocks::detail::BlockDetail;
use crate::scan::blocks::{BlockReport, BlockState, Consequence, Depth};
use crate::scan::code::Code;
use crate::scan::deletions::DeletionsLost;
use crate::scan::detail::Detail;
use crate::scan::report::{
    Cause, Correction, Dialect, Entries, Finding, HighestRefs, Log, LogKind, Lost, Reason, Report, SCHEMA,
    Segment, Severity, State, Times, Verdict,
};

/// 2026-11-21 19:24:15 UTC.
pub(crate) const FROM: i64 = 1_795_289_055_000;
/// 2026-11-21 19:30:31 UTC.
pub(crate) const TO: i64 = 1_795_289_431_000;

pub(crate) fn log(kind: LogKind, path: &str, segments: i64, bytes: u64) -> Log {
    Log {
        kind,
        path: path.into(),
        dialect: Dialect::Prometheus,
        bytes: bytes * segments.unsigned_abs(),
        segments: (0..segments)
            .map(|index| Segment {
                index,
                path: format!("{path}/{index:08}"),
                bytes,
                records: 0,
                data_end: 0,
            })
            .collect(),
        records: BTreeMap::new(),
        entries: Entries::default(),
        min_time: None,
        max_time: None,
    }
}

pub(crate) fn report(logs: Vec<Log>, findings: Vec<Finding>) -> Report {
    let damaged = findings.iter().any(|finding| finding.severity == Severity::Damage);
    Report {
        schema: SCHEMA,
        walfix: "0.1.0",
        path: "/prometheus".into(),
        verdict: if damaged { Verdict::Damaged } else { Verdict::Clean },
        state: if damaged { State::Damaged } else { State::Clean },
        reasons: if damaged { vec![Reason::Damage] } else { Vec::new() },
        logs,
        blocks: Vec::new(),
        depth: Depth::Checksums,
        findings,
        refs: HighestRefs { defined: Some(4711), unknown: None },
    }
}

pub(crate) fn finding(code: Code, severity: Severity, path: &str) -> Finding {
    Finding {
        code,
        severity,
        log: path.rsplit_once('/').map(|(log, _)| log.into()),
        path: path.into(),
        segment: path.rsplit_once('/').and_then(|(_, name)| name.parse().ok()),
        offset: None,
        end: None,
        detail: Detail::Words(String::new()),
        cause: None,
        places: 1,
        lost: Lost::default(),
        orphans: Vec::new(),
        correction: None,
        series: None,
        times: None,
        gone: None,
    }
}

fn full_log() -> Log {
    Log {
        records: BTreeMap::from([("series", 22), ("samples", 1_000)]),
        entries: Entries { series: 212, samples: 778_000, ..Entries::default() },
        min_time: Some(FROM),
        max_time: Some(TO),
        ..log(LogKind::Wal, "wal", 4, 1_300_000)
    }
}

pub(crate) fn empty() -> Report {
    report(vec![log(LogKind::Wal, "wal", 0, 0)], Vec::new())
}

pub(crate) fn clean() -> Report {
    report(vec![full_log()], Vec::new())
}

pub(crate) fn one_damage() -> Report {
    let damage = Finding {
        offset: Some(19_934),
        end: Some(32_768),
        detail: Detail::Words("the data do not have the checksum that their header says".into()),
        cause: Some(Cause::OneFlippedBit),
        lost: Lost { records: Some(1), entries: Some(778) },
        orphans: vec![(32_768, 40_000)],
        correction: Some(Correction {
            offset: 20_001,
            bit: 3,
            record: "samples",
            entries: 778,
            odds: 4_294_967_296,
        }),
        series: Some(3),
        times: Some(Times { from: Some(FROM), to: Some(TO) }),
        gone: Some(Times { from: None, to: Some(FROM) }),
        ..finding(Code::ChecksumMismatch, Severity::Damage, "wal/00000002")
    };
    report(vec![full_log()], vec![damage])
}

pub(crate) fn many() -> Report {
    let mut findings = Vec::new();
    for index in 3..=17 {
        findings.push(Finding {
            detail: Detail::Words("no series record defines this ref".into()),
            ..finding(Code::UnknownRefs, Severity::Warning, &format!("wal/{index:08}"))
        });
        findings.push(Finding {
            offset: Some(32_768),
            end: Some(98_304),
            detail: Detail::Words("pages of zeros with something behind them".into()),
            cause: Some(Cause::NeverWritten),
            places: 2,
            ..finding(Code::ZeroedPages, Severity::Damage, &format!("wal/{index:08}"))
        });
    }
    let mut checkpoint = log(LogKind::Checkpoint, "wal/checkpoint.00000002", 1, 32_768);
    checkpoint.records = BTreeMap::from([("series", 1), ("tombstones", 1)]);
    checkpoint.entries = Entries { series: 1, tombstones: 3, ..Entries::default() };
    report(
        vec![Log { segments: log(LogKind::Wal, "wal", 18, 1).segments, ..full_log() }, checkpoint],
        findings,
    )
}

pub(crate) fn huge() -> Report {
    let mut log = log(LogKind::ChunkSnapshot, "chunk_snapshot.000017.0000032768", 1, u64::MAX);
    log.records = BTreeMap::from([("series", u64::MAX), ("unknown", u64::MAX)]);
    log.entries = Entries { series: u64::MAX, samples: u64::MAX, histograms: 1, ..Entries::default() };
    log.min_time = Some(i64::MIN);
    log.max_time = Some(i64::MAX);
    let damage = Finding {
        offset: Some(u64::MAX - 1),
        end: Some(u64::MAX),
        segment: Some(i64::MAX),
        detail: Detail::Words("x".repeat(250)),
        cause: Some(Cause::WrittenWrong),
        places: u64::MAX,
        lost: Lost { records: Some(u64::MAX), entries: None },
        orphans: vec![(0, u64::MAX); 40],
        correction: Some(Correction {
            offset: u64::MAX,
            bit: 7,
            record: "custom_buckets_float_histogram_samples",
            entries: u64::MAX,
            odds: u64::MAX,
        }),
        ..finding(Code::DecodeError, Severity::Damage, "chunk_snapshot.000017.0000032768/00000000")
    };
    report(vec![log], vec![damage])
}

pub(crate) fn strange_path() -> Report {
    let mut wal = log(LogKind::Wal, "", 1, 5);
    wal.dialect = Dialect::Loki;
    wal.segments[0].path = "00000000".into();
    let torn = Finding {
        log: Some(String::new()),
        offset: Some(0),
        end: Some(5),
        detail: Detail::Words("the file ends within a fragment".into()),
        cause: Some(Cause::TornByCrash),
        lost: Lost { records: Some(1), entries: None },
        ..finding(Code::TornRecord, Severity::Note, "00000000")
    };
    Report {
        path: "/données/Prometheus データ/a\nb\u{1b}[2J/wal".into(), ..report(vec![wal], vec![torn])
    }
}

/// Blocks in all states, one of them damaged.
pub(crate) fn with_blocks() -> Report {
    let block = |ulid: &str, state, consequences: &[Consequence]| BlockReport {
        ulid: ulid.to_owned(),
        state,
        bytes: 12_000_000,
        min_time: Some(FROM),
        max_time: Some(TO),
        level: Some(1),
        series: Some(4_614),
        chunks: Some(27_684),
        samples: Some(1_591_281),
        tombstones: 2,
        consequences: consequences.to_vec(),
    };
    let (chunk, index) = ("01M7ZSDEW2NQRH6M2XAA4ZSB2R/chunks/000001", "01M7ZSDEW2NQRH6M2XAA4ZSB2R/index");
    let damaged = Finding {
        log: None,
        segment: None,
        offset: Some(8),
        end: Some(1_200),
        detail: Detail::Block(BlockDetail::ChunkUnreadable {
            error: StoredChunkError::Checksum { stored: 0xe0_b3_2a, computed: 0xf926_6f7b, end: 1_200 },
        }),
        series: Some(1),
        times: Some(Times { from: Some(FROM), to: Some(TO) }),
        ..finding(Code::DamagedBlockChunk, Severity::Damage, chunk)
    };
    let postings = Finding {
        log: None,
        lost: Lost { records: Some(0), entries: Some(0) },
        detail: Detail::Block(BlockDetail::PostingsDiffer),
        ..finding(Code::DamagedBlockIndex, Severity::Damage, index)
    };
    let fails = [Consequence::QueriesFail, Consequence::CompactionFails, Consequence::DumpsDrop];
    Report {
        blocks: vec![
            block("01M7ZSDEA9DH6MZZGZ90FPAGSY", BlockState::Intact, &[]),
            block("01M7ZSDEW2NQRH6M2XAA4ZSB2R", BlockState::Damaged, &fails),
            block("01M7ZSDEW2NQRH6M2XAA4ZSB2S", BlockState::NotOpened, &[Consequence::RefusesToStart]),
            BlockReport {
                min_time: None,
                max_time: None,
                level: None,
                series: None,
                chunks: None,
                samples: None,
                bytes: 0,
                ..block("01M7ZSDEW2NQRH6M2XAA4ZSB2T", BlockState::Skipped, &[Consequence::Invisible])
            },
            block("01M7ZSDEW2NQRH6M2XAA4ZSB2V", BlockState::Replaced, &[Consequence::Deleted]),
        ],
        depth: Depth::Samples,
        ..report(Vec::new(), vec![damaged, postings])
    }
}

pub(crate) fn by_hand() -> Vec<Report> {
    vec![empty(), clean(), one_damage(), many(), huge(), strange_path(), with_blocks()]
}

fn missing(series: u64, samples: u64) -> Samples {
    Samples { series, samples, min_time: Some(FROM), max_time: Some(TO) }
}

fn start(outcome: Outcome) -> Start {
    Start {
        outcome,
        error: None,
        snapshot_in_error: None,
        error_place: None,
        fatal: None,
        deletes: Vec::new(),
        truncates: Vec::new(),
        not_replayed: Samples::default(),
        gone: Samples::default(),
        unknown_refs: Samples::default(),
        wrong_labels: Samples::default(),
        hidden_by_snapshot: Samples::default(),
        only_in_snapshot: Samples::default(),
        hidden_by_head_chunks: Samples::default(),
        only_in_head_chunks: Samples::default(),
        passed_over: Samples::default(),
        deletions_lost: DeletionsLost::None,
    }
}

fn forecast(starts: Vec<Start>) -> Forecast {
    Forecast {
        version: "3.14".into(),
        agent: false,
        starts,
        poisoned: false,
        next_checkpoint_error: None,
        next_checkpoint_place: None,
        without_snapshots: None,
        refuses_until: None,
        next_compaction_error: None,
        no_room: None,
    }
}

pub(crate) fn checkpoint_damaged() -> Forecast {
    let said = "backfill checkpoint: read records: corruption in segment \
                /prometheus/wal/checkpoint.00000003/00000000 at 32768: unexpected checksum 1, expected 2";
    let rename = "rename /prometheus/wal/00000000 /prometheus/wal/00000000.repair: no such file or directory";
    let first = Start {
        error: Some(said.into()),
        fatal: Some(format!("opening storage failed: repair corrupted WAL: {rename}")),
        deletes: vec!["wal/00000004".into(), "wal/00000005".into(), "wal/00000006".into()],
        not_replayed: missing(700, 107_300),
        gone: missing(212, 88_000),
        ..start(Outcome::Refuses)
    };
    let second = Start {
        error: Some(said.into()),
        not_replayed: missing(700, 107_300),
        gone: missing(212, 88_000),
        ..start(Outcome::Loses)
    };
    Forecast { poisoned: true, ..forecast(vec![first, second]) }
}

pub(crate) fn cut() -> Forecast {
    let said = "read records: corruption in segment /prometheus/wal/00000004 at 20364: unexpected checksum 1, \
                expected 2";
    let first = Start {
        error: Some(said.into()),
        error_place: Some(Place { path: "wal/00000004".into(), offset: 19_934 }),
        deletes: (5..=12).map(|index| format!("wal/{index:08}")).collect(),
        truncates: vec![Truncate { path: "wal/00000004".into(), offset: 19_934 }],
        not_replayed: missing(212, 88_000),
        gone: missing(212, 88_000),
        ..start(Outcome::Loses)
    };
    let second = Start { not_replayed: first.not_replayed, gone: first.gone, ..start(Outcome::Loses) };
    forecast(vec![first, second])
}

pub(crate) fn silent() -> Forecast {
    Forecast {
        next_checkpoint_error: Some(
            "create checkpoint: read segments: corruption in segment /prometheus/wal/00000005 at 311: \
             unexpected full record"
                .into(),
        ),
        next_checkpoint_place: Some(Place { path: "wal/00000004".into(), offset: 19_934 }),
        ..forecast(vec![start(Outcome::Starts)])
    }
}

pub(crate) fn without_labels() -> Forecast {
    forecast(vec![Start { unknown_refs: missing(212, 19_300), ..start(Outcome::Starts) }])
}

pub(crate) fn hanging_agent() -> Forecast {
    let all = missing(700, 107_300);
    Forecast { agent: true, ..forecast(vec![Start { not_replayed: all, ..start(Outcome::Hangs) }]) }
}

pub(crate) fn forecasts() -> Vec<Forecast> {
    vec![checkpoint_damaged(), cut(), silent(), hanging_agent(), without_labels()]
}

/// A report of which only the types are right.
pub(crate) fn random(rng: &mut fastrand::Rng) -> Report {
    fn number(rng: &mut fastrand::Rng) -> u64 {
        let bits = rng.u32(0..64);
        rng.u64(..) >> bits
    }
    fn time(rng: &mut fastrand::Rng) -> Option<i64> {
        let any = number(rng).cast_signed();
        *rng.choice(&[None, Some(FROM), Some(TO), Some(any), Some(any.wrapping_neg())]).expect("not empty")
    }
    fn text(rng: &mut fastrand::Rng, most: usize) -> String {
        let alphabet: Vec<char> =
            "abcdefghij/0123456789.é\u{301}日本\n\t\u{7f}\u{1f}\u{a0}\u{202e}🦀 ".chars().collect();
        (0..rng.usize(..=most)).map(|_| *rng.choice(&alphabet).expect("not empty")).collect()
    }
    fn some<T>(rng: &mut fastrand::Rng, value: T) -> Option<T> {
        rng.bool().then_some(value)
    }
    let logs = (0..rng.usize(0..4))
        .map(|_| {
            let kinds = [LogKind::Wal, LogKind::Wbl, LogKind::Checkpoint, LogKind::ChunkSnapshot];
            let mut log = log(kinds[rng.usize(..4)], &text(rng, 120), rng.i64(0..4), number(rng) / 4);
            log.dialect = if rng.bool() { Dialect::Prometheus } else { Dialect::Loki };
            log.records = BTreeMap::from([("series", number(rng)), ("unknown", number(rng))]);
            log.entries = Entries {
                series: number(rng),
                samples: number(rng),
                histograms: number(rng),
                float_histograms: number(rng),
                exemplars: number(rng),
                tombstones: number(rng),
                metadata: number(rng),
                mmap_markers: number(rng),
            };
            log.min_time = time(rng);
            log.max_time = time(rng);
            log
        })
        .collect();
    let causes = [
        Cause::TornByCrash,
        Cause::NeverWritten,
        Cause::HalfWritten,
        Cause::OneFlippedBit,
        Cause::Overwritten,
        Cause::DuplicatedPage,
        Cause::Unreadable,
        Cause::CutWhileRead,
        Cause::AbandonedWrite,
        Cause::WrittenWrong,
        Cause::Files,
    ];
    let findings = (0..rng.usize(0..30))
        .map(|_| {
            let severity = [Severity::Damage, Severity::Warning, Severity::Note][rng.usize(..3)];
            let code = [Code::ZeroedPages, Code::TornRecord][rng.usize(..2)];
            let number = |rng: &mut fastrand::Rng| {
                let any = number(rng);
                some(rng, any)
            };
            Finding {
                log: ["wal", "wbl"].get(rng.usize(..3)).map(ToString::to_string),
                segment: number(rng).map(u64::cast_signed),
                offset: number(rng),
                end: number(rng),
                detail: Detail::Words(text(rng, 300)),
                cause: causes.get(rng.usize(..12)).copied(),
                places: number(rng).unwrap_or(1).max(1),
                lost: Lost { records: number(rng), entries: number(rng) },
                orphans: vec![(1, 2); rng.usize(..20)],
                correction: number(rng).map(|odds| Correction {
                    offset: odds,
                    bit: rng.u32(..8),
                    record: "samples",
                    entries: odds,
                    odds,
                }),
                series: number(rng),
                times: rng.bool().then(|| Times { from: time(rng), to: time(rng) }),
                gone: rng.bool().then(|| Times { from: time(rng), to: time(rng) }),
                ..finding(code, severity, &text(rng, 150))
            }
        })
        .collect();
    Report { path: text(rng, 150), ..report(logs, findings) }
}

/// Of a directory in which one record is damaged.
pub(crate) fn plans() -> Plans {
    let options = repair::Options::default();
    let mut salvage = Plan::empty("/prometheus".to_owned(), options);
    salvage.steps.push(PlanStep {
        change: Change::Patch {
            path: "wal/00000003".into(),
            method: Method::InPlace,
            patches: vec![
                Patch { offset: 100, replaces: 1, with: Content::Bytes(vec![7]) },
                Patch { offset: 19_934, replaces: 12_834, with: Content::FillToPageEnd(12_834) },
            ],
        },
        repairs: vec![RepairedFinding {
            code: Code::ChecksumMismatch.into(),
            offset: Some(19_934),
            end: Some(32_768),
            defect: Defect::Words("checksum mismatch".into()),
            resolution: Resolution::Removed { removal: Removal::Overwritten, deletions: false },
        }],
        lost: Loss::new(Some(1), None),
    });
    let mut prometheus = salvage.clone();
    prometheus.mode = Mode::Prometheus;
    prometheus.steps.push(PlanStep {
        change: Change::SetAside { path: "wal/00000004".into(), bytes: 32_768 },
        repairs: Vec::new(),
        lost: Loss::default(),
    });
    Plans { salvage, prometheus }
}
