//! Deletions that are lost with what is damaged, cut or removed: a record of tombstones says what queries no longer return. Without
//! it, the samples that were deleted and are still there are served again.

use std::fs::File;
use std::ops::Range;

use super::salvage::{Contents, Problem, ProblemKind, Visitor};
use super::settled::Settlements;
pub use crate::record::DeletionsLost;
use crate::record::RecordType;
use crate::wal::layout::{HEADER_SIZE, Header};
use crate::wal::{Compression, Corrections, Fault, ReadAt, Record};

/// Of damaged bytes, and fragments elsewhere that are lost with them.
pub(crate) fn in_damage<S: ReadAt + ?Sized>(
    source: &S,
    range: &Range<u64>,
    orphans: impl Iterator<Item = u64>,
) -> DeletionsLost {
    /// Of a header, and as far into a snappy block as its first byte may be.
    const BEGINNING: usize = 32;
    let mut is_other = false;
    for offset in std::iter::once(range.start).chain(orphans) {
        let mut bytes = [0; BEGINNING];
        let count = source.read_at(&mut bytes, offset).unwrap_or(0);
        let beginning = bytes.get(..count).unwrap_or_default();
        match record_type(beginning) {
            Some(RecordType::Tombstones) => return DeletionsLost::Certain,
            // Whether the damage is one fragment, of which the beginning shows what it was.
            Some(_) => {
                let size = Header::parse(beginning).map_or(0, |header| header.size() as u64);
                is_other |= offset > range.start || size == range.end.saturating_sub(range.start);
            }
            None => {}
        }
    }
    if is_other { DeletionsLost::None } else { DeletionsLost::Possible }
}

/// Of what is after `from` in a segment of `length` bytes.
pub(crate) fn behind(source: &File, length: u64, from: u64, settled: &Settlements) -> DeletionsLost {
    #[derive(Default)]
    struct Found {
        records: Vec<u64>,
        problems: Vec<Problem>,
    }
    impl Visitor for Found {
        fn record(&mut self, record: &Record<'_>, contents: &Contents) {
            if RecordType::of(record.data) == Some(RecordType::Tombstones) && contents.entries > 0 {
                self.records.push(record.end);
            }
        }
        fn damage(&mut self, damage: Problem) {
            if !matches!(damage.kind, ProblemKind::Framing(Fault::TrailingZeros)) {
                self.problems.push(damage);
            }
        }
    }
    let found = settled.segment(source, length, Corrections::Sure).read(Found::default);
    if found.records.iter().any(|&end| end > from) {
        return DeletionsLost::Certain;
    }
    let problems = found.problems.iter().filter(|problem| problem.range.end > from);
    let of_problem = |problem: &Problem| {
        in_damage(source, &problem.range, problem.orphans.iter().map(|orphan| orphan.start))
    };
    problems.map(of_problem).max().unwrap_or_default()
}

/// The type of a record, as the beginning of its first fragment shows it.
fn record_type(fragment: &[u8]) -> Option<RecordType> {
    let header =
        Header::parse(fragment).filter(|header| header.head.is_canonical() && header.head.kind().begins())?;
    let data = fragment.get(HEADER_SIZE..)?;
    let first = match header.head.compression() {
        Compression::None => data.first(),
        Compression::Snappy => first_of_snappy(data),
        Compression::Zstd => None,
    };
    RecordType::from_byte(*first?)
}

/// The first byte of what a snappy block holds: it begins with a literal (`format_description.txt` of snappy).
fn first_of_snappy(block: &[u8]) -> Option<&u8> {
    let length = block.iter().take(10).position(|byte| byte & 0x80 == 0)? + 1;
    let tag = block.get(length)?;
    let more = usize::from(tag >> 2).saturating_sub(59);
    if tag.trailing_zeros() >= 2 { block.get(length + 1 + more) } else { None }
}

#[cfg(test)]
mod tests {
    use super::{DeletionsLost, in_damage, record_type};
    use crate::record::{RecordType, encode_tombstones};
    use crate::wal::Compression;
    use crate::wal::writer::SegmentWriter;

    fn fragment(compression: Compression, stored: &[u8]) -> Vec<u8> {
        let mut writer = SegmentWriter::new(Vec::new());
        writer.record(compression, stored).unwrap();
        let mut bytes = writer.finish().unwrap();
        bytes.truncate(7 + stored.len());
        bytes
    }

    #[test]
    fn records_show_their_types() {
        let mut tombstones = Vec::new();
        encode_tombstones(&[], &mut tombstones);
        tombstones.extend([0; 300]);
        let packed = snap::raw::Encoder::new().compress_vec(&tombstones).unwrap();
        let of = |compression, stored: &[u8]| record_type(&fragment(compression, stored));
        assert_eq!(of(Compression::None, &tombstones), Some(RecordType::Tombstones));
        assert_eq!(of(Compression::Snappy, &packed), Some(RecordType::Tombstones));
        assert_eq!(of(Compression::None, &[2, 3, 3]), Some(RecordType::Samples));
        assert_eq!(of(Compression::Snappy, &[]), None);
        assert_eq!(of(Compression::Zstd, &[3, 3, 3]), None);
        assert_eq!(record_type(&[]), None);
    }

    #[test]
    fn damage_shows_whether_deletions_are_lost_with_it() {
        let lost = |bytes: &[u8], range| in_damage(bytes, &range, std::iter::empty());
        let samples = fragment(Compression::None, &[2; 40]);
        let tombstones = fragment(Compression::None, &[3; 40]);
        assert_eq!(lost(&samples, 0..47), DeletionsLost::None);
        assert_eq!(lost(&tombstones, 0..47), DeletionsLost::Certain);
        // More than one fragment, or none that can be told.
        assert_eq!(lost(&[&samples[..], &tombstones].concat(), 0..94), DeletionsLost::Possible);
        assert_eq!(lost(&fragment(Compression::Zstd, &[2; 40]), 0..47), DeletionsLost::Possible);
        assert_eq!(lost(&[0xFF; 47], 0..47), DeletionsLost::Possible);
    }
}
