//! What the whole records of a segment show of the refs, labels and times in it, to judge one that is in doubt.

use std::collections::HashSet;

use crate::record::{self, Record as Decoded};
use crate::wal::{Compression, Event, ReadAt, Record, SegmentReader};

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
    /// The highest of them.
    highest: u64,
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
            self.highest = self.highest.max(now.series_ref);
            if let Some(last) = last {
                self.pairs.insert((last.series_ref, now.series_ref));
                self.repeats |= same(last, now);
            }
            last = Some(now);
        });
    }

    /// Whether a record, joined from fragments of pages that may not belong together, cannot be what was written:
    /// where two fragments meet, what whole records show speaks against it. What nothing speaks against is believed.
    pub(super) fn contradicts(&self, record: &Record<'_>) -> bool {
        if record::summarize(record.data).error.is_some() {
            return true;
        }
        let mut uses = Vec::new();
        each_use(record.data, |now| uses.push(now));
        if self.is_foreign(&uses, record.offset) {
            return true;
        }
        if let Decoded::Series(series) = Decoded::parse(record.data)
            && self.series_contradict(&series)
        {
            return true;
        }
        // The joints of a compressed record are nowhere in particular in what it unpacks to.
        record.compression == Compression::None
            && record.joints().any(|joint| {
                let before = record.data.get(..joint).unwrap_or_default();
                let entries = usize::try_from(record::summarize(before).entries).unwrap_or(0);
                self.joint_contradicts(&uses, entries)
            })
    }

    /// Refs and times of which most are strange to the rest of the segment, in a record that is not strange as a whole.
    fn is_foreign(&self, uses: &[Use], offset: u64) -> bool {
        let window = self.window(offset);
        let strange = uses.iter().filter(|now| !self.refs.contains(&now.series_ref)).count();
        let highest = self.highest.saturating_mul(2).saturating_add(1_000_000);
        let wild = uses.iter().filter(|now| now.series_ref > highest).count();
        let out_of_time = |now: &&Use| now.time.is_some_and(|t| window.is_some_and(|(min, max)| t < min || t > max));
        let late = uses.iter().filter(out_of_time).count();
        wild > 0 || (late > 0 && late < uses.len()) || (strange * 3 > uses.len() && strange * 10 < uses.len() * 9)
    }

    /// `entry` is the first that does not lie before the joint as a whole.
    fn joint_contradicts(&self, uses: &[Use], entry: usize) -> bool {
        let ascending = uses.windows(2).filter(|pair| pair[0].series_ref < pair[1].series_ref).count();
        let ordered = ascending * 20 >= uses.len().saturating_sub(1) * 19;
        let near = uses.get(entry.saturating_sub(1)..(entry + 2).min(uses.len())).unwrap_or_default();
        near.windows(2).any(|pair| {
            let (a, b) = (pair[0], pair[1]);
            if self.pairs.contains(&(a.series_ref, b.series_ref)) {
                return false;
            }
            (same(a, b) && !self.repeats) || (ordered && !self.is_small_step(a.series_ref, b.series_ref))
        }) || Self::time_changes_at(uses, entry)
    }

    /// Whether few refs that are in use lie between two: a series more or less, not the midst of another record.
    fn is_small_step(&self, a: u64, b: u64) -> bool {
        const FEW: usize = 4;
        a < b && (b - a <= FEW as u64 || (a + 1..b).filter(|between| self.refs.contains(between)).take(FEW + 1).count() <= FEW)
    }

    /// One time before the joint, another behind it: two scrapes.
    fn time_changes_at(uses: &[Use], entry: usize) -> bool {
        let (before, after) = uses.split_at(entry.min(uses.len()));
        let one_time = |uses: &[Use]| {
            let first = uses.first()?.time?;
            uses.iter().all(|now| now.time == Some(first)).then_some(first)
        };
        match (one_time(before), one_time(after.get(1..).unwrap_or_default())) {
            (Some(a), Some(b)) => a != b && before.len() > 1 && after.len() > 2,
            _ => false,
        }
    }

    fn series_contradict(&self, series: &record::SeriesRecord<'_>) -> bool {
        let mut seen = HashSet::new();
        series.entries().flatten().any(|entry| {
            self.defined.contains(&entry.series_ref) || !seen.insert(entry.series_ref) || !plausible_labels(&entry)
        })
    }

    /// Whether what whole records show speaks for a record: every ref of its samples is one of theirs, every time is
    /// near theirs; a series has well-formed labels and a ref that no other record defines.
    pub(super) fn supports(&self, data: &[u8], offset: u64) -> bool {
        if let Decoded::Series(series) = Decoded::parse(data) {
            return series.entries().flatten().all(|entry| {
                plausible_labels(&entry)
                    && !self.defined.contains(&entry.series_ref)
                    && entry.series_ref <= self.highest.saturating_add(100_000)
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
