//! The other relays: the endpoints of a Service that all of them are behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::ListParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::At;
use super::contact::Contact;
use super::watching::Watch;
use crate::relay::Endpoints;

/// For the first list. A relay that does not get it begins without: others tell it of their flows when they know of it.
const FIRST: Duration = Duration::from_secs(2);
/// Slices of one Service at most: a hundred endpoints each are more relays than are told of anything.
const MAX_SLICES: usize = 64;

/// Where all relays are, by slice. Whether they are ready does not matter: one that begins is told as well, and one that ends has clients.
#[derive(Debug, Default)]
struct Slices {
    known: BTreeMap<String, Slice>,
    /// Those that a list has named until now.
    listed: Option<BTreeMap<String, Slice>>,
}

/// What a slice says.
#[derive(Debug)]
struct Slice {
    relays: Relays,
    /// One of them serves clients, and is not about to end.
    serves: bool,
}

impl Slice {
    fn of(slice: &EndpointSlice) -> Self {
        // The Service publishes those that are not ready, too, as ready: whether they are is in `serving`.
        let serves = |endpoint: &Endpoint| {
            endpoint.conditions.as_ref().is_some_and(|is| is.serving == Some(true) && is.terminating != Some(true))
        };
        Self { relays: relays(slice), serves: slice.endpoints.iter().flatten().any(serves) }
    }
}

/// The addresses of a slice, with whose they are.
type Relays = BTreeSet<(String, IpAddr)>;

impl Slices {
    fn note(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Init => self.listed = Some(BTreeMap::new()),
            Event::InitApply(slice) => {
                let listed = self.listed.get_or_insert_default();
                if listed.len() < MAX_SLICES {
                    listed.insert(name(&slice), Slice::of(&slice));
                }
            }
            Event::InitDone => self.known = self.listed.take().unwrap_or_default(),
            Event::Apply(slice) => {
                let name = name(&slice);
                if self.known.len() < MAX_SLICES || self.known.contains_key(&name) {
                    self.known.insert(name, Slice::of(&slice));
                }
            }
            Event::Delete(slice) => drop(self.known.remove(&name(&slice))),
        }
    }

    fn all(&self) -> BTreeSet<IpAddr> {
        one_each(self.known.values().flat_map(|slice| &slice.relays))
    }

    /// Whether a relay serves: another one, where this one does not.
    fn serve(&self) -> bool {
        self.known.values().any(|slice| slice.serves)
    }
}

/// One address of each relay: in a cluster of two families each has one in a slice of either, and would be told everything twice. That
/// of IPv4 comes first: every socket reaches it.
fn one_each<'a>(relays: impl IntoIterator<Item = &'a (String, IpAddr)>) -> BTreeSet<IpAddr> {
    let mut first: BTreeMap<&str, IpAddr> = BTreeMap::new();
    for (whose, address) in relays {
        first.entry(whose).and_modify(|known| *known = (*known).min(*address)).or_insert(*address);
    }
    first.into_values().collect()
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

fn relays(slice: &EndpointSlice) -> Relays {
    let relay = |endpoint: &Endpoint| {
        // An endpoint has one address; more are another's business.
        let address = endpoint.addresses.first()?;
        let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.uid.clone().or_else(|| pod.name.clone()));
        // Whoever is no pod is known by his address alone.
        Some((pod.unwrap_or_else(|| address.clone()), address.parse().ok()?))
    };
    slice.endpoints.iter().flatten().filter_map(relay).collect()
}

/// What slices are looked for.
fn of_service(name: &str) -> String {
    format!("kubernetes.io/service-name={name}")
}

