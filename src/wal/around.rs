//! Reads a segment of which it is known where it is intact: walks there, and reads what is around damage with care.
//!
//! What comes out is what [`SegmentReader`] alone would make of it. That needs two things of the intact parts: that no page of
//! the segment is the same as another, and that no decision depends on a record in them.

use std::collections::HashSet;
use std::ops::Range;

use super::layout::page_start;
use super::page::{is_of_words, words_of};
use super::walk::{Pages, Walker, number_of};
use super::{Compression, Event, IntactPart, PAGE, ReadAt, Record, SegmentReader};

/// What is met.
#[derive(Debug)]
pub(crate) enum Met<'a> {
    /// By the salvage reader.
    Read(Event<'a>),
    /// A record of an intact part.
    Walked(&'a Record<'a>),
    /// The next is no record of the same part.
    WalkEnds,
}

/// Reads the first `length` bytes of `source`, of which the parts `intact` are known in order; fragments `taken_as_they_are` as
/// of [`SegmentReader`]. The reader as it is at the end.
pub(crate) fn read<'s, S: ReadAt + ?Sized>(
    source: &'s S,
    length: u64,
    intact: &[IntactPart],
    taken_as_they_are: &HashSet<u64>,
    mut each: impl FnMut(Met<'_>),
) -> SegmentReader<&'s S> {
    let mut reader = SegmentReader::new(source, length).taking_as_they_are(taken_as_they_are.clone());
    let mut walker = Walker::default();
    let mut parts = intact.iter();
    let mut next = parts.next();
    loop {
        while next.is_some_and(|part| part.to <= reader.at()) {
            next = parts.next();
        }
        let stop = next.map_or(u64::MAX, |part| part.from);
        let mut has_stopped = false;
        let begun = match reader.next_before(stop) {
            Some(Event::Record(record)) => {
                each(Met::Read(Event::Record(record)));
                Some(record.offset)
            }
            Some(Event::Damage(damage)) => {
                each(Met::Read(Event::Damage(damage)));
                None
            }
            None => {
                has_stopped = true;
                Some(stop)
            }
        };
        if has_stopped && reader.is_finished() {
            return reader;
        }
        let Some(part) = next else { continue };
        if has_stopped {
            reader.settle_before_record();
            while let Some(event) = reader.next_before(stop) {
                each(Met::Read(event));
            }
        }
        // Between here and the end of the part both see the same fragments, and the same records.
        let is_in_step = begun.is_some_and(|offset| {
            let is_known = offset == part.from || page_start(offset) > page_start(part.from);
            is_known && offset < part.to && reader.is_settled()
        });
        if is_in_step && reader.at() < part.to {
            walk(&mut walker, source, &mut reader, part, &mut each);
        }
        if is_in_step || has_stopped {
            next = parts.next();
        }
    }
}

fn walk<S: ReadAt + ?Sized>(
    walker: &mut Walker,
    source: &S,
    reader: &mut SegmentReader<&S>,
    part: &IntactPart,
    each: &mut impl FnMut(Met<'_>),
) {
    let (mut end, mut unpacked) = (reader.at(), 0);
    // A file that changes is left to the reader, from the last record on.
    let _ = walker.walk_on(source, reader.length(), end..part.to, reader.allowed(), |record| {
        end = record.end;
        unpacked += unpacked_bytes(record);
        each(Met::Walked(record));
    });
    each(Met::WalkEnds);
    // Where not one record could be read again the reader goes on as it is.
    if end > reader.at() {
        reader.resume(end, unpacked);
    }
}

/// Reads what is between the parts `intact`, and gives `each` the number of each part in its turn. `None` if a record that
/// begins before a part may continue in it: what `each` got is of no use then.
pub(crate) fn read_between<'s, S: ReadAt + ?Sized>(
    source: &'s S,
    length: u64,
    intact: &[IntactPart],
    mut each: impl FnMut(Between<'_>),
) -> Option<SegmentReader<&'s S>> {
    let mut reader = SegmentReader::new(source, length);
    for (number, part) in intact.iter().enumerate() {
        while let Some(event) = reader.next_before(part.from) {
            each(Between::Read(event));
        }
        if reader.is_finished() || reader.at() != part.from {
            return None;
        }
        reader.settle_before_record();
        while let Some(event) = reader.next_before(part.from) {
            each(Between::Read(event));
        }
        if reader.at() != part.from || !reader.is_settled() || reader.allowed() < part.unpacked {
            return None;
        }
        each(Between::LeftOut(number));
        reader.resume(part.end, part.unpacked);
    }
    while let Some(event) = reader.next() {
        each(Between::Read(event));
    }
    Some(reader)
}

