//! The lock that Prometheus takes, so that neither starts beside the other, and whether one runs that has none.
//!
//! All versions do the same, servers and agents: `lock` in the data directory is made if it is not there, locked by `flock`
//! without waiting, and removed by its holder at the end (`tsdb/tsdbutil/dir_locker.go`, `tsdb/fileutil/flock_unix.go`). One
//! that is there without being locked was left behind by a crash; Prometheus takes it, and so do we.
//!
//! The lock alone is not enough. `--storage.tsdb.no-lockfile` is common, and the default of some packages. Prometheus gives
//! the lock back before it has written the last of its data, perhaps a whole chunk snapshot (`tsdb/db.go` and
//! `tsdb/agent/db.go`, `Close`). Somebody may have removed the file. So we also look who writes.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::error::{At as _, RepairError};
use crate::tsdb::liveness::{self, LOCK, Liveness, NotKnown};

/// Held as long as it lives; another holder finds it taken.
#[derive(Debug)]
pub struct Lock {
    data: PathBuf,
    path: PathBuf,
    file: File,
    /// It was not there before, so it goes again.
    made: bool,
    not_known: Option<NotKnown>,
}

impl Lock {
    /// Takes the lock of the data directory `data`.
    ///
    /// # Errors
    /// If somebody holds it or has files open for writing, or it cannot be made. Then nothing is changed.
    pub fn take(data: &Path) -> Result<Self, RepairError> {
        let path = data.join(LOCK);
        let made = match leaving_no_trace(data, || File::create_new(&path)) {
            Ok(file) => {
                belong_to_prometheus(&file, data);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).at("create", &path),
        };
        // As Prometheus opens it: on a network file system only who may write can lock.
        let file = File::options().read(true).write(true).open(&path).at("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            // Whoever was faster holds it now, even if we made it: it is theirs to remove.
            Err(TryLockError::WouldBlock) => {
                drop(file);
                return Err(locked(data));
            }
            Err(TryLockError::Error(error)) => {
                if made {
                    let _ = leaving_no_trace(data, || fs::remove_file(&path));
                }
                return Err(error).at("lock", &path);
            }
        }
        let mut lock = Self { data: data.to_owned(), path, file, made, not_known: None };
        lock.not_known = lock.nobody_writes()?;
        // A Prometheus that has just stopped unlocks the file first, and then removes it. By now it has.
        if lock.is_still_there() {
            Ok(lock)
        } else {
            let who = format!("{} has changed hands just now", lock.path.display());
            Err(RepairError::InUse(who))
        }
    }

    /// Looks again whether nobody works here. Somebody who takes no lock may have begun since it was taken.
    ///
    /// # Errors
    /// If somebody has files open for writing.
    pub fn check(&self) -> Result<(), RepairError> {
        self.nobody_writes().map(drop)
    }

    /// Why it could not be told whether somebody works here who cannot be seen from here, and takes no lock; `None` if it
    /// could: there is nobody.
    #[must_use]
    pub fn not_known(&self) -> Option<&NotKnown> {
        self.not_known.as_ref()
    }

    fn nobody_writes(&self) -> Result<Option<NotKnown>, RepairError> {
        // Between fork and exec a child of another program has what its parent had open, for a moment. A running Prometheus
        // is found by every look.
        let mut pauses = [5, 20, 80].into_iter();
        loop {
            let mut found = liveness::look(&self.data).at("list", &self.data)?;
            // We hold it: who has it open as well has tried in vain.
            for writer in &mut found.writers {
                writer.files.retain(|file| file != LOCK);
            }
            found.writers.retain(|writer| !writer.files.is_empty());
            if found.writers.is_empty() {
                return Ok(found.not_known);
            }
            let Some(pause) = pauses.next() else {
                return Err(RepairError::InUse(format!(
                    "{} is in use: {}",
                    self.data.display(),
                    who(&found)
                )));
            };
            thread::sleep(Duration::from_millis(pause));
        }
    }

    fn is_still_there(&self) -> bool {
        match (self.file.metadata(), self.path.metadata()) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.made && self.is_still_there() {
            let _ = leaving_no_trace(&self.data, || fs::remove_file(&self.path));
        }
    }
}

fn locked(data: &Path) -> RepairError {
    let found = liveness::look(data).unwrap_or_default();
    let who = if found.writers.is_empty() {
        "somebody who cannot be seen from here has locked it".to_owned()
    } else {
        who(&found)
    };
    RepairError::InUse(format!("{} is locked: {who}", data.display()))
}

fn who(found: &Liveness) -> String {
    let writers: Vec<_> = found.writers.iter().map(ToString::to_string).collect();
    writers.join("; ")
}

/// If we are killed, the file stays. Made by another user it would keep Prometheus from starting.
fn belong_to_prometheus(file: &File, data: &Path) {
    if let Ok(like) = data.join("wal").metadata().or_else(|_| data.metadata()) {
        // Only a privileged user can, and only such a one needs to.
        let _ = fchown(file, Some(like.uid()), Some(like.gid()));
    }
}

/// Gives the directory the time back that it had before `work`: a lock that comes and goes changes nothing. Only its owner
/// can; that it cannot be done is no error.
fn leaving_no_trace<T>(directory: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let modified = directory.metadata()?.modified()?;
    let done = work()?;
    let _ = File::open(directory).and_then(|directory| directory.set_modified(modified));
    Ok(done)
}
