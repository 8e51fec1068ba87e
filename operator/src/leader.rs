//! The shell of the lease: reads and writes it, and says until when this operator may act.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Refusal};
use crate::lease::{Act, Candidate, Seen, Terms};
use crate::metrics::Instruments;

/// Another operator acts, where this one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another operator has taken the lease")]
pub struct LeaseLost;

/// Which lease.
#[derive(Debug, Clone)]
pub struct Which {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What this operator is called in it.
    pub identity: String,
    /// How long things last.
    pub terms: Terms,
}

/// Runs for the lease and keeps it, until `stop`; then gives it back: another operator acts at once, so nothing of this one's may be under
/// way any more. `leads` is told until when this operator may act.
///
/// # Errors
/// Another operator has taken it.
pub async fn lead(
    cluster: Cluster,
    which: Which,
    leads: watch::Sender<Option<Instant>>,
    instruments: Instruments,
    stop: CancellationToken,
) -> Result<(), LeaseLost> {
    let mut candidate = Candidate::new(which.identity.clone(), which.terms);
    let mut told = None;
    let mut written = None;
    loop {
        let turn = turn(&cluster, &which, &mut candidate, &mut written);
        let outcome = match stop.run_until_cancelled(turn).await {
            Some(outcome) => outcome,
            None => break,
        };
        match outcome {
            Ok(Act::Lost) => {
                leads.send_replace(None);
                return Err(LeaseLost);
            }
            Ok(_) => told = None,
            Err(refusal) => {
                let text = refusal.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::warn!(error = text, lease = which.name, "the lease cannot be had");
                    told = Some(text);
                }
            }
        }
        let until = candidate.leads_until();
        let leading = until.is_some_and(|until| Instant::now() < until);
        if leading != leads.borrow().is_some_and(|until| Instant::now() < until) && leading {
            tracing::info!(lease = which.name, identity = which.identity, "leading");
        }
        leads.send_replace(until);
        instruments.leads(leading);
        if stop.run_until_cancelled(tokio::time::sleep(spread(candidate.retry()))).await.is_none() {
            break;
        }
    }
    leads.send_replace(None);
    instruments.leads(false);
    give_back(&cluster, &which).await;
    Ok(())
}

/// So that two do not write at the same moment again and again.
fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.9 + rand::random::<f64>() / 5.0)
}

/// `written` is the lease as this operator has written it last: as long as nobody else has, it need not be read again.
async fn turn(
    cluster: &Cluster,
    which: &Which,
    candidate: &mut Candidate,
    written: &mut Option<Lease>,
) -> Result<Act, Refusal> {
    let lease = match written.take() {
        Some(lease) => Some(lease),
        None => cluster.lease(&which.namespace, &which.name).await.inspect_err(|_| candidate.blind())?,
    };
    let seen = lease.as_ref().map(seen);
    let act = candidate.look(seen.as_ref(), Instant::now());
    let (version, transitions) = match &act {
        Act::Create => (None, 0),
        Act::Take { version, transitions } => (Some(version.clone()), *transitions),
        Act::Wait | Act::Lost => return Ok(act),
    };
    let begun = seen.filter(|seen| seen.holder == which.identity).and(lease.as_ref());
    let acquired = begun.and_then(|lease| lease.spec.as_ref()?.acquire_time.clone());
    let sent = Instant::now();
    let metadata = lease.as_ref().map(|lease| lease.metadata.clone()).unwrap_or_default();
    match cluster.write_lease(&which.namespace, &ours(which, metadata, version, transitions, acquired)).await {
        Ok(lease) => {
            candidate.written(sent);
            *written = Some(lease);
            Ok(act)
        }
        // Somebody was quicker, or has taken it away.
        Err(Refusal::Conflict(_) | Refusal::Absent) => {
            candidate.doubt();
            Ok(Act::Wait)
        }
        Err(refusal) => Err(refusal),
    }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Seen {
        holder: spec.holder_identity.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or(0),
        duration: seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs),
    }
}

/// The lease that this operator takes. What others have written beside it stays: Helm knows its own by labels.
fn ours(
    which: &Which,
    metadata: ObjectMeta,
    version: Option<String>,
    transitions: i32,
    acquired: Option<MicroTime>,
) -> Lease {
    let now = MicroTime(Timestamp::now());
    let seconds = which.terms.duration.as_secs().max(1);
    Lease {
        metadata: ObjectMeta {
            name: Some(which.name.clone()),
            namespace: Some(which.namespace.clone()),
            resource_version: version,
            managed_fields: None,
            ..metadata
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(which.identity.clone()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }),
    }
}

