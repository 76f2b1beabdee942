//! Files of head chunks, made from nothing: every sample of a chunk has one value, and all are as far apart.

/// A chunk of one series.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    pub series_ref: u64,
    /// The time of the first sample, ms.
    pub from: i64,
    /// Between two samples, ms.
    pub step: i64,
    pub samples: u16,
    pub value: f64,
    pub out_of_order: bool,
}

impl Chunk {
    /// The time of the last sample, ms.
    pub fn to(&self) -> i64 {
        self.from + self.step * i64::from(self.samples - 1)
    }

    /// As `ChunkDiskMapper` writes it.
    pub fn bytes(&self) -> Vec<u8> {
        let data = self.data();
        let mut bytes = self.series_ref.to_be_bytes().to_vec();
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to().to_be_bytes());
        bytes.push(1 | if self.out_of_order { 0x80 } else { 0 });
        uvarint(&mut bytes, data.len() as u64);
        bytes.extend(data);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    /// XOR: of equal values and distances all bits behind the second sample are 0.
    pub fn data(&self) -> Vec<u8> {
        let mut data = self.samples.to_be_bytes().to_vec();
        uvarint(&mut data, (self.from << 1 ^ self.from >> 63).cast_unsigned());
        data.extend(self.value.to_bits().to_be_bytes());
        if self.samples > 1 {
            uvarint(&mut data, self.step.cast_unsigned());
            let bits = 1 + 2 * (usize::from(self.samples) - 2);
            data.resize(data.len() + bits.div_ceil(8), 0);
        }
        data
    }
}

fn uvarint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
}

/// A file of them, with zeros behind, as files are made longer than they need be.
pub fn file(chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = vec![0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0];
    bytes.extend(chunks.iter().flat_map(Chunk::bytes));
    bytes.resize(bytes.len() + 100, 0);
    bytes
}
