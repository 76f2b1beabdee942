//! A backup: a plain directory that can be understood without walfix.
//!
//! ```text
//! walfix-backup-2026-01-31T03-12-45Z/
//!   README.txt       how to put everything back by hand
//!   manifest.json    each changed file as it was and as it is after the repair
//!   plan.json        the plan that was executed
//!   checksums        of these three, CRC-64/NVME
//!   old/wal/00000003 the bytes that were replaced, one behind the other; or the whole file or directory
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{At as _, RepairError};
use super::files::{
    self, Bytes, Splice, checksum_spliced, checksum_tree, copy_tree, each_piece, sync_tree, write_and_verify,
};
use super::input::{self, Checksum};
use super::plan::{Change, Patch, Plan, Step};
use super::segment::rewrite;

/// The identity of the manifest.
pub(super) const SCHEMA: &str = "walfix.backup/1";

const PLAN: &str = "plan.json";
const MANIFEST: &str = "manifest.json";
const README: &str = "README.txt";
const CHECKSUMS: &str = "checksums";
const OLD: &str = "old";

/// What the name of a backup ends in until it is whole.
const UNFINISHED: &str = ".unfinished";

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
    /// Where the backup was written, as an absolute path.
    pub(super) backup: PathBuf,
    /// Files whose bytes are changed.
    pub(super) files: Vec<Changed>,
    /// What the repair moves into the backup.
    pub(super) aside: Vec<Aside>,
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

/// A file or directory that is set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aside {
    pub(super) path: String,
    /// CRC-64/NVME of all names and bytes, `files::checksum_tree`.
    pub(super) checksum: String,
}

/// When a directory was last changed, ns since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    pub(super) path: String,
    pub(super) modified: i128,
}

/// The directories below `data` in which `plan` changes names or files, and `data` itself, first.
pub(super) fn directories(data: &Path, plan: &Plan) -> io::Result<Vec<Directory>> {
    let mut directories: Vec<Directory> = Vec::new();
    let mut paths = vec![""];
    for step in &plan.steps {
        paths.extend(step.change.paths().map(|path| path.rsplit_once('/').map_or("", |(above, _)| above)));
    }
    for path in paths {
        if directories.iter().any(|known| known.path == path) {
            continue;
        }
        match data.join(path).metadata() {
            Ok(metadata) => {
                directories.push(Directory { path: path.to_owned(), modified: input::modified(&metadata) });
            }
            // The plan makes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(directories)
}

/// Where the backup `path` is written before it is whole.
pub(super) fn in_the_making(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

/// Backups in a directory that never became whole: of repairs that were not begun.
pub(super) fn never_finished(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("walfix-backup-") && name.ends_with(UNFINISHED));
        if is_ours && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a backup that never became whole, if it is there; whether it was. Nothing else is removed by its name.
pub(super) fn remove_unfinished(path: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        if ![PLAN, MANIFEST, README, CHECKSUMS, OLD].iter().any(|ours| name == **ours) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} in it is not of a backup", name.display()),
            ));
        }
    }
    fs::remove_dir_all(path)?;
    files::sync_directory_of(path)?;
    Ok(true)
}

impl Backup {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the backup of what `plan` changes below `data` to `path`, which is absolute and not there yet. It gets its
    /// name when it is whole and has been read back. `directories` are those of the plan as they were.
    pub(super) fn write(
        path: &Path,
        data: &Path,
        plan: &Plan,
        directories: Vec<Directory>,
    ) -> Result<Self, RepairError> {
        let unfinished = in_the_making(path);
        fs::create_dir(&unfinished).at("create", &unfinished)?;
        let mut manifest = Manifest {
            schema: SCHEMA.to_owned(),
            data: data.canonicalize().at("find", data)?,
            backup: path.to_owned(),
            files: Vec::new(),
            aside: Vec::new(),
            directories,
        };
        for step in &plan.steps {
            let below = step.change.path();
            let full = data.join(below);
            match &step.change {
                Change::Patch { .. } | Change::Rewrite { .. } => {
                    let changed = keep(&unfinished, data, &step.change).at("keep the old bytes of", &full)?;
                    manifest.files.push(changed);
                }
                Change::SetAside { .. } => {
                    let (checksum, _) = checksum_tree(&full).at("read", &full)?;
                    manifest.aside.push(Aside { path: below.to_owned(), checksum });
                }
                Change::Create { .. } | Change::CreateDirectory { .. } | Change::Rename { .. } => {}
            }
        }
        let text = super::readme::text(plan, &manifest);
        let described = [(MANIFEST, json(&manifest)), (PLAN, json(plan)), (README, Ok(text.into_bytes()))];
        let mut checksums = String::new();
        for (name, bytes) in described {
            let (file, bytes) = (unfinished.join(name), bytes.at("write", &unfinished.join(name))?);
            write_and_verify(&file, |out| out.write_all(&bytes)).at("write", &file)?;
            checksums += &checksum_line(name, &bytes);
        }
        let file = unfinished.join(CHECKSUMS);
        write_and_verify(&file, |out| out.write_all(checksums.as_bytes())).at("write", &file)?;
        sync_tree(&unfinished).at("write", &unfinished)?;
        files::rename_new(&unfinished, path).at("create", path)?;
        Self::open(path)
    }

