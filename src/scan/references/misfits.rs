//! What does not fit, and what it costs.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashSet};

use super::bits::RefSets;
use super::history::{RecordPlace, RefHistory, SegmentHistory};
use super::segment::LabelHash;
use crate::tsdb::replay_order::ReplaySegment;
use crate::wal::segments::SegmentFile;

/// Entries to which something happens.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::scan) struct Affected {
    /// Floats and histograms.
    pub(super) samples: u64,
    /// Exemplars, tombstones, metadata, mmap markers.
    pub(super) others: u64,
    pub(super) times: Option<(i64, i64)>,
}

impl Affected {
    pub(super) fn is_empty(&self) -> bool {
        self.samples + self.others == 0
    }

    pub(super) fn count(&mut self, is_sample: bool, time: Option<i64>) {
        if !is_sample {
            self.others += 1;
            return;
        }
        self.samples += 1;
        if let Some(time) = time {
            self.widen(time, time);
        }
    }

    /// So many samples of one time.
    pub(super) fn count_samples(&mut self, samples: u64, time: i64) {
        self.samples += samples;
        self.widen(time, time);
    }

    fn widen(&mut self, from: i64, to: i64) {
        self.times = Some(self.times.map_or((from, to), |(min, max)| (min.min(from), max.max(to))));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.others += other.others;
        if let Some((from, to)) = other.times {
            self.widen(from, to);
        }
    }
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::scan) enum Misfit {
    /// A ref that no series record defines.
    Undefined,
    /// A ref that is defined only after its use.
    DefinedLater,
    /// A series record that is repeated.
    Repeated,
    /// A ref that is given to another series.
    Reissued,
}

/// What does not fit in one log, and what it costs.
#[derive(Clone, Debug, Default)]
pub(in crate::scan) struct Trouble {
    pub(super) refs: HashSet<u64>,
    /// More refs, each counted once.
    pub(super) undefined: u64,
    /// There are more, which are not counted.
    pub(super) more: bool,
    pub(super) affected: Affected,
    /// The first record that shows it: segment, offset and end.
    pub(super) place: Option<(SegmentFile, u64, u64)>,
}

/// By log, as its position in the listing.
pub(in crate::scan) type Troubles = BTreeMap<(usize, Misfit), Trouble>;

/// The histories of all refs, segment by segment.
#[derive(Default)]
pub(super) struct Histories {
    pub(super) troubles: Troubles,
    /// Not all refs are looked at.
    more: bool,
    /// Refs that are defined nowhere, by log.
    undefined: HashMap<usize, RefSets>,
    /// The last label set, and what was used since.
    open: HashMap<u64, (LabelHash, Affected)>,
}

impl Histories {
    /// Of all refs, or of some and there are `more`.
    pub(super) fn new(more: bool) -> Self {
        Self { more, ..Self::default() }
    }

    /// Adds what a segment says, and what happened to which refs.
    pub(super) fn add(
        &mut self,
        step: &ReplaySegment,
        segment: &SegmentFile,
        found: &SegmentHistory,
        happened: Vec<(u64, RefHistory)>,
    ) {
        let log = step.log;
        if found.undefined_refs.count(|block| block.used) > 0 {
            let trouble = self.troubles.entry((log, Misfit::Undefined)).or_default();
            trouble.affected.add(&found.undefined);
            let all = self.undefined.entry(log).or_default();
            for block in &found.undefined_refs.blocks {
                all.block(block.number).used |= block.used;
            }
            trouble.undefined = all.count(|block| block.used);
        }
        let mut trouble = |misfit, series_ref, affected: &Affected, place: Option<RecordPlace>| {
            let trouble = self.troubles.entry((log, misfit)).or_default();
            trouble.more = self.more;
            trouble.refs.insert(series_ref);
            trouble.affected.add(affected);
            let place = place.map(|RecordPlace { offset, end }| (segment.clone(), offset, end));
            let earlier = |place: &(SegmentFile, u64, u64)| {
                trouble.place.as_ref().is_none_or(|known| (known.0.index, known.1) > (place.0.index, place.1))
            };
            if let Some(place) = place.filter(earlier) {
                trouble.place = Some(place);
            }
        };
        for (series_ref, history) in happened {
            let known = self.open.get_mut(&series_ref);
            let Some((first, last)) = history.labels else {
                match known {
                    Some((_, since)) => since.add(&history.before),
                    None => trouble(Misfit::DefinedLater, series_ref, &history.before, None),
                }
                continue;
            };
            match known {
                None => {
                    if !history.before.is_empty() {
                        trouble(Misfit::DefinedLater, series_ref, &history.before, None);
                    }
                }
                Some((labels, since)) => {
                    since.add(&history.before);
                    let misfit = if *labels == first { Misfit::Repeated } else { Misfit::Reissued };
                    trouble(misfit, series_ref, since, Some(history.place));
                }
            }
            if history.repeated {
                trouble(Misfit::Repeated, series_ref, &history.wiped, found.repeated);
            }
            if history.reissued {
                trouble(Misfit::Reissued, series_ref, &history.displaced, found.reissued);
            }
            self.open.insert(series_ref, (last, history.since));
        }
    }
}
