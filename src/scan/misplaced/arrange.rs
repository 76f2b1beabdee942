//! From pages to where each of them belongs.
//!
//! Pages that follow one another as they should are a *block*. Blocks of which records continue from one to the other belong
//! together, wherever they are: they are a *chain*. Chains are put in the order of their times.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;

use super::chain::{UNBELIEVABLE, verify};
use super::pages::{Joint, ReplayedPages, Side};
use crate::wal::compress::Unpacker;
use crate::wal::layout::HeadByte;
use crate::wal::{Compression, FragmentType, HEADER_SIZE};

/// How often fragments are put together to see whether they are a record, at the most.
const MOST_TRIALS: usize = 20_000;

/// Bytes of them in all.
const MOST_BYTES: usize = 1 << 30;

/// Chains that are held against each other.
const MOST_CHAINS: usize = 4096;

/// What a page becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// This page, by its place in [`ReplayedPages::all`].
    Page(usize),
    /// Nothing, and no record continues across it.
    Blank,
}

/// For each segment its pages.
pub(super) type PageOrder = Vec<Vec<Put>>;

/// Two runs of pages with the same bytes, one of which is a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Twins {
    pub(super) first: Range<usize>,
    pub(super) second: Range<usize>,
}

impl Twins {
    /// How much better the first fits where it is than the second.
    fn lead(&self, pages: &ReplayedPages, pace: Pace) -> i32 {
        fit(pages, &self.first, pace) - fit(pages, &self.second, pace)
    }
}

/// How well a run of pages fits what is around it.
fn fit(pages: &ReplayedPages, run: &Range<usize>, pace: Pace) -> i32 {
    let segment = &pages.segments[pages.all[run.start].segment].pages;
    let timed = |page: &usize| pages.all[*page].times.0 <= pages.all[*page].times.1;
    let gap = |last: Option<usize>, next: Option<usize>| {
        let (last, next) = last.zip(next)?;
        Some(pages.all[next].times.0.saturating_sub(pages.all[last].times.1))
    };
    let of = |joint: Joint, compression: Compression, gap: Option<i64>| match joint {
        Joint::Sound if compression == Compression::Zstd => 3,
        // Pages of which the records begin at the same places fit each other's neighbours.
        Joint::Sound | Joint::Odd if pace.misfit(gap) == 2 => 0,
        Joint::Sound => 3,
        Joint::Odd => 1,
        Joint::Clean | Joint::Unknown => 2,
        Joint::Broken => 0,
    };
    let before = gap((segment.start..run.start).rev().find(timed), run.clone().find(timed));
    let after = gap(run.clone().rev().find(timed), (run.end..segment.end).find(timed));
    let across_end = pages
        .all
        .get(run.end)
        .filter(|_| run.end < segment.end)
        .map_or(Compression::None, compression_across);
    of(pages.all[run.start].before, compression_across(&pages.all[run.start]), before)
        + of(pages.joint_after(run.end - 1), across_end, after)
}

/// Runs of pages that are there twice.
pub(super) fn twins(pages: &ReplayedPages) -> Vec<Twins> {
    let mut first: HashMap<u64, usize> = HashMap::new();
    let mut all: Vec<Twins> = Vec::new();
    for (at, page) in pages.all.iter().enumerate() {
        if page.is_zero {
            continue;
        }
        let Some(&original) = first.get(&page.hash) else {
            first.insert(page.hash, at);
            continue;
        };
        let goes_on = |last: &&mut Twins| {
            last.second.end == at
                && last.first.end == original
                && pages.all[at - 1].segment == page.segment
                && pages.all[original - 1].segment == pages.all[original].segment
        };
        match all.last_mut().filter(goes_on) {
            Some(last) => {
                last.first.end += 1;
                last.second.end += 1;
            }
            None => all.push(Twins { first: original..original + 1, second: at..at + 1 }),
        }
    }
    // Pages in the midst of records may be equal: two scrapes in which nothing has changed.
    let is_honest = |twins: &Twins| {
        let is_sound = |run: &Range<usize>| {
            pages.all[run.start].before == Joint::Sound && pages.joint_after(run.end - 1) == Joint::Sound
        };
        let has_beginnings = pages.all[twins.first.clone()].iter().any(|page| page.has_beginnings);
        !has_beginnings && is_sound(&twins.first) && is_sound(&twins.second)
    };
    // What a repair has filled pages with says nothing.
    let says_something = |page: &super::pages::PageFacts| {
        page.times.0 <= page.times.1 || page.refs.0 <= page.refs.1 || page.begins != Side::Whole
    };
    all.retain(|twins| !is_honest(twins) && pages.all[twins.first.clone()].iter().any(says_something));
    all
}

