//! Changes to files that are on the disk when they are said to be done.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::input::{self, Checksum};
use crate::io::beneath::{Kind, Place, not_too_deep};
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
        file: Place,
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
            Self::Kept { file, start, .. } => {
                let from = start.checked_add(range.start).ok_or(io::ErrorKind::InvalidInput)?;
                each_piece(&file.open_file()?, from, range.end - range.start, |at, piece| {
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
pub(super) fn checksum_spliced(file: &Place, splices: &[Splice]) -> io::Result<(String, u64)> {
    checksum_of(&mut file.open_file()?, splices)
}

/// As [`checksum_spliced`], of a file that is open.
pub(super) fn checksum_of(file: &mut File, splices: &[Splice]) -> io::Result<(String, u64)> {
    let mut sum = Summing::new(io::sink());
    copy_spliced(file, splices, &mut sum)?;
    Ok(sum.finish())
}

/// Writes the splices where they belong, the last first, each with its first bytes last.
pub(super) fn splice_in_place(file: &File, splices: &[Splice]) -> io::Result<()> {
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
pub(super) fn staged(place: &Place) -> Place {
    place.with_ending(STAGED)
}

/// What names end in under which files are written before they get theirs.
pub(super) const STAGED: &str = ".walfix";

/// The bits of a mode that are kept and restored. Those that let a program run as somebody else are never.
pub(super) const MODE: u32 = 0o777;

/// To whom a file belongs, and what they may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

impl Owner {
    /// As of a file that is there.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & MODE }
    }

    /// With another mode.
    pub(super) fn with_mode(self, mode: u32) -> Self {
        Self { mode: mode & MODE, ..self }
    }

    /// The mode with which a file is made that is given away afterwards: until then its group is another, so that may do no
    /// more than everybody.
    pub(super) fn at_first(self) -> u32 {
        let everybody = self.mode & 0o7 & (self.mode >> 3);
        (self.mode & 0o700) | (everybody << 3) | everybody
    }

    /// Only a privileged user can give files away; to others they belong anyhow, or what is done fails.
    pub(super) fn give(self, file: &File) -> io::Result<()> {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (self.uid, self.gid) {
            fchown(file, Some(self.uid), Some(self.gid))?;
        }
        if own.mode() & 0o7777 != self.mode {
            file.set_permissions(Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }

    /// As [`Self::give`], where who may not give files away keeps them.
    pub(super) fn give_if_allowed(self, file: &File) -> io::Result<()> {
        match self.give(file) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                file.set_permissions(Permissions::from_mode(self.mode))
            }
            given => given,
        }
    }
}

/// Makes a new file that is to belong to `owner`, to whom it has yet to be given. Whatever else is by that name, as something
/// that was planted or left, is removed as a name; but for a directory.
pub(super) fn create_staged(staged: &Place, owner: Owner) -> io::Result<File> {
    match staged.remove_file() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => staged.create_file(owner.at_first()),
    }
}

/// Puts a file at `place` at once, whole, as `write` makes it.
pub(super) fn replace(
    place: &Place,
    owner: Owner,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    replace_and(place, owner, write, |file| owner.give(file))
}

/// As [`replace`]; who may not give files away keeps it.
pub(super) fn replace_own(
    place: &Place,
    owner: Owner,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    replace_and(place, owner, write, |file| owner.give_if_allowed(file))
}

fn replace_and(
    place: &Place,
    owner: Owner,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    give: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let staged = staged(place);
    let stage = || {
        let mut out = io::BufWriter::with_capacity(256 * 1024, create_staged(&staged, owner)?);
        if let Err(error) = write(&mut out) {
            // What it still holds need not be written.
            drop(out.into_parts());
            return Err(error);
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        give(&file)?;
        file.sync_all()?;
        staged.rename(place)?;
        is_still(&file, place)
    };
    if let Err(error) = stage() {
        // The disk may be full because of it.
        let _ = staged.remove_file();
        return Err(error);
    }
    sync_directory(&place.parent())
}

/// Whether the file is what is by that name.
pub(super) fn is_still(file: &File, place: &Place) -> io::Result<()> {
    let (own, there) = (file.metadata()?, place.look()?);
    if (own.dev(), own.ino()) == (there.dev(), there.ino()) {
        return Ok(());
    }
    Err(io::Error::other("somebody has put something else in the place of what was written"))
}

/// Renames, if there is nothing by the new name; both names are on the disk then.
pub(super) fn rename_new(from: &Place, to: &Place) -> io::Result<()> {
    from.rename_to_new(to)?;
    sync_directory(&to.parent())?;
    sync_directory(&from.parent())
}

/// The directory in which `path` is.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Sets when a file was last written to, ns since 1970. One that has other names as well is left as it is: what walfix has
/// written has one.
pub(super) fn set_modified(place: &Place, modified: i128) -> io::Result<()> {
    let file = place.open_file()?;
    let metadata = file.metadata()?;
    if input::modified(&metadata) == modified || metadata.nlink() > 1 {
        return Ok(());
    }
    set_modified_of(&file, modified)
}

fn set_modified_of(file: &File, modified: i128) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidData);
    let since = |nanoseconds: i128| -> io::Result<Duration> {
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(out_of_range)?;
        let rest = u32::try_from(nanoseconds % 1_000_000_000).map_err(out_of_range)?;
        Ok(Duration::new(seconds, rest))
    };
    let add = |since| UNIX_EPOCH.checked_add(since);
    let subtract = |since| UNIX_EPOCH.checked_sub(since);
    let time = if modified < 0 { subtract(since(modified.saturating_neg())?) } else { add(since(modified)?) };
    file.set_modified(time.ok_or(io::ErrorKind::InvalidData)?)
}

/// As [`set_modified`], of a directory. One that is only shared with its owner can be written in, but not be given a
/// time (Kubernetes, `fsGroup`); its time is then that of the last change in it.
pub(super) fn set_modified_directory(place: &Place, modified: i128) -> io::Result<()> {
    match place.open_directory().and_then(|directory| set_modified_of(&directory, modified)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// A checksum of all names and bytes below `place`, which is a file or a directory; and how many bytes.
pub(super) fn checksum_tree(place: &Place) -> io::Result<(String, u64)> {
    fn add(place: &Place, name: &str, depth: usize, sum: &mut Checksum, bytes: &mut u64) -> io::Result<()> {
        if place.look()?.is_dir() {
            not_too_deep(depth)?;
            sum.update(format!("directory {name}\n").as_bytes());
            for (below, _) in place.list()? {
                let name = format!("{name}/{}", below.display());
                add(&place.join(&below), &name, depth + 1, sum, bytes)?;
            }
            return Ok(());
        }
        let (checksum, length) = checksum_spliced(place, &[])?;
        *bytes += length;
        sum.update(format!("file {name} {checksum}\n").as_bytes());
        Ok(())
    }
    let (mut sum, mut bytes) = (Checksum::new(), 0);
    add(place, "", 0, &mut sum, &mut bytes)?;
    Ok((sum.text(), bytes))
}

/// Writes a new file that is to belong to `owner`, who need not be had, and reads it back.
pub(super) fn write_and_verify(
    place: &Place,
    owner: Owner,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<File> {
    let out = io::BufWriter::with_capacity(256 * 1024, place.create_file(owner.at_first())?);
    let mut out = Summing::new(out);
    write(&mut out)?;
    let (mut file, sum) = out.into_file()?;
    owner.give_if_allowed(&file)?;
    file.sync_all()?;
    is_read_back(&mut file, &sum)?;
    Ok(file)
}

/// Whether a file holds what was written to it.
pub(super) fn is_read_back(file: &mut File, written: &(String, u64)) -> io::Result<()> {
    if checksum_of(file, &[])? == *written {
        return Ok(());
    }
    Err(io::Error::other("what was written is not what is read back"))
}

/// Makes a new directory that belongs to `owner`, who need not be had.
pub(super) fn create_directory(place: &Place, owner: Owner) -> io::Result<File> {
    let made = place.create_directory(owner.at_first())?;
    owner.give_if_allowed(&made)?;
    Ok(made)
}

/// Makes the names in a directory safe.
pub(super) fn sync_directory(place: &Place) -> io::Result<()> {
    place.open_directory()?.sync_all()
}

/// Makes all names below a directory safe.
pub(super) fn sync_tree(place: &Place) -> io::Result<()> {
    fn sync(place: &Place, depth: usize) -> io::Result<()> {
        not_too_deep(depth)?;
        for (name, kind) in place.list()? {
            if kind == Kind::Directory {
                sync(&place.join(name), depth + 1)?;
            }
        }
        sync_directory(place)
    }
    sync(place, 0)
}

/// Makes a directory, and those above it, which belong to `owner`, and their names safe.
pub(super) fn create_directories(place: &Place, owner: Owner) -> io::Result<()> {
    if place.below() == Path::new("") || place.is_directory() {
        return Ok(());
    }
    create_directories(&place.parent(), owner)?;
    create_directory(place, owner)?;
    sync_directory(&place.parent())
}

/// Copies a file or directory, with owners, modes and times, to where there is nothing; and reads it back.
pub(super) fn copy_tree(from: &Place, to: &Place) -> io::Result<()> {
    fn copy(from: &Place, to: &Place, depth: usize) -> io::Result<()> {
        let found = from.look()?;
        if found.is_dir() {
            not_too_deep(depth)?;
            let metadata = from.open_directory()?.metadata()?;
            let owner = Owner::of(&metadata);
            // Files can be made in it until it is done.
            let directory = to.create_directory(0o700)?;
            for (name, _) in from.list()? {
                copy(&from.join(&name), &to.join(&name), depth + 1)?;
            }
            owner.give_if_allowed(&directory)?;
            directory.set_modified(metadata.modified()?)?;
            return directory.sync_all();
        }
        copy_file(from, to, |owner| owner).map(drop)
    }
    copy(from, to, 0)
}

/// Copies a file as [`copy_tree`] does, for another owner.
pub(super) fn copy_file(from: &Place, to: &Place, owner: impl FnOnce(Owner) -> Owner) -> io::Result<File> {
    let mut source = from.open_file()?;
    let metadata = source.metadata()?;
    let owner = owner(Owner::of(&metadata));
    let file = write_and_verify(to, owner, |out| {
        // An endless file has a length, too: what comes after it is not of the file that was looked at.
        io::copy(&mut (&mut source).take(metadata.len()), out).map(drop)
    })?;
    file.set_modified(metadata.modified()?)?;
    file.sync_all()?;
    Ok(file)
}

/// Copies a file or directory as [`copy_tree`] does; by its name there is all of it, or nothing.
pub(super) fn copy_whole(from: &Place, to: &Place) -> io::Result<()> {
    let staged = staged(to);
    staged.remove_any()?;
    copy_tree(from, &staged)?;
    rename_new(&staged, to)
}

/// Writes, and sums up what is written.
pub(super) struct Summing<W> {
    out: W,
    checksum: Checksum,
    bytes: u64,
}

impl<W> Summing<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, checksum: Checksum::new(), bytes: 0 }
    }

    /// The checksum of what was written, and how many bytes.
    pub(super) fn finish(&self) -> (String, u64) {
        (self.checksum.text(), self.bytes)
    }
}

impl Summing<io::BufWriter<File>> {
    /// The file, to which all is written, and what it holds.
    pub(super) fn into_file(self) -> io::Result<(File, (String, u64))> {
        let sum = self.finish();
        Ok((self.out.into_inner().map_err(io::IntoInnerError::into_error)?, sum))
    }
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
