//! Which flipped bits are believed.

use serde::{Deserialize, Serialize};

/// Which flipped bits are corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corrections {
    /// Those that leave little doubt: in an uncompressed fragment, of at most 4 KiB.
    #[default]
    Sure,
    /// Those in larger fragments, too.
    Large,
}

impl Corrections {
    /// Bytes of an uncompressed fragment in which a flipped bit is believed, at the most. Three flipped bits look like one
    /// other with a chance of about 8 n / 2^31 in n bytes, and in a record of samples nearly every byte is a value, which
    /// fits whatever it is.
    pub(crate) fn most_covered(self) -> u64 {
        match self {
            Self::Sure => 4096,
            Self::Large => u64::MAX,
        }
    }
}
