//! Who has files of a data directory open for writing: whether a Prometheus runs on it, with or without its lock file.
//!
//! A running Prometheus always has a segment of its log open for writing, from before it reads the log until all is written
//! (`tsdb/wlog/wlog.go`, `NewSize` to `Close`), and a server has `queries.active` mapped (`promql/query_logger.go`).
//!
//! It is looked for in two ways. The file descriptors in `/proc` have names, but only of processes that can be seen from
//! here and that we may look into. The kernel's answer to the wish for a lease has no names, but counts everybody: other
//! PID namespaces, other containers, other users, and writable mappings whose descriptor is closed.
//!
//! Nothing is changed, and both are looks at one moment: who begins to write afterwards is not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Directories of which no file is written without a running Prometheus.
const DIRECTORIES: [&str; 3] = ["wal", "wbl", "chunks_head"];
/// Files that a running Prometheus may have open.
const FILES: [&str; 2] = [LOCK, "queries.active"];

/// The file by which Prometheus locks its data directory (`tsdb/tsdbutil/dir_locker.go`).
pub const LOCK: &str = "lock";

/// Who was found.
#[derive(Debug, Default)]
pub struct Liveness {
    /// Those who have files open for writing, each once; processes in the order of their ids.
    pub writers: Vec<Writer>,
    /// Why it is not known whether there are others who cannot be seen from here; `None` where it can.
    pub not_known: Option<NotKnown>,
}

/// Somebody who has files open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Who; `None` for somebody who cannot be seen from here.
    pub process: Option<Process>,
    /// What, below the data directory, in the order of names. `/proc` adds ` (deleted)` to what has no name any more.
    pub files: Vec<String>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id in the PID namespace of the `/proc` that is mounted here.
    pub pid: u32,
    /// The name of its program, at most 15 bytes; empty if it was gone before it could be asked.
    pub program: String,
}

/// The kernel gives no lease on a file: its file system has none (network file systems), or it belongs to another user.
#[derive(Debug)]
pub struct NotKnown {
    /// The file, below the data directory.
    pub file: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl fmt::Display for Writer {
    /// `prometheus (pid 4711) has wal/00000007 and queries.active open for writing`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(Process { pid, program }) if program.is_empty() => write!(f, "process {pid}")?,
            Some(Process { pid, program }) => write!(f, "{program} (pid {pid})")?,
            None => f.write_str("somebody in another container or PID namespace, or of another user,")?,
        }
        f.write_str(" has ")?;
        let shown = self.files.len().min(3);
        for (at, file) in self.files[..shown].iter().enumerate() {
            let between = match at {
                0 => "",
                _ if at + 1 == self.files.len() => " and ",
                _ => ", ",
            };
            // A name can have anything in it.
            write!(f, "{between}{}", file.escape_debug())?;
        }
        match self.files.len() - shown {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        f.write_str(" open for writing")
    }
}

impl fmt::Display for NotKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no lease on {}: {}", self.file.escape_debug(), self.source)
    }
}

/// Looks who has files of the data directory `data` open for writing, besides this process: its log with checkpoints, head
/// chunks, lock file, `queries.active`. What this process itself has open for writing counts as somebody's, but for the
/// lock file.
///
/// # Errors
/// If the directory cannot be listed. Not to be allowed to look into other processes is no error.
pub fn look(data: &Path) -> io::Result<Liveness> {
    // A server may begin a segment between the listing and the look at it, and close the one before.
    const TRIES: usize = 50;
    let mut files = list(data)?;
    for _ in 0..TRIES {
        let found = look_at(data, &files);
        if !found.writers.is_empty() {
            return Ok(found);
        }
        let again = list(data)?;
        if again == files {
            return Ok(found);
        }
        files = again;
    }
    Err(io::Error::other("its files change all the time"))
}

