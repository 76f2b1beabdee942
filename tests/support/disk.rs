//! A disk whose power is cut: from the calls of a program, the states in which it may be left.
//!
//! The model grants what POSIX does, and no more: what has been synced is there; of the rest any part may be. Names in a
//! directory are kept in order (what was done to them first is on the disk first), bytes of files in any order, by whole
//! calls or torn at sectors of 512 bytes, and with zeros where a file has grown and its bytes have not come. A rename
//! from one directory to another is one transaction, as in every file system with a journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::strace::Call;

const SECTOR: usize = 512;

type Node = usize;

#[derive(Clone, Debug)]
enum Op {
    Add(String, Node),
    Remove(String),
    Rename(String, String),
    /// Renamed from another directory: by this name, in a transaction of this number.
    Arrive(String, Node, usize),
    /// Renamed to another directory.
    Leave(String, usize),
}

#[derive(Clone, Debug)]
enum Data {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug)]
enum Inode {
    Directory { synced: BTreeMap<String, Node>, pending: Vec<Op> },
    File { synced: Vec<u8>, pending: Vec<Data> },
}

/// A disk with one directory on it.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    /// Descriptors: what is open, and the position in it.
    open: BTreeMap<i64, (Node, usize)>,
    /// By what paths descriptors were opened.
    held: BTreeMap<i64, Vec<u8>>,
    /// Where what was renamed from one directory to another arrived, by transaction; those that are synced no more.
    moves: BTreeMap<usize, Node>,
    moved: usize,
}

/// Names and bytes of all that is on a disk; `None` for directories.
pub type State = BTreeMap<String, Option<Vec<u8>>>;

