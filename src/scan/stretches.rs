//! Segments cut into stretches, so that all threads have work even where there is one segment, and put together again.

use std::fs::Metadata;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::parallel::in_order;
use super::references::SegmentRefs;
use super::salvage::Reading;
use super::segment::{self, Reached, SegmentScan};
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

/// What comes of one stretch.
enum StretchRead {
    /// Nothing is wrong with it.
    Walked(SegmentScan, Pages),
    /// Something is, somewhere in the segment, and this is all of it; `None` if it has gone.
    Whole(Option<SegmentScan>),
    /// Another stretch has found that, and reads all of it.
    LeftToOthers,
}

/// A segment while it is read.
struct Progressing<'a> {
    /// As it was when it was looked at first; `None` if it could not be.
    looked_at: Option<Metadata>,
    reached: Reached<'a>,
    /// It has to be read as a whole.
    is_doubtful: AtomicBool,
}

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
            Progressing { looked_at, reached, is_doubtful: AtomicBool::new(false) }
        })
        .collect();
    progress.total(states.iter().map(Progressing::bytes).fold(0, u64::saturating_add));
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
    let mut failed = None;
    let mut joined = Joined::default();
    in_order(
        stretches.len(),
        Walker::default,
        |walker, at| {
            if progress.is_cancelled() {
                return Err(ScanError::Cancelled);
            }
            let (task, stretch) = &stretches[at];
            read_stretch(walker, &tasks[*task], &states[*task], stretch.clone())
        },
        |at, part| {
            let task = stretches[at].0;
            joined = std::mem::take(&mut joined).with(part);
            if stretches.get(at + 1).is_none_or(|next| next.0 != task) {
                match std::mem::take(&mut joined).finish(&tasks[task], &states[task]) {
                    Ok(scan) => each(task, scan),
                    Err(error) => failed = failed.take().or(Some(error)),
                }
            }
        },
    )?;
    failed.map_or(Ok(()), Err)
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
) -> Result<StretchRead, ScanError> {
    if state.is_doubtful.load(Ordering::Relaxed) {
        return Ok(StretchRead::LeftToOthers);
    }
    let bytes = stretch.end - stretch.start;
    if task.reading == Reading::Prometheus
        && let Some(looked_at) = &state.looked_at
        && let Ok((scan, pages)) =
            segment::walk_stretch(walker, task.segment, looked_at, stretch, task.refs.as_ref())
    {
        state.reached.add(bytes);
        return Ok(StretchRead::Walked(scan, pages));
    }
    if state.is_doubtful.swap(true, Ordering::Relaxed) {
        return Ok(StretchRead::LeftToOthers);
    }
    salvage(task, state).map(StretchRead::Whole)
}

fn salvage(task: &Task<'_>, state: &Progressing<'_>) -> Result<Option<SegmentScan>, ScanError> {
    segment::scan(task.segment, state.bytes(), task.reading, task.refs.as_ref(), &state.reached)
}

/// The stretches of one segment, put together.
#[derive(Default)]
enum Joined {
    #[default]
    Nothing,
    Walked(SegmentScan, Pages),
    /// A page of one stretch is the same as one of another.
    Doubtful,
    /// The segment, read as a whole.
    Whole(Option<SegmentScan>),
}

impl Joined {
    fn with(self, part: StretchRead) -> Self {
        match (self, part) {
            (Self::Whole(scan), _) | (_, StretchRead::Whole(scan)) => Self::Whole(scan),
            (Self::Nothing, StretchRead::Walked(scan, pages)) => Self::Walked(scan, pages),
            (Self::Walked(mut scan, mut pages), StretchRead::Walked(after, after_pages)) => {
                scan.append(after);
                let has_copies =
                    after_pages.into_iter().fold(false, |copies, page| copies | !pages.insert(page));
                if has_copies { Self::Doubtful } else { Self::Walked(scan, pages) }
            }
            (Self::Doubtful, StretchRead::Walked(..)) => Self::Doubtful,
            (joined, StretchRead::LeftToOthers) => joined,
        }
    }

    fn finish(self, task: &Task<'_>, state: &Progressing<'_>) -> Result<Option<SegmentScan>, ScanError> {
        match self {
            Self::Walked(scan, _) => Ok(Some(scan)),
            Self::Whole(scan) => Ok(scan),
            Self::Nothing | Self::Doubtful => salvage(task, state),
        }
    }
}
