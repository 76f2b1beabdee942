//! `walfix repair` and `walfix undo`, as a script meets them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::test;
use tempfile::TempDir;

const CLEAN: i32 = 0;
const REPAIRED: i32 = 1;
const DAMAGED: i32 = 4;
const FAILED: i32 = 8;
const USAGE: i32 = 16;

fn walfix(arguments: &[&str], path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(arguments).arg(path).stdin(Stdio::null()).output().expect("it runs")
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", stdout(output), stderr(output));
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A copy of a fixture.
fn fixture(name: &str) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/damaged").join(name);
    let directory = tempfile::tempdir().expect("a directory");
    copy(&from, directory.path());
    directory
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).expect("a directory");
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a file");
        }
    }
}

/// All files below a directory, with their bytes, but for what a repair leaves beside the logs.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn add(root: &Path, at: &Path, tree: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(at).expect("a directory") {
            let path = entry.expect("an entry").path();
            let below = path.strip_prefix(root).expect("it is below").to_owned();
            if below.to_string_lossy().starts_with("walfix-backup-") {
                continue;
            }
            if path.is_dir() {
                add(root, &path, tree);
            } else {
                tree.insert(below, fs::read(&path).expect("a file"));
            }
        }
    }
    let mut tree = BTreeMap::new();
    add(root, root, &mut tree);
    tree
}

fn backups(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.to_string_lossy().contains("walfix-backup-")).collect()
}

#[track_caller]
fn answer(output: &Output) -> Value {
    as_described(output, include_str!("../../docs/schema/plan.schema.json"))
}

#[track_caller]
fn as_described(output: &Output, schema: &str) -> Value {
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", stdout(output)));
    jsonschema::draft202012::validate(&schema, &answer).expect("as the schema says");
    every_key_is_described(&schema, &schema, &answer, "");
    answer
}

/// Keys may be added, so the schema lets unknown ones pass; none of ours may be unknown to it.
fn every_key_is_described(schema: &Value, root: &Value, value: &Value, at: &str) {
    fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => root.pointer(reference.trim_start_matches('#')).expect("a reference"),
            None => schema,
        }
    }
    let schema =
        schema.pointer("/anyOf/0").map_or_else(|| resolve(schema, root), |first| resolve(first, root));
    match value {
        // Described elsewhere.
        Value::Object(_) if at == "/without_repair" => {}
        Value::Object(members) => {
            for (key, member) in members {
                let at = format!("{at}/{key}");
                let known = schema.get("properties").and_then(|properties| properties.get(key));
                every_key_is_described(
                    known.unwrap_or_else(|| panic!("{at} is not described")),
                    root,
                    member,
                    &at,
                );
            }
        }
        Value::Array(items) => {
            for item in items {
                every_key_is_described(&schema["items"], root, item, &format!("{at}/*"));
            }
        }
        _ => {}
    }
}

#[test]
fn a_plan_changes_nothing() {
    for (name, code) in [
        ("overwritten_range", DAMAGED),
        ("gap_in_segments", DAMAGED),
        ("checkpoint_series_damaged_started_twice", DAMAGED),
        // A torn tail is no damage, but Prometheus cuts it.
        ("torn_payload", CLEAN),
        ("healthy", CLEAN),
    ] {
        let directory = fixture(name);
        let before = tree(directory.path());
        for arguments in [&["repair"][..], &["repair", "--mode=prometheus"], &["repair", "--format=json"]] {
            let output = walfix(arguments, directory.path());
            assert_exit(&output, code);
            assert!(!output.stdout.is_empty());
        }
        assert_eq!(tree(directory.path()), before, "{name}");
        assert!(backups(directory.path()).is_empty(), "{name}");
    }
}

#[test]
fn a_plan_says_what_and_why() {
    let directory = fixture("overwritten_range");
    let plan = answer(&walfix(&["repair", "--format=json"], directory.path()));
    let step = &plan["steps"][0];
    assert_eq!(step["change"]["path"], "wal/00000001");
    assert_eq!(step["mends"][0]["code"], "checksum_mismatch");
    // From the first to the last record that the damage touches, as the fixture's own description has them.
    let fixture: Value =
        serde_json::from_str(include_str!("../../testdata/damaged/overwritten_range.json")).expect("JSON");
    let records = fixture["records"].as_array().expect("records");
    let patch = &step["change"]["patches"][0];
    assert_eq!(patch["offset"], records[0]["offset"]);
    let end =
        patch["offset"].as_u64().zip(patch["replaces"].as_u64()).map(|(offset, replaces)| offset + replaces);
    assert_eq!(end, records[records.len() - 1]["end"].as_u64());
    assert_eq!(plan["applied"], Value::Null);
    assert!(plan["without_repair"]["starts"][0]["gone"]["samples"].as_u64().unwrap() > 0);
    let text = stdout(&walfix(&["repair"], directory.path()));
    assert!(text.contains("CAN BE REPAIRED") && text.contains("nothing was changed"), "{text}");
}

