//! What the whole records of a segment show of the refs, labels and times in it, to judge one that is in doubt.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use crate::record::{self, Record as Decoded, SeriesUse, each_use};
use crate::wal::{Compression, Event, ReadAt, Record, SegmentReader};

/// How many neighbours on either side show which times fit.
const NEIGHBOURS: usize = 24;

/// How far beyond its neighbours' times an entry may be, in ms: ten minutes, the most by which a scrape may be ahead
/// (`scrape/scrape.go`, `maxAheadTime`).
const SLACK: i64 = 10 * 60 * 1000;

/// Entries for which a decoder is out of step at least, when it is thrown out of it.
const OUT_OF_STEP: usize = 12;

/// In ms.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Refs, label sets, orders of refs and times, as whole records of one segment show them.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Refs that any record uses.
    refs: HashSet<u64>,
    /// The highest of them.
    highest: u64,
    /// Refs that a series record defines.
    defined: HashSet<u64>,
    /// Refs that stand next to each other.
    pairs: Pairs,
    /// Some record has the same ref twice in a row with the same time.
    repeats: bool,
    /// Offset and times of records that have times, in order.
    times: Vec<(u64, i64, i64)>,
}

/// Why a record is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Its pages may not stand where they stood.
    Pages,
    /// Only what it says where its fragments meet.
    Contents,
}

impl Suspicion {
    /// Steps that have to be unexpected at one joint. One or two may be a series more or less.
    fn enough(self) -> usize {
        match self {
            Self::Pages => 1,
            Self::Contents => 3,
        }
    }
}

