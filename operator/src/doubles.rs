//! Pods, the store's words about their workers, and an operator, as tests want them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_scaling::Moment;
use streamfleet_store::{Epoch, Gate, Heartbeat, Order, Owner, WorkerView};

use crate::cluster::Cluster;
use crate::events::Reporter;
use crate::facts::{Marks, PodFacts, Stage};
use crate::look::Seen;
use crate::metrics::Instruments;
use crate::objects::Site;
use crate::operator::Operator;
use crate::prepare::Installation;
use crate::resource::Resource;

/// When tests are.
pub(crate) const NOW: Moment = Moment::from_millis(1_000_000);

/// A pod of a service's own, which was made a hundred seconds ago.
pub(crate) fn pod(name: &str, stage: Stage) -> PodFacts {
    PodFacts {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        variant: None,
        deployment: Some("s-worker".to_owned()),
        created: NOW - Duration::from_secs(100),
        node: None,
        noticed: true,
        stage,
        was_ready: matches!(stage, Stage::Ready(_)),
        restarts: 0,
        ending: false,
        gone_by: None,
        marks: Marks { protected: true, ..Marks::default() },
        trouble: None,
    }
}

/// What the store says of a worker that has heard all that it was asked.
pub(crate) fn view(name: &str, gate: Gate, active: u32) -> WorkerView {
    let said = Heartbeat {
        capacity: 20,
        active,
        reserved: 0,
        gate,
        heard: Order::default(),
        http: "10.0.0.1:8081".to_owned(),
        media: Vec::new(),
        version: "1".to_owned(),
        variant: None,
    };
    WorkerView {
        owner: Owner { worker: name.parse().unwrap(), epoch: Epoch(1) },
        said: Some(said),
        gate,
        order: Order::default(),
        sessions: active,
        age: Duration::from_secs(1),
    }
}

/// One that leads, and has been told nothing.
pub(crate) fn operator(client: kube::Client) -> Operator {
    let due = Arc::default();
    let metrics = streamfleet_process::telemetry::Metrics::new("t", "0");
    let (_, leads) = tokio::sync::watch::channel(Some(Instant::now() + Duration::from_secs(60)));
    let installation = Installation {
        site: Site::default(),
        secret: "a-secret-of-the-fleet".parse().unwrap(),
        service_users: false,
        image: "worker:1".to_owned(),
        public_url: None,
    };
    Operator::new(
        Cluster::new(client),
        (Arc::new(streamfleet_store::Memory::default()), None),
        installation,
        Instruments::new(&metrics, Arc::clone(&due)),
        due,
        leads,
        Reporter { controller: "c".to_owned(), instance: "i".to_owned() },
    )
}

/// A service of which nothing is there but itself.
pub(crate) fn seen(resource: Arc<Resource>) -> Seen {
    Seen {
        resource,
        pods: Vec::new(),
        deployments: BTreeMap::new(),
        going: BTreeMap::new(),
        unseen: BTreeSet::new(),
        alone: 0,
    }
}
