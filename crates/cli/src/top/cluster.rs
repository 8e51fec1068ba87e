//! Services, workers and decisions as a cluster's API server tells them: once, or as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event as Change, watcher};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use streamfleet_service::StreamService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::facts::{Facts, Name, Said, Service, Worker};
use super::figures;
use super::view::{Scope, Teller};

/// What finds an operator's pods.
const PODS: &str = "app.kubernetes.io/name=streamfleet-worker";
/// What finds the Events of StreamServices.
const EVENTS: &str = "regarding.kind=StreamService";
/// For the first answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Objects of one answer, and answers: 20 000 of each kind.
const PAGE: u32 = 500;
const MAX_PAGES: usize = 40;
/// Events that are kept: an hour of a busy fleet.
const MAX_SAID: usize = 1_000;
/// After which an idle watch is made again, in seconds: a connection that is dead is found out by then.
const IDLE: u32 = 60;
/// Between two attempts, and for one of them to connect.
const PAUSE: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);
/// For how long a failure is told of: a little longer than until the next one.
const TROUBLED: Duration = Duration::from_secs(10);

/// Which cluster, and what of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Which {
    pub(super) context: Option<String>,
    pub(super) namespace: Option<String>,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no cluster is known here ({0}): set KUBECONFIG, or ask a router with --url")]
    NoCluster(String),
    #[error("{cluster} does not answer: {reason}")]
    Unreachable { cluster: String, reason: String },
    #[error("{cluster} knows no StreamServices: its definition is not installed (chart streamfleet-crds)")]
    NoDefinition { cluster: String },
    #[error("{cluster} does not let this user list {what} {scope}")]
    Forbidden { cluster: String, what: &'static str, scope: String },
    #[error("{cluster} refuses: {reason}")]
    Refused { cluster: String, reason: String },
}

/// An API server that has answered.
pub(super) struct Cluster {
    client: Client,
    /// For whoever asks again by himself.
    follower: Client,
    name: String,
    /// The only namespace that is asked for.
    namespace: Option<String>,
    /// What somebody should know of that.
    note: Option<String>,
}

