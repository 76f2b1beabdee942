//! What segments say of refs that do not fit, read a second time.

use foldhash::HashMap;

use super::bits::{BLOCK, RefSets};
use super::joined::References;
use super::misfits::{Affected, Histories, Troubles};
use super::segment::{LabelHash, LabelHasher};
use crate::io::open_if_file;
use crate::record::{self, EntryKind, RecordType, SampleRun, each_use};
use crate::scan::parallel::in_order;
use crate::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use crate::scan::segment::SegmentScan;
use crate::scan::settled::{FileStamp, Settlements};
use crate::tsdb::replay_order::{ReplaySegment, Role};
use crate::tsdb::{Listing, LogDirectory, Target};
use crate::wal::{Corrections, Record};

/// Refs of which the history is followed, see [`RefHistory`].
const MOST_HISTORIES: u64 = 1 << 18;

/// Reads again what does not fit, to count what it costs. Nothing is said where files were removed meanwhile: a running
/// server does that, and what is read then belongs to two states.
pub(in crate::scan) fn troubles(
    (target, listing): (&Target, &Listing),
    steps: &[ReplaySegment],
    scans: &[Vec<Option<SegmentScan>>],
    references: &References,
    settled: &Settlements,
) -> Troubles {
    if references.incomplete || references.have_overflowed() || references.fit() {
        return Troubles::new();
    }
    let Ok(now) = target.list() else { return Troubles::new() };
    let file = |step: &ReplaySegment| &listing.logs[step.log].segments[step.segment];
    let replayed: Vec<ReplaySegment> = steps.iter().copied().filter(|step| step.role.is_replayed()).collect();
    let is_there = |step: &&ReplaySegment| {
        let log = &listing.logs[step.log];
        let same = now.logs.iter().find(|other| other.relative == log.relative);
        same.is_some_and(|other| other.segments.binary_search(file(step)).is_ok())
    };
    if !replayed.iter().all(|step| is_there(&step)) {
        return Troubles::new();
    }
    let mut suspects = Suspects::of(references);
    if let Some(last) = replayed.iter().rfind(|step| step.role == Role::Wal) {
        let known: Vec<FileStamp> = scans[last.log].iter().flatten().filter_map(|scan| scan.state).collect();
        suspects.look_for_new_definitions(&listing.logs[last.log], file(last).index, &now, &known);
    }

    // Only a ref that is defined has a history that other segments continue.
    let histories = suspects.defined.blocks.iter().any(|block| block.used != 0);
    let work: Vec<ReplaySegment> = steps
        .iter()
        .enumerate()
        .filter(|(at, step)| references.concerned.contains(at) || histories && step.role.is_replayed())
        .map(|(_, step)| *step)
        .collect();
    let followed = Followed::of(&suspects.defined);
    let mut all = Histories::new(suspects.more);
    let read = in_order(
        work.len(),
        || (),
        |(), at| {
            let step = &work[at];
            let bytes = scans[step.log][step.segment].as_ref().map_or(0, |scan| scan.bytes);
            let reader = || HistoryReader {
                suspects: &suspects,
                followed: &followed,
                role: step.role,
                labels: &references.hasher,
                history: followed.nothing_yet(),
            };
            let Ok(Some((file, _))) = open_if_file(&file(step).path) else { return Err(()) };
            let mut found = settled.segment(&file, bytes, Corrections::Sure).read(reader).history;
            // Most refs are not in most segments.
            let happened = found.histories.iter().enumerate().filter(|(_, history)| !history.is_empty());
            let happened: Vec<_> =
                happened.map(|(number, history)| (followed.refs[number], *history)).collect();
            found.histories = Vec::new();
            Ok((found, happened))
        },
        |at, (found, happened)| all.add(&work[at], file(&work[at]), &found, happened),
    );
    if read.is_err() {
        return Troubles::new();
    }
    all.troubles
}

/// Refs to look at more closely, each in [`RefBlock::used`](super::bits::RefBlock::used).
#[derive(Default)]
struct Suspects {
    /// Used, and not defined.
    undefined: RefSets,
    /// In the WBL.
    undefined_in_wbl: RefSets,
    /// Defined too late, or more than once.
    defined: RefSets,
    /// More of these than are looked at.
    more: bool,
}

