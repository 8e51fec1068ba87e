//! A whole media loop and its clients in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{LinkConfig, Media, Transport, link};
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_session::candidate::RemoteCandidate;
use streamfleet_session::lifecycle::LifeLimits;

use super::allocations::{Spent, spent};
use super::client::{Client, Offering};
use super::hand::Hand;
use super::network::{Conditions, Network, is_rtp};
use super::relayed::Relays;
use crate::media::answer::{AnswerRequest, IceCredentials, PeerFactory, Wants, answer};
use crate::media::counters::Counters;
use crate::media::outlet::Outlet;
use crate::media::session::{Endpoint, NewSession};
use crate::media::shard::{Command, Ready, Shard};
use crate::media::shared::{Shared, Token};

/// Where the simulated worker is.
pub(crate) fn server() -> SocketAddr {
    ([198, 51, 100, 1], 5000).into()
}

/// What the worker's checks are answered with, and the client's sealed with.
pub(crate) const PASSWORD: &str = "0123456789abcdefghijklmn";
/// Datagrams of each direction that are kept for attackers.
const MAX_OVERHEARD: usize = 10_000;
/// One turn of a loop that does not rest.
const TURN: Duration = Duration::from_micros(50);

type MakeGuard = Box<dyn FnOnce(&Arc<Shared>) -> Box<dyn std::any::Any + Send>>;

/// A session that is to be opened.
pub(crate) struct Opening<'a> {
    pub(crate) offer: &'a str,
    pub(crate) id: &'a str,
    pub(crate) endpoint: Endpoint,
    pub(crate) limits: LifeLimits,
    pub(crate) early: &'a [RemoteCandidate],
    /// Makes what the session holds in the rest of the process.
    pub(crate) guard: MakeGuard,
}

