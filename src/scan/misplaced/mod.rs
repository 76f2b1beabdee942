//! Pages that are not where they were written: swapped, copied or moved, within a segment or across segments.
//!
//! Nothing covers the order of pages. What is intact in a page that comes too early is replayed too early, and Prometheus
//! then drops every older sample of those series. So where the scan has met a sign of it, all pages that are replayed are
//! looked at once more: how each begins and ends ([`pages`]), which of them continue a record of another ([`chain`]), and
//! when they were written ([`arrange`]). An order other than that on the disk is only proposed if a replay would serve more
//! of it ([`serves`]), or as much without a page that is a copy: what is put together of a copy and its neighbours is not served.

mod arrange;
pub(super) mod chain;
pub(super) mod out_of_step;
mod pages;
mod serves;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, Digest};
use foldhash::HashMap;

use self::arrange::{PageOrder, Put};
use self::pages::ReplayedPages;
use self::serves::{Served, served};
use super::detail::Detail;
use super::findings::of_file;
use super::report::{Cause, Finding, Lost, Severity};
use super::salvage::{Contents, Problem, ProblemKind, Visitor};
use super::segment::SegmentScan;
use super::settled::{FileStamp, Settlements};
use crate::record::each_use;
use crate::scan::code::Code;
use crate::tsdb::Listing;
use crate::tsdb::replay_order::{ReplaySegment, Role};
use crate::wal::arranged::Place;
use crate::wal::{Corrections, Fault, PAGE, Record};

/// Where the pages of segments belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrangement {
    /// For each segment that is to be changed, by its path, what it gets instead.
    pub(crate) segments: BTreeMap<String, Vec<PagePut>>,
    /// Pages that are copies, by path and number.
    pub(crate) copies: BTreeSet<(String, u64)>,
    /// Series are defined once when all pages are where they belong.
    pub(crate) defines_once: bool,
    /// The highest ref that a record of these logs defines then, and the highest that is used in any log.
    pub(crate) refs: (Option<u64>, Option<u64>),
    /// The time of the newest record of these logs then, ms.
    pub(crate) newest: Option<i64>,
    /// The segments that were read for it, by their paths, and what they were then.
    states: Vec<SegmentState>,
}

/// What a segment was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SegmentState {
    path: PathBuf,
    file: FileStamp,
    /// CRC-64/NVME of its bytes.
    checksum: u64,
}

impl SegmentState {
    fn of(path: &Path) -> io::Result<Self> {
        let mut file = crate::io::open(path)?;
        let state = FileStamp::of(&file.metadata()?);
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => digest.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { path: path.to_owned(), file: state, checksum: digest.finalize() })
    }

    /// Whether it has the same bytes still.
    fn is_current(&self) -> bool {
        let is_same = |metadata: &Metadata| FileStamp::of(metadata) == self.file;
        self.path.symlink_metadata().as_ref().is_ok_and(is_same)
            || Self::of(&self.path).is_ok_and(|now| now.checksum == self.checksum)
    }
}

impl Arrangement {
    /// Whether the segments are still what they were. A new order of other pages would be none.
    pub(crate) fn is_current(&self) -> bool {
        self.states.iter().all(SegmentState::is_current)
    }
}

/// A page of a segment as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PagePut {
    /// Its own of that number.
    Own(u64),
    /// That of another segment, by its path and number.
    Of(String, u64),
    /// Nothing, and no record continues across it.
    Blank,
}

/// The segment in which a page belongs, and the page after which.
type Goal = (usize, Option<usize>);

/// Orders that are held against each other, at the most.
const MOST_TRIALS: usize = 12;

/// Of so many bytes and more only a few are.
const MANY: u64 = 4 << 30;

/// Whether anything that a scan has found may come of pages that are not where they were written.
pub(super) fn is_suspected(
    steps: &[ReplaySegment],
    scans: &[Vec<Option<SegmentScan>>],
    of_refs: &[Finding],
) -> bool {
    if of_refs.iter().any(|finding| match finding.code {
        // Without samples in between nothing comes of it.
        Code::RepeatedSeries => finding.severity == Severity::Damage,
        Code::ReissuedRefs | Code::SeriesAfterUse => true,
        _ => false,
    }) {
        return true;
    }
    let replayed = steps.iter().filter(|step| matches!(step.role, Role::Checkpoint | Role::Wal));
    let scans: Vec<&SegmentScan> =
        replayed.filter_map(|step| scans[step.log][step.segment].as_ref()).collect();
    let goes_back = scans
        .iter()
        .filter_map(|scan| scan.tally.times())
        .try_fold(i64::MIN, |last, (_, max)| (max >= last).then_some(max))
        .is_none();
    goes_back
        || scans
            .iter()
            .any(|scan| scan.is_odd || scan.problems.iter().any(|(problem, _)| is_suspicious(problem)))
}

