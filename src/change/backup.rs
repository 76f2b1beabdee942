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

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::data::{Data, owner_of};
use super::error::{At as _, RepairError};
use super::files::{
    self, Bytes, MODE, Owner, Splice, checksum_spliced, checksum_tree, copy_file, create_directories,
    create_directory, each_piece, sync_tree, write_and_verify,
};
use super::input;
use super::plan::{Change, Patch, Plan, Step};
use crate::io::beneath::{Kind, Place, is_below, is_privileged};

/// The identity of the manifest.
pub(super) const SCHEMA: &str = "walfix.backup/1";

const PLAN: &str = "plan.json";
const MANIFEST: &str = "manifest.json";
const README: &str = "README.txt";
const CHECKSUMS: &str = "checksums";
const OLD: &str = "old";

/// What the name of a backup ends in until it is whole.
const UNFINISHED: &str = ".unfinished";

/// Bytes of a description at the most: a plan may name 100 000 series that are lost, and has the labels of many.
const LONGEST: u64 = 1 << 30;

/// The line of a README behind which the data directory stands.
pub(super) const OF: &str = "in the data directory\n\n    ";

/// A backup on the disk.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The directory.
    pub(super) path: PathBuf,
    /// The same, held open.
    place: Place,
    /// To whom it belongs.
    pub(super) owner: Owner,
    /// Whether only root or this process's user can have written it.
    is_trusted: bool,
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
pub(super) fn directories(data: &Place, plan: &Plan) -> io::Result<Vec<Directory>> {
    let mut directories: Vec<Directory> = Vec::new();
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
                directories.push(Directory { path: path.to_owned(), modified: input::modified(&metadata) });
            }
            // The plan makes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(directories)
}

/// Where the backup `place` is written before it is whole.
pub(super) fn in_the_making(place: &Place) -> Place {
    place.with_ending(UNFINISHED)
}

/// Where a backup is, or is to be, whose absolute path is known: in the data directory, or in another, which is resolved
/// once.
pub(super) fn place(data: &Place, path: &Path) -> io::Result<Place> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if directory == data.full() || directory == data.shown() {
        return Ok(data.join(name));
    }
    Ok(Place::open(directory)?.join(name))
}

/// Backups in a directory that never became whole: of repairs that were not begun.
pub(super) fn never_finished(directory: &Place) -> io::Result<Vec<Place>> {
    let is_ours = |name: &str| name.starts_with("walfix-backup-") && name.ends_with(UNFINISHED);
    let entries = directory.list()?.into_iter();
    let ours = entries.filter(|(name, kind)| *kind == Kind::Directory && name.to_str().is_some_and(is_ours));
    Ok(ours.map(|(name, _)| directory.join(name)).collect())
}

/// Whether what is at `place` is a backup in the making of the data directory `data`: it says so before all else. Outside a
/// data directory nothing is removed for a marker's word.
pub(super) fn is_of(place: &Place, data: &Path) -> bool {
    let Ok(text) = place.join(README).read(LONGEST) else { return false };
    let text = String::from_utf8_lossy(&text);
    let line = text.split_once(OF).and_then(|(_, rest)| rest.lines().next());
    line == Some(&*crate::io::printable(&data.display().to_string()))
}

/// Removes a backup of a repair that has changed nothing. Whoever is killed here leaves one in the making, which the next repair
/// removes: what says whose it is goes last.
pub(super) fn discard(place: &Place) {
    let unfinished = in_the_making(place);
    if place.rename_to_new(&unfinished).is_ok() {
        for name in [OLD, PLAN, MANIFEST, CHECKSUMS] {
            let _ = unfinished.join(name).remove_any();
        }
        let _ = unfinished.remove_any();
    }
}

