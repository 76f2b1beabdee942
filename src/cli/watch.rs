//! What is heard of a repair on the command line, and the signals that give it up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use walfix::fix::{Event, Watch};
use walfix::io::Cancel;
use walfix::report::unfinished;
use walfix::scan::Progress;

use super::progress::Bar;

/// Prints what is heard, shows how far a scan is, and gives the repair up when a signal asks for it.
#[derive(Debug)]
pub(super) struct Watcher {
    bar: Option<Bar>,
    is_cancelled: Arc<AtomicBool>,
    /// Whether the next signal kills the process, as it does without a handler.
    is_deadly: Arc<AtomicBool>,
}

impl Watcher {
    /// For what changes nothing: a signal kills it.
    pub(super) fn new(quiet: bool) -> Self {
        Self { bar: (!quiet).then(Bar::new), is_cancelled: Arc::default(), is_deadly: Arc::default() }
    }

    /// For a repair. The first signal gives it up as long as nothing has been changed; a second one, or one that comes later,
    /// kills it, and the next repair finishes it.
    pub(super) fn for_a_change(quiet: bool) -> io::Result<Self> {
        let watcher = Self::new(quiet);
        let ignored = ignored_signals();
        // Who runs it with nohup, or in the background of a script, does not want it to end so.
        for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0)
        {
            // In this order: the first signal finds that it is not deadly.
            flag::register_conditional_default(signal, Arc::clone(&watcher.is_deadly))?;
            flag::register(signal, Arc::clone(&watcher.is_deadly))?;
            flag::register(signal, Arc::clone(&watcher.is_cancelled))?;
        }
        Ok(watcher)
    }
}

/// The signals that this process ignores, the first as the lowest bit (`proc_pid_status(5)`); none where that is not known.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

impl Cancel for Watcher {
    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    fn too_late(&self) {
        self.is_deadly.store(true, Ordering::Relaxed);
    }
}

impl Progress for Watcher {
    fn total(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.total(bytes);
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.advance(bytes);
        }
    }
}

impl Watch for Watcher {
    fn heard(&self, event: Event<'_>) {
        for line in unfinished::heard(event) {
            eprintln!("walfix: {line}");
        }
    }
}
