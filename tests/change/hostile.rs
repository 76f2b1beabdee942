//! Directories, backups and markers of somebody who wants more than a repair: nothing outside is written, removed, printed or
//! copied, nothing hangs, and no terminal is told anything.

#![cfg(target_os = "linux")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::repairs::{CASES, Place, temporary};
use support::strace;
use support::test;
use support::tree::{contents, difference, tree};

const WALFIX: &str = env!("CARGO_BIN_EXE_walfix");

const OWNER: u32 = 12345;

/// Runs walfix; a minute is enough.
fn walfix<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", WALFIX]).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn exits<S: AsRef<OsStr> + std::fmt::Debug>(codes: &[i32], arguments: &[S], about: &str) -> String {
    let output = walfix(arguments);
    let said = said(&output);
    assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "{about}: {output:?}");
    said
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

fn require_root() {
    if !rustix::process::geteuid().is_root() {
        support::skip("what root does for others", "not root");
    }
}

fn give(path: &Path) {
    lchown(path, Some(OWNER), Some(OWNER)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn named(case: &str) -> Place {
    CASES.iter().find(|known| known.name == case).expect("a case").place()
}

/// What is made at a path, and how.
type Made<'a> = (&'a str, &'a dyn Fn(&Path));

/// Everything at and below a path, what is in a directory first.
fn each(path: &Path, visit: &dyn Fn(&Path)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each(&entry.unwrap().path(), visit);
        }
    }
    visit(path);
}

/// A directory beside the data that nobody is to touch, and what it is.
fn outside(place: &Place) -> PathBuf {
    let outside = place.beside("outside");
    fs::create_dir_all(outside.join("wal")).unwrap();
    for name in ["00000000", "00000001", "wal/00000000", "wal/00000001"] {
        fs::write(outside.join(name), "precious").unwrap();
    }
    outside
}

/// The checksums of a backup whose description was changed.
fn write_checksums(backup: &Path) {
    use crc_fast::{CrcAlgorithm, checksum};
    let line = |name: &str| {
        let sum = checksum(CrcAlgorithm::Crc64Nvme, &fs::read(backup.join(name)).unwrap());
        format!("{sum:016x}  {name}\n")
    };
    let text: String = ["manifest.json", "plan.json", "README.txt"].into_iter().map(line).collect();
    fs::write(backup.join("checksums"), text).unwrap();
}

/// Changes a description of a backup.
fn change(backup: &Path, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(backup.join(name)).unwrap()).unwrap();
    change(&mut value);
    fs::write(backup.join(name), serde_json::to_vec_pretty(&value).unwrap()).unwrap();
    write_checksums(backup);
}

