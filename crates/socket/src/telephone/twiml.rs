//! The answer to `POST {p}/telephone/incoming`: TwiML.

use std::fmt::{self, Write as _};

/// The longest `<Parameter>`, name and value together, in characters: Twilio's limit.
pub const MAX_PARAMETER: usize = 500;

/// Say something, connect the call to a media stream, say something. As FastRTC answers.
#[derive(Debug, Clone, Copy)]
pub struct Twiml<'a> {
    /// Said before the call is connected; nothing if empty.
    pub before: &'a str,
    /// The `wss` URL of the media stream.
    pub stream_url: &'a str,
    /// Sent back by Twilio in `start.customParameters`.
    pub parameters: &'a [(&'a str, &'a str)],
    /// Where Twilio asks what to do when the stream is over, instead of going on below. It brings back a call whose
    /// socket broke.
    pub action: Option<&'a str>,
    /// Said after the stream; nothing if empty.
    pub after: &'a str,
}

/// The document that says something and hangs up; without a text it hangs up at once.
#[must_use]
pub fn hang_up(text: &str) -> String {
    let mut xml = HEAD.to_owned();
    // Writing to a String cannot fail.
    let _ = say(&mut xml, text);
    xml.push_str("<Hangup /></Response>");
    xml
}

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#;

/// What Twilio would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwimlError {
    /// A parameter is too long.
    #[error("parameter {name} must be at most {MAX_PARAMETER} characters long, its name included")]
    ParameterTooLong {
        /// Its name.
        name: String,
    },
}

impl Twiml<'_> {
    /// The document, for `application/xml`.
    ///
    /// # Errors
    /// [`TwimlError`].
    pub fn to_xml(&self) -> Result<String, TwimlError> {
        for (name, value) in self.parameters {
            if name.chars().count() + value.chars().count() > MAX_PARAMETER {
                return Err(TwimlError::ParameterTooLong { name: name.chars().take(MAX_PARAMETER).collect() });
            }
        }
        let mut xml = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut xml);
        Ok(xml)
    }

    fn write(&self, xml: &mut String) -> fmt::Result {
        xml.push_str(HEAD);
        say(xml, self.before)?;
        match self.action {
            Some(action) => write!(xml, r#"<Connect action="{}">"#, Escaped(action))?,
            None => xml.push_str("<Connect>"),
        }
        write!(xml, r#"<Stream url="{}""#, Escaped(self.stream_url))?;
        if self.parameters.is_empty() {
            xml.push_str(" />");
        } else {
            xml.push('>');
            for (name, value) in self.parameters {
                write!(xml, r#"<Parameter name="{}" value="{}" />"#, Escaped(name), Escaped(value))?;
            }
            xml.push_str("</Stream>");
        }
        xml.push_str("</Connect>");
        say(xml, self.after)?;
        xml.push_str("</Response>");
        Ok(())
    }
}

fn say(xml: &mut String, text: &str) -> fmt::Result {
    if text.is_empty() { Ok(()) } else { write!(xml, "<Say>{}</Say>", Escaped(text)) }
}

/// Text within an element or a double-quoted attribute. Characters that XML 1.0 (2.2) cannot hold are left out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                // As they are they would become spaces in an attribute (3.3.3).
                '\t' | '\n' | '\r' => write!(f, "&#{};", u32::from(character))?,
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "wss://a.example/telephone/handler";

    #[track_caller]
    fn check(twiml: &Twiml<'_>, expected: &str) {
        let head = r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#;
        assert_eq!(twiml.to_xml().unwrap(), format!("{head}{expected}</Response>"));
    }

    const FASTRTC: Twiml<'_> = Twiml {
        before: "Connecting to the AI assistant.",
        stream_url: URL,
        parameters: &[],
        action: None,
        after: "The call has been disconnected.",
    };

    #[test]
    fn as_fastrtc() {
        check(
            &FASTRTC,
            "<Say>Connecting to the AI assistant.</Say><Connect><Stream url=\"wss://a.example/telephone/handler\" />\
             </Connect><Say>The call has been disconnected.</Say>",
        );
    }

    #[test]
    fn with_everything() {
        let parameters = [("From", "+1 <2>"), ("name", "O'Neil \"&\" \u{1}\n")];
        check(
            &Twiml { parameters: &parameters, action: Some("https://a.example/x?a=1&b=2"), after: "", ..FASTRTC },
            "<Say>Connecting to the AI assistant.</Say><Connect action=\"https://a.example/x?a=1&amp;b=2\">\
             <Stream url=\"wss://a.example/telephone/handler\"><Parameter name=\"From\" value=\"+1 &lt;2&gt;\" />\
             <Parameter name=\"name\" value=\"O&apos;Neil &quot;&amp;&quot; &#10;\" /></Stream></Connect>",
        );
        check(
            &Twiml { before: "</Say><Hangup/>", after: "", ..FASTRTC },
            "<Say>&lt;/Say&gt;&lt;Hangup/&gt;</Say><Connect><Stream url=\"wss://a.example/telephone/handler\" /></Connect>",
        );
    }

    #[test]
    fn the_end_of_a_call() {
        assert_eq!(hang_up(""), format!("{HEAD}<Hangup /></Response>"));
        assert_eq!(
            hang_up("Bye & <thanks>"),
            format!("{HEAD}<Say>Bye &amp; &lt;thanks&gt;</Say><Hangup /></Response>")
        );
    }

    #[test]
    fn parameters_have_a_limit() {
        let value = "ä".repeat(496);
        assert!(Twiml { parameters: &[("name", &value)], ..FASTRTC }.to_xml().is_ok());
        let error = TwimlError::ParameterTooLong { name: "names".into() };
        assert_eq!(Twiml { parameters: &[("names", &value)], ..FASTRTC }.to_xml(), Err(error));
    }
}
