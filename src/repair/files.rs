//! Changes to files that are on the disk when they are said to be done.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};

use super::input::Checksum;
use crate::wal::layout::HEADER_SIZE;

/// Bytes of a file that become others, and these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) offset: u64,
    /// Only at the end of a file as many as `with` has, or not.
    pub(super) replaces: u64,
    pub(super) with: Vec<u8>,
}

/// Copies a file with these splices, in the order of their offsets.
pub(super) fn copy_spliced(file: &mut File, splices: &[Splice], out: &mut dyn Write) -> io::Result<()> {
    let mut at = 0;
    for splice in splices {
        file.seek(SeekFrom::Start(at))?;
        let between = splice.offset - at;
        if io::copy(&mut (&mut *file).take(between), out)? < between {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(&splice.with)?;
        at = splice.offset + splice.replaces;
    }
    file.seek(SeekFrom::Start(at))?;
    io::copy(file, out).map(drop)
}

/// The checksum that the file would have with these splices, and its size.
pub(super) fn checksum_spliced(path: &Path, splices: &[Splice]) -> io::Result<(String, u64)> {
    let mut sum = Summing { out: io::sink(), checksum: Checksum::new(), bytes: 0 };
    copy_spliced(&mut File::open(path)?, splices, &mut sum)?;
    Ok((sum.checksum.text(), sum.bytes))
}

/// Writes the splices where they belong, the last first, each with its first bytes last.
pub(super) fn splice_in_place(path: &Path, splices: &[Splice]) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    for splice in splices.iter().rev() {
        let (header, body) = splice.with.split_at(splice.with.len().min(HEADER_SIZE));
        if !body.is_empty() {
            file.write_all_at(body, splice.offset + HEADER_SIZE as u64)?;
        }
        if !header.is_empty() {
            file.write_all_at(header, splice.offset)?;
        }
        if (splice.with.len() as u64) < splice.replaces {
            file.set_len(splice.offset + splice.with.len() as u64)?;
        }
    }
    file.sync_all()
}

/// Where a new file is written before it gets its name: Prometheus neither lists nor deletes such names.
pub(super) fn staged(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".walfix");
    path.with_file_name(name)
}

/// Puts a file at `path` at once, whole, as `write` makes it; of the owner, group and mode of `like`.
pub(super) fn replace(
    path: &Path,
    like: Option<&Metadata>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let staged = staged(path);
    let file = File::create(&staged)?;
    let mut out = io::BufWriter::with_capacity(256 * 1024, file);
    write(&mut out)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(like) = like {
        keep_owner(&file, like)?;
    }
    file.sync_all()?;
    fs::rename(&staged, path)?;
    sync_directory_of(path)
}

/// Only a privileged user can give files away; to others they belong anyhow, or what is done fails.
fn keep_owner(file: &File, like: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(like.permissions())
}

/// Writes a new file, and reads it back.
pub(super) fn write_and_verify(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let out = io::BufWriter::with_capacity(256 * 1024, file);
    let mut sum = Summing { out, checksum: Checksum::new(), bytes: 0 };
    write(&mut sum)?;
    let file = sum.out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    drop(file);
    let (read, bytes) = checksum_spliced(path, &[])?;
    if (&read, bytes) == (&sum.checksum.text(), sum.bytes) {
        Ok(())
    } else {
        Err(io::Error::other("what was written is not what is read back"))
    }
}

/// Makes the names in a directory safe.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// As [`sync_directory`], of the directory in which `path` is.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Moves a file or directory; a copy of it where it has to go to another file system.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = from.symlink_metadata()?;
    if metadata.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name))?;
        }
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode()))?;
        chown(to, Some(metadata.uid()), Some(metadata.gid()))?;
        File::open(to)?.set_modified(metadata.modified()?)?;
        return sync_directory(to);
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a file nor a directory"));
    }
    write_and_verify(to, |out| io::copy(&mut File::open(from)?, out).map(drop))?;
    let file = OpenOptions::new().write(true).open(to)?;
    keep_owner(&file, &metadata)?;
    file.set_modified(metadata.modified()?)?;
    file.sync_all()
}

/// Writes, and sums up what is written.
struct Summing<W> {
    out: W,
    checksum: Checksum,
    bytes: u64,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.checksum.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
