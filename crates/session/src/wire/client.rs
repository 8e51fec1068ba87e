//! What a session's client, or whoever acts for it, asks beside its offer: its outputs, and to hand in arguments.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use super::BodyError;
use super::body_error::Faults;
use super::fields::{object, required_id};
use crate::id::SessionId;

/// Values in the arguments of one request, each element and each member counted. A value costs up to fifty times its text
/// in memory, and a handler that is slow has several requests wait for it.
pub const MAX_VALUES: usize = 2048;

/// The query of `GET {p}/outputs`.
#[derive(Clone, PartialEq, Eq)]
pub struct OutputsQuery {
    /// The session's id.
    pub webrtc_id: SessionId,
    /// What a browser's `EventSource`, which can send no header, shows instead of one. A secret.
    pub access_token: Option<String>,
}

impl fmt::Debug for OutputsQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token must not come into a log.
        let shown = self.access_token.as_ref().map(|_| "…");
        f.debug_struct("OutputsQuery").field("webrtc_id", &self.webrtc_id).field("access_token", &shown).finish()
    }
}

impl OutputsQuery {
    /// Reads the parameters of a query, decoded. Unknown ones are ignored.
    ///
    /// # Errors
    /// A parameter that is missing, given twice (proxies differ in which of the two they take), or no id.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Result<Self, BodyError> {
        let mut faults = Faults::in_query();
        let (mut id, mut access_token) = (None, None);
        for (name, value) in parameters {
            match &*name {
                "webrtc_id" if id.is_some() => faults.given_twice("webrtc_id"),
                "webrtc_id" => id = Some(value),
                "access_token" if access_token.is_some() => faults.given_twice("access_token"),
                "access_token" => access_token = Some(value.into_owned()),
                _ => {}
            }
        }
        let webrtc_id = match id {
            None => {
                faults.missing_parameter("webrtc_id");
                None
            }
            Some(text) => text.parse().map_err(|error| faults.refused("webrtc_id", &error, &text)).ok(),
        };
        match webrtc_id {
            Some(webrtc_id) if faults.is_empty() => Ok(Self { webrtc_id, access_token }),
            _ => Err(faults.into()),
        }
    }
}

/// The body of `POST {p}/input_hook`.
#[derive(Debug, Clone, PartialEq)]
pub struct InputBody {
    /// The session's id.
    pub webrtc_id: SessionId,
    /// The handler's arguments: `inputs`, and behind them all further keys as one object if there are any.
    pub inputs: Vec<Value>,
}

impl InputBody {
    /// Reads a body.
    ///
    /// # Errors
    /// Everything that is wrong with its shape. A body with neither `inputs` nor further keys lacks `inputs`.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let mut object = object(body)?;
        let mut faults = Faults::in_body();
        let webrtc_id = required_id(&object, &mut faults);
        check_inputs(&object, &mut faults);
        if object.keys().all(|key| key == "webrtc_id") {
            faults.missing("inputs", &object);
        }
        let Some(webrtc_id) = webrtc_id.filter(|_| faults.is_empty()) else { return Err(faults.into()) };
        let mut inputs = take_inputs(&mut object);
        object.remove("webrtc_id");
        if !object.is_empty() {
            inputs.push(Value::Object(object));
        }
        Ok(Self { webrtc_id, inputs })
    }
}

/// The body of `POST {p}/trigger_response`.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerBody {
    /// The session's id.
    pub webrtc_id: SessionId,
    /// Arguments for the reply. None are as good as an empty list of them.
    pub inputs: Option<Vec<Value>>,
}

impl TriggerBody {
    /// Reads a body. Unknown keys are ignored.
    ///
    /// # Errors
    /// Everything that is wrong with its shape.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        let mut object = object(body)?;
        let mut faults = Faults::in_body();
        let webrtc_id = required_id(&object, &mut faults);
        check_inputs(&object, &mut faults);
        let Some(webrtc_id) = webrtc_id.filter(|_| faults.is_empty()) else { return Err(faults.into()) };
        let inputs = Some(take_inputs(&mut object)).filter(|inputs| !inputs.is_empty());
        Ok(Self { webrtc_id, inputs })
    }
}

/// A merge patch (RFC 7396) of a session's data, which is an object.
///
/// # Errors
/// It is no JSON, or no object.
pub fn parse_patch(body: &[u8]) -> Result<Map<String, Value>, BodyError> {
    object(body)
}

/// Whether `values` have more than [`MAX_VALUES`] values in them.
#[must_use]
pub fn is_too_many(values: &[Value]) -> bool {
    let mut left = MAX_VALUES;
    !values.iter().all(|value| count(value, &mut left))
}

/// Counts `value` off `left`; whether there was enough. As deep as the parser lets anything be.
fn count(value: &Value, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(1) else { return false };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().all(|item| count(item, left)),
        Value::Object(members) => members.values().all(|member| count(member, left)),
        _ => true,
    }
}

fn check_inputs(object: &Map<String, Value>, faults: &mut Faults) {
    match object.get("inputs") {
        None | Some(Value::Null | Value::Array(_)) => {}
        Some(other) => faults.not_a_list("inputs", other),
    }
}

fn take_inputs(object: &mut Map<String, Value>) -> Vec<Value> {
    match object.remove("inputs") {
        Some(Value::Array(inputs)) => inputs,
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
