//! Refs: which series record says what the ref of a sample means, in the order in which Prometheus replays the logs.
//!
//! A segment alone tells which refs it uses before it defines them ([`SegmentRefs`]), a bit for each: refs are handed out
//! one after the other. In replay order these are held against what has been defined up to there ([`References`]).
//! Only where something does not fit are segments read again, to count what that costs ([`troubles`]).
//!
//! Source: Prometheus `tsdb/head_wal.go` (`loadWAL`, `loadWBL`, `resetSeriesWithMMappedChunks`).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::code::Code;
use super::findings::{of_file, of_path};
use super::heads::Earliest;
use super::order::{Order, Role, Step};
use super::parallel::in_order;
use super::report::{Cause, Dialect, Finding, HighestRefs, Log, Lost, Severity, Times};
use super::salvage::{Contents, Problem, Reading, Visitor, salvage};
use super::segment::{self, SegmentScan};
use super::settled::{FileState, Settlements};
use super::words::{count, span};
use crate::record::{self, Labels, RecordType, Summary, each_use};
use crate::tsdb::{Listing, LogDirectory, LogKind, Target};
use crate::wal::segments::SegmentFile;
use crate::wal::{Corrections, Record};

/// Makes a number of a label set; a clone makes the same ones.
pub(super) type LabelHasher = foldhash::quality::RandomState;

/// Refs to a block.
const BLOCK: u64 = 64;

/// Blocks of which note is taken: 67 million refs if they are dense, and no more memory than that, whatever a log says.
const MOST_BLOCKS: usize = 1 << 20;

/// Refs whose stories are told, see [`Story`].
const MOST_STORIES: u64 = 1 << 18;

/// Sets of refs, one bit of each for a ref.
#[derive(Clone, Debug, Default)]
struct Refs {
    blocks: Vec<Block>,
    /// Where the block of that number is.
    places: Places,
    /// The block that was asked for last: samples of one scrape have refs next to each other.
    last: usize,
    /// There were more blocks than there is room for; what the rest say is of no use.
    overflowed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Block {
    number: u64,
    defined: u64,
    /// Used before they were defined.
    used: u64,
    /// Defined more than once.
    again: u64,
    /// Defined, and without a sample since.
    fresh: u64,
}

/// Where blocks are, by their number.
#[derive(Clone, Debug, Default)]
struct Places {
    /// One more than the place, 0 if there is none; of low numbers, which are nearly all there are.
    low: Vec<u32>,
    high: HashMap<u64, u32>,
}

impl Places {
    fn is_empty(&self) -> bool {
        self.low.is_empty() && self.high.is_empty()
    }

    /// Numbers that are low.
    const LOW: u64 = MOST_BLOCKS as u64;

    fn get(&self, number: u64) -> Option<usize> {
        let known = if number < Self::LOW {
            *self.low.get(usize::try_from(number).ok()?)?
        } else {
            *self.high.get(&number)?
        };
        usize::try_from(known).ok()?.checked_sub(1)
    }

    fn insert(&mut self, number: u64, place: usize) {
        let known = u32::try_from(place + 1).unwrap_or(0);
        match usize::try_from(number) {
            Ok(low) if number < Self::LOW => {
                if self.low.len() <= low {
                    self.low.resize(low + 1, 0);
                }
                self.low[low] = known;
            }
            _ => drop(self.high.insert(number, known)),
        }
    }
}

impl Refs {
    fn place(&mut self, number: u64) -> usize {
        let is = |at: usize| self.blocks.get(at).is_some_and(|block| block.number == number);
        if is(self.last) {
            return self.last;
        }
        self.last = if is(self.last + 1) { self.last + 1 } else { self.find(number) };
        self.last
    }

    fn find(&mut self, number: u64) -> usize {
        if let Some(place) = self.places.get(number) {
            return place;
        }
        let next = self.blocks.len();
        if next == MOST_BLOCKS {
            self.overflowed = true;
            return 0;
        }
        self.blocks.push(Block { number, ..Block::default() });
        self.places.insert(number, next);
        next
    }

    /// After these were given up.
    fn find_places_again(&mut self) {
        if self.places.is_empty() {
            for (place, block) in self.blocks.iter().enumerate() {
                self.places.insert(block.number, place);
            }
        }
    }

    fn block(&mut self, number: u64) -> &mut Block {
        let at = self.place(number);
        &mut self.blocks[at]
    }

    /// Takes up what stands behind all that is known so far; which of its refs are used and not defined up to there.
    fn follow(&mut self, behind: &Block) -> u64 {
        let all = self.block(behind.number);
        let missing = behind.used & !all.defined;
        all.used |= missing;
        all.again |= behind.again | all.defined & behind.defined;
        all.defined |= behind.defined;
        missing
    }

