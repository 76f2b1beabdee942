//! What a replay serves of records in some order (`tsdb/head_wal.go`, `loadWAL`): of each series only samples that are newer
//! than all before, and none from before its record was given again.

use std::hash::BuildHasher as _;
use std::io;

use foldhash::HashMap;

use super::pages::ReplayedPages;
use crate::record::{FloatHistogramEntry, HistogramEntry, Record as Decoded, each_use};
use crate::scan::salvage::{Contents, Problem, Reading, Salvage, Visitor};
use crate::scan::settled::Settlements;
use crate::wal::Record;
use crate::wal::arranged::{Arranged, Place};

/// What a replay comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) samples: u64,
    /// Series records of refs or labels that were known already.
    pub(super) redefined: u64,
    /// Samples of refs that no record has defined.
    pub(super) unknown: u64,
    /// Places that are damaged.
    pub(super) damaged: u64,
    /// The highest ref that a record defines.
    pub(super) defined: Option<u64>,
    /// The highest of all others.
    pub(super) used: Option<u64>,
    /// The time of the newest record, ms.
    pub(super) newest: Option<i64>,
}

/// What is served if the segments have these pages; those of which nothing is said have their own.
pub(super) fn served(
    pages: &ReplayedPages,
    arranged: &HashMap<usize, Vec<Place>>,
    settled: &Settlements,
) -> io::Result<Served> {
    let mut head = ReplayedHead::default();
    for (at, segment) in pages.segments.iter().enumerate() {
        let file = crate::io::open(&segment.path)?;
        match arranged.get(&at) {
            None => {
                // One of which nothing is known has been walked.
                let known = settled.of(&file, segment.length).cloned().unwrap_or_default();
                Salvage::new(&file, segment.length, Reading::Prometheus).read_with(&known, &mut head);
            }
            Some(places) => {
                let source = Arranged::new(&file, segment.length, places);
                let length = source.length();
                let salvage = Salvage::new(&source, length, Reading::Prometheus);
                salvage.read_with(&salvage.decide(), &mut head);
            }
        }
    }
    Ok(head.finish())
}

impl Visitor for ReplayedHead {
    fn record(&mut self, record: &Record<'_>, contents: &Contents) {
        self.newest = self.newest.max(contents.max_time);
        match Decoded::parse(record.data) {
            Decoded::Series(r) => {
                let hash = foldhash::quality::FixedState::default();
                for entry in r.entries().flatten() {
                    self.series(entry.series_ref, hash.hash_one(entry.labels.encoded()));
                }
            }
            Decoded::Samples(r) => r.entries().flatten().for_each(|e| self.sample(e.series_ref, e.t)),
            Decoded::Histograms(r) => {
                let known = r.entries().flatten().filter(HistogramEntry::known_schema);
                known.for_each(|e| self.sample(e.series_ref, e.t));
            }
            Decoded::FloatHistograms(r) => {
                let known = r.entries().flatten().filter(FloatHistogramEntry::known_schema);
                known.for_each(|e| self.sample(e.series_ref, e.t));
            }
            Decoded::Tombstones(_)
            | Decoded::Exemplars(_)
            | Decoded::MmapMarkers(_)
            | Decoded::Metadata(_)
            | Decoded::MinValidTime(_)
            | Decoded::Unknown(_) => {
                each_use(record.data, |now| self.used = self.used.max(Some(now.series_ref)));
            }
        }
    }

    fn damage(&mut self, _: Problem) {
        self.damaged += 1;
    }
}

#[derive(Default)]
struct ReplayedHead {
    refs: HashMap<u64, usize>,
    labels: HashMap<u64, usize>,
    /// Of each series the time of its last sample, and how many it has.
    series: Vec<(i64, u64)>,
    redefined: u64,
    unknown: u64,
    damaged: u64,
    defined: Option<u64>,
    used: Option<u64>,
    newest: Option<i64>,
}

impl ReplayedHead {
    fn series(&mut self, series_ref: u64, labels: u64) {
        self.defined = self.defined.max(Some(series_ref));
        if let Some(&known) = self.labels.get(&labels) {
            self.redefined += 1;
            self.series[known] = (i64::MIN, 0);
            self.refs.insert(series_ref, known);
            return;
        }
        let new = self.series.len();
        self.series.push((i64::MIN, 0));
        self.labels.insert(labels, new);
        if let Some(before) = self.refs.insert(series_ref, new) {
            // Nothing leads to it any more.
            self.redefined += 1;
            self.series[before].1 = 0;
        }
    }

    fn sample(&mut self, series_ref: u64, time: i64) {
        self.used = self.used.max(Some(series_ref));
        let Some(&series) = self.refs.get(&series_ref) else {
            self.unknown += 1;
            return;
        };
        let (last, count) = &mut self.series[series];
        if time > *last {
            *last = time;
            *count += 1;
        }
    }

    fn finish(self) -> Served {
        Served {
            samples: self.series.iter().map(|&(_, count)| count).sum(),
            redefined: self.redefined,
            unknown: self.unknown,
            damaged: self.damaged,
            defined: self.defined,
            used: self.used,
            newest: self.newest,
        }
    }
}
