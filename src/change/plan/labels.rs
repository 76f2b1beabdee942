//! Series whose records are lost: what stays without labels, and where labels were found.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::value::{Worded as _, if_known};

/// The share of entries without labels, in percent, from which on a repair asks whether this is meant.
const MOST_ORPHANS: u64 = 10;

/// Entries whose series is defined nowhere: samples, and whatever else names a series by its ref.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphans {
    /// Series that they belong to.
    pub series: u64,
    /// How many.
    pub entries: u64,
    /// Of so many entries in all.
    pub of: u64,
    /// Samples and histograms among them; `None` if that was not counted.
    #[serde(default)]
    pub samples: Option<u64>,
    /// Head chunks that belong to such series; `None` if that was not counted.
    #[serde(default)]
    pub head_chunks: Option<u64>,
    /// The time of the first of their samples, as far as it is known.
    #[serde(default)]
    pub from: Option<i64>,
    /// The time of the last.
    #[serde(default)]
    pub to: Option<i64>,
}

impl Orphans {
    /// Their share in percent, rounded up.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let share = (u128::from(self.entries) * 100).div_ceil(u128::from(self.of.max(1)));
        u64::try_from(share.min(100)).unwrap_or(100)
    }

    /// Whether they are so many that a repair is not started without a word.
    #[must_use]
    pub fn are_many(&self) -> bool {
        self.percent() > MOST_ORPHANS
    }

    /// `at most 12 %`.
    #[must_use]
    pub fn in_percent(&self) -> String {
        format!("at most {} %", self.percent())
    }
}

/// Where the labels of series are whose records are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLabels {
    /// From where series get their labels back.
    pub found: Vec<LabelsFound>,
    /// What has labels of such series and is not believed, or cannot be used.
    pub refused: Vec<LabelsRefused>,
}

/// Labels that are written back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsFound {
    /// Where they are.
    pub path: String,
    /// Of how many series.
    pub series: u64,
}

/// Labels that are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RefusedAsJson", from = "RefusedAsJson")]
pub struct LabelsRefused {
    /// Where they are.
    pub path: String,
    /// Of how many series.
    pub series: u64,
    /// Why not.
    pub refusal: Refusal,
}

/// The keys of the JSON.
#[derive(Serialize, Deserialize)]
struct RefusedAsJson {
    path: String,
    series: u64,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_known")]
    refusal: Option<Refusal>,
}

impl From<LabelsRefused> for RefusedAsJson {
    fn from(LabelsRefused { path, series, refusal }: LabelsRefused) -> Self {
        Self { path, series, reason: refusal.to_string(), refusal: refusal.value() }
    }
}

impl From<RefusedAsJson> for LabelsRefused {
    fn from(RefusedAsJson { path, series, reason, refusal }: RefusedAsJson) -> Self {
        Self { path, series, refusal: Refusal::of(refusal, reason) }
    }
}
