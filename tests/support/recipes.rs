//! Damages, each of a known kind at a known place: what is done to a healthy directory, and which of its records stand
//! afterwards. The numbers are those of the rows in `docs/forecast.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::bases::{Base, Record, Segment, Standing, Tree};

const PAGE: usize = 32768;

/// A directory that was damaged.
#[derive(Clone, Debug)]
pub struct Damaged {
    pub tree: Tree,
    /// The records that the damage left whole, by file.
    pub standing: BTreeMap<String, Standing>,
    /// If one flipped bit is all of it: the file, and what that stands for with the record that it has damaged. That can
    /// be had too, if the bit is found.
    pub mended: Option<(String, Standing)>,
    /// The first fragment of a record that was given up, if the damage is one: its file and where it begins there.
    pub abandoned: Option<(String, usize)>,
}

impl Damaged {
    /// One kind of damage, by its name in [`ROWS`], in a segment.
    pub fn by(row: &str, base: &Base, file: &str) -> Self {
        let row = ROWS.iter().find(|one| one.name == row).unwrap_or_else(|| panic!("no kind {row}"));
        row.apply(base, file).unwrap_or_else(|| panic!("{} is not possible in {file}", row.name))
    }

    /// A page holds the bytes of the page before it, whose records are there twice then; its own are gone.
    pub fn duplicated_page(base: &Base, file: &str) -> Self {
        let site = Site { base, file, segment: &base.segments[file] };
        let (mut f, k) = (Framer::default(), site.index_of_samples().unwrap());
        f.keep(site.segment, 0..k);
        f.pad();
        let page = f.bytes.len();
        f.keep(site.segment, k..=k);
        f.pad();
        f.keep(site.segment, k + 1..=k + 1);
        f.pad();
        assert_eq!(f.bytes.len(), page + 2 * PAGE, "a page for each");
        f.keep(site.segment, k + 2..site.segment.records.len());
        site.patch_of(&f.done(), |bytes| bytes.copy_within(page..page + PAGE, page + PAGE))
    }

    /// This damage, and another in other files of the same healthy directory.
    pub fn and(mut self, base: &Base, other: &Self) -> Self {
        let changed = |tree: &Tree| -> BTreeSet<String> {
            let all = base.tree.keys().chain(tree.keys());
            all.filter(|path| base.tree.get(*path) != tree.get(*path)).cloned().collect()
        };
        let files = changed(&other.tree);
        assert!(changed(&self.tree).is_disjoint(&files), "both are in one file: {files:?}");
        for file in files {
            match other.tree.get(&file) {
                Some(bytes) => self.tree.insert(file.clone(), bytes.clone()),
                None => self.tree.remove(&file),
            };
            match other.standing.get(&file) {
                Some(standing) => self.standing.insert(file, standing.clone()),
                None => self.standing.remove(&file),
            };
        }
        Self { mended: None, abandoned: None, ..self }
    }

    /// The same, where the one flipped bit is found: the record that it has damaged stands again.
    pub fn put_right(mut self) -> Self {
        let (file, with_it) = self.mended.take().expect("one flipped bit is all of it");
        self.standing.insert(file, with_it);
        self
    }

    /// A segment has a name that says its number otherwise. Its records still stand under the right one.
    pub fn misnamed(mut self, file: &str, name: &str) -> Self {
        let bytes = self.tree.remove(file).expect("it is there");
        let (directory, _) = file.rsplit_once('/').unwrap();
        self.tree.insert(format!("{directory}/{name}"), bytes);
        self
    }
}

/// A kind of damage.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Number of its row, and which kind of it.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Where it can be done.
    pub at: At,
    make: fn(&Site<'_>) -> Option<Damaged>,
}

/// Where a kind of damage can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// In any segment.
    Segment,
    /// In a segment of `wal/` or `wbl/`.
    Log,
    /// To the directory as a whole.
    Directory,
}

impl Row {
    /// The number of its row.
    pub fn number(&self) -> u32 {
        self.name.split(' ').next().unwrap().parse().unwrap()
    }

