//! A StreamService as it is remembered: what it says, checked once, and what of it a worker obeys.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use streamfleet_process::config::Mistakes;
use streamfleet_service::resource::{StreamService, StreamServiceStatus};
use streamfleet_service::spec::{IdentitySpec, SecretSource, StreamServiceSpec, TelephoneSpec, WorkersSpec};
use streamfleet_service::{API_VERSION, KIND, Service};

use crate::names::{FINALIZER, Key};
use crate::objects::TELEPHONE_TOKEN;
use crate::precedence::Wish;

/// A StreamService.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its name.
    pub key: Key,
    /// Which one of its name.
    pub uid: String,
    /// Of the object: it changes with each write.
    pub version: String,
    /// Of the specification.
    pub generation: i64,
    /// When it was made, in seconds since the Unix epoch.
    pub created: i64,
    /// Whether it is being deleted.
    pub ending: bool,
    /// Who has to agree before it is gone.
    pub finalizers: Vec<String>,
    /// What it says, or what is wrong with that.
    pub said: Result<Arc<Said>, Mistakes>,
    /// What was said of it last.
    pub status: StreamServiceStatus,
}

/// What a StreamService says.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Without mistakes.
    pub service: Service,
    /// What of it a worker obeys: a manifest, in JSON.
    pub manifest: String,
    /// Where the telephone company's token is: name and key of a Secret.
    pub telephone_token: Option<(String, String)>,
}

impl Resource {
    /// What is remembered of one; `None` of something without a name.
    #[must_use]
    pub fn of(object: &StreamService) -> Option<Self> {
        let metadata = &object.metadata;
        let key = Key::new(metadata.namespace.clone()?, metadata.name.clone()?);
        let said = Service::from_resource(object).and_then(|service| {
            let spec = object.spec.as_ref().map_err(Clone::clone)?;
            let telephone_token = match &spec.telephone.auth_token {
                Some(SecretSource::SecretKeyRef(secret)) => Some((secret.name.clone(), secret.key.clone())),
                _ => None,
            };
            Ok(Arc::new(Said { manifest: manifest(&key, spec), telephone_token, service }))
        });
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: object.created(),
            ending: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            said,
            status: object.status.clone(),
            key,
        })
    }

    /// Whether it waits for us before it is gone.
    #[must_use]
    pub fn is_finalized(&self) -> bool {
        self.finalizers.iter().any(|name| name == FINALIZER)
    }

    /// Whether `next` is more than what we have said of it ourselves.
    #[must_use]
    pub fn is_other(&self, next: &Self) -> bool {
        (&self.uid, self.generation, self.ending, &self.finalizers)
            != (&next.uid, next.generation, next.ending, &next.finalizers)
    }

    /// The paths that it wants; none if it cannot be used.
    #[must_use]
    pub fn wish(&self) -> Option<Wish> {
        let said = self.said.as_ref().ok()?;
        Some(Wish::of(self.key.clone(), self.created, &said.service))
    }
}

/// What of a specification a worker obeys. Everything else is the routers': a change of it does not replace workers. Keys that
/// stand at their defaults are left out, so that neither a new default here nor a new key is a change, or anything that an older
/// worker does not know.
fn manifest(key: &Key, spec: &StreamServiceSpec) -> String {
    let said = spec.identity.user_id_from.iter().filter(|source| !source.starts_with("jwt:")).cloned().collect();
    // The Secret is the platform's to read: it gives the worker a variable.
    let token = spec.telephone.auth_token.as_ref().map(|_| SecretSource::Env(TELEPHONE_TOKEN.to_owned()));
    let obeyed = StreamServiceSpec {
        handler: spec.handler.clone(),
        modality: spec.modality,
        limits: spec.limits.clone(),
        identity: IdentitySpec {
            user_id_from: said,
            metadata: spec.identity.metadata.clone(),
            ..IdentitySpec::default()
        },
        telephone: TelephoneSpec { auth_token: token, ..spec.telephone.clone() },
        workers: WorkersSpec { sessions_per_worker: spec.workers.sessions_per_worker, ..WorkersSpec::default() },
        ..StreamServiceSpec::default()
    };
    let value = |spec: &StreamServiceSpec| serde_json::to_value(spec).unwrap_or_default();
    let spec = without_defaults(value(&obeyed), &value(&StreamServiceSpec::default()));
    let metadata = json!({ "namespace": key.namespace, "name": key.name });
    json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec }).to_string()
}

