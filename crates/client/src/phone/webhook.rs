//! Asking a service what to do with an incoming call: the form, its signature, and the TwiML that comes back.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use thiserror::Error;

use super::options::{AuthToken, PhoneOptions};

/// Longest TwiML that is read; Twilio takes 64 kB.
pub(crate) const MAX_TWIML: usize = 64 * 1024;
/// Parameters of a stream. Twilio takes about 500 bytes of them together.
const MAX_PARAMETERS: usize = 64;

/// Why a service's TwiML connects no call.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum InvalidTwiml {
    /// No `<Stream>`.
    #[error("there is no <Stream> in it")]
    NoStream,
    /// A `<Stream>` without an address.
    #[error("its <Stream> has no url")]
    NoUrl,
    /// A tag, a quote or an entity that does not end.
    #[error("it is no XML")]
    NotXml,
    /// Longer than what is read, or too many parameters.
    #[error("there is too much of it")]
    TooLong,
}

/// Where the media stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamVerb {
    pub(crate) url: String,
    pub(crate) parameters: BTreeMap<String, String>,
}

/// The fields that Twilio posts about an incoming call.
pub(crate) fn form(options: &PhoneOptions) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("AccountSid", options.account_sid.clone()),
        ("ApiVersion", "2010-04-01".to_owned()),
        ("CallSid", options.call_sid.clone()),
        ("CallStatus", "ringing".to_owned()),
        ("Direction", "inbound".to_owned()),
        ("From", options.from.clone()),
        ("To", options.to.clone()),
    ])
}

/// `X-Twilio-Signature`: HMAC-SHA1 of the URL and the fields in the order of their names, in base64.
pub(crate) fn signature(token: &AuthToken, url: &str, fields: &BTreeMap<&'static str, String>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.expose().as_bytes());
    let mut signed = url.to_owned();
    for (name, value) in fields {
        signed.push_str(name);
        signed.push_str(value);
    }
    STANDARD.encode(hmac::sign(&key, signed.as_bytes()))
}

/// Finds `<Connect><Stream url=…>` with its `<Parameter>`s. What else the TwiML says is for a caller's ears.
pub(crate) fn read_twiml(text: &str) -> Result<StreamVerb, InvalidTwiml> {
    if text.len() > MAX_TWIML {
        return Err(InvalidTwiml::TooLong);
    }
    let mut stream: Option<StreamVerb> = None;
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = &comment[comment.find("-->").ok_or(InvalidTwiml::NotXml)?..];
            continue;
        }
        let end = tag_end(rest).ok_or(InvalidTwiml::NotXml)?;
        let tag = &rest[1..end];
        rest = &rest[end..];
        let name = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
        match (name, &mut stream) {
            ("Stream", None) => {
                let url = attributes(tag)?.remove("url").ok_or(InvalidTwiml::NoUrl)?;
                stream = Some(StreamVerb { url, parameters: BTreeMap::new() });
            }
            ("Parameter", Some(stream)) => {
                let mut found = attributes(tag)?;
                if let (Some(name), Some(value)) = (found.remove("name"), found.remove("value")) {
                    stream.parameters.insert(name, value);
                }
                if stream.parameters.len() > MAX_PARAMETERS {
                    return Err(InvalidTwiml::TooLong);
                }
            }
            _ => {}
        }
    }
    stream.ok_or(InvalidTwiml::NoStream)
}

/// The `>` that ends the tag at the beginning of `text`, outside of quotes.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('>', None) => return Some(at),
            _ => {}
        }
    }
    None
}

fn attributes(tag: &str) -> Result<BTreeMap<String, String>, InvalidTwiml> {
    let mut found = BTreeMap::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.split_whitespace().next_back().unwrap_or_default();
        let after = after.trim_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(InvalidTwiml::NotXml)?;
        let (value, next) = after[1..].split_once(quote).ok_or(InvalidTwiml::NotXml)?;
        found.insert(name.to_owned(), unescape(value)?);
        rest = next;
    }
    Ok(found)
}

/// Replaces the five entities of XML and character references.
fn unescape(text: &str) -> Result<String, InvalidTwiml> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, next) = after.split_once(';').ok_or(InvalidTwiml::NotXml)?;
        let number = entity.strip_prefix('#').and_then(|number| match number.strip_prefix('x') {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        });
        plain.push_str(before);
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => number.and_then(char::from_u32).ok_or(InvalidTwiml::NotXml)?,
        });
        rest = next;
    }
    plain.push_str(rest);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of <https://www.twilio.com/docs/usage/security#validating-requests>.
    #[test]
    fn the_documented_signature() {
        let token = AuthToken::new("12345").unwrap();
        let fields = BTreeMap::from([
            ("CallSid", "CA1234567890ABCDE".to_owned()),
            ("Caller", "+12349013030".to_owned()),
            ("Digits", "1234".to_owned()),
            ("From", "+12349013030".to_owned()),
            ("To", "+18005551212".to_owned()),
        ]);
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        assert_eq!(signature(&token, url, &fields), "0/KCTR6DLpKmkAf8muzZqo1nDgQ=");
    }

    /// An address and parameters.
    type Dial<'a> = (&'a str, &'a [(&'a str, &'a str)]);

    #[test]
    fn twiml() {
        #[track_caller]
        fn check(text: &str, expected: Result<Dial<'_>, InvalidTwiml>) {
            let expected = expected.map(|(url, parameters)| StreamVerb {
                url: url.into(),
                parameters: parameters.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            });
            assert_eq!(read_twiml(text), expected, "{text}");
        }
        let fastrtc = r#"<?xml version="1.0" encoding="UTF-8"?><Response><Say>Connecting to the AI assistant.</Say><Connect><Stream url="wss://example.com/telephone/handler" /></Connect><Say>The call has been disconnected.</Say></Response>"#;
        check(fastrtc, Ok(("wss://example.com/telephone/handler", &[])));
        let ours = "<Response><!-- <Stream url='no'/> --><Connect>\n<Stream track='inbound_track' url='wss://h/?a=1&amp;b=&#x3e;'>\n\
                    <Parameter name=\"From\" value=\"+1 > 0\"/><Parameter name='t' value='&quot;'/></Stream></Connect></Response>";
        check(ours, Ok(("wss://h/?a=1&b=>", &[("From", "+1 > 0"), ("t", "\"")])));
        check("<Response><Say>hi</Say></Response>", Err(InvalidTwiml::NoStream));
        check("", Err(InvalidTwiml::NoStream));
        check("<Response><Connect><Stream/></Connect></Response>", Err(InvalidTwiml::NoUrl));
        check("<Stream url='a", Err(InvalidTwiml::NotXml));
        check("<Stream url=a>", Err(InvalidTwiml::NotXml));
        check("<Stream url='&nbsp;'>", Err(InvalidTwiml::NotXml));
        check("<!-- ", Err(InvalidTwiml::NotXml));
        check(&"x".repeat(MAX_TWIML + 1), Err(InvalidTwiml::TooLong));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in r#"(<Stream |url=|"|'|>|<!--|-->|&|;|#|x|/|é| |a){0,40}"#) {
            let _ = read_twiml(&text);
        }
    }
}
