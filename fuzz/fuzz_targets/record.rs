//! A record has at most as many entries as bytes, all decoders agree on them, and what is encoded decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::record::*;

/// Walks over everything there is in the record; entries, elements of lists, and the first error.
struct Walk {
    entries: u64,
    elements: usize,
    error: Option<DecodeError>,
}

impl Walk {
    fn all<E>(
        &mut self,
        entries: impl Iterator<Item = Result<E, DecodeError>>,
        mut look: impl FnMut(E) -> usize,
    ) {
        let mut entries = entries;
        for entry in entries.by_ref() {
            assert!(self.error.is_none(), "an entry after an error");
            match entry {
                Ok(entry) => {
                    self.entries += 1;
                    self.elements += look(entry);
                }
                Err(error) => self.error = Some(error),
            }
        }
        assert!(entries.next().is_none());
    }
}

fn labels(labels: &Labels<'_>) -> usize {
    assert_eq!(labels.iter().len(), labels.len());
    assert_eq!(labels.iter().count(), labels.len());
    if let Some((name, _)) = labels.iter().next() {
        assert!(labels.find(name).is_some());
    }
    labels.len()
}

fn histogram(h: &Histogram<'_>) -> usize {
    h.pos_spans.iter().count()
        + h.neg_spans.iter().count()
        + h.pos.iter().count()
        + h.neg.iter().count()
        + h.custom.iter().count()
}

fn float_histogram(h: &FloatHistogram<'_>) -> usize {
    h.pos_spans.iter().count()
        + h.neg_spans.iter().count()
        + h.pos.iter().count()
        + h.neg.iter().count()
        + h.custom.iter().count()
}

fn walk(record: &[u8]) -> Walk {
    let mut walk = Walk { entries: 0, elements: 0, error: None };
    match Record::parse(record) {
        Record::Series(r) => walk.all(r.entries(), |e| labels(&e.labels)),
        Record::Samples(r) => walk.all(r.entries(), |_| 0),
        Record::Tombstones(r) => walk.all(r.entries(), |_| 0),
        Record::Exemplars(r) => walk.all(r.entries(), |e| labels(&e.labels)),
        Record::MmapMarkers(r) => walk.all(r.entries(), |e| {
            assert_eq!(u64::from(e.file()) << 32 | u64::from(e.offset()), e.mmap_ref);
            0
        }),
        Record::Metadata(r) => walk.all(r.entries(), |_| 0),
        Record::Histograms(r) => walk.all(r.entries(), |e| histogram(&e.histogram)),
        Record::FloatHistograms(r) => walk.all(r.entries(), |e| float_histogram(&e.histogram)),
        Record::MinValidTime(r) => walk.all(r.entries(), |_| 0),
        Record::Unknown(bytes) => assert_eq!(bytes, record),
    }
    walk
}

/// Encodes and decodes what was decoded.
fn again(record: &[u8]) {
    macro_rules! again {
        ($kind:ident, $entries:expr, $encode:expr) => {{
            let entries: Vec<_> = $entries.map(Result::unwrap).collect();
            let mut out = Vec::new();
            $encode(&entries, &mut out);
            let Record::$kind(r) = Record::parse(&out) else { panic!("another type") };
            let decoded: Vec<_> = r.entries().map(Result::unwrap).collect();
            assert!(entries == decoded, "{entries:?} became {decoded:?}");
        }};
    }
    match (Record::parse(record), record[0]) {
        (Record::Series(r), _) => again!(Series, r.entries(), |entries: &[SeriesEntry<'_>], out: &mut _| {
            encode_series(entries.iter().map(|e| (e.series_ref, e.labels.iter())), out);
        }),
        (Record::Samples(r), 2) => {
            again!(Samples, r.entries(), |e: &[_], out: &mut _| encode_samples(e, out))
        }
        (Record::Samples(r), _) => {
            again!(Samples, r.entries(), |e: &[_], out: &mut _| encode_samples_v2(e, out))
        }
        (Record::Tombstones(r), _) => {
            again!(Tombstones, r.entries(), |e: &[_], out: &mut _| encode_tombstones(e, out));
        }
        (Record::Exemplars(r), _) => {
            again!(Exemplars, r.entries(), |e: &[_], out: &mut _| encode_exemplars(e, out))
        }
        (Record::MmapMarkers(r), _) => {
            again!(MmapMarkers, r.entries(), |e: &[_], out: &mut _| encode_mmap_markers(e, out));
        }
        (Record::Metadata(r), _) => {
            again!(Metadata, r.entries(), |e: &[_], out: &mut _| encode_metadata(e, out))
        }
        (Record::Histograms(r), _) => {
            again!(Histograms, r.entries(), |entries: &[HistogramEntry<'_>], out: &mut _| {
                let owned: Vec<_> = entries.iter().map(|&e| HistogramSample::from(e)).collect();
                encode_histogram_samples_v2(&owned, out);
            });
        }
        (Record::FloatHistograms(r), _) => {
            again!(FloatHistograms, r.entries(), |entries: &[FloatHistogramEntry<'_>], out: &mut _| {
                let owned: Vec<_> = entries.iter().map(|&e| FloatHistogramSample::from(e)).collect();
                encode_float_histogram_samples_v2(&owned, out);
            });
        }
        (Record::MinValidTime(_) | Record::Unknown(_), _) => {}
    }
}

fuzz_target!(|record: &[u8]| {
    let summary = summarize(record);
    let walk = walk(record);
    assert_eq!((summary.entries, summary.error), (walk.entries, walk.error));
    assert!(walk.entries <= record.len() as u64);
    assert!(walk.elements <= record.len());
    if let Some(error) = walk.error {
        assert!(!error.to_string().is_empty());
    }
    assert!(summary.min_time.is_none_or(|min| min <= summary.max_time.unwrap()));
    assert!(summary.min_ref.is_none_or(|min| min <= summary.max_ref.unwrap()));
    if is_loki(record) {
        assert!(record[0] == 0 || summary.error.is_some());
    }
    if summary.error.is_none() && !record.is_empty() {
        again(record);
    }
});
