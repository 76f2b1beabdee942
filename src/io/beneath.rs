//! Files below a directory that is held open.
//!
//! Whoever owns the directory may put a link, a pipe or something else in the place of any name at any moment. So every name
//! is resolved from the descriptor of the directory, follows no link, and leads nowhere but below it: the directories on
//! the way by `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, or, where a kernel or a sandbox does not have it,
//! one after the other; the last name by calls that follow no link. What has been opened is looked at and changed by its
//! descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self as sys, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::open::not_a_file;

/// Levels of directories that are copied, compared or removed at the most: what walfix writes has few, and whoever
/// plants more is not to exhaust the stack.
const DEEPEST: usize = 32;

/// How often a look-up that collides with a rename is tried again (`openat2`, EAGAIN).
const TRIES: usize = 16;

/// To hold a directory without reading it.
#[cfg(target_os = "linux")]
pub(super) const HELD: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
pub(super) const HELD: OFlags = OFlags::RDONLY;

/// A directory that is held open.
#[derive(Debug)]
struct Root {
    directory: OwnedFd,
    /// As it was given: for messages.
    shown: PathBuf,
    /// Without links.
    full: PathBuf,
}

/// Something below a directory that is held open, or that directory itself; there or not.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: Arc<Root>,
    /// Empty for the directory itself.
    below: PathBuf,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        (&self.root.full, &self.below) == (&other.root.full, &other.below)
    }
}

impl Eq for Place {}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
    /// A pipe, a socket or a device.
    Other,
}

impl Kind {
    fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        if kind.is_file() {
            Self::File
        } else if kind.is_dir() {
            Self::Directory
        } else if kind.is_symlink() {
            Self::Link
        } else {
            Self::Other
        }
    }
}

