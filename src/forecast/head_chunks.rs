//! What a start makes of `chunks_head` (`loadMmappedChunks` and `removeCorruptedMmappedChunks`, `tsdb/head.go`), and what
//! could be had from there.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use super::Version;
use crate::tsdb::{HeadChunk, HeadChunkError, HeadChunkFile, list_head_chunks};

/// The head chunks of a data directory, series by series, and what becomes of their files.
///
/// In memory: some 100 bytes for each series that has chunks, and some 30 for each chunk in a file that is deleted.
#[derive(Clone, Debug, Default)]
pub struct HeadChunks {
    /// With what error every start fails when it opens the files, if it does.
    pub refusal: Option<String>,
    /// A last file without a magic number, which every start removes without a word.
    pub unwritten: Option<String>,
    /// With what error the chunks cannot be loaded, if there is one; the start goes on without them.
    pub error: Option<String>,
    /// The names of the files that are deleted for it.
    pub deletes: Vec<String>,
    /// By the ref of the series.
    pub(super) of_series: HashMap<u64, OfSeries>,
    /// Chunks of a run that is gone, by the ref that another series has by now: those in files that are kept, and the rest.
    pub(super) of_others: HashMap<u64, [Stock; 2]>,
    /// Where these are (`ChunkDiskMapperRef`), in order.
    places_of_others: Vec<u64>,
    /// The last chunk, and the last one in a file that is kept.
    pub(super) last: u64,
    pub(super) last_kept: u64,
}

/// Chunks of one series.
#[derive(Clone, Debug, Default)]
pub(super) struct OfSeries {
    /// In order, in files that are kept.
    pub(super) kept: Stock,
    /// Out of order, in files that are kept.
    pub(super) kept_late: Stock,
    /// In files that are deleted.
    pub(super) deleted: Option<Box<Deleted>>,
    /// When the last one in order begins.
    last_begins: i64,
    /// Times between those of `kept` that are longer than samples of theirs are apart: from the end of one to the beginning of the
    /// next, both excluded.
    pub(super) gaps: Vec<(i64, i64)>,
}

/// Chunks of one series in files that are deleted.
#[derive(Clone, Debug, Default)]
pub(super) struct Deleted {
    /// In order, one by one: there may be damaged ones between them.
    pub(super) in_order: Vec<Stock>,
    /// Out of order.
    pub(super) late: Stock,
}

impl Deleted {
    /// More chunks than that are no series's, and are taken together.
    const MOST: usize = 1024;

    fn add(&mut self, chunk: &HeadChunk) {
        if self.in_order.len() < Self::MOST {
            self.in_order.push(Stock::default());
        }
        if let Some(last) = self.in_order.last_mut() {
            last.add(chunk);
        }
    }
}

impl OfSeries {
    /// Takes in one in order.
    fn keep(&mut self, chunk: &HeadChunk) {
        let before = self.kept.max_time;
        let step = chunk.max_time.saturating_sub(chunk.min_time) / i64::from(chunk.samples.max(2) - 1);
        let apart = chunk.min_time.saturating_sub(before);
        if self.kept.samples > 0 && apart > step.saturating_mul(2) {
            self.gaps.push((before, chunk.min_time));
        }
        self.kept.add(chunk);
    }

    /// First and last time of the last one in order.
    fn last_in_order(&self) -> Option<(i64, i64)> {
        let last = self.deleted.iter().filter_map(|deleted| deleted.in_order.last()).next_back();
        let last = last.unwrap_or(&self.kept).max_time;
        (last != i64::MIN).then_some((self.last_begins, last))
    }
}

/// Samples in chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock {
    pub(super) samples: u64,
    pub(super) min_time: i64,
    pub(super) max_time: i64,
}

impl Default for Stock {
    fn default() -> Self {
        Self { samples: 0, min_time: i64::MAX, max_time: i64::MIN }
    }
}

impl Stock {
    pub(super) fn covers(&self, time: i64) -> bool {
        self.min_time <= time && time <= self.max_time
    }

