//! What relays of an installation tell each other, over UDP.
//!
//! Flows that threads name are gathered for a moment and sent to every peer; what peers send is known to all threads. Nothing is
//! acknowledged: what lasts is told again.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use streamfleet_relay::Announced;
use streamfleet_relay::announce::{Announcer, Listener, MOST};
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

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

/// One relay's side of it.
pub(super) struct Peers {
    socket: UdpSocket,
    /// `host:port`; a name stands for all of its addresses.
    names: Vec<String>,
    addresses: Mutex<Vec<SocketAddr>>,
    elsewhere: Arc<Elsewhere>,
}

impl Peers {
    /// Binds the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn bind(address: SocketAddr, names: Vec<String>, elsewhere: Arc<Elsewhere>) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        Ok(Self { socket, names, addresses: Mutex::default(), elsewhere })
    }

    /// Tells, hears and looks up names until it is dropped.
    ///
    /// # Errors
    /// The socket cannot be received from any more, or all nonces are used up.
    pub(super) async fn run(
        self,
        mut flows: mpsc::Receiver<Announced>,
        mut announcer: Announcer,
        listener: Listener,
    ) -> io::Result<()> {
        tokio::try_join!(self.tell(&mut flows, &mut announcer), self.hear(&listener), self.look_up()).map(|_| ())
    }

    async fn tell(&self, flows: &mut mpsc::Receiver<Announced>, announcer: &mut Announcer) -> io::Result<()> {
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
            let peers = self.addresses.lock().clone();
            for some in gathered.chunks(MOST).filter(|_| !peers.is_empty()) {
                let said = announcer.say(some, unix()).ok_or_else(|| io::Error::other("all nonces are used up"))?;
                for peer in &peers {
                    // Who is not there now is told again.
                    let _ = self.socket.send_to(&said, peer).await;
                }
            }
            gathered.clear();
        }
        Ok(())
    }

    async fn hear(&self, listener: &Listener) -> io::Result<()> {
        let mut room = [0; ROOM];
        loop {
            let len = match self.socket.recv_from(&mut room).await {
                Ok((len, _)) => len,
                // What the network says of something sent earlier.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error),
            };
            match listener.hear(&mut room[..len], unix()) {
                Ok(flows) => self.elsewhere.tell(flows),
                Err(why) => tracing::debug!(%why, "an announcement is not taken"),
            }
        }
    }

    async fn look_up(&self) -> io::Result<()> {
        let own = self.socket.local_addr()?;
        loop {
            let (mut found, mut is_whole) = (BTreeSet::new(), true);
            for name in &self.names {
                match timeout(LOOK_UP_TIME, lookup_host(name)).await {
                    Ok(Ok(addresses)) => found.extend(addresses.filter(|address| *address != own)),
                    Ok(Err(_)) | Err(_) => is_whole = false,
                }
            }
            // A resolver that is away takes no peer from us.
            if is_whole || !found.is_empty() {
                *self.addresses.lock() = found.into_iter().take(MAX_PEERS).collect();
            }
            sleep(LOOK_UP).await;
        }
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

    #[tokio::test]
    async fn what_one_is_told_all_know() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (key, started) = ([7; 32], Instant::now());
        let others = [Arc::new(Elsewhere::new(100, started)), Arc::new(Elsewhere::new(100, started))];
        let stranger = Arc::new(Elsewhere::new(100, started));
        let mut names = Vec::new();
        let mut running = tokio::task::JoinSet::new();
        for (elsewhere, key) in [(&others[0], key), (&others[1], key), (&stranger, [8; 32])] {
            let peers = Peers::bind(any, Vec::new(), elsewhere.clone()).await.unwrap();
            names.push(peers.socket.local_addr().unwrap().to_string());
            let (_sender, flows) = mpsc::channel(1);
            running.spawn(async move {
                let _sender = _sender;
                peers.run(flows, Announcer::new(1, &key, [0; 8]), Listener::new([(1, key)])).await
            });
        }
        let own = Arc::new(Elsewhere::new(100, started));
        let peers = Peers::bind(any, names, own.clone()).await.unwrap();
        let (sender, flows) = mpsc::channel(100);
        running.spawn(peers.run(flows, Announcer::new(1, &key, [1; 8]), Listener::new([(1, key)])));
        let known = async {
            // Names are looked up meanwhile; what was told before is told again.
            loop {
                for client in 0..60 {
                    sender.send(flow(client)).await.unwrap();
                }
                sleep(Duration::from_millis(30)).await;
                let all = |elsewhere: &Arc<Elsewhere>| {
                    (0..60).all(|client| elsewhere.find(&FlowKey::new(flow(client).client, 3478)) == Some(flow(client)))
                };
                if others.iter().chain([&own]).all(all) {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(20), known).await.expect("all know all");
        assert_eq!(stranger.len(), 0, "it is sealed under another key");
    }
}