/// The next one need not wait.
async fn give_back(cluster: &Cluster, which: &Which) {
    let Ok(Some(mut lease)) = cluster.lease(&which.namespace, &which.name).await else { return };
    let Some(spec) = &mut lease.spec else { return };
    if spec.holder_identity.as_deref() != Some(which.identity.as_str()) {
        return;
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    if let Err(refusal) = cluster.write_lease(&which.namespace, &lease).await {
        tracing::debug!(error = %refusal, "the lease was not given back");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use std::sync::Arc;

    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use streamfleet_process::telemetry::Metrics;
    use tokio::task::JoinSet;

    use super::*;

    fn which(identity: &str) -> Which {
        let (namespace, name) = ("voice".to_owned(), "l".to_owned());
        Which { namespace, name, identity: identity.to_owned(), terms: Terms::default() }
    }

    /// A leader went on for as long as its last renewal was good, while another one acted.
    #[tokio::test]
    async fn a_renewal_that_is_not_taken_ends_the_leave_to_act() {
        let check = async |code: u16, leads: bool| {
            let server = tower::service_fn(move |_: http::Request<Body>| async move {
                let body =
                    json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": code });
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap())
            });
            let cluster = Cluster::new(kube::Client::new(server, "voice"));
            let which = which("me");
            let mut candidate = Candidate::new(which.identity.clone(), which.terms);
            candidate.written(Instant::now());
            let metadata = ObjectMeta { resource_version: Some("1".to_owned()), ..ObjectMeta::default() };
            let mut written = Some(ours(&which, metadata, Some("1".to_owned()), 0, None));
            let _ = turn(&cluster, &which, &mut candidate, &mut written).await;
            assert_eq!((candidate.leads_until().is_some(), written.is_some()), (leads, false), "{code}");
        };
        check(409, false).await;
        check(404, false).await;
        // It may be ours still.
        check(503, true).await;
    }
    /// An API server that has one lease, and takes it from whoever has read it last.
    #[derive(Default)]
    struct Server {
        /// As it is there; null if it is not.
        lease: Value,
        version: u32,
        /// Nothing can be written.
        is_away: bool,
        asked: u32,
    }

    impl Server {
        fn write(&mut self, mut lease: Value) -> (u16, Value) {
            if self.is_away {
                return (503, Value::Null);
            }
            if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"] {
                return (409, Value::Null);
            }
            self.version += 1;
            lease["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.lease = lease;
            (200, self.lease.clone())
        }

        fn answer(&mut self, method: &http::Method, body: &[u8]) -> (u16, Value) {
            self.asked += 1;
            match *method {
                // Whoever asks without a pause is to end all the same.
                _ if self.asked > 100 => (503, Value::Null),
                http::Method::GET if self.lease.is_null() => (404, Value::Null),
                http::Method::GET => (200, self.lease.clone()),
                _ => self.write(serde_json::from_slice(body).unwrap()),
            }
        }
    }

    /// What a leader remembers of services is not how things are once another one has acted.
    #[tokio::test(start_paused = true)]
    async fn who_has_lost_the_lease_leads_no_more_and_ends() {
        let check = async |is_away: bool| {
            let server: Arc<Mutex<Server>> = Arc::default();
            let there = server.clone();
            let service = tower::service_fn(move |request: http::Request<Body>| {
                let there = there.clone();
                async move {
                    let method = request.method().clone();
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let (code, answer) = there.lock().answer(&method, &body);
                    let reason = if code == 404 { "NotFound" } else { "" };
                    let failure = json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code });
                    let body = if code == 200 { answer } else { failure };
                    let body = Body::from(body.to_string().into_bytes());
                    Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap())
                }
            });
            let cluster = Cluster::new(kube::Client::new(service, "voice"));
            let instruments = Instruments::new(&Metrics::new("t", "0"), Arc::default());
            let (sender, mut leads) = watch::channel(None);
            let mut running = JoinSet::new();
            running.spawn(lead(cluster, which("me"), sender, instruments, CancellationToken::new()));
            let begins = leads.wait_for(Option::is_some);
            drop(tokio::time::timeout(Duration::from_secs(60), begins).await.expect("it leads").unwrap());
            {
                let mut server = server.lock();
                let taken = [("holderIdentity", json!("another")), ("leaseTransitions", json!(1))];
                taken.into_iter().for_each(|(field, value)| server.lease["spec"][field] = value);
                server.lease["metadata"]["resourceVersion"] = "9".into();
                server.is_away = is_away;
            }
            let ended = tokio::time::timeout(Duration::from_secs(60), running.join_next()).await;
            assert_eq!(ended.expect("it ends").unwrap().unwrap(), Err(LeaseLost), "{is_away}");
            assert_eq!(*leads.borrow(), None, "{is_away}");
            assert_eq!(server.lock().lease["spec"]["holderIdentity"], "another", "it is not given back for it");
        };
        check(false).await;
        // It cannot renew, and finds out before its leave to act is over.
        check(true).await;
    }
}