    pub(super) fn overlaps(&self, first: i64, last: i64) -> bool {
        self.min_time <= last && first <= self.max_time
    }

    fn add(&mut self, chunk: &HeadChunk) {
        self.samples += u64::from(chunk.samples);
        self.min_time = self.min_time.min(chunk.min_time);
        self.max_time = self.max_time.max(chunk.max_time);
    }
}

/// As [`HeadChunks::read`], of a directory in which a running Prometheus may remove files meanwhile.
/// `of_others` are the places of chunks that are of a run that is gone, in order.
pub(super) fn of_now(
    data: &Path,
    min_valid_time: i64,
    version: Version,
    of_others: &[u64],
) -> io::Result<HeadChunks> {
    const TRIES: usize = 10;
    let shown = data.components().as_path().display().to_string();
    let mut tries = 1;
    loop {
        match HeadChunks::read_but(data, &shown, min_valid_time, version, of_others) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            read => return read,
        }
    }
}

/// From which file on files are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Nowhere,
    File(i64),
    All,
}

impl HeadChunks {
    /// Reads the headers of all chunks below `data`, a directory that Prometheus calls `shown`; of `min_valid_time` see
    /// [`super::min_valid_time`].
    ///
    /// # Errors
    /// If the directory is there and cannot be listed, or a file not be opened.
    pub fn read(data: &Path, shown: &str, min_valid_time: i64, version: Version) -> io::Result<Self> {
        Self::read_but(data, shown, min_valid_time, version, &[])
    }

    /// As [`Self::read`], where the chunks at the places `of_others` are of a run that is gone.
    fn read_but(
        data: &Path,
        shown: &str,
        min_valid_time: i64,
        version: Version,
        of_others: &[u64],
    ) -> io::Result<Self> {
        let shown = format!("{}/chunks_head", shown.trim_end_matches('/'));
        let listed = list_head_chunks(&data.join("chunks_head"), &shown)?;
        let mut chunks = Self {
            refusal: listed.refusal,
            unwritten: listed.unwritten.map(|file| file.name),
            places_of_others: of_others.to_vec(),
            ..Self::default()
        };
        let mut cut = Cut::Nowhere;
        if let Some((error, from)) = chunks.load(&listed.files, &shown, min_valid_time, version, cut)? {
            (chunks.error, cut) = (Some(error), from);
            (chunks.of_series, chunks.last, chunks.last_kept) = (HashMap::new(), 0, 0);
            chunks.of_others.clear();
            chunks.load(&listed.files, &shown, min_valid_time, version, cut)?;
        }
        let deleted = listed.files.iter().filter(|file| cut.deletes(file.index));
        chunks.deletes = deleted.map(|file| file.name.clone()).collect();
        Ok(chunks)
    }

    /// Takes in all chunks that have their checksums, those of out-of-order samples once: each start writes them again from
    /// the WBL, and one that then exits leaves them twice. The first error that ends the loading of a start, and what is
    /// deleted for it.
    fn load(
        &mut self,
        files: &[HeadChunkFile],
        shown: &str,
        min_valid_time: i64,
        version: Version,
        cut: Cut,
    ) -> io::Result<Option<(String, Cut)>> {
        let mut late = HashSet::new();
        for file in files {
            let kept = !cut.deletes(file.index);
            let chunks = match file.chunks() {
                // No start gets beyond that: `HeadChunkFiles::refusal`.
                Err(error) if crate::io::is_no_file(&error) => continue,
                chunks => chunks?,
            };
            for chunk in chunks {
                match chunk {
                    Ok(chunk) => {
                        let HeadChunk { series_ref, min_time, max_time, samples, .. } = chunk;
                        let is_new = !(chunk.out_of_order && version.has_wbl())
                            || late.insert((series_ref, min_time, max_time, samples));
                        self.see(&chunk, kept);
                        if is_new
                            && let Some(error) = self.take(&chunk, kept, min_valid_time, version)
                            && cut == Cut::Nowhere
                        {
                            return Ok(Some((error, Cut::All)));
                        }
                    }
                    Err(error) if cut == Cut::Nowhere => {
                        let words = in_words(&error, version);
                        let error =
                            format!("corruption in head chunk file {shown}/{:06}: {words}", file.index);
                        return Ok(Some((iterating(version, &error), Cut::File(file.index))));
                    }
                    Err(_) => {}
                }
            }
        }
        Ok(None)
    }

