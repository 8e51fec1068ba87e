//! `X-Twilio-Signature`: whether a request is from Twilio.

use std::fmt;

use ring::hmac;

use crate::payload;

/// The account's auth token, with which Twilio signs. It does not show itself in `Debug`.
#[derive(Clone)]
pub struct TwilioToken(hmac::Key);

/// The request is not from Twilio, or was changed on its way, or our idea of its URL is not Twilio's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit the request")]
pub struct InvalidSignature;

impl TwilioToken {
    /// The token, as the account's page shows it.
    #[must_use]
    pub fn new(token: &str) -> Self {
        // SHA-1 is Twilio's choice. As a MAC it is not broken (RFC 6151 says so even of MD5).
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes()))
    }

    /// Checks the value of `X-Twilio-Signature` for a request to `url`, as Twilio sees it, query included. `parameters`
    /// are those of a form that was posted; a WebSocket's handshake has none. The comparison takes the same time
    /// wherever two signatures differ.
    ///
    /// Twilio signs its idea of the URL, which may or may not name the scheme's own port: both are tried.
    ///
    /// # Errors
    /// [`InvalidSignature`].
    pub fn verify(&self, url: &str, parameters: &[(String, String)], signature: &str) -> Result<(), InvalidSignature> {
        let signature = payload::decode_strictly(signature).map_err(|_| InvalidSignature)?;
        let mut sorted: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        sorted.sort_unstable();
        // A parameter that comes twice with the same value is signed once.
        sorted.dedup();
        let parameters: String = sorted.into_iter().flat_map(|(name, value)| [name, value]).collect();
        let fits = |url: &str| hmac::verify(&self.0, format!("{url}{parameters}").as_bytes(), &signature).is_ok();
        if fits(url) || with_other_port(url).is_some_and(|url| fits(&url)) { Ok(()) } else { Err(InvalidSignature) }
    }
}

impl fmt::Debug for TwilioToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TwilioToken(…)")
    }
}

/// The same URL with the scheme's own port if it names none, and without it if it does; `None` for any other port.
fn with_other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" | "wss" => ":443",
        "http" | "ws" => ":80",
        _ => return None,
    };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if let Some(bare) = host.strip_suffix(port) {
        return Some(format!("{scheme}://{bare}{path}"));
    }
    // The colons of an IPv6 address are within its brackets.
    let has_port = host.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    (!has_port).then(|| format!("{scheme}://{host}{port}{path}"))
}

/// The parameters of a posted form (`application/x-www-form-urlencoded`).
#[must_use]
pub fn form_parameters(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
    const FORM: &[u8] =
        b"From=%2B14158675309&To=%2B18005551212&CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234";

    #[track_caller]
    fn check(token: &str, url: &str, form: &[u8], signature: &str, expected: Result<(), InvalidSignature>) {
        assert_eq!(TwilioToken::new(token).verify(url, &form_parameters(form), signature), expected, "{url}");
    }

    /// The vector that Twilio's own libraries are tested with, and others made with another implementation.
    #[test]
    fn vectors() {
        const SIGNATURE: &str = "RSOYDt4T1cUTdK1PDd93/VVr8B8=";
        check("12345", URL, FORM, SIGNATURE, Ok(()));
        check("12346", URL, FORM, SIGNATURE, Err(InvalidSignature));
        check("12345", "https://mycompany.com/myapp.php?foo=1&bar=3", FORM, SIGNATURE, Err(InvalidSignature));
        check("12345", URL, &FORM[..FORM.len() - 1], SIGNATURE, Err(InvalidSignature));
        check("12345", URL, FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B9=", Err(InvalidSignature));
        for nonsense in ["", "RSOY", "é", "RSOYDt4T1cUTdK1PDd93/VVr8B8=RSOY"] {
            check("12345", URL, FORM, nonsense, Err(InvalidSignature));
        }
        check("12345", "wss://x.example/telephone/handler", b"", "pT+apu/rKq97mLntAovm0ulS4dg=", Ok(()));
    }

    #[test]
    fn a_parameter_that_comes_twice_is_signed_once() {
        let twice = [FORM, b"&Digits=1234"].concat();
        check("12345", URL, &twice, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", Ok(()));
        let other = [FORM, b"&Digits=1235"].concat();
        check("12345", URL, &other, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", Err(InvalidSignature));
    }

    #[test]
    fn ports() {
        const WITH_PORT: &str = "kvajT1Ptam85bY51eRf/AJRuM3w=";
        check("12345", "https://mycompany.com:443/myapp.php?foo=1&bar=2", FORM, WITH_PORT, Ok(()));
        check("12345", URL, FORM, WITH_PORT, Ok(()));
        check("12345", "https://mycompany.com:443/myapp.php?foo=1&bar=2", FORM, "RSOYDt4T1cUTdK1PDd93/VVr8B8=", Ok(()));
        check("12345", "https://mycompany.com:8443/myapp.php?foo=1&bar=2", FORM, WITH_PORT, Err(InvalidSignature));
        for (url, expected) in [
            ("wss://a.example", Some("wss://a.example:443")),
            ("wss://a.example:443?x", Some("wss://a.example?x")),
            ("http://[::1]/x", Some("http://[::1]:80/x")),
            ("http://[::1]:80/x", Some("http://[::1]/x")),
            ("http://a.example:443/", None),
            ("ftp://a.example/", None),
            ("", None),
        ] {
            assert_eq!(with_other_port(url).as_deref(), expected, "{url}");
        }
    }
}