    fn of(series_ref: u64) -> (u64, u64) {
        (series_ref / BLOCK, 1 << (series_ref % BLOCK))
    }

    fn get(&self, number: u64) -> Block {
        self.places.get(number).map_or_else(Block::default, |at| self.blocks[at])
    }

    fn is_seen(&self, series_ref: u64) -> bool {
        let (number, bit) = Self::of(series_ref);
        let block = self.get(number);
        (block.used | block.defined) & bit != 0
    }

    fn is_used(&self, series_ref: u64) -> bool {
        let (number, bit) = Self::of(series_ref);
        self.get(number).used & bit != 0
    }

    /// The highest of these bits.
    fn highest(&self, of: impl Fn(&Block) -> u64) -> Option<u64> {
        let highest = |block: &Block| Some(block.number * BLOCK + u64::from(of(block).checked_ilog2()?));
        // Prometheus hands out no higher ones (`tsdb/chunks/chunks.go`, `NewHeadChunkRef`).
        let can_be = |highest: &u64| *highest < 1 << 40;
        self.blocks.iter().filter_map(highest).filter(can_be).max()
    }

    fn count(&self, of: impl Fn(&Block) -> u64) -> u64 {
        self.blocks.iter().map(|block| u64::from(of(block).count_ones())).sum()
    }
}

/// Label sets of refs, as hashes.
#[derive(Clone, Debug)]
struct LabelSets {
    hasher: LabelHasher,
    hashes: HashMap<u64, u64>,
}

impl LabelSets {
    /// As much as is needed to tell one generation from another.
    const MOST: usize = 1 << 20;

    fn insert(&mut self, series_ref: u64, labels: Labels<'_>) {
        if self.hashes.len() < Self::MOST {
            self.hashes.insert(series_ref, self.hasher.hash_one(labels.encoded()));
        }
    }
}

/// What one segment says of refs.
#[derive(Clone, Debug)]
pub(super) struct SegmentRefs {
    role: Role,
    refs: Refs,
    /// Refs that the record that was decoded last has used first, as long as it is not settled whether it is whole: the
    /// block's place, and the bits.
    unsettled: Vec<(usize, u64)>,
    /// Refs that it defines, in order.
    defining: Vec<u64>,
    labels: Option<LabelSets>,
    /// What the first samples of series are held against.
    heads: Option<Arc<Earliest>>,
    /// Fresh refs that the record that was decoded last has samples of: the block's place, and the bits.
    sampled: Vec<(usize, u64)>,
    /// Blocks that have fresh refs.
    fresh: Vec<usize>,
    /// Refs of which a head chunk ends before the first sample, that sample's time, and where its record ends.
    others: Vec<(u64, i64, u64)>,
    /// The first head chunk of a series may begin after the first sample.
    chunks_lack: bool,
}

impl SegmentRefs {
    /// To be filled; nothing for a segment that no replay reads. With a hasher it keeps label sets where they matter, and with
    /// head chunks which of its series these are not of.
    pub(super) fn new(
        role: Role,
        hasher: Option<&LabelHasher>,
        heads: Option<&Arc<Earliest>>,
    ) -> Option<Self> {
        let labels = hasher
            .filter(|_| matches!(role, Role::Checkpoint | Role::Below))
            .map(|hasher| LabelSets { hasher: hasher.clone(), hashes: HashMap::default() });
        (role != Role::Beside).then(|| Self {
            role,
            refs: Refs::default(),
            unsettled: Vec::new(),
            defining: Vec::new(),
            labels,
            heads: heads.filter(|_| role == Role::Wal).cloned(),
            sampled: Vec::new(),
            fresh: Vec::new(),
            others: Vec::new(),
            chunks_lack: false,
        })
    }