    fn see(&mut self, chunk: &HeadChunk, kept: bool) {
        self.last = self.last.max(chunk.chunk_ref);
        if kept {
            self.last_kept = self.last_kept.max(chunk.chunk_ref);
        }
    }

    /// A chunk, unless a start passes over it; why not, if it fails on it.
    fn take(
        &mut self,
        chunk: &HeadChunk,
        kept: bool,
        min_valid_time: i64,
        version: Version,
    ) -> Option<String> {
        let out_of_order = chunk.out_of_order && version.has_wbl();
        if !out_of_order && chunk.max_time < min_valid_time || !version.knows_chunks(chunk.encoding) {
            return None;
        }
        if self.places_of_others.binary_search(&chunk.chunk_ref).is_ok() {
            // They end before the chunks of the series that has their ref now.
            self.of_others.entry(chunk.series_ref).or_default()[usize::from(!kept)].add(chunk);
            return None;
        }
        let of_series = self.of_series.entry(chunk.series_ref).or_default();
        let before = of_series.last_in_order();
        if out_of_order && kept {
            of_series.kept_late.add(chunk);
        } else if out_of_order {
            of_series.deleted.get_or_insert_default().late.add(chunk);
        } else if before.is_some_and(|(_, max_time)| max_time >= chunk.min_time) {
            let (min, max) = before.unwrap_or_default();
            let HeadChunk { series_ref, min_time, max_time, .. } = chunk;
            let error = format!(
                "out of sequence m-mapped chunk for series ref {series_ref}, last chunk: [{min}, {max}], \
                 new: [{min_time}, {max_time}]"
            );
            return Some(iterating(version, &error));
        } else {
            if kept {
                of_series.keep(chunk);
            } else {
                of_series.deleted.get_or_insert_default().add(chunk);
            }
            of_series.last_begins = chunk.min_time;
        }
        None
    }
}

impl Cut {
    fn deletes(self, file: i64) -> bool {
        match self {
            Self::Nowhere => false,
            Self::File(from) => file >= from,
            Self::All => true,
        }
    }
}

fn iterating(version: Version, error: &str) -> String {
    let doing = if version.iterates_on_on_disk_chunks() { "iterate on on-disk" } else { "iterate on-disk" };
    format!("{doing} chunks: {error}")
}