fn look_at(data: &Path, files: &[Watched]) -> Liveness {
    let mut writers = processes(data, files);
    let mut not_known = None;
    if writers.is_empty() {
        let mut taken = Vec::new();
        // Every file, though Prometheus writes the newest one only: what the newest one is need not be known then.
        for file in files.iter().filter(|file| file.relative != LOCK) {
            match lease(&file.path) {
                Ok(Lease::Free) => {}
                Ok(Lease::Taken) => taken.push(file.relative.clone()),
                // Removed since it was listed: it is listed again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    not_known.get_or_insert(NotKnown { file: file.relative.clone(), source });
                }
            }
        }
        if !taken.is_empty() {
            writers.push(Writer { process: None, files: taken });
        }
    }
    Liveness { writers, not_known }
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// A file of interest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    relative: String,
    path: PathBuf,
    identity: Identity,
}

fn list(data: &Path) -> io::Result<Vec<Watched>> {
    let mut files = Vec::new();
    for name in FILES {
        if let Some(metadata) = existing(data.join(name).symlink_metadata())? {
            watch(data.join(name), name.to_owned(), &metadata, &mut files);
        }
    }
    for name in DIRECTORIES {
        // The WAL may have a disk of its own.
        if name != "wal" && data.join(name).is_symlink() {
            continue;
        }
        // With the checkpoints in it.
        list_below(&data.join(name), name, 1, &mut files)?;
    }
    files.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(files)
}

fn list_below(directory: &Path, relative: &str, levels: u8, files: &mut Vec<Watched>) -> io::Result<()> {
    for entry in existing(fs::read_dir(directory))?.into_iter().flatten() {
        let entry = entry?;
        let path = entry.path();
        let below = format!("{relative}/{}", entry.file_name().to_string_lossy());
        if levels > 0 && entry.file_type()?.is_dir() {
            list_below(&path, &below, levels - 1, files)?;
        } else if let Some(metadata) = existing(path.symlink_metadata())? {
            watch(path, below, &metadata, files);
        }
    }
    Ok(())
}

fn watch(path: PathBuf, relative: String, metadata: &Metadata, files: &mut Vec<Watched>) {
    // To open a pipe would wait for its other end.
    if metadata.is_file() {
        files.push(Watched { relative, path, identity: identity(metadata) });
    }
}

/// Prometheus removes segments and checkpoints while it runs.
fn existing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The processes in `/proc` that have one of the files open for writing.
fn processes(data: &Path, files: &[Watched]) -> Vec<Writer> {
    let seek = Sought::new(data, files);
    let mut found = BTreeMap::new();
    // Not the id that the kernel gives us: the `/proc` that is mounted here may be of another PID namespace.
    let own = fs::read_link("/proc/self").ok();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if own.as_deref() == Some(Path::new(&name)) {
            continue;
        }
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let open = seek.open_in(&entry.path());
        if !open.is_empty() {
            // Any bytes but NUL: a process can set it.
            let program = fs::read(entry.path().join("comm")).unwrap_or_default();
            let program = String::from_utf8_lossy(&program).trim_end().escape_debug().to_string();
            found.insert(Process { pid, program }, open);
        }
    }
    let writer = |(process, open): (_, BTreeSet<String>)| Writer {
        process: Some(process),
        files: open.into_iter().collect(),
    };
    found.into_iter().map(writer).collect()
}

/// What is looked for among file descriptors.
struct Sought<'a> {
    by_identity: HashMap<Identity, &'a str>,
    names: HashSet<&'a OsStr>,
    /// Where the directories and files of interest are without symbolic links, and what they are called.
    places: Vec<(PathBuf, &'static str)>,
    mounts: Option<PathBuf>,
}

impl<'a> Sought<'a> {
    fn new(data: &Path, files: &'a [Watched]) -> Self {
        let places = DIRECTORIES.into_iter().chain(FILES).filter_map(|name| {
            let path = data.join(name);
            // It may have been removed from under a server, which has it open all the same.
            let full = path.canonicalize().or_else(|_| data.canonicalize().map(|data| data.join(name)));
            Some((full.ok()?, name))
        });
        Self {
            by_identity: files.iter().map(|file| (file.identity, file.relative.as_str())).collect(),
            names: files.iter().filter_map(|file| file.path.file_name()).collect(),
            places: places.collect(),
            mounts: fs::read_link("/proc/self/ns/mnt").ok(),
        }
    }

