//! WebSockets and telephone streams through a router that is killed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_client::{
    Call, Client, EndReason, Incoming, Message, PhoneOptions, Reconnect, Resume, ServiceUrl, SessionId, SocketOptions,
};
use streamfleet_tests::{Shape, Twiml, judged};

use crate::caller::{Caller, PLAYED_HZ, SAID_HZ};
use crate::redis_lost::Outage;
use crate::{PATIENCE, World, blocking, in_a_fleet, measured, plain, shape, until};

/// Its handler plays the tone that it was told once, and forgets it with itself.
const SERVICE: &str = "arguments";
/// The tones of those that come over one kind of socket.
const TONES: [f32; 3] = [SAID_HZ, 550.0, PLAYED_HZ];

/// By what a client comes back to its session.
enum Way {
    /// Its session's newest token.
    WebSocket(Resume),
    /// Its telephone company asks what to do with the call now that the stream is over, as it was told to.
    Telephone { sid: String, action: String },
}

/// A session over a socket.
struct Socket {
    id: SessionId,
    way: Way,
    caller: Caller,
    hz: f32,
}

fn address(world: &World, router: usize) -> Result<ServiceUrl> {
    Ok(world.url(router, SERVICE).parse()?)
}

/// What a company is told that asks a router; `sid` is the call's.
fn twiml(world: &World, router: usize, route: &str, sid: &str) -> Result<Twiml> {
    blocking(|| Twiml::ask(&format!("{}/telephone/{route}", world.url(router, SERVICE)), sid))
}

async fn websocket(world: &World, router: usize, earlier: Option<(SessionId, Resume)>) -> Result<(Call, SessionId)> {
    let mut options = SocketOptions::new(address(world, router)?);
    options.timeouts.admission = Duration::ZERO;
    options.reconnect = Reconnect::Never;
    if let Some((id, token)) = earlier {
        (options.websocket_id, options.resume) = (id, Some(token));
    }
    let id = options.websocket_id.clone();
    Ok((Client::connect_socket(options).await?, id))
}

/// A stream that shows what the TwiML has it show. Its id is never an earlier one's.
async fn stream(world: &World, router: usize, sid: &str, shows: &Twiml) -> Result<(Call, SessionId)> {
    let mut options = PhoneOptions::new(address(world, router)?);
    (options.incoming, options.call_sid) = (Incoming::Skip, sid.to_owned());
    options.parameters.clone_from(&shows.parameters);
    let id = options.stream_sid.clone();
    Ok((Client::connect_phone(options).await?, id))
}

impl Socket {
    async fn websocket(world: &World, router: usize, hz: f32) -> Result<Self> {
        let (call, id) = websocket(world, router, None).await?;
        let caller = Caller::of(call, id.clone());
        Ok(Self { id, way: Way::WebSocket(caller.token().await?), caller, hz })
    }

    async fn telephone(world: &World, router: usize, hz: f32) -> Result<Self> {
        let sid = PhoneOptions::new(address(world, router)?).call_sid;
        let shows = twiml(world, router, "incoming", &sid)?;
        let (call, id) = stream(world, router, &sid, &shows).await?;
        let action = shows.action.context("no way back")?;
        Ok(Self { caller: Caller::of(call, id.clone()), id, way: Way::Telephone { sid, action }, hz })
    }

    /// Tells its handler what to play. That is once: the handler has no other way to know it.
    async fn tell(&self, world: &World, router: usize) -> Result<()> {
        // Nothing tells a telephone company that its stream was taken.
        until("the session", PATIENCE, async || Ok((self.view(world, router)?.0 == 200).then_some(()))).await?;
        let body = json!({ "webrtc_id": self.id.as_str(), "inputs": [self.hz] });
        let (status, answer) = world.ask(router, "POST", &format!("/{SERVICE}/input_hook"), &body)?;
        ensure!(status == 200 && answer["status"] == "success", "{status} {answer}");
        Ok(())
    }

    fn view(&self, world: &World, router: usize) -> Result<(u16, Value)> {
        world.ask(router, "GET", &format!("/{SERVICE}/sessions/{}", self.id), &Value::Null)
    }

    /// Comes back by a router, as soon as the socket has broken.
    async fn back(self, world: &World, router: usize) -> Result<Self> {
        let (_, reason) = self.caller.ended(PATIENCE).await?;
        ensure!(matches!(reason, EndReason::Lost(_)), "{reason:?}");
        let Self { id, way, hz, .. } = self;
        let (caller, way) = match way {
            Way::WebSocket(token) => {
                let (call, _) = websocket(world, router, Some((id.clone(), token))).await?;
                let caller = Caller::of(call, id.clone());
                let token = caller.token().await?;
                (caller, Way::WebSocket(token))
            }
            Way::Telephone { sid, action } => {
                let shows = twiml(world, router, &action, &sid)?;
                ensure!(
                    shows.parameters.get("streamfleet_session").map(String::as_str) == Some(id.as_str()),
                    "{shows:?}"
                );
                let (call, stream) = stream(world, router, &sid, &shows).await?;
                let action = shows.action.context("no way back")?;
                (Caller::of(call, stream), Way::Telephone { sid, action })
            }
        };
        Ok(Self { id, way, caller, hz })
    }
}

