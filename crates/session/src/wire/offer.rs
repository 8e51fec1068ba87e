//! The body of `POST {p}/webrtc/offer`: an offer, or one trickled candidate.

use serde_json::{Map, Value};

use super::BodyError;
use super::body_error::Faults;
use super::fields::{object, optional_string, required_id, required_string};
use crate::id::SessionId;
use crate::token::ResumeToken;

/// What a client posts to `{p}/webrtc/offer`.
#[derive(Debug, Clone, PartialEq)]
pub enum OfferBody {
    /// `type: "offer"`.
    Offer(Offer),
    /// `type: "ice-candidate"`.
    Candidate {
        /// The session it belongs to.
        webrtc_id: SessionId,
        /// What [`RemoteCandidate::parse`](crate::RemoteCandidate::parse) reads. A missing candidate is `null`.
        candidate: Value,
        /// The metadata as sent, unread: some clients send it with every request.
        metadata: Option<Value>,
    },
}

/// An offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The id that the client chose.
    pub webrtc_id: SessionId,
    /// The offered SDP, unread. Empty if there is none: that is no valid SDP, and its turn among the checks comes
    /// after identity and limits.
    pub sdp: String,
    /// The token of an earlier session to take up. A text that cannot be a token of ours is as good as none.
    pub resume: Option<ResumeToken>,
    /// The metadata as sent, unread: `identify` judges it after the service is known.
    pub metadata: Option<Value>,
    /// `candidate` as sent: an object in which some clients put metadata (`additionalProp1`), or `null`.
    pub candidate: Option<Value>,
    /// All other keys.
    pub extra: Map<String, Value>,
}

/// The words that `type` may be.
const TYPES: &str = "'offer' or 'ice-candidate'";

impl OfferBody {
    /// Reads a body.
    ///
    /// # Errors
    /// Everything that is wrong with its shape, in the words of FastAPI. An unknown `type` and a `webrtc_id` with
    /// foreign characters are of that kind too. The SDP, the candidate and the metadata are not looked into.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let mut object = object(body)?;
        let mut faults = Faults::in_body();
        let is_candidate = object.get("type").is_some_and(|kind| kind == "ice-candidate");
        optional_string(&object, "sdp", &mut faults);
        match object.get("candidate") {
            None | Some(Value::Null | Value::Object(_)) => {}
            // aiortc's helper makes a string of the whole object.
            Some(Value::String(_)) if is_candidate => {}
            Some(other) => faults.not_a_dictionary("candidate", other),
        }
        if let Some(kind) = required_string(&object, "type", &mut faults)
            && !matches!(kind, "offer" | "ice-candidate")
        {
            faults.not_one_of("type", TYPES, kind);
        }
        let webrtc_id = required_id(&object, &mut faults);
        optional_string(&object, "resume", &mut faults);
        let webrtc_id: SessionId = match webrtc_id {
            Some(webrtc_id) if faults.is_empty() => webrtc_id,
            _ => return Err(faults.into()),
        };

        let candidate = object.remove("candidate").filter(|candidate| !candidate.is_null());
        if is_candidate {
            let candidate = candidate.unwrap_or(Value::Null);
            return Ok(Self::Candidate { webrtc_id, candidate, metadata: object.remove("metadata") });
        }
        object.remove("type");
        object.remove("webrtc_id");
        let sdp = match object.remove("sdp") {
            Some(Value::String(sdp)) => sdp,
            _ => String::new(),
        };
        let resume = object.remove("resume").and_then(|token| token.as_str()?.parse().ok());
        let metadata = object.remove("metadata");
        Ok(Self::Offer(Offer { webrtc_id, sdp, resume, metadata, candidate, extra: object }))
    }

    /// The session's id.
    pub fn webrtc_id(&self) -> &SessionId {
        match self {
            Self::Offer(offer) => &offer.webrtc_id,
            Self::Candidate { webrtc_id, .. } => webrtc_id,
        }
    }
}