impl Cluster {
    /// Finds the cluster as `kubectl` does, or the one that this process runs in. Who may not list all namespaces is shown the one of
    /// his context.
    pub(super) async fn connect(which: &Which) -> Result<Self, Trouble> {
        let mut config = match &which.context {
            None => Config::infer().await.map_err(|error| Trouble::NoCluster(words(&error)))?,
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(|error| Trouble::NoCluster(words(&error)))?
            }
        };
        let name = format!("cluster {}", config.cluster_url.authority().map_or("?", |authority| authority.as_str()));
        let own = config.default_namespace.clone();
        config.connect_timeout = Some(CONNECT);
        let (client, follower) = clients(config).map_err(|error| Trouble::NoCluster(words(&error)))?;
        let mut cluster = Self { client, follower, name, namespace: which.namespace.clone(), note: None };
        match cluster.try_out().await {
            Err(Trouble::Forbidden { .. }) if cluster.namespace.is_none() => {
                cluster.note = Some(format!("only namespace {own} may be listed"));
                cluster.namespace = Some(own);
                cluster.try_out().await?;
            }
            tried => tried?,
        }
        Ok(cluster)
    }

    pub(super) fn teller(&self) -> Teller {
        let scope = self.namespace.clone().map_or(Scope::AllNamespaces, Scope::Namespace);
        Teller { name: self.name.clone(), scope, note: self.note.clone() }
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, client: &Client) -> Api<K> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    async fn try_out(&self) -> Result<(), Trouble> {
        let api = self.api::<StreamService>(&self.client);
        self.answer("StreamServices", api.list(&ListParams::default().limit(1))).await.map(drop)
    }

    async fn answer<T>(
        &self,
        what: &'static str,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Trouble> {
        let cluster = self.name.clone();
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(match status.code {
                403 => {
                    let scope = self.namespace.as_ref();
                    let scope = scope.map_or("in all namespaces".to_owned(), |one| format!("in namespace {one}"));
                    Trouble::Forbidden { cluster, what, scope }
                }
                404 => Trouble::NoDefinition { cluster },
                _ => Trouble::Refused { cluster, reason: status.message },
            }),
            Ok(Err(error)) => Err(Trouble::Unreachable { cluster, reason: words(&error) }),
            Err(_) => Err(Trouble::Unreachable { cluster, reason: format!("nothing within {} s", PATIENCE.as_secs()) }),
        }
    }

    /// All objects of a kind, page by page.
    async fn all<K>(&self, what: &'static str, params: ListParams, mut take: impl FnMut(K)) -> Result<(), Trouble>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api = self.api::<K>(&self.client);
        let mut params = params.limit(PAGE);
        for _ in 0..MAX_PAGES {
            let page = self.answer(what, api.list(&params)).await?;
            page.items.into_iter().for_each(&mut take);
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => break,
            }
        }
        Ok(())
    }

    /// How things are now.
    pub(super) async fn look(&self) -> Result<Facts, Trouble> {
        let mut facts = Facts::default();
        let params = ListParams::default();
        self.all("StreamServices", params.clone(), |service: StreamService| service.put(&mut facts)).await?;
        self.all("pods", params.clone().labels(PODS), |pod: Pod| pod.put(&mut facts)).await?;
        self.all("events", params.fields(EVENTS), |event: Event| event.put(&mut facts)).await?;
        figures::ask(&self.client, &facts).await.put(&mut facts);
        Ok(facts)
    }

    /// Follows what changes, in tasks of `tasks`.
    pub(super) fn follow(&self, tasks: &mut JoinSet<()>) -> watch::Receiver<Followed> {
        let (sender, receiver) = watch::channel(Followed::default());
        let sender = Arc::new(sender);
        let config = || watcher::Config::default().timeout(IDLE);
        tasks.spawn(follow(self.api::<StreamService>(&self.follower), config(), "StreamServices", sender.clone()));
        tasks.spawn(follow(self.api::<Pod>(&self.follower), config().labels(PODS), "pods", sender.clone()));
        tasks.spawn(follow(self.api::<Event>(&self.follower), config().fields(EVENTS), "events", sender.clone()));
        tasks.spawn(figures::follow(self.follower.clone(), sender));
        receiver
    }
}

/// A client that tries again for as long as somebody waits for its answer, and one that does not: what follows says at once what
/// is wrong, and is not silent for minutes.
fn clients(mut config: Config) -> Result<(Client, Client), kube::Error> {
    let patient = Client::try_from(config.clone())?;
    config.default_retry = false;
    Ok((patient, Client::try_from(config)?))
}

/// What is known while it changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed {
    pub(super) facts: Facts,
    /// What could not be followed, by what: why, and when that was.
    troubles: BTreeMap<&'static str, (String, Instant)>,
}

impl From<Facts> for Followed {
    fn from(facts: Facts) -> Self {
        Self { facts, troubles: BTreeMap::new() }
    }
}

impl Followed {
    /// Of a failure somebody is told for as long as the next one takes: a watch that goes on says nothing until something changes.
    pub(super) fn trouble(&mut self, what: &'static str, why: String, now: Instant) {
        self.troubles.insert(what, (why, now));
    }

    /// What is wrong, in one line.
    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        let present = self.troubles.iter().filter(|(_, (_, at))| now.saturating_duration_since(*at) < TROUBLED);
        let all: Vec<String> = present.map(|(what, (why, _))| format!("{what}: {why}")).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// An object that is one of the facts.
trait Fact: Resource<DynamicType = (), Scope = NamespaceResourceScope> {
    fn put(&self, facts: &mut Facts);
    fn forget(facts: &mut Facts, stays: &dyn Fn(&Name) -> bool);
}

impl Fact for StreamService {
    fn put(&self, facts: &mut Facts) {
        facts.services.insert(Name::of(&self.metadata), Service::read(self));
    }

