//! A whole media loop and its clients in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use streamfleet_audio::DelayBounds;
use streamfleet_net::Outbox;
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_session::lifecycle::LifeLimits;

use super::client::Client;
use super::network::{Conditions, Network};
use crate::media::answer::{AnswerRequest, IceCredentials, PeerFactory, Wants, answer};
use crate::media::counters::Counters;
use crate::media::session::{Endpoint, NewSession};
use crate::media::shard::{Command, Shard};
use crate::media::shared::{Shared, Token};

/// Where the simulated worker is.
pub(crate) fn server() -> SocketAddr {
    ([198, 51, 100, 1], 5000).into()
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) started: Instant,
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    factory: PeerFactory,
    out: Outbox,
    tokens: Token,
    /// Datagrams that the worker sent to addresses of no client, and those that no client has any more.
    pub(crate) astray: Vec<(SocketAddr, usize)>,
    /// Runs every turn: the handler's side of what is tested.
    pub(crate) handler: Option<Box<dyn FnMut(Instant) -> Vec<Token>>>,
    /// Everything that a client sent, for attackers.
    pub(crate) overheard: Vec<(SocketAddr, Vec<u8>)>,
}

impl World {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> Self {
        Self::with_factory(seed, conditions, PeerFactory::new().unwrap())
    }

    pub(crate) fn with_profile(seed: u64, conditions: Conditions, profile: SrtpProtectionProfile) -> Self {
        Self::with_factory(seed, conditions, PeerFactory::new().unwrap().with_profile(profile))
    }

    fn with_factory(seed: u64, conditions: Conditions, factory: PeerFactory) -> Self {
        let now = Instant::now();
        let counters = Arc::new(Counters::default());
        World {
            now,
            started: now,
            shard: Shard::new(
                counters.clone(),
                WallClock::new(now, std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
            ),
            counters,
            network: Network::new(seed, conditions),
            clients: vec![],
            factory,
            out: Outbox::new(),
            tokens: 0,
            astray: vec![],
            handler: None,
            overheard: vec![],
        }
    }

    pub(crate) fn limits() -> LifeLimits {
        LifeLimits { connect_timeout: Duration::from_secs(30), time_limit: None, end_grace: Duration::from_secs(1) }
    }

    /// A client that offers; its session runs `endpoint`. Returns the client's number and the session.
    pub(crate) fn call(&mut self, endpoint: Endpoint, limits: LifeLimits) -> (usize, Arc<Shared>) {
        let n = self.clients.len();
        let inside: SocketAddr = ([192, 0, 2, 10 + n as u8], 6000).into();
        let (mut client, offer) = Client::new(inside, self.now);
        let (shared, sdp) = self.open(&offer, endpoint, limits);
        client.accept(&sdp, self.now);
        self.clients.push(client);
        (n, shared)
    }

    /// A session for an offer that no client may ever stand behind.
    pub(crate) fn open(&mut self, offer: &str, endpoint: Endpoint, limits: LifeLimits) -> (Arc<Shared>, String) {
        self.tokens += 1;
        let credentials =
            IceCredentials { ufrag: format!("ufrag{:08}", self.tokens), pwd: "0123456789abcdefghijklmn".to_owned() };
        let request = AnswerRequest {
            offer,
            credentials,
            advertised: &[server()],
            wants: Wants { audio: true, video: true },
            early: &[],
        };
        let answered = answer(&self.factory, request, self.now).unwrap();
        let sdp = answered.sdp.clone();
        let identity = streamfleet_session::Identity {
            user_id: None,
            verified: streamfleet_session::Verification::Unverified,
            metadata: Default::default(),
        };
        let id = format!("session-{}", self.tokens).parse().unwrap();
        let shared = Arc::new(Shared::new(self.tokens, id, "test".parse().unwrap(), &identity));
        let new = NewSession {
            answered,
            endpoint,
            limits,
            bounds: DelayBounds::default(),
            shared: shared.clone(),
            provider: self.factory.provider().clone(),
            guard: Box::new(()),
        };
        self.shard.handle_command(Command::Open(Box::new(new)), self.now, &mut self.out);
        (shared, sdp)
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.shard.handle_command(command, self.now, &mut self.out);
    }

    /// A datagram from nowhere.
    pub(crate) fn inject(&mut self, from: SocketAddr, data: &[u8]) {
        let mut data = data.to_vec();
        self.shard.handle_datagram(from, &mut data, self.now, &mut self.out);
        self.turn();
    }

    fn turn(&mut self) {
        if let Some(handler) = &mut self.handler {
            let ready = handler(self.now);
            self.shard.handle_ready(&ready);
        }
        self.shard.settle(self.now, &mut self.out);
        for (to, data) in self.out.iter() {
            self.network.send(self.now, server(), to, data);
        }
        self.out.clear();
        for client in &mut self.clients {
            let outside = client.outside;
            client.turn(self.now, |to, data| {
                self.network.send(self.now, outside, to, data);
                if self.overheard.len() < 10_000 {
                    self.overheard.push((outside, data.to_vec()));
                }
            });
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.turn();
        loop {
            let mut next = self.network.next_at().into_iter().chain(self.shard.poll_timeout()).min();
            for client in &mut self.clients {
                next = next.into_iter().chain(client.next_at(self.now)).min();
            }
            // Handlers look around every 5 ms.
            if self.handler.is_some() {
                next = next.into_iter().chain([self.now + Duration::from_millis(5)]).min();
            }
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            while let Some(mut datagram) = self.network.receive(self.now) {
                if datagram.to == server() {
                    self.shard.handle_datagram(datagram.from, &mut datagram.data, self.now, &mut self.out);
                } else if let Some(client) = self.clients.iter_mut().find(|c| c.alive && c.outside == datagram.to) {
                    client.receive(datagram.from, &datagram.data, self.now);
                } else {
                    self.astray.push((datagram.to, datagram.data.len()));
                }
            }
            self.turn();
        }
        self.now = until;
    }
}