/// What is met between intact parts.
#[derive(Debug)]
pub(crate) enum Between<'a> {
    /// By the salvage reader.
    Read(Event<'a>),
    /// The part of that number comes here.
    LeftOut(usize),
}

/// What a record counts as unpacked.
pub(crate) fn unpacked_bytes(record: &Record<'_>) -> u64 {
    if record.compression == Compression::None { 0 } else { record.data.len() as u64 }
}

/// Whether another byte at that offset of a segment could make a page of it seem to be the same as another, or no more.
pub(crate) fn tells_pages_apart(offset: u64) -> bool {
    is_of_words(super::layout::in_page(offset))
}

/// Adds the pages within `range` of `source`; whether none of them is the same as one that is there already, or all could
/// not be read.
pub(crate) fn add_pages<S: ReadAt + ?Sized>(source: &S, range: Range<u64>, pages: &mut Pages) -> bool {
    let mut page = vec![0; super::PAGE_SIZE];
    let mut offset = range.start;
    while offset < range.end {
        match super::source::read_full(source, &mut page, offset) {
            Ok(count) if count == page.len() => {
                if words_of(&page).is_some()
                    && super::reader::has_contents(&page)
                    && number_of(&page).is_some_and(|number| !pages.insert(number))
                {
                    return false;
                }
            }
            // A page that is cut is no copy.
            Ok(_) => return true,
            Err(_) => return false,
        }
        offset += PAGE;
    }
    true
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::wal::PAGE_SIZE;
    use crate::wal::layout::HEADER_SIZE;
    use crate::wal::writer::SegmentWriter;

    /// Records that are packed or not, of which some have several pages; or each of them fills a page.
    fn segment(rng: &mut Rng) -> Vec<u8> {
        let mut writer = SegmentWriter::new(Vec::new());
        let fill_pages = rng.u8(..3) == 0;
        while writer.written() < 24 * PAGE {
            if fill_pages {
                let record: Vec<u8> =
                    std::iter::repeat_with(|| rng.u8(..8)).take(PAGE_SIZE - HEADER_SIZE).collect();
                writer.record(Compression::None, &record).expect("memory");
                continue;
            }
            let most = if rng.u8(..4) == 0 { 3 * PAGE_SIZE } else { 4000 };
            let length = rng.usize(1..most);
            let record: Vec<u8> = std::iter::repeat_with(|| rng.u8(..8)).take(length).collect();
            let (compression, stored) = if rng.bool() {
                (Compression::None, record)
            } else {
                let packed = snap::raw::Encoder::new().compress_vec(&record);
                (Compression::Snappy, packed.expect("a short record"))
            };
            writer.record(compression, &stored).expect("memory");
        }
        writer.finish().expect("memory")
    }

    fn damage(bytes: &mut [u8], rng: &mut Rng) {
        let page = |rng: &mut Rng| rng.usize(..24) * PAGE_SIZE;
        let at = rng.usize(..bytes.len());
        let to = (at + rng.usize(1..PAGE_SIZE)).min(bytes.len());
        match rng.u8(..7) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes[at] = rng.u8(..),
            2 => bytes[at..to].fill(0),
            3 => bytes[at..to].fill_with(|| rng.u8(..)),
            // The beginning of a page, where its first header is.
            4 => {
                let at = page(rng) + rng.usize(..8);
                bytes[at] ^= 1 << rng.u8(..8);
            }
            5 => {
                let at = page(rng);
                bytes[at..at + PAGE_SIZE].fill(0);
            }
            _ => {
                let (from, to) = (page(rng), page(rng));
                bytes.copy_within(from..from + PAGE_SIZE, to);
            }
        }
    }

    /// The intact parts, if no page is the same as another.
    fn intact(bytes: &[u8], rng: &mut Rng) -> Option<Vec<IntactPart>> {
        let (mut walker, mut pages, mut parts) = (Walker::default(), Pages::default(), Vec::new());
        let length = bytes.len() as u64;
        let (mut from, mut is_after_gap) = (0, true);
        while from < length {
            let stretch = from..(from + rng.u64(1..4) * PAGE).min(length);
            from = stretch.end;
            let mut part: Option<IntactPart> = None;
            let mut here = Pages::default();
            let is_intact = walker.walk(bytes, length, stretch.clone(), &mut here, |record| {
                let unpacked = unpacked_bytes(record);
                let known = part.get_or_insert(IntactPart {
                    from: record.offset,
                    to: stretch.end,
                    end: 0,
                    unpacked: 0,
                });
                known.end = record.end;
                known.unpacked += unpacked;
                true
            });
            match (is_intact, part, parts.last_mut()) {
                (Ok(()), Some(part), Some(last)) if !is_after_gap => {
                    let last: &mut IntactPart = last;
                    (last.to, last.end) = (part.to, part.end);
                    last.unpacked += part.unpacked;
                }
                (Ok(()), None, Some(last)) if !is_after_gap => last.to = stretch.end,
                (Ok(()), Some(part), _) => {
                    parts.push(part);
                    is_after_gap = false;
                }
                _ => is_after_gap = true,
            }
        }
        add_pages(bytes, 0..length, &mut pages).then_some(parts)
    }

    fn words(event: &Event<'_>) -> String {
        format!("{event:?}")
    }

    fn carefully<S: ReadAt + ?Sized>(source: &S, length: u64) -> (Vec<String>, u64) {
        let mut reader = SegmentReader::new(source, length);
        let mut all = Vec::new();
        while let Some(event) = reader.next() {
            all.push(words(&event));
        }
        (all, reader.data_end())
    }

    fn around_damage<S: ReadAt + ?Sized>(
        source: &S,
        length: u64,
        intact: &[IntactPart],
    ) -> (Vec<String>, u64, usize) {
        let (mut all, mut walked) = (Vec::new(), 0);
        let reader = read(source, length, intact, &HashSet::new(), |met| match met {
            Met::Read(event) => all.push(words(&event)),
            Met::Walked(record) => {
                walked += 1;
                all.push(words(&Event::Record(*record)));
            }
            Met::WalkEnds => {}
        });
        let end = reader.data_end();
        (all, end, walked)
    }

    /// With the records of intact parts put where these were left out.
    fn between(bytes: &[u8], intact: &[IntactPart]) -> Option<(Vec<String>, u64)> {
        let length = bytes.len() as u64;
        let mut all = Vec::new();
        let reader = read_between(bytes, length, intact, |between| match between {
            Between::Read(event) => all.push(words(&event)),
            Between::LeftOut(number) => {
                let part = intact[number];
                let push = |record: &Record<'_>| all.push(words(&Event::Record(*record)));
                Walker::default().walk_on(bytes, length, part.from..part.to, u64::MAX, push).expect("intact");
            }
        })?;
        let end = reader.data_end();
        Some((all, end))
    }

    #[test]
    fn it_is_what_a_careful_reader_finds() {
        let (mut walked, mut left_out) = (0, 0);
        for seed in 0..120 {
            let mut rng = Rng::with_seed(seed);
            let mut bytes = segment(&mut rng);
            for _ in 0..rng.usize(..5) {
                damage(&mut bytes, &mut rng);
            }
            let Some(intact) = intact(&bytes, &mut rng) else { continue };
            let length = bytes.len() as u64;
            let (all, end) = carefully(&bytes[..], length);
            let (same, same_end, here) = around_damage(&bytes[..], length, &intact);
            assert_eq!((&all, end), (&same, same_end), "seed {seed}");
            walked += here;
            if let Some((same, same_end)) = between(&bytes, &intact) {
                assert_eq!((&all, end), (&same, same_end), "seed {seed}, without the intact parts");
                left_out += intact.len();
            }
        }
        assert!(walked > 2_000 && left_out > 120, "{walked} {left_out}");
    }

    /// Bytes of which some cannot be read any more.
    struct Failing<'a> {
        bytes: &'a [u8],
        fails: Range<u64>,
    }

    impl ReadAt for Failing<'_> {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
            let end = offset + buffer.len() as u64;
            if offset < self.fails.end && self.fails.start < end {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            self.bytes.read_at(buffer, offset)
        }
    }

    /// A medium that fails after a part was found intact.
    #[test]
    fn what_fails_later_is_read_as_by_a_careful_reader() {
        let mut failing = 0;
        for seed in 0..120 {
            let mut rng = Rng::with_seed(seed);
            let mut bytes = segment(&mut rng);
            if rng.bool() {
                damage(&mut bytes, &mut rng);
            }
            let Some(intact) = intact(&bytes, &mut rng) else { continue };
            let length = bytes.len() as u64;
            let from = rng.u64(..length / 512) * 512;
            let source = Failing { bytes: &bytes, fails: from..from + 512 * rng.u64(1..20) };
            let (all, end) = carefully(&source, length);
            let (same, same_end, _) = around_damage(&source, length, &intact);
            assert_eq!((&all, end), (&same, same_end), "seed {seed}, {:?}", source.fails);
            failing += usize::from(!intact.is_empty());
        }
        assert!(failing > 60, "{failing}");
    }
}
