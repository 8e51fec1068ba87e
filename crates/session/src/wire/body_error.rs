//! Bodies of the wrong shape: HTTP 422 as FastAPI reports it, which clients and their logs know.

use serde::Serialize;
use serde_json::{Map, Value};

use super::to_json;
use crate::id::ParseError;

/// The largest input that an error repeats, in bytes of JSON. FastAPI repeats everything; a reply several times the
/// size of a large request is of use to nobody but an attacker.
const MAX_ECHO: usize = 4096;

/// A request that does not have the shape of its route. Always HTTP 422.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the request does not have the documented shape: {}", .detail.first().map_or("", |detail| &detail.msg))]
pub struct BodyError {
    detail: Vec<Detail>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Detail {
    r#type: &'static str,
    loc: Vec<Location>,
    msg: String,
    input: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctx: Option<Context>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
enum Location {
    Key(&'static str),
    Character(usize),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Context {
    Error(Value),
    Expected(&'static str),
}

impl BodyError {
    /// The HTTP status.
    pub const STATUS: u16 = 422;

    /// The text to send: `{"detail":[{"type":…,"loc":["body",…],"msg":…,"input":…}]}`.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Wire<'a> {
            detail: &'a [Detail],
        }
        to_json(&Wire { detail: &self.detail })
    }

    /// Nothing was sent.
    pub(super) fn empty() -> Self {
        let detail = Detail {
            r#type: "missing",
            loc: vec![Location::Key("body")],
            msg: "Field required".into(),
            input: Value::Null,
            ctx: None,
        };
        Self { detail: vec![detail] }
    }

    /// Not JSON. The position is the character at which reading stopped.
    pub(super) fn not_json(body: &[u8], error: &serde_json::Error) -> Self {
        let sentence = error.to_string();
        let sentence = sentence.rsplit_once(" at line ").map_or(sentence.as_str(), |(sentence, _)| sentence);
        let detail = Detail {
            r#type: "json_invalid",
            loc: vec![Location::Key("body"), Location::Character(position(body, error))],
            msg: "JSON decode error".into(),
            input: Value::Object(Map::new()),
            ctx: Some(Context::Error(sentence.into())),
        };
        Self { detail: vec![detail] }
    }

    /// JSON that breaks a rule as a whole.
    #[must_use]
    pub fn refused(rule: &impl std::fmt::Display) -> Self {
        let detail = Detail {
            r#type: "value_error",
            loc: vec![Location::Key("body")],
            msg: format!("Value error, {rule}"),
            input: Value::Null,
            ctx: Some(Context::Error(Value::Object(Map::new()))),
        };
        Self { detail: vec![detail] }
    }

    /// JSON, and not an object.
    pub(super) fn not_an_object(body: &Value) -> Self {
        let detail = Detail {
            r#type: "model_attributes_type",
            loc: vec![Location::Key("body")],
            msg: "Input should be a valid dictionary or object to extract fields from".into(),
            input: echo(body),
            ctx: None,
        };
        Self { detail: vec![detail] }
    }
}

/// Collects everything that is wrong with the fields of a request, in the order of the fields.
pub(super) struct Faults {
    part: &'static str,
    detail: Vec<Detail>,
}

impl Faults {
    pub(super) fn in_body() -> Self {
        Self { part: "body", detail: Vec::new() }
    }

    pub(super) fn in_query() -> Self {
        Self { part: "query", detail: Vec::new() }
    }

    /// A query is no object that could be repeated.
    pub(super) fn missing_parameter(&mut self, key: &'static str) {
        self.push("missing", key, "Field required", Value::Null, None);
    }

    pub(super) fn given_twice(&mut self, key: &'static str) {
        let context = Context::Error(Value::Object(Map::new()));
        self.push("value_error", key, "Value error, must be given once", Value::Null, Some(context));
    }

    pub(super) fn not_a_list(&mut self, key: &'static str, input: &Value) {
        self.push("list_type", key, "Input should be a valid list", echo(input), None);
    }

    pub(super) fn missing(&mut self, key: &'static str, body: &Map<String, Value>) {
        self.push("missing", key, "Field required", echo(body), None);
    }

    pub(super) fn not_a_string(&mut self, key: &'static str, input: &Value) {
        self.push("string_type", key, "Input should be a valid string", echo(input), None);
    }

    pub(super) fn not_a_dictionary(&mut self, key: &'static str, input: &Value) {
        self.push("dict_type", key, "Input should be a valid dictionary", echo(input), None);
    }

    pub(super) fn not_one_of(&mut self, key: &'static str, expected: &'static str, input: &str) {
        let context = Context::Expected(expected);
        self.push("literal_error", key, &format!("Input should be {expected}"), echo(input), Some(context));
    }

    pub(super) fn refused(&mut self, key: &'static str, error: &ParseError, input: &str) {
        // FastAPI cannot serialise the exception itself and sends an empty object.
        let context = Context::Error(Value::Object(Map::new()));
        self.push("value_error", key, &format!("Value error, {error}"), echo(input), Some(context));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.detail.is_empty()
    }

    fn push(&mut self, r#type: &'static str, key: &'static str, msg: &str, input: Value, ctx: Option<Context>) {
        let loc = vec![Location::Key(self.part), Location::Key(key)];
        self.detail.push(Detail { r#type, loc, msg: msg.into(), input, ctx });
    }
}

impl From<Faults> for BodyError {
    fn from(faults: Faults) -> Self {
        Self { detail: faults.detail }
    }
}

/// The input as an error repeats it: itself, or `null` if it is large.
fn echo(input: &(impl Serialize + ?Sized)) -> Value {
    let small = to_json(input).len() <= MAX_ECHO;
    small.then(|| serde_json::to_value(input).ok()).flatten().unwrap_or(Value::Null)
}

/// The character at which the parser stopped, counted from 0 over the whole body. The parser counts lines and bytes.
fn position(body: &[u8], error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let line_start: usize = body.split_inclusive(|byte| *byte == b'\n').take(lines_before).map(<[u8]>::len).sum();
    // The column counts what was read. At a wrong character that includes it; at the end there was none to read.
    let column = if error.is_eof() { error.column() } else { error.column().saturating_sub(1) };
    let end = (line_start + column).min(body.len());
    // Every character has one byte that does not continue another (RFC 3629, 3).
    body[..end].iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}
