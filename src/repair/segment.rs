//! One segment as a repair sees it: what stands, and the holes between.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::fence::Refs;
use super::partial::{self, Instead, partial};
use crate::change::plan::{Change, Content, Loss, Method, PageRun, Patch};
use crate::change::{Contents as NewBytes, write_series};
use crate::forecast::Version;
use crate::forecast::replay::Reader;
use crate::record::{RecordType, Selected, select};
use crate::scan::context::Surroundings;
use crate::scan::deletions::DeletionsLost;
use crate::scan::report::Report;
use crate::scan::salvage::{AgreedCorrection, Contents, Problem, ProblemKind, Reading, Salvage, Visitor};
use crate::scan::settled::Settlements;
use crate::wal::arranged::{Arranged, Place};
use crate::wal::compress::{UnpackError, Unpacker};
use crate::wal::layout::{FragmentType, HEADER_SIZE, HeadByte, Header, PAGE_SIZE, page_end, page_start};
use crate::wal::writer::SegmentWriter;
use crate::wal::{Compression, Corrections, Fault, ReadAt, Record, crc};

/// For whom a segment is mended, and what is believed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Mending<'a> {
    /// The version of the agent that is to read it, if one is.
    pub(super) agent: Option<Version>,
    /// Which flipped bits are put right.
    pub(super) corrections: Corrections,
    /// Only entries of refs up to this one stay.
    pub(super) refs_up_to: Option<u64>,
    /// What a scan has settled.
    pub(super) settled: &'a Settlements,
    /// What stands in the place of each page, if not its own do in their order.
    pub(super) places: Option<&'a [Place]>,
}

/// The bytes of a segment as they are to be read.
#[derive(Debug)]
pub(super) enum Bytes<'a> {
    /// As they stand.
    File(&'a File),
    /// With the pages where they belong.
    Arranged(Arranged<'a, &'a File>),
}

impl ReadAt for Bytes<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => ReadAt::read_at(*file, buffer, offset),
            Self::Arranged(arranged) => arranged.read_at(buffer, offset),
        }
    }
}

impl Bytes<'_> {
    /// Whether a page stands there that is not written.
    fn is_blank(&self, offset: u64) -> bool {
        matches!(self, Self::Arranged(arranged) if arranged.is_blank(offset))
    }
}

impl<'a> Mending<'a> {
    /// The first `length` bytes of `source` as they are to be read, and how many these are.
    pub(super) fn bytes(self, source: &'a File, length: u64) -> (Bytes<'a>, u64) {
        match self.places {
            None => (Bytes::File(source), length),
            Some(places) => {
                let arranged = Arranged::new(source, length, places);
                let length = arranged.length();
                (Bytes::Arranged(arranged), length)
            }
        }
    }

    /// Reads the first `length` bytes of `source`.
    fn salvage<V: Visitor>(self, source: &File, length: u64, new: impl Fn() -> V) -> V {
        match self.places {
            None => self.settled.segment(source, length, self.corrections).read(new),
            Some(places) => {
                let arranged = Arranged::new(source, length, places);
                let length = arranged.length();
                Salvage::new(&arranged, length, Reading::Prometheus).correcting(self.corrections).read(new)
            }
        }
    }

    /// How the bytes of a segment are made that is written anew, but for its [`places`].
    fn of_change(change: &Change, settled: &'a Settlements) -> Self {
        match change {
            Change::Rewrite { agent, corrections, refs_up_to, .. } => Self {
                agent: *agent,
                corrections: *corrections,
                refs_up_to: *refs_up_to,
                settled,
                places: None,
            },
            _ => Self { settled, ..Self::default() },
        }
    }

    /// As a server is to read it, with what `report` has settled.
    pub(super) fn of(report: &'a Report) -> Self {
        Self { settled: &report.settled, ..Self::default() }
    }

    /// What stays of a record.
    pub(super) fn select(self, record: &[u8]) -> Selected {
        self.refs_up_to.map_or(Selected::All, |most| select(record, |series_ref| series_ref <= most))
    }
}

