//! Blocks that are damaged, repaired, opened and compacted by Prometheus's own packages, and put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::oracle::{self, Oracle};
use support::server::copy_directory;
use support::tree::{self, Tree};
use support::{note, scratch, seeds, test};
use tempfile::TempDir;
use walfix::block::write::{EachSeries, EachSymbol, IndexVersion, IndexWriter};
use walfix::block::{BlockChunk, Index, SalvagedIndex, postings_at};
use walfix::fix::{self, Outcome, Request};
use walfix::record::{DeletionsLost, SampleEntry, encode_samples, encode_series};
use walfix::repair::plan::{Change, Plan};
use walfix::repair::{self, Refusal};
use walfix::scan::blocks::Depth;
use walfix::scan::report::{Report, Severity, Verdict};
use walfix::tsdb::Target;
use walfix::wal::Compression;
use walfix::wal::writer::SegmentWriter;

/// What is read of a block: the samples of each chunk, by the labels of its series and its ref.
type Chunks = BTreeMap<(String, u64), Vec<String>>;

/// What the oracle reads of a block.
#[derive(Default)]
struct Dump {
    chunks: Chunks,
    /// The ids of series.
    ids: BTreeMap<String, u64>,
    /// Errors, and that it does not open.
    errors: Vec<String>,
    tombstones: Vec<Value>,
}

fn dump(oracle: Oracle, block: &Path) -> Dump {
    let mut dump = Dump::default();
    oracle.made(&["verify", "--dump"], block, |line| {
        if line.get("errors_count").is_some() {
            let texts = [&line["open_error"], &line["postings_error"], &line["symbols_error"]];
            dump.errors.extend(texts.iter().filter_map(|text| text.as_str()).map(ToOwned::to_owned));
            let errors = line["errors"].as_array().unwrap();
            dump.errors.extend(errors.iter().map(ToString::to_string));
            dump.tombstones.clone_from(line["tombstones"].as_array().unwrap());
        } else if let Some(id) = line.get("id") {
            let labels = line["labels"].to_string();
            for chunk in line["chunks"].as_array().unwrap() {
                if chunk["error"].is_null() {
                    let samples = chunk["samples"].as_array().unwrap();
                    let samples = samples.iter().map(|sample| sample.as_str().unwrap().to_owned()).collect();
                    dump.chunks.insert((labels.clone(), chunk["ref"].as_u64().unwrap()), samples);
                }
            }
            if line["error"].is_null() {
                dump.ids.insert(labels, id.as_u64().unwrap());
            }
        } else if line.get("error").is_some() {
            dump.errors.push(line["error"].to_string());
        }
    });
    dump
}

/// A data directory with blocks.
struct Blocks {
    dir: TempDir,
    ulids: Vec<String>,
    oracle: Oracle,
}

impl Blocks {
    fn new(oracle: Oracle, args: &[&str]) -> Self {
        let dir = scratch();
        fs::create_dir(dir.path().join("wal")).unwrap();
        let made = oracle.json(&[&["blocks"], args].concat(), dir.path());
        let ulids = made.as_array().unwrap().iter().map(|ulid| ulid.as_str().unwrap().to_owned()).collect();
        Self { dir, ulids, oracle }
    }

    /// Some series in several files of chunks.
    fn usual(oracle: Oracle) -> Self {
        Self::new(oracle, &["--seed", "7", "--series", "120", "--hard", "--blocks", "2"])
    }

    fn data(&self) -> &Path {
        self.dir.path()
    }

    fn block(&self) -> PathBuf {
        self.data().join(&self.ulids[0])
    }

    fn file(&self, name: &str) -> PathBuf {
        self.block().join(name)
    }

    fn dump(&self) -> Dump {
        dump(self.oracle, &self.block())
    }

