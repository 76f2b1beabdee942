//! Samples that a decoder reads out of step: from text of labels, or from the midst of other entries.
//!
//! A record of samples decodes whatever bytes continue it, as long as the last value ends where it does. What it reads of
//! foreign bytes are series and times that go to and fro, and values far from any that are measured.

use crate::record::{Record as Decoded, SampleEntry, Summary, each_use};
use crate::wal::{Compression, Record};

/// Entries of a part of a record between two joints, at the least, of which anything is said.
const FEW: usize = 6;

/// Of so many no other part has to speak.
const MANY: usize = 32;

/// Whether a part of a joined record of samples, between places where fragments meet, is read from foreign bytes. `whole` is
/// what the record says in all.
pub(in crate::scan) fn reads_out_of_step(record: &Record<'_>, whole: &Summary) -> bool {
    record.compression == Compression::None
        && record.is_joined()
        && !is_one_scrape(whole)
        && has_foreign_part(record.data, &record.joints().collect::<Vec<_>>())
}

/// Whether any two entries next to each other [may follow](may_follow) one another since all are of one time and of
/// different series: no value needs to be looked at.
pub(super) fn is_one_scrape(whole: &Summary) -> bool {
    whole.min_time == whole.max_time && !whole.repeats
}

/// Whether that holds of a record whose fragments meet at these offsets.
pub(super) fn has_foreign_part(data: &[u8], joints: &[usize]) -> bool {
    let Decoded::Samples(samples) = Decoded::parse(data) else { return false };
    let improbable = samples.entries().flatten().filter(|entry| is_improbable(entry.value_bits));
    if improbable.take(FEW / 2).count() < FEW / 2 {
        return false;
    }
    let mut parts = vec![RecordPart::default(); joints.len() + 1];
    let mut entries = samples.entries().flatten();
    let mut last: Option<SampleEntry> = None;
    each_use(data, |now| {
        let Some(entry) = entries.next() else { return };
        // One across a joint is of the part after it.
        let part = &mut parts[joints.partition_point(|&joint| joint < now.end)];
        part.entries += 1;
        let is_wild = is_improbable(entry.value_bits) && last.is_some_and(|last| !may_follow(&last, &entry));
        part.wild += usize::from(is_wild);
        last = Some(entry);
    });
    let is_sober = |part: &RecordPart| part.entries >= FEW / 2 && part.wild == 0;
    let has_sober = parts.iter().any(is_sober);
    parts.iter().any(|part| {
        part.entries >= FEW && part.wild * 2 >= part.entries && (has_sober || part.entries >= MANY)
    })
}

/// What is in a record between two places where fragments meet.
#[derive(Clone, Copy, Debug, Default)]
struct RecordPart {
    entries: usize,
    /// Those that no writer logs there.
    wild: usize,
}

/// Whether a writer logs one after the other: series of one scrape in whatever order, or later samples of one series.
fn may_follow(last: &SampleEntry, next: &SampleEntry) -> bool {
    if next.series_ref == last.series_ref { next.t > last.t } else { next.t == last.t }
}

/// Whether a value is finite, and farther from 1 than what is measured: beyond 2^±100, about 10^±30.
fn is_improbable(bits: u64) -> bool {
    const BIAS: u64 = 1023;
    let exponent = bits >> 52 & 0x7FF;
    let is_zero = bits << 1 == 0;
    !is_zero && exponent != 0x7FF && exponent.abs_diff(BIAS) > 100
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of samples at one time, and where what follows them continues.
    fn scrape() -> (Vec<u8>, usize) {
        let mut data = vec![2];
        data.extend(1000_u64.to_be_bytes());
        data.extend(1_750_000_000_000_u64.to_be_bytes());
        for at in 0..10_u8 {
            // Deltas of ref and time, in zigzag.
            data.extend([2 * at, 0]);
            data.extend((f64::from(at) * 1.1).to_be_bytes());
        }
        let joint = data.len();
        (data, joint)
    }

    #[test]
    fn text_is_foreign_to_samples() {
        let (mut data, joint) = scrape();
        data.extend(
            b"__name__up,instance,node-17:9100,job,node,logins_total,batch,id_xYz-90aQrStUvWx8aBcDe-",
        );
        data.truncate(joint + 80);
        assert!(has_foreign_part(&data, &[joint]));
    }

    #[test]
    fn what_writers_log_is_not() {
        let (mut data, joint) = scrape();
        // Samples of one series, ever later, of tiny values.
        for at in 0..100_u8 {
            data.extend([40, 2 * (at % 60)]);
            data.extend(1e-50_f64.to_be_bytes());
        }
        assert!(!has_foreign_part(&data, &[joint]), "they rise");
        let (mut data, joint) = scrape();
        // In no order at all, of usual values.
        for at in 0..100_u8 {
            data.extend([at.wrapping_mul(7) % 127, at.wrapping_mul(13) % 127]);
            data.extend(f64::from(at).to_be_bytes());
        }
        assert!(!has_foreign_part(&data, &[joint]), "their values are usual");
        let (mut data, joint) = scrape();
        // Of one time in no order, of tiny values.
        for at in 0..100_u8 {
            data.extend([at.wrapping_mul(7) % 127, 0]);
            data.extend(1e-50_f64.to_be_bytes());
        }
        assert!(!has_foreign_part(&data, &[joint]), "they have one time");
    }
}
