//! A chunk of any bytes is decoded in bounded memory, and has no more samples than it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use walfix::chunk::{Encoding, Sample, each_sample, encode_floats};

fuzz_target!(|input: &[u8]| {
    let Some((&kind, data)) = input.split_first() else { return };
    let encoding = Encoding::ALL[usize::from(kind) % Encoding::ALL.len()];
    let (mut read, mut floats) = (0, Vec::new());
    let ended = each_sample(encoding, data, |sample| {
        read += 1;
        if let Sample::Float { t, value_bits, .. } = sample {
            floats.push((t, value_bits));
        }
    });
    let count = encoding.count(data).unwrap_or(0);
    assert!(read <= count && (ended.is_err() || read == count));
    // What is written is read back.
    let (again, mut at) = (encode_floats(&floats), 0);
    let ended = each_sample(Encoding::Xor, &again, |sample| {
        let (t, value_bits) = floats[at];
        assert_eq!(sample, Sample::Float { t, st: 0, value_bits });
        at += 1;
    });
    assert!(ended.is_ok_and(|rest| rest.is_padding()) && at == floats.len());
});
