//! A WAL that Prometheus has begun anew beside a checkpoint that covers its numbers.
//!
//! On damage in `checkpoint.N` it deletes the segments behind that, counts from 0 again, and hands out refs from the highest on
//! that it has read in the checkpoint (`tsdb/wlog/wlog.go`, `WL.Repair`; `lastSeriesID`, `tsdb/head_wal.go`). So refs up to
//! that one mean the same in all generations; a higher one is one series in the rest of the checkpoint, and another in what was
//! written since. The newest generation stays as it is, and gets numbers that are replayed; of the others stays what cannot be
//! confused with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::io;
use std::path::Path;

use super::input;
use super::plan::{Change, Loss, Mends, Step};
use super::segment::{Mending, Take, open, take_standing};
use super::sequence;
use crate::forecast::Assumed;
use crate::forecast::replay::{Part, Reader, Replay};
use crate::record::{Record, each_use};
use crate::scan::report::{Finding, Report};
use crate::tsdb::{Listing, LogDirectory, LogKind};
use crate::wal::PAGE;
use crate::wal::segments::{SegmentFile, segment_name};

/// Findings that say that there are generations, or that numbers do not go together.
const CODES: [&str; 2] = ["checkpoint_ahead", "restarted_generation"];

/// Findings about segments of the WAL that new numbers mend.
const OF_NUMBERS: [&str; 2] = ["segments_not_sequential", "misnamed_segment"];

/// How far the time of a file may be from that of its newest sample, ns: Prometheus writes a scrape as it comes. Beyond that
/// the file has been copied since, or holds samples of another time, and says nothing of when it was written.
const CREDIBLE: i128 = 3_600_000_000_000;

/// What was found, and what becomes of it.
#[derive(Debug)]
pub(super) struct Generations {
    finding: Mends,
    /// How the numbers go together, in words.
    numbers: String,
    /// The directory of the last checkpoint.
    checkpoint: String,
    /// That of the WAL.
    wal: String,
    way: Way,
    /// Refs that the newest generation has handed out.
    pub(super) defined: HashSet<u64>,
    /// The highest ref that means the same everywhere, if the newest generation has handed out higher ones.
    pub(super) common: Option<u64>,
    /// The highest ref that is defined where Prometheus stopped reading a damaged checkpoint.
    read: Option<u64>,
    /// Segments of which only entries of such refs stay.
    confused: BTreeMap<String, u64>,
    /// Segments of the WAL that the checkpoint covers by number.
    covered: BTreeSet<String>,
    /// Segments of the WBL that the newest generation has written.
    own_wbl: Vec<String>,
    /// The highest refs that are defined in what stays, and seen anywhere.
    pub(super) highest: Highest,
    /// The times of the newest sample in the checkpoint, and of the oldest in the newest generation, ms.
    pub(super) times: (Option<i64>, Option<i64>),
}

/// The highest refs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Highest {
    /// Of those that are defined in what stays.
    pub(super) defined: Option<u64>,
    /// Of those that are seen anywhere.
    pub(super) seen: Option<u64>,
}

/// What is done so that the replay goes on behind the checkpoint.
#[derive(Debug)]
enum Way {
    /// Empty segments lead to the number behind the checkpoint: what is there is in it already, or there is nothing.
    GoOn { wal: String, missing: std::ops::RangeInclusive<i64> },
    /// The checkpoint gets the number before the first segment.
    RenameCheckpoint { to: String, next: String },
    /// They are replayed as they are.
    Stay { next: String },
    /// The segments get numbers behind that of the checkpoint, which may need a higher one itself.
    Renumber { renames: Vec<(String, String)>, checkpoint: Option<String>, next: String },
}