/// What stands in a segment, and what is wrong with the rest.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Where records stand that are kept, those side by side as one.
    kept: Vec<Range<u64>>,
    /// Records that are kept.
    records: u64,
    /// In the order of offsets.
    pub(super) problems: Vec<Problem>,
    /// Where those begin that are one flipped bit, which is flipped back.
    corrected: HashSet<u64>,
    /// Bytes of the segment.
    length: u64,
    /// The version of the agent that is to read it, if one is.
    agent: Option<Version>,
    /// Records that do not decode, where they stand, and what takes their place, in order.
    instead: Vec<(Range<u64>, Instead)>,
    /// Records that the agent refuses: their fragments, what it has against them, and their entries.
    refused: Vec<(Vec<Range<u64>>, String, u64)>,
}

impl Visitor for Standing {
    fn record(&mut self, record: &Record<'_>, contents: &Contents) {
        if let Some(what) = self.agent.and_then(|version| Reader::Agent.refuses(record.data, version)) {
            self.refused.push((record.fragments.to_vec(), what, contents.entries));
            return;
        }
        self.records += 1;
        self.keep(record.fragments.iter().cloned());
    }

    fn damage(&mut self, damage: Problem) {
        self.problems.push(damage);
    }
}

impl Standing {
    /// Reads the first `length` bytes of `source`. For an agent, what that refuses is damage, too.
    pub(super) fn of(source: &File, length: u64, mending: Mending<'_>) -> Self {
        let (bytes, all) = mending.bytes(source, length);
        let new = || Self { length: all, agent: mending.agent, ..Self::default() };
        let mut standing = mending.salvage(source, length, new);
        let source = &bytes;
        standing.refuse_corrected(source);
        let corrected: Vec<_> =
            standing.problems.iter().filter(|problem| problem.correction.is_some()).collect();
        let ranges: Vec<_> = corrected.iter().flat_map(|problem| bytes_of(problem)).collect();
        standing.records += corrected.len() as u64;
        standing.corrected = corrected.iter().map(|problem| problem.range.start).collect();
        standing.keep(ranges.into_iter());
        standing.kept.sort_by_key(|range| range.start);
        standing.instead = standing.instead(source);
        standing
            .keep(standing.instead.iter().map(|(range, _)| range.clone()).collect::<Vec<_>>().into_iter());
        standing.kept.sort_by_key(|range| range.start);
        standing
    }

    /// The records of which something is kept that do not decode to their end. Those that are glued together of several are
    /// taken apart, unless what is kept around them speaks against it. Of the others the first entries are kept, where nothing
    /// else is wrong in their page and what they say fits what is kept around them.
    fn instead<S: ReadAt + ?Sized>(&self, source: &S) -> Vec<(Range<u64>, Instead)> {
        let undecodable = self
            .problems
            .iter()
            .filter(|problem| matches!(problem.kind, ProblemKind::Decode(_)) && problem.correction.is_none());
        let is_kept = |offset| {
            let behind = self.kept.partition_point(|range| range.end <= offset);
            self.kept.get(behind).is_some_and(|range| range.contains(&offset))
        };
        let touched = self.problems_by_page();
        let mut surroundings = None;
        let mut found = Vec::new();
        for problem in undecodable {
            if !problem.glued.is_empty() {
                let surroundings =
                    surroundings.get_or_insert_with(|| Surroundings::of(source, self.length, is_kept));
                let parts = self.taken_apart(source, problem);
                if let Some(parts) = parts.filter(|parts| !surroundings.contradict(parts)) {
                    found.push((problem.range.clone(), Instead::Parts(parts)));
                    continue;
                }
            }
            let page = page_start(problem.range.start);
            if problem.range.end > page_end(page) || touched.get(&page).is_some_and(|&problems| problems > 1)
            {
                continue;
            }
            let mut fragment = vec![0; length_of(&problem.range)];
            if read_exact(source, &mut fragment, problem.range.start).is_err() {
                continue;
            }
            let Some(part) = partial(&fragment) else { continue };
            let surroundings =
                surroundings.get_or_insert_with(|| Surroundings::of(source, self.length, is_kept));
            if surroundings.support(&part.record, problem.range.start) {
                found.push((problem.range.clone(), Instead::Part(part)));
            }
        }
        found.sort_by_key(|(range, _)| range.start);
        found
    }

