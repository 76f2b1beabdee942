//! Appends what `cursor` reads, with the bytes of Prometheus's `encoding.Encbuf` (`tsdb/encoding/encoding.go`).

pub(crate) fn be64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(crate) fn uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn varint(out: &mut Vec<u8>, value: i64) {
    uvarint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(crate) fn length(out: &mut Vec<u8>, length: usize) {
    uvarint(out, length as u64);
}

pub(crate) fn string(out: &mut Vec<u8>, string: &[u8]) {
    length(out, string.len());
    out.extend_from_slice(string);
}
