//! What one segment says of refs.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::HashMap;

use super::bits::{BLOCK, RefSets};
use crate::record::{self, EntryKind, Labels, RecordType, RefVisitor, Summary};
use crate::scan::heads::Earliest;
use crate::tsdb::replay_order::Role;

/// Makes a number of a label set; a clone makes the same ones.
pub(in crate::scan) type LabelHasher = foldhash::quality::RandomState;

/// A label set, as a number that equal sets have in common within one scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LabelHash(u64);

impl LabelHash {
    pub(super) fn of(labels: &Labels<'_>, hasher: &LabelHasher) -> Self {
        Self(hasher.hash_one(labels.encoded()))
    }
}

/// The first sample of a series, in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstSample {
    pub(super) series_ref: u64,
    /// ms.
    pub(super) time: i64,
    /// Where its record ends.
    pub(super) end: u64,
}

/// Label sets of refs.
#[derive(Clone, Debug)]
pub(super) struct LabelSets {
    hasher: LabelHasher,
    pub(super) hashes: HashMap<u64, LabelHash>,
}

impl LabelSets {
    /// As much as is needed to tell one generation from another.
    const MOST: usize = 1 << 20;

    fn insert(&mut self, series_ref: u64, labels: Labels<'_>) {
        if self.hashes.len() < Self::MOST {
            self.hashes.insert(series_ref, LabelHash::of(&labels, &self.hasher));
        }
    }
}

/// What one segment says of refs.
#[derive(Clone, Debug)]
pub(in crate::scan) struct SegmentRefs {
    role: Role,
    pub(super) refs: RefSets,
    /// Refs that the record that was decoded last has used first, as long as it is not settled whether it is intact: the
    /// block's place, and the bits.
    unsettled: Vec<(usize, u64)>,
    /// Refs that it defines, in order.
    defining: Vec<u64>,
    pub(super) labels: Option<LabelSets>,
    /// What the first samples of series are held against.
    heads: Option<Arc<Earliest>>,
    /// Fresh refs that the record that was decoded last has samples of: the block's place, and the bits.
    sampled: Vec<(usize, u64)>,
    /// Blocks that have fresh refs.
    fresh: Vec<usize>,
    /// Those of which a head chunk ends before.
    pub(super) others: Vec<FirstSample>,
    /// The first head chunk of a series may begin after the first sample.
    pub(super) chunks_lack: bool,
}