#[test]
fn a_repair_and_its_undo() {
    let directory = fixture("overwritten_range");
    let before = tree(directory.path());
    let output = walfix(&["repair", "--backup"], directory.path());
    assert_exit(&output, REPAIRED);
    let [backup] = &backups(directory.path())[..] else { panic!("one backup") };
    assert!(stdout(&output).contains(&backup.display().to_string()), "{}", stdout(&output));
    assert_exit(&walfix(&["scan"], directory.path()), CLEAN);
    assert!(backup.join("README.txt").is_file() && backup.join("plan.json").is_file());
    // Only what is damaged is another.
    let (old, new) = (&before[Path::new("wal/00000001")], &tree(directory.path())[Path::new("wal/00000001")]);
    let damaged: Vec<usize> = (0..old.len()).filter(|&at| old[at] != new[at]).collect();
    assert!(
        damaged.iter().all(|at| (16_448..19_938).contains(at)),
        "{:?}",
        (damaged.first(), damaged.last())
    );

    assert_exit(&walfix(&["repair", "--backup"], directory.path()), CLEAN);
    assert_eq!(backups(directory.path()).len(), 1, "there was nothing to do");

    assert_exit(&walfix(&["undo"], backup), CLEAN);
    assert_eq!(tree(directory.path()), before);
    assert_exit(&walfix(&["scan"], directory.path()), DAMAGED);
    assert_exit(&walfix(&["undo"], backup), CLEAN);
    assert_eq!(tree(directory.path()), before, "nothing was left to undo");
}

#[test]
fn a_backup_by_name() {
    let directory = fixture("payload_bit_flip");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let backup = elsewhere.path().join("b");
    let before = tree(directory.path());
    let output = walfix(&["repair", &format!("--backup={}", backup.display())], directory.path());
    assert_exit(&output, REPAIRED);
    assert!(backup.join("manifest.json").is_file());
    assert!(backups(directory.path()).is_empty());
    // One byte.
    let answer: Value =
        serde_json::from_slice(&fs::read(backup.join("plan.json")).expect("a plan")).expect("JSON");
    assert_eq!(answer["steps"][0]["change"]["patches"][0]["replaces"], 1);
    let copy = elsewhere.path().join("copy");
    let schema = include_str!("../../docs/schema/undo.schema.json");
    let output = walfix(&["undo", "--format=json", &format!("--into={}", copy.display())], &backup);
    assert_exit(&output, CLEAN);
    assert_eq!(as_described(&output, schema)["files"], before.len());
    assert_eq!(tree(&copy), before);
    let output = walfix(&["undo", "--format=json"], &backup);
    assert_exit(&output, CLEAN);
    assert_eq!(as_described(&output, schema)["undone"], 1);
    assert_eq!(tree(directory.path()), before);
}

#[test]
fn a_backup_that_is_there_already_is_left_alone() {
    let directory = fixture("payload_bit_flip");
    let before = tree(directory.path());
    let elsewhere = tempfile::tempdir().expect("a directory");
    fs::write(elsewhere.path().join("kept"), "mine").expect("a file");
    let output = walfix(&["repair", &format!("--backup={}", elsewhere.path().display())], directory.path());
    assert_exit(&output, FAILED);
    assert_eq!(tree(directory.path()), before);
    assert_eq!(fs::read(elsewhere.path().join("kept")).expect("it is there"), b"mine");
}

#[test]
fn no_backup_leaves_none() {
    let directory = fixture("overwritten_range");
    let output = walfix(&["repair", "--no-backup"], directory.path());
    assert_exit(&output, REPAIRED);
    assert!(stdout(&output).contains("not kept"), "{}", stdout(&output));
    assert!(backups(directory.path()).is_empty());
    assert_exit(&walfix(&["scan"], directory.path()), CLEAN);
}

