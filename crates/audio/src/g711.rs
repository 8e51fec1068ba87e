//! G.711 (ITU-T G.711, 1988): mu-law and A-law, one byte per sample at 8 kHz.
//!
//! Samples are 16 bits wide: mu-law's 14-bit and A-law's 13-bit values stand in the upper bits. Decoding is a table of
//! 256 entries made at compile time; encoding is a handful of integer operations.

/// The value of every mu-law byte.
pub static MU_LAW: [i16; 256] = table(Law::Mu);
/// The value of every A-law byte.
pub static A_LAW: [i16; 256] = table(Law::A);

#[derive(Clone, Copy)]
enum Law {
    Mu,
    A,
}

const fn table(law: Law) -> [i16; 256] {
    let mut values = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        values[byte] = match law {
            Law::Mu => mu_law_value(byte as u8),
            Law::A => a_law_value(byte as u8),
        };
        byte += 1;
    }
    values
}

/// What is added before the logarithm, so that the smallest segment has the same shape as the others.
const MU_LAW_BIAS: i32 = 0x84;
/// The largest magnitude that mu-law expresses.
const MU_LAW_CLIP: i32 = 32_635;

const fn mu_law_value(byte: u8) -> i16 {
    // All bits are inverted on the line (G.711, table 2a, note 2).
    let code = !byte;
    let segment = (code >> 4) & 7;
    let step = (code & 15) as i32;
    let magnitude = (((step << 3) + MU_LAW_BIAS) << segment) - MU_LAW_BIAS;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

const fn a_law_value(byte: u8) -> i16 {
    // Even bits are inverted on the line (G.711, table 1a, note 2).
    let code = byte ^ 0x55;
    let segment = (code >> 4) & 7;
    let step = (code & 15) as i32;
    let magnitude = match segment {
        0 => (step << 4) + 8,
        _ => ((step << 4) + 0x108) << (segment - 1),
    };
    (if code & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}

/// The mu-law byte nearest to `sample`.
#[must_use]
pub const fn encode_mu_law(sample: i16) -> u8 {
    let value = sample as i32;
    let magnitude = if value < 0 { -value } else { value };
    let biased = (if magnitude > MU_LAW_CLIP { MU_LAW_CLIP } else { magnitude }) + MU_LAW_BIAS;
    // The segment is the exponent of a floating-point number, and the step the first four bits of its fraction: compilers do
    // this for several samples at once, other than counting zeros. The bias puts the highest set bit at 7 or above.
    let code = ((biased as f32).to_bits() >> 19) as i32 - ((127 + 7) << 4);
    let sign = if value < 0 { 0x80 } else { 0 };
    !((sign | code) as u8)
}

/// The A-law byte nearest to `sample`.
#[must_use]
pub const fn encode_a_law(sample: i16) -> u8 {
    // One's complement for negative values, as the recommendation's decision levels are symmetric.
    let value = sample as i32;
    let magnitude = if value < 0 { !value } else { value };
    let (segment, step) = if magnitude < 256 {
        (0, magnitude >> 4)
    } else {
        let segment = 24 - magnitude.leading_zeros() as i32;
        (segment, (magnitude >> (segment + 3)) & 15)
    };
    let sign = if value < 0 { 0 } else { 0x80 };
    ((sign | (segment << 4) | step) as u8) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values at the output of a decoder, G.711 tables 1 and 2 (positive side), scaled to 16 bits (A-law x8, mu-law x4).
    #[test]
    fn reference_values() {
        fn check(table: &[i16; 256], byte: u8, expected: i16) {
            assert_eq!(table[usize::from(byte)], expected, "{byte:#04x}");
        }
        // Mu-law, table 2a, column 8: decision value numbers 128, 127, 113, 112, 97, 96 ... 1, 0.
        check(&MU_LAW, 0b1000_0000, 8_031 * 4);
        check(&MU_LAW, 0b1000_1111, 4_191 * 4);
        check(&MU_LAW, 0b1001_1111, 2_079 * 4);
        check(&MU_LAW, 0b1010_1111, 1_023 * 4);
        check(&MU_LAW, 0b1011_1111, 495 * 4);
        check(&MU_LAW, 0b1100_1111, 231 * 4);
        check(&MU_LAW, 0b1101_1111, 99 * 4);
        check(&MU_LAW, 0b1110_1111, 33 * 4);
        check(&MU_LAW, 0b1111_1110, 2 * 4);
        check(&MU_LAW, 0b1111_1111, 0);
        check(&MU_LAW, 0b0111_1111, 0);
        check(&MU_LAW, 0b0000_0000, -8_031 * 4);
        // A-law, table 1a, column 7 gives 4032, 2112, 1056, 528, 264, 132, 66, 1 in 13 bits with sign.
        check(&A_LAW, 0b1111_1111 ^ 0x55, 4_032 * 8);
        check(&A_LAW, 0b1111_0000 ^ 0x55, 2_112 * 8);
        check(&A_LAW, 0b1110_0000 ^ 0x55, 1_056 * 8);
        check(&A_LAW, 0b1101_0000 ^ 0x55, 528 * 8);
        check(&A_LAW, 0b1100_0000 ^ 0x55, 264 * 8);
        check(&A_LAW, 0b1011_0000 ^ 0x55, 132 * 8);
        check(&A_LAW, 0b1010_0000 ^ 0x55, 66 * 8);
        check(&A_LAW, 0b1000_0000 ^ 0x55, 8);
        check(&A_LAW, 0x55, -8);
        check(&A_LAW, 0b0111_1111 ^ 0x55, -4_032 * 8);
    }

    /// The digital milliwatt, tables 5 and 6: 1 kHz at 0 dBm0, whose RMS is fixed by the recommendation.
    #[test]
    #[allow(clippy::approx_constant, reason = "3.14 dBm0 is A-law's overload level, not pi")]
    fn digital_milliwatt() {
        fn check(table: &[i16; 256], cycle: [u8; 8], overload_dbm0: f64, full_scale: f64) {
            let power: f64 = cycle.iter().map(|&byte| f64::from(table[usize::from(byte)]).powi(2)).sum::<f64>() / 8.0;
            let dbm0 = 10.0 * (power / (full_scale * full_scale / 2.0)).log10() + overload_dbm0;
            assert!(dbm0.abs() < 0.02, "{dbm0} dBm0");
        }
        check(&A_LAW, [0x34, 0x21, 0x21, 0x34, 0xb4, 0xa1, 0xa1, 0xb4], 3.14, 4_096.0 * 8.0);
        check(&MU_LAW, [0x1e, 0x0b, 0x0b, 0x1e, 0x9e, 0x8b, 0x8b, 0x9e], 3.17, 8_159.0 * 4.0);
    }

    #[test]
    fn every_byte_survives_a_round_trip() {
        for byte in 0..=255u8 {
            assert_eq!(encode_a_law(A_LAW[usize::from(byte)]), byte);
            // Mu-law has two zeros; the encoder gives the positive one.
            let expected = if byte == 0x7f { 0xff } else { byte };
            assert_eq!(encode_mu_law(MU_LAW[usize::from(byte)]), expected);
        }
    }

    /// Between the limits of a segment the error is at most half of its step, and the codes are in order.
    #[test]
    fn every_sample_gets_the_value_of_its_interval() {
        fn check(table: &[i16; 256], encode: fn(i16) -> u8, step: fn(i32) -> i32, largest: i32) {
            let mut before = i16::MIN;
            for sample in i16::MIN..=i16::MAX {
                let value = table[usize::from(encode(sample))];
                assert!(value >= before, "{sample}");
                before = value;
                let clipped = i32::from(sample).clamp(-largest, largest);
                assert!((i32::from(value) - clipped).abs() <= step(clipped.abs()) / 2, "{sample} -> {value}");
            }
        }
        // Segment limits in 16 bits: mu-law (31, 95, 223 ... 8159) * 4, A-law (64, 128, 256 ... 4096) * 8.
        let mu = |magnitude: i32| 8 << (24 - (magnitude + MU_LAW_BIAS).leading_zeros() as i32);
        let a = |magnitude: i32| 16 << (24 - (magnitude | 255).leading_zeros() as i32 - 1).max(0);
        check(&MU_LAW, encode_mu_law, mu, MU_LAW_CLIP);
        check(&A_LAW, encode_a_law, a, 32_767);
    }
}