    /// Decodes a record; what it says counts from [`Self::settle`] on.
    pub(super) fn decode(&mut self, data: &[u8]) -> Summary {
        self.forget();
        let kind = RecordType::of(data);
        if !self.role.replays(kind) || self.refs.overflowed {
            return record::summarize(data);
        }
        if kind == Some(RecordType::Series) {
            return record::summarize_refs(data, |first, count| {
                self.defining.extend((0..count).map(|i| first + i));
            });
        }
        let (refs, unsettled, sampled) = (&mut self.refs, &mut self.unsettled, &mut self.sampled);
        let is_of_samples =
            !matches!(kind, Some(RecordType::Exemplars | RecordType::Tombstones | RecordType::Metadata));
        record::summarize_refs(data, |first, count| {
            let (mut from, end) = (first, first + (count - 1));
            loop {
                let (number, from_bit) = Refs::of(from);
                let last = end.min(from | (BLOCK - 1));
                let (_, last_bit) = Refs::of(last);
                // All bits from the one to the other.
                let bits = last_bit | last_bit.wrapping_sub(from_bit);
                let at = refs.place(number);
                let block = &mut refs.blocks[at];
                if bits & block.fresh != 0 && is_of_samples {
                    sampled.push((at, bits & block.fresh));
                }
                let new = bits & !(block.defined | block.used);
                if new != 0 {
                    block.used |= new;
                    unsettled.push((at, new));
                }
                if last == end {
                    return;
                }
                from = last + 1;
            }
        })
    }

    /// The record that was decoded last is whole; the earliest time of its samples, and where it ends.
    pub(super) fn settle(&mut self, data: &[u8], earliest: Option<i64>, end: u64) {
        self.unsettled.clear();
        if self.heads.is_some() {
            self.settle_first_samples(data, earliest, end);
        }
        for series_ref in self.defining.drain(..) {
            let (number, bit) = Refs::of(series_ref);
            let at = self.refs.place(number);
            let Some(block) = self.refs.blocks.get_mut(at) else { continue };
            if self.heads.is_some() && (block.defined | block.used) & bit == 0 {
                block.fresh |= bit;
                self.fresh.push(at);
            }
            block.again |= block.defined & bit;
            block.defined |= bit;
        }
        if let Some(labels) = &mut self.labels
            && let record::Record::Series(series) = record::Record::parse(data)
        {
            for entry in series.entries().flatten() {
                labels.insert(entry.series_ref, entry.labels);
            }
        }
    }

    /// Samples of series that have been defined just before.
    fn settle_first_samples(&mut self, data: &[u8], earliest: Option<i64>, end: u64) {
        // What stands in the place of lost bytes: samples may have stood there.
        if data.len() == 1 {
            for at in self.fresh.drain(..) {
                self.refs.blocks[at].fresh = 0;
            }
        }
        for (at, bits) in self.sampled.drain(..) {
            let block = &mut self.refs.blocks[at];
            block.fresh &= !bits;
            let (Some(heads), Some(first)) = (&self.heads, earliest) else { continue };
            let refs = (0..BLOCK).filter(|bit| bits >> bit & 1 == 1).map(|bit| block.number * BLOCK + bit);
            for series_ref in refs {
                match heads.get(&series_ref) {
                    Some(&(_, ends)) if ends < first => self.others.push((series_ref, first, end)),
                    Some(&(begins, _)) => self.chunks_lack |= begins > first,
                    None => {}
                }
            }
        }
    }

    /// Nothing is known of what stands behind that place.
    pub(super) fn doubt_from(&mut self, offset: u64) {
        self.others.retain(|&(.., end)| end <= offset);
    }

    /// Gives up what only helps to find refs: this one waits for its turn.
    pub(super) fn wait(&mut self) {
        self.forget();
        self.refs.places = Places::default();
    }

    /// Goes on with what the segment says behind here.
    pub(super) fn append(&mut self, mut behind: Self) {
        self.forget();
        behind.forget();
        self.refs.find_places_again();
        self.refs.overflowed |= behind.refs.overflowed;
        let is_new = |series_ref: &u64| !self.refs.is_seen(*series_ref);
        let others: Vec<_> =
            behind.others.iter().copied().filter(|(series_ref, ..)| is_new(series_ref)).collect();
        self.others.extend(others);
        self.chunks_lack |= behind.chunks_lack;
        for block in &behind.refs.blocks {
            self.refs.follow(block);
        }
        if let (Some(labels), Some(behind)) = (&mut self.labels, behind.labels) {
            let room = LabelSets::MOST.saturating_sub(labels.hashes.len());
            let mut behind: Vec<(u64, u64)> = behind.hashes.into_iter().collect();
            if behind.len() > room {
                // The same ones in each scan.
                behind.sort_unstable();
                behind.truncate(room);
            }
            labels.hashes.extend(behind);
        }
    }

