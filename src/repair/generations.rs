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

use super::no_step::NoStep;
use super::refs::RefBounds;
use super::head_chunks;
use super::segment::{SegmentRules, RecordSink, open, read_repaired};
use super::{Refusal, input, prefix, sequence};
use crate::change::plan::{Change, Diagnosis, LaterRun, RepairedFinding, Resolution, Step};
use crate::forecast::Assumed;
use crate::forecast::replay::Reader;
use crate::record::{Record, each_use};
use crate::scan::code::Code;
use crate::scan::report::{Finding, Report, Severity};
use crate::tsdb::{Listing, LogDirectory, LogKind, Target};
use crate::wal::PAGE;
use crate::wal::segments::{SegmentFile, segment_name};

/// Findings about segments of the WAL that new numbers mend.
const OF_NUMBERS: [Code; 2] = [Code::SegmentsNotSequential, Code::MisnamedSegment];

/// How far the time of a file may be from that of its newest sample, ns: Prometheus writes a scrape as it comes. Beyond that
/// the file has been copied since, or holds samples of another time, and says nothing of when it was written.
const CREDIBLE: i128 = 3_600_000_000_000;

/// What was found, and what becomes of it.
#[derive(Debug)]
pub(super) struct Generations {
    code: Code,
    diagnosis: Diagnosis,
    /// How the numbers go together.
    numbers: Diagnosis,
    /// The directory of the last checkpoint.
    checkpoint: String,
    /// That of the WAL.
    wal: String,
    way: Way,
    /// RefBounds that the newest generation has handed out.
    pub(super) defined: HashSet<u64>,
    /// The highest ref that means the same everywhere, if the newest generation has handed out higher ones.
    pub(super) common: Option<u64>,
    /// The highest ref that is defined where Prometheus stopped reading a damaged checkpoint: head chunks may have higher ones of
    /// another series, if not all is known to be of one generation.
    pub(super) read: Option<u64>,
    /// Segments of which only entries of such refs stay.
    confused: BTreeMap<String, u64>,
    /// Segments of the WAL that Prometheus passes over, and comes to read.
    brought_back: BTreeSet<String>,
    /// Segments of the WBL that the newest generation has written.
    pub(super) own_wbl: Vec<String>,
    /// The highest refs that are defined in what stays, and seen anywhere.
    pub(super) refs: RefBounds,
    /// The times of the newest sample in the checkpoint, and of the oldest in the newest generation, ms.
    pub(super) times: (Option<i64>, Option<i64>),
}

