//! What scripts answer, read once.

use redis::Value;
use serde_json::{Map, Value as Json};

use crate::context::StoreError;

/// An answer that no script of ours gives: the store is not what we take it for.
pub(super) fn nonsense() -> StoreError {
    StoreError::Unavailable("an answer that makes no sense".to_owned())
}

/// A list of texts and lists, read from the front.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    pub(super) fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(nonsense()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        text(self.0.next().ok_or_else(nonsense)?)
    }

    /// A text, or `None` if it is empty.
    pub(super) fn some_text(&mut self) -> Result<Option<String>, StoreError> {
        self.text().map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        parse(&self.text()?)
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        Self::new(self.0.next().ok_or_else(nonsense)?)
    }
}

pub(super) fn text(value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| nonsense()),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(nonsense()),
    }
}

pub(super) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| nonsense())
}

pub(super) fn object(text: &str) -> Result<Map<String, Json>, StoreError> {
    serde_json::from_str(text).map_err(|_| nonsense())
}