    /// The record that was decoded last is not whole, unless it is settled.
    fn forget(&mut self) {
        self.defining.clear();
        self.sampled.clear();
        for (at, bits) in self.unsettled.drain(..) {
            self.refs.blocks[at].used &= !bits;
        }
    }
}

/// What all segments say of refs, put together in the order of their replay.
#[derive(Debug, Default)]
pub(super) struct References {
    hasher: LabelHasher,
    refs: Refs,
    /// Used in the WBL and defined nowhere.
    wbl: Refs,
    /// Segments that use what has not been defined up to there: their places in the work.
    concerned: BTreeSet<usize>,
    /// Label sets in the checkpoint, if they are asked for.
    checkpoint: HashMap<u64, u64>,
    /// Refs of the checkpoint that mean other series in segments which Prometheus passes over for their number.
    pub(super) reissued_below: u64,
    /// A segment that belongs to the replay was removed while it was read.
    incomplete: bool,
    /// Refs of which a head chunk ends before the first sample, and that sample's time, ms.
    pub(super) of_other_chunks: HashMap<u64, i64>,
    /// The first head chunk of a series may begin after the first sample.
    pub(super) chunks_lack: bool,
}

/// The highest ref that is used and not defined.
fn unknown(refs: &Refs) -> Option<u64> {
    refs.highest(|block| block.used & !block.defined)
}

impl References {
    pub(super) fn hasher(&self) -> LabelHasher {
        self.hasher.clone()
    }

    /// The next segment in the order of work; `None` if it has gone.
    pub(super) fn add(&mut self, at: usize, role: Role, refs: Option<SegmentRefs>) {
        let Some(mut refs) = refs else {
            self.incomplete |= role.is_replayed();
            return;
        };
        refs.forget();
        if refs.refs.overflowed || self.have_overflowed() {
            self.refs = Refs { overflowed: true, ..Refs::default() };
            return;
        }
        let labels = refs.labels.map_or_else(HashMap::default, |labels| labels.hashes);
        match role {
            Role::Checkpoint | Role::Wal => {
                self.checkpoint.extend(labels);
                self.chunks_lack |= refs.chunks_lack;
                for (series_ref, first, _) in refs.others {
                    if !self.refs.is_seen(series_ref) {
                        self.of_other_chunks.insert(series_ref, first);
                    }
                }
                for block in &refs.refs.blocks {
                    if self.refs.follow(block) != 0 {
                        self.concerned.insert(at);
                    }
                }
            }
            Role::Below => {
                let other =
                    |(series_ref, labels)| self.checkpoint.get(series_ref).is_some_and(|was| was != labels);
                self.reissued_below += labels.iter().filter(|&entry| other(entry)).count() as u64;
            }
            Role::Wbl => {
                for block in &refs.refs.blocks {
                    let missing = block.used & !self.refs.get(block.number).defined;
                    if missing != 0 {
                        self.wbl.block(block.number).used |= missing;
                        self.concerned.insert(at);
                    }
                }
            }
            Role::Beside => {}
        }
    }

    /// Whether there were more refs than can be looked at.
    fn have_overflowed(&self) -> bool {
        self.refs.overflowed || self.wbl.overflowed
    }

    /// Whether all that belongs to the replay has been read.
    pub(super) fn are_all_known(&self) -> bool {
        !self.incomplete && !self.have_overflowed()
    }

    /// That nothing is said of refs is said.
    pub(super) fn not_judged(&self, listing: &Listing, order: &Order) -> Option<Finding> {
        let log = &listing.logs[order.wal.or(order.checkpoint).or(order.wbl)?];
        let message = "too many refs, too far apart, to say of each whether its series is defined";
        self.have_overflowed()
            .then(|| of_path(Some(log), log.relative.clone(), Code::RefsNotJudged, Severity::Note, message))
    }

    /// The highest refs that are defined, and that are used and not defined.
    pub(super) fn highest(&self) -> HighestRefs {
        HighestRefs {
            defined: self.refs.highest(|block| block.defined),
            unknown: unknown(&self.refs).max(unknown(&self.wbl)),
        }
    }

    /// Samples in the WBL have refs that Prometheus will hand out again: it reads these after all series records.
    pub(super) fn above_in_wbl(&self, listing: &Listing, order: &Order) -> Option<Finding> {
        let log = &listing.logs[order.wbl?];
        // Without a WAL it was put here, or taken out of somewhere, by itself.
        order.wal?;
        let highest = unknown(&self.wbl).filter(|_| self.are_all_known())?;
        if self.refs.highest(|block| block.defined).is_some_and(|defined| highest <= defined) {
            return None;
        }
        let message = format!(
            "entries have refs up to {highest} that no series record defines, and that Prometheus hands out again: the start after \
             that serves these samples under labels that are not theirs"
        );
        Some(of_path(Some(log), log.relative.clone(), Code::WblWithoutSeries, Severity::Warning, message))
    }

