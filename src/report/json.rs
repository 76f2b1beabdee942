//! The report for machines. `docs/schema/scan.schema.json` describes it.

use std::io::{self, Write};

use serde::Serialize;

use crate::forecast::report::Forecast;
use crate::repair::Plans;
use crate::repair::plan::{Loss, Plan};
use crate::scan::report::Report;

/// What is printed: the report, and beside its keys what is forecast.
#[derive(Serialize)]
struct ScanDocument<'a> {
    #[serde(flatten)]
    report: &'a Report,
    prometheus: Option<&'a Forecast>,
    repair: Option<Repair>,
}

/// What either mode of a repair comes to.
#[derive(Serialize)]
struct Repair {
    salvage: Outlook,
    prometheus: Outlook,
}

#[derive(Serialize)]
struct Outlook {
    changes: usize,
    lost: Loss,
    left: usize,
    needs_accept_orphans: bool,
}

impl Outlook {
    fn of(plan: &Plan) -> Self {
        Self {
            changes: plan.steps.len(),
            lost: plan.lost,
            left: plan.left.len(),
            needs_accept_orphans: plan.needs_accept_orphans(),
        }
    }
}

/// Writes the report as one JSON document on one line, with a newline at its end.
///
/// # Errors
/// Those of `out`.
pub fn write(
    report: &Report,
    forecast: Option<&Forecast>,
    plans: Option<&Plans>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let repair = plans.map(|plans| Repair {
        salvage: Outlook::of(&plans.salvage),
        prometheus: Outlook::of(&plans.prometheus),
    });
    serde_json::to_writer(&mut *out, &ScanDocument { report, prometheus: forecast, repair })?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Forecast, write};
    use crate::report::samples;
    use crate::scan::report::Report;

    fn schema() -> Value {
        serde_json::from_str(include_str!("../../docs/schema/scan.schema.json")).expect("the schema is JSON")
    }

    fn to_value(report: &Report, forecast: Option<&Forecast>) -> Value {
        let mut bytes = Vec::new();
        write(report, forecast, Some(&samples::plans()), &mut bytes).expect("a Vec takes all");
        let newline = bytes.iter().position(|&byte| byte == b'\n');
        assert_eq!(newline, Some(bytes.len() - 1), "one line");
        serde_json::from_slice(&bytes).expect("what was written is JSON")
    }

    #[test]
    fn the_schema_is_one() {
        jsonschema::draft202012::meta::validate(&schema()).expect("a schema of draft 2020-12");
    }

    #[test]
    fn reports_are_as_the_schema_says() {
        let validator = jsonschema::draft202012::new(&schema()).expect("a schema");
        let mut random = fastrand::Rng::with_seed(7);
        let random = (0..300).map(|_| samples::random(&mut random));
        for report in samples::by_hand().into_iter().chain(random) {
            let value = to_value(&report, samples::forecasts().get(report.findings.len() % 4));
            let errors: Vec<_> = validator
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{errors:?}\n{value}");
        }
    }

    /// Keys may be added, so the schema lets unknown ones pass; none of ours may be unknown to it.
    #[test]
    fn every_key_is_described() {
        fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
            match schema.get("$ref").and_then(Value::as_str) {
                Some(reference) => root.pointer(reference.trim_start_matches('#')).expect("a reference"),
                None => schema,
            }
        }
        fn check(schema: &Value, root: &Value, value: &Value, at: &str) {
            let schema = resolve(schema, root);
            assert!(at.is_empty() || schema.get("description").is_some(), "{at} has no description");
            // "This, or null".
            let schema = schema.pointer("/anyOf/0").map_or(schema, |first| resolve(first, root));
            match value {
                Value::Object(members) => {
                    for (key, member) in members {
                        let at = format!("{at}/{key}");
                        let known = schema.get("properties").and_then(|properties| properties.get(key));
                        match known {
                            Some(known) => check(known, root, member, &at),
                            // A map, not a record.
                            None => {
                                assert!(schema["additionalProperties"].is_object(), "{at} is not described");
                            }
                        }
                    }
                }
                Value::Array(items) => {
                    for item in items {
                        if let Some(known) = schema.get("items") {
                            check(known, root, item, &format!("{at}/*"));
                        }
                    }
                }
                _ => {}
            }
        }
        let schema = schema();
        for report in samples::by_hand() {
            check(&schema, &schema, &to_value(&report, None), "");
        }
        for forecast in samples::forecasts() {
            check(&schema, &schema, &to_value(&samples::clean(), Some(&forecast)), "");
        }
    }

    #[test]
    fn the_schema_refuses_what_is_none() {
        let validator = jsonschema::draft202012::new(&schema()).expect("a schema");
        let good = to_value(&samples::one_damage(), samples::forecasts().first());
        assert!(validator.is_valid(&good));
        let breaks: [(&str, Value); 12] = [
            ("/schema", json!("walfix.scan/2")),
            ("/verdict", json!("broken")),
            ("/logs/0/kind", json!("wla")),
            ("/logs/0/bytes", json!(-1)),
            ("/logs/0/records/samples", json!("1")),
            ("/logs/0/entries", json!({})),
            ("/findings/0/severity", json!("fatal")),
            ("/findings/0/lost/records", json!(1.5)),
            ("/findings/0/cause", json!("gremlins")),
            ("/prometheus/starts", json!([])),
            ("/prometheus/starts/0/outcome", json!("works")),
            ("/prometheus/starts/0/gone", json!(null)),
        ];
        for (pointer, wrong) in breaks {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is there")) = wrong;
            assert!(!validator.is_valid(&bad), "{pointer}");
        }
        let mut less = good.clone();
        less.as_object_mut().expect("an object").remove("findings");
        assert!(!validator.is_valid(&less));
        let mut more = good;
        more["later"] = json!(1);
        assert!(validator.is_valid(&more), "keys may be added");
    }
}
