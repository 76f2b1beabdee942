//! The binary that ships (`scripts/dist`): what it does where there is nothing but itself and a data directory, as in a pod
//! with `runAsUser: 65534` and `readOnlyRootFilesystem: true`, and on processors older than this one.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use support::server::copy_directory;
use support::test;
use support::tree::{self, Tree, contents, difference, tree};
use tempfile::TempDir;

const CLEAN: i32 = 0;
const REPAIRED: i32 = 1;
const DAMAGED: i32 = 4;
const FAILED: i32 = 8;

/// Where the incident is, from the top of the project, and from that of a pod.
const INCIDENT: &str = "testdata/incident";

/// `nobody`: the user that Prometheus's own images run as.
const NOBODY: u32 = 65534;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary, built once; the test of `what` is skipped if it cannot be built here.
fn shipped(what: &str) -> &'static Path {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    /// How `scripts/dist` ends where it lacks something.
    const LACKS: i32 = 3;
    let built = BUILT.get_or_init(|| {
        let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shipped");
        let output = Command::new(project().join("scripts/dist")).arg(&into).output().expect("it runs");
        match output.status.code() {
            Some(0) => Ok(into.join("walfix")),
            Some(LACKS) => Err(said(&output)),
            _ => panic!("scripts/dist: {}\n{}", output.status, said(&output)),
        }
    });
    built.as_deref().unwrap_or_else(|why| support::skip(what, why))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What it prints; it must end with `code`.
#[track_caller]
fn prints(command: &mut Command, code: i32) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}\n{}", output.status, said(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What it says on standard error; it must end with `code`, and print nothing else.
#[track_caller]
fn complains(command: &mut Command, code: i32) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}\n{}", output.status, said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// The binary that cargo has built for the tests, in the directory `at`.
fn plain(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.args(arguments).current_dir(at);
    command
}

// ---- a pod

#[derive(Clone, Copy)]
enum Volume {
    Writable,
    ReadOnly,
}

/// A data directory, and a root in which it is mounted at `testdata/incident`. Otherwise there is in it the binary, and
/// nothing else; and it cannot be written to.
struct Pod {
    directory: TempDir,
    /// How a process comes to be in it.
    way: &'static Way,
    walfix: &'static Path,
}

/// How to get mounts of one's own, and to be `nobody` behind a new root.
struct Way {
    unshare: &'static [&'static str],
    become_nobody: &'static [&'static str],
}

/// Root is really another user then; a user is one who is called so, and of its files only its own are those of `nobody`.
const AS_ROOT: Way =
    Way { unshare: &[], become_nobody: &["chroot", "--userspec=+65534:+65534", "--groups="] };
const AS_USER: Way = Way {
    unshare: &["--user", "--map-root-user"],
    become_nobody: &["unshare", "--user", "--map-user=65534", "--map-group=65534", "--root"],
};

/// Mounts, and the command in them, as process 1. $1: the new root, $2: the data directory, $3: rw or ro, $4: the binary.
const ENTER: &str = r#"
set -e
root=$1 data=$2 mode=$3 binary=$4
shift 4
mount -t tmpfs -o mode=755,nosuid,nodev none "$root"
mkdir -p "$root/testdata/incident"
cp "$binary" "$root/walfix"
chmod 555 "$root/walfix"
mount --bind "$data" "$root/testdata/incident"
mount -o "remount,bind,nosuid,nodev,$mode" "$root/testdata/incident"
mount -o remount,bind,nosuid,nodev,ro "$root"
exec "$@"
"#;

impl Pod {
    /// Around a copy of the incident; where mounts cannot be had, the test of `what` is skipped.
    fn new(what: &str) -> Self {
        let walfix = shipped(what);
        let way = if is_root() { &AS_ROOT } else { &AS_USER };
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("root")).expect("a directory");
        fs::create_dir(directory.path().join("testdata")).expect("a directory");
        let pod = Self { directory, way, walfix };
        copy_directory(&project().join(INCIDENT), &pod.data()).expect("a copy");
        pod.give_to_nobody();
        // Another program, of the machine's own root: whether walfix works is not for this to say.
        let tried = pod.mounted(Volume::ReadOnly, Path::new("/"), &["true"]).output();
        let works = tried.as_ref().is_ok_and(|output| output.status.success());
        if !works {
            let why = tried.map_or_else(|e| e.to_string(), |output| said(&output));
            support::skip(what, &format!("no root of its own can be had here: {why}"));
        }
        pod
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join(INCIDENT)
    }

    fn give_to_nobody(&self) {
        if is_root() {
            give_to_nobody(&self.data());
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A command as `nobody` in a root, once the pod's own is made and mounted.
    fn mounted(&self, volume: Volume, root: &Path, command_there: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(self.way.unshare).args(["--mount", "--pid", "--fork", "--kill-child", "--"]);
        command.args(["sh", "-c", ENTER, "sh"]).arg(self.root()).arg(self.data());
        command.arg(match volume {
            Volume::Writable => "rw",
            Volume::ReadOnly => "ro",
        });
        command.arg(self.walfix).args(self.way.become_nobody).arg(root).args(command_there);
        // Nor does it need anything of the environment.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }

    fn enter(&self, volume: Volume, command: &[&str]) -> Command {
        self.mounted(volume, &self.root(), command)
    }

    fn walfix(&self, volume: Volume, arguments: &[&str]) -> Command {
        self.enter(volume, &[&["/walfix"], arguments].concat())
    }

    /// The only backup, as named inside.
    fn backup(&self) -> String {
        let names =
            fs::read_dir(self.data()).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut backups: Vec<_> = names
            .filter_map(|name| name.into_string().ok())
            .filter(|name| name.starts_with("walfix-backup-"))
            .collect();
        assert_eq!(backups.len(), 1, "{backups:?}");
        format!("{INCIDENT}/{}", backups.remove(0))
    }
}

fn is_root() -> bool {
    // Its own files are those of whoever made them.
    static IS_ROOT: OnceLock<bool> = OnceLock::new();
    *IS_ROOT.get_or_init(|| tempfile::tempdir().unwrap().path().metadata().unwrap().uid() == 0)
}

/// With everything below it.
fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            give_to_nobody(&entry.expect("an entry").path());
        }
    }
}

