//! Labels of series whose records are lost.
//!
//! Samples name their series by a ref. Where the series record is lost, Prometheus drops them ("Unknown series references"),
//! and head chunks with them. But the same record may be elsewhere ([`sources`]), since logs are copied into
//! checkpoints, and old ones are not removed at once. What is found there, and can be trusted, is written in front of all
//! that is replayed.
//!
//! **What can be trusted.** Refs mean the same as long as Prometheus continues a log; where it restarts, the same refs
//! mean other series. So a source counts only if it defines a ref as a record does that is replayed, and none otherwise; and
//! wherever what is replayed has a sample of the ref and time of its last one of a series, that has the same value. If no
//! series record is left to compare it with, such a sample proves it. It is believed up to the highest ref that is so proved,
//! since it may be of before Prometheus restarted. Or it is the segments on which what is replayed continues without a gap:
//! these are believed in all.
//!
//! **What can be written.** At a series record whose labels are known already Prometheus throws away what it has replayed
//! for that series before, unless `chunks_head` has it (`tsdb/head_wal.go`, `resetSeriesWithMMappedChunks`), and takes the new
//! ref for another name of the first (`multiRef`). In front of everything a record wipes nothing. But a later record may
//! have the same labels:
//!
//! - under the same ref: then that one is not written. What stood before would be wiped at the later one all the same.
//! - under a higher ref: a series that was given up and came back. What the lower ref has is wiped there all the same; and
//!   up to 3.2 the next checkpoint would drop the record of the higher ref, which is but another name then
//!   (`tsdb/wlog/checkpoint.go`, `Checkpoint`: only records of refs in the head are kept). Not written.
//! - under a lower ref: both would be one series, and samples of the lower ref would be skipped that are not newer than
//!   the head chunks of the higher (`memSeries.mmMaxTime`). Written only if nothing is kept of the lower: all of its samples
//!   are from before the time from which on Prometheus takes samples (`minValidTime`), in blocks.

mod layout;
mod sources;
mod survivors;
mod uses;

use std::collections::BTreeMap;
use std::io;

use foldhash::{HashMap, HashSet};

use self::layout::Layout;
use self::sources::{Pool, Source, Table, Wanted};
use self::survivors::{Orphan, Survivors};
use super::generations::Generations;
use super::no_step::NoStep;
use super::record;
use super::segment::{RecordSink, SegmentRules};
use super::segments::rewritten;
use super::{Scanned, fence};
use crate::change::plan::{
    Change, Defect, FoundLabels, LabelsFound, LabelsRefused, Loss, Orphans, Plan, Refusal, RepairedFinding,
    Resolution, Series,
};
use crate::change::segment_of_series;
use crate::forecast::min_valid_time;
use crate::record::Record;
use crate::scan::code::Code;
use crate::scan::report::Finding;
use crate::tsdb::{LogDirectory, LogKind, list_blocks};

/// What came of the search.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovered {
    /// The highest ref that a record defines again.
    pub(super) highest: Option<u64>,
}

/// Adds to `plan`, which is done but for the numbers of generations, that series get their labels back whose records are lost;
/// and counts what stays without. A step that is added is after the first `before` ones. `None` if nothing was counted:
/// nothing is to be repaired, or there are too many series.
pub(super) fn recover(
    scanned: &Scanned<'_>,
    generations: Option<&Generations>,
    before: usize,
    plan: &mut Plan,
) -> io::Result<Option<Recovered>> {
    let numbers = generations.map(|generations| generations.last(false)).unwrap_or_default();
    if plan.steps.is_empty() && numbers.is_empty() && record::without_labels(scanned.report).is_none() {
        return Ok(None);
    }
    let layout = Layout::after(scanned.listing, plan.steps.iter().chain(&numbers));
    let (survivors, min_valid_time) = survivors(scanned, &layout)?;
    if survivors.too_many {
        return Ok(None);
    }
    let is_put_right = scanned.report.misplaced.as_ref().is_some_and(|pages| pages.defines_once);
    let mixed = generations.is_none()
        && !is_put_right
        && scanned.report.findings.iter().any(Finding::is_of_reissued_refs);
    // What the newest generation has handed out is another series wherever else it is.
    let most =
        generations.and_then(|generations| generations.common).unwrap_or(u64::MAX).min(fence::MOST - 1);
    let is_wanted =
        |series_ref: u64, orphan: &Orphan| series_ref <= most && (orphan.samples > 0 || orphan.chunks > 0);
    let wanted = survivors.orphans.iter().filter(|&(&series_ref, orphan)| is_wanted(series_ref, orphan));
    let wanted: HashSet<u64> = wanted.map(|(&series_ref, _)| series_ref).collect();
    let mut written = HashSet::default();
    if !wanted.is_empty() && !mixed && !survivors.reissued {
        let mut search = Search {
            scanned: *scanned,
            layout: &layout,
            survivors: &survivors,
            min_valid_time,
            labels: FoundLabels::default(),
        };
        let series = search.series(&Wanted { refs: &wanted, most })?;
        let mut labels = search.labels;
        let refs: HashSet<u64> = series.iter().map(|series| series.series_ref).collect();
        match write(scanned, &layout, before, series, &labels.found, plan) {
            Ok(()) => written = refs,
            Err(no_step) => {
                let reason = no_step.refusal()?;
                let refuse =
                    |LabelsFound { path, series }| LabelsRefused { path, series, refusal: reason.clone() };
                labels.refused.extend(labels.found.drain(..).map(refuse));
            }
        }
        plan.labels = labels;
    }
    plan.orphans = without_labels(&survivors, &written);
    Ok(Some(Recovered { highest: written.into_iter().max() }))
}

