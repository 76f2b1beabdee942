//! CRC-32C (Castagnoli) with two witnesses, over any stretch of a page, and the bit that explains a mismatch.

use std::sync::LazyLock;

/// The polynomial, reflected (`hash/crc32`, `Castagnoli`).
const POLY: u32 = 0x82F6_3B78;

/// The checksum of `data`, as a fragment header stores it.
#[must_use]
pub fn checksum(data: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(data)
}

/// Whether `stored` is the checksum of `data`. Before it says no it asks a second implementation: a fault in the
/// vector code for one kind of processor must never be taken for damage.
#[must_use]
pub fn matches(data: &[u8], stored: u32) -> bool {
    checksum(data) == stored || second_opinion(data, stored)
}

#[cold]
fn second_opinion(data: &[u8], stored: u32) -> bool {
    crc32c::crc32c(data) == stored
}

const fn step_bit(state: u32) -> u32 {
    if state & 1 != 0 { (state >> 1) ^ POLY } else { state >> 1 }
}

const BYTE_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "i < 256")]
        let mut state = i as u32;
        let mut bit = 0;
        while bit < 8 {
            state = step_bit(state);
            bit += 1;
        }
        table[i] = state;
        i += 1;
    }
    table
};

fn step_byte(state: u32, byte: u8) -> u32 {
    let [low, ..] = (state ^ u32::from(byte)).to_le_bytes();
    (state >> 8) ^ BYTE_TABLE[usize::from(low)]
}

/// a * b modulo the polynomial; bit 31 is x^0, as everywhere in a reflected CRC.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 1u32 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = step_bit(b);
        bit >>= 1;
    }
    product
}

/// Checksums of every stretch of one page in constant time each, after one pass over it.
///
/// With R(b) the CRC register after b bytes from a zero start, the register of the stretch [a, b) alone is
/// R(b) + R(a) x^(8(b-a)).
pub struct Stretches {
    registers: Vec<u32>,
    powers: Vec<u32>,
}

impl Stretches {
    /// Of all stretches of `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut registers = Vec::with_capacity(bytes.len() + 1);
        let mut powers = Vec::with_capacity(bytes.len() + 1);
        let (mut register, mut power) = (0u32, 1u32 << 31);
        registers.push(register);
        powers.push(power);
        for &byte in bytes {
            register = step_byte(register, byte);
            power = step_byte(power, 0);
            registers.push(register);
            powers.push(power);
        }
        Self { registers, powers }
    }

    /// The checksum of `bytes[start..end]`; `None` where that is no stretch of them.
    #[must_use]
    pub fn checksum(&self, start: usize, end: usize) -> Option<u32> {
        let length = end.checked_sub(start)?;
        let power = *self.powers.get(length)?;
        let register = *self.registers.get(end)? ^ multiply(*self.registers.get(start)?, power);
        Some(register ^ multiply(u32::MAX, power) ^ u32::MAX)
    }
}

/// The one flipped bit of `length` data bytes that changes their checksum by `syndrome` (computed xor stored):
/// (index of the byte, mask of the bit). At most one bit does: single-bit errors have distinct syndromes in
/// anything shorter than 2^31 - 1 bits.
#[must_use]
pub fn flipped_data_bit(length: usize, syndrome: u32) -> Option<(usize, u8)> {
    // The effect of the last bit that goes into the register is x^0 * x, and each bit before it adds one step. So it is asked
    // after how many steps the effect is the syndrome: baby steps from the one, giant steps back from the other.
    let steps = &*STEPS;
    let mut state = syndrome;
    for giant in 0..(length * 8).div_ceil(BABY_STEPS) {
        if let Some(baby) = steps.baby(state) {
            let step = giant * BABY_STEPS + baby;
            let from_end = step / 8;
            return (from_end < length).then(|| (length - 1 - from_end, 1 << (7 - step % 8)));
        }
        state = steps.giant_back(state);
    }
    None
}

/// How many of the steps from bit to bit are known one by one.
const BABY_STEPS: usize = 512;

static STEPS: LazyLock<Steps> = LazyLock::new(Steps::new);

