//! The pages of all that is replayed: how each begins and ends, when it was written, and how it continues in the next.

use std::fs::File;
use std::hash::BuildHasher as _;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::io::open_if_file;
use crate::record::{self, Record as Decoded, Summary};
use crate::scan::salvage::{Contents, Problem, Visitor};
use crate::scan::settled::Settlements;
use crate::wal::layout::HeadByte;
use crate::wal::page::{Piece, is_zero, piece};
use crate::wal::segments::SegmentFile;
use crate::wal::source::read_full;
use crate::wal::{Corrections, FragmentType, PAGE, PAGE_SIZE, Record};

use super::chain;

/// Bytes of a fragment, at the least, of which it is said that none but a copy has the same.
const MARKED: usize = 64;

/// One segment, in the order of a replay.
#[derive(Debug)]
pub(super) struct SegmentPages {
    /// Its path, from the directory that was scanned.
    pub(super) relative: String,
    /// Its path.
    pub(super) path: PathBuf,
    /// Which log of the listing.
    pub(super) log: usize,
    pub(super) length: u64,
    /// Its pages in [`ReplayedPages::all`].
    pub(super) pages: Range<usize>,
}

/// A fragment at an edge of a page, within the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) head: HeadByte,
    pub(super) start: u16,
    pub(super) end: u16,
}

/// How a page ends or begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// With a complete record.
    Whole,
    /// With a part of one that continues in the page on that side.
    Part(Edge),
    /// With zeros, as the last page of a segment.
    Padded,
    /// With bytes that are damaged.
    Damaged,
}

/// What is known of the place where a page follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joint {
    /// A record goes across, and all of it is right.
    Sound,
    /// A record goes across that decodes, and its entries step oddly there.
    Odd,
    /// None does.
    Clean,
    /// Damage there hides it.
    Unknown,
    /// A record does not continue as it should.
    Broken,
}

#[derive(Clone, Debug)]
pub(super) struct PageFacts {
    pub(super) segment: usize,
    pub(super) number: u64,
    /// Of all its bytes.
    pub(super) hash: u64,
    pub(super) is_zero: bool,
    /// Some of its bytes are damaged.
    pub(super) is_damaged: bool,
    /// Of its first and its last intact fragment that is not short: where it is, and its header with the checksum.
    pub(super) marks: [Option<u64>; 2],
    /// Records begin in it.
    pub(super) has_beginnings: bool,
    pub(super) begins: Side,
    pub(super) ends: Side,
    /// Of the samples in records that are wholly in it, ms; the other way round if there are none.
    pub(super) times: (i64, i64),
    /// Of the series that records define which begin in it.
    pub(super) refs: (u64, u64),
    /// With the page before it in its segment, or the segment's beginning.
    pub(super) before: Joint,
}

#[derive(Debug, Default)]
pub(super) struct ReplayedPages {
    pub(super) segments: Vec<SegmentPages>,
    pub(super) all: Vec<PageFacts>,
    /// Bytes that all records unpack to.
    pub(super) unpacked: u64,
}

impl ReplayedPages {
    pub(super) fn add(
        &mut self,
        (relative, log): (String, usize),
        file: &SegmentFile,
        settled: &Settlements,
    ) -> io::Result<()> {
        let Some((source, length)) = open_if_file(&file.path)? else { return Ok(()) };
        let first = self.all.len();
        let at = self.segments.len();
        let mut page = vec![0; PAGE_SIZE];
        for number in 0..length.div_ceil(PAGE) {
            let size = read_page(&source, number, &mut page)?;
            self.all.push(look(&page[..size], at, number));
        }
        let pages = first..self.all.len();
        let new = || PageRecords { pages: vec![OfPage::default(); pages.len()], unpacked: 0 };
        let records = settled.segment(&source, length, Corrections::Sure).read(new);
        self.unpacked += records.unpacked;
        for (page, of) in self.all[pages.clone()].iter_mut().zip(records.pages) {
            page.times = of.times;
            page.refs = of.refs;
            page.has_beginnings = of.begins;
            if let Some(is_odd) = of.crossed {
                page.before = if is_odd { Joint::Odd } else { Joint::Sound };
            }
        }
        for at in pages.clone() {
            if matches!(self.all[at].before, Joint::Sound | Joint::Odd) {
                continue;
            }
            let previous = (at > pages.start).then(|| &self.all[at - 1]);
            self.all[at].before = joint(previous, &self.all[at]);
        }
        self.segments.push(SegmentPages { relative, path: file.path.clone(), log, length, pages });
        Ok(())
    }

    /// What is known of the end of that page.
    pub(super) fn joint_after(&self, page: usize) -> Joint {
        let segment = &self.segments[self.all[page].segment];
        if page + 1 < segment.pages.end {
            return self.all[page + 1].before;
        }
        match self.all[page].ends {
            Side::Whole | Side::Padded => Joint::Clean,
            Side::Damaged => Joint::Unknown,
            // The last one may end with a record that was being written.
            Side::Part(_) if self.all[page].segment + 1 == self.segments.len() => Joint::Unknown,
            Side::Part(_) => Joint::Broken,
        }
    }

