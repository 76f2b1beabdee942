//! Reads a directory through [`crate::wal`], [`crate::record`] and [`crate::tsdb`] into a [`report::Report`].
//!
//! Segments are read in parallel, in stretches of a few MiB where nothing is wrong with them ([`stretches`]), and by [`salvage`]
//! elsewhere; what needs their order is done afterwards, in order.

pub mod blocks;
mod cause;
pub use crate::code;
pub(crate) mod context;
pub mod deletions;
pub mod detail;
pub(crate) mod findings;
pub mod frames;
mod generations;
pub(crate) mod heads;
mod live;
pub(crate) mod misplaced;
mod parallel;
mod references;
pub mod report;
#[doc(hidden)]
pub mod salvage;
mod segment;
pub(crate) mod sequence;
#[doc(hidden)]
pub mod settled;
mod stretches;
mod walk;

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::path::PathBuf;

use rayon::prelude::*;

use self::heads::{HeadChunkFacts, HighestDefined, ScannedHeadChunks};
use self::misplaced::Arrangement;
use self::references::{References, SegmentRefs};
use self::report::{Dialect, Finding, Log, Reason, Report, SCHEMA, Segment, Severity, State, Verdict};
use self::segment::{SegmentScan, Tally};
use self::settled::Settlements;
use self::stretches::Task;
use crate::io::Cancel;
use crate::tsdb::replay_order::{ReplayOrder, Role};
use crate::tsdb::{Listing, LogDirectory, LogKind, Target};

/// How to scan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads to read with; as many as there are processors if it is not given.
    pub threads: Option<NonZeroUsize>,
    /// How much of each block is verified.
    pub depth: blocks::Depth,
}

/// Hears how far a scan is, from any thread, and can give it up.
pub trait Progress: Cancel {
    /// So many more bytes are to be read.
    fn total(&self, bytes: u64);
    /// So many more have been.
    fn advance(&self, bytes: u64);
}