/// The copies among twins, as far as the pages around them show it; and twins of which that is not known.
pub(super) fn copies(pages: &ReplayedPages) -> (Vec<Range<usize>>, Vec<Twins>) {
    let (mut copies, mut open) = (Vec::new(), Vec::new());
    let pace = Pace::of(pages);
    for twins in twins(pages) {
        match twins.lead(pages, pace) {
            1.. => copies.push(twins.second),
            ..=-1 => copies.push(twins.first),
            0 => open.push(twins),
        }
    }
    (copies, open)
}

/// The pages as they are, but that no record continues from these copies to what is beside them, or to them; and how many
/// records do otherwise.
pub(super) fn as_they_are(pages: &ReplayedPages, copies: &[Range<usize>]) -> (PageOrder, usize) {
    let is_edge = |page: usize| copies.iter().any(|copy| copy.start == page || copy.end == page);
    let mut cuts = 0;
    let of_segment = |segment: &super::pages::SegmentPages| {
        let mut range = segment.pages.clone();
        while range.end > range.start && pages.all[range.end - 1].is_zero {
            range.end -= 1;
        }
        let mut puts = Vec::with_capacity(range.len());
        for page in range {
            if is_edge(page) && matches!(pages.all[page].before, Joint::Sound | Joint::Odd) {
                puts.push(Put::Blank);
                cuts += 1;
            }
            puts.push(Put::Page(page));
        }
        puts
    };
    let order = pages.segments.iter().map(of_segment).collect();
    (order, cuts)
}

/// Damaged pages that have been the same as another one, which is intact: they have a fragment in common, at the same place.
pub(super) fn damaged_copies(pages: &ReplayedPages) -> Vec<Range<usize>> {
    let mut intact: HashMap<u64, usize> = HashMap::new();
    for (at, page) in pages.all.iter().enumerate().filter(|(_, page)| !page.is_damaged) {
        intact.extend(page.marks.into_iter().flatten().map(|mark| (mark, at)));
    }
    let is_copy = |page: &super::pages::PageFacts| {
        page.is_damaged && page.marks.into_iter().flatten().any(|mark| intact.contains_key(&mark))
    };
    let damaged = pages.all.iter().enumerate().filter(|(_, page)| is_copy(page));
    damaged.map(|(at, _)| at..at + 1).collect()
}

/// Pages that follow one another.
#[derive(Clone, Debug)]
struct PageBlock {
    pages: Range<usize>,
    segment: usize,
    times: (i64, i64),
    /// The block in which the record at its end continues.
    next: Option<usize>,
    previous: Option<usize>,
}

/// The order in which pages belong, without these copies.
pub(super) fn order(pages: &ReplayedPages, copies: &[Range<usize>]) -> io::Result<PageOrder> {
    let mut blocks = blocks(pages, copies);
    link(pages, &mut blocks)?;
    Ok(put_in_order(pages, &blocks))
}