/// Counts what stays without labels once `plan` is done, and looks for none.
pub(super) fn count(scanned: &Scanned<'_>, plan: &mut Plan) -> io::Result<()> {
    if plan.steps.is_empty() {
        return Ok(());
    }
    let layout = Layout::after(scanned.listing, plan.steps.iter());
    let (survivors, _) = survivors(scanned, &layout)?;
    plan.orphans = if survivors.too_many { None } else { without_labels(&survivors, &HashSet::default()) };
    Ok(())
}

/// What is replayed, and the time from which on samples are taken, ms.
fn survivors(scanned: &Scanned<'_>, layout: &Layout) -> io::Result<(Survivors, i64)> {
    let Scanned { target, listing, options, .. } = *scanned;
    let min_valid_time = if options.assumed.agent {
        i64::MIN
    } else {
        min_valid_time(listing, &list_blocks(target.path())?, options.assumed.version)
    };
    Ok((Survivors::read(target, layout, scanned.rules(), min_valid_time)?, min_valid_time))
}

/// What stays without labels.
fn without_labels(survivors: &Survivors, written: &HashSet<u64>) -> Option<Orphans> {
    let mut all =
        Orphans { of: survivors.entries, samples: Some(0), head_chunks: Some(0), ..Orphans::default() };
    for (_, orphan) in survivors.orphans.iter().filter(|(series_ref, _)| !written.contains(series_ref)) {
        all.series += 1;
        all.entries += orphan.samples + orphan.others;
        all.samples = all.samples.map(|samples| samples + orphan.samples);
        all.head_chunks = all.head_chunks.map(|chunks| chunks + orphan.chunks);
        if let Some((from, to)) = orphan.times {
            all.from = Some(all.from.map_or(from, |known| known.min(from)));
            all.to = all.to.max(Some(to));
        }
    }
    (all.series > 0).then_some(all)
}

/// A source of labels that is believed.
struct Believed<'a> {
    source: &'a Source,
    table: &'a Table,
    /// The highest ref for which it is.
    up_to: u64,
}

/// A search for labels.
struct Search<'a> {
    scanned: Scanned<'a>,
    layout: &'a Layout,
    survivors: &'a Survivors,
    min_valid_time: i64,
    labels: FoundLabels,
}