#[test]
fn a_repaired_copy_elsewhere() {
    let directory = fixture("wbl_damaged");
    let before = tree(directory.path());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let copy = elsewhere.path().join("copy");
    let output = walfix(&["repair", &format!("--into={}", copy.display())], directory.path());
    assert_exit(&output, REPAIRED);
    assert_eq!(tree(directory.path()), before, "the original is as it was");
    assert_exit(&walfix(&["scan"], &copy), CLEAN);
    let names = |tree: &BTreeMap<PathBuf, Vec<u8>>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&tree(&copy)), names(&before));
    // It is not written over.
    let output = walfix(&["repair", &format!("--into={}", copy.display())], directory.path());
    assert_exit(&output, FAILED);
}

#[test]
fn a_part_of_a_data_directory_stands_for_it() {
    for part in ["wal", "wal/00000001"] {
        let directory = fixture("overwritten_range");
        assert_exit(&walfix(&["repair", "--backup"], &directory.path().join(part)), REPAIRED);
        assert_eq!(backups(directory.path()).len(), 1, "not in wal/");
        assert_exit(&walfix(&["scan"], directory.path()), CLEAN);
    }
}

/// A damaged segment that is a link to a file elsewhere, which the repair of this directory leaves alone.
fn linked() -> (TempDir, TempDir) {
    let (directory, elsewhere) = (fixture("overwritten_range"), tempfile::tempdir().expect("a directory"));
    let (segment, other) = (directory.path().join("wal/00000001"), elsewhere.path().join("segment"));
    fs::copy(&segment, &other).expect("copied");
    fs::remove_file(&segment).expect("removed");
    std::os::unix::fs::symlink(&other, &segment).expect("linked");
    (directory, elsewhere)
}

#[test]
fn what_cannot_be_mended_is_left_and_said() {
    let (directory, elsewhere) = linked();
    let before = (tree(directory.path()), tree(elsewhere.path()));
    let output = walfix(&["repair", "--backup", "--accept-orphans"], directory.path());
    assert_exit(&output, DAMAGED);
    assert!(stdout(&output).contains("CANNOT BE REPAIRED"), "{}", stdout(&output));
    assert!(stdout(&output).contains("symbolic link"), "{}", stdout(&output));
    assert_eq!((tree(directory.path()), tree(elsewhere.path())), before);
}

/// A gap keeps Prometheus from starting, and so from deleting: it is not filled while other damage is left.
#[test]
fn a_refusal_to_start_is_lifted_last() {
    let (directory, _elsewhere) = linked();
    let wal = directory.path().join("wal");
    let last = fs::read_dir(&wal).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let last = last.filter_map(|name| name.into_string().ok()?.parse::<u64>().ok()).max().expect("a segment");
    fs::rename(wal.join(format!("{last:08}")), wal.join(format!("{:08}", last + 1))).expect("renamed");
    let output = walfix(&["repair", "--backup", "--accept-orphans"], directory.path());
    assert_exit(&output, DAMAGED);
    assert!(!wal.join(format!("{last:08}")).exists());
    let words = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("it keeps Prometheus from starting, and so from deleting anything"), "{words}");
}

#[test]
fn gaps_and_names() {
    let directory = fixture("gap_in_segments");
    let wal = directory.path().join("wal");
    // Prometheus counts this as segment 2, and then looks for 00000002.
    fs::rename(wal.join("00000002"), wal.join("2")).expect("renamed");
    let before = tree(directory.path());
    assert_exit(&walfix(&["repair", "--backup"], directory.path()), REPAIRED);
    assert_eq!(fs::read(wal.join("00000001")).expect("it was made"), b"");
    assert_eq!(fs::read(wal.join("00000002")).expect("it was renamed"), before[Path::new("wal/2")]);
    assert_exit(&walfix(&["undo"], &backups(directory.path())[0]), CLEAN);
    assert_eq!(tree(directory.path()), before);
}

/// A version that passes over records of a compression that came after it does so of what was repaired, too.
#[test]
fn an_older_version() {
    let directory = tempfile::tempdir().expect("a directory");
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/logs");
    fs::create_dir(directory.path().join("wal")).expect("a directory");
    copy(&logs.join("wal-zstd"), &directory.path().join("wal"));
    let page = directory.path().join("wal/00000000");
    let mut bytes = fs::read(&page).expect("a segment");
    bytes[40_000..40_100].fill(0x5a);
    fs::write(&page, bytes).expect("it can be damaged");
    let arguments = ["repair", "--backup", "--accept-orphans", "--prometheus=2.42.0", "--format=json"];
    let output = walfix(&arguments, directory.path());
    // No damage is left, and that version does not serve what the others do.
    assert_exit(&output, DAMAGED);
    let done: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(done["applied"]["damage"], serde_json::json!([]));
    assert_eq!(done["applied"]["state"], "will_lose_data");
}

