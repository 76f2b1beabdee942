//! Every reading of a segment ends, yields in order what is in the file, and says something of every byte.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use walfix::scan::salvage::{Contents, Problem, Reading, Visitor, salvage};
use walfix::wal::{Compression, Record};
use walfix_fuzz::Judge;

enum Told {
    Record(u64, u64, Vec<Range<u64>>, Compression, Vec<u8>),
    Damage(Problem),
}

#[derive(Default)]
struct All(Vec<Told>);

impl Visitor for All {
    fn record(&mut self, r: &Record<'_>, contents: &Contents) {
        assert!(contents.entries <= r.data.len() as u64);
        self.0.push(Told::Record(r.offset, r.end, r.fragments.to_vec(), r.compression, r.data.to_vec()));
    }

    fn damage(&mut self, damage: Problem) {
        self.0.push(Told::Damage(damage));
    }
}

fuzz_target!(|input: &[u8]| {
    let log = walfix_fuzz::log(input);
    for reading in [Reading::Prometheus, Reading::Snapshot, Reading::Opaque] {
        let mut judge = Judge::new(&log.bytes);
        let All(told) = salvage(&log.bytes[..], log.bytes.len() as u64, reading);
        let mut from = 0;
        for told in &told {
            let offset = match told {
                Told::Record(offset, end, fragments, compression, data) => {
                    judge.record(*offset, *end, fragments, *compression, data);
                    *offset
                }
                Told::Damage(problem) => {
                    judge.damage(&problem.range, &problem.orphans);
                    if let Some(mended) = &problem.correction {
                        assert!(
                            mended.offset <= mended.at
                                && mended.at < mended.end
                                && mended.mask.is_power_of_two()
                        );
                        assert!(mended.end <= log.bytes.len() as u64);
                    }
                    problem.range.start
                }
            };
            assert!(from <= offset, "{reading:?}: {offset} after {from}");
            from = offset;
        }
        // What the records say is no matter only there.
        judge.end(log.healthy.as_deref().filter(|_| reading == Reading::Opaque));
    }
});
