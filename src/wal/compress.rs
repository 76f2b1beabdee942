//! Unpacking a record. Compression is applied to the whole record, before it is cut into fragments
//! (`tsdb/compression`, `tsdb/wlog/wlog.go`).

use zstd::zstd_safe::DCtx;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;

use super::lanes::Lanes;
use super::layout::Compression;

/// The largest record that is unpacked, in bytes. Prometheus sets no bound; a record beyond this is a hostile
/// length in a header: the largest scrapes make records of a few tens of MiB.
pub const MAX_RECORD: usize = 256 << 20;

/// What one stored byte can unpack to at the most: zstd's run-length blocks hold 128 KiB in 4 bytes.
const MAX_RATIO: usize = 32 * 1024;

/// Why a record does not unpack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// No snappy block, or one that ends early, late or says a wrong length.
    #[error("snappy: {0}")]
    Snappy(String),
    /// No zstd frame, or one whose content checksum fails.
    #[error("zstd: {0}")]
    Zstd(ZstdError),
    /// It has so many bytes, more than [`MAX_RECORD`].
    #[error("the record has {0} bytes, more than walfix reads (256 MiB)")]
    TooLarge(u64),
    /// The records of its file unpack to more than is read of one file, see [`Unpacker::allow`].
    #[error("the records of this file unpack to more than 100 times its size and 1 GiB")]
    TooMuch,
}

/// Why zstd does not decompress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZstdError {
    /// It is no zstd frame.
    NoFrame,
    /// As the reference implementation returns it: 0 minus a `ZSTD_ErrorCode` (`lib/zstd_errors.h`).
    Code(usize),
}

impl ZstdError {
    /// There is not enough room for what comes out.
    const NO_ROOM: Self = Self::of(ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall);
    /// What comes out does not have the checksum of the frame.
    pub(crate) const CHECKSUM: Self = Self::of(ZSTD_ErrorCode::ZSTD_error_checksum_wrong);
    /// The frame is not complete.
    pub(crate) const CUT: Self = Self::of(ZSTD_ErrorCode::ZSTD_error_srcSize_wrong);

    const fn of(code: ZSTD_ErrorCode) -> Self {
        Self::Code(0_usize.wrapping_sub(code as usize))
    }
}

impl std::fmt::Display for ZstdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoFrame => f.write_str("no zstd frame"),
            Self::Code(code) => f.write_str(zstd::zstd_safe::get_error_name(*code)),
        }
    }
}

/// How many times their size records may unpack to, where there are many.
pub(crate) const MOST_UNPACKED: u64 = 100;

/// What the records of a file of so many bytes may unpack to, in bytes. Real ones come to ten times the size; a file made to
/// keep readers busy comes to 30 000 times.
#[must_use]
pub fn allowance(bytes: u64) -> u64 {
    bytes.saturating_mul(MOST_UNPACKED).saturating_add(1 << 30)
}

/// Bytes of a stored record that is worth a lane, and of what comes of it at the most.
const LANE: usize = 2 << 10;
const LONGEST_LANE: usize = 1 << 20;

/// Unpacks records; one for each thread, since its buffers are used again.
pub struct Unpacker {
    snappy: snap::raw::Decoder,
    lanes: Lanes,
    zstd: Option<DCtx<'static>>,
    buffer: Vec<u8>,
    unpacked: usize,
    /// Bytes that may still be unpacked.
    allowed: u64,
}

