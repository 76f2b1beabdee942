//! What is wrong, as a step of a plan states it.

use serde::{Deserialize, Serialize};

use super::value::Worded;

/// What is wrong. `report::words` has the sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Defect {
    /// In the words of a scan, or of another version of walfix.
    #[serde(skip)]
    Words(String),
    /// Samples or head chunks have refs above those of all series records that remain.
    RefsAboveSeries {
        /// The highest of these refs.
        highest: u64,
    },
    /// Prometheus died while it repaired a segment.
    RepairInterrupted,
    /// An agent takes a record for corruption that a server reads.
    RefusedByAgent {
        /// Its error.
        error: String,
    },
    /// Entries have refs that mean other series now.
    ReissuedRefs {
        /// How many entries.
        entries: u64,
        /// All refs above this one.
        above: u64,
    },
    /// The series records of series are lost.
    SeriesRecordsLost {
        /// How many series.
        series: u64,
    },
    /// Samples stay without labels.
    LabelsNotFound,
    /// Prometheus loads a chunk snapshot, and does not serve samples that the WAL has.
    SnapshotHidesSamples {
        /// How many samples.
        samples: u64,
    },
    /// Prometheus would load a chunk snapshot that does not fit the rest of the directory.
    SnapshotDoesNotFit,
    /// The first head chunks of series are lost, and the later ones hide samples of the WAL.
    HeadChunksHideSamples {
        /// How many samples.
        samples: u64,
    },
    /// Pages of a segment are elsewhere.
    PagesElsewhere,
    /// Prometheus's own repair is triggered.
    PrometheusRepairs {
        /// By this error.
        error: String,
    },
    /// A checkpoint covers the numbers of the segments.
    NumbersCovered {
        /// The checkpoint.
        checkpoint: String,
        /// The highest number that it covers.
        number: i64,
    },
    /// Prometheus has run since, without a checkpoint that it cannot read.
    RunWithoutCheckpoint {
        /// The checkpoint.
        checkpoint: String,
        /// What shows it.
        sign: LaterRun,
    },
}

/// What shows that Prometheus has run since a checkpoint was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LaterRun {
    /// So many head chunks are of a time of which no log remains.
    HeadChunks(u64),
    /// So many refs belong to other series now.
    ReissuedRefs(u64),
}

impl Worded for Defect {
    fn of_words(words: String) -> Self {
        Self::Words(words)
    }

    fn is_words(&self) -> bool {
        matches!(self, Self::Words(_))
    }
}
