//! What is wrong, in words.

use std::fmt;

use crate::change::plan::{Defect, LaterRun};

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Words(words) => words,
            Self::RepairInterrupted => "Prometheus died while it repaired this segment",
            Self::LabelsNotFound => "samples stay without labels, which are nowhere to be found",
            Self::SnapshotDoesNotFit => {
                "Prometheus would load this snapshot instead of the WAL, and it does not go with what is there"
            }
            Self::PagesElsewhere => "pages that belong here are elsewhere",
            Self::PrometheusRepairs { error } => error,
            Self::RefsAboveSeries { highest } => {
                return write!(
                    f,
                    "samples or head chunks have refs up to {highest}, and no series record that is left goes so far"
                );
            }
            Self::RefusedByAgent { error } => {
                return write!(f, "an agent takes this record for corruption: {error}");
            }
            Self::ReissuedRefs { entries, above } => {
                return write!(
                    f,
                    "{entries} entries have refs above {above}, which mean other series by now"
                );
            }
            Self::SeriesRecordsLost { series } => {
                return write!(f, "the series records of {series} series are lost");
            }
            Self::SnapshotHidesSamples { samples } => {
                return write!(
                    f,
                    "Prometheus loads this snapshot instead of the WAL, and so does not serve {samples} samples that the WAL has"
                );
            }
            Self::HeadChunksHideSamples { samples } => {
                return write!(
                    f,
                    "the first head chunks of some series are gone: for the later ones Prometheus does not take {samples} \
                     samples from the WAL"
                );
            }
            Self::NumbersCovered { checkpoint, number } => {
                return write!(f, "{checkpoint} covers all numbers up to {number}");
            }
            Self::RunWithoutCheckpoint { checkpoint, sign } => {
                write!(f, "Prometheus has run since, without {checkpoint}, which it cannot read: ")?;
                return match sign {
                    LaterRun::HeadChunks(chunks) => {
                        write!(f, "{chunks} head chunks are of a time of which no log is left")
                    }
                    LaterRun::ReissuedRefs(refs) => {
                        write!(f, "{refs} refs before it belong to other series by now")
                    }
                };
            }
        };
        f.write_str(words)
    }
}