fn apply(entries: &mut BTreeMap<String, Node>, op: &Op) {
    match op {
        Op::Add(name, node) | Op::Arrive(name, node, _) => {
            entries.insert(name.clone(), *node);
        }
        Op::Remove(name) | Op::Leave(name, _) => {
            entries.remove(name);
        }
        Op::Rename(from, to) => {
            if let Some(node) = entries.remove(from) {
                entries.insert(to.clone(), node);
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, data: &Data) {
    match data {
        Data::Write(at, new) => {
            let end = at + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at..end].copy_from_slice(new);
        }
        Data::Length(length) => bytes.resize(*length, 0),
    }
}

impl Disk {
    /// With what is below `root`, all of it synced.
    pub fn of(root: &Path) -> Self {
        let root = root.canonicalize().unwrap();
        let mut disk = Self {
            root: root.clone(),
            inodes: Vec::new(),
            open: BTreeMap::new(),
            held: BTreeMap::new(),
            moves: BTreeMap::new(),
            moved: 0,
        };
        disk.load(&root);
        disk
    }

    fn load(&mut self, path: &Path) -> Node {
        let node = self.inodes.len();
        if path.is_file() {
            self.inodes.push(Inode::File { synced: fs::read(path).unwrap(), pending: Vec::new() });
            return node;
        }
        self.inodes.push(Inode::Directory { synced: BTreeMap::new(), pending: Vec::new() });
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let below = self.load(&entry.path());
            let Inode::Directory { synced, .. } = &mut self.inodes[node] else { unreachable!() };
            synced.insert(entry.file_name().into_string().unwrap(), below);
        }
        node
    }

    fn now(&self, node: Node) -> BTreeMap<String, Node> {
        let Inode::Directory { synced, pending } = &self.inodes[node] else { return BTreeMap::new() };
        let mut entries = synced.clone();
        for op in pending {
            apply(&mut entries, op);
        }
        entries
    }

    /// The directory in which a path is, and its name there; `None` for paths elsewhere. The root has no name.
    fn place(&self, path: &[u8]) -> Option<(Node, String)> {
        let path = PathBuf::from(String::from_utf8(path.to_vec()).ok()?);
        let below = path.strip_prefix(&self.root).ok()?;
        let names: Vec<&str> = below
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str().unwrap(),
                _ => panic!("{}", path.display()),
            })
            .collect();
        let Some((last, above)) = names.split_last() else { return Some((0, String::new())) };
        let mut node = 0;
        for name in above {
            node = *self.now(node).get(*name)?;
        }
        Some((node, (*last).to_owned()))
    }

    fn find(&self, path: &[u8]) -> Option<Node> {
        let (directory, name) = self.place(path)?;
        if name.is_empty() { Some(0) } else { self.now(directory).get(&name).copied() }
    }

    fn change(&mut self, directory: Node, op: Op) {
        let Inode::Directory { pending, .. } = &mut self.inodes[directory] else { panic!("no directory") };
        pending.push(op);
    }

    /// A directory is synced: what left it has arrived.
    fn sync_moves(&mut self, directory: Node) {
        let Inode::Directory { pending, .. } = &self.inodes[directory] else { return };
        let ids: Vec<usize> = pending
            .iter()
            .filter_map(|op| match op {
                Op::Leave(_, id) | Op::Arrive(_, _, id) => Some(*id),
                _ => None,
            })
            .collect();
        for id in ids {
            let Some(to) = self.moves.remove(&id).filter(|&to| to != directory) else { continue };
            let Inode::Directory { synced, pending } = &mut self.inodes[to] else { continue };
            pending.drain(..).for_each(|op| apply(synced, &op));
        }
    }

    /// Whether a transaction is on the disk.
    fn has_arrived(&self, id: usize, choice: &BTreeMap<Node, usize>) -> bool {
        let Some(to) = self.moves.get(&id) else { return true };
        let Inode::Directory { pending, .. } = &self.inodes[*to] else { return true };
        let done = choice.get(to).copied().unwrap_or(0);
        pending[..done].iter().any(|op| matches!(op, Op::Arrive(_, _, other) if *other == id))
    }

    fn put(&mut self, node: Node, data: Data) {
        let Inode::File { pending, .. } = &mut self.inodes[node] else { panic!("no file") };
        pending.push(data);
    }

    fn length(&self, node: Node) -> usize {
        let Inode::File { synced, pending } = &self.inodes[node] else { return 0 };
        let mut length = synced.len();
        for data in pending {
            length = match data {
                Data::Write(at, bytes) => length.max(at + bytes.len()),
                Data::Length(length) => *length,
            };
        }
        length
    }

    fn make(&mut self, path: &[u8], inode: Inode) {
        let Some((directory, name)) = self.place(path) else { return };
        let node = self.inodes.len();
        self.inodes.push(inode);
        self.change(directory, Op::Add(name, node));
    }

    /// The strings of a call; those of the calls that take a directory as well, as paths without it.
    fn paths_of(&self, call: &Call) -> Vec<Vec<u8>> {
        let mut strings = call.strings();
        if !call.name.contains("at") || call.name == "utimensat" || call.name == "fdatasync" {
            return strings;
        }
        // Of a directory and a name, one behind the other.
        let outside: String = call.arguments.split('"').step_by(2).collect();
        let directories = outside.split(", ").step_by(2);
        for (path, directory) in strings.iter_mut().zip(directories) {
            if !path.starts_with(b"/")
                && let Some(above) = directory.parse().ok().and_then(|number| self.held.get(&number))
            {
                let name = if path == b"." { &[][..] } else { &path[..] };
                *path = [above.strip_suffix(b"/").unwrap_or(above), b"/", name].concat();
            }
        }
        strings
    }

    /// Does what a call did.
    pub fn play(&mut self, call: &Call) {
        let Some(result) = call.result.filter(|&result| result >= 0) else { return };
        let strings = self.paths_of(call);
        match call.name.as_str() {
            "openat" | "openat2" | "open" => {
                self.held.insert(result, strings[0].clone());
                let is_new = self.find(&strings[0]).is_none();
                if call.arguments.contains("O_CREAT") && is_new {
                    self.make(&strings[0], Inode::File { synced: Vec::new(), pending: Vec::new() });
                }
                self.open.remove(&result);
                if let Some(node) = self.find(&strings[0]) {
                    if call.arguments.contains("O_TRUNC") && self.length(node) > 0 {
                        self.put(node, Data::Length(0));
                    }
                    self.open.insert(result, (node, 0));
                }
            }
            "write" => {
                let number = i64::try_from(call.number(0)).unwrap();
                let Some((node, at)) = self.open.get(&number).copied() else { return };
                let bytes = &strings[0][..usize::try_from(result).unwrap()];
                self.open.insert(number, (node, at + bytes.len()));
                self.put(node, Data::Write(at, bytes.to_vec()));
            }
            "pwrite64" => {
                let number = i64::try_from(call.number(0)).unwrap();
                let Some((node, _)) = self.open.get(&number).copied() else { return };
                let at = usize::try_from(call.number(3)).unwrap();
                self.put(node, Data::Write(at, strings[0].clone()));
            }
            "ftruncate" => {
                let number = i64::try_from(call.number(0)).unwrap();
                let Some((node, _)) = self.open.get(&number).copied() else { return };
                self.put(node, Data::Length(usize::try_from(call.number(1)).unwrap()));
            }
            "fsync" | "fdatasync" => {
                let number = i64::try_from(call.number(0)).unwrap();
                let Some((node, _)) = self.open.get(&number).copied() else { return };
                self.sync_moves(node);
                match &mut self.inodes[node] {
                    Inode::Directory { synced, pending } => {
                        pending.drain(..).for_each(|op| apply(synced, &op));
                    }
                    Inode::File { synced, pending } => {
                        pending.drain(..).for_each(|data| write(synced, &data));
                    }
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = (self.place(&strings[0]), self.place(&strings[1]));
                let (Some((from, old)), Some((to, new))) = (from, to) else { panic!("{call:?}") };
                if from == to {
                    self.change(from, Op::Rename(old, new));
                } else {
                    let node = self.now(from)[&old];
                    self.moved += 1;
                    self.moves.insert(self.moved, to);
                    self.change(to, Op::Arrive(new, node, self.moved));
                    self.change(from, Op::Leave(old, self.moved));
                }
            }
            "link" | "linkat" => {
                let node = self.find(&strings[0]).expect("it is there");
                let (directory, name) = self.place(&strings[1]).expect("it is here");
                self.change(directory, Op::Add(name, node));
            }
            "unlink" | "unlinkat" | "rmdir" => {
                if let Some((directory, name)) = self.place(&strings[0]) {
                    self.change(directory, Op::Remove(name));
                }
            }
            "mkdir" | "mkdirat" => {
                let inode = Inode::Directory { synced: BTreeMap::new(), pending: Vec::new() };
                self.make(&strings[0], inode);
            }
            "fchmod" | "chmod" | "fchown" | "utimensat" => {}
            other => panic!("the model does not know {other}: {call:?}"),
        }
    }

    /// The states in which a power cut may leave the disk now, at most about `most`. `chosen` gives numbers below a bound.
    pub fn states(&self, most: usize, chosen: &mut dyn FnMut(usize) -> usize) -> Vec<State> {
        // For each inode with something that is not synced: how many variants of it there are.
        let unsynced: Vec<(Node, usize)> = (0..self.inodes.len())
            .filter_map(|node| match &self.inodes[node] {
                Inode::Directory { pending, .. } if !pending.is_empty() => Some((node, pending.len() + 1)),
                Inode::File { pending, .. } if !pending.is_empty() => Some((node, variants(pending).len())),
                _ => None,
            })
            .collect();
        let all: usize = unsynced.iter().map(|(_, count)| count).fold(1, |a, &b| a.saturating_mul(b));
        let mut choices: BTreeSet<Vec<usize>> = BTreeSet::new();
        if all <= most {
            for mut number in 0..all {
                let mut choice = Vec::new();
                for (_, count) in &unsynced {
                    choice.push(number % count);
                    number /= count;
                }
                choices.insert(choice);
            }
        } else {
            // Each by itself, with nothing and with all of the others; then at random.
            let last: Vec<usize> = unsynced.iter().map(|(_, count)| count - 1).collect();
            for others in [vec![0; last.len()], last] {
                for (at, (_, count)) in unsynced.iter().enumerate() {
                    for variant in 0..*count {
                        let mut choice = others.clone();
                        choice[at] = variant;
                        choices.insert(choice);
                    }
                }
            }
            while choices.len() < most {
                choices.insert(unsynced.iter().map(|(_, count)| chosen(*count)).collect());
            }
        }
        let states = choices.into_iter().map(|choice| {
            let choice = unsynced.iter().map(|(node, _)| *node).zip(choice).collect();
            let mut state = State::new();
            self.collect(0, String::new(), &choice, &mut state);
            state
        });
        states.collect()
    }

    fn collect(&self, node: Node, path: String, choice: &BTreeMap<Node, usize>, state: &mut State) {
        match &self.inodes[node] {
            Inode::File { synced, pending } => {
                let mut bytes = synced.clone();
                let variant = choice.get(&node).map(|&at| variants(pending)[at].clone());
                variant.unwrap_or_default().iter().for_each(|data| write(&mut bytes, data));
                state.insert(path, Some(bytes));
            }
            Inode::Directory { synced, pending } => {
                let mut entries = synced.clone();
                let done = choice.get(&node).copied().unwrap_or(0);
                for (at, op) in pending.iter().enumerate() {
                    let is_done = match op {
                        Op::Leave(_, id) => self.has_arrived(*id, choice),
                        _ => at < done,
                    };
                    if is_done {
                        apply(&mut entries, op);
                    }
                }
                for (name, below) in entries {
                    let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                    self.collect(below, path, choice, state);
                }
                if !path.is_empty() {
                    state.insert(path, None);
                }
            }
        }
    }
}

