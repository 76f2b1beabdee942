//! Chunks: up to some hundred samples of one series, in the encodings of `tsdb/chunkenc`. Head chunks, chunk snapshots and
//! blocks have them.
//!
//! All numbers are bits, the highest of a byte first. A chunk begins with a BE16 count of its samples. It does not say where its
//! bits end: they are padded with zeros to a whole byte.

mod bits;
mod float_histograms;
mod histograms;
mod layout;
mod start_times;
mod varbit;
mod xor;
mod xor2;

pub use self::float_histograms::encode_float_histograms;
pub use self::histograms::encode_histograms;
pub use self::xor::encode_floats;

use self::bits::BitReader;
use crate::record::{OwnedFloatHistogram, OwnedHistogram};

/// How the samples of a chunk are encoded (`tsdb/chunkenc/chunk.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// 1: floats.
    Xor,
    /// 2: histograms with integer counts, since 2.40.
    Histogram,
    /// 3: histograms with float counts, since 2.42.
    FloatHistogram,
    /// 4: floats, with start timestamps if there are any, since 3.11.
    Xor2,
    /// 5: as 2 with start timestamps, since 3.14.
    HistogramSt,
    /// 6: as 3 with start timestamps, since 3.14.
    FloatHistogramSt,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Xor,
        Self::Histogram,
        Self::FloatHistogram,
        Self::Xor2,
        Self::HistogramSt,
        Self::FloatHistogramSt,
    ];

    /// Of the byte that stands for it, without the bit of out-of-order head chunks. `None` for a byte that Prometheus does not
    /// know.
    #[must_use]
    pub const fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Xor,
            2 => Self::Histogram,
            3 => Self::FloatHistogram,
            4 => Self::Xor2,
            5 => Self::HistogramSt,
            6 => Self::FloatHistogramSt,
            _ => return None,
        })
    }

    /// The byte that stands for it.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Xor => 1,
            Self::Histogram => 2,
            Self::FloatHistogram => 3,
            Self::Xor2 => 4,
            Self::HistogramSt => 5,
            Self::FloatHistogramSt => 6,
        }
    }

    /// Bytes before the first sample.
    const fn header(self) -> usize {
        match self {
            Self::Xor => 2,
            _ => 3,
        }
    }

    /// How many samples a chunk of this encoding says that it has. `None` if it is too short to say so.
    #[must_use]
    pub fn count(self, data: &[u8]) -> Option<u16> {
        let count = u16::from_be_bytes(*data.first_chunk()?);
        Some(match self {
            // The two bits above are the counter reset header.
            Self::HistogramSt | Self::FloatHistogramSt => count & 0x3fff,
            _ => count,
        })
    }
}

/// A sample of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample<'a> {
    /// A float.
    Float {
        /// Timestamp, ms.
        t: i64,
        /// Start timestamp, ms; 0 if there is none.
        st: i64,
        /// The bits of the value, a 64-bit float.
        value_bits: u64,
    },
    /// A histogram with integer counts.
    Histogram {
        /// Timestamp, ms.
        t: i64,
        /// Start timestamp, ms; 0 if there is none.
        st: i64,
        /// The histogram. A staleness marker has nothing but its sum.
        histogram: &'a OwnedHistogram,
    },
    /// A histogram with float counts.
    FloatHistogram {
        /// Timestamp, ms.
        t: i64,
        /// Start timestamp, ms; 0 if there is none.
        st: i64,
        /// The histogram. A staleness marker has nothing but its sum.
        histogram: &'a OwnedFloatHistogram,
    },
}

impl Sample<'_> {
    /// Timestamp, ms.
    #[must_use]
    pub const fn t(&self) -> i64 {
        let (Self::Float { t, .. } | Self::Histogram { t, .. } | Self::FloatHistogram { t, .. }) = self;
        *t
    }
}

