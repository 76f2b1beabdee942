//! Reads a directory through [`crate::wal`], [`crate::record`] and [`crate::tsdb`] into a [`report::Report`].
//!
//! Segments are read in parallel, each by [`salvage`]; what needs their order is done afterwards, in order.

mod cause;
mod context;
mod findings;
pub mod frames;
mod generations;
mod order;
mod references;
pub mod report;
pub mod salvage;
mod segment;
mod sequence;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use rayon::prelude::*;

use self::order::{Order, Role, Step};
use self::references::{References, SegmentRefs};
use self::report::{Dialect, Finding, Log, Report, SCHEMA, Segment, Severity, Verdict};
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
    let order = Order::of(listing, &dialects);
    let steps = order.steps(listing);
    let file = |step: Step| &listing.logs[step.log].segments[step.segment];
    progress.total(steps.iter().map(|&step| file(step).path.metadata().map_or(0, |m| m.len())).sum());

    let mut references = References::default();
    // Label sets are only asked for where segments have numbers that the checkpoint covers.
    let hasher = steps.iter().any(|step| step.role == Role::Below).then(|| references.hasher());
    let mut scans: Vec<Vec<Option<SegmentScan>>> =
        listing.logs.iter().map(|log| log.segments.iter().map(|_| None).collect()).collect();
    in_order(
        steps.len(),
        |at| {
            let step = steps[at];
            let reading = segment::reading(listing.logs[step.log].kind, dialects[step.log]);
            let refs = SegmentRefs::new(step.role, hasher.as_ref());
            segment::scan(file(step), reading, refs.as_ref(), progress)
        },
        |at, mut scan: Option<SegmentScan>| {
            let step = steps[at];
            references.add(at, step.role, scan.as_mut().and_then(|scan| scan.refs.take()));
            scans[step.log][step.segment] = scan;
        },
    )?;

    let mut report = Report {
        schema: SCHEMA,
        walfix: env!("CARGO_PKG_VERSION"),
        path: target.path().display().to_string(),
        verdict: Verdict::Clean,
        logs: Vec::new(),
        findings: Vec::new(),
        refs: references.highest(),
    };
    let of_logs: Vec<Vec<Finding>> =
        listing.logs.iter().zip(&scans).map(|(log, scans)| findings::of_log(log, scans)).collect();
    let whole = |log: Option<usize>| {
        log.is_none_or(|log| of_logs[log].iter().all(|finding| finding.severity != Severity::Damage))
    };
    let troubles = references::troubles(target, listing, &steps, &scans, &references);
    let mut of_state = sequence::of_names(listing, &order);
    let of_numbers = generations::of_numbers(listing, &order, &scans, &references, whole(order.checkpoint));
    of_state.extend(of_numbers);
    forget_states_of_the_moment(target, listing, &order, &dialects, &mut of_state);
    let why = references::Why {
        damage: !(whole(order.checkpoint) && whole(order.wal)),
        files: of_state.iter().any(|finding| sequence::MISSING.contains(&finding.code)),
    };
    let mut of_refs = references::findings(listing, &troubles, why);
    of_refs.extend(references.not_judged(listing, &order));
    sequence::weigh(&mut of_state, &of_refs);

    for (at, (directory, of_log)) in listing.logs.iter().zip(of_logs).enumerate() {
        let log = log_of(directory, dialects[at], &scans[at]);
        let of_this = |finding: &mut Finding| finding.log.as_ref() == Some(&directory.relative);
        report.findings.extend(of_state.extract_if(.., of_this));
        report.findings.extend(of_log);
        report.findings.extend(references::misplaced(directory, &log));
        report.findings.extend(of_refs.extract_if(.., of_this));
        report.logs.push(log);
    }
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

