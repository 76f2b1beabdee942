//! Unpacking ends in bounded memory, and a failure leaves nothing behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::wal::Compression;
use walfix::wal::compress::{MAX_RECORD, Unpacker};

fuzz_target!(|input: &[u8]| {
    let Some((&kind, stored)) = input.split_first() else { return };
    let compression = if kind & 1 == 0 { Compression::Snappy } else { Compression::Zstd };
    let mut unpacker = Unpacker::default();
    let first = unpacker.unpack(compression, stored).map(<[u8]>::to_vec);
    if let Ok(data) = &first {
        assert!(data.len() <= MAX_RECORD);
        assert_eq!(unpacker.unpacked(), data);
    }
    // With buffers used before.
    let good = snap::raw::Encoder::new().compress_vec(b"a record").unwrap();
    assert_eq!(unpacker.unpack(Compression::Snappy, &good).unwrap(), b"a record");
    let good = zstd::bulk::compress(b"a record", 1).unwrap();
    assert_eq!(unpacker.unpack(Compression::Zstd, &good).unwrap(), b"a record");
    assert!(unpacker.unpack(compression, stored).map(<[u8]>::to_vec) == first);
    // What is not compressed is returned as it is.
    assert_eq!(unpacker.unpack(Compression::None, stored).unwrap(), stored);
});
