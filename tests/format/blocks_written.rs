//! Files of blocks: of the same input, what Prometheus's writers write, to the byte.
//!
//! `WALFIX_SEEDS=2000 cargo test --release --test format blocks_written::` for the long run; `WALFIX_FIRST_SEED=n` to begin elsewhere.

use std::collections::HashMap;
use std::fs;

use serde_json::{Value, json};
use support::{note, oracle, scratch, seeds, test};
use walfix::block::write::{
    BlockStats, ChunkFileWriter, EachSeries, EachSymbol, IndexVersion, IndexWriter, MetaJson, WriteError,
    chunk_reference, tombstones,
};
use walfix::block::{BlockChunk, BlockTombstone};

/// What an index is made of.
#[derive(Default)]
struct Input {
    symbols: Vec<Vec<u8>>,
    series: Vec<Series>,
}

struct Series {
    labels: Vec<(u32, u32)>,
    chunks: Vec<BlockChunk>,
}

impl Input {
    fn symbols(&self, each: &mut EachSymbol<'_>) -> Result<(), WriteError> {
        self.symbols.iter().try_for_each(|symbol| each(symbol))
    }

    fn walk(&self, each: &mut EachSeries<'_>) -> Result<(), WriteError> {
        self.series.iter().try_for_each(|series| each(&series.labels))
    }

    fn symbol(&self, number: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.symbols[number as usize]);
    }

    /// The index, and how often all series were asked for.
    fn write(&self, version: IndexVersion, ids_per_pass: Option<usize>) -> (Vec<u8>, usize) {
        let mut writer = IndexWriter::new(Vec::new(), version, |each| self.symbols(each)).unwrap();
        if let Some(ids) = ids_per_pass {
            writer.set_ids_per_pass(ids);
        }
        for series in &self.series {
            writer.series(&series.labels, &series.chunks).unwrap();
        }
        let mut passes = 0;
        let walk = |each: &mut EachSeries<'_>| {
            passes += 1;
            self.walk(each)
        };
        let written = writer.finish(walk, |number, out| {
            self.symbol(number, out);
            Ok(())
        });
        (written.unwrap(), passes)
    }
}

