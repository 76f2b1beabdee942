//! What walfix foretells of a directory, held against what a real Prometheus did with it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::oracle::Oracle;
use super::truth::{Amount, Cut, Start, Truth};

/// Something that was foretold and did not come about, or the other way round.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which of the forecast's keys.
    pub key: &'static str,
    /// Before which start the directory was scanned, and which one it is about: 0 is the first.
    pub state: usize,
    pub start: usize,
    pub foretold: String,
    pub real: String,
}

/// The forecast for a directory.
///
/// # Panics
///
/// If there is none.
pub fn forecast(directory: &Path, version: &str, agent: bool) -> Value {
    try_forecast(directory, version, agent).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
}

/// The forecast for a directory, or what walfix says instead.
fn try_forecast(directory: &Path, version: &str, agent: bool) -> Result<Value, String> {
    let mut walfix = Command::new(super::walfix());
    walfix.args(["scan", "--format", "json", "--threads", "1", "--prometheus", version]);
    if agent {
        walfix.arg("--agent");
    }
    let output = walfix.arg(directory).stdin(Stdio::null()).output().unwrap();
    let mut report: Value = serde_json::from_slice(&output.stdout).map_err(|e| {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut lines = said.lines().skip_while(|line| !line.contains(" panicked at "));
        let place = lines.next().and_then(|line| Some(line.split_once(" panicked at ")?.1.to_owned()));
        place.map_or_else(
            || format!("{e}: {said}"),
            |place| format!("{place} {}", lines.next().unwrap_or_default()),
        )
    })?;
    let corrects =
        report["findings"].as_array().unwrap().iter().any(|finding| !finding["correction"].is_null());
    let mut forecast = report["prometheus"].take();
    forecast["corrects"] = corrects.into();
    Ok(forecast)
}

/// An error without the data directory's path, and with the class of a decompressor's words alone: those differ from
/// version to version of the library.
pub fn normal(error: &str, directory: &Path) -> String {
    let text = error.replace(&format!("{}/", directory.display()), "").replace("data/", "");
    match inner(&text) {
        Some((before, inner)) if is_decompressor(inner) => format!("{before}<does not unpack>"),
        _ => text,
    }
}

/// Up to the last offset, and what was wrong there.
fn inner(text: &str) -> Option<(&str, &str)> {
    let starts = text.match_indices(" at ").map(|(at, sign)| at + sign.len());
    let after = |at: usize| {
        let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0 && text[at + digits..].starts_with(": ")).then(|| text.split_at(at + digits + 2))
    };
    starts.filter_map(after).last()
}

fn is_decompressor(inner: &str) -> bool {
    let others = [
        "unexpected checksum",
        "unexpected full",
        "unexpected first",
        "unexpected middle",
        "unexpected last",
    ];
    let others = others.iter().chain(&[
        "unexpected record",
        "unexpected non-zero",
        "invalid record ",
        "last record is torn",
    ]);
    !others.chain(&["decode ", "read first header byte"]).any(|start| inner.starts_with(start))
}

/// All differences between what is foretold for the states of a directory and what then happened. `states` is where
/// [`super::truth::measure`] left them; the last ones may be left out of it.
pub fn compare(truth: &Truth, states: &Path, oracle: Oracle) -> Vec<Difference> {
    let mut all = Vec::new();
    let checkpoint = if truth.agent { None } else { last_checkpoint(truth, states, oracle) };
    for state in 0..truth.starts.len() {
        let directory = states.join(state.to_string());
        let forecast = match try_forecast(&directory, &truth.version, truth.agent) {
            Ok(forecast) => forecast,
            Err(foretold) => {
                let real = String::new();
                all.push(Difference { key: "failure", state, start: state, foretold, real });
                continue;
            }
        };
        let starts = forecast["starts"].as_array().unwrap();
        for (start, real) in truth.starts.iter().enumerate().skip(state) {
            let foretold = &starts[(start - state).min(starts.len() - 1)];
            // A record that one flipped bit has damaged can be had if walfix finds that bit, and is lost too.
            let mended = truth.mended.as_ref().filter(|_| forecast["corrects"] == true);
            let (not_replayed, gone) = mended.map_or((&truth.not_replayed, &truth.gone), |(a, b)| (a, b));
            let amounts = (not_replayed[state][start - state], gone[state][start - state]);
            let before = all.len();
            compare_start(foretold, real, &directory, &mut all);
            compare_amounts(foretold, amounts, truth, real, &mut all);
            for difference in &mut all[before..] {
                (difference.state, difference.start) = (state, start);
            }
        }
        // Whether the last one repairs, and always will.
        let repairs = truth.starts.last().unwrap().repairs;
        if forecast["poisoned"] != repairs {
            all.push(Difference {
                key: "poisoned",
                state,
                start: truth.starts.len() - 1,
                foretold: forecast["poisoned"].to_string(),
                real: repairs.to_string(),
            });
        }
        // What comes after more starts than there were is not known.
        if truth.agent || starts.len() > truth.starts.len() - state {
            continue;
        }
        // A server that is up takes two thirds of the segments into a checkpoint: that fails in the same way, or not yet.
        let tried = truth.starts[state].checkpoint.as_ref().filter(|error| !passes_over(truth, error));
        let tried = tried.map(|error| normal(error, &directory));
        let inner = |error: &str| error.rsplit(": ").next().unwrap_or_default().to_owned();
        if let Some(tried) = tried
            && checkpoint.as_deref().map(inner) != Some(inner(&tried))
        {
            let foretold = format!("{checkpoint:?} by the reader alone");
            all.push(Difference { key: "judges", state, start: state, foretold, real: tried });
        }
        let next = compare_checkpoint(truth, state, (&forecast, &directory), checkpoint.as_deref());
        all.extend(next.map(|difference| Difference { state, start: state, ..difference }));
    }
    all
}

