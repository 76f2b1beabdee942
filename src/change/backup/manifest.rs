//! What a backup says of each file that is changed, and of the directories.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::OLD;
use crate::change::files;
use crate::change::input;
use crate::change::plan::{Change, Plan};
use crate::io::beneath::{Place, is_below};

/// The identity of the manifest.
pub(in crate::change) const SCHEMA: &str = "walfix.backup/1";

/// What was, and what is after the repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::change) struct Manifest {
    pub(in crate::change) schema: String,
    /// The data directory, as an absolute path.
    pub(in crate::change) data: PathBuf,
    /// Where the backup was written, as an absolute path.
    pub(in crate::change) backup: PathBuf,
    /// Files whose bytes are changed.
    pub(in crate::change) files: Vec<ChangedFile>,
    /// What the repair moves into the backup.
    pub(in crate::change) aside: Vec<SetAside>,
    /// Directories in which names are changed.
    pub(in crate::change) directories: Vec<DirectoryTime>,
}

/// A file before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::change) struct ChangedFile {
    pub(in crate::change) path: String,
    pub(in crate::change) before: FileState,
    pub(in crate::change) after: FileState,
    /// When it was last written to, ns since 1970.
    pub(in crate::change) modified: i128,
    pub(in crate::change) mode: u32,
    pub(in crate::change) uid: u32,
    pub(in crate::change) gid: u32,
    /// The old bytes, as a path in the backup.
    pub(in crate::change) old: String,
    /// Of these.
    pub(in crate::change) old_checksum: String,
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::change) struct FileState {
    pub(in crate::change) bytes: u64,
    /// CRC-64/NVME.
    pub(in crate::change) checksum: String,
}

/// A file or directory that is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::change) struct SetAside {
    pub(in crate::change) path: String,
    /// CRC-64/NVME of all names and bytes, `files::checksum_tree`.
    pub(in crate::change) checksum: String,
}

/// When a directory was last changed, ns since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::change) struct DirectoryTime {
    pub(in crate::change) path: String,
    pub(in crate::change) modified: i128,
}

/// The directories below `data` in which `plan` changes names or files, and `data` itself, first.
pub(in crate::change) fn directories(data: &Place, plan: &Plan) -> io::Result<Vec<DirectoryTime>> {
    let mut directories: Vec<DirectoryTime> = Vec::new();
    let mut paths = vec![""];
    for step in &plan.steps {
        paths.extend(step.change.paths().map(|path| path.rsplit_once('/').map_or("", |(above, _)| above)));
    }
    for path in paths {
        if directories.iter().any(|known| known.path == path) {
            continue;
        }
        match data.join(path).look() {
            Ok(metadata) => {
                directories
                    .push(DirectoryTime { path: path.to_owned(), modified: input::modified(&metadata) });
            }
            // The plan makes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(directories)
}

/// The first path in a plan or a manifest that leads out of the data directory, or of the backup.
pub(super) fn outside<'a>(plan: &'a Plan, manifest: &'a Manifest) -> Option<&'a str> {
    let steps = plan.steps.iter().flat_map(|step| step.change.paths().chain([step.change.source()]));
    let inputs = plan.inputs.iter().map(|input| input.path.as_str());
    let files = manifest.files.iter().flat_map(|changed| [changed.path.as_str(), changed.old.as_str()]);
    let aside = manifest.aside.iter().map(|aside| aside.path.as_str());
    let directories = manifest.directories.iter().map(|directory| directory.path.as_str());
    // The data directory itself is one of these.
    let directories = directories.filter(|path| !path.is_empty());
    let mut all = steps.chain(inputs).chain(files).chain(aside).chain(directories);
    let outside = all.find(|path| !is_below(Path::new(path)));
    let is_elsewhere = |change: &&Change| {
        change.staged().is_some_and(|staged| staged.file.strip_suffix(files::STAGED) != Some(change.path()))
    };
    let staged = plan.steps.iter().map(|step| &step.change).find(is_elsewhere).and_then(Change::staged);
    let outside = outside.or(staged.map(|staged| staged.file.as_str()));
    let kept = |changed: &&ChangedFile| Path::new(&changed.old).strip_prefix(OLD).is_err();
    outside.or_else(|| manifest.files.iter().find(kept).map(|changed| changed.old.as_str()))
}
