//! What a repair or an undo leaves behind that was killed while it wrote a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{remove_any, set_modified_directory, sync_directory};
use super::input;
use crate::tsdb::Target;

/// What names end in under which files are written before they get theirs, `files::staged`.
const STAGED: &str = ".walfix";

/// Removes all files and directories that were never given their names.
pub(super) fn remove(data: &Target) -> io::Result<()> {
    let mut directories: Vec<PathBuf> = vec![data.path().to_owned()];
    directories.extend(["wal", "wbl"].iter().map(|log| data.path().join(log)));
    directories.extend(data.list()?.logs.iter().map(|log| data.path().join(&log.relative)));
    directories.sort();
    directories.dedup();
    directories.iter().try_for_each(|directory| remove_in(directory))
}

/// As [`remove`], in one directory.
pub(super) fn remove_in(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        entries => entries?,
    };
    let modified = input::modified(&directory.metadata()?);
    let mut removed = false;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(STAGED)) {
            remove_any(&entry.path())?;
            removed = true;
        }
    }
    if removed {
        set_modified_directory(directory, modified)?;
        sync_directory(directory)?;
    }
    Ok(())
}
