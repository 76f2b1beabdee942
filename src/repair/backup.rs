//! A backup: a plain directory that can be understood without walfix.
//!
//! ```text
//! walfix-backup-2026-01-31T03-12-45Z/
//!   README.txt       how to put everything back by hand
//!   manifest.json    each changed file as it was and as it is after the repair
//!   plan.json        the plan that was executed
//!   old/wal/00000003 the bytes that were replaced, one behind the other; or the whole file
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{At as _, RepairError};
use super::files::{self, Splice, checksum_spliced, copy_tree, write_and_verify};
use super::input::{self, Checksum};
use super::plan::{Change, Plan};
use super::segment::rewrite;

/// The identity of the manifest.
pub(super) const SCHEMA: &str = "walfix.backup/1";

const PLAN: &str = "plan.json";
const MANIFEST: &str = "manifest.json";
const README: &str = "README.txt";
const OLD: &str = "old";

/// A backup on the disk.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The directory.
    pub(super) path: PathBuf,
    pub(super) plan: Plan,
    pub(super) manifest: Manifest,
}

/// What was, and what is after the repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) schema: String,
    /// The data directory, as an absolute path.
    pub(super) data: PathBuf,
    /// Files whose bytes are changed.
    pub(super) files: Vec<Changed>,
    /// Directories in which names are changed.
    pub(super) directories: Vec<Directory>,
}

/// A file before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Changed {
    pub(super) path: String,
    pub(super) before: State,
    pub(super) after: State,
    /// When it was last written to, ns since 1970.
    pub(super) modified: i128,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The old bytes, as a path in the backup.
    pub(super) old: String,
    /// Of these.
    pub(super) old_checksum: String,
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) bytes: u64,
    /// CRC-64/NVME.
    pub(super) checksum: String,
}

/// When a directory was last changed, ns since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    pub(super) path: String,
    pub(super) modified: i128,
}

impl Backup {
    /// Writes the backup of what `plan` changes below `data` to `path`, which is not there yet. It gets its name when it
    /// is whole and has been read back.
    pub(super) fn write(path: &Path, data: &Path, plan: &Plan) -> Result<Self, RepairError> {
        // Before the backup itself is made in it.
        let root = Directory {
            path: String::new(),
            modified: input::modified(&data.metadata().at("look at", data)?),
        };
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).at("remove", &unfinished)?;
        }
        fs::create_dir(&unfinished).at("create", &unfinished)?;
        let mut manifest = Manifest {
            schema: SCHEMA.to_owned(),
            data: data.canonicalize().at("find", data)?,
            files: Vec::new(),
            directories: vec![root],
        };
        for step in &plan.steps {
            let below = step.change.path();
            if let Change::Patch { .. } | Change::Rewrite { .. } = &step.change {
                let changed =
                    keep(&unfinished, data, &step.change).at("keep the old bytes of", &data.join(below))?;
                manifest.files.push(changed);
            }
            let directory = below.rsplit_once('/').map_or("", |(directory, _)| directory);
            if !manifest.directories.iter().any(|known| known.path == directory) {
                let full = data.join(directory);
                let modified = input::modified(&full.metadata().at("look at", &full)?);
                manifest.directories.push(Directory { path: directory.to_owned(), modified });
            }
        }
        write_json(&unfinished.join(MANIFEST), &manifest)?;
        write_json(&unfinished.join(PLAN), plan)?;
        let readme = unfinished.join(README);
        let text = super::readme::text(plan, &manifest);
        write_and_verify(&readme, |out| out.write_all(text.as_bytes())).at("write", &readme)?;
        sync_tree(&unfinished).at("write", &unfinished)?;
        fs::rename(&unfinished, path).at("create", path)?;
        files::sync_directory_of(path).at("create", path)?;
        Self::open(path)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a backup, and verifies it.
    pub(super) fn open(path: &Path) -> Result<Self, RepairError> {
        let wrong = |what: String| RepairError::Backup { path: path.to_owned(), what };
        let plan: Plan = read_json(&path.join(PLAN)).map_err(wrong)?;
        let manifest: Manifest = read_json(&path.join(MANIFEST)).map_err(wrong)?;
        if plan.schema != super::plan::SCHEMA || manifest.schema != SCHEMA {
            return Err(wrong(format!("it was written by walfix {}, in another form", plan.walfix)));
        }
        for changed in &manifest.files {
            let old = path.join(&changed.old);
            let (checksum, _) =
                checksum_spliced(&old, &[]).map_err(|error| wrong(format!("{}: {error}", changed.old)))?;
            if checksum != changed.old_checksum {
                return Err(wrong(format!("{} has been changed since it was written", changed.old)));
            }
        }
        Ok(Self { path: path.to_owned(), plan, manifest })
    }

    /// What the manifest has of a file.
    pub(super) fn changed(&self, path: &str) -> Result<&Changed, RepairError> {
        let changed = self.manifest.files.iter().find(|changed| changed.path == path);
        changed.ok_or_else(|| RepairError::Backup {
            path: self.path.clone(),
            what: format!("its plan changes {path}, and its manifest does not have that"),
        })
    }

    /// Where a file or directory is that was set aside.
    pub(super) fn aside(&self, path: &str) -> PathBuf {
        self.path.join(OLD).join(path)
    }

    /// The splices that a step makes, with what they replace.
    pub(super) fn splices(&self, change: &Change) -> io::Result<Vec<(Splice, Vec<u8>)>> {
        let Change::Patch { path, patches, .. } = change else { return Ok(Vec::new()) };
        let mut old = File::open(self.aside(path))?;
        let mut splices = Vec::new();
        for patch in patches {
            let mut bytes = vec![0; usize::try_from(patch.replaces).unwrap_or(0)];
            old.read_exact(&mut bytes)?;
            let splice = Splice { offset: patch.offset, replaces: patch.replaces, with: patch.with.bytes() };
            splices.push((splice, bytes));
        }
        Ok(splices)
    }
}