impl Search<'_> {
    /// The series that can be written, in the order of their refs.
    fn series(&mut self, wanted: &Wanted<'_>) -> io::Result<Vec<Series>> {
        let Scanned { target, listing, .. } = self.scanned;
        let (sources, unreadable) = sources::all(target, listing, self.layout)?;
        self.labels.refused = unreadable;
        let mut pool = Pool::default();
        let rules = SegmentRules::of(self.scanned.report);
        let tables: Vec<(&Source, Table)> = sources
            .iter()
            .map(|source| (source, source.read(self.survivors, wanted, rules, &mut pool)))
            .filter(|(_, table)| !table.labels.is_empty())
            .collect();
        // What contradicts itself or what is replayed need not be asked about.
        let ask = |(_, table): &(&Source, Table)| match table.contradicts {
            None => table.last.clone(),
            Some(_) => HashMap::default(),
        };
        let asked: Vec<HashMap<u64, (i64, u64)>> = tables.iter().map(ask).collect();
        let witnesses = self.witnesses(&asked)?;
        let mut believed: Vec<Believed<'_>> = Vec::new();
        for ((source, table), witness) in tables.iter().zip(&witnesses) {
            match judge(source, table, witness) {
                Ok(up_to) => {
                    let beyond = table.labels.keys().filter(|&&series_ref| series_ref > up_to).count() as u64;
                    if beyond > 0 {
                        self.refuse(source, beyond, Refusal::NotShownAbove { series_ref: up_to });
                    }
                    believed.push(Believed { source, table, up_to });
                }
                Err(refusal) => self.refuse(source, table.labels.len() as u64, refusal),
            }
        }
        let chosen = self.choose(&believed, wanted.refs);
        let writable = self.writable(chosen, &believed);
        let mut from: Vec<u64> = vec![0; believed.len()];
        let mut series = Vec::new();
        for (series_ref, (labels, source)) in writable {
            let Some(labels) = pool.get(&labels) else { continue };
            from[source] += 1;
            series.push(Series { series_ref, labels: labels.clone() });
        }
        let found = believed.iter().zip(from).filter(|(_, series)| *series > 0);
        self.labels.found =
            found.map(|(one, series)| LabelsFound { path: one.source.path.clone(), series }).collect();
        Ok(series)
    }

    fn refuse(&mut self, source: &Source, series: u64, refusal: Refusal) {
        self.labels.refused.push(LabelsRefused { path: source.path.clone(), series, refusal });
    }

    /// For each ref the hash of its labels, and the first source that has them; none where sources differ.
    fn choose(&mut self, believed: &[Believed<'_>], wanted: &HashSet<u64>) -> BTreeMap<u64, (u64, usize)> {
        let mut chosen = BTreeMap::new();
        let mut differ = 0;
        for &series_ref in wanted {
            let says = |(at, one): (usize, &Believed<'_>)| {
                let labels = one.table.labels.get(&series_ref).filter(|_| series_ref <= one.up_to);
                labels.map(|&labels| (labels, at))
            };
            let mut said = believed.iter().enumerate().filter_map(says);
            let Some(first) = said.next() else { continue };
            if said.all(|(labels, _)| labels == first.0) {
                chosen.insert(series_ref, first);
            } else {
                differ += 1;
            }
        }
        if differ > 0 {
            let paths: Vec<&str> = believed.iter().map(|one| one.source.path.as_str()).collect();
            self.labels.refused.push(LabelsRefused {
                path: paths.join(", "),
                series: differ,
                refusal: Refusal::Disagree,
            });
        }
        chosen
    }

    /// Those that can be written without a loss, see above.
    fn writable(
        &mut self,
        chosen: BTreeMap<u64, (u64, usize)>,
        believed: &[Believed<'_>],
    ) -> BTreeMap<u64, (u64, usize)> {
        // Of several refs with the same labels, what the lower ones have is wiped at the record of the highest.
        let mut highest: HashMap<u64, u64> = HashMap::default();
        for (&series_ref, &(labels, _)) in &chosen {
            highest.insert(labels, series_ref);
        }
        let mut is_in_the_way: HashSet<u64> = HashSet::default();
        for (&other, defined) in &self.survivors.defined {
            let Some(&series_ref) = highest.get(&defined.labels) else { continue };
            let keeps = defined.newest.is_some_and(|newest| newest >= self.min_valid_time);
            if other > series_ref || keeps {
                is_in_the_way.insert(defined.labels);
            }
        }
        let (writable, superseded): (BTreeMap<_, _>, BTreeMap<_, _>) =
            chosen.into_iter().partition(|(series_ref, (labels, _))| {
                highest.get(labels) == Some(series_ref) && !is_in_the_way.contains(labels)
            });
        let mut by_source: BTreeMap<usize, u64> = BTreeMap::new();
        for (_, source) in superseded.into_values() {
            *by_source.entry(source).or_default() += 1;
        }
        for (source, series) in by_source {
            self.refuse(believed[source].source, series, Refusal::SameLabels);
        }
        writable
    }

    /// What the samples that are replayed say of those of each source.
    fn witnesses(&self, asked: &[HashMap<u64, (i64, u64)>]) -> io::Result<Vec<Witness>> {
        let mut witnesses = vec![Witness::default(); asked.len()];
        if asked.iter().all(HashMap::is_empty) {
            return Ok(witnesses);
        }
        for part in &self.layout.replayed {
            let new = || Samples { asked, witnesses: vec![Witness::default(); asked.len()] };
            let heard = part.take(self.scanned.target, self.scanned.rules(), new)?;
            let heard = heard.map(|samples| samples.witnesses).unwrap_or_default();
            for (witness, heard) in witnesses.iter_mut().zip(heard) {
                witness.agrees = witness.agrees.max(heard.agrees);
                witness.differs |= heard.differs;
            }
        }
        Ok(witnesses)
    }
}

/// What samples that are replayed say of those of a source.
#[derive(Clone, Debug, Default)]
struct Witness {
    /// The highest ref of a sample that is in both.
    agrees: Option<u64>,
    /// A sample of the same ref and time has another value.
    differs: bool,
}

/// Samples that are replayed, held against those of sources.
struct Samples<'a> {
    asked: &'a [HashMap<u64, (i64, u64)>],
    witnesses: Vec<Witness>,
}