    /// Whether all that is used is defined before, and once.
    fn fit(&self) -> bool {
        self.concerned.is_empty() && self.refs.blocks.iter().all(|block| block.again == 0)
    }
}

/// Entries to which something happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affected {
    /// Floats and histograms.
    samples: u64,
    /// Exemplars, tombstones, metadata, mmap markers.
    others: u64,
    times: Option<(i64, i64)>,
}

impl Affected {
    fn count(&mut self, is_sample: bool, time: Option<i64>) {
        if !is_sample {
            self.others += 1;
            return;
        }
        self.samples += 1;
        if let Some(time) = time {
            self.widen(time, time);
        }
    }

    fn widen(&mut self, from: i64, to: i64) {
        self.times = Some(self.times.map_or((from, to), |(min, max)| (min.min(from), max.max(to))));
    }

    fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.others += other.others;
        if let Some((from, to)) = other.times {
            self.widen(from, to);
        }
    }
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    /// A ref that no series record defines.
    Undefined,
    /// A ref that is defined only behind its use.
    DefinedLater,
    /// A series record that stands there again.
    Repeated,
    /// A ref that is given to another series.
    Reissued,
}

/// What does not fit in one log, and what it costs.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    refs: HashSet<u64>,
    /// More refs, each counted once.
    undefined: u64,
    /// There are more, which are not counted.
    more: bool,
    affected: Affected,
    /// The first record that shows it: segment, offset and end.
    place: Option<(SegmentFile, u64, u64)>,
}

/// By log, as its position in the listing.
pub(super) type Troubles = BTreeMap<(usize, Misfit), Trouble>;

/// Reads again what does not fit, to count what it costs. Nothing is said where files were removed meanwhile: a running
/// server does that, and what is read then belongs to two states.
pub(super) fn troubles(
    (target, listing): (&Target, &Listing),
    steps: &[Step],
    scans: &[Vec<Option<SegmentScan>>],
    references: &References,
    settled: &Settlements,
) -> Troubles {
    if references.incomplete || references.have_overflowed() || references.fit() {
        return Troubles::new();
    }
    let Ok(now) = target.list() else { return Troubles::new() };
    let file = |step: &Step| &listing.logs[step.log].segments[step.segment];
    let replayed: Vec<Step> = steps.iter().copied().filter(|step| step.role.is_replayed()).collect();
    let is_there = |step: &&Step| {
        let log = &listing.logs[step.log];
        let same = now.logs.iter().find(|other| other.relative == log.relative);
        same.is_some_and(|other| other.segments.binary_search(file(step)).is_ok())
    };
    if !replayed.iter().all(|step| is_there(&step)) {
        return Troubles::new();
    }
    let mut suspects = Suspects::of(references);
    if let Some(last) = replayed.iter().rfind(|step| step.role == Role::Wal) {
        let known: Vec<FileState> = scans[last.log].iter().flatten().filter_map(|scan| scan.state).collect();
        suspects.look_for_new_definitions(&listing.logs[last.log], file(last).index, &now, &known);
    }

    // Only a ref that is defined has a story that other segments go on with.
    let stories = suspects.defined.blocks.iter().any(|block| block.used != 0);
    let work: Vec<Step> = steps
        .iter()
        .enumerate()
        .filter(|(at, step)| references.concerned.contains(at) || stories && step.role.is_replayed())
        .map(|(_, step)| *step)
        .collect();
    let mut all = Stories { more: suspects.more, ..Stories::default() };
    let read = in_order(
        work.len(),
        || (),
        |(), at| {
            let step = &work[at];
            let bytes = scans[step.log][step.segment].as_ref().map_or(0, |scan| scan.bytes);
            suspects.read((file(step), bytes), step.role, &references.hasher, settled)
        },
        |at, found| all.add(&work[at], file(&work[at]), found),
    );
    if read.is_err() {
        return Troubles::new();
    }
    all.troubles
}

/// Refs to look at more closely, each in [`Block::used`].
#[derive(Default)]
struct Suspects {
    /// Used, and not defined.
    undefined: Refs,
    /// In the WBL.
    undefined_in_wbl: Refs,
    /// Defined too late, or more than once.
    defined: Refs,
    /// More of these than are looked at.
    more: bool,
}

impl Suspects {
    fn of(references: &References) -> Self {
        let mut suspects = Self::default();
        let mut stories = 0;
        for block in &references.refs.blocks {
            let never = block.used & !block.defined;
            if never != 0 {
                suspects.undefined.block(block.number).used = never;
            }
            let defined = block.used & block.defined | block.again;
            if defined == 0 {
                continue;
            }
            if stories < MOST_STORIES {
                suspects.defined.block(block.number).used = defined;
                stories += u64::from(defined.count_ones());
            } else {
                suspects.more = true;
            }
        }
        suspects.undefined_in_wbl = references.wbl.clone();
        suspects
    }

