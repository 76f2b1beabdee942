//! How far a scan is, on standard error.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use walfix::io::Cancel;
use walfix::scan::Progress;

/// What takes no longer needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// A bar in bytes. It shows itself only on a terminal and only if the work takes a while, and is gone when dropped.
#[derive(Debug)]
pub(super) struct Bar {
    started: Instant,
    total: AtomicU64,
    done: AtomicU64,
    shown: OnceLock<ProgressBar>,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            shown: OnceLock::new(),
        }
    }

    fn show(&self) -> ProgressBar {
        // Hidden where standard error is no terminal.
        let bar = ProgressBar::with_draw_target(Some(self.total.load(Relaxed)), ProgressDrawTarget::stderr());
        let style = "{wide_bar} {decimal_bytes} of {decimal_total_bytes}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.with_elapsed(self.started.elapsed())
    }
}

/// A scan that is killed leaves no trace.
impl Cancel for Bar {}

impl Progress for Bar {
    fn total(&self, bytes: u64) {
        let total = self.total.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if let Some(bar) = self.shown.get() {
            bar.set_length(total);
        }
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if self.shown.get().is_some() || self.started.elapsed() >= PATIENCE {
            self.shown.get_or_init(|| self.show()).set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.shown.get() {
            bar.finish_and_clear();
        }
    }
}
