//! What relays of an installation tell each other, over UDP.
//!
//! Flows that threads name are gathered for a moment and sent to every peer; what peers send is known to all threads. Nothing is
//! acknowledged: what lasts is told again. Before clients come to a relay it asks its peers for all that they know: a load
//! balancer that has one more relay spreads the calls anew.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use streamfleet_relay::Announced;
use streamfleet_relay::announce::{Announcer, Listener, MOST, Question, SKEW, Said};
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout, timeout_at};

use super::told::Elsewhere;

/// Flows that wait to be told; a burst of new calls of a second. Of more, the rest is told with the next round.
pub(super) const WAITING: usize = 8_192;
/// How long flows are gathered: calls that begin together are told together, and none has moved by then.
const GATHERED: Duration = Duration::from_millis(20);
/// How often names are looked up: replicas come and go.
const LOOK_UP: Duration = Duration::from_secs(5);
/// For a resolver to answer.
const LOOK_UP_TIME: Duration = Duration::from_secs(3);
/// Peers at most, whatever a name says: each gets every flow.
const MAX_PEERS: usize = 64;
/// Larger than any announcement.
const ROOM: usize = 2_048;
/// How long a peer takes to the next word of its answer, before another is asked.
const ANSWERS: Duration = Duration::from_millis(150);
/// How long a relay asks before it begins without: calls that come to it recover by their next ICE check.
const ASKS: Duration = Duration::from_secs(2);
/// How long somebody who has asked is told of flows though no name leads to him yet.
const GUEST: Duration = Duration::from_secs(30);
/// Questions answered while one can be played back: relays do not begin more often.
const MAX_QUESTIONS: usize = 64;
/// Datagrams of an answer in a row; then the one who has asked gets a moment to take them.
const IN_A_ROW: usize = 32;
const MOMENT: Duration = Duration::from_millis(1);

/// One relay's side of it.
pub(super) struct Peers {
    socket: UdpSocket,
    /// `host:port`; a name stands for all of its addresses.
    names: Vec<String>,
    known: Mutex<Known>,
    announcer: Mutex<Announcer>,
    listener: Listener,
    elsewhere: Arc<Elsewhere>,
}

/// What a peer has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing, or that it knows none.
    None,
    /// A part.
    Some,
    /// All that it knows.
    All,
}

/// To whom flows are told.
#[derive(Default)]
struct Known {
    /// What the names lead to.
    found: BTreeSet<SocketAddr>,
    /// Who has asked lately, and until when he is told.
    guests: Vec<(SocketAddr, Instant)>,
}

impl Known {
    fn all(&self, now: Instant) -> Vec<SocketAddr> {
        let guests = self.guests.iter().filter(|(guest, until)| *until > now && !self.found.contains(guest));
        self.found.iter().chain(guests.map(|(guest, _)| guest)).take(MAX_PEERS).copied().collect()
    }

    fn welcome(&mut self, guest: SocketAddr, now: Instant) {
        self.guests.retain(|(other, until)| *until > now && *other != guest);
        if self.guests.len() < MAX_PEERS {
            self.guests.push((guest, now + GUEST));
        }
    }
}

/// Questions that were answered: one that is played back is not answered again.
#[derive(Default)]
struct Answered(VecDeque<(Question, Instant)>);

impl Answered {
    /// Whether this one is new, and there is time for it.
    fn take(&mut self, question: Question, now: Instant) -> bool {
        while self.0.front().is_some_and(|(_, at)| now.duration_since(*at) > 2 * SKEW) {
            self.0.pop_front();
        }
        let is_new = self.0.len() < MAX_QUESTIONS && self.0.iter().all(|(other, _)| *other != question);
        if is_new {
            self.0.push_back((question, now));
        }
        is_new
    }
}

