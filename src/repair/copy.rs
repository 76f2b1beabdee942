//! A copy of a data directory's logs, of whatever the disk still gives.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::error::{At as _, RepairError};
use super::files::sync_directory;
use crate::tsdb::Target;
use crate::wal::PAGE;
use crate::wal::source::Window;

/// What is copied of a data directory, if it is there: the logs, and what belongs to the same head.
const PARTS: [&str; 3] = ["wal", "wbl", "chunks_head"];

/// Copies the logs of `from` into the new directory `to`. Bytes that the disk does not give are zeros there.
///
/// # Errors
/// If `to` is there already, or something cannot be read or written.
pub fn copy_logs(from: &Target, to: &Path) -> Result<(), RepairError> {
    fs::create_dir(to).at("create", to)?;
    for entry in fs::read_dir(from.path()).at("list", from.path())? {
        let name = entry.at("list", from.path())?.file_name();
        let is_part =
            name.to_str().is_some_and(|name| PARTS.contains(&name) || name.starts_with("chunk_snapshot."));
        if is_part {
            copy(&from.path().join(&name), &to.join(&name))?;
        }
    }
    sync_directory(to).at("write", to)
}

fn copy(from: &Path, to: &Path) -> Result<(), RepairError> {
    let metadata = from.metadata().at("look at", from)?;
    if metadata.is_dir() {
        fs::create_dir(to).at("create", to)?;
        for entry in fs::read_dir(from).at("list", from)? {
            let name = entry.at("list", from)?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        sync_directory(to).at("write", to)?;
    } else if metadata.is_file() {
        let source = File::open(from).at("open", from)?;
        copy_bytes(source, metadata.len(), to).at("write", to)?;
    }
    File::open(to).and_then(|file| file.set_modified(metadata.modified()?)).at("set the time of", to)
}

/// Reads sector by sector where the disk fails.
fn copy_bytes(source: File, length: u64, to: &Path) -> io::Result<()> {
    let mut window = Window::new(source, length);
    let mut out = io::BufWriter::with_capacity(256 * 1024, File::create_new(to)?);
    let mut at = 0;
    while at < window.length() {
        out.write_all(window.page(at))?;
        at += PAGE;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}
