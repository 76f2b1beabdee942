//! `walfix` is fsck for a Prometheus data directory: it reads every byte of the write-ahead log, says what is
//! damaged and where, and what that costs.
//!
//! The rooms, and which way the arrows point: `cli` -> [`report`] -> [`verdict`] -> [`repair`] -> [`forecast`] -> [`scan`] -> [`tsdb`], [`record`] -> [`wal`].
//! `docs/design.md` says why; `docs/format.md` is the format.

pub mod change;
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
