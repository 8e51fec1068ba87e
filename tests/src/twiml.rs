//! A telephone company's side of the webhook, where a test has to see what the service answers.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::http;

/// What a service has a telephone company do with a call.
#[derive(Debug, Clone)]
pub struct Twiml {
    /// What the call's stream shows; empty where none is connected.
    pub parameters: BTreeMap<String, String>,
    /// Where the company asks when the stream is over, seen from where it asked first.
    pub action: Option<String>,
}

impl Twiml {
    /// Asks what is to be done with this call.
    ///
    /// # Errors
    /// When the answer is none of a service that takes calls.
    pub fn ask(url: &str, sid: &str) -> Result<Self> {
        let form = format!("CallSid={sid}&From=%2B15555550100&To=%2B15555550199");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::request("POST", url, &headers, form.as_bytes())?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(Self::read(&answer.text()?))
    }

    /// Nothing that the service puts there needs an entity.
    fn read(text: &str) -> Self {
        let parameter = |part: &str| {
            let (name, rest) = part.split_once("\" value=\"")?;
            Some((name.to_owned(), rest.split_once('"')?.0.to_owned()))
        };
        let action = text.split_once("<Connect action=\"").and_then(|(_, rest)| rest.split_once('"'));
        Self {
            parameters: text.split("<Parameter name=\"").skip(1).filter_map(parameter).collect(),
            action: action.map(|(action, _)| action.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twiml_is_read() {
        let text = "<Response><Connect action=\"incoming?a=b\"><Stream url=\"wss://h/telephone/handler\">\
                    <Parameter name=\"From\" value=\"+1\"/><Parameter name=\"t\" value=\"x\"/></Stream></Connect></Response>";
        let Twiml { parameters, action } = Twiml::read(text);
        assert_eq!(
            parameters,
            [("From", "+1"), ("t", "x")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
        );
        assert_eq!(action.as_deref(), Some("incoming?a=b"));
        let over = Twiml::read("<Response><Say>Goodbye.</Say><Hangup/></Response>");
        assert!(over.parameters.is_empty() && over.action.is_none());
    }
}
