//! Versions of Prometheus, and what they differ in where a log is read.
//!
//! Each answer names the version that brought it; all were found in Prometheus's own history (`tsdb/`).

use crate::record::{DecoderVersion, RecordType};
use crate::tsdb::Version;

impl Version {
    /// Whether it unpacks zstd (2.46). Before, the flag means nothing, and packed bytes are taken for a record.
    #[must_use]
    pub fn reads_zstd(self) -> bool {
        self.since(2, 46)
    }

    /// Whether it has a WBL at all (2.39).
    #[must_use]
    pub fn has_wbl(self) -> bool {
        self.since(2, 39)
    }

    /// Whether it passes over head chunks of an encoding that it does not know (2.39, `loadMmappedChunks`). Before, it takes them
    /// for chunks of the series with that ref, and queries fail on them.
    #[must_use]
    pub fn passes_over_unknown_encodings(self) -> bool {
        self.since(2, 39)
    }

    /// Whether it repairs the WBL where the WBL's framing is damaged (2.48). Before, it then repairs the WAL.
    #[must_use]
    pub fn repairs_wbl(self) -> bool {
        self.since(2, 48)
    }

    /// Whether it joins the fragments of a record first and unpacks them then, as the last one says (3.4). Before, it keeps
    /// those with a compression flag apart from those without, and takes the one pile or the other.
    #[must_use]
    pub fn joins_all_fragments(self) -> bool {
        self.since(3, 4)
    }

    /// How it decodes records.
    #[must_use]
    pub fn dialect(self) -> DecoderVersion {
        if self.since(3, 9) {
            DecoderVersion::V3_9
        } else if self.since(3, 7) {
            DecoderVersion::V3_7
        } else if self.since(3, 2) {
            DecoderVersion::V3_2
        } else if self.since(2, 42) {
            DecoderVersion::V2_42
        } else {
            DecoderVersion::V2_30
        }
    }

    /// Whether it replays histograms of the WBL (3.0). Before, it passes over them.
    #[must_use]
    pub fn replays_wbl_histograms(self) -> bool {
        self.since(3, 0)
    }

    /// Whether it takes float histograms over into a checkpoint (2.52). Before, it drops them there undecoded.
    #[must_use]
    pub fn checkpoints_float_histograms(self) -> bool {
        self.since(2, 52)
    }

    /// Whether it reads the time that the last checkpoint begins with before it makes another one (3.16).
    #[must_use]
    pub fn reads_min_valid_time(self) -> bool {
        self.since(3, 16)
    }

    /// Whether there is an agent (2.32).
    #[must_use]
    pub fn has_agent(self) -> bool {
        self.since(2, 32)
    }

    /// Whether an agent takes records for corruption that it has no use for, and hangs on the second one (up to 3.14). From
    /// 3.15 on it passes over them.
    #[must_use]
    pub fn agent_rejects_unknown(self) -> bool {
        !self.since(3, 15)
    }

    /// Whether an agent reads histograms (2.42).
    #[must_use]
    pub fn agent_reads_histograms(self) -> bool {
        self.since(2, 42)
    }

    /// Whether an agent reads metadata (3.16).
    #[must_use]
    pub fn agent_reads_metadata(self) -> bool {
        self.since(3, 16)
    }

    /// Whether it has names for record types (2.38). Before, it gives their numbers.
    #[must_use]
    pub fn names_record_types(self) -> bool {
        self.since(2, 38)
    }

    /// Whether it looks at the first segment for a WAL of before 2.4, to migrate it (up to 2.51).
    #[must_use]
    pub fn migrates_wal(self) -> bool {
        !self.since(2, 52)
    }

    /// Whether it removes a chunk snapshot that is ahead of all segments instead of loading it (2.43).
    #[must_use]
    pub fn drops_newer_snapshots(self) -> bool {
        self.since(2, 43)
    }

    /// Whether it decodes records of that type; it passes over others.
    #[must_use]
    pub fn knows(self, record: RecordType) -> bool {
        let (major, minor) = record.since();
        self.since(major, minor)
    }
}

/// What a start takes into memory.
impl Version {
    /// Whether it looks at the latest end of all blocks but those with certain hints (2.39). Before, at the end of the last one.
    #[must_use]
    pub fn heeds_block_hints(self) -> bool {
        self.since(2, 39)
    }

    /// Whether blocks of stale series are among those with such hints (3.10). Whether a tombstone over all time, which
    /// goes with them, removes the series, and is none like others.
    #[must_use]
    pub fn compacts_stale_series(self) -> bool {
        self.since(3, 10)
    }

    /// Whether blocks of selected series are among those with such hints (3.14).
    #[must_use]
    pub fn compacts_selected_series(self) -> bool {
        self.since(3, 14)
    }

    /// Whether a series that is recorded under another ref keeps the head chunks of the one before (3.16). Before, they are
    /// forgotten.
    #[must_use]
    pub fn merges_head_chunks(self) -> bool {
        self.since(3, 16)
    }

    /// Whether it knows head chunks of that encoding; it passes over others.
    #[must_use]
    pub fn knows_chunks(self, encoding: u8) -> bool {
        match encoding {
            1 => true,
            2 => self.since(2, 40),
            3 => self.since(2, 42),
            4 => self.since(3, 11),
            5 | 6 => self.since(3, 14),
            _ => !self.since(2, 39),
        }
    }

    /// Whether it prints the checksums of head chunks without leading zeros (2.52).
    pub(super) fn prints_short_checksums(self) -> bool {
        self.since(2, 52)
    }

    /// Whether it says "iterate on on-disk chunks" (up to 3.9).
    pub(super) fn iterates_on_on_disk_chunks(self) -> bool {
        !self.since(3, 10)
    }
}
