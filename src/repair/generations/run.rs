//! A checkpoint and the WAL beside it: which runs have written them, and what becomes of these.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use super::definitions::{Definitions, are_mixed, newest};
use super::fault::{CheckpointFault, restart_time};
use super::restarted::{Generations, Numbering};
use crate::change::plan::{Defect, LaterRun};
use crate::repair::no_step::NoStep;
use crate::repair::refs::RefBounds;
use crate::repair::segment::SegmentRules;
use crate::repair::{Refusal, chunks, sequence};
use crate::scan::code::Code;
use crate::scan::report::{Finding, Report, Severity};
use crate::tsdb::{Listing, LogDirectory, Target};
use crate::wal::PAGE;
use crate::wal::segments::segment_name;

/// A finding, and what is done about it.
pub(super) struct NumberingFound {
    code: Code,
    defect: Defect,
    numbering: Numbering,
}

/// A checkpoint, and the WAL beside it.
pub(super) struct CheckpointAndWal<'a> {
    listing: &'a Listing,
    checkpoint: &'a LogDirectory,
    /// Of the checkpoint.
    number: i64,
    wal: &'a LogDirectory,
    /// Where Prometheus stops reading the checkpoint.
    stop: Option<CheckpointFault>,
    /// What the checkpoint has.
    before: Definitions,
    /// What each segment of the WAL has.
    now: Vec<Definitions>,
}

impl<'a> CheckpointAndWal<'a> {
    pub(super) fn read(
        listing: &'a Listing,
        checkpoint: &'a LogDirectory,
        number: i64,
        wal: &'a LogDirectory,
        stop: Option<CheckpointFault>,
        rules: SegmentRules<'_>,
    ) -> io::Result<Self> {
        let before = Definitions::of(&checkpoint.segments, rules, Definitions::with_refs)?;
        let mut now = Vec::new();
        for segment in &wal.segments {
            // Of the newest generation it is enough to know what it defines.
            let is_older = stop.as_ref().is_some_and(|stop| segment.index <= stop.segment.max(number));
            let new = if is_older { Definitions::with_refs } else { Definitions::default };
            now.push(Definitions::of(std::slice::from_ref(segment), rules, new)?);
        }
        Ok(Self { listing, checkpoint, number, wal, stop, before, now })
    }

    /// How many segments have numbers up to this one.
    fn up_to(&self, number: i64) -> usize {
        self.wal.segments.iter().take_while(|segment| segment.index <= number).count()
    }

    /// The place of the first segment of the newest generation, where that has been found about numbers.
    pub(super) fn newest(&self, found: Option<&Finding>) -> usize {
        // A start with a damaged checkpoint deletes the segments after that number: one generation is left.
        match &self.stop {
            // What the checkpoint was made of may be there still.
            Some(stop) if found.is_none() => self.up_to(stop.segment.max(self.number)),
            Some(stop) => self.up_to(stop.segment),
            None => newest(&self.now),
        }
    }

    /// What is found about numbers comes to.
    pub(super) fn numbered(&self, finding: &Finding) -> Result<NumberingFound, Refusal> {
        if let Some(reason) = cannot_be_numbered(self.wal) {
            return Err(reason);
        }
        let reason = Refusal::NumbersAndContents;
        let numbering = self.numbering(finding).ok_or(reason)?;
        Ok(NumberingFound { code: finding.code, defect: Defect::Words(finding.message()), numbering })
    }

