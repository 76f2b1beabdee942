//! What a user may do with a file, by its owner, group and mode.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::str::FromStr;

/// Who reads and writes a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

/// What is asked for, as a digit of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To read a file.
    Read = 0o4,
    /// To read a file and to write to it.
    Write = 0o6,
    /// To go through a directory and list it.
    List = 0o5,
    /// To list a directory, and to make and remove names in it.
    Change = 0o7,
}

impl User {
    /// The user whose process this is.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// Whether root's rights are theirs: nothing is forbidden then.
    #[must_use]
    pub fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Whether owner, group and mode of a file give them that right.
    #[must_use]
    pub fn may(self, right: Right, file: &Metadata) -> bool {
        let shift = if self.uid == file.uid() {
            6
        } else if self.gid == file.gid() {
            3
        } else {
            0
        };
        let wanted = right as u32;
        self.is_root() || (file.mode() >> shift) & wanted == wanted
    }
}

impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uid, gid) = text.split_once(':').ok_or("give it as UID:GID, for example 65534:65534")?;
        let number =
            |text: &str| text.parse().map_err(|_| "UID and GID are numbers, for example 65534:65534");
        Ok(Self { uid: number(uid)?, gid: number(gid)? })
    }
}
