//! The bytes of segments that are rewritten.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::rules::SegmentRules;
use super::salvaged::{SalvagedSegment, refuses_corrected};
use super::stored::stored_record;
use crate::change::plan::{Change, PageRun};
use crate::change::{NewBytes, write_series};
use crate::forecast::replay::Reader;
use crate::record::{RecordType, Selected};
use crate::scan::salvage::{AgreedCorrection, Contents, Problem, ProblemKind, Visitor};
use crate::scan::settled::Settlements;
use crate::tsdb::Version;
use crate::wal::arranged::Place;
use crate::wal::compress::Unpacker;
use crate::wal::writer::SegmentWriter;
use crate::wal::{Compression, Record};

/// Makes the bytes of segments that are rewritten, with what a scan has settled of them.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::repair) struct RewrittenSegments<'a> {
    pub(in crate::repair) settled: &'a Settlements,
}

impl NewBytes for RewrittenSegments<'_> {
    fn write(&self, change: &Change, source: &File, length: u64, out: &mut dyn io::Write) -> io::Result<()> {
        rewrite(source, length, change, self.settled, out)
    }
}

/// What is in the place of each page of a segment that is rewritten; none if its own do, in their order.
pub(in crate::repair) fn places(change: &Change) -> Option<Vec<Place>> {
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

/// Rewrites a segment, as `change` wants it: the records that are in the first `length` bytes of `source`, as they are
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
    let rules = SegmentRules { places: places.as_deref(), ..SegmentRules::of_change(change, settled) };
    let (bytes, _) = rules.bytes(source, length);
    for (range, stands) in records_to_write(source, length, rules) {
        if bytes.is_blank(range.start) {
            continue;
        }
        let source = &bytes;
        let compression = match stands {
            KeptRecord::Intact => stored_record(source, &range, None, &mut stored)?.compression(),
            KeptRecord::Corrected(corrected) => {
                stored_record(source, &range, Some(&corrected), &mut stored)?.compression()
            }
            KeptRecord::Substitute(record) => {
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
        match record.map_or(Selected::All, |record| rules.select(record)) {
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

/// A record that is written.
enum KeptRecord {
    /// As it is stored.
    Intact,
    /// Once a bit is flipped back.
    Corrected(AgreedCorrection),
    /// This one takes its place, or is one of those that do.
    Substitute(Vec<u8>),
}

/// The records that are written, in order; for an agent, those that it accepts.
fn records_to_write(source: &File, length: u64, rules: SegmentRules<'_>) -> Vec<(Range<u64>, KeptRecord)> {
    #[derive(Default)]
    struct Records {
        places: Vec<(Range<u64>, KeptRecord)>,
        agent: Option<Version>,
        undecodable: bool,
    }
    impl Visitor for Records {
        fn record(&mut self, record: &Record<'_>, _: &Contents) {
            if self.agent.and_then(|version| Reader::Agent.refuses(record.data, version)).is_none() {
                self.places.push((record.offset..record.end, KeptRecord::Intact));
            }
        }
        fn damage(&mut self, damage: Problem) {
            match damage.correction {
                Some(corrected) => {
                    self.places.push((corrected.offset..corrected.end, KeptRecord::Corrected(corrected)));
                }
                None => self.undecodable |= matches!(damage.kind, ProblemKind::Decode(_)),
            }
        }
    }
    let agent = rules.agent;
    let (bytes, _) = rules.bytes(source, length);
    let is_refused = |corrected: &AgreedCorrection| {
        agent.is_some_and(|version| refuses_corrected(&bytes, corrected, version).is_some())
    };
    let new = || Records { agent, ..Records::default() };
    let mut records = rules.salvage(source, length, new);
    records
        .places
        .retain(|(_, stands)| !matches!(stands, KeptRecord::Corrected(corrected) if is_refused(corrected)));
    if records.undecodable {
        for (range, instead) in SalvagedSegment::of(source, length, rules).instead {
            let places = instead
                .records()
                .iter()
                .map(|record| (range.clone(), KeptRecord::Substitute(record.clone())));
            records.places.extend(places);
        }
    }
    records.places.sort_by_key(|(range, _)| range.start);
    records.places
}