fn blocks(pages: &ReplayedPages, copies: &[Range<usize>]) -> Vec<PageBlock> {
    let is_copy = |page: usize| copies.iter().any(|copy| copy.contains(&page));
    let slack = slack(pages);
    let pace = Pace::of(pages);
    let strict = is_regular(pages, pace);
    let mut blocks: Vec<PageBlock> = Vec::new();
    // Of the last page with times.
    let mut last_time: Option<i64> = None;
    for (at, page) in pages.all.iter().enumerate() {
        if page.is_zero || is_copy(at) {
            continue;
        }
        let is_timed = page.times.0 <= page.times.1;
        let gap = last_time.filter(|_| is_timed).map(|last| page.times.0.saturating_sub(last));
        let goes_on = blocks.last().is_some_and(|last| {
            last.pages.end == at
                && last.segment == page.segment
                && match page.before {
                    // What continues a page without times, if that is damaged here, may be intact elsewhere.
                    Joint::Unknown => {
                        let last = &pages.all[at - 1];
                        let is_open = last.times.0 > last.times.1 && matches!(last.ends, Side::Part(_));
                        !is_open && pace.misfit(gap) < 2
                    }
                    Joint::Sound => match compression_across(page) {
                        // It has a checksum of its own.
                        Compression::Zstd => true,
                        Compression::Snappy => pace.misfit(gap) < 2,
                        // A page without times fits after every page that ends at the same place.
                        Compression::None if !is_timed && begins_with_an_end(page) => false,
                        Compression::None => pace.misfit(gap) < if strict { 1 } else { 2 },
                    },
                    Joint::Clean => {
                        page.times.0 > page.times.1 || page.times.0.saturating_add(slack) >= last.times.1
                    }
                    Joint::Odd | Joint::Broken => false,
                }
        });
        if is_timed {
            last_time = Some(page.times.1);
        }
        match blocks.last_mut().filter(|_| goes_on) {
            Some(last) => {
                last.pages.end += 1;
                last.times = (last.times.0.min(page.times.0), last.times.1.max(page.times.1));
            }
            None => blocks.push(PageBlock {
                pages: at..at + 1,
                segment: page.segment,
                times: page.times,
                next: None,
                previous: None,
            }),
        }
    }
    blocks
}

/// Whether a page begins with the last part of a record.
fn begins_with_an_end(page: &super::pages::PageFacts) -> bool {
    matches!(page.begins, Side::Part(edge) if edge.head.kind() == FragmentType::Last)
}

/// How the record is packed that continues at the beginning of a page.
fn compression_across(page: &super::pages::PageFacts) -> Compression {
    match page.begins {
        Side::Part(edge) => edge.head.compression(),
        _ => Compression::None,
    }
}

/// Whether times are so regular that a gap says something: otherwise nearly every page would be alone.
fn is_regular(pages: &ReplayedPages, pace: Pace) -> bool {
    const MOST: usize = 64;
    let timed = |page: &super::pages::PageFacts| page.times.0 <= page.times.1;
    let pairs = pages.all.windows(2).filter(|pair| {
        pair[1].before == Joint::Sound
            && pair[0].segment == pair[1].segment
            && timed(&pair[0])
            && timed(&pair[1])
    });
    let misfits =
        pairs.filter(|pair| pace.misfit(Some(pair[1].times.0.saturating_sub(pair[0].times.1))) == 1).count();
    misfits <= MOST
}

/// By how much times go back where pages follow one another as they should, ms.
fn slack(pages: &ReplayedPages) -> i64 {
    let backs = pages
        .all
        .windows(2)
        .filter(|pair| pair[1].before == Joint::Sound && pair[0].segment == pair[1].segment);
    let mut backs: Vec<i64> = backs
        .filter(|pair| pair[0].times.0 <= pair[0].times.1 && pair[1].times.0 <= pair[1].times.1)
        .map(|pair| pair[0].times.1.saturating_sub(pair[1].times.0).max(0))
        .collect();
    if backs.is_empty() {
        return 0;
    }
    let at = (backs.len() - 1) * 9 / 10;
    *backs.select_nth_unstable(at).1
}

/// How times continue from one page to the next, ms.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How far they go back at the most, but for a few.
    back: i64,
    /// How far they rise.
    on: i64,
}

