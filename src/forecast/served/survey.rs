//! The segments as the salvage reader sees them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::Version;
use crate::scan::salvage::{Contents, Decisions, Problem, Reading, Salvage, Visitor};
use crate::scan::settled::{SegmentFacts, Settlements};
use crate::tsdb::{Listing, LogDirectory, LogKind};
use crate::wal::around::tells_pages_apart;
use crate::wal::{self, Corrections, IntactPart, ReadAt};

/// A segment as the salvage reader sees it.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) length: u64,
    /// Bits that, flipped back, give whole records: those can be had.
    pub(super) corrections: Vec<(u64, u8)>,
    /// With these bits flipped back.
    pub(super) decisions: Decisions,
    /// Where nothing is wrong with it, as of [`Salvage::around`].
    pub(super) intact: Vec<IntactPart>,
    /// Every reader of that version sees the same records.
    pub(super) is_plain: bool,
    pub(super) min_time: Option<i64>,
    pub(super) max_time: Option<i64>,
}

/// What a reading has to find that no scan has made.
#[derive(Debug, Default)]
struct FirstLook(SegmentFacts);

impl Visitor for FirstLook {
    fn record(&mut self, record: &wal::Record<'_>, contents: &Contents) {
        self.0.look_at(record, contents);
    }

    fn damage(&mut self, damage: Problem) {
        self.0.add_damage(&damage);
    }
}

/// A segment with some bits flipped back.
#[derive(Debug)]
pub(super) struct Corrected<'a> {
    pub(super) file: &'a File,
    pub(super) corrections: &'a [(u64, u8)],
}

impl ReadAt for Corrected<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = ReadAt::read_at(self.file, buffer, offset)?;
        for &(at, mask) in self.corrections {
            let place = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            if let Some(byte) = place.and_then(|at| buffer[..count].get_mut(at)) {
                *byte ^= mask;
            }
        }
        Ok(count)
    }
}

/// By log and segment; `None` for what is no file, or has gone.
pub(super) type Survey = Vec<Vec<Option<Surveyed>>>;

pub(super) fn survey(listing: &Listing, known: &Settlements, version: Version) -> io::Result<Survey> {
    let survey = |path: &PathBuf| -> io::Result<Option<Surveyed>> {
        let Some((file, length)) = open(path)? else { return Ok(None) };
        let (facts, mut decisions) = if let Some(facts) = known.facts(&file, length) {
            (facts.clone(), known.of(&file, length).cloned().unwrap_or_default())
        } else {
            let segment = known.segment(&file, length, Corrections::Sure);
            let (FirstLook(facts), decisions) = segment.read_deciding(FirstLook::default);
            (facts, decisions)
        };
        let SegmentFacts { times, corrections, has_zstd, is_odd } = facts;
        let mut intact = known.intact(&file, length).to_vec();
        if !corrections.is_empty() {
            let may_be_copies = corrections.iter().any(|&(at, _)| tells_pages_apart(at));
            let is_corrected =
                |part: &IntactPart| corrections.iter().any(|(at, _)| (part.from..part.end).contains(at));
            intact.retain(|part| !may_be_copies && !is_corrected(part));
            let corrected = Corrected { file: &file, corrections: &corrections };
            decisions = Salvage::new(&corrected, length, Reading::Prometheus).around(&intact).decide();
        }
        let is_plain =
            decisions.is_empty() && corrections.is_empty() && !is_odd && (!has_zstd || version.reads_zstd());
        let (min_time, max_time) = times.unzip();
        Ok(Some(Surveyed { length, corrections, decisions, intact, is_plain, min_time, max_time }))
    };
    let of_log = |log: &LogDirectory| -> io::Result<Vec<Option<Surveyed>>> {
        if log.kind == LogKind::ChunkSnapshot {
            return Ok(Vec::new());
        }
        log.segments.par_iter().map(|segment| survey(&segment.path)).collect()
    };
    listing.logs.iter().map(of_log).collect()
}

/// The file and its length; `None` if it has gone, or is no file.
pub(super) fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match crate::io::open_if_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened,
    }
}
