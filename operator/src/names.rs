//! How things are called: labels, annotations, and the objects of a service.

use std::collections::BTreeMap;
use std::fmt;

use ring::digest;

/// A worker's own container, among those that are laid over its pod.
pub const CONTAINER: &str = "worker";
/// Who writes, in the managed fields of every object.
pub const FIELD_MANAGER: &str = "streamfleet-operator";
/// The finalizer whose work is the drain.
pub const FINALIZER: &str = "streamfleet.dev/drain";
/// The label by which the operator's objects are watched, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "streamfleet-operator");
/// Label: the service that an object belongs to.
pub const SERVICE: &str = "streamfleet.dev/service";
/// Label: which variant of it, or [`BASE`].
pub const VARIANT: &str = "streamfleet.dev/variant";
/// The variant of workers that serve the service itself.
pub const BASE: &str = "base";
/// Label of pods: whether it takes sessions. An HPA counts those that serve.
pub const STATE: &str = "streamfleet.dev/state";
/// Value of [`STATE`]: born with it.
pub const SERVING: &str = "serving";
/// Value of [`STATE`]: finishes the sessions that it has.
pub const DRAINING: &str = "draining";
/// Label of pods that an eviction must not take: born with it, gone when the pod is drained.
pub const PROTECTED: &str = "streamfleet.dev/protected";
/// Annotation of pods: since when they drain (RFC 3339).
pub const DRAINING_SINCE: &str = "streamfleet.dev/draining-since";
/// Annotation of pods: why they drain.
pub const DRAIN_REASON: &str = "streamfleet.dev/drain-reason";
/// Annotation of pods: a hash of all that a worker reads when it starts, so that a change makes new ones.
pub const CONFIG_HASH: &str = "streamfleet.dev/config-hash";
/// Annotation of all objects but pods: a hash of all that was written, so that what is not wanted any more is missed by nobody.
pub const APPLIED: &str = "streamfleet.dev/applied";
/// Annotation of pods: what a ReplicaSet takes first when it has to choose, the smallest. A second line: drained pods are
/// deleted by name before `replicas` is lowered.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The longest name that is also a DNS label (RFC 1035, 2.3.4).
const MAX: usize = 63;

/// A StreamService, wherever it is spoken of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key of its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The name of a service's worker objects; with a variant, of that variant's Deployment.
///
/// Those of services end in `-worker`, and those of variants never do: `assistant` with a variant `b` is not `assistant-b`. Where the
/// service's name ends and the variant's begins is in the hash.
#[must_use]
pub fn worker(service: &str, variant: Option<&str>) -> String {
    if let Some(variant) = variant {
        let hash = short_hash(&format!("{service}/{variant}"));
        // A letter at its beginning, as below; a hash has no hyphen, and whatever ends in one is no `worker`.
        let first = if service.starts_with(|c: char| c.is_ascii_lowercase()) { "" } else { "w-" };
        let whole = format!("{first}{service}-{variant}");
        let kept = &whole[..whole.len().min(MAX - 1 - hash.len())];
        return format!("{}-{hash}", kept.trim_end_matches('-'));
    }
    let whole = format!("{service}-worker");
    // A Service's name begins with a letter (RFC 1035), a StreamService's need not.
    if whole.len() <= MAX && whole.starts_with(|c: char| c.is_ascii_lowercase()) && !looks_derived(service) {
        return whole;
    }
    let hash = short_hash(&whole);
    let kept = &whole[..whole.len().min(MAX - "w---worker".len() - hash.len())];
    format!("w-{}-{hash}-worker", kept.trim_end_matches("-worker").trim_end_matches('-'))
}

/// Whether a service is called as another one's objects are: `w-1a-952d9b49` as those of `1a`. Its own objects then have a hash, too.
fn looks_derived(service: &str) -> bool {
    let hash = service.strip_prefix("w-").and_then(|rest| rest.rsplit('-').next()).unwrap_or_default();
    hash.len() == 8 && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn short_hash(text: &str) -> String {
    hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..4])
}

/// The labels of every object of a service.
#[must_use]
pub fn labels(service: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "streamfleet-worker"),
        ("app.kubernetes.io/instance", service),
        MANAGED_BY,
        ("app.kubernetes.io/part-of", "streamfleet"),
        (SERVICE, service),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Those, and which variant.
#[must_use]
pub fn labels_of_variant(service: &str, variant: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = labels(service);
    labels.insert(VARIANT.to_owned(), variant.unwrap_or(BASE).to_owned());
    labels
}

/// What finds the pods of a variant among all pods of a namespace, and never changes: a Deployment's selector cannot.
#[must_use]
pub fn selector_of_variant(service: &str, variant: Option<&str>) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "streamfleet-worker"),
        ("app.kubernetes.io/instance", service),
        (SERVICE, service),
        (VARIANT, variant.unwrap_or(BASE)),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The selector in a StreamService's status: what an HPA counts. Pods that drain are not in it: they would make it believe in
/// capacity that takes no sessions.
#[must_use]
pub fn scale_selector(service: &str) -> String {
    format!("{SERVICE}={service},{STATE}={SERVING}")
}

/// Bytes in lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("invariant: writing to a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_people_where_they_fit() {
        let check = |service: &str, variant: Option<&str>, expected: &str| {
            assert_eq!(worker(service, variant), expected, "{service} {variant:?}");
        };
        check("assistant", None, "assistant-worker");
        check("assistant", Some("b"), "assistant-b-ca7f06eb");
        check("7up", None, "w-7up-3e8ccf16-worker");
        let long = "a".repeat(63);
        assert_eq!(worker(&long, None).len(), 63);
        assert_ne!(worker(&long, None), worker(&long, Some("b")));
        assert_ne!(worker("a-b", Some("c")), worker("a", Some("b-c")));
        check("1a", None, "w-1a-952d9b49-worker");
        check("w-1a-952d9b4", None, "w-1a-952d9b4-worker");
        check("w-1a-952d9b4g", None, "w-1a-952d9b4g-worker");
        check("v-1a-952d9b49", None, "v-1a-952d9b49-worker");
    }

    proptest! {
        /// Whose objects have a name of their own must not find them under the name of another service.
        #[test]
        fn no_service_is_called_as_anothers_objects(service in "([0-9][a-z0-9-]{0,5}|[a-z0-9-]{56,62}|w-[0-9])[a-z0-9]") {
            let name = worker(&service, None);
            let spelt = name.strip_suffix("-worker").unwrap_or_default();
            prop_assert!(spelt == service || worker(spelt, None) != name, "{} and {}", service, spelt);
            // Nor those of whoever tries that.
            let again = worker(spelt, None);
            let spelt_again = again.strip_suffix("-worker").unwrap_or_default();
            prop_assert!(spelt == spelt_again || worker(spelt_again, None) != again, "{} and {}", spelt, spelt_again);
        }

        #[test]
        fn every_name_is_a_dns_label(service in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", variant in prop::option::of("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")) {
            let name = worker(&service, variant.as_deref());
            prop_assert!(name.len() <= MAX, "{name}");
            prop_assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-'), "{name}");
            prop_assert_eq!(name.ends_with("-worker"), variant.is_none(), "a service could want the name of a variant: {}", name);
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
        }
    }
}
