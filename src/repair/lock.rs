//! The lock that Prometheus takes, so that neither starts beside the other.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{At as _, RepairError};
use super::files::{Owner, set_modified_directory, staged};
use super::input;

/// The file by which Prometheus locks its data directory (`tsdb/tsdbutil/dir_locker.go`).
const NAME: &str = "lock";

/// What is in a lock that walfix made, before the time of the directory in which it is. Prometheus does not read it.
const MARK: &str = "walfix ";

/// Held as long as it lives; another holder finds it taken.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    /// It was not there before, so it goes again, and the directory has the time again that it had, ns since 1970.
    made: Option<i128>,
}

impl Lock {
    /// Takes the lock of the data directory `data`.
    ///
    /// # Errors
    /// If somebody holds it, or it cannot be made.
    pub fn take(data: &Path) -> Result<Self, RepairError> {
        let path = data.join(NAME);
        let is_new = match path.symlink_metadata() {
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(data, &path).at("create", &path)?,
            Err(error) => return Err(error).at("look at", &path),
        };
        let changed_hands =
            || RepairError::InUse(format!("{} has changed hands just now; try again", path.display()));
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed_hands()),
            opened => opened.at("open", &path)?,
        };
        let mut lock = Self { path: path.clone(), file, made: None };
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
        if !lock.is_still_there() {
            return Err(changed_hands());
        }
        // One that walfix made and was not there to remove is as good as made now.
        let mut text = String::new();
        let _ = (&lock.file).take(64).read_to_string(&mut text);
        lock.made = marked(&text);
        if let (Some(modified), false) = (lock.made, is_new) {
            set_modified_directory(data, modified).at("set the time of", data)?;
        }
        Ok(lock)
    }

    fn is_still_there(&self) -> bool {
        match (self.file.metadata(), self.path.metadata()) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

/// The time in a lock that walfix made.
fn marked(text: &str) -> Option<i128> {
    text.strip_prefix(MARK)?.strip_suffix('\n')?.parse().ok()
}

/// Makes the lock, if nobody else does; whether it was made. It is there at once with its mark in it, and belongs to whom
/// the data directory belongs: a Prometheus that cannot open it does not start.
fn make(data: &Path, path: &Path) -> io::Result<bool> {
    let staged = staged(path);
    // Whoever was killed while making it may have written down when the directory was changed before that.
    let modified = match fs::read_to_string(&staged).ok().as_deref().and_then(marked) {
        Some(modified) => modified,
        None => input::modified(&data.metadata()?),
    };
    let write = |path: &Path| {
        let mut file = File::create(path)?;
        file.write_all(format!("{MARK}{modified}\n").as_bytes())?;
        let owner = Owner { mode: Some(0o666), ..Owner::of_new(path)? };
        // A member of the group cannot give it away, and need not.
        let _ = owner.give(&file);
        io::Result::Ok(())
    };
    let link = || {
        write(&staged)?;
        fs::hard_link(&staged, path)
    };
    let made = match link() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // Not every file system has links.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            write(path).map(|()| true)
        }
        Err(error) => Err(error),
    };
    let _ = fs::remove_file(&staged);
    set_modified_directory(data, modified)?;
    made
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.made.is_none() || !self.is_still_there() {
            return;
        }
        // What is done while it is held has set the time that the directory is to have, or changed it.
        let data = self.path.parent().unwrap_or(&self.path);
        let modified = data.metadata().map(|metadata| input::modified(&metadata));
        let _ = fs::remove_file(&self.path);
        if let Ok(modified) = modified {
            let _ = set_modified_directory(data, modified);
        }
    }
}
