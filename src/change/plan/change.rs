//! What is done to a file.

use serde::{Deserialize, Serialize};

use super::{Series, hex};
use crate::tsdb::Version;
use crate::wal::Corrections;
use crate::wal::fill::{fill, fill_to_page_end};

/// What is done to files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
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
    /// A segment is rewritten: its records as they are stored, in order, without what is damaged.
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
        /// Which flipped bits are corrected in it.
        #[serde(default)]
        corrections: Corrections,
        /// Entries of higher refs are dropped: these mean other series by now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refs_up_to: Option<u64>,
        /// Series whose records are lost and that are written before all else.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        begins_with: Vec<Series>,
        /// Its pages, if they are not where they were written.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pages: Vec<PageRun>,
        /// Its new bytes. All else here describes how they were made; only these are written. Plans of versions
        /// that staged nothing have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        staged: Option<Staged>,
    },
    /// The index of a block is rewritten: its symbols and series as they are and where they are, without chunks that cannot be read
    /// and series that keep none, and all that is made of them.
    RewriteIndex {
        /// The index.
        path: String,
        /// Its size before.
        bytes: u64,
        /// Series that it keeps.
        series: u64,
        /// Chunks that it keeps.
        chunks: u64,
        /// Chunks that it names no more.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<DroppedChunks>,
        /// Its new bytes.
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
            | Self::RewriteIndex { path, .. }
            | Self::Create { path, .. }
            | Self::CreateDirectory { path }
            | Self::Rename { from: path, .. }
            | Self::SetAside { path, .. } => path,
        }
    }

    /// Where the records of a rewritten segment come from.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Rewrite { from: Some(from), .. } => from,
            _ => self.path(),
        }
    }

    /// The new bytes of a file that is rewritten.
    #[must_use]
    pub fn staged(&self) -> Option<&Staged> {
        match self {
            Self::Rewrite { staged, .. } | Self::RewriteIndex { staged, .. } => staged.as_ref(),
            _ => None,
        }
    }

    /// Has these bytes written, if it is one that has a file rewritten.
    pub(crate) fn set_staged(&mut self, settled: Staged) {
        if let Self::Rewrite { staged, .. } | Self::RewriteIndex { staged, .. } = self {
            *staged = Some(settled);
        }
    }

    /// Whether it has a file rewritten, as a whole.
    #[must_use]
    pub fn is_rewrite(&self) -> bool {
        matches!(self, Self::Rewrite { .. } | Self::RewriteIndex { .. })
    }

    /// Series that a rewritten segment begins with.
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
            Self::Rewrite { bytes, .. } | Self::RewriteIndex { bytes, .. } | Self::SetAside { bytes, .. } => {
                *bytes
            }
            Self::Create { .. } | Self::CreateDirectory { .. } | Self::Rename { .. } => 0,
        }
    }
}

/// Chunks that follow one another in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedChunks {
    /// The first, counted from 0 on among the chunks of all series that can be read.
    pub first: u64,
    /// How many.
    pub count: u64,
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

/// Pages of 32 KiB that follow one another in a rewritten segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PageRun {
    /// Its own.
    Own {
        /// The number of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One that is in another segment now.
    #[serde(with = "hex")]
    Bytes(Vec<u8>),
    /// So many that hold nothing, and across which no record continues: they are not written.
    Nothing(u64),
}

/// How a file is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The bytes are overwritten, the last first: until the very last write Prometheus stops where it stopped before.
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
#[non_exhaustive]
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
