//! A running server changes the directory while it is scanned: what has an explanation in that is not reported.

use std::cell::LazyCell;
use std::time::{Duration, Instant};

use super::report::{Dialect, Finding};
use super::{generations, sequence};
use crate::tsdb::replay_order::ReplayOrder;
use crate::tsdb::{Listing, LogDirectory, LogKind, Target, liveness};

/// Whether anybody writes to the data directory of `target`.
pub(super) fn is_written(target: &Target) -> bool {
    let data = target.data_directory_around();
    let data = data.as_ref().unwrap_or(target).path();
    liveness::look(data).is_ok_and(|found| !found.writers.is_empty())
}

/// How long a running server is given to finish: it makes a checkpoint and then removes what this covers,
/// which is some milliseconds of work.
const MOMENT: Duration = Duration::from_secs(2);

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(20);

/// A running server makes checkpoints, removes older ones and the segments that they cover. What has another reason
/// than that is still so when one looks again; and if there is a server, when it has had the time to end.
pub(super) fn forget_states_of_the_moment(
    target: &Target,
    listing: &Listing,
    order: &ReplayOrder,
    dialects: &[Dialect],
    findings: &mut Vec<Finding>,
) {
    let started = Instant::now();
    let is_written = LazyCell::new(|| is_written(target));
    while !findings.is_empty() {
        forget_what_has_changed(target, listing, order, dialects, findings);
        if findings.is_empty() || started.elapsed() > MOMENT || !*is_written {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Forgets what is no longer so.
fn forget_what_has_changed(
    target: &Target,
    listing: &Listing,
    order: &ReplayOrder,
    dialects: &[Dialect],
    findings: &mut Vec<Finding>,
) {
    let Ok(now) = target.list() else { return };
    // A checkpoint that is being removed lacks more by now, or is gone.
    let changes = |log: &&LogDirectory| log.kind == LogKind::Checkpoint && !now.logs.contains(log);
    let changing: Vec<&str> = listing.logs.iter().filter(changes).map(|log| log.relative.as_str()).collect();
    let order_now = super::order_of(&now, dialects);
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
