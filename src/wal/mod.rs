//! The log format: bytes to records and back, and nothing above records.
//!
//! [`layout`] has the bytes, [`page`] cuts one page into pieces, [`reader`] joins these into records and never stops,
//! [`walk`] does the same, faster, and stops at the first trouble; `around` walks where that is known to go well, and
//! reads the rest with care; [`writer`] lays records out again.

pub(crate) mod around;
pub mod arranged;
mod batch;
pub mod compress;
mod corrections;
pub mod crc;
mod event;
pub mod fill;
mod intact;
mod lanes;
pub mod layout;
pub mod page;
pub mod reader;
pub mod segments;
pub mod source;
pub(crate) mod varint;
pub mod walk;
pub mod writer;

pub use corrections::Corrections;
pub use event::{CandidateCorrection, Damage, Event, Fault, Record};
pub use intact::IntactPart;
pub use layout::{Compression, FragmentType, HEADER_SIZE, PAGE, PAGE_SIZE};
pub use reader::SegmentReader;
pub use source::ReadAt;