impl Pace {
    fn of(pages: &ReplayedPages) -> Self {
        let timed = |page: &super::pages::PageFacts| page.times.0 <= page.times.1;
        let pairs = pages.all.windows(2).filter(|pair| {
            pair[1].before == Joint::Sound
                && pair[0].segment == pair[1].segment
                && timed(&pair[0])
                && timed(&pair[1])
        });
        let mut gaps: Vec<i64> = pairs.map(|pair| pair[1].times.0.saturating_sub(pair[0].times.1)).collect();
        gaps.sort_unstable();
        // A few are those of the very pages that do not belong there, however few there are in all.
        let most = gaps.len().saturating_sub(1) * 9 / 10;
        let least = if gaps.len() < 5 { 0 } else { gaps.len() - 1 - most };
        let at = |index: usize| gaps.get(index).copied().unwrap_or(0);
        Self { back: at(least).min(0).saturating_neg(), on: at(most).max(0) }
    }

    /// How badly a gap between the times of two pages fits: 0 well, 1 badly, 2 not at all.
    fn misfit(self, gap: Option<i64>) -> u32 {
        const MINUTES: i64 = 5 * 60 * 1000;
        let Some(gap) = gap else { return 0 };
        if gap < -self.back.saturating_mul(2) {
            2
        } else if gap <= self.on.saturating_mul(2) {
            0
        } else if gap <= self.on.saturating_mul(8).saturating_add(MINUTES) {
            1
        } else {
            2
        }
    }
}

/// Finds which blocks continue which.
fn link(pages: &ReplayedPages, blocks: &mut [PageBlock]) -> io::Result<()> {
    let part = |side: Side| match side {
        Side::Part(edge) => Some(edge),
        _ => None,
    };
    let ends = |block: &PageBlock| part(pages.all[block.pages.end - 1].ends);
    let begins = |block: &PageBlock| part(pages.all[block.pages.start].begins);
    let is_middle = |block: &PageBlock| {
        begins(block).is_some_and(|edge| edge.head.kind() == FragmentType::Middle) && block.pages.len() == 1
    };
    let starts: Vec<usize> = (0..blocks.len())
        .filter(|&at| ends(&blocks[at]).is_some_and(|edge| edge.head.kind() == FragmentType::First))
        .collect();
    let middles: Vec<usize> = (0..blocks.len()).filter(|&at| is_middle(&blocks[at])).collect();
    let tails: Vec<usize> = (0..blocks.len())
        .filter(|&at| begins(&blocks[at]).is_some_and(|edge| edge.head.kind() == FragmentType::Last))
        .collect();
    if starts.is_empty() || tails.is_empty() {
        return Ok(());
    }
    let mut bytes: HashMap<usize, Vec<u8>> = HashMap::new();
    for &at in starts.iter().chain(&middles).chain(&tails) {
        let block = &blocks[at];
        for page in [block.pages.start, block.pages.end - 1] {
            if let std::collections::hash_map::Entry::Vacant(entry) = bytes.entry(page) {
                entry.insert(pages.bytes(page)?);
            }
        }
        if bytes.len() > 4096 {
            return Ok(());
        }
    }
    let fragment = |block: &PageBlock, at_end: bool| -> Option<(HeadByte, &[u8])> {
        let (page, edge) =
            if at_end { (block.pages.end - 1, ends(block)?) } else { (block.pages.start, begins(block)?) };
        let range = usize::from(edge.start) + HEADER_SIZE..usize::from(edge.end);
        Some((edge.head, bytes.get(&page)?.get(range)?))
    };
    let pace = Pace::of(pages);
    let seam = |from: &PageBlock, to: &PageBlock| {
        let timed = |page: &usize| {
            let (min, max) = pages.all[*page].times;
            min <= max
        };
        let last = from.pages.clone().rev().find(timed)?;
        let next = to.pages.clone().find(timed)?;
        Some(pages.all[next].times.0.saturating_sub(pages.all[last].times.1))
    };
    let mut search = LinkSearch {
        blocks,
        middles: &middles,
        tails: &tails,
        unpacker: Unpacker::default(),
        trials: 0,
        bytes: 0,
        most: (0, 0),
        is_crowded: starts.len() > 64,
    };
    let mut found: Vec<Link> = Vec::new();
    for &start in &starts {
        let mut path = vec![start];
        let count = starts.len();
        search.most =
            (search.trials + (MOST_TRIALS / count).max(64), search.bytes + (MOST_BYTES / count).max(2 << 20));
        let mut parts: Vec<(HeadByte, &[u8])> = fragment(&blocks[start], true).into_iter().collect();
        let mut of_start: Vec<(u32, usize, Vec<usize>)> = Vec::new();
        search.extend(&fragment, &mut path, &mut parts, &mut of_start);
        let is_compressed = parts.first().is_some_and(|part| part.0.compression() != Compression::None);
        for (odd, away, path) in of_start {
            let gap = seam(&blocks[path[0]], &blocks[path[path.len() - 1]]);
            let misfit = pace.misfit(gap);
            if misfit < 2 || is_compressed {
                found.push(Link { odd: odd + misfit, gap: gap.map_or(0, i64::unsigned_abs), away, path });
            }
        }
    }
    for link in choose(found, blocks.len()) {
        for pair in link.path.windows(2) {
            blocks[pair[0]].next = Some(pair[1]);
            blocks[pair[1]].previous = Some(pair[0]);
        }
    }
    Ok(())
}

