//! What must hold for any input to the parts of the media loop that strangers reach and nobody else can: reading an
//! offer, answering it, and taking datagrams. The fuzz targets run these functions, and so does the replay of their
//! corpora below.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::Value;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{LinkConfig, Media, PcmFormat, Registered, Registry, TaskEnd, Transport, link};
use streamfleet_net::stun;
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_session::Identity;
use streamfleet_session::lifecycle::{CloseReason, LifeLimits};

use super::answer::{AnswerRequest, Answered, IceCredentials, MAX_REMOTE_CANDIDATES, PeerFactory, Wants};
use super::counters::Counters;
use super::outlet::Outlet;
use super::sdp::{self, SectionKind};
use super::session::{Endpoint, NewSession};
use super::shard::{Command, Shard};
use super::shared::{Shared, Stage};

#[path = "tests/client.rs"]
#[allow(clippy::duplicate_mod, reason = "the simulation has it too, and is not there without tests")]
#[allow(clippy::unwrap_used, dead_code, reason = "it is a test's client, of which fewer things are asked here")]
mod client;

use client::Client;

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 5000);
const HOME: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), 6000);
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// Reads the octets as an offer.
pub fn sdp(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(sections) = sdp::sections(&text) else { return };
    assert_eq!(sections.len(), m_lines(&text));
    for section in &sections {
        for codec in &section.codecs {
            assert!(codec.payload_type < 128);
            let mut same = section.codecs.iter().filter(|other| other.payload_type == codec.payload_type);
            assert!(same.all(|other| other == codec), "a payload type means two things in {section:?}");
        }
        if let Some(codec) = sdp::choose(section) {
            assert!(!section.rejected && matches!(section.kind, SectionKind::Media(_)));
            assert!(section.codecs.contains(codec));
        }
    }
}

fn m_lines(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("m=")).count()
}

/// Answers the octets as an offer.
pub fn answer(bytes: &[u8]) {
    let offer = String::from_utf8_lossy(bytes);
    let Some(Answered { sdp: text, tracks, remote_candidates, .. }) = answered(&offer, Instant::now()) else { return };
    assert!((1..=2).contains(&tracks.len()) && remote_candidates <= MAX_REMOTE_CANDIDATES);
    // What a client is told it can read, m-line by m-line, one codec each.
    let answer = sdp::sections(&text).expect("an answer is SDP");
    assert_eq!(answer.len(), m_lines(&offer));
    for section in &answer {
        assert!(section.codecs.len() <= 1, "{section:?} of {text}");
    }
    for track in &tracks {
        let Some(section) = answer.iter().find(|section| section.mid == track.mid) else { panic!("no {track:?}") };
        assert_eq!(section.codecs.first().map(|codec| codec.payload_type), Some(track.payload_type), "{text}");
    }
    assert!(text.contains("a=candidate:1 1 udp ") && text.contains("a=end-of-candidates\r\n"), "{text}");
}

fn answered(offer: &str, now: Instant) -> Option<Answered> {
    let request = AnswerRequest {
        offer,
        credentials: credentials(),
        advertised: &[SERVER],
        wants: Wants { audio: true, video: true },
        early: &[],
    };
    super::answer::answer(factory(), request, now).ok()
}

fn credentials() -> IceCredentials {
    IceCredentials { ufrag: "ufragoftheworker".to_owned(), pwd: "0123456789abcdefghijklmn".to_owned() }
}

/// One certificate for all inputs: making it takes longer than most of them.
fn factory() -> &'static PeerFactory {
    static FACTORY: OnceLock<PeerFactory> = OnceLock::new();
    FACTORY.get_or_init(|| PeerFactory::new().expect("a certificate can be made"))
}

/// Reads the octets as what happens around a session: see [`Step`]. The first octet says what the session runs, and
/// whether all of it happens before or after the client has connected.
pub fn datagrams(bytes: &[u8]) {
    let Some((&[kind], mut rest)) = bytes.split_first_chunk::<1>() else { return };
    let moment = if kind & 2 == 0 { Moment::Connected } else { Moment::Answered };
    let mut live = Live::new(if kind & 1 == 0 { Runs::Echo } else { Runs::Frames });
    if moment == Moment::Connected {
        live.run(Duration::from_secs(1));
        assert_eq!(live.shared.stage(), Stage::Active);
        assert!(live.shared.has_channel());
    }
    for _ in 0..MAX_STEPS {
        let Some((step, after)) = Step::read(rest) else { break };
        rest = after;
        live.step(&step);
    }
    for (stranger, sent) in &live.astray {
        let received = live.strange.get(stranger).copied().unwrap_or_default();
        assert!(*sent <= 3 * received, "{stranger} was sent {sent} octets for {received}");
    }
    if moment == Moment::Connected {
        // The client has not hung up, and nobody else can: not even who sends under its address.
        if live.now < live.until - (MAX_TIME - TIME_LIMIT) {
            assert_eq!(live.shared.stage(), Stage::Active);
        }
        // Nobody but the client can answer the worker's checks, so media has not moved, and nobody got more than they had
        // sent themselves.
        assert_eq!(live.shared.remote(), Some(HOME));
        for (stranger, sent) in &live.astray {
            let received = live.strange.get(stranger).copied().unwrap_or_default();
            assert!(*sent <= received, "{stranger} was sent {sent} octets for {received}");
        }
    }
    live.end();
}

