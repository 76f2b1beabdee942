//! The files of chunks of a block, as they will be found once those that are missing are made.

use std::io;
use std::path::Path;

use crate::block::{CHUNK_FILE_HEADER, ChunkFileError, header_error};
use crate::io::mapped::Mapped;
use crate::scan::blocks::opened::{ChunkFile, LONGEST_CHUNKS, chunk_file_names};

/// Missing files that are made at the most.
const MADE: u64 = 1000;

/// The files of a block.
pub(super) struct Files {
    /// In the order of their names. Those that are missing have no bytes.
    pub(super) all: Vec<ChunkFile>,
    /// Names of files that are missing.
    pub(super) missing: Vec<String>,
    /// Files without a header, by their place, and what is wrong.
    pub(super) headers: Vec<(usize, ChunkFileError)>,
    /// Whether the disk fails.
    pub(super) has_bad_pages: bool,
}

impl Files {
    /// Opens those in `directory`. `with_missing`: what the numbers lack is among them, with no bytes.
    pub(super) fn open(directory: &Path, with_missing: bool) -> io::Result<Self> {
        let names = match chunk_file_names(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let missing = if with_missing { missing(&names) } else { Vec::new() };
        let mut files = Vec::new();
        let mut has_bad_pages = false;
        for name in names {
            let mut mapped = Mapped::open(&directory.join(&name), LONGEST_CHUNKS)?;
            let unreadable = mapped.prove(&mut |_| {}).err();
            has_bad_pages |= unreadable.is_some();
            files.push(ChunkFile { name, mapped, unreadable });
        }
        for name in &missing {
            files.push(ChunkFile { name: name.clone(), mapped: Mapped::nothing(), unreadable: None });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let headers = if has_bad_pages {
            Vec::new()
        } else {
            let wrong = |(place, file): (usize, &ChunkFile)| {
                let is_there = !missing.contains(&file.name);
                let error = header_error(file.mapped.bytes(), place as u64).filter(|_| is_there)?;
                Some((place, error))
            };
            files.iter().enumerate().filter_map(wrong).collect()
        };
        Ok(Self { all: files, missing, headers, has_bad_pages })
    }
}

/// The names of files that are missing before others: they are numbered from 1 on, and the index names them by their places
/// (`tsdb/chunks/chunks.go`).
fn missing(names: &[String]) -> Vec<String> {
    let numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let Some(&last) = numbers.iter().max() else { return Vec::new() };
    let is_usual = names.iter().zip(&numbers).all(|(name, &number)| *name == name_of(number));
    if !is_usual || numbers.contains(&0) || last.saturating_sub(numbers.len() as u64) > MADE {
        return Vec::new();
    }
    (1..last).filter(|number| !numbers.contains(number)).map(name_of).collect()
}

fn name_of(number: u64) -> String {
    format!("{number:06}")
}

/// What a file has that is missing: the header, and no chunk.
pub(super) fn empty_file() -> Vec<u8> {
    CHUNK_FILE_HEADER.to_vec()
}