    fn tree(&self) -> Tree {
        let mut tree = tree::tree(self.data());
        tree.retain(|path, _| path != "lock" && !path.is_empty());
        tree
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).unwrap();
        change(&mut bytes);
        fs::write(self.file(name), bytes).unwrap();
    }

    fn request<'a>() -> Request<'a> {
        let how = walfix::verdict::Options { depth: Depth::Samples, ..Default::default() };
        Request { how, ..Request::default() }
    }

    fn fix(&self, request: &Request<'_>) -> (Plan, Option<Box<fix::Repaired>>) {
        let fixed = fix::fix(&Target::find(self.data()).unwrap(), request, &()).unwrap();
        match fixed.outcome {
            Outcome::Repaired(repaired) => (fixed.planned.plan, Some(repaired)),
            _ => (fixed.planned.plan, None),
        }
    }

    fn scan(&self) -> Report {
        let request = Self::request();
        let preview = fix::preview(&Target::find(self.data()).unwrap(), &request, &()).unwrap();
        preview.planned.report
    }

    /// Repairs all; what is served then is all that was, but for the chunks in `lost`. Then all is put back.
    fn repaired(&self, name: &str, before: &Dump, lost: &BTreeSet<(String, u64)>) -> Plan {
        let damaged = self.tree();
        let (plan, repaired) = self.fix(&Self::request());
        let repaired = repaired.unwrap_or_else(|| panic!("{name}: {plan:#?}"));
        assert!(plan.left.is_empty(), "{name}: {:#?}", plan.left);
        is_clean(name, &repaired.after);
        let after = self.dump();
        assert!(after.errors.is_empty(), "{name}: {:?}", after.errors);
        let mut expected = before.chunks.clone();
        expected.retain(|key, _| !lost.contains(key));
        assert_eq!(
            after.chunks.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{name}: {plan:#?}"
        );
        assert_eq!(after.chunks, expected, "{name}");
        // Tombstones name series by these.
        for (labels, id) in &after.ids {
            assert_eq!(before.ids[labels], *id, "{name}");
        }
        self.opens_and_compacts(name);
        let undone = repair::undo(&repaired.backup.unwrap()).unwrap();
        assert_eq!((undone.steps, undone.left), (plan.steps.len(), 0), "{name}");
        assert_eq!(tree::difference(&damaged, &self.tree()), None, "{name}");
        plan
    }

    /// A server opens the directory, serves all samples that are not deleted, and compacts all blocks.
    fn opens_and_compacts(&self, name: &str) {
        let copy = scratch();
        for ulid in self.ulids.iter().filter(|ulid| self.data().join(ulid).is_dir()) {
            tree::copy(&self.data().join(ulid), &copy.path().join(ulid));
        }
        let opened = self.oracle.json(&["open", "--summary"], copy.path());
        assert!(opened["open_error"].is_null() && opened["query_error"].is_null(), "{name}: {opened}");
        let mut samples = 0;
        for ulid in self.ulids.iter().filter(|ulid| copy.path().join(ulid).is_dir()) {
            let dump = dump(self.oracle, &copy.path().join(ulid));
            assert!(dump.errors.is_empty(), "{name}: {:?}", dump.errors);
            samples += if dump.tombstones.is_empty() { dump.chunks.values().map(Vec::len).sum() } else { 0 };
        }
        let served = usize::try_from(opened["num_samples"].as_u64().unwrap()).unwrap();
        assert!(served >= samples, "{name}: {served} {samples}");
        let compacted = self.oracle.json(&["compact"], copy.path());
        assert!(compacted["error"].is_null(), "{name}: {compacted}");
    }
}

fn is_clean(name: &str, report: &Report) {
    let loud: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.severity != Severity::Note)
        .map(|f| (f.code, f.message()))
        .collect();
    assert!(report.verdict == Verdict::Clean && loud.is_empty(), "{name}: {loud:?} {:?}", report.reasons);
}

fn none() -> BTreeSet<(String, u64)> {
    BTreeSet::new()
}

/// Chunks in the file at that place, from 0 on.
fn of_file(dump: &Dump, place: u64) -> BTreeSet<(String, u64)> {
    dump.chunks.keys().filter(|(_, reference)| reference >> 32 == place).cloned().collect()
}