/// Whether pages in the wrong place make such a problem.
fn is_suspicious(problem: &Problem) -> bool {
    match &problem.kind {
        ProblemKind::Framing(fault) => matches!(
            fault,
            Fault::Unfinished
                | Fault::Headless
                | Fault::ZeroedTail
                | Fault::Type(_)
                | Fault::Unpack(_)
                | Fault::DuplicatedPage { .. }
        ),
        ProblemKind::Spliced(_) => true,
        ProblemKind::Decode(_) => {
            problem.glued.is_empty()
                && problem.range.end > problem.range.start - problem.range.start % PAGE + PAGE
        }
        ProblemKind::Flags => false,
    }
}

/// Where pages belong that are not there, and what is to be said of it; none if all do, or nothing is gained.
pub(super) fn find(
    listing: &Listing,
    steps: &[ReplaySegment],
    settled: &Settlements,
) -> io::Result<Option<(Arrangement, Vec<Finding>)>> {
    let mut pages = ReplayedPages::default();
    let mut states = Vec::new();
    for step in steps.iter().filter(|step| matches!(step.role, Role::Checkpoint | Role::Wal)) {
        let log = &listing.logs[step.log];
        let file = &log.segments[step.segment];
        states.push(SegmentState::of(&file.path)?);
        pages.add((log.relative_of(file), step.log), file, settled)?;
    }
    let bytes: u64 = pages.segments.iter().map(|segment| segment.length).sum();
    if pages.unpacked > bytes.saturating_mul(100).saturating_add(1 << 30) {
        // They would be unpacked again and again.
        return Ok(None);
    }
    let most = if bytes > MANY { 4 } else { MOST_TRIALS };
    let (copies, open) = arrange::copies(&pages);
    let mut search = OrderSearch { pages: &pages, settled, before: None, best: None, trials: 0 };
    let mut without = copies;
    let damaged = arrange::damaged_copies(&pages);
    if !damaged.is_empty() {
        let more = [without.as_slice(), damaged.as_slice()].concat();
        without = search.try_without(vec![more])?.unwrap_or(without);
    }
    if open.is_empty() {
        search.try_without(vec![without.clone()])?;
    }
    for twins in open {
        if search.trials + 2 > most {
            break;
        }
        let more = |copy: Range<usize>| [without.as_slice(), &[copy]].concat();
        let ways = vec![more(twins.second.clone()), more(twins.first.clone())];
        without = search.try_without(ways)?.unwrap_or(without);
    }
    let Some((order, served, _)) = search.best else { return Ok(None) };
    let mut arrangement = Arrangement { states, ..arrangement(&pages, &order, served) };
    for step in steps.iter().filter(|step| step.role == Role::Wbl) {
        let file = &listing.logs[step.log].segments[step.segment];
        if let Some((source, length)) = crate::io::open_if_file(&file.path)? {
            let UsedRefs(used) = settled.segment(&source, length, Corrections::Sure).read(UsedRefs::default);
            arrangement.refs.1 = arrangement.refs.1.max(used);
        }
    }
    let findings = findings(listing, &pages, &order);
    Ok(Some((arrangement, findings)))
}

/// The highest ref of all that is read.
#[derive(Default)]
struct UsedRefs(Option<u64>);

impl Visitor for UsedRefs {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        each_use(record.data, |now| self.0 = self.0.max(Some(now.series_ref)));
    }

    fn damage(&mut self, _: Problem) {}
}

struct OrderSearch<'a> {
    pages: &'a ReplayedPages,
    settled: &'a Settlements,
    /// What is served of the pages as they are.
    before: Option<Served>,
    best: Option<(PageOrder, Served, usize)>,
    trials: usize,
}