fn different(key: &'static str, foretold: impl Into<String>, real: impl Into<String>) -> Option<Difference> {
    let (foretold, real) = (foretold.into(), real.into());
    (foretold != real).then_some(Difference { key, state: 0, start: 0, foretold, real })
}

fn compare_start(foretold: &Value, real: &Start, directory: &Path, all: &mut Vec<Difference>) {
    let outcome = match foretold["outcome"].as_str().unwrap() {
        "starts" | "loses" => "up",
        "refuses" => "exits",
        other => other,
    };
    all.extend(different("outcome", outcome, real.outcome.as_str()));
    for (key, real) in [("error", &real.error), ("fatal", &real.fatal)] {
        let text = |text: Option<&str>| text.map_or("none".to_owned(), |text| normal(text, directory));
        all.extend(different(key, text(foretold[key].as_str()), text(real.as_deref())));
    }
    let mut deletes: Vec<_> =
        foretold["deletes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    deletes.sort_unstable();
    all.extend(different("deletes", format!("{deletes:?}"), format!("{:?}", real.deletes)));
    all.extend(compare_cuts(foretold["truncates"].as_array().unwrap(), &real.truncates));
}

/// The same files, and the same records of them: the offset lies between the last that is kept and the end of the next.
fn compare_cuts(foretold: &[Value], real: &[Cut]) -> Option<Difference> {
    let place = |cut: &Value| Some((cut["path"].as_str()?.to_owned(), cut["offset"].as_u64()?));
    let mut foretold: Vec<_> = foretold.iter().filter_map(place).collect();
    foretold.sort();
    let fits = |cut: &Cut, offset: u64| cut.kept <= offset && cut.next.is_none_or(|next| offset < next);
    // Nothing that could be read is cut: need not be told.
    let told: Vec<_> = real
        .iter()
        .filter(|cut| cut.next.is_some() || foretold.iter().any(|(path, _)| *path == cut.path))
        .collect();
    let same = told.len() == foretold.len()
        && told.iter().zip(&foretold).all(|(cut, (path, offset))| cut.path == *path && fits(cut, *offset));
    (!same).then(|| Difference {
        key: "truncates",
        state: 0,
        start: 0,
        foretold: format!("{foretold:?}"),
        real: format!("{real:?}"),
    })
}

fn compare_amounts(
    foretold: &Value,
    (not_replayed, gone): (Amount, Amount),
    truth: &Truth,
    real: &Start,
    all: &mut Vec<Difference>,
) {
    let amount = |key: &str| -> Amount { serde_json::from_value(foretold[key].clone()).unwrap() };
    let text = |amount: Amount| {
        let time = |time: Option<i64>| time.map_or("-".to_owned(), |time| time.to_string());
        let Amount { series, samples, min_time, max_time } = amount;
        format!("{samples} of {series} series, {} to {}", time(min_time), time(max_time))
    };
    // An agent serves no queries.
    if !truth.agent {
        all.extend(different("not_replayed", text(amount("not_replayed")), text(not_replayed)));
    }
    all.extend(different("gone", text(amount("gone")), text(gone)));
    let loses = real.outcome == "up" && !truth.agent && not_replayed.samples + gone.samples > 0;
    if loses && foretold["outcome"] == "starts" {
        all.extend(different("loses", "starts", "loses"));
    }
}

/// With what a checkpoint fails that takes in all segments there are after the last start.
pub fn last_checkpoint(truth: &Truth, states: &Path, oracle: Oracle) -> Option<String> {
    let last = states.join(truth.starts.len().to_string());
    let report = oracle.json(&["read", "--concat"], &last);
    let error = report["error"].as_str()?;
    if passes_over(truth, error) {
        return None;
    }
    let error = normal(&format!("create checkpoint: {error}"), &last);
    // The packages are 3.16's; before, nothing was read of a checkpoint but its records.
    let newest = truth.version == "3.16.0";
    Some(if newest { error } else { error.replace("read previous min valid time: ", "read segments: ") })
}

/// Whether its version passes over that record when it makes a checkpoint, and the newest does not.
fn passes_over(truth: &Truth, error: &str) -> bool {
    let numbers: Vec<u32> = truth.version.split('.').map(|number| number.parse().unwrap()).collect();
    let before = |major, minor| (numbers[0], numbers[1]) < (major, minor);
    let unpacks = inner(error).is_some_and(|(_, inner)| is_decompressor(inner));
    let zstd = unpacks && !error.contains("snappy: ") && !error.contains("s2: ");
    // The words of the last two are those of older types.
    before(2, 46) && zstd
        || before(2, 52) && error.contains("decode float histogram samples: ")
        || before(3, 2) && truth.case.contains(" / 13 custom buckets / ")
        || before(3, 11) && truth.case.contains(" / 13 samples v2 / ")
}

/// The next checkpoint, if any of the starts is up.
fn compare_checkpoint(
    truth: &Truth,
    state: usize,
    (forecast, directory): (&Value, &Path),
    real: Option<&str>,
) -> Option<Difference> {
    let foretold = forecast["next_checkpoint_error"].as_str().map(|error| normal(error, directory));
    let foretold = foretold.unwrap_or_else(|| "none".to_owned());
    if !truth.starts[state..].iter().any(|start| start.outcome == "up") {
        return different("checkpoint", foretold, "none");
    }
    if foretold.contains("at the end of its first record: ") {
        // About a record that will have been written by then; nothing writes here.
        return None;
    }
    different("checkpoint", foretold, real.unwrap_or("none"))
}
