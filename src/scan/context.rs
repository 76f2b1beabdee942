//! What the intact records of a segment show of the refs, labels and times in it, to judge one that is in doubt.

use std::cmp::Ordering;

use foldhash::{HashMap, HashSet};

use super::misplaced::out_of_step::reads_out_of_step;
use crate::record::{self, Record as Decoded, SeriesUse, Summary, each_use};
use crate::wal::around::{self, Met};
use crate::wal::{Compression, Event, IntactPart, ReadAt, Record};

/// How many neighbours on either side show which times fit.
const NEIGHBOURS: usize = 24;

/// How far beyond its neighbours' times an entry may be, in ms: ten minutes, the most by which a scrape may be ahead
/// (`scrape/scrape.go`, `maxAheadTime`).
const SLACK: i64 = 10 * 60 * 1000;

/// Entries of one record that are looked at to see whether its pages belong together, at the most: more than most scrapes
/// have. A hostile record may have as many as bytes.
const MOST_USES: usize = 1 << 20;

/// Entries for which a decoder is out of step at least, when it is thrown out of it.
const OUT_OF_STEP: usize = 12;

/// In ms.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Refs, which is next to which, and times, as intact records of one segment show them.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// Refs that any record uses.
    refs: HashSet<u64>,
    /// The highest of them.
    highest: u64,
    /// Refs that a series record defines.
    defined: HashSet<u64>,
    /// Those refs next to each other that somebody asked for.
    pairs: Pairs,
    /// Some record has the same ref twice in a row with the same time.
    repeats: bool,
    /// Offset and times of records that have times, in order.
    times: Vec<(u64, i64, i64)>,
}

/// Why a record is in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Its pages may not be where they were written.
    Pages,
    /// Only what it says.
    Contents,
}

