//! `walfix` is fsck for a Prometheus data directory. It reads every byte of the write-ahead log, reports what is damaged,
//! forecasts what Prometheus would do about it, and repairs the damage so that only the damaged bytes are lost.
//!
//! A scan with forecast and plan is one call, [`verdict::diagnose`]; a repair from the lock to the scan afterwards is one,
//! [`fix::fix`]; so is [`repair::undo`].
//!
//! ```
//! use std::path::Path;
//!
//! use walfix::fix::{Request, preview};
//! use walfix::tsdb::Target;
//! use walfix::verdict::{self, diagnose};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let target = Target::find(Path::new("testdata/damaged/payload_bit_flip"))?;
//! let found = diagnose(&target, &verdict::Options::default(), &())?;
//! for finding in &found.report.findings {
//!     println!("{} in {}: {}", finding.code, finding.path, finding.message());
//! }
//! let preview = preview(&target, &Request::default(), &())?;
//! assert_eq!(preview.planned.plan.steps.len(), 1);
//! assert_eq!(preview.planned.plan.lost.records, Some(0), "the flipped bit is corrected");
//! # Ok(())
//! # }
//! ```
//!
//! Modules name only those after them: `cli`, [`report`], [`fix`], [`verdict`], [`repair`] (decides), [`forecast`], [`scan`],
//! [`change`] (does), [`code`], [`tsdb`], [`chunk`], [`record`], [`wal`], [`io`]. `docs/design.md` says why; `docs/format.md` is the
//! format.

pub mod block;
pub mod change;
pub mod chunk;
pub mod code;
pub mod fix;
pub mod forecast;
pub mod io;
pub mod record;
pub mod repair;
pub mod report;
pub mod scan;
pub mod tsdb;
pub mod verdict;
pub mod wal;
