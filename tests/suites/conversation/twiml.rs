//! A telephone company's side of the webhook, where a test has to see what the service answers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use streamfleet_client::{Resume, SessionId};
use streamfleet_tests::{Server, http};

use crate::blocking;

const SESSION: &str = "streamfleet_session";
const RESUME: &str = "streamfleet_resume";

/// A call for which the service has given its TwiML.
#[derive(Debug, Clone)]
pub(crate) struct PutThrough {
    pub(crate) sid: String,
    /// What its stream shows.
    pub(crate) parameters: BTreeMap<String, String>,
    /// Where the company asks when the stream is over.
    action: String,
}

impl PutThrough {
    /// Asks what is to be done with a new call.
    pub(crate) fn ask(server: &Server, service: &str, sid: &str) -> Result<Self> {
        let folder = format!("{}/{service}/telephone", server.url());
        let twiml = ask(&format!("{folder}/incoming"), sid)?;
        let (_, rest) = twiml.split_once("<Connect action=\"").with_context(|| twiml.clone())?;
        let (action, _) = rest.split_once('"').context("a quote that does not end")?;
        let parameters = parameters(&twiml);
        Ok(Self { sid: sid.to_owned(), parameters, action: format!("{folder}/{action}") })
    }

    /// The token of the call's session, which lives: what the company is given when its stream is over.
    pub(crate) fn resume_token(&self) -> Result<Resume> {
        let twiml = ask(&self.action, &self.sid)?;
        let token = parameters(&twiml).remove(RESUME).with_context(|| twiml.clone())?;
        Resume::new(token).context("a token that is empty")
    }
}

/// What a call shows that takes up a session.
pub(crate) fn taking_up(id: &SessionId, token: &Resume) -> [(String, String); 2] {
    [(SESSION.to_owned(), id.to_string()), (RESUME.to_owned(), token.expose().to_owned())]
}

fn ask(url: &str, sid: &str) -> Result<String> {
    let form = format!("CallSid={sid}&From=%2B15555550100&To=%2B15555550199");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let answer = blocking(|| http::request("POST", url, &headers, form.as_bytes()))?;
    ensure!(answer.status == 200, "{answer:?}");
    answer.text()
}

/// Nothing that the service puts there needs an entity.
fn parameters(twiml: &str) -> BTreeMap<String, String> {
    let one = |part: &str| {
        let (name, rest) = part.split_once("\" value=\"")?;
        Some((name.to_owned(), rest.split_once('"')?.0.to_owned()))
    };
    twiml.split("<Parameter name=\"").skip(1).filter_map(one).collect()
}