impl OrderSearch<'_> {
    /// Tries the best orders that there are without these copies or those. Without which ones most is served, if that is more
    /// than of any order before.
    fn try_without(&mut self, ways: Vec<Vec<Range<usize>>>) -> io::Result<Option<Vec<Range<usize>>>> {
        let mut taken = None;
        for copies in ways {
            let order = arrange::order(self.pages, &copies)?;
            if (0..order.len()).all(|at| is_as_it_was(self.pages, at, &order[at])) {
                continue;
            }
            self.trials += 1;
            let now = self.served(&order)?;
            let moves = displaced(self.pages, &order).len();
            let least = match &self.best {
                Some((_, best, moves)) if taken.is_some() => (*best, *moves),
                _ => self.least(&copies)?,
            };
            // More samples; or as many, with series that are defined once, and before they are used.
            let worth = |served: &Served, moves: usize| {
                let Served { samples, redefined, unknown, damaged, .. } = *served;
                (samples, Reverse(redefined), Reverse(unknown), Reverse(damaged), Reverse(moves))
            };
            if worth(&now, moves) > worth(&least.0, least.1) {
                self.best = Some((order, now, moves));
                taken = Some(copies);
            }
        }
        Ok(taken)
    }

    /// What an order without these copies has to be better than, and how many pages that moves.
    fn least(&mut self, copies: &[Range<usize>]) -> io::Result<(Served, usize)> {
        let is_damaged = |copy: &&Range<usize>| self.pages.all[copy.start].is_damaged;
        let sure: Vec<_> = copies.iter().filter(|copy| !is_damaged(copy)).cloned().collect();
        let (honest, cuts) = arrange::as_they_are(self.pages, &sure);
        let (least, moves) = match &self.best {
            // What is put together of a copy and its neighbours are no samples.
            _ if cuts > 0 => (self.served(&honest)?, 0),
            Some((_, best, moves)) => (*best, *moves),
            None => (self.before()?, 0),
        };
        // A copy is dropped if nothing is lost by that.
        Ok(if copies.is_empty() {
            (least, moves)
        } else {
            (Served { damaged: u64::MAX, ..least }, usize::MAX)
        })
    }

    /// What is served of the pages as they are.
    fn before(&mut self) -> io::Result<Served> {
        Ok(match self.before {
            Some(before) => before,
            None => *self.before.insert(served(self.pages, &HashMap::default(), self.settled)?),
        })
    }

    fn served(&self, order: &PageOrder) -> io::Result<Served> {
        served(self.pages, &places(self.pages, order)?, self.settled)
    }
}

/// What the segments that change get.
fn places(pages: &ReplayedPages, order: &PageOrder) -> io::Result<HashMap<usize, Vec<Place>>> {
    let mut all = HashMap::default();
    for (at, puts) in order.iter().enumerate() {
        if is_as_it_was(pages, at, puts) {
            continue;
        }
        let mut places = Vec::with_capacity(puts.len());
        for &put in puts {
            places.push(match put {
                Put::Blank => Place::Blank,
                Put::Page(page) if pages.all[page].segment == at => Place::Own(pages.all[page].number),
                Put::Page(page) => Place::Other(Arc::from(pages.bytes(page)?)),
            });
        }
        all.insert(at, places);
    }
    Ok(all)
}

fn is_as_it_was(pages: &ReplayedPages, at: usize, puts: &[Put]) -> bool {
    let mut range = pages.segments[at].pages.clone();
    // Zeros at the end say nothing.
    while range.end > range.start && pages.all[range.end - 1].is_zero {
        range.end -= 1;
    }
    let is_same = |(put, own): (&Put, usize)| matches!(put, Put::Page(page) if pages.all[*page].hash == pages.all[own].hash);
    puts.len() == range.len() && puts.iter().zip(range).all(is_same)
}

fn arrangement(pages: &ReplayedPages, order: &PageOrder, served: Served) -> Arrangement {
    let mut segments = BTreeMap::new();
    for (at, puts) in order.iter().enumerate().filter(|(at, puts)| !is_as_it_was(pages, *at, puts)) {
        let put = |put: &Put| match *put {
            Put::Blank => PagePut::Blank,
            Put::Page(page) => {
                let of = &pages.all[page];
                if of.segment == at {
                    PagePut::Own(of.number)
                } else {
                    PagePut::Of(pages.segments[of.segment].relative.clone(), of.number)
                }
            }
        };
        segments.insert(pages.segments[at].relative.clone(), puts.iter().map(put).collect());
    }
    let left_out = displaced(pages, order).into_iter().filter(|(_, to)| to.is_none());
    let copies = left_out.map(|(page, _)| {
        let of = &pages.all[page];
        (pages.segments[of.segment].relative.clone(), of.number)
    });
    Arrangement {
        segments,
        copies: copies.collect(),
        defines_once: served.redefined == 0,
        refs: (served.defined, served.used),
        newest: served.newest,
        states: Vec::new(),
    }
}