/// What is done so that the replay goes on behind the checkpoint.
#[derive(Debug)]
enum Way {
    /// Empty segments lead to the number behind the checkpoint: what is there is in it already, or there is nothing.
    GoOn { missing: std::ops::RangeInclusive<i64> },
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
        target: &Target,
        listing: &Listing,
        report: &Report,
        assumed: Assumed,
    ) -> Result<Option<Self>, NoStep> {
        let found = report.findings.iter().find(|finding| finding.is_of_generations());
        let wal = listing.logs.iter().find(|log| log.kind == LogKind::Wal);
        let (Some((at, number)), Some(wal)) = (listing.last_checkpoint(), wal) else { return Ok(None) };
        let checkpoint = &listing.logs[at];
        let mut segments = listing.logs.iter().filter(|log| log.kind != LogKind::ChunkSnapshot);
        if segments.any(|log| log.segments.iter().any(|segment| !segment.path.is_file())) {
            return if found.is_some() { Err(Refusal::SegmentIsNoFile.into()) } else { Ok(None) };
        }
        let stop = stop(checkpoint, assumed)?;
        if found.is_none() && stop.is_none() {
            return Ok(None);
        }
        let state = State::read(listing, (checkpoint, number), wal, stop, SegmentRules::of(report))?;
        let newest = state.newest(found);
        let found = if let Some(finding) = found {
            Some(state.numbered(finding)?)
        } else {
            let strange = state.chunks_of_a_run_that_is_gone(target, report, newest)?;
            state.begun_behind(newest, strange)
        };
        found.map(|found| state.come_to(found, newest, report)).transpose()
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
    pub(super) fn brings_back(&self, path: &str) -> bool {
        self.brought_back.contains(path)
    }

    /// Whether a finding is mended with them.
    pub(super) fn mends(&self, finding: &Finding) -> bool {
        let is_renumbered = matches!(self.way, Way::Renumber { .. }) && OF_NUMBERS.contains(&finding.code);
        finding.is_of_generations()
            || self.are_several() && finding.is_of_reissued_refs()
            || is_renumbered && finding.log.as_deref() == Some(&self.wal)
    }

    /// Whether chunk snapshots may be of another generation.
    pub(super) fn is_begun_anew(&self) -> bool {
        !matches!(self.way, Way::RenameCheckpoint { .. })
    }

    /// The name of the segment that follows all others in the end.
    pub(super) fn next(&self) -> String {
        match &self.way {
            Way::GoOn { missing } => format!("{}/{}", self.wal, segment_name(*missing.end())),
            Way::RenameCheckpoint { next, .. } | Way::Renumber { next, .. } | Way::Stay { next } => {
                next.clone()
            }
        }
    }

    /// What is done before all else: a segment behind a gap, for which Prometheus does not start, and so deletes nothing.
    pub(super) fn gap(&self) -> Option<Step> {
        let Way::Renumber { next, .. } = &self.way else { return None };
        let change = Change::Create { path: next.clone(), bytes: Vec::new() };
        Some(Step::of(change, self.repaired(Resolution::GapMade)))
    }

    /// What is done after all else. `next` is there already if it is so said.
    pub(super) fn last(&self, next_is_made: bool) -> Vec<Step> {
        match &self.way {
            Way::GoOn { missing } => {
                let end = missing.end() - i64::from(next_is_made);
                let paths =
                    (*missing.start()..=end).map(|index| format!("{}/{}", self.wal, segment_name(index)));
                let made = |path| {
                    let change = Change::Create { path, bytes: Vec::new() };
                    self.step(change, Resolution::SegmentsContinuedToCheckpoint)
                };
                paths.map(made).collect()
            }
            Way::Stay { .. } => Vec::new(),
            Way::RenameCheckpoint { to, .. } => {
                let change = Change::Rename { from: self.checkpoint.clone(), to: to.clone() };
                vec![self.step(change, Resolution::CheckpointNumberLowered)]
            }
            Way::Renumber { renames, checkpoint, .. } => {
                let mut steps = Vec::new();
                if let Some(to) = checkpoint {
                    let change = Change::Rename { from: self.checkpoint.clone(), to: to.clone() };
                    steps.push(self.step(change, Resolution::CheckpointNumberRaised));
                }
                steps.extend(renames.iter().rev().map(|(from, to)| {
                    let change = Change::Rename { from: from.clone(), to: to.clone() };
                    self.step(change, Resolution::SegmentNumberRaised)
                }));
                steps
            }
        }
    }

    fn step(&self, change: Change, resolution: Resolution) -> Step {
        // What was found is said once; here it is the number that matters.
        Step::of(change, RepairedFinding::new(self.code, self.numbers.clone(), resolution))
    }

    /// The finding, repaired so.
    pub(super) fn repaired(&self, resolution: Resolution) -> RepairedFinding {
        RepairedFinding::new(self.code, self.diagnosis.clone(), resolution)
    }
}

/// A finding, and what is done about it.
struct Judged {
    code: Code,
    diagnosis: Diagnosis,
    way: Way,
}

/// A checkpoint, and the WAL beside it.
struct State<'a> {
    listing: &'a Listing,
    checkpoint: &'a LogDirectory,
    /// Of the checkpoint.
    number: i64,
    wal: &'a LogDirectory,
    /// Where Prometheus stops reading the checkpoint.
    stop: Option<Stop>,
    /// What the checkpoint has.
    before: Definitions,
    /// What each segment of the WAL has.
    now: Vec<Definitions>,
}

