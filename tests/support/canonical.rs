//! A record's entries as JSON in which nothing is lost: 64-bit integers as decimal strings, floats as the hex digits
//! of their bits, strings that are not UTF-8 as `{"hex": "..."}`.

use serde_json::{Value, json};
use walfix::record::{ExemplarsRecord, FloatBits, Labels, Record, SnapshotRecord, Spans};

/// The entries of a record that can be decoded; none if it is of an unknown type.
pub fn entries(record: &[u8]) -> Value {
    match Record::parse(record) {
        Record::Series(r) => {
            array(r.entries(), |e| json!({"ref": e.series_ref.to_string(), "labels": labels(&e.labels)}))
        }
        Record::Samples(r) => array(
            r.entries(),
            |e| json!({"ref": e.series_ref.to_string(), "t": e.t.to_string(), "st": e.st.to_string(), "v": bits(e.value_bits)}),
        ),
        Record::Tombstones(r) => array(
            r.entries(),
            |e| json!({"ref": e.series_ref.to_string(), "mint": e.min_time.to_string(), "maxt": e.max_time.to_string()}),
        ),
        Record::Exemplars(r) => exemplars(&r),
        Record::MmapMarkers(r) => array(
            r.entries(),
            |e| json!({"ref": e.series_ref.to_string(), "mmap_ref": e.mmap_ref.to_string()}),
        ),
        Record::Metadata(r) => array(
            r.entries(),
            |e| json!({"ref": e.series_ref.to_string(), "type": e.metric_type, "unit": string(e.unit), "help": string(e.help)}),
        ),
        Record::Histograms(r) => array(r.entries(), |e| {
            let h = e.histogram;
            json!({
                "ref": e.series_ref.to_string(), "t": e.t.to_string(), "st": e.st.to_string(),
                "hint": h.hint, "schema": h.schema, "zero_threshold": bits(h.zero_threshold_bits),
                "zero_count": h.zero_count.to_string(), "count": h.count.to_string(), "sum": bits(h.sum_bits),
                "pos_spans": spans(&h.pos_spans), "neg_spans": spans(&h.neg_spans),
                "pos": h.pos.iter().map(|delta| delta.to_string()).collect::<Vec<_>>(),
                "neg": h.neg.iter().map(|delta| delta.to_string()).collect::<Vec<_>>(),
                "custom": floats(&h.custom),
            })
        }),
        Record::FloatHistograms(r) => array(r.entries(), |e| {
            let h = e.histogram;
            json!({
                "ref": e.series_ref.to_string(), "t": e.t.to_string(), "st": e.st.to_string(),
                "hint": h.hint, "schema": h.schema, "zero_threshold": bits(h.zero_threshold_bits),
                "zero_count": bits(h.zero_count_bits), "count": bits(h.count_bits), "sum": bits(h.sum_bits),
                "pos_spans": spans(&h.pos_spans), "neg_spans": spans(&h.neg_spans),
                "pos": floats(&h.pos), "neg": floats(&h.neg), "custom": floats(&h.custom),
            })
        }),
        Record::MinValidTime(r) => array(r.entries(), |e| json!({"mint": e.min_time.to_string()})),
        Record::Unknown(_) => json!([]),
    }
}

/// The entries of a chunk snapshot's record, of a head chunk only bounds, encoding and size.
pub fn snapshot_entries(record: &[u8]) -> Value {
    match SnapshotRecord::parse(record) {
        SnapshotRecord::Series(r) => array(std::iter::once(r.decode()), |series| {
            let mut entry = json!({"ref": series.series_ref.to_string(), "labels": labels(&series.labels)});
            if let Some(chunk) = series.chunk {
                entry["chunk"] = json!({
                    "mint": chunk.min_time.to_string(), "maxt": chunk.max_time.to_string(),
                    "encoding": chunk.encoding, "bytes": chunk.data.len(),
                });
            }
            entry
        }),
        SnapshotRecord::Tombstones(r) => array(
            r.entries(),
            |e| json!({"ref": e.series_ref.to_string(), "mint": e.min_time.to_string(), "maxt": e.max_time.to_string()}),
        ),
        SnapshotRecord::Exemplars(r) => exemplars(&r),
        SnapshotRecord::Unknown(_) => json!([]),
    }
}

fn exemplars(record: &ExemplarsRecord<'_>) -> Value {
    array(
        record.entries(),
        |e| json!({"ref": e.series_ref.to_string(), "t": e.t.to_string(), "v": bits(e.value_bits), "labels": labels(&e.labels)}),
    )
}

fn array<E, X>(entries: impl Iterator<Item = Result<E, X>>, json: impl Fn(E) -> Value) -> Value {
    Value::Array(entries.map_while(Result::ok).map(json).collect())
}

fn bits(bits: u64) -> String {
    format!("{bits:016x}")
}

fn floats(floats: &FloatBits<'_>) -> Vec<String> {
    floats.iter().map(bits).collect()
}

fn spans(spans: &Spans<'_>) -> Value {
    spans.iter().map(|span| json!([span.offset, span.length])).collect()
}

fn labels(labels: &Labels<'_>) -> Value {
    labels.iter().map(|(name, value)| json!([string(name), string(value)])).collect()
}

fn string(string: &[u8]) -> Value {
    match std::str::from_utf8(string) {
        Ok(string) => json!(string),
        Err(_) => json!({"hex": format!("{string:02x?}").replace(['[', ']', ',', ' '], "")}),
    }
}
