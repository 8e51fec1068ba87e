//! Sessions that a router places here, over HTTP; the test is the router.

use axum::http::HeaderMap;
use streamfleet_session::ResumeToken;
use streamfleet_session::fleet::{Form, PLACED_HEADER, Placed, PlacedContext, REFUSED_HEADER};
use streamfleet_store::{
    Claim, ClaimRequest, Claimed, Delivery, Demand, Gate, Heartbeat, Outcome, Sessions as _, Store, Terms, Ticket,
    Told, WorkerId, settle,
};
use tokio::task::JoinSet;

use super::*;
use crate::fleet::{Fate, Member, Surroundings, run};

struct Fleet {
    store: Arc<Memory>,
    worker: Worker,
    stop: CancellationToken,
    running: JoinSet<Fate>,
}

fn service() -> ServiceName {
    "echo".parse().unwrap()
}

impl Fleet {
    async fn new() -> Self {
        let store = Arc::<Memory>::default();
        let (media, sessions) = Worker::sessions();
        let name: WorkerId = "w".parse().unwrap();
        let member = Arc::new(Member::new(service(), name, store.clone()));
        sessions.join(HashMap::from([(service(), member.clone())]));
        let beat = || Heartbeat {
            capacity: 9,
            active: 0,
            reserved: 0,
            gate: Gate::Open,
            variant: None,
            http: "127.0.0.1:1".to_owned(),
            media: Vec::new(),
            version: "0".to_owned(),
        };
        let stop = CancellationToken::new();
        let surroundings = Surroundings { terms: Terms::default(), beat: Box::new(beat), stop: stop.clone() };
        let mut running = JoinSet::new();
        running.spawn(run(member.clone(), Arc::new(sessions.clone()), surroundings));
        let mut worker = Worker::with(sessions);
        let halt = worker.stop.clone();
        worker.running = Some(std::thread::spawn(move || media.run(&halt).unwrap()));
        let fleet = Fleet { store, worker, stop, running };
        fleet
            .until(async |fleet| {
                !streamfleet_store::Directory::workers(&*fleet.store, &service())
                    .await
                    .unwrap()
                    .iter()
                    .all(|w| w.said.is_none())
            })
            .await;
        fleet
    }

    /// Waits for what is about to be so.
    async fn until(&self, mut so: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self).await {
            assert!(Instant::now() < deadline, "it does not come to be so");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn claim(&self, ticket: u64, id: &str, token: Option<ResumeToken>) -> Placed {
        let request = ClaimRequest {
            ticket: Ticket::from_random(ticket),
            session: id.parse().unwrap(),
            user: None,
            claim: Claim { token, user: None },
            context: ContextId::from_random(u128::from(ticket)),
            token: ResumeToken::from_random([ticket as u8; ResumeToken::LEN]),
            delivery: Delivery::Known,
            service_limit: None,
            user_limit: None,
            pin: None,
            retention: Duration::from_secs(60),
            ranked: vec!["w".parse().unwrap()],
        };
        let claimed = self.store.claim(&service(), &request).await.unwrap();
        let Claimed::Placed(placement) = claimed else { panic!("{claimed:?}") };
        let opened = placement.opened;
        Placed {
            v: Form,
            ticket,
            epoch: placement.epoch.0,
            session: id.parse().unwrap(),
            user: None,
            verified: false,
            metadata: serde_json::Map::new(),
            claims: serde_json::Map::new(),
            variant: None,
            pin: None,
            context: PlacedContext {
                id: opened.id.bits(),
                version: opened.document.version.0,
                data: opened.document.data,
                resumed: opened.resumed,
                token: opened.token,
                generation: opened.generation.number(),
            },
            takes_over: placement.takes_over.map(Ticket::bits),
            client: "192.0.2.1:9".parse().unwrap(),
            retention: Duration::from_secs(60),
        }
    }

    async fn send(&self, id: &str, sdp: String, placed: Option<&Placed>) -> (u16, HeaderMap, Value) {
        let body = json!({ "type": "offer", "webrtc_id": id, "sdp": sdp });
        let mut request = Request::post(format!("/{}/webrtc/offer", service()));
        if let Some(placed) = placed {
            request = request.header(PLACED_HEADER, placed.encode().unwrap());
        }
        let response =
            self.worker.app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap())
    }

    async fn lives(&self, id: &str) -> bool {
        let seen = self.store.session(&service(), &id.parse().unwrap()).await.unwrap();
        matches!(seen, Some(streamfleet_store::SessionView::Live(_)))
    }
}

