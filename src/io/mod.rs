//! Bytes from the disk, and changes to it: the one place that opens, makes, renames and removes files.
//!
//! Root repairs directories that somebody else owns, and that somebody may plant anything in them, at any moment. So nothing
//! is changed by a path: [`beneath`] resolves names below a directory that is held open, and follows no link. [`open`] is
//! for readers.

pub(crate) mod beneath;
mod cancel;
pub(crate) mod mapped;
mod open;
mod printable;

pub use self::cancel::Cancel;
pub use self::mapped::end_on_bus_errors;
pub use self::open::{LONGEST, is_no_file, open};
pub(crate) use self::open::{is_refusal, open_if_file, open_up_to, read};
pub use self::printable::printable;
