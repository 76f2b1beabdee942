//! Bytes that every reader skips, to replace damaged ones.
//!
//! A filling is made of records of samples without a sample: one byte, the type. Every reader decodes it to nothing
//! (`Decoder.Samples`, `tsdb/record/record.go`): the server of every version, the agent, remote write, promtool, the making
//! of a checkpoint. No server writes one, so it is also a mark: here something was lost. An empty record, or one of an unknown
//! type, would not do: an agent takes these for corruption (`tsdb/agent/db.go`, `loadWAL`).
//!
//! Such a fragment has 8 bytes. Other lengths are had from snappy, in which the same byte can be said at greater length
//! than a compressor would.

use super::crc;
use super::layout::{Compression, FragmentType, HEADER_SIZE, HeadByte, Header};
use super::varint::put_uvarint;

/// All of the record: the type of samples (`record.Samples`).
const EMPTY_SAMPLES: u8 = 2;

/// Bytes of the smallest filling.
const PLAIN: usize = HEADER_SIZE + 1;

/// `length` bytes of complete fragments that say nothing. `None` for lengths that no such fragments have: below 8, and 9.
#[must_use]
pub fn fill(length: usize) -> Option<Vec<u8>> {
    let odd = match length % PLAIN {
        0 => 0,
        1 => 2 * PLAIN + 1,
        rest => PLAIN + rest,
    };
    let plain = length.checked_sub(odd)? / PLAIN;
    let mut bytes = Vec::with_capacity(length);
    for _ in 0..plain {
        put(&mut bytes, Compression::None, &[EMPTY_SAMPLES]);
    }
    if odd > 0 {
        put(&mut bytes, Compression::Snappy, &literal(&[EMPTY_SAMPLES], odd - HEADER_SIZE)?);
    }
    (length > 0).then_some(bytes)
}

/// `length` bytes up to the end of a page: fragments as of [`fill`], and zeros where there is no room for one.
#[must_use]
pub fn fill_to_page_end(length: usize) -> Vec<u8> {
    let zeros = |count| vec![0; count];
    match fill(length) {
        Some(bytes) => bytes,
        None if length < PLAIN => zeros(length),
        None => fill(PLAIN).into_iter().flatten().chain(zeros(length - PLAIN)).collect(),
    }
}

/// `data` as a snappy block of `size` bytes (`format_description.txt` of snappy: the length as a varint, then a literal,
/// whose length may take up to four bytes more than it needs). `None` for sizes that it cannot have.
pub(crate) fn literal(data: &[u8], size: usize) -> Option<Vec<u8>> {
    /// Bytes of a varint of 32 bits.
    const LONGEST: usize = 5;
    let last = u32::try_from(data.len().checked_sub(1)?).ok()?;
    let mut length = Vec::new();
    put_uvarint(&mut length, data.len() as u64);
    let needed = if last < 60 { 0 } else { 4 - last.leading_zeros() as usize / 8 };
    let spare = size.checked_sub(length.len() + 1 + needed + data.len())?;
    let more = spare.min(4 - needed);
    let overlong = spare - more;
    if length.len() + overlong > LONGEST {
        return None;
    }
    if overlong > 0 {
        if let Some(highest) = length.last_mut() {
            *highest |= 0x80;
        }
        length.extend(std::iter::repeat_n(0x80, overlong - 1));
        length.push(0);
    }
    let mut block = length;
    let bytes = last.to_le_bytes();
    match needed + more {
        0 => block.push(bytes[0] << 2),
        count => {
            block.push([60, 61, 62, 63][count - 1] << 2);
            block.extend(&bytes[..count]);
        }
    }
    block.extend(data);
    Some(block)
}

fn put(bytes: &mut Vec<u8>, compression: Compression, data: &[u8]) {
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let head = HeadByte::new(FragmentType::Full, compression);
    bytes.extend(Header { head, length, crc: crc::checksum(data) }.to_bytes());
    bytes.extend(data);
}

#[cfg(test)]
mod tests {
    use super::{fill, fill_to_page_end, literal};
    use crate::wal::{Event, PAGE_SIZE, SegmentReader};

    #[test]
    fn a_filling_is_records_that_say_nothing() {
        for length in (10..3000).chain([8, PAGE_SIZE - 7, PAGE_SIZE]) {
            let bytes = fill(length).unwrap_or_else(|| panic!("{length}"));
            assert_eq!(bytes.len(), length);
            let mut reader = SegmentReader::new(&*bytes, bytes.len() as u64);
            let mut end = 0;
            while let Some(event) = reader.next() {
                let Event::Record(record) = event else { panic!("{length}: {event:?}") };
                assert_eq!((record.offset, record.data), (end, &[2][..]), "{length}");
                end = record.end;
            }
            assert_eq!(end, length as u64);
        }
    }

    /// Of `n` bytes: the varint has one byte for each seven bits of `n`, the tag one and, from 61 on, as many as `n - 1` has;
    /// at the most there are five of varint and five of tag.
    #[test]
    fn a_literal_has_many_lengths() {
        let sizes = [
            (1, 3, 12),
            (60, 62, 71),
            (61, 64, 72),
            (128, 132, 139),
            (257, 262, 268),
            (30_000, 30_006, 30_011),
        ];
        for (n, least, most) in sizes {
            let data: Vec<u8> = (0..=250).cycle().take(n).collect();
            for size in n..n + 30 {
                let Some(block) = literal(&data, size) else {
                    assert!(!(least..most).contains(&size), "{n} in {size}");
                    continue;
                };
                assert!((least..most).contains(&size), "{n} in {size}");
                assert_eq!(block.len(), size);
                assert_eq!(snap::raw::Decoder::new().decompress_vec(&block).expect("a block"), data);
            }
        }
    }

    #[test]
    fn some_lengths_cannot_be_filled() {
        assert_eq!(
            (0..20).filter(|&length| fill(length).is_none()).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 7, 9]
        );
        assert_eq!(fill_to_page_end(7), [0; 7]);
        assert_eq!(fill_to_page_end(9), [&fill(8).expect("the smallest")[..], &[0]].concat());
    }

    /// As 3.16's and older decoders read it (`testdata/oracle`); the checksum is that of the byte 2.
    #[test]
    fn the_smallest_is_eight_bytes() {
        assert_eq!(fill(8).expect("the smallest"), [1, 0, 1, 0xB3, 0x46, 0x23, 0xA6, 2]);
    }
}