impl Suspects {
    fn of(references: &References) -> Self {
        let mut suspects = Self::default();
        let mut histories = 0;
        for block in &references.refs.blocks {
            let never = block.used & !block.defined;
            if never != 0 {
                suspects.undefined.block(block.number).used = never;
            }
            let defined = block.used & block.defined | block.again;
            if defined == 0 {
                continue;
            }
            if histories < MOST_HISTORIES {
                suspects.defined.block(block.number).used = defined;
                histories += u64::from(defined.count_ones());
            } else {
                suspects.more = true;
            }
        }
        suspects.undefined_in_wbl = references.wbl.clone();
        suspects
    }

    /// Those that a log of that role uses, and none defines.
    fn undefined(&self, role: Role) -> &RefSets {
        if role == Role::Wbl { &self.undefined_in_wbl } else { &self.undefined }
    }

    /// A running server may have defined since what was in use already when it was read: in a segment that is none of the
    /// `known` ones, or by now in another state.
    fn look_for_new_definitions(
        &mut self,
        wal: &LogDirectory,
        last: i64,
        now: &Listing,
        known: &[FileStamp],
    ) {
        let Some(now) = now.logs.iter().find(|log| log.relative == wal.relative) else { return };
        for segment in now.segments.iter().filter(|segment| segment.index >= last) {
            let Ok(Some((file, bytes))) = open_if_file(&segment.path) else { continue };
            if file.metadata().is_ok_and(|metadata| known.contains(&FileStamp::of(&metadata))) {
                continue;
            }
            let RefsDefined(defined) = salvage(&file, bytes, Reading::Prometheus);
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
}

/// The refs of which the history is followed, each with a number: a scrape that has samples of many finds all of them next
/// to each other.
struct Followed {
    /// By the number of the block: its bits, and the number of the first ref.
    blocks: HashMap<u64, (u64, usize)>,
    refs: Vec<u64>,
}

impl Followed {
    fn of(defined: &RefSets) -> Self {
        let mut blocks: Vec<_> = defined.blocks.iter().map(|block| (block.number, block.used)).collect();
        blocks.sort_unstable();
        let (mut places, mut refs) = (HashMap::default(), Vec::new());
        for (number, bits) in blocks {
            places.insert(number, (bits, refs.len()));
            refs.extend((0..BLOCK).filter(|bit| bits >> bit & 1 == 1).map(|bit| number * BLOCK + bit));
        }
        Self { blocks: places, refs }
    }

    fn nothing_yet(&self) -> SegmentHistory {
        SegmentHistory {
            histories: vec![RefHistory::default(); self.refs.len()],
            ..SegmentHistory::default()
        }
    }

    /// The bits of a block that are followed, and the number of the first.
    fn block(&self, number: u64) -> (u64, usize) {
        self.blocks.get(&number).copied().unwrap_or_default()
    }

    /// The number of one of the refs of a block.
    fn number_of((bits, first): (u64, usize), bit: u64) -> Option<usize> {
        (bits & bit != 0).then(|| first + (bits & (bit - 1)).count_ones() as usize)
    }
}

/// Refs that are defined.
#[derive(Default)]
struct RefsDefined(RefSets);

impl Visitor for RefsDefined {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        if let record::Record::Series(series) = record::Record::parse(record.data) {
            for entry in series.entries().flatten() {
                let (number, bit) = RefSets::of(entry.series_ref);
                self.0.block(number).defined |= bit;
            }
        }
    }

    fn damage(&mut self, _: Problem) {}
}

/// Where a record is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecordPlace {
    pub(super) offset: u64,
    pub(super) end: u64,
}

/// What one segment adds to the histories of refs.
#[derive(Default)]
pub(super) struct SegmentHistory {
    /// Uses of refs that are defined nowhere.
    pub(super) undefined: Affected,
    /// Of these refs.
    pub(super) undefined_refs: RefSets,
    /// By the numbers of the refs that are followed.
    pub(super) histories: Vec<RefHistory>,
    pub(super) repeated: Option<RecordPlace>,
    pub(super) reissued: Option<RecordPlace>,
}

/// What happens to one ref in a segment, or up to it.
#[derive(Clone, Copy, Default)]
pub(super) struct RefHistory {
    /// Before the first definition.
    pub(super) before: Affected,
    /// The first label set and the last one, and where the first definition is.
    pub(super) labels: Option<(LabelHash, LabelHash)>,
    pub(super) place: RecordPlace,
    /// Since the last definition.
    pub(super) since: Affected,
    /// What a repeated definition wipes out.
    pub(super) wiped: Affected,
    /// What belongs to a series whose ref is given to another one.
    pub(super) displaced: Affected,
    pub(super) repeated: bool,
    pub(super) reissued: bool,
}

