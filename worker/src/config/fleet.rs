//! A worker's part in a fleet, as configured.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_session::FleetKey;
use streamfleet_store::config::{StoreConfig, address};
use streamfleet_store::{Address, Backend, WorkerId};

/// A worker's part in a fleet. With it, sessions are placed here by routers, and nobody else is answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct FleetConfig {
    /// Its name: no other worker's of the fleet. A pod's name will do.
    pub worker: Option<String>,
    /// Which variant of its services it serves; absent for the services themselves.
    pub variant: Option<String>,
    /// Where routers reach it: `host:port`, or an address alone. After an address port 0, as none, stands for the one that it
    /// listens on.
    pub http: Option<String>,
    /// What routers and workers share, or the key of the one service that it serves, which is made of that.
    pub secret: Option<Secret>,
    /// What the fleet knows together.
    pub store: StoreConfig,
}

/// A checked part in a fleet.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    /// The worker's name.
    pub worker: WorkerId,
    /// Which variant it serves.
    pub variant: Option<String>,
    /// Where routers reach it: `host:port`.
    pub http: String,
    /// What it knows routers by.
    pub key: FleetKey,
    /// The fleet's store.
    pub store: Backend,
}

impl FleetConfig {
    /// `store` is the one of a fleet in this process.
    pub(super) fn build(&self, store: Option<&Backend>, mistakes: &mut Mistakes) -> Option<FleetPlan> {
        let mut needed = |key: &str, value: Option<&str>| {
            if value.is_none() {
                mistakes.push(key, "a worker of a fleet needs it");
            }
            value.map(str::to_owned)
        };
        let worker = needed("fleet.worker", self.worker.as_deref());
        let http = needed("fleet.http", self.http.as_deref());
        let secret = needed("fleet.secret", self.secret.as_ref().map(Secret::reveal));
        let worker = worker.and_then(|name| mistakes.check("fleet.worker", name.parse::<WorkerId>()));
        let http = http.map(with_port).filter(|http| reachable("fleet.http", http, mistakes));
        let key = secret.and_then(|secret| mistakes.check("fleet.secret", secret.parse::<FleetKey>()));
        let store = match store {
            Some(store) => Some(store.clone()),
            None => self.store.build("fleet.store", mistakes),
        };
        Some(FleetPlan { worker: worker?, variant: self.variant.clone(), http: http?, key: key?, store: store? })
    }
}

/// An address alone, as a pod is told its own, has the port that the worker listens on.
fn with_port(text: String) -> String {
    text.parse::<IpAddr>().map_or(text, |ip| SocketAddr::new(ip, 0).to_string())
}

/// Whether this is `host:port`, and not what only a listener is given: each router would look for the worker on its own machine.
fn reachable(key: &str, text: &str, mistakes: &mut Mistakes) -> bool {
    let Some(Address { host, .. }) = address(key, text, mistakes) else { return false };
    let is_nowhere = host.parse::<IpAddr>().is_ok_and(|ip| {
        let ip = ip.to_canonical();
        ip.is_unspecified() || ip.is_multicast()
    });
    if is_nowhere {
        mistakes.push(key, "must be an address that routers can reach");
    }
    !is_nowhere
}
