//! `docs/findings.md` has every code that a finding can have, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walfix::scan::report::CODES;
use walfix::scan::{Options, scan};
use walfix::tsdb::Target;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

#[test]
fn every_code_has_its_section_and_every_section_its_code() {
    let document = read("docs/findings.md");
    let sections: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let unique: BTreeSet<&str> = sections.iter().copied().collect();
    assert_eq!(unique.len(), sections.len(), "a code has two sections");
    assert_eq!(unique, CODES.into_iter().collect());
}

#[test]
fn every_section_says_how_bad_it_is() {
    let document = read("docs/findings.md");
    for section in document.split("\n### `").skip(1) {
        let code = section.split('`').next().unwrap_or_default();
        assert!(section.contains("\n- Severity: "), "{code}");
    }
}

#[test]
fn the_list_is_in_order_and_has_what_the_source_has() {
    assert!(CODES.is_sorted());
    let source = ["findings", "generations", "misplaced/mod", "references", "sequence"]
        .map(|file| read(&format!("src/scan/{file}.rs")))
        .concat();
    // Nothing else in these files is a string of words joined with underscores.
    let literals: BTreeSet<&str> = source
        .split('"')
        .filter(|text| !text.is_empty() && text.chars().all(|c| c == '_' || c.is_ascii_lowercase()))
        .collect();
    for code in CODES {
        assert!(literals.contains(code), "no finding has the code {code}");
    }
    for literal in literals.into_iter().filter(|text| text.contains('_')) {
        assert!(CODES.contains(&literal), "CODES lacks {literal}");
    }
}

#[test]
fn what_the_fixtures_show_is_in_the_list() {
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
        seen.extend(report.findings.iter().map(|finding| finding.code));
    }
    assert!(seen.len() > 10, "{seen:?}");
    for code in seen {
        assert!(CODES.contains(&code), "CODES lacks {code}");
    }
}