/// Every string by the name of a path in a JSON document, as a JSON pointer.
fn paths_in(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}/{name}");
                if value.is_string()
                    && ["path", "from", "to", "old"].contains(&name.as_str())
                    && at != "/path"
                {
                    found.push(at);
                } else {
                    paths_in(value, &at, found);
                }
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(n, value)| paths_in(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

/// Every path in a plan and a manifest, of every kind of change, led elsewhere: neither undo nor a repair that goes on
/// follows it.
#[test]
fn every_path_in_a_backup_stays_below_it() {
    for case in ["a WAL begun anew beside a damaged checkpoint", "a file in the place of a checkpoint"] {
        let place = named(case);
        assert_eq!(walfix(&place.repair_arguments()[1..]).status.code(), Some(1), "{case}");
        let mut tried = 0;
        for file in ["plan.json", "manifest.json"] {
            let text = fs::read(place.backup().join(file)).unwrap();
            let (value, mut found) = (serde_json::from_slice::<Value>(&text).unwrap(), Vec::new());
            paths_in(&value, "", &mut found);
            // What a plan says of labels and of damage that stays is for readers.
            found.retain(|at| !at.starts_with("/labels") && !at.starts_with("/left"));
            assert!(found.len() > 2, "{found:?}");
            for (n, at) in found.iter().enumerate() {
                let elsewhere = [
                    "../outside/00000001",
                    "/proc/self/x",
                    "wal/../../outside/wal",
                    "./wal/0",
                    "wal//0",
                    "a\0b",
                ];
                let bad = elsewhere[n % elsewhere.len()];
                let other = place.again();
                let outside = outside(&other);
                let before = (tree(&outside), tree(&other.data()));
                change(&other.backup(), file, |value| *value.pointer_mut(at).unwrap() = json!(bad));
                let about = format!("{file}: {at} is {bad:?}");
                let backup = other.backup();
                let into = option("--into=", &other.beside("copy"));
                for arguments in [
                    &["undo".as_ref(), backup.as_os_str()][..],
                    &["undo".as_ref(), "--force".as_ref(), backup.as_os_str()],
                    &["undo".as_ref(), &*into, backup.as_os_str()],
                ] {
                    let said = exits(&[8], arguments, &about);
                    assert!(said.contains("is not a path in the data directory"), "{about}: {said}");
                }
                assert_eq!(difference(&before.1, &tree(&other.data())), None, "{about}");
                let marker = r#"{"stage":"change","backup":"walfix-backup-t","directories":[]}"#;
                fs::write(other.data().join("walfix-repair.json"), marker).unwrap();
                let data = other.data();
                let repair =
                    ["repair".as_ref(), "--backup".as_ref(), "--accept-orphans".as_ref(), data.as_os_str()];
                exits(&[0, 1, 4, 8], &repair, &about);
                assert_eq!(difference(&before.0, &tree(&outside)), None, "{about}");
                assert!(!other.beside("copy").exists() && !other.beside("copy.unfinished").exists());
                tried += 1;
            }
        }
        assert!(tried > 5, "{tried}");
    }
}

/// Whatever a marker says, no directory is removed but a backup, and no time set but in the data directory.
#[test]
fn a_marker_names_no_other_place() {
    let absolute = |place: &Place| place.beside("outside/b").to_str().unwrap().to_owned();
    let shapes: [Made<'_>; 5] = [
        ("empty", &|_| {}),
        ("as a backup, but not ours", &|at| {
            fs::create_dir(at.join("old")).unwrap();
            fs::write(at.join("old/precious"), "precious").unwrap();
        }),
        ("a backup of another directory", &|at| {
            let text = "Backup of a repair\n\nreplaced in the data directory\n\n    /elsewhere\n\n";
            fs::write(at.join("README.txt"), text).unwrap();
        }),
        ("a directory with something else", &|at| fs::write(at.join("precious"), "precious").unwrap()),
        ("a link in it", &|at| symlink("../00000000", at.join("README.txt")).unwrap()),
    ];
    for (shape, make) in shapes {
        for stage in ["backup", "change"] {
            let place = Place::of("overwritten_range");
            let outside = outside(&place);
            fs::create_dir(outside.join("b.unfinished")).unwrap();
            make(&outside.join("b.unfinished"));
            let before = tree(&outside);
            let marker = json!({"stage": stage, "backup": absolute(&place), "directories": []});
            fs::write(place.data().join("walfix-repair.json"), marker.to_string()).unwrap();
            let data = place.data();
            let repair = ["repair".as_ref(), "--backup".as_ref(), data.as_os_str()];
            exits(if stage == "backup" { &[1] } else { &[8] }, &repair, shape);
            assert_eq!(difference(&before, &tree(&outside)), None, "{shape}, {stage}");
        }
    }
    // One that is of this directory is removed.
    let place = Place::of("overwritten_range");
    let unfinished = outside(&place).join("b.unfinished");
    fs::create_dir_all(unfinished.join("old/wal")).unwrap();
    let full = place.data().canonicalize().unwrap();
    let text =
        format!("Backup\n\nthat the repair replaced in the data directory\n\n    {}\n\n", full.display());
    fs::write(unfinished.join("README.txt"), text).unwrap();
    let marker = json!({"stage": "backup", "backup": absolute(&place), "directories": []});
    fs::write(place.data().join("walfix-repair.json"), marker.to_string()).unwrap();
    let data = place.data();
    let repair = ["repair".as_ref(), "--backup".as_ref(), data.as_os_str()];
    let said = exits(&[1], &repair, "ours");
    assert!(said.contains("b.unfinished is removed") && !unfinished.exists(), "{said}");

    for marker in [
        json!({"stage": "change", "backup": "../outside", "directories": []}),
        json!({"stage": "backup", "backup": "walfix-a/../../outside/b", "directories": []}),
        json!({"stage": "backup", "backup": "/x/../y", "directories": []}),
        json!({"stage": "backup", "backup": "", "directories": []}),
        json!({"stage": "backup", "backup": "wal", "directories": []}),
        json!({"stage": "backup", "backup": "walfix-x", "directories": [{"path": "../outside", "modified": 5}]}),
        json!({"stage": "backup", "backup": "walfix-x", "directories": [{"path": "/tmp", "modified": 5}]}),
        json!("nothing"),
        json!({"stage": "change", "backup": "x".repeat(20 << 20), "directories": []}),
    ] {
        let place = Place::of("overwritten_range");
        let outside = outside(&place);
        fs::write(place.data().join("walfix-repair.json"), marker.to_string()).unwrap();
        let before = (tree(&outside), contents(&tree(&place.data())).len());
        let data = place.data();
        let about: String = marker.to_string().chars().take(90).collect();
        let said = exits(&[8], &["repair".as_ref(), "--backup".as_ref(), data.as_os_str()], &about);
        assert!(said.contains("walfix-repair.json is not as walfix writes it"), "{about}: {said}");
        // It hides no damage.
        let said = exits(&[4], &["repair".as_ref(), data.as_os_str()], &about);
        assert!(said.contains("CAN BE REPAIRED") && said.contains("walfix-repair.json"), "{about}: {said}");
        assert_eq!(difference(&before.0, &tree(&outside)), None, "{about}");
        assert_eq!(before.1, contents(&tree(&place.data())).len(), "{about}");
    }
}

/// Owners and modes of a manifest that somebody else can have written, and of one that only root can.
#[test]
fn no_undo_makes_a_file_root_s_or_set_id() {
    require_root();
    for (mode, uid) in [(0o104_755, 0), (0o102_755, 0), (0o106_711, OWNER), (0o101_777, 4242)] {
        for is_trusted in [false, true] {
            let place = named("a zeroed page inside a record");
            let root = tempfile::tempdir_in("/root").unwrap();
            let data = root.path().join("data");
            fs::rename(place.data(), &data)
                .or_else(|_| {
                    support::tree::copy(&place.data(), &data);
                    std::io::Result::Ok(())
                })
                .unwrap();
            give(&data);
            let backup = root.path().join("backup");
            let repair = ["repair".into(), option("--backup=", &backup), data.clone().into_os_string()];
            exits(&[1], &repair, "repaired");
            change(&backup, "manifest.json", |manifest| {
                manifest["files"][0]["mode"] = json!(mode);
                manifest["files"][0]["uid"] = json!(uid);
                manifest["files"][0]["gid"] = json!(uid);
            });
            if is_trusted {
                lchown(&backup, Some(0), Some(0)).unwrap();
            }
            let manifest: Value =
                serde_json::from_slice(&fs::read(backup.join("manifest.json")).unwrap()).unwrap();
            exits(&[0], &["undo".as_ref(), backup.as_os_str()], "undone");
            let file = data.join(manifest["files"][0]["path"].as_str().unwrap());
            let about = format!("{mode:o} of {uid}, trusted: {is_trusted}");
            let metadata = file.symlink_metadata().unwrap();
            assert_eq!(metadata.mode() & 0o7777, mode & 0o777, "{about}");
            assert_eq!(metadata.uid(), if is_trusted { uid } else { OWNER }, "{about}");
        }
    }
}

/// A backup of somebody else's for a directory that is not that somebody's.
#[test]
fn a_backup_is_no_key_to_another_directory() {
    require_root();
    let place = named("a zeroed page inside a record");
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = elsewhere.path().join("walfix-backup-t");
    let repair = ["repair".into(), option("--backup=", &backup), place.data().into_os_string()];
    exits(&[1], &repair, "repaired");
    give(elsewhere.path());
    let before = tree(&place.data());
    for arguments in [&["undo"][..], &["undo", "--force"]] {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).chain([backup.as_os_str()]).collect();
        let said = exits(&[8], &arguments, "not its own");
        assert!(said.contains("it belongs to the user 12345"), "{said}");
    }
    assert_eq!(difference(&before, &tree(&place.data())), None);
}

