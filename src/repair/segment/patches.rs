//! The smallest change that repairs a segment.

use std::io;
use std::ops::Range;

use super::ranges::{length_of, merged, pages};
use super::salvaged::{SalvagedSegment, bytes_of, needs_repair};
use super::stored::read_exact;
use crate::change::plan::{Content, Method, Patch};
use crate::repair::partial::Substitute;
use crate::scan::salvage::AgreedCorrection;
use crate::wal::layout::{FragmentType, HEADER_SIZE, Header, PAGE_SIZE, page_end};
use crate::wal::{ReadAt, crc};

/// How a segment is repaired.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::repair) enum SegmentChange {
    /// There is nothing to be done.
    Nothing,
    /// Bytes become others.
    Patch { method: Method, patches: Vec<Patch> },
    /// It is rewritten.
    Rewrite { records: u64 },
}

impl SalvagedSegment {
    /// What has to be done so that nothing is wrong any more.
    pub(in crate::repair) fn change<S: ReadAt + ?Sized>(&self, source: &S) -> io::Result<SegmentChange> {
        let holes = self.holes();
        let mut patches: Vec<Patch> = self.corrections(source)?;
        for (range, instead) in &self.instead {
            let Substitute::Part(part) = instead else {
                return Ok(SegmentChange::Rewrite { records: self.kept_records() });
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
                return Ok(SegmentChange::Rewrite { records: self.kept_records() });
            }
            patches.push(Patch { offset: hole.start, replaces: length, with });
        }
        patches.sort_by_key(|patch| patch.offset);
        let method = self.method(source, &patches)?;
        Ok(if patches.is_empty() { SegmentChange::Nothing } else { SegmentChange::Patch { method, patches } })
    }

    /// What is between the records, page by page, where something is wrong with it.
    fn holes(&self) -> Vec<Range<u64>> {
        let damaged = self.problems.iter().filter(|problem| needs_repair(problem)).flat_map(bytes_of);
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
        let corrected = self.problems.iter().filter_map(|problem| problem.correction.as_ref());
        corrected
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
        let after = self.kept.partition_point(|kept| kept.end <= first.offset);
        let next_kept = self.kept.get(after).map_or(u64::MAX, |kept| kept.start);
        for place in self.stops(patches) {
            // A record of which a later part is damaged: nothing that is kept is between.
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
