//! Changes to files that are on the disk when they are said to be done.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::input::Checksum;
use crate::wal::layout::HEADER_SIZE;

/// Bytes of a file that become others, and these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) offset: u64,
    /// Only at the end of a file as many as `with` has, or not.
    pub(super) replaces: u64,
    pub(super) with: Bytes,
}

/// Bytes that are written, however many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// These.
    Given(Vec<u8>),
    /// Those of a file, which may be more than there is memory for.
    Kept {
        path: PathBuf,
        /// Where they begin in it.
        start: u64,
        count: u64,
    },
}

/// What is read at once of bytes that are kept in a file.
const PIECE: u64 = 64 * 1024;

impl Bytes {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Given(bytes) => bytes.len() as u64,
            Self::Kept { count, .. } => *count,
        }
    }

    /// Gives those in `range`, piece by piece, each with where it belongs among them.
    fn each(&self, range: Range<u64>, mut give: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            _ if range.is_empty() => Ok(()),
            Self::Given(bytes) => {
                let at = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput);
                let piece = bytes.get(at(range.start)?..at(range.end)?);
                give(range.start, piece.ok_or(io::ErrorKind::InvalidInput)?)
            }
            Self::Kept { path, start, .. } => {
                let from = start.checked_add(range.start).ok_or(io::ErrorKind::InvalidInput)?;
                each_piece(&File::open(path)?, from, range.end - range.start, |at, piece| {
                    give(range.start + at, piece)
                })
            }
        }
    }
}

/// Reads `count` bytes of a file, piece by piece.
pub(super) fn each_piece(
    file: &File,
    from: u64,
    count: u64,
    mut give: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(PIECE.min(count)).unwrap_or(0)];
    let mut at = 0;
    while at < count {
        let length = usize::try_from(count - at).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..length];
        file.read_exact_at(piece, from.checked_add(at).ok_or(io::ErrorKind::InvalidInput)?)?;
        give(at, piece)?;
        at += length as u64;
    }
    Ok(())
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
        splice.with.each(0..splice.with.count(), |_, piece| out.write_all(piece))?;
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
        let count = splice.with.count();
        let header = count.min(HEADER_SIZE as u64);
        for range in [header..count, 0..header] {
            splice.with.each(range, |at, piece| file.write_all_at(piece, splice.offset + at))?;
        }
        if count < splice.replaces {
            file.set_len(splice.offset + count)?;
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

/// To whom a file belongs, and what they may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// As new files have it, if it is not given.
    pub(super) mode: Option<u32>,
}

impl Owner {
    /// As of a file that is there.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: Some(metadata.mode() & 0o7777) }
    }

    /// Of a new file in the directory in which `path` is.
    pub(super) fn of_new(path: &Path) -> io::Result<Self> {
        let directory = directory_of(path).metadata()?;
        Ok(Self { mode: None, ..Self::of(&directory) })
    }

    /// Only a privileged user can give files away; to others they belong anyhow, or what is done fails.
    pub(super) fn give(self, file: &File) -> io::Result<()> {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (self.uid, self.gid) {
            fchown(file, Some(self.uid), Some(self.gid))?;
        }
        self.mode.map_or(Ok(()), |mode| file.set_permissions(fs::Permissions::from_mode(mode)))
    }
}

/// Puts a file at `path` at once, whole, as `write` makes it.
pub(super) fn replace(
    path: &Path,
    owner: Option<Owner>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let staged = staged(path);
    let stage = || {
        let mut out = io::BufWriter::with_capacity(256 * 1024, File::create(&staged)?);
        if let Err(error) = write(&mut out) {
            // What it still holds need not be written.
            drop(out.into_parts());
            return Err(error);
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        owner.map_or(Ok(()), |owner| owner.give(&file))?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    if let Err(error) = stage() {
        // The disk may be full because of it.
        let _ = fs::remove_file(&staged);
        return Err(error);
    }
    sync_directory_of(path)
}

/// Removes a file, or a directory with all that is in it, if it is there.
pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames, if there is nothing by the new name; both names are on the disk then.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)?;
    sync_directory_of(to)?;
    sync_directory_of(from)
}

/// The directory in which `path` is.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Sets when a file or directory was last written to, ns since 1970.
pub(super) fn set_modified(path: &Path, modified: i128) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidData);
    let since = |nanoseconds: i128| -> io::Result<Duration> {
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(out_of_range)?;
        let rest = u32::try_from(nanoseconds % 1_000_000_000).map_err(out_of_range)?;
        Ok(Duration::new(seconds, rest))
    };
    let time = if modified < 0 { UNIX_EPOCH - since(-modified)? } else { UNIX_EPOCH + since(modified)? };
    File::open(path)?.set_modified(time)
}

/// As [`set_modified`], of a directory. One that is only shared with its owner can be written in, but not be given a
/// time (Kubernetes, `fsGroup`); its time is then that of the last change in it.
pub(super) fn set_modified_directory(path: &Path, modified: i128) -> io::Result<()> {
    match set_modified(path, modified) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// A checksum of all names and bytes below `path`, which is a file or a directory; and how many bytes.
pub(super) fn checksum_tree(path: &Path) -> io::Result<(String, u64)> {
    fn add(path: &Path, name: &str, sum: &mut Checksum, bytes: &mut u64) -> io::Result<()> {
        if path.symlink_metadata()?.is_dir() {
            sum.update(format!("directory {name}\n").as_bytes());
            let mut names =
                fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            for below in names {
                let name = format!("{name}/{}", below.display());
                add(&path.join(&below), &name, sum, bytes)?;
            }
            return Ok(());
        }
        let (checksum, length) = checksum_spliced(path, &[])?;
        *bytes += length;
        sum.update(format!("file {name} {checksum}\n").as_bytes());
        Ok(())
    }
    let (mut sum, mut bytes) = (Checksum::new(), 0);
    add(path, "", &mut sum, &mut bytes)?;
    Ok((sum.text(), bytes))
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
    sync_directory(directory_of(path))
}

/// Makes all names below a directory safe.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_directory(path)
}

/// Makes a directory, and those above it, and their names safe.
pub(super) fn create_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_directories(directory_of(path))?;
    fs::create_dir(path)?;
    sync_directory_of(path)
}

/// Copies a file or directory, with owners, modes and times, to where there is nothing; and reads it back.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = from.symlink_metadata()?;
    if metadata.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy_tree(&from.join(&name), &to.join(&name))?;
        }
        let directory = File::open(to)?;
        Owner::of(&metadata).give(&directory)?;
        directory.set_modified(metadata.modified()?)?;
        return directory.sync_all();
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is neither a file nor a directory"));
    }
    write_and_verify(to, |out| io::copy(&mut File::open(from)?, out).map(drop))?;
    let file = OpenOptions::new().write(true).open(to)?;
    Owner::of(&metadata).give(&file)?;
    file.set_modified(metadata.modified()?)?;
    file.sync_all()
}

/// Copies a file or directory as [`copy_tree`] does; by its name there is all of it, or nothing.
pub(super) fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let staged = staged(to);
    remove_any(&staged)?;
    copy_tree(from, &staged)?;
    rename_new(&staged, to)
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
