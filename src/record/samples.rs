//! Types 2 and 11, float samples.
//!
//! Type 2: BE64 base ref; BE64 base time; repeat { zigzag ref; zigzag time; BE64 value }.
//! Type 11: zigzag ref, time and start timestamp of the first, BE64 value; then repeat { zigzag ref from the previous;
//! zigzag time from the first; start timestamp; BE64 value }.

use super::base::{EntryBase, EntryChain, EntryPlace};
use super::cursor::{AtCursor, Cursor, CutShort};
use super::runs::{self, EntriesRead, SampleBatch, SampleRun, SampleVisitor};
use super::{DecodeError, EntryEncoding, RecordType, put};

/// Samples whose refs follow one another, from which on it is worth looking for more of them.
const FEW: u64 = 8;

/// Bytes from which on scattered samples are read together.
const WORTH_A_BATCH: usize = 64;

/// A samples record of either layout.
#[derive(Clone, Copy, Debug)]
pub struct SamplesRecord<'a> {
    pub(crate) body: Cursor<'a>,
    pub(crate) encoding: EntryEncoding,
}

/// A float sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleEntry {
    /// The series.
    pub series_ref: u64,
    /// Timestamp, ms.
    pub t: i64,
    /// Start timestamp, ms; 0 if there is none.
    pub st: i64,
    /// The bits of the value, a 64-bit float.
    pub value_bits: u64,
}

impl SampleEntry {
    /// The value.
    #[must_use]
    pub const fn value(&self) -> f64 {
        f64::from_bits(self.value_bits)
    }
}

impl<'a> SamplesRecord<'a> {
    /// Its entries, up to the first that cannot be decoded.
    #[must_use]
    pub fn entries(&self) -> SampleIter<'a> {
        let mut cursor = self.body;
        let origin = match self.encoding {
            EntryEncoding::V1 => SampleOrigin::V1(EntryBase::decode(&mut cursor)),
            EntryEncoding::V2 => SampleOrigin::V2(None),
        };
        SampleIter { cursor, origin, count: 0 }
    }

    /// The same entries, those next to each other taken together where they can be; and how their decoding ends.
    pub(crate) fn runs(&self, each: impl FnMut(SampleRun)) -> (Cursor<'a>, Option<DecodeError>) {
        self.visit(&mut EachRun(each))
    }

    /// As [`Self::runs`], and those together that are scattered.
    pub(crate) fn visit(&self, visitor: &mut impl SampleVisitor) -> (Cursor<'a>, Option<DecodeError>) {
        let mut entries = self.entries();
        loop {
            let from = entries.cursor.rest();
            match entries.next() {
                None => return (entries.cursor, None),
                Some(Err(error)) => return (entries.cursor, Some(error)),
                Some(Ok(first)) => entries.follow(first, from, visitor),
            }
        }
    }
}

/// Visits scattered samples as runs of one each.
struct EachRun<F>(F);

impl<F: FnMut(SampleRun)> SampleVisitor for EachRun<F> {
    fn run(&mut self, run: SampleRun) {
        (self.0)(run);
    }

    fn scattered(&mut self, refs: &[u64], times: &[i64]) {
        let times = times.iter().chain(std::iter::repeat(times.last().unwrap_or(&0)));
        for (&first_ref, &t) in refs.iter().zip(times) {
            (self.0)(SampleRun { first_ref, count: 1, t });
        }
    }
}

/// Walks over a [`SamplesRecord`].
#[derive(Clone, Debug)]
pub struct SampleIter<'a> {
    cursor: Cursor<'a>,
    origin: SampleOrigin,
    count: u64,
}

/// What refs and times are relative to.
#[derive(Clone, Copy, Debug)]
enum SampleOrigin {
    V1(Result<EntryBase, CutShort>),
    V2(Option<EntryChain>),
}