    /// The bytes of a page.
    pub(super) fn bytes(&self, page: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PAGE_SIZE];
        let file = crate::io::open(&self.segments[self.all[page].segment].path)?;
        let size = read_page(&file, self.all[page].number, &mut bytes)?;
        bytes.truncate(size);
        Ok(bytes)
    }
}

fn read_page(source: &File, number: u64, page: &mut [u8]) -> io::Result<usize> {
    read_full(source, page, number * PAGE)
}

/// How two pages meet of which no record that can be read goes across.
fn joint(previous: Option<&PageFacts>, page: &PageFacts) -> Joint {
    if page.is_zero || previous.is_some_and(|previous| previous.is_zero) {
        return Joint::Broken;
    }
    match (previous.map(|previous| previous.ends), page.begins) {
        (Some(Side::Damaged), _) | (_, Side::Damaged) => Joint::Unknown,
        (None | Some(Side::Whole), Side::Whole | Side::Padded) => Joint::Clean,
        _ => Joint::Broken,
    }
}

fn look(page: &[u8], segment: usize, number: u64) -> PageFacts {
    let (mut begins, mut ends) = (Side::Whole, Side::Whole);
    let mut at = 0;
    let is_zero = is_zero(page);
    let (mut is_damaged, mut marks) = (false, [None; 2]);
    let hash = foldhash::quality::FixedState::default();
    while let Some(piece) = piece(page, at) {
        let is_first = at == 0;
        match piece {
            Piece::Fragment { start, header, .. } => {
                let end = start + header.size();
                if header.size() >= MARKED {
                    let mark = hash.hash_one((start, header.to_bytes()));
                    marks = [marks[0].or(Some(mark)), Some(mark)];
                }
                let edge = || Edge {
                    head: header.head,
                    start: u16::try_from(start).unwrap_or(u16::MAX),
                    end: u16::try_from(end).unwrap_or(u16::MAX),
                };
                let kind = header.head.kind();
                if is_first {
                    begins = if kind.continues() { Side::Part(edge()) } else { Side::Whole };
                }
                let goes_on = matches!(kind, FragmentType::First | FragmentType::Middle);
                ends = if goes_on { Side::Part(edge()) } else { Side::Whole };
                at = end;
            }
            Piece::Padding { start } => {
                if PAGE_SIZE - start >= crate::wal::HEADER_SIZE {
                    ends = if is_first { Side::Whole } else { Side::Padded };
                }
                break;
            }
            Piece::Damage { end, .. } => {
                if is_first {
                    begins = Side::Damaged;
                }
                ends = Side::Damaged;
                is_damaged = true;
                at = end.max(at + 1);
            }
        }
    }
    PageFacts {
        segment,
        number,
        hash: hash.hash_one(page),
        is_zero,
        is_damaged,
        marks,
        has_beginnings: false,
        begins,
        ends,
        times: (i64::MAX, i64::MIN),
        refs: (u64::MAX, u64::MIN),
        before: Joint::Unknown,
    }
}

#[derive(Clone, Debug)]
struct OfPage {
    times: (i64, i64),
    refs: (u64, u64),
    begins: bool,
    /// A record goes across its beginning; whether it steps oddly there.
    crossed: Option<bool>,
}

impl Default for OfPage {
    fn default() -> Self {
        Self { times: (i64::MAX, i64::MIN), refs: (u64::MAX, u64::MIN), begins: false, crossed: None }
    }
}

struct PageRecords {
    pages: Vec<OfPage>,
    unpacked: u64,
}

impl Visitor for PageRecords {
    fn decode(&mut self, record: &[u8]) -> Summary {
        record::summarize(record)
    }

    fn record(&mut self, record: &Record<'_>, contents: &Contents) {
        self.unpacked += record.data.len() as u64;
        let page = |offset: u64| usize::try_from(offset / PAGE).unwrap_or(usize::MAX);
        if let Some(of) = self.pages.get_mut(page(record.offset)) {
            of.begins = true;
            if let (Some(min), Some(max)) = (contents.min_time, contents.max_time)
                && contents.are_samples()
                && !record.is_joined()
            {
                of.times = (of.times.0.min(min), of.times.1.max(max));
            }
            if let Decoded::Series(series) = Decoded::parse(record.data) {
                for entry in series.entries().flatten() {
                    of.refs = (of.refs.0.min(entry.series_ref), of.refs.1.max(entry.series_ref));
                }
            }
        }
        if record.is_joined() {
            // Where one does not fit, any may be wrong.
            let is_odd = chain::odd_joints(record).into_iter().any(|odd| odd > 0);
            for fragment in record.fragments.iter().skip(1) {
                if let Some(of) = self.pages.get_mut(page(fragment.start)) {
                    of.crossed = Some(is_odd);
                }
            }
        }
    }

    fn damage(&mut self, _: Problem) {}
}
