//! Opening files to read them.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{self as sys, Mode, OFlags};

use super::beneath::HELD;

/// Bytes that a file has at the most: sixteen times the largest segment that Prometheus can be told to write
/// (`cmd/prometheus/main.go`, `storage.tsdb.wal-segment-size`). A file without an end would be read without an end.
pub const LONGEST: u64 = 4 << 30;

/// Directories that Prometheus makes itself below a data directory or the WAL, where a link is none of its making.
const MADE: [&str; 4] = ["checkpoint.", "chunk_snapshot.", "chunks_head", "wbl"];

/// Opens a file to read it; not what a link by that name leads to, nor one in the place of the directory of a checkpoint,
/// a snapshot, the WBL or head chunks; and nothing but a regular file of a length that may be. It never waits: opening a
/// pipe would, for its other end.
///
/// # Errors
/// If it cannot be opened, or is something else, which the error names.
pub fn open(path: &Path) -> io::Result<File> {
    open_up_to(path, LONGEST)
}

/// As [`open`], of a file that has at most `longest` bytes.
pub(crate) fn open_up_to(path: &Path, longest: u64) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let above = path.parent().filter(|above| {
        let name = above.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        MADE.iter().any(|made| name.starts_with(made))
    });
    let opened = match (above, path.file_name()) {
        (Some(above), Some(name)) => in_directory(above, name.as_ref(), flags),
        _ => File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path),
    };
    match opened {
        Ok(file) => {
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(not_a_file(metadata.file_type()));
            }
            if metadata.len() > longest {
                let what = format!("it has {} bytes, and no file of Prometheus has so many", metadata.len());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
            Ok(file)
        }
        // A socket cannot be opened, nor some devices.
        Err(error) => match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => Err(not_a_file(metadata.file_type())),
            _ => Err(error),
        },
    }
}

/// All bytes of a file, of which it has at most `longest`.
///
/// # Errors
/// If it cannot be opened or read, or is longer.
pub(crate) fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let file = open_up_to(path, longest)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, longest), &mut bytes)?;
    Ok(bytes)
}

/// Whether the system refuses to open a file that may be as it should be: too many are open, memory is short, or a right is missing.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM];
    error.raw_os_error().is_some_and(|number| refusals.iter().any(|errno| errno.raw_os_error() == number))
}

/// Opens a file, and says how many bytes it has; `None` if there is something else than a file that can be read.
///
/// # Errors
/// If it is a file and cannot be opened, or nothing is there.
pub(crate) fn open_if_file(path: &Path) -> io::Result<Option<(File, u64)>> {
    match open(path) {
        Ok(file) => {
            let bytes = file.metadata()?.len();
            Ok(Some((file, bytes)))
        }
        Err(error) if is_no_file(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn in_directory(above: &Path, name: &Path, flags: OFlags) -> io::Result<File> {
    // One that was given as the PATH may be a link: it was resolved before.
    let directory =
        sys::open(above, HELD | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    Ok(sys::openat(directory, name, flags | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// Whether an error of [`open`] says that there is something else than a file that can be read.
#[must_use]
pub fn is_no_file(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
        && matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory)
}

/// What is there in the place of a file.
pub(crate) fn not_a_file(kind: FileType) -> io::Error {
    let (error, what) = if kind.is_dir() {
        (io::ErrorKind::IsADirectory, "it is a directory, not a file")
    } else if kind.is_symlink() {
        (io::ErrorKind::InvalidInput, "it is a symbolic link, which is not followed")
    } else if kind.is_fifo() {
        (io::ErrorKind::InvalidInput, "it is a pipe, not a file")
    } else if kind.is_socket() {
        (io::ErrorKind::InvalidInput, "it is a socket, not a file")
    } else {
        (io::ErrorKind::InvalidInput, "it is a device, not a file")
    };
    io::Error::new(error, what)
}
