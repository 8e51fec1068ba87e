//! Sessions that a router places here, over HTTP; the test is the router.

use axum::http::HeaderMap;
use futures_util::StreamExt as _;
use streamfleet_session::fleet::{Form, PLACED_HEADER, Placed, PlacedContext, REFUSED_HEADER, Share, Standing};
use streamfleet_session::{ResumeToken, UserId};
use streamfleet_store::{
    Claim, ClaimRequest, Claimed, Delivery, Demand, Gate, Outcome, Sessions as _, Store, Terms, Ticket, Told, WorkerId,
    settle,
};
use tokio::task::JoinSet;

use super::*;
use crate::fleet::guard::Proven;
use crate::fleet::{Fate, Member, Surroundings, doubles, run};

struct Fleet {
    store: Arc<Memory>,
    name: WorkerId,
    worker: Worker,
    stop: CancellationToken,
    running: JoinSet<Fate>,
}

fn service() -> ServiceName {
    "echo".parse().unwrap()
}

impl Fleet {
    async fn new() -> Self {
        Self::on(&Arc::default(), "w").await
    }

    /// A worker of this name, with others on one store.
    async fn on(store: &Arc<Memory>, name: &'static str) -> Self {
        let store = store.clone();
        let (media, sessions) = Worker::sessions();
        let name: WorkerId = name.parse().unwrap();
        let member = Arc::new(Member::new(service(), name.clone(), store.clone()));
        sessions.join(HashMap::from([(service(), member.clone())]));
        let beat = || doubles::heartbeat(Gate::Open);
        let stop = CancellationToken::new();
        let surroundings =
            Surroundings { terms: Terms::default(), beat: Box::new(beat), joining: None, stop: stop.clone() };
        let mut running = JoinSet::new();
        running.spawn(run(member.clone(), Arc::new(sessions.clone()), surroundings));
        let mut worker = Worker::with(sessions);
        let halt = worker.stop.clone();
        worker.running = Some(std::thread::spawn(move || media.run(&halt).unwrap()));
        let fleet = Fleet { store, name, worker, stop, running };
        fleet
            .until(async |fleet| {
                !streamfleet_store::Directory::workers(&*fleet.store, &service())
                    .await
                    .unwrap()
                    .iter()
                    .all(|w| w.owner.worker != fleet.name || w.said.is_none())
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
        self.claim_by(None, ticket, id, token).await
    }

    /// A place for a user whom somebody vouches for.
    async fn claim_by(&self, user: Option<UserId>, ticket: u64, id: &str, token: Option<ResumeToken>) -> Placed {
        let request = ClaimRequest {
            ticket: Ticket::from_random(ticket),
            session: id.parse().unwrap(),
            user: user.clone(),
            claim: Claim { token, user: user.clone() },
            context: ContextId::from_random(u128::from(ticket)),
            token: ResumeToken::from_random([ticket as u8; ResumeToken::LEN]),
            delivery: Delivery::Known,
            service_limit: None,
            user_limit: None,
            pin: None,
            quotas: Vec::new(),
            retention: Duration::from_secs(60),
            ranked: vec![self.name.clone()],
        };
        let claimed = self.store.claim(&service(), &request).await.unwrap();
        let Claimed::Placed(placement) = claimed else { panic!("{claimed:?}") };
        let opened = placement.opened;
        Placed {
            v: Form,
            ticket,
            epoch: placement.epoch.0,
            session: id.parse().unwrap(),
            verified: user.is_some(),
            user,
            metadata: serde_json::Map::new(),
            claims: serde_json::Map::new(),
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
            takes_over: placement.takes_over.map(Ticket::bits),
            client: "192.0.2.1:9".parse().unwrap(),
            retention: Duration::from_secs(60),
            media: None,
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

    /// Has the session's handler put something out.
    fn put_out(&self, id: &str, values: &[u32]) {
        let reached = self.worker.sessions.reached(&service(), &id.parse().unwrap()).unwrap();
        values.iter().for_each(|value| reached.shared.output(&json!(value)).unwrap());
    }

    /// The status of a stream of outputs, and its next piece.
    async fn outputs(&self, id: &str, token: Option<&str>, seen: Option<&str>) -> (u16, String) {
        self.outputs_for(None, id, token, seen).await
    }

    /// Likewise, for a user whom a router has proved to ask.
    async fn outputs_for(
        &self,
        user: Option<&str>,
        id: &str,
        token: Option<&str>,
        seen: Option<&str>,
    ) -> (u16, String) {
        let query = token.map(|token| format!("&access_token={token}")).unwrap_or_default();
        let mut request = Request::get(format!("/{}/outputs?webrtc_id={id}{query}", service()));
        if let Some(seen) = seen {
            request = request.header("last-event-id", seen);
        }
        let request = user.into_iter().fold(request, |request, user| request.extension(Proven(user.parse().unwrap())));
        let response = self.worker.app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let piece = response.into_body().into_data_stream().next().await;
        (status, piece.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap()).unwrap_or_default())
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

/// While nobody else can decide, this worker does, and its client is told what it has decided.
#[tokio::test]
async fn a_session_that_nobody_has_claimed_is_taken_and_made_known() {
    let fleet = Fleet::new().await;
    let claimed = fleet.claim(1, "a", None).await;
    fleet.store.release(&service(), Ticket::from_random(1)).await.unwrap();
    let share = Share { sessions: NonZeroU32::new(2), of_user: NonZeroU32::new(1) };
    let provisional = |ticket: u64, id: &str, user: &str| Placed {
        ticket,
        session: id.parse().unwrap(),
        user: Some(user.parse().unwrap()),
        standing: Standing::Provisional(share),
        context: PlacedContext { id: ticket.into(), ..claimed.context.clone() },
        ..claimed.clone()
    };
    let send = async |ticket, id: &str, user| {
        let (status, _, body) = fleet.send(id, offer(), Some(&provisional(ticket, id, user))).await;
        (status, body["meta"]["error"].as_str().map(str::to_owned))
    };
    let told = |error: &str| (200, Some(error.to_owned()));
    assert_eq!(send(2, "a", "ann").await, (200, None));
    assert_eq!(send(3, "a", "bob").await, told("connection_already_exists"));
    assert_eq!(send(4, "b", "ann").await, told("user_limit_reached"));
    assert_eq!(send(5, "b", "bob").await, (200, None));
    assert_eq!(send(6, "c", "cid").await, told("concurrency_limit_reached"));
    fleet.until(async |fleet| fleet.lives("a").await && fleet.lives("b").await).await;
    assert!(!fleet.lives("c").await);
    // It is a session as any other from now on.
    let id: SessionId = "a".parse().unwrap();
    let demand = Demand::End(CloseReason::EndedByControl);
    let Told::Pending(pending) = fleet.store.ask(&service(), &id, None, &demand).await.unwrap() else { panic!() };
    let outcome = settle(&*fleet.store, &service(), &pending, PATIENCE).await.unwrap();
    assert_eq!(outcome, Some(Outcome::Ended(CloseReason::EndedByControl)));
    assert_eq!(send(7, "c", "ann").await, (200, None), "its place is free");
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

#[tokio::test]
async fn a_session_is_controlled_at_any_worker() {
    let (here, there) = {
        let here = Fleet::new().await;
        let there = Fleet::on(&here.store, "v").await;
        (here, there)
    };
    let placed = here.claim(1, "a", None).await;
    assert_eq!(here.send("a", offer(), Some(&placed)).await.0, 200);
    // Its worker has said what it is.
    here.until(async |here| {
        let seen = here.store.session(&service(), &"a".parse().unwrap()).await.unwrap();
        matches!(seen, Some(streamfleet_store::SessionView::Live(live)) if !live.detail.is_empty())
    })
    .await;
    let path = |rest: &str| format!("/{}/sessions{rest}", service());
    let own = placed.context.token.reveal();
    let at =
        async |method: &str, rest: &str, token: &str| ask(&there.worker, method, &path(rest), token, json!({})).await;
    for fleet in [&here, &there] {
        let (status, list) = ask(&fleet.worker, "GET", &path("?user=nobody"), TOKEN, Value::Null).await;
        assert_eq!((status, list), (200, json!({ "sessions": [] })));
        let (status, list) = ask(&fleet.worker, "GET", &path(""), TOKEN, Value::Null).await;
        let sessions = list["sessions"].as_array().unwrap();
        assert_eq!((status, sessions.len()), (200, 1));
        assert_eq!((&sessions[0]["id"], &sessions[0]["worker"]), (&json!("a"), &json!("w")));
    }
    assert_eq!(at("GET", "?limit=0", TOKEN).await.0, 422);
    for token in [TOKEN, &own] {
        let (status, shown) = at("GET", "/a", token).await;
        assert_eq!((status, &shown["worker"], &shown["transport"]), (200, &json!("w"), &json!("webrtc")), "{shown}");
    }
    assert_eq!(at("GET", "/a", "nobody-s-token-0123456789").await.0, 401);
    assert_eq!(at("DELETE", "/nobody", TOKEN).await.0, 404);
    let (status, data) = ask(&there.worker, "PATCH", &path("/a/data"), &own, json!({ "n": 1 })).await;
    assert_eq!((status, data), (200, json!({ "n": 1 })));
    assert_eq!(ask(&here.worker, "GET", &path("/a/data"), &own, Value::Null).await.1, json!({ "n": 1 }));
    assert_eq!(at("DELETE", "/a/tracks/nope", TOKEN).await.0, 404);
    assert_eq!(at("DELETE", "/a/tracks/%20", TOKEN).await.0, 404);
    let (status, ended) = at("DELETE", "/a", &own).await;
    assert_eq!((status, &ended["reason"]), (200, &json!("ended_by_control")), "{ended}");
    assert_eq!((here.worker.occupancy.live(), at("DELETE", "/a", TOKEN).await.0), (0, 404));
}

#[tokio::test]
async fn outputs_are_followed_at_any_worker_and_go_on_with_a_client_that_comes_to_another() {
    let here = Fleet::new().await;
    let there = Fleet::on(&here.store, "v").await;
    let placed = here.claim(1, "a", None).await;
    assert_eq!(here.send("a", offer(), Some(&placed)).await.0, 200);
    assert_eq!(there.outputs("nobody", None, None).await.0, 404);
    here.put_out("a", &[1, 2]);
    let (status, text) = there.outputs("a", None, None).await;
    let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!((status, ids.len()), (200, 2), "{text}");
    let context = ContextId::from_random(placed.context.id);
    let document = json!({ "n": 1 }).as_object().unwrap().clone();
    let contexts = here.store.clone().contexts(&service());
    contexts.write(context, document, streamfleet_store::Expected::Anything).await.unwrap();
    here.put_out("a", &[3]);
    let id: SessionId = "a".parse().unwrap();
    here.worker.sessions.end(&id, context, CloseReason::EndedByControl).await.unwrap();
    here.until(async |here| !here.lives("a").await).await;
    // It is over, and what it said last is there for who has missed it.
    let (status, text) = there.outputs("a", None, Some(ids[1])).await;
    assert_eq!((status, text.trim_end().lines().last()), (200, Some("data: 3")), "{text}");
    let last = text.strip_prefix("id: ").unwrap().lines().next().unwrap();
    assert_eq!(there.outputs("a", None, Some(last)).await.0, 204);
    let again = there.claim(2, "a", Some(placed.context.token)).await;
    assert!(again.context.resumed);
    assert_eq!(there.send("a", offer(), Some(&again)).await.0, 200);
    there.put_out("a", &[4]);
    for fleet in [&there, &here] {
        let (status, text) = fleet.outputs("a", None, Some(ids[1])).await;
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(status, 200);
        assert!(data == ["3", "4"] || fleet.name == here.name && data == ["3"], "{text}");
    }
}

#[tokio::test]
async fn a_verified_user_s_outputs_are_nobody_else_s_at_any_worker() {
    let here = Fleet::new().await;
    let there = Fleet::on(&here.store, "v").await;
    let placed = here.claim_by(Some("ann".parse().unwrap()), 1, "a", None).await;
    assert_eq!(here.send("a", offer(), Some(&placed)).await.0, 200);
    here.put_out("a", &[1]);
    let own = placed.context.token.reveal();
    for over in [false, true] {
        if over {
            let context = ContextId::from_random(placed.context.id);
            let document = json!({ "n": 1 }).as_object().unwrap().clone();
            let contexts = here.store.clone().contexts(&service());
            contexts.write(context, document, streamfleet_store::Expected::Anything).await.unwrap();
            here.worker.sessions.end(&"a".parse().unwrap(), context, CloseReason::EndedByControl).await.unwrap();
            here.until(async |here| !here.lives("a").await).await;
        }
        for fleet in [&here, &there] {
            assert_eq!(fleet.outputs("a", None, None).await.0, 401, "{over}");
            assert_eq!(fleet.outputs("a", Some("nobody-s-token-0123456789"), None).await.0, 401, "{over}");
            for token in [TOKEN, &own] {
                let (status, text) = fleet.outputs("a", Some(token), None).await;
                assert_eq!((status, text.trim_end().lines().last()), (200, Some("data: 1")), "{over} {text}");
            }
            let (status, text) = fleet.outputs_for(Some("ann"), "a", None, None).await;
            assert_eq!((status, text.trim_end().lines().last()), (200, Some("data: 1")), "{over} {text}");
            assert_eq!(fleet.outputs_for(Some("bob"), "a", None, None).await.0, 401, "{over}");
        }
    }
}

/// What control shows is told in docs/protocol.md, field by field.
#[tokio::test]
async fn every_field_that_control_shows_is_described() {
    let fleet = Fleet::new().await;
    let placed = fleet.claim_by(Some("ann".parse().unwrap()), 1, "a", None).await;
    assert_eq!(fleet.send("a", offer(), Some(&placed)).await.0, 200);
    fleet.put_out("a", &[1]);
    fleet
        .until(async |fleet| {
            let seen = fleet.store.session(&service(), &"a".parse().unwrap()).await.unwrap();
            matches!(seen, Some(streamfleet_store::SessionView::Live(live)) if !live.detail.is_empty())
        })
        .await;
    let text = include_str!("../../../../docs/protocol.md");
    let control = text.split("\n## ").find(|section| section.starts_with("Control\n")).unwrap();
    let ask = async |rest: &str| {
        let path = format!("/{}/sessions{rest}", service());
        ask(&fleet.worker, "GET", &path, TOKEN, Value::Null).await.1
    };
    let (list, one) = (ask("").await, ask("/a").await);
    for (shown, least) in [(&list["sessions"][0], 8), (&one, 10)] {
        let shown = shown.as_object().unwrap();
        assert!(shown.len() >= least, "{shown:?}");
        for field in shown.keys() {
            assert!(control.contains(&format!("\n| `{field}` | ")), "{field} is not described");
        }
    }
}
