//! Which protocol a datagram on a WebRTC port belongs to (RFC 7983, RFC 5761).

/// What a datagram's first octets say it is. Nothing about its validity is implied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// First octet 0 to 3.
    Stun,
    /// First octet 20 to 63.
    Dtls,
    /// First octet 128 to 191, and not [`Kind::Rtcp`].
    Rtp,
    /// First octet 128 to 191 and second octet 192 to 223: an RTCP packet type (RFC 5761 section 4).
    Rtcp,
    /// First octet 64 to 79: TURN channel data.
    TurnChannel,
    /// Everything else: empty, ZRTP, QUIC, noise.
    Unknown,
}

/// Classifies a datagram by its first two octets.
///
/// A datagram of one octet that could be RTP or RTCP is neither, so it is [`Kind::Unknown`].
pub fn classify(datagram: &[u8]) -> Kind {
    match *datagram {
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        [64..=79, ..] => Kind::TurnChannel,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(datagram: &[u8], expected: Kind) {
        assert_eq!(classify(datagram), expected, "{datagram:?}");
    }

    #[test]
    fn first_octet_decides_as_rfc_7983_says() {
        check(&[], Kind::Unknown);
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                64..=79 => Kind::TurnChannel,
                128..=191 => Kind::Rtp,
                _ => Kind::Unknown,
            };
            check(&[first, 0, 0], expected);
        }
    }

    #[test]
    fn second_octet_tells_rtcp_from_rtp() {
        for second in 0..=255u8 {
            // A marked RTP packet of payload type 64 to 95 would read as RTCP, which is why those types are not used.
            let expected = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            check(&[0x80, second], expected);
        }
        check(&[0x80], Kind::Unknown);
    }
}
