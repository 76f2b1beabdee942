//! What a path means: a data directory, one of its logs, or one segment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::blocks::is_ulid;
use super::listing::{self, Listing, LogKind};
use crate::wal::segments::{list_segments, segment_index};

/// What is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    DataDirectory,
    Log(LogKind),
    Segment(LogKind),
}

/// Why a path is nothing that can be read.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be looked at.
    #[error("cannot open {path}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{0} is no data directory of Prometheus, and none of wal/, wbl/, a checkpoint, a chunk snapshot or a segment"
    )]
    Other(PathBuf),
    /// It is something else, and has data directories in it.
    #[error("{path} is no data directory of Prometheus; there is one in {}{}", below.display(), more(*others))]
    Above {
        /// The path.
        path: PathBuf,
        /// The first directory below it that is one.
        below: PathBuf,
        /// How many more there are.
        others: usize,
    },
}

fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(", and in {others} more beside it") }
}

impl Target {
    /// What `path` means. A directory in which nothing is yet is a data directory: Prometheus will create the rest.
    ///
    /// # Errors
    /// If it cannot be looked at, or is nothing of Prometheus's.
    pub fn find(path: &Path) -> Result<Self, TargetError> {
        let failed = |source| TargetError::Open { path: path.to_owned(), source };
        // The names matter, and `.` has none.
        let full = path.canonicalize().map_err(failed)?;
        let metadata = full.metadata().map_err(failed)?;
        let shape = if metadata.is_file() {
            let named = full.file_name().and_then(|name| name.to_str()).and_then(segment_index);
            named.map(|_| Shape::Segment(full.parent().map_or(LogKind::Wal, LogKind::of_name)))
        } else if metadata.is_dir() {
            shape_of_directory(&full).map_err(failed)?
        } else {
            None
        };
        let shape = shape.ok_or_else(|| above(path))?;
        // A link may be given, but readers follow none. `wal` may be one, and belongs to where the link is.
        let is_link = path.is_symlink() && !matches!(shape, Shape::DataDirectory | Shape::Log(LogKind::Wal));
        Ok(Self { path: if is_link { full } else { path.to_owned() }, shape })
    }

    /// Whether nothing is there yet: no log, and nothing but what may be in a data directory without one.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.shape == Shape::DataDirectory && has_nothing_else(&self.path).unwrap_or(false)
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a data directory.
    #[must_use]
    pub fn is_data_directory(&self) -> bool {
        self.shape == Shape::DataDirectory
    }

    /// Where something is of which the path below this target is known.
    #[must_use]
    pub fn path_of(&self, relative: &str) -> PathBuf {
        match self.shape {
            Shape::Segment(_) => self.path.clone(),
            Shape::DataDirectory | Shape::Log(_) => self.path.join(relative),
        }
    }

    /// The data directory that it is, or to which it belongs as its `wal/`. A WAL under another name is on its own;
    /// other logs and single segments have none.
    #[must_use]
    pub fn data_directory(&self) -> Option<Self> {
        match self.shape {
            Shape::DataDirectory => Some(self.clone()),
            Shape::Log(LogKind::Wal) => {
                let full = self.path.canonicalize().ok()?;
                let is_wal = full.file_name().is_some_and(|name| name == "wal");
                let data = is_wal.then(|| self.path.parent().filter(|path| *path != Path::new(""))).flatten();
                match (is_wal, data) {
                    (false, _) => Some(self.clone()),
                    (true, Some(data)) => Some(Self { path: data.to_owned(), shape: Shape::DataDirectory }),
                    (true, None) => {
                        Some(Self { path: full.parent()?.to_owned(), shape: Shape::DataDirectory })
                    }
                }
            }
            Shape::Log(_) | Shape::Segment(_) => None,
        }
    }

    /// The data directory that it is, or in which it lies.
    #[must_use]
    pub fn data_directory_around(&self) -> Option<Self> {
        if self.shape == Shape::DataDirectory {
            return Some(self.clone());
        }
        let full = self.path.canonicalize().ok()?;
        // A segment of a checkpoint is three levels down.
        let around = full.ancestors().skip(1).take(3);
        let mut found =
            around.filter(|path| matches!(shape_of_directory(path), Ok(Some(Shape::DataDirectory))));
        found.next().map(|path| Self { path: path.to_owned(), shape: Shape::DataDirectory })
    }

    /// The logs that belong to it, as they are now. The directory may be in use: it is listed until two listings
    /// agree.
    ///
    /// # Errors
    /// If a directory cannot be listed.
    pub fn list(&self) -> io::Result<Listing> {
        const TRIES: usize = 50;
        let mut last = self.list_once()?;
        for _ in 0..TRIES {
            let next = self.list_once()?;
            if next == last {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    fn list_once(&self) -> io::Result<Listing> {
        match self.shape {
            Shape::DataDirectory => listing::data_directory(&self.path),
            Shape::Log(kind) => listing::log(&self.path, "", kind),
            Shape::Segment(kind) => listing::segment(&self.path, kind),
        }
    }
}

/// Names that are in a data directory without a WAL: of a new volume, of blocks that were restored, of a server that was
/// stopped and its logs removed, and walfix's own.
fn may_stand_alone(name: &str) -> bool {
    // A block, one that is being made or deleted, and one that a repair has set aside.
    let block = name.strip_prefix("corrupted-").unwrap_or(name);
    let (ulid, rest) = block.split_at_checked(26).unwrap_or((block, ""));
    is_ulid(ulid) && (rest.is_empty() || rest.starts_with(['.', '-']))
        || matches!(name, "lost+found" | "lock" | "queries.active" | "snapshots")
        || name.starts_with("chunk_snapshot.")
        || name.starts_with("walfix-")
}

/// Whether nothing is there yet, or nothing but what is in a data directory without a WAL.
fn has_nothing_else(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if !entry?.file_name().to_str().is_some_and(may_stand_alone) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Of a directory that is none of Prometheus's: where there is one, a level below, as `/data/tenant` and Alloy's
/// `/data/prometheus.remote_write.NAME`.
fn above(path: &Path) -> TargetError {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries
        .map(|entry| path.join(entry.file_name()))
        .filter(|below| ["wal", "wbl", "chunks_head"].iter().any(|log| below.join(log).is_dir()))
        .collect();
    below.sort_unstable();
    match below.split_first() {
        Some((first, others)) => {
            TargetError::Above { path: path.to_owned(), below: first.clone(), others: others.len() }
        }
        None => TargetError::Other(path.to_owned()),
    }
}

fn shape_of_directory(path: &Path) -> io::Result<Option<Shape>> {
    if path.join("wal").is_dir() || path.join("wbl").is_dir() || path.join("chunks_head").is_dir() {
        return Ok(Some(Shape::DataDirectory));
    }
    let kind = LogKind::of_name(path);
    let named_so = kind != LogKind::Wal || path.file_name().is_some_and(|name| name == "wal");
    // Copied elsewhere under another name, or Loki's, whose WAL directory is called as one likes.
    let looks_so = || -> io::Result<bool> {
        let listing = listing::log(path, "", kind)?;
        Ok(listing.logs.len() > 1 || !list_segments(path)?.is_empty())
    };
    Ok(if named_so || looks_so()? {
        Some(Shape::Log(kind))
    } else if has_nothing_else(path)? {
        Some(Shape::DataDirectory)
    } else {
        None
    })
}
