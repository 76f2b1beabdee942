//! The lock that Prometheus takes, so that neither starts beside the other, and whether one runs that has none.
//!
//! All versions do the same, servers and agents: `lock` in the data directory is made if it is not there, locked by `flock`
//! without waiting, and removed by its holder at the end (`tsdb/tsdbutil/dir_locker.go`, `tsdb/fileutil/flock_unix.go`). One
//! that is there without being locked was left by a crash; Prometheus takes it, and so do we.
//!
//! The lock alone is not enough. `--storage.tsdb.no-lockfile` is common, and the default of some packages. Prometheus gives
//! the lock back before it has written the last of its data, perhaps a whole chunk snapshot (`tsdb/db.go` and
//! `tsdb/agent/db.go`, `Close`). Somebody may have removed the file. So we also look who writes.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::data::owner_of;
use super::error::{At as _, RepairError};
use super::files::{Owner, create_staged, set_modified_directory, staged};
use super::input;
use crate::io::beneath::Place;
use crate::tsdb::liveness::{self, LOCK, Liveness, NotKnown};

/// What is in a lock that walfix made, before the time of the directory in which it is. Prometheus does not read it.
const MARK: &str = "walfix ";

/// Held as long as it lives; another holder finds it taken.
#[derive(Debug)]
pub struct Lock {
    data: Place,
    place: Place,
    /// The data directory as it was given.
    path: PathBuf,
    file: File,
    /// It was not there before, so it goes again, and the directory has the time again that it had, ns since 1970.
    made: Option<i128>,
    not_known: Option<NotKnown>,
}

impl Lock {
    /// Takes the lock of the data directory `data`.
    ///
    /// # Errors
    /// If somebody holds it or has files open for writing, or it cannot be made. Then nothing is changed.
    pub fn take(data: &Path) -> Result<Self, RepairError> {
        let root = Place::open(data).at("open", data)?;
        let place = root.join(LOCK);
        let made = match place.find() {
            Ok(Some(_)) => None,
            Ok(None) => make(&root, &place).at("create", &place)?,
            Err(error) => return Err(error).at("look at", &place),
        };
        let changed_hands = || {
            RepairError::InUse(format!("{} has changed hands just now; try again", place.shown().display()))
        };
        let file = match place.open_to_write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changed_hands()),
            opened => opened.at("open", &place)?,
        };
        match file.try_lock() {
            Ok(()) => {}
            // Whoever was faster holds it now, even if we made it: it is theirs to remove.
            Err(TryLockError::WouldBlock) => {
                drop(file);
                return Err(locked(data));
            }
            Err(TryLockError::Error(error)) => return Err(error).at("lock", &place),
        }
        let mut lock = Self {
            data: root,
            place: place.clone(),
            path: data.to_owned(),
            file,
            made: None,
            not_known: None,
        };
        // One that walfix made and was not there to remove is as good as made now.
        let mut text = String::new();
        let _ = (&lock.file).take(64).read_to_string(&mut text);
        lock.made = marked(&text).or(made);
        lock.not_known = lock.nobody_writes()?;
        // A Prometheus that has just stopped removes the file.
        if !lock.is_still_there() {
            return Err(changed_hands());
        }
        if let (Some(modified), None) = (lock.made, made) {
            set_modified_directory(&lock.data, modified).at("set the time of", data)?;
        }
        Ok(lock)
    }

    /// The data directory, held open.
    pub(super) fn data(&self) -> &Place {
        &self.data
    }

    /// Looks again whether nobody works here. Somebody who takes no lock may have started since it was taken.
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
            let mut found = liveness::look(&self.path).at("list", &self.path)?;
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
                    self.path.display(),
                    who(&found)
                )));
            };
            thread::sleep(Duration::from_millis(pause));
        }
    }

    fn is_still_there(&self) -> bool {
        match (self.file.metadata(), self.place.look()) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }
}

/// The time in a lock that walfix made.
fn marked(text: &str) -> Option<i128> {
    text.strip_prefix(MARK)?.strip_suffix('\n')?.parse().ok()
}

/// Makes the lock, if nobody else does; the time that the directory had, if it was made. It is there at once with its mark in it, and belongs to whom
/// the data directory belongs: a Prometheus that cannot open it does not start.
fn make(data: &Place, place: &Place) -> io::Result<Option<i128>> {
    let staged = staged(place);
    // Whoever was killed while making it may have written down when the directory was changed before that.
    let text = staged.read(64).ok().and_then(|text| String::from_utf8(text).ok());
    let modified = match text.as_deref().and_then(marked) {
        Some(modified) => modified,
        None => input::modified(&data.look()?),
    };
    let write = |make: &dyn Fn(Owner) -> io::Result<File>| {
        // The data directory itself may belong to another user than the server.
        let owner = owner_of(data)?.with_mode(0o666);
        let mut file = make(owner)?;
        file.write_all(format!("{MARK}{modified}\n").as_bytes())?;
        // A member of the group cannot give it away, and need not.
        owner.give_if_allowed(&file)
    };
    let link = || {
        write(&|owner| create_staged(&staged, owner))?;
        staged.link(place)
    };
    let made = match link() {
        Ok(()) => Ok(true),
        // Somebody else has just made it, or was about to, and has removed what was staged: there is one name for all.
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
            Ok(false)
        }
        // Not every file system has links.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) =>
        {
            write(&|_| place.create_file(0o666)).map(|()| true)
        }
        // Without a free byte it is empty, as Prometheus makes it.
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            let owner = owner_of(data)?.with_mode(0o666);
            let _ = staged.remove_file();
            owner.give_if_allowed(&place.create_file(0o666)?).map(|()| true)
        }
        Err(error) => Err(error),
    };
    let _ = staged.remove_file();
    set_modified_directory(data, modified)?;
    Ok(made?.then_some(modified))
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.made.is_none() || !self.is_still_there() {
            return;
        }
        // What is done while it is held has set the time that the directory is to have, or changed it.
        let modified = self.data.look().map(|metadata| input::modified(&metadata));
        let _ = self.place.remove_file();
        if let Ok(modified) = modified {
            let _ = set_modified_directory(&self.data, modified);
        }
    }
}

fn locked(data: &Path) -> RepairError {
    let found = liveness::look(data).unwrap_or_default();
    let who = if found.writers.is_empty() {
        "locked by a process that is not visible from here".to_owned()
    } else {
        who(&found)
    };
    RepairError::InUse(format!("{} is locked: {who}", data.display()))
}

fn who(found: &Liveness) -> String {
    let writers: Vec<_> = found.writers.iter().map(ToString::to_string).collect();
    writers.join("; ")
}
