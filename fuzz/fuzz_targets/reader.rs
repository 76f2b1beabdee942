//! The segment reader ends, yields in order what is in the file, and says something of every byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::wal::{Event, Fault, SegmentReader};
use walfix_fuzz::Judge;

fuzz_target!(|input: &[u8]| {
    let log = walfix_fuzz::log(input);
    let mut judge = Judge::new(&log.bytes);
    let mut reader = SegmentReader::new(&log.bytes[..], log.bytes.len() as u64);
    let mut events = 0;
    let mut from = 0;
    while let Some(event) = reader.next() {
        events += 1;
        assert!(events <= 2 * log.bytes.len() + 2, "more events than bytes");
        let offset = match event {
            Event::Record(r) => {
                judge.record(r.offset, r.end, r.fragments, r.compression, r.data);
                r.offset
            }
            Event::Damage(damage) => {
                judge.damage(&damage.range, &damage.orphans);
                // Told of before what is open where it begins.
                if matches!(damage.fault, Fault::DuplicatedPage { .. }) {
                    continue;
                }
                damage.range.start
            }
        };
        assert!(from <= offset, "an event at {offset} after one at {from}");
        from = offset;
    }
    assert!(reader.data_end() <= log.bytes.len() as u64);
    judge.end(log.healthy.as_deref());
});
