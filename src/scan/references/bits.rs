//! Sets of refs, a bit for each: refs are handed out one after the other.

use foldhash::HashMap;

/// Refs to a block.
pub(super) const BLOCK: u64 = 64;

/// Blocks of which note is taken: 67 million refs if they are dense, and no more memory than that, whatever a log says.
pub(in crate::scan) const MOST_BLOCKS: usize = 1 << 20;

/// Sets of refs, one bit of each for a ref.
#[derive(Clone, Debug, Default)]
pub(super) struct RefSets {
    pub(super) blocks: Vec<RefBlock>,
    /// Where the block of that number is.
    pub(super) places: BlockPlaces,
    /// Refs of low blocks of which there is nothing more to note, a word for each block: defined or used for certain, and
    /// not fresh. No ref ceases to be so.
    done: Vec<u64>,
    /// The block that was asked for last: samples of one scrape have refs next to each other.
    last: usize,
    /// There were more blocks than there is room for; what the rest say is of no use.
    pub(super) overflowed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RefBlock {
    pub(super) number: u64,
    pub(super) defined: u64,
    /// Used before they were defined.
    pub(super) used: u64,
    /// Defined more than once.
    pub(super) again: u64,
    /// Defined, and without a sample since.
    pub(super) fresh: u64,
}

/// Where blocks are, by their number.
#[derive(Clone, Debug, Default)]
pub(super) struct BlockPlaces {
    /// One more than the place, 0 if there is none; of low numbers, which are nearly all there are.
    low: Vec<u32>,
    high: HashMap<u64, u32>,
}

impl BlockPlaces {
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

impl RefSets {
    /// Nothing is known of any ref.
    pub(super) fn overflowed() -> Self {
        Self { overflowed: true, ..Self::default() }
    }

    pub(super) fn place(&mut self, number: u64) -> usize {
        let is = |at: usize| self.blocks.get(at).is_some_and(|block| block.number == number);
        if is(self.last) {
            return self.last;
        }
        self.last = if is(self.last + 1) { self.last + 1 } else { self.find(number) };
        self.last
    }

    /// The refs of a block of which there is nothing more to note, as far as that is known.
    #[inline]
    pub(super) fn done(&self, number: u64) -> u64 {
        usize::try_from(number).ok().and_then(|low| self.done.get(low)).copied().unwrap_or(0)
    }

    /// Of these refs of the block at that place there is nothing more to note.
    pub(super) fn set_done(&mut self, at: usize, bits: u64) {
        let number = self.blocks[at].number;
        let Ok(low) = usize::try_from(number) else { return };
        if bits != 0 && number < BlockPlaces::LOW {
            if self.done.len() <= low {
                self.done.resize(low + 1, 0);
            }
            self.done[low] |= bits;
        }
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
        self.blocks.push(RefBlock { number, ..RefBlock::default() });
        self.places.insert(number, next);
        next
    }

    /// Gives up what only helps to find refs.
    pub(super) fn wait(&mut self) {
        self.places = BlockPlaces::default();
        self.done = Vec::new();
    }

    /// After the places were given up.
    pub(super) fn find_places_again(&mut self) {
        if self.places.is_empty() {
            for (place, block) in self.blocks.iter().enumerate() {
                self.places.insert(block.number, place);
            }
        }
    }

    pub(super) fn block(&mut self, number: u64) -> &mut RefBlock {
        let at = self.place(number);
        &mut self.blocks[at]
    }

    /// Adds what comes after all that is known so far; which of its refs are used and not defined up to there.
    pub(super) fn follow(&mut self, later: &RefBlock) -> u64 {
        let all = self.block(later.number);
        let missing = later.used & !all.defined;
        all.used |= missing;
        all.again |= later.again | all.defined & later.defined;
        all.defined |= later.defined;
        missing
    }

    pub(super) fn of(series_ref: u64) -> (u64, u64) {
        (series_ref / BLOCK, 1 << (series_ref % BLOCK))
    }

    /// The bits of a block from one ref to another.
    pub(super) fn bits(first: u64, last: u64) -> u64 {
        let (_, first) = Self::of(first);
        let (_, last) = Self::of(last);
        last | last.wrapping_sub(first)
    }

    pub(super) fn get(&self, number: u64) -> RefBlock {
        self.places.get(number).map_or_else(RefBlock::default, |at| self.blocks[at])
    }

    pub(super) fn is_seen(&self, series_ref: u64) -> bool {
        let (number, bit) = Self::of(series_ref);
        let block = self.get(number);
        (block.used | block.defined) & bit != 0
    }

    /// The highest of these bits.
    pub(super) fn highest(&self, of: impl Fn(&RefBlock) -> u64) -> Option<u64> {
        let highest = |block: &RefBlock| Some(block.number * BLOCK + u64::from(of(block).checked_ilog2()?));
        // Prometheus hands out no higher ones (`tsdb/chunks/chunks.go`, `NewHeadChunkRef`).
        let can_be = |highest: &u64| *highest < 1 << 40;
        self.blocks.iter().filter_map(highest).filter(can_be).max()
    }

    pub(super) fn count(&self, of: impl Fn(&RefBlock) -> u64) -> u64 {
        self.blocks.iter().map(|block| u64::from(of(block).count_ones())).sum()
    }
}
