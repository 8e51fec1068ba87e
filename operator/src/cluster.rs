//! The API server, as the operator writes to it. Each request has a deadline: a webhook that hangs must not hold up a service
//! longer than it takes to say so.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::params::ValidationDirective;
use kube::{Client, Error};
use serde_json::{Value, json};
use streamfleet_service::resource::StreamService;

use crate::kind::Kind;
use crate::known::Version;
use crate::names::{FIELD_MANAGER, Key};
use crate::steps::PodId;

/// The longest that a request may take. The API server gives a webhook ten seconds if nobody says otherwise, and answers then.
pub const DEADLINE: Duration = Duration::from_secs(12);
/// The longest that a request about the lease may take: a connection that leads nowhere must leave time for another try before a leader
/// has to pause.
pub const LEASE_DEADLINE: Duration = Duration::from_secs(4);

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("there is none")]
    Absent,
    /// It has changed meanwhile, or it is another one.
    #[error("{0}")]
    Conflict(String),
    /// The API server does not take it, in its words.
    #[error("{0}")]
    Refused(String),
    /// The API server cannot be reached, or says that it cannot now.
    #[error("{0}")]
    Away(String),
    /// Nobody answered for so long. It may be a webhook's doing, and have come to pass all the same.
    #[error("no answer within {} s; a webhook may be hanging", .0.as_secs())]
    TimedOut(Duration),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => match status.code {
                404 => Self::Absent,
                409 => Self::Conflict(status.message),
                // It is this request that is not taken: a webhook that does not answer is a 500, and one that refuses chooses its code.
                _ if status.message.starts_with("admission webhook") => Self::Refused(status.message),
                429 | 502..=504 => Self::Away(status.message),
                _ => Self::Refused(status.message),
            },
            other => Self::Away(reasons(&other)),
        }
    }
}

/// An error and what it is because of: the outermost alone often says no more than that a request failed.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Whether something is really written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is.
    Real,
    /// The API server only says whether it would take it.
    DryRun,
}

/// Whether fields are taken from whoever else has written them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// They are.
    Yes,
    /// They are not: then it is a conflict.
    No,
}

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

async fn within<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    until(DEADLINE, request).await
}

async fn until<T>(deadline: Duration, request: impl Future<Output = Result<T, Error>>) -> Result<T, Refusal> {
    match tokio::time::timeout(deadline, request).await {
        Ok(answer) => answer.map_err(Refusal::from),
        Err(_) => Err(Refusal::TimedOut(deadline)),
    }
}

impl Cluster {
    /// What a client reaches.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether the API server knows a kind.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn serves(&self, kind: Kind) -> Result<bool, Refusal> {
        let version = kind.resource().api_version;
        match within(self.client.list_api_group_resources(&version)).await {
            Ok(list) => Ok(list.resources.iter().any(|served| served.kind == kind.name())),
            Err(Refusal::Absent) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    fn objects(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }

    /// An object; `None` if there is none.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, Refusal> {
        let api = self.objects(kind, namespace);
        let object = within(api.get_opt(name)).await?;
        Ok(object.map(|object| as_value(&object)))
    }