    /// The records that are glued together in one; none if the agent that is to read them refuses one.
    fn taken_apart<S: ReadAt + ?Sized>(&self, source: &S, problem: &Problem) -> Option<Vec<Vec<u8>>> {
        let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
        let head = stored_of(source, &problem.range, None, &mut stored).ok()?;
        let record = unpacker.unpack(head.compression(), &stored).ok()?;
        let parts = partial::parts(record, &problem.glued);
        let is_refused =
            |part: &Vec<u8>| self.agent.is_some_and(|version| Reader::Agent.refuses(part, version).is_some());
        (!parts.iter().any(is_refused)).then_some(parts)
    }

    /// How many problems touch a page, by its offset.
    fn problems_by_page(&self) -> HashMap<u64, u64> {
        let mut touched = HashMap::default();
        for problem in &self.problems {
            let at_least_a_byte = |range: Range<u64>| range.start..range.end.max(range.start + 1);
            let on_pages = bytes_of(problem).into_iter().map(at_least_a_byte).flat_map(pages);
            for page in on_pages.map(|range| page_start(range.start)).collect::<BTreeSet<_>>() {
                *touched.entry(page).or_default() += 1;
            }
        }
        touched
    }

    /// Records that are kept, whole or in part.
    pub(super) fn kept_records(&self) -> u64 {
        self.records + self.instead.iter().map(|(_, instead)| instead.records().len() as u64).sum::<u64>()
    }

    /// What takes the place of the record at `offset`, which does not decode to its end; nothing if it goes whole.
    pub(super) fn instead_of(&self, offset: u64) -> Option<&Instead> {
        instead_at(&self.instead, offset)
    }

    fn keep(&mut self, fragments: impl Iterator<Item = Range<u64>>) {
        for fragment in fragments {
            match self.kept.last_mut() {
                Some(last) if last.end == fragment.start => last.end = fragment.end,
                _ => self.kept.push(fragment),
            }
        }
    }

    /// A record that the agent refuses is not worth a correction.
    fn refuse_corrected<S: ReadAt + ?Sized>(&mut self, source: &S) {
        let Some(version) = self.agent else { return };
        for problem in &mut self.problems {
            let Some(mended) = &problem.correction else { continue };
            if let Some(what) = refuses_corrected(source, mended, version) {
                let place = mended.offset..mended.end;
                self.refused.push((vec![place], what, mended.contents.entries));
                problem.correction = None;
            }
        }
    }

    /// Whether the damage at `offset` is a flipped bit that is flipped back.
    pub(super) fn is_corrected(&self, offset: u64) -> bool {
        self.corrected.contains(&offset)
    }

    /// Records that the agent refuses, and what it has against them.
    pub(super) fn refused(&self) -> impl Iterator<Item = (Range<u64>, &str)> {
        let whole = |fragments: &[Range<u64>]| Some(fragments.first()?.start..fragments.last()?.end);
        self.refused.iter().filter_map(move |(fragments, what, _)| Some((whole(fragments)?, what.as_str())))
    }

    /// What is lost with them.
    pub(super) fn lost_to_agent(&self) -> Loss {
        let entries = self.refused.iter().map(|(_, _, entries)| entries).sum();
        Loss::new(Some(self.refused.len() as u64), Some(entries))
    }

    /// Whether bytes are missing that a disk may give another time, or that somebody has just cut off.
    pub(super) fn is_in_flux(&self) -> bool {
        let in_flux = |fault: &Fault| matches!(fault, Fault::Unreadable(_) | Fault::Shrunk { .. });
        self.problems
            .iter()
            .any(|problem| matches!(&problem.kind, ProblemKind::Framing(fault) if in_flux(fault)))
    }

    /// Whether there is a record that is larger than what is read: Prometheus may read it.
    pub(super) fn has_too_large(&self) -> bool {
        let too_large =
            |fault: &Fault| matches!(fault, Fault::Unpack(UnpackError::TooLarge(_)) | Fault::NotRead);
        self.problems
            .iter()
            .any(|problem| matches!(&problem.kind, ProblemKind::Framing(fault) if too_large(fault)))
    }

