//! Work in all threads, with results in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Does `work` for all numbers below `count`, in as many threads as there are, and gives what comes out to `then` in the
/// order of the numbers. Each thread has a `worker` of its own. Work runs ahead only so far that what waits for its turn
/// stays little.
pub(super) fn in_order<W, T: Send, E: Send>(
    count: usize,
    worker: impl Fn() -> W + Sync,
    work: impl Fn(&mut W, usize) -> Result<T, E> + Sync,
    then: impl FnMut(usize, T) + Send,
) -> Result<(), E> {
    struct WaitingTurns<T, E, F> {
        next: usize,
        waiting: BTreeMap<usize, T>,
        then: F,
        failed: Option<E>,
        stopped: bool,
    }
    /// Wakes the others if this thread panics: what they wait for never comes.
    struct StopOnPanic<'a, S> {
        state: &'a Mutex<S>,
        turned: &'a Condvar,
        set: fn(&mut S),
    }
    impl<S> Drop for StopOnPanic<'_, S> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                (self.set)(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
                self.turned.notify_all();
            }
        }
    }
    let ahead = 4 * rayon::current_num_threads();
    let started = AtomicUsize::new(0);
    let state =
        Mutex::new(WaitingTurns { next: 0, waiting: BTreeMap::new(), then, failed: None, stopped: false });
    let turned = Condvar::new();
    rayon::broadcast(|_| {
        let _stop = StopOnPanic { state: &state, turned: &turned, set: |state| state.stopped = true };
        let mut worker = worker();
        loop {
            let at = started.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let done = work(&mut worker, at);
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
        let work = |(): &mut (), at: usize| if fails(at) { Err(at) } else { Ok(at * 2) };
        let failed = pool.install(|| {
            in_order(
                count,
                || (),
                work,
                |at, twice| {
                    assert_eq!(twice, at * 2);
                    seen.push(at);
                },
            )
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