/// Of a repair by root: what is kept may be read by nobody who might not read the original, and its owner can undo it.
#[test]
fn a_backup_is_its_owner_s_and_no_more_readable() {
    require_root();
    for case in CASES.iter().filter(|case| !case.is_elsewhere && !case.name.contains("another name")) {
        let place = case.place();
        let close = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        each(&place.data(), &|path| {
            let metadata = path.metadata().unwrap();
            close(path, if metadata.is_dir() { 0o700 } else { 0o600 });
        });
        give(&place.data());
        close(&place.beside(""), 0o755);
        let before = tree(&place.data());
        assert_eq!(walfix(&place.repair_arguments()[1..]).status.code(), Some(1), "{}", case.name);
        each(&place.data(), &|path| {
            let metadata = path.symlink_metadata().unwrap();
            let about = format!("{}: {}: {:o}", case.name, path.display(), metadata.mode());
            assert_eq!(metadata.mode() & 0o77, 0, "{about}");
            assert_eq!((metadata.uid(), metadata.gid()), (OWNER, OWNER), "{about}");
        });
        // As that user, who may not be allowed to execute the binary where it is.
        let program = place.beside("walfix");
        assert!(Command::new("cp").args([WALFIX.as_ref(), program.as_os_str()]).status().unwrap().success());
        let backup = place.backup();
        let output = Command::new("setpriv")
            .args(["--reuid=12345", "--regid=12345", "--clear-groups", "--"])
            .args([program.as_os_str(), "undo".as_ref(), backup.as_os_str()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}: {output:?}", case.name);
        assert_eq!(difference(&before, &tree(&place.data())), None, "{}", case.name);
    }
}

/// The WAL on a disk of its own is read, and nothing is written there.
#[test]
fn a_wal_that_is_a_link() {
    let place = Place::of("overwritten_range");
    let elsewhere = place.beside("fast");
    fs::rename(place.data().join("wal"), &elsewhere).unwrap();
    symlink(&elsewhere, place.data().join("wal")).unwrap();
    let (data, before) = (place.data(), (tree(&elsewhere), tree(&place.data())));
    let said = exits(&[4], &["scan".as_ref(), data.as_os_str()], "scan");
    assert!(said.contains("linked_wal") || said.contains("is a symbolic link"), "{said}");
    exits(&[4], &["repair".as_ref(), data.as_os_str()], "plan");
    for backup in ["--backup".into(), option("--backup=", &place.beside("b")), "--no-backup".into()] {
        let said = exits(&[8], &["repair".into(), backup, data.clone().into_os_string()], "repair");
        let link = format!("wal is a symbolic link to {}", elsewhere.display());
        assert!(said.contains(&link) && said.contains("--into"), "{said}");
        assert_eq!(difference(&before.0, &tree(&elsewhere)), None);
        assert_eq!(difference(&before.1, &tree(&data)), None);
    }
    let copy = place.beside("copy");
    exits(&[1], &["repair".into(), option("--into=", &copy), data.into_os_string()], "into");
    assert!(copy.join("wal").symlink_metadata().unwrap().is_dir());
    assert_eq!(difference(&before.0, &tree(&elsewhere)), None);
}

/// What other links lead to is neither printed nor copied, and they are named.
#[test]
fn what_other_links_lead_to_stays_there() {
    const SECRET: &str = "swordfish";
    for link in [
        "wal/00000001",
        "wal/00000003",
        "wal/checkpoint.00000009",
        "wbl",
        "wbl/00000000",
        "chunks_head",
        "chunks_head/000001",
        "chunk_snapshot.000009.0000000001",
        "wal/00000000.repair",
        "walfix-backup-x",
    ] {
        let place = Place::of("overwritten_range");
        let secret = place.beside("secret");
        // Segments and all else by the names that are looked for.
        for directory in ["", "wal", "old"] {
            fs::create_dir_all(secret.join(directory)).unwrap();
            let records = [support::repairs::series_record(1..=3, SECRET)];
            for name in ["00000000", "00000001", "000001"] {
                support::repairs::write_log(&secret.join(directory).join(name), &records);
            }
        }
        let at = place.data().join(link);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&at);
        let is_file = link.ends_with(|last: char| last.is_ascii_digit())
            && !link.starts_with("chunk_s")
            && !link.contains("checkpoint")
            || link.ends_with("repair");
        symlink(if is_file { secret.join("00000000") } else { secret.clone() }, &at).unwrap();
        let before = tree(&secret);
        let data = place.data();
        let copy = place.beside("copy");
        for arguments in [
            &["scan".into(), data.clone().into_os_string()][..],
            &["scan".into(), "--frames".into(), data.clone().into_os_string()],
            &["scan".into(), "--format=json".into(), data.clone().into_os_string()],
            &["repair".into(), data.clone().into_os_string()],
            &[
                "repair".into(),
                "--accept-orphans".into(),
                option("--into=", &copy),
                data.clone().into_os_string(),
            ],
            &["repair".into(), "--accept-orphans".into(), "--backup".into(), data.clone().into_os_string()],
        ] {
            let said = exits(&[1, 4], arguments, link);
            assert!(!said.contains(SECRET), "{link}: {said}");
        }
        assert_eq!(difference(&before, &tree(&secret)), None, "{link}");
        for (path, entry) in tree(&copy).into_iter().chain(tree(&data)) {
            let bytes = entry.bytes.unwrap_or_default();
            assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{link}: {path}");
        }
    }
}

