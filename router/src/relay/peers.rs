//! What relays of an installation tell each other, over UDP.
//!
//! Flows that threads name are gathered for a moment and sent to every peer; what peers send is known to all threads. Nothing is
//! acknowledged: what lasts is told again. Before clients come to a relay it asks its peers for all that they know: a load
//! balancer that has one more relay spreads the calls anew. It is given a cookie first, and asks again with it: who plays back what
//! others have asked, in the name of somebody else, has nobody flooded.

mod known;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use streamfleet_relay::Announced;
use streamfleet_relay::announce::{Announcer, Listener, MOST, Question, Said, Unheard};
use streamfleet_relay::cookie::{Cookie, Cookies};
use streamfleet_relay::told::Whose;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout, timeout_at};

pub(crate) use self::known::Endpoints;
use self::known::Known;
use self::socket::PeerSocket;
use super::PeersPlan;
use super::told::Elsewhere;

/// Flows that wait to be told; a burst of new calls of a second. Of more, the rest is told with the next round.
pub(super) const WAITING: usize = 8_192;
/// How long flows are gathered: calls that begin together are told together, and none has moved by then.
const GATHERED: Duration = Duration::from_millis(20);
/// Larger than any announcement.
const ROOM: usize = 2_048;
/// How long a peer takes to the next word of its answer, before another is asked.
const ANSWERS: Duration = Duration::from_millis(150);
/// How long a relay asks before it begins without: calls that come to it recover by their next ICE check.
const ASKS: Duration = Duration::from_secs(2);
/// Datagrams to each peer in a row; then it gets a moment to take them. A relay that has taken over the calls of another, or is asked
/// for all that it knows, has thousands.
const IN_A_ROW: usize = 32;
const MOMENT: Duration = Duration::from_millis(1);
/// How often what the kernel has dropped is looked at.
const LOOKS: Duration = Duration::from_secs(1);

/// One relay's side of it.
pub(super) struct Peers {
    socket: PeerSocket,
    known: Known,
    announcer: Mutex<Announcer>,
    listener: Mutex<Listener>,
    cookies: Cookies,
    elsewhere: Arc<Elsewhere>,
    counts: Arc<Counts>,
    started: Instant,
}

/// What is not heard.
#[derive(Default)]
pub(super) struct Counts {
    unheard: [AtomicU64; Unheard::ALL.len()],
    /// What the kernel has dropped.
    overflowed: AtomicU64,
}

impl Counts {
    /// Datagrams that said nothing, for this reason.
    pub(super) fn unheard(&self, why: Unheard) -> u64 {
        self.unheard[why as usize].load(Relaxed)
    }

    /// Datagrams that the kernel has dropped because those before them had not been taken.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }
}

/// Who has asked for all that is known, and may have it.
type Asked = (SocketAddr, Question);

/// Rests now and then, so that whoever is sent to keeps up.
#[derive(Default)]
struct Pace(usize);

impl Pace {
    /// One more datagram has gone to each.
    async fn step(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(IN_A_ROW) {
            sleep(MOMENT).await;
        }
    }
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

impl Peers {
    /// Binds the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn bind(
        plan: PeersPlan,
        announcer: Announcer,
        listener: Listener,
        elsewhere: Arc<Elsewhere>,
    ) -> io::Result<Self> {
        let PeersPlan { listen, names, endpoints } = plan;
        let socket = PeerSocket::bind(listen)?;
        Ok(Self {
            known: Known::new(names, endpoints, socket.local_addr()),
            socket,
            announcer: Mutex::new(announcer),
            listener: Mutex::new(listener),
            cookies: Cookies::new(&rand::random()),
            elsewhere,
            counts: Arc::default(),
            started: Instant::now(),
        })
    }

