//! `docs/findings.md` is what the table of the codes makes of it, and the scan keeps to that table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::test;
use walfix::scan::code::Code;
use walfix::scan::{Options, scan};
use walfix::tsdb::Target;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// With `WALFIX_WRITE_FINDINGS=1` it is written anew.
#[test]
fn the_document_is_made_from_the_table() {
    let made = walfix::report::explain::document();
    if std::env::var_os("WALFIX_WRITE_FINDINGS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/findings.md");
        fs::write(path, &made).expect("docs/findings.md can be written");
    }
    let is = read("docs/findings.md");
    let differs = made.lines().zip(is.lines()).find(|(made, is)| made != is);
    assert!(made == is, "WALFIX_WRITE_FINDINGS=1 writes it anew: {differs:?}");
}

#[test]
fn every_code_has_its_section_and_every_section_its_code() {
    let document = read("docs/findings.md");
    let sections: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let unique: BTreeSet<&str> = sections.iter().copied().collect();
    assert_eq!(unique.len(), sections.len(), "a code has two sections");
    assert_eq!(unique, Code::ALL.iter().map(|code| code.name()).collect());
}

#[test]
fn every_section_says_how_bad_it_is() {
    let document = read("docs/findings.md");
    for section in document.split("\n### `").skip(1) {
        let code = section.split('`').next().unwrap_or_default();
        let is_of_findings = code.parse::<Code>().expect(code).is_of_findings();
        assert_eq!(section.contains("\n- Severity: "), is_of_findings, "{code}");
    }
}

#[test]
fn what_the_fixtures_show_is_as_bad_as_the_table_says() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut directories = vec![testdata.join("incident")];
    for entry in fs::read_dir(testdata.join("damaged")).expect("fixtures") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            directories.push(path);
        }
    }
    let mut seen = BTreeSet::new();
    for directory in directories {
        let target = Target::find(&directory).expect("a data directory");
        let report = scan(&target, &Options::default(), &()).expect("it can be read");
        for finding in &report.findings {
            assert!(finding.code.severities().contains(&finding.severity), "{finding:?}");
            seen.insert(finding.code.name());
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}