/// Whether a path leads nowhere else than below the directory that it is joined to: every path from a manifest, a plan or
/// a marker has to.
pub(crate) fn is_below(path: &Path) -> bool {
    let is_normal = |part| matches!(part, Component::Normal(_));
    let mut parts = path.components().peekable();
    // `a//b` and `a/./b` are as good as others, but nothing that walfix writes.
    parts.peek().is_some()
        && parts.all(is_normal)
        && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str()
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

impl Place {
    /// The directory `path`, which may be a link: it is resolved once, now.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let full = path.canonicalize()?;
        let top = sys::openat(sys::CWD, "/", HELD | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let below = full.strip_prefix("/").unwrap_or(&full);
        let directory = directory_below(&top, below)?;
        let root = Root { directory, shown: path.to_owned(), full };
        Ok(Self { root: Arc::new(root), below: PathBuf::new() })
    }

    /// This directory, as one below which all is looked up from now on.
    pub(crate) fn as_root(&self) -> io::Result<Self> {
        let root = Root { directory: self.directory()?, shown: self.shown(), full: self.full() };
        Ok(Self { root: Arc::new(root), below: PathBuf::new() })
    }

    /// What is called so below this.
    pub(crate) fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { root: Arc::clone(&self.root), below: self.below.join(name) }
    }

    /// The directory in which it is; the one that is held open is its own.
    pub(crate) fn parent(&self) -> Self {
        let below = self.below.parent().unwrap_or(Path::new("")).to_owned();
        Self { root: Arc::clone(&self.root), below }
    }

    /// What is called as this, and `ending`.
    pub(crate) fn with_ending(&self, ending: &str) -> Self {
        let mut below = self.below.clone().into_os_string();
        below.push(ending);
        Self { root: Arc::clone(&self.root), below: below.into() }
    }

    /// Its path below the directory that is held open.
    pub(crate) fn below(&self) -> &Path {
        &self.below
    }

    /// Its path, for messages.
    pub(crate) fn shown(&self) -> PathBuf {
        if self.below == Path::new("") { self.root.shown.clone() } else { self.root.shown.join(&self.below) }
    }

    /// Its path without links, as it was when the directory was opened.
    pub(crate) fn full(&self) -> PathBuf {
        if self.below == Path::new("") { self.root.full.clone() } else { self.root.full.join(&self.below) }
    }

    /// Its directory, held open, and its name there.
    fn resolve(&self) -> io::Result<(OwnedFd, &OsStr)> {
        if !is_below(&self.below) {
            return Err(outside(&self.below));
        }
        let name = self.below.file_name().ok_or_else(|| outside(&self.below))?;
        Ok((self.parent().directory()?, name))
    }

    /// It, held open, if it is a directory.
    fn directory(&self) -> io::Result<OwnedFd> {
        directory_below(&self.root.directory, &self.below)
    }

    fn open_with(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        let (directory, name) = self.resolve()?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        Ok(sys::openat(&directory, name, flags, Mode::from_raw_mode(mode & 0o777))?.into())
    }

    /// What is by that name; not what a link leads to.
    pub(crate) fn look(&self) -> io::Result<Metadata> {
        if self.below == Path::new("") {
            return File::from(self.root.directory.try_clone()?).metadata();
        }
        self.open_with(HELD | OFlags::NONBLOCK, 0)?.metadata()
    }

    /// As [`Self::look`]; `None` if there is nothing by that name, or no directory in which it would be.
    pub(crate) fn find(&self) -> io::Result<Option<Metadata>> {
        match self.look() {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is something by that name; what cannot be looked at is.
    pub(crate) fn is_there(&self) -> bool {
        !matches!(self.find(), Ok(None))
    }

    /// Whether it is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        self.look().is_ok_and(|metadata| metadata.is_file())
    }

    /// Whether it is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        self.look().is_ok_and(|metadata| metadata.is_dir())
    }

    /// The first name on the way to it, and itself, that is a link; and where that leads.
    pub(crate) fn link_on_the_way(&self) -> Option<(Self, PathBuf)> {
        let mut at = Self { root: Arc::clone(&self.root), below: PathBuf::new() };
        for part in self.below.components() {
            at = at.join(part);
            if at.look().is_ok_and(|metadata| metadata.is_symlink()) {
                let leads_to = at.leads_to().unwrap_or_default();
                return Some((at, leads_to));
            }
        }
        None
    }

    fn leads_to(&self) -> io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt as _;

        let (directory, name) = self.resolve()?;
        let leads_to = sys::readlinkat(&directory, name, Vec::new())?;
        Ok(OsString::from_vec(leads_to.into_bytes()).into())
    }

    /// Opens a regular file to read it, without waiting for anybody.
    pub(crate) fn open_file(&self) -> io::Result<File> {
        self.open_regular(OFlags::RDONLY)
    }

    /// Opens a regular file to change it where it is. What has other names as well is somebody else's, too.
    pub(crate) fn open_to_change(&self) -> io::Result<File> {
        let file = self.open_regular(OFlags::RDWR)?;
        if file.metadata()?.nlink() > 1 {
            let what = "it has other names (hard links), whose bytes would change as well";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(file)
    }

    /// Opens a regular file for reading and writing, however many names it has.
    pub(crate) fn open_to_write(&self) -> io::Result<File> {
        self.open_regular(OFlags::RDWR)
    }

    fn open_regular(&self, access: OFlags) -> io::Result<File> {
        match self.open_with(access | OFlags::NONBLOCK, 0) {
            Ok(file) => {
                let kind = file.metadata()?.file_type();
                if kind.is_file() { Ok(file) } else { Err(not_a_file(kind)) }
            }
            // A link, a socket, or a pipe without a reader.
            Err(error) => match self.look() {
                Ok(metadata) if !metadata.is_file() => Err(not_a_file(metadata.file_type())),
                _ => Err(error),
            },
        }
    }

    /// Reads a regular file, if it has no more bytes than `most`.
    pub(crate) fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file()?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            let what = format!("it has more than {most} bytes, and walfix writes none that is so long");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    }

    /// Opens a directory, to list it, make its names safe, or change its owner, mode or times.
    pub(crate) fn open_directory(&self) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        if self.below == Path::new("") {
            let flags = flags | OFlags::CLOEXEC;
            return Ok(sys::openat(&self.root.directory, ".", flags, Mode::empty())?.into());
        }
        self.open_with(flags, 0)
    }

    /// What is in a directory, in the order of names.
    pub(crate) fn list(&self) -> io::Result<Vec<(OsString, Kind)>> {
        use std::os::unix::ffi::OsStrExt as _;

        let mut found = Vec::new();
        for entry in sys::Dir::new(OwnedFd::from(self.open_directory()?))? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                sys::FileType::RegularFile => Kind::File,
                sys::FileType::Directory => Kind::Directory,
                sys::FileType::Symlink => Kind::Link,
                // Not every file system says.
                sys::FileType::Unknown => match self.join(name).find()? {
                    Some(metadata) => Kind::of(&metadata),
                    None => continue,
                },
                _ => Kind::Other,
            };
            found.push((name.to_owned(), kind));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// Makes a file where there is nothing, with no more than `mode`, to read and write.
    pub(crate) fn create_file(&self, mode: u32) -> io::Result<File> {
        self.open_with(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)
    }

    /// Makes a directory where there is nothing, with no more than `mode`, and opens it.
    pub(crate) fn create_directory(&self, mode: u32) -> io::Result<File> {
        let (directory, name) = self.resolve()?;
        sys::mkdirat(&directory, name, Mode::from_raw_mode(mode & 0o777))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new: File = sys::openat(&directory, name, flags, Mode::empty())?.into();
        // Somebody may have put another in its place; what is then done to it would be done to that.
        if new.metadata()?.uid() == rustix::process::geteuid().as_raw() || !is_privileged() {
            Ok(new)
        } else {
            Err(io::Error::other("it is not the directory that was just made"))
        }
    }

    /// Renames; what is by the new name is replaced.
    pub(crate) fn rename(&self, to: &Self) -> io::Result<()> {
        let ((from_directory, from), (to_directory, to)) = (self.resolve()?, to.resolve()?);
        Ok(sys::renameat(&from_directory, from, &to_directory, to)?)
    }

    /// Renames, if there is nothing by the new name.
    pub(crate) fn rename_to_new(&self, to: &Self) -> io::Result<()> {
        let ((from_directory, from), (to_directory, name)) = (self.resolve()?, to.resolve()?);
        #[cfg(target_os = "linux")]
        match sys::renameat_with(&from_directory, from, &to_directory, name, sys::RenameFlags::NOREPLACE) {
            // Not every file system has it, nor every kernel.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return Ok(done?),
        }
        if to.find()?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(sys::renameat(&from_directory, from, &to_directory, name)?)
    }

    /// Gives a file another name as well, by which there is nothing.
    pub(crate) fn link(&self, to: &Self) -> io::Result<()> {
        let ((from_directory, from), (to_directory, to)) = (self.resolve()?, to.resolve()?);
        Ok(sys::linkat(&from_directory, from, &to_directory, to, AtFlags::empty())?)
    }

    /// Removes a name that is no directory's.
    pub(crate) fn remove_file(&self) -> io::Result<()> {
        let (directory, name) = self.resolve()?;
        Ok(sys::unlinkat(&directory, name, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self) -> io::Result<()> {
        let (directory, name) = self.resolve()?;
        Ok(sys::unlinkat(&directory, name, AtFlags::REMOVEDIR)?)
    }

    /// Removes a name, or a directory with all that is in it, if it is there.
    pub(crate) fn remove_any(&self) -> io::Result<()> {
        self.remove_down_to(0)
    }

    fn remove_down_to(&self, depth: usize) -> io::Result<()> {
        match self.find()? {
            None => Ok(()),
            Some(metadata) if metadata.is_dir() => {
                not_too_deep(depth)?;
                for (name, _) in self.list()? {
                    self.join(name).remove_down_to(depth + 1)?;
                }
                self.remove_directory()
            }
            Some(_) => self.remove_file(),
        }
    }

    /// Whether names can be made and removed in this directory.
    pub(crate) fn names_can_change(&self) -> io::Result<()> {
        use rustix::fs::Access;
        let directory = self.directory()?;
        Ok(sys::accessat(&directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())?)
    }

    /// Of the file system on which this directory is.
    pub(crate) fn file_system(&self) -> io::Result<sys::StatVfs> {
        Ok(sys::fstatvfs(self.directory()?)?)
    }
}

/// Whether this process may give files away.
pub(crate) fn is_privileged() -> bool {
    rustix::process::geteuid().is_root()
}

/// Refuses to go down further.
pub(crate) fn not_too_deep(depth: usize) -> io::Result<()> {
    if depth < DEEPEST {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "directories in it lie too deep in each other"))
}