    fn forget(facts: &mut Facts, stays: &dyn Fn(&Name) -> bool) {
        facts.services.retain(|name, _| stays(name));
    }
}

impl Fact for Pod {
    fn put(&self, facts: &mut Facts) {
        let name = Name::of(&self.metadata);
        let Some(worker) = Worker::read(self) else { return };
        // What it has said itself is asked for apart.
        let sessions = facts.workers.get(&name).and_then(|before| before.sessions);
        facts.workers.insert(name, Worker { sessions, ..worker });
    }

    fn forget(facts: &mut Facts, stays: &dyn Fn(&Name) -> bool) {
        facts.workers.retain(|name, _| stays(name));
    }
}

impl Fact for Event {
    fn put(&self, facts: &mut Facts) {
        let Some(said) = Said::read(self) else { return };
        facts.said.insert(Name::of(&self.metadata), said);
        if facts.said.len() > MAX_SAID {
            let oldest = facts.said.iter().min_by_key(|(_, said)| said.at).map(|(name, _)| name.clone());
            oldest.map(|oldest| facts.said.remove(&oldest));
        }
    }

    fn forget(facts: &mut Facts, stays: &dyn Fn(&Name) -> bool) {
        facts.said.retain(|name, _| stays(name));
    }
}

/// Follows one kind for ever.
async fn follow<K>(api: Api<K>, config: watcher::Config, what: &'static str, followed: Arc<watch::Sender<Followed>>)
where
    K: Fact + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut changes = std::pin::pin!(watcher(api, config));
    // Those that a list has named so far.
    let mut listed: Option<BTreeSet<Name>> = None;
    loop {
        match changes.next().await {
            Some(Ok(change)) => followed.send_modify(|followed| apply(&change, &mut listed, what, followed)),
            Some(Err(error)) => {
                followed.send_modify(|followed| followed.trouble(what, words(&error), Instant::now()));
                sleep(PAUSE).await;
            }
            None => return,
        }
    }
}

fn apply<K: Fact>(
    change: &Change<K>,
    listed: &mut Option<BTreeSet<Name>>,
    what: &'static str,
    followed: &mut Followed,
) {
    let facts = &mut followed.facts;
    match change {
        Change::Init => *listed = Some(BTreeSet::new()),
        Change::InitApply(object) => {
            object.put(facts);
            listed.get_or_insert_default().insert(Name::of(object.meta()));
        }
        Change::InitDone => {
            // What has gone while nobody listened.
            if let Some(listed) = listed.take() {
                K::forget(facts, &|name| listed.contains(name));
            }
            followed.troubles.remove(what);
        }
        Change::Apply(object) => {
            object.put(facts);
            followed.troubles.remove(what);
        }
        Change::Delete(object) => {
            let gone = Name::of(object.meta());
            K::forget(facts, &|name| *name != gone);
            followed.troubles.remove(what);
        }
    }
}

/// What is at the bottom of an error, on one line: what somebody can do something about.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut bottom = error;
    while let Some(cause) = bottom.source() {
        bottom = cause;
    }
    bottom.to_string().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::top::facts::State;
    use crate::top::facts::tests::{pod, service};

    fn names(followed: &Followed) -> Vec<&str> {
        followed.facts.workers.keys().map(|name| name.name.as_str()).collect()
    }