/// PATH itself may be a link, whatever it leads to.
#[test]
fn a_path_that_is_a_link() {
    let place = named("labels from an older checkpoint");
    let wal = place.data().join("wal");
    for (name, path) in [
        ("anything", place.data()),
        ("checkpoint.00000002", wal.join("checkpoint.00000002")),
        ("00000003", wal.join("00000003")),
    ] {
        let link = place.beside(name);
        symlink(path, &link).unwrap();
        let said = exits(&[0, 4], &["scan".as_ref(), link.as_os_str()], name);
        assert!(!said.contains("not_a_file"), "{name}: {said}");
    }
    let backup = place.beside("anything");
    exits(&[1], &["repair".as_ref(), "--backup".as_ref(), backup.as_os_str()], "through a link");
}

/// A file that is longer than any that Prometheus writes is not read to its end.
#[test]
fn a_file_without_an_end() {
    for path in ["wal/00000003", "wal/00000001", "wal/checkpoint.00000002/00000000", "wal/00000009.repair"] {
        let place = Place::of("checkpoint_series_damaged");
        let data = place.data();
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(data.join(path));
        file.unwrap().set_len(1 << 43).unwrap();
        exits(&[4], &["scan".as_ref(), data.as_os_str()], path);
        let said = exits(&[4], &["repair".as_ref(), data.as_os_str()], path);
        assert!(said.contains(path) || path.ends_with("repair"), "{said}");
        let repair = ["repair".as_ref(), "--backup".as_ref(), "--accept-orphans".as_ref(), data.as_os_str()];
        exits(&[1, 4, 8], &repair, path);
    }
}

