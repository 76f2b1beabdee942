//! The log format and its records: bytes in, records out, and the other way.

mod blocks;
mod blocks_written;
mod chunks;
mod damage;
mod document;
mod filling;
mod fuzzed;
mod glued;
mod head_chunks;
mod healthy;
mod loki;
mod record;
mod records;
mod runs;
mod walk;
mod written;

support::main!();