#[test]
fn many_orphans_need_a_word() {
    let directory = fixture("checkpoint_series_damaged");
    let checkpoint = directory.path().join("wal/checkpoint.00000002/00000000");
    let mut bytes = fs::read(&checkpoint).expect("a checkpoint");
    // More than the one bit that can be put right.
    bytes[3_500..3_508].fill(0x5A);
    fs::write(&checkpoint, bytes).expect("written");
    let before = tree(directory.path());
    let output = walfix(&["repair", "--backup"], directory.path());
    assert_exit(&output, FAILED);
    assert!(stderr(&output).contains("--accept-orphans"), "{}", stderr(&output));
    assert_eq!(tree(directory.path()), before);
    assert_exit(&walfix(&["repair", "--backup", "--accept-orphans"], directory.path()), REPAIRED);
}

#[test]
fn quiet_says_the_verdict_alone() {
    let directory = fixture("overwritten_range");
    let output = walfix(&["repair", "--backup", "--quiet"], directory.path());
    assert_exit(&output, REPAIRED);
    assert_eq!(stdout(&output).lines().count(), 1, "{}", stdout(&output));
}

#[test]
fn json_of_a_repair() {
    let directory = fixture("overwritten_range");
    let done = answer(&walfix(&["repair", "--backup", "--format=json"], directory.path()));
    assert_eq!(done["applied"]["verdict"], "clean");
    assert_eq!(Path::new(done["applied"]["backup"].as_str().expect("a path")), backups(directory.path())[0]);
    for name in [
        "swapped_pages",
        "gap_in_segments",
        "undecodable_series",
        "torn_payload",
        "checkpoint_is_a_file",
        "chunk_snapshot_damaged",
    ] {
        let directory = fixture(name);
        answer(&walfix(&["repair", "--format=json"], directory.path()));
        answer(&walfix(&["repair", "--format=json", "--mode=prometheus"], directory.path()));
    }
}

/// The series records of the checkpoint are damaged, and an older one has them.
#[test]
fn labels_are_written_back() {
    let directory = fixture("checkpoint_series_damaged");
    let wal = directory.path().join("wal");
    fs::create_dir(wal.join("checkpoint.00000001")).expect("a directory");
    copy(&wal.join("checkpoint.00000002"), &wal.join("checkpoint.00000001"));
    let checkpoint = wal.join("checkpoint.00000002/00000000");
    let mut bytes = fs::read(&checkpoint).expect("a checkpoint");
    // More than the one bit that can be put right.
    bytes[3_500..3_508].fill(0x5A);
    fs::write(&checkpoint, bytes).expect("written");
    let output = walfix(&["repair"], directory.path());
    assert_exit(&output, DAMAGED);
    let words = "series get their labels back, from wal/checkpoint.00000001";
    assert!(stdout(&output).contains(words), "{}", stdout(&output));
    let before = tree(directory.path());
    let done = answer(&walfix(&["repair", "--backup", "--format=json"], directory.path()));
    assert_eq!(done["orphans"], Value::Null);
    assert_eq!(done["labels"]["found"][0]["path"], "wal/checkpoint.00000001");
    assert_eq!(done["labels"]["refused"], Value::Array(Vec::new()));
    assert_eq!(done["applied"]["verdict"], "clean");
    let steps = done["steps"].as_array().expect("steps");
    let mut written = steps.iter().filter_map(|step| step["change"]["begins_with"].as_array());
    assert_eq!(done["labels"]["found"][0]["series"], written.next().expect("series").len());
    assert_exit(&walfix(&["undo"], &backups(directory.path())[0]), CLEAN);
    assert_eq!(tree(directory.path()), before);
}

#[test]
fn wrong_command_lines() {
    let directory = fixture("healthy");
    for arguments in [
        &["repair", "--backup", "--no-backup"][..],
        &["repair", "--into=x", "--backup"],
        &["repair", "--mode=best"],
        &["repair", "--backup=a", "b"],
    ] {
        assert_exit(&walfix(arguments, directory.path()), USAGE);
    }
    let output = walfix(&["undo"], directory.path());
    assert_exit(&output, FAILED);
    assert!(stderr(&output).contains("cannot be used"), "{}", stderr(&output));
}

