//! The entries of some series alone.

use super::{
    DecodeError, EntryEncoding, FloatHistogramSample, HistogramSample, Record, RecordType,
    encode_custom_buckets_float_histogram_samples, encode_custom_buckets_histogram_samples, encode_exemplars,
    encode_float_histogram_samples_v2, encode_histogram_samples_v2, encode_metadata, encode_mmap_markers,
    encode_samples_as, encode_series, encode_tombstones,
};

/// What is left of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// All of it; so of every record whose entries name no series.
    All,
    /// A record of the entries that are wanted, and how many are not in it.
    Part {
        /// As an encoder writes it.
        record: Vec<u8>,
        /// Entries that are not wanted.
        dropped: u64,
    },
    /// Nothing, and how many entries it had.
    Nothing {
        /// Entries that are not wanted.
        dropped: u64,
    },
}

impl Selected {
    /// Entries that are dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        match self {
            Self::All => 0,
            Self::Part { dropped, .. } | Self::Nothing { dropped } => *dropped,
        }
    }
}

/// The record of the entries whose ref is wanted. One that does not decode is taken as it is.
pub fn select(record: &[u8], wanted: impl Fn(u64) -> bool) -> Selected {
    chosen(record, wanted, false)
}

/// Whether the record decodes, has entries, and is byte for byte what an encoder writes of them.
pub(super) fn is_canonical(record: &[u8]) -> bool {
    matches!(chosen(record, |_| true, true), Selected::Part { record: again, .. } if again == record)
}

/// As [`select`]; a record of which all is wanted is encoded again, too, if that is asked for.
fn chosen(record: &[u8], wanted: impl Fn(u64) -> bool, encode_all: bool) -> Selected {
    let Some(record_type) = RecordType::of(record) else { return Selected::All };
    let encoding = record_type.encoding();
    match Record::parse(record) {
        Record::Series(r) => among(
            encode_all,
            r.entries(),
            |e| wanted(e.series_ref),
            |entries, out| {
                let entries = entries.iter().map(|e| (e.series_ref, e.labels.iter().collect::<Vec<_>>()));
                encode_series(entries, out);
            },
        ),
        Record::Samples(r) => among(
            encode_all,
            r.entries(),
            |e| wanted(e.series_ref),
            |entries, out| {
                encode_samples_as(encoding, entries, out);
            },
        ),
        Record::Tombstones(r) => among(encode_all, r.entries(), |e| wanted(e.series_ref), encode_tombstones),
        Record::Exemplars(r) => among(
            encode_all,
            r.entries(),
            |e| wanted(e.series_ref),
            |entries, out| encode_exemplars(entries, out),
        ),
        Record::MmapMarkers(r) => {
            among(encode_all, r.entries(), |e| wanted(e.series_ref), encode_mmap_markers)
        }
        Record::Metadata(r) => among(
            encode_all,
            r.entries(),
            |e| wanted(e.series_ref),
            |entries, out| encode_metadata(entries, out),
        ),
        Record::Histograms(r) => among(
            encode_all,
            r.entries(),
            |e| wanted(e.series_ref),
            |entries, out| {
                let (v1, v2) = (encode_custom_buckets_histogram_samples, encode_histogram_samples_v2);
                encode_histograms::<_, HistogramSample>(record_type, entries, (v1, v2), out);
            },
        ),
        Record::FloatHistograms(r) => among(
            encode_all,
            r.entries(),
            |e| wanted(e.series_ref),
            |entries, out| {
                let (v1, v2) =
                    (encode_custom_buckets_float_histogram_samples, encode_float_histogram_samples_v2);
                encode_histograms::<_, FloatHistogramSample>(record_type, entries, (v1, v2), out);
            },
        ),
        Record::MinValidTime(_) | Record::Unknown(_) => Selected::All,
    }
}

type Encode<S> = fn(&[S], &mut Vec<u8>);

/// Types 7 and 9, and 8 and 10, are written alike, and either kind of buckets may be in both: the encoder that takes
/// all, with the type as it was. Types 12 and 13 have one of their own.
fn encode_histograms<E: Copy + Into<S>, S>(
    record_type: RecordType,
    entries: &[E],
    (v1, v2): (Encode<S>, Encode<S>),
    out: &mut Vec<u8>,
) {
    let entries: Vec<S> = entries.iter().copied().map(Into::into).collect();
    match record_type.encoding() {
        EntryEncoding::V1 => v1(&entries, out),
        EntryEncoding::V2 => v2(&entries, out),
    }
    if let Some(first) = out.first_mut() {
        *first = record_type.byte();
    }
}

