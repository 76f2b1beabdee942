//! Opening files to read them.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Opens a file to read it; not what a link by that name leads to, and nothing but a regular file. It never waits: opening
/// a pipe would, for its other end.
///
/// # Errors
/// If it cannot be opened, or is something else, which the error names.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NOCTTY;
    let flags = flags.bits().cast_signed();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => {
            let kind = file.metadata()?.file_type();
            if kind.is_file() { Ok(file) } else { Err(not_a_file(kind)) }
        }
        // A socket cannot be opened, nor some devices.
        Err(error) => match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => Err(not_a_file(metadata.file_type())),
            _ => Err(error),
        },
    }
}

/// Whether an error of [`open`] says that there is something else than a file.
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
