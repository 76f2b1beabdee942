//! What a scan found. One value, many faces: [`crate::report`] has the text and the JSON.
//!
//! The field names are the keys of the JSON: they may be added to, never renamed or removed. Times are in
//! milliseconds since 1970, sizes and offsets in bytes. Paths are relative to [`Report::path`], with `/`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::blocks::{BlockReport, Depth};
use super::detail::Detail;
pub use crate::code::{Code, Severity};
pub use crate::tsdb::LogKind;

/// The identity of the JSON form.
pub const SCHEMA: &str = "walfix.scan/1";

/// All that a scan found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The version of walfix that made it.
    pub walfix: &'static str,
    /// The directory, or single segment, that was read.
    pub path: String,
    /// Whether anything is wrong: [`State::Clean`] or not.
    pub verdict: Verdict,
    /// What is wrong. [`crate::scan::scan`] judges by the findings alone, [`crate::verdict`] by what Prometheus would do, too.
    pub state: State,
    /// Why it is not clean, the worst first.
    pub reasons: Vec<Reason>,
    /// What was read, in the order wal, checkpoints, wbl, chunk snapshots.
    pub logs: Vec<Log>,
    /// The blocks, in the order of their names.
    pub blocks: Vec<BlockReport>,
    /// How much of each block was verified.
    pub depth: Depth,
    /// What is odd or wrong, in the order of logs; of each first what its names show, then its bytes in the order of
    /// segments and offsets, then its refs.
    pub findings: Vec<Finding>,
    /// How far refs go.
    pub refs: HighestRefs,
}

/// The highest refs of series in the logs that are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HighestRefs {
    /// Of those that a series record defines: Prometheus counts on from here.
    pub defined: Option<u64>,
    /// Of those that are used and defined nowhere before.
    pub unknown: Option<u64>,
}

impl Report {
    /// Sets what is wrong, and so the verdict.
    pub(crate) fn judge(&mut self, state: State, reasons: Vec<Reason>) {
        self.verdict = if state == State::Clean { Verdict::Clean } else { Verdict::Damaged };
        (self.state, self.reasons) = (state, reasons);
    }

    /// Findings of that severity.
    pub fn of_severity(&self, severity: Severity) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.severity == severity)
    }
}

/// Whether a directory is clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Prometheus starts, and serves all that can be read.
    Clean,
    /// Anything else: [`State`] says what.
    Damaged,
}

/// What is wrong with a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Prometheus starts, serves all that can be read, and a repair would change nothing.
    Clean,
    /// Bytes cannot be read, a repair has something to do, or a checkpoint or compaction will fail.
    Damaged,
    /// Prometheus does not come up, however often it is started.
    WillNotStart,
    /// A start deletes, truncates or does not load what can be read.
    WillLoseData,
    /// Prometheus starts and refuses every sample.
    TakesNoSamples,
}

/// Why a directory is not clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A start fails, hangs or crashes.
    StartFails,
    /// A start deletes or cuts what can be read, or does not load it.
    StartLoses,
    /// A start serves samples under the labels of other series.
    WrongLabels,
    /// A start drops samples because no series record says what their labels are.
    DropsUnlabelled,
    /// A start skips a block, or cannot query all of it.
    SkipsBlock,
    /// Every scrape is refused, since samples or blocks are from the future.
    RefusesSamples,
    /// The next checkpoint fails.
    CheckpointFails,
    /// The next compaction fails, of the head and so every one after it, or of a damaged block.
    CompactionFails,
    /// A finding is damage.
    Damage,
    /// Records are too large, or too many, to be read.
    NotRead,
    /// A repair would change something.
    Repairable,
}

/// Whose records a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Prometheus's.
    Prometheus,
    /// Loki's: framing is read, records are not.
    Loki,
}

/// One directory of segments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Log {
    /// What it is.
    pub kind: LogKind,
    /// Where it is; empty if it is the path itself.
    pub path: String,
    /// Whose records it holds.
    pub dialect: Dialect,
    /// Of all its segments.
    pub bytes: u64,
    /// In the order of their numbers.
    pub segments: Vec<Segment>,
    /// Records that can be read, by Prometheus's names of their types; `unknown` for the rest. Chunk snapshots
    /// have `series`, `tombstones` and `exemplars` of their own.
    pub records: BTreeMap<&'static str, u64>,
    /// What these records hold.
    pub entries: Entries,
    /// The earliest time of a sample, histogram or exemplar.
    pub min_time: Option<i64>,
    /// The latest.
    pub max_time: Option<i64>,
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// Its number.
    pub index: i64,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Records that can be read.
    pub records: u64,
    /// Where the last of these ends.
    #[serde(skip)]
    pub data_end: u64,
}