    #[test]
    fn what_is_told_is_what_is_known() {
        let (mut followed, mut listed) = (Followed::default(), None);
        let now = Instant::now();
        followed.trouble("pods", "it does not answer".to_owned(), now);
        let mut tell = |followed: &mut Followed, change: Change<Pod>| apply(&change, &mut listed, "pods", followed);
        let of = |name: &str| pod(name, &json!({}));
        tell(&mut followed, Change::Init);
        tell(&mut followed, Change::InitApply(of("a")));
        tell(&mut followed, Change::InitApply(of("b")));
        assert_eq!(followed.problem(now).as_deref(), Some("pods: it does not answer"), "not before all is told");
        tell(&mut followed, Change::InitDone);
        assert_eq!((names(&followed), followed.problem(now)), (vec!["a", "b"], None));
        tell(&mut followed, Change::Apply(of("c")));
        tell(&mut followed, Change::Delete(of("a")));
        assert_eq!(names(&followed), ["b", "c"]);
        // A list that begins anew takes nothing away before it is whole.
        let b = Name::new("voice", "b");
        followed.facts.workers.get_mut(&b).unwrap().sessions = Some(7);
        tell(&mut followed, Change::Init);
        tell(
            &mut followed,
            Change::InitApply(pod("b", &json!({ "metadata": { "labels": { "streamfleet.dev/state": "draining" } } }))),
        );
        assert_eq!(names(&followed), ["b", "c"]);
        tell(&mut followed, Change::InitDone);
        assert_eq!(names(&followed), ["b"]);
        let worker = &followed.facts.workers[&b];
        assert_eq!((worker.sessions, &worker.state), (Some(7), &State::Draining), "what it has said itself stays");
    }

    #[test]
    fn a_failure_that_does_not_come_again_is_over() {
        let (mut followed, now) = (Followed::default(), Instant::now());
        followed.trouble("pods", "refused".to_owned(), now);
        followed.trouble("events", "refused too".to_owned(), now + PAUSE);
        let problem = |after: Duration| followed.problem(now + after);
        assert_eq!(problem(PAUSE).as_deref(), Some("events: refused too; pods: refused"));
        assert_eq!(problem(TROUBLED).as_deref(), Some("events: refused too"));
        assert_eq!(problem(TROUBLED + PAUSE), None);
    }

    /// An API server that had too much to do looked like one that says nothing: its refusals were kept back for minutes.
    #[tokio::test]
    async fn what_follows_hears_of_a_refusal_at_once() {
        use std::sync::atomic::{AtomicU32, Ordering};

        use axum::http::{Request, StatusCode};
        streamfleet_process::crypto::install();
        let asked = Arc::new(AtomicU32::new(0));
        let counted = asked.clone();
        let busy = axum::Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async { StatusCode::TOO_MANY_REQUESTS }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, busy).await.unwrap() });
        let (_, follower) = clients(Config::new(url)).unwrap();
        let answer = timeout(PATIENCE, follower.request_text(Request::get("/").body(Vec::new()).unwrap())).await;
        assert!(matches!(answer, Ok(Err(kube::Error::Api(status))) if status.code == 429));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn kinds_are_kept_apart() {
        let mut facts = Facts::default();
        service("voice", "a", &json!({})).put(&mut facts);
        pod("a", &json!({})).put(&mut facts);
        Pod::forget(&mut facts, &|_| false);
        assert_eq!((facts.services.len(), facts.workers.len()), (1, 0));
    }

    #[test]
    fn the_oldest_words_are_forgotten() {
        let mut facts = Facts::default();
        for n in 0..=MAX_SAID {
            let second = format!("2026-11-22T11:{:02}:{:02}.0Z", n / 60, n % 60);
            let event: Event = serde_json::from_value(json!({
                "metadata": { "name": format!("e{n}"), "namespace": "voice" }, "eventTime": second,
                "regarding": { "kind": "StreamService", "namespace": "voice", "name": "a" },
            }))
            .unwrap();
            event.put(&mut facts);
        }
        assert_eq!(facts.said.len(), MAX_SAID);
        assert!(!facts.said.contains_key(&Name::new("voice", "e0")));
    }

    #[test]
    fn errors_are_told_by_what_is_behind_them() {
        let refused = std::io::Error::other("refused\nat once");
        let outer = watcher::Error::InitialListFailed(kube::Error::Service(Box::new(refused)));
        assert_eq!(words(&outer), "refused at once");
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        assert!(words(&kube::Error::Api(Box::new(status))).contains("pods is forbidden"));
    }
}
