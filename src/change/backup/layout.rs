//! The names in a backup.

use std::io;

use serde::{Deserialize, Serialize};

use crate::change::input;
use crate::io::beneath::Place;

pub(super) const PLAN: &str = "plan.json";

pub(super) const MANIFEST: &str = "manifest.json";

pub(super) const README: &str = "README.txt";

pub(super) const CHECKSUMS: &str = "checksums";

pub(super) const OLD: &str = "old";

/// What the name of a backup ends in until it is whole.
pub(super) const UNFINISHED_ENDING: &str = ".unfinished";

/// Bytes of a description at the most: a plan may name 100 000 series that are lost, and has the labels of many.
pub(super) const LONGEST: u64 = 1 << 30;

pub(super) fn checksum_line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", input::checksum_of_bytes(bytes))
}

pub(super) fn json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

pub(super) fn read(backup: &Place, name: &str) -> Result<Vec<u8>, String> {
    backup.join(name).read(LONGEST).map_err(|error| format!("{name}: {error}"))
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(name: &str, text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{name}: {error}"))
}