    /// Does it to `file` of `base`; `None` if that is not possible there.
    pub fn apply(&self, base: &Base, file: &str) -> Option<Damaged> {
        (self.make)(&Site { base, file, segment: base.segments.get(file)? })
    }
}

/// Does something else to the bytes of `file`: what that leaves of its records stands.
pub fn patched(base: &Base, file: &str, patch: impl FnOnce(&mut Vec<u8>)) -> Damaged {
    let segment = &base.segments[file];
    Site { base, file, segment }.patch_of(segment, patch)
}

/// Every kind of damage.
pub const ROWS: &[Row] = &[
    row("0 healthy", "nothing is damaged", At::Directory, |s| Some(s.untouched())),
    row("0 zero pages", "two pages of zeros after the last one", At::Segment, |s| {
        s.patched(|bytes| bytes.resize(bytes.len().next_multiple_of(PAGE) + 2 * PAGE, 0))
    }),
    row("1 payload", "one bit of the payload of a samples record", At::Segment, |s| {
        let f = s.samples()?.fragments[0].clone();
        s.patched(|bytes| bytes[usize::midpoint(f.start + 7, f.end)] ^= 0x10)
    }),
    row("1 checksum", "one bit of the stored checksum of a samples record", At::Segment, |s| {
        let at = s.samples()?.offset() + 4;
        s.patched(|bytes| bytes[at] ^= 0x40)
    }),
    row(
        "1 middle fragment",
        "bytes of the middle fragment of a record over several pages",
        At::Segment,
        |s| {
            let at = s.large()?.fragments[1].start + 500;
            // More than one bit: nothing can be put right.
            s.patched(|bytes| bytes[at..at + 8].iter_mut().for_each(|byte| *byte ^= 0x5a))
        },
    ),
    row("1 first record", "one bit of the first record", At::Segment, |s| {
        let at = s.segment.records.first()?.end() - 1;
        s.patched(|bytes| bytes[at] ^= 1)
    }),
    row("1 last record", "one bit of the last record", At::Segment, |s| {
        let at = s.segment.records.last()?.end() - 1;
        s.patched(|bytes| bytes[at] ^= 1)
    }),
    row("2 too long", "the length of a record is 65535", At::Segment, |s| {
        let at = s.samples()?.offset() + 1;
        s.patched(|bytes| bytes[at..at + 2].fill(0xff))
    }),
    row("2 one bit", "one bit of the length of a record", At::Segment, |s| {
        let at = s.samples()?.offset() + 2;
        s.patched(|bytes| bytes[at] ^= 0x20)
    }),
    row("3 type 5", "the type of a record is 5", At::Segment, |s| s.retyped(s.samples()?, 0, 5)),
    row("4 last is first", "a last fragment has become a first one", At::Segment, |s| {
        let large = s.large()?;
        s.retyped(large, large.fragments.len() - 1, 2)
    }),
    row("4 last is full", "a last fragment has become a full one", At::Segment, |s| {
        let large = s.large()?;
        s.retyped(large, large.fragments.len() - 1, 1)
    }),
    row(
        "4 abandoned",
        "a record was given up after its first fragment; intact ones follow",
        At::Segment,
        |s| {
            let mut f = Framer::default();
            let half = s.segment.records.len() / 2;
            f.keep(s.segment, 0..half);
            f.dangling();
            f.keep(s.segment, half..s.segment.records.len());
            Some(s.rewritten(f.done()))
        },
    ),
    row("5 full is last", "a full record has become a last fragment", At::Segment, |s| {
        s.retyped(s.samples()?, 0, 4)
    }),
    row("5 full is middle", "a full record has become a middle fragment", At::Segment, |s| {
        s.retyped(s.samples()?, 0, 3)
    }),
    row("5 page of the first", "the page with the first fragment of a record is zeros", At::Segment, |s| {
        let (mut f, k) = (Framer::default(), s.index_of_samples()?);
        f.keep(s.segment, 0..k);
        f.pad();
        let page = f.bytes.len();
        f.fill_to(PAGE - 100);
        f.keep(s.segment, k..s.segment.records.len());
        Some(s.patch_of(&f.done(), |bytes| bytes[page..page + PAGE].fill(0)))
    }),
    row(
        "6 torn at a page end",
        "the segment ends after the first fragment of a record, at a page end",
        At::Segment,
        |s| {
            let mut f = Framer::default();
            f.keep(s.segment, 0..s.segment.records.len());
            f.dangling();
            Some(s.rewritten(f.done()))
        },
    ),
    row(
        "7 dangling first",
        "the segment ends after the first fragment of a record and a page of zeros",
        At::Segment,
        |s| {
            let mut f = Framer::default();
            f.keep(s.segment, 0..s.segment.records.len());
            let offset = f.dangling();
            f.bytes.resize(f.bytes.len() + PAGE, 0);
            Some(Damaged { abandoned: Some((s.file.to_owned(), offset)), ..s.rewritten(f.done()) })
        },
    ),
    row("8 zero page between", "a page of records is zeros", At::Segment, |s| {
        let (mut f, k) = (Framer::default(), s.index_of_samples()?);
        f.keep(s.segment, 0..k);
        f.pad();
        let page = f.bytes.len();
        f.keep(s.segment, k..k + 2);
        f.pad();
        f.keep(s.segment, k + 2..s.segment.records.len());
        Some(s.patch_of(&f.done(), |bytes| bytes[page..page + PAGE].fill(0)))
    }),
    row("9 zero page inside", "a page in the midst of a record is zeros", At::Segment, |s| {
        let middle = s.large()?.fragments[1].clone();
        s.patched(|bytes| bytes[middle].fill(0))
    }),
    row(
        "9 splice",
        "a page with the end of one record and the beginning of another is zeros",
        At::Segment,
        |s| {
            let (mut f, k) = (Framer::default(), s.index_of_samples()?);
            f.keep(s.segment, 0..k);
            f.fill_to(PAGE - 100);
            f.keep(s.segment, k..=k);
            let page = f.bytes.len() / PAGE * PAGE;
            f.fill_to(PAGE - 100);
            f.keep(s.segment, k + 1..s.segment.records.len());
            Some(s.patch_of(&f.done(), |bytes| bytes[page..page + PAGE].fill(0)))
        },
    ),
    row("10 header, 1 byte", "the segment ends after 1 byte of a record's header", At::Segment, |s| {
        s.torn(1)
    }),
    row("10 header, 3 bytes", "the segment ends after 3 bytes of a record's header", At::Segment, |s| {
        s.torn(3)
    }),
    row("10 header, 6 bytes", "the segment ends after 6 bytes of a record's header", At::Segment, |s| {
        s.torn(6)
    }),
    row("10 payload", "the segment ends in a record's payload", At::Segment, |s| s.torn(100)),
    row("10 in large", "the segment ends in the second fragment of a record", At::Segment, |s| {
        let at = s.large()?.fragments[1].start + 1000;
        s.patched(|bytes| bytes.truncate(at))
    }),
    row("11 junk in padding", "bytes in padding that are not zero", At::Segment, |s| {
        let end = s.segment.records.last()?.end();
        s.patched(|bytes| {
            bytes.resize(bytes.len().max(end.next_multiple_of(PAGE)), 0);
            bytes[end + 20..end + 60].fill(0x77);
        })
    }),
    row("11 garbage appended", "a page of meaningless bytes after the last record", At::Segment, |s| {
        let end = s.segment.records.last()?.end();
        s.patched(|bytes| {
            bytes.truncate(end);
            bytes.extend((0..PAGE).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[5] | 1));
        })
    }),
    row(
        "12 cannot be unpacked",
        "a compressed record does not unpack, under a right checksum",
        At::Segment,
        |s| {
            let f = s.samples()?.fragments[0].clone();
            if s.segment.bytes[f.start] & 0x18 == 0 {
                return None;
            }
            s.patched(|bytes| {
                let middle = usize::midpoint(f.start + 7, f.end);
                bytes[middle..middle + 16].fill(0xff);
                let sum = crc32c::crc32c(&bytes[f.start + 7..f.end]);
                bytes[f.start + 3..f.start + 7].copy_from_slice(&sum.to_be_bytes());
            })
        },
    ),
    row("12 flag", "the flag of a compressed record is cleared", At::Segment, |s| {
        let at = s.samples()?.offset();
        (s.segment.bytes[at] & 0x18 != 0).then_some(())?;
        s.patched(|bytes| bytes[at] &= 7)
    }),
    row("13 samples", "a samples record without its last bytes, under a right checksum", At::Segment, |s| {
        s.undecodable(|kind| kind == "samples", 5)
    }),
    row("13 series", "a series record without its last bytes, under a right checksum", At::Segment, |s| {
        s.undecodable(|kind| kind == "series", 5)
    }),
    row(
        "13 tombstones",
        "a tombstones record without its last bytes, under a right checksum",
        At::Segment,
        |s| s.undecodable(|kind| kind == "tombstones", 3),
    ),
    row(
        "13 exemplars",
        "an exemplars record without its last bytes, under a right checksum",
        At::Segment,
        |s| s.undecodable(|kind| kind == "exemplars", 5),
    ),
    row(
        "13 metadata",
        "a metadata record without its last bytes, under a right checksum",
        At::Segment,
        |s| s.undecodable(|kind| kind == "metadata", 3),
    ),
    row(
        "13 histograms",
        "a histograms record without its last bytes, under a right checksum",
        At::Segment,
        |s| s.undecodable(|kind| kind == "histogram_samples", 1),
    ),
    row("13 float histograms", "the same of float histograms", At::Segment, |s| {
        s.undecodable(|kind| kind == "float_histogram_samples", 5)
    }),
    row("13 custom buckets", "the same of histograms with custom buckets", At::Segment, |s| {
        s.undecodable(|kind| kind == "custom_buckets_histogram_samples", 5)
    }),
    row("13 samples v2", "the same of samples with start timestamps", At::Segment, |s| {
        s.undecodable(|kind| kind == "samples_v2", 5)
    }),
    row("13 markers", "the same of markers of m-mapped chunks", At::Segment, |s| {
        s.undecodable(|kind| kind == "mmapmarkers", 5)
    }),
    row("14 gap", "a segment is missing", At::Log, |s| Some(s.without(&[s.file]))),
    row("15 no checkpoint", "the checkpoint is missing", At::Directory, |s| {
        let files = s.checkpoint_files()?;
        Some(s.without(&files))
    }),
    row("17 file, lower", "a file by the name of an older checkpoint", At::Directory, |s| {
        (s.base.checkpoint().as_deref() != Some("wal/checkpoint.00000000")).then_some(())?;
        Some(s.with("wal/checkpoint.00000000", Some(b"kept\n")))
    }),
    row("17 file, higher", "a file by the name of a newer checkpoint", At::Directory, |s| {
        Some(s.with("wal/checkpoint.00000099", Some(b"kept\n")))
    }),
    row("17 file, a word", "a file checkpoint.old", At::Directory, |s| {
        Some(s.with("wal/checkpoint.old", Some(b"kept\n")))
    }),
    row("17 directory, a word", "a directory checkpoint.old", At::Directory, |s| {
        Some(s.with("wal/checkpoint.old", None))
    }),
    row("18 gap", "a segment in the midst of the checkpoint is missing", At::Directory, |s| {
        let files = s.checkpoint_files()?;
        (files.len() > 2).then(|| s.without(&files[1..2]))
    }),
    row("18 first", "the first segment of the checkpoint is missing", At::Directory, |s| {
        let files = s.checkpoint_files()?;
        (files.len() > 1).then(|| s.without(&files[..1]))
    }),
    row("18 last", "the last segment of the checkpoint is missing", At::Directory, |s| {
        let files = s.checkpoint_files()?;
        (files.len() > 1).then(|| s.without(&files[files.len() - 1..]))
    }),
    row("19 as the last segment", "the checkpoint has the number of the last segment", At::Directory, |s| {
        s.renumbered(s.last_segment()?)
    }),
    row("19 beyond", "the checkpoint has a number above all segments", At::Directory, |s| {
        s.renumbered(s.last_segment()? + 5)
    }),
    row(
        "19 one too high",
        "the checkpoint has the number of the first segment after it",
        At::Directory,
        |s| {
            let number: u32 = s.base.checkpoint()?.rsplit_once('.')?.1.parse().ok()?;
            s.renumbered(number + 1)
        },
    ),
    row("20 emptied", "the segments of the checkpoint are empty files", At::Directory, |s| {
        let mut damaged = s.untouched();
        for file in s.checkpoint_files()? {
            damaged.tree.insert(file.to_owned(), Some(Vec::new()));
            damaged.standing.remove(file);
        }
        Some(damaged)
    }),
    row("20 empty directory", "the checkpoint is an empty directory", At::Directory, |s| {
        let files = s.checkpoint_files()?;
        let mut damaged = s.without(&files);
        damaged.tree.insert(s.base.checkpoint()?, None);
        Some(damaged)
    }),
    row("20 series dropped", "a series record is missing", At::Segment, |s| {
        let series = s.segment.records.iter().position(|record| record.kind == "series")?;
        let mut f = Framer::default();
        f.keep(s.segment, 0..series);
        f.keep(s.segment, series + 1..s.segment.records.len());
        Some(s.rewritten(f.done()))
    }),
    row("31 unknown, one", "a record of a type that nobody knows", At::Segment, |s| {
        Some(s.inserted(&[200, 1, 2, 3], 1))
    }),
    row("31 unknown, two", "two records of a type that nobody knows", At::Segment, |s| {
        Some(s.inserted(&[200, 1, 2, 3], 2))
    }),
    row("32 metadata, one", "a metadata record", At::Segment, |s| Some(s.inserted(METADATA, 1))),
    row("32 metadata, two", "two metadata records", At::Segment, |s| Some(s.inserted(METADATA, 2))),
    row("32 empty, one", "a record of no bytes", At::Segment, |s| Some(s.inserted(&[], 1))),
    row("32 empty, two", "two records of no bytes", At::Segment, |s| Some(s.inserted(&[], 2))),
    row(
        "32 unknown and damage",
        "two records of unknown type, and a flipped bit after them",
        At::Segment,
        |s| {
            let two = s.framed(&[200], 2);
            let last = two.records.last()?.end() - 1;
            Some(s.patch_of(&two, |bytes| bytes[last] ^= 1))
        },
    ),
    row("33 directory", "a directory by the name of a segment", At::Segment, |s| {
        let mut damaged = s.without(&[s.file]);
        damaged.tree.insert(s.file.to_owned(), None);
        Some(damaged)
    }),
];

