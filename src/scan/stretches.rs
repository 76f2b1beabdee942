//! Segments cut into stretches, so that all threads have work even where there is one segment, and put together again.

use std::fs::Metadata;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::parallel::in_order;
use super::references::{MOST_BLOCKS, SegmentRefs};
use super::salvage::Reading;
use super::segment::{self, Reached, SegmentScan, Walked};
use super::{Progress, ScanError};
use crate::wal::PAGE;
use crate::wal::segments::SegmentFile;
use crate::wal::walk::{Pages, Walker};

/// Bytes that one thread walks over before the next takes its turn: so many that finding the first record costs nothing.
const STRETCH: u64 = 256 * PAGE;

/// Stretches of one segment, at the most: no file is so long that there is no memory for their list.
const MOST_STRETCHES: u64 = 1 << 16;

/// A segment, and how it is to be read.
pub(super) struct Task<'a> {
    pub(super) segment: &'a SegmentFile,
    pub(super) reading: Reading,
    /// Where its refs go, empty.
    pub(super) refs: Option<SegmentRefs>,
}

/// Bytes that are walked at once in a stretch with something wrong in it.
const SHORT_STRETCH: u64 = 8 * PAGE;

/// Parts of one segment between which something is wrong, at the most: of each there is as much in memory as of a segment.
const MOST_PARTS: usize = 32;

/// What comes of one stretch.
enum StretchRead {
    /// It has been walked, as far as it can be.
    Walked(Vec<Walk>),
    /// The segment has to be read as a whole.
    NotWalked,
}

/// A part of a stretch.
enum Walk {
    /// Nothing is wrong with it.
    Intact(Box<SegmentScan>, Pages),
    /// Something is.
    Doubtful(Range<u64>),
}

/// A segment while it is read.
struct Progressing<'a> {
    /// As it was when it was looked at first; `None` if it could not be.
    looked_at: Option<Metadata>,
    reached: Reached<'a>,
    /// It has to be read as a whole.
    is_hopeless: AtomicBool,
}

/// Bytes of one segment in which something may be wrong, before it is not walked any further: as many as the longest segment
/// that Prometheus can be told to write. A file of zeros can be longer than any disk.
const MOST_DOUBTFUL: u64 = 256 << 20;

/// Bytes of the segments of one round. The damaged ones among them are read in parallel.
const ROUND: u64 = 2 << 30;

/// Segments of one round, at the most: what each says of refs is kept until the round ends.
const MOST_OF_ROUND: usize = 32;