fn bytes(digits: &Value) -> Vec<u8> {
    let digits = digits.as_str().unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Where two files differ.
fn difference(ours: &[u8], theirs: &[u8]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let near = |bytes: &[u8]| format!("{:02x?}", &bytes[at.min(bytes.len())..(at + 16).min(bytes.len())]);
    format!("{} and {} bytes; from {at} on {} and {}", ours.len(), theirs.len(), near(ours), near(theirs))
}

#[test]
fn an_index_is_written_as_prometheus_does() {
    let oracle = oracle::judge("the index of a block");
    let (mut series, mut lists, mut several) = (0, 0, 0);
    for seed in seeds(150) {
        let dir = scratch();
        let (mut input, mut numbers) = (Input::default(), HashMap::new());
        oracle.made(&["index", "--seed", &seed.to_string()], dir.path(), |line| {
            if line.get("symbol").is_some() {
                let symbol = bytes(&line["symbol"]);
                numbers.insert(symbol.clone(), u32::try_from(input.symbols.len()).unwrap());
                input.symbols.push(symbol);
                return;
            }
            let number = |text: &Value| numbers[&bytes(text)];
            let labels = array(&line["labels"]).iter().map(|l| (number(&l[0]), number(&l[1]))).collect();
            let chunks = array(&line["chunks"]).iter().map(|c| BlockChunk {
                reference: c["ref"].as_u64().unwrap(),
                min_time: c["min_time"].as_i64().unwrap(),
                max_time: c["max_time"].as_i64().unwrap(),
            });
            input.series.push(Series { labels, chunks: chunks.collect() });
        });
        let theirs = fs::read(dir.path().join("index")).unwrap();
        let (ours, passes) = input.write(IndexVersion::V2, None);
        assert!(ours == theirs, "seed {seed}: {}", difference(&ours, &theirs));
        assert_eq!(passes, usize::from(!input.series.is_empty()), "seed {seed}");
        // The passes are a matter of memory.
        for ids in [0, 1000] {
            let (ours, passes) = input.write(IndexVersion::V2, Some(ids));
            assert!(ours == theirs, "seed {seed}: {}", difference(&ours, &theirs));
            several += usize::from(passes > 1);
        }
        let (mut ours, _) = input.write(IndexVersion::V3, None);
        assert_eq!(ours[4], 3);
        ours[4] = 2;
        assert!(ours == theirs, "seed {seed}: {}", difference(&ours, &theirs));
        series += input.series.len();
        lists += theirs.len();
    }
    note!("{series} series in {lists} bytes; {several} in several passes");
    assert!(series > 0 && several > 0, "{series} {several}");
}

#[test]
fn files_of_a_block_are_written_as_prometheus_does() {
    let oracle = oracle::judge("files of a block");
    let (mut chunks, mut files, mut with_stones) = (0, 0, 0);
    for seed in seeds(150) {
        let dir = scratch();
        let full = 4096;
        let args = ["blockfiles", "--seed", &seed.to_string(), "--segment-bytes", &full.to_string()];
        let mut writers = vec![ChunkFileWriter::new(Vec::new()).unwrap()];
        let (mut stones, mut meta) = (Vec::new(), None);
        oracle.made(&args, dir.path(), |line| {
            if let Some(chunk) = line.get("chunk") {
                let data = bytes(&chunk["data"]);
                if !writers.last().unwrap().has_room(data.len(), full) {
                    writers.push(ChunkFileWriter::new(Vec::new()).unwrap());
                }
                let file = u32::try_from(writers.len() - 1).unwrap();
                let encoding = u8::try_from(chunk["encoding"].as_u64().unwrap()).unwrap();
                let at = writers.last_mut().unwrap().chunk(encoding, &data).unwrap();
                assert_eq!(chunk_reference(file, at), chunk["ref"].as_u64().unwrap(), "seed {seed}");
                chunks += 1;
            } else if let Some(stone) = line.get("tombstone") {
                stones.push(BlockTombstone {
                    series: stone["ref"].as_u64().unwrap(),
                    min_time: stone["min_time"].as_i64().unwrap(),
                    max_time: stone["max_time"].as_i64().unwrap(),
                });
            } else {
                let number = |key: &str| line["meta"]["stats"][key].as_u64().unwrap_or(0);
                let stats = BlockStats {
                    samples: number("numSamples"),
                    float_samples: number("numFloatSamples"),
                    histogram_samples: number("numHistogramSamples"),
                    series: number("numSeries"),
                    chunks: number("numChunks"),
                    tombstones: number("numTombstones"),
                };
                let time = |key: &str| line["meta"][key].as_i64().unwrap();
                let ulid = line["meta"]["ulid"].as_str().unwrap();
                meta = Some(MetaJson::new(ulid, time("minTime"), time("maxTime") - 1, &stats));
            }
        });
        assert_eq!(fs::read_dir(dir.path().join("chunks")).unwrap().count(), writers.len(), "seed {seed}");
        files += writers.len();
        for (index, writer) in writers.into_iter().enumerate() {
            let theirs = fs::read(dir.path().join(format!("chunks/{:06}", index + 1))).unwrap();
            assert_eq!(writer.written(), theirs.len() as u64);
            let ours = writer.finish().unwrap();
            assert!(ours == theirs, "seed {seed}: {}", difference(&ours, &theirs));
        }
        with_stones += usize::from(!stones.is_empty());
        let (ours, theirs) = (tombstones(stones), fs::read(dir.path().join("tombstones")).unwrap());
        assert!(ours == theirs, "seed {seed}: {}", difference(&ours, &theirs));
        let (ours, theirs) = (meta.unwrap(), fs::read_to_string(dir.path().join("meta.json")).unwrap());
        assert_eq!(String::from_utf8(ours.to_bytes()).unwrap(), theirs, "seed {seed}");
        let again = MetaJson::parse(theirs.as_bytes()).unwrap();
        assert_eq!(again.to_bytes(), theirs.as_bytes(), "seed {seed}");
    }
    note!("{chunks} chunks in {files} files; {with_stones} blocks with tombstones");
    assert!(chunks > files && with_stones > 0, "{chunks} {files} {with_stones}");
}

#[test]
fn a_document_keeps_what_is_not_set() {
    let document = r#"{
	"version": 1,
	"ulid": "01BKGV7JBM69T2G1BGBGM6KB12",
	"minTime": 1,
	"maxTime": 2,
	"stats": {
		"numSamples": 9,
		"numTombstones": 3,
		"numOther": 5
	},
	"compaction": {
		"level": 3,
		"sources": [],
		"hints": [
			"from-out-of-order"
		]
	},
	"thanos": {
		"labels": {
			"zone": "\"ü\"",
			"area": ""
		},
		"downsample": {
			"resolution": 0
		},
		"ratio": 0.25,
		"extensions": {},
		"none": null,
		"yes": true
	}
}"#;
    let mut meta = MetaJson::parse(document.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(meta.to_bytes()).unwrap(), document);
    meta.set_times(-5, i64::MAX);
    meta.set_stats(&BlockStats { samples: 8, series: 1, ..BlockStats::default() });
    meta.set(&["compaction", "level"], json!(4));
    meta.set(&["compaction", "failed"], json!(true));
    let expected = document
        .replace("\"minTime\": 1", "\"minTime\": -5")
        .replace("\"maxTime\": 2", "\"maxTime\": 9223372036854775807")
        .replace("\"numSamples\": 9,\n\t\t\"numTombstones\": 3", "\"numSamples\": 8")
        .replace("\"numOther\": 5", "\"numOther\": 5,\n\t\t\"numSeries\": 1")
        .replace("\"level\": 3", "\"level\": 4")
        .replace("\"from-out-of-order\"\n\t\t]", "\"from-out-of-order\"\n\t\t],\n\t\t\"failed\": true");
    assert_eq!(String::from_utf8(meta.to_bytes()).unwrap(), expected);

    // Prometheus reads keys of any case, and the last of two.
    let mut twice = MetaJson::parse(br#"{"MINTIME":1,"minTime":2,"stats":7}"#).unwrap();
    twice.set_times(3, 3);
    twice.set_stats(&BlockStats { chunks: 1, ..BlockStats::default() });
    let written: String = String::from_utf8(twice.to_bytes()).unwrap().split_whitespace().collect();
    assert_eq!(written, r#"{"MINTIME":3,"minTime":3,"stats":{"numChunks":1},"maxTime":4}"#);

    for wrong in ["", "[]", "7", "{", "{} 1", &"[".repeat(100_000)] {
        assert!(MetaJson::parse(wrong.as_bytes()).is_err(), "{wrong:.20}");
    }
}

/// Symbols 0 to 4.
fn small() -> IndexWriter<Vec<u8>> {
    IndexWriter::new(Vec::new(), IndexVersion::V2, |each| {
        ["", "a", "b", "c", "d"].iter().try_for_each(|symbol| each(symbol.as_bytes()))
    })
    .unwrap()
}

fn chunk(reference: u64, min_time: i64, max_time: i64) -> BlockChunk {
    BlockChunk { reference, min_time, max_time }
}

/// What Prometheus's writer refuses is refused, and the next series is as if it had not been there.
#[test]
fn what_is_out_of_order_is_refused() {
    let finish = |writer: IndexWriter<Vec<u8>>| {
        let symbol = |number: u32, out: &mut Vec<u8>| {
            out.extend_from_slice([&b""[..], b"a", b"b", b"c", b"d"][number as usize]);
            Ok(())
        };
        writer.finish(|each| [(1, 2), (1, 3)].iter().try_for_each(|label| each(&[*label])), symbol).unwrap()
    };
    let (mut refusing, mut other) = (small(), small());
    assert!(matches!(refusing.series(&[], &[]), Err(WriteError::SeriesOrder(0))));
    for writer in [&mut refusing, &mut other] {
        writer.series(&[(1, 2)], &[chunk(7, -4, -4), chunk(7, -3, 9)]).unwrap();
    }
    let refused = [
        refusing.series(&[(1, 2)], &[]),
        refusing.series(&[(1, 1), (2, 2)], &[]),
        refusing.series(&[(2, 1), (2, 2)], &[]),
        refusing.series(&[(2, 1), (1, 2)], &[]),
        refusing.series(&[(2, 5)], &[]),
        refusing.series(&[(5, 1)], &[]),
        refusing.series(&[(2, 1)], &[chunk(6, 0, 0)]),
        refusing.series(&[(2, 1)], &[chunk(7, 0, 5), chunk(8, 5, 6)]),
        refusing.series(&[(2, 1)], &[chunk(7, 0, -1)]),
    ];
    let words: Vec<String> = refused.into_iter().map(|refused| refused.unwrap_err().to_string()).collect();
    assert_eq!(
        words,
        [
            "series 1 is not above the one before it, or has no labels",
            "series 1 is not above the one before it, or has no labels",
            "the labels of series 1 are not in order",
            "the labels of series 1 are not in order",
            "there is no symbol 5",
            "there is no symbol 5",
            "series 1 has a chunk with a reference below the one before it",
            "series 1 has chunks that overlap, or a chunk that ends before it begins",
            "series 1 has chunks that overlap, or a chunk that ends before it begins",
        ]
    );
    for writer in [&mut refusing, &mut other] {
        writer.series(&[(1, 3)], &[chunk(7, i64::MIN, i64::MAX)]).unwrap();
    }
    assert_eq!(finish(refusing), finish(other));

    for symbols in [&["b", "a"][..], &["a", "a"], &["", ""]] {
        let writer = IndexWriter::new(Vec::new(), IndexVersion::V2, |each| {
            symbols.iter().try_for_each(|symbol| each(symbol.as_bytes()))
        });
        assert!(matches!(writer, Err(WriteError::SymbolOrder(1))), "{symbols:?}");
    }
}

/// A source that reads from a failing disk must not make an index that contradicts itself.
#[test]
fn other_series_or_symbols_than_before_are_noticed() {
    let mut calls = 0;
    let writer = IndexWriter::new(Vec::new(), IndexVersion::V2, |each| {
        calls += 1;
        ["a", "b", "c"].iter().take(4 - calls).try_for_each(|symbol| each(symbol.as_bytes()))
    });
    assert!(matches!(writer, Err(WriteError::Changed("symbols"))));

    let walks: [&[&[(u32, u32)]]; 5] = [
        &[&[(1, 1)]],
        &[&[(1, 1)], &[(1, 2)], &[(1, 3)]],
        &[&[(1, 1)], &[(2, 2)]],
        &[&[(1, 1)], &[]],
        &[&[(1, 1)], &[(1, 9)]],
    ];
    for walk in walks {
        let mut writer = small();
        writer.series(&[(1, 1)], &[]).unwrap();
        writer.series(&[(1, 2)], &[]).unwrap();
        let written =
            writer.finish(|each| walk.iter().try_for_each(|labels| each(labels)), |_, _| Ok(())).unwrap_err();
        assert!(matches!(written, WriteError::Changed("series") | WriteError::NoSymbol(9)), "{written:?}");
    }

    let mut writer = small();
    writer.series(&[(1, 1)], &[]).unwrap();
    let written = writer.finish(|each| each(&[(1, 1)]), |_, _| Ok(()));
    assert!(matches!(written, Err(WriteError::Changed("symbols"))), "{written:?}");
}