impl<'a> State<'a> {
    fn read(
        listing: &'a Listing,
        (checkpoint, number): (&'a LogDirectory, i64),
        wal: &'a LogDirectory,
        stop: Option<Stop>,
        mending: SegmentRules<'_>,
    ) -> io::Result<Self> {
        let before = Definitions::of(&checkpoint.segments, mending, Definitions::with_refs)?;
        let mut now = Vec::new();
        for segment in &wal.segments {
            // Of the newest generation it is enough to know what it defines.
            let is_older = stop.as_ref().is_some_and(|stop| segment.index <= stop.segment.max(number));
            let new = if is_older { Definitions::with_refs } else { Definitions::default };
            now.push(Definitions::of(std::slice::from_ref(segment), mending, new)?);
        }
        Ok(Self { listing, checkpoint, number, wal, stop, before, now })
    }

    /// How many segments have numbers up to this one.
    fn up_to(&self, number: i64) -> usize {
        self.wal.segments.iter().take_while(|segment| segment.index <= number).count()
    }

    /// The place of the first segment of the newest generation, where that has been found about numbers.
    fn newest(&self, found: Option<&Finding>) -> usize {
        // A start with a damaged checkpoint deletes the segments behind that number: one generation is left.
        match &self.stop {
            // What the checkpoint was made of may stand there still.
            Some(stop) if found.is_none() => self.up_to(stop.segment.max(self.number)),
            Some(stop) => self.up_to(stop.segment),
            None => newest(&self.now),
        }
    }

    /// What is found about numbers comes to.
    fn numbered(&self, finding: &Finding) -> Result<Judged, Refusal> {
        if let Some(reason) = cannot_be_numbered(self.wal) {
            return Err(reason);
        }
        let reason = Refusal::NumbersAndContents;
        let way = self.way(finding).ok_or(reason)?;
        Ok(Judged { code: finding.code, diagnosis: Diagnosis::Words(finding.message.clone()), way })
    }

    /// Segments behind the checkpoint that Prometheus has begun without it: what shows them is that refs that are seen in it, or in
    /// the segments before them, are defined again, or that the one before has been cut, or that there are head chunks of it.
    fn begun_behind(&self, newest: usize, chunks: usize) -> Option<Judged> {
        let before = &self.now[self.up_to(self.number).min(newest)..newest];
        let older = || std::iter::once(&self.before).chain(before).filter_map(|one| one.refs.as_ref());
        let defined = self.now[newest..].iter().flat_map(|one| one.labels.keys());
        let again = defined.filter(|series_ref| older().any(|refs| refs.contains(*series_ref))).count();
        let last = self.wal.segments.last();
        let last = last.filter(|_| again > 0 || chunks > 0 || self.is_cut_to_nothing())?;
        let sign = if again == 0 && chunks > 0 {
            LaterRun::HeadChunks(chunks as u64)
        } else {
            LaterRun::ReissuedRefs(again as u64)
        };
        let diagnosis =
            Diagnosis::RunWithoutCheckpoint { checkpoint: self.checkpoint.relative.clone(), sign };
        let next = format!("{}/{}", self.wal.relative, segment_name(last.index.checked_add(1)?));
        Some(Judged { code: Code::RestartedGeneration, diagnosis, way: Way::Stay { next } })
    }

    /// How many head chunks with refs that a start may have handed out again lie as a whole between the segments that every
    /// start leaves and those of the newest generation, or behind the former where the newest has no samples. A run whose
    /// segments are gone has left these: all samples are logged first. Damage in the WAL could be the reason as well.
    fn chunks_of_a_run_that_is_gone(
        &self,
        target: &Target,
        report: &Report,
        newest: usize,
    ) -> io::Result<usize> {
        let Some(stop) = &self.stop else { return Ok(0) };
        let (older, own) = self.now.split_at(newest);
        let Some(before) = older.iter().filter_map(|one| one.max_time).max() else { return Ok(0) };
        let behind = own.iter().filter_map(|one| one.min_time).min();
        let mut damage = report.of_severity(Severity::Damage);
        if damage.any(|finding| finding.log.as_deref() == Some(&self.wal.relative)) {
            return Ok(0);
        }
        head_chunks::count(target, |chunk| {
            !chunk.out_of_order
                && chunk.series_ref > stop.read
                && chunk.min_time > before
                && behind.is_none_or(|behind| chunk.max_time < behind)
        })
    }

    /// Whether the segment with the number of the checkpoint's damaged one is what Prometheus's repair makes of it.
    fn is_cut_to_nothing(&self) -> bool {
        let Some(stop) = &self.stop else { return false };
        let segments = self.wal.segments.iter().zip(&self.now);
        let mut made = segments.filter(|(segment, _)| segment.index == stop.segment);
        made.any(|(segment, one)| {
            one.highest.is_none() && segment.path.metadata().is_ok_and(|metadata| metadata.len() == PAGE)
        })
    }

    /// What is done about it; or why it is not mended.
    fn come_to(
        mut self,
        Judged { code, diagnosis, way }: Judged,
        newest: usize,
        report: &Report,
    ) -> Result<Generations, NoStep> {
        let Self { checkpoint, wal, .. } = self;
        let all = std::iter::once(&self.before).chain(&self.now);
        let highest = all.filter_map(|one| one.highest).max();
        // They are replayed already.
        let stays = matches!(way, Way::Stay { .. });
        let replayed = if stays { self.up_to(self.number) } else { 0 };
        let brought_back = match &way {
            Way::Renumber { .. } | Way::RenameCheckpoint { .. } => {
                wal.segments.iter().map(|segment| wal.relative_of(segment)).collect()
            }
            Way::GoOn { .. } | Way::Stay { .. } => BTreeSet::new(),
        };
        let mut generations = Generations {
            code,
            diagnosis,
            numbers: Diagnosis::NumbersCovered {
                checkpoint: checkpoint.relative.clone(),
                number: self.number,
            },
            checkpoint: checkpoint.relative.clone(),
            wal: wal.relative.clone(),
            way,
            defined: HashSet::new(),
            common: None,
            read: None,
            confused: BTreeMap::new(),
            brought_back,
            own_wbl: Vec::new(),
            refs: RefBounds { defined: None, used: highest.max(report.refs.defined).max(report.refs.unknown) },
            times: (self.before.max_time, None),
        };
        if generations.are_several() {
            let own = &self.now[newest..];
            if let Some(reason) = are_mixed(&wal.segments[newest..], own) {
                return Err(reason.into());
            }
            generations.defined = own.iter().flat_map(|one| one.labels.keys().copied()).collect();
            generations.common = self.common(&generations.defined, newest);
            generations.times.1 = own.iter().filter_map(|one| one.min_time).min();
            generations.read = self.stop.as_ref().map(|stop| stop.read);
            let begun = begun(checkpoint, &wal.segments, self.stop.as_ref(), &self.now)?;
            generations.confuse(self.listing, checkpoint, begun)?;
            for segment in &wal.segments[replayed..newest] {
                generations.keep_common(wal.relative_of(segment));
            }
        }
        let stays = |series_ref: &&u64| generations.common.is_none_or(|common| **series_ref <= common);
        let kept = self.before.labels.keys().filter(stays).max().copied();
        let now = if generations.are_several() { self.now.split_off(newest) } else { self.now };
        generations.refs.defined = now.iter().flat_map(|one| one.labels.keys().copied()).max().max(kept);
        Ok(generations)
    }

    /// The highest ref that means the same everywhere, where the newest generation has handed out these.
    fn common(&self, defined: &HashSet<u64>, newest: usize) -> Option<u64> {
        let common = defined.iter().min().map(|first| first.saturating_sub(1));
        let used = self.now[newest..].iter().filter_map(|one| one.highest).max();
        // Records of its first series may be lost; or a snapshot has brought back those of a run before.
        let read = self.stop.as_ref().map(|stop| stop.read).filter(|read| used > Some(*read));
        common.into_iter().chain(read).min()
    }

    /// How the numbers come to go together, if they can.
    fn way(&self, finding: &Finding) -> Option<Way> {
        let Self { listing, checkpoint, number, wal, .. } = *self;
        let (Some(first), Some(last)) = (wal.segments.first(), wal.segments.last()) else {
            let next = number.checked_add(1)?;
            return Some(Way::GoOn { missing: next..=next });
        };
        let of_wal = |index: i64| format!("{}/{}", wal.relative, segment_name(index));
        if finding.code == Code::CheckpointAhead {
            let both = self.now.iter().flat_map(|one| &one.labels);
            let both =
                both.filter_map(|(series_ref, labels)| Some((self.before.labels.get(series_ref)?, labels)));
            let (same, other): (Vec<_>, Vec<_>) = both.partition(|(was, is)| was == is);
            if !same.is_empty() && other.is_empty() {
                let missing = last.index.checked_add(1)?..=number.checked_add(1)?;
                let many = missing.end() - missing.start() >= sequence::MOST;
                return (!many).then_some(Way::GoOn { missing });
            }
            if other.is_empty() && first.index > 0 {
                let to = format!("{}/checkpoint.{}", wal.relative, segment_name(first.index - 1));
                // Prometheus would read another one that has a higher number.
                let others = listing.logs.iter().filter(|log| log.relative != checkpoint.relative);
                if others.filter_map(LogDirectory::checkpoint_number).any(|other| other >= first.index - 1) {
                    return None;
                }
                return Some(Way::RenameCheckpoint { to, next: of_wal(last.index.checked_add(1)?) });
            }
        }
        let new_number = number.max(last.index);
        let count = i64::try_from(wal.segments.len()).ok()?;
        let next = new_number.checked_add(1).and_then(|from| from.checked_add(count))?;
        let renames = wal.segments.iter().zip(new_number + 1..);
        let renames = renames.map(|(segment, index)| (wal.relative_of(segment), of_wal(index))).collect();
        let directory = checkpoint.relative.rsplit_once('/').map_or("", |(directory, _)| directory);
        let checkpoint =
            (new_number > number).then(|| format!("{directory}/checkpoint.{}", segment_name(new_number)));
        Some(Way::Renumber { renames, checkpoint, next: of_wal(next) })
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
    fn with_refs() -> Self {
        Self { refs: Some(HashSet::new()), ..Self::default() }
    }

    fn of(segments: &[SegmentFile], mending: SegmentRules<'_>, new: fn() -> Self) -> io::Result<Self> {
        let mut all = new();
        for segment in segments {
            let (file, length) = match open(&segment.path) {
                Err(error) if crate::io::is_no_file(&error) => continue,
                opened => opened?,
            };
            let one = read_repaired(&file, length, mending, new);
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
fn are_mixed(segments: &[SegmentFile], contents: &[Definitions]) -> Option<Refusal> {
    let mut known: HashMap<u64, u64> = HashMap::new();
    for (series_ref, labels) in contents.iter().flat_map(|one| &one.labels) {
        if known.insert(*series_ref, *labels).is_some_and(|before| before != *labels) {
            return Some(Refusal::SeveralRuns);
        }
    }
    let begun = contents.iter().find_map(|one| one.min_time);
    for (pair, one) in segments.windows(2).zip(contents.iter().skip(1)) {
        let is_gap = pair[1].index != pair[0].index.saturating_add(1);
        if is_gap && one.max_time.is_some_and(|newest| Some(newest) < begun) {
            return Some(Refusal::OlderAfterGap);
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

fn cannot_be_numbered(wal: &LogDirectory) -> Option<Refusal> {
    let same = wal.segments.windows(2).any(|pair| pair[0].index == pair[1].index);
    (same || wal.segments.iter().any(|segment| segment.index < 0)).then_some(Refusal::NumberClaimed)
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
    // If nothing is read all refs are handed out anew.
    let mut read = 0;
    let segment = prefix::read(checkpoint, Reader::Wal, assumed.version, |record| {
        if let Record::Series(series) = Record::parse(record) {
            read = series.entries().flatten().map(|entry| entry.series_ref).fold(read, u64::max);
        }
    })?;
    Ok(segment.map(|segment| Stop { segment, read }))
}
