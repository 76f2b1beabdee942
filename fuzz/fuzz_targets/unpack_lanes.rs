//! Snappy blocks side by side: each unpacks to what `snap` makes of it, or fails as it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::wal::compress::Unpacker;

/// What a block may claim to unpack to here.
const MOST: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    // The first bytes say where the rest is cut.
    let Some((cuts, mut rest)) = input.split_first_chunk::<4>() else { return };
    let mut blocks = Vec::new();
    for cut in cuts {
        let (block, after) = rest.split_at(rest.len() * usize::from(*cut) / 256);
        blocks.push(block);
        rest = after;
    }
    blocks.push(rest);
    // And blocks that are intact, so that the lanes have company.
    let intact = snap::raw::Encoder::new().compress_vec(&input.repeat(3)).unwrap();
    blocks.extend([&*intact, &*intact]);
    blocks.retain(|block| snap::raw::decompress_len(block).is_ok_and(|length| length <= MOST));
    let unpacked = Unpacker::default().unpack_side_by_side(&blocks);
    assert_eq!(unpacked.len(), blocks.len());
    for (unpacked, block) in unpacked.into_iter().zip(blocks) {
        assert_eq!(unpacked.ok(), snap::raw::Decoder::new().decompress_vec(block).ok());
    }
});
