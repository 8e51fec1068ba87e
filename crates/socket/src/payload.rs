//! Base64, as media payloads use it.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};

/// Padding and unused bits of what others encoded are not judged: their absence changes no sample.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The standard alphabet (RFC 4648, section 4), encoded with padding; with vector instructions where the processor has them,
/// as half of what an echo computes would be this.
#[cfg(target_arch = "x86_64")]
static BASE64: LazyLock<base64::engine::Simd> = LazyLock::new(|| base64::engine::Simd::standard(LENIENT));
/// The standard alphabet (RFC 4648, section 4), encoded with padding.
#[cfg(not(target_arch = "x86_64"))]
static BASE64: LazyLock<base64::engine::GeneralPurpose> =
    LazyLock::new(|| base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT));

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

    /// What was decoded last.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
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
    fn all_lengths_are_as_others_encode_them_and_come_back() {
        let bytes: Vec<u8> = (0..=999u16).map(|n| ((n * 7) >> 1) as u8).collect();
        for length in 0..bytes.len() {
            let (bytes, mut text) = (&bytes[..length], String::new());
            encode(bytes, &mut text);
            assert_eq!(text, STANDARD.encode(bytes));
            assert_eq!(PayloadBuffer::default().decode(&text), Ok(bytes));
            // Wherever something stands that is no base64, it is found.
            if length > 0 {
                text.replace_range(length % text.len()..=length % text.len(), "*");
                assert_eq!(PayloadBuffer::default().decode(&text), Err(NotBase64));
            }
        }
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