/// Counts of entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// Series records' entries: a ref and its labels.
    pub series: u64,
    /// Float samples.
    pub samples: u64,
    /// Integer histograms.
    pub histograms: u64,
    /// Float histograms.
    pub float_histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
    /// Deleted intervals.
    pub tombstones: u64,
    /// Metadata of a series.
    pub metadata: u64,
    /// Marks that samples of a series have gone to a head chunk.
    pub mmap_markers: u64,
}

/// What was most likely done to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The writer died, or was stopped, in the midst of a record.
    TornByCrash,
    /// The file has its length, the bytes never came: zeros after a power cut or on a full disk.
    NeverWritten,
    /// A write of which only the first sectors arrived.
    HalfWritten,
    /// One bit is not as it was written.
    OneFlippedBit,
    /// Other bytes than were written.
    Overwritten,
    /// A page is there a second time.
    DuplicatedPage,
    /// The medium returns an error.
    Unreadable,
    /// The file became shorter while it was read.
    CutWhileRead,
    /// A record that the writer gave up half-way: a full disk does that.
    AbandonedWrite,
    /// Checksums are right: it was wrong before it was written, or fragments do not belong together.
    WrittenWrong,
    /// Somebody removed, renamed or added files.
    Files,
}

/// A place, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The path of its log; `None` if it is about the directory.
    pub log: Option<String>,
    /// The file or directory it is about.
    pub path: String,
    /// The number of its segment.
    pub segment: Option<i64>,
    /// Where the damaged bytes begin in that file.
    pub offset: Option<u64>,
    /// Where they end.
    pub end: Option<u64>,
    /// What is wrong there; in JSON the sentence, as `message`.
    #[serde(rename = "message", serialize_with = "as_sentence")]
    pub detail: Detail,
    /// The likely cause.
    pub cause: Option<Cause>,
    /// How many places in a row it is about.
    pub places: u64,
    /// What cannot be read because of it.
    pub lost: Lost,
    /// Whole fragments elsewhere in the segment that belong to the lost record: pairs of offset and end.
    pub orphans: Vec<(u64, u64)>,
    /// The one bit that explains it.
    pub correction: Option<Correction>,
    /// Distinct refs of series that it is about.
    pub series: Option<u64>,
    /// The times of the samples that it is about.
    pub times: Option<Times>,
    /// The time of which samples are gone for good because of it, as far as neither blocks nor head chunks have them.
    pub gone: Option<Times>,
}

fn as_sentence<S: Serializer>(detail: &Detail, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(detail)
}

impl Finding {
    /// What is wrong there, as a sentence.
    #[must_use]
    pub fn message(&self) -> String {
        self.detail.to_string()
    }

    /// Whether it says that the last checkpoint and the segments do not continue each other.
    pub(crate) fn is_of_generations(&self) -> bool {
        matches!(self.code, Code::CheckpointAhead | Code::RestartedGeneration)
    }

    /// Whether it is as bad as findings of its code may be.
    pub(crate) fn has_a_severity_of_its_code(&self) -> bool {
        self.code.severities().contains(&self.severity)
    }

    /// Whether it says that refs mean several series.
    pub(crate) fn is_of_reissued_refs(&self) -> bool {
        self.code == Code::ReissuedRefs
    }
}

/// From a time to a time, both included, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Times {
    /// The earlier; `None` if that is not known.
    pub from: Option<i64>,
    /// The later; `None` if that is not known.
    pub to: Option<i64>,
}

/// What a finding costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Records; `None` where that is not known.
    pub records: Option<u64>,
    /// Their entries; `None` where that is not known.
    pub entries: Option<u64>,
}

/// One flipped bit that explains a finding, and the record that comes out when it is flipped back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Correction {
    /// The byte, as an offset in the file.
    pub offset: u64,
    /// The bit in it, 0 the lowest.
    pub bit: u32,
    /// Prometheus's name of the record's type.
    pub record: &'static str,
    /// The entries that the record holds.
    pub entries: u64,
    /// One in this many damages of any other kind would look like this by coincidence.
    pub odds: u64,
}