/// A way in which a record may continue from block to block.
#[derive(Clone, Debug)]
struct Link {
    /// How odd that would be.
    odd: u32,
    /// Between the times on both sides, ms.
    gap: u64,
    /// How often it leaves the order of blocks.
    away: usize,
    path: Vec<usize>,
}

/// The best links that do not exclude each other. Where one that is chosen keeps another record from being complete, and has
/// another way that is no odder, it gives way.
fn choose(mut found: Vec<Link>, blocks: usize) -> Vec<Link> {
    found.sort_by_key(|link| (link.odd, link.away > 0, link.gap, link.away));
    // Which link leads on from a block, and which leads to it.
    let mut taken: Vec<[Option<usize>; 2]> = vec![[None; 2]; blocks];
    let in_the_way = |taken: &[[Option<usize>; 2]], link: &Link| -> Vec<usize> {
        let pairs = link.path.windows(2);
        let mut all: Vec<usize> =
            pairs.flat_map(|pair| [taken[pair[0]][1], taken[pair[1]][0]]).flatten().collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let set = |taken: &mut [[Option<usize>; 2]], link: &Link, to: Option<usize>| {
        for pair in link.path.windows(2) {
            taken[pair[0]][1] = to;
            taken[pair[1]][0] = to;
        }
    };
    for (at, link) in found.iter().enumerate() {
        if in_the_way(&taken, link).is_empty() {
            set(&mut taken, link, Some(at));
        }
    }
    for (at, link) in found.iter().enumerate() {
        let &[other] = in_the_way(&taken, link).as_slice() else { continue };
        let held = &found[other];
        // It has a link already.
        if held.path[0] == link.path[0] || link.odd > held.odd || taken[link.path[0]][1].is_some() {
            continue;
        }
        set(&mut taken, held, None);
        set(&mut taken, link, Some(at));
        let fits = |(_, instead): &(usize, &Link)| {
            instead.path[0] == held.path[0]
                && instead.odd <= held.odd
                && in_the_way(&taken, instead).is_empty()
        };
        if let Some((way, instead)) = found.iter().enumerate().find(fits) {
            set(&mut taken, instead, Some(way));
        } else {
            set(&mut taken, link, None);
            set(&mut taken, held, Some(other));
        }
    }
    let mut chosen: Vec<usize> = taken.iter().filter_map(|[_, next]| *next).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|at| found[at].clone()).collect()
}

struct LinkSearch<'a> {
    blocks: &'a [PageBlock],
    middles: &'a [usize],
    tails: &'a [usize],
    unpacker: Unpacker,
    trials: usize,
    bytes: usize,
    /// Trials and bytes that are left to the record at hand.
    most: (usize, usize),
    /// There are so many that not all ways can be tried.
    is_crowded: bool,
}

