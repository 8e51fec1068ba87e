//! StreamServices and their Secrets followed: the roster of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::{self, SelectAll};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use streamfleet_process::readiness::Hold;
use streamfleet_service::Catalog;
use streamfleet_service::resource::StreamService;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::book::{Book, Changed};
use super::config::Scope;
use super::contact::{Contact, Standing};
use super::vault::Vault;
use super::watching::{Refused, Watch};
use crate::roster::{Means, Roster};
use crate::secret;

/// How long changes are gathered: an operator that applies a folder changes many at once.
const GATHERED: Duration = Duration::from_millis(100);
/// How long the first Secrets are waited for: a service whose Secret cannot be read must not keep all others from being served.
const FIRST_SECRETS: Duration = Duration::from_secs(10);
/// How long a router that knows its services for the first time has for a look at their workers, before it says that it is ready.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// StreamServices that are read at once: one may have a megabyte and a half.
const PAGE: u32 = 50;

/// How many services there are, by what becomes of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<[AtomicU64; 4]>);

/// What becomes of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lot {
    /// Its calls are taken.
    Served,
    /// An older one has its path.
    Displaced,
    /// It cannot be read, or not any more.
    Mistaken,
    /// A Secret of its is not there.
    Waiting,
}

impl Lot {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Served, "served"),
        (Self::Displaced, "displaced"),
        (Self::Mistaken, "mistaken"),
        (Self::Waiting, "waiting"),
    ];
}

impl Counts {
    /// Shows them, and how the router stands to the API server.
    pub(crate) fn observe(&self, meter: &Meter, contact: &Contact) {
        let (counts, contact) = (self.clone(), contact.clone());
        // The meter's provider keeps the callbacks.
        let _ = meter
            .u64_observable_gauge("streamfleet_router_kubernetes_services")
            .with_description("StreamServices of the API server, by what becomes of them.")
            .with_callback(move |observer| {
                for (lot, name) in Lot::ALL {
                    observer.observe(counts.0[lot as usize].load(Relaxed), &[KeyValue::new("state", name)]);
                }
            })
            .build();
        let _ = meter
            .u64_observable_gauge("streamfleet_router_kubernetes_synced")
            .with_description("1 where what the API server has is known, 0 where the router goes by what was known, or by nothing yet.")
            .with_callback(move |observer| {
                observer.observe(u64::from(contact.standing(Instant::now()) == Standing::Synced), &[]);
            })
            .build();
    }

    fn set(&self, lot: Lot, count: usize) {
        self.0[lot as usize].store(count as u64, Relaxed);
    }
}

/// What follows services.
pub(crate) struct Followed {
    pub(crate) client: Client,
    pub(crate) scope: Scope,
    pub(crate) vault: Vault,
    pub(crate) means: Means,
    pub(crate) roster: watch::Sender<Arc<Roster>>,
    pub(crate) counts: Counts,
    /// Holds the router back until services are known for the first time.
    pub(crate) hold: Hold,
}

type Told = (usize, Result<Event<StreamService>, Refused>);