/// A series never needs more room without some of its chunks: the next one is where it was.
#[test]
fn a_series_without_some_of_its_chunks_fits_where_it_was() {
    let symbols = |each: &mut EachSymbol<'_>| ["", "a", "b", "c"].iter().try_for_each(|s| each(s.as_bytes()));
    for seed in seeds(3000) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let number = |rng: &mut fastrand::Rng| rng.u64(..) >> rng.u32(1..64);
        // As far as a 64-bit number goes, or from there back.
        let mut time = number(&mut rng).cast_signed() >> rng.u32(..20);
        time = if rng.bool() { time } else { -time };
        let mut reference = number(&mut rng) >> 20;
        let mut chunks = Vec::new();
        for _ in 0..rng.usize(1..8) {
            let (min_time, steps) = (time, (number(&mut rng) >> 8, number(&mut rng) >> 8));
            let Some(max_time) = min_time.checked_add_unsigned(steps.0) else { break };
            chunks.push(BlockChunk { reference, min_time, max_time });
            let Some(next) = max_time.checked_add_unsigned(steps.1 + 1) else { break };
            time = next;
            reference += number(&mut rng) >> 20;
        }
        let after = BlockChunk { reference: u64::MAX, min_time: 5, max_time: 9 };
        let mut writer = IndexWriter::new(Vec::new(), IndexVersion::V2, symbols).unwrap();
        writer.series(&[(1, 2)], &chunks).unwrap();
        writer.series(&[(1, 3)], &[after]).unwrap();
        let text = |number: u32, out: &mut Vec<u8>| {
            out.extend_from_slice(["", "a", "b", "c"][number as usize].as_bytes());
            Ok(())
        };
        let walk =
            |each: &mut EachSeries<'_>| [[(1, 2)], [(1, 3)]].iter().try_for_each(|labels| each(labels));
        let whole = writer.finish(walk, text).unwrap();
        let index = SalvagedIndex::open(&whole).unwrap();
        let (mut labels, mut found) = (Vec::new(), Vec::new());
        let first = index.next_series(0, &mut labels, &mut found).unwrap();
        assert_eq!(found, chunks, "seed {seed}");
        let mut some = chunks.clone();
        some.retain(|_| rng.u8(..3) > 0);
        let mut again = IndexWriter::continuing(Vec::new(), &index).unwrap();
        again.series_at(first.offset, &labels, &some).unwrap();
        let second = index.next_series(first.end, &mut labels, &mut found).unwrap();
        assert_eq!(found, [after], "seed {seed}");
        again
            .stored_series(&second, &labels)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}: {chunks:?} {some:?}"));
        let written = again.finish(walk, text).unwrap();
        if some.len() == chunks.len() {
            assert!(written == whole, "seed {seed}");
        }
        assert!(written.len() <= whole.len());
        Index::open(&written).unwrap();
    }
}

