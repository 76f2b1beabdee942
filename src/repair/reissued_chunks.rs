//! Head chunks of which the ref means another series by now.
//!
//! Prometheus knows to whom a head chunk belongs by its ref alone (`loadMmappedChunks`, `tsdb/head.go`). A chunk whose encoding it
//! does not know it skips, from 2.39 on; so that byte is changed, and the checksum with it, and no chunk moves: markers in the WBL
//! name them by their place.

use std::collections::HashSet;
use std::io;

use super::chunks::{CHUNKS_HEAD, UNKNOWN, neutral, start_of};
use super::generations::Generations;
use super::segment::{RecordSink, SegmentRules, open, read_repaired};
use crate::change::plan::{Change, Loss, Method, PlanStep, Resolution};
use crate::record::Record;
use crate::tsdb::{HeadChunk, Target, list_head_chunks};
/// The steps after which no chunk is taken for one of another series.
pub(super) fn steps(target: &Target, generations: &Generations) -> io::Result<Vec<PlanStep>> {
    let own = marked(target, generations)?;
    let directory = target.path().join(CHUNKS_HEAD);
    let files = list_head_chunks(&directory, CHUNKS_HEAD)?.files;
    let certain = last_of_the_first(&files, generations);
    let is_strange = |chunk: &HeadChunk| {
        if !generations.defined.is_empty() {
            // What it has of its own in order is in its WAL as well.
            return generations.defined.contains(&chunk.series_ref)
                && !(chunk.out_of_order && own.contains(&(chunk.series_ref, chunk.chunk_ref)));
        }
        generations.read.is_some_and(|read| chunk.series_ref > read) && Some(chunk.chunk_ref) > certain
    };
    let mut steps = Vec::new();
    for file in &files {
        let Ok(chunks) = file.chunks() else { continue };
        let (mut patches, mut count, mut lost) = (Vec::new(), 0_u64, 0_u64);
        let source = crate::io::open(&file.path)?;
        for chunk in chunks.flatten().filter(|chunk| is_strange(chunk) && chunk.encoding != UNKNOWN) {
            patches.extend(neutral(&source, start_of(&chunk), chunk.end)?);
            count += 1;
            if generations.times.1.is_none_or(|restarted| chunk.max_time < restarted) {
                lost += u64::from(chunk.samples);
            }
        }
        if patches.is_empty() {
            continue;
        }
        let resolution = Resolution::ReissuedHeadChunksSkipped { chunks: count };
        let change =
            Change::Patch { path: format!("{CHUNKS_HEAD}/{}", file.name), method: Method::Replace, patches };
        let lost = Loss::new(Some(0), Some(lost));
        steps.push(PlanStep { change, repairs: vec![generations.repaired(resolution)], lost });
    }
    Ok(steps)
}

/// Chunks that markers name, by ref and place.
#[derive(Default)]
struct Marked(HashSet<(u64, u64)>);

impl RecordSink for Marked {
    fn record(&mut self, record: &[u8]) {
        if let Record::MmapMarkers(markers) = Record::parse(record) {
            self.0.extend(markers.entries().flatten().map(|marker| (marker.series_ref, marker.mmap_ref)));
        }
    }
}

/// Chunks of samples out of order that the newest generation has written: its WBL says so.
fn marked(target: &Target, generations: &Generations) -> io::Result<HashSet<(u64, u64)>> {
    let mut all = HashSet::new();
    for path in &generations.own_wbl {
        let (file, length) = match open(&target.path_of(path)) {
            Err(error) if crate::io::is_no_file(&error) => continue,
            opened => opened?,
        };
        all.extend(read_repaired(&file, length, SegmentRules::default(), Marked::default).0);
    }
    Ok(all)
}

/// The place of the last chunk that is certainly of the generation that the checkpoint is of: it ends before that does. What
/// is before it was written before it.
fn last_of_the_first(files: &[crate::tsdb::HeadChunkFile], generations: &Generations) -> Option<u64> {
    let (Some(read), Some(newest)) = (generations.read, generations.times.0) else { return None };
    let mut last = None;
    for chunks in files.iter().filter_map(|file| file.chunks().ok()) {
        let certain = chunks
            .flatten()
            .filter(|chunk| !chunk.out_of_order && chunk.series_ref > read && chunk.max_time <= newest);
        last = last.max(certain.map(|chunk| chunk.chunk_ref).last());
    }
    last
}
