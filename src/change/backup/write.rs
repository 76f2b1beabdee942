//! Writes a backup.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::layout::{CHECKSUMS, MANIFEST, OLD, PLAN, README, checksum_line, json};
use super::manifest::{ChangedFile, DirectoryTime, FileState, Manifest, SCHEMA, SetAside};
use super::open::{Backup, splice};
use super::place::{discard, in_the_making};
use super::readme;
use crate::change::data::Data;
use crate::change::error::{At as _, RepairError};
use crate::change::files::{
    self, Owner, Splice, checksum_spliced, checksum_tree, copy_file, create_directories, create_directory,
    each_piece, sync_tree, write_and_verify,
};
use crate::change::input;
use crate::change::plan::{Change, Plan};
use crate::io::beneath::Place;

impl Backup {
    /// Writes the backup of what `plan` changes in `data` to `place`, which must not exist and has the absolute `path`. It
    /// gets its name when it is complete and has been read back. `directories` are those of the plan as they were. `go_on`
    /// is asked before each file. Only the owner of the data may look into the backup.
    pub(in crate::change) fn write(
        path: &Path,
        place: &Place,
        data: &Data,
        plan: &Plan,
        directories: Vec<DirectoryTime>,
        go_on: &dyn Fn() -> Result<(), RepairError>,
    ) -> Result<Self, RepairError> {
        let unfinished = in_the_making(place);
        let owner = data.owner().at("look at", data.path())?;
        create_directory(&unfinished, owner.with_mode(0o700)).at("create", &unfinished)?;
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            data: data.place().full(),
            backup: path.to_owned(),
            files: Vec::new(),
            aside: Vec::new(),
            directories,
        };
        let written = Self::fill(&unfinished, data, plan, manifest, owner, go_on)
            .and_then(|()| unfinished.rename_to_new(place).at("create", path));
        if let Err(error) = written {
            // It was made here. What cannot be removed now, the next repair removes.
            let _ = unfinished.remove_any();
            return Err(error);
        }
        let opened = files::sync_directory(&place.parent()).at("create", path);
        opened.and_then(|()| Self::open_at(place)).inspect_err(|_| discard(place))
    }

    /// Writes all that is in a backup.
    fn fill(
        unfinished: &Place,
        data: &Data,
        plan: &Plan,
        mut manifest: Manifest,
        owner: Owner,
        go_on: &dyn Fn() -> Result<(), RepairError>,
    ) -> Result<(), RepairError> {
        let describe = |name: &str, bytes: &[u8]| {
            let file = unfinished.join(name);
            write_and_verify(&file, owner.with_mode(0o600), |out| out.write_all(bytes))
                .map(drop)
                .at("write", &file)
        };
        // First of all, so that it is known whose it is if nothing more comes of it.
        let text = readme::text(plan, &manifest.data).into_bytes();
        describe(README, &text)?;
        for step in &plan.steps {
            go_on()?;
            let below = step.change.path();
            let full = data.join(below);
            match &step.change {
                Change::Patch { .. } | Change::Rewrite { .. } | Change::RewriteIndex { .. } => {
                    let changed = save(unfinished, data.place(), &step.change, owner)
                        .at("save the old bytes of", &full)?;
                    manifest.files.push(changed);
                }
                Change::SetAside { .. } => {
                    let (checksum, _) = checksum_tree(&full).at("read", &full)?;
                    manifest.aside.push(SetAside { path: below.to_owned(), checksum });
                }
                Change::Create { .. } | Change::CreateDirectory { .. } | Change::Rename { .. } => {}
            }
        }
        let described = [(MANIFEST, json(&manifest)), (PLAN, json(plan))];
        let mut checksums = checksum_line(README, &text);
        for (name, bytes) in described {
            let bytes = bytes.at("write", &unfinished.join(name))?;
            describe(name, &bytes)?;
            checksums += &checksum_line(name, &bytes);
        }
        describe(CHECKSUMS, checksums.as_bytes())?;
        sync_tree(unfinished).at("write", unfinished)
    }
}

/// Saves the old bytes of a file, and says what it is before and after.
fn save(backup: &Place, data: &Place, change: &Change, owner: Owner) -> io::Result<ChangedFile> {
    let path = change.path();
    let full = data.join(path);
    let mut file = full.open_file()?;
    let metadata = file.metadata()?;
    let old = format!("{OLD}/{path}");
    let kept = backup.join(&old);
    create_directories(&kept.parent(), owner.with_mode(0o700))?;
    let (before, bytes) = files::checksum_of(&mut file, &[])?;
    let after = if let Change::Patch { patches, .. } = change {
        write_and_verify(&kept, Owner::of(&metadata), |out| {
            for patch in patches {
                each_piece(&file, patch.offset, patch.replaces, |_, piece| out.write_all(piece))?;
            }
            Ok(())
        })?;
        let splices: Vec<Splice> = patches.iter().map(splice).collect();
        files::checksum_of(&mut file, &splices)?
    } else {
        copy_file(&full, &kept, |owner| owner)?;
        let staged = change.staged().ok_or(io::ErrorKind::InvalidInput)?;
        (staged.checksum.clone(), staged.bytes)
    };
    Ok(ChangedFile {
        path: path.to_owned(),
        before: FileState { bytes, checksum: before },
        after: FileState { bytes: after.1, checksum: after.0 },
        modified: input::modified(&metadata),
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        old_checksum: checksum_spliced(&kept, &[])?.0,
        old,
    })
}
