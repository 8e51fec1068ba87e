//! A worker's double: it is known to the store, answers every offer with the same text, and ends the session at once.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use serde_json::json;
use streamfleet_session::fleet::{PLACED_HEADER, Placed};
use streamfleet_session::{CloseReason, ServiceName};
use streamfleet_store::{
    Address, Arrangement, Entry, Epoch, Gate, Heartbeat, Order, Owner, RedisConfig, RedisStore, Store, Ticket,
};

use tokio_util::task::TaskTracker;

use crate::http::{Answer, sdp, serve, whole};

/// As long as the answer of a real worker to `streamfleet call`.
const SDP_BYTES: usize = 1_400;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    listen: SocketAddr,
    /// The store's port, on this machine.
    #[arg(long)]
    redis: u16,
    #[arg(long, default_value_t = 4)]
    workers: u32,
    #[arg(long, default_value = "bench")]
    service: ServiceName,
}

pub(crate) fn store(port: u16) -> Arc<dyn Store> {
    let address = Address { host: "127.0.0.1".to_owned(), port };
    Arc::new(RedisStore::new(RedisConfig::new(Arrangement::Single(address))))
}

pub(crate) fn beat(http: &str, capacity: u32, active: u32) -> Heartbeat {
    Heartbeat {
        capacity,
        active,
        reserved: 0,
        gate: Gate::Open,
        heard: Order::default(),
        http: http.to_owned(),
        media: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        variant: None,
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let Args { listen, redis, workers, service } = args;
    let store = store(redis);
    let mut owners = Vec::new();
    for n in 0..workers {
        let worker = format!("double-{n}").parse()?;
        let epoch = store.register(&service, &worker, Entry::New).await?;
        owners.push(Owner { worker, epoch });
    }
    let owners = Arc::new(owners);
    let beats = {
        let (store, owners, service) = (store.clone(), owners.clone(), service.clone());
        async move {
            let mut turn = tokio::time::interval(streamfleet_store::Terms::default().heartbeat());
            loop {
                turn.tick().await;
                for owner in owners.iter() {
                    let renewed = store.renew(&service, owner, &beat(&listen.to_string(), 1 << 16, 0)).await;
                    renewed.with_context(|| format!("{} is not known any more", owner.worker))?;
                }
            }
        }
    };
    let answer: Arc<str> = json!({ "type": "answer", "sdp": sdp(SDP_BYTES) }).to_string().into();
    let ends = TaskTracker::new();
    let served = serve(listen, move |request| {
        offered(request, store.clone(), owners.clone(), service.clone(), answer.clone(), ends.clone())
    });
    tokio::select! {
        beats = beats => beats,
        served = served => served,
    }
}

async fn offered(
    request: Request<Incoming>,
    store: Arc<dyn Store>,
    owners: Arc<Vec<Owner>>,
    service: ServiceName,
    answer: Arc<str>,
    ends: TaskTracker,
) -> Answer {
    let placed = request.headers().get(PLACED_HEADER).map(|value| Placed::decode(value.as_bytes()));
    let body = request.into_body().collect().await;
    let mut response = Response::new(whole(answer.as_bytes().to_vec()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    match (placed, body) {
        // Straight from a client, or by the proxy.
        (None, Ok(_)) => {}
        (Some(Ok(placed)), Ok(_)) => {
            // The claim does not say who of them is meant: epochs do, for they began together.
            let owner = owners.iter().find(|owner| owner.epoch == Epoch(placed.epoch)).cloned();
            ends.spawn(async move {
                if let Some(owner) = owner {
                    let ticket = Ticket::from_random(placed.ticket);
                    // The place is free again for the next offer.
                    let _ = store.end(&service, &owner, ticket, CloseReason::EndStream).await;
                }
            });
        }
        _ => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}