/// Things that happen in one input: more find nothing that these do not, and take longer.
const MAX_STEPS: usize = 48;
/// Simulated time of one input at most: longer than the session.
const MAX_TIME: Duration = Duration::from_secs(90);
/// The session's limit, counted from its connection.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What a client sent and an attacker may send again.
const MAX_OVERHEARD: usize = 32;
/// Exchanges at one instant, of which an undisturbed handshake takes about ten.
const MAX_TURNS: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Answered,
    Connected,
}

#[derive(Clone, Copy, Debug)]
enum Runs {
    Echo,
    Frames,
}

/// One thing that happens. Two octets say what, with their argument; those of some kinds follow.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    /// Time passes.
    Wait(Duration),
    /// A datagram arrives.
    Raw { from: SocketAddr, data: &'a [u8] },
    /// Something that the client sent arrives again: the how manieth, the latest first; one octet is changed; the end is
    /// cut off.
    Replay { from: SocketAddr, back: usize, at: usize, mask: u8, cut: usize },
    /// A connectivity check arrives that knows the worker's password, with what follows as its priority and tie breaker.
    Check { from: SocketAddr, nomination: stun::Nomination, role: stun::Role, priority: u32 },
    /// The client sends this as its audio.
    Audio(&'a [u8]),
    /// The client says this on its data channel.
    Text(&'a [u8]),
}

impl<'a> Step<'a> {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[kind, argument], rest) = bytes.split_first_chunk::<2>()?;
        let from = match kind >> 3 & 7 {
            0..=3 => HOME,
            n => SocketAddr::new(STRANGER, u16::from(n)),
        };
        let (data, after) = rest.split_at(usize::from(argument).min(rest.len()));
        Some(match kind & 7 {
            0 => (Step::Wait(Duration::from_millis(argument.into())), rest),
            1 => (Step::Wait(Duration::from_millis(100 * u64::from(argument))), rest),
            2 => (Step::Raw { from, data }, after),
            3 | 4 => {
                let (&[at, mask, cut], rest) = rest.split_first_chunk::<3>()?;
                let (back, at, cut) = (argument.into(), at.into(), cut.into());
                (Step::Replay { from, back, at, mask, cut }, rest)
            }
            5 => {
                let (&priority, rest) = rest.split_first_chunk::<4>()?;
                let nominates = argument & 1 == 1;
                let nomination = if nominates { stun::Nomination::UseCandidate } else { stun::Nomination::None };
                let tie_breaker = u64::from(argument) << 56;
                let controlling = argument & 2 == 0;
                let role = match controlling {
                    true => stun::Role::Controlling(tie_breaker),
                    false => stun::Role::Controlled(tie_breaker),
                };
                (Step::Check { from, nomination, role, priority: u32::from_be_bytes(priority) }, rest)
            }
            6 => (Step::Audio(data), after),
            _ => (Step::Text(data), after),
        })
    }
}

/// A media loop with one session and its client, without a network between: what one sends the other has at once.
struct Live {
    now: Instant,
    until: Instant,
    shard: Shard,
    out: Outlet,
    client: Client,
    client_ufrag: String,
    shared: Arc<Shared>,
    overheard: VecDeque<Vec<u8>>,
    /// Octets from strangers, and octets to them.
    strange: HashMap<SocketAddr, usize>,
    astray: HashMap<SocketAddr, usize>,
    /// The handler's end, at which nobody listens.
    _task: Option<TaskEnd>,
}