impl<'a> Opening<'a> {
    pub(crate) fn new(offer: &'a str, endpoint: Endpoint) -> Self {
        Opening {
            offer,
            id: "session",
            endpoint,
            limits: World::limits(),
            early: &[],
            guard: Box::new(|_| Box::new(())),
        }
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) started: Instant,
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) network: Network,
    pub(crate) clients: Vec<Client>,
    factory: PeerFactory,
    pub(crate) out: Outlet,
    pub(super) tokens: Token,
    /// Datagrams that the worker sent to addresses of no client, and those that no client has any more.
    pub(crate) astray: Vec<(SocketAddr, usize)>,
    /// Runs every turn: the handler's side of what is tested.
    pub(crate) handler: Option<Box<dyn FnMut(Instant)>>,
    /// Sessions whose links have woken the loop.
    ready: Ready,
    /// Everything that a client sent, for attackers.
    pub(crate) overheard: Vec<(SocketAddr, Vec<u8>)>,
    /// Everything that the worker sent, and to whom.
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
    /// What the worker allocated for each RTP packet that came, and in each turn of settling.
    pub(crate) for_packets: Vec<Spent>,
    pub(crate) for_turns: Vec<Spent>,
    /// The most datagrams that one turn sent.
    pub(crate) most_sent: usize,
    /// What clients reach the worker by; without, they reach it directly.
    pub(super) relays: Option<Relays>,
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
            out: Outlet::new(),
            tokens: 0,
            astray: vec![],
            handler: None,
            ready: Ready::default(),
            overheard: vec![],
            sent: vec![],
            for_packets: vec![],
            for_turns: vec![],
            most_sent: 0,
            relays: None,
        }
    }

    pub(crate) fn limits() -> LifeLimits {
        LifeLimits { connect_timeout: Duration::from_secs(30), time_limit: None, end_grace: Duration::from_secs(1) }
    }

    /// A handler's task for the next session, and its side of the link.
    pub(crate) fn task(&self, media: Media) -> (Endpoint, Hand) {
        let (ready, token) = (self.ready.clone(), self.tokens + 1);
        let (loop_end, task_end) = link(LinkConfig::default(), Arc::new(move || ready.lock().push(token)));
        (Endpoint::Task { link: loop_end, media }, Hand::new(task_end))
    }

    /// A client that offers; its session runs `endpoint`. Returns the client's number and the session.
    pub(crate) fn call(&mut self, endpoint: Endpoint, limits: LifeLimits) -> (usize, Arc<Shared>) {
        self.call_offering(Offering::Audio, endpoint, limits)
    }

    /// The same for a client that offers something else.
    pub(crate) fn call_offering(
        &mut self,
        offering: Offering,
        endpoint: Endpoint,
        limits: LifeLimits,
    ) -> (usize, Arc<Shared>) {
        let inside: SocketAddr = ([192, 0, 2, 10 + self.clients.len() as u8], 6000).into();
        let (client, offer) = Client::offering(offering, inside, self.now);
        self.call_as(client, Opening { limits, ..Opening::new(&offer, endpoint) })
    }

    /// The same for a client that has made its offer.
    pub(crate) fn call_as(&mut self, mut client: Client, opening: Opening<'_>) -> (usize, Arc<Shared>) {
        let (shared, sdp) = self.open(opening);
        client.accept(&sdp, self.now);
        self.clients.push(client);
        (self.clients.len() - 1, shared)
    }

    /// A session for an offer that no client may ever stand behind.
    pub(crate) fn open(&mut self, opening: Opening<'_>) -> (Arc<Shared>, String) {
        self.tokens += 1;
        let credentials = IceCredentials { ufrag: self.ufrag(), pwd: PASSWORD.to_owned() };
        let request = AnswerRequest {
            offer: opening.offer,
            credentials,
            advertised: &[server()],
            wants: Wants { audio: true, video: true },
            early: opening.early,
        };
        let answered = answer(&self.factory, request, self.now).unwrap();
        let sdp = answered.sdp.clone();
        let identity = streamfleet_session::Identity {
            user_id: None,
            verified: streamfleet_session::Verification::Unverified,
            metadata: Default::default(),
        };
        let id = opening.id.parse().unwrap();
        let shared = Arc::new(Shared::new(self.tokens, id, "test".parse().unwrap(), Transport::WebRtc, &identity));
        let new = NewSession {
            answered,
            endpoint: opening.endpoint,
            limits: opening.limits,
            bounds: DelayBounds::default(),
            shared: shared.clone(),
            provider: self.factory.provider().clone(),
            relay: self.relays.as_ref().map(|_| Relays::key(&self.ufrag())),
            guard: (opening.guard)(&shared),
        };
        self.shard.handle_command(Command::Open(Box::new(new)), self.now, &mut self.out);
        (shared, sdp)
    }

    /// The worker's ufrag in the latest session.
    pub(crate) fn ufrag(&self) -> String {
        format!("ufrag{:08}", self.tokens)
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
            handler(self.now);
        }
        let ready = std::mem::take(&mut *self.ready.lock());
        self.shard.handle_ready(&ready);
        let before = spent();
        self.shard.settle(self.now, &mut self.out);
        let spent = spent() - before;
        self.for_turns.push(spent);
        self.most_sent = self.most_sent.max(self.out.len());
        for (to, data) in self.out.iter() {
            match &mut self.relays {
                None => self.network.send(self.now, server(), to, data),
                Some(relays) => {
                    if let Some((to, data)) = relays.outward(to, data, self.now) {
                        self.network.send(self.now, server(), to, &data);
                    }
                }
            }
            if self.sent.len() < MAX_OVERHEARD {
                self.sent.push((to, data.to_vec()));
            }
        }
        self.out.clear();
        for client in &mut self.clients {
            let outside = client.outside;
            client.turn(self.now, |to, data| {
                self.network.send(self.now, outside, to, data);
                if self.overheard.len() < MAX_OVERHEARD {
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
            if self.shard.has_work() {
                next = next.into_iter().chain([self.now + TURN]).min();
            }
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            while let Some(mut datagram) = self.network.receive(self.now) {
                if let (true, Some(relays)) = (datagram.to == server(), &mut self.relays) {
                    let is_rtp = is_rtp(&datagram.data);
                    for (relay, mut data) in relays.inward(datagram.from, &datagram.data, self.now) {
                        let before = spent();
                        self.shard.handle_datagram(relay, &mut data, self.now, &mut self.out);
                        let spent = spent() - before;
                        self.for_packets.extend(is_rtp.then_some(spent));
                    }
                } else if datagram.to == server() {
                    let (is_rtp, before) = (is_rtp(&datagram.data), spent());
                    self.shard.handle_datagram(datagram.from, &mut datagram.data, self.now, &mut self.out);
                    let spent = spent() - before;
                    self.for_packets.extend(is_rtp.then_some(spent));
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