/// Something else in the place of whatever is read is named, hides no other damage, and nobody waits for it.
#[test]
fn odd_files() {
    let kinds: [Made<'_>; 5] = [
        ("pipe", &|at| assert!(Command::new("mkfifo").arg(at).status().unwrap().success())),
        ("socket", &|at| drop(std::os::unix::net::UnixListener::bind(at).unwrap())),
        ("directory", &|at| fs::create_dir(at).unwrap()),
        ("endless", &|at| symlink("/dev/zero", at).unwrap()),
        ("circle", &|at| symlink(at.file_name().unwrap(), at).unwrap()),
    ];
    for path in [
        "lock",
        "lock.walfix",
        "walfix-repair.json",
        "walfix-repair.json.walfix",
        "wal/00000001.walfix",
        "wal/00000000.repair",
        "wal/00000001.repair",
        "wal/checkpoint.00000001",
        "wal/checkpoint.00000000/00000000",
        "chunks_head/000001",
        "wbl/00000000",
        "chunk_snapshot.000001.0000000001/00000000",
        "01M7ZS9S4NDJN0ZC8B8F93HKE3/meta.json",
        "walfix-backup-1/plan.json",
        "walfix-backup-1/checksums",
        "walfix-backup-1.unfinished/old",
        "wal.walfix",
    ] {
        for (kind, make) in kinds {
            let place = Place::of("checkpoint_series_damaged");
            let data = place.data();
            let at = data.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            make(&at);
            let about = format!("a {kind} in the place of {path}");
            let said = exits(&[4], &["scan".as_ref(), data.as_os_str()], &about);
            assert!(said.contains("checkpoint.00000002"), "{about}: {said}");
            exits(&[4], &["repair".as_ref(), data.as_os_str()], &about);
            let repair =
                ["repair".as_ref(), "--backup".as_ref(), "--accept-orphans".as_ref(), data.as_os_str()];
            exits(&[1, 4, 8], &repair, &about);
        }
    }
}