impl SampleIter<'_> {
    /// Tells of `first`, which has been read and began where `from` does, and of what follows it and looks like it.
    fn follow(&mut self, first: SampleEntry, from: &[u8], visitor: &mut impl SampleVisitor) {
        let mut run = SampleRun { first_ref: first.series_ref, count: 1, t: first.t };
        let (SampleOrigin::V1(Ok(base)), Some(head)) =
            (self.origin, runs::EntryHead::of(from, self.cursor.rest()))
        else {
            visitor.run(run);
            return;
        };
        let consecutive = head.count_consecutive(self.cursor.rest()).min(u64::MAX - first.series_ref);
        run.count += consecutive;
        visitor.run(run);
        self.take(head.done(consecutive));
        if consecutive < FEW && self.cursor.rest().len() > WORTH_A_BATCH {
            self.scattered(&base, visitor);
        }
    }

    /// Tells of entries whose refs do not follow one another, for as long as that is so.
    #[inline(never)]
    fn scattered(&mut self, base: &EntryBase, visitor: &mut impl SampleVisitor) {
        let mut batch = SampleBatch::new();
        loop {
            let done = batch.read(base, self.cursor.rest());
            self.take(done);
            visitor.scattered(batch.refs(), batch.times());
            if !batch.goes_on() {
                return;
            }
        }
    }

    /// These entries have been read.
    fn take(&mut self, done: EntriesRead) {
        self.cursor.skip(done.bytes);
        self.cursor.note_overlong(done.overlong);
        self.count += done.entries;
    }

    fn entry(&mut self) -> Result<SampleEntry, CutShort> {
        let mut at = EntryPlace::default();
        match &mut self.origin {
            SampleOrigin::V1(base) => {
                let base = (*base)?;
                self.count += 1;
                base.absolute(&mut self.cursor, &mut at)?;
            }
            SampleOrigin::V2(chain) => {
                self.count += 1;
                if let Some(chain) = chain {
                    chain.advance(&mut self.cursor, &mut at)?;
                } else {
                    chain.insert(EntryChain::decode(&mut self.cursor)?).first(&mut at);
                }
            }
        }
        let EntryPlace { series_ref, t, st } = at;
        Ok(SampleEntry { series_ref, t, st, value_bits: self.cursor.be64()? })
    }
}

impl AtCursor for SampleIter<'_> {
    fn cursor(&self) -> &Cursor<'_> {
        &self.cursor
    }
}

impl Iterator for SampleIter<'_> {
    type Item = Result<SampleEntry, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.is_empty() {
            return None;
        }
        Some(self.entry().map_err(|cut| {
            self.cursor = Cursor::default();
            DecodeError::after(cut, self.count, "samples")
        }))
    }
}

/// Appends a samples record in that encoding.
pub(crate) fn encode_samples_as(encoding: EntryEncoding, samples: &[SampleEntry], out: &mut Vec<u8>) {
    match encoding {
        EntryEncoding::V1 => encode_samples(samples, out),
        EntryEncoding::V2 => encode_samples_v2(samples, out),
    }
}

/// Appends a samples record without start timestamps, type 2 (`Encoder.samplesV1`).
pub fn encode_samples(samples: &[SampleEntry], out: &mut Vec<u8>) {
    out.push(RecordType::Samples.byte());
    let Some(first) = samples.first() else {
        return;
    };
    let base = EntryBase::encode(first.series_ref, first.t, out);
    for sample in samples {
        base.relative(sample.series_ref, sample.t, out);
        put::be64(out, sample.value_bits);
    }
}

/// Appends a samples record with start timestamps, type 11 (`Encoder.samplesV2`).
pub fn encode_samples_v2(samples: &[SampleEntry], out: &mut Vec<u8>) {
    out.push(RecordType::SamplesV2.byte());
    let mut chain = None;
    for sample in samples {
        EntryChain::encode(&mut chain, sample.series_ref, sample.t, sample.st, out);
        put::be64(out, sample.value_bits);
    }
}
