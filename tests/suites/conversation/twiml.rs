//! A telephone company's side of the webhook, where a test has to see what the service answers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use streamfleet_client::{Resume, SessionId};
use streamfleet_tests::{Server, Twiml};

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
        let Twiml { parameters, action } = blocking(|| Twiml::ask(&format!("{folder}/incoming"), sid))?;
        let action = action.with_context(|| format!("no way back: {parameters:?}"))?;
        Ok(Self { sid: sid.to_owned(), parameters, action: format!("{folder}/{action}") })
    }

    /// The token of the call's session, which lives: what the company is given when its stream is over.
    pub(crate) fn resume_token(&self) -> Result<Resume> {
        let mut twiml = blocking(|| Twiml::ask(&self.action, &self.sid))?;
        let token = twiml.parameters.remove(RESUME).with_context(|| format!("{twiml:?}"))?;
        Resume::new(token).context("a token that is empty")
    }
}

/// What a call shows that takes up a session.
pub(crate) fn taking_up(id: &SessionId, token: &Resume) -> [(String, String); 2] {
    [(SESSION.to_owned(), id.to_string()), (RESUME.to_owned(), token.expose().to_owned())]
}
