//! What segments say of series.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::io;

use crate::record::{Record, each_use};
use crate::repair::Refusal;
use crate::repair::segment::{RecordSink, SegmentRules, open, read_repaired};
use crate::wal::segments::SegmentFile;

/// What a segment, or several, say of series.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    /// Of each ref that is defined, a number that its labels make.
    pub(super) labels: HashMap<u64, u64>,
    /// All refs of entries, if they are wanted.
    pub(super) refs: Option<HashSet<u64>>,
    /// The highest of them.
    pub(super) highest: Option<u64>,
    /// The earliest and latest times of samples, ms.
    pub(super) min_time: Option<i64>,
    pub(super) max_time: Option<i64>,
}

impl RecordSink for Definitions {
    fn record(&mut self, record: &[u8]) {
        if let Record::Series(series) = Record::parse(record) {
            let hasher = foldhash::quality::FixedState::default();
            for entry in series.entries().flatten() {
                self.labels.entry(entry.series_ref).or_insert_with(|| hasher.hash_one(entry.labels));
            }
        }
        each_use(record, |one| {
            self.highest = self.highest.max(Some(one.series_ref));
            if let Some(refs) = &mut self.refs {
                refs.insert(one.series_ref);
            }
            self.widen(one.time, one.time);
        });
    }
}

impl Definitions {
    /// As of nothing, and with all refs.
    pub(super) fn with_refs() -> Self {
        Self { refs: Some(HashSet::new()), ..Self::default() }
    }

    pub(super) fn of(
        segments: &[SegmentFile],
        rules: SegmentRules<'_>,
        new: fn() -> Self,
    ) -> io::Result<Self> {
        let mut all = new();
        for segment in segments {
            let (file, length) = match open(&segment.path) {
                Err(error) if crate::io::is_no_file(&error) => continue,
                opened => opened?,
            };
            let one = read_repaired(&file, length, rules, new);
            for (series_ref, labels) in one.labels {
                all.labels.entry(series_ref).or_insert(labels);
            }
            if let Some(refs) = &mut all.refs {
                refs.extend(one.refs.into_iter().flatten());
            }
            all.highest = all.highest.max(one.highest);
            all.widen(one.min_time, one.max_time);
        }
        Ok(all)
    }

    fn widen(&mut self, from: Option<i64>, to: Option<i64>) {
        if let Some(from) = from {
            self.min_time = Some(self.min_time.map_or(from, |min| min.min(from)));
        }
        self.max_time = self.max_time.max(to);
    }
}

/// Where the newest generation begins: a ref is defined once in each.
pub(super) fn newest(segments: &[Definitions]) -> usize {
    let mut begins = 0;
    let mut known: HashSet<u64> = HashSet::new();
    for (at, segment) in segments.iter().enumerate() {
        if segment.labels.keys().any(|series_ref| known.contains(series_ref)) {
            begins = at;
            known.clear();
        }
        known.extend(segment.labels.keys());
    }
    begins
}

/// Whether segments of several runs are mixed, as where some have been put back by hand.
pub(super) fn are_mixed(segments: &[SegmentFile], contents: &[Definitions]) -> Option<Refusal> {
    let mut known: HashMap<u64, u64> = HashMap::new();
    for (series_ref, labels) in contents.iter().flat_map(|one| &one.labels) {
        if known.insert(*series_ref, *labels).is_some_and(|before| before != *labels) {
            return Some(Refusal::SeveralRuns);
        }
    }
    let restarted = contents.iter().find_map(|one| one.min_time);
    for (pair, one) in segments.windows(2).zip(contents.iter().skip(1)) {
        let is_gap = pair[1].index != pair[0].index.saturating_add(1);
        if is_gap && one.max_time.is_some_and(|newest| Some(newest) < restarted) {
            return Some(Refusal::OlderAfterGap);
        }
    }
    None
}
