//! What a directory tree is: names, bytes, modes, owners and times; and copies that keep all of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes of a file.
    pub bytes: Option<Vec<u8>>,
    pub mode: u32,
    pub owner: (u32, u32),
    /// ns since 1970.
    pub modified: i128,
}

/// All that is below a directory, and itself (by the empty path), without what `walfix-backup-*` names at its top.
pub type Tree = BTreeMap<String, Entry>;

pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    add(root, String::new(), &mut tree);
    tree
}

fn add(path: &Path, name: String, tree: &mut Tree) {
    let metadata = path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let bytes = metadata.is_file().then(|| fs::read(path).unwrap());
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let below = entry.unwrap().file_name().into_string().unwrap();
            if name.is_empty() && below.starts_with("walfix-backup-") {
                continue;
            }
            let full = path.join(&below);
            add(&full, if name.is_empty() { below } else { format!("{name}/{below}") }, tree);
        }
    }
    let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    tree.insert(
        name,
        Entry { bytes, mode: metadata.mode(), owner: (metadata.uid(), metadata.gid()), modified },
    );
}

/// Names and bytes alone.
pub fn contents(tree: &Tree) -> BTreeMap<&str, Option<&[u8]>> {
    tree.iter().map(|(path, entry)| (path.as_str(), entry.bytes.as_deref())).collect()
}

/// Of names and bytes.
pub fn hash(tree: &Tree) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents(tree).hash(&mut hasher);
    hasher.finish()
}

/// What differs, in words; `None` if nothing does.
pub fn difference(before: &Tree, after: &Tree) -> Option<String> {
    let mut words = Vec::new();
    for path in before.keys().chain(after.keys().filter(|path| !before.contains_key(*path))) {
        match (before.get(path), after.get(path)) {
            (Some(_), None) => words.push(format!("{path:?} is gone")),
            (None, Some(_)) => words.push(format!("{path:?} is new")),
            (Some(a), Some(b)) if a.bytes != b.bytes => words.push(format!("{path:?} has other bytes")),
            (Some(a), Some(b)) if a != b => words.push(format!(
                "{path:?}: mode {:o}, owner {:?}, time {} became {:o}, {:?}, {}",
                a.mode, a.owner, a.modified, b.mode, b.owner, b.modified
            )),
            _ => {}
        }
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// A copy with modes, owners and times.
pub fn copy(from: &Path, to: &Path) {
    let metadata = from.symlink_metadata().unwrap();
    if metadata.is_dir() {
        fs::create_dir(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
    chown(to, Some(metadata.uid()), Some(metadata.gid())).unwrap();
    fs::set_permissions(to, metadata.permissions()).unwrap();
    File::open(to).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
}