fn among<E>(
    encode_all: bool,
    entries: impl Iterator<Item = Result<E, DecodeError>>,
    wanted: impl Fn(&E) -> bool,
    encode: impl FnOnce(&[E], &mut Vec<u8>),
) -> Selected {
    let Ok(mut entries) = entries.collect::<Result<Vec<E>, _>>() else { return Selected::All };
    let before = entries.len();
    entries.retain(wanted);
    let dropped = (before - entries.len()) as u64;
    if dropped == 0 && !(encode_all && before > 0) {
        Selected::All
    } else if entries.is_empty() {
        Selected::Nothing { dropped }
    } else {
        let mut record = Vec::new();
        encode(&entries, &mut record);
        Selected::Part { record, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::{Selected, select};
    use crate::record::{
        ExemplarEntry, HistogramSample, MetadataEntry, MmapMarkerEntry, OwnedHistogram, SampleEntry,
        TombstoneEntry, each_use, encode_custom_buckets_histogram_samples, encode_exemplars,
        encode_histogram_samples, encode_histogram_samples_v2, encode_metadata, encode_min_valid_time,
        encode_mmap_markers, encode_samples, encode_samples_v2, encode_series, encode_tombstones,
    };

    type Encode = Box<dyn Fn(&[u64]) -> Vec<u8>>;

    fn written(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        out
    }

    fn time(series_ref: u64) -> i64 {
        1000 + series_ref.cast_signed()
    }

    fn samples(refs: &[u64]) -> Vec<SampleEntry> {
        refs.iter()
            .map(|&series_ref| SampleEntry { series_ref, t: time(series_ref), st: 5, value_bits: 9 })
            .collect()
    }

    fn histograms(refs: &[u64], schema: i32) -> Vec<HistogramSample> {
        let histogram = OwnedHistogram { schema, count: 3, ..OwnedHistogram::default() };
        let of = |&series_ref: &u64| HistogramSample {
            series_ref,
            t: time(series_ref),
            st: 0,
            histogram: histogram.clone(),
        };
        refs.iter().map(of).collect()
    }

    /// Of each kind, how entries of these refs are written.
    fn kinds() -> Vec<Encode> {
        vec![
            Box::new(|refs| {
                written(|out| encode_series(refs.iter().map(|&r| (r, [(&b"a"[..], &b"b"[..])])), out))
            }),
            Box::new(|refs| written(|out| encode_samples(&samples(refs), out))),
            Box::new(|refs| written(|out| encode_samples_v2(&samples(refs), out))),
            Box::new(|refs| {
                let of = |&series_ref: &u64| TombstoneEntry { series_ref, min_time: 1, max_time: 7 };
                written(|out| encode_tombstones(&refs.iter().map(of).collect::<Vec<_>>(), out))
            }),
            Box::new(|refs| {
                let of = |&series_ref: &u64| ExemplarEntry {
                    series_ref,
                    t: time(series_ref),
                    value_bits: 1,
                    labels: crate::record::Labels::default(),
                };
                written(|out| encode_exemplars(&refs.iter().map(of).collect::<Vec<_>>(), out))
            }),
            Box::new(|refs| {
                let of = |&series_ref: &u64| MmapMarkerEntry { series_ref, mmap_ref: 8 };
                written(|out| encode_mmap_markers(&refs.iter().map(of).collect::<Vec<_>>(), out))
            }),
            Box::new(|refs| {
                let of =
                    |&series_ref: &u64| MetadataEntry { series_ref, metric_type: 1, unit: b"u", help: b"h" };
                written(|out| encode_metadata(&refs.iter().map(of).collect::<Vec<_>>(), out))
            }),
            Box::new(|refs| written(|out| encode_histogram_samples(&histograms(refs, 1), out))),
            Box::new(|refs| written(|out| encode_histogram_samples_v2(&histograms(refs, 1), out))),
            Box::new(|refs| {
                written(|out| encode_custom_buckets_histogram_samples(&histograms(refs, -53), out))
            }),
        ]
    }

    #[test]
    fn what_is_left_is_written_as_if_there_had_been_nothing_else() {
        for (kind, encode) in kinds().iter().enumerate() {
            let all = encode(&[3, 900, 5, 901]);
            assert_eq!(select(&all, |_| true), Selected::All, "{kind}");
            assert_eq!(select(&all, |_| false), Selected::Nothing { dropped: 4 }, "{kind}");
            let expected = Selected::Part { record: encode(&[3, 5]), dropped: 2 };
            assert_eq!(select(&all, |series_ref| series_ref < 900), expected, "{kind}");
            let mut refs = Vec::new();
            each_use(&encode(&[3, 5]), |one| refs.push(one.series_ref));
            assert_eq!(refs, [3, 5], "{kind}");
        }
    }

    /// Custom buckets in a record of type 7.
    #[test]
    #[allow(clippy::indexing_slicing, reason = "they have a first byte")]
    fn histograms_keep_their_type() {
        let mut mixed =
            written(|out| encode_custom_buckets_histogram_samples(&histograms(&[1, 2], -53), out));
        mixed[0] = 7;
        let mut expected =
            written(|out| encode_custom_buckets_histogram_samples(&histograms(&[2], -53), out));
        expected[0] = 7;
        assert_eq!(
            select(&mixed, |series_ref| series_ref == 2),
            Selected::Part { record: expected, dropped: 1 }
        );
    }

    #[test]
    fn what_names_no_series_stays() {
        for record in [written(|out| encode_min_valid_time(5, out)), vec![], vec![200, 1, 2]] {
            assert_eq!(select(&record, |_| false), Selected::All);
        }
    }
}
