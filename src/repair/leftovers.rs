//! What a repair or an undo leaves behind that was killed while it wrote a file.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{directory_of, remove_any, set_modified_directory, staged, sync_directory};
use super::head_chunks::CHUNKS_HEAD;
use super::input;
use super::plan::{Change, Plan};
use super::transaction::UNFINISHED;
use crate::tsdb::Target;
use crate::tsdb::liveness::LOCK;
use crate::wal::segments::segment_index;

/// What names end in under which files are written before they get theirs, `files::staged`.
const STAGED: &str = ".walfix";

/// Names that what `plan` sets aside has below `data` while it goes, or comes back: files and directories alike.
pub(super) fn of_plan(data: &Path, plan: &Plan) -> BTreeSet<PathBuf> {
    let changes = plan.steps.iter().map(|step| &step.change);
    let aside = changes.filter(|change| matches!(change, Change::SetAside { .. }));
    aside.map(|change| staged(&data.join(change.path()))).collect()
}

/// Removes what was never given its name: `known`, and files that are called as we call them. Others may be somebody's
/// own, whatever their names end in.
pub(super) fn remove(data: &Target, known: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut directories: BTreeSet<PathBuf> = BTreeSet::from([data.path().to_owned()]);
    directories.extend(["wal", "wbl", CHUNKS_HEAD].iter().map(|log| data.path().join(log)));
    directories.extend(data.list()?.logs.iter().map(|log| data.path().join(&log.relative)));
    directories.extend(known.iter().map(|path| directory_of(path).to_owned()));
    directories.iter().try_for_each(|directory| remove_in(directory, known))
}

/// As [`remove`], in one directory.
pub(super) fn remove_in(directory: &Path, known: &BTreeSet<PathBuf>) -> io::Result<()> {
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
        if known.contains(&entry.path()) || (is_ours(&entry.file_name()) && entry.file_type()?.is_file()) {
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

/// Whether a file is called like a segment, the lock or the file of an unfinished repair before they get their names.
fn is_ours(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_suffix(STAGED));
    stem.is_some_and(|stem| [LOCK, UNFINISHED].contains(&stem) || segment_index(stem).is_some())
}