/// What is the same in a session for all of its life, and what it has been through.
fn told(view: &Value) -> (Value, Vec<&str>) {
    let changes = view["changes"].as_array().into_iter().flatten();
    let changes = changes.filter_map(|change| change["change"].as_str());
    // A client may be back before its worker has missed it.
    (json!([view["transport"], view["since"]]), changes.filter(|change| *change != "detached").collect())
}

/// Sessions through one router, and what has to stay as it is.
struct Sockets {
    sockets: Vec<Socket>,
    begun: Vec<(Value, String)>,
    deaths: usize,
}

impl Sockets {
    async fn begin(world: &World) -> Result<Self> {
        let (mut sockets, mut begun) = (Vec::new(), Vec::new());
        for hz in TONES {
            sockets.push(Socket::websocket(world, 0, hz).await?);
            sockets.push(Socket::telephone(world, 0, hz).await?);
        }
        for socket in &sockets {
            // By a router that lives on: which one tells of a session says nothing of it.
            socket.tell(world, 1).await?;
            socket.caller.hears(socket.hz, Instant::now()).await?;
            begun.push((told(&socket.view(world, 1)?.1).0, world.worker_of(SERVICE, socket.id.as_str()).await?));
        }
        Ok(Self { sockets, begun, deaths: 0 })
    }

    /// Kills the router that they go through: each is heard through the next one, as if nothing had been.
    async fn outlive_their_router(&mut self, world: &mut World) -> Result<Duration> {
        let killed = Instant::now();
        world.fleet.routers[self.deaths].server.kill()?;
        self.deaths += 1;
        let mut heard = killed;
        for socket in std::mem::take(&mut self.sockets) {
            let socket = socket.back(world, self.deaths).await?;
            heard = heard.max(socket.caller.hears(socket.hz, killed).await?);
            self.sockets.push(socket);
        }
        for (socket, (same, _)) in self.sockets.iter().zip(&self.begun) {
            let (status, view) = socket.view(world, self.deaths)?;
            let (now, changes) = told(&view);
            let expected = ["connecting", "active", "attached", "attached"];
            ensure!(status == 200 && now == *same && changes == expected[..2 + self.deaths], "{view}");
            ensure!(!socket.caller.was_told(|message| *message == Message::SendInput), "a handler asks anew");
        }
        Ok(heard - killed)
    }

    /// Waits until the store has all of them, each once and where it was.
    async fn await_known(&self, world: &World) -> Result<()> {
        let expected: BTreeMap<_, _> = self
            .sockets
            .iter()
            .map(|socket| socket.id.to_string())
            .zip(self.begun.iter().map(|(_, at)| at.clone()))
            .collect();
        let known = async || {
            let held = world.held(SERVICE).await?.into_iter();
            let held: BTreeMap<_, _> =
                held.map(|live| (live.session.to_string(), live.at.worker.to_string())).collect();
            Ok((held == expected && world.places(SERVICE).await? == expected.len() as u32).then_some(()))
        };
        until("each is known", PATIENCE, known).await.map(drop)
    }

    async fn hang_up(self, world: &mut World) -> Result<()> {
        for socket in self.sockets {
            socket.caller.hang_up().await.context("it was shared")?;
        }
        world.await_no_places().await
    }
}

/// Twice: what a client gets when it comes back leads it back once more.
#[test]
fn websockets_and_telephones_through_a_killed_router_have_their_sessions_again_by_another() -> Result<()> {
    judged(|| {
        in_a_fleet(Shape { routers: 3, ..shape(plain(&[SERVICE])) }, async |world: &mut World| {
            let mut sockets = Sockets::begin(world).await?;
            for _ in 0..2 {
                let took = sockets.outlive_their_router(world).await?;
                measured(
                    "router killed: six WebSockets and telephones, one after the other, are heard by another",
                    took,
                );
                sockets.await_known(world).await?;
            }
            sockets.hang_up(world).await
        })
    })
}

/// Which session a call has nobody but its worker knows then: while the store is away, and when it has come back with nothing.
#[test]
fn they_have_them_again_without_the_store_and_when_it_has_lost_all() -> Result<()> {
    judged(|| {
        in_a_fleet(Shape { routers: 3, ..shape(plain(&[SERVICE])) }, async |world: &mut World| {
            let mut sockets = Sockets::begin(world).await?;
            Outage::Restarted.begin(world)?;
            let took = sockets.outlive_their_router(world).await?;
            measured("router killed without a store: six WebSockets and telephones are heard by another", took);
            Outage::Restarted.end(world)?;
            sockets.await_known(world).await?;
            sockets.outlive_their_router(world).await?;
            sockets.await_known(world).await?;
            sockets.hang_up(world).await
        })
    })
}
