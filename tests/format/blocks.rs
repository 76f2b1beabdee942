//! Blocks that Prometheus's own writers have made: every series, chunk, sample and postings list is read as Prometheus reads it.
//!
//! `WALFIX_SEEDS=1000 cargo test --release --test format blocks::` for the long run.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::oracle::{self, Oracle};
use support::{note, seeds, test};
use walfix::block::{Index, chunk_at, parse_tombstones, postings_at};
use walfix::chunk::{Encoding, each_sample};

use crate::chunks::printed;

/// What the oracle prints of a block, but for its postings and its last line.
fn series_of(index: &Index<'_>, files: &[Vec<u8>]) -> (Vec<Value>, u64) {
    let (mut labels, mut chunks, mut all, mut samples) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut at = 0;
    while let Some(series) = index.next_series(at) {
        at = series.end;
        series.read(&mut labels, &mut chunks).unwrap();
        let text = |symbol| String::from_utf8(index.symbols.get(symbol).unwrap().to_vec()).unwrap();
        let labels: Vec<Value> =
            labels.iter().map(|label| json!([text(label.name), text(label.value)])).collect();
        let chunks: Vec<Value> = chunks
            .iter()
            .map(|chunk| {
                let file = &files[usize::try_from(chunk.file()).unwrap()];
                let stored = chunk_at(file, chunk.offset()).unwrap();
                let mut read = Vec::new();
                let encoding = Encoding::of(stored.encoding).unwrap();
                let rest = each_sample(encoding, stored.data, |sample| read.push(printed(&sample))).unwrap();
                assert!(rest.is_padding(), "{rest:?}");
                assert_eq!(encoding.count(stored.data), u16::try_from(read.len()).ok());
                samples += read.len() as u64;
                json!({
                    "ref": chunk.reference,
                    "min": chunk.min_time,
                    "max": chunk.max_time,
                    "encoding": stored.encoding,
                    "crc_ok": true,
                    "samples": read,
                    "error": null,
                })
            })
            .collect();
        let id = index.id_of(series.offset);
        all.push(json!({ "id": id, "labels": labels, "chunks": chunks, "error": null }));
    }
    (all, samples)
}

fn postings_of(index: &Index<'_>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let lists: Vec<Value> = index
        .table
        .iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let ids: Vec<u32> = postings_at(index.file(), entry.offset).unwrap().collect();
            json!([text(entry.name), text(entry.value), ids])
        })
        .collect();
    json!({ "postings": lists })
}

/// Compares a block with what the oracle says of it: samples and chunks.
fn compare(oracle: Oracle, block: &Path) -> (u64, u64) {
    let mut lines = Vec::new();
    oracle.made(&["verify", "--dump"], block, |line| lines.push(line));
    let (summary, postings) = (lines.pop().unwrap(), lines.pop().unwrap());
    let file = fs::read(block.join("index")).unwrap();
    let index = Index::open(&file).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(block.join("chunks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(name).unwrap()).collect();
    let (series, samples) = series_of(&index, &files);
    for (ours, theirs) in series.iter().zip(&lines) {
        assert_eq!(ours, theirs, "{}", block.display());
    }
    assert_eq!(series.len(), lines.len());
    assert_eq!(postings_of(&index), postings);
    let symbols: Vec<&[u8]> = index.symbols.iter().collect();
    assert_eq!(json!(symbols.len()), summary["symbols"]);
    assert!(index.symbols.are_sorted());
    for (number, symbol) in (0..).zip(&symbols) {
        assert_eq!(index.symbols.get(number), Some(*symbol));
        assert_eq!(index.symbols.name_of(symbol), Some(number));
        assert!(index.symbols.has(number));
        assert_eq!(index.symbols.name_of(&[symbol, &b"\x7f no symbol"[..]].concat()), None);
    }
    assert!(!index.symbols.has(index.symbols.count()));
    assert_eq!(json!(samples), summary["samples"]);
    let tombstones: Vec<Value> = parse_tombstones(&fs::read(block.join("tombstones")).unwrap())
        .unwrap()
        .iter()
        .map(|stone| json!([stone.series, stone.min_time, stone.max_time]))
        .collect();
    assert_eq!(json!(tombstones), summary["tombstones"]);
    (samples, summary["chunks"].as_u64().unwrap())
}

#[test]
fn blocks_are_read_as_prometheus_reads_them() {
    let oracle = oracle::judge("blocks");
    let (mut blocks, mut all) = (0, (0, 0));
    for seed in seeds(20) {
        let data = support::scratch();
        let series = (1 + 7 * (seed % 9)).to_string();
        let seed = seed.to_string();
        let made =
            oracle.json(&["blocks", "--seed", &seed, "--series", &series, "--tombstones", "3"], data.path());
        for ulid in made.as_array().unwrap() {
            let (samples, chunks) = compare(oracle, &data.path().join(ulid.as_str().unwrap()));
            all = (all.0 + samples, all.1 + chunks);
            blocks += 1;
        }
    }
    note!("{blocks} blocks, {} chunks, {} samples", all.1, all.0);
    assert!(all.0 > 0);
}
