//! The lock that Prometheus takes, so that neither starts beside the other.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{At as _, RepairError};

/// The file by which Prometheus locks its data directory (`tsdb/tsdbutil/dir_locker.go`).
const NAME: &str = "lock";

/// Held as long as it lives; another holder finds it taken.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    /// It was not there before, so it goes again.
    made: bool,
}

impl Lock {
    /// Takes the lock of the data directory `data`.
    ///
    /// # Errors
    /// If somebody holds it, or it cannot be made.
    pub fn take(data: &Path) -> Result<Self, RepairError> {
        let path = data.join(NAME);
        let made = match leaving_no_trace(data, || File::create_new(&path)) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).at("create", &path),
        };
        let file = File::options().write(true).open(&path).at("open", &path)?;
        let lock = Self { path, file, made };
        match lock.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who =
                    format!("{} is locked: a Prometheus, or another walfix, works here", lock.path.display());
                return Err(RepairError::InUse(who));
            }
            Err(TryLockError::Error(error)) => return Err(error).at("lock", &lock.path),
        }
        // A Prometheus that has just stopped removes the file.
        if lock.is_still_there() {
            Ok(lock)
        } else {
            let who = format!("{} has changed hands just now; try again", lock.path.display());
            Err(RepairError::InUse(who))
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
            let data = self.path.parent().unwrap_or(&self.path);
            let _ = leaving_no_trace(data, || fs::remove_file(&self.path));
        }
    }
}

/// Gives the directory the time back that it had before `work`: a lock that comes and goes changes nothing.
fn leaving_no_trace<T>(directory: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let modified = directory.metadata()?.modified()?;
    let done = work()?;
    File::open(directory)?.set_modified(modified)?;
    Ok(done)
}