fn in_words(error: &HeadChunkError, version: Version) -> String {
    match error {
        HeadChunkError::Checksum { stored, computed } if !version.prints_short_checksums() => {
            format!("checksum mismatch expected:{stored:08x}, actual:{computed:08x}")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk of one series from the one time to the other, with so many samples.
    fn chunk(min_time: i64, max_time: i64, encoding: u8, samples: u16) -> Vec<u8> {
        let times = [min_time.to_be_bytes(), max_time.to_be_bytes()].concat();
        let mut chunk =
            [&7_u64.to_be_bytes()[..], &times, &[encoding, 4], &samples.to_be_bytes(), &[0; 2]].concat();
        chunk.extend(crc32c::crc32c(&chunk).to_be_bytes());
        chunk
    }

    fn read(files: &[&[Vec<u8>]], min_valid_time: i64, version: &str) -> HeadChunks {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("chunks_head")).unwrap();
        for (number, chunks) in (1..).zip(files) {
            let file = [&[0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0][..], &chunks.concat(), &[0; 64]].concat();
            std::fs::write(data.path().join(format!("chunks_head/{number:06}")), file).unwrap();
        }
        HeadChunks::read(data.path(), "data/", min_valid_time, version.parse().unwrap()).unwrap()
    }

    fn stock(stock: &Stock) -> (u64, i64, i64) {
        (stock.samples, stock.min_time, stock.max_time)
    }

    #[test]
    fn what_a_start_loads() {
        let files: [&[Vec<u8>]; 2] =
            [&[chunk(10, 19, 1, 5), chunk(20, 29, 2, 6)], &[chunk(15, 18, 0x81, 7), chunk(30, 39, 9, 8)]];
        let read_at = |min_valid_time, version| {
            let chunks = read(&files, min_valid_time, version);
            assert_eq!((&chunks.error, chunks.deletes.len()), (&None, 0));
            let of_series = &chunks.of_series[&7];
            (stock(&of_series.kept), stock(&of_series.kept_late))
        };
        assert_eq!(read_at(0, "3.5"), ((11, 10, 29), (7, 15, 18)));
        // Older ones are in blocks; out of order they may be as old as they like.
        assert_eq!(read_at(20, "3.5"), ((6, 20, 29), (7, 15, 18)));
        // It knows no chunks of histograms.
        assert_eq!(read_at(0, "2.39"), ((5, 10, 19), (7, 15, 18)));
    }

    #[test]
    fn a_damaged_chunk_costs_its_file_and_all_later_ones() {
        let mut damaged = chunk(20, 29, 1, 6);
        damaged[28] ^= 1;
        let files: [&[Vec<u8>]; 3] = [
            &[chunk(10, 19, 1, 5)],
            &[chunk(19, 19, 0x81, 1), damaged.clone(), chunk(30, 39, 1, 7)],
            &[chunk(40, 49, 1, 8)],
        ];
        let computed = crc32c::crc32c(&damaged[..30]);
        let stored = u32::from_be_bytes(*damaged.last_chunk().unwrap());
        for (version, doing) in [("3.10", "iterate on-disk"), ("3.9", "iterate on on-disk")] {
            let chunks = read(&files, 0, version);
            let error = format!(
                "{doing} chunks: corruption in head chunk file data/chunks_head/000002: checksum mismatch \
                 expected:{stored:x}, actual:{computed:x}"
            );
            assert_eq!(chunks.error, Some(error));
            assert_eq!(chunks.deletes, ["000002", "000003"]);
            let of_series = &chunks.of_series[&7];
            assert_eq!(stock(&of_series.kept), (5, 10, 19));
            // An ideal head would have the others.
            let deleted = of_series.deleted.as_ref().unwrap();
            let in_order: Vec<_> = deleted.in_order.iter().map(stock).collect();
            assert_eq!((in_order, stock(&deleted.late)), (vec![(7, 30, 39), (8, 40, 49)], (1, 19, 19)));
            assert_eq!((chunks.last >> 32, chunks.last_kept >> 32), (3, 1));
        }
    }

    #[test]
    fn chunks_out_of_sequence_cost_all() {
        let files: [&[Vec<u8>]; 2] = [&[chunk(10, 19, 1, 5)], &[chunk(19, 29, 1, 6), chunk(30, 39, 1, 7)]];
        let chunks = read(&files, 0, "3.5");
        let error = "iterate on on-disk chunks: out of sequence m-mapped chunk for series ref 7, \
                     last chunk: [10, 19], new: [19, 29]";
        assert_eq!(chunks.error.as_deref(), Some(error));
        assert_eq!(chunks.deletes, ["000001", "000002"]);
        let deleted = chunks.of_series[&7].deleted.as_ref().unwrap();
        let in_order: Vec<_> = deleted.in_order.iter().map(stock).collect();
        assert_eq!(in_order, [(5, 10, 19), (7, 30, 39)]);
    }

    #[test]
    fn checksums_in_words() {
        let error = HeadChunkError::Checksum { stored: 0xab, computed: 0x1234_5678 };
        let in_words = |version: &str| in_words(&error, version.parse().unwrap());
        assert_eq!(in_words("2.52"), "checksum mismatch expected:ab, actual:12345678");
        assert_eq!(in_words("2.51"), "checksum mismatch expected:000000ab, actual:12345678");
    }
}