/// Steps of the register, known beforehand.
struct Steps {
    /// Effects of the last [`BABY_STEPS`] bits, sorted, and how many steps each is.
    babies: Vec<(u32, usize)>,
    /// A bit for each value of the low 16 bits: whether any of them has it.
    may_be_baby: Vec<u64>,
    /// What [`BABY_STEPS`] steps back make of each byte of the register.
    back: [[u32; 256]; 4],
}

impl Steps {
    fn new() -> Self {
        let mut babies = Vec::with_capacity(BABY_STEPS);
        let mut may_be_baby = vec![0; 1 << 10];
        let mut effect = POLY;
        for step in 0..BABY_STEPS {
            babies.push((effect, step));
            let (word, bit) = Self::filter(effect);
            may_be_baby[word] |= bit;
            effect = step_bit(effect);
        }
        babies.sort_unstable();
        let mut back = [[0; 256]; 4];
        for (index, table) in back.iter_mut().enumerate() {
            for (byte, entry) in (0u32..).zip(table) {
                *entry = (0..BABY_STEPS).fold(byte << (8 * index), |state, _| step_bit_back(state));
            }
        }
        Self { babies, may_be_baby, back }
    }

    fn filter(state: u32) -> (usize, u64) {
        let [low, high, ..] = state.to_le_bytes();
        let number = u16::from_le_bytes([low, high]);
        (usize::from(number >> 6), 1 << (number & 63))
    }

    fn baby(&self, state: u32) -> Option<usize> {
        let (word, bit) = Self::filter(state);
        if self.may_be_baby[word] & bit == 0 {
            return None;
        }
        let at = self.babies.binary_search_by_key(&state, |&(effect, _)| effect).ok()?;
        Some(self.babies[at].1)
    }

    fn giant_back(&self, state: u32) -> u32 {
        let bytes = state.to_le_bytes();
        self.back.iter().zip(bytes).fold(0, |sum, (table, byte)| sum ^ table[usize::from(byte)])
    }
}

/// What [`step_bit`] came from.
const fn step_bit_back(state: u32) -> u32 {
    // The polynomial has its highest bit set, and a shifted register has not.
    if state >> 31 != 0 { (state ^ POLY) << 1 | 1 } else { state << 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_polynomial() {
        assert_eq!(checksum(b"123456789"), 0xE306_9283);
        assert!(matches(b"123456789", 0xE306_9283));
        assert!(!matches(b"123456789", 0xE306_9284));
    }

    #[test]
    fn every_stretch_has_its_checksum() {
        let bytes: Vec<u8> = (0..300u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let stretches = Stretches::new(&bytes);
        for start in (0..300).step_by(7) {
            for end in start..=300 {
                assert_eq!(stretches.checksum(start, end), Some(crc32c::crc32c(&bytes[start..end])));
            }
        }
        assert_eq!(stretches.checksum(2, 1), None);
        assert_eq!(stretches.checksum(0, 301), None);
    }

    #[test]
    fn flipped_bits_of_the_longest_fragments_are_found() {
        let mut bytes = vec![0x5a; 32_761];
        let good = checksum(&bytes);
        for bit in (0..bytes.len() * 8).step_by(97).chain([0, 1, bytes.len() * 8 - 1]) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let syndrome = checksum(&bytes) ^ good;
            assert_eq!(flipped_data_bit(bytes.len(), syndrome), Some((bit / 8, 1 << (bit % 8))), "bit {bit}");
            // In fewer bytes than lie after it, it is none of theirs.
            let after = bytes.len() - bit / 8 - 1;
            assert_eq!(flipped_data_bit(after, syndrome), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for two in 1..1000 {
            bytes[two] ^= 1;
            bytes[two - 1] ^= 2;
            assert_eq!(flipped_data_bit(bytes.len(), checksum(&bytes) ^ good), None, "{two}");
            bytes[two] ^= 1;
            bytes[two - 1] ^= 2;
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut bytes: Vec<u8> = (0..97u8).map(|i| i.wrapping_mul(37)).collect();
        let good = checksum(&bytes);
        for index in 0..bytes.len() {
            for bit in 0..8 {
                bytes[index] ^= 1 << bit;
                assert_eq!(flipped_data_bit(bytes.len(), checksum(&bytes) ^ good), Some((index, 1 << bit)));
                bytes[index] ^= 1 << bit;
            }
        }
    }
}