/// Of ref 1: a counter without a unit.
const METADATA: &[u8] = b"\x06\x01\x01\x02\x04UNIT\x00\x04HELP\x01h";

const fn row(name: &'static str, what: &'static str, at: At, make: fn(&Site<'_>) -> Option<Damaged>) -> Row {
    Row { name, what, at, make }
}

/// A segment of a directory that is to be damaged.
struct Site<'a> {
    base: &'a Base,
    file: &'a str,
    segment: &'a Segment,
}

impl Site<'_> {
    fn untouched(&self) -> Damaged {
        let standing = self.base.segments.iter().map(|(path, segment)| (path.clone(), segment.standing()));
        Damaged { tree: self.base.tree.clone(), standing: standing.collect(), mended: None, abandoned: None }
    }

    /// A record of samples in one fragment, with another such behind it, nearest to the middle of the segment's records.
    fn samples(&self) -> Option<&Record> {
        Some(&self.segment.records[self.index_of_samples()?])
    }

    fn index_of_samples(&self) -> Option<usize> {
        let records = &self.segment.records;
        let middle = records.len() / 2;
        let fits =
            |r: &Record| r.stands_for.samples.len() > 3 && r.fragments.len() == 1 && r.kind == "samples";
        let fitting =
            (1..records.len()).filter(|&i| fits(&records[i - 1]) && fits(&records[i])).map(|i| i - 1);
        fitting.min_by_key(|i| i.abs_diff(middle))
    }

    /// The longest record, if it covers a whole page.
    fn large(&self) -> Option<&Record> {
        self.segment
            .records
            .iter()
            .filter(|record| record.fragments.len() > 2)
            .max_by_key(|record| record.end())
    }

    fn retyped(&self, record: &Record, fragment: usize, to: u8) -> Option<Damaged> {
        let at = record.fragments[fragment].start;
        self.patched(|bytes| bytes[at] = bytes[at] & !7 | to)
    }

    /// Cuts the last record after some bytes.
    fn torn(&self, bytes_left: usize) -> Option<Damaged> {
        let record = self.segment.records.last()?;
        let at = record.offset() + bytes_left;
        (at < record.end()).then_some(())?;
        self.patched(|bytes| bytes.truncate(at))
    }

    /// The segment with other bytes: what they leave of its records stands.
    #[expect(clippy::unnecessary_wraps, reason = "as all recipes")]
    fn patched(&self, patch: impl FnOnce(&mut Vec<u8>)) -> Option<Damaged> {
        Some(self.patch_of(self.segment, patch))
    }

    /// As [`Self::patched`], of a segment written anew.
    fn patch_of(&self, segment: &Segment, patch: impl FnOnce(&mut Vec<u8>)) -> Damaged {
        let mut bytes = segment.bytes.clone();
        patch(&mut bytes);
        let same = |f: &std::ops::Range<usize>| bytes.get(f.clone()) == segment.bytes.get(f.clone());
        let whole = |record: &&Record| record.fragments.iter().all(same);
        let records = segment.records.iter().filter(whole).cloned().collect();
        let bits = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
        let one_bit = bytes.len() == segment.bytes.len()
            && bytes.iter().zip(&segment.bytes).map(bits).sum::<u32>() == 1;
        let mended = one_bit.then(|| (self.file.to_owned(), segment.standing()));
        Damaged { mended, ..self.rewritten(Segment { bytes, records }) }
    }

    /// The directory with this segment in the place of the other.
    fn rewritten(&self, segment: Segment) -> Damaged {
        let mut damaged = self.untouched();
        damaged.standing.insert(self.file.to_owned(), segment.standing());
        damaged.tree.insert(self.file.to_owned(), Some(segment.bytes));
        damaged
    }

    /// Puts a record that cannot be decoded behind the one in the middle that it was cut from.
    fn undecodable(&self, kind: impl Fn(&str) -> bool, cut: usize) -> Option<Damaged> {
        let records = &self.segment.records;
        let fitting =
            (0..records.len()).filter(|&i| kind(&records[i].kind) && records[i].fragments.len() == 1);
        let index = fitting.min_by_key(|i| i.abs_diff(records.len() / 2))?;
        let (stored, flags) = records[index].stored(&self.segment.bytes);
        let mut data = match flags {
            0 => stored,
            8 => snap::raw::Decoder::new().decompress_vec(&stored).unwrap(),
            _ => zstd::stream::decode_all(&stored[..]).unwrap(),
        };
        data.truncate(data.len() - cut);
        let mut f = Framer::default();
        f.keep(self.segment, 0..=index);
        f.put(&data, 0);
        f.keep(self.segment, index + 1..records.len());
        Some(self.rewritten(f.done()))
    }

    /// Some records of the same bytes in the middle.
    fn inserted(&self, data: &[u8], count: usize) -> Damaged {
        self.rewritten(self.framed(data, count))
    }

    fn framed(&self, data: &[u8], count: usize) -> Segment {
        let half = self.segment.records.len() / 2;
        let mut f = Framer::default();
        f.keep(self.segment, 0..half);
        (0..count).for_each(|_| f.put(data, 0));
        f.keep(self.segment, half..self.segment.records.len());
        f.done()
    }

    fn without(&self, files: &[&str]) -> Damaged {
        let mut damaged = self.untouched();
        for &file in files {
            damaged.tree.remove(file);
            damaged.standing.remove(file);
        }
        damaged
    }

    fn with(&self, path: &str, bytes: Option<&[u8]>) -> Damaged {
        let mut damaged = self.untouched();
        damaged.tree.insert(path.to_owned(), bytes.map(<[u8]>::to_vec));
        damaged
    }

    fn checkpoint_files(&self) -> Option<Vec<&str>> {
        let inside = format!("{}/", self.base.checkpoint()?);
        Some(self.base.tree.keys().map(String::as_str).filter(|path| path.starts_with(&inside)).collect())
    }

    /// The number of the last segment of `wal/`.
    fn last_segment(&self) -> Option<u32> {
        self.base.tree.keys().filter_map(|path| path.strip_prefix("wal/")?.parse().ok()).max()
    }

    fn renumbered(&self, number: u32) -> Option<Damaged> {
        let mut damaged = self.untouched();
        for file in self.checkpoint_files()? {
            let to = format!("wal/checkpoint.{number:08}/{}", file.rsplit_once('/')?.1);
            let bytes = damaged.tree.remove(file)?;
            damaged.tree.insert(to.clone(), bytes);
            if let Some(standing) = damaged.standing.remove(file) {
                damaged.standing.insert(to, standing);
            }
        }
        Some(damaged)
    }
}

