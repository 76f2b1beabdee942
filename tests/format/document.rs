//! The examples of docs/format.md are what walfix makes of their bytes.
//!
//! An example is a fenced block `hex <kind>`; the fenced block right after it says what the bytes mean.

use serde_json::{Value, json};
use support::canonical;
use support::test;
use walfix::record::{LastValue, RecordType, SnapshotRecord, decode_context, is_loki, summarize};
use walfix::wal::{Event, SegmentReader};

/// A fenced block: what stands behind the opening fence, the text, and the line it begins in.
struct Block {
    info: String,
    text: String,
    line: usize,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, text) in (1..).zip(document.lines()) {
        match (text.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                open = Some(Block { info: info.to_owned(), text: String::new(), line });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.extend([text, "\n"]),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

/// `62*20` is the byte 62 twenty times.
fn bytes(text: &str) -> Vec<u8> {
    let byte = |digits: &str| u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("not hex: {digits}"));
    text.split_whitespace()
        .flat_map(|word| match word.split_once('*') {
            Some((digits, count)) => vec![byte(digits); count.parse().unwrap()],
            None => vec![byte(word)],
        })
        .collect()
}

fn segment(bytes: &[u8]) -> Value {
    let mut reader = SegmentReader::new(bytes, bytes.len() as u64);
    let mut events = Vec::new();
    while let Some(event) = reader.next() {
        events.push(match event {
            Event::Record(r) => json!({
                "offset": r.offset, "end": r.end, "compression": r.compression.name(),
                "type": RecordType::of(r.data).map_or("unknown", RecordType::name), "bytes": r.data.len(),
            }),
            Event::Damage(damage) => {
                let fault = format!("{:?}", damage.fault);
                let name = fault.split(|c: char| !c.is_alphanumeric()).next();
                let with: Vec<_> = damage.orphans.iter().map(|part| [part.start, part.end]).collect();
                json!({"offset": damage.range.start, "end": damage.range.end, "damage": name, "with": with})
            }
        });
    }
    Value::Array(events)
}

fn error(record: &[u8]) -> String {
    let summary = summarize(record);
    let kind = summary.record_type.expect("a type that is known");
    format!("{}: {}\n", decode_context(kind), summary.error.expect("an error"))
}

fn snapshot_record(record: &[u8]) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    match SnapshotRecord::parse(record) {
        SnapshotRecord::Series(series) => {
            let series = series.decode().unwrap();
            let labels: Vec<_> =
                series.labels.iter().map(|pair| [pair.0, pair.1].map(|s| str::from_utf8(s).unwrap())).collect();
            let chunk = series.chunk.map(|chunk| {
                let LastValue::Float(last) = chunk.last_value else { panic!("no float") };
                json!({
                    "mint": chunk.min_time.to_string(), "maxt": chunk.max_time.to_string(),
                    "encoding": chunk.encoding, "data": hex(chunk.data), "last": format!("{last:016x}"),
                })
            });
            json!({"ref": series.series_ref.to_string(), "labels": labels, "chunk": chunk})
        }
        SnapshotRecord::Tombstones(tombstones) => tombstones
            .entries()
            .map(|entry| {
                let e = entry.unwrap();
                json!({"ref": e.series_ref.to_string(), "mint": e.min_time.to_string(), "maxt": e.max_time.to_string()})
            })
            .collect(),
        SnapshotRecord::Exemplars(_) => {
            let mut as_logged = record.to_vec();
            as_logged[0] = RecordType::Exemplars.byte();
            canonical::entries(&as_logged)
        }
        SnapshotRecord::Unknown(_) => panic!("not a record of a snapshot"),
    }
}

#[test]
fn every_example_means_what_it_says() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    let blocks = blocks(&document);
    let mut types = Vec::new();
    let mut count = 0;
    for (index, block) in blocks.iter().enumerate() {
        let Some(kind) = block.info.strip_prefix("hex") else { continue };
        let at = format!("docs/format.md:{}", block.line);
        let bytes = bytes(&block.text);
        let meaning = |info: &str| {
            let next = blocks.get(index + 1).filter(|next| next.info == info);
            next.unwrap_or_else(|| panic!("{at}: no {info} block follows")).text.as_str()
        };
        let meant = || -> Value { serde_json::from_str(meaning("json")).expect(&at) };
        match kind.trim() {
            "segment" => assert_eq!(segment(&bytes), meant(), "{at}"),
            "record" => {
                assert_eq!(canonical::entries(&bytes), meant(), "{at}");
                assert_eq!(summarize(&bytes).error, None, "{at}");
                types.extend(RecordType::of(&bytes));
            }
            "bad record" => assert_eq!(error(&bytes), meaning("text"), "{at}"),
            "snapshot record" => assert_eq!(snapshot_record(&bytes), meant(), "{at}"),
            "loki record" => assert!(is_loki(&bytes), "{at}"),
            other => panic!("{at}: no such kind of example: {other}"),
        }
        count += 1;
    }
    assert_eq!(types, RecordType::ALL, "an example of every type, in order");
    assert!(count >= 30, "only {count} examples were found");
}
