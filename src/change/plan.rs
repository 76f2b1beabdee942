//! A plan: what a repair changes, as data. A dry run prints the very value that is executed, and the backup keeps it.
//!
//! The field names are the keys of the JSON: they may be added to, never renamed or removed. Times are in milliseconds
//! since 1970, sizes and offsets in bytes. Paths are relative to the data directory, with `/`.

use serde::{Deserialize, Serialize};

use super::Options;
pub use super::code::PlanCode;
pub use super::series::{Series, SeriesLabels};
use crate::record::DeletionsLost;
use crate::tsdb::Version;
use crate::wal::Corrections;
use crate::wal::fill::{fill, fill_to_page_end};

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
    /// Which flipped bits are put right.
    #[serde(default)]
    pub corrections: Corrections,
    /// In the order in which they are done. What Prometheus stops at first, or does not start for, is mended last. No two
    /// are about the same name, but for what is renamed after it was made, and what takes the place of something that was
    /// set aside.
    pub steps: Vec<Step>,
    /// Damage that stays.
    pub left: Vec<Left>,
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
    /// Where the labels of series stand whose records are lost.
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
            && self
                .steps
                .iter()
                .any(|step| matches!(step.change, Change::Patch { .. } | Change::Rewrite { .. }))
    }

    /// Bytes that a backup keeps.
    #[must_use]
    pub fn backup_bytes(&self) -> u64 {
        self.steps.iter().map(|step| step.change.replaced_bytes()).sum()
    }
}

/// One change, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub change: Change,
    /// The findings that it mends.
    pub mends: Vec<Mends>,
    /// What is lost.
    pub lost: Loss,
}

/// A finding that is mended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mends {
    /// Its code.
    pub code: PlanCode,
    /// Where the damaged bytes begin.
    pub offset: Option<u64>,
    /// Where they end.
    pub end: Option<u64>,
    /// What is wrong, in words.
    pub message: String,
    /// Why walfix mends it so.
    pub how: String,
}

/// A finding that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its code.
    pub code: PlanCode,
    /// The file or directory it is about.
    pub path: String,
    /// Where the damaged bytes begin.
    pub offset: Option<u64>,
    /// Where they end.
    pub end: Option<u64>,
    /// Why it stays.
    pub reason: String,
}

/// What is lost. `None` is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Records.
    pub records: Option<u64>,
    /// Their entries.
    pub entries: Option<u64>,
    /// So many records at the least; all of them, if that is known.
    #[serde(default)]
    pub records_at_least: u64,
    /// So many entries at the least.
    #[serde(default)]
    pub entries_at_least: u64,
    /// Whether deletions are among it, so that samples which they had deleted are served again.
    #[serde(default)]
    pub deletions: DeletionsLost,
}

impl Loss {
    /// Nothing.
    pub const NOTHING: Self = Self::new(Some(0), Some(0));

    /// So much.
    #[must_use]
    pub const fn new(records: Option<u64>, entries: Option<u64>) -> Self {
        const fn least(known: Option<u64>) -> u64 {
            match known {
                Some(count) => count,
                None => 0,
            }
        }
        Self {
            records,
            entries,
            records_at_least: least(records),
            entries_at_least: least(entries),
            deletions: DeletionsLost::None,
        }
    }

    /// And such deletions.
    #[must_use]
    pub fn with(self, deletions: DeletionsLost) -> Self {
        Self { deletions: self.deletions.max(deletions), ..self }
    }

    /// Of both; what is not known of one is not known of the sum.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let add = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        Self {
            records: add(self.records, other.records),
            entries: add(self.entries, other.entries),
            records_at_least: self.records_at_least.saturating_add(other.records_at_least),
            entries_at_least: self.entries_at_least.saturating_add(other.entries_at_least),
            deletions: self.deletions.max(other.deletions),
        }
    }
}

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

    /// Whether they are so many that a repair is not begun without a word.
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

/// Where the labels of series stand whose records are lost.
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
    /// Where they stand.
    pub path: String,
    /// Of how many series.
    pub series: u64,
}

/// Labels that are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsRefused {
    /// Where they stand.
    pub path: String,
    /// Of how many series.
    pub series: u64,
    /// Why not.
    pub reason: String,
}