impl LinkSearch<'_> {
    /// Whether a way is sure. All ways to end the record that `parts` begin: how odd each is, and by how much it leaves the order of blocks.
    fn extend<'b>(
        &mut self,
        fragment: &impl Fn(&PageBlock, bool) -> Option<(HeadByte, &'b [u8])>,
        path: &mut Vec<usize>,
        parts: &mut Vec<(HeadByte, &'b [u8])>,
        found: &mut Vec<(u32, usize, Vec<usize>)>,
    ) -> bool {
        let here = path[path.len() - 1];
        // What is near is tried first.
        let by_distance = |of: &[usize]| {
            let mut of = of.to_vec();
            of.sort_by_key(|&at| (at != here + 1, at.abs_diff(here)));
            of
        };
        for tail in by_distance(self.tails) {
            if self.trials >= self.most.0 || self.bytes >= self.most.1 {
                return false;
            }
            // No block continues itself.
            if path.contains(&tail) {
                continue;
            }
            let Some(last) = fragment(&self.blocks[tail], false) else { continue };
            self.trials += 1;
            self.bytes += parts.iter().map(|(_, data)| data.len()).sum::<usize>();
            parts.push(last);
            let odd = verify(parts, &mut self.unpacker);
            parts.pop();
            if let Some(odd) = odd.filter(|&odd| odd < UNBELIEVABLE) {
                let mut complete = path.clone();
                complete.push(tail);
                let away = complete.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
                found.push((odd, away, complete));
                let is_proved = parts[0].0.compression() != Compression::None || self.is_crowded && away == 0
                        // Pages in its midst hardly fit by chance.
                        || parts.len() > 1;
                if odd == 0 && is_proved {
                    return true;
                }
            }
        }
        for middle in by_distance(self.middles) {
            if self.trials >= self.most.0
                || self.bytes >= self.most.1
                || path.contains(&middle)
                || path.len() > 12
            {
                continue;
            }
            let Some(part) = fragment(&self.blocks[middle], false) else { continue };
            if part.0.compression() != parts[0].0.compression() {
                continue;
            }
            path.push(middle);
            parts.push(part);
            let is_proved = self.extend(fragment, path, parts, found);
            path.pop();
            parts.pop();
            if is_proved {
                return true;
            }
        }
        false
    }
}

/// Blocks that belong together.
#[derive(Clone, Debug)]
struct Chain {
    blocks: Vec<usize>,
    /// The segment in which most of its pages are, and where in it.
    segment: usize,
    place: usize,
    pages: usize,
    times: (i64, i64),
}

fn chains(blocks: &[PageBlock]) -> Vec<Chain> {
    let mut chains = Vec::new();
    let mut is_seen = vec![false; blocks.len()];
    let heads = (0..blocks.len()).filter(|&at| blocks[at].previous.is_none());
    for head in heads {
        let mut of = Vec::new();
        let mut at = Some(head);
        while let Some(block) = at.filter(|&block| !is_seen[block]) {
            is_seen[block] = true;
            of.push(block);
            at = blocks[block].next;
        }
        chains.extend(chain(blocks, of));
    }
    // Those that go round in a circle.
    chains.extend((0..blocks.len()).filter(|&at| !is_seen[at]).filter_map(|at| chain(blocks, vec![at])));
    chains
}

fn chain(blocks: &[PageBlock], of: Vec<usize>) -> Option<Chain> {
    let mut weights: BTreeMap<usize, usize> = BTreeMap::new();
    for &block in &of {
        *weights.entry(blocks[block].segment).or_default() += blocks[block].pages.len();
    }
    let segment = weights.iter().max_by_key(|&(segment, pages)| (*pages, std::cmp::Reverse(*segment)))?.0;
    let there = of.iter().filter(|&&block| blocks[block].segment == *segment);
    let heaviest = there.max_by_key(|&&block| blocks[block].pages.len())?;
    let times = of.iter().map(|&block| blocks[block].times);
    Some(Chain {
        segment: *segment,
        place: blocks[*heaviest].pages.start,
        pages: of.iter().map(|&block| blocks[block].pages.len()).sum(),
        times: times.fold((i64::MAX, i64::MIN), |all, of| (all.0.min(of.0), all.1.max(of.1))),
        blocks: of,
    })
}

