//! The marker of an unfinished repair on a volume without a free byte: an empty file whose name says it all. Making a name
//! takes no block as long as its directory has room, and bytes that are overwritten in place take none either.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data::Data;
use super::files::sync_directory;
use crate::io::beneath::Place;

/// In the data directory as long as a repair is not finished.
pub(super) const MARKER: &str = "walfix-repair.json";

const BACKUP: &str = "walfix-repair.backup.";
const CHANGE: &str = "walfix-repair.change.";

/// The longest name of a file (`NAME_MAX`).
const LONGEST: usize = 255;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// The old bytes are being kept; nothing has been changed.
    Backup,
    /// The backup is whole.
    Change,
}

/// A marker by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MarkerName {
    name: String,
    pub(super) stage: Stage,
    /// Where the backup is.
    pub(super) backup: PathBuf,
}

impl MarkerName {
    /// None if the name would be too long.
    fn new(stage: Stage, backup: &Path) -> Option<Self> {
        let prefix = match stage {
            Stage::Backup => BACKUP,
            Stage::Change => CHANGE,
        };
        let name = format!("{prefix}{}", encoded(backup));
        (name.len() <= LONGEST).then(|| Self { name, stage, backup: backup.to_owned() })
    }

    fn of(name: &str) -> Option<Self> {
        let of_stage = |prefix, stage| Some((stage, decoded(name.strip_prefix(prefix)?)?));
        let (stage, backup) = of_stage(BACKUP, Stage::Backup).or_else(|| of_stage(CHANGE, Stage::Change))?;
        Some(Self { name: name.to_owned(), stage, backup })
    }

    /// All that are there, in the order of their names.
    pub(super) fn all(data: &Place) -> io::Result<Vec<Self>> {
        let names = data.list()?.into_iter();
        let mut all: Vec<Self> = names.filter_map(|(name, _)| Self::of(name.to_str()?)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Makes the marker of a repair, or the one that is there into that of this stage.
    pub(super) fn write(data: &Data, stage: Stage, backup: &Path) -> io::Result<()> {
        let named = Self::new(stage, backup).ok_or(io::ErrorKind::InvalidFilename)?;
        let place = data.join(&named.name);
        match Self::all(data.place())?.first() {
            Some(before) if before.name == named.name => {}
            Some(before) => data.join(&before.name).rename(&place)?,
            None => {
                let owner = data.owner()?.with_mode(0o600);
                owner.give_if_allowed(&place.create_file(0o600)?)?;
            }
        }
        sync_directory(data.place())
    }

    pub(super) fn remove(&self, data: &Data) -> io::Result<()> {
        data.join(&self.name).remove_file()
    }
}

/// With `%XX` for each byte that is no letter, digit, dot, hyphen or underscore.
fn encoded(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let bytes = path.as_os_str().as_bytes().iter();
    bytes
        .map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn decoded(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut left = text.as_bytes();
    while let [first, rest @ ..] = left {
        left = rest;
        if *first == b'%' {
            let (hex, rest) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            left = rest;
        } else {
            bytes.push(*first);
        }
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
    // What is written otherwise than we write it is none of ours.
    (encoded(&path) == text && path.as_os_str() != OsStr::new("")).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_the_backup_is() {
        let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/mnt/a b/%41/\xff".to_vec()));
        for path in [Path::new("/mnt/walfix-backup"), &odd] {
            let named = MarkerName::new(Stage::Change, path).unwrap();
            assert!(named.name.is_ascii() && !named.name.contains('/'));
            assert_eq!(MarkerName::of(&named.name), Some(named));
        }
        assert_eq!(MarkerName::new(Stage::Backup, Path::new(&"/".repeat(80))), None);
        for name in [
            "walfix-repair.json",
            "walfix-repair.change.",
            "walfix-repair.change.%2",
            "walfix-repair.change.%2f",
        ] {
            assert_eq!(MarkerName::of(name), None, "{name}");
        }
    }
}
