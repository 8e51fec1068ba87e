//! RTP headers and their extensions.

use std::ops::Range;

/// Octets of the header without CSRCs and extensions.
pub const FIXED_HEADER: usize = 12;

/// The profile of one-byte header extensions (RFC 8285 section 4.2).
const ONE_BYTE: u16 = 0xBEDE;
/// The profile of two-byte header extensions, less the application bits (RFC 8285 section 4.3).
const TWO_BYTE: u16 = 0x1000;

/// Why octets are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not version 2.
    #[error("not RTP version 2")]
    Version,
    /// CSRCs or extensions reach beyond the end.
    #[error("truncated RTP header")]
    Truncated,
}

/// A parsed RTP header (RFC 3550 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The marker bit: the first packet after silence, or the last of a picture.
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// Wraps at 65 536; see [`crate::Index`].
    pub sequence: u16,
    /// In units of the payload type's clock.
    pub timestamp: u32,
    /// The source.
    pub ssrc: u32,
    /// Whether padding follows the payload.
    pub padding: Padding,
    /// Octets of the whole header, CSRCs and extensions included.
    pub len: usize,
    extension: Option<Extension>,
}

/// Whether a packet ends with padding, whose last octet is then its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// The payload reaches to the end.
    None,
    /// It does not.
    Present,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Extension {
    profile: u16,
    start: usize,
}

impl Header {
    /// Reads a packet's header. Looks at nothing after it.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(packet: &[u8]) -> Result<Self, HeaderError> {
        let Some((fixed, _)) = packet.split_first_chunk::<FIXED_HEADER>() else { return Err(HeaderError::Truncated) };
        let [first, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
        if first >> 6 != 2 {
            return Err(HeaderError::Version);
        }
        let mut len = FIXED_HEADER + 4 * usize::from(first & 0x0F);
        let mut extension = None;
        if first & 0x10 != 0 {
            let Some(&[p0, p1, l0, l1]) = packet.get(len..len + 4) else { return Err(HeaderError::Truncated) };
            extension = Some(Extension { profile: u16::from_be_bytes([p0, p1]), start: len + 4 });
            len += 4 + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        }
        if len > packet.len() {
            return Err(HeaderError::Truncated);
        }
        Ok(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7F,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
            padding: if first & 0x20 != 0 { Padding::Present } else { Padding::None },
            len,
            extension,
        })
    }

    /// The value of the extension with this negotiated id, in one- or two-byte form. `packet` is what was parsed.
    pub fn extension<'a>(&self, packet: &'a [u8], id: u8) -> Option<&'a [u8]> {
        self.extensions(packet).find(|(i, _)| *i == id).map(|(_, value)| value)
    }

    /// All extensions as id and value. `packet` is what was parsed. Ends early where they are malformed.
    pub fn extensions<'a>(&self, packet: &'a [u8]) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let (form, range) = match &self.extension {
            Some(Extension { profile: ONE_BYTE, start }) => (Form::OneByte, *start..self.len),
            Some(Extension { profile, start }) if profile & 0xFFF0 == TWO_BYTE => (Form::TwoByte, *start..self.len),
            _ => (Form::OneByte, 0..0),
        };
        let mut rest = packet.get(range).unwrap_or_default();
        std::iter::from_fn(move || {
            while let [0, after @ ..] = rest {
                rest = after;
            }
            let (id, length, value) = match (form, rest) {
                // Id 15 ends the list whatever follows (RFC 8285 section 4.2).
                (Form::OneByte, [head, after @ ..]) if head >> 4 != 15 => {
                    (head >> 4, usize::from(head & 0x0F) + 1, after)
                }
                (Form::TwoByte, [id, length, after @ ..]) => (*id, usize::from(*length), after),
                _ => return None,
            };
            let (value, after) = value.split_at_checked(length)?;
            rest = after;
            Some((id, value))
        })
    }

    /// Where the payload of a packet of `len` octets is, less padding. `last` is the packet's last octet.
    pub(crate) fn payload(&self, len: usize, last: u8) -> Option<Range<usize>> {
        let padding = match self.padding {
            // Of a packet with nothing but a header, the last octet is no padding length.
            Padding::Present if len > self.len => usize::from(last).max(1),
            _ => 0,
        };
        let end = len.checked_sub(padding)?;
        (end >= self.len).then_some(self.len..end)
    }
}

#[derive(Clone, Copy)]
enum Form {
    OneByte,
    TwoByte,
}

/// Why an extension cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// One-byte ids are 1 to 14.
    #[error("extension id {0} has no one-byte form")]
    Id(u8),
    /// One-byte values have 1 to 16 octets.
    #[error("extension value of {0} octets has no one-byte form")]
    Value(usize),
}

/// Header extensions of outgoing packets in the one-byte form, ready to be copied into each.
///
/// Made once per track where they do not change, as MID does not; [`clear`](Self::clear) and [`push`](Self::push) reuse
/// the memory where they do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Empty, or profile, length in words, elements and padding.
    block: Vec<u8>,
    /// Octets of the elements, unpadded.
    used: usize,
}

impl Extensions {
    /// None, for packets that carry none.
    pub const NONE: &'static Extensions = &Extensions { block: Vec::new(), used: 0 };

