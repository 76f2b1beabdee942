//! Series by their labels and refs by their numbers, both counted from 0 in the order in which they are met.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use crate::record::Labels;

/// None of those that are counted.
pub(super) const NONE: u32 = u32::MAX;

/// 128 bits that are made of the labels of a series.
pub(super) type Name = [u64; 2];

/// Makes names. Its seeds differ in each run: nobody can make labels for which the bits are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Namer {
    seeds: [RandomState; 2],
}

impl Namer {
    pub(super) fn name(&self, labels: &Labels<'_>) -> Name {
        [self.seeds[0].hash_one(labels), self.seeds[1].hash_one(labels)]
    }
}

/// Series by their names. A name is a hash already, so none is made of it. Each is stored once, in the order of the series: 20 to
/// 28 bytes a series.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By series.
    names: Vec<Name>,
    /// Series, each at the first place that was free from where its name says; as many as a power of two.
    places: Vec<u32>,
}

impl Names {
    const FEWEST_PLACES: usize = 64;

    /// The series of that name, which may be new.
    pub(super) fn number(&mut self, name: Name) -> u32 {
        if self.names.len() >= self.places.len() / 4 * 3 {
            self.grow();
        }
        let place = self.place(name);
        if self.places[place] == NONE {
            self.places[place] = next(self.names.len());
            self.names.push(name);
        }
        self.places[place]
    }

    /// The series of that name, if it is known.
    pub(super) fn find(&self, name: Name) -> u32 {
        if self.places.is_empty() { NONE } else { self.places[self.place(name)] }
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Where a name is, or would be.
    fn place(&self, name: Name) -> usize {
        let last = self.places.len() - 1;
        let mut place = usize::try_from(name[0] & last as u64).unwrap_or(0);
        while self.places[place] != NONE && self.names[self.places[place] as usize] != name {
            place = (place + 1) & last;
        }
        place
    }

    fn grow(&mut self) {
        let places = (2 * self.places.len()).max(Self::FEWEST_PLACES);
        self.places = Vec::new();
        self.places = vec![NONE; places];
        for series in 0..self.names.len() {
            let place = self.place(self.names[series]);
            self.places[place] = next(series);
        }
    }
}

/// Refs, which are numbers from 1 on in nearly all logs.
#[derive(Debug, Default)]
pub(super) struct Refs {
    /// By number, as long as it is not much longer than there are refs.
    low: Vec<u32>,
    high: HashMap<u64, u32, Mixing>,
    count: usize,
}

impl Refs {
    /// The ref of that number, if it is known.
    pub(super) fn find(&self, number: u64) -> u32 {
        let low = usize::try_from(number).ok().and_then(|number| self.low.get(number));
        match low {
            Some(&known) if known != NONE => known,
            _ if self.high.is_empty() => NONE,
            _ => self.high.get(&number).copied().unwrap_or(NONE),
        }
    }

    /// The same, which may be new.
    pub(super) fn number(&mut self, number: u64) -> u32 {
        let known = self.find(number);
        if known != NONE {
            return known;
        }
        let next = next(self.count);
        self.count += 1;
        match usize::try_from(number) {
            Ok(low) if low < 4096 + 4 * self.count => {
                if self.low.len() <= low {
                    self.low.resize(low + 1, NONE);
                }
                self.low[low] = next;
            }
            _ => {
                self.high.insert(number, next);
            }
        }
        next
    }
}

fn next(known: usize) -> u32 {
    // There is no memory for so many.
    u32::try_from(known).unwrap_or(NONE)
}

/// Hashes one number, by a multiplication with a secret one: several times faster than the hasher of the standard
/// library, and each sample needs it.
#[derive(Clone, Debug)]
struct Mixing {
    secret: u64,
}

impl Default for Mixing {
    fn default() -> Self {
        Self { secret: RandomState::new().hash_one(0) | 1 }
    }
}

impl BuildHasher for Mixing {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer { secret: self.secret, state: 0 }
    }
}

struct Mixer {
    secret: u64,
    state: u64,
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ self.state ^ self.secret) * u128::from(self.secret | 1 << 63);
        self.state = (product >> 64) as u64 ^ product as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{NONE, Names};

    #[test]
    fn names_are_counted_in_the_order_in_which_they_come() {
        let mut names = Names::default();
        assert_eq!((names.find([1, 1]), names.len()), (NONE, 0));
        // Some of them want the same place.
        let all: Vec<[u64; 2]> = (0..1000).map(|i| [i / 3, i]).collect();
        for (number, &name) in (0..).zip(&all) {
            assert_eq!(names.find(name), NONE);
            assert_eq!(names.number(name), number);
        }
        assert!((0..).zip(&all).all(|(number, &name)| names.find(name) == number));
        assert!((0..).zip(&all).all(|(number, &name)| names.number(name) == number));
        assert_eq!(names.len(), 1000);
    }
}
