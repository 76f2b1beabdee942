//! What the whole records of a segment show of the refs, labels and times in it, to judge one that is in doubt.

use std::collections::HashSet;

use crate::record::{self, Record as Decoded};
use crate::wal::{Event, ReadAt, Record, SegmentReader};

/// How many neighbours on either side show which times fit.
const NEIGHBOURS: usize = 24;

/// How far beyond its neighbours' times an entry may be, in ms: ten minutes, the most by which a scrape may be ahead
/// (`scrape/scrape.go`, `maxAheadTime`).
const SLACK: i64 = 10 * 60 * 1000;

/// Refs, label sets, orders of refs and times, as whole records of one segment show them.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Refs that any record uses.
    refs: HashSet<u64>,
    /// Refs that a series record defines.
    defined: HashSet<u64>,
    /// Refs that stand next to each other in a record of samples.
    pairs: HashSet<(u64, u64)>,
    /// Some record has the same ref twice in a row with the same time.
    repeats: bool,
    /// Offset and times of records that have times, in order.
    times: Vec<(u64, i64, i64)>,
}

/// A use of a series in a record.
#[derive(Clone, Copy)]
struct Use {
    series_ref: u64,
    time: Option<i64>,
}

impl Context {
    /// Of those records of a segment that are `trusted`.
    pub(super) fn of<S: ReadAt + ?Sized>(source: &S, length: u64, trusted: impl Fn(&Record<'_>) -> bool) -> Self {
        let mut context = Self::default();
        let mut reader = SegmentReader::new(source, length);
        while let Some(event) = reader.next() {
            if let Event::Record(record) = event
                && trusted(&record)
                && record::summarize(record.data).error.is_none()
            {
                context.learn(&record);
            }
        }
        context
    }

    fn learn(&mut self, record: &Record<'_>) {
        let summary = record::summarize(record.data);
        if let (Some(min), Some(max)) = (summary.min_time, summary.max_time) {
            self.times.push((record.offset, min, max));
        }
        if let Decoded::Series(series) = Decoded::parse(record.data) {
            self.defined.extend(series.entries().flatten().map(|entry| entry.series_ref));
        }
        let mut last: Option<Use> = None;
        each_use(record.data, |now| {
            self.refs.insert(now.series_ref);
            if let Some(last) = last {
                self.pairs.insert((last.series_ref, now.series_ref));
                self.repeats |= same(last, now);
            }
            last = Some(now);
        });
    }

    /// Whether a record, joined from fragments, cannot be what was written: what whole records show speaks
    /// against it. A record of which nothing is known is believed.
    pub(super) fn contradicts(&self, data: &[u8], offset: u64) -> bool {
        let summary = record::summarize(data);
        if summary.error.is_some() {
            return true;
        }
        if let Decoded::Series(series) = Decoded::parse(data) {
            return self.series_contradict(&series);
        }
        let window = self.window(offset);
        let (mut uses, mut known, mut pairs, mut known_pairs) = (0u64, 0u64, 0u64, 0u64);
        let (mut repeats, mut out_of_time) = (false, false);
        let mut last: Option<Use> = None;
        each_use(data, |now| {
            uses += 1;
            known += u64::from(self.refs.contains(&now.series_ref));
            out_of_time |= now.time.is_some_and(|t| window.is_some_and(|(min, max)| t < min || t > max));
            if let Some(last) = last {
                pairs += 1;
                known_pairs += u64::from(self.pairs.contains(&(last.series_ref, now.series_ref)));
                repeats |= same(last, now);
            }
            last = Some(now);
        });
        let strangers = uses - known;
        let odd_pairs = pairs - known_pairs;
        out_of_time
            || (repeats && !self.repeats)
            || (strangers > 0 && known > 0 && strangers * 4 < uses)
            || (strangers > 0 && summary.max_ref > self.refs.iter().max().map(|max| max.saturating_mul(2) + 1_000_000))
            || (odd_pairs > 0 && known_pairs > 0 && odd_pairs * 20 <= pairs)
    }

    fn series_contradict(&self, series: &record::SeriesRecord<'_>) -> bool {
        let mut seen = HashSet::new();
        let (mut steps, mut jumps) = (0u64, 0u64);
        let mut last: Option<u64> = None;
        for entry in series.entries().flatten() {
            if self.defined.contains(&entry.series_ref) || !seen.insert(entry.series_ref) || !plausible_labels(&entry) {
                return true;
            }
            if let Some(last) = last {
                steps += 1;
                jumps += u64::from(entry.series_ref != last + 1);
            }
            last = Some(entry.series_ref);
        }
        jumps > 0 && jumps * 20 <= steps
    }

    /// Whether what whole records show speaks for a record: every ref of its samples is one of theirs, every time is
    /// near theirs; a series has well-formed labels and a ref that no other record defines.
    pub(super) fn supports(&self, data: &[u8], offset: u64) -> bool {
        if let Decoded::Series(series) = Decoded::parse(data) {
            let highest = self.refs.iter().max().copied();
            return series.entries().flatten().all(|entry| {
                plausible_labels(&entry)
                    && !self.defined.contains(&entry.series_ref)
                    && highest.is_some_and(|highest| entry.series_ref <= highest.saturating_add(100_000))
            });
        }
        let window = self.window(offset);
        let mut fits = true;
        let mut last: Option<Use> = None;
        each_use(data, |now| {
            fits &= self.refs.contains(&now.series_ref);
            fits &= match (now.time, window) {
                (Some(t), Some((min, max))) => min <= t && t <= max,
                (Some(_), None) => false,
                (None, _) => true,
            };
            fits &= self.repeats || !last.is_some_and(|last| same(last, now));
            last = Some(now);
        });
        fits
    }

    /// The times that fit at `offset`, ms.
    fn window(&self, offset: u64) -> Option<(i64, i64)> {
        let after = self.times.partition_point(|&(at, ..)| at < offset);
        let near = self.times.get(after.saturating_sub(NEIGHBOURS)..(after + NEIGHBOURS).min(self.times.len()))?;
        let min = near.iter().map(|&(_, min, _)| min).min()?;
        let max = near.iter().map(|&(.., max)| max).max()?;
        Some((min.saturating_sub(SLACK), max.saturating_add(SLACK)))
    }
}

/// The same series at the same time: no writer logs that twice in a row.
fn same(a: Use, b: Use) -> bool {
    a.series_ref == b.series_ref && a.time.is_some() && a.time == b.time
}

/// Names as Prometheus writes them: sorted, not empty, UTF-8 (`model/labels`).
fn plausible_labels(entry: &record::SeriesEntry<'_>) -> bool {
    let mut last: Option<&[u8]> = None;
    entry.labels.iter().all(|(name, value)| {
        let sorted = last.is_none_or(|last| last < name);
        last = Some(name);
        sorted && !name.is_empty() && std::str::from_utf8(name).is_ok() && std::str::from_utf8(value).is_ok()
    }) && !entry.labels.is_empty()
}

fn each_use(data: &[u8], mut visit: impl FnMut(Use)) {
    let mut timed = |series_ref, t| visit(Use { series_ref, time: Some(t) });
    match Decoded::parse(data) {
        Decoded::Samples(r) => r.entries().flatten().for_each(|e| timed(e.series_ref, e.t)),
        Decoded::Exemplars(r) => r.entries().flatten().for_each(|e| timed(e.series_ref, e.t)),
        Decoded::Histograms(r) => r.entries().flatten().for_each(|e| timed(e.series_ref, e.t)),
        Decoded::FloatHistograms(r) => r.entries().flatten().for_each(|e| timed(e.series_ref, e.t)),
        Decoded::Series(r) => r.entries().flatten().for_each(|e| visit(Use { series_ref: e.series_ref, time: None })),
        Decoded::Metadata(r) => r.entries().flatten().for_each(|e| visit(Use { series_ref: e.series_ref, time: None })),
        Decoded::Tombstones(r) => {
            r.entries().flatten().for_each(|e| visit(Use { series_ref: e.series_ref, time: None }));
        }
        Decoded::MmapMarkers(r) => {
            r.entries().flatten().for_each(|e| visit(Use { series_ref: e.series_ref, time: None }));
        }
        Decoded::MinValidTime(_) | Decoded::Unknown(_) => {}
    }
}