    /// Writes an object by server-side apply. Returns how it is now.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn apply(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        object: &Value,
        force: Force,
        mode: Mode,
    ) -> Result<Value, Refusal> {
        let params = PatchParams {
            dry_run: mode == Mode::DryRun,
            force: force == Force::Yes,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            // A slip of ours, or of an overlay, is told and not dropped.
            field_validation: Some(ValidationDirective::Strict),
        };
        let api = self.objects(kind, namespace);
        let written = within(api.patch(name, &params, &Patch::Apply(object))).await?;
        Ok(as_value(&written))
    }

    /// Says how many pods a Deployment shall have, and nothing else, if it is still that one and has not changed since `version`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn set_replicas(
        &self,
        namespace: &str,
        name: &str,
        (uid, version): (&str, Version),
        replicas: i32,
    ) -> Result<Value, Refusal> {
        let api = self.objects(Kind::Deployment, namespace);
        let metadata = json!({ "uid": uid, "resourceVersion": version.text() });
        let patch = Patch::Merge(json!({ "metadata": metadata, "spec": { "replicas": replicas } }));
        let written = within(api.patch(name, &manager(), &patch)).await?;
        Ok(as_value(&written))
    }

    /// Deletes an object, if it is still that one.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str, uid: &str) -> Result<(), Refusal> {
        let api = self.objects(kind, namespace);
        let params = DeleteParams::background().preconditions(only(uid));
        within(api.delete(name, &params)).await.map(drop)
    }

    /// Changes labels and annotations of a pod (null takes one away), if it is still that one.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn mark_pod(
        &self,
        namespace: &str,
        pod: &PodId,
        labels: &Value,
        annotations: &Value,
    ) -> Result<Pod, Refusal> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let metadata = json!({ "uid": pod.uid, "labels": labels, "annotations": annotations });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        within(api.patch(&pod.name, &manager(), &patch)).await
    }

    /// Deletes a pod, if it is still that one, with so much time from SIGTERM to SIGKILL, or with its own grace. Returns how it is now,
    /// unless it is gone.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn delete_pod(
        &self,
        namespace: &str,
        pod: &PodId,
        grace: Option<Duration>,
    ) -> Result<Option<Pod>, Refusal> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let grace_period_seconds = grace.map(|grace| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX));
        let params = DeleteParams { grace_period_seconds, ..DeleteParams::background().preconditions(only(&pod.uid)) };
        within(api.delete(&pod.name, &params)).await.map(|deleted| deleted.left())
    }

    /// Says who has to agree before a StreamService is gone, if it has not changed since `version`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn set_finalizers(
        &self,
        key: &Key,
        version: &str,
        finalizers: &[String],
    ) -> Result<StreamService, Refusal> {
        let api: Api<StreamService> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version, "finalizers": finalizers } }));
        within(api.patch(&key.name, &manager(), &patch)).await
    }

    /// Writes a StreamService's status.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn set_status(&self, key: &Key, status: &Value) -> Result<StreamService, Refusal> {
        let api: Api<StreamService> = Api::namespaced(self.client.clone(), &key.namespace);
        let object = json!({
            "apiVersion": streamfleet_service::API_VERSION,
            "kind": streamfleet_service::KIND,
            "metadata": { "name": key.name, "namespace": key.namespace },
            "status": status,
        });
        let params = PatchParams { force: true, ..manager() };
        within(api.patch_status(&key.name, &params, &Patch::Apply(object))).await
    }

    /// Makes an Event.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn create_event(&self, namespace: &str, event: &Event) -> Result<(), Refusal> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        within(api.create(&PostParams::default(), event)).await.map(drop)
    }

    /// Says how often an Event has happened.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn repeat_event(&self, namespace: &str, name: &str, series: &Value) -> Result<(), Refusal> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(json!({ "series": series }));
        within(api.patch(name, &PatchParams::default(), &patch)).await.map(drop)
    }

    /// What a Secret has; `None` if there is none.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Refusal> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = within(api.get_opt(name)).await?;
        let data = |secret: Secret| secret.data.unwrap_or_default();
        Ok(secret.map(|secret| data(secret).into_iter().map(|(key, value)| (key, value.0)).collect()))
    }

    /// A Lease; `None` if there is none.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, Refusal> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        until(LEASE_DEADLINE, api.get_opt(name)).await
    }

    /// Makes a Lease, or writes it over the version that it has.
    ///
    /// # Errors
    /// [`Refusal`]; a conflict if somebody else was quicker.
    pub async fn write_lease(&self, namespace: &str, lease: &Lease) -> Result<Lease, Refusal> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match (&lease.metadata.resource_version, &lease.metadata.name) {
            (Some(_), Some(name)) => until(LEASE_DEADLINE, api.replace(name, &params, lease)).await,
            _ => until(LEASE_DEADLINE, api.create(&params, lease)).await,
        }
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn only(uid: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: None }
}

/// An object as JSON.
pub(crate) fn as_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn refusals_are_told_apart_and_in_the_words_of_the_api_server() {
        let said = |code: u16, message: &str| {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            Refusal::from(Error::Api(Box::new(status)))
        };
        let of = |code: u16| said(code, "exceeded quota");
        let words = "exceeded quota".to_owned();
        assert_eq!(of(404), Refusal::Absent);
        assert_eq!(of(409), Refusal::Conflict(words.clone()));
        assert_eq!(of(403), Refusal::Refused(words.clone()));
        assert_eq!(of(422), Refusal::Refused(words.clone()));
        assert_eq!(of(500), Refusal::Refused(words.clone()));
        assert_eq!(of(429), Refusal::Away(words.clone()));
        assert_eq!(of(503), Refusal::Away(words));
        let denied = "admission webhook \"a.example.com\" denied the request: not now";
        assert_eq!(said(503, denied), Refusal::Refused(denied.to_owned()), "whose code is the webhook's");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_for_ever() {
        let refused = within(std::future::pending::<Result<(), Error>>()).await.unwrap_err();
        assert_eq!(refused, Refusal::TimedOut(DEADLINE));
        assert_eq!(refused.to_string(), "no answer within 12 s; a webhook may be hanging");
    }

    /// One connection that led nowhere was waited for longer than a leader may act, and paused it.
    #[tokio::test(start_paused = true)]
    async fn the_lease_can_be_renewed_by_another_connection_in_time() {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let cluster = Cluster::new(Client::new(nobody, "voice"));
        let terms = crate::lease::Terms::default();
        let begun = tokio::time::Instant::now();
        assert!(cluster.lease("voice", "l").await.is_err());
        let mut lease = Lease::default();
        lease.metadata.name = Some("l".to_owned());
        assert!(cluster.write_lease("voice", &lease).await.is_err());
        assert!(begun.elapsed() + terms.retry <= terms.deadline, "{:?}", begun.elapsed());
    }
}