#[tokio::test]
async fn a_placed_session_begins_with_what_the_claim_has_opened_and_ends_at_anybodys_wish() {
    let fleet = Fleet::new().await;
    let placed = fleet.claim(1, "a", None).await;
    let (status, _, answer) = fleet.send("a", offer(), Some(&placed)).await;
    assert_eq!((status, answer["resume"].as_str().unwrap()), (200, placed.context.token.reveal().as_str()));
    let reached = fleet.worker.sessions.reached(&service(), &"a".parse().unwrap()).unwrap();
    assert_eq!(reached.context.bits(), placed.context.id);
    let data = fleet.store.clone().contexts(&service());
    let written =
        ask(&fleet.worker, "PATCH", &format!("/{}/sessions/a/data", service()), TOKEN, json!({ "n": 1 })).await;
    assert_eq!(written.0, 200);
    assert_eq!(data.read(reached.context).await.unwrap().unwrap().data["n"], 1);

    let shown = ask(&fleet.worker, "GET", &format!("/{}/sessions/a", service()), TOKEN, Value::Null).await;
    assert_eq!((shown.0, &shown.1["worker"]), (200, &json!("w")), "who has it in the fleet");

    let id: SessionId = "a".parse().unwrap();
    let demand = Demand::End(CloseReason::EndedByControl);
    let Told::Pending(pending) = fleet.store.ask(&service(), &id, None, &demand).await.unwrap() else { panic!() };
    let outcome = settle(&*fleet.store, &service(), &pending, PATIENCE).await.unwrap();
    assert_eq!(outcome, Some(Outcome::Ended(CloseReason::EndedByControl)));
    assert_eq!(fleet.worker.occupancy.live(), 0, "free here before anybody knows that it is free");

    // By its token, with what was written.
    let again = fleet.claim(2, "a", Some(placed.context.token)).await;
    assert!(again.context.resumed && again.context.data["n"] == 1);
    assert_eq!(fleet.send("a", offer(), Some(&again)).await.0, 200);
}

#[tokio::test]
async fn a_place_that_is_not_taken_is_refused_and_one_that_fails_is_given_back() {
    let fleet = Fleet::new().await;
    let refused = |headers: &HeaderMap| headers.get(REFUSED_HEADER).map(|value| value.to_str().unwrap().to_owned());
    let placed = fleet.claim(1, "a", None).await;
    let old = Placed { epoch: placed.epoch + 1, ..placed.clone() };
    for (id, placed) in [("a", None), ("a", Some(&old)), ("b", Some(&placed))] {
        let (status, headers, _) = fleet.send(id, offer(), placed).await;
        assert_eq!((status, refused(&headers).as_deref()), (503, Some("stale")), "{id}");
        assert_eq!(fleet.worker.occupancy.live(), 0);
    }
    let placed = fleet.claim(2, "c", None).await;
    let (status, headers, _) = fleet.send("c", "no offer".to_owned(), Some(&placed)).await;
    assert_eq!((status, refused(&headers)), (400, None), "its client's own fault");
    fleet.until(async |fleet| !fleet.lives("c").await).await;
    let placed = fleet.claim(3, "d", None).await;
    fleet.worker.occupancy.drain();
    let (status, headers, _) = fleet.send("d", offer(), Some(&placed)).await;
    assert_eq!((status, refused(&headers).as_deref()), (503, Some("draining")));
}

#[tokio::test]
async fn a_handler_ends_a_session_of_another_worker() {
    use sdk::Neighbours as _;
    let mut fleet = Fleet::new().await;
    let placed = fleet.claim(1, "a", None).await;
    assert_eq!(fleet.send("a", offer(), Some(&placed)).await.0, 200);
    fleet.until(async |fleet| fleet.lives("a").await).await;
    // Another worker's process, as far as its sessions know.
    let (_media, elsewhere) = Worker::sessions();
    let member = Arc::new(Member::new(service(), "other".parse().unwrap(), fleet.store.clone()));
    elsewhere.join(HashMap::from([(service(), member)]));
    assert_eq!(elsewhere.neighbours(&service()).end(&"a".parse().unwrap(), "bye"), Ok(()));
    fleet.until(async |fleet| !fleet.lives("a").await).await;
    let seen = fleet.store.session(&service(), &"a".parse().unwrap()).await.unwrap();
    assert_eq!(seen, Some(streamfleet_store::SessionView::Over(CloseReason::EndStream)));
    fleet.stop.cancel();
    assert_eq!(fleet.running.join_next().await.unwrap().unwrap(), Fate::Left);
}