/// Removes a backup in the making that an earlier repair of the data directory `data` left, to make room for another; it says
/// whose it is, or is empty.
pub(super) fn make_room(partial: &Place, data: &Place) -> io::Result<()> {
    let is_ours = || {
        partial.parent() == *data
            || is_of(partial, &data.full())
            || partial.list().is_ok_and(|names| names.is_empty())
    };
    if has_names_of_a_backup(partial)? && !is_ours() {
        let what = "it is being made for another data directory";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    remove_unfinished(partial).map(drop)
}

/// Removes a backup that never became whole, if it is there; whether it was. Nothing else is removed by its name.
pub(super) fn remove_unfinished(place: &Place) -> io::Result<bool> {
    if !has_names_of_a_backup(place)? {
        return Ok(false);
    }
    place.remove_any()?;
    files::sync_directory(&place.parent())?;
    Ok(true)
}

/// Whether something is at `place`. It is an error if that is no backup, by the names in it.
fn has_names_of_a_backup(place: &Place) -> io::Result<bool> {
    let Some(found) = place.find()? else { return Ok(false) };
    let foreign = |what: String| Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    if !found.is_dir() {
        return foreign("it is no directory, and so not of a backup".to_owned());
    }
    for (name, kind) in place.list()? {
        let expected = if name == *OLD { Kind::Directory } else { Kind::File };
        let is_ours = [PLAN, MANIFEST, README, CHECKSUMS, OLD].iter().any(|ours| name == **ours);
        if !is_ours || kind != expected {
            return foreign(format!("{} in it is not of a backup", name.display()));
        }
    }
    Ok(true)
}

impl Backup {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the backup of what `plan` changes in `data` to `place`, which is not there yet and has the absolute `path`. It
    /// gets its name when it is complete and has been read back. `go_on` is asked before each file. `directories` are those of the plan as they were. Nobody but
    /// whom the data belongs to may look into it.
    pub(super) fn write(
        path: &Path,
        place: &Place,
        data: &Data,
        (plan, go_on): (&Plan, &dyn Fn() -> Result<(), RepairError>),
        directories: Vec<Directory>,
    ) -> Result<Self, RepairError> {
        let unfinished = in_the_making(place);
        let owner = data.owner().at("look at", data.path())?;
        create_directory(&unfinished, owner.with_mode(0o700)).at("create", &unfinished)?;
        let written = Self::fill(path, &unfinished, data, (plan, go_on), (directories, owner))
            .and_then(|()| unfinished.rename_to_new(place).at("create", path));
        if let Err(error) = written {
            // It was made here. What cannot be removed now, the next repair removes.
            let _ = unfinished.remove_any();
            return Err(error);
        }
        let opened = files::sync_directory(&place.parent()).at("create", path);
        opened.and_then(|()| Self::open_at(place)).inspect_err(|_| discard(place))
    }

    /// Writes all that is in a backup.
    fn fill(
        path: &Path,
        unfinished: &Place,
        data: &Data,
        (plan, go_on): (&Plan, &dyn Fn() -> Result<(), RepairError>),
        (directories, owner): (Vec<Directory>, Owner),
    ) -> Result<(), RepairError> {
        let describe = |name: &str, bytes: &[u8]| {
            let file = unfinished.join(name);
            write_and_verify(&file, owner.with_mode(0o600), |out| out.write_all(bytes))
                .map(drop)
                .at("write", &file)
        };
        let full = data.place().full();
        // First of all, so that it is known whose it is if nothing more comes of it.
        let text = super::readme::text(plan, &full).into_bytes();
        describe(README, &text)?;
        let mut manifest = Manifest {
            schema: SCHEMA.to_owned(),
            data: full,
            backup: path.to_owned(),
            files: Vec::new(),
            aside: Vec::new(),
            directories,
        };
        for step in &plan.steps {
            go_on()?;
            let below = step.change.path();
            let full = data.join(below);
            match &step.change {
                Change::Patch { .. } | Change::Rewrite { .. } => {
                    let changed = keep(unfinished, data.place(), &step.change, owner)
                        .at("keep the old bytes of", &full)?;
                    manifest.files.push(changed);
                }
                Change::SetAside { .. } => {
                    let (checksum, _) = checksum_tree(&full).at("read", &full)?;
                    manifest.aside.push(Aside { path: below.to_owned(), checksum });
                }
                Change::Create { .. } | Change::CreateDirectory { .. } | Change::Rename { .. } => {}
            }
        }
        let described = [(MANIFEST, json(&manifest)), (PLAN, json(plan))];
        let mut checksums = checksum_line(README, &text);
        for (name, bytes) in described {
            let bytes = bytes.at("write", &unfinished.join(name))?;
            describe(name, &bytes)?;
            checksums += &checksum_line(name, &bytes);
        }
        describe(CHECKSUMS, checksums.as_bytes())?;
        sync_tree(unfinished).at("write", unfinished)
    }

    /// Reads a backup, and verifies it. Anybody may have written it.
    pub(crate) fn open(path: &Path) -> Result<Self, RepairError> {
        let place = Place::open(path);
        place
            .map_err(|error| RepairError::Backup { path: path.to_owned(), what: error.to_string() })
            .and_then(|place| Self::open_root(place, path))
    }

    /// As [`Self::open`], of one that is below a directory that is held open.
    pub(super) fn open_at(place: &Place) -> Result<Self, RepairError> {
        let path = place.shown();
        let wrong = |error: io::Error| RepairError::Backup { path: path.clone(), what: error.to_string() };
        Self::open_root(place.as_root().map_err(wrong)?, &path)
    }

    fn open_root(place: Place, path: &Path) -> Result<Self, RepairError> {
        let wrong = |what: String| RepairError::Backup { path: path.to_owned(), what };
        if path.as_os_str().to_string_lossy().trim_end_matches('/').ends_with(UNFINISHED) {
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
        if plan.schema != super::plan::SCHEMA || manifest.schema != SCHEMA {
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
        self.plan.steps.iter().all(|step| !matches!(step.change, Change::Rewrite { staged: None, .. }))
    }

    /// The directory, held open.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether only root or this process's user can have written it.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Opens what is kept of a file.
    pub(super) fn old(&self, path: &str) -> io::Result<File> {
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
    pub(super) fn owner_of(&self, changed: &Changed, data: &Place) -> io::Result<Owner> {
        let was = Owner { uid: changed.uid, gid: changed.gid, mode: changed.mode & MODE };
        if self.is_trusted || !is_privileged() {
            return Ok(was);
        }
        let (files, directory) = (owner_of(data)?, Owner::of(&data.look()?));
        let is_one = [files, directory].iter().any(|one| (one.uid, one.gid) == (was.uid, was.gid));
        Ok(if is_one { was } else { files.with_mode(was.mode) })
    }

    /// What the repair has done.
    pub(crate) fn steps(&self) -> &[Step] {
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
    pub(crate) fn aside(&self, path: &str) -> Place {
        self.place.join(OLD).join(path)
    }

    /// The splices that a step makes, with what they replace.
    pub(super) fn splices(&self, change: &Change) -> Vec<(Splice, Bytes)> {
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

/// The first path in a plan or a manifest that leads out of the data directory, or of the backup.
fn outside<'a>(plan: &'a Plan, manifest: &'a Manifest) -> Option<&'a str> {
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
    let kept = |changed: &&Changed| Path::new(&changed.old).strip_prefix(OLD).is_err();
    outside.or_else(|| manifest.files.iter().find(kept).map(|changed| changed.old.as_str()))
}

/// Whether a directory and all in which it lies can be changed by nobody but root and this process's user.
fn is_trusted(place: &Place) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let is_safe = |uid: u32| uid == 0 || uid == own;
    let Ok(about) = place.look() else { return false };
    let full = place.full();
    let is_safe_above = full.ancestors().skip(1).all(|above| {
        above.symlink_metadata().is_ok_and(|above| {
            // In a sticky directory nobody renames what is somebody else's.
            is_safe(above.uid()) && (above.mode() & 0o022 == 0 || above.mode() & 0o1000 != 0)
        })
    });
    is_safe(about.uid()) && about.mode() & 0o022 == 0 && is_safe_above
}

/// Keeps the old bytes of a file, and says what it is before and after.
fn keep(backup: &Place, data: &Place, change: &Change, owner: Owner) -> io::Result<Changed> {
    let path = change.path();
    let full = data.join(path);
    let mut file = full.open_file()?;
    let metadata = file.metadata()?;
    let old = format!("{OLD}/{path}");
    let kept = backup.join(&old);
    create_directories(&kept.parent(), owner.with_mode(0o700))?;
    let (before, bytes) = files::checksum_of(&mut file, &[])?;
    let after = if let Change::Patch { patches, .. } = change {
        write_and_verify(&kept, Owner::of(&metadata), |out| {
            for patch in patches {
                each_piece(&file, patch.offset, patch.replaces, |_, piece| out.write_all(piece))?;
            }
            Ok(())
        })?;
        let splices: Vec<Splice> = patches.iter().map(splice).collect();
        files::checksum_of(&mut file, &splices)?
    } else {
        copy_file(&full, &kept, |owner| owner)?;
        let staged = change.staged().ok_or(io::ErrorKind::InvalidInput)?;
        (staged.checksum.clone(), staged.bytes)
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

fn read(backup: &Place, name: &str) -> Result<Vec<u8>, String> {
    backup.join(name).read(LONGEST).map_err(|error| format!("{name}: {error}"))
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| format!("{name}: {error}"))
}
