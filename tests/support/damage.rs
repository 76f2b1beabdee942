//! Damages, each made from a seed.

use std::fmt::Write as _;
use std::ops::Range;

const PAGE: usize = 32768;

/// What was done to a segment.
#[derive(Clone, Debug)]
pub struct Damage {
    pub kind: &'static str,
    /// In words, for a failing test.
    pub what: String,
}

pub const KINDS: [&str; 16] = [
    "bit",
    "two bits",
    "three bits",
    "byte",
    "eight bytes",
    "range overwritten",
    "range zeroed",
    "sectors zeroed",
    "page zeroed",
    "truncated",
    "torn and zero filled",
    "pages swapped",
    "page copied over another",
    "page inserted again",
    "garbage appended",
    "header bit",
];

/// Damages `bytes` in the way of `kind`; bits and bytes `within` that range. `headers` are the offsets at which
/// fragments begin.
pub fn apply(
    kind: &'static str,
    bytes: &mut Vec<u8>,
    within: Range<usize>,
    headers: &[usize],
    rng: &mut fastrand::Rng,
) -> Damage {
    let what = match kind {
        "bit" => flip(&mut bytes[within], 1, rng),
        "two bits" => flip(&mut bytes[within], 2, rng),
        "three bits" => flip(&mut bytes[within], 3, rng),
        "byte" => overwrite(&mut bytes[within], 1, rng),
        "eight bytes" => overwrite(&mut bytes[within], 8, rng),
        "range overwritten" => {
            let most = [16, 300, 5000, 70_000][rng.usize(..4)];
            let length = rng.usize(2..=most);
            overwrite(bytes, length, rng)
        }
        "range zeroed" => {
            let most = [16, 300, 5000, 70_000][rng.usize(..4)];
            let length = rng.usize(1..=most);
            zero(bytes, 1, length, rng)
        }
        "sectors zeroed" => {
            let length = 512 * rng.usize(1..=16);
            zero(bytes, 512, length, rng)
        }
        "page zeroed" => {
            let length = PAGE * rng.usize(1..=2);
            zero(bytes, PAGE, length, rng)
        }
        "truncated" => {
            let to = rng.usize(..bytes.len());
            bytes.truncate(to);
            format!("cut to {to}")
        }
        "torn and zero filled" => {
            let from = rng.usize(..bytes.len());
            bytes[from..].fill(0);
            format!("zeros from {from}")
        }
        "pages swapped" => {
            let (a, b) = two_pages(bytes, rng);
            let page = bytes[a.clone()].to_vec();
            bytes.copy_within(b.clone(), a.start);
            bytes[b.clone()].copy_from_slice(&page);
            format!("pages at {} and {} swapped", a.start, b.start)
        }
        "page copied over another" => {
            let (a, b) = two_pages(bytes, rng);
            bytes.copy_within(a.clone(), b.start);
            format!("page at {} copied over that at {}", a.start, b.start)
        }
        "page inserted again" => {
            let (a, b) = two_pages(bytes, rng);
            let page = bytes[a.clone()].to_vec();
            bytes.splice(b.start..b.start, page);
            format!("page at {} inserted at {}", a.start, b.start)
        }
        "garbage appended" => {
            let garbage: Vec<u8> = (0..rng.usize(1..=70_000)).map(|_| rng.u8(..)).collect();
            bytes.extend_from_slice(&garbage);
            format!("{} bytes of garbage appended", garbage.len())
        }
        "header bit" => {
            let at = headers[rng.usize(..headers.len())];
            let mask = 1 << rng.u8(..8);
            bytes[at] ^= mask;
            format!("bit {mask:#04x} of the header byte at {at} flipped")
        }
        other => panic!("no such damage: {other}"),
    };
    Damage { kind, what }
}

fn flip(bytes: &mut [u8], count: usize, rng: &mut fastrand::Rng) -> String {
    let mut what = String::new();
    for _ in 0..count {
        let (at, mask) = (rng.usize(..bytes.len()), 1u8 << rng.u8(..8));
        bytes[at] ^= mask;
        write!(what, "{at}^{mask:02x} ").unwrap();
    }
    what
}

fn place(bytes: &[u8], align: usize, length: usize, rng: &mut fastrand::Rng) -> Range<usize> {
    let start = rng.usize(..bytes.len()) / align * align;
    start..(start + length).min(bytes.len())
}

fn overwrite(bytes: &mut [u8], length: usize, rng: &mut fastrand::Rng) -> String {
    let range = place(bytes, 1, length, rng);
    bytes[range.clone()].iter_mut().for_each(|byte| *byte = rng.u8(..));
    format!("{range:?} overwritten")
}

fn zero(bytes: &mut [u8], align: usize, length: usize, rng: &mut fastrand::Rng) -> String {
    let range = place(bytes, align, length, rng);
    bytes[range.clone()].fill(0);
    format!("{range:?} zeroed")
}

fn two_pages(bytes: &[u8], rng: &mut fastrand::Rng) -> (Range<usize>, Range<usize>) {
    let pages = bytes.len() / PAGE;
    assert!(pages >= 2, "too short to have two pages");
    let a = rng.usize(..pages);
    let b = (a + rng.usize(1..pages)) % pages;
    (a * PAGE..(a + 1) * PAGE, b * PAGE..(b + 1) * PAGE)
}
