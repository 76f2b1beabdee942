//! Opens a block as Prometheus does, with the same checks in the same order (`OpenBlock`, `tsdb/block.go`), and says with what error it
//! fails.

use std::fs;
use std::io;
use std::path::Path;

use crate::block::{BlockTombstone, Index, TombstonesError, header_error, parse_tombstones};
use crate::io::mapped::{Mapped, UnreadablePages};
use crate::tsdb::BlockMeta;

/// The most bytes that an index has (`Writer.write`, `tsdb/index/index.go`).
pub(crate) const LONGEST_INDEX: u64 = 64 << 30;

/// More than a file of chunks has: 512 MiB (`DefaultChunkSegmentSize`, `tsdb/chunks/chunks.go`), and others are told to write more.
pub(crate) const LONGEST_CHUNKS: u64 = 4 << 30;

/// More than any file of tombstones: those of some ten million series.
pub(crate) const LONGEST_TOMBSTONES: u64 = 1 << 30;

/// The files of a block that Prometheus opens.
#[derive(Debug)]
pub(crate) struct OpenedBlock {
    pub(crate) index: Mapped,
    pub(crate) chunk_files: Vec<ChunkFile>,
    pub(crate) tombstones: Vec<BlockTombstone>,
    /// Of all its files.
    pub(crate) bytes: u64,
}

/// A file of chunks.
#[derive(Debug)]
pub(crate) struct ChunkFile {
    /// Its name.
    pub(crate) name: String,
    pub(crate) mapped: Mapped,
    /// Pages that cannot be read.
    pub(crate) unreadable: Option<UnreadablePages>,
}

/// Why Prometheus does not open a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotOpened {
    /// The file or directory, below the block.
    pub(crate) name: String,
    /// Prometheus's error, without the path of the data directory.
    pub(crate) error: String,
    /// What is not there, or cannot be read, rather than wrong.
    pub(crate) kind: NotOpenedKind,
}

/// What kind of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOpenedKind {
    /// The bytes are wrong.
    Wrong,
    /// The file is not there.
    Missing,
    /// The system does not give the bytes.
    Unreadable,
    /// Prometheus crashes on it.
    Crash,
    /// It is not the file that is wrong: the system refuses to open it, with this error number.
    Refused(i32),
}

impl NotOpened {
    fn wrong(name: impl Into<String>, error: &dyn ToString) -> Self {
        Self { name: name.into(), error: error.to_string(), kind: NotOpenedKind::Wrong }
    }

    fn of_io(name: impl Into<String>, doing: &str, error: &io::Error) -> Self {
        let name = name.into();
        let missing = error.kind() == io::ErrorKind::NotFound;
        let words = if missing { "no such file or directory".to_owned() } else { error.to_string() };
        let refused = error.raw_os_error().filter(|_| crate::io::is_refusal(error));
        let kind = match refused {
            Some(number) => NotOpenedKind::Refused(number),
            None if missing => NotOpenedKind::Missing,
            None => NotOpenedKind::Unreadable,
        };
        Self { error: format!("{doing}open {name}: {words}"), name, kind }
    }

    fn of_pages(name: impl Into<String>, pages: &UnreadablePages) -> Self {
        Self { name: name.into(), error: pages.error.clone(), kind: NotOpenedKind::Unreadable }
    }
}

impl OpenedBlock {
    /// Opens the block at `path`. `reads_chunks`: files of chunks are proved to be readable, not only their headers.
    pub(crate) fn open(
        path: &Path,
        reads_chunks: bool,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Self, NotOpened> {
        let mut chunk_files = chunk_files(&path.join("chunks"))?;
        let mut index = open_mapped(&path.join("index"), "index", "try lock file: ", LONGEST_INDEX)?;
        // Prometheus maps it, and dies of a page that cannot be read.
        index.prove(advance).map_err(|pages| NotOpened::of_pages("index", &pages))?;
        Index::open(index.bytes()).map_err(|error| NotOpened::wrong("index", &error))?;
        let (tombstones, size) = tombstones(&path.join("tombstones"))?;
        let mut bytes = index.bytes().len() as u64 + size;
        for file in &mut chunk_files {
            bytes += file.mapped.bytes().len() as u64;
            if reads_chunks {
                file.unreadable = file.mapped.prove(advance).err();
            }
        }
        Ok(Self { index, chunk_files, tombstones, bytes })
    }
}

/// `NewDirReader` (`tsdb/chunks/chunks.go`): every file whose name is a number has a header.
fn chunk_files(directory: &Path) -> Result<Vec<ChunkFile>, NotOpened> {
    let names = chunk_file_names(directory).map_err(|error| NotOpened::of_io("chunks", "", &error))?;
    let mut files = Vec::new();
    for name in names {
        let below = format!("chunks/{name}");
        let mut mapped = open_mapped(&directory.join(&name), &below, "mmap files: ", LONGEST_CHUNKS)?;
        mapped.close();
        files.push(ChunkFile { name, mapped, unreadable: None });
    }
    for (rank, file) in (0..).zip(&files) {
        let below = || format!("chunks/{}", file.name);
        let mut header = Vec::new();
        // Not by its map: nothing has been proved yet.
        let read = crate::io::open(&directory.join(&file.name))
            .and_then(|opened| io::Read::read_to_end(&mut io::Read::take(opened, 8), &mut header));
        read.map_err(|error| NotOpened::of_io(below(), "mmap files: ", &error))?;
        if let Some(error) = header_error(&header, rank) {
            return Err(NotOpened::wrong(below(), &error));
        }
    }
    Ok(files)
}

/// The names that are numbers, in the order of names (`sequenceFiles`).
pub(crate) fn chunk_file_names(directory: &Path) -> io::Result<Vec<String>> {
    let is_number = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<u64>().is_ok()
    };
    let mut names: Vec<String> = fs::read_dir(directory)?
        .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .filter(is_number)
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn open_mapped(path: &Path, name: &str, doing: &str, longest: u64) -> Result<Mapped, NotOpened> {
    let mapped = Mapped::open(path, longest).map_err(|error| NotOpened::of_io(name, doing, &error))?;
    if mapped.bytes().is_empty() {
        let doing = if name == "index" { "" } else { doing };
        return Err(NotOpened::wrong(name, &format!("{doing}mmap, size 0: invalid argument")));
    }
    Ok(mapped)
}

/// `ReadTombstones` (`tsdb/tombstones/tombstones.go`); a block needs none. With the size of the file.
fn tombstones(path: &Path) -> Result<(Vec<BlockTombstone>, u64), NotOpened> {
    let bytes = match crate::io::read(path, LONGEST_TOMBSTONES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(NotOpened::of_io("tombstones", "", &error)),
        Ok(bytes) => bytes,
    };
    let found = parse_tombstones(&bytes).map_err(|error| NotOpened {
        kind: if error == TombstonesError::Panics { NotOpenedKind::Crash } else { NotOpenedKind::Wrong },
        ..NotOpened::wrong("tombstones", &error)
    })?;
    Ok((found, bytes.len() as u64))
}

/// What the files of chunks lack by their names: they are numbered from 1 on, and the index names them by their places.
pub(crate) fn missing_chunk_file(files: &[ChunkFile], meta: &BlockMeta) -> Option<u64> {
    let numbers = files.iter().filter_map(|file| file.name.parse::<u64>().ok());
    let missing = (1..).zip(numbers).find(|(wanted, number)| wanted != number).map(|(wanted, _)| wanted);
    missing.or_else(|| (files.is_empty() && meta.samples > 0).then_some(1))
}