impl Live {
    fn new(runs: Runs) -> Self {
        let now = Instant::now();
        let clock = WallClock::new(now, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let mut shard = Shard::new(Arc::new(Counters::default()), clock);
        let mut out = Outlet::new();
        let (mut client, offer) = Client::new(HOME, now);
        let answered = answered(&offer, now).expect("the client's offer is a good one");
        client.accept(&answered.sdp, now);
        let name = "fuzz".parse().expect("a service's name");
        let id = "session".parse().expect("a session's id");
        let shared = Arc::new(Shared::new(1, id, name, Transport::WebRtc, &Identity::default()));
        let (endpoint, task) = match runs {
            Runs::Echo => match Registry::builtin().get("echo", Value::Null).expect("echo is built in") {
                Registered::Packets(handler) => (Endpoint::Packets(handler), None),
                Registered::Handler(_) => panic!("echo runs on the loop"),
            },
            Runs::Frames => {
                let (loop_end, task_end) = link(LinkConfig::default(), Arc::new(|| {}));
                let format = PcmFormat::mono(24_000);
                let media = Media::Frames { input: format, output: format };
                (Endpoint::Task { link: loop_end, media }, Some(task_end))
            }
        };
        let client_ufrag = answered.remote.ufrag.clone();
        let new = NewSession {
            answered,
            endpoint,
            limits: LifeLimits {
                connect_timeout: Duration::from_secs(30),
                time_limit: Some(TIME_LIMIT),
                end_grace: Duration::from_secs(1),
            },
            bounds: DelayBounds::default(),
            shared: shared.clone(),
            provider: factory().provider().clone(),
            relay: None,
            guard: Box::new(()),
        };
        shard.handle_command(Command::Open(Box::new(new)), now, &mut out);
        Live {
            now,
            until: now + MAX_TIME,
            shard,
            out,
            client,
            client_ufrag,
            shared,
            overheard: VecDeque::new(),
            strange: HashMap::new(),
            astray: HashMap::new(),
            _task: task,
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Wait(time) => self.run(time),
            Step::Raw { from, data } => self.inject(from, data.to_vec()),
            Step::Replay { from, back, at, mask, cut } => {
                let Some(mut data) = self.overheard.get(back % MAX_OVERHEARD).cloned() else { return };
                if let Some(octet) = data.get_mut(at) {
                    *octet ^= mask;
                }
                data.truncate(data.len().saturating_sub(cut));
                self.inject(from, data);
            }
            Step::Check { from, nomination, role, priority } => {
                let credentials = credentials();
                let request = stun::BindingRequest {
                    transaction: stun::TransactionId([7; 12]),
                    remote_ufrag: &credentials.ufrag,
                    local_ufrag: &self.client_ufrag,
                    priority,
                    role,
                    nomination,
                };
                let mut data = Vec::new();
                request.write(credentials.pwd.as_bytes(), &mut data).expect("both ufrags are short");
                self.inject(from, data);
            }
            Step::Audio(payload) => {
                self.client.script = Some(vec![payload.to_vec()]);
                self.run(client::FRAME);
            }
            Step::Text(text) => {
                if self.shared.stage() == Stage::Active && self.shared.has_channel() && self.client.alive {
                    self.client.say(&String::from_utf8_lossy(text), self.now);
                    self.exchange();
                }
            }
        }
    }

    fn inject(&mut self, from: SocketAddr, mut data: Vec<u8>) {
        if from != HOME {
            *self.strange.entry(from).or_default() += data.len();
        }
        self.shard.handle_datagram(from, &mut data, self.now, &mut self.out);
        self.exchange();
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let until = (self.now + time).min(self.until);
        self.exchange();
        loop {
            let next = self.shard.poll_timeout().into_iter().chain(self.client.next_at(self.now)).min();
            let Some(at) = next.filter(|at| *at <= until) else { break };
            assert!(at > self.now, "a timer of the past");
            self.now = at;
            self.exchange();
        }
        self.now = self.now.max(until);
    }

    /// Both sides work until neither has anything to say.
    fn exchange(&mut self) {
        for _ in 0..MAX_TURNS {
            self.shard.settle(self.now, &mut self.out);
            let mut rest = !self.shard.has_work();
            for (to, data) in self.out.iter() {
                rest = false;
                if to == HOME {
                    self.client.receive(SERVER, data, self.now);
                } else {
                    *self.astray.entry(to).or_default() += data.len();
                }
            }
            self.out.clear();
            let mut sent = Vec::new();
            self.client.turn(self.now, |_, data| sent.push(data.to_vec()));
            for mut data in sent {
                rest = false;
                self.overheard.truncate(MAX_OVERHEARD - 1);
                self.overheard.push_front(data.clone());
                self.shard.handle_datagram(HOME, &mut data, self.now, &mut self.out);
            }
            if rest {
                return;
            }
        }
        panic!("the loop never comes to rest");
    }

    /// However it stands by now, control can end it, and nothing is left.
    fn end(mut self) {
        self.until += Duration::from_secs(10);
        self.shard.handle_command(Command::End(1, CloseReason::EndedByControl), self.now, &mut self.out);
        self.run(Duration::from_secs(3));
        assert!(matches!(self.shared.stage(), Stage::Closed(_)), "{:?}", self.shared.stage());
        assert_eq!(self.shard.len(), 0);
        self.out.clear();
        self.shard.settle(self.now + Duration::from_secs(3_600), &mut self.out);
        assert!(self.out.is_empty() && !self.shard.has_work());
        assert_eq!(self.shard.poll_timeout(), None);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::Path;

    /// Runs every file of a target's corpus through its function, and demands that there are some.
    fn replay(target: &str, function: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            // The function's own message does not know which input broke it.
            let outcome = catch_unwind(|| function(&input));
            assert!(outcome.is_ok(), "{} breaks it", path.display());
            inputs += 1;
        }
        assert!(inputs >= 8, "the corpus of {target} has only {inputs} inputs");
    }

    #[test]
    fn sdp() {
        replay("sdp", super::sdp);
    }

    #[test]
    fn answer() {
        replay("answer", super::answer);
    }

    #[test]
    fn datagrams() {
        replay("datagrams", super::datagrams);
    }
}
