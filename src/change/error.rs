//! Why a repair or an undo could not be done.

use std::io;
use std::path::{Path, PathBuf};

use super::Options;
use crate::io::beneath::Place;

/// Why a repair or an undo could not be done. Each says what has been changed by then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// A file cannot be read, written, renamed or listed.
    #[error("cannot {deed} {path}")]
    Io {
        /// What could not be done.
        deed: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path belongs to no data directory.
    #[error("{0} belongs to no data directory of Prometheus: repair needs to see all of its logs")]
    NoDataDirectory(PathBuf),
    /// A Prometheus, or another walfix, works here.
    #[error("{0}; nothing was changed")]
    InUse(String),
    /// Something is not as it was when the plan was made.
    #[error("{path} is not as it was when the plan was made ({what}); nothing more was changed")]
    Changed {
        /// The file or directory.
        path: String,
        /// What about it.
        what: String,
    },
    /// There is not enough room for the backup and the new files.
    #[error("{path} has {free} bytes free, and {needed} are needed; nothing was changed")]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The repair was not started.
    #[error("the repair was not started; nothing was changed")]
    NotStarted(#[source] Box<RepairError>),
    /// The repair is not finished. It can be, and it can be undone.
    #[error(
        "the repair is not finished: `walfix repair --backup` resumes it, `walfix undo {backup}` rolls it back"
    )]
    NotFinished {
        /// Its backup.
        backup: PathBuf,
        /// Why not.
        source: Box<RepairError>,
    },
    /// What would be copied is only half repaired.
    #[error(
        "a repair was interrupted here: finish it with `walfix repair --backup`, or roll it back with `walfix undo {backup}`; \
         `walfix undo --into=DIR {backup}` writes a copy of the logs as they were before it; nothing was copied"
    )]
    NotFinishedHere {
        /// Its backup.
        backup: PathBuf,
    },
    /// It was given up before anything was changed.
    #[error("interrupted before this repair changed anything")]
    Cancelled,
    /// A repair that is not finished was asked for otherwise than the one that would finish it.
    #[error(
        "a repair with other options is not finished here: `walfix repair {} --backup` finishes it, \
         `walfix undo {backup}` rolls it back; nothing was changed",
        started.arguments()
    )]
    OtherOptions {
        /// What was asked for then.
        started: Options,
        /// Its backup.
        backup: PathBuf,
    },
    /// A repair that is not finished was started by a version that staged no files.
    #[error(
        "a repair is not finished here that walfix {walfix} started without staging the new bytes of {path}: roll it back with \
         `walfix undo {backup}`, and repair again; nothing more was changed"
    )]
    NotStaged {
        /// The version of walfix that started it.
        walfix: String,
        /// The file that it has not written yet.
        path: String,
        /// Its backup.
        backup: PathBuf,
    },
    /// Something has changed since the repair that is to be undone.
    #[error(
        "{what} since the repair, so it cannot be undone as if nothing had been; nothing was changed. \
         `walfix undo --into=DIR {backup}` writes a copy of the logs as they were before the repair; \
         `walfix undo --force {backup}` puts back what the repair changed, whatever has come since"
    )]
    ChangedSince {
        /// The backup.
        backup: PathBuf,
        /// What has changed.
        what: String,
    },
    /// What is there now is neither what the repair left nor what was there before, and the backup has only a part of it.
    #[error(
        "{path} cannot be put back: {what}, and the backup has only the bytes that were replaced; nothing was changed"
    )]
    Incomplete {
        /// The file.
        path: String,
        /// What is in its place.
        what: String,
    },
    /// The backup of a repair that is not finished is not where it was.
    #[error(
        "a repair was interrupted here, and its backup {backup} cannot be opened: mount it, or, if it is gone for good, \
         remove {marker}; nothing was changed"
    )]
    NoBackup {
        /// The backup.
        backup: PathBuf,
        /// The file that says so.
        marker: PathBuf,
        /// Why it cannot be opened.
        source: io::Error,
    },
    /// The file that says that a repair is not finished is not what walfix wrote.
    #[error("{path} is not as walfix writes it ({what}): look at it, and remove it; nothing was changed")]
    Marker {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What would be changed is below a link.
    #[error(
        "{path} is a symbolic link to {leads_to}, and nothing is written through a link: write a repaired copy with \
         `walfix repair --into=DIR`, or mount the directory there (mount --bind) in the place of the link; nothing was \
         changed"
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        leads_to: PathBuf,
    },
    /// The backup, or a copy, would not be safe there.
    #[error("{path} is no place for it: {why}; nothing was changed")]
    NoPlace {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The backup is not what a repair wrote.
    #[error("the backup {path} cannot be used: {what}")]
    Backup {
        /// The backup.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// What has a path that can be said.
pub(crate) trait Shown {
    fn shown(&self) -> PathBuf;
}

impl Shown for Path {
    fn shown(&self) -> PathBuf {
        self.to_owned()
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> PathBuf {
        self.clone()
    }
}

impl Shown for Place {
    fn shown(&self) -> PathBuf {
        Place::shown(self)
    }
}

/// Gives an error its place.
pub(crate) trait At<T> {
    fn at<S: Shown + ?Sized>(self, deed: &'static str, path: &S) -> Result<T, RepairError>;
}

impl<T> At<T> for io::Result<T> {
    fn at<S: Shown + ?Sized>(self, deed: &'static str, path: &S) -> Result<T, RepairError> {
        self.map_err(|source| RepairError::Io { deed, path: path.shown(), source })
    }
}
