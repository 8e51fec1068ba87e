//! What can be read from an Opus packet without decoding it (RFC 6716, section 3).

/// Length of the packet on the 48 kHz clock of Opus; `None` if its header breaks RFC 6716, 3.4.
pub(crate) fn ticks(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let frames = match toc & 0b11 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0b0011_1111),
    };
    let ticks = frame_ticks(toc >> 3) * frames;
    (1..=LONGEST).contains(&ticks).then_some(ticks)
}

/// The longest packet: 120 ms (RFC 6716, 3.4, R5).
const LONGEST: u32 = 5_760;

/// Length of a frame by its configuration number, 0 to 31 (RFC 6716, 3.1, table 2).
fn frame_ticks(configuration: u8) -> u32 {
    match (configuration, configuration & 0b11) {
        // SILK: 10, 20, 40, 60 ms.
        (0..12, 0) => 480,
        (0..12, 1) => 960,
        (0..12, 2) => 1_920,
        (0..12, _) => 2_880,
        // Hybrid: 10, 20 ms.
        (12..16, 0 | 2) => 480,
        (12..16, _) => 960,
        // CELT: 2.5, 5, 10, 20 ms.
        (_, 0) => 120,
        (_, 1) => 240,
        (_, 2) => 480,
        (_, _) => 960,
    }
}

/// Whether the packet can repair the one before it: its first SILK frame carries low-bitrate redundancy.
///
/// RFC 6716, 4.2.3 and 4.2.4: the frame starts with one voice-activity bit per SILK frame and then the LBRR bit, all of
/// even probability, so they are the first bits of the first byte.
pub(crate) fn has_redundancy(packet: &[u8]) -> bool {
    let Some((&toc, rest)) = packet.split_first() else { return false };
    let configuration = toc >> 3;
    // 0..=11 SILK (10, 20, 40, 60 ms), 12..=15 hybrid (10, 20 ms), above CELT, which has no redundancy.
    let silk_frames = match configuration {
        0..=11 => [1, 1, 2, 3][usize::from(configuration & 3)],
        12..=15 => 1,
        _ => return false,
    };
    let Some(&first) = first_frame(toc, rest).and_then(<[u8]>::first) else { return false };
    let mono = 1u8 << (7 - silk_frames);
    if toc & 4 == 0 {
        return first & mono != 0;
    }
    // The side channel's bits follow those of the middle channel: at most 2 * (3 + 1) bits.
    let side = mono >> (silk_frames + 1);
    first & (mono | side) != 0
}

/// The bytes of the first frame and what follows it; `None` if the header is cut short.
fn first_frame(toc: u8, rest: &[u8]) -> Option<&[u8]> {
    match toc & 3 {
        0 | 1 => Some(rest),
        2 => skip_length(rest),
        _ => {
            let (&header, mut rest) = rest.split_first()?;
            if header & 0x40 != 0 {
                // Padding: each 255 adds 254 bytes and says that another length byte follows.
                loop {
                    let (&length, after) = rest.split_first()?;
                    rest = after;
                    if length != 255 {
                        break;
                    }
                }
            }
            if header & 0x80 != 0 {
                for _ in 1..(header & 0x3f) {
                    rest = skip_length(rest)?;
                }
            }
            Some(rest)
        }
    }
}

/// Skips a frame length of one or two bytes (RFC 6716, 3.2.1).
fn skip_length(bytes: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = bytes.split_first()?;
    if length < 252 { Some(rest) } else { rest.get(1..) }
}

/// Whether the sender has stopped transmitting: a packet of two bytes or less carries no audio, and the next one comes
/// up to 400 ms later (RFC 6716, 2.1.9).
pub(crate) fn is_discontinuous(packet: &[u8]) -> bool {
    packet.len() <= 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_by_table_of_contents() {
        fn check(packet: &[u8], expected: Option<u32>) {
            assert_eq!(ticks(packet), expected, "{packet:02x?}");
        }
        for (configuration, expected) in [
            (0, 480),
            (1, 960),
            (2, 1_920),
            (3, 2_880),
            (11, 2_880),
            (12, 480),
            (13, 960),
            (14, 480),
            (15, 960),
            (16, 120),
            (17, 240),
            (18, 480),
            (31, 960),
        ] {
            check(&[configuration << 3], Some(expected));
            // The stereo bit says nothing of time.
            check(&[configuration << 3 | 0b100], Some(expected));
        }
        let celt_20 = 31 << 3;
        check(&[celt_20 | 1, 0, 0], Some(1_920));
        check(&[celt_20 | 2, 1, 0, 0], Some(1_920));
        check(&[celt_20 | 3, 6], Some(5_760));
        check(&[celt_20 | 3, 0b1100_0000 | 3], Some(2_880));
        check(&[celt_20 | 3, 7], None);
        check(&[celt_20 | 3, 0], None);
        check(&[celt_20 | 3], None);
        check(&[], None);
    }

    proptest! {
        #[test]
        fn lengths_are_those_of_the_decoder(packet in proptest::collection::vec(any::<u8>(), 1..4)) {
            let theirs = opus::packet::get_nb_samples(&packet, 48_000).ok().filter(|&samples| samples > 0);
            prop_assert_eq!(ticks(&packet).map(|ticks| ticks as usize), theirs);
        }
    }

    #[test]
    fn redundancy_bit() {
        fn check(packet: &[u8], expected: bool) {
            assert_eq!(has_redundancy(packet), expected, "{packet:02x?}");
        }
        let toc = |configuration: u8, stereo: u8, code: u8| configuration << 3 | stereo << 2 | code;
        check(&[], false);
        check(&[toc(9, 0, 0)], false);
        check(&[toc(9, 0, 0), 0b1100_0000], true);
        check(&[toc(9, 0, 0), 0b1000_0000], false);
        // 60 ms: three activity bits first.
        check(&[toc(11, 0, 0), 0b0001_0000], true);
        check(&[toc(11, 0, 0), 0b1110_1111], false);
        // Stereo, 20 ms: the side channel's bit.
        check(&[toc(9, 1, 0), 0b0001_0000], true);
        check(&[toc(9, 1, 0), 0b1010_1111], false);
        // CELT.
        check(&[toc(31, 0, 0), 0xff], false);
        // Two frames, the first with a length of one and of two bytes.
        check(&[toc(9, 0, 2), 10, 0b0100_0000], true);
        check(&[toc(9, 0, 2), 252, 0b0100_0000, 0], false);
        // Arbitrary framing: padding and lengths.
        check(&[toc(9, 0, 3), 0b1100_0010, 255, 1, 5, 0b0100_0000], true);
        check(&[toc(9, 0, 3), 0b0100_0001, 255], false);
        check(&[toc(9, 0, 3)], false);
    }

    #[test]
    fn agrees_with_the_encoder() {
        let mut encoder = opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
        let mut voice = crate::tone::Voice::new(16_000, 1);
        let mut samples = [0; 320];
        let mut redundant = [0; 2];
        for (fec, count) in [false, true].into_iter().zip(&mut redundant) {
            encoder.set_inband_fec(fec).unwrap();
            encoder.set_packet_loss_perc(if fec { 20 } else { 0 }).unwrap();
            for _ in 0..50 {
                voice.fill(&mut samples);
                *count += u32::from(has_redundancy(&encoder.encode_vec(&samples, 1_275).unwrap()));
            }
        }
        assert_eq!(redundant[0], 0);
        assert!(redundant[1] >= 35, "{redundant:?}");
    }
}