    /// Reads a backup, and verifies it.
    pub(super) fn open(path: &Path) -> Result<Self, RepairError> {
        let wrong = |what: String| RepairError::Backup { path: path.to_owned(), what };
        if path.as_os_str().to_string_lossy().trim_end_matches('/').ends_with(UNFINISHED) {
            return Err(wrong(
                "it was never finished, so nothing was repaired: there is nothing to undo".to_owned(),
            ));
        }
        let checksums = read(path, CHECKSUMS).map_err(wrong)?;
        let verified = |name: &str| {
            let bytes = read(path, name)?;
            let line = checksum_line(name, &bytes);
            let is_right =
                checksums.split_inclusive(|&byte| byte == b'\n').any(|known| known == line.as_bytes());
            let what =
                || format!("{name} is not what its line in {CHECKSUMS} says: one of them has been changed");
            is_right.then_some(bytes).ok_or_else(what)
        };
        verified(README).map_err(wrong)?;
        let manifest: Manifest = verified(MANIFEST).and_then(|text| parse(MANIFEST, &text)).map_err(wrong)?;
        let plan: Plan = verified(PLAN).and_then(|text| parse(PLAN, &text)).map_err(wrong)?;
        if plan.schema != super::plan::SCHEMA || manifest.schema != SCHEMA {
            return Err(wrong(format!("it was written by walfix {}, in another form", plan.walfix)));
        }
        let paths = plan.steps.iter().flat_map(|step| step.change.paths());
        let olds = manifest.files.iter().map(|changed| changed.old.as_str());
        if let Some(outside) = paths.chain(olds).find(|path| !is_below(path)) {
            return Err(wrong(format!("{outside} is not a path in the data directory")));
        }
        for changed in &manifest.files {
            let (checksum, _) = checksum_spliced(&path.join(&changed.old), &[])
                .map_err(|error| wrong(format!("{}: {error}", changed.old)))?;
            if checksum != changed.old_checksum {
                return Err(wrong(format!("{} has been changed since it was written", changed.old)));
            }
        }
        let backup = Self { path: path.to_owned(), plan, manifest };
        for aside in &backup.manifest.aside {
            let kept = backup.aside(&aside.path);
            if kept.symlink_metadata().is_err() {
                // Not yet set aside.
                continue;
            }
            let (checksum, _) =
                checksum_tree(&kept).map_err(|error| wrong(format!("{OLD}/{}: {error}", aside.path)))?;
            if checksum != aside.checksum {
                return Err(wrong(format!("{OLD}/{} has been changed since it was written", aside.path)));
            }
        }
        Ok(backup)
    }

    /// What the repair has done.
    pub(super) fn steps(&self) -> &[Step] {
        &self.plan.steps
    }

    /// The checksum of what is set aside.
    pub(super) fn checksum_of_aside(&self, path: &str) -> Option<&str> {
        let aside = self.manifest.aside.iter().find(|aside| aside.path == path);
        aside.map(|aside| aside.checksum.as_str())
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
    pub(super) fn splices(&self, change: &Change) -> Vec<(Splice, Bytes)> {
        let Change::Patch { path, patches, .. } = change else { return Vec::new() };
        let mut start = 0_u64;
        let mut splices = Vec::new();
        for patch in patches {
            let old = Bytes::Kept { path: self.aside(path), start, count: patch.replaces };
            start = start.saturating_add(patch.replaces);
            splices.push((splice(patch), old));
        }
        splices
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
                each_piece(&file, patch.offset, patch.replaces, |_, piece| out.write_all(piece))?;
            }
            Ok(())
        })?;
        let splices: Vec<Splice> = patches.iter().map(splice).collect();
        checksum_spliced(&full, &splices)?
    } else {
        copy_tree(&full, &kept)?;
        let mut sum = Sum { checksum: Checksum::new(), bytes: 0 };
        let source = File::open(data.join(change.source()))?;
        rewrite(&source, source.metadata()?.len(), change, &mut sum)?;
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

fn splice(patch: &Patch) -> Splice {
    Splice { offset: patch.offset, replaces: patch.replaces, with: Bytes::Given(patch.with.bytes()) }
}

fn checksum_line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", input::checksum_of_bytes(bytes))
}

fn json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read(backup: &Path, name: &str) -> Result<Vec<u8>, String> {
    fs::read(backup.join(name)).map_err(|error| format!("{name}: {error}"))
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{name}: {error}"))
}

/// Whether a path leads nowhere else than below the directory that it is joined to.
fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
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