impl Context {
    /// Of those records of a segment that are `trusted`.
    pub(super) fn of<S: ReadAt + ?Sized>(
        source: &S,
        length: u64,
        trusted: impl Fn(&Record<'_>) -> bool,
    ) -> Self {
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
        let mut last: Option<SeriesUse> = None;
        each_use(record.data, |now| {
            self.refs.insert(now.series_ref);
            self.highest = self.highest.max(now.series_ref);
            if let Some(last) = last {
                self.pairs.learn(last, now);
                self.repeats |= same(last, now);
            }
            last = Some(now);
        });
    }

    /// What speaks against a record that is joined from fragments of pages that may not belong together. What
    /// nothing speaks against is believed.
    pub(super) fn contradiction(&self, record: &Record<'_>, suspicion: Suspicion) -> Option<&'static str> {
        let summary = record::summarize(record.data);
        if summary.error.is_some() {
            return Some("it does not decode");
        }
        let mut uses = Vec::new();
        each_use(record.data, |now| uses.push(now));
        let (nobody_writes_it, clashes) = match Decoded::parse(record.data) {
            Decoded::Series(series) => {
                (!series.entries().flatten().all(|entry| plausible_labels(&entry)), self.redefines(&series))
            }
            Decoded::Metadata(metadata) => {
                (!metadata.entries().flatten().all(|entry| plausible_metadata(&entry)), false)
            }
            _ => (false, false),
        };
        if nobody_writes_it {
            return Some("it has labels or metadata that nobody writes");
        }
        // Odd refs and times alone are somebody's right; only where pages are in doubt do they speak against a record.
        if suspicion == Suspicion::Pages {
            if clashes {
                return Some("it defines series that other records define");
            }
            if self.is_foreign(&uses) || summary.unknown_schemas > 0 {
                return Some("its series or times are strange to the records around it");
            }
            if summary.record_type.is_none() {
                return Some("its type is unknown, so nothing shows that its fragments belong together");
            }
        }
        // The joints of a compressed record are nowhere in particular in what it unpacks to.
        if record.compression != Compression::None {
            return None;
        }
        let joints = entries_at_joints(record, &uses);
        let steps = Steps::of(&uses, &joints);
        let broken =
            joints.iter().any(|&entry| self.joint_contradicts(&uses, &steps, entry, suspicion.enough()));
        broken.then_some("the series or times change where two of its fragments meet")
    }

    /// Refs or times such as no other record of the segment comes near: what a decoder makes of bytes that it
    /// reads out of step.
    fn is_foreign(&self, uses: &[SeriesUse]) -> bool {
        let highest = self.highest.saturating_mul(2).saturating_add(1_000_000);
        let times = self.times.iter().fold(None, |range: Option<(i64, i64)>, &(_, min, max)| {
            Some(range.map_or((min, max), |(low, high)| (low.min(min), high.max(max))))
        });
        uses.iter().any(|now| {
            let early_or_late = |(min, max): (i64, i64), t: i64| {
                let slack = max.saturating_sub(min).saturating_add(DAY);
                t < min.saturating_sub(slack) || t > max.saturating_add(slack)
            };
            (!self.refs.is_empty() && now.series_ref > highest)
                || now.time.zip(times).is_some_and(|(t, times)| early_or_late(times, t))
        })
    }

    /// Whether at a joint that many steps are none that one would expect. `entry` is the first that does not lie before
    /// the joint as a whole.
    fn joint_contradicts(&self, uses: &[SeriesUse], steps: &Steps, entry: usize, enough: usize) -> bool {
        let known =
            |uses: &[SeriesUse]| uses.iter().filter(|now| self.refs.contains(&now.series_ref)).count();
        let (before, after) = uses.split_at(entry.min(uses.len()));
        // Series are defined before anything else uses them.
        let timed = uses.first().is_some_and(|first| first.time.is_some());
        if timed && known(before) * 5 > before.len() * 4 && known(after) * 2 < after.len() {
            return true;
        }
        let unexpected = |pair: &&[SeriesUse]| {
            let (a, b) = (pair[0], pair[1]);
            let known = self.pairs.knows(a, b);
            let unlike =
                if known == Pair::Unknown { steps.are_unlike(a, b) } else { steps.breaks_time(a, b, known) };
            unlike || same(a, b) && !self.repeats
        };
        around(uses, entry).windows(2).filter(unexpected).count() >= enough
    }

    /// Whether a series has a ref that another record, or an earlier series of this one, defines.
    fn redefines(&self, series: &record::SeriesRecord<'_>) -> bool {
        let mut seen = HashSet::new();
        let mut refs = series.entries().flatten().map(|entry| entry.series_ref);
        refs.any(|series_ref| self.defined.contains(&series_ref) || !seen.insert(series_ref))
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
        let mut last: Option<SeriesUse> = None;
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
        let near =
            self.times.get(after.saturating_sub(NEIGHBOURS)..(after + NEIGHBOURS).min(self.times.len()))?;
        let min = near.iter().map(|&(_, min, _)| min).min()?;
        let max = near.iter().map(|&(.., max)| max).max()?;
        Some((min.saturating_sub(SLACK), max.saturating_add(SLACK)))
    }
}

/// The same series at the same time: no writer logs that twice in a row.
fn same(a: SeriesUse, b: SeriesUse) -> bool {
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

/// A metric type that exists, and text (`tsdb/record/record.go`, `MetricType`).
fn plausible_metadata(entry: &record::MetadataEntry<'_>) -> bool {
    entry.metric_type <= 7
        && std::str::from_utf8(entry.unit).is_ok()
        && std::str::from_utf8(entry.help).is_ok()
}

/// Entries from the one before a joint to where a decoder that lost its step has found it again.
fn around(uses: &[SeriesUse], entry: usize) -> &[SeriesUse] {
    uses.get(entry.saturating_sub(1)..(entry + OUT_OF_STEP).min(uses.len())).unwrap_or_default()
}

/// Whether the entries where fragments of an uncompressed record meet are like those elsewhere in it. A decoder that is
/// thrown out of step by a page that does not belong there reads a few wild entries, finds its step again, and reports
/// nothing.
pub(super) fn joints_look_sane(record: &Record<'_>) -> bool {
    /// A step to the next series, or over a few that have no sample.
    const SHORT: u64 = 64;
    let mut uses = Vec::new();
    each_use(record.data, |now| uses.push(now));
    let joints = entries_at_joints(record, &uses);
    let odd = |unlike: &dyn Fn(SeriesUse, SeriesUse) -> bool| {
        let enough = Suspicion::Contents.enough();
        let at = |&entry: &usize| {
            around(&uses, entry).windows(2).filter(|pair| unlike(pair[0], pair[1])).count() >= enough
        };
        joints.iter().any(at)
    };
    // Most records need no more than a look at these few entries.
    let plain = |a: SeriesUse, b: SeriesUse| {
        a.time == b.time && a.series_ref < b.series_ref && b.series_ref - a.series_ref <= SHORT
    };
    if !odd(&|a, b| !plain(a, b) && !begins_again(a, b)) {
        return true;
    }
    let steps = Steps::of(&uses, &joints);
    !odd(&|a, b| steps.are_unlike(a, b))
}

/// For each joint of an uncompressed record the first entry that does not lie before it as a whole.
fn entries_at_joints(record: &Record<'_>, uses: &[SeriesUse]) -> Vec<usize> {
    record.joints().map(|joint| uses.partition_point(|now| now.end <= joint)).collect()
}

/// Refs that stand next to each other, and whether ever at different times.
#[derive(Debug, Default)]
struct Pairs(HashMap<(u64, u64), Pair>);

/// What is known of two refs next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    /// They stand so nowhere else.
    Unknown,
    /// They do, always with the same time.
    OneTime,
    /// They do, and their times differ somewhere.
    TwoTimes,
}

impl Pairs {
    fn learn(&mut self, a: SeriesUse, b: SeriesUse) {
        let pair = self.0.entry((a.series_ref, b.series_ref)).or_insert(Pair::OneTime);
        if a.time != b.time {
            *pair = Pair::TwoTimes;
        }
    }

    fn knows(&self, a: SeriesUse, b: SeriesUse) -> Pair {
        self.0.get(&(a.series_ref, b.series_ref)).copied().unwrap_or(Pair::Unknown)
    }
}

/// How a record goes from one entry to the next where no fragments meet.
#[derive(Debug, Default)]
struct Steps {
    total: usize,
    /// Of those, steps within one time.
    same_time: usize,
    kinds: HashMap<(Ordering, Ordering), usize>,
    pairs: Pairs,
    /// Refs with which a scrape begins.
    beginnings: HashSet<u64>,
    /// Refs with which one ends.
    endings: HashSet<u64>,
    /// A step from one ref to the next than which few are longer.
    long: u64,
}

impl Steps {
    fn of(uses: &[SeriesUse], joints: &[usize]) -> Self {
        let mut steps = Self::default();
        let mut lengths = Vec::with_capacity(uses.len());
        let mut joints = joints.iter().peekable();
        for (at, pair) in uses.windows(2).enumerate() {
            while joints.next_if(|&&entry| entry.saturating_add(OUT_OF_STEP) <= at).is_some() {}
            if joints.peek().is_some_and(|&&entry| at + 1 >= entry) {
                continue;
            }
            let (a, b) = (pair[0], pair[1]);
            steps.total += 1;
            steps.same_time += usize::from(a.time == b.time);
            *steps.kinds.entry(Self::kind(a, b)).or_default() += 1;
            steps.pairs.learn(a, b);
            if begins_again(a, b) {
                steps.beginnings.insert(b.series_ref);
                steps.endings.insert(a.series_ref);
            } else if a.series_ref < b.series_ref {
                lengths.push(b.series_ref - a.series_ref);
            }
        }
        let most = lengths.len() * 49 / 50;
        if most < lengths.len() {
            steps.long = *lengths.select_nth_unstable(most).1;
        }
        steps
    }

    /// Whether two series that always have the same time do not, in a record of scrapes: all of one have one time.
    fn breaks_time(&self, a: SeriesUse, b: SeriesUse, known: Pair) -> bool {
        known == Pair::OneTime && a.time != b.time && self.same_time * 20 >= self.total * 19
    }

    /// Whether ref and time go up, down or stay.
    fn kind(a: SeriesUse, b: SeriesUse) -> (Ordering, Ordering) {
        (a.series_ref.cmp(&b.series_ref), a.time.cmp(&b.time))
    }

    /// Whether that step is none that the record makes elsewhere, but for a few. Of a short record nothing is said.
    fn are_unlike(&self, a: SeriesUse, b: SeriesUse) -> bool {
        const ENOUGH: usize = 20;
        if self.total < ENOUGH {
            return false;
        }
        let known = self.pairs.knows(a, b);
        if known != Pair::Unknown {
            return self.breaks_time(a, b, known);
        }
        if begins_again(a, b) {
            return !self.beginnings.is_empty()
                && !self.beginnings.contains(&b.series_ref)
                && !self.endings.contains(&a.series_ref);
        }
        let usual = self.kinds.get(&Self::kind(a, b)).is_some_and(|count| count * 50 >= self.total);
        let far = b.series_ref.saturating_sub(a.series_ref) > self.long.saturating_mul(4).saturating_add(16);
        far || !usual
    }
}

/// A writer that logs several scrapes at once begins again with the first series, at a later time.
fn begins_again(a: SeriesUse, b: SeriesUse) -> bool {
    b.series_ref <= a.series_ref && b.time > a.time
}
