//! What must hold for any merge patch and any entity tag. The fuzz target and the replay of its corpus run this same
//! function.

use serde_json::{Map, Value};
use streamfleet_store::{MAX_DATA_BYTES, Version, checked, merge};

/// A document, a line, a patch; a line, an entity tag.
pub(crate) fn merge_patch(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(3, '\n');
    let mut object = || lines.next().and_then(|line| serde_json::from_str::<Map<String, Value>>(line).ok());
    let (document, patch) = (object().unwrap_or_default(), object().unwrap_or_default());
    let mut once = document.clone();
    merge(&mut once, patch.clone());
    // RFC 7396: what the patch removes is gone, what it sets is there, what it does not name is as it was.
    for (key, value) in &document {
        assert!(patch.contains_key(key) || once.get(key) == Some(value), "{key} was not named");
    }
    for (key, value) in &patch {
        match value {
            Value::Null => assert!(!once.contains_key(key), "{key} was removed"),
            Value::Object(_) => assert!(once.get(key).is_some_and(Value::is_object), "{key} was merged"),
            other => assert_eq!(once.get(key), Some(other), "{key} was set"),
        }
    }
    let mut twice = once.clone();
    merge(&mut twice, patch);
    assert_eq!(twice, once, "a patch that has been applied changes nothing");
    if let Ok(size) = checked(&once) {
        assert!(size <= MAX_DATA_BYTES);
        assert_eq!(Value::Object(once).to_string().len(), size);
    }
    if let Some(Ok(version)) = lines.next().map(str::parse::<Version>) {
        assert_eq!(version.etag().parse(), Ok(version));
    }
}