/// What may be on the disk of writes that have not been synced; the first is nothing, the last all.
fn variants(pending: &[Data]) -> Vec<Vec<Data>> {
    let mut variants: Vec<Vec<Data>> = Vec::new();
    if pending.len() <= 4 {
        for subset in 0..1_usize << pending.len() {
            let is_in = |at: usize| subset >> at & 1 == 1;
            variants.push(
                pending.iter().enumerate().filter(|(at, _)| is_in(*at)).map(|(_, d)| d.clone()).collect(),
            );
        }
    } else {
        variants.extend((0..pending.len()).map(|count| pending[..count].to_vec()));
        for lost in 0..pending.len() {
            let mut all = pending.to_vec();
            all.remove(lost);
            variants.push(all);
        }
    }
    for (at, data) in pending.iter().enumerate() {
        let Data::Write(offset, bytes) = data else { continue };
        let with = |parts: Vec<Data>| {
            let mut all = pending.to_vec();
            all.splice(at..=at, parts);
            all
        };
        // Its bytes never came, its length did.
        variants.push(with(vec![Data::Write(*offset, vec![0; bytes.len()])]).clone());
        let sectors = sectors(*offset, bytes);
        if sectors.len() < 2 {
            continue;
        }
        let half = sectors.len() / 2;
        let picks: [&dyn Fn(usize) -> bool; 5] =
            [&|n| n < half, &|n| n >= half, &|n| n == 0, &|n| n != 0, &|n| n % 2 == 0];
        for pick in picks {
            let parts = sectors.iter().enumerate().filter(|(n, _)| pick(*n)).map(|(_, part)| part.clone());
            variants.push(with(parts.collect()));
        }
    }
    variants.push(pending.to_vec());
    variants
}

fn sectors(offset: usize, bytes: &[u8]) -> Vec<Data> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + SECTOR - (offset + at) % SECTOR).min(bytes.len());
        parts.push(Data::Write(offset + at, bytes[at..end].to_vec()));
        at = end;
    }
    parts
}

/// Puts a state in the place of a directory `data`. Files that are as they were in `before` keep their times.
pub fn write_state(state: &State, before: &Path, data: &Path) {
    let is_before = |path: &str| match (state.get(path), before.join(path)) {
        (Some(Some(bytes)), old) => fs::read(old).is_ok_and(|old| old == *bytes),
        (Some(None), old) => old.is_dir(),
        (None, _) => false,
    };
    for (path, bytes) in state {
        let full = data.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        match bytes {
            None => fs::create_dir_all(&full).unwrap(),
            Some(bytes) => fs::write(&full, bytes).unwrap(),
        }
    }
    for path in state.keys().rev().filter(|path| is_before(path)) {
        let modified = before.join(path).metadata().unwrap().modified().unwrap();
        fs::File::open(data.join(path)).unwrap().set_modified(modified).unwrap();
    }
    let modified = before.metadata().unwrap().modified().unwrap();
    fs::File::open(data).unwrap().set_modified(modified).unwrap();
}
