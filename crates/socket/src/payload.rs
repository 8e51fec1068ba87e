//! Base64, as media payloads use it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The standard alphabet (RFC 4648, section 4), encoded with padding. Padding and unused bits of what others encoded
/// are not judged: their absence changes no sample.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A buffer that has grown beyond this many bytes is given back: a third of a second of the largest format.
const KEPT: usize = 32 * 1024;

/// A payload that is no base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotBase64;

/// Where payloads are decoded into, over and over.
#[derive(Debug, Default)]
pub(crate) struct PayloadBuffer(Vec<u8>);

impl PayloadBuffer {
    /// The bytes of a payload, until the next one.
    pub(crate) fn decode(&mut self, text: &str) -> Result<&[u8], NotBase64> {
        self.0.clear();
        if self.0.capacity() > KEPT {
            self.0 = Vec::new();
        }
        BASE64.decode_vec(text, &mut self.0).map_err(|_| NotBase64)?;
        Ok(&self.0)
    }
}

/// Appends the base64 of `bytes`.
pub(crate) fn encode(bytes: &[u8], text: &mut String) {
    BASE64.encode_string(bytes, text);
}

/// The length of the base64 of so many bytes.
pub(crate) const fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Decodes what must have been encoded exactly so, such as a signature.
pub(crate) fn decode_strictly(text: &str) -> Result<Vec<u8>, NotBase64> {
    STANDARD.decode(text).map_err(|_| NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lenient_where_no_sample_changes() {
        fn check(text: &str, expected: Result<&[u8], NotBase64>) {
            assert_eq!(PayloadBuffer::default().decode(text), expected, "{text}");
        }
        check("", Ok(&[]));
        check("/38=", Ok(&[0xff, 0x7f]));
        check("/38", Ok(&[0xff, 0x7f]));
        check("/39=", Ok(&[0xff, 0x7f]));
        check("/38=\n", Err(NotBase64));
        check("_38=", Err(NotBase64));
        check("/", Err(NotBase64));
        check("é", Err(NotBase64));
    }

    #[test]
    fn a_large_payload_leaves_no_large_buffer() {
        let mut buffer = PayloadBuffer::default();
        buffer.decode(&"A".repeat(400_000)).unwrap();
        buffer.decode("AAAA").unwrap();
        assert!(buffer.0.capacity() <= KEPT);
    }

    #[test]
    fn length_is_known_before() {
        for bytes in 0..9 {
            let mut text = String::new();
            encode(&vec![7; bytes], &mut text);
            assert_eq!(text.len(), encoded_len(bytes));
        }
    }
}
