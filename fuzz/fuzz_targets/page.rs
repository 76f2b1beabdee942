//! The pieces of a page tile it, whatever is in it, and each is what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::wal::PAGE_SIZE;
use walfix::wal::page::{Piece, piece};

fuzz_target!(|input: &[u8]| {
    let log = walfix_fuzz::log(input);
    for page in log.bytes.chunks(PAGE_SIZE) {
        let mut at = 0;
        while let Some(piece) = piece(page, at) {
            at = match piece {
                Piece::Fragment { start, header, data } => {
                    assert_eq!(start, at);
                    assert_eq!(crc32c::crc32c(data), header.crc);
                    assert_eq!(&page[start..start + 7], header.to_bytes());
                    assert_eq!(&page[start + 7..start + header.size()], data);
                    start + header.size()
                }
                Piece::Padding { start } => {
                    assert_eq!(start, at);
                    assert!(page[start..].iter().all(|&byte| byte == 0));
                    page.len()
                }
                Piece::Damage { start, end, flip, .. } => {
                    // Zeros may be passed over before it.
                    assert!(at <= start && start < end && end <= page.len(), "{start}..{end} at {at}");
                    assert!(page[at..start].iter().all(|&byte| byte == 0));
                    if let Some(flip) = flip {
                        let mut mended = page[start..end].to_vec();
                        mended[flip.at - start] ^= flip.mask;
                        assert_eq!(mended[..7], flip.header.to_bytes());
                        assert_eq!(crc32c::crc32c(&mended[7..]), flip.header.crc);
                    }
                    end
                }
            };
        }
        assert_eq!(at, page.len());
    }
});