impl Followed {
    /// Keeps the roster as the API server has it, until it is dropped.
    pub(crate) async fn follow(self, contact: &Contact) {
        let Self { client, scope, vault, means, roster, counts, hold } = self;
        let mut watches = watches(&client, &scope, contact);
        let count = watches.len();
        let mut secrets = vault.changes();
        let (mut book, mut told) = (Book::default(), Said::default());
        let mut hold = Some(hold);
        // What has changed is looked at then.
        let mut due = None;
        loop {
            let rest = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                Some((watch, told)) = watches.next() => match told {
                    Ok(event) => book.note(watch, event),
                    Err(Refused(why)) => {
                        let changed = book.refuse(watch);
                        if changed == Changed::Yes {
                            let namespace = scope.name(watch);
                            tracing::error!(namespace, why, "StreamServices cannot be read there: none of them is served until they can. Is the chart streamfleet-crds \
                                 installed, and has the router its Role there?");
                        }
                        changed
                    }
                },
                Ok(()) = secrets.changed() => Changed::Yes,
                () = rest => {
                    due = None;
                    let (catalog, displaced) = Catalog::by_age(book.usable());
                    let all = catalog.iter().map(AsRef::as_ref).chain(displaced.iter().map(|one| &*one.service));
                    vault.want(secret::wanted(all));
                    if hold.is_some() {
                        settle(&vault, &catalog, &means).await;
                    }
                    let (next, deskless) = roster.borrow().with(catalog, &means);
                    counts.set(Lot::Served, next.desks().count());
                    counts.set(Lot::Displaced, displaced.len());
                    counts.set(Lot::Waiting, deskless.len());
                    counts.set(Lot::Mistaken, book.mistaken().count());
                    let mut wrong = Said::default();
                    for (name, said, goes_on) in book.mistaken() {
                        let what = if goes_on { "it is served as it was" } else { "it is left out" };
                        wrong.0.insert(name, format!("{said} ({what})"));
                    }
                    for one in displaced {
                        wrong.0.insert(one.service.name.to_string(), format!("{} (it is left out)", one.mistake));
                    }
                    for (name, mistake) in deskless {
                        if let Some(mistake) = mistake {
                            wrong.0.insert(name.to_string(), format!("{mistake} (until then it cannot be reached)"));
                        }
                    }
                    told.tell(wrong);
                    tracing::debug!(services = next.desks().count(), "services were read again");
                    roster.send_replace(Arc::new(next));
                    if let Some(hold) = hold.take() {
                        tracing::info!(services = roster.borrow().desks().count(), "the services are known");
                        // Who has services and has not looked at their workers would be ready for a moment.
                        let look = async move { sleep(FIRST_LOOK).await; drop(hold) };
                        means.tasks.spawn(means.stop.clone().run_until_cancelled_owned(look));
                    }
                    Changed::No
                }
            };
            if changed == Changed::Yes && book.is_whole(count) && due.is_none() {
                due = Some(tokio::time::Instant::now() + GATHERED);
            }
        }
    }
}

/// A watch for each namespace, or one for all.
fn watches(client: &Client, scope: &Scope, contact: &Contact) -> SelectAll<stream::BoxStream<'static, Told>> {
    let apis: Vec<Api<StreamService>> = match scope {
        Scope::All => vec![Api::all(client.clone())],
        Scope::Only(only) => only.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect(),
    };
    let watch = |(n, api)| {
        let watch = Watch::new(api, watcher::Config::default().page_size(PAGE), contact.line());
        stream::unfold(watch, move |mut watch| async move {
            let told = watch.heard().await;
            Some(((n, told), watch))
        })
        .boxed()
    };
    stream::select_all(apis.into_iter().enumerate().map(watch))
}

/// Waits until the API server has been asked for each Secret once, or has had its time.
async fn settle(vault: &Vault, catalog: &Catalog, means: &Means) {
    let mut changes = vault.changes();
    let is_unsettled = || catalog.iter().any(|service| means.secrets.are_pending(service));
    let settled = async {
        while is_unsettled() {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    // Those that are not there by then come later.
    let _ = timeout(FIRST_SECRETS, settled).await;
}

/// What has been said of services: once, until it changes.
#[derive(Debug, Default)]
struct Said(BTreeMap<String, String>);

impl Said {
    fn tell(&mut self, now: Self) {
        for (service, said) in now.news(self) {
            tracing::warn!(service, said, "a StreamService cannot be served as it says");
        }
        let now_well: BTreeSet<&String> = self.0.keys().filter(|service| !now.0.contains_key(*service)).collect();
        for service in now_well {
            tracing::info!(service, "nothing is wrong with it any more, or it is gone");
        }
        *self = now;
    }

    /// What another has not said.
    fn news<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.0.iter().filter(|(service, said)| other.0.get(*service) != Some(*said))
    }
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