/// Keeps the old bytes of a file, and says what it is before and after.
fn keep(backup: &Path, data: &Path, change: &Change) -> io::Result<Changed> {
    let path = change.path();
    let full = data.join(path);
    let metadata = full.metadata()?;
    let old = format!("{OLD}/{path}");
    let kept = backup.join(&old);
    if let Some(directory) = kept.parent() {
        fs::create_dir_all(directory)?;
    }
    let (before, bytes) = checksum_spliced(&full, &[])?;
    let after = if let Change::Patch { patches, .. } = change {
        let file = File::open(&full)?;
        write_and_verify(&kept, |out| {
            for patch in patches {
                let mut bytes = vec![0; usize::try_from(patch.replaces).unwrap_or(0)];
                file.read_exact_at(&mut bytes, patch.offset)?;
                out.write_all(&bytes)?;
            }
            Ok(())
        })?;
        let splices: Vec<Splice> = patches
            .iter()
            .map(|patch| Splice { offset: patch.offset, replaces: patch.replaces, with: patch.with.bytes() })
            .collect();
        checksum_spliced(&full, &splices)?
    } else {
        copy_tree(&full, &kept)?;
        let mut sum = Sum { checksum: Checksum::new(), bytes: 0 };
        rewrite(&File::open(&full)?, bytes, change.agent(), &mut sum)?;
        (sum.checksum.text(), sum.bytes)
    };
    Ok(Changed {
        path: path.to_owned(),
        before: State { bytes, checksum: before },
        after: State { bytes: after.1, checksum: after.0 },
        modified: input::modified(&metadata),
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        old_checksum: checksum_spliced(&kept, &[])?.0,
        old,
    })
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), RepairError> {
    write_and_verify(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
    .at("write", path)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let name = || path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let text = fs::read(path).map_err(|error| format!("{}: {error}", name()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", name()))
}

fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    files::sync_directory(path)
}

/// Sums up what is written.
struct Sum {
    checksum: Checksum,
    bytes: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