    /// Segments after the checkpoint that Prometheus has started without it: what shows them is that refs that are seen in it, or in
    /// the segments before them, are defined again, or that the one before has been cut, or that there are head chunks of it.
    pub(super) fn restarted_after(&self, newest: usize, chunks: usize) -> Option<NumberingFound> {
        let before = &self.now[self.up_to(self.number).min(newest)..newest];
        let older = || std::iter::once(&self.before).chain(before).filter_map(|one| one.refs.as_ref());
        let defined = self.now[newest..].iter().flat_map(|one| one.labels.keys());
        let again = defined.filter(|series_ref| older().any(|refs| refs.contains(*series_ref))).count();
        let last = self.wal.segments.last();
        let last = last.filter(|_| again > 0 || chunks > 0 || self.is_cut_to_nothing())?;
        let sign = if again == 0 && chunks > 0 {
            LaterRun::HeadChunks(chunks as u64)
        } else {
            LaterRun::ReissuedRefs(again as u64)
        };
        let defect = Defect::RunWithoutCheckpoint { checkpoint: self.checkpoint.relative.clone(), sign };
        let next = format!("{}/{}", self.wal.relative, segment_name(last.index.checked_add(1)?));
        Some(NumberingFound { code: Code::RestartedGeneration, defect, numbering: Numbering::Keep { next } })
    }

    /// How many head chunks with refs that a start may have handed out again lie as a whole between the segments that every
    /// start leaves and those of the newest generation, or after the former where the newest has no samples. A run whose
    /// segments are gone has left these: all samples are logged first. Damage in the WAL could be the reason as well.
    pub(super) fn chunks_of_a_run_that_is_gone(
        &self,
        target: &Target,
        report: &Report,
        newest: usize,
    ) -> io::Result<usize> {
        let Some(stop) = &self.stop else { return Ok(0) };
        let (older, own) = self.now.split_at(newest);
        let Some(before) = older.iter().filter_map(|one| one.max_time).max() else { return Ok(0) };
        let after = own.iter().filter_map(|one| one.min_time).min();
        let mut damage = report.of_severity(Severity::Damage);
        if damage.any(|finding| finding.log.as_deref() == Some(&self.wal.relative)) {
            return Ok(0);
        }
        chunks::count(target, |chunk| {
            !chunk.out_of_order
                && chunk.series_ref > stop.read
                && chunk.min_time > before
                && after.is_none_or(|after| chunk.max_time < after)
        })
    }

    /// Whether the segment with the number of the checkpoint's damaged one is what Prometheus's repair makes of it.
    fn is_cut_to_nothing(&self) -> bool {
        let Some(stop) = &self.stop else { return false };
        let segments = self.wal.segments.iter().zip(&self.now);
        let mut made = segments.filter(|(segment, _)| segment.index == stop.segment);
        made.any(|(segment, one)| {
            one.highest.is_none() && segment.path.metadata().is_ok_and(|metadata| metadata.len() == PAGE)
        })
    }

    /// What is done about it; or why it is not repaired.
    pub(super) fn generations(
        mut self,
        NumberingFound { code, defect, numbering }: NumberingFound,
        newest: usize,
        report: &Report,
    ) -> Result<Generations, NoStep> {
        let Self { checkpoint, wal, .. } = self;
        let all = std::iter::once(&self.before).chain(&self.now);
        let highest = all.filter_map(|one| one.highest).max();
        // They are replayed already.
        let stays = matches!(numbering, Numbering::Keep { .. });
        let replayed = if stays { self.up_to(self.number) } else { 0 };
        let brought_back = match &numbering {
            Numbering::Renumber { .. } | Numbering::RenameCheckpoint { .. } => {
                wal.segments.iter().map(|segment| wal.relative_of(segment)).collect()
            }
            Numbering::Extend { .. } | Numbering::Keep { .. } => BTreeSet::new(),
        };
        let mut generations = Generations {
            code,
            defect,
            numbers: Defect::NumbersCovered { checkpoint: checkpoint.relative.clone(), number: self.number },
            checkpoint: checkpoint.relative.clone(),
            wal: wal.relative.clone(),
            numbering,
            defined: HashSet::new(),
            common: None,
            read: None,
            dropped: BTreeMap::new(),
            brought_back,
            own_wbl: Vec::new(),
            refs: RefBounds {
                defined: None,
                used: highest.max(report.refs.defined).max(report.refs.unknown),
            },
            times: (self.before.max_time, None),
        };
        if generations.are_several() {
            let own = &self.now[newest..];
            if let Some(reason) = are_mixed(&wal.segments[newest..], own) {
                return Err(reason.into());
            }
            generations.defined = own.iter().flat_map(|one| one.labels.keys().copied()).collect();
            generations.common = self.common(&generations.defined, newest);
            generations.times.1 = own.iter().filter_map(|one| one.min_time).min();
            generations.read = self.stop.as_ref().map(|stop| stop.read);
            let restarted = restart_time(checkpoint, &wal.segments, self.stop.as_ref(), &self.now)?;
            generations.note_ambiguous(self.listing, checkpoint, restarted)?;
            for segment in &wal.segments[replayed..newest] {
                generations.keep_common(wal.relative_of(segment));
            }
        }
        let stays = |series_ref: &&u64| generations.common.is_none_or(|common| **series_ref <= common);
        let kept = self.before.labels.keys().filter(stays).max().copied();
        let now = if generations.are_several() { self.now.split_off(newest) } else { self.now };
        generations.refs.defined = now.iter().flat_map(|one| one.labels.keys().copied()).max().max(kept);
        Ok(generations)
    }