    /// The refs of the records that are right again once a bit is flipped back, and of those that take the place of others: no
    /// scan has counted these yet.
    pub(super) fn corrected_refs<S: ReadAt + ?Sized>(&self, source: &S) -> io::Result<Refs> {
        let mut refs = Refs::default();
        let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
        for mended in self.problems.iter().filter_map(|problem| problem.correction.as_ref()) {
            let head = stored_of(source, &(mended.offset..mended.end), Some(mended), &mut stored)?;
            // A correction has been unpacked before.
            let Ok(record) = unpacker.unpack(head.compression(), &stored) else { continue };
            refs.learn(record);
        }
        for (_, instead) in &self.instead {
            instead.records().iter().for_each(|record| refs.learn(record));
        }
        Ok(refs)
    }

    /// What has to be done so that nothing is wrong any more.
    pub(super) fn mend<S: ReadAt + ?Sized>(&self, source: &S) -> io::Result<Mend> {
        let holes = self.holes();
        let mut patches: Vec<Patch> = self.corrections(source)?;
        for (range, instead) in &self.instead {
            let Instead::Part(part) = instead else {
                return Ok(Mend::Rewrite { records: self.kept_records() });
            };
            patches.push(Patch {
                offset: range.start,
                replaces: range.end - range.start,
                with: Content::Bytes(part.bytes.clone()),
            });
        }
        let tail = self.kept.iter().map(|range| range.end).max().unwrap_or(0);
        for hole in &holes {
            let length = hole.end - hole.start;
            if hole.start >= tail {
                let end =
                    Patch { offset: hole.start, replaces: self.length - hole.start, with: Content::End };
                patches.push(self.completed(source, hole)?.unwrap_or(end));
                break;
            }
            let with = if hole.end == page_end(hole.start) {
                Content::FillToPageEnd(length)
            } else {
                Content::Fill(length)
            };
            if with.bytes().len() as u64 != length {
                return Ok(Mend::Rewrite { records: self.kept_records() });
            }
            patches.push(Patch { offset: hole.start, replaces: length, with });
        }
        patches.sort_by_key(|patch| patch.offset);
        let method = self.method(source, &patches)?;
        Ok(if patches.is_empty() { Mend::Nothing } else { Mend::Patch { method, patches } })
    }

    /// What is between the records, page by page, where something is wrong with it.
    fn holes(&self) -> Vec<Range<u64>> {
        let damaged = self.problems.iter().filter(|problem| is_to_be_mended(problem)).flat_map(bytes_of);
        let refused = self.refused.iter().flat_map(|(fragments, ..)| fragments.iter().cloned());
        let wrong: Vec<_> = damaged.chain(refused).collect();
        let wrong = merged(wrong);
        let is_wrong = |gap: &Range<u64>| {
            let first = wrong.partition_point(|range| range.end <= gap.start);
            wrong.get(first).is_some_and(|range| range.start < gap.end)
        };
        let ends = self.kept.iter().map(|range| range.end);
        let starts = self.kept.iter().map(|range| range.start).chain([self.length]);
        let gaps = [0].into_iter().chain(ends).zip(starts).filter(|(from, to)| from < to);
        gaps.flat_map(|(from, to)| pages(from..to)).filter(is_wrong).collect()
    }

    fn corrections<S: ReadAt + ?Sized>(&self, source: &S) -> io::Result<Vec<Patch>> {
        let mended = self.problems.iter().filter_map(|problem| problem.correction.as_ref());
        mended
            .map(|AgreedCorrection { at, mask, .. }| {
                let mut byte = [0];
                read_exact(source, &mut byte, *at)?;
                Ok(Patch { offset: *at, replaces: 1, with: Content::Bytes(vec![byte[0] ^ mask]) })
            })
            .collect()
    }