impl SegmentRefs {
    /// To be filled; nothing for a segment that no replay reads. With a hasher it keeps label sets where they matter, and with
    /// head chunks which of its series these are not of.
    pub(in crate::scan) fn new(
        role: Role,
        hasher: Option<&LabelHasher>,
        heads: Option<&Arc<Earliest>>,
    ) -> Option<Self> {
        let labels = hasher
            .filter(|_| matches!(role, Role::Checkpoint | Role::Below))
            .map(|hasher| LabelSets { hasher: hasher.clone(), hashes: HashMap::default() });
        (role != Role::Beside).then(|| Self {
            role,
            refs: RefSets::default(),
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
    pub(in crate::scan) fn decode(&mut self, data: &[u8]) -> Summary {
        self.forget();
        let record_type = RecordType::of(data);
        if !self.role.replays(record_type) || self.refs.overflowed {
            return record::summarize(data);
        }
        let kind = record_type.map(RecordType::kind);
        if kind == Some(EntryKind::Series) {
            return record::summarize_refs(data, |first: u64, count: u64| {
                self.defining.extend((0..count).map(|i| first + i));
            });
        }
        record::summarize_refs(
            data,
            UsedRefs {
                refs: &mut self.refs,
                unsettled: &mut self.unsettled,
                sampled: &mut self.sampled,
                are_sampled: kind.is_some_and(EntryKind::are_samples),
            },
        )
    }

    /// The record that was decoded last is intact; the earliest time of its samples, and where it ends.
    pub(in crate::scan) fn settle(&mut self, data: &[u8], earliest: Option<i64>, end: u64) {
        for (at, bits) in self.unsettled.drain(..) {
            self.refs.set_done(at, bits);
        }
        if self.heads.is_some() {
            self.settle_first_samples(data, earliest, end);
        }
        for series_ref in self.defining.drain(..) {
            let (number, bit) = RefSets::of(series_ref);
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
        // It replaces lost bytes: samples may have been there.
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
                    Some(&(_, ends)) if ends < first => {
                        self.others.push(FirstSample { series_ref, time: first, end });
                    }
                    Some(&(begins, _)) => self.chunks_lack |= begins > first,
                    None => {}
                }
            }
        }
    }

    /// Nothing is known of what comes after that place.
    pub(in crate::scan) fn doubt_from(&mut self, offset: u64) {
        self.others.retain(|other| other.end <= offset);
    }

    /// Whether what is put together of stretches is all that one reading of them would find.
    pub(in crate::scan) fn adds_up(&self) -> bool {
        self.heads.is_none() && self.labels.is_none()
    }

    /// Gives up what only helps to find refs: this one waits for its turn.
    pub(in crate::scan) fn wait(&mut self) {
        self.forget();
        self.refs.wait();
    }

    /// How many blocks of refs it knows, a measure of its memory.
    pub(in crate::scan) fn blocks(&self) -> usize {
        self.refs.blocks.len()
    }

    /// Adds what the segment says after here.
    pub(in crate::scan) fn append(&mut self, mut after: Self) {
        self.forget();
        after.forget();
        self.refs.find_places_again();
        self.refs.overflowed |= after.refs.overflowed;
        let is_new = |other: &FirstSample| !self.refs.is_seen(other.series_ref);
        let others: Vec<_> = after.others.iter().copied().filter(is_new).collect();
        self.others.extend(others);
        self.chunks_lack |= after.chunks_lack;
        for block in &after.refs.blocks {
            self.refs.follow(block);
        }
        if let (Some(labels), Some(after)) = (&mut self.labels, after.labels) {
            let room = LabelSets::MOST.saturating_sub(labels.hashes.len());
            let mut after: Vec<(u64, LabelHash)> = after.hashes.into_iter().collect();
            if after.len() > room {
                // The same ones in each scan.
                after.sort_unstable();
                after.truncate(room);
            }
            labels.hashes.extend(after);
        }
    }

    /// The record that was decoded last is not intact, unless it is settled.
    pub(super) fn forget(&mut self) {
        self.defining.clear();
        self.sampled.clear();
        for (at, bits) in self.unsettled.drain(..) {
            self.refs.blocks[at].used &= !bits;
        }
    }
}

/// Takes note of the refs that a record uses.
struct UsedRefs<'a> {
    refs: &'a mut RefSets,
    unsettled: &'a mut Vec<(usize, u64)>,
    sampled: &'a mut Vec<(usize, u64)>,
    /// By samples.
    are_sampled: bool,
}

impl UsedRefs<'_> {
    /// These refs of a block, of which some may be new.
    #[inline(never)]
    fn note(&mut self, number: u64, bits: u64) {
        let at = self.refs.place(number);
        let block = &mut self.refs.blocks[at];
        if bits & block.fresh != 0 && self.are_sampled {
            self.sampled.push((at, bits & block.fresh));
        }
        let new = bits & !(block.defined | block.used);
        if new != 0 {
            block.used |= new;
            self.unsettled.push((at, new));
        }
        // Those that are only used may be taken back.
        let known = block.defined & !block.fresh;
        self.refs.set_done(at, known);
    }
}

impl RefVisitor for UsedRefs<'_> {
    fn run(&mut self, first: u64, count: u64) {
        let (mut from, end) = (first, first + (count - 1));
        loop {
            let (number, _) = RefSets::of(from);
            let last = end.min(from | (BLOCK - 1));
            let bits = RefSets::bits(from, last);
            if bits & !self.refs.done(number) != 0 {
                self.note(number, bits);
            }
            if last == end {
                return;
            }
            from = last + 1;
        }
    }

    fn scattered(&mut self, refs: &[u64]) {
        for &series_ref in refs {
            let (number, bit) = RefSets::of(series_ref);
            if self.refs.done(number) & bit == 0 {
                self.note(number, bit);
            }
        }
    }
}
