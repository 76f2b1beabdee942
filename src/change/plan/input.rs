//! The files that a plan was made from.

use serde::{Deserialize, Serialize};

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
