//! Reads a directory through [`crate::wal`], [`crate::record`] and [`crate::tsdb`] into a [`report::Report`].
//!
//! Segments are read in parallel, each by [`salvage`]; what needs their order is done afterwards, in order.

mod cause;
mod context;
mod findings;
pub mod frames;
pub mod report;
pub mod salvage;
mod segment;

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use rayon::prelude::*;

use self::report::{Dialect, Log, Report, SCHEMA, Segment, Severity, Verdict};
use self::segment::{SegmentScan, Tally};
use crate::tsdb::{Listing, LogDirectory, LogKind, Target};

/// How to scan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads to read with; as many as there are processors if it is left out.
    pub threads: Option<NonZeroUsize>,
}

/// Told how far a scan is; from any thread.
pub trait Progress: Sync {
    /// So many bytes are to be read.
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
    /// No threads could be had.
    #[error("cannot start the threads to read with")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Reads all of `target`, and changes nothing.
///
/// Bytes that cannot be read are findings, no errors. A segment that vanishes between listing and opening has been
/// removed by a running Prometheus, and is left out.
///
/// # Errors
/// If a directory cannot be listed, or a segment not be opened.
pub fn scan(target: &Target, options: &Options, progress: &dyn Progress) -> Result<Report, ScanError> {
    let listing =
        target.list().map_err(|source| ScanError::List { path: target.path().to_owned(), source })?;
    let threads =
        rayon::ThreadPoolBuilder::new().num_threads(options.threads.map_or(0, NonZeroUsize::get)).build()?;
    threads.install(|| read(target, &listing, progress))
}

fn read(target: &Target, listing: &Listing, progress: &dyn Progress) -> Result<Report, ScanError> {
    let dialects: Vec<Dialect> = listing.logs.par_iter().map(segment::dialect).collect();
    let work: Vec<(usize, usize)> = (0..listing.logs.len())
        .flat_map(|log| (0..listing.logs[log].segments.len()).map(move |segment| (log, segment)))
        .collect();
    let size = |&(log, segment): &(usize, usize)| {
        listing.logs[log].segments[segment].path.metadata().map_or(0, |m| m.len())
    };
    progress.total(work.iter().map(size).sum());
    let scans: Vec<Option<SegmentScan>> = work
        .par_iter()
        .map(|&(log, segment)| {
            let directory = &listing.logs[log];
            let reading = segment::reading(directory.kind, dialects[log]);
            segment::scan(&directory.segments[segment], reading, progress)
        })
        .collect::<Result<_, _>>()?;

    let mut scans = scans.into_iter();
    let mut report = Report {
        schema: SCHEMA,
        walfix: env!("CARGO_PKG_VERSION"),
        path: target.path().display().to_string(),
        verdict: Verdict::Clean,
        logs: Vec::new(),
        findings: Vec::new(),
    };
    for (directory, &dialect) in listing.logs.iter().zip(&dialects) {
        let scans: Vec<_> = scans.by_ref().take(directory.segments.len()).collect();
        report.findings.extend(findings::of_names(directory));
        report.findings.extend(findings::of_log(directory, &scans));
        report.logs.push(log_of(directory, dialect, &scans));
    }
    forget_gaps_of_the_moment(target, listing, &mut report);
    report.findings.extend(findings::of_strays(&listing.strays));
    debug_assert!(
        report.findings.iter().all(|finding| report::CODES.contains(&finding.code)),
        "a code that the documents do not have"
    );
    if report.of_severity(Severity::Damage).next().is_some() {
        report.verdict = Verdict::Damaged;
    }
    Ok(report)
}

/// A checkpoint that Prometheus was removing when it was listed seems to lack segments. By now it lacks more, or is gone.
fn forget_gaps_of_the_moment(target: &Target, listing: &Listing, report: &mut Report) {
    let is_gap = |finding: &report::Finding| finding.code == "segments_not_sequential";
    if !report.findings.iter().any(is_gap) {
        return;
    }
    let Ok(now) = target.list() else { return };
    let as_before = |log: &LogDirectory| now.logs.contains(log);
    let changed: Vec<&str> =
        listing.logs.iter().filter(|log| !as_before(log)).map(|log| log.relative.as_str()).collect();
    report.findings.retain(|finding| {
        !(is_gap(finding) && finding.log.as_deref().is_some_and(|log| changed.contains(&log)))
    });
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

/// Whether a crash leaves torn records in such a log. Checkpoints and snapshots get their name when they are whole.
fn may_be_torn(kind: LogKind) -> bool {
    matches!(kind, LogKind::Wal | LogKind::Wbl)
}