    /// A record whose last bytes are missing, all of which are zeros: Prometheus supplies them (`tsdb/wlog/reader.go`,
    /// `segmentBufReader.Read` in `wlog.go`), so it is whole.
    fn completed<S: ReadAt + ?Sized>(&self, source: &S, hole: &Range<u64>) -> io::Result<Option<Patch>> {
        let is_short = hole.end == self.length && hole.end != page_end(hole.start);
        if !is_short {
            return Ok(None);
        }
        let mut bytes = vec![0; PAGE_SIZE];
        let there = length_of(&(hole.start..hole.end));
        read_exact(source, &mut bytes[..there], hole.start)?;
        let Some(header) = Header::parse(&bytes) else { return Ok(None) };
        let end = hole.start + header.size() as u64;
        let whole = header.head.kind() == FragmentType::Full
            // A header of no data that lacks its zeros is no more than a torn one.
            && header.length > 0
            && end <= page_end(hole.start)
            && end > self.length
            && crc::matches(&bytes[HEADER_SIZE..header.size()], header.crc);
        let zeros =
            Patch { offset: self.length, replaces: 0, with: Content::Zeros(end.saturating_sub(self.length)) };
        Ok(whole.then_some(zeros))
    }

    /// Patches that are written one after the other, the last first, are safe where Prometheus stops at the first hole or
    /// before it anyhow: it never comes to see what is half done.
    fn method<S: ReadAt + ?Sized>(&self, source: &S, patches: &[Patch]) -> io::Result<Method> {
        let takes_several_writes = |patch: &Patch| match &patch.with {
            Content::Fill(_) | Content::FillToPageEnd(_) => true,
            Content::Bytes(bytes) => bytes.len() > 1,
            Content::End | Content::Zeros(_) => false,
        };
        let Some(first) = patches.iter().find(|patch| takes_several_writes(patch)) else {
            return Ok(Method::InPlace);
        };
        let behind = self.kept.partition_point(|kept| kept.end <= first.offset);
        let next_kept = self.kept.get(behind).map_or(u64::MAX, |kept| kept.start);
        for place in self.stops(patches) {
            // A record of which a later part is damaged: nothing that is kept stands between.
            if first.offset < place && next_kept < place {
                break;
            }
            if self.stops_at(source, place)? {
                return Ok(Method::InPlace);
            }
        }
        Ok(Method::Replace)
    }

    /// Where Prometheus may stop: the fragments that patches are about.
    fn stops(&self, patches: &[Patch]) -> Vec<u64> {
        let corrected = self.problems.iter().filter(|problem| problem.correction.is_some());
        let corrected = corrected.map(|problem| problem.range.start);
        let mut stops: Vec<u64> = patches.iter().map(|patch| patch.offset).chain(corrected).collect();
        stops.sort_unstable();
        stops
    }

    /// Whether every reader stops at the fragment at `offset`, whatever it has read before.
    fn stops_at<S: ReadAt + ?Sized>(&self, source: &S, offset: u64) -> io::Result<bool> {
        let mut page = vec![0; length_of(&(offset..page_end(offset).min(self.length)))];
        read_exact(source, &mut page, offset)?;
        let Some(header) = Header::parse(&page) else { return Ok(false) };
        if header.head.kind() == FragmentType::PageTerm {
            return Ok(page.iter().any(|&byte| byte != 0));
        }
        Ok(page.get(HEADER_SIZE..header.size()).is_none_or(|data| !crc::matches(data, header.crc)))
    }
}

/// How a segment is mended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mend {
    /// There is nothing to be done.
    Nothing,
    /// Bytes become others.
    Patch { method: Method, patches: Vec<Patch> },
    /// It is written anew.
    Rewrite { records: u64 },
}

/// What takes the place of the record at `offset`.
fn instead_at(instead: &[(Range<u64>, Instead)], offset: u64) -> Option<&Instead> {
    let at = instead.binary_search_by_key(&offset, |(range, _)| range.start).ok()?;
    Some(&instead[at].1)
}

/// The damaged bytes of a problem, and what is lost with them.
fn bytes_of(problem: &Problem) -> Vec<Range<u64>> {
    std::iter::once(&problem.range).chain(&problem.orphans).cloned().collect()
}