impl Generations {
    /// What the finding about it comes to, if there is one; or why it is not mended.
    pub(super) fn of(
        listing: &Listing,
        report: &Report,
        assumed: Assumed,
    ) -> io::Result<Result<Option<Self>, &'static str>> {
        let found = report.findings.iter().find(|finding| CODES.contains(&finding.code));
        let wal = listing.logs.iter().find(|log| log.kind == LogKind::Wal);
        let (Some((at, number)), Some(wal)) = (listing.last_checkpoint(), wal) else { return Ok(Ok(None)) };
        let checkpoint = &listing.logs[at];
        let mut segments = listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot);
        if segments.any(|log| log.segments.iter().any(|segment| !segment.path.is_file())) {
            let reason = "something that is no file has the name of a segment: move it out of the directory";
            return Ok(if found.is_some() { Err(reason) } else { Ok(None) });
        }
        let stop = stop(checkpoint, assumed)?;
        if found.is_none() && stop.is_none() {
            return Ok(Ok(None));
        }
        let before = Definitions::of(&checkpoint.segments, Definitions::with_refs)?;
        let mut now = Vec::new();
        for segment in &wal.segments {
            // Of the newest generation it is enough to know what it defines.
            let is_older = stop.as_ref().is_some_and(|stop| segment.index <= stop.segment.max(number));
            let new = if is_older { Definitions::with_refs } else { Definitions::default };
            now.push(Definitions::of(std::slice::from_ref(segment), new)?);
        }
        // A start with a damaged checkpoint deletes the segments behind that number: one generation is left.
        let up_to = |number| wal.segments.iter().take_while(|segment| segment.index <= number).count();
        let newest = match &stop {
            // What the checkpoint was made of may stand there still.
            Some(stop) if found.is_none() => up_to(stop.segment.max(number)),
            Some(stop) => up_to(stop.segment),
            None => newest(&now),
        };
        let replayed = if found.is_none() { up_to(number) } else { 0 };
        let found = if let Some(finding) = found {
            numbered(finding, listing, (checkpoint, number), wal, (&before, &now))
        } else {
            let cut = stop.as_ref().is_some_and(|stop| is_cut_to_nothing(wal, stop, &now));
            let older: Vec<&Definitions> =
                std::iter::once(&before).chain(&now[up_to(number).min(newest)..newest]).collect();
            Ok(begun_behind(checkpoint, &older, wal, (&now[newest..], cut)))
        };
        let (code, message, way) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Ok(None)),
            Err(reason) => return Ok(Err(reason)),
        };
        let mut generations = Self {
            finding: Mends { code: code.to_owned(), offset: None, end: None, message, how: String::new() },
            numbers: format!("{} covers all numbers up to {number}", checkpoint.relative),
            checkpoint: checkpoint.relative.clone(),
            wal: wal.relative.clone(),
            way,
            defined: HashSet::new(),
            common: None,
            read: None,
            confused: BTreeMap::new(),
            covered: wal.segments.iter().map(|segment| wal.relative_of(segment)).collect(),
            own_wbl: Vec::new(),
            highest: Highest::default(),
            times: (before.max_time, None),
        };
        let highest = std::iter::once(&before).chain(&now).filter_map(|one| one.highest).max();
        generations.highest.seen = highest.max(report.refs.defined).max(report.refs.unknown);
        if generations.are_several() {
            if let Some(reason) = are_mixed(&wal.segments[newest..], &now[newest..]) {
                return Ok(Err(reason));
            }
            generations.defined = now[newest..].iter().flat_map(|one| one.labels.keys().copied()).collect();
            generations.common = generations.defined.iter().min().map(|first| first.saturating_sub(1));
            let used = now[newest..].iter().filter_map(|one| one.highest).max();
            if let Some(stop) = stop.as_ref().filter(|stop| used > Some(stop.read)) {
                // Records of its first series may be lost; or a snapshot has brought back those of a run before.
                generations.common =
                    Some(generations.common.map_or(stop.read, |common| common.min(stop.read)));
            }
            generations.times.1 = now[newest..].iter().filter_map(|one| one.min_time).min();
            generations.read = stop.as_ref().map(|stop| stop.read);
            let begun = begun(checkpoint, &wal.segments, stop.as_ref(), &now)?;
            generations.confuse(listing, checkpoint, begun)?;
            for segment in &wal.segments[replayed..newest] {
                generations.keep_common(wal.relative_of(segment));
            }
        }
        let stays = |series_ref: &&u64| generations.common.is_none_or(|common| **series_ref <= common);
        let kept = before.labels.keys().filter(stays).max().copied();
        let all = now.iter().flat_map(|one| one.labels.keys()).max().copied();
        generations.highest.defined = if generations.are_several() {
            kept.max(generations.defined.iter().max().copied())
        } else {
            kept.max(all)
        };
        Ok(Ok(Some(generations)))
    }

    /// Whether refs may have been handed out again.
    fn are_several(&self) -> bool {
        matches!(self.way, Way::Renumber { .. } | Way::Stay { .. })
    }

    /// Notes where entries stand that may mean another series than the newest generation's.
    fn confuse(
        &mut self,
        listing: &Listing,
        checkpoint: &LogDirectory,
        begun: Option<i128>,
    ) -> io::Result<()> {
        for segment in &checkpoint.segments {
            self.keep_common(checkpoint.relative_of(segment));
        }
        let Some(wbl) = listing.logs.iter().find(|log| log.kind == LogKind::Wbl) else { return Ok(()) };
        let made = checkpoint.segments.iter().map(|segment| modified(&segment.path));
        let made = made.collect::<io::Result<Vec<_>>>()?.into_iter().max();
        for segment in &wbl.segments {
            let written = modified(&segment.path)?;
            let is_own = begun.is_some_and(|begun| written >= begun);
            let path = wbl.relative_of(segment);
            if is_own && self.common.is_some() {
                self.own_wbl.push(path);
            } else if let Some(common) = self.common {
                self.confused.insert(path, common);
            } else if let Some(read) = self.read {
                // Of a run that has left nothing else, perhaps.
                let is_before = begun.is_some() && made.is_some_and(|made| written <= made);
                if !is_before {
                    self.confused.insert(path, read);
                }
            }
        }
        Ok(())
    }

    fn keep_common(&mut self, path: String) {
        if let Some(common) = self.common {
            self.confused.insert(path, common);
        }
    }

    /// Up to which ref entries of a segment stay, if not all do.
    pub(super) fn refs_up_to(&self, path: &str) -> Option<u64> {
        self.confused.get(path).copied()
    }

    /// Whether the segment of the WAL is one that Prometheus passes over, and comes to read.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.covered.contains(path)
    }

    /// Whether a finding is mended with them.
    pub(super) fn mends(&self, finding: &Finding) -> bool {
        let is_renumbered = matches!(self.way, Way::Renumber { .. }) && OF_NUMBERS.contains(&finding.code);
        CODES.contains(&finding.code)
            || self.are_several() && finding.code == "reissued_refs"
            || is_renumbered && finding.log.as_deref() == Some(&self.wal)
    }

    /// Refs that head chunks may have of another series: above this one, if not all is known to be of one generation.
    pub(super) fn read(&self) -> Option<u64> {
        self.read
    }

    /// Segments of the WBL that the newest generation has written.
    pub(super) fn own_wbl(&self) -> &[String] {
        &self.own_wbl
    }

    /// Whether chunk snapshots may be of another generation.
    pub(super) fn is_begun_anew(&self) -> bool {
        !matches!(self.way, Way::RenameCheckpoint { .. })
    }

    /// The name of the segment that follows all others in the end.
    pub(super) fn next(&self) -> String {
        match &self.way {
            Way::GoOn { wal, missing } => format!("{wal}/{}", segment_name(*missing.end())),
            Way::RenameCheckpoint { next, .. } | Way::Renumber { next, .. } | Way::Stay { next } => {
                next.clone()
            }
        }
    }

    /// What is done before all else: a segment behind a gap, for which Prometheus does not start, and so deletes nothing.
    pub(super) fn gap(&self) -> Option<Step> {
        let Way::Renumber { next, .. } = &self.way else { return None };
        let how = "as long as the numbers have a gap, Prometheus does not start, and deletes nothing";
        let change = Change::Create { path: next.clone(), bytes: Vec::new() };
        Some(Step { change, mends: vec![self.mended(how.to_owned())], lost: Loss::NOTHING })
    }

    /// What is done after all else. `next` is there already if it is so said.
    pub(super) fn last(&self, next_is_made: bool) -> Vec<Step> {
        match &self.way {
            Way::GoOn { wal, missing } => {
                let how = "Prometheus goes on behind the checkpoint, and not with a number that this covers";
                let end = missing.end() - i64::from(next_is_made);
                let paths = (*missing.start()..=end).map(|index| format!("{wal}/{}", segment_name(index)));
                paths.map(|path| self.step(Change::Create { path, bytes: Vec::new() }, how)).collect()
            }
            Way::Stay { .. } => Vec::new(),
            Way::RenameCheckpoint { to, .. } => {
                let change = Change::Rename { from: self.checkpoint.clone(), to: to.clone() };
                vec![self.step(change, "the checkpoint gets the number before the first segment")]
            }
            Way::Renumber { renames, checkpoint, .. } => {
                let mut steps = Vec::new();
                if let Some(to) = checkpoint {
                    let change = Change::Rename { from: self.checkpoint.clone(), to: to.clone() };
                    steps.push(self.step(change, "the segments go on behind its number"));
                }
                steps.extend(renames.iter().rev().map(|(from, to)| {
                    let change = Change::Rename { from: from.clone(), to: to.clone() };
                    self.step(
                        change,
                        "gets a number that the checkpoint does not cover, so that it is replayed",
                    )
                }));
                steps
            }
        }
    }

    fn step(&self, change: Change, how: &str) -> Step {
        // What was found is said once; here it is the number that matters.
        let mends = Mends { message: self.numbers.clone(), ..self.mended(how.to_owned()) };
        Step { change, mends: vec![mends], lost: Loss::NOTHING }
    }

    /// The finding, mended so.
    pub(super) fn mended(&self, how: String) -> Mends {
        Mends { how, ..self.finding.clone() }
    }
}