fn outside(path: &Path) -> io::Error {
    let what = format!("{} is not a path below the directory", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// The directory `below` a directory, held open.
fn directory_below(directory: &OwnedFd, below: &Path) -> io::Result<OwnedFd> {
    directory_with(directory, below, by_kernel)
}

#[cfg(target_os = "linux")]
fn by_kernel(directory: &OwnedFd, below: &Path) -> rustix::io::Result<OwnedFd> {
    use sys::ResolveFlags;

    let flags = HELD | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    sys::openat2(directory, below, flags, Mode::empty(), resolve)
}

#[cfg(not(target_os = "linux"))]
fn by_kernel(_: &OwnedFd, _: &Path) -> rustix::io::Result<OwnedFd> {
    Err(Errno::NOSYS)
}

/// As [`directory_below`], with `look_up` in the place of `openat2`.
fn directory_with(
    directory: &OwnedFd,
    below: &Path,
    look_up: impl Fn(&OwnedFd, &Path) -> rustix::io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let is_itself = below == Path::new("");
    if !is_itself && !is_below(below) {
        return Err(outside(below));
    }
    let below = if is_itself { Path::new(".") } else { below };
    for _ in 0..TRIES {
        match look_up(directory, below) {
            // Something on the way was renamed meanwhile: whether it led outside cannot be told.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Older kernels, and sandboxes that do not know the call. What is wrong with a name is said better there, too.
            Err(
                Errno::NOSYS
                | Errno::PERM
                | Errno::INVAL
                | Errno::TOOBIG
                | Errno::LOOP
                | Errno::NOTDIR
                | Errno::XDEV,
            ) => break,
            found => return Ok(found?),
        }
    }
    one_by_one(directory, below)
}

/// One component at a time, none of which may be a link.
fn one_by_one(directory: &OwnedFd, below: &Path) -> io::Result<OwnedFd> {
    let flags = HELD | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = directory.try_clone()?;
    let mut way = PathBuf::new();
    for part in below.components() {
        // A path of `.` is the directory itself.
        let (Component::Normal(_) | Component::CurDir) = part else { return Err(outside(below)) };
        let name = part.as_os_str();
        way.push(name);
        at = match sys::openat(&at, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(error @ (Errno::LOOP | Errno::NOTDIR)) => {
                let flags = HELD | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let there = sys::openat(at.as_fd(), name, flags, Mode::empty()).map(File::from);
                let is_link = there.is_ok_and(|there| there.metadata().is_ok_and(|it| it.is_symlink()));
                let what = if is_link { "a symbolic link, which is not followed" } else { "not a directory" };
                let error = if is_link { io::ErrorKind::InvalidInput } else { io::Error::from(error).kind() };
                return Err(io::Error::new(error, format!("{} is {what}", way.display())));
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// `data` with `wal/0`, and beside it `outside` with `0`.
    fn tree() -> (tempfile::TempDir, Place) {
        let at = tempfile::tempdir().unwrap();
        for directory in ["data/wal", "outside"] {
            fs::create_dir_all(at.path().join(directory)).unwrap();
            fs::write(at.path().join(directory).join("0"), directory).unwrap();
        }
        let data = Place::open(&at.path().join("data")).unwrap();
        (at, data)
    }

    type LookUp = fn(&OwnedFd, &Path) -> rustix::io::Result<OwnedFd>;

    const LOOK_UPS: [(&str, LookUp); 4] = [
        ("openat2", by_kernel),
        ("ENOSYS", |_, _| Err(Errno::NOSYS)),
        ("EPERM", |_, _| Err(Errno::PERM)),
        ("EAGAIN", |_, _| Err(Errno::AGAIN)),
    ];

    #[test]
    fn no_look_up_leaves_the_directory() {
        let (at, data) = tree();
        symlink(at.path().join("outside"), at.path().join("data/absolute")).unwrap();
        symlink("../outside", at.path().join("data/relative")).unwrap();
        symlink("wal", at.path().join("data/within")).unwrap();
        symlink("circle", at.path().join("data/circle")).unwrap();
        fs::create_dir_all(at.path().join("data/a/b")).unwrap();
        symlink("../../outside", at.path().join("data/a/b/c")).unwrap();
        for (name, look_up) in LOOK_UPS {
            let find = |path: &str| directory_with(&data.root.directory, Path::new(path), look_up);
            for path in ["wal", "a/b", "a", ""] {
                find(path).unwrap_or_else(|error| panic!("{name}: {path}: {error}"));
            }
            for path in ["absolute", "relative", "within", "circle", "a/b/c", "within/x", "a/b/c/d"] {
                let error = find(path).map(drop).expect_err(path).to_string();
                assert!(error.contains("is a symbolic link"), "{name}: {path}: {error}");
            }
            for path in ["..", "/", "/etc", "wal/..", "./wal", "wal/../../outside", "wal/.", "wal//", "a//b"]
            {
                let error = find(path).map(drop).expect_err(path).to_string();
                assert!(error.contains("not a path below"), "{name}: {path}: {error}");
            }
            let missing = find("a/none").map(drop).expect_err("nothing there");
            assert_eq!(missing.kind(), io::ErrorKind::NotFound, "{name}");
            let file = find("wal/0/x").map(drop).expect_err("a file on the way");
            assert_eq!(file.kind(), io::ErrorKind::NotADirectory, "{name}");
        }
    }

    #[test]
    fn a_look_up_that_collides_is_tried_again() {
        let (_at, data) = tree();
        let tries = Cell::new(0);
        let look_up = |directory: &OwnedFd, below: &Path| {
            tries.set(tries.get() + 1);
            if tries.get() < 5 { Err(Errno::AGAIN) } else { by_kernel(directory, below) }
        };
        directory_with(&data.root.directory, Path::new("wal"), look_up).unwrap();
        assert_eq!(tries.get(), 5);
        tries.set(0);
        let look_up = |_: &OwnedFd, _: &Path| {
            tries.set(tries.get() + 1);
            Err(Errno::AGAIN)
        };
        directory_with(&data.root.directory, Path::new("wal"), look_up).unwrap();
        assert_eq!(tries.get(), TRIES);
    }

    #[test]
    fn nothing_is_made_or_changed_through_a_link() {
        let (at, data) = tree();
        let outside = at.path().join("outside");
        symlink(&outside, at.path().join("data/to")).unwrap();
        symlink(outside.join("0"), at.path().join("data/file")).unwrap();
        symlink(outside.join("new"), at.path().join("data/dangling")).unwrap();
        fs::hard_link(outside.join("0"), at.path().join("data/hard")).unwrap();
        let failed = |done: io::Result<()>| {
            done.expect_err("through a link");
        };
        failed(data.join("to/new").create_file(0o644).map(drop));
        failed(data.join("to/new").create_directory(0o755).map(drop));
        failed(data.join("to/0").remove_any());
        failed(data.join("to/0").open_to_write().map(drop));
        failed(data.join("to/0").open_file().map(drop));
        failed(data.join("to/0").rename(&data.join("wal/1")));
        failed(data.join("wal/0").rename(&data.join("to/1")));
        failed(data.join("wal/0").link(&data.join("to/1")));
        failed(data.join("to").list().map(drop));
        for name in ["file", "dangling"] {
            failed(data.join(name).create_file(0o644).map(drop));
            failed(data.join(name).open_to_change().map(drop));
            failed(data.join(name).open_file().map(drop));
            failed(data.join("wal/0").rename_to_new(&data.join(name)));
        }
        failed(data.join("hard").open_to_change().map(drop));
        for path in ["../outside/new", "/tmp/new", "wal/../../outside/new", ""] {
            failed(data.join(path).create_file(0o644).map(drop));
            failed(data.join(path).remove_file());
        }
        // Names of links are names as others.
        data.join("wal/0").rename(&data.join("file")).unwrap();
        for name in ["to", "dangling", "hard", "file"] {
            data.join(name).remove_any().unwrap();
        }
        assert_eq!(fs::read_to_string(outside.join("0")).unwrap(), "outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(data.list().unwrap(), [("wal".into(), Kind::Directory)]);
    }

    #[test]
    fn what_is_no_file_is_named_at_once() {
        let (at, data) = tree();
        let pipe = at.path().join("data/pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(at.path().join("data/socket")).unwrap();
        symlink("/dev/zero", at.path().join("data/link")).unwrap();
        for (name, what) in [("pipe", "a pipe"), ("socket", "a socket"), ("link", "a symbolic link")] {
            for opened in [data.join(name).open_file(), data.join(name).open_to_write()] {
                let error = opened.expect_err(name).to_string();
                assert!(error.contains(what), "{name}: {error}");
            }
            let path = at.path().join("data").join(name);
            let error = super::super::open(&path).expect_err(name).to_string();
            assert!(error.contains(what), "{name}: {error}");
        }
        assert!(data.join("wal").open_file().expect_err("a directory").to_string().contains("directory"));
        let error = data.join("wal/0").read(2).expect_err("more than that").to_string();
        assert!(error.contains("more than 2 bytes"), "{error}");
        assert_eq!(data.join("wal/0").read(8).unwrap(), b"data/wal");
    }

    #[test]
    fn a_new_file_has_its_mode_at_once_and_takes_no_place() {
        let (at, data) = tree();
        data.join("new").create_file(0o4600).unwrap();
        assert_eq!(fs::metadata(at.path().join("data/new")).unwrap().permissions().mode() & 0o7777, 0o600);
        for name in ["new", "wal"] {
            let error = data.join(name).create_file(0o600).expect_err("it is there");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        let error = data.join("new").rename_to_new(&data.join("wal/0")).expect_err("it is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn directories_that_lie_too_deep_are_refused() {
        let (at, data) = tree();
        let mut deep = at.path().join("data/deep");
        for _ in 0..DEEPEST {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        data.join("deep").remove_any().expect_err("too deep");
        data.join("deep/d").remove_any().unwrap();
    }
}
