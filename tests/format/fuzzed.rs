//! What fuzzing found, each as small as it gets.

use support::test;
use walfix::scan::salvage::{Contents, Problem, ProblemKind, Reading, Visitor, salvage};
use walfix::wal::compress::Unpacker;
use walfix::wal::{Compression, Event, Fault, Record, SegmentReader};

fn fragment(head: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [&[head], &length.to_be_bytes()[..], &crc32c::crc32c(data).to_be_bytes(), data].concat()
}

#[derive(Default)]
struct Offsets(Vec<u64>, Vec<Problem>);

impl Visitor for Offsets {
    fn record(&mut self, record: &Record<'_>, _: &Contents) {
        self.0.push(record.offset);
    }

    fn damage(&mut self, damage: Problem) {
        self.0.push(damage.range.start);
        self.1.push(damage);
    }
}

/// The reader sees that a page is a copy before it sees that the record open there is not gone on with.
#[test]
fn problems_are_told_in_the_order_of_offsets() {
    let noise: Vec<u8> = (0..32761_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let page = fragment(2, &noise);
    let log = [page.clone(), page, fragment(1, &[])].concat();
    for reading in [Reading::Prometheus, Reading::Snapshot, Reading::Opaque] {
        let Offsets(offsets, problems) = salvage(&log[..], log.len() as u64, reading);
        assert!(offsets.is_sorted(), "{reading:?}: {offsets:?}");
        assert_eq!(problems[0].kind, ProblemKind::Framing(Fault::Unfinished));
        assert_eq!(problems[1].kind, ProblemKind::Framing(Fault::DuplicatedPage { original: 0 }));
    }
}

/// Prometheus's reader does not decompress nothing.
#[test]
fn no_stored_bytes_are_an_empty_record_under_every_compression() {
    for head in [0x01, 0x09, 0x11] {
        let log = [fragment(head, &[]), fragment(1, &[2])].concat();
        let mut reader = SegmentReader::new(&log[..], log.len() as u64);
        for (offset, data) in [(0, &[][..]), (7, &[2])] {
            let Some(Event::Record(record)) = reader.next() else { panic!("no record under {head:#x}") };
            assert_eq!((record.offset, record.data), (offset, data));
        }
        assert!(reader.next().is_none());
    }
}

/// A frame that does not say its size is tried with more room each time.
#[test]
fn the_buffer_grows_to_what_a_record_needs_and_serves_smaller_ones_after() {
    let large = vec![7; 9 << 20];
    let mut frame = zstd::stream::encode_all(&large[..], 1).unwrap();
    frame.extend_from_slice(&zstd::stream::encode_all(&b"and one frame more"[..], 1).unwrap());
    assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).unwrap(), None);
    let mut unpacker = Unpacker::default();
    for _ in 0..2 {
        let record = unpacker.unpack(Compression::Zstd, &frame).unwrap();
        assert_eq!(record.len(), large.len() + 18);
        assert!(record.ends_with(b"and one frame more"));
        let small = snap::raw::Encoder::new().compress_vec(b"small").unwrap();
        assert_eq!(unpacker.unpack(Compression::Snappy, &small).unwrap(), b"small");
    }
}