/// Prometheus died while it repaired: the original is beside a segment that has what stood before the fault.
#[test]
fn a_repair_of_prometheus_that_was_interrupted() {
    let entries = |directory: &Path| {
        let output = walfix(&["scan", "--format=json"], directory);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (report["verdict"].clone(), report["logs"][0]["entries"].clone(), report["findings"].clone())
    };
    let whole = fixture("overwritten_range");
    fs::remove_file(whole.path().join("wal/00000002")).expect("it is there");
    let directory = fixture("overwritten_range");
    let wal = directory.path().join("wal");
    fs::remove_file(wal.join("00000002")).expect("it is there");
    let original = fs::read(wal.join("00000001")).expect("a segment");
    fs::write(wal.join("00000001.repair"), &original).expect("a file");
    // The damaged record begins there; two of the ones before it had not been written yet.
    fs::write(wal.join("00000001"), &original[..8_000]).expect("a file");
    let before = tree(directory.path());

    assert_exit(&walfix(&["repair", "--backup"], whole.path()), REPAIRED);
    assert_exit(&walfix(&["repair", "--backup"], directory.path()), REPAIRED);
    assert_eq!(entries(directory.path()), entries(whole.path()));
    assert!(!wal.join("00000001.repair").exists());
    let [backup] = &backups(directory.path())[..] else { panic!("one backup") };
    assert_exit(&walfix(&["undo"], backup), CLEAN);
    assert_eq!(tree(directory.path()), before);

    // What has been logged since is not to be confused with it.
    let later = fs::read(whole.path().join("wal/00000000")).expect("a segment");
    fs::write(wal.join("00000002"), later).expect("a file");
    let output = walfix(&["repair", "--format=json"], directory.path());
    assert!(!stdout(&output).contains("interrupted_repair"), "{}", stdout(&output));
}

/// As if a repair had been killed before it could say that it was done.
fn as_unfinished(directory: &Path, backup: &Path) {
    let marker = serde_json::json!({ "stage": "change", "backup": backup, "directories": [] });
    fs::write(directory.join("walfix-repair.json"), marker.to_string()).expect("a file");
}

/// What would be left by one repair is not mended by another that keeps something else.
#[test]
fn an_unfinished_repair_of_another_mode() {
    let directory = fixture("overwritten_range");
    let original = tree(directory.path());
    let prometheus = ["repair", "--mode=prometheus", "--backup"];
    assert_exit(&walfix(&prometheus, directory.path()), REPAIRED);
    let [backup] = &backups(directory.path())[..] else { panic!("one backup") };
    as_unfinished(directory.path(), backup);
    let before = tree(directory.path());
    for other in [&["repair", "--backup"][..], &[&prometheus[..], &["--agent"]].concat()] {
        let output = walfix(other, directory.path());
        assert_exit(&output, FAILED);
        let said = stderr(&output);
        assert!(said.contains("walfix repair --mode prometheus --backup"), "{said}");
        assert!(said.contains(&format!("walfix undo {}", backup.display())), "{said}");
        assert_eq!(tree(directory.path()), before);
    }
    assert_exit(&walfix(&prometheus, directory.path()), REPAIRED);
    assert!(!directory.path().join("walfix-repair.json").exists());
    as_unfinished(directory.path(), backup);
    assert_exit(&walfix(&["undo"], backup), CLEAN);
    assert_eq!(tree(directory.path()), original);
}

/// Nor by one that believes fewer corrections.
#[test]
fn an_unfinished_repair_with_large_corrections() {
    let directory = fixture("overwritten_range");
    let large = ["repair", "--correct-large", "--backup"];
    assert_exit(&walfix(&large, directory.path()), REPAIRED);
    let [backup] = &backups(directory.path())[..] else { panic!("one backup") };
    as_unfinished(directory.path(), backup);
    let output = walfix(&["repair", "--backup"], directory.path());
    assert_exit(&output, FAILED);
    let said = stderr(&output);
    assert!(said.contains("walfix repair --mode salvage --correct-large --backup"), "{said}");
    assert_exit(&walfix(&large, directory.path()), REPAIRED);
    assert!(!directory.path().join("walfix-repair.json").exists());
}