    /// A running server may have defined since what was in use already when it was read: in a segment that is none of the
    /// `known` ones, or by now in another state.
    fn look_for_new_definitions(
        &mut self,
        wal: &LogDirectory,
        last: i64,
        now: &Listing,
        known: &[FileState],
    ) {
        let Some(now) = now.logs.iter().find(|log| log.relative == wal.relative) else { return };
        for segment in now.segments.iter().filter(|segment| segment.index >= last) {
            let Ok(Some((file, bytes))) = segment::open(segment) else { continue };
            if file.metadata().is_ok_and(|metadata| known.contains(&FileState::of(&metadata))) {
                continue;
            }
            let Definitions(defined) = salvage(&file, bytes, Reading::Prometheus);
            if defined.overflowed {
                continue;
            }
            for new in defined.blocks {
                let late = self.undefined.get(new.number).used & new.defined;
                if late != 0 {
                    self.undefined.block(new.number).used &= !late;
                    self.defined.block(new.number).used |= late;
                }
                if self.undefined_in_wbl.get(new.number).used & new.defined != 0 {
                    self.undefined_in_wbl.block(new.number).used &= !new.defined;
                }
            }
        }
    }

    /// Reads the first `bytes` of a segment for what it says of the suspects.
    fn read(
        &self,
        (segment, bytes): (&SegmentFile, u64),
        role: Role,
        labels: &LabelHasher,
        settled: &Settlements,
    ) -> Result<Chapter, ()> {
        let Ok(Some((file, _))) = segment::open(segment) else { return Err(()) };
        let reader = || ChapterReader { suspects: self, role, labels, chapter: Chapter::default() };
        Ok(settled.salvage(&file, bytes, Corrections::Sure, reader).chapter)
    }
}

/// Refs that are defined.
#[derive(Default)]
struct Definitions(Refs);

impl Visitor for Definitions {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        if let record::Record::Series(series) = record::Record::parse(record.data) {
            for entry in series.entries().flatten() {
                let (number, bit) = Refs::of(entry.series_ref);
                self.0.block(number).defined |= bit;
            }
        }
    }

    fn damage(&mut self, _: Problem) {}
}

/// What one segment adds to the stories of refs.
#[derive(Default)]
struct Chapter {
    /// Uses of refs that are defined nowhere.
    undefined: Affected,
    /// Of these refs.
    undefined_refs: Refs,
    stories: HashMap<u64, Story>,
    repeated: Option<(u64, u64)>,
    reissued: Option<(u64, u64)>,
}

/// What happens to one ref in a segment, or up to it.
#[derive(Clone, Copy, Default)]
struct Story {
    /// Before the first definition.
    before: Affected,
    /// The first label set and the last one, and where the first definition stands.
    labels: Option<(u64, u64)>,
    place: (u64, u64),
    /// Since the last definition.
    since: Affected,
    /// What a definition that stands there again wipes out.
    wiped: Affected,
    /// What belongs to a series whose ref is given to another one.
    displaced: Affected,
    repeated: bool,
    reissued: bool,
}

struct ChapterReader<'a> {
    suspects: &'a Suspects,
    role: Role,
    labels: &'a LabelHasher,
    chapter: Chapter,
}

impl Visitor for ChapterReader<'_> {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        let Some(kind) = RecordType::of(record.data) else { return };
        match kind {
            _ if !self.role.replays(Some(kind)) => {}
            RecordType::Series => self.define(record),
            _ => self.use_refs(record, is_sample(kind)),
        }
    }

    fn damage(&mut self, _: Problem) {}
}

