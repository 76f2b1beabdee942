//! A backup on the disk: read, and verified.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::layout::{CHECKSUMS, MANIFEST, OLD, PLAN, README, UNFINISHED_ENDING, checksum_line, parse, read};
use super::manifest::{ChangedFile, Manifest, SCHEMA, outside};
use super::place::is_trusted;
use crate::change::data::owner_of;
use crate::change::error::RepairError;
use crate::change::files::{self, Bytes, MODE, Owner, Splice, checksum_tree};
use crate::change::plan::{self, Change, Patch, Plan, PlanStep};
use crate::io::beneath::{Place, is_privileged};

/// A backup on the disk.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The directory.
    pub(in crate::change) path: PathBuf,
    /// The same, held open.
    place: Place,
    /// To whom it belongs.
    pub(in crate::change) owner: Owner,
    /// Whether only root or this process's user can have written it.
    is_trusted: bool,
    pub(in crate::change) plan: Plan,
    pub(in crate::change) manifest: Manifest,
}

impl Backup {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a backup, and verifies it. Anybody may have written it.
    pub(crate) fn open(path: &Path) -> Result<Self, RepairError> {
        let place = Place::open(path);
        place
            .map_err(|error| RepairError::Backup { path: path.to_owned(), what: error.to_string() })
            .and_then(|place| Self::open_root(place, path))
    }

    /// As [`Self::open`], of one that is below a directory that is held open.
    pub(in crate::change) fn open_at(place: &Place) -> Result<Self, RepairError> {
        let path = place.shown();
        let wrong = |error: io::Error| RepairError::Backup { path: path.clone(), what: error.to_string() };
        Self::open_root(place.as_root().map_err(wrong)?, &path)
    }

    fn open_root(place: Place, path: &Path) -> Result<Self, RepairError> {
        let wrong = |what: String| RepairError::Backup { path: path.to_owned(), what };
        if path.as_os_str().to_string_lossy().trim_end_matches('/').ends_with(UNFINISHED_ENDING) {
            return Err(wrong(
                "it was never finished, so nothing was repaired: there is nothing to undo".to_owned(),
            ));
        }
        let checksums = read(&place, CHECKSUMS).map_err(wrong)?;
        let verified = |name: &str| {
            let bytes = read(&place, name)?;
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
        if plan.schema != plan::SCHEMA || manifest.schema != SCHEMA {
            return Err(wrong(format!("it was written by walfix {}, in another form", plan.walfix)));
        }
        if let Some(outside) = outside(&plan, &manifest) {
            return Err(wrong(format!("{outside} is not a path in the data directory")));
        }
        let about = place.look().map_err(|error| wrong(error.to_string()))?;
        let is_trusted = is_trusted(&place);
        let backup =
            Self { path: path.to_owned(), owner: Owner::of(&about), is_trusted, place, plan, manifest };
        for changed in &backup.manifest.files {
            let (checksum, _) = backup
                .old(&changed.old)
                .and_then(|mut old| files::checksum_of(&mut old, &[]))
                .map_err(|error| wrong(format!("{}: {error}", changed.old)))?;
            if checksum != changed.old_checksum {
                return Err(wrong(format!("{} has been changed since it was written", changed.old)));
            }
        }
        for aside in &backup.manifest.aside {
            let kept = backup.aside(&aside.path);
            if kept.find().map_err(|error| wrong(format!("{OLD}/{}: {error}", aside.path)))?.is_none() {
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

    /// Whether the plan has the bytes of every file that it writes as a whole. Those of earlier versions have not.
    pub(crate) fn is_staged(&self) -> bool {
        self.plan.steps.iter().all(|step| !step.change.is_rewrite() || step.change.staged().is_some())
    }

    /// The directory, held open.
    pub(in crate::change) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether only root or this process's user can have written it.
    pub(in crate::change) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Opens what is kept of a file.
    pub(in crate::change) fn old(&self, path: &str) -> io::Result<File> {
        let file = self.place.join(path).open_file()?;
        // It would be given to whom the manifest says.
        if file.metadata()?.nlink() > 1 && !self.is_trusted {
            let what = "it has other names (hard links), and walfix writes none that has";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(file)
    }

    /// To whom a file of the data directory `data` is given back: to whom it belonged, if that is one to whom its files
    /// belong, or nobody but root can have written the manifest.
    pub(in crate::change) fn owner_of(&self, changed: &ChangedFile, data: &Place) -> io::Result<Owner> {
        let was = Owner { uid: changed.uid, gid: changed.gid, mode: changed.mode & MODE };
        if self.is_trusted || !is_privileged() {
            return Ok(was);
        }
        let (files, directory) = (owner_of(data)?, Owner::of(&data.look()?));
        let is_one = [files, directory].iter().any(|one| (one.uid, one.gid) == (was.uid, was.gid));
        Ok(if is_one { was } else { files.with_mode(was.mode) })
    }

    /// What the repair has done.
    pub(crate) fn steps(&self) -> &[PlanStep] {
        &self.plan.steps
    }

    /// The checksum of what is set aside.
    pub(in crate::change) fn checksum_of_aside(&self, path: &str) -> Option<&str> {
        let aside = self.manifest.aside.iter().find(|aside| aside.path == path);
        aside.map(|aside| aside.checksum.as_str())
    }

    /// What the manifest has of a file.
    pub(in crate::change) fn changed(&self, path: &str) -> Result<&ChangedFile, RepairError> {
        let changed = self.manifest.files.iter().find(|changed| changed.path == path);
        changed.ok_or_else(|| RepairError::Backup {
            path: self.path.clone(),
            what: format!("its plan changes {path}, and its manifest does not have that"),
        })
    }

    /// Where a file or directory is that was set aside.
    pub(crate) fn aside(&self, path: &str) -> Place {
        self.place.join(OLD).join(path)
    }

    /// The splices that a step makes, with what they replace.
    pub(in crate::change) fn splices(&self, change: &Change) -> Vec<(Splice, Bytes)> {
        let Change::Patch { path, patches, .. } = change else { return Vec::new() };
        let mut start = 0_u64;
        let mut splices = Vec::new();
        for patch in patches {
            let old = Bytes::Kept { file: self.aside(path), start, count: patch.replaces };
            start = start.saturating_add(patch.replaces);
            splices.push((splice(patch), old));
        }
        splices
    }
}

pub(super) fn splice(patch: &Patch) -> Splice {
    Splice { offset: patch.offset, replaces: patch.replaces, with: Bytes::Given(patch.with.bytes()) }
}
