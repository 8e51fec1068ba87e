//! What is kept of one object, and of one pod.

use std::num::NonZeroU64;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use streamfleet_service::{API_VERSION, KIND};

use crate::diff;
use crate::facts::PodFacts;
use crate::names::{MANAGED_BY, SERVICE};

/// The version of something: a number that grows with each change (KEP-5504). What is no number is not earlier than anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version(Option<NonZeroU64>);

impl Version {
    /// As `resourceVersion` has it.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(text.parse().ok())
    }

    /// As `resourceVersion` has it; `None` of what was no number.
    #[must_use]
    pub fn text(self) -> Option<String> {
        self.0.map(|number| number.to_string())
    }

    /// Whether it is an earlier one of the same thing.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        matches!((self.0, other.0), (Some(this), Some(other)) if this < other)
    }
}

/// An object as the API server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Which object of its name.
    pub uid: String,
    /// The uid of the StreamService that owns it.
    pub owner: Option<String>,
    /// That one's name: one of the same name and another uid was deleted, and its objects go soon.
    pub owner_name: Option<String>,
    /// The service that it was left behind by, as its labels say, if nobody controls it.
    left_by: Option<Box<str>>,
    /// Whether it is being deleted.
    pub ending: bool,
    /// Who has to agree before it is gone.
    pub finalizers: Box<[Box<str>]>,
    /// It changes with each write, and with each word about its status.
    pub version: Version,
    digest: [u8; 16],
    /// What it was found to be enough for.
    settled: Option<[u8; 16]>,
    /// What it says, until that was looked at.
    text: Option<Box<str>>,
}

impl Known {
    /// What is known of an object.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default();
        let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let owner = owners.iter().find(|owner| owner["controller"] == Value::Bool(true));
        let said = diff::essence(object);
        let is_managed = metadata["labels"][MANAGED_BY.0] == MANAGED_BY.1;
        let service = metadata["labels"][SERVICE].as_str().filter(|_| is_managed && owner.is_none());
        let finalizers = metadata["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            uid: text("uid").to_owned(),
            owner: owner.and_then(|owner| owner["uid"].as_str()).map(str::to_owned),
            owner_name: owner
                .filter(|owner| owner["kind"] == KIND && owner["apiVersion"] == API_VERSION)
                .and_then(|owner| owner["name"].as_str())
                .map(str::to_owned),
            left_by: service.map(Into::into),
            ending: !metadata["deletionTimestamp"].is_null(),
            finalizers: finalizers.iter().filter_map(Value::as_str).map(Into::into).collect(),
            version: Version::of(text("resourceVersion")),
            digest: diff::digest(&said),
            settled: None,
            text: Some(said.into()),
        }
    }

    /// Whether a service of this name has left it behind: `kubectl delete --cascade=orphan` takes the owner away, and it bears our labels
    /// still. What anybody else controls is theirs, whatever it bears.
    #[must_use]
    pub fn is_left_by(&self, service: &str) -> bool {
        self.left_by.as_deref() == Some(service)
    }

    /// Whether it is what is wanted, whose hash is `hash`. Looks at what it says only if nobody has.
    pub fn is(&mut self, wanted: &Value, hash: [u8; 16]) -> bool {
        if self.settled == Some(hash) {
            return true;
        }
        let said = self.text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let is = said.is_some_and(|said| diff::covers(&said, wanted));
        if is {
            self.settle(hash);
        }
        is
    }

    /// Whether that is known without looking.
    #[must_use]
    pub fn is_settled(&self, hash: [u8; 16]) -> bool {
        self.settled == Some(hash)
    }

    /// It is what is wanted, because it is the answer to that.
    pub fn settle(&mut self, hash: [u8; 16]) {
        self.settled = Some(hash);
        self.text = None;
    }

    /// Takes what was found out about `before`, if this says the same. Says whether nobody has to look at it.
    pub(crate) fn inherit(&mut self, before: &Self) -> bool {
        if self.uid == before.uid && self.digest == before.digest && before.settled.is_some() {
            self.settled = before.settled;
            self.text = None;
        }
        self.settled.is_some() && self.ending == before.ending
    }
}

/// A pod as the API server has it.
#[derive(Debug, Clone)]
pub struct KnownPod {
    /// What decisions are made of.
    pub facts: PodFacts,
    /// It changes with much that these do not say.
    pub version: Version,
}

impl KnownPod {
    /// What is known of a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let version = pod.metadata.resource_version.as_deref().unwrap_or_default();
        Self { facts: PodFacts::of(pod), version: Version::of(version) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A foreign object of the same name is not taken over.
    #[test]
    fn what_was_left_behind() {
        let check = |labels: Value, owners: Value, expected: bool| {
            let known = Known::of(&json!({ "metadata": { "name": "a", "labels": labels, "ownerReferences": owners } }));
            assert_eq!(known.is_left_by("s"), expected, "{labels} {owners}");
        };
        let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "s" });
        check(labels.clone(), Value::Null, true);
        check(labels.clone(), json!([{ "uid": "u" }]), true);
        check(labels.clone(), json!([{ "uid": "u", "controller": true }]), false);
        check(labels, json!([{ "kind": KIND, "apiVersion": API_VERSION, "name": "s", "controller": true }]), false);
        check(json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "another" }), Value::Null, false);
        check(json!({ MANAGED_BY.0: "Helm", SERVICE: "s" }), Value::Null, false);
        check(json!({ SERVICE: "s" }), Value::Null, false);
        check(json!({ MANAGED_BY.0: MANAGED_BY.1 }), Value::Null, false);
        check(Value::Null, Value::Null, false);
    }

    #[test]
    fn what_is_earlier() {
        let check = |this: &str, other: &str, expected: bool| {
            assert_eq!(Version::of(this).is_before(Version::of(other)), expected, "{this} {other}");
        };
        check("9", "10", true);
        check("10", "9", false);
        check("10", "10", false);
        check("", "10", false);
        check("a", "b", false);
        assert_eq!(Version::of("10").text().as_deref(), Some("10"));
        assert_eq!(Version::of("").text(), None);
    }
}