impl ChapterReader<'_> {
    fn use_refs(&mut self, record: &Record<'_>, is_sample: bool) {
        let suspects = self.suspects;
        let in_wbl = self.role == Role::Wbl;
        let undefined = if in_wbl { &suspects.undefined_in_wbl } else { &suspects.undefined };
        let chapter = &mut self.chapter;
        // The block of the entry before: samples of one scrape have refs next to each other.
        let (mut number, mut unknown, mut known) = (u64::MAX, 0, 0);
        each_use(record.data, |now| {
            let (of, bit) = Refs::of(now.series_ref);
            if of != number {
                (number, unknown, known) = (of, undefined.get(of).used, suspects.defined.get(of).used);
            }
            if unknown & bit != 0 {
                chapter.undefined.count(is_sample, now.time);
                chapter.undefined_refs.block(number).used |= bit;
            } else if known & bit != 0 {
                let story = chapter.stories.entry(now.series_ref).or_default();
                let part = if story.labels.is_some() { &mut story.since } else { &mut story.before };
                part.count(is_sample, now.time);
            }
        });
    }

    fn define(&mut self, record: &Record<'_>) {
        let record::Record::Series(series) = record::Record::parse(record.data) else { return };
        for entry in series.entries().flatten() {
            if !self.suspects.defined.is_used(entry.series_ref) {
                continue;
            }
            let labels = self.labels.hash_one(entry.labels.encoded());
            let place = (record.offset, record.end);
            let story = self.chapter.stories.entry(entry.series_ref).or_default();
            let Some((first, last)) = story.labels else {
                story.labels = Some((labels, labels));
                story.place = place;
                continue;
            };
            if last == labels {
                story.wiped.add(&story.since);
                story.repeated = true;
                self.chapter.repeated.get_or_insert(place);
            } else {
                story.displaced.add(&story.since);
                story.reissued = true;
                self.chapter.reissued.get_or_insert(place);
            }
            story.labels = Some((first, labels));
            story.since = Affected::default();
        }
    }
}

fn is_sample(kind: RecordType) -> bool {
    !matches!(
        kind,
        RecordType::Exemplars | RecordType::Tombstones | RecordType::Metadata | RecordType::MmapMarkers
    )
}

/// The stories of all refs, chapter by chapter.
#[derive(Default)]
struct Stories {
    troubles: Troubles,
    /// Not all refs are looked at.
    more: bool,
    /// Refs that are defined nowhere, by log.
    undefined: HashMap<usize, Refs>,
    /// The last label set, and what was used since.
    open: HashMap<u64, (u64, Affected)>,
}

impl Stories {
    fn add(&mut self, step: &Step, segment: &SegmentFile, found: Chapter) {
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
        let mut trouble = |misfit, series_ref, affected: &Affected, place: Option<(u64, u64)>| {
            let trouble = self.troubles.entry((log, misfit)).or_default();
            trouble.more = self.more;
            trouble.refs.insert(series_ref);
            trouble.affected.add(affected);
            let place = place.map(|(offset, end)| (segment.clone(), offset, end));
            let earlier = |place: &(SegmentFile, u64, u64)| {
                trouble.place.as_ref().is_none_or(|known| (known.0.index, known.1) > (place.0.index, place.1))
            };
            if let Some(place) = place.filter(earlier) {
                trouble.place = Some(place);
            }
        };
        for (series_ref, story) in found.stories {
            let known = self.open.get_mut(&series_ref);
            let Some((first, last)) = story.labels else {
                match known {
                    Some((_, since)) => since.add(&story.before),
                    None => trouble(Misfit::DefinedLater, series_ref, &story.before, None),
                }
                continue;
            };
            match known {
                None => {
                    if story.before.samples + story.before.others > 0 {
                        trouble(Misfit::DefinedLater, series_ref, &story.before, None);
                    }
                }
                Some((labels, since)) => {
                    since.add(&story.before);
                    let misfit = if *labels == first { Misfit::Repeated } else { Misfit::Reissued };
                    trouble(misfit, series_ref, since, Some(story.place));
                }
            }
            if story.repeated {
                trouble(Misfit::Repeated, series_ref, &story.wiped, found.repeated);
            }
            if story.reissued {
                trouble(Misfit::Reissued, series_ref, &story.displaced, found.reissued);
            }
            self.open.insert(series_ref, (last, story.since));
        }
    }
}

/// Why a ref may be undefined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Why {
    /// Records of the checkpoint or the WAL are damaged.
    pub(super) damage: bool,
    /// Files are missing.
    pub(super) files: bool,
}

/// Findings, in the order of logs.
pub(super) fn findings(listing: &Listing, troubles: &Troubles, why: Why) -> Vec<Finding> {
    troubles
        .iter()
        .map(|(&(log, misfit), trouble)| trouble.finding(&listing.logs[log], misfit, why))
        .collect()
}

