//! The Secrets that services name: whether they are there, and can be used. Routers and workers read them themselves; what they find
//! wrong stands in their logs alone, which an owner of a service does not see.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use streamfleet_service::secrets::{Purpose, of_routers};
use streamfleet_service::spec::SecretKeyRef;
use tracing::field::Empty;
use tracing::info_span;

use crate::care::Care;
use crate::look::{Seen, is_closing};
use crate::operator::Operator;
use crate::prepare::Prepared;
use crate::reasons::Word;
use crate::status::{Fault, Standing};
use crate::traces::part;

/// How soon Secrets are read again of which one is wrong: as soon as routers read them.
const WRONG: Duration = Duration::from_secs(30);
/// And where all are as they should be: a service at rest asks for little.
const RIGHT: Duration = Duration::from_secs(10 * 60);

/// What was found of a service's Secrets.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Of which specification.
    generation: i64,
    /// When they are read again.
    again: Instant,
    faults: Vec<Fault>,
}

/// A Secret's data.
type Data = BTreeMap<String, Vec<u8>>;

/// What is named: for what, and where it is.
fn named(prepared: &Prepared) -> Vec<(Purpose, SecretKeyRef)> {
    let mut named: Vec<_> = of_routers(&prepared.said.service).map(|(purpose, key)| (purpose, key.clone())).collect();
    if let Some((name, key)) = &prepared.said.telephone_token {
        named.push((Purpose::Telephone, SecretKeyRef { name: name.clone(), key: key.clone() }));
    }
    named
}

/// What is wrong with a key of a Secret.
fn judge(namespace: &str, purpose: Purpose, key: &SecretKeyRef, secret: Option<&Data>) -> Option<Fault> {
    let (field, SecretKeyRef { name, key }) = (purpose.field(), key);
    let wrong = |word, what: String| {
        let fault = Fault::new(word, format!("{field}: {what}"));
        match purpose {
            Purpose::Tokens | Purpose::Turn => fault.refusing(),
            // Pods do not start without it, or telephones alone are refused.
            Purpose::Telephone => fault,
        }
    };
    let Some(data) = secret else {
        return Some(wrong(Word::SecretMissing, format!("the Secret {namespace}/{name} is not there")));
    };
    let Some(text) = data.get(key) else {
        return Some(wrong(Word::SecretMissing, format!("the Secret {namespace}/{name} has no key {key}")));
    };
    let why = purpose.check(text).err()?;
    Some(wrong(Word::SecretInvalid, format!("the key {key} of the Secret {namespace}/{name} {why}")))
}

