//! What can be wrong: the code of each finding, and how bad it may be. `report::explain` has the words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Bytes that cannot be read, or a state on which Prometheus fails, deletes or goes wrong, now or at its next
    /// checkpoint.
    Damage,
    /// Odd, and Prometheus lives with it.
    Warning,
    /// Normal after a crash, or in operation.
    Note,
}

/// Declares the codes: each with its name, which never changes, and the severities that a finding of it may have, the usual
/// one first.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident = $name:literal [$($severity:ident),*],)+) => {
        /// What is wrong. Its name is stable: new ones may come, none is renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $code,)+
        }

        impl Code {
            /// All of them, in the order of `docs/findings.md`.
            pub const ALL: &[Self] = &[$(Self::$code,)+];

            /// Its name, in the JSON and everywhere else.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)+
                }
            }

            /// The severities that a finding of it may have, the usual one first. None if only a plan has it.
            #[must_use]
            pub const fn severities(self) -> &'static [Severity] {
                match self {
                    $(Self::$code => &[$(Severity::$severity),*],)+
                }
            }
        }
    };
}

codes! {
    /// A fragment's data does not match its checksum.
    ChecksumMismatch = "checksum_mismatch" [Damage, Note],
    /// A header claims more data than its page has room for.
    InvalidLength = "invalid_length" [Damage, Note],
    /// A fragment type that does not exist, or is invalid at this position.
    InvalidType = "invalid_type" [Damage],
    /// Other bytes than zeros in padding.
    JunkInPadding = "junk_in_padding" [Damage],
    /// A record that does not decompress.
    UnpackError = "unpack_error" [Damage],
    /// A record that is larger than walfix reads.
    RecordTooLarge = "record_too_large" [Warning],
    /// The rest of a file that unpacks to too much.
    NotRead = "not_read" [Damage],
    /// A compressed record whose header says that it is not compressed.
    CompressionFlag = "compression_flag" [Damage],
    /// Fragments of one record that disagree on its compression.
    FlagsDisagree = "flags_disagree" [Warning],
    /// A record that does not decode.
    DecodeError = "decode_error" [Damage],
    /// Fragments that do not belong together.
    SplicedRecord = "spliced_record" [Damage],

    /// A segment that ends within a record.
    TornRecord = "torn_record" [Damage, Note],
    /// A record that starts and never continues, with others after it.
    UnfinishedRecord = "unfinished_record" [Damage],
    /// The continuation of a record whose start is missing.
    HeadlessRecord = "headless_record" [Damage],

    /// Pages of zeros followed by data.
    ZeroedPages = "zeroed_pages" [Damage],
    /// Zeros up to the end of a page that is not the last one.
    ZeroedTail = "zeroed_tail" [Warning, Damage],
    /// Pages of zeros at the end of a segment.
    TrailingZeros = "trailing_zeros" [Warning, Note],
    /// A page that has the same bytes as an earlier one.
    DuplicatedPage = "duplicated_page" [Damage],
    /// Pages that are not where they were written.
    MisplacedPages = "misplaced_pages" [Damage],

    /// Bytes that the disk cannot read.
    Unreadable = "unreadable" [Damage],
    /// A file that became shorter while it was read.
    Shrunk = "shrunk" [Damage],

    /// A missing segment number, or one that two files have.
    SegmentsNotSequential = "segments_not_sequential" [Damage, Warning],
    /// The segment with which a log has to begin is missing.
    FirstSegmentMissing = "first_segment_missing" [Damage, Warning],
    /// A name that counts as a segment and is not looked for.
    MisnamedSegment = "misnamed_segment" [Damage, Warning],
    /// Something else than a regular file in the place of a segment.
    NotAFile = "not_a_file" [Damage],
    /// `wal` is a symbolic link.
    LinkedWal = "linked_wal" [Note],
    /// Another directory is a symbolic link.
    LinkNotFollowed = "link_not_followed" [Damage],
    /// A segment of no bytes with others after it.
    EmptySegment = "empty_segment" [Note, Warning],
    /// A file by the name of a checkpoint.
    CheckpointNotADirectory = "checkpoint_not_a_directory" [Damage],
    /// The last checkpoint has no segment.
    EmptyCheckpoint = "empty_checkpoint" [Warning, Damage],
    /// A checkpoint with a lower number than the last.
    OlderCheckpoint = "older_checkpoint" [Note],
    /// Segments that the last checkpoint covers.
    StaleSegments = "stale_segments" [Warning, Note],
    /// No segment has a number above that of the last checkpoint.
    CheckpointAhead = "checkpoint_ahead" [Damage],
    /// Prometheus has restarted the WAL beside a checkpoint.
    RestartedGeneration = "restarted_generation" [Damage],
    /// The last chunk snapshot is for a segment that does not exist.
    SnapshotAhead = "snapshot_ahead" [Damage],
    /// A file by the name of a chunk snapshot.
    SnapshotNotADirectory = "snapshot_not_a_directory" [Warning],
    /// A checkpoint or chunk snapshot that was never finished.
    StaleTemporary = "stale_temporary" [Note],
    /// The original of a segment that Prometheus was repairing when it died.
    InterruptedRepair = "interrupted_repair" [Warning],

    /// A missing file of head chunks.
    HeadChunksNotSequential = "head_chunks_not_sequential" [Damage],
    /// A file of head chunks whose name Prometheus does not find again.
    MisnamedHeadChunks = "misnamed_head_chunks" [Damage],
    /// A file of head chunks without a valid header.
    HeadChunksHeader = "head_chunks_header" [Damage],
    /// A head chunk that cannot be read.
    DamagedHeadChunk = "damaged_head_chunk" [Damage, Note],
    /// A head chunk that begins before the previous one of its series ends.
    HeadChunksOutOfSequence = "head_chunks_out_of_sequence" [Damage],
    /// Head chunks whose refs mean other series by now.
    HeadChunksOfOtherSeries = "head_chunks_of_other_series" [Damage],
    /// Head chunks whose refs are yet to be handed out.
    HeadChunksWithoutSeries = "head_chunks_without_series" [Damage],
    /// Entries of the WBL whose refs are yet to be handed out.
    WblWithoutSeries = "wbl_without_series" [Warning],

    /// A block that lacks a file of chunks.
    BlockIncomplete = "block_incomplete" [Damage],
    /// A block without a valid `meta.json`.
    BlockSkipped = "block_skipped" [Damage],
    /// A chunk of a block that cannot be read, or is not what the index says.
    DamagedBlockChunk = "damaged_block_chunk" [Damage, Warning],
    /// Series or postings of a block that cannot be read, or do not fit together.
    DamagedBlockIndex = "damaged_block_index" [Damage],
    /// Series, labels or chunks of a block that are not in order.
    BlockOutOfOrder = "block_out_of_order" [Damage, Warning],
    /// A block's `meta.json` that does not describe the block.
    BlockMetaDiffers = "block_meta_differs" [Warning],
    /// Blocks whose times overlap.
    BlocksOverlap = "blocks_overlap" [Note],
    /// Times between blocks that no block has.
    BlockGap = "block_gap" [Note],
    /// A block whose tombstones are missing.
    DeletionsLost = "deletions_lost" [Warning],
    /// A block that Prometheus cannot open.
    BlockUnusable = "block_unusable" [Damage],
    /// Samples or blocks from the future.
    FutureSamples = "future_samples" [Damage],
    /// What an earlier repair recorded as lost.
    LostLabels = "lost_labels" [Warning],
    /// A file that the user of Prometheus may not read or write.
    NoPermission = "no_permission" [Damage],
    /// A full volume.
    NoSpace = "no_space" [Damage],
    /// A volume that is mounted read-only.
    ReadOnly = "read_only" [Damage],

    /// Entries whose series is defined nowhere before them.
    UnknownRefs = "unknown_refs" [Warning, Note],
    /// Entries before the record that defines their series.
    SeriesAfterUse = "series_after_use" [Warning],
    /// A series record that is there again.
    RepeatedSeries = "repeated_series" [Damage, Warning],
    /// A ref that means several series.
    ReissuedRefs = "reissued_refs" [Damage],
    /// Records of a type that belongs in another log.
    MisplacedRecords = "misplaced_records" [Warning],
    /// More refs than walfix keeps track of.
    RefsNotJudged = "refs_not_judged" [Note],

    /// A record that an agent rejects. Only a plan has it.
    AgentRefuses = "agent_refuses" [],
    /// A chunk snapshot that hides samples of the WAL. Only a plan has it.
    SnapshotHidesSamples = "snapshot_hides_samples" [],
    /// Head chunks that hide samples of the WAL. Only a plan has it.
    HeadChunksHideSamples = "head_chunks_hide_samples" [],
    /// What Prometheus's own repair would do. Only a plan has it.
    PrometheusRepair = "prometheus_repair" [],
}

impl Code {
    /// Whether a finding may have it, and not a plan alone.
    #[must_use]
    pub const fn is_of_findings(self) -> bool {
        !self.severities().is_empty()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No [`Code`] has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no finding has the code {0:?}")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().find(|code| code.name() == name);
        found.copied().ok_or_else(|| UnknownCode(name.to_owned()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_variants_and_parse() {
        for &code in Code::ALL {
            let mut name = String::new();
            for char in format!("{code:?}").chars() {
                if char.is_ascii_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(char.to_ascii_lowercase());
            }
            assert_eq!(code.name(), name);
            assert_eq!(name.parse(), Ok(code));
            assert_eq!(serde_json::to_value(code).unwrap(), name);
            assert_eq!(serde_json::from_value::<Code>(name.into()).unwrap(), code);
        }
        assert_eq!("Damage".parse::<Code>(), Err(UnknownCode("Damage".to_owned())));
    }
}