/// Names, paths, markers and backups with what a terminal obeys.
#[test]
fn nothing_raw_reaches_a_terminal() {
    for evil in
        ["\u{1b}]0;pwned\u{7}", "\u{9b}2Jpwned", "\u{202e}pwned\u{2066}", "pwned\u{8}\u{8}\r", "a\npwned"]
    {
        let is_raw = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let is_raw = |char: char| {
                char.is_control() && char != '\n'
                    || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            };
            text.contains(is_raw) || text.contains("a\npwned")
        };
        let place = Place::of("overwritten_range");
        let data = place.beside(&format!("d{evil}"));
        fs::rename(place.data(), &data).unwrap();
        fs::write(data.join(format!("wal/checkpoint.{evil}")), "").unwrap();
        fs::write(data.join(format!("chunk_snapshot.{evil}")), "").unwrap();
        let marker = json!({"stage": "change", "backup": format!("/x/{evil}"), "directories": []});
        let wrong = json!({"stage": "change", "backup": "walfix-x", "directories": [{"path": format!("/{evil}"), "modified": 1}]});
        let check = |arguments: &[OsString]| {
            let mut arguments = arguments.to_vec();
            arguments.push("--color=never".into());
            let output = walfix(&arguments);
            for stream in [&output.stdout, &output.stderr] {
                assert!(!is_raw(stream), "{arguments:?}: {output:?}");
            }
            output.status.code()
        };
        let path = || data.clone().into_os_string();
        assert_eq!(check(&["scan".into(), path()]), Some(4));
        assert_eq!(check(&["scan".into(), data.join("nothing").into_os_string()]), Some(8));
        for marker in [marker, wrong] {
            fs::write(data.join("walfix-repair.json"), marker.to_string()).unwrap();
            check(&["repair".into(), path()]);
            assert_eq!(check(&["repair".into(), "--backup".into(), path()]), Some(8));
        }
        fs::remove_file(data.join("walfix-repair.json")).unwrap();
        let backup = data.join("walfix-backup-t");
        check(&["repair".into(), "--accept-orphans".into(), option("--backup=", &backup), path()]);
        assert!(!is_raw(&fs::read(backup.join("README.txt")).unwrap()));
        check(&["undo".into(), option("--into=", &place.beside(&format!("i{evil}"))), backup.clone().into()]);
        assert_eq!(check(&["undo".into(), backup.into()]), Some(0));
    }
}