impl Operator {
    /// What is wrong with the Secrets that a service names. They are read when its specification has changed, and now and then.
    pub(crate) async fn secrets(&self, seen: &Seen, standing: &Standing, care: &mut Care) -> Vec<Fault> {
        let Some(prepared) = care.prepared.clone().filter(|_| !is_closing(standing)) else { return Vec::new() };
        let now = Instant::now();
        let is_due = |known: &Inspection| known.generation != prepared.generation || known.again <= now;
        if let Some(known) = care.inspection.as_ref().filter(|known| !is_due(known)) {
            return known.faults.clone();
        }
        let before = care.inspection.take().map(|known| known.faults).unwrap_or_default();
        let namespace = &seen.resource.key.namespace;
        let mut read: BTreeMap<String, Option<Data>> = BTreeMap::new();
        let mut faults = Vec::new();
        let mut is_sure = true;
        for (purpose, key) in named(&prepared) {
            if !read.contains_key(&key.name) {
                let secret = self.cluster.secret(namespace, &key.name);
                match part(info_span!("secret", secret = key.name, outcome = Empty), secret).await {
                    Ok(secret) => drop(read.insert(key.name.clone(), secret)),
                    // Nothing is known: that the operator may not read it, or nobody answers, is no fault of the Secret's.
                    Err(refusal) => {
                        tracing::debug!(service = %seen.resource.key, error = %refusal, "a Secret cannot be read");
                        care.answered(&refusal, Instant::now());
                        is_sure = false;
                        break;
                    }
                }
            }
            let secret = read.get(&key.name).and_then(Option::as_ref);
            faults.extend(judge(namespace, purpose, &key, secret));
        }
        if !is_sure && faults.is_empty() {
            faults = before;
        }
        let wait = if faults.is_empty() && is_sure { RIGHT } else { WRONG };
        care.inspection =
            Some(Inspection { generation: prepared.generation, again: now + wait, faults: faults.clone() });
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::doubles;
    use crate::reasons::Reason;
    use crate::resource::Resource;

    #[test]
    fn what_is_wrong_with_a_secret() {
        let key = SecretKeyRef { name: "jwt".to_owned(), key: "key".to_owned() };
        let of = |secret: Option<Data>| {
            judge("voice", Purpose::Tokens, &key, secret.as_ref()).map(|fault| (fault.reason, fault.message))
        };
        let refuses = |purpose| judge("voice", purpose, &key, None).unwrap().refuses;
        assert_eq!([Purpose::Tokens, Purpose::Turn, Purpose::Telephone].map(refuses), [true, true, false]);
        let data = |key: &str, len: usize| Some(Data::from([(key.to_owned(), vec![b'x'; len])]));
        let fault =
            |word: Word, message: &str| Some((Reason::from(word), format!("spec.identity.jwt.secret: {message}")));
        assert_eq!(of(None), fault(Word::SecretMissing, "the Secret voice/jwt is not there"));
        assert_eq!(of(data("other", 32)), fault(Word::SecretMissing, "the Secret voice/jwt has no key key"));
        let weak = "the key key of the Secret voice/jwt must have at least 32 bytes";
        assert_eq!(of(data("key", 31)), fault(Word::SecretInvalid, weak));
        let large = "the key key of the Secret voice/jwt has more than 65536 bytes";
        assert_eq!(of(data("key", 900_000)), fault(Word::SecretInvalid, large));
        assert_eq!(of(data("key", 32)), None);
    }

    fn seen(generation: i64) -> Seen {
        let spec = json!({
            "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 60 },
            "identity": { "jwt": { "secret": { "secretKeyRef": { "name": "a", "key": "key" } } } },
            "telephone": { "authToken": { "secretKeyRef": { "name": "a", "key": "token" } } },
        });
        let metadata = json!({ "namespace": "voice", "name": "s", "uid": "u", "generation": generation });
        let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
        let resource = Arc::new(Resource::of(&object).unwrap());
        doubles::seen(resource)
    }

    /// It was said that all is well while every call was refused.
    #[tokio::test]
    async fn it_is_read_when_its_service_changes_and_while_it_is_wrong() {
        let asked = Arc::new(AtomicU32::new(0));
        let answer = Arc::new(Mutex::new((
            404,
            json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound" }),
        )));
        let server = {
            let (asked, answer) = (asked.clone(), answer.clone());
            tower::service_fn(move |request: http::Request<Body>| {
                assert_eq!(request.uri().path(), "/api/v1/namespaces/voice/secrets/a");
                asked.fetch_add(1, Ordering::Relaxed);
                let (code, body): (u16, Value) = answer.lock().clone();
                async move {
                    let body = Body::from(body.to_string().into_bytes());
                    Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap())
                }
            })
        };
        let operator = doubles::operator(kube::Client::new(server, "voice"));
        let mut care = Care::default();
        let mut look = async |seen: Seen, late: bool| {
            care.judge(&seen.resource).unwrap();
            if let Some(inspection) = care.inspection.as_mut().filter(|_| late) {
                inspection.again = Instant::now();
            }
            let faults = operator.secrets(&seen, &Standing::Served, &mut care).await;
            let wait = care.inspection.as_ref().unwrap().again.saturating_duration_since(Instant::now());
            (faults.into_iter().map(|fault| fault.reason).collect::<Vec<_>>(), wait > WRONG)
        };
        let missing = || vec![Reason::from(Word::SecretMissing); 2];
        assert_eq!(look(seen(1), false).await, (missing(), false));
        assert_eq!(look(seen(1), false).await, (missing(), false));
        assert_eq!(asked.load(Ordering::Relaxed), 1, "one Secret, once");
        *answer.lock() = (403, json!({ "kind": "Status", "status": "Failure", "code": 403, "message": "no" }));
        assert_eq!(look(seen(1), true).await, (missing(), false), "what was found stays");
        let data = json!({ "key": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=", "token": "eA==" });
        *answer.lock() =
            (200, json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "a" }, "data": data }));
        assert_eq!(look(seen(1), true).await, (Vec::new(), true));
        look(seen(1), false).await;
        assert_eq!(asked.load(Ordering::Relaxed), 3, "nothing is read at rest");
        look(seen(2), false).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4, "another specification");
    }
}
