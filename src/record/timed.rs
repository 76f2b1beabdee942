//! Samples and histograms by ref and time, with what their values say of the end of a series, and nothing else.

use memchr::memmem;

use super::{FloatHistogramEntry, HistogramEntry, Record, SampleRun};

/// The value that says that a series has ended (`model/value/value.go`, `StaleNaN`).
pub(crate) const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Calls `each` for the samples and histograms of a record, in order, up to the first that cannot be decoded: a run of them, and
/// whether its value is a staleness marker. Histograms of a schema that Prometheus does not know are skipped, as by it.
pub(crate) fn each_timed(data: &[u8], mut each: impl FnMut(SampleRun, bool)) {
    let one = |series_ref, t| SampleRun { first_ref: series_ref, count: 1, t };
    // All layouts store values and sums in big-endian order. A record without these bytes has no marker, and its values need
    // not be read.
    let has_markers = memmem::find(data, &STALE.to_be_bytes()).is_some();
    match Record::parse(data) {
        Record::Samples(samples) if has_markers => {
            for entry in samples.entries().flatten() {
                each(one(entry.series_ref, entry.t), entry.value_bits == STALE);
            }
        }
        Record::Samples(samples) => {
            samples.runs(|run| each(run, false));
        }
        Record::Histograms(histograms) if has_markers => {
            for entry in histograms.entries().flatten().filter(HistogramEntry::known_schema) {
                each(one(entry.series_ref, entry.t), entry.histogram.sum_bits == STALE);
            }
        }
        Record::Histograms(histograms) => {
            histograms.heads(|series_ref, t, is_known| {
                if is_known {
                    each(one(series_ref, t), false);
                }
            });
        }
        Record::FloatHistograms(histograms) if has_markers => {
            for entry in histograms.entries().flatten().filter(FloatHistogramEntry::known_schema) {
                each(one(entry.series_ref, entry.t), entry.histogram.sum_bits == STALE);
            }
        }
        Record::FloatHistograms(histograms) => {
            histograms.heads(|series_ref, t, is_known| {
                if is_known {
                    each(one(series_ref, t), false);
                }
            });
        }
        Record::Series(_)
        | Record::Tombstones(_)
        | Record::Exemplars(_)
        | Record::MmapMarkers(_)
        | Record::Metadata(_)
        | Record::MinValidTime(_)
        | Record::Unknown(_) => {}
    }
}