/// Not what every reader passes over.
pub(super) fn is_to_be_mended(problem: &Problem) -> bool {
    match &problem.kind {
        ProblemKind::Framing(Fault::TrailingZeros) => false,
        ProblemKind::Framing(Fault::ZeroedTail) => !problem.orphans.is_empty(),
        _ => problem.correction.is_none(),
    }
}

/// What an agent has against a record that is whole once a bit is flipped back.
fn refuses_corrected<S: ReadAt + ?Sized>(
    source: &S,
    mended: &AgreedCorrection,
    version: Version,
) -> Option<String> {
    let mut stored = Vec::new();
    let head = stored_of(source, &(mended.offset..mended.end), Some(mended), &mut stored).ok()?;
    let mut unpacker = Unpacker::default();
    let record = unpacker.unpack(head.compression(), &stored).ok()?;
    Reader::Agent.refuses(record, version)
}

/// What goes of a segment besides what is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Confused<'a> {
    mending: Mending<'a>,
    /// Records of which something stays.
    pub(super) kept: u64,
    /// Records that go whole.
    records: u64,
    /// Entries that go.
    pub(super) entries: u64,
    /// Whether there are deletions among them.
    deletions: DeletionsLost,
}

impl Take for Confused<'_> {
    fn take(&mut self, record: &[u8]) {
        let selected = self.mending.select(record);
        self.entries += selected.dropped();
        if selected.dropped() > 0 && RecordType::of(record) == Some(RecordType::Tombstones) {
            // What they deleted may be of a series that keeps its ref elsewhere.
            self.deletions = DeletionsLost::Possible;
        }
        let goes = matches!(selected, Selected::Nothing { .. });
        *(if goes { &mut self.records } else { &mut self.kept }) += 1;
    }
}

impl<'a> Confused<'a> {
    /// In the first `length` bytes of `source`.
    pub(super) fn of(source: &File, length: u64, mending: Mending<'a>) -> Self {
        let new = || Self { mending, ..Self::default() };
        if mending.refs_up_to.is_none() { new() } else { take_standing(source, length, mending, new) }
    }

    /// What is lost so.
    pub(super) fn lost(self) -> Loss {
        Loss::new(Some(self.records), Some(self.entries)).with(self.deletions)
    }
}

/// What stands in the place of each page of a segment that is written anew; none if its own do, in their order.
pub(super) fn places(change: &Change) -> Option<Vec<Place>> {
    fn of_run(run: &PageRun) -> Vec<Place> {
        match run {
            // More than a file has are not read.
            PageRun::Own { first, count } => {
                (*first..first.saturating_add((*count).min(1 << 32))).map(Place::Own).collect()
            }
            PageRun::Bytes(bytes) => vec![Place::Other(Arc::from(bytes.as_slice()))],
            PageRun::Nothing(count) => (0..(*count).min(1 << 32)).map(|_| Place::Blank).collect(),
        }
    }
    match change {
        Change::Rewrite { pages, .. } if !pages.is_empty() => Some(pages.iter().flat_map(of_run).collect()),
        _ => None,
    }
}

/// Makes the bytes of segments that are written anew, with what a scan has settled of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rewritten<'a> {
    pub(super) settled: &'a Settlements,
}

impl NewBytes for Rewritten<'_> {
    fn write(&self, change: &Change, source: &File, length: u64, out: &mut dyn io::Write) -> io::Result<()> {
        rewrite(source, length, change, self.settled, out)
    }
}

