//! Types 2 and 11, float samples.
//!
//! Type 2: BE64 base ref; BE64 base time; repeat { zigzag ref; zigzag time; BE64 value }.
//! Type 11: zigzag ref, time and start timestamp of the first, BE64 value; then repeat { zigzag ref from the previous;
//! zigzag time from the first; start timestamp; BE64 value }.

use super::base::{EntryBase, EntryChain};
use super::cursor::{AtCursor, Cursor, CutShort};
use super::runs::{self, SampleRun};
use super::{DecodeError, EntryEncoding, RecordType, put};

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
    pub(crate) fn runs(&self, mut each: impl FnMut(SampleRun)) -> (Cursor<'a>, Option<DecodeError>) {
        let mut entries = self.entries();
        loop {
            let from = entries.cursor.rest();
            match entries.next() {
                None => return (entries.cursor, None),
                Some(Err(error)) => return (entries.cursor, Some(error)),
                Some(Ok(first)) => entries.follow(first, from, &mut each),
            }
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
    fn follow(&mut self, first: SampleEntry, from: &[u8], each: &mut impl FnMut(SampleRun)) {
        let mut run = SampleRun { first_ref: first.series_ref, count: 1, t: first.t };
        let (SampleOrigin::V1(Ok(base)), Some(head)) =
            (self.origin, runs::EntryHead::of(from, self.cursor.rest()))
        else {
            each(run);
            return;
        };
        let rest = self.cursor.rest();
        let consecutive = head.count_consecutive(rest).min(u64::MAX - first.series_ref);
        run.count += consecutive;
        each(run);
        let mut done = head.done(consecutive);
        if consecutive == 0 {
            let mut one = |ref_delta, t_delta| {
                let (first_ref, t) = base.at(ref_delta, t_delta);
                each(SampleRun { first_ref, count: 1, t });
            };
            done = head.each_alike(rest, &mut one);
            if done.entries == 0 {
                done = runs::each_scattered(rest, one);
            }
        }
        self.cursor.skip(done.bytes);
        self.cursor.note_overlong(done.overlong);
        self.count += done.entries;
    }

    fn entry(&mut self) -> Result<SampleEntry, CutShort> {
        let (series_ref, t, st) = match &mut self.origin {
            SampleOrigin::V1(base) => {
                let base = (*base)?;
                self.count += 1;
                let (series_ref, t) = base.absolute(&mut self.cursor)?;
                (series_ref, t, 0)
            }
            SampleOrigin::V2(chain) => {
                self.count += 1;
                if let Some(chain) = chain {
                    chain.advance(&mut self.cursor)?
                } else {
                    let first = EntryChain::decode(&mut self.cursor)?;
                    *chain = Some(first);
                    (first.prev_ref, first.first_t, first.first_st)
                }
            }
        };
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
