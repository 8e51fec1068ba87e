//! Workers with sessions that only live: what the store is asked for nothing but that they do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Map;
use streamfleet_session::{ResumeToken, ServiceName};
use streamfleet_store::{Claim, ClaimRequest, Claimed, ContextId, Delivery, Entry, Owner, Phase, Terms, Ticket};

use crate::double::{beat, store};
use crate::drive::say;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store's port, on this machine.
    #[arg(long)]
    redis: u16,
    #[arg(long, default_value_t = 100)]
    workers: u32,
    /// Sessions of each.
    #[arg(long, default_value_t = 50)]
    sessions: u32,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    #[arg(long, default_value = "bench")]
    service: ServiceName,
}

/// Says `begun` when all sessions are there and `done` at the end; whoever started it reads the store's counters in between.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (store, service) = (store(args.redis), args.service);
    let mut owners = Vec::new();
    for n in 0..args.workers {
        let worker = format!("worker-{n}").parse()?;
        let owner = Owner { epoch: store.register(&service, &worker, Entry::New).await?, worker };
        store.renew(&service, &owner, &beat("127.0.0.1:1", args.sessions, 0)).await?;
        owners.push(owner);
    }
    for (n, owner) in owners.iter().enumerate() {
        for session in 0..args.sessions {
            let request = ClaimRequest {
                ticket: Ticket::from_random(rand::random()),
                session: format!("{n}-{session}").parse()?,
                user: None,
                claim: Claim { token: None, user: None },
                context: ContextId::from_random(rand::random()),
                token: ResumeToken::from_random(rand::random()),
                delivery: Delivery::Known,
                service_limit: None,
                user_limit: None,
                pin: None,
                quotas: Vec::new(),
                retention: Duration::from_secs(60),
                ranked: vec![owner.worker.clone()],
            };
            let Claimed::Placed(_) = store.claim(&service, &request).await? else {
                bail!("no place for {n}-{session}")
            };
            store.report(&service, owner, request.ticket, Phase::Active, &Map::new()).await?;
        }
        // Those that came first must not be lost while the last ones come.
        for earlier in &owners[..=n] {
            store.renew(&service, earlier, &beat("127.0.0.1:1", args.sessions, args.sessions)).await?;
        }
    }
    say("begun")?;
    let (period, began) = (Terms::default().heartbeat(), Instant::now());
    let apart = period / args.workers;
    let mut turn = 0;
    while began.elapsed() < Duration::from_secs_f64(args.seconds) {
        tokio::time::sleep_until((began + apart * turn).into()).await;
        let owner = &owners[turn as usize % owners.len()];
        let beat = beat("127.0.0.1:1", args.sessions, args.sessions);
        store.renew(&service, owner, &beat).await.context("a lease was lost")?;
        turn += 1;
    }
    say("done")
}
