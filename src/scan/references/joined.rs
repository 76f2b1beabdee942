//! What all segments say of refs, put together in the order of their replay.

use std::collections::BTreeSet;

use foldhash::HashMap;

use super::bits::RefSets;
use super::segment::{LabelHash, LabelHasher, SegmentRefs};
use crate::scan::report::HighestRefs;
use crate::tsdb::replay_order::Role;

/// What all segments say of refs, put together in the order of their replay.
#[derive(Debug, Default)]
pub(in crate::scan) struct References {
    pub(super) hasher: LabelHasher,
    pub(super) refs: RefSets,
    /// Used in the WBL and defined nowhere.
    pub(super) wbl: RefSets,
    /// Segments that use what has not been defined up to there: their places in the work.
    pub(super) concerned: BTreeSet<usize>,
    /// Label sets in the checkpoint, if they are asked for.
    checkpoint: HashMap<u64, LabelHash>,
    /// Refs of the checkpoint that mean other series in segments which Prometheus skips for their number.
    pub(in crate::scan) reissued_below: u64,
    /// A segment that belongs to the replay was removed while it was read.
    pub(super) incomplete: bool,
    /// Refs of which a head chunk ends before the first sample, and that sample's time, ms.
    pub(in crate::scan) of_other_chunks: HashMap<u64, i64>,
    /// The first head chunk of a series may begin after the first sample.
    pub(in crate::scan) chunks_lack: bool,
}

/// The highest ref that is used and not defined.
pub(super) fn unknown(refs: &RefSets) -> Option<u64> {
    refs.highest(|block| block.used & !block.defined)
}

impl References {
    pub(in crate::scan) fn hasher(&self) -> LabelHasher {
        self.hasher.clone()
    }

    /// The next segment in the order of work; `None` if it has gone.
    pub(in crate::scan) fn add(&mut self, at: usize, role: Role, refs: Option<SegmentRefs>) {
        let Some(mut refs) = refs else {
            self.incomplete |= role.is_replayed();
            return;
        };
        refs.forget();
        if refs.refs.overflowed || self.have_overflowed() {
            self.refs = RefSets::overflowed();
            return;
        }
        let labels = refs.labels.map_or_else(HashMap::default, |labels| labels.hashes);
        match role {
            Role::Checkpoint | Role::Wal => {
                self.checkpoint.extend(labels);
                self.chunks_lack |= refs.chunks_lack;
                for other in refs.others {
                    if !self.refs.is_seen(other.series_ref) {
                        self.of_other_chunks.insert(other.series_ref, other.time);
                    }
                }
                for block in &refs.refs.blocks {
                    if self.refs.follow(block) != 0 {
                        self.concerned.insert(at);
                    }
                }
            }
            Role::Below => {
                let other =
                    |(series_ref, labels)| self.checkpoint.get(series_ref).is_some_and(|was| was != labels);
                self.reissued_below += labels.iter().filter(|&entry| other(entry)).count() as u64;
            }
            Role::Wbl => {
                for block in &refs.refs.blocks {
                    let missing = block.used & !self.refs.get(block.number).defined;
                    if missing != 0 {
                        self.wbl.block(block.number).used |= missing;
                        self.concerned.insert(at);
                    }
                }
            }
            Role::Beside => {}
        }
    }

    /// Whether there were more refs than can be looked at.
    pub(super) fn have_overflowed(&self) -> bool {
        self.refs.overflowed || self.wbl.overflowed
    }

    /// Whether all that belongs to the replay has been read.
    pub(in crate::scan) fn are_all_known(&self) -> bool {
        !self.incomplete && !self.have_overflowed()
    }

    /// The highest refs that are defined, and that are used and not defined.
    pub(in crate::scan) fn highest(&self) -> HighestRefs {
        HighestRefs {
            defined: self.refs.highest(|block| block.defined),
            unknown: unknown(&self.refs).max(unknown(&self.wbl)),
        }
    }

    /// Whether all that is used is defined before, and once.
    pub(super) fn fit(&self) -> bool {
        self.concerned.is_empty() && self.refs.blocks.iter().all(|block| block.again == 0)
    }
}
