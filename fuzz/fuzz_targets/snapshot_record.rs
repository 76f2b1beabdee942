//! A record of a chunk snapshot ends, and has no more in it than bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::record::{LastValue, SnapshotRecord};

fuzz_target!(|record: &[u8]| {
    match SnapshotRecord::parse(record) {
        SnapshotRecord::Series(series) => {
            let alone = series.series();
            match series.decode() {
                Ok(whole) => {
                    let (series_ref, labels) = alone.unwrap();
                    assert_eq!((series_ref, labels), (whole.series_ref, whole.labels));
                    assert!(labels.iter().count() <= record.len());
                    if let Some(chunk) = whole.chunk {
                        assert!(chunk.data.len() < record.len());
                        let elements = match chunk.last_value {
                            LastValue::Float(_) => 0,
                            LastValue::Histogram(h) => h.pos.iter().count() + h.pos_spans.iter().count(),
                            LastValue::FloatHistogram(h) => h.neg.iter().count() + h.neg_spans.iter().count(),
                        };
                        assert!(elements <= record.len());
                    }
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    assert!(!(error.accepted_by_prometheus() && error.crashes_prometheus()));
                }
            }
        }
        SnapshotRecord::Tombstones(tombstones) => {
            let entries: Vec<_> = tombstones.entries().collect();
            assert!(entries.len() <= record.len() + 1);
            assert!(entries.iter().rev().skip(1).all(Result::is_ok), "an entry after an error");
        }
        SnapshotRecord::Exemplars(exemplars) => assert!(exemplars.entries().count() <= record.len()),
        SnapshotRecord::Unknown(bytes) => assert_eq!(bytes, record),
    }
});