/// Writes a segment as Prometheus does, and as it should not.
#[derive(Default)]
struct Framer {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

impl Framer {
    /// Writes records of a segment.
    fn keep(&mut self, segment: &Segment, which: impl std::ops::RangeBounds<usize>) {
        let from = match which.start_bound() {
            std::ops::Bound::Included(&from) => from,
            _ => 0,
        };
        let to = match which.end_bound() {
            std::ops::Bound::Included(&to) => to + 1,
            std::ops::Bound::Excluded(&to) => to,
            std::ops::Bound::Unbounded => segment.records.len(),
        };
        for record in &segment.records[from..to] {
            let (stored, flags) = record.stored(&segment.bytes);
            let fragments = self.frame(&stored, flags);
            self.records.push(Record { fragments, ..record.clone() });
        }
    }

    /// Writes a record that is none of the segment's.
    fn put(&mut self, data: &[u8], flags: u8) {
        self.frame(data, flags);
    }

    fn frame(&mut self, data: &[u8], flags: u8) -> Vec<std::ops::Range<usize>> {
        let mut fragments = Vec::new();
        let mut rest = data;
        loop {
            let left = self.left_in_page();
            let (part, more) = rest.split_at(rest.len().min(left - 7));
            let kind = match (fragments.is_empty(), more.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            fragments.push(self.fragment(kind | flags, part));
            rest = more;
            if rest.is_empty() {
                return fragments;
            }
        }
    }

    fn fragment(&mut self, head: u8, data: &[u8]) -> std::ops::Range<usize> {
        let start = self.bytes.len();
        self.bytes.push(head);
        self.bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.bytes.extend(crc32c::crc32c(data).to_be_bytes());
        self.bytes.extend(data);
        start..self.bytes.len()
    }

    /// Bytes up to the page end, of which a header fits: else the page is padded.
    fn left_in_page(&mut self) -> usize {
        let left = PAGE - self.bytes.len() % PAGE;
        if left < 7 {
            self.pad();
            return PAGE;
        }
        left
    }

    /// Zeros up to the page end.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(PAGE), 0);
    }

    /// Empty samples records, 8 bytes each, until the next record begins in its page at about this offset.
    fn fill_to(&mut self, offset: usize) {
        while self.left_in_page() + offset < PAGE {
            self.put(&[2], 0);
        }
        while self.bytes.len() % PAGE + 8 <= offset {
            self.put(&[2], 0);
        }
    }

    /// The first fragment of a record that was given up, up to the page end; where it begins.
    fn dangling(&mut self) -> usize {
        let left = self.left_in_page();
        self.fragment(2, &vec![0x5a; left - 7]).start
    }

    fn done(self) -> Segment {
        Segment { bytes: self.bytes, records: self.records }
    }
}
