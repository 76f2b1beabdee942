//! Healthy segments, read and written again, are the same to the byte.

use support::pristine;
use support::test;
use walfix::wal::layout::Header;
use walfix::wal::writer::SegmentWriter;

#[test]
fn a_healthy_segment_is_written_as_it_was() {
    let mut segments = 0;
    for log in pristine::all() {
        let mut writer = SegmentWriter::new(Vec::new());
        for record in &log.records {
            let head = Header::parse(&log.bytes[record.fragments[0].clone()]).unwrap().head;
            let stored: Vec<u8> = record
                .fragments
                .iter()
                .flat_map(|fragment| &log.bytes[fragment.start + 7..fragment.end])
                .copied()
                .collect();
            writer.record(head.compression(), &stored).unwrap();
        }
        let ours = writer.finish().unwrap();
        // A server that was killed leaves the last page short.
        let mut theirs = log.bytes.clone();
        theirs.resize(theirs.len().next_multiple_of(32768), 0);
        assert!(ours == theirs, "{}: {} and {} bytes", log.path.display(), ours.len(), theirs.len());
        segments += 1;
    }
    assert!(segments > 10, "{segments} segments");
}
