//! What is wrong with a block, in words.

use std::fmt;

use super::amounts::{count, span, time};
use crate::scan::blocks::detail::{BlockDetail, Counted};

impl fmt::Display for BlockDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChunkUnreadable { error } => write!(f, "a chunk cannot be read: {error}"),
            Self::ChunkOnBadPages => f.write_str("the disk cannot read these bytes"),
            Self::ChunkFileMissing { place, files } => write!(
                f,
                "the index names chunks in file {place}, and there {}: queries of them fail, or return chunks of other series",
                match files {
                    0 => "is none".to_owned(),
                    1 => "is 1".to_owned(),
                    files => format!("are {files}"),
                }
            ),
            Self::ChunkEncoding { encoding } => {
                write!(f, "a chunk has the encoding {encoding}, which walfix does not know")
            }
            Self::ChunkUndecodable { error } => {
                write!(f, "the checksum of a chunk is right, and it cannot be decoded: {error}")
            }
            Self::ChunkEmpty => f.write_str("a chunk has no samples"),
            Self::ChunkTimes { indexed, found } => write!(
                f,
                "a chunk has samples of {}, and the index says {}",
                span(found.0, found.1),
                span(indexed.0, indexed.1)
            ),
            Self::ChunkOrder { time: at } => {
                write!(f, "the samples of a chunk are not in order: that of {} is too early", time(*at))
            }
            Self::ChunkSurplus { bits } => {
                write!(f, "a chunk has {} after its last sample", count(*bits, "bit"))
            }
            Self::SeriesUnreadable { error } => write!(f, "these bytes are no series: {error}"),
            Self::SymbolMissing { symbol } => {
                write!(f, "a series has a label with the symbol {symbol}, which is not there")
            }
            Self::SymbolsUnsorted => f.write_str("the symbols are not sorted: labels are not found"),
            Self::NoChunks => f.write_str("a series has no chunks"),
            Self::LabelsUnsorted => {
                f.write_str("the labels of a series are not sorted, or it has one twice")
            }
            Self::SeriesUnsorted { is_repeated: true } => {
                f.write_str("a series has the same labels as the one before")
            }
            Self::SeriesUnsorted { is_repeated: false } => f.write_str("a series comes before the one before"),
            Self::ChunksUnsorted { before, begins } => write!(
                f,
                "a chunk begins at {}, and the one before ends at {}",
                time(*begins),
                time(*before)
            ),
            Self::ReferencesUnsorted => f.write_str("a chunk lies before one of an earlier series"),
            Self::PostingsUnreadable { name, value, error } => {
                write!(f, "the list of {} cannot be read: {error}", Label(name, value))
            }
            Self::PostingsUnsorted { name, value } => {
                write!(f, "the list of {} is not sorted", Label(name, value))
            }
            Self::PostingsUnknown { name, value } => {
                write!(f, "there is a list of {}, which no symbol is for", Label(name, value))
            }
            Self::TableUnsorted { name, value } => {
                write!(f, "the list of {} is not where it belongs in the table", Label(name, value))
            }
            Self::PostingsDiffer => f.write_str(
                "the lists of series by label have other series than those that have the labels: queries return too little or too much",
            ),
            Self::OtherUlid { ulid } => write!(f, "it says that the block is {ulid:?}"),
            Self::OtherCount { what, stated, found } => {
                let what = match what {
                    Counted::Samples => "sample",
                    Counted::Series => "series",
                    Counted::Chunks => "chunk",
                    Counted::Tombstones => "tombstone",
                };
                write!(f, "it counts {}, and the block has {found}", count(*stated, what))
            }
            Self::OutsideTimes { stated, found } => write!(
                f,
                "the block has samples of {}, and it says {}",
                span(found.0, found.1),
                span(stated.0, stated.1.saturating_sub(1))
            ),
            Self::Overlaps { other, times } => write!(
                f,
                "it has samples of {}, as {other} may have",
                span(times.0, times.1.saturating_sub(1))
            ),
            Self::Gap { times } => {
                write!(f, "no block has samples of {}", span(times.0, times.1.saturating_sub(1)))
            }
            Self::More => f.write_str("more of the same"),
        }
    }
}

/// A label, or all series.
struct Label<'a>(&'a str, &'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, value) = self;
        if name.is_empty() && value.is_empty() {
            return f.write_str("all series");
        }
        write!(f, "series with {name}={value:?}")
    }
}
