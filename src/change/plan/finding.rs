//! Findings of a plan: what it repairs, and what it does not.

use serde::{Deserialize, Serialize};

use super::value::{Worded as _, if_known};
use super::{Defect, PlanCode, Refusal, Resolution};
use crate::code::Code;

/// A finding that is repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RepairedAsJson", from = "RepairedAsJson")]
pub struct RepairedFinding {
    /// Its code.
    pub code: PlanCode,
    /// Where the damaged bytes begin.
    pub offset: Option<u64>,
    /// Where they end.
    pub end: Option<u64>,
    /// What is wrong.
    pub defect: Defect,
    /// How it is repaired.
    pub resolution: Resolution,
}

impl RepairedFinding {
    /// One that is not about certain bytes.
    pub(crate) fn new(code: Code, defect: Defect, resolution: Resolution) -> Self {
        Self { code: code.into(), offset: None, end: None, defect, resolution }
    }
}

/// The keys of the JSON.
#[derive(Serialize, Deserialize)]
struct RepairedAsJson {
    code: PlanCode,
    offset: Option<u64>,
    end: Option<u64>,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    defect: Option<Defect>,
    how: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    resolution: Option<Resolution>,
}

impl From<RepairedFinding> for RepairedAsJson {
    fn from(repaired: RepairedFinding) -> Self {
        let RepairedFinding { code, offset, end, defect, resolution } = repaired;
        Self {
            code,
            offset,
            end,
            message: defect.to_string(),
            defect: defect.value(),
            how: resolution.to_string(),
            resolution: resolution.value(),
        }
    }
}

impl From<RepairedAsJson> for RepairedFinding {
    fn from(json: RepairedAsJson) -> Self {
        let RepairedAsJson { code, offset, end, message, defect, how, resolution } = json;
        let (defect, resolution) = (Defect::of(defect, message), Resolution::of(resolution, how));
        Self { code, offset, end, defect, resolution }
    }
}

/// A finding that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "UnrepairedAsJson", from = "UnrepairedAsJson")]
pub struct UnrepairedFinding {
    /// Its code.
    pub code: PlanCode,
    /// The file or directory it is about.
    pub path: String,
    /// Where the damaged bytes begin.
    pub offset: Option<u64>,
    /// Where they end.
    pub end: Option<u64>,
    /// Why it stays.
    pub refusal: Refusal,
}

/// The keys of the JSON.
#[derive(Serialize, Deserialize)]
struct UnrepairedAsJson {
    code: PlanCode,
    path: String,
    offset: Option<u64>,
    end: Option<u64>,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    refusal: Option<Refusal>,
}

impl From<UnrepairedFinding> for UnrepairedAsJson {
    fn from(unrepaired: UnrepairedFinding) -> Self {
        let UnrepairedFinding { code, path, offset, end, refusal } = unrepaired;
        Self { code, path, offset, end, reason: refusal.to_string(), refusal: refusal.value() }
    }
}

impl From<UnrepairedAsJson> for UnrepairedFinding {
    fn from(json: UnrepairedAsJson) -> Self {
        let UnrepairedAsJson { code, path, offset, end, reason, refusal } = json;
        Self { code, path, offset, end, refusal: Refusal::of(refusal, reason) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::change::plan::Removal;

    fn repaired() -> RepairedFinding {
        let resolution = Resolution::Removed { removal: Removal::Overwritten, deletions: false };
        RepairedFinding::new(Code::AgentRefuses, Defect::RepairInterrupted, resolution)
    }

    #[test]
    fn values_are_read_back_as_they_were_written() {
        let written = serde_json::to_value(repaired()).unwrap();
        assert_eq!(written["how"], repaired().resolution.to_string());
        assert_eq!(serde_json::from_value::<RepairedFinding>(written).unwrap(), repaired());
        let refusal = Refusal::OtherSeries { series_ref: 7 };
        let unrepaired = UnrepairedFinding {
            code: Code::ReissuedRefs.into(),
            path: "wal".to_owned(),
            offset: None,
            end: None,
            refusal,
        };
        let written = serde_json::to_value(&unrepaired).unwrap();
        assert_eq!(written["refusal"], json!({ "kind": "other_series", "series_ref": 7 }));
        assert_eq!(serde_json::from_value::<UnrepairedFinding>(written).unwrap(), unrepaired);
    }

    #[test]
    fn of_plans_of_other_versions_the_words_are_kept() {
        let read = |resolution: Value| -> RepairedFinding {
            let mut json = json!({
                "code": "torn_record", "offset": 1, "end": 2, "message": "torn", "how": "sewn up"
            });
            if !resolution.is_null() {
                json["resolution"] = resolution;
            }
            serde_json::from_value(json).unwrap()
        };
        for resolution in [Value::Null, json!({ "kind": "of_tomorrow" }), json!("of_tomorrow")] {
            let read = read(resolution);
            assert_eq!(read.defect, Defect::Words("torn".to_owned()));
            assert_eq!(read.resolution, Resolution::Words("sewn up".to_owned()));
            let written = serde_json::to_value(&read).unwrap();
            assert_eq!((&written["how"], written.get("resolution")), (&json!("sewn up"), None));
        }
    }
}