    /// Adds an element. Ids are 1 to 14 (so at most 14 elements of 17 octets are of use), values 1 to 16 octets.
    ///
    /// # Errors
    /// If it has no one-byte form; nothing is added then.
    pub fn push(&mut self, id: u8, value: &[u8]) -> Result<(), ExtensionError> {
        if !(1..=14).contains(&id) {
            return Err(ExtensionError::Id(id));
        }
        if !(1..=16).contains(&value.len()) || self.used + 17 > usize::from(u8::MAX) {
            return Err(ExtensionError::Value(value.len()));
        }
        if self.block.is_empty() {
            self.block.extend_from_slice(&ONE_BYTE.to_be_bytes());
            self.block.extend_from_slice(&[0, 0]);
        }
        self.block.truncate(4 + self.used);
        self.block.push(id << 4 | (value.len() - 1) as u8);
        self.block.extend_from_slice(value);
        self.used += 1 + value.len();
        let words = self.used.div_ceil(4);
        self.block.resize(4 + 4 * words, 0);
        self.block[2..4].copy_from_slice(&(words as u16).to_be_bytes());
        Ok(())
    }

    /// Forgets all elements, keeps the memory.
    pub fn clear(&mut self) {
        self.block.clear();
        self.used = 0;
    }

    /// Whether there are none, and the header needs no extension bit.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// As in the packet: a multiple of four octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0x80 | 111, 0x12, 0x34, 0, 0, 1, 0, 0xDE, 0xAD, 0xBE, 0xEF];
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn fields() {
        let header = Header::parse(&packet(0x80, b"payload")).unwrap();
        assert!(header.marker);
        assert_eq!((header.payload_type, header.sequence, header.timestamp), (111, 0x1234, 256));
        assert_eq!((header.ssrc, header.len, header.padding), (0xDEAD_BEEF, 12, Padding::None));
    }

    #[test]
    fn malformed_headers() {
        let check = |packet: &[u8], expected| assert_eq!(Header::parse(packet).err(), expected, "{packet:?}");
        check(&[], Some(HeaderError::Truncated));
        check(&packet(0x80, &[])[..11], Some(HeaderError::Truncated));
        check(&packet(0x80, &[]), None);
        check(&packet(0x40, &[]), Some(HeaderError::Version));
        check(&packet(0xC0, &[]), Some(HeaderError::Version));
        check(&packet(0x81, &[0; 3]), Some(HeaderError::Truncated));
        check(&packet(0x81, &[0; 4]), None);
        check(&packet(0x90, &[0xBE, 0xDE, 0]), Some(HeaderError::Truncated));
        check(&packet(0x90, &[0xBE, 0xDE, 0, 1, 0, 0, 0]), Some(HeaderError::Truncated));
        check(&packet(0x90, &[0xBE, 0xDE, 0xFF, 0xFF, 0, 0, 0]), Some(HeaderError::Truncated));
        check(&packet(0x90, &[0xBE, 0xDE, 0, 0]), None);
    }

    #[test]
    fn extensions_in_both_forms() {
        #[track_caller]
        fn check(block: &[u8], expected: &[(u8, &[u8])]) {
            let packet = packet(0x90, block);
            let header = Header::parse(&packet).unwrap();
            assert_eq!(header.extensions(&packet).collect::<Vec<_>>(), expected);
            for (id, value) in expected {
                assert_eq!(header.extension(&packet, *id), Some(*value));
            }
        }
        check(&[0xBE, 0xDE, 0, 2, 0x10, 0xAA, 0x31, 1, 2, 0, 0, 0], &[(1, &[0xAA]), (3, &[1, 2])]);
        check(&[0xBE, 0xDE, 0, 1, 0, 0, 0x20, 7], &[(2, &[7])]); // padding first
        check(&[0xBE, 0xDE, 0, 2, 0x10, 1, 0xF0, 9, 0x20, 2, 0, 0], &[(1, &[1])]); // id 15 ends the list
        check(&[0xBE, 0xDE, 0, 1, 0x10, 1, 0x2F, 2], &[(1, &[1])]); // a value that does not fit
        check(&[0x10, 0x00, 0, 2, 1, 0, 3, 2, 1, 2, 0, 0], &[(1, &[]), (3, &[1, 2])]);
        check(&[0x10, 0x07, 0, 1, 200, 1, 5, 0], &[(200, &[5])]); // application bits
        check(&[0x10, 0x00, 0, 1, 1, 4, 1, 2], &[]);
        check(&[0xAB, 0xCD, 0, 1, 0x10, 1, 0, 0], &[]); // a profile of someone else's
        check(&[0xBE, 0xDE, 0, 0], &[]);
    }

    #[test]
    fn written_extensions_can_be_read() {
        let mut extensions = Extensions::default();
        assert!(extensions.is_empty());
        extensions.push(4, b"0").unwrap();
        extensions.push(1, b"sixteen octets!!").unwrap();
        assert_eq!(extensions.push(0, b"x"), Err(ExtensionError::Id(0)));
        assert_eq!(extensions.push(15, b"x"), Err(ExtensionError::Id(15)));
        assert_eq!(extensions.push(2, b""), Err(ExtensionError::Value(0)));
        assert_eq!(extensions.push(2, &[0; 17]), Err(ExtensionError::Value(17)));
        assert_eq!(extensions.as_bytes().len() % 4, 0);
        let packet = packet(0x90, extensions.as_bytes());
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.len, packet.len());
        assert_eq!(header.extension(&packet, 4), Some(&b"0"[..]));
        assert_eq!(header.extension(&packet, 1), Some(&b"sixteen octets!!"[..]));
        extensions.clear();
        assert_eq!(&extensions, Extensions::NONE);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_harm(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(header) = Header::parse(&octets) {
                prop_assert!(header.len <= octets.len());
                for (_, value) in header.extensions(&octets) {
                    prop_assert!(value.len() <= octets.len());
                }
                if let Some(payload) = header.payload(octets.len(), octets[octets.len() - 1]) {
                    prop_assert!(payload.start == header.len && payload.end <= octets.len());
                }
            }
        }
    }
}