/// Records that a replay of that log passes over, since they belong into another one.
pub(super) fn misplaced(directory: &LogDirectory, log: &Log) -> Option<Finding> {
    let (kinds, then): (&[RecordType], _) = match log.kind {
        _ if log.dialect == Dialect::Loki => return None,
        LogKind::Wal | LogKind::Checkpoint => (
            &[RecordType::MmapMarkers],
            "Prometheus skips them, but an agent takes them for corruption and deletes what follows",
        ),
        LogKind::Wbl => (
            &[RecordType::Series, RecordType::Tombstones, RecordType::Exemplars, RecordType::Metadata],
            "Prometheus skips them",
        ),
        LogKind::ChunkSnapshot => return None,
    };
    let found: Vec<String> = kinds
        .iter()
        .filter_map(|kind| {
            Some(format!("{} of type {kind}", count(*log.records.get(kind.name())?, "record")))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    let message = format!("{}, which belong into another log: {then}", found.join(", "));
    let finding = of_path(
        Some(directory),
        directory.relative.clone(),
        Code::MisplacedRecords,
        Severity::Warning,
        message,
    );
    Some(Finding { cause: Some(Cause::Files), ..finding })
}

impl Trouble {
    fn finding(&self, log: &LogDirectory, misfit: Misfit, why: Why) -> Finding {
        let refs = self.refs.len() as u64 + self.undefined;
        let mut affected = self.affected;
        if matches!(misfit, Misfit::Repeated | Misfit::Reissued) {
            // Metadata is written next to each series record; exemplars are kept elsewhere.
            affected.others = 0;
        }
        let what = affected.in_words();
        let least = if self.more { "at least " } else { "" };
        let series = format!("{least}{}", count(refs, "series"));
        let drops = match log.kind {
            LogKind::Wbl => {
                "Prometheus drops them (it logs \"Unknown series references for ooo WAL replay\")"
            }
            _ => "Prometheus drops them (it logs \"Unknown series references\")",
        };
        let (code, severity, message) = match misfit {
            Misfit::Undefined => {
                let (severity, why) = match why {
                    Why { damage: true, .. } => {
                        (Severity::Warning, "; their series records may be among what is damaged")
                    }
                    Why { files: true, .. } => {
                        (Severity::Warning, "; their series records may have been in what is missing")
                    }
                    // Samples are kept by their time, series records by what the head holds (`wlog/checkpoint.go`).
                    _ if log.kind == LogKind::Checkpoint => {
                        (Severity::Note, "; a checkpoint may keep samples of series that it has dropped")
                    }
                    _ => (Severity::Warning, ""),
                };
                (
                    Code::UnknownRefs,
                    severity,
                    format!("{what} of {series} that no series record before them defines: {drops}{why}"),
                )
            }
            Misfit::DefinedLater => (
                Code::SeriesAfterUse,
                Severity::Warning,
                format!("{what} of {series} come before the series record: {drops}"),
            ),
            Misfit::Repeated if affected.samples == 0 => (
                Code::RepeatedSeries,
                Severity::Warning,
                format!(
                    "the series records of {series} are repeated here, with no samples in between: this has no effect"
                ),
            ),
            Misfit::Repeated => (
                Code::RepeatedSeries,
                Severity::Damage,
                format!(
                    "the series records of {series} are repeated here. At each, Prometheus discards what it has replayed for \
                     that series before, unless chunks_head has it: up to {what}"
                ),
            ),
            Misfit::Reissued => (
                Code::ReissuedRefs,
                Severity::Damage,
                format!(
                    "from here on {} for another series than before: Prometheus no longer finds what it has replayed for the \
                     earlier one ({what}), and what chunks_head has of that one appears under the name of the later",
                    if refs == 1 { "1 ref is".into() } else { format!("{least}{refs} refs are") }
                ),
            ),
        };
        let entries = affected.samples + affected.others;
        let base = match &self.place {
            Some((segment, offset, end)) => Finding {
                offset: Some(*offset),
                end: Some(*end),
                ..of_file(log, segment, code, severity, message, None)
            },
            None => of_path(Some(log), log.relative.clone(), code, severity, message),
        };
        // Of what is thrown away, the records behind may bring back a part.
        let lost = match misfit {
            Misfit::Repeated if entries > 0 => Lost::default(),
            _ => Lost { records: Some(0), entries: Some(entries) },
        };
        Finding {
            lost,
            series: Some(refs),
            times: affected.times.map(|(from, to)| Times { from: Some(from), to: Some(to) }),
            ..base
        }
    }
}

impl Affected {
    /// `12 samples and 3 other entries, 2026-11-21 19:24:15 to 19:30:31 UTC,`
    fn in_words(&self) -> String {
        let mut words = match (self.samples, self.others) {
            (samples, 0) => count(samples, "sample"),
            (0, others) => count(others, "entry"),
            (samples, others) => format!("{} and {}", count(samples, "sample"), count(others, "other entry")),
        };
        if let Some((from, to)) = self.times {
            words = format!("{words} ({})", span(from, to));
        }
        words
    }
}