    /// Of a process, by its directory in `/proc`. None if we may not look, or it is gone.
    fn open_in(&self, process: &Path) -> BTreeSet<String> {
        let mut open = BTreeSet::new();
        // In another mount namespace the same path may be another file: two containers have a `/prometheus` each.
        let same_mounts = self.mounts.is_some() && fs::read_link(process.join("ns/mnt")).ok() == self.mounts;
        for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let Some(file) = self.file(&descriptor.path(), &link, same_mounts) else { continue };
            if is_for_writing(&process.join("fdinfo").join(descriptor.file_name())) {
                open.insert(file);
            }
        }
        open
    }

    /// Which file it is, if it is one of them.
    fn file(&self, descriptor: &Path, link: &Path, same_mounts: bool) -> Option<String> {
        // Whatever else is open is not asked for: where a network file system does not answer, that would hang.
        if link.file_name().is_some_and(|name| self.names.contains(name)) {
            let same = fs::metadata(descriptor).ok().and_then(|it| self.by_identity.get(&identity(&it)));
            if let Some(relative) = same {
                return Some((*relative).to_owned());
            }
        }
        // By its path, if it has been removed or replaced under a running server, or is newer than the listing.
        if !same_mounts {
            return None;
        }
        let link = link.as_os_str().as_bytes();
        let (path, deleted) = link.strip_suffix(DELETED).map_or((link, ""), |path| (path, " (deleted)"));
        let path = Path::new(OsStr::from_bytes(path));
        self.places.iter().find_map(|(place, name)| {
            let below = path.strip_prefix(place).ok()?;
            let relative =
                if below == Path::new("") { PathBuf::from(name) } else { Path::new(name).join(below) };
            Some(format!("{}{deleted}", relative.display()))
        })
    }
}

/// What `/proc` puts after the path of a file that has no name any more (proc(5)).
const DELETED: &[u8] = b" (deleted)";

/// Of a descriptor by its file in `fdinfo`: `flags:` in octal, as given to `open` (proc(5)).
fn is_for_writing(info: &Path) -> bool {
    /// `O_ACCMODE`: 0 reading, 1 writing, 2 both.
    const ACCESS: u32 = 3;
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & ACCESS != 0)
}

/// The kernel's answer to the wish for a read lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    /// Nobody has the file open for writing.
    Free,
    /// Somebody has.
    Taken,
}

/// Asks for a read lease, and gives it back at once.
///
/// Whoever opens the file for writing in between (microseconds) waits in `open` until the lease is given back, which needs
/// nothing of us but to go on: nothing is done in between. If we are killed, the descriptor is closed, and with it the
/// lease is gone; if we are stopped, the kernel takes it away (`/proc/sys/fs/lease-break-time`, 45 s). Only an `open` with
/// `O_NONBLOCK` fails instead of waiting, and Prometheus has none.
///
/// The kernel signals the holder of a lease that it is wanted. By default that is SIGIO, which ends the process. We
/// ask for SIGURG: it is ignored unless there is a handler, and all handlers have to live with one too many. Unlike a
/// real-time signal it never falls back to SIGIO because the queue is full. So no handler is set, which would be the whole
/// process's.
#[cfg(target_os = "linux")]
fn lease(path: &Path) -> io::Result<Lease> {
    use std::os::unix::fs::OpenOptionsExt as _;

    /// Of `asm-generic/fcntl.h`.
    const F_SETSIG: libc::c_int = 10;

    // Should it be a pipe by now, or have another's write lease: not to wait for that.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    fcntl(&file, F_SETSIG, libc::SIGURG)?;
    match fcntl(&file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => fcntl(&file, libc::F_SETLEASE, libc::F_UNLCK).map(|()| Lease::Free),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(Lease::Taken),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn lease(_: &Path) -> io::Result<Lease> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `fcntl` of a command that takes a number.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe interface has F_SETLEASE and F_SETSIG")]
fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    // SAFETY: the descriptor is open as long as `file` lives, and the commands used here take a number, no pointer.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