    /// The highest ref that means the same everywhere, where the newest generation has handed out these.
    fn common(&self, defined: &HashSet<u64>, newest: usize) -> Option<u64> {
        let common = defined.iter().min().map(|first| first.saturating_sub(1));
        let used = self.now[newest..].iter().filter_map(|one| one.highest).max();
        // Records of its first series may be lost; or a snapshot has brought back those of a run before.
        let read = self.stop.as_ref().map(|stop| stop.read).filter(|read| used > Some(*read));
        common.into_iter().chain(read).min()
    }

    /// How the numbers come to go together, if they can.
    fn numbering(&self, finding: &Finding) -> Option<Numbering> {
        let Self { listing, checkpoint, number, wal, .. } = *self;
        let (Some(first), Some(last)) = (wal.segments.first(), wal.segments.last()) else {
            let next = number.checked_add(1)?;
            return Some(Numbering::Extend { missing: next..=next });
        };
        let of_wal = |index: i64| format!("{}/{}", wal.relative, segment_name(index));
        if finding.code == Code::CheckpointAhead {
            let both = self.now.iter().flat_map(|one| &one.labels);
            let both =
                both.filter_map(|(series_ref, labels)| Some((self.before.labels.get(series_ref)?, labels)));
            let (same, other): (Vec<_>, Vec<_>) = both.partition(|(was, is)| was == is);
            if !same.is_empty() && other.is_empty() {
                let missing = last.index.checked_add(1)?..=number.checked_add(1)?;
                let many = missing.end() - missing.start() >= sequence::MOST;
                return (!many).then_some(Numbering::Extend { missing });
            }
            if other.is_empty() && first.index > 0 {
                let to = format!("{}/checkpoint.{}", wal.relative, segment_name(first.index - 1));
                // Prometheus would read another one that has a higher number.
                let others = listing.logs.iter().filter(|log| log.relative != checkpoint.relative);
                if others.filter_map(LogDirectory::checkpoint_number).any(|other| other >= first.index - 1) {
                    return None;
                }
                return Some(Numbering::RenameCheckpoint { to, next: of_wal(last.index.checked_add(1)?) });
            }
        }
        let new_number = number.max(last.index);
        let count = i64::try_from(wal.segments.len()).ok()?;
        let next = new_number.checked_add(1).and_then(|from| from.checked_add(count))?;
        let renames = wal.segments.iter().zip(new_number + 1..);
        let renames = renames.map(|(segment, index)| (wal.relative_of(segment), of_wal(index))).collect();
        let directory = checkpoint.relative.rsplit_once('/').map_or("", |(directory, _)| directory);
        let checkpoint =
            (new_number > number).then(|| format!("{directory}/checkpoint.{}", segment_name(new_number)));
        Some(Numbering::Renumber { renames, checkpoint, next: of_wal(next) })
    }
}

fn cannot_be_numbered(wal: &LogDirectory) -> Option<Refusal> {
    let same = wal.segments.windows(2).any(|pair| pair[0].index == pair[1].index);
    (same || wal.segments.iter().any(|segment| segment.index < 0)).then_some(Refusal::NumberClaimed)
}