impl RefHistory {
    /// Nothing has happened to it.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_none() && self.before.is_empty()
    }

    /// What a use at hand adds to.
    fn part(&mut self) -> &mut Affected {
        if self.labels.is_some() { &mut self.since } else { &mut self.before }
    }
}

struct HistoryReader<'a> {
    suspects: &'a Suspects,
    followed: &'a Followed,
    role: Role,
    labels: &'a LabelHasher,
    history: SegmentHistory,
}

impl Visitor for HistoryReader<'_> {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        let record_type = RecordType::of(record.data);
        let Some(kind) = record_type.filter(|_| self.role.replays(record_type)).map(RecordType::kind) else {
            return;
        };
        match kind {
            EntryKind::Series => self.define(record),
            EntryKind::Samples
            | EntryKind::Histograms
            | EntryKind::FloatHistograms
            | EntryKind::Exemplars
            | EntryKind::Tombstones
            | EntryKind::Metadata
            | EntryKind::MmapMarkers => self.use_refs(record, kind.are_samples()),
            EntryKind::MinValidTime => {}
        }
    }

    fn damage(&mut self, _: Problem) {}
}

impl HistoryReader<'_> {
    fn use_refs(&mut self, record: &Record<'_>, is_sample: bool) {
        if let record::Record::Samples(samples) = record::Record::parse(record.data) {
            samples.runs(|run| self.use_run(&run));
            return;
        }
        let (suspects, followed) = (self.suspects, self.followed);
        let undefined = suspects.undefined(self.role);
        let history = &mut self.history;
        // The block of the entry before: samples of one scrape have refs next to each other.
        let (mut number, mut unknown, mut known) = (u64::MAX, 0, (0, 0));
        each_use(record.data, |now| {
            let (of, bit) = RefSets::of(now.series_ref);
            if of != number {
                (number, unknown, known) = (of, undefined.get(of).used, followed.block(of));
            }
            if unknown & bit != 0 {
                history.undefined.count(is_sample, now.time);
                history.undefined_refs.block(number).used |= bit;
            } else if let Some(number) = Followed::number_of(known, bit) {
                let Some(history) = history.histories.get_mut(number) else { return };
                history.part().count(is_sample, now.time);
            }
        });
    }

    /// Samples of refs that follow one another: all of a block at once.
    fn use_run(&mut self, run: &SampleRun) {
        let suspects = self.suspects;
        let undefined = suspects.undefined(self.role);
        let (mut from, end) = (run.first_ref, run.first_ref + (run.count - 1));
        loop {
            let (number, _) = RefSets::of(from);
            let last = end.min(from | (BLOCK - 1));
            let bits = RefSets::bits(from, last);
            let unknown = undefined.get(number).used & bits;
            if unknown != 0 {
                self.history.undefined.count_samples(u64::from(unknown.count_ones()), run.t);
                self.history.undefined_refs.block(number).used |= unknown;
            }
            let followed = self.followed.block(number);
            let mut known = followed.0 & bits & !unknown;
            while known != 0 {
                let bit = known & known.wrapping_neg();
                known ^= bit;
                let number = Followed::number_of(followed, bit);
                if let Some(history) = number.and_then(|number| self.history.histories.get_mut(number)) {
                    history.part().count_samples(1, run.t);
                }
            }
            if last == end {
                return;
            }
            from = last + 1;
        }
    }

    fn define(&mut self, record: &Record<'_>) {
        let record::Record::Series(series) = record::Record::parse(record.data) else { return };
        for entry in series.entries().flatten() {
            let (number, bit) = RefSets::of(entry.series_ref);
            let Some(followed) = Followed::number_of(self.followed.block(number), bit) else { continue };
            let Some(history) = self.history.histories.get_mut(followed) else { continue };
            let labels = LabelHash::of(&entry.labels, self.labels);
            let place = RecordPlace { offset: record.offset, end: record.end };
            let Some((first, last)) = history.labels else {
                history.labels = Some((labels, labels));
                history.place = place;
                continue;
            };
            if last == labels {
                history.wiped.add(&history.since);
                history.repeated = true;
                self.history.repeated.get_or_insert(place);
            } else {
                history.displaced.add(&history.since);
                history.reissued = true;
                self.history.reissued.get_or_insert(place);
            }
            history.labels = Some((first, labels));
            history.since = Affected::default();
        }
    }
}
