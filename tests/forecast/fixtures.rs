//! What walfix foretells of the fixtures in `testdata` is what the servers did whose verdicts stand beside them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::foretold::{forecast, normal};
use support::test;

/// The fixtures, and what stands beside them.
fn fixtures() -> Vec<(String, PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut directories: Vec<PathBuf> =
        std::fs::read_dir(root.join("damaged")).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.push(root.join("incident"));
    directories.retain(|path| path.is_dir());
    directories.sort();
    let read = |path: PathBuf| {
        let json = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), path, json)
    };
    let fixtures: Vec<_> = directories.into_iter().map(read).collect();
    assert!(fixtures.len() > 40, "fixtures are missing");
    fixtures
}

/// A forecast for a start, and what is told of the real one, in the same words.
fn in_words(foretold: &Value, real: &Value, directory: &Path) -> Vec<(&'static str, String, String)> {
    let text = |value: &Value| value.as_str().map_or("none".to_owned(), |text| normal(text, directory));
    let list = |value: &Value, key: &str| {
        let name = |one: &Value| if key.is_empty() { one.clone() } else { one[key].clone() };
        let mut names: Vec<_> = value.as_array().unwrap().iter().map(name).collect();
        names.sort_by_key(Value::to_string);
        Value::from(names).to_string()
    };
    let outcome = match foretold["outcome"].as_str().unwrap() {
        "starts" | "loses" => "starts",
        "refuses" => "exits",
        other => other,
    };
    // Stopped in order, a server writes a new snapshot in the place of the old one.
    let mut deleted = real["deleted"].as_array().unwrap().clone();
    deleted.retain(|path| !path.as_str().unwrap().starts_with("chunk_snapshot."));
    vec![
        ("outcome", outcome.to_owned(), text(&real["outcome"])),
        ("error", text(&foretold["error"]), text(&real["error"])),
        ("fatal", text(&foretold["fatal"]), text(&real["fatal"])),
        ("deletes", list(&foretold["deletes"], ""), list(&Value::from(deleted), "")),
        ("truncates", list(&foretold["truncates"], "path"), list(&real["changed"], "file")),
    ]
}

#[test]
fn what_is_foretold_is_what_the_servers_did() {
    let mut differences = Vec::new();
    for (name, directory, fixture) in fixtures() {
        for (version, verdicts) in fixture["prometheus"].as_object().unwrap() {
            let forecast = forecast(&directory, version, false);
            let starts = forecast["starts"].as_array().unwrap();
            for (at, real) in verdicts.as_array().unwrap().iter().enumerate() {
                let foretold = &starts[at.min(starts.len() - 1)];
                for (key, foretold, real) in in_words(foretold, real, &directory) {
                    if foretold != real {
                        differences.push(format!("{name}, {version}, start {}: {key}\n    foretold: {foretold}\n    real:     {real}", at + 1));
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

/// Samples that are served, and those that are not, are all there were but for the ones that the damage itself hit.
#[test]
fn what_is_foretold_to_be_lost_is_what_was_no_longer_served() {
    let mut differences = Vec::new();
    for (name, directory, fixture) in fixtures() {
        let healthy = match &*name {
            // Its damage hit tombstones: what they had deleted can be had again (see README.md).
            "incident" => 36_810,
            _ => fixture["healthy_samples"].as_u64().unwrap(),
        };
        let hit_none = fixture["records"].as_array().unwrap().is_empty()
            && fixture["damage"].as_array().unwrap().iter().all(|range| range["end"] != 0)
            && !name.ends_with("started_twice");
        for (version, verdicts) in fixture["prometheus"].as_object().unwrap() {
            let forecast = forecast(&directory, version, false);
            let starts = forecast["starts"].as_array().unwrap();
            let mut hit = None;
            for (at, real) in verdicts.as_array().unwrap().iter().enumerate() {
                let lost = starts[at.min(starts.len() - 1)]["not_replayed"]["samples"].as_u64().unwrap();
                let Some(served) = real["samples"].as_u64() else { continue };
                let rest = healthy.checked_sub(served + lost);
                // The same for every start.
                let same = hit.is_none_or(|hit| Some(hit) == rest);
                if rest.is_none() || !same || hit_none && rest != Some(0) {
                    differences.push(format!(
                        "{name}, {version}, start {}: of {healthy} samples {served} are served and {lost} foretold not to be; \
                         the damage hit {}",
                        at + 1,
                        if hit_none { "none".to_owned() } else { format!("{hit:?} at the start before") }
                    ));
                }
                hit = rest;
            }
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}

/// Whether the next checkpoint fails, and on what.
#[test]
fn the_next_checkpoint_fails_as_foretold() {
    let mut differences = Vec::new();
    for (name, directory, fixture) in fixtures() {
        // Tried right after the first start.
        if fixture["oracle_open"]["started"] != true {
            continue;
        }
        let forecast = forecast(&directory, "3.16", false);
        let text = |value: &Value| value.as_str().map_or("none".to_owned(), |text| normal(text, &directory));
        let (foretold, real) =
            (text(&forecast["next_checkpoint_error"]), text(&fixture["oracle_open"]["checkpoint_error"]));
        if foretold != real {
            differences.push(format!("{name}\n    foretold: {foretold}\n    real:     {real}"));
        }
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}
