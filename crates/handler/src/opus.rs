//! How long an Opus packet plays, read from its first bytes without decoding (RFC 6716 3.1, 3.2).

use std::time::Duration;

/// RFC 6716 3.4 (R5): no packet holds more than 120 ms.
const LONGEST: Duration = Duration::from_millis(120);

/// The duration of one Opus packet, or `None` if the packet breaks RFC 6716 3.4 in a way its header shows.
pub(crate) fn packet_duration(packet: &[u8]) -> Option<Duration> {
    let (&toc, rest) = packet.split_first()?;
    let frames = match toc & 0b11 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0b0011_1111),
    };
    let total = frame_duration(toc >> 3) * frames;
    (frames > 0 && total <= LONGEST).then_some(total)
}

/// Table 2 of RFC 6716 3.1, by configuration number 0 to 31.
fn frame_duration(configuration: u8) -> Duration {
    let micros = match (configuration, configuration & 0b11) {
        // SILK: 10, 20, 40, 60 ms.
        (0..12, 0) => 10_000,
        (0..12, 1) => 20_000,
        (0..12, 2) => 40_000,
        (0..12, _) => 60_000,
        // Hybrid: 10, 20 ms.
        (12..16, 0 | 2) => 10_000,
        (12..16, _) => 20_000,
        // CELT: 2.5, 5, 10, 20 ms.
        (_, 0) => 2_500,
        (_, 1) => 5_000,
        (_, 2) => 10_000,
        (_, _) => 20_000,
    };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_by_table_of_contents() {
        fn check(packet: &[u8], expected_us: Option<u64>) {
            assert_eq!(packet_duration(packet), expected_us.map(Duration::from_micros), "{packet:02x?}");
        }
        for (configuration, micros) in [
            (0, 10_000),
            (1, 20_000),
            (2, 40_000),
            (3, 60_000),
            (11, 60_000),
            (12, 10_000),
            (13, 20_000),
            (14, 10_000),
            (15, 20_000),
            (16, 2_500),
            (17, 5_000),
            (18, 10_000),
            (31, 20_000),
        ] {
            check(&[configuration << 3], Some(micros));
            // The stereo bit says nothing of time.
            check(&[configuration << 3 | 0b100], Some(micros));
        }
        let celt_20 = 31 << 3;
        check(&[celt_20 | 1, 0, 0], Some(40_000));
        check(&[celt_20 | 2, 1, 0, 0], Some(40_000));
        check(&[celt_20 | 3, 6], Some(120_000));
        check(&[celt_20 | 3, 0b1100_0000 | 3], Some(60_000));
        check(&[celt_20 | 3, 7], None);
        check(&[celt_20 | 3, 0], None);
        check(&[celt_20 | 3], None);
        check(&[], None);
    }
}
