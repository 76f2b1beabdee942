//! What the measurements read, the same at each run: records as servers write them, and logs of these.
#![allow(dead_code, unreachable_pub, reason = "each bench is a crate of its own and uses a part of it")]

pub mod logs;
pub mod records;

/// When the first scrape is, ms.
const BEGIN: i64 = 1_750_000_000_000;

/// From one scrape to the next, ms.
const INTERVAL: i64 = 15_000;