/// Kernels and sandboxes without `openat2`, and one that always has to be asked again.
#[test]
fn without_openat2() {
    strace::require("a kernel without openat2");
    for error in ["ENOSYS", "EPERM", "EAGAIN"] {
        let place = named("a WAL begun anew beside a damaged checkpoint");
        let before = tree(&place.data());
        let log = temporary();
        let run = |arguments: &[OsString]| {
            let mut command = Command::new("strace");
            command.args([
                "-f",
                "-qq",
                "-e",
                "trace=openat2",
                "-e",
                &format!("inject=openat2:error={error}"),
                "-o",
            ]);
            command.arg(log.path().join("trace")).arg("--").args(arguments).output().unwrap()
        };
        let output = run(&place.repair_arguments());
        assert_eq!(output.status.code(), Some(1), "{error}: {output:?}");
        let asked = fs::read_to_string(log.path().join("trace")).unwrap();
        assert!(asked.contains("(INJECTED)"), "{error}: {asked}");
        let output = run(&[WALFIX.into(), "undo".into(), place.backup().into_os_string()]);
        assert_eq!(output.status.code(), Some(0), "{error}: {output:?}");
        assert_eq!(difference(&before, &tree(&place.data())), None, "{error}");
        // And a link is none the more followed.
        let outside = outside(&place);
        let outside_before = tree(&outside);
        fs::rename(place.data().join("wal"), place.beside("stash")).unwrap();
        symlink(&outside, place.data().join("wal")).unwrap();
        let output = run(&[WALFIX.into(), "undo".into(), "--force".into(), place.backup().into_os_string()]);
        assert_eq!(output.status.code(), Some(8), "{error}: {output:?}");
        assert_eq!(difference(&outside_before, &tree(&outside)), None, "{error}");
    }
}

/// Sources of walfix, all that are below `src/`.
fn sources(below: &str) -> Vec<PathBuf> {
    fn add(at: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { add(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(below), &mut found);
    found
}

/// Who applies, finishes or undoes a plan cannot ask anew what is wrong with a directory: it names none of the modules that
/// know.
#[test]
fn what_changes_a_directory_decides_nothing() {
    let found = sources("change");
    assert!(found.len() > 15);
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        for above in ["scan", "forecast", "repair", "verdict", "report", "cli"] {
            for name in
                [format!("crate::{above}"), format!("super::super::{above}"), format!("walfix::{above}")]
            {
                assert!(!text.contains(&name), "{}: {name}", path.display());
            }
        }
    }
}

/// Nothing in the repair opens, makes, renames or removes anything by its path.
#[test]
fn the_repair_changes_files_through_one_layer() {
    let found = sources("");
    assert!(found.len() > 50);
    for path in found.iter().filter(|path| !path.ends_with("io/beneath.rs")) {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for forbidden in [
            "fs::write",
            "fs::rename",
            "fs::remove",
            "fs::create_dir",
            "fs::copy",
            "fs::hard_link",
            "fs::set_permissions",
            "File::create",
            "create_new",
            ".write(true)",
            "lchown",
            "rustix::fs::chown",
        ] {
            assert!(!code.contains(forbidden), "{}: {forbidden}", path.display());
        }
    }
}