fn put_in_order(pages: &ReplayedPages, blocks: &[PageBlock]) -> PageOrder {
    let mut chains = chains(blocks);
    chains.sort_by_key(|chain| (chain.segment, chain.place));
    let slack = slack(pages);
    let stays = in_time(&chains, slack);
    let mut kept: Vec<Chain> = Vec::new();
    let mut moved: Vec<Chain> = Vec::new();
    let mut weights = vec![0_usize; pages.segments.len()];
    for (chain, stays) in chains.into_iter().zip(stays) {
        if stays {
            weights[chain.segment] += chain.pages;
            kept.push(chain);
        } else {
            moved.push(chain);
        }
    }
    moved.sort_by_key(|chain| chain.times);
    for mut chain in moved {
        let later = |other: &Chain| other.times.0 <= other.times.1 && other.times.0 > chain.times.0;
        let after = kept.iter().position(later).unwrap_or(kept.len());
        // Behind what has no times, but for such as begins a segment.
        let from = after.checked_sub(1).map_or(0, |at| kept[at].segment);
        let to = kept.get(after).map_or(pages.segments.len() - 1, |next| next.segment);
        let room = |&at: &usize| {
            let had = pages.segments[at].pages.len();
            had.saturating_sub(weights[at])
        };
        let best = (from..=to).max_by_key(|at| (room(at), std::cmp::Reverse(*at))).unwrap_or(from);
        weights[best] += chain.pages;
        chain.segment = best;
        kept.insert(after, chain);
    }
    let mut order: PageOrder = vec![Vec::new(); pages.segments.len()];
    let mut last: Option<usize> = None;
    for chain in &kept {
        let of_segment = &mut order[chain.segment];
        if of_segment.is_empty() {
            last = None;
        }
        for (at, &block) in chain.blocks.iter().enumerate() {
            let range = blocks[block].pages.clone();
            if at == 0 && needs_blank(pages, last, range.start) {
                of_segment.push(Put::Blank);
            }
            last = Some(range.end - 1);
            of_segment.extend(range.map(Put::Page));
        }
    }
    for of_segment in &mut order {
        // Nothing is before them.
        let blanks = of_segment.iter().take_while(|put| **put == Put::Blank).count();
        let is_headless =
            |put: &Put| matches!(put, Put::Page(page) if pages.all[*page].begins != Side::Whole);
        if !of_segment.get(blanks).is_some_and(is_headless) {
            of_segment.drain(..blanks);
        }
    }
    order
}

/// Whether something must be between two pages, so that no record is put together of parts of both.
fn needs_blank(pages: &ReplayedPages, last: Option<usize>, next: usize) -> bool {
    let ends = last.map_or(Side::Whole, |last| pages.all[last].ends);
    let begins = pages.all[next].begins;
    let follows =
        last.is_some_and(|last| last + 1 == next && pages.all[last].segment == pages.all[next].segment);
    !follows && (ends != Side::Whole || begins != Side::Whole)
}

/// Which chains are in the order of time: as many pages as can be. Those that have no times always are.
fn in_time(chains: &[Chain], slack: i64) -> Vec<bool> {
    let mut stays = vec![true; chains.len()];
    let timed: Vec<usize> =
        (0..chains.len()).filter(|&at| chains[at].times.0 <= chains[at].times.1).collect();
    if timed.len() > MOST_CHAINS {
        return stays;
    }
    let goes_back = |a: &Chain, b: &Chain| {
        b.times.0.saturating_add(slack) < a.times.0 && b.times.1.saturating_add(slack) < a.times.1
            || b.times.1.saturating_add(slack) < a.times.0
    };
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(timed.len());
    for (i, &at) in timed.iter().enumerate() {
        let before = (0..i).filter(|&j| !goes_back(&chains[timed[j]], &chains[at]));
        let before = before.max_by_key(|&j| best[j].0);
        let weight = before.map_or(0, |j| best[j].0) + chains[at].pages;
        best.push((weight, before));
    }
    let mut at = (0..timed.len()).max_by_key(|&i| best[i].0);
    for &chain in &timed {
        stays[chain] = false;
    }
    while let Some(i) = at {
        stays[timed[i]] = true;
        at = best[i].1;
    }
    stays
}
