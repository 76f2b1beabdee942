//! The built binary, as a script meets it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::test;
use tempfile::TempDir;

/// Two records as Prometheus frames them: series {ref 1, `__name__="up"`, `job="a"`} and samples {1 @1000 = 1.0},
/// {2 @1005 = 2.0}.
const RECORDS: [u8; 79] = [
    0x01, 0x00, 0x1c, 0xe2, 0x13, 0x77, 0x03, // header
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x08, 0x5f, 0x5f, 0x6e, 0x61, 0x6d, 0x65,
    0x5f, 0x5f, 0x02, 0x75, 0x70, 0x03, 0x6a, 0x6f, 0x62, 0x01, 0x61, //
    0x01, 0x00, 0x25, 0xf2, 0xa6, 0x10, 0x3a, // header
    0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xe8,
    0x00, 0x00, 0x3f, 0xf0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x0a, 0x40, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00,
];

/// The header of the samples record if it holds the sample of the first series alone. The second has no labels.
const HEADER_OF_ONE: [u8; 7] = [0x01, 0x00, 0x1b, 0x2c, 0x51, 0x4c, 0x07];

const CLEAN: i32 = 0;
const DAMAGED: i32 = 4;
const FAILED: i32 = 8;
const USAGE: i32 = 16;

fn walfix() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walfix"));
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CLICOLOR").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    walfix().args(arguments).output().expect("it runs")
}

