//! To come.

use std::io;
use std::path::{Path, PathBuf};

/// To come.
#[derive(Clone, Debug)]
pub struct Target {
    /// To come.
    pub path: PathBuf,
}

/// To come.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// To come.
    #[error("cannot open {path}")]
    Open {
        /// To come.
        path: PathBuf,
        /// To come.
        source: io::Error,
    },
    /// To come.
    #[error("{0} is no data directory, and no part of one")]
    Other(PathBuf),
}

impl Target {
    /// To come.
    ///
    /// # Errors
    /// To come.
    pub fn find(path: &Path) -> Result<Self, TargetError> {
        let metadata =
            path.metadata().map_err(|source| TargetError::Open { path: path.to_owned(), source })?;
        let is = metadata.is_file() || path.join("wal").is_dir() || path.ends_with("wal");
        is.then(|| Self { path: path.to_owned() }).ok_or_else(|| TargetError::Other(path.to_owned()))
    }
}