/// Reads segments and gives them to `each` in their order; `None` for one that has gone.
pub(super) fn read(
    tasks: &[Task<'_>],
    progress: &dyn Progress,
    mut each: impl FnMut(usize, Option<SegmentScan>) + Send,
) -> Result<(), ScanError> {
    let states: Vec<Progressing<'_>> = tasks
        .iter()
        .map(|task| {
            let looked_at = task.segment.path.symlink_metadata().ok();
            let bytes = looked_at.as_ref().map_or(0, Metadata::len);
            let reached = Reached::new(progress, bytes);
            Progressing { looked_at, reached, is_hopeless: AtomicBool::new(false) }
        })
        .collect();
    progress.total(states.iter().map(Progressing::bytes).fold(0, u64::saturating_add));
    let mut from = 0;
    while from < tasks.len() {
        let mut bytes = 0;
        let round = states[from..].iter().take_while(|state| {
            let is_first = bytes == 0;
            bytes += state.bytes();
            is_first || bytes <= ROUND
        });
        let end = from + round.take(MOST_OF_ROUND).count();
        read_round(&tasks[from..end], &states[from..end], progress, |at, scan| each(from + at, scan))?;
        from = end;
    }
    Ok(())
}

/// Reads the segments of one round. From the first damaged one on they are finished when all have been walked.
fn read_round(
    tasks: &[Task<'_>],
    states: &[Progressing<'_>],
    progress: &dyn Progress,
    mut each: impl FnMut(usize, Option<SegmentScan>) + Send,
) -> Result<(), ScanError> {
    let stretches: Vec<(usize, Range<u64>)> = states
        .iter()
        .enumerate()
        .flat_map(|(task, state)| {
            let bytes = state.bytes();
            let length = STRETCH.max(bytes.div_ceil(MOST_STRETCHES).next_multiple_of(PAGE));
            let starts = (0..bytes.max(1)).step_by(usize::try_from(length).unwrap_or(usize::MAX));
            starts.map(move |from| (task, from..from.saturating_add(length).min(bytes)))
        })
        .collect();
    let mut joined = Joined::default();
    let mut waiting: Vec<(usize, Joined)> = Vec::new();
    in_order(
        stretches.len(),
        Walker::default,
        |walker, at| {
            if progress.is_cancelled() {
                return Err(ScanError::Cancelled);
            }
            let (task, stretch) = &stretches[at];
            Ok(read_stretch(walker, &tasks[*task], &states[*task], stretch.clone()))
        },
        |at, read| {
            let task = stretches[at].0;
            joined.add(read);
            if joined.is_hopeless {
                states[task].is_hopeless.store(true, Ordering::Relaxed);
            }
            if stretches.get(at + 1).is_none_or(|next| next.0 != task) {
                let mut joined = std::mem::take(&mut joined);
                match if waiting.is_empty() { joined.take_intact() } else { None } {
                    Some(scan) => each(task, Some(scan)),
                    None => waiting.push((task, joined)),
                }
            }
        },
    )?;
    let finish = |(task, joined): (usize, Joined)| -> Result<_, ScanError> {
        if progress.is_cancelled() {
            return Err(ScanError::Cancelled);
        }
        Ok((task, joined.finish(&tasks[task], &states[task])?))
    };
    let finished: Result<Vec<_>, _> = waiting.into_par_iter().map(finish).collect();
    for (task, scan) in finished? {
        each(task, scan);
    }
    Ok(())
}

impl Progressing<'_> {
    fn bytes(&self) -> u64 {
        self.looked_at.as_ref().map_or(0, Metadata::len)
    }
}

fn read_stretch(
    walker: &mut Walker,
    task: &Task<'_>,
    state: &Progressing<'_>,
    stretch: Range<u64>,
) -> StretchRead {
    let Some(looked_at) = state.looked_at.as_ref().filter(|_| task.reading == Reading::Prometheus) else {
        return StretchRead::NotWalked;
    };
    if state.is_hopeless.load(Ordering::Relaxed) {
        return StretchRead::NotWalked;
    }
    let mut walk = |stretch: Range<u64>| {
        let bytes = stretch.end - stretch.start;
        let read = segment::walk_stretch(walker, task.segment, looked_at, stretch, task.refs.as_ref());
        read.inspect(|_| state.reached.add(bytes))
    };
    if let Ok((scan, pages)) = walk(stretch.clone()) {
        return StretchRead::Walked(vec![Walk::Intact(Box::new(scan), pages)]);
    }
    // Nothing that Prometheus writes is so long.
    if stretch.end - stretch.start > STRETCH {
        return StretchRead::Walked(vec![Walk::Doubtful(stretch)]);
    }
    let mut walks = Vec::new();
    let mut from = stretch.start;
    while from < stretch.end {
        let short = from..(from + SHORT_STRETCH).min(stretch.end);
        from = short.end;
        walks.push(match walk(short.clone()) {
            Ok((scan, pages)) => Walk::Intact(Box::new(scan), pages),
            Err(_) => Walk::Doubtful(short),
        });
    }
    StretchRead::Walked(walks)
}

/// The stretches of one segment, put together.
#[derive(Default)]
struct Joined {
    walked: Walked,
    /// Something is wrong right before what comes next.
    is_after_gap: bool,
    /// Bytes in which something is wrong.
    doubtful_bytes: u64,
    /// All of it has to be read: pages of two stretches are the same, or too much is wrong.
    is_hopeless: bool,
}

impl Joined {
    fn add(&mut self, read: StretchRead) {
        let StretchRead::Walked(walks) = read else {
            self.give_up();
            return;
        };
        for walk in walks {
            match walk {
                _ if self.is_hopeless => return,
                Walk::Intact(scan, pages) => self.add_intact(*scan, pages),
                Walk::Doubtful(range) => self.add_gap(range),
            }
        }
    }

    fn add_intact(&mut self, scan: SegmentScan, pages: Pages) {
        if self.is_after_gap && scan.intact.is_empty() {
            // No record begins here: what is wrong before may go on.
            self.add_gap(scan.stretch);
            return;
        }
        let known = &mut self.walked.pages;
        if known.is_empty() {
            *known = pages;
        } else if pages.into_iter().fold(false, |copies, page| copies | !known.insert(page)) {
            self.give_up();
            return;
        }
        let parts = &mut self.walked.parts;
        if let Some(before) = parts.last_mut().filter(|_| !self.is_after_gap) {
            before.append(scan);
        } else if parts.len() == MOST_PARTS {
            self.give_up();
            return;
        } else {
            parts.push(scan);
            self.is_after_gap = false;
        }
        let blocks = self.walked.parts.iter().filter_map(|part| part.refs.as_ref()).map(SegmentRefs::blocks);
        if self.walked.parts.len() > 1 && blocks.sum::<usize>() > MOST_BLOCKS {
            self.give_up();
        }
    }

    fn add_gap(&mut self, range: Range<u64>) {
        self.is_after_gap = true;
        self.doubtful_bytes += range.end - range.start;
        if self.doubtful_bytes > MOST_DOUBTFUL {
            self.give_up();
            return;
        }
        match self.walked.gaps.last_mut() {
            Some(gap) if gap.end == range.start => gap.end = range.end,
            _ => self.walked.gaps.push(range),
        }
    }

    fn give_up(&mut self) {
        *self = Self { is_hopeless: true, ..Self::default() };
    }

    /// The whole segment, if nothing is wrong with it.
    fn take_intact(&mut self) -> Option<SegmentScan> {
        let is_intact = self.walked.gaps.is_empty() && self.walked.parts.len() == 1;
        if is_intact { self.walked.parts.pop() } else { None }
    }

    fn finish(mut self, task: &Task<'_>, state: &Progressing<'_>) -> Result<Option<SegmentScan>, ScanError> {
        if let Some(scan) = self.take_intact() {
            return Ok(Some(scan));
        }
        let Task { segment, reading, refs } = task;
        let looked_at = state.looked_at.as_ref();
        segment::scan(segment, looked_at, self.walked, *reading, refs.as_ref(), &state.reached)
    }
}
