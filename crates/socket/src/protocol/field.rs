//! Fields of a JSON object, read where they lie.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{BadFrame, MAX_MESSAGE};
use crate::payload::PayloadBuffer;

/// What a text message of either protocol is: an object with an `event`, and fields that `T` names.
pub(super) fn message<'a, T: Deserialize<'a> + Message<'a>>(text: &'a str) -> Result<(Cow<'a, str>, T), BadFrame> {
    if text.len() > MAX_MESSAGE {
        return Err(BadFrame::TooLarge);
    }
    let fields: T = object(text)?;
    Ok((string(fields.event()).ok_or(BadFrame::NoEvent)?, fields))
}

/// The fields of a message.
pub(super) trait Message<'a> {
    /// What kind of message it is.
    fn event(&self) -> Option<&'a RawValue>;
}

/// The fields of `media`, where they lie.
pub(super) fn media<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<T, BadFrame> {
    object(raw.ok_or(BadFrame::NoPayload)?.get()).map_err(|_| BadFrame::NoPayload)
}

/// The bytes of a `payload`.
pub(super) fn payload<'b>(raw: Option<&RawValue>, buffer: &'b mut PayloadBuffer) -> Result<&'b [u8], BadFrame> {
    let text = string(raw).ok_or(BadFrame::NoPayload)?;
    buffer.decode(&text).map_err(|_| BadFrame::NotBase64)
}

/// Reads the fields that `T` names; other keys are checked for being JSON and skipped. A key that comes twice is no
/// JSON here: which of the two is meant, nobody can know.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BadFrame> {
    // serde takes an array for a struct's fields in order; our protocols do not.
    match text.bytes().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => serde_json::from_str(text).map_err(|_| BadFrame::NotJson),
        _ => Err(match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => BadFrame::NotAnObject,
            Err(_) => BadFrame::NotJson,
        }),
    }
}

/// A string, borrowed unless it has escapes; `None` for anything else.
pub(super) fn string(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let text = raw?.get();
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') { value(raw).map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
}

/// A whole number, as a number or as decimal digits in a string; `None` for anything else.
pub(super) fn number(raw: Option<&RawValue>) -> Option<u64> {
    let text = raw?.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).parse().ok()
}

/// Any value; `None` if it is not of the type.
pub(super) fn value<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}
