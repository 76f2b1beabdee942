//! A unit of the log in pieces within which no head does anything else: what each ref has there, and which series are defined.
//!
//! A piece can be made on any thread, since it depends on no head. What it leaves out is the order of records within it;
//! whether that matters is for [`super::heads`] to decide, who then asks for the records themselves.

use std::ops::Range;

use super::logs::Feed;
use super::reads::{Reads, Turns};
use super::runs::Runs;
use super::tables::{Name, Namer};
use crate::forecast::Version;
use crate::record::{EntryKind, Record, RecordType, each_timed};

/// A part of a unit. Records are counted from 0, those that the salvage reader has and those that only Prometheus's has.
#[derive(Debug)]
pub(super) enum Part {
    Piece(Box<Piece>),
    /// All records from there on have to be read one by one.
    Rest {
        from: u64,
    },
}

/// Records with which each start does the same.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) records: Range<u64>,
    pub(super) turns: Turns,
    /// In order.
    pub(super) definitions: Vec<Definition>,
    pub(super) runs: Runs,
}

/// A series record's entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub(super) series_ref: u64,
    pub(super) name: Name,
    pub(super) place: Place,
}

/// Where a definition is among the samples of its piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before all of them.
    First,
    /// After some, of other refs.
    AfterOthers,
    /// After some of its own ref.
    AfterOwn,
}

/// How the pieces of a unit are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Making<'a> {
    pub(super) version: Version,
    /// Samples before it are of blocks, ms.
    pub(super) min_valid_time: i64,
    pub(super) namer: &'a Namer,
    /// By segment of the unit.
    pub(super) reads: &'a [Reads],
}

/// Makes the pieces of a unit.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    making: Making<'a>,
    done: Vec<Part>,
    open: Option<Piece>,
    /// Records so far.
    records: u64,
    turns: Turns,
    is_given_up: bool,
}

impl<'a> Pieces<'a> {
    /// Pieces of one unit: where there are more, they are too short to be of use.
    const MOST: usize = 64;
    /// Definitions of one of the first pieces without samples; later ones may have more.
    const MOST_DEFINITIONS: usize = 1 << 16;

    pub(super) fn new(making: Making<'a>) -> Self {
        Self { making, done: Vec::new(), open: None, records: 0, turns: Turns::default(), is_given_up: false }
    }

    pub(super) fn finish(mut self) -> Vec<Part> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if let Some(mut piece) = self.open.take() {
            piece.records.end = self.records;
            self.done.push(Part::Piece(Box::new(piece)));
        }
    }

    /// The record at hand, and all after it, have to be read one by one.
    fn give_up(&mut self) {
        self.close();
        self.done.push(Part::Rest { from: self.records });
        self.is_given_up = true;
    }

    /// The piece that the record at hand goes to.
    fn piece(&mut self) -> &mut Piece {
        // The memory of definitions is free when they have been taken. Those among samples stay with these.
        let most = Self::MOST_DEFINITIONS << (self.done.len() / 8);
        let is_full =
            |piece: &Piece| piece.runs.is_full() || piece.runs.is_empty() && piece.definitions.len() >= most;
        if self.open.as_ref().is_some_and(|piece| piece.turns != self.turns || is_full(piece)) {
            self.close();
        }
        self.open.get_or_insert_with(|| Piece {
            records: self.records..self.records,
            turns: self.turns.clone(),
            definitions: Vec::new(),
            runs: Runs::default(),
        })
    }

    fn take(&mut self, kind: RecordType, data: &[u8]) {
        let min_valid_time = self.making.min_valid_time;
        if kind == RecordType::Series {
            let namer = self.making.namer;
            let piece = self.piece();
            let Record::Series(series) = Record::parse(data) else { return };
            for entry in series.entries().flatten() {
                let place = if piece.runs.is_empty() {
                    Place::First
                } else if piece.runs.has(entry.series_ref) {
                    Place::AfterOwn
                } else {
                    Place::AfterOthers
                };
                let name = namer.name(&entry.labels);
                piece.definitions.push(Definition { series_ref: entry.series_ref, name, place });
            }
        } else {
            let runs = &mut self.piece().runs;
            each_timed(data, |run, is_marker| {
                if run.t >= min_valid_time {
                    runs.add(run.first_ref, run.count, run.t, is_marker);
                }
            });
        }
    }
}

impl Feed for Pieces<'_> {
    fn salvaged(&mut self, data: &[u8], end: u64, is_replayed: bool, part: usize) {
        if !self.is_given_up
            && let Some(reads) = self.making.reads.get(part)
            && let Some(kind) = RecordType::of(data)
        {
            match reads.use_of(kind) {
                Use::Nothing => {}
                Use::OneByOne => self.give_up(),
                Use::ByRuns => {
                    let is_known = reads.knows(kind, self.making.version);
                    self.turns.salvaged(reads, end, is_replayed, is_known);
                    if self.done.len() < Self::MOST { self.take(kind, data) } else { self.give_up() }
                }
            }
        }
        self.records += 1;
    }

    fn only_replayed(&mut self, _data: &[u8], _end: u64, _part: usize) {
        if !self.is_given_up {
            self.give_up();
        }
        self.records += 1;
    }
}

/// What heads do with a kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Nothing,
    ByRuns,
    OneByOne,
}

impl Reads {
    /// Whether no record is taken by runs: samples of a WBL fill chunks out of order, and a log that is older than a checkpoint
    /// counts up to a time.
    pub(super) fn is_read_one_by_one(&self) -> bool {
        self.late || self.before != i64::MAX
    }

    fn use_of(&self, record_type: RecordType) -> Use {
        if self.is_read_one_by_one() {
            return Use::OneByOne;
        }
        match record_type.kind() {
            EntryKind::Exemplars | EntryKind::Metadata | EntryKind::MinValidTime | EntryKind::MmapMarkers => {
                Use::Nothing
            }
            EntryKind::Tombstones => Use::OneByOne,
            EntryKind::Series | EntryKind::Samples | EntryKind::Histograms | EntryKind::FloatHistograms => {
                Use::ByRuns
            }
        }
    }
}
