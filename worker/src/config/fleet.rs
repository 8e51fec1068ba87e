//! A worker's part in a fleet, as configured.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};
use streamfleet_session::FleetSecret;
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
    /// Where routers reach it: `host:port`; after an address, port 0 stands for the one that it listens on.
    pub http: Option<String>,
    /// What routers and workers share.
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
    /// What routers show.
    pub secret: FleetSecret,
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
        let http = http.filter(|http| reachable("fleet.http", http, mistakes));
        let secret = secret.and_then(|secret| mistakes.check("fleet.secret", secret.parse::<FleetSecret>()));
        let store = match store {
            Some(store) => Some(store.clone()),
            None => self.store.build("fleet.store", mistakes),
        };
        Some(FleetPlan { worker: worker?, variant: self.variant.clone(), http: http?, secret: secret?, store: store? })
    }
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