/// Damages a file of a block, and says how.
fn damage(blocks: &Blocks, rng: &mut fastrand::Rng) -> String {
    let mut names: Vec<String> = ["index"; 6].map(ToOwned::to_owned).to_vec();
    names.extend(["meta.json", "tombstones"].map(ToOwned::to_owned));
    let mut of_chunks: Vec<String> = fs::read_dir(blocks.file("chunks"))
        .unwrap()
        .map(|entry| format!("chunks/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    of_chunks.sort_unstable();
    names.extend(of_chunks);
    let name = names[rng.usize(..names.len())].clone();
    let Ok(mut bytes) = fs::read(blocks.file(&name)) else { return String::new() };
    if bytes.is_empty() {
        return String::new();
    }
    let at = rng.usize(..bytes.len());
    let until = (at + [1, 16, 300, 5000][rng.usize(..4)]).min(bytes.len());
    // What stays JSON is for nobody to notice.
    let kind = if name == "meta.json" { [2, 3, 6][rng.usize(..3)] } else { rng.usize(..7) };
    match kind {
        0 | 1 => bytes[at] ^= 1 << rng.u32(..8),
        2 => bytes.truncate(at),
        3 => bytes[at..until].fill(0),
        4 => bytes[at..until].iter_mut().for_each(|byte| *byte = rng.u8(..)),
        5 => bytes.rotate_left(at % 64),
        _ if name.starts_with("chunks/") || name == "meta.json" || rng.u8(..8) == 0 => {
            // A missing file of tombstones is none that is damaged.
            if name != "tombstones" {
                fs::remove_file(blocks.file(&name)).unwrap();
                return format!("{name} removed");
            }
        }
        _ => bytes.truncate(bytes.len() - (bytes.len() - at).min(100)),
    }
    fs::write(blocks.file(&name), bytes).unwrap();
    format!("{name} {kind} {at}..{until}")
}

/// The chunks of which nothing is damaged: neither their bytes, nor their series, nor the symbols.
fn undamaged(blocks: &Blocks, before: &Dump, intact: &Tree) -> BTreeSet<(String, u64)> {
    let bytes_of = |name: &str| {
        let old = intact.get(&format!("{}/{name}", blocks.ulids[0])).and_then(|entry| entry.bytes.clone());
        (old.unwrap_or_default(), fs::read(blocks.file(name)).unwrap_or_default())
    };
    let same = |(old, new): &(Vec<u8>, Vec<u8>), from: usize, to: usize| {
        old.get(from..to).is_some_and(|old| new.get(from..to) == Some(old))
    };
    let index = bytes_of("index");
    let opened = Index::open(&index.0).unwrap();
    if !same(&index, 5, usize::try_from(opened.symbols.end()).unwrap()) {
        return none();
    }
    let files: Vec<_> = (0..40).map(|place| bytes_of(&chunk_file(place))).collect();
    let is_intact = |(labels, reference): &(String, u64)| {
        let at = before.ids[labels] * 16;
        let series = walfix::block::series_at(&index.0, at).unwrap();
        let file = &files[usize::try_from(reference >> 32).unwrap()];
        let offset = reference & 0xffff_ffff;
        let end = walfix::block::chunk_at(&file.0, offset).unwrap().end;
        let place = |offset: u64| usize::try_from(offset).unwrap();
        same(&index, place(at), place(series.end)) && same(file, place(offset), place(end))
    };
    before.chunks.keys().filter(|chunk| is_intact(chunk)).cloned().collect()
}

#[test]
fn whatever_is_damaged_all_that_is_not_is_kept() {
    let oracle = oracle::judge("blocks with random damage");
    let bases: Vec<Blocks> = [
        vec!["--seed", "1", "--series", "60", "--hard", "--tombstones", "9"],
        vec!["--seed", "2", "--series", "15", "--chunks", "9"],
        vec!["--seed", "3", "--series", "150", "--hard", "--chunks", "2"],
    ]
    .iter()
    .map(|args| Blocks::new(oracle, args))
    .collect();
    let befores: Vec<(Dump, Tree)> = bases.iter().map(|base| (base.dump(), base.tree())).collect();
    let (mut repaired, mut renamed, mut rewritten, mut as_is, mut lost, mut kept) = (0, 0, 0, 0, 0, 0);
    for seed in seeds(60) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let which = rng.usize(..bases.len());
        let (before, intact) = &befores[which];
        let dir = scratch();
        for name in ["wal", &bases[which].ulids[0]] {
            tree::copy(&bases[which].data().join(name), &dir.path().join(name));
        }
        let blocks = Blocks { dir, ulids: bases[which].ulids.clone(), oracle };
        let made: Vec<String> = (0..rng.usize(1..5)).map(|_| damage(&blocks, &mut rng)).collect();
        let name = format!("seed {seed}: {made:?}");
        let (damaged, readable) = (blocks.tree(), blocks.dump());
        let expected = undamaged(&blocks, before, intact);
        let (plan, done) = blocks.fix(&Blocks::request());
        let after = if blocks.block().exists() { blocks.dump() } else { Dump::default() };
        let of_after: BTreeSet<_> = after.chunks.keys().cloned().collect();
        let missing: Vec<_> = expected.difference(&of_after).take(3).collect();
        assert!(missing.is_empty() || !plan.left.is_empty(), "{name}: {missing:?} {plan:#?}");
        for (chunk, samples) in &readable.chunks {
            assert_eq!(after.chunks.get(chunk), Some(samples), "{name}: {chunk:?}");
        }
        for (chunk, samples) in &after.chunks {
            assert_eq!(before.chunks.get(chunk), Some(samples), "{name}: {chunk:?}");
        }
        kept += after.chunks.len();
        lost += before.chunks.len() - after.chunks.len();
        let Some(done) = done else {
            as_is += 1;
            continue;
        };
        repaired += 1;
        if plan.left.is_empty() {
            let damage = done.after.of_severity(Severity::Damage).next();
            assert!(damage.is_none(), "{name}: {damage:?} {plan:#?}");
        }
        if !blocks.block().exists() {
            renamed += 1;
        } else if plan.left.is_empty() {
            assert!(after.errors.is_empty(), "{name}: {:?}", after.errors);
            blocks.opens_and_compacts(&name);
        }
        rewritten += usize::from(plan.steps.iter().any(|step| step.change.is_rewrite()));
        repair::undo(&done.backup.unwrap()).unwrap();
        assert_eq!(tree::difference(&damaged, &blocks.tree()), None, "{name}");
    }
    note!(
        "{repaired} repaired, of these {rewritten} with a rewritten index and {renamed} renamed; {as_is} as they were"
    );
    note!("{kept} chunks kept, {lost} lost");
    assert!(rewritten > 0 && renamed > 0, "{rewritten} {renamed}");
}

fn chunk_file(place: u64) -> String {
    format!("chunks/{:06}", place + 1)
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 0x10;
}

#[test]
fn chunks_that_cannot_be_read_are_dropped() {
    let blocks = Blocks::usual(oracle::judge("blocks with damaged chunks"));
    let before = blocks.dump();
    let chunks: Vec<_> = before.chunks.keys().cloned().collect();
    // One of a series, all of a series, and some at random.
    let of_series: Vec<_> = chunks.iter().filter(|(labels, _)| *labels == chunks[20].0).cloned().collect();
    let sets: [Vec<(String, u64)>; 3] =
        [vec![chunks[3].clone()], of_series, chunks.iter().step_by(7).cloned().collect()];
    let intact = blocks.tree();
    for (number, set) in sets.into_iter().enumerate() {
        for (_, reference) in &set {
            let at = usize::try_from(reference & 0xffff_ffff).unwrap();
            blocks.change(&chunk_file(reference >> 32), |bytes| flip(bytes, at + 4));
        }
        let lost = set.into_iter().collect();
        let plan = blocks.repaired(&format!("set {number}"), &before, &lost);
        let [index, meta] = plan.steps.as_slice() else { panic!("{plan:#?}") };
        assert!(
            matches!(index.change, Change::RewriteIndex { .. }) && meta.change.path().ends_with("meta.json")
        );
        restore(&blocks, &intact);
    }
    is_clean("intact", &blocks.scan());
}

fn restore(blocks: &Blocks, tree: &Tree) {
    for (path, entry) in tree {
        if let Some(bytes) = &entry.bytes {
            fs::write(blocks.data().join(path), bytes).unwrap();
        }
    }
}

/// A damage of an index.
type Damage<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

#[test]
fn all_of_an_index_is_made_again_from_its_symbols_and_series() {
    let blocks = Blocks::usual(oracle::judge("blocks with damaged indices"));
    let (before, intact) = (blocks.dump(), blocks.tree());
    let original = fs::read(blocks.file("index")).unwrap();
    let index = Index::open(&original).unwrap();
    let toc = index.toc;
    let place = |offset: u64| usize::try_from(offset).unwrap();
    let list = index.table.iter().nth(40).unwrap().unwrap().offset;
    assert!(postings_at(&original, list).is_ok());
    let length = original.len();
    let damages: Vec<(&str, Damage<'_>)> = vec![
        ("magic", Box::new(|bytes| flip(bytes, 1))),
        ("version", Box::new(|bytes| flip(bytes, 4))),
        ("toc", Box::new(move |bytes| flip(bytes, length - 20))),
        ("table", Box::new(move |bytes| flip(bytes, place(toc.postings_table) + 30))),
        ("list", Box::new(move |bytes| flip(bytes, place(list) + 9))),
        (
            "all lists",
            Box::new(move |bytes| bytes[place(toc.postings)..place(toc.postings_table)].fill(0xff)),
        ),
        ("end", Box::new(move |bytes| bytes.truncate(place(toc.postings) + 1))),
        ("end of zeros", Box::new(move |bytes| bytes[place(toc.postings)..].fill(0))),
    ];
    for (name, damage) in damages {
        blocks.change("index", |bytes| damage(bytes));
        let plan = blocks.repaired(name, &before, &none());
        assert_eq!(plan.steps.len(), 1, "{name}: {plan:#?}");
        // Nothing is lost, so it is as it was.
        let (_, repaired) = blocks.fix(&Blocks::request());
        assert!(fs::read(blocks.file("index")).unwrap() == original, "{name}");
        fs::remove_dir_all(repaired.unwrap().backup.unwrap()).unwrap();
        restore(&blocks, &intact);
    }
}

#[test]
fn a_damaged_series_goes_alone() {
    let blocks = Blocks::usual(oracle::judge("blocks with damaged series"));
    let (before, intact) = (blocks.dump(), blocks.tree());
    for number in [0, 50, before.ids.len() - 1] {
        let (labels, id) = before.ids.iter().nth(number).unwrap();
        blocks.change("index", |bytes| flip(bytes, usize::try_from(*id).unwrap() * 16 + 5));
        let lost = before.chunks.keys().filter(|(of, _)| of == labels).cloned().collect();
        blocks.repaired(labels, &before, &lost);
        restore(&blocks, &intact);
    }
}

#[test]
fn meta_json_is_made_again() {
    let blocks = Blocks::usual(oracle::judge("blocks without meta.json"));
    let (before, original) = (blocks.dump(), fs::read(blocks.file("meta.json")).unwrap());
    fs::remove_file(blocks.file("meta.json")).unwrap();
    blocks.repaired("missing", &before, &none());
    for text in ["", "{", "[]", "{\"version\": 1, \"minTime\": \"x\"}", "{\"version\": 0}"] {
        fs::write(blocks.file("meta.json"), text).unwrap();
        blocks.repaired(text, &before, &none());
    }
    // Of the same counts.
    blocks.fix(&Blocks::request());
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let (old, new) = (read(&original), read(&fs::read(blocks.file("meta.json")).unwrap()));
    for key in ["ulid", "stats", "compaction", "version"] {
        assert_eq!(old[key], new[key], "{key}");
    }
    assert!(new["minTime"].as_i64() >= old["minTime"].as_i64());
    assert!(new["maxTime"].as_i64() <= old["maxTime"].as_i64());
    // A newer one is nobody's to overwrite.
    fs::write(blocks.file("meta.json"), "{\"version\": 3}").unwrap();
    let (plan, repaired) = blocks.fix(&Blocks::request());
    assert!(repaired.is_none());
    assert_eq!(plan.left[0].refusal, Refusal::BlockNewer);
}

#[test]
fn other_keys_of_meta_json_stay() {
    let blocks = Blocks::usual(oracle::judge("blocks with more in meta.json"));
    let before = blocks.dump();
    blocks.change("meta.json", |bytes| {
        let mut meta: Value = serde_json::from_slice(bytes).unwrap();
        meta["own"] = serde_json::json!({ "a": [1, 2.5, "ä"] });
        meta["compaction"]["hints"] = serde_json::json!(["from-out-of-order"]);
        *bytes = serde_json::to_vec(&meta).unwrap();
    });
    let (key, reference) = before.chunks.keys().next().unwrap();
    let at = usize::try_from(reference & 0xffff_ffff).unwrap();
    blocks.change(&chunk_file(reference >> 32), |bytes| flip(bytes, at + 4));
    blocks.repaired("keys", &before, &[(key.clone(), *reference)].into());
    blocks.fix(&Blocks::request());
    let meta: Value = serde_json::from_slice(&fs::read(blocks.file("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["own"]["a"][1], 2.5);
    assert_eq!(meta["compaction"]["hints"][0], "from-out-of-order");
}

#[test]
fn tombstones_that_can_be_read_are_kept() {
    let oracle = oracle::judge("blocks with damaged tombstones");
    let blocks =
        Blocks::new(oracle, &["--seed", "3", "--series", "40", "--chunks", "1", "--tombstones", "30"]);
    let (before, original) = (blocks.dump(), fs::read(blocks.file("tombstones")).unwrap());
    let cases: [(&str, Vec<u8>, DeletionsLost); 6] = [
        ("magic", [&[0x11], &original[1..]].concat(), DeletionsLost::None),
        ("version", [&original[..4], &[9], &original[5..]].concat(), DeletionsLost::None),
        (
            "checksum",
            [&original[..original.len() - 1], &[original[original.len() - 1] ^ 1]].concat(),
            DeletionsLost::Certain,
        ),
        ("cut", original[..original.len() / 2].to_vec(), DeletionsLost::Certain),
        ("8 bytes", original[..8].to_vec(), DeletionsLost::Certain),
        ("empty", Vec::new(), DeletionsLost::Certain),
    ];
    for (name, bytes, deletions) in cases {
        fs::write(blocks.file("tombstones"), bytes).unwrap();
        let plan = blocks.repaired(name, &before, &none());
        // The oracle's deletions go beyond the chunks of a series, unlike those of a server.
        assert_eq!(plan.lost.deletions, deletions, "{name}: {plan:#?}");
        let (_, repaired) = blocks.fix(&Blocks::request());
        let after = blocks.dump();
        match deletions {
            DeletionsLost::None => assert_eq!(after.tombstones, before.tombstones, "{name}"),
            _ => assert!(after.tombstones.iter().all(|stone| before.tombstones.contains(stone)), "{name}"),
        }
        fs::remove_dir_all(repaired.unwrap().backup.unwrap()).unwrap();
    }
}

#[test]
fn headers_of_chunk_files_are_written() {
    let blocks = Blocks::usual(oracle::judge("blocks with damaged chunk files"));
    let (before, intact) = (blocks.dump(), blocks.tree());
    let last = before.chunks.keys().map(|(_, reference)| reference >> 32).max().unwrap();
    assert!(last > 1);
    for place in [0, 1, last] {
        let name = chunk_file(place);
        blocks.change(&name, |bytes| flip(bytes, 0));
        blocks.repaired(&format!("{name} magic"), &before, &none());
        restore(&blocks, &intact);
        blocks.change(&name, |bytes| flip(bytes, 4));
        blocks.repaired(&format!("{name} version"), &before, &none());
        restore(&blocks, &intact);
        for length in [0, 1, 7, 8] {
            blocks.change(&name, |bytes| bytes.truncate(length));
            blocks.repaired(&format!("{name} of {length} bytes"), &before, &of_file(&before, place));
            restore(&blocks, &intact);
        }
        let file = fs::read(blocks.file(&name)).unwrap();
        fs::remove_file(blocks.file(&name)).unwrap();
        let plan = blocks.repaired(&format!("{name} missing"), &before, &of_file(&before, place));
        let is_made = plan.steps.iter().any(|step| matches!(step.change, Change::Create { .. }));
        assert_eq!(is_made, place != last, "{name}");
        fs::write(blocks.file(&name), file).unwrap();
        restore(&blocks, &intact);
    }
}

#[test]
fn what_cannot_be_repaired_gets_another_name() {
    let blocks = Blocks::usual(oracle::judge("blocks that cannot be repaired"));
    let intact = blocks.tree();
    let renamed = |name: &str| {
        let damaged = blocks.tree();
        let (plan, repaired) = blocks.fix(&Blocks::request());
        let repaired = repaired.unwrap();
        assert!(plan.left.is_empty() && plan.steps.len() == 1, "{name}: {plan:#?}");
        assert!(matches!(&plan.steps[0].change, Change::Rename { .. }), "{name}");
        is_clean(name, &repaired.after);
        assert!(!blocks.block().exists());
        blocks.opens_and_compacts(name);
        repair::undo(&repaired.backup.unwrap()).unwrap();
        assert_eq!(tree::difference(&damaged, &blocks.tree()), None, "{name}");
    };
    blocks.change("index", |bytes| flip(bytes, 20));
    renamed("symbols");
    restore(&blocks, &intact);
    // Prometheus opens it, and reads something else.
    blocks.change("index", |bytes| bytes[4] = 1);
    let (plan, repaired) = blocks.fix(&Blocks::request());
    assert!(
        repaired.is_none() && plan.left.iter().all(|left| left.refusal == Refusal::BlockIndex),
        "{plan:#?}"
    );
    fs::write(blocks.file("index"), "").unwrap();
    renamed("empty index");
    fs::remove_file(blocks.file("index")).unwrap();
    renamed("no index");
    restore(&blocks, &intact);
    fs::rename(blocks.file("chunks"), blocks.data().join("elsewhere")).unwrap();
    renamed("no chunks");
}

#[test]
fn uploaded_blocks_are_not_rewritten_unasked() {
    let blocks = Blocks::usual(oracle::judge("blocks that have been uploaded"));
    let before = blocks.dump();
    let noted = blocks.data().join("thanos.shipper.json");
    fs::write(&noted, format!("{{\"version\":1,\"uploaded\":[{:?}]}}", blocks.ulids[0])).unwrap();
    let (labels, reference) = before.chunks.keys().next().unwrap().clone();
    let at = usize::try_from(reference & 0xffff_ffff).unwrap();
    blocks.change(&chunk_file(reference >> 32), |bytes| flip(bytes, at + 4));
    let (plan, repaired) = blocks.fix(&Blocks::request());
    assert!(repaired.is_none() && plan.steps.is_empty());
    assert_eq!(plan.left[0].refusal, Refusal::BlockUploaded);
    // Tombstones are not uploaded, and keep Prometheus from starting.
    blocks.change("tombstones", |bytes| bytes.truncate(8));
    let (plan, repaired) = blocks.fix(&Blocks::request());
    assert!(repaired.is_some() && plan.steps.len() == 1, "{plan:#?}");
    let asked = Request { rewrite_uploaded: true, ..Blocks::request() };
    let (plan, repaired) = blocks.fix(&asked);
    assert!(plan.left.is_empty(), "{plan:#?}");
    is_clean("asked", &repaired.unwrap().after);
    let after = blocks.dump();
    assert!(after.errors.is_empty() && !after.chunks.contains_key(&(labels, reference)));
    blocks.opens_and_compacts("asked");
}

#[test]
fn a_block_that_was_compacted_is_left_alone() {
    let blocks = Blocks::usual(oracle::judge("blocks that were compacted"));
    let other = blocks.data().join(&blocks.ulids[1]).join("meta.json");
    let mut meta: Value = serde_json::from_slice(&fs::read(&other).unwrap()).unwrap();
    meta["compaction"]["parents"] = serde_json::json!([{ "ulid": blocks.ulids[0] }]);
    fs::write(other, serde_json::to_vec(&meta).unwrap()).unwrap();
    fs::write(blocks.file("index"), "").unwrap();
    let (plan, repaired) = blocks.fix(&Blocks::request());
    assert!(repaired.is_none() && plan.left.is_empty() && plan.steps.is_empty(), "{plan:#?}");
}

/// A block that is loaded makes Prometheus delete what it was made from. If that is all there, it is better than a block that lacks
/// something.
#[test]
fn what_a_damaged_block_was_made_from_takes_its_place() {
    let mut blocks = Blocks::usual(oracle::judge("a damaged block beside what it was made from"));
    let made = blocks.oracle.json(&["compact"], blocks.data());
    let ulid = made["ulids"][0].as_str().unwrap().to_owned();
    let parents: Vec<Dump> =
        blocks.ulids.iter().map(|ulid| dump(blocks.oracle, &blocks.data().join(ulid))).collect();
    blocks.ulids.insert(0, ulid.clone());
    let file = chunk_file(0);
    blocks.change(&file, |bytes| flip(bytes, 30));
    let damaged = blocks.tree();
    let (plan, repaired) = blocks.fix(&Blocks::request());
    let repaired = repaired.unwrap();
    assert!(plan.left.is_empty() && plan.steps.len() == 1, "{plan:#?}");
    is_clean("parents", &repaired.after);
    assert!(!blocks.block().exists() && blocks.data().join(format!("corrupted-{ulid}")).is_dir());
    for (ulid, before) in blocks.ulids[1..].iter().zip(&parents) {
        assert_eq!(dump(blocks.oracle, &blocks.data().join(ulid)).chunks, before.chunks);
    }
    blocks.opens_and_compacts("parents");
    repair::undo(&repaired.backup.unwrap()).unwrap();
    assert_eq!(tree::difference(&damaged, &blocks.tree()), None);
    // Without one of them it keeps what can be read.
    fs::remove_dir_all(blocks.data().join(&blocks.ulids[1])).unwrap();
    let (plan, repaired) = blocks.fix(&Blocks::request());
    assert!(repaired.is_some() && blocks.block().exists(), "{plan:#?}");
}

/// Samples of the WAL from before the end of a block whose hints are lost are loaded.
#[test]
fn a_block_that_reaches_into_the_wal_gets_its_hint() {
    let blocks = Blocks::usual(oracle::judge("blocks beside a WAL"));
    let meta: Value = serde_json::from_slice(&fs::read(blocks.file("meta.json")).unwrap()).unwrap();
    let hints = |time: i64| {
        let mut writer = SegmentWriter::new(Vec::new());
        let (mut series, mut samples) = (Vec::new(), Vec::new());
        encode_series([(1, [(&b"__name__"[..], &b"of_the_wal"[..])])], &mut series);
        encode_samples(&[SampleEntry { series_ref: 1, t: time, st: 0, value_bits: 0 }], &mut samples);
        for record in [series, samples] {
            writer.record(Compression::None, &record).unwrap();
        }
        fs::write(blocks.data().join("wal/00000000"), writer.finish().unwrap()).unwrap();
        fs::remove_file(blocks.file("meta.json")).unwrap();
        let (plan, repaired) = blocks.fix(&Blocks::request());
        assert!(repaired.is_some_and(|repaired| repaired.after.verdict == Verdict::Clean), "{plan:#?}");
        let meta: Value = serde_json::from_slice(&fs::read(blocks.file("meta.json")).unwrap()).unwrap();
        let copy = scratch();
        let data = copy.path().join("data");
        copy_directory(blocks.data(), &data).unwrap();
        let opened = blocks.oracle.json(&["open"], &data);
        let is_served = opened["series"].to_string().contains("of_the_wal");
        assert!(is_served, "{time}");
        meta["compaction"]["hints"].clone()
    };
    let (from, to) = (meta["minTime"].as_i64().unwrap(), meta["maxTime"].as_i64().unwrap());
    // The later block ends later.
    fs::remove_dir_all(blocks.data().join(&blocks.ulids[1])).unwrap();
    assert_eq!(hints(from + 1000), serde_json::json!(["from-out-of-order"]));
    assert!(hints(to + 1000).is_null());
}
