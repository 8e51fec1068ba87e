//! The fields of a JSON body, read one by one so that everything that is wrong is said at once.

use serde_json::{Map, Value};

use super::BodyError;
use super::body_error::Faults;
use crate::id::SessionId;

/// The body's object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, BodyError> {
    if body.is_empty() {
        return Err(BodyError::empty());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(BodyError::not_an_object(&other)),
        Err(error) => Err(BodyError::not_json(body, &error)),
    }
}

pub(super) fn optional_string(object: &Map<String, Value>, key: &'static str, faults: &mut Faults) {
    match object.get(key) {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(other) => faults.not_a_string(key, other),
    }
}

pub(super) fn required_string<'a>(
    object: &'a Map<String, Value>,
    key: &'static str,
    faults: &mut Faults,
) -> Option<&'a str> {
    match object.get(key) {
        Some(Value::String(text)) => return Some(text),
        Some(other) => faults.not_a_string(key, other),
        None => faults.missing(key, object),
    }
    None
}

/// `webrtc_id`, under which every body names its session, whatever carries it.
pub(super) fn required_id(object: &Map<String, Value>, faults: &mut Faults) -> Option<SessionId> {
    let text = required_string(object, "webrtc_id", faults)?;
    text.parse().map_err(|error| faults.refused("webrtc_id", &error, text)).ok()
}
