//! Replies that are no failures.

use serde::{Deserialize, Serialize};

use super::to_json;
use crate::token::ResumeToken;

/// The reply to an offer: `{"sdp": …, "type": "answer", "resume": …}`. Clients pass the whole object to
/// `setRemoteDescription`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "AnswerWire", into = "AnswerWire")]
pub struct Answer {
    /// The answer's SDP.
    pub sdp: String,
    /// What the client may present to take up its session again; used once.
    pub resume: Option<ResumeToken>,
}

#[derive(Serialize, Deserialize)]
struct AnswerWire {
    sdp: String,
    r#type: AnswerType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume: Option<ResumeToken>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AnswerType {
    Answer,
}

impl From<Answer> for AnswerWire {
    fn from(Answer { sdp, resume }: Answer) -> Self {
        Self { sdp, r#type: AnswerType::Answer, resume }
    }
}

impl From<AnswerWire> for Answer {
    fn from(AnswerWire { sdp, r#type: AnswerType::Answer, resume }: AnswerWire) -> Self {
        Self { sdp, resume }
    }
}

impl Answer {
    /// The text to send.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}

/// The reply to an accepted candidate: `{"status":"success"}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(into = "SuccessWire")]
pub struct Success;

#[derive(Serialize)]
struct SuccessWire {
    status: &'static str,
}

impl From<Success> for SuccessWire {
    fn from(Success: Success) -> Self {
        Self { status: "success" }
    }
}

impl Success {
    /// The text to send.
    pub fn to_json(self) -> String {
        to_json(&self)
    }
}
