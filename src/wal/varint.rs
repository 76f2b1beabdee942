//! Varints, as snappy blocks and records have them (`encoding/binary`, `PutUvarint`).

/// Appends `value`, seven bits a byte, the lowest first.
#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