impl Progress for () {
    fn total(&self, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
}

/// Why a scan could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The directory cannot be listed.
    #[error("cannot list {path}")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A segment cannot be opened, and it is not that it has gone.
    #[error("cannot open {path}")]
    Open {
        /// The segment.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It was given up.
    #[error("the scan was interrupted")]
    Cancelled,
    /// No threads could be had.
    #[error("cannot start the threads to read with")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// A report, and what a scan knows besides, so that whoever reads the directory next need not find it out again.
///
/// It can be used as its [`Report`].
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// What was found.
    pub report: Report,
    /// How what was in doubt was decided.
    pub(crate) settled: Settlements,
    /// What is known of head chunks.
    pub(crate) head_chunks: HeadChunkFacts,
    /// Where pages belong that are not there.
    pub(crate) misplaced: Option<Arrangement>,
}

impl Deref for Scan {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

/// Reads all of `target`, and changes nothing.
///
/// Bytes that cannot be read are findings, no errors. A segment that vanishes between listing and opening has been
/// removed by a running Prometheus, and is skipped.
///
/// # Errors
/// If a directory cannot be listed, or a segment not be opened.
pub fn scan(target: &Target, options: &Options, progress: &dyn Progress) -> Result<Scan, ScanError> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(threads(options.threads)).build()?;
    threads.install(|| {
        // Blocks first: a server at work changes its logs, and the forecast reads them again soon after.
        let of_blocks = if target.is_data_directory() {
            blocks::read(target.path(), options.depth, progress)?
        } else {
            blocks::ScannedBlocks::default()
        };
        let listing =
            target.list().map_err(|source| ScanError::List { path: target.path().to_owned(), source })?;
        read(target, &listing, (options.depth, of_blocks), progress)
    })
}

/// Threads for each processor, at most: more only take memory.
const THREADS: usize = 4;

/// How many threads read where so many are asked for. 0 means one for each processor.
#[must_use]
pub fn threads(asked: Option<NonZeroUsize>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or(0, |asked| asked.get().min(THREADS * processors))
}

fn read(
    target: &Target,
    listing: &Listing,
    (depth, of_blocks): (blocks::Depth, blocks::ScannedBlocks),
    progress: &dyn Progress,
) -> Result<Scan, ScanError> {
    let dialects: Vec<Dialect> = listing.logs.par_iter().map(segment::dialect).collect();
    let order = order_of(listing, &dialects);
    let steps = order.segments(listing);
    let mut references = References::default();
    // Label sets are only asked for where segments have numbers that the checkpoint covers.
    let hasher = steps.iter().any(|step| step.role == Role::Below).then(|| references.hasher());
    let heads = ScannedHeadChunks::read(target, listing, &order, &|| live::is_written(target));
    let mut scans: Vec<Vec<Option<SegmentScan>>> =
        listing.logs.iter().map(|log| log.segments.iter().map(|_| None).collect()).collect();
    let tasks: Vec<Task<'_>> = steps
        .iter()
        .map(|&step| Task {
            segment: &listing.logs[step.log].segments[step.segment],
            reading: segment::reading(listing.logs[step.log].kind, dialects[step.log]),
            refs: SegmentRefs::new(step.role, hasher.as_ref(), heads.earliest.as_ref()),
        })
        .collect();
    stretches::read(&tasks, progress, |at, mut scan| {
        let step = steps[at];
        references.add(at, step.role, scan.as_mut().and_then(|scan| scan.refs.take()));
        scans[step.log][step.segment] = scan;
    })?;

    let mut report = Report {
        schema: SCHEMA,
        walfix: env!("CARGO_PKG_VERSION"),
        path: target.path().display().to_string(),
        verdict: Verdict::Clean,
        state: State::Clean,
        reasons: Vec::new(),
        logs: Vec::new(),
        blocks: Vec::new(),
        depth,
        findings: Vec::new(),
        refs: references.highest(),
    };
    let mut settled = Settlements::default();
    for (task, &step) in tasks.iter().zip(&steps) {
        if let Some(scan) = &mut scans[step.log][step.segment]
            && let Some(state) = scan.state
        {
            let (decisions, facts) = (scan.decisions.take(), std::mem::take(&mut scan.facts));
            let intact = std::mem::take(&mut scan.intact);
            settled.add(state, scan.bytes, task.reading, decisions, facts, intact);
        }
    }
    let of_logs: Vec<Vec<Finding>> =
        listing.logs.iter().zip(&scans).map(|(log, scans)| findings::of_log(log, scans)).collect();
    let is_intact = |log: Option<usize>| {
        log.is_none_or(|log| of_logs[log].iter().all(|finding| finding.severity != Severity::Damage))
    };
    let troubles = references::troubles((target, listing), &steps, &scans, &references, &settled);
    let mut of_state = sequence::of_names(listing, &order);
    let of_numbers =
        generations::of_numbers(listing, &order, &scans, &references, is_intact(order.checkpoint));
    of_state.extend(of_numbers);
    live::forget_states_of_the_moment(target, listing, &order, &dialects, &mut of_state);
    let why = references::Why {
        damage: !(is_intact(order.checkpoint) && is_intact(order.wal)),
        files: of_state.iter().any(|finding| sequence::MISSING.contains(&finding.code))
            || order.checkpoint.is_some_and(|log| {
                let is_emptied = |finding: &Finding| {
                    finding.code == report::Code::EmptySegment && finding.severity != Severity::Note
                };
                of_logs[log].iter().any(is_emptied)
            }),
    };
    let mut of_refs = references::findings(listing, &troubles, why);
    of_refs.extend(references.not_judged(listing, &order));
    of_refs.extend(references.above_in_wbl(listing, &order));
    sequence::weigh(&mut of_state, &of_refs);
    let (mut of_pages, mut arrangement) = (Vec::new(), None);
    // A place that cannot be read has findings of its own.
    if misplaced::is_suspected(&steps, &scans, &of_refs)
        && !of_state.iter().any(Finding::is_of_generations)
        && let Ok(Some((pages, found))) = misplaced::find(listing, &steps, &settled)
    {
        arrangement = Some(pages);
        of_pages = found;
    }

    for (at, (directory, of_log)) in listing.logs.iter().zip(of_logs).enumerate() {
        let log = log_of(directory, dialects[at], &scans[at]);
        let of_this = |finding: &mut Finding| finding.log.as_ref() == Some(&directory.relative);
        report.findings.extend(of_state.extract_if(.., of_this));
        report.findings.extend(of_log);
        report.findings.extend(of_pages.extract_if(.., of_this));
        report.findings.extend(references::misplaced(directory, &log));
        report.findings.extend(of_refs.extract_if(.., of_this));
        report.logs.push(log);
    }
    let defined = match report.refs.defined {
        _ if !references.are_all_known() => HighestDefined::NotKnown,
        None => HighestDefined::None,
        Some(highest) => HighestDefined::UpTo(highest),
    };
    let (of_heads, facts) = heads.findings(&references.of_other_chunks, defined);
    report.findings.extend(of_heads);
    let head_chunks = HeadChunkFacts { may_lack_first: references.chunks_lack, ..facts };
    report.findings.extend(findings::of_strays(&listing.strays));
    report.findings.extend(of_blocks.findings);
    report.findings.extend(blocks::of_times(&of_blocks.blocks, &report.logs));
    report.blocks = of_blocks.blocks;
    debug_assert!(
        report.findings.iter().all(Finding::has_a_severity_of_its_code),
        "a severity that the documents do not have"
    );
    if report.of_severity(Severity::Damage).next().is_some() {
        report.judge(State::Damaged, vec![Reason::Damage]);
    }
    Ok(Scan { report, settled, head_chunks, misplaced: arrangement })
}

/// The logs that Prometheus replays, and none where Loki reads them by rules of its own.
fn order_of(listing: &Listing, dialects: &[Dialect]) -> ReplayOrder {
    if dialects.contains(&Dialect::Loki) { ReplayOrder::default() } else { ReplayOrder::of(listing) }
}

fn log_of(directory: &LogDirectory, dialect: Dialect, scans: &[Option<SegmentScan>]) -> Log {
    let mut all = Tally::default();
    let mut segments = Vec::new();
    for (file, scan) in directory.segments.iter().zip(scans) {
        let Some(scan) = scan else { continue };
        all.add(&scan.tally);
        segments.push(Segment {
            index: file.index,
            path: directory.relative_of(file),
            bytes: scan.bytes,
            records: scan.tally.records.values().sum(),
            data_end: scan.data_end,
        });
    }
    Log {
        kind: directory.kind,
        path: directory.relative.clone(),
        dialect,
        bytes: segments.iter().map(|segment| segment.bytes).sum(),
        segments,
        records: all.records,
        entries: all.entries,
        min_time: all.min_time,
        max_time: all.max_time,
    }
}

/// Whether a crash leaves torn records in such a log. Checkpoints and snapshots get their name when they are complete.
fn may_be_torn(kind: LogKind) -> bool {
    matches!(kind, LogKind::Wal | LogKind::Wbl)
}