impl Context {
    /// Of those records of a segment that are `trusted`. Of refs next to each other only those that `asked`
    /// has are looked for: all of them would take memory for every sample.
    pub(super) fn of<S: ReadAt + ?Sized>(
        source: &S,
        length: u64,
        intact: &[IntactPart],
        asked: Pairs,
        trusted: impl Fn(&Record<'_>) -> bool,
    ) -> Self {
        let mut context = Self { pairs: asked, ..Self::default() };
        around::read(source, length, intact, &std::collections::HashSet::new(), |met| {
            let record = match &met {
                Met::Read(Event::Record(record)) => record,
                Met::Walked(record) => *record,
                Met::Read(Event::Damage(_)) | Met::WalkEnds => return,
            };
            if trusted(record) {
                let summary = record::summarize(record.data);
                if summary.error.is_none() {
                    context.learn(record, &summary);
                }
            }
        });
        context
    }

    fn learn(&mut self, record: &Record<'_>, summary: &Summary) {
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
                self.pairs.learn_if_asked(last, now);
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
        let uses = uses(record.data);
        let decoded = Decoded::parse(record.data);
        if !text_is_plausible(&decoded) {
            return Some("it has labels or metadata that nobody writes");
        }
        // What a decoder reads that a wrong page has thrown out of step, before it finds its step again.
        if summary.overlong {
            return Some("it has numbers in a form that nobody writes");
        }
        if reads_out_of_step(record, &summary) {
            return Some("part of it reads as series, times and values that nobody writes");
        }
        if pages_are_exchanged(record) {
            return Some("its pages are in each other's place");
        }
        if suspicion == Suspicion::Contents {
            return None;
        }
        // Odd refs and times alone are somebody's right; only where pages are in doubt do they speak against a record.
        if matches!(decoded, Decoded::Series(series) if self.redefines(&series)) {
            return Some("it defines series that other records define");
        }
        if self.is_foreign(&uses) || summary.unknown_schemas > 0 {
            return Some("its series or times are strange to the records around it");
        }
        if summary.record_type.is_none() {
            return Some("its type is unknown, so nothing shows that its fragments belong together");
        }
        // The joints of a compressed record are nowhere in particular in what it unpacks to.
        if record.compression != Compression::None {
            return None;
        }
        let joints = entries_at_joints(record, &uses);
        let steps = EntrySteps::of(&uses, &joints);
        let broken = joints.iter().any(|&entry| self.joint_contradicts(&uses, &steps, entry));
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

    /// Whether at a joint a step is none that one would expect. `entry` is the first that does not lie before the joint as
    /// a whole.
    fn joint_contradicts(&self, uses: &[SeriesUse], steps: &EntrySteps, entry: usize) -> bool {
        around(uses, entry).windows(2).any(|pair| {
            let (a, b) = (pair[0], pair[1]);
            let known = self.pairs.knows(a, b);
            let unlike =
                if known == Pair::Unknown { steps.are_unlike(a, b) } else { steps.breaks_time(a, b, known) };
            unlike || same(a, b) && !self.repeats
        })
    }

    /// Whether a series has a ref that another record, or an earlier series of this one, defines.
    fn redefines(&self, series: &record::SeriesRecord<'_>) -> bool {
        let mut seen = HashSet::default();
        let mut refs = series.entries().flatten().map(|entry| entry.series_ref);
        refs.any(|series_ref| self.defined.contains(&series_ref) || !seen.insert(series_ref))
    }

    /// Whether what intact records show speaks for a record: every ref of its samples is one of theirs, every time is
    /// near theirs; a series has well-formed labels and a ref that no other record defines.
    pub(super) fn supports(&self, data: &[u8], offset: u64) -> bool {
        if let Decoded::Series(series) = Decoded::parse(data) {
            return series.entries().flatten().all(|entry| {
                entry.labels.are_plausible()
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

    /// Whether a record has refs or times such as no other of the segment comes near, or series that others define.
    pub(super) fn is_strange(&self, data: &[u8]) -> bool {
        matches!(Decoded::parse(data), Decoded::Series(series) if self.redefines(&series))
            || self.is_foreign(&uses(data))
    }

    /// Whether any record uses that ref.
    pub(super) fn uses(&self, series_ref: u64) -> bool {
        self.refs.contains(&series_ref)
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

/// What the first entries of a record are about: all of them, but for one that is too large.
fn uses(record: &[u8]) -> Vec<SeriesUse> {
    let mut uses = Vec::new();
    each_use(record, |now| {
        if uses.len() < MOST_USES {
            uses.push(now);
        }
    });
    uses
}

/// The same series at the same time, twice in a row: few writers log that.
fn same(a: SeriesUse, b: SeriesUse) -> bool {
    a.series_ref == b.series_ref && a.time.is_some() && a.time == b.time
}

/// Whether what says something of text in records that end there says it as Prometheus does.
pub(super) fn parts_are_plausible(record: &[u8], ends: &[usize]) -> bool {
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts
        .zip(ends)
        .filter_map(|(start, &end)| record.get(start..end))
        .all(|part| text_is_plausible(&Decoded::parse(part)))
}

/// Whether the text in a record is such as Prometheus takes: labels as of a target, metric types that exist
/// (`tsdb/record/record.go`, `MetricType`), and UTF-8.
pub(super) fn text_is_plausible(record: &Decoded<'_>) -> bool {
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    match record {
        Decoded::Series(series) => series.entries().flatten().all(|entry| entry.labels.are_plausible()),
        Decoded::Metadata(metadata) => metadata
            .entries()
            .flatten()
            .all(|entry| entry.metric_type <= 7 && is_text(entry.unit) && is_text(entry.help)),
        // Labels of exemplars are whatever a target says.
        Decoded::Exemplars(_)
        | Decoded::Samples(_)
        | Decoded::Histograms(_)
        | Decoded::FloatHistograms(_)
        | Decoded::Tombstones(_)
        | Decoded::MmapMarkers(_)
        | Decoded::MinValidTime(_)
        | Decoded::Unknown(_) => true,
    }
}

/// Entries from the one before a joint to where a decoder that lost its step has found it again.
fn around(uses: &[SeriesUse], entry: usize) -> &[SeriesUse] {
    uses.get(entry.saturating_sub(1)..(entry + OUT_OF_STEP).min(uses.len())).unwrap_or_default()
}

/// Whether pages within one uncompressed record of samples are in each other's place: where they meet the refs jump far
/// ahead at one joint and back at another, at the same time, and nowhere else in the record do they go back.
pub(super) fn pages_are_exchanged(record: &Record<'_>) -> bool {
    /// The beginning, the two pages, and the end.
    const FRAGMENTS: usize = 4;
    if record.fragments.len() < FRAGMENTS || record.compression != Compression::None {
        return false;
    }
    let uses = uses(record.data);
    if uses.len() == MOST_USES {
        return false;
    }
    let joints = entries_at_joints(record, &uses);
    let at_joints = |odd: &dyn Fn(&[SeriesUse]) -> bool| {
        joints.iter().any(|&entry| around(&uses, entry).windows(2).any(odd))
    };
    let back = |pair: &[SeriesUse]| pair[1].series_ref < pair[0].series_ref && pair[1].time == pair[0].time;
    if !at_joints(&back) {
        return false;
    }
    let steps = EntrySteps::of(&uses, &joints);
    let ahead = |pair: &[SeriesUse]| steps.is_far(pair[0], pair[1]) && pair[1].time == pair[0].time;
    at_joints(&ahead) && !steps.kinds.contains_key(&(Ordering::Greater, Ordering::Equal))
}

/// For each joint of an uncompressed record the first entry that does not lie before it as a whole.
fn entries_at_joints(record: &Record<'_>, uses: &[SeriesUse]) -> Vec<usize> {
    record.joints().map(|joint| uses.partition_point(|now| now.end <= joint)).collect()
}

/// Refs next to each other, and whether ever at different times.
#[derive(Debug, Default)]
pub(super) struct Pairs(HashMap<(u64, u64), Pair>);

/// What is known of two refs next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    /// They are so nowhere else.
    Unknown,
    /// They do, always with the same time.
    OneTime,
    /// They do, and their times differ somewhere.
    TwoTimes,
}

impl Pairs {
    /// Asks for the pairs where fragments of that record meet.
    pub(super) fn ask(&mut self, record: &Record<'_>) {
        let uses = uses(record.data);
        for entry in entries_at_joints(record, &uses) {
            for pair in around(&uses, entry).windows(2) {
                self.0.entry((pair[0].series_ref, pair[1].series_ref)).or_insert(Pair::Unknown);
            }
        }
    }

    fn learn_if_asked(&mut self, a: SeriesUse, b: SeriesUse) {
        if self.0.contains_key(&(a.series_ref, b.series_ref)) {
            self.learn(a, b);
        }
    }

    fn learn(&mut self, a: SeriesUse, b: SeriesUse) {
        let pair = self.0.entry((a.series_ref, b.series_ref)).or_insert(Pair::Unknown);
        if a.time != b.time {
            *pair = Pair::TwoTimes;
        } else if *pair == Pair::Unknown {
            *pair = Pair::OneTime;
        }
    }

    fn knows(&self, a: SeriesUse, b: SeriesUse) -> Pair {
        self.0.get(&(a.series_ref, b.series_ref)).copied().unwrap_or(Pair::Unknown)
    }
}

/// How a record goes from one entry to the next where no fragments meet.
#[derive(Debug, Default)]
struct EntrySteps {
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

impl EntrySteps {
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
        self.is_far(a, b) || !usual
    }

    /// Whether the step from one ref to the next is much longer than those elsewhere in the record.
    fn is_far(&self, a: SeriesUse, b: SeriesUse) -> bool {
        b.series_ref.saturating_sub(a.series_ref) > self.long.saturating_mul(4).saturating_add(16)
    }
}

/// A writer that logs several scrapes at once begins again with the first series, at a later time.
fn begins_again(a: SeriesUse, b: SeriesUse) -> bool {
    b.series_ref < a.series_ref && b.time > a.time
}

/// What some records of a segment show.
#[derive(Debug)]
pub(crate) struct Surroundings(Context);

impl Surroundings {
    /// Of the records that begin at `trusted` offsets of the first `length` bytes of `source`.
    pub(crate) fn of<S: ReadAt + ?Sized>(source: &S, length: u64, trusted: impl Fn(u64) -> bool) -> Self {
        Self(Context::of(source, length, &[], Pairs::default(), |record| trusted(record.offset)))
    }

    /// Whether they speak against one of the records `parts`: it has refs or times such as none of theirs comes near, or
    /// series that they define.
    pub(crate) fn contradict(&self, parts: &[Vec<u8>]) -> bool {
        parts.iter().any(|part| self.0.is_strange(part))
    }

    /// Whether they speak for `data` at `offset`: every ref is one of theirs, every time near theirs, labels are
    /// well-formed, and no other record defines their series.
    pub(crate) fn support(&self, data: &[u8], offset: u64) -> bool {
        let Self(context) = self;
        if let Decoded::Series(series) = Decoded::parse(data)
            && !series.entries().flatten().all(|entry| context.uses(entry.series_ref))
        {
            return false;
        }
        context.supports(data, offset)
    }
}
