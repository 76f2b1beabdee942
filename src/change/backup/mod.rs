//! A backup: a plain directory that can be understood without walfix.
//!
//! ```text
//! walfix-backup-2026-01-31T03-12-45Z/
//!   README.txt       how to put everything back by hand
//!   manifest.json    each changed file as it was and as it is after the repair
//!   plan.json        the plan that was executed
//!   checksums        of these three, CRC-64/NVME
//!   old/wal/00000003 the bytes that were replaced, one after the other; or the whole file or directory
//! ```

mod layout;
mod manifest;
mod open;
mod place;
mod readme;
mod write;

pub(super) use self::manifest::{ChangedFile, DirectoryTime, directories};
pub use self::open::Backup;
pub(super) use self::place::{
    absolute, discard, in_the_making, is_left_alone, is_of, make_room, never_finished, place,
    remove_unfinished,
};
