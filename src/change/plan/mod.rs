//! A plan: what a repair changes, as data. A dry run prints the very value that is executed, and the backup keeps it.
//!
//! The field names are the keys of the JSON: they may be added to, never renamed or removed. Times are in milliseconds
//! since 1970, sizes and offsets in bytes. Paths are relative to the data directory, with `/`.

mod change;
mod code;
mod defect;
mod finding;
pub(crate) mod hex;
mod input;
mod labels;
mod loss;
mod refusal;
mod resolution;
mod series;
mod value;

use serde::{Deserialize, Serialize};

pub use self::change::{Change, Content, DroppedChunks, Method, PageRun, Patch, Staged};
pub use self::code::PlanCode;
pub use self::defect::{Defect, LaterRun};
pub use self::finding::{RepairedFinding, UnrepairedFinding};
pub use self::input::Input;
pub use self::labels::{FoundLabels, LabelsFound, LabelsRefused, Orphans};
pub use self::loss::Loss;
pub use self::refusal::Refusal;
pub use self::resolution::{Removal, Resolution, SeparatedRecord};
pub use self::series::{Series, SeriesLabels};
pub(crate) use self::series::{segment as segment_of_series, write as write_series};
use super::Options;
use crate::tsdb::{Version, is_in_block};
use crate::wal::Corrections;

/// The identity of the JSON form.
pub const SCHEMA: &str = "walfix.plan/1";

/// What is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All that can be read.
    #[default]
    Salvage,
    /// What Prometheus's own repair would keep.
    Prometheus,
}

/// What a repair changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of walfix that made it.
    pub walfix: String,
    /// The data directory.
    pub path: String,
    /// What is kept.
    pub mode: Mode,
    /// The version of Prometheus that will open the directory next.
    pub prometheus: Version,
    /// Whether it runs as an agent.
    pub agent: bool,
    /// Which flipped bits are corrected.
    #[serde(default)]
    pub corrections: Corrections,
    /// In the order in which they are done. What Prometheus stops at first, or does not start for, is repaired last. No two
    /// are about the same name, but for what is renamed after it was made, and what takes the place of something that was
    /// set aside.
    pub steps: Vec<PlanStep>,
    /// Damage that stays.
    pub left: Vec<UnrepairedFinding>,
    /// What is lost with the damaged bytes, as far as it is known.
    pub lost: Loss,
    /// Series that are defined only in what is cut off a checkpoint, as Prometheus writes them; the first 100 000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_series: Vec<String>,
    /// How many these are in all.
    #[serde(default)]
    pub lost_series_count: u64,
    /// Entries that stay in the logs and have lost their series record.
    pub orphans: Option<Orphans>,
    /// Where the labels of series were found whose records are lost.
    #[serde(default)]
    pub labels: FoundLabels,
    /// The files that the plan was made from.
    pub inputs: Vec<Input>,
}

impl Plan {
    /// With nothing in it yet, for the data directory `path`.
    pub(crate) fn empty(path: String, options: Options) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            walfix: env!("CARGO_PKG_VERSION").to_owned(),
            path,
            mode: options.mode,
            prometheus: options.assumed.version,
            agent: options.assumed.agent,
            corrections: options.corrections,
            steps: Vec::new(),
            left: Vec::new(),
            lost: Loss::NOTHING,
            lost_series: Vec::new(),
            lost_series_count: 0,
            orphans: None,
            labels: FoundLabels::default(),
            inputs: Vec::new(),
        }
    }

    /// Whether it is only executed on request (`--accept-orphans`): so many entries have lost their labels, and bytes are
    /// changed from which somebody else might still get them. What only adds files, or moves whole ones, loses no label.
    #[must_use]
    pub fn needs_accept_orphans(&self) -> bool {
        self.orphans.is_some_and(|orphans| orphans.are_many())
            && self.steps.iter().any(|step| match &step.change {
                // A block has its labels itself.
                Change::Patch { path, .. } => !is_in_block(path),
                Change::Rewrite { .. } => true,
                _ => false,
            })
    }

    /// Bytes that a backup keeps.
    #[must_use]
    pub fn backup_bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.change.replaced_bytes()).sum()
    }
}

/// One change, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// What is done.
    pub change: Change,
    /// The findings that it repairs.
    #[serde(rename = "mends")]
    pub repairs: Vec<RepairedFinding>,
    /// What is lost.
    pub lost: Loss,
}

impl PlanStep {
    /// A change that repairs one finding, and loses nothing.
    pub(crate) fn of(change: Change, repaired: RepairedFinding) -> Self {
        Self { change, repairs: vec![repaired], lost: Loss::NOTHING }
    }
}