impl Default for Unpacker {
    /// Without a bound on what it unpacks in all.
    fn default() -> Self {
        Self {
            snappy: snap::raw::Decoder::default(),
            lanes: Lanes::default(),
            zstd: None,
            buffer: Vec::new(),
            unpacked: 0,
            allowed: u64::MAX,
        }
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("buffer", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Unpacker {
    /// From here on it unpacks so many bytes in all, and no more.
    pub fn allow(&mut self, bytes: u64) {
        self.allowed = bytes;
    }

    /// Bytes that it may still unpack.
    pub(super) fn allowed(&self) -> u64 {
        self.allowed
    }

    /// The record that `stored` holds: `stored` itself where it is not compressed.
    ///
    /// # Errors
    /// If `stored` is not exactly what the compression says, or too large.
    pub fn unpack<'a>(
        &'a mut self,
        compression: Compression,
        stored: &'a [u8],
    ) -> Result<&'a [u8], UnpackError> {
        match compression {
            Compression::None => Ok(stored),
            // Prometheus's reader hands nothing to the decoder then (`Decode`, `util/compression/compression.go`; before
            // v3.4 `nextNew`, `tsdb/wlog/reader.go`).
            Compression::Snappy | Compression::Zstd if stored.is_empty() => {
                self.unpacked = 0;
                Ok(&[])
            }
            Compression::Snappy => self.snappy(stored),
            Compression::Zstd => self.zstd(stored),
        }
    }

    /// How many bytes a record unpacks to, if it is worth unpacking beside others: samples that are compressed with snappy.
    pub(super) fn suits_lanes(compression: Compression, stored: &[u8]) -> Option<usize> {
        if compression != Compression::Snappy || stored.len() < LANE {
            return None;
        }
        let length = snap::raw::decompress_len(stored).ok()?;
        (length <= LONGEST_LANE && 2 * length < 5 * stored.len()).then_some(length)
    }

    /// Unpacks records beside each other, of which [`Self::suits_lanes`] says how long they are.
    ///
    /// # Errors
    /// If they come to more than is allowed.
    pub(super) fn unpack_all(&mut self, records: &[(&[u8], usize)]) -> Result<(), UnpackError> {
        let length = records.iter().map(|(_, length)| length).sum();
        charge(&mut self.allowed, length)?;
        self.lanes.unpack(records);
        Ok(())
    }

    /// What several snappy blocks unpack to, taken side by side whatever they are. For tests: a reader takes only those
    /// that are faster so.
    ///
    /// # Errors
    /// For each as of [`Self::unpack`].
    #[doc(hidden)]
    pub fn unpack_side_by_side(&mut self, stored: &[&[u8]]) -> Vec<Result<Vec<u8>, UnpackError>> {
        let length_of = |block: &&[u8]| snap::raw::decompress_len(block).unwrap_or(0).min(LONGEST_LANE);
        let blocks: Vec<_> = stored.iter().map(|block| (*block, length_of(block))).collect();
        let begun = self.unpack_all(&blocks);
        let unpacked_of = |(at, block): (usize, &&[u8])| {
            begun.clone().and_then(|()| self.unpacked_of(at, block).map(<[u8]>::to_vec))
        };
        stored.iter().enumerate().map(unpacked_of).collect()
    }

    /// What [`Self::unpack_all`] has made of a record, which is `stored`.
    ///
    /// # Errors
    /// As of [`Self::unpack`].
    pub(super) fn unpacked_of(&mut self, record: usize, stored: &[u8]) -> Result<&[u8], UnpackError> {
        // Asked twice, since the borrow would last otherwise.
        if self.lanes.get(record).is_some() {
            return Ok(self.lanes.get(record).unwrap_or_default());
        }
        let failed = |e: snap::Error| UnpackError::Snappy(e.to_string());
        let length = snap::raw::decompress_len(stored).map_err(failed)?;
        let out = grow(&mut self.buffer, length)?;
        self.unpacked = self.snappy.decompress(stored, out).map_err(failed)?;
        Ok(self.unpacked())
    }

    /// What the last call of [`Self::unpack`] made of a compressed record.
    #[must_use]
    pub fn unpacked(&self) -> &[u8] {
        self.buffer.get(..self.unpacked).unwrap_or_default()
    }

    fn snappy(&mut self, stored: &[u8]) -> Result<&[u8], UnpackError> {
        let failed = |e: snap::Error| UnpackError::Snappy(e.to_string());
        let length = snap::raw::decompress_len(stored).map_err(failed)?;
        // One snappy element of three bytes yields 64 at the most: a longer claim cannot be kept.
        if length / 64 > stored.len() {
            return Err(UnpackError::Snappy("the block claims more than its bytes can hold".into()));
        }
        charge(&mut self.allowed, length)?;
        let out = grow(&mut self.buffer, length)?;
        self.unpacked = self.snappy.decompress(stored, out).map_err(failed)?;
        Ok(self.unpacked())
    }

    fn zstd(&mut self, stored: &[u8]) -> Result<&[u8], UnpackError> {
        let zstd = self.zstd.get_or_insert_with(DCtx::create);
        let bound = stored.len().saturating_mul(MAX_RATIO).min(MAX_RECORD);
        let mut room = content_size(stored)?.min(bound);
        loop {
            charge(&mut self.allowed, room)?;
            let out = grow(&mut self.buffer, room)?;
            match zstd.decompress(out, stored).map_err(ZstdError::Code) {
                Ok(length) => {
                    self.unpacked = length;
                    return Ok(self.unpacked());
                }
                // Several frames, or one that does not say its size: ask again with more room.
                Err(ZstdError::NO_ROOM) if room < bound => {
                    room = room.max(1024).saturating_mul(2).min(bound);
                }
                Err(error) => return Err(UnpackError::Zstd(error)),
            }
        }
    }
}

fn charge(allowed: &mut u64, bytes: usize) -> Result<(), UnpackError> {
    *allowed = allowed.checked_sub(bytes as u64).ok_or(UnpackError::TooMuch)?;
    Ok(())
}

/// Whether what is stored has a checksum of what it unpacks to, which unpacking verifies. Prometheus's zstd encoder
/// writes one into each frame (bit 2 of the byte after the magic number, RFC 8878 section 3.1.1.1.1); snappy's block
/// format has none.
#[must_use]
pub fn has_own_checksum(compression: Compression, stored: &[u8]) -> bool {
    compression == Compression::Zstd && stored.get(4).is_some_and(|descriptor| descriptor & 0b100 != 0)
}

/// How many bytes a record says that it unpacks to; as many as can be said if it does not say it.
pub(crate) fn claims(compression: Compression, stored: &[u8]) -> u64 {
    match compression {
        Compression::None => stored.len() as u64,
        Compression::Snappy => snap::raw::decompress_len(stored).map_or(u64::MAX, |length| length as u64),
        Compression::Zstd => {
            zstd::zstd_safe::get_frame_content_size(stored).ok().flatten().unwrap_or(u64::MAX)
        }
    }
}

fn content_size(stored: &[u8]) -> Result<usize, UnpackError> {
    match zstd::zstd_safe::get_frame_content_size(stored) {
        Ok(Some(size)) => usize::try_from(size).map_err(|_| UnpackError::TooLarge(size)),
        Ok(None) => Ok(stored.len().saturating_mul(4)),
        Err(_) => Err(UnpackError::Zstd(ZstdError::NoFrame)),
    }
}

fn grow(buffer: &mut Vec<u8>, length: usize) -> Result<&mut [u8], UnpackError> {
    if length > MAX_RECORD {
        return Err(UnpackError::TooLarge(length as u64));
    }
    if buffer.len() < length {
        let room = length.max(buffer.len() * 2).min(MAX_RECORD);
        // What is in it is not needed: never have the old and the new at once.
        *buffer = Vec::new();
        *buffer = vec![0; room];
    }
    Ok(&mut buffer[..length])
}
