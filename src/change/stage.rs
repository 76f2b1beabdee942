//! Files that a plan writes as a whole: staged next to their place, and on the disk, before anything is changed.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::data::Data;
use super::error::{At as _, RepairError};
use super::files::{
    Owner, STAGED, Summing, checksum_of, create_staged, is_read_back, is_still, staged as staged_place,
    sync_directory,
};
use super::plan::{Change, Plan, Staged};
use crate::io::beneath::Place;

/// Makes the bytes of files that a plan writes as a whole. It is asked once, before anything is changed; who finishes or
/// undoes a repair has no use for it.
pub(crate) trait NewBytes {
    /// Writes the new bytes of the file that `change` is about to `out`. They come from the first `length` bytes of `source`.
    ///
    /// # Errors
    /// If `source` cannot be read, or `out` not be written.
    fn write(&self, change: &Change, source: &File, length: u64, out: &mut dyn Write) -> io::Result<()>;
}

/// How a file that `change` writes as a whole will be staged, by what `contents` writes for it now.
///
/// # Errors
/// If `source` cannot be read.
pub(crate) fn staged(
    contents: &dyn NewBytes,
    change: &Change,
    source: &File,
    length: u64,
) -> io::Result<Staged> {
    let mut sum = Summing::new(io::sink());
    contents.write(change, source, length, &mut sum)?;
    let (checksum, bytes) = sum.finish();
    Ok(Staged { file: format!("{}{STAGED}", change.path()), bytes, checksum })
}

/// Stages all files that `plan` writes as a whole. They are on the disk then, by the names that the plan has for them.
/// `go_on` is asked before each.
pub(super) fn all(
    data: &Data,
    plan: &Plan,
    backup: &Path,
    contents: &dyn NewBytes,
    go_on: &dyn Fn() -> Result<(), RepairError>,
) -> Result<(), RepairError> {
    for change in plan.steps.iter().map(|step| &step.change) {
        if !change.is_rewrite() {
            continue;
        }
        go_on()?;
        let place = data.join(change.path());
        let known = change.staged().ok_or_else(|| not_staged(plan, change, backup))?;
        let written = stage(data, &place, change, contents).at("write the new bytes of", &place)?;
        if written != (known.checksum.clone(), known.bytes) {
            let what = "its new bytes are not those of the plan".to_owned();
            return Err(RepairError::Changed { path: change.path().to_owned(), what });
        }
        sync_directory(&place.parent()).at("write", &place.parent())?;
    }
    Ok(())
}

/// Writes one, reads it back, and says what it holds.
fn stage(data: &Data, place: &Place, change: &Change, contents: &dyn NewBytes) -> io::Result<(String, u64)> {
    let source = data.join(change.source()).open_file()?;
    let about = source.metadata()?;
    let owner = Owner::of(&place.open_file()?.metadata()?);
    if about.nlink() > 1 && about.uid() != owner.uid {
        let what = "it is a file of somebody else's that has another name (hard link) outside";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    let staged = staged_place(place);
    let written = || {
        let out = create_staged(&staged, owner)?;
        let mut out = Summing::new(io::BufWriter::with_capacity(256 * 1024, out));
        contents.write(change, &source, about.len(), &mut out)?;
        let (mut file, sum) = out.into_file()?;
        owner.give(&file)?;
        file.sync_all()?;
        is_read_back(&mut file, &sum)?;
        Ok(sum)
    };
    written().inspect_err(|_| {
        // The disk may be full because of it.
        let _ = staged.remove_file();
    })
}

/// Whether the file that `change` writes as a whole is staged, with the bytes of the plan.
pub(super) fn is_staged(data: &Place, change: &Change) -> io::Result<bool> {
    let Some(known) = change.staged() else { return Ok(false) };
    match staged_place(&data.join(change.path())).open_file() {
        Ok(mut file) => is(&mut file, known),
        Err(error) if error.kind() == io::ErrorKind::NotFound || crate::io::is_no_file(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the file that `change` writes as a whole its name.
pub(super) fn put(data: &Data, change: &Change) -> io::Result<()> {
    let place = data.join(change.path());
    let staged = staged_place(&place);
    let mut file = staged.open_file()?;
    if !change.staged().map_or(Ok(false), |known| is(&mut file, known))? {
        return Err(io::Error::other("its new bytes, which were staged beside it, have been changed"));
    }
    staged.rename(&place)?;
    is_still(&file, &place)?;
    sync_directory(&place.parent())
}

fn is(file: &mut File, known: &Staged) -> io::Result<bool> {
    // What is longer may be endless.
    if file.metadata()?.len() != known.bytes {
        return Ok(false);
    }
    let (checksum, bytes) = checksum_of(file, &[])?;
    Ok((&checksum, bytes) == (&known.checksum, known.bytes))
}

/// A plan of an earlier version, which made the bytes as it went.
pub(super) fn not_staged(plan: &Plan, change: &Change, backup: &Path) -> RepairError {
    let (walfix, path, backup) = (plan.walfix.clone(), change.path().to_owned(), backup.to_owned());
    RepairError::NotStaged { walfix, path, backup }
}