/// A finding's code, what it says, and what is done.
type Found = (&'static str, String, Way);

/// What is found about numbers comes to.
fn numbered(
    finding: &Finding,
    listing: &Listing,
    checkpoint: (&LogDirectory, i64),
    wal: &LogDirectory,
    contents: (&Definitions, &[Definitions]),
) -> Result<Option<Found>, &'static str> {
    if let Some(reason) = cannot_be_numbered(wal) {
        return Err(reason);
    }
    let way = Way::of(finding, listing, checkpoint, wal, contents);
    let reason = "its numbers do not go together, and neither do their contents: is this one directory?";
    Ok(Some((finding.code, finding.message.clone(), way.map_err(|()| reason)?)))
}

/// Whether the segment with the number of the checkpoint's damaged one is what Prometheus's repair makes of it.
fn is_cut_to_nothing(wal: &LogDirectory, stop: &Stop, contents: &[Definitions]) -> bool {
    let segments = wal.segments.iter().zip(contents);
    let mut made = segments.filter(|(segment, _)| segment.index == stop.segment);
    made.any(|(segment, one)| {
        one.highest.is_none() && segment.path.metadata().is_ok_and(|metadata| metadata.len() == PAGE)
    })
}

/// Segments behind the checkpoint that Prometheus has begun without it: what shows them is that refs that are seen in it, or in
/// the segments before them, are defined again, or that the one before has been cut.
fn begun_behind(
    checkpoint: &LogDirectory,
    older: &[&Definitions],
    wal: &LogDirectory,
    (newest, is_cut): (&[Definitions], bool),
) -> Option<Found> {
    let defined = newest.iter().flat_map(|one| one.labels.keys());
    let is_seen = |series_ref: &&u64| {
        older.iter().filter_map(|one| one.refs.as_ref()).any(|refs| refs.contains(*series_ref))
    };
    let again = defined.filter(is_seen).count();
    let last = wal.segments.last().filter(|_| again > 0 || is_cut)?;
    let message = format!(
        "Prometheus has run since, without {}, which it cannot read: {again} refs that stand before are those of other series by now",
        checkpoint.relative
    );
    let next = format!("{}/{}", wal.relative, segment_name(last.index.checked_add(1)?));
    Some(("restarted_generation", message, Way::Stay { next }))
}

