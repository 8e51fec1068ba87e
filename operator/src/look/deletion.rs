//! A deletion from its beginning to its end, with a ReplicaSet that makes what is missing.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_service::{API_VERSION, KIND};

use crate::care::Care;
use crate::doubles;
use crate::facts::DeploymentFacts;
use crate::kind::Kind;
use crate::names::{FINALIZER, Key, MANAGED_BY, SERVICE};
use crate::resource::Resource;
use crate::view::{Item, Known, KnownPod, Name, Topic};

/// A service that is being deleted, its Deployment and that one's pods, at an API server.
struct Server {
    finalizers: Value,
    labels: Value,
    owners: Value,
    replicas: usize,
    version: u32,
    pods: Vec<Value>,
    /// Pods that were made in all.
    made: usize,
    /// What Events and conditions say.
    said: Vec<String>,
}

impl Server {
    fn new(labels: Value, owners: Value) -> Self {
        let finalizers = json!([FINALIZER]);
        let mut server =
            Self { finalizers, labels, owners, replicas: 2, version: 1, pods: Vec::new(), made: 0, said: Vec::new() };
        server.replicate();
        server
    }

    /// As a ReplicaSet does it.
    fn replicate(&mut self) {
        while self.pods.len() < self.replicas {
            self.made += 1;
            let name = format!("p{}", self.made);
            let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-worker-5d8f", "uid": "r", "controller": true });
            let labels = json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "a" });
            self.pods.push(json!({ "metadata": { "namespace": "voice", "name": name, "uid": name, "labels": labels,
                "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [owner] } }));
        }
    }

    fn service(&self) -> Value {
        json!({ "apiVersion": API_VERSION, "kind": KIND, "spec": {},
            "metadata": { "namespace": "voice", "name": "a", "uid": "u", "resourceVersion": self.version.to_string(),
                "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": self.finalizers } })
    }

    fn deployment(&self) -> Value {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "namespace": "voice", "name": "a-worker", "uid": "d", "resourceVersion": self.version.to_string(),
                "labels": self.labels, "ownerReferences": self.owners },
            "spec": { "replicas": self.replicas, "selector": {}, "template": {} } })
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> Option<Value> {
        let last = path.rsplit('/').next().unwrap_or_default();
        self.version += 1;
        match path {
            _ if path.contains("/pods/") => {
                let at = self.pods.iter().position(|pod| pod["metadata"]["name"] == last)?;
                if method == Method::DELETE {
                    return Some(self.pods.remove(at));
                }
                for (key, label) in body["metadata"]["labels"].as_object()? {
                    self.pods[at]["metadata"]["labels"][key] = label.clone();
                }
                Some(self.pods[at].clone())
            }
            _ if path.contains("/deployments/") => {
                self.replicas = usize::try_from(body["spec"]["replicas"].as_u64()?).ok()?;
                Some(self.deployment())
            }
            _ if path.contains("/streamservices/") => {
                let said = body["status"]["conditions"].as_array().into_iter().flatten();
                self.said.extend(said.filter_map(|condition| condition["reason"].as_str().map(str::to_owned)));
                if let Some(finalizers) = body["metadata"].get("finalizers") {
                    self.finalizers = finalizers.clone();
                }
                Some(self.service())
            }
            _ => {
                self.said.extend(body["reason"].as_str().map(str::to_owned));
                None
            }
        }
    }
}

/// Looks until it is gone. Returns how many pods were made for those that went, how many there are left, and what was said.
async fn delete(labels: Value, owners: Value) -> Option<(usize, usize, Vec<String>)> {
    let is_watched = labels[MANAGED_BY.0] == MANAGED_BY.1;
    let server = Arc::new(Mutex::new(Server::new(labels, owners)));
    let behind = server.clone();
    let client = tower::service_fn(move |request: Request<Body>| {
        let behind = behind.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
            let answer = behind.lock().answer(&head.method, head.uri.path(), &body);
            let absent = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "", "code": 404 });
            let (code, body) = answer.map_or((404, absent), |object| (200, object));
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let operator = doubles::operator(kube::Client::new(client, "voice"));
    let (key, mut care) = (Key::new("voice", "a"), Care::default());
    operator.view.lock().told_all(None);
    for _ in 0..20 {
        {
            let (mut server, mut view) = (server.lock(), operator.view.lock());
            let gone: Vec<String> = view.get(&key).map_or_else(Vec::new, |it| it.pods.keys().cloned().collect());
            for name in gone {
                let name = Name { service: Some(key.clone()), name, namespace: Some("voice".to_owned()) };
                view.remove(Topic::Pod, &name);
            }
            server.replicate();
            view.put(Item::Service(Resource::of(&serde_json::from_value(server.service()).unwrap()).unwrap()));
            let deployment = server.deployment();
            let facts = DeploymentFacts::of(&serde_json::from_value(deployment.clone()).unwrap());
            let known = Known::of(&deployment);
            if is_watched {
                view.put(Item::Object(Kind::Deployment, key.clone(), "a-worker".to_owned(), known, Some(facts)));
            }
            for pod in &server.pods {
                let pod = KnownPod::of(&serde_json::from_value(pod.clone()).unwrap());
                view.put(Item::Pod(key.clone(), Box::new(pod)));
            }
        }
        if operator.look(&key, &mut care).await.is_none() {
            let server = server.lock();
            return Some((server.made - 2, server.pods.len(), server.said.clone()));
        }
    }
    None
}

/// For each pod that was deleted another one was made, one a second and for ever, and the service never went.
#[tokio::test]
async fn a_deletion_ends_whatever_has_become_of_the_deployment() {
    let ours = || json!({ MANAGED_BY.0: MANAGED_BY.1, SERVICE: "a" });
    let owner = |name: &str, uid: &str| json!([{ "apiVersion": API_VERSION, "kind": KIND, "name": name, "uid": uid, "controller": true }]);
    let check = async |labels: Value, owners: Value, expected: (usize, usize), is_told: bool| {
        let (made, left, said) = delete(labels.clone(), owners.clone()).await.expect("it is never gone");
        assert_eq!((made, left), expected, "{labels} {owners}");
        assert_eq!(said.iter().any(|reason| reason == "PodsLeftAlone"), is_told, "{labels} {owners}: {said:?}");
    };
    check(ours(), owner("a", "u"), (0, 0), false).await;
    // `--cascade=orphan`, or by hand.
    check(ours(), Value::Null, (0, 0), false).await;
    // Somebody else has it by now: its pods are not touched.
    check(ours(), owner("b", "b"), (0, 2), true).await;
    // Without labels nobody sees it: what there was goes, and what comes in its place does not.
    check(json!({}), owner("a", "u"), (2, 2), true).await;
}