impl Peers {
    /// Binds the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn bind(
        address: SocketAddr,
        names: Vec<String>,
        announcer: Announcer,
        listener: Listener,
        elsewhere: Arc<Elsewhere>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        Ok(Self { socket, names, known: Mutex::default(), announcer: Mutex::new(announcer), listener, elsewhere })
    }

    /// Asks one peer after the other for all flows that are known, until one has told them or there is no time left.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn catch_up(&self) -> io::Result<()> {
        let asked = async {
            self.look_up_once().await?;
            let mut peers = self.known.lock().all(Instant::now());
            peers.shuffle(&mut rand::rng());
            for peer in peers {
                let (question, asked) = self.say(|announcer| announcer.ask(unix()));
                // Who is not there does not answer.
                let _ = self.socket.send_to(&asked, peer).await;
                match self.hear_all(peer, question).await? {
                    Heard::All => {
                        tracing::info!(%peer, flows = self.elsewhere.len(), "knows the flows of other relays");
                        break;
                    }
                    // It may have begun just now, as this one.
                    Heard::None | Heard::Some => {}
                }
            }
            Ok(())
        };
        timeout(ASKS, asked).await.unwrap_or(Ok(()))
    }

    /// Hears a peer's answer. What others say meanwhile is heard too, and is not waited for.
    async fn hear_all(&self, peer: SocketAddr, asked: Question) -> io::Result<Heard> {
        let (mut room, mut count) = ([0; ROOM], 0);
        let mut until = tokio::time::Instant::now() + ANSWERS;
        while let Ok(received) = timeout_at(until, self.receive(&mut room)).await {
            match received? {
                Some((Said::Flows(flows), from)) => {
                    if from == peer {
                        count += flows.len();
                        until = tokio::time::Instant::now() + ANSWERS;
                    }
                    self.elsewhere.tell(flows);
                }
                Some((Said::ThatIsAll(question, flows), _)) if question == asked => {
                    return Ok(match flows {
                        0 => Heard::None,
                        // One of a hundred may be lost: it is told again.
                        flows if count * 100 >= flows as usize * 99 => Heard::All,
                        _ => Heard::Some,
                    });
                }
                // Somebody else who begins, or the end of another answer.
                Some((Said::Question(_) | Said::ThatIsAll(..), _)) | None => {}
            }
        }
        Ok(if count == 0 { Heard::None } else { Heard::Some })
    }

    /// What the announcer says, which goes on for ever.
    fn say<T>(&self, mut word: impl FnMut(&mut Announcer) -> Option<T>) -> T {
        let mut announcer = self.announcer.lock();
        loop {
            match word(&mut announcer) {
                Some(said) => return said,
                None => announcer.renew(rand::random()),
            }
        }
    }

    /// Tells, hears, answers and looks up names until it is dropped.
    ///
    /// # Errors
    /// The socket cannot be received from any more.
    pub(super) async fn run(self, mut flows: mpsc::Receiver<Announced>) -> io::Result<()> {
        // Who asks while others are answered asks the next relay, or again.
        let (questions, mut asked) = mpsc::channel::<(SocketAddr, Question)>(1);
        tokio::try_join!(self.tell(&mut flows), self.hear(&questions), self.answer(&mut asked), self.look_up())
            .map(|_| ())
    }

    async fn tell(&self, flows: &mut mpsc::Receiver<Announced>) -> io::Result<()> {
        let mut gathered = Vec::with_capacity(WAITING);
        while flows.recv_many(&mut gathered, WAITING).await > 0 {
            sleep(GATHERED).await;
            while gathered.len() < WAITING
                && let Ok(flow) = flows.try_recv()
            {
                gathered.push(flow);
            }
            // Own threads hear it too: the kernel may spread clients anew over them.
            self.elsewhere.tell(gathered.iter().copied());
            let peers = self.known.lock().all(Instant::now());
            for some in gathered.chunks(MOST).filter(|_| !peers.is_empty()) {
                let said = self.say(|announcer| announcer.say(some, unix()));
                for peer in &peers {
                    // Who is not there now is told again.
                    let _ = self.socket.send_to(&said, peer).await;
                }
            }
            gathered.clear();
        }
        Ok(())
    }

    async fn hear(&self, questions: &mpsc::Sender<(SocketAddr, Question)>) -> io::Result<()> {
        let (mut room, mut answered) = ([0; ROOM], Answered::default());
        loop {
            match self.receive(&mut room).await? {
                Some((Said::Flows(flows), _)) => self.elsewhere.tell(flows),
                Some((Said::Question(question), from)) => {
                    let now = Instant::now();
                    if answered.take(question, now) {
                        self.known.lock().welcome(from, now);
                        let _ = questions.try_send((from, question));
                    }
                }
                Some((Said::ThatIsAll(..), _)) | None => {}
            }
        }
    }

    /// All that is known, to each who asks.
    async fn answer(&self, asked: &mut mpsc::Receiver<(SocketAddr, Question)>) -> io::Result<()> {
        while let Some((to, question)) = asked.recv().await {
            let (mut row, mut count) = (0, 0);
            for part in self.elsewhere.all() {
                count += part.len();
                for some in part.chunks(MOST) {
                    let said = self.say(|announcer| announcer.say(some, unix()));
                    let _ = self.socket.send_to(&said, to).await;
                    row += 1;
                    if row % IN_A_ROW == 0 {
                        sleep(MOMENT).await;
                    }
                }
            }
            let end =
                self.say(|announcer| announcer.that_is_all(question, u32::try_from(count).unwrap_or(u32::MAX), unix()));
            let _ = self.socket.send_to(&end, to).await;
        }
        Ok(())
    }

    /// What comes next, and from whom. `None` for what no relay of ours has said.
    async fn receive(&self, room: &mut [u8; ROOM]) -> io::Result<Option<(Said, SocketAddr)>> {
        let (len, from) = match self.socket.recv_from(room).await {
            Ok(received) => received,
            // What the network says of something sent earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.listener.hear(&mut room[..len], unix()) {
            Ok(said) => Ok(Some((said, from))),
            Err(why) => {
                tracing::debug!(%why, %from, "an announcement is not taken");
                Ok(None)
            }
        }
    }

    async fn look_up(&self) -> io::Result<()> {
        loop {
            self.look_up_once().await?;
            sleep(LOOK_UP).await;
        }
    }

    async fn look_up_once(&self) -> io::Result<()> {
        let own = self.socket.local_addr()?;
        let (mut found, mut is_whole) = (BTreeSet::new(), true);
        for name in &self.names {
            match timeout(LOOK_UP_TIME, lookup_host(name)).await {
                Ok(Ok(addresses)) => found.extend(addresses.filter(|address| *address != own)),
                Ok(Err(_)) | Err(_) => is_whole = false,
            }
        }
        // A resolver that is away takes no peer from us.
        if is_whole || !found.is_empty() {
            self.known.lock().found = found;
        }
        Ok(())
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use streamfleet_relay::{Elsewhere as _, FlowKey, SessionHandle, Target};
    use streamfleet_session::ufrag::SessionKey;

    use super::*;

    fn flow(client: u16) -> Announced {
        let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], 5000)), key: SessionKey::from_bytes([1; 16]) };
        Announced { client: ([192, 0, 2, 1], client).into(), door: 3478, target, session: SessionHandle(7) }
    }

    const KEY: [u8; 32] = [7; 32];

    async fn peers(key: [u8; 32], names: Vec<String>) -> (Peers, Arc<Elsewhere>) {
        let elsewhere = Arc::new(Elsewhere::new(1_000, Instant::now()));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (announcer, listener) = (Announcer::new(1, &key, rand::random()), Listener::new([(1, key)]));
        (Peers::bind(any, names, announcer, listener, elsewhere.clone()).await.unwrap(), elsewhere)
    }

    /// Whether the first `count` flows are known there.
    fn knows(elsewhere: &Elsewhere, count: u16) -> bool {
        (0..count).all(|n| elsewhere.find(&FlowKey::new(flow(n).client, 3478)) == Some(flow(n)))
    }

    #[tokio::test]
    async fn what_one_is_told_all_know() {
        let mut names = Vec::new();
        let mut all = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        for key in [KEY, KEY, [8; 32]] {
            let (peers, elsewhere) = peers(key, Vec::new()).await;
            names.push(peers.socket.local_addr().unwrap().to_string());
            let (_sender, flows) = mpsc::channel(1);
            running.spawn(async move {
                let _sender = _sender;
                peers.run(flows).await
            });
            all.push(elsewhere);
        }
        let stranger = all.pop().unwrap();
        let (peers, own) = peers(KEY, names).await;
        all.push(own);
        let (sender, flows) = mpsc::channel(100);
        running.spawn(peers.run(flows));
        let known = async {
            // Names are looked up meanwhile; what was told before is told again.
            loop {
                for client in 0..60 {
                    sender.send(flow(client)).await.unwrap();
                }
                sleep(Duration::from_millis(30)).await;
                if all.iter().all(|elsewhere| knows(elsewhere, 60)) {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(20), known).await.expect("all know all");
        assert_eq!(stranger.len(), 0, "it is sealed under another key");
    }

    #[tokio::test]
    async fn who_begins_knows_what_the_others_know() {
        // One that is gone, one with another key, one that knows.
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let ((stranger, _), (wise, its)) = (peers([8; 32], Vec::new()).await, peers(KEY, Vec::new()).await);
        its.tell((0..500).map(flow));
        let names = [&stranger, &wise].map(|peers| peers.socket.local_addr().unwrap().to_string());
        let mut running = tokio::task::JoinSet::new();
        let (told, flows) = mpsc::channel(1);
        running.spawn(wise.run(flows));
        running.spawn(async move {
            let (_told, flows) = mpsc::channel(1);
            stranger.run(flows).await
        });
        let (newcomer, known) = peers(KEY, [&[gone][..], &names].concat()).await;
        newcomer.catch_up().await.unwrap();
        assert!(knows(&known, 500), "{} flows", known.len());
        // It is told from then on, though no name leads to it.
        told.send(flow(600)).await.unwrap();
        let (_told, flows) = mpsc::channel(1);
        running.spawn(newcomer.run(flows));
        let heard = async {
            while known.find(&FlowKey::new(flow(600).client, 3478)).is_none() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), heard).await.expect("a guest is told");
    }

    /// A peer is not waited for because another one talks, and not believed to have answered because another one has.
    #[tokio::test]
    async fn what_others_say_is_no_answer() {
        let gone =
            [(); 3].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string());
        let ((wise, its), (begun, _)) = (peers(KEY, Vec::new()).await, peers(KEY, Vec::new()).await);
        its.tell((0..500).map(flow));
        let answering = [&wise, &begun].map(|peers| peers.socket.local_addr().unwrap().to_string());
        let (newcomer, known) = peers(KEY, [&gone[..], &answering].concat()).await;
        let to = newcomer.socket.local_addr().unwrap();
        let mut running = tokio::task::JoinSet::new();
        let mut told = Vec::new();
        for peers in [wise, begun] {
            let (sender, flows) = mpsc::channel(1);
            told.push(sender);
            running.spawn(peers.run(flows));
        }
        running.spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            let mut announcer = Announcer::new(1, &KEY, [9; 8]);
            let (question, _) = announcer.ask(unix()).unwrap();
            loop {
                for said in [announcer.say(&[flow(900)], unix()), announcer.that_is_all(question, 1, unix())] {
                    socket.send_to(&said.unwrap(), to).await?;
                }
                sleep(ANSWERS / 5).await;
            }
        });
        newcomer.catch_up().await.unwrap();
        assert!(knows(&known, 500), "{} flows", known.len());
    }

    #[tokio::test]
    async fn who_is_alone_begins_alone() {
        let (alone, known) = peers(KEY, Vec::new()).await;
        alone.catch_up().await.unwrap();
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn a_question_is_answered_once() {
        let mut announcer = Announcer::new(1, &KEY, [3; 8]);
        let mut ask = || announcer.ask(Duration::ZERO).unwrap().0;
        let (mut answered, start, first) = (Answered::default(), Instant::now(), ask());
        assert!(answered.take(first, start));
        assert!(!answered.take(first, start + 2 * SKEW), "played back while it could be");
        for _ in 1..MAX_QUESTIONS {
            assert!(answered.take(ask(), start));
        }
        assert!(!answered.take(ask(), start), "more than there are relays");
        assert!(answered.take(ask(), start + 2 * SKEW + Duration::from_secs(1)));
    }

    #[test]
    fn guests_are_told_for_a_while() {
        let (mut known, start) = (Known::default(), Instant::now());
        let at = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        known.found.insert(at(1));
        known.welcome(at(1), start);
        known.welcome(at(2), start);
        known.welcome(at(2), start + GUEST / 2);
        assert_eq!(known.all(start + GUEST), [at(1), at(2)]);
        assert_eq!(known.all(start + GUEST * 2), [at(1)]);
        for n in 0..200 {
            known.welcome(at(n), start);
        }
        assert_eq!(known.all(start).len(), MAX_PEERS);
    }
}