/// What is done to files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Some bytes of a file become others.
    Patch {
        /// The file.
        path: String,
        /// How.
        method: Method,
        /// What is written, in the order of offsets.
        patches: Vec<Patch>,
    },
    /// A segment is written anew: its records as they are stored, in order, without what is damaged.
    Rewrite {
        /// The segment.
        path: String,
        /// Whose records it gets, if not its own.
        from: Option<String>,
        /// Its size before.
        bytes: u64,
        /// Records that it keeps.
        records: u64,
        /// The version of the agent that it is written for, if it is for one.
        agent: Option<Version>,
        /// Which flipped bits are put right in it.
        #[serde(default)]
        corrections: Corrections,
        /// Entries of higher refs are left out: these mean other series by now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refs_up_to: Option<u64>,
        /// Series whose records are lost and that are written before all else.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        begins_with: Vec<Series>,
        /// Its pages, if they do not stand where they were written.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pages: Vec<PageRun>,
        /// Its new bytes. All else here describes how they were made; only these are written. Plans of versions
        /// that staged nothing have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        staged: Option<Staged>,
    },
    /// A file that was not there.
    Create {
        /// Where.
        path: String,
        /// Its bytes.
        #[serde(with = "hex")]
        bytes: Vec<u8>,
    },
    /// A directory that was not there.
    CreateDirectory {
        /// Where.
        path: String,
    },
    /// A file or directory gets another name.
    Rename {
        /// Its name.
        from: String,
        /// Its new name, under which there is nothing.
        to: String,
    },
    /// A file or directory goes into the backup.
    SetAside {
        /// Where it is.
        path: String,
        /// Bytes that it holds.
        bytes: u64,
    },
}

impl Change {
    /// What it is done to.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Patch { path, .. }
            | Self::Rewrite { path, .. }
            | Self::Create { path, .. }
            | Self::CreateDirectory { path }
            | Self::Rename { from: path, .. }
            | Self::SetAside { path, .. } => path,
        }
    }

    /// Where the records of a segment that is written anew come from.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Rewrite { from: Some(from), .. } => from,
            _ => self.path(),
        }
    }

    /// The new bytes of a segment that is written anew.
    #[must_use]
    pub fn staged(&self) -> Option<&Staged> {
        match self {
            Self::Rewrite { staged, .. } => staged.as_ref(),
            _ => None,
        }
    }

    /// Series with which a segment begins that is written anew.
    #[must_use]
    pub fn begins_with(&self) -> &[Series] {
        match self {
            Self::Rewrite { begins_with, .. } => begins_with,
            _ => &[],
        }
    }

    /// All names that it is about.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let to = match self {
            Self::Rename { to, .. } => Some(to.as_str()),
            _ => None,
        };
        std::iter::once(self.path()).chain(to)
    }

    /// Bytes that are no more where they were.
    #[must_use]
    pub fn replaced_bytes(&self) -> u64 {
        match self {
            Self::Patch { patches, .. } => patches.iter().map(|patch| patch.replaces).sum(),
            Self::Rewrite { bytes, .. } | Self::SetAside { bytes, .. } => *bytes,
            Self::Create { .. } | Self::CreateDirectory { .. } | Self::Rename { .. } => 0,
        }
    }
}

/// A file that is written as a whole before anything is changed, beside the one whose place it takes by one rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// CRC-64/NVME of its bytes.
    pub checksum: String,
}

/// Pages of 32 KiB that follow one another in a segment that is written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageRun {
    /// Its own.
    Own {
        /// The number of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One that stands in another segment now.
    #[serde(with = "hex")]
    Bytes(Vec<u8>),
    /// So many that hold nothing, and across which no record goes on: they are not written.
    Nothing(u64),
}

/// How a file is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The bytes are written where they stand, the last first: until the very last write Prometheus stops where it stopped
    /// before.
    InPlace,
    /// A changed copy takes the place of the file at once. For damage at which Prometheus does not stop: half of a
    /// change would be worse for it than none.
    Replace,
}

/// Bytes of a file, and what comes in their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Where.
    pub offset: u64,
    /// How many bytes of what was there. Only at the end of a file as many as are written or not.
    pub replaces: u64,
    /// What comes there.
    pub with: Content,
}

impl Patch {
    /// Where what is replaced ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.replaces
    }
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Nothing: the file ends here.
    End,
    /// So many bytes of records that say nothing, [`fill`].
    Fill(u64),
    /// So many, up to the end of a page: [`fill_to_page_end`].
    FillToPageEnd(u64),
    /// So many zeros.
    Zeros(u64),
    /// These.
    #[serde(with = "hex")]
    Bytes(Vec<u8>),
}

impl Content {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let size = |length: u64| usize::try_from(length).unwrap_or(0);
        match self {
            Self::End => Vec::new(),
            Self::Fill(length) => fill(size(*length)).unwrap_or_default(),
            Self::FillToPageEnd(length) => fill_to_page_end(size(*length)),
            Self::Zeros(length) => vec![0; size(*length)],
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// A file that a plan was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Where it is.
    pub path: String,
    /// The device that it is on.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its size.
    pub bytes: u64,
    /// When it was last written to, ns since 1970.
    pub modified: i128,
    /// CRC-64/NVME of its bytes, if it is changed.
    pub checksum: Option<String>,
}

/// Bytes as text.
pub(crate) mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn digits(bytes: &[u8]) -> String {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }

    /// `None` if it is not an even number of hexadecimal digits.
    pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
        Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digits(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        bytes(&text).ok_or_else(|| D::Error::custom("not an even number of hexadecimal digits"))
    }
}