impl Way {
    fn of(
        finding: &Finding,
        listing: &Listing,
        (checkpoint, number): (&LogDirectory, i64),
        wal: &LogDirectory,
        (before, now): (&Definitions, &[Definitions]),
    ) -> Result<Self, ()> {
        let (Some(first), Some(last)) = (wal.segments.first(), wal.segments.last()) else {
            let next = number.checked_add(1).ok_or(())?;
            return Ok(Self::GoOn { wal: wal.relative.clone(), missing: next..=next });
        };
        let of_wal = |index: i64| format!("{}/{}", wal.relative, segment_name(index));
        if finding.code == "checkpoint_ahead" {
            let both = now.iter().flat_map(|one| &one.labels);
            let both = both.filter_map(|(series_ref, labels)| Some((before.labels.get(series_ref)?, labels)));
            let (same, other): (Vec<_>, Vec<_>) = both.partition(|(was, is)| was == is);
            if !same.is_empty() && other.is_empty() {
                let missing = last.index.checked_add(1).ok_or(())?..=number.checked_add(1).ok_or(())?;
                let many = missing.end() - missing.start() >= sequence::MOST;
                return if many { Err(()) } else { Ok(Self::GoOn { wal: wal.relative.clone(), missing }) };
            }
            if other.is_empty() && first.index > 0 {
                let to = format!("{}/checkpoint.{}", wal.relative, segment_name(first.index - 1));
                // Prometheus would read another one that has a higher number.
                let others = listing.logs.iter().filter(|log| log.relative != checkpoint.relative);
                if others.filter_map(LogDirectory::checkpoint_number).any(|other| other >= first.index - 1) {
                    return Err(());
                }
                return Ok(Self::RenameCheckpoint { to, next: of_wal(last.index.checked_add(1).ok_or(())?) });
            }
        }
        let new_number = number.max(last.index);
        let count = i64::try_from(wal.segments.len()).map_err(drop)?;
        let next = new_number.checked_add(1).and_then(|from| from.checked_add(count)).ok_or(())?;
        let renames = wal.segments.iter().zip(new_number + 1..);
        let renames = renames.map(|(segment, index)| (wal.relative_of(segment), of_wal(index))).collect();
        let directory = checkpoint.relative.rsplit_once('/').map_or("", |(directory, _)| directory);
        let checkpoint =
            (new_number > number).then(|| format!("{directory}/checkpoint.{}", segment_name(new_number)));
        Ok(Self::Renumber { renames, checkpoint, next: of_wal(next) })
    }
}

