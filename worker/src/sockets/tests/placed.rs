//! Sockets that a router passes on; the test is the router.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};
use streamfleet_session::ResumeToken;
use streamfleet_session::fleet::{Form, PLACED_HEADER, Placed, PlacedContext, Standing};
use streamfleet_store::{
    Claim, ClaimRequest, Claimed, ContextId, Delivery, Directory as _, Gate, Memory, Sessions as _, Terms, Ticket,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::peer::{Peer, closed, refused};
use super::{PATIENCE, Setup, World, service};
use crate::fleet::{Fate, Member, Surroundings, doubles, run};

pub(super) const PATH: &str = "/tone/websocket/offer";

/// A worker `w` with a service `tone`, which a store knows.
pub(super) async fn in_a_fleet(store: &Arc<Memory>) -> (World, Arc<Member>, JoinSet<Fate>) {
    let member = Arc::new(Member::new("tone".parse().unwrap(), "w".parse().unwrap(), store.clone()));
    let members = HashMap::from([(member.service().clone(), member.clone())]);
    let world = World::changed([service("tone")], Setup::default(), |sessions| sessions.join(members));
    let beat = || doubles::heartbeat(Gate::Open);
    let surroundings =
        Surroundings { terms: Terms::default(), beat: Box::new(beat), joining: None, stop: CancellationToken::new() };
    let mut running = JoinSet::new();
    running.spawn(run(member.clone(), Arc::new(world.sessions.clone()), surroundings));
    let is_open = async {
        while store.workers(member.service()).await.unwrap().iter().all(|view| view.said.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_open).await.expect("it registers");
    (world, member, running)
}

/// A place there, which a router has claimed for a session of this id.
pub(super) async fn placed(store: &Memory, ticket: u8, id: &str) -> Placed {
    let (service, session) = ("tone".parse().unwrap(), id.parse().unwrap());
    let user = Some("ann".parse().unwrap());
    let request = ClaimRequest {
        ticket: Ticket::from_random(ticket.into()),
        session,
        user: user.clone(),
        claim: Claim { token: None, user: user.clone() },
        context: ContextId::from_random(ticket.into()),
        token: ResumeToken::from_random([ticket; ResumeToken::LEN]),
        delivery: Delivery::Sent,
        service_limit: None,
        user_limit: None,
        pin: None,
        quotas: Vec::new(),
        retention: Duration::from_secs(60),
        ranked: vec!["w".parse().unwrap()],
    };
    let claimed = store.claim(&service, &request).await.unwrap();
    let Claimed::Placed(placement) = claimed else { panic!("{claimed:?}") };
    let opened = placement.opened;
    Placed {
        v: Form,
        ticket: ticket.into(),
        epoch: placement.epoch.0,
        session: request.session,
        user,
        verified: true,
        metadata: Map::new(),
        claims: Map::new(),
        variant: None,
        pin: None,
        standing: Standing::Claimed,
        context: PlacedContext {
            id: opened.id.bits(),
            version: opened.document.version.0,
            data: opened.document.data,
            resumed: opened.resumed,
            token: opened.token,
            generation: opened.generation.number(),
            user: None,
        },
        takes_over: None,
        client: "192.0.2.1:9".parse().unwrap(),
        retention: Duration::from_secs(60),
        media: None,
    }
}

/// A verified user's session is his alone, and of who he is only the router knows: it says so, or nobody has it again.
#[tokio::test]
async fn a_router_vouches_for_who_comes_back() {
    let store = Arc::<Memory>::default();
    let (world, _, _running) = in_a_fleet(&store).await;
    let placed = placed(&store, 1, "a").await.encode().unwrap();
    let start = |resume| json!({ "event": "start", "websocket_id": "a", "resume": resume });
    let mut first = Peer::with(&world, PATH, &[(PLACED_HEADER, &placed)]).await;
    first.say(start(json!(true))).await;
    let token = first.token().await;
    first.hear(4_800).await;
    first.vanish();

    let mut unknown = Peer::with(&world, PATH, &[]).await;
    unknown.say(start(token.clone())).await;
    assert_eq!(unknown.word().await, refused("connection_closed"));
    assert_eq!(unknown.word().await, closed(1000, "refused"));
    let mut back = Peer::with(&world, PATH, &[("authorization", "Bearer correct-horse-battery")]).await;
    back.say(start(token.clone())).await;
    assert_ne!(back.token().await, token);
    back.hear(4_800).await;
    assert_eq!(world.sessions.len(), 1);
}
