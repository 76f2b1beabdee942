//! The records that a segment has once it is repaired.

use std::fs::File;
use std::ops::Range;

use super::bytes::SegmentBytes;
use super::rules::SegmentRules;
use super::salvaged::{SalvagedSegment, substitute_at};
use super::stored::stored_record;
use crate::forecast::replay::Reader;
use crate::repair::partial::Substitute;
use crate::scan::salvage::{Contents, Problem, ProblemKind, Visitor};
use crate::tsdb::Version;
use crate::wal::Record;
use crate::wal::compress::Unpacker;

/// Takes records, one after the other.
pub(in crate::repair) trait RecordSink {
    /// The next one.
    fn record(&mut self, record: &[u8]);
}

/// Hands a sink, which `new` makes, the records that are in the first `length` bytes of `source` once it is repaired,
/// in order.
pub(in crate::repair) fn read_repaired<T: RecordSink>(
    source: &File,
    length: u64,
    rules: SegmentRules<'_>,
    new: impl Fn() -> T,
) -> T {
    read_repaired_before(source, length, length, rules, new)
}

/// As [`read_repaired`], those that end at `end` or before.
pub(in crate::repair) fn read_repaired_before<T: RecordSink>(
    source: &File,
    length: u64,
    end: u64,
    rules: SegmentRules<'_>,
    new: impl Fn() -> T,
) -> T {
    struct Forwarding<'a, T> {
        sink: T,
        end: u64,
        source: &'a SegmentBytes<'a>,
        agent: Option<Version>,
        instead: &'a [(Range<u64>, Substitute)],
        undecodable: bool,
    }
    impl<T: RecordSink> Forwarding<'_, T> {
        fn forward(&mut self, record: &[u8]) {
            if self.agent.and_then(|version| Reader::Agent.refuses(record, version)).is_none() {
                self.sink.record(record);
            }
        }
    }
    impl<T: RecordSink> Visitor for Forwarding<'_, T> {
        fn record(&mut self, record: &Record<'_>, _: &Contents) {
            if record.end <= self.end {
                self.forward(record.data);
            }
        }
        fn damage(&mut self, damage: Problem) {
            if damage.correction.as_ref().map_or(damage.range.end, |corrected| corrected.end) > self.end {
                return;
            }
            let (mut stored, mut unpacker) = (Vec::new(), Unpacker::default());
            if let Some(corrected) = &damage.correction {
                let range = corrected.offset..corrected.end;
                let head = stored_record(self.source, &range, Some(corrected), &mut stored);
                if let Some(record) =
                    head.ok().and_then(|head| unpacker.unpack(head.compression(), &stored).ok())
                {
                    self.forward(record);
                }
            } else if matches!(damage.kind, ProblemKind::Decode(_)) {
                self.undecodable = true;
                if let Some(instead) = substitute_at(self.instead, damage.range.start) {
                    instead.records().iter().for_each(|record| self.forward(record));
                }
            }
        }
    }
    let (bytes, all) = rules.bytes(source, length);
    let end = if rules.places.is_some() { all } else { end };
    let taken_with = |instead: &[(Range<u64>, Substitute)]| {
        let new = || Forwarding {
            sink: new(),
            end,
            source: &bytes,
            agent: rules.agent,
            instead,
            undecodable: false,
        };
        let forwarding = rules.salvage(source, length, new);
        (forwarding.sink, forwarding.undecodable)
    };
    let (sink, undecodable) = taken_with(&[]);
    let instead = if undecodable { SalvagedSegment::of(source, length, rules).instead } else { Vec::new() };
    if instead.is_empty() { sink } else { taken_with(&instead).0 }
}