/// Does `work` for all numbers below `count`, in as many threads as there are, and gives what comes out to `then` in the
/// order of the numbers. Work runs ahead only so far that what waits for its turn stays little.
fn in_order<T: Send, E: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
    then: impl FnMut(usize, T) + Send,
) -> Result<(), E> {
    struct State<T, E, F> {
        next: usize,
        waiting: BTreeMap<usize, T>,
        then: F,
        failed: Option<E>,
        stopped: bool,
    }
    /// Wakes the others if this thread panics: what they wait for never comes.
    struct Stop<'a, S> {
        state: &'a Mutex<S>,
        turned: &'a Condvar,
        set: fn(&mut S),
    }
    impl<S> Drop for Stop<'_, S> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                (self.set)(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
                self.turned.notify_all();
            }
        }
    }
    let ahead = 4 * rayon::current_num_threads();
    let begun = AtomicUsize::new(0);
    let state = Mutex::new(State { next: 0, waiting: BTreeMap::new(), then, failed: None, stopped: false });
    let turned = Condvar::new();
    rayon::broadcast(|_| {
        let _stop = Stop { state: &state, turned: &turned, set: |state| state.stopped = true };
        loop {
            let at = begun.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let done = work(at);
            let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
            while at > guard.next + ahead && !guard.stopped {
                guard = turned.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            let state = &mut *guard;
            match done {
                Ok(done) => {
                    state.waiting.insert(at, done);
                    while let Some(done) = state.waiting.remove(&state.next) {
                        (state.then)(state.next, done);
                        state.next += 1;
                    }
                }
                Err(error) => {
                    state.failed.get_or_insert(error);
                    state.stopped = true;
                }
            }
            turned.notify_all();
            if state.stopped {
                return;
            }
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

/// A running server makes checkpoints, removes older ones and the segments that they cover. What has another reason
/// than that is still so when one looks again.
fn forget_states_of_the_moment(
    target: &Target,
    listing: &Listing,
    order: &Order,
    dialects: &[Dialect],
    findings: &mut Vec<Finding>,
) {
    if findings.is_empty() {
        return;
    }
    let Ok(now) = target.list() else { return };
    // A checkpoint that is being removed lacks more by now, or is gone.
    let changes = |log: &&LogDirectory| log.kind == LogKind::Checkpoint && !now.logs.contains(log);
    let changing: Vec<&str> = listing.logs.iter().filter(changes).map(|log| log.relative.as_str()).collect();
    let order_now = Order::of(&now, dialects);
    let names: Vec<_> = sequence::of_names(&now, &order_now)
        .into_iter()
        .map(|finding| (finding.code, finding.path))
        .collect();
    let same_numbers = sequence::numbers(&now, &order_now) == sequence::numbers(listing, order);
    findings.retain(|finding| {
        let still = if generations::CODES.contains(&finding.code) {
            same_numbers
        } else {
            names.iter().any(|(code, path)| *code == finding.code && *path == finding.path)
        };
        still && !finding.log.as_deref().is_some_and(|log| changing.contains(&log))
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

#[cfg(test)]
mod tests {
    use super::in_order;

    fn numbers(
        threads: usize,
        count: usize,
        fails: impl Fn(usize) -> bool + Sync,
    ) -> (Vec<usize>, Option<usize>) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut seen = Vec::new();
        let work = |at: usize| if fails(at) { Err(at) } else { Ok(at * 2) };
        let failed = pool.install(|| {
            in_order(count, work, |at, twice| {
                assert_eq!(twice, at * 2);
                seen.push(at);
            })
        });
        (seen, failed.err())
    }

    #[test]
    fn results_come_in_order() {
        for (threads, count) in [(1, 0), (1, 1), (1, 100), (2, 1000), (7, 1000), (16, 3)] {
            assert_eq!(numbers(threads, count, |_| false), ((0..count).collect(), None), "{threads}");
        }
    }

    #[test]
    fn a_failure_ends_it() {
        for threads in [1, 2, 7] {
            let (seen, failed) = numbers(threads, 1000, |at| at == 500);
            assert_eq!(failed, Some(500));
            assert!(seen.len() <= 500 && seen.iter().copied().eq(0..seen.len()), "{seen:?}");
        }
    }

    #[test]
    #[should_panic(expected = "a bug")]
    fn a_panic_hangs_nobody() {
        numbers(4, 1000, |at| {
            assert!(at != 100, "a bug");
            false
        });
    }
}