/// Who is there now, before a relay asks them what they know.
pub(crate) async fn first(client: &Client, At { namespace, name }: &At, endpoints: &Endpoints) {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(&of_service(name)).limit(MAX_SLICES as u32);
    match timeout(FIRST, api.list(&params)).await {
        Ok(Ok(list)) => {
            let all: Vec<Relays> = list.items.iter().map(relays).collect();
            endpoints.set(one_each(all.iter().flatten()));
        }
        Ok(Err(error)) => tracing::warn!(%error, "the other relays are not known yet"),
        Err(_) => tracing::warn!("the other relays are not known yet: the API server does not answer"),
    }
}

/// Follows them, until it is dropped. `serve` is told whether any of them is ready for clients.
pub(crate) async fn follow(
    client: Client,
    At { namespace, name }: At,
    contact: Contact,
    endpoints: Endpoints,
    serve: watch::Sender<Option<bool>>,
) {
    let config = watcher::Config::default().labels(&of_service(&name));
    let mut watch = Watch::<EndpointSlice>::new(Api::namespaced(client, &namespace), config, contact.line());
    let mut slices = Slices::default();
    loop {
        let event = watch.next().await;
        let is_list = matches!(event, Event::Init | Event::InitApply(_));
        slices.note(event);
        if !is_list {
            endpoints.set(slices.all());
            serve.send_replace(Some(slices.serve()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use axum::body::{Body, Bytes};
    use axum::http::{Request, Response};
    use futures_util::stream;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;

    fn slice(name: &str, addresses: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|address| json!({ "addresses": [address], "conditions": { "ready": false, "serving": false } }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": name }, "addressType": "IPv4", "endpoints": endpoints, "ports": [],
        }))
        .unwrap()
    }

    fn all(slices: &Slices) -> Vec<String> {
        slices.all().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn who_serves() {
        let check = |conditions: &[Value], expected: bool| {
            let endpoint = |conditions| json!({ "addresses": ["10.0.0.1"], "conditions": conditions });
            let slice: EndpointSlice = serde_json::from_value(json!({
                "metadata": { "name": "a" }, "addressType": "IPv4", "ports": [],
                "endpoints": conditions.iter().map(endpoint).collect::<Vec<_>>(),
            }))
            .unwrap();
            let mut slices = Slices::default();
            slices.note(Event::Apply(slice));
            assert_eq!(slices.serve(), expected, "{conditions:?}");
            slices.note(Event::Init);
            slices.note(Event::InitDone);
            assert!(!slices.serve(), "it is gone");
        };
        check(&[], false);
        check(&[json!({ "ready": true }), json!({ "ready": true, "serving": false })], false);
        check(&[json!({ "ready": true, "serving": true, "terminating": true })], false);
        check(&[json!({ "serving": false }), json!({ "ready": true, "serving": true, "terminating": false })], true);
    }

    /// Nothing before the list is there, and all that changes: a router that is never told takes itself for alone.
    #[tokio::test(start_paused = true)]
    async fn who_follows_is_told_who_serves() {
        let slice = |serving: bool| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": { "name": "a", "namespace": "n", "resourceVersion": "1" },
                "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": true, "serving": serving } }],
            })
        };
        let list = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": { "resourceVersion": "1" },
            "items": [slice(true)],
        });
        let (changes, lines) = mpsc::unbounded_channel::<Bytes>();
        let lines = Arc::new(Mutex::new(Some(lines)));
        let server = tower::service_fn(move |request: Request<kube::client::Body>| {
            let uri = request.uri();
            assert_eq!(uri.path(), "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices");
            let query = uri.query().unwrap_or_default();
            assert!(query.contains("labelSelector=kubernetes.io%2Fservice-name%3Drelays"), "{query}");
            let body = if query.contains("watch=true") {
                let lines = stream::unfold(lines.lock().take(), |lines| async move {
                    let mut lines = lines?;
                    Some((io::Result::Ok(lines.recv().await?), Some(lines)))
                });
                Body::from_stream(lines)
            } else {
                Body::from(list.to_string())
            };
            async move { Ok::<_, io::Error>(Response::new(body)) }
        });
        let (serve, mut told) = watch::channel(None);
        let (endpoints, at) = (Endpoints::default(), At { namespace: "n".to_owned(), name: "relays".to_owned() });
        let check = async {
            assert_eq!(*told.borrow(), None);
            told.wait_for(|serve| *serve == Some(true)).await.unwrap();
            for serving in [false, true] {
                let line = format!("{}\n", json!({ "type": "MODIFIED", "object": slice(serving) }));
                changes.send(line.into()).unwrap();
                told.wait_for(|serve| *serve == Some(serving)).await.unwrap();
            }
        };
        tokio::select! {
            () = follow(Client::new(server, "n"), at, Contact::default(), endpoints, serve) => panic!("it has no end"),
            told = timeout(Duration::from_secs(20), check) => told.expect("it is told"),
        }
    }

    #[test]
    fn relays_come_and_go() {
        let mut slices = Slices::default();
        slices.note(Event::Init);
        slices.note(Event::InitApply(slice("a", &["10.0.0.1", "10.0.0.2", "no address"])));
        slices.note(Event::InitApply(slice("b", &["fd00::1"])));
        assert_eq!(all(&slices), Vec::<String>::new(), "half a list is none");
        slices.note(Event::InitDone);
        assert_eq!(all(&slices), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        slices.note(Event::Apply(slice("a", &["10.0.0.2"])));
        assert_eq!(all(&slices), ["10.0.0.2", "fd00::1"]);
        slices.note(Event::Delete(slice("b", &[])));
        assert_eq!(all(&slices), ["10.0.0.2"]);
        // A new list has what is left.
        slices.note(Event::Init);
        assert_eq!(all(&slices), ["10.0.0.2"]);
        slices.note(Event::InitApply(slice("c", &["10.0.0.3"])));
        slices.note(Event::InitDone);
        assert_eq!(all(&slices), ["10.0.0.3"]);
    }

    /// Each peer got every flow twice, and of the peers that are told at most half as many relays were.
    #[test]
    fn a_relay_of_two_families_is_told_once() {
        let of_pods = |name: &str, relays: &[(&str, Value)]| -> EndpointSlice {
            let endpoints: Vec<_> = relays
                .iter()
                .map(|(address, pod)| json!({ "addresses": [address], "conditions": {}, "targetRef": pod }))
                .collect();
            let slice = json!({ "metadata": { "name": name }, "addressType": "IPv4", "endpoints": endpoints });
            serde_json::from_value(slice).unwrap()
        };
        let uid = |uid: &str| json!({ "kind": "Pod", "name": "router", "uid": uid });
        let named = |name: &str| json!({ "kind": "Pod", "name": name });
        let four = [("10.0.0.1", uid("a")), ("10.0.0.2", named("b")), ("10.0.0.3", json!(null))];
        let six = [("fd00::1", uid("a")), ("fd00::2", named("b")), ("fd00::3", json!(null)), ("fd00::4", uid("c"))];
        let mut slices = Slices::default();
        slices.note(Event::Apply(of_pods("six", &six[..2])));
        assert_eq!(all(&slices), ["fd00::1", "fd00::2"], "while there is no other");
        slices.note(Event::Apply(of_pods("four", &four)));
        slices.note(Event::Apply(of_pods("six", &six)));
        assert_eq!(all(&slices), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::3", "fd00::4"]);
        slices.note(Event::Delete(of_pods("four", &[])));
        assert_eq!(all(&slices), ["fd00::1", "fd00::2", "fd00::3", "fd00::4"]);
    }

    #[test]
    fn there_is_an_end() {
        let mut slices = Slices::default();
        for n in 0..MAX_SLICES * 2 {
            slices.note(Event::Apply(slice(&format!("s{n}"), &[&format!("10.0.{}.{}", n / 250, n % 250 + 1)])));
        }
        assert_eq!(slices.known.len(), MAX_SLICES);
    }
}