    /// What it does not hear.
    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Asks one peer after the other for all flows that are known, until one has told them or there is no time left.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn catch_up(&self) -> io::Result<()> {
        let asked = async {
            self.known.look_up_once().await;
            let mut peers = self.known.all(Instant::now());
            peers.shuffle(&mut rand::rng());
            for peer in peers {
                let (question, asked) = self.say(|announcer| announcer.ask(unix()));
                // Who is not there does not answer.
                let _ = self.socket.send_to(&asked, peer).await;
                match self.hear_all(peer, question).await? {
                    Heard::All => {
                        tracing::info!(%peer, flows = self.elsewhere.count(Whose::Others), "knows the flows of other relays");
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
                    self.elsewhere.tell(flows, Whose::Others);
                }
                Some((Said::Cookie(question, cookie), from)) if question == asked && from == peer => {
                    let again = self.say(|announcer| announcer.ask_with(cookie, question, unix()));
                    // One that does not arrive is one that is not answered: the next peer is asked.
                    let _ = self.socket.send_to(&again, peer).await;
                    until = tokio::time::Instant::now() + ANSWERS;
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
                Some((Said::Question(..) | Said::Cookie(..) | Said::ThatIsAll(..), _)) | None => {}
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
        let (questions, mut asked) = mpsc::channel::<Asked>(1);
        tokio::try_join!(
            self.tell(&mut flows),
            self.hear(&questions),
            self.answer(&mut asked),
            async { self.known.look_up().await },
            async { self.count().await },
        )
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
            self.elsewhere.tell(gathered.iter().copied(), Whose::Own);
            let (peers, mut pace) = (self.known.all(Instant::now()), Pace::default());
            for some in gathered.chunks(MOST).filter(|_| !peers.is_empty()) {
                let said = self.say(|announcer| announcer.say(some, unix()));
                for peer in &peers {
                    // Who is not there now is told again.
                    let _ = self.socket.send_to(&said, *peer).await;
                }
                pace.step().await;
            }
            gathered.clear();
        }
        Ok(())
    }

    async fn hear(&self, questions: &mpsc::Sender<Asked>) -> io::Result<()> {
        let mut room = [0; ROOM];
        loop {
            match self.receive(&mut room).await? {
                Some((Said::Flows(flows), _)) => self.elsewhere.tell(flows, Whose::Others),
                Some((Said::Question(question, cookie), from)) => self.asked(question, cookie, from, questions).await,
                Some((Said::Cookie(..) | Said::ThatIsAll(..), _)) | None => {}
            }
        }
    }

    /// Who has shown that he is there is answered, and everybody else told how to show it.
    async fn asked(
        &self,
        question: Question,
        cookie: Option<Cookie>,
        from: SocketAddr,
        questions: &mpsc::Sender<Asked>,
    ) {
        let now = self.started.elapsed();
        if cookie.is_some_and(|cookie| self.cookies.is_good(&cookie, from, question, now)) {
            self.known.welcome(from, Instant::now());
            // Another one is being answered: who asks asks the next relay.
            let _ = questions.try_send((from, question));
        } else {
            let cookie = self.cookies.make(from, question, now);
            let given = self.say(|announcer| announcer.give(cookie, question, unix()));
            // Who is not there any more does not ask again.
            let _ = self.socket.send_to(&given, from).await;
        }
    }

    /// All that is known, to each who asks.
    async fn answer(&self, asked: &mut mpsc::Receiver<Asked>) -> io::Result<()> {
        while let Some((to, question)) = asked.recv().await {
            let (mut pace, mut count) = (Pace::default(), 0);
            for part in self.elsewhere.all() {
                count += part.len();
                for some in part.chunks(MOST) {
                    let said = self.say(|announcer| announcer.say(some, unix()));
                    // Whoever asks counts what has come.
                    let _ = self.socket.send_to(&said, to).await;
                    pace.step().await;
                }
            }
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let end = self.say(|announcer| announcer.that_is_all(question, count, unix()));
            let _ = self.socket.send_to(&end, to).await;
        }
        Ok(())
    }

    /// Looks at what the kernel has dropped.
    async fn count(&self) -> io::Result<()> {
        let mut before = 0;
        loop {
            // A kernel that does not say it counts nothing. Its count wraps.
            if let Ok(drops) = self.socket.receive_drops() {
                let more = drops.wrapping_sub(std::mem::replace(&mut before, drops));
                self.counts.overflowed.fetch_add(more.into(), Relaxed);
            }
            sleep(LOOKS).await;
        }
    }

    /// What comes next, and from whom. `None` for what no relay of ours has said.
    async fn receive(&self, room: &mut [u8; ROOM]) -> io::Result<Option<(Said, SocketAddr)>> {
        let (len, from) = match self.socket.recv_from(room).await {
            Ok(received) => received,
            // What the network says of something sent earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        };
        // A name may lead back here.
        if self.announcer.lock().has_said(&room[..len]) {
            return Ok(None);
        }
        match self.listener.lock().hear(&mut room[..len], unix()) {
            Ok(said) => Ok(Some((said, from))),
            Err(why) => {
                self.counts.unheard[why as usize].fetch_add(1, Relaxed);
                tracing::debug!(%why, %from, "an announcement is not taken");
                Ok(None)
            }
        }
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