/// What a segment, or several, say of series.
#[derive(Debug, Default)]
struct Definitions {
    /// Of each ref that is defined, a number that its labels make.
    labels: HashMap<u64, u64>,
    /// All refs of entries, if they are wanted.
    refs: Option<HashSet<u64>>,
    /// The highest of them.
    highest: Option<u64>,
    /// The earliest and latest times of samples, ms.
    min_time: Option<i64>,
    max_time: Option<i64>,
}

impl Take for Definitions {
    fn take(&mut self, record: &[u8]) {
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
    fn with_refs() -> Self {
        Self { refs: Some(HashSet::new()), ..Self::default() }
    }

    fn of(segments: &[SegmentFile], new: fn() -> Self) -> io::Result<Self> {
        let mut all = new();
        for segment in segments {
            let (file, length) = open(&segment.path)?;
            let one = take_standing(&file, length, Mending::default(), new);
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
fn newest(segments: &[Definitions]) -> usize {
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

/// Whether segments of several runs stand among each other, as where some have been put back by hand.
fn are_mixed(segments: &[SegmentFile], contents: &[Definitions]) -> Option<&'static str> {
    let mut known: HashMap<u64, u64> = HashMap::new();
    for (series_ref, labels) in contents.iter().flat_map(|one| &one.labels) {
        if known.insert(*series_ref, *labels).is_some_and(|before| before != *labels) {
            return Some(
                "segments of several runs stand in wal/, which give one ref to several series: move those of all but the newest out of it",
            );
        }
    }
    let begun = contents.iter().find_map(|one| one.min_time);
    for (pair, one) in segments.windows(2).zip(contents.iter().skip(1)) {
        let is_gap = pair[1].index != pair[0].index.saturating_add(1);
        if is_gap && one.max_time.is_some_and(|newest| Some(newest) < begun) {
            return Some(
                "behind a gap in their numbers, segments in wal/ are older than those before: move those of all but the newest run out of it",
            );
        }
    }
    None
}

/// When the last start was that a damaged checkpoint stopped, ns since 1970, if the times of files can be believed: it makes
/// the segment anew that has the number of the checkpoint's damaged one, and nobody writes to that any more.
fn begun(
    checkpoint: &LogDirectory,
    segments: &[SegmentFile],
    stop: Option<&Stop>,
    contents: &[Definitions],
) -> io::Result<Option<i128>> {
    let ns = |ms: i64| i128::from(ms) * 1_000_000;
    let made = segments.iter().find(|segment| Some(segment.index) == stop.map(|stop| stop.segment));
    let Some(made) = made else { return Ok(None) };
    let begun = modified(&made.path)?;
    for segment in &checkpoint.segments {
        if modified(&segment.path)? >= begun {
            return Ok(None);
        }
    }
    let newest = segments.iter().zip(contents).filter(|(segment, _)| segment.index > made.index);
    let mut last = None;
    for (segment, definitions) in newest {
        let Some(newest) = definitions.max_time else { continue };
        if (modified(&segment.path)? - ns(newest)).abs() > CREDIBLE {
            return Ok(None);
        }
        last = last.max(Some(newest));
    }
    // Scrapes come after the start. In a copy that does not keep times they are before it.
    Ok(last.filter(|&last| begun <= ns(last)).map(|_| begun))
}

fn modified(path: &Path) -> io::Result<i128> {
    Ok(input::modified(&path.metadata()?))
}

fn cannot_be_numbered(wal: &LogDirectory) -> Option<&'static str> {
    let same = wal.segments.windows(2).any(|pair| pair[0].index == pair[1].index);
    (same || wal.segments.iter().any(|segment| segment.index < 0)).then_some(
        "two files claim one number, or a number is negative: move one of them out of the directory",
    )
}

/// Where Prometheus stops reading a damaged checkpoint.
#[derive(Debug)]
struct Stop {
    /// The number of the segment in it.
    segment: i64,
    /// The highest ref that is defined before: it counts on from there.
    read: u64,
}

fn stop(checkpoint: &LogDirectory, assumed: Assumed) -> io::Result<Option<Stop>> {
    let mut parts = Vec::new();
    for segment in &checkpoint.segments {
        let (source, length) = open(&segment.path)?;
        parts.push(Part { dir: checkpoint.relative.clone(), index: segment.index, source, length });
    }
    // If nothing is read all refs are handed out anew.
    let mut read = 0;
    let mut replay = Replay::new(parts, assumed.version);
    while let Some(record) = replay.next() {
        if Reader::Wal.refuses(record.data, assumed.version).is_some() {
            let segment = checkpoint.segments.get(record.part).map_or(0, |segment| segment.index);
            return Ok(Some(Stop { segment, read }));
        }
        if let Record::Series(series) = Record::parse(record.data) {
            read = series.entries().flatten().map(|entry| entry.series_ref).fold(read, u64::max);
        }
    }
    Ok(replay.error().map(|error| Stop { segment: error.segment, read }))
}