/// Why a chunk cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It has not even a header.
    #[error("the chunk has {0} bytes, fewer than its header")]
    NoHeader(usize),
    /// It ends within a sample.
    #[error("the chunk ends within sample {sample} of {count}")]
    CutShort {
        /// Which one, from 1 on.
        sample: u16,
        /// How many it says it has.
        count: u16,
    },
    /// A varint of a timestamp has more than 64 bits.
    #[error("sample {sample} of {count} has a number of more than 64 bits")]
    Overflow {
        /// Which one, from 1 on.
        sample: u16,
        /// How many it says it has.
        count: u16,
    },
    /// The histograms have a schema that Prometheus does not know (`IsKnownSchema`, `model/histogram/generic.go`).
    #[error("the histograms have the schema {0}, which Prometheus does not know")]
    UnknownSchema(i64),
}

/// What is left of a chunk after its last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Bits, at most 7 of them to fill a byte. XOR chunks of Prometheus before 3.0 may have one more byte, which is zero
    /// (`bstream`, fixed by #14854).
    pub bits: u64,
    /// All of them are zero.
    pub is_zero: bool,
}

impl Rest {
    /// Whether a writer leaves this.
    #[must_use]
    pub const fn is_padding(self) -> bool {
        self.is_zero && self.bits < 16
    }
}

/// Decodes the samples of a chunk, in order.
///
/// # Errors
/// At the first sample that cannot be decoded; `each` got those before it.
pub fn each_sample(
    encoding: Encoding,
    data: &[u8],
    mut each: impl FnMut(Sample<'_>),
) -> Result<Rest, ChunkError> {
    let (Some(count), Some(body)) = (encoding.count(data), data.get(encoding.header()..)) else {
        return Err(ChunkError::NoHeader(data.len()));
    };
    let mut bits = BitReader::new(body);
    let (first, third) = (data.first().copied().unwrap_or(0), data.get(2).copied().unwrap_or(0));
    let mut read = 0;
    let decoded = match encoding {
        Encoding::Xor => xor::decode(&mut bits, count, &mut read, &mut each),
        Encoding::Xor2 => xor2::decode(&mut bits, third, count, &mut read, &mut each),
        Encoding::Histogram => histograms::decode(&mut bits, third, None, count, &mut read, &mut each),
        Encoding::HistogramSt => {
            histograms::decode(&mut bits, first, Some(third), count, &mut read, &mut each)
        }
        Encoding::FloatHistogram => {
            float_histograms::decode(&mut bits, third, None, count, &mut read, &mut each)
        }
        Encoding::FloatHistogramSt => {
            float_histograms::decode(&mut bits, first, Some(third), count, &mut read, &mut each)
        }
    };
    let sample = read.saturating_add(1);
    decoded.map_err(|wrong| match wrong {
        Wrong::CutShort => ChunkError::CutShort { sample, count },
        Wrong::Overflow => ChunkError::Overflow { sample, count },
        Wrong::Schema(schema) => ChunkError::UnknownSchema(schema),
    })?;
    Ok(bits.rest())
}

/// Whether the samples of a chunk can be decoded, are in order, are from the one time to the other, ms, and have nothing but padding
/// after them. `None` where only [`each_sample`] tells.
#[must_use]
pub fn is_from_to(encoding: Encoding, data: &[u8], times: (i64, i64)) -> Option<bool> {
    match (encoding, encoding.count(data), data.get(encoding.header()..)) {
        (Encoding::Xor, Some(count), Some(body)) => Some(xor::is_from_to(body, count, times)),
        _ => None,
    }
}

/// What is wrong with a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    CutShort,
    Overflow,
    Schema(i64),
}

/// What the header of a chunk of histograms says of counter resets, for a sample (`counterResetHint`,
/// `tsdb/chunkenc/histogram.go`): 0 unknown, 2 no reset, 3 gauge.
const fn hint(header: u8, read: u16) -> u8 {
    match (header >> 6, read) {
        (3, _) => 3,
        (_, 0) => 0,
        _ => 2,
    }
}

/// The two bits of the header for the hint of the first sample.
const fn header_of(hint: u8) -> u8 {
    match hint {
        1 => 0b1000_0000,
        2 => 0b0100_0000,
        3 => 0b1100_0000,
        _ => 0,
    }
}
