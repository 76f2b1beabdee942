//! What a repair loses.

use serde::{Deserialize, Serialize};

use crate::record::DeletionsLost;

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