/// Writes a segment anew, as `change` wants it: the records that stand in the first `length` bytes of `source`, as they are
/// stored; those of which some entries go, not compressed.
fn rewrite<W: io::Write>(
    source: &File,
    length: u64,
    change: &Change,
    settled: &Settlements,
    out: W,
) -> io::Result<()> {
    let mut writer = SegmentWriter::new(out);
    let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
    let mut series = change.begins_with();
    let places = places(change);
    let mending = Mending { places: places.as_deref(), ..Mending::of_change(change, settled) };
    let (bytes, _) = mending.bytes(source, length);
    for (range, stands) in places_of_records(source, length, mending) {
        if bytes.is_blank(range.start) {
            continue;
        }
        let source = &bytes;
        let compression = match stands {
            Stands::Whole => stored_of(source, &range, None, &mut stored)?.compression(),
            Stands::Corrected(mended) => stored_of(source, &range, Some(&mended), &mut stored)?.compression(),
            Stands::Instead(record) => {
                stored = record;
                Compression::None
            }
        };
        // What has been read before unpacks, and what is of a type that nobody knows is not looked into.
        let record = unpacker.unpack(compression, &stored);
        if !series.is_empty() && !record.as_ref().is_ok_and(|record| is_min_valid_time(record)) {
            write_series(std::mem::take(&mut series), &mut writer)?;
            if !change.path().contains("checkpoint.") {
                // Their first samples stood elsewhere: without this mark those that follow would pass for these (`scan/heads.rs`).
                writer.record(Compression::None, &[RecordType::Samples.byte()])?;
            }
        }
        match record.map_or(Selected::All, |record| mending.select(record)) {
            Selected::All => writer.record(compression, &stored)?,
            Selected::Part { record, .. } => writer.record(Compression::None, &record)?,
            Selected::Nothing { .. } => {}
        }
    }
    write_series(series, &mut writer)?;
    writer.finish()?.flush()
}

/// Prometheus looks for this one in the first record of a checkpoint alone (`tsdb/wlog/checkpoint.go`, `ReadMinValidTime`).
fn is_min_valid_time(record: &[u8]) -> bool {
    RecordType::of(record) == Some(RecordType::MinValidTime)
}

/// How a record stands that can be had.
enum Stands {
    Whole,
    /// Once a bit is flipped back.
    Corrected(AgreedCorrection),
    /// This one takes its place, or is one of those that do.
    Instead(Vec<u8>),
}

/// Where the records stand that can be had, in order; for an agent, those that it takes.
fn places_of_records(source: &File, length: u64, mending: Mending<'_>) -> Vec<(Range<u64>, Stands)> {
    #[derive(Default)]
    struct Records {
        places: Vec<(Range<u64>, Stands)>,
        agent: Option<Version>,
        undecodable: bool,
    }
    impl Visitor for Records {
        fn record(&mut self, record: &Record<'_>, _: &Contents) {
            if self.agent.and_then(|version| Reader::Agent.refuses(record.data, version)).is_none() {
                self.places.push((record.offset..record.end, Stands::Whole));
            }
        }
        fn damage(&mut self, damage: Problem) {
            match damage.correction {
                Some(mended) => self.places.push((mended.offset..mended.end, Stands::Corrected(mended))),
                None => self.undecodable |= matches!(damage.kind, ProblemKind::Decode(_)),
            }
        }
    }
    let agent = mending.agent;
    let (bytes, _) = mending.bytes(source, length);
    let is_refused = |mended: &AgreedCorrection| {
        agent.is_some_and(|version| refuses_corrected(&bytes, mended, version).is_some())
    };
    let new = || Records { agent, ..Records::default() };
    let mut records = mending.salvage(source, length, new);
    records.places.retain(|(_, stands)| !matches!(stands, Stands::Corrected(mended) if is_refused(mended)));
    if records.undecodable {
        for (range, instead) in Standing::of(source, length, mending).instead {
            let places =
                instead.records().iter().map(|record| (range.clone(), Stands::Instead(record.clone())));
            records.places.extend(places);
        }
    }
    records.places.sort_by_key(|(range, _)| range.start);
    records.places
}

/// Opens a segment, and says how long it is.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = crate::io::open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Takes records, one after the other.
pub(super) trait Take {
    /// The next one.
    fn take(&mut self, record: &[u8]);
}

/// Has a taker, which `new` makes, take the records that stand in the first `length` bytes of `source` once it is repaired,
/// in order.
pub(super) fn take_standing<T: Take>(
    source: &File,
    length: u64,
    mending: Mending<'_>,
    new: impl Fn() -> T,
) -> T {
    take_standing_before(source, length, length, mending, new)
}