/// What the README says that a scan of the incident prints.
fn readme() -> String {
    let readme = fs::read_to_string(project().join("README.md")).expect("it is there");
    let (_, rest) =
        readme.split_once("$ cargo run --release -- scan testdata/incident\n").expect("the command");
    rest.split_once("```").expect("an end").0.to_owned()
}

/// The incident after a repair by the binary that cargo has built, and its scan.
fn repaired_by_plain() -> (Tree, String) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("testdata")).expect("a directory");
    let data = directory.path().join(INCIDENT);
    copy_directory(&project().join(INCIDENT), &data).expect("a copy");
    prints(&mut plain(directory.path(), &["repair", "--backup", INCIDENT]), REPAIRED);
    let scan = prints(&mut plain(directory.path(), &["scan", "--format", "json", INCIDENT]), CLEAN);
    (tree(&data), scan)
}

/// A scan in JSON without what it says of a read-only mount, on which Prometheus does not start.
fn but_for_the_mount(scan: &str) -> serde_json::Value {
    let mut scan: serde_json::Value = serde_json::from_str(scan).expect("one JSON document");
    let report = scan.as_object_mut().expect("an object");
    for key in ["verdict", "state", "reasons", "repair"] {
        report.remove(key);
    }
    let findings = report["findings"].as_array_mut().expect("a list");
    findings.retain(|finding| finding["code"] != "read_only");
    scan
}

#[test(long)]
fn a_pod_that_has_nothing_else() {
    let pod = Pod::new("a scan in a pod");
    let before = tree(&pod.data());
    assert_eq!(prints(&mut pod.walfix(Volume::Writable, &["scan", INCIDENT]), DAMAGED), readme());
    let json = ["scan", "--format", "json", INCIDENT];
    let plain = prints(&mut plain(project(), &json), DAMAGED);
    assert_eq!(prints(&mut pod.walfix(Volume::Writable, &json), DAMAGED), plain);
    let read_only = prints(&mut pod.walfix(Volume::ReadOnly, &json), DAMAGED);
    assert_eq!(but_for_the_mount(&read_only), but_for_the_mount(&plain));
    assert_eq!(difference(&before, &tree(&pod.data())), None, "a scan changes nothing");
}

#[test(long)]
fn a_repair_in_a_pod_and_its_undo() {
    let pod = Pod::new("a repair in a pod");
    let before = tree(&pod.data());
    let (plain, scan_of_plain) = repaired_by_plain();

    prints(&mut pod.walfix(Volume::Writable, &["repair", "--backup", INCIDENT]), REPAIRED);
    let repaired = tree(&pod.data());
    assert_eq!(contents(&repaired), contents(&plain));
    let owners =
        |tree: &Tree| tree.iter().map(|(path, entry)| (path.clone(), entry.owner)).collect::<Vec<_>>();
    assert_eq!(owners(&repaired), owners(&before), "the files are still those of nobody");
    let scan = prints(&mut pod.walfix(Volume::ReadOnly, &["scan", "--format", "json", INCIDENT]), DAMAGED);
    assert!(scan.contains("\"read_only\""), "{scan}");
    assert_eq!(but_for_the_mount(&scan), but_for_the_mount(&scan_of_plain));

    let backup = pod.backup();
    prints(&mut pod.walfix(Volume::Writable, &["undo", &backup]), CLEAN);
    assert_eq!(files(&tree(&pod.data())), files(&before));
}

/// A backup that stays gives the data directory itself another time.
fn files(tree: &Tree) -> Vec<(&String, &tree::Entry)> {
    tree.iter().filter(|(path, _)| !path.is_empty()).collect()
}