/// A backup on a disk that is not there now is not forgotten.
#[test]
fn an_unfinished_repair_without_its_backup() {
    let directory = fixture("overwritten_range");
    let original = tree(directory.path());
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (backup, away) = (elsewhere.path().join("b"), elsewhere.path().join("away"));
    assert_exit(&walfix(&["repair", &format!("--backup={}", backup.display())], directory.path()), REPAIRED);
    as_unfinished(directory.path(), &backup);
    fs::rename(&backup, &away).expect("renamed");
    let before = tree(directory.path());
    for arguments in [&["repair", "--backup"][..], &["repair"]] {
        let output = walfix(arguments, directory.path());
        assert_exit(&output, FAILED);
        let said = stderr(&output);
        assert!(said.contains("mount it") && said.contains("walfix-repair.json"), "{said}");
        assert_eq!(tree(directory.path()), before);
    }
    fs::rename(&away, &backup).expect("renamed");
    assert_exit(&walfix(&["undo"], &backup), CLEAN);
    assert_eq!(tree(directory.path()), original);
}

/// Prometheus lists some names, and deletes others.
#[test]
fn places_where_no_backup_is_safe() {
    let directory = fixture("overwritten_range");
    fs::create_dir_all(directory.path().join("chunks_head")).expect("a directory");
    fs::create_dir_all(directory.path().join("01HZZZZZZZZZZZZZZZZZZZZZZZ")).expect("a directory");
    let before = tree(directory.path());
    for name in [
        "wal/walfix-b",
        "wal/00000009",
        "chunks_head/walfix-b",
        "01HZZZZZZZZZZZZZZZZZZZZZZZ/walfix-b",
        "01HZZZZZZZZZZZZZZZZZZZZZZY.tmp-for-deletion",
        "checkpoint.00000009",
        "chunk_snapshot.000009.0000000000",
        "backup",
        "walfix-repair.json",
        "walfix-b.unfinished",
    ] {
        let backup = directory.path().join(name);
        let output = walfix(&["repair", &format!("--backup={}", backup.display())], directory.path());
        assert_exit(&output, FAILED);
        assert!(stderr(&output).contains("is no place"), "{name}: {}", stderr(&output));
        assert!(!backup.exists(), "{name}");
        assert_eq!(tree(directory.path()), before, "{name}");
    }
    let backup = directory.path().join("walfix-before-the-upgrade");
    assert_exit(&walfix(&["repair", &format!("--backup={}", backup.display())], directory.path()), REPAIRED);
    assert_exit(&walfix(&["undo"], &backup), CLEAN);
}

/// A copy is as the original, but for what is mended in it, and is there as a whole or not at all.
#[cfg(unix)]
#[test]
fn copies_keep_modes_and_places_apart() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    let directory = fixture("overwritten_range");
    let data = directory.path();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    mode(&data.join("wal"), 0o750);
    mode(&data.join("wal/00000000"), 0o640);
    mode(&data.join("wal/00000002"), 0o440);
    // Only root can give files away.
    let _ = std::os::unix::fs::chown(data.join("wal/00000000"), Some(65_534), Some(65_534));
    let before = tree(data);
    fs::create_dir(data.join("chunk_snapshot.000001.0000000000")).expect("a directory");
    for place in ["wal/copy", "wal/a/b", "chunk_snapshot.000001.0000000000/copy", "wal", "copy", "."] {
        let copy = data.join(place);
        assert_exit(&walfix(&["repair", &format!("--into={}", copy.display())], data), FAILED);
        assert_eq!(tree(data), before, "{place}");
        assert!(!data.join(format!("{place}.unfinished")).exists(), "{place}");
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    let copy = elsewhere.path().join("copy");
    let into = format!("--into={}", copy.display());
    let output = walfix(&["repair", "--backup"], data);
    assert_exit(&output, REPAIRED);
    let [backup] = &backups(data)[..] else { panic!("one backup") };
    as_unfinished(data, backup);
    let output = walfix(&["repair", &into], data);
    assert_exit(&output, FAILED);
    assert!(stderr(&output).contains(&format!("walfix undo {}", backup.display())), "{}", stderr(&output));
    assert!(!copy.exists());
    assert_exit(&walfix(&["undo"], backup), CLEAN);

    assert_exit(&walfix(&["repair", &into], data), REPAIRED);
    for (path, expected) in [("wal", 0o750), ("wal/00000000", 0o640), ("wal/00000002", 0o640)] {
        let (original, copied) = (
            data.join(path).metadata().expect("it is there"),
            copy.join(path).metadata().expect("it is there"),
        );
        assert_eq!(copied.mode() & 0o7777, expected, "{path}");
        assert_eq!((copied.uid(), copied.gid()), (original.uid(), original.gid()), "{path}");
    }
    assert_eq!(fs::read_dir(elsewhere.path()).expect("a directory").count(), 1);
}