/// As [`take_standing`], those that end at `end` or before.
pub(super) fn take_standing_before<T: Take>(
    source: &File,
    length: u64,
    end: u64,
    mending: Mending<'_>,
    new: impl Fn() -> T,
) -> T {
    struct Taking<'a, T> {
        taker: T,
        end: u64,
        source: &'a Bytes<'a>,
        agent: Option<Version>,
        instead: &'a [(Range<u64>, Instead)],
        undecodable: bool,
    }
    impl<T: Take> Taking<'_, T> {
        fn take(&mut self, record: &[u8]) {
            if self.agent.and_then(|version| Reader::Agent.refuses(record, version)).is_none() {
                self.taker.take(record);
            }
        }
    }
    impl<T: Take> Visitor for Taking<'_, T> {
        fn record(&mut self, record: &Record<'_>, _: &Contents) {
            if record.end <= self.end {
                self.take(record.data);
            }
        }
        fn damage(&mut self, damage: Problem) {
            if damage.correction.as_ref().map_or(damage.range.end, |mended| mended.end) > self.end {
                return;
            }
            let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
            if let Some(mended) = &damage.correction {
                let range = mended.offset..mended.end;
                let head = stored_of(self.source, &range, Some(mended), &mut stored);
                if let Some(record) =
                    head.ok().and_then(|head| unpacker.unpack(head.compression(), &stored).ok())
                {
                    self.take(record);
                }
            } else if matches!(damage.kind, ProblemKind::Decode(_)) {
                self.undecodable = true;
                if let Some(instead) = instead_at(self.instead, damage.range.start) {
                    instead.records().iter().for_each(|record| self.take(record));
                }
            }
        }
    }
    let (bytes, all) = mending.bytes(source, length);
    let end = if mending.places.is_some() { all } else { end };
    let taken_with = |instead: &[(Range<u64>, Instead)]| {
        let new = || Taking {
            taker: new(),
            end,
            source: &bytes,
            agent: mending.agent,
            instead,
            undecodable: false,
        };
        let taking = mending.salvage(source, length, new);
        (taking.taker, taking.undecodable)
    };
    let (taker, undecodable) = taken_with(&[]);
    let instead = if undecodable { Standing::of(source, length, mending).instead } else { Vec::new() };
    if instead.is_empty() { taker } else { taken_with(&instead).0 }
}

/// The data of the fragments that stand in `range`, corrected; and the last one's first byte.
fn stored_of<S: ReadAt + ?Sized>(
    source: &S,
    range: &Range<u64>,
    mended: Option<&AgreedCorrection>,
    stored: &mut Vec<u8>,
) -> io::Result<HeadByte> {
    let mut bytes = vec![0; length_of(range)];
    read_exact(source, &mut bytes, range.start)?;
    if let Some(mended) = mended {
        bytes[length_of(&(range.start..mended.at))] ^= mended.mask;
    }
    Ok(join(&bytes, range.start, stored))
}

/// The data of the fragments that stand in `bytes`, which begin at `offset` of a segment; and the last one's first byte.
fn join(bytes: &[u8], offset: u64, stored: &mut Vec<u8>) -> HeadByte {
    stored.clear();
    let (mut at, mut head) = (0, HeadByte(0));
    while let Some(header) = bytes.get(at..).and_then(Header::parse) {
        if header.head.kind() == FragmentType::PageTerm {
            let here = offset + at as u64;
            at += length_of(&(here..page_end(here)));
            continue;
        }
        let end = at + header.size();
        stored.extend(bytes.get(at + HEADER_SIZE..end).unwrap_or_default());
        (at, head) = (end, header.head);
        // Too few bytes for a header at the end of a page.
        let here = offset + at as u64;
        let room = page_end(here) - here;
        if room < HEADER_SIZE as u64 {
            at += length_of(&(here..page_end(here)));
        }
    }
    head
}

/// Ranges in order, those that touch as one.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A range, cut at page ends.
fn pages(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at;
        at = page_end(page_start(start)).min(range.end);
        (start < range.end).then_some(start..at)
    })
}

fn length_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)
}

/// Fills `buffer` from `offset` on.
pub(super) fn read_exact<S: ReadAt + ?Sized>(source: &S, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