#[test(long)]
fn a_volume_that_cannot_be_written_to() {
    let pod = Pod::new("a read-only volume");
    let before = tree(&pod.data());
    let said = complains(&mut pod.walfix(Volume::ReadOnly, &["repair", "--backup", INCIDENT]), FAILED);
    assert!(said.starts_with("walfix: ") && said.contains("Read-only file system"), "{said}");
    assert!(said.contains("`walfix repair --into`"), "it says what can be done: {said}");
    assert_eq!(difference(&before, &tree(&pod.data())), None);
}

/// As `kubectl cp` puts it: in the only place that can be written to, and run from there.
#[test(long)]
fn the_binary_in_the_data_directory() {
    let pod = Pod::new("the binary in the data directory");
    // By another process: while this one had it open for writing, nobody could execute it.
    let copied = Command::new("cp").arg(pod.walfix).arg(pod.data().join("walfix")).status();
    assert!(copied.expect("it runs").success());
    pod.give_to_nobody();
    let before = tree(&pod.data());
    let (plain, scan_of_plain) = repaired_by_plain();

    let copy = format!("/{INCIDENT}/walfix");
    let enter = |arguments: &[&str]| pod.enter(Volume::Writable, &[&[copy.as_str()], arguments].concat());
    assert_eq!(prints(&mut enter(&["scan", INCIDENT]), DAMAGED), readme());
    prints(&mut enter(&["repair", "--backup", INCIDENT]), REPAIRED);
    let mut repaired = tree(&pod.data());
    assert_eq!(repaired.remove("walfix"), before.get("walfix").cloned(), "it is left alone");
    assert_eq!(contents(&repaired), contents(&plain));
    assert_eq!(prints(&mut enter(&["scan", "--format", "json", INCIDENT]), CLEAN), scan_of_plain);
    prints(&mut enter(&["undo", &pod.backup()]), CLEAN);
    assert_eq!(files(&tree(&pod.data())), files(&before));
}

// ---- other processors

/// Each lacks what the one before it has: AVX-512; AVX2, AVX and BMI; PCLMULQDQ; SSE4.2 and POPCNT; SSSE3.
const PROCESSORS: [&str; 5] = ["Haswell", "Westmere", "Nehalem", "Conroe", "qemu64"];

/// Logs and data directories, damaged ones among them.
fn everything_to_scan() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from(INCIDENT)];
    for kind in ["testdata/damaged", "testdata/logs"] {
        for entry in fs::read_dir(project().join(kind)).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.path().is_dir() {
                all.push(Path::new(kind).join(entry.file_name()));
            }
        }
    }
    all.sort();
    assert!(all.len() > 50, "{all:?}");
    all
}

/// What somebody would notice of an instruction that the processor lacks, or of another way to sum up bytes that is taken
/// there and is wrong.
#[test(long)]
fn the_same_answers_on_older_processors() {
    const WHAT: &str = "older processors";
    let walfix = shipped(WHAT);
    if let Err(error) = Command::new("qemu-x86_64").arg("--version").output() {
        support::skip(WHAT, &format!("qemu-x86_64 (Debian: qemu-user): {error}"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut codes = [0; 9];
    for path in everything_to_scan() {
        let path = laid_out(&path, directory.path());
        let scan = |command: &mut Command| {
            command
                .args(["scan", "--format", "json"])
                .arg(&path)
                .stdin(Stdio::null())
                .output()
                .expect("it runs")
        };
        let here = scan(&mut Command::new(walfix));
        let code = here.status.code().unwrap_or_else(|| panic!("{}: {}", path.display(), here.status));
        codes[usize::try_from(code).expect("not negative")] += 1;
        for processor in PROCESSORS {
            let there = scan(Command::new("qemu-x86_64").args(["-cpu", processor]).arg(walfix));
            let what = format!("{} on {processor}", path.display());
            assert_eq!(there.status.code(), Some(code), "{what}: {}\n{}", there.status, said(&there));
            let json = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(json(&there), json(&here), "{what}");
        }
    }
    let [clean, damaged] = [CLEAN, DAMAGED].map(|code| codes[usize::try_from(code).expect("not negative")]);
    assert!(clean > 20 && damaged > 25, "{codes:?}: most are what they are meant to be");
}

/// What to scan: a log becomes the WAL or WBL of a data directory; what is one already stays where it is.
fn laid_out(path: &Path, below: &Path) -> PathBuf {
    let Ok(name) = path.strip_prefix("testdata/logs") else { return project().join(path) };
    let data = below.join(name);
    let name = name.file_name().and_then(OsStr::to_str).expect("a name");
    let log = if name.starts_with("wbl") { "wbl" } else { "wal" };
    fs::create_dir(&data).expect("a directory");
    copy_directory(&project().join(path), &data.join(log)).expect("a copy");
    data
}