/// Pages that are elsewhere in an order: where it has them, and after which page; none for those that are copies.
fn displaced(pages: &ReplayedPages, order: &PageOrder) -> BTreeMap<usize, Option<Goal>> {
    let mut displaced = BTreeMap::new();
    let mut put: HashSet<usize> = HashSet::new();
    for (segment, puts) in order.iter().enumerate() {
        let own: Vec<usize> = puts
            .iter()
            .filter_map(|put| match put {
                Put::Page(page) if pages.all[*page].segment == segment => Some(*page),
                _ => None,
            })
            .collect();
        let stay: HashSet<usize> = rising(&own).into_iter().collect();
        let mut last = None;
        for one in puts {
            let Put::Page(page) = *one else { continue };
            put.insert(page);
            if !stay.contains(&page) {
                displaced.insert(page, Some((segment, last)));
            }
            last = Some(page);
        }
    }
    for (at, page) in pages.all.iter().enumerate() {
        if !page.is_zero && !put.contains(&at) {
            displaced.insert(at, None);
        }
    }
    displaced
}

/// The longest rising part of numbers.
fn rising(numbers: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let place = ends.partition_point(|&end| numbers[end] < *number);
        before.push(place.checked_sub(1).map(|place| ends[place]));
        if place == ends.len() {
            ends.push(at);
        } else {
            ends[place] = at;
        }
    }
    let mut all = Vec::new();
    let mut at = ends.last().copied();
    while let Some(one) = at {
        all.push(numbers[one]);
        at = before[one];
    }
    all.reverse();
    all
}

fn findings(listing: &Listing, pages: &ReplayedPages, order: &PageOrder) -> Vec<Finding> {
    let displaced = displaced(pages, order);
    let mut runs: Vec<(Range<usize>, Option<Goal>)> = Vec::new();
    for (page, to) in displaced {
        let goes_on = |(run, first): &&mut (Range<usize>, Option<Goal>)| {
            let follows = match (first, to) {
                (Some(first), Some(to)) => first.0 == to.0 && to.1 == Some(page - 1),
                (None, None) => true,
                _ => false,
            };
            run.end == page && pages.all[page - 1].segment == pages.all[page].segment && follows
        };
        match runs.last_mut().filter(goes_on) {
            Some((run, _)) => run.end += 1,
            None => runs.push((page..page + 1, to)),
        }
    }
    runs.into_iter().map(|(run, to)| finding(listing, pages, &run, to)).collect()
}

fn finding(listing: &Listing, pages: &ReplayedPages, run: &Range<usize>, to: Option<Goal>) -> Finding {
    let first = &pages.all[run.start];
    let segment = &pages.segments[first.segment];
    let number_of_pages = run.len() as u64;
    let detail = if let Some((other, before)) = to {
        let (file, after) = match before {
            Some(page) => {
                let of = &pages.all[page];
                (pages.segments[of.segment].relative.clone(), Some(of.number * PAGE))
            }
            None => (pages.segments[other].relative.clone(), None),
        };
        Detail::PagesMisplaced { pages: number_of_pages, file, after }
    } else {
        let original =
            pages.all.iter().enumerate().find(|(at, page)| page.hash == first.hash && !run.contains(at));
        let original =
            original.map(|(_, page)| (pages.segments[page.segment].relative.clone(), page.number * PAGE));
        Detail::PagesCopied { pages: number_of_pages, original }
    };
    let log = &listing.logs[segment.log];
    let file = log.segments.iter().find(|file| log.relative_of(file) == segment.relative);
    let offset = first.number * PAGE;
    let end = (offset + run.len() as u64 * PAGE).min(segment.length);
    let fallback = &log.segments[0];
    Finding {
        offset: Some(offset),
        end: Some(end),
        lost: if to.is_some() { Lost { records: Some(0), entries: Some(0) } } else { Lost::default() },
        ..of_file(
            log,
            file.unwrap_or(fallback),
            Code::MisplacedPages,
            Severity::Damage,
            detail,
            Some(Cause::Files),
        )
    }
}
