//! Appends what `cursor` reads, with the bytes of Prometheus's `encoding.Encbuf` (`tsdb/encoding/encoding.go`).

pub(crate) use crate::wal::varint::put_uvarint as uvarint;

pub(crate) fn be64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
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