fn without_defaults(value: Value, default: &Value) -> Value {
    match (value, default) {
        (Value::Object(map), Value::Object(defaults)) => {
            let kept = map.into_iter().filter(|(key, value)| defaults.get(key) != Some(value)).map(|(key, value)| {
                let default = defaults.get(&key).unwrap_or(&Value::Null);
                let value = without_defaults(value, default);
                (key, value)
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        (value, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: Value) -> StreamService {
        serde_json::from_value(json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": { "namespace": "voice", "name": "assistant", "uid": "u", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER] },
            "spec": spec,
        }))
        .unwrap()
    }

    fn whole() -> Value {
        json!({
            "handler": { "name": "echo", "config": { "gain": 2 } },
            "path": "/rooms/{room}", "aliases": ["/old"], "host": "Voice.example.com",
            "limits": { "timeLimitSeconds": 600, "concurrency": 9 },
            "telephone": { "before": "hello", "authToken": { "secretKeyRef": { "name": "twilio", "key": "token" } } },
            "identity": { "userIdFrom": ["jwt:sub", "header:x-user"], "required": true, "jwt": { "jwksUrl": "https://a.example/jwks" } },
            "routing": { "offerHoldSeconds": 5 },
        })
    }

    #[test]
    fn a_worker_is_told_what_it_obeys_and_can_read_it() {
        let resource = Resource::of(&object(whole())).unwrap();
        assert!(resource.is_finalized() && !resource.ending);
        let said = resource.said.as_ref().unwrap();
        let manifest: Value = serde_json::from_str(&said.manifest).unwrap();
        let expected = json!({
            "handler": { "name": "echo", "config": { "gain": 2 } },
            "limits": { "timeLimitSeconds": 600, "concurrency": 9 },
            "telephone": { "before": "hello", "authToken": { "env": "STREAMFLEET_TELEPHONE_AUTH_TOKEN" } },
            "identity": { "userIdFrom": ["header:x-user"] },
        });
        assert_eq!(manifest["spec"], expected);
        assert_eq!(said.telephone_token, Some(("twilio".to_owned(), "token".to_owned())));
        let read = streamfleet_service::read("service.yaml", &said.manifest).unwrap();
        assert_eq!(read[0].name.as_str(), "voice/assistant");
        assert_eq!(read[0].limits, said.service.limits);
    }

    /// What may be said is read by workers as it was meant, whatever YAML makes of such characters elsewhere.
    #[test]
    fn a_worker_reads_every_text_as_it_was_written() {
        let words = [
            "\t\r\n \u{85}\u{a0}\u{202e}\u{2028}\u{2029}",
            "\u{d7ff}\u{e000}\u{feff}\u{fffd}\u{1f600}",
            "<<",
            "~",
            "1e3",
            "*a",
            "---",
            "a: b #c",
        ];
        for word in words {
            let spec = json!({ "handler": { "name": "echo", "config": { word: word, "list": [word, { "b": word }] } },
                "limits": { "timeLimitSeconds": 60 } });
            let said = Resource::of(&object(spec)).unwrap().said.unwrap();
            let read = streamfleet_service::read("service.yaml", &said.manifest).unwrap();
            assert_eq!(read[0].handler, said.service.handler, "{word:?}");
        }
    }

    /// As deep as may be, and one level more: the worker must be able to read what the operator takes.
    #[test]
    fn a_worker_can_read_what_is_as_deep_as_may_be() {
        let with = |levels: usize| {
            let config = format!("{}{}", r#"{"a":"#.repeat(levels) + "[7]", "}".repeat(levels));
            let text = object(whole());
            let text = serde_json::to_string(&text).unwrap().replace(r#"{"gain":2}"#, &config);
            Resource::of(&serde_json::from_str(&text).unwrap()).unwrap()
        };
        // The specification, its handler, the configuration, and its list within.
        let said = with(57).said.unwrap();
        let read = streamfleet_service::read("service.yaml", &said.manifest).unwrap();
        assert_eq!(read[0].handler, said.service.handler);
        let (mistaken, deeper) = (with(58), with(100));
        assert!(mistaken.is_finalized(), "it can be let go");
        for mistakes in [mistaken.said.unwrap_err(), deeper.said.unwrap_err()] {
            assert!(mistakes.to_string().contains("spec.handler.config.a.a: is nested too deeply"), "{mistakes}");
        }
    }

    #[test]
    fn what_routers_obey_changes_no_worker() {
        let of = |spec: Value| Resource::of(&object(spec)).unwrap().said.unwrap().manifest.clone();
        let mut other = whole();
        other["path"] = "/elsewhere".into();
        other["routing"] = json!({ "variants": [{ "name": "b", "weight": 5 }] });
        other["autoscaling"] = json!({ "maxReplicas": 40 });
        other["workers"] = json!({ "image": "registry.example.com/worker:2" });
        assert_eq!(of(whole()), of(other.clone()));
        other["handler"]["config"]["gain"] = 3.into();
        assert_ne!(of(whole()), of(other));
    }

    #[test]
    fn what_it_wants_of_routers() {
        let wish = Resource::of(&object(whole())).unwrap().wish().unwrap();
        let routes: Vec<_> = wish.routes.iter().map(|((host, shape), _)| (host.as_str(), shape.as_str())).collect();
        assert_eq!(routes, [("voice.example.com", "/rooms/{}"), ("voice.example.com", "/old")]);
        let wrong = Resource::of(&object(json!({ "handler": { "name": "echo" }, "colour": "red" }))).unwrap();
        assert!(wrong.wish().is_none());
        assert!(wrong.said.unwrap_err().to_string().contains("colour"));
    }
}