fn scan(arguments: &[&str], path: &Path) -> Output {
    walfix().arg("scan").args(arguments).arg(path).output().expect("it runs")
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

/// A page that holds [`RECORDS`] but for the second sample.
fn page() -> Vec<u8> {
    let mut page = [&RECORDS[..35], &HEADER_OF_ONE, &RECORDS[42..69]].concat();
    page.resize(32_768, 0);
    page
}

/// A data directory whose WAL has these segments.
fn directory(segments: &[&[u8]]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let wal = directory.path().join("wal");
    fs::create_dir(&wal).expect("a directory");
    for (index, segment) in segments.iter().enumerate() {
        fs::write(wal.join(format!("{index:08}")), segment).expect("a segment");
    }
    directory
}

/// A record in the midst of which a byte is not as it was, with whole records before and behind.
fn damaged() -> TempDir {
    let samples = &RECORDS[35..];
    let mut first = [&RECORDS, samples].concat();
    first[50] ^= 0xff;
    first.resize(32_768, 0);
    let mut second = samples.to_vec();
    second.resize(32_768, 0);
    directory(&[&first, &second])
}

#[track_caller]
fn report(output: &Output) -> Value {
    let schema = include_str!("../../docs/schema/scan.schema.json");
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    jsonschema::draft202012::validate(&schema, &report).expect("as the schema says");
    report
}

#[test]
fn help() {
    for arguments in
        [&["--help"][..], &["-h"], &["help"], &["scan", "--help"], &["scan", "-h"], &["help", "scan"]]
    {
        let output = run(arguments);
        assert_exit(&output, CLEAN);
        let text = stdout(&output);
        assert!(text.contains("Usage: walfix"), "{text}");
        assert!(text.contains("Exit status:") && text.contains("Examples:"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn codes_are_explained() {
    let all = run(&["explain"]);
    assert_exit(&all, CLEAN);
    let names = walfix::scan::code::Code::ALL.iter().map(|code| code.name());
    assert!(names.clone().all(|name| stdout(&all).contains(&format!("  {name}: "))), "{}", stdout(&all));
    for name in names {
        let output = run(&["explain", name]);
        assert_exit(&output, CLEAN);
        assert!(stdout(&output).starts_with(&format!("{name}\n  ")), "{}", stdout(&output));
    }
    let two = run(&["explain", "zeroed_pages", "torn_record"]);
    assert_exit(&two, CLEAN);
    assert!(stdout(&two).contains("\n\ntorn_record\n"), "{}", stdout(&two));

    for arguments in [&["explain", "zeroed_page"][..], &["explain", "torn_record", "gremlins"]] {
        let output = run(arguments);
        assert_exit(&output, USAGE);
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains("no finding has the code"), "{}", stderr(&output));
    }
    assert_exit(&run(&["explain", "--format=json"]), USAGE);
}

#[test]
fn the_scan_names_a_code_to_explain() {
    let text = stdout(&scan(&[], damaged().path()));
    let hint = text.lines().find_map(|line| line.trim().strip_prefix("walfix explain ")).expect("a hint");
    let code = hint.split(' ').next().unwrap_or_default();
    assert_exit(&run(&["explain", code]), CLEAN);
    assert!(!stdout(&scan(&[], directory(&[&page()]).path())).contains("walfix explain"));
}

#[test]
fn version() {
    let output = run(&["--version"]);
    assert_exit(&output, CLEAN);
    assert_eq!(stdout(&output), format!("walfix {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage() {
    for arguments in
        [&[][..], &["mend"], &["scan", "--wrong"], &["scan", "--threads", "0"], &["scan", "a", "b"]]
    {
        let output = run(arguments);
        assert_exit(&output, USAGE);
        assert_eq!(stdout(&output), "");
        assert!(stderr(&output).contains("--help"), "{}", stderr(&output));
    }
}

#[test]
fn missing_path() {
    let output = run(&["scan", "/no/such/directory"]);
    assert_exit(&output, FAILED);
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    assert!(text.starts_with("walfix: ") && text.contains("/no/such/directory"), "{text}");
}

#[test]
fn not_a_data_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("notes.txt"), "").expect("a file");
    let output = scan(&[], directory.path());
    assert_exit(&output, FAILED);
    assert!(stderr(&output).starts_with("walfix: "), "{}", stderr(&output));
}

#[test]
fn without_a_path_it_reads_the_current_directory() {
    let directory = directory(&[&page()]);
    for below in ["", "wal"] {
        let here = directory.path().join(below);
        let output = walfix().args(["scan", "--format=json"]).current_dir(&here).output().expect("it runs");
        assert_exit(&output, CLEAN);
        assert_eq!(report(&output)["verdict"], "clean");
    }
}

#[test]
fn without_a_path_and_with_nothing_here_it_says_where_it_looked() {
    if Path::new("/prometheus").exists() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let output = walfix().arg("scan").current_dir(directory.path()).output().expect("it runs");
    assert_exit(&output, FAILED);
    let text = stderr(&output);
    assert!(text.contains("current directory") && text.contains("/prometheus"), "{text}");
}

#[test]
fn an_empty_log() {
    let directory = directory(&[]);
    let output = scan(&["--format", "json"], directory.path());
    assert_exit(&output, CLEAN);
    let report = report(&output);
    assert_eq!(report["verdict"], "clean");
    assert_eq!(report["logs"][0]["kind"], "wal");
    assert_eq!(report["logs"][0]["segments"], serde_json::json!([]));
}

#[test]
fn a_clean_log() {
    let directory = directory(&[&page()]);
    let output = scan(&["--format", "json", "--threads", "1"], directory.path());
    assert_exit(&output, CLEAN);
    let report = report(&output);
    let log = &report["logs"][0];
    assert_eq!(report["verdict"], "clean");
    assert_eq!(log["records"], serde_json::json!({ "series": 1, "samples": 1 }));
    assert_eq!(log["entries"]["series"], 1);
    assert_eq!(log["entries"]["samples"], 1);
    assert_eq!(log["min_time"], 1_000);
    assert_eq!(log["max_time"], 1_000);
    assert_eq!(log["segments"][0]["bytes"], 32_768);

    let output = scan(&[], directory.path());
    assert_exit(&output, CLEAN);
    let text = stdout(&output);
    assert!(text.starts_with(&directory.path().display().to_string()), "{text}");
    assert!(text.contains("  clean  1 segment"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour where it is no terminal");

    let output = scan(&["--quiet"], directory.path());
    assert_exit(&output, CLEAN);
    assert_eq!((stdout(&output), stderr(&output)), (String::new(), String::new()));
}

#[test]
fn one_segment() {
    let directory = directory(&[&page(), &page()]);
    let output = scan(&["--format=json"], &directory.path().join("wal/00000001"));
    assert_exit(&output, CLEAN);
    report(&output);
}

#[test]
fn a_damaged_log() {
    let directory = damaged();
    let output = scan(&["--format", "json"], directory.path());
    assert_exit(&output, DAMAGED);
    let report = report(&output);
    assert_eq!(report["verdict"], "damaged");
    let damages: Vec<&Value> = report["findings"]
        .as_array()
        .expect("an array")
        .iter()
        .filter(|finding| finding["severity"] == "damage")
        .collect();
    let [damage] = damages[..] else { panic!("{damages:?}") };
    assert_eq!(damage["path"], "wal/00000000");
    assert_eq!(damage["segment"], 0);
    assert_eq!((damage["offset"].as_u64(), damage["end"].as_u64()), (Some(35), Some(79)));
    assert_eq!(damage["lost"]["records"], 1);
    assert_eq!(report["logs"][0]["segments"][0]["records"], 2);

    let output = scan(&[], directory.path());
    assert_exit(&output, DAMAGED);
    assert!(stdout(&output).contains("\n  damage   wal/00000000  [35, 79)  "), "{}", stdout(&output));

    let output = scan(&["-q"], directory.path());
    assert_exit(&output, DAMAGED);
    // Nothing defines ref 2.
    assert!(
        stdout(&output).contains("WILL LOSE DATA  1 place in 2 segments, 1 warning\n"),
        "{}",
        stdout(&output)
    );
    assert_eq!(stderr(&output), "");
}

#[test]
fn colours() {
    let directory = directory(&[&page()]);
    let coloured = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = walfix()
            .arg("scan")
            .args(arguments)
            .arg(directory.path())
            .envs(variables.iter().copied())
            .output()
            .expect("it runs");
        assert_exit(&output, CLEAN);
        stdout(&output).contains('\u{1b}')
    };
    assert!(coloured(&["--color=always"], &[]));
    assert!(coloured(&["--color=always"], &[("NO_COLOR", "1")]), "what is asked for comes first");
    assert!(!coloured(&["--color=never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[]));
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let clean = directory(&[&page()]);
    let damaged = damaged();
    for (directory, code) in [(&clean, CLEAN), (&damaged, DAMAGED)] {
        for format in ["text", "json"] {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            let output = walfix()
                .args(["scan", "--format", format])
                .arg(directory.path())
                .stdout(writer)
                .stderr(Stdio::piped())
                .spawn()
                .and_then(std::process::Child::wait_with_output)
                .expect("it runs");
            assert_exit(&output, code);
            assert_eq!(stderr(&output), "");
        }
    }
}

#[test]
fn a_full_disk_is_told() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let directory = directory(&[&page()]);
    let output = walfix().arg("scan").arg(directory.path()).stdout(full).output().expect("it runs");
    assert_exit(&output, FAILED);
    assert!(
        stderr(&output).starts_with("walfix: cannot write the report\n  because: "),
        "{}",
        stderr(&output)
    );
}