impl RecordSink for Samples<'_> {
    fn record(&mut self, record: &[u8]) {
        let Record::Samples(samples) = Record::parse(record) else { return };
        for sample in samples.entries().flatten() {
            for (asked, witness) in self.asked.iter().zip(&mut self.witnesses) {
                match asked.get(&sample.series_ref) {
                    Some(&(t, value_bits)) if t == sample.t && value_bits == sample.value_bits => {
                        witness.agrees = witness.agrees.max(Some(sample.series_ref));
                    }
                    Some(&(t, _)) if t == sample.t => witness.differs = true,
                    _ => {}
                }
            }
        }
    }
}

/// Up to which ref a source is believed, or why it is not.
fn judge(source: &Source, table: &Table, witness: &Witness) -> Result<u64, Refusal> {
    if let Some(series_ref) = table.contradicts {
        return Err(Refusal::OtherSeries { series_ref });
    }
    if witness.differs {
        return Err(Refusal::OtherPeriod);
    }
    let proved = table.highest_shared.max(witness.agrees);
    match proved {
        _ if source.is_gone_on_with => Ok(u64::MAX),
        // It may be of before Prometheus restarted, and have those alone in common that it had read then.
        Some(highest) => Ok(highest),
        None => Err(Refusal::NotProved),
    }
}

/// Has the first segment that is replayed begin with these series; or says why it cannot.
fn write(
    scanned: &Scanned<'_>,
    layout: &Layout,
    before: usize,
    series: Vec<Series>,
    found: &[LabelsFound],
    plan: &mut Plan,
) -> Result<(), NoStep> {
    if series.is_empty() {
        return Ok(());
    }
    let &Scanned { target, listing, report, .. } = scanned;
    let first = layout.replayed.first().filter(|first| first.kind != LogKind::Wbl);
    let Some(first) = first else {
        return Err(Refusal::NoSegmentForLabels.into());
    };
    let mut places = listing.logs.iter().filter_map(LogDirectory::snapshot_position);
    if first.kind == LogKind::Wal && places.any(|(number, offset)| number == first.number && offset > 0) {
        return Err(Refusal::SnapshotInFirst.into());
    }
    let defect = Defect::SeriesRecordsLost { series: series.len() as u64 };
    let sources = found.iter().map(|found| found.path.clone()).collect();
    let repaired = RepairedFinding::new(Code::UnknownRefs, defect, Resolution::LabelsWritten { sources });
    let Some(path) = &first.from else {
        let made = plan.steps.iter_mut().find(|step| matches!(&step.change, Change::Create { path, bytes } if *path == first.path && bytes.is_empty()));
        let Some(step) = made else { return Err(Refusal::FirstIsMade.into()) };
        step.change = Change::Create { path: first.path.clone(), bytes: segment_of_series(&series)? };
        step.repairs.push(repaired);
        return Ok(());
    };
    let of_it = |change: &Change| match change {
        Change::Patch { path: changed, .. } => changed == path,
        Change::Rewrite { .. } => change.source() == path,
        _ => false,
    };
    let at = plan.steps.iter().position(|step| of_it(&step.change));
    if let Some(step) = at.and_then(|at| plan.steps.get_mut(at))
        && let Change::Rewrite { begins_with, .. } = &mut step.change
    {
        *begins_with = series;
        step.repairs.push(repaired);
        return Ok(());
    }
    let rules = first.rules(scanned.rules());
    let mut step = rewritten(target, path, report, rules, series)?;
    step.repairs.push(repaired);
    match at {
        Some(at) => {
            // What was known of the loss is known by the findings, which a renamed original has not.
            if step.lost == Loss::NOTHING {
                step.lost = plan.steps[at].lost;
            }
            plan.steps[at] = step;
        }
        None => plan.steps.insert(before.min(plan.steps.len()), step),
    }
    Ok(())
}
